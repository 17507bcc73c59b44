"""The arguments of an `Experiment` as they were given: in SI units, or in keV and degrees by name."""

import math
from typing import Any

import numpy as np

from ..base import checks, plausible
from ..base.axes import axis_as_given
from .photons import energy_in_joule

# Arguments that say the same thing, of which one is given: each takes the place of the others.
SAME = (
    ("energy", "wavelength", "energy_keV"),
    ("arm", "k_h", "two_theta_deg"),
    ("rocking_angles", "rocking_angles_deg"),
)
FEWEST, MOST = 8, 1000  # frames of a scan; fewer are single settings, more are a table of them
# Of what the detector covers in reciprocal space: the most between two frames, where a crystal would have two voxels,
# and from the first frame to the last. A scan in degrees taken for radians is 57 times too wide.
MOST_OF_A_STEP, MOST_OF_A_SCAN = 0.5, 20.0
LOOKS_LIKE_DEGREES = "that looks like deg: give rocking_angles_deg"


def in_si_units(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with energy (J), arm and rocking angles (rad) in place of those in keV and degrees.

    Raises
    ------
    TypeError, ValueError : naming the argument, also where several say the same thing.
    """
    for names in SAME:
        given = [name for name in names if arguments[name] is not None]
        # of wavelength and energy, arm and k_h, `Experiment` says it
        if len(given) > 1 and given[-1] == names[-1]:
            raise ValueError(f"{', '.join(given)}: expected one of them, got {len(given)}")
    two_theta, angles = arguments["two_theta_deg"], arguments["rocking_angles_deg"]
    energy = energy_in_joule(arguments["energy"], arguments["energy_keV"])
    arguments = arguments | dict.fromkeys([names[-1] for names in SAME]) | {"energy": energy}
    if two_theta is not None:
        two_theta = plausible.number(plausible.TURN, "two_theta_deg", two_theta, "deg")
        arguments["arm"] = (("y+", math.radians(two_theta)),)
    if angles is not None:
        angles = checks.array("rocking_angles_deg", angles, (None,), np.float64)
        arguments["rocking_angles"] = np.radians(angles)
    elif arguments["rocking_angles"] is None:
        raise TypeError("rocking_angles: expected the angles of all frames, got none")
    return arguments


def replaced(arguments: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The arguments with changes, each in the place of those that say the same."""
    arguments = arguments | changes
    for names in SAME:
        if any(name in changes for name in names):
            arguments |= {name: None for name in names if name not in changes}
    return arguments


def checked_pitch(value) -> float:
    """The pixel pitch, m, of one number or two equal ones."""
    if np.ndim(value) == 0:
        return plausible.number(plausible.PIXEL, "pixel_size", value)
    row, col = plausible.lengths(plausible.PIXEL, "pixel_size", value, 2)
    if row != col:
        raise ValueError(f"pixel_size: expected equal row and column pitch, got {(row, col)}; bin the data to it")
    return row


def checked_arm(arm) -> tuple:
    """((axis, rad), ...), axes as given."""
    try:
        steps = [(axis, angle) for axis, angle in arm]
    except (TypeError, ValueError):
        raise ValueError(f"arm: expected pairs (axis, angle), outermost first, got {arm!r}") from None
    return tuple(
        (axis_as_given(f"arm[{i}][0]", axis), plausible.number(plausible.TURN, f"arm[{i}][1]", angle))
        for i, (axis, angle) in enumerate(steps)
    )


def checked_angles(value) -> np.ndarray:
    """Rocking angles (frame,), rad."""
    angles = checks.array("rocking_angles", value, (None,), np.float64)
    if angles.size == 0:
        raise ValueError("rocking_angles: expected at least 1 angle, got 0")
    if np.abs(angles).max() > 2 * math.pi:
        got = f"{angles.min():.6g} to {angles.max():.6g}"
        raise ValueError(f"rocking_angles: expected rad, -2 pi to 2 pi, got {got}; {LOOKS_LIKE_DEGREES}")
    return angles.copy()


def refuse_scan_in_degrees(experiment) -> None:
    """ValueError where frames lie further apart than anything that the detector sees."""
    angles = np.sort(experiment.rocking_angles)
    if not FEWEST <= angles.size <= MOST:
        return
    turned = np.linalg.norm(np.cross(experiment.rocking_axis, experiment.h))  # of Q, per rad
    seen = 2 * math.pi * max(experiment.detector_shape) / experiment.field_of_view
    step, span = float(np.median(np.diff(angles))), float(np.ptp(angles))
    if turned * step > MOST_OF_A_STEP * seen or turned * span > MOST_OF_A_SCAN * seen:
        most = MOST_OF_A_STEP * seen / turned, MOST_OF_A_SCAN * seen / turned
        raise ValueError(
            f"rocking_angles: expected rad, steps up to {most[0]:.3g} and a scan up to {most[1]:.3g}, of one peak on "
            f"this detector, got steps of {step:.3g} and a scan of {span:.3g}; {LOOKS_LIKE_DEGREES}"
        )
