"""The GPU bench measures what it says: each peer has pendel's gradient, kernels are called right, output is read."""

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emulated import Emulated

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.parametrize(
    "peer, variant", [("eager", "eager"), ("best", "torch"), ("jax", "reversal"), ("jax", "checkpoint")]
)
def test_a_peer_has_the_gradient_of_the_cpu_engine(peer, variant):
    pytest.importorskip("jax" if peer == "jax" else "torch")
    import gpu_peers

    differences = gpu_peers.PEERS[peer]("cpu").check(variant)
    assert differences.keys() == {"shift", "fourier"} and max(max(d) for d in differences.values()) < 1e-5


def test_a_wrong_gradient_is_not_timed():
    import gpu_common

    def gradient(op, S, s_0, dq, adj_E_h):
        E_h, state = op.forward(S, dq, s_0, return_state=True)
        return E_h, 1.001 * op.adjoint(S, dq, adj_E_h, s_0, state=state).S

    with pytest.raises(AssertionError, match="shift: E_h, adj_S differ by"):
        gpu_common.check(gradient)


@pytest.mark.parametrize("without_fusion", [False, True])
def test_the_kernels_are_called_as_the_operator_calls_them(built, without_fusion):
    import gpu_driver
    import gpu_pendel

    cuda = Emulated(built).module
    for differences in gpu_pendel.check_kernels(cuda, gpu_driver.Host(), without_fusion).values():
        assert max(differences) < 1e-5


@pytest.mark.parametrize("path", sorted(BENCH.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_bench_takes_from_pendel_is_there(path):
    """Also of those that need PyTorch, JAX or a GPU and are not run here."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pendel":
            there = names_of(node.module)
            for alias in node.names:
                found = alias.name in there or importlib.util.find_spec(f"{node.module}.{alias.name}")
                assert found, f"{path.name}:{node.lineno} {node.module}.{alias.name}"


def names_of(module):
    """What a module of pendel has; of one whose framework is not installed, what its text defines."""
    framework = module.removeprefix("pendel.")
    if framework not in ("torch", "jax") or importlib.util.find_spec(framework):
        return dir(importlib.import_module(module))
    path = Path(importlib.util.find_spec("pendel").origin).parent / framework / "__init__.py"
    text = ast.parse(path.read_text())
    imported = [
        alias.asname or alias.name for node in text.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return imported + [node.name for node in text.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def test_the_model_is_timed():
    command = [sys.executable, BENCH / "gpu_pendel.py", "model", "--emulate", "--transport", "shift"]
    command += ["--size", "16", "--frames", "6", "--repeat", "1"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    results = [json.loads(line.removeprefix("RESULT ")) for line in out.splitlines() if line.startswith("RESULT ")]
    assert [r["variant"] for r in results] == ["model", "reconstruct", "reconstruct, no ATV"]
    assert all(r["epoch_ms"] > 0 for r in results)


NCU = """==PROF== Connected to process 7
RESULT {"multiprocessors": 132, "point_steps": 536870912}
==PROF== Disconnected from process 7
"ID","Process ID","Kernel Name","gpu__time_duration.sum","smsp__inst_executed.sum","smsp__cycles_elapsed.avg",\
"l1tex__data_pipe_lsu_wavefronts_mem_shared.sum","l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",\
"l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum"
"","","","ns","inst","cycle","","",""
"0","7","void pendel::cuda::shift_forward<float, 8, 1>(Device<float>)","1,000","5,280,000","20,000","400","30","10"
"1","7","shift_adjoint","2,000","n/a","20,000","400","30","10"
"""


def test_the_profiler_is_read():
    import gpu
    import gpu_ncu

    part = gpu.verdict("ncu", 0, NCU, 60)
    assert part["status"] == "passed" and [k["kernel"] for k in part["kernels"]] == ["shift_forward", "shift_adjoint"]
    assert part["kernels"][0]["issue_fraction"] == pytest.approx(0.5)  # 5.28e6 / (4 x 132 x 2e4)
    assert part["kernels"][0]["bank_conflicts"] == pytest.approx(0.1)
    assert "issue_fraction" not in part["kernels"][1]
    denied = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters"
    assert gpu.verdict("ncu", 1, denied, 60) == {"status": "skipped", "reason": denied}
    assert gpu.verdict("ncu", 1, "Traceback", 60)["status"] == "failed"
    assert gpu_ncu.unknown_metrics("==ERROR== Failed to find metric dram__bytes_read.sum") == ["dram__bytes_read.sum"]


@pytest.mark.parametrize(
    "part, status, text, expected",
    [
        ("memcheck", 0, "========= ERROR SUMMARY: 0 errors", "passed"),
        ("memcheck", 9, "========= ERROR SUMMARY: 3 errors", "failed"),
        ("racecheck", 0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "passed"),
        ("racecheck", 0, "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", "failed"),
        ("synccheck", 1, "========= Error: Device not supported", "skipped"),
        ("synccheck", 1, "Traceback", "failed"),
        ("tests", 0, "660 passed, 3 skipped in 80.12s", "passed"),
        ("tests", 1, "1 failed, 659 passed in 80.12s", "failed"),
        ("tests", None, "", "stopped"),
        ("gpu-tests", 0, "30 skipped, 600 deselected in 3.00s", "skipped"),
        ("gpu-tests", 0, "30 passed, 600 deselected in 3.00s", "passed"),
        ("kernels", 1, "AssertionError", "failed"),
        ("cupy", 0, 'RESULT {"skipped": "no CuPy"}', "skipped"),
    ],
)
def test_the_end_of_a_part_is_judged(part, status, text, expected):
    import gpu

    assert gpu.verdict(part, status, text, 60)["status"] == expected


def test_goals_are_met_by_measurements_on_a_device_alone(tmp_path):
    import gpu
    import gpu_goals

    case = {"size": 256, "transport": "shift", "forward_ms": 1.0}
    parts = {
        "kernels": {"results": [case | {"peer": "pendel", "variant": "kernels", "epoch_ms": 30.0, "device_MiB": 3072}]},
        "best": {"results": [case | {"peer": "best", "variant": "triton", "epoch_ms": 60.0}]},
        "eager": {"results": [case | {"peer": "eager", "variant": "eager", "epoch_ms": 600.0}]},
    }
    counted = [{"kernel": f"shift_{way}", "smsp__inst_executed.sum": 6.6e8} for way in ("forward", "adjoint")]
    parts["ncu"] = {"kernels": counted, "multiprocessors": 132, "point_steps": 256**4 // 8}
    results = {
        "commit": "c",
        "gpu": {"name": "NVIDIA H200", "clocks.max.sm": "1000 MHz"},
        "dry_run": False,
        "parts": parts,
    }
    results["goals"] = gpu_goals.goals(results)
    found = {g["goal"]: (g["measured"], g["met"]) for g in results["goals"]}
    assert found["epoch, 256 frames of 256^3, shift (ms)"] == (30, True)
    assert found["epoch, 256 frames of 256^3, fourier (ms)"] == (None, None)
    assert found["times faster than the best PyTorch, shift"] == (2, False)
    assert found["times faster than eager PyTorch, shift"] == (20, True)
    assert found["device memory of that gradient, shift (GiB)"] == (3, True)
    # 8 times the instructions of ncu's case, 1.056e10 in all, take 20 ms of 4 x 132 x 1 GHz
    assert found["the whole epoch's share of it at the highest clock, shift"] == (pytest.approx(20 / 30), True)
    assert found["the whole epoch's share of it at the highest clock, fourier"] == (None, None)
    assert any("NOT MET" in line for line in gpu_goals.table(results))
    assert {g["measured"] for g in gpu_goals.goals(results | {"dry_run": True})} == {None}
    gpu.write(tmp_path / "gpu.json", results)
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"] == parts and len(list(tmp_path.iterdir())) == 1


def test_a_part_that_hangs_is_stopped_and_what_it_measured_kept(tmp_path):
    import gpu

    text = "import time; print('RESULT {\"epoch_ms\": 1}', flush=True); time.sleep(60)"
    with open(tmp_path / "log", "w+b", buffering=0) as log:
        status, seconds, output = gpu.run([sys.executable, "-c", text], {}, 2, log)
    assert status is None and seconds < 10
    part = gpu.verdict("best", status, output, 2)
    assert part["status"] == "stopped" and part["results"] == [{"epoch_ms": 1}]


def test_medians_take_runs_in_turn():
    import gpu_common

    order = []
    found = gpu_common.medians(
        {"a": lambda: order.append(1), "b": lambda: order.append(2)}, lambda run: run() or 3.0, 5
    )
    assert found == {"a": 3, "b": 3, "repeats": 5} and np.array_equal(order, 6 * [1, 2])
