"""From coarse to fine: the crystal function found on few wide voxels first, where everything is cheap.

A scan seen with voxels ``factor`` times as wide is its own middle: the central pixels and frames, which are all that
such voxels can explain. On the coarsest level the search takes place (phasing, trials, minibatch Adam, polish), from
flat phases on the next one too; every finer one starts next to its solution and is only polished. Zeros of the far
field, which hold a reconstruction on its own level back, are mostly on the right side by then. On the finest level the
place of the crystal between the voxels matters too (`pendel.place`). Crystals of an extinction length and more do
without coarse levels (`pendel.recipes.thick_crystals`).
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.arrays import host
from ..base.recipe import from_keywords, refuse_unknown, with_keywords_of
from ..experiment.coherence import Coherence
from ..fit.corrections import NO_CORRECTIONS, Corrections
from ..fit.objective import Objective
from ..fit.polishing import PolishRecipe
from ..fit.result import Result, finish
from ..io import hdf5
from ..kinematic import KinematicResult
from ..model.model import Model
from ..operator.engine import Array
from .levels import levels_of, resample, sharpen
from .multiscale_recipe import MultiscaleRecipe
from .polisher import NO_NOISE, Polisher, data_recipe
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
    checkpoint: Path | str | None = None,
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
    model, data, mask, progress : as in `reconstruct`
    start : "kinematic", "flat", "random", "solid", complex (nz, ny, nx) on the grid of ``model``, or None
        "kinematic": HIO/ER on the coarsest level and `kinematic_start`'s trials, between whose twins a short search and
        a round of polish decide where they are close. "flat": constant phase in ``support``, or in the whole box, and
        one more level. "random": the same with a random phase for every voxel. "solid": constant phase in ``support``,
        or in an ellipsoid, and many searches, between which what they find is made a perfect crystal
        (`pendel.recipes.thick_crystals`), for crystals of an extinction length and more. None: "solid" where 0.8 of the
        box is thicker than an extinction length, unless ``phased`` or ``levels`` > 0 are given, "kinematic" elsewhere.
    support : bool (nz, ny, nx) to begin with, on the grid of ``model``; "kinematic" brings its own
    recipe : `MultiscaleRecipe`, or None; keywords replace its fields, and those of the `PolishRecipe`
        The latter steer polish alone, but for background and model_error: searches see all good pixels, with the
        likelihood that ``counts`` says and |S| at most 1. What is refined beside S is refined on the finest level. With
        ``counts`` their defaults are those of `pendel.recipes.polisher.COUNTED`.
    phased : `KinematicResult` of the coarsest level's data
    checkpoint : path of an HDF5 file written after every level (so with "solid" at the end)
    resume : levels of the checkpoint, of the same start, seed and number of levels, are not done again
    angle_offsets, flux : as in `polish`; searches know the flux
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
    if resume and checkpoint is None:
        raise ValueError("resume: expected a checkpoint path with resume=True, got checkpoint=None")
    given = Given.checked(model, start, support, phased, progress, recipe.levels)
    corrections = Corrections.checked(model, angle_offsets, flux)
    levels = _levels(model, host(data), host(mask), recipe, given, corrections)
    made_by = {"seed": recipe.seed, "start": given.kind, "levels": len(levels)}
    found = _load(checkpoint, made_by) if resume and os.path.exists(checkpoint) else None

    for i in reversed(range(len(levels) if found is None else found.level)):
        level = levels[i]
        polisher = Polisher(level, recipe, polishing, level.corrections, callback)
        search = Search(level, recipe, polisher.data)
        if found is None:
            S, inside = STARTS[given.kind].run(given, search, polisher)
        else:
            S, inside = _finer(found, level.model)
            if STARTS[given.kind].searches_twice and i == len(levels) - 2:
                S, inside = search.run(S, inside).crystal
        found = polisher.finest(S, inside) if i == 0 else polisher.run(S, inside)
        if checkpoint:
            _save(checkpoint, found, i, made_by)

    if isinstance(found, _Done):  # nothing was left to do
        S, support = found.checked(model)
        objective, found_with = Objective(levels[0].fit(data_recipe(recipe.counts, polishing))), found.corrections
        return finish(objective, S, support, {}, 0, recipe.seed, None, *found_with.filled(corrections))
    return found


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


@dataclass
class _Done:
    """What a checkpoint holds."""

    S: np.ndarray
    support: np.ndarray
    voxel: tuple
    level: int
    corrections: Corrections = NO_CORRECTIONS

    def checked(self, model):
        """(S, support) as the model wants them, where it is of the same shape."""
        S = checks.array("checkpoint (S)", self.S, model.shape, model.dtype, axes="(nz, ny, nx)")
        return S, checks.array("checkpoint (support)", self.support, model.shape, bool, axes="(nz, ny, nx)")


def _save(path, result, level, made_by):
    with hdf5.replacing(path) as file:
        file.attrs.update({"pendel_multiscale": 1, "level": level, "voxel": result.voxel} | made_by)
        file.create_dataset("S", data=result.S)
        file.create_dataset("support", data=result.support)
        for name, value in result.corrections._asdict().items():
            if value is not None:
                numbers = dataclasses.astuple(value) if isinstance(value, Coherence) else value
                file.create_dataset(name, data=numbers)


def _load(path, made_by):
    try:
        with h5py.File(path, "r") as file:
            if "pendel_multiscale" not in file.attrs:
                raise ValueError("no checkpoint of multiscale in it")
            for name, wanted in made_by.items():
                stored = file.attrs.get(name)
                if stored != wanted:
                    raise ValueError(f"its {name} is {stored}, not {wanted}")
            arrays = file["S"][()], file["support"][()], tuple(map(float, file.attrs["voxel"]))
            found = {name: file[name][()] for name in Corrections._fields if name in file}
            if "point_spread" in found:
                found["point_spread"] = tuple(found["point_spread"].tolist())
            if "coherence" in found:
                *widths, modes = found["coherence"].tolist()
                found["coherence"] = Coherence(*widths, int(modes))
            return _Done(*arrays, int(file.attrs["level"]), Corrections(**found))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint: expected one of pendel.multiscale, got {path}: {error}") from None
