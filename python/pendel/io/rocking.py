"""Which of the positions that were recorded with each frame is the rocking angle: the one that turns."""

from dataclasses import dataclass

import numpy as np

AT_REST = 1e-2  # of the span of the motor that moves most: a motor at rest jitters by less
SAME = 0.3  # of a step: a motor as it was sent and as it is read back differ by less
TREND = 0.5  # correlation with the number of the frame, above which a motor with less than a tenth of that span moves

CURE = "where other angles hold, give them (experiment.rocking_step_deg), and rocking=False to the reader"

# Said of energy scans: k, the susceptibilities and what the operator makes of both are those of one wavelength.
OTHER_ENERGIES = (
    "frames at different energies; pendel models rocking scans, with the susceptibilities of one wavelength: take one "
    "of the same crystal"
)


@dataclass(frozen=True)
class Motor:
    """Positions (frame,) in rad of a motor that turns, and the lab axis (3,) it turns about, where that is known."""

    name: str
    positions: np.ndarray
    axis: tuple[float, float, float] | None = None


def rocking_motor(where: str, motors: list[Motor], needed: bool = True) -> Motor | None:
    """The motor that moved during a scan; None without motors and, where it is not ``needed``, without one that moved.

    Raises ValueError, naming the motors, where it is needed and none moves or several do that are not the same one by
    another name.
    """
    if not motors:
        return None
    try:
        return _rocking_motor(where, motors)
    except ValueError as error:
        if needed:
            raise ValueError(f"{error}; {CURE}") from None
        return None


def _rocking_motor(where, motors):
    """That of `rocking_motor`, which is needed."""
    for motor in motors:
        if not np.isfinite(motor.positions).all():
            raise ValueError(f"{where}: {motor.name}: expected finite angles, got NaN or infinite ones")
    if len(motors[0].positions) == 1:
        return motors[0] if len(motors) == 1 else None
    moving = _moving(motors)
    listed = ", ".join(f"{m.name} by {np.degrees(np.ptp(m.positions)):.3g} deg" for m in motors)
    if not moving:
        raise ValueError(f"{where}: expected one motor that turns from frame to frame, got none: {listed}")
    first = next((motor for motor in moving if motor.axis is not None), moving[0])
    step = np.ptp(first.positions) / (len(first.positions) - 1)
    for other in moving:
        if np.abs(other.positions - first.positions).max() > SAME * step or not _agree(first.axis, other.axis):
            raise ValueError(f"{where}: expected one motor that turns from frame to frame, got several: {listed}")
    return first


def _moving(motors):
    """Those that are not at rest."""
    spans = [np.ptp(motor.positions) for motor in motors]
    largest = max(spans)
    if largest < 1e-9:
        return []
    number = np.arange(len(motors[0].positions))
    moving = []
    for motor, span in zip(motors, spans, strict=True):
        if span <= AT_REST * largest:
            continue
        if span < 0.1 * largest and abs(np.corrcoef(number, motor.positions)[0, 1]) < TREND:
            continue
        moving.append(motor)
    return moving


def _agree(one, other):
    """Whether two axes, None for unknown, are the same."""
    return one is None or other is None or np.allclose(one, other, atol=1e-6)


def turn(axis, angle: float) -> np.ndarray:
    """(3, 3) right-handed rotation by ``angle`` (rad) about a unit vector (3,)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], float)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
