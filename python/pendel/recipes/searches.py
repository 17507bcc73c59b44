"""Searches on one level: minibatch Adam from a start, from many, or between crystals made solid or phases fitted."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from ..base.symmetry import twin
from ..fit.minibatch import MinibatchRecipe, fit_minibatches
from ..fit.objective import DataRecipe, Objective, ObjectiveRecipe, begun
from ..fit.polishing import polish_fit
from ..fit.steps import NO_STEPS, Steps
from ..kinematic.differences import differences
from .kinematic_starts import Start
from .levels import Level
from .multiscale_recipe import MultiscaleRecipe
from .smooth_phases import search_smooth
from .thick_crystals import search_solid
from .voxels import noise_misfit


@dataclass(frozen=True)
class Search:
    """Minibatch Adam on a `Level`.

    Attributes
    ----------
    level : Level
    recipe : MultiscaleRecipe
    data : DataRecipe, how frames are compared
    steps : `Steps` of the start, of which each of several searches is one
    """

    level: Level
    recipe: MultiscaleRecipe
    data: DataRecipe
    steps: Steps = NO_STEPS

    def run(self, S, support, what="", *, steps=None, rate=None, seed=None):
        """`Result` of a search from S, in the right valley if all went well; ``what`` begins its title."""
        model, recipe = self.level.model, self.recipe
        steps = recipe.steps if steps is None else steps
        batches = max(1, model.n_frames // recipe.frames_per_step)
        adam = self.data.given_to(
            MinibatchRecipe,
            epochs=max(1, steps // batches),
            batches=batches,
            learning_rate=recipe.rate if rate is None else rate,
            seed=recipe.seed if seed is None else seed,
            free_fraction=0.0,
        )
        objective = Objective.of(self.level.fit(adam), adam, self.level.corrections.flux)
        S = begun(S, support, adam.amplitude_bound)
        return fit_minibatches(objective, S, support, adam, progress=self.level.titled(f"{what}search"))

    def decide_twin(self, begun_with, polisher):
        """(S, support) of the twin of a `Start` to go on with.

        Where the trials leave a doubt (`MultiscaleRecipe.doubt`), it is the one that polish likes better after a short
        search. The search alone does not tell: where dynamical effects are weak the wrong twin, half of its phases
        gone, fits noise.
        """
        recipe, other = self.recipe, begun_with.other
        misfits = begun_with.trial_misfits
        if other is None or misfits[other.kind] > recipe.doubt * misfits[begun_with.kind]:
            return begun_with.S, begun_with.support

        # a look at both, with the same priors
        polishing = polisher.recipe_for(begun_with.support).without_refinement()
        polishing = polishing.but(smoothness=0.0, uniformity=0.0, rounds=1)
        losses = {}
        for start in (begun_with, other):
            what = f"{start.kind}, "
            found = self.run(start.S, start.support, what, steps=max(1, recipe.steps // recipe.decide))
            S = begun(found.S, found.support, polishing.amplitude_bound)
            shown = self.level.titled(f"{what}polish")
            found = polish_fit(
                self.level.fit(polishing), S, found.support, polishing, shown, corrections=polisher.corrections
            )
            losses[start.kind] = found.loss[-1] if len(found.loss) else math.inf
        best = begun_with if losses[begun_with.kind] <= losses[other.kind] else other
        return best.S, best.support

    def blind(self, support, scrambled):
        """(S, support) of the best of several searches without any phases to begin with, or with random ones.

        |S| grows from 0.05 to 0.95 along a random direction: a start that equals its own mirror image has no reason to
        leave the mixture of a crystal and its twin.
        """
        model, starts, seed = self.level.model, self.recipe.starts, self.recipe.seed
        places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in model.shape), indexing="ij"))

        def search(i):
            rng = np.random.default_rng([seed, i])
            direction = rng.normal(size=3)
            along = np.tensordot(direction / np.abs(direction).sum(), places, 1)
            S = np.where(support, 0.5 + 0.45 * along, 0).astype(model.dtype)
            if scrambled:
                S *= np.exp(2j * np.pi * rng.random(model.shape)).astype(model.dtype)
            return found_of(self.run(S, support, f"start {i + 1} of {starts}, ", seed=seed * starts + i))

        found = [self.steps.once(f"start {i + 1}", lambda _, i=i: search(i)) for i in range(starts)]
        best = min(found, key=lambda one: one["misfit"])
        return best["S"], best["support"]

    def solid(self, support):
        """(S, support) of a thick crystal."""
        recipe = self.recipe
        quick = {"steps": max(1, recipe.steps // recipe.solid_part), "rate": recipe.solid_rate}

        def search(start, cycle, S, support):
            what, pace = ("slow", {}) if start is None else (f"start {start + 1}", quick)
            return self.run(S, support, f"{what}, shape {cycle + 1}, ", seed=recipe.seed + cycle, **pace)

        return search_solid(self.level.model, search, support, recipe.starts, recipe.solid, self.steps)

    def smooth(self, shape):
        """`Start` of a strongly strained crystal, its twin as the other one; shape : bool to begin with, or None."""
        level, recipe = self.level, self.recipe
        if shape is None:
            told = differences(level.model.experiment, level.light(self.data.background), level.mask)
            shape = told.half(level.model.shape, level.model.voxel)

        # of amplitudes: Poisson's loss punishes too hard what is far from any crystal
        objective = self.data.given_to(ObjectiveRecipe, likelihood="amplitude", free_fraction=0.0)
        free = dataclasses.replace(self, data=self.data.but(likelihood="amplitude"))
        pace = {"steps": recipe.smooth.steps, "rate": recipe.smooth.rate}

        def search(cycle, S, support):
            what = f"shape {cycle + 1} of {recipe.smooth.cycles}, "
            return free.run(S, support, what, seed=recipe.seed + cycle, **pace)

        S, support, misfit = search_smooth(
            Objective.of(level.fit(objective), objective, level.corrections.flux),
            search,
            shape,
            recipe.smooth,
            recipe.seed,
            noise_misfit(level.data, level.mask) if recipe.counts else 0.0,
            level.titled,
            self.steps,
        )
        misfits, chi = {"phased": misfit, "twin phased": misfit}, math.sqrt(misfit)
        other = Start(twin(S), twin(support), chi, "twin phased", misfits)
        return Start(S, support, chi, "phased", misfits, other)


def found_of(result):
    """What of a `Result` of a search is gone on with, as a step."""
    return {"S": result.S, "support": result.support, "misfit": result.misfit}
