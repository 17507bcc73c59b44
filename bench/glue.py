"""What pendel.torch and pendel.jax cost beside the bare operator: one gradient of sum |E_h|^2, and its parts.

    python bench/glue.py [--size 64] [--frames 64] [--repeat 15] [--json FILE]

One thread, runs interleaved, all on the same work in one process; the gradients are compared before anything is timed.
The ratio is the median over rounds of a framework's time by the operator's in the same round; the loss itself is in
both. A framework that is not installed is left out, and said to be.
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
    return op, S, dq


def bare(op, S, dq):
    """Of the operator itself, with NumPy's loss."""

    def gradient():
        E_h, state = op.forward(S, dq, return_state=True)
        loss = np.vdot(E_h, E_h).real
        return loss, op.adjoint(S, dq, 2 * E_h, state=state).S

    return gradient


def in_torch(op, S, dq):
    import torch
    from pendel.torch import takagi_taupin

    torch.set_num_threads(1)
    S, dq = torch.tensor(S, requires_grad=True), torch.tensor(dq)

    def gradient():
        E_h = takagi_taupin(S, dq, op=op)
        loss = torch.view_as_real(E_h).square().sum()
        return loss.item(), torch.autograd.grad(loss, S)[0].numpy()

    return gradient


def in_jax(op, S, dq):
    import jax
    from jax import numpy as jnp
    from pendel.jax import takagi_taupin

    jax.config.update("jax_enable_x64", True)
    S, dq = jnp.asarray(S), jnp.asarray(dq)

    def loss(S):
        E_h = takagi_taupin(S, dq, op)
        return (E_h.real**2 + E_h.imag**2).sum()

    step = jax.jit(jax.value_and_grad(loss))

    def gradient():
        value, found = step(S)
        return float(value), np.conj(found)

    return gradient


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    op, S, dq = case(options.size, options.frames)

    ways = {"pendel": bare(op, S, dq)}
    for name, make in (("torch", in_torch), ("jax", in_jax)):
        if importlib.util.find_spec(name):
            ways[name] = make(op, S, dq)
        else:
            print(f"{name} is not installed")
    expected = ways["pendel"]()[1]
    for name, gradient in ways.items():
        difference = np.linalg.norm(gradient()[1] - expected) / np.linalg.norm(expected)
        assert difference < 1e-6, (name, difference)  # the loss is summed in another order

    rounds = [{name: seconds(gradient) for name, gradient in ways.items()} for _ in range(options.repeat)]
    found = {"size": options.size, "frames": options.frames}
    for name in ways:
        found[f"{name}_ms"] = 1e3 * statistics.median(r[name] for r in rounds)
        found[f"{name}_ratio"] = statistics.median(r[name] / r["pendel"] for r in rounds)
        print(f"{name:7} {found[f'{name}_ms']:8.1f} ms   {found[f'{name}_ratio']:.3f} of the operator")
    if options.json:
        temporary = options.json.with_suffix(".part")
        temporary.write_text(json.dumps(found, indent=1))
        temporary.replace(options.json)


if __name__ == "__main__":
    main()
