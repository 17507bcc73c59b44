"""What counted photons leave open, a nearly perfect crystal settles: smooth phases, and |S| = bulk where it is solid.

(1) R(S) = sum over axes and solid voxels of T^2,  T = Im conj(u[x]) (u[x - 1] + u[x + 1]),  u = S/sqrt(|S|^2 + 0.01)
(2) adj_u[x - 1] += 2 i T u[x],  adj_u[x + 1] += 2 i T u[x],  adj_u[x] -= 2 i T (u[x - 1] + u[x + 1])
(3) adj_S = (adj_u - u Re conj(u) adj_u)/sqrt(|S|^2 + 0.01)
(4) U(S) = sum over filled voxels of (|S| - bulk)^2,    adj_S = 2 (|S| - bulk) S/|S|

T is the second difference of the phase per voxel, without unwrapping: a constant strain costs nothing. Solid: |S| above
a quarter of its median in the support, with both neighbours, so that voxels that the crystal fills in part have their
phase from those behind them; filled: above half of it, with all six.

With the priors exp(-lambda R/2) and exp(-alpha U/2) the most probable lambda and alpha, MacKay, Neural Comput. 4, 415
(1992), are those at which R and U are what the modes that photons determine, gamma of them, are expected to give:

(5) lambda R = gamma = sum_k f/(f + lambda kappa_k),    kappa_k = sum_axes (2 - 2 cos(pi k/n_axis))^2
(6) alpha U = gamma = m f/(f + alpha),                  f = 2 counts/n,  n solid voxels, m filled ones

f: what each voxel's phase or amplitude learns from the counts, half of the 4 counts/n that the field would tell, for
the phases in the far field are lost. kappa_k: R of cosine modes in the crystal's box. A crystal that is neither smooth
nor uniform has large R and U, and is left alone.
"""

import math

import numpy as np
from scipy import ndimage, optimize

FLOOR = 0.01


class Perfection:
    """(1) and (4) with solid and filled voxels as S has them.  support : bool, like S.  bulk : |S| inside, or 1."""

    def __init__(self, S, support, bulk=1.0):
        size = np.abs(S)
        self.bulk = bulk
        full = np.median(size[support & (size > 0.3 * size.max())])
        self.solid = support & (size > 0.25 * full)
        self.filled = ndimage.binary_erosion(support & (size > 0.5 * full))
        self.triples = [m[:-2] & m[1:-1] & m[2:] for m in (np.moveaxis(self.solid, axis, 0) for axis in range(S.ndim))]

    def roughness(self, S):
        """R, float, and its adj_S, of the dtype of S."""
        size = np.sqrt(np.square(np.abs(S)) + FLOOR)
        u = S / size
        total, adj_u = 0.0, np.zeros_like(u)
        for axis, triples in enumerate(self.triples):
            v, adj_v = np.moveaxis(u, axis, 0), np.moveaxis(adj_u, axis, 0)
            around = v[:-2] + v[2:]
            T = np.where(triples, (v[1:-1].conj() * around).imag, 0)
            total += float(np.sum(np.square(T), dtype=np.float64))
            # Reverse (1)
            turn = 2j * T
            adj_v[:-2] += turn * v[1:-1]
            adj_v[2:] += turn * v[1:-1]
            adj_v[1:-1] -= turn * around
        # Reverse u(S)
        return total, (adj_u - u * (u.conj() * adj_u).real) / size

    def unevenness(self, S):
        """U, float, and its adj_S, of the dtype of S."""
        size = np.abs(S)
        lack = np.where(self.filled, size - self.bulk, 0)
        adj_S = 2 * lack * (S / np.maximum(size, np.finfo(size.dtype).tiny))
        return float(np.sum(np.square(lack), dtype=np.float64)), adj_S

    def most_probable(self, S, counts):
        """(lambda, alpha) of (5), (6) for the R and U of S; 0 where nothing deviates or no voxel counts."""
        n, m = np.count_nonzero(self.solid), np.count_nonzero(self.filled)
        f = 2 * counts / max(n, 1)
        U = self.unevenness(S)[0]
        alpha = (math.sqrt(f * f + 4 * m * f / U) - f) / 2 if U > 0 else 0.0
        R = self.roughness(S)[0]
        if not (R > 0 and f > 0):
            return 0.0, alpha
        (box,) = ndimage.find_objects(self.solid.astype(np.uint8))
        bends = [np.square(2 - 2 * np.cos(np.pi * np.arange(s.stop - s.start) / (s.stop - s.start))) for s in box]
        kappa = bends[0][:, None, None] + bends[1][:, None] + bends[2]

        def excess(log):
            return n * np.mean(f / (f + math.exp(log) * kappa)) - math.exp(log) * R

        # 0 < gamma < n: the root lies below n/R; and gamma >= n/kappa.size, the constant mode
        return math.exp(optimize.brentq(excess, math.log(1 / (2 * R * kappa.size)), math.log(n / R), xtol=1e-6)), alpha
