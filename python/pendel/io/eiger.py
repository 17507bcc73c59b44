"""Scans of Eiger and other Dectris detectors: a master file, and the data files beside it that it links to.

Frames stand in ``/entry/data/data_000001`` and on, packed with bitshuffle and lz4 (hdf5plugin); what is known of the
detector in ``/entry/instrument/detector``; positions of a goniometer, where it was told of them, in
``/entry/sample/goniometer``. The file says nothing of a detector arm or of lab axes.
"""

import re
from pathlib import Path

import h5py
import numpy as np

from ..base.reading import check_memory
from . import hdf5_arrays, hdf5_links, hdf5_reading, nexus_motors, units
from .hdf5_frames import read_frames
from .rocking import rocking_motor
from .scans import Scan

_DETECTOR = "entry/instrument/detector"
_MOTORS = ("entry/sample/goniometer", "entry/sample/transformations")
_MASKS = (f"{_DETECTOR}/pixel_mask", f"{_DETECTOR}/detectorSpecific/pixel_mask")


def is_eiger(path: Path) -> bool:
    """Whether a file is a master file of Dectris, by its name or by what it holds."""
    if not path.is_file() or path.suffix.lower() not in (".h5", ".hdf5", ".nxs"):
        return False
    try:
        with hdf5_reading.opened(path, hdf5_links.ANYWHERE) as links:
            frames = links.file.get("entry/data") if _holds(links, "entry/data") else ()
            return _holds(links, _DETECTOR) and any(map(_is_frames, frames))
    except (OSError, ValueError, TypeError):
        return False


def _holds(links, path):
    found = links.find(path)
    return found is not None and isinstance(found.item, h5py.Group)


def _is_frames(name):
    return re.fullmatch(r"data(_[0-9]+)?", name) is not None


def read_eiger(path: Path | str, *, rocking: bool = True, external: str = hdf5_links.FOLDER) -> Scan:
    """Read the frames of a master file and its data files as a `Scan`.

    Pixels that ``pixel_mask`` marks, and the largest values of the counter, are masked. Rocking angles are those of the
    goniometer's axis that turns; which lab axis it is, the file does not say. ``metadata["direct_beam"]`` is the pixel
    (row, col) that it gives for the beam's centre.

    Parameters
    ----------
    path : of the master file.
    rocking : False where rocking angles are given elsewhere: motors at rest are no error.
    external : "anywhere": links may lead out of the file's folder, to files of whoever made it.

    Returns
    -------
    Scan

    Raises
    ------
    OSError, ValueError : naming file and dataset; where a data file is not there, that file.
    """
    with hdf5_reading.opened(path, external) as links:
        data, mask, notes = _read_all(links)
        pixel = tuple(
            hdf5_reading.quantity(links, f"{_DETECTOR}/{name}_pixel_size", dimension=units.LENGTH, unit="m")
            for name in "yx"
        )
        scan = Scan(
            data=data,
            mask=mask,
            energy=_energy(links),
            distance=hdf5_reading.quantity(
                links, f"{_DETECTOR}/detector_distance", f"{_DETECTOR}/distance", dimension=units.LENGTH, unit="m"
            ),
            pixel_size=None if None in pixel else pixel,
            metadata=notes | _notes(links),
        )
        for place in _MOTORS:
            motors = nexus_motors.per_frame(links, place, len(data), _axes(links, place))
            motor = rocking_motor(f"{links.path}: {place}", motors, rocking)
            if motor is not None:
                scan.rocking_angles, scan.rocking_axis = motor.positions, motor.axis
                break
        return scan


def _axes(links, place):
    """Names of the goniometer's positions: not where each frame ends, nor increments."""
    names = hdf5_reading.members(links, place)
    return tuple(name for name in names if not name.endswith(("_end", "_increment", "_range_average", "_range_total")))


def _read_all(links):
    """The frames of all data files, one after the other."""
    mask = hdf5_reading.find(links, *_MASKS)
    found = _data_files(links)
    shapes = [hdf5_arrays.shape_and_type(item.item, item.where) for item in found]
    needed = sum(int(np.prod(shape, dtype=float)) * dtype.itemsize for shape, dtype in shapes)
    check_memory(str(links.path), needed, sum(item.item.id.get_storage_size() for item in found))
    parts = [read_frames(links, item, mask, cxi=False) for item in found]
    if len({data.shape[1:] for data, _, _ in parts}) > 1:
        raise ValueError(f"{links.path}: entry/data: expected frames of one shape, got {[s for s, _ in shapes]}")
    if len(parts) == 1:
        return parts[0]
    data = np.concatenate([data for data, _, _ in parts])
    good = np.concatenate([np.broadcast_to(good, data.shape) for data, good, _ in parts])
    return data, good[0].copy() if (good == good[:1]).all() else good, _together(parts)


def _data_files(links):
    """The datasets of frames in their order; all that the master file names have to be there."""
    found = {name: item for name, item in hdf5_reading.members(links, "entry/data").items() if _is_frames(name)}
    numbers = {name: int(name.split("_")[1]) for name in found if name != "data"}
    names = sorted(numbers, key=numbers.get) or list(found)
    datasets = [found[name] for name in names if found[name] is not None]
    if not datasets or not all(isinstance(item.item, h5py.Dataset) for item in datasets):
        raise ValueError(f"{links.path}: expected frames in entry/data/data_000001 and on, got {names or 'none'}")
    return datasets


def _together(parts):
    """Notes of all parts, with frames counted from the first."""
    notes, before = {}, 0
    for data, _, part in parts:
        for key, value in part.items():
            if isinstance(value, list):
                notes.setdefault(key, []).extend(before + frame for frame in value)
            else:
                notes[key] = notes.get(key, 0) + value
        before += len(data)
    return notes


def _energy(links):
    """Photon energy in J, or None."""
    path = f"{_DETECTOR}/detectorSpecific/photon_energy"
    value = hdf5_reading.quantity(links, path, dimension=units.ENERGY, unit="eV")
    return hdf5_reading.energy(links, "entry/instrument") if value is None else value


def _notes(links):
    """What else is known: the detector's name and the beam's centre."""
    notes = {"detector": hdf5_reading.text(links, f"{_DETECTOR}/description")}
    notes["direct_beam"] = hdf5_reading.pixel(links, *(f"{_DETECTOR}/beam_center_{axis}" for axis in "yx"))
    return {key: value for key, value in notes.items() if value}
