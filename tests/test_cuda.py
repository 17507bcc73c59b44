"""The CUDA engine is the CPU engine: same fields, same gradients, on a GPU (`pytest -m gpu`) and, everywhere, with the
kernels' own text run thread by thread by an emulator (emulator.h)."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pendel
import pytest
from emulated import Emulated, build, install

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


class Gpu:
    """A CUDA device, with what an `Emulated` one is asked."""

    def __init__(self):
        import cupy

        self.cupy = cupy

    def unharmed(self):
        return True  # compute-sanitizer looks after that: bench/gpu.sh

    def seed(self, seed):
        pass


@pytest.fixture(scope="module", params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def engine(request):
    if request.param == "gpu":
        if not pendel.cuda_available():
            pytest.skip(f"no GPU to run on: {pendel.info()['cuda']}")
        yield Gpu()
    else:
        with install(Emulated(request.getfixturevalue("built"))) as emulated:
            yield emulated


def outputs(op, p, xp, s_0, incident, support=None):
    """Everything forward and adjoint return, as NumPy arrays."""
    S, dq = xp.asarray(p.S.astype(op.dtype)), xp.asarray(p.dq)
    given = [None if a is None else xp.asarray(a) for a in (s_0, incident, support)]
    E_h, E_0, state = op.forward(S, dq, given[0], given[1], return_E_0=True, return_state=True)
    adj_E_h = xp.asarray(p.adj_E_h.astype(op.dtype))
    adj = op.adjoint(S, dq, adj_E_h, given[0], given[1], state=state, support=given[2])
    out = {"E_h": E_h, "E_0": E_0, "E_0_row": state.E_0_row} | {k: v for k, v in adj._asdict().items() if v is not None}
    return {name: value.get() if hasattr(value, "get") else value for name, value in out.items()}


def both(engine, operator_of, p, dtype, s_0=None, incident=None, support=None, **change):
    engine.unharmed()
    device = outputs(operator_of(p, dtype, device="cuda", **change), p, engine.cupy, s_0, incident, support)
    assert engine.unharmed(), "a kernel wrote outside its arrays"
    return device, outputs(operator_of(p, dtype, **change), p, np, s_0, incident, support)


def compare(device, cpu, relative, tolerance):
    assert device.keys() == cpu.keys()
    for name in cpu:
        if not np.any(cpu[name]):  # one layer, one column: adj_dq_x = 0, say
            assert np.max(np.abs(device[name]), initial=0) < tolerance, name
        else:
            assert relative(device[name], cpu[name]) < tolerance, name


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
    op, results = operator_of(p, "complex64", device="cuda"), []
    for seed in range(4):
        engine.seed(seed)
        results.append(outputs(op, p, engine.cupy, p.s_0.astype("float32"), p.incident.astype("complex64")))
    engine.seed(0)
    for other in results[1:]:
        for name in results[0]:
            np.testing.assert_array_equal(results[0][name], other[name], strict=True)


# (file, text, what stands there instead, transport in which it must show). The first three take a barrier away.
FAULTS = {
    "no block barrier between layers": (
        "sweep_cuda.h",
        "        if (enters) b.enter_adj(first, place(a, z, x), through);\n      }\n      __syncthreads();",
        "        if (enters) b.enter_adj(first, place(a, z, x), through);\n      }",
        "shift",
    ),
    "no warp barrier in the row FFT": ("run_cuda.cu", "    __syncwarp();", "    {}", "fourier"),
    "a barrier some threads miss": (
        "run_cuda.cu",
        "      if (z + 1 == a.nz) break;",
        "      if (threadIdx.x >= 64) __syncthreads();\n      if (z + 1 == a.nz) break;",
        "fourier",
    ),
    "a column too far": ("sweep_cuda.h", "* nx + x - m];", "* nx + x - m + 1];", "shift"),
    "a frame too far": ("sweep_cuda.h", "    if (frame < a.frames)\n", "    if (frame <= a.frames)\n", "shift"),
    "shared memory too small": (
        "run_cuda.cu",
        "const std::size_t handed = 2 * F",
        "const std::size_t handed = F",
        "shift",
    ),
}


@pytest.fixture(scope="module")
def planted(built, tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("planted") for name in FAULTS}
    with ThreadPoolExecutor(2) as pool:
        made = {name: pool.submit(build, folders[name], built.parent, FAULTS[name][:3], "-O0") for name in FAULTS}
    return {name: future.result() for name, future in made.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_the_emulator_catches(planted, problem, asymmetric, operator_of, relative, tolerance, name):
    transport = FAULTS[name][3]
    p = problem((4, 2, 40), asymmetric, 9, transport)
    with install(Emulated(planted[name])) as faulty:
        caught = 0
        for seed in range(2):
            faulty.seed(seed)
            with np.errstate(all="ignore"):
                try:
                    device, cpu = both(faulty, operator_of, p, "complex64")
                    compare(device, cpu, relative, tolerance["complex64"])
                except (AssertionError, RuntimeError) as error:
                    assert isinstance(error, AssertionError) or str(error).startswith("emulator: ")
                    caught += 1
        assert caught == 2


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


def test_what_the_device_does_not_do_is_refused(engine, problem, gold, operator_of):
    p = problem((2, 2, 3), gold, 2)
    text = "^device: expected 'cpu' with scheme 'etd2rk' or orientation 'symmetric', got 'cuda'"
    _refuses(ValueError, text, lambda: operator_of(p, device="cuda", scheme="etd2rk", transport="auto"))
    _refuses(ValueError, text, lambda: operator_of(p, device="cuda", orientation="symmetric", transport="fourier"))
    long = "^shape: expected nx <= 1024 for device 'cuda' with transport 'shift', got 1025"
    _refuses(ValueError, long, lambda: operator_of(p, device="cuda", shape=(2, 1, 1025)))
    long = "^shape: expected a shorter row for device 'cuda' with transport 'fourier', got "
    fourier = {"shape": (2, 1, 9000), "transport": "fourier"}
    _refuses(ValueError, long, lambda: operator_of(p, device="cuda", **fourier))
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
