"""Anisotropic total variation of the crystal function, and its adjoint.

(1) ATV(S) = (1/Omega) sum_voxels (|d_x S|^p + |d_y S|^p + |d_z S|^p + eps)^(q/p)
(2) d_x S [x] = S[x + 1] - S[x], and 0 at the far end of the box; d_y and d_z alike, all per voxel
(3) adj_d = (q/Omega) (sum of (1) + eps)^(q/p - 1) |d|^(p-2) d for each of the three, 0 where d = 0
(4) adj_S[x] = adj_d[x - 1] - adj_d[x], summed over the three axes

(1) after Wu et al., arXiv 2506.15939. Omega is the number of voxels. Differences end at the box (2), so a constant S
costs nothing. A crystal in vacuum still pays for its surface, which pulls |S| down there; with a support only
differences between two of its voxels count, and Omega counts its voxels instead of the box's.
"""

from typing import Any

import numpy as np

from ..base import checks
from ..base.arrays import is_finite, module
from ..operator.engine import Array
from . import kernels

SLAB = 1 << 18  # voxels worked on at a time
EPS = 1e-6  # of |d|^p: below what noise makes of it


def atv(
    S: Array, weight: float = 1.0, *, p: float = 2.0, q: float = 1.0, eps: float = EPS, support: Array | None = None
) -> tuple[Any, Array]:
    """``weight`` times (1), and its gradient.

    Parameters
    ----------
    S : real or complex (nz, ny, nx), float32 or float64 of each part; other kinds become float64.
    weight : number >= 0, in the units of the loss it is added to: the value has no others, S being a pure number.
    p, q : exponents, p >= 1, q > 0. (2, 1): isotropic total variation, (1, 1): along the axes, (2, 2): smoothness.
    eps : number >= 0 that rounds the corner at d = 0, to be compared with |d|^p. With eps = 0 or p = 1 there is still a
        corner; its gradient is taken as 0.
    support : bool (nz, ny, nx): only differences within it; None: all.

    Returns
    -------
    value : float
        Summed in float64.
    adj_S : of the shape and dtype of S
        dL/dRe S + i dL/dIm S. For CuPy arrays S and support both are CuPy's, the value of shape ().

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """
    xp = module(S)
    check = checks.array if xp is np else _there
    S = checks.numpy_array("S", S) if xp is np else S
    if S.dtype.kind in "biu":
        S = S.astype(np.float64)
    S = check("S", S, (None, None, None), S.dtype, axes="(nz, ny, nx)")
    weight = checks.number("weight", weight, at_least=0)
    p, q = checks.number("p", p, at_least=1), checks.number("q", q, above=0)
    eps = checks.number("eps", eps, at_least=0)
    if support is not None:
        support = check("support", support, S.shape, bool, axes="(nz, ny, nx)")
    with np.errstate(over="ignore", invalid="ignore"):
        value, adj_S = unchecked_atv(S, weight, p=p, q=q, eps=eps, support=support)
    if xp is np and not (np.isfinite(value) and is_finite(adj_S)):
        raise ValueError(f"S: expected values whose powers {S.dtype} can hold, got |S| up to {np.abs(S).max():.3g}")
    return value, adj_S


def unchecked_atv(S, weight, *, p=2.0, q=1.0, eps=EPS, support=None):
    """`atv` of arguments that need no check, for loops."""
    xp = module(S)
    if xp is not np:
        omega = S.size if support is None else xp.maximum(xp.count_nonzero(support), 1)  # nobody waits to hear of 0
        terms, adj_S = kernels.atv(S, support, p, q, eps, weight / omega)
        return weight * terms.sum(dtype=np.float64) / omega, adj_S

    omega = S.size if support is None else np.count_nonzero(support)
    adj_S, total = np.zeros_like(S), 0.0
    if omega == 0:
        return 0.0, adj_S
    step = max(1, SLAB // max(1, S[0].size))
    for first in range(0, len(S), step):
        planes = slice(first, min(first + step, len(S)))
        differences = [_difference(S, axis, planes, support) for axis in range(3)]
        # (1), and what (3) has of it
        base = sum(_power(d, p) for d in differences) + S.real.dtype.type(eps)
        values = base ** (q / p)
        factor = np.zeros_like(base)
        np.power(base, q / p - 1, out=factor, where=base > 0)
        factor *= S.real.dtype.type(weight * q / omega)
        if support is not None:
            values *= support[planes]
        total += float(values.sum(dtype=np.float64))
        for axis, d in enumerate(differences):
            # Reverse (1)
            if p != 2:
                size = np.abs(d)
                d *= np.power(size, p - 2, out=np.zeros_like(size), where=size > 0)
            d *= factor
            # Reverse (2): d = S[next] - S[here]
            here, after = _pair(adj_S, axis, planes)
            kept = d[_but_last(axis, planes, len(S))]
            here -= kept
            after += kept
    return weight * total / omega, adj_S


def _there(name, value, shape, dtype, axes):
    """`checks.array` of an array on a device, but for its values."""
    if module(value) is np:
        what = "a CuPy array, as S is"
        raise TypeError(f"{name}: expected {what}, got {checks.describe(value)}; convert it with cupy.asarray")
    checks.kind_and_shape(name, value, shape, np.dtype(dtype), axes)
    return value


def _pair(S, axis, planes):
    """Views of S at the voxels of ``planes`` that have a next one along ``axis``, and at those next ones."""
    if axis == 0:
        stop = min(planes.stop, len(S) - 1)
        return S[planes.start : stop], S[planes.start + 1 : stop + 1]
    part = S[planes]
    return (part[:, :-1], part[:, 1:]) if axis == 1 else (part[:, :, :-1], part[:, :, 1:])


def _but_last(axis, planes, nz):
    """Index of the same voxels in an array of ``planes`` alone."""
    if axis == 0:
        return (slice(min(planes.stop, nz - 1) - planes.start),)
    return (slice(None),) * axis + (slice(-1),)


def _difference(S, axis, planes, support):
    """Equation (2) for the voxels of ``planes``; 0 where a support does not hold both voxels."""
    d = np.zeros_like(S[planes])
    here, after = _pair(S, axis, planes)
    kept = d[_but_last(axis, planes, len(S))]
    np.subtract(after, here, out=kept)
    if support is not None:
        here, after = _pair(support, axis, planes)
        kept *= here & after
    return d


def _power(d, p):
    """|d|^p, real."""
    return np.square(d.real) + np.square(d.imag) if p == 2 else np.abs(d) ** p
