"""Transports shift and box in gauges that no frame sees: which rows, values decide, and it does not show."""

import numpy as np
import pytest
from pendel import reference
from pendel.operator import _core

DTYPES = ["complex128", "complex64"]
NAMES = ("S", "s_0", "incident", "dq")


def rows_of(op, p, s_0=None):
    S = np.ascontiguousarray(p.S, op.dtype)
    return _core.lifted_rows(op.plan, S=S, s_0=None if s_0 is None else np.ascontiguousarray(s_0, op.real_dtype))


def results_of(op, p, **given):
    """All that an operator hands out, by name."""
    E_h, state = op.forward(p.S, p.dq, p.s_0, p.incident, return_state=True)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, p.s_0, p.incident, state=state, **given)
    return {"E_h": E_h, "E_0": state.E_0_row} | {name: getattr(adj, name) for name in NAMES}


def oracle_of(op, p, oracle_kwargs):
    known = oracle_kwargs(p, op, s_0=p.s_0, incident=p.incident)
    E_h, E_0 = reference.forward(p.S, p.dq, return_E_0=True, **known)
    adj = reference.adjoint(p.S, p.dq, p.adj_E_h, **known)
    return {"E_h": E_h, "E_0": E_0} | {name: getattr(adj, name) for name in NAMES}


def quarter_of_a_beat(p):
    """|S| of a voxel that sends nearly all of E_0 into G: |m00| is near 0."""
    k = 2 * np.pi / p.physics["wavelength"]
    coupling = k / 2 / np.sqrt(np.cos(p.physics["two_theta"])) * p.physics["polarization_factor"]
    chi = np.sqrt(abs(p.physics["chi_h"] * p.physics["chi_hbar"]))
    return 0.5 * np.pi / (p.physics["voxel"][0] * coupling * chi)


@pytest.mark.parametrize("transport", ["shift", "box"])
def test_a_row_is_lifted_unless_one_of_its_voxels_is_too_thick(
    problem, operator_of, asymmetric, overwhelming, transport
):
    p = problem((5, 3, 7), asymmetric, transport=transport)
    assert rows_of(operator_of(p), p, p.s_0) == [True] * 3
    p.S[2, 1, 3] = quarter_of_a_beat(p)
    assert rows_of(operator_of(p), p, p.s_0) == [True, False, True]
    p = problem((5, 3, 7), overwhelming, transport=transport)
    assert rows_of(operator_of(p), p) == [False] * 3
    assert rows_of(operator_of(p, transport="fourier"), p) == [False] * 3  # which has no gauge of E_0
    p.S[0, 0, 0] = np.nan
    assert rows_of(operator_of(p), p) == [False] * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("move", [("shift", 1), ("shift", 2), ("shift", 3), ("box", 0.4), ("box", 1.3)], ids=str)
@pytest.mark.parametrize("n, resync", [(3, None), (37, None), (3, 3), (37, 4)])
def test_crystals_of_both_kinds_of_rows_equal_the_oracle(
    problem, operator_of, relative, tolerance, asymmetric, oracle_kwargs, move, n, resync, dtype
):
    p = problem((9, 3, 21), asymmetric, n, *move)
    p.S[4, 1, 8] = quarter_of_a_beat(p)
    op = operator_of(p, dtype, resync=resync)
    assert rows_of(op, p, p.s_0) == [True, False, True]
    expected = oracle_of(op, p, oracle_kwargs)
    got = results_of(op, p)
    for name in ("E_h", "S", "s_0", "dq"):
        assert relative(got[name], expected[name]) < tolerance[dtype], name
    for y in range(3):  # rows that are not lifted have larger fields
        assert relative(got["S"][:, y], expected["S"][:, y]) < tolerance[dtype], y
    assert relative(op.forward(p.S, p.dq, p.s_0, p.incident, return_E_0=True)[1], expected["E_0"]) < tolerance[dtype]
    for threads in (1, 3):
        again = results_of(operator_of(p, dtype, resync=resync, threads=threads), p)
        assert all(np.array_equal(again[name], got[name]) for name in got)


def thick(p, factor):
    """One voxel that scatters ever more: |m00| comes down to a quarter."""
    p.S[1, 0, 2] = factor


def absorbing(p, factor):
    """Absorption until a gauge is too small."""
    p.s_0[:] = factor


def unequal(p, factor):
    """Strong scattering in many layers: the gauges part from each other."""
    p.S *= factor / np.abs(p.S).max()


BORDERS = {
    "thick": (thick, (4, 1, 6), {"chi_0": -1.2e-2 + 2e-3j, "chi_h": 1.0e-2 - 1e-3j}, 0.1, 1),
    "absorbing": (absorbing, (40, 1, 21), {"chi_0": -1e-3 + 3e-3j, "chi_h": 5e-4 - 5e-5j}, 0.3, 3),
    "unequal": (unequal, (64, 1, 21), {"chi_0": -9.4e-5 + 8.5e-6j, "chi_h": 5.3e-5 - 6.0e-6j}, 20, 200),
}


def at_the_border(lifted, low, high):
    """The last factor whose crystal is lifted and the first whose is not, a rounding apart."""
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return low, high
        low, high = (middle, high) if lifted(middle) else (low, middle)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", ["shift", "box"])
@pytest.mark.parametrize("border", BORDERS)
def test_the_answer_is_the_same_on_both_sides_of_the_border(
    problem, operator_of, relative, tolerance, gold, oracle_kwargs, border, transport, dtype
):
    change, shape, chi, low, high = BORDERS[border]
    p = problem(shape, gold | chi, n=3, transport=transport)
    op = operator_of(p, dtype)
    S, s_0 = 0.5 * p.S, p.s_0.copy()

    def make(factor):
        p.S, p.s_0 = S.copy(), s_0.copy()
        change(p, factor)
        p.S, p.s_0 = p.S.astype(dtype), p.s_0.astype(op.real_dtype)

    def lifted(factor):
        make(factor)
        return rows_of(op, p, p.s_0) == [True]

    low, high = at_the_border(lifted, low, high)
    assert lifted(low) and not lifted(high)
    results = []
    for factor in (low, high):
        make(factor)
        results.append(results_of(op, p))
        expected = oracle_of(op, p, oracle_kwargs)
        for name in ("E_h", "S", "s_0", "dq"):
            assert relative(results[-1][name], expected[name]) < tolerance[dtype], name
    for name in results[0]:
        assert relative(results[0][name], results[1][name]) < tolerance[dtype], name


@pytest.mark.parametrize("transport", ["shift", "box"])
def test_gauges_begin_anew_where_fields_are_taken_up_again(
    problem, operator_of, relative, gold, oracle_kwargs, transport
):
    """So an absorbing crystal that is not lifted as a whole is lifted by segments."""
    p = problem((40, 1, 21), gold | {"chi_0": -1e-3 + 3e-3j, "chi_h": 5e-4 - 5e-5j}, n=5, transport=transport)
    p.s_0[:] = 3
    whole, segments = (operator_of(p, resync=k) for k in (None, 8))
    assert [rows_of(op, p, p.s_0) for op in (whole, segments)] == [[False], [True]]
    got, expected = results_of(segments, p), oracle_of(segments, p, oracle_kwargs)
    for name in ("E_h", "S", "s_0", "dq"):
        assert relative(got[name], expected[name]) < 1e-11, name
