"""pendel: Takagi-Taupin engine for dynamical Bragg coherent diffraction imaging."""

from .operator import Adjoint, TakagiTaupin, cuda_available, estimate_memory, info

__version__ = "0.1.0"
__all__ = ["Adjoint", "TakagiTaupin", "cuda_available", "estimate_memory", "info"]
