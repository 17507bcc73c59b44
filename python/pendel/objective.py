"""What a reconstruction minimises: the loss of the frames, and what is added to it.

(1) objective = loss (`pendel.loss`) + atv_weight I_mean ATV(S),    I_mean = (1/L) sum_j (1/M_j) sum_good I_j

I_mean, over all frames, is the amplitude loss of an empty model, so that a weight means the same for a short and a
long exposure.
"""

import numpy as np

from . import _checks
from .atv import atv
from .loss import Likelihood, frame_sums, frame_weights
from .pixels import free_pixels
from .refine import dq_at

DENSITIES = ("tied", "support", "free")


class Objective:
    """(1) of one scan with its gradient. Arguments as in `pendel.reconstruct`; errors name them.

    surface : count differences across the edge of the support too, where S falls to 0.
    """

    def __init__(
        self,
        model,
        data,
        mask=None,
        *,
        likelihood="amplitude",
        background=0.0,
        atv_weight=0.0,
        atv_p=2.0,
        atv_q=1.0,
        free_fraction=0.0,
        s_0="tied",
        seed=0,
        surface=False,
    ):
        self.model, self.data, self.mask, self.surface = model, data, mask, surface
        self.likelihood = Likelihood(likelihood, background)
        weight = _checks.number("atv_weight", atv_weight, at_least=0)
        self._atv = {"p": _checks.number("atv_p", atv_p, at_least=1), "q": _checks.number("atv_q", atv_q, above=0)}
        self.density = _checks.choice("s_0", s_0, DENSITIES)
        self.free_fraction = _checks.number("free_fraction", free_fraction, at_least=0, below=1)
        shape = (model.n_frames, *model.experiment.detector_shape)
        self.free = free_pixels(shape, free_fraction, mask, seed) if self.free_fraction else None
        self._kwargs = {"likelihood": self.likelihood.name, "background": self.likelihood.background, "free": self.free}
        self._weight = weight * self.mean_intensity() if weight else 0.0

    def pixels(self):
        """The `Pixels` of the fit."""
        return self.model._fit(self.data, self.mask, **self._kwargs).pixels

    def mean_intensity(self):
        """I_mean of (1), over the pixels that are fitted."""
        pixels, total = self.pixels(), 0.0
        for frame in range(self.model.n_frames):
            root, good = pixels.load(np.array([frame]))
            total += float(frame_weights(good, root.shape) @ frame_sums(np.square(root)))
        return total / self.model.n_frames

    def counts(self):
        """Sum of the data over the pixels that are fitted."""
        pixels, total = self.pixels(), 0.0
        for frame in range(self.model.n_frames):
            total += float(frame_sums(np.square(pixels.load(np.array([frame]))[0]))[0])
        return total

    def evaluate(self, S, support, frames=None, s_0=None, angle_offsets=None, flux=None):
        """`Evaluation` of ``frames`` at their best scale; its loss and adj_S are those of (1).

        s_0 : the density, real (nz, ny, nx), where it is "free".  angle_offsets, flux : (n_frames,) or None.
        """
        if self.density == "support":
            s_0 = support.astype(S.real.dtype)
        options = self._kwargs if angle_offsets is None and flux is None else self._kwargs | {"flux": flux}
        if angle_offsets is not None:
            options = options | {"dq": dq_at(self.model.experiment, angle_offsets)[0]}
        now = self.model.evaluate(S, self.data, self.mask, frames, None, s_0, support, **options)
        if self._weight:
            if self.surface:
                value, adj_S = atv(S, self._weight * S.size / np.count_nonzero(support), **self._atv)
            else:
                value, adj_S = atv(S, self._weight, support=support, **self._atv)
            now = now._replace(loss=now.loss + value, adj_S=now.adj_S + adj_S)
        return now

    def trusted(self, S, support, trim, angle_offsets=None, flux=None):
        """The mask without the pixels that S misses by more than ``trim`` times the rms of sqrt(model) - sqrt(data)."""
        model, s_0 = self.model, support.astype(S.real.dtype) if self.density == "support" else None
        dq = None if angle_offsets is None else dq_at(model.experiment, angle_offsets)[0]
        scale = self.evaluate(S, support, None, None, angle_offsets, flux).scale
        D = model.intensities(S, None, s_0, dq=dq, flux=flux)
        residual = np.sqrt(scale * D + self.likelihood.background) - np.sqrt(np.maximum(self.data, 0))
        good = np.broadcast_to(True if self.mask is None else self.mask, residual.shape)
        square = np.where(good, np.square(residual), 0)
        return good & (square <= trim**2 * square.sum(dtype=np.float64) / np.count_nonzero(good))


def initial(model, start, support, amplitude_bound):
    """(S, support) to begin with; arguments as in `pendel.reconstruct`."""
    shape, dtype = model.shape, model.dtype
    if support is not None:
        support = _checks.array("support", support, shape, bool, axes="(nz, ny, nx)")
    if start is not None:
        start = _checks.array("start", start, shape, dtype, axes="(nz, ny, nx)")
        support = start != 0 if support is None else support
    elif support is None:
        axes = [(np.arange(n) - (n - 1) / 2) / (0.4 * n) for n in shape]
        support = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2 <= 1
    if not support.any():
        raise ValueError("support: expected at least one voxel inside, got none")
    if start is None:
        start = np.full(shape, 0.5 * (amplitude_bound or 1.0), dtype)
    return bounded(np.where(support, start, 0).astype(dtype), amplitude_bound), support


def bounded(S, bound):
    """S with |S| <= ``bound``; None: S."""
    if bound is None:
        return S
    return S / np.maximum(np.abs(S) / S.real.dtype.type(bound), 1)
