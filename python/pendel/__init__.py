"""pendel: Takagi-Taupin engine for dynamical Bragg coherent diffraction imaging."""

import sys as _sys
from importlib import import_module as _import_module

from .base import interruption as _interruption

if _interruption.is_command(_sys.orig_argv):  # before anything long is imported
    _interruption.end_at_once()

from . import io, kinematic
from .analysis import phantom, resolution
from .analysis.comparison import Comparison, compare
from .base.version import __version__
from .experiment.coherence import Coherence
from .experiment.crystal import Crystal
from .experiment.geometry import Experiment
from .experiment.structure_factor import Susceptibility, susceptibility
from .fit import result as _result
from .fit.minibatch import MinibatchRecipe, reconstruct
from .fit.polishing import PolishRecipe, photon_weight, polish
from .fit.quasi_newton import LbfgsRecipe, lbfgs
from .fit.result import Result
from .fit.total_variation import atv
from .kinematic import refraction
from .model import loss as _loss
from .model.model import Evaluation, Fit, Model, Nuisance
from .operator.engines import cuda_available, info
from .operator.takagi_taupin import Adjoint, TakagiTaupin
from .recipes import kinematic_starts as _start
from .recipes.coarse_to_fine import multiscale
from .recipes.kinematic_starts import Start, kinematic_start
from .recipes.levels import coarse, resample
from .recipes.memory import estimate_memory
from .recipes.multiscale_recipe import MultiscaleRecipe
from .recipes.placing import place
from .recipes.solve import SolveRecipe, Trust, solve

__all__ = [
    "Adjoint",
    "Coherence",
    "Comparison",
    "Crystal",
    "Evaluation",
    "Experiment",
    "Fit",
    "LbfgsRecipe",
    "MinibatchRecipe",
    "Model",
    "MultiscaleRecipe",
    "Nuisance",
    "PolishRecipe",
    "Result",
    "Start",
    "Susceptibility",
    "TakagiTaupin",
    "__version__",
    "atv",
    "coarse",
    "compare",
    "cuda_available",
    "estimate_memory",
    "info",
    "io",
    "kinematic",
    "kinematic_start",
    "lbfgs",
    "multiscale",
    "solve",
    "SolveRecipe",
    "Trust",
    "phantom",
    "photon_weight",
    "place",
    "polish",
    "reconstruct",
    "refraction",
    "resample",
    "resolution",
    "susceptibility",
]

# Modules that programs import by these names, `pendel.beamline` and `pendel.result` for example, and where they are.
_modules = {"beamline": io, "result": _result, "start": _start, "loss": _loss}
_modules |= {"phantom": phantom, "refraction": refraction, "resolution": resolution}
globals().update(_modules)
_sys.modules |= {f"pendel.{name}": module for name, module in _modules.items()}
# The floor above, matplotlib and the frameworks are not loaded before they are asked for.
_later = {"config": "app.config", "demo": "app.demo", "simulate": "app.simulate", "store": "app.store"}
_later |= {"plot": "analysis.plot", "torch": "torch", "jax": "jax"}
_later |= {"cohere": "cohere", "pynx": "pynx", "cdtools": "cdtools"}  # what other programs write and take


def __getattr__(name):
    if name in _later:
        return _import_module(f"pendel.{_later[name]}")
    raise AttributeError(f"module 'pendel' has no attribute {name!r}")
