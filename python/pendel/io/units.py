"""Units as files spell them, each with its dimension and its factor to SI: the one table of all readers."""

import unicodedata

import numpy as np

from ..base.constants import ELECTRONVOLT

LENGTH, ENERGY, ANGLE, TIME = "length", "energy", "angle", "time"

_PREFIXES = {"": 1.0, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
_LONG_PREFIXES = {"": 1.0, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12, "femto": 1e-15}
_LONG_PREFIXES |= {"kilo": 1e3, "mega": 1e6}
_ANGSTROM = ("angstrom", "angstroms", "ang", "a")
_DEGREE = ("deg", "degs", "degree", "degrees", "degr", "arcdeg")
_ELECTRONVOLTS = {"ev": 1.0, "kev": 1e3, "gev": 1e9}  # of MeV and meV only the case says which is meant


def _words(*names, dimension, factor=1.0, prefixes=_LONG_PREFIXES):
    """{spelling: (dimension, factor)} of every prefix before every name."""
    return {p + name: (dimension, power * factor) for p, power in prefixes.items() for name in names}


_UNITS = (
    _words("m", dimension=LENGTH, prefixes=_PREFIXES)
    | _words("meter", "meters", "metre", "metres", dimension=LENGTH)
    | _words("micron", "microns", dimension=LENGTH, factor=1e-6, prefixes={"": 1.0})
    | _words(*_ANGSTROM, dimension=LENGTH, factor=1e-10, prefixes={"": 1.0})
    | _words("j", "joule", "joules", dimension=ENERGY, prefixes={"": 1.0})
    | {name: (ENERGY, power * ELECTRONVOLT) for name, power in _ELECTRONVOLTS.items()}
    | _words("electronvolt", "electronvolts", "electron volt", "electron volts", dimension=ENERGY, factor=ELECTRONVOLT)
    | _words("rad", dimension=ANGLE, prefixes=_PREFIXES)
    | _words("rads", dimension=ANGLE, prefixes={"": 1.0})
    | _words("radian", "radians", dimension=ANGLE)
    | _words(*_DEGREE, dimension=ANGLE, factor=np.pi / 180, prefixes={"": 1.0, "m": 1e-3, "milli": 1e-3})
    | _words("arcmin", "arcminute", "arcminutes", dimension=ANGLE, factor=np.pi / 180 / 60, prefixes={"": 1.0})
    | _words("arcsec", "arcsecond", "arcseconds", dimension=ANGLE, factor=np.pi / 180 / 3600, prefixes={"": 1.0})
    | _words("s", dimension=TIME, prefixes=_PREFIXES)
    | _words("sec", "second", "seconds", dimension=TIME)
)
_EXACT = {"MeV": (ENERGY, 1e6 * ELECTRONVOLT), "meV": (ENERGY, 1e-3 * ELECTRONVOLT)}
_SYMBOLS = {"\u03bc": "u", "\u00e5": "a", "\u00b0": "deg", "\u00ba": "deg"}  # mu, angstrom, degree signs
NONE = ("", "none", "n/a", "na", "-", "unknown", "any", "nx_any")  # said, and says nothing


def known(spelling: str) -> tuple[str, float] | None:
    """(dimension, factor to SI) of a unit, None where it is not known."""
    text = unicodedata.normalize("NFC", spelling).strip()
    if text in _EXACT:
        return _EXACT[text]
    text = text.replace("\u00b5", "\u03bc").lower()
    for symbol, letters in _SYMBOLS.items():
        text = text.replace(symbol, letters)
    text = text.rstrip(".")
    return _UNITS.get(text) or _UNITS.get(text.replace("angstroem", "angstrom").replace("angström", "angstrom"))


def factor(spelling: str, dimension: str) -> float:
    """Factor to SI of a unit of ``dimension``; ValueError ("expected ..., got ...") for any other."""
    found = known(spelling)
    if found is None:
        raise ValueError(f"expected a unit of {dimension}, got {spelling!r}, which is not known")
    if found[0] != dimension:
        raise ValueError(f"expected a unit of {dimension}, got {spelling!r}, one of {found[0]}")
    return found[1]
