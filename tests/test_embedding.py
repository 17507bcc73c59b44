"""Sweeps of many crystals and frames for a loss of one's own: what frameworks are given to differentiate."""

import numpy as np
import pendel
import pytest
import scan
from frameworks import FRAMES, UNIT, crystals, operator
from pendel.model import Frames
from pendel.model import frames as frames_of
from pendel.operator import crystals as many


@pytest.mark.parametrize("resync", [None, 1])
def test_each_crystal_is_swept_alone_and_shared_gradients_are_summed(asymmetric, rng, resync):
    op = operator(asymmetric, resync=resync)
    S, dq, s_0, incident = crystals(op, rng, (2, 1))
    dq = UNIT * np.stack([dq, 2 * dq, 3 * dq])
    chi = np.array([op.chi_0, op.chi_h, op.chi_hbar]) * np.array([[1], [1.1], [1.2]])  # goes with the scans
    given = many.Given(S, dq, s_0, incident, chi, np.array([1.1, op.two_theta]))
    state = many.forward(op, given, keep=True)
    assert state.E_h.shape == (2, 3, FRAMES, *op.exit_shape)
    assert np.array_equal(state.E_h, many.forward(op, given, keep=False).E_h)

    adj_E_h = rng.normal(size=state.E_h.shape) + 1j * rng.normal(size=state.E_h.shape)
    whole, leads = (2, 3), [(2, 1), (3,), (), (), (3,), ()]
    each = many.adjoint(op, given, adj_E_h, state, [whole] * len(given))
    summed = many.adjoint(op, given, adj_E_h, None, leads)  # from a sweep of its own
    for i, j in np.ndindex(whole):
        one = op.with_parameters(chi[j], given.geometry)
        assert np.array_equal(state.E_h[i, j], one.forward(S[i, 0], dq[j], s_0, incident))
        expected = one.adjoint(S[i, 0], dq[j], adj_E_h[i, j], s_0, incident, parameters=True)
        assert all(np.array_equal(getattr(each, name)[i, j], getattr(expected, name)) for name in given._fields)
    over = (1,), (0,), (0, 1), (0, 1), (0,), (0, 1)
    for gradient, parts, shape, axes in zip(summed, each, leads, over, strict=True):
        assert gradient.shape[: len(shape)] == shape
        expected = parts.sum(axis=axes, keepdims=axes == (1,))
        np.testing.assert_allclose(gradient, expected, rtol=1e-13, atol=1e-13 * abs(expected).max())  # order of sums


def test_one_crystal_is_not_copied(asymmetric, rng):
    op, (S, dq, *_) = operator(asymmetric), crystals(operator(asymmetric), rng, (1,))
    handed_out = []
    sweep, op.exit_state = op.exit_state, lambda *a, **k: handed_out.append(sweep(*a, **k)) or handed_out[-1]
    state = many.forward(op, many.Given(S, dq), keep=True)
    (kept,) = handed_out
    assert np.shares_memory(state.E_h, kept.E_h) and np.shares_memory(state.E_0_row, kept.E_0_row)
    assert state.E_h.flags.writeable and state.E_0_row.flags.writeable  # as frameworks want what they take over


def test_lengths_that_do_not_fit_are_refused():
    S, dq = np.zeros((2, 3, 2, 4)), np.zeros((3, 5, 3))
    with pytest.raises(ValueError, match=r"expected equal lengths or 1, got \[\(2,\), \(3,\)\]"):
        many.leading_shape(many.Given(S, dq), many.AXES)
    with pytest.raises(ValueError, match="expected at least one crystal"):
        many.leading_shape(many.Given(S[:0], dq[:1]), many.AXES)


@pytest.mark.parametrize(
    "options",
    [
        {"polarization": {"sigma": 0.7, "pi": 0.3}, "point_spread": 0.6, "resync": 2, "threads": 2},
        {"sampling": "mean", "transport": "fourier"},
        {"ewald": "flat", "coupling": "kinematic"},
    ],
)
def test_frames_and_their_adjoint_are_those_of_the_model(rng, options):
    """The amplitude loss of these frames: its gradients against those of `Model.evaluate`, rounding apart."""
    model, data = scan.make_model(**options), scan.make_data(rng).astype(float)
    S, chosen = scan.make_crystal(rng) + 0.01, [6, 1, 3]
    s_0, scan_of = 0.9 * abs(S), {"dq": model.experiment.dq + 1e6, "flux": rng.uniform(0.5, 2, model.n_frames)}
    frames = Frames(model)
    D, kept = frames.forward(S, chosen, s_0, **scan_of, keep=True)
    alone, nothing = frames.forward(S, chosen, s_0, **scan_of)
    assert np.array_equal(D, alone) and nothing is None
    adj_D = (1e5 - np.sqrt(1e5 * data[chosen] / D)) / D.size
    found = frames.adjoint(S, adj_D, kept, chosen, s_0, **scan_of)

    wanted = pendel.Nuisance(gradients=("flux",))
    expected = scan.evaluate(model, S, data, frames=chosen, scale=1e5, s_0=s_0, **scan_of, nuisance=wanted)
    pairs = zip(
        (found.S, found.s_0, found.dq[chosen], found.flux[chosen]),
        (expected.adj_S, expected.adj_s_0, expected.adj_dq, expected.adj_flux),
        strict=True,
    )
    for gradient, value in pairs:
        np.testing.assert_allclose(gradient, value, rtol=0, atol=1e-12 * abs(value).max())
    assert not np.delete(found.dq, chosen, axis=0).any() and not np.delete(found.flux, chosen).any()
    assert np.array_equal(frames.adjoint(S, adj_D, kept, chosen, s_0, **scan_of).S, found.S)  # kept is left alone


def test_a_frame_asked_for_twice_counts_twice(rng):
    model = scan.make_model()
    S, dq = scan.make_crystal(rng), model.experiment.dq
    D, kept = frames_of.forward(model, frames_of.Given(S, dq=dq, frames=np.array([2, 2])), keep=True)
    shapes = [array.shape for array in kept]
    assert np.array_equal(D[0], D[1]) and shapes == frames_of.kept_shapes(model, 2)
    given = frames_of.Given(S, dq=dq, frames=np.array([2, 2]))
    twice = frames_of.adjoint(model, given, np.ones_like(D), kept, [()] * 5)
    once = frames_of.adjoint(model, given._replace(frames=np.array([2])), np.ones_like(D[:1]), [], [()] * 5)
    np.testing.assert_allclose(twice.dq, 2 * once.dq, rtol=1e-13, atol=0)
    np.testing.assert_allclose(twice.S, 2 * once.S, rtol=0, atol=1e-13 * abs(twice.S).max())


def test_bad_arguments_of_frames_are_named(rng):
    with pytest.raises(TypeError, match="model: expected a Model, got 3"):
        Frames(3)
    model, S = scan.make_model(), scan.make_crystal(rng)
    D, kept = Frames(model).forward(S, [1], keep=True)
    with pytest.raises(ValueError, match=r"adj_D: expected shape \(L, rows, cols\) = \(1, 14, 16\), got \(14, 16\)"):
        Frames(model).adjoint(S, D[0], kept, [1])
