"""Several rocking scans of one peak as one: aligned on the first, their drift removed, summed.

The drift of a scan is the shift d (frame, row, col), in fractions of frames and pixels, that makes it most like the
first one: whole pixels by cross-correlation, then d of

(1) minimise sum over good pixels (sqrt A(i) - sqrt(g B(i + d)))^2,   Gauss-Newton,   g the ratio of their counts

near the peak, both smoothed by a pixel: pixels that are masked on the detector do not hold it back. Scans that have
drifted are interpolated by cubic splines; where nothing has moved, counts stay counts.

Where scans were cropped in different places the index of a pixel is no measure of where it lies. With c the first
frame, row and column that a scan kept of its data as stored, what is reported and what counts as still is

(2) drift = d + c - c_first
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import fft, ndimage

from ..base.axes import axis_vector
from .frames import SATURATION_TOLD, tell_of_saturation
from .scans import Scan, crop_start, pattern_centre, relative_flux

# Relative, but where a unit is given: what motors and monochromators reach again, below a pixel or a step.
ENERGY, DISTANCE, PIXEL, ARM, AXIS = 2e-4, 1e-3, 1e-6, 1e-4, 1e-3  # the last two in rad
DIRECT = 0.5  # pixels, that the direct beam is found to
STEP = 0.3  # steps: angles that differ by more belong to another scan
BOX = (48, 96, 96)  # frames, rows, columns about the peak that the drift is found from, at most
SMOOTH = 1.0  # pixels
STILL = 0.05  # pixels: below it nothing has moved; noise alone finds some hundredths
LEAST_LIKE = 0.7  # correlation of two scans of one crystal; noise of 10 counts in the peak leaves 0.9


def sum_scans(scans: Sequence[Scan]) -> Scan:
    """One `Scan` of several of the same peak: aligned on the first, summed.

    Parameters
    ----------
    scans : of the same frames, detector and geometry; what one does not know the others may. They may have been cropped
        in different places, to the same shape.

    Returns
    -------
    Scan : the geometry, angles and centre of the first. A pixel is good where it is in all scans; frames that not all
        scans reach are left out, which ``metadata["crop_start"]`` counts. ``metadata["drift"]``: (scan, 3), how far
        each had moved, in frames, rows and columns of the data as stored.

    Raises
    ------
    ValueError : naming the scan and what differs, where they contradict each other or show different patterns.
    """
    scans = list(scans)
    if not scans:
        raise ValueError("scans: expected at least one, got none")
    for i, scan in enumerate(scans[1:], 1):
        _check_agreement(scans[0], scan, f"scans[{i}]{f' ({scan.name})' if scan.name else ''}")
    if len(scans) == 1:
        return scans[0]

    names = ("energy", "distance", "pixel_size", "arm", "rocking_axis", "rocking_angles")
    known: dict[str, Any] = {
        name: next((v for v in (getattr(s, name) for s in scans) if v is not None), None) for name in names
    }
    first = replace(scans[0], **known)
    drifts = [np.zeros(3)] + [_drift(first, scan, f"scans[{i}]") for i, scan in enumerate(scans[1:], 1)]
    return _summed(first, scans, drifts)


def _check_agreement(first, scan, name):
    """ValueError where two scans are not of one measurement."""
    if scan.data.shape != first.data.shape:
        shapes = first.data.shape, scan.data.shape
        raise ValueError(f"{name}: expected frames of shape {shapes[0]} as in the first scan, got {shapes[1]}")
    for what, unit, tolerance in (("energy", "J", ENERGY), ("distance", "m", DISTANCE), ("pixel_size", "m", PIXEL)):
        ours, theirs = getattr(first, what), getattr(scan, what)
        if None not in (ours, theirs) and not np.allclose(ours, theirs, rtol=tolerance, atol=0):
            raise ValueError(f"{name}: expected {what} {ours} {unit} as in the first scan, got {theirs} {unit}")
    if None not in (first.arm, scan.arm) and not _same_arm(first.arm, scan.arm):
        raise ValueError(f"{name}: expected the arm {first.arm} as in the first scan, got {scan.arm}")
    if first.rocking_axis is not None and scan.rocking_axis is not None:
        ours, theirs = (axis_vector("rocking_axis", s.rocking_axis) for s in (first, scan))
        if np.abs(ours - theirs).max() > AXIS:
            axes = first.rocking_axis, scan.rocking_axis
            raise ValueError(f"{name}: expected rocking_axis {axes[0]} as in the first scan, got {axes[1]}")
    _check_direct_beam(first, scan, name)
    if (first.background is None) != (scan.background is None):
        raise ValueError(f"{name}: expected a background in all scans or in none, got it in some")
    _check_angles(first, scan, name)


def _check_direct_beam(first, scan, name):
    """ValueError where one alone knows its direct beam, or both know another one."""
    ours, theirs = (s.metadata.get("direct_beam") for s in (first, scan))
    if (ours is None) != (theirs is None) or (ours is not None and np.abs(np.subtract(ours, theirs)).max() > DIRECT):
        raise ValueError(f"{name}: expected direct_beam {ours} as in the first scan, got {theirs}")


def _same_arm(one, other):
    if len(one) != len(other):
        return False
    turns = zip(one, other, strict=True)
    return all(
        np.abs(axis_vector("arm", axis) - axis_vector("arm", other_axis)).max() <= AXIS
        and abs(angle - other_angle) <= ARM
        for (axis, angle), (other_axis, other_angle) in turns
    )


def _check_angles(first, scan, name):
    """ValueError where the steps of two scans differ; where they begin is left to the drift."""
    if first.rocking_angles is None or scan.rocking_angles is None or len(first.data) < 2:
        return
    ours, theirs = (s.rocking_angles - s.rocking_angles[0] for s in (first, scan))
    off = np.abs(ours - theirs) / np.median(np.abs(np.diff(ours)))
    if off.max() > STEP:
        frame = int(np.argmax(off > STEP))
        raise ValueError(
            f"{name}: expected the rocking steps of the first scan, got an angle {off[frame]:.2g} steps off at frame "
            f"{frame}"
        )


def _drift(first, scan, name):
    """(3,) d of the indices of ``scan`` and ``first``: frames, rows, columns."""
    centre = [round(c) for c in pattern_centre(first.data, first.mask)]
    one, good = _smoothed(first)
    other, there = _smoothed(scan)
    start = _whole_pixels(one, good, other, there, centre)
    d = start.astype(float)
    box = tuple(
        slice(max(1, c - n // 2), min(size - 1, c + n // 2)) for c, n, size in zip(centre, BOX, one.shape, strict=True)
    )
    for _ in range(20):
        change, like = _improvement(one, good, other, there, d, box)
        d = d + change
        if np.abs(change).max() < 1e-4 or np.abs(d - start).max() > 3:
            break
    if not like >= LEAST_LIKE or np.abs(d - start).max() > 3:
        raise ValueError(
            f"{name}: expected the pattern of the first scan, got one that is like it by {like:.2f} only (1: the same)"
        )
    cropped = crop_start(scan) - crop_start(first)
    return np.where(np.abs(d + cropped) < STILL, 0.0 - cropped, d)


def _smoothed(scan):
    """sqrt of smoothed counts, and where none of the pixels that they come from is masked."""
    good = np.broadcast_to(scan.mask, scan.data.shape).astype(np.float32)
    weight = ndimage.gaussian_filter(good, SMOOTH, truncate=2)
    counts = ndimage.gaussian_filter(np.where(good > 0, scan.data, 0).astype(np.float32), SMOOTH, truncate=2)
    return np.sqrt(np.divide(counts, weight, out=np.zeros_like(counts), where=weight > 0.1)), weight > 0.9


def _whole_pixels(one, good, other, there, centre):
    """(3,) integers: where two patterns are most alike, by their correlation over the pixels that both have."""
    region = tuple(slice(max(0, c - n), min(size, c + n)) for c, n, size in zip(centre, BOX, one.shape, strict=True))
    one, other = one[region], other[region]
    good, there = good[region].astype(np.float32), there[region].astype(np.float32)
    shape = one.shape

    def products(a, b):  # sum over i of a(i) b(i + t)
        return fft.irfftn(fft.rfftn(a).conj() * fft.rfftn(b), shape)

    energies = products(one**2 * good, there) * products(good, other**2 * there)
    shared = products(good, there) > 0.25 * good.sum()
    alike = np.full(shape, -1.0)
    np.divide(products(one * good, other * there), np.sqrt(np.maximum(energies, 0)), out=alike, where=shared)
    peak = np.unravel_index(np.argmax(alike), shape)
    return np.array([p - n if p > n // 2 else p for p, n in zip(peak, shape, strict=True)])


def _improvement(one, good, other, there, d, box):
    """Step of Gauss-Newton (3,) for equation (1), and the correlation of the two in the box before it."""
    target = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij")) + d[:, None, None, None]
    moved = ndimage.map_coordinates(other, target, order=3, mode="nearest")
    valid = ndimage.map_coordinates(there.astype(np.float32), target, order=1, mode="constant") > 0.99
    valid &= good[box]
    if valid.sum() < 100:
        return np.zeros(3), 0.0
    a, b = one[box][valid], moved[valid]
    like = float(np.corrcoef(a, b)[0, 1])
    slopes = np.stack([slope[valid] for slope in np.gradient(moved)])
    gain = float(a @ b / (b @ b))
    # a = g (b + slopes . change): the change of d
    change, *_ = np.linalg.lstsq(gain * slopes.T, a - gain * b, rcond=None)
    return change, like


def _summed(first, scans, drifts):
    """The `Scan` of scans whose drifts are known."""
    begin, end = _common_frames(len(first.data), [d[0] for d in drifts])
    data, mask = _summed_frames(first, scans, drifts, slice(begin, end))

    backgrounds = None
    if first.background is not None:
        backgrounds = sum(np.broadcast_to(s.background, first.data.shape)[begin:end] for s in scans)
    _tell_of_saturation(scans)

    begun = crop_start(first)
    moved = np.array([d + crop_start(scan) - begun for scan, d in zip(scans, drifts, strict=True)])  # (2)
    notes = {"drift": moved, "scans_summed": len(scans), SATURATION_TOLD: True}
    if begin or "crop_start" in first.metadata:
        notes["crop_start"] = [int(begun[0]) + begin, *map(int, begun[1:])]

    return replace(
        first,
        data=data,
        mask=mask[0].copy() if (mask == mask[:1]).all() else mask,
        background=backgrounds,
        flux=_summed_flux(scans, drifts, begin, end),
        rocking_angles=None if first.rocking_angles is None else first.rocking_angles[begin:end].copy(),
        centre=None if first.centre is None else (first.centre[0] - begin, *first.centre[1:]),
        metadata=first.metadata | notes,
    )


def _summed_frames(first, scans, drifts, frames):
    """(counts, mask) of the ``frames`` that all scans have, (frame, row, column)."""
    whole = all((d == np.rint(d)).all() for d in drifts) and all(s.data.dtype.kind in "iu" for s in scans)
    data = np.zeros(first.data[frames].shape, np.int64 if whole else np.float32)
    mask = np.ones(data.shape, bool)
    for scan, d in zip(scans, drifts, strict=True):
        good = _moved_mask(np.broadcast_to(scan.mask, scan.data.shape), d)[frames]
        data += _moved(_filled(scan) if d.any() else scan.data, d)[frames].astype(data.dtype, copy=False)
        mask &= good

    data = np.where(mask, np.maximum(data, 0), data.dtype.type(0))
    if whole and data.max(initial=0) <= np.iinfo(np.int32).max:
        data = data.astype(np.int32)
    return data, mask


def _tell_of_saturation(scans):
    """UserWarning where one scan is saturated: sums, and counts between pixels, show it no more."""
    for scan in scans:
        if SATURATION_TOLD not in scan.metadata and tell_of_saturation(scan.data, scan.mask):
            return


def _common_frames(count, drifts):
    """First frame, and the one after the last, that all scans reach."""
    begin = max(0, *(int(np.ceil(-d - 1e-9)) for d in drifts))
    end = min(count, *(int(np.floor(count - 1 - d + 1e-9)) + 1 for d in drifts))
    if end - begin < 1:
        raise ValueError(f"scans: expected scans that share some of {count} frames, got drifts of {drifts} frames")
    return begin, end


def _moved(data, d):
    """``data`` at i + d."""
    if not d.any():
        return data
    order = 0 if (d == np.rint(d)).all() else 3
    return ndimage.shift(data, -d, order=order, mode="nearest")


def _filled(scan):
    """Data whose masked pixels have what lies around them, so that no edge of a gap spreads."""
    good = np.broadcast_to(scan.mask, scan.data.shape)
    if good.all():
        return scan.data if scan.data.dtype.kind in "iu" else scan.data.astype(np.float32, copy=False)
    smooth = _smoothed(scan)[0] ** 2
    return np.where(good, scan.data, np.rint(smooth) if scan.data.dtype.kind in "iu" else smooth).astype(
        scan.data.dtype, copy=False
    )


def _moved_mask(good, d):
    """True where both neighbours of i + d along every axis are good and within the scan."""
    for axis, shift in enumerate(d):
        low = int(np.floor(shift))
        if low != shift:
            good = _from(good, low, axis) & _from(good, low + 1, axis)
        elif low:
            good = _from(good, low, axis)
    return good


def _from(good, step, axis):
    """``good`` at i + step along an axis; False beyond the ends."""
    result = np.zeros_like(good)
    n = good.shape[axis]
    to, of = (slice(max(0, -step), min(n, n - step)), slice(max(0, step), min(n, n + step)))
    at = [slice(None)] * good.ndim
    source = list(at)
    at[axis], source[axis] = to, of
    if to.start < to.stop:
        result[tuple(at)] = good[tuple(source)]
    return result


def _summed_flux(scans, drifts, begin, end):
    """Relative flux of the sum, (frame,), or None where not all scans know theirs."""
    if any(scan.flux is None for scan in scans):
        return None
    frames = np.arange(begin, end)
    total = 0.0
    for scan, d in zip(scans, drifts, strict=True):
        # The monitor of each is relative to its own mean; the counts say how bright one scan is beside another.
        weight = float(np.where(scan.mask, scan.data, 0).sum(dtype=np.float64))
        total = total + weight * np.interp(frames + d[0], np.arange(len(scan.flux)), scan.flux)
    return relative_flux(total, end - begin)
