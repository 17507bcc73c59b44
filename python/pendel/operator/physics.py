"""The physics of the operator's arguments: values that have a meaning, the move of E_0 per layer, the coupling."""

import math
from typing import Any

import numpy as np

from ..base import checks, plausible
from ..base.arrays import module
from .plan import Scheme, Transport

SCHEMES = tuple(scheme.name.lower() for scheme in Scheme)
TRANSPORTS = ("auto", *(transport.name.lower() for transport in Transport))
ORIENTATIONS = {"k_h": math.pi / 2, "symmetric": math.radians(178)}  # and their largest 2 theta
MOST_PIXELS = 1000  # E_0 may move per layer: more is a mistake of units, and rows would grow with it
WHOLE = 1e-6  # pixels per layer this close to a whole number are one
# Pixels per layer that transport box takes, and from where on it is good: the smooth crystal of bench/accuracy.py, its
# error over that of the row FFT: 0.5: 2.2, 0.7: 1.23, 0.83 to 1.5: 1.00 to 1.05. Beyond, dispersion grows as the cube.
# "auto" does not take it: behind sharp edges it leaves 5e-3 rad (rms, a prism of gold on voxels of 8 nm), that nothing.
BOX_PIXELS, BOX_AS_GOOD = 1.5, 0.7


def checked_angle(two_theta: Any, orientation: str) -> float:
    """two_theta [rad] within the bounds of an orientation, or TypeError or ValueError."""
    two_theta = checks.number("two_theta", two_theta)
    if not 0 < two_theta < ORIENTATIONS[orientation]:
        wants, hint = "0 < two_theta < 178 deg", ""
        if orientation == "k_h":
            wants, hint = "0 < two_theta < pi/2", "; orientation='symmetric' goes up to 178 deg"
        raise ValueError(f"two_theta: expected an angle in rad, {wants}, got {two_theta!r}{hint}")
    return two_theta


def checked_chi_0(chi_0: Any) -> complex:
    """chi_0 of this sign convention, or TypeError or ValueError."""
    chi_0 = plausible.susceptibility("chi_0", chi_0)
    if chi_0.imag < 0:
        raise ValueError(
            f"chi_0: expected Im chi_0 >= 0 (fields exp(+ik.r), where absorption has Im chi > 0), got {chi_0};"
            " for tables in the other convention pass the complex conjugates of chi_0, chi_h and chi_hbar"
        )
    return chi_0


def checked_resync(resync: Any, scheme: str) -> int | None:
    """``resync`` as an integer >= 1 or None, or TypeError or ValueError."""
    if resync is None:
        return None
    resync = checks.integer("resync", resync, at_least=1)
    if scheme == "etd2rk":
        raise ValueError(f"resync: expected None with scheme 'etd2rk', which reverses nothing, got {resync}")
    return resync


def angle_of_incidence(two_theta: float, orientation: str) -> float:
    """Angle of k_0 to z [rad]."""
    return two_theta / 2 if orientation == "symmetric" else two_theta


def _move_in_words(orientation: str) -> str:
    """The pixels per layer as a formula, for messages."""
    return f"dz {'tan(two_theta / 2)' if orientation == 'symmetric' else 'tan(two_theta)'} / dx"


def pixels_per_layer(voxel: tuple[float, float, float], two_theta: float, orientation: str) -> float:
    """Pixels that E_0 moves along x per layer, or ValueError."""
    dz, _, dx = voxel
    pixels = dz * math.tan(angle_of_incidence(two_theta, orientation)) / dx
    if pixels > MOST_PIXELS:
        raise ValueError(f"voxel: expected {_move_in_words(orientation)} <= {MOST_PIXELS} pixels, got {pixels:g}")
    return pixels


def box_coefficient(pixels: float) -> float:
    """d of equation (11) of csrc/README.md, for a move of so many pixels per layer."""
    return (1 - pixels) / (1 + pixels)


def choose_transport(transport: Any, scheme: str, orientation: str, pixels: float, dz: float) -> str:
    """ "shift", "box" or "fourier".

    Parameters
    ----------
    transport : "auto" | "shift" | "box" | "fourier"
        What was asked for; "auto" is "shift" where that is possible, else "fourier".
    scheme, orientation : str
    pixels : float
        That E_0 moves per layer.
    dz : float
        [m], for the message.

    Raises
    ------
    ValueError
        Where it is not to be had.
    """
    checks.choice("transport", transport, TRANSPORTS)
    if scheme == "etd2rk":  # its phi functions are Fourier multipliers
        if orientation == "symmetric":
            raise ValueError("scheme: expected 'strang' with orientation 'symmetric', got 'etd2rk'")
        if transport not in ("auto", "fourier"):
            raise ValueError(f"transport: expected 'fourier' or 'auto' with scheme 'etd2rk', got {transport!r}")
        return "fourier"

    if transport == "box":
        _refuse_box(orientation, pixels)
        return transport

    is_whole = round(pixels) >= 1 and abs(pixels - round(pixels)) <= WHOLE
    if transport == "shift" and not is_whole:
        hint = f"; dz = {dz / pixels:.8g} m would give 1" if pixels > 0 else ""  # 0: of the smallest of all angles
        raise ValueError(
            "transport: expected 'fourier' or 'auto', got 'shift', which needs a whole number >= 1 of pixels"
            f" {_move_in_words(orientation)}, here {pixels:.8g}{hint}"
        )
    return "shift" if is_whole and transport != "fourier" else "fourier"


def _refuse_box(orientation, pixels):
    """ValueError where transport box is not to be had."""
    if orientation == "symmetric":
        raise ValueError("transport: expected 'shift', 'fourier' or 'auto' with orientation 'symmetric', got 'box'")
    if not 0 < pixels <= BOX_PIXELS:
        raise ValueError(
            f"transport: expected 'shift', 'fourier' or 'auto', got 'box', which needs at most {BOX_PIXELS} pixels"
            f" {_move_in_words(orientation)}, here {pixels:.8g}"
        )


def coupling_coefficients(
    dz: float,
    wavelength: float,
    two_theta: float,
    orientation: str,
    chi: tuple[complex, complex, complex],
    polarization_factor: float,
) -> tuple[complex, complex, complex, complex]:
    """m, w, b, c of csrc/README.md, section 2, of a layer; ``chi``: chi_0, chi_h, chi_hbar."""
    chi_0, chi_h, chi_hbar = chi
    k = 2 * math.pi / wavelength
    K_0 = k / (2 * math.cos(angle_of_incidence(two_theta, orientation)))
    K_h = K_0 if orientation == "symmetric" else k / 2
    return (
        0.5j * dz * (K_0 + K_h) * chi_0,
        0.5j * dz * (K_0 - K_h) * chi_0,
        1j * dz * K_0 * polarization_factor * chi_hbar,
        1j * dz * K_h * polarization_factor * chi_h,
    )


def coupling_coefficients_adj(
    adj: Any,
    dz: float,
    wavelength: float,
    two_theta: float,
    orientation: str,
    chi: tuple[complex, complex, complex],
    polarization_factor: float,
) -> tuple[Any, Any]:
    """Gradients with respect to ``chi``, complex (3,), and to the angle of k_0 to z [1/rad] at this dz.

    ``adj``: complex (4,), gradient of m, w, b, c, an array of NumPy or CuPy; the rest as of `coupling_coefficients`.
    """
    angle = angle_of_incidence(two_theta, orientation)

    def at(K_0: float, K_h: float) -> np.ndarray:
        """d (m, w, b, c) / d (chi_0, chi_h, chi_hbar), (4, 3)."""
        C = polarization_factor
        rows = [K_0 + K_h, 0, 0], [K_0 - K_h, 0, 0], [0, 0, 2 * C * K_0], [0, 2 * C * K_h, 0]
        return 0.5j * dz * np.array(rows)

    # Reverse: m = i dz (K_0 + K_h) chi_0 / 2 and so on
    K_0 = math.pi / wavelength / math.cos(angle)
    K_h = K_0 if orientation == "symmetric" else math.pi / wavelength
    xp = module(adj)
    adj_chi = xp.sum(xp.asarray(at(K_0, K_h).conj().T) * adj, axis=1)

    # Reverse: K = k / (2 cos(angle))
    turned = at(K_0 * math.tan(angle), K_h * math.tan(angle) if orientation == "symmetric" else 0.0)
    adj_angle = xp.sum((adj.conj() * xp.asarray(turned @ np.array(chi))).real)
    return adj_chi, adj_angle
