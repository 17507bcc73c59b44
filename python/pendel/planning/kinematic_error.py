"""The phase and the strain that kinematic phasing adds to a crystal's own.

(1) arg O - arg S = refraction + extinction,   refraction = k Re chi_0 (L_0 + L_h)/2

O of `pendel.planning.kinematic_image`, the path L_0 + L_h of `pendel.kinematic.refraction`. Extinction is what is left:
the wave that comes to a voxel has lost light to E_h, and E_h gives some back on its way out. Kinematic phasing knows
neither a constant phase nor where exactly the Bragg peak is, so a plane is taken off both, and the mean off strains.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ..base import checks
from ..base.symmetry import strain
from ..experiment.crystal import Crystal
from ..kinematic.refraction import optical_path
from .kinematic_image import kinematic_image


class KinematicError(NamedTuple):
    """Maps (nz, ny, nx) of what kinematic phasing adds, 0 outside the crystal.

    Attributes
    ----------
    refraction, extinction : float64
        Phases [rad], each less a plane.
    refraction_strain, extinction_strain : float64
        Along h, each less its mean; 0 where there is no neighbour inside.
    amplitude : float64
        |O|/|S|: absorption and extinction.
    inside : bool
        Where |S| exceeds half of its maximum.
    core : bool
        Where strains are known.
    """

    refraction: np.ndarray
    extinction: np.ndarray
    refraction_strain: np.ndarray
    extinction_strain: np.ndarray
    amplitude: np.ndarray
    inside: np.ndarray
    core: np.ndarray

    @property
    def phase_rms(self) -> tuple[float, float, float]:
        """(refraction, extinction, both), rad."""
        parts = self.refraction[self.inside], self.extinction[self.inside]
        return rms(parts[0]), rms(parts[1]), rms(parts[0] + parts[1])

    @property
    def strain_rms(self) -> tuple[float, float, float]:
        """(refraction, extinction, both)."""
        parts = self.refraction_strain[self.core], self.extinction_strain[self.core]
        return rms(parts[0]), rms(parts[1]), rms(parts[0] + parts[1])


def kinematic_error(
    S: ArrayLike,
    voxel: tuple[float, float, float],
    wavelength: float,
    two_theta: float,
    crystal: Crystal,
    *,
    s_0: ArrayLike | None = None,
    polarization_factor: float = 1.0,
    threads: int | None = None,
) -> KinematicError:
    """Equation (1) of a crystal; all parameters and errors as of `kinematic_image`."""
    image = kinematic_image(
        S, voxel, wavelength, two_theta, crystal, s_0=s_0, polarization_factor=polarization_factor, threads=threads
    ).astype(np.complex128)
    S = checks.array("S", S, image.shape, np.complex128, axes="(nz, ny, nx)")
    size = np.abs(S)
    inside = size > 0.5 * size.max()
    if not inside.any():
        raise ValueError("S: expected a crystal, got zeros only")

    k, h = 2 * math.pi / wavelength, diffraction_vector(wavelength, two_theta)
    paths = optical_path(size if s_0 is None else s_0, voxel, two_theta)
    refraction = 0.5 * k * crystal.chi_0.real * paths
    extinction = np.angle(image * S.conj() * np.exp(-1j * refraction))
    core = ndimage.binary_erosion(inside)
    refraction, extinction = without_plane(refraction, inside), without_plane(extinction, inside)
    amplitude = np.abs(np.divide(image, S, out=np.zeros_like(image), where=inside))
    return KinematicError(
        refraction,
        extinction,
        strain_of(refraction, inside, core, voxel, h),
        strain_of(extinction, inside, core, voxel, h),
        amplitude,
        inside,
        core,
    )


def diffraction_vector(wavelength: float, two_theta: float) -> np.ndarray:
    """h = k_h - k_0, (x, y, z), z along k_h, rad/m."""
    return 2 * math.pi / wavelength * np.array([-math.sin(two_theta), 0.0, 1 - math.cos(two_theta)])


def without_plane(phase: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A phase (nz, ny, nx) less the plane that fits it inside, 0 outside."""
    # an axis on which the crystal is one voxel deep has no slope: lstsq takes the least plane
    axes = [(index - index.mean()) / phase.shape[axis] for axis, index in enumerate(np.nonzero(inside))]
    plane = np.stack([np.ones(len(axes[0])), *axes], axis=1)
    values = phase[inside]
    rest = np.zeros(phase.shape)
    rest[inside] = values - plane @ np.linalg.lstsq(plane, values, rcond=None)[0]
    return rest


def strain_of(phase, inside, core, voxel, h):
    """Strain along h (x, y, z) of a phase inside a crystal, less its mean over ``core``, 0 elsewhere."""
    found, _ = strain(np.where(inside, np.exp(1j * phase), 0), voxel, h)
    return np.where(core, found - (found[core].mean() if core.any() else 0), 0)


def rms(values: np.ndarray) -> float:
    """Of an array; 0 of an empty one."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
