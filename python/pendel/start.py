"""`pendel.recipes.kinematic_starts`, by the name that programs import."""

import sys

from .recipes import kinematic_starts

sys.modules[__name__] = kinematic_starts
