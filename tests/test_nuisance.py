"""What the beamline adds to the model: blur, partial coherence, background, weights, flux, and their gradients."""

import numpy as np
import pendel.model.passes
import pytest
from pendel import Coherence, Nuisance
from pendel.model import loss
from pendel.model.pixels import error_weights
from scan import FRAMES, SHAPE, evaluate, make_crystal, make_data, make_model

BEAM = {"point_spread": (0.7, 0.4), "coherence": Coherence(40e-9, 60e-9, 1e-3, modes=3)}
ALL = ("flux", "background", "blur", "coherence")
LIKELIHOODS = ("amplitude", "poisson")


def central(function, h):
    """Central difference at 0, extrapolated once."""
    return (8 * (function(h / 2) - function(-h / 2)) - (function(h) - function(-h))) / (6 * h)


@pytest.fixture
def problem(rng):
    """A crystal without zeros, counts of another one beside a background, a mask, weights, flux, and a background."""
    S = make_crystal(rng)
    S += 0.5 * (S == 0)
    background = rng.uniform(0.5, 3, size=(FRAMES, 14, 16))
    data = make_data(rng) + rng.poisson(background)
    return {
        "S": S,
        "data": data,
        "mask": rng.uniform(size=data.shape) > 0.2,
        "weights": rng.uniform(0.1, 1, size=data.shape),
        "background": background,
        "flux": rng.uniform(0.8, 1.2, FRAMES),
    }


def test_three_settings_of_a_beam_are_three_models(rng):
    S, beam = make_crystal(rng), Coherence(bandwidth=1e-3, modes=3)
    model, coherent = make_model(coherence=beam), make_model()
    shifts, weights = beam.settings(model.experiment, 1.0)
    assert len(model.operators) == 2 and len(model.passes.beam.operators) == 6
    expected = sum(
        w * coherent.intensities(S, dq=coherent.experiment.dq + s) for w, s in zip(weights, shifts, strict=True)
    )
    np.testing.assert_allclose(model.intensities(S), expected, rtol=1e-12, atol=1e-12 * expected.max())


@pytest.mark.parametrize("modes", (1, 2))
def test_coherence_may_be_replaced(rng, problem, modes):
    S, beam, other = problem["S"], Coherence(50e-9, 80e-9, 5e-4, modes), Coherence(90e-9, 40e-9, 1e-3, 3)
    model = make_model(coherence=other, point_spread=0.4)
    wanted = make_model(coherence=beam, point_spread=0.4).intensities(S)
    found = model.intensities(S, coherence=beam)
    np.testing.assert_array_equal(found, wanted)
    fit = model.fit(problem["data"], background=0.3)
    wider = Nuisance(None, (0.6, 0.6), ("coherence",), beam)
    wanted = make_model(coherence=beam, point_spread=0.6)
    wanted = wanted.evaluate(
        S, wanted.fit(problem["data"], background=0.3), nuisance=Nuisance(gradients=("coherence",))
    )
    found = model.evaluate(S, fit, nuisance=wider)
    assert found.loss == wanted.loss and np.array_equal(found.adj_coherence, wanted.adj_coherence)
    with pytest.raises(TypeError, match="coherence: expected a Coherence or None, got 3"):
        model.intensities(S, coherence=3)
    with pytest.raises(TypeError, match="coherence: expected a Coherence or None, got 3"):
        model.evaluate(S, fit, nuisance=Nuisance(coherence=3))


def test_point_spread_is_behind_flux_and_may_be_replaced(rng, problem):
    S, flux = problem["S"], problem["flux"]
    model, sharp = make_model(point_spread=0.6), make_model()
    assert model.point_spread == (0.6, 0.6) and sharp.point_spread == (0.0, 0.0)
    D = model.intensities(S, [4, 1], flux=flux)
    wanted = model.passes.beam.blur.forward(sharp.intensities(S, [4, 1], flux=flux))
    np.testing.assert_allclose(D, wanted, rtol=1e-13)
    np.testing.assert_allclose(sharp.intensities(S, [4, 1], flux=flux, point_spread=0.6), D, rtol=1e-13)
    for value, message in (
        (-1, "point_spread: expected"),
        ((1, 2, 3), r"point_spread: expected a number or \(row, col\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make_model(point_spread=value)
    with pytest.raises(TypeError, match="coherence: expected a Coherence or None, got 3"):
        make_model(coherence=3)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("scale", (1e5, None))
def test_gradients_of_everything_are_the_derivatives(rng, problem, name, scale):
    model, frames, S = make_model(**BEAM), [5, 0, 3], problem["S"]
    fit = model.fit(
        problem["data"], problem["mask"], likelihood=name, background=problem["background"], weights=problem["weights"]
    )
    s_0, levels = rng.uniform(0.2, 1, SHAPE), rng.uniform(0.5, 1.5, FRAMES)
    at = {"S": S, "s_0": s_0, "dq": model.experiment.dq, "flux": problem["flux"], "background": levels}
    at["squares"] = np.square(model.point_spread)
    at["coherence"] = model.coherence.squares

    def evaluated(**change):
        now = {key: value + change.get(key, 0) for key, value in at.items()}
        beam = Coherence.of_squares(now["coherence"], model.coherence.modes)
        nuisance = Nuisance(now["background"], tuple(np.sqrt(now["squares"])), ALL, beam)
        options = {"dq": now["dq"], "flux": now["flux"], "nuisance": nuisance}
        return model.evaluate(now["S"], fit, frames, scale, now["s_0"], **options)

    result = evaluated()
    some = np.zeros(FRAMES)
    some[frames] = rng.normal(size=3)
    directions = {
        "S": (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE), 1e-5),
        "s_0": (rng.normal(size=SHAPE), 1e-4),
        "dq": (some[:, None] * rng.normal(size=(FRAMES, 3)) * 1e5, 1.0),
        "flux": (some, 1e-3),
        "background": (some, 1e-2),
        "squares": (rng.normal(size=2), 1e-3),
        "coherence": (rng.normal(size=3) * at["coherence"], 1e-3),
    }
    slopes = {
        "S": np.sum(np.conj(result.adj_S) * directions["S"][0]).real,
        "s_0": np.sum(result.adj_s_0 * directions["s_0"][0]),
        "dq": np.sum(result.adj_dq * directions["dq"][0][frames]),
        "flux": result.adj_flux @ some[frames],
        "background": result.adj_background @ some[frames],
        "squares": result.adj_blur @ directions["squares"][0],
        "coherence": result.adj_coherence @ directions["coherence"][0],
    }
    for key, (direction, h) in directions.items():
        found = central(lambda s, key=key, direction=direction: evaluated(**{key: s * direction}).loss, h)
        # rounding of the loss, 1e-16 of it over the step
        assert found == pytest.approx(slopes[key], rel=1e-6), key
        left = [abs(evaluated(**{key: s * h * direction}).loss - result.loss - s * h * slopes[key]) for s in (40, 4)]
        assert np.log10(left[0] / left[1]) == pytest.approx(2, abs=0.15), key


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_are_given_only_where_asked_for_and_change_nothing(problem, name):
    model = make_model(**BEAM)
    fit = model.fit(problem["data"], problem["mask"], likelihood=name, background=0.5)
    plain = model.evaluate(problem["S"], fit, None, None)
    assert plain.adj_flux is plain.adj_background is plain.adj_blur is plain.adj_coherence is None
    asked = model.evaluate(problem["S"], fit, None, None, nuisance=Nuisance(gradients=ALL))
    assert asked.adj_flux.shape == asked.adj_background.shape == (FRAMES,) and asked.adj_blur.shape == (2,)
    assert asked.adj_coherence.shape == (3,)
    for a, b in zip(plain[:9], asked[:9], strict=True):
        assert a is None or np.array_equal(a, b)
    for one in ALL:
        alone = model.evaluate(problem["S"], fit, None, None, nuisance=Nuisance(gradients=(one,)))
        assert np.array_equal(getattr(alone, f"adj_{one}"), getattr(asked, f"adj_{one}"))
        assert sum(getattr(alone, f"adj_{other}") is None for other in ALL) == 3
    with pytest.raises(
        ValueError, match="gradients: expected one of 'flux', 'background', 'blur', 'coherence', got 'phase'"
    ):
        model.evaluate(problem["S"], fit, nuisance=Nuisance(gradients=("phase",)))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_backgrounds_of_every_shape_are_the_same_where_their_values_are(problem, name):
    model, levels = make_model(), np.linspace(0.5, 2, FRAMES)
    shapes = {
        "number": (0.8, 0.8),
        "frames": (levels, levels[:, None, None]),
        "pixels": (problem["background"][0], problem["background"][0]),
        "all": (problem["background"], problem["background"]),
    }
    for background, values in shapes.values():
        full = np.broadcast_to(values, problem["data"].shape).copy()
        for frames in (None, [6, 2]):
            found, wanted = (
                evaluate(
                    model, problem["S"], problem["data"], problem["mask"], frames, None, likelihood=name, background=b
                )
                for b in (background, full)
            )
            assert found.scale == pytest.approx(wanted.scale, rel=1e-13)
            assert found.loss == pytest.approx(wanted.loss, rel=1e-12)
            np.testing.assert_allclose(found.adj_S, wanted.adj_S, rtol=1e-9, atol=1e-12 * np.abs(wanted.adj_S).max())
    # and counts more in every pixel are such
    fit, more = model.fit(problem["data"], likelihood=name, background=0.3), Nuisance(background=np.full(FRAMES, 0.5))
    found = model.evaluate(problem["S"], fit, None, None, nuisance=more)
    wanted = evaluate(model, problem["S"], problem["data"], scale=None, likelihood=name, background=0.8)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-13) and found.scale == pytest.approx(wanted.scale, rel=1e-13)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_loss_beside_a_background_is_its_definition_and_best_at_the_scale_found(problem, name):
    model, b, w = make_model(), problem["background"], problem["weights"]
    options = {"likelihood": name, "background": b, "weights": w}
    result = evaluate(model, problem["S"], problem["data"], problem["mask"], None, None, **options)
    D, data = model.intensities(problem["S"]), problem["data"]
    total = 0.0
    for j, good in enumerate(problem["mask"]):
        rate, counts = (result.scale * D[j] + b[j])[good], data[j][good].astype(float)
        terms = (np.sqrt(rate) - np.sqrt(counts)) ** 2
        if name == "poisson":
            terms = rate - counts + counts * np.log(np.maximum(counts, 1e-300) / rate)
        total += np.sum(w[j][good] * terms) / good.sum() / FRAMES
    assert result.loss == pytest.approx(total, rel=1e-12)
    misfit = np.sum((np.sqrt(result.scale * D + b) - np.sqrt(data))[problem["mask"]] ** 2)
    assert result.misfit_numerator == pytest.approx(misfit, rel=1e-12)  # without weights
    for factor in (0.999, 1.001):
        at = result.scale * factor
        assert evaluate(model, problem["S"], data, problem["mask"], None, at, **options).loss > result.loss
    perfect = evaluate(model, problem["S"], 123 * D + b, None, None, None, **options)
    assert perfect.scale == pytest.approx(123, rel=1e-9) and perfect.loss < 1e-15  # rounding
    both = {"amplitude": loss.amplitude_loss, "poisson": loss.poisson_loss}[name]
    assert both(D, data, problem["mask"], None, b, w)[0] == pytest.approx(result.loss, rel=1e-13)


def test_weights_of_one_change_nothing_and_small_ones_leave_a_pixel_out(problem):
    model, S, data = make_model(), problem["S"], problem["data"]
    for name in LIKELIHOODS:
        plain = evaluate(model, S, data, scale=None, likelihood=name)
        ones = evaluate(model, S, data, scale=None, likelihood=name, weights=np.ones(data.shape[1:]))
        assert ones.loss == plain.loss and np.array_equal(ones.adj_S, plain.adj_S)
        left_out = np.where(problem["mask"], 1.0, 1e-300)
        found = evaluate(model, S, data, scale=None, likelihood=name, weights=left_out)
        wanted = evaluate(model, S, data, problem["mask"], scale=None, likelihood=name)
        # the scale knows each frame's number of pixels
        pixels = problem["mask"].sum(axis=(1, 2)) / problem["mask"][0].size
        at = evaluate(model, S, data, problem["mask"], scale=found.scale, likelihood=name)
        one = evaluate(model, S, data, problem["mask"], [2], found.scale, likelihood=name)
        two = evaluate(model, S, data, None, [2], found.scale, likelihood=name, weights=left_out)
        assert two.loss == pytest.approx(one.loss * pixels[2], rel=1e-13)
        assert found.scale == pytest.approx(wanted.scale, rel=1e-2) and at.misfit_numerator < found.misfit_numerator


def test_weights_for_a_model_that_is_wrong_by_a_part(rng):
    flat = np.full((4, 5, 6), 200.0)
    np.testing.assert_allclose(error_weights(flat, 0.1), 1 / (1 + 0.01 * 200))
    assert (error_weights(flat, 0.0) == 1).all()
    flat[2, 2, 3] = 1e6  # bad
    good = flat < 1e3
    np.testing.assert_allclose(error_weights(flat, 0.1, good), 1 / 3, rtol=1e-6)
    peak = np.zeros((5, 5, 5))
    peak[2, 2, 2] = 27e4
    w = error_weights(peak, 0.01)
    assert w[1, 1, 1] == w[2, 2, 2] == pytest.approx(1 / 2) and w[0, 2, 2] == 1
    with pytest.raises(ValueError, match="error: expected finite numbers >= 0"):
        error_weights(flat, -1)


def test_terms_of_a_wrong_model_count_as_much_as_their_variance_says(rng):
    """A model wrong by 10 %: with weights the mean term is what photons alone make of it, however bright the pixel."""
    rate = np.geomspace(1, 1e5, 40)[:, None, None] * np.ones((1, 30, 30))
    wrong = rate * np.exp(0.1 * rng.normal(size=rate.shape))
    data = rng.poisson(wrong).astype(float)
    weights = 1 / (1 + 0.01 * rate)
    for name, expected in (("amplitude", 0.25), ("poisson", 0.5)):
        both = {"amplitude": loss.amplitude_loss, "poisson": loss.poisson_loss}[name]
        terms = [both(rate[j : j + 1], data[j : j + 1], weights=weights[j : j + 1])[0] for j in range(40)]
        np.testing.assert_allclose(terms[5:], expected, rtol=0.2)  # 900 pixels: 5 % rms
        assert both(rate[-1:], data[-1:])[0] > 100


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_grouping_and_threads_change_nothing(problem, monkeypatch, name):
    options = {"likelihood": name, "background": problem["background"], "weights": problem["weights"]}
    options |= {"flux": problem["flux"], "nuisance": Nuisance(np.ones(FRAMES), None, ALL), "free": ~problem["mask"]}
    given = problem["S"], problem["data"], None, None, None
    whole = evaluate(make_model(**BEAM), *given, **options)
    threaded = evaluate(make_model(**BEAM, threads=3), *given, **options)
    monkeypatch.setattr(pendel.model.passes, "BLOCK_BYTES", 1)
    parts = evaluate(make_model(**BEAM), *given, **options)
    for a, b, c in zip(whole, parts, threaded, strict=True):
        assert (a is None) == (b is None) and (a is None or np.array_equal(a, c))
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * np.abs(a).max())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_single_precision_is_close_to_double(problem, name):
    options = {"likelihood": name, "background": problem["background"], "weights": problem["weights"]}
    options |= {"flux": problem["flux"], "nuisance": Nuisance(np.ones(FRAMES), None, ALL)}
    single, double = (
        evaluate(make_model(dtype, **BEAM), problem["S"], problem["data"], problem["mask"], None, None, **options)
        for dtype in ("complex64", "complex128")
    )
    assert single.loss == pytest.approx(double.loss, rel=1e-5) and single.scale == pytest.approx(double.scale, rel=1e-5)
    for field in ("adj_S", "adj_dq", "adj_flux", "adj_background", "adj_blur", "adj_coherence"):
        a, b = getattr(single, field), getattr(double, field)
        # as for the gradient without all this: some hundred operations of 6e-8 in a row
        assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b), field


def test_a_background_that_explains_all_counts_is_refused(problem):
    model = make_model()
    for name in LIKELIHOODS:
        with pytest.raises(ValueError, match="background: expected less than the measured counts, got 5"):
            evaluate(model, problem["S"], 0 * problem["data"] + 1, None, None, None, likelihood=name, background=5.0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"background": -1.0}, ValueError, "background: expected a finite number >= 0, got -1"),
        (
            {"background": np.ones(3)},
            ValueError,
            r"background: expected a number or shape \(8,\), \(14, 16\), \(8, 14, 1",
        ),
        ({"background": -np.ones(FRAMES)}, ValueError, "background: expected finite counts >= 0"),
        ({"background": np.ones(FRAMES, complex)}, TypeError, "background: expected an array of real numbers"),
        ({"weights": np.ones(FRAMES)}, ValueError, r"weights: expected shape \(8, 14, 16\) or \(14, 16\), got \(8,\)"),
        ({"weights": np.zeros((14, 16))}, ValueError, "weights: expected numbers > 0 and <= 1, got 0 to 0"),
        ({"weights": np.ones((14, 16), int)}, TypeError, "weights: expected an array of real numbers, got dtype int"),
        ({"nuisance": Nuisance(np.ones(3))}, ValueError, r"background: expected shape \(n_frames,\)"),
        ({"nuisance": Nuisance(-np.ones(FRAMES))}, ValueError, "background: expected counts >= 0, got -1"),
        ({"nuisance": Nuisance(None, (-1, 0))}, ValueError, r"point_spread\[0\]: expected"),
    ),
)
def test_bad_arguments(problem, changes, error, message):
    with pytest.raises(error, match=message):
        evaluate(make_model(), problem["S"], problem["data"], **changes)
