"""Files: scans and results as CXI, beamlines."""

from .aps_34idc import crop_scan, hot_pixel_mask, pattern_centre, read_34idc
from .cxi import Scan, StoredResult, read_result, read_scan, write_result, write_scan

__all__ = [
    "Scan",
    "StoredResult",
    "crop_scan",
    "hot_pixel_mask",
    "pattern_centre",
    "read_34idc",
    "read_result",
    "read_scan",
    "write_result",
    "write_scan",
]
