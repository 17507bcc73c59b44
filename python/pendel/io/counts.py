"""Values in detector frames that are no counts."""

import numpy as np


def bad_values(array: np.ndarray) -> np.ndarray:
    """bool, shape of ``array``, True where its value is no count.

    Negative values, NaN and infinity; of unsigned types of 16 bits and more also the largest value and the one below
    it, with which detectors mark gaps and dead pixels.
    """
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return array >= np.iinfo(array.dtype).max - 1
    if array.dtype.kind in "bu":
        return np.zeros(array.shape, bool)
    return ~(np.isfinite(array) & (array >= 0))
