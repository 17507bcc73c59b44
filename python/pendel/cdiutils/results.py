"""Files of cdiutils' pipeline: ``S7_preprocessed_data.cxi`` and ``S7_pynx_reconstruction_mode.cxi`` of scan 7.

Its objects are PyNX's, on the grid of the frames that it has cropped, whose rows and columns are those of the detector
as it is mounted. A `Scan` has them along -y and +x, so that an axis n of N pixels may be turned about,

(1) obj'[n] = exp(-2 pi i (n - N//2)/N) obj[-n]   has the pattern of obj with its pixels in the opposite order

for an even N, and without the linear phase for an odd one, -n counted from N//2. The voxels that its post-processing
makes of such an object, and the q of the peak that it measures strain by, stand in the preprocessed file.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..experiment.geometry import Experiment
from ..io import cdiutils_geometry, cxi_objects, cxi_scans, hdf5_links, hdf5_reading
from ..io.cxi_objects import StoredObject
from ..io.scans import Scan
from ..kinematic import KinematicResult, even_experiment, padded, to_detector_grid
from ..kinematic.detector_grid import crystal_of
from ..kinematic.elsewhere import phased_in_file, with_pattern_at
from ..kinematic.grid import object_and_support

_PARAMETERS, _ORTHOGONALISED = "entry_1/parameters_1", "orthogonalise_before_phasing"
_NAMES = re.compile(r"(S.+)_preprocessed_data\.cxi")


def read_preprocessed(
    path: Path | str, *, external: str = hdf5_links.FOLDER, **changes: Any
) -> tuple[Experiment, Scan]:
    """Read a scan that the pipeline of cdiutils has preprocessed, with its geometry.

    Parameters
    ----------
    path : Path or str
        ``S7_preprocessed_data.cxi`` of the pipeline.
    external : str
        As of `io.read_scan`.
    **changes
        Arguments of `Experiment` in place of what the file says: ``distance=0.83`` (m), for example.

    Returns
    -------
    experiment : Experiment
        Of the frames as cdiutils has cropped them.
    scan : Scan
        Counts (n_frames, rows, cols) and mask, rows along -y and columns along +x as everywhere in pendel.

    Raises
    ------
    OSError
        For files that cannot be read.
    TypeError, ValueError
        Naming file and dataset, or what the file does not say; ValueError also where cdiutils has orthogonalised the
        frames: they are none that a detector counted.
    """
    _mounting(path, external)
    scan = cxi_scans.read_scan(path, external=external)
    return Experiment.from_scan(scan, **changes), scan


def read_results(
    path: Path | str,
    experiment: Experiment,
    like: Path | str,
    data: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    mode: int = 0,
    external: str = hdf5_links.FOLDER,
) -> KinematicResult:
    """The object that the pipeline of cdiutils has phased, as if pendel had done it.

    `pendel.solve` and `pendel.reconstruct` take it as ``start``, `pendel.kinematic_start` as ``phased``.

    Parameters
    ----------
    path : Path or str
        ``S7_pynx_reconstruction_mode.cxi`` of the pipeline, or a run of PyNX in its folder ``pynx_phasing``.
    experiment : Experiment
        Of the frames as the preprocessed file has them.
    like : Path or str
        That file, which says how its detector is mounted.
    data : (n_frames, rows, cols) float, or None
        Measured intensities of `read_preprocessed`, which tell the object's scale and refuse one of another scan. None:
        it is of this scan, and its ``chi`` is NaN.
    mask : (n_frames, rows, cols) or (rows, cols) bool, or None
        True for good pixels.
    mode : int
        Which of the modes.
    external : str
        As of `io.read_scan`.

    Returns
    -------
    KinematicResult
        On the grid of the frames, with the axes (frame, row, col) of a `Scan`.

    Raises
    ------
    OSError
        For files that cannot be read.
    TypeError, ValueError
        Naming file or argument; ValueError also for another number of pixels than the frames have, and where the object
        is none of these data.
    """
    rows, columns = _mounting(like, external)
    stored = cxi_objects.read_object(path, external=external)
    mode = checks.integer("mode", mode, at_least=0, at_most=len(stored.modes) - 1)
    frames = even_experiment(experiment)
    shape = _turned_shape((frames.n_frames, *frames.detector_shape), rows)
    phased = stored.shape or shape
    if phased != shape or any(n > N for n, N in zip(stored.modes.shape[1:], shape, strict=True)):
        raise ValueError(
            f"{path}: expected an object of the {shape} frames, rows and columns of the preprocessed scan, got "
            f"{stored.modes.shape[1:]} of {phased}: PyNX must not have been told to bin or to crop"
        )
    obj = _mounted_object(padded(stored.modes[mode], shape), rows, columns)
    support = None if stored.support is None else padded(stored.support, shape)
    support = None if support is None else _mounted_object(support, rows, columns)
    if data is not None:
        return phased_in_file(path, obj, support, experiment, data, mask)
    return KinematicResult(*object_and_support(obj, support), math.nan, np.empty(0), 0)


def write_results(
    directory: Path | str,
    result: Any,
    experiment: Experiment,
    like: Path | str,
    *,
    external: str = hdf5_links.FOLDER,
    force: bool = False,
) -> Path:
    """Write a crystal where the pipeline's ``postprocess()`` looks for what it has phased.

    What cdiutils makes of it, on voxels and about the q of the peak that the preprocessed file has: amplitude, support,
    phase, displacement and strain in the laboratory, without what refraction and extinction add to a phased object.

    Parameters
    ----------
    directory : Path or str
        Folder to write into, made where it is not there: a ``dump_dir`` of the pipeline. Of scan 7 the file is
        ``S7_pynx_reconstruction_mode.cxi``.
    result : Result or io.StoredResult
        With S (nz, ny, nx) complex, support (nz, ny, nx) bool, and voxel (dz, dy, dx) in m.
    experiment : Experiment
        Of the frames as the preprocessed file has them; one that has been cropped has another grid.
    like : Path or str
        That file, ``S7_preprocessed_data.cxi``.
    external : str
        As of `io.read_scan`.
    force : bool
        Replace any file; without it, results of pendel alone.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; ValueError also where the crystal is larger than the field of view of the frames.
    OSError
        Where a file cannot be read or written; FileExistsError for one of another program, without ``force``.
    """
    S, support, voxel = crystal_of(result)
    path = Path(directory) / _mode_file(like)
    rows, columns = _mounting(like, external)
    frames, shape = even_experiment(experiment), _frames_shape(like, external)
    given = _turned_shape((frames.n_frames, *frames.detector_shape), rows)
    if given != shape:
        raise ValueError(
            f"experiment: expected that of the {shape} frames, rows and columns of {like}, got one of {given}; "
            "read_preprocessed makes it"
        )
    obj = to_detector_grid(S, frames, voxel=voxel, support=support)
    inside = to_detector_grid(support, frames, voxel=voxel)
    obj, inside = (_unmounted_object(array, rows, columns) for array in (obj, inside))
    path.parent.mkdir(parents=True, exist_ok=True)
    cxi_objects.write_object(
        path,
        StoredObject(obj[None], inside, np.ones(1), obj.shape),
        wavelength=experiment.wavelength,
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        name=getattr(result, "name", "") or "",
        force=force,
    )
    return path


def _mode_file(like):
    """The name by which the pipeline finds an object of the scan in a preprocessed file."""
    named = _NAMES.fullmatch(Path(like).name)
    if named is None:
        raise ValueError(f"like: expected a file named as S7_preprocessed_data.cxi, got {like}")
    return f"{named[1]}_pynx_reconstruction_mode.cxi"


def _mounting(path, external):
    """Axes of the detector in a preprocessed file; ValueError for any other file."""
    with hdf5_reading.opened(path, external) as links:
        if not cdiutils_geometry.is_there(links):
            got = hdf5_reading.contents(links)
            raise ValueError(f"{links.path}: expected a scan that cdiutils has preprocessed, with its geometry; {got}")
        found = links.find(_PARAMETERS)
        if found is not None and hdf5_reading.flag(links, found.item, _ORTHOGONALISED, found.where):
            raise ValueError(
                f"{found.where}: expected frames of the detector, got what cdiutils has orthogonalised; preprocess the "
                f"scan with {_ORTHOGONALISED}=False"
            )
        return cdiutils_geometry.detector_axes(links)


def _frames_shape(path, external):
    """(n_frames, rows, cols) of the frames in a preprocessed file, of the detector as it is mounted."""
    with hdf5_reading.opened(path, external) as links:
        found = hdf5_reading.find(links, "entry_1/image_1/data", "entry_1/cropped_detector_data/data")
        if found is None:
            raise ValueError(f"{links.path}: expected the dataset entry_1/image_1/data; {hdf5_reading.contents(links)}")
        return tuple(found.item.shape)


def _turned_shape(shape, rows):
    """Shape of frames of a `Scan` on the detector, or the other way."""
    return shape if rows[0] == "y" else (shape[0], shape[2], shape[1])


def _mounted_object(obj, rows, columns):
    """An object of frames of the detector as that of the frames of a `Scan`, by (1)."""
    return _opposite(np.swapaxes(obj, 1, 2) if rows[0] == "x" else obj, rows, columns)


def _unmounted_object(obj, rows, columns):
    """The inverse: turning an axis twice changes nothing."""
    obj = _opposite(obj, rows, columns)
    return np.ascontiguousarray(np.swapaxes(obj, 1, 2) if rows[0] == "x" else obj)


def _opposite(obj, rows, columns):
    """(1) along each axis of a `Scan`'s frames that the detector counts the other way; of a support, its voxels."""
    axes = [axis for axis, name in ((1, "y+"), (2, "x-")) if name in (rows, columns)]
    even = [axis for axis in axes if obj.shape[axis] % 2 == 0]
    obj = np.roll(np.flip(obj, axes), [1] * len(even), even) if axes else obj
    if obj.dtype == bool:
        return obj
    return with_pattern_at(obj, [-int(axis in even) for axis in range(3)])
