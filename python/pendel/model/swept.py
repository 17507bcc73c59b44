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

Adjoint of (4): the conjugate factors. What is left is measured in bench/README.md and `tests/test_swept.py`.
"""

import numpy as np
from scipy.fft import next_fast_len

from ..experiment.geometry import rotation

REACH = 1  # voxels by which (4) may carry the crystal beyond its support


class AsItIs:
    """A crystal of samples, seen on a plane: what a sweep takes anyway.  Methods as of `Swept`."""

    def taken(self, S, s_0, dq, support=None):
        return S, s_0, dq, support

    def light(self, flux):
        return flux

    def adjoint(self, adj_S, adj_s_0, S, s_0, reached, support):
        return adj_S, adj_s_0

    def adj_flux(self, adj, frames):
        return adj


class Swept:
    """(3), (4) and (5) of a model.

    Parameters
    ----------
    experiment : Experiment
    shape, voxel : (nz, ny, nx), and (dz, dy, dx) m, of the model
    operator : one of its operators, for its engine, dtype and threads
    refracts : whether s_0 matters to the operators
    curved : (2) and (3); else the plane through k_h
    means : (4)'s denominator and (5)
    """

    def __init__(self, experiment, shape, voxel, operator, *, refracts=True, curved=True, means=True):
        engine = operator.engine
        self.xp, self.refracts, self._fft = engine.xp, refracts, engine.scipy("fft")
        self._reads_values = engine.reads_values
        self._workers = {"workers": operator.threads} if engine.reads_values else {}

        z = (np.arange(shape[0]) - shape[0] // 2) * voxel[0]
        self._padded = tuple(next_fast_len(n) for n in shape[1:])
        q_y, q_x = (2 * np.pi * np.fft.fftfreq(n, step) for n, step in zip(self._padded, voxel[1:], strict=True))
        q_y = q_y[:, None]
        factor = np.ones((len(z), q_y.size, q_x.size), np.complex128)
        dq, brightness = experiment.dq, np.ones(experiment.n_frames)
        if curved:
            factor *= np.exp(1j * _lag(experiment, q_x, q_y) * z[:, None, None])
            dq = turned_dq(experiment)
        if means:
            band = _band(experiment, dq)
            factor /= _mean(q_x, voxel[2], band[0]) * _mean(q_y, voxel[1], band[1])
            brightness = _mean(dq[:, 2], voxel[0]) ** -2.0
        self._factor = engine.upload(factor.astype(operator.dtype))
        self._adj_factor = engine.upload(factor.conj().astype(operator.dtype))
        self._brightness = engine.upload(brightness.astype(operator.real_dtype))
        self._turned = engine.upload(dq - experiment.dq)

    def light(self, flux):
        """D_j'/D_j of (5) times the ``flux`` of the frames, (n_frames,) or None: 1."""
        return self._brightness if flux is None else self._brightness * flux

    def adj_flux(self, adj, frames):
        """Adjoint of `light` for ``frames``: adj (L,) with respect to their light."""
        return adj * self._brightness[frames]

    def taken(self, S, s_0, dq, support=None):
        """(S', s_0, dq', where S' may differ from 0 or its gradient is wanted; without ``support`` None: anywhere)."""
        size = self.xp.abs(S)
        filled = size != 0
        reached = _reached(filled if support is None else support | filled)
        if s_0 is None and self.refracts:
            s_0 = size
        crystal = self._filtered(S, self._factor, reached, reached)
        return crystal, s_0, dq + self._turned, None if support is None else reached

    def adjoint(self, adj_S, adj_s_0, S, s_0, reached, support):
        """(adj_S, adj_s_0): adjoint of `taken`, whose arguments and ``reached`` are the last four.

        Without ``support`` a voxel of 0 has the gradient that it would have if the crystal reached everywhere.
        """
        adj_crystal = adj_S
        if support is None:
            filled = S != 0
            adj_S = self._filtered(adj_crystal * _reached(filled), self._adj_factor)
            adj_S = self.xp.where(filled, adj_S, self._filtered(adj_crystal, self._adj_factor))
        else:
            adj_S = self._filtered(adj_crystal, self._adj_factor, reached, support)  # 0 beyond ``reached``
        if s_0 is None and self.refracts:
            size = self.xp.abs(S)
            size = self.xp.maximum(size, np.finfo(size.dtype).tiny, out=size)
            adj_S += (adj_s_0 if support is None else adj_s_0 * support) * (S * (1 / size))
            adj_s_0 = None
        elif support is not None and adj_s_0 is not None:
            adj_s_0 = adj_s_0 * support
        return adj_S, adj_s_0

    def _filtered(self, S, factor, inside=None, wanted=None):
        """``factor`` on the spectrum of S, which is 0 outside ``inside``, and 0 where not ``wanted``, within that."""
        # As (4) is the same everywhere across z, nothing has to be transformed but the smallest box around S.
        box = self._box(inside)
        part, factor = S[box], factor[box[0]]
        _, rows, columns = part.shape
        spectrum = self._fft.fft(part, self._padded[1], axis=2, **self._workers)
        spectrum = self._fft.fft(spectrum, self._padded[0], axis=1, **self._workers)
        spectrum *= factor
        spectrum = self._fft.ifft(spectrum, axis=1, overwrite_x=True, **self._workers)[:, :rows]
        filtered = self._fft.ifft(spectrum, axis=2, **self._workers)[:, :, :columns]
        if wanted is None:
            return self.xp.ascontiguousarray(filtered)
        whole = self.xp.zeros(S.shape, S.dtype)
        self.xp.multiply(filtered, wanted[box], out=whole[box])
        return whole

    def _box(self, inside):
        """Slices of the voxels of ``inside``; of all where it is None or on a device, where nothing may wait."""
        if inside is None or not self._reads_values:
            return (slice(None),) * 3
        layers = inside.any(axis=0)
        sides = inside.any(axis=(1, 2)), layers.any(axis=1), layers.any(axis=0)
        ends = (np.flatnonzero(side)[[0, -1]] if side.any() else (0, 0) for side in sides)
        return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _reached(inside):
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
