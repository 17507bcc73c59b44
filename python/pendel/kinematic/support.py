"""Supports: where the crystal is allowed to be, and keeping it in the middle of its grid.

`shrink_wrap` and `recentre` take CuPy arrays too and then give such; both have to wait for numbers from the device.
"""

import numpy as np

from ..base import checks
from ..base.arrays import host, module, scipy_module


def shrink_wrap(S, threshold=0.2, sigma=1.0, *, reference="max", largest=True, fill=True, periodic=False):
    """Support from the blurred amplitude (Marchesini et al., Phys. Rev. B 68, 140101, 2003).

    S: real or complex (nz, ny, nx). The amplitude |S| is blurred by a Gaussian of standard deviation `sigma` voxels
    (0: none, or one value per axis) and cut at `threshold` (0..1) times the reference: "max", the largest blurred
    value, or a number q in (0, 1], the q-quantile of the blurred values above a tenth of the maximum, which one hot
    voxel does not move. largest: keep only the largest connected component (26 neighbours); fill: close holes inside;
    periodic: blur and connect across the array's edges. Returns bool (nz, ny, nx), all False for S = 0.
    """
    S = _any_array("S", S)
    threshold = checks.number("threshold", threshold, above=0, at_most=1)
    for s in np.atleast_1d(sigma):
        checks.number("sigma", float(s), at_least=0)
    xp = module(S)
    ndimage, amplitude = scipy_module("ndimage", xp), xp.abs(S)
    if np.any(np.asarray(sigma) > 0):
        amplitude = ndimage.gaussian_filter(amplitude, sigma, mode="wrap" if periodic else "constant")
    peak = amplitude.max()
    if peak == 0:
        return xp.zeros(S.shape, bool)
    if reference != "max":
        q = checks.number("reference", reference, above=0, at_most=1)
        peak = xp.quantile(amplitude[amplitude > 0.1 * peak], q)
    support = amplitude > threshold * peak
    if largest:
        support = _largest_component(support, periodic)
    if fill:
        support = ndimage.binary_fill_holes(support)
    return support


def recentre(S, *others, threshold=0.1):
    """Roll S by whole voxels so that the centre of mass of |S| is at n//2; the object never crosses an edge.

    S: (nz, ny, nx); `others` (supports, s_0, optimiser moments) of the same shape are rolled alike. The object is
    where |S| exceeds `threshold` times its maximum: mass and bounding box are taken there, and the roll is limited so
    that the box stays inside. Returns (S, *others, shift), shift a tuple of three integers (z, y, x) in voxels; arrays
    are copies. S = 0 is not moved.
    """
    S = _any_array("S", S)
    threshold = checks.number("threshold", threshold, at_least=0, below=1)
    for i, other in enumerate(others):
        if getattr(other, "shape", None) != S.shape:
            raise ValueError(f"others[{i}]: expected shape {S.shape}, got {checks.describe(other)}")
    xp = module(S)
    amplitude = xp.abs(S).astype(np.float64)
    amplitude[amplitude <= threshold * amplitude.max()] = 0
    found = []  # of every axis: first moment, mass, first and last place used
    for axis, n in enumerate(S.shape):
        profile = amplitude.sum(axis=tuple(a for a in range(3) if a != axis))
        used = profile != 0
        found += [profile @ xp.arange(n), profile.sum(), used.argmax(), n - 1 - used[::-1].argmax()]
    shift = []
    for n, (moment, mass, first, last) in zip(S.shape, host(xp.stack(found)).reshape(3, 4), strict=True):
        wanted = n // 2 - int(np.rint(moment / mass)) if mass else 0
        shift.append(int(np.clip(wanted, -first, n - 1 - last)) if mass else 0)
    moved = tuple(xp.roll(a if module(a) is xp else xp.asarray(a), shift, axis=(0, 1, 2)) for a in (S, *others))
    return (*moved, tuple(shift))


def box_support(shape, voxel, extent):
    """Box of `extent` (z, y, x) m about the origin voxel n//2: True where a voxel's centre is inside, bool."""
    shape = checks.sizes("shape", shape, 3)
    voxel = checks.lengths("voxel", voxel, 3)
    extent = checks.lengths("extent", extent, 3)
    # the last digit: an extent of a whole number of voxels must not depend on rounding
    masks = [
        np.abs(np.arange(n) - n // 2) * d <= e / 2 * (1 + 1e-9) for n, d, e in zip(shape, voxel, extent, strict=True)
    ]
    return masks[0][:, None, None] & masks[1][None, :, None] & masks[2][None, None, :]


def _any_array(name, value):
    if module(value) is not np:
        checks.kind_and_shape(name, value, (None, None, None), value.dtype, "(nz, ny, nx)")
        return value
    value = np.asarray(value)
    return checks.array(name, value, (None, None, None), value.dtype, axes="(nz, ny, nx)")


def _largest_component(support, periodic):
    xp = module(support)
    labels, count = scipy_module("ndimage", xp).label(support, structure=np.ones((3, 3, 3)))
    if count < 2:
        return support
    root = np.arange(count + 1)
    if periodic:
        for axis in range(3):
            first, last = (host(xp.take(labels, end, axis)) for end in (0, -1))
            for a, b in np.unique(np.stack([first, last])[:, (first > 0) & (last > 0)], axis=1).T:
                root[root == root[b]] = root[a]
        labels = xp.asarray(root)[labels]
    sizes = xp.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels == sizes.argmax()
