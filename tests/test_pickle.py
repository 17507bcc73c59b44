"""Models and what belongs to them can be sent to other processes and copied."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pendel
import pytest
from pendel import io, kinematic
from scan import make_crystal, make_data, make_experiment, make_model

MODELS = [
    {},
    {"ewald": "flat"},
    {"sampling": "mean"},
    {"dtype": "complex64", "coupling": "kinematic"},
    {"transport": "fourier"},
    {"transport": "box"},
    {"point_spread": 1.0, "coherence": pendel.Coherence(1e-6, 1e-6, 1e-4)},
    {"scheme": "etd2rk"},
]
COPIES = {"pickle": lambda item: pickle.loads(pickle.dumps(item)), "deepcopy": copy.deepcopy, "copy": copy.copy}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("options", MODELS, ids=str)
def test_a_copied_model_computes_the_same_frames_and_gradients(options, how):
    rng = np.random.default_rng(0)
    S, data, model = make_crystal(rng), make_data(rng), make_model(**options)
    model.loss_and_adjoint(S, data)  # with all that it makes at its first adjoint, and keeps
    copied = COPIES[how](model)
    assert np.array_equal(copied.intensities(S), model.intensities(S))
    (loss, adj_S), (wanted, wanted_adj) = copied.loss_and_adjoint(S, data), model.loss_and_adjoint(S, data)
    assert loss == wanted and np.array_equal(adj_S, wanted_adj)


def test_what_belongs_to_a_model_can_be_pickled():
    rng = np.random.default_rng(0)
    S, data, model = make_crystal(rng), make_data(rng), make_model()
    fit, again = model.fit(data), COPIES["pickle"](model.fit(data))
    assert again.model.evaluate(S, again).loss == model.evaluate(S, fit).loss
    result = pendel.reconstruct(model, data, epochs=1, progress=False)
    result.model = model
    assert np.array_equal(COPIES["pickle"](result).model.intensities(S), model.intensities(S))
    dq, op = model.dq, model.operators[0][1]
    for item in (op, COPIES["pickle"](op), COPIES["deepcopy"](op)):
        assert np.array_equal(item.forward(S, dq), op.forward(S, dq))
    for item in (model.experiment, model.crystal, model.far_field, pendel.SolveRecipe()):
        assert type(COPIES["pickle"](item)) is type(item)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("options", [{}, {"resync": 2}, {"transport": "fourier"}], ids=str)
def test_a_copied_state_gives_the_same_gradient(options, how):
    """And copies share no memory with it, but for shallow ones."""
    rng, model = np.random.default_rng(0), make_model(**options)
    S, dq, op = make_crystal(rng), model.dq, model.operators[0][1]
    E_h, state = op.forward(S, dq, return_state=True)
    adj_E_h = rng.normal(size=E_h.shape) + 1j * rng.normal(size=E_h.shape)
    expected = op.adjoint(S, dq, adj_E_h, state=state)
    copied = COPIES[how](state)
    assert type(copied) is type(state)
    found = op.adjoint(S, dq, adj_E_h, state=copied)
    assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in ("S", "dq", "s_0"))
    if how != "copy":
        pairs = [(a, b) for a, b in zip(copied, state, strict=True) if a is not None]
        assert pairs and not any(np.shares_memory(a, b) for a, b in pairs)


@pytest.mark.parametrize("how", COPIES)
def test_experiments_crystals_and_what_files_hold_can_be_copied(how):
    experiment = make_experiment()
    copied = COPIES[how](experiment)
    assert np.array_equal(copied.dq, experiment.dq) and copied.replace(distance=0.6).distance == 0.6
    assert copied.crop(frames=slice(1, 5)).n_frames == 4 and repr(copied) == repr(experiment)
    crystal = make_model().crystal
    assert COPIES[how](crystal) == crystal
    rng = np.random.default_rng(0)
    S = make_crystal(rng)
    stored = io.StoredResult(S, S != 0, (1e-8,) * 3, chi_0=-1e-5 + 1e-6j)
    phased = kinematic.KinematicResult(S, S != 0, 0.1, np.ones(3), 0)
    scan = io.Scan(np.ones((2, 3, 4)), np.ones((3, 4), bool), arm=(("y+", 0.1),))
    for item, name in ((stored, "S"), (phased, "object"), (scan, "data")):
        again = COPIES[how](item)
        assert type(again) is type(item) and np.array_equal(getattr(again, name), getattr(item, name))


def test_other_processes_compute_the_same():
    """Started anew, as on all systems but Linux, so that all that they know has been pickled."""
    rng = np.random.default_rng(0)
    model, data = make_model(), make_data(rng)
    crystals = [make_crystal(rng) for _ in range(2)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        frames = list(pool.map(model.intensities, crystals))
        loss, adj_S = pool.submit(model.loss_and_adjoint, crystals[0], data).result()
    assert all(np.array_equal(D, model.intensities(S)) for D, S in zip(frames, crystals, strict=True))
    wanted, wanted_adj = model.loss_and_adjoint(crystals[0], data)
    assert loss == wanted and np.array_equal(adj_S, wanted_adj)


def test_joblib_computes_the_same():
    joblib = pytest.importorskip("joblib")
    rng, model = np.random.default_rng(0), make_model()
    crystals = [make_crystal(rng) for _ in range(3)]
    expected = [model.intensities(S) for S in crystals]
    for backend in ("loky", "threading"):
        frames = joblib.Parallel(2, backend=backend)(joblib.delayed(model.intensities)(S) for S in crystals)
        assert all(map(np.array_equal, frames, expected)), backend


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_threads_share_a_model(options):
    """As those of dask and of CDTools do; the first calls, which make what a model keeps, at the same time too."""
    rng, data = np.random.default_rng(0), make_data(np.random.default_rng(1))
    crystals = [make_crystal(rng) for _ in range(8)]
    expected = [make_model(**options).loss_and_adjoint(S, data) for S in crystals]
    model = make_model(**options)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda S: model.loss_and_adjoint(S, data), crystals))
    for (loss, adj_S), (wanted, wanted_adj) in zip(found, expected, strict=True):
        assert loss == wanted and np.array_equal(adj_S, wanted_adj)
