"""What beamlines add to frames: counting, flux, background, angles, coherence, the detector.

In the order of nature: true angles and energies (`true_frames`, the scan has to be made anew for them), coherence,
flux, the detector's point spread, background, counts, saturation, dead pixels (`measured`). All that is random comes
from the seed, each effect from a stream of its own: one more effect does not change the others.
"""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from scipy import ndimage

from ..base import checks
from ..experiment.geometry import Experiment

GAP = 4  # columns of the gap between two modules of the detector


@dataclass(frozen=True)
class Disturbances:
    """How much of each; the defaults leave everything as it is.

    Attributes
    ----------
    photons : expected counts of the crystal in the whole scan; None: no counting, intensities as they come
    seed : of all that is random
    flux_jitter : rms of the logarithm of every frame's flux
    flux_drift : amplitude of its slow change over the scan, relative
    background : expected counts per pixel and frame
    background_jitter : rms of the logarithm of every frame's background
    streak : expected counts on the ridge of a streak across the detector, the same in all frames
    angle_jitter : rms of every rocking angle's error, in steps of the scan
    visibility : of fringes as fine as the crystal is large, (0, 1]: transverse coherence, a Gaussian Schell beam
    bandwidth : rms of the energy, relative: longitudinal coherence
    point_spread : rms of the detector's point spread, pixels
    beam_stop : radius, pixels, around where k_h hits the detector
    gap : whether GAP columns a quarter of the detector off its middle are dead
    saturation : counts at which a pixel stops counting and is masked; None: none
    """

    photons: float | None = None
    seed: int = 0
    flux_jitter: float = 0.0
    flux_drift: float = 0.0
    background: float = 0.0
    background_jitter: float = 0.0
    streak: float = 0.0
    angle_jitter: float = 0.0
    visibility: float = 1.0
    bandwidth: float = 0.0
    point_spread: float = 0.0
    beam_stop: float = 0.0
    gap: bool = False
    saturation: float | None = None

    def __post_init__(self):
        checks.number("visibility", self.visibility, above=0, at_most=1)
        checks.integer("seed", self.seed, at_least=0)
        for field in ("flux_jitter", "flux_drift", "background", "background_jitter", "streak", "angle_jitter"):
            checks.number(field, getattr(self, field), at_least=0)
        for field in ("bandwidth", "point_spread", "beam_stop"):
            checks.number(field, getattr(self, field), at_least=0)
        for field in ("photons", "saturation"):
            if getattr(self, field) is not None:
                checks.number(field, getattr(self, field), above=0)
        if self.photons is None and (self.background or self.streak or self.saturation):
            raise ValueError("photons: expected a number with background, streak or saturation, which count, got None")

    def stream(self, effect: str) -> np.random.Generator:
        """Random numbers of one effect."""
        return np.random.default_rng([self.seed, *effect.encode()])


@dataclass(frozen=True)
class Measured:
    """Frames as a beamline would give them, and what the experiment would not know.

    Attributes
    ----------
    data : int32 (frames, rows, cols), or float64 without counting; 0 where dead
    mask : bool (frames, rows, cols), True: good
    flux : (frames,), mean 1
    background : float64 (frames, rows, cols), expected counts
    scale : counts per unit of intensity; 1 without counting
    """

    data: np.ndarray
    mask: np.ndarray
    flux: np.ndarray
    background: np.ndarray
    scale: float


def angle_offsets(experiment: Experiment, disturbances: Disturbances) -> np.ndarray:
    """(n_frames,) rad, of the true rocking angles from those that the experiment says."""
    step = abs(experiment.rocking_angles[-1] - experiment.rocking_angles[0]) / max(experiment.n_frames - 1, 1)
    return disturbances.angle_jitter * step * disturbances.stream("angles").normal(size=experiment.n_frames)


def energies(disturbances: Disturbances) -> list[tuple[float, float]]:
    """((weight, relative offset), ...) of a Gaussian band, exact up to the fifth moment."""
    if not disturbances.bandwidth:
        return [(1.0, 0.0)]
    reach = math.sqrt(3) * disturbances.bandwidth
    return [(1 / 6, -reach), (2 / 3, 0.0), (1 / 6, reach)]


def true_frames(frames_of: Callable[..., np.ndarray], experiment: Experiment, disturbances: Disturbances) -> np.ndarray:
    """Frames at the true angles, added up over the true energies.

    Parameters
    ----------
    frames_of : frames_of(angle_offsets=(n_frames,) rad, energy_offset=relative) -> (frames, rows, cols), for example
        `rocking_scans.foreign_frames` of a sample
    """
    offsets = angle_offsets(experiment, disturbances)
    parts = (w * frames_of(angle_offsets=offsets, energy_offset=e) for w, e in energies(disturbances))
    return functools.reduce(operator.add, parts)


def measured(frames: np.ndarray, experiment: Experiment, disturbances: Disturbances, size: float) -> Measured:
    """Frames as measured.

    Parameters
    ----------
    frames : (frames, rows, cols), coherent, without noise, at the true angles and energies
    size : of the crystal, m, which ``visibility`` is for
    """
    shape = (experiment.n_frames, *experiment.detector_shape)
    frames = checks.array("frames", frames, shape, np.float64, axes="(frames, rows, cols)")
    if disturbances.visibility < 1:
        frames = partially_coherent(frames, experiment, disturbances.visibility, size)

    flux = relative_flux(experiment.n_frames, disturbances)
    lit = flux[:, None, None] * frames
    scale = 1.0 if disturbances.photons is None else disturbances.photons / lit.sum()
    expected = spread(scale * lit, disturbances.point_spread)
    background = background_counts(shape, disturbances)
    dead = ~live_pixels(experiment, disturbances)
    if disturbances.photons is None:
        data, mask = expected, np.ones(shape, bool)
    else:
        data = disturbances.stream("counts").poisson(expected + background)
        most = np.inf if disturbances.saturation is None else disturbances.saturation
        mask = data < most
        data = np.minimum(data, most).astype(np.int32)
    data[:, dead], mask[:, dead] = 0, False
    return Measured(data, mask, flux, background, scale)


def partially_coherent(frames, experiment: Experiment, visibility: float, size: float) -> np.ndarray:
    """Frames of a Gaussian Schell beam: one incoherent sum over the directions of the incident waves.

    A wave from k_0 + dk gives the frames shifted by dk in Q, along the detector and from frame to frame. A Gaussian of
    dk, rms s, multiplies their transform, the crystal's autocorrelation, by the degree of coherence exp(-(s x)^2 / 2)
    of places x apart across k_0. It is ``visibility`` at x = ``size``.

    Parameters
    ----------
    frames : (frames, rows, cols), of a coherent beam; they count as 0 beyond the edges
    size : m
    """
    checks.number("visibility", visibility, above=0, at_most=1)
    spread_of_q = math.sqrt(-2 * math.log(visibility)) / checks.number("size", size, above=0)  # rad/m, rms
    across = experiment.frame @ np.eye(3)[:, :2]  # lab x and y, across k_0, in the model frame
    steps = np.linalg.solve(experiment.basis(), spread_of_q * across)  # (frame, row, col) of one rms in x and in y
    shape = [scipy.fft.next_fast_len(n + math.ceil(8 * reach)) for n, reach in zip(
        frames.shape, np.linalg.norm(steps, axis=1), strict=True
    )]  # fmt: skip
    cycles = np.meshgrid(*(scipy.fft.fftfreq(n) for n in shape), indexing="ij", sparse=True)
    exponent = sum(sum(c * s for c, s in zip(cycles, step, strict=True)) ** 2 for step in steps.T)
    smeared = scipy.fft.fftn(frames, shape) * np.exp(-2 * np.pi**2 * exponent)
    found = scipy.fft.ifftn(smeared).real[tuple(slice(n) for n in frames.shape)]
    # what rings where the frames end is below what they end with
    return np.maximum(found, 0)


def relative_flux(n_frames: int, disturbances: Disturbances) -> np.ndarray:
    """(n_frames,), mean 1: independent from frame to frame, and one slow wave."""
    rng = disturbances.stream("flux")
    jitter = np.exp(disturbances.flux_jitter * rng.normal(size=n_frames))
    time = np.linspace(0, 1, n_frames)
    slow = np.cos(2 * np.pi * (rng.uniform(0.3, 1.0) * time + rng.uniform()))
    flux = jitter * np.maximum(1 + disturbances.flux_drift * slow, 0.01)
    return flux / flux.mean()


def spread(frames, point_spread: float) -> np.ndarray:
    """Every count moved by a Gaussian of ``point_spread`` pixels, rms, within its frame; what leaves it is lost."""
    if not point_spread:
        return frames
    return ndimage.gaussian_filter(frames, (0, point_spread, point_spread), mode="constant", truncate=6)


def background_counts(shape, disturbances: Disturbances) -> np.ndarray:
    """Expected counts, float64 (frames, rows, cols): flat, from frame to frame, and a streak."""
    frames, rows, cols = shape
    rng = disturbances.stream("background")
    level = disturbances.background * np.exp(disturbances.background_jitter * rng.normal(size=frames))
    angle = rng.uniform(0, np.pi)
    row, col = (np.arange(n)[:, None] - rng.uniform(0.25, 0.75) * n for n in (rows, cols))
    off = np.cos(angle) * row - np.sin(angle) * col.T
    return level[:, None, None] + disturbances.streak * np.exp(-(off**2) / (2 * 1.5**2))


def live_pixels(experiment: Experiment, disturbances: Disturbances) -> np.ndarray:
    """bool (rows, cols): neither behind the beam stop nor in the gap."""
    row, col = (np.arange(n) - c for n, c in zip(experiment.detector_shape, experiment.centre[1:], strict=True))
    live = np.hypot(row[:, None], col) >= disturbances.beam_stop
    if disturbances.gap:
        first = experiment.detector_shape[1] * 3 // 4
        live[:, first : first + GAP] = False
    return live


# name: a beamline's usual day of each
USUAL: dict[str, dict[str, Any]] = {
    "none": {},
    "flux": {"flux_jitter": 0.05},
    "drift": {"flux_jitter": 0.05, "flux_drift": 0.1},
    "background": {"background": 0.03},
    "streak": {"background": 0.03, "background_jitter": 0.2, "streak": 0.5},
    "angles": {"angle_jitter": 0.2},
    "coherence": {"visibility": 0.8},
    "bandwidth": {"bandwidth": 6e-5},  # of Si (111), rms
    "spread": {"point_spread": 0.7},
    "detector": {"beam_stop": 2.5, "gap": True},
    "all": {
        "flux_jitter": 0.05,
        "background": 0.03,
        "angle_jitter": 0.2,
        "visibility": 0.8,
        "point_spread": 0.7,
        "beam_stop": 2.5,
        "gap": True,
    },
}


def usual(name: str, photons: float | None, seed: int) -> Disturbances:
    """One of `USUAL` with photons and seed."""
    checks.choice("name", name, tuple(USUAL))
    return Disturbances(photons=photons, seed=seed, **USUAL[name])
