"""The shared libraries with the compiled sweeps, called through their C interface (csrc/interface.cpp).

They know nothing of Python, so one build serves every version of it.
"""

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_size_t
from pathlib import Path
from typing import Any

import numpy as np

from . import structures
from .plan import Plan
from .structures import Args, Extent, Filter, args_of

ERRORS = {1: ValueError, 2: MemoryError, 3: RuntimeError}  # numbered as `Kind` in interface.cpp


def path_of(name: str) -> Path:
    """Where the library of that name is installed, or ImportError."""
    # editable installs have two; a folder of their own, because they are no modules
    folders = [Path(folder) / "libraries" for folder in sys.modules[__package__].__path__]
    for folder in folders:
        if (folder / f"{name}.so").is_file():
            return folder / f"{name}.so"
    raise ImportError(f"{name}: expected {name}.so in {', '.join(map(str, folders))}, found none")


class Sweeps:
    """What both libraries have. Addresses of arrays are made by ``address_of``, those on a device are given as such.

    Parameters
    ----------
    path : path
        Of the shared library; an attribute too.

    Raises
    ------
    ImportError
        Where it cannot be loaded, or belongs to another version of this package.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._library = ctypes.CDLL(str(path))  # lets other threads run during a call
            theirs = self._text("pendel_layout")
        except (OSError, AttributeError) as error:
            raise ImportError(f"{path}: expected pendel's shared library: {error}") from error
        here = {name: f"{offset} {size}" for name, (offset, size) in structures.layout().items()}
        if dict(line.split(" ", 1) for line in theirs.splitlines()) != here:
            raise ImportError(f"{path}: expected the library of this version of pendel, found another; install again")

    def _text(self, name: str) -> str:
        function = getattr(self._library, name)
        function.restype = c_char_p
        return function().decode()

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function that can fail."""
        kind = getattr(self._library, name)(*arguments)
        if kind:
            raise ERRORS[kind](self._text("pendel_message"))

    def address_of(self, name: str, value: Any, writes: bool = False) -> int | None:
        """Of an array or None; ``writes``: whether something is written there."""
        return value

    def _args(self, plan: Plan, given: dict[str, Any], written: dict[str, Any]) -> Args:
        addresses = {name: self.address_of(name, value) for name, value in given.items()}
        addresses |= {name: self.address_of(name, value, writes=True) for name, value in written.items()}
        return args_of(plan, **addresses)

    def enumerators(self) -> dict[str, dict[str, int]]:
        """The enum classes of csrc/run.h by name."""
        found: dict[str, dict[str, int]] = {}
        for line in self._text("pendel_enumerators").splitlines():
            name, number = line.split(" ")
            found.setdefault(name.split(".")[0], {})[name.split(".")[1]] = int(number)
        return found

    def workspace(self, plan: Plan, adjoint: bool) -> int:
        size = c_size_t()
        self._call("pendel_workspace", byref(args_of(plan)), plan.single, adjoint, byref(size))
        return size.value

    def forward(
        self,
        plan: Plan,
        *,
        dq: Any,
        S: Any,
        s_0: Any = None,
        incident: Any = None,
        E_h: Any,
        E_0: Any = None,
        layers: Any = None,
    ) -> None:
        """`Engine.forward`."""
        given = {"dq": dq, "S": S, "s_0": s_0, "incident": incident}
        args = self._args(plan, given, {"E_h": E_h, "E_0": E_0, "layers": layers})
        self._call("pendel_forward", byref(args), plan.single)

    def adjoint(
        self,
        plan: Plan,
        *,
        dq: Any,
        S: Any,
        s_0: Any = None,
        incident: Any = None,
        support: Any = None,
        E_h: Any,
        E_0: Any,
        layers: Any = None,
        adj_E_h: Any,
        adj_S: Any,
        adj_s_0: Any = None,
        adj_incident: Any = None,
        adj_dq: Any = None,
        adj_medium: Any = None,
        drift: Any = None,
        entrance_E_0: Any = None,
        entrance_G: Any = None,
    ) -> None:
        """`Engine.adjoint`."""
        given = {"dq": dq, "S": S, "s_0": s_0, "incident": incident, "support": support}
        given |= {"E_h": E_h, "E_0": E_0, "layers": layers, "adj_E_h": adj_E_h}
        written = {"adj_S": adj_S, "adj_s_0": adj_s_0, "adj_incident": adj_incident, "adj_dq": adj_dq}
        written |= {"adj_medium": adj_medium, "drift": drift, "entrance_E_0": entrance_E_0, "entrance_G": entrance_G}
        self._call("pendel_adjoint", byref(self._args(plan, given, written)), plan.single)


class CpuLibrary(Sweeps):
    """pendel_cpu. Arrays are NumPy's, C-contiguous and aligned, of the shapes and dtypes that csrc/run.h says."""

    def address_of(self, name: str, value: Any, writes: bool = False) -> int | None:
        if value is None:
            return None
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name}: expected a NumPy array, got {type(value).__name__}")
        if not (value.flags.aligned and value.flags.c_contiguous):
            raise ValueError(f"{name}: expected an aligned C-contiguous array, got another; copy it")
        if writes and not value.flags.writeable:
            raise ValueError(f"{name}: expected an array to write to, got a read-only one")
        return value.ctypes.data

    def _filled(self, structure: Any, given: dict[str, Any], written: dict[str, Any]) -> None:
        for name, value in given.items():
            setattr(structure, name, self.address_of(name, value))
        for name, value in written.items():
            setattr(structure, name, self.address_of(name, value, writes=True))

    def lifted_rows(self, plan: Plan, *, S: np.ndarray, s_0: np.ndarray | None = None) -> list[bool]:
        """Which rows of a crystal are marched with the lifted coupling; for tests."""
        dq, rows = np.zeros((1, 3)), np.zeros(plan.shape[1], np.uint8)
        args = self._args(plan, {"dq": dq, "S": S, "s_0": s_0}, {})
        args.frames = 1
        self._call("pendel_lifted_rows", byref(args), plan.single, self._bytes(rows))
        return [bool(row) for row in rows]

    @staticmethod
    def _bytes(array: np.ndarray) -> Any:
        return array.ctypes.data_as(POINTER(ctypes.c_uint8))

    def extent(self, *, S: np.ndarray, threads: int, size: np.ndarray, filled: np.ndarray) -> None:
        """Write |S| to ``size`` and where S is not 0 to ``filled``."""
        args = Extent(**dict(zip(("nz", "ny", "nx"), S.shape, strict=True)), threads=threads)
        self._filled(args, {"S": S}, {"size": size, "filled": filled})
        self._call("pendel_extent", byref(args), S.dtype == np.complex64)

    def filter(
        self,
        *,
        values: np.ndarray,
        taps_y: np.ndarray,
        taps_x: np.ndarray,
        wanted: np.ndarray | None,
        S: np.ndarray | None,
        adj_size: np.ndarray | None,
        threads: int,
        filtered: np.ndarray,
    ) -> None:
        """Write what the taps make of ``values``, and ``adj_size`` of S with it, to ``filtered``."""
        nz, ny, nx = values.shape
        args = Filter(nz=nz, ny=ny, nx=nx, reach=(taps_y.shape[1] - 1) // 2, threads=threads)
        given = {"values": values, "taps_y": taps_y, "taps_x": taps_x, "wanted": wanted, "S": S, "adj_size": adj_size}
        self._filled(args, given, {"filtered": filtered})
        self._call("pendel_filter", byref(args), values.dtype == np.complex64)

    def cpu_isa(self) -> str:
        """Instruction set in use."""
        return self._text("pendel_cpu_isa")

    def cpu_lanes(self, single: bool) -> int:
        """Rocking angles per pack."""
        return self._library.pendel_cpu_lanes(single)

    def fourier_row_length(self, need: int) -> int:
        """Smallest length >= ``need`` of a row that the row FFTs take, or ValueError."""
        length = c_long()
        self._call("pendel_fourier_row_length", c_long(need), byref(length))
        return length.value


class CudaLibrary(Sweeps):
    """pendel_cuda. Arrays are given as their addresses on the device."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        self._library.pendel_fused_shared.restype = c_size_t
        self.FUSED_SHARED: int = self._library.pendel_fused_shared()

    def needs_cufft(self, plan: Plan, adjoint: bool) -> bool:
        """Whether a sweep takes cuFFT."""
        needs = c_int()
        self._call("pendel_needs_cufft", byref(args_of(plan)), plan.single, adjoint, byref(needs))
        return bool(needs.value)

    def load_cufft(self, path: str) -> int:
        """Load cuFFT from there; its version. RuntimeError where that fails."""
        version = c_int()
        self._call("pendel_load_cufft", c_char_p(str(path).encode()), byref(version))
        return version.value

    def state(self) -> dict[str, str]:
        """ "driver", "device 0", ... with name and memory; or "problem": why no device can be used."""
        lines = self._text("pendel_state").splitlines()
        return dict(line.split("\t", 1) for line in lines)
