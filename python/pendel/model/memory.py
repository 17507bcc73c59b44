"""What a pass over frames takes: bytes of the arrays that `pendel.model.passes` and `pendel.model.swept` have at once.

Counted as these make them, largest moment of each; the arrays that a pass is given are not among them. What few numbers
a frame or a row has besides is left out.
"""

import dataclasses
import math
from typing import NamedTuple

from ..experiment.coherence import Coherence
from ..operator.far_field import CHUNK
from .swept import AsItIs


class Compared(NamedTuple):
    """What frames are compared with, bytes per pixel.

    kept : of a `Fit`, beside the data.  loaded : copied from it for the frames at work.  held : whether all frames are
    looked at again for the scale, as with a background.
    """

    kept: int
    loaded: int
    held: bool = False

    @classmethod
    def of(cls, real, recipe, mask_axes=0, trusted=False):
        """For a `DataRecipe`.

        Parameters
        ----------
        real : bytes of a number.
        mask_axes : dimensions of the mask; 0: none.
        trusted : whether pixels are left out that are missed.
        """
        free, weights = bool(recipe.free_fraction), bool(recipe.model_error)
        background = recipe.background if hasattr(recipe.background, "ndim") else None
        wide = real * (background is not None and background.ndim == 3)
        per_frame = free or trusted or mask_axes == 3
        kept = real + 2 * free + trusted * (1 + free) + real * weights + wide
        held = background is not None or recipe.background > 0
        return cls(kept, real + per_frame + free * (real + 1) + real * weights + wide, held)


class PassMemory:
    """Of the passes of a model.

    Parameters
    ----------
    model : Model
    compared : Compared
    given_density : whether passes are given s_0
    coherence : whether that of the beam is refined
    """

    def __init__(self, model, compared, given_density=False, coherence=False):
        passes, op = model.passes, model.operators[0][1]
        self.passes, self.op, self.compared = passes, op, compared
        self.frames, self.pixels = model.n_frames, math.prod(model.experiment.detector_shape)
        self.voxels, self.complex, self.real = math.prod(model.shape), model.dtype.itemsize, model.real_dtype.itemsize
        self.as_it_is = isinstance(passes.swept, AsItIs)
        refracts = not self.as_it_is and passes.swept.refracts
        self.given_density = given_density
        self.has_density = given_density or refracts  # as the sweep is given it

        self.beam, far = passes.beam, passes.far_field
        if coherence:
            self.beam = self.beam.but(coherence=Coherence(modes=max(2, self.beam.modes)))
        states = len(self.beam.operators)
        layers = op.state_shapes(1).layers
        exit_field = states * math.prod(op.exit_shape)
        row = states * (op.shape[1] * op.row_length + (math.prod(layers) if layers else 0))
        plane = max(far.far_shape) * far.detector_shape[1]  # what the last FFT gives, of which rows are kept
        self.exit_field, self.state = exit_field * self.complex, (exit_field + row) * self.complex
        light = self.real * (2 if self.beam.blur or coherence else 1)
        self.measured = states * max(plane, self.pixels) * self.complex + (light + compared.loaded) * self.pixels
        threads = min(passes.threads, -(-self.frames // CHUNK))
        self.chunk = threads * far.chunk_bytes

    @property
    def fit(self):
        """Of a `Fit`, all frames."""
        return self.compared.kept * self.frames * self.pixels

    @property
    def taken(self):
        """What a sweep is given for the crystal: density, where there is some, the crystal, where it is wanted."""
        if self.as_it_is:
            return 0
        own_density = self.real * (self.has_density and not self.given_density)
        return (own_density + 1 + self.complex + 1) * self.voxels

    def without_gradient(self, frames):
        """Of a pass that tells loss and scale."""
        largest, several = self._blocks(frames)
        if several:
            kept = (2 * self.real + self.compared.loaded) * self.pixels * frames if self.compared.held else 0
            return self.taken + self.exit_field * largest + kept + self.chunk
        return self.taken + (self.exit_field + self.measured) * frames + self.chunk

    def intensities(self, frames):
        """Of computed frames, these with them."""
        largest, _ = self._blocks(frames)
        return self.taken + self.exit_field * largest + self.real * self.pixels * frames + self.chunk

    def gradient(self, frames):
        """Of a pass with its gradient, that with it."""
        largest, several = self._blocks(frames)
        voxel, fields = self._gradient_voxel(), (self.state + self.exit_field) * largest
        sweep = fields + self._adjoint_sweep(largest)
        sums = voxel if several or len(self.beam.operators) > 1 else 0  # to which those of another block are added
        far_field = self.chunk + (sums if several else largest * self.measured) + fields
        found = self.taken + max(far_field, sweep + 2 * sums, self.through_taken())
        return max(found, self.without_gradient(frames)) if several else found

    def through_taken(self):
        """From what a sweep was given back to the crystal, where some wanted voxels are empty."""
        voxel = self._gradient_voxel()
        return voxel if self.as_it_is else voxel + (1 + 2 * self.complex) * self.voxels

    def _gradient_voxel(self):
        return (self.complex + self.real * self.has_density) * self.voxels

    def _adjoint_sweep(self, frames):
        op = self.op
        row = op.shape[1] * (2 * op.row_length * self.complex + frames * 3 * 8)
        plan = dataclasses.replace(op.plan, frames=frames)
        return self._gradient_voxel() + row + op.engine.workspace(plan, adjoint=True)

    def _blocks(self, frames):
        """(frames of the largest block, whether there are several)."""
        blocks = self.passes.blocks(frames, self.beam)
        return max(block.stop - block.start for block in blocks), len(blocks) > 1
