"""CXI files of phased objects on the grid of their data, with modes, as PyNX writes and reads them (`save_obj_cxi`,
`pynx-cdi-analysis`). Nothing in them says where their samples lie: the geometry of the scan does.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..base import checks, plausible
from ..base.constants import LIGHT_SPEED, PLANCK
from . import hdf5, hdf5_arrays, hdf5_images, hdf5_links, hdf5_reading, kinds

_IMAGE = "entry_1/image_1"
_CONFIGURATIONS = ("process_1", "process_2")  # of modes the second is of the phasing


@dataclass
class StoredObject:
    """What a file holds of an object.

    Attributes
    ----------
    modes : complex (modes, n0, n1, n2), centred, (frame, row, col); of a file without modes one.
    support : bool (n0, n1, n2), or None.
    weights : (modes,) of the modes, or None.
    shape : (N0, N1, N2) of the array that was phased, of which the file may hold the middle alone; None: not said.
    """

    modes: np.ndarray
    support: np.ndarray | None = None
    weights: np.ndarray | None = None
    shape: tuple[int, int, int] | None = None


def read_object(path: Path | str, *, external: str = hdf5_links.FOLDER) -> StoredObject:
    """Read the object of a CXI file.

    Parameters
    ----------
    path : file with a complex ``entry_1/image_1/data`` or ``entry_1/data_1/data``.
    external : as in `read_scan`.

    Raises
    ------
    OSError, ValueError : naming the file and dataset.
    """
    with hdf5_reading.opened(path, external) as links:
        found = hdf5_reading.find(links, f"{_IMAGE}/data", "entry_1/data_1/data", "entry_last/image_1/data")
        if found is None:
            got = hdf5_reading.contents(links)
            raise ValueError(f"{links.path}: expected the dataset {_IMAGE}/data, got a file without it; {got}")
        shape, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
        if len(shape) not in (3, 4) or 0 in shape or dtype.kind != "c":
            raise ValueError(
                f"{found.where}: expected a complex object (frame, row, col), or modes of it, got dtype {dtype} and "
                f"shape {shape}"
            )
        hdf5_images.refuse_meaning(links, found, "data_space", ("real", "direct"), "an object in real space")
        modes = hdf5_images.read_image(links, found).reshape(-1, *shape[-3:])
        weights = hdf5_reading.find(links, "entry_1/data_2/data")
        weights = None if weights is None else np.asarray(hdf5_reading.array(links, weights)).ravel()
        return StoredObject(modes, _support(links, shape[-3:]), weights, _phased_shape(links))


def _support(links, shape):
    found = hdf5_reading.find(links, f"{_IMAGE}/support", f"{_IMAGE}/mask")
    if found is None:
        return None
    given, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    if tuple(given) != tuple(shape) or dtype.kind not in "biuf":
        raise ValueError(f"{found.where}: expected shape {tuple(shape)} of numbers, got {given} of {dtype}")
    return hdf5_images.read_image(links, found) != 0


def _phased_shape(links):
    """That the configuration of the phasing says, or None; ValueError where the grid of the object is another one."""
    said = [hdf5_reading.tree(links, f"{_IMAGE}/{process}/configuration") for process in _CONFIGURATIONS]
    for configuration in (found for found in said if isinstance(found, dict)):
        finer = configuration.get("upsample_f")
        if finer is not None and np.any(np.asarray(finer) != 1):
            raise ValueError(f"{links.path}: expected an object on the grid of its data, got upsample_f = {finer}")
        shape = np.asarray(configuration.get("iobs_shape", ()))
        if shape.shape == (3,) and shape.dtype.kind in "iu" and (shape > 0).all():
            return tuple(shape.tolist())
    return None


def write_object(
    path: Path | str,
    stored: StoredObject,
    *,
    wavelength: float,
    distance: float,
    pixel_size: float | tuple[float, float],
    name: str = "",
    force: bool = False,
) -> None:
    """Write an object as a CXI file that PyNX takes as ``object`` and ``support``.

    Parameters
    ----------
    path : file to write; an old result of pendel is replaced when all is well.
    stored : with weights, modes have an axis of their own, as `pynx-cdi-analysis` writes them; without, there is one.
    wavelength : m.
    distance : m, sample to detector.
    pixel_size : m, one number or (row, column).
    name : of the sample, or "".
    force : replace any file; without it, results of pendel alone.

    Raises
    ------
    TypeError, ValueError : naming the argument.
    OSError : when the file cannot be written; FileExistsError for one of another kind, or of another program.
    """
    modes = checks.array("modes", stored.modes, (None,) * 4, np.complex64, axes="(modes, frames, rows, cols)")
    if stored.weights is None and len(modes) != 1:
        raise ValueError(f"weights: expected those of {len(modes)} modes, got None")
    energy = PLANCK * LIGHT_SPEED / plausible.number(plausible.WAVELENGTH, "wavelength", wavelength)
    distance = plausible.number(plausible.DISTANCE, "distance", distance)
    pixel_size = hdf5.checked_pixel_size(pixel_size)
    support = stored.support
    if support is not None:
        support = checks.array("support", support, modes.shape[1:], bool)

    with hdf5.replacing(path, kinds.RESULT, force=force) as file:
        entry = hdf5.put_head(file, 150, name)
        file["entry_last"] = h5py.SoftLink("/entry_1")
        image = hdf5.new_group(entry, "image_1", "NXdata")
        image.attrs.update(signal="data", interpretation="image")
        image.create_dataset("data", data=modes[0] if stored.weights is None else modes, **hdf5.PACKED)
        image["data_type"], image["data_space"], image["is_fft_shifted"] = "electron density", "real", 0
        if support is not None:
            image.create_dataset("mask", data=support.astype(np.int8), **hdf5.PACKED)
            image["support"] = h5py.SoftLink("/entry_1/image_1/mask")
        hdf5.put_process(image, {"iobs_shape": np.array(stored.shape or modes.shape[1:])})
        hdf5.put_instrument(image, energy, distance, pixel_size)
        data = hdf5.new_group(entry, "data_1", "NXdata")
        data.attrs.update(signal="data", interpretation="image")
        data["data"] = h5py.SoftLink("/entry_1/image_1/data")
        if stored.weights is not None:
            weights = hdf5.new_group(entry, "data_2", "NXdata")
            weights.attrs.update(signal="data", interpretation="spectrum")
            weights["data"] = checks.array("weights", stored.weights, (len(modes),), np.float64)
