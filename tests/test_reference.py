"""The oracle itself: closed forms, convergence orders, finite differences and invariants. No engine is involved."""

import numpy as np
import pytest
from pendel import reference

# Reason of 1e-12 below: products of some 100 matrices of norm near 1 in double precision leave 1e-14 to 1e-13.
ROUNDING = 1e-12


def test_voxel_matrix_is_the_exponential_of_the_potential(rng, overwhelming, asymmetric, gold):
    S, s_0 = rng.normal(size=5) + 1j * rng.normal(size=5), rng.uniform(0, 1, 5)
    S[0], s_0[1], S[2], s_0[2] = 0, 0, 0, 0
    for physics in (gold, asymmetric, overwhelming):
        factors = reference.coefficients(**physics)
        M = reference.voxel_matrix(S, s_0, 8e-9, factors)
        series = reference.expm(8e-9 * reference.potential(S, s_0, factors))
        assert np.abs(M - series).max() < ROUNDING * np.abs(series).max()
        assert np.array_equal(M[2], np.eye(2))


def test_perfect_slab_at_the_bragg_condition_is_exact(gold, voxel_of):
    voxel, nz = voxel_of(gold["two_theta"]), 40
    E_h, E_0 = reference.forward(np.ones((nz, 1, nz)), [[0, 0, 0]], voxel=voxel, return_E_0=True, **gold)
    slab = reference.laue_slab(nz * voxel[0], 0.0, **gold)
    assert abs(E_0[0, 0, -1] - slab[0]) < ROUNDING
    assert abs(E_h[0, 0, -1] - slab[1]) < ROUNDING


def test_constant_strain_gradient_is_met_with_slope_2(gold):
    thickness, D, B, counts = 0.5e-6, 5e6, 6e13, np.array([32, 64, 128])
    _, expected = reference.constant_strain_gradient(thickness, D, B, **gold)
    errors = []
    for nz in counts:
        dz = thickness / nz
        z = (np.arange(nz) + 0.5) * dz
        S = np.broadcast_to(np.exp(0.5j * B * z**2)[:, None, None], (nz, 1, nz))
        voxel = (dz, dz, dz * np.tan(gold["two_theta"]))
        errors.append(abs(reference.forward(S, [[0, 0, D]], voxel=voxel, **gold)[0, 0, -1] - expected))
    # 0.1: what the next order bends the line by, at this many steps.
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("B", [6e13, -6e13])
def test_blanes_moan_meets_the_constant_strain_gradient_to_1e_10(gold, B):
    # A crystal without lateral variation that fills the periodic row: E_0 stays uniform in x.
    thickness, D = 0.5e-6, 5e6
    _, expected = reference.constant_strain_gradient(thickness, D, B, **gold)
    E_h = reference.blanes_moan(
        lambda x, y, z: np.exp(0.5j * B * z * z), [[0, 0, D]], shape=(1, 1, 8), row_length=8,
        voxel=(thickness, 8e-9, 8e-9), steps=512, **gold,
    )  # fmt: skip
    # Order 4 leaves 1e-11 at this many steps.
    assert np.abs(E_h - expected).max() < 1e-10 * abs(expected)


@pytest.fixture(scope="module")
def smooth(gold):
    """A smooth strained blob, its box and three frames; at the edge of the box in x it has fallen to 4e-5."""
    thickness, dx, N = 0.5e-6, 8e-9, 192
    dq = np.array([[0, 0, 0.0], [0, 0, 2e7], [1e6, 0, -3e7]])

    def S(x, y, z):
        size = np.exp(-((x / 0.12e-6) ** 2) - ((z - thickness / 2) / 0.12e-6) ** 2)
        return size * np.exp(2.5j * np.sin(2 * np.pi * x / thickness + 0.3) * np.cos(2 * np.pi * z / thickness))

    def exact(steps):
        box = {"shape": (1, 1, 96), "voxel": (thickness, dx, dx), "row_length": N}
        return reference.blanes_moan(S, dq, steps=steps, **box, **gold)

    return S, exact, thickness, dx, N, dq


def test_blanes_moan_has_slope_4(smooth, relative):
    _, exact, *_ = smooth
    counts, best = np.array([16, 32, 64]), exact(256)
    errors = [relative(exact(n), best) for n in counts]
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(4, abs=0.1)


def test_strang_has_slope_2_on_a_smooth_crystal(smooth, gold, relative):
    S, exact, thickness, dx, N, dq = smooth
    counts, best = np.array([16, 32, 64]), exact(128)
    x = (np.arange(96) - 48) * dx
    errors = []
    for nz in counts:
        z = (np.arange(nz) + 0.5) * thickness / nz
        box = {"voxel": (thickness / nz, dx, dx), "transport": "fourier", "row_length": N}
        errors.append(relative(reference.forward(S(x, 0, z[:, None, None]), dq, **box, **gold), best))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("pixels", [1, 2])
def test_fourier_by_whole_pixels_equals_shift(problem, asymmetric, relative, pixels):
    p = problem((9, 2, 12), asymmetric, n=3, pixels=pixels)
    N, edge = 12 + pixels * 8, pixels * 8
    row = np.concatenate([np.repeat(p.incident[:, :1], edge, 1), p.incident], 1)
    shift = reference.forward(p.S, p.dq, incident=row, return_E_0=True, **p.physics)
    # The periodic row is the same row turned so that the crystal comes first.
    row = np.roll(row, -edge, 1)
    fourier = reference.forward(
        p.S, p.dq, incident=row, return_E_0=True, transport="fourier", row_length=N, **p.physics
    )
    assert relative(fourier[0], shift[0]) < ROUNDING
    assert relative(fourier[1], shift[1]) < ROUNDING


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_energy_of_a_lossless_crystal_is_conserved(problem, lossless, transport):
    p = problem((31, 2, 13), lossless, n=3, transport=transport)
    before, after = reference.energy(p.S, p.dq, transport=transport, **p.physics)
    assert np.abs(after / before - 1).max() < ROUNDING


def _directional(f, step):
    """Central differences, twice extrapolated (error of order step^6)."""
    d = [(f(step * 2.0**-j) - f(-step * 2.0**-j)) / (2 * step * 2.0**-j) for j in range(3)]
    d = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    return (16 * d[1] - d[0]) / 15


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
@pytest.mark.parametrize("tied", [True, False])
def test_adjoint_is_the_derivative_of_the_forward_sweep(problem, asymmetric, rng, transport, tied):
    p = problem((4, 2, 5), asymmetric, transport=transport)
    N = 20 if transport == "fourier" else 8
    box = p.physics | {"transport": transport, "row_length": N}
    point = {"S": p.S, "s_0": None if tied else p.s_0, "dq": p.dq, "incident": rng.normal(size=(2, N)) * (1 + 0.5j)}
    adj = reference.adjoint(adj_E_h=p.adj_E_h, **point, **box)

    def loss(**change):
        return np.sum(np.conj(p.adj_E_h) * reference.forward(**(point | change), **box)).real

    for name, scale in (("S", 1 + 0.3j), ("incident", 1 - 0.7j), ("dq", 1e7)) + (() if tied else (("s_0", 1),)):
        direction = scale * rng.normal(size=point[name].shape)
        expected = _directional(lambda h: loss(**{name: point[name] + h * direction}), 0.05)  # noqa: B023
        got = np.sum(np.conj(getattr(adj, name)) * direction).real
        # Rounding leaves eps |L| / step = 1e-14; the step^6 term is near 1e-10 of the derivative.
        size = np.linalg.norm(getattr(adj, name)) * np.linalg.norm(direction)
        assert abs(got - expected) < 1e-8 * size, name


def test_adjoint_of_a_vacuum_voxel_is_the_derivative_there(problem, asymmetric):
    p = problem((3, 1, 3), asymmetric)
    p.S[1, 0, 1] = p.s_0[1, 0, 1] = 0
    adj = reference.adjoint(p.S, p.dq, p.adj_E_h, s_0=p.s_0, **p.physics)
    for unit in (1, 1j):

        def loss(h, unit=unit):
            S = p.S.copy()
            S[1, 0, 1] = h * unit
            return np.sum(np.conj(p.adj_E_h) * reference.forward(S, p.dq, s_0=p.s_0, **p.physics)).real

        got = (np.conj(adj.S[1, 0, 1]) * unit).real
        # As above: twice extrapolated central differences are good to 1e-10.
        assert abs(got - _directional(loss, 0.05)) < 1e-8 * np.abs(adj.S).max()


def test_point_source_is_the_riemann_function(gold):
    dx, nz = 2e-9, 300
    voxel = (dx / np.tan(gold["two_theta"]), dx, dx)
    row = np.zeros((1, 2 * nz))
    row[0, nz] = 1 / dx
    E_h, E_0 = reference.forward(
        np.ones((nz, 1, nz + 1)), [[0, 0, 0]], voxel=voxel, incident=row, return_E_0=True, **gold
    )
    column = np.arange(nz)
    expected, _ = reference.point_source((column + 0.5) * dx, nz * voxel[0], **gold)
    # Second order in dx: 2e-6 at dx = 1 nm and 1 um, 8e-6 at 2 nm.
    assert np.linalg.norm(E_h[0, 0, 1:] - expected) < 8e-6 * np.linalg.norm(expected)
    _, expected = reference.point_source((column[:-1] + 1) * dx, nz * voxel[0], **gold)
    assert np.linalg.norm(E_0[0, 0, 1:nz] - expected) < 8e-6 * np.linalg.norm(expected)


def test_darwin_integral_tends_to_the_half_space_reflection(gold):
    physics = gold | {"chi_0": gold["chi_0"].real, "chi_h": gold["chi_h"].real}
    k = 2 * np.pi / gold["wavelength"]
    for eta in (0.0, 0.5, -0.8):
        D = k * (physics["chi_0"] - eta * physics["chi_h"])
        X = np.linspace(180e-6, 200e-6, 401)
        r = reference.darwin_half_space(X, D, **physics)
        # What is left at the end kappa X of the integral falls as (kappa X)^{-3/2}, 5e-4 at kappa X = 200.
        assert abs(r.mean() - 1j * (np.sqrt(1 - eta**2) + 1j * eta)) < 5e-4
