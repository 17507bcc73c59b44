"""Total variation: its definition, its gradient, and where it does and does not pull."""

import numpy as np
import pytest
from pendel import atv
from pendel.fit import total_variation

EXPONENTS = [(2, 1), (1, 1), (2, 2), (1.5, 0.7), (3, 1), (4, 3)]


@pytest.fixture
def S(rng):
    return rng.normal(size=(4, 5, 6)) + 1j * rng.normal(size=(4, 5, 6))


@pytest.fixture
def support(rng):
    return rng.uniform(size=(4, 5, 6)) > 0.3


def by_hand(S, p, q, eps, support=None):
    support = np.ones(S.shape, bool) if support is None else support
    total = 0.0
    for here in np.argwhere(support):
        power = 0.0
        for axis in range(3):
            after = here + (np.arange(3) == axis)
            if after[axis] < S.shape[axis] and support[tuple(after)]:
                power += abs(S[tuple(after)] - S[tuple(here)]) ** p
        total += (power + eps) ** (q / p)
    return total / support.sum()


@pytest.mark.parametrize(("p", "q"), EXPONENTS)
def test_value_is_its_definition(S, support, p, q):
    assert atv(S, p=p, q=q)[0] == pytest.approx(by_hand(S, p, q, 1e-6), rel=1e-13)
    value = atv(S, 3.5, p=p, q=q, eps=0.1, support=support)[0]
    assert value == pytest.approx(3.5 * by_hand(S, p, q, 0.1, support), rel=1e-13)


@pytest.mark.parametrize(("p", "q"), EXPONENTS)
@pytest.mark.parametrize("limited", (False, True))
def test_gradient_is_the_derivative(S, support, rng, p, q, limited):
    support = support if limited else None
    direction = rng.normal(size=S.shape) + 1j * rng.normal(size=S.shape)
    value, adj_S = atv(S, 2.5, p=p, q=q, support=support)
    slope = np.sum(np.conj(adj_S) * direction).real

    def change(h):
        return atv(S + h * direction, 2.5, p=p, q=q, support=support)[0] - value

    h = 1e-4
    central = (8 * (change(h / 2) - change(-h / 2)) - (change(h) - change(-h))) / (6 * h)
    assert central == pytest.approx(slope, rel=1e-7)
    # what is left behind the gradient is of second order; 0.1: the third order, a few per cent of it at h = 1e-3
    left = [abs(change(h) - h * slope) for h in (1e-3, 1e-4)]
    assert np.log10(left[0] / left[1]) == pytest.approx(2.0, abs=0.1)
    assert support is None or not adj_S[~support].any()


@pytest.mark.parametrize(("p", "q"), EXPONENTS)
def test_single_precision_is_kept_and_close_to_double(S, p, q):
    value, adj_S = atv(S.astype(np.complex64), p=p, q=q)
    expected, adj_expected = atv(S, p=p, q=q)
    assert adj_S.dtype == np.complex64
    # a few roundings of 6e-8, some of them of powers up to 4
    assert value == pytest.approx(expected, rel=1e-6)
    assert np.linalg.norm(adj_S - adj_expected) < 1e-6 * np.linalg.norm(adj_expected)
    large = np.tile(S, (16, 16, 16)).astype(np.complex64)
    assert atv(large, p=p, q=q)[0] == pytest.approx(atv(large.astype(complex), p=p, q=q)[0], rel=1e-6)


@pytest.mark.parametrize(("p", "q"), [(2, 1), (1.5, 0.7)])
def test_slabs_change_memory_and_not_the_result(S, support, monkeypatch, p, q):
    whole = atv(S, p=p, q=q, support=support)
    for voxels in (1, 65):
        monkeypatch.setattr(total_variation, "SLAB", voxels)
        parts = atv(S, p=p, q=q, support=support)
        assert parts[0] == pytest.approx(whole[0], rel=1e-14)
        np.testing.assert_allclose(parts[1], whole[1], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(("p", "q"), EXPONENTS)
def test_a_flat_crystal_is_not_pulled_at_the_box_or_inside_its_support(p, q):
    flat = np.full((4, 5, 6), 0.7 - 0.2j)
    for eps in (0.0, 1e-6):
        value, adj_S = atv(flat, p=p, q=q, eps=eps)
        assert value == pytest.approx(eps ** (q / p), rel=1e-12) and not adj_S.any()
    cut = np.zeros(flat.shape, bool)
    cut[1:3, 1:4, 2:5] = True
    crystal = np.where(cut, flat, 0)
    assert not atv(crystal, p=p, q=q, support=cut)[1].any()
    surface = atv(crystal, p=p, q=q)[1][1:3, 1:4, 2:5]
    assert (surface.real * 0.7 - surface.imag * 0.2).sum() > 0  # a step against it makes |S| smaller


def test_real_and_thin_arrays(rng):
    S = rng.normal(size=(1, 1, 5))
    value, adj_S = atv(S, p=1, q=1, eps=0)
    assert value == pytest.approx(np.abs(np.diff(S)).sum() / 5) and adj_S.dtype == np.float64
    assert atv(np.ones((2, 2, 2), int))[0] == pytest.approx(1e-3)
    assert atv(S, support=np.zeros(S.shape, bool)) == (0.0, pytest.approx(0))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"S": np.ones((3, 4))}, ValueError, r"S: expected shape \(nz, ny, nx\)"),
        ({"p": 0.5}, ValueError, "p: expected a finite number >= 1, got 0.5"),
        ({"q": 0}, ValueError, "q: expected a finite number > 0, got 0"),
        ({"eps": -1}, ValueError, "eps: expected a finite number >= 0"),
        ({"weight": -1}, ValueError, "weight: expected a finite number >= 0"),
        ({"support": np.ones((4, 5, 5), bool)}, ValueError, r"support: expected shape \(nz, ny, nx\)"),
    ),
)
def test_bad_arguments(S, changes, error, message):
    with pytest.raises(error, match=message):
        atv(**({"S": S} | changes))
