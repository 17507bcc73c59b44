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
import math

import numpy as np
from scipy import ndimage

from ..base import checks
from ..fit.objective import initial
from ..kinematic.support import largest_component

CYCLES, WAIT = 30, 3  # searches at most; that many without a smaller misfit are the last
SIZES = (0.95, 0.8, 0.65, 1.1, 0.5)  # of the ellipsoids to begin with: 1 touches the faces of the box
HOME = 0.05  # of the first search's misfit: near enough, no other ellipsoid is tried
SLOW = 5  # slow searches at the end, at most
FLAT = 0.8  # amplitude of the start
BLUR = 1.0  # voxels
GROW = 2  # voxels around the crystal in which it may grow
SURFACE = 0.5  # blur of the surface, voxels


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
    """Whether a crystal that fills 0.8 of the height of the model's box is thicker than an extinction length."""
    height = 0.8 * model.shape[0] * model.voxel[0]
    return model.coupling == "dynamical" and height > extinction_length(model)


def solid(S, support=None, blur=BLUR):
    """(S, inside): a perfect crystal of the shape of S, equation (1), without holes and in one piece.

    S : complex (nz, ny, nx).  support : bool (nz, ny, nx), of S; None: S != 0.  blur : > 0, voxels, of S.
    inside : bool (nz, ny, nx). |S| at its surface falls from 1 to 0 over about a voxel. Parts thinner than five voxels
    beside thicker ones are lost: noise in the shape is what they mostly are.
    """
    S = checks.array("S", S, (None, None, None), S.dtype, axes="(nz, ny, nx)")
    blur = checks.number("blur", blur, above=0)
    support = S != 0 if support is None else checks.array("support", support, S.shape, bool, axes="(nz, ny, nx)")
    if not S[support].any():
        raise ValueError("S: expected a non-zero function in its support, got zeros")
    amplitude = ndimage.gaussian_filter(np.abs(S), blur)
    inside = largest_component(amplitude > 0.5 * np.quantile(amplitude[support], 0.8), False)
    n = math.ceil(2 * blur)
    inside = ndimage.binary_closing(np.pad(inside, n), iterations=n)[n:-n, n:-n, n:-n]
    inside = ndimage.binary_fill_holes(inside)
    smoother = ndimage.binary_opening(inside, iterations=2)
    inside = smoother if smoother.any() else inside
    blurred = ndimage.gaussian_filter(S.real, blur) + 1j * ndimage.gaussian_filter(S.imag, blur)
    unit = blurred / np.maximum(np.abs(blurred), np.finfo(amplitude.dtype).tiny)
    return (ndimage.gaussian_filter(inside.astype(amplitude.dtype), SURFACE) * unit).astype(S.dtype), inside


def search_solid(model, search, support=None, starts=1):
    """(S, support) near the crystal, from flat phases in ``support``, or in ellipsoids of SIZES.

    search : called as search(start, cycle, S, support), a `Result` of a search from there; start None: of a slower
        one, the last ones, SLOW at most, as long as each halves the misfit. Of the very first one the shape alone is
        taken. A start ends after CYCLES, or when WAIT in turn have brought no smaller misfit.
    starts : ellipsoids, of which the one of the smallest misfit is taken. None is tried after one whose misfit has
        fallen to HOME of what the first search had left; few photons leave more than that, then all are tried.
    """
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in model.shape), indexing="ij"))
    supports = [np.sum(places**2, axis=0) <= size**2 for size in SIZES[:starts]] if support is None else [support]
    best = None
    for start, support in enumerate(supports):
        found, gain = _cycles(model, lambda *arguments, start=start: search(start, *arguments), support)
        if best is None or found.misfit < best.misfit:
            best = found
        if gain < HOME:
            break
    found = best
    for again in range(SLOW):
        found = search(None, again, *_begin(found))
        enough = found.misfit > 0.5 * best.misfit
        best = min(best, found, key=lambda result: result.misfit)
        if enough:
            break
    return best.S, best.support


def _begin(found):
    """(S, support) of the next search."""
    S, inside = solid(found.S, found.support)
    return S, ndimage.binary_dilation(inside, iterations=GROW)


def _cycles(model, search, support):
    """(`Result` of the smallest misfit, that over the first one's)."""
    S, support = initial(model, np.where(support, FLAT, 0), support, 1.0)
    first = best = search(0, S, support)
    found, waited = dataclasses.replace(first, S=np.abs(first.S).astype(model.dtype)), 0
    for cycle in range(1, CYCLES):
        found = search(cycle, *_begin(found))
        best, waited = (found, 0) if found.misfit < 0.98 * best.misfit else (best, waited + 1)
        if waited == WAIT:
            break
    return best, best.misfit / first.misfit
