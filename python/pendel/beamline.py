"""`pendel.io`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from . import io

if TYPE_CHECKING:
    from .io import *  # noqa: F403
sys.modules[__name__] = io
