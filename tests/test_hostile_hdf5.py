"""Hostile HDF5 files, some of them in every run; ``python tests/hostile_hdf5.py`` makes thousands."""

import sys

import numpy as np
import pytest
from pendel.io import Scan

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is asked of Linux")


def test_hostile_files_are_read_or_refused_by_name():
    import hostile_hdf5

    found = hostile_hdf5.search(count=40, seed=1_000_000)
    assert not found["wrong"], "\n".join(found["wrong"])
    assert found["slowest"] < hostile_hdf5.LONGEST and found["memory"] < hostile_hdf5.SPARE


def test_the_judge_sees_what_it_is_for(tmp_path):
    import hostile_hdf5

    def fails(error):
        def read(path):
            raise error

        return read

    path = tmp_path / "a.cxi"
    assert not hostile_hdf5.judge(path, fails(ValueError(f"{path}: expected b, got c")))
    assert "does not name" in hostile_hdf5.judge(path, fails(ValueError("expected b, got c")))
    assert "KeyError" in hostile_hdf5.judge(path, fails(KeyError(f"{path}: b")))
    outside, inside = (Scan(np.full((1, 1, 2), value), np.ones((1, 2), bool)) for value in (hostile_hdf5.SECRET, 7))
    assert "outside" in hostile_hdf5.judge(path, lambda path: outside)
    assert not hostile_hdf5.judge(path, lambda path: inside)
