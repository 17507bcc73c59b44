"""pendel.torch: the operator and the frames with PyTorch's gradients, under compile and vmap, and what is refused."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pendel
import pytest
import scan
from frameworks import FRAMES, UNIT, WAYS, crystals, operator

torch = pytest.importorskip("torch")

import pendel.torch as pt  # noqa: E402
from pendel.torch.handles import found, handle_of  # noqa: E402
from pendel.torch.tensors import array_of, tensor_of  # noqa: E402


@pytest.fixture
def physics(asymmetric):
    return asymmetric


def tensors(arrays, grad=True):
    return [torch.tensor(a, requires_grad=grad) for a in arrays]


def fields(op):
    return lambda S, dq, s_0=None, incident=None: pt.takagi_taupin(S, dq * UNIT, s_0, incident, op=op)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_gradients_of_all_inputs_are_those_of_finite_differences(physics, rng, way):
    op = operator(physics, **way)
    given = tensors(crystals(op, rng))
    assert torch.autograd.gradcheck(fields(op), given[:2])  # s_0 = |S|, plane wave
    assert torch.autograd.gradcheck(fields(op), given)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_gradients_of_the_parameters_are_those_of_finite_differences(physics, rng, way):
    op = operator(physics, **way)
    S, dq, s_0, incident = tensors(crystals(op, rng), grad=False)
    size = torch.tensor([op.chi_0, op.chi_h, op.chi_hbar], dtype=torch.complex128)

    def exit_fields(chi, geometry):
        geometry = geometry * torch.tensor([1.0, op.two_theta])
        return pt.takagi_taupin(S, dq * UNIT, s_0, incident, chi * size, geometry, op=op)

    ones = [torch.ones(n, dtype=d, requires_grad=True) for n, d in ((3, torch.complex128), (2, torch.float64))]
    assert torch.autograd.gradcheck(exit_fields, ones)
    several = torch.stack([ones[0].detach(), 0.5 * ones[0].detach()])
    each = torch.vmap(lambda chi: exit_fields(chi, ones[1]))(several)
    assert torch.equal(each[1], exit_fields(several[1], ones[1]))


def test_batches_and_vmap_of_the_gradient_too(physics, rng):
    op = operator(physics, shape=(2, 1, 3))
    given = tensors(crystals(op, rng, (2,)))
    assert torch.autograd.gradcheck(fields(op), given, check_batched_grad=True)


def test_it_is_the_operator_to_the_last_bit(physics, rng):
    op = operator(physics, "complex64")
    arrays = S, dq, s_0, incident = crystals(op, rng)
    adj_E_h = rng.normal(size=(2, FRAMES, *op.exit_shape)).astype("float32")
    adj_E_h = adj_E_h[0] + 1j * adj_E_h[1]
    given = tensors(arrays)
    E_h = pt.TakagiTaupin(op)(*given)
    E_h.backward(torch.tensor(adj_E_h))
    assert np.array_equal(E_h.detach().numpy(), op.forward(S, dq, s_0, incident))
    expected = op.adjoint(S, dq, adj_E_h, s_0, incident)
    for tensor, gradient in zip(given, (expected.S, expected.dq, expected.s_0, expected.incident), strict=True):
        assert np.array_equal(tensor.grad.numpy(), gradient)


def test_the_sweep_runs_once(physics, rng, monkeypatch):
    calls = []
    run = pendel.TakagiTaupin._run_forward
    monkeypatch.setattr(
        pendel.TakagiTaupin, "_run_forward", lambda *a, **k: calls.append(k["keep_E_0"]) or run(*a, **k)
    )
    op = operator(physics)
    given = tensors(crystals(op, rng))
    fields(op)(*given).abs().sum().backward()
    assert calls == [True]
    with torch.no_grad():
        fields(op)(*given)
    assert calls == [True, False]  # nothing is kept


def test_each_crystal_of_a_batch_is_swept_alone(physics, rng):
    op = operator(physics)
    S, dq, s_0, incident = tensors(crystals(op, rng, (2, 2)))
    scans = torch.stack([dq.detach(), 2 * dq.detach()]).requires_grad_()
    E_h = fields(op)(S, scans, s_0, incident)  # the second axis of S goes with the scans
    assert E_h.shape == (2, 2, FRAMES, *op.exit_shape)
    E_h.abs().square().sum().backward()
    alone = [[fields(op)(S[i, j], scans[j], s_0, incident) for j in range(2)] for i in range(2)]
    assert torch.equal(E_h, torch.stack([torch.stack(row) for row in alone]))
    given = S, scans, s_0, incident
    gradients = torch.autograd.grad(sum(E.abs().square().sum() for row in alone for E in row), given)
    for tensor, gradient in zip(given, gradients, strict=True):
        torch.testing.assert_close(tensor.grad, gradient, rtol=1e-13, atol=1e-13)  # another order of the sum


def test_vmap_is_a_batch(physics, rng):
    op = operator(physics)
    S, dq, s_0, incident = tensors(crystals(op, rng, (3,)), grad=False)
    expected = fields(op)(S, dq, s_0, incident)
    assert torch.equal(torch.vmap(lambda S: fields(op)(S, dq, s_0, incident))(S), expected)
    turned = torch.vmap(lambda S: fields(op)(S, dq, s_0, incident), in_dims=3, out_dims=1)(S.movedim(0, 3))
    assert torch.equal(turned, expected.movedim(0, 1))
    S.requires_grad_()
    E_h = fields(op)(S, dq, s_0, incident)
    several = torch.stack([torch.ones_like(E_h), 2j * torch.ones_like(E_h)])
    each = torch.vmap(lambda adj_E_h: torch.autograd.grad(E_h, S, adj_E_h, retain_graph=True)[0])(several)
    assert torch.equal(each[1], torch.autograd.grad(E_h, S, several[1])[0])
    scans = torch.vmap(lambda a: fields(op)(S, a * dq, s_0, incident))(torch.tensor([1.0, 2.0]))
    assert torch.equal(scans[1], fields(op)(S, 2 * dq, s_0, incident))


def compiled(function):
    """Without generated code, which needs a compiler; in one graph, so that nothing falls back to Python."""
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def test_compiled_graphs_keep_operators_and_frames_apart(physics, rng):
    ops = operator(physics), operator(physics | {"chi_h": 2 * physics["chi_h"]})
    given = tensors(crystals(ops[0], rng))

    def loss(op, S, dq, s_0, incident):
        return fields(op)(S, dq, s_0, incident).abs().square().sum()

    fast = compiled(loss)
    for count in (FRAMES, 2):
        cut = [given[0], given[1][:count], *given[2:]]
        for op in (*ops, ops[0]):
            value, expected = fast(op, *cut), loss(op, *cut)
            assert value.item() == expected.item()
            pairs = zip(*(torch.autograd.grad(v, given) for v in (value, expected)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


def test_compiled_frames(rng):
    model = scan.make_model()
    frames, S = pt.Frames(model), torch.tensor(scan.make_crystal(rng), requires_grad=True)
    fast = compiled(lambda S, chosen: frames(S, chosen).square().sum())
    for chosen in ([1, 2, 5], [0, 2, 7]):
        chosen = torch.tensor(chosen)
        (gradient,) = torch.autograd.grad(fast(S, chosen), S)
        (expected,) = torch.autograd.grad(frames(S, chosen).square().sum(), S)
        assert torch.equal(gradient, expected)


MODELS = [
    {"polarization": {"sigma": 0.7, "pi": 0.3}, "point_spread": 0.6, "resync": 2},
    {"sampling": "mean", "transport": "fourier"},
    {"ewald": "flat", "coupling": "kinematic"},
]


@pytest.mark.parametrize("options", MODELS, ids=lambda options: "-".join(options))
def test_frames_are_those_of_the_model_and_so_is_the_gradient(rng, options):
    """A loss written in PyTorch against the same one, and its gradients, of `Model.evaluate`: rounding apart."""
    model, data = scan.make_model(**options), scan.make_data(rng).astype(float)
    S, chosen = scan.make_crystal(rng) + 0.01, [6, 1, 3]
    dq, flux = model.experiment.dq + 1e6, rng.uniform(0.5, 2, model.n_frames)
    given = tensors((S, 0.9 * abs(S), dq, flux))
    D = pt.Frames(model)(given[0], chosen, *given[1:])
    assert np.array_equal(D.detach().numpy(), model.intensities(S, chosen, 0.9 * abs(S), dq=dq, flux=flux))
    loss = (torch.sqrt(1e5 * D) - torch.tensor(data[chosen]).sqrt()).square().mean()
    loss.backward()

    nuisance = {"dq": dq, "flux": flux, "nuisance": pendel.Nuisance(gradients=("flux",))}
    found = scan.evaluate(model, S, data, frames=chosen, scale=1e5, s_0=0.9 * abs(S), **nuisance)
    assert loss.item() == pytest.approx(found.loss, rel=1e-13)
    of_frames = [tensor.grad.numpy() for tensor in given]
    for gradient, expected in zip(of_frames[:2], (found.adj_S, found.adj_s_0), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12 * abs(expected).max())
    for gradient, expected in zip(of_frames[2:], (found.adj_dq, found.adj_flux), strict=True):
        np.testing.assert_allclose(gradient[chosen], expected, rtol=0, atol=1e-12 * abs(expected).max())
        assert not np.delete(gradient, chosen, axis=0).any()

    value, adj_S = model.loss_and_adjoint(S, data)
    whole = torch.tensor(S, requires_grad=True)
    loss = (pt.Frames(model)(whole).sqrt() - torch.tensor(data).sqrt()).square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(whole.grad.numpy(), adj_S, rtol=0, atol=1e-12 * abs(adj_S).max())


@pytest.mark.parametrize("options", [{}, {"transport": "fourier"}], ids=["shift", "fourier"])
def test_gradients_of_frames_are_those_of_finite_differences(rng, options):
    model = scan.make_model(**options)
    frames, size = pt.Frames(model), (3, 2, 3)
    dq, flux = torch.tensor(model.experiment.dq / UNIT), torch.ones(model.n_frames, dtype=torch.float64)
    body = torch.zeros(model.shape, dtype=torch.float64)
    body[1:4, 2:4, 3:6] = 1  # finite differences of these 18 voxels alone
    rough = rng.uniform(0.5, 1, size) * np.exp(1j * rng.uniform(-1, 1, size))

    def seen(inside, step, flux):
        S = torch.zeros(model.shape, dtype=torch.complex128).index_put(torch.where(body > 0), inside.ravel())
        return frames(S, [2, 5], None, (dq + step) * UNIT, flux)[:, 5:9, 6:10]

    given = torch.tensor(rough, requires_grad=True), torch.zeros_like(dq, requires_grad=True), flux.requires_grad_()
    assert torch.autograd.gradcheck(seen, given)


def test_batches_of_frames(rng):
    model = scan.make_model()
    frames, S = pt.Frames(model), torch.tensor(np.stack([scan.make_crystal(rng) for _ in range(2)]), requires_grad=True)
    D = frames(S, [1, 1, 4])
    assert torch.equal(D, torch.stack([frames(one, [1, 1, 4]) for one in S]))
    (gradient,) = torch.autograd.grad(D.square().sum(), S, retain_graph=True)
    expected = torch.stack([torch.autograd.grad(frames(one, [1, 1, 4]).square().sum(), one)[0] for one in S])
    assert torch.equal(gradient, expected)
    assert torch.equal(torch.vmap(lambda one: frames(one, [1, 1, 4]))(S), D)
    several = torch.stack([torch.ones_like(D), 2 * torch.ones_like(D)])
    each = torch.vmap(lambda adj_D: torch.autograd.grad(D, S, adj_D, retain_graph=True)[0])(several)
    assert torch.equal(each[0], torch.autograd.grad(D, S, several[0])[0])
    torch.testing.assert_close(each[1], 2 * each[0], rtol=1e-12, atol=1e-12)


def test_nothing_is_copied(rng):
    tensor = torch.tensor(rng.normal(size=(3, 4)))
    assert np.shares_memory(array_of(tensor), tensor.numpy()) and array_of(tensor.conj()).shape == (3, 4)
    array = rng.normal(size=(3, 4))
    assert np.shares_memory(tensor_of(array, tensor).numpy(), array)
    turned = torch.tensor([1 + 2j]).conj()  # conjugated by a flag, which no array has
    assert array_of(turned) == 1 - 2j


def test_offsets_of_single_precision_have_gradients_of_single_precision(physics, rng):
    op = operator(physics, "complex64")
    S, dq, *_ = crystals(op, rng)
    given = torch.tensor(dq * UNIT, dtype=torch.float32, requires_grad=True)
    E_h = pt.takagi_taupin(torch.tensor(S), given, op=op)
    E_h.abs().sum().backward()
    assert given.grad.dtype == torch.float32 and E_h.dtype == torch.complex64
    assert np.array_equal(E_h.detach().numpy(), op.forward(S, given.detach().numpy()))


def test_a_second_derivative_is_refused(physics, rng):
    op = operator(physics)
    S, dq = tensors(crystals(op, rng)[:2])
    message = "pendel.torch: expected a first derivative"
    (gradient,) = torch.autograd.grad(fields(op)(S * S, dq).abs().square().sum(), S, create_graph=True)
    with pytest.raises(RuntimeError, match=message):
        gradient.abs().sum().backward()
    model = scan.make_model()
    S = torch.tensor(scan.make_crystal(rng), requires_grad=True)
    (gradient,) = torch.autograd.grad(pt.Frames(model)(S, [2]).square().sum(), S, create_graph=True)
    with pytest.raises(RuntimeError, match=message):
        gradient.abs().sum().backward()


def test_exit_fields_changed_in_place_are_noticed(physics, rng):
    op = operator(physics)
    S, dq = tensors(crystals(op, rng)[:2])
    E_h = fields(op)(S, dq)
    E_h *= 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        E_h.abs().sum().backward()


BAD = [
    ("S", lambda t: t.numpy(), TypeError, r"S: expected a torch.Tensor, got ndarray of shape .*; torch.as_tensor"),
    ("S", lambda t: t.to(torch.complex64), TypeError, r"S: expected a tensor of torch.complex128, got torch.complex64"),
    ("S", lambda t: t.real, TypeError, r"S: expected a tensor of torch.complex128, got torch.float64"),
    ("dq", lambda t: t.to(torch.complex128), TypeError, r"dq: expected a tensor of torch.float64 or torch.float32"),
    ("s_0", lambda t: t.float(), TypeError, r"s_0: expected a tensor of torch.float64, got torch.float32; .* \.to\("),
    (
        "incident",
        lambda t: t[:1],
        ValueError,
        r"incident: expected shape \(\.\.\., ny, nx\) = \(\.\.\., 2, 4\), got \(",
    ),
    ("S", lambda t: t[0], ValueError, r"S: expected shape \(\.\.\., nz, ny, nx\) = \(\.\.\., 3, 2, 4\), got \(2, 4\)"),
    ("dq", lambda t: t[:, :2], ValueError, r"dq: expected shape \(\.\.\., frames, 3\) = \(\.\.\., any, 3\), got"),
    ("dq", lambda t: t[:0], ValueError, r"dq: expected at least one frame"),
    ("dq", lambda t: t * torch.nan, ValueError, r"dq: expected finite values"),
    ("S", lambda t: t.expand(0, 3, 2, 4), ValueError, r"expected at least one crystal"),
    ("op", lambda op: op.plan, TypeError, r"op: expected a pendel.TakagiTaupin, got Plan"),
]


@pytest.mark.parametrize(("name", "spoil", "kind", "message"), BAD)
def test_bad_arguments_are_named(physics, rng, name, spoil, kind, message):
    op = operator(physics)
    given = dict(zip(("S", "dq", "s_0", "incident"), tensors(crystals(op, rng), grad=False), strict=True)) | {"op": op}
    with pytest.raises(kind, match=message):
        pt.takagi_taupin(**given | {name: spoil(given[name])})


def test_batches_of_different_lengths_are_refused(physics, rng):
    op = operator(physics)
    S, dq, *_ = tensors(crystals(op, rng, (2,)), grad=False)
    with pytest.raises(
        ValueError, match=r"axes before those of a crystal: expected equal lengths or 1, got \[\(2,\), \(3,"
    ):
        pt.takagi_taupin(S, dq.expand(3, *dq.shape), op=op)


def test_bad_arguments_of_frames_are_named(rng):
    model = scan.make_model()
    frames, S = pt.Frames(model), torch.tensor(scan.make_crystal(rng))
    with pytest.raises(TypeError, match="model: expected a pendel.Model, got 3"):
        pt.Frames(3)
    with pytest.raises(TypeError, match=r"frames: expected a tensor of torch.int64 or torch.int32, got torch.float"):
        frames(S, [0.5])
    with pytest.raises(ValueError, match=r"frames: expected at least one index in \[-8, 8\), got \[9\]"):
        frames(S, [9])
    with pytest.raises(ValueError, match=r"flux: expected shape \(\.\.\., n_frames\) = \(\.\.\., 8\), got \(3,\)"):
        frames(S, [0], flux=torch.ones(3, dtype=torch.float64))


def test_a_graph_does_not_find_another_operator(physics):
    op = operator(physics)
    handle = handle_of(op)
    assert found(handle) is op and handle_of(op) == handle
    del op
    with pytest.raises(ReferenceError, match="expected the operator or model of this graph to be alive"):
        found(handle)
    assert handle_of(operator(physics)) != handle


def test_modules_are_copied_and_pickled(physics, rng):
    module = pt.TakagiTaupin(operator(physics))
    given = tensors(crystals(module.op, rng)[:2], grad=False)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(*given), module(*given))
    assert "shape=(3, 2, 4)" in repr(module) and not list(module.parameters())
    frames = pt.Frames(scan.make_model())
    S = torch.tensor(scan.make_crystal(rng))
    assert torch.equal(pickle.loads(pickle.dumps(frames))(S, [1]), frames(S, [1])) and "frames=8" in repr(frames)


def test_the_example_of_the_docs_runs():
    text = (Path(__file__).parents[1] / "docs" / "operator.md").read_text()
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    first, loop = (next(block for block in blocks if word in block) for word in ("op = TakagiTaupin", "import torch"))
    names = {}
    exec(first.replace("(100, 32, 128)", "(16, 5, 20)").replace("64", "4"), names)  # S is 1 in its corner
    exec(loop, names)
    assert len(names["losses"]) == 20 and names["losses"][-1] < 0.2 * names["losses"][0]


def test_the_phase_of_a_known_shape_is_found_by_the_loop_of_the_docs():
    text = (Path(__file__).parents[1] / "docs" / "operator.md").read_text()
    loop = next(block for block in text.split("```python\n")[1:] if "import Frames" in block).split("```")[0]
    angles = 0.011 * (np.arange(32) - 16)
    given = {"energy_keV": 9.0, "distance": 0.6, "pixel_size": 55e-6, "rocking_axis": "y+"}
    e = pendel.Experiment(**given, detector_shape=(32, 32), two_theta_deg=33.95, rocking_angles_deg=angles)
    gold = pendel.susceptibility("Au", hkl=(1, 1, 1), energy_keV=9.0).crystal()
    model = pendel.Model(e, gold, (16, 24, 24), e.suggest_voxel(), threads=1)
    shape = pendel.phantom.cube(model.shape, model.voxel, 0.7e-6)
    bump = pendel.phantom.bumps(model.shape, model.voxel, [(0.1e-6, 0.05e-6, 0.1e-6)], [0.2e-6], [1.0])
    S = pendel.phantom.crystal_function(shape, bump)
    names = {"torch": torch, "pendel": pendel, "model": model, "data": model.intensities(S), "S": S}
    exec(loop.replace("300", "150"), names)
    told = pendel.compare(names["found"], S, model.voxel, ramp=True, twin=True)
    # the bump is 0.3 rad rms; every voxel free stops at 0.18 rad, as the page says
    assert names["losses"][-1] < 1e-3 * names["losses"][0] and told.phase_rmse < 0.02
