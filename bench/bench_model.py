"""Frames of a model and their gradient, and a few steps of what reconstructs, one thread: crystals of `memory.py`."""

import functools

import memory
import numpy as np
import pendel
import pytest

SIZES = (32, 64)  # voxels along each axis, pixels, and frames but one
STEPS = {"reconstruct": {"epochs": 2}, "lbfgs": {"iterations": 5}}


@functools.cache
def scan(n):
    return memory.scan(n, n)


def group(benchmark, what, n):
    benchmark.group = f"{what}, {n}^3 voxels, {n + 1} frames"


@pytest.mark.parametrize("n", SIZES)
def bench_intensities(benchmark, n):
    model, _, _, S = scan(n)
    group(benchmark, "frames", n)
    benchmark(model.intensities, S)


@pytest.mark.parametrize("n", SIZES)
def bench_evaluate(benchmark, n):
    model, frames, _, S = scan(n)
    fit, start = model.fit(frames), (0.8 * np.abs(S)).astype(S.dtype)
    group(benchmark, "loss and gradient", n)
    assert np.isfinite(benchmark(model.evaluate, start, fit, scale=None).loss)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("method", STEPS)
def bench_steps(benchmark, method, n):
    model, frames, _, S = scan(n)
    start = (0.8 * np.abs(S)).astype(S.dtype)
    count = next(iter(STEPS[method].values()))
    group(benchmark, f"{count} steps of {method}", n)
    run = functools.partial(getattr(pendel, method), model, frames, start=start, support=S != 0, progress=False)
    benchmark(run, **STEPS[method])
