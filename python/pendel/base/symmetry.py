"""Crystal functions moved, twinned and differentiated: what data cannot tell apart, and what they are compared by."""

import numpy as np
from scipy import fft

from . import checks


def twin(S):
    """The twin conj(S(-r)) about voxel n//2, which has the same kinematic data (index 0 of an even axis wraps)."""
    S = np.asarray(S)
    even = [1 - n % 2 for n in S.shape]
    return np.roll(np.flip(S), even, axis=tuple(range(S.ndim))).conj()


def translate(S, shift):
    """S moved by `shift` (z, y, x) voxels towards growing index, periodic, by its Fourier series; complex128, unitary.

    The Nyquist bin of an even axis keeps its complex phase, so that moves of opposite sign cancel exactly.
    """
    S = checks.array("S", S, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    spectrum = fft.fftn(S)
    for axis, move in enumerate(np.broadcast_to(shift, 3)):
        spectrum *= along(np.exp(-2j * np.pi * fft.fftfreq(S.shape[axis]) * move), axis)
    return fft.ifftn(spectrum)


def strain(S, voxel, h):
    """Strain along h, d(u.h^)/dh^ = -grad(phi).h/|h|^2, float64 (nz, ny, nx), and a bool array of where it is defined.

    Central differences of the phase taken as arg(S(r+d) conj(S(r-d))), so 2-pi wraps do not matter as long as
    neighbours two voxels apart differ by less than pi; undefined (0) where a neighbour is zero or outside the grid.
    voxel: (dz, dy, dx) m; h: (x, y, z) rad/m.
    """
    S = checks.array("S", S, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    voxel = checks.lengths("voxel", voxel, 3)
    h = checks.array("h", h, (3,), np.float64)
    result = np.zeros(S.shape)
    defined = S != 0
    for axis in range(3):
        ahead, behind = np.zeros_like(S), np.zeros_like(S)
        move = [slice(None)] * 3, [slice(None)] * 3
        move[0][axis], move[1][axis] = slice(1, None), slice(None, -1)
        ahead[tuple(move[1])] = S[tuple(move[0])]
        behind[tuple(move[0])] = S[tuple(move[1])]
        product = ahead * behind.conj()
        defined &= product != 0
        result -= np.angle(product) / (2 * voxel[axis]) * h[2 - axis] / (h @ h)
    return np.where(defined, result, 0), defined


def along(values, axis):
    """``values`` (n,) shaped to broadcast along ``axis`` of a crystal function."""
    return values.reshape([-1 if a == axis else 1 for a in range(3)])
