"""`pendel.fit.result`, by the name that programs import."""

import sys

from .fit import result

sys.modules[__name__] = result
