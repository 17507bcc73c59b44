"""Slow, readable NumPy oracle of the paper's scheme `etd2rk` (exponential Heun), for tests.

The equations of `pendel.reference` with the detuning as explicit phases, G = exp(-i D (z - z_last)) H, so that only
E_0 has a linear part, L = -2 pi i t q in Fourier space. With N(u, z) = V(z) u and nodes z_n at the voxel centres and a
vacuum node before and behind (Cox & Matthews, J. Comput. Phys. 176, 430 (2002); Wu et al., arXiv 2506.15939, Eq. 3
with the coupling's sign put right; Carlsen & Simons, Acta Cryst. A78, 395 (2022)):

    A = e^{hL} u + h phi_1(hL) N(u, z_n),   u <- A + h phi_2(hL) (N(A, z_{n+1}) - N(u, z_n))
    phi_1(z) = (e^z - 1) / z,   phi_2(z) = (e^z - 1 - z) / z^2,   phi_1(0) = 1,   phi_2(0) = 1/2
"""

import numpy as np

from ..base.arrays import plain_array
from .equations import coefficients, potential
from .strang import exit_ramp


def phi_functions(z):
    """e^z, phi_1(z), phi_2(z) of an array, by the mean of the closed forms on a circle about z (no cancellation)."""
    points = z[..., None] + np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
    e = np.exp(points)
    phi_1 = (e - 1) / points
    phi_2 = (e - 1 - points) / points**2
    return np.exp(z), phi_1.mean(-1), phi_2.mean(-1)


def forward(
    S, dq, *, voxel, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, incident=None, row_length, return_E_0=False,
):  # fmt: skip
    """Exit field E_h (n, ny, nx), complex128; arguments as in `pendel.reference.forward`, transport fourier."""
    S = plain_array("S", S).astype(complex)
    dq = plain_array("dq", dq).astype(float)
    s_0 = np.abs(S) if s_0 is None else plain_array("s_0", s_0).astype(float)
    nz, ny, nx = S.shape
    dz = voxel[0]
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    q = np.fft.fftfreq(row_length, voxel[2])
    propagate, phi_1, phi_2 = phi_functions(-2j * np.pi * q * np.tan(two_theta) * dz)

    def multiplied(E_0, by):
        return np.fft.ifft(np.fft.fft(E_0) * by)

    def N(node, E_0, H):
        """dz V u at a voxel node; 0 at the vacuum nodes -1 and nz."""
        out_0 = np.zeros_like(E_0)
        out_h = np.zeros_like(H)
        if 0 <= node < nz:
            V = dz * potential(S[node], s_0[node], factors)
            P = np.exp(1j * dq[:, 2] * dz * (nz - 1 - node))[:, None, None]
            G = P * H
            out_0[..., :nx] = V[..., 0, 0] * E_0[..., :nx] + V[..., 0, 1] * G
            out_h = P.conj() * (V[..., 1, 0] * E_0[..., :nx] + V[..., 1, 1] * G)
        return out_0, out_h

    incident = np.ones((ny, row_length)) if incident is None else incident
    E_0 = multiplied(np.broadcast_to(incident, (len(dq), ny, row_length)).astype(complex), propagate.conj())
    H = np.zeros((len(dq), ny, nx), complex)
    for node in range(-1, nz):
        g_0, g_h = N(node, E_0, H)
        A_0 = multiplied(E_0, propagate) + multiplied(g_0, phi_1)
        A_h = H + g_h
        f_0, f_h = N(node + 1, A_0, A_h)
        E_0 = A_0 + multiplied(f_0 - g_0, phi_2)
        H = A_h + (f_h - g_h) / 2

    ramp, _, _ = exit_ramp(dq, S.shape, voxel)
    E_h = ramp * np.exp(-0.5j * dq[:, 2] * dz)[:, None, None] * H
    return (E_h, multiplied(E_0, propagate.conj())[..., :nx]) if return_E_0 else E_h
