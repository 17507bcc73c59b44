"""Kinematic phasing of a rocking scan, the model grid, supports, and the correction of refraction."""

from ..base.symmetry import twin
from .grid import KinematicResult, to_model_grid
from .phasing import PAPER_RECIPE, phase, phase_best
from .uneven import EvenScan, even_experiment, even_scan

__all__ = [
    "PAPER_RECIPE",
    "EvenScan",
    "KinematicResult",
    "even_experiment",
    "even_scan",
    "phase",
    "phase_best",
    "to_model_grid",
    "twin",
]
