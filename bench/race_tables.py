"""Lines and tables of `race.py`."""

import importlib.metadata
import math
import statistics

HEADS = {
    "time": f"{'way':15} transport precision  threads   nx frames |  ns/point over pendel repeats | E_h, adj_S differ",
    "memory": f"{'way':15} transport precision    nx frames |       MiB",
    "error": f"{'way':15} transport   nz   nx |     error   seconds",
    "reconstruction": f"{'way':15} size  transport frames | epochs done   seconds, whole | loss at the end  phase, rad",
}
ERRORS = (1e-3, 1e-4, 1e-5)  # of E_h, for the seconds to reach them
PACKAGES = ("torch", "jax", "jaxlib", "scipy")


def versions():
    """{package: version} of the peers' packages."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def line(result):
    """A result as a line below its head."""
    r, way = result, f"{result['way']:15}"
    if r["part"] == "reconstruction":
        done = f"{r['done']:4d} of {r['epochs']:<4d} {'' if r['done'] == r['epochs'] else '~':>1}{r['seconds']:12.1f}"
        return (
            f"{way} {r['size']:5} {r['transport']:9} {r['frames']:6d} | {done}     |"
            f" {r['loss'][-1]:15.2e} {r['phase_error']:11.4f}"
        )
    if r["part"] == "error":
        return f"{way} {r['transport']:9} {r['nz']:4d} {r['nx']:4d} | {r['error']:9.2e} {r['seconds']:9.4f}"
    case = f"{way} {r['transport']:9} {r['dtype']:10}"
    if r["part"] == "memory":
        found = f"left out: {r['left_out']}" if "left_out" in r else f"{r['bytes'] / 2**20:9.1f}"
        return f"{case} {r['nx']:4d} {r['frames']:6d} | {found}"
    case += f" {r['threads']:7d} {r['nx']:4d} {r['frames']:6d}"
    if "left_out" in r:
        return f"{case} | left out: {r['left_out']}"
    return (
        f"{case} | {r['ns']:9.3f} {r['ratio']:11.2f} {r['repeats']:7d} |"
        f" {r['difference_E_h']:.1e} {r['difference_S']:.1e}"
    )


def of(results, part, **key):
    """Results of a part with these values, but for what was left out."""
    wanted = {"part": part} | key
    return [r for r in results if "left_out" not in r and all(r[k] == v for k, v in wanted.items())]


def seconds_to(rows, error):
    """Seconds to an error, from (error, seconds) of several voxels: between two of them on logarithms; else None."""
    rows = sorted((r["error"], r["seconds"]) for r in rows)
    for (low, slow), (high, fast) in zip(rows, rows[1:], strict=False):
        if low <= error <= high:
            part = math.log(error / low) / math.log(high / low)
            return math.exp((1 - part) * math.log(slow) + part * math.log(fast))
    return None


def spread(values):
    """Median and range of ratios."""
    if not values:
        return ""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def over_pendel(rows, pendel, key, quantity):
    """Ratios of a way's numbers to those of pendel where ``key`` is the same, and pendel's not too small to be seen."""
    pendel = {tuple(r[k] for k in key): r[quantity] for r in pendel if r[quantity] > 0}
    return [r[quantity] / pendel[case] for r in rows if (case := tuple(r[k] for k in key)) in pendel]


def ratios(results, way):
    """Cells: time with both transports, `fourier` over pendel's `shift`, and memory, over pendel's."""
    shift, fourier = (of(results, "time", way=way, transport=t) for t in ("shift", "fourier"))
    fastest = of(results, "time", way="pendel", transport="shift")
    across = over_pendel(fourier, fastest, ("dtype", "threads", "nx", "frames"), "ns")
    memory = (of(results, "memory", way=w) for w in (way, "pendel"))
    own = ([r["ratio"] for r in rows] for rows in (shift, fourier))
    return [*map(spread, own), spread(across), spread(over_pendel(*memory, ("transport", "nx", "frames"), "bytes"))]


def reached(results, way):
    """Cells: seconds to each error with the transport that is faster."""
    cells = []
    for error in ERRORS:
        tried = [seconds_to(of(results, "error", way=way, transport=t), error) for t in ("shift", "fourier")]
        there = [s for s in tried if s is not None]
        cells.append(f"{min(there):.3g}" if there else "")
    return cells


def reconstructed(results, way, size):
    """Cell: seconds of the whole reconstruction and their ratio to pendel's; ~ where it was stopped."""
    rows, pendel = (of(results, "reconstruction", way=w, size=size) for w in (way, "pendel"))
    if not rows:
        return ""
    mark = "" if rows[0]["done"] == rows[0]["epochs"] else "~"
    ratio = f", {rows[0]['seconds'] / pendel[0]['seconds']:.3g}" if pendel else ""
    return f"{mark}{rows[0]['seconds']:.3g}{ratio}"


def summary(results):
    """Markdown: what the run says of each way, a line each."""
    about, results = results["about"], results["results"]
    sizes = list(dict.fromkeys(r["size"] for r in of(results, "reconstruction")))
    head = [
        "way",
        "`shift`",
        "`fourier`",
        "`fourier` over `pendel`'s `shift`",
        "memory",
        *(f"s to {e:g}" for e in ERRORS),
    ]
    head += [f"case A, {size}: s, ratio" for size in sizes]
    rows = []
    for way in dict.fromkeys(r["way"] for r in results):
        cells = [f"`{way}`", *ratios(results, way), *reached(results, way)]
        rows.append(cells + [reconstructed(results, way, size) for size in sizes])
    said = ", ".join(f"{what} {about[what]}" for what in ("pendel", "torch", "jax"))
    where = f"{about['processor']}, {about['cpu instruction set']}, {about['compiler']}, commit {about['commit']}"
    lines = [f"{said}; {where}. Time and memory over `pendel`'s: median (range).", ""]
    for cells in (head, ["---"] * len(head), *rows):
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
