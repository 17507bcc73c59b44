"""Amplitude loss: its definition, gradient, guard at D = 0, masks and the closed-form scale."""

import numpy as np
import pytest
from pendel import loss


@pytest.fixture
def case(rng):
    D = rng.uniform(0.1, 4, size=(3, 5, 7))
    data = rng.poisson(D * 5)
    mask = rng.uniform(size=D.shape) > 0.3
    return D, data, mask


def by_hand(D, data, mask, scale):
    total = 0.0
    for d, i, good in zip(D, data, np.broadcast_to(mask, D.shape), strict=True):
        total += np.mean((np.sqrt(scale * d[good]) - np.sqrt(i[good])) ** 2)
    return total / len(D)


def test_loss_is_its_definition(case):
    D, data, mask = case
    for m in (mask, mask[0], np.ones(D.shape, bool)):
        assert loss.amplitude_loss(D, data, m, 4.2)[0] == pytest.approx(by_hand(D, data, m, 4.2), rel=1e-14)
    assert loss.amplitude_loss(D, data, None, 4.2)[0] == loss.amplitude_loss(D, data, m, 4.2)[0]


@pytest.mark.parametrize("scale", (4.2, None))
def test_gradient_is_the_central_difference(case, scale, rng):
    D, data, mask = case
    _, adj_D = loss.amplitude_loss(D, data, mask, scale)
    step = rng.normal(size=D.shape) * 1e-5
    change = loss.amplitude_loss(D + step, data, mask, scale)[0] - loss.amplitude_loss(D - step, data, mask, scale)[0]
    # Third-order terms of a 1e-5 step and rounding of the difference: 1e-9.
    assert change / 2 == pytest.approx(np.sum(adj_D * step), rel=1e-8)
    assert not adj_D[~mask].any()


def test_no_gradient_where_d_is_zero():
    D = np.zeros((1, 2, 2))
    D[0, 0, 0] = 1.0
    value, adj_D = loss.amplitude_loss(D, np.full((1, 2, 2), 9.0))
    assert value == pytest.approx((4 + 27) / 4)
    np.testing.assert_allclose(adj_D, [[[-0.5, 0], [0, 0]]])
    tiny = np.full((1, 1, 1), 1e-45, np.float32)  # a denormal number
    assert np.isfinite(loss.amplitude_loss(tiny, np.ones((1, 1, 1)))[1]).all()


def test_best_scale_is_the_minimum(case):
    D, data, mask = case
    best = loss.best_scale(D, data, mask)
    values = [loss.amplitude_loss(D, data, mask, best * f)[0] for f in (1 - 1e-4, 1, 1 + 1e-4)]
    assert values[1] < values[0] and values[1] < values[2]
    assert loss.amplitude_loss(D, data, mask, None)[0] == values[1]
    assert loss.best_scale(D, 7 * D) == pytest.approx(7, rel=1e-14)


def test_masked_pixels_may_hold_anything(case):
    D, data, mask = case
    spoiled = np.where(mask, data, np.nan)
    spoiled[~mask & (D > 2)] = -5
    for m in (mask, mask[0] & mask[1] & mask[2]):
        value, adj_D = loss.amplitude_loss(D, data, m)
        other, adj_other = loss.amplitude_loss(D, spoiled, m)
        assert value == other and np.array_equal(adj_D, adj_other)
    with pytest.raises(ValueError, match="data: expected finite intensities >= 0 on good pixels, got 31 others"):
        data = data.astype(float)
        data.ravel()[:31] = -1
        loss.amplitude_loss(D, data)


def test_frame_without_good_pixels_counts_as_zero(case):
    D, data, mask = case
    mask[1] = False
    kept = [0, 2]
    value, adj_D = loss.amplitude_loss(D, data, mask)
    assert value == pytest.approx(2 / 3 * loss.amplitude_loss(D[kept], data[kept], mask[kept])[0])
    assert not adj_D[1].any()


def test_relative_misfit(case):
    D, data, mask = case
    expected = np.sum((np.sqrt(5 * D[mask]) - np.sqrt(data[mask])) ** 2) / data[mask].sum()
    assert loss.relative_misfit(D, data, mask, 5) == pytest.approx(expected)
    assert loss.relative_misfit(D, 3 * D, None, None) < 1e-28  # rounding, squared
    with pytest.raises(ValueError, match="data: expected some intensity"):
        loss.relative_misfit(D, 0 * data)


def test_single_precision_sums_are_double(case):
    D, data, mask = case
    big = np.tile(D, (1, 100, 100)).astype(np.float32)
    value, adj_D = loss.amplitude_loss(big, np.tile(data, (1, 100, 100)), np.tile(mask, (1, 100, 100)), 4.2)
    assert adj_D.dtype == np.float32
    # The 105 different pixels' own rounding is left, a few 6e-8 of roots some four times their difference; it does not
    # grow with the 10^4 repetitions, as a single-precision sum's would.
    assert value == pytest.approx(loss.amplitude_loss(D, data, mask, 4.2)[0], rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    (
        ({"mask": np.ones((3, 5, 7))}, TypeError, "mask: expected dtype bool"),
        ({"mask": np.ones((3, 5), bool)}, ValueError, "mask: expected shape"),
        ({"data": np.zeros((3, 5, 6))}, ValueError, r"data: expected shape \(frames, rows, cols\)"),
        ({"data": np.zeros((3, 5, 7), complex)}, TypeError, "data: expected an array of real numbers"),
        ({"D": -np.ones((3, 5, 7))}, ValueError, "D: expected intensities >= 0"),
        ({"scale": -1.0}, ValueError, "scale: expected a finite number >= 0"),
        ({"D": np.zeros((3, 5, 7)), "scale": None}, ValueError, "scale: expected computed intensity"),
    ),
)
def test_bad_arguments(case, changes, error, message):
    arguments = {"D": case[0], "data": case[1], "mask": case[2]} | changes
    with pytest.raises(error, match=message):
        loss.amplitude_loss(**arguments)
