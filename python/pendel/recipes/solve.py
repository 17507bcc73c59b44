"""One call from a scan to its crystal: `solve` chooses box, way and voxels.

1. The box: the scan is phased kinematically, and the phased object tells the size. Where phases miss the frames, the
   same sharpened are phased too (`pendel.recipes.sharpening`).
2. The way: `pendel.multiscale` on voxels of the data's resolution, from the phases, or for thick crystals from shapes.
   Where that misses the frames by far more than photons and voxels explain, it is done again with smooth phases first,
   in a box that the autocorrelation tells, and the better one of both is taken (`pendel.recipes.first_step`), unless
   ``strong=False``.
3. The voxels: as fine as the light asks for (`pendel.recipes.voxels`).
4. What the data have seen is carried to them (`pendel.recipes.in_band`), and polished there with smoothness,
   uniformity and sharpness by evidence.
5. Where the frames are missed by more than photon noise, step 4 is done again with the angles, the flux, the background
   and the point spread refined too, on the data's voxels first, and there with the beam's coherence as well, which
   stays if the frames are met better; what they leave enters as variance, in proportion to that of photons, unless the
   fit then misses far more.
6. The twin of what was found is looked at beside it, tried where the frames prefer it, and a verdict is said
   (`pendel.recipes.fine`, `pendel.recipes.trust`).

Without photons to count, frames are taken for as many counts as `BRIGHT` says.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..base import checks, plausible
from ..base.arrays import host
from ..base.recipe import from_keywords, refuse_unknown, with_keywords_of
from ..experiment.crystal import Crystal
from ..experiment.geometry import Experiment
from ..fit.checkpoint_file import claimed, fields_of
from ..fit.objective import check_frames
from ..fit.polishing import PolishRecipe, counts_of
from ..fit.result import Result
from ..fit.steps import Steps
from ..kinematic import KinematicResult, box_for
from ..model.model import Model
from ..model.signature import as_text, signature_of_model
from ..operator.engine import Array
from .fine import FineStep
from .first_step import FirstStep, box_about, box_without_phases, known_background
from .levels import like, unit_flux
from .polisher import COUNTED
from .sharpening import USUAL, phase_blurred, phase_sharpened
from .solve_recipe import SolveRecipe
from .thick_crystals import thick
from .voxels import fine_enough, grid_misfit, noise_misfit

BRIGHT = 4000.0  # mean counts of a pixel that frames without noise are taken for: 1e9 in 65 frames of 64 x 64
DARK = 1e-3  # part of the good pixels that are exactly 0 in counted frames, at least
SOLVED_BY = ("recipe", "phased", "angle_offsets", "flux", "checkpoint", "resume", "callback", "support")


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
        another program's, of `pendel.cohere.read_results` for example, are not sought again. None and "kinematic": as
        there, and, unless ``strong=False``, "smooth" where that misses the frames by far more than photons and voxels
        explain.
    seed : int
    device, threads : as in `Model`
    model_options : further arguments of `Model`
    progress : as in `reconstruct`
    **keywords : of `solve_on`

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
    coarse, told, blurred = experiment.suggest_voxel(), dict(options), None
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
        progress = small.ranks.shown(progress)
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
            if not any(options["point_spread"]):
                wide = options | {"point_spread": (USUAL, USUAL)}
                blurred = functools.partial(_taken_for_blurred, crystal, coarse, wide, light, mask, how, progress)
    model = Model(experiment, crystal, shape, coarse, **options)
    plain = Model(experiment, crystal, shape, coarse, **told) if recipe.strong else None
    known: dict[str, Any] = {
        "counts": counts,
        "voxel": voxel,
        "seed": seed,
        "phased": phased,
        "plain": plain,
        "blurred": blurred,
        "progress": progress,
    }
    return solve_on(model, data, mask, start, **known, **keywords)


def _taken_for_blurred(crystal, voxel, options, light, mask, how, progress):
    """(`Model` with a point spread, phases of the frames without it); ``options`` of `Model`, ``how`` of `phase`."""
    phased = phase_sharpened(light, mask, options["point_spread"], progress=progress, **how)
    shape = box_for(phased, how["experiment"], voxel)
    return Model(how["experiment"], crystal, shape, voxel, **options), phased


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
    blurred: Callable[[], tuple[Model, KinematicResult]] | None = None,
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
    blurred : function without arguments, or None
        Gives a model with a point spread, and phases of the frames without it, to be tried where the frames are missed.
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
    ranks, progress = model.ranks, model.ranks.shown(progress)
    ranks.refuse_different(fields_of(recipe) | polishing | {"voxel of the result": voxel, "factor": factor})
    with claimed(checkpoint, resume, ranks):
        steps = Steps(checkpoint, resume, "solve", ranks)
        if steps.kept:
            steps.sign(_signature(model, recipe, polishing, factor, voxel))
        levels = FirstStep(data, mask, recipe, polishing, angle_offsets, flux, progress, callback, steps)
        begins_with_phases = _begins_with_phases(model, start, recipe)
        model, found, noise = levels.find(
            model,
            start,
            support,
            phased if begins_with_phases else None,
            (plain or model) if recipe.strong else None,
            blurred if begins_with_phases else None,
        )
        fine, grid = _voxels(model, found, voxel, noise)
        last = FineStep(fine, model, data, mask, recipe, polishing, progress, callback, steps)
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
