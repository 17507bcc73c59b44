"""Docstrings of all that is public, by numpydoc: `python tests/docstrings.py` prints what is wrong, and fails then.

Which checks: pyproject.toml, [tool.numpydoc_validation]. What is public: `__all__` of the package and of the modules
that programs import, and their classes' methods and properties.
"""

import dataclasses
import importlib
import inspect
import sys
import warnings
from pathlib import Path

MODULES = ("", ".io", ".kinematic", ".experiment", ".cohere", ".pynx", ".cdiutils", ".torch", ".jax")
# Methods that pendel's own modules call of each other's objects: a line that names arguments and answer is enough.
INNER = {f"pendel.Model.{name}" for name in ("checked_crystal", "checked_dq", "checked_flux", "fit_of")}
INNER |= {f"pendel.Fit.{name}" for name in ("compared", "frame_weights", "only", "weighted")}
INNER |= {f"pendel.TakagiTaupin.{name}" for name in ("exit_state", "incident_row", "sweep_adjoint")}
INNER |= {"pendel.Model.intensities_on_host"}
CHECKS = Path(__file__).parents[1] / "pyproject.toml"


def public(name):
    """(name, object) of what a module offers; modules in it stand for their functions and classes."""
    module = importlib.import_module(f"pendel{name}")
    for inner in module.__all__:
        found = getattr(module, inner)
        if not inspect.ismodule(found):
            yield f"{module.__name__}.{inner}", found
        elif not hasattr(found, "__all__"):
            for part, value in vars(found).items():
                if not part.startswith("_") and getattr(value, "__module__", None) == found.__name__:
                    yield f"{found.__name__}.{part}", value


def members(name, found):
    """(name, object) of a callable: itself, and the methods and properties of a class that are pendel's."""
    if not callable(found):
        return
    yield name, found
    for inner, value in vars(found).items() if inspect.isclass(found) else ():
        if not inner.startswith("_") and (callable(value) or isinstance(value, (classmethod, property, staticmethod))):
            yield f"{name}.{inner}", value


def callables():
    """{name: object} of everything public that can be called or asked for, each once."""
    there, seen = {}, set()
    for module in MODULES:
        if module in (".torch", ".jax") and importlib.util.find_spec(module[1:]) is None:
            continue
        for named in public(module):
            for name, found in members(*named):
                if id(found) not in seen:
                    seen.add(id(found))
                    there[name] = found
    return there


def refused(validate, name, off):
    """[(code, message)] of a docstring by the checks that are on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [(code, text) for code, text in validate(name)["errors"] if code not in off]


def fields_of(found):
    """Names that a class documents as its attributes: what a dataclass is made of, and nobody else makes."""
    text = (inspect.getdoc(found) or "").partition("\nAttributes\n")[2].partition("\nRaises\n")[0]
    told = (
        {f.name for f in dataclasses.fields(found) if "about" in f.metadata}
        if dataclasses.is_dataclass(found)
        else set()
    )
    names = [line.partition(" : ")[0] for line in text.splitlines() if not line.startswith(" ")]
    return told | {part.strip() for name in names for part in name.split(",")}


def wrong():
    """[(name, code, message)] of everything public."""
    import tomllib
    from numpydoc.validate import validate

    off = set(tomllib.loads(CHECKS.read_text())["tool"]["numpydoc_validation"]["checks"]) - {"all"}
    found = []
    for name, thing in callables().items():
        for code, text in refused(validate, name, off):
            if code in ("PR01", "RT01") and name in INNER:
                continue
            if code == "PR01" and inspect.isclass(thing):
                signature = set(inspect.signature(thing).parameters) - {"args", "kwargs"}
                if signature <= fields_of(thing):
                    continue
            found.append((name, code, text))
    return found


if __name__ == "__main__":
    problems = wrong()
    print(*(f"{name}: {code} {text}" for name, code, text in problems), sep="\n")
    print(
        f"{len(callables())} docstrings, {len(problems)} of them wrong"
        if problems
        else f"{len(callables())} docstrings"
    )
    sys.exit(bool(problems))
