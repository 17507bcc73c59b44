"""What the fits take at their largest moment, bytes beside data, mask and start.

Each function counts the arrays that its fit has at each stage, as the code there makes them: crystals (`Crystals`), a
pass over frames (`pendel.model.memory`), and the vectors of L-BFGS-B.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.arrays import host
from ..kinematic.support import reference_amplitude
from ..model.memory import Compared, PassMemory
from .evidence import SOLID
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
BALL = math.pi / 6  # of its box
# Of `pendel.model.pixels.local_mean` per pixel, which refined corrections are told by.
LOCAL_MEAN = 5 * DOUBLE


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


class Voxels(NamedTuple):
    """How many voxels are in a support, and in the box about the crystal there."""

    inside: int
    box: int

    @classmethod
    def of(cls, model, support=None, S=None):
        """Of a support, bool (nz, ny, nx), and S in it, where it is known; None: as `initial` begins."""
        if support is None:
            return cls.ball(0.8**3 * BALL * math.prod(model.shape))
        solid = support = checks.array("support", host(support, "support"), model.shape, bool)
        if S is not None and support.any():
            size = np.abs(checks.array("start", host(S, "start"), model.shape, np.complex128))
            solid = support & (size > SOLID * reference_amplitude(size, support=support, above=0.3))
        box = ndimage.find_objects(solid.astype(np.uint8))
        return cls(int(np.count_nonzero(support)), math.prod(s.stop - s.start for s in box[0]) if box else 0)

    @classmethod
    def ball(cls, inside):
        """Of a ball."""
        return cls(int(inside), int(inside / BALL))

    def times(self, share):
        """Of the same crystal on other voxels."""
        return Voxels(int(self.inside * share), int(self.box * share))

    def found(self):
        """Of a crystal that a search has found: blurred by a voxel."""
        return self._replace(box=int((self.box ** (1 / 3) + 1) ** 3))

    def widened(self, by):
        """Of a ball of so many that is dilated ``by`` voxels along the axes; the crystal in it is the same."""
        ball = 4 * math.pi / 3
        return self._replace(inside=int(ball * ((self.inside / ball) ** (1 / 3) + CROSS * by) ** 3))


def holes(of):
    """Of freed arrays that the C library keeps."""
    return HOLES * of.complex if of.complex <= HEAP else 0


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
    """Of `lbfgs`; recipe : LbfgsRecipe.  inside : how many voxels the support has."""
    of = Crystals.of(model)
    compared = Compared.of(of.real // of.voxels, recipe, given.mask_axes)
    passes = PassMemory(model, compared, recipe.s_0 != "tied", recipe.refine_coherence)
    unknowns = inside * (1 if recipe.optimise == "phase" else 2 + (recipe.s_0 == "free"))
    # S and support to begin with; its start and bounds
    kept = holes(of) + passes.fit + of.complex + of.flag + 2 * inside * DOUBLE + unknowns * (2 * DOUBLE + BOUNDED)
    kept += vectors(unknowns, recipe.memory) + of.real * (recipe.s_0 != "tied")
    kept += given.checkpoint * unknowns * DOUBLE  # x of the run before
    adjoint = inside * 7 * DOUBLE  # gradients of the amplitudes and phases, and what they are made of
    at_work = max(passes.gradient(model.n_frames), variation(of) if recipe.atv_weight else 0)
    return max(kept + max(of.complex + at_work, adjoint), begin(of, passes, recipe, 0))


def polishing(model, recipe, given, voxels):
    """Of `polish`.

    Parameters
    ----------
    model : Model
    recipe : PolishRecipe
    given : Given
    voxels : `Voxels` of the support, when it is widened
    """
    of = Crystals.of(model)
    trusts = bool(recipe.trim and recipe.iterations[0])
    compared = Compared.of(of.real // of.voxels, recipe, given.mask_axes, trusts)
    passes = PassMemory(model, compared, coherence=recipe.refine_coherence)
    # S to begin with and after the last run, support as it was and widened
    kept = holes(of) + passes.fit + 2 * of.complex + 2 * of.flag
    kept += given.checkpoint * (recipe.rounds * (1 + trusts) - 1) * of.complex  # S of the runs before

    complex_vector = 2 * DOUBLE * voxels.inside
    at_work, priors = of.complex + passes.gradient(model.n_frames), 6 * complex_vector  # size, unit, terms, gradient
    if recipe.expects_perfection:
        own = perfection(of, recipe) + preconditioned(voxels, recipe.memory)
        priors = max(priors, 4 * complex_vector + roughness(of))
    else:
        own = vectors(2 * voxels.inside, recipe.memory)
        at_work = max(at_work, of.complex + variation(of) if recipe.atv_weight else 0)
    return max(kept + own + max(at_work, priors), begin(of, passes, recipe, trusts * trust(passes, given)))


def begin(of, passes, recipe, trusted):
    """Before there are vectors: pixels ``trusted``, corrections that are refined."""
    refined = LOCAL_MEAN * passes.frames * passes.pixels if recipe.refines else 0
    return holes(of) + passes.fit + 2 * of.complex + 2 * of.flag + max(trusted, refined)


def preconditioned(voxels, memory):
    """Of vectors of `Preconditioned` unknowns, and of what these keep.

    x, values, wave and unit, complex; full, stretch and give; M and G.
    """
    unknowns = 2 * voxels.inside + voxels.box
    return vectors(unknowns, memory) + DOUBLE * (unknowns + 9 * voxels.inside + voxels.box) + voxels.box


def perfection(of, recipe):
    """What priors of a perfect crystal keep: solid and filled voxels, triples, and inverse variances found."""
    if not recipe.expects_perfection:
        return 0
    found = sum(value == "evidence" for value in (recipe.smoothness, recipe.uniformity) if isinstance(value, str))
    return 5 * of.flag + found * of.double


def roughness(of):
    """Of `Perfection.roughness`: S, unit, gradient, neighbours' sum, twice i times the bends, and what is added of it,
    complex128; size, float64.
    """
    return (6 * 2 + 1) * of.double


def trust(passes, given):
    """Of `Objective.trusted`: computed frames, and amplitudes, residuals and their squares, good pixels beside them."""
    pixels = passes.frames * passes.pixels
    wide = np.result_type(np.sqrt(np.zeros(1, given.data)), f"f{passes.real}").itemsize
    compared = (passes.real + 3 * wide + 1) * pixels
    return max(passes.without_gradient(passes.frames), passes.intensities(passes.frames), compared)
