"""The CUDA kernels, run thread by thread on the CPU (emulator.h), are the CPU engine: same fields, same gradients."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
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


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    with install(Emulated(build(tmp_path_factory.mktemp("cuda")))) as emulated:
        yield emulated


def outputs(op, p, xp, s_0, incident, support=None):
    """Everything forward and adjoint return, as NumPy arrays."""
    S, dq = xp.asarray(p.S.astype(op.dtype)), xp.asarray(p.dq)
    given = [None if a is None else xp.asarray(a) for a in (s_0, incident, support)]
    E_h, E_0, state = op.forward(S, dq, given[0], given[1], return_E_0=True, return_state=True)
    adj_E_h = xp.asarray(p.adj_E_h.astype(op.dtype))
    adj = op.adjoint(S, dq, adj_E_h, given[0], given[1], state=state, support=given[2])
    out = {"E_h": E_h, "E_0": E_0, "E_0_row": state.E_0_row} | {k: v for k, v in adj._asdict().items() if v is not None}
    return {name: np.array(value) for name, value in out.items()}


def both(emulated, operator_of, p, dtype, s_0=None, incident=None, support=None, **change):
    emulated.unharmed()
    device = outputs(operator_of(p, dtype, device="cuda", **change), p, emulated.cupy, s_0, incident, support)
    assert emulated.unharmed(), "a kernel wrote outside its arrays"
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
    emulated, problem, asymmetric, operator_of, relative, tolerance, size, dtype
):
    *shape, frames, pixels = size
    p = problem(tuple(shape), asymmetric, frames, "shift" if isinstance(pixels, int) else "fourier", pixels)
    device, cpu = both(emulated, operator_of, p, dtype)
    compare(device, cpu, relative, tolerance[dtype])


@pytest.mark.parametrize("transport, pixels", [("shift", 2), ("fourier", 0.83)])
def test_electron_density_incident_field_and_support(
    emulated, problem, asymmetric, operator_of, relative, tolerance, rng, transport, pixels
):
    p = problem((4, 3, 11), asymmetric, 9, transport, pixels)
    support = rng.uniform(size=p.shape) < 0.6
    device, cpu = both(emulated, operator_of, p, "complex128", p.s_0, p.incident, support)
    compare(device, cpu, relative, tolerance["complex128"])
    assert not device["S"][~support].any() and not device["s_0"][~support].any()


def test_voxels_beyond_the_series(emulated, problem, overwhelming, operator_of, relative, tolerance):
    p = problem((3, 1, 5), overwhelming, 2)
    device, cpu = both(emulated, operator_of, p, "complex64")
    compare(device, cpu, relative, tolerance["complex64"])


@pytest.mark.parametrize("transport", ["shift", "fourier"])
def test_wide_rows_take_several_columns_a_thread(emulated, problem, gold, operator_of, relative, tolerance, transport):
    # 300 columns: two per thread in double (256 threads at most); fourier: 320 = 16 x 20 places, radices 16, 10, 2
    p = problem((3, 1, 300), gold, 3, transport)
    device, cpu = both(emulated, operator_of, p, "complex128")
    compare(device, cpu, relative, tolerance["complex128"])


@pytest.mark.parametrize("size", [(4, 2, 40, 9, 1), (4, 2, 20, 9, 0.83)], ids=str)
def test_the_order_of_threads_and_blocks_does_not_change_a_bit(emulated, problem, asymmetric, operator_of, size):
    *shape, frames, pixels = size
    p = problem(tuple(shape), asymmetric, frames, "shift" if isinstance(pixels, int) else "fourier", pixels)
    op, results, met = operator_of(p, "complex64", device="cuda"), [], emulated.barriers()
    for seed in range(4):
        emulated.seed(seed)
        results.append(outputs(op, p, emulated.cupy, p.s_0.astype("float32"), p.incident.astype("complex64")))
    emulated.seed(0)
    assert emulated.barriers() > met
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
def planted(emulated, tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("planted") for name in FAULTS}
    with ThreadPoolExecutor(2) as pool:
        made = {name: pool.submit(build, folders[name], emulated.folder, FAULTS[name][:3], "-O0") for name in FAULTS}
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
