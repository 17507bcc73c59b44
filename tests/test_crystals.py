"""Sample crystals: volumes, strain fields, what each kind has inside, and the scans they are seen in."""

import dataclasses
import math

import numpy as np
import pytest
from pendel import Model
from pendel.analysis import crystals, rocking_scans
from pendel.analysis.bodies import Ball, HalfSpace, Polyhedron, Roughness, corners, smoothed_step
from pendel.analysis.crystals import KINDS, Grain, SampleCrystal, sampled
from pendel.analysis.strain_fields import Bumps, Dislocation, Inclusion, Sum
from scipy.spatial import ConvexHull

H = 3.1e10 * np.array([0.6, 0.0, -0.8])
SIZE = 0.8e-6


def grid(count, step, origin=(0.0, 0.0, 0.0)):
    line = (np.arange(count) - count // 2) * step
    return np.stack(np.meshgrid(line, line, line, indexing="ij")) + np.reshape(origin, (3, 1, 1, 1))


def test_smoothed_surface_keeps_the_band_and_folds_little_into_it():
    x = np.linspace(-4, 4, 8001)
    kernel = np.gradient(smoothed_step(x, 1.0), x)
    for order, moment in enumerate((1, 0, 0, 0, 0, 0)):
        assert np.trapezoid(kernel * x**order, x) == pytest.approx(moment, abs=1e-5)

    def seen(cycles):
        return np.abs(np.trapezoid(kernel * np.exp(-2j * np.pi * cycles[:, None] * x), x, axis=1))

    assert np.abs(seen(np.linspace(0, 1 / 8, 9)) - 1).max() < 6e-4
    assert seen(np.linspace(7 / 8, 3, 100)).max() < 4e-2


def test_bodies_have_their_volume():
    step, r = 20e-9, grid(60, 20e-9, (3e-9, 7e-9, -4e-9))
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(12, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    distances = rng.uniform(0.25e-6, 0.35e-6, 12)
    body = Polyhedron(normals, distances, (11e-9, 0.0, 5e-9))
    hull = ConvexHull(body.points())
    # Where facets meet the product of two surfaces is not the surface's.
    assert body.fraction(r, step).sum() * step**3 == pytest.approx(hull.volume, rel=2e-4)
    ball = Ball((11e-9, 0.0, 5e-9), 0.3e-6)
    assert ball.fraction(r, step).sum() * step**3 == pytest.approx(4 / 3 * math.pi * 0.3e-6**3, rel=1e-4)
    half = HalfSpace(np.array([1.0, 0, 0]), (0.0, 0.0, 0.0))
    sides = (half, dataclasses.replace(half, normal=-half.normal))
    np.testing.assert_allclose(sum(side.fraction(r, step) for side in sides), 1, rtol=1e-12)


def test_corners_of_a_cube_and_of_nothing():
    cube = np.concatenate([np.eye(3), -np.eye(3)])
    found = corners(cube, np.full(6, 2.0))
    assert sorted(map(tuple, np.round(found, 9))) == [(i, j, k) for i in (-2, 2) for j in (-2, 2) for k in (-2, 2)]
    with pytest.raises(ValueError, match="normals: expected facets that enclose a body, got 0 corners"):
        corners(np.eye(3)[:2], np.ones(2))


def test_roughness_moves_the_surface():
    cube = np.concatenate([np.eye(3), -np.eye(3)])
    surface = Roughness(np.array([[0, 2 * np.pi / 100e-9, 0]]), np.zeros(1), np.array([10e-9]))
    body = Polyhedron(cube, np.full(6, 0.2e-6), roughness=surface)
    y = np.linspace(-0.1e-6, 0.1e-6, 9)
    for gap, inside in ((-0.1e-9, 1), (0.1e-9, 0)):
        x = 0.2e-6 + 10e-9 * np.cos(2 * np.pi * y / 100e-9) + gap
        np.testing.assert_allclose(body.fraction(np.stack([x, y, 0 * y]), 1e-12), inside)
    assert np.abs(body.points()).max() == pytest.approx(0.21e-6)


def displacement(field_of, r):
    """u (3, ...) of a strain field, from its phase at three h."""
    return np.stack([-field_of(h).phase(r) for h in np.eye(3)])


def derivatives(function, at, step):
    """First and second derivatives, [i, component] and [i, j, component], of u at one place."""

    def u(*moves):
        return function((at + step * sum(np.eye(3)[i] * s for i, s in moves)).reshape(3, 1))[:, 0]

    first = np.array([(u((i, 1)) - u((i, -1))) / (2 * step) for i in range(3)])
    second = np.array(
        [
            [
                (u((i, 1), (j, 1)) - u((i, 1), (j, -1)) - u((i, -1), (j, 1)) + u((i, -1), (j, -1))) / (4 * step**2)
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    return first, second


@pytest.mark.parametrize("character", ["edge", "screw", "mixed"])
def test_dislocation_is_in_equilibrium_and_closes_on_its_burgers_vector(character):
    line = np.array([0.48, 0.6, 0.64])
    across = np.cross(line, [1, 0, 0])
    burgers = {"edge": across, "screw": 2 * line, "mixed": line + across}[character]
    nu = 0.3

    def field_of(h):
        return Dislocation(h, (0.1, -0.2, 0.3), line, burgers, 1.0, nu)

    at = np.array([0.9, 0.4, -0.3])
    first, second = derivatives(lambda r: displacement(field_of, r), at, 2e-3)
    # Navier: (1 - 2 nu) laplace u + grad div u = 0
    terms = (1 - 2 * nu) * np.einsum("iic->c", second), np.einsum("icc->i", second)
    assert np.abs(sum(terms)).max() < 1e-4 * np.abs(second).max()

    u, v = np.cross(line, [0, 1, 0]), np.cross(line, np.cross(line, [0, 1, 0]))
    angle = np.linspace(0, 2 * np.pi, 400)
    ring = np.array([0.1, -0.2, 0.3])[:, None] + 0.5 * (np.outer(u, np.cos(angle)) - np.outer(v, np.sin(angle)))
    steps = np.diff(displacement(field_of, ring), axis=1)
    steps -= np.where(np.abs(steps) > 0.3 * np.abs(burgers)[:, None] + 1e-3, steps, 0)  # the cut
    turned = np.abs(np.sum(steps, axis=1)) - np.abs(burgers)
    assert np.abs(turned).max() < 0.02 * np.abs(burgers).max()


def test_dislocation_is_continuous_where_h_b_is_a_whole_turn():
    crystal = crystals.dislocation(0, SIZE, H)
    core = crystal.grains[0].strain.parts[1]
    assert core.h @ core.burgers == pytest.approx(2 * np.pi)
    x, y = core._axes()
    at = np.array(core.through)[:, None] - np.outer(x, [0.1e-6, 0.1e-6]) + np.outer(y, [1e-13, -1e-13])
    a, b = np.exp(1j * core.phase(at))
    assert abs(a - b) < 1e-4
    assert core.coherence(np.array(core.through)[:, None], 7e-9)[0] < 1e-9
    assert Sum((core,)).coherence(at, 1e-9) == pytest.approx(core.coherence(at, 1e-9))


def test_inclusion_is_in_equilibrium_and_continuous():
    def field_of(h):
        return Inclusion(h, (0.1, 0.2, -0.1), 0.4, 0.01)

    first, second = derivatives(lambda r: displacement(field_of, r), np.array([0.7, 0.5, 0.2]), 2e-3)
    # differences of step 2e-3 are good to 1e-5
    assert abs(np.trace(first)) < 1e-4 * np.abs(first).max()
    assert np.abs(np.einsum("iic->c", second)).max() < 1e-4 * np.abs(second).max()
    edge = np.array([0.1, 0.2, -0.1])[:, None] + np.outer([0, 0, 1], [0.4 - 1e-9, 0.4 + 1e-9])
    u = displacement(field_of, edge)
    assert u[2] == pytest.approx([0.004, 0.004])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_from_its_seed_and_lies_in_its_hull(kind):
    r = grid(44, 25e-9, (3e-9, 1e-9, -2e-9))
    one, again, other = (KINDS[kind](seed, SIZE, H) for seed in (4, 4, 5))
    s_0, S = one(r, 25e-9)
    same = again(r, 25e-9)
    assert (same[0] == s_0).all() and (same[1] == S).all() and not np.allclose(other(r, 25e-9)[0], s_0, atol=0.1)
    # three surfaces meet in a corner
    assert s_0.min() > -0.09 * 1.09**2 and max(s_0.max(), np.abs(S).max()) < 1.09**3
    # Sharp, it is there or not; nothing scatters where nothing is.
    s_0, S = one(r, 1e-17)
    assert (np.minimum(abs(s_0), abs(s_0 - 1)) < 1e-9).all() and (np.abs(S) < s_0 + 1e-9).all()
    hull = ConvexHull(one.hull)
    away = hull.equations[:, :3] @ r.reshape(3, -1) + hull.equations[:, 3:]
    assert not s_0.ravel()[(away > 2e-12).any(0)].any()
    if kind != "grains":
        largest = np.ptp(one.grains[0].bodies[0].points(), axis=0).max()
        assert largest == pytest.approx(SIZE) or kind == "rough"
    phase = one.phase(r)
    there = np.abs(S) > 0.9
    assert np.abs(np.exp(1j * phase[there]) - S[there] / np.abs(S[there])).max() < 1e-9


def test_strong_strain_wraps_and_voxels_of_30_nm_can_follow_it():
    for seed in range(5):
        crystal, r = crystals.strong(seed, SIZE, H), grid(33, 25e-9)
        inside = crystal.density(r, 1e-12) > 0.5
        phase = np.where(inside, crystal.phase(r), np.nan)
        assert 9.5 < np.nanmax(phase) - np.nanmin(phase) < 15
        steepest = max(np.nanmax(np.abs(np.diff(phase, axis=axis))) for axis in range(3))
        assert 0.5 < steepest * 29.5 / 25 < 1.5


def halves(crystal):
    """(s_0, S, phase) 20 nm on both sides of the plane between a crystal's grains."""
    plane = crystal.grains[0].bodies[1]
    at = np.array(plane.through)[:, None] + np.outer(plane.normal, [-20e-9, 20e-9])
    return *crystal(at, 2e-9), crystal.phase(at)


def test_wall_twin_and_grains_have_two_sides():
    for seed in range(3):
        *_, phase = halves(crystals.wall(seed, SIZE, H))
        assert phase[1] - phase[0] == pytest.approx(2 * np.pi / 3, abs=0.3)  # the smooth phase of 40 nm
        s_0, S, _ = halves(crystals.twin(seed, SIZE, H))
        np.testing.assert_allclose(s_0, 1)
        assert abs(S[0]) == pytest.approx(1) and S[1] == 0
    silent, turned = crystals.two_grains(0, SIZE, H), crystals.two_grains(1, SIZE, H)
    assert silent.grains[1].strain is None
    slope = np.array(turned.grains[1].strain.slope)
    # a turned lattice: h moves across itself
    assert abs(slope @ H) < 1e-9 * np.linalg.norm(slope) * np.linalg.norm(H)
    assert 0.001 < np.rad2deg(np.linalg.norm(slope) / np.linalg.norm(H)) < 0.03


def test_holes_are_empty():
    for crystal, count in ((crystals.void(0, SIZE, H), 1), (crystals.porous(0, SIZE, H), 8)):
        holes = crystal.grains[0].holes
        assert len(holes) == count
        centres = np.array([hole.centre for hole in holes]).T
        np.testing.assert_allclose(crystal.density(centres, 7e-9), 0, atol=1e-12)
    strain = crystals.void(1, SIZE, H, strained=True).grains[0].strain.parts[1]
    surface = np.array(strain.centre)[:, None] + np.outer(H / np.linalg.norm(H), [strain.radius])
    assert strain.phase(surface)[0] == pytest.approx(-1.5)


def test_sampled_is_the_average_over_voxels():
    ball = SampleCrystal("ball", 0.3e-6, (Grain((Ball((40e-9, 0, 0), 0.15e-6),), strain=Bumps(
        np.array([[0.0, 50e-9, 0]]), np.array([90e-9]), np.array([1.2]))),))  # fmt: skip
    voxel = (30e-9, 20e-9, 25e-9)
    coarse = sampled(ball, (14, 20, 18), voxel)
    fine = sampled(ball, (28, 40, 36), tuple(v / 2 for v in voxel), finer=2)
    assert coarse[0].sum() * np.prod(voxel) == pytest.approx(4 / 3 * math.pi * 0.15e-6**3, rel=1e-3)
    # Voxels of half the edge lie a quarter of an edge off: their sums agree, and the centre is where the ball's is.
    for a, b in zip(coarse, fine, strict=True):
        assert a.sum() * 8 == pytest.approx(b.sum(), rel=1e-3)
    turn = np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]])  # model z is lab x
    for frame, expected in ((None, (0, 0, 40e-9)), (turn, (40e-9, 0, 0))):
        s_0, _ = sampled(ball, (20, 20, 20), (20e-9,) * 3, frame)
        places = [np.arange(20) * 20e-9 - 200e-9] * 3
        centre = [np.tensordot(s_0.sum(tuple({0, 1, 2} - {axis})), places[axis], 1) / s_0.sum() for axis in range(3)]
        np.testing.assert_allclose(centre, expected, atol=2e-10)


@pytest.mark.parametrize("geometry", rocking_scans.GEOMETRIES)
def test_scans_are_on_bragg_and_resolve_the_same_in_all_directions(geometry):
    pytest.importorskip("gemmi")
    experiment, crystal = rocking_scans.rocking_scan(geometry, pixels=32, frames=17, resolution=40e-9)
    material, hkl, energy, *_ = rocking_scans.GEOMETRIES[geometry]
    known = rocking_scans.susceptibility(material, hkl=hkl, energy=energy * rocking_scans.KEV)
    assert experiment.d_spacing == pytest.approx(known.d_spacing, rel=1e-9) and crystal.chi_h == known.chi_h
    assert experiment.field_of_view == pytest.approx(32 * 40e-9)
    spread = np.ptp(experiment.dq[:, 2]) * 17 / 16
    assert spread * 40e-9 == pytest.approx(2 * np.pi, rel=1e-4)


def test_foreign_frames_are_those_of_the_model_on_a_fine_grid():
    pytest.importorskip("gemmi")
    experiment, gold = rocking_scans.rocking_scan("34idc", pixels=20, frames=9, resolution=30e-9)
    sample = crystals.smooth(2, 0.25e-6, experiment.h)
    D = rocking_scans.foreign_frames(experiment, gold, sample, frames=(2, 4, 6))
    misfits = []
    for finer in (1, 2):
        voxel = tuple(v / finer for v in experiment.suggest_voxel())
        model = Model(experiment, gold, tuple(math.ceil(0.34e-6 / v) for v in voxel), voxel)
        s_0, S = rocking_scans.truth_on(sample, experiment, model)
        found = model.intensities(S.astype(np.complex64), (2, 4, 6), s_0.astype(np.float32)) / finer**2
        misfits.append(((np.sqrt(found) - np.sqrt(D)) ** 2).sum() / D.sum())
    # Nothing is fitted, not even the scale; voxels as wide as the data's are too coarse for sharp surfaces.
    assert misfits[1] < 2e-4 and misfits[1] < misfits[0] / 10
    assert found.sum() == pytest.approx(D.sum(), rel=0.015)


def test_angle_offsets_are_angles():
    pytest.importorskip("gemmi")
    experiment, gold = rocking_scans.rocking_scan("coplanar", pixels=12, frames=5, resolution=50e-9)
    sample = crystals.smooth(2, 0.2e-6, experiment.h)
    step = experiment.rocking_angles[1] - experiment.rocking_angles[0]
    later = rocking_scans.foreign_frames(experiment, gold, sample, angle_offsets=np.full(5, step))
    frames = rocking_scans.foreign_frames(experiment, gold, sample)
    np.testing.assert_allclose(later[:-1], frames[1:], rtol=1e-4, atol=1e-7 * frames.max())
