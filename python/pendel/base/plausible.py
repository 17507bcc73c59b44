"""What a physical quantity can be: one range for each, and the unit that a number outside of it was likely meant in.

The ranges are far wider than any experiment's, and narrower than a factor of units: what lies outside was written in
keV, nm, mm or degrees.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, overload

from . import checks
from .constants import KEV, LIGHT_SPEED, PLANCK

EV = 1e-3 * KEV
DEGREE = math.pi / 180
LOWEST_ENERGY, HIGHEST_ENERGY = 0.1 * KEV, 200 * KEV


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A physical quantity.

    Attributes
    ----------
    unit : of the SI, as in messages.
    least, most : the range, in it; of the absolute value where ``signed``.
    others : {unit: its size in the unit of the SI} of the units that it is usually written in.
    advice : what to do in place of converting the number, or "".
    signed : whether it can be negative, and 0.
    """

    unit: str
    least: float
    most: float
    others: Mapping[str, float]
    advice: str = ""
    signed: bool = False

    def holds(self, value) -> bool:
        """Whether a number in the unit of the SI is in the range."""
        return abs(value) <= self.most and (self.signed or value >= self.least)


LENGTHS = {"nm": 1e-9, "angstrom": 1e-10, "um": 1e-6, "mm": 1e-3}
ENERGY = Quantity("J", LOWEST_ENERGY, HIGHEST_ENERGY, {"keV": KEV, "eV": EV}, "give energy_keV")
WAVELENGTH = Quantity(
    "m", PLANCK * LIGHT_SPEED / HIGHEST_ENERGY, PLANCK * LIGHT_SPEED / LOWEST_ENERGY, {"angstrom": 1e-10, "nm": 1e-9}
)
DISTANCE = Quantity("m", 1e-3, 50.0, {"mm": 1e-3, "um": 1e-6, "cm": 1e-2})
PIXEL = Quantity("m", 1e-7, 5e-3, {"um": 1e-6, "mm": 1e-3})
VOXEL = Quantity("m", 1e-13, 1e-4, LENGTHS)
CRYSTAL_SIZE = Quantity("m", 1e-9, 1e-2, LENGTHS)
COHERENCE_LENGTH = Quantity("m", 1e-9, 1.0, {"um": 1e-6, "mm": 1e-3, "nm": 1e-9})
SPACING = Quantity("m", 1e-11, 1e-6, {"angstrom": 1e-10, "nm": 1e-9})
TURN = Quantity("rad", 0.0, math.pi, {"deg": DEGREE}, signed=True)  # of a detector arm, a scattering angle
SUSCEPTIBILITY = Quantity("", 0.0, 0.3, {"1e-6": 1e-6}, signed=True)


def number(quantity: Quantity, name: str, value, unit: str | None = None) -> float:
    """``value`` of a quantity as a float.

    Parameters
    ----------
    quantity : `Quantity`.
    name : of the argument or key, for the message.
    value : a number.
    unit : that it is in and stays in, one of ``quantity.others``; None: of the SI.

    Raises
    ------
    TypeError, ValueError : naming the argument, the range, and the unit that the number looks like.
    """
    value = checks.number(name, value, above=None if quantity.signed else 0)
    _refuse_implausible(quantity, name, value, unit)
    return value


@overload
def lengths(
    quantity: Quantity, name: str, value: Any, count: Literal[2], unit: str | None = None
) -> tuple[float, float]: ...
@overload
def lengths(
    quantity: Quantity, name: str, value: Any, count: Literal[3], unit: str | None = None
) -> tuple[float, float, float]: ...
@overload
def lengths(quantity: Quantity, name: str, value: Any, count: int, unit: str | None = None) -> tuple[float, ...]: ...
def lengths(quantity: Quantity, name: str, value: Any, count: int, unit: str | None = None) -> tuple[float, ...]:
    """``count`` values of a quantity, each as `number` takes it."""
    values = checks.lengths(name, value, count)
    for i, item in enumerate(values):
        _refuse_implausible(quantity, f"{name}[{i}]", item, unit)
    return values


def looks_like(quantity: Quantity, value: float, unit: str | None = None) -> str:
    """The end of a message that says which unit a number looks like that is not in ``unit``, "" for none."""
    shown = quantity.unit if unit is None else unit
    units = {quantity.unit: 1.0, **quantity.others}
    likely = [other for other, size in units.items() if other != shown and quantity.holds(size * value)]
    if not likely:
        return ""
    advice = f": {quantity.advice}" if quantity.advice and unit is None else ""
    return f"; that looks like {likely[0]}{advice}"


def susceptibility(name: str, value) -> complex:
    """A Fourier component of the susceptibility as a complex number."""
    value = checks.complex_number(name, value)
    if not SUSCEPTIBILITY.holds(abs(value)):
        raise ValueError(
            f"{name}: expected |{name}| <= {SUSCEPTIBILITY.most:g}, as of X-rays, got {value}"
            + ("; that looks like a number in units of 1e-6" if abs(value) < 1e6 * SUSCEPTIBILITY.most else "")
        )
    return value


def _refuse_implausible(quantity, name, value, unit):
    """ValueError where a number cannot be what it is called."""
    scale = 1.0 if unit is None else quantity.others[unit]
    if quantity.holds(scale * value):
        return
    shown = quantity.unit if unit is None else unit
    least = -quantity.most if quantity.signed else quantity.least
    text = f"{name}: expected {least / scale:.4g} to {quantity.most / scale:.4g} {shown}, got {value!r}"
    raise ValueError(text + looks_like(quantity, value, unit))
