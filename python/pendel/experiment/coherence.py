"""Partial coherence: a beam of many directions and wavelengths, each of which makes a pattern of its own.

(1) covariance of Q = x x^T/l_x^2 + y y^T/l_y^2 + bandwidth^2 h h^T      lab x (horizontal), lab y (vertical)

|gamma(d)| = exp(-d^2/(2 l^2)) across the beam is an angular spectrum of rms width 1/l (van Cittert-Zernike), and a
wavelength shorter by a part e moves Q by e h. The intensities of all add up, so the coherent intensity is convolved
with a Gaussian in Q. Its part in the detector's plane is a blur of pixels (`pendel.model.blur`). Its part across that
plane, along n = k_h/|k_h|, moves a frame along the rocking curve: a few settings dq + shift, each a sweep of its own,
are added with Gauss-Hermite weights,

(2) shift_m = x_m C n / sqrt(n.C n),   blur = C - C n (C n)^T/(n.C n)                        C the covariance (1)

Neglected: that a direction or wavelength changes the crystal's response but by its deviation from the Bragg condition;
that a relative bandwidth moves pixels far from the centre a little more than the centre; that the beam's profile and
coherence are not Gaussian. With one setting the smear across the detector's plane is neglected too, and all of the
blur in it is kept.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..base import checks, plausible

NARROW = 0.1  # speckle widths: below, one setting does
ENOUGH = 0.01  # of the coherence across the box, which the settings have to meet
MOST_MODES = 9


@dataclass(frozen=True)
class Coherence:
    """How coherent the beam is.

    Attributes
    ----------
    horizontal, vertical : transverse coherence lengths along lab x and y, m, rms widths of |gamma|; inf: coherent.
    bandwidth : relative rms width of the wavelengths.
    modes : settings of equation (2), integer >= 1; None: one where the smear along the frames is below a tenth of a
        speckle of the box, else as many as meet the coherence across the box to a hundredth, 9 at most.

    Raises
    ------
    TypeError, ValueError : naming the attribute.
    """

    horizontal: float = math.inf
    vertical: float = math.inf
    bandwidth: float = 0.0
    modes: int | None = None

    def __post_init__(self):
        for name in ("horizontal", "vertical"):
            value = getattr(self, name)
            if value != math.inf:
                object.__setattr__(self, name, plausible.number(plausible.COHERENCE_LENGTH, name, value))
        object.__setattr__(self, "bandwidth", checks.number("bandwidth", self.bandwidth, at_least=0, below=1))
        if self.modes is not None:
            object.__setattr__(self, "modes", checks.integer("modes", self.modes, at_least=1))

    def covariance(self, experiment) -> np.ndarray:
        """(1) in the model frame of an `Experiment`, (3, 3), (rad/m)^2."""
        across = [experiment.frame[:, axis] / length for axis, length in ((0, self.horizontal), (1, self.vertical))]
        spread = [*across, self.bandwidth * (experiment.frame @ experiment.h)]
        return sum(np.outer(v, v) for v in spread)

    def settings(self, experiment, height) -> tuple[np.ndarray, np.ndarray]:
        """Equation (2).

        Parameters
        ----------
        experiment : Experiment
        height : of the box along k_h, m

        Returns
        -------
        shifts : float64 (modes, 3), to add to dq, rad/m
        weights : float64 (modes,), which sum to 1
        """
        covariance, n = self.covariance(experiment), _across(experiment)
        width = math.sqrt(n @ covariance @ n)
        count = _modes_for(width * height) if self.modes is None else self.modes
        nodes, weights = _gauss_hermite(count)
        along = covariance @ n / width if width > 0 else np.zeros(3)
        return nodes[:, None] * along, weights

    def blur(self, experiment, modes) -> np.ndarray:
        """The covariance that is left in the detector's plane, (2, 2), pixels squared, rows first.

        Parameters
        ----------
        experiment : Experiment
        modes : how many `settings` there are; with one the whole covariance in the plane
        """
        covariance, n = self.covariance(experiment), _across(experiment)
        across = n @ covariance @ n
        if modes > 1 and across > 0:
            covariance = covariance - np.outer(covariance @ n, covariance @ n) / across
        axes = np.stack([experiment.e_row, experiment.e_col]) * (experiment.field_of_view / (2 * math.pi))
        return axes @ covariance @ axes.T


def _across(experiment):
    """k_h/|k_h| in the model frame: the direction across the detector's plane."""
    return experiment.frame @ experiment.k_h / experiment.k


def _gauss_hermite(count):
    """Nodes and weights for the mean over a normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def _modes_for(phase):
    """How many settings a smear of rms ``phase``, rad across the box, needs."""
    if phase < NARROW * 2 * math.pi:
        return 1
    share = np.linspace(0, 1, 101)  # of the box; pairs of voxels so far apart are 1 - share of all
    wanted = np.exp(-0.5 * (phase * share) ** 2)
    for count in range(2, MOST_MODES):
        nodes, weights = _gauss_hermite(count)
        found = np.cos(phase * share[:, None] * nodes) @ weights
        if np.abs((1 - share) * (found - wanted)).max() < ENOUGH:
            return count
    return MOST_MODES
