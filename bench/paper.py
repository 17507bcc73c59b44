"""The simulations of Wu et al., arXiv 2506.15939, with three methods: HIO/ER, the same with refraction and absorption
corrected along the optical path, and the dynamical reconstruction.

    python bench/paper.py A [--size full|half|small] [--photons none 1e6 1e7 1e8 1e9] [--seeds 0 1 2] [-o FOLDER]
    python bench/paper.py B [--size ...] [--photons 1e8] ...
    python bench/paper.py C [--size small] [--lengths 0.1 ... 2] ...

A: the gold cube, rocking curves and their shift, errors without noise and with photons in the whole scan. B: the
welded iridate block. C: gold cubes of 0.1 to 2 extinction lengths. `paper_cases.py` says what they are.

--maker wide-angle, the default: frames by `pendel.reference.wide_angle` of the crystal as a function of position, which
know neither the grid nor the equations of what reconstructs them; the dynamical method is `pendel.solve` with nothing
but these frames. `--cache FOLDER` keeps them: at half size they take a quarter of an hour.

--maker model: frames of the very model that reconstructs them, on its own grid, by `pendel.multiscale`. A check that
the search arrives, and not an accuracy.

Every finished row is printed and written to FOLDER/results.json, the objects on the voxels of their method and pictures
beside it; Ctrl-C keeps what is there, and ``--resume`` goes on behind it.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import paper_cases as cases
import paper_pictures as pictures
import pendel
from pendel import compare, kinematic, refraction, resolution
from pendel.analysis import crystals
from pendel.app import simulate
from pendel.recipes.kinematic_starts import phase
from scipy import ndimage

MAKERS = ("wide-angle", "model")
PHOTONS = {"A": ["none", "1e6", "1e7", "1e8", "1e9"], "B": ["1e8"], "C": ["none"]}
LENGTHS = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0)  # of C, in extinction lengths
METHODS = ("HIO/ER", "refraction-corrected", "dynamical")
CORNER = 0.25e-6  # m: voxels nearer to the welded corner make its displacement
COLUMNS = (
    ("voxel_nm", "voxel nm", "{:.1f}"),
    ("phase_rmse", "phase rad", "{:.4f}"),
    ("phase_rmse_band", "in band", "{:.4f}"),
    ("amplitude_cv", "ampl. CV", "{:.4f}"),
    ("strain_rmse", "strain rmse", "{:.2e}"),
    ("strain_rmse_band", "in band", "{:.2e}"),
    ("resolution_nm", "FSC nm", "{:.1f}"),
    ("misfit", "misfit", "{:.2e}"),
    ("seconds", "s", "{:.0f}"),
)


@dataclass(frozen=True)
class Found:
    """What a method gives.

    Attributes
    ----------
    S : complex (nz, ny, nx)
    voxel : (dz, dy, dx), m
    misfit : of its own model to the data
    seconds : that it took
    trust : `pendel.recipes.trust.Trust`, or None
    """

    S: np.ndarray
    voxel: tuple
    misfit: float
    seconds: float
    trust: object | None = None


@dataclass(frozen=True)
class Laid:
    """An object and the crystal where it has it, both complex (nz, ny, nx); one phase and one ramp are taken out.

    Attributes
    ----------
    S, truth : complex (nz, ny, nx)
    inside : bool (nz, ny, nx), where they are compared
    voxel : (dz, dy, dx), m
    """

    S: np.ndarray
    truth: np.ndarray
    inside: np.ndarray
    voxel: tuple


def reconstructions(case, data, seed, args, checkpoint=None):
    """{method: `Found`}."""
    found = {}
    if set(args.methods) - {"dynamical"}:
        found |= _kinematic(case, data, seed, args)
    if "dynamical" in args.methods:
        dynamical = _solved if args.maker == "wide-angle" else _on_own_grid
        found["dynamical"] = dynamical(case, data, seed, args, checkpoint)
    return {method: found[method] for method in args.methods}


def _kinematic(case, data, seed, args):
    """At its best: the start of the smallest misfit (some of HIO/ER stagnate), whole amplitudes, the better twin.

    The twin, which it cannot know, is that of the truth.
    """
    model, begun = case.model, time.perf_counter()
    recipe = kinematic.PAPER_RECIPE | args.kinematic
    phased = phase(data, seed=seed, threads=model.threads, progress=args.progress, **recipe)
    grid = phased, model.experiment, model.shape, model.voxel
    S_k = kinematic.to_model_grid(*grid, clip=False)
    if compare(S_k, case.S, model.voxel, ramp=True, twin=True).twin:
        S_k = kinematic.to_model_grid(*grid, clip=False, twin=True)
    seconds, misfit = time.perf_counter() - begun, phased.chi**2
    corrected = refraction.correct(S_k, model.voxel, model.experiment, model.crystal.chi_0)
    return {
        "HIO/ER": Found(S_k, model.voxel, misfit, seconds),
        "refraction-corrected": Found(corrected, model.voxel, misfit, seconds),
    }


def _solved(case, data, seed, args, checkpoint):
    """`pendel.solve` with what it chooses itself; the polarisation factor is in the susceptibilities already."""
    begun = time.perf_counter()
    result = pendel.solve(
        case.experiment,
        case.model.crystal,
        data,
        seed=seed,
        threads=case.model.threads,
        model_options={"polarization": case.model.polarization},
        checkpoint=checkpoint,
        resume=args.resume,
        progress=args.progress,
    )
    return Found(result.S, result.voxel, result.misfit, time.perf_counter() - begun, result.trust)


def _on_own_grid(case, data, seed, args, checkpoint):
    """`pendel.multiscale` by the model that has made the data."""
    begun, support, start = time.perf_counter(), None, None if args.start == "auto" else args.start
    if start == "shape":
        start, support = "flat", ndimage.binary_dilation(case.body > 0, iterations=2)
    counts = not np.issubdtype(data.dtype, np.floating)
    options = {"counts": counts, "seed": seed, "checkpoint": checkpoint, "resume": args.resume}
    result = pendel.multiscale(case.model, data, None, start, support, progress=args.progress, **options, **args.search)
    return Found(result.S, result.voxel, result.misfit, time.perf_counter() - begun)


def measure(case, S, voxel):
    """Numbers of one reconstruction against the crystal, and both on its voxels.

    The crystal is moved to where S has it; a constant phase and a ramp, which no data tell from a rocking centre, are
    taken out. All is judged one voxel of the data's resolution inside its surface.
    """
    experiment = case.experiment
    grid = SimpleNamespace(shape=S.shape, voxel=voxel)
    truth, inside = crystals.truth_under(S, grid, case.sample, experiment, ramp=True)
    free = {"h": case.h, "translate": False, "ramp": True}
    raw = compare(S, truth, voxel, inside, **free)
    band = compare(S, truth, voxel, inside, cases.measured_band(experiment, S.shape, voxel), **free)
    shells = resolution.fsc(raw.registered, truth, voxel)
    row = {
        "voxel_nm": 1e9 * voxel[1],
        "phase_rmse": raw.phase_rmse,
        "phase_rmse_band": band.phase_rmse,
        "amplitude_cv": raw.amplitude_cv,
        "strain_rmse": raw.strain_rmse,
        "strain_rmse_band": band.strain_rmse,
        "resolution_nm": 1e9 * shells.resolution,
        "resolution_limited": shells.limited,
    }
    laid = Laid(raw.registered, truth, inside, voxel)
    if case.corner is not None:
        wanted, got = (corner_displacement(case, v, laid) for v in (truth, laid.S))
        row |= {"corner_truth_pm": 1e12 * wanted, "corner_error_percent": 100 * (got - wanted) / wanted}
    return row, laid


def corner_displacement(case, S, laid):
    """Mean displacement along h, m, of the voxels near the welded corner, less that of the half far from it.

    How far a voxel is from the corner tells the phase of the crystal there, which falls from less than pi with it.
    """
    phase = np.angle(laid.truth)
    near = laid.inside & (phase > cases.WELD_PHASE / (1 + CORNER / cases.WELD_RADIUS))
    far = laid.inside & (phase < np.median(phase[laid.inside]))
    phase = np.angle(S * np.conj(S[far].sum()))  # the phase turns by less than pi from the bulk to the corner
    return float((phase[far].mean() - phase[near].mean()) / np.linalg.norm(case.h))


class Results:
    """results.json of a folder: settings and finished rows, rewritten after every row."""

    def __init__(self, folder, settings, resume):
        self.folder, self.path = folder, folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.content = {"settings": settings, "rows": []}
        if resume and self.path.exists():
            stored = json.loads(self.path.read_text())
            if stored["settings"] != settings:
                raise SystemExit(f"--resume: expected the settings of {self.path}, {stored['settings']}")
            self.content = stored

    def done(self, **key):
        return any(all(row[k] == v for k, v in key.items()) for row in self.rows)

    @property
    def rows(self):
        return self.content["rows"]

    def add(self, rows):
        self.rows.extend(rows)
        self.write()

    def write(self, **more):
        self.content |= more
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1, default=float))
        os.replace(part, self.path)


def study(case, photons, seed, results, args, **key):
    """Simulate, reconstruct by all methods, measure, record: {method: `Laid`}."""
    key = {"photons": photons, "seed": seed} | key
    label = "-".join(f"{v:g}" if isinstance(v, float) else str(v) for v in key.values())
    stored = results.folder / f"objects-{label}.npz"
    if results.done(**key):
        with np.load(stored) as file:
            return {m: measure(case, file[m], tuple(file[f"voxel of {m}"]))[1] for m in args.methods}

    data = _counts(case, photons, seed, args)
    checkpoint = results.folder / f"checkpoint-{label}.h5"
    found = reconstructions(case, data, seed, args, checkpoint)
    rows, laid = [], {}
    for method, one in found.items():
        numbers, laid[method] = measure(case, one.S, one.voxel)
        trust = {} if one.trust is None else {"trust": vars(one.trust)}
        rows.append(key | {"method": method, "misfit": one.misfit, "seconds": one.seconds} | numbers | trust)
    objects = {method: one.S.astype(np.complex64) for method, one in laid.items()}
    np.savez(stored, **objects, **{f"voxel of {method}": one.voxel for method, one in found.items()})
    results.add(rows)
    checkpoint.unlink(missing_ok=True)
    _print_rows(key, rows, found)
    return laid


def _counts(case, photons, seed, args):
    """Frames of the maker that is asked for, as counts."""
    own = args.maker == "model"
    frames = case.model.intensities(case.S) if own else cases.foreign_frames(case, args.cache, args.threads or 1)
    return simulate.counts(frames, seed=seed, total=None if photons == "none" else float(photons))[0]


def _print_rows(key, rows, found):
    title = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in key.items())
    print(f"\n{title}")
    extra = (("corner_error_percent", "corner %", "{:.2f}"),) if "corner_error_percent" in rows[0] else ()
    print(f"{'':22}" + "".join(f"{label:>14}" for _, label, _ in COLUMNS + extra))
    for row in rows:
        print(f"{row['method']:22}" + "".join(f"{form.format(row[k]):>14}" for k, _, form in COLUMNS + extra))
    for method, one in found.items():
        if one.trust is not None:
            print(f"{method}: {one.trust}")
    sys.stdout.flush()


def study_seeds(case, photons, results, args, draw):
    """All seeds of one photon number, a picture of the first, and how well the seeds agree: PRTF, loss by seed."""
    objects = {method: [] for method in args.methods}
    for seed in args.seeds:
        laid = study(case, photons, seed, results, args)
        for method, one in laid.items():
            objects[method].append(one)
        if seed == args.seeds[0]:
            draw(laid, photons)
    for method, several in objects.items():
        grids = {(one.S.shape, one.voxel) for one in several}
        if len(grids) > 1:
            print(f"{method}: no PRTF of {len(several)} seeds, they are on {len(grids)} grids")
        elif len(several) > 1:
            curve = resolution.prtf([one.S for one in several], several[0].voxel)
            at_least = " or finer" if curve.limited else ""
            print(f"{method}: PRTF of {len(several)} seeds falls to 1/e at {1e9 * curve.resolution:.1f} nm{at_least}")
    if len(args.seeds) > 2:
        rows = [row for row in results.rows if row["photons"] == photons]
        pictures.seeds(results.folder / f"seeds-{photons}.png", rows, args.methods, case.name)


def run_a(args, results):
    shifts, angles, curves = cases.rocking_shift(size=args.size, threads=args.threads)
    print("rocking curve of the unstrained cube, shift of its centroid (deg):")
    for name, shift in shifts.items():
        print(f"  {name:24} {shift:+.5f}")
    case = cases.gold_cube(args.size, threads=args.threads)
    rocking = {}
    for coupling in ("kinematic", "dynamical"):
        m = pendel.Model(
            case.model.experiment,
            case.model.crystal,
            case.model.shape,
            case.model.voxel,
            polarization=case.model.polarization,
            coupling=coupling,
            threads=args.threads,
        )
        rocking[coupling] = m.intensities(case.S).sum(axis=(1, 2), dtype=np.float64)
    if args.maker == "wide-angle":
        rocking["wide-angle"] = cases.foreign_frames(case, args.cache, args.threads or 1).sum(axis=(1, 2))
    results.write(shift_deg=shifts, rocking={k: list(v) for k, v in rocking.items()})
    pictures.rocking(results.folder / "rocking.png", case, rocking, shifts, angles, curves)

    def draw(laid, photons):
        title = f"{case.name}, {'no noise' if photons == 'none' else photons + ' photons'}"
        pictures.methods(results.folder / f"methods-{photons}.png", case, laid, title)
        pictures.correlation(results.folder / f"fsc-{photons}.png", laid, title)

    for photons in args.photons:
        study_seeds(case, photons, results, args, draw)


def run_b(args, results):
    case = cases.welded_block(args.size, threads=args.threads)

    def draw(laid, photons):
        for method in ("truth", *laid):
            name = f"nine-{method.replace('/', '-')}-{photons}.png"
            pictures.nine(results.folder / name, case, laid, method, f"{case.name}: {method}")
        pictures.correlation(results.folder / f"fsc-{photons}.png", laid, case.name)

    for photons in args.photons:
        study_seeds(case, photons, results, args, draw)


def run_c(args, results):
    length = cases.gold_cube(args.size, threads=args.threads).extinction_length
    print(f"Lambda = lambda sqrt(gamma_0 gamma_h)/|C chi_h| = {1e9 * length:.0f} nm, k_h along the normal")
    for factor in args.lengths:
        case = cases.gold_cube(args.size, factor * length, threads=args.threads)
        for photons in args.photons:
            for seed in args.seeds:
                study(case, photons, seed, results, args, lengths=factor)
        pictures.sizes(results.folder / "sizes.png", results.rows, length, args.methods)


def _parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("A", "B", "C"))
    parser.add_argument("--size", choices=tuple(cases.PIXELS), default="small")
    parser.add_argument(
        "--maker",
        choices=MAKERS,
        default=MAKERS[0],
        help="of the frames: wide-angle optics, or the model that reconstructs them on its own grid, which checks that "
        "the search arrives and is not an accuracy",
    )
    parser.add_argument("--cache", help="folder that keeps the frames of wide-angle optics")
    parser.add_argument("--photons", nargs="+", help='in the whole scan, or "none"')
    parser.add_argument(
        "--seeds", "--seed", nargs="+", type=int, default=[0], help="of phasing, frame groups and noise"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--lengths", nargs="+", type=float, default=LENGTHS, help="of C, in extinction lengths")
    parser.add_argument("--iterations", type=int, help="of HIO/ER, for a quick look; the paper's is 1800")
    parser.add_argument("--starts", type=int, default=5, help="phasings of HIO/ER, of which the best is kept")
    own = parser.add_argument_group("the dynamical method on its own grid, --maker model")
    own.add_argument("--steps", type=int, help="of the search")
    own.add_argument("--rounds", type=int, help="of polish on every level")
    own.add_argument("--searches", type=int, help="phasings, searches or ellipsoids to begin with")
    own.add_argument(
        "--start",
        choices=("auto", "kinematic", "flat", "random", "solid", "shape"),
        default="auto",
        help="HIO/ER; flat or random in the box; solid, in ellipsoids; flat in the crystal and 2 voxels; auto: HIO/ER, "
        "or solid where 0.8 of the box is thicker than an extinction length",
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quiet", dest="progress", action="store_false")
    args = parser.parse_args(arguments)

    asked = {"steps": args.steps, "rounds": args.rounds, "starts": args.searches}
    args.search = {name: value for name, value in asked.items() if value is not None}
    if args.maker != "model" and (args.search or args.start != "auto"):
        parser.error("--steps, --rounds, --searches, --start: expected --maker model, got wide-angle, solved by itself")
    args.photons = args.photons or PHOTONS[args.study]
    args.kinematic = {"starts": args.starts} | ({"iterations": args.iterations} if args.iterations else {})
    return args


def main(arguments=None):
    args = _parsed(arguments)
    folder = args.output or pathlib.Path(f"paper-{args.study}-{args.size}-{args.maker}")
    settings = {"study": args.study, "size": args.size, "maker": args.maker, "methods": list(args.methods)}
    settings |= {"start": args.start, "search": args.search}
    settings |= {"kinematic": json.loads(json.dumps(kinematic.PAPER_RECIPE | args.kinematic))}
    results = Results(folder, settings | {"version": pendel.__version__}, args.resume)
    begun = time.perf_counter()
    try:
        {"A": run_a, "B": run_b, "C": run_c}[args.study](args, results)
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is finished is in {results.path}, --resume goes on", file=sys.stderr)
        return 130
    print(f"\nwritten to {folder} in {time.perf_counter() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
