"""Blur of intensities over detector pixels: point spread, and what partial coherence leaves in the detector's plane.

(1) D_blurred = A_1 A_2 .. A_n D,   (A D)[p] = sum_k g_k D[p - k e],   e a step in whole pixels (rows, cols)
(2) g_k = exp(-b k^2) / sum_k exp(-b k^2),   b such that sum_k k^2 g_k = t, the variance along e, in steps squared
(3) dg_k/dt = g_k (k^2 - t) / (sum_k k^4 g_k - t^2),   for t -> 0 half the second difference (1, -2, 1)/2
(4) u u^T + rho v v^T = t_1 e_1 e_1^T + t_2 e_2 e_2^T,   v across u, as long

(2) is a Gaussian on whole pixels that has the variance asked for however narrow it is, where samples of a Gaussian are
too narrow below half a pixel; it is nowhere negative, as a band-limited one would be, and keeps dark pixels apart from
bright ones to the last bit, which a Fourier transform in float32 would not. Widths along rows and columns are two
factors of (1). A blur along any direction u is that along the two short steps between which it lies, u = a_1 e_1 +
a_2 e_2: with the least rho for which (4) has no third term, rho = -a_1 a_2/(b_1 b_2), v = b_1 e_1 + b_2 e_2, both
t_i = a_i^2 + rho b_i^2 are >= 0. So u is blurred across as well, by at most 0.056 of what it is along. A sum of blurs
along given directions, w_k u_k u_k^T, has the steps of all of them, and their variances are linear in the w_k: the
intensities are smooth in these, and no step comes or goes.

(5) adj_t of a factor A_i = adj_D.(A_1 .. A_i-1 (dA_i/dt) A_i+1 .. A_n D),   adj_w_k = sum over the steps of t_k adj_t

Pixels outside the detector are dark: light that leaves it is lost, and none comes in. Each factor is a symmetric
matrix, so the adjoint of (1) is the factors in reverse order; along rows and columns alone they commute, and (1) is its
own adjoint. NumPy and CuPy arrays alike.
"""

import functools
import math

import numpy as np

from ..base.arrays import module

ROW, COLUMN = (1, 0), (0, 1)
REACH = 6.0  # standard deviations after which (2) ends: exp(-18) = 1.5e-8 of its middle, the rounding of float32
STEEPEST = 50.0  # b of (2), of a variance of 4e-22: narrower ones are none
LARGEST = 1e4  # a variance in (2): a blur of a hundred pixels
# Steps of (4) from rows to columns, next to one another. Longer ones blur less across, and sample the pattern coarsely.
FAN = ((1, 0), (2, 1), (1, 1), (1, 2), (0, 1))


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
    from scipy.optimize import brentq  # for blurred models alone: it takes long to import

    # the truncated Gaussian is a little narrower than exp(-k^2/2t): b from far below
    b = brentq(excess, 0.1 / (variance + 0.1), STEEPEST, xtol=1e-15, rtol=8.9e-16)
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


def steps_along(direction):
    """[(step, t), ...] of (4), t > 0, for u (2,), pixels, rows first."""
    length, sign = math.hypot(*direction), 1 if direction[0] * direction[1] >= 0 else -1
    if not length > 0:
        return []
    u = np.abs(direction) / length
    first = max(i for i, (y, x) in enumerate(FAN[:-1]) if y * u[1] >= x * u[0])
    steps = np.array(FAN[first : first + 2], float)
    a, b = np.linalg.solve(steps.T, u), np.linalg.solve(steps.T, (-u[1], u[0]))
    # u on a step: its part of the other is rounding
    a = np.where(a > 1e-12, a, 0)
    variances = (a**2 - b**2 * a.prod() / b.prod()) * length**2
    found = zip(FAN[first : first + 2], variances.tolist(), strict=True)
    return [((y, x if y == 0 else sign * x), t) for (y, x), t in found if t > 0]


class Blur:
    """Equation (1).

    Parameters
    ----------
    point_spread : (row, col), rms widths in pixels, >= 0
    weights, directions : (k,) >= 0 and (k, 2), of a further blur of covariance sum_k w_k u_k u_k^T, pixels squared

    Attributes
    ----------
    steps : of all factors, of `ROW` and `COLUMN` first, whether they have a variance or not
    """

    def __init__(self, point_spread, weights=(), directions=()):
        self.point_spread, self._further = tuple(map(float, point_spread)), (weights, directions)
        parts = [steps_along(direction) for direction in directions]
        self.steps = list(dict.fromkeys((ROW, COLUMN, *(step for part in parts for step, _ in part))))
        self._shares = np.zeros((len(self.steps), len(parts)))  # t of (4) of every direction
        for k, part in enumerate(parts):
            for step, t in part:
                self._shares[self.steps.index(step), k] = t
        variances = self._shares @ np.asarray(weights, np.float64)
        variances[:2] += np.square(self.point_spread)
        self._factors = list(zip(self.steps, np.minimum(variances, LARGEST).tolist(), strict=True))

    def __bool__(self):
        """Whether it changes anything."""
        return any(variance > 0 for _, variance in self._factors)

    def with_point_spread(self, point_spread):
        """The same with other widths."""
        return Blur(point_spread, *self._further)

    def forward(self, D):
        """(1) of D (n, rows, cols), which is left as it is."""
        for factor in reversed(self._factors):
            D = _blurred(D, factor)
        return D

    def adjoint(self, adj_D):
        """Reverse of (1): the same factors in reverse order."""
        for factor in self._factors:
            adj_D = _blurred(adj_D, factor)
        return adj_D

    def adjoint_variances(self, D, adj_D, count=None):
        """(5): gradient of every frame with respect to the variances of the first ``count`` steps, float64 (count, n).

        D : before the blur.  adj_D : behind it.  count : None: of all. The first two are those with respect to the
        squared widths of the point spread, along rows and columns.
        """
        xp, rows = module(D), []
        behind = [D]
        for factor in reversed(self._factors[1:]):
            behind.append(_blurred(behind[-1], factor))
        for (step, variance), before in zip(self._factors[:count], reversed(behind), strict=False):
            rows.append((adj_D * along(before, kernel(variance)[1], step)).sum(axis=(1, 2), dtype=np.float64))
            adj_D = _blurred(adj_D, (step, variance))
        return xp.stack(rows)

    def adjoint_weights(self, adj_variances):
        """(5): gradient with respect to the weights (k,), of that with respect to the variances of all steps."""
        shares = module(adj_variances).asarray(self._shares)
        return (shares * adj_variances[:, None]).sum(axis=0)


def _blurred(D, factor):
    """A D of one factor, (step, variance)."""
    step, variance = factor
    return along(D, kernel(variance)[0], step) if variance > 0 else D
