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

(4) is made in space, of a few taps along y and along x on every layer (`Engine.filter`); its adjoint has the conjugate
taps in reverse order. What is left is measured in bench/README.md and `tests/test_swept.py`.
"""

from typing import Any, NamedTuple

import numpy as np

from ..experiment.geometry import rotation

# (4) is made of taps on so many voxels to either side at least, on more until its factors are met within MISS (rms).
# bench/foreign.py, smooth, on voxels of the data, two thirds, a half and a third of them: the misfit of 4 taps to 16 is
# 2e-5, 4e-6, 2e-6, 4e-7, of 3 taps 5e-5, 6e-6, 2e-6, 1e-6; that to the true frames 4e-3, 1.4e-4, 2e-5, 6e-6.
LEAST_REACH, MOST_REACH, MISS = 4, 16, 0.01
TRIED = 256  # frequencies at which taps are compared with (4)
# What a frequency counts: as the light there from a crystal with flat faces, rad per voxel; beyond the band less.
DARKER, BEYOND = 0.3, 1e-3


class Taken(NamedTuple):
    """What a sweep takes: S', s_0, dq', where a gradient of S' is wanted (None: anywhere), and where S is not 0."""

    S: Any
    s_0: Any
    dq: Any
    support: Any
    filled: Any


class AsItIs:
    """A crystal of samples, seen on a plane: what a sweep takes anyway.  Methods as of `Swept`."""

    def taken(self, S, s_0, dq, support=None):
        return Taken(S, s_0, dq, support, None)

    def light(self, flux):
        return flux

    def adjoint(self, adj_S, adj_s_0, S, s_0, support, filled):
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
        self.refracts, self._engine, self._threads = refracts, engine, operator.threads
        dq = turned_dq(experiment) if curved else experiment.dq
        both = _taps(experiment, shape, voxel, _band(experiment, dq), curved, means)
        self._taps = [engine.upload(np.ascontiguousarray(taps, operator.dtype)) for taps in both]
        reverse = [taps[:, ::-1].conj() for taps in both]
        self._adj_taps = [engine.upload(np.ascontiguousarray(taps, operator.dtype)) for taps in reverse]
        brightness = _mean(dq[:, 2], voxel[0]) ** -2.0 if means else np.ones(experiment.n_frames)
        self._brightness = engine.upload(brightness.astype(operator.real_dtype))
        self._turned = engine.upload(dq - experiment.dq)

    def light(self, flux):
        """D_j'/D_j of (5) times the ``flux`` of the frames, (n_frames,) or None: 1."""
        return self._brightness if flux is None else self._brightness * flux

    def adj_flux(self, adj, frames):
        """Adjoint of `light` for ``frames``: adj (L,) with respect to their light."""
        return adj * self._brightness[frames]

    def taken(self, S, s_0, dq, support=None):
        """`Taken` of a crystal; its S' is cut to where S is not 0: what (4) carries beyond is little, and every voxel
        that is swept costs time.
        """
        size, filled = self._engine.extent(S, threads=self._threads)
        if s_0 is None and self.refracts:
            s_0 = size
        crystal = self._engine.filter(S, *self._taps, filled, threads=self._threads)
        return Taken(crystal, s_0, dq + self._turned, None if support is None else support | filled, filled)

    def adjoint(self, adj_S, adj_s_0, S, s_0, support, filled):
        """(adj_S, adj_s_0) of S, s_0 and ``support``, the arguments of `taken`, which found ``filled``: its adjoint.

        The ``adj_S`` given is overwritten.
        A voxel of 0 has the gradient that it would have if all that are wanted were filled.
        """
        through_size = {"S": S, "adj_size": adj_s_0} if s_0 is None and self.refracts else {}
        beside = ~filled if support is None else support & ~filled
        several = not self._engine.reads_values or bool(beside.any())
        inside = filled if several else support  # adj_S is 0 beyond both
        if several:
            of_beside = self._engine.filter(adj_S, *self._adj_taps, beside, threads=self._threads)
            adj_S *= filled
        found = self._engine.filter(adj_S, *self._adj_taps, inside, threads=self._threads, **through_size)
        if several:
            found += of_beside
            if support is not None:
                found *= support
        if through_size:
            return found, None
        return found, adj_s_0 if support is None or adj_s_0 is None else adj_s_0 * support


def _taps(experiment, shape, voxel, band, curved, means):
    """[taps along y, along x], complex128 (nz, 2 reach + 1) each, of (4).

    Both parts of the lag are added as if the axes had nothing to do with each other: what couples them is q/k times it.
    The taps are those that come nearest to (4) within the band; beyond it, where a scan sees nothing, nearly anything.
    """
    z = (np.arange(shape[0]) - shape[0] // 2) * voxel[0]
    turns = np.linspace(-np.pi, np.pi, TRIED, endpoint=False)
    wanted = []
    for axis, (step, edge) in enumerate(zip(voxel[:0:-1], band, strict=True)):  # x, y
        q = turns / step
        lag = _lag(experiment, *((q, 0 * q) if axis == 0 else (0 * q, q)))
        factor = np.exp(1j * np.outer(z, lag * curved)) / (_mean(q, step, edge) if means else 1)
        wanted.append((factor, np.where(np.abs(q) <= edge, 1, BEYOND) / (np.square(turns) + DARKER**2)))

    for reach in range(LEAST_REACH, MOST_REACH + 1):
        found = [_nearest_taps(turns, *part, reach) for part in reversed(wanted)]
        if max(miss for _, miss in found) <= MISS:
            break
    return [taps for taps, _ in found]


def _nearest_taps(turns, factor, weight, reach):
    """(taps (nz, 2 reach + 1), weighted rms of what they miss of ``factor`` (nz, turns), of the worst layer)."""
    waves = np.exp(1j * np.outer(turns, np.arange(-reach, reach + 1)))
    root = np.sqrt(weight)[:, None]
    taps = np.linalg.lstsq(root * waves, root * factor.T, rcond=None)[0].T
    missed = np.square(np.abs(taps @ waves.T - factor)) @ weight / weight.sum()
    return taps, float(np.sqrt(missed.max()))


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
