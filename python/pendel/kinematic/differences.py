"""How large a crystal is, and nearly its shape, without any phases: half of its autocorrelation's support.

The Fourier transform of the measured intensities is the autocorrelation of the crystal, which begins where the
crystal's extent ends whatever its strain: its support is the set of differences K - K of places in the crystal K. Half
of that is K itself for a convex K with a centre of symmetry. Any other convex K has the same widths as that half in
every direction, and no larger volume (Brunn-Minkowski). The twin has the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from ..base import checks
from .support import largest_component
from .uneven import checked_basis, even_scan

FAINT = 3e-4  # of the largest: what is fainter is left to the ringing of the scan's edge
NOISES = 5.0  # standard deviations of photon noise above which it is the crystal's


@dataclass(frozen=True)
class Differences:
    """Where a crystal's autocorrelation is.

    Attributes
    ----------
    inside : bool (N0, N1, N2), on the grid of the evened data, difference 0 at N//2.
    to_index : (3, 3), index = to_index r + N//2 for a difference r, (x, y, z) in m.
    """

    inside: np.ndarray
    to_index: np.ndarray

    def extent(self):
        """(z, y, x) of the crystal, m: its widths along the axes, from face to face."""
        middle = np.array(self.inside.shape)[:, None] // 2
        reach = np.linalg.solve(self.to_index, np.array(np.nonzero(self.inside)) - middle)
        return np.abs(reach).max(axis=1)[::-1]

    def half(self, shape, voxel):
        """Half of them, bool (nz, ny, nx) on voxels (dz, dy, dx) m, in the middle."""
        places = [2 * (np.arange(n) - n // 2) * step for n, step in zip(shape, voxel, strict=True)]
        z, y, x = np.meshgrid(*places, indexing="ij")
        index = np.tensordot(self.to_index, np.stack([x, y, z]), 1)
        index += np.array(self.inside.shape)[:, None, None, None] // 2
        seen = ndimage.map_coordinates(self.inside.astype(np.float32), index, order=1, mode="constant")
        return seen > 0.5


def differences(experiment, data: ArrayLike, mask: ArrayLike | None = None) -> Differences:
    """The `Differences` of a scan.

    Parameters
    ----------
    experiment : Experiment
    data : (frames, rows, cols), real >= 0, in counts where its noise is to be known.
    mask : bool, (frames, rows, cols) or (rows, cols), True = good; None: all are. Other pixels count as dark.

    Raises
    ------
    TypeError, ValueError : naming the argument.
    """
    even, data, mask, _ = even_scan(experiment, data, mask)
    data = checks.array("data", data, (None, None, None), np.float32, axes="(frames, rows, cols)", finite=False)
    if mask is not None:
        data = np.where(mask, data, 0)

    seen, variance = data, data
    for axis, n in enumerate(data.shape):  # a scan that ends where there is still light would ring
        window = np.hanning(n + 2)[1:-1].astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        seen, variance = seen * window, variance * window**2
    noise = np.sqrt(np.sum(variance, dtype=np.float64))
    del variance
    seen = np.abs(fft.fftshift(fft.fftn(seen, overwrite_x=True)))
    bright = seen > max(FAINT * seen.max(), NOISES * noise)

    middle = tuple(n // 2 for n in seen.shape)
    if not bright[middle]:
        raise ValueError("data: expected more light than photon noise, got none in the autocorrelation")
    to_index = np.diag(data.shape) @ checked_basis(even).T / (2 * np.pi)
    return Differences(ndimage.binary_fill_holes(largest_component(bright)), to_index)
