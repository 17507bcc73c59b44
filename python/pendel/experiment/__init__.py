"""The scan and the crystal: geometry, susceptibilities, materials."""

from ..base.later import later as _later
from .crystal import Crystal
from .geometry import Experiment, rotation

__all__ = ["Crystal", "Experiment", "rotation"]

# Modules are attributes before anybody has imported them: programs say `pendel.experiment.materials`.
__getattr__, __dir__ = _later(__name__)
