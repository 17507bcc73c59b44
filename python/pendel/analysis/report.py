"""A result as one HTML file that opens without a network: planes to slide through, the surface, curves, frames, facts.

Maps travel as 16-bit numbers between their extremes, 65535 where they are not known; `report.html` shows them.
"""

import base64
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from scipy import ndimage

from ..base import files
from ..base.version import __version__
from ..io import StoredResult, kinds
from .slices import Window, colour_limit, core_of, crystal_support

UNKNOWN = 65535
COLOURS = {"sequential": "viridis", "diverging": "RdBu_r", "cyclic": "twilight_shifted", "light": "magma"}
SURFACE_VOXELS = 20_000  # drawn at most
SURFACE = 0.5  # of the largest |S|
WRAPS = 2.5  # rad: phases that come nearer to pi are shown in colours that go round
RESIDUAL = 4.0  # noises at the ends of the scale of residuals


def write_report(path: Path | str, result: StoredResult, *, force: bool = False) -> None:
    """Write a result as one HTML file.

    Parameters
    ----------
    path : file to write; an old picture of pendel is replaced.
    result : `pendel.io.StoredResult`; what it does not hold is left out.
    force : replace a file of any kind.

    Raises
    ------
    TypeError, ValueError : where S is zero everywhere, or the support not of its shape.
    OSError : when the file cannot be written; FileExistsError for one of another kind.
    """
    if not force:
        kinds.refuse_to_replace(path, kinds.PICTURE)
    files.write_whole(path, report(result).encode())


def report(result: StoredResult) -> str:
    """The text of the file that `write_report` writes."""
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    shown = json.dumps(_contents(result)).replace("</", "<\\/")
    title = html.escape(result.name or result.crystal or "result")
    return (
        template.replace("{{title}}", title).replace("{{made by}}", f"pendel {__version__}").replace("{{data}}", shown)
    )


def _contents(result) -> dict[str, Any]:
    support = crystal_support(result.S, result.support)
    window = Window(support, result.voxel)
    cuts = tuple(window.cuts)
    voxel = [float(step) * (1e9 if window.known else 1.0) for step in window.voxel]
    return {
        "verdict": result.verdict,
        "trust": result.trust,
        "facts": _facts(result, support),
        "unit": "nm" if window.known else "voxels",
        "shape": [int(cut.stop - cut.start) for cut in cuts],
        "voxel": voxel,
        "middle": [int(centre - cut.start) for centre, cut in zip(window.centre, cuts, strict=True)],
        "origin": [float((cut.start - n // 2) * v) for cut, n, v in zip(cuts, result.S.shape, voxel, strict=True)],
        "maps": [_quantised(cuts, **one) for one in _maps(result, support)],
        "surface": _surface(result.S[cuts], support[cuts]),
        "arrows": _arrows(result),
        "curves": _curves(result),
        "frames": _frames(result),
        "colours": {name: _encoded(_table(known)) for name, known in COLOURS.items()},
    }


def _facts(result, support):
    """[[name, value]] as text."""
    facts = [["crystal", " ".join(filter(None, (result.crystal, _hkl(result.hkl))))]]
    if result.wavelength:
        facts.append(["wavelength", f"{1e10 * result.wavelength:.5g} Å"])
    if result.voxel:
        facts.append(["voxel (z, y, x)", " × ".join(f"{1e9 * v:.4g}" for v in result.voxel) + " nm"])
    facts += [["box (z, y, x)", " × ".join(map(str, result.S.shape))], ["support", f"{int(support.sum())} voxels"]]
    for name, title in (
        ("misfit", "relative misfit"),
        ("noise_misfit", "that of photon noise"),
        ("grid_misfit", "that of the voxels"),
        ("excess", "square residuals over photon noise"),
        ("twin_ratio", "misfit of the twin over the crystal's"),
    ):
        value = getattr(result, name)
        if value is not None:
            facts.append([title, f"{value:.3g}"])
    return [fact for fact in facts if fact[1]]


def _hkl(hkl):
    return "" if hkl is None else f"({' '.join(map(str, hkl))})"


def _maps(result, support):
    """Keywords of `_quantised` for every map there is."""
    S, solid = result.S, support & (np.abs(result.S) > 0.3 * np.abs(result.S).max())
    mean = np.angle(S[support].sum(dtype=np.complex128))
    phase = np.where(solid, np.angle(S * np.exp(-1j * mean)), np.nan)
    limit = colour_limit(phase, solid)
    wraps = limit > WRAPS
    limits, colours = ((-np.pi, np.pi), "cyclic") if wraps else ((-limit, limit), "diverging")
    yield {"name": "phase", "unit": "rad", "values": phase, "limits": limits, "colours": colours}
    amplitude = np.abs(S)
    top = float(np.percentile(amplitude[support], 99.5)) or 1.0
    yield {"name": "amplitude", "unit": "1", "values": amplitude, "limits": (0.0, top), "colours": "sequential"}
    for name, unit, factor in (("displacement", "pm", 1e12), ("strain", "10⁻³", 1e3)):
        values = getattr(result, name)
        if values is not None:
            values = np.where(solid, np.asarray(values, float) * factor, np.nan)
            limit = colour_limit(values, core_of(solid))
            yield {"name": name, "unit": unit, "values": values, "limits": (-limit, limit), "colours": "diverging"}


def _quantised(cuts, name, unit, values, limits, colours):
    values = values[cuts]
    known = np.isfinite(values)
    low, high = (float(f(values[known])) if known.any() else 0.0 for f in (np.min, np.max))
    step = (high - low) / (UNKNOWN - 1) or 1.0
    numbers = np.full(values.shape, UNKNOWN, "<u2")
    numbers[known] = np.round((values[known] - low) / step)
    told = {"name": name, "unit": unit, "low": low, "step": step, "limits": limits, "colours": colours}
    return told | {"data": _encoded(numbers)}


def _surface(S, support):
    """Voxels of the surface and their normals."""
    size = ndimage.gaussian_filter(np.where(support, np.abs(S), 0), 1)
    inside = size > SURFACE * size.max()
    places = np.argwhere(inside & ~ndimage.binary_erosion(inside))
    places = places[:: -(-len(places) // SURFACE_VOXELS)]
    slopes = np.stack([-slope[tuple(places.T)] for slope in np.gradient(size)], axis=1)
    slopes /= np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), 1e-12)
    return {
        "count": len(places),
        "places": _encoded(places.astype("<u2")),
        "normals": _encoded(np.round(127 * slopes).astype(np.int8)),
    }


def _arrows(result):
    """[[name, [x, y, z]]], unit vectors in the model frame."""
    arrows = []
    if result.k_0 is not None and result.k_h is not None:
        arrows += [["k₀", result.k_0], ["k_h", result.k_h], ["h", np.subtract(result.k_h, result.k_0)]]
    if result.frame is not None:
        arrows += [[f"lab {name}", np.asarray(result.frame)[:, i]] for i, name in enumerate("xyz")]
    told: list[list] = []
    for name, v in arrows:
        v = np.asarray(v, float) / np.linalg.norm(v)
        same = next((one for one in told if np.allclose(one[1], v, atol=1e-6)), None)
        if same is None:
            told.append([name, v.tolist()])
        else:
            same[0] += f", {name}"
    return told


def _curves(result):
    curves = []
    rocking = {"measured": result.rocking_measured, "modelled": result.rocking_modelled}
    series = [{"name": name, "y": _list(y)} for name, y in rocking.items() if y is not None]
    if series:
        angles = result.rocking_angles
        x = np.arange(len(series[0]["y"])) if angles is None else np.rad2deg(angles)
        label = "frame" if angles is None else "rocking angle (deg)"
        curves.append({"title": "rocking curve", "x": _list(x), "label": label, "log": True, "series": series})
    for name in ("loss", "misfit"):
        if name in result.loss and np.ndim(result.loss[name]) == 1 and len(result.loss[name]) > 1:
            y = _list(result.loss[name])
            log, series = min(y) > 0, [{"name": name, "y": y}]
            told = {"title": name, "x": list(range(1, len(y) + 1)), "label": "epoch or iteration"}
            curves.append(told | {"log": log, "series": series})
    return curves


def _frames(result):
    if result.measured_frame is None or result.modelled_frame is None:
        return []
    measured, modelled = (np.maximum(np.asarray(f, float), 0) for f in (result.measured_frame, result.modelled_frame))
    top = np.log10(1 + max(measured.max(), modelled.max())) or 1.0
    which = "" if result.frame_index is None else f", frame {result.frame_index}"
    told = [
        {"title": f"{name}{which}, log₁₀(1 + counts) to {top:.2g}", "colours": "light", "data": np.log10(1 + f) / top}
        for name, f in (("measured", measured), ("modelled", modelled))
    ]
    noises = 2 * (np.sqrt(modelled) - np.sqrt(measured))  # of counts, whose square roots have a variance of 1/4
    title = f"residual, modelled less measured: ±{RESIDUAL:g} photon noises"
    told.append({"title": title, "colours": "diverging", "data": np.clip(0.5 + noises / (2 * RESIDUAL), 0, 1)})
    rows, columns = measured.shape
    shape = {"rows": rows, "columns": columns}
    return [one | shape | {"data": _encoded(np.round(255 * one["data"]).astype(np.uint8))} for one in told]


def _table(name):
    """256 colours, uint8 (256, 3)."""
    return np.round(255 * colormaps[name](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)


def _encoded(values):
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _list(values):
    return [float(v) for v in np.asarray(values, float)]
