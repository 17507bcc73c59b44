"""What the beamline adds to the frames, as numbers to be found beside S: a vector that L-BFGS moves jointly with it.

(1) u = G x/scale,   scale = ease sqrt((H + P) n_S)      G takes out what the frames cannot tell
(2) priors = sum 1/2 P u^2,   P = 1/(nats L M_j spread^2)
(3) offset_j = given + u_j,                        spread in steps of the scan, about 0
    flux_j = given exp(u_j),                       relative spread, about the given one
    background level = given + u,                  one for all frames, or one for each, about the given one
    squared width of the point spread = given + u, along rows and along columns, about the given one
    p_i v_i^2/pixel^2 = given + u_i, of `pendel.experiment.coherence`: squared spreads of Q in pixels, about the given

H is the Gauss-Newton curvature of the loss, from the data: with (1) every entry bends the objective about as much as
one of the n_S numbers that describe S does, whether its frame is bright or dark, and ``ease`` lets it go first. G and
the priors are those of `pendel.fit.refinement`: mean and slope of the offsets and slow changes of the flux are left to
the crystal. By bounds squared widths stay >= 0, spreads >= NARROWEST, and the whole background above LEAST of the given
one, which keeps a count where the model is dark finite. A weak background beside few photons ends there: the crystal
takes its counts for noise of its own, so one that was measured is better given.

Point spread and coherence look alike where the beam smears nothing along the frames: all that a vertical coherence does
to the frames of a horizontal arm is what a point spread along the rows does. With both refined what is added to the
model's point spread is as wide along rows as along columns: what the coherence smears along the frames tells the one,
the rest the other.
How many settings the beam has is chosen where a fit begins and then kept, so that the loss is smooth; two at least, for
with one nothing is smeared along the frames. Where a beam begins coherent it begins with START, for w in (2) of the
coherence has no derivative at 0.

(4) H_flux = sum I/(nats L M_j),   H_level = sum (1/I~)/(nats L M_j),   H_width = sum (I~''/2)^2/I~/(nats L M_j)

and H of a spread is H_width with the second derivative along v_i through the pixels of all frames.

H of the angles is (3) of `pendel.fit.refinement`; I~ is the data's mean over a pixel and its neighbours.
"""

import itertools
import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import ndimage

from ..base.arrays import host
from ..base.recipe import Recipe, flag, number, option
from ..experiment.coherence import Coherence, directions
from ..model.pixels import local_mean
from .refinement import Angles, Flux, dq_at

# Angles: bench/foreign.py, smooth, angles, 1e8 photons; 0.01 and 0.03 end at 0.006, 0.1 at 0.012, 0.3 at 0.020 rad, for
# the crystal learns the wrong angles first. Coherence: the same with a visibility of 0.8, on voxels of two thirds;
# after 40 evaluations p is 0.95 and 0.92 of the true one with 0.03, 0.70 and 0.60 with 0.1. The others:
# tests/test_nuisance_fits.py's scan.
EASE = {"angle_offsets": 0.03, "flux": 0.3, "background_level": 1.0, "point_spread": 0.1, "coherence": 0.03}
LEAST = 0.1
START, NARROWEST = 1e-2, 1e-4  # pixels squared
DARK = 0.01  # counts: below, 1/I~ of (4) is that of so many; it steers the way, not the end


R = TypeVar("R", bound="NuisanceRecipe")


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

    refine_coherence: bool = option(
        False,
        flag,
        "refine the beam's coherence lengths, horizontal and vertical. A point spread refined beside them is as wide"
        " along rows as along columns.",
    )
    refine_bandwidth: bool = option(False, flag, "with refine_coherence, refine the width of its wavelengths too.")
    coherence_spread: float = option(
        0.5,
        number(above=0),
        "expected rms of the squared rms spreads of Q that coherence and bandwidth make, about the given ones, pixels"
        " squared.",
    )

    @property
    def refines(self) -> bool:
        """Whether anything is."""
        return any(getattr(self, name) for name in KINDS)

    def without_refinement(self: R) -> R:
        """The same with S alone."""
        return self.but(**dict.fromkeys(KINDS, False))


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

    name: str
    gradient: str | None = None

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
        self.common = recipe.refine_coherence
        if self.common:
            known = np.square(fit.model.point_spread)
            self.given = known + max((self.given - known).mean(), -known.min())
        weight = frame_shares(fit)
        bend = np.array([weight @ _sharpness(*(np.moveaxis(a, axis, 1) for a in _light(fit))) for axis in (1, 2)])
        prior, low = np.full(2, weight.sum() / recipe.blur_spread**2), -self.given
        if self.common:
            bend, prior, low = bend.sum(keepdims=True), prior[:1], low.max(keepdims=True)
        super().__init__(bend, prior, unknowns, low)

    def value(self, x):
        return tuple(np.sqrt(np.maximum(self.given + self.u(x), 0)).tolist())

    def by_u(self, x, now):
        return now.adj_blur.sum(keepdims=True) if self.common else now.adj_blur


class _Beam(_Part):
    name = gradient = "coherence"

    def __init__(self, recipe, fit, given, unknowns):
        model = fit.model
        experiment, known = model.experiment, model.coherence or Coherence()
        self.given = (given or known).squares
        self.free = [0, 1, 2] if recipe.refine_bandwidth else [0, 1]
        v = directions(experiment)
        self.unit = (2 * math.pi / experiment.field_of_view) ** 2 / np.square(v).sum(axis=1)
        for i in self.free:
            if self.given[i] < NARROWEST * self.unit[i]:
                self.given[i] = START * self.unit[i]
        self.modes = known.modes or self._modes(fit, given)
        weight, light = frame_shares(fit), _light(fit)
        bend = np.array([weight @ _sharpness_along(*light, _in_pixels(experiment, v[i])) for i in self.free])
        prior = np.full(len(self.free), weight.sum() / recipe.coherence_spread**2)
        super().__init__(bend, prior, unknowns, NARROWEST - (self.given / self.unit)[self.free])

    def _modes(self, fit, given):
        """As many as where it begins asks for, and never fewer than there were."""
        height = fit.model.shape[0] * fit.model.voxel[0]
        wanted = Coherence.of_squares(self.given).count(fit.model.experiment, height)
        return max(2, wanted, 0 if given is None else given.modes)

    def value(self, x):
        squares = self.given.copy()
        squares[self.free] += self.u(x) * self.unit[self.free]
        squares[self.free] = np.maximum(squares, NARROWEST * self.unit)[self.free]
        return Coherence.of_squares(squares, self.modes)

    def by_u(self, x, now):
        return (host(now.adj_coherence) * self.unit)[self.free]


KINDS = {
    "refine_angles": _Offsets,
    "refine_intensities": _Intensities,
    "refine_background": _Level,
    "refine_blur": _Widths,
    "refine_coherence": _Beam,
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


def _in_pixels(experiment, v):
    """What a pixel along v (3,) of Q is, in frames, rows and columns, (3,)."""
    pixel = 2 * math.pi / experiment.field_of_view
    return np.linalg.lstsq(experiment.basis(), pixel * v / np.linalg.norm(v), rcond=None)[0]


def _sharpness_along(light, good, step):
    """H of a spread along ``step`` (3,), in frames, rows and columns, of every frame and without its weight."""
    if min(light.shape) < 3:
        return np.zeros(len(light))
    middle = slice(1, -1)
    inner = (middle,) * 3
    change = np.zeros(light[inner].shape)
    for axis in range(3):
        others = tuple(slice(None) if a == axis else middle for a in range(3))
        change += 0.5 * step[axis] ** 2 * np.diff(light[others], 2, axis=axis)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        for side_a, side_b in itertools.product((0, 1), repeat=2):
            corner = list(inner)
            corner[a], corner[b] = slice(2 * side_a, None if side_a else -2), slice(2 * side_b, None if side_b else -2)
            change += (0.25 if side_a == side_b else -0.25) * step[a] * step[b] * light[tuple(corner)]
    change *= ndimage.minimum_filter(good, 3)[inner]
    sums = np.sum(change**2 / np.maximum(light[inner], DARK), axis=(1, 2))
    return np.pad(sums, 1)


def _gauge(smooth, count):
    """G of (1): what ``smooth`` finds is taken out."""
    return np.eye(count) - np.stack([smooth(unit) for unit in np.eye(count)], axis=1)
