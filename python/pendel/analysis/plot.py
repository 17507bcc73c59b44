"""Pictures of crystals and fits. Every function returns a matplotlib Figure; no window, no global state.

Crystal functions are shown as colours: brightness is the amplitude, hue is the phase. The phase's mean over the
crystal is set to zero first, since no measurement of one reflection knows it.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks, files
from ..base.memory import refuse_too_little_to_draw
from ..base.version import __version__
from ..io import StoredResult, kinds
from .repeatability import Repeatability
from .slices import (
    SMALL,
    STYLE,
    Window,
    absent,
    colour_limit,
    core_of,
    crystal_support,
    decorate,
    length_unit,
    show_map,
    show_size,
    strain_unit,
)

refuse_too_little_to_draw()
try:
    from matplotlib.colors import LogNorm, hsv_to_rgb
    from matplotlib.figure import Figure
except ImportError:
    raise ImportError("plot: expected the package matplotlib, got none; pip install 'pendel[plot]'") from None

_SIZE = (16, 11.6)  # inch: 1600 pixels wide at 100 dpi
_SENTENCE = 175  # characters of a line as wide as that
_SLICES = (("x", "y"), ("x", "z"), ("y", "z"))  # horizontal, vertical axis of the three central slices
_DATA = ("measured", "truth", "data")  # curves that are drawn as dots
_COLOURS = {
    "measured": "black",
    "truth": "black",
    "kinematic": "tab:orange",
    "dynamical": "tab:blue",
    "modelled": "tab:blue",
}
# By ending: how a format is told what made the picture, for `pendel.io.kinds`.
_MADE_BY = f"pendel {__version__}"
_NOTES: dict[str, dict[str, Any]] = {
    "png": {"metadata": {"Software": _MADE_BY}},
    "gif": {"pil_kwargs": {"comment": _MADE_BY.encode()}},
    "webp": {"pil_kwargs": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0" + _MADE_BY.encode()}},
}
_NOTES |= dict.fromkeys(("svg", "svgz", "pdf", "ps", "eps"), {"metadata": {"Creator": _MADE_BY}})
_NOTES |= dict.fromkeys(("jpg", "jpeg"), {"pil_kwargs": {"comment": _MADE_BY.encode()}})
_NOTES |= dict.fromkeys(("tif", "tiff"), {"pil_kwargs": {"tiffinfo": {305: _MADE_BY}}})
_NOTES["avif"] = _NOTES["webp"]


def complex_to_rgb(S: ArrayLike, maximum: float | None = None) -> np.ndarray:
    """Colours of complex numbers: brightness |S| / maximum, hue the phase.

    Phase 0 is red, 2 pi/3 green, -2 pi/3 blue.

    Parameters
    ----------
    S : complex, any shape.
    maximum : amplitude of full brightness, larger ones are clipped; None: the largest |S|.

    Returns
    -------
    float64 S.shape + (3,), RGB in [0, 1].

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    S = checks.numpy_array("S", S)
    amplitude = np.abs(S).astype(np.float64)
    maximum = amplitude.max(initial=0) if maximum is None else checks.number("maximum", maximum, above=0)
    value = np.clip(amplitude / maximum, 0, 1) if maximum > 0 else amplitude
    hue = (np.angle(S) / (2 * np.pi)) % 1.0
    return hsv_to_rgb(np.stack([hue, np.ones_like(value), value], axis=-1))


def result_figure(stored: StoredResult) -> Figure:
    """Central slices, phase, displacement, strain, a frame, rocking curve and loss of a result, under its trust.

    What the file does not hold is left out and said so. 16 x 11.6 inch: 1600 pixels wide at dpi=100.

    Parameters
    ----------
    stored : `pendel.io.StoredResult`.

    Raises
    ------
    TypeError, ValueError : where S is zero everywhere, or the support not of its shape.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    grid = figure.add_gridspec(3, 4)
    if stored.trust:
        figure.suptitle("\n".join(textwrap.wrap(f"trust: {stored.trust}", _SENTENCE)), fontsize=11.5)
    support = crystal_support(stored.S, stored.support)
    S = stored.S * np.exp(-1j * _mean_phase(stored.S, support))
    window = Window(support, stored.voxel)
    top = _brightest(S, support)

    for i, plane in enumerate(_SLICES):
        axes = figure.add_subplot(grid[0, i])
        _show_complex(axes, S, window, plane, top)
        axes.set_title(f"crystal function, slice {plane[0]}{plane[1]}", **STYLE)
    _facts(figure.add_subplot(grid[0, 3]), stored)

    # the phase of a voxel with next to nothing in it would set the colour scale
    solid = support & (np.abs(S) > 0.3 * top)
    _maps(figure, [grid[1, i] for i in range(3)], stored, support, solid, window)
    curves = {"measured": stored.rocking_measured, "modelled": stored.rocking_modelled}
    _rocking(figure.add_subplot(grid[1, 3]), stored.rocking_angles, curves)

    _frames(figure, [grid[2, i] for i in range(3)], stored.measured_frame, stored.modelled_frame, stored.frame_index)
    fits = {key: stored.loss[key] for key in ("loss", "misfit") if key in stored.loss}
    _loss(figure.add_subplot(grid[2, 3]), fits or stored.loss)
    return figure


def repeatability_figure(told: Repeatability, voxel: tuple[float, float, float], title: str = "") -> Figure:
    """What several results agree on, and where they do not: mean, spread of phase and of |S|, three slices each.

    Parameters
    ----------
    told : `pendel.Repeatability`.
    voxel : (dz, dy, dx), m.
    title : above all of it.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    grid = figure.add_gridspec(3, 3)
    figure.suptitle(title)
    window = Window(told.inside, checks.lengths("voxel", voxel, 3))
    mean = told.mean * np.exp(-1j * _mean_phase(told.mean, told.inside))
    top = _brightest(mean, told.inside)
    spreads = ((told.phase_spread, "spread of the phase", "rad"), (told.amplitude_spread, "spread of |S|", "1"))
    for column, plane in enumerate(_SLICES):
        axes = figure.add_subplot(grid[0, column])
        _show_complex(axes, mean, window, plane, top)
        axes.set_title(f"mean, slice {plane[0]}{plane[1]}", **STYLE)
        for row, (values, name, unit) in enumerate(spreads, 1):
            axes = figure.add_subplot(grid[row, column])
            show_size(figure, axes, values, told.inside, window, plane, unit)
            axes.set_title(f"{name}, slice {plane[0]}{plane[1]}", **STYLE)
    return figure


def comparison_figure(
    truth: ArrayLike,
    kinematic: ArrayLike,
    dynamical: ArrayLike,
    *,
    voxel: tuple[float, float, float],
    support: ArrayLike | None = None,
    rocking_angles: ArrayLike | None = None,
    rocking: Mapping[str, ArrayLike] | None = None,
    loss: ArrayLike | Mapping[str, ArrayLike] | None = None,
    title: str = "",
) -> Figure:
    """A known crystal beside its kinematic and its dynamical reconstruction.

    16 x 11.6 inch: 1600 pixels wide at dpi=100.

    Parameters
    ----------
    truth, kinematic, dynamical : complex (nz, ny, nx) on one grid and already laid over each other; a constant phase
        is removed here.
    voxel : (dz, dy, dx), m.
    support : bool (nz, ny, nx), where phase errors count; None: truth above 30 % of its maximum.
    rocking_angles : (frame,), rad.
    rocking : curves (frame,) by name.
    loss : 1-D array, or several by name.
    title : above all.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    truth = checks.array("truth", truth, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    objects = {"truth": truth}
    for name, S in (("kinematic", kinematic), ("dynamical", dynamical)):
        objects[name] = checks.array(name, S, truth.shape, np.complex128, axes="(nz, ny, nx)")
    voxel = checks.lengths("voxel", voxel, 3)
    inside = crystal_support(truth, support)
    window = Window(inside, voxel)
    truth = truth * np.exp(-1j * _mean_phase(truth, inside))

    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.suptitle(title or "", fontsize=12)
    grid = figure.add_gridspec(3, 4)
    errors = {}
    for i, (name, S) in enumerate(objects.items()):
        S = S * np.exp(-1j * np.angle(np.sum((S * truth.conj())[inside])))
        _two_slices(figure, [grid[0, i], grid[1, i]], name, S, window, _brightest(S, inside))
        errors[name] = np.angle(S * truth.conj())

    axes = figure.add_subplot(grid[2, 0])
    show_map(figure, axes, np.angle(truth), inside, window, ("x", "z"), "rad")
    axes.set_title("phase of the truth, slice xz", **STYLE)
    _phase_errors(figure, [grid[2, 1], grid[2, 2]], errors, inside, window)

    _rocking(figure.add_subplot(grid[0, 3]), rocking_angles, rocking or {})
    if loss is None:
        loss = {}
    _loss(figure.add_subplot(grid[1, 3]), loss if isinstance(loss, Mapping) else {"loss": loss})
    axes = figure.add_subplot(grid[2, 3])
    axes.axis("off")
    _wheel(axes.inset_axes((0.2, 0.2, 0.6, 0.6)))
    return figure


def save(figure: Figure, path: str | os.PathLike, dpi: float = 100, *, force: bool = False) -> None:
    """Write a Figure, in the format of the ending of ``path``, whole or not at all. 1600 pixels wide at dpi=100.

    The file says that pendel made it, where the format has room. Without ``force`` only such ones are replaced.

    Raises
    ------
    ValueError : for an ending matplotlib does not know.
    OSError : where the file cannot be written; FileExistsError where one of another kind is there.
    """
    path = Path(path)
    ending, known = path.suffix[1:].lower(), figure.canvas.get_supported_filetypes()
    if ending not in known:
        raise ValueError(f"{path}: expected an ending out of {', '.join(sorted(known))}, got {path.suffix!r}")
    if not force:
        kinds.refuse_to_replace(path, kinds.PICTURE)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=ending, dpi=dpi, facecolor="white", **_NOTES.get(ending, {}))
    files.write_whole(path, drawn.getbuffer())


def _mean_phase(S, support):
    return np.angle(np.sum(S[support], dtype=np.complex128))


def _brightest(S, support):
    """The amplitude of full brightness: hot voxels do not darken the others."""
    return np.percentile(np.abs(S[support]), 99.5)


def _wrapped(phase):
    """Whether a phase map is modulo 2 pi (an unwrapped one may leave [-pi, pi])."""
    return np.nanmax(np.abs(phase)) <= np.pi * (1 + 1e-6)  # float32 rounding of pi


def _phase_map(stored, support):
    """The result's phase with its mean over the crystal taken off; wrapped if the result's is."""
    phase = np.angle(stored.S) if stored.phase is None else stored.phase
    if _wrapped(phase):
        return np.angle(np.exp(1j * phase) * np.exp(-1j * _mean_phase(stored.S, support)))
    return phase - phase[support].mean()


def _show_complex(axes, S, window, plane, top):
    image = complex_to_rgb(window.cut(S, plane), top)
    axes.imshow(image, origin="lower", extent=window.extent(plane), interpolation="nearest", aspect="equal")
    decorate(axes, window, plane, "white")


def _two_slices(figure, places, name, S, window, top):
    """Slices xz and xy of a crystal function."""
    for place, plane in zip(places, (("x", "z"), ("x", "y")), strict=True):
        axes = figure.add_subplot(place)
        _show_complex(axes, S, window, plane, top)
        axes.set_title(f"{name}, slice {plane[0]}{plane[1]}", **STYLE)


def _maps(figure, places, stored, support, solid, window):
    """Phase, displacement and strain of a result, slices xz."""
    core = core_of(solid)
    maps = (
        ("phase", _phase_map(stored, support), ("rad", 1.0), solid),
        (_displacement_title(stored), stored.displacement, length_unit(stored.displacement, solid), solid),
        ("strain along h", stored.strain, strain_unit(stored.strain, solid), core),
    )
    for place, (title, values, (unit, factor), shown) in zip(places, maps, strict=True):
        axes = figure.add_subplot(place)
        if values is None:
            absent(axes, title)
            continue
        values = np.asarray(values) * factor
        show_map(figure, axes, values, shown, window, ("x", "z"), unit, colour_limit(values, core))
        axes.set_title(f"{title}, slice xz", **STYLE)


def _displacement_title(stored):
    """What the map shows; the lattice spacing that it is modulo, where the file says so."""
    spacing = stored.displacement_modulo
    return "displacement along h" + ("" if spacing is None else f" mod {1e12 * spacing:.4g} pm")


def _phase_errors(figure, places, errors, inside, window):
    """Phase errors of both reconstructions on one scale, slices xz."""
    names = ("kinematic", "dynamical")
    limit = max(colour_limit(errors[name], inside) for name in names)
    for place, name in zip(places, names, strict=True):
        axes = figure.add_subplot(place)
        show_map(figure, axes, errors[name], inside, window, ("x", "z"), "rad", limit)
        rms = np.sqrt(np.mean(errors[name][inside] ** 2))
        axes.set_title(f"phase error, {name}: rms {rms:.3g} rad", **STYLE)


def _wheel(axes):
    """What hue and brightness mean."""
    y, x = np.mgrid[-1:1:201j, -1:1:201j]
    radius = np.hypot(x, y)
    image = complex_to_rgb((x + 1j * y), 1.0)
    axes.imshow(np.dstack([image, radius <= 1]), origin="lower", extent=(-1, 1, -1, 1), interpolation="bilinear")
    for text, position in (
        ("0", (1.16, 0)),
        (r"$\pi/2$", (0, 1.14)),
        (r"$\pi$", (-1.16, 0)),
        (r"$-\pi/2$", (0, -1.16)),
    ):
        axes.text(*position, text, ha="center", va="center", fontsize=10.5)
    axes.text(0, -1.65, "hue: phase (rad)\nbrightness: amplitude", ha="center", va="center", fontsize=10.5)
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.95, 1.3), aspect="equal")
    axes.axis("off")


def _facts(axes, stored):
    axes.axis("off")
    _wheel(axes.inset_axes([0.1, 0.42, 0.8, 0.58]))
    lines = []
    if stored.name:
        lines.append(stored.name)
    if stored.crystal or stored.hkl:
        hkl = "(" + " ".join(map(str, stored.hkl)) + ")" if stored.hkl else ""
        lines.append(f"{stored.crystal} {hkl}".strip())
    if stored.wavelength:
        lines.append(f"wavelength {stored.wavelength * 1e10:.5g} Å")
    if stored.voxel:
        lines.append("voxel (z, y, x) " + " × ".join(f"{v * 1e9:.3g}" for v in stored.voxel) + " nm")
    if stored.misfit is not None:
        lines.append(f"relative misfit {stored.misfit:.4g}")
    lines.append(f"box (z, y, x) {' × '.join(map(str, stored.S.shape))}")
    if stored.verdict and not stored.trust:
        lines.append(f"verdict: {stored.verdict}")
    axes.text(
        0.5, 0.36, "\n".join(lines), ha="center", va="top", fontsize=11, linespacing=1.5, transform=axes.transAxes
    )


def _frames(figure, places, measured, modelled, index):
    """Measured and modelled frame on one logarithmic scale, and the difference of their square roots."""
    label = "" if index is None else f", frame {index}"
    norm = _counts_norm([f for f in (measured, modelled) if f is not None])
    for place, frame, name in ((places[0], measured, "measured"), (places[1], modelled, "modelled")):
        axes = figure.add_subplot(place)
        if frame is None:
            absent(axes, f"{name} frame")
            continue
        axes.set_facecolor("black")
        picture = axes.imshow(np.ma.masked_less_equal(frame, 0), norm=norm, cmap="inferno", interpolation="nearest")
        figure.colorbar(picture, ax=axes, shrink=0.85, pad=0.02).set_label("counts", **STYLE)
        axes.set_title(f"{name}{label}", **STYLE)
        _pixels(axes)

    axes = figure.add_subplot(places[2])
    if measured is None or modelled is None:
        absent(axes, "difference of the frames")
        return
    difference = np.sqrt(np.maximum(modelled, 0)) - np.sqrt(np.maximum(measured, 0))
    limit = float(np.nanpercentile(np.abs(difference), 99.5)) or 1.0
    picture = axes.imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(picture, ax=axes, shrink=0.85, pad=0.02).set_label(r"$\sqrt{\mathrm{counts}}$", **STYLE)
    axes.set_title("√modelled − √measured", **STYLE)
    _pixels(axes)


def _counts_norm(frames):
    """Six decades below the brightest pixel, but of counted photons not much below one."""
    top = max((float(np.nanmax(frame)) for frame in frames), default=1.0)
    if top > 1:
        return LogNorm(max(top * 1e-6, 0.3), top)
    return LogNorm(top * 1e-6 or 1e-6, top or 1.0)


def _pixels(axes):
    axes.set_xlabel("column", **STYLE)
    axes.set_ylabel("row", **STYLE)
    axes.tick_params(labelsize=SMALL)


def _rocking(axes, angles, curves):
    curves = {name: np.asarray(curve) for name, curve in curves.items() if curve is not None}
    if not curves:
        return absent(axes, "rocking curve")
    count = len(next(iter(curves.values())))
    across = np.arange(count) if angles is None else np.degrees(angles)
    for name, curve in curves.items():
        if name in _DATA:
            style = {"marker": ".", "linestyle": "none", "color": "black"}
        else:
            style = {"color": _COLOURS.get(name), "linewidth": 1.5}
        axes.semilogy(across, _positive(curve), label=name, **style)
    axes.set_xlabel("frame" if angles is None else "rocking angle (deg)", **STYLE)
    axes.set_ylabel("sum of the frame (counts)", **STYLE)
    axes.set_title("rocking curve", **STYLE)
    axes.legend(fontsize=SMALL, frameon=False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)


def _loss(axes, loss):
    curves = {name: np.asarray(values) for name, values in loss.items() if _is_curve(values)}
    if not curves:
        return absent(axes, "loss history")
    for name, values in curves.items():
        epochs = np.arange(1, len(values) + 1)
        axes.semilogy(epochs, _positive(values), label=name, color=_COLOURS.get(name), linewidth=1.5)
    axes.set_xlabel("epoch or iteration", **STYLE)
    axes.set_ylabel(next(iter(curves)) if len(curves) == 1 else "value", **STYLE)
    axes.set_title("loss history", **STYLE)
    if len(curves) > 1:
        axes.legend(fontsize=SMALL, frameon=False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.25)


def _is_curve(values):
    return values is not None and np.ndim(values) == 1 and len(values) > 0


def _positive(values):
    """NaN in place of what a logarithmic axis cannot show."""
    return np.where(values > 0, values, np.nan)
