"""Which other reflections and energies suit a crystal.

Among those where kinematic phasing is good enough the brightest is the best one: it scatters, per volume and photon,

(1) pi^2 C^2 |chi_h chi_hbar|/(lambda sin 2theta)    per m and rad of rocking angle

(kinematic integrated reflectivity; Als-Nielsen & McMorrow, Elements of Modern X-ray Physics, 2011, section 5.3.)
"""

import itertools
import math
import warnings
from typing import NamedTuple

import numpy as np

from ..base.constants import KEV
from ..experiment import materials
from ..experiment.structure_factor import Susceptibility, susceptibility
from . import error_law

HIGHEST_INDEX = 3
MOST = 8  # reflections, those of the widest spacing
SAME = 1e-6  # of lengths, and angles in rad
ENERGIES = (7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 15.0, 18.0)  # keV: what beamlines for crystals of this kind offer


class Choice(NamedTuple):
    """A reflection at an energy.

    Attributes
    ----------
    hkl : (int, int, int)
    energy : float
        J
    two_theta : float
        rad
    brightness : float
        Equation (1), beside the one asked for.
    largest : float
        Largest crystal that is phased kinematically within the bounds of phase and strain, m; 0: none, inf: any.
    largest_corrected : float
        The same with refraction taken off.
    error : error_law.Error
        For the size asked for.
    """

    hkl: tuple[int, int, int]
    energy: float
    two_theta: float
    brightness: float
    largest: float
    largest_corrected: float
    error: error_law.Error


def brightness(chi: Susceptibility, polarization: str) -> float:
    """Equation (1)."""
    C = 1.0 if polarization == "sigma" else abs(math.cos(chi.two_theta))
    return math.pi**2 * C**2 * abs(chi.chi_h * chi.chi_hbar) / (chi.wavelength * math.sin(chi.two_theta))


def families(material, energy: float, lattice=None) -> list[tuple[int, int, int]]:
    """Allowed reflections of the widest spacings, one of each kind, that an energy reaches.

    Those of one kind have the same spacing and strength; in a lattice that is not cubic (1, 0, 0) and (0, 0, 1) differ.

    Parameters
    ----------
    material, lattice
        As `pendel.susceptibility` takes them.
    energy : float
        J
    """
    cell = materials.structure(material, lattice)
    atoms = [tuple(atom) for atom in cell.atoms]
    inverse = np.linalg.inv(materials.metric(cell.lattice))
    lengths, angles = cell.lattice[:3], cell.lattice[3:]
    cubic = np.ptp(lengths) < SAME * lengths[0] and np.allclose(angles, math.pi / 2, rtol=0, atol=SAME)

    groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, int, int]]] = {}
    indices = range(HIGHEST_INDEX, -HIGHEST_INDEX - 1, -1)
    for hkl in itertools.product(indices, indices, indices):
        if hkl > (0, 0, 0):  # h and -h are the same planes
            family = tuple(sorted(map(abs, hkl), reverse=True))
            groups.setdefault((f"{np.array(hkl) @ inverse @ hkl:.6e}", family), []).append(hkl)

    found = []
    for _, group in sorted(groups.items(), key=lambda item: (float(item[0][0]), item[0][1])):
        strengths = set()
        for hkl in group:
            chi = _tabulated(atoms, hkl, energy, cell.lattice)
            if chi is not None and f"{abs(chi.chi_h * chi.chi_hbar):.3e}" not in strengths:
                strengths.add(f"{abs(chi.chi_h * chi.chi_hbar):.3e}")
                found.append(hkl)
            if len(found) == MOST:
                return found
            if cubic and strengths:
                break
    return found


def choices(asked: Susceptibility, material, lattice, size, bounds, own_phase, polarization) -> list[Choice]:
    """All reflections at all energies where the law holds, the best one first.

    Parameters
    ----------
    asked : Susceptibility
    material, lattice
        As `pendel.susceptibility` takes them.
    size : float
        m
    bounds : (float, float)
        Of phase, rad, and strain.
    own_phase, polarization
        As in `error_law.numbers`.
    """
    energies = sorted({*(energy * KEV for energy in ENERGIES), asked.energy})
    found = []
    for hkl in families(material, energies[-1], lattice):
        for energy in energies:
            chi = _tabulated(material, hkl, energy, lattice)
            if chi is None or not error_law.LEAST_ANGLE <= chi.two_theta <= error_law.LARGEST_ANGLE:
                continue
            found.append(_choice(chi, hkl, brightness(asked, polarization), size, bounds, own_phase, polarization))

    def order(choice):
        good = choice.error.phase <= bounds[0] and choice.error.strain <= bounds[1]
        return (not good, -choice.brightness if good else choice.error.phase, choice.hkl)

    return sorted(found, key=order)


def _choice(chi, hkl, unit, size, bounds, own_phase, polarization):
    """The `Choice` of a reflection; ``unit``: brightness of the one asked for."""
    sizes = [
        min(
            error_law.largest_size(chi, f"{kind}phase", bounds[0], own_phase, polarization),
            error_law.largest_size(chi, f"{kind}strain", bounds[1], own_phase, polarization),
        )
        for kind in ("", "corrected_")
    ]
    error = error_law.error(error_law.numbers(chi, size, own_phase, polarization))
    shine = brightness(chi, polarization) / unit
    return Choice(hkl, chi.energy, chi.two_theta, shine, *sizes, error)


def _tabulated(material, hkl, energy, lattice):
    """`Susceptibility`, or None: extinct, out of reach, or at an absorption edge, where tables do not hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return susceptibility(material, hkl=hkl, energy=energy, lattice=lattice)
        except (ValueError, UserWarning):
            return None
