"""Wavelength and energy of a photon, of which a user gives one."""

from ..base import checks
from ..base.constants import LIGHT_SPEED, PLANCK


def wavelength_of(wavelength: float | None, energy: float | None) -> float:
    """The wavelength (m) of a wavelength (m) or an energy (J). Raises TypeError or ValueError naming the argument."""
    if (wavelength is None) == (energy is None):
        raise ValueError(f"wavelength, energy: expected exactly one, got {'none' if energy is None else 'both'}")
    if wavelength is None:
        wavelength = PLANCK * LIGHT_SPEED / checks.number("energy", energy, above=0)
    return checks.number("wavelength", wavelength, above=0)


def energy_of(wavelength: float) -> float:
    """The energy (J) of a wavelength (m)."""
    return PLANCK * LIGHT_SPEED / wavelength
