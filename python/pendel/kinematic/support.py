"""Supports: where the crystal is allowed to be, where it is full, and keeping it in the middle of its grid.

A voxel is inside the crystal where its amplitude exceeds a level times the amplitude of a full voxel. Which level and
which full amplitude depends on what is asked, and `body` and `reference_amplitude` have both as parameters:

    level       reference                       used by
    0.5         median of those > 0.3 maximum   `recipes.levels.sharpen`: no support, and most of the box is empty
    0.5, 0.25   the same, in the support        `fit.evidence.Perfection`: the support may be wider than the crystal
    0.5         median in the support           `fit.priors.bulk_of`, blurred: the support fits the crystal
    0.5         0.8-quantile in the support     `recipes.thick_crystals.solid`, blurred: much of it may be empty or dim
    threshold   maximum, or a quantile of       `shrink_wrap`, blurred, lower levels: it has to hold the whole
                those > 0.1 maximum             crystal; a quantile is not moved by one hot voxel

`shrink_wrap` and `recentre` take CuPy arrays too and then give such; both have to wait for numbers from the device.
"""

import numpy as np

from ..base import checks, plausible
from ..base.arrays import host, module, scipy_module


def reference_amplitude(amplitude, reference: str | float = "median", *, support=None, above: float | None = None):
    """The amplitude of a full voxel, by which it is judged what is inside the crystal.

    Parameters
    ----------
    amplitude : real >= 0 (nz, ny, nx), |S| or |S| blurred.
    reference : "max", "median", or a number q in (0, 1], the q-quantile; of the voxels that ``support`` and ``above``
        leave.
    support : bool (nz, ny, nx); None: all voxels.
    above : only voxels that exceed this part of the largest amplitude of all; None: voxels of any amplitude.

    Returns
    -------
    A real scalar, one of CuPy for an array of it.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    xp = module(amplitude)
    counted = support
    if above is not None:
        bright = amplitude > above * amplitude.max()
        counted = bright if support is None else support & bright
    values = amplitude if counted is None else amplitude[counted]

    if isinstance(reference, str):
        checks.choice("reference", reference, ("max", "median"))
        return values.max() if reference == "max" else xp.median(values)
    return xp.quantile(values, checks.number("reference", reference, above=0, at_most=1))


def body(amplitude, level: float, reference: str | float = "median", *, support=None, above: float | None = None):
    """Where the crystal is: voxels of the support whose amplitude exceeds ``level`` times `reference_amplitude`.

    Parameters
    ----------
    amplitude : real >= 0 (nz, ny, nx), |S| or |S| blurred.
    level : part of a full voxel's amplitude.
    reference, support, above : as in `reference_amplitude`; the table at the head of this module says which are used.

    Returns
    -------
    bool (nz, ny, nx).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    full = reference_amplitude(amplitude, reference, support=support, above=above)
    inside = amplitude > level * full
    return inside if support is None else support & inside


def core(inside, depth: int):
    """Voxels of ``inside``, bool (nz, ny, nx), below ``depth`` voxels of surface, or as many as leave any."""
    for _ in range(depth):
        smaller = scipy_module("ndimage", module(inside)).binary_erosion(inside)
        if not smaller.any():
            break
        inside = smaller
    return inside


def shrink_wrap(
    S,
    threshold: float = 0.2,
    sigma=1.0,
    *,
    reference: str | float = "max",
    largest: bool = True,
    fill: bool = True,
    periodic: bool = False,
):
    """Support from the blurred amplitude (Marchesini et al., Phys. Rev. B 68, 140101, 2003).

    Parameters
    ----------
    S : real or complex (nz, ny, nx).
    threshold : in (0, 1], where the blurred |S| is cut, as a part of the reference.
    sigma : standard deviation of the Gaussian blur, voxels; 0: none, or one value per axis.
    reference : "max", the largest blurred value, or a number q in (0, 1], the q-quantile of the blurred values above a
        tenth of the maximum, which one hot voxel does not move.
    largest : keep only the largest connected component (26 neighbours).
    fill : close holes inside.
    periodic : blur and connect across the array's edges.

    Returns
    -------
    bool (nz, ny, nx), all False for S = 0.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    S = _any_array("S", S)
    threshold = checks.number("threshold", threshold, above=0, at_most=1)
    for s in np.atleast_1d(sigma):
        checks.number("sigma", float(s), at_least=0)

    xp = module(S)
    ndimage = scipy_module("ndimage", xp)
    amplitude = xp.abs(S)
    if np.any(np.asarray(sigma) > 0):
        amplitude = ndimage.gaussian_filter(amplitude, sigma, mode="wrap" if periodic else "constant")
    if amplitude.max() == 0:
        return xp.zeros(S.shape, bool)

    if reference == "max":
        support = body(amplitude, threshold, "max")
    else:
        reference = checks.number("reference", reference, above=0, at_most=1)
        support = body(amplitude, threshold, reference, above=0.1)
    if largest:
        support = largest_component(support, periodic)
    if fill:
        support = ndimage.binary_fill_holes(support)
    return support


def largest_component(support, periodic: bool = False):
    """The largest connected component of a support, of 26 neighbours; the first of several that are equally large.

    Parameters
    ----------
    support : bool (nz, ny, nx).
    periodic : connect across the array's edges.

    Returns
    -------
    bool (nz, ny, nx); ``support`` itself where it has one component or none.
    """
    xp = module(support)
    labels, count = scipy_module("ndimage", xp).label(support, structure=np.ones((3, 3, 3)))
    if count < 2:
        return support

    if periodic:
        labels = xp.asarray(_joined_labels(labels, count))[labels]
    sizes = xp.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels == sizes.argmax()


def _joined_labels(labels, count):
    """The label (count + 1,) that each label takes when the array's opposite faces touch."""
    xp = module(labels)
    joined = np.arange(count + 1)
    for axis in range(3):
        first, last = (host(xp.take(labels, end, axis)) for end in (0, -1))
        touching = np.stack([first, last])[:, (first > 0) & (last > 0)]
        for a, b in np.unique(touching, axis=1).T:
            joined[joined == joined[b]] = joined[a]
    return joined


def recentre(S, *others, threshold: float = 0.1):
    """Roll S by whole voxels so that the centre of mass of |S| is at n//2; the object never crosses an edge.

    The object is where |S| exceeds ``threshold`` times its maximum: mass and bounding box are taken there, and the
    roll is limited so that the box stays inside. S = 0 is not moved.

    Parameters
    ----------
    S : real or complex (nz, ny, nx).
    others : arrays of the same shape (supports, s_0, moments of an optimiser), rolled alike.
    threshold : in [0, 1).

    Returns
    -------
    (S, *others, shift) : copies, and a tuple of three integers (z, y, x), voxels.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    S = _any_array("S", S)
    threshold = checks.number("threshold", threshold, at_least=0, below=1)
    for i, other in enumerate(others):
        if getattr(other, "shape", None) != S.shape:
            raise ValueError(f"others[{i}]: expected shape {S.shape}, got {checks.describe(other)}")

    xp = module(S)
    shift = []
    for n, (moment, mass, first, last) in zip(S.shape, _mass_and_bounds(S, threshold), strict=True):
        wanted = n // 2 - int(np.rint(moment / mass)) if mass else 0
        shift.append(int(np.clip(wanted, -first, n - 1 - last)) if mass else 0)
    moved = tuple(xp.roll(a if module(a) is xp else xp.asarray(a), shift, axis=(0, 1, 2)) for a in (S, *others))
    return (*moved, tuple(shift))


def _mass_and_bounds(S, threshold):
    """(3, 4) on the host: first moment, mass, first and last place used of every axis, of |S| above the threshold."""
    xp = module(S)
    amplitude = xp.abs(S).astype(np.float64)
    amplitude[amplitude <= threshold * amplitude.max()] = 0
    found = []
    for axis, n in enumerate(S.shape):
        profile = amplitude.sum(axis=tuple(a for a in range(3) if a != axis))
        used = profile != 0
        found += [profile @ xp.arange(n), profile.sum(), used.argmax(), n - 1 - used[::-1].argmax()]
    return host(xp.stack(found)).reshape(3, 4)  # one transfer from the device


def box_support(shape, voxel, extent) -> np.ndarray:
    """Box about the origin voxel n//2: True where a voxel's centre is inside.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel, extent : (z, y, x), m.

    Returns
    -------
    bool (nz, ny, nx).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    shape = checks.sizes("shape", shape, 3)
    voxel = plausible.lengths(plausible.VOXEL, "voxel", voxel, 3)
    extent = plausible.lengths(plausible.CRYSTAL_SIZE, "extent", extent, 3)
    # the last digit: an extent of a whole number of voxels must not depend on rounding
    masks = [
        np.abs(np.arange(n) - n // 2) * d <= e / 2 * (1 + 1e-9) for n, d, e in zip(shape, voxel, extent, strict=True)
    ]
    return masks[0][:, None, None] & masks[1][None, :, None] & masks[2][None, None, :]


def _any_array(name, value):
    if module(value) is not np:
        checks.kind_and_shape(name, value, (None, None, None), value.dtype, "(nz, ny, nx)")
        return value
    value = checks.numpy_array(name, value)
    return checks.array(name, value, (None, None, None), value.dtype, axes="(nz, ny, nx)")
