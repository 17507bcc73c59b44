"""The demo at small sizes: what it prints is what it found."""

from types import SimpleNamespace

import numpy as np
import pytest
from pendel import io
from pendel.analysis import crystals
from pendel.app import demo


@pytest.fixture(scope="module")
def lines():
    return []


@pytest.fixture(scope="module")
def report(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    few = demo.RECIPE.but(steps=1200, fine_iterations=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "RECIPE", few)
        return demo.run(folder, size=24, seed=0, threads=2, photons=2e5, progress=False, say=lines.append)


def test_the_dynamical_phase_is_right_where_the_kinematic_one_is_not(report):
    assert report.dynamical.phase_rmse < 0.03, report
    assert report.ratio > 10 and report.twin_free, report
    assert abs(report.dynamical.amplitude_cv - report.dynamical.amplitude_cv_truth) < 0.03
    trust = report.trust
    assert trust.grid < trust.noise and report.misfits["dynamical"] == trust.misfit < 2 * trust.noise


def test_the_numbers_printed_are_those_of_the_files(report, lines):
    scan, stored = io.read_scan(report.folder / "data.cxi"), io.read_result(report.folder / "result.cxi")
    model = demo.model(24)
    # on the voxels that the light asked for, and there with the crystal as it is, not as a grid has it
    assert stored.voxel[1] < 0.8 * model.voxel[1]
    grid = SimpleNamespace(shape=stored.S.shape, voxel=stored.voxel)
    again = crystals.phase_error(stored.S, grid, demo.sample(model.experiment), model.experiment)
    assert again.phase_rmse == pytest.approx(report.dynamical.phase_rmse, rel=1e-9)  # S is stored as it is
    assert scan.data.dtype == np.int32 and np.array_equal(scan.metadata["truth"], demo.truth(model))
    text = "\n".join(lines)
    for number in (
        f"{report.kinematic.phase_rmse:.4f}",
        f"{again.phase_rmse:.4f}",
        f"{report.ratio:.1f} times smaller",
        f"Dynamical: {stored.trust}.",
    ):
        assert number in text
    assert stored.metadata["phase_rmse"]["dynamical"] == report.dynamical.phase_rmse
    for name in ("demo.png", "result.png"):
        assert (report.folder / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in report.folder.iterdir()) == ["data.cxi", "demo.png", "result.cxi", "result.png"]


def test_the_crystal_of_the_frames_is_the_one_on_the_grid():
    model = demo.model(24)
    _, expected = crystals.sampled(demo.sample(model.experiment), model.shape, model.voxel, model.experiment.frame)
    S = demo.truth(model)
    # volume fractions exact and from 4^3 places; the phase at a voxel's middle and averaged
    assert np.sqrt(np.mean(np.abs(S - expected)[S != 0] ** 2)) < 0.03
    assert np.angle(S).max() == pytest.approx(1.58, abs=0.02)


def test_the_strain_is_far_from_its_own_twin():
    truth = demo.truth(demo.model(24)).astype(complex)
    twin = np.roll(np.flip(truth), 1, axis=(0, 1, 2)).conj()
    # the best overlap of a crystal with itself is 1
    overlap = np.abs(np.fft.ifftn(np.fft.fftn(truth) * np.fft.fftn(twin).conj())).max() / np.vdot(truth, truth).real
    assert overlap < 0.9


def test_a_worse_result_is_called_worse(report):
    swapped = demo.Report(
        kinematic=report.dynamical,
        dynamical=report.kinematic,
        misfits=report.misfits,
        seconds=report.seconds,
        twin_free=False,
        trust=report.trust,
        folder=report.folder,
    )
    assert "times LARGER than the kinematic one" in str(swapped) and "conjugate TWIN" in str(swapped)


@pytest.mark.parametrize(
    ("size", "message"), [(33, "size: expected an even number, got 33"), (8, "size: expected .* 24")]
)
def test_bad_sizes_are_named(tmp_path, size, message):
    with pytest.raises(ValueError, match=message):
        demo.run(tmp_path, size=size)
