"""Recipe options: what is minimised, densities, phase only, held-out pixels, refinement of the scan, L-BFGS."""

import dataclasses

import numpy as np
import pytest
from pendel import Crystal, Experiment, Model, compare, io, lbfgs, phantom, reconstruct, store
from pendel.atv import atv
from pendel.experiment import rotation
from pendel.lbfgs import _Variables
from pendel.loss import Likelihood
from pendel.objective import Objective
from pendel.refine import Angles, Flux, dq_at
from scipy import ndimage

SIZE = 20
EDGE = 0.8e-6
QUIET = {"progress": False}
FIXED = QUIET | {"shrink_wrap_every": 0}


def make_model(dtype="complex64", threads=2):
    """A gold cube of 0.8 um fills half of the box, as in the tests of the loop."""
    two_theta, wavelength, pixel_size = np.deg2rad(44.76), 1.5498e-10, 55e-6
    experiment = Experiment(
        wavelength=wavelength,
        distance=1.9 * EDGE * pixel_size / wavelength,
        pixel_size=pixel_size,
        detector_shape=(SIZE, SIZE),
        arm=(("y+", two_theta),),
        rocking_angles=np.deg2rad(0.4 / 64) * (np.arange(SIZE) - SIZE // 2),
        centre=(SIZE / 2 + 0.3, SIZE // 2, SIZE // 2),
    )
    crystal = Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j)
    grid = (SIZE,) * 3, experiment.suggest_voxel()
    return Model(experiment, crystal, *grid, polarization={"sigma": 1.0}, dtype=dtype, threads=threads)


@dataclasses.dataclass
class Problem:
    model: Model
    body: np.ndarray
    truth: np.ndarray
    tight: np.ndarray
    step: float  # of the scan, rad

    def data(self, S=None, photons=1e5, noise=3, s_0=None, offsets=None, flux=None):
        """Frames of S: Poisson counts of generator ``noise``, or without noise for None."""
        dq = None if offsets is None else dq_at(self.model.experiment, offsets)[0]
        D = self.model.intensities(self.truth if S is None else S, None, s_0, dq=dq, flux=flux).astype(float)
        D *= photons / D.max()
        return D.astype(np.float32) if noise is None else np.random.default_rng(noise).poisson(D).astype(np.int32)

    def error(self, S):
        return compare(S, self.truth, self.model.voxel).phase_rmse


@pytest.fixture(scope="module")
def problem():
    model = make_model()
    grid = model.shape, model.voxel
    body = phantom.cube(*grid, EDGE, rotation((1, 1, 0.5), 0.6))
    places = np.array([(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2)]) * EDGE
    truth = phantom.crystal_function(body, phantom.bumps(*grid, places, [0.3 * EDGE, 0.25 * EDGE], [1.5, 1.2]))
    return Problem(model, body, truth, body > 0, float(np.diff(model.experiment.rocking_angles).mean()))


@pytest.fixture
def rough(problem, rng):
    """A crystal function without zeros in the support, complex128: |S| has no corner there."""
    shape = problem.model.shape
    S = rng.uniform(0.4, 0.9, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    return np.where(problem.tight, S, 0)


def central(function, h):
    """Central difference at 0, extrapolated once."""
    return (8 * (function(h / 2) - function(-h / 2)) - (function(h) - function(-h))) / (6 * h)


# ---- what is minimised


@pytest.mark.parametrize("likelihood", ("amplitude", "poisson"))
@pytest.mark.parametrize("s_0", ("tied", "support", "free"))
def test_the_objective_is_loss_plus_total_variation_and_its_gradient_is_right(problem, rough, rng, likelihood, s_0):
    model, data = make_model("complex128"), problem.data()
    options = {"likelihood": likelihood, "background": 0.3 if likelihood == "poisson" else 0.0}
    objective = Objective(model, data, atv_weight=0.2, atv_p=1.5, atv_q=1.2, s_0=s_0, **options)
    density = {"tied": None, "support": problem.tight.astype(float), "free": rng.uniform(0.3, 1, model.shape)}[s_0]
    given = density if s_0 == "free" else None
    now = objective.evaluate(rough, problem.tight, s_0=given)
    plain = model.evaluate(rough, data, scale=None, s_0=density, **options).loss
    weight = 0.2 * np.mean(data)
    assert now.loss == pytest.approx(plain + atv(rough, weight, p=1.5, q=1.2, support=problem.tight)[0], rel=1e-12)
    direction = np.where(problem.tight, rng.normal(size=model.shape) + 1j * rng.normal(size=model.shape), 0)
    slope = central(lambda h: objective.evaluate(rough + h * direction, problem.tight, s_0=given).loss, 1e-4)
    assert slope == pytest.approx(np.sum(np.conj(now.adj_S) * direction).real, rel=1e-7)
    if s_0 == "free":
        slope = central(lambda h: objective.evaluate(rough, problem.tight, s_0=given + h * direction.real).loss, 1e-3)
        assert slope == pytest.approx(np.sum(now.adj_s_0 * direction.real), rel=1e-7)


def test_total_variation_smooths_and_its_weight_knows_no_exposure(problem):
    data = problem.data(photons=1e3)
    options = {"epochs": 60, "learning_rate": 0.1, "support": problem.tight, **FIXED}
    results = [reconstruct(problem.model, data, atv_weight=w, free_fraction=0.05, **options) for w in (0, 0.01, 0.1)]
    variation = [atv(r.S, support=problem.tight)[0] for r in results]
    assert variation[0] > 1.15 * variation[1] > 2 * variation[2]
    assert results[0].misfit < results[1].misfit < results[2].misfit
    # a hundredth of the intensity, and the noise is gone before the strain is; a tenth, and the strain goes
    error = [problem.error(r.S) for r in results]
    assert error[1] < 0.9 * error[0] and error[2] > error[0], error
    assert results[1].free_misfit < results[0].free_misfit
    few = options | {"epochs": 2}
    once = reconstruct(problem.model, data, atv_weight=0.1, **few)
    longer = reconstruct(problem.model, 16 * data, atv_weight=0.1, **few)
    # Adam's steps do not know the scale of the loss, and 16 is a power of 4: the square root is exact
    assert np.abs(longer.S - once.S).max() < 1e-5
    assert longer.loss == pytest.approx(16 * once.loss, rel=1e-5)


def test_poisson_likelihood_fits_counts_on_a_background(problem):
    rng = np.random.default_rng(8)
    data = problem.data(photons=2e3) + rng.poisson(0.5, (SIZE,) * 3)
    options = {"epochs": 60, "learning_rate": 0.1, "support": problem.tight, **FIXED}
    amplitude = reconstruct(problem.model, data, **options)
    poisson = reconstruct(problem.model, data, likelihood="poisson", background=0.5, **options)
    assert poisson.background == 0.5 and amplitude.background == 0
    # the background is half of all counts away from the peak; what knows it is nearer to the crystal
    assert problem.error(poisson.S) < 0.8 * problem.error(amplitude.S)
    truth = problem.model.evaluate(problem.truth, data, scale=None, likelihood="poisson", background=0.5)
    assert poisson.loss[-1] < truth.loss  # some 3000 unknowns bend towards the noise of 8000 pixels


def test_an_impossible_count_is_told(problem):
    data = problem.data(noise=None)
    start = np.zeros(problem.model.shape, complex)
    with pytest.raises(ValueError, match="scale: expected computed intensity on good pixels"):
        reconstruct(problem.model, data, None, start, problem.tight, likelihood="poisson", **FIXED)

    class Dark(Model):
        def evaluate(self, *args, **kwargs):
            return super().evaluate(*args, **kwargs)._replace(loss=np.inf)

    model = make_model()
    model.__class__ = Dark
    with pytest.raises(RuntimeError, match="became inf in epoch 1; try a smaller learning_rate or a background > 0"):
        reconstruct(model, data, support=problem.tight, likelihood="poisson", **FIXED)


# ---- held-out pixels


def test_held_out_pixels_tell_overfitting_and_cost_no_pass(problem, monkeypatch):
    data = problem.data(photons=300)
    mask = np.ones((SIZE, SIZE), bool)
    mask[4, 7] = False
    options = {"epochs": 30, "learning_rate": 0.1, "support": problem.tight, **FIXED}
    passes = []
    sweep = Model._sweep
    monkeypatch.setattr(Model, "_sweep", lambda *args: passes.append(1) or sweep(*args))
    plain = reconstruct(problem.model, data, mask, **options)
    count = len(passes)
    held = reconstruct(problem.model, data, mask, free_fraction=0.1, **options)
    assert len(passes) == 2 * count and plain.free_misfit is None and "free_misfit" not in plain.history
    free = Objective(problem.model, data, mask, free_fraction=0.1).free
    assert free.sum() == pytest.approx(0.1 * data.size, rel=0.15) and not free[:, 4, 7].any()
    D = held.scale * problem.model.intensities(held.S)[free]
    misfit = np.sum((np.sqrt(D) - np.sqrt(data[free])) ** 2)
    assert held.free_misfit == pytest.approx(misfit / data[free].sum(), rel=1e-4)  # single precision
    assert held.free_loss == pytest.approx(misfit / free.sum(), rel=1e-4)
    assert held.history["free_misfit"].shape == held.history["free_loss"].shape == (30,)
    assert held.history["free_loss"].min() < 0.9 * held.history["free_loss"][0]
    # the fit has bent towards the noise of the pixels it saw, not towards that of the others
    assert held.free_misfit > 1.5 * held.misfit
    spoiled = np.where(free, 7, data)
    assert reconstruct(problem.model, spoiled, mask, free_fraction=0.1, **options).S.tobytes() == held.S.tobytes()
    other = reconstruct(problem.model, data, mask, free_fraction=0.1, **options | {"seed": 1, "epochs": 1})
    assert other.free_misfit != held.free_misfit


def test_held_out_pixels_rank_supports(problem):
    """A loose support fits noisy data better, and the pixels it has not seen worse: it is the worse crystal."""
    data = problem.data(photons=300)
    options = {"epochs": 30, "learning_rate": 0.1, "free_fraction": 0.05, **FIXED}
    wide = ndimage.binary_dilation(problem.tight, iterations=2)
    tight, loose = (reconstruct(problem.model, data, support=s, **options) for s in (problem.tight, wide))
    assert loose.misfit < 0.9 * tight.misfit and problem.error(loose.S) > problem.error(tight.S)
    assert loose.free_misfit > 1.3 * tight.free_misfit


# ---- density and phase


def test_densities(problem, tmp_path):
    data = problem.data(noise=None)
    options = {"epochs": 12, "learning_rate": 0.2, "shrink_wrap_every": 4, "support": problem.tight, **QUIET}
    tied = reconstruct(problem.model, data, **options)
    assert tied.s_0 is None
    support = reconstruct(problem.model, data, s_0="support", **options)
    assert np.array_equal(support.s_0, support.support) and support.s_0.dtype == np.float32
    free = reconstruct(problem.model, data, s_0="free", amplitude_bound=0.7, **options)
    assert free.s_0.dtype == np.float32 and 0 <= free.s_0.min() and free.s_0.max() <= 0.7
    assert not free.s_0[~free.support].any() and np.abs(free.s_0 - np.abs(free.S))[free.support].max() > 0.1
    for result in (tied, support, free):
        again = problem.model.misfit(result.S, data, s_0=result.s_0)
        assert result.misfit == pytest.approx(again, rel=1e-5)
        store.save_result(tmp_path / "r.cxi", problem.model, data, None, result)
        stored = io.read_result(tmp_path / "r.cxi")
        same = stored.metadata.get("s_0")
        assert same is None if result.s_0 is None else np.array_equal(same, result.s_0)
        curve = result.scale * problem.model.intensities(result.S, None, result.s_0).sum(axis=(1, 2), dtype=float)
        assert np.allclose(stored.rocking_modelled, curve, rtol=1e-5)


def test_only_the_phase_moves(problem):
    data = problem.data(noise=None)
    start = np.abs(problem.truth).astype(np.complex64)
    options = {"epochs": 40, "learning_rate": 0.1, "shrink_wrap_every": 3, "recentre_every": 0, **QUIET}
    result = reconstruct(problem.model, data, None, start, optimise="phase", **options)
    # 200 products with a rounded unit number
    assert np.abs(result.amplitude - np.abs(start)).max() < 1e-5 and np.array_equal(result.support, start != 0)
    assert problem.error(result.S) < 0.03 and result.misfit < 1e-3 * result.history["misfit"][0]
    seen = {}
    first = reconstruct(
        problem.model, data, None, start, phase_only_epochs=5, callback=lambda e, S, h: seen.update({e: S}), **options
    )
    change = [np.abs(np.abs(seen[e]) - np.abs(start)).max() for e in (5, 6)]
    assert change[0] < 1e-6 and change[1] > 1e-2 and np.array_equal(first.loss[:5], result.loss[:5])


# ---- refinement


def test_angle_offsets_turn_the_crystal_as_the_experiment_does(problem, rng):
    model = make_model("complex128")
    experiment = model.experiment
    dq, slope = dq_at(experiment, np.zeros(SIZE))
    scale = np.abs(experiment.dq).max()
    assert np.abs(dq - experiment.dq).max() < 1e-12 * scale
    offsets = rng.uniform(-0.4, 0.4, SIZE) * problem.step
    # all but the frame of dq = 0, which stays where the unmoved angles put it
    moved = experiment.replace(
        rocking_angles=experiment.rocking_angles + offsets, centre=(*experiment.centre[:1], SIZE // 2, SIZE // 2)
    )
    moved._set_centre(experiment.centre, experiment.centre_angle)
    assert np.abs(dq_at(experiment, offsets)[0] - moved.dq).max() < 1e-12 * scale
    h = 1e-4
    difference = (dq_at(experiment, offsets + h)[0] - dq_at(experiment, offsets - h)[0]) / (2 * h)
    assert np.allclose(difference, dq_at(experiment, offsets)[1], rtol=1e-7, atol=1e-7 * np.abs(slope).max())


@pytest.mark.parametrize("likelihood", ("amplitude", "poisson"))
def test_gradient_of_the_angles_is_the_derivative(problem, rough, rng, likelihood):
    model, data = make_model("complex128"), problem.data()
    objective = Objective(model, data, likelihood=likelihood, background=0.3 * (likelihood == "poisson"))
    offsets, direction = rng.uniform(-0.4, 0.4, (2, SIZE)) * problem.step
    frames = np.array([1, 4, 5, 11, 17])

    def loss(h):
        return objective.evaluate(rough, problem.tight, frames, None, offsets + h * direction).loss

    now = objective.evaluate(rough, problem.tight, frames, None, offsets)
    adj_offsets = (now.adj_dq * dq_at(model.experiment, offsets)[1][frames]).sum(axis=1)
    assert central(loss, 1e-3) == pytest.approx(adj_offsets @ direction[frames], rel=1e-7)


def truth_in_gauge(refinement, values):
    values = values.copy()
    refinement.fix(values)
    return values


def test_jitter_of_the_angles_is_recovered(problem, rng):
    jitter = rng.uniform(-0.4, 0.4, SIZE) * problem.step
    data = problem.data(photons=1e6, offsets=jitter)
    options = {"epochs": 250, "batches": 5, "learning_rate": 0.1, "support": problem.tight, **FIXED}
    plain = reconstruct(problem.model, data, **options | {"epochs": 80})
    refined = reconstruct(problem.model, data, refine_angles=True, **options)
    angles = Angles(problem.model.experiment, Objective(problem.model, data).pixels(), 2.0, 0.3)
    expected = truth_in_gauge(angles, jitter) / problem.step
    left = refined.angle_offsets / problem.step - expected
    # 0.20 steps before, 0.016 after; weighted with the frames' counts 0.007
    counts = data.sum(axis=(1, 2))
    assert np.std(left) < 0.2 * np.std(expected) and np.sqrt(counts @ left**2 / counts.sum()) < 0.02
    assert refined.misfit < 0.1 * plain.misfit and problem.error(refined.S) < 0.7 * problem.error(plain.S)
    assert refined.flux is None and plain.angle_offsets is None


def test_flux_of_the_frames_is_recovered(problem, rng, tmp_path):
    flux = rng.uniform(0.9, 1.1, SIZE)
    data = problem.data(photons=1e6, flux=flux)
    options = {"epochs": 120, "batches": 5, "learning_rate": 0.1, "support": problem.tight, **FIXED}
    plain = reconstruct(problem.model, data, **options)
    objective = Objective(problem.model, data)
    expected = truth_in_gauge(Flux(problem.model.experiment, objective.pixels(), objective.likelihood, 0.1), flux)
    for likelihood in ("amplitude", "poisson"):
        refined = reconstruct(problem.model, data, refine_intensities=True, likelihood=likelihood, **options)
        left = refined.flux / expected
        assert refined.misfit < 0.85 * plain.misfit
        # 0.047 before, 0.009 and 0.010 after: photons leave 0.001 to 0.01, the fit is not at its end
        assert np.std(left) < 0.3 * np.std(expected) and refined.flux.mean() == pytest.approx(1)
    store.save_result(tmp_path / "r.cxi", problem.model, data, None, refined)
    stored = io.read_result(tmp_path / "r.cxi")
    assert np.array_equal(stored.metadata["flux"], refined.flux)
    assert np.allclose(stored.rocking_modelled, stored.rocking_measured, rtol=0.05)


def test_what_the_frames_cannot_tell_is_fixed(problem):
    objective = Objective(problem.model, problem.data())
    experiment, pixels = problem.model.experiment, objective.pixels()
    angles, flux = Angles(experiment, pixels, 2.0, 0.3), Flux(experiment, pixels, objective.likelihood, 0.1)
    position = np.arange(SIZE) - 7.0
    assert np.abs(truth_in_gauge(angles, (0.2 + 0.03 * position) * problem.step)).max() < 1e-12 * problem.step
    smooth = 1.3 * np.exp(0.02 * position - 0.003 * position**2 + 1e-5 * position**4)
    assert np.abs(truth_in_gauge(flux, smooth) - 1).max() < 1e-12
    # a frame without counts knows nothing and stays where it is
    data = problem.data()
    data[3:6] = 0
    offsets, empty = np.zeros(SIZE), Angles(experiment, Objective(problem.model, data).pixels(), 2.0, 0.3)
    empty.update(offsets, np.array([4]), np.zeros((1, 3)))
    assert not offsets.any() and empty.share[4] == 0


def test_a_prior_holds_frames_of_few_counts(problem):
    objective = Objective(problem.model, problem.data())
    flux, single = np.ones(SIZE), Flux(problem.model.experiment, objective.pixels(), objective.likelihood, 0.1)
    # sums sqrt(D I), D for I = 1.2^2 D and scale 1: N = D
    single.update(flux, np.array([2, 3]), np.array([[1.2e1, 1.2e6], [1e1, 1e6]]), 1.0)
    assert flux[2] == pytest.approx((112 / 110) ** 2) and flux[3] == pytest.approx(1.2**2, rel=1e-3)
    poisson = Flux(problem.model.experiment, objective.pixels(), Likelihood("poisson"), 0.1)
    flux[:] = 2.0  # sums are taken at this flux
    poisson.update(flux, np.array([2]), np.array([[20.0], [10.0]]), 4.0)
    assert flux[2] == pytest.approx((20 + 100) / (4 * 10 / 2 + 100))


# ---- L-BFGS


def test_variables_of_lbfgs_and_their_adjoint(problem, rough, rng):
    def noise():
        return rng.normal(size=rough.shape)

    adj_S, adj_s_0 = noise() + 1j * noise(), noise()
    for phase_only, free in ((False, False), (False, True), (True, False), (True, True)):
        variables = _Variables(rough, problem.tight, phase_only, free)
        x = variables.start()
        np.testing.assert_allclose(variables.S(x), rough, atol=1e-15)
        assert len(x) == problem.tight.sum() * (1 if phase_only else 2 + free)
        direction = rng.normal(size=len(x))
        x = x + 0.3 * rng.normal(size=len(x))  # some amplitudes are negative now

        def linear(h, variables=variables, x=x, direction=direction, free=free):
            S, s_0 = (f(x + h * direction) for f in (variables.S, variables.s_0))
            return np.sum(np.conj(adj_S) * S).real + (np.sum(adj_s_0 * s_0) if free else 0)

        assert central(linear, 1e-3) == pytest.approx(variables.adjoint(x, adj_S, adj_s_0) @ direction, rel=1e-7)
        low, high = variables.bounds(0.8)
        assert len(low) == len(high) == len(x) and (variables.bounds(None)[1] == np.inf).all()


@pytest.mark.parametrize("s_0", ("tied", "support", "free"))
def test_lbfgs_falls_and_keeps_the_bound(problem, s_0):
    data = problem.data(noise=None)
    options = {"support": problem.tight, "iterations": 40, "s_0": s_0, **QUIET}
    result = lbfgs(problem.model, data, **options)
    assert result.epochs == len(result.loss) == 40 and (np.diff(result.loss) < 0).all()
    assert result.misfit < 1e-3 * reconstruct(problem.model, data, support=problem.tight, epochs=1, **FIXED).misfit
    assert result.misfit == pytest.approx(result.history["misfit"][-1], rel=1e-3)
    tight = lbfgs(problem.model, data, amplitude_bound=0.4, **options)
    assert tight.amplitude.max() <= 0.4 * (1 + 3e-7) and (tight.amplitude > 0.399).sum() > 10
    assert not result.S[~problem.tight].any() and same_bits(result, lbfgs(problem.model, data, **options))
    assert (result.s_0 is None) == (s_0 == "tied")
    if s_0 == "free":
        assert 0 <= tight.s_0.min() and tight.s_0.max() <= 0.4 * (1 + 3e-7)


def same_bits(a, b):
    return a.S.tobytes() == b.S.tobytes() and all(np.array_equal(a.history[k], b.history[k]) for k in a.history)


def test_lbfgs_polishes_and_keeps_what_it_is_given(problem, rng):
    flux = rng.uniform(0.9, 1.1, SIZE)
    data = problem.data(flux=flux)
    start = reconstruct(problem.model, data, support=problem.tight, epochs=20, **FIXED).S
    given = {"start": start, "support": problem.tight, "iterations": 20, **QUIET}
    plain = lbfgs(problem.model, data, **given)
    known = lbfgs(problem.model, data, flux=flux, free_fraction=0.05, **given)
    assert known.misfit < 0.9 * plain.misfit and np.array_equal(known.flux, flux)
    assert set(known.history) == {"loss", "misfit", "scale", "support", "free_misfit", "free_loss"}
    counts = lbfgs(problem.model, data, likelihood="poisson", background=0.01, atv_weight=1e-3, **given)
    assert (np.diff(counts.loss) < 0).all()
    phase = lbfgs(problem.model, data, optimise="phase", s_0="free", **given)
    assert np.abs(phase.amplitude - np.abs(start)).max() < 1e-6 and phase.misfit < phase.history["misfit"][0]


def test_lbfgs_can_be_ended_and_shows_its_progress(problem, capsys):
    data = problem.data()
    seen = []
    result = lbfgs(
        problem.model, data, support=problem.tight, callback=lambda n, S, h: seen.append((n, len(h["loss"]))) or n == 3
    )
    assert seen == [(1, 1), (2, 2), (3, 3)] and result.epochs == 3
    assert result.misfit == pytest.approx(result.history["misfit"][-1], rel=1e-5)
    lbfgs(problem.model, data, support=problem.tight, iterations=2)
    assert "lbfgs: iteration 2/2 loss=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"likelihood": "gauss"}, ValueError, "likelihood: expected one of 'amplitude', 'poisson'"),
        ({"background": 1.0}, ValueError, "background: expected 0 with likelihood='amplitude', got 1"),
        ({"s_0": "S"}, ValueError, "s_0: expected one of 'tied', 'support', 'free', got 'S'"),
        ({"optimise": "amplitude"}, ValueError, "optimise: expected one of 'S', 'phase', got 'amplitude'"),
        ({"atv_weight": -1}, ValueError, "atv_weight: expected a finite number >= 0, got -1"),
        ({"atv_p": 0.5}, ValueError, "atv_p: expected a finite number >= 1, got 0.5"),
        ({"atv_q": 0}, ValueError, "atv_q: expected a finite number > 0, got 0"),
        ({"free_fraction": 1}, ValueError, "free_fraction: expected a finite number >= 0 and < 1, got 1"),
        ({"amplitude_bound": 0}, ValueError, "amplitude_bound: expected"),
    ],
)
def test_bad_arguments_are_named_by_both(problem, changes, error, message):
    for fit in (reconstruct, lbfgs):
        with pytest.raises(error, match=message):
            fit(problem.model, problem.data(), support=problem.tight, **changes)


@pytest.mark.parametrize(
    ("fit", "changes", "message"),
    [
        (reconstruct, {"phase_only_epochs": -1}, "phase_only_epochs: expected an integer >= 0"),
        (reconstruct, {"angle_spread": 0}, "angle_spread: expected a finite number > 0"),
        (reconstruct, {"intensity_spread": -1}, "intensity_spread: expected a finite number > 0"),
        (reconstruct, {"refine_after": -1}, "refine_after: expected an integer >= 0"),
        (lbfgs, {"iterations": 0}, "iterations: expected an integer >= 1"),
        (lbfgs, {"memory": 0}, "memory: expected an integer >= 1"),
        (lbfgs, {"flux": np.ones(3)}, r"flux: expected shape \(n_frames,\)"),
        (lbfgs, {"angle_offsets": np.ones(3)}, r"angle_offsets: expected shape \(n_frames,\)"),
        (lbfgs, {"start": np.full((SIZE,) * 3, 1e-30)}, "finite|scale"),
    ],
)
def test_bad_arguments_are_named(problem, fit, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(problem.model, problem.data(), support=problem.tight, **changes)


@pytest.mark.parametrize(("what", "least"), (("refine_angles", 4), ("refine_intensities", 8)))
def test_too_few_frames_to_refine(problem, what, least):
    experiment = problem.model.experiment.crop(frames=slice(9, 12))
    model = Model(experiment, problem.model.crystal, problem.model.shape, problem.model.voxel)
    with pytest.raises(ValueError, match=f"{what}: expected at least {least} frames, got 3"):
        reconstruct(model, problem.data()[9:12], support=problem.tight, **{what: True}, **FIXED)
