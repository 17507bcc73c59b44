"""Values in detector frames that are no counts."""

import numpy as np


def bad_values(array: np.ndarray) -> np.ndarray:
    """bool, shape of ``array``, True where its value is no count.

    Negative values, NaN and infinity; of unsigned types of 16 bits and more also the largest value and the one below
    it, with which detectors mark gaps and dead pixels; of wider types and floats those of 32 bits.
    """
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return (array >= np.iinfo(array.dtype).max - 1) | _of_a_counter(array)
    if array.dtype.kind in "bu":
        return np.zeros(array.shape, bool)
    return ~(np.isfinite(array) & (array >= 0)) | _of_a_counter(array)


def _of_a_counter(array):
    """Where an array of a wider type holds the two largest values of a counter of 32 bits, as it was converted."""
    if array.dtype.itemsize < 4 or array.dtype.kind in "iu" and array.dtype.itemsize < 8:
        return False
    largest = np.array([2**32 - 2, 2**32 - 1]).astype(array.dtype)
    return (array == largest[0]) | (array == largest[1])
