"""CXI files: measured scans and reconstructed crystals. Strict when writing, lenient when reading.

Paths follow PyNX (`save_cdi_data_cxi`, `save_obj_cxi`) and the one-image-per-property layout of cdiutils; all numbers
are SI. In a file a mask value 0 is a good pixel (CXI); in Python True is a good pixel. Arrays are centred, (frame,
row, column) for measurements and (z, y, x) for crystals. Every file is written under another name beside its target
and then renamed.
"""

from dataclasses import dataclass, field

import h5py
import numpy as np

from ..base import checks
from . import hdf5
from .hdf5 import LIGHT, PLANCK

_IMAGES = {"amplitude": "amplitude", "phase": "phase", "displacement": "displacement", "strain": "het_strain"}
_UNITS = {"amplitude": "", "phase": "rad", "displacement": "m", "strain": ""}
_PHYSICS = ("wavelength", "k_0", "k_h", "frame", "chi_0", "chi_h", "chi_hbar", "hkl", "crystal", "voxel")
_NUMBERS = ("scale", "misfit", "measured_frame", "modelled_frame", "frame_index")
_CURVES = ("rocking_angles", "rocking_measured", "rocking_modelled")


@dataclass
class Scan:
    """A rocking scan. ``data`` (frame, row, col) float32 or integer counts, centred about its pattern, not fft-shifted.

    ``mask``: bool, (row, col) or (frame, row, col), True = good. ``rocking_angles``: (frame,) rad or None.
    ``energy``: J. ``distance``: m. ``pixel_size``: (row, column) m. ``centre``: fractional (frame, row, col) that k_h
    hits. ``arm``: detector arm turns, outermost first, as ((lab axis "y+", angle rad), ...). ``rocking_axis``: lab
    axis such as "y+" or a 3-vector. Whatever a file does not say is None.
    """

    data: np.ndarray
    mask: np.ndarray
    rocking_angles: np.ndarray | None = None
    energy: float | None = None
    distance: float | None = None
    pixel_size: tuple | None = None
    centre: tuple | None = None
    arm: tuple | None = None
    rocking_axis: str | tuple | None = None
    name: str = ""
    metadata: dict = field(default_factory=dict)

    @property
    def wavelength(self):
        """Wavelength in m, or None."""
        return None if self.energy is None else PLANCK * LIGHT / self.energy


@dataclass
class StoredResult:
    """What a result file holds. ``S``: complex (z, y, x), S = s_h exp(i phi), phi = -h.u. Model frame: z || k_h, x
    along k_0.

    ``voxel``: (dz, dy, dx) m. ``displacement``: u.h/|h| in m. ``strain``: its derivative along h. ``k_0``, ``k_h``:
    rad/m, model frame. ``frame``: (3, 3), rows are the model's x, y, z in the lab frame. ``polarization``: intensity
    fractions. ``loss``: dict of 1-D histories. ``measured_frame``, ``modelled_frame``: (row, col). ``rocking_*``:
    (frame,). ``config``: TOML text. Files of other programs leave most of these None; their ``amplitude`` and
    ``phase`` are then those of ``S``.
    """

    S: np.ndarray
    support: np.ndarray | None = None
    voxel: tuple | None = None
    amplitude: np.ndarray | None = None
    phase: np.ndarray | None = None
    displacement: np.ndarray | None = None
    strain: np.ndarray | None = None
    wavelength: float | None = None
    k_0: np.ndarray | None = None
    k_h: np.ndarray | None = None
    frame: np.ndarray | None = None
    chi_0: complex | None = None
    chi_h: complex | None = None
    chi_hbar: complex | None = None
    hkl: tuple | None = None
    crystal: str = ""
    polarization: dict = field(default_factory=dict)
    loss: dict = field(default_factory=dict)
    scale: float | None = None
    misfit: float | None = None
    measured_frame: np.ndarray | None = None
    modelled_frame: np.ndarray | None = None
    frame_index: int | None = None
    rocking_angles: np.ndarray | None = None
    rocking_measured: np.ndarray | None = None
    rocking_modelled: np.ndarray | None = None
    version: str = ""
    config: str = ""
    name: str = ""
    metadata: dict = field(default_factory=dict)

    @property
    def h(self):
        """Diffraction vector k_h - k_0, (3,) rad/m, model frame, or None."""
        return None if self.k_h is None or self.k_0 is None else self.k_h - self.k_0


def axis_vector(name, axis):
    """Unit 3-vector (lab frame) of an axis given as "x+", "y-", ... or as three numbers."""
    if isinstance(axis, str):
        if len(axis) != 2 or axis[0] not in "xyz" or axis[1] not in "+-":
            raise ValueError(f"{name}: expected an axis such as 'y+' or 'x-' or three numbers, got {axis!r}")
        vector = np.zeros(3)
        vector["xyz".index(axis[0])] = 1.0 if axis[1] == "+" else -1.0
        return vector
    vector = checks.array(name, axis, (3,), np.float64)
    length = np.linalg.norm(vector)
    if length == 0:
        raise ValueError(f"{name}: expected an axis of non-zero length, got {vector.tolist()}")
    return vector / length


def write_scan(path, data, *, distance, pixel_size, wavelength=None, energy=None, mask=None, rocking_angles=None,
               rocking_axis="y+", motor="theta", arm=None, centre=None, name="", extra=None):  # fmt: skip
    """Write measured or simulated frames as a CXI file laid out as PyNX does (CXI 1.4).

    ``data``: (frame, row, col) counts >= 0, integer or float, centred. ``mask``: (row, col) or the shape of data,
    True = good. Exactly one of ``wavelength`` (m) and ``energy`` (J). ``distance``: m. ``pixel_size``: m, one number
    or (row, column). ``rocking_angles``: (frame,) rad about ``rocking_axis`` (lab frame); ``motor`` names them.
    ``arm`` and ``centre``: see `Scan`. ``extra``: dict of numbers, arrays, text or dicts of these, read back as
    ``metadata``. Raises TypeError or ValueError naming the argument, OSError when the file cannot be written.
    """
    kind = np.asarray(data).dtype
    dtype = kind if kind.kind in "iu" else np.float32
    data = checks.array("data", data, (None, None, None), dtype, axes="(frame, row, col)")
    if data.size == 0 or data.min() < 0:
        raise ValueError(f"data: expected counts >= 0, got {'an empty array' if data.size == 0 else data.min()}")
    if (wavelength is None) == (energy is None):
        raise ValueError(
            "wavelength, energy: expected exactly one of them, got " + ("none" if energy is None else "both")
        )
    energy = PLANCK * LIGHT / checks.number("wavelength", wavelength, above=0) if energy is None else energy
    energy = checks.number("energy", energy, above=0)
    distance = checks.number("distance", distance, above=0)
    pixel_size = checks.lengths("pixel_size", (pixel_size,) * 2 if np.ndim(pixel_size) == 0 else pixel_size, 2)
    mask = np.ones(data.shape[1:], bool) if mask is None else np.asarray(mask)
    mask = checks.array("mask", mask, data.shape if mask.ndim == 3 else data.shape[1:], bool)
    vector = axis_vector("rocking_axis", rocking_axis)
    geometry = {"rocking_axis": rocking_axis if isinstance(rocking_axis, str) else vector}
    if centre is not None:
        geometry["centre"] = checks.array("centre", centre, (3,), np.float64)
    if arm is not None:
        for i, (axis, angle) in enumerate(arm):
            axis_vector(f"arm[{i}]", axis), checks.number(f"arm[{i}] angle", angle)
        geometry["arm_axes"] = [a if isinstance(a, str) else " ".join(map(repr, map(float, a))) for a, _ in arm]
        geometry["arm_angles"] = np.array([angle for _, angle in arm], float)
    if rocking_angles is not None:
        rocking_angles = checks.array("rocking_angles", rocking_angles, (len(data),), np.float64)
        geometry["rocking_angles"] = rocking_angles
    with hdf5.replacing(path) as file:
        entry = hdf5.put_head(file, 140, name)
        detector = hdf5.put_instrument(entry, energy, distance, pixel_size)
        packed = hdf5.PACKED | {"chunks": (1, *data.shape[1:])}
        detector.create_dataset("data", data=data, **packed)
        bad = np.broadcast_to(~mask, data.shape).astype(np.uint8)  # PyNX wants the shape of the data
        detector.create_dataset("mask", data=bad, **packed)
        group = hdf5.new_group(entry, "data_1", "NXdata")
        group.attrs["signal"] = "data"
        group["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        group["mask"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/mask")
        if rocking_angles is not None:
            _rocking(entry, group, motor, rocking_angles, vector)
        hdf5.put_process(group, {"geometry": geometry, "extra": dict(extra or {})})


def _rocking(entry, data, motor, angles, vector):
    """The rocking angles where readers look: NeXus transformations, axis of data_1, CXI sample geometry."""
    sample = hdf5.new_group(entry, "sample_1", "NXsample")
    group = hdf5.new_group(sample, "transformations", "NXtransformations")
    hdf5.put(group, motor, np.degrees(angles), "deg")
    group[motor].attrs.update(transformation_type="rotation", vector=vector, depends_on=".")
    sample["rotation_angle"] = h5py.SoftLink(f"/entry_1/sample_1/transformations/{motor}")
    data[motor] = h5py.SoftLink(f"/entry_1/sample_1/transformations/{motor}")
    data.attrs["axes"] = f"{motor}:y:x"
    cross = np.cross(np.eye(3), vector)  # a x n for the three unit vectors a; Rodrigues needs n x a = -that
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    turned = (
        cosine * np.eye(3) - sine * cross + (1 - cosine) * np.outer(vector, vector)
    )  # [frame, which unit vector, lab]
    hdf5.put(hdf5.new_group(sample, "geometry_1", "NXgeometry"), "orientation", turned[:, :2].reshape(-1, 6))


def write_result(path, *, S, voxel, support=None, amplitude=None, phase=None, displacement=None, strain=None,
                 wavelength=None, k_0=None, k_h=None, frame=None, chi_0=None, chi_h=None, chi_hbar=None, hkl=None,
                 crystal=None, polarization=None, loss=None, scale=None, misfit=None, measured_frame=None,
                 modelled_frame=None, frame_index=None, rocking_angles=None, rocking_measured=None,
                 rocking_modelled=None, distance=None, pixel_size=None, config="", name="", extra=None):  # fmt: skip
    """Write a reconstructed crystal as a CXI file that PyNX, cdiutils and bcdi users can open (CXI 1.5).

    Arguments are the fields of `StoredResult`. ``S`` complex (nz, ny, nx) is stored as complex64; ``voxel`` (dz, dy,
    dx) m. ``amplitude`` and ``phase`` default to those of S; the other maps are stored where given and must have its
    shape. ``loss``: 1-D array, or dict of 1-D arrays. ``extra``: as in `write_scan`. Raises TypeError or ValueError
    naming the argument.
    """
    S = checks.array("S", S, (None, None, None), np.complex64, axes="(nz, ny, nx)")
    voxel = checks.lengths("voxel", voxel, 3)
    support = None if support is None else checks.array("support", support, S.shape, bool)
    maps = {"amplitude": amplitude, "phase": phase, "displacement": displacement, "strain": strain}
    maps = {k: None if v is None else checks.array(k, v, S.shape, np.float32, finite=False) for k, v in maps.items()}
    maps["amplitude"] = np.abs(S) if amplitude is None else maps["amplitude"]
    maps["phase"] = np.angle(S) if phase is None else maps["phase"]
    wavelength = None if wavelength is None else checks.number("wavelength", wavelength, above=0)
    for label, value, shape in (("k_0", k_0, (3,)), ("k_h", k_h, (3,)), ("frame", frame, (3, 3)), ("hkl", hkl, (3,))):
        if value is not None:
            checks.array(label, value, shape, np.float64)
    for label, value in (("chi_0", chi_0), ("chi_h", chi_h), ("chi_hbar", chi_hbar)):
        if value is not None:
            checks.complex_number(label, value)
    loss = {} if loss is None else loss if isinstance(loss, dict) else {"loss": loss}
    loss = {k: checks.array(f"loss.{k}", v, (None,), np.float64, finite=False) for k, v in loss.items()}
    if pixel_size is not None:
        pixel_size = checks.lengths("pixel_size", (pixel_size,) * 2 if np.ndim(pixel_size) == 0 else pixel_size, 2)
    given = dict(locals())
    with hdf5.replacing(path) as file:
        entry = hdf5.put_head(file, 150, name)
        hdf5.put_process(
            entry, {k: given[k] for k in _PHYSICS} | {"polarization": polarization, "config": config, "extra": extra}
        )
        hdf5.put_image(entry, 1, S, voxel, "crystal function S = s_h exp(i phi)", "electron density")
        image = entry["image_1"]
        if support is not None:
            image.create_dataset("mask", data=support.astype(np.uint8), compression="gzip")
            image["support"] = h5py.SoftLink("/entry_1/image_1/mask")
        image["process_1"] = h5py.SoftLink("/entry_1/process_1")
        hdf5.put_instrument(image, None if wavelength is None else PLANCK * LIGHT / wavelength, distance, pixel_size)
        data = hdf5.new_group(entry, "data_1", "NXdata")
        data.attrs["signal"] = "data"
        data["data"] = h5py.SoftLink("/entry_1/image_1/data")
        for i, (key, value) in enumerate(((k, v) for k, v in maps.items() if v is not None), start=2):
            title = _IMAGES[key]
            hdf5.put_image(entry, i, value, voxel, title, "amplitude" if key == "amplitude" else None, _UNITS[key])
            entry[title] = h5py.SoftLink(f"/entry_1/image_{i}")
        result = hdf5.new_group(entry, "result_1", "NXcollection")
        for key in (*_NUMBERS, *_CURVES):
            hdf5.put(result, key, given[key], "rad" if key == "rocking_angles" else None)
        hdf5.put(result, "history", loss)


def read_scan(path):
    """Read a rocking scan from a CXI file of pendel, PyNX or cdiutils as a `Scan`.

    Only the frames have to be there; energies are taken in J, or in eV by their unit or size. NaN and negative values
    become masked zeros, counted in ``metadata["masked_on_read"]``. Raises FileNotFoundError, or ValueError naming the
    file and dataset.
    """
    with hdf5.opened(path) as file:
        places = ("entry_1/data_1", "entry_1/instrument_1/detector_1", "entry_1/image_1", "entry_1/detector_1")
        item = hdf5.find(file, *(f"{place}/data" for place in places))
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
        item = hdf5.find(file, *(f"{place}/mask" for place in places))
        mask = np.ones(data.shape[1:], bool) if item is None else hdf5.good_pixels(item, data.shape)
        wrong = ~(np.isfinite(data) & (data >= 0))
        metadata = {}
        if wrong.any():
            data, mask = np.where(wrong, 0, data), mask & ~wrong
            metadata["masked_on_read"] = int(wrong.sum())
        if data.dtype.kind == "f":
            data = data.astype(np.float32, copy=False)
        elif data.dtype != np.int32 and data.max(initial=0) <= np.iinfo(np.int32).max:
            data = data.astype(np.int32)
        process = hdf5.read_tree(file.get("entry_1/data_1/process_1/configuration"))
        geometry = process.get("geometry", {})
        angles, axis = _read_angles(file, len(data))
        arm = (
            tuple(zip(map(_axis, geometry["arm_axes"]), map(float, geometry["arm_angles"]), strict=True))
            if "arm_axes" in geometry
            else None
        )
        detectors = ("entry_1/instrument_1/detector_1", "entry_1/detector_1", "entry_1/detector_1/calibration")
        sizes = [hdf5.quantity(file, *(f"{d}/{n}" for d in detectors for n in names), unit="m")
                 for names in (("y_pixel_size", "pwidth1"), ("x_pixel_size", "pwidth2"))]  # fmt: skip
        title = hdf5.find(file, "entry_1/sample_1/name", "entry_1/title")
        return Scan(
            data=data,
            mask=mask,
            rocking_angles=geometry.get("rocking_angles", angles),
            energy=hdf5.energy(file, "entry_1/instrument_1", "entry_1"),
            distance=hdf5.quantity(file, *(f"{d}/distance" for d in detectors), unit="m"),
            pixel_size=None if None in sizes else tuple(sizes),
            centre=tuple(map(float, geometry["centre"])) if "centre" in geometry else None,
            arm=arm,
            rocking_axis=_axis(geometry.get("rocking_axis", axis)),
            name="" if title is None else str(hdf5.read(title)),
            metadata=metadata | process.get("extra", {}),
        )


def _axis(value):
    """An axis as read from a file: text such as "y+" stays, three numbers (or their text) become a tuple."""
    if value is None or isinstance(value, str) and len(value) == 2:
        return value
    return tuple(float(v) for v in (value.split() if isinstance(value, str) else value))


def _read_angles(file, count):
    """Rocking angles (rad) and axis of NeXus transformations or of cdiutils' angles; (None, None) without any."""
    for place in ("entry_1/sample_1/transformations", "entry_1/geometry_1/angles", "entry_1/sample_1"):
        group = file.get(place)
        for name, item in group.items() if isinstance(group, h5py.Group) else ():
            if isinstance(item, h5py.Dataset) and item.shape == (count,) and item.dtype.kind in "iuf":
                return hdf5.quantity(file, f"{place}/{name}", unit="deg"), item.attrs.get("vector")
    return None, None


def read_result(path):
    """Read a reconstructed crystal from a CXI file of pendel or PyNX as a `StoredResult`.

    Only complex ``entry_1/image_1/data`` or ``entry_1/data_1/data`` has to be there; of a leading axis of modes the
    first is taken and their number kept in ``metadata["modes"]``. Raises FileNotFoundError, or ValueError naming the
    file and dataset.
    """
    with hdf5.opened(path) as file:
        item = hdf5.find(file, "entry_1/image_1/data", "entry_1/data_1/data", "entry_last/image_1/data")
        if item is None:
            raise ValueError(
                f"{path}: expected the dataset entry_1/image_1/data, got a file without it; {hdf5.contents(file)}"
            )
        S = hdf5.read(item)
        metadata = {}
        if np.ndim(S) == 4 and S.shape[0]:
            metadata["modes"], S = S.shape[0], S[0]
        if np.ndim(S) != 3 or S.dtype.kind != "c":
            raise ValueError(f"{path}: {item.name}: expected a complex crystal (z, y, x), got {checks.describe(S)}")
        item = hdf5.find(file, "entry_1/image_1/support", "entry_1/image_1/mask")
        support = None if item is None else np.asarray(hdf5.read(item)) != 0
        if support is not None and support.shape != S.shape:
            raise ValueError(f"{path}: {item.name}: expected shape {S.shape}, got {support.shape}")
        stored = StoredResult(S=S, support=support, amplitude=np.abs(S), phase=np.angle(S))
        for key, title in _IMAGES.items():
            item = hdf5.find(file, f"entry_1/{title}")
            if item is not None:
                setattr(stored, key, hdf5.read(item))
        process = hdf5.read_tree(file.get("entry_1/process_1/configuration"))
        result = hdf5.read_tree(file.get("entry_1/result_1"))
        values = {k: process[k] for k in _PHYSICS if k in process}
        values |= {k: result[k] for k in (*_NUMBERS, *_CURVES) if k in result}
        values |= {k: tuple(values[k].tolist()) for k in ("voxel", "hkl") if k in values}
        for key, value in values.items():
            setattr(stored, key, value)
        stored.polarization, stored.loss = process.get("polarization", {}), result.get("history", {})
        stored.config = process.get("config", "")
        stored.metadata = metadata | process.get("extra", {})
        if stored.wavelength is None:
            energy = hdf5.energy(file, "entry_1/image_1", "entry_1")
            stored.wavelength = None if energy is None else PLANCK * LIGHT / energy
        for key, paths in {"version": ("process_1/version", "image_1/process_1/version"), "name": ("title",)}.items():
            item = hdf5.find(file, *(f"entry_1/{p}" for p in paths))
            setattr(stored, key, "" if item is None else str(hdf5.read(item)))
        return stored
