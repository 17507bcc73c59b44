"""Wavelength and energy of a photon, of which a user gives one."""

from ..base import plausible
from ..base.constants import KEV, LIGHT_SPEED, PLANCK


def energy_in_joule(energy: float | None, energy_keV: float | None) -> float | None:
    """The energy (J) of one in J or in keV; None where both are. Raises TypeError or ValueError naming the argument."""
    if energy_keV is None:
        return energy
    if energy is not None:
        raise ValueError("energy, energy_keV: expected one of them, got both")
    return plausible.number(plausible.ENERGY, "energy_keV", energy_keV, "keV") * KEV


def wavelength_of(wavelength: float | None, energy: float | None) -> float:
    """The wavelength (m) of a wavelength (m) or an energy (J). Raises TypeError or ValueError naming the argument."""
    if (wavelength is None) == (energy is None):
        raise ValueError(f"wavelength, energy: expected exactly one, got {'none' if energy is None else 'both'}")
    if wavelength is None:
        wavelength = PLANCK * LIGHT_SPEED / plausible.number(plausible.ENERGY, "energy", energy)
    return plausible.number(plausible.WAVELENGTH, "wavelength", wavelength)


def energy_in_kev(wavelength: float) -> float:
    """The energy (keV) of a wavelength (m), for messages."""
    return energy_of(wavelength) / KEV


def energy_of(wavelength: float) -> float:
    """The energy (J) of a wavelength (m)."""
    return PLANCK * LIGHT_SPEED / wavelength
