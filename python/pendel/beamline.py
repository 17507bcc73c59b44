"""`pendel.io`, by the name that programs import."""

import sys

from . import io

sys.modules[__name__] = io
