"""Kinematic phasing of a rocking scan, the model grid, supports, and the correction of refraction."""

from ..base.later import later as _later
from ..base.symmetry import twin
from .detector_grid import padded, to_detector_grid
from .grid import KinematicResult, box_for, to_model_grid
from .phasing import PAPER_RECIPE, phase, phase_best
from .uneven import EvenScan, even_experiment, even_scan

__all__ = [
    "PAPER_RECIPE",
    "EvenScan",
    "KinematicResult",
    "box_for",
    "even_experiment",
    "even_scan",
    "padded",
    "phase",
    "phase_best",
    "to_detector_grid",
    "to_model_grid",
    "twin",
]

# Modules are attributes before anybody has imported them: programs say `pendel.kinematic.refraction`.
__getattr__, __dir__ = _later(__name__)
