"""The arguments of an `Experiment` that a measured scan knows."""

from typing import Any

import numpy as np

from ..base import checks
from ..io.scans import Scan, crop_start
from .direct_beam import arm_through_pixel
from .given import SAME, replaced

KNOWN = ("energy", "distance", "pixel_size", "arm", "rocking_axis", "rocking_angles", "centre")


def arguments_of(scan: Scan, changes: dict[str, Any]) -> dict[str, Any]:
    """Those of ``scan`` with ``changes`` in their place.

    Raises
    ------
    TypeError : naming all that neither says, or ``scan`` where it is none.
    """
    if not isinstance(scan, Scan):
        raise TypeError(f"scan: expected a Scan, of pendel.io.read_scan for example, got {checks.describe(scan)}")
    known = {name: getattr(scan, name) for name in KNOWN} | {"detector_shape": scan.data.shape[1:]}
    arguments = {name: value for name, value in replaced(known, changes).items() if value is not None}
    wanted = [(name,) for name in ("distance", "pixel_size", "rocking_axis")] + list(SAME)
    missing = [names[0] for names in wanted if not any(name in arguments for name in names)]
    if missing:
        said = ", ".join(missing)
        raise TypeError(f"{said}: expected in the scan or beside it, got neither; give {missing[0]}=")
    beam = scan.metadata.get("direct_beam")
    if beam is None or not {"arm", "k_h", "two_theta_deg"}.isdisjoint(changes):
        return arguments
    return arguments | through_centre(arguments, beam, crop_start(scan)[1:])


def through_centre(arguments: dict[str, Any], direct_beam: tuple[float, float], first=(0, 0)) -> dict[str, Any]:
    """{arm, distance} of the centre's pixel, see `arm_through_pixel`.

    arguments : of the `Experiment`.  direct_beam : (row, col) of the data as stored.
    first : (row, col) of these that the scan begins with.
    """
    centre = arguments.get("centre")
    pixel = [n // 2 for n in arguments["detector_shape"]] if centre is None else centre[1:]
    named = ("arm", "distance", "pixel_size", "pixel_orientation")
    given = {name: arguments[name] for name in named if name in arguments}
    arm, distance = arm_through_pixel(**given, direct_beam=direct_beam, pixel=np.add(pixel, first))
    return {"arm": arm, "distance": distance}
