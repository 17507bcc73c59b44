"""Shapes have the volumes of geometry, phases the values of their formulas."""

import numpy as np
import pytest
from pendel import phantom

SHAPE, VOXEL = (34, 37, 40), (9e-9, 8e-9, 7e-9)
# The raster of a voxel with an edge is uncertain by 1/24; a few hundred such voxels in 1e4, errors of random sign.
RASTER = 2e-4


def volume(shape):
    return shape.sum() * np.prod(VOXEL)


def test_sphere_has_its_volume_centre_and_samples_of_either_kind():
    centre = np.array([13e-9, -21e-9, 5e-9])
    body = phantom.sphere(SHAPE, VOXEL, 90e-9, centre)
    assert volume(body) == pytest.approx(4 / 3 * np.pi * 90e-9**3, rel=RASTER)
    z, y, x = phantom.coordinates(SHAPE, VOXEL)
    found = [np.sum(body * c) / body.sum() for c in (x, y, z)]
    assert np.abs(found - centre).max() < RASTER * 90e-9
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    assert (body[distance < 83e-9] == 1).all() and (body[distance > 97e-9] == 0).all()  # voxel's half diagonal: 7 nm


def test_aligned_cube_is_exact_at_faces_edges_and_corners():
    edge = np.array([150e-9, 130.3e-9, 111.1e-9])  # x, y, z
    body = phantom.cube(SHAPE, VOXEL, edge, centre=(1e-9, 2e-9, 3e-9))
    profile = [
        np.clip(np.minimum(i + d / 2, c + e / 2) - np.maximum(i - d / 2, c - e / 2), 0, None) / d
        for i, d, e, c in zip(
            (a.ravel() for a in phantom.coordinates(SHAPE, VOXEL)), VOXEL, edge[::-1], (3e-9, 2e-9, 1e-9), strict=True
        )
    ]
    expected = profile[0][:, None, None] * profile[1][:, None] * profile[2]
    # Cancellation in the half-space formula, whose floor makes it divide by 6e-8: some 1e-8. No face is near a kink.
    assert np.abs(body - expected).max() < 1e-7


def test_turned_cube_and_wulff_shape_have_their_volumes():
    turn = phantom.orientation((1, 2, 3), (0.3, -0.5, 1), 0.4)
    assert volume(phantom.cube(SHAPE, VOXEL, 140e-9, turn)) == pytest.approx(140e-9**3, rel=RASTER)
    d = 80e-9
    # octahedron of facet distance d: 4 sqrt(3) d^3; cut off: six square pyramids of height sqrt(3) d - 1.15 d
    height = (np.sqrt(3) - 1.15) * d
    expected = 4 * np.sqrt(3) * d**3 - 6 * 2 / 3 * height**3
    body = phantom.truncated_octahedron(SHAPE, VOXEL, d, rotation=turn)
    assert volume(body) == pytest.approx(expected, rel=RASTER)


def test_one_slanted_facet_fraction_is_the_integral_of_a_fine_raster():
    normal = np.array([0.5, -0.7, 0.3])
    body = phantom.facetted((5, 5, 5), VOXEL, [normal], [2e-9])
    fine = 40
    index = (np.arange(5 * fine) + 0.5) / fine - 0.5 - 2
    z, y, x = (index * d for d in VOXEL)
    inside = normal[0] * x + normal[1] * y[:, None] + normal[2] * z[:, None, None] <= 2e-9 * np.linalg.norm(normal)
    sampled = inside.reshape(5, fine, 5, fine, 5, fine).mean(axis=(1, 3, 5))
    assert np.abs(body - sampled).max() < 1 / fine**2  # midpoint raster on a plane that is oblique to it


def test_facet_only_matters_through_its_direction():
    a = phantom.facetted(SHAPE, VOXEL, [(1, 1, 0), (-1, 0, 0)], [30e-9, 40e-9])
    b = phantom.facetted(SHAPE, VOXEL, [(2, 2, 0), (-7, 0, 0)], [30e-9, 40e-9])
    assert np.array_equal(a, b)


def test_orientation_brings_the_plane_normal_to_the_direction():
    direction = np.array([-0.56, 0.0, 0.17])
    turn = phantom.orientation((1, 1, 1), direction, 1.0)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-15) and np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(turn @ np.ones(3) / np.sqrt(3), direction / np.linalg.norm(direction), atol=1e-15)


def test_phase_fields_at_known_points():
    origin = tuple(n // 2 for n in SHAPE)
    point = (origin[0] + 2, origin[1] - 3, origin[2] + 4)  # x = 28, y = -24, z = 18 nm
    bump = phantom.bumps(SHAPE, VOXEL, [(28e-9, -24e-9, 18e-9)], [20e-9], [1.5])
    assert bump[point] == pytest.approx(1.5)
    squared = 28.0**2 + 24**2 + 18**2
    assert bump[origin] == pytest.approx(1.5 * np.exp(-squared / (2 * 400)))
    assert phantom.contact(SHAPE, VOXEL, (0, 0, 0), 10e-9, 2.0)[point] == pytest.approx(2 / (1 + squared**0.5 / 10))
    c = 1e14 * np.array([[1, 2, 3], [2, 4, 5], [3, 5, 6]])
    r = np.array([28e-9, -24e-9, 18e-9])
    assert phantom.bend(SHAPE, VOXEL, c)[point] == pytest.approx(r @ c @ r / 2)


def test_crystal_function_and_displacement_phase(rng):
    u, h = rng.normal(size=(3, 2, 3, 4)) * 1e-11, np.array([-1e10, 2e9, 2.5e10])
    phase = phantom.displacement_phase(u, h)
    assert phase[1, 2, 3] == pytest.approx(-(h @ u[:, 1, 2, 3]))
    S = phantom.crystal_function(np.full((2, 3, 4), 0.5), phase, "complex128")
    assert np.allclose(S, 0.5 * np.exp(1j * phase), atol=1e-15) and S.dtype == complex
    assert phantom.crystal_function(np.ones((2, 3, 4)), phase).dtype == np.complex64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: phantom.facetted(SHAPE, VOXEL, [(0, 0, 0)], [1e-8]),
            "normals: expected at least one facet and no zero",
        ),
        (lambda: phantom.facetted(SHAPE, VOXEL, [(0, 0, 1)], [1e-8, 2e-8]), "distances: expected shape"),
        (lambda: phantom.cube(SHAPE, VOXEL, -1e-9), r"edge\[0\]: expected a finite number > 0"),
        (lambda: phantom.cube(SHAPE, VOXEL, 1e-9, 2 * np.eye(3)), "rotation: expected an orthogonal"),
        (lambda: phantom.sphere(SHAPE, (1, 1), 1e-9), "voxel: expected 3 numbers, got 2"),
        (lambda: phantom.bend(SHAPE, VOXEL, [[0, 1, 0], [0, 0, 0], [0, 0, 0]]), "curvature: expected a symmetric"),
        (lambda: phantom.crystal_function(-np.ones((1, 1, 1)), np.zeros((1, 1, 1))), "amplitude: expected values >= 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
