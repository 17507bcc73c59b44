"""From crystal function to detector frames, and from their misfit back to its gradient."""

from ..base.later import later as _later
from .frames import Frames
from .model import Evaluation, Fit, Model

__all__ = ["Evaluation", "Fit", "Frames", "Model"]

# Modules are attributes before anybody has imported them: programs say `pendel.model.pixels`.
__getattr__, __dir__ = _later(__name__)
