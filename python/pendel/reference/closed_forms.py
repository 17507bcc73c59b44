"""Exit fields that are known in closed form: perfect crystals, and a constant strain gradient.

Arguments as in `pendel.reference.forward`; SI units.
"""

import numpy as np

from ..base.arrays import plain_array
from .equations import coefficients


def laue_slab(z, D, *, chi_0, orientation="k_h", **physics):
    """(E_0, G) of a perfect slab, plane wave, entrance face normal to z.

    z : thickness, m.  D : detuning k_h.dq / k_hz, rad/m.  orientation, physics : as in `coefficients`.
    """
    f = coefficients(chi_0=chi_0, orientation=orientation, **physics)
    D = plain_array("D", D).astype(float)
    sigma = (f.K_0 * chi_0 + f.K_h * chi_0 - D) / 2
    delta = (f.K_0 * chi_0 - f.K_h * chi_0 + D) / 2
    Om = np.sqrt(delta * delta - f.b * f.c)
    wave = np.exp(1j * sigma * z)
    E_0 = wave * (np.cos(Om * z) + 1j * delta / Om * np.sin(Om * z))
    G = wave * f.c * np.sin(Om * z) / Om
    return E_0, G


def point_source(x, z, *, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0):
    """(E_h, regular part of E_0), 1/m, of a perfect crystal for E_0(x, 0) = delta(x); 0 < x < z tan 2theta, both m.

    The Riemann function of equations (1), (2): Bessel J_0 and J_1 of the two path lengths.
    """
    from scipy.special import jv

    chi_hbar = chi_h if chi_hbar is None else chi_hbar
    k = 2 * np.pi / wavelength
    C = polarization_factor
    t = np.tan(two_theta)
    l_0 = x / np.sin(two_theta)
    l_h = z - x / t

    product = np.sqrt(complex(chi_h * chi_hbar))
    argument = k * C * product * np.sqrt(l_0 * l_h)
    wave = np.exp(0.5j * k * chi_0 * (l_0 + l_h))
    E_h = 1j * k * C * chi_h / (2 * t) * jv(0, argument) * wave
    # J_1(argument) sqrt(l_0 / l_h) = l_0 k C product J_1(argument) / argument, finite at l_h = 0.
    small = np.abs(argument) < 1e-8
    ratio = np.where(small, 0.5, jv(1, argument) / np.where(small, 1, argument))
    E_0 = -k * C / (2 * t) * product * (k * C * product * l_0 * ratio) * wave
    return E_h, E_0


def constant_strain_gradient(z, D, B, *, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0):
    """(E_0, G) behind a slab of thickness z, m, with S = exp(i B z^2 / 2), B in rad/m^2, at one detuning D, rad/m.

    Weber (parabolic cylinder) functions, evaluated by mpmath.
    """
    import mpmath as mp

    f = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    with mp.workdps(40):
        i = mp.mpc(0, 1)
        B = mp.mpf(B)
        z = mp.mpf(z)
        al = mp.mpc(f.K_0 * chi_0)
        be = mp.mpc(f.K_h * chi_0 - D)
        b = mp.mpc(f.b / 1j)
        c = mp.mpc(f.c / 1j)
        z_0 = (al - be) / B
        nu = -1 - i * b * c / B
        scale = mp.sqrt(mp.mpc(B)) * mp.expjpi(0.25)

        def weber(sign, at):
            """D_nu of +-u(at), and its derivative by z."""
            u = sign * scale * (at + z_0)
            D_nu = mp.pcfd(nu, u)
            return D_nu, sign * scale * (u / 2 * D_nu - mp.pcfd(nu + 1, u))

        (p, dp), (q, dq) = weber(1, 0), weber(-1, 0)
        right = i * B * z_0 / 2
        A_1 = (dq - q * right) / (p * dq - q * dp)
        A_2 = (p * right - dp) / (p * dq - q * dp)

        (p, dp), (q, dq) = weber(1, z), weber(-1, z)
        a = A_1 * p + A_2 * q
        da = A_1 * dp + A_2 * dq
        E_0 = mp.exp(i * ((al + be) * z / 2 - B * z * z / 4)) * a
        G = mp.exp(i * ((al + be) * z / 2 + B * z * z / 4)) * (da - i * B / 2 * (z + z_0) * a) / (i * b)
        return complex(E_0), complex(G)


def darwin_half_space(X, D, *, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0):
    """G on the face of a half space in symmetric Bragg orientation, X (n,), m, behind the beam's edge; D = k_h.dq/k.

    i sqrt(chi_h / chi_hbar) int_0^{kappa X} J_1(u)/u exp(i eta u) du along the straight path in the complex plane.
    """
    from scipy.special import jv

    chi_hbar = chi_h if chi_hbar is None else chi_hbar
    k = 2 * np.pi / wavelength
    C = polarization_factor
    product = np.sqrt(complex(chi_h * chi_hbar))
    end = k * C * product / (2 * np.cos(two_theta / 2)) * plain_array("X", X).astype(float)[:, None]
    eta = (k * chi_0 - D) / (k * C * product)

    node, weight = np.polynomial.legendre.leggauss(200)
    u = end * (node + 1) / 2
    return 1j * chi_h / product * (end / 2 * weight * jv(1, u) / u * np.exp(1j * eta * u)).sum(-1)
