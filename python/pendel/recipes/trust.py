"""How far a result can be trusted, and when it cannot be: its misfit beside what photons and voxels explain."""

from dataclasses import dataclass

# Square residuals over those of photon noise up to which they are taken for noise; chosen: Poisson noise alone gives 1.
ALL_PHOTONS = 1.15
# A crystal on voxels of the data's resolution that misses its frames by more than so many times photon noise, and so
# much beside, is another one. bench/foreign.py, 1e8 photons (noise 6e-4): found ones leave 1.3e-3 to 2.5e-3, a domain
# wall among them, and true ones on such voxels 3.5e-3 to 1.3e-2 before they are fitted; strong (2) as phasing ends,
# 1.6 rad from the truth, 4.7e-2.
NOISES, BESIDE = 2.0, 1e-2


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


def misses(found, noise):
    """Whether a `Result` on voxels of the data's resolution is another crystal than that of its frames.

    noise : misfit of photon noise.
    """
    return found.misfit > NOISES * noise + BESIDE
