"""Results for ParaView and other VTK programs: image data in XML, in nm.

VTK file formats, XML ImageData 1.0 with UInt64 headers; ``Direction``: the axes of the model frame in the laboratory.

(1) r = Origin + Direction (i, j, k) * Spacing,   so Origin is turned as the axes are, and index n//2 lies at 0
"""

import base64
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from ..base import checks, files
from ..base.version import __version__
from . import kinds
from .cxi_results import StoredResult

NANOMETRE = 1e-9
# What is shown, its field of a `StoredResult`, and what it is divided by.
ARRAYS = (
    ("amplitude", "amplitude", 1.0),
    ("phase_rad", "phase", 1.0),
    ("displacement_pm", "displacement", 1e-12),
    ("strain", "strain", 1.0),
    ("support", "support", 1.0),
)


def write_vti(path: Path | str, result: StoredResult, *, force: bool = False) -> None:
    """Write amplitude, phase, displacement, strain and support as a .vti file.

    Parameters
    ----------
    path : file to write; an old picture of pendel is replaced.
    result : `StoredResult`, with a voxel; whatever of the maps it holds, amplitude and phase otherwise from its S.
    force : replace a file of any kind.

    Raises
    ------
    TypeError, ValueError : naming the field.
    OSError : when the file cannot be written; FileExistsError for one of another kind.
    """
    if not isinstance(result, StoredResult):
        raise TypeError(f"result: expected a StoredResult, got {checks.describe(result)}")
    if result.voxel is None:
        raise ValueError("voxel: expected a result that knows its voxel, got None")
    checks.array("result (S)", result.S, (None, None, None), np.complex128, axes="(nz, ny, nx)", finite=False)
    for _, field, _ in ARRAYS:
        if getattr(result, field) is not None and np.shape(getattr(result, field)) != result.S.shape:
            raise ValueError(f"{field}: expected shape {result.S.shape}, as S, got {np.shape(getattr(result, field))}")
    if not force:
        kinds.refuse_to_replace(path, kinds.PICTURE)
    files.write_whole(path, _text(result).encode())


def _text(result):
    nz, ny, nx = result.S.shape
    step = [v / NANOMETRE for v in result.voxel[::-1]]
    axes = np.eye(3) if result.frame is None else np.asarray(result.frame, float).T
    origin = axes @ [-(n // 2) * v for n, v in zip((nx, ny, nz), step, strict=True)]
    grid = {
        "WholeExtent": f"0 {nx - 1} 0 {ny - 1} 0 {nz - 1}",
        "Origin": _numbers(origin),
        "Spacing": _numbers(step),
    }
    if result.frame is not None:
        grid["Direction"] = _numbers(axes.ravel())
    attributes = " ".join(f"{name}={quoteattr(value)}" for name, value in grid.items())
    arrays = "\n".join(_array(name, values) for name, values in _maps(result))
    return f"""<?xml version="1.0"?>
<!-- pendel {__version__} -->
<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64">
<ImageData {attributes}>
<Piece Extent="{grid["WholeExtent"]}">
<PointData Scalars="amplitude">
{arrays}
</PointData>
<CellData/>
</Piece>
</ImageData>
</VTKFile>
"""


def _maps(result):
    """(name, values) of what the result holds."""
    made = {"amplitude": lambda: np.abs(result.S), "phase": lambda: np.angle(result.S)}
    for name, field, unit in ARRAYS:
        values = getattr(result, field)
        if values is None and field in made:
            values = made[field]()
        if values is not None:
            yield name, np.asarray(values, np.float32) / np.float32(unit)


def _array(name, values):
    """x varies fastest, as in the array."""
    content = np.ascontiguousarray(values, "<f4").tobytes()
    header = np.uint64(len(content)).astype("<u8").tobytes()
    encoded = base64.b64encode(header + content).decode()
    return f'<DataArray type="Float32" Name={quoteattr(name)} format="binary">{encoded}</DataArray>'


def _numbers(values):
    return " ".join(f"{value:.9g}" for value in values)
