"""Strongly strained crystals: splines as unknowns, a shape without phases, and the crystal that phasing misses."""

import numpy as np
import pytest
from cube import QUIET, bright_frames, central, make_model, strained
from pendel import compare, multiscale
from pendel.base.symmetry import twin
from pendel.fit.objective import Objective, ObjectiveRecipe, measured
from pendel.recipes import smooth_phases as smooth
from pendel.recipes.smooth_phases import SMOOTH, SplinePhases, more_points, spline_adjoint, spline_phase
from scan import SAMPLES

BUMPS = [(0.3, 0.2, -0.25), (-0.25, 0.1, 0.3), (0.0, -0.35, 0.1)], [0.45] * 3, [7.0, -6.0, 5.0]


@pytest.fixture(scope="module")
def problem():
    """A cube with 11 rad from peak to peak, its frames, and an objective of their amplitudes."""
    model = make_model(threads=1, off=0.0, **SAMPLES)
    body, truth = strained(model, *BUMPS)
    data = bright_frames(model, truth)
    recipe = ObjectiveRecipe()
    return model, body, truth, data, Objective.of(measured(model, data, None, recipe), recipe)


def test_splines_are_those_of_scipy_and_their_adjoint_is_exact(rng):
    c, shape = rng.normal(size=(5, 5, 5)), (9, 12, 7)
    phase = spline_phase(c, shape)
    ends = [(0, 0, 0), (-1, 0, -1), (-1, -1, -1)]
    assert all(phase[end] == pytest.approx(c[end]) for end in ends)  # clamped
    np.testing.assert_allclose(spline_phase(np.ones((4, 4, 4)), shape), 1, rtol=1e-12)
    other = rng.normal(size=shape)
    assert np.vdot(other, phase) == pytest.approx(np.vdot(spline_adjoint(other, 5), c), rel=1e-12)


def test_more_points_hold_the_same_phase(rng):
    c, shape = rng.normal(size=(4, 4, 4)), (16, 14, 18)
    # 4 points are one cubic, which any more can be
    np.testing.assert_allclose(spline_phase(more_points(c, 7, shape), shape), spline_phase(c, shape), atol=1e-10)
    assert more_points(c, 7, shape).shape == (7, 7, 7)


def test_the_gradient_of_control_points_is_that_of_the_loss(rng):
    model = make_model("complex128", threads=1, off=0.0, **SAMPLES)
    body, truth = strained(model, *BUMPS)
    recipe = ObjectiveRecipe()
    objective = Objective.of(measured(model, bright_frames(model, truth), None, recipe), recipe)
    variables = SplinePhases(smooth.solid_amplitude(body > 0.5), rng.normal(size=(4, 4, 4)), model.dtype)
    x, direction = variables.start(), rng.normal(size=64)

    def loss(h):
        return objective.on_host(variables.S(x + h * direction), variables.support).loss

    now = objective.on_host(variables.S(x), variables.support)
    slope = variables.adjoint(x, now.adj_S[variables.support], None) @ direction
    assert central(loss, 1e-4) == pytest.approx(slope, rel=1e-6)
    # what a first-order expansion leaves is of second order
    left = [abs(loss(h) - loss(0) - h * slope) for h in (4e-3, 2e-3)]
    assert np.log2(left[0] / left[1]) == pytest.approx(2, abs=0.05)


def test_a_strained_crystal_is_found_in_its_shape_and_so_is_a_resumed_one(problem, tmp_path):
    model, body, truth, data, _ = problem
    few = {"steps": 160, "rounds": 1, "iterations": (0, 20), "places": False, "checkpoint": tmp_path / "c.h5", **QUIET}
    few["smooth"] = SMOOTH.but(ladder=((4, 30, 8), (6, 40, 3), (9, 50, 1)), cycles=1, steps=100)
    found = multiscale(model, data, None, "smooth", body > 0.5, **few)
    told = compare(found.S, truth, model.voxel).phase_rmse
    print("ERR", told, found.misfit)
    assert told < 0.1
    assert compare(found.S, twin(truth), model.voxel).phase_rmse > 0.5
    again = multiscale(model, data, None, "smooth", body > 0.5, resume=True, **few)
    assert again.S.tobytes() == found.S.tobytes() and again.misfit == found.misfit
