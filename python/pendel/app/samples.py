"""The crystals that [simulate] names: a shape with a strain, or one of `pendel.analysis.crystals`.

To add a shape or a strain: a function, and one line in `SHAPES` or `STRAINS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..analysis import bodies, crystals, phantom, strain_fields
from ..experiment.geometry import rotation
from .errors import ConfigError

# Centres, widths (in units of the size) and relative heights of the phase bumps. All of one sign and on no common
# axis: the field is far from its own conjugate twin, phi(-r) = -phi(r), so that taking the wrong twin shows.
BUMPS = (
    ((0.30, 0.20, -0.25), (-0.10, 0.35, 0.20), (0.15, -0.30, 0.30)),
    (0.30, 0.25, 0.25),
    (1.0, 0.8, 0.93),
)
RATIO = 1.15  # of a truncated octahedron: distance of {100} over that of {111}


class Body(NamedTuple):
    """Size in m (a number, or three for a cuboid) and rotation (3, 3) of the crystal's axes in the model frame.

    frame : (3, 3), rows = the model's x, y, z in the laboratory.
    """

    size: np.ndarray
    turn: np.ndarray
    frame: np.ndarray

    @property
    def axes(self):
        """(3, 3), columns = the crystal's axes in the laboratory."""
        return self.frame.T @ self.turn

    @property
    def largest(self):
        """The largest size, m."""
        return float(np.max(self.size))


class Shape(NamedTuple):
    """fill : (shape, voxel, Body) -> the part of each voxel that the crystal fills, (nz, ny, nx).

    cut : Body -> the same of `pendel.analysis.bodies`.  width : between {100} facets, over the size.  sides : whether
    three sizes may be given.  facets : whether its facets are those of the lattice, turned by crystal.hkl.
    """

    fill: Callable
    cut: Callable[[Body], Any]
    width: float = 1.0
    sides: bool = False
    facets: bool = False


def _cube(shape, voxel, body):
    return phantom.cube(shape, voxel, np.broadcast_to(body.size, 3), body.turn)


def _cut_cube(body):
    normals = np.concatenate([body.axes.T, -body.axes.T])
    return bodies.Polyhedron(normals, np.tile(np.broadcast_to(body.size, 3) / 2, 2))


def _sphere(shape, voxel, body):
    return phantom.sphere(shape, voxel, body.size / 2)


def _cut_sphere(body):
    return bodies.Ball((0.0, 0.0, 0.0), body.largest / 2)


def _truncated_octahedron(shape, voxel, body):
    return phantom.truncated_octahedron(shape, voxel, body.size / 2, RATIO, rotation=body.turn)


def _cut_truncated_octahedron(body):
    signs = np.array([[i, j, k] for i in (1, -1) for j in (1, -1) for k in (1, -1)]) / np.sqrt(3)
    normals = np.concatenate([signs, np.eye(3), -np.eye(3)]) @ body.axes.T
    return bodies.Polyhedron(normals, body.largest / 2 * np.array([1.0] * 8 + [RATIO] * 6))


SHAPES = {
    "cube": Shape(_cube, _cut_cube, sides=True),
    "sphere": Shape(_sphere, _cut_sphere),
    "truncated_octahedron": Shape(_truncated_octahedron, _cut_truncated_octahedron, width=RATIO, facets=True),
}


@dataclass(frozen=True)
class Contact:
    """1/(1 + |r - corner|/radius), as `phantom.contact`; corner (3,) and radius in m."""

    corner: np.ndarray
    radius: float

    def phase(self, r):
        """At positions r (3, ...), m, in the laboratory."""
        distance = np.sqrt(sum((x - float(c)) ** 2 for x, c in zip(r, self.corner, strict=True)))
        return 1 / (1 + distance / self.radius)


@dataclass(frozen=True)
class Bend:
    """r.C.r/2, as `phantom.bend`; curvature C (3, 3)."""

    curvature: np.ndarray

    def phase(self, r):
        """At positions r (3, ...), m, in the laboratory."""
        c = self.curvature.tolist()
        return 0.5 * sum(c[i][j] * (r[i] * r[j]) for i in range(3) for j in range(3))


@dataclass(frozen=True)
class Times:
    """``factor`` times the phase of a strain."""

    strain: Any
    factor: float

    def phase(self, r):
        """rad, at positions r (3, ...), m, in the laboratory."""
        return self.factor * self.strain.phase(r)


def _none(body):
    return strain_fields.Bumps(np.zeros((0, 3)), np.zeros(0), np.zeros(0))


def _bumps(body):
    centres, widths, heights = map(np.array, BUMPS)
    return strain_fields.Bumps(centres * body.largest @ body.frame, widths * body.largest, heights)


def _contact(body):
    """Pressed at one corner of a cube."""
    return Contact(body.axes @ np.full(3, body.largest / 2), body.largest / 8)


def _bend(body):
    curvature = np.array([[0.0, 0, 1], [0, 0, 0], [1, 0, 1]])
    return Bend(body.frame.T @ curvature @ body.frame / body.largest**2)


# Body -> phase of `pendel.analysis.strain_fields`, not yet scaled.
STRAINS = {"none": _none, "bumps": _bumps, "contact": _contact, "bend": _bend}


def body_of(config, experiment) -> Body:
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
    return Body(size, turn, experiment.frame)


def kind_of(config, experiment) -> crystals.SampleCrystal:
    """The crystal that simulate.crystal names."""
    this = config.simulate
    for key in ("shape", "rotation_deg", "strain", "strength"):
        if f"simulate.{key}" in config.given:
            raise ConfigError(f"simulate.crystal: expected this or simulate.{key}, got both")
    size = config.need("simulate.size_nm")
    if isinstance(size, tuple):
        raise ConfigError(f"simulate.size_nm: expected one number with simulate.crystal, got {list(size)}")
    return crystals.KINDS[this.crystal](this.crystal_seed, size * 1e-9, experiment.h)


def extent(config, experiment) -> np.ndarray:
    """The crystal's extent (z, y, x) along the model's axes, m."""
    if config.simulate.crystal is not None:
        return np.ptp(kind_of(config, experiment).hull @ experiment.frame.T, axis=0)[::-1]
    body = body_of(config, experiment)
    size = np.broadcast_to(body.size * SHAPES[config.simulate.shape].width, 3)
    return (np.abs(body.turn) @ size)[::-1]


def sample_of(config, model) -> crystals.SampleCrystal:
    """The crystal of [simulate] as a function of position; its phase is scaled by what ``model`` has of it inside."""
    this, experiment = config.simulate, model.experiment
    if this.crystal is not None:
        return kind_of(config, experiment)
    body = body_of(config, experiment)
    strain = STRAINS[this.strain](body)
    inside = SHAPES[this.shape].fill(model.shape, model.voxel, body) > 0
    if not inside.any():
        raise ConfigError("simulate.size_nm: expected a crystal larger than a voxel, got an empty box")
    peak = np.abs(strain.phase(positions(model))[inside]).max()
    scaled = Times(strain, float(this.strength / (peak or 1)))
    return solid(f"{this.strain} {this.shape}", SHAPES[this.shape].cut(body), scaled)


def solid(name, body, strain) -> crystals.SampleCrystal:
    """A crystal of one body with one phase."""
    size = float(np.ptp(body.points(), axis=0).max())
    return crystals.SampleCrystal(name, size, (crystals.Grain((body,), strain=strain),))


def averaged(config, model, sample) -> tuple[np.ndarray | None, np.ndarray]:
    """(s_0, S) of the sample on the grid of ``model``; s_0 None: |S|. Shapes have their exact volume fractions."""
    if config.simulate.crystal is None:
        filled = SHAPES[config.simulate.shape].fill(model.shape, model.voxel, body_of(config, model.experiment))
        return None, phantom.crystal_function(filled, sample.grains[0].strain.phase(positions(model)), model.dtype)
    s_0, S = crystals.sampled(sample, model.shape, model.voxel, model.experiment.frame)
    return np.maximum(s_0, 0).astype(model.real_dtype), S.astype(model.dtype)


def positions(model) -> np.ndarray:
    """(3, nz, ny, nx), m, of a model's voxels in the laboratory."""
    z, y, x = phantom.coordinates(model.shape, model.voxel)
    return np.tensordot(model.experiment.frame.T, np.stack(np.broadcast_arrays(x, y, z)), 1)
