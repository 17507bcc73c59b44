"""Results of PyNX, modes too, and back. PyNX is not needed to read and write its files (tested: 2022.1)."""

from .results import read_modes, read_results, write_results

__all__ = ["read_modes", "read_results", "write_results"]
