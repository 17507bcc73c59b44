"""Scans of unequal rocking steps: put on an even grid for phasing, and found as well as even ones."""

import numpy as np
import pytest
from cube import QUIET, make_model, strained
from pendel import Model, compare, kinematic, multiscale
from pendel.recipes.kinematic_starts import kinematic_start
from pendel.recipes.levels import coarse

N = 20
EVEN = make_model(threads=1).experiment
STEP = float(np.diff(EVEN.rocking_angles).mean())
JITTER = np.clip(np.random.default_rng(0).normal(0, 0.2, N), -0.45, 0.45)
ANGLES = {
    "missing": np.delete(EVEN.rocking_angles, 12),
    "three missing": np.delete(EVEN.rocking_angles, [3, 13, 14]),
    "repeated": np.insert(EVEN.rocking_angles, 8, EVEN.rocking_angles[8]),
    "read back": EVEN.rocking_angles + 0.06 * STEP * np.sin(np.arange(N)),
    "jittered": EVEN.rocking_angles + STEP * JITTER,
    "falling": np.delete(EVEN.rocking_angles, 12)[::-1],
    "to and fro": np.r_[EVEN.rocking_angles[::2], EVEN.rocking_angles[1::2][::-1]],
}


def at(angles):
    """The cube's model at other rocking angles, dq = 0 where it was."""
    even = make_model(threads=1)
    place = np.interp(even.experiment.centre_angle, np.sort(angles), np.argsort(angles)) if len(angles) > 1 else 0
    experiment = even.experiment.with_angles(angles, float(place))
    return Model(experiment, even.crystal, even.shape, even.voxel, polarization={"sigma": 1.0}, threads=1)


@pytest.fixture(scope="module")
def truth():
    """A cube of little phase, which phasing finds."""
    return strained(make_model(threads=1), [(0.3, 0.2, -0.25)], [0.3], [0.8])[1]


def frames(model, S):
    data = model.intensities(S).astype(float)
    return np.random.default_rng(1).poisson(data * (1e5 / data.max())).astype(np.int32)


def test_an_even_scan_is_given_back_as_it_is():
    data, mask = np.ones((N, N, N)), np.ones((N, N), bool)
    found = kinematic.even_scan(EVEN, data, mask)
    assert found.experiment is EVEN and found.data is data and found.mask is mask and found.missing == 0
    assert kinematic.even_experiment(EVEN) is EVEN


def test_missing_frames_are_masked_and_all_others_are_as_measured(truth):
    model = at(ANGLES["missing"])
    data = frames(model, truth)
    found = kinematic.even_scan(model.experiment, data)
    assert found.missing == 1 and not found.mask[12].any() and np.delete(found.mask, 12, axis=0).all()
    assert (np.delete(found.data, 12, axis=0) == data).all()
    np.testing.assert_allclose(found.experiment.rocking_angles, EVEN.rocking_angles, atol=1e-9 * STEP)
    np.testing.assert_allclose(found.experiment.dq, EVEN.dq, atol=1e-6 * np.abs(EVEN.dq).max())


def test_repeated_frames_are_averaged_each_pixel_over_its_good_ones(truth):
    model = at(ANGLES["repeated"])
    data = frames(model, truth).astype(float)
    mask = np.ones(data.shape, bool)
    data[8], mask[8, 3, 4] = 3 * data[9], False
    data[8, 3, 4] = np.nan
    found = kinematic.even_scan(model.experiment, data, mask)
    expected = 2 * data[9]
    expected[3, 4] = data[9, 3, 4]
    np.testing.assert_allclose(found.data[8], expected, rtol=1e-6)
    assert found.mask.all() and len(found.data) == N


@pytest.mark.parametrize("name", ["read back", "jittered"])
def test_frames_between_are_those_of_the_even_grid(truth, name):
    model = at(ANGLES[name])
    found = kinematic.even_scan(model.experiment, model.intensities(truth))
    even = at(found.experiment.rocking_angles)
    expected = even.intensities(truth)
    missed = np.abs(np.where(found.mask, found.data - expected, 0)).sum()
    # 7 % by the polynomial, where the frames as they are miss by 16 %; half a step is half a speckle of this scan
    assert missed < 0.1 * expected.sum()
    assert missed < 0.75 * np.abs(at(ANGLES[name]).intensities(truth)[: len(expected)] - expected).sum()


def test_a_falling_scan_falls_and_any_order_is_sorted():
    falling = kinematic.even_experiment(at(ANGLES["falling"]).experiment)
    assert (np.diff(falling.rocking_angles) < 0).all() and falling.n_frames == N
    sorted_ = kinematic.even_experiment(at(ANGLES["to and fro"]).experiment)
    np.testing.assert_allclose(sorted_.rocking_angles, EVEN.rocking_angles, atol=1e-9 * STEP)


@pytest.mark.parametrize("name", ANGLES)
def test_a_start_is_as_good_as_that_of_the_even_scan(truth, name):
    def start(model):
        found = kinematic_start(model, frames(model, truth), trial_epochs=0, iterations=200, **QUIET)
        return compare(found.S, truth, model.voxel, twin=True, scale=True).relative_error

    # 0.25 for the even scan, by refraction and noise; the random phases alone move it by some hundredths
    assert start(at(ANGLES[name])) < start(at(EVEN.rocking_angles)) + 0.06


@pytest.mark.parametrize("name", ["missing", "jittered"])
def test_multiscale_finds_the_crystal_as_in_an_even_scan(truth, name):
    few = {"trial_epochs": 3, "rounds": 1, "iterations": (10, 20), "starts": 1, "levels": 0, "seed": 0}
    misfit = []
    for angles in (EVEN.rocking_angles, ANGLES[name]):
        model = at(angles)
        found = multiscale(model, frames(model, truth), start="kinematic", counts=True, **few, **QUIET)
        misfit.append(found.misfit)
    assert misfit[1] < 1.5 * misfit[0]


def test_levels_of_an_uneven_scan_see_their_frames_where_they_are(truth):
    angles = np.sort(np.r_[EVEN.rocking_angles, EVEN.rocking_angles[5:15] + 0.5 * STEP])
    uneven, even = at(angles), at(EVEN.rocking_angles)
    found = [coarse(model, np.ones((model.n_frames, N, N), np.float32)) for model in (uneven, even)]
    (small, window, _), (usual, expected, _) = found
    for i, angle in enumerate(small.experiment.rocking_angles):
        j = np.argmin(np.abs(usual.experiment.rocking_angles - angle))
        if abs(usual.experiment.rocking_angles[j] - angle) < 1e-6 * STEP:
            np.testing.assert_allclose(window[i], expected[j], atol=1e-3)  # by the curve of dq


def test_what_cannot_be_phased_is_refused_with_its_frames():
    for angles, message in (
        (np.zeros(5), "expected two or more frames at different angles, got 5"),
        (np.zeros(1), "expected two or more frames at different angles, got 1"),
        (STEP * np.r_[0:5, 40:45], "frames 4 and 5 .* apart; leave out"),
    ):
        experiment = EVEN.with_angles(angles, 0)
        with pytest.raises(ValueError, match=f"^rocking_angles: .*{message}"):
            kinematic.even_scan(experiment, np.ones((len(angles), N, N)))
        with pytest.raises(ValueError, match="^rocking_angles: "):
            kinematic.even_experiment(experiment)


def test_the_grid_of_a_model_says_what_to_do_about_an_uneven_scan(truth):
    model = at(ANGLES["missing"])
    with pytest.raises(ValueError, match="^experiment: .*kinematic.even_scan"):
        kinematic.to_model_grid(np.ones((N, N, N), complex), model.experiment, model.shape, model.voxel)
