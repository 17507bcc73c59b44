"""Kinematic phasing recovers a strained crystal from a skewed rocking scan, in the model frame."""

import numpy as np
import pytest
from pendel import Experiment, compare, kinematic, phantom
from pendel.base.symmetry import translate
from pendel.kinematic import phasing

SHAPE, VOXEL = (30, 30, 30), (8e-9, 8.5e-9, 8e-9)
FRAMES, ROWS, COLS = 44, 48, 50


def geometry(centre=(FRAMES // 2, ROWS // 2, COLS // 2)):
    """34-ID-C: two arm angles (detector roll 161 deg), rocking about the vertical; coarse pixels and steps."""
    return Experiment(
        wavelength=1.377602e-10,
        distance=0.5,
        pixel_size=150e-6,
        detector_shape=(ROWS, COLS),
        arm=(("y+", np.deg2rad(32.174)), ("x-", np.deg2rad(12.6346))),
        rocking_axis="y+",
        rocking_angles=np.deg2rad(0.028) * np.arange(FRAMES),
        centre=centre,
    )


def fourier_sums(S, experiment):
    """|sum_r S(r) exp(i dq_j.r) exp(-2 pi i q.r)|^2 by explicit sums over the voxels, q from lab directions."""
    z, y, x = np.broadcast_arrays(*phantom.coordinates(S.shape, VOXEL))
    r = np.stack([a[S != 0] for a in (x, y, z)], axis=1)
    step = 2 * np.pi * experiment.pixel_size / (experiment.wavelength * experiment.distance)
    arm = _turn(1, np.deg2rad(32.174)) @ _turn(0, -np.deg2rad(12.6346))
    column, row = (experiment.frame @ arm @ np.array(v) for v in ((1, 0, 0), (0, -1, 0)))
    rows = np.exp(-1j * step * np.outer(np.arange(ROWS) - experiment.centre[1], r @ row))
    columns = np.exp(-1j * step * np.outer(r @ column, np.arange(COLS) - experiment.centre[2]))
    return np.stack([np.abs((rows * (S[S != 0] * np.exp(1j * (r @ dq)))) @ columns) ** 2 for dq in experiment.dq])


def _turn(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == 0 else [[c, 0, s], [0, 1, 0], [-s, 0, c]])


@pytest.fixture(scope="module")
def truth():
    h = (-0.56, 0.0, 0.17)
    body = phantom.truncated_octahedron(SHAPE, VOXEL, 75e-9, rotation=phantom.orientation((1, 1, 1), h, 0.3))
    body *= phantom.facetted(SHAPE, VOXEL, [(1, 0.5, 0.3)], [50e-9])
    phase = phantom.bumps(SHAPE, VOXEL, [(40e-9, 10e-9, 20e-9)], [50e-9], [1.5])
    phase += phantom.contact(SHAPE, VOXEL, (-60e-9, 40e-9, -60e-9), 40e-9, 1.5)
    return phantom.crystal_function(body, phase, "complex128")


@pytest.fixture(scope="module", params=["whole", "fractional"])
def phased(request, truth):
    centre = {"whole": (22, 24, 25), "fractional": (21.2, 25.4, 25.3)}[request.param]
    experiment = geometry(centre)
    data = fourier_sums(truth, experiment)
    mask = np.ones((ROWS, COLS), bool)
    mask[[5, 20, 30], [7, 22, 41]] = False
    data[:, ~mask] = np.nan
    return experiment, data, mask, kinematic.phase(data, mask, iterations=300)


def test_strained_crystal_is_recovered_in_the_model_frame(phased, truth):
    experiment, data, mask, result = phased
    assert result.object.shape == (44, 48, 50) and result.object.dtype == np.complex64
    S = kinematic.to_model_grid(result, experiment, SHAPE, VOXEL)
    found = compare(S, truth, VOXEL, twin=True)
    # Measured 0.033 and 0.038 rad, 0.060 and 0.061: the detector's band (9 nm against 8 nm voxels), the shrink-wrapped
    # edge and the splines. A centre wrong by half a pixel gives 0.42 rad (next test).
    assert found.phase_rmse < 0.06
    assert found.amplitude_rmse < 0.09
    # the centre of mass is put on the origin before interpolation and clipping, which move it by 0.01 voxel
    weight = np.abs(S)
    for axis, n in enumerate(SHAPE):
        assert abs(np.average(np.arange(n), weights=weight.sum(axis=tuple({0, 1, 2} - {axis}))) - n // 2) < 0.05
    other = kinematic.to_model_grid(result, experiment, SHAPE, VOXEL, twin=True)
    assert compare(other, truth, VOXEL, twin=True).twin != found.twin


def test_wrong_geometry_is_seen(phased, truth):
    experiment, _, _, result = phased
    right = compare(kinematic.to_model_grid(result, experiment, SHAPE, VOXEL), truth, VOXEL, twin=True)
    for flipped in (0, 1, 2):
        wrong = np.flip(result.object, flipped)
        S = kinematic.to_model_grid(wrong, experiment, (40, 40, 40), VOXEL, support=np.flip(result.support, flipped))
        padded = np.pad(truth, 5)
        assert compare(S, padded, VOXEL, twin=True).relative_error > 3 * right.relative_error
    moved = experiment.replace(centre=tuple(c + 0.5 for c in experiment.centre))
    S = kinematic.to_model_grid(result, moved, SHAPE, VOXEL)
    assert compare(S, truth, VOXEL, twin=True).phase_rmse > 3 * right.phase_rmse


def test_error_is_that_of_the_object(phased):
    _, data, mask, result = phased
    F = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(result.object), norm="ortho"))
    wanted = np.sqrt(data[:, mask])
    chi = np.linalg.norm(np.abs(F)[:, mask] - wanted) / np.linalg.norm(wanted)
    assert result.chi == pytest.approx(chi, rel=1e-4)  # complex64 amplitudes
    assert result.chi < 0.03  # 0.022: the sharp crystal has tails beyond the array, a compact object does not
    assert len(result.error) == 300 and not result.object[~result.support].any()


def test_same_seed_same_result_for_any_number_of_workers(truth):
    data = fourier_sums(truth, geometry())
    seen = []
    a = kinematic.phase(data, iterations=24, shrink_start=8, shrink_every=4, workers=1, seed=3)
    b = kinematic.phase(
        data, iterations=24, shrink_start=8, shrink_every=4, workers=3, seed=3, progress=lambda *x: seen.append(x)
    )
    assert np.array_equal(a.object, b.object) and np.array_equal(a.error, b.error)
    assert [x[:2] for x in seen] == [(i + 1, 24) for i in range(24)] and seen[-1][2] == b.error[-1]
    assert not np.array_equal(a.object, kinematic.phase(data, iterations=24, seed=4).object)


def test_blocks_are_gone_through_in_order(truth):
    data = fourier_sums(truth, geometry())
    common = {"iterations": 12, "period": 4, "final_er": 0, "shrink_every": 0, "seed": 3}
    hio, er, both = (kinematic.phase(data, blocks=b, **common).error for b in (["hio"], ["er"], ["er", "hio"]))
    assert np.array_equal(both[:5], er[:5]) and (np.diff(er) < 0).all()  # error reduction does what it says
    assert both[5] != er[5] and hio[1] != er[1]
    last = kinematic.phase(data, blocks=["er", "hio"], **common | {"final_er": 8}).error
    assert np.array_equal(last, er)  # the end is error reduction whatever the block
    assert np.array_equal(kinematic.phase(data, blocks=["er", "hio", "er"], **common).error[:9], both[:9])


def test_recipe_of_the_paper_recovers_the_crystal(truth):
    paper = kinematic.PAPER_RECIPE
    assert (paper["iterations"], paper["beta"], paper["period"], paper["final_er"]) == (1800, 0.9, 50, 200)
    experiment = geometry()
    data = fourier_sums(truth, experiment)
    result = kinematic.phase(data, **paper | {"iterations": 400, "final_er": 100})
    S = kinematic.to_model_grid(result, experiment, SHAPE, VOXEL)
    assert compare(S, truth, VOXEL, twin=True).phase_rmse < 0.06  # as above


def test_best_of_several_seeds(truth):
    data = fourier_sums(truth, geometry())
    few, seen = {"iterations": 20, "shrink_every": 10}, []
    best, chi = kinematic.phase_best(data, seeds=[4, 5], progress=lambda *x: seen.append(x[:2]), **few)
    assert best.chi == chi.min() and best.seed == 4 + chi.argmin()
    assert np.array_equal(best.object, kinematic.phase(data, seed=best.seed, **few).object)
    assert seen[0] == (1, 40) and seen[-1] == (40, 40)


def test_mean_of_the_best_seeds_undoes_what_the_data_leave_open(truth, monkeypatch, rng):
    """Copies of one object, moved, turned in phase, twinned and noisy, are averaged to it with less noise."""
    shape, inside = (44, 48, 50), np.zeros((44, 48, 50), bool)
    inside[7:37, 9:39, 10:40] = np.abs(truth) > 0
    clean = np.zeros(shape, complex)
    clean[7:37, 9:39, 10:40] = truth
    data = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(clean), norm="ortho"))) ** 2

    def changed(seed, size):
        noisy = clean + inside * size * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
        moved = translate(noisy, [(0, 0, 0), (1, -2, 1), (0.5, 1.25, -1)][seed]) * np.exp(1j * seed)
        support = translate(inside.astype(complex), [(0, 0, 0), (1, -2, 1), (0.5, 1.25, -1)][seed]).real > 0.5
        if seed == 2:
            moved, support = kinematic.twin(moved), kinematic.twin(support.astype(complex)).real > 0.5
        chi = [0.1, 0.2, 0.15][seed]
        return kinematic.KinematicResult(moved.astype(np.complex64), support, chi, np.zeros(3), seed)

    def error(result):
        core = np.abs(clean) > 0.5
        a, b = result.object[core], clean[core]
        return np.linalg.norm(a * np.exp(-1j * np.angle(np.vdot(b, a))) - b) / np.linalg.norm(b)

    for size, seeds in ((0.0, 1e-2), (0.2, 0.19)):
        monkeypatch.setattr(phasing, "phase", lambda data, mask, seed, progress, size=size: changed(seed, size))
        mean, chi = kinematic.phase_best(data, seeds=[0, 1, 2], average=3)
        assert list(chi) == [0.1, 0.2, 0.15] and mean.seed == 0
        assert error(mean) < seeds, error(mean)  # noise of 0.2 sqrt 2 = 0.28 in each, 0.16 in the mean of three
        assert (mean.support ^ inside).sum() < 0.02 * inside.sum()
        F = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(mean.object), norm="ortho"))
        expected = np.linalg.norm(np.abs(F) - np.sqrt(data)) / np.linalg.norm(np.sqrt(data))
        assert mean.chi == pytest.approx(expected, rel=1e-4)


def test_known_object_is_mapped_by_its_lattice():
    """obj[n] = S(A n) sampled from a smooth S; the map back must return S: no phasing in between."""
    experiment = geometry((22.3, 23.6, 25.2))
    A = 2 * np.pi * np.linalg.inv(experiment.basis()).T @ np.diag(1 / np.array([FRAMES, ROWS, COLS]))
    n = np.stack(np.meshgrid(*(np.arange(m) - m // 2 for m in (FRAMES, ROWS, COLS)), indexing="ij"))
    r = np.tensordot(A, n, axes=1)

    def crystal(x, y, z):
        return np.exp(-(x**2 + y**2 + z**2) / (2 * 35e-9**2) + 1j * (2e7 * z - 1e7 * x + 1e14 * x * y))

    offset = np.array(experiment.centre) - np.array([22, 24, 25])
    obj = crystal(*r) * np.exp(1j * np.tensordot(experiment.basis() @ offset, r, axes=1))
    support = np.abs(obj) > 0.02
    S = kinematic.to_model_grid(obj, experiment, (34, 34, 34), VOXEL, support=support, normalise=False, clip=False)
    z, y, x = phantom.coordinates((34, 34, 34), VOXEL)
    core = np.broadcast_to(x**2 + y**2 + z**2, S.shape) < 70e-9**2
    expected = crystal(x, y, z)
    phase = np.exp(1j * np.angle(np.vdot(S[core], expected[core])))
    # cubic splines of a Gaussian of sigma = 3 to 5 samples with a phase of 0.3 rad per sample: 3.5e-4
    assert np.abs(S * phase - expected)[core].max() < 1e-3


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 4, 3)])
def test_twin_is_an_involution_with_the_same_intensities(shape, rng):
    S = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    other = kinematic.twin(S)
    assert np.array_equal(kinematic.twin(other), S)
    spectrum, twin_spectrum = (np.fft.fftn(np.fft.ifftshift(a)) for a in (S, other))
    assert np.allclose(twin_spectrum, spectrum.conj(), atol=1e-12)  # 1e2 terms of order 1 at eps


def test_bad_arguments_are_named(truth):
    data = np.ones((4, 5, 6))
    with pytest.raises(ValueError, match="data: expected finite intensities >= 0"):
        kinematic.phase(-data)
    with pytest.raises(ValueError, match="mask: expected at least one good pixel"):
        kinematic.phase(data, np.zeros((5, 6), bool))
    with pytest.raises(TypeError, match="seed: expected an integer"):
        kinematic.phase(data, seed=1.5)
    with pytest.raises(ValueError, match=r"blocks\[1\]: expected one of 'hio', 'er', got 'raar'"):
        kinematic.phase(data, blocks=("hio", "raar"))
    with pytest.raises(ValueError, match="seeds: expected at least average = 2 of them, got 1"):
        kinematic.phase_best(data, seeds=[0], average=2)
    obj = np.zeros((FRAMES, ROWS, COLS), complex)
    obj[15:30, 15:30, 15:30] = 1
    with pytest.raises(ValueError, match="shape: expected at least .* voxels to hold the object"):
        kinematic.to_model_grid(obj, geometry(), (8, 30, 30), VOXEL)
    with pytest.raises(ValueError, match="result: expected a grid of at least the data's shape"):
        kinematic.to_model_grid(obj[1:], geometry(), SHAPE, VOXEL)
    uneven = geometry().replace(rocking_angles=np.deg2rad(0.001) * np.arange(FRAMES) ** 2)
    with pytest.raises(ValueError, match="experiment: expected two or more frames at equal rocking steps"):
        kinematic.to_model_grid(obj, uneven, SHAPE, VOXEL)
