"""What pendel.torch and pendel.jax cost beside the bare operator: exit fields and the gradient of a given adj_E_h.

    python bench/glue.py [--size 64] [--frames 64] [--repeat 15] [--json FILE]

One thread, runs interleaved, all on the same work in one process; the gradients are compared before anything is timed.
The ratios are medians over rounds of a framework's time by the operator's in the same round, of the clock and of the
processor, which a busy machine disturbs less; the last one is that of the least processor times of all rounds. A
framework that is not installed is left out, and said to be.
"""

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path

import numpy as np
from pendel import TakagiTaupin


def case(size, frames):
    dx, two_theta = 8e-9, np.deg2rad(44.76)
    voxel = (dx / np.tan(two_theta), dx, dx)
    chi = {"chi_0": -9.407e-5 + 8.496e-6j, "chi_h": 5.2548e-5 - 5.9889e-6j}
    op = TakagiTaupin((size,) * 3, voxel, 1.5498e-10, two_theta, **chi, threads=1)
    rng = np.random.default_rng(1)
    S = ((0.5 + 0.5 * rng.random(op.shape)) * np.exp(1j * rng.normal(size=op.shape))).astype("complex64")
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    adj_E_h = rng.normal(size=(2, frames, *op.exit_shape)).astype("float32")
    return op, S, dq, adj_E_h[0] + 1j * adj_E_h[1]


def bare(op, S, dq, adj_E_h):
    def gradient():
        E_h, state = op.forward(S, dq, return_state=True)
        return E_h, op.adjoint(S, dq, adj_E_h, state=state).S

    return gradient


def in_torch(op, S, dq, adj_E_h):
    import torch
    from pendel.torch import takagi_taupin

    torch.set_num_threads(1)
    S, dq, adj_E_h = torch.tensor(S, requires_grad=True), torch.tensor(dq), torch.tensor(adj_E_h)

    def gradient():
        E_h = takagi_taupin(S, dq, op=op)
        return E_h, torch.autograd.grad(E_h, S, adj_E_h)[0].numpy()

    return gradient


def in_jax(op, S, dq, adj_E_h):
    import jax
    from jax import numpy as jnp
    from pendel.jax import takagi_taupin

    jax.config.update("jax_enable_x64", True)
    S, dq, adj_E_h = jnp.asarray(S), jnp.asarray(dq), jnp.asarray(adj_E_h.conj())

    @jax.jit
    def step(S, adj_E_h):
        E_h, pull = jax.vjp(lambda S: takagi_taupin(S, dq, op), S)
        return E_h, pull(adj_E_h)[0]

    return lambda: jax.block_until_ready(step(S, adj_E_h))


def seconds(function):
    """(clock, processor)."""
    start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    given = case(options.size, options.frames)

    ways = {"pendel": bare(*given)}
    for name, make in (("torch", in_torch), ("jax", in_jax)):
        if importlib.util.find_spec(name):
            ways[name] = make(*given)
        else:
            print(f"{name} is not installed")
    expected = ways["pendel"]()[1]
    for name, gradient in ways.items():
        found = np.conj(gradient()[1]) if name == "jax" else gradient()[1]
        difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert difference == 0, (name, difference)  # the same sweeps

    rounds = [{name: seconds(gradient) for name, gradient in ways.items()} for _ in range(options.repeat)]
    found = {"size": options.size, "frames": options.frames}
    for name in ways:
        for i, clock in enumerate(("clock", "processor")):
            found[f"{name}_{clock}_ms"] = 1e3 * statistics.median(r[name][i] for r in rounds)
            found[f"{name}_{clock}_ratio"] = statistics.median(r[name][i] / r["pendel"][i] for r in rounds)
        least = [min(r[way][1] for r in rounds) for way in (name, "pendel")]
        found[f"{name}_least_ratio"] = least[0] / least[1]
        print(
            f"{name:7} {found[f'{name}_clock_ms']:8.1f} ms, {found[f'{name}_clock_ratio']:.3f} of the operator; "
            f"processor {found[f'{name}_processor_ms']:.1f} ms, {found[f'{name}_processor_ratio']:.3f}; "
            f"least {1e3 * least[0]:.1f} ms, {found[f'{name}_least_ratio']:.3f}"
        )
    if options.json:
        temporary = options.json.with_suffix(".part")
        temporary.write_text(json.dumps(found, indent=1))
        temporary.replace(options.json)


if __name__ == "__main__":
    main()
