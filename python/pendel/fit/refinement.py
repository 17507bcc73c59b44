"""Refinement of what the beamline knows badly: each frame's rocking angle and incident intensity.

(1) dq_j = (R_axis(angle_j + offset_j - angle_centre) - 1) h       (`pendel.experiment.geometry`, equation 2)
(2) d dq_j / d offset_j = axis x R_axis(..) h,    adj_offset_j = adj_dq_j . (2)
(3) offset_j -= 1/2 (adj_offset_j + P offset_j) / (H_j + P),   P = 1/(nats L M_j spread^2),
    H_j = (4/nats) (1/(L M_j)) sum_good (d sqrt(I)/d angle)^2, the Gauss-Newton curvature, from the measured frames
(4) flux_j = MAP of the frame's intensity: sqrt(flux_j) = (X_j + 1/spread^2) / (N_j + 1/spread^2) for amplitudes,
    flux_j = (X_j + 1/spread^2) / (N_j + 1/spread^2) for Poisson, and where there is a background;
    N_j = scale sum D_j at flux 1,   X_j = sum sqrt(scale D_j I_j), or sum (I_j - background)

P and 1/spread^2 are the prior: offsets and intensities scatter by ``spread`` about 0 and 1, and counts are photons. A
frame of few counts therefore stays where it was. Steps alternate with those of S: they are taken on the frames of each
group with what its evaluation gave, so they cost no sweep.

What the frames cannot tell is fixed after every epoch. A common offset is a phase ramp of S (a lattice tilt), and a
stretch of all angles is a length of the crystal along dq: mean and slope of the offsets are 0. A common flux is the
scale, and one that changes slowly over the rocking curve is a crystal with softer or harder faces, to which the
reconstruction would drift: the polynomial of degree 4 through log(flux), about one period over the scan, is 0, so that
only what changes from frame to frame is refined. Both weight a frame with data/(data + prior), the share its counts
have in (3) and (4).
"""

import numpy as np

from ..base.arrays import module
from ..model.loss import frame_sums, frame_weights, has_axes
from ..model.pixels import of_frames

STEP = 0.1  # largest change of an angle at a time, in steps of the scan
SLOW = 4  # degree of the changes of flux over a scan that are left to the crystal


class Turns:
    """(1) and (2) of an experiment; ``upload`` brings its angles and axes to where the offsets are."""

    def __init__(self, experiment, upload=np.asarray):
        first = np.cross(experiment.rocking_axis, experiment.h)
        second = np.cross(experiment.rocking_axis, first)
        self.angles, self.centre = upload(experiment.rocking_angles), experiment.centre_angle
        self.axes = [upload(a) for a in (first, second, experiment.frame.T)]

    def dq(self, offsets):
        """dq of (1), rad/m, and d dq/d offset of (2), 1/m, both (n_frames, 3), for ``offsets`` (n_frames,) rad."""
        xp, (first, second, frame) = module(offsets), self.axes
        angle = (self.angles + offsets - self.centre)[:, None]
        # R h - h = sin first + (1 - cos) second
        dq = xp.sin(angle) * first + 2 * xp.sin(angle / 2) ** 2 * second
        slope = xp.cos(angle) * first + xp.sin(angle) * second
        return dq @ frame, slope @ frame


def dq_at(experiment, offsets):
    """`Turns.dq` of NumPy arrays."""
    return Turns(experiment).dq(offsets)


class Angles:
    """Steps (3). ``spread``: expected rms offset in steps of the scan.

    pixels : `Pixels` of the fit.  nats : `Likelihood.nats`.  upload : of the model's engine.  Raises ValueError for
    fewer than 4 frames.
    """

    def __init__(self, experiment, pixels, nats, spread, upload=np.asarray):
        self.turns = Turns(experiment, upload)
        angles, n = experiment.rocking_angles, experiment.n_frames
        if n < 4:
            raise ValueError(f"refine_angles: expected at least 4 frames, got {n}")
        self.step = float(np.abs(np.diff(angles)).mean())
        if not np.diff(angles).all():
            raise ValueError("refine_angles: expected rocking angles that all differ from the next, got equal ones")
        squares, self.weight = np.zeros(n), np.zeros(n)  # sum (d sqrt(I)/d angle)^2, 1/M
        sides = np.full(n, 2.0)
        sides[[0, -1]] = 1
        before = None
        for j, (root, good) in enumerate(pixels.each_frame()):
            self.weight[j] = float(frame_weights(good, root)[0])
            if before is not None:
                change = root - before[0]
                for mask in (good, before[1]):
                    change = change if mask is None else change * mask
                square = float(frame_sums(change * change)[0]) / (angles[j] - angles[j - 1]) ** 2
                squares[j - 1 : j + 1] += square
            before = root, good
        self.curvature = 4 / nats * self.weight * squares / sides
        self.prior = self.weight / (nats * (spread * self.step) ** 2)
        self.share = np.divide(
            self.curvature, self.curvature + self.prior, out=np.zeros(n), where=self.curvature + self.prior > 0
        )
        self.smooth = _smoother(angles, 1, self.share, upload)
        self.curvature, self.prior = upload(self.curvature), upload(self.prior)

    def update(self, offsets, frames, adj_dq):
        """(3) for ``frames``, indices on the host, in place."""
        xp, count = module(offsets), len(frames)
        frames = xp.asarray(frames)
        slope = self.turns.dq(offsets)[1][frames]
        # adj_dq and (3) hold 1/L alike
        gradient = (adj_dq * slope).sum(axis=1) * count + self.prior[frames] * offsets[frames]
        bend = self.curvature[frames] + self.prior[frames]
        change = xp.where(bend > 0, gradient / xp.where(bend > 0, bend, 1), 0)
        offsets[frames] -= xp.clip(0.5 * change, -STEP * self.step, STEP * self.step)

    def fix(self, offsets):
        """Mean and slope to 0, in place."""
        offsets -= self.smooth(offsets)


class Flux:
    """Steps (4). ``spread``: expected relative rms of the incident intensity; further arguments as in `Angles`.

    weights : of the `Fit`, or None.
    """

    def __init__(self, experiment, pixels, likelihood, spread, upload=np.asarray, weights=None):
        if experiment.n_frames < 2 * SLOW:
            raise ValueError(f"refine_intensities: expected at least {2 * SLOW} frames, got {experiment.n_frames}")
        self.likelihood, self.pixels, self.inverse = likelihood, pixels, spread**-2
        self.weights = weights
        self.counts = np.array([float(frame_sums(root * root)[0]) for root, _ in pixels.each_frame()])
        share = self.counts / (self.counts + self.inverse)
        self.smooth = _smoother(experiment.rocking_angles, SLOW, share, upload)

    def update(self, flux, frames, sums, scale):
        """(4) for ``frames``, indices on the host, from the `Evaluation.sums` at this flux, in place."""
        xp, (measured, computed) = module(flux), sums
        frames = xp.asarray(frames)
        old = flux[frames].astype(np.float64)
        N = scale * computed / old
        if self.likelihood.compares_roots:
            X = measured * xp.sqrt(scale / old)
            flux[frames] = ((X + self.inverse) / (N + self.inverse)) ** 2
            return
        X = measured - self._beside(frames)
        flux[frames] = (xp.maximum(X, 0) + self.inverse) / (N + self.inverse)

    def _beside(self, frames):
        """Sum of the background over the good pixels of each of ``frames``, weighted, where the model works."""
        background = self.likelihood.beside(frames)
        if background is None:
            return 0.0
        root, good = self.pixels.load(frames)
        weights = of_frames(self.weights, frames)
        if not has_axes(background) and weights is None:
            return background / module(root).maximum(frame_weights(good, root), 1e-30)
        background = background * module(root).ones(root.shape)
        for factor in (good, weights):
            background = background if factor is None else background * factor
        return frame_sums(background)

    def fix(self, flux):
        """Slow changes of log(flux) to 0 and mean to 1, in place."""
        xp = module(flux)
        flux /= xp.exp(self.smooth(xp.log(flux)))
        flux /= flux.mean()


def _smoother(angles, degree, share, upload):
    """`_smooth` as a function of the values; where these lie on a device its matrix does too."""
    if module(upload(share)) is np:
        return lambda values: _smooth(angles, values, degree, share)
    matrix = upload(np.stack([_smooth(angles, unit, degree, share) for unit in np.eye(len(angles))], axis=1))
    return lambda values: (matrix * values).sum(axis=1)


def _smooth(angles, values, degree, share):
    """Values at ``angles`` of the polynomial of ``degree`` through ``values``, with weights ``share``."""
    if np.count_nonzero(share) <= degree:
        return np.zeros_like(values)
    return np.polynomial.Polynomial.fit(angles, values, degree, w=np.sqrt(share))(angles)
