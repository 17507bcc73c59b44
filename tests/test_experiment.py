"""Geometry: the numbers of a measured 34-ID-C Au (111) scan, and the frames, signs and sizes that follow."""

import math

import numpy as np
import pytest
from pendel.experiment import rotation
from pendel.operator.far_field import FarField
from scan import ARM, KEV, make_experiment


def scan(**changes):
    """The measured scan's geometry."""
    arguments = {
        "pixel_size": 55e-6,
        "detector_shape": (128, 128),
        "rocking_angles": np.deg2rad(0.005) * np.arange(-20, 21),
        "centre": None,
    }
    return make_experiment(**(arguments | changes))


def test_34idc_au_111_geometry():
    exp = scan()
    # Published values, printed with the digits compared here.
    assert math.degrees(exp.two_theta) == pytest.approx(34.3163, abs=5e-5)
    np.testing.assert_allclose(exp.frame[1], (0.38799, -0.92166, 0), atol=5e-6)
    np.testing.assert_allclose(exp.frame @ exp.k_0 / exp.k, (0.56376, 0, math.cos(exp.two_theta)), atol=5e-6)
    assert math.tan(exp.two_theta) == pytest.approx(0.68257, abs=5e-6)
    assert math.degrees(exp.roll) == pytest.approx(160.828, abs=5e-4)
    assert math.degrees(math.atan2(exp.e_row[1], exp.e_row[0])) == pytest.approx(70.828, abs=5e-4)
    assert exp.flip_rows
    assert exp.polarization["sigma"] == pytest.approx(0.1505, abs=5e-5)
    assert exp.d_spacing == pytest.approx(2.335e-10, abs=5e-14)
    np.testing.assert_allclose(exp.dq[21], (-6.384e5, -2.688e5, -2.0681e6), atol=50)
    np.testing.assert_array_equal(exp.dq[20], 0)


def test_kinematic_pattern_drifts_over_the_pixels_as_measured_geometry_says():
    exp = scan()
    drift = exp.dq[21, :2] @ np.stack([exp.e_col[:2], exp.e_row[:2]], axis=1) * exp.field_of_view / (2 * math.pi)
    np.testing.assert_allclose(drift, (0.1026, -0.0924), atol=5e-5)
    # The same from the far field: a plane exit ramp dq moves its peak by that many pixels.
    ny = nx = 40
    dy, dx = exp.suggest_voxel()[1:]
    far = FarField((ny, nx), exp.far_shape(), exp.detector_shape, exp.roll, exp.flip_rows, dtype="complex128")
    y, x = (np.arange(ny)[:, None] - ny // 2) * dy, (np.arange(nx) - nx // 2) * dx
    blob = np.exp(-(x**2 + y**2) / (2 * (4 * dx) ** 2))
    ramp = np.exp(1j * (exp.dq[40, 0] * x + exp.dq[40, 1] * y))
    power = np.abs(far.forward((blob * ramp)[None])[0]) ** 2
    row, col = np.arange(128) - 64, np.arange(128) - 64
    centroid = np.array([power.sum(0) @ col, power.sum(1) @ row]) / power.sum()
    np.testing.assert_allclose(centroid, 20 * drift, atol=1e-2)  # 20 steps of full rotation differ by 2e-3 of a pixel


def test_arm_order_matters_for_the_roll_only():
    exp, other = scan(), scan(arm=ARM[::-1])
    assert other.two_theta == pytest.approx(exp.two_theta, abs=1e-12)
    assert abs(other.roll - exp.roll) > 0.05


def test_k_h_form_equals_the_arm_it_describes():
    exp = scan()
    other = scan(arm=None, k_h=3 * exp.k_h)
    for name in ("two_theta", "roll", "flip_rows", "e_col", "e_row", "frame", "dq"):
        np.testing.assert_allclose(getattr(other, name), getattr(exp, name), rtol=1e-9, atol=1e-9)


def test_model_frame():
    exp = scan()
    np.testing.assert_allclose(exp.frame @ exp.frame.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(exp.frame) == pytest.approx(1)
    np.testing.assert_allclose(exp.frame @ exp.k_h, (0, 0, exp.k), atol=1e-4)
    assert (exp.frame @ exp.k_0)[0] > 0
    np.testing.assert_allclose(exp.frame[1], np.cross(exp.k_h, exp.k_0) / np.linalg.norm(np.cross(exp.k_h, exp.k_0)))
    assert np.linalg.norm(exp.h) == pytest.approx(2 * math.pi / exp.d_spacing)


def test_larger_glancing_angle_is_negative_dq_z_and_turns_about_minus_y():
    # Horizontal plane, detector towards +x: a turn about -model y must lengthen the glancing angle.
    exp = scan(arm=(("y+", 0.6),), rocking_axis=scan(arm=(("y+", 0.6),)).frame[1], rocking_angles=[-1e-4, 0.0, 1e-4])
    assert exp.dq[0, 2] < 0 < exp.dq[2, 2]
    glancing = [-(exp.h + exp.frame.T @ dq) @ exp.k_0 for dq in exp.dq]  # k |h| sin(angle of the planes)
    assert glancing[0] > glancing[1] > glancing[2]
    assert abs(exp.dq[2, 2]) == pytest.approx(exp.k * math.sin(0.6) * 1e-4, rel=1e-3)  # second order in the angle


def test_dq_is_the_full_rotation():
    exp = scan(rocking_angles=[0.0, 0.3], centre=(0, 64, 64), rocking_axis=(1, 2, -1))
    turned = rotation((1, 2, -1), 0.3) @ exp.h
    np.testing.assert_allclose(exp.frame.T @ exp.dq[1] + exp.h, turned, rtol=1e-12)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(exp.h), rel=1e-14)


def test_basis_is_the_derivative_of_q_minus_dq():
    exp = scan(centre=(20, 60.5, 70.25))
    B, q = exp.basis(), exp.detector_q()
    assert q.shape == (128, 128, 2)
    np.testing.assert_allclose(2 * math.pi * (q[11, 10] - q[10, 10]), B[:2, 1], rtol=1e-10)
    np.testing.assert_allclose(2 * math.pi * (q[10, 11] - q[10, 10]), B[:2, 2], rtol=1e-10)
    # Central difference over two steps of 0.005 deg: third order, 1e-8.
    np.testing.assert_allclose((exp.dq[19] - exp.dq[21]) / 2, B[:, 0], rtol=1e-7)
    at_centre = q[60, 70] + 0.5 * (q[61, 70] - q[60, 70]) + 0.25 * (q[60, 71] - q[60, 70])
    np.testing.assert_allclose(at_centre, 0, atol=1e-6 / exp.field_of_view)


def test_fractional_centre_frame_interpolates_and_extrapolates_the_angle():
    angles = np.array([0.0, 1e-3, 3e-3])
    assert scan(rocking_angles=angles, centre=(1.5, 0, 0)).centre_angle == pytest.approx(2e-3)
    assert scan(rocking_angles=angles, centre=(4, 0, 0)).centre_angle == pytest.approx(7e-3)
    assert scan(rocking_angles=angles, centre=(-1, 0, 0)).centre_angle == pytest.approx(-1e-3)
    assert scan(rocking_angles=angles).centre == (1, 64, 64)


def test_crop_keeps_angles_and_pixels_where_they_are():
    exp = scan(rocking_angles=np.cumsum(np.linspace(1e-4, 2e-4, 30)), centre=(9.3, 60.2, 70.9))
    part = exp.crop(slice(12, 30, 3), slice(10, 101), slice(-64, None))
    assert part.detector_shape == (91, 64) and part.n_frames == 6
    np.testing.assert_array_equal(part.dq, exp.dq[12:30:3])
    np.testing.assert_allclose(part.detector_q(), exp.detector_q()[10:101, -64:], rtol=1e-12, atol=1e-6)
    assert part.field_of_view == exp.field_of_view
    np.testing.assert_allclose(part.centre, (-0.9, 50.2, 6.9))
    with pytest.raises(ValueError, match="rows: expected a slice of 128 with step 1"):
        exp.crop(rows=slice(0, 10, 2))
    with pytest.raises(TypeError, match="cols: expected a slice or None, got 3"):
        exp.crop(cols=3)


def test_a_scan_says_what_it_was_made_of():
    exp = scan(rocking_axis=(0, 3, 4))
    np.testing.assert_allclose(exp.rocking_axis, (0, 0.6, 0.8), rtol=1e-15)
    assert exp.arm == ARM and exp.arguments["rocking_axis"] == (0, 3, 4)
    direct = exp.replace(k_h=exp.k_h)
    assert direct.arm is None and direct.two_theta == pytest.approx(exp.two_theta, rel=1e-14)
    again = direct.replace(arm=exp.arm)
    np.testing.assert_array_equal(again.dq, exp.dq)


def test_a_centre_may_have_any_rocking_angle():
    exp = scan()
    moved = exp.with_centre((20, 60, 70), 1.5e-4)
    assert moved.centre == (20, 60, 70) and moved.centre_angle == 1.5e-4 and exp.centre == (20, 64, 64)
    between = exp.replace(centre=(20 + 1.5e-4 / math.radians(0.005), 60, 70))
    np.testing.assert_allclose(moved.dq, between.dq, rtol=1e-9)
    assert moved.replace(distance=0.6).centre == (20, 60, 70)


def test_wavelength_and_energy():
    exp = scan()
    assert exp.wavelength == pytest.approx(1.377602e-10, rel=1e-6)
    assert scan(energy=None, wavelength=exp.wavelength).energy == pytest.approx(9 * KEV)
    assert exp.replace(wavelength=1e-10).wavelength == 1e-10
    np.testing.assert_allclose(exp.pixel, (exp.wavelength * 0.5 / (128 * 55e-6),) * 2)


def test_suggested_voxel_lets_the_whole_pixel_shift_apply():
    exp = scan()
    for arm, resolution in ((ARM, None), (ARM, 4e-9), ((("y+", 0.433),), None), ((("y+", 1.2),), None)):
        exp = scan(arm=arm)
        dz, dy, dx = exp.suggest_voxel(resolution)
        pixels = dz * math.tan(exp.two_theta) / dx
        assert pixels == pytest.approx(round(pixels), abs=1e-9) and round(pixels) >= 1
        assert dz <= 1.5 * dy and dz > 0.5 * dy
        assert exp.field_of_view / dy == pytest.approx(round(exp.field_of_view / dy))
        assert dy / dx == pytest.approx(round(dy / dx))
        assert dy <= (resolution or dy)
        top = np.abs(exp.detector_q()).max()
        assert top <= 0.5 / dy * (1 + 1e-9)
    assert exp.suggest_voxel(transport="fourier") == (dy, dy, dy)


@pytest.mark.parametrize("angle, finer, cubic", [(0.78, 1, True), (0.65, 1, True), (0.35, 2, True), (1.2, 1, False)])
def test_voxels_for_box_are_cubes_where_it_takes_them(angle, finer, cubic):
    exp = scan(arm=(("y+", angle),))
    dz, dy, dx = exp.suggest_voxel(transport="box")
    assert dx == pytest.approx(dy / finer) and (dz == dy) == cubic
    assert 0.7 <= dz * math.tan(exp.two_theta) / dx <= 1.5 + 1e-12
    symmetric = scan(arm=(("y+", angle),), orientation="symmetric")
    with pytest.raises(ValueError, match="^transport: expected 'shift' or 'fourier' with orientation 'symmetric'"):
        symmetric.suggest_voxel(transport="box")


def test_polarization_fractions():
    horizontal, vertical = scan().polarization, scan(beam_polarization="vertical").polarization
    assert horizontal["sigma"] == pytest.approx(vertical["pi"], abs=1e-12)
    assert scan(beam_polarization="unpolarized").polarization == {"sigma": 0.5, "pi": 0.5}
    circular = scan(beam_polarization=(1, 1j)).polarization
    assert circular["sigma"] == pytest.approx(0.5)
    assert scan(beam_polarization=(2, 0)).polarization == horizontal
    assert sum(scan(beam_polarization=(1, 0.5 - 0.2j)).polarization.values()) == pytest.approx(1)
    assert scan(arm=(("y+", 0.5),)).polarization["pi"] == pytest.approx(1)  # horizontal plane, horizontal beam


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"energy": None}, ValueError, "wavelength, energy: expected exactly one, got none"),
        ({"wavelength": 1e-10}, ValueError, "wavelength, energy: expected exactly one, got both"),
        ({"arm": None}, ValueError, "arm, k_h: expected exactly one, got none"),
        ({"k_h": (0, 0, 1)}, ValueError, "arm, k_h: expected exactly one, got both"),
        ({"arm": None, "k_h": (0, 1, 0)}, ValueError, "k_h: expected a direction that is not vertical"),
        ({"arm": (("y+", 0.0),)}, ValueError, "arm: expected 0 < 2theta < 90 deg, got 0"),
        ({"arm": (("y+", 2.0),)}, ValueError, "arm: expected 0 < 2theta < 90 deg, got 114.5"),
        ({"arm": (("w+", 0.5),)}, ValueError, r"arm\[0\]\[0\]: expected an axis such as"),
        ({"arm": (0.5,)}, ValueError, r"arm: expected pairs \(axis, angle\)"),
        ({"pixel_size": (55e-6, 50e-6)}, ValueError, "pixel_size: expected equal row and column pitch"),
        ({"pixel_size": -1.0}, ValueError, "pixel_size: expected a finite number > 0"),
        ({"distance": "far"}, TypeError, "distance: expected a real number"),
        ({"rocking_angles": []}, ValueError, "rocking_angles: expected at least 1 angle"),
        ({"rocking_angles": [0, np.nan]}, ValueError, "rocking_angles: expected finite values"),
        ({"rocking_axis": (0, 0, 0)}, ValueError, "rocking_axis: expected a vector of non-zero length"),
        ({"centre": (0, 1)}, ValueError, r"centre: expected \(frame, row, col\)"),
        ({"centre": (1, 2, 3), "rocking_angles": [0.1]}, ValueError, r"centre\[0\] \(frame\): expected 0"),
        ({"beam_polarization": "sideways"}, ValueError, "beam_polarization: expected one of 'horizontal'"),
        ({"beam_polarization": (0, 0)}, ValueError, "beam_polarization: expected a Jones vector"),
        ({"pixel_orientation": ("x+", "z+")}, ValueError, "pixel_orientation: expected perpendicular axes"),
    ),
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        scan(**changes)
