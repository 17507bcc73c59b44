"""The operator and the frames of a model in PyTorch: differentiable once, also under torch.compile.

Nothing else in pendel imports PyTorch.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("pendel.torch: expected PyTorch to be installed; pip install 'pendel[torch]'") from error

from .model_frames import Frames
from .operator import TakagiTaupin, takagi_taupin

__all__ = ["Frames", "TakagiTaupin", "takagi_taupin"]
