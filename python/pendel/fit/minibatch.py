"""Reconstruction of the crystal function through the dynamical model: minibatch Adam under physical bounds.

The loss knows neither the crystal's place in the box nor, without help, its size. What makes a flat start arrive:
|S| <= 1 (a dynamical amplitude is absolute, chi_h is known), a support that shrinks to the crystal, and a crystal that
is kept in the middle of its support. The intensity scale is the best one of every group of frames, in closed form but
for Poisson counts on a background.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..base import checks
from ..base.arrays import host, module
from ..base.progress import Progress
from ..base.recipe import choice, flag, from_keywords, integer, maybe, number, option, with_keywords_of
from ..kinematic.support import recentre, shrink_wrap
from ..model.model import Model
from ..operator.engine import Array
from . import checkpoint as checkpoints
from . import checkpoint_file, kernels
from .adam import Adam
from .checkpoint import HISTORY, Run
from .checkpoint_file import fields_of
from .corrections import Corrections
from .objective import Objective, ObjectiveRecipe, bounded, initial, measured
from .refinement import Angles, Flux
from .result import FREE_HISTORY, Result, finish, free_numbers

OPTIMISED = ("S", "phase")
SCHEDULES = ("cosine", "plateau", "constant")
LOWEST_RATE = 32  # "plateau" halves the rate until it is this part of the first
PLATEAU = 1e-3  # relative: a loss has to fall by so much to count as better


def check_schedule(name, value):
    """Check of a schedule: one of SCHEDULES, or (epoch, rate) pairs, which come back sorted."""
    if isinstance(value, str):
        return checks.choice(name, value, SCHEDULES)
    try:
        pairs = []
        if len(value) == 0:
            raise ValueError
        for epoch, rate in value:
            pairs.append((checks.integer(name, epoch, at_least=0), checks.number(name, rate, above=0)))
    except (TypeError, ValueError) as error:
        expected = "'cosine', 'plateau', 'constant' or (epoch, rate) pairs"
        raise type(error)(f"{name}: expected {expected}, got {value!r}") from None
    return tuple(sorted(pairs))


def check_blur(name, value):
    """Check of the standard deviation of a blur: a number >= 0, or one for each of three axes."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return checks.number(name, value, at_least=0)
    if len(value) != 3:
        raise ValueError(f"{name}: expected a number or 3 of them, got {len(value)}")
    return tuple(checks.number(f"{name}[{i}]", v, at_least=0) for i, v in enumerate(value))


@dataclass(frozen=True)
class MinibatchRecipe(ObjectiveRecipe):
    """Minibatch Adam, see `reconstruct`."""

    epochs: int = option(600, integer(at_least=1), "every epoch visits all frames once.")
    batches: int = option(5, integer(at_least=1), "random groups of frames in an epoch, one Adam step each.")
    learning_rate: float = option(0.15, number(above=0), "Adam's rate, in units of |S|.")
    schedule: str | tuple = option(
        "cosine",
        check_schedule,
        '"cosine" (down to 1/100 of the rate over the epochs), "plateau" (halve the rate when the best loss is'
        ' `patience` epochs old, down to 1/32), "constant", or (epoch, rate) pairs: the rate from that epoch on.',
    )
    patience: int = option(15, integer(at_least=1), 'epochs, of "plateau".')
    amplitude_bound: float | None = option(
        1.0, maybe(number(above=0)), "|S| is projected to at most this after every step; None: no bound."
    )
    optimise: str = option(
        "S",
        choice(*OPTIMISED),
        '"S", amplitude and phase; or "phase": |S| keeps its values, and s_0 and the support with it; all may still be'
        " moved to the middle of the box.",
    )
    phase_only_epochs: int = option(0, integer(at_least=0), 'so many epochs as with optimise="phase" first.')
    shrink_wrap_every: int = option(
        10,
        integer(at_least=0),
        "epochs between new supports (0: never), see `shrink_wrap`; none in the last tenth of the epochs.",
    )
    shrink_wrap_threshold: float = option(0.15, number(above=0, at_most=1), "of the largest blurred |S|.")
    shrink_wrap_sigma: float | tuple = option(1.0, check_blur, "of the blur, voxels, one value or (z, y, x).")
    recentre_every: int | None = option(
        None,
        maybe(integer(at_least=0)),
        "epochs between moves of the crystal to the middle of its box (0: never); None: as shrink_wrap_every.",
    )
    refine_angles: bool = option(
        False, flag, "refine each frame's rocking angle (`pendel.fit.refinement`), with data in counts."
    )
    angle_spread: float = option(0.3, number(above=0), "expected rms of the angles' offsets, in steps of the scan.")
    refine_intensities: bool = option(
        False, flag, "refine each frame's incident intensity (`pendel.fit.refinement`), with data in counts."
    )
    intensity_spread: float = option(0.1, number(above=0), "expected relative rms of the incident intensity.")
    refine_after: int | None = option(
        None,
        maybe(integer(at_least=0)),
        "first epoch of refinement; None: after a quarter of the epochs. An early S fits no angle.",
    )
    checkpoint_every: int = option(20, integer(at_least=1), "epochs between checkpoints.")

    @property
    def phases_first(self) -> int:
        """Epochs in which |S| stays as it is."""
        return self.epochs if self.optimise == "phase" else self.phase_only_epochs

    def is_due(self, every: int, epoch: int) -> bool:
        """Whether what happens ``every`` so many epochs happens after this one: not in the last tenth of them.

        Parameters
        ----------
        every : int, epochs
        epoch : int, from 0

        Returns
        -------
        bool
        """
        return bool(every) and epoch % every == 0 and not epoch > 0.9 * self.epochs

    @property
    def moves_every(self) -> int:
        """Epochs between moves of the crystal to the middle of its box."""
        return self.shrink_wrap_every if self.recentre_every is None else self.recentre_every

    @property
    def first_refined(self) -> int:
        """The first epoch of refinement."""
        return self.epochs // 4 if self.refine_after is None else self.refine_after

    def same_until(self, done: int, epochs: int) -> bool:
        """Whether the first ``done`` epochs of a run of ``epochs`` are those of one with this recipe, else the same.

        Parameters
        ----------
        done : int
        epochs : int

        Returns
        -------
        bool
        """
        other = self.but(epochs=epochs)
        if epochs == self.epochs:
            return True
        if done > self.epochs or (self.schedule == "cosine" and done):
            return False
        refined = [min(recipe.first_refined, done) for recipe in (self, other)]
        if (self.refine_angles or self.refine_intensities) and refined[0] != refined[1]:
            return False
        every = self.moves_every, self.shrink_wrap_every
        return all(self.is_due(n, e) == other.is_due(n, e) for n in every for e in range(1, done + 1))


class Refinements(NamedTuple):
    """What is refined beside S, or None."""

    angles: Angles | None = None
    flux: Flux | None = None


@with_keywords_of(MinibatchRecipe)
def reconstruct(
    model: Model,
    data: Array,
    mask: Array | None = None,
    start: Array | None = None,
    support: Array | None = None,
    *,
    recipe: MinibatchRecipe | None = None,
    flux: np.ndarray | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool | str = True,
    callback: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Result:
    """Fit the crystal function to measured frames by minibatch Adam.

    With a model on a device data, mask, start and support may be NumPy's or CuPy's; they are uploaded once, before the
    first epoch, and everything in the loop stays on the device: of an epoch a few numbers are read, once, of a new
    support or place a few more. Random groups are those of the CPU. `callback` gets S as CuPy's; the `Result` and
    checkpoints hold NumPy arrays, so that either kind of model resumes from them.

    Recipe after Wu et al., arXiv 2506.15939, with the amplitude bound, closed-form scale and recentring added.

    Parameters
    ----------
    model : Model
    data : (n_frames, rows, cols) intensities
    mask : bool, True = good pixel, as in `Model.fit`
    start : complex (nz, ny, nx), or `KinematicResult` of the data, or None: flat, half of the bound inside the support
    support : bool (nz, ny, nx), or None: where ``start`` is not 0, else an ellipsoid that fills 0.8 of the box
    recipe : `MinibatchRecipe`, or None; keywords replace its fields
    flux : (n_frames,) known relative incident intensity, of a monitor, about which it is refined; None: 1
    checkpoint : path of an HDF5 file written every ``checkpoint_every`` epochs, at the end, and on Ctrl-C
    resume : go on from the checkpoint, which must be of the same data, model and recipe
        To the same bits as an uninterrupted run; start and support are those of the checkpoint. ``epochs`` may be
        others where what is done does not depend on their number, as with schedule "constant".
    progress : True, or a title, for a bar on a terminal and lines in a log; False for silence
    callback : called as callback(epoch, S, history) after every epoch; True ends the run

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    RuntimeError
        Where the loss is no number.
    """
    recipe = from_keywords(MinibatchRecipe, recipe, keywords, "reconstruct")
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")
    monitor = Corrections.checked(model, None, flux).flux
    objective, ranks = Objective.of(measured(model, data, mask, recipe), recipe, monitor), model.ranks
    with checkpoint_file.claimed(checkpoint, resume, ranks):
        files = Files(checkpoint, ranks.from_first(lambda: resume and checkpoint_file.exists(checkpoint)))
        if not files.resume:
            start, support = initial(model, start, support, recipe.amplitude_bound)
        own = {"flux": monitor} | ({} if files.resume else {"start": start, "support": support})
        ranks.refuse_different(fields_of(recipe) | own)
        return fit_minibatches(objective, start, support, recipe, files, progress, callback)


class Files(NamedTuple):
    """The checkpoint of a run, or None, and whether there is one to go on from."""

    checkpoint: str | os.PathLike | None = None
    resume: bool = False


NO_FILES = Files()


class _Saver:
    """Keeps the checkpoint of a run: every so many epochs, at the end, and where the run is interrupted.

    Of several ranks the first one writes; the others learn whether it could.
    """

    def __init__(self, path, signature, recipe, ranks):
        self.path, self.signature, self.recipe, self.ranks = path, signature, recipe, ranks
        self.whole = None  # copy of the run after its last whole epoch, not yet written

    def __call__(self, run):
        """After an epoch."""
        if self.path is None:
            return
        if run.epoch % self.recipe.checkpoint_every == 0 or run.epoch == self.recipe.epochs:
            self.ranks.from_first(lambda: self._save(run))
        elif self.ranks.first:
            self.whole = run.copied()

    def _save(self, run):
        checkpoints.save(self.path, run, self.signature, self.recipe.epochs)
        self.whole = None

    @contextlib.contextmanager
    def kept_if_interrupted(self):
        """In the block Ctrl-C, and signals that count as such, leave the last whole epoch in the checkpoint."""
        try:
            yield
        except KeyboardInterrupt:
            if self.whole is not None:
                self._save(self.whole)
            raise


def fit_minibatches(objective, S, support, recipe, files=NO_FILES, progress=True, callback=None):
    """`reconstruct` of an `Objective` from S, within support and bound, and support; NumPy arrays of the model's dtype.

    What has a checkpoint to go on from takes S and support from there.
    """
    model = objective.model
    with model.engine.here():
        refinements = _refinements(objective, recipe)
        signature = checkpoints.signature(objective, recipe) if files.checkpoint else {}
        if files.resume:
            run = checkpoints.load(files.checkpoint, model, signature, recipe)
        else:
            run = _begin(objective, S, support, recipe)
        saver = _Saver(files.checkpoint, signature, recipe, model.ranks)
        if recipe.phases_first and "phase" not in run.adams:
            run.adams["phase"] = Adam.zeros(model.shape, run.S.real.dtype, model.engine.xp)

        title = progress if isinstance(progress, str) else "reconstruct"
        shown = Progress(title, recipe.epochs, "epoch", done=run.epoch, show=bool(model.ranks.shown(progress)))
        with shown, saver.kept_if_interrupted():
            while run.epoch < recipe.epochs:
                run.rate = _scheduled(recipe, run)
                _epoch(run, objective, recipe, refinements)
                _keep_in_place(run, recipe)
                shown(run.epoch, loss=run.history["loss"][-1], misfit=run.history["misfit"][-1])
                saver(run)
                if callback and callback(run.epoch, run.S, run.history):
                    break
        S, support, s_0, angle_offsets, flux = (
            host(a) for a in (run.S, run.support, run.s_0, run.angle_offsets, run.flux)
        )
        run.adams.clear()  # the last evaluation, of all frames, needs their memory more
        return finish(objective, S, support, run.history, run.epoch, recipe.seed, s_0, angle_offsets, flux)


def _refinements(objective, recipe):
    experiment, fit, upload = objective.model.experiment, objective.fit, objective.engine.upload
    angles = flux = None
    if recipe.refine_angles:
        angles = Angles(experiment, fit.pixels, fit.likelihood.nats, recipe.angle_spread, upload)
    if recipe.refine_intensities:
        flux = Flux(experiment, fit.pixels, fit.likelihood, recipe.intensity_spread, upload, fit.weights)
    return Refinements(angles, flux)


def _begin(objective, S, support, recipe):
    model, xp = objective.model, objective.engine.xp
    S, support = (xp.asarray(a) for a in (S, support))
    adams = {"S": Adam.zeros(model.shape, model.dtype, xp)}
    run = Run(S, support, adams, np.random.default_rng(recipe.seed), recipe.learning_rate)
    if objective.density == "free":
        run.s_0 = xp.abs(S)
        run.adams["s_0"] = Adam.zeros(model.shape, run.s_0.dtype, xp)
    if recipe.refine_angles:
        run.angle_offsets = xp.zeros(model.n_frames)
    if recipe.refine_intensities:
        run.flux = xp.ones(model.n_frames)
    if objective.fit.pixels.free is not None:
        run.history |= {name: [] for name in FREE_HISTORY}
    return run


def _epoch(run, objective, recipe, refinements):
    """One pass over all frames; the recorded loss is the mean over its groups, each before its step."""
    n_frames = objective.model.n_frames
    weights, numbers = [], []
    order = run.rng.permutation(n_frames)
    for frames in np.array_split(order, min(recipe.batches, n_frames)):
        frames = np.sort(frames)
        now = objective.evaluate(run.S, run.support, frames, run.s_0, run.angle_offsets, run.flux)
        _step(run, now, recipe)
        _refine(run, now, frames, recipe, refinements)
        weights.append(len(frames))
        numbers += [now.loss, now.scale, now.misfit_numerator, now.misfit_denominator]
        numbers += () if now.free is None else list(now.free)

    if refinements.angles is not None:
        refinements.angles.fix(run.angle_offsets)
    if refinements.flux is not None:
        refinements.flux.fix(run.flux)
    run.epoch += 1
    _record(run, weights, numbers, objective.fit.likelihood.name)


def _refine(run, now, frames, recipe, refinements):
    """One step of angles and intensities of the frames of a group."""
    if run.epoch < recipe.first_refined:
        return
    if refinements.angles is not None:
        refinements.angles.update(run.angle_offsets, frames, now.adj_dq)
    if refinements.flux is not None:
        refinements.flux.update(run.flux, frames, now.sums, now.scale)


def _record(run, weights, numbers, likelihood):
    """Write the epoch's ``numbers`` of its groups of ``weights`` frames into the history."""
    # all that a device is asked for in an epoch
    *numbers, voxels = host(module(run.S).stack([*numbers, run.support.sum(dtype=np.float64)]))
    losses, scales, *sums = np.reshape(numbers, (len(weights), -1)).T
    misfit, free = (np.add.accumulate(np.stack(s, axis=1))[-1] if s else np.zeros(0) for s in (sums[:2], sums[2:]))
    loss = float(np.average(losses, weights=weights))
    if not np.isfinite(loss):
        cure = "a smaller learning_rate" + (" or a background > 0" if likelihood == "poisson" else "")
        raise RuntimeError(f"reconstruct: the loss became {loss} in epoch {run.epoch}; try {cure}")

    run.waited += 1
    if loss < run.best * (1 - PLATEAU):
        run.best, run.waited = loss, 0
    scale = np.average(scales, weights=weights)
    values = dict(zip(HISTORY, (loss, misfit[0] / misfit[1], run.rate, scale, voxels), strict=True))
    if len(free):
        values |= zip(FREE_HISTORY, free_numbers(free), strict=True)
    for name, value in values.items():
        run.history[name].append(float(value))


def _step(run, now, recipe):
    """One step of what is optimised, against the gradients of an evaluation."""
    xp, rate, bound = module(run.S), run.S.real.dtype.type(run.rate), recipe.amplitude_bound
    if run.epoch < recipe.phases_first:
        # S = |S| exp(i u): dL/du = Re(conj(adj_S) i S)
        u = run.adams["phase"].direction((now.adj_S * xp.conj(run.S)).imag) * rate
        run.S = bounded(run.S * xp.exp(-1j * u), bound)
        return
    direction = run.adams["S"].direction(now.adj_S)
    if xp is np:
        run.S = bounded(np.where(run.support, run.S - rate * direction, 0), bound)
    else:
        run.S = kernels.step(run.S, direction, run.support, rate, bound)
    if run.s_0 is not None:
        moved = run.s_0 - run.adams["s_0"].direction(now.adj_s_0) * rate
        run.s_0 = xp.where(run.support, xp.clip(moved, 0, bound), 0)


def _keep_in_place(run, recipe):
    """After an epoch: the crystal in the middle of its box, and a new support, where they are due."""
    if recipe.is_due(recipe.moves_every, run.epoch):
        _recentre(run)
    # the support of a given amplitude is given too
    if run.epoch > recipe.phases_first and recipe.is_due(recipe.shrink_wrap_every, run.epoch):
        _shrink(run, recipe.shrink_wrap_threshold, recipe.shrink_wrap_sigma)


def _recentre(run):
    moments = [moment for adam in run.adams.values() for moment in (adam.m, adam.v)]
    densities = [] if run.s_0 is None else [run.s_0]
    run.S, run.support, *moved, _ = recentre(run.S, run.support, *moments, *densities)
    if run.s_0 is not None:
        run.s_0 = moved.pop()
    for i, adam in enumerate(run.adams.values()):
        adam.m, adam.v = moved[2 * i : 2 * i + 2]


def _shrink(run, threshold, sigma):
    support = shrink_wrap(run.S, threshold, sigma)
    if support.any():
        run.support = support
        moments = [moment for adam in run.adams.values() for moment in (adam.m, adam.v)]
        for array in (run.S, *([] if run.s_0 is None else [run.s_0]), *moments):
            array[~support] = 0


def _scheduled(recipe, run):
    """The rate of the next epoch."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        return rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * run.epoch / recipe.epochs)))
    if recipe.schedule == "constant":
        return rate
    if recipe.schedule == "plateau":
        if run.waited >= recipe.patience and run.rate > rate / LOWEST_RATE:
            run.waited, run.best = 0, run.history["loss"][-1]
            return run.rate / 2
        return run.rate
    return next((r for e, r in reversed(recipe.schedule) if run.epoch >= e), rate)
