"""The CUDA engine is the CPU engine: same fields, same gradients, on a GPU (`pytest -m gpu`) and, everywhere, with the
kernels' own text run thread by thread by an emulator (emulator.h)."""

from types import SimpleNamespace

import emulated
import numpy as np
import pendel
import pytest
from emulated import Emulated, install
from faults import FAULTS
from pendel.operator.cuda_engine import Cuda

# nz, ny, nx, frames, pixels per layer: one row, one column, one layer, one frame; odd sizes; more columns than a warp;
# E_0 crossing the whole box in one layer (pixels >= nx); several groups of frames, more than one of them per block.
SHAPES = [
    (5, 2, 7, 3, 1),
    (1, 1, 1, 1, 1),
    (4, 1, 37, 9, 2),
    (3, 3, 5, 2, 5),
    (6, 1, 4, 5, 7),
    (1, 2, 9, 4, 3),
    (9, 1, 1, 8, 1),
]
FOURIER = [(5, 2, 7, 3, 0.83), (1, 1, 1, 1, 0.5), (4, 1, 37, 9, 1.37), (3, 1, 20, 2, 9.6)]


def outputs(op, p, xp, s_0, incident, support=None):
    """Everything forward and adjoint return, as NumPy arrays."""
    S, dq = xp.asarray(p.S.astype(op.dtype)), xp.asarray(p.dq)
    given = [None if a is None else xp.asarray(a) for a in (s_0, incident, support)]
    E_h, E_0, state = op.forward(S, dq, given[0], given[1], return_E_0=True, return_state=True)
    adj_E_h = xp.asarray(p.adj_E_h.astype(op.dtype))
    adj = op.adjoint(S, dq, adj_E_h, given[0], given[1], state=state, support=given[2], parameters=True)
    out = {"E_h": E_h, "E_0": E_0} | state._asdict() | adj._asdict() | {"chi": adj.chi, "geometry": adj.geometry}
    return {name: v.get() if hasattr(v, "get") else v for name, v in out.items() if v is not None}


def scheduled(op, unfused=False, chunk=0):
    """The operator, marched layer by layer, so many frames at a time."""
    op.engine.unfused |= unfused
    op.engine.chunk = chunk
    return op


def both(engine, operator_of, p, dtype, s_0=None, incident=None, support=None, schedule=None, **change):
    engine.unharmed()
    op = scheduled(operator_of(p, dtype, device="cuda", **change), **schedule or {})
    device = outputs(op, p, engine.cupy, s_0, incident, support)
    assert engine.unharmed(), "a kernel wrote outside its arrays"
    return device, outputs(operator_of(p, dtype, **change), p, np, s_0, incident, support)


def compare(device, cpu, relative, tolerance):
    assert device.keys() == cpu.keys()
    for name in cpu:
        if not np.any(cpu[name]):  # one layer, one column: adj_dq_x = 0, say
            assert np.max(np.abs(device[name]), initial=0) < tolerance, name
        else:
            assert relative(device[name], cpu[name]) < tolerance, name


def assert_same_bits_in_any_order(engine, op, p, orders):
    """Of threads and blocks, ``orders`` of them tried."""
    results = []
    for seed in range(orders):
        engine.seed(seed)
        results.append(outputs(op, p, engine.cupy, p.s_0.astype("float32"), p.incident.astype("complex64")))
    engine.seed(0)
    for other in results[1:]:
        for name in results[0]:
            np.testing.assert_array_equal(results[0][name], other[name], strict=True)


def caught(planted, name, run, relative, tolerance):
    """Assert that `run` shows the fault of this name, whatever the order of threads."""
    with install(Emulated(planted)) as faulty:
        faulty.fault(list(FAULTS).index(name) + 1)
        times = 0
        for seed in range(2):
            faulty.seed(seed)
            with np.errstate(all="ignore"):
                try:
                    device, cpu = run(faulty)
                    compare(device, cpu, relative, tolerance["complex64"])
                except (AssertionError, RuntimeError) as error:
                    assert isinstance(error, AssertionError) or str(error).startswith(("emulator: ", "cuFFT: "))
                    times += 1
        assert times == 2


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("size", SHAPES + FOURIER, ids=str)
def test_fields_and_gradients_are_those_of_the_cpu(
    engine, problem, asymmetric, operator_of, relative, tolerance, size, dtype
):
    *shape, frames, pixels = size
    p = problem(tuple(shape), asymmetric, frames, "shift" if isinstance(pixels, int) else "fourier", pixels)
    device, cpu = both(engine, operator_of, p, dtype)
    compare(device, cpu, relative, tolerance[dtype])


@pytest.mark.parametrize("transport, pixels", [("shift", 2), ("fourier", 0.83)])
def test_electron_density_incident_field_and_support(
    engine, problem, asymmetric, operator_of, relative, tolerance, rng, transport, pixels
):
    p = problem((4, 3, 11), asymmetric, 9, transport, pixels)
    support = rng.uniform(size=p.shape) < 0.6
    device, cpu = both(engine, operator_of, p, "complex128", p.s_0, p.incident, support)
    compare(device, cpu, relative, tolerance["complex128"])
    assert not device["S"][~support].any() and not device["s_0"][~support].any()


def test_voxels_beyond_the_series(engine, problem, overwhelming, operator_of, relative, tolerance):
    p = problem((3, 1, 5), overwhelming, 2)
    device, cpu = both(engine, operator_of, p, "complex64")
    compare(device, cpu, relative, tolerance["complex64"])


# Columns per thread: 2, 4 and 8 of float, 2 and 4 of double. The rows of the FFT here leave room for 8, 4, 2 and 1
# angles; with 2 and 1 a team is more than a warp.
WIDE = [("shift", nx, "complex64") for nx in (513, 1025, 2049)] + [("shift", nx, "complex128") for nx in (257, 513)]
WIDE += [("fourier", nx, "complex128") for nx in (100, 300, 700, 1600)]


@pytest.mark.parametrize("transport, nx, dtype", WIDE)
def test_wide_rows(engine, problem, gold, operator_of, relative, tolerance, transport, nx, dtype):
    p = problem((2, 1, nx), gold, 3, transport)
    device, cpu = both(engine, operator_of, p, dtype)
    compare(device, cpu, relative, tolerance[dtype])


@pytest.mark.parametrize("nx", [15, 31, 47, 63, 79, 95, 127, 143, 159, 191, 255])
def test_every_radix_of_the_row_fft(engine, problem, gold, operator_of, relative, tolerance, nx):
    p = problem((3, 1, nx), gold, 2, "fourier", 0.5)  # rows of nx + 1 = 16 n places, n = 1 ... 16 by one radix
    device, cpu = both(engine, operator_of, p, "complex128")
    compare(device, cpu, relative, tolerance["complex128"])


@pytest.mark.parametrize("size", [(4, 2, 40, 9, 1), (4, 2, 20, 9, 0.83)], ids=str)
def test_the_order_of_threads_and_blocks_does_not_change_a_bit(engine, problem, asymmetric, operator_of, size):
    *shape, frames, pixels = size
    p = problem(tuple(shape), asymmetric, frames, "shift" if isinstance(pixels, int) else "fourier", pixels)
    assert_same_bits_in_any_order(engine, operator_of(p, "complex64", device="cuda"), p, orders=4)


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name][3] in ("shift", "fourier")])
def test_the_emulator_catches(planted, problem, asymmetric, operator_of, relative, tolerance, name):
    p = problem((4, 2, 40), asymmetric, 9, FAULTS[name][3])
    caught(planted, name, lambda faulty: both(faulty, operator_of, p, "complex64"), relative, tolerance)


def test_the_kernels_do_run_in_the_emulator(built, problem, gold, operator_of):
    with install(Emulated(built)) as emulated:
        p = problem((2, 1, 3), gold, 1)
        outputs(operator_of(p, device="cuda"), p, emulated.cupy, None, None)
        assert emulated.barriers() > 0


def _refuses(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_arrays_of_the_other_device_are_refused_and_told_how_to_convert(engine, problem, gold, operator_of):
    p = problem((2, 2, 3), gold, 2)
    op, xp = operator_of(p, device="cuda"), engine.cupy
    S, dq = xp.asarray(p.S), xp.asarray(p.dq)
    text = "expected a CuPy array for device 'cuda', got ndarray of shape .*; convert it with cupy.asarray"
    _refuses(TypeError, "^S: " + text, lambda: op.forward(p.S, dq))
    _refuses(TypeError, "^dq: " + text, lambda: op.forward(S, p.dq))
    _refuses(TypeError, "^s_0: " + text, lambda: op.forward(S, dq, p.s_0))
    _refuses(TypeError, "^incident: " + text, lambda: op.forward(S, dq, incident=p.incident))
    _refuses(TypeError, "^adj_E_h: " + text, lambda: op.adjoint(S, dq, p.adj_E_h))
    _refuses(TypeError, "^S: expected a CuPy array for device 'cuda', got None", lambda: op.forward(None, dq))
    elsewhere = SimpleNamespace(__cuda_array_interface__={}, shape=p.shape, dtype=p.S.dtype)
    _refuses(
        TypeError,
        r"^S: expected a NumPy array for device 'cpu', got .*; convert it with .get\(\) or cupy.asnumpy",
        lambda: operator_of(p).forward(elsewhere, p.dq),
    )


def test_arguments_on_the_device_are_checked(engine, problem, gold, operator_of):
    p = problem((2, 2, 3), gold, 2)
    op, xp = operator_of(p, device="cuda"), engine.cupy
    S, dq = xp.asarray(p.S), xp.asarray(p.dq)
    _refuses(
        ValueError, r"^S: expected shape \(nz, ny, nx\) = \(2, 2, 3\), got \(1, 2, 3\)", lambda: op.forward(S[:1], dq)
    )
    _refuses(ValueError, r"^dq: expected shape .*, got \(2, 2\)", lambda: op.forward(S, dq[:, :2]))
    complex_s_0 = lambda: op.forward(S, dq, S)  # noqa: E731
    _refuses(TypeError, "^s_0: expected an array that converts to float64, got dtype complex128", complex_s_0)
    state = op.forward(S, dq, return_state=True)[1]
    adj = xp.asarray(p.adj_E_h)
    _refuses(ValueError, "^state: expected that of forward", lambda: op.adjoint(S, dq[:1], adj[:1], state=state))


def test_a_device_that_is_not_there_is_refused(engine, problem, gold, operator_of):
    p = problem((2, 2, 3), gold, 2)
    _refuses(
        ValueError, "^device: expected one of .* CUDA devices, .*, got 99", lambda: operator_of(p, device="cuda:99")
    )


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CUDA", 0, None])
def test_unknown_devices_are_refused(problem, gold, operator_of, device):
    p = problem((2, 2, 3), gold, 2)
    _refuses(ValueError, "^device: expected 'cpu', 'cuda' or 'cuda:N', got ", lambda: operator_of(p, device=device))


def test_a_gradient_that_lost_its_digits_is_nan(engine, problem, gold, operator_of):
    # the CPU engine raises; here nothing may wait for the device to say so
    p = problem((40, 1, 3), gold | {"chi_0": 0.05j, "chi_h": 0.049j}, 2)
    op, xp = operator_of(p, "complex64", device="cuda"), engine.cupy
    S, adj_E_h = (xp.asarray(a.astype("complex64")) for a in (p.S, p.adj_E_h))
    with np.errstate(all="ignore"):
        adj = op.adjoint(S, xp.asarray(p.dq), adj_E_h)
    assert np.isnan(adj.S.get()).all()


def test_state_and_memory_of_the_device(engine, problem, gold, operator_of):
    p = problem((20, 4, 30), gold, 2)
    assert pendel.cuda_available() and pendel.info()["cuda"] == "usable"
    assert pendel.info()["cuda driver"].startswith("CUDA ") and "cuda device 0" in pendel.info()
    op = operator_of(p, "complex64", device="cuda")
    sums, matrices = 20 * 4 * 30 * 8 * 4, 20 * 4 * 30 * 16 * 4
    few, many = (pendel.estimate_memory(op, n) for n in (8, 800))
    assert few > sums + matrices
    assert many < 16 * sums + matrices + 800 * 4 * (3 * 49 + 30 * 2) * 8 + 100_000


def test_where_rows_do_not_fit_on_chip_the_march_is_layer_by_layer(
    built, problem, operator_of, asymmetric, relative, monkeypatch
):
    with install(Emulated(built)) as small:
        limit = small.module.FUSED_SHARED
        for bytes_of_a_block, unfused in ((limit, False), (limit - 1, True)):
            monkeypatch.setattr(emulated.Device, "attributes", {"MaxSharedMemoryPerBlockOptin": bytes_of_a_block})
            assert Cuda(0).unfused == unfused
        before = small.transforms()
        p = problem((5, 2, 9), asymmetric, n=3, transport="fourier")
        compare(*both(small, operator_of, p, "complex128"), relative, 1e-12)
        assert small.transforms() > before
