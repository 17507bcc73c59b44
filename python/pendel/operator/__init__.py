"""The Takagi-Taupin operator, its far field, and the engines that they run on. Nobody else sees `_core` and `_cuda`."""

from .memory import estimate_memory
from .takagi_taupin import Adjoint, State, TakagiTaupin

__all__ = ["Adjoint", "State", "TakagiTaupin", "estimate_memory"]
