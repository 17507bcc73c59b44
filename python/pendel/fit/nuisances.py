"""What the beamline adds to the frames, as numbers to be found beside S: a vector that L-BFGS moves jointly with it.

(1) u = G x/scale,   scale = ease sqrt((H + P) n_S)      G takes out what the frames cannot tell
(2) priors = sum 1/2 P u^2,   P = 1/(nats L M_j spread^2)
(3) offset_j = given + u_j,                        spread in steps of the scan, about 0
    flux_j = given exp(u_j),                       relative spread, about the given one
    background level = given + u,                  one for all frames, or one for each, about the given one
    squared width of the point spread = given + u, along rows and along columns, about the given one

H is the Gauss-Newton curvature of the loss, from the data: with (1) every entry bends the objective about as much as
one of the n_S numbers that describe S does, whether its frame is bright or dark, and ``ease`` lets it go first. G and
the priors are those of `pendel.fit.refinement`: mean and slope of the offsets and slow changes of the flux are left to
the crystal. By bounds squared widths stay >= 0 and the whole background above LEAST of the given one, which keeps a
count where the model is dark finite. A weak background beside few photons ends there: the crystal takes its counts for
noise of its own, so one that was measured is better given.

(4) H_flux = sum I/(nats L M_j),   H_level = sum (1/I~)/(nats L M_j),   H_width = sum (I~''/2)^2/I~/(nats L M_j)

H of the angles is (3) of `pendel.fit.refinement`; I~ is the data's mean over a pixel and its neighbours.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..base import checks
from ..base.arrays import host
from ..base.recipe import Recipe, flag, number, option
from ..model.pixels import local_mean
from .refinement import Angles, Flux, dq_at

# Angles: bench/foreign.py, smooth, angles, 1e8 photons; 0.01 and 0.03 end at 0.006, 0.1 at 0.012, 0.3 at 0.020 rad, for
# the crystal learns the wrong angles first. The others: tests/test_nuisance_fits.py's scan.
EASE = {"angle_offsets": 0.03, "flux": 0.3, "background_level": 1.0, "point_spread": 0.1}
LEAST = 0.1
DARK = 0.01  # counts: below, 1/I~ of (4) is that of so many; it steers the way, not the end


@dataclass(frozen=True)
class NuisanceRecipe(Recipe):
    """What is refined beside S, `pendel.fit.nuisances`; data in counts."""

    refine_angles: bool = option(False, flag, "refine each frame's rocking angle.")
    angle_spread: float = option(0.3, number(above=0), "expected rms of the angles' offsets, in steps of the scan.")
    refine_intensities: bool = option(False, flag, "refine each frame's incident intensity.")
    intensity_spread: float = option(0.1, number(above=0), "expected relative rms of the incident intensity.")
    refine_background: bool = option(False, flag, "refine the level of the background, counts per pixel.")
    background_spread: float = option(
        1.0, number(above=0), "expected rms of that level about the given one, counts per pixel."
    )
    background_per_frame: bool = option(False, flag, "a level for every frame instead of one for all.")
    refine_blur: bool = option(False, flag, "refine the detector's point spread, along rows and along columns.")
    blur_spread: float = option(
        0.5, number(above=0), "expected rms of its squared widths about the given ones, pixels squared."
    )

    @property
    def refines(self):
        """Whether anything is."""
        return self.refine_angles or self.refine_intensities or self.refine_background or self.refine_blur

    def without_refinement(self):
        """The same with S alone."""
        names = ("refine_angles", "refine_intensities", "refine_background", "refine_blur")
        return self.but(**dict.fromkeys(names, False))


class Corrections(NamedTuple):
    """What the beamline knew badly, on the host.

    Attributes
    ----------
    angle_offsets : float64 (n_frames,) rad, or None: 0
    flux : float64 (n_frames,), relative, or None: 1
    background_level : float64 (n_frames,), counts per pixel beside those of the `Fit`, or None: 0
    point_spread : (row, col), rms widths in pixels, or None: the model's
    """

    angle_offsets: np.ndarray | None = None
    flux: np.ndarray | None = None
    background_level: np.ndarray | None = None
    point_spread: tuple[float, float] | None = None

    @classmethod
    def checked(cls, model, angle_offsets, flux):
        """Of a public function's arguments."""
        given = {"angle_offsets": angle_offsets, "flux": flux}
        for name, value in given.items():
            if value is not None:
                given[name] = checks.array(name, value, (model.n_frames,), np.float64, axes="(n_frames,)")
        if flux is not None and not given["flux"].min() > 0:
            raise ValueError(f"flux: expected relative intensities > 0, got {given['flux'].min():g}")
        return cls(**given)

    def of_frames(self, frames):
        """Those of some frames."""
        *arrays, point_spread = self
        return Corrections(*(None if a is None else a[frames] for a in arrays), point_spread)

    def filled(self, other):
        """These, and ``other`` where these are None."""
        return Corrections(*(b if a is None else a for a, b in zip(self, other, strict=True)))


NO_CORRECTIONS = Corrections()


class _Part:
    """Entries of one kind: (1) and (2).

    Parameters
    ----------
    bend, prior : float64 (count,), H and P
    unknowns : n_S
    low : lowest values of u, a number or (count,)
    gauge : G (count, count), or None: the unit matrix

    A kind has a ``name``, of its field of `Corrections`, and a ``gradient``, of `pendel.model.passes.Nuisance`.
    """

    name = gradient = None

    def __init__(self, bend, prior, unknowns, low=-math.inf, gauge=None):
        self.prior, self.gauge = prior, gauge
        total = bend + prior
        self.scale = EASE[self.name] * np.sqrt(np.where(total > 0, total, 1) * unknowns)
        self.low = low * self.scale

    @property
    def size(self):
        return len(self.scale)

    def u(self, x):
        u = x / self.scale
        return u if self.gauge is None else self.gauge @ u

    def adjoint(self, x, adj_u):
        """(value of (2), gradient by x) where the loss has the gradient ``adj_u``."""
        u = self.u(x)
        adj_u = adj_u + self.prior * u
        adj_u = adj_u if self.gauge is None else self.gauge.T @ adj_u
        return 0.5 * float(np.sum(self.prior * u * u)), adj_u / self.scale


class _Offsets(_Part):
    name = "angle_offsets"

    def __init__(self, recipe, fit, given, unknowns):
        self.experiment = fit.model.experiment
        self.given = np.zeros(fit.model.n_frames) if given is None else given
        angles = Angles(self.experiment, fit.pixels, fit.likelihood.nats, recipe.angle_spread)
        frames = fit.model.n_frames
        super().__init__(
            angles.curvature / frames, angles.prior / frames, unknowns, gauge=_gauge(angles.smooth, frames)
        )

    def value(self, x):
        return self.given + self.u(x)

    def by_u(self, x, now):
        return (host(now.adj_dq) * dq_at(self.experiment, self.value(x))[1]).sum(axis=1)


class _Intensities(_Part):
    name, gradient = "flux", "flux"

    def __init__(self, recipe, fit, given, unknowns):
        frames = fit.model.n_frames
        self.given = np.ones(frames) if given is None else given
        flux = Flux(fit.model.experiment, fit.pixels, fit.likelihood, recipe.intensity_spread)
        weight = frame_shares(fit)
        super().__init__(flux.counts * weight, flux.inverse * weight, unknowns, gauge=_gauge(flux.smooth, frames))

    def value(self, x):
        return self.given * np.exp(self.u(x))

    def by_u(self, x, now):
        return now.adj_flux * self.value(x)


class _Level(_Part):
    name, gradient = "background_level", "background"

    def __init__(self, recipe, fit, given, unknowns):
        frames, weight = fit.model.n_frames, frame_shares(fit)
        self.given = np.zeros(frames) if given is None else given
        light, good = _light(fit)
        bend = np.sum(good / np.maximum(light, DARK), axis=(1, 2)) * weight
        prior = weight / recipe.background_spread**2
        self.common = not recipe.background_per_frame
        if self.common:
            bend, prior = bend.sum(keepdims=True), prior.sum(keepdims=True)
        base = fit.likelihood.background
        base = float(base if np.ndim(host(base)) == 0 else base.min())
        low = (LEAST - 1) * (base + self.given.min())
        super().__init__(bend, prior, unknowns, low)

    def value(self, x):
        return self.given + self.u(x)

    def by_u(self, x, now):
        return now.adj_background.sum(keepdims=True) if self.common else now.adj_background


class _Widths(_Part):
    name, gradient = "point_spread", "blur"

    def __init__(self, recipe, fit, given, unknowns):
        self.given = np.square(fit.model.point_spread if given is None else given)
        weight = frame_shares(fit)
        bend = [weight @ _sharpness(*(np.moveaxis(a, axis, 1) for a in _light(fit))) for axis in (1, 2)]
        prior = np.full(2, weight.sum() / recipe.blur_spread**2)
        super().__init__(np.array(bend), prior, unknowns, -self.given)

    def value(self, x):
        return tuple(np.sqrt(np.maximum(self.given + self.u(x), 0)).tolist())

    def by_u(self, x, now):
        return now.adj_blur


KINDS = {
    "refine_angles": _Offsets,
    "refine_intensities": _Intensities,
    "refine_background": _Level,
    "refine_blur": _Widths,
}


class Nuisances:
    """The vector of what is refined beside S, for `minimise`.

    Parameters
    ----------
    recipe : NuisanceRecipe
    fit : Fit
    given : Corrections, where it begins
    unknowns : how many numbers describe S

    Attributes
    ----------
    size : entries
    gradients : names for `pendel.model.passes.Nuisance`
    low : (size,), the lowest value of each entry
    """

    def __init__(self, recipe, fit, given, unknowns):
        self.begun = given
        self.parts = [
            kind(recipe, fit, getattr(given, kind.name), unknowns)
            for refined, kind in KINDS.items()
            if getattr(recipe, refined)
        ]
        edges = np.cumsum([0, *(part.size for part in self.parts)])
        self._places = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        self.size = int(edges[-1])
        self.gradients = tuple(part.gradient for part in self.parts if part.gradient)
        self.low = np.concatenate([part.low for part in self.parts])

    def start(self):
        """x of what was given."""
        return np.zeros(self.size)

    def corrections(self, x):
        """`Corrections` of equation (3)."""
        found = {part.name: part.value(x[place]) for part, place in zip(self.parts, self._places, strict=True)}
        return self.begun._replace(**found)

    def adjoint(self, x, now):
        """(2) and the gradient of loss and (2), float64 (size,), of an `Evaluation` on the host."""
        value, gradient = 0.0, np.empty(self.size)
        for part, place in zip(self.parts, self._places, strict=True):
            term, gradient[place] = part.adjoint(x[place], part.by_u(x[place], now))
            value += term
        return value, gradient


def frame_shares(fit):
    """1/(nats L M_j) of every frame, float64 (n_frames,)."""
    weights = [float(w) for w in fit.frame_weights()]
    return np.array(weights) / (fit.likelihood.nats * fit.model.n_frames)


def _light(fit):
    """(I~, good pixels, held out or not) on the host, both (n_frames, rows, cols)."""
    data, known = host(fit.data), host(fit.pixels.known)
    good = np.ones(data.shape, bool) if known is None else np.broadcast_to(known, data.shape)
    return local_mean(data, good), good


def _sharpness(light, good):
    """H_width of (4) along axis 1, of every frame and without its weight; dead pixels have no curvature about them."""
    if light.shape[1] < 3:
        return np.zeros(len(light))
    change = 0.5 * np.diff(light, 2, axis=1) * (good[:, :-2] & good[:, 1:-1] & good[:, 2:])
    return np.sum(change**2 / np.maximum(light[:, 1:-1], DARK), axis=(1, 2))


def _gauge(smooth, count):
    """G of (1): what ``smooth`` finds is taken out."""
    return np.eye(count) - np.stack([smooth(unit) for unit in np.eye(count)], axis=1)
