"""No file hurts: damaged ones and those made to hurt are read or refused by name, in time and in memory.

A few hundred files here; ``python tests/hostile_files.py`` reads thousands.
"""

import os
import re
import signal
import time

import hostile_files
import numpy as np
import pytest

NEEDS = {"tif": "tifffile", "cif": "gemmi"}
SEEDS = range(40)


@pytest.mark.parametrize("kind", hostile_files.KINDS)
def test_files_from_a_seed(kind, tmp_path):
    pytest.importorskip(NEEDS.get(kind, "numpy"))
    found = hostile_files.attack(tmp_path, [kind], SEEDS)
    assert not found, f"seeds {SEEDS}: {found}"


@pytest.mark.parametrize("kind", hostile_files.KINDS)
def test_the_files_that_are_spoilt_are_read(kind, tmp_path, monkeypatch):
    """Else everything would be refused at the first line, and nothing tried."""
    pytest.importorskip(NEEDS.get(kind, "numpy"))
    monkeypatch.setattr(hostile_files, "spoil_text", lambda _, text: text.encode())
    monkeypatch.setattr(hostile_files, "spoil_bytes", lambda _, content: bytes(content))
    make, read = hostile_files.KINDS[kind]
    for seed in range(50):
        path = tmp_path / f"{seed}.{kind}"
        make(np.random.default_rng(seed), path)
        try:
            read(path)
        except ValueError:
            continue  # headers and tags that do not fit are made, not spoilt
        return
    raise AssertionError(f"none of {kind} was read")


def fail(_):
    return {}["key"]


def name_nothing(_):
    raise ValueError("wrong")


def crash(_):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_):
    time.sleep(60)


def work(_):
    begin = time.process_time()
    while time.process_time() - begin < 0.3:
        pass


def fill(_):
    return len(bytearray(400 << 20))


@pytest.mark.parametrize(
    "read, message",
    [
        (fail, "KeyError"),
        (name_nothing, "no file named: ValueError.'wrong'"),
        (crash, "signal 9"),
        (hang, "nothing within 1 s"),
        (work, r"^0.\d s$"),
        (fill, "MiB for .* bytes"),
    ],
)
def test_readers_that_are_hurt_are_found(read, message, tmp_path, monkeypatch):
    (tmp_path / "a.npy").write_bytes(b"x")
    monkeypatch.setitem(hostile_files.KINDS, "npy", (None, read))
    if read is hang:
        monkeypatch.setattr(hostile_files, "PATIENCE", 1)
    monkeypatch.setattr(hostile_files, "SECONDS", 0.2)
    said = hostile_files.apart("npy", tmp_path / "a.npy")
    assert said and re.search(message, said), said


def test_the_same_seed_makes_the_same_file(tmp_path):
    for kind in ("npy", "toml"):
        for name in ("a", "b"):
            hostile_files.make(kind, tmp_path / f"{name}.{kind}", 5)
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
