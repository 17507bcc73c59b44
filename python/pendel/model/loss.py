"""Loss between computed and measured intensities, amplitude or Poisson, its gradient, and the intensity scale.

(1) loss = (1/L) sum_j (1/M_j) sum_good w (sqrt lambda - sqrt I)^2,   lambda = scale D + background
(2) adj_D = (w/(L M_j)) scale (sqrt lambda - sqrt I)/sqrt lambda           0 on bad pixels and where lambda = 0
(3) sqrt(best scale) = sum_j (1/M_j) sum_good w sqrt(D I) / sum_j (1/M_j) sum_good w D, the minimum of (1) without
    background; with one, sum_j (1/M_j) sum_good w D (1 - sqrt(I/lambda)) = 0

(4) loss = (1/L) sum_j (1/M_j) sum_good w (lambda - I + I log(I/lambda))
(5) adj_D = (w/(L M_j)) scale (1 - I/lambda)                               0 on bad pixels and where lambda = 0 < I
(6) sum_j (1/M_j) sum_good w D (1 - I/lambda) = 0, the minimum of (4); best scale = sum_j (1/M_j) sum_good w I / the
    same sum of w D without background

(7) w = 1/(1 + error^2 local intensity)                        `pendel.model.pixels.error_weights`; without, w = 1

L frames, M_j good pixels of frame j. (4) is the negative Poisson log-likelihood of counts I, less that of a perfect
fit; (1) is its variance-stabilised form, half of it near the fit, Godard et al., Opt. Express 20, 25914 (2012). (4) is
infinite where a pixel has counts, and the model no intensity: a background > 0, in counts per pixel, says what else may
have made them. (1) needs none. A model that is wrong by a part of the intensity misses bright pixels by more than their
photons' noise: with the variance lambda + error^2 lambda^2 instead of lambda, a pixel's term counts w of (7), held
fixed (quasi-likelihood, Wedderburn, Biometrika 61, 439 (1974)).

At the best scale the loss does not depend on the scale to first order, so that (2), (5) are its whole gradient there,
and d loss/d background = adj_D/scale. Pixels are handled in the dtype of D, sums over pixels in float64, frame by
frame: results do not depend on how frames are grouped. NumPy and CuPy arrays alike; with the latter sums and scales are
CuPy's too, and nothing waits for them.
"""

from typing import Any, NamedTuple

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


class Compared(NamedTuple):
    """Computed frames beside measured ones.

    Attributes
    ----------
    D : real (n, rows, cols)
    root : like D, sqrt(I), 0 on bad pixels
    good : bool (rows, cols) or (n, rows, cols), or None: all are
    weight : (n,), 1/M_j or 1/(L M_j)
    background : what is expected beside scale D, a number or an array that broadcasts to D, or None
    weights : w of every pixel, (rows, cols) or (n, rows, cols), or None: 1
    """

    D: Any
    root: Any
    good: Any
    weight: Any
    background: Any = None
    weights: Any = None

    def of_good(self, values):
        """w times values, 0 on bad pixels."""
        if self.good is not None:
            values = values * self.good
        return values if self.weights is None else values * self.weights

    def expected(self, scale):
        """lambda, a new array."""
        expected = self.D * cast(scale, self.D.dtype)
        if self.background is not None:
            expected += cast(self.background, self.D.dtype)
        return expected


def scale_sums(c):
    """(n,) sums over good pixels of w sqrt(D I) and of w D, the two sides of (3)."""
    cross = module(c.D).sqrt(c.D)
    cross *= c.root
    if c.weights is not None:
        cross *= c.weights
    return frame_sums(cross), frame_sums(c.of_good(c.D))


def residual(c, scale):
    """Terms of (1) and (2) of a `Compared` of weight 1/(L M_j).

    Returns (n,) float64 sums over good pixels of w r^2 and of r^2, r = sqrt lambda - sqrt I, and adj_D like D.
    """
    xp, dtype = module(c.D), c.D.dtype
    if c.background is None:
        amplitude, factor = xp.sqrt(c.D), root_of(scale)
        r = amplitude * cast(factor, dtype)
    else:
        amplitude, factor = xp.sqrt(c.expected(scale)), scale
        r = amplitude.copy()
    r -= c.root
    if c.good is not None:
        r *= c.good
    square = r * r
    misfit = sums = frame_sums(square)
    if c.weights is not None:
        sums = frame_sums(square * c.weights)
        r *= c.weights
    # A pixel with D = 0 has no gradient: its amplitude may grow with any phase.
    _divide(r, amplitude)
    r[amplitude == 0] = 0
    r *= (c.weight * factor).astype(dtype)[:, None, None]
    return sums, misfit, r


def _divide(r, by):
    """r /= by in place where that is > 0; elsewhere r is left as it is, or, on a device, not a number."""
    if module(r) is np:
        np.divide(r, by, out=r, where=by > 0)
    else:
        r /= by


def poisson_residual(c, scale):
    """Terms of (4) and (5), like `residual`: (n,) float64 sums over good pixels of w times the term, and adj_D."""
    xp = module(c.D)
    expected = c.expected(scale)
    counts = xp.square(c.root)
    terms = scipy_module("special", xp).kl_div(counts, expected)
    # Where nothing is expected and nothing was counted I/lambda is 0/0: the limit along D is 0.
    if xp is np:
        ratio = np.divide(counts, expected, out=np.zeros_like(expected), where=expected > 0)
    else:
        ratio = xp.where(expected > 0, counts / expected, 0)
    adj_D = xp.subtract(1, ratio, out=ratio)
    adj_D[(expected == 0) & (counts > 0)] = 0
    for factor in (c.good, c.weights):
        if factor is not None:
            terms *= factor
            adj_D *= factor
    adj_D *= (c.weight * scale).astype(c.D.dtype)[:, None, None]
    return frame_sums(terms), adj_D


class Likelihood:
    """The likelihood of a fit.

    Parameters
    ----------
    name : "amplitude" or "poisson"
    background : counts per pixel beside the crystal's, a number >= 0, or an array as of `check_background`

    ``nats``: the negative log-likelihood of a pixel over its term in the loss.
    """

    def __init__(self, name="amplitude", background=0.0):
        self.name = checks.choice("likelihood", name, LIKELIHOODS)
        self.background = background if has_axes(background) else checks.number("background", background, at_least=0)
        self.nats = 2.0 if name == "amplitude" else 1.0

    @property
    def has_background(self):
        """Whether anything but the crystal's light is expected."""
        return has_axes(self.background) or self.background > 0

    @property
    def compares_roots(self):
        """Whether `sums` are those of amplitudes, (3); without, they are those of intensities."""
        return self.name == "amplitude" and not self.has_background

    def beside(self, frames, level=None):
        """The background of some frames, a number or an array that broadcasts to them, or None.

        frames : indices, where the model works.  level : (n_frames,) more of it, or None.
        """
        background = self.background
        if has_axes(background):
            background = background if background.ndim == 2 else background[frames]
            background = background[:, None, None] if background.ndim == 1 else background
        if level is not None:
            background = background + level[frames][:, None, None]
        return background if has_axes(background) or background > 0 else None

    def sums(self, c):
        """(n,) sums over good pixels of a `Compared`, the two sides of (3), or of the last part of (6): I and D."""
        if self.name == "amplitude" and c.background is None:
            return scale_sums(c)
        square = module(c.D).square(c.root)
        return frame_sums(square if c.weights is None else square * c.weights), frame_sums(c.of_good(c.D))

    def scale(self, measured, computed, chunks=()):
        """The best scale from the weighted `sums` of all frames. ``chunks``: `Compared` of all of them, needed with a
        background, where it is found by Newton's method.
        """
        if not chunks:
            return scale_from_sums(measured, computed, power=2 if self.name == "amplitude" else 1)
        scale = scale_from_sums(measured, computed, power=1)
        find = newton_scale if module(scale) is np else newton_scale_there
        return find(chunks if isinstance(chunks, Chunks) else Chunks(chunks), scale, computed, self.name == "amplitude")

    def terms(self, c, scale):
        """((n,) sums of the loss, (n,) sums of (sqrt lambda - sqrt I)^2, both without `Compared.weight`; adj_D)."""
        if self.name == "amplitude":
            return residual(c, scale)
        sums, adj_D = poisson_residual(c, scale)
        r = module(c.D).sqrt(c.expected(scale))
        r -= c.root
        square = module(c.D).square(r)
        return sums, frame_sums(square if c.good is None else square * c.good), adj_D


def has_axes(value):
    """Whether a background is an array of several numbers."""
    return getattr(value, "ndim", 0) > 0


class Chunks(list):
    """`Compared` of all frames, as Newton's method sees them."""

    @property
    def dtype(self):
        return self[0].D.dtype

    def drawn(self, scale, of_roots):
        """[what a chunk takes from the left side of (6), or of (3), and what it adds to its derivative]."""
        return [_drawn(c, scale, of_roots) for c in self]

    def backgrounds(self):
        """[mean background of a chunk]."""
        return [np.mean(c.background) for c in self]


def newton_scale(chunks, scale, computed, of_roots):
    """Root of (6), or of (3), in the scale. Its left side rises and is concave: Newton's steps come from below after
    the first.
    """
    for _ in range(100):
        step = _newton_step(chunks, scale, computed, of_roots)
        step = -step[0] / step[1] if step[1] > 0 else -scale
        if abs(step) <= 8 * np.finfo(chunks.dtype).eps * scale:
            return float(scale + step)
        scale = scale + step if step > -scale else 0.5 * scale
    background = np.mean(chunks.backgrounds())
    raise ValueError(f"background: expected less than the measured counts, got {background:g}, which explains them all")


def _newton_step(chunks, scale, computed, of_roots):
    """Left side of (6), or of (3), and its derivative."""
    slope, bend = computed, 0.0
    for drawn, bent in chunks.drawn(scale, of_roots):
        slope, bend = slope - drawn, bend + bent
    return slope, bend


def _drawn(c, scale, of_roots):
    """What a `Compared` gives to both."""
    xp, expected = module(c.D), c.expected(scale)
    if xp is np:
        ratio = np.divide(c.D, expected, out=np.zeros_like(expected), where=expected > 0)
    else:
        ratio = xp.where(expected > 0, c.D / expected, 0)
    drawn = (c.root * xp.sqrt(expected) if of_roots else xp.square(c.root)) * ratio  # root is 0 on bad pixels
    if c.weights is not None:
        drawn *= c.weights
    return c.weight @ frame_sums(drawn), c.weight @ frame_sums(drawn * ratio) * (0.5 if of_roots else 1.0)


def newton_scale_there(chunks, scale, computed, of_roots):
    """`newton_scale` on a device, where nothing is to wait: NEWTON steps, and NaN where they do not end at a root."""
    eps = 8 * np.finfo(chunks.dtype).eps
    for _ in range(NEWTON):
        slope, bend = _newton_step(chunks, scale, computed, of_roots)
        xp = module(bend)
        step = xp.where(bend > 0, -slope / bend, -scale)
        found = abs(step) <= eps * scale
        scale = xp.where(found | (step > -scale), scale + step, 0.5 * scale)
    return xp.where(found, scale, np.nan)


def _inputs(D, data, mask):
    D = checks.numpy_array("D", D)
    D = checks.array("D", D, (None, None, None), np.float32 if D.dtype == np.float32 else np.float64)
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
    """``mask`` as `checks.good_pixels` gives it; None stays None."""
    return None if mask is None else checks.good_pixels(name, mask, shape, take)


def refuse_bad_data(name, root):
    """Raise ValueError where sqrt(I) tells of data negative or not finite on good pixels; waits for a device."""
    count = int(module(root).count_nonzero(~module(root).isfinite(root)))
    if count:
        raise ValueError(f"{name}: expected finite intensities >= 0 on good pixels, got {count} others")


def amplitude_loss(D, data, mask=None, scale=1.0, background=0.0, weights=None):
    """Loss (1) and its gradient (2).

    Parameters
    ----------
    D : (n, rows, cols) float32 or float64, computed intensities >= 0.
    data : like D, any real dtype, measured intensities >= 0 on good pixels.
    mask : bool (n, rows, cols) or (rows, cols), True = good pixel; None: all good.
    scale : number >= 0 that multiplies D, or None for `best_scale`.
    background : expected counts per pixel beside scale D, a number >= 0 or an array that broadcasts to D.
    weights : w of every pixel, real (n, rows, cols) or (rows, cols), in (0, 1]; None: 1.

    Returns (loss, adj_D): float, and dL/dD of the shape and dtype of D.
    Raises TypeError or ValueError naming the argument.
    """
    return _loss("amplitude", D, data, mask, scale, background, weights)


def poisson_loss(D, data, mask=None, scale=1.0, background=0.0, weights=None):
    """Loss (4) and its gradient (5); arguments and errors as in `amplitude_loss`, ``data`` in counts."""
    return _loss("poisson", D, data, mask, scale, background, weights)


def _loss(name, D, data, mask, scale, background, weights):
    D, root, good = _inputs(D, data, mask)
    likelihood = Likelihood(name, background)
    c = Compared(D, root, good, frame_weights(good, D), likelihood.background, weights)
    if not likelihood.has_background:
        c = c._replace(background=None)
    if scale is None:
        measured, computed = (c.weight @ s for s in likelihood.sums(c))
        scale = likelihood.scale(measured, computed, [c] if likelihood.has_background else ())
    scale = checks.number("scale", scale, at_least=0)
    c = c._replace(weight=c.weight / len(D))
    sums, _, adj_D = likelihood.terms(c, scale)
    return float(c.weight @ sums), adj_D


def best_scale(D, data, mask=None):
    """The scale of D that minimises the loss, equation (3). Arguments as in `amplitude_loss`.

    Raises ValueError where D is 0 on all good pixels.
    """
    D, root, good = _inputs(D, data, mask)
    return _best_scale(Compared(D, root, good, frame_weights(good, D)))


def _best_scale(c):
    cross, power = scale_sums(c)
    return scale_from_sums(c.weight @ cross, c.weight @ power)


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
    c = Compared(D, root, good, frame_weights(good, D))
    scale = _best_scale(c) if scale is None else checks.number("scale", scale, at_least=0)
    sums, *_ = residual(c, scale)
    return misfit_ratio(sums.sum(), frame_sums(root * root).sum())


def misfit_ratio(numerator, denominator):
    """numerator/denominator of the relative misfit."""
    if not denominator > 0:
        raise ValueError("data: expected some intensity on good pixels, got none")
    return float(numerator / denominator)
