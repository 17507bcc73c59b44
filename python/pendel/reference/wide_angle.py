"""Frames of a rocking scan by a wide-angle split-step method: data that the engine did not make, to test it by.

The scalar field of one state of polarisation (C multiplies chi_h and chi_hbar), exp(+ik.r), Im chi > 0 absorbs:

(1) psi = E_0 exp(i k_0.r) + G exp(i (k_0 + R h).r),   k_0 + R h = k_h + dq,   R the crystal's turn about its axis
(2) chi = chi_0 s_0 + chi_h S exp(i R h.r) + chi_hbar conj(S) exp(-i R h.r),   s_0 and S taken at R^-1 r
(3) E(kappa, z + dz) = exp(i (k_z(kappa) - carrier's k_z) dz) E(kappa, z),   k_z(kappa) = sqrt(k^2 - |kappa|^2)
(4) E(kappa) += (k_cz / k_z(kappa)) F[(exp(dz V) - 1) F^-1 E],   V_ij = i k^2 chi_ij / (2 k_cz), k_c = k_0 or k_h
(5) I = (p / (lambda R))^2 (D / R) |(k_fz / k) int psi_h exp(-i k_f.r) dA|^2,   k_f = k P / R,   R = |P|
(6) P = D k_h / k + p (c e_col + r e_row),   c, r counted from the pixel that k_h hits

kappa = the wave's own wave vector across the marching axis z, carrier and all. (3) is the exact propagator of the
vacuum, both waves spread through x and y, the Ewald sphere is round; (4) is the coupling with the obliquity of its
source; (5) is the far field at every pixel's own wave vector, an area (m^2) that scatters into the pixel. What is left
out: waves going back along z, other reflections, and the error of the steps, of order 2.

Grid: z along k_h or along k_0 + k_h, x along the growing column as seen in the plane across z, y = z x x. The box is
periodic across z, its first voxels hold the crystal, and E_0 walks off into the rest of it.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

from ..base import checks

MARGIN = 4  # voxels kept free around the crystal on every side, for the width of its smoothed surface
SPREAD = 8  # more voxels across z, for light that leaves at the steepest angles
TAYLOR_ERROR = 1e-6  # of the phase (rad) by which the pixels' k_f leave a plane grid, where its series ends
COUPLING_ERROR = 1e-9  # of the series of exp(dz V) - 1 on a voxel


@dataclass(frozen=True)
class Scan:
    """A rocking scan as plain vectors in the laboratory.

    Attributes
    ----------
    k_0, k_h : (3,) rad/m, of equal length
    rocking_axis : (3,), any length above zero
    rocking_angles : (n,) rad
    centre_angle : rad, where the crystal is not turned
    e_col, e_row : (3,) unit vectors of growing column and row, perpendicular to k_h
    distance, pixel_size : m
    centre_pixel : (row, col) that k_h hits, real numbers
    detector_shape : (rows, cols)
    lattice : (3,) h of the crystal that is not turned, rad/m, where it is not on Bragg; None: k_h - k_0

    Raises
    ------
    TypeError, ValueError : naming the attribute
    """

    k_0: np.ndarray
    k_h: np.ndarray
    rocking_axis: np.ndarray
    rocking_angles: np.ndarray
    centre_angle: float
    e_col: np.ndarray
    e_row: np.ndarray
    distance: float
    pixel_size: float
    centre_pixel: tuple[float, float]
    detector_shape: tuple[int, int]
    lattice: np.ndarray | None = None

    def __post_init__(self):
        for name in ("k_0", "k_h", "rocking_axis", "e_col", "e_row"):
            object.__setattr__(self, name, checks.array(name, getattr(self, name), (3,), np.float64))
        h = self.k_h - self.k_0 if self.lattice is None else self.lattice
        object.__setattr__(self, "lattice", checks.array("lattice", h, (3,), np.float64))
        angles = checks.array("rocking_angles", self.rocking_angles, (None,), np.float64)
        object.__setattr__(self, "rocking_angles", angles)
        if abs(np.linalg.norm(self.k_h) / self.k - 1) > 1e-9:
            raise ValueError(f"k_h: expected the length of k_0, {self.k:.9g} rad/m, got {np.linalg.norm(self.k_h):.9g}")
        if max(abs(axis @ self.k_h) / self.k for axis in (self.e_col, self.e_row)) > 1e-9:
            raise ValueError("e_col, e_row: expected axes perpendicular to k_h, got others")

    @property
    def k(self) -> float:
        """2 pi / wavelength, rad/m."""
        return float(np.linalg.norm(self.k_0))

    def turn(self, frame: int) -> np.ndarray:
        """R of a frame, (3, 3)."""
        axis = self.rocking_axis / np.linalg.norm(self.rocking_axis)
        return Rotation.from_rotvec(axis * (self.rocking_angles[frame] - self.centre_angle)).as_matrix()

    def dq(self, frame: int) -> np.ndarray:
        """R h - (k_h - k_0) of a frame, (3,) rad/m, lab."""
        return self.turn(frame) @ self.lattice - (self.k_h - self.k_0)

    def places(self) -> np.ndarray:
        """(rows, cols, 3) of the pixels' centres from the crystal, m, lab."""
        row, col = (np.arange(n) - c for n, c in zip(self.detector_shape, self.centre_pixel, strict=True))
        across = row[:, None, None] * self.e_row + col[:, None] * self.e_col
        return self.distance * self.k_h / self.k + self.pixel_size * across


@dataclass(frozen=True)
class Method:
    """How the scan is computed.

    Attributes
    ----------
    voxel : m, edge of the cubic voxels
    march : "k_h", for 2theta below some 60 deg, or "symmetric", along k_0 + k_h
    linearised : propagators of the Takagi-Taupin equations, linear in the transverse wave vector, and the flat
        Ewald sphere that goes with them, in place of (3), (4) and (5)
    turning : whether the crystal's body turns with it; False: its lattice only
    dtype : "complex64" or "complex128"
    """

    voxel: float
    march: str = "k_h"
    linearised: bool = False
    turning: bool = True
    dtype: str = "complex64"

    def __post_init__(self):
        checks.number("voxel", self.voxel, above=0)
        checks.choice("march", self.march, ("k_h", "symmetric"))
        checks.complex_dtype("dtype", self.dtype)


@dataclass(frozen=True)
class Box:
    """The grid of a march.

    Attributes
    ----------
    axes : (3, 3), rows x, y, z in lab components
    shape : (nz, ny, nx), periodic across z
    start : (x, y, z) of the first voxel's centre, m
    filled : (ny, nx) voxels from the first on, which the crystal stays in
    """

    axes: np.ndarray
    shape: tuple[int, int, int]
    start: np.ndarray
    filled: tuple[int, int]


def axes_of(scan: Scan, march: str) -> np.ndarray:
    """(3, 3), rows x, y, z of the marching grid in lab components."""
    z = scan.k_h if march == "k_h" else scan.k_0 + scan.k_h
    z = z / np.linalg.norm(z)
    x = scan.e_col - (scan.e_col @ z) * z
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(z, x), z])


def box_for(scan: Scan, hull: np.ndarray, method: Method) -> Box:
    """The smallest box that holds a crystal at all angles and in which E_0 does not walk round into it.

    Parameters
    ----------
    hull : (m, 3) lab positions, m, whose convex hull holds the crystal
    """
    axes, step = axes_of(scan, method.march), method.voxel
    turns = [scan.turn(frame) for frame in range(len(scan.rocking_angles))]
    seen = np.concatenate([hull @ (axes @ turn).T for turn in turns])
    low, high = seen.min(0) - MARGIN * step, seen.max(0) + MARGIN * step

    count = [math.ceil(extent) for extent in (high - low) / step]
    size = [scipy.fft.next_fast_len(math.ceil(n)) for n in _least_sizes(scan, axes, count)]
    return Box(axes, (count[2], size[1], size[0]), low + step / 2, (count[1], count[0]))


def _least_sizes(scan, axes, filled):
    """Voxels (x, y) of a box that E_0, and E_h, leave without meeting the crystal again; filled (x, y, z)."""
    walks = [np.abs(axis @ np.array([scan.k_0, scan.k_h]).T) for axis in axes]
    steepest = [float((walk / walks[2]).max()) for walk in walks[:2]]
    return [n + SPREAD + slope * filled[2] for n, slope in zip(filled[:2], steepest, strict=True)]


def exit_fields(scan, crystal, sample, method, *, frames=None, factor=1.0, box=None, workers=1) -> np.ndarray:
    """G of equation (1) behind the last layer, one frame after another.

    Parameters
    ----------
    scan : Scan
    crystal : what has chi_0, chi_h and chi_hbar
    sample : callable
        sample(r, width) -> (s_0, S) at positions r (3, ...), m, of the lab with the crystal not turned, its surfaces
        smoothed over ``width``, m; and sample.hull as in `box_for`, or None of one that fills its periodic box.
    method : Method
    frames : indices; None: all
    factor : C
    box : Box; None: `box_for`
    workers : threads; results do not depend on them

    Returns
    -------
    complex (frames, ny, nx), a box of pixels (y, x) across z

    Raises
    ------
    ValueError : naming the argument, where light would wrap round into the crystal or the grid cannot carry it
    """
    march = _March(scan, crystal, sample, method, factor, _checked_box(scan, sample, method, box))
    frames = range(len(scan.rocking_angles)) if frames is None else frames
    return np.array(_on_threads(march.exit_field, frames, workers))


def intensities(
    scan, crystal, sample, method, *, polarization=((1.0, 1.0),), frames=None, box=None, workers=1
) -> np.ndarray:
    """Frames of equation (5), m^2: what a pixel receives over the incident intensity.

    `pendel.Model.intensities` counts in areas dy dx gamma_h of its own voxels: divide by that.

    Parameters
    ----------
    polarization : ((weight, C), ...) of the beam's states
    scan, crystal, sample, method, frames, box, workers : as in `exit_fields`

    Returns
    -------
    float64 (frames, rows, cols)

    Raises
    ------
    ValueError : as `exit_fields` does, and where a pixel lies beyond the band of the grid
    """
    box = _checked_box(scan, sample, method, box)
    detector = _Detector(scan, method, box)
    marches = [(w, _March(scan, crystal, sample, method, C, box)) for w, C in polarization if w > 0]

    def frame_of(frame):
        return sum(weight * detector.intensity(march.exit_field(frame), frame) for weight, march in marches)

    frames = range(len(scan.rocking_angles)) if frames is None else frames
    return np.array(_on_threads(frame_of, frames, workers))


def _on_threads(function, items, workers):
    if workers == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def _checked_box(scan, sample, method, box):
    """``box``, or the one for the crystal, in which nothing wraps round."""
    if box is None:
        if sample.hull is None:
            raise ValueError("box: expected one for a crystal without a hull, got None")
        box = box_for(scan, sample.hull, method)
    if sample.hull is not None:
        least = _least_sizes(scan, box.axes, (*box.filled[::-1], box.shape[0]))
        for name, n, wanted in zip(("nx", "ny"), box.shape[:0:-1], least, strict=True):
            if n < math.floor(wanted):
                raise ValueError(
                    f"box ({name}): expected at least {math.ceil(wanted)} voxels, got {n}; E_0 wraps round"
                )

    steepest = max(float(np.hypot(*(box.axes[:2] @ wave))) for wave in (scan.k_0, scan.k_h))
    if steepest + math.sqrt(2) * math.pi / method.voxel >= scan.k:
        least = math.sqrt(2) * math.pi / (scan.k - steepest)
        raise ValueError(
            f"voxel: expected more than {least:.4g} m, whose band has no waves across z, got {method.voxel:.4g} m; or "
            "another axis to march along"
        )
    return box


class _March:
    """Equations (3) and (4), for one state of polarisation."""

    def __init__(self, scan, crystal, sample, method, factor, box):
        self.scan, self.sample, self.method, self.box = scan, sample, method, box
        self.dtype = np.dtype(method.dtype)
        self.real = np.dtype(self.dtype.char.lower())
        self.carriers = box.axes @ np.array([scan.k_0, scan.k_h]).T  # columns k_0, k_h on the grid's axes
        q_y, q_x = (2 * np.pi * scipy.fft.fftfreq(n, method.voxel) for n in box.shape[1:])
        self.q = q_x[None, :], q_y[:, None]
        self.incident = self._propagator(0, np.zeros(3))

        K_0, K_h = scan.k**2 / (2 * self.carriers[2])
        step = method.voxel
        self.a, self.b = 1j * step * K_0 * crystal.chi_0, 1j * step * K_0 * factor * crystal.chi_hbar
        self.c, self.d = 1j * step * K_h * factor * crystal.chi_h, 1j * step * K_h * crystal.chi_0
        self.terms = _terms(1.2 * (max(abs(self.a), abs(self.d)) + max(abs(self.b), abs(self.c))), COUPLING_ERROR)

        ny, nx = box.filled
        self.x = box.start[0] + step * np.arange(nx)
        self.y = box.start[1] + step * np.arange(ny)[:, None]

    def _propagator(self, wave, dq):
        """exp(i (k_z - its carrier's) dz) and the carrier's k_z over k_z, (ny, nx); dq on the grid's axes."""
        step, k = self.method.voxel, self.scan.k
        c_x, c_y, c_z = self.carriers[:, wave]
        k_x, k_y = c_x + dq[0] + self.q[0], c_y + dq[1] + self.q[1]
        if self.method.linearised:
            k_z = c_z - (c_x * (k_x - c_x) + c_y * (k_y - c_y)) / c_z
            obliquity = np.ones(k_z.shape)
        else:
            k_z = np.sqrt(k**2 - k_x**2 - k_y**2)
            obliquity = c_z / k_z
        return np.exp(1j * step * (k_z - c_z - dq[2])).astype(self.dtype), obliquity.astype(self.real)

    def exit_field(self, frame):
        """G behind the last layer, complex (ny, nx)."""
        nz, ny, nx = self.box.shape
        rows, cols = self.box.filled
        turn = self.scan.turn(frame)
        dq = self.box.axes @ self.scan.dq(frame)
        propagator, obliquity = (np.stack(pair) for pair in zip(self.incident, self._propagator(1, dq), strict=True))

        axes = self.box.axes @ turn if self.method.turning else self.box.axes
        plane = (axes[0][:, None, None] * self.x + axes[1][:, None, None] * self.y).astype(self.real)
        along = axes[2][:, None, None]

        # Fourier transforms (wave, ny, nx); of the incident wave, 1 everywhere
        E = np.zeros((2, ny, nx), self.dtype)
        E[0, 0, 0] = ny * nx
        for layer in range(nz):
            if layer:
                E *= propagator
            z = self.box.start[2] + layer * self.method.voxel
            s_0, S = self.sample(plane + (z * along).astype(self.real), self.method.voxel)
            if not (np.any(s_0) or np.any(S)):
                continue
            fields = scipy.fft.ifft(E, axis=2)[:, :, :cols]
            fields = scipy.fft.ifft(fields, axis=1)[:, :rows]
            change = scipy.fft.fft(self._coupled(fields, s_0, S), n=ny, axis=1)
            E += obliquity * scipy.fft.fft(change, n=nx, axis=2)
        return scipy.fft.ifft2(E[1])

    def _coupled(self, fields, s_0, S):
        """(exp(dz V) - 1) of the fields (2, rows, cols), by its power series."""
        S, s_0 = S.astype(self.dtype), s_0.astype(self.real)
        to = self.dtype.type
        a, b, c, d = to(self.a) * s_0, to(self.b) * S.conj(), to(self.c) * S, to(self.d) * s_0
        total, (E_0, E_h) = np.zeros_like(fields), fields
        for n in range(1, self.terms + 1):
            E_0, E_h = a * E_0 + b * E_h, c * E_0 + d * E_h
            for field, sum_ in zip((E_0, E_h), total, strict=True):
                field.view(self.real)[...] *= self.real.type(1 / n)  # by a complex number it takes as long as the rest
                sum_ += field
        return total


def _terms(size, error):
    """How many terms of exp leave less than ``error`` for an argument of this size."""
    n, left = 0, 1.0
    while left > error:
        n += 1
        left *= size / n
    return max(n - 1, 1)


class _Detector:
    """Equation (5): sums over the exit plane at every pixel's own wave vector.

    The y phase of a pixel is that of its row times a series in what is left of it; the x phase is exact.
    """

    def __init__(self, scan, method, box):
        self.scan, self.axes = scan, box.axes
        self.dtype = np.dtype(method.dtype)
        places, pitch = scan.places(), method.voxel
        if method.linearised:
            # a plane through k_h in place of the sphere
            far = np.full(scan.detector_shape, scan.distance)
            k_f = scan.k * places / scan.distance
            slope = box.axes[2] @ scan.k_h / scan.k
        else:
            far = np.linalg.norm(places, axis=2)
            k_f = scan.k * places / far[..., None]
            slope = k_f @ box.axes[2] / scan.k
        flux = (scan.pixel_size * scan.k / (2 * np.pi * far)) ** 2 * scan.distance / far
        self.weight = flux * (slope * pitch**2) ** 2

        q_x, q_y = np.moveaxis((k_f - scan.k_h) @ box.axes[:2].T, 2, 0)
        top = math.pi / pitch
        if max(np.abs(q_x).max(), np.abs(q_y).max()) > top:
            raise ValueError(
                f"voxel: expected at most {math.pi / max(np.abs(q_x).max(), np.abs(q_y).max()):.4g} m for a band that "
                f"holds the detector, got {pitch:.4g} m"
            )
        self.x, self.y = _exit_places(scan, box, pitch)
        mean = q_y.mean(1)
        self.rest = q_y - mean[:, None]
        self.x_phases = np.exp(-1j * q_x[:, None, :] * self.x[:, None]).astype(self.dtype)  # (row, x, col)
        self.y_phases = np.exp(-1j * mean[:, None] * self.y).astype(self.dtype)  # (row, y)
        self.terms = _terms(float(np.abs(self.rest).max() * np.abs(self.y).max()), TAYLOR_ERROR) + 1

    def intensity(self, G, frame):
        """Of G (ny, nx) of a frame, float64 (rows, cols)."""
        dq = self.axes @ self.scan.dq(frame)
        # exp(i dq.r) of equation (1)
        G = G * np.exp(1j * (dq[1] * self.y[:, None] + dq[0] * self.x)).astype(self.dtype)

        F, factor = 0, 1.0
        for n in range(self.terms):
            moment = self.y_phases @ (G * (self.y[:, None] ** n).astype(G.real.dtype))
            F = F + factor * np.matmul(moment[:, None, :], self.x_phases)[:, 0].astype(complex)
            factor = factor * (-1j * self.rest) / (n + 1)
        return self.weight * np.abs(F) ** 2


def _exit_places(scan, box, pitch):
    """x (nx,) and y (ny,) of the exit plane's voxels, m, which of the periodic copies E_h reaches in its march."""
    walk = box.axes @ scan.k_h
    walk = walk[:2] / walk[2] * box.shape[0]  # voxels
    places = []
    for start, moved, n in zip(box.start[:2], walk, box.shape[:0:-1], strict=True):
        first = math.floor(min(moved, 0)) - SPREAD // 2
        index = np.arange(n)
        places.append(start + pitch * (first + (index - first) % n))
    return places
