"""Reconstruction of the crystal function through the dynamical model: minibatch Adam under physical bounds.

The loss knows neither the crystal's place in the box nor, without help, its size. What makes a flat start arrive:
|S| <= 1 (a dynamical amplitude is absolute, chi_h is known), a support that shrinks to the crystal, and a crystal that
is kept in the middle of its support. The intensity scale is the closed-form best one of every group of frames.
"""

import os
from typing import NamedTuple

import numpy as np

from ..base import checks
from ..base.arrays import host, module
from ..base.progress import Progress
from ..kinematic.support import recentre, shrink_wrap
from . import checkpoint as _checkpoint
from . import kernels
from .adam import Adam
from .checkpoint import FREE_HISTORY, HISTORY, Run
from .objective import Objective, bounded, initial
from .refinement import Angles, Flux, check_spread
from .result import Result

OPTIMISED = ("S", "phase")


class _Options(NamedTuple):
    """What `_epoch` needs of the arguments; angles, flux: the refinements, or None."""

    batches: int
    amplitude_bound: float | None
    phase_only_epochs: int
    refine_after: int
    angles: Angles | None
    flux: Flux | None


def reconstruct(
    model,
    data,
    mask=None,
    start=None,
    support=None,
    *,
    epochs=600,
    batches=5,
    learning_rate=0.15,
    schedule="cosine",
    patience=15,
    likelihood="amplitude",
    background=0.0,
    s_0="tied",
    amplitude_bound=1.0,
    optimise="S",
    phase_only_epochs=0,
    atv_weight=0.0,
    atv_p=2.0,
    atv_q=1.0,
    shrink_wrap_every=10,
    shrink_wrap_threshold=0.15,
    shrink_wrap_sigma=1.0,
    recentre_every=None,
    refine_angles=False,
    angle_spread=0.3,
    refine_intensities=False,
    intensity_spread=0.1,
    refine_after=None,
    free_fraction=0.0,
    seed=0,
    checkpoint=None,
    checkpoint_every=20,
    resume=False,
    progress=True,
    callback=None,
):
    """Fit the crystal function to measured frames.

    Parameters
    ----------
    model : Model.  data : (n_frames, rows, cols) intensities.  mask : bool, True = good pixel; as in `Model`.
    start : complex (nz, ny, nx) or None: flat, half of the bound inside the support.
    support : bool (nz, ny, nx) or None: where ``start`` is not 0, else an ellipsoid that fills 0.8 of the box.
    epochs, batches : every epoch visits all frames once, in `batches` random groups, one Adam step each.
    learning_rate : Adam's rate, in units of |S|.
    schedule : "cosine" (down to 1/100 of the rate over the epochs), "plateau" (halve the rate when the best loss is
        `patience` epochs old, down to 1/32), "constant", or a list of (epoch, rate): the rate from that epoch on.
    likelihood : "amplitude" (least squares of amplitudes) or "poisson", see `pendel.model.loss`; data in counts.
    background : "poisson" only: expected counts per pixel beside the crystal's, >= 0. With 0 a count where the model
        is dark is infinitely unlikely, and nearly so next to it; some 0.01 to 1 tempers that.
    s_0 : density on the diagonal. "tied": |S|. "support": 1 in the support, 0 outside, without a gradient. "free": an
        array of its own in [0, amplitude_bound], from |S| at the start, moved by Adam at the same rate.
    amplitude_bound : |S| is projected to at most this after every step; None: no bound.
    optimise : "S", amplitude and phase; or "phase": |S| stays as it is at the start, and s_0 and the support with it.
    phase_only_epochs : so many epochs as with "phase" first.
    atv_weight, atv_p, atv_q : atv_weight times the mean measured intensity times ATV (`pendel.atv`, exponents p and q,
        differences within the support) is added to the loss. The loss of an empty model is that intensity, so the
        weight has no unit: 0.01 makes a mean step |grad S| of 0.1 per voxel cost a thousandth of it (q = 1).
    shrink_wrap_every, shrink_wrap_threshold, shrink_wrap_sigma : new support every so many epochs (0: never), see
        `pendel.kinematic.support.shrink_wrap`; none in the last tenth of the epochs.
    recentre_every : epochs between moves of the crystal to the middle of its box; None: as shrink_wrap_every.
    refine_angles, angle_spread : refine each frame's rocking angle; expected rms offset, in steps of the scan.
    refine_intensities, intensity_spread : refine each frame's incident intensity; expected relative rms.
        Both: `pendel.fit.refinement`, with priors that take data for counts.
    refine_after : first epoch of refinement; None: after a quarter of the epochs. An early S fits no angle.
    free_fraction : part of the good pixels to hold out of the fit, some 0.05 (`pendel.model.pixels.free_pixels`).
        How well they are met tells a better crystal from a better fit to noise: rank runs of one seed by free_misfit.
    seed : of the random groups and of the held-out pixels.
    checkpoint : path of an HDF5 file written every `checkpoint_every` epochs; with ``resume=True`` a run goes on from
        it to the same bits as an uninterrupted one.
    progress : True, or a title, for a bar on a terminal and lines in a log; False for silence.
    callback : called as callback(epoch, S, history) after every epoch; True ends the run.

    With a model on a device data, mask, start and support may be NumPy's or CuPy's; they are uploaded once, before the
    first epoch, data as numbers of the model's precision, and everything in the loop stays on the device: of an epoch
    a few numbers are read, once, of a new support or place a few more. Random groups are those of the CPU. `callback`
    gets S as CuPy's; the `Result` and checkpoints hold NumPy arrays, so that either kind of model resumes from them.

    Returns `Result`. Raises TypeError or ValueError naming the argument. Recipe after Wu et al., arXiv 2506.15939, with
    the amplitude bound, closed-form scale and recentring added.
    """
    epochs = checks.integer("epochs", epochs, at_least=1)
    batches = min(checks.integer("batches", batches, at_least=1), model.n_frames)
    rate = checks.number("learning_rate", learning_rate, above=0)
    schedule = _check_schedule(schedule)
    patience = checks.integer("patience", patience, at_least=1)
    if amplitude_bound is not None:
        amplitude_bound = checks.number("amplitude_bound", amplitude_bound, above=0)
    shrink_wrap_every = checks.integer("shrink_wrap_every", shrink_wrap_every, at_least=0)
    if recentre_every is None:
        recentre_every = shrink_wrap_every
    recentre_every = checks.integer("recentre_every", recentre_every, at_least=0)
    seed = checks.integer("seed", seed, at_least=0)
    checkpoint_every = checks.integer("checkpoint_every", checkpoint_every, at_least=1)
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")
    phase_only_epochs = checks.integer("phase_only_epochs", phase_only_epochs, at_least=0)
    if checks.choice("optimise", optimise, OPTIMISED) == "phase":
        phase_only_epochs = epochs
    refine_after = epochs // 4 if refine_after is None else checks.integer("refine_after", refine_after, at_least=0)
    spreads = check_spread("angle_spread", angle_spread), check_spread("intensity_spread", intensity_spread)
    objective = Objective(
        model,
        data,
        mask,
        likelihood=likelihood,
        background=background,
        atv_weight=atv_weight,
        atv_p=atv_p,
        atv_q=atv_q,
        free_fraction=free_fraction,
        s_0=s_0,
        seed=seed,
    )
    given, upload = objective.likelihood, model._engine.upload
    settings = {
        "s_0": s_0,
        "likelihood": likelihood,
        "free_fraction": objective.free_fraction,
        "refine_angles": bool(refine_angles),
        "refine_intensities": bool(refine_intensities),
    }

    with model._engine.here():
        pixels = objective.pixels() if refine_angles or refine_intensities else None
        options = _Options(
            batches,
            amplitude_bound,
            phase_only_epochs,
            refine_after,
            Angles(model.experiment, pixels, given.nats, spreads[0], upload) if refine_angles else None,
            Flux(model.experiment, pixels, given, spreads[1], upload) if refine_intensities else None,
        )
        if resume and os.path.exists(checkpoint):
            run = _checkpoint.load(checkpoint, model, seed, settings)
        else:
            run = _begin(objective, start, support, options, rate, seed)
        if phase_only_epochs and "phase" not in run.adams:
            run.adams["phase"] = Adam.zeros(model.shape, run.S.real.dtype, model._engine.xp)
        title = progress if isinstance(progress, str) else "reconstruct"
        with Progress(title, epochs, "epoch", done=run.epoch, show=bool(progress)) as shown:
            while run.epoch < epochs:
                run.rate = _scheduled(schedule, run, rate, patience, epochs)
                _epoch(run, objective, options)
                last_tenth = run.epoch > 0.9 * epochs
                if recentre_every and run.epoch % recentre_every == 0 and not last_tenth:
                    _recentre(run)
                whole = run.epoch > phase_only_epochs  # the support of a given amplitude is given too
                if shrink_wrap_every and run.epoch % shrink_wrap_every == 0 and whole and not last_tenth:
                    _shrink(run, shrink_wrap_threshold, shrink_wrap_sigma)
                shown(run.epoch, loss=run.history["loss"][-1], misfit=run.history["misfit"][-1])
                if checkpoint and (run.epoch % checkpoint_every == 0 or run.epoch == epochs):
                    _checkpoint.save(checkpoint, run, seed, settings)
                if callback and callback(run.epoch, run.S, run.history):
                    break
        found = (host(a) for a in (run.S, run.support, run.s_0, run.angle_offsets, run.flux))
        S, support, *further = found
        return finish(objective, S, support, run.history, run.epoch, seed, *further)


def finish(objective, S, support, history, epochs, seed, s_0=None, angle_offsets=None, flux=None):
    """The `Result` at S, from one more evaluation of all frames; arrays are NumPy's."""
    model = objective.model
    final = objective.on_host(S, support, None, s_0, angle_offsets, flux)
    free = dict(zip(FREE_HISTORY, free_numbers(final.free), strict=True)) if final.free is not None else {}
    return Result(
        S=S,
        support=support,
        scale=final.scale,
        misfit=final.misfit_numerator / final.misfit_denominator,
        history={name: np.array(values) for name, values in history.items()},
        voxel=model.voxel,
        h=model.experiment.frame @ model.experiment.h,
        epochs=epochs,
        seed=seed,
        s_0=support.astype(S.real.dtype) if objective.density == "support" else s_0,
        angle_offsets=angle_offsets,
        flux=flux,
        background=objective.likelihood.background,
        **free,
    )


def free_numbers(sums):
    """(free_misfit, free_loss) of `Evaluation.free` sums."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else np.nan, float(sums[2] / sums[3])


def _begin(objective, start, support, options, rate, seed):
    model, xp = objective.model, objective.model._engine.xp
    S, support = (xp.asarray(a) for a in initial(model, start, support, options.amplitude_bound))
    run = Run(S, support, {"S": Adam.zeros(model.shape, model.dtype, xp)}, np.random.default_rng(seed), rate)
    if objective.density == "free":
        run.s_0 = xp.abs(S)
        run.adams["s_0"] = Adam.zeros(model.shape, run.s_0.dtype, xp)
    if options.angles is not None:
        run.angle_offsets = xp.zeros(model.n_frames)
    if options.flux is not None:
        run.flux = xp.ones(model.n_frames)
    if objective.free is not None:
        run.history |= {name: [] for name in FREE_HISTORY}
    return run


def _epoch(run, objective, options):
    """One pass over all frames; the recorded loss is the mean over its groups, each before its step."""
    weights, numbers = [], []
    order = run.rng.permutation(objective.model.n_frames)
    for frames in np.array_split(order, options.batches):
        frames = np.sort(frames)
        now = objective.evaluate(run.S, run.support, frames, run.s_0, run.angle_offsets, run.flux)
        _step(run, now, options)
        if run.epoch >= options.refine_after:
            if options.angles is not None:
                options.angles.update(run.angle_offsets, frames, now.adj_dq)
            if options.flux is not None:
                options.flux.update(run.flux, frames, now.sums, now.scale)
        weights.append(len(frames))
        numbers += [now.loss, now.scale, now.misfit_numerator, now.misfit_denominator]
        numbers += () if now.free is None else list(now.free)
    if options.angles is not None:
        options.angles.fix(run.angle_offsets)
    if options.flux is not None:
        options.flux.fix(run.flux)
    run.epoch += 1
    # all that a device is asked for in an epoch
    *numbers, voxels = host(module(run.S).stack([*numbers, run.support.sum(dtype=np.float64)]))
    losses, scales, *sums = np.reshape(numbers, (len(weights), -1)).T
    misfit, free = (np.add.accumulate(np.stack(s, axis=1))[-1] if s else np.zeros(0) for s in (sums[:2], sums[2:]))
    loss = float(np.average(losses, weights=weights))
    if not np.isfinite(loss):
        cure = "a smaller learning_rate" + (" or a background > 0" if objective.likelihood.name == "poisson" else "")
        raise RuntimeError(f"reconstruct: the loss became {loss} in epoch {run.epoch}; try {cure}")
    run.waited += 1
    if loss < run.best * (1 - 1e-3):
        run.best, run.waited = loss, 0
    values = (loss, misfit[0] / misfit[1], run.rate, np.average(scales, weights=weights), voxels)
    names = HISTORY
    if objective.free is not None:
        values, names = (*values, *free_numbers(free)), HISTORY + FREE_HISTORY
    for name, value in zip(names, values, strict=True):
        run.history[name].append(float(value))


def _step(run, now, options):
    """One step of what is optimised, against the gradients of an evaluation."""
    xp, rate, bound = module(run.S), run.S.real.dtype.type(run.rate), options.amplitude_bound
    if run.epoch < options.phase_only_epochs:
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


def _recentre(run):
    arrays = [run.support, *(moment for adam in run.adams.values() for moment in (adam.m, adam.v))]
    arrays += [] if run.s_0 is None else [run.s_0]
    run.S, run.support, *arrays, _ = recentre(run.S, *arrays)
    if run.s_0 is not None:
        run.s_0 = arrays.pop()
    for i, adam in enumerate(run.adams.values()):
        adam.m, adam.v = arrays[2 * i : 2 * i + 2]


def _shrink(run, threshold, sigma):
    support = shrink_wrap(run.S, threshold, sigma)
    if support.any():
        run.support = support
        moments = [moment for adam in run.adams.values() for moment in (adam.m, adam.v)]
        for array in (run.S, *([] if run.s_0 is None else [run.s_0]), *moments):
            array[~support] = 0


def _check_schedule(schedule):
    if isinstance(schedule, str):
        return checks.choice("schedule", schedule, ("cosine", "plateau", "constant"))
    try:
        pairs = []
        for epoch, rate in schedule:
            pairs.append((checks.integer("schedule", epoch, at_least=0), checks.number("schedule", rate, above=0)))
    except (TypeError, ValueError) as error:
        expected = "'cosine', 'plateau', 'constant' or (epoch, rate) pairs"
        raise type(error)(f"schedule: expected {expected}, got {schedule!r}") from None
    return sorted(pairs)


def _scheduled(schedule, run, rate, patience, epochs):
    if schedule == "cosine":
        return rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * run.epoch / epochs)))
    if schedule == "constant":
        return rate
    if schedule == "plateau":
        if run.waited >= patience and run.rate > rate / 32:
            run.waited, run.best = 0, run.history["loss"][-1]
            return run.rate / 2
        return run.rate
    return next((r for e, r in reversed(schedule) if run.epoch >= e), rate)
