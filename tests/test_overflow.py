"""Finite arguments give finite results, or an error that names the one that is too large; never NaN without a word."""

import warnings

import numpy as np
import pytest
from cube import make_model
from pendel import Experiment, atv, compare, kinematic
from pendel.base.axes import axis_vector
from pendel.base.symmetry import strain
from pendel.operator.cpu_engine import fourier_row_length


@pytest.fixture(scope="module")
def scan():
    model = make_model(threads=1)
    S = np.ones(model.shape, np.complex64)
    return model, S, model.intensities(S)


def calls(model, S, data, big):
    """{argument: call with values of that size}."""
    op, dq = model.operators[0][1], model.experiment.dq
    E_h, huge, many = op.forward(S, dq), S * np.float32(big), np.full(dq.shape, float(big))
    wide = S.astype(complex) * np.arange(S.shape[2]) * float(big)
    return {
        "S of forward": lambda: op.forward(huge, dq),
        "dq of forward": lambda: op.forward(S, many),
        "s_0 of forward": lambda: op.forward(S, dq, s_0=huge.real),
        "s_0 < 0 of forward": lambda: op.forward(S, dq, s_0=-huge.real),
        "incident of forward": lambda: op.forward(S, dq, incident=huge[0]),
        "S of adjoint": lambda: op.adjoint(huge, dq, E_h).S,
        "dq of adjoint": lambda: op.adjoint(S, many, E_h).S,
        "adj_E_h of adjoint": lambda: op.adjoint(S, dq, np.full_like(E_h, big)).dq,
        "S of intensities": lambda: model.intensities(huge),
        "flux of intensities": lambda: model.intensities(S, flux=np.full(len(dq), big)),
        "S of loss_and_adjoint": lambda: model.loss_and_adjoint(huge, data)[0],
        "scale of loss_and_adjoint": lambda: model.loss_and_adjoint(S, data, scale=float(big))[0],
        "data of loss_and_adjoint": lambda: model.loss_and_adjoint(S, data.astype(float) * big)[0],
        "data of misfit": lambda: model.misfit(S, data.astype(float) * big),
        "data of phase": lambda: kinematic.phase(data.astype(float) * big, iterations=3).object,
        "S of atv": lambda: atv(wide)[1],
        "S of compare": lambda: compare(wide, S, model.voxel).relative_error,
        "S of strain": lambda: strain(wide, model.voxel, model.experiment.h)[0],
    }


NAMES = ("S", "dq", "s_0", "incident", "adj_E_h", "flux", "scale", "data")


@pytest.mark.parametrize("big", [1e10, 1e20, 1e38])
@pytest.mark.parametrize("name", calls(make_model(threads=1), np.ones((20, 20, 20), np.complex64), np.ones(1), 1.0))
def test_a_large_argument_gives_a_finite_result_or_is_named(scan, name, big):
    call = calls(*scan, big)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, before the error
        try:
            assert np.isfinite(call()).all()
        except ValueError as error:
            assert str(error).startswith(f"{name.split()[0]}: expected")


def test_phases_without_digits_are_refused(scan):
    """Forward and adjoint sweeps would each make another number of exp(i dq z), and no gradient would be one."""
    model, S, _ = scan
    op, extent = model.operators[0][1], max(n * step for n, step in zip(model.shape, model.voxel, strict=True))
    for dq in (1e43, 1e168, 1.1e9 / extent):
        with pytest.raises(ValueError, match="dq: expected values up to .* rad/m, whose phases in a box of .* digits"):
            op.forward(S, np.full((2, 3), dq))
    assert np.isfinite(op.forward(S, np.full((2, 3), 0.9e9 / extent))).all()


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_directions_and_strain_do_not_depend_on_a_size(scan, size):
    model, S, _ = scan
    np.testing.assert_allclose(axis_vector("axis", np.multiply((3, 0, 4), size)), (0.6, 0, 0.8), rtol=1e-12)
    polarized = model.experiment.replace(beam_polarization=np.multiply((3, 4), size))
    assert isinstance(polarized, Experiment) and sum(polarized.polarization.values()) == 1
    bent = S * np.exp(0.1j * np.arange(S.shape[2]))
    expected = strain(bent.astype(complex), model.voxel, model.experiment.h)[0]
    found = strain(bent.astype(complex) * size, model.voxel, model.experiment.h)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("need", [0, -1, 2**24 + 1, 10**10, 2**62])
def test_a_row_of_no_length_that_can_be_is_refused_at_once(need):
    with pytest.raises(ValueError, match="^shape: expected rows of 1 to 16777216 places"):
        fourier_row_length(need)


def test_a_long_row_is_found():
    assert 2**24 <= fourier_row_length(2**24) < 1.5 * 2**24 + 64
