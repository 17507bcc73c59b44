"""The README: no longer than one reads, and what it shows runs."""

import re
from pathlib import Path

import numpy as np
import pendel
import pytest

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_it_is_short():
    lines = TEXT.splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 120


def test_its_files_are_there():
    for target in re.findall(r"\]\(([^)#:]+)", TEXT):
        assert (Path(__file__).parents[1] / target).exists(), target


def test_the_examples_run():
    _, example, operator = BLOCKS
    quick = example.replace("multiscale(model, data)", "multiscale(model, data, steps=60, starts=1, progress=False)")
    assert quick != example
    names = {}
    exec(quick, names)  # noqa: S102
    exec(operator, names)  # noqa: S102
    assert names["result"].misfit < 1e-4

    # the operator's gradient is that of its loss
    op, S, dq = names["op"], names["S"], names["experiment"].dq
    step = 1e-3 * S * np.exp(1j * np.linspace(0, 2, S.shape[2]))

    def loss(S):
        F = np.fft.fft2(op.forward(S.astype(np.complex64), dq).astype(complex), norm="ortho")
        return (np.abs(F) ** 4).sum() / 4

    slope = (loss(S + step) - loss(S - step)) / 2
    # complex64 sums of 48 frames; the difference is of the second order in 1e-3
    assert np.vdot(names["gradient"], step).real == pytest.approx(slope, rel=1e-3)
    assert isinstance(names["gradient"], np.ndarray) and pendel.TakagiTaupin is type(op)
