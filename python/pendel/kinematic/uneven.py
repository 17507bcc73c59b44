"""Scans whose rocking steps are not equal, put on an even grid for the phasing.

Phasing works on a Fourier lattice, so its frames have to lie at equal steps. Those of a scan may not: a frame is
missing or was taken twice, motors are read back where they stood, or the steps were meant to differ. The places of the
even grid are those that are nearest to all frames (least squares), and a frame there is

(1) I(b) = sum_j w_j I(a_j),   w_j = prod_{i != j} (b - a_i)/(a_j - a_i)        Lagrange, over the frames next to b

over two frames on either side, two in all beyond the last frame; negative values are taken for 0. Speckles are sampled
at two frames or more, so that (1) misses by little; a place that no frame is near is masked, and left to the phasing.
The model of a reconstruction has the true angles and the frames as they were measured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks
from ..experiment.geometry import Experiment

EVEN = 0.05  # of a step by which the steps of an even scan may differ
REPEATED = 0.1  # of a step within which frames are one, taken again
NEAR = 0.15  # rms distance, in steps, of angles from the places of the grid that they were meant for
NEIGHBOURS = 1.75  # steps between two frames, between which there is no place for another
AT = 0.25  # of a step: a place has a frame so near to it, whatever else is missing
BEYOND = 0.6  # of a step: a place so far beyond the first or last frame is taken from the two that are there
REACH = 2.75  # steps to the second neighbour that (1) makes use of
MOST_MISSING = 0.5  # of the places of the even grid
FLATTEST = 1e-3  # volume of the cell of frame, row and column, whose sides are 1, where they still span a space


class EvenScan(NamedTuple):
    """A scan at equal rocking steps.

    Attributes
    ----------
    experiment : `Experiment` of its frames.
    data : (frames, rows, cols).
    mask : bool, True = good, as the scan's or (frames, rows, cols), or None.
    missing : places that no frame was near, which are masked.
    """

    experiment: Experiment
    data: np.ndarray
    mask: np.ndarray | None
    missing: int = 0


class _Grid(NamedTuple):
    """Places of an even grid and the frames about them.

    clusters : [indices of the frames that are one], in order of their ``angles`` (cluster,), rad, which grow along it
    or fall.  step : rad.  places : (place,), rad.
    """

    clusters: list
    angles: np.ndarray
    step: float
    places: np.ndarray


def is_even(experiment: Experiment) -> bool:
    """Whether a scan of two frames or more has rocking steps that are equal within EVEN."""
    if not isinstance(experiment, Experiment):
        raise TypeError(f"experiment: expected an Experiment, got {checks.describe(experiment)}")
    steps = np.diff(experiment.rocking_angles)
    mean = steps.mean() if len(steps) else 0.0
    return bool(mean) and bool(np.abs(steps - mean).max() <= EVEN * abs(mean))


def checked_basis(experiment: Experiment) -> np.ndarray:
    """`Experiment.basis`, or ValueError where frames, rows and columns do not span the reciprocal space."""
    basis = np.asarray(experiment.basis(), float)
    sizes = np.linalg.norm(basis, axis=0)
    if sizes[0] == 0 or abs(np.linalg.det(basis / sizes)) < FLATTEST:
        along = "does not move h" if sizes[0] == 0 else "moves h within the detector's plane"
        raise ValueError(
            "rocking_axis: expected one that carries the crystal through the reflection, got "
            f"{[round(float(v), 4) for v in experiment.rocking_axis]} (lab), which {along}; see also arm and "
            "pixel_orientation"
        )
    return basis


def even_experiment(experiment: Experiment) -> Experiment:
    """The `Experiment` of `even_scan`, which depends on the rocking angles alone; itself where these are even.

    Parameters
    ----------
    experiment : Experiment

    Returns
    -------
    Experiment

    Raises
    ------
    ValueError : as `even_scan` does.
    """
    return experiment if is_even(experiment) else _experiment_on(experiment, _grid(experiment))


def even_scan(experiment: Experiment, data: ArrayLike, mask: ArrayLike | None = None) -> EvenScan:
    """A scan brought to equal rocking steps for the phasing; an even one is given back as it is.

    Parameters
    ----------
    experiment : of the scan; frames in any order, repeated or missing, at any steps.
    data : (frames, rows, cols), real.
    mask : bool, (frames, rows, cols) or (rows, cols), True = good; None: all are.

    Returns
    -------
    EvenScan : what `pendel.kinematic.phase` and `to_model_grid` take.

    Raises
    ------
    TypeError, ValueError : naming the argument; ValueError names the frames where too many are missing between, and
        the rocking axis where frames sample no space.
    """
    shape = (experiment.n_frames, *experiment.detector_shape)
    if is_even(experiment):
        checked_basis(experiment)
        data = checks.numpy_array("data", data)
        return EvenScan(experiment, data, None if mask is None else checks.numpy_array("mask", mask))
    data = checks.array("data", data, shape, np.float32, axes="(frames, rows, cols)", finite=False)
    good = np.ones(shape, bool)
    if mask is not None:
        good = np.broadcast_to(checks.good_pixels("mask", mask, shape), shape)
    grid = _grid(experiment)
    even = _experiment_on(experiment, grid)
    checked_basis(even)

    frames = np.zeros((len(grid.places), *shape[1:]), np.float32)
    known = np.zeros(frames.shape, bool)
    missing = 0
    for i, place in enumerate(grid.places):
        weights = _weights(grid, place)
        missing += not weights
        known[i] = bool(weights)
        for cluster, weight in weights.items():
            value, sure = _mean_of(data, good, grid.clusters[cluster])
            frames[i] += np.float32(weight) * value
            known[i] &= sure
    return EvenScan(even, np.maximum(frames, 0), known, missing)


def _grid(experiment):
    """The `_Grid` of uneven angles, or ValueError where there is none."""
    angles = experiment.rocking_angles
    order = np.argsort(angles, kind="stable")
    if angles[-1] < angles[0]:
        order = order[::-1]
    gaps = np.abs(np.diff(angles[order]))
    if not gaps.any():
        raise ValueError(
            f"rocking_angles: expected two or more frames at different angles, got {len(angles)} at "
            f"{np.degrees(angles[0]):.6g} deg"
        )

    usual = np.quantile(gaps, 0.75)
    usual = usual if usual > 0 else gaps.max()
    clusters = np.split(order, np.nonzero(gaps > REPEATED * usual)[0] + 1)
    middle = np.array([angles[cluster].mean() for cluster in clusters])
    step, first, count = _fitted(middle)
    _refuse_gaps(clusters, middle, step, count)
    return _Grid(clusters, middle, step, first + step * np.arange(count))


def _fitted(angles):
    """(step, first place, places) of the even grid that is nearest to growing or falling angles.

    The coarsest grid that the angles are near to; where they are near to none, one of their usual step.
    """
    span, least = angles[-1] - angles[0], len(angles)
    count = round(float(span / np.median(np.diff(angles)))) + 1
    for tried in range(least, 2 * least + 1):
        offset = (angles - angles[0]) * ((tried - 1) / span)
        if np.sqrt(np.mean((offset - np.rint(offset)) ** 2)) < NEAR:
            count = tried
            break
    places = np.rint((angles - angles[0]) * ((count - 1) / span))
    step, first = np.polyfit(places, angles, 1)
    return float(step), float(first), count


def _refuse_gaps(clusters, angles, step, count):
    """ValueError where most of the places are between the frames."""
    if count - len(angles) <= MOST_MISSING * count:
        return
    gap = int(np.argmax(np.abs(np.diff(angles))))
    wide = abs(angles[gap + 1] - angles[gap])
    one, other = (int(clusters[gap + i][-i]) for i in (0, 1))
    raise ValueError(
        f"rocking_angles: expected frames at most places of an even scan, got {len(angles)} of {count} at steps of "
        f"{np.degrees(abs(step)):.4g} deg, frames {one} and {other} {np.degrees(wide):.4g} deg apart; leave out the "
        "frames on one side of the gap, or begin with a start that needs no phasing"
    )


def _experiment_on(experiment, grid):
    """The experiment at the places of a grid."""
    return experiment.with_angles(grid.places, (experiment.centre_angle - grid.places[0]) / grid.step)


def _weights(grid, place):
    """{cluster: weight} of equation (1), empty for a place that no frame is near."""
    offset = (grid.angles - place) / grid.step  # grows along the scan
    last = len(offset) - 1
    nearest = int(np.argmin(np.abs(offset)))
    distance = abs(offset[nearest])
    if distance < EVEN:
        return {nearest: 1.0}

    after = int(np.searchsorted(offset, 0))
    if after in (0, last + 1):  # beyond the scan
        near, used = distance < BEYOND, [0, 1] if after == 0 else [last - 1, last]
    else:
        near = distance < AT or offset[after] - offset[after - 1] < NEIGHBOURS
        used = [j for j in range(max(after - 2, 0), min(after + 1, last) + 1) if abs(offset[j]) < REACH]
    return _lagrange(offset, used) if near else {}


def _lagrange(offset, used):
    """{index: weight} of (1) at offset 0."""
    ratios = {j: [offset[i] / (offset[i] - offset[j]) for i in used if i != j] for j in used}
    return {j: float(np.prod(ratios[j])) for j in used}


def _mean_of(data, good, frames):
    """(mean of the good pixels of frames that are one, where there are some)."""
    count = good[frames].sum(axis=0)
    total = np.where(good[frames], data[frames], 0).sum(axis=0)
    return total / np.maximum(count, 1), count > 0
