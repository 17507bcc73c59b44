"""`pendel.TakagiTaupin` as a function of JAX."""

import functools

import jax
import numpy as np

from ..base import checks
from ..operator import crystals
from ..operator.crystals import AXES, STATE_AXES, Given, leading_shape
from ..operator.fields import State
from ..operator.takagi_taupin import TakagiTaupin
from .calls import OFFSETS, SUSCEPTIBILITIES, call, conjugated, level, refuse_other_devices, results_like, suitable


def takagi_taupin(
    S: jax.Array,
    dq: jax.Array,
    op: TakagiTaupin,
    s_0: jax.Array | None = None,
    incident: jax.Array | None = None,
    chi: jax.Array | None = None,
    geometry: jax.Array | None = None,
) -> jax.Array:
    """Exit fields E_h of the crystal function S for every rocking offset; differentiable once, in reverse mode.

    Axes before those of one crystal are a batch; they are broadcast against each other, and vmap adds to them.

    Parameters
    ----------
    S : complex (..., nz, ny, nx)
        Crystal function, of the dtype of ``op``, as the others are.
    dq : float64 or float32 (..., frames, 3)
        h' - h in the model frame [rad/m].
    op : pendel.TakagiTaupin
        On device "cpu"; under jit a constant.
    s_0 : real (..., nz, ny, nx), optional
        Electron-density shape on the diagonal. None: |S|.
    incident : complex (..., ny, nx), optional
        E_0 on the plane of the first voxel centres. None: the plane wave, 1.
    chi : complex128 or complex64 (..., 3), optional
        chi_0, chi_h, chi_hbar in place of those of ``op``.
    geometry : float64 or float32 (..., 2), optional
        voxel_scale and two_theta [rad] of `pendel.TakagiTaupin.with_parameters`. None: (1, op.two_theta).

    Returns
    -------
    E_h : complex (..., frames, *op.exit_shape)

    Raises
    ------
    TypeError
        Of kind or dtype, naming the argument; nothing is cast.
    ValueError
        Of shape or device, naming the argument.
    jax.errors.JaxRuntimeError
        When it runs: with the ValueError of NaN, or the RuntimeError of a reversal without digits, in its text.
    """
    if not isinstance(op, TakagiTaupin):
        raise TypeError(f"op: expected a pendel.TakagiTaupin, got {checks.describe(op)}")
    refuse_other_devices("op", op.device)
    S = suitable("S", S, op.shape, (op.dtype,), "nz, ny, nx")
    dq = suitable("dq", dq, (None, 3), OFFSETS, "frames, 3")
    s_0 = suitable("s_0", s_0, op.shape, (op.real_dtype,), "nz, ny, nx")
    incident = suitable("incident", incident, op.shape[1:], (op.dtype,), "ny, nx")
    chi = suitable("chi", chi, (3,), SUSCEPTIBILITIES, "3")
    geometry = suitable("geometry", geometry, (2,), OFFSETS, "2")
    return _exit_fields(op, *level((S, dq, s_0, incident, chi, geometry), AXES))


def _sweep(op, given: Given, keep: bool):
    """`State` of all crystals, without ``keep`` E_h alone."""
    leading = leading_shape(given, AXES)
    shapes = op.state_shapes(given.dq.shape[-2], incident=given.incident is not None)
    wanted = [True, keep, keep and shapes.layers is not None]
    results = [(leading, n, op.dtype) if w else None for n, w in zip(shapes, wanted, strict=True)]

    return State(*call(_forward_of_arrays, op, keep, given, AXES, results))


def _forward_of_arrays(op, keep, *arrays, summed_to, out):
    return crystals.forward(op, Given(*arrays), keep=keep, out=out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _exit_fields(op, *given):
    return _sweep(op, Given(*given), keep=False).E_h


def _forward(op, *given):
    state = _sweep(op, Given(*given), keep=True)
    return state.E_h, (Given(*given), state)


def _backward(op, residuals, cotangent):
    given, state = residuals
    arrays, axes = (*given, cotangent, *state), (*AXES, 3, *STATE_AXES)
    return tuple(call(_adjoint_of_arrays, op, True, arrays, axes, results_like(given, AXES)))


def _adjoint_of_arrays(op, keep, *arrays, summed_to, out):
    given, cotangent, state = Given(*arrays[: len(AXES)]), arrays[len(AXES)], State(*arrays[len(AXES) + 1 :])
    gradients = crystals.adjoint(op, given, np.conj(cotangent), state, summed_to)
    return conjugated(gradients, out)


_exit_fields.defvjp(_forward, _backward)
