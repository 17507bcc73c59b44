"""Simulated rocking scans: frames of a test crystal by wide-angle optics or by the model, and what a beamline adds."""

import dataclasses
import math
import warnings
from typing import NamedTuple

import numpy as np

from .. import io
from ..analysis import disturbances, rocking_scans
from ..analysis.disturbances import Disturbances
from ..base import checks
from . import samples
from .errors import ConfigError
from .samples import BUMPS

__all__ = ["BRIGHTEST", "BUMPS", "MAKERS", "Simulated", "counts", "model_of", "simulated", "write"]

BRIGHTEST = 1e6  # counts in the brightest pixel where no photon number is asked for
ROOM = 1.35  # of the box over the crystal


class Simulated(NamedTuple):
    """A scan: counts, good pixels, the crystal on the model's grid, counts per unit of intensity, what is unknown."""

    data: np.ndarray
    mask: np.ndarray | None
    S: np.ndarray
    scale: float
    unknown: dict


def counts(intensities, photons=None, seed=0, *, total=None) -> tuple[np.ndarray, float]:
    """Computed intensities as counts.

    Parameters
    ----------
    intensities : any shape.
    photons : expected in the brightest pixel, or
    total : in the whole scan. Neither: no noise, 1e6 in the brightest pixel.
    seed : of the Poisson noise.

    Returns
    -------
    data : int32, or float32 without noise.
    scale : data are scale * intensities, and noise.
    """
    if photons is not None and total is not None:
        raise ValueError("photons, total: expected at most one, got both")
    if total is not None:
        scale = checks.number("total", total, above=0) / float(intensities.sum(dtype=np.float64))
    else:
        photons_at_peak = BRIGHTEST if photons is None else checks.number("photons", photons, above=0)
        scale = photons_at_peak / float(intensities.max())
    if photons is None and total is None:
        return (intensities * scale).astype(np.float32), scale
    return np.random.default_rng(seed).poisson(intensities.astype(np.float64) * scale).astype(np.int32), scale


def model_of(config):
    """`Model` of a config without data; where model.shape is not set the box is 1.35 times the crystal."""
    experiment = config.experiment()
    voxel = config.voxel(experiment)
    shape = config.model.shape
    if shape is None:
        extent = samples.extent(config, experiment)
        shape = [2 * math.ceil(ROOM * e / (2 * v)) for e, v in zip(extent, voxel, strict=True)]
    return config.make_model(experiment, shape, voxel)


def simulated(config, model) -> Simulated:
    """The scan that [simulate] and [disturbances] ask for, the crystal on the grid of ``model``."""
    return MAKERS[config.simulate.maker](config, model)


def _by_the_model(config, model):
    """Frames of the model that also reconstructs: what can be recovered where it holds, not how well it holds."""
    given = sorted(key for key in config.given if key.startswith("disturbances."))
    if given:
        raise ConfigError(f"{given[0]}: expected simulate.maker = 'wide-angle', got 'model'")
    s_0, S = samples.averaged(config, model, samples.sample_of(config, model))
    data, scale = counts(model.intensities_on_host(S, s_0=s_0), config.simulate.photons, config.simulate.seed)
    return Simulated(data, None, S, scale, {})


def _by_wide_angle_optics(config, model):
    """Frames of `pendel.reference.wide_angle`, which knows neither the model's grid nor its equations."""
    this, experiment = config.simulate, model.experiment
    if model.coupling != "dynamical":
        raise ConfigError(
            f"model.coupling: expected 'dynamical' with simulate.maker = 'wide-angle', got {model.coupling!r}"
        )
    ignored = [
        f"model.{key}" for key in ("point_spread", "coherence_um", "bandwidth") if f"model.{key}" in config.given
    ]
    if ignored:
        warnings.warn(f"{', '.join(ignored)}: not in these frames, see [disturbances]", stacklevel=2)
    asked = _disturbances(config)
    sample = samples.sample_of(config, model)

    def frames_of(**offsets):
        return wide_angle_frames(model, sample, **offsets)

    try:
        frames = disturbances.true_frames(frames_of, experiment, asked)
    except ValueError as error:
        raise ConfigError(f"simulate.maker: expected 'model' for a scan that wide-angle cannot do: {error}") from None
    S = samples.averaged(config, model, sample)[1]
    if asked == Disturbances(photons=this.photons, seed=this.seed):
        data, scale = counts(frames, this.photons, this.seed)
        return Simulated(data, None, S, scale, {})
    return _disturbed(frames, experiment, asked, sample, S)


def wide_angle_frames(model, sample, **offsets):
    """Frames of a sample for the experiment of a model, on all its threads; float64 (frames, rows, cols)."""
    options = {"polarization": model.polarization, "workers": model.threads or 1}
    return rocking_scans.foreign_frames(model.experiment, model.crystal, sample, **options, **offsets)


MAKERS = {"wide-angle": _by_wide_angle_optics, "model": _by_the_model}


def _disturbances(config):
    """`Disturbances` of [disturbances]; photons are those of [simulate], in the brightest pixel."""
    asked = vars(config.disturbances)
    if config.simulate.photons is None and any(asked[key] for key in ("background", "streak", "saturation")):
        raise ConfigError("simulate.photons: expected a number with disturbances that count, got none")
    return Disturbances(**asked, photons=config.simulate.photons, seed=config.simulate.seed)


def _disturbed(frames, experiment, asked, sample, S):
    """Frames as a beamline measures them."""
    if asked.photons is None:
        seen = disturbances.measured(frames, experiment, asked, sample.size)
        scale = BRIGHTEST / seen.data.max()
        data = (seen.data * scale).astype(np.float32)
    else:
        total = asked.photons * frames.sum() / frames.max()
        seen = disturbances.measured(frames, experiment, dataclasses.replace(asked, photons=total), sample.size)
        data, scale = seen.data, seen.scale
    unknown = {"flux": seen.flux, "angle_offsets": disturbances.angle_offsets(experiment, asked)}
    return Simulated(data, seen.mask, S, scale, unknown)


def write(path, model, data, S, scale, name="", extra=None, mask=None, *, force=False) -> None:
    """Write simulated frames as CXI; the crystal (``truth``), its voxel and the scale are in the scan's metadata.

    force : as in `io.write_scan`.
    """
    experiment = model.experiment
    io.write_scan(
        path,
        data,
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        energy=experiment.energy,
        mask=mask,
        rocking_angles=experiment.rocking_angles,
        rocking_axis=experiment.arguments["rocking_axis"],  # by its name
        arm=experiment.arm,
        centre=experiment.centre,
        name=name,
        extra={"truth": S, "voxel": np.array(model.voxel), "scale": scale} | (extra or {}),
        force=force,
    )
