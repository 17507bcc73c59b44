"""From coarse to fine: the crystal function found on few wide voxels first, where everything is cheap.

A scan seen with voxels ``factor`` times as wide is its own middle: the central pixels and frames, which are all that
such voxels can explain. On the coarsest level the search takes place (phasing, trials, minibatch Adam, polish), from
flat phases on the next one too; every finer one starts next to its solution and is only polished. Zeros of the far
field, which hold a reconstruction on its own level back, are mostly on the right side by then. On the finest level the
place of the crystal between the voxels matters too (`pendel.place`). Crystals of an extinction length and more do
without coarse levels (`pendel.recipes.thick_crystals`).
"""

import os
from dataclasses import dataclass

import h5py
import numpy as np
from scipy import ndimage

from ..base.arrays import host
from ..base.recipe import (
    Recipe,
    flag,
    from_keywords,
    integer,
    maybe,
    number,
    option,
    recipe_of,
    refuse_unknown,
    with_keywords_of,
)
from ..fit.objective import Objective
from ..fit.polishing import PolishRecipe
from ..fit.quasi_newton import Corrections
from ..fit.result import finish
from ..io import hdf5
from .levels import levels_of, resample, sharpen
from .polisher import NO_NOISE, Polisher, data_recipe
from .searches import Search
from .starts import ALONE, BLIND, STARTS, Given
from .thick_crystals import SOLID, SolidRecipe

SOME_PHASE = 0.02  # |S| of a finer level's start above which a voxel is in its support, which is then one wider
SEEDS = "bench/paper.py A --size small --start flat, seeds 0 to 9: ten of ten"


@dataclass(frozen=True)
class MultiscaleRecipe(Recipe):
    """`multiscale`; how it polishes is a `PolishRecipe`, see `pendel.recipes.polisher`.

    Where no bench is named the value was not scanned.
    """

    levels: int | None = option(
        None,
        maybe(integer(at_least=0)),
        "times the voxels are doubled; None: while the detector keeps some 48 pixels (see ``smallest``) and the scan 8"
        ' frames, none with "solid" or a start of one\'s own.',
    )
    counts: bool = option(
        False,
        flag,
        "whether the data are counted photons: Poisson likelihood, total variation by `photon_weight`, and then, on the"
        " finest level, smoothness and uniformity by evidence.",
    )
    starts: int = option(
        5,
        integer(at_least=1),
        'phasings, searches of "flat" and "random", or ellipsoids of "solid", 5 at most; the one of the smallest misfit'
        " is taken.",
        set_by="bench/paper.py A --starts: with one start about half of the small cubes stagnate in HIO",
    )
    trial_epochs: int = option(
        25, integer(at_least=0), "of each candidate of the kinematic start; 0: the object is taken as phased."
    )
    steps: int = option(
        3200,
        integer(at_least=1),
        "of minibatch Adam.",
        set_by=SEEDS + "; with 1600 seeds 4, 5, 8, 9 failed (0.03 to 0.09 rad)",
    )
    rounds: int = option(
        4,
        integer(at_least=1),
        "of `polish` on every level; with ``counts`` as many more by evidence on the finest level.",
        set_by="bench/paper.py A, photons 1e7, seed 0: evidence one round earlier ends at 0.037 instead of 0.0094 rad",
    )
    places: bool | None = option(
        None,
        maybe(flag),
        "whether `pendel.place` looks for a better place between the voxels of the finest level, after the first round"
        " there (with ``counts``, the last without evidence); None: not with ``counts``, whose noise hides it.",
    )
    seed: int = option(0, integer(at_least=0), "of phasing and of the random groups.")
    smallest: int = option(
        48,
        integer(at_least=16),
        "detector pixels of the coarsest level, at least, with phasing.",
    )
    smallest_blind: int = option(
        24, integer(at_least=16), 'the same with "flat" and "random", which do not phase.', set_by=SEEDS
    )
    frames_per_step: int = option(4, integer(at_least=1), "of minibatch Adam.", set_by=SEEDS)
    rate: float = option(0.05, number(above=0), "of minibatch Adam.", set_by=SEEDS)
    doubt: float = option(
        1.5,
        number(at_least=1),
        "the twin: ratio of both trial misfits up to which a short search of each, polished, decides.",
        set_by="bench/paper.py B --size half: the trials differ by 3 %, whole searches by 1 %, the polished losses are"
        " 0.62 and 0.85; 1.5 leaves a wide margin above the 3 %",
    )
    decide: int = option(4, integer(at_least=1), "these short searches have this part of the steps.")
    solid_rate: float = option(
        0.1,
        number(above=0),
        "of the searches between which a crystal is made solid.",
        set_by="bench/paper.py C, one extinction length: 0.0018 rad",
    )
    solid_part: int = option(4, integer(at_least=1), "each of these has this part of the steps.")
    solid: SolidRecipe = option(SOLID, recipe_of(SolidRecipe), 'how "solid" goes from search to search.')


@with_keywords_of(MultiscaleRecipe, NO_NOISE)
def multiscale(
    model,
    data,
    mask=None,
    start=None,
    support=None,
    *,
    recipe=None,
    phased=None,
    checkpoint=None,
    resume=False,
    angle_offsets=None,
    flux=None,
    progress=True,
    callback=None,
    **keywords,
):
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
        box is thicker than an extinction length, unless ``phased`` or ``levels`` are given, "kinematic" elsewhere.
    support : bool (nz, ny, nx) to begin with, on the grid of ``model``
    recipe : `MultiscaleRecipe`, or None; keywords replace its fields, and those of the `PolishRecipe`
        With ``counts`` the latter's defaults are those of `pendel.recipes.polisher.COUNTED`.
    phased : `KinematicResult` of the coarsest level's data
    checkpoint : path of an HDF5 file written after every level (so with "solid" at the end)
    resume : levels of the checkpoint, of the same start, seed and number of levels, are not done again
    angle_offsets, flux : as in `polish`, for a single level
    callback : as in `polish`

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
    given = Given.checked(model, start, support, phased, progress, recipe.levels)
    levels = _levels(model, host(data), host(mask), recipe, given)
    corrections = _corrections(model, angle_offsets, flux, levels)
    made_by = {"seed": recipe.seed, "start": given.kind, "levels": len(levels)}
    found = _load(checkpoint, made_by) if resume and checkpoint and os.path.exists(checkpoint) else None

    for i in reversed(range(len(levels) if found is None else found.level)):
        level = levels[i]
        polisher = Polisher(level, recipe, polishing, corrections, callback)
        search = Search(level, recipe, polisher.data)
        if found is None:
            S, inside = STARTS[given.kind](given, search, polisher)
        else:
            S, inside = _finer(found, level.model)
            if given.kind in BLIND and i == len(levels) - 2:
                S, inside = search.run(S, inside).crystal
        found = polisher.finest(S, inside) if i == 0 else polisher.run(S, inside)
        if checkpoint:
            _save(checkpoint, found, i, made_by)

    if isinstance(found, _Done):  # nothing was left to do
        return finish(Objective(levels[0].fit(data_recipe(recipe.counts))), found.S, found.support, {}, 0, recipe.seed)
    return found


def _recipes(recipe, keywords):
    """(`MultiscaleRecipe`, keywords of the `PolishRecipe`) of a call."""
    refuse_unknown(keywords, MultiscaleRecipe.names() + PolishRecipe.names(), "multiscale")
    own = {name: value for name, value in keywords.items() if name in MultiscaleRecipe.names()}
    recipe = from_keywords(MultiscaleRecipe, recipe, own, "multiscale")
    return recipe, {name: value for name, value in keywords.items() if name not in own}


def _levels(model, data, mask, recipe, given):
    """[`Level`], the finest first."""
    count = 0 if given.kind in ALONE and recipe.levels is None else recipe.levels
    smallest = recipe.smallest_blind if given.kind in BLIND else recipe.smallest
    return levels_of(model, data, mask, count, smallest, given.progress)


def _corrections(model, angle_offsets, flux, levels):
    corrections = Corrections.checked(model, angle_offsets, flux)
    if any(c is not None for c in corrections) and len(levels) > 1:
        raise ValueError(f"angle_offsets, flux: expected none with several levels, got some with {len(levels)}")
    return corrections


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


def _save(path, result, level, made_by):
    with hdf5.replacing(path) as file:
        file.attrs.update({"pendel_multiscale": 1, "level": level, "voxel": result.voxel} | made_by)
        file.create_dataset("S", data=result.S)
        file.create_dataset("support", data=result.support)


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
            return _Done(*arrays, int(file.attrs["level"]))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint: expected one of pendel.multiscale, got {path}: {error}") from None
