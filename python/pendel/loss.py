"""Amplitude loss between computed and measured intensities, its gradient, and the intensity scale.

(1) loss = (1/L) sum_j (1/M_j) sum_good (sqrt(scale D) - sqrt I)^2         L frames, M_j good pixels of frame j
(2) adj_D = (1/(L M_j)) sqrt(scale) (sqrt(scale D) - sqrt I)/sqrt D        0 on bad pixels and where D = 0
(3) sqrt(best scale) = sum_j (1/M_j) sum_good sqrt(D I) / sum_j (1/M_j) sum_good D, the minimum of (1)

Least squares of amplitudes: the variance-stabilised Poisson likelihood, Godard et al., Opt. Express 20, 25914 (2012).
At the best scale the loss does not depend on the scale to first order, so that (2) is its whole gradient there.
Pixels are handled in the dtype of D, sums over pixels in float64, frame by frame: results do not depend on how frames
are grouped.
"""

import math

import numpy as np

from . import _checks


def root_intensity(data, good, dtype):
    """sqrt of measured intensities in ``dtype``, 0 on bad pixels, whatever they hold; NaN where a good one is < 0."""
    if good is not None:
        data = np.where(good, data, 0)
    data = data.astype(dtype)
    with np.errstate(invalid="ignore"):
        return np.sqrt(data, out=data)


def frame_weights(good, shape):
    """(n,) 1/M_j for ``shape`` = (n, rows, cols): M_j good pixels, 0 for a frame without. ``good`` None: all good."""
    n, rows, cols = shape
    if good is None:
        return np.full(n, 1.0 / (rows * cols))
    count = np.count_nonzero(good, axis=(-2, -1)) + np.zeros(n, dtype=np.int64)
    return np.divide(1.0, count, out=np.zeros(n), where=count > 0)


def frame_sums(values):
    """(n,) float64 sums of (n, rows, cols)."""
    return np.array([np.sum(frame, dtype=np.float64) for frame in values.reshape(len(values), -1)])


def scale_sums(D, root, good):
    """(n,) sums over good pixels of sqrt(D I) and of D, the two sides of (3). ``root`` is 0 on bad pixels."""
    cross = np.sqrt(D)
    cross *= root
    return frame_sums(cross), frame_sums(D if good is None else D * good)


def residual(D, root, good, weight, scale):
    """Terms of (1) and (2) for frames of weight 1/(L M_j).

    Returns (n,) float64 sums over good pixels of (sqrt(scale D) - sqrt I)^2, unweighted, and adj_D like D.
    """
    amplitude = np.sqrt(D)
    root_scale = math.sqrt(scale)
    r = amplitude * D.dtype.type(root_scale)
    r -= root
    if good is not None:
        r *= good
    sums = frame_sums(r * r)
    # A pixel with D = 0 has no gradient: its amplitude may grow with any phase.
    np.divide(r, amplitude, out=r, where=amplitude > 0)
    r[amplitude == 0] = 0
    r *= (root_scale * weight).astype(D.dtype)[:, None, None]
    return sums, r


def _inputs(D, data, mask):
    D = _checks.array("D", D, (None, None, None), np.float32 if np.asarray(D).dtype == np.float32 else np.float64)
    data = check_data("data", data, D.shape)
    good = check_mask("mask", mask, D.shape)
    if D.size and D.min() < 0:
        raise ValueError(f"D: expected intensities >= 0, got {D.min():g}")
    root = root_intensity(data, good, D.dtype)
    if not np.isfinite(root).all():
        raise ValueError(f"data: {bad_data(data, good)}")
    return D, root, good


def check_data(name, data, shape):
    """``data`` as an array of real dtype and of ``shape`` (frames, rows, cols); values are left unread."""
    data = np.asarray(data)
    if data.dtype.kind not in "iufb":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {data.dtype}")
    if data.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape (frames, rows, cols) = {tuple(shape)}, got {data.shape}")
    return data


def check_mask(name, mask, shape):
    """``mask`` as a bool array of ``shape`` (frames, rows, cols) or (rows, cols), True = good; None stays None."""
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"{name}: expected dtype bool, True = good pixel, got {mask.dtype}")
    if mask.shape not in (tuple(shape), tuple(shape[1:])):
        raise ValueError(f"{name}: expected shape {tuple(shape)} or {tuple(shape[1:])}, got {mask.shape}")
    return mask


def bad_data(data, good):
    """The end of an error message about data that are negative or not finite on good pixels."""
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isfinite(data) & (data >= 0))
    count = np.count_nonzero(wrong if good is None else wrong & good)
    return f"expected finite intensities >= 0 on good pixels, got {count} others"


def amplitude_loss(D, data, mask=None, scale=1.0):
    """Loss (1) and its gradient (2).

    Parameters
    ----------
    D : (n, rows, cols) float32 or float64, computed intensities >= 0.
    data : like D, any real dtype, measured intensities >= 0 on good pixels.
    mask : bool (n, rows, cols) or (rows, cols), True = good pixel; None: all good.
    scale : number >= 0 that multiplies D, or None for `best_scale`.

    Returns (loss, adj_D): float, and dL/dD of the shape and dtype of D.
    Raises TypeError or ValueError naming the argument.
    """
    D, root, good = _inputs(D, data, mask)
    weight = frame_weights(good, D.shape)
    scale = _best_scale(D, root, good, weight) if scale is None else _checks.number("scale", scale, at_least=0)
    weight /= len(D)
    sums, adj_D = residual(D, root, good, weight, scale)
    return float(weight @ sums), adj_D


def best_scale(D, data, mask=None):
    """The scale of D that minimises the loss, equation (3). Arguments as in `amplitude_loss`.

    Raises ValueError where D is 0 on all good pixels.
    """
    D, root, good = _inputs(D, data, mask)
    return _best_scale(D, root, good, frame_weights(good, D.shape))


def _best_scale(D, root, good, weight):
    cross, power = scale_sums(D, root, good)
    return scale_from_sums(weight @ cross, weight @ power)


def scale_from_sums(cross, power):
    """The best scale from the weighted sums of (3)."""
    if not power > 0:
        raise ValueError(f"scale: expected computed intensity on good pixels to scale, got a weighted sum of {power}")
    return float((cross / power) ** 2)


def relative_misfit(D, data, mask=None, scale=1.0):
    """sum (sqrt(scale D) - sqrt I)^2 / sum I over the good pixels of all frames. Arguments as in `amplitude_loss`.

    Raises ValueError where the data are 0 on all good pixels.
    """
    D, root, good = _inputs(D, data, mask)
    if scale is None:
        scale = _best_scale(D, root, good, frame_weights(good, D.shape))
    sums, _ = residual(D, root, good, np.ones(len(D)), _checks.number("scale", scale, at_least=0))
    return misfit_ratio(sums.sum(), frame_sums(root * root).sum())


def misfit_ratio(numerator, denominator):
    """numerator/denominator of the relative misfit."""
    if not denominator > 0:
        raise ValueError("data: expected some intensity on good pixels, got none")
    return float(numerator / denominator)
