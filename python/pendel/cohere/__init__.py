"""Results of cohere, and back: frames as it phases them, the crystals that it finds, and those of pendel for it.

cohere itself (``pip install 'pendel[cohere]'``, tested with cohere-core 4.5.4) is needed for phasing alone, not to read
and write its files.
"""

from .results import read_results, write_data, write_results

__all__ = ["read_results", "write_data", "write_results"]
