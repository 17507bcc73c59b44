"""Pictures of plans and checks. matplotlib is imported with this module, which nothing else imports."""

import math

import numpy as np

from ..analysis.plot import Figure
from ..analysis.slices import STYLE, Window, colour_limit, decorate, show_map
from ..base.constants import KEV
from . import error_law
from .check import Check
from .plan import Plan

SIZES = (0.05, 1.0)  # of the curves, in sizes at which the law ends
POINTS = 60
PLANE = ("x", "z")  # horizontal, vertical: the scattering plane
WIDE, HIGH = 16, 9.2  # inch


def plan_figure(plan: Plan) -> Figure:
    """Errors over size, and sizes over energy for all reflections.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(WIDE, 5.2), layout="constrained")
    phase, strain, others = figure.subplots(1, 3)
    smallest, largest = (part * plan.law_ends for part in SIZES)
    sizes = np.geomspace(smallest, largest, POINTS)
    numbers = [error_law.numbers(plan.chi, size, plan.own_phase, plan.polarization) for size in sizes]
    errors = np.array([error_law.error(of) for of in numbers])
    for axes, column, bound, name in (
        (phase, 0, plan.bounds[0], "phase error (rad rms)"),
        (strain, 1, plan.bounds[1], "strain error (rms)"),
    ):
        axes.loglog(1e9 * sizes, errors[:, column], color="tab:orange", label="kinematic phasing")
        axes.loglog(1e9 * sizes, errors[:, column + 2], color="tab:blue", label="refraction taken off")
        axes.axhline(bound, color="0.4", linewidth=1, linestyle="--")
        axes.axvline(1e9 * plan.size, color="0.4", linewidth=1, linestyle=":")
        axes.set_xlabel("size of the crystal (nm)", **STYLE)
        axes.set_ylabel(name, **STYLE)
    phase.legend()
    hkl = " ".join(map(str, plan.chi.hkl or ()))
    phase.set_title(f"{plan.chi.name} ({hkl}), {plan.chi.energy / KEV:.4g} keV", **STYLE)
    strain.set_title(f"bounds dashed, {1e9 * plan.size:.3g} nm dotted", **STYLE)
    _draw_choices(others, plan)
    return figure


def _draw_choices(axes, plan):
    """Largest crystal over energy, a line for each reflection, as wide as it is bright."""
    for hkl in sorted({choice.hkl for choice in plan.choices}, key=lambda hkl: (sum(i * i for i in hkl), hkl)):
        own = sorted((choice for choice in plan.choices if choice.hkl == hkl), key=lambda choice: choice.energy)
        shown = [choice for choice in own if 0 < choice.largest < math.inf]
        if not shown:
            continue
        energies, sizes = [c.energy / KEV for c in shown], [1e9 * c.largest for c in shown]
        (line,) = axes.plot(energies, sizes, linewidth=1, label=" ".join(map(str, hkl)))
        axes.scatter(energies, sizes, [80 * min(c.brightness, 2) for c in shown], color=line.get_color(), alpha=0.6)
    axes.set_xlabel("energy (keV)", **STYLE)
    axes.set_ylabel("largest crystal within both bounds (nm)", **STYLE)
    axes.set_title("other reflections; area of a dot: brightness", **STYLE)
    if axes.lines:
        axes.legend(fontsize=9, ncols=2)
    else:
        axes.text(0.5, 0.5, "none within both bounds", ha="center", transform=axes.transAxes, **STYLE)


def check_figure(check: Check) -> Figure:
    """Phase and strain of a crystal, and what kinematic phasing adds to them, in the scattering plane.

    Parameters
    ----------
    check : Check

    Returns
    -------
    matplotlib.figure.Figure
    """
    error = check.error
    figure = Figure(figsize=(WIDE, HIGH), layout="constrained")
    figure.suptitle(_in_lines(check), **STYLE)
    window = Window(error.inside, check.voxel)
    phases = (check.phase, error.refraction, error.extinction)
    strains = (check.strain, error.refraction_strain, error.extinction_strain)
    rows = ((phases, error.inside, "phase", "rad", 1.0), (strains, error.core, "strain along h", "$10^{-4}$", 1e4))
    grid = figure.add_gridspec(2, 4)
    for i, (maps, where, name, unit, factor) in enumerate(rows):
        for j, (values, what) in enumerate(zip(maps, ("of the object", "refraction", "extinction"), strict=True)):
            axes = figure.add_subplot(grid[i, j])
            show_map(figure, axes, factor * values, where, window, PLANE, unit, colour_limit(factor * values, where))
            axes.set_title(f"{name}, {what}", **STYLE)
    _draw_amplitude(figure, figure.add_subplot(grid[0, 3]), error, window)
    _draw_shares(figure.add_subplot(grid[1, 3]), check)
    return figure


def _draw_amplitude(figure, axes, error, window):
    """What absorption and extinction leave of the amplitude."""
    image = np.ma.masked_where(~window.cut(error.inside, PLANE), window.cut(error.amplitude, PLANE))
    axes.set_facecolor("0.85")
    extent = window.extent(PLANE)
    shown = axes.imshow(image, origin="lower", extent=extent, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=axes, shrink=0.85, pad=0.02)
    decorate(axes, window, PLANE, "black")
    axes.set_title("amplitude that is left", **STYLE)


def _draw_shares(axes, check):
    """rms of the maps, in units of what most work can live with."""
    own = check.phase_rms / error_law.PHASE_ENOUGH, check.strain_rms / error_law.STRAIN_ENOUGH
    parts = [
        (phase / error_law.PHASE_ENOUGH, strain / error_law.STRAIN_ENOUGH)
        for phase, strain in zip(check.error.phase_rms, check.error.strain_rms, strict=True)
    ]
    names = ("of the object", "refraction", "extinction", "both")
    places = np.arange(len(names))
    for shift, which, name in ((-0.2, 0, f"phase over {error_law.PHASE_ENOUGH:g} rad"), (0.2, 1, "strain over 1e-4")):
        axes.barh(places + shift, [values[which] for values in (own, *parts)], 0.38, label=name)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.axvline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_xlabel("rms", **STYLE)
    axes.legend(fontsize=9)


def _in_lines(check):
    """A check's sentence in three lines."""
    text = str(check).replace(" rad, and ", " rad,\nand ", 1)
    return text.replace(f": {check.advice}", f":\n{check.advice}")
