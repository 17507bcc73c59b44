"""From the model grid back to that of the data: what phasing programs have, and what they make of it."""

import numpy as np
import pytest
from pendel import Experiment, io, kinematic, phantom
from scipy import ndimage

FRAMES, ROWS, COLS = 44, 48, 50
SHAPE, VOXEL = (34, 34, 34), (8e-9, 8.5e-9, 8e-9)


def geometry(centre=(22.3, 23.6, 25.2), **changes):
    """34-ID-C: two arm angles, skewed axes; the pattern off the middle of the array."""
    arguments = {
        "wavelength": 1.377602e-10,
        "distance": 0.5,
        "pixel_size": 150e-6,
        "detector_shape": (ROWS, COLS),
        "arm": (("y+", np.deg2rad(32.174)), ("x-", np.deg2rad(12.6346))),
        "rocking_axis": "y+",
        "rocking_angles": np.deg2rad(0.028) * np.arange(FRAMES),
        "centre": centre,
    }
    return Experiment(**(arguments | changes))


def gaussian(x, y, z):
    """A smooth crystal without an edge, strained; its width is below the field of view along every axis."""
    return np.exp(-(x**2 + y**2 + z**2) / (2 * 35e-9**2) + 1j * (2e7 * z - 1e7 * x + 1e14 * x * y))


def facetted(voxel, shape=SHAPE):
    """A strained crystal with corners, without a symmetry."""
    body = phantom.truncated_octahedron(
        shape, voxel, 85e-9, rotation=phantom.orientation((1, 1, 1), (-0.5, 0, 0.2), 0.3)
    )
    body *= phantom.facetted(shape, voxel, [(1, 0.5, 0.3)], [55e-9])
    phase = phantom.bumps(shape, voxel, [(40e-9, 10e-9, 20e-9)], [50e-9], [1.5])
    return phantom.crystal_function(body, phase, "complex128")


def lattice(experiment, shape=(FRAMES, ROWS, COLS)):
    """(3, N0, N1, N2) positions x, y, z of the samples of an object, m."""
    A = 2 * np.pi * np.linalg.inv(experiment.basis()).T @ np.diag(1 / np.array(shape))
    n = np.stack(np.meshgrid(*(np.arange(m) - m // 2 for m in shape), indexing="ij"))
    return np.tensordot(A, n, axes=1)


def ramp(experiment, r):
    """The phase of an object whose pattern is not in the middle of the array."""
    return np.exp(1j * np.tensordot(experiment.basis() @ (np.array(experiment.centre) - [22, 24, 25]), r, axes=1))


@pytest.mark.parametrize("shape", [None, (48, 54, 60)])
def test_a_known_crystal_is_mapped_by_the_lattice(shape):
    experiment, voxel = geometry(), VOXEL
    z, y, x = phantom.coordinates(SHAPE, voxel)
    obj = kinematic.to_detector_grid(gaussian(x, y, z), experiment, shape, voxel)
    r = lattice(experiment, shape or (FRAMES, ROWS, COLS))
    core = (r**2).sum(axis=0) < 70e-9**2
    expected = gaussian(*r) * ramp(experiment, r)
    # cubic splines of a Gaussian of sigma = 4 voxels with a phase of up to 0.3 rad per voxel
    assert obj.dtype == np.complex64 and np.abs(obj - expected)[core].max() < 1e-3


@pytest.mark.parametrize("finer", [1, 2])
def test_moments_of_a_crystal_stay_where_they_are(finer):
    """Volume, centre and second moments of |S| in the laboratory, on both grids."""
    experiment = geometry()
    voxel = tuple(v / finer for v in (8e-9, 8.5e-9, 8e-9))
    S = facetted(voxel, tuple(finer * n for n in SHAPE))
    obj = kinematic.to_detector_grid(S, experiment, voxel=voxel)

    def moments(weight, r, volume):
        total = weight.sum()
        mean = (r * weight).sum(axis=(1, 2, 3)) / total
        d = (r - mean[:, None, None, None]).reshape(3, -1)
        return volume * total, mean, (d * weight.ravel()) @ d.T / total

    z, y, x = np.broadcast_arrays(*phantom.coordinates(S.shape, voxel))
    volume, mean, second = moments(np.abs(S), np.stack([x, y, z]), np.prod(voxel))
    cell = (2 * np.pi) ** 3 / abs(np.linalg.det(experiment.basis())) / obj.size
    theirs = moments(np.abs(obj), lattice(experiment), cell)
    assert theirs[0] == pytest.approx(volume, rel=0.01)
    assert np.abs(theirs[1] - mean).max() < 0.05 * voxel[2] * finer
    assert np.abs(theirs[2] - second).max() < 0.01 * np.diag(second).min()


def test_there_and_back(rng):
    experiment, voxel = geometry(), VOXEL
    S = facetted(voxel)
    obj = kinematic.to_detector_grid(S, experiment, voxel=voxel)
    support = kinematic.to_detector_grid(S != 0, experiment, voxel=voxel)
    assert support.dtype == bool and not obj[~support].any()
    assert np.array_equal(kinematic.to_detector_grid(io.StoredResult(S, S != 0, voxel), experiment), obj)
    back = kinematic.to_model_grid(obj, experiment, SHAPE, voxel, support=support, normalise=False, clip=False)
    # the way there has put the centre of mass, which need not be on a voxel, on the origin
    weight = np.abs(S)
    middle = [np.average(np.arange(n), weights=np.moveaxis(weight, a, 0).sum(axis=(1, 2))) for a, n in enumerate(SHAPE)]
    moved = [n // 2 - m for n, m in zip(SHAPE, middle, strict=True)]
    spectrum = np.fft.fftn(S)
    for axis, d in enumerate(moved):
        q = np.fft.fftfreq(SHAPE[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
        spectrum = spectrum * np.exp(-2j * np.pi * q * d)
    expected = np.fft.ifftn(spectrum)
    core = ndimage.binary_erosion(weight > 0.99, iterations=3)
    phase = np.exp(1j * np.angle(np.vdot(back[core], expected[core])))
    assert np.sqrt(np.mean(np.abs(back * phase - expected)[core] ** 2)) < 0.02


def test_the_object_has_the_intensities_of_the_crystal():
    """By explicit sums over the voxels, at the Q of every pixel."""
    experiment, voxel = geometry(), VOXEL
    z, y, x = np.broadcast_arrays(*phantom.coordinates(SHAPE, voxel))
    S = gaussian(x, y, z)
    obj = kinematic.to_detector_grid(S, experiment, voxel=voxel)
    F = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(obj)))
    m = np.stack(np.meshgrid(*(np.arange(n) for n in (FRAMES, ROWS, COLS)), indexing="ij")).reshape(3, -1)
    chosen = np.argsort(-np.abs(F).ravel())[:60]  # the brightest
    Q = experiment.basis() @ (m[:, chosen] - np.array(experiment.centre)[:, None])
    r = np.stack([x.ravel(), y.ravel(), z.ravel()])
    cell = (2 * np.pi) ** 3 / abs(np.linalg.det(experiment.basis())) / obj.size
    expected = np.exp(-1j * Q.T @ r) @ S.ravel() * np.prod(voxel) / cell
    assert np.abs(F.ravel()[chosen] - expected).max() < 2e-3 * np.abs(expected).max()


def test_padding_keeps_the_middle():
    for n, N in ((4, 7), (5, 8), (5, 9), (4, 4)):
        obj = np.zeros((n, 2, 3), np.complex64)
        obj[n // 2, 1, 1] = 1j
        made = kinematic.padded(obj, (N, 4, 3))
        assert made.shape == (N, 4, 3) and made[N // 2, 2, 1] == 1j and np.count_nonzero(made) == 1


def test_the_box_is_told_by_a_bare_object_too():
    experiment, voxel = geometry(), VOXEL
    S = facetted(voxel)
    obj, support = (kinematic.to_detector_grid(a, experiment, voxel=voxel) for a in (S, S != 0))
    shape = kinematic.box_for(obj, experiment, voxel, 1.0, support=support)
    extent = [np.ptp(found) + 1 for found in np.nonzero(S)]
    assert all(e - 2 <= n <= 1.3 * e + 4 for e, n in zip(extent, shape, strict=True))
    whole = kinematic.KinematicResult(obj, support, 0.0, np.empty(0), 0)
    assert kinematic.box_for(whole, experiment, voxel, 1.0) == shape
    kinematic.to_model_grid(whole, experiment, shape, voxel)


def test_bad_arguments_are_named():
    experiment, S = geometry(), np.ones((10, 10, 10), complex)
    with pytest.raises(TypeError, match="voxel: expected .dz, dy, dx., m, of the crystal's grid, got None"):
        kinematic.to_detector_grid(S, experiment)
    stored = io.StoredResult(S, S != 0, VOXEL)
    with pytest.raises(ValueError, match="voxel: expected None with a result"):
        kinematic.to_detector_grid(stored, experiment, voxel=VOXEL)
    with pytest.raises(TypeError, match="result: expected a Result, or what has S, support and voxel"):
        kinematic.to_detector_grid(io.StoredResult(S), experiment)
    with pytest.raises(ValueError, match="S: expected a crystal that the field of view of the data holds"):
        kinematic.to_detector_grid(np.ones((80, 80, 80)), experiment, voxel=VOXEL)
    with pytest.raises(ValueError, match=r"shape: expected a grid of at least the data's shape \(44, 48, 50\)"):
        kinematic.to_detector_grid(S, experiment, (44, 48, 49), VOXEL)
    with pytest.raises(ValueError, match="experiment: expected two or more frames at equal rocking steps"):
        uneven = geometry(rocking_angles=np.deg2rad(0.001) * np.arange(FRAMES) ** 2)
        kinematic.to_detector_grid(S, uneven, voxel=VOXEL)
    with pytest.raises(ValueError, match="voxel"):
        kinematic.to_detector_grid(S, experiment, voxel=(8.0, 8.0, 8.0))
    with pytest.raises(ValueError, match="support: expected None with a support for S, got one"):
        kinematic.to_detector_grid(S != 0, experiment, voxel=VOXEL, support=S != 0)
    with pytest.raises(ValueError, match="S: expected at least one voxel inside the support, got none"):
        kinematic.to_detector_grid(0 * S, experiment, voxel=VOXEL)
    with pytest.raises(ValueError, match=r"obj: expected an array \(n0, n1, n2\) of at most \(9, 9, 9\), got shape"):
        kinematic.padded(S, (9, 9, 9))
