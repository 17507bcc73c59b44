"""Every room of the package imports from lower floors only; no circles; no module hides behind a function."""

import ast
import graphlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pendel
import pytest

FLOORS = [
    ("base",),
    ("operator", "reference", "io"),
    ("experiment",),
    ("analysis",),
    ("model", "kinematic"),
    ("fit", "torch", "jax", "cohere", "pynx", "cdiutils"),
    ("recipes", "planning", "cdtools"),
    ("",),  # the face
    ("app",),
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOT = Path(pendel.__file__).parent
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}


def imported(name, path):
    """{module} of pendel that a module imports, anywhere in its text; extensions too."""
    package, found = name.split(".")[:-1], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *filter(None, (node.module or "").split("."))]
            for alias in node.names:
                deeper = ".".join([*base, alias.name])
                places = deeper, f"{deeper}.__init__", ".".join(base), ".".join([*base, "__init__"])
                known = (place for place in places if place in MODULES)
                found.add(deeper if alias.name in ("_core", "_cuda") else next(known))
    return found


IMPORTS = {name: imported(name, path) for name, path in MODULES.items()}


def room(module):
    if module in ("cli", "__main__"):  # doors of the command line: python -m pendel
        return "app"
    return module.split(".")[0] if "." in module else ""


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    above = {m for m in IMPORTS[name] if room(m) != room(name) and FLOOR[room(m)] >= FLOOR[room(name)]}
    assert not above
    assert room(name) == "operator" or not any(m.endswith(("._core", "._cuda")) for m in IMPORTS[name])


def test_there_are_no_circles():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())


@pytest.mark.parametrize("name", [name for name in MODULES if FLOOR[room(name)] > FLOOR["fit"]])
def test_nobody_above_the_fit_sees_an_engine(name):
    tree = ast.walk(ast.parse(MODULES[name].read_text()))
    assert not [node.lineno for node in tree if isinstance(node, ast.Attribute) and node.attr == "engine"]


@pytest.mark.parametrize("name", MODULES)
def test_nobody_reaches_for_what_another_object_keeps_to_itself(name):
    """`self._x`, `cls._x` and a module's own `_x` are its own; `other._x` is not, but for named tuples' methods."""
    own = {"self", "cls", "copied"}  # the last: a copy of itself that an object makes
    reached = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in ("_replace", "_asdict", "_fields")
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
    ]
    assert not reached


def test_modules_are_found_by_the_names_that_programs_import():
    code = """
import sys
import pendel.beamline, pendel.phantom, pendel.refraction, pendel.resolution, pendel.start
from pendel.result import Result
from pendel.beamline import crop_scan, hot_pixel_mask, pattern_centre, read_34idc
assert Result is pendel.Result and pendel.beamline.read_34idc is pendel.io.read_34idc
unasked = "pendel.app", "matplotlib", "torch", "jax", "pendel.torch", "pendel.jax", "cdtools", "pendel.cdtools"
assert not any(name.startswith(unasked) for name in sys.modules)
from pendel import config, demo, plot, simulate, store
assert pendel.config is config and config.__name__ == "pendel.app.config"
"""
    path = os.pathsep.join([str(ROOT.parent), *sys.path])
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)
    with pytest.raises(AttributeError, match="module 'pendel' has no attribute 'nothing'"):
        pendel.nothing  # noqa: B018


FRAMEWORKS = {
    f"pendel.{name}" for name in ("torch", "jax", "cdtools") if importlib.util.find_spec(name) is None
}  # not here


def test_no_module_hides_behind_another_name():
    for info in pkgutil.walk_packages(pendel.__path__, "pendel."):
        if info.name.rpartition(".")[2] not in ("_cuda", "__main__") and info.name not in FRAMEWORKS:
            parent, _, name = info.name.rpartition(".")
            module = importlib.import_module(info.name)
            assert getattr(importlib.import_module(parent), name) is module
