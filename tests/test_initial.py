"""`pendel init`: a configuration to begin with says what the scan's files say, and asks for what they do not."""

import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.app.cli import main
from pendel.app.initial import configuration
from scan_folders import CENTRE, COLUMNS, ROWS, N, loose  # noqa: F401

BEAM = {"energy": 9e3 * 1.602176634e-19, "distance": 0.5, "pixel_size": 55e-6}
ARM = (("y+", np.deg2rad(32.174)), ("x-", np.deg2rad(12.6346)))


def peak(shape=(11, 200, 220), width=6.0):
    """Counts about (5, 90, 120)."""
    grids = np.indices(shape)
    squares = ((grids[1] - 90) ** 2 + (grids[2] - 120) ** 2) / width**2 + (grids[0] - 5) ** 2 / 9
    return np.round(1e4 * np.exp(-squares)).astype(np.int32)


def test_what_a_scan_says_is_not_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    angles = np.deg2rad(0.01 * np.arange(11))
    io.write_scan("scan.cxi", peak(), rocking_angles=angles, rocking_axis="y+", arm=ARM, **BEAM)
    (tmp_path / "below").mkdir()
    command = ["init", "scan.cxi", "-o", "below/scan.toml", "--material", "Au", "--hkl", "1", "1", "1"]
    assert main(command) == 0
    assert capsys.readouterr().out == "written to below/scan.toml\n"
    made = config.load("below/scan.toml")
    assert made.crystal_keys.material == "Au" and made.crystal_keys.hkl == (1, 1, 1)
    assert made.path("data.path").resolve() == tmp_path / "scan.cxi"

    # 10^4 exp(-(r/6)^2) is 4 at 16.8 pixels: a square of 32 holds nearly all of that circle
    scan = made.scan()
    assert scan.data.shape == (11, 32, 32) and made.data.crop == (32, 32)
    experiment = made.experiment(scan)
    assert experiment.wavelength == pytest.approx(1.3776e-10, rel=1e-4)
    text = (tmp_path / "below" / "scan.toml").read_text()
    for line in ("#energy_keV = 9\n", "#distance_mm = 500\n", "#pixel_um = 55\n", '#rocking_axis = "y+"\n'):
        assert line in text
    assert '#arm = [["y+", 32.174], ["x-", 12.6346]]\n' in text and "needed" not in text
    assert "#rocking_step_deg = 0.01    # 0 to 0.1 in the data" in text

    # what is said in comments may be set: it is the same
    (tmp_path / "below" / "set.toml").write_text(text.replace("\n#", "\n").replace("\n ", "\n#"))
    given = config.load("below/set.toml").experiment(scan)
    assert np.allclose(given.k_h, experiment.k_h, rtol=1e-6)


def test_what_it_does_not_say_is_named(tmp_path, capsys):
    np.save(tmp_path / "frames.npy", peak())
    output = tmp_path / "scan.toml"
    assert main(["init", str(tmp_path / "frames.npy"), "-o", str(output)]) == 0
    missing = "energy_keV, distance_mm, pixel_um, arm, rocking_axis, rocking_step_deg, material, hkl"
    assert capsys.readouterr().out == f"written to {output}; to be set: {missing}\n"
    text = output.read_text()
    assert '\n#mask = "mask.npy"    # beside' in text and "\n#direct_beam = [row, col]" in text
    assert main(["reconstruct", str(output), "-o", str(tmp_path / "r.cxi")]) == 2
    assert "experiment.energy_keV: expected" in capsys.readouterr().err

    # a configuration that somebody has worked on is not lost
    assert main(["init", str(tmp_path / "frames.npy"), "-o", str(output)]) == 2
    assert "-o: expected a new file, got another" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "frames.npy"), "-o", str(output), "--force"]) == 0
    assert main(["init", str(tmp_path / "frames.npy"), "-o", str(tmp_path / "frames.npy"), "--force"]) == 2
    assert np.array_equal(np.load(tmp_path / "frames.npy"), peak())
    assert main(["init", str(tmp_path / "nothing")]) == 2
    assert "SCAN: expected a file or folder" in capsys.readouterr().err


def test_a_folder_of_a_beamline(loose):  # noqa: F811
    text, needed = configuration(loose)
    assert needed == ["material", "hkl"] and "#energy_keV = 9\n" in text
    assert f"# {N} x {ROWS} x {COLUMNS} (frames, rows, cols)" in text
    assert "#crop = [rows, cols]" in text  # it is small as it is
    assert 0 < CENTRE[1] < ROWS


@pytest.mark.parametrize(
    "frames",
    [
        peak() * 1e-4,  # normalised: no pixel sees LIT counts, which says nothing of where light is
        np.roll(peak(), (-84, -112), (1, 2)),  # about pixel (6, 8): no square about it stays on the detector
    ],
)
def test_no_cut_is_suggested_that_cannot_be_made_or_is_not_known(tmp_path, frames):
    angles = np.deg2rad(0.01 * np.arange(11))
    io.write_scan(tmp_path / "scan.cxi", frames, rocking_angles=angles, rocking_axis="y+", arm=ARM, **BEAM)
    text, _ = configuration("scan.cxi", folder=tmp_path)
    (tmp_path / "scan.toml").write_text(text)
    assert "#crop = [rows, cols]" in text and config.load(tmp_path / "scan.toml").scan().data.shape == frames.shape


@pytest.mark.parametrize("name", ("it's.npy", 'a"b.npy', 'it\'s "both".npy', "back\\slash.npy", "Küche.npy"))
def test_any_name_of_a_scan_is_read_again(tmp_path, name):
    np.save(tmp_path / name, peak((11, 32, 32)) + 1)
    text, _ = configuration(name, folder=tmp_path)
    (tmp_path / "scan.toml").write_text(text)
    assert config.load(tmp_path / "scan.toml").path("data.path") == tmp_path / name


def test_a_crystal_s_file_is_found_from_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", peak((11, 32, 32)) + 1)
    (tmp_path / "gold.cif").write_text("data_gold")
    (tmp_path / "below").mkdir()
    assert main(["init", "frames.npy", "-o", "below/scan.toml", "--material", "gold.cif"]) == 0
    assert config.load("below/scan.toml").path("crystal.material").resolve() == tmp_path / "gold.cif"


def test_without_a_command_help_comes_with_an_example(capsys):
    assert main([]) == 2  # a command was expected
    said = capsys.readouterr().err
    assert "pendel init SCAN -o scan.toml" in said and "usage: pendel" in said
