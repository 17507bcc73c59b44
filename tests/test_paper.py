"""The bench of the paper's simulations, on crystals of a dozen voxels: its cases, its numbers, its files."""

import functools
import json
import pathlib
import re
from types import SimpleNamespace

import numpy as np
import pendel
import pytest
from pendel.analysis import crystals

BENCH = pathlib.Path(__file__).parents[1] / "bench"
OWN = ("--maker", "model", "--steps", "60", "--rounds", "1", "--searches", "1")


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import paper

    return paper


@pytest.fixture
def cases(bench):
    return bench.cases


def call(bench, folder, study, *more):
    few = ["--iterations", "300", "--starts", "1", "--threads", "2", "--quiet", "-o", str(folder)]
    return bench.main([study, *few, *more])


@pytest.fixture
def tiny(bench, cases, monkeypatch):
    """24 pixels and frames, the range of angles goes along, or else the frames are too far apart for phasing; and of
    every search as little as there can be."""
    monkeypatch.setitem(cases.PIXELS, "small", 24)
    monkeypatch.setattr(cases, "GOLD_RANGE", 0.2 * 24 / 64)
    monkeypatch.setattr(cases, "BLOCK_RANGE", 0.15 * 24 / 64)
    little = {"steps": 200, "starts": 1, "trial_epochs": 4, "iterations": (0, 20), "fine_iterations": 10}
    monkeypatch.setattr(bench.pendel, "multiscale", functools.partial(pendel.multiscale, trial_epochs=2))
    monkeypatch.setattr(bench.pendel, "solve", functools.partial(pendel.solve, **little))


def test_gold_cube_is_that_of_the_paper(cases):
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


def test_welded_block_is_that_of_the_paper(cases):
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
    voxel = case.model.voxel
    seen = case.seen(case.S, voxel)
    assert np.abs(case.seen(seen, voxel) - seen).max() < 1e-5 < np.abs(seen - case.S).max()  # a projection, complex64


def test_measured_band_holds_what_frames_and_pixels_see(cases):
    case = cases.welded_block("small")
    experiment = case.model.experiment
    volume = abs(np.linalg.det(experiment.basis())) * experiment.n_frames * np.prod(experiment.detector_shape)
    whole = (2 * np.pi) ** 3 / np.prod(case.model.voxel)
    band = cases.measured_band(experiment, case.S.shape, case.model.voxel)
    assert band.mean() == pytest.approx(volume / whole, rel=0.05)  # all of it inside the box's band
    steps = [2 * np.pi / (n * d) for n, d in zip(case.S.shape, case.model.voxel, strict=True)]
    for frame, row, col in ((2, 2, 2), (62, 5, 50), (32, 60, 3)):
        at = experiment.basis() @ (np.array((frame, row, col)) - experiment.centre)
        index = tuple(round(q / s) + n // 2 for q, s, n in zip(at[::-1], steps, case.S.shape, strict=True))
        assert band[index]
        outside = tuple(round(1.3 * q / s) + n // 2 for q, s, n in zip(at[::-1], steps, case.S.shape, strict=True))
        assert not band[outside]


def test_refraction_shifts_the_rocking_curve_by_its_closed_form(cases):
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


@pytest.mark.parametrize("name", ["gold_cube", "welded_block"])
def test_a_crystal_is_the_same_as_a_function_of_position_and_on_a_grid(cases, name):
    case = getattr(cases, name)("small")
    grid = case.model.shape, case.model.voxel, case.experiment.frame
    s_0, _ = crystals.sampled(case.sample, *grid)
    # a face along the axes is between two of the four positions that `sampled` takes across a voxel
    assert np.abs(s_0 - case.body).max() < 0.06 and s_0.sum() == pytest.approx(case.body.sum(), rel=5e-3)
    z, y, x = np.broadcast_arrays(*pendel.phantom.coordinates(*grid[:2]))
    phase = case.sample.phase(np.tensordot(case.experiment.frame.T, np.stack([x, y, z]), 1))
    whole = case.body > 0.999
    assert np.abs(np.angle(case.S * np.exp(-1j * phase)))[whole].max() < 1e-5  # complex64
    assert case.sample.size == pytest.approx(np.ptp(case.sample.hull, axis=0).max())


def test_foreign_frames_are_of_the_crystal_and_kept(cases, tiny, monkeypatch, tmp_path):
    case = cases.gold_cube("small")
    frames = cases.foreign_frames(case, tmp_path)
    # a grid three times as fine as the data resolve, of means, shows what it can of such frames
    fine = case.experiment.suggest_voxel(case.experiment.field_of_view / 72)
    shape = [2 * round(1.5e-6 / (2 * v)) for v in fine]
    _, S = crystals.sampled(case.sample, shape, fine, case.experiment.frame, 2)
    more = {"polarization": case.model.polarization, "sampling": "mean"}
    own = pendel.Model(case.experiment, case.model.crystal, shape, fine, **more).intensities(S.astype(np.complex64))
    ratio = np.prod(fine[1:]) / np.prod(case.model.voxel[1:])  # intensities are per area of a voxel
    assert misfit(own.astype(float) * ratio, frames) < 3e-4
    coarse = case.model.intensities(case.S).astype(float)
    assert misfit(coarse, frames) > 5e-3

    monkeypatch.setattr(cases.rocking_scans, "foreign_frames", None)
    assert (cases.foreign_frames(case, tmp_path) == frames).all()
    with pytest.raises(TypeError):
        cases.foreign_frames(cases.gold_cube("small", strained=False), tmp_path)


def misfit(D, data):
    return ((np.sqrt(D) - np.sqrt(data)) ** 2).sum() / data.sum()


def known(case, finer=1):
    """(S, voxel) of the crystal itself, on voxels so many times as fine as the data resolve."""
    voxel = tuple(v / finer for v in case.model.voxel)
    shape = tuple(finer * n for n in case.model.shape)
    z, y, x = np.broadcast_arrays(*pendel.phantom.coordinates(shape, voxel))
    r = np.tensordot(case.experiment.frame.T, np.stack([x, y, z]), 1)
    return case.sample(r, voxel[1])[1], voxel


EXACT = ("phase_rmse", "phase_rmse_band", "strain_rmse", "strain_rmse_band", "corner_error_percent")


def test_numbers_of_known_objects(bench, cases):
    case = cases.welded_block("small")
    S, voxel = known(case)
    row, laid = bench.measure(case, S * np.exp(0.5j), voxel)
    assert all(abs(row[name]) < 1e-5 for name in EXACT), row
    assert row["voxel_nm"] == pytest.approx(36.67, rel=1e-3) and row["resolution_limited"]
    assert np.abs(laid.S - S).max() < 1e-5 and np.abs(laid.truth - S).max() < 1e-5
    # the displacement of the corner is linear in the phase as long as that does not wrap
    half = bench.corner_displacement(case, np.abs(S) * np.exp(0.5j * np.angle(S)), laid)
    assert 1e12 * half == pytest.approx(row["corner_truth_pm"] / 2, rel=0.06)
    # truth: near the corner 3 rad fall to 3/(1 + 0.25/0.15), far from it to about 3/(1 + 1/0.15)
    assert -cases.WELD_PHASE < 1e-12 * row["corner_truth_pm"] * np.linalg.norm(case.h) < -0.5
    # of a ramp it is free, of noise it is not
    x = pendel.phantom.coordinates(S.shape, voxel)[2]
    assert bench.measure(case, S * np.exp(1e6j * x), voxel)[0]["phase_rmse"] < 1e-3
    noise = np.random.default_rng(0).choice((-0.1, 0.1), S.shape)
    assert bench.measure(case, S * np.exp(1j * noise), voxel)[0]["phase_rmse"] == pytest.approx(0.1, rel=0.1)
    shaky, _ = bench.measure(case, S * (1 + noise), voxel)
    assert shaky["amplitude_cv"] == pytest.approx(0.1, rel=0.05) and shaky["phase_rmse"] < 1e-3


def test_an_object_is_judged_on_its_own_voxels(bench, cases):
    case = cases.welded_block("small")
    S, voxel = known(case, 2)
    row, _ = bench.measure(case, S, voxel)
    assert all(abs(row[name]) < 1e-5 for name in EXACT), row
    assert row["voxel_nm"] == pytest.approx(36.67 / 2, rel=1e-3)
    wide, _ = bench.measure(case, *known(case))
    assert row["corner_truth_pm"] == pytest.approx(wide["corner_truth_pm"], rel=0.05)


def test_study_a_on_foreign_frames_writes_what_it_measures(bench, cases, tiny, tmp_path, capsys):
    more = ("--photons", "1e6", "--cache", str(tmp_path / "frames"))
    assert call(bench, tmp_path, "A", *more) == 0
    content = json.loads((tmp_path / "results.json").read_text())
    rows = content["rows"]
    assert [(r["photons"], r["seed"], r["method"]) for r in rows] == [("1e6", 0, m) for m in bench.METHODS]
    kinematic, corrected, dynamical = rows
    assert dynamical["phase_rmse"] < corrected["phase_rmse"] < kinematic["phase_rmse"]
    assert 0 < dynamical["trust"]["noise"] and content["shift_deg"]["dynamical"] > 0
    assert content["settings"]["maker"] == "wide-angle" and set(content["rocking"]) > {"wide-angle"}

    case = cases.gold_cube("small")
    with np.load(tmp_path / "objects-1e6-0.npz") as file:
        voxel, S = tuple(file["voxel of dynamical"]), file["dynamical"]
    assert voxel[1] < case.model.voxel[1]  # chosen by `solve`, each method judged on its own
    grid = SimpleNamespace(shape=S.shape, voxel=voxel)
    again = crystals.phase_error(S, grid, case.sample, case.experiment, ramp=True)
    assert again.phase_rmse == pytest.approx(dynamical["phase_rmse"], rel=1e-3)
    drawn = ("rocking.png", "methods-1e6.png", "fsc-1e6.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    assert not list(tmp_path.glob("checkpoint*"))
    text = capsys.readouterr().out
    assert f"{dynamical['phase_rmse']:.4f}" in text
    # so few iterations: whatever the verdict is, it is said with the numbers behind it
    assert re.search(r"^dynamical: (found|not found).*: misfit ", text, re.MULTILINE)


def test_seeds_of_a_study_on_the_models_own_frames(bench, tiny, tmp_path, capsys):
    few = ("--methods", "dynamical", "--photons", "none", "--seeds", "0", "1", "2")
    assert call(bench, tmp_path, "A", *OWN, *few) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(r["seed"], r["method"]) for r in rows] == [(s, "dynamical") for s in (0, 1, 2)]
    assert len({r["misfit"] for r in rows}) == 3 and not any("trust" in r for r in rows)
    assert (tmp_path / "seeds-none.png").read_bytes().startswith(b"\x89PNG")
    assert "dynamical: PRTF of 3 seeds falls to 1/e at" in capsys.readouterr().out


def test_what_steers_the_search_on_its_own_grid_is_refused_elsewhere(bench, tmp_path, capsys):
    for asked in (("--steps", "60"), ("--start", "flat")):
        with pytest.raises(SystemExit):
            call(bench, tmp_path, "A", *asked)
        assert "expected --maker model, got wide-angle" in capsys.readouterr().err


def test_interrupted_study_keeps_its_rows_and_goes_on(bench, tiny, tmp_path, monkeypatch, capsys):
    few, study, calls = (*OWN, "--lengths", "0.2", "0.6"), bench.reconstructions, []

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
    assert error[0.6, "HIO/ER"] > 1.3 * error[0.2, "HIO/ER"]  # what grows with the crystal
    assert (tmp_path / "sizes.png").exists()
    with pytest.raises(SystemExit, match="--resume: expected the settings of"):
        call(bench, tmp_path, "A", "--resume")


def test_study_b_draws_nine_panels_of_every_object(bench, tiny, tmp_path, monkeypatch):
    nine, drawn = bench.pictures.nine, []

    def first_only(path, *more):
        drawn.append(path.name)
        if len(drawn) == 1:  # a second each
            nine(path, *more)

    monkeypatch.setattr(bench.pictures, "nine", first_only)
    assert call(bench, tmp_path, "B", *OWN, "--photons", "1e8", "--start", "shape") == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    truths = [r["corner_truth_pm"] for r in rows]
    assert truths == pytest.approx([np.mean(truths)] * 3, rel=0.05)  # each where its method has the crystal
    objects = ("truth", "HIO-ER", "refraction-corrected", "dynamical")
    assert drawn == [f"nine-{name}-1e8.png" for name in objects]
    assert (tmp_path / drawn[0]).read_bytes().startswith(b"\x89PNG")
