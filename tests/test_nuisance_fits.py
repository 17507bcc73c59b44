"""What L-BFGS finds beside the crystal: its variables, their gradient, and what it saves where a beamline is bad."""

import math

import numpy as np
import pytest
from cube import AU, EDGE, QUIET, SIZE, central, make_model, strained
from pendel import Coherence, Experiment, Model, compare, lbfgs, photon_weight, polish
from pendel.fit.corrections import Corrections
from pendel.fit.nuisances import EASE, NARROWEST, START, NuisanceRecipe, Nuisances, frame_shares
from pendel.fit.objective import DataRecipe, Objective, measured
from pendel.fit.refinement import Flux, dq_at
from scan import SAMPLES

ALL = {"refine_angles": True, "refine_intensities": True, "refine_background": True, "refine_blur": True}
COHERENT = {"refine_coherence": True, "refine_bandwidth": True}
BEAM = Coherence(horizontal=1.2e-6, vertical=1.2e-6)


@pytest.mark.parametrize("likelihood", ("amplitude", "poisson"))
@pytest.mark.parametrize("per_frame", (False, True))
@pytest.mark.parametrize("beam", ({}, COHERENT))
def test_gradient_of_all_that_is_refined_is_the_derivative(gold_cube, rough, rng, likelihood, per_frame, beam):
    model = make_model("complex128")
    fit = measured(model, gold_cube.data(), None, DataRecipe(likelihood=likelihood, background=0.3))
    objective = Objective(fit)
    flux = rng.uniform(0.9, 1.1, SIZE)
    begun = Corrections(0.1 * gold_cube.step * rng.normal(size=SIZE), flux, None, (0.5, 0.4))
    recipe = NuisanceRecipe(**ALL, **beam, background_per_frame=per_frame)
    nuisances = Nuisances(recipe, fit, begun, 1000)
    # one width of the point spread beside three of the beam
    assert nuisances.size == 2 * SIZE + (SIZE if per_frame else 1) + (4 if beam else 2)
    x, direction = 0.3 * rng.normal(size=(2, nuisances.size))
    x = np.maximum(x, 0.5 * np.maximum(nuisances.low, -1e9))

    def value(h):
        now = objective.on_host(rough, gold_cube.tight, None, *nuisances.corrections(x + h * direction))
        return now.loss + nuisances.adjoint(x + h * direction, given)[0]

    given = objective.on_host(rough, gold_cube.tight, None, *nuisances.corrections(x), gradients=nuisances.gradients)
    prior, gradient = nuisances.adjoint(x, given)
    assert prior > 0 and central(value, 1e-3) == pytest.approx(gradient @ direction, rel=1e-7)


def test_what_is_refined_begins_where_it_is_given_and_keeps_its_gauge(gold_cube, rng):
    fit = measured(gold_cube.model, gold_cube.data(), None, DataRecipe(likelihood="poisson", background=0.2))
    given = Corrections(1e-5 * rng.normal(size=SIZE), rng.uniform(0.9, 1.1, SIZE), np.full(SIZE, 0.1), (0.6, 0.7))
    nuisances = Nuisances(NuisanceRecipe(**ALL), fit, given, 1000)
    begun = nuisances.corrections(nuisances.start())
    assert begun.coherence is None
    for found, wanted in zip(begun[:4], given[:4], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    # a common offset and a slow change of the flux are no part of it
    x = np.concatenate([part.scale for part in nuisances.parts[:2]] + [np.zeros(3)])
    moved = nuisances.corrections(x)
    np.testing.assert_allclose(moved.angle_offsets, given.angle_offsets, atol=1e-9)
    np.testing.assert_allclose(moved.flux, given.flux, rtol=1e-9)
    # at their lowest there is a tenth of the background, 0.2 + 0.1, and no blur
    lowest = nuisances.corrections(np.where(np.isinf(nuisances.low), 0, nuisances.low))
    assert np.abs(lowest.background_level + 0.17).max() < 1e-12 and max(lowest.point_spread) < 1e-7
    only = Nuisances(NuisanceRecipe(refine_blur=True), fit, given, 1000)
    assert only.size == 2 and only.gradients == ("blur",) and only.corrections(only.start()).flux is given.flux


def in_pixels(coherence, experiment):
    """Squared spreads of Q that a beam makes, pixels squared."""
    pixel = 2 * math.pi / experiment.field_of_view
    lengths = np.array([1, 1, np.linalg.norm(experiment.h)])
    return coherence.squares * (lengths / pixel) ** 2


def test_a_coherence_begins_where_it_is_given_and_keeps_its_settings(gold_cube):
    model, recipe = gold_cube.model, NuisanceRecipe(refine_coherence=True, refine_blur=True)
    experiment = model.experiment

    def nuisances(model, given, recipe=recipe):
        fit = measured(model, gold_cube.data(), None, DataRecipe(likelihood="poisson", background=0.2))
        return Nuisances(recipe, fit, given, 1000)

    coherent = nuisances(model, Corrections(point_spread=(0.6, 0.7)))
    begun = coherent.corrections(coherent.start())
    # the point spread is as wide along rows as along columns; a beam that is coherent begins a little less so
    np.testing.assert_allclose(begun.point_spread, math.sqrt((0.36 + 0.49) / 2), rtol=1e-14)
    np.testing.assert_allclose(in_pixels(begun.coherence, experiment), (START, START, 0), rtol=1e-12)
    assert coherent.gradients == ("blur", "coherence") and begun.coherence.modes == 2
    lowest = coherent.corrections(coherent.low)
    np.testing.assert_allclose(in_pixels(lowest.coherence, experiment), (NARROWEST, NARROWEST, 0), rtol=1e-9)
    assert max(lowest.point_spread) < 1e-7
    with_band = nuisances(model, Corrections(), recipe.but(refine_bandwidth=True))
    found = with_band.corrections(with_band.start()).coherence
    np.testing.assert_allclose(in_pixels(found, experiment), START, rtol=1e-12)

    # far from where it began the settings are still as many, and the loss is smooth; what goes on from there has more
    far = np.array([0, 0.5, 0.5]) * np.concatenate([part.scale for part in coherent.parts])
    found = coherent.corrections(far)
    assert found.coherence.modes == 2
    np.testing.assert_allclose(in_pixels(found.coherence, experiment)[:2], START + 0.5, rtol=1e-12)
    again = nuisances(model, found)
    begun = again.corrections(again.start()).coherence
    np.testing.assert_allclose(begun.squares, found.coherence.squares, rtol=1e-14)
    assert begun.modes == found.coherence.with_modes(None).count(experiment, model.shape[0] * model.voxel[0]) > 2
    # those that a model asks for stay
    one = make_model(coherence=Coherence(1e-6, 2e-6, modes=1))
    begun = nuisances(one, Corrections()).corrections(np.zeros(3)).coherence
    np.testing.assert_allclose(begun.squares, (1e12, 0.25e12, 0), rtol=1e-14)
    assert begun.modes == 1


def test_dead_pixels_do_not_hold_the_background_and_the_blur():
    """In even light: a blur changes nothing, and the loss of a level is that of the good pixels."""
    model, light = make_model(), 50.0
    mask = np.ones((SIZE, SIZE, SIZE), bool)
    mask[:, 7:13, 4:10] = False
    fit = measured(model, np.where(mask, light, 0), mask, DataRecipe(likelihood="poisson", background=0.2))
    recipe = NuisanceRecipe(refine_background=True, refine_blur=True)
    level, widths = Nuisances(recipe, fit, Corrections(), 1000).parts
    shares = frame_shares(fit).sum()
    bend = shares * mask[0].sum() / light
    np.testing.assert_allclose(level.scale, EASE["background_level"] * np.sqrt((bend + level.prior) * 1000), rtol=1e-6)
    held = shares / recipe.blur_spread**2
    np.testing.assert_allclose(widths.scale, EASE["point_spread"] * np.sqrt(held * 1000), rtol=1e-6)


def test_nothing_refined_is_nothing_changed(gold_cube):
    options = {"support": gold_cube.tight, "iterations": 3, **QUIET}
    plain = lbfgs(gold_cube.model, gold_cube.data(), None, gold_cube.truth, **options)
    assert plain.corrections == Corrections() and not NuisanceRecipe().refines
    assert NuisanceRecipe(**ALL).refines and not NuisanceRecipe(**ALL).without_refinement().refines
    refined = lbfgs(gold_cube.model, gold_cube.data(), None, gold_cube.truth, refine_blur=True, **options)
    assert refined.flux is refined.angle_offsets is None and len(refined.point_spread) == 2


@pytest.mark.parametrize("likelihood", ("amplitude", "poisson"))
@pytest.mark.parametrize("background", ("number", "frames", "pixels"))
def test_a_step_of_the_flux_is_exact_beside_a_background_and_with_weights(gold_cube, rng, likelihood, background):
    model = make_model("complex128")
    flux, weights = rng.uniform(0.8, 1.2, SIZE), rng.uniform(0.1, 1, (SIZE, SIZE, SIZE))
    given = {"number": 3.0, "frames": rng.uniform(1, 5, SIZE), "pixels": rng.uniform(1, 5, (SIZE, SIZE))}[background]
    added = given[:, None, None] if background == "frames" else given
    data = 1e9 * model.intensities(gold_cube.truth, flux=flux) + added
    mask = rng.uniform(size=data.shape) > 0.2
    fit = model.fit(data, mask, likelihood=likelihood, background=given, weights=weights)
    updated = np.ones(SIZE)
    found = model.evaluate(gold_cube.truth, fit, None, None, flux=updated)
    step = Flux(model.experiment, fit.pixels, fit.likelihood, 1e3, weights=weights)
    step.update(updated, np.arange(SIZE), found.sums, found.scale)
    # a prior of a millionth; the scale found is that of the wrong flux
    np.testing.assert_allclose(updated, flux * 1e9 / found.scale, rtol=1e-6)


class Beamline:
    """A gold cube on a detector of 36 pixels, three to a fringe, 56 frames: undisturbed, and as beamlines are."""

    def __init__(self):
        self.model, self.coherent = self.make(coherence=BEAM), self.make()
        places, widths = [(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2)], [0.3, 0.25]
        body, self.truth = strained(self.model, places, widths, [1.5, 1.2])
        self.tight = body > 0
        rng = np.random.default_rng(1)
        self.step = float(np.diff(self.model.experiment.rocking_angles).mean())
        self.offsets = 0.2 * self.step * rng.normal(size=56)
        self.flux = 1 + 0.05 * rng.normal(size=56)
        beamline = self.make(point_spread=0.7, coherence=BEAM)
        dq = dq_at(beamline.experiment, self.offsets)[0]
        self.data = self.counts(beamline.intensities(self.truth, dq=dq, flux=self.flux.astype(np.float32)), 0.03)
        self.undisturbed = self.counts(self.coherent.intensities(self.truth), 0.0)

    def make(self, **changes):
        two_theta, wavelength, pixel = np.deg2rad(44.76), 1.5498e-10, 55e-6
        experiment = Experiment(
            wavelength=wavelength,
            distance=2.9 * EDGE * pixel / wavelength,
            pixel_size=pixel,
            detector_shape=(36, 36),
            arm=(("y+", two_theta),),
            rocking_angles=np.deg2rad(0.26 / 56) * (np.arange(56) - 28),
        )
        voxel = experiment.suggest_voxel()
        shape = [2 * math.ceil(0.81 * EDGE / v) for v in voxel]
        return Model(experiment, AU, shape, voxel, polarization={"sigma": 1.0}, threads=2, **changes, **SAMPLES)

    @staticmethod
    def counts(D, background):
        D = D.astype(float) * (1e6 / D.max())
        return np.random.default_rng(3).poisson(D + background).astype(np.int32)

    def polish(self, model, data, iterations, **options):
        """(`Result`, error of its phase) from a phase that is 0.2 rad off."""
        wave = np.exp(0.3j * np.sin(6 * np.arange(model.shape[2]) / model.shape[2]))
        start = np.where(self.tight, 0.9 * self.truth * wave, 0).astype(np.complex64)
        fixed = {"likelihood": "poisson", "background": 0.01, "trim": None, "rounds": 1, "widen": 0, **QUIET}
        fixed |= {"atv_weight": photon_weight(model, data, support=self.tight), "iterations": (0, iterations)}
        result = polish(model, data, None, start, self.tight, **fixed | options)
        return result, compare(result.S, self.truth, model.voxel).phase_rmse


@pytest.fixture(scope="module")
def beamline():
    return Beamline()


def test_the_coherence_of_a_beam_is_found(beamline):
    """From a coherent beam and a phase that is 0.2 rad off; a point spread alone takes up only a part of it."""
    data = beamline.counts(beamline.model.intensities(beamline.truth), 0.0)
    _, blurred = beamline.polish(beamline.coherent, data, 150, refine_blur=True)
    both = {"refine_coherence": True, "refine_blur": True}
    result, error = beamline.polish(beamline.coherent, data, 150, **both)
    assert error < 0.015 and blurred > 2.5 * error  # 0.0105 and 0.044
    found = result.coherence
    np.testing.assert_allclose((found.horizontal, found.vertical), 1.2e-6, rtol=0.06)  # 1.243 and 1.228
    assert result.point_spread[0] == result.point_spread[1] < 0.1 and found.modes == 2  # 0.045


def test_refinement_saves_the_crystal_from_a_bad_beamline(beamline):
    """Flux jitters by 5 %, angles by 0.2 steps; a background, a point spread of 0.7 pixels, a partly coherent beam."""
    _, error = beamline.polish(beamline.coherent, beamline.undisturbed, 100)
    assert error < 0.012  # 0.007
    result, error = beamline.polish(beamline.model, beamline.data, 200, **ALL)
    # with all of it known 0.021: the blur takes fringes away
    assert error < 0.05  # 0.031
    np.testing.assert_allclose(result.point_spread, 0.7, atol=0.05)
    weight = np.sqrt(beamline.data.sum(axis=(1, 2)))
    left = (result.angle_offsets - beamline.offsets) / beamline.step
    left -= np.polynomial.Polynomial.fit(np.arange(56), left, 1, w=weight)(np.arange(56))
    assert np.sqrt(weight**2 @ left**2 / (weight**2).sum()) < 0.08  # of 0.2
    _, error = beamline.polish(beamline.coherent, beamline.data, 100)
    assert error > 0.2  # 0.39
