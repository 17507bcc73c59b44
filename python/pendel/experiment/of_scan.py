"""The arguments of an `Experiment` that a scan's files know."""

from typing import Any

import numpy as np

from ..io.scans import Scan, crop_start
from .direct_beam import arm_through_pixel
from .given import SAME, replaced

NEEDED = ("energy", "distance", "pixel_size", "arm", "rocking_axis", "rocking_angles")


def arguments_of(scan: Scan, given: dict[str, Any]) -> dict[str, Any]:
    """Keywords of an `Experiment`: what is ``given``, and else what ``scan`` knows.

    Where the scan knows which pixel the direct beam hits, its own arm is turned on to the pattern's centre.

    Raises
    ------
    ValueError : naming what neither of them says.
    """
    known = {name: getattr(scan, name) for name in (*NEEDED, "centre")}
    known["detector_shape"] = scan.data.shape[1:]
    taken = {other for name in given for other in _alike(name)}
    for name in NEEDED:
        if known[name] is None and name not in taken:
            others = " or ".join(other for other in _alike(name) if other != "wavelength")
            raise ValueError(f"{name}: expected a scan that knows it, got one that does not; give {others}")
    if "direct_beam" in scan.metadata and not taken & {"arm", "pixel_orientation"}:
        turned = _through_centre(scan, known | given)
        known, given = known | turned, given | turned
    return replaced(known, given)


def _alike(name):
    """The arguments that say the same as one."""
    return next((names for names in SAME if name in names), (name,))


def _through_centre(scan, arguments):
    """{arm, distance} of the pixel that k_h hits."""
    centre = arguments["centre"] or (0, *(n // 2 for n in arguments["detector_shape"]))
    stored = np.add(centre[1:], crop_start(scan)[1:])
    here = {name: arguments[name] for name in ("arm", "distance", "pixel_size")}
    arm, distance = arm_through_pixel(**here, pixel=stored, direct_beam=scan.metadata["direct_beam"])
    return {"arm": arm, "distance": distance}
