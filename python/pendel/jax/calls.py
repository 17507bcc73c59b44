"""Checks that name the argument, and calls of NumPy code from traced JAX code.

JAX's gradients are dL/dRe - i dL/dIm, the conjugates of pendel's.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..base import checks
from ..operator.crystals import leading_shape
from . import foreign_calls

# Of dq and the parameters: what takes them works in double precision, which loses nothing of single.
OFFSETS = ("float64", "float32")
SUSCEPTIBILITIES = ("complex128", "complex64")


def suitable(name: str, value, shape: tuple, dtypes: tuple, axes: str):
    """``value`` as an array of JAX; None stays None.

    Parameters
    ----------
    value : array of JAX or NumPy, traced or not, or None
    shape : tuple of int or None
        Of the last axes; None: of any length.
    dtypes : tuple of str or numpy.dtype
    axes : str
        Names of the axes for the message.

    Raises
    ------
    TypeError
        For another dtype.
    ValueError
        For another shape.
    """
    if value is None:
        return None
    if not isinstance(value, jax.Array | np.ndarray):
        raise TypeError(f"{name}: expected an array of JAX or NumPy, got {checks.describe(value)}")
    if value.dtype not in map(np.dtype, dtypes):
        wants = " or ".join(map(str, dtypes))
        raise TypeError(
            f"{name}: expected an array of {wants}, got {value.dtype}; nothing is cast unasked: use "
            f".astype('{dtypes[0]}'), or an operator or model of another dtype (double precision needs "
            "jax.config.update('jax_enable_x64', True))"
        )
    array = jnp.asarray(value)
    if array.dtype != value.dtype:
        raise TypeError(
            f"{name}: expected an array that JAX takes as it is, got {value.dtype}, of which it makes {array.dtype}; "
            f"use .astype('{array.dtype}') or jax.config.update('jax_enable_x64', True)"
        )
    last = array.shape[max(0, array.ndim - len(shape)) :]
    if len(last) < len(shape) or any(n is not None and n != m for n, m in zip(shape, last, strict=True)):
        listed = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape (..., {axes}) = (..., {listed}), got {array.shape}")
    return array


def refuse_other_devices(name: str, device: str) -> None:
    """ValueError for an operator or model that does not compute on the CPU."""
    if device != "cpu":
        raise ValueError(f"{name}: expected device 'cpu', where JAX can call it, got device '{device}'")


def level(arrays, axes) -> tuple:
    """Arrays or None with as many leading axes each, of length 1 where they had none.

    axes : how many axes each has for one crystal.
    """
    deepest = max(a.ndim - n for a, n in zip(arrays, axes, strict=True) if a is not None)
    return tuple(
        None if a is None else a.reshape(*[1] * (deepest - a.ndim + n), *a.shape)
        for a, n in zip(arrays, axes, strict=True)
    )


def call(function, owner, keep, arrays, axes, results) -> list:
    """What ``function`` makes of NumPy arrays, as a traced operation without a derivative.

    Parameters
    ----------
    function : callable
        Of a module: (owner, keep, *arrays, summed_to, out) -> arrays or None; see `pendel.operator.crystals.one_by_one`
        for summed_to. ``out``: arrays or None for the results, which it may write to and return.
    owner : TakagiTaupin or Model
    keep : bool
    arrays : sequence of array or None
        As `level` leaves them.
    axes : sequence of int
        How many axes each has for one crystal.
    results : sequence of (leading shape, shape, dtype) or None
        Of each result; None where there is none.
    """
    traced = len(leading_shape(arrays, axes))
    given, wanted = tuple(a is not None for a in arrays), tuple(r is not None for r in results)
    leads = tuple(r and r[0] for r in results)

    def on_host(*present, out=None):
        there = iter(map(np.asarray, present))
        every = [next(there) if g else None for g in given]
        leading = leading_shape(every, axes)
        batch = leading[: len(leading) - traced]  # of vmap, which wants it in all results
        summed_to = [() if lead is None else (*batch, *lead) for lead in leads]
        if out is not None:
            places = iter(out)
            out = [next(places) if w else None for w in wanted]
        found = function(owner, keep, *every, summed_to=summed_to, out=out)
        return [np.asarray(f, r[2]) for r, f in zip(results, found, strict=True) if r is not None]

    key = function, owner, keep, traced, given, leads, tuple(str(r and r[2]) for r in results)
    shapes = [jax.ShapeDtypeStruct((*r[0], *r[1]), r[2]) for r in results if r is not None]

    @jax.custom_jvp
    def compute(*present):
        if foreign_calls.AVAILABLE:
            return foreign_calls.call(on_host, key, shapes, present)
        return jax.pure_callback(on_host, shapes, *present, vmap_method="expand_dims")

    compute.defjvp(_refuse_second_derivative)
    made = iter(compute(*(a for a in arrays if a is not None)))
    return [next(made) if w else None for w in wanted]


def _refuse_second_derivative(primals, tangents):
    """Of what is called: the first derivative of a sweep is a call of its own."""
    raise RuntimeError(
        "pendel.jax: expected a first derivative; its gradients are computed by reversal of the sweep and cannot be "
        "differentiated again (grad of grad, hessian)"
    )


def results_like(arrays, axes) -> list:
    """``results`` of `call` that are gradients with respect to these arrays or None."""
    return [
        None if a is None else (a.shape[: a.ndim - n], a.shape[a.ndim - n :], a.dtype)
        for a, n in zip(arrays, axes, strict=True)
    ]


def conjugated(gradients, out):
    """pendel's own gradients, NumPy arrays or None, as JAX's: in ``out``, of the same shapes, or in their place."""
    places = gradients if out is None else out
    pairs = zip(gradients, places, strict=True)
    return [None if gradient is None else np.conj(gradient, out=place) for gradient, place in pairs]
