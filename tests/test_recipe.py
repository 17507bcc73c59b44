"""Recipe options: what is minimised, held-out pixels, densities, phase only."""

import numpy as np
import pytest
from cube import FIXED, QUIET, SIZE, central, make_model, with_loss
from pendel import atv, io, lbfgs, reconstruct
from pendel.app import store
from pendel.fit.objective import DataRecipe, Objective, ObjectiveRecipe, measured
from pendel.model.passes import Pass
from scan import evaluate
from scipy import ndimage


@pytest.mark.parametrize("likelihood", ("amplitude", "poisson"))
@pytest.mark.parametrize("s_0", ("tied", "support", "free"))
def test_the_objective_is_loss_plus_total_variation_and_its_gradient_is_right(gold_cube, rough, rng, likelihood, s_0):
    model, data = make_model("complex128"), gold_cube.data()
    options = {"likelihood": likelihood, "background": 0.3 if likelihood == "poisson" else 0.0}
    recipe = ObjectiveRecipe(atv_weight=0.2, atv_p=1.5, atv_q=1.2, s_0=s_0, **options)
    objective = Objective.of(measured(model, data, None, recipe), recipe)
    density = {"tied": None, "support": gold_cube.tight.astype(float), "free": rng.uniform(0.3, 1, model.shape)}[s_0]
    given = density if s_0 == "free" else None
    now = objective.evaluate(rough, gold_cube.tight, s_0=given)
    plain = evaluate(model, rough, data, scale=None, s_0=density, **options).loss
    weight = 0.2 * np.mean(data)
    assert now.loss == pytest.approx(plain + atv(rough, weight, p=1.5, q=1.2, support=gold_cube.tight)[0], rel=1e-12)
    direction = np.where(gold_cube.tight, rng.normal(size=model.shape) + 1j * rng.normal(size=model.shape), 0)
    slope = central(lambda h: objective.evaluate(rough + h * direction, gold_cube.tight, s_0=given).loss, 1e-4)
    assert slope == pytest.approx(np.sum(np.conj(now.adj_S) * direction).real, rel=1e-7)
    if s_0 == "free":
        slope = central(lambda h: objective.evaluate(rough, gold_cube.tight, s_0=given + h * direction.real).loss, 1e-3)
        assert slope == pytest.approx(np.sum(now.adj_s_0 * direction.real), rel=1e-7)


def test_total_variation_smooths_and_its_weight_knows_no_exposure(sampled_cube):
    data = sampled_cube.data(photons=1e3)
    options = {"epochs": 60, "learning_rate": 0.1, "support": sampled_cube.tight, **FIXED}
    options |= {"free_fraction": 0.05}
    results = [reconstruct(sampled_cube.model, data, atv_weight=w, **options) for w in (0, 0.01, 0.1)]
    variation = [atv(r.S, support=sampled_cube.tight)[0] for r in results]
    assert variation[0] > 1.15 * variation[1] > 2 * variation[2]
    assert results[0].misfit < results[1].misfit < results[2].misfit
    # a hundredth of the intensity, and the noise is gone before the strain is; a tenth, and the strain goes
    error = [sampled_cube.error(r.S) for r in results]
    assert error[1] < 0.9 * error[0] and error[2] > error[0], error
    assert results[1].free_misfit < results[0].free_misfit
    few = options | {"epochs": 2, "free_fraction": 0.0}
    once = reconstruct(sampled_cube.model, data, atv_weight=0.1, **few)
    longer = reconstruct(sampled_cube.model, 16 * data, atv_weight=0.1, **few)
    # Adam's steps do not know the scale of the loss, and 16 is a power of 4: the square root is exact
    assert np.abs(longer.S - once.S).max() < 1e-5
    assert longer.loss == pytest.approx(16 * once.loss, rel=1e-5)


def test_poisson_likelihood_fits_counts_on_a_background(sampled_cube):
    rng = np.random.default_rng(8)
    data = sampled_cube.data(photons=2e3) + rng.poisson(0.5, (SIZE,) * 3)
    options = {"epochs": 60, "learning_rate": 0.1, "support": sampled_cube.tight, **FIXED}
    amplitude = reconstruct(sampled_cube.model, data, **options)
    poisson = reconstruct(sampled_cube.model, data, likelihood="poisson", background=0.5, **options)
    assert poisson.background == 0.5 and amplitude.background == 0
    # the background is half of all counts away from the peak; what knows it is nearer to the crystal
    assert sampled_cube.error(poisson.S) < 0.8 * sampled_cube.error(amplitude.S)
    truth = evaluate(sampled_cube.model, sampled_cube.truth, data, scale=None, likelihood="poisson", background=0.5)
    assert poisson.loss[-1] < truth.loss  # some 3000 unknowns bend towards the noise of 8000 pixels


def test_an_impossible_count_is_told(gold_cube):
    data = gold_cube.data(noise=None)
    start = np.zeros(gold_cube.model.shape, complex)
    with pytest.raises(ValueError, match="scale: expected computed intensity on good pixels"):
        reconstruct(gold_cube.model, data, None, start, gold_cube.tight, likelihood="poisson", **FIXED)

    model = with_loss(make_model(), np.inf)
    with pytest.raises(RuntimeError, match="became inf in epoch 1; try a smaller learning_rate or a background > 0"):
        reconstruct(model, data, support=gold_cube.tight, likelihood="poisson", **FIXED)


def test_held_out_pixels_tell_overfitting_and_cost_no_pass(gold_cube, monkeypatch):
    data = gold_cube.data(photons=300)
    mask = np.ones((SIZE, SIZE), bool)
    mask[4, 7] = False
    options = {"epochs": 30, "learning_rate": 0.1, "support": gold_cube.tight, **FIXED}
    passes = []
    sweep = Pass._sweep
    monkeypatch.setattr(Pass, "_sweep", lambda *args: passes.append(1) or sweep(*args))
    plain = reconstruct(gold_cube.model, data, mask, **options)
    count = len(passes)
    held = reconstruct(gold_cube.model, data, mask, free_fraction=0.1, **options)
    assert len(passes) == 2 * count and plain.free_misfit is None and "free_misfit" not in plain.history
    free = measured(gold_cube.model, data, mask, DataRecipe(free_fraction=0.1)).pixels.free
    assert free.sum() == pytest.approx(0.1 * data.size, rel=0.15) and not free[:, 4, 7].any()
    D = held.scale * gold_cube.model.intensities(held.S)[free]
    misfit = np.sum((np.sqrt(D) - np.sqrt(data[free])) ** 2)
    assert held.free_misfit == pytest.approx(misfit / data[free].sum(), rel=1e-4)  # single precision
    assert held.free_loss == pytest.approx(misfit / free.sum(), rel=1e-4)
    assert held.history["free_misfit"].shape == held.history["free_loss"].shape == (30,)
    assert held.history["free_loss"].min() < 0.9 * held.history["free_loss"][0]
    # the fit has bent towards the noise of the pixels it saw, not towards that of the others
    assert held.free_misfit > 1.5 * held.misfit
    spoiled = np.where(free, 7, data)
    assert reconstruct(gold_cube.model, spoiled, mask, free_fraction=0.1, **options).S.tobytes() == held.S.tobytes()
    other = reconstruct(gold_cube.model, data, mask, free_fraction=0.1, **options | {"seed": 1, "epochs": 1})
    assert other.free_misfit != held.free_misfit


def test_held_out_pixels_rank_supports(gold_cube):
    """A loose support fits noisy data better, and the pixels it has not seen worse: it is the worse crystal."""
    data = gold_cube.data(photons=300)
    options = {"epochs": 60, "learning_rate": 0.1, "free_fraction": 0.05, **FIXED}
    wide = ndimage.binary_dilation(gold_cube.tight, iterations=2)
    tight, loose = (reconstruct(gold_cube.model, data, support=s, **options) for s in (gold_cube.tight, wide))
    assert loose.misfit < 0.9 * tight.misfit and gold_cube.error(loose.S) > gold_cube.error(tight.S)
    assert loose.free_misfit > 1.3 * tight.free_misfit


def test_densities(gold_cube, tmp_path):
    data = gold_cube.data(noise=None)
    options = {"epochs": 12, "learning_rate": 0.2, "shrink_wrap_every": 4, "support": gold_cube.tight, **QUIET}
    tied = reconstruct(gold_cube.model, data, **options)
    assert tied.s_0 is None
    support = reconstruct(gold_cube.model, data, s_0="support", **options)
    assert np.array_equal(support.s_0, support.support) and support.s_0.dtype == np.float32
    free = reconstruct(gold_cube.model, data, s_0="free", amplitude_bound=0.7, **options)
    assert free.s_0.dtype == np.float32 and 0 <= free.s_0.min() and free.s_0.max() <= 0.7
    assert not free.s_0[~free.support].any() and np.abs(free.s_0 - np.abs(free.S))[free.support].max() > 0.1
    for result in (tied, support, free):
        again = gold_cube.model.misfit(result.S, data, s_0=result.s_0)
        assert result.misfit == pytest.approx(again, rel=1e-5)
        store.save_result(tmp_path / "r.cxi", gold_cube.model, data, None, result)
        stored = io.read_result(tmp_path / "r.cxi")
        same = stored.metadata.get("s_0")
        assert same is None if result.s_0 is None else np.array_equal(same, result.s_0)
        curve = result.scale * gold_cube.model.intensities(result.S, None, result.s_0).sum(axis=(1, 2), dtype=float)
        assert np.allclose(stored.rocking_modelled, curve, rtol=1e-5)


def test_only_the_phase_moves(gold_cube):
    data = gold_cube.data(noise=None)
    start = np.abs(gold_cube.truth).astype(np.complex64)
    options = {"epochs": 40, "learning_rate": 0.1, "shrink_wrap_every": 3, "recentre_every": 0, **QUIET}
    result = reconstruct(gold_cube.model, data, None, start, optimise="phase", **options)
    # 200 products with a rounded unit number
    assert np.abs(result.amplitude - np.abs(start)).max() < 1e-5 and np.array_equal(result.support, start != 0)
    assert gold_cube.error(result.S) < 0.03 and result.misfit < 1e-3 * result.history["misfit"][0]
    seen = {}
    first = reconstruct(
        gold_cube.model, data, None, start, phase_only_epochs=5, callback=lambda e, S, h: seen.update({e: S}), **options
    )
    change = [np.abs(np.abs(seen[e]) - np.abs(start)).max() for e in (5, 6)]
    assert change[0] < 1e-6 and change[1] > 1e-2 and np.array_equal(first.loss[:5], result.loss[:5])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"likelihood": "gauss"}, ValueError, "likelihood: expected one of 'amplitude', 'poisson'"),
        ({"background": -1.0}, ValueError, "background: expected a finite number >= 0, got -1"),
        (
            {"background": np.ones(3)},
            ValueError,
            r"background: expected a number or shape \(20,\), \(20, 20\), \(20, 2",
        ),
        ({"model_error": -1.0}, ValueError, "model_error: expected a finite number >= 0, got -1"),
        ({"s_0": "S"}, ValueError, "s_0: expected one of 'tied', 'support', 'free', got 'S'"),
        ({"optimise": "amplitude"}, ValueError, "optimise: expected one of 'S', 'phase', got 'amplitude'"),
        ({"atv_weight": -1}, ValueError, "atv_weight: expected a finite number >= 0, got -1"),
        ({"atv_p": 0.5}, ValueError, "atv_p: expected a finite number >= 1, got 0.5"),
        ({"atv_q": 0}, ValueError, "atv_q: expected a finite number > 0, got 0"),
        ({"free_fraction": 1}, ValueError, "free_fraction: expected a finite number >= 0 and < 1, got 1"),
        ({"amplitude_bound": 0}, ValueError, "amplitude_bound: expected"),
    ],
)
def test_bad_arguments_are_named_by_both(gold_cube, changes, error, message):
    for fit in (reconstruct, lbfgs):
        with pytest.raises(error, match=message):
            fit(gold_cube.model, gold_cube.data(), support=gold_cube.tight, **changes)


@pytest.mark.parametrize(
    ("fit", "changes", "message"),
    [
        (reconstruct, {"phase_only_epochs": -1}, "phase_only_epochs: expected an integer >= 0"),
        (reconstruct, {"angle_spread": 0}, "angle_spread: expected a finite number > 0"),
        (reconstruct, {"intensity_spread": -1}, "intensity_spread: expected a finite number > 0"),
        (reconstruct, {"refine_after": -1}, "refine_after: expected an integer >= 0"),
        (lbfgs, {"iterations": 0}, "iterations: expected an integer >= 1"),
        (lbfgs, {"memory": 0}, "memory: expected an integer >= 1"),
        (lbfgs, {"flux": np.ones(3)}, r"flux: expected shape \(n_frames,\)"),
        (lbfgs, {"angle_offsets": np.ones(3)}, r"angle_offsets: expected shape \(n_frames,\)"),
        (lbfgs, {"start": np.full((SIZE,) * 3, 1e-30)}, "finite|scale"),
    ],
)
def test_bad_arguments_are_named(gold_cube, fit, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(gold_cube.model, gold_cube.data(), support=gold_cube.tight, **changes)
