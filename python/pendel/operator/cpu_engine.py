"""The CPU engine: the sweeps of `_core` on NumPy arrays, y rows shared among threads."""

import contextlib
import os
from types import ModuleType
from typing import Any

import numpy as np

from ..base import checks
from ..base.arrays import host, scipy_module
from . import _core
from .plan import Plan


class Cpu:
    """The `Engine` on NumPy arrays; results do not depend on the number of threads."""

    xp: ModuleType = np
    reads_values = True

    def here(self) -> contextlib.nullcontext:
        return contextlib.nullcontext()

    def scipy(self, name: str) -> ModuleType:
        return scipy_module(name)

    def upload(self, value: Any, name: str = "array") -> np.ndarray | None:
        return host(value, name)

    def array(self, name: str, value: Any, shape: tuple, dtype: Any, *, axes: str | None = None) -> np.ndarray:
        return checks.array(name, value, shape, dtype, axes=axes)

    def take(self, name: str, value: Any) -> np.ndarray:
        return checks.numpy_array(name, value)

    def seal(self, array: np.ndarray) -> None:
        array.flags.writeable = False

    def prepare(self, plan: Plan) -> None:
        pass  # all of it is in `_core`

    def workspace(self, plan: Plan, *, adjoint: bool) -> int:
        return _core.workspace(plan, adjoint)

    def forward(self, plan: Plan, **arrays: np.ndarray | None) -> None:
        _core.forward(plan, **arrays)

    def adjoint(self, plan: Plan, **arrays: np.ndarray | None) -> None:
        _core.adjoint(plan, **arrays)

    def extent(self, S: np.ndarray, *, threads: int) -> tuple[np.ndarray, np.ndarray]:
        size, filled = np.empty(S.shape, S.real.dtype), np.empty(S.shape, bool)
        _core.extent(S=S, threads=threads, size=size, filled=filled)
        return size, filled

    def filter(
        self,
        values: np.ndarray,
        taps_y: np.ndarray,
        taps_x: np.ndarray,
        wanted: np.ndarray | None = None,
        *,
        S: np.ndarray | None = None,
        adj_size: np.ndarray | None = None,
        threads: int,
    ) -> np.ndarray:
        filtered = np.empty_like(values)
        taps = {"taps_y": taps_y, "taps_x": taps_x}
        _core.filter(values=values, **taps, wanted=wanted, S=S, adj_size=adj_size, threads=threads, filtered=filtered)
        return filtered

    def check_drift(self, drift: np.ndarray, limit: float, adj_S: np.ndarray) -> None:
        if not drift.max() <= limit:
            raise RuntimeError(
                f"adjoint: expected the reversed sweep to come within {limit:g} of the entrance state and of "
                f"stored layers, got {drift.max():.2g}; absorption this strong needs dtype='complex128' or "
                "scheme='etd2rk', or resync after fewer layers (or S is far above 1)"
            )


def available_threads() -> int:
    """Threads used by default: PENDEL_NUM_THREADS, else the CPUs this process may run on."""
    wish = os.environ.get("PENDEL_NUM_THREADS")
    if wish is not None:
        if not wish.isdigit() or int(wish) < 1:
            raise ValueError(f"PENDEL_NUM_THREADS: expected an integer >= 1, got {wish!r}")
        return int(wish)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fourier_row_length(need: int) -> int:
    """Smallest length >= ``need`` of a row that the row FFTs of both engines take."""
    return _core.fourier_row_length(need)


def instruction_set() -> dict[str, str]:
    """What `pendel.info` says of the compiled sweeps: their instruction set, and rocking angles per pack."""
    return {
        "cpu instruction set": _core.cpu_isa(),
        "rocking angles per pack": f"{_core.cpu_lanes(True)} (complex64), {_core.cpu_lanes(False)} (complex128)",
    }
