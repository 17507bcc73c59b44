"""What counted photons leave open, a nearly perfect crystal settles: smooth phases, |S| = bulk inside, 0 outside.

(1) R(S) = sum over axes and solid voxels of lambda g T^2,    T = Im conj(u[x]) (u[x - 1] + u[x + 1])
    u = S/sqrt(|S|^2 + 0.01),  g = (mean voxel/voxel of the axis)^4
(2) adj_u[x - 1] += 2 i lambda g T u[x],  adj_u[x + 1] likewise,  adj_u[x] -= 2 i lambda g T (u[x - 1] + u[x + 1])
(3) adj_S = (adj_u - u Re conj(u) adj_u)/sqrt(|S|^2 + 0.01)
(4) U(S) = alpha sum over filled voxels of (|S| - bulk)^2,    adj_S = 2 alpha (|S| - bulk) S/|S|
(7) V(S) = w sum over voxels that are not filled of a (1 - a),    a = min(|S|/bulk, 1),  adj_S = w (1 - 2 a)/bulk S/|S|

T is the second difference of the phase per voxel, without unwrapping: a constant strain costs nothing. Solid: |S| above
a quarter of the median of the bright voxels of the support (those above 0.3 of the largest), with both neighbours, so
that voxels that the crystal fills in part have their phase from those behind them; filled: |S| a little blurred above
FILLED of it, with all six.

With the priors exp(-R/2) and exp(-U/2) the most probable lambda and alpha, MacKay, Neural Comput. 4, 415 (1992), are
those at which R and U are gamma, the number of modes that the photons determine:

(5) lambda <sum over axes of g T^2> = mean_k f_k/(f_k + lambda kappa_k),
    kappa_k = sum_axes g (2 - 2 cos(pi k/n_axis))^2
(6) U = m f/(f + alpha),                                f = 2 counts/n,  n solid voxels, m filled ones

f: what each voxel's phase or amplitude learns from the counts, half of the 4 counts/n that the field would tell, for
the phases in the far field are lost. f_k: all of it goes to the modes in the band that the data see; those beyond,
which finer voxels have, learn nothing. kappa_k: R/lambda of cosine modes in the crystal's box.

<> is the median, over the crystal, of means over a neighbourhood, DEPTH from the surface and deeper, where phases are
the data's: one rule for the whole crystal. Where a mean is more than EXCEPTION times that, a dislocation's core or the
foot of a weld, it counts for itself, or the part of it that ``granted`` says, for a phase bends strongly in few places,
which must neither set the rule for the others nor be ironed. There |S| is free too: a voxel in which the phase turns
round has less of it. A crystal that is neither smooth nor uniform is left alone.

(7): beyond the voxels that a surface cuts there is vacuum. Photon noise leaves a little of |S| everywhere in a support
wider than the crystal and wears the edge down, and that the fit makes up for with phases near the surface, by 0.01 to
0.02 rad all round. The slope w of V at |S| = 0 is SHARPNESS standard deviations of what noise makes of the gradient of
-2 ln(likelihood) of one voxel, w = 2 SHARPNESS f^1/2 bulk, so that noise alone does not raise |S| from 0.
"""

import math

import numpy as np
from scipy import ndimage

from ..kinematic.support import reference_amplitude

# Of a full voxel's amplitude; FILLED of |S| blurred by AROUND voxels, which tells a hole from noise. bench/foreign.py,
# porous (1), 1e8 photons, with a hole too small to be seen where the last step begins: with 0.5 of |S| itself it stays
# filled, 0.0094 rad, with 0.75 it opens, 0.0051; but noise of 0.2 then counts too many voxels out. Blurred by 0.5, 0.7,
# 1 voxels 0.85, 0.88, 0.9 leave 0.0044, 0.0044, 0.0092 rad; by 0.5 0.75 leaves 0.0120.
SOLID, FILLED, AROUND = 0.25, 0.88, 0.7
FLOOR = 0.01
# Standard deviation of a neighbourhood, and the depth of its voxels, in voxels of the data's resolution; and the excess
# of an exception. Crystals of bench/foreign.py (smooth, dislocation, void, porous; 1e8 photons, voxels half as wide):
# 0.0055, 0.016, 0.009, 0.009 rad; with local means for all 0.006 to 0.007, 0.016, 0.011, 0.017 to 0.021.
NEIGHBOURHOOD, DEPTH, EXCEPTION = 0.75, 1.0, 10.0
# bench/foreign.py, smooth, two crystals, 1e8 photons: 0 ends at 0.0089 and 0.0046 rad, 0.1 at 0.0045 and 0.0032, 0.3 to
# 0.6 at 0.0034 and 0.0024, 1.2 at 0.0036 and 0.0023.
SHARPNESS = 0.4
STIFFEST = 1e4  # alpha over f: |S| is told by the prior alone long before, and beyond it a fit hardly moves


class Perfection:
    """(1) and (4) with solid and filled voxels as S has them.

    support : bool, like S.  voxel : (dz, dy, dx), in any unit.  bulk : |S| inside.
    seen : (z, y, x) voxel over the data's resolution, at most 1: the part of the grid's band that the data see.
    """

    def __init__(self, S, support, voxel=(1.0, 1.0, 1.0), bulk=1.0, seen=(1.0, 1.0, 1.0)):
        size = np.abs(S)
        self.bulk, self.seen = bulk, np.minimum(seen, 1.0)
        full = reference_amplitude(size, support=support, above=0.3)
        self.solid = support & (size > SOLID * full)
        around = ndimage.gaussian_filter(size, AROUND)
        self.filled = ndimage.binary_erosion(support & (size > SOLID * full) & (around > FILLED * full))
        voxel = np.array(voxel)
        self.g = (np.prod(voxel) ** (1 / 3) / voxel) ** 4
        self.triples = [m[:-2] & m[1:-1] & m[2:] for m in (np.moveaxis(self.solid, axis, 0) for axis in range(S.ndim))]

    def _bends(self, u):
        """T of every axis, and the neighbours' sum in it, views with the axis first."""
        for axis, triples in enumerate(self.triples):
            v = np.moveaxis(u, axis, 0)
            around = v[:-2] + v[2:]
            yield axis, v, around, np.where(triples, (v[1:-1].conj() * around).imag, 0)
            del around  # or it would stay beside that of the next axis

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
            del T, weighted  # these arrays are most of what a fit takes beside its vectors
            adj_v[:-2] += turn * v[1:-1]
            adj_v[2:] += turn * v[1:-1]
            adj_v[1:-1] -= turn * around
            del around, turn
        # Reverse u(S)
        return total, (adj_u - u * (u.conj() * adj_u).real) / size

    def held(self):
        """Stiffness of the phase of each voxel alone, d^2 R/(2 lambda d phase^2), (nz, ny, nx); 0 where not solid."""
        found = np.zeros(self.solid.shape)
        for axis, triples in enumerate(self.triples):
            around = np.moveaxis(found, axis, 0)
            around[1:-1] += 4 * self.g[axis] * triples
            around[:-2] += self.g[axis] * triples
            around[2:] += self.g[axis] * triples
        return found

    def unevenness(self, S, precision=1.0):
        """U, float, and its adj_S, of the dtype of S.  precision : alpha, a number or (nz, ny, nx)."""
        size = np.abs(S)
        lack = np.where(self.filled, size - self.bulk, 0)
        weighted = np.asarray(precision, size.dtype) * lack
        adj_S = 2 * weighted * (S / np.maximum(size, np.finfo(size.dtype).tiny))
        return float(np.sum(weighted * lack, dtype=np.float64)), adj_S

    def haze(self, S, precision=1.0):
        """V, float, and its adj_S, of the dtype of S.  precision : w, a number."""
        size = np.abs(S)
        part = np.where(self.filled, 1, np.minimum(size / size.dtype.type(self.bulk), 1))
        slope = np.where(part < 1, size.dtype.type(precision / self.bulk) * (1 - 2 * part), 0)
        adj_S = slope * (S / np.maximum(size, np.finfo(size.dtype).tiny))
        return precision * float(np.sum(part * (1 - part), dtype=np.float64)), adj_S

    def clearing(self, counts):
        """w of (7), 0 where no voxel counts."""
        n = np.count_nonzero(self.solid)
        return 2 * SHARPNESS * self.bulk * math.sqrt(2 * counts / n) if n and counts > 0 else 0.0

    def most_probable(self, S, counts, granted=1.0):
        """lambda of (5) and alpha of (6) for S, (nz, ny, nx); 0 where nothing deviates or no voxel counts."""
        n = np.count_nonzero(self.solid)
        f = 2 * counts / max(n, 1)
        bent = self._bent(S)
        if not (bent.any() and f > 0):
            return np.zeros(S.shape), self._evenness(S, f, self.filled)
        usual, exceptional = self._usual(bent, granted)
        tried, wanted = self._table(f)
        found = np.exp(np.interp(-np.log(np.maximum(usual, wanted[-1])), -np.log(wanted), np.log(tried)))
        return np.where(self.solid, found, 0), self._evenness(S, f, self.filled & ~exceptional)

    def exceptions(self, S):
        """The voxels that bend far more than the crystal does, bool (nz, ny, nx)."""
        bent = self._bent(S)
        return self._usual(bent, 1.0)[1] & self.solid if bent.any() else np.zeros(S.shape, bool)

    def _bent(self, S):
        """Sum over axes of g T^2, (nz, ny, nx)."""
        bent = np.zeros(S.shape)
        for axis, _, _, T in self._bends(S / np.sqrt(np.square(np.abs(S)) + FLOOR)):
            np.moveaxis(bent, axis, 0)[1:-1] += self.g[axis] * np.square(T)
        return bent

    def _evenness(self, S, f, where):
        """alpha of (6), (nz, ny, nx), 0 elsewhere than ``where``."""
        U, m = self.unevenness(S, where.astype(float))[0], np.count_nonzero(where)
        found = (math.sqrt(f * f + 4 * m * f / U) - f) / 2 if U > 0 else 0.0
        return where * min(found, STIFFEST * f)

    def _usual(self, bent, granted):
        """<> of (5), (nz, ny, nx), of ``bent``, the sum over axes of g T^2, and which voxels are exceptions."""
        depth = ndimage.distance_transform_edt(np.pad(self.filled, 1), sampling=self.seen)[1:-1, 1:-1, 1:-1]
        deep = depth > DEPTH
        deep = deep if deep.any() else self.solid
        sigma = NEIGHBOURHOOD / self.seen
        blurred, near = (ndimage.gaussian_filter(v, sigma) for v in (np.where(deep, bent, 0), deep.astype(float)))
        local = np.divide(blurred, near, out=np.zeros(bent.shape), where=deep)

        usual = np.median(local[deep])
        nearest = ndimage.distance_transform_edt(~deep, return_distances=False, return_indices=True)
        exceptional = (local > EXCEPTION * usual)[tuple(nearest)]
        return np.where(exceptional, np.maximum(granted * local, usual)[tuple(nearest)], usual), exceptional

    def _table(self, f):
        """lambda, rising, and the right side of (5) over it, which falls."""
        (box,) = ndimage.find_objects(self.solid.astype(np.uint8))
        turns = [np.pi * np.arange(s.stop - s.start) / (s.stop - s.start) for s in box]
        z, y, x = (g * np.square(2 - 2 * np.cos(turn)) for g, turn in zip(self.g, turns, strict=True))
        known = [turn <= np.pi * part for turn, part in zip(turns, self.seen, strict=True)]
        known = (known[0][:, None, None] & known[1][:, None] & known[2]).ravel()

        kappa = np.sort((z[:, None, None] + y[:, None] + x).ravel()[known])
        share = known.mean()
        tried = f / max(kappa[-1], 1e-12) * np.logspace(-4, 12, 129)
        return tried, np.array([share * np.mean(f / share / (f / share + value * kappa)) / value for value in tried])
