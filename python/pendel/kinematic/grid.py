"""What phasing finds, and the way from the grid of the data to that of the model.

The data array, index offset m from the pattern's centre, samples |S~(Q)|^2 on the skewed lattice Q = B m
(`pendel.kinematic.phasing`), so that the phased object is the crystal function on the lattice that is conjugate to it,

(1) obj[n] = S(A n),   A = 2 pi inv(B)^T diag(1/N)

and S at a voxel at r, (x, y, z) in m from the origin, is the object at the index n = inv(A) r, between its samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ..base import checks, plausible
from ..base.printing import brief
from ..base.symmetry import along
from ..base.symmetry import twin as conjugate_twin
from ..experiment.geometry import Experiment
from .support import shrink_wrap
from .uneven import checked_basis, even_experiment, is_even

BOX_MARGIN = 8  # samples around the support that the spline sees: the prefilter's reach


@dataclasses.dataclass
class KinematicResult:
    """Result of `phase`, on the padded detector-frame grid (N0, N1, N2), zero frequency and origin at N//2.

    Attributes
    ----------
    object : complex64 (N0, N1, N2), data = |FFT(object)|^2 with norm "ortho"; centre of mass at N//2, zero outside
        the support.
    support : bool (N0, N1, N2).
    chi : sqrt(sum (|F| - sqrt I)^2 / sum I) over good pixels, of ``object``.
    error : float64 (iterations,), the same of each iteration's input; that of HIO also holds what is outside the
        support.
    seed : of the random phases it began with.
    """

    object: np.ndarray
    support: np.ndarray
    chi: float
    error: np.ndarray
    seed: int

    __repr__ = brief


def to_model_grid(
    result: KinematicResult | ArrayLike,
    experiment: Experiment,
    shape: tuple[int, int, int],
    voxel: tuple[float, float, float],
    *,
    support: ArrayLike | None = None,
    twin: bool = False,
    order: int = 3,
    normalise: bool = True,
    clip: bool = True,
) -> np.ndarray:
    """The phased object as a crystal function S on the model grid.

    The object's centre of mass lands on the origin voxel n//2 and S is zero outside the support. A pattern centre away
    from n//2 is a linear phase of the object and is removed.

    Parameters
    ----------
    result : `KinematicResult`, or the complex object (N0, N1, N2) of any phasing program with data = |FFT(object)|^2:
        numpy's sign, origin and zero frequency at N//2, N >= the data's shape, padded so that n//2 went to N//2.
    experiment : of the phased data; its ``basis()``, ``centre``, ``detector_shape`` and ``dq`` are used.
    shape : (nz, ny, nx) of the model grid.
    voxel : (dz, dy, dx) of the model grid, m.
    support : bool (N0, N1, N2) for a bare object; None: `shrink_wrap` of it. A `KinematicResult` brings its own.
    twin : take conj(S(-r)).
    order : spline order of the interpolation, 1 to 5.
    normalise : amplitude median 1 and mean phase 0 in the support eroded by two voxels.
    clip : limit |S| to 1.

    Returns
    -------
    complex64 (nz, ny, nx).

    Raises
    ------
    TypeError, ValueError : naming the parameter; ValueError also where the object does not fit the model grid and
        where the rocking steps are not equal within 5 %: the object then has no Fourier lattice, see `even_scan`.
    """
    shape = checks.sizes("shape", shape, 3)
    voxel = np.array(plausible.lengths(plausible.VOXEL, "voxel", voxel, 3))
    order = checks.integer("order", order, at_least=1)
    obj, support = object_and_support(result, support)
    basis, offset = fourier_lattice("result", experiment, obj.shape)

    obj, support = centred(obj, support)
    obj = without_ramp(obj, offset)
    to_index = np.diag(obj.shape) @ basis.T / (2 * np.pi)  # inv(A) of (1)
    origin = _centre_of_mass(obj, support)

    box = bounding_box(support)  # the spline prefilter runs over everything it is given
    obj, support = obj[box], support[box]
    origin = origin - [s.start for s in box]
    _check_fit(support, to_index, origin, shape, voxel)

    points = _voxels_as_indices(shape, voxel, to_index, origin)
    S = ndimage.map_coordinates(obj, points, order=order, mode="constant")
    inside = ndimage.map_coordinates(support.astype(np.float32), points, order=1, mode="constant") > 0.5
    S = np.where(inside, S, 0).astype(np.complex64)

    if twin:
        S = conjugate_twin(S)
        inside = conjugate_twin(inside)
    if normalise:
        S *= _normalisation(S, inside)
    if clip:
        S /= np.maximum(np.abs(S), 1)
    return S


def box_for(
    phased: KinematicResult | ArrayLike,
    experiment: Experiment,
    voxel: tuple[float, float, float],
    margin: float = 1.35,
    *,
    support: ArrayLike | None = None,
) -> tuple[int, int, int]:
    """Even shape of a model grid that holds a phased object with room for its support to move.

    Along each axis: twice the support's farthest distance from the centre of mass, times ``margin``; y and x at most
    the field of view, beyond which the far field has no band.

    Parameters
    ----------
    phased : as ``result`` of `to_model_grid`.
    experiment : of the phased data.
    voxel : (dz, dy, dx) of the model grid, m.
    margin : at least 1.
    support : as in `to_model_grid`.

    Returns
    -------
    (nz, ny, nx)

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    voxel = np.array(checks.lengths("voxel", voxel, 3))
    margin = checks.number("margin", margin, at_least=1)
    obj, support = object_and_support(phased, support)
    middle = _centre_of_mass(obj, support)
    corners = np.array(np.nonzero(support)) - middle[:, None]
    reach = np.abs(np.linalg.solve(_to_index(support.shape, experiment), corners)).max(axis=1)[::-1] + voxel / 2
    shape = [2 * math.ceil(margin * r / v) for r, v in zip(reach, voxel, strict=True)]
    most = [int(experiment.field_of_view / v * (1 + 1e-9)) // 2 * 2 for v in voxel[1:]]
    return (shape[0], *(min(n, m) for n, m in zip(shape[1:], most, strict=True)))


def sample_volume(phased: KinematicResult, experiment: Experiment) -> float:
    """Volume of a sample of a phased object, m^3."""
    return float(1 / abs(np.linalg.det(_to_index(phased.support.shape, experiment))))


def _to_index(shape, experiment):
    """(3, 3): index = diag(N) B^T r / (2 pi), inv(A) of (1)."""
    return np.diag(shape) @ even_experiment(experiment).basis().T / (2 * np.pi)


def centred(obj: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Object and support rolled (periodically) so that the centre of mass of |obj| in the support is at n//2."""
    weight = np.abs(obj) * support
    shift = []
    for axis, n in enumerate(obj.shape):
        angle = np.angle(_profile(weight, axis) @ np.exp(2j * np.pi * np.arange(n) / n))
        shift.append(int(np.rint(n // 2 - angle * n / (2 * np.pi))))
    return np.roll(obj, shift, axis=(0, 1, 2)), np.roll(support, shift, axis=(0, 1, 2))


def object_and_support(result, support) -> tuple[np.ndarray, np.ndarray]:
    """(complex64 object, bool support) of the arguments of `to_model_grid`, checked."""
    if isinstance(result, KinematicResult):
        support = result.support
        result = result.object
    obj = checks.array("result", result, (None, None, None), np.complex64, axes="(frames, rows, cols)")
    support = shrink_wrap(obj) if support is None else checks.array("support", support, obj.shape, bool)
    if not support.any():
        raise ValueError("support: expected at least one voxel inside, got none")
    return obj, support


def fourier_lattice(name: str, experiment: Experiment, size: tuple) -> tuple[np.ndarray, np.ndarray]:
    """(B, the pattern's centre from n//2) of the data, checked: equal rocking steps, and no more data than ``size``.

    name : of the argument that ``size``, of a lattice, belongs to.
    """
    data_shape = np.array([len(np.asarray(experiment.dq)), *experiment.detector_shape])
    if (np.array(size) < data_shape).any():
        raise ValueError(
            f"{name}: expected a grid of at least the data's shape {tuple(data_shape.tolist())}, got {size}"
        )

    if not is_even(experiment):
        raise ValueError(
            "experiment: expected two or more frames at equal rocking steps, got others; phase what "
            "kinematic.even_scan(experiment, data, mask) makes of them, and give its experiment here"
        )
    return checked_basis(experiment), np.asarray(experiment.centre, float) - np.array(data_shape) // 2


def without_ramp(obj: np.ndarray, offset: Sequence[float] | np.ndarray) -> np.ndarray:
    """The object without the linear phase of a pattern whose centre is ``offset`` pixels away from n//2."""
    for axis, (n, pixels) in enumerate(zip(obj.shape, offset, strict=True)):
        ramp = np.exp(-2j * np.pi * pixels * (np.arange(n) - n // 2) / n)
        obj = obj * along(ramp.astype(np.complex64), axis)
    return obj


def _profile(weight, axis):
    """Sum over the other two axes, float64 (n,)."""
    return weight.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)


def _centre_of_mass(obj, support):
    """(3,) in samples from index 0, of |obj| in the support."""
    weight = np.abs(obj) * support
    profiles = [_profile(weight, axis) for axis in range(3)]
    return np.array([p @ np.arange(len(p)) / p.sum() for p in profiles])


def bounding_box(support: np.ndarray) -> tuple:
    """Slices that hold the support and a margin."""
    found = ndimage.find_objects(support.astype(np.uint8))[0]
    return tuple(slice(max(s.start - BOX_MARGIN, 0), s.stop + BOX_MARGIN) for s in found)


def _check_fit(support, to_index, origin, shape, voxel):
    """ValueError unless the support, less a voxel, lies within the model grid."""
    samples = np.array(np.nonzero(support)) - origin[:, None]
    reach = np.abs(np.linalg.solve(to_index, samples)).max(axis=1)[::-1]
    limit = np.array([max((n - 1) // 2, 0) for n in shape]) * voxel
    if (reach > limit + voxel).any():
        least = tuple(int(2 * np.ceil(r / v) - 1) for r, v in zip(reach, voxel, strict=True))
        raise ValueError(f"shape: expected at least {least} voxels to hold the object, got {shape}")


def _voxels_as_indices(shape, voxel, to_index, origin):
    """(3, nz, ny, nx) index of the object at every voxel's centre, real numbers."""
    z, y, x = ((np.arange(n) - n // 2) * d for n, d in zip(shape, voxel, strict=True))
    z = z[:, None, None]
    y = y[None, :, None]
    x = x[None, None, :]
    return np.stack([to_index[a, 0] * x + to_index[a, 1] * y + to_index[a, 2] * z + origin[a] for a in range(3)])


def _normalisation(S, inside):
    """The factor, complex64, that makes the median amplitude 1 and the mean phase 0 within the support."""
    core = ndimage.binary_erosion(inside, iterations=2)
    values = S[core] if core.any() else S[inside]
    return np.complex64(np.exp(-1j * np.angle(values.sum())) / np.median(np.abs(values)))
