"""The two-beam equations that the schemes of this oracle solve, and the 2 x 2 matrices they are made of.

Fields exp(+ik.r), Im chi > 0 absorbs; how the waves move depends on the model frame (`strang`, `symmetric`).

    d_z E_0 = transport + a E_0 + b G       a = i K_0 chi_0 s_0    b = i K_0 C chi_hbar conj(S)      (1)
    d_z G   = transport + c E_0 + d G       c = i K_h C chi_h S    d = i K_h chi_0 s_0               (2)

    V = [[a, b], [c, d]],   K = k / (2 cosine of the wave's angle to z)

This package is not fast and does not check its arguments; `pendel.TakagiTaupin` is the operator to use.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coefficients:
    """Physics of one reflection in a frame: k, K in rad/m, two_theta in rad, the others 1/m.

    a = .a s_0, b = .b conj(S), c = .c S, d = .d s_0 of equations (1) and (2).
    """

    two_theta: float
    k: float
    K_0: float
    K_h: float
    a: complex
    b: complex
    c: complex
    d: complex


def coefficients(
    wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0, orientation="k_h"
) -> Coefficients:
    """Factors of equations (1) and (2).

    Parameters
    ----------
    wavelength, two_theta : m, rad.
    chi_0, chi_h, chi_hbar : complex; chi_hbar=None: chi_h.
    polarization_factor : C.
    orientation : "k_h", or "symmetric", z along k_0 + k_h.
    """
    chi_hbar = chi_h if chi_hbar is None else chi_hbar
    C = polarization_factor
    k = 2 * np.pi / wavelength
    cosines = {"k_h": (np.cos(two_theta), 1.0), "symmetric": (np.cos(two_theta / 2),) * 2}[orientation]
    K_0, K_h = (k / (2 * cosine) for cosine in cosines)
    return Coefficients(
        two_theta=two_theta,
        k=k,
        K_0=K_0,
        K_h=K_h,
        a=1j * K_0 * chi_0,
        b=1j * K_0 * C * chi_hbar,
        c=1j * K_h * C * chi_h,
        d=1j * K_h * chi_0,
    )


def potential(S, s_0, factors):
    """V of equations (1) and (2), shape S.shape + (2, 2), 1/m."""
    V = np.empty((*np.shape(S), 2, 2), complex)
    V[..., 0, 0] = factors.a * s_0
    V[..., 0, 1] = factors.b * np.conj(S)
    V[..., 1, 0] = factors.c * S
    V[..., 1, 1] = factors.d * s_0
    return V


def potential_adjoint(adj_V, S, factors, tied):
    """(adj_S, adj_s_0) of `potential`; ``tied``: s_0 = |S|, its share is in adj_S and adj_s_0 is None."""
    f = factors
    adj_S = f.b * np.conj(adj_V[..., 0, 1]) + np.conj(f.c) * adj_V[..., 1, 0]
    adj_s_0 = np.real(np.conj(f.a) * adj_V[..., 0, 0] + np.conj(f.d) * adj_V[..., 1, 1])
    if not tied:
        return adj_S, adj_s_0
    size = np.abs(S)
    return adj_S + adj_s_0 * np.where(size > 0, S / np.where(size > 0, size, 1), 0), None


def voxel_matrix(S, s_0, step, factors):
    """Exact exp(step V), shape S.shape + (2, 2), by Sylvester's formula with the complex square root.

    m = (a + d) / 2, w = (a - d) / 2, O^2 = w^2 + b c:  exp(hV) = e^{hm} [cosh(hO) I + sinh(hO)/O (V - m I)].
    """
    V = potential(S, s_0, factors)
    mean = (V[..., 0, 0] + V[..., 1, 1]) / 2
    w = (V[..., 0, 0] - V[..., 1, 1]) / 2
    O = np.sqrt(w * w + V[..., 0, 1] * V[..., 1, 0])  # noqa: E741
    safe = np.where(O == 0, 1, O)
    sh = np.where(O == 0, step, np.sinh(step * safe) / safe)

    identity = np.eye(2)
    M = np.cosh(step * O)[..., None, None] * identity + sh[..., None, None] * (V - mean[..., None, None] * identity)
    return np.exp(step * mean)[..., None, None] * M


def expm(A):
    """exp of a stack of small matrices (..., n, n) by scaling, 18 Taylor terms and squaring."""
    norm = np.abs(A).sum(-1).max() if A.size else 0.0
    squarings = max(0, int(np.ceil(np.log2(max(norm, 1e-300) / 0.5))))
    A = A / 2.0**squarings
    result = term = np.broadcast_to(np.eye(A.shape[-1], dtype=complex), A.shape)
    for order in range(1, 19):
        term = term @ A / order
        result = result + term
    for _ in range(squarings):
        result = result @ result
    return result


def expm_adjoint(adj_M, A):
    """adj_A of M = exp(A), stacks (..., 2, 2): the corner block of exp [[A^H, adj_M], [0, A^H]] (Van Loan).

    It shares no formula with the closed form of `voxel_matrix` or with a closed-form adjoint.
    """
    A_H = np.conj(np.swapaxes(A, -1, -2))
    block = np.zeros((*adj_M.shape[:-2], 4, 4), complex)
    block[..., :2, :2] = block[..., 2:, 2:] = A_H
    block[..., :2, 2:] = adj_M
    return expm(block)[..., :2, 2:]


def matrix_adjoint(adj_after, before):
    """adj_M (ny, nx, 2, 2) of after = M before, summed over frames; each the pair of waves (E_0, G) (n, ny, nx)."""
    return np.einsum("nyxi,nyxj->yxij", np.stack(adj_after, -1), np.stack(before, -1).conj())
