"""pendel.cdtools: a rocking scan in CDTools' own loops and files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pendel
import pytest
from cube import make_model, strained
from pendel import io


def test_without_the_package_an_error_says_how_to_install_it():
    code = "import sys; sys.modules['cdtools'] = None; import pendel; pendel.cdtools"
    path = os.pathsep.join([str(Path(pendel.__file__).parents[1]), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "ImportError: pendel.cdtools: expected CDTools to be installed; pip install 'pendel[cdtools]'" in ran.stderr


@pytest.fixture
def adapter():
    pytest.importorskip("cdtools", exc_type=ImportError)
    from pendel import cdtools

    return cdtools


@pytest.fixture(scope="module")
def problem():
    """(model, S, frames) of a strained gold cube, strongly dynamical."""
    model = make_model(threads=1)
    truth = strained(model, [(0.3, 0.2, -0.25)], [0.3], [0.8])[1]
    data = model.intensities(truth)
    return model, truth, np.round(data * (1e5 / data.max())).astype(np.float32)


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("loss", ["amplitude mse", "poisson nll"])
def test_its_adam_finds_the_crystal(adapter, problem, loss, thread):
    torch = pytest.importorskip("torch")
    model, truth, data = problem
    torch.manual_seed(0)
    dataset = adapter.RockingDataset(data, model.experiment)
    fit = adapter.DynamicalBragg.from_dataset(
        dataset, model.crystal, model.shape, support=np.abs(truth) > 0.1, loss=loss,
        model_options={"threads": 1, "polarization": {"sigma": 1.0}}
    )  # fmt: skip
    before = pendel.compare(fit.crystal(), truth, model.voxel, np.abs(truth) > 0.9)
    losses = list(fit.Adam_optimize(30, dataset, lr=0.05, batch_size=5, calculation_width=5, thread=thread))
    assert len(losses) == 30 and losses[-1] < (0.2 * losses[0] if loss == "amplitude mse" else losses[0])
    found = pendel.compare(fit.crystal(), truth, model.voxel, np.abs(truth) > 0.9)
    assert found.phase_rmse < 0.5 * before.phase_rmse
    assert fit.epoch == 30 and "with loss" in fit.report()


def test_its_loss_has_pendel_s_gradient(adapter, problem):
    """To the factor that the normalisation is: dL of sum (sqrt D - sqrt I)^2."""
    torch = pytest.importorskip("torch")
    model, truth, data = problem
    mask = np.ones(data.shape[1:], bool)
    mask[5, 7] = False
    data = data.copy()
    data[:, 5, 7] = 1e9
    scale = 2e4
    fit = adapter.DynamicalBragg(model, 0.9 * truth, np.abs(truth) > 0.1, scale, mask)
    sums = fit.loss(torch.tensor(data), fit.forward(torch.arange(20)), mask=fit.mask)
    sums.backward()
    _, expected = model.loss_and_adjoint(np.where(np.abs(truth) > 0.1, 0.9 * truth, 0), data, mask, scale=scale)
    inside = np.abs(truth) > 0.1
    expected, got = expected[inside], fit.obj.grad.numpy()[inside]
    factor = np.vdot(expected, got).real / np.vdot(expected, expected).real
    assert factor > 0 and np.abs(got - factor * expected).max() < 1e-5 * np.abs(got).max()  # single precision


def test_the_scale_is_the_closest_one_and_can_be_fitted(adapter, problem):
    model, truth, data = problem
    dataset = adapter.RockingDataset(data, model.experiment)
    options = {"model_options": {"threads": 1, "polarization": {"sigma": 1.0}}, "obj_guess": truth}
    fit = adapter.DynamicalBragg.from_dataset(dataset, model.crystal, model.shape, **options)
    expected = data.max() / model.intensities(truth).max()
    assert float(fit.log_scale.detach().exp()) == pytest.approx(expected, rel=1e-3)  # counts are rounded
    assert not fit.log_scale.requires_grad
    fitted = adapter.DynamicalBragg(model, truth, scale=expected / 2, fit_scale=True)
    list(fitted.Adam_optimize(40, dataset, lr=0.02, batch_size=20, thread=False, lr_factors={"obj": 0.0}))
    assert float(fitted.log_scale.detach().exp()) == pytest.approx(expected, rel=0.05)
    simulated = fit.simulate_to_dataset()
    assert simulated.patterns.numpy() == pytest.approx(data, abs=2, rel=2e-3)
    some = fit.simulate_to_dataset(([3, 4, 5],))
    assert len(some) == 3 and some.experiment.dq == pytest.approx(model.experiment.dq[3:6])
    assert some.patterns.numpy() == pytest.approx(simulated.patterns.numpy()[3:6], rel=1e-4, abs=1e-3)


def test_its_files_and_pictures(adapter, problem, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    model, truth, data = problem
    fit = adapter.DynamicalBragg(model, truth, np.abs(truth) > 0.1, 3e4, loss="poisson nll")
    dataset = adapter.RockingDataset(data, model.experiment, name="gold")
    list(fit.Adam_optimize(2, dataset, lr=0.01, batch_size=10, thread=False))
    fit.save_to_h5(str(tmp_path / "r.h5"))
    again = adapter.DynamicalBragg.from_results_h5(str(tmp_path / "r.h5"), model)
    assert np.array_equal(again.crystal(), fit.crystal()) and again.epoch == 2
    assert float(again.log_scale) == float(fit.log_scale) and again.loss is fit.loss
    dataset.to_cxi(tmp_path / "scan.cxi")
    read = adapter.RockingDataset.from_cxi(tmp_path / "scan.cxi")
    assert np.array_equal(read.patterns, dataset.patterns) and read.name == "gold"
    assert read.experiment.dq == pytest.approx(model.experiment.dq, rel=1e-9, abs=1)
    assert read.wavelength == pytest.approx(model.experiment.wavelength)
    fit.inspect(dataset)
    dataset.inspect()
    assert len(pyplot.get_fignums()) == 7
    pyplot.close("all")


def test_a_scan_without_its_geometry_is_refused(adapter, problem):
    model, _, data = problem
    scan = io.Scan(data, np.ones(data.shape[1:], bool), energy=model.experiment.energy, distance=1.0)
    with pytest.raises(
        TypeError, match="pixel_size, rocking_axis, arm, rocking_angles: expected in the scan or beside"
    ):
        adapter.RockingDataset.from_scan(scan)
    assert len(adapter.RockingDataset.from_scan(scan, model.experiment)) == 20


def test_bad_arguments_are_named(adapter, problem):
    model, truth, data = problem
    with pytest.raises(TypeError, match="experiment: expected a pendel.Experiment"):
        adapter.RockingDataset(data, None)
    with pytest.raises(ValueError, match=r"patterns: expected shape \(n_frames, rows, cols\) = \(20, 20, 20\)"):
        adapter.RockingDataset(data[1:], model.experiment)
    with pytest.raises(ValueError, match="patterns: expected intensities >= 0 on good pixels"):
        adapter.RockingDataset(data - 1, model.experiment)
    mask = np.ones(data.shape, bool)
    mask[3, 4, 5] = False
    with pytest.raises(ValueError, match="mask: expected one .rows, cols. for all frames"):
        adapter.RockingDataset(data, model.experiment, mask=mask)
    assert adapter.RockingDataset(data, model.experiment, mask=mask[:1].repeat(20, 0)).mask.shape == (20, 20)
    with pytest.raises(TypeError, match="model: expected a pendel.Model"):
        adapter.DynamicalBragg(None, truth)
    with pytest.raises(ValueError, match="obj_guess: expected shape"):
        adapter.DynamicalBragg(model, truth[1:])
    with pytest.raises(ValueError, match="loss: expected one of 'amplitude mse'"):
        adapter.DynamicalBragg(model, truth, loss="nll")
    dataset = adapter.RockingDataset(data, model.experiment)
    with pytest.raises(ValueError, match="scale: expected light in the dataset and of the crystal"):
        adapter.DynamicalBragg.from_dataset(dataset, model.crystal, model.shape, obj_guess=0 * truth)
