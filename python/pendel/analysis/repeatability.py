"""How well results of several seeds, starts or scans of one crystal agree, voxel by voxel: what none of them can say.

(1) spread = sqrt(sum arg(S_i conj(mean))^2/(n - 1)),   the S_i laid over the first one (`pendel.compare`)

Agreement is not accuracy: what is wrong in the model, or in the data, is wrong in all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..base.printing import brief
from ..base.symmetry import strain
from .comparison import compare
from .resolution import Shells, fsc

FULL = 0.5  # of the largest |mean|, above which a voxel counts
WORST = 99  # per cent of the voxels that spread no more than is said
SAME_VOXEL = 1e-6  # relative


@dataclasses.dataclass
class Repeatability:
    """Result of `repeatability`.

    Attributes
    ----------
    mean : complex128 (nz, ny, nx), of the objects, each laid over the first.
    inside : bool (nz, ny, nx), where |mean| is above half its maximum.
    phase_spread : float64 (nz, ny, nx), (1), rad; NaN outside.
    amplitude_spread : float64 (nz, ny, nx), standard deviation of |S_i|; NaN outside.
    strain_spread : float64 (nz, ny, nx), standard deviation of the strain along h; NaN outside and where it is not
        known; None without h.
    twins : tuple of bool, which objects were taken as their conjugate twins.
    shells : `Shells`, the lowest Fourier shell correlation of the first object with another one.
    count : number of objects.
    """

    mean: np.ndarray
    inside: np.ndarray
    phase_spread: np.ndarray
    amplitude_spread: np.ndarray
    strain_spread: np.ndarray | None
    twins: tuple[bool, ...]
    shells: Shells
    count: int

    __repr__ = brief

    @property
    def phase_rms(self) -> float:
        """rms of the phase's spread inside, rad."""
        return float(np.sqrt(np.mean(np.square(self.phase_spread[self.inside]))))

    def __str__(self):
        worst = np.percentile(self.phase_spread[self.inside], WORST)
        told = [
            f"{self.count} objects agree within {self.phase_rms:.4f} rad rms, {WORST} % of voxels within {worst:.4f}",
            f"|S| within {np.sqrt(np.nanmean(np.square(self.amplitude_spread))):.4f}",
        ]
        if self.strain_spread is not None:
            told.append(f"strain within {np.sqrt(np.nanmean(np.square(self.strain_spread))):.2e}")
        if any(self.twins):
            told.append(f"{sum(self.twins)} of them are conjugate TWINS of the first")
        limit = "or finer" if self.shells.limited else "full period"
        return "; ".join(told) + f"; Fourier shells correlate down to {1e9 * self.shells.resolution:.3g} nm, {limit}"


def repeatability(
    objects: Iterable[ArrayLike],
    voxel: tuple[float, float, float],
    *,
    h: ArrayLike | None = None,
    twin: bool = True,
    ramp: bool = True,
) -> Repeatability:
    """Lay objects over the first one, and tell how far they spread.

    Parameters
    ----------
    objects : two or more complex (nz, ny, nx); smaller boxes are filled up about their middle.
    voxel : (dz, dy, dx), m, of all.
    h : (x, y, z) rad/m, asks for the strain.
    twin : whether an object may be taken as its conjugate twin, which is then said.
    ramp : whether a linear phase is taken off each, which an offset of angles or of the detector's centre adds.

    Returns
    -------
    Repeatability.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    voxel, given = checks.lengths("voxel", voxel, 3), _checked(objects)
    if h is not None:
        h = checks.array("h", h, (3,), np.float64)
        if not h.any():
            raise ValueError("h: expected a reciprocal lattice vector, got zeros")
    shape = np.max([S.shape for S in given], axis=0)
    first, *others = (_in_box(S, shape) for S in given)
    told = [compare(S, first, voxel, ramp=ramp, twin=twin) for S in others]
    laid = np.stack([first, *(one.registered for one in told)])

    mean = laid.mean(axis=0)
    inside = np.abs(mean) > FULL * np.abs(mean).max()
    worst = min((fsc(first, S, voxel) for S in laid[1:]), key=lambda shells: -shells.resolution)
    return Repeatability(
        mean=mean,
        inside=inside,
        phase_spread=_spread(np.angle(laid * mean.conj()), inside),
        amplitude_spread=_spread(np.abs(laid) - np.abs(laid).mean(axis=0), inside),
        strain_spread=None if h is None else _strain_spread(laid, voxel, h, inside),
        twins=(False, *(one.twin for one in told)),
        shells=worst,
        count=len(laid),
    )


def _checked(objects):
    """[complex128 (nz, ny, nx)], two or more, each with something in it."""
    if not isinstance(objects, Iterable):
        raise TypeError(f"objects: expected several arrays (nz, ny, nx), got {checks.describe(objects)}")
    given = [
        checks.array(f"objects[{i}]", S, (None, None, None), np.complex128, axes="(nz, ny, nx)")
        for i, S in enumerate(objects)
    ]
    if len(given) < 2:
        raise ValueError(f"objects: expected two or more, got {len(given)}")
    for i, S in enumerate(given):
        if not S.any():
            raise ValueError(f"objects[{i}]: expected a crystal, got zeros only")
    return given


def _in_box(S, shape):
    """S in a box at least as large, index n//2 on index n//2."""
    before = [wide // 2 - n // 2 for wide, n in zip(shape, S.shape, strict=True)]
    after = [wide - n - b for wide, n, b in zip(shape, S.shape, before, strict=True)]
    return np.pad(S, list(zip(before, after, strict=True)))


def _spread(deviations, inside):
    spread = np.sqrt(np.square(deviations).sum(axis=0) / (len(deviations) - 1))
    return np.where(inside, spread, np.nan)


def _strain_spread(laid, voxel, h, inside):
    found = [strain(np.where(inside, S, 0), voxel, h, one_sided=True) for S in laid]
    known = np.all([known for _, known in found], axis=0) & inside
    values = np.stack([values for values, _ in found])
    return _spread(values - values.mean(axis=0), known)
