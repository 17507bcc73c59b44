"""Coarse to fine: the cut scan, the resampled crystal, the whole way from nothing."""

from unittest import mock

import numpy as np
import pytest
from cube import QUIET
from pendel import (
    Coherence,
    Crystal,
    Experiment,
    Model,
    Start,
    coarse,
    compare,
    kinematic,
    multiscale,
    phantom,
    resample,
)
from pendel.app import demo
from pendel.experiment import rotation
from pendel.fit import checkpoint_file, steps
from pendel.fit.corrections import NO_CORRECTIONS, Corrections
from pendel.fit.polishing import polish_fit
from pendel.recipes import searches
from pendel.recipes.levels import Level, sharpen
from pendel.recipes.multiscale_recipe import MultiscaleRecipe
from pendel.recipes.polisher import Polisher, data_recipe
from pendel.recipes.searches import Search
from pendel.recipes.smooth_phases import SMOOTH
from pendel.recipes.voxels import finer_model
from scan import make_data, make_model
from scipy import ndimage


@pytest.fixture(scope="module")
def scan():
    model = demo.model(48, threads=2)
    S = demo.truth(model)
    return model, S, model.intensities(S)


def test_levels_move_E_0_as_the_model_does(scan):
    model, _, frames = scan
    experiment = model.experiment
    voxel = tuple(0.8 * v if i == 0 else v for i, v in enumerate(model.voxel))
    for transport in ("box", "fourier"):
        given = Model(experiment, model.crystal, model.shape, voxel, transport=transport, threads=1)
        assert coarse(given, frames)[0].transport == transport
        assert finer_model(given, 1.5).transport == transport


def test_coarse_scan_keeps_every_place_in_reciprocal_space(scan):
    model, _, data = scan
    mask = np.ones(data.shape, bool)
    mask[:, 20, 20] = False
    small, cut, good = coarse(model, data, mask)
    a, b = model.experiment, small.experiment
    assert b.detector_shape == (24, 24) and b.field_of_view == a.field_of_view
    assert small.voxel[2] == pytest.approx(2 * model.voxel[2]) and small.operators[0][1].transport == "shift"
    assert all(
        n * v >= m * w * 0.99 for n, v, m, w in zip(small.shape, small.voxel, model.shape, model.voxel, strict=True)
    )
    # the pixel and the frame of the centre, and where their neighbours are
    np.testing.assert_allclose(b.detector_q()[12, 12], a.detector_q()[24, 24], atol=1e-3)
    np.testing.assert_allclose(b.detector_q()[3, 20], a.detector_q()[15, 32], rtol=1e-9)
    frames = [int(np.argmin(np.abs(a.dq - dq).sum(1))) for dq in b.dq]
    np.testing.assert_allclose(b.dq, a.dq[frames], atol=1e-3)
    assert (np.abs(b.dq) <= np.pi / np.array(small.voxel)[::-1]).all() and 8 <= len(frames) < a.n_frames
    assert (~good).sum() == len(frames) and not cut[~good].any()
    # weights fall from 1 in the middle
    ratio = cut[:, 12, 12] / data[frames, 24, 24]
    middle = frames.index(24)
    assert ratio[middle] == pytest.approx(1, abs=1e-6) and ratio.max() == ratio[middle] and ratio.min() < 0.7
    assert cut.dtype == np.float32


def test_coarse_scan_is_that_of_a_blurred_crystal(scan):
    model, S, data = scan
    small, cut, _ = coarse(model, data)

    def misfit(sigma):
        blurred = ndimage.gaussian_filter(S.real, sigma) + 1j * ndimage.gaussian_filter(S.imag, sigma)
        return small.misfit(resample(blurred, model.voxel, small), cut)

    assert misfit(1.2) < 0.01 and misfit(1.2) < 0.3 * misfit(0.2)  # of fine voxels


def test_coarse_refuses(scan):
    model, _, data = scan
    with pytest.raises(ValueError, match="factor: expected at least 8 detector rows to be left, got 6 of 48"):
        coarse(model, data, factor=8)
    with pytest.raises(ValueError, match="factor: expected"):
        coarse(model, data, factor=1)


def test_resample_is_linear_and_keeps_the_origin(scan):
    model, _, data = scan
    small, _, _ = coarse(model, data)
    z, y, x = phantom.coordinates(small.shape, small.voxel)
    field = (1 + 1e6 * x - 2e6 * y + 3e6j * z + 0 * z).astype(np.complex64)
    fine = resample(field, small.voxel, model)
    z, y, x = phantom.coordinates(model.shape, model.voxel)
    wanted = 1 + 1e6 * x - 2e6 * y + 3e6j * z
    inner = tuple(slice(n // 4, -(n // 4)) for n in model.shape)
    np.testing.assert_allclose(fine[inner], wanted[inner], rtol=1e-4)
    assert fine.dtype == np.complex64 and fine.shape == model.shape
    with pytest.raises(ValueError, match="voxel"):
        resample(field, (1e-9, 1e-9), model)


def test_sharpen_extrapolates_phases_with_their_slope():
    shape, voxel = (40, 40, 40), (1.0, 1.0, 1.0)
    body = ndimage.gaussian_filter(phantom.cube(shape, voxel, 22.0), 1.5)
    z, y, x = phantom.coordinates(shape, voxel)
    slope = 0.05 * x + 0.03 * y - 0.02 * z
    wrong = np.where(phantom.cube(shape, voxel, 18.0) > 0.5, slope, slope - 0.3)
    S = sharpen((body * np.exp(1j * wrong)).astype(np.complex64), wide=4)
    inside = phantom.cube(shape, voxel, 22.0) > 0.99
    assert np.abs(np.angle(S * np.exp(-1j * slope)))[inside].max() < 0.02
    assert np.abs(S).max() < 1 + 1e-6 and S.dtype == np.complex64
    edge = np.abs(S[20, 20]), body[20, 20]
    assert np.abs(np.diff(edge[0])).max() > 1.5 * np.abs(np.diff(edge[1])).max()  # steeper
    with pytest.raises(ValueError, match="S: expected a non-zero function, got zeros"):
        sharpen(0 * S)


@pytest.fixture(scope="module")
def little():
    model = demo.model(32, threads=2)
    S = demo.truth(model)
    return model, S, model.intensities(S)


FEW = {"starts": 1, "steps": 600, "rounds": 1, "trial_epochs": 10, "seed": 1, **QUIET}


def test_from_nothing_to_the_crystal(little, tmp_path):
    model, S, data = little
    path = tmp_path / "levels.h5"
    result = multiscale(model, data, levels=1, checkpoint=path, **FEW)
    assert compare(result.S, S, model.voxel).phase_rmse < 0.08 and result.misfit < 1e-4
    done = multiscale(model, data, levels=1, checkpoint=path, resume=True, **FEW)
    assert done.S.tobytes() == result.S.tobytes() and done.misfit == pytest.approx(result.misfit, rel=1e-6)
    with pytest.raises(ValueError, match="seed: expected 1, that of the checkpoint .*levels.h5, got 2"):
        multiscale(model, data, levels=1, checkpoint=path, resume=True, **(FEW | {"seed": 2}))
    with pytest.raises(ValueError, match="start: expected 'kinematic', that of the checkpoint .*, got 'flat'"):
        multiscale(model, data, None, "flat", levels=1, checkpoint=path, resume=True, **FEW)
    with pytest.raises(ValueError, match="resume: expected a checkpoint path with resume=True, got checkpoint=None"):
        multiscale(model, data, resume=True, **FEW)
    with pytest.raises(ValueError, match="levels: expected 2, that of the checkpoint .*, got 1"):
        multiscale(model, data, levels=0, checkpoint=path, resume=True, **FEW)


def test_a_finished_run_of_counts_is_measured_by_its_own_likelihood(little, tmp_path, monkeypatch):
    model, S, data = little
    counted = np.random.default_rng(0).poisson(data * (1e6 / data.sum(dtype=float)))
    options = {
        "start": S,
        "support": np.abs(S) > 0,
        "counts": True,
        "checkpoint": tmp_path / "levels.h5",
        **FEW,
        "steps": 8,
    }
    result = multiscale(model, counted, **options)
    monkeypatch.setattr("pendel.fit.objective.Objective.evaluate", None)  # nothing is done again
    done = multiscale(model, counted, resume=True, **options)
    assert done.S.tobytes() == result.S.tobytes() and done.background == result.background > 0
    assert done.scale == pytest.approx(result.scale, rel=1e-6)


def test_a_finished_run_of_another_precision_or_shape(little, tmp_path):
    model, S, data = little
    options = {"start": S, "checkpoint": tmp_path / "levels.h5", **FEW, "steps": 8, "iterations": (0, 1)}
    result = multiscale(model, data, **options)

    def like(shape, dtype):
        return Model(model.experiment, model.crystal, shape, model.voxel, model.polarization, dtype=dtype)

    done = multiscale(like(model.shape, "complex128"), data, resume=True, **options)
    assert done.S.dtype == np.complex128 and np.array_equal(done.S, result.S)
    assert done.misfit == pytest.approx(result.misfit, rel=1e-3)
    wider = like((model.shape[0] + 2, *model.shape[1:]), "complex64")
    with pytest.raises(
        ValueError, match=r"shape: expected \(32, 32, 32\), that of the checkpoint .*, got \(34, 32, 32\)"
    ):
        multiscale(wider, data, resume=True, **(options | {"start": np.ones(wider.shape)}))

    beams = {"point_spread": 0.7, "coherence": Coherence(horizontal=0.5e-6)}
    for name, value in beams.items():
        other = Model(model.experiment, model.crystal, model.shape, model.voxel, model.polarization, **{name: value})
        with pytest.raises(ValueError, match=f"{name}: expected .*, that of the checkpoint .*, got"):
            multiscale(other, data, resume=True, **options)


def test_flat_phases_in_a_known_shape(little):
    model, S, data = little
    support = ndimage.binary_dilation(np.abs(S) > 0)
    result = multiscale(model, data, None, "flat", support, levels=0, **(FEW | {"steps": 1200, "rounds": 2}))
    assert compare(support * 1.0, S, model.voxel).phase_rmse > 0.3
    assert compare(result.S, S, model.voxel).phase_rmse < 0.1 and not result.S[~result.support].any()


def test_a_start_of_ones_own_is_only_polished_further(little):
    model, S, data = little
    blurred = (ndimage.gaussian_filter(S.real, 0.5) + 1j * ndimage.gaussian_filter(S.imag, 0.5)).astype(np.complex64)
    result = multiscale(model, data, start=blurred, support=np.abs(S) > 0, **(FEW | {"steps": 80}))
    assert result.misfit < 0.05 * model.misfit(blurred, data)
    for name in ("magic", "given"):
        kinds = "'kinematic', 'flat', 'random', 'solid', 'smooth'"
        with pytest.raises(ValueError, match=f"start: expected one of {kinds}, got"):
            multiscale(model, data, start=name, **FEW)


def test_an_object_as_phased_needs_no_trial(little):
    model, _, data = little
    phased = kinematic.phase(data, iterations=300, workers=1)
    options = {"phased": phased, "levels": 0, **FEW, "steps": 8, "iterations": (0, 1), "trial_epochs": 0}
    assert multiscale(model, data, **options).epochs == 1
    with pytest.raises(TypeError, match="phased: expected a KinematicResult or None, got 3"):
        multiscale(model, data, **(options | {"phased": 3}))


def test_close_trials_of_the_twins_are_decided_by_polish(scan, monkeypatch):
    model, S, data = scan
    m, frames, _ = coarse(model, data)
    right = resample(S, model.voxel, m)
    wrong = kinematic.twin(right)

    def chosen(first, second, ratio, corrections=NO_CORRECTIONS):
        misfits = {"phased": 1e-3, "twin phased": ratio * 1e-3}
        supports = [ndimage.binary_dilation(np.abs(T) > 0.1) for T in (first, second)]
        other = Start(second, supports[1], 0.1, "twin phased", misfits)
        begun = Start(first, supports[0], 0.1, "phased", misfits, other)
        level, recipe = Level(m, frames, None), MultiscaleRecipe(steps=400)
        polisher = Polisher(level, recipe, {"iterations": (0, 15)}, corrections, None)
        return Search(level, recipe, data_recipe(False)).decide_twin(begun, polisher)[0]

    assert chosen(right, wrong, 1.2) is right and chosen(wrong, right, 1.2) is right

    given, polished = Corrections(flux=np.linspace(0.9, 1.1, m.n_frames)), []
    with monkeypatch.context() as patch:
        patch.setattr(
            searches,
            "polish_fit",
            lambda *args, **options: polished.append(polish_fit(*args, **options)) or polished[-1],
        )
        chosen(right, wrong, 1.2, given)
    assert len(polished) == 2 and all(np.array_equal(result.flux, given.flux) for result in polished)

    monkeypatch.setattr(Search, "run", None)  # where there is no doubt nothing is tried
    assert chosen(wrong, right, 1.6) is wrong


def test_symmetric_orientation_goes_coarse_to_fine_too():
    two_theta, wavelength, size = np.deg2rad(100), 1.5498e-10, 32
    edge = 0.4e-6
    experiment = Experiment(
        wavelength=wavelength, distance=2 * edge * 55e-6 / wavelength, pixel_size=55e-6, detector_shape=(size, size),
        arm=(("y+", two_theta),), rocking_angles=np.deg2rad(0.004) * (np.arange(size) - size // 2),
        orientation="symmetric",
    )  # fmt: skip
    voxel = experiment.suggest_voxel()
    shape = tuple(2 * int(np.ceil(0.65 * edge / v)) for v in voxel)
    crystal = Crystal(-1e-5 + 1e-6j, 8e-6 - 1e-6j)
    model = Model(experiment, crystal, shape, voxel, polarization={"sigma": 1.0}, resync=9)
    S = phantom.cube(shape, voxel, edge, rotation((1, 1, 0.5), 0.4)).astype(np.complex64)
    small, cut, _ = coarse(model, model.intensities(S))
    assert small.resync == 9
    assert small.experiment.orientation == "symmetric" and small.misfit(resample(S, voxel, small), cut) < 0.1


@pytest.mark.parametrize("start", ("flat", "random", "solid", "smooth"))
def test_a_run_resumed_after_any_step_ends_in_the_same_bits(tmp_path, start):
    """Stopped wherever a step is written, again and again."""
    model, data = make_model(threads=1), make_data(np.random.default_rng(0))
    options = {"starts": 2, "steps": 6, "rounds": 2, "iterations": (1, 2), "counts": True, "places": True, **QUIET}
    options["smooth"] = SMOOTH.but(ladder=((4, 3, 3), (5, 3, 1)), cycles=2, steps=6)
    whole = multiscale(model, data, None, start, **options)
    path, stops = tmp_path / "levels.h5", 0

    class Stopped(Exception):
        pass

    def write(*given):
        checkpoint_file.write(*given)
        raise Stopped

    while stops < 40:
        try:
            with mock.patch.object(steps, "checkpoint_file", mock.Mock(wraps=checkpoint_file, write=write)):
                found = multiscale(model, data, None, start, checkpoint=path, resume=True, **options)
            break
        except Stopped:
            stops += 1
    assert 8 <= stops < 40 and found.S.tobytes() == whole.S.tobytes()
    assert found.misfit == whole.misfit and found.scale == whole.scale
    assert all(np.array_equal(found.history[name], whole.history[name]) for name in whole.history)


@pytest.mark.parametrize("start", ("flat", "random", "kinematic"))
def test_a_resumed_run_ends_in_the_bits_of_one_that_was_not_interrupted(little, tmp_path, start):
    """Whatever the level after which it was stopped: the second level of blind starts is searched again as well."""
    model, _, data = little
    path = tmp_path / "levels.h5"
    options = {"levels": 1, "checkpoint": path} | FEW | {"steps": 40, "iterations": (0, 4), "places": False}
    whole = multiscale(model, data, None, start, **options)
    path.unlink()

    def stop(done, S, history):
        if S.shape == model.shape:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        multiscale(model, data, None, start, callback=stop, **options)
    resumed = multiscale(model, data, None, start, resume=True, **options)
    assert resumed.S.tobytes() == whole.S.tobytes() and resumed.misfit == whole.misfit


def test_without_trials_the_phased_object_is_taken_as_it_is(little):
    model, _, data = little
    few = FEW | {"steps": 8, "iterations": (0, 2), "places": False, "trial_epochs": 0}
    assert multiscale(model, data, levels=0, **few).misfit > 0


def test_a_keyword_of_polish_is_refused_before_the_search(little, monkeypatch):
    model, _, data = little
    monkeypatch.setattr(Search, "run", None)
    with pytest.raises(ValueError, match="trim: expected a finite number > 0, got -1.0"):
        multiscale(model, data, trim=-1, **FEW)
    with pytest.raises(
        TypeError, match=r"multiscale\(\) got an unexpected keyword argument 'round'; did you mean 'rounds'"
    ):
        multiscale(model, data, round=2)
