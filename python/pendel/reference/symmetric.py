"""Slow, readable NumPy oracle of the march with z along k_0 + k_h, for tests.

k_0 = k (sin theta, 0, cos theta), k_h = k (-sin theta, 0, cos theta), theta = half the scattering angle, t = tan theta;
E_h = exp(i dq.r) G as in `pendel.reference`. Both waves leave z by the same angle, to either side:

    d_z E_0 = -t d_x E_0        + a E_0 + b G      a = i K chi_0 s_0,  b = i K C chi_hbar conj(S)          (1)
    d_z G   =  t d_x G  - i D G + c E_0 + d G      c = i K C chi_h S,  d = a,  K = k / (2 cos theta)       (2)

    D = k_h.dq / k_hz = dq_z - t dq_x

`strang`: per voxel layer the exact exponential of the pointwise part, between layers the exact transport of both waves;
both end on the plane of the last voxel centres. (3)

Fields are kept on rows that do not move, x of the crystal at the last nx places; the row is periodic and long enough
that nothing comes back. SI units, x = y = 0 at index n // 2 of the crystal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ..base.arrays import plain_array
from .equations import (
    Coefficients,
    coefficients,
    expm_adjoint,
    matrix_adjoint,
    potential,
    potential_adjoint,
    voxel_matrix,
)
from .strang import BLANES_MOAN_A, BLANES_MOAN_B


def _transport(length, voxel, two_theta, transport):
    """move(E_0, G, layers): both over that many layers, without the detuning."""
    t = np.tan(two_theta / 2)
    pixels = voxel[0] * t / voxel[2]
    q = np.fft.fftfreq(length, voxel[2])

    def whole(E_0, G, layers):
        m = round(pixels * layers)
        assert abs(m - pixels * layers) < 1e-5
        return np.roll(E_0, m, -1), np.roll(G, -m, -1)

    def fourier(E_0, G, layers):
        # The Nyquist bin keeps its complex phase of modulus 1, so that the move is unitary.
        phase = np.exp(-2j * np.pi * q * t * voxel[0] * layers)
        return np.fft.ifft(np.fft.fft(E_0) * phase), np.fft.ifft(np.fft.fft(G) * phase.conj())

    return {"shift": whole, "fourier": fourier}[transport]


def _exit_ramp(dq, shape, length, voxel):
    """exp(i (dq_x x + dq_y y)) (n, ny, length), and x (length,), y (ny,), m."""
    x = (np.arange(length) - (length - shape[2]) - shape[2] // 2) * voxel[2]
    y = (np.arange(shape[1]) - shape[1] // 2) * voxel[1]
    return np.exp(1j * (dq[:, 0, None, None] * x + dq[:, 1, None, None] * y[:, None])), x, y


def _detuning(dq, two_theta):
    """D (n,), rad/m."""
    return dq[:, 2] - np.tan(two_theta / 2) * dq[:, 0]


@dataclass(frozen=True)
class _March:
    """A whole sweep: what went in, the fields in front of every layer, and what came out."""

    S: np.ndarray  # (nz, ny, nx) complex
    s_0: np.ndarray  # (nz, ny, nx) real
    dq: np.ndarray  # (n, 3)
    factors: Coefficients
    move: Callable  # of `_transport`
    box: slice  # of the row: where the crystal lies
    phase: np.ndarray  # (n, 1, 1), exp(-i D dz)
    M: np.ndarray  # (nz, ny, nx, 2, 2), exp(dz V)
    before: list  # of (E_0, G) on the whole row, one of every layer
    E_0: np.ndarray  # (n, ny, row)
    G: np.ndarray  # (n, ny, row)
    ramp: np.ndarray  # (n, ny, row)
    x: np.ndarray  # (row,)
    y: np.ndarray  # (ny,)

    @property
    def E_h(self):
        return self.ramp * self.G


def _march(S, dq, factors, *, voxel, row_length, s_0, incident, transport) -> _March:
    """Equation (3), with the fields in front of every layer kept."""
    S = plain_array("S", S).astype(complex)
    dq = plain_array("dq", dq).astype(float)
    s_0 = np.abs(S) if s_0 is None else plain_array("s_0", s_0).astype(float)
    nz, ny, nx = S.shape
    dz = voxel[0]
    move = _transport(row_length, voxel, factors.two_theta, transport)
    box = slice(row_length - nx, row_length)
    incident = np.ones((ny, row_length)) if incident is None else plain_array("incident", incident)
    E_0 = np.broadcast_to(incident, (len(dq), ny, row_length)).astype(complex)
    G = np.zeros((len(dq), ny, row_length), complex)

    phase = np.exp(-1j * _detuning(dq, factors.two_theta) * dz)[:, None, None]
    M = voxel_matrix(S, s_0, dz, factors)
    before = []
    for layer in range(nz):
        if layer:
            E_0, G = move(E_0, G, 1)
            G = phase * G
        before.append((E_0.copy(), G.copy()))
        _apply(M[layer], E_0, G, box)
    ramp, x, y = _exit_ramp(dq, S.shape, row_length, voxel)
    return _March(S, s_0, dq, factors, move, box, phase, M, before, E_0, G, ramp, x, y)


def _apply(M, E_0, G, box):
    """(E_0, G) behind a layer, in place: M on the two waves in the crystal."""
    fields = np.stack([E_0[..., box], G[..., box]], -1)
    E_0[..., box], G[..., box] = np.moveaxis(np.einsum("yxij,nyxj->nyxi", M, fields), -1, 0)


def forward(
    S, dq, *, voxel, two_theta, row_length, s_0=None, incident=None, transport="fourier", return_E_0=False, **physics
):
    """Exit field E_h (n, ny, row_length) of equation (3), complex128; with ``return_E_0`` E_0 of the same shape too.

    Parameters
    ----------
    row_length : pixels.
    incident : (ny, row_length) complex, E_0 of the whole row on the plane of the first voxel centres, or None for ones.
    physics : wavelength, chi_0, chi_h, chi_hbar, polarization_factor.

    Else as in `pendel.reference.forward`.
    """
    factors = coefficients(two_theta=two_theta, orientation="symmetric", **physics)
    run = _march(S, dq, factors, voxel=voxel, row_length=row_length, s_0=s_0, incident=incident, transport=transport)
    return (run.E_h, run.E_0) if return_E_0 else run.E_h


def adjoint(S, dq, adj_E_h, *, voxel, two_theta, row_length, s_0=None, incident=None, transport="fourier", **physics):
    """Adjoint of `forward` by stored fields: a namespace of S, s_0 (None when s_0 was None), incident (row), dq.

    dL = Re sum conj(adj_X) dX; the exponential's derivative by `expm_adjoint`.
    """
    factors = coefficients(two_theta=two_theta, orientation="symmetric", **physics)
    run = _march(S, dq, factors, voxel=voxel, row_length=row_length, s_0=s_0, incident=incident, transport=transport)
    dz = voxel[0]
    box = run.box
    adj_E_h = plain_array("adj_E_h", adj_E_h).astype(complex)

    # Reverse: E_h <- ramp G
    adj_dq = np.zeros_like(run.dq)
    flow = np.real(1j * np.conj(adj_E_h) * run.E_h)
    adj_dq[:, 0] = (flow * run.x).sum((1, 2))
    adj_dq[:, 1] = (flow * run.y[:, None]).sum((1, 2))
    adj_G = np.conj(run.ramp) * adj_E_h
    adj_E_0 = np.zeros_like(run.E_0)

    adj_D = np.zeros(len(run.dq))
    adj_V = np.empty((*run.S.shape, 2, 2), complex)
    for layer in reversed(range(len(run.S))):
        E_0, G = run.before[layer]
        # Reverse: (E_0, G) <- M (E_0, G), M = exp(dz V)
        after = (adj_E_0[..., box], adj_G[..., box])
        adj_M = matrix_adjoint(after, (E_0[..., box], G[..., box]))
        adj_V[layer] = dz * expm_adjoint(adj_M, dz * potential(run.S[layer], run.s_0[layer], factors))
        moved = np.einsum("yxji,nyxj->nyxi", run.M[layer].conj(), np.stack(after, -1))
        adj_E_0[..., box], adj_G[..., box] = np.moveaxis(moved, -1, 0)
        if layer:
            # Reverse: both moved, G <- exp(-i D dz) G
            adj_D -= dz * np.real(1j * np.conj(adj_G) * G).sum((1, 2))
            adj_E_0, adj_G = run.move(adj_E_0, run.phase.conj() * adj_G, -1)

    # Reverse: D = dq_z - t dq_x
    adj_dq[:, 2] += adj_D
    adj_dq[:, 0] -= np.tan(two_theta / 2) * adj_D
    adj_S, adj_s_0 = potential_adjoint(adj_V, run.S, factors, tied=s_0 is None)
    return SimpleNamespace(S=adj_S, s_0=adj_s_0, incident=adj_E_0.sum(0), dq=adj_dq)


def blanes_moan(S, dq, *, shape, voxel, steps, two_theta, row_length, **physics):
    """Exit field E_h (n, ny, row_length) behind a continuous crystal, at z = nz dz; order 4 in z, plane incident wave.

    S, steps : as in `pendel.reference.blanes_moan`; s_0 = |S|.
    """
    dq = plain_array("dq", dq).astype(float)
    factors = coefficients(two_theta=two_theta, orientation="symmetric", **physics)
    _, ny, nx = shape
    h = shape[0] * voxel[0] / steps
    move = _transport(row_length, (h, *voxel[1:]), two_theta, "fourier")
    box = slice(row_length - nx, row_length)
    D = _detuning(dq, two_theta)
    ramp, x, y = _exit_ramp(dq, shape, row_length, voxel)

    E_0 = np.ones((len(dq), ny, row_length), complex)
    G = np.zeros((len(dq), ny, row_length), complex)
    for step in range(steps):
        for stage, A in enumerate(BLANES_MOAN_A):
            E_0, G = move(E_0, G, A)
            G = np.exp(-1j * D * A * h)[:, None, None] * G
            if stage == len(BLANES_MOAN_B):
                break
            z = h * (step + BLANES_MOAN_A[:stage].sum() + A)
            S_z = np.broadcast_to(S(x[box], y[:, None], z), (ny, nx))
            M = voxel_matrix(S_z, np.abs(S_z), BLANES_MOAN_B[stage] * h, factors)
            _apply(M, E_0, G, box)
    return ramp * G
