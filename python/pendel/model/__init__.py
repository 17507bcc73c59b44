"""From crystal function to detector frames, and from their misfit back to its gradient."""

from .frames import Frames
from .model import Evaluation, Fit, Model

__all__ = ["Evaluation", "Fit", "Frames", "Model"]
