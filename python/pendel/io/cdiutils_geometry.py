"""The geometry that cdiutils keeps with the data it has cropped (ID01, ID27, P10, SIXS, CRISTAL, NanoMAX).

Its axes are those of CXI (x, y, z as in pendel's lab) or, where ``is_cxi`` is false, of xrayutilities, which calls x
what is z here, y what is x, and z what is y. Circles stand outermost first: of the sample out of plane and in plane,
of the detector in plane and out of plane. The direct beam hits (cch1, cch2) of the whole detector at angles of zero.
"""

import h5py
import numpy as np

from ..base.axes import axis_vector
from . import detector_mounting, hdf5_reading, nexus_motors, units
from .hdf5_links import Links
from .rocking import rocking_motor, turn
from .scans import Scan

_PLACE = "entry_1/geometry_1"
_OF_XRAYUTILITIES = {"x": "z", "y": "x", "z": "y"}
_SAMPLE = ("sample_outofplane_angle", "sample_inplane_angle")
_DETECTOR = ("detector_inplane_angle", "detector_outofplane_angle")


def is_there(links: Links) -> bool:
    """Whether a file holds the geometry of cdiutils."""
    found = links.find(f"{_PLACE}/sample_circles")
    return found is not None and isinstance(found.item, h5py.Dataset)


def take(scan: Scan, links: Links, rocking: bool = True) -> None:
    """Complete a `Scan` by rocking angles and axis, arm and the direct beam's pixel; its pixels are turned to the way
    that scans have them. ``rocking`` : False where rocking angles are given elsewhere.
    """
    is_cxi = _is_cxi(links)
    sample, detector = (_axes(links, f"{name}_circles", is_cxi) for name in ("sample", "detector"))
    rows, columns = detector_axes(links)
    _take_sample(scan, links, sample, rocking)
    scan.arm = tuple((axis, _angle(links, name)) for axis, name in zip(detector, _DETECTOR, strict=True))
    beam = _direct_beam(links)
    if beam is not None:
        beam = detector_mounting.mounted_pixel(beam, scan.data.shape[1:], rows, columns)
        scan.metadata["direct_beam"] = [float(index) for index in beam]
    try:
        scan.data, scan.mask = (detector_mounting.mounted(pixels, rows, columns) for pixels in (scan.data, scan.mask))
    except ValueError as error:
        raise ValueError(f"{links.path}: {_PLACE}: {error}") from None
    if rows[0] == "x" and scan.pixel_size is not None:
        scan.pixel_size = scan.pixel_size[::-1]


def detector_axes(links: Links) -> tuple[str, str]:
    """Lab axes along which row and column of the frames in a file grow, as `detector_mounting` takes them.

    Raises
    ------
    OSError, ValueError : naming the file and dataset.
    """
    is_cxi = _is_cxi(links)
    rows, columns = (_axes(links, f"detector_axis{i}_orientation", is_cxi, 1)[0] for i in (0, 1))
    return rows, columns


def _is_cxi(links):
    place = links.find(_PLACE)
    assert place is not None  # as `is_there` says
    return hdf5_reading.flag(links, place.item, "is_cxi", f"{links.path}: {_PLACE}")


def _axes(links, name, is_cxi, count=2):
    """Lab axes such as "y+" of a dataset of texts."""
    found = hdf5_reading.find(links, f"{_PLACE}/{name}")
    value = None if found is None else hdf5_reading.read(links, found)
    axes = [value] if isinstance(value, str) else value
    if (
        not isinstance(axes, list)
        or len(axes) != count
        or not all(len(axis) == 2 and axis[0] in "xyz" and axis[1] in "+-" for axis in axes)
    ):
        raise ValueError(f"{links.path}: {_PLACE}/{name}: expected {count} axes such as 'y+', got {value!r}")
    return axes if is_cxi else [_OF_XRAYUTILITIES[axis[0]] + axis[1] for axis in axes]


def _take_sample(scan, links, circles, needed):
    """Rocking angles and the axis about which they turn: the inner circle is carried by the outer one."""
    place = f"{_PLACE}/angles"
    outer = axis_vector("sample_circles", circles[0])
    motors = {motor.name: motor for motor in nexus_motors.per_frame(links, place, len(scan.data), _SAMPLE)}
    if not motors:
        return
    found = rocking_motor(f"{links.path}: {place}", list(motors.values()), needed)
    if found is None:
        return
    axis = outer
    if found.name == _SAMPLE[1]:
        axis = turn(outer, _angle(links, _SAMPLE[0])) @ axis_vector("sample_circles", circles[1])
    scan.rocking_angles = found.positions
    scan.rocking_axis = tuple(map(float, axis + 0.0))


def _angle(links, name):
    """One angle in rad of the diffractometer; 0 where there is no such circle. The mean of one that is at rest."""
    found = hdf5_reading.find(links, f"{_PLACE}/angles/{name}")
    if found is None:
        return 0.0
    angles = hdf5_reading.in_si(links, found, units.ANGLE, "deg")
    if not angles.size or np.isnan(angles).all():
        return 0.0
    if not np.isfinite(angles).all() or np.ptp(angles) > 1e-4:
        raise ValueError(
            f"{found.where}: expected one angle, got {angles.size} from {angles.min():g} to {angles.max():g} rad"
        )
    return float(angles.mean())


def _direct_beam(links):
    """(row, col) of the direct beam in the data as cropped, or None."""
    roi = hdf5_reading.find(links, "entry_1/result_1/roi")
    pixel = [_number(links, f"entry_1/detector_1/calibration/{name}") for name in ("cch1", "cch2")]
    if roi is None or None in pixel:
        return None
    roi = hdf5_reading.array(links, roi).ravel()
    if len(roi) < 4 or not np.isfinite(roi).all():
        raise ValueError(f"{links.path}: entry_1/result_1/roi: expected [row, row, column, column], got {roi!r}")
    return pixel[0] - float(roi[-4]), pixel[1] - float(roi[-2])


def _number(links, path):
    """A finite number, or None."""
    found = hdf5_reading.find(links, path)
    value = np.nan if found is None else hdf5_reading.read(links, found)
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None
