"""Names of a package that are imported once they are asked for."""

import pkgutil
import sys
from collections.abc import Mapping
from importlib import import_module


def later(package: str, places: Mapping[str, tuple[str, ...]] | None = None):
    """``__getattr__`` and ``__dir__`` of a package whose modules are its attributes, imported or not.

    Parameters
    ----------
    package : its ``__name__``
    places : {module: names} that the package has from its modules, or None
    """
    place_of = {name: place for place, names in (places or {}).items() for name in names}
    itself = sys.modules[package]

    def modules():
        return {module.name for module in pkgutil.iter_modules(itself.__path__)}

    def found(name):
        if name in place_of:
            value = getattr(import_module(f"{package}.{place_of[name]}"), name)
        elif name in modules():
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(itself, name, value)
        return value

    def names():
        return sorted({*vars(itself), *place_of, *modules()})

    return found, names
