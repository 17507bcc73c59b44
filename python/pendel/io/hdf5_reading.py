"""Finding values in HDF5 files of any program: numbers with units, text, flags, masks, trees of these.

Whatever is wrong with a file is a ValueError, TypeError or OSError that names file and place.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a

from ..base import memory, plausible
from ..base.constants import ELECTRONVOLT, LIGHT_SPEED, PLANCK
from . import hdf5_arrays, units
from .hdf5_links import FOLDER, Found, Links
from .rocking import OTHER_ENERGIES

LONGEST_TEXT = 1 << 24  # bytes of one text
MOST_TEXTS = 4096  # of one dataset
SHOWN = 80  # characters of a value in a message
MOST_MEMBERS = 10_000  # of groups that are read whole
MOST_DEPTH = 32  # of groups in groups
LARGEST_ATTRIBUTE = 1 << 16  # bytes
SAME = 2e-4  # relative: readings of one motor or monochromator, again and again, differ by less
_BAD_BITS = 0x0FFF  # CXI pixel mask: every bit below 0x1000 ("has signal") marks a fault
_MOST_ENERGY = 1e-10  # 624 MeV in J: no X-ray energy is above it in J or below it in eV
_ELECTRONVOLTS = tuple(e / ELECTRONVOLT for e in (plausible.LOWEST_ENERGY, plausible.HIGHEST_ENERGY))  # without a unit
_FLAGS = {"0": False, "no": False, "false": False, "n": False, "1": True, "yes": True, "true": True, "y": True}


@contextlib.contextmanager
def opened(path: Path | str, external: str = FOLDER) -> Iterator[Links]:
    """A file to read from, with errors that say what is wrong with it and where; ``external`` as in `Links`."""
    path = Path(path)
    links = Links(path, external)
    try:
        yield links
    except Exception as error:  # h5py lets all kinds through, KeyError to SystemError
        if isinstance(error, (ValueError, TypeError, OSError)) and str(error).startswith(str(path)):
            raise
        if memory.left() < memory.SHORT:
            raise MemoryError(f"to read {path}: {memory.size_of(memory.left())} are left") from error
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ValueError(
            f"{path}: {links.place}: expected a CXI/HDF5 file, got one that cannot be read ({what})"
        ) from (error)
    finally:
        links.close()


def find(links: Links, *paths: str) -> Found | None:
    """The first of ``paths`` that is a dataset (a group stands for its ``data``), or None.

    A link that leads nowhere is no reason to look elsewhere: ValueError or OSError.
    """
    for path in paths:
        found = links.find(path)
        if found is not None and isinstance(found.item, h5py.Group):
            found = links.find("data", found.item)
        if found is not None and isinstance(found.item, h5py.Dataset):
            return found
    return None


def members(links: Links, path: str, names: tuple[str, ...] | None = None) -> dict[str, Found | None]:
    """{name: object} of a group, empty where it is not there; of ``names`` alone, where given.

    Other links may lead nowhere: of a beamline's files not all are brought along.
    """
    found = links.find(path)
    if found is None or not isinstance(found.item, h5py.Group):
        return {}
    wanted = [name for name in _names(found) if names is None or name in names]
    return {name: links.find(name, found.item) for name in wanted}


def _names(found):
    if len(found.item) > MOST_MEMBERS:
        raise ValueError(f"{found.where}: expected at most {MOST_MEMBERS} members, got {len(found.item)}")
    return sorted(found.item)


def contents(links: Links) -> str:
    """What the first level of entry_1 (or of the file) holds, for the message about a missing dataset."""
    entry = links.find("entry_1")
    is_entry = entry is not None and isinstance(entry.item, h5py.Group)
    names = _names(entry if is_entry else Found(links.file, links.file, str(links.path)))
    return f"{'entry_1' if is_entry else 'the file'} holds {', '.join(names[:12]) or 'nothing'}"


def array(links: Links, found: Found) -> np.ndarray:
    """All that a dataset of numbers holds; see `pendel.io.hdf5_arrays`."""
    links.place = found.where
    return hdf5_arrays.value(links, found.item, found.where)


def read(links: Links, found: Found) -> Any:
    """Value of a dataset: text, a scalar, a list of texts or an array; None for one without elements."""
    links.place = found.where
    shape, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    if shape == (0,) and found.item.shape is None:
        return None
    if dtype.kind in "OSU":
        return _texts(found, shape, dtype)
    value = array(links, found)
    return value.item() if value.ndim == 0 else value


def _texts(found, shape, dtype):
    """A text, or a list of texts."""
    kind, count = h5py.check_string_dtype(dtype), int(np.prod(shape, dtype=float))
    if kind is None:
        raise ValueError(f"{found.where}: expected numbers or text, got a dataset of dtype {dtype}")
    if count > MOST_TEXTS or (kind.length or 0) * count > LONGEST_TEXT:
        raise ValueError(
            f"{found.where}: expected at most {MOST_TEXTS} texts of {LONGEST_TEXT} bytes in all, got {count} texts"
            + (f" of {kind.length} bytes" if kind.length else "")
        )
    hdf5_arrays.need_filters(found.item, found.where)
    texts, total = [], 0
    for index in np.ndindex(*shape):
        text = found.item[index]
        total += len(text)
        if total > LONGEST_TEXT:
            raise ValueError(f"{found.where}: expected at most {LONGEST_TEXT} bytes of text, got more")
        texts.append(text.decode(errors="replace") if isinstance(text, bytes) else str(text))
    return texts if shape else texts[0]


def text(links: Links, *paths: str) -> str:
    """Text of the first of ``paths`` that is there, "" for none; one of one element stands for itself."""
    found = find(links, *paths)
    value = "" if found is None else read(links, found)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return "" if value is None else str(value)


def attribute(links: Links, item: h5py.Dataset | h5py.Group, name: str, where: str) -> Any:
    """Value of an attribute (text, a number, an array), None where it is not there; of one element it is that."""
    links.place = where
    if not h5a.exists(item.id, name.encode()):
        return None
    size = h5a.open(item.id, name.encode()).get_storage_size()
    if size > LARGEST_ATTRIBUTE:
        raise ValueError(f"{where}: expected the attribute {name} of at most {LARGEST_ATTRIBUTE} bytes, got {size}")
    value = item.attrs[name]
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) and not isinstance(value, str) else value


def tree(links: Links, path: str) -> Any:
    """A group as a dict, a dataset as its value, nothing as an empty dict."""
    found = links.find(path)
    return {} if found is None else _tree(links, found, 0, [0])


def _tree(links, found, depth, seen):
    """`tree`, below ``depth`` groups, after ``seen[0]`` members."""
    if isinstance(found.item, h5py.Dataset):
        return read(links, found)
    seen[0] += len(found.item) if isinstance(found.item, h5py.Group) else 1
    if depth > MOST_DEPTH or seen[0] > MOST_MEMBERS:
        limit = f"{MOST_DEPTH} groups in one another" if depth > MOST_DEPTH else f"{MOST_MEMBERS} members"
        raise ValueError(f"{found.where}: expected at most {limit}, got more")
    if not isinstance(found.item, h5py.Group):
        return {}
    items = {name: links.find(name, found.item) for name in _names(found)}
    return {name: _tree(links, item, depth + 1, seen) for name, item in items.items() if item is not None}


def unit_of(links: Links, found: Found) -> str:
    """The unit that a dataset's attribute, or a text beside it, says; "" for none."""
    for name in ("units", "unit"):
        said = attribute(links, found.item, name, found.where)
        if isinstance(said, str) and said.strip().lower() not in units.NONE:
            return said
    beside = links.find("units", found.group)
    if beside is not None and isinstance(beside.item, h5py.Dataset):
        said = read(links, beside)
        said = said[0] if isinstance(said, list) and len(said) == 1 else said
        if isinstance(said, str) and said.strip().lower() not in units.NONE:
            return said
    return ""


def in_si(links: Links, found: Found, dimension: str, unit: str = "") -> np.ndarray:
    """Numbers of a dataset in SI units, by its unit, which is one of ``dimension``, or ``unit`` where it says none."""
    value = read(links, found)
    value = np.zeros(0) if value is None else value
    if isinstance(value, (str, list)) or np.iscomplexobj(value):
        raise ValueError(f"{found.where}: expected numbers, got {repr(value)[:SHOWN]}")
    said = unit_of(links, found) or unit
    try:
        return np.asarray(value, np.float64) * (units.factor(said, dimension) if said else 1.0)
    except ValueError as error:
        raise ValueError(f"{found.where}: {error}") from None


def quantity(links: Links, *paths: str, dimension: str, unit: str = "") -> float | None:
    """The one value > 0 of the first of ``paths`` in SI units, or None where the file does not say it.

    Zero, NaN and datasets without elements say nothing. A value may be repeated, for every frame, also as it is read
    back: then it is the median. One that changes is a ValueError.
    """
    found = find(links, *paths)
    if found is None:
        return None
    values = in_si(links, found, dimension, unit)
    if not values.size or np.isnan(values).all() or not values.any():
        return None
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and low > 0 and high < np.inf):
        raise ValueError(f"{found.where}: expected a finite number > 0, got {low if not low > 0 else high:g}")
    if high - low > SAME * high:
        of_beam = dimension == units.ENERGY or found.where.endswith("wavelength")
        why = f": {OTHER_ENERGIES}" if of_beam else ""
        raise ValueError(f"{found.where}: expected one value, got {values.size} from {low:g} to {high:g}{why}")
    return float(np.median(values))


def pixel(links: Links, *paths: str) -> list[float] | None:
    """[row, col] of the datasets at two paths, or None where the file does not say it.

    Detectors write (0, 0) as long as nobody has told them.
    """
    found = [item for item in (find(links, path) for path in paths) if item is not None]
    if len(found) < len(paths):
        return None
    values = [array(links, item).ravel()[:1] for item in found]
    indices = [float(index) for value in values for index in value]
    return indices if len(indices) == 2 and np.isfinite(indices).all() and any(indices) else None


def energy(links: Links, *places: str) -> float | None:
    """Photon energy in J below one of ``places``: from an energy, in J or (other programs, no unit) eV, or from a
    wavelength.
    """
    names = ("source_1/energy", "beam_1/incident_energy", "source/energy", "beam/incident_energy")
    names += tuple(f"instrument_1/{name}" for name in names)
    paths = [f"{place}/{name}" for place in places for name in names]
    value = quantity(links, *paths, dimension=units.ENERGY)
    if value is not None:
        found = find(links, *paths)
        assert found is not None  # it has that value
        return value if unit_of(links, found) else _by_size(value, found.where)
    names = ("source_1/wavelength", "beam_1/incident_wavelength", "beam/incident_wavelength")
    names += tuple(f"instrument_1/{name}" for name in names)
    paths = (f"{place}/{name}" for place in places for name in names)
    wavelength = quantity(links, *paths, dimension=units.LENGTH)
    return None if wavelength is None else PLANCK * LIGHT_SPEED / wavelength


def _by_size(value, where):
    """An energy without a unit in J."""
    if value < _MOST_ENERGY:
        return value
    if not _ELECTRONVOLTS[0] <= value <= _ELECTRONVOLTS[1]:
        hint = "; is it in keV?" if value < _ELECTRONVOLTS[0] else ""
        raise ValueError(f"{where}: expected an energy in J or eV, or its unit, got {value:g} without a unit{hint}")
    return value * ELECTRONVOLT


def flag(links: Links, group: h5py.Group, name: str, where: str, *others: h5py.Dataset) -> bool:
    """A flag of a group, a dataset or an attribute of it or of ``others``; False where nobody says it."""
    beside = links.find(name, group)
    values = [attribute(links, item, name, where) for item in (group, *others)]
    if beside is not None and isinstance(beside.item, h5py.Dataset):
        values.append(read(links, beside))
    said = False
    for value in values:
        if value is None:
            continue
        if isinstance(value, (list, np.ndarray)):  # of a list of long texts NumPy would make a large array
            count = value.size if isinstance(value, np.ndarray) else len(value)
            if count != 1:
                raise ValueError(f"{where}: expected {name} = 0 or 1, got {count} values")
            value = np.ravel(value)[0] if isinstance(value, np.ndarray) else value[0]
        word = str(int(value)) if isinstance(value, (bool, np.bool_)) or value in (0, 1) else str(value).strip().lower()
        if word not in _FLAGS:
            raise ValueError(f"{where}: expected {name} = 0 or 1, got {repr(value)[:SHOWN]}")
        said = said or _FLAGS[word]
    return said


def word(links: Links, group: h5py.Group, name: str) -> str:
    """A text beside a dataset, in lower case, "" for none."""
    found = links.find(name, group)
    if found is None or not isinstance(found.item, h5py.Dataset):
        return ""
    value = read(links, found)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value.strip().lower() if isinstance(value, str) else ""


def without_axes_of_length_one(value: np.ndarray, dimensions: int) -> np.ndarray:
    """``value`` with axes of length one dropped, the first ones first, until ``dimensions`` are left."""
    while value.ndim > dimensions and 1 in value.shape:
        value = np.squeeze(value, value.shape.index(1))
    return value


def good_pixels(links: Links, found: Found, shape: tuple[int, int, int], cxi: bool = True) -> np.ndarray:
    """bool array, True = good, of a mask in which 0 is good, with ``cxi`` 0x1000 too; of one frame (row, col) where all
    have the same mask. Axes of length one are broadcast.
    """
    bits = array(links, found)
    given = bits.shape
    bits = without_axes_of_length_one(bits, 3)
    if not _broadcasts(bits, shape):
        bits = without_axes_of_length_one(bits, 2)
    bits = bits[None] if bits.ndim == 2 else bits
    if not _broadcasts(bits, shape):
        raise ValueError(f"{found.where}: expected shape {shape} or {shape[1:]}, got {given}")
    if bits.dtype.kind in "iu" and cxi:
        good = (bits.astype(np.int64) & _BAD_BITS) == 0
    else:
        good = bits == 0
    if (good == good[:1]).all():
        return np.broadcast_to(good[0], shape[1:]).copy()
    return np.broadcast_to(good, shape).copy()


def _broadcasts(bits, shape):
    return bits.ndim == 3 and all(n in (1, m) for n, m in zip(bits.shape, shape, strict=True))
