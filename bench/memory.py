"""Peak memory of a gradient against layers and frames, beside `pendel.estimate_memory` and PyTorch autograd.

    python bench/memory.py [--transport shift fourier] [--nz 64 256 1024] [--frames 16 64 256] [--json FILE]
    python bench/memory.py --methods reconstruct lbfgs polish multiscale solve [--sizes 32 64 96] [--json FILE]

One process per number: its peak resident set (ru_maxrss) after forward + adjoint less that before, inputs excluded,
outputs included. PyTorch runs twice: all rows at once, and one y row at a time, which is the least autograd can do.
The C library is told to give freed arrays back at once; as it comes, PyTorch's peak is two to seven times as large.

With --methods the same of whole reconstructions of few steps: a box of that many voxels along each axis (half as many
for `solve`, which takes finer ones), as many detector pixels and one frame more, the C library as it comes. Beside data
and start; what is resident before, freed arrays given back, is taken off.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

# No NumPy here: on Linux a child's ru_maxrss starts from its parent's size at the fork.
ROWS, NX = 8, 128
CODES = ("pendel", "torch_row", "torch_all")
# complex64 arrays of (frames, rows, row length) that autograd keeps per layer, measured: for the skip of cases that
# would not fit.
KEPT = {"shift": 2.5, "fourier": 1.7}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def problem(transport, nz, frames):
    """Operator and inputs, made layer by layer so that making them leaves no peak of its own."""
    import numpy as np
    import pendel

    dx, two_theta = 8e-9, 0.7812
    op = pendel.TakagiTaupin(
        (nz, ROWS, NX), (dx / np.tan(two_theta), dx, dx), 1.5498e-10, two_theta, -9.407e-5 + 8.4962e-6j,
        5.2548e-5 - 5.9889e-6j, transport=transport, threads=2,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    S = np.empty(op.shape, op.dtype)
    for layer in S:
        layer[:] = rng.uniform(0.5, 1, layer.shape) * np.exp(1j * rng.normal(size=layer.shape))
    s_0 = np.empty(op.shape, "float32")
    np.abs(S, out=s_0)
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    return op, S, s_0, dq


def measure(code, transport, nz, frames):
    """(peak bytes of the gradient, bytes `estimate_memory` gives), in this process."""
    import numpy as np
    import pendel

    op, S, s_0, dq = problem(transport, nz, frames)
    small = problem(transport, 8, 2)  # a first call, so that code pages and thread stacks do not count
    small[0].adjoint(*small[1:2], small[3], np.ones((2, ROWS, NX), op.dtype), small[2])
    if code == "pendel":
        before = peak()
        adj_E_h = np.ones((frames, ROWS, NX), op.dtype)
        _, state = op.forward(S, dq, s_0, return_state=True)
        gradient = op.adjoint(S, dq, adj_E_h, s_0, state=state)
        assert np.isfinite(gradient.S).all()
    else:
        import peers
        import torch

        S, s_0, D = torch.from_numpy(S), torch.from_numpy(s_0), torch.from_numpy(dq[:, 2])
        peers.gradient(*map(torch.from_numpy, small[1:3]), D[:2], torch.ones((2, ROWS, NX)) + 0j, small[0].plan, ROWS)
        before = peak()
        adj_G = torch.full((frames, ROWS, NX), 1 + 0j, dtype=torch.complex64)
        gradient = peers.gradient(S, s_0, D, adj_G, op.plan, 1 if code == "torch_row" else ROWS)
        assert torch.isfinite(torch.view_as_real(gradient[1])).all()
    return peak() - before, pendel.estimate_memory(op, frames)


def scan(n, size):
    """(Model, frames without noise, the same as counts of 1e7 photons, S) of a ball of a 0.3rd of the box, strained."""
    import numpy as np
    import pendel
    from pendel.analysis import rocking_scans

    experiment, crystal = rocking_scans.rocking_scan("coplanar", pixels=n, frames=n + 1)
    model = pendel.Model(experiment, crystal, (size,) * 3, experiment.suggest_voxel())
    z, y, x = ((np.arange(size) - size / 2) / (0.3 * size) for _ in range(3))
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= 1
    S = (inside * np.exp(0.5j * np.sin(3 * y))[:, None]).astype(model.dtype)
    frames = model.intensities(S)
    counts = np.random.default_rng(0).poisson(frames * (1e7 / frames.sum(dtype=float)), frames.shape).astype(np.int32)
    return model, frames * np.float32(1e6 / frames.max()), counts, S


# Few steps, but as many as there are pairs of vectors to be kept.
STEPS = {
    "reconstruct": {"epochs": 2, "shrink_wrap_every": 1},
    "lbfgs": {"iterations": 12},
    "polish": {"rounds": 1, "iterations": (12, 12)},
    "multiscale": {"starts": 1, "trial_epochs": 1, "steps": 8, "rounds": 1, "iterations": (0, 12), "decide": 4},
    "solve": {"starts": 1, "trial_epochs": 1, "steps": 8, "rounds": 1, "iterations": (0, 4), "fine_rounds": 1},
}
STEPS["multiscale"] |= {"start": "kinematic", "counts": True}
STEPS["solve"] |= {"start": "kinematic", "fine_iterations": 12}


def measure_method(method, n):
    """(peak bytes of a method, bytes `estimate_memory` gives), in this process."""
    import ctypes

    import pendel
    from pendel.recipes.solve import solve_on

    def run(n):
        model, frames, counts, S = scan(n, n // 2 if method == "solve" else n)
        given = {"data": counts if method in ("multiscale", "solve") else frames, "progress": False} | STEPS[method]
        if "start" not in given:
            given["start"] = (0.8 * abs(S)).astype(S.dtype)  # far from the end, or no pairs of vectors are kept
        estimate = pendel.estimate_memory(model, method=method, **given, support=S != 0)
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
        before = resident("VmHWM")
        {"solve": solve_on}.get(method, getattr(pendel, method))(model, **given)
        return resident("VmHWM") - before, estimate

    run(24)  # a first call, so that code pages and what is made once do not count
    return run(n)


def resident(key):
    """Bytes under a key of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


# glibc: one heap for all threads. For one gradient, which is compared with PyTorch, own mappings for every array, too;
# whole reconstructions are measured as they run, with the holes that a heap has.
HEAP = {"MALLOC_ARENA_MAX": "1"}
MALLOC = HEAP | {"MALLOC_MMAP_THRESHOLD_": "65536"}


def child_method(method, n):
    """`measure_method` in a process of its own."""
    command = [sys.executable, __file__, "--child-method", method, str(n)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | HEAP)
    return json.loads(done.stdout)


def child(code, transport, nz, frames):
    command = [sys.executable, __file__, "--child", code, transport, str(nz), str(frames)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | MALLOC)
    if done.returncode and code == "pendel":
        raise SystemExit(f"memory.py: the case {command[3:]} ended with status {done.returncode}")
    return json.loads(done.stdout) if done.returncode == 0 else None  # PyTorch: out of memory, shown as -


def peaks(transport, nz, frames, limit):
    """Peak bytes by code, None where PyTorch ran out of memory or was expected above ``limit``; and the estimate."""
    row_length = NX + nz * (transport == "fourier")
    row = KEPT[transport] * 8 * nz * frames * row_length
    expected = {"pendel": 0, "torch_row": row, "torch_all": ROWS * row}

    result = {"transport": transport, "nz": nz, "frames": frames}
    for code in CODES:
        measured = child(code, transport, nz, frames) if expected[code] <= limit else None
        result[code] = measured and measured[0]
        if code == "pendel":
            result["estimate"] = measured[1]
    return result


def line(result):
    """A result as a line of the table."""
    mib = {key: value / 2**20 for key, value in result.items() if key in (*CODES, "estimate") and value}
    torch_row, torch_all = (f"{mib[code]:.0f}" if code in mib else "-" for code in CODES[1:])
    ratio = f"{mib['torch_all'] / mib['pendel']:.0f}" if "torch_all" in mib else "-"
    return (
        f"{result['transport']:9s} {result['nz']:4d} {result['frames']:6d} |"
        f" {mib['pendel']:7.1f} {mib['estimate']:8.1f} {mib['estimate'] / mib['pendel']:6.2f} |"
        f" {torch_row:>12s} {torch_all:>16s} | {ratio:>17s}"
    )


def of_methods(methods, sizes):
    """Prints and gives peak and estimate of methods at sizes."""
    print("method       size |  peak MiB  estimate  ratio")
    results = []
    for method, n in itertools.product(methods, sizes):
        peak, estimate = child_method(method, n)
        results.append({"method": method, "size": n, "peak": peak, "estimate": estimate})
        print(f"{method:12s} {n:4d} | {peak / 2**20:9.1f} {estimate / 2**20:9.1f} {estimate / peak:6.2f}", flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transport", nargs="+", choices=("shift", "fourier"), default=["shift"])
    parser.add_argument("--nz", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--limit-gb", type=float, default=12.0, help="leave out PyTorch cases expected above this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--methods", nargs="+", choices=tuple(STEPS), default=[])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--child-method", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child_method:
        method, n = args.child_method
        print(json.dumps(measure_method(method, int(n))))
        return
    if args.child:
        code, transport, nz, frames = args.child
        print(json.dumps(measure(code, transport, int(nz), int(frames))))
        return

    if args.methods:
        results = of_methods(args.methods, args.sizes)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))
        return

    print(f"peak MiB of one gradient, complex64, {ROWS} rows of {NX} pixels, two threads")
    print("transport   nz frames |  pendel estimate  ratio | torch, a row  torch, all rows | all rows / pendel")
    results = []
    for case in itertools.product(args.transport, args.nz, args.frames):
        results.append(peaks(*case, 1e9 * args.limit_gb))
        print(line(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
