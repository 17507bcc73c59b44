"""Reconstruction by L-BFGS on all frames at once: few, exact steps near the solution, where minibatches only shake.

(1) S = a exp(i u),   -bound <= a <= bound,   u free
(2) adj_a = Re(conj(adj_S) exp(i u)),   adj_u = Im(adj_S conj(S))

|S| <= bound is no box in Re S and Im S, and projecting S inside the function would break the line search. In (1) it is
one, for L-BFGS-B to keep exactly (Byrd, Lu, Nocedal & Zhu, SIAM J. Sci. Comput. 16, 1190, 1995), and the map is smooth:
a passes through 0 with a change of sign, that is, of the phase by pi. What (1) pays is the phase of voxels with a near
0, which hardly moves. With s_0 = |S| the objective itself has a corner at a = 0.
"""

import warnings

import numpy as np
from scipy import optimize

from ..base import checks
from ..base.progress import Progress
from .checkpoint import FREE_HISTORY
from .minibatch import OPTIMISED, finish, free_numbers
from .objective import Objective, initial

HISTORY = ("loss", "misfit", "scale", "support")


class _End(Exception):
    """The callback asked for it."""


def lbfgs(
    model,
    data,
    mask=None,
    start=None,
    support=None,
    *,
    iterations=100,
    memory=10,
    likelihood="amplitude",
    background=0.0,
    s_0="tied",
    amplitude_bound=1.0,
    optimise="S",
    atv_weight=0.0,
    atv_p=2.0,
    atv_q=1.0,
    angle_offsets=None,
    flux=None,
    free_fraction=0.0,
    seed=0,
    progress=True,
    callback=None,
):
    """Fit the crystal function to all measured frames by L-BFGS-B (`scipy.optimize.minimize`), in a fixed support.

    iterations : at most; one costs an evaluation of all frames, now and then two.  memory : pairs of vectors kept.
    angle_offsets, flux : (n_frames,) as in a `Result`, held fixed; None: 0, 1.
    seed : of the held-out pixels; nothing else is random.
    Other arguments as in `reconstruct`. ``start`` may be the S of one, to be polished. SciPy's vectors are on the host:
    with a model on a device each evaluation uploads S and downloads its gradient.

    Returns `Result` with a history per iteration. Ends early where the objective no longer falls; a UserWarning tells
    where the line search failed, as it does at the rounding of complex64. Raises TypeError or ValueError naming the
    argument, RuntimeError where the objective is not finite at the start.
    """
    iterations = checks.integer("iterations", iterations, at_least=1)
    memory = checks.integer("memory", memory, at_least=1)
    if amplitude_bound is not None:
        amplitude_bound = checks.number("amplitude_bound", amplitude_bound, above=0)
    phase_only = checks.choice("optimise", optimise, OPTIMISED) == "phase"
    seed = checks.integer("seed", seed, at_least=0)
    angle_offsets, flux = (
        None if value is None else checks.array(name, value, (model.n_frames,), np.float64, axes="(n_frames,)")
        for name, value in (("angle_offsets", angle_offsets), ("flux", flux))
    )
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
    S, support = initial(model, start, support, amplitude_bound)
    variables = _Variables(S, support, phase_only, s_0 == "free")
    unit = objective.mean_intensity()
    if not unit > 0:
        raise ValueError("data: expected some intensity on good pixels, got none")
    latest = {}

    def function(x):
        now = objective.on_host(variables.S(x), support, None, variables.s_0(x), angle_offsets, flux)
        latest.update(x=x.copy(), now=now)
        return now.loss / unit, variables.adjoint(x, now.adj_S, now.adj_s_0) / unit

    names = HISTORY + (FREE_HISTORY if objective.free is not None else ())
    history = {name: [] for name in names}
    title = progress if isinstance(progress, str) else "lbfgs"
    with Progress(title, iterations, "iteration", show=bool(progress)) as shown:

        def record(x):
            if not np.array_equal(x, latest["x"]):
                function(x)
            now = latest["now"]
            values = now.loss, now.misfit_numerator / now.misfit_denominator, now.scale, variables.size
            values += () if now.free is None else free_numbers(now.free)
            for name, value in zip(names, values, strict=True):
                history[name].append(float(value))
            done = len(history["loss"])
            shown(done, loss=values[0], misfit=values[1])
            if callback and callback(done, variables.S(x), history):
                raise _End

        x = variables.start()
        if not np.isfinite(function(x)[0]):
            cure = "; try a background > 0" if likelihood == "poisson" else ""
            raise RuntimeError(f"lbfgs: expected a finite loss at the start, got {latest['now'].loss}{cure}")
        options = {"maxiter": iterations, "maxfun": 20 * iterations, "maxcor": memory, "ftol": 1e-12, "gtol": 0.0}
        bounds = optimize.Bounds(*variables.bounds(amplitude_bound))
        try:
            ended = optimize.minimize(
                function, x, jac=True, method="L-BFGS-B", bounds=bounds, callback=record, options=options
            )
            x = ended.x
            if ended.status == 2:
                warnings.warn(f"lbfgs: ended after {ended.nit} iterations: {ended.message}", stacklevel=2)
        except _End:
            x = latest["x"]
    S, s_0 = variables.S(x), variables.s_0(x)
    return finish(objective, S, support, history, len(history["loss"]), seed, s_0, angle_offsets, flux)


class _Variables:
    """What L-BFGS-B moves, float64: u of (1), then a unless ``phase_only``, then s_0 where it is free; support only.

    With ``phase_only`` a free s_0 stays as it was.
    """

    def __init__(self, S, support, phase_only, free_density):
        self.begin, self.support, self.size = S, support, int(np.count_nonzero(support))
        self.u, self.a = np.angle(S[support]).astype(np.float64), np.abs(S[support]).astype(np.float64)
        self.phase_only, self.free_density = phase_only, free_density

    def start(self):
        return np.concatenate([self.u, *[self.a] * (self._count() - 1)])

    def bounds(self, bound):
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

    def adjoint(self, x, adj_S, adj_s_0):
        """Equation (2) of the gradients with respect to `S` and `s_0`."""
        adj_S, wave = adj_S[self.support].astype(np.complex128), np.exp(1j * x[: self.size])
        parts = [(adj_S * np.conj(self._a(x) * wave)).imag]
        if not self.phase_only:
            parts.append((np.conj(adj_S) * wave).real)
            if self.free_density:
                parts.append(adj_s_0[self.support].astype(np.float64))
        return np.concatenate(parts)

    def _a(self, x):
        return self.a if self.phase_only else x[self.size : 2 * self.size]

    def _count(self):
        return 1 if self.phase_only else 2 + self.free_density
