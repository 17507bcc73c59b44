"""The engines keep the protocol, take plans as C++ numbers them, and sweep unchecked what the operator has checked."""

import dataclasses
import inspect

import numpy as np
import pendel
import pytest
from emulated import Emulated, install
from pendel.operator import _core, cuda_engine, plan
from pendel.operator.cpu_engine import Cpu
from pendel.operator.engine import Engine
from pendel.operator.engines import engine_for

KINDS = {
    "shift": {},
    "fourier": {"transport": "fourier"},
    "stored layers": {"resync": 2},
    "etd2rk": {"scheme": "etd2rk", "transport": "fourier"},
}


@pytest.fixture
def emulated(built):
    with install(Emulated(built)) as emulated:
        yield emulated


def test_both_engines_keep_the_protocol(emulated):
    for engine in (engine_for("cpu"), engine_for("cuda")):
        assert isinstance(engine, Engine)
        for name, declared in inspect.getmembers(Engine, inspect.isfunction):
            if name.startswith("_"):
                continue
            own = inspect.signature(getattr(engine, name)).parameters
            names = [parameter for parameter in inspect.signature(declared).parameters if parameter != "self"]
            if name in ("forward", "adjoint"):  # arrays go on to the extension, which knows them by name
                assert [*own] == ["plan", "arrays"] and own["arrays"].kind == inspect.Parameter.VAR_KEYWORD
            else:
                assert [*own] == names, name


@pytest.mark.parametrize("sweep", ["forward", "adjoint"])
def test_the_libraries_take_the_arrays_that_the_protocol_names(emulated, sweep):
    declared = inspect.signature(getattr(Engine, sweep)).parameters
    for module in (_core, emulated.module):
        own = inspect.signature(getattr(module, sweep)).parameters
        assert [*own] == [name for name in declared if name != "self"]
        assert all(p.kind == inspect.Parameter.KEYWORD_ONLY for name, p in own.items() if name != "plan")
        assert all(p.default is declared[name].default for name, p in own.items())


def test_enumerators_are_numbered_as_in_cpp(emulated):
    here = {e.__name__: dict(e.__members__) for e in (plan.Scheme, plan.Transport, plan.Orientation)}
    assert here == _core.enumerators() == emulated.module.enumerators()


@pytest.mark.parametrize("name, last", [("scheme", 1), ("transport", 2), ("orientation", 1)])
@pytest.mark.parametrize("beyond", [False, True])
def test_an_enumerator_that_is_none_is_refused(problem, operator_of, gold, name, last, beyond):
    op, value = operator_of(problem((3, 2, 4), gold)), last + 1 if beyond else -1
    with pytest.raises(ValueError, match=f"^{name}: expected an integer from 0 to {last}, got {value}"):
        Cpu().workspace(dataclasses.replace(op.plan, **{name: value}), adjoint=False)


def test_the_plan_says_what_was_asked_for(problem, operator_of, gold):
    p = problem((3, 2, 4), gold, pixels=2)
    op = operator_of(p, "complex64", threads=3, resync=2)
    wanted = {
        "frames": 1, "shape": p.shape, "voxel": p.physics["voxel"], "scheme": plan.Scheme.STRANG,
        "transport": plan.Transport.SHIFT, "orientation": plan.Orientation.K_H, "shift": 2, "tan_h": 0,
        "pixels_per_layer": op.pixels_per_layer, "row_length": 8, "exit_length": 4, "resync": 2, "threads": 3,
        "single": True, "launch": None,
    }  # fmt: skip
    assert {name: getattr(op.plan, name) for name in wanted} == wanted
    op = operator_of(p, scheme="etd2rk", transport="auto")
    assert (op.plan.scheme, op.plan.transport) == (plan.Scheme.ETD2RK, plan.Transport.FOURIER)
    op = operator_of(p, orientation="symmetric", transport="fourier")
    assert op.plan.orientation == plan.Orientation.SYMMETRIC and op.plan.tan_h == np.tan(op.two_theta / 2)
    assert op.plan.exit_length == op.exit_shape[1] and op.plan.resync == 3


def test_nobody_changes_a_plan(emulated, problem, operator_of, gold):
    p = problem((3, 2, 4), gold, n=5)
    op, xp = operator_of(p, device="cuda"), emulated.cupy
    before = dataclasses.replace(op.plan)
    op.forward(xp.asarray(p.S), xp.asarray(p.dq))
    assert op.plan == before and op.plan.frames == 1 and op.plan.launch is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        op.plan.frames = 2


def test_arrays_go_by_name(problem, operator_of, gold):
    p = problem((3, 2, 4), gold, n=5)
    op = operator_of(p)
    made = dataclasses.replace(op.plan, frames=5)
    E_h = np.empty((5, 2, 4), complex)
    for arrays in ({"dq": p.dq, "S": p.S}, {"dq": p.dq, "S": p.S, "E_h": E_h, "support": None}):  # one less, one more
        with pytest.raises(TypeError, match="argument"):
            op.engine.forward(made, **arrays)
    with pytest.raises(TypeError):
        _core.forward(made, p.dq, p.S, None, None, E_h)
    op.engine.forward(made, E_h=E_h, S=p.S, dq=p.dq)
    assert np.array_equal(E_h, op.forward(p.S, p.dq))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_s_0", [False, True])
def test_sweeps_of_checked_arrays_are_forward_and_adjoint(problem, operator_of, asymmetric, kind, dtype, with_s_0):
    change = KINDS[kind]
    p = problem((6, 3, 9), asymmetric, n=5, transport=change.get("transport", "shift"))
    op = operator_of(p, dtype, **change)
    S, adj_E_h, support = p.S.astype(dtype), p.adj_E_h.astype(dtype), p.s_0 > 0.4
    s_0 = p.s_0.astype(op.real_dtype) if with_s_0 else None

    E_h, state = op.forward(S, p.dq, s_0, return_state=True)
    swept, kept = op.sweep(S, p.dq, s_0, keep_state=True)
    assert np.array_equal(swept, E_h) and swept is kept.E_h and not swept.flags.writeable
    for field, expected in zip(kept, state, strict=True):
        assert (field is None) == (expected is None) and (field is None or np.array_equal(field, expected))
    plain, none = op.sweep(S, p.dq, s_0)
    assert none is None and np.array_equal(plain, E_h) and plain.flags.writeable

    found = op.sweep_adjoint(S, p.dq, adj_E_h, s_0, state=kept, support=support)
    expected = op.adjoint(S, p.dq, adj_E_h, s_0, state=state, support=support)
    for name in found._fields:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None) and (one is None or np.array_equal(one, other)), name


def test_sweeps_on_a_device_are_forward_and_adjoint(emulated, problem, operator_of, gold):
    p = problem((4, 2, 9), gold, n=3)
    op, xp = operator_of(p, device="cuda"), emulated.cupy
    S, dq, adj_E_h = map(xp.asarray, (p.S, p.dq, p.adj_E_h))
    with op.engine.here():
        E_h, state = op.sweep(S, dq, keep_state=True)
        adj = op.sweep_adjoint(S, dq, adj_E_h, state=state)
    assert np.array_equal(E_h, op.forward(S, dq)) and np.array_equal(adj.S, op.adjoint(S, dq, adj_E_h).S)


def test_unchecked_sweeps_refuse_a_reversal_that_has_lost_its_digits(problem, operator_of, gold):
    p = problem((36, 1, 27), gold | {k: 100 * gold[k] for k in ("chi_0", "chi_h")})
    p.physics |= {"voxel": tuple(6 * v for v in p.physics["voxel"])}
    op = operator_of(p, "complex64")
    S, adj_E_h = p.S.astype("complex64"), p.adj_E_h.astype("complex64")
    _, state = op.sweep(S, p.dq, keep_state=True)
    with pytest.raises(RuntimeError, match="^adjoint: expected the reversed sweep to come within"):
        op.sweep_adjoint(S, p.dq, adj_E_h, state=state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_adjoint_takes_more_workspace_than_a_forward_sweep(emulated, problem, operator_of, gold, kind, device):
    change = KINDS[kind]
    op = operator_of(problem((6, 3, 9), gold, transport=change.get("transport", "shift")), device=device, **change)
    made = dataclasses.replace(op.plan, frames=20)
    forward, adjoint = (op.engine.workspace(made, adjoint=adjoint) for adjoint in (False, True))
    voxels, real = 9 * 6, 8
    assert forward > 8 * voxels * real and adjoint > forward + 8 * voxels * real


def test_threads_multiply_the_workspace_of_a_row(problem, operator_of, gold):
    op = operator_of(problem((6, 3, 9), gold), threads=1)
    one, two, three, four = (
        Cpu().workspace(dataclasses.replace(op.plan, threads=n), adjoint=True) for n in (1, 2, 3, 4)
    )
    assert two - one == three - two >= (16 + 8) * 6 * 9 * 8
    assert four == three  # there are no more rows


def test_what_pendel_says_of_itself_names_the_instruction_set(emulated):
    assert pendel.info()["cpu instruction set"] == _core.cpu_isa()
    assert cuda_engine.cuda_problem() is None and pendel.info()["cuda"] == "usable"
