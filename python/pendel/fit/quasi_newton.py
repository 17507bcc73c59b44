"""L-BFGS on all frames at once: few, exact steps near the solution, where minibatches only shake.

`minimise` is the one driver: an `Objective`, the variables that describe S to SciPy's L-BFGS-B (Byrd, Lu, Nocedal &
Zhu, SIAM J. Sci. Comput. 16, 1190, 1995), and priors. `polish` (`pendel.fit.polishing`) moves Re S and Im S, or
`Preconditioned` unknowns. `lbfgs` moves

(1) S = a exp(i u),   -bound <= a <= bound,   u free
(2) adj_a = Re(conj(adj_S) exp(i u)),   adj_u = Im(adj_S conj(S))

|S| <= bound is no box in Re S and Im S, and projecting S inside the function would break the line search. In (1) it is
one, for L-BFGS-B to keep exactly, and the map is smooth: a passes through 0 with a change of sign, that is, of the
phase by pi. What (1) pays is the phase of voxels with a near 0, which hardly moves. With s_0 = |S| the objective itself
has a corner at a = 0.

A long fit is made of several runs of L-BFGS-B, each from where the one before it ended and without its pairs of
vectors, which SciPy does not hand out: a resumed fit begins with the same one, and comes to the same bits. Restarts
cost iterations: after 100 the loss of a small cube is 1 % above that of a single run with one restart, 2 % with three.
"""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from ..base import checks
from ..base.progress import Progress
from ..base.recipe import choice, from_keywords, integer, maybe, number, option, with_keywords_of
from ..model.model import Model
from ..operator.engine import Array
from . import checkpoint_file
from .checkpoint_file import fields_of, signature_of
from .corrections import NO_CORRECTIONS, Corrections
from .minibatch import OPTIMISED
from .nuisances import NuisanceRecipe, Nuisances
from .objective import Objective, ObjectiveRecipe, initial, measured
from .result import FREE_HISTORY, Result, finish, free_numbers
from .steps import Steps

ITERATION_HISTORY = ("loss", "misfit", "scale", "support")
LINE_SEARCH_FAILED = 2  # SciPy's status
START = "start"  # of a signature: S


@dataclass(frozen=True)
class LbfgsRecipe(NuisanceRecipe, ObjectiveRecipe):
    """`lbfgs`."""

    iterations: int = option(
        100, integer(at_least=1), "at most; one costs an evaluation of all frames, now and then two."
    )
    memory: int = option(10, integer(at_least=1), "pairs of vectors kept.")
    amplitude_bound: float | None = option(1.0, maybe(number(above=0)), "|S| is at most this; None: no bound.")
    optimise: str = option("S", choice(*OPTIMISED), '"S", or "phase": |S| and a free s_0 stay as they are.')
    restart_every: int | None = option(
        50,
        maybe(integer(at_least=1)),
        "iterations of one run of L-BFGS-B: the next begins without the pairs of vectors, and a checkpoint is written"
        " between them; None: a single run.",
    )


class Limits(NamedTuple):
    """When L-BFGS-B ends; ``tolerance``: the relative decrease of the objective, SciPy's ftol.  memory : pairs kept."""

    iterations: int
    evaluations: int
    memory: int
    tolerance: float


class Minimum(NamedTuple):
    """Where `minimise` came to.

    x : float64, of the variables.  ended : by the callback.  failure : of the line search, or "".
    corrections : as given, or as refined.  refined : float64, of the nuisances.
    """

    x: np.ndarray
    ended: bool
    failure: str
    corrections: Corrections = NO_CORRECTIONS
    refined: np.ndarray = np.zeros(0)


class _Ended(Exception):
    """The callback asked for it."""


class Log:
    """What is kept, shown and called after every iteration.

    history : {name: list}, filled.  shown : `Progress`.  callback : as of `reconstruct`, or None.
    """

    def __init__(self, fit, shown, callback=None):
        names = ITERATION_HISTORY + (FREE_HISTORY if fit.pixels.free is not None else ())
        self.history = {name: [] for name in names}
        self.shown, self.callback, self.done = shown, callback, 0

    def __call__(self, S, loss, now, voxels):
        """After an iteration to S, whose `Evaluation` is ``now``."""
        values = loss, now.misfit_numerator / now.misfit_denominator, now.scale, voxels
        values += () if now.free is None else free_numbers(now.free)
        for name, value in zip(self.history, values, strict=True):
            self.history[name].append(float(value))
        self.done += 1
        self.shown(self.done, loss=values[0], misfit=values[1])
        if self.callback and self.callback(self.iterations, S, self.history):
            raise _Ended

    def go_on(self, history):
        """After iterations with this history, {name: (iterations,)}, which may have been those of another process."""
        self.history = {name: list(history[name]) for name in self.history}
        self.done = max(self.done, self.iterations)

    @property
    def iterations(self):
        """How many there were."""
        return len(self.history["loss"])


def minimise(
    objective, variables, priors, limits, log, corrections=NO_CORRECTIONS, name="lbfgs", nuisances=None, begin=None
):
    """Minimise an `Objective` and priors over variables by L-BFGS-B.

    SciPy's vectors are on the host: with a model on a device each evaluation uploads S and downloads its gradient.

    Parameters
    ----------
    objective : Objective
    variables : `Polar` or alike: start, bounds, S, s_0, adjoint, the support and its size; values, where priors ask
    priors : None, or `Priors` for `Cartesian` or `Preconditioned` variables, in units of the mean intensity
    limits : Limits
    log : Log
    corrections : Corrections
    name : of the public function, for errors
    nuisances : `Nuisances`, begun with ``corrections``, which move with the variables; None: corrections stay
    begin : float64, of the variables and the nuisances; None: `variables.start()`, `nuisances.start()`

    Returns `Minimum`. Raises RuntimeError where the objective is not finite at the start.
    """
    unit, latest = objective.unit, {}
    wanted = {} if nuisances is None else {"gradients": nuisances.gradients}
    x = start(variables, nuisances) if begin is None else begin
    own = len(x) - (0 if nuisances is None else nuisances.size)

    def corrected(x):
        return corrections if nuisances is None else nuisances.corrections(x[own:])

    def function(whole):
        x = whole[:own]
        now = objective.on_host(variables.S(x), variables.support, variables.s_0(x), *corrected(whole), **wanted)
        adj_c, value = now.adj_S[variables.support].astype(np.complex128) / unit, 0.0
        adj_s_0, now = now.adj_s_0, now._replace(adj_S=None, adj_s_0=None)
        if priors is not None:
            value, adj = priors.value(variables.values(x))
            adj_c = adj_c + adj
        gradient = variables.adjoint(x, adj_c, None if adj_s_0 is None else adj_s_0 / unit)
        if nuisances is not None:
            term, adj = nuisances.adjoint(whole[own:], now)
            value, gradient = value + term / unit, np.concatenate([gradient, adj / unit])
        latest.update(x=whole.copy(), now=now, loss=now.loss + unit * value)
        return now.loss / unit + value, gradient

    def record(x):
        if not np.array_equal(x, latest["x"]):
            function(x)
        log(variables.S(x[:own]), latest["loss"], latest["now"], variables.size)

    if not np.isfinite(function(x)[0]):
        cure = "; try a background > 0" if objective.fit.likelihood.name == "poisson" else ""
        raise RuntimeError(f"{name}: expected a finite loss at the start, got {latest['now'].loss}{cure}")
    options = {"maxiter": limits.iterations, "maxfun": limits.evaluations, "maxcor": limits.memory}
    options |= {"ftol": limits.tolerance, "gtol": 0.0}
    try:
        found = optimize.minimize(
            function,
            x,
            jac=True,
            method="L-BFGS-B",
            bounds=_bounds(variables, nuisances),
            callback=record,
            options=options,
        )
    except _Ended:
        return Minimum(latest["x"][:own], True, "", corrected(latest["x"]), latest["x"][own:])
    failure = f"ended after {found.nit} iterations: {found.message}" if found.status == LINE_SEARCH_FAILED else ""
    return Minimum(found.x[:own], False, failure, corrected(found.x), found.x[own:])


def start(variables, nuisances):
    """x of both, where a fit begins."""
    x = variables.start()
    return x if nuisances is None else np.concatenate([x, nuisances.start()])


def _bounds(variables, nuisances):
    """Bounds of both, or None where neither has any."""
    if nuisances is None or (variables.bounds is None and np.isinf(nuisances.low).all()):
        return variables.bounds
    free = np.full(len(variables.start()), np.inf)
    low, high = (-free, free) if variables.bounds is None else (variables.bounds.lb, variables.bounds.ub)
    return optimize.Bounds(np.append(low, nuisances.low), np.append(high, np.full(nuisances.size, np.inf)))


@with_keywords_of(LbfgsRecipe)
def lbfgs(
    model: Model,
    data: Array,
    mask: Array | None = None,
    start: Array | None = None,
    support: Array | None = None,
    *,
    recipe: LbfgsRecipe | None = None,
    angle_offsets: np.ndarray | None = None,
    flux: np.ndarray | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool | str = True,
    callback: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Result:
    """Fit the crystal function to all measured frames by L-BFGS-B (`scipy.optimize.minimize`), in a fixed support.

    Ends early where the objective no longer falls; a UserWarning tells where the line search failed, as it does at the
    rounding of complex64.

    Parameters
    ----------
    model, data, mask, start, support : as in `reconstruct`
        ``start`` may be the S of one, to be polished.
    recipe : `LbfgsRecipe`, or None; keywords replace its fields
    angle_offsets, flux : (n_frames,) as in a `Result`; None: 0, 1
        Held fixed, or where refinement begins.
    checkpoint : path of an HDF5 file, written every ``restart_every`` iterations and at the end
    resume : iterations of the checkpoint, which must be of the same data, model, start and recipe, are not done again
        The result is that of a run that was not interrupted, to the bit.
    progress, callback : as in `reconstruct`, called after every iteration

    Returns
    -------
    Result
        With a history per iteration.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    RuntimeError
        Where the objective is not finite at the start.
    """
    recipe = from_keywords(LbfgsRecipe, recipe, keywords, "lbfgs")
    corrections = Corrections.checked(model, angle_offsets, flux)
    objective = Objective.of(measured(model, data, mask, recipe), recipe)
    S, support = initial(model, start, support, recipe.amplitude_bound)
    with kept_steps(objective.fit, "lbfgs", recipe, S, support, corrections, checkpoint, resume) as steps:
        return _fit(objective, S, support, recipe, corrections, steps, progress, callback)


@contextlib.contextmanager
def kept_steps(fit, maker, recipe, S, support, corrections, checkpoint, resume):
    """The `Steps` of a fit ``maker`` from S and support, in a checkpoint that is its own while the block runs.

    ValueError names what is not that of the fit in the checkpoint.
    """
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")
    ranks = fit.model.ranks
    known = {f"start ({name})": value for name, value in corrections._asdict().items()}
    known |= {START: S, "support": support, "dtype": str(fit.model.dtype)}
    ranks.refuse_different(fields_of(recipe) | known)
    with checkpoint_file.claimed(checkpoint, resume, ranks):
        steps = Steps(checkpoint, resume, maker, ranks)
        if steps.kept:
            steps.sign(signature_of(fit.model, fit.data, fit.pixels.known, recipe, **known))
        yield steps


def _fit(objective, S, support, recipe, corrections, steps, progress, callback):
    """`lbfgs` of an `Objective` from S and support, in runs of which each is one of the `Steps`."""
    variables = Polar(S, support, recipe, objective.density == "free")
    nuisances = None
    if recipe.refines:
        nuisances = Nuisances(recipe, objective.whole, corrections, len(variables.start()))
    title = progress if isinstance(progress, str) else "lbfgs"
    with Progress(title, recipe.iterations, "iteration", show=bool(objective.model.ranks.shown(progress))) as shown:
        log = Log(objective.fit, shown, callback)
        run = _Run(objective, variables, recipe, corrections, nuisances, log)
        x, names, ended = start(variables, nuisances), [], False
        while not ended and log.iterations < recipe.iterations:
            names.append(f"iterations from {log.iterations + 1}")
            x, ended, failure = run.once(steps, names[-1], x)
            steps.forget(names[:-1])
    if failure:
        warnings.warn(f"lbfgs: {failure}", stacklevel=3)

    own = len(variables.start())
    S, s_0 = variables.S(x[:own]), variables.s_0(x[:own])
    if nuisances is not None:
        corrections = nuisances.corrections(x[own:])
    return finish(objective, S, support, log.history, log.iterations, recipe.seed, s_0, *corrections)


class _Run(NamedTuple):
    """Runs of L-BFGS-B over the same variables."""

    objective: Objective
    variables: Any
    recipe: LbfgsRecipe
    corrections: Corrections
    nuisances: Nuisances | None
    log: Log

    def once(self, steps, name, x):
        """(x, whether it is the end, failure of the line search or "") of the run from x, as a step ``name``."""

        def compute(_):
            found, whole = self._from(x)
            history = {name: np.array(values) for name, values in self.log.history.items()}
            x_found = np.concatenate([found.x, found.refined])
            return {"x": x_found, "ended": not whole, "failure": found.failure, "history": history}

        found = steps.once(name, compute)
        self.log.go_on(found["history"])
        x = checks.array("checkpoint (x)", found["x"], x.shape, np.float64) if "x" in found else x
        return x, bool(found["ended"]), found["failure"]

    def _from(self, x):
        """The `Minimum` of a run from x, and whether it did all its iterations."""
        recipe, done = self.recipe, self.log.iterations
        count = min(recipe.restart_every or recipe.iterations, recipe.iterations - done)
        limits = Limits(count, 20 * count, recipe.memory, 1e-12)
        given = self.objective, self.variables, None, limits, self.log, self.corrections, "lbfgs", self.nuisances
        found = minimise(*given, begin=x)
        return found, not found.ended and not found.failure and self.log.iterations == done + count


class Polar:
    """What L-BFGS-B moves, float64: u of (1), then a unless the phase alone is free, then s_0 where it is free.

    Of the support's voxels only. With a free phase alone a free s_0 stays as it was.
    """

    def __init__(self, S, support, recipe, free_density):
        self.begin, self.support, self.size = S, support, int(np.count_nonzero(support))
        self.u = np.angle(S[support]).astype(np.float64)
        self.a = np.abs(S[support]).astype(np.float64)
        self.phase_only, self.free_density = recipe.optimise == "phase", free_density
        self.bounds = optimize.Bounds(*self._bounds(recipe.amplitude_bound))

    def start(self):
        """x at S."""
        return np.concatenate([self.u, *[self.a] * (self._count() - 1)])

    def _bounds(self, bound):
        """(lowest, highest) values, a in [-bound, bound], s_0 in [0, bound]; None: as far as they like."""
        bound, count = np.inf if bound is None else bound, self._count()
        low, high = (-np.inf, -bound, 0), (np.inf, bound, bound)
        return np.repeat(low[:count], self.size), np.repeat(high[:count], self.size)

    def S(self, x):
        """Equation (1), complex (nz, ny, nx)."""
        S = np.zeros_like(self.begin)
        S[self.support] = self._a(x) * np.exp(1j * x[: self.size])
        return S

    def s_0(self, x):
        """The density, real (nz, ny, nx), or None: not free."""
        if not self.free_density:
            return None
        s_0 = np.abs(self.begin)
        if not self.phase_only:
            s_0[self.support] = x[2 * self.size :]
        return s_0

    def adjoint(self, x, adj_c, adj_s_0):
        """Equation (2) of the gradients with respect to S of the support's voxels, complex128, and to `s_0`."""
        wave = np.exp(1j * x[: self.size])
        parts = [(adj_c * np.conj(self._a(x) * wave)).imag]
        if not self.phase_only:
            parts.append((np.conj(adj_c) * wave).real)
            if self.free_density:
                parts.append(adj_s_0[self.support].astype(np.float64))
        return np.concatenate(parts)

    def _a(self, x):
        return self.a if self.phase_only else x[self.size : 2 * self.size]

    def _count(self):
        return 1 if self.phase_only else 2 + self.free_density


class Cartesian:
    """What L-BFGS-B moves: Re S and Im S of the support's voxels in turn, float64."""

    bounds = None

    def __init__(self, S, support):
        self.begin, self.support, self.size = S, support, int(np.count_nonzero(support))

    def start(self):
        """x at S."""
        return self.begin[self.support].astype(np.complex128).view(np.float64)

    def values(self, x):
        """S of the support's voxels, complex128."""
        return x.view(np.complex128)

    def S(self, x):
        """S, complex (nz, ny, nx)."""
        S = np.zeros_like(self.begin)
        S[self.support] = self.values(x)
        return S

    def s_0(self, x):
        """The density is not free."""
        return None

    def adjoint(self, x, adj_c, adj_s_0):
        """Of the gradient with respect to `values`."""
        return adj_c.view(np.float64)
