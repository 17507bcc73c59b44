"""Detectors as they are mounted, brought to pendel's way: columns along the arm's +x, rows along its -y."""

import math

import numpy as np

Turns = tuple[tuple[str, float], ...]


def mounted(array: np.ndarray, rows: str, columns: str) -> np.ndarray:
    """Pixels (..., row, col) with rows along -y and columns along +x.

    Parameters
    ----------
    array : (..., row, col).
    rows, columns : lab axes, "x+" to "y-", along which row and column grow at arm angles of zero.

    Raises
    ------
    ValueError : where they are not one of x and one of y.
    """
    if {rows[:1], columns[:1]} != {"x", "y"}:
        raise ValueError(f"expected detector axes along x and y, got {rows!r} and {columns!r}")
    if rows[0] == "x":
        array, rows, columns = np.swapaxes(array, -1, -2), columns, rows
    if rows == "y+":
        array = np.flip(array, -2)
    if columns == "x-":
        array = np.flip(array, -1)
    return np.ascontiguousarray(array)


def mounted_pixel(pixel: tuple[float, float], shape: tuple[int, int], rows: str, columns: str) -> tuple[float, float]:
    """Where `mounted` brings the (fractional, also outside) pixel (row, col) of an array of ``shape``."""
    (row, column), (height, width) = pixel, shape
    if rows[0] == "x":
        row, column, height, width, rows, columns = column, row, width, height, columns, rows
    return (height - 1 - row if rows == "y+" else row, width - 1 - column if columns == "x-" else column)


def arm_to_pixel(arm: Turns, beam: tuple, pixel: tuple, pixel_size: tuple, distance: float) -> tuple[Turns, float]:
    """Turns of an arm whose axis meets the detector at ``pixel`` instead of ``beam``, and the distance to there.

    Parameters
    ----------
    arm : turns of the detector arm, outermost first, (axis, rad).
    beam : (row, col) that the direct beam hits at arm angles of zero.
    pixel : (row, col).
    pixel_size : (row, col) m.
    distance : m, along the arm's own axis.

    Returns
    -------
    arm, distance (m)
    """
    across = (pixel[1] - beam[1]) * pixel_size[1]  # along the arm's +x
    up = (beam[0] - pixel[0]) * pixel_size[0]  # rows grow along -y
    beside = math.atan2(across, distance)
    above = math.atan2(up, math.hypot(across, distance))
    return (*arm, ("y+", beside), ("x-", above)), math.sqrt(across**2 + up**2 + distance**2)
