"""A result as one HTML file: what is in it, read back."""

import base64
import json
import re

import numpy as np
import pytest
from pendel import io
from pendel.analysis import report
from pendel.app.cli import main

VOXEL = (2e-8, 1e-8, 1.5e-8)


def stored(rng, **fields):
    S = np.zeros((16, 18, 20), complex)
    grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in S.shape), indexing="ij")
    S[4:12, 5:14, 6:15] = np.exp(0.8j * grids[2])[4:12, 5:14, 6:15]
    inside = np.abs(S) > 0
    strain = np.where(inside, 1e-3 * grids[0], 0)
    strain[4, 5, 6] = np.nan
    frame = rng.poisson(50.0, (8, 9)).astype(np.float32)
    known = {"displacement": np.where(inside, 1e-11 * grids[1], 0), "strain": strain, "name": "a </script> crystal"}
    known |= {"k_0": np.array([-3.0, 0, 4]), "k_h": np.array([0, 0, 5.0]), "frame": np.eye(3), "misfit": 0.01}
    known |= {"measured_frame": frame, "modelled_frame": frame + 10, "frame_index": 4, "verdict": "found"}
    known |= {"rocking_measured": np.arange(1.0, 6), "rocking_modelled": np.arange(1.0, 6), "trust": "found: <b>"}
    known |= {"rocking_angles": 1e-4 * np.arange(5), "loss": {"loss": np.array([3.0, 2, 1])}}
    return io.StoredResult(S=S.astype(np.complex64), support=inside, voxel=VOXEL, **known | fields)


def contents(text):
    return json.loads(re.search(r"const D = (.*);\n", text).group(1))


def values(told):
    numbers = np.frombuffer(base64.b64decode(told["data"]), "<u2").astype(float)
    return np.where(numbers == report.UNKNOWN, np.nan, told["low"] + told["step"] * numbers)


def test_maps_come_back_within_their_step(rng):
    result = stored(rng)
    told = contents(report.report(result))
    maps = {one["name"]: one for one in told["maps"]}
    assert list(maps) == ["phase", "amplitude", "displacement", "strain"]
    cut = (slice(2, 14), slice(3, 16), slice(4, 17))  # the support and a margin of 2
    assert told["shape"] == [12, 13, 13] and told["voxel"] == pytest.approx([20, 10, 15])
    assert told["origin"] == pytest.approx([(2 - 8) * 20, (3 - 9) * 10, (4 - 10) * 15])
    for name, expected in (("strain", 1e3 * result.strain), ("displacement", 1e12 * result.displacement)):
        expected = np.where(result.support, expected, np.nan)[cut].ravel()
        np.testing.assert_allclose(values(maps[name]), expected, atol=0.51 * maps[name]["step"])
        assert np.isnan(values(maps[name])).sum() == np.isnan(expected).sum()
    amplitude = np.abs(result.S)[cut].ravel()
    np.testing.assert_allclose(values(maps["amplitude"]), amplitude, atol=0.51 * maps["amplitude"]["step"])
    assert maps["phase"]["colours"] == "diverging" and maps["phase"]["limits"][1] < 1


def test_phases_that_wrap_have_colours_that_go_round(rng):
    result = stored(rng)
    turned = result.S * np.exp(8j * np.linspace(-1, 1, 20)).astype(np.complex64)
    phase = contents(report.report(io.StoredResult(S=turned, support=result.support)))["maps"][0]
    assert phase["colours"] == "cyclic" and phase["limits"] == [-np.pi, np.pi]


def test_residuals_are_in_photon_noises(rng):
    told = contents(
        report.report(stored(rng, measured_frame=np.full((4, 4), 100.0), modelled_frame=np.full((4, 4), 121.0)))
    )
    residual = np.frombuffer(base64.b64decode(told["frames"][2]["data"]), np.uint8)
    assert (residual == round(255 * (0.5 + 2 * (11 - 10) / (2 * report.RESIDUAL)))).all()
    assert "±4 photon noises" in told["frames"][2]["title"]


def test_arrows_facts_and_curves(rng):
    told = contents(report.report(stored(rng)))
    arrows = dict(told["arrows"])
    assert arrows["k₀"] == pytest.approx([-0.6, 0, 0.8]) and arrows["k_h, lab z"] == [0, 0, 1]
    assert arrows["h"] == pytest.approx(np.array([3, 0, 1]) / np.sqrt(10))
    assert ["relative misfit", "0.01"] in told["facts"]
    assert [curve["title"] for curve in told["curves"]] == ["rocking curve", "loss"]
    count = told["surface"]["count"]
    assert len(base64.b64decode(told["surface"]["places"])) == 6 * count > 0


def test_nothing_of_a_file_runs_or_is_fetched(rng):
    text = report.report(stored(rng))
    assert text.count("</script>") == 1 and "<title>a &lt;/script&gt; crystal</title>" in text
    assert "{{" not in text and not re.search(r"(src|href)=", text) and "http" not in text


def test_a_bare_object(rng):
    result = stored(rng)
    told = contents(report.report(io.StoredResult(S=result.S)))
    assert [one["name"] for one in told["maps"]] == ["phase", "amplitude"] and told["unit"] == "voxels"
    assert told["curves"] == told["frames"] == told["arrows"] == []


def test_on_the_command_line(rng, tmp_path, capsys):
    result = stored(rng)
    io.write_result(
        tmp_path / "r.cxi", S=result.S, support=result.support, voxel=VOXEL, verdict="found", trust="found: so"
    )
    assert main(["view", str(tmp_path / "r.cxi"), "-o", str(tmp_path / "r.html")]) == 0
    told = contents((tmp_path / "r.html").read_text())
    assert told["verdict"] == "found" and told["trust"] == "found: so"
    assert main(["view", str(tmp_path / "r.cxi"), "-o", str(tmp_path / "r.html")]) == 0  # one of pendel is replaced
    (tmp_path / "notes.html").write_text("mine")
    assert main(["view", str(tmp_path / "r.cxi"), "-o", str(tmp_path / "notes.html")]) == 2
    assert (tmp_path / "notes.html").read_text() == "mine"
