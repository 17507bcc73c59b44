"""`pendel.recipes.kinematic_starts`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from .recipes import kinematic_starts

if TYPE_CHECKING:
    from .recipes.kinematic_starts import *  # noqa: F403
sys.modules[__name__] = kinematic_starts
