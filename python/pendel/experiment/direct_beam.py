"""Detectors that the arm does not turn about their middle: the direction that a pixel really looks in.

With the arm at zero the direct beam hits pixel (r_0, c_0), so this is the pixel that the arm's angles point at.

(1) u = (z D + p ((c - c_0) e_col + (r - r_0) e_row)) / D',   D' the length of the numerator
(2) k_h = k R u,   R the arm, e_col and e_row the detector's axes with the arm at zero
(3) u = R_y(alpha) R_-x(beta) z,   beta = arcsin u_y,   alpha = atan2(u_x, u_z): two more turns, inside of the arm

The plane of the detector is taken as perpendicular to k_h at D'. What this leaves out is the tilt psi = angle(u, z):
the pixel pitch shrinks by cos psi along one direction, 5e-4 for 256 pixels of 55 um at 0.45 m.
"""

import math

import numpy as np

from ..base import checks, plausible
from ..base.axes import Axis, axis_vector

MOST_TILT = 0.3  # rad: a detector of 0.3 m at 1 m


def arm_through_pixel(
    arm: tuple[tuple[Axis, float], ...],
    *,
    pixel: tuple[float, float],
    direct_beam: tuple[float, float],
    distance: float,
    pixel_size: float | tuple[float, float],
    pixel_orientation: tuple[Axis, Axis] = ("x+", "y-"),
) -> tuple[tuple[tuple[Axis, float], ...], float]:
    """Arm and distance for an `Experiment` whose k_h hits a pixel that the arm's angles do not point at.

    Parameters
    ----------
    arm : turns of the detector arm as its motors say, ((axis, rad), ...), outermost first.
    pixel : (row, col) that k_h hits: the centre of the pattern.
    direct_beam : (row, col) that the direct beam hits with the arm at zero, counted alike; also off the detector.
    distance : m, along the arm.
    pixel_size : m, one number or (row, col).
    pixel_orientation : directions of growing (column, row) with the arm at zero.

    Returns
    -------
    arm : the turns as given and two more, about y+ and x-.
    distance : m, to ``pixel``.

    Raises
    ------
    TypeError, ValueError : naming the parameter, also where the pixel lies more than `MOST_TILT` off the arm.
    """
    pixel = checks.array("pixel", pixel, (2,), np.float64)
    direct_beam = checks.array("direct_beam", direct_beam, (2,), np.float64)
    distance = plausible.number(plausible.DISTANCE, "distance", distance)
    pixel_size = (pixel_size,) * 2 if np.ndim(pixel_size) == 0 else pixel_size
    pitch = np.array(plausible.lengths(plausible.PIXEL, "pixel_size", pixel_size, 2))
    column, row = (axis_vector("pixel_orientation", axis) for axis in pixel_orientation)

    rows, columns = (pixel - direct_beam) * pitch
    line = np.array([0.0, 0.0, distance]) + columns * column + rows * row
    length = float(np.linalg.norm(line))
    x, y, z = line / length
    tilt = math.acos(min(z, 1.0))
    if tilt > MOST_TILT:
        raise ValueError(
            f"direct_beam: expected a pixel within {MOST_TILT} rad of the pattern at {pixel.tolist()}, got "
            f"{direct_beam.tolist()}, {tilt:.3g} rad off"
        )
    turns = (("y+", math.atan2(x, z)), ("x-", math.asin(y)))
    return (*((axis, float(angle)) for axis, angle in arm), *turns), length
