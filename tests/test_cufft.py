"""The CUDA engine's layer-by-layer march (csrc/sweep_cufft.h) is the CPU engine: scheme etd2rk, orientation symmetric
and rows that do not fit on chip, on a GPU (`pytest -m gpu`) and, everywhere, in the emulator with a cuFFT of its own
(emulated_cufft.h)."""

import dataclasses

import numpy as np
import pendel
import pytest
from emulated import Emulated, install
from faults import FAULTS
from test_cuda import assert_same_bits_in_any_order, both, caught, compare, scheduled

# What is marched: the pixels per layer, what makes the operator, and how the engine is to march.
UNFUSED = {"unfused": True}
KINDS = {
    "etd2rk": (0.83, {"scheme": "etd2rk"}, {}),
    "symmetric, fourier": (0.83, {"orientation": "symmetric"}, {}),
    "symmetric, shift": (2, {"orientation": "symmetric"}, {}),
    "k_h, fourier": (1.37, {}, UNFUSED),
    "k_h, shift": (2, {}, UNFUSED),
    "k_h, box": (0.83, {}, {}),
}
# nz, ny, nx, frames: odd sizes, one of everything, one layer; more columns than a tile and more frames than it is deep.
SIZES = [(5, 2, 7, 3), (1, 1, 1, 1), (1, 2, 9, 4), (9, 1, 3, 2), (4, 1, 37, 9)]


@pytest.fixture
def make(problem, operator_of, voxel_of, asymmetric, rng):
    """Maker of a problem of a kind."""

    def make(kind, shape, frames, pixels=None, physics=asymmetric):
        whole, change, _ = KINDS[kind]
        pixels = whole if pixels is None else pixels
        p = problem(shape, physics, frames, kind.split(", ")[1] if ", " in kind else "fourier", pixels)
        p.physics |= change
        if "orientation" in change:
            p.physics["voxel"] = voxel_of(physics["two_theta"] / 2, pixels)
        size = (frames, *operator_of(p).exit_shape)
        p.adj_E_h = rng.normal(size=size) + 1j * rng.normal(size=size)
        return p

    return make


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_fields_and_gradients_are_those_of_the_cpu(engine, make, operator_of, relative, tolerance, kind, size, dtype):
    *shape, frames = size
    p = make(kind, tuple(shape), frames)
    device, cpu = both(engine, operator_of, p, dtype, schedule=KINDS[kind][2])
    compare(device, cpu, relative, tolerance[dtype])


@pytest.mark.parametrize("kind", ["symmetric, shift", "k_h, shift"])
def test_a_wave_that_crosses_the_box_in_one_layer(engine, make, operator_of, relative, tolerance, kind):
    p = make(kind, (4, 2, 3), 5, 7)
    device, cpu = both(engine, operator_of, p, "complex128", schedule=KINDS[kind][2])
    compare(device, cpu, relative, tolerance["complex128"])


@pytest.mark.parametrize("chunk", [1, 4, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_frames_electron_density_incident_field_and_support(
    engine, make, operator_of, relative, tolerance, rng, kind, chunk
):
    p = make(kind, (7, 3, 11), 9)  # 9 frames in chunks of 4 are 3 + 3 + 3, of 1 nine plans' worth of rows
    support = rng.uniform(size=p.shape) < 0.6
    schedule = KINDS[kind][2] | {"chunk": chunk}
    device, cpu = both(engine, operator_of, p, "complex128", p.s_0, p.incident, support, schedule)
    compare(device, cpu, relative, tolerance["complex128"])
    assert not device["S"][~support].any() and not device["s_0"][~support].any()


def test_a_last_chunk_that_is_not_full(engine, make, operator_of, relative, tolerance):
    for kind in KINDS:
        p = make(kind, (3, 2, 5), 7)  # 7 frames in chunks of 3: 3 + 3 + 1
        schedule = KINDS[kind][2] | {"chunk": 3}
        device, cpu = both(engine, operator_of, p, "complex128", p.s_0, p.incident, schedule=schedule)
        compare(device, cpu, relative, tolerance["complex128"])


@pytest.mark.parametrize("kind", KINDS)
def test_vacuum_which_the_cpu_skips(engine, make, operator_of, relative, tolerance, kind):
    p = make(kind, (9, 2, 12), 3)
    crystal = np.zeros(p.shape, bool)
    crystal[2:5, :, 3:9] = crystal[6, 1, 4:6] = True
    p.S *= crystal
    for support in (None, crystal):
        device, cpu = both(engine, operator_of, p, "complex128", None, p.incident, support, KINDS[kind][2])
        compare(device, cpu, relative, tolerance["complex128"])


@pytest.mark.parametrize("nz", range(1, 13))
def test_kept_and_repeated_states(engine, make, operator_of, relative, tolerance, nz):
    p = make("etd2rk", (nz, 1, 3), 1)
    device, cpu = both(engine, operator_of, p, "complex128")
    compare(device, cpu, relative, tolerance["complex128"])


def test_voxels_beyond_the_series(engine, make, overwhelming, operator_of, relative, tolerance):
    p = make("symmetric, fourier", (3, 1, 5), 2, physics=overwhelming)
    device, cpu = both(engine, operator_of, p, "complex64")
    compare(device, cpu, relative, tolerance["complex64"])


# The first width the fused kernels do not take, as pendel itself decides.
LONG = [("shift", 4097, "complex64"), ("shift", 1025, "complex128"), ("fourier", 4000, "complex128")]
LONG += [("box", 4097, "complex64")]


@pytest.mark.parametrize("transport, nx, dtype", LONG)
def test_long_rows(engine, problem, gold, operator_of, relative, tolerance, transport, nx, dtype):
    p = problem((2, 1, nx), gold, 2, transport)
    device, cpu = both(engine, operator_of, p, dtype)
    compare(device, cpu, relative, tolerance[dtype])


@pytest.mark.parametrize("transport", ["shift", "fourier"])
def test_fused_and_unfused_march_agree(engine, problem, asymmetric, operator_of, relative, tolerance, transport):
    p = problem((6, 2, 33), asymmetric, 10, transport)
    fused = both(engine, operator_of, p, "complex64", p.s_0.astype("float32"))[0]
    unfused = both(engine, operator_of, p, "complex64", p.s_0.astype("float32"), schedule=UNFUSED)[0]
    compare(unfused, fused, relative, tolerance["complex64"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_threads_and_blocks_does_not_change_a_bit(engine, make, operator_of, kind):
    p = make(kind, (4, 2, 40), 9)
    op = scheduled(operator_of(p, "complex64", device="cuda"), **KINDS[kind][2], chunk=5)
    assert_same_bits_in_any_order(engine, op, p, orders=3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "etd2rk"])  # which reverses nothing
def test_the_reversal_ends_at_the_entrance(engine, make, operator_of, kind):
    p = make(kind, (20, 2, 9), 3)
    op, xp = scheduled(operator_of(p, device="cuda"), **KINDS[kind][2]), engine.cupy
    assert 0 < op.reversal_error(xp.asarray(p.S), xp.asarray(p.dq)) < 1e-13


def test_a_gradient_that_lost_its_digits_is_nan(engine, make, gold, operator_of):
    p = make("symmetric, fourier", (40, 1, 3), 2, physics=gold | {"chi_0": 0.05j, "chi_h": 0.049j})
    op, xp = operator_of(p, "complex64", device="cuda"), engine.cupy
    S, adj_E_h = (xp.asarray(a.astype("complex64")) for a in (p.S, p.adj_E_h))
    with np.errstate(all="ignore"):
        adj = op.adjoint(S, xp.asarray(p.dq), adj_E_h)
    assert np.isnan(adj.S.get()).all()


def test_workspace_is_bounded(engine, make, operator_of):
    for kind in KINDS:
        op = scheduled(operator_of(make(kind, (20, 16, 60), 1), "complex64", device="cuda"), **KINDS[kind][2])
        plans = (dataclasses.replace(op.plan, frames=n) for n in (8000, 16000))
        few, many = (op.engine.workspace(plan, adjoint=True) for plan in plans)
        assert many - few < 8000 * 8 * (20 + 16 + 200) + 2**26  # tables by frame; chunks that divide unevenly
        assert few < 2**30


def test_plans_are_kept_and_no_more_of_them_than_a_few(emulated, make, operator_of):
    p = make("etd2rk", (1, 1, 1), 2)
    for ny in range(101, 119):  # of no other test in this process
        op = operator_of(p, device="cuda", shape=(1, ny, 1))
        S, before = emulated.cupy.asarray(np.ones((1, ny, 1), complex)), emulated.plans_made()
        for _ in range(2):
            op.forward(S, emulated.cupy.asarray(p.dq))
        assert emulated.plans_made() == before + 1 and emulated.plans() <= 16


def test_transforms_run_on_the_callers_stream(emulated, make, operator_of, relative, tolerance):
    p = make("symmetric, fourier", (3, 2, 5), 2)
    stream, before = emulated.cupy.cuda.get_current_stream(), emulated.transforms()
    for stream.ptr in (7, 8, 0):  # the emulated cuFFT refuses another stream than the kernels'
        device, cpu = both(emulated, operator_of, p, "complex128")
        compare(device, cpu, relative, tolerance["complex128"])
    assert emulated.transforms() > before


def test_without_cufft_only_what_needs_it_is_refused(emulated, make, operator_of, monkeypatch):
    def missing(name):
        raise RuntimeError(f"Failure finding lib{name}")

    monkeypatch.setattr(emulated.pathfinder, "load_nvidia_dynamic_lib", missing)
    text = r"^device: expected cuFFT for scheme 'etd2rk', .*pip install 'pendel\[cuda13\]'.*Failure finding libcufft"
    for kind in ("etd2rk", "symmetric, fourier"):
        p = make(kind, (3, 2, 5), 2)
        with pytest.raises(RuntimeError, match=text):
            operator_of(p, device="cuda")
    for kind in ("symmetric, shift", "k_h, fourier"):
        assert operator_of(make(kind, (3, 2, 5), 2), device="cuda").device == "cuda"
    assert pendel.info()["cuda cufft"] == "not found: Failure finding libcufft"


def test_info_says_which_cufft(engine):
    version, path = pendel.info()["cuda cufft"].split(", ", 1)
    assert version.count(".") == 2 and path.startswith("/")


@pytest.fixture
def emulated(built):
    with install(Emulated(built)) as emulated:
        yield emulated


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name][3] in KINDS])
def test_the_emulator_catches(planted, make, operator_of, relative, tolerance, name):
    p = make(FAULTS[name][3], (4, 2, 40), 9)
    caught(planted, name, lambda faulty: both(faulty, operator_of, p, "complex64"), relative, tolerance)
