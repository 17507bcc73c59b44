"""Scans of BLISS at beamline ID01 (ESRF): groups ``54.1`` or ``sample_54.1`` with ``measurement`` and ``instrument``.

Frames are in ``measurement/mpx1x4`` and the like, a link or a virtual dataset onto files below the folder; positions
in ``measurement`` where they were scanned and in ``instrument/positioners`` where not, deg; the energy is ``mononrj``,
keV. Lab frame: z along the beam, y up, x = y x z. eta turns the sample about -x, phi on it about -y; nu turns the
detector about -y, delta on it about -x. Rows grow along -y, columns along +x. The direct beam hits (beam_center_y,
beam_center_x) at angles of zero.
"""

import re
from pathlib import Path

import h5py
import numpy as np

from ..base.axes import axis_vector
from . import hdf5_arrays, hdf5_links, hdf5_reading, nexus_motors, units
from .hdf5_frames import read_frames
from .hdf5_links import Found
from .rocking import rocking_motor, turn
from .scans import Scan

# {name: (pixel m, shape, dead rows, dead columns)}: between chips, where wide pixels count for several
_MAXIPIX = (55e-6, (516, 516), ((255, 261),), ((255, 261),))
_EIGER_2M = (75e-6, (2164, 1030), ((511, 552), (1061, 1102), (1611, 1652)), ((513, 517),))
DETECTORS = {"mpx1x4": _MAXIPIX, "mpxgaas": _MAXIPIX, "mpx4": _MAXIPIX, "eiger2M": _EIGER_2M}
_SAMPLE = ("eta", "phi")  # outermost first
_SAMPLE_AXES = ("x-", "y-")
_ARM = (("y-", "nu"), ("x-", "delta"))
_SCAN = re.compile(r"(?:.*_)?([0-9]+)\.1")


def is_bliss(path: Path) -> bool:
    """Whether a file is one of BLISS: scans 1.1, 2.1, ..., with what they measured."""
    if not path.is_file() or path.suffix.lower() not in (".h5", ".hdf5", ".nxs"):
        return False
    try:
        with hdf5_reading.opened(path, hdf5_links.ANYWHERE) as links:
            return any(_has_measured(links, name) for name in _scans(links).values())
    except (OSError, ValueError, TypeError):
        return False


def _has_measured(links, name):
    """Whether a scan has a group of what it measured, to which its link leads."""
    try:
        return _measured(links, name) is not None
    except (OSError, ValueError):
        return False


def _measured(links, name):
    """The group of what a scan measured, or None."""
    found = links.find(f"{name}/measurement")
    return found.item if found is not None and isinstance(found.item, h5py.Group) else None


def _scans(links):
    """{number: name of its group}."""
    found = {}
    for name in list(links.file)[: hdf5_reading.MOST_MEMBERS]:
        number = _SCAN.fullmatch(name)
        if number:
            found.setdefault(int(number.group(1)), name)
    return found


def read_id01(
    path: Path | str, *, scan: int | None = None, rocking: bool = True, external: str = hdf5_links.FOLDER
) -> Scan:
    """Read a scan of a file of BLISS as a `Scan`.

    Parameters
    ----------
    path : of the file of a sample, or of one of its data sets.
    scan : its number; None: the only one with frames.
    rocking : False where rocking angles are given elsewhere: motors at rest are no error.
    external : "anywhere": links may lead out of the file's folder, to files of whoever made it.

    Returns
    -------
    Scan

    Raises
    ------
    OSError, ValueError : naming file and dataset.
    """
    with hdf5_reading.opened(path, external) as links:
        place, found = _find_frames(links, scan)
        detector = found.where.rsplit("/", 1)[-1]
        data, mask, notes = read_frames(links, found)
        mask = mask & _alive(detector, data.shape[1:])
        result = Scan(
            data=data,
            mask=mask,
            energy=hdf5_reading.quantity(
                links, f"{place}/instrument/positioners/mononrj", dimension=units.ENERGY, unit="keV"
            ),
            distance=_of_detector(links, place, detector, "distance"),
            pixel_size=_pixel_size(links, place, detector),
            name=hdf5_reading.text(links, f"{place}/sample/name"),
            metadata=notes | {"detector": detector, "command": hdf5_reading.text(links, f"{place}/title")},
        )
        _take_rocking(result, links, place, rocking)
        _take_arm(result, links, place, detector)
        return result


def _find_frames(links, number):
    """Path of the scan's group, and the dataset of its frames."""
    scans = _scans(links)
    if number is not None and number not in scans:
        listed = ", ".join(map(str, sorted(scans)[:20])) or "none"
        raise ValueError(f"{links.path}: expected scan {number}, got scans {listed}")
    asked = scans if number is None else {number: scans[number]}
    looked_at = {key: _frames_of(links, name) for key, name in asked.items()}
    with_frames = {key: found for key, (found, _) in looked_at.items() if found}
    broken = next((error for _, error in looked_at.values() if error is not None), None)
    if not with_frames and broken is not None:
        raise broken
    if len(with_frames) != 1:
        what = f"scans {', '.join(map(str, sorted(with_frames)))} (give its number)" if with_frames else "none"
        raise ValueError(f"{links.path}: expected one scan with frames in measurement, got {what}")
    [(key, found)] = with_frames.items()
    if len(found) > 1:
        raise ValueError(f"{links.path}: {asked[key]}: expected one detector, got {', '.join(found)}")
    return asked[key], next(iter(found.values()))


def _frames_of(links, name):
    """{detector: dataset} of the datasets of frames in a scan, and the first error of a link that leads nowhere, or
    None: files of other detectors and other scans are often left where they were measured.
    """
    frames, broken = {}, None
    try:
        measured = _measured(links, name)
    except (OSError, ValueError) as error:
        return frames, error
    for key in () if measured is None else list(measured)[: hdf5_reading.MOST_MEMBERS]:
        try:
            found = links.find(key, measured)
        except (OSError, ValueError) as error:
            broken = broken or error
            continue
        if found is not None and isinstance(found.item, h5py.Dataset):
            shape, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
            if len(shape) > 2 and dtype.kind in "iuf":
                frames[key] = Found(found.item, found.group, f"{links.path}: {name}/measurement/{key}")
    return frames, broken


def _alive(detector, shape):
    """bool (row, col), False between the chips of a known detector that was read out whole."""
    alive = np.ones(shape, bool)
    _, whole, rows, columns = DETECTORS.get(detector, (None, None, (), ()))
    if whole == tuple(shape):
        for first, end in rows:
            alive[first:end] = False
        for first, end in columns:
            alive[:, first:end] = False
    return alive


def _of_detector(links, place, detector, name):
    """A length that the file gives of the detector in m, or None."""
    paths = (f"{place}/instrument/{detector}/{name}", f"{place}/instrument/{detector}/detector_information/{name}")
    return hdf5_reading.quantity(links, *paths, dimension=units.LENGTH, unit="m")


def _pixel_size(links, place, detector):
    sizes = tuple(_of_detector(links, place, detector, f"{axis}_pixel_size") for axis in "yx")
    if None not in sizes:
        return sizes
    return (DETECTORS[detector][0],) * 2 if detector in DETECTORS else None


def _take_rocking(scan, links, place, needed):
    """Complete a scan by rocking angles and axis: phi is carried by eta."""
    for group in ("measurement", "instrument/positioners"):
        motors = nexus_motors.per_frame(links, f"{place}/{group}", len(scan.data), _SAMPLE)
        motor = rocking_motor(f"{links.path}: {place}/{group}", motors, needed)
        if motor is None:
            continue
        outer, inner = (axis_vector("rocking_axis", axis) for axis in _SAMPLE_AXES)
        axis = outer if motor.name == "eta" else turn(outer, _position(links, place, "eta") or 0.0) @ inner
        scan.rocking_angles, scan.rocking_axis = motor.positions, tuple(map(float, axis + 0.0))
        return


def _position(links, place, name):
    """Where a motor was, rad, or None; it must not have moved."""
    found = hdf5_reading.find(links, f"{place}/instrument/positioners/{name}")
    if found is None:
        return None
    angles = hdf5_reading.in_si(links, found, units.ANGLE, "deg")
    if not angles.size or not np.isfinite(angles).all() or np.ptp(angles) > 1e-4:
        raise ValueError(f"{found.where}: expected one angle, got {angles.size}")
    return float(angles.mean())


def _take_arm(scan, links, place, detector):
    """Complete a scan by the arm, and the pixel (row, col) that the direct beam hits with the arm at zero."""
    turns = tuple((axis, _position(links, place, name)) for axis, name in _ARM)
    if None not in dict(turns).values():
        scan.arm = turns
    beam = hdf5_reading.pixel(links, *(f"{place}/instrument/{detector}/beam_center_{axis}" for axis in "yx"))
    if beam is not None:
        scan.metadata["direct_beam"] = beam
