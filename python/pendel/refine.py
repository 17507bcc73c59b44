"""Refinement of what the beamline knows badly: each frame's rocking angle and incident intensity.

(1) dq_j = (R_axis(angle_j + offset_j - angle_centre) - 1) h       (`pendel.experiment`, equation 2)
(2) d dq_j / d offset_j = axis x R_axis(..) h,    adj_offset_j = adj_dq_j . (2)
(3) offset_j -= 1/2 (adj_offset_j + P offset_j) / (H_j + P),   P = 1/(nats L M_j spread^2),
    H_j = (4/nats) (1/(L M_j)) sum_good (d sqrt(I)/d angle)^2, the Gauss-Newton curvature, from the measured frames
(4) flux_j = MAP of the frame's intensity: sqrt(flux_j) = (X_j + 1/spread^2) / (N_j + 1/spread^2) for amplitudes,
    flux_j = (X_j + 1/spread^2) / (N_j + 1/spread^2) for Poisson;  N_j = scale sum D_j at flux 1,
    X_j = sum sqrt(scale D_j I_j), or sum (I_j - background)

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

from . import _checks
from .loss import frame_sums, frame_weights

STEP = 0.1  # largest change of an angle at a time, in steps of the scan
SLOW = 4  # degree of the changes of flux over a scan that are left to the crystal


def dq_at(experiment, offsets):
    """dq of (1), rad/m, and d dq/d offset of (2), 1/m, both (n_frames, 3), for ``offsets`` (n_frames,) rad."""
    angle = (experiment.rocking_angles + offsets - experiment.centre_angle)[:, None]
    first = np.cross(experiment._rocking_axis, experiment.h)
    second = np.cross(experiment._rocking_axis, first)
    # R h - h = sin first + (1 - cos) second
    dq = np.sin(angle) * first + 2 * np.sin(angle / 2) ** 2 * second
    slope = np.cos(angle) * first + np.sin(angle) * second
    return dq @ experiment.frame.T, slope @ experiment.frame.T


class Angles:
    """Steps (3). ``spread``: expected rms offset in steps of the scan.

    pixels : `Pixels` of the fit.  nats : `Likelihood.nats`.  Raises ValueError for fewer than 4 frames.
    """

    def __init__(self, experiment, pixels, nats, spread):
        self.experiment = experiment
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
        for j in range(n):
            root, good = pixels.load(np.array([j]))
            self.weight[j] = frame_weights(good, root.shape)[0]
            if before is not None:
                change = root - before[0]
                for mask in (good, before[1]):
                    change = change if mask is None else change * mask
                square = frame_sums(np.square(change))[0] / (angles[j] - angles[j - 1]) ** 2
                squares[j - 1 : j + 1] += square
            before = root, good
        self.curvature = 4 / nats * self.weight * squares / sides
        self.prior = self.weight / (nats * (spread * self.step) ** 2)
        self.share = np.divide(
            self.curvature, self.curvature + self.prior, out=np.zeros(n), where=self.curvature + self.prior > 0
        )

    def update(self, offsets, frames, adj_dq):
        """(3) for ``frames``, in place."""
        slope = dq_at(self.experiment, offsets)[1][frames]
        # adj_dq and (3) hold 1/L alike
        gradient = (adj_dq * slope).sum(axis=1) * len(frames) + self.prior[frames] * offsets[frames]
        bend = self.curvature[frames] + self.prior[frames]
        change = np.divide(gradient, bend, out=np.zeros_like(bend), where=bend > 0)
        offsets[frames] -= np.clip(0.5 * change, -STEP * self.step, STEP * self.step)

    def fix(self, offsets):
        """Mean and slope to 0, in place."""
        offsets -= _smooth(self.experiment.rocking_angles, offsets, 1, self.share)


class Flux:
    """Steps (4). ``spread``: expected relative rms of the incident intensity; further arguments as in `Angles`."""

    def __init__(self, experiment, pixels, likelihood, spread):
        if experiment.n_frames < 2 * SLOW:
            raise ValueError(f"refine_intensities: expected at least {2 * SLOW} frames, got {experiment.n_frames}")
        self.angles, self.likelihood, self.pixels, self.inverse = (
            experiment.rocking_angles,
            likelihood,
            pixels,
            spread**-2,
        )
        counts = [frame_sums(np.square(pixels.load(np.array([j]))[0]))[0] for j in range(experiment.n_frames)]
        self.share = np.array(counts) / (np.array(counts) + self.inverse)

    def update(self, flux, frames, sums, scale):
        """(4) for ``frames`` from the `Evaluation.sums` at this flux, in place."""
        measured, computed = sums
        old = flux[frames].astype(np.float64)
        N = scale * computed / old
        if self.likelihood.name == "amplitude":
            X = measured * np.sqrt(scale / old)
            flux[frames] = ((X + self.inverse) / (N + self.inverse)) ** 2
            return
        root, good = self.pixels.load(frames)
        X = measured - self.likelihood.background / np.maximum(frame_weights(good, root.shape), 1e-30)
        flux[frames] = (np.maximum(X, 0) + self.inverse) / (N + self.inverse)

    def fix(self, flux):
        """Slow changes of log(flux) to 0 and mean to 1, in place."""
        flux /= np.exp(_smooth(self.angles, np.log(flux), SLOW, self.share))
        flux /= flux.mean()


def _smooth(angles, values, degree, share):
    """Values at ``angles`` of the polynomial of ``degree`` through ``values``, with weights ``share``."""
    if np.count_nonzero(share) <= degree:
        return np.zeros_like(values)
    return np.polynomial.Polynomial.fit(angles, values, degree, w=np.sqrt(share))(angles)


def check_spread(name, value):
    return _checks.number(name, value, above=0)
