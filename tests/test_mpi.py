"""Several ranks: the same bits for any number of them, and one end for all. What they do stands in ranks_worker.py."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pendel
import pytest
from cube import make_model, strained
from pendel.fit import checkpoint_file
from pendel.model.frames import Frames
from pendel.model.ranked import LEAST, checksum, groups_of
from pendel.model.ranks import ALONE, Partial, share

WORKER = Path(__file__).with_name("ranks_worker.py")
ENDED = 10.0  # s, from when something happens to one rank until all have ended
FIXED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PENDEL_NUM_THREADS": "1"}
# Open MPI starts more ranks than there are cores, and those of root, only if it is told to.
FIXED |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
FIXED |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
REFUSED = {
    "data": "ValueError: data: expected the same on all ranks, got one on rank 0 and another on rank 1",
    "epochs": "ValueError: epochs: expected the same on all ranks, got 6 and 7 on rank 1",
    "start": "ValueError: start: expected the same on all ranks",
    "support": "ValueError: support: expected the same on all ranks",
    "voxel": r"ValueError: detector_shape: expected the same on all ranks, got \(24, 24\) and \(26, 26\) on rank 1",
    "S": "RuntimeError: S: expected the same on all ranks, got another on rank 1",
    "dark": "ValueError: scale: expected computed intensity",
    "checkpoint": "FileNotFoundError: .*missing",
    "comm": "TypeError: comm: expected an mpi4py.MPI.Intracomm or None, got [01]",
    "null": "ValueError: comm: expected a communicator of this process, got MPI.COMM_NULL",
}


def mpiexec():
    """The launcher beside this Python, or the one on the path; None without one."""
    return shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")


def started(ranks, *command):
    """Command line, and environment, of a command on so many ranks."""
    path = os.pathsep.join([str(Path(pendel.__file__).parents[1]), str(WORKER.parent), *sys.path])
    return [mpiexec(), "-n", str(ranks), sys.executable, *command], os.environ | FIXED | {"PYTHONPATH": path}


def run(ranks, *command, status=0):
    """Output of both streams."""
    line, environment = started(ranks, *command)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    text = done.stdout + done.stderr
    assert (done.returncode == 0) == (status == 0), text
    assert status in (0, None) or done.returncode == status, text
    return text


def found(folder, task, rank):
    with np.load(folder / f"{task}.{rank}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """work(ranks, task, folder): [what each rank found]."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("needs mpi4py")
    if mpiexec() is None:
        pytest.skip("needs mpiexec")

    def work(count, task, folder):
        run(count, str(WORKER), task, str(folder))
        return [found(folder, task, rank) for rank in range(count)]

    folder = tmp_path_factory.mktemp("alone")
    run(2, str(WORKER), "alone", str(folder))
    if found(folder, "alone", 0)["size"] != 2:
        pytest.skip("needs an mpiexec and an mpi4py of the same MPI")
    return work


@pytest.fixture(scope="module")
def one(ranks, tmp_path_factory):
    return ranks(1, "everything", tmp_path_factory.mktemp("one"))[0]


def different(arrays, others):
    return {n for n in arrays if arrays[n].tobytes() != others[n].tobytes() or arrays[n].dtype != others[n].dtype}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_number_of_ranks_finds_the_same_bits(ranks, one, count, tmp_path):
    for rank in ranks(count, "everything", tmp_path):
        assert rank.keys() == one.keys() and not different(one, rank)


def test_what_was_compared_has_moved(one):
    for method in ("reconstruct", "lbfgs", "polish", "multiscale"):
        assert np.isfinite(one[f"{method} S"]).all() and one[f"{method} loss"][-1] < one[f"{method} loss"][0]
    assert np.ptp(one["reconstruct angle_offsets"]) > 0 and np.ptp(one["lbfgs flux"]) > 0
    assert 0 < one["beside no communicator"] < 3e-6  # rounding of complex64, in sums of 24 frames


def test_the_example_of_the_page_runs(ranks, tmp_path):
    model = make_model(threads=1, off=0.0)
    data = model.intensities(strained(model, [(0.3, 0.2, -0.25)], [0.3], [0.8])[1])
    data, e = np.round(data * (1e5 / data.max())).astype(np.int32), model.experiment
    given = {"distance": e.distance, "pixel_size": e.pixel_size, "wavelength": e.wavelength, "arm": e.arm}
    given |= {"rocking_angles": e.rocking_angles, "rocking_axis": e.rocking_axis, "centre": e.centre}
    pendel.io.write_scan(tmp_path / "scan.cxi", data, **given)
    page = (Path(__file__).parents[1] / "docs" / "ranks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "program.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{example}")
    text = run(2, str(tmp_path / "program.py"))
    assert text.count("reconstruct: epoch 20/20") == 1
    assert pendel.io.read_result(tmp_path / "result.cxi").S.any() and (tmp_path / "run.h5").exists()


def test_a_checkpoint_of_two_ranks_goes_on_with_three(ranks, one, tmp_path):
    ranks(2, "begun", tmp_path)
    _, adam = checkpoint_file.read(tmp_path / "adam.h5", "reconstruct")
    _, polish = checkpoint_file.read(tmp_path / "polish.h5", "polish")
    assert adam["epoch"] == 4 and list(polish["steps"]) == ["round 1", "round 1, trusted pixels"]
    for rank in ranks(3, "resumed", tmp_path):
        assert len(rank) > 8 and not different(rank, one)


def test_what_is_not_the_same_on_all_ranks_is_named_by_all(ranks, tmp_path):
    for rank in ranks(2, "refused", tmp_path):
        assert rank.keys() == REFUSED.keys()
        for name, text in REFUSED.items():
            assert re.match(text, str(rank[name])), (name, rank[name])


@pytest.mark.parametrize("task", ["error", "SIGKILL", "SIGTERM", "SIGINT"])
def test_a_rank_that_dies_ends_all(ranks, task, tmp_path):
    text, ended = run(3, str(WORKER), task, str(tmp_path), status=None), time.time()
    assert ended - (tmp_path / f"{task}.time").stat().st_mtime < ENDED
    if task == "SIGINT":  # the first rank learns of it
        assert checkpoint_file.read(tmp_path / "SIGINT.h5", "reconstruct")[1]["epoch"] == 2
        assert text.count("KeyboardInterrupt: another rank was interrupted") == 1
    assert task != "error" or ("rank 2 of 3" in text and "LookupError: of one rank" in text)


CONFIG = """
[experiment]
energy_keV = 8.0
distance_mm = 300.0
pixel_um = 55.0
two_theta_deg = 44.76
rocking_step_deg = 0.02
rocking_frames = 52
detector_shape = [16, 16]
[data]
path = "scan.cxi"
[crystal]
name = "Au"
hkl = [0, 0, 2]
chi_0 = [-9.407e-5, 8.4962e-6]
chi_h = [7.4e-5, -8.4e-6]
[model]
shape = [14, 14, 14]
[start]
kind = "flat"
size_nm = 250.0
[recipe]
epochs = 4
batches = 2
polish_rounds = 1
[simulate]
size_nm = 250.0
"""
COMMAND = "-m", "pendel"


def test_the_command_line_writes_once(ranks, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(CONFIG)
    run(1, *COMMAND, "simulate", str(config), "-o", str(tmp_path / "scan.cxi"))
    results = []
    for count in (1, 3):
        path = tmp_path / f"{count}.cxi"
        text = run(count, *COMMAND, "reconstruct", str(config), "--mpi", "-o", str(path))
        assert text.count(f"written to {path}") == 1 and text.count("reconstruct: epoch 4/4") == 1
        results.append(pendel.io.read_result(path))
    first, other = results
    assert (
        first.S.tobytes() == other.S.tobytes() and first.rocking_modelled.tobytes() == other.rocking_modelled.tobytes()
    )

    wrong = run(3, *COMMAND, "reconstruct", str(config), "--mpi", "-o", str(tmp_path / "scan.cxi"), status=2)
    assert wrong.count("pendel: error:") == 1 and "-o: expected another file than data.path reads" in wrong


def test_the_tree_is_the_same_however_its_leaves_are_shared():
    rng = np.random.default_rng(0)
    for groups in (1, 2, 3, 5, 8, 11, 16):
        leaves = rng.normal(size=(groups, 7)).astype(np.float32)
        sums = []
        for size in (1, 2, 3, 4, 7, 16):
            nodes = {}
            for rank in range(size):
                partial = Partial(groups, 7, np.float32)
                for group in share(groups, rank, size):
                    partial.add(group, leaves[group].copy())
                assert list(partial.nodes) == Partial(groups, 7, np.float32).of(share(groups, rank, size))
                nodes |= partial.nodes
            if size == 1:
                assert list(nodes) == [((groups - 1).bit_length(), 0)]
            sums.append(Partial(groups, 7, np.float32).finish(nodes))
        assert len({found.tobytes() for found in sums}) == 1
        np.testing.assert_allclose(sums[0], leaves.sum(axis=0, dtype=float), atol=1e-5)


def test_groups_are_nearly_equal_and_know_frames_alone():
    for count in (1, 5, 23, 26, 64, 65, 128, 191, 192, 1000):
        groups = groups_of(count)
        sizes = [group.stop - group.start for group in groups]
        assert [group.start for group in groups] == [0, *np.cumsum(sizes)[:-1]] and sum(sizes) == count
        assert max(sizes) <= min(sizes) + 1 and max(sizes) <= 4 * LEAST
    assert [len(groups_of(count)) for count in (23, 24, 47, 48, 191, 192, 384)] == [1, 2, 2, 4, 4, 8, 16]


def test_checksums_tell_values_apart():
    S = np.zeros((3, 3, 3), np.complex64)
    assert checksum(S) == checksum(S.copy()) and checksum(None) is None and checksum(2.5) == 2.5
    other = S.copy()
    other[2, 2, 2] = 1e-30
    assert checksum(S) != checksum(other)
    odd = np.zeros(5, bool)
    assert checksum(odd) != checksum(~odd) and checksum(odd) != checksum(odd[:4])


def test_a_communicator_is_asked_for_and_nothing_imported():
    code = "import sys, pendel.app.commands, pendel.app.cli; assert not any('mpi4py' in name for name in sys.modules)"
    path = os.pathsep.join([str(Path(pendel.__file__).parents[1]), *sys.path])
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)
    model = make_model(size=8)
    assert model.comm is None and model.ranks is ALONE and ALONE.first and ALONE.shown("title") == "title"
    with pytest.raises(TypeError, match="comm: expected an mpi4py.MPI.Intracomm or None, got 'world'"):
        make_model(size=8, comm="world")
    model.comm = model.ranks
    with pytest.raises(ValueError, match="model: expected one without comm"):
        Frames(model)
