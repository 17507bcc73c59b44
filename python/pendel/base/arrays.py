"""Arrays of the host and of the device alike: which module they belong to, and the way home.

Nothing here imports CuPy: an array of it shows that somebody else did.
"""

import importlib
import sys

import numpy as np


def module(array):
    """NumPy, or CuPy for one of its arrays."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(array, cupy.ndarray) else np


def scipy_module(name, xp=np):
    """scipy.``name``, or CuPy's implementation of it."""
    return importlib.import_module(f"scipy.{name}" if xp is np else f"cupyx.scipy.{name}")


def host(value):
    """``value`` as a NumPy array; one of CuPy is copied. None stays None."""
    if value is None:
        return None
    return np.asarray(value) if module(value) is np else value.get()


def cast(value, dtype):
    """A number as a scalar of ``dtype``, where it lies."""
    return value.astype(dtype) if hasattr(value, "astype") else np.dtype(dtype).type(value)


def root(value):
    """Square root of a number >= 0, where it lies."""
    return module(value).sqrt(value)
