"""Kinematic phasing of a rocking scan, the model grid, supports, and the correction of refraction."""

from ..base.symmetry import twin
from .grid import KinematicResult, to_model_grid
from .phasing import PAPER_RECIPE, phase, phase_best

__all__ = ["PAPER_RECIPE", "KinematicResult", "phase", "phase_best", "to_model_grid", "twin"]
