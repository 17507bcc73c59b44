"""The operator and the frames of a model in JAX: under jit, grad and vmap, on the CPU.

Nothing else in pendel imports JAX.
"""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("pendel.jax: expected JAX to be installed; pip install 'pendel[jax]'") from error

from .model_frames import frames
from .operator import takagi_taupin

__all__ = ["frames", "takagi_taupin"]
