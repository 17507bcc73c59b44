"""The last step of `solve`: polish on the voxels that the light asks for, and whether what is found can be trusted."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..analysis.comparison import compare
from ..base.symmetry import twin
from ..fit.evidence import Perfection
from ..fit.expected import expected_counts
from ..fit.objective import measured
from ..fit.polishing import counts_of, polish_fit, voxel_noise
from ..fit.result import Result, host_background
from ..fit.steps import NO_STEPS, Steps
from ..model.model import Model
from .in_band import in_band_start
from .polisher import COUNTED, EVIDENCE
from .solve_recipe import SolveRecipe
from .trust import ALIKE, ALL_PHOTONS, Trust, cut_axes, excess_of, turns_of

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
# Iterations of a look at a crystal and its twin. bench/foreign.py, 1e6 to 1e8 photons: 15 tell as well as 30.
SHORT = 15
PREFERRED = 0.98  # misfit of the twin over the crystal's, after that look, below which it is tried whole; chosen
FULL = 0.5  # |S| above which a voxel counts as the crystal's
SAME = 0.1  # rad, rms, up to which a crystal and its twin are the same; chosen
# Steps that leave the crystals before them to be asked for: what comes after them may begin with these.
BESIDE = ("rougher", "refined 2", "coherence", "with variance")


def _as_it_is(result):
    """(S, support, corrections)."""
    return result.S, result.support, result.corrections


class Carried(NamedTuple):
    """A crystal on the voxels of the result, its excess, and the variance of a pixel that its last fit went by."""

    result: Result
    excess: float
    variance: float


@dataclass(frozen=True)
class FineStep:
    """The last step: polish on the voxels that the light asks for.

    model, wide : `Model` on them, and on voxels of the data's resolution
    prefix : of the names of its steps
    names : of the steps whose crystals are still asked for
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
    prefix: str = ""
    names: list = dataclasses.field(default_factory=list)

    def solve(self, found, noise, grid):
        """The `Result`, with its model and `Trust`; of the twin of what was ``found`` where that meets the frames."""
        carried = self.carried(found)
        ratio, other = self._twin(carried.result)
        if ratio < PREFERRED:
            again = dataclasses.replace(self, prefix="twin, ", names=[]).carried(other)
            if again.excess < carried.excess:
                carried, ratio = again, 1 / ratio
        result = carried.result
        if ratio < ALIKE and self._is_its_own_twin(result):
            ratio = None
        return dataclasses.replace(result, model=self.model, trust=self._trust(carried, noise, grid, ratio))

    def _trust(self, carried, noise, grid, twin):
        result = carried.result
        inside = np.abs(result.S) > FULL
        _, frame, its = excess_of(expected_counts(self.model, result), self.data, self.mask)
        return Trust(
            result.misfit,
            noise,
            grid,
            carried.excess,
            carried.variance,
            twin=twin,
            turns=turns_of(result.S, inside),
            cut=cut_axes(inside),
            frame=frame,
            frame_excess=its,
        )

    def _twin(self, result):
        """(misfit of the twin of a `Result` over its own, the twin), both polished shortly on wide voxels.

        Both begin with what the data have seen of them, so that the one is not better for having been polished longer.
        """
        S, support = in_band_start(result.S, result.voxel, self.wide)
        names, found = ("as found", "its twin"), []
        for name, begin in zip(names, ((S, support), (twin(S), twin(support))), strict=True):
            found.append(self._short_polish(name, *begin, result.corrections))
        return found[1].misfit / found[0].misfit, found[1]

    def _short_polish(self, name, S, support, corrections):
        recipe = self._recipe(self.wide, support, 1.0, {}).without_refinement().but(rounds=1, iterations=(0, SHORT))

        def compute(steps):
            title = f"{name}: polish" if self.progress else False
            fit = measured(self.wide, self.data, self.mask, recipe)
            return polish_fit(fit, S, support, recipe, title, None, corrections, steps)

        steps = self.steps.part("fine", self.wide)
        fit = functools.partial(measured, self.wide, self.data, self.mask, recipe)
        return steps.result(name, compute, self.wide, lambda: host_background(fit()))

    def _is_its_own_twin(self, result):
        """Whether the twin of a `Result` is the same crystal."""
        told = compare(twin(result.S), result.S, result.voxel, ramp=True)
        return told.phase_rmse < SAME

    def carried(self, found):
        """What was ``found`` on wide voxels, `Carried` to those of the result."""
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
        return Carried(result, excess, variance)

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
        result = steps.result(self.prefix + name, compute, model, background)
        if name not in BESIDE:
            steps.forget(self.names)
            self.names.clear()
        self.names.append(self.prefix + name)
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
        found = self.steps.part("fine").once(
            f"{self.prefix}excess of {name}", lambda _: {"excess": self._excess_of(result)}
        )
        return float(found["excess"])

    def _excess_of(self, result):
        model = self.model if result.voxel == self.model.voxel else self.wide
        return excess_of(expected_counts(model, result), self.data, self.mask)[0]
