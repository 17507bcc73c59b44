"""`pendel.check`: how much of a finished object's phase and strain is what kinematic phasing makes of the wave.

One forward sweep of the object shows it as all of its dynamical frames together do, beside itself, which is what
kinematic frames show (`pendel.planning.kinematic_image`); the difference is split in refraction, which is known from
the shape, and the rest, extinction (`pendel.planning.kinematic_error`). Nothing is fitted, and no data are read.

An object that was phased kinematically has these maps in it. They are computed from the object itself, whose phase is
off by them: that changes the extinction map in the next order, and refraction, decided by the shape, not at all.
An object of `pendel.solve` does not have them in it; the maps then say what kinematic phasing would have added.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import io
from ..base import checks
from ..base.printing import brief
from ..base.symmetry import strain
from ..experiment.crystal import Crystal
from ..experiment.geometry import Experiment
from ..fit.result import Result
from ..kinematic.support import reference_amplitude, shrink_wrap
from .error_law import PHASE_ENOUGH, STRAIN_ENOUGH
from .kinematic_error import KinematicError, diffraction_vector, kinematic_error, rms, without_plane

ALONG = 1e-6  # of direction cosines: z is along k_h
PLANES = 3  # taken off one after the other: each may bring phases across pi
ABOVE = 0.3  # of the largest amplitude: voxels that are more than surface


@dataclass(frozen=True)
class Check:
    """What kinematic phasing adds to a crystal, answer of `check`.

    Attributes
    ----------
    error : KinematicError
        Maps (nz, ny, nx), their rms, and which voxels they are of.
    phase, strain : float64 (nz, ny, nx)
        The object's own, less a plane and less its mean, 0 outside ``error.inside`` and ``error.core``. [rad], [1]
    voxel : (dz, dy, dx)
        [m]
    size : float
        Diameter of the sphere of the crystal's volume [m].
    crystal : Crystal
    dynamical : bool
        Whether `pendel.solve` has found the object: what kinematic phasing adds is not in it then.
    """

    error: KinematicError
    phase: np.ndarray
    strain: np.ndarray
    voxel: tuple[float, float, float]
    size: float
    crystal: Crystal
    dynamical: bool = False

    __repr__ = brief

    @property
    def phase_rms(self) -> float:
        """Of the object, rad."""
        return rms(self.phase[self.error.inside])

    @property
    def strain_rms(self) -> float:
        """Of the object."""
        return rms(self.strain[self.error.core])

    def __str__(self):
        refraction, extinction, both = self.error.phase_rms
        strains = self.error.strain_rms
        return (
            f"{self.crystal.name or 'crystal'} of {1e9 * self.size:.0f} nm: kinematic phasing adds {both:.2g} rad rms "
            f"(refraction {refraction:.2g}, extinction {extinction:.2g}) to a phase of {self.phase_rms:.2g} rad, and "
            f"{strains[2]:.1e} (refraction {strains[0]:.1e}, extinction {strains[1]:.1e}) to a strain of "
            f"{self.strain_rms:.1e}: {self.advice}"
        )

    @property
    def advice(self) -> str:
        """What to do about it, in words."""
        refracted, extinct, _ = (
            max(phase / PHASE_ENOUGH, strain / STRAIN_ENOUGH)
            for phase, strain in zip(self.error.phase_rms, self.error.strain_rms, strict=True)
        )
        if self.dynamical and max(refracted, extinct) > 1:
            return "that is not in this object, which was found dynamically"
        if extinct > 1:
            return "reconstruct it dynamically, pendel.solve"
        if refracted > 1:
            return "of an object that was phased kinematically take refraction off, pendel.refraction.correct"
        return "that is little, and kinematic phasing is good enough"


def check(
    result: "io.StoredResult | Result | Path | str",
    *,
    experiment: Experiment | None = None,
    crystal: Crystal | None = None,
    threads: int | None = None,
) -> Check:
    """How much of the phase and strain of a finished object is refraction and extinction, by one forward sweep.

    Parameters
    ----------
    result : StoredResult, Result, or path of a result file
        With z along k_h. Objects of other programs come to such a grid by `kinematic.to_model_grid`. |S| may have any
        scale: its median inside is taken for a full crystal, which it must be for refraction to be right.
    experiment, crystal : Experiment, Crystal, or None
        Instead of what the result knows; needed where it does not.
    threads : int or None
        None: all.

    Returns
    -------
    Check
        Its text is one sentence.

    Raises
    ------
    OSError
        For a file that cannot be read.
    TypeError, ValueError
        Naming the argument, or what the result does not know.
    """
    if isinstance(result, (str, Path)):
        result = io.read_result(result)
    if not isinstance(result, (io.StoredResult, Result)):
        raise TypeError(f"result: expected a StoredResult, a Result or a path, got {checks.describe(result)}")
    for name, value, kind in (("experiment", experiment, Experiment), ("crystal", crystal, Crystal)):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name}: expected {kind.__name__} or None, got {checks.describe(value)}")
    if result.voxel is None:
        raise ValueError("result: expected one that knows its voxel, got none; see kinematic.to_model_grid")

    wavelength, two_theta, fractions = _geometry(result, experiment)
    crystal = _crystal(result) if crystal is None else crystal
    state = max(fractions, key=fractions.get) if fractions else "sigma"
    C = 1.0 if state == "sigma" else abs(math.cos(two_theta))
    S = _full(result)
    error = kinematic_error(S, result.voxel, wavelength, two_theta, crystal, polarization_factor=C, threads=threads)

    own = np.where(error.inside, S, 0)
    found = strain(own, result.voxel, diffraction_vector(wavelength, two_theta))[0]
    found = np.where(error.core, found - found[error.core].mean() if error.core.any() else 0, 0)
    size = (6 / math.pi * np.abs(S).sum(dtype=float) * math.prod(result.voxel)) ** (1 / 3)
    judged = bool(result.trust)  # by `solve`
    return Check(error, _phase(own, error.inside), found, tuple(result.voxel), size, crystal, judged)


def _geometry(result, experiment):
    """(wavelength, two_theta, {state: intensity fraction})."""
    if experiment is None and isinstance(result, Result) and result.model is not None:
        experiment = result.model.experiment
    if experiment is not None:
        if experiment.orientation != "k_h":
            raise ValueError(f"experiment: expected orientation 'k_h', got {experiment.orientation!r}")
        return experiment.wavelength, experiment.two_theta, experiment.polarization

    k_0, k_h = getattr(result, "k_0", None), getattr(result, "k_h", None)
    if k_0 is None or k_h is None:
        raise ValueError("experiment: expected one, for the result does not know its wave vectors, got none")
    k = float(np.linalg.norm(k_h))
    if np.hypot(*k_h[:2]) > ALONG * k:
        raise ValueError("result: expected z along k_h, got a model frame of another orientation")
    return 2 * math.pi / k, math.acos(float(np.dot(k_0, k_h)) / (k * float(np.linalg.norm(k_0)))), result.polarization


def _crystal(result):
    """The crystal that a result knows."""
    if isinstance(result, Result):
        if result.model is None:
            raise ValueError("crystal: expected one, for the result does not know its model, got none")
        return result.model.crystal
    if result.chi_0 is None or result.chi_h is None:
        raise ValueError("crystal: expected one, for the result does not know its susceptibilities, got none")
    return Crystal(result.chi_0, result.chi_h, result.chi_hbar, name=result.crystal)


def _full(result):
    """S whose amplitude is 1 in a full crystal and at most that, 0 outside the support."""
    S = checks.array("result (S)", result.S, (None, None, None), np.complex64, axes="(nz, ny, nx)")
    support = shrink_wrap(S) if result.support is None else result.support
    S = np.where(support, S, 0)
    if not S.any():
        raise ValueError("result (S): expected a crystal inside the support, got zeros only")
    S = S / np.float32(reference_amplitude(np.abs(S), support=support, above=ABOVE))
    return S / np.maximum(np.abs(S), 1)


def _phase(S, inside):
    """arg S inside less a plane, 0 outside; modulo 2 pi where the object's own phase turns by more than that."""
    turned = np.where(inside, S, 0).astype(np.complex128)
    for axis, index in enumerate(np.indices(S.shape, sparse=True)):
        ahead, behind = (np.take(turned, range(*ends), axis) for ends in ((1, S.shape[axis]), (0, S.shape[axis] - 1)))
        turned = turned * np.exp(-1j * np.angle(np.vdot(behind, ahead)) * index)  # the mean turn from voxel to voxel

    for _ in range(PLANES):  # of what is left
        phase = np.where(inside, np.angle(turned * np.exp(-1j * np.angle(turned.sum()))), 0)
        rest = without_plane(phase, inside)
        turned = np.where(inside, np.exp(1j * rest), 0)
    return rest
