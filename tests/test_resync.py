"""Re-synchronisation: the reversed sweep takes up stored fields every few layers and is the same sweep otherwise."""

import numpy as np
import pendel
import pytest
from pendel import reference
from pendel.reference import symmetric as reference_symmetric
from test_cuda import both, compare, scheduled

DTYPES = ["complex128", "complex64"]
MARCHES = [(o, t) for o in ("k_h", "symmetric") for t in ("shift", "fourier")] + [("k_h", "box")]
PIXELS = {"shift": 2, "fourier": 0.83, "box": 0.83}


@pytest.fixture
def make(problem, operator_of, voxel_of, rng):
    """Maker of a problem in an orientation."""

    def make(orientation, transport, shape, physics, n, pixels=None, dx=8e-9):
        pixels = PIXELS[transport] if pixels is None else pixels
        p = problem(shape, physics | {"orientation": orientation}, n, transport, pixels)
        angle = physics["two_theta"] / (2 if orientation == "symmetric" else 1)
        p.physics["voxel"] = voxel_of(angle, pixels, dx)
        size = (n, *operator_of(p).exit_shape)
        p.adj_E_h = rng.normal(size=size) + 1j * rng.normal(size=size)
        return p

    return make


def _islands(shape, rng):
    """A crystal with vacuum in front, behind, beside and inside, and a support that is wider."""
    crystal = np.zeros(shape, bool)
    crystal[2:5, :, 3:9] = crystal[8:11, 1, 2:6] = True
    support = crystal.copy()
    support[5:8, :, 4:8] = support[-2, 0, 1] = True
    return crystal, support


# One layer at a time; odd; a divisor of the layers, whose last is never stored; one segment; more than there are.
@pytest.mark.parametrize("resync", [1, 3, 5, 6, 12, 40])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("orientation, transport", MARCHES)
def test_fields_and_gradients_are_those_without(
    make, operator_of, relative, asymmetric, rng, orientation, transport, dtype, resync
):
    # Measured 6e-15 and 2.5e-6: the same sums with other roundings.
    bound = {"complex128": 1e-13, "complex64": 2e-5}[dtype]
    for n in (3, 37):  # 37: with AVX-512 two packs together, and one more
        for vacuum in (False, True):
            p = make(orientation, transport, (12, 2, 11), asymmetric, n)
            crystal, support = _islands(p.shape, rng)
            if vacuum:
                p.S, p.s_0 = p.S * crystal, p.s_0 * crystal
            given = {"s_0": p.s_0 if n == 3 else None, "incident": p.incident if n == 3 else None}
            op, plain = (operator_of(p, dtype, resync=k) for k in (resync, None))
            E_h, state = op.forward(p.S, p.dq, **given, return_state=True)
            assert np.array_equal(E_h, op.forward(p.S, p.dq, **given))
            assert relative(E_h, plain.forward(p.S, p.dq, **given)) < bound
            for wanted in (None, support) if vacuum else (None,):
                got = op.adjoint(p.S, p.dq, p.adj_E_h, **given, state=state, support=wanted)
                expected = plain.adjoint(p.S, p.dq, p.adj_E_h, **given, support=wanted)
                for name in ("S", "incident", "dq") + (("s_0",) if n == 3 else ()):
                    assert relative(getattr(got, name), getattr(expected, name)) < bound, (name, n, vacuum)


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_voxels_of_many_extinction_lengths(
    problem, voxel_of, operator_of, relative, gold, oracle_kwargs, rng, transport
):
    """M has up to e^24 between its eigenvalues, and its inverse multiplies rounding by as much."""
    thick = {"chi_0": 1.9e-4 + 3.9e-4j, "chi_h": 7.4e-4 - 5.9e-4j, "two_theta": 0.156, "polarization_factor": -0.76}
    p = problem((8, 1, 9), gold | thick, 33, transport)
    p.physics["voxel"] = voxel_of(0.156, 1.4 if transport == "box" else 2, 9.4e-9)
    p.S[:] = 4 * p.S * np.abs(rng.normal(size=p.shape) + 1j * rng.normal(size=p.shape))
    op = operator_of(p, resync=1)
    adj = op.adjoint(p.S, p.dq, p.adj_E_h)
    expected = reference.adjoint(p.S, p.dq, p.adj_E_h, **oracle_kwargs(p, op))
    assert relative(adj.S, expected.S) < 1e-4


@pytest.mark.parametrize("orientation, transport", MARCHES)
def test_state_holds_the_fields_behind_every_kth_layer(make, operator_of, relative, asymmetric, orientation, transport):
    """The same fields as those at the exit of the crystal cut off there."""
    p = make(orientation, transport, (8, 2, 9), asymmetric, 5)
    op = operator_of(p, resync=3)
    layers = op.forward(p.S, p.dq, p.s_0, return_state=True)[1].layers
    assert layers.shape == (2, 2, 5, 2, 9) and layers.dtype == op.dtype
    for i, nz in enumerate((3, 6)):
        cut = operator_of(p, shape=(nz, 2, 9))
        E_h, E_0 = cut.forward(p.S[:nz], p.dq, p.s_0[:nz], return_E_0=True)
        x, y = np.arange(9) - 4, np.arange(2) - 1
        dz, dy, dx = op.voxel
        half = 0.5 * dz * p.dq[:, 2] if orientation == "k_h" else 0 * p.dq[:, 2]
        ramp = p.dq[:, :1, None] * dx * x + p.dq[:, 1, None, None] * dy * y[:, None] - half[:, None, None]
        # Fourier rows of other lengths interpolate the sharp edges of this crystal a little differently.
        bound = 1e-13 if transport == "shift" else 0.05
        assert relative(layers[i, 0], E_0) < bound
        assert relative(layers[i, 1], E_h[:, :, cut.exit_slice] * np.exp(-1j * ramp)) < bound


@pytest.mark.parametrize("orientation, transport", MARCHES)
def test_gradients_are_rescued_where_the_plain_reversal_has_lost_them(
    make, operator_of, relative, gold, orientation, transport
):
    """A rough crystal that takes the amplitude down by e^25 to e^72, 0.7 to 2 of the exponent in every layer."""
    strong = gold | {k: 100 * gold[k] for k in ("chi_0", "chi_h")}
    p = make(orientation, transport, (36, 1, 27), strong, 37, 1 if transport == "shift" else 0.83, 48e-9)
    with pytest.raises(
        RuntimeError, match="adjoint: expected the reversed sweep to come .* or resync after fewer layers"
    ):
        operator_of(p, "complex64").adjoint(p.S, p.dq, p.adj_E_h)
    op = operator_of(p, "complex64", resync=2)
    got = op.adjoint(p.S, p.dq, p.adj_E_h)
    oracle, physics = (reference, p.physics) if orientation == "k_h" else (reference_symmetric, p.physics.copy())
    physics = {name: value for name, value in physics.items() if name != "orientation"}
    expected = oracle.adjoint(p.S, p.dq, p.adj_E_h, transport=transport, row_length=op.row_length, **physics)
    for name in ("S", "dq"):
        assert relative(getattr(got, name), getattr(expected, name)) < 1e-4, name  # measured 2e-5


@pytest.mark.parametrize("orientation, transport", MARCHES)
def test_stored_fields_are_taken_up_and_the_worst_difference_is_found(
    make, operator_of, relative, asymmetric, orientation, transport
):
    p = make(orientation, transport, (8, 2, 9), asymmetric, 37)
    op = operator_of(p, resync=3)
    state = op.forward(p.S, p.dq, return_state=True)[1]
    expected = op.adjoint(p.S, p.dq, p.adj_E_h, state=state)
    for layer in range(2):
        for y in range(2):
            layers = state.layers.copy()
            layers[layer, :, -1, y] *= 1.05  # of one frame in one row: of 1, 8 or 16 or 32 in a pack
            near = layers.copy()
            near[layer, :, -1, y] = state.layers[layer, :, -1, y] * (1 + 1e-4)
            got = op.adjoint(p.S, p.dq, p.adj_E_h, state=state._replace(layers=near))
            assert relative(got.S, expected.S) > 1e-7
            with pytest.raises(RuntimeError, match="of stored layers, got 0.0"):
                op.adjoint(p.S, p.dq, p.adj_E_h, state=state._replace(layers=layers))


def test_arguments(make, operator_of, asymmetric):
    p = make("k_h", "fourier", (8, 2, 9), asymmetric, 3)
    for value, text in ((0, ">= 1, got 0"), (2.5, "got 2.5"), (True, "got True")):
        with pytest.raises((ValueError, TypeError), match=f"^resync: expected an integer.*{text}"):
            operator_of(p, resync=value)
    with pytest.raises(ValueError, match="^resync: expected None with scheme 'etd2rk', .* got 3"):
        operator_of(p, resync=3, scheme="etd2rk")
    assert operator_of(p).resync is None and operator_of(p, resync=3).resync == 3


def test_states_of_another_resync_are_refused(make, operator_of, asymmetric):
    p = make("k_h", "shift", (8, 2, 9), asymmetric, 3)
    ops = {k: operator_of(p, resync=k) for k in (None, 3, 4, 8)}
    states = {k: op.forward(p.S, p.dq, return_state=True)[1] for k, op in ops.items()}
    assert states[None].layers is None and states[8].layers is None
    for k, other, text in (
        (3, None, r"layers complex128 of shape \(2, 2, 3, 2, 9\), got None"),
        (3, 4, r"layers complex128 of shape \(2, 2, 3, 2, 9\), got complex128 of shape \(1, 2, 3, 2, 9\)"),
        (None, 3, r"layers None, got complex128 of shape \(2, 2, 3, 2, 9\)"),
    ):
        with pytest.raises(ValueError, match="^state: expected that of .*" + text):
            ops[k].adjoint(p.S, p.dq, p.adj_E_h, state=states[other])


def test_memory_counts_the_stored_layers(make, operator_of, asymmetric):
    p = make("k_h", "shift", (8, 2, 9), asymmetric, 3)
    plain, resync = (pendel.estimate_memory(operator_of(p, resync=k), 5) for k in (None, 3))
    stored = operator_of(p, resync=3).forward(p.S, np.zeros((5, 3)), return_state=True)[1].layers
    assert resync - plain >= stored.nbytes


# What runs on CUDA, and how the engine is to march.
CUDA = [(march, {}) for march in MARCHES]
CUDA += [(("k_h", transport), {"unfused": True, "chunk": 4}) for transport in ("shift", "fourier", "box")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheduled_march", CUDA, ids=str)
def test_cuda_is_the_cpu(engine, make, operator_of, relative, tolerance, asymmetric, rng, scheduled_march, dtype):
    march, schedule = scheduled_march
    for resync, shape, n in ((1, (5, 1, 7), 3), (3, (9, 2, 37), 9), (4, (8, 2, 5), 17), (9, (8, 1, 3), 2)):
        p = make(*march, shape, asymmetric, n)
        support = rng.uniform(size=shape) < 0.8
        device, cpu = both(engine, operator_of, p, dtype, p.s_0, p.incident, support, schedule, resync=resync)
        compare(device, cpu, relative, tolerance[dtype])
        assert ("layers" in cpu) == (resync < 9)


@pytest.mark.parametrize("march, schedule", CUDA, ids=str)
def test_cuda_rescues_too(engine, make, operator_of, relative, gold, march, schedule):
    strong = gold | {k: 100 * gold[k] for k in ("chi_0", "chi_h")}
    p = make(*march, (36, 1, 15), strong, 9, 1 if march[1] == "shift" else 0.83, 48e-9)
    xp, results = engine.cupy, {}
    for resync in (None, 2):
        op = scheduled(operator_of(p, "complex64", device="cuda", resync=resync), **schedule)
        S, adj_E_h = (xp.asarray(a.astype("complex64")) for a in (p.S, p.adj_E_h))
        with np.errstate(all="ignore"):
            results[resync] = op.adjoint(S, xp.asarray(p.dq), adj_E_h)
    assert np.isnan(results[None].S.get()).all()
    expected = operator_of(p, "complex64", resync=2).adjoint(p.S, p.dq, p.adj_E_h)
    assert relative(results[2].S.get(), expected.S) < 1e-4
