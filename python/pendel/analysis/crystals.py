"""Sample crystals with sharp surfaces and whatever crystals have inside, each from its seed, as functions of position.

They stand for reality: nothing here knows a grid. `pendel.reference.wide_angle` makes frames of them, `sampled` renders
them on the voxels of a model. Positions are in the laboratory, with the crystal at the centre of its scan and not
turned; h is that of the experiment. A crystal of size d has a largest extent d along the laboratory's axes.

    crystal = crystals.smooth(seed=1, size=0.8e-6, h=experiment.h)
    s_0, S = crystal(r, width=7e-9)  # r (3, ...), m
"""

from dataclasses import dataclass

import numpy as np

from ..base import checks
from .bodies import HALF_WIDTH, Polyhedron, corners
from .phantom import coordinates, orientation
from .strain_fields import Bumps, Dislocation, Inclusion, Sum


@dataclass(frozen=True)
class Grain:
    """Part of a crystal with a phase of its own.

    Attributes
    ----------
    bodies : it is where all of them are
    holes : but not where one of these is
    strain : what has phase(r), rad; None: it refracts and absorbs, and does not scatter into the reflection
    """

    bodies: tuple
    holes: tuple = ()
    strain: Bumps | Dislocation | Inclusion | Sum | None = None

    def fraction(self, r, width):
        """How much of it there is at positions r (3, ...), smoothed over ``width``, m."""
        inside = self.bodies[0].fraction(r, width)
        for body in self.bodies[1:]:
            inside = inside * body.fraction(r, width)
        for hole in self.holes:
            inside = inside * (1 - hole.fraction(r, width))
        return inside

    def crystal_function(self, r, width):
        """exp(i phi), less where the phase turns round within ``width``."""
        wave = np.exp(1j * self.strain.phase(r))
        return wave * self.strain.coherence(r, width) if hasattr(self.strain, "coherence") else wave


@dataclass(frozen=True)
class SampleCrystal:
    """A crystal of one or more grains, as a function of position.

    Attributes
    ----------
    name : kind and seed
    size : largest extent along an axis of the laboratory, m
    grains : Grain, ...
    """

    name: str
    size: float
    grains: tuple[Grain, ...]

    def __call__(self, r, width):
        """(s_0, S) at positions r (3, ...), m, surfaces smoothed over ``width`` as in `bodies`."""
        s_0, S = np.zeros(r.shape[1:], r.dtype), np.zeros(r.shape[1:], np.result_type(r.dtype, np.complex64))
        for grain in self.grains:
            inside = grain.fraction(r, width)
            s_0 += inside
            if grain.strain is not None and np.any(inside):
                S += inside * grain.crystal_function(r, width)
        return s_0, S

    def density(self, r, width):
        """s_0 at positions r (3, ...), m."""
        return self(r, width)[0]

    def phase(self, r):
        """phi of the grain that scatters at r, rad, not wrapped; 0 where none does."""
        total = np.zeros(r.shape[1:], r.dtype)
        for grain in self.grains:
            if grain.strain is not None:
                total = np.where(grain.fraction(r, 1e-12) > 0.5, grain.strain.phase(r), total)
        return total

    @property
    def hull(self):
        """(m, 3) positions whose convex hull holds the crystal, m."""
        return np.concatenate([grain.bodies[0].points() for grain in self.grains])


def sampled(crystal: SampleCrystal, shape, voxel, frame=None, finer: int = 4):
    """(s_0, S) averaged over the voxels of a grid.

    Parameters
    ----------
    shape : (nz, ny, nx)
    voxel : (dz, dy, dx), m; the origin is at voxel n//2 of every axis, as in `phantom`
    frame : (3, 3), rows = the grid's x, y, z in lab components; None: the laboratory's
    finer : positions per voxel's edge

    Returns
    -------
    float64 and complex128 (nz, ny, nx)
    """
    finer = checks.integer("finer", finer, at_least=1)
    axes = np.eye(3) if frame is None else checks.array("frame", frame, (3, 3), np.float64)
    centres = coordinates(shape, voxel)
    offsets = (np.arange(finer) + 0.5) / finer - 0.5
    width = max(voxel) / finer / (2 * HALF_WIDTH)  # a surface smoothed over one of the positions
    s_0, S = np.zeros(shape), np.zeros(shape, complex)
    for layer, z in enumerate(centres[0][:, 0, 0]):
        for a in offsets:
            for b in offsets:
                for c in offsets:
                    x, y = centres[2][0] + c * voxel[2], centres[1][0] + b * voxel[1]
                    r = [axes[0, i] * x + axes[1, i] * y + axes[2, i] * (z + a * voxel[0]) for i in range(3)]
                    density, function = crystal(np.stack(r), width)
                    s_0[layer] += density
                    S[layer] += function
    return s_0 / finer**3, S / finer**3


def _facets(rng, size, h, sides=(0.85, 1.15), centre=(0.0, 0.0, 0.0)):
    """A random fcc crystal of {111} and {100} facets, h along <002> or <111>, turned at random about h."""
    signs = np.array([[i, j, k] for i in (1, -1) for j in (1, -1) for k in (1, -1)]) / np.sqrt(3)
    cubic = np.concatenate([signs, np.eye(3), -np.eye(3)])
    hkl = ((0, 0, 2), (1, 1, 1))[rng.integers(2)]
    normals = cubic @ orientation(hkl, h, rng.uniform(0, 2 * np.pi)).T
    ratio = rng.uniform(1.0, 1.3)
    distances = np.where(np.arange(14) < 8, 1.0, ratio) * rng.uniform(*sides, size=14)

    points = corners(normals, distances)
    middle = (points.max(0) + points.min(0)) / 2
    scale = size / (points.max(0) - points.min(0)).max()
    return Polyhedron(normals, scale * (distances - normals @ middle), centre)


def _smooth_phase(rng, body, size, peak_to_peak, length):
    """Gaussians of some ``length`` (m) at random places, peak to peak within the body, rad."""
    bumps = Bumps(
        centres=rng.uniform(-0.5, 0.5, (8, 3)) * size + np.array(body.centre),
        widths=length * rng.uniform(0.8, 1.25, 8),
        heights=rng.normal(size=8),
    )
    seen = bumps.phase(_inside(body, size))
    return bumps.scaled(peak_to_peak / (seen.max() - seen.min()))


def _inside(body, size):
    """Positions (3, n) all over the body."""
    line = np.linspace(-0.5, 0.5, 33) * size
    r = np.stack(np.meshgrid(line, line, line, indexing="ij")).reshape(3, -1) + np.array(body.centre)[:, None]
    return r[:, body.fraction(r, 1e-12) > 0.5]


def smooth(seed: int, size: float, h, peak_to_peak: float = 2.5, length: float = 0.3) -> SampleCrystal:
    """Facets at random and a smooth random phase.

    Parameters
    ----------
    seed : int
    size : m
    h : (3,) rad/m, lab
    peak_to_peak : of the phase, rad
    length : of its bumps, in sizes
    """
    rng = np.random.default_rng(seed)
    body = _facets(rng, size, h)
    phase = _smooth_phase(rng, body, size, peak_to_peak, length * size)
    return SampleCrystal(f"smooth {seed}", size, (Grain((body,), strain=phase),))
