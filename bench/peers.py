"""The `strang` sweep as a PyTorch user would write it at best: closed form, autograd, no Python in the inner pixels.

Everything known to help on a CPU is in: the 2x2 exponential is closed form and made once per voxel, not per rocking
angle (never torch.matrix_exp); the detuning is a phase of G alone; only E_0 is transformed, along x only; the
coupling acts on the crystal's nx pixels and not on the padding; rows are taken in chunks (the best size is searched
by the caller), so that a step's arrays stay near the caches.
"""

import math

import torch


def matrices(S, s_0, medium):
    """M - 1 of every voxel, four complex tensors (nz, ny, nx)."""
    m, w, b, c = medium
    mu, omega = m * s_0, w * s_0
    u = omega * omega + b * c * (S.real**2 + S.imag**2)
    x = torch.sqrt(u)
    shc, ch, e = torch.sinh(x) / x, torch.cosh(x), torch.exp(mu)
    return e * (ch + shc * omega), e * shc * b * S.conj(), e * shc * c * S, e * (ch - shc * omega)


def forward(S, s_0, D, plan, rows):
    """Exit G (frames, rows, nx) of the rows `rows`; S, s_0 (nz, ny, nx) torch tensors, D (frames,) detuning,
    all on one device."""
    return march(matrices(S[:, rows], s_0[:, rows], plan.medium), D, plan)


def march(M, D, plan):
    """The same of the matrices, four tensors (nz, rows, nx)."""
    nz, _, nx = plan.shape
    dz = plan.voxel[0]
    # The layers all at once: the backward of each M[k] alone would write zeros for all the others.
    layers = list(zip(*(entry.unbind(0) for entry in M), strict=True))
    (frames, ny), dtype, device = (len(D), M[0].shape[1]), M[0].dtype, M[0].device
    layer = torch.exp(-1j * D * dz).to(dtype)[:, None, None]
    half = torch.exp(-0.5j * D * dz).to(dtype)[:, None, None]
    if plan.shift:
        inflow = torch.ones((frames, ny, plan.shift), dtype=dtype, device=device)
        E_0 = torch.ones((frames, ny, nx), dtype=dtype, device=device)
    else:
        N = plan.row_length
        q = torch.fft.fftfreq(N, dtype=torch.float64, device=device)
        phase = torch.exp(-2j * math.pi * q * plan.pixels_per_layer).to(dtype)
        E_0 = torch.ones((frames, ny, N), dtype=dtype, device=device)
    G = None
    for k, (m00, m01, m10, m11) in enumerate(layers):
        inner = E_0 if plan.shift else E_0[..., :nx]
        if G is None:
            E_in, G = m00 * inner, m10 * inner
        else:
            E_in, G = m00 * inner + m01 * G, m10 * inner + m11 * G
        if k + 1 < nz:
            G = layer * G
            if plan.shift:
                E_0 = torch.cat((inflow, E_in[..., : -plan.shift]), -1)
            else:
                E_0 = torch.fft.ifft(torch.fft.fft(torch.cat((E_in, E_0[..., nx:]), -1)) * phase)
    return half * G


def gradient(S, s_0, D, adj_G, plan, chunk):
    """dL/dS by autograd, rows in chunks of `chunk`; returns (exit G, gradient)."""
    ny = plan.shape[1]
    S = S.clone().requires_grad_(True)
    out = []
    for first in range(0, ny, chunk):
        rows = slice(first, min(first + chunk, ny))
        G = forward(S, s_0, D, plan, rows)
        (G * adj_G[:, rows].conj()).real.sum().backward()
        out.append(G.detach())
    return torch.cat(out, 1), S.grad
