"""Reading detector frames from tif files: classic and BigTIFF, of one page or many, in strips or tiles, packed or not.

The directories of a file are walked here before the package tifffile decodes a page: they may lie, lead in circles, or
declare more than the file holds.
"""

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..base.reading import check_memory, plain_file

EXPECTED = "a tif file"
MOST_PAGES = 10**5
MOST_TAGS = 1000  # of a page
# Bytes of a value by its type in the file.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = (1, 3, 4, 13, 16, 18)
_SUBFILE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _ORIENTATION, _SAMPLES, _FORMAT = 270, 274, 277, 339
_STRIP_ROWS, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
_PIECES, _LENGTHS = (273, 324), (279, 325)  # where strips and tiles lie, and their bytes
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # sample format: NumPy's kind


@dataclass
class _Page:
    """What the directory of a page says. ``values``: {tag: integers}; ``text``: its description."""

    path: Path
    number: int
    values: dict = field(default_factory=dict)
    text: str = ""

    def get(self, tag, default=None):
        return int(self.values[tag][0]) if len(self.values.get(tag, ())) else default

    @property
    def place(self):
        return f"{self.path}: page {self.number}"

    def damaged(self, what):
        """The error for a page that is not wholly there."""
        return _damaged(self.path, f"page {self.number}: {what}")

    @property
    def reduced(self):
        return bool(self.get(_SUBFILE, 0) & 1)

    @property
    def shape(self):
        return self.get(_LENGTH, 0), self.get(_WIDTH, 0)

    @property
    def dtype(self):
        return np.dtype(f"{_KINDS[self.get(_FORMAT, 1)]}{self.get(_BITS, 1) // 8}")

    def check_pieces(self, size):
        """ValueError unless every strip or tile is there: others would be read as zeros. Their tables are let go."""
        offsets, lengths = (
            next((self.values[t] for t in tags if t in self.values), ()) for tags in (_PIECES, _LENGTHS)
        )
        rows, columns = self.shape
        tile = self.get(_TILE_LENGTH), self.get(_TILE_WIDTH)
        high, wide = tile if None not in tile else (min(self.get(_STRIP_ROWS, rows), rows), columns)
        pieces = -(-rows // max(high, 1)) * -(-columns // max(wide, 1))
        most = 2 * high * wide * self.get(_BITS, 1) * self.get(_SAMPLES, 1) // 8 + 1024  # what packs badly

        damaged = len(offsets) != len(lengths) or len(offsets) < pieces or not len(offsets)
        if not damaged:
            beyond = (offsets > size) | (lengths > most) | (offsets + lengths > size)
            damaged = beyond.any() or (lengths == 0).any()
        if damaged:
            raise self.damaged(f"not all of {pieces} strips or tiles are within it")
        if self.get(_COMPRESSION, 1) == 1 and int(lengths.sum()) * 8 < rows * columns * self.get(_BITS, 1):
            raise self.damaged(f"{int(lengths.sum())} bytes for a frame of shape {self.shape}")
        for tag in (*_PIECES, *_LENGTHS):
            self.values.pop(tag, None)


def read_tif(path: Path | str) -> np.ndarray:
    """The frames of a tif file, (frame, row, col), in the type that they are stored in.

    Pages that are marked as reduced images (thumbnails) are passed over. A linear calibration of ImageJ, its way of
    storing signed numbers, is applied.

    Raises
    ------
    FileNotFoundError, ImportError : without the file; without the package tifffile, or imagecodecs for a packed one.
    ValueError : naming the file and page, for damaged ones, those that do not hold counts, and those that declare more
        than they hold.
    """
    path = plain_file(path, EXPECTED)
    tifffile = _load_tifffile(path)
    pages = _walk(path)
    frames = [i for i, page in enumerate(pages) if not page.reduced]
    if not frames:
        raise ValueError(f"{path}: expected frames, got reduced images only")
    first = pages[frames[0]]
    for i in frames:
        _check_page(pages[i], first)
    needed = len(frames) * int(np.prod(first.shape)) * first.dtype.itemsize
    check_memory(str(path), needed, path.stat().st_size)

    _check_images(pages)
    data = np.empty((len(frames), *first.shape), first.dtype)
    try:
        with tifffile.TiffFile(path) as file:
            for frame, i in zip(data, frames, strict=True):
                page = file.pages[i].asarray()
                if page.shape != frame.shape or page.dtype != frame.dtype:
                    raise ValueError(f"page {i} of shape {page.shape} and {page.dtype}")
                frame[...] = page
    except Exception as error:  # TiffFileError, struct and zlib errors, those of a missing codec
        if "imagecodecs" in str(error):
            raise ImportError(
                f"{path}: expected the package imagecodecs to unpack it; pip install imagecodecs"
            ) from None
        raise _damaged(path, error) from None
    return _calibrated(first, data)


def _damaged(path, what):
    """The error for a file that is not wholly there."""
    return ValueError(f"{path}: expected a tif file, got a truncated or damaged one: {what}")


def _load_tifffile(path):
    try:
        import tifffile
    except ImportError:
        raise ImportError(f"{path}: expected the package tifffile to read it, got none; pip install tifffile") from None
    return tifffile


def _walk(path):
    """Every `_Page` of a file."""
    with path.open("rb") as file:
        directories, offset = _open_directories(path, file)
        pages, seen = [], set()
        while offset:
            if offset in seen or len(pages) >= MOST_PAGES:
                what = "one that leads in a circle" if offset in seen else f"more than {MOST_PAGES}"
                raise ValueError(f"{path}: expected a list of pages, got {what}")
            seen.add(offset)
            page = _Page(path, len(pages))
            offset = directories.read(offset, page)
            pages.append(page)
    if not pages:
        raise _damaged(path, "no page")
    return pages


def _open_directories(path, file):
    """A `_Directories` of a file, and where its first directory lies."""
    begin = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(begin[:2])
    version = struct.unpack(order + "H", begin[2:4])[0] if order and len(begin) >= 8 else None
    if version not in (42, 43) or (version == 43 and len(begin) < 16):
        got = f"one that begins {begin[:8]!r}" if begin else "an empty file"
        raise _damaged(path, got)
    big = version == 43
    offset = struct.unpack(order + ("Q" if big else "I"), begin[8:16] if big else begin[4:8])[0]
    size = path.stat().st_size
    return _Directories(file, order, big, size, left=4 * size), offset


@dataclass
class _Directories:
    """Reads the directories of pages. ``left``: bytes of tables that may still be read: pages may share them."""

    file: BinaryIO
    order: str
    big: bool
    size: int
    left: int

    def read(self, offset, page):
        """Take the tags at ``offset`` into ``page``; the offset of the next directory."""
        count_code, entry, offset_code = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        count = self._unpack(page, offset, count_code)[0]
        if count > MOST_TAGS:
            raise ValueError(f"{page.place}: expected at most {MOST_TAGS} tags, got {count}")
        begin = offset + struct.calcsize(self.order + count_code)
        for i in range(count):
            self._read_tag(page, begin + i * entry, offset_code)
        page.check_pieces(self.size)
        return self._unpack(page, begin + count * entry, offset_code)[0]

    def _read_tag(self, page, offset, offset_code):
        tag, kind, count = self._unpack(page, offset, "HH" + offset_code)
        place = offset + struct.calcsize(self.order + "HH" + offset_code)
        length = _SIZES.get(kind, 1) * count
        if length > struct.calcsize(self.order + offset_code):
            place = self._unpack(page, place, offset_code)[0]
        if place + length > self.size:
            raise page.damaged(f"tag {tag} beyond its end")
        table = tag in (*_PIECES, *_LENGTHS)
        if tag == _DESCRIPTION:
            page.text = self._read(place, min(length, 4096)).decode("latin-1")
        elif kind in _UNSIGNED and (table or count <= 16):
            dtype = np.dtype(f"{self.order}u{_SIZES[kind]}")
            page.values[tag] = np.frombuffer(self._read(place, length), dtype).astype(np.uint64)
            self.left -= length
            if self.left < 0:
                raise page.damaged("pages that share their tables")

    def _read(self, place, length):
        self.file.seek(place)
        return self.file.read(length)

    def _unpack(self, page, offset, codes):
        length = struct.calcsize(self.order + codes)
        raw = self._read(offset, length) if offset < self.size else b""
        if len(raw) != length:
            raise page.damaged("a directory beyond its end")
        return struct.unpack(self.order + codes, raw)


def _check_page(page, first):
    """ValueError where a page holds no counts, or not those of the first one."""
    samples, bits, kind = page.get(_SAMPLES, 1), page.get(_BITS, 1), page.get(_FORMAT, 1)
    photometric, turned = page.get(_PHOTOMETRIC, 1), page.get(_ORIENTATION, 1)
    if samples != 1 or photometric > 1:
        raise ValueError(f"{page.place}: expected counts, got a picture in colours")
    if photometric == 0 or turned != 1:
        what = "white for 0" if photometric == 0 else f"rows and columns turned (orientation {turned})"
        raise ValueError(f"{page.place}: expected counts as they were read out, got {what}")
    if kind not in _KINDS or bits not in ((16, 32, 64) if kind == 3 else (8, 16, 32, 64)):
        raise ValueError(
            f"{page.place}: expected integers of 8 to 64 bits or floats, got {bits} bits of sample format {kind}"
        )
    if 0 in page.shape or (page.shape, page.dtype) != (first.shape, first.dtype):
        raise ValueError(
            f"{page.place}: expected a frame of shape {first.shape} and {first.dtype}, got one of {page.shape} and "
            f"{page.dtype}"
        )


def _check_images(pages):
    """ValueError where a stack has a directory for its first image only, as ImageJ and tifffile may write it."""
    told = re.search(r"^images=([0-9]{1,9})\s*$", pages[0].text, re.MULTILINE)
    short = told and pages[0].text.startswith("ImageJ=") and int(told.group(1)) > len(pages)
    if short or '"truncated": true' in pages[0].text:
        raise ValueError(
            f"{pages[0].place}: expected a page for every image of the stack, got {len(pages)}; save it as a "
            "sequence of images, or with fewer than 4 GB"
        )


def _calibrated(page, data):
    """Data after the linear calibration that ImageJ writes beside them: signed numbers are stored with an offset."""
    if not page.text.startswith("ImageJ="):
        return data
    found = dict(re.findall(r"^(cf|c0|c1)=(\S+)\s*$", page.text, re.MULTILINE))
    try:
        function, offset, slope = int(found.get("cf", 0)), float(found.get("c0", 0)), float(found.get("c1", 1))
    except ValueError:
        raise ValueError(f"{page.place}: expected a calibration of ImageJ, got {found}") from None
    if "cf" not in found or (offset, slope) == (0, 1):
        return data
    if function != 0:
        raise ValueError(
            f"{page.place}: expected counts or a linear calibration of them, got ImageJ's function {function}"
        )
    if data.dtype == np.uint16 and (offset, slope) == (-32768, 1):
        return data.astype(np.int32) - 32768
    return (offset + slope * data).astype(np.float32)
