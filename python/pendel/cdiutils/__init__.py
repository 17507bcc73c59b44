"""The pipeline of cdiutils: scans that it has preprocessed, what it has phased, and crystals for its post-processing.

cdiutils itself (``pip install 'pendel[cdiutils]'``, tested with 0.2.1) is needed for its own steps alone, not to read
and write its files.
"""

from .results import read_preprocessed, read_results, write_results

__all__ = ["read_preprocessed", "read_results", "write_results"]
