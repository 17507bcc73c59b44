"""CXI files of rocking scans. Strict when writing, lenient when reading.

Paths follow PyNX (`save_cdi_data_cxi`); all numbers are SI. In a file a mask value 0 is a good pixel (CXI); in Python
True is a good pixel. Arrays are centred, (frame, row, column). Every file is written under another name beside its
target and then renamed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from ..base import checks, plausible
from ..base.axes import Axis, axis_vector, is_named
from ..base.constants import LIGHT_SPEED, PLANCK
from . import cdiutils_geometry, hdf5, hdf5_arrays, hdf5_images, hdf5_links, hdf5_reading, kinds, nexus_motors, units
from .hdf5_frames import read_frames
from .rocking import rocking_motor, turn
from .scans import Scan, relative_flux

_DATA = ("entry_1/data_1", "entry_1/instrument_1/detector_1", "entry_1/image_1", "entry_1/detector_1")
_DETECTORS = ("entry_1/instrument_1/detector_1", "entry_1/detector_1", "entry_1/detector_1/calibration")
_ANGLES = ("entry_1/sample_1/transformations", "entry_1/geometry_1/angles", "entry_1/sample_1")
_SPACES = ("diffraction", "reciprocal", "fourier", "detector"), "data of the detector (data_space = 'diffraction')"
_TYPES = ("intensit", "count", "photon", "detector data", "diffraction"), "intensities"
OWN_LAYOUT = "files of a layout of one's own become a pendel.io.Scan first: docs/scan.md"
_MONITORS = ("entry_1/control/data", "entry_1/monitor_1/data")  # of NeXus


def write_scan(
    path: Path | str,
    data: ArrayLike | Scan,
    *,
    distance: float | None = None,
    pixel_size: float | tuple[float, float] | None = None,
    wavelength: float | None = None,
    energy: float | None = None,
    mask: ArrayLike | None = None,
    rocking_angles: ArrayLike | None = None,
    rocking_axis: Axis | ArrayLike | None = None,
    motor: str = "theta",
    arm: tuple[tuple[Axis, float], ...] | None = None,
    flux: ArrayLike | None = None,
    centre: tuple[float, float, float] | None = None,
    name: str = "",
    extra: dict | None = None,
    force: bool = False,
) -> None:
    """Write measured or simulated frames as a CXI file laid out as PyNX does (CXI 1.4).

    Parameters
    ----------
    path : file to write; an old scan is replaced when all is well.
    data : (frame, row, col) counts >= 0, of any real dtype, centred; or a `Scan`, and then only what it does not know,
        or what is to be stored in its place, has to be given.
    distance : m, sample to detector.
    pixel_size : m, one number or (row, column).
    wavelength, energy : m or J, exactly one of them.
    mask : bool, (row, col) or the shape of data, True = good; None: all are.
    rocking_angles : (frame,) rad about ``rocking_axis``, or None.
    rocking_axis : lab axis such as "y+" or three numbers; None: that of the `Scan`, "y+" of bare counts.
    motor : name of the rocking angles in the file.
    arm : see `Scan`.
    flux : (frame,) > 0, relative incident intensity, or None; stored as the readings of a monitor.
    centre : see `Scan`.
    name : of the sample, or "".
    extra : dict of numbers, arrays, text or dicts of these, read back as ``metadata``.
    force : replace any file; without it, scans of pendel alone.

    Raises
    ------
    TypeError, ValueError : naming the argument.
    OSError : when the file cannot be written; FileExistsError for one of another kind, or of another program.
    """
    if isinstance(data, Scan):
        given = {name: value for name, value in locals().items() if name in _GIVEN and value is not None}
        write_scan(path, data.data, **_of_scan(data, given), motor=motor, force=force)
        return
    data = _checked_counts(data)
    if (wavelength is None) == (energy is None):
        got = "none" if energy is None else "both"
        raise ValueError(f"wavelength, energy: expected exactly one of them, got {got}")
    if energy is None:
        energy = PLANCK * LIGHT_SPEED / plausible.number(plausible.WAVELENGTH, "wavelength", wavelength)
    scan = Scan(
        data=data,
        mask=_checked_mask(mask, data.shape),
        rocking_angles=None if rocking_angles is None else checks.numpy_array("rocking_angles", rocking_angles),
        energy=plausible.number(plausible.ENERGY, "energy", energy),
        distance=plausible.number(plausible.DISTANCE, "distance", distance),
        pixel_size=hdf5.checked_pixel_size(pixel_size),
        centre=centre,
        arm=arm,
        flux=_checked_flux(flux, len(data)),
        rocking_axis="y+" if rocking_axis is None else rocking_axis,
        name=name,
        metadata=dict(extra or {}),
    )
    geometry = _geometry(scan)
    with hdf5.replacing(path, kinds.SCAN, kinds.SIMULATED, force=force) as file:
        entry = hdf5.put_head(file, 140, scan.name)
        detector = hdf5.put_instrument(entry, scan.energy, scan.distance, scan.pixel_size)
        _put_frames(detector, scan)
        group = hdf5.new_group(entry, "data_1", "NXdata")
        group.attrs.update(signal="data", axes=[".", ".", "."], interpretation="image")
        group["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        group["mask"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/mask")
        if scan.flux is not None:
            hdf5.put(hdf5.new_group(entry, "control", "NXmonitor"), "data", scan.flux)
        if "rocking_angles" in geometry:
            _put_rocking(entry, group, motor, geometry["rocking_angles"], scan.rocking_axis)
        hdf5.put_process(group, {"geometry": geometry})
        # not in the configuration: PyNX reads all of that, and no groups in groups of it
        hdf5.put(group["process_1"], "extra", scan.metadata or None)


_GIVEN = ("distance", "pixel_size", "wavelength", "energy", "mask", "rocking_angles", "rocking_axis", "arm", "flux")
_GIVEN += ("centre", "name", "extra")


def _of_scan(scan, given):
    """Keywords of `write_scan` for a `Scan`, with those that are ``given`` in their place."""
    if scan.background is not None:
        raise ValueError("data: expected a scan without a background, which such a file does not hold, got one with it")
    names = (name for name in _GIVEN if name not in ("wavelength", "extra"))
    known = {name: getattr(scan, name) for name in names} | {"extra": scan.metadata}
    if "wavelength" in given:
        known.pop("energy")
    known |= {name: value for name, value in given.items() if name != "name" or value}
    for name in ("distance", "pixel_size", "rocking_axis"):
        if known[name] is None:
            raise TypeError(f"{name}: expected in the scan or beside it, got neither; give {name}=")
    return known


def _checked_counts(data):
    kind = checks.numpy_array("data", data).dtype
    dtype = kind if kind.kind in "iu" else np.float32
    data = checks.array("data", data, (None, None, None), dtype, axes="(frame, row, col)")
    if data.size == 0 or data.min() < 0:
        raise ValueError(f"data: expected counts >= 0, got {'an empty array' if data.size == 0 else data.min()}")
    return data


def _checked_flux(flux, count):
    if flux is None:
        return None
    flux = checks.array("flux", flux, (count,), np.float64)
    if not flux.min() > 0:
        raise ValueError(f"flux: expected relative intensities > 0, got {flux.min():g}")
    return flux


def _checked_mask(mask, shape):
    if mask is None:
        return np.ones(shape[1:], bool)
    return checks.good_pixels("mask", mask, shape)


def _geometry(scan):
    """What a `Scan` knows of its geometry, checked, as a dict to be stored."""
    vector = axis_vector("rocking_axis", scan.rocking_axis)
    geometry = {"rocking_axis": scan.rocking_axis if is_named(scan.rocking_axis) else vector}
    if scan.centre is not None:
        geometry["centre"] = checks.array("centre", scan.centre, (3,), np.float64)
    if scan.arm is not None:
        for i, (axis, angle) in enumerate(scan.arm):
            axis_vector(f"arm[{i}]", axis)
            plausible.number(plausible.TURN, f"arm[{i}] angle", angle)
        geometry["arm_axes"] = [_axis_text(axis) for axis, _ in scan.arm]
        geometry["arm_angles"] = np.array([angle for _, angle in scan.arm], float)
    if scan.rocking_angles is not None:
        shape = (len(scan.data),)
        geometry["rocking_angles"] = checks.array("rocking_angles", scan.rocking_angles, shape, np.float64)
    return geometry


def _axis_text(axis):
    """An axis as one text, which `_axis_of_text` reads."""
    return axis if is_named(axis) else " ".join(map(repr, map(float, axis)))


def _axis_of_text(axis):
    """An axis as read from a file: "y+" stays, three numbers, or their text, become a tuple."""
    if is_named(axis) and len(axis) == 2:
        return axis
    return tuple(float(v) for v in (axis.split() if is_named(axis) else axis))


def _put_frames(detector, scan):
    packed = hdf5.PACKED | {"chunks": (1, *scan.data.shape[1:])}
    detector.create_dataset("data", data=scan.data, **packed)
    bad = np.broadcast_to(~scan.mask, scan.data.shape).astype(np.uint8)  # PyNX wants the shape of the data
    detector.create_dataset("mask", data=bad, **packed)


def _put_rocking(entry, data, motor, angles, axis):
    """The rocking angles where readers look: NeXus transformations, axis of data_1, CXI sample geometry."""
    vector = axis_vector("rocking_axis", axis) + 0.0  # without the minus zeros of "x-"
    sample = hdf5.new_group(entry, "sample_1", "NXsample")
    group = hdf5.new_group(sample, "transformations", "NXtransformations")
    hdf5.put(group, motor, np.degrees(angles), "deg")
    group[motor].attrs.update(transformation_type="rotation", vector=vector, depends_on=".")
    sample["rotation_angle"] = h5py.SoftLink(f"/entry_1/sample_1/transformations/{motor}")
    data[motor] = h5py.SoftLink(f"/entry_1/sample_1/transformations/{motor}")
    data.attrs.update({"axes": [motor, ".", "."], f"{motor}_indices": 0})

    # CXI has six numbers for it, the sample's x and y in the lab: CDTools reads no more, so those of the middle frame
    turned = turn(vector, angles[len(angles) // 2])
    hdf5.put(hdf5.new_group(sample, "geometry_1", "NXgeometry"), "orientation", turned[:, :2].T.ravel())


def read_scan(path: Path | str, *, rocking: bool = True, external: str = hdf5_links.FOLDER) -> Scan:
    """Read a rocking scan from a CXI file of pendel, PyNX or cdiutils as a `Scan`.

    Only the frames have to be there; energies are taken in J, or in eV by their unit or size. NaN, negative values and
    the largest ones of unsigned types become masked zeros, counted in ``metadata["masked_on_read"]``, and frames that
    the file does not hold are masked. Frames that are fft-shifted are brought back.

    Parameters
    ----------
    path : of the file.
    rocking : False where rocking angles are given elsewhere: motors at rest, or several that move, are no error.
    external : "anywhere": links may lead out of the file's folder, to files of whoever made it.

    Returns
    -------
    Scan

    Raises
    ------
    OSError, ValueError : naming the file and dataset.
    """
    with hdf5_reading.opened(path, external) as links:
        data, mask, metadata, shifted = _read_cxi_frames(links)
        geometry = _dict(links, "configuration/geometry")
        extra = _dict(links, "configuration/extra") | _dict(links, "extra")  # the former: of pendel before
        scan = Scan(
            data=data,
            mask=mask,
            energy=hdf5_reading.energy(links, "entry_1/instrument_1", "entry_1"),
            distance=_length(links, "distance"),
            pixel_size=_read_pixel_size(links),
            name=hdf5_reading.text(links, "entry_1/sample_1/name", "entry_1/title"),
            metadata=metadata | extra,
            flux=_read_flux(links, len(data)),
        )
        if geometry:
            _take_own_geometry(scan, links, geometry, rocking)
        elif cdiutils_geometry.is_there(links):
            cdiutils_geometry.take(scan, links, rocking)
        else:
            _take_rocking(scan, links, rocking)
        return _unshift_frames(scan, links) if shifted else scan


def _dict(links, name):
    """A dict of values of what pendel said of a scan, empty where it is not there."""
    value = hdf5_reading.tree(links, f"entry_1/data_1/process_1/{name}")
    if not isinstance(value, dict):
        raise ValueError(f"{links.path}: process_1/{name}: expected a group, got {checks.describe(value)}")
    return value


def _read_cxi_frames(links):
    """Counts, mask (True = good), notes on both, and whether the frames are fft-shifted (rows and columns no more)."""
    found = hdf5_reading.find(links, *(f"{place}/data" for place in _DATA))
    if found is None:
        raise ValueError(
            f"{links.path}: expected the dataset entry_1/data_1/data, got a file without it; "
            f"{hdf5_reading.contents(links)}; {OWN_LAYOUT}"
        )
    shifted = hdf5_images.is_shifted(links, found)
    hdf5_images.refuse_meaning(links, found, "data_space", *_SPACES)
    hdf5_images.refuse_meaning(links, found, "data_type", *_TYPES)
    mask = hdf5_reading.find(links, *(f"{place}/mask" for place in _DATA))
    if mask is not None and hdf5_images.is_mask_shifted(links, mask, found) != shifted:
        raise ValueError(f"{mask.where}: expected is_fft_shifted as for the frames of {found.where}, got the other")
    data, mask, notes = read_frames(links, found, mask)
    if shifted:
        data, mask = np.fft.fftshift(data, (1, 2)), np.fft.fftshift(mask, (-2, -1))
    return data, mask, notes, shifted


def _unshift_frames(scan, links):
    """A fft-shifted scan with its frames in their order, and what is known of each with them."""
    moved = {name: getattr(scan, name) for name in ("data", "rocking_angles", "flux")}
    moved["mask"] = scan.mask if scan.mask.ndim == 3 else None
    moved = {name: np.fft.fftshift(value, 0) for name, value in moved.items() if value is not None}
    steps = np.diff(moved.get("rocking_angles", np.arange(2)))
    if not ((steps >= 0).all() or (steps <= 0).all()):
        raise ValueError(
            f"{links.path}: is_fft_shifted: expected rocking angles in the order of the fft-shifted frames, got others"
        )
    return replace(scan, **moved)


def _read_flux(links, count):
    """A monitor's readings, relative, or None."""
    found = hdf5_reading.find(links, *_MONITORS)
    if found is None:
        return None
    shape, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    if dtype.kind not in "iuf" or math.prod(shape) != count:
        return None
    return relative_flux(hdf5_reading.array(links, found).ravel(), count)


def _length(links, *names):
    """A length of the detector in m, or None."""
    paths = (f"{place}/{name}" for place in _DETECTORS for name in names)
    return hdf5_reading.quantity(links, *paths, dimension=units.LENGTH)


def _read_pixel_size(links):
    """(row, column) in m, or None."""
    sizes = _length(links, "y_pixel_size", "pwidth1"), _length(links, "x_pixel_size", "pwidth2")
    return None if None in sizes else sizes


def _take_own_geometry(scan, links, geometry, rocking):
    """Complete a `Scan` by what pendel stored of its geometry."""
    scan.rocking_axis = _axis_of_text(geometry["rocking_axis"]) if "rocking_axis" in geometry else None
    scan.rocking_angles = geometry.get("rocking_angles")
    if scan.rocking_angles is None:
        _take_rocking(scan, links, rocking)
    else:
        where = f"{links.path}: geometry.rocking_angles"
        scan.rocking_angles = checks.array(where, scan.rocking_angles, (len(scan.data),), np.float64)
    if "centre" in geometry:
        centre = checks.array(f"{links.path}: geometry.centre", geometry["centre"], (3,), np.float64)
        scan.centre = tuple(map(float, centre))
    if "arm_axes" in geometry:
        axes = map(_axis_of_text, geometry["arm_axes"])
        scan.arm = tuple(zip(axes, map(float, geometry["arm_angles"]), strict=True))


def _take_rocking(scan, links, needed):
    """Complete a `Scan` by rocking angles and axis of NeXus transformations, or of the sample's angles."""
    for place in _ANGLES:
        motors = nexus_motors.per_frame(links, place, len(scan.data))
        motor = rocking_motor(f"{links.path}: {place}", motors, needed)
        if motor is not None:
            scan.rocking_angles = motor.positions
            scan.rocking_axis = scan.rocking_axis or motor.axis
            return
