"""pendel: Takagi-Taupin engine for dynamical Bragg coherent diffraction imaging."""

import sys as _sys
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING

from .base import interruption as _interruption
from .base.version import __version__

if _interruption.is_command(_sys.orig_argv):  # before anything long is imported
    _interruption.end_at_once()

if TYPE_CHECKING:  # what type checkers see of the two tables below
    from . import io, kinematic
    from .analysis import phantom, resolution
    from .analysis.comparison import Comparison, compare
    from .analysis.repeatability import Repeatability, repeatability
    from .experiment.coherence import Coherence
    from .experiment.crystal import Crystal
    from .experiment.geometry import Experiment
    from .experiment.structure_factor import Susceptibility, susceptibility
    from .fit.minibatch import MinibatchRecipe, reconstruct
    from .fit.polishing import PolishRecipe, photon_weight, polish
    from .fit.quasi_newton import LbfgsRecipe, lbfgs
    from .fit.result import Result
    from .fit.total_variation import atv
    from .kinematic import refraction
    from .model.model import Evaluation, Fit, Model, Nuisance
    from .operator.engines import cuda_available, info
    from .operator.takagi_taupin import Adjoint, TakagiTaupin
    from .planning.check import Check, check
    from .planning.plan import Plan, plan
    from .recipes.coarse_to_fine import multiscale
    from .recipes.kinematic_starts import Start, kinematic_start
    from .recipes.levels import coarse, resample
    from .recipes.memory import estimate_memory
    from .recipes.multiscale_recipe import MultiscaleRecipe
    from .recipes.placing import place
    from .recipes.solve import SolveRecipe, solve
    from .recipes.trust import Trust

__all__ = [
    "__version__",
    "Adjoint",
    "atv",
    "check",
    "coarse",
    "Check",
    "Coherence",
    "compare",
    "Comparison",
    "Crystal",
    "cuda_available",
    "estimate_memory",
    "Evaluation",
    "Experiment",
    "Fit",
    "info",
    "io",
    "kinematic",
    "kinematic_start",
    "lbfgs",
    "LbfgsRecipe",
    "MinibatchRecipe",
    "Model",
    "multiscale",
    "MultiscaleRecipe",
    "Nuisance",
    "phantom",
    "photon_weight",
    "place",
    "Plan",
    "plan",
    "polish",
    "PolishRecipe",
    "reconstruct",
    "refraction",
    "Repeatability",
    "repeatability",
    "resample",
    "resolution",
    "Result",
    "solve",
    "SolveRecipe",
    "Start",
    "Susceptibility",
    "susceptibility",
    "TakagiTaupin",
    "Trust",
]

# Where names are, which are imported when they are asked for: all of it takes longer than most programs need.
_names = {
    "analysis.comparison": ("Comparison", "compare"),
    "analysis.repeatability": ("Repeatability", "repeatability"),
    "experiment.coherence": ("Coherence",),
    "experiment.crystal": ("Crystal",),
    "experiment.geometry": ("Experiment",),
    "experiment.structure_factor": ("Susceptibility", "susceptibility"),
    "fit.minibatch": ("MinibatchRecipe", "reconstruct"),
    "fit.polishing": ("PolishRecipe", "photon_weight", "polish"),
    "fit.quasi_newton": ("LbfgsRecipe", "lbfgs"),
    "fit.result": ("Result",),
    "fit.total_variation": ("atv",),
    "model.model": ("Evaluation", "Fit", "Model", "Nuisance"),
    "operator.engines": ("cuda_available", "info"),
    "operator.takagi_taupin": ("Adjoint", "TakagiTaupin"),
    "planning.check": ("Check", "check"),
    "planning.plan": ("Plan", "plan"),
    "recipes.coarse_to_fine": ("multiscale",),
    "recipes.kinematic_starts": ("Start", "kinematic_start"),
    "recipes.levels": ("coarse", "resample"),
    "recipes.memory": ("estimate_memory",),
    "recipes.multiscale_recipe": ("MultiscaleRecipe",),
    "recipes.placing": ("place",),
    "recipes.solve": ("SolveRecipe", "solve"),
    "recipes.trust": ("Trust",),
}
_names = {name: place for place, found in _names.items() for name in found}
_modules = {name: name for name in ("analysis", "base", "experiment", "fit", "io", "kinematic", "model", "operator")}
_modules |= {name: name for name in ("planning", "recipes", "reference", "torch", "jax", "cohere", "pynx", "cdiutils")}
_modules |= {"cdtools": "cdtools"}
_modules |= {"phantom": "analysis.phantom", "plot": "analysis.plot", "resolution": "analysis.resolution"}
_modules |= {"refraction": "kinematic.refraction"}
# By names that programs know, not their own: each has a file here as well, so that `import pendel.beamline` finds it.
_modules |= {"beamline": "io", "loss": "model.loss", "result": "fit.result", "start": "recipes.kinematic_starts"}
_modules |= {"config": "app.config", "demo": "app.demo", "simulate": "app.simulate", "store": "app.store"}


def __getattr__(name):
    if name in _names:
        found = getattr(_import_module(f"pendel.{_names[name]}"), name)
    elif name in _modules:
        found = _import_module(f"pendel.{_modules[name]}")
    else:
        raise AttributeError(f"module 'pendel' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__():
    # without the doors to what is not installed: `help` opens all that is told here
    shut = {name for name in ("torch", "jax", "cdtools") if _find_spec(name) is None}
    return sorted({*globals(), *_names, *_modules} - shut)
