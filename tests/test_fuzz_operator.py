"""Calls of the operator from a seed, some of them in every run; ``python tests/fuzz_operator.py`` makes as many as
wanted, and ``tests/sanitize.sh`` makes them under sanitizers.
"""

import os
import signal
import time

import fuzz_operator
import numpy as np
import pytest
from pendel import TakagiTaupin
from pendel.base import checks
from pendel.operator.cpu_engine import Cpu
from pendel.operator.far_field import FarField

SEED = 1_000_000


def test_calls_end_in_finite_numbers_or_name_their_argument():
    wrong = fuzz_operator.search(count=300, seed=SEED)
    assert not wrong, "\n".join(wrong)


def test_most_calls_are_taken(monkeypatch):
    """Else everything would be refused at the door, and nothing tried."""
    taken = {}

    def count(what, *_):
        taken[what] = taken.get(what, 0) + 1

    monkeypatch.setattr(fuzz_operator, "expect_finite", count)
    for seed in range(SEED, SEED + 300):
        fuzz_operator.judge(seed)
    least = {"forward": 60, "adjoint": 30, "filter": 8, "far field, forward": 20, "intensities": 5, "misfit": 3}
    assert all(taken.get(what, 0) >= number for what, number in least.items()), taken


def test_the_same_seed_makes_the_same_calls():
    made = [fuzz_operator.operator_arguments(np.random.default_rng(5)) for _ in range(2)]
    assert repr(made[0]) == repr(made[1])


# What the judge is for.
def unnamed(_):
    fuzz_operator.refused({"S"}, lambda: checks.number("x", "1"))


def internal(_):
    return {}["key"]


def not_a_number(_):
    fuzz_operator.expect_finite("forward", np.array([1.0, np.nan]))


def unequal(_):
    fuzz_operator.expect_same("forward", np.zeros(3), np.array([0.0, 0.0, 5e-324]))


def skew(_):
    fuzz_operator.expect_adjoint("incident", (np.ones(4), np.ones(4)), (np.ones(4), 1.001 * np.ones(4)), False)


def work(_):
    begin = time.process_time()
    while time.process_time() - begin < 0.3:
        pass


@pytest.mark.parametrize(
    "case, message",
    [
        (unnamed, "names no argument"),
        (internal, "KeyError"),
        (not_a_number, "forward: NaN or infinity"),
        (unequal, "forward: other bits"),
        (skew, "adjoint identity"),
        (work, r"work: 0\.\d s"),
    ],
)
def test_calls_that_go_wrong_are_found(case, message, monkeypatch):
    monkeypatch.setattr(fuzz_operator, "LONGEST", 0.2)
    with pytest.raises(AssertionError, match=message):
        said = fuzz_operator.judge(0, [case])
        assert not said, said


def test_a_crash_is_found_and_the_next_seed_tried(monkeypatch, tmp_path):
    script = tmp_path / "fuzz.py"
    script.write_text(
        "import sys, os\n"
        f"sys.path.insert(0, {os.path.dirname(fuzz_operator.__file__)!r})\n"
        "import fuzz_operator\n"
        "def judge(seed):\n"
        f"    return os.kill(os.getpid(), {signal.SIGKILL:d}) if seed == 1 else 'odd' if seed == 3 else None\n"
        "fuzz_operator.judge = judge\n"
        "fuzz_operator.main()\n"
    )
    monkeypatch.setattr(fuzz_operator, "__file__", str(script))
    assert fuzz_operator.search(count=4, seed=0) == ["seed 1: ended with -9: ", "seed 3: odd"]


# What the search has found.
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["large", "small", "long"])
@pytest.mark.parametrize("check", [checks.number, checks.complex_number])
def test_an_integer_beyond_all_floats_is_refused_by_name(check, value):
    with pytest.raises(ValueError, match="^x: expected a number up to 1e308, got "):
        check("x", value)


@pytest.mark.parametrize(
    "name, value", [("centre_offset", 1.0), ("centre_offset", (1, 2, 3)), ("dtype", -1), ("dtype", "x")]
)
def test_the_far_field_names_what_it_refuses(name, value):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected "):
        FarField(**{"shape": (4, 4), "far_shape": 8, "detector_shape": (6, 6), name: value})


@pytest.mark.parametrize("name", ["E_h", "adj_F"])
def test_a_far_field_that_overflows_is_refused(name):
    far_field = FarField((4, 4), 8, (6, 6), roll=0.3)
    call = {"E_h": far_field.forward, "adj_F": far_field.adjoint}[name]
    shape = (2, 4, 4) if name == "E_h" else (2, 6, 6)
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=f"^{name}: expected values whose results"),
    ):
        call(np.full(shape, 3e38))


@pytest.mark.parametrize("shape", [(2**70, 1, 1), (10**400, 1, 1), (2**20, 2**20, 2**20)])
def test_a_shape_beyond_all_memory_is_refused(shape, gold, voxel_of):
    with pytest.raises(ValueError, match=r"^shape(\[0\])?: expected (an integer <=|at most) 281474976710656"):
        TakagiTaupin(shape=shape, voxel=voxel_of(gold["two_theta"]), **gold)


def test_an_angle_without_any_move_is_refused_in_words(gold):
    with pytest.raises(ValueError, match="^transport: expected 'fourier' or 'auto', got 'shift'.*, here 0$"):
        TakagiTaupin((2, 2, 2), (8e-9,) * 3, 1.5e-10, 5e-324, gold["chi_0"], gold["chi_h"], transport="shift")


def test_threads_beyond_all_machines_are_refused(gold, voxel_of):
    with pytest.raises(ValueError, match="^threads: expected an integer <= 65536, got "):
        TakagiTaupin(shape=(2, 2, 2), voxel=voxel_of(gold["two_theta"]), threads=2**31, **gold)


def test_a_matrix_counts_as_its_plain_array():
    from cube import make_model

    model = make_model(threads=1, size=8)
    S, data, given = np.ones(model.shape), np.full((8, 8, 8), 10.0), np.matrix(np.eye(8) > 0)
    assert model.misfit(S, data, given) == model.misfit(S, data, np.eye(8) > 0)


def test_an_array_beyond_memory_is_named():
    with pytest.raises(MemoryError, match="^dq: expected an array that fits into memory, got"):
        checks.array("dq", np.broadcast_to(np.float32(0), (2**44, 3)), (None, 3), float)


def test_a_sweep_beyond_memory_names_the_frames(gold, voxel_of, monkeypatch):
    op = TakagiTaupin(shape=(3, 2, 4), voxel=voxel_of(gold["two_theta"]), **gold)

    def forward(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Cpu, "forward", forward)
    with pytest.raises(MemoryError, match=r"^dq: expected frames whose sweep fits into memory .+, got 5 of shape"):
        op.forward(np.ones(op.shape), np.zeros((5, 3)))


def test_a_crystal_too_faint_to_be_scaled_is_refused():
    from cube import make_model

    model = make_model("complex128", threads=1, size=8)
    S, data = np.full(model.shape, 1e-160, complex), np.full((8, 8, 8), 10.0)
    for call in (lambda: model.misfit(S, data), lambda: model.loss_and_adjoint(S, data, scale=None)):
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="^scale: expected"):
            call()
