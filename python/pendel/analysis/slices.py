"""Slices of crystals as pictures: which part of a box is shown, and maps of what is in it."""

from typing import Any

import numpy as np
from scipy import ndimage

from ..base import checks

AXES = {"z": 0, "y": 1, "x": 2}
STYLE: dict[str, Any] = {"fontsize": 11}
SMALL = 9.5  # font size of ticks and legends


class Window:
    """Which part of the box is shown: the support's bounding box and a margin, cut through the support's centre.

    voxel : (dz, dy, dx), m; None: not known, lengths are in voxels.
    """

    def __init__(self, support, voxel):
        self.known = voxel is not None
        self.voxel = voxel if self.known else (1.0, 1.0, 1.0)
        self.centre = []
        self.cuts = []
        for axis, n in enumerate(support.shape):
            profile = support.sum(axis=tuple(a for a in range(3) if a != axis))
            used = np.flatnonzero(profile)
            margin = max(2, (used[-1] - used[0] + 1) // 8)
            self.cuts.append(slice(max(0, used[0] - margin), min(n, used[-1] + margin + 1)))
            self.centre.append(int(round(np.average(np.arange(n), weights=profile))))

    def cut(self, values, plane):
        """2-D slice (vertical, horizontal) of a (z, y, x) array through the centre."""
        across = next(AXES[name] for name in "zyx" if name not in plane)
        index = list(self.cuts)
        index[across] = self.centre[across]
        return values[tuple(index)]  # remaining axes keep the order z, y, x: the vertical one comes first

    def extent(self, plane):
        """(left, right, bottom, top) in nm (or voxels), zero at the cut's corner."""
        scale = 1e9 if self.known else 1.0
        width, height = (
            (self.cuts[axis].stop - self.cuts[axis].start) * self.voxel[axis] * scale
            for axis in (AXES[name] for name in plane)
        )
        return (0, width, 0, height)


def crystal_support(S, support):
    """The support, or where |S| is not small; ValueError where there is no crystal."""
    if support is not None:
        support = checks.array("support", support, S.shape, bool)
    if support is None or not support.any():
        amplitude = np.abs(S)
        support = amplitude > 0.3 * amplitude.max(initial=0)
    if not support.any():
        raise ValueError("S: expected a crystal, got zeros only")
    return support


def colour_limit(values, support):
    """The end of the colour scale."""
    known = np.abs(values[support])
    known = known[np.isfinite(known)]
    return float(np.percentile(known, 99)) or 1.0 if known.size else 1.0


def core_of(support):
    """The support without its surface, where differences reach out of it; itself if there is nothing else."""
    core = ndimage.binary_erosion(support)
    return core if core.any() else support


def length_unit(values, support):
    """(name, units per m) of displacements."""
    small = values is None or colour_limit(np.asarray(values), support) < 0.5e-9
    return ("pm", 1e12) if small else ("nm", 1e9)


def strain_unit(values, support):
    """(name, factor) of strains."""
    small = values is None or colour_limit(np.asarray(values), support) < 5e-2
    return ("$10^{-3}$", 1e3) if small else ("1", 1.0)


def show_map(figure, axes, values, support, window, plane, unit, limit=None):
    """A map inside the support, in blue and red about 0, with its scale."""
    limit = limit or colour_limit(values, support)
    _show(figure, axes, values, support, window, plane, unit, cmap="RdBu_r", vmin=-limit, vmax=limit)


def show_size(figure, axes, values, support, window, plane, unit):
    """A map of what is not below 0 inside the support, from dark to bright, with its scale."""
    limit = colour_limit(values, support)
    _show(figure, axes, values, support, window, plane, unit, cmap="viridis", vmin=0, vmax=limit)


def _show(figure, axes, values, support, window, plane, unit, **colours):
    image = np.ma.masked_where(~window.cut(support, plane), window.cut(values, plane))
    axes.set_facecolor("0.85")
    shown = {"origin": "lower", "extent": window.extent(plane), "interpolation": "nearest", "aspect": "equal"}
    picture = axes.imshow(image, **shown, **colours)
    bar = figure.colorbar(picture, ax=axes, shrink=0.85, pad=0.02)
    bar.set_label(unit, **STYLE)
    bar.ax.tick_params(labelsize=SMALL)
    decorate(axes, window, plane, "black")


def decorate(axes, window, plane, colour):
    """Scale bar and axis arrows in place of ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    _, width, _, height = window.extent(plane)
    length = width * 0.3
    unit = 10 ** np.floor(np.log10(length))
    length = unit * max(m for m in (1, 2, 5) if m * unit <= length * (1 + 1e-9))  # a round length, rounding forgiven
    left = 0.05 * width
    low = 0.05 * height
    axes.plot([left, left + length], [low, low], color=colour, linewidth=3, solid_capstyle="butt")
    label = f"{length:g} nm" if window.known else f"{length:g} voxels"
    axes.annotate(
        label, (left + length / 2, low), (0, 4), textcoords="offset points", color=colour, ha="center", fontsize=SMALL
    )
    axes.set_xlabel(plane[0], labelpad=1, **STYLE)
    axes.set_ylabel(plane[1], labelpad=4, rotation=0, ha="right", va="center", **STYLE)


def absent(axes, what):
    """That a file does not hold something, in its place."""
    axes.axis("off")
    text = f"{what}:\nnot in the file"
    axes.text(0.5, 0.5, text, ha="center", va="center", color="0.4", fontsize=11, transform=axes.transAxes)
