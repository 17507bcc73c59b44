"""The CUDA engine's own text, compiled by the host compiler (emulator.h) for ``_cuda``, and a CuPy for it.

``build`` makes the module; ``install`` puts it and the stand-in CuPy, whose "device" arrays are host memory that only
shows the CUDA array interface, where `pendel` looks for them, so that the whole path from `TakagiTaupin` down runs.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pendel.operator.library import CudaLibrary

CSRC = Path(__file__).resolve().parents[1] / "csrc"
# Contracted as on the device; the warnings are errors: this is the only host compiler that reads the text.
FLAGS = "-std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wno-psabi -Wno-ignored-attributes".split()
KERNELS = "-x c++ -ffp-contract=fast -DPENDEL_EMULATED -DPENDEL_ISA=cuda -Wno-unknown-pragmas".split()
GUARD = np.array([0xA5, 0xA5, 0xA5, 0xFF], np.uint8)  # NaN, and not the one that arithmetic with unset memory gives
PAD = 64  # elements of NaN on either side of every "device" array


def build(folder, interface=None, faults=(), optimise="-O1"):
    """Compile and link the library in ``folder`` and return its path.

    ``interface``: folder of an earlier build, whose C interface is used again. ``faults``: (file in csrc, text,
    replacement, ...) each, made in a copy of csrc and expected to match exactly once; FAULT in the replacement of
    number i is true after ``Emulated.fault(i + 1)``.
    """
    compiler, csrc = os.environ.get("CXX", "g++"), CSRC
    if faults:
        csrc = Path(shutil.copytree(CSRC, folder / "csrc"))
    for i, (name, old, new, *_) in enumerate(faults):
        text = (csrc / name).read_text()
        assert text.count(old) == 1, f"{name}: {old!r} is there {text.count(old)} times"
        (csrc / name).write_text(text.replace(old, new.replace("FAULT", f"(::emulator::fault == {i + 1})")))
    tests = Path(__file__).parent
    jobs = [
        [*FLAGS, optimise, *KERNELS, f"-I{csrc}", f"-I{tests}", "-c", csrc / "run_cuda.cu", "-o", folder / "run_cuda.o"]
    ]
    if interface is None:
        made = ["-DPENDEL_CUDA", f"-I{csrc}", "-c", csrc / "interface.cpp", "-o", folder / "interface.o"]
        jobs.append([*FLAGS, optimise, *made])
    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(lambda job: subprocess.run([compiler, *job], capture_output=True, text=True), jobs):
            assert made.returncode == 0, made.stderr
    target = folder / "pendel_cuda.so"
    objects = [folder / "run_cuda.o", (interface or folder) / "interface.o"]
    subprocess.run([compiler, "-shared", *objects, "-o", target], check=True)
    return target


class Array(np.ndarray):
    """Stands for cupy.ndarray. NaN lies around its memory; `unharmed` tells whether it still does."""

    __array_priority__ = 10

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.ctypes.data, False), "version": 3}

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self):
        return types.SimpleNamespace(id=0)

    def get(self):
        return np.array(self)


class Device(contextlib.nullcontext):
    """Stands for cupy.cuda.Device of an H200."""

    attributes = {"MaxSharedMemoryPerBlockOptin": 227 << 10}


class Emulated:
    """The module under test, its random seed, and all arrays it was given."""

    def __init__(self, path):
        self.folder = path.parent
        self.module = CudaLibrary(path)
        library = ctypes.CDLL(str(path))
        self.seed, self.barriers = library.emulator_seed, library.emulator_barriers
        self.fault = library.emulator_fault
        self.barriers.restype = ctypes.c_long
        self.transforms, self.plans = library.emulator_transforms, library.emulator_plans
        self.plans_made = library.emulator_plans_made
        for count in (self.transforms, self.plans, self.plans_made):
            count.restype = ctypes.c_long
        # finds cuFFT: in the module itself (emulated_cufft.h)
        self.pathfinder = types.ModuleType("cuda.pathfinder")
        self.pathfinder.load_nvidia_dynamic_lib = lambda name: types.SimpleNamespace(abs_path=str(path))
        self._stores = []
        self.cupy = self._cupy()

    def _empty(self, shape, dtype=float):
        dtype = np.dtype(dtype)
        shape = (shape,) if np.isscalar(shape) else tuple(shape)
        count = int(np.prod(shape)) * dtype.itemsize
        store = np.resize(GUARD, count + 2 * PAD * 16 + 256)
        skip = PAD * 16 + -(store.ctypes.data + PAD * 16) % 256  # CuPy aligns to 512 bytes
        store[skip : skip + count] = 0xFF
        self._stores.append((store, skip, count))
        return store[skip : skip + count].view(dtype).reshape(shape).view(Array)

    def unharmed(self):
        """Whether nothing was written outside any array; forgets them."""
        intact = True
        for store, skip, count in self._stores:
            whole = store == np.resize(GUARD, store.size)
            intact &= whole[:skip].all() and whole[skip + count :].all()
        self._stores.clear()
        return intact

    def _cupy(self):
        def asarray(value, dtype=None):
            value = np.asarray(value, dtype)
            out = self._empty(value.shape, value.dtype)
            out[...] = value
            return out

        def ascontiguousarray(value, dtype=None):
            same = value.flags.c_contiguous and value.dtype == np.dtype(dtype or value.dtype)
            return value if same else asarray(value, dtype)

        def zeros(shape, dtype=float):
            out = self._empty(shape, dtype)
            out[...] = 0
            return out

        cupy = types.ModuleType("cupy")
        cupy.ndarray, cupy.asarray, cupy.ascontiguousarray = Array, asarray, ascontiguousarray
        cupy.empty, cupy.zeros, cupy.uint8, cupy.where = self._empty, zeros, np.uint8, np.where
        cupy.empty_like = lambda a: self._empty(a.shape, a.dtype)
        cupy.zeros_like = lambda a: zeros(a.shape, a.dtype)
        cupy.sum, cupy.abs = np.sum, np.abs
        stream = types.SimpleNamespace(ptr=0)
        cupy.cuda = types.SimpleNamespace(get_current_stream=lambda: stream, Device=Device)
        return cupy


@contextlib.contextmanager
def replaced(modules):
    """For a while, `import` finds these modules under their names."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@contextlib.contextmanager
def install(emulated):
    """For a while, `pendel` finds this module as ``_cuda`` and the stand-in as CuPy."""
    names = {"pendel.operator._cuda": emulated.module, "cupy": emulated.cupy}
    names |= {"cuda": types.ModuleType("cuda"), "cuda.pathfinder": emulated.pathfinder}
    with replaced(names):
        yield emulated
