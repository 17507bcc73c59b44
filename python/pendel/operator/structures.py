"""The structures of csrc/run.h that a sweep takes, member by member, and how a `Plan` fills them."""

import ctypes
from ctypes import c_bool, c_double, c_int, c_long, c_void_p
from typing import Any

from .plan import Orientation, Plan, Scheme, Transport


class Complex(ctypes.Structure):
    """Of double precision."""

    _fields_ = (("re", c_double), ("im", c_double))


class Args(ctypes.Structure):
    """A sweep; what each member means is said in csrc/run.h."""

    _fields_ = (
        *((name, c_long) for name in ("frames", "nz", "ny", "nx", "row")),
        *((name, c_int) for name in ("scheme", "transport", "orientation")),
        *((name, c_long) for name in ("resync", "exit")),
        ("shift", c_int),
        *((name, c_double) for name in ("pixels", "tan_h", "dz", "dy", "dx")),
        *((name, Complex) for name in ("m", "w", "b", "c")),
        ("threads", c_int),
        *((name, c_void_p) for name in ("dq", "S", "s_0", "incident", "support", "E_h", "E_0", "layers", "adj_E_h")),
        *((name, c_void_p) for name in ("adj_S", "adj_s_0", "adj_incident", "adj_dq", "adj_medium", "drift")),
        *((name, c_void_p) for name in ("entrance_E_0", "entrance_G", "workspace", "stream")),
        ("device", c_int),
        ("unfused", c_bool),
        ("chunk", c_long),
    )


class Extent(ctypes.Structure):
    """|S| and where S is not 0."""

    _fields_ = (
        *((name, c_long) for name in ("nz", "ny", "nx")),
        ("threads", c_int),
        *((name, c_void_p) for name in ("S", "size", "filled")),
    )


class Filter(ctypes.Structure):
    """A few taps along y and along x."""

    _fields_ = (
        *((name, c_long) for name in ("nz", "ny", "nx", "reach")),
        ("threads", c_int),
        *((name, c_void_p) for name in ("values", "taps_y", "taps_x", "wanted", "S", "adj_size", "filtered")),
    )


def layout() -> dict[str, tuple[int, int]]:
    """{"Args.frames": (offset, size), ...} of every member of the three."""
    members: dict[str, tuple[int, int]] = {}
    for structure in (Args, Extent, Filter):
        for name, member in vars(structure).items():
            if hasattr(member, "offset"):
                members[f"{structure.__name__}.{name}"] = member.offset, member.size
    return members


def args_of(plan: Plan, **addresses: int | None) -> Args:
    """A plan with the addresses of its arrays, those that are not given None.

    Raises
    ------
    ValueError
        For a number that is no enumerator.
    """
    args = Args(
        frames=plan.frames, row=plan.row_length, exit=plan.exit_length, resync=plan.resync, threads=plan.threads
    )
    args.nz, args.ny, args.nx = plan.shape
    args.dz, args.dy, args.dx = plan.voxel
    args.m, args.w, args.b, args.c = (Complex(z.real, z.imag) for z in plan.medium)

    args.scheme = _number("scheme", plan.scheme, Scheme)
    args.transport = _number("transport", plan.transport, Transport)
    args.orientation = _number("orientation", plan.orientation, Orientation)
    args.shift, args.pixels, args.tan_h = plan.shift, plan.pixels_per_layer, plan.tan_h

    if plan.launch is not None:
        args.device, args.unfused, args.chunk = plan.launch.device, plan.launch.unfused, plan.launch.chunk
        args.workspace, args.stream = plan.launch.workspace, plan.launch.stream
    for name, address in addresses.items():
        setattr(args, name, address)
    return args


def _number(name: str, value: Any, kind: type) -> int:
    last = len(kind.__members__) - 1  # type: ignore[attr-defined]
    if not 0 <= value <= last:
        raise ValueError(f"{name}: expected an integer from 0 to {last}, got {value}")
    return int(value)
