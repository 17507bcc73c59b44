"""The shape of a thick crystal, found by taking the crystal for a perfect one again and again.

From about an extinction length on the ways from coarse to fine and from HIO to the crystal are closed. Data cut down to
the band of wide voxels are not those of a blurred crystal: the wave in it is no longer that of the blurred one. What
HIO finds is its exit wave, dark where the crystal has sent the light back. And a free search in the wide box makes
holes and stripes in |S| where phases should turn. What such data do determine are the phases inside a known shape, and
shape and phases together once the shape is nearly right, (1). So each search begins with what the one before has found
as a perfect crystal of its shape: no holes, |S| = 1. Nothing keeps the search from leaving |S| = 1 again.

(1) S <- 1[inside] S_b/|S_b|,    inside: |S| blurred is more than half of what it is in brighter parts;  S_b: S blurred
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..base import checks
from ..base.recipe import Recipe, integer, number, option
from ..fit.objective import begun
from ..fit.steps import NO_STEPS
from ..kinematic.support import largest_component, reference_amplitude

LEVEL, BRIGHTER = 0.5, 0.8  # of (1): inside is above this part of that quantile of |S| in the support
SMOOTHING = 2  # voxels: bumps and parts thinner than twice that and one are taken off the shape
SURFACE = 0.5  # blur of the surface, voxels
CRYSTAL_HEIGHT = 0.8  # of the height of its box: a crystal, as a rule


def check_sizes(name, value):
    """Check of a list of one or more numbers > 0."""
    if not isinstance(value, (list, tuple)) or not value:
        raise TypeError(f"{name}: expected a list of one or more numbers, got {checks.describe(value)}")
    return tuple(checks.number(f"{name}[{i}]", v, above=0) for i, v in enumerate(value))


@dataclass(frozen=True)
class SolidRecipe(Recipe):
    """Searches for a thick crystal, see `search_solid`. Where no bench is named the value was not scanned."""

    sizes: tuple = option(
        (0.95, 0.8, 0.65, 1.1, 0.5),
        check_sizes,
        "of the ellipsoids to begin with, in turn: 1 touches the faces of the box.",
        set_by="bench/paper.py C --maker model, one extinction length: 0.95 arrives, 0.8 and the whole box do not",
    )
    amplitude: float = option(0.8, number(above=0, at_most=1), "of the constant start.")
    cycles: int = option(30, integer(at_least=1), "searches from one ellipsoid, at most.")
    wait: int = option(3, integer(at_least=1), "searches in turn without a smaller misfit are the last.")
    smaller: float = option(0.98, number(above=0, at_most=1), "of the smallest misfit so far: what counts as smaller.")
    home: float = option(
        0.05,
        number(above=0),
        "of the first search's misfit: near enough, no other ellipsoid is tried.",
        set_by="bench/paper.py C --maker model, one extinction length: 0.03 falls to 1e-4; what does not arrive stays"
        " above 0.004",
    )
    slow: int = option(5, integer(at_least=0), "slow searches at the end, at most, as long as each pays.")
    pays: float = option(0.5, number(above=0, at_most=1), "of the misfit: a slow search that leaves more is the last.")
    blur: float = option(1.0, number(above=0), "of |S| and of S, voxels, in (1).")
    grow: int = option(2, integer(at_least=0), "voxels around the crystal in which it may grow.")


SOLID = SolidRecipe()


def extinction_length(model):
    """Lambda = lambda sqrt(gamma_0 gamma_h)/|C sqrt(chi_h chi_hbar)|, m, of the stronger polarisation state; inf for 0.

    The period of the intensities in a plate, `Susceptibility.pendelloesung_distance`.
    """
    experiment, crystal = model.experiment, model.crystal
    state = max(model.polarization, key=model.polarization.get)
    C = 1.0 if state == "sigma" else abs(math.cos(experiment.two_theta))
    half = experiment.two_theta / 2
    inclined = math.cos(half) if experiment.orientation == "symmetric" else math.sqrt(math.cos(experiment.two_theta))
    strength = C * math.sqrt(abs(crystal.chi_h * crystal.chi_hbar))
    return experiment.wavelength * inclined / strength if strength else math.inf


def thick(model):
    """Whether a crystal of CRYSTAL_HEIGHT of the model's box is thicker than an extinction length."""
    height = CRYSTAL_HEIGHT * model.shape[0] * model.voxel[0]
    return model.coupling == "dynamical" and height > extinction_length(model)


def solid(S, support=None, blur=1.0):
    """A perfect crystal of the shape of S, equation (1), without holes and in one piece.

    |S| at its surface falls from 1 to 0 over about a voxel. Parts thinner than five voxels beside thicker ones are
    lost: noise in the shape is what they mostly are.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    support : bool (nz, ny, nx), of S; None: S != 0
    blur : > 0, voxels, of S

    Returns
    -------
    (S, inside), inside bool (nz, ny, nx)
    """
    S = checks.array("S", S, (None, None, None), S.dtype, axes="(nz, ny, nx)")
    blur = checks.number("blur", blur, above=0)
    support = S != 0 if support is None else checks.array("support", support, S.shape, bool, axes="(nz, ny, nx)")
    if not S[support].any():
        raise ValueError("S: expected a non-zero function in its support, got zeros")
    return _solid(S, support, blur)


def _solid(S, support, blur):
    amplitude = ndimage.gaussian_filter(np.abs(S), blur)
    full = reference_amplitude(amplitude, BRIGHTER, support=support)
    inside = largest_component(amplitude > LEVEL * full, False)

    n = math.ceil(2 * blur)
    inside = ndimage.binary_closing(np.pad(inside, n), iterations=n)[n:-n, n:-n, n:-n]
    inside = ndimage.binary_fill_holes(inside)
    smoother = ndimage.binary_opening(inside, iterations=SMOOTHING)
    inside = smoother if smoother.any() else inside

    blurred = ndimage.gaussian_filter(S.real, blur) + 1j * ndimage.gaussian_filter(S.imag, blur)
    unit = blurred / np.maximum(np.abs(blurred), np.finfo(amplitude.dtype).tiny)
    return (ndimage.gaussian_filter(inside.astype(amplitude.dtype), SURFACE) * unit).astype(S.dtype), inside


class _Found(NamedTuple):
    """Of a search.  gain : the misfit over that of the first one of its ellipsoid."""

    S: np.ndarray
    support: np.ndarray
    misfit: float
    gain: float = 1.0


def search_solid(model, search, support=None, starts=1, recipe=SOLID, steps=NO_STEPS):
    """(S, support) near the crystal, from flat phases in ``support``, or in ellipsoids.

    Parameters
    ----------
    model : Model
    search : called as search(start, cycle, S, support), gives the `Result` of a search from there
        ``start`` is None for a slower one, the last ones. Of the very first one the shape alone is taken.
    support : bool (nz, ny, nx), or None: ellipsoids of ``recipe.sizes``
    starts : ellipsoids, of which the one of the smallest misfit is taken
        None is tried after one whose misfit has fallen to ``recipe.home`` of what the first search had left; few
        photons leave more than that, then all are tried.
    recipe : SolidRecipe
    steps : `Steps`, of which all searches from an ellipsoid are one, and each slow one
    """

    def once(name, compute):
        return _Found(**steps.once(name, lambda _: compute()._asdict()))

    def cycles(start, inside):
        found, gain = _cycles(model, lambda *arguments: search(start, *arguments), inside, recipe)
        return _Found(found.S, found.support, found.misfit, gain)

    def slowly(again, found):
        found = search(None, again, *_begin(found, recipe))
        return _Found(found.S, found.support, found.misfit)

    best = None
    for start, inside in enumerate(_supports(model.shape, support, recipe.sizes[:starts])):
        found = once(f"ellipsoid {start + 1}", functools.partial(cycles, start, inside))
        if best is None or found.misfit < best.misfit:
            best = found
        if found.gain < recipe.home:
            break

    found = best
    for again in range(recipe.slow):
        found = once(f"slow {again + 1}", functools.partial(slowly, again, found))
        enough = found.misfit > recipe.pays * best.misfit
        best = min(best, found, key=lambda result: result.misfit)
        if enough:
            break
    return best.S, best.support


def _supports(shape, support, sizes):
    if support is not None:
        return [support]
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    return [np.sum(places**2, axis=0) <= size**2 for size in sizes]


def _begin(found, recipe):
    """(S, support) of the next search."""
    S, inside = _solid(found.S, found.support, recipe.blur)
    return S, ndimage.binary_dilation(inside, iterations=recipe.grow)


def _cycles(model, search, support, recipe):
    """(`Result` of the smallest misfit, that over the first one's)."""
    S = begun(np.where(support, recipe.amplitude, 0).astype(model.dtype), support, 1.0)
    first = best = search(0, S, support)
    found, waited = dataclasses.replace(first, S=np.abs(first.S).astype(model.dtype)), 0
    for cycle in range(1, recipe.cycles):
        found = search(cycle, *_begin(found, recipe))
        best, waited = (found, 0) if found.misfit < recipe.smaller * best.misfit else (best, waited + 1)
        if waited == recipe.wait:
            break
    return best, best.misfit / first.misfit
