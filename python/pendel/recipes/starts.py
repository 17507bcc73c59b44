"""How the coarsest level comes to its crystal: one function for every start, and the table of them.

A new start is a function here and a line in STARTS, and a sentence in `multiscale`'s docstring. For configurations it
needs a line in STARTS of `pendel.app.starts` as well, and its name in ``own_starts`` of the method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.arrays import host
from ..kinematic import KinematicResult
from ..model.model import Model
from .kinematic_starts import TRIAL, checked_phased, phase, start_of, untried
from .levels import resample
from .polisher import Polisher
from .searches import Search
from .thick_crystals import thick

SHARED = 0.25  # part of a coarse voxel in a given support above which it is in the coarse one, which is then one wider


class Given(NamedTuple):
    """What a call of `multiscale` begins with; arrays NumPy's, on the grid of ``model``.

    kind : one of STARTS.  S : complex (nz, ny, nx), of "given".  support : bool (nz, ny, nx), or None.
    """

    model: Model
    kind: str
    S: np.ndarray | None
    support: np.ndarray | None
    phased: KinematicResult | None
    progress: bool | str

    @classmethod
    def checked(cls, model, start, support, phased, progress, levels):
        """Of `multiscale`'s arguments."""
        if start is None:
            start = "solid" if phased is None and not levels and thick(model) else "kinematic"
        kind, S = start if isinstance(start, str) else "given", None
        if isinstance(start, str):
            checks.choice("start", start, NAMES)
        shape, axes, support = model.shape, "(nz, ny, nx)", host(support, "support")
        if kind == "given":
            S = checks.array("start", host(start, "start"), shape, np.complex128, axes=axes)
        if support is not None:
            support = checks.array("support", support, shape, bool, axes=axes)
        return cls(model, kind, S, support, checked_phased(phased), progress)

    def on(self, model):
        """(S, support) on the grid of another model; without a start of one's own S is 1 in the support."""
        support = self.support
        if support is None:
            support = np.ones(self.model.shape, bool) if self.S is None else self.S != 0
        S = support.astype(self.model.dtype) if self.S is None else self.S
        if model is not self.model:
            S = resample(S, self.model.voxel, model)
            support = ndimage.binary_dilation(np.abs(resample(support, self.model.voxel, model)) > SHARED)
        return np.where(support, S, 0).astype(model.dtype), support


def kinematic(given, search, polisher):
    """A search from the phased object or its twin, or from flat phases in their support."""
    level, recipe, phased = search.level, search.recipe, given.phased
    if phased is None:
        phased = phase(
            level.light(search.data.background),
            level.mask,
            experiment=level.model.experiment,
            seed=recipe.seed,
            starts=recipe.starts,
            threads=level.model.threads,
            progress=given.progress,
        )
    if recipe.trial_epochs == 0:
        begun_with = untried(level.model, phased)
    else:
        trial = TRIAL.but(seed=recipe.seed, epochs=recipe.trial_epochs)
        begun_with = start_of(level.fit(trial), phased, trial, given.progress, flux=level.corrections.flux)
    return search.run(*search.decide_twin(begun_with, polisher)).crystal


def flat(given, search, polisher):
    """Searches from constant phase, in the support or the whole box."""
    return search.blind(given.on(search.level.model)[1], scrambled=False)


def random(given, search, polisher):
    """Searches from random phases."""
    return search.blind(given.on(search.level.model)[1], scrambled=True)


def solid(given, search, polisher):
    """Searches between which what was found is made a perfect crystal."""
    return search.solid(None if given.support is None else given.on(search.level.model)[1])


def smooth(given, search, polisher):
    """Phases of few control points first, from shape to shape, then the twin."""
    shape = given.on(search.level.model)[1] if given.support is not None else None
    return search.run(*search.decide_twin(search.smooth(shape), polisher)).crystal


def own(given, search, polisher):
    """A search from a start of one's own."""
    return search.run(*given.on(search.level.model)).crystal


@dataclass(frozen=True)
class StartKind:
    """A start.

    run : called as run(given, search, polisher), gives (S, support) on the coarsest level.
    searches_twice : also on the next level, which its crystal is searched on again, and on smaller levels: it does not
        phase.
    alone : on the finest level alone, if not asked for more.
    """

    run: Callable[[Given, Search, Polisher], tuple[np.ndarray, np.ndarray]]
    searches_twice: bool = False
    alone: bool = False


STARTS = {
    "kinematic": StartKind(kinematic),
    "flat": StartKind(flat, searches_twice=True),
    "random": StartKind(random, searches_twice=True),
    "solid": StartKind(solid, alone=True),
    "smooth": StartKind(smooth, alone=True),
    "given": StartKind(own, alone=True),
}
NAMES = tuple(name for name in STARTS if name != "given")  # what ``start`` may say
