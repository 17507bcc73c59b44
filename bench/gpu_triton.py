"""The best PyTorch version's kernels in Triton: the voxels' matrices (1), (2) of csrc/README.md and their adjoint (C),
(D); the coupling (3), (5) in place and its adjoint with the reversed state; the product with the transport's phases.
Complex arrays as pairs of float32.

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


@triton.jit
def _columns(nx, BX: tl.constexpr):
    """The program's row and its columns (1, BX)."""
    blocks = tl.cdiv(nx, BX)
    row = tl.program_id(0) // blocks
    return row, (tl.program_id(0) % blocks * BX + tl.arange(0, BX))[None, :]


@triton.jit
def _tile(f, last, row, x, rows, nx, N, offset, FB: tl.constexpr):
    """FB frames from f on: numbers (FB, 1), which entries are the program's, their places in E_0 and in G (FB, BX)."""
    frame = (f + tl.arange(0, FB))[:, None]
    inside = (frame < last) & (x < nx)
    return frame, inside, (frame * rows + row) * N + offset + x, (frame * rows + row) * nx + x


@triton.jit
def _phase(layer, frame, last):
    re = tl.load(layer + 2 * frame, mask=frame < last, other=0.0)
    im = tl.load(layer + 2 * frame + 1, mask=frame < last, other=0.0)
    return re, im


# A Triton kernel takes pointers and scalars and no structures: hence the long lists of arguments of the four below.


@triton.jit(do_not_specialize=["offset", "voxel", "per"])
def couple(
    E_0, G, M, layer, frames, rows, nx, N, offset, voxel, voxels, per,
    TURN: tl.constexpr, FB: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """(E_0, G) <- M (E_0, G); then G <- layer G where TURN. E_0 (frames, rows, N), G (frames, rows, nx)."""
    row, x = _columns(nx, BX)
    ar, ai, br, bi, cr, ci, dr, di = _matrix(M, voxel + row * nx + x, voxels, x < nx)
    first = tl.program_id(1) * per
    last = tl.minimum(first + per, frames)
    for f in range(first, last, FB):
        frame, inside, at_E, at_G = _tile(f, last, row, x, rows, nx, N, offset, FB)
        er, ei = _load(E_0, at_E, inside)
        gr, gi = _load(G, at_G, inside)
        pr, pi = _mul(ar, ai, er, ei)
        qr, qi = _mul(br, bi, gr, gi)
        _store(E_0, at_E, pr + qr, pi + qi, inside)
        pr, pi = _mul(cr, ci, er, ei)
        qr, qi = _mul(dr, di, gr, gi)
        pr, pi = pr + qr, pi + qi
        if TURN:
            tr, ti = _phase(layer, frame, last)
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
    row, x = _columns(nx, BX)
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
        frame, inside, at_E, at_G = _tile(f, last, row, x, rows, nx, N, offset, FB)
        er, ei = _load(E_0, at_E, inside)
        gr, gi = _load(G, at_G, inside)
        ur, ui = _load(E_0 + 2 * frames * rows * N, at_E, inside)  # adj_E_0
        wr, wi = _load(G + 2 * frames * rows * nx, at_G, inside)  # adj_G
        if TURN:
            tr, ti = _phase(layer, frame, last)
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


@triton.jit
def _horner(ur, ui, d1, d2, d3, d4):
    """1 + u / d1 (1 + u / d2 (1 + u / d3 (1 + u / d4)))."""
    hr, hi = 1 + ur / d4, ui / d4
    hr, hi = _mul(ur / d3, ui / d3, hr, hi)
    hr, hi = _mul(ur / d2, ui / d2, 1 + hr, hi)
    hr, hi = _mul(ur / d1, ui / d1, 1 + hr, hi)
    return 1 + hr, hi


@triton.jit
def _voxel(sr, si, s_0, mr, mi, wr, wi, bcr, bci):
    """exp(mu), omega and u; the series in u are good to complex64 where |u| < 0.1."""
    scale = tl.exp(mr * s_0)
    er, ei = scale * tl.cos(mi * s_0), scale * tl.sin(mi * s_0)
    vr, vi = wr * s_0, wi * s_0
    ur, ui = _mul(vr, vi, vr, vi)
    size = sr * sr + si * si
    return er, ei, vr, vi, ur + bcr * size, ui + bci * size


@triton.jit
def matrices(S, s_0, M, voxels, mr, mi, wr, wi, br, bi, cr, ci, BX: tl.constexpr):
    """M (4, voxels) of S, s_0 (voxels)."""
    at = tl.program_id(0) * BX + tl.arange(0, BX)[None, :]
    inside = at < voxels
    sr, si = _load(S, at, inside)
    bcr, bci = _mul(br, bi, cr, ci)
    er, ei, vr, vi, ur, ui = _voxel(sr, si, tl.load(s_0 + at, mask=inside), mr, mi, wr, wi, bcr, bci)
    fr, fi = _horner(ur, ui, 6, 20, 42, 72)  # sinh(x) / x
    fr, fi = _mul(er, ei, fr, fi)
    hr, hi = _horner(ur, ui, 2, 12, 30, 56)  # cosh(x)
    hr, hi = _mul(er, ei, hr, hi)
    pr, pi = _mul(fr, fi, vr, vi)
    _store(M, at, hr + pr, hi + pi, inside)
    _store(M, at + 3 * voxels, hr - pr, hi - pi, inside)
    pr, pi = _mul(br, bi, sr, -si)
    pr, pi = _mul(fr, fi, pr, pi)
    _store(M, at + voxels, pr, pi, inside)
    pr, pi = _mul(cr, ci, sr, si)
    pr, pi = _mul(fr, fi, pr, pi)
    _store(M, at + 2 * voxels, pr, pi, inside)


@triton.jit
def matrices_adj(S, s_0, X, adj_S, parts, voxels, mr, mi, wr, wi, br, bi, cr, ci, BX: tl.constexpr):
    """adj_S (voxels) of X (parts, 4, voxels) at fixed s_0."""
    at = tl.program_id(0) * BX + tl.arange(0, BX)[None, :]
    inside = at < voxels
    tr, ti = _load(X, at, inside)  # X00 + Xhh
    kr, ki = _load(X, at + voxels, inside)  # X0h
    lr, li = _load(X, at + 2 * voxels, inside)  # Xh0
    dr, di = _load(X, at + 3 * voxels, inside)
    tr, ti, dr, di = tr + dr, ti + di, tr - dr, ti - di  # and X00 - Xhh
    for part in range(1, parts):
        there = at + part * 4 * voxels
        pr, pi = _load(X, there, inside)
        qr, qi = _load(X, there + 3 * voxels, inside)
        tr, ti, dr, di = tr + pr + qr, ti + pi + qi, dr + pr - qr, di + pi - qi
        pr, pi = _load(X, there + voxels, inside)
        kr, ki = kr + pr, ki + pi
        pr, pi = _load(X, there + 2 * voxels, inside)
        lr, li = lr + pr, li + pi
    sr, si = _load(S, at, inside)
    bcr, bci = _mul(br, bi, cr, ci)
    er, ei, vr, vi, ur, ui = _voxel(sr, si, tl.load(s_0 + at, mask=inside), mr, mi, wr, wi, bcr, bci)
    fr, fi = _horner(ur, ui, 6, 20, 42, 72)
    fr, fi = _mul(er, ei, fr, fi)  # adj_N
    kr, ki = _mul(br, bi, kr, ki)  # b X0h
    lr, li = _mul(cr, ci, lr, li)  # c Xh0
    gr, gi = _mul(vr, vi, dr, di)  # n = omega (X00 - Xhh) + b conj(S) X0h + c S Xh0
    pr, pi = _mul(sr, -si, kr, ki)
    qr, qi = _mul(sr, si, lr, li)
    gr, gi = gr + pr + qr, gi + pi + qi
    pr, pi = _horner(ur, ui, 10, 28, 54, 88)  # 6 dshc/du
    pr, pi = _mul(er / 6, ei / 6, pr, pi)
    pr, pi = _mul(pr, pi, gr, gi)
    qr, qi = _mul(fr / 2, fi / 2, tr, ti)
    ur, ui = _mul(bcr, bci, pr + qr, pi + qi)  # b c a_u
    kr, ki = _mul(fr, fi, kr, ki)
    pr, pi = _mul(ur, ui, sr, si)
    kr, ki = kr + pr, ki + pi
    lr, li = _mul(fr, fi, lr, li)
    pr, pi = _mul(ur, ui, sr, -si)
    lr, li = lr + pr, li + pi
    _store(adj_S, at, lr + kr, ki - li, inside)  # conj(Z), Z = l + conj(k)


def _scalars(medium):
    return [part for value in medium for part in (value.real, value.imag)]


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

    def matrices(self, S, s_0, medium):
        M = torch.empty((4, *S.shape), dtype=S.dtype, device=S.device)
        arrays = (_real(S), s_0, _real(M))
        matrices[(-(-S.numel() // 256),)](*arrays, S.numel(), *_scalars(medium), BX=256, num_warps=4)
        return M

    def matrices_adj(self, S, s_0, medium, X):
        adj_S = torch.empty_like(S)
        arrays = (_real(S), s_0, _real(X), _real(adj_S), len(X))
        matrices_adj[(-(-S.numel() // 256),)](*arrays, S.numel(), *_scalars(medium), BX=256, num_warps=4)
        return adj_S

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
