"""Axes of the lab frame, given by name, such as "y+", or as three components."""

from typing import Any, TypeGuard

import numpy as np

from . import checks
from .arrays import binary_scale

Axis = str | tuple[float, float, float]


def axis_vector(name: str, axis) -> np.ndarray:
    """Unit vector of an axis.

    Parameters
    ----------
    name : what the axis is called in an error message.
    axis : "x+", "x-", ... "z-", or three components of any length above zero.

    Returns
    -------
    (3,) float64, lab components.

    Raises
    ------
    TypeError, ValueError : where ``axis`` is neither.
    """
    if is_named(axis):
        if len(axis) != 2 or axis[0] not in "xyz" or axis[1] not in "+-":
            raise ValueError(f"{name}: expected an axis such as 'y+' or 'x-', or three numbers, got {axis!r}")
        return (1.0 if axis[1] == "+" else -1.0) * np.eye(3)["xyz".index(axis[0])]
    vector = checks.array(name, axis, (3,), np.float64)
    vector = vector / binary_scale(vector)
    length = np.linalg.norm(vector)
    if length == 0:
        raise ValueError(f"{name}: expected a vector of non-zero length, got {vector.tolist()}")
    return vector / length


def axis_as_given(name: str, axis) -> Axis:
    """``axis``, checked as by `axis_vector`: a name stays as it is, components become a tuple of three floats."""
    axis_vector(name, axis)
    if is_named(axis):
        return axis
    x, y, z = axis
    return float(x), float(y), float(z)


def is_named(axis: Any) -> TypeGuard[str]:
    """Whether an axis is given by its name; all else is taken for components."""
    return isinstance(axis, str)
