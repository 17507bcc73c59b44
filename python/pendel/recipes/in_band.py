"""A crystal carried to finer voxels with nothing in it but what its data have seen.

A fit leaves in its voxels what the data do not see: noise beyond the band of the scan, and on wide voxels what the
voxels could not show. Evidence for a smooth crystal is that of where a fit begins; begun in noise, it lets the noise
stand. So only the band is carried over: the shape, blurred by less than the data's resolution and made steep again, and
the phases, blurred by more, continued outwards from where the crystal is full.
"""

import numpy as np
from scipy import ndimage

from .levels import resample

# Standard deviations of both blurs in voxels of the data's resolution. Phases: bench/foreign.py, smooth, 1e8 photons,
# voxels half as wide: 0.7 ends at 0.0085, 1.5 at 0.0065 rad.
SHAPE_BLUR, PHASE_BLUR = 0.7, 1.5
STEEPER = 2.0
FAINT = 0.02  # |S| of the steep shape above which a voxel is the crystal's; the support is a data voxel wider
FLOOR = 0.01  # |S| of the support at least: where it is 0 its gradient says nothing of the phase


def in_band_start(S, voxel, model, steeper=STEEPER):
    """(S, support) on the grid of a model of finer voxels.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    voxel : (dz, dy, dx) m, of S
    model : Model
    steeper : |S| about 1/2 is taken so many times as steep as the blur leaves it
    """
    resolution = np.divide(model.experiment.suggest_voxel(), model.voxel)
    S = resample(S, voxel, model).astype(np.complex128)
    size = ndimage.gaussian_filter(np.abs(S), SHAPE_BLUR * resolution)
    if not (size > 0.5).any():
        raise ValueError(f"S: expected |S| above 1/2 somewhere when blurred, got at most {size.max():.3g}")

    blurred = ndimage.gaussian_filter(S, PHASE_BLUR * resolution, output=S)
    nearest = ndimage.distance_transform_edt(size <= 0.5, return_distances=False, return_indices=True)
    size -= 0.5
    size *= steeper
    size += 0.5
    steep = np.clip(size, 0, 1, out=size)

    wider = max(1, round(float(resolution[1])))
    support = ndimage.binary_dilation(steep > FAINT, iterations=wider)
    phase = np.exp(1j * np.angle(blurred[tuple(of_axis[support] for of_axis in nearest)]))
    start = np.zeros(S.shape, model.dtype)
    start[support] = np.maximum(steep[support], FLOOR) * phase
    return start, support
