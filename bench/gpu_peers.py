"""The same gradient by automatic differentiation, as well as we can write it, on one device: ms per forward and epoch.

    python bench/gpu_peers.py eager | best | jax [--device cuda] [--size 256 128] [--frames 256]

eager  PyTorch autograd of `peers.py`, rows in the chunk that is fastest and fits
best   `gpu_torch.py`: reversal, Triton, torch.fft, CUDA graphs; with plain PyTorch's coupling where Triton fails
jax    `gpu_jax.py`: reversal by custom_vjp, and checkpointed steps

Each is compared with pendel's CPU engine on a small problem before it is timed (gpu_common.check), on the device it
is timed on. Times: CUDA events for PyTorch, wall clock around block_until_ready for JAX; medians. Inputs lie on the
device. What takes too long or too much memory is left out and says so.
"""

import argparse
import os
import time

import gpu_common as common
import numpy as np
from gpu_common import Skip

CHUNKS = (32, 128, 64, 16, 256, 8)  # rows, in the order of trying them while there is time
KEPT = {"shift": 2.6, "fourier": 1.9}  # complex64 arrays (frames, rows, row length) eager autograd keeps per layer


def torch_clock(torch, device):
    if device == "cpu":
        return common.wall

    def clock(run):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        run()
        events[1].record()
        events[1].synchronize()
        return events[0].elapsed_time(events[1])

    return clock


class Eager:
    first_is_enough = True

    def __init__(self, device):
        import peers
        import torch

        self.torch, self.peers, self.device = torch, peers, device
        if device == "cuda" and not torch.cuda.is_available():
            raise Skip(f"torch {torch.__version__} sees no CUDA device")
        self.clock = torch_clock(torch, device)
        self.variants = ["eager"]
        self.about = {"torch": torch.__version__}

    def check(self, variant):
        def gradient(op, S, s_0, dq, adj_E_h):
            return [a.cpu().numpy() for a in self._epoch(*self._inputs(S, s_0, dq, adj_E_h), op.plan, 1)]

        return common.check(gradient)

    def _inputs(self, S, s_0, dq, adj_E_h):
        return [self.torch.from_numpy(a).to(self.device) for a in (S, s_0, np.ascontiguousarray(dq[:, 2]), adj_E_h)]

    def _epoch(self, S, s_0, D, adj, plan, rows):
        return self.peers.gradient(S, s_0, D, adj, plan, rows)

    def fits(self, variant, op, frames, rows):
        if self.device == "cpu":
            return True
        row = op.row_length if op.transport == "fourier" else op.shape[2]
        need = KEPT[op.transport] * 8 * op.shape[0] * frames * rows * row
        return need < 0.7 * self.torch.cuda.mem_get_info()[0]

    def prepare(self, variant, op, inputs, rows):
        """{name: function} to be timed."""
        S, s_0, D, adj = inputs

        def forward():
            with self.torch.no_grad():
                for first in range(0, op.shape[1], rows):
                    self.peers.forward(S, s_0, D, op.plan, slice(first, first + rows))

        return {"forward": forward, "epoch": lambda: self._epoch(S, s_0, D, adj, op.plan, rows)}

    def inputs(self, op, frames):
        return self._inputs(*common.problem(op, frames))

    def memory(self):
        return self.torch.cuda.max_memory_allocated() / 2**20 if self.device != "cpu" else None

    def forget(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats()


class Best(Eager):
    def __init__(self, device):
        super().__init__(device)
        import gpu_torch

        self.best, self.kernels = gpu_torch, {"torch": gpu_torch.Kernels}
        try:
            import gpu_triton

            if device != "cpu" or os.environ.get("TRITON_INTERPRET") == "1":
                self.kernels = {"triton": gpu_triton.Kernels} | self.kernels
                self.about["triton"] = gpu_triton.triton.__version__
            else:
                self.about["triton"] = "not used: no device (TRITON_INTERPRET=1 interprets it)"
        except ImportError as error:
            self.about["triton"] = f"missing: {error}"
        self.variants = list(self.kernels)

    def _run(self, variant, plan, inputs, rows):
        S, s_0, D, adj = inputs
        kernels = self.kernels[variant]
        choice = self.best.tuned(kernels, plan, len(D), rows, self.device)
        gradient = self.best.Gradient(plan, D, rows, self.device, kernels(**choice))
        out = (self.torch.empty_like(adj), self.torch.empty_like(S))
        return choice, lambda what: gradient(S, s_0, adj, out, what)

    def check(self, variant):
        choices = self.kernels[variant].CHOICES  # every setting that may be chosen; the interpreter is slow
        worst = {}
        for choice in choices if self.device != "cpu" else choices[:: max(1, len(choices) - 1)]:
            for transport, differences in common.check(self._checked(variant, choice)).items():
                worst[transport] = tuple(map(max, differences, worst.get(transport, differences)))
        return worst

    def _checked(self, variant, choice):
        def gradient(op, S, s_0, dq, adj_E_h):
            inputs, rows = self._inputs(S, s_0, dq, adj_E_h), 1 if op.transport == "shift" else op.shape[1]
            run = self.best.Gradient(op.plan, inputs[2], rows, self.device, self.kernels[variant](**choice))
            out = (self.torch.empty_like(inputs[3]), self.torch.empty_like(inputs[0]))
            return [a.cpu().numpy() for a in run(inputs[0], inputs[1], inputs[3], out)]

        return gradient

    def fits(self, variant, op, frames, rows):
        if self.device == "cpu":
            return True
        sums = 4 * self.best.PROGRAMS * 128 * op.shape[0]  # of 4 sums per column and program
        need = 8 * rows * (frames * 8 * (op.row_length + op.shape[2]) + 30 * op.shape[0] * op.shape[2]) + 8 * sums
        return need < 0.7 * self.torch.cuda.mem_get_info()[0]

    def prepare(self, variant, op, inputs, rows):
        choice, run = self._run(variant, op.plan, inputs, rows)
        self.settings = choice
        return {"forward": lambda: run("forward"), "epoch": lambda: run("epoch")}


class Jax:
    first_is_enough = False  # which way is faster is not known beforehand

    def __init__(self, device):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if device == "cpu":
            os.environ["JAX_PLATFORMS"] = "cpu"
        import gpu_jax
        import jax

        self.jax, self.gpu_jax, self.device = jax, gpu_jax, device
        if jax.default_backend() != {"cuda": "gpu"}.get(device, device):
            raise Skip(f"jax {jax.__version__} runs on {jax.default_backend()!r}, not on {device!r}: {jax.devices()}")
        self.variants = list(gpu_jax.WAYS)
        self.about = {"jax": jax.__version__, "clock": "wall, block_until_ready"}
        self.clock = common.wall

    def check(self, variant):
        def gradient(op, S, s_0, dq, adj_E_h):
            run = self.gpu_jax.Gradient(op.plan, dq[:, 2], 1, variant)
            done = run(run.chunks(S, s_0, adj_E_h))
            return [np.concatenate(parts, 1) for parts in zip(*done, strict=True)]

        return common.check(gradient)

    def fits(self, variant, op, frames, rows):
        if self.device == "cpu":
            return True
        state = 8 * frames * rows * (op.row_length + op.shape[2])
        kept = op.shape[0] if variant == "checkpoint" else 6  # states: every layer's, or those at work
        return state * (kept + 6) < 60e9

    def inputs(self, op, frames):
        return common.problem(op, frames)

    def prepare(self, variant, op, inputs, rows):
        S, s_0, dq, adj = inputs
        run = self.gpu_jax.Gradient(op.plan, dq[:, 2], rows, variant)
        chunks = run.chunks(S, s_0, adj)
        wait = self.jax.block_until_ready
        return {name: lambda name=name: wait(run(chunks, name)) for name in ("forward", "epoch")}

    def memory(self):
        stats = self.jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] / 2**20 if stats else None

    def forget(self):
        self.jax.clear_caches()


PEERS = {"eager": Eager, "best": Best, "jax": Jax}


def fastest(peer, variant, op, frames, inputs, chunks, seconds):
    """(rows, their runs, what each chunk took): one epoch of each after a warm-up, within ``seconds``."""
    tried, best, start = {}, None, time.monotonic()
    for rows in chunks:
        if op.shape[1] % rows or not peer.fits(variant, op, frames, rows):
            continue
        if best and time.monotonic() - start > seconds:
            break
        peer.forget()
        try:
            runs = peer.prepare(variant, op, inputs, rows)
            peer.clock(runs["epoch"])
            tried[rows] = peer.clock(runs["epoch"])
        except Exception as error:  # out of memory, most likely: what was tried before stands
            if best is None:
                raise
            tried[rows] = f"{type(error).__name__}: {error}"[:200]
            break
        if best is None or tried[rows] < tried[best[0]]:
            best = rows, runs, getattr(peer, "settings", {})
        del runs
    if best is None:
        raise RuntimeError(f"no chunk of {chunks} divides ny = {op.shape[1]} and fits")
    return *best, tried


def measure(peer, name, variant, transport, size, frames, args):
    op = common.operator(transport, (size, size, size))
    inputs = peer.inputs(op, frames)
    rows, runs, settings, tried = fastest(peer, variant, op, frames, inputs, args.rows, args.search)
    times = common.medians(runs, peer.clock, args.repeat, args.seconds)
    return {
        "peer": name, "variant": variant, "device": args.device, "transport": transport, "size": size,
        "frames": frames, "forward_ms": times["forward"], "epoch_ms": times["epoch"], "repeats": times["repeats"],
        "rows_per_chunk": rows, "tried_ms": tried, "settings": settings, "peak_MiB": peer.memory(),
    } | peer.about  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 128])
    parser.add_argument("--transport", nargs="+", choices=common.TRANSPORTS, default=list(common.TRANSPORTS))
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--rows", type=int, nargs="+", default=list(CHUNKS), help="chunks to try")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing per case, three repeats at least")
    parser.add_argument("--search", type=float, default=6.0, help="seconds of looking for the chunk")
    args = parser.parse_args()
    try:
        peer = PEERS[args.peer](args.device)
    except Skip as reason:
        return common.report(skipped=str(reason))
    good, tried = [], []
    for variant in peer.variants:
        if good and peer.first_is_enough:
            break
        tried.append(variant)
        start = time.monotonic()
        try:
            differences = peer.check(variant)
            good.append(variant)
            found = {"differences": differences}
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        seconds = round(time.monotonic() - start, 1)
        common.report(check=args.peer, variant=variant, device=args.device, seconds=seconds, **found, **peer.about)
    for size in args.size:
        for transport in args.transport:
            for variant in good:
                case = {"peer": args.peer, "variant": variant, "transport": transport, "size": size}
                try:
                    common.report(**measure(peer, args.peer, variant, transport, size, args.frames, args))
                except Exception as error:
                    common.report(**case, failed=f"{type(error).__name__}: {error}"[:500])
                peer.forget()
    if len(good) < len(tried):
        raise SystemExit("a check against pendel's CPU engine failed: that variant was not timed")


if __name__ == "__main__":
    main()
