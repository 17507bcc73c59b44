"""Refraction and absorption along the optical path, taken out of a kinematic reconstruction.

Without extinction the incident wave reaches r, and the diffracted one leaves from there, as in a homogeneous medium:

(1) E_0(r) = exp(i k chi_0 L_0(r)/2),  L_0(r) = integral of s_0 along k_0 from the entrance to r
(2) S_kin(r) = S(r) exp(i k chi_0 (L_0 + L_h)/2),  L_h(r) = integral of s_0 along k_h from r to the exit

S_kin is what kinematic phasing finds at best: Re chi_0 < 0 turns its phase by up to some radians, Im chi_0 > 0 dims
it. (1) and (2) are the Takagi-Taupin equations without chi_hbar (csrc/README.md, with K_0 dz = k/2 times the path), and
the optical-path correction that is usual after kinematic phasing (Harder et al., Phys. Rev. B 76, 115425, 2007;
`bcdi` of J. Carnis). Extinction, the loss of E_0 to E_h and back, is not in it.

In the model frame k_h is z and k_0 = k (sin 2theta, 0, cos 2theta):

(3) L_h(z_n) = dz (s_n/2 + sum_{m>n} s_m),   L_0(z_n) = dz/cos 2theta (s_n/2 + sum_{m<n} T^(n-m) s_m),

T the shift by dz tan 2theta along x, a phase of the row's Fourier series: exact for whole pixels, sinc between.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from ..base import checks
from ..experiment.geometry import Experiment
from .support import reference_amplitude, shrink_wrap


def optical_path(s_0: ArrayLike, voxel: tuple[float, float, float], experiment: Experiment | float) -> np.ndarray:
    """L_0 + L_h, equation (3), at the voxel centres, everywhere in the box.

    Parameters
    ----------
    s_0 : bool or real (nz, ny, nx), volume fraction of the crystal in each voxel.
    voxel : (dz, dy, dx), m.
    experiment : `Experiment`, or its two_theta in rad, in (0, pi/2).

    Returns
    -------
    float64 (nz, ny, nx), m.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    s_0 = checks.array("s_0", s_0, (None, None, None), np.float64, axes="(nz, ny, nx)")
    dz, _, dx = checks.lengths("voxel", voxel, 3)
    two_theta = experiment.two_theta if isinstance(experiment, Experiment) else experiment
    two_theta = checks.number("experiment (two_theta)", two_theta, above=0, below=math.pi / 2)

    L_h = dz * (np.cumsum(s_0[::-1], axis=0)[::-1] - s_0 / 2)
    path = L_h  # L_0 is added layer by layer

    nz, _, nx = s_0.shape
    pixels = dz * math.tan(two_theta) / dx
    length = fft.next_fast_len(nx + math.ceil(pixels * nz) + 1, real=True)  # what leaves at one side must not re-enter
    T = np.exp(-2j * np.pi * fft.rfftfreq(length) * pixels)
    before = np.zeros((s_0.shape[1], length // 2 + 1), complex)  # the sum over m < n, a Fourier series
    for layer, sums in zip(s_0, path, strict=True):
        row = fft.rfft(layer, length, axis=1)
        sums += dz / math.cos(two_theta) * fft.irfft(before + row / 2, length, axis=1)[:, :nx]
        before = (before + row) * T
    return path


def correct(
    S: ArrayLike,
    voxel: tuple[float, float, float],
    experiment: Experiment,
    chi_0: complex,
    *,
    support: ArrayLike | None = None,
    absorption: bool = True,
) -> np.ndarray:
    """S of a kinematic reconstruction without its refraction and absorption, (2) solved for S.

    A translation of S does not matter, a constant phase neither; a phase ramp stays.

    Parameters
    ----------
    S : complex (nz, ny, nx) on the model grid, not the twin of the crystal: refraction has a direction.
    voxel : (dz, dy, dx), m.
    experiment : `Experiment` of the scan.
    chi_0 : complex, Im chi_0 >= 0 (exp(+ik.r)).
    support : bool, or volume fractions (nz, ny, nx), of the crystal; None: |S| over its median inside the
        shrink-wrapped support, at most 1.
    absorption : also undo the amplitude's absorption.

    Returns
    -------
    complex64 where S is, else complex128, (nz, ny, nx).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(f"experiment: expected an Experiment, got {checks.describe(experiment)}")
    dtype = np.complex64 if checks.numpy_array("S", S).dtype == np.complex64 else np.complex128
    S = checks.array("S", S, (None, None, None), dtype, axes="(nz, ny, nx)")
    chi_0 = checks.complex_number("chi_0", chi_0)
    if chi_0.imag < 0:
        raise ValueError(f"chi_0: expected Im chi_0 >= 0 (fields exp(+ik.r), Im chi > 0 absorbs), got {chi_0}")

    support = _volume_fraction(S) if support is None else support
    s_0 = checks.array("support", support, S.shape, np.float64, axes="(nz, ny, nx)")
    path = optical_path(s_0, voxel, experiment)
    chi_0 = chi_0 if absorption else chi_0.real
    return (S * np.exp(-0.5j * experiment.k * chi_0 * path)).astype(dtype)


def _volume_fraction(S):
    """|S| over its median inside the shrink-wrapped support, at most 1; 0 outside."""
    amplitude = np.abs(S)
    inside = shrink_wrap(S)
    full = reference_amplitude(amplitude, support=inside) if inside.any() else 1.0
    return np.where(inside, np.minimum(amplitude / full, 1), 0)
