"""Rocking scans of beamline 34-ID-C (APS).

Lab frame: z along the beam, y up, x = y x z. At 34-ID-C delta turns the detector arm about +y, gamma about -x inside
it, theta turns the sample about +y, and phi about the axis that theta and chi carry. Columns grow along the arm's +x,
rows along its -y.
"""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base import checks
from ..base.constants import KEV
from ..base.reading import read_text
from .array_files import three_axes
from .counts import bad_values
from .frame_files import find_frames, name_missing, read_frames
from .frames import SATURATION_TOLD, below_saturation, tell_of_saturation
from .npy_files import open_arrays, read_array
from .rocking import OTHER_ENERGIES
from .scans import Scan, mask_bad_values, pattern_centre, relative_flux
from .spec import parse_spec
from .tif_files import read_tif

MONITOR = "Monitor"  # column of a SPEC table
_PIXEL = {"34idcTIM1": 55e-6, "34idcTIM2": 55e-6}  # Timepix, m
_SEAM = 256  # four chips of 256 x 256 pixels: a region that crosses this row or column has wider pixels there
_ENERGY_MOTORS = ("Energy", "En", "Monochr", "Mono", "Mcr")
# key of meta.json: (SPEC motor, factor from SPEC, largest difference that is still the same number)
_FIELDS = {
    "energy_keV": ("Energy", 1.0, 1e-3),
    "delta_deg": ("Delta", 1.0, 1e-3),
    "gamma_deg": ("Gamma", 1.0, 1e-3),
    "distance_m": ("camdist", 1e-3, 1e-4),
}


def read_34idc(
    folder: Path | str,
    *,
    scan: int | None = None,
    spec: Path | str | None = None,
    dark: bool = True,
    whitefield: bool = True,
    dark_threshold: float = 1,
    whitefield_minimum: float = 0.1,
    pixel_size: float | None = None,
    saturation: float | None = None,
    rocking: bool = True,
) -> Scan:
    """Read one 34-ID-C scan as a `pendel.io.Scan`.

    The folder holds either ``*_raw_counts.npz`` (``data`` (frame, row, col)), ``detector_corrections*.npz``
    (``dark``, ``whitefield``), ``meta.json`` and SPEC text ``spec_*.txt``; or one .tif file per frame, with
    ``dark.tif``, ``whitefield.tif`` (whole detector) and the SPEC file there or one folder above. ``meta.json`` wins
    over SPEC; where the two disagree it is an error. The scan's centre is meta.json's ``pattern_centre_frame_row_col``
    or `pattern_centre`; angles are in rad. meta.json's ``direct_beam_pixel`` (row, col; hit by the direct beam
    with the arm at zero) goes to ``metadata["direct_beam"]``.

    Parameters
    ----------
    folder : of one scan.
    scan : number in the SPEC file; None: the one in the folder's name ("..._S0054") or the only one in the file.
    spec : path of the SPEC file; None: the one in the folder or above it.
    dark, whitefield : False leaves the correction out. Pixels with dark >= ``dark_threshold`` counts, and pixels whose
        white field is below ``whitefield_minimum`` of its median, are masked; the others are divided by white field /
        median (data become float32).
    dark_threshold : counts.
    whitefield_minimum : part of the median.
    pixel_size : m, for detectors not known by name.
    saturation : counts, as they were read out, at and above which a pixel is masked; None: none is.
    rocking : False where rocking angles are given elsewhere: a motor that is not known, or whose steps contradict each
        other, is no error; nor is none.

    Returns
    -------
    Scan

    Raises
    ------
    FileNotFoundError : for missing files.
    ValueError : naming the file, for damaged or contradicting ones.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a folder with a 34-ID-C scan, got " + ("a file" if folder.exists() else "nothing")
        )
    meta = _read_meta(folder / "meta.json")
    scan = _scan_number(folder, scan)
    files = _find_files(folder, scan)
    record = _find_spec(folder, scan, spec, files.points)
    data, mask, notes = _read_counts(folder, files, record)
    if saturation is not None:  # before the white field is divided out
        below = below_saturation(data, saturation)
        mask = mask if below.all() else mask & below
    if files.packed:
        fields = _read_fields_npz(folder, dark, whitefield)
    else:
        fields = _read_fields_tif(folder, dark, whitefield, record, data.shape[1:])
    raw = data
    data, mask, masked = _correct(folder, raw, mask, fields, dark_threshold, whitefield_minimum)
    notes |= masked
    if "whitefield" in fields:  # which makes equal counts differ
        notes[SATURATION_TOLD] = tell_of_saturation(raw, mask)
    del raw

    values = {k: _agree(folder, meta, record, k, *rule) for k, rule in _FIELDS.items()}
    detector, pixel_size = _find_detector(folder, meta, record, pixel_size)
    axis, angles = _rocking(folder, meta, record, len(data), files, rocking)
    notes |= {"detector": detector, "source": "34-ID-C"}
    if meta.get("direct_beam_pixel") is not None:
        where = f"{folder}/meta.json: direct_beam_pixel"
        notes["direct_beam"] = checks.array(where, meta["direct_beam_pixel"], (2,), float).tolist()
    monitor = record.readings(MONITOR) if record else None
    if record:
        notes["command"] = record.command
    return Scan(
        data=data,
        mask=mask,
        rocking_angles=angles,
        energy=values["energy_keV"] * KEV,
        distance=values["distance_m"],
        pixel_size=(pixel_size, pixel_size),
        centre=_find_centre(folder, meta, data, mask),
        arm=(("y+", math.radians(values["delta_deg"])), ("x-", math.radians(values["gamma_deg"]))),
        rocking_axis=axis,
        flux=None if monitor is None else relative_flux(monitor, len(data)),
        name=_sample_name(folder, meta, record),
        metadata=notes,
    )


def _read_meta(path):
    if not path.exists():
        return {}
    text = read_text(path, "JSON")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"{path}: expected a JSON object, got {checks.describe(meta)}")
    return meta


def _scan_number(folder, number):
    """The scan's number as given, or of the folder's name, or None."""
    found = re.search(r"_S([0-9]{1,9})$", folder.resolve().name) if number is None else None
    return int(found.group(1)) if found else number


def _find_spec(folder, number, spec, points):
    """The SPEC record of the scan, or None where no SPEC file is there (and none was asked for)."""
    if spec is not None:
        return parse_spec([spec], number, points)
    for place, pattern in ((folder, "spec_*.txt"), (folder, "*.spec"), (folder.resolve().parent, "*.spec")):
        paths = [path for path in sorted(place.glob(pattern)) if not path.name.startswith(".")]
        if paths:
            return parse_spec(paths, number, points)
    return None


class _Files(NamedTuple):
    """Where the counts of a scan are: one ``packed`` file, or ``frames``."""

    packed: Path | None
    frames: list[Path]

    @property
    def points(self):
        """Number of frames, or None where it takes reading them."""
        if self.packed is None:
            return len(self.frames) if len(self.frames) > 1 else None
        with open_arrays(self.packed) as archive:
            shape = archive.shape("data") if "data" in archive.keys() else ()
        return shape[0] if shape else None


def _find_files(folder, number):
    packed = [path for path in sorted(folder.glob("*_raw_counts.npz")) if not path.name.startswith(".")]
    if len(packed) > 1:
        raise ValueError(f"{folder}: expected one *_raw_counts.npz, got {', '.join(p.name for p in packed)}")
    return _Files(packed[0], []) if packed else _Files(None, find_frames(folder, number))


def _read_counts(folder, files, record):
    """Counts (frame, row, col), mask (True = good), notes; frames after an aborted scan's last point are left out."""
    data = read_array(files.packed, "data", only=False) if files.packed else read_frames(folder, files.frames)
    data = three_axes(data)
    if data.ndim != 3 or data.dtype.kind not in "iuf" or data.size == 0:
        raise ValueError(f"{folder}: expected counts >= 0 (frame, row, col), got {checks.describe(data)}")
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
    notes = {}
    points = len(record.table) if record and record.aborted else len(data)
    if 0 < points < len(data):
        notes["frames_without_point"] = len(data) - points
        data = data[:points]
    data, mask, masked = mask_bad_values(data)
    if masked:
        notes["masked_on_read"] = masked
    return data, mask, notes


def _read_fields_npz(folder, dark, whitefield):
    wanted = {k: use for k, use in (("dark", dark), ("whitefield", whitefield)) if use}
    if not wanted:
        return {}
    paths = [path for path in sorted(folder.glob("detector_corrections*.npz")) if not path.name.startswith(".")]
    if len(paths) != 1:
        raise FileNotFoundError(
            f"{folder}: expected one detector_corrections*.npz for {' and '.join(wanted)}, got {len(paths)}; "
            + " and ".join(f"{k}=False" for k in wanted) + " leaves it out"
        )  # fmt: skip
    return {k: read_array(paths[0], k, only=False) for k in wanted}


def _read_fields_tif(folder, dark, whitefield, record, shape):
    """Dark and white field, cut from the whole detector to the region SPEC says was read out."""
    fields = {}
    for key, use in (("dark", dark), ("whitefield", whitefield)):
        if not use:
            continue
        path = next((p for p in (folder / f"{key}.tif", folder.resolve().parent / f"{key}.tif") if p.exists()), None)
        if path is None:
            raise FileNotFoundError(
                f"{folder}: expected {key}.tif here or one folder above, got none; {key}=False leaves it out"
            )
        field = read_tif(path)
        if len(field) != 1:
            raise ValueError(f"{path}: expected one image, got {len(field)} pages")
        field = field[0]
        fields[key] = field if field.shape == shape else _cut_to_region(field, folder, path, record, shape)
    return fields


def _cut_to_region(field, folder, path, record, shape):
    """The part of a field of the whole detector that was read out, of ``shape``."""
    roi = record.roi if record else None
    if roi is None:
        raise ValueError(
            f"{path}: expected shape {shape} or a region #UIMR5 in SPEC to cut it, got {field.shape} and none"
        )
    first_column, columns, first_row, rows = roi
    for first, count in ((first_column, columns), (first_row, rows)):
        if record.detector in _PIXEL and first < _SEAM < first + count:
            raise ValueError(
                f"{folder}: expected a region within one detector chip, got {roi} across the seam at {_SEAM}"
            )
    field = field[first_row : first_row + rows, first_column : first_column + columns]
    if field.shape != shape:
        raise ValueError(f"{path}: expected the shape {shape} of the frames in region {roi}, got {field.shape}")
    return field


def _correct(folder, data, mask, fields, dark_threshold, whitefield_minimum):
    """Data, mask (True = good) and notes after the dark mask and the division by the normalised white field."""
    good = np.ones(data.shape[1:], bool)
    notes = {}
    for key, field in fields.items():
        if field.shape != good.shape or field.dtype.kind not in "biuf":
            raise ValueError(f"{folder}: {key}: expected numbers of shape {good.shape}, got {checks.describe(field)}")
    if "dark" in fields:
        good &= (fields["dark"] < dark_threshold) & ~bad_values(fields["dark"])
        notes["masked_by_dark"] = int((~good).sum())
    if "whitefield" in fields:
        field = fields["whitefield"].astype(np.float64)
        lit = good & ~bad_values(fields["whitefield"]) & (field > 0)
        if not lit.any():
            raise ValueError(f"{folder}: whitefield: expected counts > 0, got none")
        field = field / np.median(field[lit])
        strong = lit & (field >= whitefield_minimum)
        notes["masked_by_whitefield"] = int((good & ~strong).sum())
        good = strong
        data = _divided(data, np.where(good, field, 1.0).astype(np.float32))
    mask = mask & good
    if not mask.all():
        data = np.where(mask, data, data.dtype.type(0))
    return data, mask, notes


def _divided(data, field):
    """Counts over a field (row, col), float32; frame by frame, which needs no further copy of the data."""
    result = np.empty(data.shape, np.float32)
    for frame, counts in zip(result, data, strict=True):
        frame[...] = counts / field
    return result


def _agree(folder, meta, record, key, motor, factor, tolerance):
    """A number that meta.json, SPEC or both give."""
    ours = checks.number(f"{folder}/meta.json: {key}", meta[key]) if key in meta else None
    theirs = record.motors.get(motor) if record else None
    theirs = None if theirs is None else checks.number(f"{record.place}: motor {motor}", theirs) * factor
    if ours is None and theirs is None:
        raise ValueError(f"{folder}: expected {key} in meta.json or motor {motor} in a SPEC file, got neither")
    if ours is not None and theirs is not None and not abs(ours - theirs) <= tolerance:
        raise ValueError(
            f"{folder}: expected {key} of meta.json and motor {motor} of SPEC to agree, got {ours:g} and {theirs:g}"
        )
    return theirs if ours is None else ours


def _find_detector(folder, meta, record, pixel_size):
    """Name of the detector and its pixel size in m."""
    detector = (record.detector if record else None) or str(meta.get("detector", "")).split(" ")[0]
    pixel_size = pixel_size or meta.get("pixel_m") or _PIXEL.get(detector)
    if pixel_size is None:
        raise ValueError(
            f"{folder}: expected pixel_m in meta.json, pixel_size or a known detector, got detector {detector!r}"
        )
    return detector, checks.number(f"{folder}: pixel_size", pixel_size, above=0)


def _find_centre(folder, meta, data, mask):
    """(frame, row, col) that k_h hits: as meta.json says, else the pattern's."""
    key = "pattern_centre_frame_row_col"
    if meta.get(key) is None:
        try:
            return pattern_centre(data, mask)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
    return tuple(map(float, checks.array(f"{folder}/meta.json: {key}", meta[key], (3,), float)))


def _sample_name(folder, meta, record):
    name = str(meta.get("sample", "")).split("(")[0].strip()
    if name:
        return name
    return f"scan {record.number}" if record else folder.name


def _rocking(folder, meta, record, count, files, needed):
    """Axis (lab) and angles (frame,) in rad of the scanned motor; None where it is not ``needed`` and not known."""
    for label, frames in (("meta.json", meta.get("frames")), ("SPEC", len(record.table) if record else None)):
        if frames is not None and frames != count:
            single = files.frames if len(files.frames) == count else []
            missing = name_missing(single, frames) if isinstance(frames, int) else ""
            raise ValueError(f"{folder}: expected {frames} frames as {label} says, got {count}{missing}")
    motor = _scanned(meta, record)
    if motor in _ENERGY_MOTORS:
        raise ValueError(f"{folder}: expected a scan of Theta or Phi, got {motor}: {OTHER_ENERGIES}")
    try:
        return _rocking_of_motor(folder, meta, record, count)
    except ValueError:
        if needed:
            raise
        return None, None


def _scanned(meta, record):
    """Name of the motor that was scanned, "" where nobody says it."""
    return record.motor if record else str(meta.get("scan_motor", "")).capitalize()


def _rocking_of_motor(folder, meta, record, count):
    """Axis and angles; ValueError where they are not those of one motor."""
    motor = _scanned(meta, record)
    named = str(meta.get("scan_motor", motor)).lower()
    if named != motor.lower():
        raise ValueError(f"{folder}: expected one rocking motor, got {named} in meta.json and {motor} in SPEC")
    if motor not in ("Theta", "Phi"):
        raise ValueError(f"{folder}: expected a scan of Theta or Phi, got {motor or 'no motor'}")
    axis = "y+" if motor == "Theta" else _phi_axis(folder, meta, record)
    return axis, np.radians(_motor_positions(folder, meta, record, count))


def _phi_axis(folder, meta, record):
    """The axis of phi (lab): chi turns y about -z, then theta turns that about y."""
    pose = {"Theta": meta.get("theta_deg"), "Chi": meta.get("chi_deg")} | (record.motors if record else {})
    if pose["Theta"] is None or pose["Chi"] is None:
        raise ValueError(f"{folder}: expected theta and chi for a scan of Phi, got {pose}")
    theta, chi = (math.radians(checks.number(f"{folder}: {name}", pose[name])) for name in ("Theta", "Chi"))
    return float(np.sin(chi) * np.cos(theta)), float(np.cos(chi)), float(-np.sin(chi) * np.sin(theta))


def _motor_positions(folder, meta, record, count):
    """Positions (frame,) in deg. SPEC gives the start, meta.json the step if it has one."""
    step = meta.get("scan_step_deg")
    if step is not None:
        step = checks.number(f"{folder}/meta.json: scan_step_deg", step)
    if record is None and step is None:
        raise ValueError(f"{folder}: expected scan_step_deg in meta.json or a SPEC file, got neither")
    if record is None:
        return step * np.arange(count)
    positions = record.positions()
    if step is None:
        return positions
    uniform = positions[0] + step * np.arange(count)
    worst = np.abs(uniform - positions).max()
    if worst > 0.5 * abs(step):  # half a step: one frame more would be mistaken for another
        raise ValueError(
            f"{folder}: expected scan_step_deg of meta.json as in SPEC, got {step:g} and a drift of {worst:g} deg"
        )
    return uniform
