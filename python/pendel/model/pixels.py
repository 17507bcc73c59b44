"""Measured pixels as a fit reads them, and the choice of those it is not shown."""

import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.arrays import module
from . import loss


class Pixels:
    """Amplitudes sqrt(I) of measured frames, taken once, and which of them are good.

    Parameters
    ----------
    root : real (frames, rows, cols)
        sqrt(I), 0 on bad pixels.
    good : bool (rows, cols) or (frames, rows, cols), or None
        Pixels that are fitted; None: all.
    free : bool, as good, or None
        Good pixels that are held out of the fit, and not in ``good``.
    place : int (n_frames,) or None
        Where in ``root`` each frame of the scan is; None: all are there.
    frames : int (count,), on the host, or None
        Which frames of the scan are there, in order; None: all are.
    narrowed : bool
        Whether ``root`` holds amplitudes on pixels that are not in ``good``.
    """

    def __init__(self, root, good, free=None, place=None, frames=None, narrowed=False):
        self.root, self.good, self.free = root, good, free
        self.place, self.frames, self.narrowed = place, frames, narrowed

    @classmethod
    def measured(cls, data, mask, real, free=None, frames=None):
        """Of checked arrays: data (n_frames, rows, cols), mask True = good, free True = held out, both bool or None.

        frames : indices of those that will be asked for, on the host; None: all.  real : dtype of the amplitudes.
        """
        xp, place, there = module(data), None, None
        if frames is not None:
            there, frames = np.unique(frames), xp.asarray(frames)
            place = xp.zeros(len(data), np.int64)
            place[frames] = xp.arange(len(frames))
            data, mask, free = data[frames], of_frames(mask, frames), of_frames(free, frames)

        root = xp.empty(data.shape, real)
        step = len(data) if xp is not np else 1  # a device wants long arrays, a host little memory
        for first in range(0, len(data), step):
            part = slice(first, first + step)
            root[part] = loss.root_intensity(data[part], of_frames(mask, part), real)

        if free is None:
            return cls(root, mask, None, place, there)
        good = ~free if mask is None else mask & ~free
        return cls(root, good, free if mask is None else mask & free, place, there, narrowed=True)

    @property
    def known(self):
        """Good pixels, held out or not, bool as ``good`` or None."""
        return self.good if self.free is None else self.good | self.free

    def only(self, kept):
        """The same without the pixels that are not ``kept``, bool (frames, rows, cols), all of them known ones."""
        if self.free is None:
            return Pixels(self.root, kept, None, self.place, self.frames, narrowed=True)
        return Pixels(self.root, kept & ~self.free, kept & self.free, self.place, self.frames, narrowed=True)

    def load(self, indices):
        """(sqrt I, good) of the given frames for the fit; good is None where all pixels are."""
        rows = indices if self.place is None else self.place[indices]
        root, good = self.root[rows], of_frames(self.good, rows)
        if not self.narrowed:
            return root, good
        good = module(good).broadcast_to(good, root.shape)
        return module(root).where(good, root, root.dtype.type(0)), good

    def load_free(self, indices):
        """(sqrt I, held out and good) of the given frames."""
        rows = indices if self.place is None else self.place[indices]
        root, free = self.root[rows], of_frames(self.free, rows)
        free = module(free).broadcast_to(free, root.shape)
        return module(root).where(free, root, root.dtype.type(0)), free

    def each_frame(self):
        """`load` of one frame after the other."""
        xp = module(self.root)
        for frame in range(len(self.root)) if self.frames is None else self.frames:
            yield self.load(xp.asarray(np.array([frame])))


def check_background(name, value, shape, take=checks.numpy_array):
    """Counts per pixel, >= 0: a number, or an array for frames, (n_frames,), for pixels, (rows, cols), or for both.

    shape : (n_frames, rows, cols).  take : as in `loss.check_data`.  Values of arrays are left unread.
    """
    if not loss.has_axes(value):
        return checks.number(name, value, at_least=0)
    value = take(name, value)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {value.dtype}")
    allowed = shape[:1], shape[1:], shape
    if value.shape not in allowed:
        raise ValueError(f"{name}: expected a number or shape {', '.join(map(str, allowed))}, got {value.shape}")
    return value


def check_weights(name, value, shape, take=checks.numpy_array):
    """Weights of the pixels, in (0, 1], real (rows, cols) or ``shape`` (n_frames, rows, cols); None stays None."""
    if value is None:
        return None
    value = take(name, value)
    if value.dtype.kind != "f":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {value.dtype}")
    if value.shape not in (shape, shape[1:]):
        raise ValueError(f"{name}: expected shape {shape} or {shape[1:]}, got {value.shape}")
    return value


def refuse_bad_values(background, weights):
    """Raise ValueError for a background < 0, weights that are not in (0, 1], or either not finite."""
    if loss.has_axes(background) and not (np.isfinite(background) & (background >= 0)).all():
        raise ValueError(f"background: expected finite counts >= 0, got {checks.describe(background)} with others")
    if weights is not None and not ((weights > 0) & (weights <= 1)).all():
        raise ValueError(f"weights: expected numbers > 0 and <= 1, got {weights.min():g} to {weights.max():g}")


def error_weights(intensity, error, mask=None):
    """Weights for a model that is wrong by ``error`` of the intensity about a pixel: 1/(1 + error^2 local intensity).

    Local: the mean over the pixel and its neighbours in the scan, 3 x 3 x 3. A model misses the dark pixels between
    bright ones by as much as these.

    Parameters
    ----------
    intensity : (n_frames, rows, cols), expected counts, or the data
    error : number >= 0, relative, or an array that broadcasts to the intensity
    mask : bool, True = good, as in `Model.fit`, or None

    Returns
    -------
    float32 (n_frames, rows, cols)
    """
    error = checks.numpy_array("error", error).astype(np.float64)
    if not (np.isfinite(error) & (error >= 0)).all():
        raise ValueError(f"error: expected finite numbers >= 0, got {checks.describe(error)}")
    return (1 / (1 + error**2 * local_mean(intensity, mask))).astype(np.float32)


def local_mean(intensity, mask=None):
    """Mean over the good ones of each pixel and its 26 neighbours in the scan, float64; 0 without any.

    intensity : (n_frames, rows, cols).  mask : bool, True = good, or None.
    """
    intensity = checks.array("intensity", intensity, (None, None, None), np.float64, finite=False)
    mask = True if mask is None else checks.good_pixels("mask", mask, intensity.shape)
    good = np.broadcast_to(mask, intensity.shape).astype(np.float64)
    near = {"size": 3, "mode": "constant"}
    light = ndimage.uniform_filter(np.where(good > 0, np.maximum(intensity, 0), 0), **near)
    # a running sum leaves rounding where there is no light
    return np.maximum(light / np.maximum(ndimage.uniform_filter(good, **near), 1 / 27), 0)


def of_frames(pixels, frames):
    """What belongs to some frames; an array (rows, cols), or None, belongs to all."""
    return pixels[frames] if pixels is not None and pixels.ndim == 3 else pixels


def free_pixels(shape, fraction, mask=None, seed=0):
    """Pixels to hold out of a fit, bool ``shape`` = (frames, rows, cols): single ones, about ``fraction`` of the good.

    Photon noise is independent from pixel to pixel, so a single pixel judges what the fit made of its neighbours'; and
    the pattern is sampled finer than its speckles, so the true crystal can meet it. An island as large as a speckle
    would take with it what no other pixel measures, and be missed by every crystal. The innermost twentieth of each
    axis about n//2 is left alone: the fit hangs on the Bragg peak's centre.

    Parameters
    ----------
    shape : (frames, rows, cols).
    fraction : number > 0 and < 1.
    mask : bool, True = good, as in `Model.fit`.
    seed : same seed, same pixels.

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
