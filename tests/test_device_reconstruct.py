"""Reconstruction on a device: the CPU's steps and groups, nothing but a few numbers to the host in an epoch.

Emulated (standin.py) and, marked gpu, on a GPU.
"""

import cube
import numpy as np
import pytest
from pendel import (
    Coherence,
    Model,
    coarse,
    cuda_available,
    kinematic,
    kinematic_start,
    lbfgs,
    multiscale,
    polish,
    reconstruct,
)
from pendel.app import store
from pendel.app.cli import main
from pendel.fit.objective import DataRecipe, Objective, measured
from scan import FRAMES, SHAPE, make_crystal, make_data, make_model

QUIET = {"progress": False}
FEW = 64  # elements: more of them at once are an array


@pytest.fixture
def given(rng):
    """Counts, a mask, and a rough start: where the far field has a zero the gradient hangs on the rounding."""
    data = make_data(rng)
    return {"data": data, "mask": rng.random(data.shape) > 0.1, "start": 0.7 * make_crystal(rng)}


RECIPES = {
    "total variation, shrink-wrap, recentring": {"atv_weight": 0.01, "shrink_wrap_every": 2, "recentre_every": 1},
    "poisson, free density, held-out pixels": {
        "likelihood": "poisson",
        "background": 0.2,
        "s_0": "free",
        "phase_only_epochs": 1,
        "free_fraction": 0.05,
        "shrink_wrap_every": 2,
        "atv_weight": 0.01,
        "atv_p": 1.0,
    },
    "angles and intensities, plateau": {
        "refine_angles": True,
        "refine_intensities": True,
        "refine_after": 1,
        "s_0": "support",
        "schedule": "plateau",
        "patience": 1,
        "shrink_wrap_every": 0,
    },
    "intensities of counts, no bound": {
        "likelihood": "poisson",
        "background": 0.2,
        "refine_intensities": True,
        "refine_after": 0,
        "amplitude_bound": None,
        "schedule": [(0, 0.1), (2, 0.05)],
        "shrink_wrap_every": 0,
    },
}


def same(found, expected, relative, tolerance):
    for name in ("S", "s_0", "angle_offsets", "flux"):
        value, wanted = getattr(found, name), getattr(expected, name)
        if wanted is None:
            assert value is None, name
        else:
            assert isinstance(value, np.ndarray) and value.dtype == wanted.dtype, name
            assert relative(value, wanted) < tolerance, name
    assert isinstance(found.support, np.ndarray) and np.array_equal(found.support, expected.support)
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        assert np.allclose(found.history[name], values, rtol=10 * tolerance, atol=0), name
    for name in ("misfit", "scale", "free_misfit", "free_loss"):
        value, wanted = getattr(found, name), getattr(expected, name)
        assert value == (wanted if wanted is None else pytest.approx(wanted, rel=10 * tolerance)), name


# complex128: Adam's first steps, m/sqrt(v), carry the rounding of the smallest gradients; 12 of them left 1e-14.
# complex64: 5e-7, and a factor of ten.
RUNS = [(name, "complex128", 1e-12) for name in RECIPES] + [
    ("total variation, shrink-wrap, recentring", "complex64", 5e-6)
]


@pytest.mark.parametrize("name, dtype, tolerance", RUNS)
def test_a_run_takes_the_steps_of_the_cpu_and_copies_no_array(device, given, relative, name, dtype, tolerance):
    marks, seen = [], device.transfers

    def mark(epoch, S, history):
        assert isinstance(S, device.cupy.ndarray)
        marks.append(len(seen))

    options = {"epochs": 4, "batches": 3, "learning_rate": 0.05, "seed": 3} | QUIET | given | RECIPES[name]
    device.unharmed()
    seen.clear()
    device.watch(True)
    found = reconstruct(make_model(dtype, device="cuda"), **options, callback=mark)
    device.watch(False)
    assert device.unharmed(), "a kernel wrote outside its arrays"
    same(found, reconstruct(make_model(dtype), **options), relative, tolerance)
    assert np.array_equal(found.support, given["start"] != 0) != bool(options["shrink_wrap_every"])
    if not device.strict:
        return  # copies are counted by the stand-in
    for epoch, (a, b) in enumerate(zip(marks[:-1], marks[1:], strict=True), 2):
        assert max(elements for _, elements in seen[a:b]) <= FEW, seen[a:b]
        reads = [elements for direction, elements in seen[a:b] if direction == "to the host"]
        every = options["shrink_wrap_every"]
        moved, shrunk = (n > 0 and epoch % n == 0 and epoch < 4 for n in (options.get("recentre_every", every), every))
        # the numbers of the epoch; the place; of a new support peak, pieces, their sizes, holes and whether any is left
        assert 0 <= len(reads) - 1 - moved <= 5 * shrunk, (epoch, reads)
        # the indices of the frames, for the pass and for each refinement
        uploads = sum(elements for direction, elements in seen[a:b] if direction == "to the device")
        assert uploads == FRAMES * (1 + sum(bool(options.get(f"refine_{k}")) for k in ("angles", "intensities")))


def test_an_array_that_is_copied_in_the_loop_is_seen(device, given):
    if not device.strict:
        pytest.skip("copies are counted by the stand-in")
    transfers = device.transfers
    model, xp = make_model(device="cuda"), device.cupy
    S = xp.asarray(given["start"])
    for copy in (lambda: np.asarray(S), lambda: np.abs(S), lambda: np.ones(SHAPE) * S, lambda: S + np.ones(SHAPE)):
        with pytest.raises(TypeError):
            copy()
    transfers.clear()
    Objective(measured(model, given["data"], None, DataRecipe())).on_host(given["start"], given["start"] != 0)
    assert ("to the host", S.size) in transfers and ("to the device", S.size) in transfers


def test_data_of_either_kind_give_the_same_bits(device, given):
    model, xp = make_model("complex64", device="cuda"), device.cupy
    options = {"epochs": 2, "batches": 2, "shrink_wrap_every": 0} | QUIET
    first = reconstruct(model, **given, **options)
    wide = {"data": xp.asarray(given["data"].astype(float))}
    uploaded = {name: xp.asarray(value) for name, value in given.items()}
    second = reconstruct(model, **(uploaded | wide), **options)
    assert np.array_equal(first.S, second.S) and first.misfit == second.misfit


def test_a_resumed_run_ends_in_the_same_bits(device, given, relative, tmp_path):
    model = make_model("complex64", device="cuda")
    options = {"epochs": 4, "batches": 2, "shrink_wrap_every": 2, "refine_angles": True, "refine_after": 0}
    options |= QUIET | given
    whole = reconstruct(model, **options)
    path = tmp_path / "run.h5"
    checkpoint = {"checkpoint": path, "checkpoint_every": 1}
    reconstruct(model, **options, **checkpoint, callback=lambda epoch, *_: epoch == 2)
    on_cpu = tmp_path / "copy.h5"
    on_cpu.write_bytes(path.read_bytes())
    resumed = reconstruct(model, **options, **checkpoint, resume=True)
    assert np.array_equal(resumed.S, whole.S) and np.array_equal(resumed.angle_offsets, whole.angle_offsets)
    assert {n: list(v) for n, v in resumed.history.items()} == {n: list(v) for n, v in whole.history.items()}
    # and the CPU takes it over
    cpu = reconstruct(make_model("complex64"), **options, checkpoint=on_cpu, resume=True)
    assert relative(cpu.S, whole.S) < 5e-6


def test_lbfgs_and_polish_are_those_of_the_cpu(device, given, relative):
    xp = device.cupy
    cpu, model = make_model(), make_model(device="cuda")
    options = {"iterations": 2, "atv_weight": 0.01, "free_fraction": 0.05} | QUIET
    device.watch(True)
    found = lbfgs(model, **given, **options)
    device.watch(False)
    same(found, lbfgs(cpu, **given, **options), relative, 1e-11)
    options = {"rounds": 1, "iterations": (1, 1), "flux": np.linspace(0.9, 1.1, FRAMES)} | QUIET
    uploaded = {name: xp.asarray(value) for name, value in given.items()}
    expected = polish(cpu, **given, **options)
    same(polish(model, **uploaded, **options), expected, relative, 1e-11)
    device.watch(True)
    same(polish(model, **given, **options), expected, relative, 1e-11)
    device.watch(False)


def test_the_ways_to_a_start_take_a_model_on_a_device(device, given, relative):
    xp = device.cupy
    cpu, model = make_model(), make_model(device="cuda")
    options = {"rounds": 1, "iterations": (0, 1), "steps": 1, "levels": 0, "seed": 1} | QUIET
    found = multiscale(model, xp.asarray(given["data"]), start=xp.asarray(given["start"]), **options)
    assert relative(found.S, multiscale(cpu, given["data"], start=given["start"], **options).S) < 1e-11
    speck = np.zeros(given["data"].shape)
    speck[4, 6:8, 7:9] = 1  # holds no crystal, but fits in the box
    phased = kinematic.KinematicResult(speck, speck > 0, 0.1, np.zeros(1), 0)
    trial = {"phased": phased, "trial_epochs": 1, "batches": 1} | QUIET
    found, expected = (
        kinematic_start(model, xp.asarray(given["data"]), **trial),
        kinematic_start(cpu, given["data"], **trial),
    )
    for name in ("phased", "twin phased"):
        assert found.trial_misfits[name] == pytest.approx(expected.trial_misfits[name], rel=1e-9)
    large = cube.make_model()
    large = Model(large.experiment, large.crystal, large.shape, large.voxel, device="cuda")
    assert coarse(large, np.zeros((20, 20, 20)))[0].device == "cuda"


def test_what_is_given_once_is_checked_once(device, given):
    model = make_model(device="cuda")
    wrong = given["data"].astype(float)
    wrong[2, 3, 4:6] = np.nan, -1
    with pytest.raises(ValueError, match="^data: expected finite intensities >= 0 on good pixels, got 2 others"):
        reconstruct(model, wrong, **QUIET)
    masked = reconstruct(model, wrong, wrong >= 0, given["start"], epochs=1, **QUIET)
    assert np.isfinite(masked.misfit)
    with pytest.raises(ValueError, match=r"^data: expected shape \(frames, rows, cols\)"):
        reconstruct(model, wrong[1:], **QUIET)
    with pytest.raises(TypeError, match="^mask: expected dtype bool, True = good pixel, got float64"):
        reconstruct(model, given["data"], wrong, **QUIET)
    with pytest.raises(RuntimeError, match="^reconstruct: the loss became nan in epoch 1"):
        reconstruct(model, given["data"], start=np.zeros(SHAPE), support=np.ones(SHAPE, bool), epochs=2, **QUIET)


CONFIG = """
[experiment]
energy_keV = 8.0
distance_mm = 300.0
pixel_um = 110.0
two_theta_deg = 44.76
rocking_step_deg = 0.05
rocking_frames = 8
detector_shape = [12, 12]

[crystal]
chi_0 = [-9.407e-5, 8.4962e-6]
chi_h = [7.4e-5, -8.4e-6]

[model]
shape = [8, 8, 8]

[start]
kind = "flat"
size_nm = 200.0

[output]
pictures = false

[recipe]
epochs = 2
refine_intensities = true

[simulate]
size_nm = 150.0
"""


def test_the_command_line_runs_on_a_device(device, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    used, save = [], store.save_result

    def note(path, model, *args, **kwargs):
        used.append(model.device)
        save(path, model, *args, **kwargs)

    monkeypatch.setattr(store, "save_result", note)
    assert main(["simulate", "run.toml", "-o", "data.cxi", "--device", "cuda"]) == 0
    command = ["reconstruct", "run.toml", "--data", "data.cxi", "-o", "result.cxi", "--quiet"]
    assert main([*command, "--device", "cuda"]) == 0 and used == ["cuda"]
    capsys.readouterr()
    assert main([*command, "--device", "gpu"]) == 2
    assert "model.device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'" in capsys.readouterr().err


def test_without_a_device_the_command_line_says_why(tmp_path, capsys):
    if cuda_available():
        pytest.skip("there is a device")
    (tmp_path / "run.toml").write_text(CONFIG)
    assert main(["simulate", str(tmp_path / "run.toml"), "-o", str(tmp_path / "data.cxi"), "--device", "cuda:1"]) == 2
    expected = "pendel: error: model.device: expected a CUDA device that can be used, got none: "
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize("likelihood", ["amplitude", "poisson"])
def test_what_is_refined_beside_the_crystal_is_that_of_the_cpu(device, given, relative, likelihood):
    """Iterations of L-BFGS carry the rounding on; three of them left 1e-12."""
    refined = {"refine_angles": True, "refine_intensities": True, "refine_background": True, "refine_blur": True}
    refined |= {"refine_coherence": True, "refine_bandwidth": True}
    options = {"rounds": 1, "iterations": (1, 3), "likelihood": likelihood, "model_error": 0.05, **refined, **QUIET}
    options |= {"background": np.linspace(0.1, 0.5, FRAMES), "flux": np.linspace(0.9, 1.1, FRAMES)}
    beam = {"point_spread": 0.5, "coherence": Coherence(bandwidth=1e-3, modes=2)}
    found = polish(make_model(device="cuda", **beam), **options, **given)
    wanted = polish(make_model(**beam), **options, **given)
    assert relative(found.S, wanted.S) < 1e-9 and found.misfit == pytest.approx(wanted.misfit, rel=1e-9)
    *corrections, coherence = found.corrections
    np.testing.assert_allclose(coherence.squares, wanted.coherence.squares, rtol=1e-7)
    for value, expected in zip(corrections, wanted.corrections[:-1], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())
    np.testing.assert_allclose(found.background, wanted.background)


def test_a_known_flux_is_that_of_the_cpu(device, given, relative):
    options = {"epochs": 2, "batches": 2, "shrink_wrap_every": 0, "flux": np.linspace(0.9, 1.1, FRAMES)} | QUIET | given
    options |= {"refine_intensities": True, "refine_after": 0, "background": np.full((14, 16), 0.3)}
    found, wanted = reconstruct(make_model(device="cuda"), **options), reconstruct(make_model(), **options)
    assert relative(found.S, wanted.S) < 1e-12 and relative(found.flux, wanted.flux) < 1e-12
