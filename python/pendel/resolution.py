"""`pendel.analysis.resolution`, by the name that programs import."""

import sys

from .analysis import resolution

sys.modules[__name__] = resolution
