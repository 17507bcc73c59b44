"""Some numbers of a reconstructed crystal: how large it is and how strained, where |S| > 1/2."""

from typing import NamedTuple

import numpy as np

from ..base import checks

FULL = 0.5  # |S| above which a voxel is the crystal's


class StrainStatistics(NamedTuple):
    """Of the strain where |S| > 1/2.

    Attributes
    ----------
    rms, least, greatest : of the voxels whose strain is known; NaN where there are none.
    unknown : part of the voxels whose strain is not known, NaN.
    """

    rms: float
    least: float
    greatest: float
    unknown: float


def strain_statistics(S: np.ndarray, strain: np.ndarray) -> StrainStatistics:
    """`StrainStatistics` of a crystal.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    strain : float (nz, ny, nx), NaN where it is not known

    Returns
    -------
    StrainStatistics
    """
    S = checks.array("S", S, (None, None, None), np.complex64, axes="(nz, ny, nx)", finite=False)
    strain = checks.array("strain", strain, S.shape, np.float64, finite=False)
    inside = strain[np.abs(S) > FULL]
    known = inside[np.isfinite(inside)]
    if not known.size:
        return StrainStatistics(np.nan, np.nan, np.nan, 1.0 if inside.size else np.nan)
    rms = float(np.sqrt(np.mean(np.square(known))))
    return StrainStatistics(rms, float(known.min()), float(known.max()), 1 - known.size / inside.size)


def extent(S: np.ndarray, voxel: tuple[float, float, float]) -> tuple[float, float, float]:
    """(z, y, x), m, of where |S| > 1/2.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    voxel : (dz, dy, dx) m

    Returns
    -------
    (z, y, x) m, 0 where there is none
    """
    full = np.abs(S) > FULL
    spans = (np.flatnonzero(full.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    sizes = [(span[-1] - span[0] + 1) * step if len(span) else 0.0 for span, step in zip(spans, voxel, strict=True)]
    return sizes[0], sizes[1], sizes[2]
