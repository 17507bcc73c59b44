"""What counted photons leave open, a nearly perfect crystal settles: smooth phases, and |S| = bulk where it is solid.

(1) R(S) = sum over axes and solid voxels of lambda g T^2,    T = Im conj(u[x]) (u[x - 1] + u[x + 1])
    u = S/sqrt(|S|^2 + 0.01),  g = (mean voxel/voxel of the axis)^4
(2) adj_u[x - 1] += 2 i lambda g T u[x],  adj_u[x + 1] likewise,  adj_u[x] -= 2 i lambda g T (u[x - 1] + u[x + 1])
(3) adj_S = (adj_u - u Re conj(u) adj_u)/sqrt(|S|^2 + 0.01)
(4) U(S) = alpha sum over filled voxels of (|S| - bulk)^2,    adj_S = 2 alpha (|S| - bulk) S/|S|

T is the second difference of the phase per voxel, without unwrapping: a constant strain costs nothing. Solid: |S| above
a quarter of the median of the bright voxels of the support (those above 0.3 of the largest), with both neighbours, so
that voxels that the crystal fills in part have their phase from those behind them; filled: above half of it, with all
six.

With the priors exp(-R/2) and exp(-U/2) the most probable lambda and alpha, MacKay, Neural Comput. 4, 415 (1992), are
those at which R and U are gamma, the number of modes that the photons determine:

(5) lambda <sum over axes of g T^2> = mean_k f/(f + lambda kappa_k),   kappa_k = sum_axes g (2 - 2 cos(pi k/n_axis))^2
(6) U = m f/(f + alpha),                                               f = 2 counts/n,  n solid voxels, m filled ones

f: what each voxel's phase or amplitude learns from the counts, half of the 4 counts/n that the field would tell, for
the phases in the far field are lost. kappa_k: R/lambda of cosine modes in the crystal's box. <> is the mean over a
neighbourhood: a phase bends strongly in few places, which must not set the rule for the others. A crystal that is
neither smooth nor uniform is left alone.
"""

import math

import numpy as np
from scipy import ndimage

from ..kinematic.support import reference_amplitude

SOLID, FILLED = 0.25, 0.5  # of a full voxel's amplitude
FLOOR = 0.01
NEIGHBOURHOOD = 1.5  # voxels, standard deviation: wide enough for a mean, narrow enough for the foot of a weld


class Perfection:
    """(1) and (4) with solid and filled voxels as S has them.

    support : bool, like S.  voxel : (dz, dy, dx), in any unit.  bulk : |S| inside.
    """

    def __init__(self, S, support, voxel=(1.0, 1.0, 1.0), bulk=1.0):
        size = np.abs(S)
        self.bulk = bulk
        full = reference_amplitude(size, support=support, above=0.3)
        self.solid = support & (size > SOLID * full)
        self.filled = ndimage.binary_erosion(support & (size > FILLED * full))
        voxel = np.array(voxel)
        self.g = (np.prod(voxel) ** (1 / 3) / voxel) ** 4
        self.triples = [m[:-2] & m[1:-1] & m[2:] for m in (np.moveaxis(self.solid, axis, 0) for axis in range(S.ndim))]

    def _bends(self, u):
        """T of every axis, and the neighbours' sum in it, views with the axis first."""
        for axis, triples in enumerate(self.triples):
            v = np.moveaxis(u, axis, 0)
            around = v[:-2] + v[2:]
            yield axis, v, around, np.where(triples, (v[1:-1].conj() * around).imag, 0)

    def roughness(self, S, precision=1.0):
        """R, float, and its adj_S, of the dtype of S.  precision : lambda, a number or (nz, ny, nx)."""
        size = np.sqrt(np.square(np.abs(S)) + FLOOR)
        u, precision = S / size, np.broadcast_to(precision, S.shape)
        total, adj_u = 0.0, np.zeros_like(u)
        for axis, v, around, T in self._bends(u):
            weighted = (self.g[axis] * np.moveaxis(precision, axis, 0)[1:-1]).astype(T.dtype) * T
            total += float(np.sum(weighted * T, dtype=np.float64))
            # Reverse (1)
            adj_v, turn = np.moveaxis(adj_u, axis, 0), 2j * weighted
            adj_v[:-2] += turn * v[1:-1]
            adj_v[2:] += turn * v[1:-1]
            adj_v[1:-1] -= turn * around
        # Reverse u(S)
        return total, (adj_u - u * (u.conj() * adj_u).real) / size

    def unevenness(self, S, precision=1.0):
        """U, float, and its adj_S, of the dtype of S.  precision : alpha."""
        size = np.abs(S)
        lack = np.where(self.filled, size - self.bulk, 0)
        adj_S = (2 * precision) * lack * (S / np.maximum(size, np.finfo(size.dtype).tiny))
        return precision * float(np.sum(np.square(lack), dtype=np.float64)), adj_S

    def most_probable(self, S, counts):
        """lambda (nz, ny, nx) of (5) and alpha of (6) for S; 0 where nothing deviates or no voxel counts."""
        n, m = np.count_nonzero(self.solid), np.count_nonzero(self.filled)
        f = 2 * counts / max(n, 1)
        U = self.unevenness(S)[0]
        alpha = (math.sqrt(f * f + 4 * m * f / U) - f) / 2 if U > 0 else 0.0
        bent = np.zeros(S.shape)
        for axis, _, _, T in self._bends(S / np.sqrt(np.square(np.abs(S)) + FLOOR)):
            np.moveaxis(bent, axis, 0)[1:-1] += self.g[axis] * np.square(T)
        if not (bent.any() and f > 0):
            return np.zeros(S.shape), alpha
        blurred, near = (ndimage.gaussian_filter(v, NEIGHBOURHOOD) for v in (bent, self.solid.astype(float)))
        local = np.divide(blurred, near, out=np.zeros(S.shape), where=self.solid)
        (box,) = ndimage.find_objects(self.solid.astype(np.uint8))
        bends = [np.square(2 - 2 * np.cos(np.pi * np.arange(s.stop - s.start) / (s.stop - s.start))) for s in box]
        z, y, x = (g * b for g, b in zip(self.g, bends, strict=True))
        kappa = np.sort((z[:, None, None] + y[:, None] + x).ravel())
        # (5) as a table: its right side over lambda falls with lambda
        tried = f / kappa[-1] * np.logspace(-4, 12, 129)
        wanted = np.array([np.mean(f / (f + value * kappa)) / value for value in tried])
        found = np.exp(np.interp(-np.log(np.maximum(local, wanted[-1])), -np.log(wanted), np.log(tried)))
        return np.where(self.solid, found, 0), alpha
