"""What a machine does to a run: full disks, little memory, signals, streams that nobody reads. Nothing is lost.

Many moments instead of these few: tests/kills.py.
"""

import json
import os
import resource
import signal
import subprocess
import sys

import kills
import numpy as np
import pytest
from pendel import io, reconstruct
from pendel.app.cli import main
from pendel.base import interruption, printing
from pendel.fit.minibatch import MinibatchRecipe
from scan import make_data, make_model

# One process for all limits: starting Python is most of what a run costs.
LIMITED = """
import json, resource, sys
from pendel.app.cli import main
kind, limits, *command = json.loads(sys.argv[1])
_, most = resource.getrlimit(kind)
found = []
for limit in limits:
    resource.setrlimit(kind, (limit, most))
    found.append(main(command))
    resource.setrlimit(kind, (most, most))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.cxi"
    kills.write_scan(path)
    return path


@pytest.fixture
def trial(tmp_path, scan):
    def trial(method, replace=("", "")):
        trial = kills.Trial(tmp_path / method, method, scan)
        config = trial.folder / "run.toml"
        config.write_text(config.read_text().replace(*replace))
        return trial

    return trial


def run(*command, **options):
    path = os.pathsep.join(p for p in sys.path if p)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


@pytest.mark.parametrize("method", ["adam", "multiscale, flat"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, scan, method):
    whole, seconds = kills.Trial(tmp_path / "whole", method, scan).finish()
    number = signal.SIGKILL if method == "adam" else signal.SIGTERM
    assert not kills.killed_and_resumed(tmp_path / "killed", method, scan, [(number, 0.8 * seconds)], whole)


def test_a_full_disk_ends_a_run_with_a_message_and_keeps_what_was_there(trial):
    trial = trial("adam", ("epochs = 60", "epochs = 1"))
    config, result, picture = (str(trial.folder / name) for name in ("run.toml", "result.cxi", "result.png"))
    base = ["reconstruct", config, "--quiet", "-o", result]
    assert main([*base, "--set", "output.pictures=true"]) == 0
    before = {path.name: path.read_bytes() for path in trial.folder.iterdir()}
    limits = [0, 1000, 40000]
    for command in (base, ["view", result, "-o", picture]):
        arguments = json.dumps([resource.RLIMIT_FSIZE, limits, *command])
        found = run(sys.executable, "-c", LIMITED, arguments)
        assert json.loads(found.stdout.splitlines()[-1]) == [1] * len(limits), found.stderr
        assert found.stderr.count("cannot be written: File too large") == len(limits)
        assert {path.name: path.read_bytes() for path in trial.folder.iterdir()} == before


def test_little_memory_ends_a_run_with_a_message(trial):
    trial = trial("adam", ("epochs = 60", "epochs = 2"))
    command = [sys.executable, "-m", "pendel.cli", "reconstruct", str(trial.folder / "run.toml"), "--quiet"]
    command += ["-o", str(trial.folder / "result.cxi")]
    for megabytes in (150, 330):

        def limit(size=megabytes << 20):
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

        found = run(*command, preexec_fn=limit)
        assert found.returncode in (0, 1, 2) and (found.returncode == 0 or found.stderr.strip())
        if megabytes == 150:  # OpenBLAS would try for ever to get its buffers
            assert found.returncode == 1 and "out of memory: expected a limit of addresses" in found.stderr
        names = {path.name for path in trial.folder.iterdir()}
        assert names <= {"scan.cxi", "run.toml", "result.cxi", "result.checkpoint.h5"}


def test_memory_that_runs_out_within_a_run_is_told(trial, monkeypatch, capsys):
    trial = trial("adam")

    def no_memory(*_):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr("pendel.fit.minibatch._epoch", no_memory)
    assert main(["reconstruct", str(trial.folder / "run.toml"), "-o", str(trial.folder / "r.cxi"), "--quiet"]) == 1
    assert "pendel: error: out of memory: Unable to allocate 9 GiB" in capsys.readouterr().err
    assert {path.name for path in trial.folder.iterdir()} == {"scan.cxi", "run.toml"}


@pytest.mark.parametrize("number", interruption.ASKED)
def test_signals_end_a_command_like_ctrl_c(trial, monkeypatch, capsys, number):
    """In the middle of an epoch: the epochs before it are in the checkpoint, whatever became of the exception."""
    trial, done = trial("adam"), []
    from pendel.fit import minibatch

    def epoch(run, *given, true=minibatch._epoch):
        true(run, *given)
        done.append(run.epoch)
        if len(done) == 5:
            os.kill(os.getpid(), number)

    command = ["reconstruct", str(trial.folder / "run.toml"), "-o", str(trial.folder / "r.cxi"), "--quiet"]
    # a run in the background may have been begun with it ignored, and then it stays so
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(minibatch, "_epoch", epoch)
            assert main(command) == 128 + number and signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == "pendel: error: interrupted\n"
    assert {path.name for path in trial.folder.iterdir()} == {"scan.cxi", "run.toml", "r.checkpoint.h5"}
    with monkeypatch.context() as patched:
        patched.setattr(minibatch, "_epoch", lambda run, *_: done.append(run.epoch) or 1 / 0)
        assert main([*command, "--resume"]) == 1
    assert done == [1, 2, 3, 4, 5, 4]  # the fifth was not whole


def test_a_signal_waits_until_a_file_is_written_and_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruption.raised():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            written = []
            with pytest.raises(KeyboardInterrupt), interruption.held_back():
                os.kill(os.getpid(), signal.SIGTERM)
                written.append(True)
            assert written and interruption.received() == signal.SIGTERM
            with pytest.raises(KeyboardInterrupt):  # where a callback swallowed it
                interruption.check()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("python -m pendel.cli info", True),
        ("python -u -m pendel", True),
        ("/usr/bin/pendel reconstruct", True),
        ("python /venv/bin/pendel info", True),
        ("python script.py -m pendel", False),
        ("python -m pytest -m pendel", False),
        ("python -c pass", False),
        ("python", False),
    ],
)
def test_only_the_program_handles_signals_while_it_is_imported(line, expected):
    words = line.split()
    assert interruption.is_command(words if words[0] == "python" else ["python", *words]) is expected


def test_a_checkpoint_left_by_an_interruption_is_that_of_the_last_whole_epoch(tmp_path):
    model, data = make_model(), make_data(np.random.default_rng(0))
    options = {"epochs": 6, "batches": 2, "checkpoint": tmp_path / "c.h5", "progress": False}
    whole = reconstruct(model, data, **options | {"checkpoint": None})

    def interrupted(epoch, *_):
        if epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct(model, data, **options, callback=interrupted)
    epochs = []
    resumed = reconstruct(model, data, **options, resume=True, callback=lambda epoch, *_: epochs.append(epoch))
    assert epochs == [5, 6] and resumed.S.tobytes() == whole.S.tobytes() and resumed.misfit == whole.misfit


OTHERS = {
    "data": {},
    "mask": {},
    "rocking_angles": {},
    "chi_h": {},
    "learning_rate": {"learning_rate": 0.1},
    "batches": {"batches": 3},
    "background": {"background": 0.5},
    "epochs": {"epochs": 9},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path, name):
    model, data = make_model(), make_data(np.random.default_rng(0))
    mask = np.ones(data.shape, bool)
    options = {"epochs": 4, "batches": 2, "checkpoint": tmp_path / "c.h5", "progress": False}
    reconstruct(model, data, mask, **options)
    if name == "data":
        data[3, 4, 5] += 1
    if name == "mask":
        mask[3, 4, 5] = False
    if name == "rocking_angles":
        experiment = model.experiment.replace(rocking_angles=model.experiment.rocking_angles * (1 + 1e-9))
        model = type(model)(experiment, model.crystal, model.shape, model.voxel, dtype="complex128", threads=1)
    if name == "chi_h":
        gold = type(model.crystal)(model.crystal.chi_0, 1.01 * model.crystal.chi_h, model.crystal.chi_hbar)
        model = type(model)(model.experiment, gold, model.shape, model.voxel, dtype="complex128", threads=1)
    named = "data|mask" if name == "mask" else name  # what a bad pixel holds is not data
    with pytest.raises(ValueError, match=rf"^({named}): expected .*that of the checkpoint"):
        reconstruct(model, data, mask, **options | OTHERS[name], resume=True)


def test_epochs_may_be_more_where_what_was_done_does_not_depend_on_them():
    recipe = MinibatchRecipe(epochs=40, schedule="constant", shrink_wrap_every=0)
    assert recipe.same_until(20, 20) and recipe.same_until(40, 400) and not recipe.same_until(41, 50)
    assert not recipe.but(schedule="cosine").same_until(20, 20) and recipe.but(schedule="cosine").same_until(20, 40)
    shrinking = recipe.but(shrink_wrap_every=10)
    assert shrinking.same_until(19, 20) and not shrinking.same_until(20, 20)  # none in the last tenth
    refining = recipe.but(refine_angles=True)
    assert refining.same_until(5, 20) and not refining.same_until(6, 20)
    assert refining.but(refine_after=3).same_until(20, 20)


class Closed:
    encoding = "ascii"

    def write(self, *_):
        raise BrokenPipeError(32, "Broken pipe")

    flush = isatty = write


@pytest.mark.parametrize("stream", [Closed(), None])
def test_a_run_does_not_end_where_what_it_says_cannot_be_delivered(trial, monkeypatch, stream):
    trial = trial("adam", ("epochs = 60", "epochs = 2"))
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["reconstruct", str(trial.folder / "run.toml"), "-o", str(trial.folder / "result.cxi")]) == 0
    assert trial.result().misfit > 0
    model, data = make_model(), make_data(np.random.default_rng(0))
    assert reconstruct(model, data, epochs=2).misfit > 0  # in a program too


def test_an_ascii_terminal_gets_escapes(capfd):
    ascii_only = open(1, "w", encoding="ascii", closefd=False)  # noqa: SIM115
    assert printing.say("größe", ascii_only)
    assert capfd.readouterr().out == "gr\\xf6\\xdfe\n"
    assert printing.encodable("größe", sys.stdout) == "größe"


def test_a_closed_pipe_and_an_ascii_terminal_fail_no_run(trial):
    """As a program: Python itself says nothing at its end either."""
    trial = trial("adam", ("epochs = 60", "epochs = 2"))
    command = f"{sys.executable} -m pendel.cli reconstruct {trial.folder / 'run.toml'} -o {trial.folder / 'größe.cxi'}"
    env = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    shell = ["bash", "-c", f"set -o pipefail; {command} --quiet | true; echo status $? >&2"]
    found = run(*shell, env=env)
    assert found.stderr == "status 0\n" and io.read_result(trial.folder / "größe.cxi").misfit > 0
