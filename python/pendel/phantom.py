"""`pendel.analysis.phantom`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from .analysis import phantom

if TYPE_CHECKING:
    from .analysis.phantom import *  # noqa: F403
sys.modules[__name__] = phantom
