"""Files are written whole or not at all, dead runs leave nothing, and one run at a time has a checkpoint."""

import os
import subprocess
import sys
import threading

import h5py
import pytest
from pendel.base import files
from pendel.io import hdf5, kinds


def test_what_was_there_stays_where_a_file_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    files.write_whole(path, b"old")

    def full(descriptor, content):
        raise OSError(28, "No space left on device")

    for name in ("write", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, lambda *given: full(*given, None) if len(given) == 1 else full(*given))
            with pytest.raises(OSError, match="a.bin cannot be written: No space left on device"):
                files.write_whole(path, b"new")
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_a_file_is_synced_before_it_takes_its_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor, true=os.fsync: (done.append("fsync"), true(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths, true=os.replace: (done.append("replace"), true(*paths)))
    files.write_whole(tmp_path / "a.bin", b"new")
    assert done[:2] == ["fsync", "replace"]


def test_names_as_long_as_they_may_be(tmp_path):
    path = tmp_path / ("ö" * 125 + ".cxi")
    files.write_whole(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_hdf5_is_made_in_memory(tmp_path):
    """Nothing is on the disk before it is whole; an error in the block leaves nothing."""
    path = tmp_path / "a.h5"
    with hdf5.replacing(path, kinds.RESULT) as file:
        file["x"] = range(9)
        assert not list(tmp_path.iterdir())
    assert h5py.File(path)["x"][()].sum() == 36
    with pytest.raises(KeyError), hdf5.replacing(path, kinds.RESULT, force=True) as file:
        file["y"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_parts_of_dead_runs_are_removed_and_those_of_living_ones_are_not(tmp_path):
    dead = [tmp_path / ".r.cxi.0123abcd.pendel.part", tmp_path / ".r.cxi.0123abcd.part"]
    others = [tmp_path / "data.part", tmp_path / ".hidden", tmp_path / ".x.0123abc.part"]
    for path in dead + others:
        path.write_bytes(b"half")
    code = "import sys; from pathlib import Path; from pendel.base import files; files._new_part(Path(sys.argv[1]));"
    code += "print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "r.cxi")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    path = os.pathsep.join(p for p in sys.path if p)
    with subprocess.Popen(command, **pipes, env=os.environ | {"PYTHONPATH": path}) as living:
        living.stdout.readline()
        files.write_whole(tmp_path / "other.cxi", b"new")
        left = {p.name for p in tmp_path.iterdir()} - {p.name for p in others} - {"other.cxi"}
        assert len(left) == 1 and left.pop().startswith(".r.cxi.")
        living.kill()
    files.write_whole(tmp_path / "other.cxi", b"new")
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in others} | {"other.cxi"}


def test_one_run_at_a_time_has_a_checkpoint(tmp_path):
    path, refused = tmp_path / "c.h5", []

    def other():
        try:
            with files.claimed(tmp_path / "." / "c.h5"):
                pass
        except RuntimeError as error:
            refused.append(str(error))

    with files.claimed(path), files.claimed(path):  # within a claim it is one
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused and refused[0].startswith("checkpoint: expected a file that no other run writes, got")
    assert not list(tmp_path.iterdir())
    (tmp_path / ".c.h5.lock").write_bytes(b"")  # of a dead run
    with files.claimed(path):
        pass
    assert not list(tmp_path.iterdir())


def test_files_are_told_by_what_they_are(tmp_path):
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"")
    os.link(one, tmp_path / "hard")
    os.symlink(one, tmp_path / "soft")
    os.symlink(other, tmp_path / "dangling")
    os.symlink(tmp_path, tmp_path / "folder")
    for name in ("hard", "soft", "folder/a", "folder/../" + tmp_path.name + "/a"):
        assert files.same_file(one, tmp_path / name) and not files.same_file(other, tmp_path / name)
    for name in ("dangling", "folder/b", "b"):
        assert files.same_file(other, tmp_path / name) and not files.same_file(one, tmp_path / name)


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(OSError, match="expected a file to write, got a device, a pipe or a socket"):
            files.write_whole(path, b"new")
