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

from types import SimpleNamespace

import numpy as np

from .strang import BLANES_MOAN_A, BLANES_MOAN_B, coefficients, expm, potential, voxel_matrix


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


def _march(S, dq, voxel, two_theta, row_length, s_0, incident, transport, physics):
    S, dq = np.asarray(S, complex), np.asarray(dq, float)
    s_0 = np.abs(S) if s_0 is None else np.asarray(s_0, float)
    (nz, ny, nx), dz, n = S.shape, voxel[0], len(dq)
    factors = coefficients(two_theta=two_theta, orientation="symmetric", **physics)
    move, box = _transport(row_length, voxel, two_theta, transport), slice(row_length - nx, row_length)
    incident = np.ones((ny, row_length)) if incident is None else np.asarray(incident)
    E_0 = np.broadcast_to(incident, (n, ny, row_length)).astype(complex)
    G = np.zeros((n, ny, row_length), complex)
    D = dq[:, 2] - np.tan(two_theta / 2) * dq[:, 0]
    phase = np.exp(-1j * D * dz)[:, None, None]
    M = voxel_matrix(S, s_0, dz, factors)
    before = []
    for layer in range(nz):
        if layer:
            E_0, G = move(E_0, G, 1)
            G = phase * G
        before.append((E_0.copy(), G.copy()))
        fields = np.stack([E_0[..., box], G[..., box]], -1)
        E_0[..., box], G[..., box] = np.moveaxis(np.einsum("yxij,nyxj->nyxi", M[layer], fields), -1, 0)
    ramp, x, y = _exit_ramp(dq, S.shape, row_length, voxel)
    return SimpleNamespace(
        S=S, s_0=s_0, dq=dq, factors=factors, move=move, box=box, phase=phase, M=M, before=before,
        E_h=ramp * G, E_0=E_0, ramp=ramp, x=x, y=y,
    )  # fmt: skip


def forward(
    S, dq, *, voxel, two_theta, row_length, s_0=None, incident=None, transport="fourier", return_E_0=False, **physics
):
    """Exit field E_h (n, ny, row_length) of equation (3), complex128; with ``return_E_0`` E_0 of the same shape too.

    incident : (ny, row_length) complex, E_0 of the whole row on the plane of the first voxel centres, or None for ones.
    physics : wavelength, chi_0, chi_h, chi_hbar, polarization_factor. Else as in `pendel.reference.forward`.
    """
    run = _march(S, dq, voxel, two_theta, row_length, s_0, incident, transport, physics)
    return (run.E_h, run.E_0) if return_E_0 else run.E_h


def adjoint(S, dq, adj_E_h, *, voxel, two_theta, row_length, s_0=None, incident=None, transport="fourier", **physics):
    """Adjoint of `forward` by stored fields: a namespace of S, s_0 (None when s_0 was None), incident (row), dq.

    dL = Re sum conj(adj_X) dX. The derivative of the exponential is the corner block of exp [[V^H, A], [0, V^H]].
    """
    run = _march(S, dq, voxel, two_theta, row_length, s_0, incident, transport, physics)
    dz, box, t = voxel[0], run.box, np.tan(two_theta / 2)
    adj_E_h = np.asarray(adj_E_h, complex)
    flow = np.real(1j * np.conj(adj_E_h) * run.E_h)
    adj_dq = np.zeros_like(run.dq)
    adj_dq[:, 0], adj_dq[:, 1] = (flow * run.x).sum((1, 2)), (flow * run.y[:, None]).sum((1, 2))
    adj_G, adj_E_0, adj_D = np.conj(run.ramp) * adj_E_h, np.zeros_like(run.E_0), np.zeros(len(run.dq))
    adj_V = np.empty((*run.S.shape, 2, 2), complex)
    for layer in reversed(range(len(run.S))):
        E_0, G = run.before[layer]
        after = np.stack([adj_E_0[..., box], adj_G[..., box]], -1)
        fields = np.stack([E_0[..., box], G[..., box]], -1)
        adj_M = np.einsum("nyxi,nyxj->yxij", after, fields.conj())
        V_H = np.conj(np.swapaxes(dz * potential(run.S[layer], run.s_0[layer], run.factors), -1, -2))
        block = np.zeros((*adj_M.shape[:2], 4, 4), complex)
        block[..., :2, :2] = block[..., 2:, 2:] = V_H
        block[..., :2, 2:] = adj_M
        adj_V[layer] = dz * expm(block)[..., :2, 2:]
        moved = np.einsum("yxji,nyxj->nyxi", run.M[layer].conj(), after)
        adj_E_0[..., box], adj_G[..., box] = np.moveaxis(moved, -1, 0)
        if layer:
            adj_D -= dz * np.real(1j * np.conj(adj_G) * G).sum((1, 2))
            adj_E_0, adj_G = run.move(adj_E_0, run.phase.conj() * adj_G, -1)
    adj_dq[:, 2] += adj_D
    adj_dq[:, 0] -= t * adj_D
    f = run.factors
    adj_S = f.b * np.conj(adj_V[..., 0, 1]) + np.conj(f.c) * adj_V[..., 1, 0]
    adj_s_0 = np.real(np.conj(f.a) * adj_V[..., 0, 0] + np.conj(f.d) * adj_V[..., 1, 1])
    if s_0 is None:
        size = np.abs(run.S)
        adj_S = adj_S + adj_s_0 * np.where(size > 0, run.S / np.where(size > 0, size, 1), 0)
        adj_s_0 = None
    return SimpleNamespace(S=adj_S, s_0=adj_s_0, incident=adj_E_0.sum(0), dq=adj_dq)


def blanes_moan(S, dq, *, shape, voxel, steps, two_theta, row_length, **physics):
    """Exit field E_h (n, ny, row_length) behind a continuous crystal, at z = nz dz; order 4 in z, plane incident wave.

    S, steps : as in `pendel.reference.blanes_moan`; s_0 = |S|.
    """
    dq = np.asarray(dq, float)
    factors = coefficients(two_theta=two_theta, orientation="symmetric", **physics)
    (_, ny, nx), h = shape, shape[0] * voxel[0] / steps
    move, box = _transport(row_length, (h, *voxel[1:]), two_theta, "fourier"), slice(row_length - nx, row_length)
    D = dq[:, 2] - np.tan(two_theta / 2) * dq[:, 0]
    ramp, x, y = _exit_ramp(dq, shape, row_length, voxel)
    E_0, G = np.ones((len(dq), ny, row_length), complex), np.zeros((len(dq), ny, row_length), complex)
    for step in range(steps):
        for stage, A in enumerate(BLANES_MOAN_A):
            E_0, G = move(E_0, G, A)
            G = np.exp(-1j * D * A * h)[:, None, None] * G
            if stage == len(BLANES_MOAN_B):
                break
            z = h * (step + BLANES_MOAN_A[:stage].sum() + A)
            S_z = np.broadcast_to(S(x[box], y[:, None], z), (ny, nx))
            M = voxel_matrix(S_z, np.abs(S_z), BLANES_MOAN_B[stage] * h, factors)
            fields = np.stack([E_0[..., box], G[..., box]], -1)
            E_0[..., box], G[..., box] = np.moveaxis(np.einsum("yxij,nyxj->nyxi", M, fields), -1, 0)
    return ramp * G
