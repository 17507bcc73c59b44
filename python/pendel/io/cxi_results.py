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

from ..base import checks, plausible
from ..base.constants import LIGHT_SPEED, PLANCK
from ..base.printing import brief
from ..base.recipe import refuse_unknown
from . import hdf5, hdf5_arrays, hdf5_images, hdf5_links, hdf5_reading, kinds

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
    metadata: dict[str, Any] = {"group": group, "key": key, "about": about, "unit": unit}
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


def _wavelength(name, value):
    return plausible.number(plausible.WAVELENGTH, name, value)


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
    """What a result file holds. Model frame: z || k_h, x along k_0.

    Files of other programs leave most fields None; their ``amplitude`` and ``phase`` are then those of ``S``.

    Attributes
    ----------
    """

    S: np.ndarray = _stored(CRYSTAL, "complex (nz, ny, nx), s_h exp(i phi), phi = -h.u", default=MISSING)
    support: np.ndarray | None = _stored(CRYSTAL, "bool (nz, ny, nx)", dtype=bool)
    voxel: tuple | None = _stored(CONFIGURATION, "(dz, dy, dx)", unit="m", loaded=_tuple)
    amplitude: np.ndarray | None = _stored(MAPS, "(nz, ny, nx); written without: |S|", dtype=np.float32)
    phase: np.ndarray | None = _stored(MAPS, "(nz, ny, nx); written without: arg S", unit="rad", dtype=np.float32)
    displacement: np.ndarray | None = _stored(
        MAPS, "u.h/|h|, (nz, ny, nx), modulo displacement_modulo", unit="m", dtype=np.float32
    )
    strain: np.ndarray | None = _stored(
        MAPS, "derivative of u.h/|h| along h; NaN where not known", key="het_strain", dtype=np.float32
    )

    wavelength: float | None = _stored(CONFIGURATION, "of the beam", unit="m", check=_wavelength)
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
    displacement_modulo: float | None = _stored(RESULT, "lattice spacing that displacements are modulo", unit="m")
    misfit: float | None = _stored(RESULT, "sum (sqrt(scale D) - sqrt I)^2 / sum I over all frames")
    noise_misfit: float | None = _stored(RESULT, "misfit of photon noise alone")
    grid_misfit: float | None = _stored(RESULT, "misfit of the voxels, from voxels half as wide")
    excess: float | None = _stored(RESULT, "sum of square residuals over that of photon noise")
    variance: float | None = _stored(RESULT, "variance of a pixel that the fit went by, over that of photons")
    twin_ratio: float | None = _stored(
        RESULT, "misfit of the conjugate twin over that of the crystal, shortly polished"
    )
    verdict: str = _stored(RESULT, "found; found, with doubts; or not found", check=_filled, default="")
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

    __repr__ = brief

    @property
    def h(self) -> np.ndarray | None:
        """Diffraction vector k_h - k_0, (3,) rad/m, model frame, or None."""
        return None if self.k_h is None or self.k_0 is None else self.k_h - self.k_0


def _described(f: Field) -> str:
    """A field's line in the docstring."""
    unit = f.metadata["unit"]
    return f"{f.name} : {f.metadata['about']}" + (f" [{unit}]" if unit else "")


StoredResult.__doc__ = (StoredResult.__doc__ or "") + "\n    ".join(map(_described, fields(StoredResult))) + "\n    "


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
    force: bool = False,
    **given: Any,
) -> None:
    """Write a reconstructed crystal as a CXI file that PyNX, cdiutils and bcdi users can open (CXI 1.5).

    Parameters
    ----------
    path : file to write; an old result is replaced when all is well.
    result : StoredResult. Its S is stored as complex64, its voxel must be there; of the rest, what is not None.
    distance : m, sample to detector, or None.
    pixel_size : m, one number or (row, column), or None.
    extra : instead of the metadata of ``result``.
    force : replace any file; without it, results of pendel alone.
    **given : instead of ``result``: keywords of a `StoredResult`.

    Raises
    ------
    TypeError, ValueError : naming the field.
    OSError : when the file cannot be written; FileExistsError for one of another kind, or of another program.
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
    if distance is not None:
        distance = plausible.number(plausible.DISTANCE, "distance", distance)

    with hdf5.replacing(path, kinds.RESULT, force=force) as file:
        entry = hdf5.put_head(file, 150, values.get("name"))
        hdf5.put_process(entry, {key: values.get(f.name) for key, f in _fields_of(CONFIGURATION)})
        _put_crystal(entry, values)
        wavelength = values.get("wavelength")
        energy = None if wavelength is None else PLANCK * LIGHT_SPEED / wavelength
        hdf5.put_instrument(entry[CRYSTAL], energy, distance, pixel_size)
        entry["instrument_1"] = h5py.SoftLink(f"/entry_1/{CRYSTAL}/instrument_1")  # where CXI has it
        _put_maps(entry, values)
        group = hdf5.new_group(entry, RESULT, "NXcollection")
        for key, f in _fields_of(RESULT):
            hdf5.put(group, key, values.get(f.name), f.metadata["unit"])


def _checked(result):
    """{field: what is written} of all fields but those that are None."""
    S = checks.array("S", result.S, (None, None, None), np.complex64, axes="(nz, ny, nx)")
    values = {"S": S, "voxel": plausible.lengths(plausible.VOXEL, "voxel", result.voxel, 3)}
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
    data.attrs.update(signal="data", interpretation="image", axes=list(hdf5.AXES))
    for name in ("data", *hdf5.AXES):
        data[name] = h5py.SoftLink(f"/entry_1/{CRYSTAL}/{name}")


def _put_maps(entry, values):
    maps = [(title, values[f.name], f.metadata["unit"]) for title, f in _fields_of(MAPS) if f.name in values]
    if "support" in values:  # other programs look for it beside the maps, too
        maps.append(("support", values["support"].astype(np.uint8), None))
    for number, (title, value, unit) in enumerate(maps, start=2):
        data_type = "amplitude" if title == "amplitude" else None
        hdf5.put_image(entry, number, value, values["voxel"], title, data_type, unit)
        entry[title] = h5py.SoftLink(f"/entry_1/image_{number}")


def read_result(path: Path | str, *, external: str = hdf5_links.FOLDER) -> StoredResult:
    """Read a reconstructed crystal from a CXI file of pendel or PyNX as a `StoredResult`.

    Only complex ``entry_1/image_1/data`` or ``entry_1/data_1/data`` has to be there; of a leading axis of modes the
    first is taken and their number kept in ``metadata["modes"]``. Images that are fft-shifted are brought back.
    ``external`` as in `read_scan`. Raises OSError or ValueError naming the file and dataset.

    Parameters
    ----------
    path : Path or str, of the file
    external : "anywhere": links may lead out of the file's folder, to files of whoever made it

    Returns
    -------
    StoredResult
    """
    with hdf5_reading.opened(path, external) as links:
        S, notes = _read_crystal(links)
        found = {"S": S, "support": _read_support(links, S.shape), "amplitude": np.abs(S), "phase": np.angle(S)}
        found |= _read_maps(links, S.shape)
        for group in (CONFIGURATION, RESULT):
            found |= _read_group(links, group)
        found["metadata"] = notes | found.get("metadata", {})
        if found.get("wavelength") is None:
            energy = hdf5_reading.energy(links, "entry_1/image_1", "entry_1")
            found["wavelength"] = None if energy is None else PLANCK * LIGHT_SPEED / energy
        found["version"] = hdf5_reading.text(links, "entry_1/process_1/version", "entry_1/image_1/process_1/version")
        found["name"] = hdf5_reading.text(links, "entry_1/title")
        return StoredResult(**found)


def _read_crystal(links):
    """S, and a note of the number of modes where there are some."""
    found = hdf5_reading.find(links, *_CRYSTALS)
    if found is None:
        raise ValueError(
            f"{links.path}: expected the dataset entry_1/image_1/data, got a file without it; "
            f"{hdf5_reading.contents(links)}"
        )
    shape, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    if len(shape) < 3 or sum(n != 1 for n in shape) > 4 or 0 in shape or dtype.kind != "c":
        raise ValueError(f"{found.where}: expected a complex crystal (z, y, x), got dtype {dtype} and shape {shape}")
    hdf5_images.refuse_meaning(links, found, "data_space", ("real", "direct"), "a crystal in real space")
    S, notes = hdf5_images.read_image(links, found), {}
    if S.ndim > 3:
        S = hdf5_reading.without_axes_of_length_one(S, 4) if S.ndim > 4 else S
        notes["modes"], S = S.shape[0], S[0]
    if S.ndim != 3:
        raise ValueError(f"{found.where}: expected a complex crystal (z, y, x), got shape {shape}")
    return S, notes


def _read_support(links, shape):
    found = hdf5_reading.find(links, "entry_1/image_1/support", "entry_1/image_1/mask", "entry_1/support")
    return None if found is None else _read_map(links, found, shape) != 0


def _read_maps(links, shape):
    """{field: map} of those that are there."""
    maps = {}
    for title, f in _fields_of(MAPS):
        found = hdf5_reading.find(links, f"entry_1/{title}")
        if found is not None:
            maps[f.name] = _read_map(links, found, shape)
    return maps


def _read_map(links, found, shape):
    """A real map of the crystal, centred."""
    given, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    if tuple(n for n in given if n != 1) != tuple(n for n in shape if n != 1) or dtype.kind not in "biuf":
        raise ValueError(f"{found.where}: expected shape {shape} of real numbers, got {given} of {dtype}")
    return hdf5_images.read_image(links, found).reshape(shape)


def _read_group(links, group):
    """{field: value} of those that are there."""
    tree, found = hdf5_reading.tree(links, f"entry_1/{group}"), {}
    for key, f in _fields_of(group) if isinstance(tree, dict) else ():
        if tree.get(key) is not None:
            try:
                found[f.name] = f.metadata["loaded"](tree[key]) if f.metadata["loaded"] else tree[key]
            except (TypeError, ValueError, AttributeError):
                raise ValueError(
                    f"{links.path}: entry_1/{group}/{key}: expected {f.metadata['about']}, got "
                    f"{checks.describe(tree[key])}"
                ) from None
    return found
