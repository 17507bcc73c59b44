"""How much memory a method takes, told before it runs.

The largest moment of each stage of `multiscale` and `solve`, from those of the fits (`pendel.fit.memory`) and of what
comes between them, bytes beside data, mask and start. What is not known before a run is taken for usual: a support that
fills 0.27 of the box, and the voxels that `solve` will choose for the light in the data.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..base import checks, plausible
from ..base.arrays import host
from ..base.recipe import from_keywords
from ..fit import memory as fits
from ..fit.memory import CROSS, DOUBLE, Crystals, Given, Voxels
from ..fit.minibatch import MinibatchRecipe
from ..fit.objective import check_frames
from ..fit.polishing import PolishRecipe
from ..fit.quasi_newton import LbfgsRecipe
from ..kinematic.grid import sample_volume
from ..model.model import Model
from ..model.pixels import local_mean, of_frames
from ..operator.engine import Array
from ..operator.memory import estimate_memory as of_operator
from ..operator.takagi_taupin import TakagiTaupin
from .levels import like
from .multiscale_recipe import MultiscaleRecipe
from .placing import ITERATIONS
from .polisher import COUNTED, EVIDENCE, NO_NOISE, data_recipe
from .solve import BRIGHT, SolveRecipe, in_counts
from .starts import NAMES, STARTS
from .thick_crystals import thick
from .voxels import FRAMES, finer_model, grid_misfit_memory, noise_misfit, usually_fine_enough

# Bytes of `kinematic.phase` per pixel where it begins: data, good pixels, amplitudes, support, random phases, and on
# their way to the object five complex arrays; and of the object with its support.
PHASING, PHASED = 4 + 1 + 4 + 1 + 1 + 4 + 28, 9
# Of `differences` per pixel: data, windowed, their transform before and after it is shifted, and its modulus.
DIFFERENCES = 4 + 4 + 8 + 8 + 4
# And of what tells how far a result misses its frames, where all are lit: expected counts, these once more, both roots
# and the noise; good pixels and lit ones.
JUDGED = 5 * DOUBLE + 2
# Voxels by which a search's support is wider than the crystal: it is dilated by one, after shrink-wrap, whose threshold
# of 0.15 a face that is blurred by one voxel crosses 1.04 voxels outside. Phases have the latter behind them, and the
# ellipsoid that stands for what is not known has room for both.
DILATED, SHRUNK = 1, 1.04 / CROSS
# Arguments of the methods that are no fields of a recipe.
OF_A_RUN = ("phased", "voxel", "checkpoint", "resume", "progress", "callback", "angle_offsets", "flux")


class _Call(NamedTuple):
    """What a method is called with.

    voxels : `Voxels` of the support.  grows : by how many voxels a search widens it.  kind : of STARTS, for
    `multiscale`.  phased : whether there are phases already.
    """

    model: Model
    given: Given
    voxels: Voxels
    grows: float
    kind: str
    phased: bool


def estimate_memory(
    of: TakagiTaupin | Model,
    n_frames: int | None = None,
    *,
    method: str = "reconstruct",
    data: Array | None = None,
    mask: Array | None = None,
    start: Any = None,
    support: Array | None = None,
    recipe: Any = None,
    **keywords: Any,
) -> int:
    """Bytes that a gradient or a whole reconstruction needs at its largest moment, beside what it is given.

    Counted from the arrays that are made; what Python and the libraries take, some 100 MiB, is not in it. Of an
    operator on a device they are the device's, of a model there those of host and device together: the vectors of
    L-BFGS are the host's. What a run finds out itself is taken for usual: how large the crystal is where there is no
    support, the voxels of `solve`, and that photon noise explains the frames.

    Parameters
    ----------
    of : TakagiTaupin, or Model
        Of the operator: a gradient with exit fields and state. Of the model: a ``method``.
    n_frames : int
        Rocking angles at a time, of the operator alone.
    method : "reconstruct", "lbfgs", "polish", "multiscale" or "solve"
        The last on the box of ``of``, which is on voxels of the data's resolution.
    data, mask, start, support, recipe : as the method takes them
        All are optional. What they tell makes the estimate a better one: dtype and light of the data, voxels in the
        support.
    **keywords : further arguments of the method, and fields of its recipe

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """
    if isinstance(of, TakagiTaupin):
        return of_operator(of, checks.integer("n_frames", n_frames, at_least=1))
    if not isinstance(of, Model):
        raise TypeError(f"of: expected a TakagiTaupin or a Model, got {checks.describe(of)}")
    if n_frames is not None:
        raise TypeError(f"n_frames: expected None with a Model, which has its frames, got {checks.describe(n_frames)}")
    checks.choice("method", method, tuple(METHODS))
    known = {name: keywords.pop(name, None) for name in OF_A_RUN}
    call = _call(of, data, mask, start, support, known)
    if method == "solve":
        data, mask = (None, None) if data is None else check_frames(of.experiment, data, mask)
        noise = _expected_noise(data, mask, keywords.pop("counts", "auto"))
        return _solve(call, noise, known["voxel"], recipe, keywords)
    return METHODS[method](call, recipe, keywords)


def _call(model, data, mask, start, support, known):
    """The `_Call` of the arguments; known : {name: value} of `OF_A_RUN`."""
    phased = known["phased"]
    kind = checks.choice("start", start, NAMES) if isinstance(start, str) else "given"
    if start is None:
        kind = "solid" if phased is None and thick(model) else "kinematic"
    S = getattr(start, "S", start) if kind == "given" else None
    if support is None:
        support = getattr(start, "support", None)  # of a `Result`
    if support is None and S is not None:
        support = host(S, "start") != 0
    voxels, grows = _voxels(model, S, support, phased)
    axes = 0 if mask is None else np.ndim(mask)
    dtype = np.dtype("float32") if data is None else np.dtype(getattr(data, "dtype", "float64"))
    given = Given(dtype, axes, known["checkpoint"] is not None)
    return _Call(model, given, voxels, grows, kind, phased is not None)


def _expected_noise(data, mask, counts):
    """Misfit of photon noise as some frames, NumPy arrays, let expect it; None: of frames without noise."""
    if data is not None:
        some = slice(None, None, -(-len(data) // FRAMES))
        good = of_frames(mask, some)
        data = np.where(True if good is None else good, data[some], 0)
    if data is None or not data.sum() > 0:
        return noise_misfit(np.full((1, 1, 1), BRIGHT))
    return noise_misfit(local_mean(in_counts(None, data, good, counts)[0], good), good)


def _voxels(model, S, support, phased):
    """(`Voxels` of the support, by how many a search widens it)."""
    if support is not None:
        return Voxels.of(model, support, S), DILATED + SHRUNK
    if phased is None:
        return Voxels.of(model), 0
    share = sample_volume(phased, model.experiment) / math.prod(model.voxel)
    return Voxels.ball(min(phased.support.sum() * share, math.prod(model.shape))), DILATED


def _reconstruct(call, recipe, keywords):
    recipe = from_keywords(MinibatchRecipe, recipe, keywords, "reconstruct")
    return fits.minibatch(call.model, recipe, call.given)


def _lbfgs(call, recipe, keywords):
    recipe = from_keywords(LbfgsRecipe, recipe, keywords, "lbfgs")
    return fits.quasi_newton(call.model, recipe, call.given, call.voxels.inside)


def _polish(call, recipe, keywords):
    recipe = from_keywords(PolishRecipe, recipe, keywords, "polish")
    return fits.polishing(call.model, recipe, call.given, call.voxels.widened(recipe.widen))


def _multiscale(call, recipe, keywords):
    own = {name: value for name, value in keywords.items() if name in MultiscaleRecipe.names()}
    polishing = {name: value for name, value in keywords.items() if name not in own}
    recipe = from_keywords(MultiscaleRecipe, recipe, own, "multiscale")
    base = (COUNTED if recipe.counts else NO_NOISE).but(**polishing)
    return _levels(call, recipe, base, polishing)


def _levels(call, recipe, base, polishing):
    """Of `multiscale`; base : PolishRecipe.  polishing : its fields that were asked for."""
    voxels = call.voxels.found().widened(call.grows)
    levels, held = _coarser(call, recipe)
    stages = [_polished(call, base.but(widen=1), voxels, 0)]
    if not levels:
        stages += _searched(call, recipe, polishing)
    counts, places = recipe.counts, not recipe.counts if recipe.places is None else recipe.places
    again = counts or recipe.rounds > 1
    if again and places:
        # S and support to begin with, and polished; as it is, steep, once more, best and moved
        trial = base.without_refinement().but(iterations=(0, ITERATIONS), trim=None)
        moved = voxels.widened(base.widen).inside + math.pi * (3 * voxels.inside / (4 * math.pi)) ** (2 / 3)
        stages.append(_polished(call, trial, voxels._replace(inside=int(moved)), 6))
    if again:
        evidence = {name: value for name, value in EVIDENCE.items() if counts and name not in polishing}
        stages.append(_polished(call, base.but(**evidence), voxels.widened(base.widen), 2))
    return held + max(stages)


def _polished(call, recipe, voxels, others):
    """Of a polish beside so many ``others``, S and support."""
    of = Crystals.of(call.model)
    return others * (of.complex + of.flag) + fits.polishing(call.model, recipe, call.given, voxels)


def _coarser(call, recipe):
    """(how many coarser levels there are, bytes of their data and windows)."""
    kind, smallest = STARTS[call.kind], recipe.smallest
    if kind.searches_twice:
        smallest = recipe.smallest_blind
    most = 0 if kind.alone and recipe.levels is None else recipe.levels
    pixels, levels, held = np.array((call.model.n_frames, *call.model.experiment.detector_shape)), 0, 0
    while (most is None and pixels[1:].min() >= 2 * smallest) or (most is not None and levels < most):
        pixels, levels = pixels // 2, levels + 1
        held += (8 + call.given.mask_axes // 3) * math.prod(map(int, pixels))
    return levels, held


def _searched(call, recipe, polishing):
    """Of phasing, trials and searches on the finest level, a list."""
    model, of = call.model, Crystals.of(call.model)
    pixels = model.n_frames * math.prod(model.experiment.detector_shape)
    adam = data_recipe(recipe.counts, polishing).given_to(
        MinibatchRecipe, batches=max(1, model.n_frames // recipe.frames_per_step)
    )
    found, phases = [], call.kind == "kinematic"
    if phases and not call.phased:
        found.append(PHASING * pixels)
    if call.kind == "smooth":
        found.append(DIFFERENCES * pixels)
    # each twin with its phases, and flat ones
    candidates = phases * (PHASED * pixels * (not call.phased) + 4 * of.complex + 2 * of.flag)
    return [*found, candidates + fits.minibatch(model, adam, call.given)]


def _solve(call, noise, voxel, recipe, keywords):
    own = {name: value for name, value in keywords.items() if name in SolveRecipe.names()}
    polishing = {name: value for name, value in keywords.items() if name not in own}
    recipe = from_keywords(SolveRecipe, recipe, own, "solve")
    model = call.model
    fine = _fine_model(model, voxel, noise)
    coarse = like(model, model.experiment, model.shape, model.voxel, ewald="flat", sampling="point")
    first = {k: v for k, v in polishing.items() if k not in (*EVIDENCE, "rounds")}
    first |= dict.fromkeys(EVIDENCE, 0.0)
    levels = recipe.given_to(MultiscaleRecipe, counts=True)
    found = _levels(call._replace(model=coarse, phased=True), levels, COUNTED.but(**first), first)
    pixels = model.n_frames * math.prod(model.experiment.detector_shape)
    phases = call.kind == "kinematic"
    phasing = PHASING * pixels * (phases and not call.phased)
    held = Crystals.of(model).complex + Crystals.of(model).flag
    return max(phasing, phases * PHASED * pixels + max(found, held + of_fine_voxels(call, fine, recipe, polishing)))


def of_fine_voxels(call, fine, recipe, polishing):
    """Of the last stage of `solve`, on the voxels of a model ``fine``."""
    last = COUNTED.but(rounds=recipe.fine_rounds, iterations=(0, recipe.fine_iterations), **EVIDENCE, widen=0)
    last = last.but(**{k: v for k, v in polishing.items() if k not in ("rounds", "iterations")})
    wide = call.model
    voxels = call.voxels.times(math.prod(wide.voxel) / math.prod(fine.voxel)).found()
    rim = 1 + max(1, round(wide.voxel[1] / fine.voxel[1]))  # one more, for wide voxels blur the crystal
    polished = _polished(call._replace(model=fine), last, voxels.widened(rim), 2)
    pixels = fine.n_frames * math.prod(fine.experiment.detector_shape)
    return max(polished, grid_misfit_memory(fine, voxels.inside), JUDGED * pixels)


def _fine_model(model, voxel, noise):
    """The `Model` on the voxels of the result, as far as can be told."""
    if voxel is None or isinstance(voxel, str):
        checks.choice("voxel", voxel or "auto", ("auto",))
        return finer_model(model, usually_fine_enough(noise))
    wanted = plausible.lengths(plausible.VOXEL, "voxel", voxel, 3)
    extent = zip(model.shape, model.voxel, wanted, strict=True)
    shape = tuple(2 * math.ceil(n * wide / (2 * step) - 1e-6) for n, wide, step in extent)
    return like(model, model.experiment, shape, wanted, sampling="mean")


METHODS: dict[str, Callable[..., int]] = {
    "reconstruct": _reconstruct,
    "lbfgs": _lbfgs,
    "polish": _polish,
    "multiscale": _multiscale,
    "solve": _solve,
}
