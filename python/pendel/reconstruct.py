"""Reconstruction of the crystal function through the dynamical model: minibatch Adam under physical bounds.

The loss knows neither the crystal's place in the box nor, without help, its size. What makes a flat start arrive:
|S| <= 1 (a dynamical amplitude is absolute, chi_h is known), a support that shrinks to the crystal, and a crystal that
is kept in the middle of its support. The intensity scale is the closed-form best one of every group of frames.
"""

import contextlib
import os
from dataclasses import dataclass, field

import h5py
import numpy as np

from . import _checks, _cxi
from .compare import strain as strain_along_h
from .progress import Progress
from .support import recentre, shrink_wrap

HISTORY = ("loss", "misfit", "learning_rate", "scale", "support")


@dataclass
class Result:
    """What a reconstruction gives.

    S : complex (nz, ny, nx) crystal function.  support : bool (nz, ny, nx).  scale : measured over computed intensity.
    misfit : sum (sqrt(scale D) - sqrt I)^2 / sum I over all frames at the end.
    history : dict of float arrays (epochs,): loss, misfit, learning_rate, scale, support (voxels).
    voxel : (dz, dy, dx) m.  h : (x, y, z) rad/m, model frame.  epochs : epochs done.  seed : int.
    """

    S: np.ndarray
    support: np.ndarray
    scale: float
    misfit: float
    history: dict
    voxel: tuple
    h: np.ndarray
    epochs: int
    seed: int

    @property
    def loss(self):
        """Loss of every epoch, float (epochs,)."""
        return self.history["loss"]

    @property
    def amplitude(self):
        """|S|, float (nz, ny, nx)."""
        return np.abs(self.S)

    @property
    def phase(self):
        """arg S = -h.u in rad, float (nz, ny, nx), about its mean over the support; 0 outside."""
        mean = self.S[self.support].sum()
        phase = np.angle(self.S * np.conj(mean / abs(mean)) if mean != 0 else self.S)
        return np.where(self.support, phase, 0)

    @property
    def displacement(self):
        """u.h^ = -phase / |h| in m, float (nz, ny, nx), about its mean; 0 outside the support."""
        return -self.phase / np.linalg.norm(self.h)

    @property
    def strain(self):
        """d(u.h^)/d(h^), float (nz, ny, nx), by central differences inside the support, 0 elsewhere."""
        return strain_along_h(np.where(self.support, self.S, 0), self.voxel, self.h)[0]


@dataclass
class _Adam:
    """Adam (Kingma & Ba 2015) on one complex array; the second moment is |g|^2, blind to the global phase."""

    m: np.ndarray
    v: np.ndarray
    steps: int = 0
    beta_1: float = 0.9
    beta_2: float = 0.99

    def direction(self, gradient):
        self.steps += 1
        self.m += (1 - self.beta_1) * (gradient - self.m)
        self.v += (1 - self.beta_2) * (gradient.real**2 + gradient.imag**2 - self.v)
        m = self.m / (1 - self.beta_1**self.steps)
        v = np.sqrt(self.v / (1 - self.beta_2**self.steps))
        return m / np.maximum(v, np.finfo(v.dtype).tiny ** 0.5)


@dataclass
class _Run:
    """All that changes during a run; what a checkpoint holds."""

    S: np.ndarray
    support: np.ndarray
    adam: _Adam
    rng: np.random.Generator
    rate: float
    epoch: int = 0
    waited: int = 0
    best: float = np.inf
    history: dict = field(default_factory=lambda: {name: [] for name in HISTORY})


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
    amplitude_bound=1.0,
    shrink_wrap_every=10,
    shrink_wrap_threshold=0.15,
    shrink_wrap_sigma=1.0,
    recentre_every=None,
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
    amplitude_bound : |S| is projected to at most this after every step; None: no bound.
    shrink_wrap_every, shrink_wrap_threshold, shrink_wrap_sigma : new support every so many epochs (0: never), see
        `pendel.support.shrink_wrap`; none in the last tenth of the epochs.
    recentre_every : epochs between moves of the crystal to the middle of its box; None: as shrink_wrap_every.
    seed : of the random groups.
    checkpoint : path of an HDF5 file written every `checkpoint_every` epochs; with ``resume=True`` a run goes on from
        it to the same bits as an uninterrupted one.
    progress : True, or a title, for a bar on a terminal and lines in a log; False for silence.
    callback : called as callback(epoch, S, history) after every epoch; True ends the run.

    Returns `Result`. Raises TypeError or ValueError naming the argument. Loss: `pendel.loss`; recipe after Wu et al.,
    arXiv 2506.15939, with the amplitude bound, closed-form scale and recentring added.
    """
    epochs = _checks.integer("epochs", epochs, at_least=1)
    batches = min(_checks.integer("batches", batches, at_least=1), model.n_frames)
    rate = _checks.number("learning_rate", learning_rate, above=0)
    schedule = _check_schedule(schedule)
    patience = _checks.integer("patience", patience, at_least=1)
    if amplitude_bound is not None:
        amplitude_bound = _checks.number("amplitude_bound", amplitude_bound, above=0)
    shrink_wrap_every = _checks.integer("shrink_wrap_every", shrink_wrap_every, at_least=0)
    if recentre_every is None:
        recentre_every = shrink_wrap_every
    recentre_every = _checks.integer("recentre_every", recentre_every, at_least=0)
    seed = _checks.integer("seed", seed, at_least=0)
    checkpoint_every = _checks.integer("checkpoint_every", checkpoint_every, at_least=1)
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")

    if resume and os.path.exists(checkpoint):
        run = _load(checkpoint, model, seed)
    else:
        run = _begin(model, start, support, amplitude_bound, rate, seed)
    title = progress if isinstance(progress, str) else "reconstruct"
    with Progress(title, epochs, "epoch", done=run.epoch, show=bool(progress)) as shown:
        while run.epoch < epochs:
            run.rate = _scheduled(schedule, run, rate, patience, epochs)
            _epoch(run, model, data, mask, batches, amplitude_bound)
            last_tenth = run.epoch > 0.9 * epochs
            if recentre_every and run.epoch % recentre_every == 0 and not last_tenth:
                run.S, run.adam.m, run.adam.v, run.support, _ = recentre(run.S, run.adam.m, run.adam.v, run.support)
            if shrink_wrap_every and run.epoch % shrink_wrap_every == 0 and not last_tenth:
                _shrink(run, shrink_wrap_threshold, shrink_wrap_sigma)
            shown(run.epoch, loss=run.history["loss"][-1], misfit=run.history["misfit"][-1])
            if checkpoint and (run.epoch % checkpoint_every == 0 or run.epoch == epochs):
                _save(checkpoint, run, seed)
            if callback and callback(run.epoch, run.S, run.history):
                break
    final = model.evaluate(run.S, data, mask, scale=None, support=run.support)
    return Result(
        S=run.S,
        support=run.support,
        scale=final.scale,
        misfit=final.misfit_numerator / final.misfit_denominator,
        history={name: np.array(values) for name, values in run.history.items()},
        voxel=model.voxel,
        h=model.experiment.frame @ model.experiment.h,
        epochs=run.epoch,
        seed=seed,
    )


def _begin(model, start, support, amplitude_bound, rate, seed):
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
    S = _bounded(np.where(support, start, 0).astype(dtype), amplitude_bound)
    adam = _Adam(np.zeros(shape, dtype), np.zeros(shape, S.real.dtype))
    return _Run(S, support, adam, np.random.default_rng(seed), rate)


def _epoch(run, model, data, mask, batches, amplitude_bound):
    """One pass over all frames; the recorded loss is the mean over its groups, each before its step."""
    losses, weights, scales, misfit = [], [], [], np.zeros(2)
    order = run.rng.permutation(model.n_frames)
    for frames in np.array_split(order, batches):
        frames = np.sort(frames)
        now = model.evaluate(run.S, data, mask, frames, scale=None, support=run.support)
        step = run.S.real.dtype.type(run.rate) * run.adam.direction(now.adj_S)
        run.S = _bounded(np.where(run.support, run.S - step, 0), amplitude_bound)
        losses.append(now.loss), weights.append(len(frames)), scales.append(now.scale)
        misfit += now.misfit_numerator, now.misfit_denominator
    run.epoch += 1
    loss = float(np.average(losses, weights=weights))
    if not np.isfinite(loss):
        raise RuntimeError(f"reconstruct: the loss became {loss} in epoch {run.epoch}; try a smaller learning_rate")
    run.waited += 1
    if loss < run.best * (1 - 1e-3):
        run.best, run.waited = loss, 0
    values = (loss, misfit[0] / misfit[1], run.rate, np.average(scales, weights=weights), run.support.sum())
    for name, value in zip(HISTORY, values, strict=True):
        run.history[name].append(float(value))


def _bounded(S, bound):
    if bound is None:
        return S
    return S / np.maximum(np.abs(S) / S.real.dtype.type(bound), 1)


def _shrink(run, threshold, sigma):
    support = shrink_wrap(run.S, threshold, sigma)
    if support.any():
        run.support = support
        for array in (run.S, run.adam.m, run.adam.v):
            array[~support] = 0


def _check_schedule(schedule):
    if isinstance(schedule, str):
        return _checks.choice("schedule", schedule, ("cosine", "plateau", "constant"))
    try:
        pairs = []
        for epoch, rate in schedule:
            pairs.append((_checks.integer("schedule", epoch, at_least=0), _checks.number("schedule", rate, above=0)))
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


def _save(path, run, seed):
    with _cxi.replacing(path) as file:
        file.attrs["pendel_checkpoint"] = 1
        for name, array in (("S", run.S), ("support", run.support), ("m", run.adam.m), ("v", run.adam.v)):
            file.create_dataset(name, data=array)
        for name, values in run.history.items():
            file.create_dataset(f"history/{name}", data=np.array(values))
        state = run.rng.bit_generator.state
        words = [state["state"][key] for key in ("state", "inc")]
        file.attrs["rng"] = [str(w) for w in words] + [str(state["has_uint32"]), str(state["uinteger"])]
        file.attrs["seed"], file.attrs["epoch"], file.attrs["steps"] = seed, run.epoch, run.adam.steps
        file.attrs["rate"], file.attrs["waited"], file.attrs["best"] = run.rate, run.waited, run.best


def checkpoint_shape(path):
    """(nz, ny, nx) of the crystal function in a checkpoint. Raises ValueError where ``path`` is none."""
    with _checkpoint(path) as file:
        return file["S"].shape


@contextlib.contextmanager
def _checkpoint(path):
    try:
        with h5py.File(path, "r") as file:
            if "pendel_checkpoint" not in file.attrs:
                raise ValueError("no checkpoint in it")
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint: expected a checkpoint of pendel.reconstruct, got {path}: {error}") from None


def _load(path, model, seed):
    with _checkpoint(path) as file:
        S, support, m, v = (file[name][()] for name in ("S", "support", "m", "v"))
        history = {name: list(file[f"history/{name}"][()]) for name in HISTORY}
        attributes = dict(file.attrs)
    if S.shape != model.shape or S.dtype != model.dtype:
        raise ValueError(
            f"checkpoint: expected shape {model.shape} and dtype {model.dtype}, got {S.shape} and {S.dtype} in {path}"
        )
    if int(attributes["seed"]) != seed:
        raise ValueError(f"seed: expected {int(attributes['seed'])}, that of the checkpoint {path}, got {seed}")
    rng = np.random.default_rng()
    state, inc, has_uint32, uinteger = (int(word) for word in attributes["rng"])
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": inc},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    adam = _Adam(m, v, int(attributes["steps"]))
    rate, waited, best = (float(attributes[name]) for name in ("rate", "waited", "best"))
    return _Run(S, support, adam, rng, rate, int(attributes["epoch"]), int(waited), best, history)
