"""`pendel.analysis.resolution`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from .analysis import resolution

if TYPE_CHECKING:
    from .analysis.resolution import *  # noqa: F403
sys.modules[__name__] = resolution
