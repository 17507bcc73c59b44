"""Every room of the package imports from lower floors only; no circles; no module hides behind a function."""

import ast
import graphlib
import importlib
import pkgutil
from pathlib import Path

import pendel
import pytest

FLOORS = [
    ("base",),
    ("operator", "reference", "io"),
    ("experiment",),
    ("analysis",),
    ("model", "kinematic"),
    ("fit",),
    ("recipes",),
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
    return module.split(".")[0] if "." in module else ""


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    above = {m for m in IMPORTS[name] if room(m) != room(name) and FLOOR[room(m)] >= FLOOR[room(name)]}
    assert not above
    assert room(name) == "operator" or not any(m.endswith(("._core", "._cuda")) for m in IMPORTS[name])


def test_there_are_no_circles():
    list(graphlib.TopologicalSorter(IMPORTS).static_order())


def test_no_module_hides_behind_another_name():
    for info in pkgutil.walk_packages(pendel.__path__, "pendel."):
        if info.name.rpartition(".")[2] not in ("_cuda", "__main__"):
            parent, _, name = info.name.rpartition(".")
            module = importlib.import_module(info.name)
            assert getattr(importlib.import_module(parent), name) is module
