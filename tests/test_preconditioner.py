"""The unknowns of `polish` in units in which all of them move alike: the map, its adjoint, what it evens out."""

import numpy as np
import pytest
from cube import QUIET, central
from pendel import photon_weight, polish
from pendel.fit.ironing import Ironing, ironed
from pendel.fit.objective import measured
from pendel.fit.polishing import PolishRecipe
from pendel.fit.preconditioner import Preconditioned
from pendel.fit.priors import Priors
from pendel.fit.quasi_newton import Cartesian
from scipy.sparse.linalg import LinearOperator, cg, eigsh

EVIDENCE = {"smoothness": "evidence", "uniformity": "evidence"}
COUNTED = {"likelihood": "poisson", "background": 0.01, "bound_weight": 30.0, "bulk_weight": 100.0}


def priors_of(problem, S, **changes):
    recipe = PolishRecipe(**EVIDENCE, sharpness="evidence", **COUNTED).but(**changes)
    return Priors(recipe, S, problem.tight, measured(problem.model, problem.data(photons=1e5), None, recipe))


def bent_in_a_corner(problem):
    """The crystal with a place that bends far more than the rest."""
    z, y, x = np.indices(problem.truth.shape) - 12
    bump = np.exp(-(z**2 + y**2 + x**2) / 2)
    return (problem.truth * np.exp(1.5j * bump)).astype(np.complex64)


def test_it_begins_where_it_is_told_and_its_adjoint_is_exact(gold_cube, rng):
    S, support = bent_in_a_corner(gold_cube), gold_cube.tight
    priors = priors_of(gold_cube, S)
    variables = Preconditioned(S, support, priors, threads=2)
    tied = variables.modes.tied.sum()
    assert 0 < tied < np.count_nonzero(priors.perfection.solid)  # but for what bends

    x = variables.start()
    np.testing.assert_allclose(variables.S(x), np.where(support, S, 0), rtol=1e-6)
    direction, adj = rng.normal(size=len(x)), rng.normal(size=(support.sum(), 2)).view(complex)[:, 0]
    for at in (x, 0.3 * rng.normal(size=len(x))):
        change = central(lambda h, at=at: np.vdot(adj, variables.values(at + h * direction)).real, 1e-5)
        assert change == pytest.approx(variables.adjoint(at, adj, None) @ direction, rel=1e-7)

    single = Preconditioned(S, support, priors, threads=1)
    np.testing.assert_array_equal(single.adjoint(x, adj, None), variables.adjoint(x, adj, None))


def test_every_S_is_in_reach(gold_cube, rng):
    S, support = bent_in_a_corner(gold_cube), gold_cube.tight
    variables = Preconditioned(S, support, priors_of(gold_cube, S))
    start = variables.start()

    def squared(v):
        back = variables.adjoint(start, v.ravel().view(complex), None)
        return (variables.values(start + 1e-6 * back) - variables.values(start - 1e-6 * back)).view(float) / 2e-6

    wanted = rng.normal(size=2 * support.sum())
    found, failed = cg(LinearOperator(2 * wanted.shape, squared, dtype=float), wanted, rtol=1e-8, maxiter=2000)
    assert not failed
    np.testing.assert_allclose(squared(found), wanted, atol=1e-6)


def test_stiffness_is_evened_out(gold_cube):
    """Of what photons and priors together ask, in units of what photons alone tell about a voxel."""
    S, support = np.abs(gold_cube.truth).astype(np.complex64), gold_cube.tight  # at rest
    priors = priors_of(gold_cube, S, smoothness=3e4, uniformity=3e4)

    def stiffest(variables):
        start = variables.start()
        begin = variables.values(start)

        def gradient(c):
            full = np.zeros(S.shape, complex)
            full[support] = c
            adj = priors.perfection.roughness(full, priors.smoothness)[1]
            return (adj + priors.perfection.unevenness(full, priors.uniformity)[1])[support] / 2

        rest = gradient(begin)

        def hessian(v):
            step = variables.values(start + 1e-5 * v.ravel()) - begin
            asked = gradient(begin + step) - rest + priors.learned * step
            return variables.adjoint(start, asked / (1e-5 * priors.learned), None)

        n = len(start)
        return float(eigsh(LinearOperator((n, n), hessian, dtype=float), 1, which="LA", tol=0.01)[0][0])

    assert stiffest(Cartesian(S, support)) > 30
    assert stiffest(Preconditioned(S, support, priors)) < 4


def test_the_same_end_sooner(gold_cube, monkeypatch):
    data, support = gold_cube.data(photons=1e5), gold_cube.tight
    options = {"start": gold_cube.truth * np.exp(0.3j * np.sin(np.indices(support.shape)[0] / 3)), "support": support}
    options |= {"rounds": 1, "trim": None, "widen": 0, **EVIDENCE, **COUNTED, **QUIET}
    options["atv_weight"] = photon_weight(gold_cube.model, data, support=support)

    def losses(iterations):
        return polish(gold_cube.model, data, None, iterations=(0, iterations), **options).loss

    evened = losses(100)
    monkeypatch.setattr(Priors, "stiff", False)
    plain = losses(400)
    assert evened[30] < plain[120]
    assert evened[-1] == pytest.approx(plain[-1], rel=0.01) and evened[-1] < plain[-1]


def test_where_nothing_counts_nothing_is_scaled(gold_cube):
    assert not priors_of(gold_cube, gold_cube.truth, smoothness=0.0, uniformity=0.0, sharpness=0.0).stiff


def unfolded(problem, rng):
    """The crystal with phases of its surface that nothing has tied, as a run leaves them in what has become solid."""
    S = problem.truth.astype(np.complex64)
    surface = Ironing(S, priors_of(problem, S)).surface
    return np.where(surface, S * np.exp(0.4j * rng.normal(size=S.shape)), S).astype(np.complex64)


def test_the_gradient_of_ironing_is_exact(gold_cube, rng):
    S = unfolded(gold_cube, rng)
    loss = Ironing(S, priors_of(gold_cube, S))
    at, direction = loss.start + 0.1 * rng.normal(size=len(loss.start)), rng.normal(size=len(loss.start))
    change = central(lambda h: loss(at + h * direction)[0], 1e-5)
    assert change == pytest.approx(loss(at)[1] @ direction, rel=1e-7)


def test_ironing_moves_the_phases_of_the_surface_alone_and_leaves_little_of_their_bends(gold_cube, rng):
    S = unfolded(gold_cube, rng)
    priors = priors_of(gold_cube, S, smoothness=1e5)
    found = ironed(S, priors)
    np.testing.assert_allclose(np.abs(found), np.abs(S), rtol=1e-5)

    surface = Ironing(S, priors).surface
    np.testing.assert_array_equal(found[~surface], S[~surface])
    loss = Ironing(S, priors)
    phases = [np.angle(v[surface]) for v in (S, found, gold_cube.truth)]
    bent, left, true = (loss(loss.start + np.angle(np.exp(1j * (phi - loss.start))))[0] for phi in phases)
    away = [np.sqrt(np.mean(np.square(phi - phases[2]))) for phi in phases]
    assert left < true < bent
    assert away[1] < 0.5 * away[0]


def test_nothing_is_ironed_that_nothing_ties(gold_cube, rng):
    S = unfolded(gold_cube, rng)
    assert ironed(S, priors_of(gold_cube, S, smoothness=0.0)) is S
