"""An object of another program as a start: put on the grid of the model where it phases the data, else refused."""

import h5py
import numpy as np
import pytest
from cube import make_model, strained
from pendel import compare, io, kinematic
from pendel.app import config, methods, starts
from pendel.app.errors import ConfigError

CONFIG = """recipe = {method = "adam", epochs = 1}
start = {kind = "file", path = "other.cxi", trial_epochs = 0}
crystal = {chi_0 = [-9.407e-5, 8.4962e-6], chi_h = [5.2548e-5, -5.9889e-6]}
"""


@pytest.fixture(scope="module")
def problem():
    model = make_model(threads=1, off=0.0)
    truth = strained(model, [(0.3, 0.2, -0.25)], [0.3], [0.8])[1]
    data = model.intensities(truth)
    data = np.round(data * (1e5 / data.max())).astype(np.int32)
    return model, truth, data, kinematic.phase(data, iterations=200, workers=1)


def begin(folder, problem, obj, voxel=None, **stored):
    if voxel is not None:
        io.write_result(folder / "other.cxi", S=obj, voxel=voxel, **stored)
    else:
        with h5py.File(folder / "other.cxi", "w") as file:
            file["entry_1/image_1/data"] = obj
    return begin_from_file(folder, problem, CONFIG)


def begin_from_file(folder, problem, text):
    model, _, data, _ = problem
    made, e = config.loads(text, folder=folder), model.experiment
    scan = io.Scan(data, np.ones(data.shape[1:], bool))
    said = []
    setup = starts.Setup(made, methods.METHODS["adam"], scan, e, e.suggest_voxel(), False, said.append)
    return starts.begin(setup), said


def test_it_lands_on_the_model_s_grid(problem, tmp_path):
    phased = problem[3]
    begun, said = begin(tmp_path, problem, 7e3 * phased.object)
    assert any("phases these data" in line for line in said) and begun.record["kind"].startswith("kinematic")
    assert begun.model.voxel == pytest.approx(problem[0].voxel)
    shape = begun.model.shape
    own = kinematic.to_model_grid(phased.object, problem[0].experiment, shape, begun.model.voxel)
    assert compare(begun.start, own, begun.model.voxel, scale=True).relative_error < 1e-3


@pytest.mark.parametrize("kind", ["another crystal", "other axes", "not centred", "small", "the model's own grid"])
def test_what_is_not_of_these_data_is_refused(problem, tmp_path, kind):
    model, truth, _, phased = problem
    obj = {
        "another crystal": np.where(phased.support, np.random.default_rng(0).normal(size=truth.shape), 0) + 0j,
        "other axes": phased.object.transpose(2, 0, 1),
        "not centred": np.fft.fftn(phased.object),
        "small": phased.object[:10, :10, :10],
        "the model's own grid": np.pad(truth, 4),
    }[kind]
    with pytest.raises(ConfigError, match="^start.path: .*other.cxi: expected an object"):
        begin(tmp_path, problem, obj.astype(np.complex64))


def test_a_result_in_another_frame_is_refused(problem, tmp_path):
    model, truth, _, _ = problem
    known = {"voxel": model.experiment.suggest_voxel()}
    begin(tmp_path, problem, truth, frame=model.experiment.frame, **known)
    other = model.experiment.replace(arm=(("x-", model.experiment.two_theta),)).frame
    with pytest.raises(ConfigError, match="^start.path: expected a crystal in the model frame of this experiment"):
        begin(tmp_path, problem, truth, frame=other, **known)
    with pytest.raises(ConfigError, match="^start.path: expected a crystal on voxels"):
        begin(tmp_path, problem, truth, voxel=(1e-8,) * 3)


def test_links_of_a_start_lead_out_of_its_folder_where_that_is_allowed(problem, tmp_path):
    model, truth, _, _ = problem
    folder = tmp_path / "inside"
    folder.mkdir()
    io.write_result(tmp_path / "result.cxi", S=truth, voxel=model.experiment.suggest_voxel())
    with h5py.File(folder / "other.cxi", "w") as file:
        file["entry_1"] = h5py.ExternalLink("../result.cxi", "/entry_1")
    with pytest.raises(ValueError, match="got one that leads out of it, to .*; of start.path with start.external"):
        begin_from_file(folder, problem, CONFIG)
    begun, _ = begin_from_file(folder, problem, CONFIG.replace("trial_", 'external = "anywhere", trial_'))
    assert (begun.start == truth.astype(np.complex64)).all()
    with pytest.raises(ConfigError, match="start.external"):
        config.loads('start.external = "all"')
