"""The parts of `race.py`, each a process of its own that takes its arguments as JSON and prints lines ``RESULT {...}``.

    python bench/race_parts.py time | memory | error | reconstruction '{"threads": 1, ...}'

`race.py` has told the process how many CPUs and threads it may use.
"""

import ctypes
import gc
import json
import statistics
import sys
from pathlib import Path

import gpu_common as common
import memory
import numpy as np
import race_peers as peers
from gpu_common import report
from race_peers import WAYS, seconds

# How many times finer than the middle voxels of accuracy.py: in z with `fourier`, in z and x with `shift`.
REFINED = {"fourier": (1 / 8, 1 / 4, 1 / 2, 1, 2, 4), "shift": (1 / 8, 1 / 4, 1 / 2, 1, 2)}


def limit_torch(names, threads):
    """PyTorch's own number of threads."""
    if any(WAYS[name].framework == "torch" for name in names):
        import torch

        torch.set_num_threads(threads)


def operator(name, transport, shape, dtype, threads, **change):
    """The operator that a way takes."""
    scheme = {} if WAYS[name].scheme == "strang" else {"scheme": WAYS[name].scheme}
    return common.operator(transport, shape, dtype, threads=threads, **scheme, **change)


def reference(name):
    """The way of pendel with the same scheme."""
    return "pendel" if WAYS[name].scheme == "strang" else "pendel-heun"


class Prepared:
    """The gradient by some ways on one problem, each compared with pendel's before anybody can time it."""

    def __init__(self, names, transport, shape, frames, dtype, threads):
        limit_torch(names, threads)
        self.points, self.runs, self.found = frames * int(np.prod(shape)), {}, {}
        expected = {}
        for name in names:
            op = operator(name, transport, shape, dtype, threads)
            given = common.problem(op, frames)
            if reference(name) not in expected:
                expected[reference(name)] = peers.make("pendel", op).gradient(*given)()
            way = peers.tuned(name, op, *given)
            self.runs[name] = way.gradient(*given)
            E_h, S = peers.differences(way.numpy(self.runs[name]()), expected[reference(name)])
            self.found[name] = {"rows_at_once": way.rows, "difference_E_h": E_h, "difference_S": S}


def time_part(ways, transport, dtype, threads, nx, rows, frames, repeat, budget):
    """ns per point-step of each way; its ratio is to pendel in the run just before."""
    prepared = Prepared(ways, transport, (nx, rows, nx), frames, dtype, threads)
    taken, own = {name: [] for name in ways}, {name: [] for name in ways}
    for _ in range(repeat):
        for name, run in prepared.runs.items():
            if sum(taken[name]) > budget:
                continue
            own[name].append(seconds(prepared.runs["pendel"]))
            taken[name].append(own[name][-1] if name == "pendel" else seconds(run))
    for name in ways:
        report(
            part="time", way=name, transport=transport, dtype=dtype, threads=threads, nx=nx, rows=rows, frames=frames,
            ns=1e9 * statistics.median(taken[name]) / prepared.points, repeats=len(taken[name]),
            ratio=statistics.median(t / p for t, p in zip(taken[name], own[name], strict=True)),
            **prepared.found[name],
        )  # fmt: skip


def memory_part(way, transport, dtype, threads, nx, rows, frames):
    """Peak resident set of one gradient less that before it: inputs are not counted, outputs are."""
    Prepared([way], transport, (16, rows, 16), 2, dtype, threads)  # code pages and thread stacks do not count
    op = operator(way, transport, (nx, rows, nx), dtype, threads)
    given = common.problem(op, frames)
    # One row at once is the least that autograd can do; what is compiled is compiled here.
    run = peers.make(way, op, 1 if peers.make(way, op).takes_chunks else None).gradient(*given)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = memory.resident("VmHWM")
    found = run()
    peak = memory.resident("VmHWM") - before
    peers.differences(peers.make(way, op).numpy(found), peers.make("pendel", op).gradient(*given)())
    report(
        part="memory", way=way, transport=transport, dtype=dtype, threads=threads, nx=nx, rows=rows, frames=frames,
        bytes=peak,
    )  # fmt: skip


def error_part(ways, transport, dtype, threads, frames, repeat, refined):
    """Error of E_h and time of the gradient on voxels of several sizes, crystal and truth of accuracy.py."""
    import accuracy

    limit_torch(ways, threads)
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(accuracy.DQ[0, 2], accuracy.DQ[-1, 2], frames)
    truths = {}
    for finer in REFINED[transport][:refined]:
        dx = accuracy.DX / (finer if transport == "shift" else 1)
        nx, nz = round(accuracy.NX * accuracy.DX / dx), round(accuracy.LAYERS * finer)
        if dx not in truths:
            truths[dx] = accuracy.truth(dx, nx, accuracy.STEPS, dq)
        shape, voxel = (nz, 1, nx), (accuracy.THICKNESS / nz, dx, dx)
        S = accuracy.crystal((np.arange(nx) - nx // 2) * dx, 0, voxel[0] * (np.arange(nz) + 0.5)[:, None, None])
        S = S.astype(dtype)
        adj_E_h = truths[dx].astype(dtype)
        for name in ways:
            op = accuracy.operator(shape, voxel, transport, WAYS[name].scheme, dtype, threads)
            way = peers.make(name, op)
            given = S, np.abs(S), dq, adj_E_h
            run = way.gradient(*given)
            E_h, adj_S = way.numpy(run())
            peers.differences((E_h, adj_S), peers.make("pendel", op).gradient(*given)())
            report(
                part="error", way=name, transport=transport, dtype=dtype, threads=threads, frames=frames, nz=nz, nx=nx,
                error=float(np.linalg.norm(E_h - truths[dx]) / np.linalg.norm(truths[dx])),
                seconds=statistics.median(seconds(run) for _ in range(repeat)),
            )  # fmt: skip


def reconstruction_part(ways, size, threads, epochs, budget):
    """The whole reconstruction by one way after the other."""
    import race_reconstruction

    limit_torch(ways, threads)
    for name in ways:
        problem = race_reconstruction.Problem(name, size, threads)
        found = race_reconstruction.reconstruct(problem, epochs, budget)
        report(part="reconstruction", way=name, size=size, threads=threads, **found)


PARTS = {"time": time_part, "memory": memory_part, "error": error_part, "reconstruction": reconstruction_part}


if __name__ == "__main__":
    PARTS[sys.argv[1]](**json.loads(sys.argv[2]))
