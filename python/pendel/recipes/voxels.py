"""How fine voxels have to be for the light: the model's own misfit beside that of photon noise.

(1) misfit of a grid = sum (sqrt D - sqrt D_2)^2/sum D_2,   D_2 from voxels half as wide, at the best common scale
(2) misfit of photon noise = sum v(D)/sum D,                v(D) = <(sqrt n - sqrt D)^2>, n counts of mean D

Both for the crystal as it is known so far, with a surface as sharp as the finer voxels hold.
"""

import functools
import math

import numpy as np
from scipy import special

from ..base import checks, memory
from ..base.arrays import host
from ..base.memory import size_of
from ..fit.memory import HOLES, Crystals, holes
from ..model.memory import Compared, PassMemory
from .in_band import SHAPE_BLUR, in_band_start
from .levels import like

# Voxels per voxel of the data's resolution that are tried, along each axis. A facetted gold crystal of 0.8 um, frames
# of `pendel.reference.wide_angle`: its own misfit there is 4e-3, 3e-4, 2e-5 and 5e-6, the estimate (1) for what a fit
# found of it 2e-3, 3e-4, 1e-4 and 2e-5; photon noise of 1e6, 1e7, 1e8, 1e9 photons 1e-2 to 6e-5.
FINER = (1.0, 1.5, 2.0, 3.0)
USUAL = (2e-3, 3e-4, 1e-4, 2e-5)
FRAMES = 17  # of the scan that (1) is told by
# Bytes of a phase that `in_band_start` picks for a voxel: its places along three axes, and its way from complex to
# complex.
PICKED = 36
PART = 1 / 4  # of the misfit of photon noise that the model's own may reach


def finer_model(model, finer):
    """The model on voxels that many times finer than the data's resolution, means, of the same box in m."""
    experiment = model.experiment
    resolution = experiment.suggest_voxel()[1] / finer
    voxel = experiment.suggest_voxel(resolution * (1 + 1e-6) if finer > 1 else None, model.transport)
    view = (np.inf, experiment.field_of_view, experiment.field_of_view / experiment.gamma_h)
    shape = [
        2 * int(min(np.ceil(n * wide / (2 * fine) - 1e-6), limit / fine * (1 + 1e-9) // 2))
        for n, wide, fine, limit in zip(model.shape, model.voxel, voxel, view, strict=True)
    ]
    return like(model, experiment, tuple(shape), voxel, sampling="mean")


def grid_misfit(model, S, voxel):
    """(1) of the grid of ``model`` for a crystal S on voxels (dz, dy, dx) m of its own."""
    fine = like(model, model.experiment, tuple(2 * n for n in model.shape), tuple(v / 2 for v in model.voxel))
    # a blurred edge rises by 1/(sqrt(2 pi) SHAPE_BLUR) per voxel of the data's resolution; a sharp one within a voxel
    steeper = math.sqrt(2 * math.pi) * SHAPE_BLUR * model.experiment.suggest_voxel()[1] / fine.voxel[1]
    sharp = in_band_start(S, voxel, fine, steeper)[0]
    mean = sharp
    for axis in range(3):  # voxel i of the wide grid is all of 2 i and half of its neighbours
        padded = np.pad(np.moveaxis(mean, axis, 0), ((1, 1), (0, 0), (0, 0)))
        mean = np.moveaxis(0.25 * padded[:-2:2] + 0.5 * padded[1:-1:2] + 0.25 * padded[2::2], 0, axis)

    some = np.unique(np.linspace(0, model.n_frames - 1, FRAMES).round().astype(int))
    D, exact = (
        m.intensities_on_host(s.astype(m.dtype), some).astype(np.float64) for m, s in ((model, mean), (fine, sharp))
    )
    scale = (np.sqrt(D * exact).sum() / D.sum()) ** 2
    return float(np.square(np.sqrt(scale * D) - np.sqrt(exact)).sum() / exact.sum())


def grid_misfit_memory(model, inside):
    """Bytes of `grid_misfit` at its largest moment.  inside : voxels of ``model`` that are the crystal's.

    On voxels half as wide: S as it is resampled, between its neighbours and what they are made of; or S, its size,
    nearest voxels and phases of its band; or its frames. Beside them the hole that wider voxels have left.
    """
    fine = like(model, model.experiment, tuple(2 * n for n in model.shape), tuple(v / 2 for v in model.voxel))
    of, passes = Crystals.of(fine), PassMemory(fine, Compared(0, 0))
    band = 3 * of.double + 3 * of.double // 2 + of.complex + 2 * of.flag + int(8 * inside * PICKED)
    frames = 2 * of.complex + of.flag + passes.intensities(min(FRAMES, model.n_frames))
    return holes(of) // HOLES + max(6 * of.double, band, frames)


def noise_misfit(expected, mask=None):
    """(2) of expected counts (n_frames, rows, cols) on good pixels."""
    expected = host(expected)
    mask = True if mask is None else checks.good_pixels("mask", host(mask), expected.shape)
    good = np.broadcast_to(mask, expected.shape)
    counts = expected[good].astype(np.float64)
    return float(counting_noise(counts).sum() / counts.sum())


def counting_noise(D):
    """v(D) of (2), float64: 2 D in the dark, 1/4 in the light, up to 0.45 in between."""
    means, noise = _table()
    return np.interp(np.log(np.maximum(D, means[0])), np.log(means), noise) * np.minimum(D / means[0], 1)


@functools.cache
def _table():
    means = np.logspace(-5, 3, 321)
    counts = np.arange(1500)[:, None]
    poisson = np.exp(special.xlogy(counts, means) - special.gammaln(counts + 1) - means)
    noise = np.sum(np.square(np.sqrt(counts) - np.sqrt(means)) * poisson, axis=0)
    return means, noise


def usually_fine_enough(noise):
    """Of `FINER` what is chosen for a facetted crystal, before anything is known of it."""
    return next((finer for finer, misfit in zip(FINER, USUAL, strict=True) if misfit <= PART * noise), FINER[-1])


def fine_enough(model, S, voxel, noise):
    """(`Model`, its misfit (1)): the widest voxels of `FINER` whose misfit is at most PART of ``noise``, or the finest.

    S, voxel : of the crystal as known so far.  Raises MemoryError where there is less than that takes.
    """
    solid = np.count_nonzero(np.abs(S) > 0.5) * math.prod(voxel)
    for finer in FINER:
        chosen = finer_model(model, finer)
        _refuse_beyond_memory(chosen, solid)
        misfit = grid_misfit(chosen, S, voxel)
        if misfit <= PART * noise:
            break
    return chosen, misfit


def _refuse_beyond_memory(model, solid):
    """MemoryError where `grid_misfit` would not fit.  solid : volume of the crystal, m^3."""
    needed, left = grid_misfit_memory(model, solid / math.prod(model.voxel)), memory.left()
    if needed > left:
        nanometres = " x ".join(f"{1e9 * v:.4g}" for v in model.voxel)
        raise MemoryError(
            f"voxel: expected one whose model fits the {size_of(left)} of memory that are left, got {nanometres} nm, "
            f"which the light in the data asks for and takes {size_of(needed)}; give a wider one (voxel, or "
            "model.voxel_nm)"
        )
