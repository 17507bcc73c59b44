"""What a sweep is, apart from its arrays: the record that an engine hands to csrc, where it becomes `Args` of run.h."""

import dataclasses
import enum


class Scheme(enum.IntEnum):
    """How transport and coupling of a layer are put together; numbered as in csrc/run.h, and so are the next two."""

    STRANG = 0
    ETD2RK = 1


class Transport(enum.IntEnum):
    """How a field moves along x from layer to layer: by whole pixels, by its row's FFT, or by an all-pass filter."""

    SHIFT = 0
    FOURIER = 1
    BOX = 2


class Orientation(enum.IntEnum):
    """Where z points: along k_h, or along k_0 + k_h."""

    K_H = 0
    SYMMETRIC = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how a sweep runs on a CUDA device."""

    device: int
    workspace: int | None = None  # address of `Engine.workspace` bytes on the device; None: not to be run
    stream: int | None = None  # address of the CUDA stream; None: the default stream
    unfused: bool = False  # march layer by layer also what fits on chip
    chunk: int = 0  # frames on their way together when unfused; 0: as memory allows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep without its arrays. Nobody changes one: `dataclasses.replace` makes that of another number of frames."""

    frames: int = 1
    shape: tuple[int, int, int]  # (nz, ny, nx)
    voxel: tuple[float, float, float]  # (dz, dy, dx) [m]
    medium: tuple[complex, complex, complex, complex]  # m, w, b, c of csrc/README.md, section 2
    scheme: Scheme
    transport: Transport
    orientation: Orientation
    shift: int  # transport SHIFT: whole pixels that E_0 moves per layer; else 0
    pixels_per_layer: float  # that E_0 moves
    tan_h: float  # orientation SYMMETRIC: tan(theta), the slope of E_h; else 0
    row_length: int  # places of a row of E_0
    exit_length: int  # places of a row of E_h
    resync: int  # the adjoint takes up stored fields every so many layers; nz: never
    threads: int  # of the CPU
    single: bool  # arrays are complex64 and float32; else complex128 and float64
    launch: Launch | None = None  # on a CUDA device
