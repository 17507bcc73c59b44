"""Where between the voxels a crystal stands.

Data do not tell a crystal from the same one moved, but a grid of voxels does: what its surface holds beyond the band of
the grid is folded back with a phase that goes with the place. A scan that one place explains is met less well by all
others, worst half a voxel away, and there, halfway between two equally good ones, the way downhill is flat: an
optimiser stays. From a quarter of a voxel `polish` finds the way.
"""

from typing import Any

import numpy as np

from ..base import checks
from ..base.recipe import from_keywords, with_keywords_of
from ..fit.corrections import NO_CORRECTIONS, Corrections
from ..fit.objective import begun, initial, measured
from ..fit.polishing import PolishRecipe, polish_fit
from ..model.model import Model
from ..operator.engine import Array

ITERATIONS = 40  # of every trial: with fewer, a crystal on its way is judged by where it is, not by where it goes


def half_step(S, axis, forward=True):
    """S moved by half a voxel along ``axis``, its surface kept as steep as it was.

    A mean of neighbours, and |S| about 1/2 then twice as steep, within [0, 1]: for the volume fractions 1, f, 0 across
    a flat face that is exact. Phases are those of the mean. Vacuum comes in from outside the box.
    """
    S = checks.array("S", S, (None, None, None), S.dtype, axes="(nz, ny, nx)")
    other = _beside(S, axis, forward)
    amplitude = np.clip(np.abs(S) + np.abs(other) - 0.5, 0, 1)
    mean = S + other
    return mean * (amplitude / np.maximum(np.abs(mean), np.finfo(amplitude.dtype).tiny))


@with_keywords_of(PolishRecipe)
def place(
    model: Model,
    data: Array,
    mask: Array | None,
    S: Array,
    support: Array | None,
    *,
    iterations: int = ITERATIONS,
    recipe: PolishRecipe | None = None,
    angle_offsets: np.ndarray | None = None,
    flux: np.ndarray | None = None,
    progress: bool | str = True,
    **keywords: Any,
) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    """Try the crystal half a voxel further along each axis in turn, and keep it there where that is better.

    Parameters
    ----------
    model, data, mask, S, support : of a polished crystal; data as in `polish`
    iterations : of `polish`, for what is there, as it is and with a steeper surface, and for each of the three trials
        The smaller loss is kept. With counted photons the total variation may decide instead of the data.
    recipe : `PolishRecipe`, or None; keywords replace its fields
        Its rounds, iterations, trim, widen and refinements are not used.
    angle_offsets, flux, progress : as in `polish`

    Returns
    -------
    (S, support, moved), moved a tuple of three bool (z, y, x)
    """
    iterations = checks.integer("iterations", iterations, at_least=1)
    recipe = from_keywords(PolishRecipe, recipe, keywords, "place")
    S, support = initial(model, S, support, None)
    corrections = Corrections.checked(model, angle_offsets, flux)
    return place_fit(measured(model, data, mask, recipe), S, support, recipe, iterations, progress, corrections)


def place_fit(fit, S, support, recipe, iterations=ITERATIONS, progress=True, corrections=NO_CORRECTIONS):
    """`place` of a `Fit`, from NumPy arrays of the model's dtype."""
    recipe = recipe.without_refinement().but(rounds=1, iterations=(0, iterations), trim=None, widen=0)
    title = progress if isinstance(progress, str) else ""

    def trial(S, support, name):
        S = begun(S, support, recipe.amplitude_bound)
        return polish_fit(fit, S, support, recipe, progress and f"{title}{name}", corrections=corrections)

    first = trial(S, support, "as it is")
    steep = half_step(half_step(first.S, 2), 2, False)  # what steepness alone gains is no reason to move
    again = trial(steep, first.support, "as it is, steep")
    best, moved = min(first, again, key=lambda result: result.loss[-1]), []
    for axis, name in enumerate("zyx"):
        used = np.nonzero(best.support.any(axis=tuple({0, 1, 2} - {axis})))[0]
        forward = used[0] + used[-1] < best.support.shape[axis]  # towards the side with more room
        widened = best.support | _beside(best.support, axis, forward)
        found = trial(half_step(best.S, axis, forward), widened, f"half a voxel along {name}")
        moved.append(bool(found.loss[-1] < best.loss[-1]))
        if moved[-1]:
            best = found
    return best.S, best.support, tuple(moved)


def _beside(S, axis, forward):
    """S moved by one voxel along ``axis``."""
    moved = np.zeros_like(S)
    to, of = [slice(None)] * 3, [slice(None)] * 3
    to[axis], of[axis] = (slice(1, None), slice(None, -1)) if forward else (slice(None, -1), slice(1, None))
    moved[tuple(to)] = S[tuple(of)]
    return moved
