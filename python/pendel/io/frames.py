"""What is wrong with frames as a whole: without light, masked, or saturated."""

import warnings
from dataclasses import replace

import numpy as np

from ..base import checks
from .scans import Scan

BRIGHT = 1000  # counts: as many photons do not come to the same number in several pixels by chance
STOPPED = 5  # pixels at the largest count of a scan, from which it is taken for the detector's
LIT = 20  # counts in a frame, beside which one without any is none of the crystal's doing


def mask_saturated(scan: Scan, saturation: float) -> Scan:
    """A `Scan` whose mask leaves out saturated pixels too.

    Parameters
    ----------
    scan : Scan.
    saturation : counts at and above which a pixel is saturated.

    Raises
    ------
    TypeError, ValueError : naming ``saturation``.
    """
    below = scan.data < checks.number("saturation", saturation, above=0)
    return scan if below.all() else replace(scan, mask=scan.mask & below)


def tell_of_frames(scan: Scan) -> None:
    """Say at once what makes a fit of a scan impossible or doubtful.

    Raises
    ------
    ValueError : where no pixel is good, or no good one has any count.

    Warns (UserWarning) of frames without light between frames that have some, of frames that are masked as a whole, and
    of pixels that stop at one count, as saturated ones do.
    """
    good = np.broadcast_to(scan.mask, scan.data.shape)
    if not good.any():
        raise ValueError("mask: expected at least one good pixel, got none: all of the detector is masked")
    data = np.where(good, scan.data, 0)
    light = data.sum(axis=(1, 2), dtype=np.float64)
    if not light.any():
        raise ValueError("data: expected a Bragg peak, got no counts in good pixels: dark frames, or a closed shutter")

    masked = ~good.any(axis=(1, 2))
    _warn_of(np.nonzero(masked)[0], "frames with good pixels", "masked as a whole")
    lit = np.nonzero(light >= LIT)[0]
    between = np.arange(len(light))
    dark = (light == 0) & ~masked & (between > lit.min(initial=len(light))) & (between < lit.max(initial=-1))
    _warn_of(np.nonzero(dark)[0], "light in frames between others that have some", "without any count")
    _warn_of_saturation(data)


def _warn_of(frames, expected, got):
    if len(frames):
        listed = ", ".join(map(str, frames[:8].tolist())) + (", ..." if len(frames) > 8 else "")
        warnings.warn(f"data: expected {expected}, got {len(frames)} {got}: {listed}", stacklevel=3)


def _warn_of_saturation(data):
    """UserWarning where the brightest pixels of frames, bad ones 0, have one and the same count."""
    most = data.max()
    stopped = int(np.count_nonzero(data == most))
    if most >= BRIGHT and stopped >= STOPPED:
        warnings.warn(
            f"data: expected pixels of different counts where it is bright, got {stopped} at the largest, {most:g}, as "
            "saturated ones are; mask them with data.saturation, or io.mask_saturated",
            stacklevel=3,
        )
