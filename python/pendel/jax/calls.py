"""Checks that name the argument, and calls of NumPy code from traced JAX code.

JAX's gradients are dL/dRe - i dL/dIm, the conjugates of pendel's.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..base import checks

OFFSETS = (np.dtype("float64"), np.dtype("float32"))  # of dq: the sweep takes float64, which loses nothing of float32


def suitable(name: str, value, shape: tuple, dtypes: tuple, axes: str):
    """``value`` as an array of JAX; None stays None.

    Parameters
    ----------
    value : array of JAX or NumPy, traced or not, or None
    shape : tuple of int or None
        Of the last axes; None: of any length.
    dtypes : tuple of numpy.dtype
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
    array = jnp.asarray(value)
    if array.dtype not in dtypes or value.dtype not in dtypes:
        wants = " or ".join(map(str, dtypes))
        hint = "" if jax.config.jax_enable_x64 else "; without jax_enable_x64 JAX has single precision only"
        raise TypeError(
            f"{name}: expected an array of {wants}, got {value.dtype}; nothing is cast unasked: use "
            f".astype('{dtypes[0]}'), or an operator or model of another dtype{hint}"
        )
    last = array.shape[max(0, array.ndim - len(shape)) :]
    if len(last) < len(shape) or any(n is not None and n != m for n, m in zip(shape, last, strict=True)):
        listed = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape (..., {axes}) = (..., {listed}), got {array.shape}")
    return array


def call(function, results, *arguments):
    """``function`` of NumPy arrays, as a traced operation with these ``results``, (shape, dtype) each.

    Under vmap all arguments and results have one axis more in front, of length 1 where vmap leaves an argument alone.
    """
    shapes = [jax.ShapeDtypeStruct(*result) for result in results]

    def on_host(*given):
        arrays = jax.tree.map(np.asarray, given)
        found = function(*arrays)
        ...

    return jax.pure_callback(on_host, shapes, *arguments, vmap_method="expand_dims")
