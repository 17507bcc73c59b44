"""Partial coherence: closed forms of its covariance, and the model against a sum over directions and wavelengths."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from pendel import Coherence, Experiment, Model
from pendel.experiment.coherence import ENOUGH
from scan import ARM, STRONG, make_crystal, make_experiment

COHERENCE = Coherence(horizontal=0.5e-6, vertical=0.9e-6, bandwidth=2e-4)


def blur_of(coherence, experiment, modes):
    """Covariance (2, 2) of `Coherence.spreads`."""
    weights, directions = coherence.spreads(experiment, modes)
    return (directions.T * weights) @ directions


def test_covariance_of_a_beam_of_one_direction_and_many_wavelengths():
    experiment = make_experiment()
    covariance = Coherence(bandwidth=1e-4).covariance(experiment)
    h = experiment.frame @ experiment.h
    np.testing.assert_allclose(covariance, 1e-8 * np.outer(h, h))
    # across the detector's plane h is k (1 - cos 2 theta) long, in it k sin 2 theta
    shifts, weights = Coherence(bandwidth=1e-4, modes=3).settings(experiment, 1e-6)
    across = 1e-4 * experiment.k * (1 - math.cos(experiment.two_theta))
    assert weights @ shifts[:, 2] ** 2 == pytest.approx(across**2)
    blur = blur_of(Coherence(bandwidth=1e-4), experiment, 1)
    pixel = 2 * math.pi / experiment.field_of_view
    assert np.trace(blur) == pytest.approx((1e-4 * experiment.k * math.sin(experiment.two_theta) / pixel) ** 2)
    # all of it follows the shift
    assert np.abs(blur_of(Coherence(bandwidth=1e-4), experiment, 3)).max() < 1e-12 * np.trace(blur)


def test_vertical_coherence_blurs_rows_of_a_horizontal_arm():
    experiment = make_experiment(arm=(("y+", 0.7),))
    length = 2e-6
    blur = blur_of(Coherence(vertical=length), experiment, 1)
    pixel = 2 * math.pi / experiment.field_of_view
    np.testing.assert_allclose(blur, [[(1 / (length * pixel)) ** 2, 0], [0, 0]], atol=1e-12)
    # a horizontal spread of 1/l turns the beam by 1/(l k): along x by cos 2 theta, along z by sin 2 theta
    shifts, weights = Coherence(horizontal=length, modes=2).settings(experiment, 1e-6)
    np.testing.assert_allclose(np.sqrt(weights @ shifts[:, 2] ** 2), math.sin(0.7) / length)


@pytest.mark.parametrize("modes", (2, 5))
def test_settings_and_blur_have_the_covariance(modes):
    experiment = make_experiment()
    covariance = COHERENCE.covariance(experiment)
    shifts, weights = Coherence(0.5e-6, 0.9e-6, 2e-4, modes).settings(experiment, 1e-6)
    assert weights.sum() == pytest.approx(1) and np.abs(weights @ shifts).max() < 1e-9 * np.abs(shifts).max()
    found = (weights * shifts.T) @ shifts
    axes = np.stack([experiment.e_row, experiment.e_col]) * (2 * math.pi / experiment.field_of_view)
    found = found + axes.T @ blur_of(COHERENCE, experiment, modes) @ axes
    np.testing.assert_allclose(found, covariance, atol=1e-9 * np.abs(covariance).max())


def test_squares_are_those_of_the_beam():
    np.testing.assert_allclose(COHERENCE.squares, (4e12, 1 / 0.81e-12, 4e-8), rtol=1e-14)
    again = Coherence.of_squares(COHERENCE.squares, 4)
    np.testing.assert_allclose(dataclasses.astuple(again), (0.5e-6, 0.9e-6, 2e-4, 4), rtol=1e-14)
    assert Coherence.of_squares((0, 0, 0)) == Coherence() and not Coherence().squares.any()
    assert again.with_modes(2).modes == 2 and again.count(make_experiment(), 1.0) == 4


@pytest.mark.parametrize("modes", (1, 2, 5))
def test_slopes_of_settings_and_spreads_are_the_derivatives(rng, modes):
    experiment = make_experiment()
    p = COHERENCE.squares
    by_shift, by_weight = COHERENCE.settings_slopes(experiment, modes), COHERENCE.spreads_slopes(experiment, modes)
    assert by_shift.shape == (modes, 3, 3) and by_weight.shape == (3, 3)
    direction = p * rng.normal(size=3)

    def moved(h):
        there = Coherence.of_squares(p + h * direction, modes)
        return there.settings(experiment, 1.0)[0], there.spreads(experiment, modes)[0]

    for i, slope in enumerate((by_shift @ direction, by_weight @ direction)):
        h, size = 1e-3, np.abs(moved(0)[i]).max()
        found = (8 * (moved(h / 2)[i] - moved(-h / 2)[i]) - (moved(h)[i] - moved(-h)[i])) / (6 * h)
        np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-11 * size)
        left = [np.abs(moved(s)[i] - moved(0)[i] - s * slope).max() for s in (1e-2, 1e-3)]
        # a single setting has no shift, and is linear in the rest
        assert left[0] <= 1e-12 * size if modes == 1 else np.log10(left[0] / left[1]) == pytest.approx(2, abs=0.05)


def test_without_a_bandwidth_the_rest_has_one_direction():
    """What two spreads leave beside their smear along the frames is across both, (3)."""
    experiment = make_experiment()
    weights, directions = Coherence(0.5e-6, 0.9e-6).spreads(experiment, 2)
    assert weights[0] > 0 and not weights[1:].any()
    covariance, n = Coherence(0.5e-6, 0.9e-6).covariance(experiment), experiment.frame @ experiment.k_h / experiment.k
    rest = covariance - np.outer(covariance @ n, covariance @ n) / (n @ covariance @ n)
    assert np.linalg.matrix_rank(rest, tol=1e-9 * np.abs(rest).max()) == 1
    axes = np.stack([experiment.e_row, experiment.e_col]) * (experiment.field_of_view / (2 * math.pi))
    np.testing.assert_allclose(
        weights[0] * np.outer(directions[0], directions[0]), axes @ rest @ axes.T, atol=1e-12 * np.abs(rest).max()
    )
    # and for a beam that smears nothing along them, all of it is in the plane
    flat = make_experiment(arm=(("y+", 0.7),))
    np.testing.assert_allclose(Coherence(vertical=1e-6).spreads(flat, 3)[0], (0, 1e12, 0), rtol=1e-14)


def test_as_many_settings_as_the_box_asks_for():
    experiment = make_experiment()
    across = math.sqrt(COHERENCE.covariance(experiment)[2, 2])
    counts = [len(COHERENCE.settings(experiment, phase / across)[0]) for phase in (0.6, 0.7, 1.5, 3, 50)]
    assert counts[0] == 1 and counts[-1] == 9 and counts == sorted(counts) and len(set(counts)) > 3
    share = np.linspace(0, 1, 50)
    for phase in (0.7, 1.5, 3.0):
        shifts, weights = COHERENCE.settings(experiment, phase / across)
        found = np.cos(share[:, None] * shifts[:, 2] * phase / across) @ weights
        assert np.abs((1 - share) * (found - np.exp(-0.5 * (phase * share) ** 2))).max() < 1.01 * ENOUGH
    full = Coherence()
    assert len(full.settings(experiment, 1.0)[0]) == 1 and not blur_of(full, experiment, 1).any()


def scan(**changes):
    return Experiment(
        **{
            "energy": 9 * 1.602176634e-16,
            "distance": 0.5,
            "pixel_size": 110e-6,
            "detector_shape": (36, 36),
            "arm": ARM,
            "rocking_axis": "y+",
            "rocking_angles": np.deg2rad(0.05) * (np.arange(5) - 2),
        }
        | changes
    )


@pytest.mark.parametrize("coupling", ("kinematic", "dynamical"))
def test_model_is_the_sum_over_directions_and_wavelengths(rng, coupling):
    """On a rolled detector; each direction and wavelength by its own dq, whose exit ramp moves the pattern."""
    experiment = scan()
    n = experiment.far_shape()
    step = experiment.field_of_view / n
    shape = (12, 12, 12)
    voxel = (step / math.tan(experiment.two_theta), step, step)
    grid = shape, voxel
    S = np.zeros(shape, complex)
    S[3:9, 3:9, 3:9] = make_crystal(rng, (6, 6, 6)) + 0.3
    options = {"coupling": coupling, "dtype": "complex128", "polarization": {"sigma": 1.0}}
    coherent = Model(experiment, STRONG, *grid, **options)

    coherence = Coherence(horizontal=60e-9, vertical=110e-9, bandwidth=1e-3, modes=7)
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    weights /= weights.sum()
    directions = experiment.frame[:, 0] / coherence.horizontal, experiment.frame[:, 1] / coherence.vertical
    h = experiment.frame @ experiment.h
    expected = 0.0
    for (a, w_a), (b, w_b), (c, w_c) in itertools.product(zip(nodes, weights, strict=True), repeat=3):
        moved = experiment.dq + a * directions[0] + b * directions[1] + c * coherence.bandwidth * h
        expected = expected + w_a * w_b * w_c * coherent.intensities(S, [2], dq=moved)
    model = Model(experiment, STRONG, *grid, coherence=coherence, **options)
    found = model.intensities(S, [2])
    sharp = coherent.intensities(S, [2])
    inner = np.s_[:, 9:-9, 9:-9]

    def apart(D):
        return np.linalg.norm((D - expected)[inner]) / np.linalg.norm(expected[inner])

    one = Coherence(60e-9, 110e-9, 1e-3, modes=1)
    in_plane = Model(experiment, STRONG, *grid, coherence=one, **options).intensities(S, [2])
    # measured: 0.36 or more, 0.12 without the smear along the frames, 0.0016 or less
    assert apart(sharp) > 0.3 and 0.05 < apart(in_plane) < 0.2 and apart(found) < 0.004


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"horizontal": 0}, ValueError, "horizontal: expected a finite number > 0, got 0"),
        ({"vertical": "1"}, TypeError, "vertical: expected"),
        ({"bandwidth": -1}, ValueError, "bandwidth: expected"),
        ({"modes": 0}, ValueError, "modes: expected an integer >= 1"),
    ),
)
def test_bad_coherence(changes, error, message):
    with pytest.raises(error, match=message):
        Coherence(**changes)
