"""What beamlines add: each effect against a closed form, a brute-force sum or what it has to conserve."""

import dataclasses
import math

import numpy as np
import pytest
from pendel import Crystal, Experiment
from pendel.analysis import disturbances
from pendel.analysis.disturbances import Disturbances, measured
from pendel.analysis.rocking_scans import wide_angle_scan
from pendel.reference import wide_angle

SIZE = 0.3e-6


class Peanut:
    """A smooth crystal of 0.3 um with fringes."""

    hull = 0.2e-6 * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])

    def __call__(self, r, width):
        x, y, z = r / 0.05e-6
        density = np.exp(-((x - 1) ** 2) - y**2 - z**2) + 0.8 * np.exp(
            -((x + 1) ** 2) - (y - 0.7) ** 2 - (z + 0.4) ** 2
        )
        return density, density * np.exp(0.5j * x)


@pytest.fixture(scope="module")
def experiment():
    """A rolled detector that sees the Peanut to 1e-4, with fringes four pixels and frames wide."""
    angles = np.deg2rad(0.05) * (np.arange(25) - 12)
    return Experiment(
        energy=9e3 * 1.602176634e-19,
        distance=0.4,
        pixel_size=55e-6,
        detector_shape=(40, 42),
        arm=(("y+", math.radians(32.174)), ("x-", math.radians(12.6346))),
        rocking_angles=angles,
    )


@pytest.fixture(scope="module")
def frames_at(experiment):
    """Frames for a direction of the incident beam, k_0 + dk."""

    def frames(dk=(0.0, 0.0, 0.0)):
        scan = wide_angle_scan(experiment)
        k_0 = scan.k_0 + np.array(dk)
        scan = dataclasses.replace(scan, k_0=k_0 * scan.k / np.linalg.norm(k_0))
        return wide_angle.intensities(scan, Crystal(0, 1e-9), Peanut(), wide_angle.Method(13e-9)) * 1e20

    return frames


@pytest.fixture(scope="module")
def frames(frames_at):
    return frames_at()


def test_partial_coherence_is_the_sum_over_directions_of_the_beam(experiment, frames, frames_at):
    visibility = 0.9
    rms = math.sqrt(-2 * math.log(visibility)) / SIZE
    nodes = ((1 / 6, -math.sqrt(3)), (2 / 3, 0.0), (1 / 6, math.sqrt(3)))
    expected = sum(u * v * frames_at((rms * x, rms * y, 0)) for u, x in nodes for v, y in nodes)
    found = disturbances.partially_coherent(frames, experiment, visibility, SIZE)
    inner = (slice(3, -3), slice(3, -3), slice(3, -3))
    change, error = (np.abs(a - expected)[inner].max() / expected.max() for a in (frames, found))
    # Three directions each way are exact up to the fifth moment.
    assert change > 0.01 and error < 4e-4
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-3)


def test_visibility_is_that_of_fringes_of_the_crystals_size(experiment, frames):
    """Of the autocorrelation at a distance across the beam; along it nothing changes."""
    index = np.indices(frames.shape) - np.reshape(experiment.centre, (3, 1, 1, 1))
    Q = np.tensordot(experiment.basis(), index, axes=1)
    smeared = disturbances.partially_coherent(frames, experiment, 0.1, SIZE)
    for apart in ((0.1e-6, 0, 0), (0, 0.06e-6, 0), (0, 0, 0.06e-6), (0.1e-6, -0.035e-6, 0.02e-6)):
        wave = np.exp(1j * np.tensordot(experiment.frame @ np.array(apart), Q, axes=1))
        before, after = ((intensity * wave).sum() for intensity in (frames, smeared))
        across = math.hypot(*apart[:2]) / SIZE
        # 1e-3 of the crystal's light misses the detector.
        assert abs(after / before) == pytest.approx(0.1 ** (across**2), rel=0.01)


def test_energies_have_the_moments_of_a_gaussian():
    nodes = np.array(disturbances.energies(Disturbances(bandwidth=2e-4)))
    for power, moment in enumerate((1, 0, 1, 0, 3, 0)):
        assert nodes[:, 0] @ (nodes[:, 1] / 2e-4) ** power == pytest.approx(moment, abs=1e-12)
    assert disturbances.energies(Disturbances()) == [(1.0, 0.0)]


def test_true_frames_are_made_at_true_angles_and_energies(experiment):
    chosen = Disturbances(angle_jitter=0.2, bandwidth=1e-4, seed=5)
    asked = []

    def frames_of(angle_offsets, energy_offset):
        asked.append((angle_offsets, energy_offset))
        return np.full(2, 1e4 * energy_offset + 7)

    np.testing.assert_allclose(disturbances.true_frames(frames_of, experiment, chosen), 7)
    assert [e for _, e in asked] == [e for _, e in disturbances.energies(chosen)]
    many = experiment.replace(rocking_angles=np.deg2rad(0.05) * np.arange(4001), centre=(0, 20, 20))
    offsets = disturbances.angle_offsets(many, chosen)
    # rms of 4001 normal numbers to 3 of their standard deviations
    assert offsets.std() == pytest.approx(0.2 * np.deg2rad(0.05), rel=3 / math.sqrt(2 * 4001))
    np.testing.assert_array_equal(asked[0][0], disturbances.angle_offsets(experiment, chosen))


def test_flux_has_mean_1_jitter_and_a_slow_drift():
    flux = disturbances.relative_flux(4000, Disturbances(flux_jitter=0.05))
    assert flux.mean() == pytest.approx(1, rel=1e-12)
    assert np.log(flux).std() == pytest.approx(0.05, rel=3 / math.sqrt(8000))
    slow = disturbances.relative_flux(400, Disturbances(flux_drift=0.1, seed=2))
    assert (
        slow.mean() == pytest.approx(1)
        and 0.03 < np.ptp(slow) < 0.25
        and np.abs(np.diff(slow)).max() < 0.1 * 2 * np.pi / 399
    )
    assert (disturbances.relative_flux(9, Disturbances()) == 1).all()


def test_point_spread_widens_a_spot_and_loses_no_count():
    spot = np.zeros((2, 41, 43))
    spot[1, 20, 21] = 5.0
    wide = disturbances.spread(spot, 1.5)
    assert wide[1].sum() == pytest.approx(5, rel=1e-9) and not wide[0].any()
    row, col = np.indices(spot.shape[1:])
    for index, middle in ((row, 20), (col, 21)):
        assert (wide[1] * (index - middle) ** 2).sum() / 5 == pytest.approx(1.5**2, rel=1e-6)


def test_background_is_flat_but_for_a_streak():
    flat = disturbances.background_counts((3, 20, 30), Disturbances(photons=1, background=0.04))
    np.testing.assert_allclose(flat, 0.04)
    streak = disturbances.background_counts((3, 60, 60), Disturbances(photons=1, streak=0.5, seed=1))
    assert (streak[0] == streak[1]).all() and 0.45 < streak.max() <= 0.5
    # a ridge of 1.5 pixels rms: its integral across is 0.5 sqrt(2 pi) 1.5 over some 40 to 85 pixels of its length
    assert 40 < streak[0].sum() / (0.5 * math.sqrt(2 * math.pi) * 1.5) < 85
    varied = disturbances.background_counts((2000, 1, 1), Disturbances(photons=1, background=1, background_jitter=0.2))
    assert np.log(varied).std() == pytest.approx(0.2, rel=3 / math.sqrt(4000))


def test_counts_are_poisson_of_the_photons_asked_for(experiment, frames):
    result = measured(frames, experiment, Disturbances(photons=1e6, background=0.02, seed=3), SIZE)
    expected = result.scale * frames + 0.02
    assert result.data.dtype == np.int32 and result.mask.all()
    assert abs(result.data.sum() - expected.sum()) < 4 * math.sqrt(expected.sum())
    assert (result.scale * frames).sum() == pytest.approx(1e6)
    bright = expected > 5
    chi_square = ((result.data - expected)[bright] ** 2 / expected[bright]).mean()
    assert chi_square == pytest.approx(1, abs=4 * math.sqrt(2 / bright.sum()))
    again = measured(frames, experiment, Disturbances(photons=1e6, background=0.02, seed=3), SIZE)
    assert (again.data == result.data).all()
    other = measured(frames, experiment, Disturbances(photons=1e6, background=0.02, seed=4), SIZE)
    assert (other.data != result.data).any()


def test_without_photons_frames_are_as_they_come(experiment, frames):
    result = measured(frames, experiment, Disturbances(), SIZE)
    np.testing.assert_allclose(result.data, frames, rtol=1e-12)
    assert result.scale == 1 and result.mask.all() and (result.flux == 1).all() and not result.background.any()


def test_dead_and_saturated_pixels_are_masked(experiment, frames):
    chosen = Disturbances(photons=1e6, saturation=1500, beam_stop=2.5, gap=True)
    result, all_alive = (measured(frames, experiment, d, SIZE) for d in (chosen, Disturbances(photons=1e6)))
    dead = ~disturbances.live_pixels(experiment, chosen)
    assert dead[20, 21] and dead[20, 23] and not dead[20, 24] and dead[:, 31:35].all() and not dead[0, [30, 35]].any()
    assert dead.sum() == 21 + 4 * 40
    full = all_alive.data >= 1500
    assert full[:, ~dead].any() and not result.data[:, dead].any() and result.data.max() <= 1500
    np.testing.assert_array_equal(result.mask, ~full & ~dead)
    np.testing.assert_array_equal(result.data[result.mask], all_alive.data[result.mask])


def test_one_effect_more_does_not_change_the_others(experiment):
    one = disturbances.usual("flux", 1e6, 7)
    two = dataclasses.replace(one, angle_jitter=0.1, background=0.1, background_jitter=0.1)
    np.testing.assert_array_equal(*(disturbances.relative_flux(9, d) for d in (one, two)))
    for name in disturbances.USUAL:
        assert disturbances.usual(name, 1e6, 7).seed == 7


def test_it_refuses_what_cannot_be():
    for changes, message in (
        ({"visibility": 0.0}, "visibility: expected a finite number > 0 and <= 1, got 0.0"),
        ({"flux_jitter": -1}, "flux_jitter: expected a finite number >= 0, got -1.0"),
        ({"photons": 0}, "photons: expected a finite number > 0, got 0.0"),
        (
            {"background": 0.1},
            "photons: expected a number with background, streak or saturation, which count, got None",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Disturbances(**changes)
    with pytest.raises(ValueError, match="name: expected one of 'none'"):
        disturbances.usual("snow", None, 0)
