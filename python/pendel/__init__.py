"""pendel: Takagi-Taupin engine for dynamical Bragg coherent diffraction imaging."""

from . import io, kinematic, phantom, refraction, resolution
from ._device import cuda_available, info
from ._version import __version__
from .atv import atv
from .compare import Comparison, compare
from .experiment import Experiment
from .lbfgs import lbfgs
from .model import Crystal, Model
from .multiscale import coarse, multiscale, resample
from .operator import Adjoint, TakagiTaupin, estimate_memory
from .place import place
from .polish import photon_weight, polish
from .reconstruct import reconstruct
from .result import Result
from .start import Start, kinematic_start
from .susceptibility import Susceptibility, susceptibility

__all__ = [
    "Adjoint",
    "Comparison",
    "Crystal",
    "Experiment",
    "Model",
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
