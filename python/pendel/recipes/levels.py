"""The levels of a scan: seen with voxels twice as wide, and again, and what is found there brought to finer ones."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..base import checks
from ..fit.corrections import NO_CORRECTIONS, Corrections
from ..fit.objective import measured
from ..kinematic.support import body, core
from ..kinematic.uneven import is_even
from ..model.loss import has_axes
from ..model.model import Model
from ..operator.physics import BOX_PIXELS, pixels_per_layer

EDGE = 0.15  # of the amplitude of wide voxels' data at the edge of their band
FEWEST = 8  # detector pixels and frames of a level, at least
NUMERICS = ("polarization", "coupling", "scheme", "device", "threads", "resync", "point_spread", "coherence")
NUMERICS += ("ewald", "sampling", "comm")
CRYSTAL_HEIGHT = 0.9  # of its box: a crystal's height, some 0.8 of it, with a margin


def unit_flux(data, background=None, flux=None):
    """Frames less a background, an array as in `Model.fit` or None, and over their ``flux`` (n_frames,) or None."""
    if background is not None:
        data = np.maximum(data - (background[:, None, None] if background.ndim == 1 else background), 0)
    return data if flux is None else data / flux[:, None, None]


@dataclass(frozen=True)
class Part:
    """The part of a scan that a level sees.

    Attributes
    ----------
    places : (frames, rows, cols), indices into the whole scan
    window : (frames, rows, cols), which its data were multiplied by
    """

    places: tuple
    window: np.ndarray

    def background(self, background):
        """That of the part, (frames, rows, cols), for an array of the whole scan."""
        frames, *pixels = self.places
        if background.ndim == 1:
            return background[frames][:, None, None] * self.window
        if background.ndim == 2:
            return background[np.ix_(*pixels)] * self.window
        return background[np.ix_(*self.places)] * self.window

    def within(self, whole):
        """The same as part of a scan, of which ``whole``, a `Part` or None: all, is what it was taken from."""
        if whole is None:
            return self
        places = tuple(np.asarray(w)[p] for w, p in zip(whole.places, self.places, strict=True))
        return Part(places, self.window * whole.window[np.ix_(*self.places)])


@dataclass(frozen=True)
class Level:
    """A scan as a level sees it.

    Attributes
    ----------
    model : Model
    data : (n_frames, rows, cols), NumPy
    mask : bool, as in `Model.fit`, or None
    name : for its progress; "" keeps silent
    corrections : of its frames
    part : `Part` of the whole scan that it is, or None: all
    """

    model: Model
    data: np.ndarray
    mask: np.ndarray | None
    name: str = ""
    corrections: Corrections = NO_CORRECTIONS
    part: Part | None = None
    _fits: dict = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def fit(self, recipe):
        """The `Fit` for a `DataRecipe`, made once."""
        seed = recipe.seed if recipe.free_fraction else None
        background = recipe.background
        key = recipe.likelihood, recipe.model_error, recipe.free_fraction, seed
        key += (id(background) if has_axes(background) else background,)
        if key not in self._fits:
            own = recipe.but(background=self.background(background))
            # an array is kept, so that no other one has its id
            self._fits[key] = measured(self.model, self.data, self.mask, own), background
        return self._fits[key][0]

    def background(self, background):
        """That of the level for one of the whole scan, a number or an array as in `Model.fit`."""
        return background if self.part is None or not has_axes(background) else self.part.background(background)

    def light(self, background=0.0):
        """The data less a ``background`` array of the whole scan, at flux 1: what phasing takes for the crystal's."""
        background = self.background(background)
        return unit_flux(self.data, background if has_axes(background) else None, self.corrections.flux)

    def titled(self, what):
        """``what`` as the title of a bar or line of progress, or False."""
        return f"{self.name}{what}" if self.name else False


def levels_of(model, data, mask, count, smallest, progress, corrections=NO_CORRECTIONS):
    """[`Level`], the finest first, with the ``corrections`` of their frames.

    count : times the voxels are doubled; None: while the detector keeps ``smallest`` pixels and the scan FEWEST frames.
    """
    stack, parts = [(model, data, mask)], [None]
    while count is None or len(stack) <= count:
        if count is None and min(stack[-1][0].experiment.detector_shape) < 2 * smallest:
            break
        try:
            *level, part = _coarse(*stack[-1], 2)
            stack.append(level)
            parts.append(part.within(parts[-1]))
        except ValueError:
            if count is not None:
                raise
            break
    n = len(stack)
    levels = []
    for i, (given, part) in enumerate(zip(stack, parts, strict=True)):
        own = corrections if part is None else corrections.of_frames(part.places[0])
        levels.append(Level(*given, f"level {n - i} of {n}: " if progress else "", own, part))
    return levels


def coarse(
    model: Model, data: np.ndarray, mask: np.ndarray | None = None, factor: int = 2
) -> tuple[Model, np.ndarray, np.ndarray | None]:
    """(model, data, mask) of the scan seen with voxels ``factor`` times as wide.

    Pixels: the middle 1/factor of each axis about ``experiment.centre``. Frames: those whose dq lies in the band of
    the wide voxels, every n-th of them with the largest n that still samples the box in the rocking direction.
    Intensities fall off towards the edge of that band as those of a crystal blurred by about a wide voxel do: wide
    voxels hold no sharp surface, and the data of one would be met by wrong phases.

    Parameters
    ----------
    model : Model
    data : (n_frames, rows, cols)
    mask : bool, as in `Model.fit`, or None
    factor : int, at least 2

    Returns
    -------
    (Model, float32 or float64 (frames, rows, cols), bool mask or None)

    Raises
    ------
    TypeError, ValueError
        Naming the argument; ValueError where fewer than 8 pixels or frames are left.
    """
    if mask is not None:
        mask = checks.good_pixels("mask", mask, (model.n_frames, *model.experiment.detector_shape))
    return _coarse(model, data, mask, checks.integer("factor", factor, at_least=2))[:3]


def like(model, experiment, shape, voxel, **changes):
    """A `Model` of the same numerics and crystal on another grid; changes : of its further arguments."""
    given = {name: getattr(model, name) for name in NUMERICS} | {"dtype": model.dtype.name}
    given["transport"] = _transport(model, experiment, voxel)
    return Model(experiment, model.crystal, shape, voxel, **(given | changes))


def _transport(model, experiment, voxel):
    """That of the model where it applies; whole pixels may do elsewhere."""
    if model.transport == "box" and pixels_per_layer(voxel, experiment.two_theta, experiment.orientation) <= BOX_PIXELS:
        return "box"
    return "fourier" if model.transport == "fourier" else "auto"


def _coarse(model, data, mask, factor):
    """`coarse`, and the `Part` of the scan."""
    experiment = model.experiment
    rows_far = round(experiment.field_of_view / model.voxel[1])
    far = round(experiment.field_of_view * experiment.gamma_h / model.voxel[2])
    # whole fractions of the field of view stay such
    wider = far / max(1, round(far / factor))
    voxel = np.array([wider, wider, wider]) * model.voxel
    voxel[1] = experiment.field_of_view / max(1, round(rows_far / factor))

    pixels = _middle_pixels(experiment, factor)
    cuts = [_middle_frames(model, voxel), *pixels]
    cropped = experiment.crop(*cuts)
    shape = [2 * math.ceil(n * v / (2 * w) - 1e-9) for n, v, w in zip(model.shape, model.voxel, voxel, strict=True)]
    most = [far // factor for far in (rows_far, far)]
    shape = (shape[0], *(min(n, m) for n, m in zip(shape[1:], most, strict=True)))
    # wide voxels may suit a whole-pixel shift where the narrow ones do not
    suits = {} if model.transport == "box" else {"transport": "auto"}
    small = like(model, cropped, shape, tuple(voxel), **suits)

    good = None if mask is None else mask[tuple(cuts[3 - mask.ndim :])]
    cut = data[tuple(cuts)]
    window = _window(cropped, voxel)
    sizes = model.n_frames, *experiment.detector_shape
    part = Part(tuple(np.arange(n)[c] for n, c in zip(sizes, cuts, strict=True)), window)
    return small, (cut if good is None else np.where(good, cut, 0)) * window, good, part


def _middle_pixels(experiment, factor):
    """Slices (rows, cols): 1/factor of the detector about the centre."""
    cuts = []
    for name, n, c in zip(("rows", "cols"), experiment.detector_shape, experiment.centre[1:], strict=True):
        left = n // factor
        if left < FEWEST:
            raise ValueError(f"factor: expected at least {FEWEST} detector {name} to be left, got {left} of {n}")
        first = min(max(round(c) - left // 2, 0), n - left)
        cuts.append(slice(first, first + left))
    return cuts


def _window(experiment, voxel):
    """float32 (frames, rows, cols): square of a Gaussian in Q, EDGE at the band's edge along each model axis."""
    counts = (experiment.n_frames, *experiment.detector_shape)
    axes = [np.arange(n) - c for n, c in zip(counts, experiment.centre, strict=True)]
    basis = experiment.basis()
    moved = basis[:, :1] * axes[0] if is_even(experiment) else -experiment.dq.T
    total = 0.0
    for row, of_frames, v in zip(basis, moved, voxel[::-1], strict=True):
        Q = of_frames[:, None, None] + row[1] * axes[1][:, None] + row[2] * axes[2]
        total = total + (Q * v / np.pi) ** 2
    return (EDGE ** (2 * total)).astype(np.float32)


def _middle_frames(model, voxel):
    """Slice of the frames in the band of the wide ``voxel``, every n-th of them."""
    dq = model.experiment.dq
    inside = np.nonzero((np.abs(dq) <= np.pi / voxel[::-1]).all(axis=1))[0]
    if len(inside) < FEWEST:
        raise ValueError(f"factor: expected at least {FEWEST} frames in the band of the wide voxels, got {len(inside)}")
    step = np.abs(dq[inside[-1]] - dq[inside[0]]) / (len(inside) - 1)
    turns = np.diff(model.experiment.rocking_angles[inside])
    if not ((turns >= 0).all() or (turns <= 0).all()):  # to and fro: all of them
        return slice(int(inside[0]), int(inside[-1]) + 1)
    box = np.array(model.shape)[::-1] * model.voxel[::-1]  # x, y, z

    # the phase may advance by a turn from end to end of the crystal
    stride = max(1, int(2 * np.pi / (CRYSTAL_HEIGHT * step @ box)))
    stride = min(stride, (len(inside) - 1) // (FEWEST - 1))
    centre = round(model.experiment.centre[0])
    first = inside[0] + (centre - inside[0]) % stride
    return slice(int(first), int(inside[-1]) + 1, stride)


def resample(S: np.ndarray, voxel: tuple[float, float, float], model: Model) -> np.ndarray:
    """S on the grid of a model: trilinear, 0 outside its box, in the model's dtype.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    voxel : (dz, dy, dx) m, of S
    model : Model

    Returns
    -------
    (nz, ny, nx) complex, of the model
    """
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
    here *= 1 - part
    after *= part
    here += after
    return np.moveaxis(here, 0, axis)


def sharpen(S: np.ndarray, wide: int = 3, gain: float = 2.0) -> np.ndarray:
    """A blurred crystal function made a better start: a steeper surface, and phases there from further inside.

    Voxels nearer than ``wide`` to the surface take the phase of the nearest one that is not, and its slope: a wide
    voxel that the crystal fills in part scatters like a thin one, and the phase pays for that. |S| about 1/2 is taken
    ``gain`` times as steep, in [0, 1].
    """
    S = checks.array("S", S, (None, None, None), S.dtype, axes="(nz, ny, nx)")
    amplitude = np.abs(S)
    if not amplitude.any():
        raise ValueError("S: expected a non-zero function, got zeros")
    deep = core(body(amplitude, 0.5, above=0.3), wide)
    unit = S / np.maximum(amplitude, np.finfo(amplitude.dtype).tiny)

    nearest = ndimage.distance_transform_edt(~deep, return_distances=False, return_indices=True)
    mirror = [np.clip(2 * n - i, 0, size - 1) for n, i, size in zip(nearest, np.indices(S.shape), S.shape, strict=True)]
    phase, beyond = unit[tuple(nearest)], unit[tuple(mirror)]
    phase = np.where(deep[tuple(mirror)], phase * phase * np.conj(beyond), phase)

    steep = np.clip((amplitude - 0.5) * gain + 0.5, 0, 1)
    return np.where(deep, np.minimum(amplitude, 1), steep).astype(amplitude.dtype) * phase
