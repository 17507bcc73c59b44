"""The CUDA engine: the sweeps of `_cuda` on CuPy arrays, and what of CUDA an installation has.

Neither `_cuda` nor CuPy is imported before a device is asked for: an installation without them is complete.
"""

import dataclasses
import importlib
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np

from ..base import checks
from ..base.arrays import refuse_more_than_numbers, scipy_module
from . import cuda_filter
from .engine import Array
from .plan import Launch, Plan


def _restored(index: int, unfused: bool, chunk: int) -> "Cuda":
    """A pickled `Cuda`, where there is such a device."""
    engine = Cuda(index)
    engine.unfused, engine.chunk = unfused, chunk
    return engine


class Cuda:
    """The `Engine` on CuPy arrays, on the caller's current stream; outputs and workspace from CuPy's pool.

    Nothing waits for the device. So values are not read: NaN in gives NaN out, and where the reversed sweep has lost
    its digits the gradient ``S`` is NaN.

    Attributes
    ----------
    index : int
        Of the device.
    unfused : bool
        March layer by layer also what could stay on chip: where a block is given too little shared memory, as consumer
        cards do. Tests and benchmarks set it.
    chunk : int
        Frames on their way together when unfused; 0: as memory allows. Tests set it.
    """

    reads_values = False

    def __init__(self, index: int):
        problem = cuda_problem()
        if problem:
            raise RuntimeError(f"device: expected a CUDA device that can be used, got none: {problem}")
        self._cuda, self.xp = cuda_module(), importlib.import_module("cupy")
        count = sum(key.startswith("device ") for key in self._cuda.state())
        if index >= count:
            raise ValueError(f"device: expected one of {count} CUDA devices, cuda:0 ... cuda:{count - 1}, got {index}")
        self.index = index
        self.unfused = self.xp.cuda.Device(index).attributes["MaxSharedMemoryPerBlockOptin"] < self._cuda.FUSED_SHARED
        self.chunk = 0

    def __reduce__(self):
        return _restored, (self.index, self.unfused, self.chunk)  # modules cannot be pickled

    def here(self) -> AbstractContextManager:
        return self.xp.cuda.Device(self.index)

    def scipy(self, name: str) -> ModuleType:
        return scipy_module(name, self.xp)

    def upload(self, value: Any, name: str = "array") -> Array | None:
        refuse_more_than_numbers(name, value)
        with self.here():
            return None if value is None else self.xp.asarray(value)

    def array(self, name: str, value: Any, shape: tuple, dtype: Any, *, axes: str | None = None) -> Array:
        value, dtype = self.take(name, value), np.dtype(dtype)
        checks.kind_and_shape(name, value, shape, dtype, axes)
        return self.xp.ascontiguousarray(value, dtype=dtype)

    def take(self, name: str, value: Any) -> Array:
        """As `Engine.take`: any array on this device (CUDA array interface, DLPack); NumPy arrays are TypeErrors."""
        if not isinstance(value, self.xp.ndarray):
            value = self._taken(name, value)
        if value.device.id != self.index:
            raise ValueError(f"{name}: expected an array on cuda:{self.index}, got one on cuda:{value.device.id}")
        return value

    def _taken(self, name: str, value: Any) -> Array:
        """An array of another library on a device as a CuPy array, without a copy."""
        has_interface = hasattr(value, "__cuda_array_interface__")
        if isinstance(value, np.ndarray) or not (has_interface or hasattr(value, "__dlpack__")):
            raise TypeError(
                f"{name}: expected a CuPy array for device 'cuda', got {checks.describe(value)}; convert it with "
                "cupy.asarray, or use device='cpu'"
            )
        try:
            return self.xp.asarray(value) if has_interface else self.xp.from_dlpack(value)
        except Exception as error:
            raise TypeError(
                f"{name}: expected an array on a CUDA device, got {checks.describe(value)}: {error}"
            ) from None

    def seal(self, array: Array) -> None:
        pass  # CuPy has no read-only arrays

    def prepare(self, plan: Plan) -> None:
        """Load cuFFT if the adjoint of this plan takes it; a forward sweep takes it only where its adjoint does."""
        if self._cuda.needs_cufft(self._launched(plan), adjoint=True):
            load_cufft(self._cuda)

    def workspace(self, plan: Plan, *, adjoint: bool) -> int:
        self.prepare(plan)
        with self.here():  # a plan of cuFFT is made here
            return self._cuda.workspace(self._launched(plan), adjoint)

    def forward(self, plan: Plan, **arrays: Array | None) -> None:
        self._sweep(self._cuda.forward, plan, False, arrays)

    def adjoint(self, plan: Plan, **arrays: Array | None) -> None:
        self._sweep(self._cuda.adjoint, plan, True, arrays)

    def _sweep(self, sweep, plan: Plan, adjoint: bool, arrays: dict[str, Array | None]) -> None:
        """Call a sweep of `_cuda` with the addresses of the arrays, on the current stream."""
        xp = self.xp
        with self.here():
            workspace = xp.empty(self.workspace(plan, adjoint=adjoint), xp.uint8)  # freed in the stream's order
            stream = xp.cuda.get_current_stream().ptr or None
            addresses = {name: None if a is None else a.data.ptr for name, a in arrays.items()}
            sweep(self._launched(plan, workspace.data.ptr, stream), **addresses)

    def _launched(self, plan: Plan, workspace: int | None = None, stream: int | None = None) -> Plan:
        """The plan with a place to run."""
        launch = Launch(device=self.index, workspace=workspace, stream=stream, unfused=self.unfused, chunk=self.chunk)
        return dataclasses.replace(plan, launch=launch)

    def extent(self, S: Array, *, threads: int) -> tuple[Array, Array]:
        return self.xp.abs(S), S != 0

    def filter(
        self,
        values: Array,
        taps_y: Array,
        taps_x: Array,
        wanted: Array | None = None,
        *,
        S: Array | None = None,
        adj_size: Array | None = None,
        threads: int,
    ) -> Array:
        filtered = cuda_filter.filtered(self.xp, values, taps_y, taps_x, wanted)
        if adj_size is not None:
            filtered += cuda_filter.adj_of_size(self.xp, S, adj_size, wanted)
        return filtered

    def check_drift(self, drift: Array, limit: float, adj_S: Array) -> None:
        adj_S *= self.xp.where(drift.max() <= limit, 1, np.nan).astype(adj_S.real.dtype)


def cuda_module() -> ModuleType:
    """The module `_cuda`, or ImportError."""
    return importlib.import_module("._cuda", __package__)


def cuda_problem() -> str | None:
    """Why device 'cuda' cannot be used here, or None."""
    try:
        state = cuda_module().state()
    except ImportError as error:
        return f"this installation has no CUDA engine ({error}); install with -C cmake.define.PENDEL_CUDA=ON"
    if "problem" in state:
        return state["problem"]
    try:
        importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported ({error}); pip install 'pendel[cuda13]' or 'pendel[cuda12]'"
    return None


def cuda_state() -> dict[str, str]:
    """What `_cuda` knows: "driver", "device 0", ..., "cufft"; empty without it."""
    state = {}
    try:
        module = cuda_module()
        state = module.state()
        state["cufft"] = load_cufft(module)
    except ImportError:
        pass
    except RuntimeError as error:
        state["cufft"] = " ".join(f"not found: {error.__cause__}".split())
    state.pop("problem", None)
    return state


def load_cufft(module: ModuleType) -> str:
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
