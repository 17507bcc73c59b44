"""Detector frames of HDF5 files: counts, and which of them are none."""

import warnings

import numpy as np

from . import hdf5_arrays
from .frames import frames_without_light
from .hdf5_links import Found, Links
from .hdf5_reading import good_pixels, without_axes_of_length_one
from .scans import mask_bad_values


def read_frames(links: Links, found: Found, mask: Found | None = None, cxi: bool = True):
    """Frames of a dataset.

    Parameters
    ----------
    found : the dataset, (frame, row, col) real; axes of length one more are dropped.
    mask : dataset in which 0 is good, or None; ``cxi`` as for `good_pixels`.

    Returns
    -------
    data : (frame, row, col) float32 or integer, zeros where nothing was counted.
    mask : bool, True = good, (row, col) or the shape of data.
    notes : {"masked_on_read": values that are no counts, "frames_missing": frames that the file does not hold whole,
        "frames_empty": frames without a count beside such with many}, what there is of these; the last two are a
        UserWarning too.

    Raises
    ------
    ValueError, OSError : naming file and dataset.
    """
    links.place = found.where
    shape, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    few = len(shape) < 3 or sum(n != 1 for n in shape) > 3
    if few or dtype.kind not in "iuf" or 0 in shape:
        raise ValueError(
            f"{found.where}: expected real intensities (frame, row, col), got dtype {dtype} and shape {shape}"
        )
    data, there = hdf5_arrays.partly(links, found.item, found.where)
    data = without_axes_of_length_one(data, 3)
    data, good, masked = mask_bad_values(data)
    notes = {"masked_on_read": masked} if masked else {}
    if there is not None:
        there = there.reshape(data.shape)
        notes["frames_missing"] = np.flatnonzero(~there.reshape(len(there), -1).all(1)).tolist()
        data, good = np.where(there, data, data.dtype.type(0)), good & there
        _warn(found, notes["frames_missing"], "are not in the file, or not whole, and are masked there")
    if mask is not None:
        good = good & good_pixels(links, mask, data.shape, cxi)
    _note_empty(found, data, good, notes)
    return _narrow(data), good, notes


def _narrow(data):
    """Counts as float32 or, where they fit, int32."""
    if data.dtype.kind == "f":
        largest = np.finfo(np.float32).max
        return data.astype(np.float32, copy=False) if data.max() <= largest else data
    if data.dtype != np.int32 and data.max() <= np.iinfo(np.int32).max:
        return data.astype(np.int32)
    return data


def _note_empty(found, data, good, notes):
    """Say which frames have no count although those beside them have many."""
    frames = frames_without_light(data, good)
    if len(frames):
        notes["frames_empty"] = frames.tolist()
        _warn(found, notes["frames_empty"], "have no count, beside frames that have many; were they measured?")


def _warn(found, frames, what):
    named = ", ".join(map(str, frames[:8])) + (", ..." if len(frames) > 8 else "")
    warnings.warn(f"{found.where}: {len(frames)} frames {what}: {named}", stacklevel=5)
