"""Rocking scans, from whatever file or beamline, and what each needs before a reconstruction: centre, crop, hot
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..base.axes import Axis
from ..base.constants import LIGHT_SPEED, PLANCK
from ..base.printing import brief
from .counts import bad_values


@dataclass
class Scan:
    """A rocking scan. Whatever a file does not say is None.

    Attributes
    ----------
    data : (frame, row, col) float32 or integer counts, centred about its pattern, not fft-shifted.
    mask : bool, (row, col) or (frame, row, col), True = good.
    rocking_angles : (frame,), rad.
    energy : J.
    distance : m, sample to detector.
    pixel_size : (row, column), m.
    centre : fractional (frame, row, col) that k_h hits.
    arm : detector arm turns, outermost first, as ((lab axis "y+", angle rad), ...).
    rocking_axis : lab axis such as "y+", or a 3-vector.
    name : of the sample.
    metadata : dict of what else is known: ``direct_beam``, (row, col) that the direct beam hits with the arm at zero,
        in the data as stored, by which `Experiment.from_scan` and a configuration turn the arm; ``crop_start``, the
        first (frame, row, col) of these that ``data`` holds; and whatever a file says.
    flux : (frame,) incident intensity of a monitor, relative, mean 1.
    background : counts per pixel beside the crystal's, (row, col) or (frame, row, col).
    """

    data: np.ndarray
    mask: np.ndarray
    rocking_angles: np.ndarray | None = None
    energy: float | None = None
    distance: float | None = None
    pixel_size: tuple | None = None
    centre: tuple | None = None
    arm: tuple | None = None
    rocking_axis: Axis | ArrayLike | None = None
    flux: np.ndarray | None = None
    background: np.ndarray | None = None
    name: str = ""
    metadata: dict = field(default_factory=dict)

    __repr__ = brief

    @property
    def wavelength(self) -> float | None:
        """Wavelength in m, or None."""
        return None if self.energy is None else PLANCK * LIGHT_SPEED / self.energy


def relative_flux(monitor, count):
    """A monitor's readings as ``flux`` of a `Scan`: mean 1, or None where they are not ``count`` numbers > 0."""
    monitor = np.asarray(monitor, np.float64)
    if monitor.shape != (count,) or not (np.isfinite(monitor) & (monitor > 0)).all():
        return None
    return monitor / monitor.mean()


def mask_bad_values(data):
    """Frames without what is no count (`bad_values`).

    Parameters
    ----------
    data : (frame, row, col), integers or floats.

    Returns
    -------
    data : the same, with zeros in their place; the array itself where there are none.
    mask : bool, True = good; (row, col) where it is the same in all frames, else the shape of data.
    count : number of values masked.
    """
    bad = bad_values(data)
    count = int(np.count_nonzero(bad))
    if not count:
        return data, np.ones(data.shape[1:], bool), 0
    data = np.where(bad, data.dtype.type(0), data)
    return data, ~bad[0] if (bad == bad[:1]).all() else ~bad, count


def pattern_centre(data: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, float, float]:
    """Fractional (frame, row, col) of the Bragg peak.

    It is the centre of mass of what exceeds 20 % of the maximum, in a box about it.

    The maximum is taken after a median over three frames, which drops single-frame spikes; the box (a quarter of each
    axis) follows the centre five times.

    Parameters
    ----------
    data : (frame, row, col) >= 0.
    mask : bool, (row, col) or the shape of data, True = good; None: all are.

    Returns
    -------
    (frame, row, col) float

    Raises
    ------
    ValueError : where good pixels have no counts.
    """
    data = checks.array("data", data, (None, None, None), np.float32)
    if mask is not None:
        data = np.where(checks.good_pixels("mask", mask, data.shape), data, np.float32(0))
    data = _median_of_three_frames(data)
    if not data.max(initial=0) > 0:
        raise ValueError("data: expected a Bragg peak, got no counts in good pixels")

    centre = np.array(np.unravel_index(np.argmax(data), data.shape), float)
    level = 0.2 * data.max()
    for _ in range(5):
        centre = _centre_of_mass_near(data, centre, level)
    frame, row, col = map(float, centre)
    return frame, row, col


def _median_of_three_frames(data):
    """Every frame but the first and last replaced by the median of itself and its neighbours."""
    if len(data) < 3:
        return data
    before, here, after = data[:-2], data[1:-1], data[2:]
    calm = data.copy()
    calm[1:-1] = np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after))
    return calm


def _centre_of_mass_near(data, centre, level):
    """Centre of mass (3,) of what exceeds ``level`` in a box of a quarter of each axis about ``centre``."""
    low = [max(0, int(round(c)) - max(2, n // 8)) for c, n in zip(centre, data.shape, strict=True)]
    high = [min(n, int(round(c)) + max(2, n // 8) + 1) for c, n in zip(centre, data.shape, strict=True)]
    box = data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    weight = np.where(box > level, box, 0).astype(np.float64)
    total = weight.sum()
    grids = np.indices(box.shape, sparse=True)
    return np.array([a + float((weight * g).sum() / total) for a, g in zip(low, grids, strict=True)])


def crop_scan(
    scan: Scan,
    *,
    frames: tuple[int, int] | None = None,
    shape: tuple[int, int] | None = None,
    centre: tuple[float, float, float] | None = None,
) -> Scan:
    """A `Scan` cut so that the pattern's centre pixel (rounded) lands on index n//2 of the new rows and columns.

    Parameters
    ----------
    scan : Scan.
    frames : (first, last), both kept; None: all.
    shape : (rows, cols); None: the whole detector, as it lies.
    centre : fractional (frame, row, col) in the scan as given; None: the scan's own, or its `pattern_centre`.

    Returns
    -------
    Scan : its centre keeps the fraction; ``metadata["crop_start"]`` is the first (frame, row, col) kept of the data as
        stored, whatever was cut off before.

    Raises
    ------
    ValueError : where the crop leaves the detector, naming the largest shape that fits.
    """
    if centre is None:
        centre = pattern_centre(scan.data, scan.mask) if scan.centre is None else scan.centre
    centre = checks.array("centre", centre, (3,), np.float64)
    first, last = _frame_range(frames, len(scan.data))
    start, shape = _region_about(centre[1:], shape, scan.data.shape[1:])

    kept = slice(first, last + 1)
    region = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
    frames_region = (kept, *region)

    def cut(pixels):
        return np.ascontiguousarray(pixels[region] if pixels.ndim == 2 else pixels[frames_region])

    return replace(
        scan,
        data=cut(scan.data),
        mask=cut(scan.mask),
        flux=None if scan.flux is None else scan.flux[kept].copy(),
        background=None if scan.background is None else cut(scan.background),
        rocking_angles=None if scan.rocking_angles is None else scan.rocking_angles[kept].copy(),
        centre=tuple(map(float, centre - [first, *start])),
        metadata=scan.metadata | {"crop_start": (crop_start(scan) + [first, *start]).tolist()},
    )


def crop_start(scan: Scan) -> np.ndarray:
    """The first (frame, row, col) that a scan holds of the data as stored, int64 (3,)."""
    return np.array(scan.metadata.get("crop_start", (0, 0, 0)), np.int64)


def _frame_range(frames, count):
    """(first, last) of the frames to keep, checked."""
    if frames is None:
        return 0, count - 1
    first, last = (checks.integer(f"frames[{i}]", v) for i, v in enumerate(frames))
    if not 0 <= first <= last < count:
        raise ValueError(f"frames: expected 0 <= first <= last <= {count - 1}, got {first} and {last}")
    return first, last


def _region_about(centre, shape, detector):
    """First (row, col) and shape of the region whose index n//2 is the pixel of ``centre`` (row, col)."""
    shape = tuple(detector) if shape is None else checks.sizes("shape", shape, 2)
    if shape == tuple(detector):
        return [0, 0], shape
    pixel = np.floor(centre + 0.5).astype(int)
    start = [int(p - n // 2) for p, n in zip(pixel, shape, strict=True)]
    if any(s < 0 or s + n > d for s, n, d in zip(start, shape, detector, strict=True)):
        largest = [int(min(2 * p + 1, 2 * (d - p))) for p, d in zip(pixel, detector, strict=True)]
        raise ValueError(f"shape: expected at most {tuple(largest)} about pixel {tuple(pixel.tolist())}, got {shape}")
    return start, shape


def hot_pixel_mask(data: ArrayLike, threshold: float = 10.0) -> np.ndarray:
    """bool (row, col), True = good; False where a pixel is lit in most frames and its neighbours are not.

    A pixel is hot where its median over the frames exceeds 4 times the second brightest of its eight neighbours'
    medians by ``threshold`` counting errors. The second brightest lets pairs of hot pixels be found; 4 spares
    speckles, whose maximum is at most 2.5 times its direct neighbours when they are sampled at two pixels per fringe
    (sinc^2 at half a fringe).

    Parameters
    ----------
    data : (frames, rows, cols) counts
    threshold : float

    Returns
    -------
    (rows, cols) bool, True = good
    """
    data = checks.array("data", data, (None, None, None), np.float32)
    level = np.median(data, axis=0)
    rows, columns = level.shape
    padded = np.pad(level, 1)
    around = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    second = np.sort(np.stack(around), axis=0)[-2]
    return level <= 4 * second + checks.number("threshold", threshold, above=0) * np.sqrt(4 * second + 1)
