"""Pictures of `race.py`."""

from matplotlib.figure import Figure
from race_tables import of

COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#7F3C8D")
MARKERS = "osD^v<>P*X"


def draw(results, folder):
    """time.png, memory.png, error.png and reconstruction.png, of the parts that there are."""
    ways = list(dict.fromkeys(r["way"] for r in results))
    style = {
        way: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4, "label": way}
        for i, way in enumerate(ways)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for part, make in (("time", cases), ("memory", cases), ("error", errors), ("reconstruction", losses)):
        rows = of(results, part)
        if rows:
            figure = Figure(figsize=(10, 4.4), layout="constrained")
            make(figure, rows, style)
            figure.savefig(folder / f"{part}.png", dpi=110)


def curves(axes, rows, style, x, y):
    """One curve for each way, of y against x."""
    for way in style:
        points = sorted((r[x], r[y]) for r in rows if r["way"] == way)
        if points:
            axes.loglog(*zip(*points, strict=True), **style[way])
    axes.grid(alpha=0.3)


def cases(figure, rows, style):
    """ns per point-step, or bytes, against nx and frames, of the first precision and threads; a row per transport."""
    what, label = ("ns", "ns per point-step") if "ns" in rows[0] else ("bytes", "peak, bytes")
    first = {key: rows[0][key] for key in ("dtype", "threads")}
    rows = [r for r in rows if all(r[key] == value for key, value in first.items())]
    transports = list(dict.fromkeys(r["transport"] for r in rows))
    figure.set_size_inches(10, 4 * len(transports))
    grid = figure.subplots(len(transports), 2, squeeze=False)
    for line, transport in zip(grid, transports, strict=True):
        for axes, along, other in zip(line, ("nx", "frames"), ("frames", "nx"), strict=True):
            here = of(rows, rows[0]["part"], transport=transport)
            counts = [r[other] for r in here]
            fixed = max(set(counts), key=counts.count)
            curves(axes, [r for r in here if r[other] == fixed], style, along, what)
            title = f"{transport}, {fixed} {other}, {first['dtype']}, threads: {first['threads']}"
            axes.set(xlabel=along, ylabel=label, title=title)
    grid[-1, -1].legend(fontsize=7)  # all ways have `fourier`


def errors(figure, rows, style):
    """Error of E_h against seconds."""
    transports = list(dict.fromkeys(r["transport"] for r in rows))
    for axes, transport in zip(figure.subplots(1, len(transports), squeeze=False)[0], transports, strict=True):
        curves(axes, of(rows, "error", transport=transport), style, "seconds", "error")
        axes.set(xlabel="forward and adjoint, s", ylabel="relative error of $E_h$", title=transport)
    axes.legend(fontsize=7)


def losses(figure, rows, style):
    """Loss against seconds."""
    sizes = list(dict.fromkeys(r["size"] for r in rows))
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        for r in (r for r in rows if r["size"] == size):
            step = r["seconds"] / r["epochs"]
            seconds = [step * (i + 1) for i in range(len(r["loss"]))]
            axes.loglog(seconds, r["loss"], color=style[r["way"]]["color"], label=r["way"])
        axes.set(xlabel="s", ylabel="mean loss of an epoch", title=f"case A, {size}")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
