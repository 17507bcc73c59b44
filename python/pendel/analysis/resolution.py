"""Resolution in reciprocal space: Fourier shell correlation and phase-retrieval transfer function.

With F_a, F_b the discrete Fourier transforms of two objects and shells of |q| (cycles/m) in the physical units of each
axis,

(1) FSC(q) = |sum F_a conj(F_b)| / sqrt(sum |F_a|^2 sum |F_b|^2)            Harauz & van Heel, Optik 73, 146 (1986)
(2) T(q) = (0.2071 + 1.9102/sqrt(n)) / (1.2071 + 0.9102/sqrt(n))            half bit per voxel, n independent voxels
(3) PRTF(q) = sum |<F_i>| / sum A,   <> the mean over objects               Chapman et al., JOSA A 23, 1179 (2006)

(2): van Heel & Schatz, J. Struct. Biol. 151, 250 (2005), for two independent halves; an object compared with the truth
crosses at 0.5 where its signal equals its noise. A resolution is 1/q, a full period, where the curve first falls below
its threshold. Shells go up to the smallest Nyquist frequency of the three axes: beyond it they are not whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from ..base import checks
from ..base.symmetry import along
from .comparison import compare


@dataclasses.dataclass
class Shells:
    """A curve over shells of |q|.

    Attributes
    ----------
    q : float64 (shells,), mean |q| of each, cycles/m.
    value : float64 (shells,).
    threshold : float64 (shells,).
    resolution : m, or inf where the first shell beyond the origin is below the threshold already.
    limited : the curve stays above its threshold to the last shell, and resolution is that shell's.
    """

    q: np.ndarray
    value: np.ndarray
    threshold: np.ndarray
    resolution: float
    limited: bool


def fsc(
    a: ArrayLike,
    b: ArrayLike,
    voxel: tuple[float, float, float],
    *,
    threshold: float | str = 0.5,
    filled: float | None = None,
) -> Shells:
    """Fourier shell correlation (1) of two registered objects.

    Parameters
    ----------
    a, b : complex or real (nz, ny, nx) on one grid; lay them over each other first (`pendel.compare`).
    voxel : (dz, dy, dx), m.
    threshold : a number, or "half-bit" (2), whose n is the number of voxels of a shell times ``filled``.
    filled : fraction of the box that the object fills; None: where |a| is above half its maximum.

    Returns
    -------
    Shells.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    a = checks.array("a", a, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    b = checks.array("b", b, a.shape, np.complex128, axes="(nz, ny, nx)")
    if not a.any() or not b.any():
        raise ValueError("a, b: expected non-zero objects, got zeros")
    filled = np.mean(np.abs(a) > 0.5 * np.abs(a).max()) if filled is None else filled
    filled = checks.number("filled", filled, above=0, at_most=1)

    index, q, count = _shells(a.shape, voxel)
    A, B = (fft.fftn(v).ravel() for v in (a, b))
    cross = A * B.conj()
    power = _sums(index, np.abs(A) ** 2, count) * _sums(index, np.abs(B) ** 2, count)
    size = np.hypot(_sums(index, cross.real, count), _sums(index, cross.imag, count))
    value = np.divide(size, np.sqrt(power), out=np.zeros_like(size), where=power > 0)

    if isinstance(threshold, str):
        checks.choice("threshold", threshold, ("half-bit",))
        noise = 1 / np.sqrt(np.maximum(count * filled, 1))
        limit = (0.2071 + 1.9102 * noise) / (1.2071 + 0.9102 * noise)
    else:
        limit = np.full(len(q), checks.number("threshold", threshold, above=0, below=1))
    return Shells(q, value, limit, *_crossing(q, value, limit))


def prtf(
    objects: Iterable[ArrayLike],
    voxel: tuple[float, float, float],
    *,
    amplitude: ArrayLike | None = None,
    threshold: float = 1 / np.e,
    twin: bool = True,
) -> Shells:
    """Phase-retrieval transfer function (3) of objects from several seeds or starts.

    Parameters
    ----------
    objects : two or more complex (nz, ny, nx) of one shape; laid over the first here (translation, constant phase and,
        with ``twin``, the conjugate twin).
    voxel : (dz, dy, dx), m.
    amplitude : A >= 0 (nz, ny, nx), measured amplitudes in centred order (zero frequency at n//2), in the units of
        fftn(object); None: the mean of |F_i|, so that the curve shows the agreement of phases only.
    threshold : in (0, 1), of the resolution.
    twin : whether an object may be taken as its conjugate twin.

    Returns
    -------
    Shells.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    objects = list(objects)
    if len(objects) < 2:
        raise ValueError(f"objects: expected two or more, got {len(objects)}")
    first = checks.array("objects[0]", objects[0], (None, None, None), np.complex128, axes="(nz, ny, nx)")
    index, q, count = _shells(first.shape, voxel)

    total = fft.fftn(first)
    sizes = np.abs(total)
    for i, other in enumerate(objects[1:], 1):
        other = checks.array(f"objects[{i}]", other, first.shape, np.complex128, axes="(nz, ny, nx)")
        F = fft.fftn(compare(other, first, voxel, twin=twin).registered)
        total += F
        sizes += np.abs(F)
    if amplitude is not None:
        sizes = len(objects) * fft.ifftshift(checks.array("amplitude", amplitude, first.shape, np.float64))

    below = _sums(index, sizes.ravel(), count)
    value = np.divide(_sums(index, np.abs(total).ravel(), count), below, out=np.zeros(len(q)), where=below > 0)
    limit = np.full(len(q), checks.number("threshold", threshold, above=0, below=1))
    return Shells(q, value, limit, *_crossing(q, value, limit))


def _shells(shape, voxel):
    """Shell of every voxel in FFT order (flat; -1: beyond the last), mean |q| and number of voxels of each."""
    voxel = checks.lengths("voxel", voxel, 3)
    squares = (along(np.square(fft.fftfreq(n, d)), axis) for axis, (n, d) in enumerate(zip(shape, voxel, strict=True)))
    radius = np.sqrt(sum(squares)).ravel()
    width = max(1 / (n * d) for n, d in zip(shape, voxel, strict=True))
    number = int(0.5 / max(voxel) / width + 0.5)
    if number < 2:
        raise ValueError(f"voxel, shape: expected a grid with two or more shells, got {number} for {shape}")

    index = np.floor(radius / width + 0.5).astype(np.int64)  # shell 0 is the origin and what is nearer than width/2
    index[index >= number] = -1
    count = np.bincount(index[index >= 0], minlength=number)
    return index, _sums(index, radius, count) / count, count


def _sums(index, values, count):
    """Sum of the values (voxels,) of each shell."""
    kept = index >= 0
    return np.bincount(index[kept], values[kept], minlength=len(count))


def _crossing(q, value, limit):
    """(resolution, limited): 1/q where value - limit first turns negative, linear between shells."""
    gap = value - limit
    below = np.flatnonzero(gap[1:] < 0) + 1  # shell 0, the origin, has no scale
    if not len(below):
        return float(1 / q[-1]), True
    i = below[0]
    if i == 1:
        return float("inf"), False
    at = q[i - 1] + (q[i] - q[i - 1]) * gap[i - 1] / (gap[i - 1] - gap[i])
    return float(1 / at), False
