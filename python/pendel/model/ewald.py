"""The curved Ewald sphere, and the crystal that turns beneath it, for a sweep that knows neither.

A sweep transports E_h along k_h, and the far field is one Fourier transform of the exit plane: all pixels of a frame
then lie on a plane in reciprocal space. In truth a pixel that sees the spatial frequency Q of the crystal lies on the
Ewald sphere, and the sphere is turned about the crystal by the rocking angle (R, frame j):

(1) Q_z = g(Q + p_j) - (R^-1 k_0 + h)_z,   g(q) = sqrt(k^2 - |c + q|^2),   c = (k_h)_perp,   p_j = (R^-1 k_0 - k_0)_perp
(2) delta(Q) = g(0) + Q.grad g(0) - g(Q) = q_perp^2/(2 k gamma_h^3) and so on: what E_h lags behind along z
(3) S'(Q, z) = exp(i delta(Q) z) S(Q, z),   z from the middle of the box;   adjoint: exp(-i delta z)
(4) dq_z' = (R^-1 k_0 + h)_z - g(p_j),   dq_perp' = (R h - h)_perp - (R z)_perp dq_z'

The sweep takes S' in the place of S and dq' in that of dq; density and refraction stay those of S. For kinematic
scattering that is exact but for p_j . (grad g(Q) - grad g(0)), a shear of the crystal by z p_j/k, at most some tenths
of a degree: it is neglected, as is the turn of the pattern on the detector. Where E_0 varies too, that E_h is spread
over sqrt(lambda z), some nanometres, by (3) at the place of its source and not on its way is of second order in the
coupling times that spread. `tests/test_ewald.py` measures both.
"""

import numpy as np

from ..experiment.geometry import rotation

REACH = 2  # voxels by which (3) may carry the crystal beyond its support: Q z/k is below one for voxels of 5 nm


class EwaldSphere:
    """(3) and (4) of a model.

    Parameters
    ----------
    experiment : Experiment
    shape, voxel : (nz, ny, nx), and (dz, dy, dx) m, of the model
    dtype : complex64 or complex128
    engine : Engine
    threads : of the transforms on the host

    Attributes
    ----------
    turned : float64 (n_frames, 3)
        dq' - dq of (4), rad/m, where the engine computes.
    """

    def __init__(self, experiment, shape, voxel, dtype, engine, threads=1):
        self.engine, self._fft = engine, engine.scipy("fft")
        self._workers = {"workers": threads} if engine.reads_values else {}
        z = (np.arange(shape[0]) - shape[0] // 2) * voxel[0]
        q_y, q_x = (2 * np.pi * np.fft.fftfreq(n, step) for n, step in zip(shape[1:], voxel[1:], strict=True))
        lag = _lag(experiment, q_x, q_y[:, None])
        self._phase = engine.upload(np.exp(1j * lag * z[:, None, None]).astype(dtype))
        self.turned = engine.upload(turned_dq(experiment) - experiment.dq)

    def forward(self, S, inside):
        """S' of (3), 0 where not ``inside``, bool (nz, ny, nx)."""
        return self._filtered(S, self._phase) * inside

    def adjoint(self, adj, inside):
        """Adjoint of `forward`.  inside : None where voxels outside may become part of it."""
        return self._filtered(adj if inside is None else adj * inside, self._phase.conj())

    def _filtered(self, S, phase):
        spectrum = self._fft.fft2(S, axes=(1, 2), **self._workers)
        spectrum *= phase
        return self._fft.ifft2(spectrum, axes=(1, 2), overwrite_x=True, **self._workers)

    @staticmethod
    def reached(inside):
        """``inside``, bool (nz, ny, nx), and the voxels that (3) reaches from there."""
        for axis in (1, 2):
            wide = inside.copy()
            for step in range(1, REACH + 1):
                ahead, behind = [slice(None)] * 3, [slice(None)] * 3
                ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
                wide[tuple(ahead)] |= inside[tuple(behind)]
                wide[tuple(behind)] |= inside[tuple(ahead)]
            inside = wide
        return inside


def _carrier(experiment):
    """k_h in the model frame, rad/m."""
    return experiment.frame @ experiment.k_h


def _lag(experiment, q_x, q_y):
    """delta(Q) of (2), rad/m."""
    k_x, k_y, k_z = _carrier(experiment)
    sphere = np.sqrt(np.maximum(experiment.k**2 - (k_x + q_x) ** 2 - (k_y + q_y) ** 2, 0))
    return k_z - (k_x * q_x + k_y * q_y) / k_z - sphere


def turned_dq(experiment):
    """dq' of (4), float64 (n_frames, 3), rad/m."""
    k, frame = experiment.k, experiment.frame
    k_0, h, c = frame @ experiment.k_0, frame @ experiment.h, _carrier(experiment)[:2]
    rows = []
    for angle in experiment.rocking_angles:
        turn = frame @ rotation(experiment.rocking_axis, angle - experiment.centre_angle) @ frame.T
        p = turn.T @ k_0 - k_0
        along = (turn.T @ k_0 + h)[2] - np.sqrt(k**2 - np.sum((c + p[:2]) ** 2))
        across = (turn @ h - h)[:2] - turn[:2, 2] * along
        rows.append([*across, along])
    return np.array(rows)
