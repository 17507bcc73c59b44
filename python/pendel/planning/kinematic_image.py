"""A crystal as all frames together show it: what kinematic phasing finds at best.

Kinematic phasing takes the far fields F(Q), Q = 2 pi q - dq, for the Fourier transform of a crystal function. Of all
frames whose phases are known, it is the inverse transform of F. In the exit fields, with z along k_h and D = dq_z,

(1) O(x, y, z) = 1/(N i K_H C chi_h dz) sum_D E_h(x, y; D) exp(i D (z_out - z)),   D = 2 pi j/(N dz),  N = nz
(2) O = S    without chi_0 and chi_hbar: each layer then leaves once, at its own depth

dq_x and dq_y only move E_h along q_x and q_y, so N frames along z tell all of F. A wave that is scattered at r_1, back
at r_2 and once more at r_3 is seen at r = r_1 - r_2 + r_3, where two of its paths would have met. Its way through the
crystal is as long as that of a wave scattered once at r, where the crystal is convex, and the sum over all of them is

(3) O(r) = exp(i k chi_0 (L_0 + L_h)/2) J_0(2 sqrt(kappa^2 L_0 L_h)) S,   kappa^2 = (k C/2)^2 chi_h chi_hbar

for a perfect crystal (tests/test_kinematic_image.py), with the paths L_0 and L_h of `pendel.kinematic.refraction`.
Phases of S enter as S(r_1) conj(S(r_2)) S(r_3) in the place of S(r): what strain and extinction do together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..experiment.crystal import Crystal
from ..operator.takagi_taupin import TakagiTaupin


def kinematic_image(
    S: ArrayLike,
    voxel: tuple[float, float, float],
    wavelength: float,
    two_theta: float,
    crystal: Crystal,
    *,
    s_0: ArrayLike | None = None,
    polarization_factor: float = 1.0,
    threads: int | None = None,
) -> np.ndarray:
    """O of equation (1), from one forward sweep of nz frames.

    Parameters
    ----------
    S : complex (nz, ny, nx)
        On a grid with z along k_h, x along k_0.
    voxel : (dz, dy, dx)
        [m]
    wavelength : float
        [m]
    two_theta : float
        [rad], in (0, pi/2)
    crystal : Crystal
        Its chi_h must not be 0.
    s_0 : real (nz, ny, nx) or None
        Density; None: |S|.
    polarization_factor : float
        C, not 0.
    threads : int or None
        None: all.

    Returns
    -------
    complex64 (nz, ny, nx), complex128 where S is

    Raises
    ------
    TypeError, ValueError
        Naming the parameter.
    """
    dtype = np.complex128 if checks.numpy_array("S", S).dtype == np.complex128 else np.complex64
    S = checks.array("S", S, (None, None, None), dtype, axes="(nz, ny, nx)")
    if not isinstance(crystal, Crystal):
        raise TypeError(f"crystal: expected a Crystal, got {checks.describe(crystal)}")
    if crystal.chi_h == 0 or polarization_factor == 0:
        raise ValueError("crystal (chi_h), polarization_factor: expected a crystal that diffracts, got 0")
    chi = crystal.chi_0, crystal.chi_h, crystal.chi_hbar
    op = TakagiTaupin(
        S.shape,
        voxel,
        wavelength,
        two_theta,
        *chi,
        polarization_factor=polarization_factor,
        dtype=dtype,
        threads=threads,
    )

    nz, dz = S.shape[0], op.voxel[0]
    D = 2 * math.pi * np.fft.fftfreq(nz) / dz
    E_h = op.forward(S, np.stack([0 * D, 0 * D, D], axis=1), s_0=s_0)
    to_exit = (nz - np.arange(nz) - 0.5) * dz  # from the layers' centres
    turned = np.exp(1j * np.outer(to_exit, D)) / (nz * 1j * math.pi / op.wavelength * polarization_factor)
    return np.tensordot((turned / (crystal.chi_h * dz)).astype(dtype), E_h, 1)
