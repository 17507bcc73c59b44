"""Results of PyNX on the model's grid and back, and modes: files as it writes them, and by its own classes."""

from pathlib import Path

import h5py
import numpy as np
import pendel
import pytest
from cube import make_model, strained
from pendel import compare, io, kinematic, pynx
from scipy import ndimage


def likeness(one, other):
    """1 where two patterns of amplitudes are the same, whatever their scale."""
    return (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)


def pattern(obj):
    return np.abs(np.fft.fftshift(np.fft.fftn(obj)))


@pytest.fixture(scope="module")
def problem():
    """(model, S, frames) of a strained cube that scatters all but kinematically: of a tenth of gold's coupling."""
    gold = make_model(threads=1, off=0.0)
    weak = pendel.Crystal(gold.crystal.chi_0 / 10, gold.crystal.chi_h / 10)
    model = pendel.Model(gold.experiment, weak, gold.shape, gold.voxel, threads=1)
    truth = strained(model, [(0.3, 0.2, -0.25)], [0.3], [0.8])[1]
    data = model.intensities(truth)
    return model, truth, np.round(data * (1e6 / data.max())).astype(np.float32)


@pytest.fixture(scope="module")
def phased(problem):
    return kinematic.phase(problem[2], iterations=200, workers=1)


def moved(phased, shift):
    """The object of the frames rolled by ``shift``."""
    n = [np.arange(m) - m // 2 for m in phased.object.shape]
    return phased.object * np.exp(
        2j * np.pi * sum(s * a / a.size for s, a in zip(shift, np.ix_(*n), strict=True))
    ).astype(np.complex64)


def save(path, obj, support, crop=2, modes=None):
    """As `save_obj_cxi` leaves them; with weights of ``modes`` as `pynx-cdi-analysis` does, without the support."""
    reach = [np.nonzero(np.moveaxis(support, a, 0).any(axis=(1, 2)))[0].take([0, -1]) for a in range(3)]
    box = tuple(slice(max(a - crop, 0), b + crop) for a, b in reach)
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        file["entry_last"] = h5py.SoftLink("/entry_1")
        cut = obj[box] if modes is None else np.stack([obj[box], 0.1 * obj[box][::-1]])[: len(modes)]
        entry["image_1/data"] = cut
        entry["image_1/data_space"] = "real"
        if modes is None:
            entry["image_1/mask"] = support[box].astype(np.int8)
            entry["image_1/support"] = h5py.SoftLink("/entry_1/image_1/mask")
        else:
            entry["data_2/data"] = modes
        process = "process_1" if modes is None else "process_2"
        entry[f"image_1/{process}/configuration/iobs_shape"] = obj.shape
        entry.create_group("data_1")["data"] = h5py.SoftLink("/entry_1/image_1/data")


def test_a_cropped_object_of_a_moved_pattern_is_the_one_of_the_frames(problem, phased, tmp_path):
    model, _, data = problem
    save(tmp_path / "run.cxi", moved(phased, (1, -2, 3)), phased.support)
    found = pynx.read_results(tmp_path / "run.cxi", model.experiment, data)
    assert found.object.shape == phased.object.shape and found.chi == pytest.approx(phased.chi, rel=0.01)
    own, theirs = (kinematic.to_model_grid(p, model.experiment, model.shape, model.voxel) for p in (phased, found))
    inside = ndimage.binary_erosion(own != 0)
    assert compare(theirs, own, model.voxel, inside).phase_rmse < 1e-3
    untold = pynx.read_results(tmp_path / "run.cxi", model.experiment)
    assert (
        np.isnan(untold.chi) and likeness(pattern(untold.object), np.roll(np.sqrt(data), (1, -2, 3), (0, 1, 2))) > 0.99
    )


def test_modes_are_read_and_the_first_is_the_start(problem, phased, tmp_path):
    model, _, data = problem
    save(tmp_path / "modes.h5", phased.object, phased.support, modes=[0.9, 0.1])
    modes, weights = pynx.read_modes(tmp_path / "modes.h5")
    assert modes.shape[0] == 2 and weights.tolist() == [0.9, 0.1]
    found = pynx.read_results(tmp_path / "modes.h5", model.experiment, data)
    assert found.object.shape == phased.object.shape and found.chi < 1.01 * phased.chi
    second = pynx.read_results(tmp_path / "modes.h5", model.experiment, mode=1)
    assert np.abs(second.object).max() == pytest.approx(0.1 * np.abs(phased.object).max())
    with pytest.raises(ValueError, match="mode: expected .* <= 1, got 2"):
        pynx.read_results(tmp_path / "modes.h5", model.experiment, mode=2)


@pytest.mark.parametrize("modes", [False, True])
def test_the_way_back_meets_what_was_phased(problem, phased, tmp_path, modes):
    model, _, data = problem
    save(tmp_path / "run.cxi", moved(phased, (1, -2, 3)), phased.support)
    S = kinematic.to_model_grid(phased, model.experiment, model.shape, model.voxel)
    crystal = io.StoredResult(S, S != 0, model.voxel, name="gold")
    path = tmp_path / ("new.h5" if modes else "new.cxi")
    pynx.write_results(path, crystal, model.experiment, like=tmp_path / "run.cxi", modes=modes)
    with h5py.File(path) as file:
        obj, support = file["entry_1/data_1/data"][()], file["entry_last/image_1/mask"][()]
        assert ("data_2" in file["entry_1"]) == modes and obj.dtype == np.complex64 and support.dtype == np.int8
        assert file["entry_1/image_1/instrument_1/detector_1/distance"][()] == model.experiment.distance
        assert file["entry_1/sample_1/name"][()] == b"gold"
    obj = obj[0] if modes else obj
    assert obj.shape == phased.object.shape and not obj[support == 0].any()
    assert likeness(pattern(obj), np.roll(np.sqrt(data), (1, -2, 3), (0, 1, 2))) > 0.99
    again = pynx.read_results(path, model.experiment, data)
    back = kinematic.to_model_grid(again, model.experiment, model.shape, model.voxel)
    # splines through a crystal of 10 voxels, there and back
    assert compare(back, S, model.voxel, ndimage.binary_erosion(S != 0, iterations=2), scale=True).phase_rmse < 0.05
    stored = io.read_result(path)
    assert stored.voxel is None and (stored.S == obj).all() and (stored.support == (support > 0)).all()
    assert stored.wavelength == pytest.approx(model.experiment.wavelength)


def test_what_is_wrong_is_named(problem, phased, tmp_path):
    model, truth, data = problem
    save(tmp_path / "run.cxi", phased.object, phased.support)
    noise = np.random.default_rng(0).permuted(data)
    with pytest.raises(ValueError, match="run.cxi: expected an object .* .misfit below"):
        pynx.read_results(tmp_path / "run.cxi", model.experiment, noise)
    crystal = io.StoredResult(truth, truth != 0, model.voxel)
    with pytest.raises(FileExistsError, match="got an HDF5 file of another program"):
        pynx.write_results(tmp_path / "run.cxi", crystal, model.experiment)
    with pytest.raises(ValueError, match="shape: expected that of like"):
        pynx.write_results(tmp_path / "n.cxi", crystal, model.experiment, like=tmp_path / "run.cxi", shape=(24, 24, 24))
    with h5py.File(tmp_path / "run.cxi", "a") as file:
        file["entry_1/image_1/process_1/configuration/upsample_f"] = (1, 2, 2)
    with pytest.raises(ValueError, match="run.cxi: expected an object on the grid of its data, got upsample_f"):
        pynx.read_results(tmp_path / "run.cxi", model.experiment)
    with h5py.File(tmp_path / "flat.cxi", "w") as file:
        file["entry_1/image_1/data"] = np.ones((4, 4), complex)
    with pytest.raises(
        ValueError, match=r"flat.cxi: entry_1/image_1/data: expected a complex object \(frame, row, col"
    ):
        pynx.read_modes(tmp_path / "flat.cxi")
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        file["entry_1/data"] = data
    with pytest.raises(ValueError, match="scan.cxi: expected the dataset entry_1/image_1/data"):
        pynx.read_modes(tmp_path / "scan.cxi")


@pytest.fixture
def program(monkeypatch):
    """PyNX on the processor."""
    monkeypatch.setenv("PYNX_PU", "cpu")
    return pytest.importorskip("pynx.cdi", exc_type=ImportError)


def test_what_pynx_saves_is_a_start(program, problem, phased, tmp_path):
    model, _, data = problem
    shift, e = np.fft.fftshift, model.experiment
    beam = {"wavelength": e.wavelength, "detector_distance": e.distance, "pixel_size_detector": e.pixel_size}
    cdi = program.CDI(shift(data), support=shift(phased.support).astype(np.int8), obj=shift(phased.object), **beam)
    cdi.history.insert(1, nb_point_support=36)
    cdi.save_obj_cxi(str(tmp_path / "r.cxi"), crop=2)
    found = pynx.read_results(tmp_path / "r.cxi", e, data)
    assert found.object.shape == data.shape and found.chi == pytest.approx(phased.chi, rel=0.01)


def test_pynx_takes_what_is_written(program, problem, tmp_path):
    """As object and support of a run, by the loaders of its scripts."""
    runner = pytest.importorskip("pynx.cdi.runner.runner", exc_type=ImportError)
    model, truth, data = problem
    crystal = io.StoredResult(truth, truth != 0, model.voxel)
    obj = kinematic.to_detector_grid(truth, model.experiment, voxel=model.voxel)
    for path in (tmp_path / "r.cxi", tmp_path / "r.h5"):
        pynx.write_results(path, crystal, model.experiment, modes=path.suffix == ".h5")
        run = runner.CDIRunnerScan.__new__(runner.CDIRunnerScan)
        run.params = {"object": str(path), "support": str(path), "support_formula": None, "positivity": False}
        run.iobs, run.mask, run.cdi, run.timings = data, None, None, {}
        assert (run.init_object() == obj).all()
        run.init_support()
        assert (
            np.asarray(run.support) == kinematic.to_detector_grid(truth != 0, model.experiment, voxel=model.voxel)
        ).all()


def test_a_measured_particle_comes_to_the_model_s_grid():
    """Platinum at ID01, modes of PyNX that come with the bcdi package; moments on both grids."""
    package = pytest.importorskip("bcdi", exc_type=ImportError)
    shape = (252, 210, 200)
    path = Path(package.__file__).parent / "examples" / "S11_modes_252_210_200_prebinning_1_2_2.h5"
    if not path.exists():
        pytest.skip(f"this bcdi has no {path.name}")
    # S11_config_*.yml; the step is that of the scan's 252 frames over some 2.5 degrees
    experiment = pendel.Experiment(
        energy_keV=9.0,
        distance=0.50678,
        pixel_size=110e-6,
        detector_shape=shape[1:],
        arm=[("y-", np.deg2rad(0.4864)), ("x-", np.deg2rad(35.3627))],
        rocking_axis="x-",
        rocking_angles=np.deg2rad(0.0102) * np.arange(shape[0]),
    )
    found = pynx.read_results(path, experiment)
    assert found.object.shape == shape and pynx.read_modes(path)[1] is not None
    voxel = experiment.suggest_voxel(12e-9)
    S = kinematic.to_model_grid(found, experiment, kinematic.box_for(found, experiment, voxel), voxel, clip=False)
    obj = kinematic.to_detector_grid(S, experiment, voxel=voxel)

    def spread(array, lattice):
        weight = np.abs(array)
        places = [np.arange(n) - n // 2 for n in array.shape]
        mean = [(weight.sum(axis=tuple({0, 1, 2} - {a})) @ p) / weight.sum() for a, p in enumerate(places)]
        parts = np.ix_(*[p - m for p, m in zip(places, mean, strict=True)])
        second = np.array([[(weight * a * b).sum() for b in parts] for a in parts]) / weight.sum()
        return lattice @ second @ lattice.T

    lattice = 2 * np.pi * np.linalg.inv(experiment.basis()).T / np.array(shape)
    there = spread(obj, lattice)
    own = spread(S, np.diag(voxel)[::-1])
    phased = spread(np.where(found.support, found.object, 0), lattice)
    assert np.abs(there - own).max() < 0.01 * np.diag(own).min()
    assert np.abs(own - phased).max() < 0.02 * np.diag(phased).min()
