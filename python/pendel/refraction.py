"""`pendel.kinematic.refraction`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from .kinematic import refraction

if TYPE_CHECKING:
    from .kinematic.refraction import *  # noqa: F403
sys.modules[__name__] = refraction
