"""How wrong kinematic phasing is, from few numbers: a law fitted to simulated crystals.

For a crystal of size d, the diameter of the sphere of its volume, and a phase of its own of rms phi_S (less a plane)

(1) R = k |Re chi_0| d/2,   X = kappa d,   kappa = k C |chi_h chi_hbar|^(1/2)/2,   alpha = arg(chi_h chi_hbar)
(2) refraction, rms phase:   R (a_0 + a_1 sin^2 2theta)
(3) extinction, rms phase:   X^2 hypot(b_0 phi_S, b_1 sin alpha)
(4) strains along h, rms:    (2) and (3) over |h| d, with coefficients of their own

both less a plane, strains less their mean, `pendel.planning.kinematic_error`. Refraction has one number, its strain no
size in it: a path is as long as the crystal is wide. Extinction begins with the second order in X, the wave that is
scattered three times: in a perfect crystal without absorption it changes |S| alone, (3) of
`pendel.planning.kinematic_image`; its phase is that of S at three places that are not one, or that of absorption, which
weakens E_0 and E_h less where they are in phase.

Fit: `bench/plan.py`, 160 random facetted crystals of 14 materials, 2theta from 12 to 75 degrees, X from 0.14 to 1.7,
phi_S from 0.04 to 0.7 rad. Simulated errors are 0.9 to 1.2 times (2), and 0.5 to 2 times (3), where it matters where in
the crystal the phase bends: 5 to 95 %. bench/README.md has others, and what HIO and ER find of them. At X = 2.4 the
amplitude of a perfect crystal passes zero in places, beyond which phases turn by pi.
"""

import math
from typing import NamedTuple

from ..experiment.structure_factor import Susceptibility

LARGEST_X = 1.7
LEAST_ANGLE, LARGEST_ANGLE = math.radians(12), math.radians(75)  # 2theta
USUAL_PHASE = 0.5  # phi_S, rad rms, where none is given
PHASE_ENOUGH, STRAIN_ENOUGH = 0.1, 1e-4  # rms errors that most work can live with, rad and 1


class Coefficients(NamedTuple):
    """a_0, a_1, b_0, b_1 of (2) and (3)."""

    refraction: float
    angle: float
    own_phase: float
    absorption: float


PHASE = Coefficients(0.209, -0.036, 0.059, 0.057)
STRAIN = Coefficients(1.289, -0.192, 0.396, 0.393)


class Numbers(NamedTuple):
    """What (2) to (4) are made of.

    Attributes
    ----------
    refraction : float
        R, rad.
    extinction : float
        X.
    alpha, two_theta : float
        rad
    h_size : float
        |h| d.
    own_phase : float
        phi_S, rad rms.
    """

    refraction: float
    extinction: float
    alpha: float
    two_theta: float
    h_size: float
    own_phase: float


class Error(NamedTuple):
    """rms errors of kinematic phasing.

    Attributes
    ----------
    phase, strain : float
        As phased, rad and 1.
    corrected_phase, corrected_strain : float
        With refraction taken off (`pendel.refraction.correct`): what extinction leaves. HIO and ER have errors of
        their own, from noise and from a phase problem that is not quite solved, which are often more than that.
    """

    phase: float
    strain: float
    corrected_phase: float
    corrected_strain: float


def numbers(chi: Susceptibility, size: float, own_phase: float = USUAL_PHASE, polarization: str = "sigma") -> Numbers:
    """Of a crystal of ``size`` d (m), equation (1)."""
    k = 2 * math.pi / chi.wavelength
    C = 1.0 if polarization == "sigma" else abs(math.cos(chi.two_theta))
    product = chi.chi_h * chi.chi_hbar
    kappa = k * C * math.sqrt(abs(product)) / 2
    alpha = math.atan2(product.imag, product.real)
    refraction = k * abs(chi.chi_0.real) * size / 2
    return Numbers(refraction, kappa * size, alpha, chi.two_theta, 2 * math.pi / chi.d_spacing * size, own_phase)


def error(of: Numbers) -> Error:
    """Equations (2) to (4)."""
    phases, strains = parts(of, PHASE), parts(of, STRAIN)
    strains = tuple(part / of.h_size for part in strains)
    return Error(math.hypot(*phases), math.hypot(*strains), phases[1], strains[1])


def parts(of: Numbers, by: Coefficients) -> tuple[float, float]:
    """(2) and (3)."""
    refraction = of.refraction * (by.refraction + by.angle * math.sin(of.two_theta) ** 2)
    extinction = of.extinction**2 * math.hypot(by.own_phase * of.own_phase, by.absorption * math.sin(of.alpha))
    return refraction, extinction


def largest_size(
    chi: Susceptibility, which: str, bound: float, own_phase: float = USUAL_PHASE, polarization: str = "sigma"
) -> float:
    """Largest d (m) whose error stays below a bound, at most that of X = LARGEST_X.

    Parameters
    ----------
    chi : Susceptibility
    which : str
        Field of `Error`.
    bound : float
        rad, or 1.

    Returns
    -------
    m; 0 where the error of the smallest crystal is larger; inf where that of X = LARGEST_X is still below.
    """

    def excess(size):
        return getattr(error(numbers(chi, size, own_phase, polarization)), which) - bound

    at_one_metre = numbers(chi, 1.0, own_phase, polarization).extinction
    if at_one_metre == 0:
        raise ValueError("chi_h, polarization: expected a reflection that diffracts, got 0")
    low, high = 1e-6 * LARGEST_X / at_one_metre, LARGEST_X / at_one_metre
    if excess(low) >= 0:
        return 0.0
    if excess(high) < 0:
        return math.inf
    for _ in range(60):  # errors grow with the size
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low
