"""The coupling of the best PyTorch version in Triton: (3) and (5) of csrc/README.md in place, their adjoint with the
reversed state, and the product with the transport's phases. Complex arrays as pairs of float32.

A program takes BX columns of one row through its part of the frames, FB at a time, so the voxel's matrix is read once
per program and the sums over frames stay in registers. `Kernels` has the interface of `gpu_torch.Kernels`.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _load(pointer, index, mask):
    pair = tl.arange(0, 2)
    value = tl.load(pointer + (2 * index[:, :, None] + pair[None, None, :]), mask=mask[:, :, None], other=0.0)
    return tl.split(value)


@triton.jit
def _store(pointer, index, re, im, mask):
    pair = tl.arange(0, 2)
    tl.store(pointer + (2 * index[:, :, None] + pair[None, None, :]), tl.join(re, im), mask=mask[:, :, None])


@triton.jit
def _mul(ar, ai, br, bi):
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def _conj_mul(ar, ai, br, bi):
    return ar * br + ai * bi, ar * bi - ai * br


@triton.jit
def _matrix(M, voxel, voxels, inside):
    ar, ai = _load(M, voxel, inside)
    br, bi = _load(M, voxel + voxels, inside)
    cr, ci = _load(M, voxel + 2 * voxels, inside)
    dr, di = _load(M, voxel + 3 * voxels, inside)
    return ar, ai, br, bi, cr, ci, dr, di


@triton.jit(do_not_specialize=["offset", "voxel", "per"])
def couple(
    E_0, G, M, layer, frames, rows, nx, N, offset, voxel, voxels, per,
    TURN: tl.constexpr, FB: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """(E_0, G) <- M (E_0, G); then G <- layer G where TURN. E_0 (frames, rows, N), G (frames, rows, nx)."""
    blocks = tl.cdiv(nx, BX)
    row = tl.program_id(0) // blocks
    x = (tl.program_id(0) % blocks * BX + tl.arange(0, BX))[None, :]
    ar, ai, br, bi, cr, ci, dr, di = _matrix(M, voxel + row * nx + x, voxels, x < nx)
    first = tl.program_id(1) * per
    last = tl.minimum(first + per, frames)
    for f in range(first, last, FB):
        frame = (f + tl.arange(0, FB))[:, None]
        inside = (frame < last) & (x < nx)
        at_E, at_G = (frame * rows + row) * N + offset + x, (frame * rows + row) * nx + x
        er, ei = _load(E_0, at_E, inside)
        gr, gi = _load(G, at_G, inside)
        pr, pi = _mul(ar, ai, er, ei)
        qr, qi = _mul(br, bi, gr, gi)
        _store(E_0, at_E, pr + qr, pi + qi, inside)
        pr, pi = _mul(cr, ci, er, ei)
        qr, qi = _mul(dr, di, gr, gi)
        pr, pi = pr + qr, pi + qi
        if TURN:
            tr = tl.load(layer + 2 * frame, mask=frame < last, other=0.0)
            ti = tl.load(layer + 2 * frame + 1, mask=frame < last, other=0.0)
            pr, pi = _mul(tr, ti, pr, pi)
        _store(G, at_G, pr, pi, inside)


@triton.jit(do_not_specialize=["offset", "voxel", "per"])
def couple_adj(
    E_0, G, M, X, layer, frames, rows, nx, N, offset, voxel, voxels, per,
    TURN: tl.constexpr, FB: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """Reverse couple. E_0 (2, frames, rows, N) and G (2, frames, rows, nx): state, adjoint. X (parts, 4, voxels).

    State: conj(layer), then M^-1. Adjoint: conj(layer), then M^H. X_ij = sum over the part's frames of conj(adj_i) E_j.
    """
    blocks = tl.cdiv(nx, BX)
    row = tl.program_id(0) // blocks
    x = (tl.program_id(0) % blocks * BX + tl.arange(0, BX))[None, :]
    ar, ai, br, bi, cr, ci, dr, di = _matrix(M, voxel + row * nx + x, voxels, x < nx)
    adr, adi = _mul(ar, ai, dr, di)
    bcr, bci = _mul(br, bi, cr, ci)
    vr, vi = adr - bcr, adi - bci  # determinant, then its inverse
    size = tl.where(x < nx, vr * vr + vi * vi, 1.0)
    vr, vi = vr / size, -vi / size
    first = tl.program_id(1) * per
    last = tl.minimum(first + per, frames)
    x00r = tl.zeros((FB, BX), tl.float32)
    x00i, x0hr, x0hi = x00r, x00r, x00r
    xh0r, xh0i, xhhr, xhhi = x00r, x00r, x00r, x00r
    for f in range(first, last, FB):
        frame = (f + tl.arange(0, FB))[:, None]
        inside = (frame < last) & (x < nx)
        at_E, at_G = (frame * rows + row) * N + offset + x, (frame * rows + row) * nx + x
        er, ei = _load(E_0, at_E, inside)
        gr, gi = _load(G, at_G, inside)
        ur, ui = _load(E_0 + 2 * frames * rows * N, at_E, inside)  # adj_E_0
        wr, wi = _load(G + 2 * frames * rows * nx, at_G, inside)  # adj_G
        if TURN:
            tr = tl.load(layer + 2 * frame, mask=frame < last, other=0.0)
            ti = tl.load(layer + 2 * frame + 1, mask=frame < last, other=0.0)
            gr, gi = _conj_mul(tr, ti, gr, gi)
            wr, wi = _conj_mul(tr, ti, wr, wi)
        er, ei = _mul(vr, vi, er, ei)
        gr, gi = _mul(vr, vi, gr, gi)
        pr, pi = _mul(dr, di, er, ei)
        qr, qi = _mul(br, bi, gr, gi)
        sr, si = _mul(ar, ai, gr, gi)
        kr, ki = _mul(cr, ci, er, ei)
        er, ei, gr, gi = pr - qr, pi - qi, sr - kr, si - ki  # before the layer
        pr, pi = _conj_mul(ur, ui, er, ei)
        x00r, x00i = x00r + pr, x00i + pi
        pr, pi = _conj_mul(ur, ui, gr, gi)
        x0hr, x0hi = x0hr + pr, x0hi + pi
        pr, pi = _conj_mul(wr, wi, er, ei)
        xh0r, xh0i = xh0r + pr, xh0i + pi
        pr, pi = _conj_mul(wr, wi, gr, gi)
        xhhr, xhhi = xhhr + pr, xhhi + pi
        _store(E_0, at_E, er, ei, inside)
        _store(G, at_G, gr, gi, inside)
        pr, pi = _conj_mul(ar, ai, ur, ui)
        qr, qi = _conj_mul(cr, ci, wr, wi)
        _store(E_0 + 2 * frames * rows * N, at_E, pr + qr, pi + qi, inside)
        pr, pi = _conj_mul(br, bi, ur, ui)
        qr, qi = _conj_mul(dr, di, wr, wi)
        _store(G + 2 * frames * rows * nx, at_G, pr + qr, pi + qi, inside)
    at = tl.program_id(1) * 4 * voxels + voxel + row * nx + x
    _store(X, at, tl.sum(x00r, 0)[None, :], tl.sum(x00i, 0)[None, :], x < nx)
    _store(X, at + voxels, tl.sum(x0hr, 0)[None, :], tl.sum(x0hi, 0)[None, :], x < nx)
    _store(X, at + 2 * voxels, tl.sum(xh0r, 0)[None, :], tl.sum(xh0i, 0)[None, :], x < nx)
    _store(X, at + 3 * voxels, tl.sum(xhhr, 0)[None, :], tl.sum(xhhi, 0)[None, :], x < nx)


@triton.jit
def multiply(spectrum, phase, count, N: tl.constexpr, BX: tl.constexpr):
    """spectrum (rows, N) *= phase (N); count = rows."""
    at = tl.program_id(0) * BX + tl.arange(0, BX)[None, :]
    re, im = _load(spectrum, at, at < count * N)
    pr, pi = _load(phase, at % N, at < count * N)
    re, im = _mul(pr, pi, re, im)
    _store(spectrum, at, re, im, at < count * N)


class Kernels:
    """``parts`` programs share a column's frames; ``tile`` (frames, columns) at a time; ``warps`` per program."""

    CHOICES = [
        {"parts": parts, "tile": tile, "warps": warps}
        for parts in (1, 4, 16, 64)
        for tile, warps in (((1, 128), 4), ((1, 256), 4), ((2, 128), 4), ((4, 64), 4))
    ]

    def __init__(self, parts, tile, warps):
        self.parts, self.tile, self.warps = parts, tile, warps

    def _place(self, E_0, G, M, z):
        frames, rows, nx = G.shape[-3:]
        per = -(-frames // self.parts)
        grid = (-(-nx // self.tile[1]) * rows, self.parts)
        nz = M.shape[1]
        sizes = (frames, rows, nx, E_0.shape[-1])
        return grid, sizes, (z * rows * nx, nz * rows * nx, per)

    def couple(self, E_0, G, M, z, offset, layer):
        grid, sizes, where = self._place(E_0, G, M, z)
        turn = layer is not None
        couple[grid](
            _real(E_0), _real(G), _real(M), _real(layer if turn else M), *sizes, offset, *where,
            TURN=turn, FB=self.tile[0], BX=self.tile[1], num_warps=self.warps,
        )  # fmt: skip

    def couple_adj(self, E_0, G, M, z, offset, layer, X):
        grid, sizes, where = self._place(E_0, G, M, z)
        turn = layer is not None
        couple_adj[grid](
            _real(E_0), _real(G), _real(M), _real(X), _real(layer if turn else M), *sizes, offset, *where,
            TURN=turn, FB=self.tile[0], BX=self.tile[1], num_warps=self.warps,
        )  # fmt: skip

    def multiply(self, spectrum, phase):
        count, N = spectrum.numel() // spectrum.shape[-1], spectrum.shape[-1]
        multiply[(-(-count * N // 1024),)](_real(spectrum), _real(phase), count, N=N, BX=1024, num_warps=4)


def _real(tensor):
    return torch.view_as_real(tensor)
