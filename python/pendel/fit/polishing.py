"""The last step of a reconstruction: L-BFGS on all frames, with what keeps it from stalling short of the crystal.

Minibatch Adam finds the valley; what it leaves are slow modes and zeros of the far field on the wrong side.

(1) objective = loss/I_mean + atv_weight ATV(S) + priors                                  `pendel.fit.priors`

The bound as a penalty keeps the objective smooth, where a projection would break the line search; the unknowns are
Re S and Im S, so that voxels near 0 move freely, or those of `pendel.fit.preconditioner` where priors tie voxels.

The bulk: a dynamical amplitude is absolute, and the inside of a crystal is a perfect one on average. Without it the
common factor of |S|, the scale and a phase ramp nearly balance, and total variation, which can buy a smaller |S| with a
larger scale, tips that balance down to |S| = 0. Amplitudes of single voxels stay free.

Few photons leave phase and amplitude of single voxels open, and total variation, which likes steps and wears edges
down, is a poor guess at them. With ``smoothness``, ``uniformity`` and ``sharpness`` the phase is held by its second
differences, the inside at its amplitude and the vacuum at 0, as firmly as the "evidence" of the data says; the total
variation is then that of |S|.
Before each run the phases of the surface are ironed (`pendel.fit.ironing`).

Where the modelled field has a zero on the wrong side of a pixel, the pixel holds the zero back: to cross, its
amplitude would first get worse. Each round therefore runs without the pixels missed by more than ``trim`` times the
rms residual, then with all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.arrays import host
from ..base.progress import Progress
from ..base.recipe import from_keywords, integer, maybe, number, option, with_keywords_of
from ..model.model import Model
from ..model.signature import as_text
from ..operator.engine import Array
from . import checkpoint_file
from .corrections import NO_CORRECTIONS, Corrections
from .ironing import ironed
from .nuisances import NuisanceRecipe, Nuisances
from .objective import DataRecipe, Objective, Variation, initial, measured
from .preconditioner import Preconditioned
from .priors import Priors
from .quasi_newton import START, Cartesian, Limits, Log, kept_steps, minimise
from .result import Result, finish
from .steps import NO_STEPS, packed_corrections, unpacked_corrections

EVALUATIONS = 3  # for an iteration, on average, at most


def check_pair(name, value):
    """Check of (iterations without the missed pixels, iterations with all)."""
    try:
        trimmed, full = value
    except TypeError:
        raise TypeError(f"{name}: expected a pair (without missed pixels, with all), got {value!r}") from None
    return checks.integer(f"{name}[0]", trimmed, at_least=0), checks.integer(f"{name}[1]", full, at_least=1)


def check_precision(name, value):
    """Check of an inverse variance, or "evidence"."""
    return value if isinstance(value, str) and value == "evidence" else checks.number(name, value, at_least=0)


@runtime_checkable
class Reconstructed(Protocol):
    """What has a crystal and its support: a `Result`, or one from a file."""

    S: np.ndarray
    support: np.ndarray


@dataclass(frozen=True)
class PolishRecipe(NuisanceRecipe, DataRecipe):
    """`polish`."""

    rounds: int = option(3, integer(at_least=1), "of two runs each.")
    iterations: tuple = option((50, 100), check_pair, "of the two runs: without the missed pixels, with all.")
    trim: float | None = option(
        1.5,
        maybe(number(above=0)),
        "pixels missed by more than this many times the rms residual are left out of the first run of a round; None: no"
        " pixel is left out, and that run is skipped.",
    )
    widen: int = option(
        1,
        integer(at_least=0),
        "voxels by which the support is dilated first: shrink-wrap cuts corners off, and a missing voxel costs more"
        " than one too many.",
    )
    amplitude_bound: float | None = option(
        1.0, maybe(number(above=0)), "|S| above this costs, see ``bound_weight``; None: no bound."
    )
    bound_weight: float = option(
        1.0, number(at_least=0), "of the bound. Photon-limited data bear a weight of 10 and more."
    )
    bulk_amplitude: float | None = option(
        1.0, maybe(number(above=0)), "mean |S| of the voxels well inside; None: no such term."
    )
    bulk_weight: float = option(1.0, number(at_least=0), "of that term.")
    atv_weight: float = option(
        1e-5,
        number(at_least=0),
        "in units of the mean intensity, as in `reconstruct`; `photon_weight` suggests one for counted data.",
    )
    smoothness: float | str = option(
        0.0,
        check_precision,
        'for counts: inverse variance of the second differences of the phase, rad^-2; or "evidence": the most probable'
        " one for what each of the two runs begins with.",
    )
    uniformity: float | str = option(0.0, check_precision, "the same of |S| inside.")
    sharpness: float | str = option(
        0.0,
        check_precision,
        "for counts: slope at |S| = 0 of what a voxel costs that is neither full nor empty, beyond the inside, in units"
        ' of -2 ln(likelihood); "evidence": what keeps noise out of it.',
    )
    granted: float = option(
        1.0,
        number(above=0, at_most=1),
        'part of its bends that "evidence" grants a place that bends far more than the crystal does, a core or a weld.',
    )
    memory: int = option(10, integer(at_least=1), "pairs of vectors kept.")

    @property
    def expects_perfection(self) -> bool:
        """Whether smoothness, uniformity or sharpness hold it; the total variation is then that of |S|."""
        return bool(self.smoothness) or bool(self.uniformity) or bool(self.sharpness)


@with_keywords_of(PolishRecipe)
def polish(
    model: Model,
    data: Array,
    mask: Array | None = None,
    start: Array | Result | None = None,
    support: Array | None = None,
    *,
    recipe: PolishRecipe | None = None,
    angle_offsets: np.ndarray | None = None,
    flux: np.ndarray | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool | str = True,
    callback: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Result:
    """Fit S to all frames, equation (1), from a start in the right valley.

    SciPy's vectors are on the host: with a model on a device each evaluation uploads S and downloads its gradient. Data
    and mask may be NumPy's or CuPy's, as in `reconstruct`. The same bits for any number of ``model.threads``; the inner
    products of SciPy's L-BFGS-B may round differently for another number of BLAS threads (OMP_NUM_THREADS).

    Parameters
    ----------
    model, data, mask : as in `reconstruct`
    start : complex (nz, ny, nx), or a `Result`, whose support and corrections are taken where none are given
    support : bool (nz, ny, nx), or None: start != 0
    recipe : `PolishRecipe`, or None; keywords replace its fields
    angle_offsets, flux : (n_frames,) as in a `Result`; None: 0, 1
        Held fixed, or where refinement begins.
    checkpoint : path of an HDF5 file, written after both runs of a round
    resume : runs of the checkpoint, which must be of the same data, model, start and recipe, are not done again
        The result is that of a run that was not interrupted, to the bit.
    progress, callback : as in `reconstruct`

    Returns
    -------
    Result
        With a history per iteration, its loss (1) times I_mean.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    RuntimeError
        Where the objective is not finite at the start.
    """
    recipe = from_keywords(PolishRecipe, recipe, keywords, "polish")
    corrections = Corrections.checked(model, angle_offsets, flux)
    corrections = corrections.filled(getattr(start, "corrections", NO_CORRECTIONS))
    if support is None and isinstance(start, Reconstructed):
        support = start.support
        start = start.S
    fit = measured(model, data, mask, recipe)
    S, support = initial(model, start, support, recipe.amplitude_bound)
    with kept_steps(fit, "polish", recipe, S, support, corrections, checkpoint, resume) as steps:
        return polish_fit(fit, S, support, recipe, progress, callback, corrections, steps)


def begins_with(checkpoint: Path | str, S: np.ndarray) -> bool:
    """Whether a checkpoint of `polish` is there, and of one that begins with S."""
    if not checkpoint_file.exists(checkpoint):
        return False
    return checkpoint_file.read(checkpoint, "polish")[0].get(START) == as_text(S)


def polish_fit(fit, S, support, recipe, progress=True, callback=None, corrections=NO_CORRECTIONS, steps=NO_STEPS):
    """`polish` of a `Fit` from S and support, NumPy arrays of the model's dtype, S within support and bound.

    steps : `Steps`, of which each run of a round is one
    """
    # surface: or noise in the widened rim costs nothing
    variation = Variation(0.0 if recipe.expects_perfection else recipe.atv_weight, surface=True)
    objective = Objective(fit, variation=variation)
    if recipe.widen:
        support = ndimage.binary_dilation(support, iterations=recipe.widen)

    trimmed, full = recipe.iterations
    per_round = full + (trimmed if recipe.trim else 0)
    title = progress if isinstance(progress, str) else "polish"
    with Progress(title, recipe.rounds * per_round, "iteration", show=bool(fit.model.ranks.shown(progress))) as shown:
        log, at = Log(fit, shown, callback), _Place(S, False, corrections)
        for done in range(recipe.rounds):
            if recipe.trim and trimmed and not at.ended:
                run = _Run(objective, support, recipe, trimmed, trusted_alone=True)
                at = run.once(steps, f"round {done + 1}, trusted pixels", at, log)
            if not at.ended:
                run = _Run(objective, support, recipe, full)
                at = run.once(steps, f"round {done + 1}", at, log)
            log.done = (done + 1) * per_round
    return finish(objective, at.S, support, log.history, log.iterations, recipe.seed, None, *at.corrections)


class _Place(NamedTuple):
    """Where `polish` is.  ended : by the callback."""

    S: np.ndarray
    ended: bool
    corrections: Corrections


class _Run(NamedTuple):
    """A run of L-BFGS-B.  trusted_alone : without the pixels that are missed where it begins."""

    objective: Objective
    support: np.ndarray
    recipe: PolishRecipe
    iterations: int
    trusted_alone: bool = False

    def once(self, steps, name, at, log):
        """The `_Place` where the run comes to, as a step ``name``."""

        def compute(_):
            found = self._from(at, log)
            history = {name: np.array(values) for name, values in log.history.items()}
            return {"S": found.S, "ended": found.ended, "history": history} | packed_corrections(found.corrections)

        found = steps.once(name, compute)
        log.go_on(found["history"])
        return _Place(found["S"], bool(found["ended"]), unpacked_corrections(found))

    def _from(self, at, log):
        objective = self.objective
        if self.trusted_alone:
            objective = objective.only(objective.trusted(at.S, self.support, self.recipe.trim, *at.corrections))
        found = _run(objective, at.S, self.support, self.recipe, self.iterations, log, at.corrections)
        return _Place(*found)


def _run(objective, S, support, recipe, iterations, log, corrections):
    """(S, whether the callback ended it, `Corrections`) of one run of L-BFGS-B.

    Its priors are judged by where it begins.
    """
    priors = Priors(recipe, S, support, objective.whole)
    S = ironed(S, priors)
    variables = Cartesian(S, support)
    if priors.stiff:
        variables = Preconditioned(S, support, priors, objective.model.threads)
    limits = Limits(iterations, EVALUATIONS * iterations, recipe.memory, 0.0)
    nuisances = Nuisances(recipe, objective.whole, corrections, 2 * variables.size) if recipe.refines else None
    found = minimise(objective, variables, priors, limits, log, corrections, "polish", nuisances)
    return variables.S(found.x), found.ended, found.corrections


def photon_weight(model: Model, data: Array, mask: Array | None = None, support: Array | None = None) -> float:
    """An ``atv_weight`` for counted data: the noise of one voxel, sqrt(voxels/(4 counts)).

    Parameters
    ----------
    model : Model
    data, mask : as in `polish`, counts
    support : bool (nz, ny, nx), or None: half of the box

    Returns
    -------
    float
    """
    voxels = np.prod(model.shape) / 2 if support is None else np.count_nonzero(host(support))
    return voxel_noise(counts_of(host(data, "data"), host(mask, "mask")), voxels)


def counts_of(data, mask):
    """Sum of the good pixels of NumPy arrays, float."""
    counts = float(np.sum(data if mask is None else np.where(mask, data, 0), dtype=np.float64))
    if not counts > 0:
        raise ValueError("data: expected some counts on good pixels, got none")
    return counts


def voxel_noise(counts, voxels):
    """`photon_weight` of a number of counts and of voxels."""
    return float(np.sqrt(voxels / (4 * counts)))
