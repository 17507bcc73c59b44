"""What `import pendel` and the command line's help load, and that public names are found once they are asked for."""

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pendel
import pytest
from pendel.base import constants
from pendel.recipes.voxels import counting_noise
from scipy import constants as scipy_constants
from scipy import stats

ROOT = Path(pendel.__file__).parent
HEAVY = ("scipy", "h5py", "matplotlib", "gemmi", "torch", "jax", "cupy", "tqdm", "importlib.metadata", "asyncio")


def loaded_by(code):
    """Modules that a fresh process has after ``code``."""
    code += "\nimport sys\nprint('\\nloaded', *sys.modules)"
    path = os.pathsep.join([str(ROOT.parent), *sys.path])
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True, text=True
    )
    return set(made.stdout.rpartition("\nloaded ")[2].split())


@pytest.mark.parametrize(
    "code",
    (
        "import pendel",
        "import pendel; dir(pendel), pendel.__version__",
        "from pendel.app.cli import main\nassert main(['--help']) == 0",
        "from pendel.app.cli import main\nassert main(['reconstruct', '--help']) == 0",
    ),
)
def test_import_and_help_load_nothing_that_takes_long(code):
    assert not {name for name in loaded_by(code) if name.split(".")[0] in HEAVY or name in HEAVY}


def test_a_model_loads_neither_optimisers_nor_files():
    """What a program with a loop of its own imports."""
    unasked = ("scipy.stats", "scipy.optimize", "scipy.interpolate", "scipy.constants", "h5py", "matplotlib")
    loaded = loaded_by("import pendel; pendel.Model, pendel.Experiment, pendel.Crystal, pendel.TakagiTaupin")
    assert "pendel.model.model" in loaded
    assert not loaded & set(unasked)


def test_no_way_to_a_crystal_loads_the_distributions_of_scipy():
    assert "scipy.stats" not in loaded_by("import pendel; [getattr(pendel, name) for name in pendel.__all__]")


def test_public_names_are_those_that_type_checkers_see():
    """Imports under TYPE_CHECKING say the same as the tables by which names are found."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    branch = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in branch.body for alias in node.names}
    assert {*seen, "__version__"} == set(pendel.__all__)
    for name, place in seen.items():
        module = importlib.import_module(f"pendel.{place}" if place else f"pendel.{name}")
        assert getattr(pendel, name) is (getattr(module, name) if place else module)
    assert {*pendel.__all__, "plot", "beamline"} <= set(dir(pendel))
    for name in ("torch", "jax", "cdtools"):
        assert (name in dir(pendel)) == (importlib.util.find_spec(name) is not None)


def test_constants_are_those_of_codata():
    assert constants.LIGHT_SPEED == scipy_constants.c
    assert constants.PLANCK == scipy_constants.h
    assert constants.ELEMENTARY_CHARGE == scipy_constants.e
    # newer SciPy has CODATA 2022; older ones have 2018, whose radius is 2.0e-9 larger
    assert constants.ELECTRON_RADIUS == pytest.approx(
        scipy_constants.physical_constants["classical electron radius"][0], rel=3e-9
    )


def test_photon_noise_goes_by_poisson_s_law():
    counts = np.arange(100)
    for mean in (0.01, 1.0, 7.0):
        exact = np.sum((np.sqrt(counts) - np.sqrt(mean)) ** 2 * stats.poisson.pmf(counts, mean))
        assert counting_noise(np.array([mean]))[0] == pytest.approx(exact, rel=1e-3)  # between the table's means


@pytest.mark.parametrize(
    "name",
    (
        "kinematic.refraction",
        "kinematic.differences",
        "recipes.solve",
        "fit.polishing",
        "model.pixels",
        "experiment.materials",
        "analysis.plot",
        "reference.wide_angle",
        "start.box_for",
    ),
)
def test_modules_are_attributes_that_nobody_has_imported(name):
    """As they were when `import pendel` imported all."""
    assert f"pendel.{name.split('.')[0]}" not in loaded_by("import pendel")
    loaded_by(f"import pendel; pendel.{name}")


def test_the_package_can_be_looked_at_without_what_is_not_installed():
    """`help(pendel)` asks for every name in `dir`; a framework that is not there is none of them."""
    loaded_by("import sys; sys.modules['jax'] = None; import pendel, pydoc; pydoc.render_doc(pendel)")
