"""From crystal function to detector frames, and from their misfit back to its gradient."""

from .model import Evaluation, Fit, Model

__all__ = ["Evaluation", "Fit", "Model"]
