"""Functions of NumPy arrays that XLA calls itself, on its own memory: nothing is copied but what they return.

XLA's foreign function interface hands a C function one structure per call; `ctypes` makes that function of a Python one
and reads the structures where they lie. They are those of its C API, version 0 (xla/ffi/api/c_api.h), of which minor
versions only add at the end. One target is registered; a call's attribute says which function is meant.
"""

import ctypes
import re
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import jax
import numpy as np

TARGET = "pendel_sweep"
MAJOR = 0  # of the interface that these structures are of
METADATA, EXECUTE = 1, 3  # kind of extension; stage
INTERNAL = 13  # kind of error
DTYPES = {1: "bool", 4: "int32", 5: "int64", 11: "float32", 12: "float64", 15: "complex64", 18: "complex128"}


HEAD = ("struct_size", c_size_t), ("extension", c_void_p)  # of most structures


class _Version(Structure):
    _fields_ = (*HEAD, ("major", c_int), ("minor", c_int))


class _Metadata(Structure):
    _fields_ = (("struct_size", c_size_t), ("version", _Version), ("traits", c_uint32))


class _Extension(Structure):
    _fields_ = (("struct_size", c_size_t), ("kind", c_int), ("next", c_void_p), ("metadata", POINTER(_Metadata)))


class _Error(Structure):
    _fields_ = (*HEAD, ("message", c_char_p), ("code", c_int))


class _Api(Structure):
    _fields_ = (
        *HEAD,
        ("version", _Version),
        ("internal", c_void_p),
        ("error", ctypes.CFUNCTYPE(c_void_p, POINTER(_Error))),
    )


class _Buffer(Structure):
    _fields_ = (*HEAD, ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", POINTER(c_int64)))


class _Buffers(Structure):
    _fields_ = (*HEAD, ("size", c_int64), ("types", POINTER(c_int)), ("each", POINTER(POINTER(_Buffer))))


class _Scalar(Structure):
    _fields_ = (("dtype", c_int), ("value", POINTER(c_int64)))


class _Attributes(Structure):
    _fields_ = (
        *HEAD,
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("names", c_void_p),
        ("each", POINTER(POINTER(_Scalar))),
    )


class _Frame(Structure):
    _fields_ = (
        *HEAD,
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    )


_functions: list[Callable] = []  # of all calls that were ever traced, as long as the process lives
_numbers: dict[Any, int] = {}


def call(function: Callable, key: Any, shapes: list, arrays: list) -> list:
    """What ``function`` makes of arrays, as a traced operation.

    Parameters
    ----------
    function : callable
        (*arrays, out) -> sequence of arrays, on NumPy arrays that must not be changed or kept; ``out``: sequence of
        arrays for the results, which it may write to and return. It is kept for good.
    key : hashable
        Calls with equal keys are of the same function.
    shapes : list of jax.ShapeDtypeStruct
        Of the results; under vmap with its axes in front.
    arrays : list of jax.Array
    """
    if key not in _numbers:
        _numbers[key] = len(_functions)
        _functions.append(function)
    foreign = jax.ffi.ffi_call(TARGET, shapes, vmap_method="expand_dims")
    return foreign(*arrays, function=np.int64(_numbers[key]))


def _array(buffer: _Buffer) -> np.ndarray:
    """XLA's memory as an array."""
    shape, dtype = tuple(buffer.dims[: buffer.rank]), np.dtype(DTYPES[buffer.dtype])
    size = int(np.prod(shape)) * dtype.itemsize
    if size == 0:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_char * size).from_address(buffer.data)
    return np.frombuffer(memory, dtype).reshape(shape)


def _arrays(buffers: _Buffers) -> list[np.ndarray]:
    return [_array(buffers.each[i].contents) for i in range(buffers.size)]


def _execute(frame: _Frame) -> None:
    number = frame.attributes.each[0].contents.value.contents.value
    arguments = _arrays(frame.arguments)
    for array in arguments:
        array.flags.writeable = False
    results = _arrays(frame.results)
    for result, value in zip(results, _functions[number](*arguments, out=results), strict=True):
        if not np.may_share_memory(result, value):
            result[...] = value


def _tell_version(frame: _Frame) -> bool:
    """Whether XLA only asks which version this speaks, and the answer: its own."""
    at = frame.extension
    while at:
        extension = _Extension.from_address(at)
        if extension.kind == METADATA:
            told = extension.metadata.contents.version
            told.major, told.minor = VERSION or (MAJOR, 0)
            return True
        at = extension.next
    return False


@ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
def _handler(pointer):
    frame = pointer.contents
    try:
        if not _tell_version(frame) and frame.stage == EXECUTE:
            _execute(frame)
        return None
    except BaseException as error:  # what leaves a callback of ctypes is printed and lost
        message = f"{type(error).__name__}: {error}".encode()
        told = _Error(ctypes.sizeof(_Error), None, message, INTERNAL)
        return frame.api.contents.error(ctypes.byref(told))


def version() -> tuple[int, int] | None:
    """(major, minor) of the interface of this JAX, by the header that comes with it; None where it is not to be had."""
    try:
        text = (Path(jax.ffi.include_dir()) / "xla/ffi/api/c_api.h").read_text()
    except (AttributeError, OSError):
        return None
    major, minor = (re.search(rf"#define XLA_FFI_API_{name} (\d+)", text) for name in ("MAJOR", "MINOR"))
    return (int(major[1]), int(minor[1])) if major and minor else None


def register() -> bool:
    """Make the target known to XLA on CPUs; False where this JAX has no such interface, or another."""
    if VERSION is None or VERSION[0] != MAJOR:
        return False
    pointer = ctypes.cast(_handler, c_void_p).value
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(pointer), platform="cpu")
    return True


VERSION = version()
AVAILABLE = register()
