"""The command line in-process: exit status, messages, and the way from a config to a picture."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pendel
import pytest
from pendel import __version__, io
from pendel.app import config, simulate
from pendel.app.cli import main
from pendel.fit.refinement import dq_at

CONFIG = """
[experiment]
energy_keV = 8.0
distance_mm = 300.0
pixel_um = 55.0
two_theta_deg = 44.76
rocking_step_deg = 0.02
rocking_frames = 24
detector_shape = [24, 24]

[crystal]
name = "Au"
hkl = [0, 0, 2]
chi_0 = [-9.407e-5, 8.4962e-6]
chi_h = [7.4e-5, -8.4e-6]

[model]
threads = 1

[start]
iterations = 150
trial_epochs = 5

[recipe]
method = "adam"
epochs = 30
checkpoint_every = 4

[simulate]
maker = "model"
size_nm = 350.0
rotation_deg = 20.0
strain = "bumps"
strength = 1.0
"""


# few of everything: what is asked for is that the parts hold together
SOLVED = CONFIG.replace('method = "adam"\nepochs = 30\ncheckpoint_every = 4\n', "").replace('maker = "model"\n', "")
SOLVED += """photons = 2e4

[solve]
steps = 300
starts = 1
trial_epochs = 5
fine_rounds = 1
fine_iterations = 15
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with run.toml, data.cxi and result.cxi of the whole chain."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "run.toml").write_text(CONFIG)
    assert main(["simulate", str(folder / "run.toml"), "-o", str(folder / "data.cxi")]) == 0
    command = ["reconstruct", str(folder / "run.toml"), "--data", str(folder / "data.cxi"), "--quiet"]
    assert main([*command, "-o", str(folder / "result.cxi")]) == 0
    return folder


@pytest.fixture
def refused(folder, capsys):
    """Runs a command line that must fail: (arguments, status) -> its one line on stderr."""

    def refused(*arguments, status=2):
        before = sorted(p.name for p in folder.iterdir())
        assert main([str(a) for a in arguments]) == status
        out, err = capsys.readouterr()
        assert err.startswith("pendel: error: ") and err.count("\n") == 1 and "Traceback" not in err, err
        assert sorted(p.name for p in folder.iterdir()) == before  # nothing half-written, nothing new
        return err

    return refused


def test_simulated_data_hold_geometry_and_truth(folder):
    scan = io.read_scan(folder / "data.cxi")
    made = config.load(folder / "run.toml")
    model = simulate.model_of(made)
    assert scan.data.shape == (24, 24, 24) and scan.data.max() == pytest.approx(1e6) and scan.mask.all()
    assert np.array_equal(scan.rocking_angles, model.experiment.rocking_angles)
    assert scan.arm == (("y+", np.radians(44.76)),) and scan.rocking_axis == "y+" and scan.centre == (12, 12, 12)
    truth, scale = scan.metadata["truth"], scan.metadata["scale"]
    # 350 nm plus 1.35 times as much room, turned by 20 degrees about y, in voxels of 35 nm
    assert truth.shape == model.shape == (18, 14, 18)
    assert np.abs(truth).max() == pytest.approx(1) and np.angle(truth).max() == pytest.approx(1, abs=0.02)
    volume = np.abs(truth).sum(dtype=float) * np.prod(model.voxel)
    assert volume == pytest.approx(350e-9**3, rel=1e-3)  # edge voxels are integrated on a 12 x 12 raster
    assert np.allclose(model.intensities(truth) * scale, scan.data, rtol=1e-6)  # the same bits, rounded once more


def test_the_result_tells_how_it_was_made(folder):
    stored = io.read_result(folder / "result.cxi")
    scan = io.read_scan(folder / "data.cxi")
    made = config.load(folder / "run.toml")
    assert stored.crystal == "Au" and stored.hkl == (0, 0, 2) and stored.chi_0 == made.crystal_keys.chi_0
    assert stored.misfit < 5e-3 and stored.scale == pytest.approx(scan.metadata["scale"], rel=0.2)
    assert len(stored.loss["loss"]) == 30 and stored.loss["loss"][-1] < stored.loss["loss"][0]
    assert all(n % 2 == 0 for n in stored.S.shape) and stored.support.shape == stored.S.shape
    assert np.array_equal(stored.rocking_measured, scan.data.sum(axis=(1, 2), dtype=float))
    # the modelled curve fits as well as the misfit says
    assert np.allclose(stored.rocking_modelled, stored.rocking_measured, atol=0.1 * stored.rocking_measured.max())
    assert stored.frame_index == np.argmax(stored.rocking_measured)
    assert np.array_equal(stored.measured_frame, scan.data[stored.frame_index])
    assert config.loads(stored.config).recipe.epochs == 30
    extra = stored.metadata
    assert extra["versions"]["pendel"] == __version__ and extra["epochs"] == 30
    assert extra["start"]["kind"].startswith("kinematic, ") and len(extra["start"]["trial_misfits"]) == 4
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob(".*"))  # no temporary files stay


def test_view(folder, tmp_path, capsys):
    picture = tmp_path / "picture.svg"
    assert main(["view", str(folder / "result.cxi"), "-o", str(picture)]) == 0
    assert b"<svg" in picture.read_bytes()[:2000] and str(picture) in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["picture.svg"]


def test_resume_goes_on_from_the_checkpoint(folder, tmp_path, capsys):
    data, toml, result = folder / "data.cxi", folder / "run.toml", tmp_path / "r.cxi"
    command = ["reconstruct", str(toml), "--data", str(data), "-o", str(result), "--set", "output.pictures=false"]
    flat = [
        "--set",
        'start.kind="flat"',
        "--set",
        "start.size_nm=[420, 360, 420]",
        "--set",
        'recipe.schedule="constant"',
    ]
    assert main([*command, *flat, "--resume", "--set", "recipe.epochs=4"]) == 0
    out, err = capsys.readouterr()
    assert "no checkpoint" in out and "reconstruct: epoch 4/4" in err
    assert main([*command, *flat, "--resume", "--set", "recipe.epochs=7"]) == 0
    out, err = capsys.readouterr()
    assert "going on from" in out and "reconstruct: epoch 7/7" in err
    resumed = io.read_result(result)
    assert main([*command, *flat, "--set", "recipe.epochs=7"]) == 0
    whole = io.read_result(result)
    assert np.array_equal(resumed.S, whole.S) and np.array_equal(resumed.loss["loss"], whole.loss["loss"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.checkpoint.h5", "r.cxi"]
    assert resumed.metadata["start"] == {"kind": "checkpoint"}


def test_solve_chooses_voxels_and_says_how_far_to_trust_it(tmp_path, capsys, monkeypatch):
    toml, data, result = (str(tmp_path / name) for name in ("run.toml", "data.cxi", "r.cxi"))
    Path(toml).write_text(SOLVED + "\n[disturbances]\nflux_jitter = 0.3\n")  # so that it has something to refine
    assert main(["simulate", toml, "-o", data]) == 0
    command = ["reconstruct", toml, "--data", data, "-o", result, "--quiet", "--set", "output.pictures=false"]
    assert main(command) == 0
    out, stored, scan = capsys.readouterr().out.splitlines(), io.read_result(result), io.read_scan(data)
    made = config.load(toml)
    experiment = made.experiment(scan)
    coarse = experiment.suggest_voxel()
    assert any(line.startswith("voxels chosen: model: shape") for line in out)
    assert stored.voxel[1] < 0.7 * coarse[1] and stored.S.shape == stored.support.shape == stored.phase.shape
    assert out[-1] == f"trust: {stored.trust}" and f"misfit {stored.misfit:.2e}" in stored.trust
    # so few iterations, so little light: its twin is not told from it
    assert stored.verdict == "found, with doubts" and stored.trust.startswith("found, with doubts: misfit")
    assert 0.9 < stored.twin_ratio < 1.05 and "twin fits as well" in stored.trust
    assert 0 < stored.grid_misfit < stored.noise_misfit < 3 * stored.misfit and stored.excess > 0
    # what is stored as modelled is of the voxels that were chosen
    model = pendel.Model(experiment, made.crystal(experiment), stored.S.shape, stored.voxel, sampling="mean")
    dq, _ = dq_at(experiment, stored.angle_offsets)
    found = {"dq": dq, "flux": stored.flux, "point_spread": stored.point_spread}
    modelled = stored.scale * model.intensities(stored.S, **found)[stored.frame_index]
    background = stored.background + stored.background_level[stored.frame_index]
    assert np.allclose(stored.modelled_frame - background, modelled, rtol=1e-4, atol=1e-3)

    # the checkpoint holds all steps: nothing is done again, and it is that of this recipe
    assert (tmp_path / "r.checkpoint.h5").exists()
    monkeypatch.setattr("pendel.fit.objective.Objective.evaluate", None)
    assert main([*command, "--resume", "--set", "solve.steps=1"]) == 1
    assert "steps: expected 300, that of the checkpoint" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    resumed = io.read_result(result)
    assert np.array_equal(resumed.S, stored.S) and resumed.trust == stored.trust
    assert np.array_equal(resumed.loss["loss"], stored.loss["loss"])


def test_what_solve_finds_in_frames_without_noise_is_in_their_units(tmp_path):
    toml, data, result = (str(tmp_path / name) for name in ("run.toml", "data.cxi", "r.cxi"))
    Path(toml).write_text(SOLVED.replace("photons = 2e4", "").replace("[model]", '[model]\nvoxel_nm = "data"'))
    assert main(["simulate", toml, "-o", data]) == 0
    command = ["reconstruct", toml, "--data", data, "-o", result, "--quiet", "--set", "output.pictures=false"]
    # the frames are as perfect as they are said to be: what wide voxels miss is no error of angles, or of the model
    assert main([*command, "--set", "recipe.refine_angles=false"]) == 0
    stored, scan = io.read_result(result), io.read_scan(data)
    assert stored.voxel == config.load(toml).experiment(scan).suggest_voxel()
    assert stored.scale == pytest.approx(scan.metadata["scale"], rel=0.1)
    assert np.allclose(stored.rocking_modelled, stored.rocking_measured, atol=0.05 * stored.rocking_measured.max())


def test_a_result_can_be_the_start(folder, tmp_path, refused):
    command = ["reconstruct", folder / "run.toml", "--data", folder / "data.cxi", "-o", tmp_path / "r.cxi"]
    command += ["--set", 'start.kind="file"', "--set", f'start.path="{folder / "result.cxi"}"', "--quiet"]
    command += ["--set", "output.pictures=false", "--set", "recipe.epochs=2", "--set", "recipe.learning_rate=0.002"]
    assert main([str(c) for c in command]) == 0
    first, second = io.read_result(folder / "result.cxi"), io.read_result(tmp_path / "r.cxi")
    assert second.S.shape == first.S.shape and second.loss["misfit"][0] < 2 * first.misfit
    assert "start.path: expected a crystal on voxels" in refused(*command, "--set", "model.voxel_nm=8.8056")
    assert "start.path: expected shape (8, 8, 8), got" in refused(*command, "--set", "model.shape=[8, 8, 8]")


def test_recipes_of_every_kind(folder, tmp_path, refused, capsys):
    result = tmp_path / "r.cxi"
    command = ["reconstruct", folder / "run.toml", "--data", folder / "data.cxi", "-o", result, "--quiet"]
    command += ["--set", 'start.kind="file"', "--set", f'start.path="{folder / "result.cxi"}"']
    command = [str(c) for c in (*command, "--set", "output.pictures=false", "--set", "recipe.epochs=4")]

    def run(*overrides):
        capsys.readouterr()
        assert main([*command, *(word for override in overrides for word in ("--set", override))]) == 0
        return io.read_result(result), capsys.readouterr().out

    stored, out = run(
        'recipe.likelihood="poisson"', "recipe.background=0.1", 'recipe.s_0="free"', "recipe.atv_weight=1e-3",
        "recipe.free_fraction=0.05", "recipe.refine_angles=true", "recipe.refine_intensities=true",
        "recipe.phase_only_epochs=1", "recipe.refine_after=1", "recipe.learning_rate=0.01",
    )  # fmt: skip
    extra = stored.metadata
    assert extra["s_0"].shape == stored.S.shape and stored.flux.shape == stored.angle_offsets.shape == (24,)
    assert stored.background == 0.1 and f"held-out pixels: relative misfit {extra['free_misfit']:.4e}" in out
    assert stored.loss["free_misfit"].shape == (4,)
    # the modelled curve has flux, offsets and background in it
    assert np.allclose(stored.rocking_modelled, stored.rocking_measured, atol=0.05 * stored.rocking_measured.max())
    plain, _ = run('recipe.method="lbfgs"')
    assert len(plain.loss["loss"]) == 4 and (np.diff(plain.loss["loss"]) < 0).all()
    assert not {"s_0", "free_misfit"} & set(plain.metadata) and plain.flux is plain.background is None
    coarse_to_fine = ('recipe.method="multiscale"', "multiscale.rounds=1", "multiscale.steps=5", "multiscale.starts=1")
    polished, out = run(*coarse_to_fine)
    assert polished.S.shape == plain.S.shape and "coarse" not in out  # a start of its own: its own voxels alone
    assert len(polished.loss["loss"]) > 0 and (tmp_path / "r.checkpoint.h5").exists()
    again, _ = run(*coarse_to_fine, 'start.kind="flat"', "start.size_nm=300", "multiscale.levels=0")
    assert again.S.shape != () and not np.array_equal(again.S, polished.S)
    # 1.5498e-10 m sqrt(C)/(C |chi_h|), C = cos(44.76 deg)
    hint = "thicker than an extinction length of 183 nm: start.kind = 'solid' may be better"
    strong = "crystal.chi_h=[1e-3, -1e-4]", "crystal.chi_0=[-1e-3, 1e-4]"
    phased = 'start.kind="kinematic"', "start.iterations=60"
    assert hint in run(*coarse_to_fine, *strong, *phased)[1] and hint not in run(*coarse_to_fine, *phased)[1]
    solid, out = run(*coarse_to_fine, *strong, 'start.kind="solid"', "start.size_nm=300")
    assert solid.metadata["start"]["kind"] == "solid" and hint not in out
    flat, _ = run(*coarse_to_fine, *strong, 'start.kind="flat"', "start.size_nm=300", "multiscale.levels=0")
    assert solid.S.shape == flat.S.shape and not np.array_equal(solid.S, flat.S)


def test_noise_and_shapes_of_simulate(folder, tmp_path):
    def simulated(*overrides):
        path = tmp_path / "data.cxi"
        options = [word for override in overrides for word in ("--set", override)]
        assert main(["simulate", str(folder / "run.toml"), "-o", str(path), *options]) == 0
        return io.read_scan(path)

    noisy = simulated("simulate.photons=1e4")
    exact = io.read_scan(folder / "data.cxi").data * 1e-2
    assert noisy.data.dtype == np.int32
    bright = exact > 20
    # Poisson: the mean of chi^2 is 1 with a deviation of sqrt(2/n); 4 of them are exceeded once in 16000 seeds
    chi = np.mean((noisy.data[bright] - exact[bright]) ** 2 / exact[bright])
    assert abs(chi - 1) < 4 * np.sqrt(2 / bright.sum())
    assert np.array_equal(noisy.data, simulated("simulate.photons=1e4").data)
    assert not np.array_equal(noisy.data, simulated("simulate.photons=1e4", "simulate.seed=1").data)
    ball = simulated('simulate.shape="sphere"', 'simulate.strain="none"').metadata
    volume = np.abs(ball["truth"]).sum(dtype=float) * np.prod(ball["voxel"])
    assert volume == pytest.approx(np.pi / 6 * 350e-9**3, rel=2e-3) and not np.angle(ball["truth"]).any()
    for strain in ("contact", "bend"):
        octahedron = simulated('simulate.shape="truncated_octahedron"', f'simulate.strain="{strain}"').metadata["truth"]
        assert np.abs(np.angle(octahedron[octahedron != 0])).max() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.epochz=3", "recipe.epochz: expected a known key, got 'epochz'; did you mean recipe.epochs?"),
        ("recipe.epochs=-3", "recipe.epochs: expected an integer >= 1, got -3"),
        ("experiment.distance_mm=0", "experiment.distance_mm: expected a finite number > 0, got 0"),
        ("crystal.chi_0=[1e-5, -1e-6]", "crystal.chi_0: expected Im chi_0 >= 0"),
        ('model.device="cuda"', "model.device: expected"),
        ("model.voxel_nm=30", "model.voxel (dy): expected a whole fraction of the field of view"),
        ("experiment.detector_shape=[9, 9]", "experiment.detector_shape: expected [24, 24] as in the data, got [9, 9]"),
        ('start.kind="file"', "start.path: expected a value, got none"),
        ('start.kind="flat"', "start.size_nm: expected a value, got none"),
        ('start.kind="solid"', "start.kind: expected recipe.method = 'multiscale' or 'solve' with 'solid', got 'adam'"),
        (
            'recipe.checkpoint="nowhere/run.h5"',
            "recipe.checkpoint: expected a file in an existing folder, got no folder",
        ),
        ("data.frames=[0, 99]", "data.frames: expected"),
    ],
)
def test_bad_keys_are_named(folder, refused, override, message):
    result = folder / "never.cxi"
    command = ["reconstruct", folder / "run.toml", "--data", folder / "data.cxi", "-o", result, "--quiet"]
    assert message in refused(*command, "--set", override)


def test_bad_command_lines_are_named(folder, refused, tmp_path):
    toml, data, result = folder / "run.toml", folder / "data.cxi", folder / "never.cxi"
    assert "data.path: expected a value, got none" in refused("reconstruct", toml, "-o", result)
    assert "--data: expected a file or folder" in refused("reconstruct", toml, "-o", result, "--data", "nowhere")
    override = 'data.path="nowhere"'
    assert "data.path: expected a file or folder" in refused("reconstruct", toml, "-o", result, "--set", override)
    assert "-o: expected a file to write, got none" in refused("reconstruct", toml, "--data", data)
    assert "-o: expected a file in an existing folder" in refused("simulate", toml, "-o", folder / "no" / "x.cxi")
    assert "-o: expected a file, got the folder" in refused("simulate", toml, "-o", tmp_path)
    assert "nowhere.toml: expected a TOML file" in refused("simulate", "nowhere.toml", "-o", result)
    assert "simulate.size_nm: expected one number for a sphere, got [1.0, 2.0, 3.0]" in refused(
        "simulate", toml, "-o", result, "--set", 'simulate.shape="sphere"', "--set", "simulate.size_nm=[1, 2, 3]"
    )
    assert "expected a result file, got no such file" in refused("view", folder / "nowhere.cxi")
    assert "-o: expected an ending out of" in refused("view", folder / "result.cxi", "-o", folder / "x.foo")
    for option, value in (
        ("--size", 7),
        ("--size", 8),
        ("--size", 33),
        ("--seed", -1),
        ("--threads", 0),
        ("--photons", 0),
    ):
        assert f"{option}: expected" in refused("demo", option, value)
    assert "-o: expected a folder, got the file" in refused("demo", "-o", toml)


def test_argparse_and_version(capsys):
    for arguments in ([], ["nothing"], ["simulate"], ["demo", "--size", "x"]):
        assert main(arguments) == 2
    assert capsys.readouterr().err.count("usage: pendel") == 4
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"pendel {__version__}\n"
    assert main(["reconstruct", "--help"]) == 0 and "--resume" in capsys.readouterr().out


def test_info(capsys):
    assert main(["info"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["pendel"] == __version__ and {"cpu instruction set", "cuda", "numpy", "threads"} <= set(lines)


def test_keys_lists_a_configuration_to_begin_with(tmp_path, capsys):
    assert main(["config"]) == 0
    listed = capsys.readouterr().out
    assert "[recipe]\n" in listed and "#checkpoint_every = 20\n" in listed
    (tmp_path / "run.toml").write_text(listed)
    assert config.load(tmp_path / "run.toml").given == set()


def test_a_failed_run_is_one_line_and_status_1(folder, refused, tmp_path, monkeypatch):
    toml, result = folder / "run.toml", folder / "never.cxi"
    whole = (folder / "data.cxi").read_bytes()
    broken = tmp_path / "broken.cxi"
    broken.write_bytes(whole[: len(whole) // 3])
    command = ["reconstruct", toml, "--data", broken, "-o", result]
    assert "broken.cxi: expected a CXI/HDF5 file, got a truncated or damaged one" in refused(*command, status=1)
    assert "broken.cxi" in refused("view", broken, status=1)
    with pytest.raises(ValueError, match="truncated"):
        main([str(a) for a in (*command, "--debug")])
    broken.write_text("no data at all")
    assert "got one that begins b'no data" in refused(*command, status=1)
    with h5py.File(broken, "w") as file:
        file["entry_1/data_1/data"] = np.zeros((3, 8, 8))
    assert "data: expected a Bragg peak, got no counts" in refused(*command, status=1)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pendel.app.config.Config.scan", interrupted)
    assert "interrupted" in refused("reconstruct", toml, "--data", folder / "data.cxi", "-o", result, status=1)


def test_warnings_are_one_line_each(folder, tmp_path, capsys):
    # a turned detector whose corners are beyond the band of this voxel: the model warns, and goes on
    text = CONFIG.replace("two_theta_deg = 44.76", 'arm = [["y+", 44.76], ["x-", 20.0]]')
    field = simulate.model_of(config.loads(text)).experiment.field_of_view
    toml = tmp_path / "turned.toml"
    toml.write_text(text.replace("[model]", f"[model]\nvoxel_nm = {1e9 * field / 24!r}"))
    status = main(["simulate", str(toml), "-o", str(tmp_path / "x.cxi")])
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (0, 2) and err.startswith("pendel: warning: voxel (dx): expected at most"), err


def test_polish_at_the_end(folder, capsys):
    path = folder / "polished.cxi"
    command = ["reconstruct", str(folder / "run.toml"), "--data", str(folder / "data.cxi"), "--quiet", "-o", str(path)]
    assert main([*command, "--set", "recipe.polish_rounds=1"]) == 0
    assert "polished: relative misfit" in capsys.readouterr().out
    polished, plain = io.read_result(path), io.read_result(folder / "result.cxi")
    assert polished.loss["loss"].shape == (100,)  # that of the polish
    assert polished.loss["misfit"][-1] < 0.5 * plain.loss["misfit"][-1]


@pytest.mark.parametrize("module", ("pendel", "pendel.cli", "pendel.app.cli"))
def test_the_command_line_is_a_module_too(module):
    path = os.pathsep.join([str(Path(pendel.__file__).parents[1]), *sys.path])
    command = [sys.executable, "-m", module, "--version"]
    run = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == f"pendel {__version__}\n"
    assert subprocess.run([*command[:-1], "nothing"], env=os.environ | {"PYTHONPATH": path}).returncode == 2
