"""Polish: its amplitude terms, what it reaches from a start nearby, trimming, errors."""

import numpy as np
import pytest
from cube import QUIET, central
from pendel import photon_weight, polish
from pendel.fit.polishing import PolishRecipe
from pendel.fit.priors import Priors
from scipy import ndimage


@pytest.fixture(scope="module")
def near(gold_cube):
    """A start next to the truth: smooth errors of phase, rough ones of amplitude."""
    rng = np.random.default_rng(4)
    phase = ndimage.gaussian_filter(rng.normal(size=gold_cube.truth.shape), 3)
    S = gold_cube.truth * (0.9 + 0.05 * rng.normal(size=phase.shape)) * np.exp(0.15j * phase / phase.std())
    return S.astype(np.complex64)


TERMS = "amplitude_bound", "bound_weight", "bulk_amplitude", "bulk_weight"


@pytest.mark.parametrize("terms", ((1.0, 0.7, None, 0.0), (None, 0.0, 1.0, 0.6), (0.8, 2.0, 1.1, 3.0)))
def test_amplitude_terms_and_their_gradient(gold_cube, rng, terms):
    fit = gold_cube.model.fit(gold_cube.data())
    priors = Priors(PolishRecipe(**dict(zip(TERMS, terms, strict=True))), gold_cube.truth, gold_cube.tight, fit)
    n = int(gold_cube.tight.sum())
    assert 8 <= priors.bulk.sum() < n / 4
    c, direction = (rng.normal(size=n) + 1j * rng.normal(size=n) for _ in range(2))
    value, adj = priors.value(c)
    assert value > 0
    assert central(lambda h: priors.value(c + h * direction)[0], 1e-6) == pytest.approx(
        np.vdot(adj, direction).real, rel=1e-7
    )


def test_bulk_of_a_crystal_of_one_voxel(gold_cube):
    S = np.zeros((3, 3, 3), np.complex64)
    S[1, 1, 1] = 0.5
    priors = Priors(PolishRecipe(), S, S != 0, gold_cube.model.fit(gold_cube.data()))
    assert priors.value(np.array([0.5 + 0j]))[0] == pytest.approx(0.25)  # it is its own bulk
    assert not priors.value(np.zeros(1, complex))[1].any()


def test_polish_brings_a_near_start_to_the_truth(sampled_cube, near):
    data = sampled_cube.data(noise=None)
    options = {
        "start": near,
        "support": sampled_cube.tight,
        "rounds": 2,
        "iterations": (20, 60),
        "atv_weight": 1e-4,
        **QUIET,
    }
    result = polish(sampled_cube.model, data, **options)
    assert sampled_cube.error(near) > 0.1 and sampled_cube.error(result.S) < 0.01
    assert len(result.loss) == result.epochs == 160 and result.misfit < 1e-6
    assert result.support.sum() > sampled_cube.tight.sum() and not result.S[~result.support].any()
    assert np.abs(result.S).max() < 1.01
    again = polish(sampled_cube.model, data, **options)
    assert again.S.tobytes() == result.S.tobytes()


def test_bulk_amplitude_keeps_total_variation_from_shrinking_the_crystal(gold_cube, near):
    data = gold_cube.data(noise=None)
    options = {"support": gold_cube.tight, "rounds": 1, "iterations": (0, 60), "atv_weight": 0.1, **QUIET}
    held = polish(gold_cube.model, data, None, near, **options)
    inner = ndimage.binary_erosion(gold_cube.body > 0.99, iterations=2)
    assert np.abs(held.S[inner]).mean() == pytest.approx(1, abs=0.05)
    free = polish(gold_cube.model, data, None, near, bulk_amplitude=None, **options)
    assert np.abs(free.S[inner]).mean() < 0.8


def test_trimmed_pixels_are_those_missed(gold_cube):
    from pendel.fit.objective import Objective

    data = gold_cube.data(noise=None)
    data[3, 4, 5] += 100 * data.max()
    mask = np.ones(data.shape[1:], bool)
    mask[0] = False
    good = Objective(gold_cube.model.fit(data, mask)).trusted(gold_cube.truth, gold_cube.tight, 3.0)
    assert not good[3, 4, 5] and not good[:, 0].any() and good[:, 1:].sum() == good[:, 1:].size - 1


def test_polish_takes_a_result_and_a_callback_ends_it(gold_cube, near):
    data = gold_cube.data(noise=None)
    first = polish(gold_cube.model, data, None, near, gold_cube.tight, rounds=1, iterations=(0, 3), widen=0, **QUIET)
    np.testing.assert_array_equal(first.support, gold_cube.tight)
    seen = []

    def stop(done, S, history):
        seen.append((done, history["misfit"][-1]))
        return done == 2

    second = polish(gold_cube.model, data, None, first, rounds=3, trim=None, widen=0, callback=stop, **QUIET)
    assert [d for d, _ in seen] == [1, 2] and second.epochs == 2 and seen[0][1] < first.misfit


def test_photon_weight(gold_cube):
    data = gold_cube.data()
    weight = photon_weight(gold_cube.model, data, support=gold_cube.tight)
    assert weight == pytest.approx(np.sqrt(gold_cube.tight.sum() / (4 * data.sum())))
    assert photon_weight(gold_cube.model, 4 * data, support=gold_cube.tight) == pytest.approx(weight / 2)
    with pytest.raises(ValueError, match="data: expected some counts on good pixels, got none"):
        photon_weight(gold_cube.model, 0 * data)


@pytest.mark.parametrize(
    "change, error, message",
    (
        ({"iterations": 100}, TypeError, r"iterations: expected a pair \(without missed pixels, with all\), got 100"),
        ({"iterations": (5, 0)}, ValueError, r"iterations\[1\]: expected"),
        ({"rounds": 0}, ValueError, "rounds: expected"),
        ({"trim": 0}, ValueError, "trim: expected"),
        ({"bulk_amplitude": -1}, ValueError, "bulk_amplitude: expected"),
        ({"bound_weight": -1}, ValueError, "bound_weight: expected"),
        ({"flux": np.ones(3)}, ValueError, r"flux: expected shape \(n_frames,\)"),
    ),
)
def test_polish_refuses(gold_cube, change, error, message):
    with pytest.raises(error, match=message):
        polish(gold_cube.model, gold_cube.data(), None, gold_cube.truth, **change)
