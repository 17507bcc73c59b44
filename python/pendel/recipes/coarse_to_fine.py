"""From coarse to fine: the crystal function found on few wide voxels first, where everything is cheap.

A scan seen with voxels ``factor`` times as wide is its own middle: the central pixels and frames, which are all that
such voxels can explain. On the coarsest level the search takes place (phasing, trials, minibatch Adam, polish), from
flat phases on the next one too; every finer one starts next to its solution and is only polished. Zeros of the far
field, which hold a reconstruction on its own level back, are mostly on the right side by then. On the finest level the
place of the crystal between the voxels matters too (`pendel.place`). Crystals of an extinction length and more do
without coarse levels (`pendel.recipes.thick_crystals`).
"""

import math
import os
from dataclasses import dataclass

import h5py
import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.arrays import host
from ..fit.minibatch import finish, reconstruct
from ..fit.objective import Objective
from ..fit.polishing import photon_weight, polish
from ..io import hdf5
from ..model.model import Model
from .half_voxel import place
from .thick_crystals import search_solid, thick
from .trials import kinematic_start, phase

SMALLEST = {"kinematic": 48, "flat": 24, "random": 24}  # detector pixels of the coarsest level, at least
FRAMES, STEPS = 4, 3200  # of minibatch Adam: frames per step, steps
RATE = 0.05
DOUBT, DECIDE = 1.5, 4  # ratio of the twins' trial misfits up to which a search of 1/4 of the steps, polished, decides
SOLID_RATE, SOLID_PART = 0.1, 4  # of the searches between which a crystal is made solid: rate; 1/4 of the steps each
EDGE = 0.15  # of the amplitude of wide voxels' data at the edge of their band
WEIGHTS = {  # of polish
    "amplitude": {"bound_weight": 1.0, "bulk_weight": 1.0, "trim": 1.5},
    "poisson": {"bound_weight": 30.0, "bulk_weight": 100.0, "trim": None},
}
EVIDENCE = {"smoothness": "evidence", "uniformity": "evidence"}  # of polish, for counts, once the phase is nearly there
ATV_WEIGHT = 1e-4  # without noise
BACKGROUND = 0.01  # counts per pixel, Poisson: keeps a single stray count finite


def coarse(model, data, mask=None, factor=2):
    """(model, data, mask) of the scan seen with voxels ``factor`` times as wide.

    Pixels: the middle 1/factor of each axis about ``experiment.centre``. Frames: those whose dq lies in the band of
    the wide voxels, every n-th of them with the largest n that still samples the box in the rocking direction.
    Intensities fall off towards the edge of that band as those of a crystal blurred by about a wide voxel do: wide
    voxels hold no sharp surface, and the data of one would be met by wrong phases.
    Raises TypeError or ValueError naming the argument; ValueError where fewer than 8 pixels or frames are left.
    """
    factor = checks.integer("factor", factor, at_least=2)
    experiment = model.experiment
    far = round(experiment.field_of_view * experiment.gamma_h / model.voxel[2])
    wider = far / max(1, round(far / factor))
    voxel = np.array([wider, wider, wider]) * model.voxel
    rows_far = round(experiment.field_of_view / model.voxel[1])
    voxel[1] = experiment.field_of_view / max(1, round(rows_far / factor))
    cuts = []
    for name, n, c in zip(("rows", "cols"), experiment.detector_shape, experiment.centre[1:], strict=True):
        left = n // factor
        if left < 8:
            raise ValueError(f"factor: expected at least 8 detector {name} to be left, got {left} of {n}")
        first = min(max(round(c) - left // 2, 0), n - left)
        cuts.append(slice(first, first + left))
    cuts.insert(0, _frames(model, voxel))
    cropped = experiment.crop(*cuts)
    shape = [2 * math.ceil(n * v / (2 * w) - 1e-9) for n, v, w in zip(model.shape, model.voxel, voxel, strict=True)]
    most = [far // factor for far in (rows_far, far)]
    shape = (shape[0], *(min(n, m) for n, m in zip(shape[1:], most, strict=True)))
    small = Model(
        cropped,
        model.crystal,
        shape,
        tuple(voxel),
        polarization=model.polarization,
        coupling=model.coupling,
        scheme=model.scheme,
        dtype=model.dtype.name,
        device=model.device,
        threads=model.threads,
        resync=model.resync,
    )
    window = _window(cropped, voxel)
    good = None if mask is None else mask[tuple(cuts[3 - mask.ndim :])]
    cut = data[tuple(cuts)]
    return small, (cut if good is None else np.where(good, cut, 0)) * window, good


def _window(experiment, voxel):
    """float32 (frames, rows, cols): square of a Gaussian in Q, EDGE at the band's edge along each model axis."""
    counts = (experiment.n_frames, *experiment.detector_shape)
    axes = [np.arange(n) - c for n, c in zip(counts, experiment.centre, strict=True)]
    total = 0.0
    for row, v in zip(experiment.basis(), voxel[::-1], strict=True):
        Q = row[0] * axes[0][:, None, None] + row[1] * axes[1][:, None] + row[2] * axes[2]
        total = total + (Q * v / np.pi) ** 2
    return (EDGE ** (2 * total)).astype(np.float32)


def _frames(model, voxel):
    dq = model.experiment.dq
    inside = np.nonzero((np.abs(dq) <= np.pi / voxel[::-1]).all(axis=1))[0]
    if len(inside) < 8:
        raise ValueError(f"factor: expected at least 8 frames in the band of the wide voxels, got {len(inside)}")
    step = np.abs(dq[inside[-1]] - dq[inside[0]]) / (len(inside) - 1)
    box = np.array(model.shape)[::-1] * model.voxel[::-1]  # x, y, z
    # the crystal takes some 0.8 of its box: phase advance from end to end at most a turn
    stride = max(1, int(2 * np.pi / (0.9 * step @ box)))
    stride = min(stride, (len(inside) - 1) // 7)
    centre = round(model.experiment.centre[0])
    first = inside[0] + (centre - inside[0]) % stride
    return slice(int(first), int(inside[-1]) + 1, stride)


def resample(S, voxel, model):
    """S of voxels ``voxel`` (dz, dy, dx) on the grid of ``model``, trilinear, 0 outside its box; dtype of the model."""
    S = checks.array("S", S, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    voxel = checks.lengths("voxel", voxel, 3)
    axes = [
        (np.arange(n) - n // 2) * fine / wide + m // 2
        for n, m, fine, wide in zip(model.shape, S.shape, model.voxel, voxel, strict=True)
    ]
    for axis, places in enumerate(axes):
        S = _linear(S, places, axis)
    return S.astype(model.dtype)


def _linear(S, places, axis):
    S = np.moveaxis(S, axis, 0)
    low = np.floor(places).astype(int)
    part = (places - low)[:, None, None]
    padded = np.pad(S, ((1, 1), (0, 0), (0, 0)))
    here, after = (padded[np.clip(low + 1 + i, 0, len(padded) - 1)] for i in (0, 1))
    return np.moveaxis((1 - part) * here + part * after, 0, axis)


def sharpen(S, wide=3, gain=2.0):
    """A blurred crystal function made a better start: a steeper surface, and phases there from further inside.

    Voxels nearer than ``wide`` to the surface take the phase of the nearest one that is not, and its slope: a wide
    voxel that the crystal fills in part scatters like a thin one, and the phase pays for that. |S| about 1/2 is taken
    ``gain`` times as steep, in [0, 1].
    """
    S = checks.array("S", S, (None, None, None), S.dtype, axes="(nz, ny, nx)")
    amplitude = np.abs(S)
    if not amplitude.any():
        raise ValueError("S: expected a non-zero function, got zeros")
    solid = amplitude > 0.5 * np.median(amplitude[amplitude > 0.3 * amplitude.max()])
    core = solid
    for _ in range(wide):
        smaller = ndimage.binary_erosion(core)
        if not smaller.any():
            break
        core = smaller
    unit = S / np.maximum(amplitude, np.finfo(amplitude.dtype).tiny)
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    mirror = [np.clip(2 * n - i, 0, size - 1) for n, i, size in zip(nearest, np.indices(S.shape), S.shape, strict=True)]
    phase, beyond = unit[tuple(nearest)], unit[tuple(mirror)]
    phase = np.where(core[tuple(mirror)], phase * phase * np.conj(beyond), phase)
    steep = np.clip((amplitude - 0.5) * gain + 0.5, 0, 1)
    return np.where(core, np.minimum(amplitude, 1), steep).astype(amplitude.dtype) * phase


def multiscale(
    model,
    data,
    mask=None,
    start=None,
    support=None,
    *,
    levels=None,
    counts=False,
    phased=None,
    starts=5,
    trial_epochs=25,
    steps=STEPS,
    rounds=4,
    places=None,
    seed=0,
    checkpoint=None,
    resume=False,
    progress=True,
    **recipe,
):
    """Reconstruct from nothing, or from a start, coarse to fine; the `Result` of the finest level.

    Parameters
    ----------
    model, data, mask : as in `reconstruct`.
    start : "kinematic": HIO/ER on the coarsest level and `kinematic_start`'s trials, between whose twins a short
        search and a round of polish decide where they are close; "flat": constant phase in
        ``support``, or in the whole box, and one more level; "random": the same with a random phase for every voxel;
        "solid": constant phase in ``support``, or in an ellipsoid, and many searches, between which what they find is
        made a perfect crystal (`pendel.recipes.thick_crystals`), for crystals of an extinction length and more; or
        complex (nz, ny, nx) on the grid of ``model``. None: "solid" where 0.8 of the box is thicker than an extinction
        length, unless ``phased`` or ``levels`` are given, "kinematic" elsewhere.
    support : bool (nz, ny, nx) to begin with, on the grid of ``model``.
    levels : times the voxels are doubled; None: while the detector keeps 48 pixels ("flat", "random": 24) and the scan
        8 frames, none with "solid" or a start of one's own.
    counts : whether the data are counted photons: Poisson likelihood, total variation by `photon_weight`, and then, on
        the finest level, smoothness and uniformity by evidence.
    phased : `KinematicResult` of the coarsest level's data.  starts : phasings, searches of "flat" and "random", or
        ellipsoids of "solid", 5 at most; the one of the smallest misfit is taken.
    trial_epochs : of each candidate.  steps : of minibatch Adam.  rounds : of `polish` on every level; with ``counts``
        as many more by evidence on the finest level.
    places : whether `pendel.place` looks for a better place between the voxels of the finest level, after the first
        round there (with ``counts``, the last without evidence); None: not with ``counts``, whose noise hides it.
    seed : of phasing and of the random groups.
    checkpoint : path of an HDF5 file written after every level (so with "solid" at the end); with ``resume=True`` the
        levels of the same start, seed and number of levels are not done again.
    recipe : further arguments of `polish`.

    With a model on a device phasing and what happens between levels stay on the host; `reconstruct` and `polish` work
    as they do with such a model.

    Raises as `kinematic_start`, `reconstruct` and `polish` do.
    """
    levels = None if levels is None else checks.integer("levels", levels, at_least=0)
    steps = checks.integer("steps", steps, at_least=1)
    starts = checks.integer("starts", starts, at_least=1)
    if start is None:
        start = "solid" if phased is None and not levels and thick(model) else "kinematic"
    kind = start if isinstance(start, str) else "given"
    checks.choice("start", kind, ("kinematic", "flat", "random", "solid", "given"))
    if kind in ("solid", "given") and levels is None:
        levels = 0
    data, mask, support = host(data), host(mask), host(support)
    if support is not None:
        support = checks.array("support", support, model.shape, bool, axes="(nz, ny, nx)")
    stack = [(model, data, mask)]
    while levels is None or len(stack) <= levels:
        try:
            if levels is None and min(stack[-1][0].experiment.detector_shape) < 2 * SMALLEST[kind]:
                break
            stack.append(coarse(*stack[-1]))
        except ValueError:
            if levels is not None:
                raise
            break
    made_by = {"seed": seed, "start": kind, "levels": len(stack)}
    done = _load(checkpoint, made_by) if resume and checkpoint and os.path.exists(checkpoint) else None
    begin = len(stack) - 1 if done is None else done.level - 1
    found = None if done is None else done
    likelihood = {"likelihood": "poisson", "background": BACKGROUND} if counts else {"likelihood": "amplitude"}

    def weights(m, frames, good, inside):
        atv_weight = photon_weight(m, frames, good, inside) if counts else ATV_WEIGHT
        own = WEIGHTS[likelihood["likelihood"]] | {"atv_weight": atv_weight}
        return likelihood | own | recipe | {"seed": seed}

    for level in range(begin, -1, -1):
        m, frames, good = stack[level]
        name = f"level {len(stack) - level} of {len(stack)}: " if progress else ""
        options = dict(likelihood)
        if found is None and kind == "solid":
            inside = None if support is None else _given(m, model, start, support, kind)[1]
            S, inside = _solid(m, frames, good, inside, starts, steps, seed, name, options)
        elif found is None and kind == "kinematic":
            begun = _kinematic(m, frames, good, phased, starts, trial_epochs, seed, progress)
            own = weights(m, frames, good, begun.support)
            S, inside = _twin(m, frames, good, begun, steps, seed, name, options, own)
        elif found is None:
            S, inside = _given(m, model, start, support, kind)
        else:
            S = sharpen(resample(found.S, found.voxel, m))
            inside = ndimage.binary_dilation(np.abs(S) > 0.02)
        if kind in ("flat", "random") and found is None:
            S, inside = _blind(m, frames, good, inside, kind == "random", starts, steps, seed, name, options)
        elif found is None and kind != "solid" or kind in ("flat", "random") and level == begin - 1:
            searched = _search(m, frames, good, S, inside, steps, seed, name, options)
            S, inside = searched.S, searched.support
        options = weights(m, frames, good, inside)
        left = rounds
        if level == 0 and (counts or rounds > 1):
            first = rounds if counts else 1  # evidence is that of where it begins: not on the way
            found = polish(m, frames, good, S, inside, rounds=first, progress=name and f"{name}polish", **options)
            S, inside = found.S, found.support
            if not counts if places is None else places:
                S, inside, _ = place(m, frames, good, S, inside, progress=name, **options)
            options = (EVIDENCE if counts else {}) | options | {"widen": 0}
            left = rounds if counts else rounds - 1
        found = polish(m, frames, good, S, inside, rounds=left, progress=name and f"{name}polish", **options)
        if checkpoint:
            _save(checkpoint, found, level, made_by)
    if begin < 0:  # nothing was left to do
        found = finish(Objective(model, data, mask, **likelihood), done.S, done.support, {}, 0, seed)
    return found


def _kinematic(m, data, mask, phased, starts, trial_epochs, seed, progress):
    if phased is None:
        phased = phase(data, mask, seed=seed, starts=starts, threads=m.threads, progress=progress)
    options = {"phased": phased, "trial_epochs": trial_epochs, "seed": seed, "progress": progress}
    return kinematic_start(m, data, mask, **options)


def _twin(m, data, mask, begun, steps, seed, name, options, weights):
    """(S, support) of the twin to go on with: where the trials leave a doubt, of the one that polish likes better.

    A search alone does not tell: where dynamical effects are weak the wrong twin, half of its phases gone, fits noise.
    """
    if begun.other is None or begun.trial_misfits[begun.other.kind] > DOUBT * begun.trial_misfits[begun.kind]:
        return begun.S, begun.support
    apart = ("callback", "smoothness", "uniformity")  # a look at both, with the same priors
    weights = {name: value for name, value in weights.items() if name not in apart}
    losses = {}
    for start in (begun, begun.other):
        shown = f"{name}{start.kind}, " if name else ""
        found = _search(m, data, mask, start.S, start.support, max(1, steps // DECIDE), seed, shown, options)
        found = polish(m, data, mask, found, rounds=1, progress=shown and f"{shown}polish", **weights)
        losses[start.kind] = found.loss[-1] if len(found.loss) else math.inf
    best = begun if losses[begun.kind] <= losses[begun.other.kind] else begun.other
    return best.S, best.support


def _given(m, model, start, support, kind):
    """``start`` and ``support`` of the finest level on the grid of m."""
    inside = np.ones(model.shape, bool) if support is None else support
    S = host(start) if kind == "given" else inside.astype(model.dtype)
    if kind == "given" and support is None:
        inside = S != 0
    if m is not model:
        S = resample(S, model.voxel, m)
        inside = ndimage.binary_dilation(np.abs(resample(inside, model.voxel, m)) > 0.25)
    return np.where(inside, S, 0).astype(m.dtype), inside


def _blind(m, data, mask, support, scrambled, starts, steps, seed, name, options):
    """Best of ``starts`` searches without any phases to begin with, or with random ones.

    |S| grows from 0.05 to 0.95 along a random direction: a start that equals its own mirror image has no reason to
    leave the mixture of a crystal and its twin.
    """
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in m.shape), indexing="ij"))
    best = None
    for i in range(starts):
        rng = np.random.default_rng([seed, i])
        direction = rng.normal(size=3)
        along = np.tensordot(direction / np.abs(direction).sum(), places, 1)
        S = np.where(support, 0.5 + 0.45 * along, 0).astype(m.dtype)
        if scrambled:
            S *= np.exp(2j * np.pi * rng.random(m.shape)).astype(m.dtype)
        shown = f"{name}start {i + 1} of {starts}, " if name else ""
        found = _search(m, data, mask, S, support, steps, seed * starts + i, shown, options)
        if best is None or found.misfit < best.misfit:
            best = found
    return best.S, best.support


def _solid(m, data, mask, support, starts, steps, seed, name, options):
    """(S, support) of a thick crystal."""

    def search(start, cycle, S, support):
        shown = "slow" if start is None else f"start {start + 1}"
        shown = f"{name}{shown}, shape {cycle + 1}, " if name else ""
        pace = (steps, RATE) if start is None else (max(1, steps // SOLID_PART), SOLID_RATE)
        return _search(m, data, mask, S, support, pace[0], seed + cycle, shown, options, pace[1])

    return search_solid(m, search, support, starts)


def _search(m, data, mask, S, support, steps, seed, name, options, rate=RATE):
    """`Result` of minibatch Adam, in the right valley if all went well."""
    batches = max(1, m.n_frames // FRAMES)
    epochs = max(1, steps // batches)
    shown = f"{name}search" if name else False
    options = options | {"epochs": epochs, "batches": batches, "learning_rate": rate, "seed": seed, "progress": shown}
    return reconstruct(m, data, mask, S, support, **options)


@dataclass
class _Done:
    S: np.ndarray
    support: np.ndarray
    voxel: tuple
    level: int


def _save(path, result, level, made_by):
    with hdf5.replacing(path) as file:
        file.attrs.update({"pendel_multiscale": 1, "level": level, "voxel": result.voxel} | made_by)
        file.create_dataset("S", data=result.S)
        file.create_dataset("support", data=result.support)


def _load(path, made_by):
    try:
        with h5py.File(path, "r") as file:
            if "pendel_multiscale" not in file.attrs:
                raise ValueError("no checkpoint of multiscale in it")
            for name, wanted in made_by.items():
                stored = file.attrs.get(name)
                if stored != wanted:
                    raise ValueError(f"its {name} is {stored}, not {wanted}")
            arrays = file["S"][()], file["support"][()], tuple(map(float, file.attrs["voxel"]))
            return _Done(*arrays, int(file.attrs["level"]))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint: expected one of pendel.multiscale, got {path}: {error}") from None
