"""Forward, adjoint and epoch (both) of the CUDA engine in ms, CUDA events, medians, as JSON.

    python bench/gpu.py [--size 128 256] [--frames 256] [--repeat 7] [--json FILE]
    python bench/gpu.py --small     one forward and adjoint of each kernel, for compute-sanitizer
    python bench/gpu.py --dry-run   the same path on the CPU engine at a size that takes no time: no figure of a GPU

Cubes of size^3 voxels, gold at 8 nm. Rows "unfused" march layer by layer what the fused kernels march on chip: what
fusing gains; etd2rk and symmetric have no fused kernels. Memory is the peak of CuPy's pool above the inputs. Not yet
run on a GPU.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import pendel

# Beside transport shift and fourier: what goes layer by layer, and what makes its operator.
UNFUSED = {
    "shift, unfused": {"transport": "shift"},
    "fourier, cuFFT unfused": {"transport": "fourier"},
    "symmetric, shift": {"transport": "shift", "orientation": "symmetric"},
    "symmetric, fourier": {"transport": "fourier", "orientation": "symmetric"},
    "etd2rk": {"transport": "fourier", "scheme": "etd2rk"},
}


class Timer:
    """Milliseconds between start and stop: CUDA events where there is CuPy, the wall clock in a dry run."""

    def __init__(self, cupy):
        self.cupy = cupy

    def __call__(self, run):
        if self.cupy is None:
            start = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - start)
        events = [self.cupy.cuda.Event(), self.cupy.cuda.Event()]
        events[0].record()
        run()
        events[1].record()
        events[1].synchronize()
        return self.cupy.cuda.get_elapsed_time(*events)


def case(kind, shape, frames, cupy, dtype="complex64", chunk=0):
    dx, two_theta = 8e-9, 0.7812
    change = UNFUSED.get(kind, {"transport": kind})
    tan = np.tan(two_theta / 2 if "orientation" in change else two_theta)
    op = pendel.TakagiTaupin(
        shape, (dx / tan, dx, dx), 1.5498e-10, two_theta, -9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j,
        dtype=dtype, device="cpu" if cupy is None else "cuda", **change,
    )  # fmt: skip
    op._plan |= {"unfused": kind in UNFUSED, "chunk": chunk}
    rng = np.random.default_rng(1)
    S = (rng.uniform(0.5, 1, shape) * np.exp(1j * rng.normal(size=shape))).astype(dtype)
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    adj_E_h = np.ones((frames, *op.exit_shape), dtype)
    return op, *(a if cupy is None else cupy.asarray(a) for a in (S, dq, adj_E_h))


def measure(kind, size, frames, repeat, cupy):
    op, S, dq, adj_E_h = case(kind, (size, size, size), frames, cupy)
    timer, pool = Timer(cupy), None if cupy is None else cupy.get_default_memory_pool()
    before = pool.used_bytes() if pool else 0
    if pool:
        pool.free_all_blocks()
    times = {"forward_ms": [], "adjoint_ms": [], "epoch_ms": []}
    for run in range(repeat + 1):
        state = op.forward(S, dq, return_state=True)[1]

        def epoch():
            op.adjoint(S, dq, adj_E_h, state=op.forward(S, dq, return_state=True)[1])

        taken = (
            timer(lambda: op.forward(S, dq, return_state=True)),
            timer(lambda state=state: op.adjoint(S, dq, adj_E_h, state=state)),
            timer(epoch),
        )
        if run:  # the first warms up
            for values, value in zip(times.values(), taken, strict=True):
                values.append(value)
        del state
    result = {"kind": kind, "size": size, "frames": frames, "row_length": op.row_length}
    result |= {name: statistics.median(values) for name, values in times.items()}
    result["point_steps_per_second"] = S.size * frames / result["epoch_ms"] * 1e3
    if pool:
        result["memory_MiB"] = (pool.total_bytes() - before) / 2**20
        result["estimated_MiB"] = pendel.estimate_memory(op, frames) / 2**20
    return result


def small(cupy):
    """Every kernel: both precisions, for shift every number of columns a thread may take, two chunks of frames."""
    for dtype, columns in (("complex64", (40, 513, 1025, 2049)), ("complex128", (40, 257, 513))):
        for transport, widths in (("shift", columns), ("fourier", (40, 600))):
            for nx in widths:
                op, S, dq, adj_E_h = case(transport, (3, 2, nx), 9, cupy, dtype)
                gradient = op.adjoint(S, dq, adj_E_h).S
                assert bool(abs(gradient).max() > 0), (dtype, transport, nx)
                print(f"{dtype} {transport} nx = {nx}: done", flush=True)
        for kind in UNFUSED:
            op, S, dq, adj_E_h = case(kind, (3, 2, 40), 9, cupy, dtype, chunk=5)
            gradient = op.adjoint(S, dq, adj_E_h).S
            assert bool(abs(gradient).max() > 0), (dtype, kind)
            print(f"{dtype} {kind}: done", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    cupy = None
    if args.dry_run:
        args.size, args.frames, args.repeat = [8], 4, 1
    else:
        import cupy
    if args.small:
        return small(cupy)
    commit = subprocess.run(
        ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    results = {"commit": commit.stdout.strip(), "dry_run": args.dry_run, "info": pendel.info(), "cases": []}
    for size in args.size:
        for kind in ("shift", "fourier", *UNFUSED):
            result = measure(kind, size, args.frames, args.repeat, cupy)
            results["cases"].append(result)
            print(json.dumps(result), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
