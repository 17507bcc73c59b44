"""`pendel compare` of several results, and `pendel view` for ParaView."""

import sys

import numpy as np
import pytest
from pendel import io
from pendel.app.cli import main

VOXEL = (1e-8, 1.2e-8, 1.2e-8)
BEAM = {"k_0": np.array([-5e10, 0, 1e10]), "k_h": np.array([0, 0, 5e10])}


@pytest.fixture
def results(tmp_path, rng):
    """Files of three results of one cube, noise of 0.1 rad."""
    S = np.zeros((20, 22, 24), complex)
    S[5:15, 5:17, 6:18] = 1
    paths = []
    for i in range(3):
        noisy = S * np.exp(0.1j * rng.standard_normal(S.shape))
        paths.append(str(tmp_path / f"r{i}.cxi"))
        io.write_result(paths[-1], S=noisy, voxel=VOXEL, support=np.abs(S) > 0, **BEAM)
    return paths


def test_results_are_compared(results, tmp_path, capsys):
    picture = tmp_path / "agree.png"
    assert main(["compare", *results, "-o", str(picture)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("3 objects agree within 0.1") or out[0].startswith("3 objects agree within 0.09")
    assert "strain within" in out[0] and out[1] == f"written to {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["compare", *results]) == 0 and len(capsys.readouterr().out.splitlines()) == 1


def test_pictures_without_matplotlib_are_refused_before_any_work(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(io, "read_result", lambda path: pytest.fail("began to work"))
    commands = (
        ["compare", *results, "-o", str(tmp_path / "a.png")],
        ["view", results[0]],
        ["view", results[0], "-o", str(tmp_path / "a.html")],
        ["check", results[0]],
        ["plan", "Au", "--hkl", "1", "1", "1", "--energy", "9", "--plot", str(tmp_path / "a.png")],
        ["demo", "-o", str(tmp_path / "demo")],
    )
    for command in commands:
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "expected the package matplotlib" in said and "pip install 'pendel[plot]'" in said, command

    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["view", results[0], "-o", str(tmp_path / "a.vti")]) == 0


def test_what_cannot_be_compared_is_refused(results, tmp_path, capsys):
    assert main(["compare", results[0]]) == 2
    assert "expected two results or more" in capsys.readouterr().err
    assert main(["compare", results[0], str(tmp_path / "none.cxi")]) == 2
    other = str(tmp_path / "other.cxi")
    io.write_result(other, S=io.read_result(results[0]).S, voxel=(1e-8, 1e-8, 1e-8))
    assert main(["compare", results[0], other]) == 1
    assert "expected a result on the voxels of" in capsys.readouterr().err
    turned = BEAM | {"k_0": np.array([5e10, 0, 1e10])}
    io.write_result(tmp_path / "turned.cxi", S=io.read_result(results[0]).S, voxel=VOXEL, **turned)
    assert main(["compare", results[0], str(tmp_path / "turned.cxi")]) == 1
    assert "turned.cxi: expected the reflection of" in capsys.readouterr().err
    before = open(results[1], "rb").read()
    assert main(["compare", *results, "-o", results[1], "--force"]) == 2
    assert open(results[1], "rb").read() == before


def test_a_result_for_paraview(results, tmp_path, capsys):
    assert main(["view", results[0], "-o", str(tmp_path / "crystal.vti")]) == 0
    text = (tmp_path / "crystal.vti").read_text()
    assert 'Spacing="12 12 10"' in text and 'Name="amplitude"' in text
    assert main(["view", results[0], "-o", str(tmp_path / "crystal.vti")]) == 0  # an old one is replaced
    assert main(["view", results[0], "-o", results[1]]) == 2
