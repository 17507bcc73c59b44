"""What a beam makes of a model: the settings at which every operator sweeps, and the blur of what they add up to.

(1) D = Blur(sum_m w_m sum_p w_p |FarField(E_h_p(dq + shift_m))|^2)         `pendel.experiment.coherence`, equation 2
(2) adj_p_i = sum_m adj_shift_m . d shift_m/dp_i + sum_k adj_w_k dw_k/dp_i,   adj_shift_m = sum_j sum_p adj_dq_jpm

with adj_w_k that of the blur (`pendel.model.blur`, equation 5), and the derivatives (4) and (5) of the coherence.
"""

import copy
import functools

import numpy as np

from ..base import checks
from ..base.arrays import module
from ..experiment.coherence import Coherence
from .blur import Blur


class _Moved:
    """An operator at settings dq + shift, shift (3,) rad/m, where it works."""

    def __init__(self, operator, shift):
        self.operator, self.shift = operator, shift

    def sweep(self, S, dq, s_0=None, *, keep_state=False):
        return self.operator.sweep(S, dq + self.shift, s_0, keep_state=keep_state)

    def sweep_adjoint(self, S, dq, adj_E_h, s_0=None, *, state, support=None):
        return self.operator.sweep_adjoint(S, dq + self.shift, adj_E_h, s_0, state=state, support=support)


class Beam:
    """Equation (1) of one coherence and point spread.

    Parameters
    ----------
    states : ((weight, TakagiTaupin), ...), one for every state of polarisation
    experiment : Experiment
    height : of the box along k_h, m
    point_spread : (row, col), rms widths in pixels
    coherence : `Coherence`, or None: full

    Attributes
    ----------
    operators : [(weight, operator), ...], all states of the first setting first
    blur : Blur
    modes : how many settings
    """

    def __init__(self, states, experiment, height, point_spread, coherence=None):
        self._states, self._experiment, self._height = states, experiment, height
        self._coherence = Coherence() if coherence is None else coherence
        upload = states[0][1].engine.upload
        shifts, weights = self._coherence.settings(experiment, height)
        self.operators, self.modes = [], len(weights)
        for shift, part in zip(shifts, weights, strict=True):
            shift = upload(shift) if shift.any() else None
            for weight, operator in states:
                self.operators.append((weight * float(part), operator if shift is None else _Moved(operator, shift)))
        self.blur = Blur(point_spread, *self._coherence.spreads(experiment, self.modes))

    def but(self, point_spread=None, coherence=None):
        """The same with what is given in the place of its own."""
        point_spread = self.blur.point_spread if point_spread is None else point_spread
        if coherence is not None:
            return Beam(self._states, self._experiment, self._height, point_spread, coherence)
        other = copy.copy(self)
        other.blur = self.blur.with_point_spread(point_spread)
        return other

    def adjoint(self, adj_shifts, adj_variances):
        """(2): gradient with respect to p, float64 (3,).

        adj_shifts : (operators, 3), summed over frames.  adj_variances : (steps,), of all steps of the blur.
        """
        asarray = module(adj_shifts).asarray
        by_shift, by_weight = (asarray(slopes) for slopes in self._slopes)
        found = (by_shift * adj_shifts[:, :, None]).sum(axis=(0, 1))
        return found + (by_weight * self.blur.adjoint_weights(adj_variances)[:, None]).sum(axis=0)

    @functools.cached_property
    def _slopes(self):
        """(d shift/dp (operators, 3, 3), dw/dp (3, 3))."""
        given = self._experiment, self.modes
        shifts, weights = self._coherence.settings_slopes(*given), self._coherence.spreads_slopes(*given)
        return np.repeat(shifts, len(self._states), axis=0), weights


def checked_point_spread(value):
    """(row, col) rms widths in pixels, of one number or two."""
    if np.ndim(value) == 0:
        return (checks.number("point_spread", value, at_least=0),) * 2
    if len(value) != 2:
        raise ValueError(f"point_spread: expected a number or (row, col), got {checks.describe(value)}")
    return tuple(checks.number(f"point_spread[{i}]", v, at_least=0) for i, v in enumerate(value))


def checked_coherence(value):
    """A `Coherence`, or None."""
    if value is not None and not isinstance(value, Coherence):
        raise TypeError(f"coherence: expected a Coherence or None, got {checks.describe(value)}")
    return value
