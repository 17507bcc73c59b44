"""The crystal that all dynamical frames together show, against closed forms and against frames."""

import math

import numpy as np
import pendel
import pytest
from pendel.kinematic.refraction import optical_path
from pendel.planning.kinematic_error import diffraction_vector, kinematic_error, strain_of, without_plane
from pendel.planning.kinematic_image import kinematic_image
from scipy import ndimage
from scipy.special import jv

WAVELENGTH, TWO_THETA = 1.3776e-10, math.radians(34.02)  # Au (111), 9 keV
GOLD = pendel.Crystal(chi_0=-7.5e-5 + 6.1e-6j, chi_h=-6.4e-5 + 5.9e-6j)
K = 2 * math.pi / WAVELENGTH


def cube(across, edge=0.6e-6):
    """(S, voxel) of a perfect cube whose faces lie between voxels."""
    dx = edge / across
    dz = dx / math.tan(TWO_THETA)
    deep = round(edge / dz)
    S = np.zeros((deep + 3, across + 4, across + 4), complex)
    S[1 : 1 + deep, 2:-2, 2:-2] = 1
    return S, (dz, dx, dx)


def strained(shape=(10, 7, 9), seed=3):
    rng = np.random.default_rng(seed)
    amplitude = np.zeros(shape)
    amplitude[2:-2, 2:-2, 2:-2] = rng.uniform(0.5, 1, tuple(n - 4 for n in shape))
    return amplitude * np.exp(1j * rng.uniform(-1, 1, shape))


@pytest.mark.parametrize("dz", (1.0, 1 / math.tan(TWO_THETA)))  # E_0 moves by parts of a pixel, or by one
def test_kinematic_scattering_shows_the_crystal(dz):
    S, first_order = strained(), pendel.Crystal(0, GOLD.chi_h, 0)
    image = kinematic_image(S, (dz * 3e-8, 3e-8, 3e-8), WAVELENGTH, TWO_THETA, first_order, polarization_factor=0.8)
    assert image.dtype == np.complex128
    np.testing.assert_allclose(image, S, atol=1e-13)
    single = kinematic_image(S.astype(np.complex64), (dz * 3e-8, 3e-8, 3e-8), WAVELENGTH, TWO_THETA, first_order)
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, S, atol=1e-5)


@pytest.mark.parametrize("C", (1.0, -math.cos(TWO_THETA)))
def test_a_perfect_cube_is_seen_through_a_bessel_function(C):
    """Equation (3) of the module, refraction, absorption and extinction together; second order in the voxel."""
    errors = []
    for across in (20, 40):
        S, voxel = cube(across)
        s_0 = np.abs(S)
        image = kinematic_image(S, voxel, WAVELENGTH, TWO_THETA, GOLD, polarization_factor=C)
        path = optical_path(s_0, voxel, TWO_THETA)
        L_h = voxel[0] * (np.cumsum(s_0[::-1], axis=0)[::-1] - s_0 / 2)
        kappa2 = (K * C / 2) ** 2 * GOLD.chi_h * GOLD.chi_hbar
        exact = S * np.exp(0.5j * K * GOLD.chi_0 * path) * jv(0, 2 * np.sqrt(kappa2 * (path - L_h) * L_h))
        assert np.abs(exact[S != 0]).min() < 0.85 and np.ptp(np.angle(exact[S != 0])) > 0.8  # something to get right
        errors.append(np.linalg.norm(image - exact) / np.linalg.norm(exact))
    assert errors[0] < 1e-3 and errors[1] < errors[0] / 3.5  # a fourth but for higher orders


def test_dynamical_frames_are_kinematic_frames_of_what_they_show():
    """At angles between those of the sweep, and with a dq that also has parts across k_h."""
    experiment = pendel.Experiment(
        wavelength=WAVELENGTH,
        distance=0.5,
        pixel_size=1e-4,
        detector_shape=(20, 24),
        two_theta_deg=math.degrees(TWO_THETA),
        rocking_axis=(0.3, 0.9, 0.1),
        rocking_angles=np.radians(np.linspace(-0.4, 0.4, 5)),
        orientation="k_h",
    )
    S, strong = strained(), pendel.Crystal(-3e-3 + 3e-4j, -2.5e-3 + 2.5e-4j)
    voxel = experiment.suggest_voxel()
    image = kinematic_image(S, voxel, WAVELENGTH, experiment.two_theta, strong)
    given = {"polarization": {"sigma": 1.0}, "ewald": "flat", "dtype": "complex128"}
    frames = pendel.Model(experiment, strong, S.shape, voxel, **given).intensities(S)
    shown = pendel.Model(experiment, strong, S.shape, voxel, coupling="kinematic", **given)
    assert np.linalg.norm(frames - shown.intensities(S)) > 0.1 * np.linalg.norm(frames)  # kinematic frames of S are not
    np.testing.assert_allclose(shown.intensities(image), frames, atol=1e-10 * frames.max())


def test_without_back_coupling_all_of_the_error_is_refraction():
    S, voxel = cube(20)
    phase = 0.4 * np.sin(np.arange(S.shape[2]) / 5)
    S = S * np.exp(1j * phase)
    one_way = pendel.Crystal(GOLD.chi_0, GOLD.chi_h, 0)
    error = kinematic_error(S, voxel, WAVELENGTH, TWO_THETA, one_way)
    assert error.phase_rms[0] > 0.15 and error.phase_rms[1] < 1e-4
    assert error.phase_rms[2] == pytest.approx(error.phase_rms[0], abs=1e-4)
    both = kinematic_error(S, voxel, WAVELENGTH, TWO_THETA, GOLD)
    assert both.refraction == pytest.approx(error.refraction)
    assert 0.003 < both.phase_rms[1] < 0.1 * both.phase_rms[0]


def test_h_is_that_of_the_experiment():
    scan = pendel.Experiment(
        wavelength=WAVELENGTH, distance=1.0, pixel_size=1e-4, detector_shape=(4, 4), rocking_angles=[0.0],
        arm=[("x-", 0.5), ("y+", 0.3)],
    )  # fmt: skip
    found = diffraction_vector(WAVELENGTH, scan.two_theta)
    np.testing.assert_allclose(found, scan.frame @ scan.h, atol=1e-9 * scan.k)


def test_planes_and_mean_strains_are_no_errors():
    S, voxel = cube(12)
    inside = S != 0
    z, y, x = np.indices(S.shape)
    bump = 0.3 * np.exp(-((x - 8) ** 2 + (y - 7) ** 2) / 8)
    rest = without_plane(bump + 0.02 * x - 0.7 * y + 0.1 * z + 3.0, inside)
    np.testing.assert_allclose(rest, without_plane(bump, inside), atol=1e-12)
    assert not rest[~inside].any() and rest[inside].mean() == pytest.approx(0, abs=1e-13)

    core, h = ndimage.binary_erosion(inside), np.array([0, 0, 3e10])
    strain = strain_of(0.05 * z**2 + 0.3 * z, inside, core, voxel, h)
    expected = -0.1 * z / voxel[0] / h[2]  # central differences of a parabola are exact; the slope is no strain
    np.testing.assert_allclose(strain[core], (expected - expected[core].mean())[core], atol=1e-9 * np.ptp(expected))
    assert not strain[~core].any()


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"S": np.ones((4, 4))}, "S: "),
        ({"crystal": "Au"}, "crystal: expected a Crystal"),
        ({"crystal": pendel.Crystal(0, 0)}, "chi_h.*got 0"),
        ({"polarization_factor": 0.0}, "polarization_factor.*got 0"),
        ({"two_theta": 1.7}, "two_theta"),
    ),
)
def test_arguments_are_named(changed, message):
    given = {"S": strained(), "voxel": (3e-8,) * 3, "wavelength": WAVELENGTH, "two_theta": TWO_THETA, "crystal": GOLD}
    with pytest.raises((TypeError, ValueError), match=message):
        kinematic_image(**given | changed)


def test_a_crystal_that_is_not_there_has_no_error():
    with pytest.raises(ValueError, match="S: expected a crystal"):
        kinematic_error(np.zeros((4, 4, 4), complex), (3e-8,) * 3, WAVELENGTH, TWO_THETA, GOLD)
