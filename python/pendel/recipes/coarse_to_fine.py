"""From coarse to fine: the crystal function found on few wide voxels first, where everything is cheap.

A scan seen with voxels ``factor`` times as wide is its own middle: the central pixels and frames, which are all that
such voxels can explain. On the coarsest level the search takes place (phasing, trials, minibatch Adam, polish), from
flat phases on the next one too; every finer one starts next to its solution and is only polished. Zeros of the far
field, which hold a reconstruction on its own level back, are mostly on the right side by then. On the finest level the
place of the crystal between the voxels matters too (`pendel.place`). Crystals of an extinction length and more do
without coarse levels (`pendel.recipes.thick_crystals`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..base.recipe import from_keywords, refuse_unknown, with_keywords_of
from ..fit.checkpoint_file import claimed, fields_of, signature_of
from ..fit.corrections import Corrections
from ..fit.objective import check_frames
from ..fit.polishing import PolishRecipe
from ..fit.result import Result
from ..fit.steps import Steps
from ..kinematic import KinematicResult
from ..model.model import Model
from ..operator.engine import Array
from .levels import levels_of, resample, sharpen
from .multiscale_recipe import MultiscaleRecipe
from .polisher import NO_NOISE, Polisher
from .searches import Search
from .starts import STARTS, Given

SOME_PHASE = 0.02  # |S| of a finer level's start above which a voxel is in its support, which is then one wider


@with_keywords_of(MultiscaleRecipe, NO_NOISE)
def multiscale(
    model: Model,
    data: Array,
    mask: Array | None = None,
    start: Array | str | None = None,
    support: Array | None = None,
    *,
    recipe: MultiscaleRecipe | None = None,
    phased: KinematicResult | None = None,
    checkpoint: Path | str | Steps | None = None,
    resume: bool = False,
    angle_offsets: np.ndarray | None = None,
    flux: np.ndarray | None = None,
    progress: bool | str = True,
    callback: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Result:
    """Reconstruct from nothing, or from a start, coarse to fine.

    With a model on a device phasing and what happens between levels stay on the host; searches and polish work as
    `reconstruct` and `polish` do with such a model.

    Parameters
    ----------
    model, data, mask : as in `reconstruct`
    start : "kinematic", "flat", "random", "solid", "smooth", complex (nz, ny, nx) on the grid of ``model``, or None
        "kinematic": HIO/ER on the coarsest level and `kinematic_start`'s trials, between whose twins a short search and
        a round of polish decide where they are close. "flat": constant phase in ``support``, or in the whole box, and
        one more level. "random": the same with a random phase for every voxel. "solid": constant phase in ``support``,
        or in an ellipsoid, and many searches, between which what they find is made a perfect crystal
        (`pendel.recipes.thick_crystals`), for crystals of an extinction length and more. "smooth": phases of few
        control points in ``support``, or in a shape that the autocorrelation tells (`pendel.recipes.smooth_phases`),
        for strong strain; the twin is decided by polish. None: "solid" where 0.8 of the
        box is thicker than an extinction length, unless ``phased`` or ``levels`` > 0 are given, "kinematic" elsewhere.
    support : bool (nz, ny, nx) to begin with, on the grid of ``model``; "kinematic" brings its own
    recipe : `MultiscaleRecipe`, or None; keywords replace its fields, and those of the `PolishRecipe`
        The latter steer polish alone, but for background and model_error: searches see all good pixels, with the
        likelihood that ``counts`` says and |S| at most 1. What is refined beside S is refined on the finest level. With
        ``counts`` their defaults are those of `pendel.recipes.polisher.COUNTED`.
    phased : `KinematicResult` of the coarsest level's data
    checkpoint : path of an HDF5 file, written after every step: a search, a polish, a round of it
    resume : steps of the checkpoint, which must be of the same data, model, start and recipe, are not done again
        The result is that of a run that was not interrupted, to the bit.
    angle_offsets, flux : as in `polish`; searches know the flux
    progress : as in `reconstruct`
    callback : as in `polish`, for every polish of a level; True ends that one

    Returns
    -------
    Result
        Of the finest level.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `kinematic_start`, `reconstruct` and `polish` do.
    """
    recipe, polishing = _recipes(recipe, keywords)
    data, mask = check_frames(model.experiment, data, mask)
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")
    ranks = model.ranks
    given = Given.checked(model, start, support, phased, ranks.shown(progress), recipe.levels)
    corrections = Corrections.checked(model, angle_offsets, flux)
    levels = _levels(model, data, mask, recipe, given, corrections)
    made_by = {"seed": recipe.seed, "start": given.kind, "levels": len(levels)}
    steps, path = (checkpoint, None) if isinstance(checkpoint, Steps) else (None, checkpoint)  # `solve` has them
    own = fields_of(recipe) | polishing | made_by | {"support": given.support} | corrections._asdict()
    ranks.refuse_different(own | {"start array": given.S})
    with claimed(path, resume, ranks):
        steps = Steps(path, resume, ranks=ranks) if steps is None else steps
        if steps.kept:
            steps.sign(_signature(model, data, mask, made_by, recipe, polishing, given, corrections))

        def run(i, found):
            part = steps.part(f"level {i}", levels[i].model)
            return _level(i, levels, found, given, recipe, polishing, callback, part)

        found = None
        for i in reversed(range(1, len(levels))):
            found = run(i, found)
        return run(0, found)


def _level(i, levels, found, given, recipe, polishing, callback, steps):
    """`Result` of a level, from what the coarser one ``found``, or None: from the start."""
    level, kind = levels[i], STARTS[given.kind]
    polisher = Polisher(level, recipe, polishing, level.corrections, callback, steps)

    def begin(within):
        search = Search(level, recipe, polisher.data, within)
        if found is None:
            return kind.run(given, search, polisher)
        S, inside = _finer(found, level.model)
        if kind.searches_twice and i == len(levels) - 2:
            S, inside = search.run(S, inside).crystal
        return S, inside

    S, inside = steps.crystal("start", begin)
    return polisher.finest(S, inside) if i == 0 else polisher.run(S, inside)


def _signature(model, data, mask, made_by, recipe, polishing, given, corrections):
    """Of which run a checkpoint is."""
    phased = None if given.phased is None else given.phased.object
    others = made_by | {"start array": given.S, "support": given.support, "phased": phased}
    others |= {"angle_offsets": corrections.angle_offsets, "flux": corrections.flux}
    own = {name: value for name, value in fields_of(recipe).items() if name not in others}
    return signature_of(model, data, mask, own, polishing, **others)


def _recipes(recipe, keywords):
    """(`MultiscaleRecipe`, keywords of the `PolishRecipe`) of a call."""
    refuse_unknown(keywords, MultiscaleRecipe.names() + PolishRecipe.names(), "multiscale")
    own = {name: value for name, value in keywords.items() if name in MultiscaleRecipe.names()}
    recipe = from_keywords(MultiscaleRecipe, recipe, own, "multiscale")
    polishing = {name: value for name, value in keywords.items() if name not in own}
    NO_NOISE.but(**polishing)  # checked now, not after the search
    return recipe, polishing


def _levels(model, data, mask, recipe, given, corrections):
    """[`Level`], the finest first."""
    kind = STARTS[given.kind]
    count = 0 if kind.alone and recipe.levels is None else recipe.levels
    smallest = recipe.smallest_blind if kind.searches_twice else recipe.smallest
    return levels_of(model, data, mask, count, smallest, given.progress, corrections)


def _finer(found, model):
    """(S, support) of what a coarser level found, on the grid of a finer ``model``."""
    S = sharpen(resample(found.S, found.voxel, model))
    return S, ndimage.binary_dilation(np.abs(S) > SOME_PHASE)
