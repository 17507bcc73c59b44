"""The way back from the model grid to that of the data, on which phasing programs have their objects.

Equation (1) of `pendel.kinematic.grid`, read from right to left: the object is the crystal function at A n. Where a
cell of that lattice is two voxels long or longer, it is the mean over the cell, as a voxel's value is the mean over the
voxel.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ..base import checks, plausible
from ..experiment.geometry import Experiment
from .grid import BOX_MARGIN, bounding_box, fourier_lattice, without_ramp


def to_detector_grid(
    S: ArrayLike | Any,
    experiment: Experiment,
    shape: tuple[int, int, int] | None = None,
    voxel: tuple[float, float, float] | None = None,
    *,
    support: ArrayLike | None = None,
    order: int = 3,
) -> np.ndarray:
    """A crystal function as the object that phasing would find: the inverse of `to_model_grid`.

    The origin voxel n//2 lands on N//2, and a pattern centre away from n//2 gives the object the linear phase that
    `to_model_grid` removes.

    Parameters
    ----------
    S : complex (nz, ny, nx), or bool of this shape: a support, which becomes one on the other grid; or a `Result` or
        `io.StoredResult`, which brings its support and voxel.
    experiment : of the data; its ``basis()``, ``centre``, ``detector_shape`` and ``dq`` are used.
    shape : (N0, N1, N2) of the object, at least the data's (frames, rows, cols), whose pixel n//2 is at N//2; None:
        the data's.
    voxel : (dz, dy, dx) of the model grid, m; None with a result alone.
    support : bool (nz, ny, nx), outside of which the object is zero; None: where S is not zero.
    order : spline order of the interpolation, 1 to 5.

    Returns
    -------
    complex64 (N0, N1, N2), or bool for a support.

    Raises
    ------
    TypeError, ValueError : naming the parameter; ValueError also where the crystal is larger than the field of view of
        the data, and where the rocking steps are not equal within 5 %.
    """
    frames = (experiment.n_frames, *experiment.detector_shape)
    shape = frames if shape is None else checks.sizes("shape", shape, 3)
    if hasattr(S, "S"):
        S, support, voxel = _of_result(S, support, voxel)
    if voxel is None:
        raise TypeError("voxel: expected (dz, dy, dx), m, of the crystal's grid, got None")
    voxel = np.array(plausible.lengths(plausible.VOXEL, "voxel", voxel, 3))
    order = checks.integer("order", order, at_least=1, at_most=5)
    S, support = _crystal_and_support(S, support)
    basis, offset = fourier_lattice("shape", experiment, shape)

    cell = np.linalg.inv(np.diag(shape) @ basis.T / (2 * np.pi))  # A of (1), columns (x, y, z) m
    step = cell[::-1] / voxel[:, None]  # the same in voxels, (z, y, x)
    region = _region(support, step, shape)
    found, inside = _cell_means(S, support, step, region, shape, order)
    made = np.zeros(shape, bool if S is None else np.complex64)
    made[region] = inside if S is None else found
    return made if S is None else without_ramp(made, -offset)


def padded(obj: ArrayLike, shape: tuple[int, int, int]) -> np.ndarray:
    """An object or support amid zeros, so that n//2 goes to N//2: files may hold little more than the support.

    Parameters
    ----------
    obj : (n0, n1, n2), of any dtype.
    shape : (N0, N1, N2), at least that of ``obj``.

    Returns
    -------
    (N0, N1, N2), of the same dtype.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    obj = checks.numpy_array("obj", obj)
    shape = checks.sizes("shape", shape, 3)
    if obj.ndim != 3 or any(N < n for n, N in zip(obj.shape, shape, strict=True)):
        raise ValueError(f"obj: expected an array (n0, n1, n2) of at most {shape}, got shape {obj.shape}")
    before = [N // 2 - n // 2 for n, N in zip(obj.shape, shape, strict=True)]
    return np.pad(obj, [(b, N - n - b) for b, n, N in zip(before, obj.shape, shape, strict=True)])


def crystal_of(result) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """(S, bool support, voxel) of a `Result` or `io.StoredResult`, or of what has these attributes.

    Raises
    ------
    TypeError : for anything else, and where one of them is None.
    """
    S, support, voxel = (getattr(result, name, None) for name in ("S", "support", "voxel"))
    if S is None or support is None or voxel is None:
        raise TypeError(f"result: expected a Result, or what has S, support and voxel, got {checks.describe(result)}")
    return S, support, voxel


def _of_result(result, support, voxel):
    """(S, support, voxel) of a result, and of what was given beside it."""
    S, own, known = crystal_of(result)
    if voxel is not None:
        raise ValueError(f"voxel: expected None with a result, which has its own, got {voxel}")
    return S, own if support is None else support, known


def _crystal_and_support(S, support):
    """(complex64 S, bool support) of the arguments; S is None where a support is what is asked for."""
    S = checks.numpy_array("S", S)
    if S.dtype == bool:
        if support is not None:
            raise ValueError("support: expected None with a support for S, got one")
        support, S = checks.array("S", S, (None, None, None), bool, axes="(nz, ny, nx)"), None
    else:
        S = checks.array("S", S, (None, None, None), np.complex64, axes="(nz, ny, nx)")
        support = S != 0 if support is None else checks.array("support", support, S.shape, bool)
    if not support.any():
        raise ValueError("S: expected at least one voxel inside the support, got none")
    return S, support


def _region(support, step, shape):
    """Slices of the lattice of ``shape`` that hold the support, with a cell around it where there is room.

    step : (3, 3), columns: a step along each axis of the lattice, in voxels (z, y, x).
    """
    voxels = np.array(np.nonzero(support)) - (np.array(support.shape) // 2)[:, None]
    cells = np.linalg.solve(step, voxels)
    low, high = cells.min(axis=1), cells.max(axis=1)
    half = np.array(shape) // 2
    if (low < -half - 0.5).any() or (high > np.array(shape) - half - 0.5).any():
        widest = [round(float(v), 1) for v in np.maximum(-low, high) * 2]
        raise ValueError(
            f"S: expected a crystal that the field of view of the data holds, {tuple(shape)} cells along frames, rows "
            f"and columns about its origin, got one of {widest}"
        )
    first = np.maximum(np.floor(low).astype(int) - 1 + half, 0)
    last = np.minimum(np.ceil(high).astype(int) + 1 + half, np.array(shape) - 1)
    return tuple(slice(a, b + 1) for a, b in zip(first.tolist(), last.tolist(), strict=True))


def _cell_means(S, support, step, region, shape, order):
    """(means of S over the lattice's cells in ``region``, whether the support reaches into the cell).

    Means of as many points along each edge of a cell as the edge has whole voxels, of a spline cut off at the support.
    S : complex64, or None: what is asked for is the support.
    """
    box = bounding_box(np.pad(support, BOX_MARGIN))  # nothing but zeros beyond it
    origin = np.array(support.shape) // 2 + BOX_MARGIN - [s.start for s in box]
    shape_function = np.pad(support.astype(np.float32), BOX_MARGIN)[box]
    if S is not None:
        spline = np.pad(np.where(support, S, 0), BOX_MARGIN)[box]
        spline = ndimage.spline_filter(spline, order, output=spline.dtype) if order > 1 else spline

    counts = np.maximum(1, np.floor(np.linalg.norm(step, axis=0))).astype(int)
    total, touched = 0, False
    for part in itertools.product(*((np.arange(n) + 0.5) / n - 0.5 for n in counts)):
        places = [np.arange(s.start, s.stop) - n // 2 + p for s, n, p in zip(region, shape, part, strict=True)]
        frame, row, col = np.ix_(*places)
        points = np.stack([s[0] * frame + s[1] * row + s[2] * col + o for s, o in zip(step, origin, strict=True)])
        inside = ndimage.map_coordinates(shape_function, points, order=1, mode="constant") > 0.5
        touched = touched | inside
        if S is not None:
            values = ndimage.map_coordinates(spline, points, order=order, mode="constant", prefilter=False)
            total = total + np.where(inside, values, 0)
    return total / counts.prod(), touched
