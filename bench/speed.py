"""Forward + adjoint, ns per point-step per core, beside the closed-form PyTorch autograd version on the same work.

    python bench/speed.py [--size 128] [--frames 64] [--rows 16] [--repeat 5] [--json FILE]

One thread each, runs interleaved, medians; the two gradients are compared before anything is timed. The PyTorch
version takes rows in the chunk that is fastest; --one-graph times it too as it is written first, all rows of a cube in
one graph, whose stored fields leave the caches.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import peers
import pendel
import torch
from pendel import TakagiTaupin


def case(transport, size, rows, frames):
    dx, two_theta = 8e-9, 0.7812
    dz = dx / np.tan(two_theta)
    op = TakagiTaupin(
        (size, rows, size), (dz, dx, dx), 1.5498e-10, two_theta, -9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j,
        transport=transport, threads=1,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    S = ((0.5 + 0.5 * rng.random(op.shape)) * np.exp(1j * rng.normal(size=op.shape))).astype("complex64")
    s_0 = np.abs(S)
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    adj = (rng.normal(size=(frames, rows, size)) + 1j * rng.normal(size=(frames, rows, size))).astype("complex64")
    return op, S, s_0, dq, adj


def compare(transport, size, rows, frames, repeat):
    op, S, s_0, dq, adj = case(transport, size, rows, frames)
    St, st, Dt, at = torch.from_numpy(S), torch.from_numpy(s_0), torch.from_numpy(dq[:, 2]), torch.from_numpy(adj)
    points = S.size * frames

    def pendel_gradient():
        E_h, state = op.forward(S, dq, s_0, return_state=True)
        return op.adjoint(S, dq, adj, s_0, state=state).S

    reference = peers.gradient(St, st, Dt, at, op.plan, 1)[1].numpy()
    difference = float(np.linalg.norm(pendel_gradient() - reference) / np.linalg.norm(reference))
    assert difference < 1e-3, difference

    chunks = [c for c in (1, 2, 4, 8, 16) if c <= rows]
    chunk = min(chunks, key=lambda c: _seconds(lambda: peers.gradient(St, st, Dt, at, op.plan, c)))
    ours, theirs = [], []
    for _ in range(repeat):
        ours.append(_seconds(pendel_gradient))
        theirs.append(_seconds(lambda: peers.gradient(St, st, Dt, at, op.plan, chunk)))
    ns = 1e9 / points
    return {
        "transport": transport, "shape": list(op.shape), "frames": frames, "row_length": op.row_length,
        "pendel_ns": statistics.median(ours) * ns, "torch_ns": statistics.median(theirs) * ns,
        "torch_rows_per_chunk": chunk,
        "ratio": statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), "gradient_difference": difference,
    }  # fmt: skip


def one_graph(transport, size, frames, repeat):
    op, S, s_0, dq, adj = case(transport, size, size, frames)
    St, st, Dt, at = torch.from_numpy(S), torch.from_numpy(s_0), torch.from_numpy(dq[:, 2]), torch.from_numpy(adj)

    def pendel_gradient():
        E_h, state = op.forward(S, dq, s_0, return_state=True)
        op.adjoint(S, dq, adj, s_0, state=state)

    def torch_gradient():
        peers.gradient(St, st, Dt, at, op.plan, size)

    pendel_gradient(), torch_gradient()
    times = [(_seconds(pendel_gradient), _seconds(torch_gradient)) for _ in range(repeat)]
    ns = 1e9 / (S.size * frames)
    return {
        "transport": transport, "shape": list(op.shape), "frames": frames, "one_graph": True,
        "pendel_ns": statistics.median(a for a, _ in times) * ns,
        "torch_ns": statistics.median(b for _, b in times) * ns,
        "ratio": statistics.median(b / a for a, b in times),
    }  # fmt: skip


def _seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--one-graph", action="store_true", help="also all rows of a cube in one graph (16 frames, 128 at most)"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"pendel {pendel.__version__} ({pendel.info()['cpu instruction set']}), torch {torch.__version__}, one core")
    print("transport  nx=nz  rows frames | pendel ns  torch ns  ratio | gradients differ by")
    results = []
    for size in args.size:
        for transport in ("shift", "fourier"):
            r = compare(transport, size, args.rows, args.frames, args.repeat)
            results.append(r)
            print(
                f"{transport:9s} {size:6d} {args.rows:5d} {args.frames:6d} | {r['pendel_ns']:9.3f} {r['torch_ns']:9.2f}"
                f" {r['ratio']:6.1f} | {r['gradient_difference']:.1e}",
                flush=True,
            )
    for size in (n for n in args.size if args.one_graph and n <= 128):  # 68 bytes per point-step
        for transport in ("shift", "fourier"):
            r = one_graph(transport, size, 16, args.repeat)
            results.append(r)
            print(
                f"{transport:9s} {size:6d} {size:5d} {16:6d} | {r['pendel_ns']:9.3f} {r['torch_ns']:9.2f}"
                f" {r['ratio']:6.1f} | one graph",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
