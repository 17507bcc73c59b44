"""What HDF5 datasets hold, and which of it is in the file at all: HDF5 hands out fill values for the rest.

Virtual datasets are put together here, source by source: HDF5 passes over sources that are gone, opens any file, and
does not come back from a dataset that is mapped onto itself.
"""

import contextlib
import importlib
import math
import os

import h5py
import numpy as np
from h5py import h5d, h5s, h5z

from ..base import reading
from .hdf5_links import Links

MOST_CHUNKS = 100_000  # of a dataset that has less than a tenth of them
MOST_BLOCKS = 1_000_000  # of all mappings of a virtual dataset
# Numbers of filters that other programs pack with (registry of the HDF Group).
FILTERS = {307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp"}
FILTERS |= {32014: "fpzip", 32015: "zstd", 32017: "sz", 32018: "fcidecomp", 32019: "jpeg", 32024: "sz3"}
FILTERS |= {32026: "blosc2", 32028: "sperr", 4: "szip"}


def value(links: Links, dataset: h5py.Dataset, where: str) -> np.ndarray:
    """All that a dataset of numbers holds; ValueError where not all of it is in the file."""
    array, there = partly(links, dataset, where)
    if there is not None:
        raise ValueError(f"{where}: expected a dataset that was written, got {_count(~there)} that never were")
    return array


def partly(links: Links, dataset: h5py.Dataset, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(what a dataset of numbers holds, bool of its shape: True where that is in the file); None: all is.

    Raises
    ------
    ValueError, OSError : beginning with ``where``, for files that are gone, filters that are not here, data outside of
        the HDF5 files, sizes that no memory holds, damage, and where nothing was ever written.
    """
    array, there = _Reading(links).read(dataset, where, ())
    if there is not None and not there.any():
        raise ValueError(f"{where}: expected a dataset that was written, got one without any data in the file")
    return array, there


def shape_and_type(dataset: h5py.Dataset, where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a dataset without its data; one without elements has shape (0,)."""
    _refuse_outside(dataset, where)
    try:
        dtype, shape = dataset.dtype, dataset.shape
    except (TypeError, ValueError, RuntimeError, OSError, KeyError) as error:
        raise ValueError(f"{where}: expected numbers or text, got a dataset of a kind unknown here ({error})") from None
    return (0,) if shape is None else shape, dtype


def _count(missing):
    """How many elements, and which frames, are meant."""
    text = f"{int(missing.sum())} of {missing.size} elements"
    if missing.ndim < 2:
        return text
    frames = np.flatnonzero(missing.reshape(len(missing), -1).any(1))
    return f"{text} (frames {frames[0]} to {frames[-1]})"


def _refuse_outside(dataset, where):
    """ValueError for data outside of HDF5 files, and for virtual datasets whose shape is that of files not looked at
    yet.
    """
    plist = dataset.id.get_create_plist()
    if plist.get_external_count():
        name = os.fsdecode(plist.get_external(0)[0])
        raise ValueError(f"{where}: expected data inside of the HDF5 file, got external storage in {name!r}")
    if plist.get_layout() != h5d.VIRTUAL:
        return
    for i in range(plist.get_virtual_count()):
        name = plist.get_virtual_filename(i) + plist.get_virtual_dsetname(i)
        if "%" in name.replace("%%", "") or _is_unlimited(plist.get_virtual_vspace(i)):
            raise ValueError(f"{where}: expected a virtual dataset of a fixed size, got one that grows with {name!r}")


def _is_unlimited(space):
    if space.get_select_type() != h5s.SEL_HYPERSLABS:
        return False
    if not space.is_regular_hyperslab():
        return False
    _, _, counts, blocks = space.get_regular_hyperslab()
    return h5s.UNLIMITED in (*counts, *blocks)


def need_filters(dataset: h5py.Dataset, where: str) -> None:
    """ValueError naming a filter that unpacks the dataset and is not here; hdf5plugin is used where it is installed."""
    plist = dataset.id.get_create_plist()
    needed = {}
    for i in range(plist.get_nfilters()):
        number, _, _, name = plist.get_filter(i)
        needed[number] = FILTERS.get(number) or name.decode(errors="replace")
    if all(map(h5z.filter_avail, needed)):
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # it registers its filters
    for number, name in needed.items():
        if not h5z.filter_avail(number):
            raise ValueError(
                f"{where}: expected a dataset that can be unpacked here, got one packed with {name or 'a filter'} "
                f"(HDF5 filter {number}), which is not installed; pip install hdf5plugin"
            )


def _refuse_declared_chunks(dataset, where):
    """ValueError for very many chunks that are hardly there: HDF5 takes a kilobyte for each of them, written or not."""
    if not dataset.chunks:
        return
    declared = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    if declared <= MOST_CHUNKS:
        return
    try:
        written = dataset.id.get_num_chunks()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{where}: expected a CXI/HDF5 file, got a truncated or damaged one ({error})") from None
    if declared > 10 * written:
        raise ValueError(
            f"{where}: expected a dataset that was written, got one of {declared} chunks, {written} of them in the file"
        )


class _Reading:
    """One dataset and all that it is made of."""

    def __init__(self, links: Links):
        self._links = links
        self._blocks = 0
        self._latest = None, None  # the last source of a virtual dataset: frames are often mapped one by one

    def read(self, dataset, where, inside):
        """As `partly`, of a dataset inside of the virtual datasets ``inside``."""
        shape, dtype = shape_and_type(dataset, where)
        if dtype.kind not in "biufc":
            raise ValueError(f"{where}: expected numbers, got a dataset of dtype {dtype}")
        if dataset.id.get_create_plist().get_layout() == h5d.VIRTUAL:
            return self._virtual(dataset, where, inside)
        needed = math.prod(shape) * dtype.itemsize
        stored = dataset.id.get_storage_size()
        reading.check_memory(where, needed, stored)
        if dataset.chunks and stored:
            reading.check_memory(where, math.prod(dataset.chunks) * dtype.itemsize, stored)
        need_filters(dataset, where)
        _refuse_declared_chunks(dataset, where)
        try:
            there = _written(dataset)
            return np.asarray(dataset[()]), there
        except MemoryError:
            raise ValueError(f"{where}: expected an array that fits into memory, got one of {needed} bytes") from None
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"{where}: expected a CXI/HDF5 file, got a truncated or damaged one: {dataset.name} cannot be read "
                f"({error})"
            ) from None

    def _virtual(self, dataset, where, inside):
        """As `read`, of a virtual dataset."""
        key = dataset.file.id.id, h5py.h5o.get_info(dataset.id).addr
        if key in inside or len(inside) >= 8:
            what = "onto itself" if key in inside else "over more than eight datasets"
            raise ValueError(f"{where}: expected a virtual dataset of other datasets, got one that is mapped {what}")
        plist = dataset.id.get_create_plist()
        shape, dtype = dataset.shape, dataset.dtype
        needed = math.prod(shape) * (dtype.itemsize + 1)
        reading.check_memory(where, needed, sum(self._sizes(dataset, plist, where)))
        array, there = np.zeros(shape, dtype), np.zeros(shape, bool)
        for i in range(plist.get_virtual_count()):
            target = self._blocks_of(plist.get_virtual_vspace(i), shape, where)
            of = f"{where}: expected the virtual dataset's source {plist.get_virtual_dsetname(i)}"
            of += f" in {plist.get_virtual_filename(i)}"
            source = self._source(dataset, plist, i, of)
            taken, there_in_source = self._once(source, of, (*inside, key))
            chosen = self._blocks_of(plist.get_virtual_srcspace(i), taken.shape, of)
            _put(array, target, _take(taken, chosen), of)
            if there_in_source is None:
                there_in_source = np.broadcast_to(True, taken.shape)
            _put(there, target, _take(there_in_source, chosen), of)
        return array, None if there.all() else there

    def _sizes(self, dataset, plist, where):
        """Sizes in bytes of the files of all sources, each once."""
        names = {plist.get_virtual_filename(i) for i in range(plist.get_virtual_count())}
        for name in names:
            of = f"{where}: expected the virtual dataset's source {name}"
            file = dataset.file if name == "." else self._links.other_file(name, dataset.file, of)
            yield os.path.getsize(os.fsdecode(file.filename))

    def _source(self, dataset, plist, i, where):
        """The source dataset of mapping ``i``."""
        name = plist.get_virtual_filename(i)
        file = dataset.file if name == "." else self._links.other_file(name, dataset.file, where)
        found = self._links.find(plist.get_virtual_dsetname(i), file["/"])
        if found is None or not isinstance(found.item, h5py.Dataset):
            raise ValueError(f"{where}, got no such dataset")
        return found.item

    def _once(self, source, where, inside):
        """`read`, or what it gave for the same source just before."""
        key = source.file.id.id, h5py.h5o.get_info(source.id).addr
        if self._latest[0] != key:
            self._latest = key, self.read(source, where, inside)
        return self._latest[1]

    def _blocks_of(self, space, shape, where):
        """The selected blocks of an array, each a tuple of slices."""
        kind = space.get_select_type()
        if kind == h5s.SEL_NONE:
            return []
        if kind == h5s.SEL_ALL:
            corners = [([0] * len(shape), np.array(shape) - 1)]  # of a source, whatever size it has now
        elif kind == h5s.SEL_HYPERSLABS:
            self._blocks += space.get_select_hyper_nblocks()
            if self._blocks > MOST_BLOCKS:
                raise ValueError(f"{where}: expected at most {MOST_BLOCKS} mapped blocks, got more")
            corners = space.get_select_hyper_blocklist()
        else:
            raise ValueError(f"{where}: expected mapped blocks, got single points")
        for _, high in corners:
            if len(high) != len(shape) or (np.asarray(high) >= shape).any():
                raise ValueError(
                    f"{where}: expected elements up to {tuple(map(int, high))}, got an array of shape {shape}; were "
                    "all frames written?"
                )
        return [tuple(slice(int(a), int(b) + 1) for a, b in zip(*corner, strict=True)) for corner in corners]


def _elements(shape, blocks):
    """Flat indices of the elements of blocks, in the order of HDF5, which is that of the array."""
    chosen = np.zeros(shape, bool)
    for block in blocks:
        chosen[block] = True
    return np.flatnonzero(chosen)


def _take(array, blocks):
    """The elements of blocks, one after the other."""
    return array[blocks[0]].ravel() if len(blocks) == 1 else array.ravel()[_elements(array.shape, blocks)]


def _put(array, blocks, values, where):
    """Set the elements of blocks to ``values``."""
    count = sum(math.prod(s.stop - s.start for s in block) for block in blocks)
    if count != values.size:
        raise ValueError(f"{where}, with {count} elements to be mapped, got {values.size}; were all frames written?")
    if len(blocks) == 1:
        array[blocks[0]] = values.reshape(array[blocks[0]].shape)
    else:
        array.flat[_elements(array.shape, blocks)] = values


def _written(dataset):
    """bool of the shape of a dataset, True where it is in the file; None: everywhere."""
    layout = dataset.id.get_create_plist().get_layout()
    shape = dataset.shape
    if layout == h5d.COMPACT or not math.prod(shape or (0,)):
        return None
    if layout == h5d.CONTIGUOUS:
        return None if dataset.id.get_offset() is not None else np.zeros(shape, bool)
    chunks = dataset.chunks
    grid = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    if dataset.id.get_num_chunks() == math.prod(grid):
        return None
    there = np.zeros(grid, bool)

    def note(info):
        there[tuple(o // c for o, c in zip(info.chunk_offset, chunks, strict=True))] = True

    dataset.id.chunk_iter(note)
    for axis, (count, chunk) in enumerate(zip(shape, chunks, strict=True)):
        there = there.repeat(chunk, axis).take(range(count), axis)
    return there
