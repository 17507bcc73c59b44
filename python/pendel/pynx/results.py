"""CXI files of PyNX on its grid, that of the data: its object goes to the detector by the same FFT as pendel's, with
the axes (frame, row, col). It centres the pattern before it begins, and crops what it writes around the support.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..experiment.geometry import Experiment
from ..io import cxi_objects, hdf5_links
from ..io.cxi_objects import StoredObject
from ..kinematic import KinematicResult, even_experiment, padded, to_detector_grid
from ..kinematic.detector_grid import crystal_of
from ..kinematic.elsewhere import amplitudes, pattern_shift, phased_in_file, with_pattern_at
from ..kinematic.grid import object_and_support


def read_results(
    path: Path | str,
    experiment: Experiment,
    data: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    mode: int = 0,
    external: str = hdf5_links.FOLDER,
) -> KinematicResult:
    """The object that PyNX has found, as if pendel had phased the scan.

    `pendel.solve` and `pendel.reconstruct` take it as ``start``, `pendel.kinematic_start` as ``phased``, and
    `pendel.kinematic.to_model_grid` puts it on the model's grid.

    Parameters
    ----------
    path : CXI file of a run, or modes of several
    experiment : Experiment
        Of the frames in ``data``, or of those that PyNX phased; binned and cropped as PyNX has them.
    data : (n_frames, rows, cols) measured intensities, or None
        They tell by how many pixels PyNX has moved the pattern, and the object's scale. None: the pattern lies in
        PyNX's array as it does in the frames, their n//2 at its middle; ``chi`` is NaN.
    mask : bool, True = good pixel, as in `Model.fit`, or None
    mode : which of the modes
    external : as in `io.read_scan`

    Returns
    -------
    KinematicResult
        On PyNX's grid; what the file holds is padded to the shape that was phased, or to that of the frames.

    Raises
    ------
    OSError
        For files that cannot be read.
    TypeError, ValueError
        Naming file or argument; ValueError also where the object is none of these data.
    """
    stored = cxi_objects.read_object(path, external=external)
    mode = checks.integer("mode", mode, at_least=0, at_most=len(stored.modes) - 1)
    frames = even_experiment(experiment)
    size = stored.shape or (frames.n_frames, *frames.detector_shape)
    shape = tuple(np.maximum(size, stored.modes.shape[1:]).tolist())
    obj = padded(stored.modes[mode], shape)
    support = None if stored.support is None else padded(stored.support, shape)
    if data is not None:
        return phased_in_file(path, obj, support, experiment, data, mask)
    return KinematicResult(*object_and_support(obj, support), math.nan, np.empty(0), 0)


def read_modes(path: Path | str, *, external: str = hdf5_links.FOLDER) -> tuple[np.ndarray, np.ndarray | None]:
    """The modes of several runs of PyNX, as `pynx-cdi-analysis` writes them.

    Parameters
    ----------
    path : file of modes, or CXI file of one run, which has one
    external : as in `io.read_scan`

    Returns
    -------
    modes : complex64 (modes, n0, n1, n2), (frame, row, col), centred
    weights : (modes,), or None

    Raises
    ------
    OSError, ValueError
        Naming the file.
    """
    stored = cxi_objects.read_object(path, external=external)
    return stored.modes, stored.weights


def write_results(
    path: Path | str,
    result: Any,
    experiment: Experiment,
    like: Path | str | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    modes: bool = False,
    force: bool = False,
) -> None:
    """Write a crystal on PyNX's grid: a CXI file that it takes as ``object=`` and ``support=``.

    Parameters
    ----------
    path : file to write; an old result of pendel is replaced when all is well
    result : `Result`, or `io.StoredResult` with support and voxel
    experiment : Experiment
        Of the frames that PyNX phased.
    like : CXI file or modes of PyNX for this scan, or None
        Whose shape is taken, and where the pattern lies in whose array. None: as in the frames.
    shape : (N0, N1, N2) of (frames, rows, cols), at least the data's; None: that of ``like``, or the data's
    modes : with an axis of modes, of which the crystal is the only one, as bcdi and cdiutils expect them
    force : replace any file; without it, results of pendel alone

    Raises
    ------
    TypeError, ValueError
        Naming the argument, as `kinematic.to_detector_grid`.
    OSError
        Where a file cannot be read or written; FileExistsError for one of another program, without ``force``.
    """
    S, support, voxel = crystal_of(result)
    modes, frames = checks.flag("modes", modes), even_experiment(experiment)
    model = None if like is None else read_results(like, experiment).object
    if model is not None:
        shape = model.shape if shape is None else checks.sizes("shape", shape, 3)
        if shape != model.shape:
            raise ValueError(f"shape: expected that of like, {model.shape}, got {shape}")
    obj = to_detector_grid(S, frames, shape, voxel, support=support)
    inside = to_detector_grid(support, frames, shape, voxel)
    if model is not None:
        obj = with_pattern_at(obj, pattern_shift(amplitudes(obj), amplitudes(model)))
    cxi_objects.write_object(
        path,
        StoredObject(obj[None], inside, np.ones(1) if modes else None, obj.shape),
        wavelength=experiment.wavelength,
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        name=getattr(result, "name", "") or "",
        force=force,
    )
