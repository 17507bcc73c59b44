"""`pendel.kinematic.refraction`, by the name that programs import."""

import sys

from .kinematic import refraction

sys.modules[__name__] = refraction
