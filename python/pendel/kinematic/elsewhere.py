"""Objects of other phasing programs: whether they are of these data, and where their pattern lies.

Such programs put the brightest pixel into the middle of their array before they begin, and add frames and pixels around
it. Their object then differs from that of the data as they were measured by a linear phase,

(1) obj[n] exp(2 pi i s.(n - N//2)/N)   has the pattern of obj moved by s pixels,

and s is found where the amplitudes of both are most alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from ..base import checks
from ..experiment.geometry import Experiment
from .detector_grid import padded
from .grid import KinematicResult, object_and_support, without_ramp
from .uneven import even_scan, is_even

UNLIKE = 0.2  # misfit of amplitudes from which an object is none of the data; that of random phases is about 0.5
ELSEWHERE = "put it on the model's grid with kinematic.to_model_grid, and store it with its voxel"


def phased_elsewhere(obj: ArrayLike, support: ArrayLike | None, data: ArrayLike, mask=None) -> KinematicResult:
    """The object of another program as the `KinematicResult` of data that it phases, wherever their pattern was.

    Parameters
    ----------
    obj : complex (N0, N1, N2), as `to_model_grid` takes it, of any scale.
    support : bool (N0, N1, N2), or None.
    data : (frames, rows, cols), at equal rocking steps.
    mask : bool, (frames, rows, cols) or (rows, cols), True = good; None: all are.

    Returns
    -------
    KinematicResult
        Its object has the pattern of the data, moved as they are, and their scale.

    Raises
    ------
    TypeError, ValueError : where |FFT(obj)|^2 is not like the data, on whatever grid the object is.
    """
    obj, support = object_and_support(obj, support)
    data = checks.array("data", data, (None, None, None), np.float32, finite=False)
    if any(N < n for N, n in zip(obj.shape, data.shape, strict=True)):
        raise ValueError(
            f"expected an object on a grid of at least the data's {data.shape}, got {obj.shape}; {ELSEWHERE}"
        )

    good = np.ones(data.shape, bool) if mask is None else np.broadcast_to(mask, data.shape)
    root = padded(np.sqrt(np.maximum(np.where(good, data, 0), 0)), obj.shape)
    obj = with_pattern_at(obj, pattern_shift(amplitudes(obj), root))

    F = np.where(padded(good, obj.shape), amplitudes(obj), 0).astype(np.float64)
    root = root.astype(np.float64)
    overlap = (F * root).sum() ** 2 / max((F**2).sum() * (root**2).sum(), np.finfo(float).tiny)
    if not 1 - overlap < UNLIKE:
        raise ValueError(
            f"expected an object whose voxel is known, or whose |FFT|^2 is like the data (misfit below {UNLIKE:g}), "
            f"got one without a voxel and a misfit of {1 - overlap:.2g}; {ELSEWHERE}"
        )
    scale = np.complex64((F * root).sum() / (F**2).sum())
    return KinematicResult(scale * obj, support, float(np.sqrt(1 - overlap)), np.empty(0), 0)


def phased_in_file(
    path: Path | str, obj: ArrayLike, support: ArrayLike | None, experiment: Experiment, data: ArrayLike, mask=None
) -> KinematicResult:
    """`phased_elsewhere` of an object in a file, for the frames of an experiment, whose rocking steps may differ.

    Raises
    ------
    TypeError, ValueError : naming the file, or the argument of `even_scan`.
    """
    if is_even(experiment):  # `even_scan` has no look at its data
        frames = (experiment.n_frames, *experiment.detector_shape)
        data = checks.array("data", data, frames, np.float32, axes="(frames, rows, cols)", finite=False)
        mask = None if mask is None else checks.good_pixels("mask", mask, frames)
    _, data, mask, _ = even_scan(experiment, data, mask)
    try:
        return phased_elsewhere(obj, support, data, mask)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None


def amplitudes(obj: np.ndarray) -> np.ndarray:
    """|FFT(obj)|, float32 (N0, N1, N2), zero frequency at N//2, norm "ortho"."""
    return np.abs(fft.fftshift(fft.fftn(fft.ifftshift(obj), norm="ortho")))


def pattern_shift(one: np.ndarray, other: np.ndarray) -> tuple[int, int, int]:
    """Pixels (frame, row, col) by which ``one`` pattern has to be moved to lie on the ``other`` of the same shape.

    Where their product, summed over all pixels, is largest; counted round the array.
    """
    product = fft.irfftn(fft.rfftn(other) * fft.rfftn(one).conj(), s=one.shape)
    found = np.unravel_index(np.argmax(product), product.shape)
    frame, row, col = (int(s - n if 2 * s > n else s) for s, n in zip(found, one.shape, strict=True))
    return frame, row, col


def with_pattern_at(obj: np.ndarray, shift: Sequence[int]) -> np.ndarray:
    """The object (1) whose pattern lies ``shift`` pixels (frame, row, col) further on."""
    return without_ramp(obj, [-s for s in shift]) if any(shift) else obj
