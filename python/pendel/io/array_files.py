"""Rocking scans as bare arrays: .npz as bcdi writes and PyNX reads it, .npy, and .tif with a page for each frame.

Such files hold counts (frame, row, col) and perhaps a mask; the geometry is said elsewhere, in [experiment] of a
configuration. bcdi writes ``S54_pynx_COMMENT.npz`` (``data``) and beside it ``S54_maskpynx_COMMENT.npz`` (``mask``,
integers, 0 = good), which is read with it. With a ``QxQzQy_S54_COMMENT.npz`` the pattern has been interpolated to a
grid in reciprocal space and is no rocking scan any more.
"""

import re
from pathlib import Path

import numpy as np

from ..base import checks
from .frame_files import SUFFIXES, find_frames, read_frames
from .npy_files import open_arrays, read_array
from .scans import Scan, mask_bad_values
from .tif_files import read_tif

# Names of the counts in an archive, of bcdi and PyNX first.
_COUNTS = ("data", "iobs", "intensity", "counts")
_MASKS = ("mask", "hotpixels")
_OBJECTS = ("obj", "amp", "phase")  # of results
_GRID = ("qx", "qy", "qz")
_BCDI = re.compile(r"(S[0-9]+)_pynx(.*)\.npz")


def is_array_file(path: Path) -> bool:
    """Whether `read_array_scan` reads files of this name."""
    return path.suffix.lower() in (".npy", ".npz", *SUFFIXES) and not path.is_dir()


def read_array_scan(path: Path | str) -> Scan:
    """The counts of an .npz, .npy or .tif file, or of a folder of .tif frames, as a `Scan` without geometry.

    An .npz file holds the counts as ``data``, ``iobs``, ``intensity`` or ``counts``, or as its only array, and perhaps
    a mask as ``mask`` or ``hotpixels``: bool, True = good, or integers, 0 = good. Axes of length one are dropped where
    there are more than three. What is no count (negative, NaN, the largest values of unsigned types) is masked and
    counted in ``metadata["masked_on_read"]``.

    Parameters
    ----------
    path : Path or str, of the file or folder

    Returns
    -------
    Scan

    Raises
    ------
    FileNotFoundError : without the file.
    ValueError : naming the file, for damaged ones and those that hold no rocking scan.
    """
    path = Path(path)
    if path.is_dir():
        data, good = read_frames(path, find_frames(path, gaps=True)), None
    elif path.suffix.lower() in SUFFIXES:
        data, good = read_tif(path), None
    else:
        data, good = _read_archive(path)
        beside = mask_beside(path)
        if good is None and beside is not None:
            good = _good(beside, read_array(beside, *_MASKS), sure=True)
    data = three_axes(data)
    if data.ndim != 3 or data.dtype.kind not in "iuf" or data.size == 0:
        raise ValueError(f"{path}: expected counts >= 0 (frame, row, col), got {checks.describe(data)}")
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
    data, mask, masked = mask_bad_values(data)
    if good is not None:
        mask = mask & _fitting(path, good, data.shape)
    notes = {"masked_on_read": masked} if masked else {}
    return Scan(data=data, mask=mask, name=path.stem, metadata=notes | {"source": "array"})


def read_mask(path: Path | str) -> np.ndarray:
    """A mask, bool, True = good, of an .npy file or an .npz file (``mask``).

    Booleans are True = good; integers 0 = good, as bcdi, PyNX and CXI files have them. Raises as `read_array` does,
    ValueError also for other types.
    """
    mask = read_array(path, *_MASKS)
    return _good(path, mask)


def three_axes(data: np.ndarray) -> np.ndarray:
    """An array without axes of length one, as far as it has more than three."""
    for axis in range(data.ndim - 1, -1, -1):
        if data.ndim > 3 and data.shape[axis] == 1:
            data = data.squeeze(axis)
    return data


def _good(path, mask, sure=False):
    """bool mask, True = good; ``sure``: integers are known to be 0 where good."""
    if mask.dtype.kind not in "biu":
        raise ValueError(f"{path}: expected a mask of bool (True = good) or integers (0 = good), got {mask.dtype}")
    if mask.dtype.kind == "b":
        return mask
    good = mask == 0
    if not sure and good.mean() < 0.5:
        raise ValueError(
            f"{path}: expected a mask whose integers are 0 where pixels are good, got {good.mean():.0%} of them 0; "
            "save it as bool, True = good"
        )
    return good


def _read_archive(path):
    """Counts, and bool mask (True = good) or None."""
    with open_arrays(path) as archive:
        there = archive.keys()
        _check_kind(path, there)
        counts = [key for key in there if key not in _MASKS]
        key = next((key for key in _COUNTS if key in there), counts[0] if len(counts) == 1 else None)
        if key is None:
            got = ", ".join(there[:12])[:200] or "none"
            raise ValueError(f"{path}: expected the array 'data' with the counts of a rocking scan, got {got}")
        mask = next((key for key in _MASKS if key in there), None)
        return archive.read(key), None if mask is None else _good(path, archive.read(mask))


def _check_kind(path, there):
    """ValueError for files, by the names of their arrays and of files beside them, that hold no rocking scan."""
    found = _BCDI.fullmatch(path.name)
    beside = path.with_name(f"QxQzQy_{found.group(1)}{found.group(2)}.npz") if found else path
    if set(_GRID) & set(there) or (beside != path and beside.exists()):
        what = beside.name if beside != path else "qx, qy, qz"
        raise ValueError(
            f"{path}: expected the frames of a rocking scan, got a pattern on a grid in reciprocal space ({what}); "
            "bcdi keeps the frames with use_rawdata = True"
        )
    if set(_OBJECTS) & set(there) and not set(_COUNTS) & set(there):
        raise ValueError(f"{path}: expected the frames of a rocking scan, got a result ({', '.join(there[:8])})")


def mask_beside(path: Path) -> Path | None:
    """The mask that bcdi writes beside its data, or None."""
    found = _BCDI.fullmatch(path.name)
    beside = path.with_name(f"{found.group(1)}_maskpynx{found.group(2)}.npz") if found else None
    return beside if beside is not None and beside.exists() else None


def _fitting(path, good, shape):
    """A mask of the shape of the data or of one frame."""
    good = three_axes(good) if good.ndim > 3 else good
    if good.ndim == 3 and good.shape[0] == 1:
        good = good[0]
    if good.shape not in (shape, shape[1:]):
        raise ValueError(f"{path}: expected a mask of shape {shape} or {shape[1:]}, got {good.shape}")
    return good[0].copy() if good.ndim == 3 and (good == good[:1]).all() else good
