"""What a sweep takes for the crystal: on the curved Ewald sphere, beneath a turning crystal, from means over voxels.

A sweep transports E_h along k_h, takes the voxels' values for samples at their centres, and its far field is one
Fourier transform of the exit plane. Three things are missing in that, and all three are factors on the spatial
frequencies Q of the crystal function.

Ewald sphere. A pixel that sees the frequency Q_perp lies on the Ewald sphere, which is turned about the crystal by the
rocking angle (R, frame j), not on a plane:

(1) Q_z = g(Q_perp + p_j) - (R^-1 k_0 + h)_z,   g(q) = sqrt(k^2 - |c + q|^2),   c = (k_h)_perp,
    p_j = (R^-1 k_0 - k_0)_perp
(2) delta(Q) = g(0) + Q.grad g(0) - g(Q), about q_perp^2/(2 k gamma_h^3): what the sweep's E_h lags behind along z
(3) dq_z' = (R^-1 k_0 + h)_z - g(p_j),   dq_perp' = (R h - h)_perp - (R z)_perp dq_z'

Means. A voxel's value is the mean of the crystal function over it, the volume fraction where a surface cuts it, and a
mean over d has sinc(Q d/2) times the spectrum. Within the band that the detector sees this is undone, across z in the
crystal, along z, where frame j sees Q_z = -dq_z', in its intensities:

(4) S'(Q, z) = exp(i delta(Q) z) S(Q, z)/(sinc(Q_x dx/2) sinc(Q_y dy/2)),   z from the middle of the box
(5) D_j' = D_j/sinc^2(dq_z' dz/2)

The sweep takes S' in the place of S and dq' in that of dq; density and refraction stay those of S. For kinematic
scattering that is exact but for p_j.(grad g(Q) - grad g(0)), a shear of the crystal by z p_j/k with p_j/k some tenths
of a degree: it is neglected, as is the turn of the pattern on the detector. Where E_0 varies too, that (4) acts at the
place of a source and not on its way is of second order in the coupling.

Adjoint of (4): the conjugate factors. `bench/foreign.py model` measures what is left.
"""

import numpy as np

from ..experiment.geometry import rotation

REACH = 1  # voxels by which (4) may carry the crystal beyond its support


class Swept:
    """(3), (4) and (5) of a model.

    Parameters
    ----------
    experiment : Experiment
    shape, voxel : (nz, ny, nx), and (dz, dy, dx) m, of the model
    dtype : complex64 or complex128
    engine : Engine
    threads : of the transforms on the host
    curved : (2) and (3); else the plane through k_h
    means : (4)'s denominator and (5)

    Attributes
    ----------
    turned : float64 (n_frames, 3)
        dq' - dq of (3), rad/m, where the engine computes.
    brightness : real (n_frames,), or None: 1
        D_j'/D_j of (5), where the engine computes.
    """

    def __init__(self, experiment, shape, voxel, dtype, engine, threads=1, *, curved=True, means=True):
        self.engine, self._fft = engine, engine.scipy("fft")
        self._workers = {"workers": threads} if engine.reads_values else {}
        z = (np.arange(shape[0]) - shape[0] // 2) * voxel[0]
        q_y, q_x = (2 * np.pi * np.fft.fftfreq(n, step) for n, step in zip(shape[1:], voxel[1:], strict=True))
        q_y = q_y[:, None]
        factor = np.ones((len(z), q_y.size, q_x.size), np.complex128)
        dq, brightness = experiment.dq, None
        if curved:
            factor *= np.exp(1j * _lag(experiment, q_x, q_y) * z[:, None, None])
            dq = turned_dq(experiment)
        if means:
            band = _band(experiment, dq)
            factor /= _mean(q_x, voxel[2], band[0]) * _mean(q_y, voxel[1], band[1])
            brightness = engine.upload((_mean(dq[:, 2], voxel[0]) ** -2.0).astype(np.dtype(dtype).type(0).real.dtype))
        self._factor, self.brightness = engine.upload(factor.astype(dtype)), brightness
        self.turned = engine.upload(dq - experiment.dq)

    def forward(self, S, inside):
        """S' of (4), 0 where not ``inside``, bool (nz, ny, nx)."""
        return self._filtered(S, self._factor) * inside

    def adjoint(self, adj, inside):
        """Adjoint of `forward`.  inside : None where voxels outside may become part of it."""
        return self._filtered(adj if inside is None else adj * inside, self._factor.conj())

    def _filtered(self, S, factor):
        spectrum = self._fft.fft2(S, axes=(1, 2), **self._workers)
        spectrum *= factor
        return self._fft.ifft2(spectrum, axes=(1, 2), overwrite_x=True, **self._workers)

    @staticmethod
    def reached(inside):
        """``inside``, bool (nz, ny, nx), and the voxels that (4) reaches from there."""
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


def _mean(q, step, band=np.inf):
    """sinc(q step/2) of the mean over a voxel; beyond the band that of its edge, so that its inverse is local."""
    return np.sinc(np.minimum(np.abs(q), min(band, np.pi / step)) * step / (2 * np.pi))


def _band(experiment, dq):
    """Largest |Q_x|, |Q_y| that a pixel of any frame sees, rad/m."""
    pixels = 2 * np.pi * np.abs(experiment.detector_q()).max(axis=(0, 1))
    return pixels + np.abs(dq[:, :2]).max(axis=0)


def turned_dq(experiment):
    """dq' of (3), float64 (n_frames, 3), rad/m."""
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
