"""Smoothness and uniformity: their terms, the weights that data ask for, what they do for few photons."""

import numpy as np
import pytest
from cube import QUIET, central
from pendel import photon_weight, polish
from pendel.fit.evidence import Perfection
from scipy import fft, ndimage

F = 50.0  # of `pendel.fit.evidence`: information per voxel


def drawn(rng, shape, precision, kappa):
    """What a fit with the right prior makes of a random field of that prior, seen with noise of variance 1/F."""
    spread = np.divide(1, precision * kappa, out=np.zeros(shape), where=kappa > 0)
    modes = rng.normal(size=shape) * np.sqrt(spread) + rng.normal(size=shape) / np.sqrt(F)
    return fft.idctn(modes * F / (F + precision * kappa), norm="ortho")


def bends(shape):
    axes = [(2 - 2 * np.cos(np.pi * np.arange(n) / n)) ** 2 for n in shape]
    return axes[0][:, None, None] + axes[1][:, None] + axes[2]


@pytest.mark.parametrize("term", ("roughness", "unevenness", "haze"))
def test_terms_and_their_gradients(gold_cube, rng, term):
    function = getattr(Perfection(gold_cube.truth, gold_cube.tight, (1.0, 1.3, 0.8), 0.9), term)
    S, direction = (rng.normal(size=gold_cube.truth.shape + (2,)).view(complex)[..., 0] for _ in range(2))
    precision = rng.random(S.shape) if term == "roughness" else 0.7
    value, adj = function(S, precision)
    assert value > 0
    change = central(lambda h: function(S + h * direction, precision)[0], 1e-6)
    assert change == pytest.approx(np.vdot(adj, direction).real, rel=1e-6)
    # float32 against double
    single, adj_single = function(S.astype(np.complex64), precision)
    assert single == pytest.approx(value, rel=1e-5) and adj_single.dtype == np.complex64
    np.testing.assert_allclose(adj_single, adj, atol=1e-4 * np.abs(adj).max())


def test_roughness_counts_bends_and_no_slopes():
    z, y, x = np.indices((12, 10, 8))
    inside = np.ones(z.shape, bool)
    slope = np.exp(1j * (0.9 * x - 0.4 * y + 2.5 * z))  # wraps many times
    assert Perfection(slope, inside).roughness(slope)[0] < 1e-20
    bent = slope * np.exp(0.01j * x**2)
    expected = np.sin(0.01) * 2 * np.cos(0)  # T of a second difference of 0.02
    triples = 12 * 10 * 6
    R = Perfection(bent, inside).roughness(bent)[0]
    # the slope 0.9 + 0.02 x enters as sin(a) - sin(b) = 2 sin((a - b)/2) cos((a + b)/2)
    slopes = 0.9 + 0.02 * np.arange(1, 7)
    assert R == pytest.approx(triples / 6 * np.sum((expected * np.cos(slopes) / 1.01) ** 2), rel=1e-9)


def test_most_probable_precisions_are_those_drawn_from(rng):
    shape, inside = (30, 24, 28), np.ones((30, 24, 28), bool)
    counts = F * inside.sum() / 2
    for precision in (20.0, 2000.0):
        S = np.exp(1j * drawn(rng, shape, precision, bends(shape)))
        # few modes are determined: their number is known to 1/sqrt(half of it)
        found = Perfection(S, inside).most_probable(S, counts)[0]
        assert np.exp(np.log(found).mean()) == pytest.approx(precision, rel=0.3)
        S = 1 + 0j + drawn(rng, shape, precision, np.ones(shape))
        # ends of the box are not filled, and told by the fewer voxels
        assert Perfection(S, inside).most_probable(S, counts)[1].max() == pytest.approx(precision, rel=0.1)


def test_most_probable_of_what_does_not_deviate(gold_cube):
    body = gold_cube.tight.astype(complex)
    found, alpha = Perfection(body, gold_cube.tight).most_probable(body, 1e6)
    assert not found.any() and not alpha.any()
    thin = np.zeros((9, 9, 9), complex)
    thin[4, 4, 4] = 0.5
    found, alpha = Perfection(thin, thin != 0).most_probable(thin, 1e6)
    assert not found.any() and not alpha.any()


def test_rough_places_are_judged_for_themselves(rng):
    """A quarter is rougher: it is not ironed, and the others are as if it were not there."""
    inside = np.ones((24, 24, 64), bool)
    phase = [drawn(rng, (24, 24, n), precision, bends((24, 24, n))) for n, precision in ((16, 5.0), (48, 2000.0))]
    S = np.exp(1j * np.concatenate(phase, axis=2))
    found = Perfection(S, inside).most_probable(S, F * inside.sum() / 2)[0]
    alone = np.exp(1j * phase[1])
    smooth = Perfection(alone, inside[:, :, 16:]).most_probable(alone, F * inside[:, :, 16:].sum() / 2)[0]
    # what is usual has one precision
    usual = found[:, :, 32:]
    assert usual.min() == usual.max()
    assert usual.max() == pytest.approx(smooth.max(), rel=0.3)
    assert np.exp(np.log(found[:, :, 6]).mean()) < usual.max() / 10

    rough = Perfection(S, inside).exceptions(S)
    assert rough[:, :, :12].all() and not rough[:, :, 32:].any()
    strict, alpha = Perfection(0.9 * S, inside).most_probable(0.9 * S, F * inside.sum() / 2, granted=0.05)
    assert found[:, :, 6].mean() < strict[:, :, 6].mean() <= usual.max() * (1 + 1e-12)
    # nor is |S| told there
    filled = Perfection(0.9 * S, inside).filled
    assert not alpha[rough].any() and alpha[filled & ~rough].all()


def test_unseen_modes_learn_nothing(rng):
    """Of voxels half as wide as the data's resolution an eighth of the modes is seen, and has all of the counts."""
    shape, precision, information = (40, 40, 40), 500.0, 8 * F
    inside, kappa = np.ones(shape, bool), bends(shape)
    seen = np.zeros(shape, bool)
    seen[:21, :21, :21] = True
    spread = np.divide(1, precision * kappa, out=np.zeros(shape), where=kappa > 0)
    modes = rng.normal(size=shape) * np.sqrt(spread) + rng.normal(size=shape) / np.sqrt(information)
    phase = fft.idctn(np.where(seen, modes * information / (information + precision * kappa), 0), norm="ortho")
    S = np.exp(1j * phase)
    counts = F * inside.sum() / 2
    found = Perfection(S, inside, seen=(0.5, 0.5, 0.5)).most_probable(S, counts)[0].max()
    assert found == pytest.approx(precision, rel=0.3)
    # as if all were seen, the counts would be thinly spread, and each mode known worse
    assert Perfection(S, inside).most_probable(S, counts)[0].max() < 0.8 * found


def test_evidence_helps_few_photons(gold_cube):
    data = gold_cube.data(photons=300)
    weight = photon_weight(gold_cube.model, data, support=gold_cube.tight)
    options = {
        "start": gold_cube.truth,
        "support": gold_cube.tight,
        "iterations": (0, 30),
        "trim": None,
        "likelihood": "poisson",
        "background": 0.01,
        "bound_weight": 30.0,
        "bulk_weight": 100.0,
        "atv_weight": weight,
        **QUIET,
    }
    varied = polish(gold_cube.model, data, None, rounds=3, **options)
    even = polish(gold_cube.model, data, None, rounds=3, smoothness="evidence", uniformity="evidence", **options)
    inner = ndimage.binary_erosion(gold_cube.body > 0.999)

    def spread(S):
        return np.abs(S[inner]).std() / np.abs(S[inner]).mean()

    assert gold_cube.error(even.S) < 0.8 * gold_cube.error(varied.S)
    assert spread(even.S) < 0.8 * spread(varied.S)
    assert even.loss[-1] < even.loss[0]
    # a number is taken as it is
    stiff = polish(gold_cube.model, data, None, rounds=1, smoothness=1e5, **options)
    held = Perfection(gold_cube.truth, gold_cube.tight)  # the voxels that were solid where it began
    assert held.roughness(stiff.S)[0] < 0.3 * held.roughness(gold_cube.truth)[0]


def test_a_sharp_surface_keeps_noise_out_of_the_vacuum(gold_cube):
    """In a support wider than the crystal |S| beyond it falls, and the phases beneath the surface come nearer."""
    data = gold_cube.data(photons=1e5)
    wide = ndimage.binary_dilation(gold_cube.tight, iterations=2)
    start = np.where(wide, np.where(gold_cube.truth == 0, 0.01, gold_cube.truth), 0)
    options = {
        "start": start,
        "support": wide,
        "rounds": 2,
        "iterations": (0, 60),
        "trim": None,
        "widen": 0,
        "likelihood": "poisson",
        "background": 0.01,
        "bound_weight": 30.0,
        "bulk_weight": 100.0,
        "atv_weight": photon_weight(gold_cube.model, data, support=wide),
        "smoothness": "evidence",
        "uniformity": "evidence",
        **QUIET,
    }
    vacuum = wide & (np.abs(gold_cube.truth) == 0)
    hazy, clear = (polish(gold_cube.model, data, None, sharpness=sharp, **options) for sharp in (0.0, "evidence"))
    levels = [np.sqrt(np.mean(np.abs(found.S[vacuum]) ** 2)) for found in (hazy, clear)]
    assert levels[1] < 0.6 * levels[0]
    assert gold_cube.error(clear.S) < gold_cube.error(hazy.S)


def test_haze_costs_nothing_full_or_empty(gold_cube):
    body = 0.9 * gold_cube.tight.astype(complex)
    V, adj = Perfection(body, gold_cube.tight, bulk=0.9).haze(body, 3.0)
    assert V == pytest.approx(0, abs=1e-12)
    # from 0 a voxel pays the slope, as far as it goes
    S = body.copy()
    S[0, 0, 0] = 1e-6j
    assert Perfection(body, gold_cube.tight, bulk=0.9).haze(S, 3.0)[0] == pytest.approx(3.0 * 1e-6 / 0.9, rel=1e-5)
    assert np.count_nonzero(adj[~gold_cube.tight]) == 0
    assert Perfection(body, gold_cube.tight).clearing(0.0) == 0


@pytest.mark.parametrize("name", ("smoothness", "uniformity", "sharpness"))
def test_refused(gold_cube, name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        polish(gold_cube.model, gold_cube.data(), None, gold_cube.truth, **{name: -1})
    with pytest.raises(TypeError, match=f"{name}: expected"):
        polish(gold_cube.model, gold_cube.data(), None, gold_cube.truth, **{name: "much"})
