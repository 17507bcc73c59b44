"""Physical constants in SI units, each in this one place. CODATA 2022 (Rev. Mod. Phys. 97, 025002, 2025).

Literals: `scipy.constants` takes as long to import as all else of SciPy, and follows CODATA as SciPy is updated.
"""

LIGHT_SPEED = 299_792_458.0  # m/s, exact
ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
PLANCK = 6.62607015e-34  # J s, exact
ELECTRON_RADIUS = 2.8179403205e-15  # m, classical, +- 1.3e-24
ELECTRONVOLT = ELEMENTARY_CHARGE  # J
KEV = 1e3 * ELECTRONVOLT  # J
