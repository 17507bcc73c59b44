"""Rocking scans of sample crystals: experiments as beamlines set them up, and frames that are not `pendel.Model`'s."""

import math
from typing import Any

import numpy as np

from ..base import checks
from ..experiment.crystal import Crystal
from ..experiment.geometry import Experiment
from ..experiment.structure_factor import susceptibility
from ..reference import wide_angle
from .crystals import SampleCrystal, sampled

KEV = 1.602176634e-16
PIXEL = 55e-6

# name: (material, hkl, keV, arm (axis, degrees) outermost first, axis of what is left of 2theta, rocking axis)
GEOMETRIES = {
    "coplanar": ("Au", (0, 0, 2), 8.0, (), "y+", "y+"),
    # scan 54 of the 34-ID-C example data: the detector rolls by 160 degrees, the crystal rocks about a skew axis
    "34idc": ("Au", (1, 1, 1), 9.0, (("y+", 32.174),), "x-", "y+"),
    # nu, then delta upwards; eta rocks about the horizontal axis across the beam
    "id01": ("Pt", (1, 1, 1), 8.0, (("y+", 12.0),), "x-", "x-"),
    "Sr2IrO4": ("Sr2IrO4", (1, 1, 6), 8.0, (), "y+", "y+"),
    "Si": ("Si", (2, 2, 0), 8.0, (), "y+", "y+"),
}


def rocking_scan(
    geometry: str,
    *,
    resolution: float = 29.5e-9,
    pixels: int = 64,
    frames: int = 65,
    orientation: str = "k_h",
    polarization: str = "horizontal",
) -> tuple[Experiment, Crystal]:
    """An experiment and the susceptibilities of its material.

    Parameters
    ----------
    geometry : of `GEOMETRIES`
    resolution : field of view over pixels, and what the range of angles reaches along k_h, m
    pixels : rows and columns of the detector
    frames : of the scan, centred
    orientation, polarization : of the `Experiment`, the latter of its beam
    """
    checks.choice("geometry", geometry, tuple(GEOMETRIES))
    material, hkl, energy, arm, last, rocking_axis = GEOMETRIES[geometry]
    reflection = susceptibility(material, hkl=hkl, energy=energy * KEV)
    turns = [(axis, math.radians(angle)) for axis, angle in arm]
    # rotations about axes across one another: their cosines multiply
    turns.append((last, math.acos(math.cos(reflection.two_theta) / math.prod(math.cos(angle) for _, angle in turns))))

    arguments: dict[str, Any] = {
        "energy": energy * KEV,
        "pixel_size": PIXEL,
        "detector_shape": (pixels, pixels),
        "arm": tuple(turns),
        "rocking_axis": rocking_axis,
        "beam_polarization": polarization,
        "orientation": orientation,
    }
    one = Experiment(distance=1.0, rocking_angles=[0.0], **arguments)
    along = abs(np.cross(one.rocking_axis, one.h) @ one.k_h) / one.k  # rad/m of dq along k_h per rad
    step = 2 * math.pi / (resolution * frames * along)
    return Experiment(
        distance=resolution * pixels * PIXEL / one.wavelength,
        rocking_angles=step * (np.arange(frames) - frames // 2),
        **arguments,
    ), reflection.crystal()


def wide_angle_scan(experiment: Experiment, angle_offsets=None, energy_offset: float = 0.0) -> wide_angle.Scan:
    """The experiment as plain vectors, and what is really different in it.

    Parameters
    ----------
    angle_offsets : (n_frames,) rad, of the true angles from those of the experiment; None: 0
    energy_offset : of the true energy, relative; the lattice, the pixels and the angles stay where they are
    """
    angles = experiment.rocking_angles
    if angle_offsets is not None:
        angles = angles + checks.array("angle_offsets", angle_offsets, angles.shape, np.float64)
    return wide_angle.Scan(
        k_0=(1 + energy_offset) * experiment.k_0,
        k_h=(1 + energy_offset) * experiment.k_h,
        rocking_axis=experiment.rocking_axis,
        rocking_angles=angles,
        centre_angle=experiment.centre_angle,
        e_col=experiment.e_col @ experiment.frame,
        e_row=experiment.e_row @ experiment.frame,
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        centre_pixel=experiment.centre[1:],
        detector_shape=experiment.detector_shape,
        lattice=experiment.h,
    )


def foreign_frames(
    experiment: Experiment,
    crystal: Crystal,
    sample: SampleCrystal,
    *,
    voxel: float | None = None,
    angle_offsets=None,
    energy_offset: float = 0.0,
    polarization=None,
    workers: int = 1,
    frames=None,
) -> np.ndarray:
    """Frames of a sample by `pendel.reference.wide_angle`, in units of `Model.intensities` for ``suggest_voxel()``.

    Parameters
    ----------
    voxel : of the wide-angle grid, m; None: a quarter of the resolution, field of view over pixels
    angle_offsets, energy_offset : as in `wide_angle_scan`
    polarization : {"sigma": w, "pi": w}, or None: the experiment's
    workers : threads
    frames : indices; None: all

    Returns
    -------
    float64 (frames, rows, cols)
    """
    voxel = experiment.field_of_view / max(experiment.detector_shape) / 4 if voxel is None else voxel
    march = "k_h" if experiment.two_theta < math.radians(60) else "symmetric"
    weights = experiment.polarization if polarization is None else polarization
    states = [(w, 1.0 if state == "sigma" else abs(math.cos(experiment.two_theta))) for state, w in weights.items()]
    found = wide_angle.intensities(
        wide_angle_scan(experiment, angle_offsets, energy_offset),
        crystal,
        sample,
        wide_angle.Method(voxel, march),
        polarization=states,
        frames=frames,
        workers=workers,
    )
    _, dy, dx = experiment.suggest_voxel()
    return found / (dy * dx * experiment.gamma_h)


def truth_on(sample: SampleCrystal, experiment: Experiment, model, finer: int = 4):
    """(s_0, S) of a sample averaged over the voxels of a model (what has shape and voxel), as `crystals.sampled`."""
    return sampled(sample, model.shape, model.voxel, experiment.frame, finer)
