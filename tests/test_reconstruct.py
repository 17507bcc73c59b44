"""The reconstruction loop on a strongly dynamical crystal small enough for seconds."""

import dataclasses

import h5py
import numpy as np
import pytest
from cube import QUIET, SIZE, bright_frames, make_model, make_problem, with_loss
from pendel import Model, compare, reconstruct
from pendel.fit import checkpoint_file
from pendel.fit.checkpoint import checkpoint_shape
from pendel.fit.checkpoint_file import checksum
from pendel.fit.steps import Steps
from pendel.kinematic.support import box_support
from scipy import ndimage


def model_of(threads=1, **options):
    """The gold cube, the rocking maximum on the middle frame."""
    return make_model(threads=threads, off=0.0, **options)


@dataclasses.dataclass
class Problem:
    model: Model
    truth: np.ndarray
    data: np.ndarray
    tight: np.ndarray  # support: voxels with anything in them


@pytest.fixture(scope="module")
def problem():
    cube = make_problem(model_of())
    return Problem(cube.model, cube.truth, bright_frames(cube.model, cube.truth), cube.tight)


@pytest.fixture(scope="module")
def fitted(problem):
    return reconstruct(
        problem.model, problem.data, support=problem.tight, epochs=300, learning_rate=0.3, shrink_wrap_every=0, **QUIET
    )


def run(problem, **changes):
    given = {"support": problem.tight, "epochs": 6, "shrink_wrap_every": 2, **QUIET} | changes
    return reconstruct(
        changes.pop("model", problem.model), problem.data, **{k: given[k] for k in given if k != "model"}
    )


def test_a_flat_start_in_a_tight_support_arrives(problem, fitted):
    error = compare(fitted.S, problem.truth, problem.model.voxel)
    # noiseless data of the same model: only the number of steps limits the fit. Kinematic phasing is off by 0.4 rad.
    assert error.phase_rmse < 0.025, error
    assert fitted.misfit < 2e-5 and fitted.misfit == pytest.approx(
        problem.model.misfit(fitted.S, problem.data),
        rel=1e-5,  # single precision, other block order
    )
    # scale and amplitude trade along a valley that only absorption and refraction close
    assert fitted.scale == pytest.approx(1e6 / problem.model.intensities(problem.truth).max(), rel=0.03)
    assert fitted.loss.shape == (300,) and fitted.loss[-1] < 1e-3 * fitted.loss[0] and fitted.epochs == 300
    assert not fitted.S[~fitted.support].any() and np.array_equal(fitted.support, problem.tight)


def test_displacement_and_strain_follow_from_the_phase(problem, fitted):
    h = problem.model.experiment.frame @ problem.model.experiment.h
    assert np.array_equal(fitted.h, h)
    core = ndimage.binary_erosion(problem.tight)
    exact = dataclasses.replace(fitted, S=problem.truth, support=problem.tight)
    S = exact.S[problem.tight]
    mean = np.angle(S.sum())
    # 1e-5: single precision angles
    assert np.allclose(np.exp(1j * (exact.phase[problem.tight] + mean)), S / np.abs(S), atol=1e-5)
    assert np.allclose(exact.displacement, -exact.phase / np.linalg.norm(h), rtol=1e-6)
    z, y, x = np.gradient(exact.displacement, *problem.model.voxel)
    direct = (h[0] * x + h[1] * y + h[2] * z) / np.linalg.norm(h)
    # central differences of a phase that does not wrap: single precision angles of 1e-7 rad over 76 nm and |h| = 3e10/m
    assert np.abs(exact.strain - direct)[core].max() < 1e-7 / (76e-9 * 3e10) < 1e-3 * np.abs(direct[core]).max()
    assert not exact.strain[~problem.tight].any() and not exact.phase[~problem.tight].any()


@pytest.mark.parametrize("bound", [0.6, 1.0])
def test_amplitude_stays_below_its_bound(problem, bound):
    seen = []
    result = run(
        problem, amplitude_bound=bound, learning_rate=0.5, callback=lambda e, S, h: seen.append(np.abs(S).max())
    )
    # division and product round once each in single precision
    assert max(seen) <= bound * (1 + 3e-7) and max(seen) > 0.99 * bound and result.amplitude.max() <= bound * (1 + 3e-7)


def test_without_a_bound_the_amplitude_may_grow(problem):
    result = run(problem, amplitude_bound=None, learning_rate=0.5)
    assert result.amplitude.max() > 1.2


def test_an_unknown_intensity_scale_does_not_matter(problem):
    result = run(problem, epochs=3)
    data = (3.6 * problem.data.astype(np.float64)).astype(np.float32)
    scaled = reconstruct(problem.model, data, support=problem.tight, epochs=3, shrink_wrap_every=2, **QUIET)
    # Adam's steps do not know the scale of the loss; rounding of the data (6e-8) grows over 15 steps
    assert np.abs(scaled.S - result.S).max() < 2e-3
    assert scaled.scale == pytest.approx(3.6 * result.scale, rel=1e-3)
    assert scaled.misfit == pytest.approx(result.misfit, rel=1e-2)


def same(a, b):
    return (
        a.S.tobytes() == b.S.tobytes()
        and np.array_equal(a.support, b.support)
        and a.history.keys() == b.history.keys()
        and all(np.array_equal(a.history[k], b.history[k]) for k in a.history)
        and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("s_0", "angle_offsets", "flux", "free_misfit"))
    )


@pytest.mark.parametrize("schedule", ["cosine", "plateau", [(0, 0.2), (4, 0.05)]], ids=["cosine", "plateau", "list"])
def test_a_resumed_run_ends_in_the_same_bits(problem, tmp_path, schedule):
    path = tmp_path / "run.h5"
    options = {"epochs": 9, "schedule": schedule, "patience": 2, "learning_rate": 0.4, "checkpoint": path}
    whole = run(problem, **options | {"checkpoint": None})
    stopped = run(problem, **options, checkpoint_every=5, callback=lambda epoch, S, history: epoch == 7)
    assert stopped.epochs == 7 and checkpoint_shape(path) == problem.model.shape
    with h5py.File(path) as file:
        assert file.attrs["epoch"] == 5  # the last one written; two epochs are done again
    # support and start are those of the checkpoint, whatever is given
    resumed = run(problem, **options, support=None, resume=True)
    assert same(resumed, whole) and resumed.epochs == 9 and resumed.misfit == whole.misfit


@pytest.mark.parametrize("epoch", [3, 7], ids=["phase only", "refining"])
def test_a_resumed_run_keeps_all_that_it_had(problem, tmp_path, epoch):
    path = tmp_path / "run.h5"
    options = {
        "epochs": 10, "batches": 4, "learning_rate": 0.3, "likelihood": "poisson", "background": 0.5, "s_0": "free",
        "phase_only_epochs": 4, "atv_weight": 0.01, "free_fraction": 0.1, "refine_angles": True,
        "refine_intensities": True, "refine_after": 5, "recentre_every": 3,
    }  # fmt: skip
    whole = run(problem, **options)
    assert np.abs(whole.angle_offsets).max() > 0 and np.abs(whole.flux - 1).max() > 0 and (whole.s_0 != 0).any()
    run(problem, **options, checkpoint=path, checkpoint_every=epoch, callback=lambda e, S, history: e == epoch)
    resumed = run(problem, **options, support=None, checkpoint=path, resume=True)
    assert same(resumed, whole) and resumed.misfit == whole.misfit and resumed.free_loss == whole.free_loss
    assert same(whole, run(problem, **options, model=model_of(threads=2)))
    for name, value, text in (
        ("s_0", "tied", "'free'"),
        ("free_fraction", 0.2, "0.1"),
        ("likelihood", "amplitude", "'poisson'"),
        ("refine_angles", False, "True"),
        ("refine_intensities", False, "True"),
    ):
        changed = options | {name: value} | ({"background": 0.0} if value == "amplitude" else {})
        with pytest.raises(ValueError, match=f"{name}: expected {text}, that of the checkpoint .*, got {value!r}"):
            run(problem, **changed, checkpoint=path, resume=True)


def test_a_checkpoint_of_an_older_version_is_refused(problem, tmp_path):
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file.attrs["pendel_checkpoint"] = 1
    with pytest.raises(ValueError, match="checkpoint: .*run.h5: one of an older version of pendel"):
        run(problem, epochs=4, checkpoint=path, resume=True)


def test_a_checkpoint_of_another_version_is_refused_with_both_named(problem, tmp_path, monkeypatch):
    """Another version has other bits, and what goes on from one says nothing of it."""
    path, refusal = tmp_path / "run.h5", "run.h5: one of pendel 0.0.1, and this is pendel .*; begin without resuming"
    monkeypatch.setattr(checkpoint_file, "__version__", "0.0.1")
    run(problem, epochs=4, checkpoint=path)
    steps = Steps(tmp_path / "steps.h5")
    steps.once("one", lambda _: {"a": 1.0})
    assert run(problem, epochs=4, checkpoint=path, resume=True).epochs == 4
    monkeypatch.undo()
    with pytest.raises(ValueError, match=refusal):
        run(problem, epochs=4, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match=refusal):
        checkpoint_shape(path)
    with pytest.raises(ValueError, match="steps.h5: one of pendel 0.0.1"):
        Steps(tmp_path / "steps.h5", resume=True)
    with h5py.File(path, "a") as file:
        del file.attrs[checkpoint_file.VERSION]
    with pytest.raises(ValueError, match="run.h5: one of pendel of an unknown version, and this is"):
        run(problem, epochs=4, checkpoint=path, resume=True)
    assert run(problem, epochs=1, checkpoint=path).epochs == 1  # a new one takes its place


def test_seed_and_threads(problem):
    first = run(problem, learning_rate=0.3)
    assert same(first, run(problem, learning_rate=0.3))
    assert same(first, run(problem, learning_rate=0.3, model=model_of(threads=2)))
    assert not same(first, run(problem, learning_rate=0.3, seed=1))


def test_a_mask_hides_bad_pixels(problem):
    data = problem.data.copy()
    mask = np.ones(data.shape[1:], bool)
    mask[3:5, 7] = False
    data[:, ~mask] = np.nan
    masked = reconstruct(problem.model, data, mask, support=problem.tight, epochs=3, **QUIET)
    assert np.isfinite(masked.S).all() and np.isfinite(masked.misfit)
    with pytest.raises(ValueError, match="data: "):
        reconstruct(problem.model, data, support=problem.tight, epochs=3, **QUIET)


def test_schedules(problem):
    def rates(schedule, epochs=8, **more):
        return run(problem, schedule=schedule, learning_rate=0.2, epochs=epochs, **more).history["learning_rate"]

    assert np.array_equal(rates("constant"), np.full(8, 0.2))
    cosine = rates("cosine")
    assert cosine[0] == 0.2 and cosine[4] == pytest.approx(0.2 * 0.505) and (np.diff(cosine) < 0).all()
    assert np.array_equal(rates([(2, 0.1), (5, 0.05)]), [0.2] * 2 + [0.1] * 3 + [0.05] * 3)
    # at this rate the loss soon stops to fall; then the rate halves every second epoch at the soonest, down to 1/32
    plateau = rates([(0, 0.2)]), rates("plateau", 40, patience=1)
    steps = plateau[1][1:] / plateau[1][:-1]
    assert set(steps) == {1.0, 0.5} and plateau[1][-1] >= 0.2 / 32


def test_the_support_shrinks_and_the_crystal_stays_in_the_middle(problem):
    model = problem.model
    wide = box_support(model.shape, model.voxel, [0.95 * n * v for n, v in zip(model.shape, model.voxel, strict=True)])
    start = np.roll(np.where(problem.tight, problem.truth, 0), 2, axis=2)
    result = reconstruct(model, problem.data, None, start, wide, epochs=30, learning_rate=0.05, **QUIET)
    sizes = result.history["support"]
    # a shrunk support has a blurred edge: a voxel around the crystal, half the box of the start
    assert sizes[0] == wide.sum() and sizes[-1] < 0.5 * sizes[0] and sizes[-1] >= 0.9 * problem.tight.sum()
    middle = ndimage.center_of_mass(result.amplitude)
    wanted = ndimage.center_of_mass(np.abs(problem.truth))
    assert np.abs(np.subtract(middle, np.array(model.shape) // 2)).max() < 1, (middle, wanted)


def test_the_support_is_blurred_along_each_axis_as_asked(problem):
    one, three, other = (run(problem, shrink_wrap_sigma=sigma) for sigma in (1.0, (1, 1, 1), [1, 1, 2]))
    assert np.array_equal(one.support, three.support) and not np.array_equal(one.support, other.support)


def test_progress_is_lines_in_a_log(problem, capsys):
    run(problem, epochs=2, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("reconstruct: epoch 2/2 loss=") and err.count("\n") == 1 and "misfit=" in err
    run(problem, epochs=2, progress="trial")
    assert capsys.readouterr().err.startswith("trial: epoch 2/2")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected .* >= 1, got 0"),
        ({"epochs": 2.5}, TypeError, "epochs: expected an integer"),
        ({"batches": 0}, ValueError, "batches: "),
        ({"learning_rate": 0}, ValueError, "learning_rate: expected .* > 0, got 0"),
        ({"schedule": "linear"}, ValueError, "schedule: expected .*'cosine'"),
        ({"schedule": [(0, -1)]}, ValueError, r"schedule: expected 'cosine'.* pairs, got \[\(0, -1\)\]"),
        ({"schedule": 3}, TypeError, "schedule: expected 'cosine'.* pairs, got 3"),
        ({"amplitude_bound": -1}, ValueError, "amplitude_bound: "),
        ({"shrink_wrap_every": -1}, ValueError, "shrink_wrap_every: "),
        ({"shrink_wrap_sigma": -1}, ValueError, "shrink_wrap_sigma: expected .* >= 0, got -1"),
        ({"shrink_wrap_sigma": (1, -1, 1)}, ValueError, r"shrink_wrap_sigma\[1\]: expected .* >= 0, got -1"),
        ({"shrink_wrap_sigma": (1, 2)}, ValueError, "shrink_wrap_sigma: expected a number or 3 of them, got 2"),
        ({"seed": -1}, ValueError, "seed: "),
        ({"resume": True}, ValueError, "resume: expected a checkpoint path"),
        ({"support": np.zeros((SIZE,) * 3, bool)}, ValueError, "support: expected at least one voxel inside, got none"),
        ({"support": np.ones((SIZE, SIZE, 3), bool)}, ValueError, r"support: expected shape \(nz, ny, nx\)"),
        ({"start": np.ones((SIZE, SIZE, 3))}, ValueError, r"start: expected shape \(nz, ny, nx\)"),
        ({"start": np.full((SIZE,) * 3, np.nan)}, ValueError, "start: expected finite values"),
    ],
)
def test_bad_arguments_are_named(problem, changes, error, message):
    with pytest.raises(error, match=message):
        run(problem, **changes)


def test_bad_checkpoints_are_named(problem, tmp_path):
    path = tmp_path / "run.h5"
    run(problem, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="seed: expected 0, that of the checkpoint .*, got 3"):
        run(problem, checkpoint=path, resume=True, seed=3)
    with pytest.raises(ValueError, match="checkpoint: expected shape .* and dtype complex128, got .* and complex64"):
        run(problem, checkpoint=path, resume=True, model=model_of(dtype="complex128"))
    path.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="checkpoint: expected a checkpoint of pendel.reconstruct, got"):
        run(problem, checkpoint=path, resume=True)
    with h5py.File(path, "w") as file:
        file["S"] = np.zeros(3)
    with pytest.raises(ValueError, match="checkpoint: expected .* no checkpoint in it"):
        checkpoint_shape(path)


@pytest.mark.parametrize("name", ["support", "s_0", "flux", "angle_offsets"])
def test_arrays_of_a_checkpoint_are_checked_before_a_sweep(problem, tmp_path, name):
    options = {"s_0": "free", "refine_angles": True, "refine_intensities": True, "refine_after": 0}
    path = tmp_path / "run.h5"
    run(problem, epochs=1, checkpoint=path, **options)
    with h5py.File(path, "r+") as file:
        stored = file[name][()]
        del file[name]
        file[name] = stored[1:]
    with pytest.raises(ValueError, match="checkpoint: .*run.h5: a damaged one"):
        run(problem, checkpoint=path, resume=True, **options | {"epochs": 1})
    with h5py.File(path, "r+") as file:  # whoever made it knows of checksums
        file.attrs["checksum"] = checksum(file)
    with pytest.raises(ValueError, match=rf"checkpoint \({name}\): expected shape .*, got"):
        run(problem, checkpoint=path, resume=True, **options | {"epochs": 1})


def test_a_run_that_blows_up_says_so(problem):
    broken = with_loss(model_of(), np.nan)
    with pytest.raises(RuntimeError, match="the loss became nan in epoch 1; try a smaller learning_rate"):
        run(problem, model=broken)
