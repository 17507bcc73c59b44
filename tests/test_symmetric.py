"""The sweep with z along k_0 + k_h: equality with its oracle, invariants, and the adjoint for every input."""

import numpy as np
import pendel
import pytest
from pendel.reference import symmetric as reference_symmetric

DTYPES = ["complex128", "complex64"]
TRANSPORTS = ["shift", "fourier"]
# Natural size of a change of each input; dq is in rad/m and boxes are some 50 nm wide.
SCALE = {"S": 1, "s_0": 1, "incident": 1, "dq": 1e7}


@pytest.fixture
def make(problem, operator_of, voxel_of, asymmetric, rng):
    """Maker of a rough random problem in this orientation and its operator (complex128)."""

    def make(shape, n=2, transport="shift", pixels=None, degrees=44.76, physics=asymmetric, **change):
        p = problem(shape, physics | {"two_theta": np.deg2rad(degrees), "orientation": "symmetric"}, n, transport)
        pixels = {"shift": 1, "fourier": 0.83}[transport] if pixels is None else pixels
        p.physics["voxel"] = voxel_of(np.deg2rad(degrees) / 2, pixels)
        op = operator_of(p, **change)
        size = (n, *op.exit_shape)
        p.adj_E_h = rng.normal(size=size) + 1j * rng.normal(size=size)
        return p, op

    return make


def _oracle(p, op, s_0=None, incident=None):
    """Keywords of the oracle; it takes the incident row padded."""
    return {name: value for name, value in p.physics.items() if name != "orientation"} | {
        "transport": p.transport,
        "row_length": op.row_length,
        "s_0": s_0,
        "incident": None if incident is None else op.incident_row(incident),
    }


def _inner(a, b):
    return np.sum(np.conj(a) * b).real


def _derivative(f, step):
    """Central differences, twice extrapolated: error of order step^6, 1e-8 or less at 0.04; rounding eps / step."""
    d = [(f(step * 2.0**-j) - f(-step * 2.0**-j)) / (2 * step * 2.0**-j) for j in range(3)]
    d = [(4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3]
    return (16 * d[1] - d[0]) / 15


def _direction(rng, name, shape):
    return SCALE[name] * (rng.normal(size=shape) + (1j * rng.normal(size=shape) if name in ("S", "incident") else 0))


# Of the gradient, relative L2, as in test_adjoint.py: rounding in the reverse sweep.
BOUND = {"complex128": 1e-10, "complex64": 5e-4}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport, pixels", [("shift", 1), ("shift", 3), ("fourier", 0.83), ("fourier", 2.4)])
@pytest.mark.parametrize("degrees", [44.76, 90, 160])
@pytest.mark.parametrize("shape, n", [((5, 3, 7), 3), ((1, 1, 1), 1), ((4, 3, 1), 17), ((9, 2, 33), 9)])
def test_fields_and_gradients_equal_the_oracle(make, relative, tolerance, shape, n, degrees, transport, pixels, dtype):
    p, op = make(shape, n, transport, pixels, degrees, dtype=dtype)
    E_h, E_0, state = op.forward(p.S, p.dq, p.s_0, p.incident, return_E_0=True, return_state=True)
    keywords = _oracle(p, op, p.s_0, p.incident)
    expected, expected_0 = reference_symmetric.forward(p.S, p.dq, return_E_0=True, **keywords)
    assert relative(E_h, expected) < tolerance[dtype]
    assert relative(E_0, expected_0[..., op.exit_slice]) < tolerance[dtype]
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, p.s_0, p.incident, state=state)
    expected = reference_symmetric.adjoint(p.S, p.dq, p.adj_E_h, **keywords)
    assert relative(adj.S, expected.S) < BOUND[dtype]
    assert relative(adj.s_0, expected.s_0) < BOUND[dtype]
    # One voxel at x = y = 0 on the exit plane: its gradient is 0.
    assert np.abs(adj.dq - expected.dq).max() <= BOUND[dtype] * np.abs(expected.dq).max()
    # The oracle's row folded onto the pixels: the transpose of the padding, the same in each row.
    padding = [op.incident_row(np.tile(unit, (shape[1], 1)))[0] for unit in np.eye(shape[2])]
    assert relative(adj.incident, expected.incident @ np.transpose(padding)) < BOUND[dtype]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seed", range(8))
def test_scattered_crystals_equal_the_oracle(make, tolerance, transport, seed):
    """Vacuum is skipped: whole layers, rows and columns, gaps in between, single voxels."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(1, 14, 3))
    pixels = int(random.integers(1, 4)) if transport == "shift" else random.uniform(0.3, 2.5)
    p, op = make(shape, int(random.integers(1, 6)), transport, pixels, random.uniform(20, 160))
    for axis, size in enumerate(shape):
        p.S[(slice(None),) * axis + (random.uniform(size=size) < 0.3,)] = 0
    p.S[random.uniform(size=shape) < 0.5] = 0
    support = random.uniform(size=shape) < 0.3
    E_h = op.forward(p.S, p.dq, incident=p.incident)
    expected = reference_symmetric.forward(p.S, p.dq, **_oracle(p, op, incident=p.incident))
    assert np.linalg.norm(E_h - expected) <= tolerance["complex128"] * np.linalg.norm(expected)
    expected = reference_symmetric.adjoint(p.S, p.dq, p.adj_E_h, **_oracle(p, op))
    adj = op.adjoint(p.S, p.dq, p.adj_E_h)
    assert np.linalg.norm(adj.S - expected.S) <= BOUND["complex128"] * np.linalg.norm(expected.S)
    assert np.abs(adj.dq - expected.dq).max() <= BOUND["complex128"] * np.abs(expected.dq).max()
    adj = op.adjoint(p.S, p.dq, p.adj_E_h, support=support)
    assert np.linalg.norm(adj.S - expected.S * support) <= BOUND["complex128"] * np.linalg.norm(expected.S)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_coupling_beyond_a_short_series_equals_the_oracle(make, relative, tolerance, overwhelming, transport):
    p, op = make((3, 2, 6), transport=transport, physics=overwhelming)
    p.S[1, 0, :3] *= 1e-3
    expected = reference_symmetric.forward(p.S, p.dq, **_oracle(p, op))
    assert relative(op.forward(p.S, p.dq), expected) < tolerance["complex128"]
    adj, expected = (
        op.adjoint(p.S, p.dq, p.adj_E_h),
        reference_symmetric.adjoint(p.S, p.dq, p.adj_E_h, **_oracle(p, op)),
    )
    assert relative(adj.S, expected.S) < BOUND["complex128"]


def test_fourier_equals_shift_where_the_move_is_whole(make, relative):
    # Both are exact; only rounding and the beam's edge, exp(-25) = 1e-11 times S there, differ.
    p, shift = make((9, 2, 48), 3, "shift")
    _, fourier = make((9, 2, 48), 3, "fourier", 1)
    x = np.arange(48)
    beam = np.exp(-(((x - 20) / 4) ** 2)) * np.ones((2, 1)) + 0j
    p.S *= np.exp(-(((x - 24) / 5) ** 2))
    a, b = (op.forward(p.S, p.dq, incident=beam)[..., -56:] for op in (shift, fourier))
    assert shift.exit_shape == (2, 56) and fourier.exit_shape[1] > 56
    assert relative(b, a) < 1e-12


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("degrees", [44.76, 150])
def test_energy_of_a_lossless_crystal_is_conserved_on_the_rows(make, lossless, transport, degrees):
    """Both waves have the same cosine; nothing of either leaves its row, however rough the crystal."""
    p, op = make((24, 2, 20), 3, transport, degrees=degrees, physics=lossless)
    E_h, state = op.forward(p.S, p.dq, incident=p.incident, return_state=True)
    total = (np.abs(E_h) ** 2).sum((1, 2)) + (np.abs(state.E_0_row) ** 2).sum((1, 2))
    assert (np.abs(E_h) ** 2).sum((1, 2)).min() > 0.02 * total.min()
    # The scheme is unitary: 24 layers of rounding, 1e-14, remain.
    assert np.abs(total / (np.abs(op.incident_row(p.incident)) ** 2).sum() - 1).max() < 1e-12


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_waves_move_to_either_side(make, relative, gold, transport):
    """One bright pixel, one scattering voxel: E_0 goes to +x, what it scatters at layer 2 goes to -x."""
    p, op = make((6, 1, 12), 1, transport, 1, physics=gold)
    beam = np.zeros((1, 12))
    beam[0, 3] = 1
    S = np.zeros(p.shape)
    S[2, 0, 5] = 1
    E_h, E_0 = op.forward(S, np.zeros((1, 3)), incident=beam, return_E_0=True)
    assert np.abs(E_0[0, 0]).argmax() == 3 + 5
    assert np.abs(E_h[0, 0]).argmax() == op.exit_slice.start + 5 - 3
    # All of it in that pixel but rounding of the transforms.
    assert np.abs(E_h).sum() < (1 + 1e-12) * np.abs(E_h).max()


def test_light_that_leaves_on_the_left_is_kept_and_does_not_come_back(make, relative):
    """A box with vacuum on both sides gives the same field: nothing wraps into the crystal."""
    p, op = make((30, 1, 5), 3, "shift")
    E_h = op.forward(p.S, p.dq)
    wide, op_wide = make((30, 1, 65), 3, "shift")
    S = np.zeros((30, 1, 65), complex)
    S[:, :, 30:35] = p.S
    other = op_wide.forward(S, p.dq)
    start = op_wide.exit_slice.start + 30 - op.exit_slice.start
    part = other[..., start : start + E_h.shape[2]]
    # The origin of x moves from column 2 to column 32, its own crystal column: the same place. Rounding only.
    assert relative(part, E_h) < 1e-13
    assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(part), rel=1e-13)
    assert (np.abs(E_h[..., : op.exit_slice.start]) ** 2).sum() > 0.5 * (np.abs(E_h) ** 2).sum()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gauge_covariance(make, relative, gold, asymmetric, transport):
    """S -> S exp(i g.r) is dq -> dq + g, exactly: D takes g_z - tan(theta) g_x and the exit ramp all of g_x."""
    p, op = make((7, 3, 96), 3, transport, physics={"shift": asymmetric, "fourier": gold}[transport])
    dz, dy, dx = p.physics["voxel"]
    g = np.array([1.1e7, -0.7e7, 2.3e7])
    z, y, x = (np.arange(7)[:, None, None] - 6) * dz, (np.arange(3)[:, None] - 1) * dy, (np.arange(96) - 48) * dx
    if transport == "fourier":  # what lies beyond half a cycle per pixel is not turned but folded back: none here
        p.S = np.exp(-((x / dx / 8) ** 2) + 1j * np.arange(7)[:, None, None]) * np.ones((3, 1))
    turned = op.forward(p.S * np.exp(1j * (g[0] * x + g[1] * y + g[2] * z)), p.dq)
    # An identity of the scheme, so only rounding (1e-14) remains; z counts from the exit plane.
    assert relative(turned, op.forward(p.S, p.dq + g)) < 1e-12


@pytest.mark.parametrize("dtype, bound", [("complex128", 1e-12), ("complex64", 5e-5)])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_reverse_sweep_recovers_the_entrance_state(make, gold, transport, dtype, bound):
    # 256 absorbing steps forward and back, as in test_forward.py.
    p, op = make((256, 1, 24), 2, transport, physics=gold, dtype=dtype)
    assert op.reversal_error(p.S, p.dq) < bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_results_do_not_depend_on_the_thread_count(make, operator_of, transport, dtype):
    p, _ = make((6, 5, 7), 17, transport)
    ops = [operator_of(p, dtype, threads=n) for n in (1, 2, 3)]
    runs = [(op.forward(p.S, p.dq), *op.adjoint(p.S, p.dq, p.adj_E_h, p.s_0)) for op in ops]
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(run, runs[0], strict=True))


CASES = [("S", False), ("S", True), ("s_0", False), ("incident", False), ("dq", False)]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name, tied", CASES)
def test_directional_derivative_and_taylor_slope(make, rng, transport, name, tied):
    p, op = make((7, 3, 9), 3, transport)
    point = {"S": p.S, "s_0": None if tied else p.s_0, "dq": p.dq, "incident": p.incident}
    adj = op.adjoint(adj_E_h=p.adj_E_h, **point)
    direction = _direction(rng, name, point[name].shape)

    def moved(h):
        return op.forward(**(point | {name: point[name] + h * direction}))

    got, expected = _inner(getattr(adj, name), direction), _derivative(lambda h: _inner(p.adj_E_h, moved(h)), 0.04)
    # 1e-8: see _derivative. Relative to |gradient| |direction|, since the inner product itself may cancel.
    assert abs(got - expected) < 1e-8 * np.linalg.norm(getattr(adj, name)) * np.linalg.norm(direction)

    weight = rng.uniform(0.5, 1.5, p.adj_E_h.shape)

    def loss(h):
        return 0.5 * np.sum(weight * np.abs(moved(h) - p.adj_E_h) ** 2)

    adj = op.adjoint(adj_E_h=weight * (moved(0) - p.adj_E_h), **point)
    steps, slope = 0.02 * 2.0 ** -np.arange(5), _inner(getattr(adj, name), direction)
    remainder = [abs(loss(h) - loss(0) - h * slope) for h in steps]
    # A wrong gradient gives slope 1; 0.1 is what the third order bends the line by at these steps.
    assert np.polyfit(np.log(steps), np.log(remainder), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_component_of_dq_by_finite_differences(make, transport):
    p, op = make((6, 3, 8), 2, transport, degrees=130)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h)
    for frame, component in np.ndindex(2, 3):

        def loss(h, frame=frame, component=component):
            dq = p.dq.copy()
            dq[frame, component] += h * SCALE["dq"]
            return _inner(p.adj_E_h, op.forward(p.S, dq))

        # 1e-8: see _derivative.
        got = adj.dq[frame, component] * SCALE["dq"]
        assert abs(got - _derivative(loss, 0.04)) < 1e-8 * np.abs(adj.dq).max() * SCALE["dq"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_gradient_in_single_precision_is_near_the_double_one(make, operator_of, relative, transport):
    p, double = make((33, 2, 16), 17, transport)
    arguments = (p.S, p.dq, p.adj_E_h, p.s_0, p.incident)
    for a, b in zip(operator_of(p, "complex64").adjoint(*arguments), double.adjoint(*arguments), strict=True):
        assert relative(a, b) < BOUND["complex64"]


def test_kinematic_operator_is_linear_in_S_and_its_adjoint_is_exact(make, gold):
    p, op = make((12, 3, 17), 5, "fourier", physics=gold | {"chi_0": 0, "chi_hbar": 0})
    F_S, adj = op.forward(p.S, p.dq), op.adjoint(p.S, p.dq, p.adj_E_h)
    size = np.linalg.norm(p.adj_E_h) * np.linalg.norm(F_S) / np.sqrt(F_S.size)
    # A few hundred roundings.
    assert abs(_inner(F_S, p.adj_E_h) - _inner(p.S, adj.S)) < 300 * np.finfo(float).eps * size


@pytest.mark.parametrize(
    "change, message",
    [
        ({"orientation": "k_0"}, "orientation: expected one of 'k_h', 'symmetric', got 'k_0'"),
        (
            {"orientation": "k_h", "two_theta": np.pi / 2},
            "two_theta: expected an angle in rad, 0 < two_theta < pi/2, got",
        ),
        ({"orientation": "k_h", "two_theta": 2.0}, "got 2.0; orientation='symmetric' goes up to 178 deg"),
        ({"two_theta": np.pi}, "two_theta: expected an angle in rad, 0 < two_theta < 178 deg, got 3.14"),
        ({"two_theta": 0.0}, "two_theta: expected an angle in rad, 0 < two_theta < 178 deg, got 0.0"),
        ({"scheme": "etd2rk"}, "scheme: expected 'strang' with orientation 'symmetric', got 'etd2rk'"),
        ({"voxel": (1e-5, 8e-9, 8e-9), "two_theta": 3.0}, r"voxel: expected dz tan\(two_theta / 2\) / dx <= 1000"),
        ({"transport": "shift"}, r"whole number >= 1 of pixels dz tan\(two_theta / 2\) / dx, here 0.41"),
    ],
)
def test_constructor_refuses(change, message, gold):
    settings = gold | {"orientation": "symmetric", "shape": (3, 2, 4), "voxel": (8e-9, 8e-9, 8e-9)}
    with pytest.raises(ValueError, match=message):
        pendel.TakagiTaupin(**(settings | change))


def test_adjoint_takes_the_exit_field_of_this_orientation(make):
    p, op = make((3, 2, 4), 2)
    with pytest.raises(ValueError, match=r"adj_E_h: expected shape \(frames, \*exit_shape\) = \(2, 2, 6\), got"):
        op.adjoint(p.S, p.dq, np.ones((2, 2, 4)))
    _, state = op.forward(p.S, p.dq, return_state=True)
    with pytest.raises(ValueError, match="state: expected that of forward with the same arguments, E_h"):
        op.adjoint(p.S, p.dq, p.adj_E_h, state=state._replace(E_h=state.E_h[..., :4].copy()))


def test_operator_states_what_it_is(make):
    _, op = make((4, 2, 6), 1, "shift", 2)
    assert (op.orientation, op.shift, op.exit_shape, op.exit_slice) == ("symmetric", 2, (2, 12), slice(6, 12))
    assert op.exit_reach == 12 and "orientation='symmetric'" in repr(op)
    _, op = make((4, 2, 6), 1, "fourier", 2)
    assert op.exit_reach == 12 and op.exit_shape == (2, op.row_length) and op.row_length >= 28
    assert pendel.estimate_memory(op, 10) > 0
