"""Reading arrays from .npy and .npz files. Nothing in them is executed (no pickles), and what a header declares is
compared with what the file holds before memory is taken.
"""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..base.reading import check_memory, plain_file

_KINDS = {".npy": "an npy file", ".npz": "an npz archive"}
MOST_HEADER = 10_000  # characters, as `numpy.load` has it
MOST_DIRECTORY = 1 << 20  # bytes, of an archive: some ten thousand arrays
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as NumPy writes them


class Archive:
    """The arrays of an .npz file, or the one of an .npy file under the name "": `keys`, and each by its name.

    Use `open_arrays` to open one.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile | None):
        self._path, self._archive = path, archive
        self._entries = {} if archive is None else {_key(entry): entry for entry in archive.infolist()}

    def keys(self) -> list[str]:
        """Names of the arrays."""
        return [""] if self._archive is None else list(self._entries)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape that the header of an array declares."""
        with self._opened(key) as (file, _, _):
            return self._header(file, key)[0]

    def read(self, key: str) -> np.ndarray:
        """An array, in its own memory. ValueError naming file and array where it is damaged or no plain array."""
        with self._opened(key) as (file, length, stored):
            shape, fortran, dtype = self._header(file, key)
            declared = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
            if declared > length - file.tell():
                raise self._damaged(key, f"{declared} bytes declared, {length - file.tell()} there")
            check_memory(self._place(key), declared, stored)
            data = np.empty(declared, np.uint8)
            self._fill(file, data, key)
            return data.view(dtype).reshape(shape, order="F" if fortran else "C")

    def _fill(self, file, data, key):
        """Read ``data`` in pieces: a packed file gives few bytes at a time."""
        view, done = memoryview(data), 0
        while done < len(view):
            piece = file.read(min(1 << 20, len(view) - done))
            if not piece:
                raise self._damaged(key, f"{len(view)} bytes declared, {done} there")
            view[done : done + len(piece)] = piece
            done += len(piece)
        # Reading on to the end lets the archive compare its checksum.
        if self._archive is not None and file.read(1):
            raise self._damaged(key, "more bytes than its header declares")

    @contextlib.contextmanager
    def _opened(self, key):
        """The array's file, its length and the bytes that it takes in the file."""
        try:
            if self._archive is None:
                size = self._path.stat().st_size
                with self._path.open("rb") as file:
                    yield file, size, size
            else:
                entry = self._entries[key]
                if entry.compress_type not in _PACKINGS:
                    raise self._damaged(key, f"packing {entry.compress_type}")
                with self._archive.open(entry) as file:
                    yield file, entry.file_size, entry.compress_size
        except (ValueError, KeyError) as error:
            if not str(error).startswith(str(self._path)):
                raise self._damaged(key, error) from None
            raise
        except Exception as error:  # of zipfile and the packings: BadZipFile, zlib and lzma errors, RuntimeError
            raise self._damaged(key, error) from None

    def _header(self, file: BinaryIO, key):
        """(shape, Fortran order, dtype) of an array."""
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise self._damaged(key, f"version {version[0]}.{version[1]} of its format")
        shape, fortran, dtype = readers[version](file, max_header_size=MOST_HEADER)
        if dtype.hasobject or dtype.kind not in "biufcSU" or min(shape, default=0) < 0:
            got = "Python objects, which are not loaded" if dtype.hasobject else f"dtype {dtype}"
            raise ValueError(f"{self._place(key)}: expected an array of numbers or text, got {got}")
        return shape, fortran, dtype

    def _place(self, key):
        return f"{self._path}: {key}" if key else str(self._path)

    def _damaged(self, key, error):
        what = "an npz archive" if self._archive is not None else "an npy file"
        return ValueError(f"{self._place(key)}: expected {what}, got a truncated or damaged file ({error})")


@contextlib.contextmanager
def open_arrays(path: Path | str, expected: str | None = None) -> Iterator[Archive]:
    """Open an .npy or .npz file as an `Archive`; which of them it is its first bytes say.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError : naming the path.
    ValueError : naming the path, for files of another kind, damaged ones, pipes and devices.
    """
    expected = expected or _KINDS.get(Path(path).suffix.lower(), "an npy or npz file")
    path = plain_file(path, expected)
    with path.open("rb") as file:
        begin = file.read(6)
    if begin == np.lib.format.MAGIC_PREFIX:
        yield Archive(path, None)
        return
    if not begin.startswith(b"PK"):
        got = f"one that begins {begin!r}" if begin else "an empty file"
        raise ValueError(f"{path}: expected {expected}, got a truncated or damaged file: {got}")
    _check_directory(path, expected)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # BadZipFile, and what a damaged directory of one raises
        raise ValueError(f"{path}: expected {expected}, got a truncated or damaged file ({error})") from None
    with archive:
        yield Archive(path, archive)


def read_array(path: Path | str, *keys: str, only: bool = True, expected: str | None = None) -> np.ndarray:
    """The array of an .npy file, or the first of ``keys`` that an .npz file has; ``only``: or its only one.

    Raises as `open_arrays` does, ValueError also where none of the names is there.
    """
    with open_arrays(path, expected) as archive:
        there = archive.keys()
        alone = there[0] if len(there) == 1 and (only or not there[0]) else None
        key = next((key for key in keys if key in there), alone)
        if key is None:
            named = " or ".join(map(repr, keys))
            raise ValueError(f"{path}: expected the array {named}, got {', '.join(there[:12])[:200] or 'none'}")
        return archive.read(key)


def _check_directory(path, expected):
    """ValueError where the archive's list of files alone is larger than `MOST_DIRECTORY`."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16) - 22))
        _, found, end = file.read().rpartition(b"PK\x05\x06")
    size = int.from_bytes(end[8:12], "little") if found else 0
    if size > MOST_DIRECTORY:
        raise ValueError(f"{path}: expected {expected}, got an archive whose list of files takes {size} bytes")


def _key(entry):
    """Name of an array by its file in the archive."""
    return entry.filename.removesuffix(".npy")
