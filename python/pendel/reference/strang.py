"""Slow, readable NumPy oracle of the two-beam Takagi-Taupin march, for tests.

Working equations, z along k_h, gauge E_h = exp(i dq.r) G, fields exp(+ik.r), Im chi > 0 absorbs:

    d_z E_0 = -t d_x E_0 + a E_0 + b G       a = i K_0 chi_0 s_0    b = i K_0 C chi_hbar conj(S)      (1)
    d_z G   = -i D G     + c E_0 + d G       c = i K_h C chi_h S    d = i K_h chi_0 s_0               (2)

    K_0 = k / (2 cos 2theta),  K_h = k / 2,  t = tan 2theta,  D = dq_z.

`strang` (symmetric splitting): per voxel layer the exact exponential exp(dz V) of V = [[a, b], [c, d]], between layers
the exact transport (E_0 moved by t dz towards +x, G times exp(-i D dz)), behind the last layer exp(-i D dz / 2).    (3)

Arrays: S[z, y, x], dq[frame, 3], fields [frame, y, x]. SI units. x = 0 and y = 0 lie at index n // 2.
This module is not fast and does not check its arguments; `pendel.TakagiTaupin` is the operator to use.
"""

from types import SimpleNamespace

import numpy as np

# S6(4) of Blanes and Moan, J. Comput. Appl. Math. 142, 313 (2002): a symmetric splitting of order 4.
_A = np.array([0.0792036964311957, 0.353172906049774, -0.0420650803577195])
_B = np.array([0.209515106613362, -0.143851773179818])
BLANES_MOAN_A = np.array([*_A, 1 - 2 * _A.sum(), *_A[::-1]])
BLANES_MOAN_B = np.array([*_B, 0.5 - _B.sum(), 0.5 - _B.sum(), *_B[::-1]])


def coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0, orientation="k_h"):
    """Factors of equations (1) and (2), 1/m: a = .a s_0, b = .b conj(S), c = .c S, d = .d s_0; also .k, .K_0, .K_h.

    K = k / (2 cosine of the wave's angle to z). orientation : "k_h", or "symmetric", z along k_0 + k_h.
    """
    chi_hbar = chi_h if chi_hbar is None else chi_hbar
    k = 2 * np.pi / wavelength
    cosines = {"k_h": (np.cos(two_theta), 1.0), "symmetric": (np.cos(two_theta / 2),) * 2}[orientation]
    K_0, K_h = (k / (2 * gamma) for gamma in cosines)
    C = polarization_factor
    return SimpleNamespace(
        k=k, K_0=K_0, K_h=K_h, a=1j * K_0 * chi_0, b=1j * K_0 * C * chi_hbar, c=1j * K_h * C * chi_h, d=1j * K_h * chi_0
    )


def potential(S, s_0, factors):
    """V of equations (1) and (2), shape S.shape + (2, 2), 1/m."""
    V = np.empty((*np.shape(S), 2, 2), complex)
    V[..., 0, 0], V[..., 0, 1] = factors.a * s_0, factors.b * np.conj(S)
    V[..., 1, 0], V[..., 1, 1] = factors.c * S, factors.d * s_0
    return V


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


class _Row:
    """The E_0 row and its transport. `shift`: the row travels with the wave, so only the window moves."""

    def __init__(self, shape, voxel, two_theta, transport, row_length):
        (nz, _, nx), (dz, _, dx) = shape, voxel
        pixels = dz * np.tan(two_theta) / dx
        self.nz, self.nx, self.m = nz, nx, round(pixels)
        if transport == "shift":
            if abs(pixels - self.m) > 1e-6:
                raise ValueError(f"voxel: expected dz tan(2 theta) / dx whole for transport 'shift', got {pixels}")
            self.phase, self.length = None, nx + self.m * (nz - 1)
        elif transport == "fourier":
            self.length = row_length or 2 * ((nx + int(np.ceil(pixels * nz)) + 16) // 2)
            # The Nyquist bin keeps its complex phase of modulus 1, so that the move is unitary.
            self.phase = np.exp(-2j * np.pi * np.fft.fftfreq(self.length, dx) * np.tan(two_theta) * dz)
        else:
            raise ValueError(f"transport: expected 'shift' or 'fourier', got {transport!r}")

    def window(self, layer):
        start = 0 if self.phase is not None else self.m * (self.nz - 1 - layer)
        return slice(start, start + self.nx)

    def move(self, E_0, inverse=False):
        if self.phase is None:
            return E_0
        return np.fft.ifft(np.fft.fft(E_0) * (self.phase.conj() if inverse else self.phase))


def exit_ramp(dq, shape, voxel):
    """exp(i (dq_x x + dq_y y)), shape (n, ny, nx), and the coordinates x (nx,) and y (ny,), m."""
    x = (np.arange(shape[2]) - shape[2] // 2) * voxel[2]
    y = (np.arange(shape[1]) - shape[1] // 2) * voxel[1]
    ramp = np.exp(1j * (dq[:, 0, None, None] * x + dq[:, 1, None, None] * y[:, None]))
    return ramp, x, y


def _march(
    S,
    dq,
    *,
    voxel,
    wavelength,
    two_theta,
    chi_0,
    chi_h,
    chi_hbar,
    polarization_factor,
    s_0,
    incident,
    transport,
    row_length,
):
    """The whole sweep; keeps the fields before every layer."""
    S = np.asarray(S, complex)
    dq = np.asarray(dq, float)
    s_0 = np.abs(S) if s_0 is None else np.asarray(s_0, float)
    (nz, ny, nx), dz, n = S.shape, voxel[0], len(dq)
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    row = _Row(S.shape, voxel, two_theta, transport, row_length)
    incident = np.ones((ny, row.length)) if incident is None else np.asarray(incident)
    E_0 = np.broadcast_to(incident, (n, ny, row.length)).astype(complex)
    G = np.zeros((n, ny, nx), complex)
    phase = np.exp(-1j * dq[:, 2] * dz)[:, None, None]
    M = voxel_matrix(S, s_0, dz, factors)
    before = []
    for layer in range(nz):
        if layer:
            E_0, G = row.move(E_0), phase * G
        before.append((E_0.copy(), G.copy()))
        window = row.window(layer)
        E_0, G = _apply(M[layer], E_0, G, window)
    G_last = G
    G = np.exp(-0.5j * dq[:, 2] * dz)[:, None, None] * G
    ramp, x, y = exit_ramp(dq, S.shape, voxel)
    return SimpleNamespace(
        S=S, s_0=s_0, dq=dq, dz=dz, factors=factors, row=row, phase=phase, M=M, before=before, G_last=G_last,
        E_h=ramp * G, E_0=E_0[..., row.window(nz - 1)], E_0_row=E_0, G=G, ramp=ramp, x=x, y=y,
    )  # fmt: skip


def _apply(M, E_0, G, window):
    E_0 = E_0.copy()
    inside = E_0[..., window].copy()
    E_0[..., window] = M[..., 0, 0] * inside + M[..., 0, 1] * G
    return E_0, M[..., 1, 0] * inside + M[..., 1, 1] * G


def forward(
    S, dq, *, voxel, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, incident=None, transport="shift", row_length=None, return_E_0=False,
):  # fmt: skip
    """Exit field E_h (n, ny, nx) of the `strang` scheme, equation (3), in complex128.

    Parameters
    ----------
    S : (nz, ny, nx) complex; dq : (n, 3), rad/m; s_0 : (nz, ny, nx) real, None for |S|.
    incident : (ny, row length) complex, E_0 of the whole, already padded row on the plane of the first voxel centres,
        or None for ones. `shift`: crystal column x of the first layer is index x + m (nz - 1); `fourier`: index x.
    row_length : periodic length for `fourier`, pixels.
    return_E_0 : also return E_0 (n, ny, nx) behind the last layer, on the plane of the last voxel centres.
    """
    run = _march(
        S, dq, voxel=voxel, wavelength=wavelength, two_theta=two_theta, chi_0=chi_0, chi_h=chi_h, chi_hbar=chi_hbar,
        polarization_factor=polarization_factor, s_0=s_0, incident=incident, transport=transport, row_length=row_length,
    )  # fmt: skip
    return (run.E_h, run.E_0) if return_E_0 else run.E_h


def energy(
    S, dq, *, voxel, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, incident=None, transport="shift", row_length=None,
):  # fmt: skip
    """cos(2 theta) sum |E_0|^2 + sum |E_h|^2 over the whole row, (n,), in front of and behind the crystal."""
    run = _march(
        S, dq, voxel=voxel, wavelength=wavelength, two_theta=two_theta, chi_0=chi_0, chi_h=chi_h, chi_hbar=chi_hbar,
        polarization_factor=polarization_factor, s_0=s_0, incident=incident, transport=transport, row_length=row_length,
    )  # fmt: skip
    gamma_0 = np.cos(two_theta)
    entrance = gamma_0 * (np.abs(run.before[0][0]) ** 2).sum((1, 2))
    return entrance, gamma_0 * (np.abs(run.E_0_row) ** 2).sum((1, 2)) + (np.abs(run.E_h) ** 2).sum((1, 2))


def adjoint(
    S, dq, adj_E_h, *, voxel, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, incident=None, transport="shift", row_length=None,
):  # fmt: skip
    """Adjoint of `forward` by stored fields: a namespace of S, s_0 (None when s_0 was None), incident (padded row), dq.

    dL = Re sum conj(adj_X) dX. The derivative of the exponential is the corner block of a 4 x 4 exponential,
    exp [[V^H, A], [0, V^H]] (Van Loan), so it shares no formula with a closed-form adjoint.
    """
    run = _march(
        S, dq, voxel=voxel, wavelength=wavelength, two_theta=two_theta, chi_0=chi_0, chi_h=chi_h, chi_hbar=chi_hbar,
        polarization_factor=polarization_factor, s_0=s_0, incident=incident, transport=transport, row_length=row_length,
    )  # fmt: skip
    nz, dz, row, D = len(run.S), run.dz, run.row, run.dq[:, 2]
    adj_E_h = np.asarray(adj_E_h, complex)
    adj_dq = np.empty_like(run.dq)
    flow = np.real(1j * np.conj(adj_E_h) * run.E_h)
    adj_dq[:, 0], adj_dq[:, 1] = (flow * run.x).sum((1, 2)), (flow * run.y[:, None]).sum((1, 2))
    adj_G = np.conj(run.ramp) * adj_E_h
    adj_dq[:, 2] = -dz / 2 * np.real(1j * np.conj(adj_G) * run.G).sum((1, 2))
    adj_G = np.exp(0.5j * D * dz)[:, None, None] * adj_G
    adj_E_0 = np.zeros_like(run.before[0][0])
    adj_V = np.empty((*run.S.shape, 2, 2), complex)
    for layer in reversed(range(nz)):
        E_0, G = run.before[layer]
        window = row.window(layer)
        after = np.stack([adj_E_0[..., window], adj_G], -1)
        fields = np.stack([E_0[..., window], G], -1)
        adj_M = np.einsum("nyxi,nyxj->yxij", after, fields.conj())
        V_H = np.conj(np.swapaxes(dz * potential(run.S[layer], run.s_0[layer], run.factors), -1, -2))
        block = np.zeros((*adj_M.shape[:2], 4, 4), complex)
        block[..., :2, :2] = block[..., 2:, 2:] = V_H
        block[..., :2, 2:] = adj_M
        adj_V[layer] = dz * expm(block)[..., :2, 2:]
        adj_E_0, adj_G = _apply(np.conj(np.swapaxes(run.M[layer], -1, -2)), adj_E_0, adj_G, window)
        if layer:
            adj_dq[:, 2] -= dz * np.real(1j * np.conj(adj_G) * G).sum((1, 2))
            adj_E_0, adj_G = row.move(adj_E_0, inverse=True), run.phase.conj() * adj_G
    f = run.factors
    adj_S = f.b * np.conj(adj_V[..., 0, 1]) + np.conj(f.c) * adj_V[..., 1, 0]
    adj_s_0 = np.real(np.conj(f.a) * adj_V[..., 0, 0] + np.conj(f.d) * adj_V[..., 1, 1])
    if s_0 is None:
        size = np.abs(run.S)
        adj_S = adj_S + adj_s_0 * np.where(size > 0, run.S / np.where(size > 0, size, 1), 0)
        adj_s_0 = None
    return SimpleNamespace(S=adj_S, s_0=adj_s_0, incident=adj_E_0.sum(0), dq=adj_dq)


def blanes_moan(
    S, dq, *, shape, voxel, steps, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, row_length=None,
):  # fmt: skip
    """Exit field E_h (n, ny, nx) for a continuous crystal, order 4 in z, `fourier` transport, plane incident wave.

    S : callable (x (nx,), y (ny, 1), z float), m, -> complex broadcastable to (ny, nx); z runs from 0 to nz dz and
        voxel k of `forward` has its centre at (k + 1/2) dz. s_0 : the same, real; None for |S|.
    steps : number of steps over nz dz. Source: Blanes and Moan (2002), scheme S6(4), V frozen where the L flow stands.
    """
    dq = np.asarray(dq, float)
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    (_, ny, nx), t, h = shape, np.tan(two_theta), shape[0] * voxel[0] / steps
    row = _Row(shape, voxel, two_theta, "fourier", row_length)
    q = np.fft.fftfreq(row.length, voxel[2])
    ramp, x, y = exit_ramp(dq, shape, voxel)
    E_0, G = np.ones((len(dq), ny, row.length), complex), np.zeros((len(dq), ny, nx), complex)
    phase = [np.exp(-2j * np.pi * q * t * A * h) for A in BLANES_MOAN_A]
    detuning = [np.exp(-1j * dq[:, 2] * A * h)[:, None, None] for A in BLANES_MOAN_A]
    for step in range(steps):
        for stage, A in enumerate(BLANES_MOAN_A):
            E_0, G = np.fft.ifft(np.fft.fft(E_0) * phase[stage]), detuning[stage] * G
            if stage == len(BLANES_MOAN_B):
                break
            z = h * (step + BLANES_MOAN_A[:stage].sum() + A)
            S_z = np.broadcast_to(S(x, y[:, None], z), (ny, nx))
            s_0_z = np.abs(S_z) if s_0 is None else np.broadcast_to(s_0(x, y[:, None], z), (ny, nx))
            M = voxel_matrix(S_z, s_0_z, BLANES_MOAN_B[stage] * h, factors)
            E_0, G = _apply(M, E_0, G, slice(0, nx))
    return ramp * G


def laue_slab(z, D, *, chi_0, orientation="k_h", **physics):
    """(E_0, G) of a perfect slab of thickness z, m, at detuning D = k_h.dq / k_hz, rad/m, plane wave, entrance face
    normal to z; physics as in `coefficients`."""
    f = coefficients(chi_0=chi_0, orientation=orientation, **physics)
    D = np.asarray(D, float)
    sigma, delta = (f.K_0 * chi_0 + f.K_h * chi_0 - D) / 2, (f.K_0 * chi_0 - f.K_h * chi_0 + D) / 2
    Om = np.sqrt(delta * delta - f.b * f.c)
    wave = np.exp(1j * sigma * z)
    E_0 = wave * (np.cos(Om * z) + 1j * delta / Om * np.sin(Om * z))
    return E_0, wave * f.c * np.sin(Om * z) / Om


def point_source(x, z, *, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0):
    """(E_h, regular part of E_0), 1/m, of a perfect crystal for E_0(x, 0) = delta(x); 0 < x < z tan 2theta, both m.

    The Riemann function of equations (1), (2): Bessel J_0 and J_1 of the two path lengths.
    """
    from scipy.special import jv

    chi_hbar = chi_h if chi_hbar is None else chi_hbar
    k, C, t = 2 * np.pi / wavelength, polarization_factor, np.tan(two_theta)
    l_0, l_h = x / np.sin(two_theta), z - x / t
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
        al, be = mp.mpc(f.K_0 * chi_0), mp.mpc(f.K_h * chi_0 - D)
        b, c = mp.mpc(f.b / 1j), mp.mpc(f.c / 1j)
        i, B, z = mp.mpc(0, 1), mp.mpf(B), mp.mpf(z)
        z_0, nu = (al - be) / B, -1 - i * b * c / B
        scale = mp.sqrt(mp.mpc(B)) * mp.expjpi(0.25)

        def weber(sign, at):
            u = sign * scale * (at + z_0)
            D_nu = mp.pcfd(nu, u)
            return D_nu, sign * scale * (u / 2 * D_nu - mp.pcfd(nu + 1, u))

        (p, dp), (q, dq) = weber(1, 0), weber(-1, 0)
        right = i * B * z_0 / 2
        A_1, A_2 = (dq - q * right) / (p * dq - q * dp), (p * right - dp) / (p * dq - q * dp)
        (p, dp), (q, dq) = weber(1, z), weber(-1, z)
        a, da = A_1 * p + A_2 * q, A_1 * dp + A_2 * dq
        E_0 = mp.exp(i * ((al + be) * z / 2 - B * z * z / 4)) * a
        G = mp.exp(i * ((al + be) * z / 2 + B * z * z / 4)) * (da - i * B / 2 * (z + z_0) * a) / (i * b)
        return complex(E_0), complex(G)


def darwin_half_space(X, D, *, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0):
    """G on the face of a half space in symmetric Bragg orientation, X (n,), m, behind the beam's edge; D = k_h.dq/k.

    i sqrt(chi_h / chi_hbar) int_0^{kappa X} J_1(u)/u exp(i eta u) du along the straight path in the complex plane.
    """
    from scipy.special import jv

    chi_hbar = chi_h if chi_hbar is None else chi_hbar
    k, C = 2 * np.pi / wavelength, polarization_factor
    product = np.sqrt(complex(chi_h * chi_hbar))
    end = k * C * product / (2 * np.cos(two_theta / 2)) * np.asarray(X, float)[:, None]
    eta = (k * chi_0 - D) / (k * C * product)
    node, weight = np.polynomial.legendre.leggauss(200)
    u = end * (node + 1) / 2
    return 1j * chi_h / product * (end / 2 * weight * jv(1, u) / u * np.exp(1j * eta * u)).sum(-1)
