"""The scan and the crystal: geometry, susceptibilities, materials."""

from .crystal import Crystal
from .geometry import Experiment, rotation

__all__ = ["Crystal", "Experiment", "rotation"]
