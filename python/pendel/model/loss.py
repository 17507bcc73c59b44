"""Loss between computed and measured intensities, amplitude or Poisson, its gradient, and the intensity scale.

(1) loss = (1/L) sum_j (1/M_j) sum_good (sqrt(scale D) - sqrt I)^2         L frames, M_j good pixels of frame j
(2) adj_D = (1/(L M_j)) sqrt(scale) (sqrt(scale D) - sqrt I)/sqrt D        0 on bad pixels and where D = 0
(3) sqrt(best scale) = sum_j (1/M_j) sum_good sqrt(D I) / sum_j (1/M_j) sum_good D, the minimum of (1)

(4) loss = (1/L) sum_j (1/M_j) sum_good (lambda - I + I log(I/lambda)),    lambda = scale D + background
(5) adj_D = (1/(L M_j)) scale (1 - I/lambda)                               0 on bad pixels and where lambda = 0 < I
(6) sum_j (1/M_j) sum_good D (1 - I/lambda) = 0, the minimum of (4); best scale = sum_j (1/M_j) sum_good I / the same
    sum of D without background

(4) is the negative Poisson log-likelihood of counts I, less that of a perfect fit; (1) is its variance-stabilised form,
half of it near the fit, Godard et al., Opt. Express 20, 25914 (2012). (4) is infinite where a pixel has counts, and the
model no intensity: a background > 0, in counts per pixel, says what else may have made them. (1) needs none.
At the best scale the loss does not depend on the scale to first order, so that (2), (5) are its whole gradient there.
Pixels are handled in the dtype of D, sums over pixels in float64, frame by frame: results do not depend on how frames
are grouped. NumPy and CuPy arrays alike; with the latter sums and scales are CuPy's too, and nothing waits for them.
"""

import numpy as np

from ..base import checks
from ..base.arrays import cast, module, scipy_module
from ..base.arrays import root as root_of

LIKELIHOODS = ("amplitude", "poisson")
NEWTON = 20  # steps for the scale on a device: 5 or so, 17 where the background explains all but 1e-5 of the counts


def root_intensity(data, good, dtype):
    """sqrt of measured intensities in ``dtype``, 0 on bad pixels, whatever they hold; NaN where a good one is < 0."""
    xp = module(data)
    if good is not None:
        data = xp.where(good, data, 0)
    data = data.astype(dtype)
    with np.errstate(invalid="ignore"):
        return xp.sqrt(data, out=data)


def frame_weights(good, D):
    """(n,) 1/M_j for frames like D, (n, rows, cols): M_j good pixels, 0 for a frame without. None: all good."""
    xp, (n, rows, cols) = module(D), D.shape
    if good is None:
        return xp.full(n, 1.0 / (rows * cols))
    count = xp.count_nonzero(good, axis=(-2, -1)) + xp.zeros(n, dtype=np.int64)
    return xp.where(count > 0, 1.0 / xp.maximum(count, 1), 0.0)


def frame_sums(values):
    """(n,) float64 sums of (n, rows, cols)."""
    frames = values.reshape(len(values), -1)
    if module(values) is not np:
        return frames.sum(axis=1, dtype=np.float64)
    return np.array([np.sum(frame, dtype=np.float64) for frame in frames])


def scale_sums(D, root, good):
    """(n,) sums over good pixels of sqrt(D I) and of D, the two sides of (3). ``root`` is 0 on bad pixels."""
    cross = module(D).sqrt(D)
    cross *= root
    return frame_sums(cross), frame_sums(D if good is None else D * good)


def residual(D, root, good, weight, scale):
    """Terms of (1) and (2) for frames of weight 1/(L M_j).

    Returns (n,) float64 sums over good pixels of (sqrt(scale D) - sqrt I)^2, unweighted, and adj_D like D.
    """
    amplitude, root_scale = module(D).sqrt(D), root_of(scale)
    r = amplitude * cast(root_scale, D.dtype)
    r -= root
    if good is not None:
        r *= good
    sums = frame_sums(r * r)
    # A pixel with D = 0 has no gradient: its amplitude may grow with any phase.
    _divide(r, amplitude)
    r[amplitude == 0] = 0
    r *= (weight * root_scale).astype(D.dtype)[:, None, None]
    return sums, r


def _divide(r, by):
    """r /= by in place where that is > 0; elsewhere r is left as it is, or, on a device, not a number."""
    if module(r) is np:
        np.divide(r, by, out=r, where=by > 0)
    else:
        r /= by


def poisson_residual(D, root, good, weight, scale, background):
    """Terms of (4) and (5), like `residual`: (n,) float64 sums over good pixels, unweighted, and adj_D like D."""
    xp = module(D)
    expected = D * cast(scale, D.dtype)
    expected += D.dtype.type(background)
    counts = xp.square(root)
    terms = scipy_module("special", xp).kl_div(counts, expected)
    # Where nothing is expected and nothing was counted I/lambda is 0/0: the limit along D is 0.
    if xp is np:
        ratio = np.divide(counts, expected, out=np.zeros_like(expected), where=expected > 0)
    else:
        ratio = xp.where(expected > 0, counts / expected, 0)
    adj_D = xp.subtract(1, ratio, out=ratio)
    adj_D[(expected == 0) & (counts > 0)] = 0
    if good is not None:
        terms *= good
        adj_D *= good
    adj_D *= (weight * scale).astype(D.dtype)[:, None, None]
    return frame_sums(terms), adj_D


class Likelihood:
    """The likelihood of a fit: ``name`` "amplitude" or "poisson", ``background`` counts per pixel, "poisson" only.

    ``nats``: the negative log-likelihood of a pixel over its term in the loss.
    """

    def __init__(self, name="amplitude", background=0.0):
        self.name = checks.choice("likelihood", name, LIKELIHOODS)
        self.background = checks.number("background", background, at_least=0)
        if self.background and name != "poisson":
            raise ValueError(f"background: expected 0 with likelihood={name!r}, got {background}")
        self.nats = 2.0 if name == "amplitude" else 1.0

    def sums(self, D, root, good):
        """(n,) sums over good pixels, the two sides of (3), or of the last part of (6): I and D."""
        if self.name == "amplitude":
            return scale_sums(D, root, good)
        return frame_sums(module(D).square(root)), frame_sums(D if good is None else D * good)

    def scale(self, measured, computed, chunks=()):
        """The best scale from the weighted `sums` of all frames. ``chunks``: (D, root, good, weight) of all of them,
        needed for "poisson" with a background, where it is found by Newton's method.
        """
        if self.name == "amplitude":
            return scale_from_sums(measured, computed)
        scale = scale_from_sums(measured, computed, power=1)
        if not self.background:
            return scale
        find = _poisson_scale if module(scale) is np else _poisson_scale_there
        return find(chunks, scale, computed, self.background)

    def terms(self, D, root, good, weight, scale):
        """((n,) sums of the loss, (n,) sums of the amplitude misfit (1), unweighted; adj_D)."""
        if self.name == "amplitude":
            sums, adj_D = residual(D, root, good, weight, scale)
            return sums, sums, adj_D
        sums, adj_D = poisson_residual(D, root, good, weight, scale, self.background)
        xp = module(D)
        r = xp.sqrt(D * cast(scale, D.dtype) + D.dtype.type(self.background))
        r -= root
        return sums, frame_sums(xp.square(r) if good is None else xp.square(r) * good), adj_D


def _poisson_scale(chunks, scale, computed, background):
    """Root of (6) in the scale. Its left side rises and is concave: Newton's steps come from below after the first."""
    for _ in range(100):
        step = _newton_step(chunks, scale, computed, background)
        step = -step[0] / step[1] if step[1] > 0 else -scale
        if abs(step) <= 8 * np.finfo(chunks[0][0].dtype).eps * scale:
            return float(scale + step)
        scale = scale + step if step > -scale else 0.5 * scale
    raise ValueError(f"background: expected less than the measured counts, got {background:g}, which explains them all")


def _newton_step(chunks, scale, computed, background):
    """Left side of (6) and its derivative."""
    slope, bend = computed, 0.0
    for D, root, _, weight in chunks:  # root is 0 on bad pixels
        xp = module(D)
        ratio = D / (D * cast(scale, D.dtype) + D.dtype.type(background))
        drawn = xp.square(root) * ratio
        slope = slope - weight @ frame_sums(drawn)
        bend = bend + weight @ frame_sums(drawn * ratio)
    return slope, bend


def _poisson_scale_there(chunks, scale, computed, background):
    """`_poisson_scale` on a device, where nothing is to wait: NEWTON steps, and NaN where they do not end at a root."""
    eps = 8 * np.finfo(chunks[0][0].dtype).eps
    for _ in range(NEWTON):
        slope, bend = _newton_step(chunks, scale, computed, background)
        xp = module(bend)
        step = xp.where(bend > 0, -slope / bend, -scale)
        found = abs(step) <= eps * scale
        scale = xp.where(found | (step > -scale), scale + step, 0.5 * scale)
    return xp.where(found, scale, np.nan)


def _inputs(D, data, mask):
    D = checks.array("D", D, (None, None, None), np.float32 if np.asarray(D).dtype == np.float32 else np.float64)
    data = check_data("data", data, D.shape)
    good = check_mask("mask", mask, D.shape)
    if D.size and D.min() < 0:
        raise ValueError(f"D: expected intensities >= 0, got {D.min():g}")
    root = root_intensity(data, good, D.dtype)
    refuse_bad_data("data", root)
    return D, root, good


def check_data(name, data, shape, take=checks.numpy_array):
    """``data`` as an array of real dtype and of ``shape`` (frames, rows, cols); values are left unread.

    take : ``take(name, value)`` of an engine (`pendel.operator.engines`).
    """
    data = take(name, data)
    if data.dtype.kind not in "iufb":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {data.dtype}")
    if data.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape (frames, rows, cols) = {tuple(shape)}, got {data.shape}")
    return data


def check_mask(name, mask, shape, take=checks.numpy_array):
    """``mask`` as a bool array of ``shape`` (frames, rows, cols) or (rows, cols), True = good; None stays None."""
    if mask is None:
        return None
    mask = take(name, mask)
    if mask.dtype != bool:
        raise TypeError(f"{name}: expected dtype bool, True = good pixel, got {mask.dtype}")
    if mask.shape not in (tuple(shape), tuple(shape[1:])):
        raise ValueError(f"{name}: expected shape {tuple(shape)} or {tuple(shape[1:])}, got {mask.shape}")
    return mask


def refuse_bad_data(name, root):
    """Raise ValueError where sqrt(I) tells of data negative or not finite on good pixels; waits for a device."""
    count = int(module(root).count_nonzero(~module(root).isfinite(root)))
    if count:
        raise ValueError(f"{name}: expected finite intensities >= 0 on good pixels, got {count} others")


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
    weight = frame_weights(good, D)
    scale = _best_scale(D, root, good, weight) if scale is None else checks.number("scale", scale, at_least=0)
    weight /= len(D)
    sums, adj_D = residual(D, root, good, weight, scale)
    return float(weight @ sums), adj_D


def poisson_loss(D, data, mask=None, scale=1.0, background=0.0):
    """Loss (4) and its gradient (5); arguments and errors as in `amplitude_loss`, ``data`` in counts.

    background : number >= 0, expected counts per pixel beside scale D.
    """
    D, root, good = _inputs(D, data, mask)
    likelihood = Likelihood("poisson", background)
    weight = frame_weights(good, D)
    if scale is None:
        sums = (weight @ s for s in likelihood.sums(D, root, good))
        scale = likelihood.scale(*sums, [(D, root, good, weight)])
    scale = checks.number("scale", scale, at_least=0)
    weight /= len(D)
    sums, adj_D = poisson_residual(D, root, good, weight, scale, background)
    return float(weight @ sums), adj_D


def best_scale(D, data, mask=None):
    """The scale of D that minimises the loss, equation (3). Arguments as in `amplitude_loss`.

    Raises ValueError where D is 0 on all good pixels.
    """
    D, root, good = _inputs(D, data, mask)
    return _best_scale(D, root, good, frame_weights(good, D))


def _best_scale(D, root, good, weight):
    cross, power = scale_sums(D, root, good)
    return scale_from_sums(weight @ cross, weight @ power)


def scale_from_sums(measured, computed, power=2):
    """The best scale from the weighted sums of (3), or of (6) with ``power`` 1; on a device NaN without any light."""
    if module(computed) is not np:
        return (measured / computed) ** power
    if not computed > 0:
        raise ValueError(f"scale: expected computed intensity on good pixels to scale, got a sum of {computed}")
    return float((measured / computed) ** power)


def relative_misfit(D, data, mask=None, scale=1.0):
    """sum (sqrt(scale D) - sqrt I)^2 / sum I over the good pixels of all frames. Arguments as in `amplitude_loss`.

    Raises ValueError where the data are 0 on all good pixels.
    """
    D, root, good = _inputs(D, data, mask)
    if scale is None:
        scale = _best_scale(D, root, good, frame_weights(good, D))
    sums, _ = residual(D, root, good, np.ones(len(D)), checks.number("scale", scale, at_least=0))
    return misfit_ratio(sums.sum(), frame_sums(root * root).sum())


def misfit_ratio(numerator, denominator):
    """numerator/denominator of the relative misfit."""
    if not denominator > 0:
        raise ValueError("data: expected some intensity on good pixels, got none")
    return float(numerator / denominator)
