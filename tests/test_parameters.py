"""The gradient with respect to susceptibilities, voxel_scale and two_theta, and operators of other values of them."""

import numpy as np
import pendel
import pytest
from frameworks import UNIT, WAYS, crystals, operator

SHAPE = 5, 2, 9  # columns that fill no pack


@pytest.fixture
def physics(asymmetric):
    return asymmetric


def noise(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def loss(op, arrays, adj_E_h):
    """Re sum conj(adj_E_h) E_h, whose gradient with respect to E_h is adj_E_h."""
    S, dq, s_0, incident = arrays
    return np.sum((np.conj(adj_E_h) * op.forward(S, dq * UNIT, s_0, incident)).real)


def gradient(op, arrays, adj_E_h, **options):
    S, dq, s_0, incident = arrays
    return op.adjoint(S, dq * UNIT, adj_E_h, s_0, incident, parameters=True, **options)


def difference(op, arrays, adj_E_h, chi, geometry, step=1e-4):
    """Derivative of `loss` along a change of the parameters, by central differences of fourth order.

    It errs by step^4 times a fifth derivative and by rounding over the step, both about 1e-12 of what is compared.
    """
    at_chi, at_geometry = np.array([op.chi_0, op.chi_h, op.chi_hbar]), np.array([1.0, op.two_theta])

    def at(t):
        return loss(op.with_parameters(at_chi + t * chi, at_geometry + t * geometry), arrays, adj_E_h)

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


def directions(op, rng):
    """(name, change of chi, change of geometry): each parameter alone, as large as itself, and all together."""
    chi = np.array([op.chi_0, op.chi_h, op.chi_hbar])
    for i, name in enumerate(("chi_0", "chi_h", "chi_hbar")):
        for turn in (1, 1j):
            yield name, turn * chi * (np.arange(3) == i), np.zeros(2)
    yield "voxel_scale", np.zeros(3), np.array([1.0, 0.0])
    yield "two_theta", np.zeros(3), np.array([0.0, op.two_theta])
    yield "all", chi * noise(rng, 3), rng.normal(size=2) * [1, op.two_theta]


def along(found, chi, geometry):
    return np.sum((np.conj(found.chi) * chi).real) + np.sum(found.geometry * geometry)


def absorbing(op):
    """The operator with absorption enough that no step of a finite difference makes a crystal that amplifies."""
    return op.with_parameters([op.chi_0.real + 1j * abs(op.chi_0), op.chi_h, op.chi_hbar])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("tied", [False, True], ids=["s_0", "s_0 = |S|"])
def test_the_gradient_is_that_of_finite_differences(physics, rng, way, tied):
    op = absorbing(operator(physics, shape=SHAPE, **way))
    S, dq, s_0, incident = crystals(op, rng)
    arrays = (S, dq, None, None) if tied else (S, dq, s_0, incident)
    adj_E_h = noise(rng, len(dq), *op.exit_shape)
    found = gradient(op, arrays, adj_E_h)
    for name, chi, geometry in directions(op, rng):
        expected = difference(op, arrays, adj_E_h, chi, geometry)
        assert along(found, chi, geometry) == pytest.approx(expected, rel=1e-8), name


def test_one_susceptibility_reaches_what_no_gradient_of_the_crystal_does(physics, rng):
    """A phase of chi_h alone is the crystal's, but its imaginary part against chi_hbar's is not: the check that the
    comparison above has something to find."""
    op = absorbing(operator(physics, shape=SHAPE))
    S, dq, s_0, incident = crystals(op, rng)
    adj_E_h = noise(rng, len(dq), *op.exit_shape)
    found = gradient(op, (S, dq, s_0, incident), adj_E_h)
    turned = np.sum((np.conj(found.S) * 1j * S).real)  # S -> S exp(i a): chi_h -> chi_h exp(i a), chi_hbar back
    by_chi = found.chi[1].conj() * 1j * op.chi_h - found.chi[2].conj() * 1j * op.chi_hbar
    assert turned == pytest.approx(by_chi.real, rel=1e-10)
    assert abs((found.chi[2].conj() * 1j * op.chi_hbar).real) > 1e-3 * abs(turned)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_single_precision_is_double_rounded(physics, rng, way):
    double = absorbing(operator(physics, shape=SHAPE, **way))
    single = absorbing(operator(physics, "complex64", shape=SHAPE, **way))
    S, dq, s_0, incident = crystals(double, rng)
    adj_E_h = noise(rng, len(dq), *double.exit_shape)
    expected = gradient(double, (S, dq, s_0, incident), adj_E_h)
    rounded = S.astype("complex64"), dq, s_0.astype("float32"), incident.astype("complex64")
    found = gradient(single, rounded, adj_E_h.astype("complex64"))
    chi = np.array([double.chi_0, double.chi_h, double.chi_hbar])
    scale = np.abs(expected.chi * chi).max()  # gradients of relative changes, of one size
    assert found.chi.dtype == np.complex128 and found.geometry.dtype == np.float64
    np.testing.assert_allclose(found.chi * chi, expected.chi * chi, atol=3e-5 * scale, rtol=0)  # tens of roundings
    np.testing.assert_allclose(found.geometry, expected.geometry, atol=3e-5 * np.abs(expected.geometry).max(), rtol=0)


def test_the_same_bits_for_any_threads_and_as_without(physics, rng):
    op, two = (operator(physics, "complex64", shape=SHAPE, threads=n) for n in (1, 2))
    arrays = crystals(op, rng)
    adj_E_h = noise(rng, len(arrays[1]), *op.exit_shape).astype("complex64")
    found = [gradient(each, arrays, adj_E_h) for each in (op, two)]
    without = op.adjoint(arrays[0], arrays[1] * UNIT, adj_E_h, *arrays[2:])
    assert without.chi is None and without.geometry is None
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(found[0].chi, found[1].chi) and np.array_equal(found[0].geometry, found[1].geometry)
    for one, other in zip(found[0], without, strict=True):
        assert np.array_equal(one, other)


def test_a_support_does_not_hide_the_crystal_beside_it(physics, rng):
    op = operator(physics, shape=SHAPE)
    arrays = crystals(op, rng)
    adj_E_h = noise(rng, len(arrays[1]), *op.exit_shape)
    everywhere = gradient(op, arrays, adj_E_h)
    support = np.zeros(op.shape, bool)
    support[1:3, :, 2:4] = True
    there = gradient(op, arrays, adj_E_h, support=support)
    assert np.array_equal(there.chi, everywhere.chi) and not there.S[~support].any()


def test_an_operator_with_parameters_is_one_made_of_them(physics, rng):
    op = operator(physics, shape=SHAPE)
    chi = np.array([op.chi_0 * 1.1, op.chi_h * 0.9j, op.chi_hbar * 1.2])
    scale, two_theta = 1.25, 0.8 * op.two_theta
    other = op.with_parameters(chi, (scale, two_theta))
    dz, dy, dx = op.voxel
    voxel = scale * dz * np.tan(op.two_theta) / np.tan(two_theta), scale * dy, scale * dx
    named = dict(zip(("chi_0", "chi_h", "chi_hbar"), chi.tolist(), strict=True))
    geometry = {"shape": SHAPE, "voxel": voxel, "two_theta": two_theta, "transport": "shift"}
    made = pendel.TakagiTaupin(**physics | named | geometry, dtype="complex128")
    S, dq, s_0, incident = crystals(op, rng)
    assert other.shift == made.shift == op.shift
    expected = made.forward(S, dq * UNIT, s_0, incident)
    np.testing.assert_allclose(other.forward(S, dq * UNIT, s_0, incident), expected, rtol=1e-12)  # dz to the last digit
    assert op.chi_0 == physics["chi_0"] and op.voxel == (dz, dy, dx)  # as it was


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chi": [1e-5, 1e-5]}, r"chi: expected shape \(3,\)"),
        ({"chi": [-1e-4 - 1e-6j, 1e-5, 1e-5]}, r"chi_0: expected Im chi_0 >= 0"),
        ({"chi": [1e-4, np.nan, 1e-5]}, r"chi"),
        ({"geometry": (0.0, 0.5)}, r"geometry: expected .*voxel_scale > 0, got 0"),
        ({"geometry": (1.0, 3.0)}, r"two_theta: expected an angle in rad"),
        ({"geometry": (1e9, 0.5)}, r"voxel"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_what_is_no_crystal_or_geometry_is_refused(physics, arguments, message):
    with pytest.raises(ValueError, match=message):
        operator(physics).with_parameters(**arguments)
