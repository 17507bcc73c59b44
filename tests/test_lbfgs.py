"""L-BFGS: its variables, that it falls, keeps its bounds and what it is given, and goes on where it was ended."""

import numpy as np
import pytest
from cube import FIXED, QUIET, SIZE, central
from pendel import lbfgs, polish, reconstruct
from pendel.fit.polishing import begins_with
from pendel.fit.quasi_newton import LbfgsRecipe, Polar


def test_variables_of_lbfgs_and_their_adjoint(gold_cube, rough, rng):
    def noise():
        return rng.normal(size=rough.shape)

    adj_S, adj_s_0 = noise() + 1j * noise(), noise()
    for phase_only, free in ((False, False), (False, True), (True, False), (True, True)):
        recipe = LbfgsRecipe(optimise="phase" if phase_only else "S", amplitude_bound=0.8)
        variables = Polar(rough, gold_cube.tight, recipe, free)
        x = variables.start()
        np.testing.assert_allclose(variables.S(x), rough, atol=1e-15)
        assert len(x) == gold_cube.tight.sum() * (1 if phase_only else 2 + free)
        direction = rng.normal(size=len(x))
        x = x + 0.3 * rng.normal(size=len(x))  # some amplitudes are negative now

        def linear(h, variables=variables, x=x, direction=direction, free=free):
            S, s_0 = (f(x + h * direction) for f in (variables.S, variables.s_0))
            return np.sum(np.conj(adj_S) * S).real + (np.sum(adj_s_0 * s_0) if free else 0)

        assert central(linear, 1e-3) == pytest.approx(
            variables.adjoint(x, adj_S[gold_cube.tight], adj_s_0) @ direction, rel=1e-7
        )
        low, high = variables.bounds.lb, variables.bounds.ub
        unbound = Polar(rough, gold_cube.tight, recipe.but(amplitude_bound=None), free)
        assert len(low) == len(high) == len(x) and (unbound.bounds.ub == np.inf).all()


@pytest.mark.parametrize("s_0", ("tied", "support", "free"))
def test_lbfgs_falls_and_keeps_the_bound(sampled_cube, s_0):
    data = sampled_cube.data(noise=None)
    options = {"support": sampled_cube.tight, "iterations": 40, "s_0": s_0, **QUIET}
    result = lbfgs(sampled_cube.model, data, **options)
    assert result.epochs == len(result.loss) == 40 and (np.diff(result.loss) < 0).all()
    assert (
        result.misfit
        < 1e-3 * reconstruct(sampled_cube.model, data, support=sampled_cube.tight, epochs=1, **FIXED).misfit
    )
    assert result.misfit == pytest.approx(result.history["misfit"][-1], rel=1e-3)
    tight = lbfgs(sampled_cube.model, data, amplitude_bound=0.4, **options)
    assert tight.amplitude.max() <= 0.4 * (1 + 3e-7) and (tight.amplitude > 0.399).sum() > 10
    assert not result.S[~sampled_cube.tight].any() and same_bits(result, lbfgs(sampled_cube.model, data, **options))
    assert (result.s_0 is None) == (s_0 == "tied")
    if s_0 == "free":
        assert 0 <= tight.s_0.min() and tight.s_0.max() <= 0.4 * (1 + 3e-7)


def same_bits(a, b):
    return a.S.tobytes() == b.S.tobytes() and all(np.array_equal(a.history[k], b.history[k]) for k in a.history)


def test_lbfgs_polishes_and_keeps_what_it_is_given(gold_cube, rng):
    flux = rng.uniform(0.9, 1.1, SIZE)
    data = gold_cube.data(flux=flux)
    start = reconstruct(gold_cube.model, data, support=gold_cube.tight, epochs=20, **FIXED).S
    given = {"start": start, "support": gold_cube.tight, "iterations": 20, **QUIET}
    plain = lbfgs(gold_cube.model, data, **given)
    known = lbfgs(gold_cube.model, data, flux=flux, free_fraction=0.05, **given)
    assert known.misfit < 0.9 * plain.misfit and np.array_equal(known.flux, flux)
    assert set(known.history) == {"loss", "misfit", "scale", "support", "free_misfit", "free_loss"}
    counts = lbfgs(gold_cube.model, data, likelihood="poisson", background=0.01, atv_weight=1e-3, **given)
    assert (np.diff(counts.loss) < 0).all()
    phase = lbfgs(gold_cube.model, data, optimise="phase", s_0="free", **given)
    assert np.abs(phase.amplitude - np.abs(start)).max() < 1e-6 and phase.misfit < phase.history["misfit"][0]


def test_lbfgs_can_be_ended_and_shows_its_progress(gold_cube, capsys):
    data = gold_cube.data()
    seen = []
    result = lbfgs(
        gold_cube.model,
        data,
        support=gold_cube.tight,
        callback=lambda n, S, h: seen.append((n, len(h["loss"]))) or n == 3,
    )
    assert seen == [(1, 1), (2, 2), (3, 3)] and result.epochs == 3
    assert result.misfit == pytest.approx(result.history["misfit"][-1], rel=1e-5)
    lbfgs(gold_cube.model, data, support=gold_cube.tight, iterations=2)
    assert "lbfgs: iteration 2/2 loss=" in capsys.readouterr().err


def test_restarts_keep_what_is_found_and_cost_little(sampled_cube):
    data = sampled_cube.data(noise=None)
    options = {"support": sampled_cube.tight, "s_0": "free", **QUIET}
    once = lbfgs(sampled_cube.model, data, iterations=60, restart_every=None, **options)
    again = lbfgs(sampled_cube.model, data, iterations=60, restart_every=20, **options)
    assert again.epochs == once.epochs == len(again.loss) == 60 and (np.diff(again.loss) < 0).all()
    assert np.array_equal(again.loss[:20], once.loss[:20]) and again.loss[20] != once.loss[20]
    # s_0 is not |S| between runs: it goes on where it was
    first = lbfgs(sampled_cube.model, data, iterations=20, **options)
    assert np.abs(first.s_0 - first.amplitude).max() > 0.01 and again.loss[20] < first.loss[-1]
    assert again.misfit < 0.3 * first.misfit


WAYS = {
    "lbfgs": (lbfgs, {"iterations": 12, "restart_every": 5}),
    "phase": (lbfgs, {"iterations": 12, "restart_every": 5, "optimise": "phase"}),
    "density": (lbfgs, {"iterations": 12, "restart_every": 5, "s_0": "free"}),
    "beamline": (lbfgs, {"iterations": 12, "restart_every": 5, "likelihood": "poisson", "background": 0.01,
                         "refine_angles": True, "refine_intensities": True, "refine_background": True}),
    "polish": (polish, {"rounds": 2, "iterations": (5, 7)}),
    "refined": (polish, {"rounds": 2, "iterations": (5, 7), "likelihood": "poisson", "background": 0.01,
                         "refine_angles": True, "refine_intensities": True}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ended", (3, 5, 9, 11))
def test_a_fit_that_is_ended_goes_on_to_the_same_bits(gold_cube, tmp_path, way, ended):
    """Wherever it ends: what was done since the last checkpoint is done again, what was done before is not."""
    fit, options = WAYS[way]
    data = gold_cube.data()
    given = {"start": 0.5 * gold_cube.tight + 0j, "support": gold_cube.tight, **QUIET, **options}
    whole = fit(gold_cube.model, data, **given)

    def interrupted(iteration, *_):
        if iteration == ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(gold_cube.model, data, checkpoint=tmp_path / "c.h5", callback=interrupted, **given)
    seen = []
    given |= {"checkpoint": tmp_path / "c.h5", "resume": True}
    resumed = fit(gold_cube.model, data, callback=lambda iteration, *_: seen.append(iteration), **given)
    assert seen[0] == 1 + max(n for n in (0, 5, 10 if fit is lbfgs else 12) if n < ended)
    assert same_bits(resumed, whole) and resumed.misfit == whole.misfit and resumed.scale == whole.scale
    for name in ("s_0", "angle_offsets", "flux", "background_level"):
        one, other = getattr(resumed, name), getattr(whole, name)
        assert one is other is None or one.tobytes() == other.tobytes(), name
    again = fit(gold_cube.model, data, callback=lambda *_: 1 / 0, **given)  # nothing is left to be done
    assert same_bits(again, whole) and sorted(path.name for path in tmp_path.iterdir()) == ["c.h5"]


OTHERS = {
    "start": {"start": 0.4},
    "support": {"support": True},
    "data": {"data": 2},
    "restart_every": {"restart_every": 4},
    r"start \(flux\)": {"flux": np.full(SIZE, 1.1)},
    "background": {"background": 0.5},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_fit_is_refused_by_what_differs(gold_cube, tmp_path, name):
    given = {"data": gold_cube.data(), "start": 0.5 * gold_cube.tight + 0j, "support": gold_cube.tight}
    given |= {"iterations": 6, "restart_every": 3, "checkpoint": tmp_path / "c.h5", **QUIET}
    lbfgs(gold_cube.model, **given)
    other = dict(OTHERS[name])
    if "start" in other:
        other["start"] = other["start"] * gold_cube.tight + 0j
    if "support" in other:
        other["support"] = np.ones_like(gold_cube.tight)
    if "data" in other:
        other["data"] = 2 * given["data"]
    with pytest.raises(ValueError, match=f"^{name}: expected .*that of the checkpoint"):
        lbfgs(gold_cube.model, resume=True, **given | other)
    with pytest.raises(ValueError, match="^checkpoint: expected a checkpoint of pendel.polish, got .* pendel.lbfgs"):
        polish(gold_cube.model, given["data"], checkpoint=tmp_path / "c.h5", resume=True, **QUIET)
    with pytest.raises(ValueError, match="^resume: expected a checkpoint path"):
        lbfgs(gold_cube.model, given["data"], resume=True)


def test_a_polish_goes_on_only_from_the_crystal_it_began_with(gold_cube, tmp_path):
    data, path = gold_cube.data(), tmp_path / "c.h5"
    S = (0.5 * gold_cube.tight).astype(gold_cube.model.dtype)
    assert not begins_with(path, S)
    polish(gold_cube.model, data, start=S, checkpoint=path, rounds=1, iterations=(0, 1), **QUIET)
    assert begins_with(path, S) and not begins_with(path, 0.9 * S)
