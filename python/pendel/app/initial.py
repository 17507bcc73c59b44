"""A configuration to begin with, from a scan: what its files say, commented, and what they do not say, asked for."""

import json
import math
import os
from pathlib import Path

import numpy as np

from ..base.constants import KEV
from ..io.scans import pattern_centre
from .config import Config

# Even sizes of a cut detector, whose transforms are fast.
SIZES = (32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
# Counts in its brightest frame from which a pixel is lit, and the part of the lit ones that a cut detector holds. Scan
# 54 of 34-ID-C: 48 pixels hold 98 % of the counts and 37 % of the lit ones, which tell a surface; 128 hold all.
LIT, HELD = 4, 0.95
AROUND = 2  # the middle in which light is looked for is that many times smaller than the detector


def configuration(path, *, folder=".", format="auto", number=None, material=None, hkl=None) -> tuple[str, list[str]]:
    """(TOML text, keys that the user has to set).

    Parameters
    ----------
    path : file or folder of a scan, relative to ``folder``, where the configuration will be
    format : of `pendel.io.beamlines`, or "auto"
    number : of the scan in a SPEC file, or None
    material : name of the crystal's, or a CIF file, from where the program runs; None: that of the scan
    hkl : of the crystal, or None

    Raises
    ------
    ConfigError, ValueError, OSError
        As reading the scan does.
    """
    data = {"path": str(path), "format": format} | ({} if number is None else {"scan": number})
    scan = Config({"data": data}, folder).scan()
    if material is not None and Path(material).is_file():
        material = os.path.relpath(material, folder)
    sections = [_head(path, scan), _data(data, scan), _experiment(scan), _crystal(scan, material, hkl), REST]
    text = "\n\n".join("\n".join(lines) for lines in sections) + "\n"
    return text, [line.split()[0].lstrip("#") for line in text.splitlines() if line.endswith(NEEDED)]


NEEDED = "# needed: the data do not say"

REST = (
    "[model]",
    'voxel_nm = "auto"     # of the result: as fine as the light asks for',
    "",
    "[start]",
    'kind = "kinematic"    # phased first; or "solid", "smooth", "file": docs/recipe.md',
    "",
    "[recipe]",
    'method = "solve"      # everything else is chosen; all keys: pendel config',
)


def _head(path, scan):
    frames = " x ".join(map(str, scan.data.shape))
    good = f"{scan.mask.mean():.1%} good pixels, {scan.data.sum(dtype=np.float64):.3g} counts"
    return (
        "# A configuration to begin with. What the data say is commented; a key that is set wins over them.",
        f"#   pendel reconstruct CONFIG.toml -o {Path(path).stem or 'scan'}.result.cxi",
        f"# {frames} (frames, rows, cols), {good}",
    )


def _data(data, scan):
    lines = ["[data]", *(f"{name} = {_quoted(value)}" for name, value in data.items() if value != "auto")]
    crop = _crop(scan)
    if crop is None:
        lines.append("#crop = [rows, cols]    # about the pattern")
    else:
        held = f"holds {HELD:.0%} of the pixels that see {LIT} counts"
        lines.append(f"crop = [{crop}, {crop}]    # about the pattern; {held}")
    if scan.metadata.get("source") == "array":
        lines.append('#mask = "mask.npy"    # beside that of the file: bool, True = good, or integers, 0 = good')
    return lines


def _crop(scan):
    """The smallest of SIZES about the pattern that holds nearly all lit pixels; None: nothing is to be cut."""
    centre = scan.centre or pattern_centre(scan.data, scan.mask)
    lit = np.where(scan.mask, scan.data, 0).max(axis=0) >= LIT
    middle = _sum_about(lit, centre, min(lit.shape) // AROUND)
    for size in SIZES:
        if not middle or AROUND * size > min(lit.shape) or not _fits(lit.shape, centre, size):
            return None
        if _sum_about(lit, centre, size) >= HELD * middle:
            return size
    return None


def _fits(shape, centre, size):
    """Whether a cut about the centre stays on the detector."""
    starts = [round(c) - size // 2 for c in centre[1:]]
    return all(0 <= start <= n - size for start, n in zip(starts, shape, strict=True))


def _sum_about(lit, centre, size):
    cuts = (slice(max(0, round(c) - size // 2), round(c) + size // 2) for c in centre[1:])
    return int(np.count_nonzero(lit[tuple(cuts)]))


def _experiment(scan):
    known = {
        "energy_keV": _number(scan.energy, 1 / KEV),
        "distance_mm": _number(scan.distance, 1e3),
        "pixel_um": None if scan.pixel_size is None else _number(np.mean(scan.pixel_size), 1e6),
        "arm": _arm(scan.arm),
        "rocking_axis": None if scan.rocking_axis is None else _quoted(scan.rocking_axis),
    }
    hints = {
        "energy_keV": "8.0",
        "distance_mm": "1000.0",
        "pixel_um": "55.0",
        "arm": '[["y+", 32.1], ["x-", 12.6]]    # outermost first',
        "rocking_axis": '"y+"',
    }
    lines = ["[experiment]"]
    for name, value in known.items():
        lines.append(f"#{name} = {value}" if value is not None else f"#{name} = {hints[name]}    {NEEDED}")
    if scan.arm is None and scan.metadata.get("direct_beam") is None:
        lines.append("#direct_beam = [row, col]    # with the arm at zero; left out: the arm points at the pattern")
    return [*lines, _rocking(scan), 'beam_polarization = "horizontal"']


def _rocking(scan):
    if scan.rocking_angles is None:
        return f"#rocking_step_deg = 0.005    {NEEDED}"
    degrees = np.rad2deg(scan.rocking_angles)
    step = float(np.median(np.diff(degrees))) if len(degrees) > 1 else 0.0
    return f"#rocking_step_deg = {step:.6g}    # {degrees[0]:.5g} to {degrees[-1]:.5g} in the data, which are used"


def _crystal(scan, material, hkl):
    known = scan.metadata.get("material")
    lines = ["[crystal]"]
    material = material or (known if isinstance(known, str) else None)
    lines.append(f'#material = "Au"    {NEEDED}' if material is None else f"material = {_quoted(material)}")
    lines.append(f"#hkl = [1, 1, 1]    {NEEDED}" if hkl is None else f"hkl = {list(map(int, hkl))}")
    return [*lines, "# or chi_0, chi_h = [real, imaginary] in place of the material; exp(+ik.r): Im chi_0 > 0 absorbs"]


def _arm(arm):
    if arm is None:
        return None
    return "[" + ", ".join(f'["{axis}", {math.degrees(turn):.6g}]' for axis, turn in arm) + "]"


def _number(value, factor):
    return None if value is None else f"{float(value) * factor:.8g}"


def _quoted(value):
    """As TOML, whose strings escape as those of JSON do."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(list(map(float, value))) if np.ndim(value) else str(value)
