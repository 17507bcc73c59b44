"""Measured frames that nothing can be fitted to."""

from .arrays import module


def refuse_darkness(data, good=None):
    """Raise ValueError where no pixel is good, or no good one has any light. On a device it waits.

    Parameters
    ----------
    data : real (frames, rows, cols)
        Intensities or amplitudes.
    good : bool (frames, rows, cols) or (rows, cols), or None
        None: all are.
    """
    if good is not None and not bool(good.any()):
        raise ValueError("mask: expected at least one good pixel, got none")
    lit = data != 0
    if not bool((lit if good is None else lit & module(lit).asarray(good)).any()):
        raise ValueError("data: expected some intensity on good pixels, got none")
