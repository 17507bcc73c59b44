"""Times of the CUDA engine, of `Model` and of `reconstruct` on a GPU in ms, medians, as JSON; memory in MiB.

    python bench/gpu.py [--size 128 256] [--frames 256] [--repeat 7] [--json FILE] [--only operator | model]
    python bench/gpu.py --small     one forward and adjoint of each kernel, for compute-sanitizer
    python bench/gpu.py --dry-run   the same path on the CPU engine at a size that takes no time: no figure of a GPU

Cubes of size^3 voxels, gold at 8 nm; the model's frames have size^2 pixels. CUDA events for the operator and
`Model.evaluate` (all frames, best scale), the clock between callbacks for epochs of `reconstruct` (5 groups of frames,
total variation, shrink-wrap every 10 epochs). Memory is the peak of CuPy's pool above the inputs. Not yet run on a GPU.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import pendel


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


def case(transport, shape, frames, cupy, dtype="complex64"):
    dx, two_theta = 8e-9, 0.7812
    op = pendel.TakagiTaupin(
        shape, (dx / np.tan(two_theta), dx, dx), 1.5498e-10, two_theta, -9.407e-5 + 8.4962e-6j,
        5.2548e-5 - 5.9889e-6j, transport=transport, dtype=dtype, device="cpu" if cupy is None else "cuda",
    )  # fmt: skip
    rng = np.random.default_rng(1)
    S = (rng.uniform(0.5, 1, shape) * np.exp(1j * rng.normal(size=shape))).astype(dtype)
    dq = np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    adj_E_h = np.ones((frames, *op.exit_shape), dtype)
    return op, *(a if cupy is None else cupy.asarray(a) for a in (S, dq, adj_E_h))


def measure(transport, size, frames, repeat, cupy):
    op, S, dq, adj_E_h = case(transport, (size, size, size), frames, cupy)
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
    result = {"transport": transport, "size": size, "frames": frames, "row_length": op.row_length}
    result |= {name: statistics.median(values) for name, values in times.items()}
    result["point_steps_per_second"] = S.size * frames / result["epoch_ms"] * 1e3
    if pool:
        result["memory_MiB"] = (pool.total_bytes() - before) / 2**20
        result["estimated_MiB"] = pendel.estimate_memory(op, frames) / 2**20
    return result


def scan(transport, size, frames, cupy):
    """Model of a cube of gold that fills most of its box, its crystal function, and counts of it."""
    dx, two_theta, wavelength, pixel_size = 8e-9, 0.7812, 1.5498e-10, 55e-6
    experiment = pendel.Experiment(
        wavelength=wavelength, distance=dx * size * pixel_size / wavelength, pixel_size=pixel_size,
        detector_shape=(size, size), arm=(("y+", two_theta),),
        rocking_angles=np.linspace(-1, 1, frames) * 1.5498e-10 / (4 * size * dx * np.sin(two_theta / 2)) * frames / 2,
        beam_polarization="horizontal",
    )  # fmt: skip
    crystal = pendel.Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j)
    device = "cpu" if cupy is None else "cuda"
    model = pendel.Model(
        experiment, crystal, (size,) * 3, experiment.suggest_voxel(transport=transport), {"sigma": 1.0},
        transport=transport, device=device,
    )  # fmt: skip
    S = pendel.phantom.cube(model.shape, model.voxel, edge=0.7 * size * dx).astype(np.complex64)
    places = np.array([(0.2, 0.1, -0.2)]) * size * dx
    S *= np.exp(1j * pendel.phantom.bumps(model.shape, model.voxel, places, [0.2 * size * dx], [1.5])).astype(S.dtype)
    given = S if cupy is None else cupy.asarray(S)
    data = model.intensities(given)
    return model, S, given, data * (1e5 / float(data.max()))


def measure_model(transport, size, frames, repeat, cupy):
    model, start, S, data = scan(transport, size, frames, cupy)
    timer, pool = Timer(cupy), None if cupy is None else cupy.get_default_memory_pool()
    result = {"transport": transport, "size": size, "frames": frames, "pixels": size * size}

    def peak(name, run):
        """Run it, and note how much CuPy's pool grew."""
        if pool:
            pool.free_all_blocks()
            before = pool.total_bytes()
        value = run()
        if pool:
            result[f"{name}_MiB"] = (pool.total_bytes() - before) / 2**20
        return value

    def evaluate():
        model.evaluate(S, data, scale=None)

    peak("evaluate", evaluate)
    result["evaluate_ms"] = statistics.median(timer(evaluate) for _ in range(repeat))
    for name, options in (("", {"atv_weight": 0.01}), ("_without_atv", {})):
        ends = []

        def run(options=options, ends=ends):
            pendel.reconstruct(
                model, data, None, start, epochs=repeat + 2, shrink_wrap_every=10, progress=False,
                callback=lambda *_: ends.append(time.perf_counter()), **options,
            )  # fmt: skip

        peak(f"reconstruct{name}", run)
        result[f"reconstruct{name}_epoch_ms"] = 1e3 * statistics.median(np.diff(ends))  # the first epoch warms up
    return result


def small(cupy):
    """Every kernel once: both precisions, and for shift every number of columns a thread may take."""
    for dtype, columns in (("complex64", (40, 513, 1025, 2049)), ("complex128", (40, 257, 513))):
        for transport, widths in (("shift", columns), ("fourier", (40, 600))):
            for nx in widths:
                op, S, dq, adj_E_h = case(transport, (3, 2, nx), 9, cupy, dtype)
                gradient = op.adjoint(S, dq, adj_E_h).S
                assert bool(abs(gradient).max() > 0), (dtype, transport, nx)
                print(f"{dtype} {transport} nx = {nx}: done", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--only", choices=("operator", "model"))
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
        for transport in ("shift", "fourier"):
            for what, take in (("operator", measure), ("model", measure_model)):
                if args.only in (None, what):
                    result = {"of": what} | take(transport, size, args.frames, args.repeat, cupy)
                    results["cases"].append(result)
                    print(json.dumps(result), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
