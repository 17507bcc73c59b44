"""Time of an epoch, and what goes over the wire, on one, two ... ranks of one thread each.

    python bench/ranks.py [--size 128] [--frames 128] [--ranks 1 2] [--batches 1 5] [--repeat 3] [--json FILE]

Voxels and pixels along each axis, a ball of a third of the box. For every number of minibatches of an epoch of
`pendel.reconstruct` a row without a communicator and one for each number of ranks: seconds (the fastest of some
epochs), how many times as fast as without, CPU seconds of the first rank (what tells on a busy machine; up to 2 ms a
call are waiting), collective calls and MB that it sends in an epoch, and the MB of the theory: (R - 1)/R of the
gradients with respect to S and |S| in the voxels where they are wanted, there and back. Numbers of the frames, and
nodes of the tree of groups that do not lie on one rank, come on top; a rank without a group sends less. Needs mpi4py
and mpiexec.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def problem(size, frames, comm):
    """(model, frames, start, support)."""
    import numpy as np
    import pendel
    from pendel.analysis import rocking_scans

    experiment, crystal = rocking_scans.rocking_scan("coplanar", pixels=size, frames=frames)
    shape, voxel = (size,) * 3, experiment.suggest_voxel()
    model = pendel.Model(experiment, crystal, shape, voxel, threads=1, comm=comm)
    z, y, x = ((np.arange(size) - size / 2) / (0.3 * size) for _ in range(3))
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= 1
    S = (inside * np.exp(0.5j * np.sin(3 * y))[:, None]).astype(model.dtype)
    data = model.intensities(S)
    return model, data * np.float32(1e6 / data.max()), (0.8 * np.abs(S)).astype(S.dtype), inside


def measure(args):
    """Of this process: {batches: (seconds, CPU seconds, calls, MB sent, MB of the theory) of an epoch}."""
    comm = None
    if args.worker == "ranks":
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    import pendel

    model, data, start, support = problem(args.size, args.frames, comm)
    ranks, found = model.ranks, {}
    for batches in args.batches:
        moments, counts = [], []

        def mark(*_, moments=moments, counts=counts):
            moments.append((time.perf_counter(), time.process_time()))
            counts.append((getattr(ranks, "exchanges", 0), getattr(ranks, "sent", 0)))

        quiet = {"shrink_wrap_every": 0, "progress": False, "callback": mark}
        pendel.reconstruct(model, data, None, start, support, epochs=args.repeat + 1, batches=batches, **quiet)
        pairs = zip(moments[:-1], moments[1:], strict=True)
        seconds, cpu = (min(spans) for spans in zip(*((b[0] - a[0], b[1] - a[1]) for a, b in pairs), strict=True))
        calls, sent = (b - a for a, b in zip(*counts[-2:], strict=True))
        wanted = int(support.sum()) * (model.dtype.itemsize + model.real_dtype.itemsize)
        theory = 2 * batches * wanted * (ranks.size - 1) / ranks.size
        found[batches] = seconds, cpu, calls, sent / 1e6, theory / 1e6
    if ranks.first:
        Path(args.result).write_text(json.dumps(found))


def started(args, count):
    """`measure` of ``count`` ranks; 0: of a process without a communicator."""
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
    if count and beside is None:
        sys.exit("mpiexec: expected an MPI launcher on the path, got none")
    launch = [beside, "-n", str(count)] if count else []
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PENDEL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        given = ["--size", args.size, "--frames", args.frames, "--repeat", args.repeat, "--batches", *args.batches]
        given += ["--result", result, "--worker", "ranks" if count else "alone"]
        subprocess.run([*launch, sys.executable, __file__, *map(str, given)], env=os.environ | one, check=True)
        return {int(batches): numbers for batches, numbers in json.loads(result.read_text()).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=("alone", "ranks"), help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure(args)
        return
    rows, found = [], {count: started(args, count) for count in [0, *args.ranks]}
    print(f"{args.size}^3 voxels, {args.frames} frames of {args.size} x {args.size} pixels")
    print("| batches | ranks | s per epoch | times as fast | CPU s | calls | MB sent | MB, theory |")
    print("|---" * 8 + "|")
    for batches in args.batches:
        for count, numbers in found.items():
            seconds, cpu, calls, sent, theory = numbers[batches]
            ratio = found[0][batches][0] / seconds
            times = f"{seconds:.4g} | {ratio:.2f} | {cpu:.4g}"
            print(f"| {batches} | {count or '-'} | {times} | {calls} | {sent:.3f} | {theory:.3f} |")
            row = {"batches": batches, "ranks": count, "seconds": seconds, "ratio": ratio, "cpu": cpu}
            rows.append(row | {"calls": calls, "MB": sent, "MB_theory": theory})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
