"""Strongly strained crystals: splines as unknowns, a shape without phases, and the crystal that phasing misses."""

from types import SimpleNamespace

import numpy as np
import pytest
from cube import QUIET, bright_frames, central, make_model, strained
from pendel import compare, multiscale
from pendel.base.symmetry import twin
from pendel.fit.objective import Objective, ObjectiveRecipe, measured
from pendel.fit.steps import NO_STEPS
from pendel.kinematic.differences import differences
from pendel.recipes import first_step
from pendel.recipes import smooth_phases as smooth
from pendel.recipes.levels import like
from pendel.recipes.multiscale_recipe import MultiscaleRecipe
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
    assert compare(found.S, truth, model.voxel).phase_rmse < 0.1  # 0.026
    assert compare(found.S, twin(truth), model.voxel).phase_rmse > 0.5
    again = multiscale(model, data, None, "smooth", body > 0.5, resume=True, **few)
    assert again.S.tobytes() == found.S.tobytes() and again.misfit == found.misfit


@pytest.mark.parametrize(
    ("misfits", "start", "asked", "asked_to"),
    [
        ((1e-3,), None, [None], True),  # photons and voxels explain it
        ((5e-1, 1e-3), None, [None, "smooth"], True),
        ((5e-1, 1e-3), "kinematic", ["kinematic", "smooth"], True),
        ((5e-1, 4e-1), None, [None, "smooth"], True),  # hardly better: what there was is kept
        ((5e-1,), "flat", ["flat"], True),  # as it was asked for
        ((5e-1,), None, [None], False),
    ],
)
def test_solve_goes_the_other_way_where_the_ordinary_one_misses_the_frames(
    problem, monkeypatch, misfits, start, asked, asked_to
):
    plain, _, truth, data, _ = problem
    model = like(plain, plain.experiment, (16, 18, 20), plain.voxel, point_spread=(0.7, 0.7))
    scale, calls = float(data.sum() / plain.intensities(truth).sum()), []

    def scripted(cheap, data, mask, start, support, **rest):
        calls.append((start, cheap))
        S = truth[(slice(2, -2), slice(1, -1))] if start != "smooth" else np.ones(cheap.shape, np.complex64)
        voxel, misfit = cheap.voxel, misfits[len(calls) - 1]
        return SimpleNamespace(S=np.ascontiguousarray(S), voxel=voxel, misfit=misfit, scale=scale, flux=None)

    monkeypatch.setattr(first_step, "multiscale", scripted)
    first = first_step.FirstStep(data, None, MultiscaleRecipe(), {}, None, None, False, None, NO_STEPS)
    where, found, noise = first.find(model, start, None, None, plain if asked_to else None)
    assert [kind for kind, _ in calls] == asked and noise > 0
    taken = len(misfits) == 2 and misfits[1] == 1e-3
    assert found.misfit == (misfits[1] if taken else misfits[0]) and found.S.shape == where.shape
    if len(calls) == 2:
        other, extent = calls[1][1], differences(plain.experiment, data).extent()
        assert (np.multiply(other.shape, other.voxel) >= first_step.BOX * extent).all()
        assert other.point_spread == plain.point_spread != model.point_spread
    if not taken:
        assert where is model


def test_ladders_that_do_not_climb_are_named():
    with pytest.raises(ValueError, match=r"ladder\[1\]: expected more points and no more fits than"):
        SMOOTH.but(ladder=((4, 10, 2), (6, 10, 3)))
    with pytest.raises(TypeError, match=r"ladder\[0\]: expected \(points, iterations, fits\), got"):
        SMOOTH.but(ladder=(4, 10, 2))
