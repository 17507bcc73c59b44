"""Simulated rocking scans: a test crystal, its detector frames through the dynamical model, photon noise."""

import math

import numpy as np

from .. import io
from ..analysis import phantom
from ..base import checks
from ..experiment.geometry import rotation
from .config import ConfigError

BRIGHTEST = 1e6  # counts in the brightest pixel where no photon number is asked for
# Centres, widths (in units of the size) and relative heights of the phase bumps. All of one sign and on no common
# axis: the field is far from its own conjugate twin, phi(-r) = -phi(r), so that taking the wrong twin shows.
BUMPS = (
    ((0.30, 0.20, -0.25), (-0.10, 0.35, 0.20), (0.15, -0.30, 0.30)),
    (0.30, 0.25, 0.25),
    (1.0, 0.8, 0.93),
)
_WIDTH = {"cube": 1.0, "sphere": 1.0, "truncated_octahedron": 1.15}  # between {100} facets, over size_nm


def counts(intensities, photons=None, seed=0, *, total=None):
    """Computed intensities as counts: (data, scale), data = scale * intensities.

    photons : expected in the brightest pixel, or total : in the whole scan; data are then Poisson random numbers
        (int32) of generator ``seed``. Neither: no noise, float32, 1e6 in the brightest pixel.
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
        size, turn = _body(config, experiment)
        extent = (np.abs(turn) @ np.broadcast_to(size * _WIDTH[config.simulate.shape], 3))[::-1]
        shape = [2 * math.ceil(1.35 * e / (2 * v)) for e, v in zip(extent, voxel, strict=True)]
    return config.make_model(experiment, shape, voxel)


def crystal_function(config, model):
    """The test crystal of [simulate] on the grid of ``model``, complex (nz, ny, nx) of its dtype."""
    this, grid = config.simulate, (model.shape, model.voxel)
    size, turn = _body(config, model.experiment)
    if this.shape == "cube":
        body = phantom.cube(*grid, np.broadcast_to(size, 3), turn)
    elif this.shape == "sphere":
        body = phantom.sphere(*grid, size / 2)
    else:
        body = phantom.truncated_octahedron(*grid, size / 2, rotation=turn)
    inside = body > 0
    if not inside.any():
        raise ConfigError("simulate.size_nm: expected a crystal larger than a voxel, got an empty box")
    phase = _strain(this.strain, grid, float(np.max(size)), turn)
    peak = np.abs(phase[inside]).max()
    return phantom.crystal_function(body, phase * (this.strength / peak) if peak > 0 else phase, model.dtype)


def _body(config, experiment):
    """Size in m (a number, or three for a cuboid) and rotation (3, 3) of the crystal's axes in the model frame."""
    this = config.simulate
    size = np.array(config.need("simulate.size_nm")) * 1e-9
    if size.ndim and this.shape != "cube":
        raise ConfigError(f"simulate.size_nm: expected one number for a {this.shape}, got {this.size_nm}")
    angles = np.radians(this.rotation_deg)
    x, y, z = angles if angles.ndim else (0.0, angles, 0.0)
    turn = rotation("z+", z) @ rotation("y+", y) @ rotation("x+", x)
    hkl = config.crystal_keys.hkl
    if this.shape == "truncated_octahedron" and hkl is not None:
        turn = turn @ phantom.orientation(hkl, experiment.frame @ experiment.h)
    return size, turn


def _strain(kind, grid, size, turn):
    """Phase field (nz, ny, nx) in rad, not yet scaled."""
    if kind == "none":
        return np.zeros(grid[0])
    if kind == "bumps":
        centres, widths, heights = map(np.array, BUMPS)
        return phantom.bumps(*grid, centres * size, widths * size, heights)
    if kind == "contact":  # pressed at one corner of a cube
        return phantom.contact(*grid, turn @ np.full(3, size / 2), size / 8, 1.0)
    return phantom.bend(*grid, [[0, 0, 1], [0, 0, 0], [1, 0, 1]])


def write(path, model, data, S, scale, name="", extra=None):
    """Write simulated frames as CXI; the crystal (``truth``), its voxel and the scale are in the scan's metadata."""
    experiment = model.experiment
    given = experiment.arguments  # the rocking axis by its name
    io.write_scan(
        path,
        data,
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        energy=experiment.energy,
        rocking_angles=experiment.rocking_angles,
        rocking_axis=given["rocking_axis"],
        arm=experiment.arm,
        centre=experiment.centre,
        name=name,
        extra={"truth": S, "voxel": np.array(model.voxel), "scale": scale} | (extra or {}),
    )
