"""Arguments are checked where a public function takes them, and nowhere on the way down to the engine."""

import sys
from pathlib import Path

import numpy as np
import pytest
from cube import QUIET, make_model
from pendel import multiscale, reconstruct
from pendel.base import arrays, checks

LOOPS = {("minibatch.py", "_epoch"), ("quasi_newton.py", "function")}  # one evaluation of frames and its step


def asked_in_loops(run):
    """{function of base/checks.py, or that copies between host and device} called below an evaluation, by caller."""
    seen, watched = set(), {checks.__file__}
    evaluations = 0

    def watch(frame, event, _):
        nonlocal evaluations
        if event != "call":
            return
        code = frame.f_code
        evaluations += (Path(code.co_filename).name, code.co_name) in LOOPS
        copies = code.co_filename == arrays.__file__ and code.co_name == "host"
        if code.co_filename not in watched and not copies:
            return
        above = frame.f_back
        while above is not None:
            if (Path(above.f_code.co_filename).name, above.f_code.co_name) in LOOPS:
                seen.add((code.co_name, frame.f_back.f_code.co_name))
            above = above.f_back

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen, evaluations


@pytest.fixture(scope="module")
def scan():
    model = make_model(threads=1)
    S = np.ones(model.shape, model.dtype)
    frames = model.intensities(S)
    model.loss_and_adjoint(S, frames)  # what an operator makes at its first adjoint, and keeps
    return model, np.random.default_rng(0).poisson(frames * (1e4 / frames.max())).astype(np.int32)


# the numbers of an epoch are read once, at its end
ONCE_AN_EPOCH = {("host", "_record")}


def test_nothing_is_checked_again_between_multiscale_and_the_engine(scan):
    model, data = scan
    support = np.ones(model.shape, bool)
    few = {"starts": 1, "steps": 10, "rounds": 2, "iterations": (2, 3), "seed": 1} | QUIET
    for options in ({}, {"counts": True}):
        run = {"start": "flat", "support": support, "levels": 0} | few | options
        seen, evaluations = asked_in_loops(lambda run=run: multiscale(model, data, **run))
        assert evaluations > 10 and seen <= ONCE_AN_EPOCH


def test_nothing_is_checked_again_between_reconstruct_and_the_engine(scan):
    model, data = scan
    options = {"epochs": 4, "atv_weight": 0.1, "refine_angles": True, "refine_after": 0, "free_fraction": 0.1} | QUIET
    seen, evaluations = asked_in_loops(lambda: reconstruct(model, data, **options))
    assert evaluations == 4 and seen <= ONCE_AN_EPOCH


def test_the_watch_sees_what_it_is_for(scan):
    _, data = scan
    code = compile("def _epoch():\n    call()", str(Path("somewhere", "minibatch.py")), "exec")
    scope = {"call": lambda: (checks.number("rate", 1.0), arrays.host(data))}
    exec(code, scope)
    seen, evaluations = asked_in_loops(scope["_epoch"])
    assert evaluations == 1 and {name for name, _ in seen} == {"number", "host"}
