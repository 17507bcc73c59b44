"""How a level is polished: once, or, the finest, in steps between which the crystal finds its place."""

import functools

import numpy as np

from ..fit.corrections import Corrections
from ..fit.objective import DataRecipe, begun
from ..fit.polishing import PolishRecipe, counts_of, polish_fit, voxel_noise
from ..fit.result import host_background
from ..fit.steps import NO_STEPS, Steps
from .levels import Level
from .multiscale_recipe import MultiscaleRecipe
from .placing import place_fit

NO_NOISE = PolishRecipe(atv_weight=1e-4)  # bench/paper.py A --maker model, half, no noise
COUNTED = PolishRecipe(  # bench/paper.py A --maker model, small, 1e6 to 1e9 photons; atv_weight by `photon_weight`
    likelihood="poisson",
    background=0.01,  # counts per pixel: keeps a single stray count finite
    bound_weight=30.0,
    bulk_weight=100.0,
    trim=None,
)
# bench/foreign.py, smooth (1), 1e8 photons, `multiscale`: 0.068 rad without the last, 0.0615 with it.
EVIDENCE = dict.fromkeys(("smoothness", "uniformity", "sharpness"), "evidence")


def data_recipe(counts, keywords=()):
    """How searches compare frames; ``keywords``: fields of the `PolishRecipe` that were asked for."""
    known = {name: keywords[name] for name in ("background", "model_error") if name in keywords}
    return (COUNTED if counts else NO_NOISE).given_to(DataRecipe, **known)


class Polisher:
    """`polish` of a `Level`.

    Parameters
    ----------
    level : Level
    recipe : MultiscaleRecipe
    keywords : fields of the `PolishRecipe` that were asked for
    corrections, callback : as of `polish_fit`
    steps : `Steps` of the level
    """

    def __init__(
        self,
        level: Level,
        recipe: MultiscaleRecipe,
        keywords: dict,
        corrections: Corrections,
        callback,
        steps: Steps = NO_STEPS,
    ):
        self.level, self.recipe, self.steps = level, recipe, steps
        self.keywords = keywords | {"seed": recipe.seed}
        self.corrections, self.callback = corrections, callback
        self.data = data_recipe(recipe.counts, keywords)

    def recipe_for(self, support):
        """The `PolishRecipe` for a crystal in ``support``: total variation of counted data knows their noise."""
        base = COUNTED if self.recipe.counts else NO_NOISE
        if self.recipe.counts:
            base = base.but(atv_weight=voxel_noise(self._counts, np.count_nonzero(support)))
        return base.but(**self.keywords)

    @functools.cached_property
    def _counts(self):
        return counts_of(self.level.data, self.level.mask)

    def run(self, S, support):
        """`Result` of all rounds, with S alone."""
        recipe = self.recipe_for(support).without_refinement()
        return self._polish("polish", S, support, recipe.but(rounds=self.recipe.rounds))

    def finest(self, S, support):
        """`Result` on the finest level: rounds, the place between the voxels, rounds again, of counts by evidence."""
        counts, rounds = self.recipe.counts, self.recipe.rounds
        recipe = self.recipe_for(support)
        if not counts and rounds == 1:
            return self._polish("polish", S, support, recipe.but(rounds=1))

        # evidence is that of where it begins: not on the way
        found = self._polish("polish", S, support, recipe.but(rounds=rounds if counts else 1))
        S, support = found.S, found.support
        places = not counts if self.recipe.places is None else self.recipe.places
        if places:
            S, support = self.steps.crystal("place", lambda _: self._placed(S, support, recipe))

        evidence = {name: value for name, value in EVIDENCE.items() if counts and name not in self.keywords}
        last = recipe.but(widen=0, rounds=rounds if counts else rounds - 1, **evidence)
        return self._polish("last polish", S, support, last)

    def _placed(self, S, support, recipe):
        fit, progress = self.level.fit(recipe), self.level.name
        return place_fit(fit, S, support, recipe, progress=progress, corrections=self.corrections)[:2]

    def _polish(self, name, S, support, recipe):
        fit, title = self.level.fit(recipe), self.level.titled("polish")

        def compute(steps):
            start = begun(S, support, recipe.amplitude_bound)
            return polish_fit(fit, start, support, recipe, title, self.callback, self.corrections, steps)

        found = self.steps.result(name, compute, self.level.model, lambda: host_background(fit))
        self.corrections = found.corrections
        return found
