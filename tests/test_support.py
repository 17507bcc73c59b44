"""Supports find the object, ignore specks and never lose it at an edge."""

import numpy as np
import pytest
from pendel import phantom
from pendel.kinematic import support

SHAPE, VOXEL = (24, 26, 28), (8e-9, 8e-9, 8e-9)


def test_shrink_wrap_without_blur_is_the_threshold():
    body = phantom.sphere(SHAPE, VOXEL, 70e-9)
    found = support.shrink_wrap(body * np.exp(1j), 0.3, 0)
    assert found.dtype == bool and np.array_equal(found, body > 0.3)


def test_shrink_wrap_keeps_the_largest_component_and_fills_holes():
    body = phantom.sphere(SHAPE, VOXEL, 70e-9)
    solid = body > 0.3
    body[12, 13, 14] = 0  # a hole
    body[1, 1, 1] = 0.9  # a speck
    assert np.array_equal(support.shrink_wrap(body, 0.3, 0), solid)
    bare = support.shrink_wrap(body, 0.3, 0, largest=False, fill=False)
    assert bare[1, 1, 1] and not bare[12, 13, 14]


def test_quantile_reference_ignores_a_hot_voxel():
    body = phantom.sphere(SHAPE, VOXEL, 70e-9)
    solid = body > 0.2
    body[10, 10, 10] = 100.0
    assert support.shrink_wrap(body, 0.2, 0).sum() == 1
    # above a tenth of the maximum only the hot voxel is left when it is 10 times brighter; at 5 times it is one of many
    body[10, 10, 10] = 5.0
    assert support.shrink_wrap(body, 0.2, 0, reference=0.5).sum() == pytest.approx(solid.sum(), rel=0.02)


def test_shrink_wrap_of_nothing_is_empty():
    assert not support.shrink_wrap(np.zeros(SHAPE)).any()


def test_periodic_shrink_wrap_commutes_with_rolling():
    body = phantom.sphere(SHAPE, VOXEL, 50e-9)
    body[2, 2, 2] = 1
    moved = np.roll(body, (12, 11, 5), axis=(0, 1, 2))
    expected = np.roll(support.shrink_wrap(body, 0.3, 0.8, periodic=True), (12, 11, 5), axis=(0, 1, 2))
    assert np.array_equal(support.shrink_wrap(moved, 0.3, 0.8, periodic=True, fill=False), expected)


def test_the_largest_component_may_reach_over_the_edge():
    parts = np.zeros((12, 8, 9), bool)
    parts[4:7, 2:4, 2:4] = True  # 12 voxels
    parts[[0, 1, 10, 11], 5:7, 6:8] = True  # 8 and 8, one of 16 where the faces touch
    middle, ends = parts.copy(), parts.copy()
    middle[[0, 1, 10, 11]] = False
    ends[4:7] = False
    assert np.array_equal(support.largest_component(parts), middle)
    assert np.array_equal(support.largest_component(parts, periodic=True), ends)
    assert support.largest_component(middle) is middle


AMPLITUDE = np.random.default_rng(5).uniform(0, 1, SHAPE) ** 3
WIDE = phantom.sphere(SHAPE, VOXEL, 80e-9) > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("level", "options", "expected"),
    [
        (0.5, {"above": 0.3}, lambda a: a > 0.5 * np.median(a[a > 0.3 * a.max()])),
        (
            0.25,
            {"above": 0.3, "support": WIDE},
            lambda a: WIDE & (a > 0.25 * np.median(a[WIDE & (a > 0.3 * a.max())])),
        ),
        (0.5, {"support": WIDE}, lambda a: WIDE & (a > 0.5 * np.median(a[WIDE]))),
        (0.5, {"reference": 0.8, "support": WIDE}, lambda a: WIDE & (a > 0.5 * np.quantile(a[WIDE], 0.8))),
        (0.2, {"reference": "max"}, lambda a: a > 0.2 * a.max()),
        (0.2, {"reference": 0.9, "above": 0.1}, lambda a: a > 0.2 * np.quantile(a[a > 0.1 * a.max()], 0.9)),
    ],
)
def test_inside_the_crystal_is_above_a_level_of_a_full_voxel(dtype, level, options, expected):
    amplitude = AMPLITUDE.astype(dtype)
    found = support.body(amplitude, level, **options)
    assert found.dtype == bool and 0 < found.sum() < found.size
    assert np.array_equal(found, expected(amplitude))


def test_full_voxels_are_found_beside_hot_and_dim_ones():
    amplitude = np.array([0.0] * 40 + [0.05] * 20 + [0.8] * 39 + [1.5])
    assert support.reference_amplitude(amplitude, "max") == 1.5
    assert support.reference_amplitude(amplitude) == 0.05
    assert support.reference_amplitude(amplitude, above=0.3) == 0.8
    assert support.reference_amplitude(amplitude, 0.8) == 0.8
    assert support.reference_amplitude(amplitude, support=amplitude < 1, reference="max") == 0.8


def test_recentre_returns_a_moved_object_to_the_origin():
    body = phantom.sphere(SHAPE, VOXEL, 50e-9).astype(complex)
    moved = np.roll(body, (3, -4, 5), axis=(0, 1, 2))
    back, mask, shift = support.recentre(moved, moved != 0)
    assert shift == (-3, 4, -5)
    assert np.array_equal(back, body) and np.array_equal(mask, body != 0)


def test_recentre_never_rolls_the_object_over_the_edge():
    line = np.zeros((1, 1, 20))
    line[0, 0, :15] = 0.2
    line[0, 0, :2] = 50.0  # the centre of mass asks for a shift of 10, the far end allows 5
    moved, shift = support.recentre(line, threshold=0)
    assert shift == (0, 0, 5)
    assert np.array_equal(moved[0, 0, 5:], line[0, 0, :15]) and not moved[0, 0, :5].any()


def test_box_support_has_the_voxels_whose_centres_are_inside():
    box = support.box_support((9, 10, 11), VOXEL, (40e-9, 32e-9, 1e-9))
    assert box.any(axis=(1, 2)).nonzero()[0].tolist() == [2, 3, 4, 5, 6]
    assert box.any(axis=(0, 2)).nonzero()[0].tolist() == [3, 4, 5, 6, 7]
    assert box.any(axis=(0, 1)).nonzero()[0].tolist() == [5]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="threshold: expected a finite number > 0"):
        support.shrink_wrap(np.ones((2, 2, 2)), 0)
    with pytest.raises(ValueError, match="S: expected finite values"):
        support.shrink_wrap(np.full((2, 2, 2), np.nan))
    with pytest.raises(ValueError, match=r"others\[0\]: expected shape"):
        support.recentre(np.ones((2, 2, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="reference: expected one of 'max', 'median', got 'mean'"):
        support.body(np.ones((2, 2, 2)), 0.5, "mean")
    with pytest.raises(ValueError, match="reference: expected a finite number > 0 and <= 1, got 1.5"):
        support.reference_amplitude(np.ones((2, 2, 2)), 1.5)
