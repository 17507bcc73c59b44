"""The race's ways in PyTorch, see `race_peers.py`."""

import abc
import functools
import math

import gpu_torch
import numpy as np
import peers
import race_peers
import torch
from gpu_torch import matrices
from pendel.reference.etd2rk import phi_functions
from pendel.torch import takagi_taupin
from race_peers import Way
from torch.utils.checkpoint import checkpoint


class Pendel(Way):
    """`pendel.torch`."""

    def gradient(self, S, s_0, dq, adj_E_h):
        S, s_0, dq, adj_E_h = map(torch.from_numpy, (S, s_0, dq, adj_E_h))
        S = S.detach().requires_grad_()

        def run():
            E_h = takagi_taupin(S, dq, s_0, op=self.op)
            return E_h, *torch.autograd.grad(E_h, S, adj_E_h)

        return run

    def numpy(self, found):
        return [tensor.detach().numpy() for tensor in found]

    def sweep(self, S, dq):
        S = torch.from_numpy(S).requires_grad_()
        E_h = takagi_taupin(S, torch.from_numpy(dq), op=self.op)

        def back(adj_E_h):
            return torch.autograd.grad(E_h, S, torch.from_numpy(adj_E_h))[0].numpy()

        return E_h.detach().numpy(), back


class Differentiated(Way):
    """Exit fields of a few rows by `field`, and back by autograd."""

    takes_chunks, knows_ramp = True, False

    @abc.abstractmethod
    def field(self, S, s_0, D):
        """Exit field (frames, rows, nx) of S and s_0 (nz, rows, nx), D (frames,) float64."""

    def gradient(self, S, s_0, dq, adj_E_h):
        cuts = self.cuts(S.shape[1])
        D, made = torch.from_numpy(dq[:, 2].copy()), []
        for arrays in ([array[:, cut].copy() for array in (S, s_0, adj_E_h)] for cut in cuts):
            made.append([torch.from_numpy(array) for array in arrays])

        def run():
            out = []
            for S, s_0, adj_E_h in made:
                S = S.detach().requires_grad_()
                few = self.frames_at_once(S.shape[1], len(D))
                fields, adj_S = [], 0
                for D_part, adj_part in zip(D.split(few), adj_E_h.split(few), strict=True):
                    fields.append(self.field(S, s_0, D_part))
                    adj_S = adj_S + torch.autograd.grad(fields[-1], S, adj_part)[0]
                    fields[-1] = fields[-1].detach()
                out.append((torch.cat(fields), adj_S))
            return [torch.cat(parts, 1) for parts in zip(*out, strict=True)]

        return run

    def numpy(self, found):
        return [tensor.numpy() for tensor in found]

    def frames_at_once(self, rows, frames):
        """As many as have a graph that may stay in memory."""
        return max(1, int(min(frames, frames * race_peers.MOST / max(self.graph(rows, frames), 1))))

    def keeps(self, rows, frames):
        """Whether `sweep` keeps the graph of all rows; else it is computed again on the way back."""
        return self.graph(rows, frames) <= race_peers.MOST

    def sweep(self, S, dq):
        D, keeps = torch.from_numpy(dq[:, 2].copy()), self.keeps(S.shape[1], len(dq))
        parts = [torch.from_numpy(S[:, cut].copy()).requires_grad_() for cut in self.cuts(S.shape[1])]
        with torch.set_grad_enabled(keeps):
            fields = [self.field(part, part.abs(), D) for part in parts]

        def back(adj_E_h):
            out = []
            for part, field, cut in zip(parts, fields, self.cuts(S.shape[1]), strict=True):
                field = field if keeps else self.field(part, part.abs(), D)
                out.append(torch.autograd.grad(field, part, torch.from_numpy(adj_E_h[:, cut].copy()))[0])
            return torch.cat(out, 1).numpy()

        return torch.cat([field.detach() for field in fields], 1).numpy(), back


class Closed(Differentiated):
    """`peers.py`, with matrices that vacuum has, too."""

    kept = 3

    def field(self, S, s_0, D):
        return peers.march(matrices(S, s_0, self.op.plan.medium), D, self.op.plan)


class March(torch.autograd.Function):
    """Exit field of the matrices M (4, nz, rows, nx); backward reverses the sweep and stores no field."""

    @staticmethod
    def forward(ctx, M, sweep):
        E_0, G = sweep.forward(M)
        ctx.sweep = sweep
        ctx.save_for_backward(M, E_0, G)
        return G

    @staticmethod
    def backward(ctx, adj_G):
        return ctx.sweep.adjoint(*ctx.saved_tensors, adj_G)[0].conj(), None  # sum conj(adj_i) E_j, dL = Re sum X dM


class Reversed(Differentiated):
    """`gpu_torch.py` without a GPU: plain PyTorch's coupling, in place, and autograd for the matrices alone."""

    def field(self, S, s_0, D):
        sweep = gpu_torch.Sweep(self.op.plan, D, "cpu", gpu_torch.Kernels(), S.dtype)
        return March.apply(matrices(S, s_0, self.op.plan.medium), sweep)


@functools.cache
def multipliers(N, pixels_per_layer, dtype):
    """exp, phi_1 and phi_2 of the transport of a layer, (N,)."""
    made = phi_functions(-2j * math.pi * np.fft.fftfreq(N) * pixels_per_layer)
    return [torch.from_numpy(array).to(dtype) for array in made]


class Multipliers:
    """What multiplies the spectrum of E_0, and the detuning's phases, of scheme etd2rk."""

    def __init__(self, plan, D, dtype):
        self.whole, self.phi_1, self.phi_2 = multipliers(plan.row_length, plan.pixels_per_layer, dtype)
        turned = D[:, None] * plan.voxel[0] * torch.arange(plan.shape[0] - 1, -1, -1)
        self.phases = torch.exp(1j * turned).to(dtype)[:, :, None, None].unbind(1)  # G = phase H; H does not turn
        self.half = torch.exp(-0.5j * D * plan.voxel[0]).to(dtype)[:, None, None]


def potential(S, s_0, medium):
    """dz V of every layer: [(a, b, c, d), ...], (7) of csrc/README.md."""
    m, w, b, c = medium
    entries = (m + w) * s_0, b * S.conj(), c * S, (m - w) * s_0
    return list(zip(*(entry.to(S.dtype).unbind(0) for entry in entries), strict=True))


class Heun(Differentiated):
    """Exponential Heun, (8) and (9) of csrc/README.md: four 1-D FFTs of E_0 per layer.

    H has no linear part, so its multipliers are numbers; what lies beside the crystal is padded by the FFT itself.
    """

    kept = 12

    def field(self, S, s_0, D):
        plan = self.op.plan
        N, nx = plan.row_length, plan.shape[2]
        by, V = Multipliers(plan, D, S.dtype), potential(S, s_0, plan.medium)

        def coupling(k, E_0, H):
            (a, b, c, d), phase = V[k], by.phases[k]
            if H is None:  # in front of the crystal
                return a * E_0, phase.conj() * (c * E_0)
            G = phase * H
            return a * E_0 + b * G, phase.conj() * (c * E_0 + d * G)

        # The step from the vacuum in front: the plane wave is there, and there is no g_1.
        E_0 = torch.ones((len(D), S.shape[1], nx), dtype=S.dtype)
        g_2, h_2 = coupling(0, E_0, None)
        U, H = by.phi_2 * torch.fft.fft(g_2, N), h_2 / 2
        U = U + torch.cat((torch.full_like(U[..., :1], N), torch.zeros_like(U[..., 1:])), -1)
        for k in range(len(V)):
            g_1, h_1 = coupling(k, torch.fft.ifft(U)[..., :nx], H)
            if k + 1 == len(V):
                H = H + h_1 / 2  # g_2 = 0 behind the crystal, and nobody asks for E_0
                break
            A, A_h = by.whole * U + by.phi_1 * torch.fft.fft(g_1, N), H + h_1
            g_2, h_2 = coupling(k + 1, torch.fft.ifft(A)[..., :nx], A_h)
            U, H = A + by.phi_2 * torch.fft.fft(g_2 - g_1, N), A_h + (h_2 - h_1) / 2
        return by.half * H


class Paper(Differentiated):
    """The same step as it is printed: both waves on one grid, eight 2-D FFTs over x and y of each layer.

    The transform over y needs all rows at once. Where their graph is too large, that of a few frames after the other is
    computed again on the way back.
    """

    takes_chunks, kept = False, 16

    def field(self, S, s_0, D):
        few = self.frames_at_once(S.shape[1], len(D))
        if not torch.is_grad_enabled() or few == len(D):
            return self.of_frames(S, s_0, D)
        parts = [checkpoint(self.of_frames, S, s_0, part, use_reentrant=False) for part in D.split(few)]
        return torch.cat(parts)

    def keeps(self, rows, frames):
        return True  # `field` sees to it

    def of_frames(self, S, s_0, D):
        """`field` of frames whose graph there is room for."""
        plan = self.op.plan
        N, nx, ny = plan.row_length, plan.shape[2], S.shape[1]
        by, V = Multipliers(plan, D, S.dtype), potential(S, s_0, plan.medium)
        ones = torch.ones_like(by.whole)
        whole, phi_1, phi_2 = (
            torch.stack(pair)[:, None, None] for pair in ((by.whole, ones), (by.phi_1, ones), (by.phi_2, ones / 2))
        )

        def coupling(k, U):
            """Spectra of dz V u of both waves; nothing in the vacuum before and behind."""
            if not 0 <= k < len(V):
                return torch.zeros_like(U)
            (a, b, c, d), phase = V[k], by.phases[k]
            E_0, H = torch.fft.ifft2(U)[..., :nx]
            G = phase * H
            g = torch.stack((a * E_0 + b * G, phase.conj() * (c * E_0 + d * G)))
            return torch.fft.fft2(g, (ny, N))

        A = torch.zeros((2, len(D), ny, N), dtype=S.dtype)
        A[0, :, 0, 0] = N * ny
        U = A + phi_2 * coupling(0, A)
        for k in range(len(V)):
            g_1 = coupling(k, U)
            A = whole * U + phi_1 * g_1
            U = A + phi_2 * (coupling(k + 1, A) - g_1)
        return by.half * torch.fft.ifft2(U[1])[..., :nx]
