"""The place between the voxels: half a voxel's step, and finding the right one."""

import numpy as np
import pytest
from cube import QUIET
from pendel import compare, phantom, place, polish
from pendel.recipes.placing import half_step


@pytest.mark.parametrize("axis", (0, 1, 2))
def test_half_step_is_exact_across_flat_faces(axis):
    shape, voxel = (20, 22, 18), (1.0, 1.0, 1.0)
    centre = np.zeros(3)
    body = phantom.cube(shape, voxel, 9.3, centre=tuple(centre + 0.1))
    for forward, sign in ((True, 1), (False, -1)):
        centre[2 - axis] = 0.5 * sign
        moved = phantom.cube(shape, voxel, 9.3, centre=tuple(centre + 0.1))
        found = half_step(body, axis, forward)
        face = [slice(9, 11)] * 3  # off the edges, where two faces share a voxel
        face[axis] = slice(None)
        np.testing.assert_allclose(found[tuple(face)], moved[tuple(face)], atol=1e-9)
        centre[2 - axis] = 0.0


def test_half_step_keeps_phases_and_lets_vacuum_in():
    x = np.arange(12.0)
    S = np.broadcast_to(np.exp(0.3j * x), (3, 4, 12)).astype(np.complex64)
    found = half_step(S, 2)
    np.testing.assert_allclose(found[0, 0, 1:], np.exp(0.3j * (x[1:] - 0.5)), rtol=1e-6)
    assert found.dtype == np.complex64 and abs(found[0, 0, 0]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="S: expected"):
        half_step(S[0], 0)


def test_place_finds_the_grid_that_the_data_were_made_on(gold_cube):
    data = gold_cube.data(noise=None)
    options = {"atv_weight": 1e-4, **QUIET}
    away = half_step(half_step(gold_cube.truth, 2), 0)
    away = polish(gold_cube.model, data, None, away, rounds=1, iterations=(0, 40), **options)
    S, support, moved = place(gold_cube.model, data, None, away.S, away.support, **options)
    assert moved == (True, False, True) and not S[~support].any()
    more = {"rounds": 1, "iterations": (0, 50), "widen": 0, **options}
    stays, placed = (polish(gold_cube.model, data, None, *start, **more) for start in (((away,)), (S, support)))
    shift = np.array(compare(placed.S, gold_cube.truth, gold_cube.model.voxel).shift)
    assert np.abs(shift - np.rint(shift)).max() < 0.25
    assert placed.misfit < 0.3 * stays.misfit and gold_cube.error(placed.S) < 0.7 * gold_cube.error(stays.S)
