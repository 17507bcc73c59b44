"""Frames as they were before the detector's point spread, good enough to be phased.

Phasing knows no blur: what it takes out of the fringes it takes from the crystal's size. Richardson and Lucy's way back
to the most probable frames, stopped early, for later it sharpens noise:

(1) I <- I B^T(good data/(B I))/B^T(good),   B the blur of `pendel.model.blur`, from I = B^T(good data)/B^T(good)

W. H. Richardson, J. Opt. Soc. Am. 62, 55 (1972); L. B. Lucy, Astron. J. 79, 745 (1974).
"""

import numpy as np

from ..kinematic import KinematicResult
from ..model.blur import Blur
from .kinematic_starts import phase

ITERATIONS = 20
TINY = 1e-6  # of the brightest pixel: keeps (1) finite where there is no light, or no good pixel
# Squared misfit of phases over that of photon noise from which frames are taken for blurred, and by how many pixels,
# unless it is known. bench/foreign.py, smooth, 1e8 photons: phases miss undisturbed frames by 2 times noise, partly
# coherent ones by 3, a point spread of 0.7 by 21, and all together by 50 to 110 (a crystal half as large as the true).
SUSPECT, USUAL = 10.0, 0.7


def sharpened(data, mask, point_spread):
    """(1) of frames (n_frames, rows, cols), float64.  mask : bool, True = good, or None.  point_spread : (row, col)."""
    blur = Blur(point_spread)
    good = np.ones(data.shape) if mask is None else np.broadcast_to(mask, data.shape).astype(np.float64)
    data = np.where(good > 0, np.maximum(data, 0), 0).astype(np.float64)
    seen = np.maximum(blur.adjoint(good), TINY)
    least = TINY * data.max()
    found = np.maximum(blur.adjoint(data) / seen, least)
    for _ in range(ITERATIONS):
        found = np.maximum(found * blur.adjoint(good * data / np.maximum(blur.forward(found), least)) / seen, least)
    return found


def phase_sharpened(data, mask, point_spread, **keywords) -> KinematicResult:
    """Phases of frames that a detector has blurred; arguments as of `sharpened` and `phase`."""
    return phase(sharpened(data, mask, point_spread), mask, **keywords)


def phase_blurred(data, mask, noise, known, **keywords) -> tuple[KinematicResult, tuple[float, float]]:
    """(phases of frames, or of the same sharpened where these fit better, by which point spread, (row, col) pixels).

    Parameters
    ----------
    data, mask : NumPy arrays as in `Model.fit`
    noise : function without arguments that tells the misfit of photon noise, called when phasing has checked the data
    known : point spread, (row, col), pixels; (0, 0): not known
    keywords : of `phase`
    """
    plain = phase(data, mask, **keywords)
    if plain.chi**2 < SUSPECT * noise():
        return plain, known
    width = known if any(known) else (USUAL, USUAL)
    sharp = phase_sharpened(data, mask, width, **keywords)
    return (sharp, width) if sharp.chi < plain.chi else (plain, known)
