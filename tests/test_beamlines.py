"""Beamlines by name: those of the package, and those that another package registers by an entry point."""

import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.io import beamlines

MODULE = """
import numpy as np
from pendel.io import Scan
from pendel.io.beamlines import Beamline

calls = []

def read(path, *, scan=None, whitefield=True):
    calls.append({"scan": scan, "whitefield": whitefield})
    return Scan(data=np.full((3, 8, 8), float(path.read_text())), mask=np.ones((8, 8), bool), centre=(1.0, 4.0, 4.0))

BEAMLINE = Beamline(read, recognises=lambda path: path.suffix == ".id99")
NO_SCAN = Beamline(lambda path: "no scan")
"""
ENTRY_POINTS = """
[pendel.beamlines]
id99 = outside:BEAMLINE
broken = outside:NOTHING
missing = no_such_package:BEAMLINE
number = outside:calls
no_scan = outside:NO_SCAN
cxi = outside:BEAMLINE
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Another package, installed; its module."""
    (tmp_path / "outside.py").write_text(MODULE)
    installed = tmp_path / "outside-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "outside", raising=False)
    return __import__("outside")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "scan.id99"
    path.write_text("7")
    return path


def test_the_package_s_own_beamlines(tmp_path):
    assert beamlines.names() == ["array", "eiger", "id01", "cxi", "34idc"]
    assert beamlines.find("auto", tmp_path) is beamlines.find("34idc", tmp_path)
    assert beamlines.find("auto", tmp_path / "scan.cxi") is beamlines.find("cxi", tmp_path)
    assert beamlines.find("auto", tmp_path / "scan.npz") is beamlines.find("array", tmp_path)
    with pytest.raises(
        ValueError, match="beamline: expected one of 'auto', 'array', 'eiger', 'id01', 'cxi', '34idc', got 'id99'"
    ):
        beamlines.find("id99", tmp_path)


@pytest.mark.filterwarnings("ignore:beamline .* was passed over")  # the other broken ones
def test_a_beamline_from_outside_is_read_by_name_and_recognised(outside, path):
    made = config.loads(f'[data]\npath = "{path}"\nformat = "id99"\nscan = 5\ndark = false')
    assert (made.scan().data == 7).all()
    assert outside.calls == [{"scan": 5, "whitefield": True}]  # dark is no option of this reader
    with pytest.warns(UserWarning, match="beamline 'broken' of outside:NOTHING was passed over"):
        assert (config.loads(f'[data]\npath = "{path}"').scan().data == 7).all()
    data = {"energy": 1e-15, "distance": 1.0, "pixel_size": 1e-6}
    io.write_scan(path.with_suffix(".cxi"), np.ones((3, 4, 5)), **data)
    with pytest.warns(UserWarning, match="beamline 'missing' of no_such_package:BEAMLINE was passed over"):
        assert config.loads(f'[data]\npath = "{path.with_suffix(".cxi")}"').scan().data.shape == (3, 4, 5)
    assert beamlines.find("cxi", path) is beamlines.BEAMLINES["cxi"]  # names of the package cannot be taken


@pytest.mark.parametrize(
    "name, message",
    [
        ("broken", "expected a pendel.io.beamlines.Beamline at the entry point outside:NOTHING, got AttributeError: "),
        ("missing", "at the entry point no_such_package:BEAMLINE, got ModuleNotFoundError: No module named"),
        ("number", r"at the entry point outside:calls, got \[\]"),
    ],
)
def test_a_broken_beamline_is_named_when_it_is_asked_for(outside, path, name, message):
    assert name in beamlines.names()
    made = config.loads(f'[data]\npath = "{path}"\nformat = "{name}"')
    with pytest.raises(config.ConfigError, match=f"^data.format: beamline '{name}': .*{message}"):
        made.scan()


def test_a_reader_that_gives_no_scan_is_named(outside, path):
    with pytest.raises(TypeError, match="lambda.*: expected a pendel.io.Scan of .*scan.id99, got 'no scan'"):
        beamlines.find("no_scan", path).read(path)


def test_unknown_formats_are_told_the_names_from_outside(outside):
    names = "'auto', 'array', 'eiger', 'id01', 'cxi', '34idc', 'broken', 'id99', 'missing', 'no_scan', 'number'"
    expected = f"^data.format: expected one of {names}, got 'tiff'"
    with pytest.raises(config.ConfigError, match=expected):
        config.loads("[data]\nformat = 'tiff'")
