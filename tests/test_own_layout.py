"""docs/scan.md: a file of any layout becomes a scan, in Python and for the command line."""

from pathlib import Path

import h5py
import numpy as np
import pendel
import pytest
from pendel import io
from pendel.app import config
from pendel.app.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "scan.md").read_text()
KEV = 1.602176634e-16


def peak(shape=(15, 80, 90), middle=(7, 38, 46)):
    squares = sum(((g - m) / w) ** 2 for g, m, w in zip(np.indices(shape), middle, (3, 6, 6), strict=True))
    return np.round(3e4 * np.exp(-squares)).astype(np.uint16)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the page's lines leave, of a file that is laid out as they say."""
    monkeypatch.chdir(tmp_path)
    bad = np.zeros((80, 90), np.uint8)
    bad[30, 40] = 2
    with h5py.File("mine.h5", "w") as file:
        frames = file.create_dataset("raw/detector/frames", data=peak())
        frames.attrs.update(energy_keV=9.0, distance_mm=700.0, pixel_um=55.0)
        file["raw/detector/bad_pixels"], file["raw/detector/direct_beam"] = bad, [30.0, 50.0]
        file["raw/motors/eta"] = 10.2 + 0.008 * np.arange(15)
        file["raw/motors/delta"], file["raw/motors/gamma"] = 31.7, 13.0
    names = {}
    exec(next(block for block in PAGE.split("```python\n")[1:] if "mine.h5" in block).split("```")[0], names)
    return names


def test_the_lines_of_the_page_make_a_scan_and_an_experiment(names):
    scan, experiment = names["scan"], names["experiment"]
    assert scan.data.shape == (15, 64, 64) and scan.mask.sum() == 64 * 64 - 1
    assert np.allclose(scan.centre[1:], 32, atol=0.1)
    assert experiment.energy == pytest.approx(9 * KEV) and experiment.n_frames == 15
    still = pendel.Experiment.from_scan(scan, arm=scan.arm)  # pointing at the pattern
    # the pattern lies (8, -4) pixels of 55 um at 0.7 m from the direct beam's: as many times 7.9e-5 rad
    apart = np.arccos(experiment.k_h @ still.k_h / experiment.k**2)
    assert apart == pytest.approx(np.hypot(8, 4) * 55e-6 / 0.7, rel=0.02)  # the centre is found within 0.1 of 9 pixels


def test_the_command_line_sees_the_same_experiment(names, capsys):
    assert main(["init", "mine.cxi", "-o", "scan.toml", "--material", "Au", "--hkl", "1", "1", "1"]) == 0
    assert capsys.readouterr().out == "written to scan.toml\n"  # nothing is asked for
    made = config.load("scan.toml", ["data.crop=[64,64]"])
    scan = made.scan()
    assert np.array_equal(scan.data, names["scan"].data) and np.array_equal(scan.mask, names["scan"].mask)
    assert np.allclose(made.experiment(scan).dq, names["experiment"].dq, rtol=1e-12, atol=0)
    assert np.allclose(made.experiment(scan).k_h, names["experiment"].k_h, rtol=1e-12)


def test_the_file_itself_leads_to_the_page(names, capsys):
    assert main(["init", "mine.h5", "-o", "other.toml"]) == 1
    assert "the file holds raw; files of a layout of one's own become a pendel.io.Scan first: docs/scan.md" in (
        capsys.readouterr().err
    )


def test_what_is_said_beside_a_scan_takes_its_place(names):
    scan = names["scan"]
    io.write_scan("other.cxi", scan, distance=0.5, wavelength=1.5e-10, name="other", motor="eta")
    read = io.read_scan("other.cxi")
    assert read.distance == 0.5 and read.wavelength == pytest.approx(1.5e-10) and read.name == "other"
    assert read.arm == tuple(scan.arm) and np.array_equal(read.rocking_angles, scan.rocking_angles)
    scan.rocking_axis = None
    with pytest.raises(TypeError, match="^rocking_axis: expected in the scan or beside it, got neither"):
        io.write_scan("third.cxi", scan)
    scan.rocking_axis, scan.background = "y+", np.zeros((64, 64))
    with pytest.raises(ValueError, match="^data: expected a scan without a background"):
        io.write_scan("third.cxi", scan)
    assert not Path("third.cxi").exists()


def test_a_scan_is_told_in_a_line(names):
    text = repr(names["scan"])
    assert text.startswith("Scan(data=uint16[15, 64, 64], mask=bool[64, 64], rocking_angles=float64[15], energy=1.4419")
    assert "\n" not in text and "flux" not in text and "'direct_beam': float64[2]" in text
