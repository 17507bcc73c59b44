"""Frames sharpened before they are phased: what comes back, what dead pixels do, when it is tried."""

from types import SimpleNamespace

import numpy as np
import pytest
from pendel.model.blur import Blur
from pendel.recipes import sharpening
from pendel.recipes.sharpening import phase_blurred, sharpened

WIDTH = (0.7, 0.6)


@pytest.fixture
def frames(rng):
    """Fringes finer than the blur, two frames."""
    row, col = np.mgrid[:24, :26]
    fringes = 1 + np.cos(1.6 * row + 0.5 * col)
    return 100 * np.stack([fringes, 0.3 * fringes[::-1]]) * np.exp(-((row - 12) ** 2 + (col - 13) ** 2) / 60)


def distance(found, truth):
    return np.linalg.norm(np.sqrt(found) - np.sqrt(truth)) / np.linalg.norm(np.sqrt(truth))


def test_fringes_come_back(frames):
    blurred = Blur(WIDTH).forward(frames)
    found = sharpened(blurred, None, WIDTH)
    assert distance(found, frames) < 0.5 * distance(blurred, frames)  # 0.45
    assert (found > 0).all() and found.sum() == pytest.approx(frames.sum(), rel=1e-3)
    np.testing.assert_array_equal(sharpened(blurred, np.ones(frames.shape, bool), WIDTH), found)


def test_dead_pixels_are_not_looked_at(frames):
    blurred = Blur(WIDTH).forward(frames)
    mask = np.ones(frames.shape[1:], bool)
    mask[10:13, 11:13] = False
    found = sharpened(np.where(mask, blurred, np.nan), mask, WIDTH)
    np.testing.assert_array_equal(sharpened(np.where(mask, blurred, 1e6), mask, WIDTH), found)
    assert distance(found[:, mask], frames[:, mask]) < 0.6 * distance(blurred[:, mask], frames[:, mask])


@pytest.mark.parametrize(
    ("plain", "sharp", "known", "wanted"),
    [
        (0.09, None, (0.0, 0.0), (0, (0.0, 0.0))),  # little more than noise: not tried
        (0.5, 0.4, (0.0, 0.0), (1, (0.7, 0.7))),
        (0.5, 0.4, (0.3, 0.0), (1, (0.3, 0.0))),
        (0.5, 0.6, (0.3, 0.0), (0, (0.3, 0.0))),
    ],
)
def test_what_fits_better_is_taken(frames, monkeypatch, plain, sharp, known, wanted):
    results = [SimpleNamespace(chi=plain), SimpleNamespace(chi=sharp)]
    given = iter(results)
    monkeypatch.setattr(sharpening, "phase", lambda data, mask, seed: next(given))
    phased, width = phase_blurred(frames, None, lambda: 1e-3, known, seed=0)
    assert (results.index(phased), width) == wanted
