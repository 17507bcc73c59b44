"""The numbers that steer `solve`, beside those of `multiscale`."""

from dataclasses import dataclass

from ..base.recipe import flag, integer, option
from .multiscale_recipe import MultiscaleRecipe


@dataclass(frozen=True)
class SolveRecipe(MultiscaleRecipe):
    """`solve`."""

    rounds: int = option(
        1, integer(at_least=1), "of `polish` on every level of voxels as wide as the data's resolution."
    )
    fine_rounds: int = option(2, integer(at_least=1), "of `polish` on the voxels that the light asks for.")
    fine_iterations: int = option(
        60, integer(at_least=1), "of each of them.", set_by="bench/foreign.py, smooth, dislocation, void, porous"
    )
    strong: bool = option(
        True,
        flag,
        'whether, where the way that begins with phases misses the frames, that of start="smooth" is tried beside it:'
        " for strongly strained crystals, and minutes longer.",
        set_by="bench/foreign.py, strong (1), (2), 1e8 photons: 0.005 and 0.030 rad, without it 0.06 and 1.6",
    )
