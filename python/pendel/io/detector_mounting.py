"""Detectors as they are mounted, brought to the way that scans have them: columns along the arm's +x, rows along -y."""

import numpy as np


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
