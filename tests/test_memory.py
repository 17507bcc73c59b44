"""How much memory a run takes: told right before it, and what does not fit is refused with what to change."""

import itertools
import os
import resource
import subprocess
import sys
from pathlib import Path

import cube
import kills
import numpy as np
import pendel
import pytest
from pendel.app.cli import main
from pendel.base import memory
from pendel.base.reading import check_memory
from pendel.fit.minibatch import MinibatchRecipe
from pendel.recipes.voxels import FINER, USUAL, fine_enough, usually_fine_enough

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import memory as bench

    return bench


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc/self/clear_refs")
@pytest.mark.parametrize("method, size", [("reconstruct", 48), ("lbfgs", 48), ("polish", 48), ("multiscale", 40)])
def test_the_estimate_is_the_peak_within_15_percent(bench, monkeypatch, method, size):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.setenv("PENDEL_NUM_THREADS", "2")
    peak, estimate = bench.child_method(method, size)
    assert 0.85 < estimate / peak < 1.15, (peak, estimate)


def test_the_estimate_of_solve_is_enough(bench, monkeypatch):
    """Where the light leaves no doubt which voxels it will choose; the box of what it finds is not known before."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.setenv("PENDEL_NUM_THREADS", "2")
    peak, estimate = bench.child_method("solve", 48)
    assert 0.85 < estimate / peak < 1.25, (peak, estimate)


@pytest.fixture(scope="module")
def model():
    return cube.make_model(threads=1)


@pytest.mark.parametrize("method", ["reconstruct", "lbfgs", "polish", "multiscale", "solve"])
def test_more_of_what_takes_memory_is_more(model, method):
    double, large = cube.make_model("complex128", threads=1), cube.make_model(size=40, threads=1)
    few, of_double, of_large = (pendel.estimate_memory(m, method=method) for m in (model, double, large))
    assert few < of_double < 2.1 * few and 5 * few < of_large < 10 * few


def test_what_a_recipe_asks_for_counts(model):
    one = pendel.estimate_memory(model, method="reconstruct")
    whole = pendel.estimate_memory(model, method="reconstruct", batches=1)
    kept = pendel.estimate_memory(model, method="reconstruct", checkpoint="run.h5")
    free = pendel.estimate_memory(model, method="reconstruct", s_0="free")
    assert one < min(whole, kept, free)
    for method in ("lbfgs", "polish"):
        kept = pendel.estimate_memory(model, method=method, checkpoint="run.h5")
        assert pendel.estimate_memory(model, method=method) < kept
    assert pendel.estimate_memory(model, recipe=MinibatchRecipe(batches=1)) == whole

    smooth = pendel.estimate_memory(model, method="polish", smoothness="evidence")
    smeared = pendel.estimate_memory(model, method="polish", refine_coherence=True)
    assert pendel.estimate_memory(model, method="polish") < min(smooth, smeared)

    polish = [pendel.estimate_memory(model, method="polish", memory=m, support=s) for m, s in _supports(model)]
    assert polish == sorted(polish) and len(set(polish)) == len(polish)
    solve = [pendel.estimate_memory(model, method="solve", voxel=tuple(v / k for v in model.voxel)) for k in (1, 2)]
    assert 5 * solve[0] < solve[1] < 9 * solve[0]


def _supports(model):
    for fill, pairs in itertools.product((0.2, 0.9), (5, 20)):
        yield pairs, np.arange(np.prod(model.shape)).reshape(model.shape) < fill * np.prod(model.shape)


def test_of_smooth_crystals_the_box_about_them_counts(model):
    places = np.arange(min(model.shape))
    diagonal, line = np.zeros((2, *model.shape), bool)
    diagonal[places, places, places] = line[places, 0, 0] = True

    def needed(support, start=None):
        return pendel.estimate_memory(model, method="polish", smoothness=1.0, support=support, start=start)

    assert needed(diagonal) > 2 * needed(line)
    everywhere = np.ones(model.shape, bool)
    assert needed(everywhere, line.astype(model.dtype)) < needed(everywhere)


def test_voxels_are_expected_as_fine_as_the_light_asks_for():
    found = [usually_fine_enough(noise) for noise in (1.0, 4 * USUAL[1], 4 * USUAL[2], 1e-9)]
    assert found == list(FINER)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"of": 3}, TypeError, "^of: expected a TakagiTaupin or a Model, got 3"),
        ({"method": "guess"}, ValueError, "^method: expected one of 'reconstruct', "),
        ({"n_frames": 3}, TypeError, "^n_frames: expected None with a Model"),
        ({"epocs": 3}, TypeError, "did you mean 'epochs'"),
        ({"support": np.ones((2, 2, 2), bool)}, ValueError, "^support: expected shape"),
        ({"method": "solve", "data": np.ones((2, 3))}, ValueError, "^data: expected shape"),
        ({"method": "solve", "voxel": "fine"}, ValueError, "^voxel: "),
        ({"method": "multiscale", "start": "guess"}, ValueError, "^start: expected one of 'kinematic'"),
    ],
)
def test_errors_name_the_argument(model, arguments, error, message):
    with pytest.raises(error, match=message):
        pendel.estimate_memory(**{"of": model} | arguments)


def test_an_operator_is_estimated_as_before(model):
    op = model.operators[0][1]
    assert pendel.estimate_memory(op, 8) < pendel.estimate_memory(op, 800)
    with pytest.raises(TypeError, match="^n_frames: expected an integer"):
        pendel.estimate_memory(op)


def test_voxels_that_do_not_fit_are_refused_within_a_run(model, monkeypatch):
    S = np.ones(model.shape, model.dtype)
    monkeypatch.setattr(memory, "left", lambda: 1000)
    with pytest.raises(MemoryError, match="^voxel: expected one whose model fits the 1000 bytes .* give a wider one"):
        fine_enough(model, S, model.voxel, 1e-9)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files of control groups: {path: text}, and the groups of this process."""

    def write(mine, files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        (tmp_path / "mine").write_text(mine)
        monkeypatch.setattr(memory, "CGROUPS", tmp_path)
        monkeypatch.setattr(memory, "GROUP", tmp_path / "mine")

    return write


V2 = {"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": "anon 1\ninactive_file 200000\n"}
V1 = {"memory.limit_in_bytes": "1000000\n", "memory.usage_in_bytes": "900000\n"}
V1 |= {"memory.stat": "inactive_file 1\ntotal_inactive_file 200000\n"}


@pytest.mark.parametrize(
    "mine, folder, files",
    [
        ("0::/job/step\n", "job", V2 | {"step/memory.max": "max\n"}),
        ("0::/\n", ".", V2),
        ("4:cpu,memory:/job\n0::/\n", "memory/job", V1),
        ("4:memory:/not/there\n", "memory", V1),
    ],
)
def test_the_limit_of_a_container_or_batch_job_counts(groups, mine, folder, files):
    groups(mine, {f"{folder}/{name}": text for name, text in files.items()})
    assert memory.total() == 1000000 and memory.left() == 300000
    with pytest.raises(ValueError, match="^x: expected an array that fits the memory of 976.6 KiB"):
        check_memory("x", 2000000, 2000000)


def test_without_limits_the_machine_is_the_limit(groups):
    groups("0::/job\n3:cpu:/job\n", {"job/memory.max": "max\n"})
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        assert memory.total() == machine and 0 < memory.left() < machine


def test_what_others_have_taken_is_not_left(groups, monkeypatch, tmp_path):
    groups("0::/\n", {"meminfo": "MemTotal:  900 kB\nMemFree:  1 kB\nMemAvailable:  300 kB\n"})
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    assert memory.left() == 300 << 10


def test_a_limit_on_addresses_counts():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
    code += "from pendel.base import memory; print(memory.total(), memory.left())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    total, left = map(int, found.stdout.split())
    assert total == 1 << 30 and 0 < left < total


@pytest.fixture
def command(tmp_path):
    kills.write_scan(tmp_path / "scan.cxi")

    def command(method, *options):
        (tmp_path / "run.toml").write_text(kills.CONFIG + kills.METHODS[method])
        return main(["reconstruct", str(tmp_path / "run.toml"), "-o", str(tmp_path / "r.cxi"), "--quiet", *options])

    return command


def test_a_run_tells_its_memory_before_it_begins(command, capsys):
    assert command("adam", "--set", "recipe.epochs=1") == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory: about ")]
    assert len(told) == 1 and " left of " in told[0]


@pytest.mark.parametrize("method", ["adam", "lbfgs", "multiscale, flat", "multiscale, kinematic", "solve"])
def test_a_run_that_does_not_fit_is_refused_with_what_to_change(command, monkeypatch, capsys, tmp_path, method):
    monkeypatch.setattr(memory, "left", lambda: 100_000)
    assert command(method) == 2
    said = capsys.readouterr().err
    assert "model.shape: expected a reconstruction within the 97.66 KiB of memory that are left, got one that" in said
    assert "model.voxel_nm" in said and ("recipe.batches" in said) == (method == "adam")
    assert {path.name for path in tmp_path.iterdir()} == {"scan.cxi", "run.toml"}


def test_pictures_are_refused_where_they_could_end_the_process():
    code = "import resource, pendel.io, scipy.ndimage, scipy.optimize; from pendel.base import memory\n"
    code += "most = memory._named(memory.STATUS, 'VmSize:') + 40960 << 10\n"
    code += "resource.setrlimit(resource.RLIMIT_AS, (most, most))\nimport pendel.analysis.plot"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.returncode == 1 and "MemoryError: expected 96 MiB for matplotlib and a picture" in found.stderr
