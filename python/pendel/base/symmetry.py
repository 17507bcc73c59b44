"""Crystal functions moved, twinned and differentiated: what data cannot tell apart, and what they are compared by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from . import checks
from .arrays import binary_scale


def twin(S: ArrayLike) -> np.ndarray:
    """The twin conj(S(-r)) about voxel n//2, which has the same kinematic data (index 0 of an even axis wraps).

    Parameters
    ----------
    S : (nz, ny, nx) complex

    Returns
    -------
    (nz, ny, nx) complex
    """
    S = checks.numpy_array("S", S)
    even = [1 - n % 2 for n in S.shape]
    return np.roll(np.flip(S), even, axis=tuple(range(S.ndim))).conj()


def translate(S: ArrayLike, shift: ArrayLike) -> np.ndarray:
    """S moved, periodic, by its Fourier series: unitary.

    The Nyquist bin of an even axis keeps its complex phase, so that moves of opposite sign cancel exactly.

    Parameters
    ----------
    S : complex (nz, ny, nx).
    shift : (z, y, x) voxels towards growing index, or one number for all.

    Returns
    -------
    complex128 (nz, ny, nx).
    """
    S = checks.array("S", S, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    spectrum = fft.fftn(S)
    for axis, move in enumerate(np.broadcast_to(shift, 3)):
        spectrum *= along(np.exp(-2j * np.pi * fft.fftfreq(S.shape[axis]) * move), axis)
    return fft.ifftn(spectrum)


def strain(
    S: ArrayLike, voxel: tuple[float, float, float], h: ArrayLike, *, one_sided: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Strain along h, d(u.h^)/dh^ = -grad(phi).h/|h|^2.

    Central differences of the phase taken as arg(S(r+d) conj(S(r-d))), so 2-pi wraps do not matter as long as
    neighbours two voxels apart differ by less than pi; undefined (0) where a neighbour is zero or outside the grid.
    With ``one_sided`` a voxel that has one neighbour along an axis takes the difference from that one, arg(S(r+d)
    conj(S(r))), and is undefined only where it has none.

    Parameters
    ----------
    S : complex (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    h : (x, y, z), rad/m.
    one_sided : whether differences at the surface are one-sided.

    Returns
    -------
    (strain, defined) : float64 and bool (nz, ny, nx).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    S = checks.array("S", S, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    voxel = checks.lengths("voxel", voxel, 3)
    h = checks.array("h", h, (3,), np.float64)
    S = S / binary_scale(S)  # products of neighbours neither overflow nor vanish
    result = np.zeros(S.shape)
    defined = S != 0
    for axis in range(3):
        before_last = (slice(None),) * axis + (slice(None, -1),)
        after_first = (slice(None),) * axis + (slice(1, None),)
        ahead = np.zeros_like(S)
        behind = np.zeros_like(S)
        ahead[before_last] = S[after_first]
        behind[after_first] = S[before_last]
        central = (ahead != 0) & (behind != 0)
        product, steps = ahead * behind.conj(), np.where(central, 2, 1)
        if one_sided:
            product = np.where(central, product, ahead * S.conj() + S * behind.conj())  # one of both is 0
        defined &= product != 0
        result -= np.angle(product) / (steps * voxel[axis]) * h[2 - axis] / (h @ h)
    return np.where(defined, result, 0), defined


def along(values: np.ndarray, axis: int) -> np.ndarray:
    """``values`` (n,) shaped to broadcast along ``axis`` of a crystal function."""
    return values.reshape([-1 if a == axis else 1 for a in range(3)])
