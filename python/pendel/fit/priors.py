"""What `polish` knows of a crystal beside the data, as terms of its objective for the voxels of a support.

(1) bound_weight (1/n) sum max(|S| - bound, 0)^2 + bulk_weight (<|S|>_bulk - bulk)^2           n voxels of the support
    + (R(S) + U(S) + V(S))/(2 nats counts) + atv_weight ATV(|S|)                                   `pendel.fit.evidence`
(2) adj_S += 2 bound_weight/n max(|S| - bound, 0) S/|S|  +  2 bulk_weight (<|S|>_bulk - bulk)/n_bulk S/|S| in the bulk

The second line of (1) is for counted data alone, with ``smoothness``, ``uniformity`` or ``sharpness``.
"""

import numpy as np
from scipy import ndimage

from ..kinematic.support import body, core
from .evidence import Perfection
from .total_variation import unchecked_atv

BULK_BLUR = 0.7  # voxels, of |S| before the bulk is told from the surface
BULK_LEVEL = 0.5  # of the median of |S| in the support: voxels below are the surface, or holes
BULK_DEPTH = 3  # voxels between the bulk and the surface


def bulk_of(S, support):
    """Voxels, bool (nz, ny, nx), BULK_DEPTH away, or as far as leaves any, from where |S| falls below BULK_LEVEL."""
    amplitude = ndimage.gaussian_filter(np.abs(S).astype(np.float64), BULK_BLUR)
    return core(body(amplitude, BULK_LEVEL, support=support), BULK_DEPTH)


class Priors:
    """(1) with its gradient, of a vector c, the S of the support's voxels.

    Parameters
    ----------
    recipe : PolishRecipe
    S : complex (nz, ny, nx), by which bulk, evidence and what is solid are judged
    support : bool (nz, ny, nx)
    fit : Fit

    Attributes
    ----------
    perfection, smoothness, uniformity, sharpness : where the recipe expects perfection
    learned : f of `pendel.fit.evidence`, 0 where nothing counts or nothing is expected
    """

    def __init__(self, recipe, S, support, fit):
        self.recipe, self.support = recipe, support
        self.bulk = bulk_of(S, support)[support]
        self.learned = 0.0
        self.nats, self.counts = fit.likelihood.nats, fit.counts if recipe.expects_perfection else None
        if recipe.expects_perfection:
            voxel = fit.model.voxel
            seen = np.divide(voxel, fit.model.experiment.suggest_voxel())
            self.perfection = Perfection(S, support, voxel, recipe.bulk_amplitude or 1.0, seen)
            self.smoothness, self.uniformity = self._precisions(S, fit.information)
            self.learned = 2 * fit.information / max(np.count_nonzero(self.perfection.solid), 1)
            self.sharpness = recipe.sharpness
            if recipe.sharpness == "evidence":
                self.sharpness = self.perfection.clearing(fit.information)

    @property
    def stiff(self):
        """Whether voxels are tied so that `Preconditioned` has something to loosen."""
        return self.learned > 0 and bool(self.perfection.solid.any())

    def _precisions(self, S, information):
        """lambda and alpha, (nz, ny, nx) or a number: as given, or the most probable for S."""
        given = self.recipe.smoothness, self.recipe.uniformity
        found = self.perfection.most_probable(S, information, self.recipe.granted)
        return [f if p == "evidence" else p for p, f in zip(given, found, strict=True)]

    def value(self, c):
        """Their sum, float, and its gradient, complex128."""
        total, adj = 0.0, np.zeros_like(c)
        for value, places, adj_c in self._terms(c):
            total += value
            adj[places] += adj_c
        return total, adj

    def _terms(self, c):
        """Every term's value, places in c and gradient there."""
        size = np.abs(c)
        unit = c / np.maximum(size, np.finfo(size.dtype).tiny)
        if self.recipe.amplitude_bound is not None:
            yield self._bound(size, unit)
        if self.recipe.bulk_amplitude is not None and self.bulk.any():
            yield self._bulk(size, unit)
        if self.recipe.expects_perfection:
            yield from self._evidence(c, unit)

    def _bound(self, size, unit):
        weight, count = self.recipe.bound_weight, len(size)
        over = np.maximum(size - self.recipe.amplitude_bound, 0)
        return weight * float(np.sum(over * over)) / count, slice(None), (2 * weight / count) * over * unit

    def _bulk(self, size, unit):
        weight, bulk = self.recipe.bulk_weight, self.bulk
        lack = float(size[bulk].mean()) - self.recipe.bulk_amplitude
        return weight * lack**2, bulk, (2 * weight * lack / np.count_nonzero(bulk)) * unit[bulk]

    def _evidence(self, c, unit):
        support, nats = self.support, 2 * self.nats * self.counts
        S = np.zeros(support.shape, np.complex128)
        S[support] = c
        for term, precision in (
            (self.perfection.roughness, self.smoothness),
            (self.perfection.unevenness, self.uniformity),
            (self.perfection.haze, self.sharpness),
        ):
            value, adj_S = term(S, precision)
            yield value / nats, slice(None), adj_S[support] / nats
            del adj_S
        value, adj_size = unchecked_atv(np.abs(S), self.recipe.atv_weight * S.size / len(c))
        yield value, slice(None), adj_size[support] * unit
