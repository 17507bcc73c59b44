"""Sweeps of many crystals, one after another: arrays with axes before those of one crystal, as frameworks batch them.

These leading axes are broadcast against each other, as NumPy's are: one crystal in many incident fields, or many
crystals in one scan, are each given once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .engine import Array
from .fields import State
from .takagi_taupin import TakagiTaupin


class Given(NamedTuple):
    """What `TakagiTaupin.forward` and `with_parameters` take; all after ``dq`` may be None."""

    S: Any
    dq: Any
    s_0: Any = None
    incident: Any = None
    chi: Any = None
    geometry: Any = None


AXES = Given(S=3, dq=2, s_0=3, incident=2, chi=1, geometry=1)  # of one crystal
STATE_AXES = (3, 3, 5)  # of its `State`


def forward(op: TakagiTaupin, given: Given, *, keep: bool, out: Sequence | None = None) -> State:
    """Exit fields of every crystal; with ``keep`` the rest of the `State` for `adjoint` too, else None.

    ``out``: arrays for the results, C-contiguous, to which those of a crystal that is alone are written.

    Raises TypeError or ValueError naming the argument, as `TakagiTaupin.forward` does.
    """

    state = None
    if out is not None and math.prod(leading_shape(given, AXES)) == 1:
        state = State(*(None if a is None else a.reshape(a.shape[-n:]) for a, n in zip(out, STATE_AXES, strict=True)))

    def compute(*one):
        one, its_op = _of_one(op, one)
        return its_op.exit_state(*one, keep_E_0=keep, keep_layers=keep, out=state)

    return State(*one_by_one(op.engine.xp, compute, given, AXES))


def adjoint(op: TakagiTaupin, given: Given, adj_E_h: Array, state: State | None, summed_to: Sequence) -> Given:
    """Gradients with respect to what is ``given``, None for what is None.

    Parameters
    ----------
    op, given
        As for `forward`.
    adj_E_h : complex (..., frames, *exit_shape)
    state : State, optional
        From `forward`; None: the forward sweep is run again.
    summed_to : sequence of tuple
        Leading shapes of the gradients, see `one_by_one`.
    """
    xp, state = op.engine.xp, State(None, None, None) if state is None else state

    def compute(*arrays):
        given, adj_E_h, kept = Given(*arrays[: len(AXES)]), arrays[len(AXES)], arrays[len(AXES) + 1 :]
        kept = None if kept[0] is None else State(*(None if a is None else xp.ascontiguousarray(a) for a in kept))
        (S, dq, s_0, incident), its_op = _of_one(op, given)
        wants_parameters = given.chi is not None or given.geometry is not None
        found = its_op.adjoint(S, dq, adj_E_h, s_0, incident, state=kept, parameters=wants_parameters)
        return tuple(None if value is None else getattr(found, name) for name, value in given._asdict().items())

    return Given(*one_by_one(xp, compute, (*given, adj_E_h, *state), (*AXES, 3, *STATE_AXES), summed_to))


def _of_one(op: TakagiTaupin, one: Sequence) -> tuple[Sequence, TakagiTaupin]:
    """What a sweep of one crystal takes, and its operator."""
    given = Given(*one)
    if given.chi is None and given.geometry is None:
        return one[:4], op
    return one[:4], op.with_parameters(given.chi, given.geometry)


def released(array: Array | None) -> Array | None:
    """An array of a `State` that nobody else has: a framework that is given it may refuse what is read-only."""
    if isinstance(array, np.ndarray):
        array.flags.writeable = True
    return array


def leading_shape(arrays: Sequence, axes: Sequence[int]) -> tuple[int, ...]:
    """What the axes before the last ``axes`` of every array, None or one of any framework, are together.

    Raises
    ------
    ValueError
        Where they cannot be broadcast against each other, or hold no crystal.
    """
    shapes = [tuple(a.shape)[: len(a.shape) - n] for a, n in zip(arrays, axes, strict=True) if a is not None]
    leading = [1] * max(map(len, shapes))
    for shape in shapes:
        for place, length in enumerate(reversed(shape), start=1):
            if length != 1 and leading[-place] == 1:
                leading[-place] = length
            elif length not in (1, leading[-place]):
                raise ValueError(f"axes before those of a crystal: expected equal lengths or 1, got {shapes}")
    if 0 in leading:
        raise ValueError(f"axes before those of a crystal: expected at least one crystal, got {shapes}")
    return tuple(leading)


def one_by_one(xp, compute: Callable, arrays: Sequence, axes: Sequence[int], summed_to: Sequence | None = None) -> list:
    """What ``compute`` gives for each crystal, a sequence of arrays or None, together as arrays with leading axes.

    Parameters
    ----------
    xp : module
        Of the arrays.
    compute : callable
        Of one crystal's arrays, in the order of ``arrays``.
    arrays : sequence of array or None
    axes : sequence of int
        How many axes each array has for one crystal.
    summed_to : sequence of tuple, optional
        Leading shape of every result: over axes of length 1, and those that are missing, it is summed, in order. None:
        that of all ``arrays`` together.
    """
    leading = leading_shape(arrays, axes)
    results: list = []
    alone = math.prod(leading) == 1  # nothing is copied
    for index in np.ndindex(leading):
        found = compute(*(_one(array, n, index) for array, n in zip(arrays, axes, strict=True)))
        shapes = [leading] * len(found) if summed_to is None else summed_to
        made = [None if f is None else (*shape, *f.shape) for f, shape in zip(found, shapes, strict=True)]
        if alone:
            return [None if f is None else f.reshape(shape) for f, shape in zip(found, made, strict=True)]
        if not results:
            results = [None if f is None else xp.zeros(shape, f.dtype) for f, shape in zip(found, made, strict=True)]
        for result, f, shape in zip(results, found, shapes, strict=True):
            if f is not None:
                result[_place(index, shape)] += f
    return results


def _place(index, shape):
    """Where an array with these leading axes has what belongs to ``index`` of all leading axes."""
    return tuple(0 if n == 1 else i for i, n in zip(index[len(index) - len(shape) :], shape, strict=True))


def _one(array, axes, index):
    """Of one crystal."""
    return None if array is None else array[_place(index, array.shape[: array.ndim - axes])]
