"""Arrays of the host and of the device alike: which module they belong to, and the way home.

Nothing here imports CuPy: an array of it shows that somebody else did.
"""

import importlib
import sys
from numbers import Number

import numpy as np

# Units as which the numbers stand for themselves in any argument, in lower case.
PLAIN_UNITS = ("", "1", "none", "dimensionless", "count", "counts", "ct", "photon", "photons", "ph", "adu")
# Under these names arrays with units or labels keep the array that they wrap.
WRAPPED = ("data", "array", "_meta")


def module(array):
    """NumPy, or CuPy for one of its arrays."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(array, cupy.ndarray) else np


def scipy_module(name, xp=np):
    """scipy.``name``, or CuPy's implementation of it."""
    return importlib.import_module(f"scipy.{name}" if xp is np else f"cupyx.scipy.{name}")


def host(value, name="array"):
    """``value``, what an error calls ``name``, as a NumPy array; one of CuPy is copied. None stays None."""
    if value is None:
        return None
    if module(value) is not np:
        return value.get()
    return plain_array(name, value)


def plain_array(name, value):
    """``value`` as a NumPy array of no subclass; see `refuse_more_than_numbers`. TypeError for what is none at all."""
    refuse_more_than_numbers(name, value)
    made = np.asanyarray(value)
    if made.dtype == object and made.ndim == 0 and not isinstance(value, Number):
        raise TypeError(f"{name}: expected an array of numbers, got a {type(value).__name__}")
    if made is not value:  # what an object makes of itself may be masked
        refuse_more_than_numbers(name, made)
    return np.asarray(made)


def refuse_more_than_numbers(name, value):
    """TypeError, naming the argument, for an array whose masked elements or unit NumPy would drop without a word.

    Masked arrays that mask something, arrays and numbers with a unit, also inside of lists, tuples and arrays that wrap
    others. Subclasses of arrays without these, and all that mask nothing or have no dimension, pass.
    """
    kind = type(value)
    if kind is np.ndarray or kind in (int, float, complex, bool, str, type(None)):
        return
    if kind in (list, tuple):
        for item in value:
            refuse_more_than_numbers(name, item)
        return

    masked = _masked_elements(value)
    if masked:
        raise TypeError(
            f"{name}: expected plain numbers, got a {kind.__name__} with {masked} masked elements; give its plain "
            "array, and what is not masked as a mask of its own, True = good, where there is one"
        )
    unit = unit_of(value)
    if unit.lower() not in PLAIN_UNITS:
        raise TypeError(
            f"{name}: expected plain numbers in SI units (m, rad, J, 1/m), got a {kind.__name__} in {unit!r}; "
            "convert it and give its numbers"
        )
    for inside in WRAPPED:
        wrapped = getattr(value, inside, None)
        if wrapped is not value and (_masked_elements(wrapped) or unit_of(wrapped)):
            refuse_more_than_numbers(name, wrapped)


def unit_of(value) -> str:
    """The unit that an array or number carries, as its own text; "" where it carries none."""
    attributes = getattr(value, "attrs", None)
    found = [getattr(value, name, None) for name in ("unit", "units")]
    if attributes is not None and hasattr(attributes, "get"):
        found += [attributes.get(name) for name in ("unit", "units")]
    for unit in found:
        if unit is not None and not callable(unit):
            return (unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)).strip()
    return ""


def _masked_elements(value):
    """How many elements an array masks: of `numpy.ma`, and of all arrays that keep a bool one as their ``mask``."""
    if not hasattr(value, "shape"):  # a scan with its mask is no array
        return 0
    mask = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else getattr(value, "mask", None)
    if not isinstance(mask, np.ndarray | np.bool_) or mask.dtype != bool:
        return 0
    return int(np.count_nonzero(mask))


def binary_scale(values) -> float:
    """The power of two next to the largest absolute value: divided by it, values keep their digits, and their squares
    neither overflow nor vanish. 1 for zeros.
    """
    most = float(np.abs(values).max(initial=0))
    return 2.0 ** min(max(int(np.frexp(most)[1]), -1000), 1000) if most else 1.0


def is_finite(*arrays) -> bool:
    """Whether real or complex arrays on the host have neither NaN nor infinity; None has none."""
    return all(np.isfinite(a.ravel().view(a.real.dtype)).all() for a in arrays if a is not None)


def cast(value, dtype):
    """A number as a scalar of ``dtype``, where it lies."""
    return value.astype(dtype) if hasattr(value, "astype") else np.dtype(dtype).type(value)


def root(value):
    """Square root of a number >= 0, where it lies."""
    return module(value).sqrt(value)
