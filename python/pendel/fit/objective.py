"""What a reconstruction minimises: the loss of the frames, and what is added to it.

(1) objective = loss (`pendel.model.loss`) + atv_weight I_mean ATV(S),    I_mean = (1/L) sum_j (1/M_j) sum_good I_j

I_mean, over all frames, is the amplitude loss of an empty model, so that a weight means the same for a short and a
long exposure.
"""

import numpy as np

from ..base import checks
from ..base.arrays import host, module
from ..model.loss import Likelihood, bad_count, bad_data, check_data, check_mask, frame_sums, frame_weights
from ..model.passes import Evaluation
from ..model.pixels import free_pixels
from ..operator.engines import on_device
from .refinement import Turns
from .total_variation import atv

DENSITIES = ("tied", "support", "free")


class Objective:
    """(1) of one scan with its gradient. Arguments as in `pendel.reconstruct`; errors name them.

    For a model on a device ``data``, ``mask`` and all else that is given once are uploaded here, where they do not lie
    there already, and data are checked; `evaluate` takes and gives CuPy arrays and copies nothing. `on_host` is it for
    NumPy arrays, one copy each way.

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
        self.model, self.surface, self._engine = model, surface, model._engine
        self.likelihood = Likelihood(likelihood, background)
        weight = checks.number("atv_weight", atv_weight, at_least=0)
        self._atv = {"p": checks.number("atv_p", atv_p, at_least=1), "q": checks.number("atv_q", atv_q, above=0)}
        self.density = checks.choice("s_0", s_0, DENSITIES)
        self.free_fraction = checks.number("free_fraction", free_fraction, at_least=0, below=1)
        self._prepare(data, mask, free_fraction, weight, seed)

    @on_device
    def _prepare(self, data, mask, free_fraction, weight, seed):
        model = self.model
        shape = (model.n_frames, *model.experiment.detector_shape)
        there = not self._engine.looks
        if there:
            data, mask = check_data("data", data, shape, self._once), check_mask("mask", mask, shape, self._once)
        self.free = free_pixels(shape, free_fraction, host(mask), seed) if self.free_fraction else None
        self.data, self.mask, free = data, mask, self.free
        if there:
            # no wider than the model's numbers, which they become anyway: they have to stay on the device
            data = data.astype(model._real) if data.dtype.itemsize > model._real.itemsize else data
            self.data, self.mask, free = (self._engine.upload(a) for a in (data, mask, free))
            if bad_count(self.data, self.mask):
                raise ValueError(f"data: {bad_data(self.data, self.mask)}")
        self._kwargs = {"likelihood": self.likelihood.name, "background": self.likelihood.background, "free": free}
        self.turns = Turns(model.experiment, self._engine.upload)
        self._weight = weight * self.mean_intensity() if weight else 0.0

    def _once(self, name, value):
        """An array of the host or of the device, for what is given once."""
        there = hasattr(value, "__cuda_array_interface__")
        return self._engine.take(name, value) if there else checks.numpy_array(name, value)

    def pixels(self):
        """The `Pixels` of the fit."""
        return self.model._fit(self.data, self.mask, **self._kwargs).pixels

    @on_device
    def mean_intensity(self):
        """I_mean of (1), over the pixels that are fitted."""
        pixels, total = self.pixels(), 0.0
        for frame in range(self.model.n_frames):
            root, good = pixels.load(self._engine.upload(np.array([frame])))
            total += float(frame_weights(good, root) @ frame_sums(root * root))
        return total / self.model.n_frames

    @on_device
    def counts(self):
        """Sum of the data over the pixels that are fitted."""
        pixels, total = self.pixels(), 0.0
        for frame in range(self.model.n_frames):
            root, _ = pixels.load(self._engine.upload(np.array([frame])))
            total += float(frame_sums(root * root)[0])
        return total

    @on_device
    def evaluate(self, S, support, frames=None, s_0=None, angle_offsets=None, flux=None):
        """`Evaluation` of ``frames`` at their best scale; its loss and adj_S are those of (1).

        s_0 : the density, real (nz, ny, nx), where it is "free".  angle_offsets, flux : (n_frames,) or None.
        """
        if self.density == "support":
            s_0 = support.astype(S.real.dtype)
        options = self._kwargs if angle_offsets is None and flux is None else self._kwargs | {"flux": flux}
        if angle_offsets is not None:
            options = options | {"dq": self.turns.dq(angle_offsets)[0]}
        now = self.model.evaluate(S, self.data, self.mask, frames, None, s_0, support, **options)
        if self._weight:
            if self.surface:
                value, adj_S = atv(S, self._weight * S.size / int(module(support).count_nonzero(support)), **self._atv)
            else:
                value, adj_S = atv(S, self._weight, support=support, **self._atv)
            now = now._replace(loss=now.loss + value, adj_S=now.adj_S + adj_S)
        return now

    @on_device
    def on_host(self, S, support, frames=None, s_0=None, angle_offsets=None, flux=None):
        """`evaluate` with NumPy arrays and floats in and out, wherever the model works."""
        given = S, support, s_0, angle_offsets, flux
        if self._engine.looks:
            return self.evaluate(*given[:2], frames, *given[2:])
        S, support, s_0, angle_offsets, flux = (self._engine.upload(a) for a in given)
        values = (host(value) for value in self.evaluate(S, support, frames, s_0, angle_offsets, flux))
        return Evaluation(*(float(v) if v is not None and v.ndim == 0 else v for v in values))

    @on_device
    def trusted(self, S, support, trim, angle_offsets=None, flux=None):
        """The mask without the pixels that S misses by more than ``trim`` times the rms of sqrt(model) - sqrt(data).

        Arguments on the host; the mask lies where the data do.
        """
        upload = self._engine.upload
        S, support, angle_offsets, flux = (upload(a) for a in (S, support, angle_offsets, flux))
        model, s_0 = self.model, support.astype(S.real.dtype) if self.density == "support" else None
        dq = None if angle_offsets is None else self.turns.dq(angle_offsets)[0]
        scale = self.evaluate(S, support, None, None, angle_offsets, flux).scale
        D = model.intensities(S, None, s_0, dq=dq, flux=flux)
        xp = module(D)
        residual = xp.sqrt(scale * D + self.likelihood.background) - xp.sqrt(xp.maximum(self.data, 0))
        good = xp.ones(residual.shape, bool) if self.mask is None else xp.broadcast_to(self.mask, residual.shape)
        square = xp.where(good, xp.square(residual), 0)
        return good & (square <= trim**2 * square.sum(dtype=np.float64) / xp.count_nonzero(good))


def initial(model, start, support, amplitude_bound):
    """(S, support) to begin with, NumPy arrays; arguments as in `pendel.reconstruct`."""
    shape, dtype = model.shape, model.dtype
    start, support = host(start), host(support)
    if support is not None:
        support = checks.array("support", support, shape, bool, axes="(nz, ny, nx)")
    if start is not None:
        start = checks.array("start", start, shape, dtype, axes="(nz, ny, nx)")
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
    xp = module(S)
    return S / xp.maximum(xp.abs(S) / S.real.dtype.type(bound), 1)
