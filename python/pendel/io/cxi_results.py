"""CXI files of reconstructed crystals. Strict when writing, lenient when reading.

Paths follow PyNX (`save_obj_cxi`) and the one-image-per-property layout of cdiutils; all numbers are SI. Arrays are
centred, (z, y, x). Every file is written under another name beside its target and then renamed.

To store something new, add one field of the group CONFIGURATION, RESULT or MAPS to `StoredResult`: it says where in the
file it stands, and `write_result` and `read_result` go through the fields. `pendel.app.store` fills them from a run.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..base import checks
from ..base.constants import LIGHT_SPEED, PLANCK
from ..base.recipe import refuse_unknown
from . import hdf5

# Groups of a file, below entry_1.
CRYSTAL = "image_1"
MAPS = "."  # each an image of its own, linked by its title
CONFIGURATION = "process_1/configuration"  # plain values, without attributes for their units
RESULT = "result_1"
HEAD = "head"  # what `hdf5` writes at its own places

_CRYSTALS = ("entry_1/image_1/data", "entry_1/data_1/data", "entry_last/image_1/data")


def _stored(
    group: str,
    about: str,
    *,
    key: str | None = None,
    unit: str = "",
    check: Callable[[str, Any], Any] | None = None,
    loaded: Callable[[Any], Any] | None = None,
    dtype: type | None = None,
    default: Any = None,
) -> Any:
    """A field of `StoredResult`.

    Parameters
    ----------
    group, key : where it stands; key None: the field's name.
    about, unit : what it is, with its shape.
    check : (name, value) -> what is written, for values but None; raises TypeError or ValueError. None: any value.
    loaded : what is read -> the field's value; None: the same.
    dtype : of an array that has the shape of S.
    default : value where a file does not have it; a type is called. MISSING: it must be given.
    """
    metadata = {"group": group, "key": key, "about": about, "unit": unit}
    metadata |= {"check": check, "loaded": loaded, "dtype": dtype}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _numbers(*shape: int) -> Callable[[str, Any], Any]:
    """A check for numbers of ``shape``, which are stored as they are given."""

    def check(name, value):
        checks.array(name, value, shape, np.float64)
        return value

    return check


def _numbers_or_inf(count: int) -> Callable[[str, Any], Any]:
    """A check for so many numbers, some of which may be inf."""
    return lambda name, value: checks.array(name, np.asarray(value, np.float64), (count,), np.float64, finite=False)


def _above_zero(name, value):
    return checks.number(name, value, above=0)


def _complex(name, value):
    checks.complex_number(name, value)
    return value


def _histories(name, value):
    """{name: (iterations,) float64} of such a dict, or of one array."""
    histories = value if isinstance(value, dict) else {"loss": value}
    return {k: checks.array(f"{name}.{k}", v, (None,), np.float64, finite=False) for k, v in histories.items()}


def _filled(_, text):
    return text or None


def _tuple(array):
    return tuple(array.tolist())


@dataclass
class StoredResult:
    """What a result file holds. Model frame: z || k_h, x along k_0. Files of other programs leave most fields None;
    their ``amplitude`` and ``phase`` are then those of ``S``.

    Fields
    ------
    """

    S: np.ndarray = _stored(CRYSTAL, "complex (nz, ny, nx), s_h exp(i phi), phi = -h.u", default=MISSING)
    support: np.ndarray | None = _stored(CRYSTAL, "bool (nz, ny, nx)", dtype=bool)
    voxel: tuple | None = _stored(CONFIGURATION, "(dz, dy, dx)", unit="m", loaded=_tuple)
    amplitude: np.ndarray | None = _stored(MAPS, "(nz, ny, nx); written without: |S|", dtype=np.float32)
    phase: np.ndarray | None = _stored(MAPS, "(nz, ny, nx); written without: arg S", unit="rad", dtype=np.float32)
    displacement: np.ndarray | None = _stored(MAPS, "u.h/|h|, (nz, ny, nx)", unit="m", dtype=np.float32)
    strain: np.ndarray | None = _stored(MAPS, "derivative of u.h/|h| along h", key="het_strain", dtype=np.float32)

    wavelength: float | None = _stored(CONFIGURATION, "of the beam", unit="m", check=_above_zero)
    k_0: np.ndarray | None = _stored(CONFIGURATION, "(x, y, z), model frame", unit="rad/m", check=_numbers(3))
    k_h: np.ndarray | None = _stored(CONFIGURATION, "(x, y, z), model frame", unit="rad/m", check=_numbers(3))
    frame: np.ndarray | None = _stored(CONFIGURATION, "(3, 3), rows: model x, y, z in the lab", check=_numbers(3, 3))
    chi_0: complex | None = _stored(CONFIGURATION, "susceptibility, order 0", check=_complex)
    chi_h: complex | None = _stored(CONFIGURATION, "susceptibility, order h", check=_complex)
    chi_hbar: complex | None = _stored(CONFIGURATION, "susceptibility, order -h", check=_complex)
    hkl: tuple | None = _stored(CONFIGURATION, "Miller indices", check=_numbers(3), loaded=_tuple)
    crystal: str = _stored(CONFIGURATION, "name of the crystal", check=_filled, default="")
    polarization: dict = _stored(CONFIGURATION, "{state: intensity fraction}", default=dict)

    loss: dict = _stored(RESULT, "{name: (iterations,)} of the fit", key="history", check=_histories, default=dict)
    scale: float | None = _stored(RESULT, "measured over computed intensity")
    misfit: float | None = _stored(RESULT, "sum (sqrt(scale D) - sqrt I)^2 / sum I over all frames")
    noise_misfit: float | None = _stored(RESULT, "misfit of photon noise alone")
    grid_misfit: float | None = _stored(RESULT, "misfit of the voxels, from voxels half as wide")
    excess: float | None = _stored(RESULT, "sum of square residuals over that of photon noise")
    variance: float | None = _stored(RESULT, "variance of a pixel that the fit went by, over that of photons")
    trust: str = _stored(RESULT, "a sentence on how far this can be trusted", check=_filled, default="")
    angle_offsets: np.ndarray | None = _stored(RESULT, "(frame,), refined, beside the rocking angles", unit="rad")
    flux: np.ndarray | None = _stored(RESULT, "(frame,), relative incident intensity, known or refined")
    background: float | np.ndarray | None = _stored(RESULT, "given, counts per pixel, a number or of frames and pixels")
    background_level: np.ndarray | None = _stored(RESULT, "(frame,), refined, counts per pixel beside these")
    point_spread: tuple | None = _stored(RESULT, "(row, col), refined, rms widths in pixels", loaded=_tuple)
    coherence: tuple | None = _stored(
        RESULT,
        "refined: (horizontal, vertical) coherence lengths in m, relative bandwidth, settings",
        check=_numbers_or_inf(4),
        loaded=_tuple,
    )
    measured_frame: np.ndarray | None = _stored(RESULT, "(row, col), counts")
    modelled_frame: np.ndarray | None = _stored(RESULT, "(row, col), counts, of the same frame")
    frame_index: int | None = _stored(RESULT, "which frame these are")
    rocking_angles: np.ndarray | None = _stored(RESULT, "(frame,)", unit="rad")
    rocking_measured: np.ndarray | None = _stored(RESULT, "(frame,), counts")
    rocking_modelled: np.ndarray | None = _stored(RESULT, "(frame,), counts")

    version: str = _stored(HEAD, "of pendel, when the file was written", default="")
    config: str = _stored(CONFIGURATION, "TOML text of the run's configuration", default="")
    name: str = _stored(HEAD, "title of the file", default="")
    metadata: dict = _stored(CONFIGURATION, "numbers, arrays, text, dicts of these", key="extra", default=dict)

    @property
    def h(self) -> np.ndarray | None:
        """Diffraction vector k_h - k_0, (3,) rad/m, model frame, or None."""
        return None if self.k_h is None or self.k_0 is None else self.k_h - self.k_0


def _described(f: Field) -> str:
    """A field's line in the docstring."""
    unit = f.metadata["unit"]
    return f"{f.name} : {f.metadata['about']}" + (f" [{unit}]" if unit else "")


StoredResult.__doc__ += "\n    ".join(map(_described, fields(StoredResult)))


def _fields_of(group):
    """(key in the file, field) of every field in a group."""
    return [(f.metadata["key"] or f.name, f) for f in fields(StoredResult) if f.metadata["group"] == group]


def write_result(
    path: Path | str,
    result: StoredResult | None = None,
    *,
    distance: float | None = None,
    pixel_size: float | tuple[float, float] | None = None,
    extra: dict | None = None,
    **given,
) -> None:
    """Write a reconstructed crystal as a CXI file that PyNX, cdiutils and bcdi users can open (CXI 1.5).

    Parameters
    ----------
    path : file to write; an old one is replaced when all is well.
    result : StoredResult. Its S is stored as complex64, its voxel must be there; of the rest, what is not None.
    distance : m, sample to detector, or None.
    pixel_size : m, one number or (row, column), or None.
    extra, given : instead of ``result``: keywords of a `StoredResult`, extra for its metadata.

    Raises
    ------
    TypeError, ValueError : naming the field.
    OSError : when the file cannot be written.
    """
    refuse_unknown(given, [f.name for f in fields(StoredResult) if f.name != "metadata"], "write_result")
    if result is None:
        if "S" not in given:
            raise TypeError("result: expected a StoredResult, or its fields from S on, got neither")
        result = StoredResult(**given, metadata=extra or {})
    elif given or extra is not None:
        raise TypeError(f"result: expected a StoredResult or its fields, got both and {', '.join(given) or 'extra'}")
    values = _checked(result)
    if pixel_size is not None:
        pixel_size = hdf5.checked_pixel_size(pixel_size)

    with hdf5.replacing(path) as file:
        entry = hdf5.put_head(file, 150, values.get("name"))
        hdf5.put_process(entry, {key: values.get(f.name) for key, f in _fields_of(CONFIGURATION)})
        _put_crystal(entry, values)
        wavelength = values.get("wavelength")
        energy = None if wavelength is None else PLANCK * LIGHT_SPEED / wavelength
        hdf5.put_instrument(entry[CRYSTAL], energy, distance, pixel_size)
        _put_maps(entry, values)
        group = hdf5.new_group(entry, RESULT, "NXcollection")
        for key, f in _fields_of(RESULT):
            hdf5.put(group, key, values.get(f.name), f.metadata["unit"])


def _checked(result):
    """{field: what is written} of all fields but those that are None."""
    S = checks.array("S", result.S, (None, None, None), np.complex64, axes="(nz, ny, nx)")
    values = {"S": S, "voxel": checks.lengths("voxel", result.voxel, 3)}
    for f in fields(StoredResult):
        value, check, dtype = getattr(result, f.name), f.metadata["check"], f.metadata["dtype"]
        if f.name in values or value is None:
            continue
        if dtype is not None:
            value = checks.array(f.name, value, S.shape, dtype, finite=False)
        elif check is not None:
            value = check(f.name, value)
        values[f.name] = value
    for name, part in (("amplitude", np.abs), ("phase", np.angle)):
        if name not in values:
            values[name] = part(S)
    return values


def _put_crystal(entry, values):
    hdf5.put_image(entry, 1, values["S"], values["voxel"], "crystal function S = s_h exp(i phi)", "electron density")
    image = entry[CRYSTAL]
    if "support" in values:
        image.create_dataset("mask", data=values["support"].astype(np.uint8), compression="gzip")
        image["support"] = h5py.SoftLink(f"/entry_1/{CRYSTAL}/mask")
    image["process_1"] = h5py.SoftLink("/entry_1/process_1")
    data = hdf5.new_group(entry, "data_1", "NXdata")
    data.attrs["signal"] = "data"
    data["data"] = h5py.SoftLink(f"/entry_1/{CRYSTAL}/data")


def _put_maps(entry, values):
    maps = [(title, f) for title, f in _fields_of(MAPS) if f.name in values]
    for number, (title, f) in enumerate(maps, start=2):
        data_type = "amplitude" if title == "amplitude" else None
        hdf5.put_image(entry, number, values[f.name], values["voxel"], title, data_type, f.metadata["unit"])
        entry[title] = h5py.SoftLink(f"/entry_1/image_{number}")


def read_result(path: Path | str) -> StoredResult:
    """Read a reconstructed crystal from a CXI file of pendel or PyNX as a `StoredResult`.

    Only complex ``entry_1/image_1/data`` or ``entry_1/data_1/data`` has to be there; of a leading axis of modes the
    first is taken and their number kept in ``metadata["modes"]``. Raises FileNotFoundError, or ValueError naming the
    file and dataset.
    """
    with hdf5.opened(path) as file:
        S, notes = _read_crystal(file, path)
        found = {"S": S, "support": _read_support(file, path, S.shape), "amplitude": np.abs(S), "phase": np.angle(S)}
        for title, f in _fields_of(MAPS):
            item = hdf5.find(file, f"entry_1/{title}")
            if item is not None:
                found[f.name] = hdf5.read(item)
        for group in (CONFIGURATION, RESULT):
            found |= _read_group(file, group)
        found["metadata"] = notes | found.get("metadata", {})
        if found.get("wavelength") is None:
            energy = hdf5.energy(file, "entry_1/image_1", "entry_1")
            found["wavelength"] = None if energy is None else PLANCK * LIGHT_SPEED / energy
        found["version"] = _read_text(file, "process_1/version", "image_1/process_1/version")
        found["name"] = _read_text(file, "title")
        return StoredResult(**found)


def _read_crystal(file, path):
    """S, and a note of the number of modes where there are some."""
    item = hdf5.find(file, *_CRYSTALS)
    if item is None:
        raise ValueError(
            f"{path}: expected the dataset entry_1/image_1/data, got a file without it; {hdf5.contents(file)}"
        )
    S, notes = hdf5.read(item), {}
    if np.ndim(S) == 4 and S.shape[0]:
        notes["modes"], S = S.shape[0], S[0]
    if np.ndim(S) != 3 or S.dtype.kind != "c":
        raise ValueError(f"{path}: {item.name}: expected a complex crystal (z, y, x), got {checks.describe(S)}")
    return S, notes


def _read_support(file, path, shape):
    item = hdf5.find(file, "entry_1/image_1/support", "entry_1/image_1/mask")
    if item is None:
        return None
    support = np.asarray(hdf5.read(item)) != 0
    if support.shape != shape:
        raise ValueError(f"{path}: {item.name}: expected shape {shape}, got {support.shape}")
    return support


def _read_group(file, group):
    """{field: value} of those that are there."""
    tree, found = hdf5.read_tree(file.get(f"entry_1/{group}")), {}
    for key, f in _fields_of(group):
        if key in tree:
            found[f.name] = f.metadata["loaded"](tree[key]) if f.metadata["loaded"] else tree[key]
    return found


def _read_text(file, *places):
    item = hdf5.find(file, *(f"entry_1/{place}" for place in places))
    return "" if item is None else str(hdf5.read(item))
