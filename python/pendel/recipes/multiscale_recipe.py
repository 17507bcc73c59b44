"""The numbers that steer `multiscale`, with the bench that set them where one did."""

from dataclasses import dataclass

from ..base.recipe import Recipe, flag, integer, maybe, number, option, recipe_of
from .smooth_phases import SMOOTH, SmoothRecipe
from .thick_crystals import SOLID, SolidRecipe

SEEDS = "bench/paper.py A --maker model --size small --start flat, seeds 0 to 9: ten of ten"


@dataclass(frozen=True)
class MultiscaleRecipe(Recipe):
    """`multiscale`; how it polishes is a `PolishRecipe`, see `pendel.recipes.polisher`.

    Where no bench is named the value was not scanned.
    """

    levels: int | None = option(
        None,
        maybe(integer(at_least=0)),
        "times the voxels are doubled; None: while the detector keeps some 48 pixels (see ``smallest``) and the scan 8"
        ' frames, none with "solid", "smooth" or a start of one\'s own.',
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
        set_by="bench/paper.py A --maker model --starts: with one start about half of the small cubes stagnate in HIO",
    )
    trial_epochs: int = option(
        25, integer(at_least=0), "of each candidate of the kinematic start; 0: no trial, as phased."
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
        set_by="bench/paper.py A --maker model, photons 1e7, seed 0: evidence one round earlier ends at 0.037 instead"
        " of 0.0094 rad",
    )
    places: bool | None = option(
        None,
        maybe(flag),
        "whether `pendel.place` looks for a better place between the voxels of the finest level, after the first of two"
        " rounds or more there (with ``counts``, the last without evidence); None: not with ``counts``, whose noise"
        " hides it.",
    )
    seed: int = option(
        0,
        integer(at_least=0),
        "of all that is random: phasing, groups of frames, blind starts, held-out pixels.",
    )
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
        set_by="bench/paper.py B --maker model --size half: the trials differ by 3 %, whole searches by 1 %, the"
        " polished losses are 0.62 and 0.85; 1.5 leaves a wide margin above the 3 %",
    )
    decide: int = option(4, integer(at_least=1), "these short searches have this part of the steps.")
    solid_rate: float = option(
        0.1,
        number(above=0),
        "of the searches between which a crystal is made solid.",
        set_by="bench/paper.py C --maker model, one extinction length: 0.0018 rad",
    )
    solid_part: int = option(4, integer(at_least=1), "each of these has this part of the steps.")
    solid: SolidRecipe = option(SOLID, recipe_of(SolidRecipe), 'how "solid" goes from search to search.')
    smooth: SmoothRecipe = option(SMOOTH, recipe_of(SmoothRecipe), 'how "smooth" goes from shape to shape.')
