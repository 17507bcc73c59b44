"""Which engine a device stands for, and what this installation can use."""

import functools
import re
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ..base import checks
from ..base.version import __version__
from .cpu_engine import Cpu, available_threads, instruction_set
from .cuda_engine import Cuda, cuda_problem, cuda_state
from .engine import Engine


class OnEngine(Protocol):
    """What has an engine."""

    @property
    def engine(self) -> Engine: ...


P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound=OnEngine)


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
    if device == "cpu":
        return Cpu()
    return Cuda(int(match.group(1) or 0))


def on_device(method: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """Run a method with the device of ``self.engine`` as the current one, where new arrays come to lie."""

    @functools.wraps(method)
    def run(self: Self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.engine.here():
            return method(self, *args, **kwargs)

    return run


def cuda_available() -> bool:
    """Whether device 'cuda' can be used here: CUDA engine built, driver and device present, CuPy importable.

    Returns
    -------
    bool
    """
    return cuda_problem() is None


def info() -> dict[str, str]:
    """What this installation is and uses: version, CPU instruction set, lanes, threads, CUDA state.

    Returns
    -------
    dict of str
    """
    problem = cuda_problem()
    return {
        "pendel": __version__,
        **instruction_set(),
        "threads": str(available_threads()),
        "cuda": f"not used: {problem}" if problem else "usable",
        **{f"cuda {key}": value for key, value in cuda_state().items()},
    }
