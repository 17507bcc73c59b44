"""Photons are counted where they were asked for."""

import numpy as np
import pytest
from pendel.app import simulate


@pytest.fixture(scope="module")
def intensities():
    return np.random.default_rng(1).gamma(0.2, size=(8, 20, 20)).astype(np.float32)


def test_photons_in_the_brightest_pixel_or_in_the_scan(intensities):
    data, scale = simulate.counts(intensities, photons=100, seed=3)
    assert data.dtype == np.int32 and scale * intensities.max() == pytest.approx(100)
    data, scale = simulate.counts(intensities, total=1e6, seed=3)
    assert data.dtype == np.int32 and abs(data.sum() - 1e6) < 4e3  # four standard deviations of a Poisson number
    expected = scale * intensities
    assert ((data - expected) ** 2).sum() / expected.sum() == pytest.approx(1, abs=0.1)  # variance = mean
    assert np.array_equal(data, simulate.counts(intensities, total=1e6, seed=3)[0])
    assert not np.array_equal(data, simulate.counts(intensities, total=1e6, seed=4)[0])


def test_no_noise_unless_photons_are_given(intensities):
    data, scale = simulate.counts(intensities)
    assert np.allclose(data, scale * intensities) and data.max() == pytest.approx(simulate.BRIGHTEST)
    with pytest.raises(ValueError, match="photons, total: expected at most one, got both"):
        simulate.counts(intensities, photons=1, total=1)
    with pytest.raises(ValueError, match="total: expected a finite number > 0"):
        simulate.counts(intensities, total=-1)
