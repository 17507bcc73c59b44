"""A CuPy for machines without a GPU, as strict as the real one, over the emulator that runs the CUDA engine's text.

Its arrays are opaque: NumPy takes none of them and they take no NumPy array, so that every copy between "host" and
"device" is written out in the code under test, and counted here. There is nothing in it that CuPy has not, by the same
names and arguments (`test_device.py` checks that where CuPy is installed). Where CuPy waits for the device, so that a
number gets to the host, a transfer is counted too.
"""

import contextlib
import types

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.special
from emulated import Emulated, replaced
from standin_array import ElementwiseKernel, bare, count, look, ndarray, quiet, transfers, watch

__all__ = ["Standin", "installed", "ndarray", "transfers", "watch"]
UFUNCS = "abs add conj cos divide exp isfinite log maximum multiply power sin sqrt square subtract".split()


def _ufunc(name):
    ufunc = getattr(np, name)

    def call(*args, out=None, casting="same_kind", dtype=None):
        assert any(isinstance(a, ndarray) for a in args), f"cupy.{name} of {[type(a) for a in args]}"
        made = quiet(ufunc, *map(bare, args), out=None if out is None else out._bare, casting=casting, dtype=dtype)
        return out if out is not None else ndarray(made)

    return call


def _creation(empty):
    """CuPy's functions that make arrays, by name; ``empty`` makes guarded ones."""

    def like(a, dtype):
        return empty(a.shape, a.dtype if dtype is None else dtype)

    def filled(array, value):
        array._bare[...] = value
        return array

    def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
        if isinstance(a, ndarray):
            return a if dtype is None or a.dtype == dtype else a.astype(dtype)
        a = np.asarray(a, dtype)
        assert a.dtype != object
        count("to the device", a.size)
        return filled(empty(a.shape, a.dtype), a)

    def ascontiguousarray(a, dtype=None):
        assert isinstance(a, ndarray)
        same = a.flags.c_contiguous and a.dtype == np.dtype(dtype or a.dtype)
        return a if same else filled(empty(a.shape, dtype or a.dtype), a._bare)

    def zeros(shape, dtype=float, order="C"):
        return filled(empty(shape, dtype), 0)

    def ones(shape, dtype=float, order="C"):
        return filled(empty(shape, dtype), 1)

    def full(shape, fill_value, dtype=None, order="C"):
        return filled(empty(shape, np.asarray(bare(fill_value)).dtype if dtype is None else dtype), bare(fill_value))

    def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
        return like(prototype, dtype)

    def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
        return filled(like(a, dtype), 0)

    def arange(start, stop=None, step=1, dtype=None):
        return ndarray(np.arange(start, dtype=dtype) if stop is None else np.arange(start, stop, step, dtype))

    return {name: value for name, value in locals().items() if name not in ("like", "filled")}


def _functions():
    """CuPy's functions of arrays, by name."""

    def where(condition, x=None, y=None):
        assert isinstance(condition, ndarray) and x is not None and y is not None
        return ndarray(np.where(condition._bare, bare(x), bare(y)))

    def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
        assert all(isinstance(a, ndarray) for a in tup)
        return ndarray(np.stack([a._bare for a in tup], axis))

    def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
        assert all(isinstance(a, ndarray) for a in tup)
        return ndarray(np.concatenate([a._bare for a in tup], axis))

    def broadcast_to(array, shape):
        return ndarray(np.broadcast_to(array._bare, shape))

    def clip(a, a_min, a_max, out=None):
        return a.clip(a_min, a_max)

    def sum(a, axis=None, dtype=None, out=None, keepdims=False):
        return a.sum(axis, dtype)

    def count_nonzero(a, axis=None):
        return ndarray(np.count_nonzero(a._bare, axis))  # of shape () where NumPy gives an int

    def roll(a, shift, axis=None):
        return ndarray(np.roll(a._bare, shift, axis))

    def take(a, indices, axis=None, out=None):
        return ndarray(np.take(a._bare, bare(indices), axis))

    def quantile(a, q, axis=None, out=None, overwrite_input=False, method="linear", keepdims=False, *,
                 interpolation=None):  # fmt: skip
        return ndarray(np.quantile(a._bare, q, axis))

    def bincount(x, weights=None, minlength=None):
        count("to the host", 1)
        return ndarray(np.bincount(x._bare, minlength=minlength or 0))

    return locals()


def _fft(name):
    function = getattr(scipy.fft, name)

    def call(x, n=None, axis=-1, norm=None, overwrite_x=False, *, plan=None):
        return ndarray(function(x._bare, n, axis, norm, overwrite_x))

    return call


def _label(input, structure=None, output=None):
    count("to the host", 1)
    labels, number = scipy.ndimage.label(input._bare, structure)
    return ndarray(labels), number


def _gaussian_filter(
    input, sigma, order=0, output=None, mode="reflect", cval=0.0, truncate=4.0, radius=None, axes=None
):
    return ndarray(scipy.ndimage.gaussian_filter(input._bare, sigma, order, None, mode, cval, truncate))


def _binary_fill_holes(input, structure=None, output=None, origin=0, *, axes=None):
    count("to the host", 1)
    return ndarray(scipy.ndimage.binary_fill_holes(input._bare, structure))


def _kl_div(x, y):
    return ndarray(scipy.special.kl_div(bare(x), bare(y)))


class Device:
    """Stands for cupy.cuda.Device of an H200, and tells `watch` that one is the current one."""

    attributes = {"MaxSharedMemoryPerBlockOptin": 227 << 10}

    def __init__(self, device):
        self.id = device

    def __enter__(self):
        watch.depth += 1

    def __exit__(self, *_):
        watch.depth -= 1


class Standin(Emulated):
    """The module ``_cuda`` under test with this CuPy; ``modules``: all that `install` puts in place."""

    def _cupy(self):
        def empty(shape, dtype=float, order="C"):
            look()
            shape = (shape,) if np.isscalar(shape) else shape
            return ndarray(self._empty(shape, dtype).view(np.ndarray))

        cupy = types.ModuleType("cupy")
        cupy.ndarray, cupy.uint8, cupy.ElementwiseKernel = ndarray, np.uint8, ElementwiseKernel
        for name, function in ({n: _ufunc(n) for n in UFUNCS} | _creation(empty) | _functions()).items():
            setattr(cupy, name, function)

        stream = types.SimpleNamespace(ptr=0)
        cupy.cuda = types.SimpleNamespace(get_current_stream=lambda: stream, Device=Device)
        self.modules = {"pendel.operator._cuda": self.module, "cupy": cupy}
        self.modules |= {"cuda": types.ModuleType("cuda"), "cuda.pathfinder": self.pathfinder}
        for name, functions in {
            "cupyx": {},
            "cupyx.scipy": {},
            "cupyx.scipy.fft": {"fft": _fft("fft"), "ifft": _fft("ifft")},
            "cupyx.scipy.ndimage": {
                "label": _label,
                "gaussian_filter": _gaussian_filter,
                "binary_fill_holes": _binary_fill_holes,
            },
            "cupyx.scipy.special": {"kl_div": _kl_div},
        }.items():
            self.modules[name] = types.ModuleType(name)
            vars(self.modules[name]).update(functions)
        return cupy


@contextlib.contextmanager
def installed(standin):
    """For a while, `pendel` finds this module as ``_cuda`` and the stand-in as CuPy."""
    with replaced(standin.modules):
        yield standin
