"""Partial coherence: a beam of many directions and wavelengths, each of which makes a pattern of its own.

(1) covariance of Q, C = sum_i p_i v_i v_i^T,   p = (1/l_x^2, 1/l_y^2, bandwidth^2),   v = (x, y, h)
                                                               lab x (horizontal), lab y (vertical)

|gamma(d)| = exp(-d^2/(2 l^2)) across the beam is an angular spectrum of rms width 1/l (van Cittert-Zernike), and a
wavelength shorter by a part e moves Q by e h. The intensities of all add up, so the coherent intensity is convolved
with a Gaussian in Q. Its part in the detector's plane is a blur of pixels (`pendel.model.blur`). Its part across that
plane, along n = k_h/|k_h|, moves a frame along the rocking curve: a few settings dq + shift, each a sweep of its own,
are added with Gauss-Hermite weights. With n_i = n.v_i and w^2 = n.C n = sum_i p_i n_i^2

(2) shift_m = x_m C n/w
(3) rest = C - C n (C n)^T/w^2 = sum_i<j (p_i p_j/w^2) v_ij v_ij^T,   v_ij = n_j v_i - n_i v_j

The directions v_ij are those of the geometry, whatever the beam: how much of each there is, is smooth in p and nowhere
negative. With one setting the smear across the detector's plane is neglected, and all of the blur in it is kept: (1)
in the place of (3). Derivatives, for p to be refined (`pendel.fit.nuisances`):

(4) d shift_m/dp_i = x_m (n_i v_i/w - n_i^2 C n/(2 w^3))
(5) d (p_i p_j/w^2)/dp_i = p_j/w^2 - p_i p_j n_i^2/w^4,   and by a p_k of neither  -p_i p_j n_k^2/w^4

Neglected: that a direction or wavelength changes the crystal's response but by its deviation from the Bragg condition;
that a relative bandwidth moves pixels far from the centre a little more than the centre; that the beam's profile and
coherence are not Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks, plausible
from .geometry import Experiment

NARROW = 0.1  # speckle widths: below, one setting does
ENOUGH = 0.01  # of the coherence across the box, which the settings have to meet
MOST_MODES = 9
PAIRS = ((0, 1), (0, 2), (1, 2))  # of the sum in (3)


@dataclass(frozen=True)
class Coherence:
    """How coherent the beam is.

    Attributes
    ----------
    horizontal, vertical : transverse coherence lengths along lab x and y, m, rms widths of |gamma|; inf: coherent.
    bandwidth : relative rms width of the wavelengths.
    modes : settings of equation (2), integer >= 1; None: one where the smear along the frames is below a tenth of a
        speckle of the box, else as many as meet the coherence across the box to a hundredth, 9 at most.
    squares : p of (1), float64 (3,).

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

    @classmethod
    def of_squares(cls, squares: ArrayLike, modes: int | None = None) -> Coherence:
        """That of p in (1), three numbers >= 0.

        Parameters
        ----------
        squares : (3,) float
            [m^-2], [m^-2] and [1]: squares of p, each at least 0.
        modes : int or None

        Returns
        -------
        Coherence
        """
        horizontal, vertical, band = (math.sqrt(p) for p in np.asarray(squares))
        across, along = (1 / width if width > 0 else math.inf for width in (horizontal, vertical))
        return cls(across, along, band, modes)

    @property
    def squares(self) -> np.ndarray:
        """Squares of p in (1), float64 (3,): [m^-2], [m^-2] and [1]."""
        return np.array([self.horizontal**-2, self.vertical**-2, self.bandwidth**2])

    def with_modes(self, modes: int | None) -> Coherence:
        """The same with so many settings.

        Parameters
        ----------
        modes : int or None

        Returns
        -------
        Coherence
        """
        return replace(self, modes=modes)

    def covariance(self, experiment: Experiment) -> np.ndarray:
        """(1) in the model frame of an `Experiment`, (3, 3), (rad/m)^2.

        Parameters
        ----------
        experiment : Experiment

        Returns
        -------
        (3, 3) float64, (rad/m)^2
        """
        v = directions(experiment)
        return (v.T * self.squares) @ v

    def count(self, experiment: Experiment, height: float) -> int:
        """How many settings there are, for a box of ``height`` along k_h, m.

        Parameters
        ----------
        experiment : Experiment
        height : float, m

        Returns
        -------
        int
        """
        return _modes_for(self._width(experiment) * height) if self.modes is None else self.modes

    def settings(self, experiment: Experiment, height: float) -> tuple[np.ndarray, np.ndarray]:
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
        nodes, weights = _gauss_hermite(self.count(experiment, height))
        width = self._width(experiment)
        along = self.covariance(experiment) @ _across(experiment) / width if width > 0 else np.zeros(3)
        return nodes[:, None] * along, weights

    def settings_slopes(self, experiment: Experiment, modes: int) -> np.ndarray:
        """(4), float64 (modes, 3, 3): of every shift's components by every p_i; not for a beam without any smear.

        Parameters
        ----------
        experiment : Experiment
        modes : int, of settings

        Returns
        -------
        (modes, 3, 3) float64
        """
        nodes, _ = _gauss_hermite(modes)
        if modes == 1:
            return np.zeros((1, 3, 3))
        v, n, width = directions(experiment), _across(experiment), self._width(experiment)
        turn = self.covariance(experiment) @ n
        slopes = v.T * (v @ n) / width - np.outer(turn, (v @ n) ** 2) / (2 * width**3)
        return nodes[:, None, None] * slopes

    def spreads(self, experiment: Experiment, modes: int) -> tuple[np.ndarray, np.ndarray]:
        """What is left in the detector's plane, sum_k weights_k directions_k directions_k^T, pixels squared.

        Parameters
        ----------
        experiment : Experiment
        modes : how many `settings` there are; with one the whole of (1) in the plane, else (3)

        Returns
        -------
        weights : float64 (3,), >= 0
        directions : float64 (3, 2), pixels, rows first
        """
        v, width = directions(experiment), self._width(experiment)
        to_pixels = np.stack([experiment.e_row, experiment.e_col]).T * (experiment.field_of_view / (2 * math.pi))
        if modes == 1 or width == 0:
            return self.squares, v @ to_pixels
        p, along = self.squares, v @ _across(experiment)
        oblique = np.stack([along[j] * v[i] - along[i] * v[j] for i, j in PAIRS])
        return np.array([p[i] * p[j] for i, j in PAIRS]) / width**2, oblique @ to_pixels

    def spreads_slopes(self, experiment: Experiment, modes: int) -> np.ndarray:
        """(5), float64 (3, 3): of the weights of `spreads` by every p_i.

        Parameters
        ----------
        experiment : Experiment
        modes : int, of settings

        Returns
        -------
        (3, 3) float64
        """
        if modes == 1:
            return np.eye(3)
        p, width = self.squares, self._width(experiment)
        smear = (directions(experiment) @ _across(experiment)) ** 2
        slopes = np.stack([-p[i] * p[j] * smear / width**4 for i, j in PAIRS])
        for row, (i, j) in zip(slopes, PAIRS, strict=True):
            row[i] += p[j] / width**2
            row[j] += p[i] / width**2
        return slopes

    def _width(self, experiment):
        """w of (2), rad/m."""
        return math.sqrt(self.squares @ (directions(experiment) @ _across(experiment)) ** 2)


def directions(experiment):
    """v of (1) in the model frame of an `Experiment`, (3, 3), a row each."""
    return np.stack([experiment.frame[:, 0], experiment.frame[:, 1], experiment.frame @ experiment.h])


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
