"""The operator's forward sweep: equality with the oracle, invariants, determinism."""

import os
import subprocess
import sys

import numpy as np
import pendel
import pytest
from pendel import reference

SIZES = [(5, 3, 7), (1, 1, 1), (4, 3, 1), (6, 1, 9), (1, 2, 8), (2, 2, 2), (13, 2, 33), (3, 5, 64)]
DTYPES = ["complex128", "complex64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
@pytest.mark.parametrize("shape", SIZES)
def test_exit_fields_equal_the_oracle(
    problem, operator_of, oracle_kwargs, relative, tolerance, asymmetric, shape, transport, dtype
):
    p = problem(shape, asymmetric, n=3, transport=transport)
    op = operator_of(p, dtype)
    E_h, E_0 = op.forward(p.S, p.dq, return_E_0=True)
    expected_h, expected_0 = reference.forward(p.S, p.dq, return_E_0=True, **oracle_kwargs(p, op))
    assert op.transport == transport
    assert E_h.dtype == E_0.dtype == np.dtype(dtype)
    assert E_h.flags.c_contiguous
    assert relative(E_h, expected_h) < tolerance[dtype]
    assert relative(E_0, expected_0) < tolerance[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
@pytest.mark.parametrize("n", [1, 2, 8, 9, 17, 41])
def test_any_number_of_frames_equals_the_oracle(
    problem, operator_of, oracle_kwargs, relative, tolerance, asymmetric, n, transport, dtype
):
    p = problem((4, 2, 6), asymmetric, n=n, transport=transport)
    op = operator_of(p, dtype)
    E_h = op.forward(p.S, p.dq)
    assert E_h.shape == (n, 2, 6)
    for frame, expected in enumerate(reference.forward(p.S, p.dq, **oracle_kwargs(p, op))):
        assert relative(E_h[frame], expected) < tolerance[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
@pytest.mark.parametrize("nx", [1, 6, 9])
def test_independent_s_0_and_a_structured_beam_equal_the_oracle(
    problem, operator_of, oracle_kwargs, relative, tolerance, asymmetric, transport, dtype, nx
):
    p = problem((5, 2, nx), asymmetric, n=3, transport=transport)
    p.S[2:4, :, : nx // 2] = 0  # vacuum in S but not in s_0
    op = operator_of(p, dtype)
    got = op.forward(p.S, p.dq, s_0=p.s_0, incident=p.incident, return_E_0=True)
    expected = reference.forward(p.S, p.dq, return_E_0=True, **oracle_kwargs(p, op, s_0=p.s_0, incident=p.incident))
    assert relative(got[0], expected[0]) < tolerance[dtype]
    assert relative(got[1], expected[1]) < tolerance[dtype]


@pytest.mark.parametrize("pixels", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shift_by_several_pixels_equals_the_oracle(
    problem, operator_of, oracle_kwargs, relative, tolerance, asymmetric, pixels, dtype
):
    p = problem((6, 2, 5), asymmetric, n=3, pixels=pixels)
    op = operator_of(p, dtype)
    assert op.shift == pixels
    got = op.forward(p.S, p.dq, incident=p.incident, return_E_0=True)
    expected = reference.forward(p.S, p.dq, return_E_0=True, **oracle_kwargs(p, op, incident=p.incident))
    assert relative(got[0], expected[0]) < tolerance[dtype]
    assert relative(got[1], expected[1]) < tolerance[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_coupling_beyond_a_short_series_equals_the_oracle(
    problem, operator_of, oracle_kwargs, relative, tolerance, overwhelming, transport, dtype
):
    p = problem((3, 2, 6), overwhelming, transport=transport)
    p.S[1, 0, :3] *= 1e-3  # weak voxels beside strong ones, so both evaluations are met in one row
    op = operator_of(p, dtype)
    got = op.forward(p.S, p.dq, return_E_0=True)
    expected = reference.forward(p.S, p.dq, return_E_0=True, **oracle_kwargs(p, op))
    assert relative(got[0], expected[0]) < tolerance[dtype]
    assert relative(got[1], expected[1]) < tolerance[dtype]


@pytest.mark.parametrize("strength", [1e-3, 0.03, 0.1, 0.2, 0.25, 0.27, 0.3, 1, 3, 10, 30])
def test_voxel_exponential_is_exact_at_every_coupling_strength(
    problem, operator_of, oracle_kwargs, relative, gold, strength
):
    # One layer is one exponential; |dz K_h chi_h| runs through `strength`, densely where a series may end.
    p = problem((1, 1, 8), gold, n=1)
    p.physics["chi_h"] = strength / (np.pi / gold["wavelength"] * p.physics["voxel"][0]) * np.exp(-0.1j)
    p.physics["chi_0"] = -0.5 * p.physics["chi_h"]
    op = operator_of(p)
    got = op.forward(p.S, p.dq, s_0=p.s_0, return_E_0=True)
    expected = reference.forward(p.S, p.dq, return_E_0=True, **oracle_kwargs(p, op, s_0=p.s_0))
    # One exponential of a number of size `strength`: its rounding is eps (1 + strength), with a factor of 50.
    bound = 50 * np.finfo(float).eps * (1 + strength)
    assert relative(got[0], expected[0]) < bound
    assert relative(got[1], expected[1]) < bound


def test_fourier_equals_shift_where_the_move_is_whole(problem, operator_of, relative, asymmetric):
    # A beam that is smooth and vanishes near both ends needs no padding convention.
    p = problem((9, 2, 48), asymmetric, n=3)
    x = np.arange(48)
    beam = np.exp(-(((x - 20) / 4) ** 2)) * np.ones((2, 1)) + 0j
    p.S *= np.exp(-(((x - 24) / 5) ** 2))
    shift, fourier = (operator_of(p, transport=t).forward(p.S, p.dq, incident=beam) for t in ("shift", "fourier"))
    # Both are exact; only rounding, 1e-14, and the beam's edge, exp(-25) = 1e-11 times S there, differ.
    assert relative(fourier, shift) < 1e-12


def test_auto_takes_shift_where_it_applies(problem, operator_of, gold, voxel_of):
    p = problem((3, 1, 4), gold)

    def taken(pixels, **options):
        return operator_of(p, transport="auto", voxel=voxel_of(gold["two_theta"], pixels), **options).transport

    assert operator_of(p, transport="auto", voxel=voxel_of(gold["two_theta"], 2)).shift == 2
    assert [taken(pixels) for pixels in (0.3, 0.9, 1, 1.01, 3)] == ["fourier", "fourier", "shift", "fourier", "shift"]
    assert taken(1.01, scheme="etd2rk") == "fourier"
    half = voxel_of(gold["two_theta"] / 2, 1.01)
    assert operator_of(p, transport="auto", orientation="symmetric", voxel=half).transport == "fourier"


@pytest.mark.parametrize(
    "pixels, options, message",
    [
        (1.51, {}, "^transport: expected 'shift', 'fourier' or 'auto', got 'box', which needs at most 1.5 pixels"),
        (0.5, {"orientation": "symmetric"}, "^transport: expected .* with orientation 'symmetric', got 'box'"),
        (0.9, {"scheme": "etd2rk"}, "^transport: expected 'fourier' or 'auto' with scheme 'etd2rk', got 'box'"),
    ],
)
def test_box_is_refused_where_it_is_none(problem, operator_of, gold, voxel_of, pixels, options, message):
    p = problem((3, 1, 4), gold)
    with pytest.raises(ValueError, match=message):
        operator_of(p, transport="box", voxel=voxel_of(gold["two_theta"], pixels), **options)


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_a_bright_pixel_moves_towards_larger_x(problem, operator_of, gold, transport):
    p = problem((5, 1, 12), gold, transport=transport, pixels=1)
    incident = np.zeros((1, 12))
    incident[0, 3] = 1
    E_h, E_0 = operator_of(p).forward(np.zeros(p.shape), p.dq, incident=incident, return_E_0=True)
    assert np.abs(E_0 - np.roll(incident, 4, 1)).max() < 1e-13  # rounding of four transforms of length < 50
    assert not E_h.any()


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_incident_of_ones_is_the_plane_wave(problem, operator_of, relative, asymmetric, transport):
    p = problem((5, 2, 96), asymmetric, transport=transport)
    if transport == "fourier":
        # Its row is longer for a given beam, which a field that is not band limited would notice.
        p.S = np.exp(-(((np.arange(96) - 48) / 8) ** 2)) * np.exp(1j * np.arange(5))[:, None, None] * np.ones((2, 1))
    op = operator_of(p)
    # The same field by two ways: only rounding differs.
    assert relative(op.forward(p.S, p.dq, incident=np.ones((2, 96))), op.forward(p.S, p.dq)) < 1e-13


def test_the_beam_continues_with_its_edge_value_on_the_left(problem, operator_of, asymmetric):
    p = problem((6, 1, 5), asymmetric)
    p.S[:] = 0
    _, E_0 = operator_of(p).forward(p.S, p.dq, incident=p.incident, return_E_0=True)
    assert np.array_equal(E_0, np.broadcast_to(p.incident[:, :1], E_0.shape))


def test_a_fourier_row_flows_in_with_the_left_edge_value(problem, operator_of, asymmetric):
    """Without a crystal, what reaches the box of a smooth row from its left is the left edge value."""
    p = problem((9, 1, 40), asymmetric, transport="fourier")
    op = operator_of(p)
    x = np.arange(40)
    beam = 1 + 0.5 * np.exp(-(((x - 15) / 4) ** 2))[None]
    row = op.incident_row(beam)
    assert row.shape[0] == 1 and row.shape[1] >= op.row_length
    assert np.array_equal(row[:, :40], beam)
    _, E_0 = op.forward(np.zeros(p.shape), p.dq, incident=beam, return_E_0=True)
    moved = 8 * 0.83
    expected = 1 + 0.5 * np.exp(-(((x - moved - 15) / 4) ** 2))
    # A Gaussian of 4 pixels is band limited to exp(-(2 pi)^2) = 7e-18, its jump at the edge is exp(-14) / 2 = 4e-7.
    assert np.abs(E_0 - expected).max() < 1e-6


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_single_precision_holds_at_large_detuning(problem, operator_of, relative, tolerance, gold, transport):
    # D dz = 1.6 per layer and 400 rad over the box: the phases must be built in double precision.
    p = problem((250, 1, 12), gold, n=3, transport=transport)
    p.dq *= 10
    single, double = (operator_of(p, dtype).forward(p.S, p.dq) for dtype in ("complex64", "complex128"))
    assert relative(single, double) < tolerance["complex64"]


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_rows_are_independent(problem, operator_of, relative, asymmetric, transport):
    p = problem((5, 4, 7), asymmetric, transport=transport)
    p.dq[:, 1] = 0  # the exit ramp knows y; nothing else does
    whole = operator_of(p).forward(p.S, p.dq)
    for y in range(4):
        row = operator_of(p, shape=(5, 1, 7)).forward(p.S[:, y : y + 1], p.dq)
        assert relative(whole[:, y : y + 1], row) < 1e-14  # same arithmetic, another place in the block


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_frames_are_independent(problem, operator_of, relative, asymmetric, transport):
    p = problem((5, 2, 7), asymmetric, n=11, transport=transport)
    op = operator_of(p)
    whole = op.forward(p.S, p.dq)
    for frame in (0, 4, 10):
        # same arithmetic in another lane
        assert relative(whole[frame : frame + 1], op.forward(p.S, p.dq[frame : frame + 1])) < 1e-14


def test_vacuum_layers_in_front_and_behind_change_nothing(problem, operator_of, relative, asymmetric):
    p = problem((4, 2, 6), asymmetric, n=3)
    p.dq[:, 2] = 0  # otherwise G turns behind the crystal
    empty = np.zeros((2, 2, 6))
    longer = operator_of(p, shape=(8, 2, 6)).forward(np.concatenate([empty, p.S, empty]), p.dq)
    assert relative(longer, operator_of(p).forward(p.S, p.dq)) < 1e-14  # multiplications by 1


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
@pytest.mark.parametrize("seed", range(12))
def test_scattered_crystals_equal_the_oracle(
    problem, operator_of, oracle_kwargs, relative, tolerance, asymmetric, transport, seed
):
    """Vacuum is skipped: whole layers, rows and columns, gaps in between, single voxels."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(1, 14, 3))
    most = 1.5 if transport == "box" else 2.5
    pixels = int(random.integers(1, 4)) if transport == "shift" else random.uniform(0.3, most)
    p = problem(shape, asymmetric, n=int(random.integers(1, 6)), transport=transport, pixels=pixels)
    for axis, size in enumerate(shape):
        p.S[(slice(None),) * axis + (random.uniform(size=size) < 0.3,)] = 0
    p.S[random.uniform(size=shape) < 0.5] = 0
    op = operator_of(p)
    got = op.forward(p.S, p.dq, incident=p.incident, return_E_0=True)
    expected = reference.forward(p.S, p.dq, return_E_0=True, **oracle_kwargs(p, op, incident=p.incident))
    assert np.linalg.norm(got[0] - expected[0]) <= tolerance["complex128"] * np.linalg.norm(expected[0])
    assert relative(got[1], expected[1]) < tolerance["complex128"]


_SWEEPS = """
import sys
import numpy as np
import pendel
rng = np.random.default_rng(1)
S, seed = rng.uniform(0.2, 1, (6, 2, 11)) * np.exp(1j * rng.normal(size=(6, 2, 11))), rng.normal(size=(5, 2, 11)) + 0j
results = []
for dtype in ("complex128", "complex64"):
    for pixels, orientation in ((1, "k_h"), (0.83, "k_h"), (1, "symmetric"), (0.83, "symmetric")):
        voxel, chi = (pixels * 8e-9, 8e-9, 8e-9), (-1e-3 + 1e-4j, 1e-3)
        angle = {"k_h": np.pi / 4, "symmetric": np.pi / 2}[orientation]
        op = pendel.TakagiTaupin((6, 2, 11), voxel, 1.55e-10, angle, *chi, dtype=dtype, orientation=orientation)
        adj = op.adjoint(S, 1e7 * rng.normal(size=(5, 3)), np.resize(seed, (5, *op.exit_shape)))
        results += [adj.S.ravel(), adj.incident.ravel(), adj.dq.ravel() * 1e7]
np.save(sys.argv[1], np.concatenate(results).astype(complex))
print(pendel.info()["cpu instruction set"])
"""


def test_every_instruction_set_gives_the_same_field_and_gradient(tmp_path, relative):
    results = {}
    for wish in ("sse2", "avx2", "avx512"):
        run = subprocess.run(
            [sys.executable, "-c", _SWEEPS, str(tmp_path / f"{wish}.npy")],
            env=os.environ | {"PENDEL_CPU": wish, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        results[run.stdout.strip()] = np.load(tmp_path / f"{wish}.npy")
    first, *others = results.values()
    for other in others:
        double, single = slice(0, len(first) // 2), slice(len(first) // 2, None)
        # Another number of lanes changes the order of the sums over frames and which products are fused: rounding.
        assert relative(other[double], first[double]) < 1e-13
        assert relative(other[single], first[single]) < 1e-5


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_gauge_covariance(problem, operator_of, relative, asymmetric, transport):
    """S -> S exp(i (g_x x + g_y y + g_z z)) is D -> D + g_z and an exit ramp, exactly in the discrete scheme."""
    p = problem((7, 3, 6), asymmetric, n=3, transport=transport)
    dz, dy, dx = p.physics["voxel"]
    g = np.array([1.1e7, -0.7e7, 2.3e7])
    z = (np.arange(7)[:, None, None] + 0.5) * dz
    y, x = (np.arange(3)[:, None] - 1) * dy, (np.arange(6) - 3) * dx
    op = operator_of(p)
    turned = op.forward(p.S * np.exp(1j * (g[0] * x + g[1] * y + g[2] * z)), p.dq)
    shifted = op.forward(p.S, p.dq + [0, 0, g[2]])
    # An identity of the scheme, so only rounding (1e-14) remains
    assert relative(turned, shifted * np.exp(1j * (g[0] * x + g[1] * y + g[2] * 7 * dz))) < 1e-12


def test_only_the_square_of_the_polarisation_factor_and_the_product_of_chi_enter(
    problem, operator_of, relative, asymmetric
):
    p = problem((5, 2, 6), asymmetric)
    C = p.physics["polarization_factor"]
    inside = {"chi_h": C * asymmetric["chi_h"], "chi_hbar": C * asymmetric["chi_hbar"], "polarization_factor": 1.0}
    E_h = operator_of(p).forward(p.S, p.dq)
    assert relative(operator_of(p, **inside).forward(p.S, p.dq), E_h) < 1e-13  # rounding
    flipped = {"chi_h": -asymmetric["chi_h"], "chi_hbar": -asymmetric["chi_hbar"]}
    assert relative(operator_of(p, **flipped).forward(p.S, p.dq), -E_h) < 1e-13  # rounding


@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_energy_of_a_lossless_crystal_is_conserved(problem, operator_of, lossless, transport):
    # A smooth beam and a smooth crystal well inside the box: nothing leaves it sideways.
    p = problem((24, 2, 128), lossless, n=3, transport=transport)
    x = np.arange(128)
    beam = np.exp(-(((x - 44) / 6) ** 2)) * np.ones((2, 1))
    z, y = np.arange(24)[:, None, None], np.arange(2)[:, None]
    S = np.exp(-(((x - 56) / 10) ** 2)) * np.exp(1j * (0.3 * np.sin(0.2 * x) + 0.1 * z + y))
    E_h, E_0 = operator_of(p).forward(S, p.dq, incident=beam, return_E_0=True)
    gamma_0 = np.cos(lossless["two_theta"])
    total = gamma_0 * (np.abs(E_0) ** 2).sum((1, 2)) + (np.abs(E_h) ** 2).sum((1, 2))
    assert (np.abs(E_h) ** 2).sum((1, 2)).min() > 0.02 * total.min()
    # The scheme is unitary: 24 layers of rounding, 1e-14, remain.
    assert np.abs(total / (gamma_0 * (beam**2).sum()) - 1).max() < 1e-12


def test_absorption_attenuates(problem, operator_of, gold):
    """The forward-diffracted wave of a crystal without reflection falls as exp(-k Im chi_0 path / 2)."""
    p = problem((100, 1, 100), gold | {"chi_h": 0})
    _, E_0 = operator_of(p).forward(np.ones(p.shape), p.dq, return_E_0=True)
    path = 100 * p.physics["voxel"][0] / np.cos(gold["two_theta"])
    expected = np.exp(1j * np.pi / gold["wavelength"] * gold["chi_0"] * path)
    assert abs(expected) < 0.9
    assert np.abs(E_0[..., -1] - expected).max() < 1e-12  # 100 roundings


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_results_do_not_depend_on_the_thread_count(problem, operator_of, asymmetric, transport, dtype):
    p = problem((6, 5, 7), asymmetric, n=17, transport=transport)
    runs = [operator_of(p, dtype, threads=n).forward(p.S, p.dq, return_E_0=True) for n in (1, 2, 3, None)]
    for run in runs[1:]:
        assert np.array_equal(run[0], runs[0][0])
        assert np.array_equal(run[1], runs[0][1])


@pytest.mark.parametrize("dtype, bound", [("complex128", 1e-12), ("complex64", 5e-5)])
@pytest.mark.parametrize("transport", ["shift", "fourier", "box"])
def test_reverse_sweep_recovers_the_entrance_state(problem, operator_of, gold, transport, dtype, bound):
    # 256 absorbing steps forward and back: drift measured 1.6e-5 in single precision; eps ratio 2e-9 in double.
    p = problem((256, 1, 24), gold, transport=transport)
    assert operator_of(p, dtype).reversal_error(p.S, p.dq) < bound


def test_inputs_are_neither_changed_nor_required_to_be_contiguous(problem, operator_of, asymmetric):
    p = problem((4, 2, 6), asymmetric)
    kept = p.S.copy(), p.dq.copy()
    op = operator_of(p)
    E_h = op.forward(p.S, p.dq)
    assert np.array_equal(p.S, kept[0]) and np.array_equal(p.dq, kept[1])
    assert np.array_equal(op.forward(np.asfortranarray(p.S), p.dq[::-1])[::-1], E_h)
    assert np.array_equal(op.forward(np.ones(p.shape, int), p.dq), op.forward(np.ones(p.shape, complex), p.dq))


def test_operator_states_what_it_is(problem, operator_of, asymmetric):
    p = problem((4, 2, 6), asymmetric, pixels=2)
    op = operator_of(p, "complex64")
    assert isinstance(op, pendel.TakagiTaupin)
    assert op.shape == (4, 2, 6)
    assert tuple(op.voxel) == tuple(p.physics["voxel"])
    assert (op.wavelength, op.two_theta) == (asymmetric["wavelength"], asymmetric["two_theta"])
    assert (op.transport, op.dtype, op.shift, op.row_length) == ("shift", np.dtype("complex64"), 2, 12)
