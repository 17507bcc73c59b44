"""The frames of a `pendel.Model` as a function of JAX."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..base import checks
from ..model import frames as many
from ..model.frames import AXES, Given
from ..model.model import Model
from ..operator.crystals import leading_shape
from .calls import OFFSETS, call, conjugated, level, refuse_other_devices, results_like, suitable

INDICES = ("int64", "int32")


def frames(
    S: jax.Array,
    model: Model,
    frames: Any = None,
    s_0: jax.Array | None = None,
    dq: jax.Array | None = None,
    flux: jax.Array | None = None,
) -> jax.Array:
    """Computed intensities of a model, with far field, polarisation and curved Ewald sphere.

    Differentiable once, in reverse mode. Axes before those of one crystal are a batch; they are broadcast against each
    other, and vmap adds to them.

    Parameters
    ----------
    S : complex (..., nz, ny, nx)
        Crystal function, of the dtype of the model, as the others are.
    model : pendel.Model
        On device "cpu"; under jit a constant.
    frames : integers (..., L), optional
        Indices of the frames wanted. None: all.
    s_0 : real (..., nz, ny, nx), optional
        None: |S|.
    dq : float64 or float32 (..., n_frames, 3), optional
        [rad/m], to replace those of the experiment.
    flux : real (..., n_frames), optional
        Relative incident intensity that multiplies D of each frame. None: 1.

    Returns
    -------
    D : real (..., L, rows, cols)

    Raises
    ------
    TypeError, ValueError
        Naming the argument; nothing is cast.
    jax.errors.JaxRuntimeError
        When it runs: with the ValueError of values, or the RuntimeError of a reversal without digits, in its text.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model: expected a pendel.Model, got {checks.describe(model)}")
    refuse_other_devices("model", model.device)
    n, real = model.n_frames, (model.real_dtype,)
    given = Given(
        S=suitable("S", S, model.shape, (model.dtype,), "nz, ny, nx"),
        s_0=suitable("s_0", s_0, model.shape, real, "nz, ny, nx"),
        dq=suitable("dq", dq, (n, 3), OFFSETS, "n_frames, 3"),
        flux=suitable("flux", flux, (n,), real, "n_frames"),
        frames=None if frames is None else suitable("frames", jnp.asarray(frames), (None,), INDICES, "L"),
    )
    return _intensities(model, *level(given, AXES))


def _run(model, given: Given, keep: bool):
    """[D, and with ``keep`` what the adjoint needs]."""
    leading = leading_shape(given, AXES)
    count = model.n_frames if given.frames is None else given.frames.shape[-1]
    results = [(leading, (count, *model.experiment.detector_shape), model.real_dtype)]
    if keep:
        results += [(leading, shape, model.dtype) for shape in many.kept_shapes(model, count)]

    return call(_forward_of_arrays, model, keep, given, AXES, results)


def _forward_of_arrays(model, keep, *arrays, summed_to, out):
    D, kept = many.forward(model, Given(*arrays), keep=keep)
    return D, *kept


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _intensities(model, S, s_0, dq, flux, frames):
    return _run(model, Given(S, s_0, dq, flux, frames), keep=False)[0]


def _forward(model, *given):
    D, *kept = _run(model, Given(*given), keep=True)
    return D, (Given(*given), kept)


def _backward(model, residuals, cotangent):
    given, kept = residuals
    axes = (*AXES, 3, *many.kept_axes(model, len(kept)))
    results = [*results_like(given[:-1], AXES[:-1]), None]  # none of indices
    return tuple(call(_adjoint_of_arrays, model, True, (*given, cotangent, *kept), axes, results))


def _adjoint_of_arrays(model, keep, *arrays, summed_to, out):
    adj_D, kept = arrays[len(AXES)], list(arrays[len(AXES) + 1 :])
    gradients = many.adjoint(model, Given(*arrays[: len(AXES)]), adj_D, kept, summed_to)
    return gradients._replace(S=conjugated([gradients.S], out and out[:1])[0])


_intensities.defvjp(_forward, _backward)
