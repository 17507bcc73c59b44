"""The first step of `solve`, on voxels of the data's resolution: the ordinary way, and others where that fails.

The ordinary way begins with phases, or with the shape of a thick crystal. Where it leaves more than photons and voxels
explain, frames that were taken as they are may be blurred by the detector: phases of the same sharpened are tried. A
strongly strained crystal is not found either way, and the misfit says it (`pendel.recipes.trust.misses`). Then, unless
told not to, phases are sought as smooth functions in a shape (`pendel.recipes.smooth_phases`). Whichever crystal misses
the frames less is gone on with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..fit.steps import Steps
from ..kinematic.differences import differences
from .coarse_to_fine import multiscale
from .levels import like, unit_flux
from .multiscale_recipe import MultiscaleRecipe
from .polisher import EVIDENCE
from .trust import misses
from .voxels import noise_misfit

BOX = 1.3  # a crystal's box over the crystal, where its size is known
# Times the misfit of the ordinary way that the other one has to leave to be taken; chosen.
BETTER = 0.7
# Misfit beside photon noise above which frames may be blurred. bench/foreign.py, smooth, 1e8 and 1e9 photons: found
# crystals leave 0.3e-3 to 0.9e-3, with a background, jitter of the flux or partial coherence up to 1.5e-3; where a
# point spread of 0.7 pixels was not seen in the phases, smooth (1003), 2.8e-3.
BLURRED = 2e-3


@dataclass(frozen=True)
class FirstStep:
    """The first step: `multiscale` on voxels of the data's resolution."""

    data: np.ndarray
    mask: np.ndarray | None
    recipe: MultiscaleRecipe
    polishing: dict
    angle_offsets: np.ndarray | None
    flux: np.ndarray | None
    progress: bool | str
    callback: Callable | None
    steps: Steps

    def find(self, model, start, support, phased, plain, blurred=None):
        """(`Model`, `Result` on its voxels, the misfit of photon noise): by the ordinary way, or by one of the others.

        Those where no other start was asked for and the ordinary one misses the frames. "smooth" in its own box, by a
        ``plain`` model, for phases that are wrong tell neither how large a crystal is nor how blurred its frames are.

        plain : Model, or None: not "smooth"
        blurred : function without arguments, of a model with a point spread and the phases to begin with, or None: not
            so
        """
        way = model, *self._run(model, start, support, "levels", phased)
        if not (start is None or (isinstance(start, str) and start == "kinematic")):
            return way
        _, found, noise = way
        if blurred is not None and support is None and found.misfit > noise + BLURRED:
            other, phases = blurred()
            way = _better(way, (other, *self._run(other, start, None, "blurred", phases)))
        _, found, noise = way
        if plain is not None and misses(found, noise):
            light = unit_flux(self.data, known_background(self.polishing), self.flux)
            other = like(plain, plain.experiment, box_without_phases(plain, light, self.mask), plain.voxel)
            way = _better(way, (other, *self._run(other, "smooth", None, "smooth")))
        return way

    def _run(self, model, start, support, name, phased=None):
        """(`Result`, the misfit of photon noise) of the stage ``name``."""
        cheap, recipe = cheapest(model), self.recipe.given_to(MultiscaleRecipe, counts=True)
        found = multiscale(
            cheap,
            self.data,
            self.mask,
            start,
            support,
            recipe=recipe if name == "levels" else recipe.but(levels=None),
            phased=phased,
            checkpoint=self.steps.part(name),
            angle_offsets=self.angle_offsets,
            flux=self.flux,
            progress=self.progress,
            callback=self.callback,
            **dict.fromkeys(EVIDENCE, 0.0),
            **{k: v for k, v in self.polishing.items() if k not in (*EVIDENCE, "rounds")},
        )
        expected = found.scale * cheap.intensities_on_host(found.S, flux=found.flux)
        return found, noise_misfit(expected, self.mask)


def _better(way, other):
    """Of two (`Model`, `Result`, noise) the first, unless the other misses the frames by much less."""
    return other if other[1].misfit < BETTER * way[1].misfit else way


def cheapest(model):
    """To begin with, the cheapest model, which voxels as wide as this do not show."""
    return like(model, model.experiment, model.shape, model.voxel, ewald="flat", sampling="point")


def box_without_phases(model, light, mask):
    """Shape (nz, ny, nx) of a box about the crystal on voxels as those of ``model``, by its autocorrelation.

    light : (n_frames, rows, cols), of the crystal alone, at flux 1.  mask : bool, as in `Model.fit`, or None
    """
    return box_about(differences(model.experiment, light, mask).extent(), model.voxel)


def box_about(extent, voxel):
    """Even shape (nz, ny, nx) of a box about a crystal whose extent (z, y, x), m, is known."""
    return tuple(2 * int(np.ceil(BOX * size / (2 * step))) for size, step in zip(extent, voxel, strict=True))


def known_background(keywords):
    """The array that is given as a background, or None."""
    background = keywords.get("background")
    return background if isinstance(background, np.ndarray) else None
