"""CXI/HDF5 building blocks: atomic writing, groups and units, and finding values in files of other programs."""

import contextlib
import time
from pathlib import Path

import h5py
import numpy as np

from ..base import checks, files, plausible
from ..base.constants import ELECTRONVOLT, KEV, LIGHT_SPEED, PLANCK
from ..base.version import __version__
from .kinds import OTHER, refuse_to_replace

PACKED = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_BAD_BITS = 0x0FFF  # CXI pixel mask: every bit below 0x1000 ("has signal") marks a fault
_DEGREE = np.pi / 180
_UNITS = {"": 1.0}  # lower case: in SI units
_UNITS |= {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10}
_UNITS |= {"j": 1.0, "ev": ELECTRONVOLT, "kev": KEV}
_UNITS |= {"rad": 1.0, "radian": 1.0, "radians": 1.0, "deg": _DEGREE, "degree": _DEGREE, "degrees": _DEGREE}
_MOST_ENERGY = 1e-10  # 624 MeV in J: no X-ray energy is above it in J or below it in eV


@contextlib.contextmanager
def replacing(path, *kinds, force=False):
    """Give an open h5py file that takes the place of ``path`` if the block ends without an error, else vanishes.

    It is made in memory: HDF5 ends the process where it cannot close a file, as on a full disk.

    kinds : of `pendel.io.kinds`, that it may take the place of, beside files that are neither pendel's nor HDF5.
    force : it may take that of any file.
    """
    path = Path(path)
    files.refuse_unwritable(path)
    if not force:
        refuse_to_replace(path, *kinds, OTHER)
    with h5py.File(path.name, "w", driver="core", backing_store=False, block_size=1 << 20) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    files.write_whole(path, content)


def new_group(parent, name, nx_class):
    """A group of a NeXus class, made where it is not there."""
    group = parent.require_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def put(group, name, value, units=None, what=""):
    """Write one value; dicts become groups and None is left out."""
    if value is None:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            put(group.require_group(name), str(key), item, what=f"{what}{name}.")
        return
    array = None if isinstance(value, str) else np.asarray(value)
    if array is not None and array.dtype.kind == "U":
        value = array.astype(h5py.string_dtype())
    elif array is not None and array.dtype.kind not in "biufc":
        raise TypeError(f"{what}{name}: expected numbers, text or a dict of these, got {checks.describe(value)}")
    packed = PACKED if array is not None and array.size > 64 else {}
    group.create_dataset(name, data=value, **packed)
    if units:
        group[name].attrs["units"] = units


def put_head(file, version, name):
    """Write the head of a CXI file and return its entry."""
    file["cxi_version"] = version
    file.attrs.update(default="entry_1", creator="pendel", NX_class="NXroot", file_time=now())
    entry = new_group(file, "entry_1", "NXentry")
    entry.attrs["default"] = "data_1"
    entry["program_name"], entry["start_time"] = f"pendel {__version__}", now()
    if name:
        entry["title"] = name
        put(new_group(entry, "sample_1", "NXsample"), "name", name)
    return entry


def now():
    """The time in ISO 8601, with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def checked_pixel_size(pixel_size):
    """(row, column) in m of one number or two."""
    pixel_size = (pixel_size,) * 2 if np.ndim(pixel_size) == 0 else pixel_size
    return plausible.lengths(plausible.PIXEL, "pixel_size", pixel_size, 2)


def put_instrument(parent, energy, distance, pixel_size):
    """Write instrument_1 with source, beam and detector; returns the detector group."""
    instrument = new_group(parent, "instrument_1", "NXinstrument")
    detector = new_group(instrument, "detector_1", "NXdetector")
    if energy is not None:
        put(new_group(instrument, "source_1", "NXsource"), "energy", energy, "J")
        beam = new_group(instrument, "beam_1", "NXbeam")
        put(beam, "incident_energy", energy, "J")
        put(beam, "incident_wavelength", PLANCK * LIGHT_SPEED / energy, "m")
    put(detector, "distance", distance, "m")
    if pixel_size is not None:
        put(detector, "y_pixel_size", pixel_size[0], "m")
        put(detector, "x_pixel_size", pixel_size[1], "m")
    return detector


def put_process(parent, configuration):
    """Write process_1: the program, its version and a dict of what it was told."""
    process = new_group(parent, "process_1", "NXprocess")
    process["program"], process["version"] = "pendel", __version__
    group = new_group(process, "configuration", "NXcollection")
    for key, value in configuration.items():
        put(group, key, value)


def put_image(entry, number, data, voxel, title, data_type, units=None):
    """Write image_``number``: a map of a crystal with its title, size and centre."""
    image = new_group(entry, f"image_{number}", "NXdata")
    image.attrs.update(signal="data", interpretation="image")
    image.create_dataset("data", data=data, **PACKED)
    if units:
        image["data"].attrs["units"] = units
    image["title"], image["data_space"], image["dimensionality"], image["is_fft_shifted"] = title, "real", 3, 0
    if data_type:
        image["data_type"] = data_type
    put(image, "image_size", np.array(voxel) * data.shape, "m")
    put(image, "image_center", np.array(data.shape) // 2)


@contextlib.contextmanager
def opened(path):
    """Open ``path`` for reading, with errors that say what the file is instead of a readable HDF5 file."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a CXI/HDF5 file, got no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a CXI/HDF5 file, got a folder")
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            begin = file.read(16)
        raise ValueError(
            f"{path}: expected a CXI/HDF5 file, got " + (f"one that begins {begin!r}" if begin else "an empty file")
        )
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: expected a CXI/HDF5 file, got a truncated or damaged one ({error})") from None
    with file:
        yield file


def damaged(file, what, error):
    """The error for a dataset that is there and cannot be read."""
    return ValueError(
        f"{file.filename}: expected a CXI/HDF5 file, got a truncated or damaged one: {what} cannot be read ({error})"
    )


def find(file, *paths):
    """The first of ``paths`` that is a dataset (a group stands for its ``data``), or None."""
    for path in paths:
        try:
            item = file.get(path)
        except (OSError, RuntimeError) as error:
            raise damaged(file, path, error) from None
        if isinstance(item, h5py.Group):
            item = item.get("data")
        if isinstance(item, h5py.Dataset):
            return item
    return None


def contents(file):
    """What the first level of entry_1 (or of the file) holds, for the message about a missing dataset."""
    entry = file.get("entry_1")
    names = sorted(entry if isinstance(entry, h5py.Group) else file)
    return f"{'entry_1' if isinstance(entry, h5py.Group) else 'the file'} holds {', '.join(names[:12]) or 'nothing'}"


def read(item):
    """Value of a dataset: text, a scalar, a list of texts or an array."""
    try:
        value = item[()]
    except (OSError, RuntimeError) as error:
        raise damaged(item.file, item.name, error) from None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in value.ravel()]
    return value.item() if isinstance(value, np.generic) else value


def read_tree(item):
    """A group as a dict, a dataset as its value, nothing as an empty dict."""
    if item is None:
        return {}
    return {k: read_tree(v) for k, v in item.items() if v is not None} if isinstance(item, h5py.Group) else read(item)


def quantity(file, *paths, unit=""):
    """Value of the first of ``paths`` in SI units, by its units attribute (``unit`` where there is none), or None."""
    item = find(file, *paths)
    if item is None:
        return None
    value = read(item)
    units = item.attrs.get("units", unit)
    units = units.decode() if isinstance(units, bytes) else str(units)
    if units.lower() not in _UNITS:
        raise ValueError(f"{file.filename}: {item.name}: expected a known unit, got {units!r}")
    if isinstance(value, (str, list)):
        raise ValueError(f"{file.filename}: {item.name}: expected a number, got {value!r}")
    value = np.asarray(value, float) * _UNITS[units.lower()]
    if value.size == 0:
        return None
    return value if value.size > 1 else float(value.ravel()[0])


def energy(file, *places):
    """Photon energy in J below one of ``places``: from an energy, in J or (other programs, no unit) eV, or from a
    wavelength.
    """
    names = (
        "source_1/energy",
        "beam_1/incident_energy",
        "instrument_1/source_1/energy",
        "instrument_1/beam_1/incident_energy",
    )
    value = quantity(file, *(f"{place}/{name}" for place in places for name in names))
    if value is not None:
        return value if value < _MOST_ENERGY else value * ELECTRONVOLT
    names = ("source_1/wavelength", "beam_1/incident_wavelength")
    names += tuple(f"instrument_1/{name}" for name in names)
    wavelength = quantity(file, *(f"{place}/{name}" for place in places for name in names))
    return None if wavelength is None else PLANCK * LIGHT_SPEED / wavelength


def good_pixels(item, shape):
    """bool array, True = good, from a CXI mask (0 or only 0x1000: good); (row, col) where all frames have the same
    mask.
    """
    bits = np.asarray(read(item))
    bits = bits[0] if bits.ndim == 4 and len(bits) == 1 else bits
    if bits.shape not in (shape, shape[1:]):
        raise ValueError(f"{item.file.filename}: {item.name}: expected shape {shape} or {shape[1:]}, got {bits.shape}")
    good = bits == 0 if bits.dtype.kind in "bf" else (bits.astype(np.int64) & _BAD_BITS) == 0
    return good[0].copy() if good.ndim == 3 and (good == good[:1]).all() else good
