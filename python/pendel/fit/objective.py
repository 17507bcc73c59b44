"""What a reconstruction minimises: the loss of the frames, and what is added to it.

(1) objective = loss (`pendel.model.loss`) + atv_weight I_mean ATV(S),    I_mean = (1/L) sum_j (1/M_j) sum_good I_j

I_mean, over all frames, is the amplitude loss of an empty model, so that a weight means the same for a short and a
long exposure.
"""

import copy
from dataclasses import dataclass

import numpy as np

from ..base import checks
from ..base.arrays import host, module
from ..base.light import refuse_darkness
from ..base.recipe import Recipe, choice, integer, number, option
from ..kinematic import KinematicResult, even_experiment, to_model_grid
from ..model.loss import LIKELIHOODS, Likelihood, check_data, check_mask, has_axes, refuse_bad_data
from ..model.passes import Evaluation, Fit, Nuisance
from ..model.pixels import check_background, error_weights, free_pixels
from ..operator.engines import on_device
from .corrections import BY_FRAME, Corrections
from .refinement import Turns
from .total_variation import unchecked_atv

DENSITIES = ("tied", "support", "free")


def background_of_recipe(name, value):
    """Check of a number >= 0, or of an array whose shape is that of `pendel.model.pixels.check_background`."""
    if not has_axes(value):
        return checks.number(name, value, at_least=0)
    return checks.array(name, value, (None,) * value.ndim, np.float64)


@dataclass(frozen=True)
class DataRecipe(Recipe):
    """How measured frames are compared with computed ones."""

    likelihood: str = option(
        "amplitude",
        choice(*LIKELIHOODS),
        '"amplitude", least squares of amplitudes, or "poisson", data in counts; see `pendel.model.loss`.',
    )
    background: float | np.ndarray = option(
        0.0,
        background_of_recipe,
        "expected counts per pixel beside the crystal's: a number, or from Python an array (n_frames,), (rows, cols) or"
        ' (n_frames, rows, cols). With 0 and "poisson" a count where the model is dark is infinitely unlikely, and'
        " nearly so next to it; some 0.01 to 1 tempers that.",
    )
    model_error: float = option(
        0.0,
        number(at_least=0),
        "by how much of the intensity about a pixel the model itself is wrong: beside the photons' noise a variance"
        " below which nothing is fitted (`pendel.model.pixels.error_weights`).",
    )
    free_fraction: float = option(
        0.0,
        number(at_least=0, below=1),
        "part of the good pixels to hold out of the fit, some 0.05 (`pendel.model.pixels.free_pixels`). How well they"
        " are met tells a better crystal from a better fit to noise: rank runs of one seed by free_misfit.",
    )
    seed: int = option(0, integer(at_least=0), "of the held-out pixels, and of all else that is random.")


@dataclass(frozen=True)
class ObjectiveRecipe(DataRecipe):
    """Equation (1)."""

    s_0: str = option(
        "tied",
        choice(*DENSITIES),
        'density on the diagonal. "tied": |S|. "support": 1 in the support, 0 outside, without a gradient. "free": an'
        " array of its own in [0, amplitude_bound], from |S| at the start.",
    )
    atv_weight: float = option(
        0.0,
        number(at_least=0),
        "atv_weight times the mean measured intensity times ATV (`pendel.atv`, differences within the support) is added"
        " to the loss. The loss of an empty model is that intensity, so the weight has no unit: 0.01 makes a mean step"
        " |grad S| of 0.1 per voxel cost a thousandth of it (q = 1).",
    )
    atv_p: float = option(2.0, number(at_least=1), "exponent p of ATV.")
    atv_q: float = option(1.0, number(above=0), "exponent q of ATV.")


@dataclass(frozen=True)
class Variation:
    """The second term of (1).

    weight : number >= 0, relative to I_mean.  p, q : exponents.
    surface : count differences across the edge of the support too, where S falls to 0.
    """

    weight: float = 0.0
    p: float = 2.0
    q: float = 1.0
    surface: bool = False


def measured(model, data, mask, recipe):
    """The `Fit` of data for a `DataRecipe`.

    For a model on a device ``data`` and ``mask``, which may be NumPy's or CuPy's, are uploaded here where they do not
    lie there already, and data are checked.
    """
    engine, shape = model.engine, (model.n_frames, *model.experiment.detector_shape)

    def take(name, value):
        there = hasattr(value, "__cuda_array_interface__")
        return engine.take(name, value) if there else checks.numpy_array(name, value)

    data, mask = check_data("data", data, shape, take), check_mask("mask", mask, shape, take)
    free = free_pixels(shape, recipe.free_fraction, host(mask, "mask"), recipe.seed) if recipe.free_fraction else None
    background, weights = check_background("background", recipe.background, shape), None
    if recipe.model_error:
        weights = error_weights(host(data, "data"), recipe.model_error, host(mask, "mask"))
    with engine.here():
        there, mask, free, weights = (engine.upload(a) for a in (_narrow(data, model), mask, free, weights))
        background = engine.upload(background) if has_axes(background) else background
        fit = model.fit_of(there, mask, Likelihood(recipe.likelihood, background), free, weights=weights)
        if not engine.reads_values:
            refuse_bad_data("data", fit.pixels.root)
        refuse_darkness(fit.pixels.root, fit.pixels.good)
    # data as given: what they became on a device is not kept
    return Fit(model, data, fit.pixels, fit.likelihood, fit.weights)


def check_frames(experiment, data, mask):
    """(data, mask) of all frames of an experiment as NumPy arrays, checked but for what `measured` looks at; with light
    on some good pixel.
    """
    shape = experiment.n_frames, *experiment.detector_shape
    data, mask = check_data("data", host(data, "data"), shape), check_mask("mask", host(mask, "mask"), shape)
    refuse_darkness(data, mask)
    return data, mask


def _narrow(data, model):
    """Data for a device no wider than the model's numbers, which they become anyway."""
    wide = not model.engine.reads_values and data.dtype.itemsize > model.real_dtype.itemsize
    return data.astype(model.real_dtype) if wide else data


class Objective:
    """(1) of a `Fit` with its gradient.

    `evaluate` takes and gives arrays where the model works and copies nothing; `on_host` is it for NumPy arrays, one
    copy each way.

    Parameters
    ----------
    fit : Fit
    density : "tied", "support" or "free", see `ObjectiveRecipe.s_0`
    variation : Variation
    monitor : float64 (n_frames,), known relative intensities, which multiply the flux; None: 1

    Attributes
    ----------
    fit, density, variation : as given, ``fit`` narrowed by `only`
    whole : the `Fit` as given
    """

    def __init__(self, fit, density="tied", variation=None, monitor=None):
        self.fit, self.model, self.engine = fit, fit.model, fit.model.engine
        self.density, self.variation = density, variation or Variation()
        self.whole = fit
        with self.engine.here():
            self._turns = Turns(self.model.experiment, self.engine.upload)
            self.monitor = self.engine.upload(monitor)
            self._weight = self.variation.weight * fit.mean_intensity if self.variation.weight else 0.0

    @classmethod
    def of(cls, fit, recipe, monitor=None):
        """That of an `ObjectiveRecipe`."""
        return cls(fit, recipe.s_0, Variation(recipe.atv_weight, recipe.atv_p, recipe.atv_q), monitor)

    def only(self, kept):
        """The same objective of the pixels ``kept`` alone; total variation and `unit` stay those of all."""
        other = copy.copy(self)
        other.fit = self.fit.only(kept)
        return other

    @property
    @on_device
    def unit(self):
        """I_mean of (1), float, > 0: what an optimiser takes for 1.  Raises ValueError for data without any light."""
        unit = self.whole.mean_intensity
        if not unit > 0:
            raise ValueError("data: expected some intensity on good pixels, got none")
        return unit

    @on_device
    def evaluate(
        self,
        S,
        support,
        frames=None,
        s_0=None,
        *corrections,
        gradients=(),
    ):
        """`Evaluation` of ``frames``, indices on the host, at their best scale; its loss and adj_S are those of (1).

        Parameters
        ----------
        S, support : arrays
        s_0 : the density, real (nz, ny, nx), where it is "free"
        corrections : the fields of `pendel.fit.corrections.Corrections`, as many as there are
        gradients : as in `pendel.model.passes.Nuisance`
        """
        now = self._evaluate(S, support, frames, s_0, Corrections(*corrections), gradients=gradients)
        if not self._weight:
            return now
        value, adj_S = self._total_variation(S, support)
        return now._replace(loss=now.loss + value, adj_S=now.adj_S + adj_S)

    def _evaluate(self, S, support, frames, s_0, corrections, gradient=True, gradients=()):
        """The loss alone, in (1)."""
        model = self.model
        frames = np.arange(model.n_frames) if frames is None else frames
        scan, level = self._scan(corrections), corrections.background_level
        level = None if level is None else level.astype(model.real_dtype)
        nuisance = Nuisance(level, corrections.point_spread, gradients, corrections.coherence)
        scan |= {"nuisance": nuisance, "s_0": self._density(S, support, s_0)}
        return model.passes.evaluate(S, self.fit, frames, None, support=support, gradient=gradient, **scan)

    def _scan(self, corrections):
        """dq and flux of the frames, in the model's numbers."""
        model, angle_offsets, flux = self.model, corrections.angle_offsets, corrections.flux
        if flux is not None or self.monitor is not None:
            flux = (1.0 if flux is None else flux) * (1.0 if self.monitor is None else self.monitor)
            flux = flux.astype(model.real_dtype)
        return {"dq": model.dq if angle_offsets is None else self._turns.dq(angle_offsets)[0], "flux": flux}

    def _density(self, S, support, s_0):
        return support.astype(S.real.dtype) if self.density == "support" else s_0

    def _total_variation(self, S, support):
        exponents = {"p": self.variation.p, "q": self.variation.q}
        if self.variation.surface:
            return unchecked_atv(S, self._weight * S.size / int(module(support).count_nonzero(support)), **exponents)
        return unchecked_atv(S, self._weight, support=support, **exponents)

    @on_device
    def on_host(self, S, support, s_0=None, *corrections, gradients=()):
        """`evaluate` of all frames with NumPy arrays and floats in and out, wherever the model works."""
        if not self.engine.reads_values:
            S, support, s_0 = (self.engine.upload(a) for a in (S, support, s_0))
            corrections = self._uploaded(corrections)
        now = self.evaluate(S, support, None, s_0, *corrections, gradients=gradients)
        return now if self.engine.reads_values else _on_host(now)

    @on_device
    def measure(self, S, support, s_0=None, *corrections):
        """Scale, misfit and held-out pixels of S: an `Evaluation` of the loss, without gradients, as of `on_host`."""
        S, support, s_0 = (self.engine.upload(a) for a in (S, support, s_0))
        return _on_host(self._evaluate(S, support, None, s_0, self._uploaded(corrections), gradient=False))

    def _uploaded(self, corrections):
        """`Corrections` of some of its fields, the arrays where the model works."""
        corrections = Corrections(*corrections)
        arrays = {name: self.engine.upload(getattr(corrections, name)) for name in BY_FRAME}
        return corrections._replace(**arrays)

    @on_device
    def trusted(self, S, support, trim, *corrections):
        """The good pixels that S misses by at most ``trim`` times the rms of sqrt(model) - sqrt(data).

        Arguments on the host; the result, bool (n_frames, rows, cols), is where the model works.
        """
        upload, model, pixels = self.engine.upload, self.model, self.fit.pixels
        S, support, corrections = upload(S), upload(support), self._uploaded(corrections)
        scale = self._evaluate(S, support, None, None, corrections, gradient=False).scale
        beam = {"point_spread": corrections.point_spread, "coherence": corrections.coherence}
        scan = self._scan(corrections) | {"s_0": self._density(S, support, None)} | beam
        D = model.passes.intensities(S, np.arange(model.n_frames), **scan)
        frames, level = self.engine.xp.arange(model.n_frames), corrections.background_level
        background = self.fit.likelihood.beside(frames, None if level is None else level.astype(D.dtype))
        D = scale * D if background is None else scale * D + background

        xp, data = module(D), upload(_narrow(self.fit.data, model))
        residual = xp.sqrt(D) - xp.sqrt(xp.maximum(data, 0))
        known = pixels.known
        good = xp.ones(residual.shape, bool) if known is None else xp.broadcast_to(known, residual.shape)
        square = xp.where(good, xp.square(residual), 0)
        return good & (square <= trim**2 * square.sum(dtype=np.float64) / xp.count_nonzero(good))


def _on_host(evaluation):
    """An `Evaluation` with NumPy arrays and floats."""
    values = (host(value) if hasattr(value, "ndim") else value for value in evaluation)
    return Evaluation(*(float(v) if hasattr(v, "ndim") and v.ndim == 0 else v for v in values))


def initial(model, start, support, amplitude_bound):
    """(S, support) to begin with, NumPy arrays; arguments as in `pendel.reconstruct`."""
    shape, dtype = model.shape, model.dtype
    if isinstance(start, KinematicResult):
        start = to_model_grid(start, even_experiment(model.experiment), shape, model.voxel).astype(dtype)
    start, support = host(start, "start"), host(support, "support")
    if support is not None:
        support = checks.array("support", support, shape, bool, axes="(nz, ny, nx)")
    if start is not None:
        start = checks.array("start", start, shape, dtype, axes="(nz, ny, nx)")
        support = start != 0 if support is None else support
    elif support is None:
        axes = [(np.arange(n) - (n - 1) / 2) / (0.4 * n) for n in shape]
        support = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2 <= 1
    if start is None:
        start = np.full(shape, 0.5 * (amplitude_bound or 1.0), dtype)
    return begun(start, support, amplitude_bound), support


def begun(S, support, amplitude_bound):
    """S to begin with, a new array: 0 outside the support, |S| at most the bound.  S : as the model has it, checked."""
    if not support.any():
        raise ValueError("support: expected at least one voxel inside, got none")
    return bounded(np.where(support, S, 0).astype(S.dtype), amplitude_bound)


def bounded(S, bound):
    """S with |S| <= ``bound``; None: S."""
    if bound is None:
        return S
    xp = module(S)
    return S / xp.maximum(xp.abs(S) / S.real.dtype.type(bound), 1)
