"""What is wrong with frames as a whole: without light, masked, or saturated."""

import warnings
from dataclasses import replace

import numpy as np

from ..base import checks
from .scans import Scan

MUCH_LIGHT = 100  # counts in a frame beside which one without any count is no matter of chance
BRIGHT = 1000  # counts: as many photons do not come to the same number in several pixels by chance
SATURATION_TOLD = "saturation_told"  # key of a scan's metadata
STOPPED = 5  # pixels at the largest count of a scan, from which it is taken for the detector's


def mask_saturated(scan: Scan, saturation: float) -> Scan:
    """A `Scan` whose mask leaves out saturated pixels too.

    Parameters
    ----------
    scan : Scan.
    saturation : counts at and above which a pixel is saturated.

    Returns
    -------
    Scan

    Raises
    ------
    TypeError, ValueError : naming ``saturation``.
    """
    below = below_saturation(scan.data, saturation)
    return scan if below.all() else replace(scan, mask=scan.mask & below)


def below_saturation(data, saturation: float) -> np.ndarray:
    """bool, shape of ``data``, counts as they were read out: False where they are saturated."""
    return data < checks.number("saturation", saturation, above=0)


def tell_of_frames(scan: Scan) -> None:
    """Say at once what makes a fit of a scan impossible or doubtful.

    Parameters
    ----------
    scan : Scan

    Raises
    ------
    ValueError : where no pixel is good, or no good one has any count.

    Warns (UserWarning) of frames without light beside frames that have much, and of frames that are masked as a whole,
    where the reader has not done so (``metadata["frames_empty"]``, ``["frames_missing"]``), and of pixels that stop at
    one count, as saturated ones do, where nobody has looked at what was read out (``["saturation_told"]``).
    """
    good = np.broadcast_to(scan.mask, scan.data.shape)
    if not good.any():
        raise ValueError("mask: expected at least one good pixel, got none: all of the detector is masked")
    data = np.where(good, scan.data, 0)
    light = data.sum(axis=(1, 2), dtype=np.float64)
    if not light.any():
        raise ValueError("data: expected a Bragg peak, got no counts in good pixels: dark frames, or a closed shutter")

    told = [scan.metadata.get(name, ()) for name in ("frames_missing", "frames_empty")]  # by the reader
    masked = np.setdiff1d(np.nonzero(~good.any(axis=(1, 2)))[0], told[0])
    _warn_of(masked, "frames with good pixels", "masked as a whole")
    dark = np.setdiff1d(frames_without_light(scan.data, scan.mask), told[1])
    _warn_of(dark, "light in frames beside others that have much", "without any count")
    if SATURATION_TOLD not in scan.metadata:
        tell_of_saturation(scan.data, scan.mask)


def frames_without_light(data, mask) -> np.ndarray:
    """Indices of the frames that have no count although the next ones that have some, on either side, have many.

    Parameters
    ----------
    data : (frame, row, col) counts.
    mask : bool, (row, col) or the shape of data, True = good.
    """
    good = np.broadcast_to(mask, data.shape)
    light = np.array([np.sum(one, dtype=np.float64, where=g) for one, g in zip(data, good, strict=True)])
    lit = np.flatnonzero(light > 0)
    dark = np.flatnonzero((light == 0) & good.any(axis=(1, 2)))
    if not len(lit):
        return dark[:0]
    after = np.searchsorted(lit, dark)
    # at an end of the scan there is one side only
    sides = light[lit[np.maximum(after - 1, 0)]], light[lit[np.minimum(after, len(lit) - 1)]]
    return dark[np.minimum(*sides) >= MUCH_LIGHT]


def _warn_of(frames, expected, got):
    if len(frames):
        listed = ", ".join(map(str, frames[:8].tolist())) + (", ..." if len(frames) > 8 else "")
        warnings.warn(f"data: expected {expected}, got {len(frames)} {got}: {listed}", stacklevel=3)


def tell_of_saturation(data, mask) -> bool:
    """Whether the brightest good pixels of counts, as they were read out, all have one, as saturated ones do: then
    with a UserWarning.

    Parameters
    ----------
    data, mask : as in `frames_without_light`.
    """
    good = np.broadcast_to(mask, data.shape)
    most = data.max(where=good, initial=0)
    stopped = int(np.count_nonzero((data == most) & good))
    found = bool(most >= BRIGHT and stopped >= STOPPED)
    if found:
        warnings.warn(
            f"data: expected pixels of different counts where it is bright, got {stopped} at the largest, {most:g}, as "
            "saturated ones are; mask them with data.saturation, or io.mask_saturated",
            stacklevel=3,
        )
    return found
