"""Physical constants in SI units (CODATA values of SciPy), each in this one place."""

from scipy.constants import c as LIGHT_SPEED  # m/s
from scipy.constants import e as ELEMENTARY_CHARGE  # C
from scipy.constants import h as PLANCK  # J s
from scipy.constants import physical_constants

ELECTRON_RADIUS = physical_constants["classical electron radius"][0]  # m
ELECTRONVOLT = ELEMENTARY_CHARGE  # J
KEV = 1e3 * ELECTRONVOLT  # J

__all__ = ["ELECTRONVOLT", "ELECTRON_RADIUS", "ELEMENTARY_CHARGE", "KEV", "LIGHT_SPEED", "PLANCK"]
