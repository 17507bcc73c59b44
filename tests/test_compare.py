"""What the data cannot determine is undone; what is left is measured."""

import numpy as np
import pytest
from pendel import compare, phantom
from pendel.base.symmetry import strain, translate
from pendel.kinematic import twin

VOXEL = (9e-9, 8e-9, 7e-9)
H = np.array([-4e9, 0.0, 2.5e10])


@pytest.fixture(scope="module", params=[(30, 32, 34), (31, 33, 35)], ids=["even", "odd"])
def truth(request):
    shape = request.param
    turn = phantom.orientation((1, 1, 1), H)
    body = phantom.truncated_octahedron(shape, VOXEL, 65e-9, rotation=turn, centre=(5e-9, 0, 0))
    body *= phantom.facetted(shape, VOXEL, [(1, 0.4, 0.2)], [40e-9])
    phase = phantom.bumps(shape, VOXEL, [(30e-9, 0, 20e-9)], [40e-9], [1.5])
    return phantom.crystal_function(body, phase, "complex128")


# Everything below happens in double precision and the Fourier translation is unitary; the peak of |C|^2 is
# stationary, so that a position error of sqrt(eps) = 1e-8 would pass unseen in the value but Newton's gradient goes on
# to 1e-13 or so. 1e-9 leaves room for the sums.
EXACT = 1e-9


def test_subvoxel_translation_and_phase_are_undone(truth):
    moved = translate(truth, (0.31, -2.72, 1.123)) * np.exp(0.7j)
    result = compare(moved, truth, VOXEL, h=H)
    assert np.allclose(result.shift, (-0.31, 2.72, -1.123), atol=EXACT)
    assert result.phase == pytest.approx(-0.7, abs=EXACT)
    assert result.phase_rmse < EXACT and result.relative_error < EXACT
    assert result.strain_rmse < EXACT / (np.linalg.norm(H) * min(VOXEL))  # a phase over a length
    assert result.amplitude_cv == pytest.approx(result.amplitude_cv_truth, abs=EXACT)
    assert np.abs(result.registered - truth).max() < EXACT


def test_ramp_translation_and_scale_are_undone_together(truth):
    z, y, x = phantom.coordinates(truth.shape, VOXEL)
    ramp = np.array([3.1e6, -5e6, 1.3e7])
    moved = translate(truth, (0.31, -2.72, 1.123)) * np.exp(1j * (ramp[0] * x + ramp[1] * y + ramp[2] * z))
    result = compare(1.7 * moved, truth, VOXEL, ramp=True, scale=True)
    assert np.allclose(result.ramp, -ramp, atol=EXACT * 1e8)  # 1 rad over the grid of some 250 nm is 4e6 rad/m
    assert result.scale == pytest.approx(1 / 1.7, rel=EXACT)
    assert result.relative_error < EXACT


def test_ramp_counts_as_an_error_by_default(truth):
    x = phantom.coordinates(truth.shape, VOXEL)[2]
    result = compare(truth * np.exp(5e6j * x), truth, VOXEL, translate=False)
    assert not result.ramp.any()
    inside = result.inside
    spread = np.broadcast_to(5e6 * x, truth.shape)[inside].std()
    # the phase is that of the mean phasor, not the mean angle: equal to first order in the spread of 0.15 rad
    assert result.phase_rmse == pytest.approx(spread, rel=0.02)


def test_twin_only_on_request(truth):
    turned = translate(twin(truth), (0.5, 0.25, -1.5))
    assert compare(turned, truth, VOXEL).relative_error > 0.1
    result = compare(turned, truth, VOXEL, twin=True)
    assert result.twin and result.relative_error < EXACT
    assert str(result).endswith("; of the conjugate TWIN")


def test_measures_of_known_errors(truth, rng):
    inside = np.abs(truth) > 0.5
    error = np.where(inside, 0.01 * rng.normal(size=truth.shape), 0)
    result = compare(truth * np.exp(1j * error), truth, VOXEL, translate=False)
    # one constant phase of 0.01/sqrt(voxels) and 0.01^2 corrections are removed or neglected
    assert result.phase_rmse == pytest.approx(error[inside].std(), rel=1e-3)
    result = compare(truth * (1 + error), truth, VOXEL, translate=False)
    assert result.phase_rmse < 1e-12
    expected = np.linalg.norm((error * truth)[inside]) / np.linalg.norm(truth[inside])
    assert result.amplitude_rmse == pytest.approx(expected, rel=1e-12)


def test_support_restricts_and_band_limits(truth):
    half = np.zeros(truth.shape, bool)
    half[:, :, truth.shape[2] // 2 :] = True
    wrong = np.where(half, truth, truth * np.exp(0.3j))
    result = compare(wrong, truth, VOXEL, support=half, translate=False)
    assert result.phase_rmse < 1e-12
    # white noise beyond the band disappears, as an array in centred order and as a fraction alike
    radius = sum(
        np.reshape((2 * np.fft.fftshift(np.fft.fftfreq(n))) ** 2, [-1 if a == i else 1 for a in range(3)])
        for i, n in enumerate(truth.shape)
    )
    noise = np.random.default_rng(1).normal(size=truth.shape) * (radius > 0.36)
    noisy = truth + np.fft.ifftn(np.fft.ifftshift(noise)) * 1e2
    assert compare(noisy, truth, VOXEL, translate=False).relative_error > 0.01
    for band in (0.6, radius <= 0.36):
        assert compare(noisy, truth, VOXEL, band=band, translate=False).relative_error < 1e-12


def test_strain_of_a_linear_displacement():
    shape, h = (12, 13, 14), np.array([-1e10, 3e9, 2e10])
    z, y, x = phantom.coordinates(shape, VOXEL)
    e = np.array([[1e-4, 2e-5, 0], [0, -3e-5, 4e-5], [1e-5, 0, 5e-5]])  # u_i = e_ij r_j
    u = np.stack([e[i, 0] * x + e[i, 1] * y + e[i, 2] * z for i in range(3)])
    S = phantom.crystal_function(np.ones(shape), phantom.displacement_phase(u, h), "complex128")
    value, defined = strain(S, VOXEL, h)
    unit = h / np.linalg.norm(h)
    assert defined.sum() == 10 * 11 * 12
    assert np.allclose(value[defined], unit @ e @ unit, rtol=1e-9)


def test_bad_arguments_are_named(truth):
    with pytest.raises(ValueError, match="S: expected shape"):
        compare(truth[1:], truth, VOXEL)
    with pytest.raises(ValueError, match="S, truth: expected non-zero functions"):
        compare(np.zeros_like(truth), truth, VOXEL)
    with pytest.raises(ValueError, match="band: expected a finite number > 0"):
        compare(truth, truth, VOXEL, band=-1)
    with pytest.raises(ValueError, match="support: expected an overlap"):
        compare(truth, truth, VOXEL, support=np.zeros(truth.shape, bool))
