"""One call from a scan to its crystal: `solve` chooses box, way and voxels.

1. The box: the scan is phased kinematically, and the phased object tells the size. Where phases miss the frames, the
   same sharpened are phased too (`pendel.recipes.sharpening`).
2. The way: `pendel.multiscale` on voxels of the data's resolution, from the phases, or for thick crystals from shapes.
   With ``strong=True``, where that misses the frames by far more than photons and voxels explain, it is done again with
   smooth phases first, in a box that the autocorrelation tells, and the better one of both is taken
   (`pendel.recipes.first_step`).
3. The voxels: as fine as the light asks for (`pendel.recipes.voxels`).
4. What the data have seen is carried to them (`pendel.recipes.in_band`), and polished there with smoothness,
   uniformity and sharpness by evidence.
5. Where the frames are missed by more than photon noise, step 4 is done again with the angles, the flux, the background
   and the point spread refined too, on the data's voxels first, and there with the beam's coherence as well, which
   stays if the frames are met better; what they leave enters as variance, in proportion to that of photons, unless the
   fit then misses far more.

Without photons to count, frames are taken for as many counts as `BRIGHT` says.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base import checks, plausible
from ..base.arrays import host
from ..base.recipe import flag, from_keywords, integer, option, refuse_unknown, with_keywords_of
from ..experiment.crystal import Crystal
from ..experiment.geometry import Experiment
from ..fit.checkpoint_file import as_text, claimed, fields_of, signature_of_model
from ..fit.evidence import Perfection
from ..fit.expected import expected_counts
from ..fit.objective import check_frames, measured
from ..fit.polishing import PolishRecipe, counts_of, polish_fit, voxel_noise
from ..fit.result import Result, host_background
from ..fit.steps import NO_STEPS, Steps
from ..kinematic import KinematicResult, box_for
from ..model.model import Model
from ..operator.engine import Array
from .first_step import FirstStep, box_about, box_without_phases, known_background
from .in_band import in_band_start
from .levels import like, unit_flux
from .multiscale_recipe import MultiscaleRecipe
from .polisher import COUNTED, EVIDENCE
from .sharpening import phase_blurred
from .thick_crystals import thick
from .trust import ALL_PHOTONS, Trust
from .voxels import counting_noise, fine_enough, grid_misfit, noise_misfit

BRIGHT = 4000.0  # mean counts of a pixel that frames without noise are taken for: 1e9 in 65 frames of 64 x 64
DARK = 1e-3  # part of the good pixels that are exactly 0 in counted frames, at least
SOLVED_BY = ("recipe", "phased", "angle_offsets", "flux", "checkpoint", "resume", "callback", "support")
# Of an exception's bends, as long as photon noise explains the rest. bench/foreign.py, dislocation, 1e8 photons, two
# crystals, the last step alone: 0.25 leaves 0.024 and 0.032 rad, 0.06 0.018 and 0.018, 0.03 0.015 and 0.017, 0.01 0.010
# and 0.016; 1 left 0.026 in the first. A domain wall is missed by the fit with 0.06 and less: then all is granted.
GRANTED = 0.03
# Polished again at most so often, and as long as the excess falls to that part of itself; no bench has set them. That
# more may be needed: bench/paper.py A, small, a large crystal on fine voxels, before unknowns had one stiffness.
LONGER, PAYS = 3, 0.97
REFINED = {"refine_angles": True, "refine_intensities": True, "refine_background": True, "refine_blur": True}
WIDE = 2  # times `fine_iterations` on wide voxels, where they are cheap and find the beamline
# Part of the excess, on the data's voxels, below which a coherence that is refined stays; chosen. bench/foreign.py,
# smooth (1), coherence, 1e8 photons: after 120 iterations the misfit is 0.965 of that with a point spread alone.
COHERENCE_PAYS = 0.99
# Times the excess that a fit with the excess as variance may leave; chosen. What is missed because voxels are far too
# wide is no noise: given so much room, the priors take it.
WORSE = 1.5
# Steps that leave the crystals before them to be asked for: what comes after them may begin with these.
BESIDE = ("rougher", "refined 2", "coherence", "with variance")


@dataclass(frozen=True)
class SolveRecipe(MultiscaleRecipe):
    """`solve`."""

    rounds: int = option(
        1, integer(at_least=1), "of `polish` on every level of voxels as wide as the data's resolution."
    )
    fine_rounds: int = option(2, integer(at_least=1), "of `polish` on the voxels that the light asks for.")
    fine_iterations: int = option(
        60, integer(at_least=1), "of each of them.", set_by="bench/foreign.py, smooth, dislocation, void, porous"
    )
    strong: bool = option(
        False,
        flag,
        'whether, where the way that begins with phases misses the frames, that of start="smooth" is tried beside it:'
        " for strongly strained crystals, and minutes longer.",
    )


def solve(
    experiment: Experiment,
    crystal: Crystal,
    data: Array,
    mask: Array | None = None,
    *,
    counts: bool | str = "auto",
    voxel: str | tuple[float, float, float] = "auto",
    box: str | float | tuple[float, float, float] = "auto",
    start: Array | KinematicResult | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    model_options: dict[str, Any] | None = None,
    progress: bool | str = True,
    **keywords: Any,
) -> Result:
    """Reconstruct a crystal from a scan; everything that is not given is chosen.

    Parameters
    ----------
    experiment : Experiment
    crystal : Crystal
    data : (n_frames, rows, cols)
        Intensities, in counts if they are counted photons.
    mask : bool, True = good pixel, as in `Model.fit`, or None
    counts : whether data are counted photons, True, False or "auto"
        "auto": where they are whole numbers, or some are exactly 0, as they are after a flat field and never without
        noise.
    voxel : "auto", or (dz, dy, dx) m
        Of the result. "auto": as fine as the light asks for.
    box : "auto", or the crystal's extent, m, one number or (z, y, x)
        "auto": from the phased object; with "smooth" from the autocorrelation.
    start : as in `multiscale`, or `KinematicResult` of the data
        An array on voxels ``experiment.suggest_voxel()``, whose shape is then the box. Phases of one's own or of
        another program's, of `pendel.cohere.read_results` for example, are not sought again. None and
        "kinematic" with ``strong=True``: as there, and "smooth" where that misses the frames by far more than photons
        and voxels explain.
    seed : int
    device, threads : as in `Model`
    model_options : further arguments of `Model`
    progress : as in `reconstruct`
    keywords : of `solve_on`

    Returns
    -------
    Result
        On the voxels that were chosen; ``result.model`` is their `Model`, ``result.trust`` a `Trust`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `Model`, `kinematic.phase`, `multiscale` and `polish` do.
    """
    _refuse(counts, voxel, keywords)
    data, mask = check_frames(experiment, data, mask)
    options = {"device": device, "threads": threads} | (model_options or {})
    coarse, told = experiment.suggest_voxel(), dict(options)
    recipe = from_keywords(SolveRecipe, keywords.get("recipe"), _own(keywords), "solve")
    phased, start, keywords = _own_phases(start, recipe, keywords)
    given = None if start is None or isinstance(start, str) else host(start, "start")
    if given is not None:
        shape = checks.array("start", given, (None, None, None), np.complex128, axes="(nz, ny, nx)").shape
    elif not isinstance(box, str):
        extent = (box,) * 3 if np.ndim(box) == 0 else box
        shape = box_about(plausible.lengths(plausible.CRYSTAL_SIZE, "box", extent, 3), coarse)
    else:
        checks.choice("box", box, ("auto",))
        # its errors are better told before the phasing
        small = Model(experiment, crystal, (2, 2, 2), coarse, **options)
        light = unit_flux(data, known_background(keywords), keywords.get("flux"))
        if phased is not None:
            shape = box_for(phased, experiment, coarse)
        elif _named(start, "smooth"):
            shape = box_without_phases(small, light, mask)
        else:
            how = {"experiment": experiment, "seed": seed, "starts": recipe.starts, "threads": small.threads}
            phased, options["point_spread"] = phase_blurred(
                light,
                mask,
                lambda: noise_misfit(in_counts(small, data, mask, counts)[0], mask),
                small.point_spread,
                progress=progress,
                **how,
            )
            shape = box_for(phased, experiment, coarse)
    model = Model(experiment, crystal, shape, coarse, **options)
    plain = Model(experiment, crystal, shape, coarse, **told) if recipe.strong else None
    known = {"counts": counts, "voxel": voxel, "seed": seed, "phased": phased, "plain": plain, "progress": progress}
    return solve_on(model, data, mask, start, **known, **keywords)


@with_keywords_of(SolveRecipe, COUNTED)
def solve_on(
    model: Model,
    data: Array,
    mask: Array | None = None,
    start: Array | str | None = None,
    support: Array | None = None,
    *,
    recipe: SolveRecipe | None = None,
    counts: bool | str = "auto",
    voxel: str | tuple[float, float, float] = "auto",
    phased: Any = None,
    plain: Model | None = None,
    angle_offsets: np.ndarray | None = None,
    flux: np.ndarray | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    progress: bool | str = True,
    callback: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Result:
    """`solve` from a model on voxels of the data's resolution, which says box, device and numerics.

    Parameters
    ----------
    model, data, mask, start, support, angle_offsets, flux, progress, callback : as in `multiscale`
    recipe : `SolveRecipe`, or None; keywords replace its fields, and those of the `PolishRecipe`
    counts, voxel : as in `solve`
    phased : `KinematicResult` of the data, or None
    plain : ``model`` without what is only guessed of it, such as a point spread; None: nothing is
        What a crystal that the phases have not told is looked for with, in a box of its own.
    checkpoint, resume : as in `multiscale`

    Returns
    -------
    Result
    """
    _refuse(counts, voxel, keywords)
    recipe = from_keywords(SolveRecipe, recipe, _own(keywords), "solve")
    polishing = {name: value for name, value in keywords.items() if name not in SolveRecipe.names()}
    data, mask = check_frames(model.experiment, data, mask)
    data, factor = in_counts(model, data, mask, counts)
    if polishing.get("background") is not None:
        polishing["background"] = factor * polishing["background"]

    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")
    with claimed(checkpoint, resume):
        steps = Steps(checkpoint, resume, "solve")
        if steps.kept:
            steps.sign(_signature(model, recipe, polishing, factor, voxel))
        levels = FirstStep(data, mask, recipe, polishing, angle_offsets, flux, progress, callback, steps)
        phased = phased if _begins_with_phases(model, start, recipe) else None
        model, found, noise = levels.find(model, start, support, phased, (plain or model) if recipe.strong else None)
        fine, grid = _voxels(model, found, voxel, noise)
        last = _Fine(fine, model, data, mask, recipe, polishing, progress, callback, steps)
        return _in_units_of_data(last.solve(found, noise, grid), factor)


def _own_phases(start, recipe, keywords):
    """(phases that are the start, or None, what ``start`` is then, keywords): they are those of the only level."""
    if not isinstance(start, KinematicResult):
        return None, start, keywords
    if recipe.levels:
        raise ValueError(f"levels: expected 0 or None with phases of the whole scan as start, got {recipe.levels}")
    kept = {name: value for name, value in keywords.items() if name not in ("recipe", "levels")}
    return start, "kinematic", kept | {"recipe": recipe.but(levels=0)}


def _signature(model, recipe, polishing, factor, voxel):
    """Of which run a checkpoint is, beside what `multiscale` says of its part."""
    fields = fields_of(recipe) | polishing | {"counts": factor == 1, "voxel of the result": voxel}
    return signature_of_model(model) | {name: as_text(value) for name, value in fields.items()}


def _begins_with_phases(model, start, recipe):
    """Whether `multiscale` has a use for the phases of the whole scan: it begins with them, and on its only level."""
    single = recipe.levels == 0 or min(model.experiment.detector_shape) < 2 * recipe.smallest
    return single and (_named(start, "kinematic") or (start is None and not thick(model)))


def _named(start, kind):
    return isinstance(start, str) and start == kind


def _refuse(counts, voxel, keywords):
    """Errors that are better told before the phasing than after."""
    refuse_unknown(
        [name for name in keywords if name not in SOLVED_BY], SolveRecipe.names() + PolishRecipe.names(), "solve"
    )
    if not (isinstance(counts, bool) or _named(counts, "auto")):
        raise ValueError(f'counts: expected True, False or "auto", got {checks.describe(counts)}')
    if isinstance(voxel, str):
        checks.choice("voxel", voxel, ("auto",))
    else:
        plausible.lengths(plausible.VOXEL, "voxel", voxel, 3)
    given = {name: value for name, value in keywords.items() if name not in SOLVED_BY}
    from_keywords(SolveRecipe, None, _own(given), "solve")
    COUNTED.but(**{name: value for name, value in given.items() if name in PolishRecipe.names()})


def _own(keywords):
    """Of keywords those that are fields of the `SolveRecipe`."""
    return {name: value for name, value in keywords.items() if name in SolveRecipe.names()}


def in_counts(model, data, mask, counts):
    """(data as counts of photons, the factor that makes them such)."""
    good = np.ones(data.shape, bool) if mask is None else np.broadcast_to(mask, data.shape)
    if counts == "auto":
        counts = (
            bool(np.all(data[good] == np.rint(data[good]))) or np.count_nonzero(data[good] == 0) > DARK * good.sum()
        )
    if counts:
        return data, 1.0
    factor = BRIGHT * good.sum() / counts_of(data, mask)
    return (data * factor).astype(np.float32), factor


def _in_units_of_data(result, factor):
    """A result of data that were multiplied by ``factor``, in units of these."""
    if factor == 1:
        return result
    level = result.background_level
    return dataclasses.replace(
        result,
        scale=result.scale / factor,
        background=result.background / factor,
        background_level=None if level is None else level / factor,
        history=result.history | {"scale": result.history["scale"] / factor},
    )


def _voxels(model, found, voxel, noise):
    """(`Model` on the voxels of the result, its own misfit)."""
    if isinstance(voxel, str):
        return fine_enough(model, found.S, found.voxel, noise)
    wanted = checks.lengths("voxel", voxel, 3)
    extent = zip(model.shape, model.voxel, wanted, strict=True)
    shape = tuple(2 * int(np.ceil(n * wide / (2 * step) - 1e-6)) for n, wide, step in extent)
    fine = like(model, model.experiment, shape, wanted, sampling="mean")
    return fine, grid_misfit(fine, found.S, found.voxel)


def _as_it_is(result):
    """(S, support, corrections)."""
    return result.S, result.support, result.corrections


@dataclass(frozen=True)
class _Fine:
    """The last step: polish on the voxels that the light asks for.

    model, wide : `Model` on them, and on voxels of the data's resolution
    """

    model: Model
    wide: Model
    data: np.ndarray
    mask: np.ndarray | None
    recipe: SolveRecipe
    polishing: dict
    progress: bool | str
    callback: Callable | None
    steps: Steps = NO_STEPS
    names: list = dataclasses.field(default_factory=list)  # of the steps whose crystals are still asked for

    def solve(self, found, noise, grid):
        """The `Result`, with its model and `Trust`."""
        result, excess, granted = self._first_polish(found)
        result, excess = self._longer(result, excess, granted)
        variance, refined = 1.0, {"granted": granted}
        if excess > ALL_PHOTONS and not set(self.polishing) & {*REFINED, "refine_coherence"}:
            result, refined = self._refined_on_wide_voxels(result, refined | REFINED)
            for name in ("refined 3", "refined 4"):
                result = self._polish(name, result, self.model, **refined)
            excess = self._excess("refined 4", result)
        if excess > ALL_PHOTONS:
            weighed = self._polish("with variance", result, self.model, excess, **refined)
            rest = self._excess("with variance", weighed)
            if rest < WORSE * excess:
                result, variance, excess = weighed, excess, rest
        trust = Trust(result.misfit, noise, grid, excess, variance)
        return dataclasses.replace(result, model=self.model, trust=trust)

    def _refined_on_wide_voxels(self, result, refined):
        """(`Result`, what its `PolishRecipe` refined), with the beam's coherence where the data ask for it.

        Phases found with a wrong beamline have far to go, and on wide voxels that costs little. bench/foreign.py,
        smooth, all, 1e8 photons: from 0.4 to 0.10 and 0.05, on fine voxels to 0.015 and 0.0145.
        """
        further = refined | {"refine_coherence": True}
        begun = self._polish("refined 1", result, self.wide, **refined)
        plain = self._polish("refined 2", begun, self.wide, **refined)
        smeared = self._polish("coherence", begun, self.wide, **further)
        if self._excess("coherence", smeared) < COHERENCE_PAYS * self._excess("refined 2", plain):
            return smeared, further
        return plain, refined

    def _first_polish(self, found):
        """(`Result`, its excess, what its `PolishRecipe` granted): cores as smooth as the data allow."""
        result = self._polish("first", found, self.model, granted=GRANTED)
        excess = self._excess("first", result)
        if excess <= ALL_PHOTONS or not self._bends_somewhere(found):
            return result, excess, GRANTED
        rougher = self._polish("rougher", found, self.model, granted=1.0)
        rest = self._excess("rougher", rougher)
        return (rougher, rest, 1.0) if rest < excess else (result, excess, GRANTED)

    def _longer(self, result, excess, granted):
        """(`Result`, excess) of as much of `polish` again, as long as it pays."""
        for again in range(LONGER):
            if excess <= ALL_PHOTONS:
                break
            name, begin = f"longer {again + 1}", functools.partial(_as_it_is, result)
            result = self._polish_from(name, begin, self.model, granted=granted)
            before, excess = excess, self._excess(name, result)
            if excess > PAYS * before:
                break
        return result, excess

    def _bends_somewhere(self, found):
        """Whether there are places that bend far more than the crystal does."""
        S, support = in_band_start(found.S, found.voxel, self.model)
        seen = np.divide(self.model.voxel, self.wide.voxel)
        return bool(Perfection(S, support, self.model.voxel, 1.0, seen).exceptions(S).any())

    def _polish(self, name, found, model, variance=1.0, **changes):
        """The step ``name``: `polish` of what the data have seen of a `Result`, on the voxels of ``model``.

        variance : of a pixel, over that of photons.  changes : of the `PolishRecipe`.
        """

        def begin():
            return *in_band_start(found.S, found.voxel, model), found.corrections

        return self._polish_from(name, begin, model, variance, **changes)

    def _polish_from(self, name, begin, model, variance=1.0, **changes):
        """The step ``name``: `polish` on the voxels of ``model``; begin() gives (S, support, corrections)."""

        def compute(steps):
            S, support, corrections = begin()
            polishing = self._recipe(model, support, variance, changes)
            fit = measured(model, self.data, self.mask, polishing)
            if variance > 1:
                fit = fit.weighted(np.full(self.data.shape[1:], 1 / variance, np.float32))
            title = "fine polish" if self.progress else False
            return polish_fit(fit, S, support, polishing, title, self.callback, corrections, steps)

        def background():
            box = np.ones(model.shape, bool)
            return host_background(measured(model, self.data, self.mask, self._recipe(model, box, variance, changes)))

        steps = self.steps.part("fine", model)
        result = steps.result(name, compute, model, background)
        if name not in BESIDE:
            steps.forget(self.names)
            self.names.clear()
        self.names.append(name)
        return result

    def _recipe(self, model, support, variance, changes):
        """`PolishRecipe` of a crystal in ``support`` on the voxels of ``model``."""
        weight = voxel_noise(counts_of(self.data, self.mask) / variance, np.count_nonzero(support))
        longer = WIDE if model is self.wide else 1
        return COUNTED.but(
            rounds=self.recipe.fine_rounds,
            iterations=(0, longer * self.recipe.fine_iterations),
            atv_weight=weight,
            **EVIDENCE,
            widen=0,
            seed=self.recipe.seed,
            **changes,
        ).but(**{k: v for k, v in self.polishing.items() if k not in ("rounds", "iterations")})

    def _excess(self, name, result):
        """Sum of square residuals over that of photon noise, of the pixels that expect some light, float.

        Of the result of the step ``name``.
        """
        found = self.steps.part("fine").once(f"excess of {name}", lambda _: {"excess": self._excess_of(result)})
        return float(found["excess"])

    def _excess_of(self, result):
        model = self.model if result.voxel == self.model.voxel else self.wide
        D = expected_counts(model, result)
        good = np.ones(D.shape, bool) if self.mask is None else np.broadcast_to(self.mask, D.shape)
        lit = good & (D > 0.25)
        if not lit.any():
            return 1.0
        return float(np.square(np.sqrt(D[lit]) - np.sqrt(self.data[lit])).sum() / counting_noise(D[lit]).sum())
