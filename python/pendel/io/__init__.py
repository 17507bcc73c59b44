"""Files: scans and results as CXI, beamlines, bare arrays."""

from typing import TYPE_CHECKING

from ..base.later import later as _later

if TYPE_CHECKING:  # what type checkers see of the table below
    from .aps_34idc import read_34idc
    from .array_files import read_array_scan
    from .cxi_results import StoredResult, read_result, write_result
    from .cxi_scans import read_scan, write_scan
    from .eiger import read_eiger
    from .frames import mask_saturated, tell_of_frames
    from .id01 import read_id01
    from .scans import Scan, crop_scan, hot_pixel_mask, pattern_centre
    from .sums import sum_scans
    from .vti import write_vti

__all__ = [
    "Scan",
    "StoredResult",
    "crop_scan",
    "hot_pixel_mask",
    "mask_saturated",
    "pattern_centre",
    "read_34idc",
    "read_array_scan",
    "read_eiger",
    "read_id01",
    "read_result",
    "read_scan",
    "sum_scans",
    "tell_of_frames",
    "write_result",
    "write_scan",
    "write_vti",
]

# Where names are, which are imported when they are asked for: a geometry wants scans, but no HDF5.
_names = {
    "aps_34idc": ("read_34idc",),
    "array_files": ("read_array_scan",),
    "cxi_results": ("StoredResult", "read_result", "write_result"),
    "cxi_scans": ("read_scan", "write_scan"),
    "eiger": ("read_eiger",),
    "frames": ("mask_saturated", "tell_of_frames"),
    "id01": ("read_id01",),
    "scans": ("Scan", "crop_scan", "hot_pixel_mask", "pattern_centre"),
    "sums": ("sum_scans",),
    "vti": ("write_vti",),
}
__getattr__, __dir__ = _later(__name__, _names)
