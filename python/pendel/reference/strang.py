"""Slow, readable NumPy oracle of the two-beam Takagi-Taupin march with z along k_h, for tests.

Working equations, gauge E_h = exp(i dq.r) G, with a, b, c, d of `pendel.reference.equations`:

    d_z E_0 = -t d_x E_0 + a E_0 + b G      (1)
    d_z G   = -i D G     + c E_0 + d G      (2)

    K_0 = k / (2 cos 2theta),  K_h = k / 2,  t = tan 2theta,  D = dq_z.

`strang` (symmetric splitting): per voxel layer the exact exponential exp(dz V) of V = [[a, b], [c, d]], between layers
the exact transport (E_0 moved by t dz towards +x, G times exp(-i D dz)), behind the last layer exp(-i D dz / 2).    (3)

Arrays: S[z, y, x], dq[frame, 3], fields [frame, y, x]. SI units. x = 0 and y = 0 lie at index n // 2.
"""

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

# S6(4) of Blanes and Moan, J. Comput. Appl. Math. 142, 313 (2002): a symmetric splitting of order 4.
_A = np.array([0.0792036964311957, 0.353172906049774, -0.0420650803577195])
_B = np.array([0.209515106613362, -0.143851773179818])
BLANES_MOAN_A = np.array([*_A, 1 - 2 * _A.sum(), *_A[::-1]])
BLANES_MOAN_B = np.array([*_B, 0.5 - _B.sum(), 0.5 - _B.sum(), *_B[::-1]])


class _Row:
    """The E_0 row and its transport. `shift`: the row travels with the wave, so only the window moves. `box`: the
    crystal's columns, then what is handed over left of them, and at last right of them, by every move.
    """

    def __init__(self, shape, voxel, two_theta, transport, row_length):
        nz, _, nx = shape
        dz, _, dx = voxel
        pixels = dz * np.tan(two_theta) / dx
        self.nz = nz
        self.nx = nx
        self.filter = None
        self.m = round(pixels)
        if transport == "shift":
            if abs(pixels - self.m) > 1e-6:
                raise ValueError(f"voxel: expected dz tan(2 theta) / dx whole for transport 'shift', got {pixels}")
            self.phase = None
            self.length = nx + self.m * (nz - 1)
        elif transport == "fourier":
            self.length = row_length or 2 * ((nx + int(np.ceil(pixels * nz)) + 16) // 2)
            # The Nyquist bin keeps its complex phase of modulus 1, so that the move is unitary.
            self.phase = np.exp(-2j * np.pi * np.fft.fftfreq(self.length, dx) * np.tan(two_theta) * dz)
        elif transport == "box":
            self.phase = None
            self.m = 0
            self.length = nx + nz - 1
            self.d = (1 - pixels) / (1 + pixels)
            self.filter = _all_pass(nx, self.d)
        else:
            raise ValueError(f"transport: expected 'shift', 'fourier' or 'box', got {transport!r}")

    def window(self, layer):
        """Where the crystal lies on the row in front of a layer."""
        start = 0 if self.phase is not None else self.m * (self.nz - 1 - layer)
        return slice(start, start + self.nx)

    def plane_wave(self, ny):
        """E_0 = 1 on the row (ny, length)."""
        E_0 = np.ones((ny, self.length))
        if self.filter is not None:
            E_0[:, self.nx :] = 1 - self.d
        return E_0

    def energy(self, E_0):
        """sum |E_0|^2 over the row, (n,)."""
        size = np.abs(E_0) ** 2
        if self.filter is not None:  # what is handed over holds 1 - d^2 of what it becomes
            size[..., self.nx :] /= 1 - self.d**2
        return size.sum((1, 2))

    def move(self, E_0, layer):
        """E_0 moved from the layer before to this one."""
        if self.filter is not None:
            return self._filtered(self.filter, E_0, layer)
        if self.phase is None:
            return E_0
        return np.fft.ifft(np.fft.fft(E_0) * self.phase)

    def move_adjoint(self, adj_E_0, layer):
        """Reverse: E_0 moved from the layer before to this one."""
        if self.filter is not None:
            return self._filtered(self.filter.T, adj_E_0, layer)
        if self.phase is None:
            return adj_E_0
        return np.fft.ifft(np.fft.fft(adj_E_0) * self.phase.conj())

    def _filtered(self, matrix, E_0, layer):
        """The matrix on the crystal's columns and what is handed over by the move to a layer."""
        E_0 = E_0.copy()
        columns = [*range(self.nx), self.nx + layer - 1]
        E_0[..., columns] = E_0[..., columns] @ matrix.T
        return E_0


def _all_pass(nx, d):
    """new[x] + d new[x - 1] = old[x - 1] + d old[x] as a matrix ((nx + 1) x (nx + 1)) of the old columns and what is
    handed over by column -1, old[-1] - d new[-1], to the new columns and the same of the last.
    """
    before = np.eye(nx, k=-1)
    handed = np.zeros((nx, 1))
    handed[0] = 1
    new = np.linalg.solve(np.eye(nx) + d * before, np.hstack([before + d * np.eye(nx), handed]))
    on = -d * new[-1]
    on[nx - 1] += 1
    return np.vstack([new, on])


def exit_ramp(dq, shape, voxel):
    """exp(i (dq_x x + dq_y y)), shape (n, ny, nx), and the coordinates x (nx,) and y (ny,), m."""
    x = (np.arange(shape[2]) - shape[2] // 2) * voxel[2]
    y = (np.arange(shape[1]) - shape[1] // 2) * voxel[1]
    ramp = np.exp(1j * (dq[:, 0, None, None] * x + dq[:, 1, None, None] * y[:, None]))
    return ramp, x, y


@dataclass(frozen=True)
class _March:
    """A whole sweep: what went in, the fields in front of every layer, and what came out."""

    S: np.ndarray  # (nz, ny, nx) complex
    s_0: np.ndarray  # (nz, ny, nx) real
    dq: np.ndarray  # (n, 3)
    dz: float
    factors: Coefficients
    row: _Row
    phase: np.ndarray  # (n, 1, 1), exp(-i D dz)
    M: np.ndarray  # (nz, ny, nx, 2, 2), exp(dz V)
    before: list  # of (E_0 on the whole row, G), one of every layer
    E_0: np.ndarray  # (n, ny, row), on the plane of the last voxel centres
    G: np.ndarray  # (n, ny, nx), half a layer further
    ramp: np.ndarray  # (n, ny, nx)
    x: np.ndarray  # (nx,)
    y: np.ndarray  # (ny,)

    @property
    def E_h(self):
        return self.ramp * self.G

    @property
    def E_0_in_crystal(self):
        return self.E_0[..., self.row.window(self.row.nz - 1)]


def _march(S, dq, factors, *, voxel, s_0, incident, transport, row_length) -> _March:
    """Equation (3), with the fields in front of every layer kept."""
    S = plain_array("S", S).astype(complex)
    dq = plain_array("dq", dq).astype(float)
    s_0 = np.abs(S) if s_0 is None else plain_array("s_0", s_0).astype(float)
    nz, ny, nx = S.shape
    dz = voxel[0]
    row = _Row(S.shape, voxel, factors.two_theta, transport, row_length)
    incident = row.plane_wave(ny) if incident is None else plain_array("incident", incident)
    E_0 = np.broadcast_to(incident, (len(dq), ny, row.length)).astype(complex)
    G = np.zeros((len(dq), ny, nx), complex)

    phase = np.exp(-1j * dq[:, 2] * dz)[:, None, None]
    M = voxel_matrix(S, s_0, dz, factors)
    before = []
    for layer in range(nz):
        if layer:
            E_0 = row.move(E_0, layer)
            G = phase * G
        before.append((E_0.copy(), G.copy()))
        E_0, G = _apply(M[layer], E_0, G, row.window(layer))
    G = np.exp(-0.5j * dq[:, 2] * dz)[:, None, None] * G
    ramp, x, y = exit_ramp(dq, S.shape, voxel)
    return _March(S, s_0, dq, dz, factors, row, phase, M, before, E_0, G, ramp, x, y)


def _apply(M, E_0, G, window):
    """(E_0, G) behind a layer: M on the two waves in the window."""
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
    S : (nz, ny, nx) complex.
    dq : (n, 3), rad/m.
    voxel : (dz, dy, dx), m.
    wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor : as in `coefficients`.
    s_0 : (nz, ny, nx) real, None for |S|.
    incident : (ny, row length) complex, E_0 of the whole, already padded row on the plane of the first voxel centres,
        or None for ones. `shift`: crystal column x of the first layer is index x + m (nz - 1); `fourier`, `box`: x.
    transport : "shift", "fourier" or "box".
    row_length : periodic length for `fourier`, pixels.
    return_E_0 : also return E_0 (n, ny, nx) behind the last layer, on the plane of the last voxel centres.
    """
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    run = _march(S, dq, factors, voxel=voxel, s_0=s_0, incident=incident, transport=transport, row_length=row_length)
    return (run.E_h, run.E_0_in_crystal) if return_E_0 else run.E_h


def energy(
    S, dq, *, voxel, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, incident=None, transport="shift", row_length=None,
):  # fmt: skip
    """cos(2 theta) sum |E_0|^2 + sum |E_h|^2 over the whole row, (n,), in front of and behind the crystal."""
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    run = _march(S, dq, factors, voxel=voxel, s_0=s_0, incident=incident, transport=transport, row_length=row_length)
    gamma_0 = np.cos(two_theta)
    E_0_entrance, _ = run.before[0]
    entrance = gamma_0 * run.row.energy(E_0_entrance)
    return entrance, gamma_0 * run.row.energy(run.E_0) + (np.abs(run.E_h) ** 2).sum((1, 2))


def adjoint(
    S, dq, adj_E_h, *, voxel, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, incident=None, transport="shift", row_length=None,
):  # fmt: skip
    """Adjoint of `forward` by stored fields: a namespace of S, s_0 (None when s_0 was None), incident (padded row), dq.

    dL = Re sum conj(adj_X) dX; the exponential's derivative by `expm_adjoint`.
    """
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    run = _march(S, dq, factors, voxel=voxel, s_0=s_0, incident=incident, transport=transport, row_length=row_length)
    dz = run.dz
    D = run.dq[:, 2]
    adj_E_h = plain_array("adj_E_h", adj_E_h).astype(complex)

    # Reverse: E_h <- ramp exp(-i D dz/2) G
    adj_dq = np.empty_like(run.dq)
    flow = np.real(1j * np.conj(adj_E_h) * run.E_h)
    adj_dq[:, 0] = (flow * run.x).sum((1, 2))
    adj_dq[:, 1] = (flow * run.y[:, None]).sum((1, 2))
    adj_G = np.conj(run.ramp) * adj_E_h
    adj_dq[:, 2] = -dz / 2 * np.real(1j * np.conj(adj_G) * run.G).sum((1, 2))
    adj_G = np.exp(0.5j * D * dz)[:, None, None] * adj_G
    adj_E_0 = np.zeros_like(run.E_0)

    adj_V = np.empty((*run.S.shape, 2, 2), complex)
    for layer in reversed(range(len(run.S))):
        E_0, G = run.before[layer]
        window = run.row.window(layer)
        # Reverse: (E_0, G) <- M (E_0, G), M = exp(dz V)
        adj_M = matrix_adjoint((adj_E_0[..., window], adj_G), (E_0[..., window], G))
        adj_V[layer] = dz * expm_adjoint(adj_M, dz * potential(run.S[layer], run.s_0[layer], factors))
        adj_E_0, adj_G = _apply(np.conj(np.swapaxes(run.M[layer], -1, -2)), adj_E_0, adj_G, window)
        if layer:
            # Reverse: E_0 moved, G <- exp(-i D dz) G
            adj_dq[:, 2] -= dz * np.real(1j * np.conj(adj_G) * G).sum((1, 2))
            adj_E_0 = run.row.move_adjoint(adj_E_0, layer)
            adj_G = run.phase.conj() * adj_G
    adj_S, adj_s_0 = potential_adjoint(adj_V, run.S, factors, tied=s_0 is None)
    return SimpleNamespace(S=adj_S, s_0=adj_s_0, incident=adj_E_0.sum(0), dq=adj_dq)


def blanes_moan(
    S, dq, *, shape, voxel, steps, wavelength, two_theta, chi_0, chi_h, chi_hbar=None, polarization_factor=1.0,
    s_0=None, row_length=None,
):  # fmt: skip
    """Exit field E_h (n, ny, nx) for a continuous crystal, order 4 in z, `fourier` transport, plane incident wave.

    Source: Blanes and Moan (2002), scheme S6(4), V frozen where the L flow stands.

    Parameters
    ----------
    S : callable (x (nx,), y (ny, 1), z float), m, -> complex broadcastable to (ny, nx); z runs from 0 to nz dz and
        voxel k of `forward` has its centre at (k + 1/2) dz.
    s_0 : the same, real; None for |S|.
    steps : number of steps over nz dz.
    """
    dq = plain_array("dq", dq).astype(float)
    factors = coefficients(wavelength, two_theta, chi_0, chi_h, chi_hbar, polarization_factor)
    _, ny, nx = shape
    h = shape[0] * voxel[0] / steps
    row = _Row(shape, voxel, two_theta, "fourier", row_length)
    q = np.fft.fftfreq(row.length, voxel[2])
    phase = [np.exp(-2j * np.pi * q * np.tan(two_theta) * A * h) for A in BLANES_MOAN_A]
    detuning = [np.exp(-1j * dq[:, 2] * A * h)[:, None, None] for A in BLANES_MOAN_A]
    ramp, x, y = exit_ramp(dq, shape, voxel)

    E_0 = np.ones((len(dq), ny, row.length), complex)
    G = np.zeros((len(dq), ny, nx), complex)
    for step in range(steps):
        for stage, A in enumerate(BLANES_MOAN_A):
            E_0 = np.fft.ifft(np.fft.fft(E_0) * phase[stage])
            G = detuning[stage] * G
            if stage == len(BLANES_MOAN_B):
                break
            z = h * (step + BLANES_MOAN_A[:stage].sum() + A)
            S_z = np.broadcast_to(S(x, y[:, None], z), (ny, nx))
            s_0_z = np.abs(S_z) if s_0 is None else np.broadcast_to(s_0(x, y[:, None], z), (ny, nx))
            M = voxel_matrix(S_z, s_0_z, BLANES_MOAN_B[stage] * h, factors)
            E_0, G = _apply(M, E_0, G, slice(0, nx))
    return ramp * G
