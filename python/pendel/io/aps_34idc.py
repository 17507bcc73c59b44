"""Rocking scans of beamline 34-ID-C (APS).

Lab frame: z along the beam, y up, x = y x z. At 34-ID-C delta turns the detector arm about +y, gamma about -x inside
it, theta turns the sample about +y, and phi about the axis that theta and chi carry. Columns grow along the arm's +x,
rows along its -y.
"""

import json
import math
import re
from pathlib import Path

import numpy as np

from ..base import checks
from ..base.constants import KEV
from .scans import Scan, pattern_centre, relative_flux
from .spec import parse_spec

MONITOR = "Monitor"  # column of a SPEC table
_PIXEL = {"34idcTIM1": 55e-6, "34idcTIM2": 55e-6}  # Timepix, m
_SEAM = 256  # four chips of 256 x 256 pixels: a region that crosses this row or column has wider pixels there
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
) -> Scan:
    """Read one 34-ID-C scan as a `pendel.io.Scan`.

    The folder holds either ``*_raw_counts.npz`` (``data`` (frame, row, col)), ``detector_corrections*.npz``
    (``dark``, ``whitefield``), ``meta.json`` and SPEC text ``spec_*.txt``; or one .tif file per frame, with
    ``dark.tif``, ``whitefield.tif`` (whole detector) and the SPEC file there or one folder above. ``meta.json`` wins
    over SPEC; where the two disagree it is an error. The scan's centre is meta.json's ``pattern_centre_frame_row_col``
    or `pattern_centre`; angles are in rad.

    Parameters
    ----------
    folder : of one scan.
    scan : number in the SPEC file; None: the one in the folder's name ("..._S0054") or the only one in the file.
    spec : path of the SPEC file; None: the one in the folder or above it.
    dark, whitefield : False leaves the correction out. Pixels with dark >= ``dark_threshold`` counts, and pixels whose
        white field is below ``whitefield_minimum`` of its median, are masked; the others are divided by white field /
        median (data become float32).
    pixel_size : m, for detectors not known by name.

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
    record = _find_spec(folder, scan, spec)
    data, fields = _read_counts(folder, record, dark, whitefield)
    data, mask, notes = _correct(folder, data, fields, dark_threshold, whitefield_minimum)

    values = {k: _agree(folder, meta, record, k, *rule) for k, rule in _FIELDS.items()}
    detector, pixel_size = _find_detector(folder, meta, record, pixel_size)
    axis, angles = _rocking(folder, meta, record, len(data))
    notes |= {"detector": detector, "source": "34-ID-C"}
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
        centre=_find_centre(meta, data, mask),
        arm=(("y+", math.radians(values["delta_deg"])), ("x-", math.radians(values["gamma_deg"]))),
        rocking_axis=axis,
        flux=None if monitor is None else relative_flux(monitor, len(data)),
        name=_sample_name(folder, meta, record),
        metadata=notes,
    )


def _read_meta(path):
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(meta, dict):
        raise ValueError(f"{path}: expected a JSON object, got {checks.describe(meta)}")
    return meta


def _find_spec(folder, number, spec):
    """The SPEC record of the scan, or None where no SPEC file is there (and none was asked for)."""
    if number is None:
        found = re.search(r"_S(\d+)$", folder.resolve().name)
        number = int(found.group(1)) if found else None
    if spec is not None:
        paths = [Path(spec)]
    else:
        paths = (
            sorted(folder.glob("spec_*.txt"))
            or sorted(folder.glob("*.spec"))
            or sorted(folder.resolve().parent.glob("*.spec"))
        )
    return parse_spec(paths, number) if paths else None


def _read_counts(folder, record, dark, whitefield):
    """Counts (frame, row, col) and {"dark", "whitefield": (row, col)} of either layout."""
    packed = sorted(folder.glob("*_raw_counts.npz"))
    if len(packed) > 1:
        raise ValueError(f"{folder}: expected one *_raw_counts.npz, got {', '.join(p.name for p in packed)}")
    if packed:
        data = _read_npz(packed[0], "data")
        fields = _read_fields_npz(folder, dark, whitefield)
    else:
        data = _read_frames(folder)
        fields = _read_fields_tif(folder, dark, whitefield, record, data.shape[1:])
    if data.ndim != 3 or data.dtype.kind not in "iuf" or data.size == 0 or data.min() < 0:
        raise ValueError(f"{folder}: expected counts >= 0 (frame, row, col), got {checks.describe(data)}")
    return data, fields


def _read_npz(path, key):
    try:
        with np.load(path, allow_pickle=False) as archive:
            if key not in archive:
                raise KeyError(f"{path}: expected the array {key!r}, got {', '.join(archive) or 'none'}")
            return archive[key]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected an npz archive, got no such file") from None
    except KeyError as error:
        raise ValueError(error.args[0]) from None
    except Exception as error:  # zipfile, zlib, EOF and header errors: NumPy lets all of them through
        raise ValueError(f"{path}: expected an npz archive, got a truncated or damaged file ({error})") from None


def _read_fields_npz(folder, dark, whitefield):
    wanted = {k: use for k, use in (("dark", dark), ("whitefield", whitefield)) if use}
    if not wanted:
        return {}
    paths = sorted(folder.glob("detector_corrections*.npz"))
    if len(paths) != 1:
        raise FileNotFoundError(
            f"{folder}: expected one detector_corrections*.npz for {' and '.join(wanted)}, got {len(paths)}; "
            + " and ".join(f"{k}=False" for k in wanted) + " leaves it out"
        )  # fmt: skip
    return {k: _read_npz(paths[0], k) for k in wanted}


def _read_tif(path):
    try:
        import tifffile
    except ImportError:
        raise ImportError(f"{path}: expected the package tifffile to read it, got none; pip install tifffile") from None
    try:
        return tifffile.imread(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected a tif file, got no such file") from None
    except Exception as error:  # TiffFileError, struct and zlib errors
        raise ValueError(f"{path}: expected a tif file, got a truncated or damaged one ({error})") from None


def _read_frames(folder):
    paths = [p for p in folder.iterdir() if p.suffix in (".tif", ".tiff") and p.stem not in ("dark", "whitefield")]
    if not paths:
        raise FileNotFoundError(f"{folder}: expected *_raw_counts.npz or .tif frames, got neither")
    paths.sort(key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name)])
    frames = [_read_tif(p) for p in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.ndim != 2 or frame.shape != frames[0].shape:
            raise ValueError(f"{path}: expected a frame of shape {frames[0].shape}, got {frame.shape}")
    return np.stack(frames)


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
        field = _read_tif(path)
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


def _correct(folder, data, fields, dark_threshold, whitefield_minimum):
    """Data, mask (True = good) and notes after the dark mask and the division by the normalised white field."""
    mask = np.ones(data.shape[1:], bool)
    notes = {}
    for key, field in fields.items():
        if field.shape != mask.shape or field.dtype.kind not in "biuf":
            raise ValueError(f"{folder}: {key}: expected numbers of shape {mask.shape}, got {checks.describe(field)}")
    if "dark" in fields:
        mask &= fields["dark"] < dark_threshold
        notes["masked_by_dark"] = int((~mask).sum())
    if "whitefield" in fields:
        field = fields["whitefield"].astype(np.float64)
        lit = mask & np.isfinite(field) & (field > 0)
        if not lit.any():
            raise ValueError(f"{folder}: whitefield: expected counts > 0, got none")
        field = field / np.median(field[lit])
        good = lit & (field >= whitefield_minimum)
        notes["masked_by_whitefield"] = int((mask & ~good).sum())
        mask &= good
        data = np.where(mask, data / np.where(mask, field, 1.0).astype(np.float32), 0).astype(np.float32)
    elif not mask.all():
        data = np.where(mask, data, 0).astype(data.dtype)
    return data, mask, notes


def _agree(folder, meta, record, key, motor, factor, tolerance):
    """A number that meta.json, SPEC or both give."""
    ours = checks.number(f"{folder}/meta.json: {key}", meta[key]) if key in meta else None
    theirs = record.motors.get(motor) if record else None
    theirs = None if theirs is None else theirs * factor
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
    return detector, checks.number("pixel_size", pixel_size, above=0)


def _find_centre(meta, data, mask):
    """(frame, row, col) that k_h hits: as meta.json says, else the pattern's."""
    centre = meta.get("pattern_centre_frame_row_col")
    if centre is None:
        return pattern_centre(data, mask)
    return tuple(map(float, checks.array("centre", centre, (3,), float)))


def _sample_name(folder, meta, record):
    name = str(meta.get("sample", "")).split("(")[0].strip()
    if name:
        return name
    return f"scan {record.number}" if record else folder.name


def _rocking(folder, meta, record, count):
    """Axis (lab) and angles (frame,) in rad of the scanned motor."""
    for label, frames in (("meta.json", meta.get("frames")), ("SPEC", len(record.table) if record else None)):
        if frames is not None and frames != count:
            raise ValueError(f"{folder}: expected {frames} frames as {label} says, got {count}")
    motor = record.motor if record else str(meta.get("scan_motor", "")).capitalize()
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
    theta, chi = np.radians([pose["Theta"], pose["Chi"]])
    return float(np.sin(chi) * np.cos(theta)), float(np.cos(chi)), float(-np.sin(chi) * np.sin(theta))


def _motor_positions(folder, meta, record, count):
    """Positions (frame,) in deg. SPEC gives the start, meta.json the step if it has one."""
    step = meta.get("scan_step_deg")
    if record is None and step is None:
        raise ValueError(f"{folder}: expected scan_step_deg in meta.json or a SPEC file, got neither")
    if record is None:
        return float(step) * np.arange(count)
    positions = record.positions()
    if step is None:
        return positions
    uniform = positions[0] + float(step) * np.arange(count)
    worst = np.abs(uniform - positions).max()
    if worst > 0.5 * abs(step):  # half a step: one frame more would be mistaken for another
        raise ValueError(
            f"{folder}: expected scan_step_deg of meta.json as in SPEC, got {step:g} and a drift of {worst:g} deg"
        )
    return uniform
