"""Strongly strained crystals: the phase found first, as a smooth function of few unknowns in a shape that is a guess.

Where the phase turns by radians within a few voxels, phasing and searches voxel by voxel end in other crystals. The
landscape of few smooth phases in a given shape is a benign one: of some random starts several come to the same crystal
or its twin. The shape to begin with is half of the autocorrelation's (`pendel.kinematic.differences`). In it a phase of
few control points is fitted, from many starts; the best ones get more points, (1); then every voxel moves freely; and
the shape of what that finds is another guess.

(1) S = a exp(i phi),    phi = sum_pqr c_pqr B_p(z) B_q(y) B_r(x),    B: cubic B-splines over the box, clamped
(2) adj_c_pqr = sum B_p(z) B_q(y) B_r(x) Im(conj(S) adj_S)

Data that hardly tell a crystal from its twin leave the choice between both to polish.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline

from ..base import checks
from ..base.progress import Progress
from ..base.recipe import Recipe, integer, number, option
from ..fit.quasi_newton import Limits, minimise
from ..fit.steps import NO_STEPS
from ..kinematic.support import body, largest_component

DEGREE = 3
FAINT = 0.05  # of a shape's amplitude above which a voxel is the crystal's
BLUR, LEVEL = 1.0, 0.45  # voxels, of |S|; of a full voxel, blurred, above which a voxel is in the next shape
SURFACE = 0.7  # blur of a shape's surface, voxels
TOLERANCE = 1e-6  # relative decrease of the loss that ends a fit; SciPy's usual one is 2e-9
MEMORY = 20  # pairs of vectors kept


def check_ladder(name, value):
    """Check of a ladder: (points, iterations, fits) of every rung, each rung with more points and no more fits."""
    if not isinstance(value, (list, tuple)) or not value:
        raise TypeError(f"{name}: expected a list of (points, iterations, fits), got {checks.describe(value)}")
    rungs = []
    for i, rung in enumerate(value):
        if not isinstance(rung, (list, tuple)) or len(rung) != 3:
            raise TypeError(f"{name}[{i}]: expected (points, iterations, fits), got {checks.describe(rung)}")
        rungs.append(tuple(checks.integer(f"{name}[{i}][{j}]", v, at_least=1) for j, v in enumerate(rung)))
    for i, (rung, after) in enumerate(zip(rungs, rungs[1:], strict=False)):
        if after[0] <= rung[0] or after[2] > rung[2]:
            raise ValueError(f"{name}[{i + 1}]: expected more points and no more fits than {rung}, got {after}")
    return tuple(rungs)


@dataclass(frozen=True)
class SmoothRecipe(Recipe):
    """Searches for a strongly strained crystal, see `search_smooth`. Where no bench is named nothing was scanned."""

    ladder: tuple = option(
        ((4, 40, 25), (6, 60, 5), (9, 80, 3), (13, 100, 2)),
        check_ladder,
        "of a phase: control points along every axis of the box, iterations of a fit, and fits, the first ones from"
        " random phases, those with more points from the best ones before.",
    )
    weakest: float = option(1.0, number(above=0), "rms of the random control points, rad, at least.")
    strongest: float = option(5.0, number(above=0), "rms of the random control points, rad, at most.")
    cycles: int = option(
        4,
        integer(at_least=1),
        "searches, at most: in the shape to begin with and in that of the best crystal so far, in turn.",
        set_by="bench/foreign.py, strong (1), 1e8 photons: what 16 starts find is wrong, and so what they find in the"
        " shape of that; 25 others in the first shape arrive. Not scanned",
    )
    home: float = option(
        3e-3,
        number(at_least=0),
        "misfit beside that of photon noise below which no other shape is tried.",
        set_by="bench/foreign.py, strong (2), (3), 1e8 photons: right ones leave 1.6e-3 and 1.4e-3, noise 6e-4",
    )
    steps: int = option(960, integer(at_least=1), "of minibatch Adam, which moves every voxel, per shape.")
    rate: float = option(0.03, number(above=0), "of it.")
    grow: int = option(2, integer(at_least=0), "voxels around a shape in which it may grow.")


SMOOTH = SmoothRecipe()


@functools.cache
def _basis(voxels, points):
    """B of (1) at the voxels of an axis, float64 (voxels, points)."""
    degree = min(DEGREE, points - 1)
    knots = np.concatenate([np.zeros(degree), np.linspace(0, 1, points - degree + 1), np.ones(degree)])
    return BSpline.design_matrix(np.linspace(0, 1, voxels), knots, degree).toarray()


def spline_phase(c, shape):
    """phi of (1), float64 (nz, ny, nx), of control points (p, q, r), rad."""
    for n in shape:  # the first axis goes, and comes back as the last one
        c = np.einsum("zp,pqr->qrz", _basis(n, c.shape[0]), c)
    return c


def spline_adjoint(adj_phase, points):
    """Gradient with respect to control points, (points, points, points), of that with respect to phi."""
    for _ in range(3):
        adj_phase = np.einsum("zp,zyx->yxp", _basis(adj_phase.shape[0], points), adj_phase)
    return adj_phase


def more_points(c, points, shape):
    """Control points (points, points, points) whose phase on a box of ``shape`` is that of c, in least squares."""
    for n in shape:
        moved = np.linalg.pinv(_basis(n, points)) @ _basis(n, c.shape[0])
        c = np.einsum("ap,pqr->qra", moved, c)
    return c


class SplinePhases:
    """What L-BFGS-B moves: c of (1), rad, float64; |S| stays.

    Parameters
    ----------
    amplitude : real (nz, ny, nx), a of (1)
    c : (points, points, points), where it begins
    dtype : complex, of S
    """

    bounds = None

    def __init__(self, amplitude, c, dtype):
        self.amplitude, self.begin, self.dtype = amplitude, c, dtype
        self.support = amplitude > 0
        self.size = int(np.count_nonzero(self.support))

    def start(self):
        """x where it begins."""
        return self.begin.astype(np.float64).ravel()

    def c(self, x):
        """Control points."""
        return x.reshape(self.begin.shape)

    def S(self, x):
        """Equation (1), complex (nz, ny, nx)."""
        return (self.amplitude * np.exp(1j * spline_phase(self.c(x), self.amplitude.shape))).astype(self.dtype)

    def s_0(self, x):
        """The density is not free."""
        return None

    def adjoint(self, x, adj_c, adj_s_0):
        """Equation (2) of the gradient with respect to S of the support's voxels."""
        adj_phase = np.zeros(self.amplitude.shape)
        adj_phase[self.support] = (np.conj(self.S(x)[self.support]) * adj_c).imag
        return spline_adjoint(adj_phase, len(self.begin)).ravel()


class _Fitted(NamedTuple):
    """A fit: control points and misfit."""

    c: np.ndarray
    misfit: float


class _Watched:
    """The log of a fit: its last misfit, and iterations shown after ``done`` of others."""

    def __init__(self, shown, done):
        self.shown, self.done, self.misfit = shown, done, np.inf

    def __call__(self, S, loss, now, voxels):
        self.misfit, self.done = float(now.misfit_numerator / now.misfit_denominator), self.done + 1
        self.shown(self.done, misfit=self.misfit)


def smooth_phases(objective, amplitude, recipe, seed, title=False):
    """(S, misfit): the phases of a shape, by the ladder of a `SmoothRecipe` from random ones.

    Parameters
    ----------
    objective : Objective
    amplitude : real (nz, ny, nx), |S|
    seed : list of integers
    title : of the progress, or False
    """
    model, total = objective.model, sum(iterations * fits for _, iterations, fits in recipe.ladder)
    with Progress(title or "", total, "iteration", show=bool(title)) as shown:
        done, found = 0, _random_phases(recipe, seed)
        for points, iterations, fits in recipe.ladder:
            limits, better = Limits(iterations, 2 * iterations, MEMORY, TOLERANCE), []
            for c, _ in sorted(found, key=lambda fitted: fitted.misfit)[:fits]:
                c = c if len(c) == points else more_points(c, points, model.shape)
                variables, log = SplinePhases(amplitude, c, model.dtype), _Watched(shown, done)
                minimum = minimise(objective, variables, None, limits, log, name="smooth phases")
                better.append(_Fitted(variables.c(minimum.x), log.misfit))
                done += iterations
            found = better
        shown(total, misfit=min(found, key=lambda fitted: fitted.misfit).misfit)
    best = min(found, key=lambda fitted: fitted.misfit)
    return SplinePhases(amplitude, best.c, model.dtype).S(best.c.ravel()), best.misfit


def _random_phases(recipe, seed):
    """[`_Fitted`] to begin with, nothing known of their misfit."""
    points, _, fits = recipe.ladder[0]
    found = []
    for i in range(fits):
        rng = np.random.default_rng([*seed, i])
        rms = rng.uniform(recipe.weakest, max(recipe.weakest, recipe.strongest))
        found.append(_Fitted(rms * rng.normal(size=(points,) * 3), np.inf))
    return found


def solid_amplitude(inside):
    """The amplitude of a perfect crystal, float64 (nz, ny, nx), of where it is, bool: 1, with a soft surface."""
    return np.clip(ndimage.gaussian_filter(inside.astype(np.float64), SURFACE), 0, 1)


def shape_of(S):
    """Where a crystal is, bool (nz, ny, nx): in one piece, without holes."""
    inside = body(ndimage.gaussian_filter(np.abs(S).astype(np.float64), BLUR), LEVEL, above=0.3)
    return ndimage.binary_fill_holes(largest_component(inside))


def search_smooth(objective, search, shape, recipe, seed, noise, titled, steps=NO_STEPS):
    """(S, support, misfit) near the crystal or its twin, from nothing but a shape.

    Parameters
    ----------
    objective : Objective
    search : called as search(cycle, S, support), gives the `Result` of minibatch Adam from there
    shape : bool (nz, ny, nx), the first guess
    recipe : SmoothRecipe
    seed : int
    noise : misfit of photon noise
    titled : called with what is done, gives the title of its progress, or False
    steps : `Steps`, of which every shape is one
    """

    def search_in(shape, cycle):
        amplitude, title = solid_amplitude(shape), titled(f"smooth phases, shape {cycle + 1} of {recipe.cycles}")
        S, _ = smooth_phases(objective, amplitude, recipe, [seed, cycle], title)
        around = amplitude > FAINT
        support = ndimage.binary_dilation(around, iterations=recipe.grow) if recipe.grow else around
        found = search(cycle, S, support)
        return {"S": found.S, "support": found.support, "misfit": found.misfit}

    best, first = None, shape
    for cycle in range(recipe.cycles):
        found = steps.once(f"shape {cycle + 1}", lambda _, shape=shape, cycle=cycle: search_in(shape, cycle))
        best = found if best is None or found["misfit"] < best["misfit"] else best
        if best["misfit"] < noise + recipe.home:
            break
        shape = shape_of(best["S"]) if cycle % 2 == 0 else first
    return best["S"], best["support"], float(best["misfit"])
