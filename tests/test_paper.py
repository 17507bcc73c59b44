"""The bench of the paper's simulations, on crystals of a dozen voxels: its cases, its numbers, its files."""

import json
import pathlib
import sys

import numpy as np
import pendel
import pytest
from pendel import compare

BENCH = pathlib.Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCH))
    try:
        import paper
    finally:
        sys.path.remove(str(BENCH))
    return paper


@pytest.fixture(scope="module")
def cases(bench):
    return bench.cases


def call(bench, folder, study, *more):
    few = [
        "--steps",
        "60",
        "--rounds",
        "1",
        "--iterations",
        "300",
        "--starts",
        "1",
        "--searches",
        "1",
        "--threads",
        "2",
        "--quiet",
        "-o",
        str(folder),
    ]
    return bench.main([study, *few, *more])


@pytest.fixture(autouse=True)
def tiny(bench, cases, monkeypatch):
    """24 pixels and frames; the range of angles goes along, or else the frames are too far apart for phasing."""
    monkeypatch.setitem(cases.PIXELS, "small", 24)
    monkeypatch.setattr(bench, "TRIAL_EPOCHS", 2)
    monkeypatch.setattr(cases, "GOLD_RANGE", 0.2 * 24 / 64)
    monkeypatch.setattr(cases, "BLOCK_RANGE", 0.15 * 24 / 64)


def test_gold_cube_is_that_of_the_paper(cases, monkeypatch):
    monkeypatch.undo()
    case = cases.gold_cube("half")
    experiment = case.model.experiment
    assert experiment.n_frames == 129 and experiment.detector_shape == (128, 128)
    assert np.rad2deg(experiment.two_theta) == pytest.approx(44.76)
    assert experiment.energy / 1.602176634e-16 == pytest.approx(8.0, rel=1e-4)
    assert np.rad2deg(np.ptp(experiment.rocking_angles)) == pytest.approx(0.4)
    assert case.extinction_length == pytest.approx(2469e-9, rel=1e-3)
    assert experiment.wavelength / abs(case.model.crystal.chi_h) == pytest.approx(2930e-9, rel=1e-3)
    assert case.body.sum() * np.prod(case.model.voxel) == pytest.approx(1e-18, rel=1e-3)
    # faces normal to h: the volume fraction changes along h only, where a plane of it crosses the middle of a face
    z, y, x = pendel.phantom.coordinates(case.model.shape, case.model.voxel)
    along = (x * case.h[0] + y * case.h[1] + z * case.h[2]) / np.linalg.norm(case.h)
    across = (x * case.h[2] - z * case.h[0]) / np.linalg.norm(case.h)
    middle = (np.abs(across) < 0.3e-6) & (np.abs(y) < 0.3e-6)
    half = np.abs(np.linalg.norm(case.h[[0, 2]]) / np.linalg.norm(case.h)) * 12e-9  # half a voxel's diagonal
    assert (case.body[middle & (np.abs(along) < 0.5e-6 - half)] == 1).all()
    assert (case.body[middle & (np.abs(along) > 0.5e-6 + half)] == 0).all()


def test_welded_block_is_that_of_the_paper(cases, monkeypatch):
    monkeypatch.undo()
    case = cases.welded_block("small")
    experiment = case.model.experiment
    assert np.rad2deg(experiment.two_theta) == pytest.approx(24.85)
    assert abs(np.sin(experiment.roll)) > 0.3  # the pixels are turned against the scattering plane
    # bulk spacing of (116): the angles are those of its reflection
    spacing = 1e-10 / np.linalg.norm(np.array((1, 1, 6)) / cases.LATTICE)
    assert experiment.d_spacing == pytest.approx(spacing, rel=2e-3)
    assert case.body.sum() * np.prod(case.model.voxel) == pytest.approx(np.prod(cases.BLOCK), rel=1e-3)
    index = [round(c / v) + n // 2 for c, v, n in zip(case.corner[::-1], case.model.voxel, case.S.shape, strict=True)]
    phase = np.angle(case.S)
    assert phase[case.body > 0.1].max() == pytest.approx(phase[tuple(index)], abs=0.3)  # highest at the corner
    seen = case.seen(case.S)
    assert np.abs(case.seen(seen) - seen).max() < 1e-5 < np.abs(seen - case.S).max()  # a projection, complex64


def test_measured_band_holds_what_frames_and_pixels_see(cases, monkeypatch):
    monkeypatch.undo()
    case = cases.welded_block("small")
    experiment = case.model.experiment
    volume = abs(np.linalg.det(experiment.basis())) * experiment.n_frames * np.prod(experiment.detector_shape)
    whole = (2 * np.pi) ** 3 / np.prod(case.model.voxel)
    assert case.measured_band.mean() == pytest.approx(volume / whole, rel=0.05)  # all of it inside the box's band
    steps = [2 * np.pi / (n * d) for n, d in zip(case.S.shape, case.model.voxel, strict=True)]
    for frame, row, col in ((2, 2, 2), (62, 5, 50), (32, 60, 3)):
        at = experiment.basis() @ (np.array((frame, row, col)) - experiment.centre)
        index = tuple(round(q / s) + n // 2 for q, s, n in zip(at[::-1], steps, case.S.shape, strict=True))
        assert case.measured_band[index]
        outside = tuple(round(1.3 * q / s) + n // 2 for q, s, n in zip(at[::-1], steps, case.S.shape, strict=True))
        assert not case.measured_band[outside]


def test_refraction_shifts_the_rocking_curve_by_its_closed_form(cases, monkeypatch):
    monkeypatch.undo()
    shifts, angles, curves = cases.rocking_shift(threads=2)
    assert shifts["closed form"] == pytest.approx(0.001576, rel=1e-3)
    # 0.00151, 0.00154, 0.00156 with voxels of 32, 16, 8 nm: the surface weighs too little where it is partial voxels
    assert shifts["refraction"] == pytest.approx(shifts["closed form"], rel=0.06)
    assert abs(shifts["kinematic"]) < 1e-6
    # towards the larger glancing angle, and absorption and extinction add to it
    assert shifts["refraction"] < shifts["refraction, absorption"] < shifts["dynamical"] < 0.003
    # refraction alone loses nothing: it only spreads the curve
    assert curves["refraction"].sum() == pytest.approx(curves["kinematic"].sum(), rel=0.01)
    assert curves["dynamical"].sum() < 0.6 * curves["kinematic"].sum()


def test_numbers_of_known_objects(bench, cases):
    case = cases.welded_block("small")
    row, registered = bench.measure(case, case.S * np.exp(0.5j), "dynamical")
    exact = ("phase_rmse", "phase_rmse_band", "strain_rmse", "strain_rmse_band", "corner_error_percent")
    assert all(abs(row[name]) < 1e-5 for name in exact), row  # complex64
    assert row["resolution_limited"] and row["amplitude_cv"] < 1e-3  # of the whole voxels alone
    assert np.abs(registered - case.S).max() < 1e-5
    # the displacement of the corner is linear in the phase as long as that does not wrap
    half, _ = bench.measure(case, np.abs(case.S) * np.exp(0.5j * np.angle(case.S)), "dynamical")
    assert half["corner_error_percent"] == pytest.approx(-50, abs=3)
    # truth: near the corner 3 rad fall to 3/(1 + 0.25/0.15), far from it to about 3/(1 + 1/0.15)
    assert -cases.WELD_PHASE < 1e-12 * row["corner_truth_pm"] * np.linalg.norm(case.h) < -0.5
    x = pendel.phantom.coordinates(case.S.shape, case.model.voxel)[2]
    tilted = (case.S * np.exp(1e6j * x)).astype(np.complex64)
    assert bench.measure(case, tilted, "HIO/ER")[0]["phase_rmse"] < 1e-3  # a kinematic S is freed of a ramp
    assert bench.measure(case, tilted, "dynamical")[0]["phase_rmse"] > 0.1  # a dynamical one is not


def test_amplitude_is_judged_where_the_crystal_stands(bench, cases):
    case = cases.gold_cube("small", strained=False)
    voxel, turn = case.model.voxel, pendel.phantom.orientation((0, 0, 1), case.h)
    aside = tuple(0.4 * v for v in voxel[::-1])
    moved = pendel.phantom.cube(case.S.shape, voxel, 1e-6, turn, aside).astype(np.complex64)
    row, _ = bench.measure(case, moved, "dynamical")
    # every voxel that is taken is full; moved by its Fourier series the sharp surface rings
    assert row["amplitude_cv"] < 1e-6 and row["amplitude_cv_registered"] > 1e-3
    moved[moved == 1] *= np.random.default_rng(0).normal(1, 0.05, (moved == 1).sum())
    assert bench.measure(case, moved, "dynamical")[0]["amplitude_cv"] == pytest.approx(0.05, rel=0.1)


def test_study_a_writes_what_it_measures(bench, cases, tmp_path, capsys):
    assert call(bench, tmp_path, "A", "--photons", "1e8", "--seeds", "0", "1") == 0
    content = json.loads((tmp_path / "results.json").read_text())
    rows = content["rows"]
    assert [(r["photons"], r["seed"], r["method"]) for r in rows] == [
        ("1e8", s, m) for s in (0, 1) for m in bench.METHODS
    ]
    kinematic, corrected, dynamical = rows[:3]
    assert corrected["phase_rmse"] < kinematic["phase_rmse"] and content["shift_deg"]["dynamical"] > 0
    case = cases.gold_cube("small")
    with np.load(tmp_path / "objects-1e8-0.npz") as file:
        again = compare(file["dynamical"], case.S, case.model.voxel, h=case.h)
    assert again.phase_rmse == pytest.approx(dynamical["phase_rmse"], rel=1e-3)
    assert again.strain_rmse == pytest.approx(dynamical["strain_rmse"], rel=1e-3)
    pictures = ("rocking.png", "methods-1e8.png", "fsc-1e8.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert not list(tmp_path.glob("checkpoint*"))
    text = capsys.readouterr().out
    assert f"{dynamical['phase_rmse']:.4f}" in text and "dynamical: PRTF of 2 seeds falls to 1/e at" in text


def test_interrupted_study_keeps_its_rows_and_goes_on(bench, tmp_path, monkeypatch, capsys):
    few, study, calls = ("--lengths", "0.2", "0.6"), bench.reconstructions, []

    def stop(*args, **more):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return study(*args, **more)

    monkeypatch.setattr(bench, "reconstructions", stop)
    assert call(bench, tmp_path, "C", *few) == 130
    assert "--resume goes on" in capsys.readouterr().err
    first = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [r["lengths"] for r in first] == [0.2] * 3
    assert call(bench, tmp_path, "C", *few, "--resume") == 0 and len(calls) == 3  # the finished length is not repeated
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert rows[:3] == first and [r["lengths"] for r in rows[3:]] == [0.6] * 3
    error = {(r["lengths"], r["method"]): r["phase_rmse"] for r in rows}
    assert error[0.6, "HIO/ER"] > 1.5 * error[0.2, "HIO/ER"]  # what grows with the crystal
    assert (tmp_path / "sizes.png").exists()
    with pytest.raises(SystemExit, match="--resume: expected the settings of"):
        call(bench, tmp_path, "A", "--resume")


def test_one_method_from_several_seeds(bench, tmp_path):
    few = ("--methods", "dynamical", "--photons", "none", "--seeds", "0", "1", "2")
    assert call(bench, tmp_path, "A", *few) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(r["seed"], r["method"]) for r in rows] == [(s, "dynamical") for s in (0, 1, 2)]
    assert len({r["misfit"] for r in rows}) == 3
    assert (tmp_path / "seeds-none.png").read_bytes().startswith(b"\x89PNG")


def test_study_b_draws_nine_panels_of_every_object(bench, tmp_path, monkeypatch):
    nine, drawn = bench.pictures.nine, []

    def first_only(path, *more):
        drawn.append(path.name)
        if len(drawn) == 1:  # a second each
            nine(path, *more)

    monkeypatch.setattr(bench.pictures, "nine", first_only)
    assert call(bench, tmp_path, "B", "--photons", "1e8", "--start", "shape") == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert all(r["corner_truth_pm"] == rows[0]["corner_truth_pm"] for r in rows)
    objects = ("truth", "HIO-ER", "refraction-corrected", "dynamical")
    assert drawn == [f"nine-{name}-1e8.png" for name in objects]
    assert (tmp_path / drawn[0]).read_bytes().startswith(b"\x89PNG")
