"""Blur of intensities over detector pixels: point spread, and what partial coherence leaves in the detector's plane.

(1) D_blurred = A_1 A_2 .. A_n D,   (A D)[p] = sum_k g_k D[p - k e],   e a step in whole pixels (rows, cols)
(2) g_k = exp(-b k^2) / sum_k exp(-b k^2),   b such that sum_k k^2 g_k = t, the variance along e, in steps squared
(3) dg_k/dt = g_k (k^2 - t) / (sum_k k^4 g_k - t^2),   for t -> 0 half the second difference (1, -2, 1)/2
(4) covariance = sum over the steps of t e e^T

(2) is a Gaussian on whole pixels that has the variance asked for however narrow it is, where samples of a Gaussian are
too narrow below half a pixel; it is nowhere negative, as a band-limited one would be, and keeps dark pixels apart from
bright ones to the last bit, which a Fourier transform in float32 would not. Widths along rows and columns are two
factors of (1); a turned covariance needs a third, or two oblique ones: Selling's reduction finds steps with t >= 0 in
(4).

Pixels outside the detector are dark: light that leaves it is lost, and none comes in. Each factor is a symmetric
matrix, so the adjoint of (1) is the factors in reverse order; along rows and columns alone they commute, and (1) is its
own adjoint. NumPy and CuPy arrays alike.
"""

import functools
import math

import numpy as np
from scipy import optimize

from ..base.arrays import module

ROW, COLUMN = (1, 0), (0, 1)
REACH = 6.0  # standard deviations after which (2) ends: exp(-18) = 1.5e-8 of its middle, the rounding of float32
STEEPEST = 50.0  # b of (2), of a variance of 4e-22: narrower ones are none
LARGEST = 1e4  # a variance in (2): a blur of a hundred pixels
# The narrow width of a turned covariance is at least so much of the wide one, squared: narrower ones need long steps,
# which sample the pattern too coarsely.
ROUNDNESS = 0.1


@functools.lru_cache(maxsize=64)
def kernel(variance):
    """(g, dg/dt) of (2) and (3) for k >= 0, tuples of floats.  variance : pixels squared, >= 0."""
    reach = math.ceil(REACH * math.sqrt(variance)) + 1
    squares = np.arange(reach + 1.0) ** 2
    both_sides = np.where(squares > 0, 2.0, 1.0)

    def weights(b):
        g = np.exp(-b * squares)
        return g / (both_sides @ g)

    def excess(b):
        return both_sides @ (squares * weights(b)) - variance

    if excess(STEEPEST) >= 0:
        return (1.0,), (-1.0, 0.5)
    # the truncated Gaussian is a little narrower than exp(-k^2/2t): b from far below
    b = optimize.brentq(excess, 0.1 / (variance + 0.1), STEEPEST, xtol=1e-15, rtol=8.9e-16)
    g = weights(b)
    spread = both_sides @ (squares**2 * g) - variance**2
    return tuple(g.tolist()), tuple((g * (squares - variance) / spread).tolist())


def along(D, values, step):
    """sum_k values[|k|] D[p - k step] of every frame of D (n, rows, cols), a new array; 0 outside the detector."""
    real = D.dtype.type
    out = D * real(values[0])
    for k, value in enumerate(values[1:], start=1):
        sides = [_overlap(n, k * s) for n, s in zip(D.shape[1:], step, strict=True)]
        if any(side is None for side in sides):
            break
        here = (slice(None), *(side[0] for side in sides))
        there = (slice(None), *(side[1] for side in sides))
        out[here] += D[there] * real(value)
        out[there] += D[here] * real(value)
    return out


def _overlap(n, shift):
    """(from shift on, up to -shift) of n indices, or None where nothing is left."""
    if abs(shift) >= n:
        return None
    if shift >= 0:
        return slice(shift, n), slice(0, n - shift)
    return slice(0, n + shift), slice(-shift, n)


def steps_of(covariance):
    """[(step, variance), ...] of (4), variances > 0, for a covariance (2, 2) in pixels squared, rows first.

    Its narrow axis is widened to ROUNDNESS.
    """
    values, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    if not values[1] > 0:
        return []
    values = np.maximum(values, ROUNDNESS * values[1])
    covariance = (axes * values) @ axes.T

    base = [np.array(b) for b in ((1, 0), (0, 1), (-1, -1))]  # an obtuse superbase, once reduced
    pairs = ((0, 1), (0, 2), (1, 2))
    while True:
        products = [base[i] @ covariance @ base[j] for i, j in pairs]
        worst = int(np.argmax(products))
        if products[worst] <= 1e-12 * values[1]:
            break
        i, j = (base[n] for n in pairs[worst])
        base = [-i, j, i - j]

    found = []
    for (i, j), product in zip(pairs, products, strict=True):
        y, x = map(int, base[3 - i - j])
        step = max((-x, y), (x, -y))  # both are the same
        if product < -1e-12 * values[1]:
            found.append((step, float(-product)))
    return found


class Blur:
    """Equation (1).

    Parameters
    ----------
    point_spread : (row, col), rms widths in pixels, >= 0
    covariance : (2, 2) of a further blur, pixels squared, rows first, or None
    """

    def __init__(self, point_spread, covariance=None):
        self.point_spread, self.covariance = tuple(map(float, point_spread)), covariance
        self._oblique, own = [], {ROW: 0.0, COLUMN: 0.0}
        for step, variance in [] if covariance is None else steps_of(covariance):
            if step in own:
                own[step] = variance
            else:
                self._oblique.append((step, variance))
        widths = zip((ROW, COLUMN), self.point_spread, strict=True)
        self._axes = [(step, min(width**2 + own[step], LARGEST)) for step, width in widths]
        self._factors = [(step, variance) for step, variance in (*self._axes, *self._oblique) if variance > 0]

    def __bool__(self):
        """Whether it changes anything."""
        return bool(self._factors)

    def with_point_spread(self, point_spread):
        """The same with other widths."""
        return Blur(point_spread, self.covariance)

    def forward(self, D):
        """(1) of D (n, rows, cols), which is left as it is."""
        for step, variance in reversed(self._factors):
            D = along(D, kernel(variance)[0], step)
        return D

    def adjoint(self, adj_D):
        """Reverse of (1): the same factors in reverse order."""
        for step, variance in self._factors:
            adj_D = along(adj_D, kernel(variance)[0], step)
        return adj_D

    def adjoint_variances(self, D, adj_D):
        """Gradient of every frame with respect to the squared widths of the point spread, float64 (2, n), equation (3).

        D : before the blur.  adj_D : behind it.
        """
        for step, variance in reversed(self._oblique):
            D = along(D, kernel(variance)[0], step)
        (row, row_variance), (column, column_variance) = self._axes
        by_row = along(along(D, kernel(column_variance)[0], column), kernel(row_variance)[1], row)
        by_column = along(along(D, kernel(row_variance)[0], row), kernel(column_variance)[1], column)
        xp = module(D)
        return xp.stack([(adj_D * by).sum(axis=(1, 2), dtype=np.float64) for by in (by_row, by_column)])
