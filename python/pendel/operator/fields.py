"""What a sweep gives back: fields for its adjoint, and gradients."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np

from .engine import Array


class _Adjoint(NamedTuple):
    S: Array
    s_0: Array | None
    incident: Array
    dq: Array


class Adjoint(_Adjoint):
    """Gradients of a real scalar L, ``dL = Re sum conj(adj_X) dX``: a tuple of four, and two more where asked for.

    Attributes
    ----------
    S : complex (nz, ny, nx)
    s_0 : real (nz, ny, nx), None where s_0 was not given (then ``S`` holds that path)
    incident : complex (ny, nx)
    dq : float64 (frames, 3), detuning and exit ramp both [m]
    chi : complex128 (3,), of chi_0, chi_h, chi_hbar, or None
        With ``parameters=True``, and no item of the tuple.
    geometry : float64 (2,), of voxel_scale and two_theta [1/rad], or None
        The arguments of `TakagiTaupin.with_parameters`; as ``chi``.
    """

    chi: Array | None = None
    geometry: Array | None = None


class State(NamedTuple):
    """What the adjoint needs of a forward sweep: both exit fields, E_0 on its whole internal row.

    With ``resync=K`` also ``layers``, complex (stored, 2, frames, ny, nx): E_0 and G in the box behind the coupling of
    layers K - 1, 2 K - 1, ..., the last one left out; None where there are none.
    """

    E_h: Array
    E_0_row: Array
    layers: Array | None = None


class StateShapes(NamedTuple):
    """Shapes of the arrays of a `State`; None where there is no array."""

    E_h: tuple[int, ...]
    E_0_row: tuple[int, ...]
    layers: tuple[int, ...] | None


# Of a crystal in an X-ray beam, and of its fit to counted photons, at most.
USUAL = {"S": 1e2, "s_0": 1e2, "dq": 1e12, "incident": 1e6, "E_h": 1e6, "adj_E_h": 1e12, "adj_F": 1e12, "adj_D": 1e12}
USUAL |= {"flux": 1e6, "scale": 1e20, "data": 1e20}
LARGEST_PHASE = 1e9  # rad: 1e-7 of it is left of a double's digits, as many as complex64 has


def refuse_overflow(dtype: Any, **arguments: Any) -> None:
    """ValueError for finite arguments, by name or None, of which sweep or loss in ``dtype`` made infinity or NaN.

    It names the one that exceeds what is usual by most.
    """
    largest = {name: float(np.abs(value).max()) for name, value in arguments.items() if value is not None}
    name = max(largest, key=lambda name: largest[name] / USUAL[name])
    raise ValueError(
        f"{name}: expected values whose results {np.dtype(dtype)} can hold (usual are up to {USUAL[name]:g}), got "
        f"absolute values up to {largest[name]:.3g}"
    )


def refuse_phases_without_digits(dq: Array, shape: tuple[int, ...], voxel: tuple[float, ...]) -> None:
    """ValueError for dq (frames, 3), rad/m, whose phases in a box are so large that doubles know no angle of them."""
    extent = max(n * step for n, step in zip(shape, voxel, strict=True))
    largest, most = float(np.abs(dq).max()), LARGEST_PHASE / extent
    if largest > most:
        raise ValueError(
            f"dq: expected values up to {most:.3g} rad/m, whose phases in a box of {extent:.3g} m have digits (usual "
            f"are up to {USUAL['dq']:g}), got absolute values up to {largest:.3g}"
        )


class HasExit(Protocol):
    """What has exit fields."""

    @property
    def exit_shape(self) -> tuple[int, int]: ...


P = ParamSpec("P")
T = TypeVar("T")
Operator = TypeVar("Operator", bound=HasExit)


def naming_frames(
    sweep: Callable[Concatenate[Operator, Any, Any, P], T],
) -> Callable[Concatenate[Operator, Any, Any, P], T]:
    """A sweep (self, S, dq, ...) whose MemoryError names the frames: its memory grows with them."""

    @functools.wraps(sweep)
    def run(self: Operator, S: Any, dq: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return sweep(self, S, dq, *args, **kwargs)
        except MemoryError as error:
            raise MemoryError(
                f"dq: expected frames whose sweep fits into memory (estimate_memory tells), got {len(dq)} of shape "
                f"{self.exit_shape}; give fewer at a time"
            ) from error

    return run


def check_state(state: Any, shapes: StateShapes, dtype: np.dtype) -> None:
    """TypeError or ValueError unless ``state`` is a `State` of C-contiguous arrays of these shapes and this dtype."""
    if not isinstance(state, State):
        raise TypeError(f"state: expected the State of forward(..., return_state=True), got {type(state).__name__}")
    for field, array, shape in zip(state._fields, state, shapes, strict=True):
        got = None if array is None else f"{array.dtype} of shape {array.shape}"
        wants = shape and f"{dtype} of shape {shape}"
        if got != wants or (array is not None and not array.flags.c_contiguous):
            raise ValueError(
                f"state: expected that of forward with the same arguments, {field} {wants}, got {got}"
                + ("" if got != wants else " in another memory order")
            )
