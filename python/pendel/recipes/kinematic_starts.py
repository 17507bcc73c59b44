"""A start for the dynamical reconstruction: kinematic phasing, brought to the model grid, with the twin decided.

Kinematic data cannot tell a crystal from its conjugate twin conj(S(-r)); dynamical data can. And where the data are
noisy the phases found kinematically may be a worse start than flat ones. So four candidates, each twin with its
phases and with flat ones in the same support, get a few epochs of the dynamical reconstruction; the best one is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from .. import kinematic
from ..base import checks
from ..base.arrays import host
from ..base.printing import brief
from ..base.progress import Progress
from ..base.recipe import from_keywords, refuse_unknown
from ..fit.minibatch import MinibatchRecipe, fit_minibatches
from ..fit.objective import Objective, begun, measured
from ..kinematic import box_for  # noqa: F401 - programs know it as `pendel.start.box_for`
from ..kinematic.support import recentre, shrink_wrap
from ..model.loss import has_axes
from ..model.model import Model
from ..operator.engine import Array
from .levels import unit_flux

FLAT = 0.8  # amplitude of a flat candidate; the support is a voxel wider than the crystal


@dataclass
class Start:
    """A crystal function to begin with, answer of `kinematic_start`.

    Attributes
    ----------
    S : complex (nz, ny, nx), kinematic or flat, |S| <= 1.
    support : bool (nz, ny, nx), a voxel wider than S.
    chi : kinematic misfit of the phasing (amplitudes, square root).
    kind : "phased", "flat", "twin phased" or "twin flat": the candidate taken.
    trial_misfits : relative misfit of every candidate after the trial epochs; empty where no trial was asked for.
    other : `Start` of the better candidate of the other twin, the trial's second thought; None without a trial.
    """

    S: np.ndarray
    support: np.ndarray
    chi: float
    kind: str
    trial_misfits: dict
    other: "Start | None" = None

    __repr__ = brief

    @property
    def twin(self) -> bool:
        """Whether the conjugate twin of the phased object was taken."""
        return self.kind.startswith("twin")


TRIAL = MinibatchRecipe(learning_rate=0.1, schedule="cosine", shrink_wrap_every=0)


def kinematic_start(
    model: Model,
    data: Array,
    mask: Array | None = None,
    *,
    phased: kinematic.KinematicResult | None = None,
    iterations: int = 500,
    trial_epochs: int = 25,
    seed: int = 0,
    progress: bool | str = True,
    callback: Callable[..., Any] | None = None,
    flux: Array | None = None,
    **keywords: Any,
) -> Start:
    """Phase the scan kinematically and return a `Start` on the model's grid.

    Parameters
    ----------
    model : Model
    data : (n_frames, rows, cols)
    mask : bool (n_frames, rows, cols) or (rows, cols), True = good pixel, or None
    phased : `KinematicResult` of these data, where there is one already (of their `kinematic.even_scan`, where rocking
        steps differ); None: phase them here
    iterations : of HIO and ER, see `pendel.kinematic.phase`
    trial_epochs : epochs of `reconstruct` for each candidate; 0: no trial, the object as phased is returned
    seed : of the random phases
    progress, callback, flux : as in `reconstruct`, of every trial
    **keywords : further fields of `MinibatchRecipe` for the trials, but for epochs

    Returns
    -------
    Start

    Raises
    ------
    TypeError, ValueError
        As `kinematic.phase`, `kinematic.to_model_grid` and `reconstruct` do; ValueError names the box (shape) where the
        phased object does not fit into it.
    """
    trial_epochs = checks.integer("trial_epochs", trial_epochs, at_least=0)
    known = [name for name in MinibatchRecipe.names() if name != "epochs"]
    refuse_unknown(keywords, [*known, "trial_epochs"], "kinematic_start")
    recipe = from_keywords(MinibatchRecipe, TRIAL, {"seed": seed} | keywords, "kinematic_start")
    data, mask, phased = host(data, "data"), host(mask, "mask"), checked_phased(phased)  # the phasing is NumPy's
    progress = model.ranks.shown(progress)
    if phased is None:
        given, options = {"iterations": iterations, "seed": seed}, {"threads": model.threads, "progress": progress}
        background = recipe.background if has_axes(recipe.background) else None
        phased = phase(unit_flux(data, background, flux), mask, experiment=model.experiment, **given, **options)
    if trial_epochs == 0:
        return untried(model, phased)
    fit = measured(model, data, mask, recipe)
    return start_of(fit, phased, recipe.but(epochs=trial_epochs), progress, callback, flux)


def checked_phased(phased):
    """``phased``, a `KinematicResult` or None, or TypeError naming it."""
    if phased is not None and not isinstance(phased, kinematic.KinematicResult):
        raise TypeError(f"phased: expected a KinematicResult or None, got {checks.describe(phased)}")
    return phased


def untried(model, phased):
    """The `Start` of a phased object as it is."""
    return Start(*_candidates(model, phased)["phased"], phased.chi, "phased", {})


def start_of(fit, phased, recipe, progress=True, callback=None, flux=None):
    """The `Start` of a phased object whose candidates a `MinibatchRecipe` tries against a `Fit`, at a known flux."""
    misfits, candidates = {}, _candidates(fit.model, phased)
    for name, (S, support) in candidates.items():
        S = begun(S, support, recipe.amplitude_bound)
        shown = f"trial {name}" if progress else False
        objective = Objective.of(fit, recipe, flux)
        trial = fit_minibatches(objective, S, support, recipe, progress=shown, callback=callback)
        misfits[name] = trial.misfit
    best = [min((k for k in misfits if k.startswith("twin") == twin), key=misfits.get) for twin in (False, True)]
    kind, second = sorted(best, key=misfits.get)
    other = Start(*candidates[second], phased.chi, second, misfits)
    return Start(*candidates[kind], phased.chi, kind, misfits, other)


def _candidates(model, phased):
    """{name: (S, support)}: each twin with its phases, and with flat ones in the same support."""
    candidates, experiment = {}, kinematic.even_experiment(model.experiment)
    for twin, prefix in ((False, ""), (True, "twin ")):
        S = kinematic.to_model_grid(phased, experiment, model.shape, model.voxel, twin=twin)
        S = recentre(S)[0]
        support = ndimage.binary_dilation(shrink_wrap(S, TRIAL.shrink_wrap_threshold, TRIAL.shrink_wrap_sigma))
        candidates[prefix + "phased"] = S.astype(model.dtype), support
        candidates[prefix + "flat"] = np.where(support, FLAT, 0).astype(model.dtype), support
    return candidates


def phase(data, mask=None, *, experiment=None, iterations=500, seed=0, starts=1, threads=None, progress=True, **recipe):
    """`pendel.kinematic.phase` with its progress shown on a terminal or in a log.

    experiment : of the frames, which are put on an even grid of rocking angles where theirs is not even
        (`kinematic.even_scan`); None: it is.
    starts : phasings, of which the one of smallest misfit is kept (HIO can stagnate); their random phases have the
        seeds starts * seed, starts * seed + 1, ...  recipe : further arguments, `kinematic.PAPER_RECIPE` for example.
    """
    starts = checks.integer("starts", starts, at_least=1)
    seed = checks.integer("seed", seed, at_least=0)
    seeds = range(starts * seed, starts * (seed + 1))
    if experiment is not None:
        _, data, mask, _ = kinematic.even_scan(experiment, data, mask)
    with Progress("kinematic phasing", starts * iterations, "iteration", show=bool(progress)) as shown:

        def report(iteration, _, error):
            shown(iteration, error=error)

        recipe |= {"iterations": iterations, "workers": threads, "progress": report}
        return kinematic.phase_best(data, mask, seeds=seeds, **recipe)[0]
