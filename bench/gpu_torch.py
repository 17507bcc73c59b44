"""The best PyTorch version known: closed-form matrices once per voxel, a custom autograd function that reverses the
sweep instead of storing fields, Triton for matrices, coupling and adjoints, torch.fft for the transport, rows in chunks
whose fields can stay in the second-level cache, each chunk one CUDA graph.

What it saves beyond that: `shift` moves nothing (E_0 stays in the frame that moves with it, as in pendel); 1/N is in
the transport's phases, because torch's own would be one more pass; state and adjoint go through one batched FFT.
"""

import math

import torch

PROGRAMS = 4096  # of a launch, at most, where a column's frames are shared: twice what is resident, and few sums


class Kernels:
    """The coupling in plain PyTorch, for machines without Triton: same interface as `gpu_triton.Kernels`."""

    parts = 1
    CHOICES = [{}]

    def matrices(self, S, s_0, medium):
        """M of every voxel, complex (4, nz, rows, nx)."""
        return matrices(S, s_0, medium)

    def matrices_adj(self, S, s_0, medium, X):
        """adj_S of the sums X."""
        with torch.enable_grad():
            S = S.detach().requires_grad_()
            return torch.autograd.grad(matrices(S, s_0, medium), S, X.sum(0).conj())[0]  # dL = Re sum X dM

    def couple(self, E_0, G, M, z, offset, layer):
        """(E_0, G) <- M (E_0, G) in place, G <- layer G where given; E_0 (frames, rows, N), G (frames, rows, nx)."""
        e = E_0[..., offset : offset + G.shape[-1]]
        a, b, c, d = M[:, z]
        before, h = e.clone(), G.clone()
        e.copy_(a * before + b * h)
        h = c * before + d * h
        G.copy_(h if layer is None else layer[:, None, None] * h)

    def couple_adj(self, E_0, G, M, z, offset, layer, X):
        """Reverse couple on (state, adjoint) pairs; X (parts, 4, nz, rows, nx) gets sum conj(adj_i) E_j over frames."""
        state, adj = E_0[..., offset : offset + G.shape[-1]]
        a, b, c, d = M[:, z]
        if layer is not None:
            G *= layer.conj()[:, None, None]
        det = a * d - b * c
        e, h = (d * state - b * G[0]) / det, (a * G[0] - c * state) / det
        u, w = adj.clone(), G[1].clone()
        for i, (left, right) in enumerate(((u, e), (u, h), (w, e), (w, h))):
            X[0, i, z] = (left.conj() * right).sum(0)
        state.copy_(e), G[0].copy_(h)
        adj.copy_(a.conj() * u + c.conj() * w), G[1].copy_(b.conj() * u + d.conj() * w)

    def multiply(self, spectrum, phase):
        spectrum *= phase


def matrices(S, s_0, medium):
    """M of every voxel, complex (4, nz, rows, nx): series in u, good to complex64 where |u| < 0.1."""
    m, w, b, c = medium
    omega = w * s_0
    u = omega * omega + b * c * (S.real.square() + S.imag.square())
    ch = 1 + u / 2 * (1 + u / 12 * (1 + u / 30 * (1 + u / 56)))
    e = torch.exp(m * s_0)
    shc = e * (1 + u / 6 * (1 + u / 20 * (1 + u / 42 * (1 + u / 72))))
    ch = e * ch
    odd = shc * omega
    return torch.stack((ch + odd, shc * b * S.conj(), shc * c * S, ch - odd))


class Sweep:
    """The march through all layers for given constants, and its reversal."""

    def __init__(self, plan, D, device, kernels, dtype=torch.complex64):
        self.nz, _, self.nx = plan.shape
        self.N, self.m, self.kernels = plan.row_length, plan.shift, kernels
        dz = plan.voxel[0]
        D = torch.as_tensor(D, dtype=torch.float64, device=device)
        self.layer, self.half = (torch.exp(-1j * D * dz * n).to(dtype) for n in (1, 0.5))
        q = torch.fft.fftfreq(self.N, dtype=torch.float64, device=device)
        phase = torch.exp(-2j * math.pi * q * plan.pixels_per_layer) / self.N
        self.phase, self.phase_back = phase.to(dtype), phase.conj().resolve_conj().to(dtype)

    def _offset(self, z):
        return self.m * (self.nz - 1 - z)

    def _transport(self, E_0, phase):
        if self.m:
            return E_0
        spectrum = torch.fft.fft(E_0)
        self.kernels.multiply(spectrum, phase)
        return torch.fft.ifft(spectrum, norm="forward")

    def forward(self, M):
        frames, rows = len(self.layer), M.shape[2]
        E_0 = torch.ones((frames, rows, self.N), dtype=M.dtype, device=M.device)
        G = torch.zeros((frames, rows, self.nx), dtype=M.dtype, device=M.device)
        for z in range(self.nz):
            last = z + 1 == self.nz
            self.kernels.couple(E_0, G, M, z, self._offset(z), None if last else self.layer)
            if not last:
                E_0 = self._transport(E_0, self.phase)
        return E_0, G * self.half[:, None, None]

    def adjoint(self, M, E_0, G, adj_G):
        """X (parts, 4, nz, rows, nx), from the exit fields of `forward`."""
        E_0 = torch.stack((E_0, torch.zeros_like(E_0)))
        G = torch.stack((G, adj_G)) * self.half.conj()[:, None, None]
        X = torch.empty((self.kernels.parts, *M.shape), dtype=M.dtype, device=M.device)
        for z in reversed(range(self.nz)):
            last = z + 1 == self.nz
            if not last:
                E_0 = self._transport(E_0, self.phase_back)
            self.kernels.couple_adj(E_0, G, M, z, self._offset(z), None if last else self.layer, X)
        return X


class March(torch.autograd.Function):
    """Exit G (frames, rows, nx) of S and s_0 (nz, rows, nx); the gradient of S at fixed s_0."""

    @staticmethod
    def forward(ctx, S, s_0, medium, sweep):
        M = sweep.kernels.matrices(S, s_0, medium)
        E_0, G = sweep.forward(M)
        ctx.sweep, ctx.medium = sweep, medium
        ctx.save_for_backward(S, s_0, M, E_0, G)
        return G

    @staticmethod
    def backward(ctx, adj_G):
        S, s_0, *kept = ctx.saved_tensors
        X = ctx.sweep.adjoint(*kept, adj_G)
        return ctx.sweep.kernels.matrices_adj(S, s_0, ctx.medium, X), None, None, None


class Gradient:
    """(exit G, adj_S) of all rows, ``rows`` at a time; on a CUDA device each chunk is the replay of one graph."""

    def __init__(self, plan, D, rows, device, kernels):
        nz, self.ny, nx = plan.shape
        if self.ny % rows:
            raise ValueError(f"rows: expected a divisor of ny = {self.ny}, got {rows}")
        self.rows, self.medium = rows, plan.medium
        self.sweep = Sweep(plan, D, device, kernels)
        self.S = torch.zeros((nz, rows, nx), dtype=torch.complex64, device=device, requires_grad=True)
        self.s_0 = torch.zeros((nz, rows, nx), device=device)
        self.adj_G = torch.zeros((len(D), rows, nx), dtype=torch.complex64, device=device)
        self.replay = {"forward": self._forward, "epoch": self._epoch}
        if torch.device(device).type == "cuda":
            self.replay = {name: self._captured(run) for name, run in self.replay.items()}

    def _forward(self):
        with torch.no_grad():
            return (March.apply(self.S, self.s_0, self.medium, self.sweep),)

    def _epoch(self):
        G = March.apply(self.S, self.s_0, self.medium, self.sweep)
        (adj_S,) = torch.autograd.grad(G, self.S, self.adj_G)
        return G.detach(), adj_S

    def _captured(self, run):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # plans of the FFT and Triton's compilation must not be captured
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run()

        def replay():
            graph.replay()
            return out

        return replay

    def __call__(self, S, s_0, adj_G, out, what="epoch"):
        """Writes ``out`` = (G (frames, ny, nx), adj_S (nz, ny, nx)); the second is left alone by what="forward"."""
        for first in range(0, self.ny, self.rows):
            rows = slice(first, first + self.rows)
            with torch.no_grad():
                self.S.copy_(S[:, rows]), self.s_0.copy_(s_0[:, rows]), self.adj_G.copy_(adj_G[:, rows])
            for whole, part in zip(out, self.replay[what](), strict=False):
                whole[:, rows] = part
        return out


def tuned(kernels, plan, frames, rows, device):
    """The settings of ``kernels`` that take layers forward and back in the least time, launches as in a graph."""
    nz, _, nx = plan.shape
    choices = [c for c in kernels.CHOICES if c.get("parts", 1) * rows * -(-nx // c.get("tile", (1, nx))[1]) <= PROGRAMS]
    choices = choices or kernels.CHOICES[:1]
    if torch.device(device).type != "cuda" or len(choices) == 1:
        return choices[0]
    E_0 = torch.ones((2, frames, rows, plan.row_length), dtype=torch.complex64, device=device)
    G, M = E_0[..., :nx].clone(), torch.zeros((4, nz, rows, nx), dtype=torch.complex64, device=device)
    M[0], M[3] = 1, 1
    layer = torch.ones(frames, dtype=torch.complex64, device=device)

    def cost(choice):
        k, graph = kernels(**choice), torch.cuda.CUDAGraph()
        X = torch.empty((k.parts, *M.shape), dtype=M.dtype, device=device)

        def layers():
            for z in range(min(nz, 16)):
                k.couple(E_0[0], G[0], M, z, 0, layer), k.couple_adj(E_0, G, M, z, 0, layer, X)

        layers()  # compiles
        with torch.cuda.graph(graph):
            layers()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        graph.replay(), events[0].record()
        graph.replay(), graph.replay(), events[1].record()
        events[1].synchronize()
        return events[0].elapsed_time(events[1])

    return min(choices, key=cost)
