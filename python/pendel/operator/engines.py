"""Which engine a device stands for, and what this installation can use."""

import functools
import re
from collections.abc import Callable
from typing import Any

from ..base import checks
from ..base.version import __version__
from .cpu_engine import Cpu, available_threads, instruction_set
from .cuda_engine import Cuda, cuda_problem, cuda_state
from .engine import Engine


def engine_for(device: Any) -> Engine:
    """The engine of a device "cpu", "cuda" or "cuda:N".

    Raises
    ------
    ValueError
        For anything else, and for a device that is not there.
    RuntimeError
        Without a CUDA device that can be used.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if not match:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {checks.describe(device)}")
    return Cpu() if device == "cpu" else Cuda(int(match.group(1) or 0))


def on_device(method: Callable) -> Callable:
    """Run a method with the device of ``self.engine`` as the current one, where new arrays come to lie."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with self.engine.here():
            return method(self, *args, **kwargs)

    return run


def cuda_available() -> bool:
    """Whether device 'cuda' can be used here: CUDA engine built, driver and device present, CuPy importable."""
    return cuda_problem() is None


def info() -> dict[str, str]:
    """What this installation is and uses: version, CPU instruction set, lanes, threads, CUDA state."""
    problem = cuda_problem()
    return {
        "pendel": __version__,
        **instruction_set(),
        "threads": str(available_threads()),
        "cuda": f"not used: {problem}" if problem else "usable",
        **{f"cuda {key}": value for key, value in cuda_state().items()},
    }
