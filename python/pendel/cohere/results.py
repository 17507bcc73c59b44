"""Files of cohere: ``image.npy`` and ``support.npy`` of a ``results_phasing`` folder, ``data.npy`` of frames.

Its arrays are (column, row, frame), its object goes to the detector by an inverse FFT,

(1) data = |IFFT(image)|^2,   so that object = image.transpose(2, 1, 0).conj()

with its centre of mass in the middle and a maximum of 1. Data are amplitudes; what pendel and cohere call the middle of
an odd number of pixels are n//2 and n//2 + 1. cohere's errors are squares of ``chi``.
"""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks, files
from ..experiment.geometry import Experiment
from ..io.npy_files import read_array
from ..kinematic import KinematicResult, even_experiment, to_detector_grid
from ..kinematic.detector_grid import crystal_of
from ..kinematic.elsewhere import amplitudes, pattern_shift, phased_in_file, with_pattern_at
from ..kinematic.grid import object_and_support

IMAGE, SUPPORT, ERRORS = "image.npy", "support.npy", "errors.npy"
FOLDER = "results_phasing"


def read_results(
    directory: Path | str,
    experiment: Experiment,
    data: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> KinematicResult:
    """The object that cohere has found, as if pendel had phased the scan.

    `pendel.solve` and `pendel.reconstruct` take it as ``start``, `pendel.kinematic_start` as ``phased``, and
    `pendel.kinematic.to_model_grid` puts it on the model's grid.

    Parameters
    ----------
    directory : a ``results_phasing`` folder with ``image.npy``, or the folder of the experiment that it lies in
    experiment : Experiment
        Of the frames in ``data``, or of those that cohere phased; binned and cropped as cohere has them.
    data : (n_frames, rows, cols) measured intensities, or None
        They tell by how many pixels cohere has moved the pattern, the brightest pixel to the middle for example, which
        the object then does without, and the object's scale. None: the pattern lies in cohere's array as it does in the
        frames, their n//2 at its middle, as `write_data` has it; ``chi`` and ``error`` are cohere's.
    mask : bool, True = good pixel, as in `Model.fit`, or None

    Returns
    -------
    KinematicResult
        On cohere's grid, with the axes (frame, row, col).

    Raises
    ------
    FileNotFoundError
        Where there is no result.
    TypeError, ValueError
        Naming file or argument; ValueError also for fewer pixels than the frames have, and where the object is none of
        these data.
    """
    folder = _folder(directory)
    if folder is None:
        raise FileNotFoundError(f"{directory}: expected a folder of cohere with {IMAGE} or {FOLDER}/{IMAGE}, got none")
    obj, support = _object(folder), _support(folder)
    try:
        obj, support = object_and_support(obj, support)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{folder}: {error}") from None
    frames = even_experiment(experiment)
    least = frames.n_frames, *frames.detector_shape
    if any(N < n for N, n in zip(obj.shape, least, strict=True)):
        raise ValueError(
            f"{folder / IMAGE}: expected at least the {least} frames, rows and columns of the experiment, got "
            f"{obj.shape}; crop and bin the scan as cohere was told to (data.crop, pendel.io.crop_scan)"
        )
    if data is not None:
        return phased_in_file(folder / IMAGE, obj, support, experiment, data, mask)
    error = np.sqrt(read_array(folder / ERRORS).astype(np.float64)) if (folder / ERRORS).exists() else np.empty(0)
    chi = float(error[-1]) if error.size else math.nan
    # the middle of an odd axis is one pixel further on there
    return KinematicResult(with_pattern_at(obj, [n % 2 for n in obj.shape]), support, chi, error, 0)


def write_results(
    directory: Path | str,
    result: Any,
    experiment: Experiment,
    like: Path | str | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    force: bool = False,
) -> None:
    """Write a crystal as ``image.npy`` and ``support.npy`` that cohere's viewer opens and its phasing goes on from.

    Parameters
    ----------
    directory : folder to write into, made where it is not there; cohere expects the name ``results_phasing``
    result : `Result`, or `io.StoredResult` with support and voxel
    experiment : Experiment
        Of the frames that cohere phased.
    like : folder of cohere's own result of this scan, or None
        Whose shape is taken, and where the pattern lies in whose array. None: as in the frames.
    shape : (N0, N1, N2) of (frames, rows, cols), at least the data's; None: that of ``like``, or the data's
    force : take the place of what is there

    Raises
    ------
    FileExistsError
        Where there is a result already, without ``force``.
    TypeError, ValueError
        Naming the argument, as `kinematic.to_detector_grid`.
    OSError
        Where a file cannot be written.
    """
    S, support, voxel = crystal_of(result)
    frames, directory = even_experiment(experiment), Path(directory)
    there = [name for name in (IMAGE, SUPPORT) if (directory / name).exists()]
    if there and not force:
        raise FileExistsError(
            f"{directory / there[0]}: expected a new file, got another; move it away or give force=True"
        )
    model = None if like is None else _object(_like(like))
    if model is not None:
        shape = model.shape if shape is None else checks.sizes("shape", shape, 3)
        if shape != model.shape:
            raise ValueError(f"shape: expected that of like, {model.shape}, got {shape}")
    obj = to_detector_grid(S, frames, shape, voxel, support=support)
    inside = to_detector_grid(support, frames, shape, voxel)
    if model is not None:
        obj = with_pattern_at(obj, pattern_shift(amplitudes(obj), amplitudes(model)))
    else:
        obj = with_pattern_at(obj, [-(n % 2) for n in obj.shape])
    directory.mkdir(parents=True, exist_ok=True)
    _put(directory / SUPPORT, inside.transpose(2, 1, 0).astype(np.int64))  # of the type that cohere gives it
    _put(directory / IMAGE, obj.conj().transpose(2, 1, 0) / np.abs(obj).max())


def write_data(path: Path | str, data: ArrayLike, mask: ArrayLike | None = None, *, force: bool = False) -> None:
    """Write frames as cohere's phasing takes them: amplitudes (col, row, frame), float32, of an .npy file.

    Parameters
    ----------
    path : file to write, with the ending .npy
    data : (n_frames, rows, cols) intensities, at equal rocking steps, as `kinematic.even_scan` makes them
        Numbers of frames, rows and columns are best even; cohere's own are.
    mask : bool, True = good pixel, (rows, cols) or (n_frames, rows, cols), or None
        cohere takes bad pixels, and negative counts, for dark ones.
    force : take the place of what is there

    Raises
    ------
    FileExistsError
        Where there is a file already, without ``force``.
    TypeError, ValueError
        Naming the argument.
    OSError
        Where the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"path: expected a file name that ends in .npy, got {path}")
    if path.exists() and not force:
        raise FileExistsError(f"{path}: expected a new file, got another; move it away or give force=True")
    data = checks.array(
        "data", data, (None, None, None), np.float32, axes="(n_frames, rows, cols)", finite=mask is None
    )
    if mask is not None:
        data = np.where(np.broadcast_to(checks.good_pixels("mask", mask, data.shape), data.shape), data, 0)
    _put(path, np.sqrt(np.maximum(data, 0)).transpose(2, 1, 0))


def _folder(directory):
    """The folder with the image, or None."""
    return next((f for f in (Path(directory), Path(directory) / FOLDER) if (f / IMAGE).is_file()), None)


def _like(directory):
    folder = _folder(directory)
    if folder is None:
        raise FileNotFoundError(f"like: expected a folder of cohere with {IMAGE}, got none: {directory}")
    return folder


def _object(folder):
    """(1), complex (frame, row, col)."""
    image = read_array(folder / IMAGE)
    if image.ndim != 3 or image.dtype.kind != "c":
        raise ValueError(f"{folder / IMAGE}: expected a complex image (col, row, frame), got {checks.describe(image)}")
    return image.transpose(2, 1, 0).conj()


def _support(folder):
    """bool (frame, row, col), or None where there is no file."""
    path = folder / SUPPORT
    return read_array(path).transpose(2, 1, 0) > 0.5 if path.exists() else None


def _put(path, array):
    file = BytesIO()
    np.save(file, np.ascontiguousarray(array))
    files.write_whole(path, file.getbuffer())
