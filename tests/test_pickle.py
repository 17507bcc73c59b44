"""Models and what belongs to them can be sent to other processes and copied."""

import copy
import pickle

import numpy as np
import pendel
import pytest
from scan import make_crystal, make_data, make_model

MODELS = [
    {},
    {"ewald": "flat"},
    {"sampling": "mean"},
    {"dtype": "complex64", "coupling": "kinematic"},
    {"transport": "fourier"},
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
