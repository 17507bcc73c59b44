"""Fourier components of the X-ray susceptibility of a crystal, for fields exp(+ik.r), where Im chi > 0 absorbs.

(1) chi(r) = sum_h chi_h exp(+ih.r)
(2) chi_h  = -r_e lambda^2/(pi V) sum_j o_j (f0_j + f'_j - i f''_j) exp(-B_j s^2) exp(-2 pi i (hx + ky + lz)_j)
(3) chi_0  = the same with f0 = Z and s = 0;   s = sin(theta_B)/lambda = 1/(2d)

chi_hbar is (2) at -h: both real densities, that of f0 + f' and that of f'', keep their own phase factor, so chi_hbar
equals chi_h in a crystal with its centre of symmetry at the origin, and is conj(chi_h) only without absorption.

Tables, all in gemmi: f0 of neutral atoms, International
Tables C (1992), table 6.1.1.4; f', f'' of Cromer & Liberman, J. Chem. Phys. 53, 1891 (1970), with the relativistic
correction of Kissel & Pratt, Acta Cryst. A46, 170 (1990). Away from absorption edges other tables differ from them by
up to 1 % in Re chi and 5 % in Im chi.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks, plausible
from ..base.constants import ELECTRON_RADIUS, ELEMENTARY_CHARGE, KEV
from . import materials
from .crystal import Crystal
from .photons import energy_in_joule, energy_of, wavelength_of

ENERGY_RANGE = (4e3, 100e3)  # eV: where f'' was compared with Chantler's tables, 5 %
HIGHEST_NUMBER = 92  # last element of the f', f'' tables
HIGHEST_S = 2.0  # 1/angstrom, of the f0 fits
# Below this part of the sum over all atoms, a reflection is extinct: rounded coordinates leave less.
EXTINCT = 1e-4


@dataclass(frozen=True)
class Susceptibility:
    """Susceptibilities of one reflection, and the lengths that follow from them.

    The lengths take ``polarization`` "sigma" (C = 1) or "pi" (C = |cos 2 theta_B|), and |chi_h| stands for
    sqrt |chi_h chi_hbar|. Lambda_0 as in Authier, Dynamical Theory of X-ray Diffraction; papers differ in the names
    and by factors of pi, so compare definitions. They hold for symmetric geometries, without absorption.

    Attributes
    ----------
    chi_0, chi_h, chi_hbar : complex, equation (2); for sigma polarisation, without the factor C.
    wavelength, d_spacing : m.
    hkl, name : as asked for.
    source : where the numbers come from.

    Raises
    ------
    TypeError, ValueError : naming the attribute; ValueError where lambda > 2 d.
    """

    chi_0: complex
    chi_h: complex
    chi_hbar: complex
    wavelength: float
    d_spacing: float
    hkl: tuple[int, int, int] | None = None
    name: str = ""
    source: str = ""

    def __post_init__(self):
        for field in ("chi_0", "chi_h", "chi_hbar"):
            object.__setattr__(self, field, plausible.susceptibility(field, getattr(self, field)))
        for field, quantity in (("wavelength", plausible.WAVELENGTH), ("d_spacing", plausible.SPACING)):
            object.__setattr__(self, field, plausible.number(quantity, field, getattr(self, field)))
        longest = 2 * self.d_spacing
        if self.wavelength > longest:
            raise ValueError(
                f"wavelength: expected at most 2 d = {longest:.6g} m for a Bragg reflection "
                f"({_electronvolt(longest) / 1e3:.4g} keV or more), got {self.wavelength:.6g} m "
                f"({_electronvolt(self.wavelength) / 1e3:.4g} keV)"
            )

    @property
    def energy(self) -> float:
        """Photon energy (J)."""
        return energy_of(self.wavelength)

    @property
    def bragg_angle(self) -> float:
        """theta_B = asin(lambda/(2d)) (rad), not corrected for refraction."""
        return math.asin(self.wavelength / (2 * self.d_spacing))

    @property
    def two_theta(self) -> float:
        """Scattering angle 2 theta_B (rad)."""
        return 2 * self.bragg_angle

    @property
    def absorption_length(self) -> float:
        """1/mu = lambda/(2 pi Im chi_0) (m), away from the reflection; infinite without absorption."""
        return self._over(self.wavelength, 2 * math.pi * self.chi_0.imag)

    def pendelloesung_distance(self, polarization: str = "sigma") -> float:
        """Lambda_0 = lambda cos(theta_B)/(C |chi_h|) (m): period of the exchange of intensity, symmetric Laue case.

        Parameters
        ----------
        polarization : "sigma" or "pi"

        Returns
        -------
        float, m
        """
        return self._over(self.wavelength * math.cos(self.bragg_angle), self._coupling(polarization))

    def extinction_length_laue(self, polarization: str = "sigma") -> float:
        """Lambda_0/pi (m), symmetric Laue case: the amplitudes go as cosine and sine of the depth over it.

        Parameters
        ----------
        polarization : "sigma" or "pi"

        Returns
        -------
        float, m
        """
        return self.pendelloesung_distance(polarization) / math.pi

    def extinction_length_bragg(self, polarization: str = "sigma") -> float:
        """lambda sin(theta_B)/(pi C |chi_h|) (m), symmetric Bragg case: 1/e depth of the amplitude at the centre.

        Parameters
        ----------
        polarization : "sigma" or "pi"

        Returns
        -------
        float, m
        """
        return self._over(self.wavelength * math.sin(self.bragg_angle), math.pi * self._coupling(polarization))

    def crystal(self) -> Crystal:
        """`pendel.Crystal` with these susceptibilities, for `pendel.Model`.

        Returns
        -------
        Crystal
        """
        return Crystal(
            self.chi_0,
            self.chi_h,
            self.chi_hbar,
            name=self.name,
            hkl=self.hkl,
            d_spacing=self.d_spacing,
            wavelength=self.wavelength,
        )

    def _coupling(self, polarization):
        checks.choice("polarization", polarization, ("sigma", "pi"))
        C = 1.0 if polarization == "sigma" else abs(math.cos(self.two_theta))
        return C * math.sqrt(abs(self.chi_h * self.chi_hbar))

    @staticmethod
    def _over(length, divisor):
        return length / divisor if divisor else math.inf


def susceptibility(
    material: str | os.PathLike | Sequence,
    *,
    hkl: tuple[int, int, int],
    lattice: float | ArrayLike | None = None,
    energy: float | None = None,
    wavelength: float | None = None,
    energy_keV: float | None = None,
    debye_waller: float | Mapping[str, float] | None = None,
    dispersion: Mapping[str, complex] | None = None,
) -> Susceptibility:
    """`Susceptibility` of reflection ``hkl`` of a crystal, equations (2) and (3).

    Parameters
    ----------
    material : name of a built-in crystal (Ag, Al, Au, Cu, Fe, Ni, Pd, Pt, Rh, W, Si, Ge, diamond, GaAs, InP, MgO,
        SrTiO3, Sr2IrO4; conventional cell, room temperature); path of a CIF file; or the atoms of one unit cell,
        [(element, (x, y, z)), ...] with fractional coordinates, an occupancy and B (m^2) as optional further items.
        Atoms are neutral and spherical: reflections that only bonds or magnetism allow come out extinct.
    hkl : three integers, of the planes h = k_h - k_0.
    lattice : a, (a, b, c) or (a, b, c, alpha, beta, gamma), m and rad. It replaces the lattice of a name or a file
        (a: of a cubic crystal; (a, b, c): angles as they are) and is needed with a list (there (a, b, c): 90 degrees).
    energy, wavelength, energy_keV : J, m and keV, exactly one; 4 to 100 keV.
    debye_waller : B (m^2) of all atoms, or {element: B} with 0 for elements not in it. None: the atoms' own, from the
        list or the file (the isotropic equivalent of its U); 0 where there is none, as in built-in crystals.
    dispersion : {element: f' + 1j f''} (electrons, f'' >= 0), instead of the tables; for measured values near an edge.

    Returns
    -------
    Susceptibility.

    Raises
    ------
    ImportError without gemmi; FileNotFoundError; TypeError or ValueError naming the argument, among others for an
    extinct reflection, one out of reach, and where the table of f' is not usable, which is checked by the
    Kramers-Kronig transform of f''. Warns (UserWarning) within 1 % of an absorption edge, where f' and f'' depend on
    the chemical state and are to be measured.
    """
    gemmi = materials.load_gemmi()
    hkl = _hkl(hkl)
    energy = energy_in_joule(energy, energy_keV)
    if energy is not None:
        _check_energy(checks.number("energy", energy, above=0))
    wavelength = wavelength_of(wavelength, energy)
    _check_energy(energy_of(wavelength))
    electronvolt = _electronvolt(wavelength)
    cell = materials.structure(material, lattice, displacements=debye_waller is None)
    elements = sorted({atom.element for atom in cell.atoms})
    B = _debye_waller(gemmi, debye_waller, cell.atoms, elements)
    f1_f2 = _dispersion(gemmi, dispersion, elements, electronvolt)

    G = materials.metric(cell.lattice)
    d = 1 / math.sqrt(np.array(hkl) @ np.linalg.solve(G, np.array(hkl, float)))
    result = functools.partial(Susceptibility, wavelength=wavelength, d_spacing=d, hkl=hkl, name=cell.name)
    result(0, 0, 0)  # reach first: the form factor table ends far beyond it
    f0 = _form_factors(gemmi, elements, hkl, d)

    F_0, F_h, F_hbar = _structure_factors(gemmi, cell, hkl, d, f0, f1_f2, B)
    factor = -ELECTRON_RADIUS * wavelength**2 / (math.pi * math.sqrt(np.linalg.det(G)))
    source = _source(gemmi, cell, f1_f2, dispersion, B)
    return result(factor * F_0, factor * F_h, factor * F_hbar, source=source)


def _electronvolt(wavelength):
    """Photon energy in eV, the unit of the tables."""
    return energy_of(wavelength) / ELEMENTARY_CHARGE


def _check_energy(energy):
    """ValueError for an energy, J, that the tables do not have."""
    low, high = ENERGY_RANGE
    if not low <= energy / ELEMENTARY_CHARGE <= high:
        raise ValueError(
            f"energy: expected {low / 1e3:g} to {high / 1e3:g} keV ({low * ELEMENTARY_CHARGE:.4g} to "
            f"{high * ELEMENTARY_CHARGE:.4g} J), the range of the tables, got {energy / KEV:.6g} keV"
            + plausible.looks_like(plausible.ENERGY, energy)
        )


def _form_factors(gemmi, elements, hkl, d):
    """{element: f0} of a reflection of spacing d."""
    s = 1 / (2 * d)
    if s * materials.ANGSTROM > HIGHEST_S:
        raise ValueError(f"hkl: expected d of at least 0.25e-10 m, the range of the tables, got {hkl} with d = {d:.4g}")
    return {e: gemmi.Element(e).it92.calculate_sf((s * materials.ANGSTROM) ** 2) for e in elements}


def _structure_factors(gemmi, cell, hkl, d, f0, f1_f2, B):
    """(F_0, F_h, F_hbar), the sums of (3), of (2) and of (2) at -h; electrons per unit cell."""
    s = 1 / (2 * d)
    Z = np.array([gemmi.Element(atom.element).atomic_number for atom in cell.atoms])
    occupancy = np.array([atom.occupancy for atom in cell.atoms])
    position = np.array([atom.position for atom in cell.atoms])
    # f' - i f'': the complex conjugate of the usual f' + i f'', because Im chi > 0 absorbs.
    anomalous = np.array([np.conj(f1_f2[atom.element]) for atom in cell.atoms])

    forward = occupancy * (Z + anomalous)
    scattered = occupancy * (np.array([f0[atom.element] for atom in cell.atoms]) + anomalous) * np.exp(-B * s**2)
    phase = np.exp(-2j * math.pi * (position @ np.array(hkl)))
    F_h = np.sum(scattered * phase)
    F_hbar = np.sum(scattered * phase.conj())

    most = np.abs(scattered).sum()
    if max(abs(F_h), abs(F_hbar)) < EXTINCT * most:
        raise ValueError(
            f"hkl: expected an allowed reflection, got {hkl}, which is forbidden in {cell.name or 'crystal'}: its "
            f"atoms cancel to {abs(F_h):.1e} of {most:.4g} electrons"
        )
    return forward.sum(), F_h, F_hbar


def _hkl(value):
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise TypeError(f"hkl: expected 3 integers, got {checks.describe(value)}")
    if len(value) != 3:
        raise ValueError(f"hkl: expected 3 integers, got {len(value)}")
    value = tuple(checks.integer(f"hkl[{i}]", v) for i, v in enumerate(value))
    if not any(value):
        raise ValueError("hkl: expected a reflection, got (0, 0, 0)")
    return value


def _mapping(gemmi, name, value, elements):
    """Check the keys of a {element: ...} argument."""
    for key in value:
        if materials.check_element(gemmi, name, key) not in elements:
            raise ValueError(f"{name}: expected elements of the crystal, {', '.join(elements)}, got {key!r}")
    return value


def _debye_waller(gemmi, value, atoms, elements):
    """B of every atom (n,), m^2."""
    if value is None:
        return np.array([atom.B for atom in atoms])
    if isinstance(value, Mapping):
        _mapping(gemmi, "debye_waller", value, elements)
        table = {e: materials.check_B(f"debye_waller[{e!r}]", value.get(e, 0.0)) for e in elements}
        return np.array([table[atom.element] for atom in atoms])
    return np.full(len(atoms), materials.check_B("debye_waller", value))


def _dispersion(gemmi, given, elements, electronvolt):
    """{element: f' + i f''} of the argument and, for the other elements, of the tables."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"dispersion: expected a dict {{element: f' + 1j*f''}}, got {checks.describe(given)}")
    given = _mapping(gemmi, "dispersion", given or {}, elements)
    result = {}
    for e in elements:
        if e in given:
            result[e] = _given_dispersion(e, given[e])
        else:
            result[e] = _usable_table(e, gemmi.Element(e).atomic_number, electronvolt)
    return result


def _given_dispersion(element, value):
    value = checks.complex_number(f"dispersion[{element!r}]", value)
    if value.imag < 0:
        raise ValueError(f"dispersion[{element!r}]: expected f' + 1j f'' with f'' >= 0, got {value}")
    return value


def _usable_table(element, number, electronvolt):
    """f' + i f'' of the tables, or ValueError where they cannot be used; warns near an edge."""
    advice = f"give measured ones, dispersion={{{element!r}: f' + 1j*f''}}"
    if number > HIGHEST_NUMBER:
        raise ValueError(f"material: expected elements up to uranium, got {element}; there are no tables: {advice}")
    value, transform, at_edge = _tabulated(number, electronvolt)
    # 2 % of Z: away from edges and spurious poles the two agree to 0.01 % (median over all elements, 4 to 100 keV),
    # and all f' that are 2 % off Chantler's tables fail. f' is infinite at an edge, hence 25 % near it: exceeded
    # closer than 1e-4 to some edges, where no table can be used.
    if abs(value.real - transform) > (0.25 if at_edge else 0.02) * number:
        raise ValueError(
            f"energy: expected one where the tables of {element} can be used, got {electronvolt / 1e3:.6g} keV: f' = "
            f"{value.real:.4g} there, against {transform:.4g} by Kramers-Kronig transform of f'' = "
            f"{value.imag:.4g}; {advice}"
        )
    if at_edge:
        warnings.warn(
            f"energy: {electronvolt / 1e3:.6g} keV is within 1 % of an absorption edge of {element}, where tables of "
            f"f' and f'' are unreliable; {advice}",
            stacklevel=4,  # the line that calls `susceptibility`
        )
    return value


@functools.lru_cache(maxsize=256)
def _tabulated(number, electronvolt):
    """(f' + i f'' of the tables, f' by Kramers-Kronig transform of f'', whether an edge lies within 1 %).

    f'(E) = 2/pi P int E' f''(E')/(E^2 - E'^2) dE' - (Z/82.5)^2.37, Henke, Gullikson & Davis, At. Data Nucl. Data
    Tables 54, 181 (1993): it tells the spurious poles that Cromer and Liberman's quadrature has at some energies, such
    as f' = -454 of Bi at 8.15 keV.
    """
    gemmi = materials.load_gemmi()
    f1, f2 = gemmi.cromer_liberman(number, electronvolt)
    below, above = (gemmi.cromer_liberman(number, electronvolt * ratio)[1] for ratio in (0.99, 1.01))
    # E' = E e^u; nodes at odd multiples of step/2, so that the principal value is the midpoint rule, from 30 eV to 3
    # MeV. Halving the step changes the result by at most 0.004 Z, 1 % or more from an edge.
    step = 0.004
    nodes = np.arange(math.floor(math.log(30 / electronvolt) / step), math.ceil(math.log(3e6 / electronvolt) / step))
    u = step * (nodes + 0.5)
    absorbed = np.array([gemmi.cromer_liberman(number, E)[1] for E in (electronvolt * np.exp(u)).tolist()])
    transform = -step / math.pi * np.sum(absorbed * np.exp(u) / np.sinh(u)) - (number / 82.5) ** 2.37
    return complex(f1, f2), float(transform), above > below


def _source(gemmi, cell, f1_f2, given, B):
    lengths = ", ".join(f"{v * 1e10:.6g}" for v in cell.lattice[:3])
    angles = ", ".join(f"{math.degrees(v):.6g}" for v in cell.lattice[3:])
    values = "; ".join(f"{e} {v.real:.4g}{v.imag:+.4g}i" for e, v in f1_f2.items())
    own = f" ({', '.join(given)}: as given)" if given else ""
    waller = f"B from {B.min() * 1e20:.4g} to {B.max() * 1e20:.4g} A^2" if B.any() else "no Debye-Waller factor"
    return (
        f"{cell.source}; lattice {lengths} A, {angles} deg; gemmi {gemmi.__version__}: f0 International Tables C "
        f"(1992), f' and f'' Cromer-Liberman with Kissel-Pratt correction{own}: {values}; {waller}"
    )
