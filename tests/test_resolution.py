"""Shell correlations have the values of their definitions and find the frequency where two objects part."""

import numpy as np
import pytest
from pendel import resolution
from pendel.base.symmetry import translate

SHAPE, VOXEL = (40, 44, 48), (10e-9, 9e-9, 8e-9)


def noise(seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def radius(shape=SHAPE, voxel=VOXEL):
    q = [np.fft.fftfreq(n, d) for n, d in zip(shape, voxel, strict=True)]
    return np.sqrt(q[0][:, None, None] ** 2 + q[1][:, None] ** 2 + q[2] ** 2)


def beyond(limit, seed, strength):
    """Noise at |q| > limit only."""
    return np.fft.ifftn(np.fft.fftn(noise(seed)) * (radius() > limit)) * strength


def test_equal_objects_correlate_fully_and_are_limited_by_the_grid():
    curve = resolution.fsc(noise(0), 3j * noise(0), VOXEL)
    assert np.allclose(curve.value, 1, atol=1e-12) and curve.limited
    assert curve.resolution == pytest.approx(2 * max(VOXEL), rel=0.08)  # 19 shells of 2.6/um to 50/um
    assert np.all(np.diff(curve.q) > 0) and len(curve.q) == len(curve.value) == len(curve.threshold)


def test_values_are_those_of_an_explicit_sum():
    a, b = noise(1), noise(2) + 0.5 * noise(1)
    curve = resolution.fsc(a, b, VOXEL)
    A, B, r = np.fft.fftn(a), np.fft.fftn(b), radius()
    width = 1 / (40 * 10e-9)
    inside = (r >= 9.5 * max(width, 1 / (48 * 8e-9))) & (r < 10.5 * max(width, 1 / (48 * 8e-9)))
    expected = abs((A * B.conj())[inside].sum()) / np.linalg.norm(A[inside]) / np.linalg.norm(B[inside])
    assert curve.value[10] == pytest.approx(expected, rel=1e-12)
    assert curve.q[10] == pytest.approx(r[inside].mean(), rel=1e-12)


def test_resolution_is_where_noise_begins():
    limit = 3e7
    # signal power 1, noise power 24: a correlation of 0.2 beyond the limit
    curve = resolution.fsc(noise(1), noise(1) + beyond(limit, 2, 24**0.5), VOXEL)
    width = curve.q[9] - curve.q[8]
    assert not curve.limited and abs(1 / curve.resolution - limit) < width
    assert curve.value[-1] == pytest.approx(0.2, abs=0.03)  # 1/sqrt(n) of 4400 voxels, twice


def test_half_bit_threshold_is_van_heel_and_schatz():
    curve = resolution.fsc(noise(1), noise(2), VOXEL, threshold="half-bit", filled=1)
    width = curve.q[9] - curve.q[8]
    n = 4 * np.pi * curve.q[-1] ** 2 * width * np.prod(SHAPE) * np.prod(VOXEL)
    expected = (0.2071 + 1.9102 / n**0.5) / (1.2071 + 0.9102 / n**0.5)
    assert curve.threshold[-1] == pytest.approx(expected, rel=0.002)  # n = 4400, of a thin shell
    # far above the correlation of noise with noise, 1/sqrt(n); fewer independent voxels raise it
    assert (curve.value[3:] < curve.threshold[3:]).all()
    full = resolution.fsc(noise(1), noise(2), VOXEL, threshold="half-bit", filled=0.1)
    assert (full.threshold > curve.threshold)[1:].all()  # shell 0 is one voxel


def test_prtf_falls_where_starts_disagree():
    limit, objects = 3e7, []
    for seed in range(4):
        wanted = np.abs(np.fft.fftn(noise(9)))  # every object has the same moduli, as phased objects have
        phases = np.angle(np.fft.fftn(noise(9))) + (radius() > limit) * np.angle(np.fft.fftn(noise(seed)))
        obj = np.fft.ifftn(wanted * np.exp(1j * phases))
        objects.append(translate(obj, (1.0, seed, 0.5)) * np.exp(1j * seed))
    curve = resolution.prtf(objects, VOXEL)
    low, high = curve.q < 0.95 * limit, curve.q > 1.05 * limit
    assert np.abs(curve.value[low] - 1).max() < 0.02  # the noise moves the registration by some 1e-2 voxel: 0.008
    # |mean of four random phasors|: 0.45 (Rayleigh: sqrt(pi)/4 = 0.443 for many)
    assert np.abs(curve.value[high] - 0.45).max() < 0.03
    same = resolution.prtf(objects, VOXEL, amplitude=np.fft.fftshift(wanted))
    assert np.allclose(same.value, curve.value, rtol=1e-9)
    cut = resolution.prtf(objects, VOXEL, threshold=0.7)
    assert abs(1 / cut.resolution - limit) < curve.q[9] - curve.q[8] and not cut.limited


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resolution.fsc(noise(0), np.zeros(SHAPE), VOXEL), "a, b: expected non-zero objects"),
        (lambda: resolution.fsc(noise(0), noise(0)[1:], VOXEL), "b: expected shape"),
        (lambda: resolution.fsc(noise(0), noise(0), VOXEL, threshold="bit"), "threshold: expected one of 'half-bit'"),
        (lambda: resolution.fsc(noise(0), noise(0), VOXEL, threshold=2.0), "threshold: expected a finite number > 0"),
        (lambda: resolution.fsc(noise(0, (2, 2, 2)), noise(0, (2, 2, 2)), VOXEL), "two or more shells"),
        (lambda: resolution.prtf([noise(0)], VOXEL), "objects: expected two or more, got 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
