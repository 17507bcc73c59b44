"""The model: intensities from operator and far field, and a gradient that is the derivative of its loss."""

import math

import numpy as np
import pendel.model.passes
import pytest
from pendel import Model, TakagiTaupin
from pendel.model.loss import amplitude_loss, poisson_loss
from scan import SAMPLES, STRONG, evaluate, make_crystal, make_experiment

FRAMES = 7


def scan(**changes):
    arguments = {
        "detector_shape": (20, 22),
        "rocking_angles": np.deg2rad(0.05) * np.arange(FRAMES),
        "centre": (2.6, 10.3, 10.8),
    }
    return make_experiment(**(arguments | changes))


def model_of(dtype="complex128", **changes):
    exp = changes.pop("experiment", None) or scan()
    voxel = exp.suggest_voxel(transport=changes.get("transport", "shift"))
    return Model(exp, changes.pop("crystal", STRONG), (6, 8, 9), voxel, dtype=dtype, **changes)


@pytest.fixture
def crystal_function(rng):
    return make_crystal(rng, (6, 8, 9))


@pytest.fixture
def measured(rng):
    """Data of another crystal, and a mask that differs from frame to frame."""
    S = rng.uniform(0.5, 1, (6, 8, 9)) * np.exp(1j * rng.uniform(-1, 1, (6, 8, 9)))
    data = rng.poisson(1e5 * model_of().intensities(S)).astype(float)
    return data, rng.uniform(size=data.shape) > 0.2


def assert_same(*evaluations):
    for a, b in zip(*evaluations, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * np.abs(a).max())  # other roundings


def derivative(function, direction, step):
    """Central difference, extrapolated once: error of order step^4."""

    def central(h):
        return (function(h * direction) - function(-h * direction)) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


@pytest.mark.parametrize("coupling", ("dynamical", "kinematic"))
def test_intensities_are_the_weighted_sum_over_polarisations(crystal_function, coupling):
    model = model_of(polarization={"sigma": 0.3, "pi": 0.7}, coupling=coupling, **SAMPLES)
    exp, expected = model.experiment, 0
    chi = {"chi_0": 0, "chi_h": STRONG.chi_h, "chi_hbar": 0}
    if coupling == "dynamical":
        chi = {"chi_0": STRONG.chi_0, "chi_h": STRONG.chi_h, "chi_hbar": STRONG.chi_hbar}
    for weight, factor in ((0.3, 1.0), (0.7, math.cos(exp.two_theta))):
        op = TakagiTaupin(
            model.shape,
            model.voxel,
            exp.wavelength,
            exp.two_theta,
            **chi,
            polarization_factor=factor,
            dtype="complex128",
        )
        E_h = op.forward(crystal_function, exp.dq)
        # Explicit sum at the pixels' frequencies, for the far field.
        _, dy, dx = model.voxel
        y, x = (np.arange(8) - 4) * dy, (np.arange(9) - 4) * dx
        q = exp.detector_q()
        wave = np.exp(-2j * np.pi * (q[..., :1, None] * x + q[..., 1:, None] * y[:, None]))
        F = np.einsum("rcyx,nyx->nrc", wave, E_h) * math.sqrt(dx * dy) / exp.field_of_view
        expected = expected + weight * np.abs(F) ** 2
    D = model.intensities(crystal_function)
    # Voxel-sharp content reaches the band's edge, where the shears of the far field are right to about 1 %.
    assert np.linalg.norm(D - expected) < 2e-2 * np.linalg.norm(expected)
    np.testing.assert_array_equal(model.intensities(crystal_function, frames=[4, 1]), D[[4, 1]])


def test_kinematic_model_is_quadratic_in_s(crystal_function):
    model = model_of(coupling="kinematic")
    D = model.intensities(crystal_function)
    np.testing.assert_allclose(model.intensities(3 * crystal_function), 9 * D, rtol=1e-11)
    dynamical = model_of().intensities(crystal_function)
    assert np.linalg.norm(dynamical - D) > 1e-2 * np.linalg.norm(D)


def test_a_fit_of_some_frames_knows_no_others(crystal_function, measured):
    model, (data, mask) = model_of(), measured
    some, whole = model.fit(data, mask, frames=[5, 0, 3]), model.fit(data, mask)
    for frames in ([3], [0, 5], [-2, 0]):
        one, other = (model.evaluate(crystal_function, fit, frames, None) for fit in (some, whole))
        assert one.loss == other.loss and np.array_equal(one.adj_S, other.adj_S)
    for frames in (None, [0, 1]):
        with pytest.raises(ValueError, match=r"frames: expected some of \[0, 3, 5\], which fit has, got \[0, 1"):
            model.evaluate(crystal_function, some, frames)
    alone = [model.fit(data, mask, frames=[frame]) for frame in (0, 3, 5)]
    assert some.counts == pytest.approx(sum(fit.counts for fit in alone), rel=1e-6)
    assert some.mean_intensity == pytest.approx(sum(fit.mean_intensity for fit in alone) / 3, rel=1e-6)


@pytest.mark.parametrize("transport", ("shift", "fourier", "box"))
@pytest.mark.parametrize("coupling", ("dynamical", "kinematic"))
@pytest.mark.parametrize("scale", (1e5, None))
@pytest.mark.parametrize("frames", (None, [5, 0, 3]))
def test_gradient_is_the_derivative_of_the_loss(crystal_function, measured, rng, transport, coupling, scale, frames):
    data, mask = measured
    model = model_of(transport=transport, coupling=coupling)
    # A sound S everywhere: |S| is not differentiable at 0.
    S = crystal_function + 0.5 * (crystal_function == 0)
    value, adj_S = model.loss_and_adjoint(S, data, mask, frames, scale)
    direction = rng.normal(size=S.shape) + 1j * rng.normal(size=S.shape)
    slope = derivative(lambda d: model.loss_and_adjoint(S + d, data, mask, frames, scale)[0], direction, 5e-5)
    # Pixels close to D = 0 bend the loss within steps of some 1e-2: truncation (5e-3)^4 = 6e-10; rounding 1e-16/5e-5.
    assert slope == pytest.approx(np.sum(np.conj(adj_S) * direction).real, rel=1e-7)
    D = model.intensities(S, frames)
    used = slice(None) if frames is None else frames
    assert value == pytest.approx(amplitude_loss(D, data[used], mask[used], scale)[0], rel=1e-12)


def test_gradients_of_s_0_and_dq(crystal_function, measured, rng):
    data, mask = measured
    model = model_of()
    s_0 = rng.uniform(0.2, 1, model.shape)
    result = evaluate(model, crystal_function, data, mask[0], [1, 4, 6], None, s_0)

    def loss_of(change):
        return evaluate(model, crystal_function, data, mask[0], [1, 4, 6], None, s_0 + change).loss

    direction = rng.normal(size=s_0.shape)
    # As in the test above; the loss depends less on s_0, hence ten times more rounding.
    assert derivative(loss_of, direction, 1e-4) == pytest.approx(np.sum(result.adj_s_0 * direction), rel=1e-6)
    assert result.adj_dq.shape == (3, 3)
    dq, direction = model.experiment.dq, 1e5 * rng.normal(size=(3, 3))

    def loss_at(change):
        moved = dq.copy()
        moved[[1, 4, 6]] += change
        return evaluate(model, crystal_function, data, mask[0], [1, 4, 6], None, s_0, dq=moved).loss

    assert derivative(loss_at, direction, 0.3) == pytest.approx(np.sum(result.adj_dq * direction), rel=1e-6)


@pytest.mark.parametrize("scale", (1e5, None))
@pytest.mark.parametrize("background", (0.0, 2.0))
def test_poisson_gradients(crystal_function, measured, rng, scale, background):
    data, mask = measured
    model, frames = model_of(), [5, 0, 3]
    data = data + rng.poisson(background, data.shape)
    options = {"likelihood": "poisson", "background": background, "flux": rng.uniform(0.8, 1.2, FRAMES)}
    S, s_0 = crystal_function + 0.5 * (crystal_function == 0), rng.uniform(0.2, 1, model.shape)
    result = evaluate(model, S, data, mask, frames, scale, s_0, **options)
    D = model.intensities(S, frames, s_0, flux=options["flux"])
    expected, adj_D = poisson_loss(D, data[frames], mask[frames], scale, background)
    assert result.loss == pytest.approx(expected, rel=1e-12)
    direction = rng.normal(size=S.shape) + 1j * rng.normal(size=S.shape)
    slope = derivative(
        lambda d: evaluate(model, S + d, data, mask, frames, scale, s_0, **options).loss, direction, 1e-5
    )
    # pixels close to D = 0 bend this loss more than the amplitude loss, hence the smaller step; rounding 1e-16/1e-5
    # of a loss of some hundred times its slope
    assert slope == pytest.approx(np.sum(np.conj(result.adj_S) * direction).real, rel=1e-7)
    # the loss depends less on s_0: a larger step against rounding
    direction = rng.normal(size=S.shape)
    slope = derivative(
        lambda d: evaluate(model, S, data, mask, frames, scale, s_0 + d, **options).loss, direction, 1e-4
    )
    assert slope == pytest.approx(np.sum(result.adj_s_0 * direction), rel=1e-7)


def test_gradient_of_s_0_is_the_derivative(crystal_function, measured, rng):
    data, mask = measured
    model = model_of()
    s_0 = rng.uniform(0.2, 1, model.shape)
    result = evaluate(model, crystal_function, data, mask, None, None, s_0)
    direction = rng.normal(size=s_0.shape)
    slope = derivative(
        lambda d: evaluate(model, crystal_function, data, mask, None, None, s_0 + d).loss, direction, 1e-3
    )
    assert slope == pytest.approx(np.sum(result.adj_s_0 * direction), rel=1e-7)


@pytest.mark.parametrize("name", ("amplitude", "poisson"))
def test_flux_multiplies_the_frames(crystal_function, measured, rng, name):
    data, mask = measured
    model, flux = model_of(), rng.uniform(0.8, 1.2, FRAMES)
    D = model.intensities(crystal_function)
    np.testing.assert_allclose(
        model.intensities(crystal_function, [4, 1], flux=flux), flux[[4, 1], None, None] * D[[4, 1]], rtol=1e-14
    )
    options = {"likelihood": name, "flux": flux}
    loss_of = {"amplitude": amplitude_loss, "poisson": poisson_loss}[name]
    S = crystal_function + 0.5 * (crystal_function == 0)
    result = evaluate(model, S, data, mask, scale=None, **options)
    expected = loss_of(flux[:, None, None] * model.intensities(S), data, mask, None)[0]
    assert result.loss == pytest.approx(expected, rel=1e-12)
    direction = rng.normal(size=S.shape) + 1j * rng.normal(size=S.shape)
    slope = derivative(lambda d: evaluate(model, S + d, data, mask, scale=None, **options).loss, direction, 1e-5)
    assert slope == pytest.approx(np.sum(np.conj(result.adj_S) * direction).real, rel=1e-7)
    # the sums give every frame's own best scale: with it no frame's loss falls any further
    power = 2 if name == "amplitude" else 1
    own = (result.sums[0] / result.sums[1]) ** power
    single = evaluate(model, S, data, mask, [3], own[3], **options).loss
    assert single < min(evaluate(model, S, data, mask, [3], own[3] * f, **options).loss for f in (0.999, 1.001))
    with pytest.raises(ValueError, match="flux: expected relative intensities > 0, got 0"):
        model.intensities(S, flux=np.arange(FRAMES))
    with pytest.raises(ValueError, match=r"flux: expected shape \(n_frames,\) = \(7,\), got \(3,\)"):
        model.intensities(S, flux=np.ones(3))


def test_dq_replaces_that_of_the_experiment(crystal_function, measured):
    data, mask = measured
    turned = scan(rocking_angles=np.deg2rad(0.052) * np.arange(FRAMES))
    model, other = model_of(**SAMPLES), model_of(experiment=turned, **SAMPLES)  # else the angles matter beside dq
    dq = other.experiment.dq
    expected = evaluate(other, crystal_function, data, mask, [5, 2], None)
    result = evaluate(model, crystal_function, data, mask, [5, 2], None, dq=dq)
    assert result.loss == expected.loss and np.array_equal(result.adj_S, expected.adj_S)
    assert np.array_equal(model.intensities(crystal_function, dq=dq), other.intensities(crystal_function))
    with pytest.raises(ValueError, match="dq: expected shape"):
        evaluate(model, crystal_function, data, mask, dq=dq[:3])


@pytest.mark.parametrize("name", ("amplitude", "poisson"))
@pytest.mark.parametrize("shape", ("all", "frame"))
def test_held_out_pixels_are_not_seen_and_are_counted(crystal_function, measured, rng, monkeypatch, name, shape):
    data, mask = measured
    model = model_of()
    free = rng.uniform(size=data.shape if shape == "all" else data.shape[1:]) > 0.9
    S, options = crystal_function, {"likelihood": name}
    for scale in (1e5, None):
        seen = evaluate(model, S, data, mask & ~free, scale=scale, **options)
        result = evaluate(model, S, data, mask, scale=scale, free=free, **options)
        assert seen.free is None and result.loss == seen.loss and np.array_equal(result.adj_S, seen.adj_S)
        spoiled = np.where(mask & free, 7.0, data)
        assert np.array_equal(evaluate(model, S, spoiled, mask, scale=scale, free=free, **options).adj_S, seen.adj_S)
        # by hand: the held-out pixels alone
        out = mask & free
        D = result.scale * model.intensities(S)[out]
        counts = data[out]
        terms = (np.sqrt(D) - np.sqrt(counts)) ** 2
        llk = terms if name == "amplitude" else D - counts + counts * np.log(np.maximum(counts, 1e-300) / D)
        np.testing.assert_allclose(result.free, [terms.sum(), counts.sum(), llk.sum(), out.sum()], rtol=1e-10)
    monkeypatch.setattr(pendel.model.passes, "BLOCK_BYTES", 1)
    parts = evaluate(model, S, data, mask, scale=None, free=free, **options)
    np.testing.assert_allclose(parts.free, result.free, rtol=1e-10)
    np.testing.assert_allclose(parts.sums, result.sums, rtol=1e-10)
    data[tuple(np.argwhere(out)[0])] = np.nan
    with pytest.raises(ValueError, match="data: expected finite intensities >= 0 on good pixels, got 1 others"):
        evaluate(model, S, data, mask, free=free, **options)


def test_data_without_counts_and_dark_model_pixels(measured):
    model = model_of()
    data, mask = measured
    value, adj_S = model.loss_and_adjoint(np.zeros(model.shape, complex), data, mask)
    assert value == pytest.approx(np.mean([np.mean(d[m]) for d, m in zip(data, mask, strict=True)]))
    assert not adj_S.any()  # every pixel is dark: the guard gives no direction
    S = np.zeros(model.shape, complex)
    S[3, 4, 4] = 1
    _, adj_S = model.loss_and_adjoint(S, np.zeros_like(data), mask, scale=1e3)
    assert np.isfinite(adj_S).all() and adj_S[3, 4, 4].real > 0


def test_scale_misfit_and_numerators(crystal_function, measured):
    data, mask = measured
    model = model_of()
    result = evaluate(model, crystal_function, data, mask, scale=None)
    near = [evaluate(model, crystal_function, data, mask, scale=result.scale * f).loss for f in (0.999, 1, 1.001)]
    assert near[1] == pytest.approx(result.loss, rel=1e-12) and near[1] < min(near[0], near[2])
    assert result.misfit_denominator == pytest.approx(data[mask].sum())
    root = np.sqrt(result.scale * model.intensities(crystal_function))
    expected = np.sum((root - np.sqrt(data))[mask] ** 2)
    assert result.misfit_numerator == pytest.approx(expected, rel=1e-11)
    assert model.misfit(crystal_function, data, mask) == pytest.approx(expected / data[mask].sum(), rel=1e-11)
    D = model.intensities(crystal_function)
    assert model.misfit(crystal_function, 123 * D) < 1e-26  # rounding, squared
    assert evaluate(model, crystal_function, 123 * D, scale=None).scale == pytest.approx(123, rel=1e-12)


@pytest.mark.parametrize("options", ({}, {"likelihood": "poisson", "background": 1.5}), ids=("amplitude", "poisson"))
@pytest.mark.parametrize("scale", (1e5, None))
def test_blocks_change_memory_and_not_the_result(crystal_function, measured, monkeypatch, scale, options):
    data, mask = measured
    model = model_of()
    whole = evaluate(model, crystal_function, data, mask, scale=scale, **options)
    monkeypatch.setattr(pendel.model.passes, "BLOCK_BYTES", 1)
    assert len(model.passes.blocks(FRAMES)) == FRAMES
    parts = evaluate(model, crystal_function, data, mask, scale=scale, **options)
    assert_same(whole, parts)  # only the order of the sums over frames differs
    D = model.intensities(crystal_function)
    np.testing.assert_allclose(D, model_of().intensities(crystal_function), rtol=1e-11)


def test_stored_layers_change_memory_and_not_the_result(crystal_function, measured, monkeypatch):
    data, mask = measured
    plain, stored = model_of(), model_of(resync=2)
    assert plain.resync is None and stored.resync == 2
    assert_same(*(evaluate(m, crystal_function, data, mask, scale=1e5) for m in (plain, stored)))
    # what is stored counts where blocks of frames are made
    monkeypatch.setattr(pendel.model.passes, "BLOCK_BYTES", 1 << 17)
    assert len(stored.passes.blocks(1000)) > len(plain.passes.blocks(1000))


def test_same_bits_whatever_the_number_of_threads(crystal_function, measured):
    data, mask = measured
    results = [evaluate(model_of("complex64", threads=n), crystal_function, data, mask, scale=None) for n in (1, 3)]
    for a, b in zip(*results, strict=True):
        assert a is None or np.array_equal(a, b)


def test_single_precision_is_kept_and_close_to_double(crystal_function, measured):
    data, mask = measured
    single, double = model_of("complex64"), model_of("complex128")
    assert single.intensities(crystal_function).dtype == np.float32
    value, adj_S = single.loss_and_adjoint(crystal_function, data.astype(np.uint32), mask, scale=1e5)
    expected, adj_expected = double.loss_and_adjoint(crystal_function, data, mask, scale=1e5)
    assert adj_S.dtype == np.complex64
    # A few hundred single-precision operations per path, 6e-8 each; pixels near D = 0 amplify the gradient's.
    assert value == pytest.approx(expected, rel=1e-5)
    assert np.linalg.norm(adj_S - adj_expected) < 1e-4 * np.linalg.norm(adj_expected)


def test_support_limits_the_gradient(crystal_function, measured):
    data, mask = measured
    model = model_of()
    support = crystal_function != 0
    _, full = model.loss_and_adjoint(crystal_function, data, mask)
    _, limited = model.loss_and_adjoint(crystal_function, data, mask, support=support)
    assert not limited[~support].any()
    np.testing.assert_allclose(limited[support], full[support], rtol=1e-12)


def test_states_of_no_weight_are_skipped():
    assert len(model_of(polarization={"sigma": 1.0}).operators) == 1
    ((weight, op),) = model_of(polarization={"sigma": 0.0, "pi": 1.0}).operators
    assert weight == 1 and op.polarization_factor == pytest.approx(math.cos(op.two_theta))
    assert model_of().polarization == scan().polarization


def test_masked_pixels_may_hold_anything_and_good_ones_may_not(crystal_function, measured):
    data, mask = measured
    model = model_of()
    spoiled = np.where(mask, data, np.nan)
    assert np.array_equal(
        model.loss_and_adjoint(crystal_function, data, mask)[1],
        model.loss_and_adjoint(crystal_function, spoiled, mask)[1],
    )
    for scale in (1.0, None):
        with pytest.raises(ValueError, match="data: expected finite intensities >= 0 on good pixels, got"):
            model.loss_and_adjoint(crystal_function, spoiled, scale=scale)


@pytest.mark.filterwarnings("ignore:voxel")  # dy is reported too
def test_a_voxel_too_coarse_for_the_turned_detector_is_reported():
    exp = scan(detector_shape=(20, 20), centre=None)
    step = exp.field_of_view / 20
    with pytest.warns(UserWarning, match=r"voxel \(dx\): expected at most"):
        Model(exp, STRONG, (2, 3, 4), (step, step, step))
    with pytest.raises(ValueError, match=r"voxel \(dy\): expected a whole fraction of the field of view"):
        Model(exp, STRONG, (2, 3, 4), (step, 0.97 * step, step))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"polarization": {"sigma": 0.4, "pi": 0.4}}, ValueError, "polarization: expected fractions that sum to 1"),
        ({"polarization": {"s": 1.0}}, ValueError, "polarization: expected a dict"),
        ({"coupling": "both"}, ValueError, "coupling: expected one of 'dynamical', 'kinematic'"),
        ({"device": "gpu"}, ValueError, "device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"crystal": 3}, TypeError, "crystal: expected Crystal, got 3"),
    ),
)
def test_bad_model_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        model_of(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"data": np.zeros((FRAMES, 20, 20))}, ValueError, "data: expected shape"),
        ({"mask": np.ones((3, 20, 22), bool)}, ValueError, "mask: expected shape"),
        ({"frames": [FRAMES]}, ValueError, "frames: expected at least one index in"),
        ({"frames": []}, TypeError, "frames: expected a 1-D array of integers"),
        ({"frames": [True]}, TypeError, "frames: expected a 1-D array of integers"),
        ({"scale": -2.0}, ValueError, "scale: expected a finite number >= 0"),
        ({"S": np.ones((6, 8, 8))}, ValueError, "S: expected shape"),
    ),
)
def test_bad_evaluation_arguments(crystal_function, measured, changes, error, message):
    arguments = {"S": crystal_function, "data": measured[0], "mask": measured[1]} | changes
    with pytest.raises(error, match=message):
        model_of().loss_and_adjoint(**arguments)
