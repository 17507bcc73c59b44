"""The demo at small sizes: what it prints is what it found."""

import numpy as np
import pytest
from pendel import compare, io
from pendel.app import demo


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def report(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return demo.run(folder, size=24, seed=0, threads=2, progress=False, say=lines.append)


def test_the_dynamical_phase_is_right_where_the_kinematic_one_is_not(report):
    # 0.02 rad and a tenth are the demo's promise at size 64; 24 voxels, seeds 0 to 3, give 0.019 to 0.021
    assert report.dynamical.phase_rmse < 0.03, report
    assert report.ratio > 10 and report.twin_free, report
    assert report.dynamical_band.phase_rmse < report.dynamical.phase_rmse
    assert abs(report.dynamical.amplitude_cv - report.dynamical.amplitude_cv_truth) < 0.01
    assert report.misfits["dynamical"] < 1e-4


def test_the_numbers_printed_are_those_of_the_files(report, lines):
    scan, stored = io.read_scan(report.folder / "data.cxi"), io.read_result(report.folder / "result.cxi")
    truth = scan.metadata["truth"]
    again = compare(stored.S, truth, stored.voxel)
    assert again.phase_rmse == pytest.approx(report.dynamical.phase_rmse, rel=1e-9)  # S is stored as it is
    model = demo.model(24)
    assert model.misfit(stored.S, scan.data) == pytest.approx(report.misfits["dynamical"], rel=1e-4)
    text = "\n".join(lines)
    for number in (
        f"{report.kinematic.phase_rmse:.4f}",
        f"{again.phase_rmse:.4f}",
        f"{report.ratio:.1f} times smaller",
    ):
        assert number in text
    assert stored.metadata["phase_rmse"]["dynamical"] == report.dynamical.phase_rmse
    for name in ("demo.png", "result.png"):
        assert (report.folder / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in report.folder.iterdir()) == ["data.cxi", "demo.png", "result.cxi", "result.png"]


def test_the_strain_is_far_from_its_own_twin():
    truth = demo.truth(demo.model(24)).astype(complex)
    twin = np.roll(np.flip(truth), 1, axis=(0, 1, 2)).conj()
    # the best overlap of a crystal with itself is 1
    overlap = np.abs(np.fft.ifftn(np.fft.fftn(truth) * np.fft.fftn(twin).conj())).max() / np.vdot(truth, truth).real
    assert overlap < 0.9


def test_a_worse_result_is_called_worse(report):
    swapped = demo.Report(
        kinematic=report.dynamical,
        kinematic_band=report.dynamical_band,
        dynamical=report.kinematic,
        dynamical_band=report.kinematic_band,
        misfits=report.misfits,
        seconds=report.seconds,
        twin_free=False,
        folder=report.folder,
    )
    assert "times LARGER than the kinematic one" in str(swapped) and "conjugate TWIN" in str(swapped)


def test_photon_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "STEPS", 600)  # enough to be nearer than the kinematic phase, which is all that is asked
    monkeypatch.setattr(demo, "ROUNDS", 1)
    noisy = demo.run(tmp_path, size=24, seed=1, threads=2, photons=1e5, progress=False, say=lambda line: None)
    assert io.read_scan(tmp_path / "data.cxi").data.dtype == np.int32
    assert noisy.dynamical.phase_rmse < 0.5 * noisy.kinematic.phase_rmse, noisy


@pytest.mark.parametrize(
    ("size", "message"), [(33, "size: expected an even number, got 33"), (8, "size: expected .* 24")]
)
def test_bad_sizes_are_named(tmp_path, size, message):
    with pytest.raises(ValueError, match=message):
        demo.run(tmp_path, size=size)
