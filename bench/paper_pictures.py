"""Pictures of `paper.py`. The maps of one kind share their scale, that of the truth; a constant phase is taken out.

Every object is on the voxels of its method, the truth on those of the last one. Strains are those of the objects within
the measured band, the truth's too; they and errors are shown where they are judged, one voxel of the data's resolution
inside.
"""

import numpy as np
from matplotlib.figure import Figure
from pendel import resolution
from pendel.analysis import plot
from pendel.base.symmetry import strain
from scipy import ndimage

_COLOURS = {"kinematic": "tab:orange", "HIO/ER": "tab:orange", "refraction-corrected": "tab:green"}
_COLOURS |= {
    "wide-angle": "k",
    "dynamical": "tab:blue",
    "refraction": "tab:green",
    "refraction, absorption": "tab:olive",
}
_GREY = "0.88"


def rocking(path, case, strained, shifts, angles, perfect):
    """Rocking curves of the strained cube, and of the unstrained one about its peak with the measured shifts."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    across = np.rad2deg(case.model.experiment.rocking_angles)
    top = strained["kinematic"].max()
    for name, curve in strained.items():
        style = ":" if name == "wide-angle" else "-"
        left.semilogy(across, curve / top, style, label=name, color=_COLOURS[name])
    left.set(xlabel="rocking angle (deg)", ylabel="intensity / kinematic peak", title=case.name)
    top = perfect["kinematic"].max()
    for name, curve in perfect.items():
        label = name if name == "kinematic" else f"{name}: {1e3 * shifts[name]:+.2f} mdeg"
        right.plot(1e3 * np.rad2deg(angles), curve / top, label=label, color=_COLOURS[name])
    form = 1e3 * shifts["closed form"]
    right.axvline(form, color="0.4", linestyle=":", label=f"closed form: {form:+.2f} mdeg")
    right.set(xlim=(-15, 15), xlabel="rocking angle (mdeg)", title="the same without strain; shift of the centroid")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    left.legend(frameon=False, fontsize=9)
    right.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    plot.save(figure, path)


def methods(path, case, laid, title):
    """Truth and reconstructions: amplitude, phase, strain and phase error in the scattering plane (slice xz).

    laid : {method: `paper.Laid`}
    """
    values = {name: _maps(one.S, one, case) for name, one in laid.items()}
    *_, last = laid.values()
    values = {"truth": _maps(_truth(last), last, case)} | values
    over = {"truth": last} | laid
    figure = Figure(figsize=(14, 3.1 * len(over) + 0.4), layout="constrained")
    figure.suptitle(title)
    limits = _limits(values["truth"])
    limits["error"] = max(np.nanpercentile(np.abs(v["error"]), 99) for v in values.values()) or 1.0
    for row, (name, maps) in zip(figure.subplots(len(over), 4), values.items(), strict=True):
        cut = _Cut(over[name], case, "xz")
        for axes, (kind, label, unit) in zip(row, _KINDS, strict=True):
            if kind == "error" and name == "truth":
                axes.axis("off")
                continue
            text = f"{name}: {label}" if kind == "amplitude" else label
            if kind == "error":
                text = f"error, rms {np.sqrt(np.nanmean(maps[kind] ** 2)):.3g} rad"
            cut.show(figure, axes, maps, kind, limits[kind], unit, text)
    plot.save(figure, path, dpi=90)


def correlation(path, laid, title):
    """Fourier shell correlation of every method with the truth."""
    figure = Figure(figsize=(6.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, one in laid.items():
        curve = resolution.fsc(one.S, one.truth, one.voxel)
        where = "<" if curve.limited else ""
        label = f"{name}: {where}{1e9 * curve.resolution:.1f} nm"
        axes.plot(1e-6 * curve.q, curve.value, color=_COLOURS[name], label=label)
    axes.axhline(0.5, color="k", linestyle=":")
    axes.set(ylim=(0, 1.02), xlabel="q (1/µm)", ylabel="Fourier shell correlation with the truth", title=title)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    plot.save(figure, path)


def nine(path, case, laid, method, title):
    """Amplitude, displacement and strain along h in three slices through the case's point.

    method : of ``laid``, or "truth"
    """
    *_, last = laid.values()
    one = last if method == "truth" else laid[method]
    truth = _maps(_truth(last), last, case)
    maps, limits = truth if method == "truth" else _maps(one.S, one, case), _limits(truth)
    figure = Figure(figsize=(13, 9.2), layout="constrained")
    figure.suptitle(title)
    scale = -1e12 / np.linalg.norm(case.h)
    maps["displacement"], limits["displacement"] = scale * maps["phase"], abs(scale) * limits["phase"]
    kinds = (_KINDS[0], ("displacement", "displacement along h", "pm"), _KINDS[2])
    for row, (kind, label, unit) in zip(figure.subplots(3, 3), kinds, strict=True):
        for axes, plane in zip(row, ("xz", "xy", "yz"), strict=True):
            _Cut(one, case, plane).show(figure, axes, maps, kind, limits[kind], unit, label)
    plot.save(figure, path, dpi=90)


def seeds(path, rows, names, title):
    """Misfit and phase error of every seed: the loss tells which runs found the crystal."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for name in names:
        mine = [r for r in rows if r["method"] == name]
        left.semilogy([r["seed"] for r in mine], [r["misfit"] for r in mine], "o", color=_COLOURS[name], label=name)
        right.loglog([r["misfit"] for r in mine], [r["phase_rmse"] for r in mine], "o", color=_COLOURS[name])
    misfits, errors = ([r[key] for r in rows] for key in ("misfit", "phase_rmse"))
    near, far = ((min(v) / 10, max(v) * 10) for v in (misfits, errors))  # equal seeds are to look equal
    left.set(xlabel="seed", ylabel="misfit", ylim=near, xticks=sorted({r["seed"] for r in rows}))
    right.set(xlabel="misfit", ylabel="phase error, rms (rad)", xlim=near, ylim=far)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    left.legend(frameon=False)
    plot.save(figure, path)


def sizes(path, rows, length, names):
    """Phase error and amplitude variation against the edge in extinction lengths."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in names:
        mine = [r for r in rows if r["method"] == name]
        edges = sorted({r["lengths"] for r in mine})
        for axes, key in ((left, "phase_rmse"), (right, "amplitude_cv")):
            middle = [np.median([r[key] for r in mine if r["lengths"] == e]) for e in edges]
            axes.loglog(edges, middle, color=_COLOURS[name], label=name)
            axes.loglog([r["lengths"] for r in mine], [r[key] for r in mine], ".", color=_COLOURS[name])
    left.set(ylabel="phase error, rms (rad)", title="phase")
    right.set(ylabel="standard deviation / mean of |S|", title="amplitude, one data voxel inside")
    for axes in (left, right):
        axes.set_xlabel(f"edge of the cube / extinction length of {1e9 * length:.0f} nm")
        axes.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    plot.save(figure, path)


_KINDS = (
    ("amplitude", "|S|", ""),
    ("phase", "phase -h.u", "rad"),
    ("strain", "strain along h, in band", "$10^{-4}$"),
    ("error", "phase error", "rad"),
)


def _truth(laid):
    """The crystal, without what its smoothed surface overshoots."""
    return laid.truth / np.maximum(np.abs(laid.truth), 1)


def _maps(S, laid, case):
    """{kind: (nz, ny, nx)} of an object over its truth, nan where it is not shown."""
    zero = np.exp(-1j * np.angle(laid.truth[laid.inside].sum()))
    amplitude = np.abs(S)
    found, defined = strain(case.seen(S, laid.voxel), laid.voxel, case.h)
    return {
        "amplitude": amplitude / np.median(amplitude[laid.inside]),  # a kinematic one is relative
        "phase": np.where(_shown(laid), np.angle(S * zero), np.nan),
        "strain": np.where(laid.inside & defined, 1e4 * found, np.nan),
        "error": np.where(laid.inside, np.angle(S * laid.truth.conj()), np.nan),
    }


def _shown(laid):
    """Where the crystal is, bool (nz, ny, nx)."""
    return np.abs(laid.truth) > 0.5


def _limits(truth):
    return {
        "amplitude": 1.5,
        "phase": np.nanpercentile(np.abs(truth["phase"]), 99.5) or 1.0,
        "strain": np.nanpercentile(np.abs(truth["strain"]), 99.5) or 1.0,
    }


class _Cut:
    """A slice through the case's point, in micrometres, around the crystal."""

    def __init__(self, laid, case, plane):
        self.plane, self.index, self.edges = plane, [], {}
        shown = _shown(laid)
        middle = ndimage.center_of_mass(shown)  # of the crystal, which is its own mirror image about it
        for number, a in enumerate("zyx"):
            step = laid.voxel[number]
            if a not in plane:
                self.index.append(round(middle[number] + case.point["xyz".index(a)] / step))
                continue
            used = np.flatnonzero(shown.any(axis=tuple({0, 1, 2} - {number})))
            first, last = max(used[0] - 2, 0), min(used[-1] + 2, shown.shape[number] - 1)
            self.index.append(slice(first, last + 1))
            self.edges[a] = [1e6 * step * (i - middle[number]) for i in (first - 0.5, last + 0.5)]

    def show(self, figure, axes, maps, kind, limit, unit, text):
        image = maps[kind][tuple(self.index)]
        style = {"cmap": "gray", "vmin": 0} if kind == "amplitude" else {"cmap": "RdBu_r", "vmin": -limit}
        across, up = self.plane
        axes.set_facecolor(_GREY)
        shown = axes.imshow(image, origin="lower", extent=(*self.edges[across], *self.edges[up]), vmax=limit, **style,
                            interpolation="nearest", aspect="equal")  # fmt: skip
        figure.colorbar(shown, ax=axes, shrink=0.85, pad=0.02).set_label(unit)
        axes.set_title(text, fontsize=9)
        axes.set_xlabel(f"{across} (µm)", fontsize=9)
        axes.set_ylabel(f"{up} (µm)", fontsize=9)
        axes.tick_params(labelsize=8)
