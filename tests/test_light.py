"""Frames without any light on a good pixel are told at once, in the same words by every method."""

import numpy as np
import pendel
import pytest
from pendel.recipes.solve import solve_on
from scan import make_data, make_model

METHODS = {
    "reconstruct": lambda model, *given: pendel.reconstruct(model, *given, epochs=3, progress=False),
    "polish": lambda model, *given: pendel.polish(model, *given, np.ones(model.shape), progress=False),
    "lbfgs": lambda model, *given: pendel.lbfgs(model, *given, progress=False),
    "multiscale": lambda model, *given: pendel.multiscale(model, *given, levels=0, progress=False),
    "multiscale, flat": lambda model, *given: pendel.multiscale(model, *given, "flat", levels=0, progress=False),
    "solve": lambda model, *given: pendel.solve(model.experiment, model.crystal, *given, progress=False),
    "solve, flat": lambda model, *given: solve_on(model, *given, "flat", progress=False),
    "solve, no counts": lambda model, *given: solve_on(model, *given, counts=False, progress=False),
    "phase": lambda _, *given: pendel.kinematic.phase(*given),
    "kinematic start": lambda model, *given: pendel.kinematic_start(model, *given, progress=False),
}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def data():
    return make_data(np.random.default_rng(0))


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.uint16])
@pytest.mark.parametrize("method", METHODS)
def test_dark_frames_are_refused_by_every_method(model, data, method, dtype, monkeypatch):
    monkeypatch.setattr("pendel.fit.objective.Objective.evaluate", None)  # nothing is fitted before
    with pytest.raises(ValueError, match=r"^data: expected some intensity on good pixels, got none"):
        METHODS[method](model, np.zeros(data.shape, dtype), None)
    lit = np.zeros(data.shape, dtype)
    lit[:, 3, 4] = 7
    for mask in (lit == 0, (lit == 0)[0]):
        with pytest.raises(ValueError, match=r"^data: expected some intensity on good pixels, got none"):
            METHODS[method](model, lit, mask)


@pytest.mark.parametrize("method", METHODS)
def test_frames_without_a_good_pixel_are_refused_by_every_method(model, data, method):
    for mask in (np.zeros(data.shape, bool), np.zeros(data.shape[1:], bool)):
        with pytest.raises(ValueError, match=r"^mask: expected at least one good pixel, got none"):
            METHODS[method](model, data, mask)


def test_held_out_pixels_are_no_light_for_the_fit(model, data):
    """All the light on pixels that the fit does not see: seed 0 holds out one of every two but those in the middle."""
    from pendel.model.pixels import free_pixels

    free = free_pixels(data.shape, 0.5)
    with pytest.raises(ValueError, match="data: expected some intensity on good pixels, got none"):
        pendel.reconstruct(model, free.astype(float), free_fraction=0.5, epochs=1, progress=False)
