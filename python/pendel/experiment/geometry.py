"""Geometry of a Bragg rocking scan: from beam, detector arm and rocking axis to the model frame of the operator.

Lab frame: z along the beam, y up, x = y x z. Model frame: z along k_h (orientation "symmetric": along k_0 + k_h), x
along the part of k_0 perpendicular to z (k_0x > 0), y = z x x, normal to the scattering plane in both. SI units and
radians throughout.

(1) k_0 = k z_lab,   k_h = k R z_lab,   h = k_h - k_0,   R = product of the arm's rotations, outermost first
(2) dq_j = (R_axis(angle_j - angle_centre) - 1) h,   full rotation, model frame
(3) Q = 2 pi q - dq,   2 pi q = (2 pi p / (lambda distance)) (c e_col + r e_row),   c, r counted from the pixel k_h hits

e_col and e_row are perpendicular to k_h. On the exit plane, z = const, a wave of this q has the frequencies (q_x, q_y),
but q_x / gamma_h along x', the plane's x as seen along k_h, gamma_h = cos(k_h, z): a pixel dx of the exit plane is
gamma_h dx on the detector's axes. Nothing else changes with the orientation (csrc/README.md, section 9).

Assumptions: one detector pixel pitch p in both directions, detector plane perpendicular to k_h. (3) is the plane
through k_h; what the curved Ewald sphere adds to it is in `pendel.model.swept`.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks, plausible
from ..base.arrays import binary_scale
from ..base.axes import Axis, axis_vector
from ..io.scans import Scan
from ..operator.far_field import far_shape_for
from ..operator.physics import BOX_AS_GOOD, BOX_PIXELS
from ..operator.takagi_taupin import ORIENTATIONS
from .given import (
    checked_angles,
    checked_arm,
    checked_pitch,
    in_si_units,
    refuse_scan_in_degrees,
    replaced,
)
from .of_scans import arguments_of
from .photons import energy_of, wavelength_of

_BEAM = np.array([0.0, 0.0, 1.0])  # direction of k_0, lab
_POLARIZATIONS = ("horizontal", "vertical", "unpolarized")


def rotation(axis: Axis | ArrayLike, angle: float) -> np.ndarray:
    """Rotation matrix (3, 3) by ``angle`` (rad, right-handed) about ``axis`` ("x+", ..., or 3 lab components).

    Parameters
    ----------
    axis : "x+" to "z-", or 3 lab components
    angle : float, rad

    Returns
    -------
    (3, 3) float64
    """
    x, y, z = axis_vector("axis", axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # 1 - cos as 2 sin^2(angle/2): exact for the small angles of a rocking scan.
    return np.eye(3) + math.sin(angle) * cross + 2 * math.sin(angle / 2) ** 2 * (cross @ cross)


class Experiment:
    """A rocking scan of one reflection on a flat detector at a fixed place.

    Parameters
    ----------
    wavelength, energy, energy_keV : m, J and keV, exactly one.
    distance : sample to detector, m.
    pixel_size : m, one number or (row, col), which must be equal.
    detector_shape : (rows, cols).
    arm : rotations that carry the direct beam to k_h, (("y+", rad), ("x-", rad), ...), outermost first; or
    k_h : direction of k_h, 3 lab components; columns then grow along the horizontal y_lab x k_h; or
    two_theta_deg : one turn of the arm about lab y+, deg. Exactly one of the three.
    pixel_orientation : directions of growing (column, row) before the arm turns; ("x+", "y-").
    rocking_axis : "y+", ... or 3 lab components.
    rocking_angles, rocking_angles_deg : (n,), rad or deg, of the crystal about it, any origin, order and steps.
    centre : (frame, row, col), real numbers: the frame with dq = 0 (between frames the angle is interpolated, beyond
        them extrapolated) and the pixel k_h hits. Default: n//2 of each. The geometry cannot know the frame of the
        rocking maximum; give it when the data are at hand.
    beam_polarization : "horizontal", "vertical", "unpolarized", or the lab (x, y) components of a Jones vector.
    orientation : "k_h" or "symmetric", the model frame's z and the orientation of a `TakagiTaupin` in it.

    Attributes
    ----------
    wavelength, energy : m, J.
    k : rad/m.
    distance, pixel_size, detector_shape, n_frames, rocking_angles, centre, orientation : as above, centre three floats.
    centre_angle : rad, the rocking angle of dq = 0.
    rocking_axis : (3,) lab, unit vector.
    arm : ((axis, rad), ...), axes as given; None where k_h was given.
    arguments : dict, the parameters as they were given, in SI units, for `replace`; the centre of a crop is its own.
    k_0, k_h, h : (3,) lab, rad/m.
    two_theta : rad.
    d_spacing : 2 pi/|h|, m.
    frame : (3, 3), rows = model x, y, z in lab components.
    gamma_h : cos(k_h, z), 1 for orientation "k_h".
    dq : (n, 3) model frame, rad/m, equation (2).
    e_col, e_row : (3,) model frame, unit vectors of growing column and row, equation (3).
    roll : rad, from model x (seen along k_h) towards model y to the direction of growing column.
    flip_rows : growing row is 90 deg clockwise (True) or anticlockwise of growing column, seen so that x to y is
        anticlockwise.
    pixel : (row, col) lambda distance/(N p), m: the real-space pixel of the N detector pixels.
    field_of_view : lambda distance/p, m.
    polarization : {"sigma": .., "pi": ..}, intensity fractions of the beam; sigma is along model y.

    Raises
    ------
    TypeError, ValueError : naming the parameter, and the unit that a number looks like which is none of an experiment's
        in SI units; 2theta must lie in (0, 90 deg), "symmetric": (0, 178 deg).
    """

    def __init__(
        self,
        *,
        wavelength: float | None = None,
        energy: float | None = None,
        energy_keV: float | None = None,
        distance: float,
        pixel_size: float | tuple[float, float],
        detector_shape: tuple[int, int],
        arm: tuple[tuple[Axis, float], ...] | None = None,
        k_h: ArrayLike | None = None,
        two_theta_deg: float | None = None,
        pixel_orientation: tuple[Axis, Axis] = ("x+", "y-"),
        rocking_axis: Axis | ArrayLike = "y+",
        rocking_angles: ArrayLike | None = None,
        rocking_angles_deg: ArrayLike | None = None,
        centre: tuple[float, float, float] | None = None,
        beam_polarization: str | ArrayLike = "horizontal",
        orientation: str = "k_h",
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        self.arguments: dict[str, Any] = in_si_units(given)
        self.wavelength = wavelength_of(self.arguments["wavelength"], self.arguments["energy"])
        self.energy = energy_of(self.wavelength)
        self.k = 2 * math.pi / self.wavelength

        self.distance = plausible.number(plausible.DISTANCE, "distance", distance)
        self.pixel_size = checked_pitch(pixel_size)
        self.detector_shape = checks.sizes("detector_shape", detector_shape, 2)
        self.field_of_view = self.wavelength * self.distance / self.pixel_size
        self.pixel = tuple(self.field_of_view / n for n in self.detector_shape)

        self.rocking_angles = checked_angles(self.arguments["rocking_angles"])
        self.n_frames = self.rocking_angles.size
        self.orientation = checks.choice("orientation", orientation, tuple(ORIENTATIONS))
        self._set_frame(self.arguments["arm"], k_h, pixel_orientation)
        self.rocking_axis = axis_vector("rocking_axis", rocking_axis)
        refuse_scan_in_degrees(self)
        self._set_centre(centre)
        self.polarization = _fractions(beam_polarization, sigma=self.frame[1])

    def _set_frame(self, arm, k_h, pixel_orientation):
        """Wave vectors, the model frame and the detector's axes, equations (1) and (3)."""
        if (arm is None) == (k_h is None):
            raise ValueError(f"arm, k_h: expected exactly one, got {'none' if k_h is None else 'both'}")
        if k_h is None:
            self.arm = checked_arm(arm)
            turn = _arm_turn(self.arm)
        else:
            self.arm = None
            turn = _direct_turn(k_h)
        exit_beam = turn @ _BEAM

        self.two_theta = _scattering_angle(exit_beam, self.orientation, "arm" if k_h is None else "k_h")
        self.frame = _model_frame(exit_beam, self.orientation)
        self.gamma_h = 1.0 if self.orientation == "k_h" else math.cos(self.two_theta / 2)

        self.k_0 = self.k * _BEAM
        self.k_h = self.k * exit_beam
        self.h = self.k_h - self.k_0
        self.d_spacing = self.wavelength / (2 * math.sin(self.two_theta / 2))

        column, row = _pixel_axes(pixel_orientation, turn)
        self.e_col = self.frame @ column
        self.e_row = self.frame @ row
        self.roll = math.atan2(self.e_col[1], self.e_col[0] / self.gamma_h)
        self.flip_rows = bool(np.cross(self.e_col, self.e_row)[2] < 0)

    def _set_centre(self, centre, angle=None):
        """The centre, its angle (None: interpolated between the frames), and dq of equation (2)."""
        if centre is None:
            centre = (self.n_frames // 2, *(n // 2 for n in self.detector_shape))
        try:
            values = tuple(centre)
        except TypeError:
            values = ()
        if len(values) != 3:
            raise ValueError(f"centre: expected (frame, row, col), got {checks.describe(centre)}")
        self.centre = tuple(
            checks.number(f"centre[{i}] ({name})", v)
            for i, (name, v) in enumerate(zip(("frame", "row", "col"), values, strict=True))
        )
        self.centre_angle = _angle_at(self.rocking_angles, self.centre[0]) if angle is None else angle

        turns = [rotation(self.rocking_axis, a - self.centre_angle) - np.eye(3) for a in self.rocking_angles]
        self.dq = np.stack([self.frame @ (turn @ self.h) for turn in turns])

    @property
    def centre_offset(self) -> tuple[float, float]:
        """(row, col) of the pixel k_h hits, from the array centre n//2."""
        return tuple(c - n // 2 for c, n in zip(self.centre[1:], self.detector_shape, strict=True))

    def far_shape(self) -> int:
        """Even, FFT-friendly size of the far field whose band holds the turned detector, N >= n (|cos| + |sin|).

        Returns
        -------
        int
        """
        return far_shape_for(self.detector_shape, self.roll, self.centre_offset)

    def suggest_voxel(self, resolution: float | None = None, transport: str = "shift") -> tuple[float, float, float]:
        """Voxel for the operator and the far field.

        dy = field_of_view/N with the N of ``far_shape()``, or a larger one where ``resolution`` asks for it.
        dx = dy, and dz = dy, for ``transport="fourier"``. The same for "box", but that E_0 moves by 0.7 to 1.5 pixels
        per layer: x is sampled finer, or dz is less. For "shift" dz = m dx/tan(2theta) with the whole m >= 1
        that brings dz closest to dy; where one pixel of dx = dy makes dz > 1.5 dy (small 2theta), x is sampled finer
        by the smallest whole factor that makes dz <= 1.5 dy. Orientation "symmetric": tan(theta), and dx = dy/gamma_h,
        finer by the smallest whole factor that makes it <= 1.5 dy.

        Parameters
        ----------
        resolution : largest dy, m; None: the detector's.
        transport : "shift", "box" or "fourier", of the operator.

        Returns
        -------
        (dz, dy, dx), m.

        Raises
        ------
        TypeError, ValueError : naming the parameter.
        """
        checks.choice("transport", transport, ("shift", "box", "fourier"))
        size = self.far_shape()
        if resolution is not None:
            wanted = self.field_of_view / checks.number("resolution", resolution, above=0)
            if wanted > size:
                size = far_shape_for((math.ceil(wanted - 1e-9),) * 2, 0.0)

        dy = self.field_of_view / size
        t = math.tan(self.two_theta if self.orientation == "k_h" else self.two_theta / 2)
        wide = 1 / self.gamma_h  # in units of dy
        if transport == "box" and self.orientation == "symmetric":
            raise ValueError("transport: expected 'shift' or 'fourier' with orientation 'symmetric', got 'box'")
        widest = {"fourier": 1.5, "box": t / BOX_AS_GOOD}.get(transport, 1.5 * min(t, 1))
        finer = max(1, math.ceil(wide / widest - 1e-9))
        dx = dy * wide / finer
        if transport != "shift":
            return dy if transport == "fourier" else min(dy, BOX_PIXELS * dx / t), dy, dx
        pixels = max(1, round(t * finer / wide))
        return pixels * dx / t, dy, dx

    def detector_q(self) -> np.ndarray:
        """Frequencies (q_x, q_y) on the exit plane of every pixel, equation (3), 0 at the pixel that k_h hits.

        Returns
        -------
        float64 (rows, cols, 2), cycles/m.
        """
        row, col = (np.arange(n) - c for n, c in zip(self.detector_shape, self.centre[1:], strict=True))
        return (col[:, None] * self.e_col[:2] + row[:, None, None] * self.e_row[:2]) / self.field_of_view

    def basis(self) -> np.ndarray:
        """Steps of Q = 2 pi q - dq about the centre, per frame, row and column.

        The kinematic intensity of frame j is |S~(Q)|^2 there. The frame's column uses the mean angular step and is 0
        for a single frame.

        Returns
        -------
        float64 (3, 3), columns dQ/dframe, dQ/drow, dQ/dcol in the model frame, rad/m.
        """
        angles = self.rocking_angles
        step = (angles[-1] - angles[0]) / (self.n_frames - 1) if self.n_frames > 1 else 0.0
        slope = self.frame @ np.cross(self.rocking_axis, self.h)
        pixel = 2 * math.pi / self.field_of_view
        return np.stack([-step * slope, pixel * self.e_row, pixel * self.e_col], axis=1)

    def replace(self, **changes: Any) -> Experiment:
        """A new Experiment with the given parameters changed.

        A wavelength takes the place of an energy, an arm that of k_h, and the other way round, in whatever unit. Raises
        as the constructor does.

        Parameters
        ----------
        **changes : parameters of `Experiment`

        Returns
        -------
        Experiment
        """
        return Experiment(**replaced(self.arguments, changes))

    @classmethod
    def from_scan(cls, scan: Scan, **changes: Any) -> Experiment:
        """The Experiment of a measured scan, of what its file says.

        Where the file says the direct beam's pixel, and no arm is given, k_h goes through the centre's
        (`arm_through_pixel`).

        Parameters
        ----------
        scan : `pendel.io.Scan`.
        **changes : parameters of `Experiment` that the file does not say, or says otherwise.

        Returns
        -------
        Experiment

        Raises
        ------
        TypeError, ValueError : naming the parameter, also where neither says it.
        """
        return cls(**arguments_of(scan, changes))

    def with_centre(self, centre: tuple[float, float, float], angle: float) -> Experiment:
        """A copy with another centre, whose frame has the given rocking angle, whatever lies between the frames.

        Parameters
        ----------
        centre : (frame, row, col), as for `Experiment`.
        angle : of dq = 0, rad.

        Returns
        -------
        Experiment
        """
        copied = copy.copy(self)
        copied._set_centre(centre, angle)
        copied.arguments = self.arguments | {"centre": copied.centre}
        return copied

    def crop(self, frames: slice | None = None, rows: slice | None = None, cols: slice | None = None) -> Experiment:
        """The Experiment of ``data[frames, rows, cols]``.

        Angles and pixels keep their dq and q: the centre moves with the array.

        Parameters
        ----------
        frames : slice with a positive step; None: all.
        rows, cols : slices with step 1; None: all.

        Returns
        -------
        Experiment

        Raises
        ------
        TypeError, ValueError : naming the parameter, also where nothing is kept.
        """
        frames = _kept("frames", frames, self.n_frames)
        rows = _kept("rows", rows, self.detector_shape[0])
        cols = _kept("cols", cols, self.detector_shape[1])
        frame, row, col = (
            (c - kept.start) / kept.step for c, kept in zip(self.centre, (frames, rows, cols), strict=True)
        )
        copied = self.with_angles(self.rocking_angles[frames.start : frames.stop : frames.step], frame)
        copied.detector_shape = (len(rows), len(cols))
        copied.pixel = tuple(self.field_of_view / n for n in copied.detector_shape)
        copied.arguments = copied.arguments | {"detector_shape": copied.detector_shape}
        return copied.with_centre((frame, row, col), self.centre_angle)

    def with_angles(self, rocking_angles: ArrayLike, frame: float) -> Experiment:
        """A copy at other rocking angles of the same crystal: dq = 0 keeps its angle, whatever lies between the frames.

        Parameters
        ----------
        rocking_angles : (n,), rad.
        frame : where among them dq = 0, a real number.

        Returns
        -------
        Experiment
        """
        copied = copy.copy(self)
        copied.rocking_angles = checked_angles(rocking_angles)
        copied.n_frames = copied.rocking_angles.size
        copied.arguments = self.arguments | {"rocking_angles": copied.rocking_angles}
        return copied.with_centre((frame, *self.centre[1:]), self.centre_angle)

    def __repr__(self):
        return (
            f"Experiment(wavelength={self.wavelength:.6g} m, two_theta={math.degrees(self.two_theta):.4f} deg, "
            f"roll={math.degrees(self.roll):.3f} deg, frames={self.n_frames}, detector_shape={self.detector_shape})"
        )


def _angle_at(angles, frame):
    """The rocking angle of a frame between or beyond those measured, linear in the frame."""
    n = angles.size
    if n == 1:
        if frame != 0:
            raise ValueError(f"centre[0] (frame): expected 0 for a scan of one frame, got {frame:g}")
        return float(angles[0])
    i = min(max(math.floor(frame), 0), n - 2)
    return float(angles[i] + (frame - i) * (angles[i + 1] - angles[i]))


def _arm_turn(arm):
    """R of equation (1), (3, 3)."""
    turn = np.eye(3)
    for axis, angle in arm:
        turn = turn @ rotation(axis_vector("arm", axis), angle)
    return turn


def _direct_turn(k_h):
    """R of equation (1) whose columns stay horizontal, for a direction of k_h."""
    z = axis_vector("k_h", k_h)
    x = np.cross([0.0, 1.0, 0.0], z)
    if np.linalg.norm(x) < 1e-9:
        raise ValueError(f"k_h: expected a direction that is not vertical, got {k_h!r}")
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _scattering_angle(exit_beam, orientation, given):
    """2theta, rad, checked; ``given``: the parameter it comes from."""
    # atan2 keeps full precision at small 2theta, where arccos does not.
    two_theta = math.atan2(math.hypot(*exit_beam[:2]), exit_beam[2])
    most = ORIENTATIONS[orientation]
    if not 1e-9 < two_theta < most - 1e-9:
        hint = "; orientation='symmetric' goes up to 178 deg" if orientation == "k_h" else ""
        raise ValueError(
            f"{given}: expected 0 < 2theta < {math.degrees(most):.6g} deg, got {math.degrees(two_theta):.6g} deg{hint}"
        )
    return two_theta


def _model_frame(exit_beam, orientation):
    """(3, 3), rows = model x, y, z in lab components."""
    z = exit_beam
    if orientation == "symmetric":
        z = (_BEAM + exit_beam) / np.linalg.norm(_BEAM + exit_beam)
    x = _BEAM - (_BEAM @ z) * z
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(z, x), z])


def _pixel_axes(pixel_orientation, turn):
    """Lab directions (column, row) of growing index on the turned arm, perpendicular to k_h."""
    try:
        column, row = pixel_orientation
    except (TypeError, ValueError):
        raise ValueError(f"pixel_orientation: expected 2 axes (column, row), got {pixel_orientation!r}") from None
    column, row = (turn @ axis_vector("pixel_orientation", v) for v in (column, row))
    exit_beam = turn @ _BEAM
    if max(abs(column @ row), abs(column @ exit_beam), abs(row @ exit_beam)) > 1e-9:
        raise ValueError(f"pixel_orientation: expected perpendicular axes along +-x, +-y, got {pixel_orientation!r}")
    return column, row


def _fractions(beam_polarization, sigma):
    """{"sigma": .., "pi": ..} of the beam; ``sigma``: its direction, lab."""
    if isinstance(beam_polarization, str):
        checks.choice("beam_polarization", beam_polarization, _POLARIZATIONS)
        part = {"horizontal": sigma[0] ** 2, "vertical": sigma[1] ** 2, "unpolarized": 0.5}[beam_polarization]
    else:
        jones = checks.array("beam_polarization", beam_polarization, (2,), np.complex128)
        jones = jones / binary_scale(jones)
        power = np.vdot(jones, jones).real
        if power == 0:
            raise ValueError("beam_polarization: expected a Jones vector of non-zero length, got (0, 0)")
        part = abs(jones @ sigma[:2]) ** 2 / power
    # sigma is perpendicular to the beam, so that the two fractions sum to 1.
    part = float(min(max(part, 0.0), 1.0))
    return {"sigma": part, "pi": 1.0 - part}


def _kept(name, item, n):
    """range of the indices that a slice keeps of n, checked."""
    if not isinstance(item, slice | None):
        raise TypeError(f"{name}: expected a slice or None, got {checks.describe(item)}")
    kept = range(n)[slice(None) if item is None else item]
    if len(kept) == 0 or kept.step < 1 or (kept.step > 1 and name != "frames"):
        wants = "a positive step" if name == "frames" else "step 1"
        raise ValueError(f"{name}: expected a slice of {n} with {wants} that keeps something, got {item}")
    return kept
