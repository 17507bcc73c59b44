"""The race is run by ways that give what pendel gives: E_h and the gradient, at once and with a loss between."""

import json
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
FRAMEWORKS = {"torch", "jax"}
OWN = {"pendel", "pendel.torch", "pendel.jax", "pendel-heun"}


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


def ways():
    """(way, framework) as race_peers.py lists them, without importing it."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("race_peers_listed", BENCH / "race_peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: entry.framework for name, entry in module.WAYS.items()}


WAYS = ways()


def problem(way, transport, dtype):
    """Operator and inputs of a strong crystal that shows multiple scattering in a dozen layers."""
    import gpu_common
    import race_parts

    shape, frames = gpu_common.CHECK
    op = race_parts.operator(way, transport, shape, dtype, 1, strong=True)
    return op, gpu_common.problem(op, frames)


def test_all_ways_are_tried():
    assert OWN < WAYS.keys() and set(WAYS.values()) == FRAMEWORKS | {None}


@pytest.mark.parametrize("dtype", ("complex64", "complex128"))
@pytest.mark.parametrize("transport", ("shift", "fourier"))
@pytest.mark.parametrize("way", WAYS)
def test_a_way_gives_what_the_operator_gives(way, transport, dtype):
    import race_peers

    if WAYS[way]:
        pytest.importorskip(WAYS[way])
    if not race_peers.runs(way, transport):
        with pytest.raises(ValueError, match="transport: expected 'fourier'"):
            problem(way, transport, dtype)
        return
    op, (S, s_0, dq, adj_E_h) = problem(way, transport, dtype)
    # Two of three rows, so that the last chunk is smaller; JAX compiles each size of chunk, once will do.
    chunks = WAYS[way] != "jax" or (transport, dtype) == ("shift", "complex64")
    tried = race_peers.make(way, op, rows=2 if chunks else None)
    E_h, state = op.forward(S, dq, s_0, return_state=True)
    expected = E_h, op.adjoint(S, dq, adj_E_h, s_0, state=state).S
    found = race_peers.differences(tried.numpy(tried.gradient(S, s_0, dq, adj_E_h)()), expected)
    assert max(found) < {"complex64": 5e-6, "complex128": 1e-12}[dtype]  # measured 8e-7 and 2e-13

    E_h, state = op.forward(S, dq, return_state=True)
    expected = E_h, op.adjoint(S, dq, adj_E_h, state=state).S  # s_0 = |S|
    E_h, back = tried.sweep(S, dq)
    found = race_peers.differences([E_h, back(adj_E_h)], expected)
    assert max(found) < {"complex64": 5e-6, "complex128": 1e-12}[dtype]


def test_the_schemes_are_not_mistaken_for_each_other():
    """They differ by more than the tolerance: a peer of the wrong scheme would not be timed."""
    import race_peers

    op, (S, s_0, dq, adj_E_h) = problem("pendel", "fourier", "complex128")
    heun, _ = problem("pendel-heun", "fourier", "complex128")
    one, other = (race_peers.make("pendel", o).gradient(S, s_0, dq, adj_E_h)() for o in (op, heun))
    with pytest.raises(AssertionError, match="E_h, adj_S differ by"):
        race_peers.differences(one, other)


def test_a_wrong_gradient_is_not_timed():
    import race_peers

    op, given = problem("pendel", "shift", "complex64")
    E_h, adj_S = race_peers.make("pendel", op).gradient(*given)()
    assert race_peers.differences((E_h, adj_S), (E_h, adj_S)) == [0, 0]
    for wrong in ((E_h, 1.001 * adj_S), (1.001 * E_h, adj_S), (E_h, adj_S.conj())):
        with pytest.raises(AssertionError, match="E_h, adj_S differ by"):
            race_peers.differences(wrong, (E_h, adj_S))


@pytest.mark.parametrize("way", ("torch-closed", "torch-heun", "torch-paper"))
@pytest.mark.parametrize("frames", (1, 2))
def test_what_does_not_fit_is_split_and_computed_again(way, frames, monkeypatch):
    pytest.importorskip("torch")
    import race_peers

    op, (S, s_0, dq, adj_E_h) = problem(way, "fourier", "complex128")
    tried = race_peers.make(way, op, rows=2)
    E_h, back = tried.sweep(S, dq)
    at_once = E_h, back(adj_E_h)
    expected = tried.gradient(S, s_0, dq, adj_E_h)()

    rows = S.shape[1] if way == "torch-paper" else 2
    monkeypatch.setattr(race_peers, "MOST", tried.graph(rows, frames))
    assert tried.frames_at_once(rows, len(dq)) == frames < len(dq)
    E_h, back = tried.sweep(S, dq)
    assert max(race_peers.differences([E_h, back(adj_E_h)], at_once)) < 1e-14
    found = tried.gradient(S, s_0, dq, adj_E_h)()
    assert max(race_peers.differences(tried.numpy(found), tried.numpy(expected))) < 1e-14


@pytest.mark.parametrize("way", ("torch-closed", "torch-reversal"))
def test_a_peer_takes_vacuum(way):
    """In a reconstruction S is 0 beside the crystal, where a quotient sinh(x)/x of the closed form has no value."""
    pytest.importorskip("torch")
    import race_peers

    op, (S, _, dq, adj_E_h) = problem(way, "shift", "complex128")
    S[:, :, ::2] = 0
    E_h, state = op.forward(S, dq, return_state=True)
    expected = E_h, op.adjoint(S, dq, adj_E_h, state=state).S
    E_h, back = race_peers.make(way, op).sweep(S, dq)
    assert max(race_peers.differences([E_h, back(adj_E_h)], expected)) < 1e-12


def test_the_loop_goes_down_the_gradient_of_its_loss():
    import race_peers
    import race_reconstruction

    problem = race_reconstruction.Problem("pendel", "small", 1)
    frames = np.arange(28, 36)
    way = race_peers.make("pendel", problem.op)
    rng = np.random.default_rng(3)
    S = (problem.support * rng.uniform(0.5, 0.9, problem.op.shape)).astype(problem.op.dtype)  # no corner of |S| is near
    _, gradient = problem.gradient(way, S, frames)
    direction, step = gradient / np.abs(gradient).max(), np.float32(1e-2)
    up, down = (problem.gradient(way, S + sign * step * direction, frames)[0] for sign in (1, -1))
    expected = np.sum((gradient.conj() * direction).real, dtype=float)
    assert expected > 0 and (up - down) / (2 * step) == pytest.approx(expected, rel=1e-2)


def test_the_race_is_run_and_written(tmp_path, capsys):
    import race

    few = ["--ways", "pendel", "--nx", "8", "--frames", "2", "--transport", "shift", "--dtype", "complex64"]
    race.main(
        [*few, "--small", "--parts", "time", "memory", "--json", str(tmp_path / "race.json"), "-o", str(tmp_path)]
    )
    written = json.loads((tmp_path / "race.json").read_text())
    assert {"machine", "commit", "compiler", "cpu instruction set", "torch", "jax"} <= written["about"].keys()
    one, two = written["results"]
    assert one["part"] == "time" and one["ns"] > 0 and one["ratio"] == 1 and one["difference_S"] == 0
    assert two["part"] == "memory" and two["bytes"] >= 0
    assert (tmp_path / "race.md").read_text().strip() in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"race.json", "race.md", "time.png", "memory.png"}


def test_what_would_take_too_long_is_left_out(monkeypatch):
    import race

    asked = []

    def child(part, arguments, environment=None):
        asked.append(arguments["ways"])
        for way in arguments["ways"]:
            yield {"part": part, "way": way, "ns": {"pendel": 1, "torch-paper": 1e6}[way]}

    monkeypatch.setattr(race, "child", child)
    args = race.parsed(["--small", "--ways", "pendel", "torch-paper", "--transport", "fourier", "--patience", "1"])
    args.dtype = ["complex64"]
    results = list(race.time_part(args))
    assert asked[0] == ["pendel", "torch-paper"] and asked[-1] == ["pendel"]
    left_out = [result for result in results if "left_out" in result]
    assert left_out and all(
        r["way"] == "torch-paper" and r["left_out"].startswith("expected to take") for r in left_out
    )


def test_seconds_to_an_error_lie_between_those_of_two_voxels():
    import race_tables

    rows = [{"error": 1e-1, "seconds": 1}, {"error": 1e-3, "seconds": 100}]
    assert race_tables.seconds_to(rows, 1e-2) == pytest.approx(10)
    assert race_tables.seconds_to(rows, 1e-4) is None and race_tables.seconds_to(rows[:1], 1e-2) is None


def test_nothing_of_the_bench_is_a_test():
    """`pytest` at the top collects `tests`; a benchmark's file has a name that only bench/pytest.ini asks for."""
    text = (BENCH.parent / "pyproject.toml").read_text()
    assert 'testpaths = ["tests"]' in text and "python_files" not in text
    assert not [path for pattern in ("test_*.py", "*_test.py") for path in BENCH.rglob(pattern)]
    assert list(BENCH.glob("bench_*.py"))
