"""Rocking scans and their dynamical model in CDTools: its datasets, its Adam, its result files.

Nothing else in pendel imports CDTools.
"""

try:
    import cdtools as _cdtools  # noqa: F401
except ImportError as error:
    raise ImportError("pendel.cdtools: expected CDTools to be installed; pip install 'pendel[cdtools]'") from error

from .dataset import RockingDataset
from .dynamical_bragg import DynamicalBragg

__all__ = ["DynamicalBragg", "RockingDataset"]
