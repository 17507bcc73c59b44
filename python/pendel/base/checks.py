"""Argument checks shared by every public function. Messages read ``name: expected X, got Y``."""

import math
import numbers
from collections.abc import Callable, Collection
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike

from .arrays import plain_array, refuse_more_than_numbers

MOST_ELEMENTS = 2**48  # of an array: more fit into no memory, and their bytes into no index
MOST_THREADS = 2**16


def describe(value) -> str:
    """A short description of a value for an error message."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return f"{type(value).__name__} of more than 4300 digits"
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:57]}..."


def number(
    name: str,
    value,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
) -> float:
    """Return ``value`` as a float, or raise TypeError/ValueError naming it. Bounds are optional."""
    refuse_more_than_numbers(name, value)
    real = isinstance(value, numbers.Real) or (isinstance(value, np.number) and not np.iscomplexobj(value))
    if isinstance(value, (bool, np.bool_, np.timedelta64)) or not real:
        raise TypeError(f"{name}: expected a real number, got {describe(value)}")
    try:
        value = float(value)
    except OverflowError:  # integers can be larger than any float
        raise ValueError(f"{name}: expected a number up to 1e308, got {describe(value)}") from None
    wants = []
    bad = finite and not np.isfinite(value)
    for bound, word, fails in (
        (above, ">", lambda b: not value > b),
        (at_least, ">=", lambda b: not value >= b),
        (below, "<", lambda b: not value < b),
        (at_most, "<=", lambda b: not value <= b),
    ):
        if bound is not None:
            wants.append(f"{word} {bound:g}")
            bad = bad or fails(bound)
    if bad:
        raise ValueError(f"{name}: expected a finite number{' ' if wants else ''}{' and '.join(wants)}, got {value!r}")
    return value


def integer(name: str, value, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """Return ``value`` as an int, or raise TypeError/ValueError naming it."""
    refuse_more_than_numbers(name, value)
    if isinstance(value, (bool, np.bool_, np.timedelta64)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer, got {describe(value)}")
    found = int(value)
    if at_least is not None and found < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {describe(value)}")
    if at_most is not None and found > at_most:
        raise ValueError(f"{name}: expected an integer <= {at_most}, got {describe(value)}")
    return found


def flag(name: str, value) -> bool:
    """Return ``value`` as a bool, or raise TypeError naming it."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected true or false, got {describe(value)}")
    return bool(value)


def complex_number(name: str, value) -> complex:
    """Return ``value`` as a finite complex, or raise naming it."""
    refuse_more_than_numbers(name, value)
    if isinstance(value, (bool, np.bool_, np.timedelta64)) or not isinstance(value, (numbers.Complex, np.number)):
        raise TypeError(f"{name}: expected a complex number, got {describe(value)}")
    try:
        value = complex(value)
    except OverflowError:  # integers can be larger than any float
        raise ValueError(f"{name}: expected a number up to 1e308, got {describe(value)}") from None
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite complex number, got {value}")
    return value


def choice(name: str, value, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of ``allowed``, else raise ValueError naming the choices."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {describe(value)}")
    return value


@overload
def sizes(name: str, value: Any, count: Literal[2]) -> tuple[int, int]: ...
@overload
def sizes(name: str, value: Any, count: Literal[3]) -> tuple[int, int, int]: ...
@overload
def sizes(name: str, value: Any, count: int) -> tuple[int, ...]: ...
def sizes(name: str, value: Any, count: int) -> tuple[int, ...]:
    """Return a tuple of ``count`` integers >= 1 (an array shape), or raise naming it."""
    items = _items(name, value, f"{count} integers", count)
    found = tuple(integer(f"{name}[{i}]", v, at_least=1, at_most=MOST_ELEMENTS) for i, v in enumerate(items))
    if math.prod(found) > MOST_ELEMENTS:
        raise ValueError(f"{name}: expected at most {MOST_ELEMENTS} elements in all, got {found}")
    return found


@overload
def lengths(name: str, value: Any, count: Literal[2]) -> tuple[float, float]: ...
@overload
def lengths(name: str, value: Any, count: Literal[3]) -> tuple[float, float, float]: ...
@overload
def lengths(name: str, value: Any, count: int) -> tuple[float, ...]: ...
def lengths(name: str, value: Any, count: int) -> tuple[float, ...]:
    """Return a tuple of ``count`` positive finite floats (voxel or pixel sizes, m), or raise naming it."""
    items = _items(name, value, f"{count} numbers", count)
    return tuple(number(f"{name}[{i}]", v, above=0) for i, v in enumerate(items))


@overload
def numbers_of(name: str, value: Any, count: Literal[2]) -> tuple[float, float]: ...
@overload
def numbers_of(name: str, value: Any, count: Literal[3]) -> tuple[float, float, float]: ...
@overload
def numbers_of(name: str, value: Any, count: int) -> tuple[float, ...]: ...
def numbers_of(name: str, value: Any, count: int) -> tuple[float, ...]:
    """Return a tuple of ``count`` finite numbers, or raise naming it."""
    items = _items(name, value, f"{count} numbers", count)
    return tuple(number(f"{name}[{i}]", v) for i, v in enumerate(items))


def _items(name, value, expected, count):
    """The ``count`` items of a sequence."""
    try:
        items = tuple(value)
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}") from None
    if len(items) != count:
        raise ValueError(f"{name}: expected {expected}, got {len(items)}")
    return items


def array(
    name: str,
    value,
    shape: tuple[int | None, ...],
    dtype: DTypeLike,
    *,
    axes: str | None = None,
    finite: bool = True,
) -> np.ndarray:
    """Return ``value`` as a C-contiguous, aligned NumPy array of ``dtype``, checked.

    A real array is accepted for a complex dtype and an integer or bool array for a real dtype; complex for real,
    and strings or objects for anything, are TypeErrors, and so are masked elements and units (`numpy_array`). NaN or
    infinity is a ValueError, and so is a number that ``dtype`` cannot hold.

    Parameters
    ----------
    name : of the argument, for the message.
    value : anything that NumPy makes an array of.
    shape : integers, or None for a free axis.
    dtype : of the result.
    axes : names of the axes for the message, e.g. "(nz, ny, nx)".
    finite : False: NaN and infinity may be there.
    """
    value, dtype = numpy_array(name, value), np.dtype(dtype)
    kind_and_shape(name, value, shape, dtype, axes)
    if dtype.kind in "iu" and value.size and not np.can_cast(value.dtype, dtype):
        limits = np.iinfo(dtype)
        if value.min() < limits.min or value.max() > limits.max:
            raise ValueError(f"{name}: expected integers that {dtype} can hold, got {value.min()} to {value.max()}")
    given = value
    try:
        with np.errstate(over="ignore"):
            # a memory-mapped record or a field of a structured array may lie at any address
            value = np.require(np.ascontiguousarray(given, dtype=dtype), requirements="A")
    except MemoryError:
        raise MemoryError(f"{name}: expected an array that fits into memory, got {describe(given)}") from None
    # real and imaginary parts as one real array: twice as fast
    if finite and value.dtype.kind in "fc" and not np.isfinite(value.ravel().view(value.real.dtype)).all():
        count = np.count_nonzero(~np.isfinite(value))
        if np.isfinite(given).all():
            raise ValueError(f"{name}: expected numbers that {dtype} can hold, got {count} that are larger")
        raise ValueError(f"{name}: expected finite values, got {count} NaN or infinite")
    return value


def numpy_array(name: str, value) -> np.ndarray:
    """Return ``value`` as a NumPy array of whatever shape and dtype, or raise TypeError naming it.

    Masked elements and units are TypeErrors: an array of plain numbers cannot keep them.
    """
    refuse_more_than_numbers(name, value)
    if isinstance(value, np.ma.MaskedArray):
        return value.data
    if not isinstance(value, np.ndarray):
        if hasattr(value, "__cuda_array_interface__"):
            hint = "convert it with .get() or cupy.asnumpy"
            raise TypeError(f"{name}: expected a NumPy array for device 'cpu', got {describe(value)}; {hint}")
        try:
            return np.from_dlpack(value) if hasattr(value, "__dlpack__") else plain_array(name, value)
        except Exception as error:
            if str(error).startswith(f"{name}: "):
                raise
            raise TypeError(f"{name}: expected an array, got {describe(value)}: {error}") from None
    return np.asarray(value)  # a matrix adds and multiplies otherwise


def kind_and_shape(name: str, value, shape: tuple[int | None, ...], dtype: np.dtype, axes: str | None = None) -> None:
    """Raise TypeError or ValueError unless an array converts to ``dtype`` and has ``shape``, as for `array`."""
    kinds = {"c": "biufc", "f": "biuf", "i": "biu", "u": "biu", "b": "b"}[dtype.kind]
    if value.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected an array that converts to {dtype}, got dtype {value.dtype}")
    if value.ndim != len(shape) or any(s is not None and s != v for s, v in zip(shape, value.shape, strict=True)):
        listed = ", ".join("any" if s is None else str(s) for s in shape)
        expected = f"({listed},)" if len(shape) == 1 else f"({listed})"
        label = f"{axes} = {expected}" if axes else expected
        raise ValueError(f"{name}: expected shape {label}, got {tuple(value.shape)}")


def good_pixels(name: str, value, shape: tuple[int, ...], take: Callable | None = None):
    """Return a mask, bool, True = good, of ``shape`` (frames, rows, cols) or of one frame, or raise naming it.

    take : (name, value) -> array, where the mask may lie elsewhere than on the host.
    """
    mask = (take or numpy_array)(name, value)
    refuse_unless_bool(name, mask)
    shape = tuple(shape)
    if mask.shape not in (shape, shape[1:], (1, *shape[1:])):
        raise ValueError(f"{name}: expected shape {shape} or {shape[1:]}, got {mask.shape}")
    return mask[0] if len(mask) == 1 and mask.ndim == len(shape) else mask


def refuse_unless_bool(name: str, mask) -> None:
    """Raise TypeError for a mask of numbers: some programs mean good pixels by 1, others bad ones."""
    if mask.dtype != bool:
        raise TypeError(
            f"{name}: expected dtype bool, True = good pixel, got {mask.dtype}; give mask == 0 where 0 is good, mask "
            "!= 0 where 0 is bad"
        )


def complex_dtype(name: str, value) -> np.dtype:
    """Return np.dtype complex64 or complex128, or raise ValueError naming it."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype not in (np.dtype("complex64"), np.dtype("complex128")):
        raise ValueError(f"{name}: expected 'complex64' or 'complex128', got {describe(value)}")
    return dtype


def frame_indices(frames, n: int) -> np.ndarray:
    """``frames`` as int64 indices in [0, n), None for all of them."""
    if frames is None:
        return np.arange(n)
    if hasattr(frames, "__cuda_array_interface__"):
        raise TypeError(f"frames: expected indices on the host, got {describe(frames)}; convert it with .get()")
    frames = numpy_array("frames", frames)
    if frames.dtype.kind not in "iu" or frames.ndim != 1:
        raise TypeError(f"frames: expected a 1-D array of integers, got {describe(frames)}")
    if frames.size == 0 or frames.min() < -n or frames.max() >= n:
        raise ValueError(f"frames: expected at least one index in [-{n}, {n}), got {frames.tolist()[:8]}")
    return frames.astype(np.int64) % n
