"""Measured pixels as a fit reads them, and the choice of those it is not shown."""

import numpy as np

from . import _checks, loss

RADIUS = 2  # of an island of held-out pixels, in pixels and frames


class Pixels:
    """Measured frames, a few at a time, with ``mask`` (True = good) and ``free`` (True = held out), bool or None."""

    def __init__(self, data, mask, real, free=None):
        self.data, self.mask, self.real, self.free = data, mask, real, free

    def load(self, indices):
        """(sqrt I, good) of the given frames for the fit; good is None where all pixels are."""
        good, free = _of(self.mask, indices), _of(self.free, indices)
        if free is not None:
            good = ~free if good is None else good & ~free
            good = np.broadcast_to(good, (len(indices), *self.data.shape[1:]))
        return loss.root_intensity(self.data[indices], good, self.real), good

    def load_free(self, indices):
        """(sqrt I, held out and good) of the given frames."""
        good, free = _of(self.mask, indices), _of(self.free, indices)
        free = np.broadcast_to(free if good is None else good & free, (len(indices), *self.data.shape[1:]))
        return loss.root_intensity(self.data[indices], free, self.real), free

    def complaint(self, indices):
        return loss.bad_data(self.data[indices], _of(self.mask, indices))


def _of(mask, indices):
    return mask[indices] if mask is not None and mask.ndim == 3 else mask


def free_pixels(shape, fraction, mask=None, seed=0):
    """Pixels to hold out of a fit, bool ``shape`` = (frames, rows, cols): islands, about ``fraction`` of the good ones.

    A pattern is sampled finer than its speckles, so that a single missing pixel could be guessed from its neighbours.
    Held out are therefore balls of radius 2 in pixels and frames, 33 of them each, at random places. The innermost
    twentieth of each axis about n//2 is left alone: the Bragg peak's centre carries too much of the fit.

    fraction : number > 0 and < 1.  mask : bool, True = good, as in `Model`.  seed : same seed, same pixels.
    Raises ValueError where there are no such pixels.
    """
    shape = _checks.sizes("shape", shape, 3)
    fraction = _checks.number("fraction", fraction, above=0, below=1)
    seed = _checks.integer("seed", seed, at_least=0)
    good = np.ones(shape, bool) if mask is None else np.broadcast_to(loss.check_mask("mask", mask, shape), shape)
    axes = [np.arange(-RADIUS, RADIUS + 1)] * 3
    ball = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    ball = ball[(ball**2).sum(axis=1) <= RADIUS**2]
    # a pixel is missed by k balls of V pixels, thrown at N places, with probability (1 - V/N)^k
    count = round(np.log1p(-fraction) / np.log1p(-min(len(ball) / good.size, 0.5)))
    # a stream of its own: the groups of frames keep theirs
    places = np.random.default_rng([seed, 1]).integers(0, shape, size=(max(count, 1), 3))
    places = (places[:, None] + ball).reshape(-1, 3)
    places = places[((places >= 0) & (places < shape)).all(axis=1)]
    free = np.zeros(shape, bool)
    free[tuple(places.T)] = True
    free[tuple(slice(n // 2 - n // 40, n // 2 + n // 40 + 1) for n in shape)] = False
    free &= good
    if not free.any() or not (good & ~free).any():
        raise ValueError(
            f"fraction: expected one that leaves good pixels on both sides, got {fraction:g} of {good.sum()}"
        )
    return free
