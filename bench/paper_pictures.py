"""Pictures of `paper.py`. The maps of one kind share their scale, that of the truth; a constant phase is taken out.

Strains are those of the objects within the measured band, the truth's too.
"""

import numpy as np
from matplotlib.figure import Figure
from pendel import phantom
from pendel.analysis import plot

_COLOURS = {"kinematic": "tab:orange", "HIO/ER": "tab:orange", "refraction-corrected": "tab:green"}
_COLOURS |= {"dynamical": "tab:blue", "refraction": "tab:green", "refraction, absorption": "tab:olive"}
_GREY = "0.88"


def rocking(path, case, strained, shifts, angles, perfect):
    """Rocking curves of the strained cube, and of the unstrained one about its peak with the measured shifts."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    across = np.rad2deg(case.model.experiment.rocking_angles)
    top = strained["kinematic"].max()
    for name, curve in strained.items():
        left.semilogy(across, curve / top, label=name, color=_COLOURS[name])
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


def methods(path, case, laid, strain, title):
    """Truth and reconstructions: amplitude, phase, strain and phase error in the scattering plane (slice xz)."""
    objects = {"truth": case.S.astype(complex)} | laid
    inside = case.body > 0.5
    cut = _Cut(case, "xz")
    figure = Figure(figsize=(14, 3.1 * len(objects) + 0.4), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(objects), 4)
    truth = _flat(objects["truth"], inside)
    values = {name: _maps(S, truth, inside, strain, case) for name, S in objects.items()}
    limits = _limits(values["truth"], inside)
    limits["error"] = max(np.percentile(np.abs(v["error"][inside]), 99) for v in values.values()) or 1.0
    for row, (name, maps) in zip(grid, values.items(), strict=True):
        for axes, (kind, label, unit) in zip(row, _KINDS, strict=True):
            if kind == "error" and name == "truth":
                axes.axis("off")
                continue
            text = f"{name}: {label}" if kind == "amplitude" else label
            if kind == "error":
                text = f"error, rms {np.sqrt(np.mean(maps[kind][inside] ** 2)):.3g} rad"
            cut.show(figure, axes, maps, kind, limits[kind], unit, text)
    plot.save(figure, path, dpi=90)


def correlation(path, case, laid, fsc, title):
    """Fourier shell correlation of every method with the truth."""
    figure = Figure(figsize=(6.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, S in laid.items():
        curve = fsc(S, case.S, case.model.voxel)
        where = "<" if curve.limited else ""
        label = f"{name}: {where}{1e9 * curve.resolution:.1f} nm"
        axes.plot(1e-6 * curve.q, curve.value, color=_COLOURS[name], label=label)
    axes.plot(1e-6 * curve.q, curve.threshold, "k:")
    axes.set(ylim=(0, 1.02), xlabel="q (1/µm)", ylabel="Fourier shell correlation with the truth", title=title)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    plot.save(figure, path)


def nine(path, case, S, strain, title):
    """Amplitude, displacement and strain along h in three slices through the case's point."""
    inside = case.body > 0.5
    truth = _flat(case.S.astype(complex), inside)
    limits = _limits(_maps(truth, truth, inside, strain, case), inside)
    maps = _maps(S, truth, inside, strain, case)
    figure = Figure(figsize=(13, 9.2), layout="constrained")
    figure.suptitle(title)
    scale = -1e12 / np.linalg.norm(case.h)
    maps["displacement"], limits["displacement"] = scale * maps["phase"], abs(scale) * limits["phase"]
    kinds = (_KINDS[0], ("displacement", "displacement along h", "pm"), _KINDS[2])
    for row, (kind, label, unit) in zip(figure.subplots(3, 3), kinds, strict=True):
        for axes, plane in zip(row, ("xz", "xy", "yz"), strict=True):
            _Cut(case, plane).show(figure, axes, maps, kind, limits[kind], unit, label)
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
    right.set(ylabel="standard deviation / mean of |S|", title="amplitude, whole voxels")
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


def _flat(S, inside):
    return S * np.exp(-1j * np.angle(S[inside].sum()))


def _maps(S, truth, inside, strain, case):
    S = S * np.exp(-1j * np.angle(np.vdot(truth[inside], S[inside])))
    amplitude = np.abs(S)
    found, defined = strain(case.seen(S), case.model.voxel, case.h)
    # differences reach two voxels: the surface has a strain of its own only where the neighbours are inside
    core = defined & (case.body > 0.999)
    for axis in range(3):
        core &= (np.roll(case.body, 1, axis) > 0.5) & (np.roll(case.body, -1, axis) > 0.5)
    return {
        "amplitude": amplitude / np.median(amplitude[inside]),  # a kinematic one is relative
        "phase": np.where(inside, np.angle(S), np.nan),
        "strain": np.where(core, 1e4 * found, np.nan),
        "error": np.where(inside, np.angle(S * truth.conj()), np.nan),
    }


def _limits(truth, inside):
    return {
        "amplitude": 1.5,
        "phase": np.percentile(np.abs(truth["phase"][inside]), 99.5) or 1.0,
        "strain": np.nanpercentile(np.abs(truth["strain"]), 99.5) or 1.0,
    }


class _Cut:
    """A slice through the case's point, in micrometres, around the crystal."""

    def __init__(self, case, plane):
        self.plane, axes = plane, "zyx"
        where = phantom.coordinates(case.model.shape, case.model.voxel)
        where = {a: w.ravel() for a, w in zip(axes, where, strict=True)}
        self.index, self.edges = [], {}
        for number, a in enumerate(axes):
            if a not in plane:
                self.index.append(int(np.argmin(np.abs(where[a] - case.point["xyz".index(a)]))))
                continue
            used = np.flatnonzero((case.body > 0).any(axis=tuple({0, 1, 2} - {number})))
            part = slice(max(used[0] - 2, 0), used[-1] + 3)
            self.index.append(part)
            step = case.model.voxel[number]
            self.edges[a] = 1e6 * (where[a][part][0] - step / 2), 1e6 * (where[a][part][-1] + step / 2)

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
