"""pendel.jax: the operator and the frames with JAX's gradients, under jit and vmap, and what is refused."""

from pathlib import Path

import numpy as np
import pendel
import pytest
import scan
from frameworks import FRAMES, UNIT, WAYS, crystals, operator

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import pendel.jax as pj  # noqa: E402
from jax.test_util import check_grads  # noqa: E402
from pendel.jax import foreign_calls  # noqa: E402


@pytest.fixture(autouse=True)
def double():
    """JAX has double precision only where it is told."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(params=[True, False], ids=["by XLA", "by callback"])
def way_in(request, monkeypatch):
    """XLA calls pendel itself, or through JAX's callbacks where it cannot."""
    assert foreign_calls.AVAILABLE
    monkeypatch.setattr(foreign_calls, "AVAILABLE", request.param)
    return request.param


@pytest.fixture
def physics(asymmetric):
    return asymmetric


def fields(op):
    return lambda S, dq, s_0=None, incident=None: pj.takagi_taupin(S, dq * UNIT, op, s_0, incident)


def light(op):
    return lambda *given: (jnp.abs(fields(op)(*given)) ** 2).sum()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_gradients_of_all_inputs_are_those_of_finite_differences(physics, rng, way):
    op = operator(physics, **way)
    given = crystals(op, rng)
    check_grads(jax.jit(fields(op)), given[:2], order=1, modes=["rev"])  # s_0 = |S|, plane wave
    check_grads(jax.jit(fields(op)), given, order=1, modes=["rev"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_gradients_of_the_parameters_are_those_of_finite_differences(physics, rng, way):
    op = operator(physics, **way)
    S, dq, s_0, incident = crystals(op, rng)
    size, ones = np.array([op.chi_0, op.chi_h, op.chi_hbar]), (jnp.ones(3, complex), jnp.ones(2))

    def exit_fields(chi, geometry):
        geometry = geometry * jnp.array([1.0, op.two_theta])
        return pj.takagi_taupin(S, dq * UNIT, op, s_0, incident, chi * size, geometry)

    check_grads(jax.jit(exit_fields), ones, order=1, modes=["rev"])
    several = jnp.stack([ones[0], 0.5 * ones[0]])
    each = jax.vmap(lambda chi: exit_fields(chi, ones[1]))(several)
    assert np.array_equal(each[1], exit_fields(several[1], ones[1]))


def test_it_is_the_operator_with_conjugate_gradients(physics, rng, way_in):
    op = operator(physics)
    given = S, dq, s_0, incident = crystals(op, rng)
    adj_E_h = rng.normal(size=(FRAMES, *op.exit_shape)) + 1j * rng.normal(size=(FRAMES, *op.exit_shape))
    E_h, pull = jax.vjp(fields(op), *map(jnp.asarray, given))
    assert np.array_equal(E_h, op.forward(S, dq * UNIT, s_0, incident))
    found, expected = pull(jnp.asarray(adj_E_h.conj())), op.adjoint(S, dq * UNIT, adj_E_h, s_0, incident)
    assert np.array_equal(found[0], expected.S.conj()) and np.array_equal(found[2], expected.s_0)
    assert np.array_equal(found[1], expected.dq * UNIT) and np.array_equal(found[3], expected.incident.conj())


def test_the_sweep_runs_once(physics, rng, monkeypatch):
    calls = []
    run = pendel.TakagiTaupin._run_forward
    monkeypatch.setattr(
        pendel.TakagiTaupin, "_run_forward", lambda *a, **k: calls.append(k["keep_E_0"]) or run(*a, **k)
    )
    op = operator(physics)
    given = crystals(op, rng)
    jax.block_until_ready(jax.jit(jax.value_and_grad(light(op)))(*given))
    assert calls == [True]
    jax.block_until_ready(jax.jit(light(op))(*given))
    assert calls == [True, False]  # nothing is kept


def test_batches_and_vmap(physics, rng, way_in):
    op = operator(physics)
    S, dq, s_0, incident = map(jnp.asarray, crystals(op, rng, (2,)))
    gradient = jax.grad(light(op), (0, 1, 2, 3))
    alone = [gradient(one, dq, s_0, incident) for one in S]
    stacked = [jnp.stack(each) for each in zip(*alone, strict=True)]

    mapped = jax.jit(jax.vmap(gradient, (0, None, None, None)))(S, dq, s_0, incident)
    assert all(np.array_equal(a, b) for a, b in zip(mapped, stacked, strict=True))
    batch = jax.jit(gradient)(S, dq, s_0, incident)
    assert np.array_equal(batch[0], stacked[0])
    for found, each in zip(batch[1:], stacked[1:], strict=True):  # what they share
        np.testing.assert_allclose(found, each.sum(axis=0), rtol=1e-13, atol=1e-13 * abs(each).max())

    scans = jnp.stack([dq, 2 * dq, 3 * dq])  # over a batch of two
    assert np.array_equal(jax.vmap(lambda d: fields(op)(S, d, s_0))(scans)[2], fields(op)(S, 3 * dq, s_0))
    both = jax.vmap(lambda one: jax.vmap(lambda d: fields(op)(one, d, s_0, incident))(scans))(S)
    assert np.array_equal(both[1, 2], fields(op)(S[1], 3 * dq, s_0, incident))


def test_frames_are_those_of_the_model_and_so_is_the_gradient(rng, way_in):
    """A loss written in JAX against the same one, and its gradients, of `Model.evaluate`: rounding apart."""
    model = scan.make_model(polarization={"sigma": 0.7, "pi": 0.3}, point_spread=0.6, resync=2)
    data, chosen = scan.make_data(rng).astype(float), np.array([6, 1, 3])
    S, dq = scan.make_crystal(rng) + 0.01, model.experiment.dq + 1e6
    flux = rng.uniform(0.5, 2, model.n_frames)

    @jax.jit
    def loss(S, s_0, dq, flux, chosen):
        D = pj.frames(S, model, chosen, s_0, dq, flux)
        return ((jnp.sqrt(1e5 * D) - jnp.sqrt(jnp.asarray(data)[chosen])) ** 2).mean()

    given = S, 0.9 * abs(S), dq, flux, chosen
    value, gradients = jax.value_and_grad(loss, (0, 1, 2, 3))(*given)
    nuisance = {"dq": dq, "flux": flux, "nuisance": pendel.Nuisance(gradients=("flux",))}
    found = scan.evaluate(model, S, data, frames=chosen, scale=1e5, s_0=given[1], **nuisance)
    assert float(value) == pytest.approx(found.loss, rel=1e-13)
    expected = found.adj_S.conj(), found.adj_s_0, found.adj_dq, found.adj_flux
    for gradient, wanted in zip((*gradients[:2], *(g[chosen] for g in gradients[2:])), expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-12 * abs(wanted).max())

    D = jax.vmap(lambda n: pj.frames(jnp.asarray(S), model, n))(jnp.array([[0, 1], [2, 3]]))
    assert np.array_equal(D, model.intensities(S, range(4)).reshape(D.shape))


def test_xla_gives_its_own_memory(physics, rng, monkeypatch):
    """Arguments are where JAX has them, exit fields are written where JAX wants them."""
    op, seen = operator(physics), []
    run = type(op).exit_state
    monkeypatch.setattr(type(op), "exit_state", lambda *a, **k: seen.append((a[1], k["out"])) or run(*a, **k))
    S, dq, *_ = map(jnp.asarray, crystals(op, rng))
    E_h = jax.block_until_ready(pj.takagi_taupin(S, dq * UNIT, op))
    given, out = seen[-1]
    assert given.ctypes.data == S.unsafe_buffer_pointer() and not given.flags.writeable
    assert out.E_h.ctypes.data == E_h.unsafe_buffer_pointer()


def test_calls_that_are_traced_again_are_not_kept_again(physics, rng):
    op = operator(physics)
    S, dq, *_ = crystals(op, rng)
    pj.takagi_taupin(S, dq, op)
    before = len(foreign_calls._functions)
    for _ in range(3):
        jax.jit(lambda S: pj.takagi_taupin(S, dq, op))(S)
    assert len(foreign_calls._functions) == before


def test_a_second_derivative_is_refused(physics, rng):
    op = operator(physics)
    S, dq, *_ = map(jnp.asarray, crystals(op, rng))
    for derivative in (jax.grad(jax.grad(lambda x: light(op)(x * S, dq))), jax.hessian(lambda x: light(op)(x * S, dq))):
        with pytest.raises(RuntimeError, match="pendel.jax: expected a first derivative"):
            derivative(1.0)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: light(op)(x * S, dq), (1.0,), (1.0,))


BAD = [
    ("S", lambda a: a.tolist(), TypeError, r"S: expected an array of JAX or NumPy, got list"),
    ("S", lambda a: a.astype("complex64"), TypeError, r"S: expected an array of complex128, got complex64; nothing is"),
    ("dq", lambda a: a.astype(complex), TypeError, r"dq: expected an array of float64 or float32, got complex128"),
    (
        "s_0",
        lambda a: a[1:],
        ValueError,
        r"s_0: expected shape \(\.\.\., nz, ny, nx\) = \(\.\.\., 3, 2, 4\), got \(2, 2",
    ),
    ("incident", lambda a: a[0], ValueError, r"incident: expected shape \(\.\.\., ny, nx\) = \(\.\.\., 2, 4\), got"),
    ("op", lambda op: op.plan, TypeError, r"op: expected a pendel.TakagiTaupin, got Plan"),
]


@pytest.mark.parametrize(("name", "spoil", "kind", "message"), BAD)
def test_bad_arguments_are_named(physics, rng, name, spoil, kind, message):
    op = operator(physics)
    given = dict(zip(("S", "dq", "s_0", "incident"), crystals(op, rng), strict=True)) | {"op": op}
    with pytest.raises(kind, match=message):
        pj.takagi_taupin(**given | {name: spoil(given[name])})


def test_bad_values_are_named_when_it_runs(physics, rng, way_in):
    op = operator(physics)
    S, dq, *_ = crystals(op, rng)
    with pytest.raises(Exception, match="S: expected finite values"):
        jax.block_until_ready(pj.takagi_taupin(np.nan * S, dq, op))
    with pytest.raises(TypeError, match="model: expected a pendel.Model, got 3"):
        pj.frames(S, 3)
    with pytest.raises(TypeError, match="frames: expected an array of int64 or int32, got float64"):
        pj.frames(jnp.asarray(scan.make_crystal(rng)), scan.make_model(), [0.5])


def test_nothing_is_cut_to_single_precision_unasked(physics, rng):
    jax.config.update("jax_enable_x64", False)
    op = operator(physics, "complex64")
    S, dq, *_ = crystals(op, rng)
    with pytest.raises(
        TypeError, match=r"dq: expected an array that JAX takes as it is, got float64, of which .* float32"
    ):
        pj.takagi_taupin(S, dq, op)
    gradient = jax.grad(lambda dq: (jnp.abs(pj.takagi_taupin(S, dq, op)) ** 2).sum())(jnp.asarray(dq, "float32"))
    assert gradient.dtype == "float32" and gradient.any()


def test_the_example_of_the_docs_runs():
    jax.config.update("jax_enable_x64", False)
    text = (Path(__file__).parents[1] / "docs" / "operator.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    first, loop = (next(block for block in blocks if word in block) for word in ("op = TakagiTaupin", "import jax"))
    names = {}
    exec(first.replace("(100, 32, 128)", "(16, 5, 20)").replace("64", "4"), names)  # S is 1 in its corner
    exec(loop, names)
    assert len(names["losses"]) == 20 and names["losses"][-1] < 0.5 * names["losses"][0]
