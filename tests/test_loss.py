"""Amplitude and Poisson loss: definition, gradient, guard at D = 0, masks and the best scale."""

import numpy as np
import pytest
from pendel.model import loss


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


def poisson_by_hand(D, data, mask, scale, background):
    total = 0.0
    for d, i, good in zip(D, data, mask, strict=True):
        rate, i = scale * d[good] + background, i[good].astype(float)
        total += np.mean(rate - i + i * np.log(np.maximum(i, 1e-300) / rate))
    return total / len(D)


@pytest.mark.parametrize("background", (0.0, 0.8))
def test_poisson_loss_is_its_definition_and_perfect_data_give_zero(case, background):
    D, data, mask = case
    value, _ = loss.poisson_loss(D, data, mask, 4.2, background)
    assert value == pytest.approx(poisson_by_hand(D, data, mask, 4.2, background), rel=1e-13)
    value, adj_D = loss.poisson_loss(D, 4.2 * D + background, None, 4.2, background)
    assert 0 <= value < 1e-15 and np.abs(adj_D).max() < 1e-15  # rounding of numbers up to 20
    # near the fit it is twice the amplitude loss: 1 + O(1/sqrt I)
    big = np.round(1e6 * D), 1e6 * D
    assert loss.poisson_loss(*big)[0] == pytest.approx(2 * loss.amplitude_loss(*big)[0], rel=1e-3)


@pytest.mark.parametrize("background", (0.0, 0.8))
@pytest.mark.parametrize("scale", (4.2, None))
def test_poisson_gradient_is_the_derivative(case, scale, background, rng):
    D, data, mask = case
    value, adj_D = loss.poisson_loss(D, data, mask, scale, background)
    direction = rng.normal(size=D.shape)

    def change(h):
        return loss.poisson_loss(D + h * direction, data, mask, scale, background)[0] - value

    slope, h = np.sum(adj_D * direction), 1e-4
    central = (8 * (change(h / 2) - change(-h / 2)) - (change(h) - change(-h))) / (6 * h)
    assert central == pytest.approx(slope, rel=1e-7)
    assert not adj_D[~mask].any()
    left = [abs(change(h) - h * slope) for h in (1e-2, 1e-3)]
    assert np.log10(left[0] / left[1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("background", (0.0, 0.8, 3.0))
def test_best_poisson_scale_is_the_minimum(case, background):
    D, data, mask = case
    best = loss.poisson_loss(D, data, mask, None, background)[0]
    scales = np.linspace(2, 6, 4001)
    values = [loss.poisson_loss(D, data, mask, s, background)[0] for s in scales[::40]]
    assert best <= min(values) and min(values) - best < 1e-3
    single = loss.poisson_loss(D.astype(np.float32), data, mask, None, background)[0]
    assert single == pytest.approx(best, rel=1e-5)
    assert loss.poisson_loss(D, 7 * D + background, None, None, background)[0] < 1e-15
    if background:
        with pytest.raises(ValueError, match="background: expected less than the measured counts, got 50"):
            loss.poisson_loss(D, data, mask, None, 50.0)


def test_poisson_loss_where_nothing_is_expected():
    D, data = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    D[0, 0], data[0, :, 0] = 1.0, 3.0
    value, adj_D = loss.poisson_loss(D, data)
    assert value == np.inf and np.isfinite(adj_D).all()
    np.testing.assert_allclose(adj_D, [[[(1 - 3) / 4, 1 / 4], [0, 1 / 4]]])
    value, adj_D = loss.poisson_loss(D, data, background=0.5)
    assert np.isfinite(value)
    np.testing.assert_allclose(adj_D, [[[(1 - 2) / 4, 1 / 4], [(1 - 6) / 4, 1 / 4]]])


def test_poisson_single_precision_is_close_to_double(case):
    D, data, mask = case
    value, adj_D = loss.poisson_loss(D.astype(np.float32), data, mask, 4.2, 0.3)
    expected, adj_expected = loss.poisson_loss(D, data, mask, 4.2, 0.3)
    # rounding of D and sqrt I, 6e-8, over terms smaller than the counts by some ten
    assert value == pytest.approx(expected, rel=2e-6) and adj_D.dtype == np.float32
    assert np.linalg.norm(adj_D - adj_expected) < 2e-6 * np.linalg.norm(adj_expected)


def test_a_likelihood_is_known_and_its_background_is_no_light_taken_away():
    with pytest.raises(ValueError, match="likelihood: expected one of 'amplitude', 'poisson', got 'gauss'"):
        loss.Likelihood("gauss")
    with pytest.raises(ValueError, match="background: expected a finite number >= 0, got -1"):
        loss.Likelihood("poisson", -1)


def test_a_mask_with_an_axis_of_length_one_is_that_of_a_frame(case):
    D, data, mask = case
    frame = mask[0]
    assert (loss.check_mask("mask", frame[None], data.shape) == frame).all()
    assert loss.amplitude_loss(D, data, frame[None])[0] == loss.amplitude_loss(D, data, frame)[0]
