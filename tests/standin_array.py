"""The array of the stand-in for CuPy (standin.py), opaque to NumPy, and its ElementwiseKernel."""

import ctypes
import os
import subprocess
import tempfile
import types
from pathlib import Path

import numpy as np

SCALARS = (bool, int, float, complex, np.generic)
OPERATORS = "add and eq floordiv ge gt le lt mod mul ne or pow sub truediv xor".split()
NUMPY_NAMES = {
    "and": "bitwise_and", "eq": "equal", "floordiv": "floor_divide", "ge": "greater_equal", "gt": "greater",
    "le": "less_equal", "lt": "less", "mul": "multiply", "ne": "not_equal", "or": "bitwise_or", "pow": "power",
    "sub": "subtract", "truediv": "true_divide", "xor": "bitwise_xor",
}  # fmt: skip
watch = types.SimpleNamespace(on=False, depth=0)  # ``on``: an array made where no device is the current one is an error
transfers = []  # ("to the host" or "to the device", elements)


def count(direction, elements):
    transfers.append((direction, int(elements)))


def look():
    assert watch.depth or not watch.on, "an array made on whatever device is the current one"


def bare(value):
    """The NumPy array in a device array, or a scalar."""
    if isinstance(value, ndarray):
        return value._bare
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


def index(key):
    if isinstance(key, tuple):
        return tuple(index(k) for k in key)
    if isinstance(key, ndarray):
        return key._bare
    if key is None or key is Ellipsis or isinstance(key, (int, slice, np.integer)):
        return key
    raise TypeError(f"an index has to be written as an array of the device, got {type(key)}")


def bool_index(key):
    return any(isinstance(k, ndarray) and k.dtype == bool for k in (key if isinstance(key, tuple) else (key,)))


class ndarray:
    __slots__ = ("_bare",)
    __array_ufunc__ = None  # a NumPy array on the left gets TypeError; CuPy says the same in more words
    __hash__ = None

    def __init__(self, bare):
        self._bare = np.asarray(bare)
        if self._bare.base is None:  # not a view
            look()

    shape = property(lambda self: self._bare.shape)
    dtype = property(lambda self: self._bare.dtype)
    ndim = property(lambda self: self._bare.ndim)
    size = property(lambda self: self._bare.size)
    nbytes = property(lambda self: self._bare.nbytes)
    itemsize = property(lambda self: self._bare.itemsize)
    flags = property(lambda self: types.SimpleNamespace(c_contiguous=self._bare.flags.c_contiguous))
    T = property(lambda self: ndarray(self._bare.T))
    real = property(lambda self: ndarray(self._bare.real))
    imag = property(lambda self: ndarray(self._bare.imag))
    device = property(lambda self: types.SimpleNamespace(id=0))
    data = property(lambda self: types.SimpleNamespace(ptr=self._bare.ctypes.data))

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False), "version": 3}

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_function__(self, function, kinds, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} of an array of the device")

    def get(self):
        count("to the host", self.size)
        return self._bare.copy()

    def item(self):
        count("to the host", 1)
        return self._bare.item()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    def __len__(self):
        return len(self._bare)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        if bool_index(key):  # how many there are has to be known
            count("to the host", 1)
        return ndarray(self._bare[index(key)])

    def __setitem__(self, key, value):
        if bool_index(key) and not isinstance(value, SCALARS):
            count("to the host", 1)
        self._bare[index(key)] = bare(value)

    def __neg__(self):
        return ndarray(-self._bare)

    def __invert__(self):
        return ndarray(~self._bare)

    def __abs__(self):
        return ndarray(abs(self._bare))

    def __matmul__(self, other):
        if not isinstance(other, ndarray):
            return NotImplemented
        return ndarray(self._bare @ other._bare)

    def all(self, axis=None, out=None, keepdims=False):
        return ndarray(self._bare.all(axis=axis, keepdims=keepdims))

    def any(self, axis=None, out=None, keepdims=False):
        return ndarray(self._bare.any(axis=axis, keepdims=keepdims))

    def argmax(self, axis=None, out=None, dtype=None, keepdims=False):
        return ndarray(self._bare.argmax(axis, keepdims=keepdims))

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return self if not copy and self.dtype == dtype else ndarray(self._bare.astype(dtype))

    def clip(self, min=None, max=None, out=None):
        return ndarray(self._bare.clip(min if min is None else bare(min), max if max is None else bare(max)))

    def conj(self):
        return ndarray(self._bare.conj())

    def copy(self, order="C"):
        return ndarray(self._bare.copy())

    def max(self, axis=None, out=None, keepdims=False):
        return ndarray(self._bare.max(axis=axis, keepdims=keepdims))

    def mean(self, axis=None, dtype=None, out=None, keepdims=False):
        return ndarray(self._bare.mean(axis, dtype))

    def min(self, axis=None, out=None, keepdims=False):
        return ndarray(self._bare.min(axis=axis, keepdims=keepdims))

    def ravel(self, order="C"):
        return ndarray(self._bare.ravel())

    def reshape(self, *shape, order="C"):
        return ndarray(self._bare.reshape(*shape))

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        return ndarray(self._bare.sum(axis, dtype))

    def swapaxes(self, axis1, axis2):
        return ndarray(self._bare.swapaxes(axis1, axis2))


def _operator(name):
    ufunc = getattr(np, NUMPY_NAMES.get(name, {"add": "add", "mod": "mod"}.get(name)))

    def here(self, other):
        return ndarray(quiet(ufunc, self._bare, bare(other)))

    def reflected(self, other):
        return ndarray(quiet(ufunc, bare(other), self._bare))

    def in_place(self, other):
        quiet(ufunc, self._bare, bare(other), out=self._bare)
        return self

    setattr(ndarray, f"__{name}__", here)
    if name not in ("eq", "ge", "gt", "le", "lt", "ne"):
        setattr(ndarray, f"__r{name}__", reflected)
        setattr(ndarray, f"__i{name}__", in_place)


def quiet(ufunc, *args, **kwargs):
    with np.errstate(all="ignore"):  # a device says nothing
        return ufunc(*args, **kwargs)


for _name in OPERATORS:
    _operator(_name)


class ElementwiseKernel:
    """CuPy's, its text compiled by the host compiler; T is complex or real, R real."""

    SOURCE = """
#include <cmath>
#include <complex>
#include <cstddef>
using std::abs; using std::complex; using std::pow; using std::sqrt;
#define __device__
PREAMBLE
template <class T, class R>
void run(std::ptrdiff_t size, void** at, const std::ptrdiff_t* step) {
  for (std::ptrdiff_t i = 0; i < size; ++i) {
    ARGUMENTS
    OPERATION
  }
}
"""
    TYPES = {"complex64": "complex<float>, float", "complex128": "complex<double>, double"}
    TYPES |= {"float32": "float, float", "float64": "double, double"}

    def __init__(self, in_params, out_params, operation, name="kernel", reduce_dims=True, preamble="", no_return=False,
                 return_tuple=False, **kwargs):  # fmt: skip
        split = [[p.split() for p in params.split(",")] for params in (in_params, out_params)]
        self.params, self.inputs = split[0] + split[1], len(split[0])
        if any(param == "i" for *_, param in self.params):
            raise ValueError("Can not use 'i' as a parameter name")
        lines = []
        for i, (*raw, kind, param) in enumerate(self.params):
            kind = {"int64": "long long"}.get(kind, kind) + " const" * (i < self.inputs)
            pointer = f"static_cast<{kind}*>(at[{i}])"
            lines.append(f"auto {param} = {pointer};" if raw else f"{kind}& {param} = {pointer}[i * step[{i}]];")
        text = self.SOURCE.replace("PREAMBLE", preamble).replace("OPERATION", operation)
        text = text.replace("ARGUMENTS", " ".join(lines))
        for dtype, both in self.TYPES.items():
            text += f'extern "C" void {dtype}(std::ptrdiff_t size, void** at, const std::ptrdiff_t* step)'
            text += f" {{ run<{both}>(size, at, step); }}\n"
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
            source.write_text(text)
            command = [os.environ.get("CXX", "g++"), "-std=c++17", "-O1", "-fPIC", "-shared", source, "-o", library]
            made = subprocess.run(command, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
            self.library = ctypes.CDLL(str(library))

    def _types(self, args):
        """{"T": dtype, ...} as CuPy's `_decide_params_type_core` has it: outputs first, then inputs, arrays only."""
        found = {}
        for i in [*range(self.inputs, len(args)), *range(self.inputs)]:
            *_, kind, param = self.params[i]
            if not isinstance(args[i], ndarray):
                if i >= self.inputs:
                    raise TypeError("Output arguments must be cupy.ndarray")
                assert isinstance(args[i], SCALARS), f"{param}: {type(args[i])}"
                continue
            wanted = np.dtype(kind) if len(kind) > 1 else found.setdefault(kind, args[i].dtype)
            if args[i].dtype != wanted:
                raise TypeError(f"Type is mismatched. {param} {args[i].dtype} {wanted}")
        for *_, kind, _ in self.params:
            if len(kind) == 1 and kind not in found:
                raise KeyError(kind)  # a scalar decides no type
        return found

    def __call__(self, *args):
        assert len(args) == len(self.params)
        found = self._types(args)
        # the text is compiled for pairs only
        real = np.zeros(0, found["T"]).real.dtype
        assert found.get("R", real) == real, found
        outputs = args[self.inputs :]
        shape, kept, steps = outputs[0].shape, [], []
        for i, (arg, (*raw, kind, param)) in enumerate(zip(args, self.params, strict=True)):
            if isinstance(arg, ndarray):
                assert raw or arg.shape == shape or i < self.inputs and arg.shape == (), f"{param}: {arg.shape}"
                assert arg.flags.c_contiguous or i < self.inputs
            kept.append(np.ascontiguousarray(bare(arg), found.get(kind, kind)))
            steps.append(int(np.ndim(bare(arg)) > 0))
        pointers = (ctypes.c_void_p * len(kept))(*(a.ctypes.data for a in kept))
        run = self.library[found["T"].name]
        run(ctypes.c_ssize_t(outputs[0].size), pointers, (ctypes.c_ssize_t * len(kept))(*steps))
        return outputs if len(outputs) > 1 else outputs[0]
