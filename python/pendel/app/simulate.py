"""Simulated rocking scans: a test crystal, its detector frames through the dynamical model, photon noise.

To add a shape or a strain of crystals: a function, and one line in `SHAPES` or `STRAINS`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import io
from ..analysis import phantom
from ..base import checks
from ..experiment.geometry import rotation
from .errors import ConfigError

BRIGHTEST = 1e6  # counts in the brightest pixel where no photon number is asked for
# Centres, widths (in units of the size) and relative heights of the phase bumps. All of one sign and on no common
# axis: the field is far from its own conjugate twin, phi(-r) = -phi(r), so that taking the wrong twin shows.
BUMPS = (
    ((0.30, 0.20, -0.25), (-0.10, 0.35, 0.20), (0.15, -0.30, 0.30)),
    (0.30, 0.25, 0.25),
    (1.0, 0.8, 0.93),
)


class Body(NamedTuple):
    """Size in m (a number, or three for a cuboid) and rotation (3, 3) of the crystal's axes in the model frame."""

    size: np.ndarray
    turn: np.ndarray


class Shape(NamedTuple):
    """fill : (shape, voxel, Body) -> the part of each voxel that the crystal fills, (nz, ny, nx).

    width : between {100} facets, over the size.  sides : whether three sizes may be given.  facets : whether its facets
    are those of the lattice, turned by crystal.hkl.
    """

    fill: Callable
    width: float = 1.0
    sides: bool = False
    facets: bool = False


def _cube(shape, voxel, body):
    return phantom.cube(shape, voxel, np.broadcast_to(body.size, 3), body.turn)


def _sphere(shape, voxel, body):
    return phantom.sphere(shape, voxel, body.size / 2)


def _truncated_octahedron(shape, voxel, body):
    return phantom.truncated_octahedron(shape, voxel, body.size / 2, rotation=body.turn)


SHAPES = {
    "cube": Shape(_cube, sides=True),
    "sphere": Shape(_sphere),
    "truncated_octahedron": Shape(_truncated_octahedron, width=1.15, facets=True),
}


def _none(shape, voxel, body):
    return np.zeros(shape)


def _bumps(shape, voxel, body):
    size = float(np.max(body.size))
    centres, widths, heights = map(np.array, BUMPS)
    return phantom.bumps(shape, voxel, centres * size, widths * size, heights)


def _contact(shape, voxel, body):
    """Pressed at one corner of a cube."""
    size = float(np.max(body.size))
    return phantom.contact(shape, voxel, body.turn @ np.full(3, size / 2), size / 8, 1.0)


def _bend(shape, voxel, body):
    return phantom.bend(shape, voxel, [[0, 0, 1], [0, 0, 0], [1, 0, 1]])


# (shape, voxel, Body) -> phase field (nz, ny, nx), not yet scaled.
STRAINS = {"none": _none, "bumps": _bumps, "contact": _contact, "bend": _bend}


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
        body = _body(config, experiment)
        size = np.broadcast_to(body.size * SHAPES[config.simulate.shape].width, 3)
        extent = (np.abs(body.turn) @ size)[::-1]
        shape = [2 * math.ceil(1.35 * e / (2 * v)) for e, v in zip(extent, voxel, strict=True)]
    return config.make_model(experiment, shape, voxel)


def crystal_function(config, model) -> np.ndarray:
    """The test crystal of [simulate] on the grid of ``model``, complex (nz, ny, nx) of its dtype."""
    this, body = config.simulate, _body(config, model.experiment)
    filled = SHAPES[this.shape].fill(model.shape, model.voxel, body)
    inside = filled > 0
    if not inside.any():
        raise ConfigError("simulate.size_nm: expected a crystal larger than a voxel, got an empty box")
    phase = STRAINS[this.strain](model.shape, model.voxel, body)
    peak = np.abs(phase[inside]).max()
    return phantom.crystal_function(filled, phase * (this.strength / peak) if peak > 0 else phase, model.dtype)


def _body(config, experiment):
    """The `Body` of [simulate]."""
    this, shape = config.simulate, SHAPES[config.simulate.shape]
    size = np.array(config.need("simulate.size_nm")) * 1e-9
    if size.ndim and not shape.sides:
        raise ConfigError(f"simulate.size_nm: expected one number for a {this.shape}, got {list(this.size_nm)}")
    angles = np.radians(this.rotation_deg)
    x, y, z = angles if angles.ndim else (0.0, angles, 0.0)
    turn = rotation("z+", z) @ rotation("y+", y) @ rotation("x+", x)
    hkl = config.crystal_keys.hkl
    if shape.facets and hkl is not None:
        turn = turn @ phantom.orientation(hkl, experiment.frame @ experiment.h)
    return Body(size, turn)


def write(path, model, data, S, scale, name="", extra=None) -> None:
    """Write simulated frames as CXI; the crystal (``truth``), its voxel and the scale are in the scan's metadata."""
    experiment = model.experiment
    io.write_scan(
        path,
        data,
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        energy=experiment.energy,
        rocking_angles=experiment.rocking_angles,
        rocking_axis=experiment.arguments["rocking_axis"],  # by its name
        arm=experiment.arm,
        centre=experiment.centre,
        name=name,
        extra={"truth": S, "voxel": np.array(model.voxel), "scale": scale} | (extra or {}),
    )
