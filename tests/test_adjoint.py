"""The operator's adjoint: the derivative of its own forward sweep, for every input, and equality with the oracle."""

import numpy as np
import pytest
from pendel import reference

DTYPES = ["complex128", "complex64"]
TRANSPORTS = ["shift", "fourier", "box"]
# Natural size of a change of each input; dq is in rad/m and boxes are some 50 nm wide.
SCALE = {"S": 1, "s_0": 1, "incident": 1, "dq": 1e7}


def _inputs(p, tied=False, beam=True):
    return {"S": p.S, "s_0": None if tied else p.s_0, "dq": p.dq, "incident": p.incident if beam else None}


def _direction(rng, name, shape):
    if name in ("S", "incident"):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return SCALE[name] * rng.normal(size=shape)


def _inner(a, b):
    """Re sum conj(a) b, the pairing of the adjoint convention."""
    return np.sum(np.conj(a) * b).real


def _derivative(f, step):
    """Central differences at step, step/2, step/4, twice extrapolated: the error is of order step^6.

    With step = 0.04 and functions that vary on a scale above 0.5 that is 1e-8^(6/5) or less; rounding adds
    eps / step = 1e-14.
    """
    d = [(f(step * 2.0**-j) - f(-step * 2.0**-j)) / (2 * step * 2.0**-j) for j in range(3)]
    d = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    return (16 * d[1] - d[0]) / 15


CASES = [("S", False), ("S", True), ("s_0", False), ("incident", False), ("dq", False)]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name, tied", CASES)
def test_directional_derivative_by_finite_differences(problem, operator_of, asymmetric, rng, transport, name, tied):
    p = problem((7, 3, 9), asymmetric, n=3, transport=transport)
    op, point = operator_of(p), _inputs(p, tied)
    adj = op.adjoint(adj_E_h=p.adj_E_h, **point)
    direction = _direction(rng, name, point[name].shape)
    expected = _derivative(
        lambda h: _inner(p.adj_E_h, op.forward(**(point | {name: point[name] + h * direction}))), 0.04
    )
    got = _inner(getattr(adj, name), direction)
    # 1e-8: see _derivative. Relative to |gradient| |direction|, since the inner product itself may cancel.
    assert abs(got - expected) < 1e-8 * np.linalg.norm(getattr(adj, name)) * np.linalg.norm(direction)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("component", [0, 1, 2])
def test_each_component_of_dq_by_finite_differences(problem, operator_of, asymmetric, transport, component):
    p = problem((6, 3, 8), asymmetric, n=3, transport=transport)
    op = operator_of(p)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h)
    assert adj.dq.shape == (3, 3) and np.isrealobj(adj.dq)
    for frame in range(3):

        def loss(h, frame=frame):
            dq = p.dq.copy()
            dq[frame, component] += h * SCALE["dq"]
            return _inner(p.adj_E_h, op.forward(p.S, dq))

        # 1e-8: see _derivative.
        assert abs(adj.dq[frame, component] * SCALE["dq"] - _derivative(loss, 0.04)) < 1e-8 * np.abs(adj.dq).max() * 1e7


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name, tied", CASES)
def test_taylor_remainder_has_slope_2(problem, operator_of, asymmetric, rng, transport, name, tied):
    p = problem((7, 3, 9), asymmetric, n=3, transport=transport)
    op, point = operator_of(p), _inputs(p, tied)
    weight = rng.uniform(0.5, 1.5, p.adj_E_h.shape)

    def loss(h, direction):
        E_h = op.forward(**(point | {name: point[name] + h * direction}))
        return 0.5 * np.sum(weight * np.abs(E_h - p.adj_E_h) ** 2)

    adj = op.adjoint(adj_E_h=weight * (op.forward(**point) - p.adj_E_h), **point)
    direction = _direction(rng, name, point[name].shape)
    steps = 0.02 * 2.0 ** -np.arange(5)
    slope = _inner(getattr(adj, name), direction)
    remainder = [abs(loss(h, direction) - loss(0, direction) - h * slope) for h in steps]
    # A wrong gradient gives slope 1; 0.1 is what the third order bends the line by at these steps.
    assert np.polyfit(np.log(steps), np.log(remainder), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_full_jacobian_of_a_tiny_crystal(problem, operator_of, asymmetric, transport):
    """Every entry of dE_h / d(S, s_0, incident, dq), so that no error in a small term can hide."""
    p = problem((3, 2, 3), asymmetric, n=2, transport=transport)
    op, point = operator_of(p), _inputs(p)
    outputs = p.adj_E_h.size
    columns = {name: [] for name in point}  # by the adjoint: one output at a time, real then imaginary part
    for unit in (1, 1j):
        for output in range(outputs):
            seed = np.zeros(outputs, complex)
            seed[output] = unit
            adj = op.adjoint(adj_E_h=seed.reshape(p.adj_E_h.shape), **point)
            for name in point:
                columns[name].append(getattr(adj, name).ravel())
    for name, value in point.items():
        by_adjoint, differences = np.array(columns[name]) * SCALE[name], []
        for unit in (1, 1j) if np.iscomplexobj(value) else (1,):
            for entry in range(value.size):

                def moved(h, unit=unit, entry=entry):  # real part, then imaginary part, of the exit field
                    at = value.copy()  # noqa: B023
                    at.ravel()[entry] += h * unit * SCALE[name]  # noqa: B023
                    E_h = op.forward(**(point | {name: at})).ravel()  # noqa: B023
                    return np.concatenate([E_h.real, E_h.imag])

                differences.append(_derivative(moved, 0.04))
        differences = np.array(differences).T
        if np.iscomplexobj(value):
            by_adjoint = np.concatenate([by_adjoint.real, by_adjoint.imag], 1)
        # 1e-8 of the largest entry: see _derivative.
        assert np.abs(by_adjoint - differences).max() < 1e-8 * np.abs(differences).max(), name


@pytest.mark.parametrize("dtype, factor", [("complex128", 300), ("complex64", 300)])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_dot_product_identity_on_the_linear_argument(problem, operator_of, asymmetric, rng, transport, dtype, factor):
    """<F x, y> = <x, F^H y> for the incident field, against |y| |F x| / sqrt(n): a few hundred roundings."""
    p = problem((12, 3, 17), asymmetric, n=5, transport=transport)
    op = operator_of(p, dtype)
    F_x = op.forward(p.S, p.dq, incident=p.incident)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, incident=p.incident)
    size = np.linalg.norm(p.adj_E_h) * np.linalg.norm(F_x) / np.sqrt(F_x.size)
    eps = np.finfo(dtype).eps
    assert abs(_inner(F_x, p.adj_E_h) - _inner(p.incident, adj.incident)) < factor * eps * size


def test_kinematic_operator_is_linear_in_S_and_its_adjoint_is_exact(problem, operator_of, gold):
    p = problem((12, 3, 17), gold | {"chi_0": 0, "chi_hbar": 0}, n=5)
    op = operator_of(p)
    F_S = op.forward(p.S, p.dq)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h)
    size = np.linalg.norm(p.adj_E_h) * np.linalg.norm(F_S) / np.sqrt(F_S.size)
    # A few hundred roundings, as above.
    assert abs(_inner(F_S, p.adj_E_h) - _inner(p.S, adj.S)) < 300 * np.finfo(float).eps * size
    assert np.abs(op.forward(2 * p.S, p.dq) - 2 * F_S).max() < 1e-14 * np.abs(F_S).max()


# Of the gradient, relative L2: double is limited by rounding in the reverse sweep; single by its measured drift, 2e-5
# over 175 steps, with room for the strong coupling used here.
BOUND = {"complex128": 1e-10, "complex64": 5e-4}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "shape, n", [((5, 3, 7), 3), ((1, 1, 1), 1), ((4, 3, 1), 17), ((6, 1, 9), 2), ((9, 2, 33), 9), ((5, 1, 19), 41)]
)
def test_gradients_equal_the_oracle(
    problem, operator_of, oracle_kwargs, relative, asymmetric, shape, n, transport, tied, dtype
):
    p = problem(shape, asymmetric, n=n, transport=transport)
    op = operator_of(p, dtype)
    s_0 = None if tied else p.s_0
    beam = None if tied else p.incident
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, s_0=s_0, incident=beam)
    expected = reference.adjoint(p.S, p.dq, p.adj_E_h, **oracle_kwargs(p, op, s_0=s_0, incident=beam))
    assert relative(adj.S, expected.S) < BOUND[dtype]
    assert np.abs(adj.dq - expected.dq).max() < BOUND[dtype] * np.abs(expected.dq).max()
    assert adj.incident.shape == shape[1:]
    if beam is not None:
        # The oracle's row folded onto the pixels: the transpose of the padding, which is linear, the same in each row.
        padding = [op.incident_row(np.tile(unit, (shape[1], 1)))[0] for unit in np.eye(shape[2])]
        assert relative(adj.incident, expected.incident @ np.transpose(padding)) < BOUND[dtype]
    if tied:
        assert adj.s_0 is None
    else:
        assert relative(adj.s_0, expected.s_0) < BOUND[dtype]
        assert np.isrealobj(adj.s_0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gradients_under_coupling_beyond_a_short_series_equal_the_oracle(
    problem, operator_of, oracle_kwargs, relative, overwhelming, transport, dtype
):
    p = problem((3, 2, 6), overwhelming, transport=transport)
    p.S[1, 0, :3] *= 1e-3
    op = operator_of(p, dtype)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, s_0=p.s_0)
    expected = reference.adjoint(p.S, p.dq, p.adj_E_h, **oracle_kwargs(p, op, s_0=p.s_0))
    assert relative(adj.S, expected.S) < BOUND[dtype]
    assert relative(adj.s_0, expected.s_0) < BOUND[dtype]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gradient_at_vacuum_voxels(problem, operator_of, oracle_kwargs, relative, asymmetric, transport):
    p = problem((5, 2, 7), asymmetric, n=3, transport=transport)
    empty = np.zeros(p.shape, bool)
    empty[:, :, :2] = empty[2] = empty[0, 1] = True  # columns, a whole layer, a whole row
    p.S[empty] = 0
    op = operator_of(p)
    # With s_0 = 0 there as well: pure vacuum.
    s_0 = np.where(empty, 0, p.s_0)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, s_0=s_0)
    expected = reference.adjoint(p.S, p.dq, p.adj_E_h, **oracle_kwargs(p, op, s_0=s_0))
    assert np.abs(expected.S[empty]).min() > 0
    assert relative(adj.S[empty], expected.S[empty]) < BOUND["complex128"]
    assert relative(adj.s_0[empty], expected.s_0[empty]) < BOUND["complex128"]
    # Tied s_0 = |S|: the path through |S| counts nothing at S = 0, and the direct path remains.
    tied, free = op.adjoint(p.S, p.dq, p.adj_E_h), op.adjoint(p.S, p.dq, p.adj_E_h, s_0=np.abs(p.S))
    assert np.isfinite(tied.S).all()
    # The same sweep twice: rounding only.
    assert relative(tied.S[empty], free.S[empty]) < 1e-13
    phase = np.where(empty, 0, np.exp(1j * np.angle(p.S)))
    assert relative(tied.S, free.S + free.s_0 * phase) < 1e-13


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gradient_at_an_empty_box_is_the_kinematic_one(problem, operator_of, relative, asymmetric, transport):
    p = problem((5, 2, 7), asymmetric, n=3, transport=transport)
    p.S[:] = 0
    dynamical, kinematic = operator_of(p), operator_of(p, chi_0=0, chi_hbar=0)
    # First order in S is all there is at S = 0: only rounding differs.
    assert relative(dynamical.adjoint(p.S, p.dq, p.adj_E_h).S, kinematic.adjoint(p.S, p.dq, p.adj_E_h).S) < 1e-13
    assert not dynamical.forward(p.S, p.dq).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("tied", [True, False])
def test_support_returns_the_masked_full_gradient(
    problem, operator_of, relative, asymmetric, rng, transport, tied, dtype
):
    p = problem((6, 4, 9), asymmetric, n=5, transport=transport)
    support = rng.uniform(size=p.shape) < 0.5
    support[2], support[:, 1] = False, False
    p.S[~support & (rng.uniform(size=p.shape) < 0.5)] = 0
    op, point = operator_of(p, dtype), _inputs(p, tied)
    full, masked = op.adjoint(adj_E_h=p.adj_E_h, **point), op.adjoint(adj_E_h=p.adj_E_h, support=support, **point)
    bound = 100 * np.finfo(dtype).eps  # the same arithmetic where it is done at all
    assert relative(masked.S, np.where(support, full.S, 0)) < bound
    assert not masked.S[~support].any()
    if not tied:
        assert relative(masked.s_0, np.where(support, full.s_0, 0)) < bound
        assert not masked.s_0[~support].any()
    assert relative(masked.incident, full.incident) < bound
    assert relative(masked.dq, full.dq) < bound


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seed", range(16))
def test_gradients_of_scattered_crystals_and_supports_equal_the_oracle(
    problem, operator_of, oracle_kwargs, asymmetric, transport, seed
):
    """Vacuum outside the support is skipped: whole layers, rows and columns, gaps in between, single voxels.

    And frames fill one pack of lanes, several, or pairs of packs and one more.
    """
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(1, 12, 3)) if seed % 4 else (7, 2, 37)
    most = 1.5 if transport == "box" else 2.5
    pixels = int(random.integers(1, 4)) if transport == "shift" else random.uniform(0.3, most)
    n = int(random.integers(1, 6)) if seed % 3 else int(random.integers(9, 30))
    p = problem(shape, asymmetric, n=n, transport=transport, pixels=pixels)
    support = random.uniform(size=shape) < 0.6
    for axis, size in enumerate(shape):
        support[(slice(None),) * axis + (random.uniform(size=size) < 0.2,)] = False
    p.S[~support | (random.uniform(size=shape) < 0.3)] = 0  # vacuum inside the support as well
    s_0 = np.where(support, p.s_0, 0) if seed % 2 else None
    op = operator_of(p)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, s_0=s_0, support=support)
    expected = reference.adjoint(p.S, p.dq, p.adj_E_h, **oracle_kwargs(p, op, s_0=s_0))
    pairs = [(adj.S, support * expected.S), (adj.dq, expected.dq)]
    if s_0 is not None:
        pairs.append((adj.s_0, support * expected.s_0))
    for got, wanted in pairs:
        assert np.linalg.norm(got - wanted) <= BOUND["complex128"] * np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_state_of_the_forward_sweep_changes_only_rounding(problem, operator_of, relative, asymmetric, transport, dtype):
    p = problem((6, 3, 9), asymmetric, n=5, transport=transport)
    op, point = operator_of(p, dtype), _inputs(p)
    E_h, state = op.forward(return_state=True, **point)
    assert np.array_equal(E_h, op.forward(**point))
    with_state = op.adjoint(adj_E_h=p.adj_E_h, state=state, **point)
    without = op.adjoint(adj_E_h=p.adj_E_h, **point)
    bound = 100 * np.finfo(dtype).eps  # the same sweep; at most rounding
    for name in point:
        assert relative(getattr(with_state, name), getattr(without, name)) < bound
    # The state may be used again.
    again = op.adjoint(adj_E_h=p.adj_E_h, state=state, **point)
    assert np.array_equal(again.S, with_state.S)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_single_precision_gradient_over_many_layers(problem, operator_of, relative, gold, transport):
    p = problem((175, 2, 24), gold, n=5, transport=transport)
    double, single = (operator_of(p, t).adjoint(p.S, p.dq, p.adj_E_h, incident=p.incident) for t in DTYPES)
    # fp32 forward error 5e-6, reversal 2e-5 after 175 absorbing steps; the gradient is a product of both.
    assert single.S.dtype == np.complex64
    assert relative(single.S, double.S) < 5e-4
    assert relative(single.incident, double.incident) < 5e-4
    assert np.abs(single.dq - double.dq).max() < 5e-4 * np.abs(double.dq).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gradients_do_not_depend_on_the_thread_count(problem, operator_of, asymmetric, transport, dtype):
    p = problem((6, 5, 7), asymmetric, n=17, transport=transport)
    runs = [operator_of(p, dtype, threads=n).adjoint(adj_E_h=p.adj_E_h, **_inputs(p)) for n in (1, 2, 3, None)]
    for run in runs[1:]:
        for name in ("S", "s_0", "incident", "dq"):
            assert np.array_equal(getattr(run, name), getattr(runs[0], name)), name


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gradient_is_additive_over_frames(problem, operator_of, relative, asymmetric, transport):
    p = problem((5, 2, 7), asymmetric, n=11, transport=transport)
    op = operator_of(p)
    whole = op.adjoint(p.S, p.dq, p.adj_E_h)
    parts = [op.adjoint(p.S, p.dq[i], p.adj_E_h[i]) for i in (slice(0, 1), slice(1, 9), slice(9, 11))]
    # Another order of the sum over frames: rounding only.
    assert relative(whole.S, sum(part.S for part in parts)) < 1e-13
    assert relative(whole.dq, np.concatenate([part.dq for part in parts])) < 1e-13
