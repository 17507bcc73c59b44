"""Blur of detector pixels: its kernel, its closed forms, the adjoint at the edges, the derivative by the widths."""

import numpy as np
import pytest
from pendel.model.blur import COLUMN, FAN, ROW, Blur, kernel, steps_along

VARIANCES = (0.0, 1e-6, 0.01, 0.09, 0.49, 1.1, 4.2, 60.0)
TURNED = ([0.5, 0.08], [(0.8, 0.6), (-0.6, 0.8)])
LONG = ([1.0], [(0.9, -0.6)])
CASES = {
    "round": ((0.7, 0.7), ((), ())),
    "rows alone": ((0.9, 0.0), ((), ())),
    "turned": ((0.0, 0.0), TURNED),
    "both": ((0.4, 0.6), TURNED),
    "long and turned": ((0.3, 0.2), LONG),
    "without a part of it": ((0.0, 0.3), ([0.0, 0.4], [(0.8, 0.6), (1.0, -0.9)])),
}
ACROSS = 0.056  # of what it is along, the most that a blur is across


def both_sides(values):
    """Values of every k from the first of k >= 0."""
    return np.array([*values[:0:-1], *values])


@pytest.mark.parametrize("variance", VARIANCES)
def test_kernel_is_positive_and_has_the_variance_asked_for(variance):
    g = both_sides(kernel(variance)[0])
    k = np.arange(len(g)) - len(g) // 2
    assert g.min() >= 0 and g.sum() == pytest.approx(1, rel=1e-14)
    assert (g * k**2).sum() == pytest.approx(variance, rel=1e-12, abs=1e-21)
    if variance >= 1:  # samples of the Gaussian, which at one pixel are right to 1e-8, and end after six widths
        np.testing.assert_allclose(g, np.exp(-(k**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance), atol=2e-8)


@pytest.mark.parametrize("variance", VARIANCES[2:])
def test_derivative_of_the_kernel_is_the_central_difference(variance):
    h = 1e-5 * variance
    above, below = (both_sides(kernel(variance + s * h)[0]) for s in (1, -1))
    found = both_sides(kernel(variance)[1])
    # rounding of the variance that the search for b leaves, 1e-15/1e-5
    np.testing.assert_allclose((above - below) / (2 * h), found, atol=1e-7 * np.abs(found).max())


def test_derivative_at_no_width_is_half_the_second_difference():
    assert kernel(0.0) == ((1.0,), (-1.0, 0.5))
    np.testing.assert_allclose(kernel(1e-9)[1][:2], (-1, 0.5), rtol=1e-8)


def point(shape=(1, 31, 33), at=(0, 15, 16), dtype="float64"):
    D = np.zeros(shape, dtype)
    D[at] = 1
    return D


@pytest.mark.parametrize("name", CASES)
def test_a_point_becomes_its_spread_with_the_covariance_asked_for(name):
    point_spread, further = CASES[name]
    D = Blur(point_spread, *further).forward(point())[0]
    assert D.min() >= 0 and D.sum() == pytest.approx(1, rel=1e-12)
    place = [p - c for p, c in zip(np.indices(D.shape), (15, 16), strict=True)]
    found = np.array([[(D * a * b).sum() for a in place] for b in place])
    wanted = np.diag(np.square(point_spread))
    for weight, direction in zip(*further, strict=True):
        wanted = wanted + sum(weight * t * np.outer(step, step) for step, t in steps_along(direction))
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    if not further[0]:
        rows, columns = (both_sides(kernel(s**2)[0]) for s in point_spread)
        here = tuple(slice(c - len(g) // 2, c + len(g) // 2 + 1) for c, g in ((15, rows), (16, columns)))
        np.testing.assert_allclose(D[here], np.outer(rows, columns), atol=1e-17)


def test_fringes_lose_the_contrast_of_a_gaussian():
    q, width = 0.8, 1.1
    D = 1 + np.cos(q * np.arange(200)) * np.ones((1, 60, 1))
    D = Blur((0.0, width)).forward(D)[0, 30, 20:-20]
    wanted = 1 + np.exp(-0.5 * (q * width) ** 2) * np.cos(q * np.arange(200))[20:-20]
    np.testing.assert_allclose(D, wanted, atol=1e-6)


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 25))
def test_steps_along_any_direction_are_short_and_blur_little_across(angle):
    u, v = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    found = steps_along(0.7 * u)
    total = sum(t * np.outer(step, step) for step, t in found) / 0.49
    assert u @ total @ u == pytest.approx(1, abs=1e-12) and u @ total @ v == pytest.approx(0, abs=1e-12)
    assert -1e-12 < v @ total @ v < ACROSS
    assert 1 <= len(found) <= 2 and all(t > 0 for _, t in found) and max(np.abs(s).max() for s, _ in found) <= 2
    assert steps_along(-0.7 * u) == found


def test_along_a_step_nothing_is_across():
    for y, x in FAN:
        for sign in (1, -1) if x and y else (1,):
            assert steps_along((2.0 * y, 2.0 * sign * x)) == [((y, sign * x), pytest.approx(4, rel=1e-12))]
    assert steps_along((0.0, 0.0)) == [] and steps_along((0.0, -3.0)) == [(COLUMN, pytest.approx(9))]
    assert Blur((0, 0), [1.0, 1.0], [(0.0, 1.0), (1.0, 1.0)]).steps == [ROW, COLUMN, (1, 1)]


@pytest.mark.parametrize("name", CASES)
def test_adjoint_at_the_edges_too(name, rng):
    point_spread, further = CASES[name]
    blur = Blur(point_spread, *further)
    D, other = rng.uniform(size=(2, 3, 9, 7))
    assert np.sum(blur.forward(D) * other) == pytest.approx(np.sum(D * blur.adjoint(other)), rel=1e-13)
    if not further[0]:
        np.testing.assert_allclose(blur.forward(D), blur.adjoint(D), rtol=1e-14)


def test_light_that_leaves_the_detector_is_lost_and_none_comes_in():
    blur, D = Blur((0.7, 0.0)), np.ones((1, 20, 4))
    g = both_sides(kernel(0.49)[0])
    half = len(g) // 2
    np.testing.assert_allclose(blur.forward(D)[0, 0], g[half:].sum())
    np.testing.assert_allclose(blur.forward(D)[0, 10], 1)
    # a kernel longer than the detector
    wide = Blur((9.0, 9.0)).forward(np.ones((2, 3, 2)))
    assert np.isfinite(wide).all() and wide.max() < 0.05


def test_no_width_changes_nothing():
    D = point()
    blur = Blur((0.0, 0.0), [0.0], [(1.0, 0.3)])
    assert not blur and blur.forward(D) is D and blur.adjoint(D) is D and Blur((0.1, 0.0))


def slopes(value, h, one_sided):
    """Derivative of ``value(change)`` at 0, and what the tangent leaves after 100 and 10 steps, to be told apart."""
    if one_sided:  # of order h^2
        return (4 * value(h / 2) - value(h) - 3 * value(0.0)) / h
    return (8 * (value(h / 2) - value(-h / 2)) - (value(h) - value(-h))) / (6 * h)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_the_widths_and_of_the_weights_are_the_derivatives(name, rng):
    point_spread, (weights, directions) = CASES[name]
    D, adj = rng.uniform(size=(2, 3, 9, 11))
    squares, weights = np.square(point_spread), np.array(weights)
    blur = Blur(point_spread, weights, directions)
    variances = blur.adjoint_variances(D, adj)
    assert variances.shape == (len(blur.steps), 3)
    np.testing.assert_allclose(blur.adjoint_variances(D, adj, 2), variances[:2], rtol=1e-13)
    by_weight = np.stack([blur.adjoint_weights(frame) for frame in variances.T], axis=1)
    found = np.concatenate([variances[:2], by_weight])

    def value(i, change):
        moved = np.concatenate([squares, weights]) + change * np.eye(2 + len(weights))[i]
        return (adj * Blur(np.sqrt(moved[:2]), moved[2:], directions).forward(D)).sum(axis=(1, 2))

    for i, at in enumerate((*squares, *weights)):
        slope = slopes(lambda h, i=i: value(i, h), 1e-4, one_sided=at == 0)
        np.testing.assert_allclose(slope, found[i], rtol=1e-6, atol=1e-6 * np.abs(found).max())
        left = [np.abs(value(i, s * 1e-4) - value(i, 0.0) - s * 1e-4 * found[i]).max() for s in (100, 10)]
        # order 2, but for three pixels alone, whose weights are linear in t up to its fourth power
        assert np.log10(left[0] / left[1]) > 1.9


def test_single_precision_is_close_to_double_in_the_dark_too(rng):
    blur = Blur((0.7, 0.7), *TURNED)
    D = np.exp(-rng.uniform(0, 30, size=(2, 40, 30)))
    # nothing is subtracted: each pixel is right to some 30 roundings of 6e-8, however dark
    np.testing.assert_allclose(blur.forward(D.astype(np.float32)), blur.forward(D), rtol=2e-6)
    assert blur.forward(D.astype(np.float32)).dtype == np.float32
