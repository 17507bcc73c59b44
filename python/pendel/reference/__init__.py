"""The same equations once more, slow and in NumPy, and what is known in closed form: what the engines are tested by."""

from .strang import (
    adjoint,
    blanes_moan,
    coefficients,
    constant_strain_gradient,
    darwin_half_space,
    energy,
    exit_ramp,
    expm,
    forward,
    laue_slab,
    point_source,
    potential,
    voxel_matrix,
)

__all__ = [
    "adjoint",
    "blanes_moan",
    "coefficients",
    "constant_strain_gradient",
    "darwin_half_space",
    "energy",
    "exit_ramp",
    "expm",
    "forward",
    "laue_slab",
    "point_source",
    "potential",
    "voxel_matrix",
]
