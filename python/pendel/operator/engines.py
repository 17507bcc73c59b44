"""Where an operator runs: the CPU engine `_core` on NumPy arrays, or the CUDA engine `_cuda` on CuPy arrays.

Both engines have ``xp`` (the array module), ``scipy`` (SciPy's modules for its arrays), ``array`` and ``take`` (the
check of an argument), ``upload``, ``here`` (makes the device the current one), ``looks`` (whether values are looked at)
and the two sweeps with the arrays' order of ``csrc/bindings.cpp``.
"""

import contextlib
import functools
import importlib
import os
import re

import numpy as np

from ..base import arrays, checks
from ..base.version import __version__
from . import _core


def available_threads():
    """Threads used by default: PENDEL_NUM_THREADS, else the CPUs this process may run on."""
    wish = os.environ.get("PENDEL_NUM_THREADS")
    if wish is not None:
        if not wish.isdigit() or int(wish) < 1:
            raise ValueError(f"PENDEL_NUM_THREADS: expected an integer >= 1, got {wish!r}")
        return int(wish)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


FUSED_SHARED = 160 << 10  # bytes of shared memory per block, what the fused kernels may take (sweep_fused.h)


class Cpu:
    """NumPy arrays; results do not depend on the number of threads."""

    xp = np
    looks = True
    here = staticmethod(contextlib.nullcontext)
    array = staticmethod(checks.array)
    take = staticmethod(checks.numpy_array)
    upload = staticmethod(arrays.host)
    scipy = staticmethod(arrays.scipy_module)
    forward = staticmethod(_core.forward)
    adjoint = staticmethod(_core.adjoint)

    @staticmethod
    def seal(array):
        array.flags.writeable = False

    @staticmethod
    def check_drift(drift, most, adj_S):
        """Raise RuntimeError if the reversed sweep has lost its digits."""
        if not drift.max() <= most:
            raise RuntimeError(
                f"adjoint: expected the reversed sweep to come within {most:g} of the entrance state and of "
                f"stored layers, got {drift.max():.2g}; absorption this strong needs dtype='complex128' or "
                "scheme='etd2rk', or resync after fewer layers (or S is far above 1)"
            )


class Cuda:
    """CuPy arrays, on the caller's current stream; outputs and workspace from CuPy's pool.

    Nothing waits for the device. So values are not looked at: NaN in gives NaN out, and where the reversed sweep has
    lost its digits the gradient ``S`` is NaN.
    """

    looks = False

    def __init__(self, index, plan, single):
        problem = cuda_problem()
        if problem:
            raise RuntimeError(f"device: expected a CUDA device that can be used, got none: {problem}")
        self._cuda, self.xp = importlib.import_module("._cuda", __package__), importlib.import_module("cupy")
        count = sum(key.startswith("device ") for key in self._cuda.state())
        if index >= count:
            raise ValueError(f"device: expected one of {count} CUDA devices, cuda:0 ... cuda:{count - 1}, got {index}")
        self.index = index
        if self.here().attributes["MaxSharedMemoryPerBlockOptin"] < FUSED_SHARED:
            plan["unfused"] = True  # consumer cards: rows do not fit on chip
        self._ready(plan | {"frames": 1}, single, True)  # raises where cuFFT is missing

    def workspace(self, plan, single, adjoint):
        """Bytes of workspace a sweep takes."""
        plan = self._ready(plan, single, adjoint)
        with self.xp.cuda.Device(self.index):  # a plan of cuFFT is made here
            return self._cuda.workspace(plan, single, adjoint)

    def _ready(self, plan, single, adjoint):
        """``plan`` with a place to run, and cuFFT loaded if it takes that."""
        plan = plan | {"device": self.index, "workspace": None, "stream": None}
        if self._cuda.needs_cufft(plan, single, adjoint):
            load_cufft(self._cuda)
        return plan

    def here(self):
        """Context in which new arrays come to lie on this device."""
        return self.xp.cuda.Device(self.index)

    def scipy(self, name):
        """cupyx.scipy.``name``."""
        return arrays.scipy_module(name, self.xp)

    def upload(self, value):
        """``value``, a host array or one on any device, as a CuPy array on this device. None stays None."""
        with self.here():
            return None if value is None else self.xp.asarray(value)

    def array(self, name, value, shape, dtype, *, axes=None):
        """Return ``value`` as a C-contiguous CuPy array of ``dtype`` on this device, checked but for its values.

        Any array that lies on the device is taken (CUDA array interface, DLPack). Raises TypeError or ValueError as
        ``checks.array``; NumPy arrays are TypeErrors, because nothing is copied between host and device unasked.
        """
        value, dtype = self.take(name, value), np.dtype(dtype)
        checks.kind_and_shape(name, value, shape, dtype, axes)
        return self.xp.ascontiguousarray(value, dtype=dtype)

    def take(self, name, value):
        """``value`` as a CuPy array on this device, of whatever shape and dtype, or TypeError or ValueError."""
        xp, given = self.xp, value
        if not isinstance(value, xp.ndarray):
            if isinstance(value, np.ndarray) or not (
                hasattr(value, "__cuda_array_interface__") or hasattr(value, "__dlpack__")
            ):
                raise TypeError(
                    f"{name}: expected a CuPy array for device 'cuda', got {checks.describe(given)}; convert it with "
                    "cupy.asarray, or use device='cpu'"
                )
            take = xp.asarray if hasattr(value, "__cuda_array_interface__") else xp.from_dlpack
            try:
                value = take(value)
            except Exception as error:
                raise TypeError(
                    f"{name}: expected an array on a CUDA device, got {checks.describe(given)}: {error}"
                ) from None
        if value.device.id != self.index:
            raise ValueError(f"{name}: expected an array on cuda:{self.index}, got one on cuda:{value.device.id}")
        return value

    def forward(self, plan, *arrays_and_single):
        *arrays, single = arrays_and_single
        self._run(self._cuda.forward, False, plan, single, arrays)

    def adjoint(self, plan, *arrays_and_single):
        *arrays, single = arrays_and_single
        self._run(self._cuda.adjoint, True, plan, single, arrays)

    def _run(self, sweep, adjoint, plan, single, arrays):
        xp = self.xp
        with xp.cuda.Device(self.index):
            workspace = xp.empty(self.workspace(plan, single, adjoint), xp.uint8)  # freed in the stream's order
            place = {
                "device": self.index,
                "workspace": workspace.data.ptr,
                "stream": xp.cuda.get_current_stream().ptr or None,
            }
            sweep(plan | place, *(None if a is None else a.data.ptr for a in arrays), single)

    @staticmethod
    def seal(array):
        pass  # CuPy has no read-only arrays

    def check_drift(self, drift, most, adj_S):
        adj_S *= self.xp.where(drift.max() <= most, 1, np.nan).astype(adj_S.real.dtype)


def on_device(method):
    """Run a method with the device of ``self._engine`` as CuPy's current one, where new arrays come to lie."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with self._engine.here():
            return method(self, *args, **kwargs)

    return run


def parse(device):
    """Index of a CUDA device, or None for the CPU; raises ValueError for anything but cpu, cuda and cuda:N."""
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if not match:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {checks.describe(device)}")
    return None if device == "cpu" else int(match.group(1) or 0)


def cuda_problem():
    """Why device 'cuda' cannot be used here, or None."""
    try:
        state = importlib.import_module("._cuda", __package__).state()
    except ImportError as error:
        return f"this installation has no CUDA engine ({error}); install with -C cmake.define.PENDEL_CUDA=ON"
    if "problem" in state:
        return state["problem"]
    try:
        importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported ({error}); pip install 'pendel[cuda13]' or 'pendel[cuda12]'"
    return None


def load_cufft(module):
    """Load cuFFT into the CUDA engine; returns "version, path". Raises RuntimeError that says what to install."""
    try:
        path = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cufft").abs_path
        version = module.load_cufft(path)
    except (ImportError, RuntimeError) as error:  # DynamicLibNotFoundError is a RuntimeError
        raise RuntimeError(
            "device: expected cuFFT for scheme 'etd2rk', orientation 'symmetric' or rows this long, found none; "
            f"pip install 'pendel[cuda13]' or 'pendel[cuda12]', or use device='cpu' ({error})"
        ) from error
    return f"{version // 1000}.{version % 1000 // 100}.{version % 100}, {path}"


def cuda_available():
    """Whether device 'cuda' can be used here: CUDA engine built, driver and device present, CuPy importable."""
    return cuda_problem() is None


def info():
    """What this installation is and uses: version, CPU instruction set, lanes, threads, CUDA state (a dict of str)."""
    problem = cuda_problem()
    state = {}
    try:
        module = importlib.import_module("._cuda", __package__)
        state = module.state()
        state["cufft"] = load_cufft(module)
    except ImportError:
        pass
    except RuntimeError as error:
        state["cufft"] = " ".join(f"not found: {error.__cause__}".split())
    state.pop("problem", None)
    return {
        "pendel": __version__,
        "cpu instruction set": _core.cpu_isa(),
        "rocking angles per pack": f"{_core.cpu_lanes(True)} (complex64), {_core.cpu_lanes(False)} (complex128)",
        "threads": str(available_threads()),
        "cuda": f"not used: {problem}" if problem else "usable",
    } | {f"cuda {key}": value for key, value in state.items()}
