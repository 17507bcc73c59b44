"""A known flux and a measured background, from the file through every level to the result."""

import dataclasses

import numpy as np
import pytest
from cube import FIXED, QUIET, SIZE
from pendel import Coherence, coarse, compare, io, kinematic_start, lbfgs, multiscale, polish, reconstruct
from pendel.app import config, demo, store
from pendel.app.cli import main
from pendel.fit.corrections import Corrections
from pendel.fit.polishing import PolishRecipe
from pendel.fit.steps import Steps, packed_corrections, unpacked_corrections
from pendel.io.scans import relative_flux
from pendel.recipes import kinematic_starts, starts
from pendel.recipes.levels import levels_of, unit_flux

FEW = {"starts": 1, "steps": 600, "rounds": 1, "trial_epochs": 10, "seed": 1, **QUIET}


@pytest.fixture
def flux(rng):
    return rng.uniform(0.5, 1.5, SIZE)


@pytest.mark.parametrize("likelihood", ("amplitude", "poisson"))
def test_a_known_flux_makes_up_for_it(gold_cube, flux, likelihood):
    options = {"epochs": 30, "learning_rate": 0.1, "support": gold_cube.tight, "likelihood": likelihood, **FIXED}
    even = reconstruct(gold_cube.model, gold_cube.data(photons=1e6, noise=None), **options)
    data = gold_cube.data(photons=1e6, noise=None, flux=flux)
    known = reconstruct(gold_cube.model, data, flux=flux, **options)
    assert np.array_equal(known.flux, flux) and even.flux is None
    unknown = reconstruct(gold_cube.model, data, **options)
    # on their way: 2.2e-3, 1.8e-3, 7.6e-3 for amplitudes, 3.8e-3, 2.9e-3, 8.7e-3 for counts
    assert known.misfit < 1.5 * even.misfit and known.misfit < 0.5 * unknown.misfit


def test_flux_is_refined_about_the_known_one(gold_cube, flux, rng):
    jitter = rng.uniform(0.95, 1.05, SIZE)
    data = gold_cube.data(photons=1e6, flux=flux * jitter)
    options = {"epochs": 120, "learning_rate": 0.1, "support": gold_cube.tight, **FIXED}
    plain = reconstruct(gold_cube.model, data, flux=flux, **options)
    refined = reconstruct(gold_cube.model, data, flux=flux, refine_intensities=True, **options)
    assert refined.misfit < plain.misfit and np.std(refined.flux / flux) > 0.005
    counts = data.sum(axis=(1, 2))
    left, before = (f / (flux * jitter) for f in (refined.flux, flux))
    spread = [np.sqrt(counts @ (f / (counts @ f / counts.sum()) - 1) ** 2 / counts.sum()) for f in (left, before)]
    assert spread[0] < spread[1]
    # and by L-BFGS, from there, after which it is still refined about what it was given
    polished = lbfgs(
        gold_cube.model,
        data,
        None,
        refined.S,
        gold_cube.tight,
        flux=flux,
        refine_intensities=True,
        iterations=60,
        **QUIET,
    )
    assert polished.misfit < refined.misfit and 0.005 < np.std(polished.flux / flux) < 0.2


def test_a_resumed_run_knows_its_flux(gold_cube, flux, tmp_path):
    data, path = gold_cube.data(flux=flux), tmp_path / "run.h5"
    options = {"flux": flux, "refine_intensities": True, "refine_after": 0, "checkpoint": path, **FIXED}
    options |= {"support": gold_cube.tight, "schedule": "constant", "checkpoint_every": 2}
    whole = reconstruct(gold_cube.model, data, epochs=4, **options)
    reconstruct(gold_cube.model, data, epochs=2, **options)
    again = reconstruct(gold_cube.model, data, epochs=4, resume=True, **options)
    assert again.S.tobytes() == whole.S.tobytes() and np.array_equal(again.flux, whole.flux)
    for other in (None, 1.1 * flux):
        with pytest.raises(ValueError, match="flux: expected that of the checkpoint .*run.h5, got another"):
            reconstruct(gold_cube.model, data, epochs=4, resume=True, **options | {"flux": other})


def test_an_uneven_background_is_made_up_for_by_both_likelihoods(gold_cube, rng):
    ramp = np.linspace(0, 40, SIZE) * np.ones((SIZE, 1))
    clean = gold_cube.data(photons=1e5, noise=None)
    data = rng.poisson(clean + ramp).astype(np.int32)
    options = {"epochs": 80, "learning_rate": 0.1, "support": gold_cube.tight, **FIXED}
    for likelihood in ("amplitude", "poisson"):
        known = reconstruct(gold_cube.model, data, background=ramp, likelihood=likelihood, **options)
        unknown = reconstruct(gold_cube.model, data, background=0.01, likelihood=likelihood, **options)
        assert known.misfit < 0.5 * unknown.misfit and np.allclose(known.background, ramp)
        assert gold_cube.error(known.S) < 0.5 * gold_cube.error(unknown.S)


@pytest.fixture(scope="module")
def scan():
    model = demo.model(32, threads=2)
    S = demo.truth(model)
    return model, S, model.intensities(S)


def test_levels_keep_the_flux_and_the_background_of_their_pixels(scan, rng):
    model, _, data = scan
    whole = (model.n_frames, *model.experiment.detector_shape)
    background = rng.uniform(size=whole).astype(np.float32)
    corrections = Corrections(rng.normal(size=whole[0]), rng.uniform(0.5, 1.5, whole[0]), None, (0.3, 0.4))
    levels = levels_of(model, data, None, 1, 16, False, corrections)
    small, cut, _ = coarse(model, data)
    assert len(levels) == 2 and np.array_equal(levels[1].data, cut) and levels[0].corrections == corrections
    frames = [int(np.argmin(np.abs(model.experiment.dq - dq).sum(1))) for dq in small.experiment.dq]
    assert np.array_equal(levels[1].corrections.flux, corrections.flux[frames])
    assert np.array_equal(levels[1].corrections.angle_offsets, corrections.angle_offsets[frames])
    assert levels[1].corrections.point_spread == (0.3, 0.4)
    # whatever is done to the data is done to what they hold beside the crystal's light
    np.testing.assert_array_equal(levels[1].background(background), coarse(model, background)[1])
    for given in (background[0], background[:, 3, 5]):
        full = np.broadcast_to(given if given.ndim == 2 else given[:, None, None], whole)
        np.testing.assert_allclose(levels[1].background(given), coarse(model, full)[1], rtol=1e-6)
    assert levels[0].background(background) is background and levels[1].background(0.3) == 0.3
    light = levels[1].light(background)
    wanted = np.maximum(cut - coarse(model, background)[1], 0) / corrections.flux[frames][:, None, None]
    np.testing.assert_allclose(light, wanted)
    # two levels down: the part of a part
    twice = levels_of(demo.model(64, threads=1), np.ones((64, 64, 64), np.float32), None, 2, 8, False)[2].part
    assert twice.window.shape == tuple(map(len, twice.places)) and twice.window.max() <= 1
    recipe = PolishRecipe(background=background, likelihood="poisson")
    assert levels[1].fit(recipe) is levels[1].fit(recipe) is not levels[1].fit(recipe.but(background=0.1))
    kept = model.passes.beam.blur, small.passes.beam.blur
    assert not any(kept)
    wide = type(model)(
        model.experiment, model.crystal, model.shape, model.voxel, point_spread=0.4, coherence=Coherence(1e-6, 1e-6)
    )
    assert coarse(wide, data)[0].point_spread == (0.4, 0.4) and coarse(wide, data)[0].coherence == wide.coherence


def test_multiscale_knows_the_flux_on_every_level_and_refines_on_the_finest(scan, rng, tmp_path):
    model, S, data = scan
    flux = rng.uniform(0.5, 1.5, model.n_frames)
    uneven = data * flux[:, None, None].astype(np.float32)
    path = tmp_path / "levels.h5"
    few = FEW | {"rounds": 2}  # in one the angles, which go first, are not back yet
    result = multiscale(model, uneven, levels=1, flux=flux, checkpoint=path, refine_angles=True, **few)
    # 0.055 rad, 0.42 without the flux
    assert compare(result.S, S, model.voxel).phase_rmse < 0.1 and result.misfit < 5e-4
    assert np.array_equal(result.flux, flux) and result.angle_offsets.any()
    done = multiscale(model, uneven, levels=1, flux=flux, checkpoint=path, resume=True, refine_angles=True, **few)
    assert done.S.tobytes() == result.S.tobytes() and np.array_equal(done.angle_offsets, result.angle_offsets)
    assert done.misfit == pytest.approx(result.misfit, rel=1e-6)


def test_phasing_takes_the_data_at_unit_flux(scan, rng, monkeypatch):
    model, _, data = scan
    flux, background, seen = rng.uniform(0.5, 1.5, model.n_frames), rng.uniform(size=data.shape[1:]), []

    class Seen(Exception):
        pass

    def phase(data, mask, **_):
        seen.append(data)
        raise Seen

    for module in (kinematic_starts, starts):
        monkeypatch.setattr(module, "phase", phase)
    with pytest.raises(Seen):
        kinematic_start(model, data, flux=flux, background=background, progress=False)
    with pytest.raises(Seen):
        multiscale(model, data, flux=flux, background=background, levels=0, **FEW)
    for found in seen:
        np.testing.assert_allclose(found, np.maximum(data - background, 0) / flux[:, None, None])


def test_polish_begins_where_a_result_ended(gold_cube, tmp_path):
    data = gold_cube.data()
    options = {"rounds": 1, "iterations": (0, 4), "widen": 0, "likelihood": "poisson", "background": 0.1, **QUIET}
    everything = {"refine_angles": True, "refine_intensities": True, "refine_background": True, "refine_blur": True}
    everything |= {"refine_coherence": True, "refine_bandwidth": True}
    first = polish(gold_cube.model, data, None, gold_cube.truth, gold_cube.tight, **options, **everything)
    assert all(c is not None for c in first.corrections)
    second = polish(gold_cube.model, data, None, first, **options)
    for found, given in zip(second.corrections, first.corrections, strict=True):
        assert np.array_equal(found, given)
    # as it does from a checkpoint
    for resume in (False, True):
        steps = Steps(tmp_path / "steps.h5", resume)
        kept = steps.result("polish", lambda _, resume=resume: None if resume else first, gold_cube.model, None)
        assert kept.coherence == first.coherence and kept.point_spread == first.point_spread
    numbers = packed_corrections(first.corrections)
    assert unpacked_corrections(numbers).coherence == first.coherence and unpacked_corrections({}) == Corrections()
    flux = np.full(SIZE, 1.1)
    assert np.array_equal(polish(gold_cube.model, data, None, first, flux=flux, **options).flux, flux)


def test_a_wrong_model_is_not_fitted_below_its_own_error(gold_cube):
    data = gold_cube.data(photons=1e6)
    options = {"rounds": 1, "iterations": (0, 5), "widen": 0, **QUIET}
    plain = polish(gold_cube.model, data, None, gold_cube.truth, gold_cube.tight, **options)
    told = polish(gold_cube.model, data, None, gold_cube.truth, gold_cube.tight, model_error=0.3, **options)
    assert told.loss[-1] < 0.5 * plain.loss[-1]


def test_the_flux_of_a_file_and_its_background_are_cropped_with_it(tmp_path, rng):
    data, flux = rng.poisson(50, (6, 12, 14)), rng.uniform(10, 20, 6)
    options = {"distance": 0.5, "pixel_size": 55e-6, "energy": 1.4e-15, "centre": (3.0, 6.0, 7.0)}
    io.write_scan(tmp_path / "a.cxi", data, flux=flux, **options)
    scan = io.read_scan(tmp_path / "a.cxi")
    np.testing.assert_allclose(scan.flux, flux / flux.mean(), rtol=1e-15)
    scan.background = rng.uniform(size=(12, 14))
    cut = io.crop_scan(scan, frames=(1, 4), shape=(8, 6))
    assert np.array_equal(cut.flux, scan.flux[1:5]) and np.array_equal(cut.background, scan.background[2:10, 4:10])
    scan.background = rng.uniform(size=data.shape)
    cut = io.crop_scan(scan, frames=(1, 4), shape=(8, 6))
    assert np.array_equal(cut.background, scan.background[1:5, 2:10, 4:10])
    io.write_scan(tmp_path / "b.cxi", data, **options)
    assert io.read_scan(tmp_path / "b.cxi").flux is None
    with pytest.raises(ValueError, match="flux: expected relative intensities > 0, got 0"):
        io.write_scan(tmp_path / "b.cxi", data, flux=np.arange(6), **options)
    for wrong in (np.arange(6), np.ones(5), np.full(6, np.nan)):
        assert relative_flux(wrong, 6) is None


def test_data_at_unit_flux():
    data = np.arange(24.0).reshape(2, 3, 4)
    assert unit_flux(data) is data
    np.testing.assert_array_equal(unit_flux(data, np.array([1.0, 30.0]))[:, 1, 0], [3, 0])
    np.testing.assert_array_equal(unit_flux(data, None, np.array([1.0, 2.0]))[1], data[1] / 2)


CONFIG = """
[experiment]
energy_keV = 8.0
distance_mm = 300.0
pixel_um = 55.0
two_theta_deg = 44.76
rocking_step_deg = 0.02
rocking_frames = 24
detector_shape = [24, 24]

[crystal]
name = "Au"
hkl = [0, 0, 2]
chi_0 = [-9.407e-5, 8.4962e-6]
chi_h = [7.4e-5, -8.4e-6]

[model]
threads = 1
point_spread = [0.3, 0.4]
coherence_um = [2.0, inf]
bandwidth = 1e-4
coherence_modes = 1

[start]
kind = "flat"
size_nm = 350.0

[recipe]
epochs = 4
likelihood = "poisson"
background = 0.1
polish_rounds = 1
refine_blur = true
refine_coherence = true
refine_background = true

[simulate]
size_nm = 350.0

[output]
pictures = false
"""


def test_the_command_line_takes_flux_background_and_beam(tmp_path, rng):
    made = config.loads(CONFIG)
    experiment = made.experiment()
    model = made.make_model(experiment, (4, 4, 4), made.voxel(experiment))
    assert model.point_spread == (0.3, 0.4) and model.coherence == Coherence(2e-6, np.inf, 1e-4, 1)
    plain = config.loads(CONFIG, ["model.coherence_um=[inf, inf]", "model.bandwidth=0.0", "model.point_spread=0.5"])
    model = plain.make_model(experiment, (4, 4, 4), made.voxel(experiment))
    assert model.point_spread == (0.5, 0.5) and not any(model.coherence.covariance(experiment).ravel())

    (tmp_path / "run.toml").write_text(CONFIG)
    assert main(["simulate", str(tmp_path / "run.toml"), "-o", str(tmp_path / "data.cxi")]) == 0
    scan, flux, background = io.read_scan(tmp_path / "data.cxi"), rng.uniform(0.8, 1.2, 24), np.full((24, 24), 0.2)
    np.save(tmp_path / "background.npy", background)
    uneven = scan.data * flux[:, None, None] + 0.3
    known = {"distance": scan.distance, "pixel_size": scan.pixel_size, "energy": scan.energy, "centre": scan.centre}
    known |= {"arm": scan.arm, "rocking_angles": scan.rocking_angles, "flux": flux}
    io.write_scan(tmp_path / "uneven.cxi", uneven, **known)
    command = ["reconstruct", str(tmp_path / "run.toml"), "-o", str(tmp_path / "r.cxi"), "--quiet", "--data"]
    given = ["--set", "data.monitor=true", "--set", 'data.background="background.npy"']
    assert main([*command, str(tmp_path / "uneven.cxi"), *given]) == 0
    stored = io.read_result(tmp_path / "r.cxi")
    np.testing.assert_allclose(stored.flux, flux / flux.mean(), rtol=1e-6)
    np.testing.assert_allclose(stored.background, 0.3, rtol=1e-6)
    assert stored.background_level.shape == (24,) and len(stored.point_spread) == 2
    # of the one setting that coherence_modes asks for
    assert 0 < stored.coherence[0] < np.inf and stored.coherence[2:] == (1e-4, 1)
    assert np.allclose(stored.rocking_modelled, stored.rocking_measured, atol=0.1 * stored.rocking_measured.max())


@pytest.mark.parametrize(
    ("override", "message"),
    (
        ("data.monitor=true", "data.monitor: expected a scan that knows its incident intensity, got none"),
        ('data.background="none.npy"', r"data.background: expected a .npy file, got"),
        ('data.background="wrong.npy"', r"data.background: expected counts of shape \(6, 12, 14\) or \(12, 14\), got"),
        ('data.background="less.npy"', "data.background: expected finite counts >= 0"),
        ("model.coherence_um=[0.0, 1.0]", r"model.coherence_um\[0\]: expected a finite number > 0"),
        ("model.point_spread=-1", r"model.point_spread: expected a number >= 0 or \[row, col\]"),
    ),
)
def test_bad_keys(tmp_path, override, message):
    options = {"distance": 0.5, "pixel_size": 55e-6, "energy": 1.4e-15, "centre": (3.0, 6.0, 7.0)}
    io.write_scan(tmp_path / "a.cxi", np.ones((6, 12, 14), int), **options)
    np.save(tmp_path / "wrong.npy", np.ones((3, 12)))
    np.save(tmp_path / "less.npy", -np.ones((12, 14)))
    with pytest.raises(config.ConfigError, match=message):
        config.loads(CONFIG, [override], tmp_path).scan(tmp_path / "a.cxi")


def test_a_stored_result_keeps_what_was_refined(gold_cube, tmp_path):
    data = gold_cube.data()
    result = lbfgs(
        gold_cube.model,
        data,
        None,
        gold_cube.truth,
        gold_cube.tight,
        refine_blur=True,
        refine_coherence=True,
        iterations=3,
        **QUIET,
    )
    store.save_result(tmp_path / "r.cxi", gold_cube.model, data, None, result)
    stored = io.read_result(tmp_path / "r.cxi")
    assert stored.point_spread == result.point_spread and stored.flux is stored.background_level is None
    assert stored.coherence == dataclasses.astuple(result.coherence) and stored.coherence[2:] == (0, 2)
    beam = {"point_spread": result.point_spread, "coherence": result.coherence}
    D = gold_cube.model.intensities(result.S, **beam) * result.scale
    np.testing.assert_allclose(stored.rocking_modelled, D.sum(axis=(1, 2)), rtol=1e-5)
