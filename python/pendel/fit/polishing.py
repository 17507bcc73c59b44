"""The last step of a reconstruction: L-BFGS on all frames, with what keeps it from stalling short of the crystal.

Minibatch Adam finds the valley; what it leaves are slow modes and zeros of the far field on the wrong side.

(1) objective = loss/I_mean + atv_weight ATV(S) + bound_weight (1/n) sum max(|S| - bound, 0)^2
                + bulk_weight (<|S|>_bulk - bulk)^2                     n voxels of the support
                + (R(S) + U(S))/(2 counts)                              `pendel.fit.evidence`
(2) adj_S += 2 bound_weight/n max(|S| - bound, 0) S/|S|  +  2 bulk_weight (<|S|>_bulk - bulk)/n_bulk S/|S| in the bulk

The bound as a penalty keeps the objective smooth, where a projection would break the line search; the unknowns are
Re S and Im S, so that voxels near 0 move freely. The bulk: a dynamical amplitude is absolute, and the inside of a
crystal is a perfect one on average. Without it the common factor of |S|, the scale and a phase ramp nearly balance,
and total variation, which can buy a smaller |S| with a larger scale, tips that balance down to |S| = 0. Amplitudes of
single voxels stay free.

Few photons leave phase and amplitude of single voxels open, and total variation, which likes steps and wears edges
down, is a poor guess at them. With ``smoothness`` or ``uniformity`` the phase is held by its second differences and the
inside at its amplitude, as firmly as the "evidence" of the data says; the total variation is then that of |S|.

Where the modelled field has a zero on the wrong side of a pixel, the pixel holds the zero back: to cross, its
amplitude would first get worse. Each round therefore runs without the pixels missed by more than ``trim`` times the
rms residual, then with all of them.
"""

import numpy as np
from scipy import ndimage, optimize

from ..base import checks
from ..base.arrays import host
from ..base.progress import Progress
from .checkpoint import FREE_HISTORY
from .evidence import Perfection
from .minibatch import finish, free_numbers
from .objective import Objective, initial
from .total_variation import atv

HISTORY = ("loss", "misfit", "scale", "support")


def polish(
    model,
    data,
    mask=None,
    start=None,
    support=None,
    *,
    rounds=3,
    iterations=(50, 100),
    trim=1.5,
    widen=1,
    amplitude_bound=1.0,
    bound_weight=1.0,
    bulk_amplitude=1.0,
    bulk_weight=1.0,
    atv_weight=1e-5,
    smoothness=0.0,
    uniformity=0.0,
    likelihood="amplitude",
    background=0.0,
    memory=10,
    angle_offsets=None,
    flux=None,
    free_fraction=0.0,
    seed=0,
    progress=True,
    callback=None,
):
    """Fit S to all frames, equation (1), from a start in the right valley.

    Parameters
    ----------
    model, data, mask : as in `reconstruct`.
    start : complex (nz, ny, nx), or a `Result`, whose support is taken too.  support : bool, or None: start != 0.
    rounds : of two runs each, ``iterations`` = (without the missed pixels, with all).
    trim : number > 0, see above; None: no pixel is left out, and the first of the two runs is skipped.
    widen : voxels by which the support is dilated first: shrink-wrap cuts corners off, and a missing voxel costs
        more than one too many.
    amplitude_bound, bound_weight : of (1); None: no bound. Photon-limited data bear a weight of 10 and more.
    bulk_amplitude, bulk_weight : of (1), over the voxels well inside; None: no such term.
    atv_weight : in units of the mean intensity, as in `reconstruct`; `photon_weight` suggests one for counted data.
    smoothness, uniformity : of (1), for counts: inverse variances of the second differences of the phase, rad^-2, and
        of |S| inside; or "evidence": the most probable ones for what each round begins with.
    likelihood, background, angle_offsets, flux, free_fraction, seed : as in `lbfgs`.  memory : pairs of vectors kept.

    SciPy's vectors are on the host: with a model on a device each evaluation uploads S and downloads its gradient. Data
    and mask may be NumPy's or CuPy's, as in `reconstruct`.

    Returns `Result` with a history per iteration, its loss (1) times I_mean. The same bits for any number of
    ``model.threads``; the inner products of SciPy's L-BFGS-B may round differently for another number of BLAS threads
    (OMP_NUM_THREADS).
    Raises TypeError or ValueError naming the argument, RuntimeError where the objective is not finite at the start.
    """
    rounds = checks.integer("rounds", rounds, at_least=1)
    try:
        trimmed, full = iterations
    except TypeError:
        raise TypeError(f"iterations: expected a pair (without missed pixels, with all), got {iterations!r}") from None
    trimmed = checks.integer("iterations[0]", trimmed, at_least=0)
    full = checks.integer("iterations[1]", full, at_least=1)
    trim = None if trim is None else checks.number("trim", trim, above=0)
    widen = checks.integer("widen", widen, at_least=0)
    memory = checks.integer("memory", memory, at_least=1)
    precisions = [
        value if value == "evidence" else checks.number(name, value, at_least=0)
        for name, value in (("smoothness", smoothness), ("uniformity", uniformity))
    ]
    seed = checks.integer("seed", seed, at_least=0)
    if hasattr(start, "support") and support is None:
        start, support = start.S, start.support
    objective = Objective(
        model,
        data,
        mask,
        likelihood=likelihood,
        background=background,
        atv_weight=0.0 if any(precisions) else atv_weight,
        free_fraction=free_fraction,
        seed=seed,
        surface=True,  # or noise in the widened rim costs nothing
    )
    angle_offsets, flux = (
        None if value is None else checks.array(name, value, (model.n_frames,), np.float64, axes="(n_frames,)")
        for name, value in (("angle_offsets", angle_offsets), ("flux", flux))
    )
    S, support = initial(model, start, support, amplitude_bound)
    if widen:
        support = ndimage.binary_dilation(support, iterations=widen)
    priors = Priors(amplitude_bound, bound_weight, bulk_amplitude, bulk_weight)
    if any(precisions):
        atv_weight = checks.number("atv_weight", atv_weight, at_least=0)
        priors.expect_perfection(*precisions, atv_weight, objective.counts(), objective.likelihood.nats, model.voxel)
    names = HISTORY + (FREE_HISTORY if objective.free is not None else ())
    run = _Run(objective, support, priors, {name: [] for name in names}, memory, angle_offsets, flux, callback)
    per_round = full + (trimmed if trim else 0)
    title = progress if isinstance(progress, str) else "polish"
    with Progress(title, rounds * per_round, "iteration", show=bool(progress)) as run.shown:
        for done in range(rounds):
            if trim and trimmed and not run.ended:
                given = objective.mask
                objective.mask = objective.trusted(S, support, trim, angle_offsets, flux)
                S = run.minimise(S, trimmed)
                objective.mask = given
            if not run.ended:
                S = run.minimise(S, full)
            run.done = (done + 1) * per_round
    return finish(objective, S, support, run.history, len(run.history["loss"]), seed, None, angle_offsets, flux)


def photon_weight(model, data, mask=None, support=None):
    """An ``atv_weight`` for counted data: the noise of one voxel, sqrt(voxels/(4 counts)).

    data, mask : as in `polish`, counts.  support : bool (nz, ny, nx); None: half of the box.
    """
    data, mask, support = host(data), host(mask), host(support)
    counts = float(np.sum(data if mask is None else np.where(mask, data, 0), dtype=np.float64))
    voxels = np.prod(model.shape) / 2 if support is None else np.count_nonzero(support)
    if not counts > 0:
        raise ValueError("data: expected some counts on good pixels, got none")
    return float(np.sqrt(voxels / (4 * counts)))


class Priors:
    """The terms of (1) beside loss and ATV(S) for the voxels of a support, as a vector c of S there."""

    def __init__(self, bound, bound_weight, bulk, bulk_weight):
        self.bound = None if bound is None else checks.number("amplitude_bound", bound, above=0)
        self.bound_weight = checks.number("bound_weight", bound_weight, at_least=0)
        self.bulk = None if bulk is None else checks.number("bulk_amplitude", bulk, above=0)
        self.bulk_weight = checks.number("bulk_weight", bulk_weight, at_least=0)
        self.inner, self.precisions = None, None

    def expect_perfection(self, smoothness, uniformity, atv_weight, counts, nats, voxel):
        """Add the terms in R, U and ATV(|S|).  nats : of log-likelihood in a unit of the loss."""
        self.precisions, self.atv_weight = (smoothness, uniformity), atv_weight
        self.counts, self.nats, self.voxel = counts, nats, voxel

    def choose_bulk(self, S, support):
        """Fix the bulk: voxels three away, or as far as leaves any, from where |S| falls below half its median."""
        amplitude = ndimage.gaussian_filter(np.abs(S).astype(np.float64), 0.7)
        inside = support & (amplitude > 0.5 * np.median(amplitude[support]))
        for _ in range(3):
            smaller = ndimage.binary_erosion(inside)
            if not smaller.any():
                break
            inside = smaller
        self.inner = inside[support]
        if self.precisions:
            self.support, self.perfection = support, Perfection(S, support, self.voxel, self.bulk or 1.0)
            found = self.perfection.most_probable(S, self.counts)
            self.precision = [f if p == "evidence" else p for p, f in zip(self.precisions, found, strict=True)]

    def value(self, c):
        """Their sum, float, and its gradient, complex128."""
        total, adj = 0.0, np.zeros_like(c)
        size = np.abs(c)
        turn = c / np.maximum(size, np.finfo(size.dtype).tiny)
        if self.bound is not None:
            over = np.maximum(size - self.bound, 0)
            total += self.bound_weight * float(np.sum(over * over)) / len(c)
            adj += (2 * self.bound_weight / len(c)) * over * turn
        if self.bulk is not None and self.inner.any():
            lack = float(size[self.inner].mean()) - self.bulk
            total += self.bulk_weight * lack**2
            adj[self.inner] += (2 * self.bulk_weight * lack / np.count_nonzero(self.inner)) * turn[self.inner]
        if self.precisions:
            S = np.zeros(self.support.shape, np.complex128)
            S[self.support] = c
            for term, precision in zip(("roughness", "unevenness"), self.precision, strict=True):
                value, adj_S = getattr(self.perfection, term)(S, precision)
                total += value / (2 * self.nats * self.counts)
                adj += adj_S[self.support] / (2 * self.nats * self.counts)
            value, adj_size = atv(np.abs(S), self.atv_weight * S.size / len(c))
            total += value
            adj += adj_size[self.support] * turn
        return total, adj


class _End(Exception):
    """The callback asked for it."""


class _Run:
    def __init__(self, objective, support, priors, history, memory, angle_offsets, flux, callback):
        self.objective, self.support, self.priors, self.history = objective, support, priors, history
        self.memory, self.angle_offsets, self.flux, self.callback = memory, angle_offsets, flux, callback
        self.unit, self.ended, self.done = objective.mean_intensity(), False, 0
        if not self.unit > 0:
            raise ValueError("data: expected some intensity on good pixels, got none")

    def minimise(self, S, iterations):
        latest, shape, dtype = {}, S.shape, S.dtype
        self.priors.choose_bulk(S, self.support)

        def whole(x):
            out = np.zeros(shape, dtype)
            out[self.support] = x.view(np.complex128)
            return out

        def function(x):
            now = self.objective.on_host(whole(x), self.support, None, None, self.angle_offsets, self.flux)
            value, adj = self.priors.value(x.view(np.complex128))
            latest.update(x=x.copy(), now=now, loss=now.loss + self.unit * value)
            return now.loss / self.unit + value, (now.adj_S[self.support] / self.unit + adj).view(np.float64)

        def record(x):
            if not np.array_equal(x, latest["x"]):
                function(x)
            now = latest["now"]
            values = latest["loss"], now.misfit_numerator / now.misfit_denominator, now.scale, len(x) // 2
            values += () if now.free is None else free_numbers(now.free)
            for name, value in zip(self.history, values, strict=True):
                self.history[name].append(float(value))
            self.done += 1
            self.shown(self.done, loss=values[0], misfit=values[1])
            if self.callback and self.callback(len(self.history["loss"]), whole(x), self.history):
                raise _End

        x = S[self.support].astype(np.complex128).view(np.float64)
        if not np.isfinite(function(x)[0]):
            raise RuntimeError(f"polish: expected a finite loss at the start, got {latest['now'].loss}")
        options = {"maxiter": iterations, "maxfun": 3 * iterations, "maxcor": self.memory, "ftol": 0.0, "gtol": 0.0}
        try:
            x = optimize.minimize(function, x, jac=True, method="L-BFGS-B", callback=record, options=options).x
        except _End:
            x, self.ended = latest["x"], True
        return whole(x)
