"""pendel's CUDA engine alone: forward, adjoint and epoch (both) in ms, device memory, small cases for the sanitizer.

    python bench/gpu_pendel.py kernels [--size 256 128] [--frames 256]    the kernels, through the driver, without CuPy
    python bench/gpu_pendel.py unfused ...                                layer by layer, rows through cuFFT
    python bench/gpu_pendel.py cupy ...                                   TakagiTaupin on CuPy arrays
    python bench/gpu_pendel.py model ...                                  Model.evaluate, and epochs of reconstruct
    python bench/gpu_pendel.py memory                                     device memory against layers
    python bench/gpu_pendel.py small                                      every kernel once, for compute-sanitizer
    python bench/gpu_pendel.py once --transport shift                     one epoch, for ncu

``--emulate`` runs the kernels' text in the tests' emulator, on the CPU: it shows that this file works, nothing else.
`model` runs on the CPU then. All but `model`, `small`, `once` compare with the CPU engine first.
"""

import argparse
import dataclasses
import importlib
import sys
import tempfile
import time
from pathlib import Path

import gpu_common as common
import gpu_driver
import numpy as np
import pendel
from gpu_common import Skip
from pendel.operator import cuda_engine
from pendel.operator.plan import Launch

# What the engine marches layer by layer: the fused kernels' own two cases (what fusing gains), and what has no others.
UNFUSED = {
    "shift": {},
    "fourier": {},
    "symmetric, shift": {"orientation": "symmetric"},
    "symmetric, fourier": {"orientation": "symmetric"},
    "etd2rk, fourier": {"scheme": "etd2rk"},
}


def load_cufft(cuda, memory):
    """Load cuFFT, or Skip. The emulated engine has one inside."""
    if isinstance(memory, gpu_driver.Host):
        cuda.load_cufft(cuda.path)
        return
    try:
        cuda_engine.load_cufft(cuda)
    except RuntimeError as error:
        raise Skip(str(error)) from None


class Kernels:
    """Both sweeps of `_cuda` on arrays that a Driver (or Host) holds, called as the operator calls them."""

    def __init__(self, cuda, memory, op, frames, inputs, without_fusion=False, chunk=0):
        S, s_0, dq, adj_E_h = inputs
        self.cuda, self.memory = cuda, memory
        nz, ny, nx = op.shape
        real = s_0.dtype
        launch = Launch(device=0, unfused=without_fusion, chunk=chunk)
        plan = dataclasses.replace(op.plan, frames=frames, launch=launch)
        if cuda.needs_cufft(plan, adjoint=True):
            load_cufft(cuda, memory)
        self.given = {"dq": dq, "S": S, "s_0": s_0}
        self.given = {name: memory.upload(a) for name, a in self.given.items()} | {"incident": None}
        self.adj_E_h = memory.upload(adj_E_h)
        self.state = {
            "E_h": memory.empty((frames, *op.exit_shape), op.dtype),
            "E_0": memory.empty((frames, ny, op.row_length), op.dtype),
            "layers": None,
        }
        self.out = {
            "adj_S": memory.empty(op.shape, op.dtype),
            "adj_s_0": memory.empty(op.shape, real),
            "adj_incident": memory.empty((ny, op.row_length), op.dtype),
            "adj_dq": memory.empty((ny, frames, 3), np.float64),
            "drift": memory.upload(np.zeros(ny)),
        }
        self.workspace = max(cuda.workspace(plan, adjoint) for adjoint in (False, True))
        launch = dataclasses.replace(launch, workspace=memory.empty(self.workspace, np.uint8))
        self.plan = dataclasses.replace(plan, launch=launch)

    def forward(self):
        self.cuda.forward(self.plan, **self.given, **self.state)

    def adjoint(self):
        self.cuda.adjoint(self.plan, **self.given, **self.state, adj_E_h=self.adj_E_h, **self.out)

    def epoch(self):
        self.forward(), self.adjoint()


def emulated():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from emulated import Emulated, build

    return Emulated(build(Path(tempfile.mkdtemp()))).module


def kernels_of(args):
    """(_cuda, memory)."""
    if args.emulate:
        return emulated(), gpu_driver.Host()
    try:
        cuda = importlib.import_module("pendel.operator._cuda")
    except ImportError as error:
        raise Skip(f"pendel without its CUDA engine: {error}") from None
    if "problem" in cuda.state():
        raise Skip(cuda.state()["problem"])
    return cuda, gpu_driver.Driver()


def check_kernels(cuda, memory, without_fusion):
    def gradient(op, S, s_0, dq, adj_E_h):
        run = Kernels(cuda, memory, op, len(dq), (S, s_0, dq, adj_E_h), without_fusion)
        run.epoch()
        found = memory.download(run.state["E_h"]), memory.download(run.out["adj_S"])
        memory.free()
        return found

    return common.check(gradient)


def time_kernels(args, without_fusion):
    cuda, memory = kernels_of(args)
    common.report(check=args.what, differences=check_kernels(cuda, memory, without_fusion))
    kinds = {t: {} for t in args.transport} if not without_fusion else UNFUSED
    for size in sorted(args.size) if without_fusion else args.size:  # the long ones last
        for kind, change in kinds.items():
            op = common.operator(kind.split()[-1], (size, size, size), **change)
            base = memory.used()
            run = Kernels(cuda, memory, op, args.frames, common.problem(op, args.frames), without_fusion)
            runs = {"forward_ms": run.forward, "adjoint_ms": run.adjoint, "epoch_ms": run.epoch}
            times = common.medians(runs, memory.clock, args.repeat)
            result = times | {
                "point_steps_per_second": size**3 * args.frames / times["epoch_ms"] * 1e3,
                "device_MiB": (memory.used() - base) / 2**20,
                "workspace_MiB": run.workspace / 2**20,
            }
            if not without_fusion:  # the spread of a repeat
                again = common.medians({"epoch_ms": run.epoch}, memory.clock, args.repeat)
                result["epoch_again_ms"] = again["epoch_ms"]
            common.report(
                peer="pendel", variant=args.what, transport=kind, size=size, frames=args.frames,
                row_length=op.row_length, **result,
            )  # fmt: skip
            memory.free()


def cupy():
    if not pendel.cuda_available():
        raise Skip(pendel.info()["cuda"])
    return importlib.import_module("cupy")


def cupy_clock(cp):
    def clock(run):
        events = [cp.cuda.Event(), cp.cuda.Event()]
        events[0].record()
        run()
        events[1].record()
        events[1].synchronize()
        return cp.cuda.get_elapsed_time(*events)

    return clock


def time_cupy(args):
    cp = cupy()
    pool = cp.get_default_memory_pool()

    def gradient(op, *arrays):
        op = common.operator(op.transport, op.shape, strong=True, device="cuda")
        S, s_0, dq, adj_E_h = map(cp.asarray, arrays)
        E_h, state = op.forward(S, dq, s_0, return_state=True)
        return E_h.get(), op.adjoint(S, dq, adj_E_h, s_0, state=state).S.get()

    common.report(check="cupy", differences=common.check(gradient), cupy=cp.__version__)
    for size in args.size:
        for transport in args.transport:
            op = common.operator(transport, (size, size, size), device="cuda")
            S, s_0, dq, adj_E_h = map(cp.asarray, common.problem(op, args.frames))
            before = pool.used_bytes()
            pool.free_all_blocks()

            def epoch(op=op, S=S, s_0=s_0, dq=dq, adj_E_h=adj_E_h):
                return op.adjoint(S, dq, adj_E_h, s_0, state=op.forward(S, dq, s_0, return_state=True)[1])

            times = common.medians({"epoch_ms": epoch}, cupy_clock(cp), args.repeat)
            common.report(
                peer="pendel", variant="cupy", transport=transport, size=size, frames=args.frames, **times,
                device_MiB=(pool.total_bytes() - before) / 2**20,
                estimated_MiB=pendel.estimate_memory(op, args.frames) / 2**20,
            )  # fmt: skip
            del S, s_0, dq, adj_E_h, epoch
            pool.free_all_blocks()


def scan(transport, size, frames, device):
    """Model of a strained cube of gold that fills most of its box, its crystal function, its frames."""
    dx, two_theta, wavelength, pixel_size = 8e-9, 0.7812, 1.5498e-10, 55e-6
    fine = wavelength / (4 * size * dx * np.sin(two_theta / 2))
    experiment = pendel.Experiment(
        wavelength=wavelength, distance=dx * size * pixel_size / wavelength, pixel_size=pixel_size,
        detector_shape=(size, size), arm=(("y+", two_theta),), beam_polarization="horizontal",
        rocking_angles=np.linspace(-1, 1, frames) * fine * frames / 2,
    )  # fmt: skip
    voxel = experiment.suggest_voxel(transport=transport)
    options = {"polarization": {"sigma": 1.0}, "transport": transport, "device": device}
    model = pendel.Model(experiment, pendel.Crystal(**common.GOLD), (size,) * 3, voxel, **options)
    S = pendel.phantom.cube(model.shape, model.voxel, edge=0.7 * size * dx).astype(np.complex64)
    places = np.array([(0.2, 0.1, -0.2)]) * size * dx
    S *= np.exp(1j * pendel.phantom.bumps(model.shape, model.voxel, places, [0.2 * size * dx], [1.5])).astype(S.dtype)
    return model, S


def time_model(args):
    """Everything an epoch computes: `Model.evaluate` of all frames, and epochs of `reconstruct` by the clock.

    Those have five groups of frames, total variation and none, and shrink-wrap every ten epochs.
    """
    cp = None if args.emulate else cupy()
    xp, clock = (np, common.wall) if cp is None else (cp, cupy_clock(cp))
    pool = None if cp is None else cp.get_default_memory_pool()
    for size in args.size:
        for transport in args.transport:
            model, start = scan(transport, size, args.frames, "cpu" if cp is None else "cuda")
            S = xp.asarray(start)
            data = model.intensities(S)
            data *= 1e5 / float(data.max())
            where = {"transport": model.transport, "size": size, "frames": args.frames}

            def peak(run):
                """Run it; how much CuPy's pool grew, MiB."""
                if pool is None:
                    run()
                    return None
                pool.free_all_blocks()
                before = pool.total_bytes()
                run()
                return (pool.total_bytes() - before) / 2**20

            fit = model.fit(data)

            def evaluate(model=model, S=S, fit=fit):
                model.evaluate(S, fit, scale=None)

            most = peak(evaluate)
            times = common.medians({"epoch_ms": evaluate}, clock, args.repeat)
            common.report(peer="pendel", variant="model", **where, **times, pool_MiB=most)
            for name, options in (("reconstruct", {"atv_weight": 0.01}), ("reconstruct, no ATV", {})):
                ends = []

                def run(model=model, data=data, start=start, options=options, ends=ends):
                    pendel.reconstruct(
                        model, data, None, start, epochs=args.repeat + 2, shrink_wrap_every=10, progress=False,
                        callback=lambda *_: ends.append(time.perf_counter()), **options,
                    )  # fmt: skip

                most = peak(run)  # the first epoch warms up
                result = {"epoch_ms": 1e3 * float(np.median(np.diff(ends))), "pool_MiB": most}
                common.report(peer="pendel", variant=name, **where, **result)
            del model, S, data, fit, evaluate, run
            if pool is not None:
                pool.free_all_blocks()


def layers(args):
    """Device memory of a gradient beyond S, s_0, matrices, sums, gradients and exit fields, against nz."""
    cuda, memory = kernels_of(args)
    check_kernels(cuda, memory, False)  # a first run: what the context takes does not count
    for transport in args.transport:
        for nz in args.layers:
            op = common.operator(transport, (nz, *args.plane))
            before = memory.used()
            run = Kernels(cuda, memory, op, args.frames, common.problem(op, args.frames))
            run.epoch()
            used, voxels = memory.used() - before, np.prod(op.shape)
            fields = args.frames * op.shape[1] * (2 * op.shape[2] + op.row_length) * 8
            common.report(
                memory=transport, nz=nz, plane=args.plane, frames=args.frames, device_MiB=used / 2**20,
                allocated_MiB=memory.allocated() / 2**20, workspace_MiB=run.workspace / 2**20,
                bytes_per_voxel=(used - fields) / float(voxels),
                per_voxel_of="S 8, s_0 4, adj_S 8, adj_s_0 4, matrices 64, sums 32 per part (at most 16)",
            )  # fmt: skip
            memory.free()


def small(args):
    """Every kernel: both precisions, for shift every number of columns a thread may take, two chunks of frames."""
    cuda, memory = kernels_of(args)
    for dtype, columns in (("complex64", (40, 513, 1025, 2049)), ("complex128", (40, 257, 513))):
        for transport, widths in (("shift", columns), ("fourier", (40, 600))):
            for nx in widths:
                op = common.operator(transport, (3, 2, nx), dtype)
                run = Kernels(cuda, memory, op, 9, common.problem(op, 9))
                run.epoch()
                gradient = memory.download(run.out["adj_S"])
                assert np.isfinite(gradient).all() and gradient.any(), (dtype, transport, nx)
                memory.free()
                print(f"{dtype} {transport} nx = {nx}: done", flush=True)
        for kind, change in UNFUSED.items():
            op = common.operator(kind.split()[-1], (3, 2, 40), dtype, **change)
            try:
                run = Kernels(cuda, memory, op, 9, common.problem(op, 9), True, chunk=5)
            except Skip as reason:  # the rest is worth its check
                print(f"{dtype} {kind}, layer by layer: NOT CHECKED, {reason}", flush=True)
                continue
            run.epoch()
            gradient = memory.download(run.out["adj_S"])
            assert np.isfinite(gradient).all() and gradient.any(), (dtype, kind)
            memory.free()
            print(f"{dtype} {kind}, layer by layer: done", flush=True)


def once(args):
    cuda, memory = kernels_of(args)
    points = int(np.prod(args.shape)) * args.frames
    common.report(multiprocessors=memory.multiprocessors(), point_steps=points)
    for transport in args.transport:
        op = common.operator(transport, args.shape)
        run = Kernels(cuda, memory, op, args.frames, common.problem(op, args.frames))
        run.epoch()
        assert np.isfinite(memory.download(run.out["adj_S"])).all()
        memory.free()


PARTS = {
    "kernels": lambda args: time_kernels(args, False),
    "unfused": lambda args: time_kernels(args, True),
    "cupy": time_cupy,
    "model": time_model,
    "memory": layers,
    "small": small,
    "once": once,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=PARTS)
    parser.add_argument("--size", type=int, nargs="+", default=[256, 128])
    parser.add_argument("--transport", nargs="+", choices=common.TRANSPORTS, default=list(common.TRANSPORTS))
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--layers", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--plane", type=int, nargs=2, default=[64, 256], help="(ny, nx) of `memory`")
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 32, 256], help="of `once`")
    parser.add_argument("--emulate", action="store_true")
    args = parser.parse_args()
    try:
        PARTS[args.what](args)
    except Skip as reason:
        common.report(skipped=str(reason))


if __name__ == "__main__":
    main()
