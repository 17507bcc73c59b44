"""The far field is the Fourier transform on the turned pixel axes, unitary, with an exact adjoint."""

import numpy as np
import pytest
from pendel.operator.far_field import FarField, far_shape_for

ROLLS = (0, 19, 70.8, 90, 160.8, -120)


def direct(E_h, far_shape, detector_shape, roll, flip_rows, offset):
    """Explicit sum over all model pixels for every detector pixel, independent of the shears."""
    (ny, nx), (far_y, far_x), (rows, cols) = E_h.shape, far_shape, detector_shape
    sign = -1 if flip_rows else 1
    e_col, e_row = (np.cos(roll), np.sin(roll)), (-sign * np.sin(roll), sign * np.cos(roll))
    col, row = np.arange(cols) - cols // 2 - offset[1], np.arange(rows)[:, None] - rows // 2 - offset[0]
    q_x, q_y = ((col * c + row * r).ravel()[:, None] for c, r in zip(e_col, e_row, strict=True))
    wave_x = np.exp(-2j * np.pi * q_x * (np.arange(nx) - nx // 2) / far_x)
    wave_y = np.exp(-2j * np.pi * q_y * (np.arange(ny) - ny // 2) / far_y)
    return (np.sum((wave_y @ E_h) * wave_x, axis=1) / np.sqrt(far_x * far_y)).reshape(detector_shape)


def blob(ny, nx, width):
    """A smooth, off-centre, tilted wave packet: in the band and in the box to better than 1e-9."""
    y, x = np.arange(ny)[:, None] - ny // 2, np.arange(nx) - nx // 2
    return np.exp(-((x - 2.5) ** 2 + (y + 1.3) ** 2) / (2 * width**2) + 0.3j * x - 0.2j * y)


def sphere(n, radius, fine=8):
    """Chord length of a sphere, averaged over each pixel (anti-aliased)."""
    x = (np.arange(n * fine) + 0.5) / fine - n // 2 - 0.5
    chord = 2 * np.sqrt(np.maximum(radius**2 - x[:, None] ** 2 - x**2, 0))
    return chord.reshape(n, fine, n, fine).mean(axis=(1, 3)).astype(complex)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("flip_rows", (False, True))
@pytest.mark.parametrize("degrees", ROLLS)
@pytest.mark.parametrize(
    ("shape", "detector_shape", "offset"),
    (((48, 48), (96, 96), (0, 0)), ((47, 50), (81, 64), (0.37, -0.81)), ((50, 44), (60, 97), (-3.2, 5.5))),
)
def test_far_field_is_the_direct_sum_at_the_turned_frequencies(shape, detector_shape, offset, degrees, flip_rows):
    roll = np.deg2rad(degrees)
    far = far_shape_for(detector_shape, roll, offset)
    E_h = blob(*shape, 3.2)
    F = FarField(shape, far, detector_shape, roll, flip_rows, offset, "complex128").forward(E_h[None])[0]
    # The blob's spectrum at the edge of the band is what the shears cannot place: below 1e-8 of its norm.
    assert relative(F, direct(E_h, (far, far), detector_shape, roll, flip_rows, offset)) < 1e-8


@pytest.mark.parametrize("far_shape", ((128, 256), (192, 120), (121, 135)))
@pytest.mark.parametrize("degrees", (33, 75, 160.8))
def test_far_field_of_rectangular_pixels_and_odd_sizes(far_shape, degrees):
    roll, detector_shape = np.deg2rad(degrees), (71, 80)
    E_h = blob(40, 46, 3.2)
    F = FarField((40, 46), far_shape, detector_shape, roll, True, (0.2, 0.1), "complex128").forward(E_h[None])[0]
    # As above; where pixels are not square the shears reach further in one direction.
    assert relative(F, direct(E_h, far_shape, detector_shape, roll, True, (0.2, 0.1))) < 1e-8


@pytest.mark.parametrize("degrees", ROLLS)
def test_far_field_of_a_sphere(degrees):
    roll, n = np.deg2rad(degrees), 128
    far = far_shape_for((n, n), roll)
    k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    sharp = sphere(64, 24)
    soft = np.fft.ifft2(np.fft.fft2(sharp) * np.exp(-2 * (np.pi * k) ** 2))  # blurred by 1 pixel: band-limited
    # Measured 2e-4 (sharp) and 2e-6 (soft): the sinc tails, set by the spectrum left at the edge of the band.
    for E_h, tolerance in ((sharp, 3e-4), (soft, 1e-5)):
        F = FarField((64, 64), far, (n, n), roll, True, dtype="complex128").forward(E_h[None])[0]
        assert relative(F, direct(E_h, (far, far), (n, n), roll, True, (0, 0))) < tolerance


@pytest.mark.parametrize("degrees", (0, 90, 180, -90))
def test_quarter_turns_are_exact_for_any_content(degrees, rng):
    E_h = rng.normal(size=(13, 16)) + 1j * rng.normal(size=(13, 16))
    roll = np.deg2rad(degrees)
    F = FarField((13, 16), 20, (19, 14), roll, True, (0.3, 0.6), "complex128").forward(E_h[None])[0]
    assert relative(F, direct(E_h, (20, 20), (19, 14), roll, True, (0.3, 0.6))) < 1e-13  # rounding


@pytest.mark.parametrize("flip_rows", (False, True))
@pytest.mark.parametrize("degrees", (*ROLLS, 45, 135, 180))
def test_full_far_field_is_unitary(degrees, flip_rows, rng):
    E_h = rng.normal(size=(3, 25, 31)) + 1j * rng.normal(size=(3, 25, 31))
    far = FarField((25, 31), 60, (60, 60), np.deg2rad(degrees), flip_rows, (0.4, -0.3), "complex128")
    F = far.forward(E_h)
    # Exact up to rounding for any content, sharp edges and band edges included.
    np.testing.assert_allclose(np.sum(np.abs(F) ** 2, axis=(1, 2)), np.sum(np.abs(E_h) ** 2, axis=(1, 2)), rtol=1e-13)
    np.testing.assert_allclose(far.adjoint(F), E_h, atol=1e-13)


@pytest.mark.parametrize("flip_rows", (False, True))
@pytest.mark.parametrize("degrees", ROLLS)
@pytest.mark.parametrize(("dtype", "tolerance"), (("complex128", 1e-13), ("complex64", 2e-6)))
def test_dot_product_of_the_adjoint(degrees, flip_rows, dtype, tolerance, rng):
    def noise(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)

    far = FarField((24, 29), (64, 66), (37, 50), np.deg2rad(degrees), flip_rows, (0.5, 1.25), dtype)
    E_h, adj_F = noise(5, 24, 29), noise(5, 37, 50)
    F, adj_E_h = far.forward(E_h), far.adjoint(adj_F)
    assert F.dtype == adj_E_h.dtype == dtype
    left, right = np.vdot(adj_F, F), np.vdot(adj_E_h, E_h)
    # Rounding of a dozen passes, relative to the size the product of two random vectors has.
    assert abs(left - right) < tolerance * np.linalg.norm(adj_F) * np.linalg.norm(F) / np.sqrt(F.size)


def test_single_precision_stays_close_to_double():
    E_h = blob(48, 48, 3.2)[None]
    arguments = ((48, 48), 128, (96, 96), np.deg2rad(160.8), True, (0.3, 0.1))
    single = FarField(*arguments, "complex64").forward(E_h.astype("complex64"))
    # Six FFT passes of about log2(128) roundings of 6e-8 each, adding up at random.
    assert relative(single, FarField(*arguments, "complex128").forward(E_h)) < 1e-6


def test_results_do_not_depend_on_threads_and_inputs_are_kept(rng):
    E_h = (rng.normal(size=(11, 20, 20)) + 1j * rng.normal(size=(11, 20, 20))).astype("complex64")
    before = E_h.copy()
    one, many = (FarField((20, 20), 48, (32, 40), 0.4, workers=w) for w in (1, 3))
    F = one.forward(E_h)
    F_before = F.copy()
    assert np.array_equal(F, many.forward(E_h))
    assert np.array_equal(one.adjoint(F), many.adjoint(F))
    assert np.array_equal(E_h, before) and np.array_equal(F, F_before)


def test_far_shape_holds_the_turned_detector_and_is_fft_friendly():
    for degrees in np.arange(0, 360, 7.5):
        roll = np.deg2rad(degrees)
        size = far_shape_for((128, 128), roll)
        needed = 128 * (abs(np.cos(roll)) + abs(np.sin(roll)))
        assert size % 2 == 0 and needed - 1e-6 <= size < 1.1 * needed + 2
        for prime in (2, 3, 5, 7):
            while size % prime == 0:
                size //= prime
        assert size == 1
    assert far_shape_for((128, 128), 0.0) == 128
    assert far_shape_for((64, 128), 0.0) == 128
    assert far_shape_for((64, 64), 0.0, (0, 10)) >= 84


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    (
        (((20, 70), 64, (32, 32)), ValueError, "shape: expected at most far_shape"),
        (((20, 20), 64, (32, 65)), ValueError, "detector_shape: expected at most far_shape"),
        (((20, 20), 64, (32, 32), np.nan), ValueError, "roll: expected a finite number"),
        (((20, 20, 20), 64, (32, 32)), ValueError, "shape: expected 2 integers"),
        (((20, 20), 64, (32, 32), 0, False, (0, 0), "float32"), ValueError, "dtype: expected 'complex64'"),
    ),
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        FarField(*arguments)


def test_bad_arrays():
    far = FarField((20, 24), 64, (32, 40))
    with pytest.raises(ValueError, match=r"E_h: expected shape \(n, ny, nx\) = \(any, 20, 24\)"):
        far.forward(np.zeros((2, 24, 20), "complex64"))
    with pytest.raises(ValueError, match="adj_F: expected finite values"):
        far.adjoint(np.full((1, 32, 40), np.nan, "complex64"))
    assert far.forward(np.zeros((0, 20, 24), "complex64")).shape == (0, 32, 40)
