"""How well several results agree: known spreads are told, and what the data leave open is not held against them."""

import numpy as np
import pendel
import pytest
from pendel.analysis.repeatability import repeatability
from pendel.base.symmetry import translate, twin

VOXEL = (10e-9, 12e-9, 12e-9)
H = (-4e10, 0.0, 1.6e10)


@pytest.fixture(scope="module")
def crystal():
    shape = (28, 30, 32)
    grids = np.meshgrid(*((np.arange(n) - n // 2) * v for n, v in zip(shape, VOXEL, strict=True)), indexing="ij")
    inside = (np.abs(grids[0]) < 90e-9) & (np.abs(grids[1]) < 95e-9) & (np.abs(grids[2]) < 110e-9)
    phase = np.sin(grids[2] / 60e-9) + (grids[0] / 90e-9) ** 2
    return np.where(inside, np.exp(1j * phase), 0)


def noisy(S, rng, rms):
    return S * np.exp(1j * rms * rng.standard_normal(S.shape))


def test_the_spread_is_that_of_the_noise(crystal, rng):
    objects = [noisy(crystal, rng, 0.05) for _ in range(4)]
    told = repeatability(objects, VOXEL, h=H)
    # of n - 1 = 3 degrees of freedom and some 4000 voxels, less a ramp: 1/sqrt(2 * 3 * 4000)
    assert told.phase_rms == pytest.approx(0.05, rel=0.02) and told.count == 4
    assert told.inside.sum() == (crystal != 0).sum() and np.isnan(told.phase_spread[~told.inside]).all()
    assert np.nanmax(told.amplitude_spread) < 0.05  # blurred a little by subvoxel shifts
    assert told.twins == (False,) * 4 and told.strain_spread.shape == crystal.shape
    # differences of neighbours 2 voxels apart: sqrt(2) 0.05/(2 v |h|) along each axis, as far as h goes that way
    along = np.abs(np.array(H[::-1])) / np.linalg.norm(H) ** 2
    expected = np.sqrt(np.sum(np.square(along * 0.05 / np.sqrt(2) / np.array(VOXEL))))
    assert np.nanmedian(told.strain_spread) == pytest.approx(expected, rel=0.2)  # the median of 3 degrees of freedom
    assert f"4 objects agree within {told.phase_rms:.4f} rad rms" in str(told) and "TWINS" not in str(told)


def test_what_data_leave_open_is_no_spread(crystal):
    ramp = np.exp(1j * 0.05 * np.arange(crystal.shape[2]))
    moved = translate(crystal, (1, -2, 1)) * np.exp(0.7j)
    told = repeatability([crystal, moved, crystal * ramp, twin(crystal)], VOXEL)
    assert told.phase_rms < 1e-3 and told.twins == (False, False, False, True)
    assert "1 of them are conjugate TWINS of the first" in str(told) and told.strain_spread is None
    assert repeatability([crystal, twin(crystal)], VOXEL, twin=False).phase_rms > 0.3
    assert repeatability([crystal, crystal * ramp], VOXEL, ramp=False).phase_rms > 0.1


def test_one_that_is_wrong_in_one_place_is_seen_there(crystal):
    wrong = crystal.copy()
    wrong[10:13, 12:16, 14:18] *= np.exp(1j)
    told = repeatability([crystal, crystal, wrong], VOXEL)
    there = told.phase_spread[11, 13:15, 15:17]
    assert there.min() > 0.4 and np.nanmedian(told.phase_spread) < 0.02
    assert told.shells.resolution >= pendel.resolution.fsc(crystal, crystal, VOXEL).resolution


def test_boxes_of_another_size(crystal):
    small = crystal[3:25, 4:26, 5:27]  # index 14 - 3 is 22 // 2
    assert repeatability([crystal, small], VOXEL).phase_rms < 1e-6
    assert repeatability([small, crystal], VOXEL).mean.shape == crystal.shape


@pytest.mark.parametrize(
    ("objects", "said"),
    [([np.ones((4, 4, 4))], "objects: expected two or more"), ([np.ones((4, 4))] * 2, r"objects\[0\]")],
)
def test_refused(objects, said):
    with pytest.raises(ValueError, match=said):
        repeatability(objects, VOXEL)


def test_what_is_no_crystal_and_no_reflection_is_named(crystal):
    with pytest.raises(ValueError, match=r"^objects\[1\]: expected a crystal, got zeros only"):
        repeatability([crystal, 0 * crystal], VOXEL)
    with pytest.raises(TypeError, match="^objects: expected several arrays"):
        repeatability(5, VOXEL)
    with pytest.raises(ValueError, match="^h: expected a reciprocal lattice vector, got zeros"):
        repeatability([crystal, crystal], VOXEL, h=(0, 0, 0))
