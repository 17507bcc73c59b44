"""Sample crystals with sharp surfaces and whatever crystals have inside, each from its seed, as functions of position.

They stand for reality: nothing here knows a grid. `pendel.reference.wide_angle` makes frames of them, `sampled` renders
them on the voxels of a model. Positions are in the laboratory, with the crystal at the centre of its scan and not
turned; h is that of the experiment. A crystal of size d has a largest extent d along the laboratory's axes.

    crystal = crystals.smooth(seed=1, size=0.8e-6, h=experiment.h)
    s_0, S = crystal(r, width=7e-9)  # r (3, ...), m
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..base import checks
from .bodies import HALF_WIDTH, Ball, HalfSpace, Polyhedron, Roughness, corners
from .comparison import Comparison, compare
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
        phase = self.strain.phase(r)
        wave = np.empty(phase.shape, np.result_type(phase.dtype, np.complex64))
        wave.real, wave.imag = np.cos(phase), np.sin(phase)  # a third of the time of exp(i phi)
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


def phase_error(S, model, sample: SampleCrystal, experiment, *, ramp: bool = False) -> Comparison:
    """How far a reconstruction is from the crystal that its frames are of, one data voxel inside.

    A sharp S moved between voxels would ring: it is the sample that is moved to where S has it (`truth_under`).

    Parameters
    ----------
    S : complex (nz, ny, nx)
    model : of S, what has shape and voxel (dz, dy, dx), m
    sample : SampleCrystal
    experiment : Experiment
    ramp : whether a linear phase is free too

    Returns
    -------
    Comparison
        Its ``phase_rmse`` is the rms error of the phase, rad, but for a constant.
    """
    truth, inside = truth_under(S, model, sample, experiment, ramp=ramp)
    return compare(S, truth, model.voxel, inside, translate=False, ramp=ramp)


def truth_under(S, model, sample: SampleCrystal, experiment, *, ramp: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The sample where a reconstruction has it.

    Parameters
    ----------
    S, model, sample, experiment, ramp : as in `phase_error`

    Returns
    -------
    truth : complex128 (nz, ny, nx), at the voxels' middles
    inside : bool (nz, ny, nx), one voxel of the data's resolution inside its surface at least
    """
    shift = compare(S, _at(sample, experiment, model, (0, 0, 0)), model.voxel, ramp=ramp).shift
    truth = _at(sample, experiment, model, shift)
    padded = np.pad(np.abs(truth) > 0.5, 1)
    depth = ndimage.distance_transform_edt(padded, model.voxel)[1:-1, 1:-1, 1:-1]
    return truth, depth > experiment.suggest_voxel()[1]


def _at(sample, experiment, model, shift):
    """S of the sample on a model's grid, ``shift`` (z, y, x) voxels away from its middle."""
    places = zip(coordinates(model.shape, model.voxel), shift, model.voxel, strict=True)
    z, y, x = np.broadcast_arrays(*(place + moved * step for place, moved, step in places))
    return sample(np.tensordot(experiment.frame.T, np.stack([x, y, z]), 1), model.voxel[1])[1]


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


def strong(seed: int, size: float, h) -> SampleCrystal:
    """Facets at random, and a smooth phase of 10 to 15 rad peak to peak: in 0.8 um up to some 1 rad in 30 nm."""
    return _named("strong", smooth(seed, size, h, np.random.default_rng([seed, 1]).uniform(10, 15), 0.3))


def dislocation(seed: int, size: float, h, character: str | None = None) -> SampleCrystal:
    """A smooth crystal with a straight dislocation near its middle, h.b = 2 pi.

    Parameters
    ----------
    seed, size, h : as in `smooth`
    character : "edge" or "screw"; None: even seeds edge, odd ones screw
    """
    if character is None:
        character = ("edge", "screw")[seed % 2]
    checks.choice("character", character, ("edge", "screw"))
    h = checks.array("h", h, (3,), np.float64)
    rng, whole = np.random.default_rng([seed, 2]), smooth(seed, size, h, peak_to_peak=1.5)
    burgers = _tilted(rng, h, rng.uniform(0.2, 0.7))
    line = burgers if character == "screw" else np.cross(burgers, _direction(rng))
    core = Dislocation(
        h=h,
        through=tuple(rng.uniform(-0.12, 0.12, 3) * size),
        line=line / np.linalg.norm(line),
        burgers=2 * np.pi / (h @ burgers) * burgers,
        length=size,
    )
    return _with(whole, f"{character} dislocation", strain=Sum((whole.grains[0].strain, core)))


def void(seed: int, size: float, h, strained: bool | None = None) -> SampleCrystal:
    """A smooth crystal with a spherical hole.

    Parameters
    ----------
    seed, size, h : as in `smooth`
    strained : whether it strains the crystal around it, by 1.5 rad at its surface; None: of odd seeds
    """
    strained = bool(seed % 2) if strained is None else checks.flag("strained", strained)
    h = checks.array("h", h, (3,), np.float64)
    rng, whole = np.random.default_rng([seed, 3]), smooth(seed, size, h)
    hole = Ball(tuple(rng.uniform(-0.14, 0.14, 3) * size), rng.uniform(0.1, 0.15) * size)
    strain = whole.grains[0].strain
    if strained:
        pulled = Inclusion(h, hole.centre, hole.radius, 1.5 / float(np.linalg.norm(h) * hole.radius))
        strain = Sum((strain, pulled))
    return _with(whole, "strained void" if strained else "void", holes=(hole,), strain=strain)


def porous(seed: int, size: float, h) -> SampleCrystal:
    """A smooth crystal with some eight spherical holes of 0.1 to 0.2 sizes across."""
    rng, whole = np.random.default_rng([seed, 4]), smooth(seed, size, h)
    holes = tuple(
        Ball(tuple(place), radius)
        for place, radius in zip(rng.uniform(-0.3, 0.3, (8, 3)) * size, rng.uniform(0.05, 0.1, 8) * size, strict=True)
    )
    return _with(whole, "porous", holes=holes)


def wall(seed: int, size: float, h, jump: float = 2 * np.pi / 3) -> SampleCrystal:
    """A smooth crystal with a plane through its middle at which the phase jumps, rad, as antiphase domains' does."""
    rng, whole = np.random.default_rng([seed, 5]), smooth(seed, size, h, peak_to_peak=1.5)
    grain, plane = whole.grains[0], _cut(rng, size)
    assert isinstance(grain.strain, Bumps)  # of every smooth crystal
    sides = (grain.strain, dataclasses.replace(grain.strain, offset=jump))
    return _halves(whole, "wall", plane, sides)


def twin(seed: int, size: float, h) -> SampleCrystal:
    """A smooth crystal of two domains, of which one refracts and absorbs without scattering into the reflection."""
    rng, whole = np.random.default_rng([seed, 6]), smooth(seed, size, h)
    return _halves(whole, "twin", _cut(rng, size), (whole.grains[0].strain, None))


def rough(seed: int, size: float, h, height: float = 8e-9) -> SampleCrystal:
    """A smooth crystal whose facets are rough by ``height`` (rms, m) over 60 to 150 nm."""
    rng, whole = np.random.default_rng([seed, 7]), smooth(seed, size, h)
    lengths = rng.uniform(60e-9, 150e-9, 12)
    waves = np.array([2 * np.pi / length * _direction(rng) for length in lengths])
    surface = Roughness(waves, rng.uniform(0, 2 * np.pi, 12), np.full(12, height / math.sqrt(6)))
    body = dataclasses.replace(whole.grains[0].bodies[0], roughness=surface)
    return _with(whole, "rough", bodies=(body,))


def two_grains(seed: int, size: float, h, scatter: bool | None = None) -> SampleCrystal:
    """Two facetted grains that touch in a plane; the second one is turned by 0.01 to 0.03 deg, or far off Bragg.

    Parameters
    ----------
    seed, size, h : as in `smooth`
    scatter : whether the second one scatters into the reflection; None: of odd seeds
    """
    scatter = bool(seed % 2) if scatter is None else checks.flag("scatter", scatter)
    rng, h = np.random.default_rng([seed, 8]), checks.array("h", h, (3,), np.float64)
    apart = _direction(rng)
    grains = []
    for sign in (1, -1):
        centre = tuple(0.2 * size * sign * apart)
        body = _facets(rng, 0.6 * size, h, centre=centre)
        strain = _smooth_phase(rng, body, 0.6 * size, 2.0, 0.2 * size)
        grains.append(Grain((body, HalfSpace(-sign * apart)), strain=strain))
    turned = math.radians(rng.uniform(0.01, 0.03)) * np.cross(_direction(rng), h)
    strain = dataclasses.replace(strain, slope=tuple(turned)) if scatter else None
    grains[1] = dataclasses.replace(grains[1], strain=strain)
    return SampleCrystal(f"two grains {seed}", size, tuple(grains))


def _named(kind, crystal):
    return dataclasses.replace(crystal, name=f"{kind} {crystal.name.split()[-1]}")


def _with(crystal, kind, **changes):
    """A crystal of one grain, changed."""
    grain = dataclasses.replace(crystal.grains[0], **changes)
    return dataclasses.replace(_named(kind, crystal), grains=(grain,))


def _halves(crystal, kind, plane, strains):
    """A crystal of one grain, cut in two with a strain for either half."""
    (body,) = crystal.grains[0].bodies
    sides = (plane, dataclasses.replace(plane, normal=-plane.normal))
    grains = tuple(Grain((body, side), strain=strain) for side, strain in zip(sides, strains, strict=True))
    return dataclasses.replace(_named(kind, crystal), grains=grains)


def _cut(rng, size):
    """A plane through some place near the middle."""
    return HalfSpace(_direction(rng), tuple(rng.uniform(-0.1, 0.1, 3) * size))


def _direction(rng):
    """A unit vector, (3,)."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _tilted(rng, h, angle):
    """A unit vector at ``angle`` (rad) to h."""
    along = h / np.linalg.norm(h)
    across = np.cross(along, _direction(rng))
    return np.cos(angle) * along + np.sin(angle) * across / np.linalg.norm(across)


KINDS: dict[str, Callable[[int, float, np.ndarray], SampleCrystal]] = {
    "smooth": smooth,
    "strong": strong,
    "dislocation": dislocation,
    "void": void,
    "porous": porous,
    "wall": wall,
    "twin": twin,
    "rough": rough,
    "grains": two_grains,
}
