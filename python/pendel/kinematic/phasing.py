"""Kinematic phasing of a rocking scan, the start of a dynamical reconstruction.

Without dynamical effects frame j is the cut F_j(q) = sum_r S(r) exp(i dq_j.r) exp(-2 pi i q.r), so the data array,
index offset m from the pattern's centre, samples |S~(Q)|^2 on the skewed lattice Q = B m, with the columns of B
(`Experiment.basis`) the steps of Q per frame, row and column. `phase` solves data = |FFT(obj)|^2 on the array itself
(hybrid input-output and error reduction with shrink-wrap; Fienup, Appl. Opt. 21, 2758, 1982; Marchesini et al., Phys.
Rev. B 68, 140101, 2003):

(1) g'      = F^-1[sqrt(I) F g / |F g|], F g itself where I is not known          Fourier modulus constraint
(2) g_{k+1} = g'_k in the support, 0 outside                                      error reduction (ER)
(3) g_{k+1} = g'_k in the support, g_k - beta g'_k outside                        hybrid input-output (HIO)

`pendel.kinematic.to_model_grid` puts the object on the model grid. The data determine it up to a constant phase, a
translation and the twin conj(S(-r)).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from ..analysis.comparison import compare
from ..base import checks
from ..base.light import refuse_darkness
from ..base.symmetry import translate
from .grid import KinematicResult, centred
from .support import shrink_wrap

ProgressCallback = Callable[[int, int, float], object]

# Methods of Wu et al., arXiv 2506.15939: HIO and ER in turn every 50 iterations, ER at the end, 1800 in all.
PAPER_RECIPE = {
    "iterations": 1800,
    "beta": 0.9,
    "period": 50,
    "blocks": ("hio", "er"),
    "final_er": 200,
    "shrink_every": 10,
    "shrink_start": 100,
}
LARGEST = 1e30  # intensity, whose sums over a scan single precision holds
_SLAB = 8  # planes per chunk of an element-wise pass; fixed, so that sums do not depend on the number of workers


@dataclasses.dataclass(frozen=True)
class PhasingRecipe:
    """What is done in which iteration; the keywords of `phase`, checked."""

    iterations: int
    beta: float
    period: int
    blocks: tuple[str, ...]
    final_er: int
    shrink_every: int
    shrink_start: int
    threshold: float
    sigma: tuple[float, float]

    def __post_init__(self):
        iterations = checks.integer("iterations", self.iterations, at_least=1)
        blocks = tuple(checks.choice(f"blocks[{i}]", b, ("hio", "er")) for i, b in enumerate(self.blocks))
        if not blocks:
            raise ValueError("blocks: expected at least one of 'hio', 'er', got none")
        sigma = tuple(checks.number(f"sigma[{i}]", s, at_least=0) for i, s in enumerate(self.sigma))
        if len(sigma) != 2:
            raise ValueError(f"sigma: expected 2 numbers, the first and the last blur, got {len(sigma)}")
        checked = {
            "iterations": iterations,
            "beta": checks.number("beta", self.beta, above=0, at_most=2),
            "period": checks.integer("period", self.period, at_least=1),
            "blocks": blocks,
            "final_er": min(checks.integer("final_er", self.final_er, at_least=0), iterations),
            "shrink_every": checks.integer("shrink_every", self.shrink_every, at_least=0),
            "shrink_start": checks.integer("shrink_start", self.shrink_start, at_least=0),
            "threshold": checks.number("threshold", self.threshold, above=0, at_most=1),
            "sigma": sigma,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def last_block(self) -> int:
        """The iteration from which on all are error reduction."""
        return self.iterations - self.final_er

    def is_hybrid(self, iteration: int) -> bool:
        """Whether an iteration is hybrid input-output; the others are error reduction."""
        block = self.blocks[iteration // self.period % len(self.blocks)]
        return iteration < self.last_block and block == "hio"

    def shrinks(self, iteration: int) -> bool:
        """Whether the support is updated in an iteration; not in the second half of the last error reduction."""
        if not self.shrink_every or not iteration:
            return False
        due = iteration % self.shrink_every == 0
        return due and self.shrink_start <= iteration < self.iterations - self.final_er // 2

    def blur(self, iteration: int) -> float:
        """Standard deviation of the support's blur, voxels: linear in the iteration until the last block."""
        first, last = self.sigma
        return first + (last - first) * min(1.0, iteration / max(self.last_block, 1))


class _Phasing:
    """The object g, its support, and the Fourier amplitudes it is to have: all with their origin at index 0.

    ``projected`` is g' of (1). Element-wise passes go through the pool slab by slab.
    """

    def __init__(self, amplitude, known, g, support, pool, workers):
        self.amplitude = amplitude
        self.known = known
        self.total = float(np.sum(np.square(amplitude, dtype=np.float64)))
        self.g = g
        self.projected = g
        self.support = support
        self.pool = pool
        self.workers = workers

    def constrain_modulus(self) -> float:
        """(1) of g; returns the error of g, sqrt(sum (|F g| - sqrt I)^2 / sum I) where I is known."""
        F = fft.fftn(self.g, norm="ortho", workers=self.workers)
        error = self._replace_modulus(F)
        self.projected = fft.ifftn(F, norm="ortho", workers=self.workers, overwrite_x=True)
        return error

    def shrink_wrap(self, threshold, blur):
        """The support of g'."""
        self.support = shrink_wrap(self.projected, threshold, blur, periodic=True)

    def reduce_error(self):
        """(2), in the memory of g'."""

        def slab(part):
            self.projected[part] *= self.support[part]

        self._for_slabs(slab)
        self.g = self.projected

    def hybrid_input_output(self, beta):
        """(3), in the memory of g'."""
        beta = np.float32(beta)

        def slab(part):
            new = self.projected[part]
            new[...] = np.where(self.support[part], new, self.g[part] - beta * new)

        self._for_slabs(slab)
        self.g = self.projected

    def finish(self) -> float:
        """Put zeros outside the support, and return the error of what is left."""
        self.g *= self.support
        F = fft.fftn(self.g, norm="ortho", workers=self.workers)
        return self._replace_modulus(F)

    def _replace_modulus(self, F):
        """Give F the measured modulus where it is known, in place; returns the error it had."""

        def slab(part):
            piece, wanted, known = F[part], self.amplitude[part], self.known[part]
            size = np.abs(piece)
            difference = np.subtract(size, wanted, where=known, out=np.zeros_like(size))
            # where |F| = 0 its phase is free: leave the zero
            factor = np.divide(wanted, size, out=np.zeros_like(size), where=size > 1e-30)
            factor[~known] = 1
            piece *= factor
            return np.sum(np.square(difference), dtype=np.float64)

        return float(np.sqrt(sum(self._for_slabs(slab)) / self.total))

    def _for_slabs(self, function):
        """What ``function`` returns for each slab of planes, in order."""
        parts = [slice(i, i + _SLAB) for i in range(0, len(self.g), _SLAB)]
        return list(self.pool.map(function, parts))


def phase(
    data: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    iterations: int = 500,
    beta: float = 0.9,
    period: int = 50,
    blocks: Iterable[str] = ("hio", "hio", "er"),
    final_er: int = 100,
    shrink_every: int = 20,
    shrink_start: int = 50,
    threshold: float = 0.15,
    sigma: tuple[float, float] = (2.5, 1.0),
    support: ArrayLike | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> KinematicResult:
    """Phase a rocking scan kinematically: HIO and ER in turn, shrink-wrap, ER at the end.

    Parameters
    ----------
    data : (frames, rows, cols) intensities >= 0, any real dtype, the pattern's centre within a few pixels of n//2;
        values of bad pixels are not looked at.
    mask : bool of the same shape or (rows, cols), True = good. Other pixels, and those added by padding to
        FFT-friendly sizes, float.
    iterations : in total. Blocks of ``period`` iterations go through ``blocks``, "hio" or "er" each, again and again;
        the last ``final_er`` are ER. `PAPER_RECIPE` has those of Wu et al.
    beta : HIO's feedback.
    period, blocks, final_er : see ``iterations``.
    shrink_every : iterations between support updates (0: never), from ``shrink_start`` until final_er/2 before the end.
    shrink_start : see ``shrink_every``.
    threshold, sigma : the support is where |obj|, blurred by sigma voxels, exceeds threshold times its maximum; sigma
        goes linearly from its first to its second value until the last ER block.
    support : bool (N0, N1, N2) to start with, of the data's or the padded shape, centred; None: of the autocorrelation.
    seed : of the random phases at the start. Same seed, same result, whatever the number of workers.
    workers : threads; None: all cores.
    progress : called as progress(iteration, iterations, error).

    Returns
    -------
    KinematicResult.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    data, good = _measured(data, mask)
    blocks = tuple(blocks)
    recipe = PhasingRecipe(iterations, beta, period, blocks, final_er, shrink_every, shrink_start, threshold, sigma)
    seed = checks.integer("seed", seed, at_least=0)
    workers = (os.cpu_count() or 1) if workers is None else checks.integer("workers", workers, at_least=1)

    shape = tuple(fft.next_fast_len(n) for n in data.shape)
    amplitude = fft.ifftshift(_pad(np.sqrt(data), shape))
    known = fft.ifftshift(_pad(good, shape))
    if support is None:
        support = _start_support(amplitude, workers)
    else:
        support = _given_support(support, data.shape, shape)
    g, support = _random_start(amplitude, support, seed, workers)

    error = np.empty(recipe.iterations)
    with ThreadPoolExecutor(workers) as pool:
        phasing = _Phasing(amplitude, known, g, support, pool, workers)
        for i in range(recipe.iterations):
            error[i] = phasing.constrain_modulus()
            if recipe.shrinks(i):
                phasing.shrink_wrap(recipe.threshold, recipe.blur(i))
            if recipe.is_hybrid(i):
                phasing.hybrid_input_output(recipe.beta)
            else:
                phasing.reduce_error()
            if progress is not None:
                progress(i + 1, recipe.iterations, float(error[i]))
        chi = phasing.finish()

    obj, support = centred(phasing.g, phasing.support)
    return KinematicResult(object=obj, support=support, chi=chi, error=error, seed=seed)


def phase_best(
    data: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    seeds: Iterable[int],
    average: int = 1,
    progress: ProgressCallback | None = None,
    **recipe: Any,
) -> tuple[KinematicResult, np.ndarray]:
    """Phase from several seeds and take the best, or the mean of the best few.

    Parameters
    ----------
    data, mask : as in `phase`.
    seeds : one phasing each.
    average : how many objects of smallest chi are averaged (complex, in the support they share by majority) after
        each was laid over the best one by translation, constant phase and twin. Features that the data do not
        determine differ between seeds and fade. 1: the best alone.
    progress : called as progress(iteration, iterations, error) with the iterations of all seeds together.
    **recipe : as in `phase`.

    Returns
    -------
    (KinematicResult, chi) : the result's ``error`` and ``seed`` are those of the best one; chi of all, float64
        (seeds,).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    seeds = [checks.integer(f"seeds[{i}]", s, at_least=0) for i, s in enumerate(seeds)]
    average = checks.integer("average", average, at_least=1)
    if not average <= len(seeds):
        raise ValueError(f"seeds: expected at least average = {average} of them, got {len(seeds)}")

    results = []
    for i, seed in enumerate(seeds):
        report = None if progress is None else _progress_of_all(progress, i, len(seeds))
        results.append(phase(data, mask, seed=seed, progress=report, **recipe))
    chi = np.array([r.chi for r in results])
    best, *others = (results[i] for i in np.argsort(chi, kind="stable")[:average])
    if not others:
        return best, chi

    obj, support = _mean(best, others)
    return KinematicResult(obj, support, _misfit(obj, data, mask), best.error, best.seed), chi


def _progress_of_all(progress, seed, seeds):
    """``progress`` of one seed's iterations, counted among those of all."""

    def report(iteration, iterations, error):
        progress(seed * iterations + iteration, seeds * iterations, error)

    return report


def _mean(best, others):
    """(object, support): the mean of all, laid over the best one, where more than half have their support."""
    count = 1 + len(others)
    total = best.object.astype(np.complex128)
    votes = best.support.astype(int)
    box = _common_box([best, *others])
    for other in others:
        obj, support = _laid_over(other, best, box)
        total[box] += obj
        votes[box] += support
    support = 2 * votes > count
    return np.where(support, total / count, 0).astype(np.complex64), support


def _misfit(obj, data, mask):
    """sqrt(sum (|F| - sqrt I)^2 / sum I) of an object over good pixels."""
    good = _mask(mask, np.shape(data))
    amplitude = fft.ifftshift(_pad(np.sqrt(np.where(good, data, 0)), obj.shape))
    known = fft.ifftshift(_pad(good, obj.shape))
    F = fft.fftn(fft.ifftshift(obj), norm="ortho")
    return float(np.linalg.norm((np.abs(F) - amplitude)[known]) / np.linalg.norm(amplitude[known]))


def _common_box(results):
    """Slices, symmetric about N//2, that hold all supports and three voxels more; a twin stays in it."""
    slices = []
    for axis, n in enumerate(results[0].support.shape):
        used = [np.flatnonzero(r.support.any(axis=tuple({0, 1, 2} - {axis}))) for r in results]
        reach = min(max(int(np.abs(u - n // 2).max()) for u in used) + 3, (n - 1) // 2)
        slices.append(slice(n // 2 - reach, n // 2 + reach + 1))
    return tuple(slices)


def _laid_over(other, best, box):
    """(object, support) of ``other`` in the box, moved, turned in phase and twinned to lie over ``best``."""
    found = compare(other.object[box], best.object[box], (1.0, 1.0, 1.0), twin=True)
    support = np.flip(other.support[box]) if found.twin else other.support[box]  # odd axes: no roll
    return found.registered, np.abs(translate(support.astype(np.complex128), found.shift)) > 0.5


def _measured(data, mask):
    """(data, good), checked: float32 (frames, rows, cols) with zeros in bad pixels, and bool of the same shape."""
    data = checks.array("data", data, (None, None, None), np.float32, axes="(frames, rows, cols)", finite=False)
    good = _mask(mask, data.shape)
    data = np.where(good, data, 0)  # bad pixels may hold anything
    if data.max(initial=0) > LARGEST and np.isfinite(data).all():
        raise ValueError(f"data: expected intensities up to {LARGEST:g}, got {data.max():.3g}")
    if not np.isfinite(data).all() or data.min() < 0:
        got = f"{data.min():g} to {data.max():g}"
        raise ValueError(f"data: expected finite intensities >= 0 in the good pixels, got {got}")
    refuse_darkness(data, good)
    return data, good


def _mask(mask, shape):
    if mask is None:
        return np.ones(shape, bool)
    mask = np.broadcast_to(checks.good_pixels("mask", mask, shape), shape).copy()
    if not mask.any():
        raise ValueError("mask: expected at least one good pixel, got none")
    return mask


def _pad(array, shape):
    """Pad with zeros so that index n//2 moves to N//2."""
    before = [N // 2 - n // 2 for N, n in zip(shape, array.shape, strict=True)]
    return np.pad(array, [(b, N - n - b) for b, N, n in zip(before, shape, array.shape, strict=True)])


def _given_support(support, data_shape, shape):
    """The user's start support, bool of the padded shape."""
    support = checks.numpy_array("support", support)
    if support.shape == data_shape:
        support = _pad(support, shape)
    return checks.array("support", support, shape, bool)


def _start_support(amplitude, workers):
    """Centred start support: the autocorrelation's, shrunk to 3/4 (amplitude in FFT order).

    A convex body K fits into 3/4 of its difference body K - K (Minkowski); the blur and the low threshold leave a
    margin.
    """
    correlation = np.abs(fft.fftshift(fft.ifftn(amplitude.astype(np.complex64) ** 2, workers=workers)))
    wide = shrink_wrap(correlation, 0.03, 1.0)
    centre = np.array(wide.shape) // 2
    larger = np.full(3, 4 / 3)
    smaller = ndimage.affine_transform(wide.view(np.uint8), larger, centre - centre * 4 / 3, order=0)
    return smaller.astype(bool)


def _random_start(amplitude, support, seed, workers):
    """(g, support), origin at index 0: the amplitudes with random phases, in a centred support."""
    random = np.random.default_rng(seed).random(amplitude.shape, np.float32)
    F = amplitude * np.exp(2j * np.pi * random, dtype=np.complex64)
    g = fft.fftshift(fft.ifftn(F, norm="ortho", workers=workers, overwrite_x=True)) * support
    return fft.ifftshift(g), fft.ifftshift(support)
