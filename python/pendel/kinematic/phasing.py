"""Kinematic phasing of a rocking scan, the start of a dynamical reconstruction.

Without dynamical effects frame j is the cut F_j(q) = sum_r S(r) exp(i dq_j.r) exp(-2 pi i q.r), so the data array,
index offset m from the pattern's centre, samples |S~(Q)|^2 on the skewed lattice Q = B m, with the columns of B
(`Experiment.basis`) the steps of Q per frame, row and column. `phase` solves data = |FFT(obj)|^2 on the array itself
(hybrid input-output and error reduction with shrink-wrap; Fienup, Appl. Opt. 21, 2758, 1982; Marchesini et al., Phys.
Rev. B 68, 140101, 2003). Then obj[n] = S(A n), A = 2 pi inv(B)^T diag(1/N), and `to_model_grid` puts S on the model
grid. The data determine S up to a constant phase, a translation and the twin conj(S(-r)).
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import fft, ndimage

from ..analysis.comparison import compare
from ..base import checks
from ..base.symmetry import translate
from ..base.symmetry import twin as conjugate_twin
from .support import shrink_wrap

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
_SLAB = 8  # planes per chunk of an element-wise pass; fixed, so that sums do not depend on the number of workers


@dataclasses.dataclass
class KinematicResult:
    """Result of `phase`, on the padded detector-frame grid (N0, N1, N2), zero frequency and origin at N//2."""

    object: np.ndarray  # complex64, centre of mass at N//2, zero outside support; data = |FFT(object)|^2, norm "ortho"
    support: np.ndarray  # bool
    chi: float  # sqrt(sum (|F| - sqrt I)^2 / sum I) over good pixels, of `object`
    error: (
        np.ndarray
    )  # float64 (iterations,), the same of each iteration's input; HIO's also holds what is outside support
    seed: int


def phase(
    data,
    mask=None,
    *,
    iterations=500,
    beta=0.9,
    period=50,
    blocks=("hio", "hio", "er"),
    final_er=100,
    shrink_every=20,
    shrink_start=50,
    threshold=0.15,
    sigma=(2.5, 1.0),
    support=None,
    seed=0,
    workers=None,
    progress=None,
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
    shrink_every : iterations between support updates (0: never), from ``shrink_start`` until final_er/2 before the end.
    threshold, sigma : the support is where |obj|, blurred by sigma voxels, exceeds threshold times its maximum; sigma
        goes linearly from its first to its second value until the last ER block.
    support : bool start support of the data's or the padded shape, centred; None: from the autocorrelation.
    seed : of the random phases at the start. Same seed, same result, whatever the number of workers.
    workers : threads; None: all cores.
    progress : called as progress(iteration, iterations, error).

    Raises TypeError or ValueError naming the parameter.
    """
    data = checks.array("data", data, (None, None, None), np.float32, axes="(frames, rows, cols)", finite=False)
    good = _mask(mask, data.shape)
    data = np.where(good, data, 0)  # bad pixels may hold anything
    if not np.isfinite(data).all() or data.min() < 0 or not data.any():
        got = f"{data.min():g} to {data.max():g}"
        raise ValueError(f"data: expected finite intensities >= 0, not all zero, in the good pixels, got {got}")
    iterations = checks.integer("iterations", iterations, at_least=1)
    final_er = min(checks.integer("final_er", final_er, at_least=0), iterations)
    period = checks.integer("period", period, at_least=1)
    blocks = [checks.choice(f"blocks[{i}]", b, ("hio", "er")) for i, b in enumerate(blocks)]
    if not blocks:
        raise ValueError("blocks: expected at least one of 'hio', 'er', got none")
    shrink_every = checks.integer("shrink_every", shrink_every, at_least=0)
    shrink_start = checks.integer("shrink_start", shrink_start, at_least=0)
    beta = np.float32(checks.number("beta", beta, above=0, at_most=2))
    sigmas = [checks.number(f"sigma[{i}]", s, at_least=0) for i, s in enumerate(sigma)]
    seed = checks.integer("seed", seed, at_least=0)
    workers = (os.cpu_count() or 1) if workers is None else checks.integer("workers", workers, at_least=1)

    shape = tuple(fft.next_fast_len(n) for n in data.shape)
    amplitude = fft.ifftshift(_pad(np.sqrt(data), shape))
    good = fft.ifftshift(_pad(good, shape))
    if support is None:
        support = _start_support(amplitude, workers)
    else:
        support = np.asarray(support)
        support = checks.array("support", _pad(support, shape) if support.shape == data.shape else support, shape, bool)
    total = float(np.sum(np.square(amplitude, dtype=np.float64)))
    random = np.random.default_rng(seed).random(shape, np.float32)
    f = amplitude * np.exp(2j * np.pi * random, dtype=np.complex64)
    g = fft.fftshift(fft.ifftn(f, norm="ortho", workers=workers, overwrite_x=True)) * support
    support, g = fft.ifftshift(support), fft.ifftshift(g)
    error = np.empty(iterations)

    with ThreadPoolExecutor(workers) as pool:

        def slabs(function):
            return sum(pool.map(lambda i: function(slice(i, i + _SLAB)), range(0, shape[0], _SLAB)))

        def to_modulus(part):
            piece, wanted, known = f[part], amplitude[part], good[part]
            size = np.abs(piece)
            deviation = np.sum(np.square(size - wanted, where=known, out=np.zeros_like(size)), dtype=np.float64)
            # where |F| = 0 its phase is free: leave the zero
            factor = np.divide(wanted, size, out=np.zeros_like(size), where=size > 1e-30)
            factor[~known] = 1
            piece *= factor
            return deviation

        def to_support(part):
            inside, new = support[part], f[part]
            if hybrid:
                new[...] = np.where(inside, new, g[part] - beta * new)
            else:
                new *= inside
            return 0

        last_block = iterations - final_er
        for i in range(iterations):
            f = fft.fftn(g, norm="ortho", workers=workers)
            error[i] = np.sqrt(slabs(to_modulus) / total)
            f = fft.ifftn(f, norm="ortho", workers=workers, overwrite_x=True)
            if shrink_every and i and i % shrink_every == 0 and shrink_start <= i < iterations - final_er // 2:
                blur = sigmas[0] + (sigmas[1] - sigmas[0]) * min(1.0, i / max(last_block, 1))
                support = shrink_wrap(f, threshold, blur, periodic=True)
            hybrid = i < last_block and blocks[i // period % len(blocks)] == "hio"
            slabs(to_support)
            g = f
            if progress is not None:
                progress(i + 1, iterations, float(error[i]))

        g *= support
        f = fft.fftn(g, norm="ortho", workers=workers)
        chi = float(np.sqrt(slabs(to_modulus) / total))

    obj, support = _centre(g, support)
    return KinematicResult(object=obj, support=support, chi=chi, error=error, seed=seed)


def phase_best(data, mask=None, *, seeds, average=1, progress=None, **recipe):
    """Phase from several seeds and take the best, or the mean of the best few: (`KinematicResult`, all chi).

    Parameters
    ----------
    data, mask, recipe : as in `phase`.  seeds : integers, one phasing each.
    average : how many objects of smallest chi are averaged (complex, in the support they share by majority) after
        each was laid over the best one by translation, constant phase and twin. Features that the data do not
        determine differ between seeds and fade. 1: the best alone.
    progress : called as progress(iteration, iterations, error) with the iterations of all seeds together.

    chi : float64 (seeds,).  The result's ``error`` and ``seed`` are those of the best one.
    """
    seeds = [checks.integer(f"seeds[{i}]", s, at_least=0) for i, s in enumerate(seeds)]
    average = checks.integer("average", average, at_least=1)
    if not average <= len(seeds):
        raise ValueError(f"seeds: expected at least average = {average} of them, got {len(seeds)}")
    results = []
    for i, seed in enumerate(seeds):

        def report(iteration, iterations, error, i=i):
            progress(i * iterations + iteration, len(seeds) * iterations, error)

        results.append(phase(data, mask, seed=seed, progress=progress and report, **recipe))
    chi = np.array([r.chi for r in results])
    best, *others = (results[i] for i in np.argsort(chi, kind="stable")[:average])
    if not others:
        return best, chi
    total, votes = best.object.astype(np.complex128), best.support.astype(int)
    box = _common_box([best, *others])
    for other in others:
        obj, support = _laid_over(other, best, box)
        total[box] += obj
        votes[box] += support
    support = 2 * votes > average
    mean = np.where(support, total / average, 0).astype(np.complex64)
    F = fft.fftn(fft.ifftshift(mean), norm="ortho")
    root = fft.ifftshift(_pad(np.sqrt(np.where(_mask(mask, np.shape(data)), data, 0)), mean.shape))
    good = fft.ifftshift(_pad(_mask(mask, np.shape(data)), mean.shape))
    error = float(np.linalg.norm((np.abs(F) - root)[good]) / np.linalg.norm(root[good]))
    return KinematicResult(mean, support, error, best.error, best.seed), chi


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


def to_model_grid(result, experiment, shape, voxel, *, support=None, twin=False, order=3, normalise=True, clip=True):
    """The phased object as a crystal function S on the model grid, complex64 (nz, ny, nx).

    The object's centre of mass lands on the origin voxel n//2 and S is zero outside the support. A pattern centre away
    from n//2 is a linear phase of the object and is removed.

    Parameters
    ----------
    result : `KinematicResult`, or the complex object (N0, N1, N2) of any phasing program with data = |FFT(object)|^2:
        numpy's sign, origin and zero frequency at N//2, N >= the data's shape, padded so that n//2 went to N//2.
    experiment : of the phased data; its ``basis()``, ``centre``, ``detector_shape`` and ``dq`` are used.
    shape, voxel : (nz, ny, nx) and (dz, dy, dx) in m of the model grid.
    support : bool (N0, N1, N2) for a bare object; None: `shrink_wrap` of it. A `KinematicResult` brings its own.
    twin : take conj(S(-r)).
    order : spline order of the interpolation, 1 to 5.
    normalise : amplitude median 1 and mean phase 0 in the support eroded by two voxels.
    clip : limit |S| to 1.

    Raises TypeError or ValueError naming the parameter; ValueError also where the object does not fit the model grid
    and where the rocking steps are not equal within 5 %: the object then has no Fourier lattice.
    """
    shape, voxel = checks.sizes("shape", shape, 3), np.array(checks.lengths("voxel", voxel, 3))
    order = checks.integer("order", order, at_least=1)
    if isinstance(result, KinematicResult):
        result, support = result.object, result.support
    obj = checks.array("result", result, (None, None, None), np.complex64, axes="(frames, rows, cols)")
    support = shrink_wrap(obj) if support is None else checks.array("support", support, obj.shape, bool)
    if not support.any():
        raise ValueError("support: expected at least one voxel inside, got none")
    data_shape = np.array([len(np.asarray(experiment.dq)), *experiment.detector_shape])
    if (np.array(obj.shape) < data_shape).any():
        raise ValueError(f"result: expected a grid of at least the data's shape {tuple(data_shape)}, got {obj.shape}")
    B = np.asarray(experiment.basis(), float)
    steps = np.diff(np.asarray(experiment.dq, float), axis=0)
    if not len(steps) or np.abs(steps + B[:, 0]).max() > 0.05 * np.linalg.norm(B[:, 0]):
        raise ValueError("experiment: expected two or more frames at equal rocking steps, got others")
    obj, support = _centre(obj, support)
    size = np.array(obj.shape)
    for axis, (n, c) in enumerate(zip(size, np.asarray(experiment.centre, float) - data_shape // 2, strict=True)):
        ramp = np.exp(-2j * np.pi * c * (np.arange(n) - n // 2) / n)
        obj = obj * ramp.astype(np.complex64).reshape([-1 if a == axis else 1 for a in range(3)])
    weight = np.abs(obj) * support
    profiles = [weight.sum(axis=tuple(b for b in range(3) if b != a), dtype=np.float64) for a in range(3)]
    middle = np.array([p @ np.arange(len(p)) / p.sum() for p in profiles])
    inside = support.astype(np.float32)
    # only the object's box: the spline prefilter runs over everything it is given
    box = [slice(max(s.start - 8, 0), s.stop + 8) for s in ndimage.find_objects(support.astype(np.uint8))[0]]
    obj, inside, middle = obj[tuple(box)], inside[tuple(box)], middle - [s.start for s in box]

    to_index = np.diag(size) @ B.T / (2 * np.pi)  # inverse of A: position (x, y, z) in m -> array index
    axes = [(np.arange(n) - n // 2) * d for n, d in zip(shape, voxel, strict=True)]
    z, y, x = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    points = np.stack([to_index[a, 0] * x + to_index[a, 1] * y + to_index[a, 2] * z + middle[a] for a in range(3)])
    corners = np.array(np.nonzero(inside > 0.5)) - middle[:, None]
    reach = np.abs(np.linalg.solve(to_index, corners)).max(axis=1)[::-1]
    limit = np.array([max((n - 1) // 2, 0) for n in shape]) * voxel
    if (reach > limit + voxel).any():
        least = tuple(int(2 * np.ceil(r / v) - 1) for r, v in zip(reach, voxel, strict=True))
        raise ValueError(f"shape: expected at least {least} voxels to hold the object, got {shape}")
    S = ndimage.map_coordinates(obj, points, order=order, mode="constant")
    inside = ndimage.map_coordinates(inside, points, order=1, mode="constant") > 0.5
    S = np.where(inside, S, 0).astype(np.complex64)
    if twin:
        S, inside = conjugate_twin(S), conjugate_twin(inside)
    if normalise:
        core = ndimage.binary_erosion(inside, iterations=2)
        core = core if core.any() else inside
        S *= np.complex64(np.exp(-1j * np.angle(S[core].sum())) / np.median(np.abs(S[core])))
    if clip:
        S /= np.maximum(np.abs(S), 1)
    return S


def _mask(mask, shape):
    if mask is None:
        return np.ones(shape, bool)
    mask = np.asarray(mask)
    mask = np.broadcast_to(mask, shape) if mask.shape == shape[1:] else mask
    mask = checks.array("mask", mask, shape, bool, axes="(frames, rows, cols)")
    if not mask.any():
        raise ValueError("mask: expected at least one good pixel, got none")
    return mask


def _pad(array, shape):
    """Pad with zeros so that index n//2 moves to N//2."""
    before = [N // 2 - n // 2 for N, n in zip(shape, array.shape, strict=True)]
    return np.pad(array, [(b, N - n - b) for b, N, n in zip(before, shape, array.shape, strict=True)])


def _start_support(amplitude, workers):
    """Centred start support: the autocorrelation's, shrunk to 3/4 (amplitude in FFT order).

    A convex body K fits into 3/4 of its difference body K - K (Minkowski); the blur and the low threshold leave a
    margin.
    """
    correlation = np.abs(fft.fftshift(fft.ifftn(amplitude.astype(np.complex64) ** 2, workers=workers)))
    wide = shrink_wrap(correlation, 0.03, 1.0)
    centre = np.array(wide.shape) // 2
    return ndimage.affine_transform(wide.view(np.uint8), np.full(3, 4 / 3), centre - centre * 4 / 3, order=0).astype(
        bool
    )


def _centre(g, support):
    """Roll (periodically) so that the centre of mass of |g| in the support is at n//2."""
    weight = np.abs(g) * support
    shift = []
    for axis, n in enumerate(g.shape):
        profile = weight.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
        turn = np.angle(profile @ np.exp(2j * np.pi * np.arange(n) / n))
        shift.append(int(np.rint(n // 2 - turn * n / (2 * np.pi))))
    return np.roll(g, shift, axis=(0, 1, 2)), np.roll(support, shift, axis=(0, 1, 2))
