"""The rocking scan that a crystal of some size needs.

A crystal of size d has fringes 2 pi/d apart. With an oversampling o along each axis and voxels r wide at the end

(1) step = 2 pi/(o d |h|) = d_hkl/(o d),   frames = o d/r,   odd
(2) on the detector: lambda distance/pitch = o d,   pixels = o d/r along an axis

The pixels lie on the Ewald sphere, the Fourier transform is taken on a plane. At the band's edge, q = pi/r, and at the
crystal's surface, d/2 from its middle, the phase between them is

(3) q^2/(2 k) d/2
"""

import math
from typing import NamedTuple

OVERSAMPLING = 3.0  # 2 is the least; frames and pixels between fringes cost little beside what they tell of noise
ACROSS = 25  # voxels across a crystal, where no width is asked for


class Rocking(NamedTuple):
    """A scan of a crystal of some size.

    Attributes
    ----------
    step : rad
    frames : int
    voxel : float
        r of (1) [m].
    curvature_phase : float
        Equation (3) [rad].
    distance : float or None
        That makes the oversampling on the detector [m]; None: pitch not known.
    pixels : int
        Along an axis of the detector.
    oversampling : float or None
        On a detector whose pitch and distance are known.
    """

    step: float
    frames: int
    voxel: float
    curvature_phase: float
    distance: float | None
    pixels: int
    oversampling: float | None


def rocking(size, d_spacing, wavelength, voxel=None, pixel_size=None, distance=None) -> Rocking:
    """The scan of a crystal of ``size``; lengths in m, what is not known None."""
    voxel = size / ACROSS if voxel is None else voxel
    places = 2 * math.ceil(OVERSAMPLING * size / voxel / 2) + 1
    wanted = None if pixel_size is None else OVERSAMPLING * size * pixel_size / wavelength
    view = None if pixel_size is None or distance is None else wavelength * distance / pixel_size
    curvature = (math.pi / voxel) ** 2 * wavelength / (4 * math.pi) * size / 2
    pixels = places if view is None else math.ceil(view / voxel)
    step = d_spacing / (OVERSAMPLING * size)
    return Rocking(step, places, voxel, curvature, wanted, pixels, None if view is None else view / size)
