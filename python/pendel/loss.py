"""`pendel.model.loss`, by the name that programs import."""

import sys
from typing import TYPE_CHECKING

from .model import loss

if TYPE_CHECKING:
    from .model.loss import *  # noqa: F403
sys.modules[__name__] = loss
