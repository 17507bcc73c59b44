"""Where between the voxels a crystal stands.

Data do not tell a crystal from the same one moved, but a grid of voxels does: what its surface holds beyond the band of
the grid is folded back with a phase that goes with the place. A scan that one place explains is met less well by all
others, worst half a voxel away, and there, halfway between two equally good ones, the way downhill is flat: an
optimiser stays. From a quarter of a voxel `polish` finds the way.
"""

import numpy as np

from ..base import checks
from ..fit.polishing import polish


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


def place(model, data, mask, S, support, *, iterations=40, progress=True, **recipe):
    """Try the crystal half a voxel further along each axis in turn, and keep it there where that is better.

    Parameters
    ----------
    model, data, mask, S, support : of a polished crystal; data as in `polish`.
    iterations : of `polish`, for what is there, as it is and with a steeper surface, and for each of the three trials:
        the smaller loss is kept. With counted photons the total variation may decide instead of the data.
    progress, recipe : further arguments of `polish`.

    Returns (S, support, moved): moved is a tuple of three bool (z, y, x).
    """
    iterations = checks.integer("iterations", iterations, at_least=1)
    recipe |= {"rounds": 1, "iterations": (0, iterations), "trim": None, "widen": 0}
    recipe.pop("callback", None)
    title = progress if isinstance(progress, str) else ""

    def trial(S, support, name):
        return polish(model, data, mask, S, support, progress=progress and f"{title}{name}", **recipe)

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
