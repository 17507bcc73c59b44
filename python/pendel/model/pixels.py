"""Measured pixels as a fit reads them, and the choice of those it is not shown."""

import numpy as np

from ..base import checks
from ..base.arrays import module
from . import loss


class Pixels:
    """Measured frames, a few at a time, with ``mask`` (True = good) and ``free`` (True = held out), bool or None."""

    def __init__(self, data, mask, real, free=None):
        self.data, self.mask, self.real, self.free = data, mask, real, free

    def load(self, indices):
        """(sqrt I, good) of the given frames for the fit; good is None where all pixels are."""
        good, free = _of(self.mask, indices), _of(self.free, indices)
        if free is not None:
            good = ~free if good is None else good & ~free
            good = module(good).broadcast_to(good, (len(indices), *self.data.shape[1:]))
        return loss.root_intensity(self.data[indices], good, self.real), good

    def load_free(self, indices):
        """(sqrt I, held out and good) of the given frames."""
        good, free = _of(self.mask, indices), _of(self.free, indices)
        free = module(free).broadcast_to(free if good is None else good & free, (len(indices), *self.data.shape[1:]))
        return loss.root_intensity(self.data[indices], free, self.real), free

    def complaint(self, indices):
        return loss.bad_data(self.data[indices], _of(self.mask, indices))


def _of(mask, indices):
    return mask[indices] if mask is not None and mask.ndim == 3 else mask


def free_pixels(shape, fraction, mask=None, seed=0):
    """Pixels to hold out of a fit, bool ``shape`` = (frames, rows, cols): single ones, about ``fraction`` of the good.

    Photon noise is independent from pixel to pixel, so a single pixel judges what the fit made of its neighbours'; and
    the pattern is sampled finer than its speckles, so the true crystal can meet it. An island as large as a speckle
    would take with it what no other pixel measures, and be missed by every crystal. The innermost twentieth of each
    axis about n//2 is left alone: the fit hangs on the Bragg peak's centre.

    fraction : number > 0 and < 1.  mask : bool, True = good, as in `Model`.  seed : same seed, same pixels.
    Raises ValueError where no pixel is left on one of both sides.
    """
    shape = checks.sizes("shape", shape, 3)
    fraction = checks.number("free_fraction", fraction, above=0, below=1)
    mask = loss.check_mask("mask", mask, shape)
    # a stream of its own: the groups of frames keep theirs
    rng = np.random.default_rng([checks.integer("seed", seed, at_least=0), 1])
    free = rng.random(shape, np.float32) < fraction
    free[tuple(slice(n // 2 - n // 40, n // 2 + n // 40 + 1) for n in shape)] = False
    good = np.broadcast_to(True if mask is None else mask, shape)
    free &= good
    if not free.any() or not (good & ~free).any():
        raise ValueError(
            f"free_fraction: expected one that leaves good pixels on both sides, got {fraction:g} of {good.sum()}"
        )
    return free
