"""What the parts of the GPU bench share: the case, the small problem on which every code is checked first, medians.

A part prints one line ``RESULT {...}`` per number taken; `gpu.py` collects them, also from a part that was stopped.
"""

import json
import statistics
import time

import numpy as np
import pendel

TRANSPORTS = ("shift", "fourier")
TOLERANCE = 1e-4  # relative L2, complex64, of E_h and of the gradient against the CPU engine
GOLD = {"chi_0": -9.407e-5 + 8.4962e-6j, "chi_h": 5.2548e-5 - 5.9889e-6j}
# 20 times as strong, chi_hbar != chi_h: multiple scattering shows in five digits within a dozen layers.
STRONG = {"chi_0": 20 * GOLD["chi_0"], "chi_h": 1.1e-3 - 1e-4j, "chi_hbar": (0.8e-3 - 1.6e-4j) * np.exp(0.4j)}
CHECK = (12, 3, 21), 5  # shape, frames


class Skip(Exception):
    """Why a part cannot be run here."""


def operator(transport, shape, dtype="complex64", device="cpu", strong=False, **change):
    """Gold (002) at 8 nm and 8 keV; one pixel per layer, for `fourier` 0.83 in the strong (checking) case."""
    dx, two_theta = 8e-9, 0.7812
    pixels = 0.83 if strong and transport == "fourier" else 1
    angle = two_theta / 2 if change.get("orientation") == "symmetric" else two_theta
    voxel = (pixels * dx / np.tan(angle), dx, dx)
    return pendel.TakagiTaupin(
        shape, voxel, 1.5498e-10, two_theta, **(STRONG if strong else GOLD), transport=transport, dtype=dtype,
        device=device, **change,
    )  # fmt: skip


def problem(op, frames, seed=1):
    """S, s_0, dq and adj_E_h in NumPy: a rough crystal that fills the box, detuning by rocking."""
    rng = np.random.default_rng(seed)
    real = np.float32 if op.dtype == np.complex64 else np.float64
    modulus = 0.5 + 0.5 * rng.random(op.shape, real)
    S = (modulus * np.exp(1j * rng.standard_normal(op.shape, real))).astype(op.dtype)
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    shape = (frames, *op.exit_shape)
    adj_E_h = (rng.standard_normal(shape, real) + 1j * rng.standard_normal(shape, real)).astype(op.dtype)
    return S, modulus, dq, adj_E_h


def check(gradient):
    """Compare ``gradient(op, S, s_0, dq, adj_E_h) -> (E_h, adj_S)`` with the CPU engine, both transports.

    Returns {transport: (difference of E_h, of adj_S)}; raises AssertionError where one exceeds TOLERANCE.
    """
    found = {}
    shape, frames = CHECK
    for transport in TRANSPORTS:
        op = operator(transport, shape, strong=True)
        S, s_0, dq, adj_E_h = problem(op, frames)
        E_h, state = op.forward(S, dq, s_0, return_state=True)
        expected = E_h, op.adjoint(S, dq, adj_E_h, s_0, state=state).S
        got = [np.asarray(a) for a in gradient(op, S, s_0, dq, adj_E_h)]
        assert [a.shape for a in got] == [a.shape for a in expected]
        found[transport] = tuple(
            float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(got, expected, strict=True)
        )
        assert all(d < TOLERANCE for d in found[transport]), f"{transport}: E_h, adj_S differ by {found[transport]}"
    return found


def medians(runs, clock, repeat=7, seconds=8.0):
    """{name: median ms} of ``runs`` {name: function} taken in turn after one warm-up of each.

    ``clock(run)`` gives ms. Fewer repeats, but three at least, where they would take longer than ``seconds``.
    """
    for run in runs.values():
        clock(run)
    times, start = {name: [] for name in runs}, time.monotonic()
    for done in range(repeat):
        if done >= 3 and time.monotonic() - start > seconds:
            break
        for name, run in runs.items():
            times[name].append(clock(run))
    return {name: statistics.median(values) for name, values in times.items()} | {"repeats": len(times[name])}


def wall(run, finish=lambda: None):
    """ms by the wall clock; ``finish`` waits for the device."""
    finish()
    start = time.perf_counter()
    run()
    finish()
    return 1e3 * (time.perf_counter() - start)


def report(**result):
    print("RESULT " + json.dumps(result), flush=True)
