"""The paper's scheme: against its oracle, against `strang`, and its adjoint."""

import numpy as np
import pendel
import pytest
from pendel import reference
from pendel.reference import etd2rk as reference_etd2rk


def _operator(operator_of, p, **change):
    return operator_of(p, scheme="etd2rk", **change)


@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize("shape, n", [((7, 3, 9), 3), ((1, 1, 1), 1), ((5, 1, 33), 17), ((16, 2, 20), 5)])
def test_forward_equals_the_oracle(
    problem, operator_of, oracle_kwargs, asymmetric, relative, tolerance, shape, n, dtype
):
    p = problem(shape, asymmetric, n=n, transport="fourier")
    op = _operator(operator_of, p, dtype=dtype)
    keywords = oracle_kwargs(p, op, p.s_0, p.incident)
    del keywords["transport"]
    E_h, E_0 = op.forward(p.S, p.dq, p.s_0, p.incident, return_E_0=True)
    expected, expected_0 = reference_etd2rk.forward(p.S, p.dq, return_E_0=True, **keywords)
    assert relative(E_h, expected) < tolerance[dtype]
    assert relative(E_0, expected_0) < tolerance[dtype]


def test_phi_functions_are_accurate_near_zero():
    z = 1j * np.array([0, 1e-12, 1e-6, 1e-3, 0.3, 0.999, 1.001, 3.0])
    _, phi_1, phi_2 = reference_etd2rk.phi_functions(z)
    # Taylor about 0 to the fourth term: z^4 / 120 = 1e-14 at 1e-3.
    small = np.abs(z) < 2e-3
    assert np.abs(phi_1 - (1 + z / 2 + z**2 / 6 + z**3 / 24))[small].max() < 2e-14
    assert np.abs(phi_2 - (0.5 + z / 6 + z**2 / 24 + z**3 / 120))[small].max() < 2e-14
    assert np.abs(phi_1 * z - np.expm1(z)).max() < 1e-14  # rounding of 64 averaged values


def test_a_small_step_keeps_its_phi_functions_in_single_precision(problem, operator_of, gold, relative, tolerance):
    """0.002 pixels per layer: phi_2 by its quotient would have no digit left in float32."""
    p = problem((40, 1, 24), gold, n=2, transport="fourier", pixels=0.002)
    double, single = (_operator(operator_of, p, dtype=d).forward(p.S, p.dq) for d in ("complex128", "complex64"))
    assert relative(single, double) < tolerance["complex64"]


def test_converges_with_slope_2_to_the_same_solution_as_strang(gold):
    DX, NX, thickness = 8e-9, 96, 0.5e-6
    dq = np.array([[0, 0, 0.0], [0, 0, 2e7]])

    def S(x, y, z):
        size = np.exp(-((x / 0.12e-6) ** 2) - ((z - thickness / 2) / 0.09e-6) ** 2)
        return size * np.exp(2.5j * np.sin(2 * np.pi * x / thickness + 0.3))

    exact = reference.blanes_moan(S, dq, shape=(1, 1, NX), voxel=(thickness, DX, DX), steps=128, row_length=192, **gold)
    counts, errors = np.array([64, 128, 256]), []
    for nz in counts:
        op = pendel.TakagiTaupin(
            (nz, 1, NX), (thickness / nz, DX, DX), scheme="etd2rk", dtype="complex128", **gold
        )  # fmt: skip
        z, x = (np.arange(nz) + 0.5) * thickness / nz, (np.arange(NX) - NX // 2) * DX
        E_h = op.forward(np.asarray(S(x, 0, z[:, None, None])), dq)
        errors.append(np.linalg.norm(E_h - exact) / np.linalg.norm(exact))
    # 0.1: what the next order bends the line by, at this many steps.
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["S", "tied", "s_0", "incident", "dq"])
@pytest.mark.parametrize("nz", [1, 2, 7, 16])
def test_adjoint_by_finite_differences(problem, operator_of, asymmetric, rng, name, nz):
    p = problem((nz, 2, 9), asymmetric, n=3, transport="fourier")
    op = _operator(operator_of, p)
    point = {"S": p.S, "s_0": None if name == "tied" else p.s_0, "incident": p.incident, "dq": p.dq}
    name = "S" if name == "tied" else name
    size = point[name].shape
    direction = rng.normal(size=size) * (1e7 if name == "dq" else 1)
    if name in ("S", "incident"):
        direction = direction + 1j * rng.normal(size=size)
    got = np.sum(np.conj(getattr(op.adjoint(adj_E_h=p.adj_E_h, **point), name)) * direction).real

    def L(h):
        return np.sum(np.conj(p.adj_E_h) * op.forward(**(point | {name: point[name] + h * direction}))).real

    # Central differences, twice extrapolated: error step^6 = 4e-9 of the third-derivative scale, rounding 1e-14 / step.
    d = [(L(s) - L(-s)) / (2 * s) for s in (0.04, 0.02, 0.01)]
    d = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    scale = np.linalg.norm(getattr(op.adjoint(adj_E_h=p.adj_E_h, **point), name)) * np.linalg.norm(direction)
    assert abs(got - (16 * d[1] - d[0]) / 15) < 1e-8 * scale


def test_adjoint_in_single_precision_is_near_the_double_one(problem, operator_of, asymmetric, relative):
    p = problem((33, 2, 16), asymmetric, n=17, transport="fourier")
    arguments = (p.S, p.dq, p.adj_E_h, p.s_0, p.incident)
    single, double = (_operator(operator_of, p, dtype=d).adjoint(*arguments) for d in ("complex64", "complex128"))
    for a, b in zip(single, double, strict=True):
        assert relative(a, b) < 5e-4  # eps = 6e-8, some 1e3 operations, sums over 17 angles that partly cancel


def test_support_masks_the_gradient_and_threads_do_not_matter(problem, operator_of, asymmetric, rng, relative):
    p = problem((9, 3, 12), asymmetric, n=5, transport="fourier")
    p.S[:2] = 0
    support = rng.random(p.shape) < 0.5
    ops = [_operator(operator_of, p, threads=t) for t in (1, 2, 3)]
    parts = [op.adjoint(p.S, p.dq, p.adj_E_h, support=support).S for op in ops]
    assert all(np.array_equal(parts[0], part) for part in parts)
    assert relative(parts[0], ops[0].adjoint(p.S, p.dq, p.adj_E_h).S * support) < 1e-12  # the same sums, rounded


def test_shift_transport_is_refused():
    with pytest.raises(ValueError, match="transport: expected 'fourier' or 'auto' with scheme 'etd2rk', got 'shift'"):
        pendel.TakagiTaupin((2, 2, 2), (8e-9, 8e-9, 8e-9), 1.5e-10, 0.78, 0, 1e-5, scheme="etd2rk", transport="shift")
