"""Files: scans and results as CXI, beamlines."""

from .aps_34idc import read_34idc
from .cxi_results import StoredResult, read_result, write_result
from .cxi_scans import read_scan, write_scan
from .frames import mask_saturated, tell_of_frames
from .scans import Scan, crop_scan, hot_pixel_mask, pattern_centre

__all__ = [
    "Scan",
    "StoredResult",
    "crop_scan",
    "hot_pixel_mask",
    "mask_saturated",
    "pattern_centre",
    "read_34idc",
    "read_result",
    "read_scan",
    "tell_of_frames",
    "write_result",
    "write_scan",
]
