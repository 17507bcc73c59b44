"""What the fits take at their largest moment, bytes beside data, mask and start.

Each function counts the arrays that its fit has at each stage, as the code there makes them: crystals (`Crystals`), a
pass over frames (`pendel.model.memory`), and the vectors of L-BFGS-B.
"""

import math
from typing import NamedTuple

import numpy as np

from ..base import checks
from ..base.arrays import host
from ..model.memory import Compared, PassMemory
from .total_variation import SLAB

DOUBLE, INTEGER = 8, 4
# Vectors of float64 beside the pairs: five of SciPy's L-BFGS-B, both bounds, x, and the gradient with the copy that
# each step begins with; x as `ScalarFunction` has it, twice, and `MemoizeJac`; the first x and the latest of
# `minimise`; and the gradient as it is made. And its vectors of integers.
VECTORS, WHOLE_NUMBERS = 16, 4
# Bounds of an unknown as SciPy takes them: a tuple in a list and its numbers; as an array; x clipped to them.
BOUNDED = 64 + 24 + 16 + 8
# Arrays up to so many bytes lie in the heap of the C library (glibc's DEFAULT_MMAP_THRESHOLD_MAX), where what is freed
# leaves holes that the next one may not fit into; larger ones go back at once. bench/memory.py: holes of two arrays.
HEAP, HOLES = 32 << 20, 2
CROSS = 0.83  # by how much a ball's radius grows where it is dilated along the axes, voxels


class Crystals(NamedTuple):
    """Bytes of an array of a model's voxels: complex, real, float64, bool; and how many voxels there are."""

    complex: int
    real: int
    double: int
    flag: int
    voxels: int

    @classmethod
    def of(cls, model):
        voxels = math.prod(model.shape)
        return cls(model.dtype.itemsize * voxels, model.real_dtype.itemsize * voxels, DOUBLE * voxels, voxels, voxels)


class Given(NamedTuple):
    """What a fit is given: dtype of the data, dimensions of the mask (0: none), whether it keeps a checkpoint."""

    data: np.dtype = np.dtype("float32")
    mask_axes: int = 0
    checkpoint: bool = False


def holes(of):
    """Of freed arrays that the C library keeps."""
    return HOLES * of.complex if of.complex <= HEAP else 0


def voxels_in(model, support=None):
    """How many voxels are in a support, bool (nz, ny, nx); None: in the ellipsoid that `initial` begins with."""
    if support is None:
        return int(0.8**3 * math.pi / 6 * math.prod(model.shape))
    return int(np.count_nonzero(checks.array("support", host(support, "support"), model.shape, bool)))


def minibatch(model, recipe, given):
    """Of `reconstruct`.

    Parameters
    ----------
    model : Model
    recipe : MinibatchRecipe
    given : Given
    """
    of = Crystals.of(model)
    passes = PassMemory(model, Compared.of(of.real // of.voxels, recipe, given.mask_axes), recipe.s_0 != "tied")
    free, moves_phase = recipe.s_0 == "free", recipe.phases_first > 0
    moments = of.complex + of.real + free * 2 * of.real + moves_phase * 2 * of.real
    run = of.complex + of.flag + moments + free * of.real
    copy = run if given.checkpoint and recipe.checkpoint_every > 1 else 0
    kept = holes(of) + passes.fit + of.complex + of.flag + run + copy  # with S and support to begin with

    group = -(-model.n_frames // min(recipe.batches, model.n_frames))
    density = of.real * (recipe.s_0 == "support")
    evaluated = density + max(passes.gradient(group), variation(of) if recipe.atv_weight else 0)
    # gradient, direction, S moved, its size, S within the bound
    step = 4 * of.complex + of.real * (1 + 2 * free)
    moved = run if recipe.moves_every else 0  # rolled, all of it
    end = passes.without_gradient(model.n_frames) + density - moments
    return kept + max(evaluated, step, moved, copy, end)


def variation(of):
    """Of a gradient with that of the total variation, and their sum."""
    slab = min(SLAB, of.voxels)
    differences = slab * (3 * of.complex + 5 * of.real) // of.voxels
    return max(3 * of.complex, 2 * of.complex + differences)


def vectors(unknowns, memory):
    """Of L-BFGS-B for so many real unknowns, ``memory`` pairs kept."""
    return unknowns * ((2 * memory + VECTORS) * DOUBLE + WHOLE_NUMBERS * INTEGER)


def quasi_newton(model, recipe, given, inside):
    """Of `lbfgs`; recipe : LbfgsRecipe.  inside : voxels of the support."""
    of = Crystals.of(model)
    passes = PassMemory(model, Compared.of(of.real // of.voxels, recipe, given.mask_axes), recipe.s_0 != "tied")
    unknowns = inside * (1 if recipe.optimise == "phase" else 2 + (recipe.s_0 == "free"))
    # S and support to begin with, S at work; its start and bounds
    kept = holes(of) + passes.fit + 2 * of.complex + of.flag + 2 * inside * DOUBLE + unknowns * (2 * DOUBLE + BOUNDED)
    kept += vectors(unknowns, recipe.memory) + of.real * (recipe.s_0 != "tied")
    adjoint = of.complex + inside * 7 * DOUBLE  # gradients of the amplitudes and phases, and what they are made of
    return kept + max(passes.gradient(model.n_frames), adjoint, variation(of) if recipe.atv_weight else 0)


def polishing(model, recipe, given, inside):
    """Of `polish`.

    Parameters
    ----------
    model : Model
    recipe : PolishRecipe
    given : Given
    inside : voxels of the support, when it is widened
    """
    of = Crystals.of(model)
    real = of.real // of.voxels
    trusts = bool(recipe.trim and recipe.iterations[0])
    passes = PassMemory(model, Compared.of(real, recipe, given.mask_axes, trusts))
    # S to begin with and after the last run, support as it was and widened, S at work
    kept = holes(of) + passes.fit + 3 * of.complex + 2 * of.flag + perfection(of, recipe)
    kept += vectors(2 * inside, recipe.memory)

    complex_vector = 2 * DOUBLE * inside
    plain = of.complex + 6 * complex_vector  # priors: size, unit, gradient, and terms on their way to it
    terms = [passes.gradient(model.n_frames), plain]
    if not recipe.expects_perfection:
        terms.append(variation(of) if recipe.atv_weight else 0)
    else:
        terms.append(of.complex + 4 * complex_vector + roughness(of))
    begin = holes(of) + passes.fit + 2 * of.complex + 2 * of.flag + trusts * trust(passes, given)
    return max(kept + max(terms), begin)


def widened(inside, by):
    """Voxels of a ball of ``inside`` voxels that is dilated ``by`` voxels along the axes."""
    ball = 4 * math.pi / 3
    return int(ball * ((inside / ball) ** (1 / 3) + CROSS * by) ** 3)


def perfection(of, recipe):
    """What priors of a perfect crystal keep: solid and filled voxels, triples, and inverse variances found."""
    if not recipe.expects_perfection:
        return 0
    found = sum(value == "evidence" for value in (recipe.smoothness, recipe.uniformity) if isinstance(value, str))
    return 5 * of.flag + found * of.double


def roughness(of):
    """Of `Perfection.roughness`: S, unit, gradient, neighbours' sum, twice i times the bends, and what is added of it,
    complex128; size, bends, and these weighted, float64.
    """
    return (6 * 2 + 3) * of.double


def trust(passes, given):
    """Of `Objective.trusted`: computed frames, and amplitudes, residuals and their squares, good pixels beside them."""
    pixels = passes.frames * passes.pixels
    wide = np.result_type(np.sqrt(np.zeros(1, given.data)), f"f{passes.real}").itemsize
    compared = (passes.real + 3 * wide + 1) * pixels
    return max(passes.without_gradient(passes.frames), passes.intensities(passes.frames), compared)
