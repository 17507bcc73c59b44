"""The same equations once more, slow and in NumPy, and what is known in closed form: what the engines are tested by."""

from ..base.later import later as _later
from .closed_forms import constant_strain_gradient, darwin_half_space, laue_slab, point_source
from .equations import coefficients, expm, potential, voxel_matrix
from .strang import adjoint, blanes_moan, energy, exit_ramp, forward

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

# Modules are attributes before anybody has imported them: programs say `pendel.reference.wide_angle`.
__getattr__, __dir__ = _later(__name__)
