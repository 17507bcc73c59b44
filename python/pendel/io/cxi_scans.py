"""CXI files of rocking scans. Strict when writing, lenient when reading.

Paths follow PyNX (`save_cdi_data_cxi`); all numbers are SI. In a file a mask value 0 is a good pixel (CXI); in Python
True is a good pixel. Arrays are centred, (frame, row, column). Every file is written under another name beside its
target and then renamed.
"""

from pathlib import Path

import h5py
import numpy as np

from ..base import checks, plausible
from ..base.axes import Axis, axis_vector, is_named
from ..base.constants import LIGHT_SPEED, PLANCK
from . import hdf5, kinds
from .scans import Scan, relative_flux

_DATA = ("entry_1/data_1", "entry_1/instrument_1/detector_1", "entry_1/image_1", "entry_1/detector_1")
_DETECTORS = ("entry_1/instrument_1/detector_1", "entry_1/detector_1", "entry_1/detector_1/calibration")
_ANGLES = ("entry_1/sample_1/transformations", "entry_1/geometry_1/angles", "entry_1/sample_1")
_MONITORS = ("entry_1/control/data", "entry_1/monitor_1/data")  # of NeXus


def write_scan(
    path: Path | str,
    data,
    *,
    distance: float,
    pixel_size: float | tuple[float, float],
    wavelength: float | None = None,
    energy: float | None = None,
    mask=None,
    rocking_angles=None,
    rocking_axis: Axis = "y+",
    motor: str = "theta",
    arm: tuple[tuple[Axis, float], ...] | None = None,
    flux=None,
    centre: tuple[float, float, float] | None = None,
    name: str = "",
    extra: dict | None = None,
    force: bool = False,
) -> None:
    """Write measured or simulated frames as a CXI file laid out as PyNX does (CXI 1.4).

    Parameters
    ----------
    path : file to write; an old scan is replaced when all is well.
    data : (frame, row, col) counts >= 0, integer or float, centred.
    distance : m, sample to detector.
    pixel_size : m, one number or (row, column).
    wavelength, energy : m or J, exactly one of them.
    mask : bool, (row, col) or the shape of data, True = good; None: all are.
    rocking_angles : (frame,) rad about ``rocking_axis``, or None.
    rocking_axis : lab axis such as "y+" or three numbers.
    motor : name of the rocking angles in the file.
    flux : (frame,) > 0, relative incident intensity, or None; stored as the readings of a monitor.
    arm, centre : see `Scan`.
    extra : dict of numbers, arrays, text or dicts of these, read back as ``metadata``.
    force : replace any file, a result too.

    Raises
    ------
    TypeError, ValueError : naming the argument.
    OSError : when the file cannot be written; FileExistsError for a result or checkpoint.
    """
    data = _checked_counts(data)
    if (wavelength is None) == (energy is None):
        got = "none" if energy is None else "both"
        raise ValueError(f"wavelength, energy: expected exactly one of them, got {got}")
    if energy is None:
        energy = PLANCK * LIGHT_SPEED / plausible.number(plausible.WAVELENGTH, "wavelength", wavelength)
    scan = Scan(
        data=data,
        mask=_checked_mask(mask, data.shape),
        rocking_angles=rocking_angles,
        energy=plausible.number(plausible.ENERGY, "energy", energy),
        distance=plausible.number(plausible.DISTANCE, "distance", distance),
        pixel_size=hdf5.checked_pixel_size(pixel_size),
        centre=centre,
        arm=arm,
        flux=_checked_flux(flux, len(data)),
        rocking_axis=rocking_axis,
        name=name,
        metadata=dict(extra or {}),
    )
    geometry = _geometry(scan)
    with hdf5.replacing(path, kinds.SCAN, kinds.SIMULATED, kinds.FOREIGN, force=force) as file:
        entry = hdf5.put_head(file, 140, scan.name)
        detector = hdf5.put_instrument(entry, scan.energy, scan.distance, scan.pixel_size)
        _put_frames(detector, scan)
        group = hdf5.new_group(entry, "data_1", "NXdata")
        group.attrs["signal"] = "data"
        group["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        group["mask"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/mask")
        if scan.flux is not None:
            hdf5.put(hdf5.new_group(entry, "control", "NXmonitor"), "data", scan.flux)
        if "rocking_angles" in geometry:
            _put_rocking(entry, group, motor, geometry["rocking_angles"], scan.rocking_axis)
        hdf5.put_process(group, {"geometry": geometry, "extra": scan.metadata})


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
    mask = checks.numpy_array("mask", mask)
    return checks.array("mask", mask, shape if mask.ndim == 3 else shape[1:], bool)


def _geometry(scan):
    """What a `Scan` knows of its geometry, checked, as a dict to be stored."""
    vector = axis_vector("rocking_axis", scan.rocking_axis)
    geometry = {"rocking_axis": scan.rocking_axis if is_named(scan.rocking_axis) else vector}
    if scan.centre is not None:
        geometry["centre"] = checks.array("centre", scan.centre, (3,), np.float64)
    if scan.arm is not None:
        for i, (axis, angle) in enumerate(scan.arm):
            axis_vector(f"arm[{i}]", axis)
            checks.number(f"arm[{i}] angle", angle)
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
    data.attrs["axes"] = f"{motor}:y:x"

    cross = np.cross(np.eye(3), vector)  # a x n for the three unit vectors a; Rodrigues needs n x a = -that
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    # [frame, which unit vector, lab]
    turned = cosine * np.eye(3) - sine * cross + (1 - cosine) * np.outer(vector, vector)
    hdf5.put(hdf5.new_group(sample, "geometry_1", "NXgeometry"), "orientation", turned[:, :2].reshape(-1, 6))


def read_scan(path: Path | str) -> Scan:
    """Read a rocking scan from a CXI file of pendel, PyNX or cdiutils as a `Scan`.

    Only the frames have to be there; energies are taken in J, or in eV by their unit or size. NaN and negative values
    become masked zeros, counted in ``metadata["masked_on_read"]``. Raises FileNotFoundError, or ValueError naming the
    file and dataset.
    """
    with hdf5.opened(path) as file:
        data, mask, metadata = _read_frames(file, path)
        process = hdf5.read_tree(file.get("entry_1/data_1/process_1/configuration"))
        title = hdf5.find(file, "entry_1/sample_1/name", "entry_1/title")
        return Scan(
            data=data,
            mask=mask,
            energy=hdf5.energy(file, "entry_1/instrument_1", "entry_1"),
            distance=hdf5.quantity(file, *(f"{place}/distance" for place in _DETECTORS), unit="m"),
            pixel_size=_read_pixel_size(file),
            name="" if title is None else str(hdf5.read(title)),
            metadata=metadata | process.get("extra", {}),
            flux=_read_flux(file, len(data)),
            **_read_geometry(file, process.get("geometry", {}), len(data)),
        )


def _read_frames(file, path):
    """Counts, mask (True = good) and a note of how many values were masked because they are no counts."""
    item = hdf5.find(file, *(f"{place}/data" for place in _DATA))
    if item is None:
        raise ValueError(
            f"{path}: expected the dataset entry_1/data_1/data, got a file without it; {hdf5.contents(file)}"
        )
    data = hdf5.read(item)
    shape = np.shape(data)
    data = data[0] if len(shape) == 4 and shape[0] == 1 else data
    if np.ndim(data) != 3 or data.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: {item.name}: expected real intensities (frame, row, col), got {checks.describe(data)}"
        )
    item = hdf5.find(file, *(f"{place}/mask" for place in _DATA))
    mask = np.ones(data.shape[1:], bool) if item is None else hdf5.good_pixels(item, data.shape)

    wrong = ~(np.isfinite(data) & (data >= 0))
    notes = {}
    if wrong.any():
        data, mask = np.where(wrong, 0, data), mask & ~wrong
        notes["masked_on_read"] = int(wrong.sum())
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
    elif data.dtype != np.int32 and data.max(initial=0) <= np.iinfo(np.int32).max:
        data = data.astype(np.int32)
    return data, mask, notes


def _read_flux(file, count):
    """A monitor's readings, relative, or None."""
    item = hdf5.find(file, *_MONITORS)
    return None if item is None or item.dtype.kind not in "iuf" else relative_flux(hdf5.read(item), count)


def _read_pixel_size(file):
    """(row, column) in m, or None."""
    sizes = []
    for names in (("y_pixel_size", "pwidth1"), ("x_pixel_size", "pwidth2")):
        places = [f"{place}/{name}" for place in _DETECTORS for name in names]
        sizes.append(hdf5.quantity(file, *places, unit="m"))
    return None if None in sizes else tuple(sizes)


def _read_geometry(file, geometry, count):
    """{rocking_angles, rocking_axis, centre, arm} of a `Scan` from what pendel stored, else from other programs."""
    angles, axis = _read_angles(file, count)
    axis = geometry.get("rocking_axis", axis)
    arm = None
    if "arm_axes" in geometry:
        axes = map(_axis_of_text, geometry["arm_axes"])
        arm = tuple(zip(axes, map(float, geometry["arm_angles"]), strict=True))
    return {
        "rocking_angles": geometry.get("rocking_angles", angles),
        "rocking_axis": None if axis is None else _axis_of_text(axis),
        "centre": tuple(map(float, geometry["centre"])) if "centre" in geometry else None,
        "arm": arm,
    }


def _read_angles(file, count):
    """Rocking angles (rad) and axis of NeXus transformations or of cdiutils' angles; (None, None) without any."""
    for place in _ANGLES:
        group = file.get(place)
        for name, item in group.items() if isinstance(group, h5py.Group) else ():
            if isinstance(item, h5py.Dataset) and item.shape == (count,) and item.dtype.kind in "iuf":
                return hdf5.quantity(file, f"{place}/{name}", unit="deg"), item.attrs.get("vector")
    return None, None
