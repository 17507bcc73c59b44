"""A crystal's size and nearly its shape from its frames alone, whatever its strain."""

import numpy as np
import pytest
from cube import EDGE, make_model
from pendel import phantom
from pendel.experiment import rotation
from pendel.kinematic.differences import differences
from scan import SAMPLES
from scipy import ndimage


@pytest.fixture(scope="module")
def scan():
    """A model, a cube that leaves room for its autocorrelation, and its frames with and without strain."""
    model = make_model(threads=1, size=28, **SAMPLES)
    body = phantom.cube(model.shape, model.voxel, 0.6 * EDGE, rotation((1, 1, 0.5), 0.6))
    bump = phantom.bumps(model.shape, model.voxel, [(0.1 * EDGE, 0, 0)], [0.2 * EDGE], [5.0])
    frames = [model.intensities(phantom.crystal_function(body, strain)) for strain in (0 * bump, bump)]
    return model, body > 0.5, [frame * (1e7 / frame.sum()) for frame in frames]


@pytest.mark.parametrize("strained", (False, True))
def test_half_of_the_differences_is_a_centred_convex_crystal(scan, strained):
    model, inside, frames = scan
    told = differences(model.experiment, frames[strained])
    half = told.half(model.shape, model.voxel)
    within = ndimage.binary_dilation(inside, np.ones((3, 3, 3)))
    assert not half[~within].any()  # a voxel is what the window leaves of the resolution
    assert half[ndimage.binary_erosion(inside, np.ones((3, 3, 3)))].all()

    widths = [np.ptp(places) + 1 for places in np.nonzero(inside)]
    np.testing.assert_allclose(told.extent() / model.voxel, widths, atol=2)
    assert np.array_equal(half[1:, 1:, 1:], half[1:, 1:, 1:][::-1, ::-1, ::-1])


def test_finer_voxels_and_a_mask_see_the_same(scan):
    model, inside, frames = scan
    told = differences(model.experiment, frames[1])
    fine = told.half([2 * n for n in model.shape], [v / 2 for v in model.voxel])
    assert fine.sum() == pytest.approx(8 * told.half(model.shape, model.voxel).sum(), rel=0.1)
    good = np.ones(frames[1].shape, bool)
    good[3, :2] = False  # in the dark
    masked = differences(model.experiment, np.where(good, frames[1], 1e9), good)
    np.testing.assert_allclose(masked.extent(), told.extent(), rtol=0.1)


def test_noise_alone_has_no_crystal(scan):
    model, _, frames = scan
    with pytest.raises(ValueError, match="data: expected more light than photon noise"):
        differences(model.experiment, np.zeros_like(frames[0]))
