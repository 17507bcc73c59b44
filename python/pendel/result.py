"""`pendel.fit.result`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from .fit import result

if TYPE_CHECKING:
    from .fit.result import *  # noqa: F403
sys.modules[__name__] = result
