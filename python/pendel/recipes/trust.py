"""How far a result can be trusted, and when it cannot be: its misfit beside what photons and voxels explain."""

from dataclasses import dataclass

from .voxels import grid_misfit

# Square residuals over those of photon noise up to which they are taken for noise; chosen: Poisson noise alone gives 1.
ALL_PHOTONS = 1.15
# Misfit over that of photon noise and of the voxels together above which a crystal on voxels of the data's resolution
# is not that of the data. bench/foreign.py, 1e8 photons: a strong one that phasing misses 5.5.
MISSED = 3.0


@dataclass(frozen=True)
class Trust:
    """How far a `Result` can be trusted, misfits as in `Result.misfit`.

    noise : of photon noise.  grid : of the voxels, from voxels half as wide.  excess : mean square residual over that
    of photon noise.  variance : of a pixel that the last fit went by, over that of photons.
    """

    misfit: float
    noise: float
    grid: float
    excess: float
    variance: float

    def __str__(self):
        said = "photon noise explains the misfit"
        if self.excess > ALL_PHOTONS:
            said = f"residuals are {self.excess:.1f} times photon noise (mean square): the model misses something"
        return f"misfit {self.misfit:.2e}, photon noise {self.noise:.2e}, voxels {self.grid:.2e}: {said}"


def misses(model, found, noise):
    """Whether a `Result` on the voxels of ``model`` misses its frames by far more than photons and voxels explain.

    noise : misfit of photon noise.
    """
    beyond = found.misfit / MISSED - noise
    return beyond > 0 and beyond > grid_misfit(model, found.S, found.voxel)
