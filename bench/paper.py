"""The simulations of Wu et al., arXiv 2506.15939, with three methods: HIO/ER, the same with refraction and absorption
corrected along the optical path, and the dynamical reconstruction.

    python bench/paper.py A [--size full|half|small] [--photons none 1e6 1e7 1e8 1e9] [--seeds 0 1 2] [-o FOLDER]
    python bench/paper.py B [--size ...] [--photons 1e8] ...
    python bench/paper.py C [--size small] [--lengths 0.1 ... 2] ...

A: the gold cube, rocking curves and their shift, errors without noise and with photons in the whole scan. B: the
welded iridate block. C: gold cubes of 0.1 to 2 extinction lengths. `paper_cases.py` says what they are. Data come from
the model that reconstructs them: this shows what is recovered where the model holds.

Every finished row is printed and written to FOLDER/results.json, the objects (on the model grid, laid over the truth)
and pictures beside it; Ctrl-C keeps what is there, and ``--resume`` goes on behind it.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
import paper_cases as cases
import paper_pictures as pictures
import pendel
from pendel import compare, kinematic, phantom, refraction, resolution
from pendel.app import simulate
from pendel.base.symmetry import strain
from pendel.recipes.kinematic_starts import phase
from scipy import ndimage

STEPS = 3200  # of the dynamical search, `pendel.multiscale`
TRIAL_EPOCHS = 25  # of each candidate of the start
PHOTONS = {"A": ["none", "1e6", "1e7", "1e8", "1e9"], "B": ["1e8"], "C": ["none"]}
LENGTHS = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0)  # of C, in extinction lengths
METHODS = ("HIO/ER", "refraction-corrected", "dynamical")
CORNER = 0.25e-6  # m: voxels nearer to the welded corner make its displacement
COLUMNS = (
    ("phase_rmse", "phase rad", "{:.4f}"),
    ("phase_rmse_band", "in band", "{:.4f}"),
    ("amplitude_cv", "ampl. CV", "{:.4f}"),
    ("strain_rmse", "strain rmse", "{:.2e}"),
    ("strain_rmse_band", "in band", "{:.2e}"),
    ("resolution_nm", "FSC nm", "{:.1f}"),
    ("misfit", "misfit", "{:.2e}"),
    ("seconds", "s", "{:.0f}"),
)


def reconstructions(case, data, seed, recipe, methods=METHODS, checkpoint=None, resume=False, progress=True):
    """{method: (S on the model grid, misfit of its own model, seconds)}."""
    found = {}
    if set(methods) - {"dynamical"}:
        found |= _kinematic(case, data, seed, recipe, progress)
    if "dynamical" in methods:
        found["dynamical"] = _dynamical(case, data, seed, recipe, checkpoint, resume, progress)
    return {method: found[method] for method in methods}


def _kinematic(case, data, seed, recipe, progress):
    """At its best: the start of the smallest misfit (some of HIO/ER stagnate), whole amplitudes, the better twin.

    The twin, which it cannot know, is that of the truth.
    """
    model, begun = case.model, time.perf_counter()
    phased = phase(data, seed=seed, threads=model.threads, progress=progress, **recipe["kinematic"])
    grid = phased, model.experiment, model.shape, model.voxel
    S_k = kinematic.to_model_grid(*grid, clip=False)
    if compare(S_k, case.S, model.voxel, ramp=True, twin=True).twin:
        S_k = kinematic.to_model_grid(*grid, clip=False, twin=True)
    seconds = time.perf_counter() - begun
    found = {"HIO/ER": (S_k, phased.chi**2, seconds)}
    corrected = refraction.correct(S_k, model.voxel, model.experiment, model.crystal.chi_0)
    found["refraction-corrected"] = corrected, phased.chi**2, seconds
    return found


def _dynamical(case, data, seed, recipe, checkpoint, resume, progress):
    model, begun = case.model, time.perf_counter()
    options = {"counts": recipe["counts"], "steps": recipe["steps"], "trial_epochs": TRIAL_EPOCHS, "seed": seed}
    options |= {"rounds": recipe["rounds"], "starts": recipe["starts"], "checkpoint": checkpoint, "resume": resume}
    if recipe["start"] == "shape":
        support = ndimage.binary_dilation(case.body > 0, iterations=2)
        result = pendel.multiscale(model, data, None, "flat", support, progress=progress, **options)
    else:
        start = None if recipe["start"] == "auto" else recipe["start"]
        result = pendel.multiscale(model, data, None, start, progress=progress, **options)
    return result.S, result.misfit, time.perf_counter() - begun


def measure(case, S, method):
    """Numbers of one reconstruction against the truth, and S laid over it.

    A kinematic S is freed of a phase ramp, which refraction adds and an analysis takes away as a wrong rocking
    centre; the dynamical one is not, nor is its twin tried. The amplitude is judged on S as it is, in the voxels that
    the crystal, laid over it, fills: moved by a part of a voxel, a sharp surface rings into the inside.
    """
    voxel, free = case.model.voxel, method != "dynamical"
    raw = compare(S, case.S, voxel, h=case.h, ramp=free)
    band = compare(S, case.S, voxel, band=case.measured_band, h=case.h, ramp=free)
    shells = resolution.fsc(raw.registered, case.S, voxel)
    bulk = np.abs(S[ndimage.shift(case.body, -np.array(raw.shift), order=1) > 0.999])
    laid = np.abs(raw.registered[case.body > 0.999])
    row = {
        "phase_rmse": raw.phase_rmse,
        "phase_rmse_band": band.phase_rmse,
        "amplitude_cv": float(bulk.std() / bulk.mean()),
        "amplitude_cv_registered": float(laid.std() / laid.mean()),
        "strain_rmse": raw.strain_rmse,
        "strain_rmse_band": band.strain_rmse,
        "resolution_nm": 1e9 * shells.resolution,
        "resolution_limited": shells.limited,
    }
    if case.corner is not None:
        wanted, got = (_corner_displacement(case, v) for v in (case.S, raw.registered))
        row |= {"corner_truth_pm": 1e12 * wanted, "corner_error_percent": 100 * (got - wanted) / wanted}
    return row, raw.registered


def _corner_displacement(case, S):
    """Mean displacement along h, m, of the voxels near the welded corner, less that of the half far from it."""
    z, y, x = phantom.coordinates(case.model.shape, case.model.voxel)
    c = case.corner
    distance = np.sqrt((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2)
    inside = case.body > 0.999
    near = inside & (distance < CORNER)
    far = inside & (distance > np.median(distance[inside]))
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
    """Simulate, reconstruct by all methods, measure, record: {method: S laid over the truth}."""
    key = {"photons": photons, "seed": seed} | key
    label = "-".join(f"{v:g}" if isinstance(v, float) else str(v) for v in key.values())
    stored = results.folder / f"objects-{label}.npz"
    if results.done(**key):
        with np.load(stored) as file:
            return {method: file[method] for method in file.files}
    total = None if photons == "none" else float(photons)
    data, _ = simulate.counts(case.model.intensities(case.S), seed=seed, total=total)
    checkpoint = results.folder / f"checkpoint-{label}.h5"
    recipe = {"kinematic": kinematic.PAPER_RECIPE | args.kinematic, "steps": args.steps, "rounds": args.rounds}
    recipe |= {"start": args.start, "starts": args.searches, "counts": photons != "none"}
    found = reconstructions(case, data, seed, recipe, args.methods, checkpoint, args.resume, args.progress)
    rows, laid = [], {}
    for method, (S, misfit, seconds) in found.items():
        numbers, laid[method] = measure(case, S, method)
        rows.append(key | {"method": method, "misfit": misfit, "seconds": seconds} | numbers)
    np.savez(stored, **{method: S.astype(np.complex64) for method, S in laid.items()})
    results.add(rows)
    checkpoint.unlink(missing_ok=True)
    title = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in key.items())
    print(f"\n{title}")
    extra = (("corner_error_percent", "corner error %", "{:.2f}"),) if case.corner is not None else ()
    print(f"{'':22}" + "".join(f"{label:>14}" for _, label, _ in COLUMNS + extra))
    for row in rows:
        print(f"{row['method']:22}" + "".join(f"{form.format(row[k]):>14}" for k, _, form in COLUMNS + extra))
    sys.stdout.flush()
    return laid


def study_seeds(case, photons, results, args, draw):
    """All seeds of one photon number, a picture of the first, and how well the seeds agree: PRTF, loss by seed."""
    objects = {method: [] for method in args.methods}
    for seed in args.seeds:
        laid = study(case, photons, seed, results, args)
        for method, S in laid.items():
            objects[method].append(S)
        if seed == args.seeds[0]:
            draw(laid, photons)
    for method, several in objects.items():
        if len(several) > 1:
            curve = resolution.prtf(several, case.model.voxel)
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
    results.write(shift_deg=shifts, rocking={k: list(v) for k, v in rocking.items()})
    pictures.rocking(results.folder / "rocking.png", case, rocking, shifts, angles, curves)

    def draw(laid, photons):
        title = f"{case.name}, {'no noise' if photons == 'none' else photons + ' photons'}"
        pictures.methods(results.folder / f"methods-{photons}.png", case, laid, strain, title)
        pictures.correlation(results.folder / f"fsc-{photons}.png", case, laid, resolution.fsc, title)

    for photons in args.photons:
        study_seeds(case, photons, results, args, draw)


def run_b(args, results):
    case = cases.welded_block(args.size, threads=args.threads)
    wanted = _corner_displacement(case, case.S)
    print(f"{case.name}: displacement of the corner {1e12 * wanted:.1f} pm along h")

    def draw(laid, photons):
        for method, S in ({"truth": case.S} | laid).items():
            name = f"nine-{method.replace('/', '-')}-{photons}.png"
            pictures.nine(results.folder / name, case, S, strain, f"{case.name}: {method}")
        pictures.correlation(results.folder / f"fsc-{photons}.png", case, laid, resolution.fsc, case.name)

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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("A", "B", "C"))
    parser.add_argument("--size", choices=tuple(cases.PIXELS), default="small")
    parser.add_argument("--photons", nargs="+", help='in the whole scan, or "none"')
    parser.add_argument(
        "--seeds", "--seed", nargs="+", type=int, default=[0], help="of phasing, frame groups and noise"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--lengths", nargs="+", type=float, default=LENGTHS, help="of C, in extinction lengths")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the dynamical reconstruction")
    parser.add_argument("--rounds", type=int, default=4, help="of polish on every level")
    parser.add_argument("--iterations", type=int, help="of HIO/ER, for a quick look; the paper's is 1800")
    parser.add_argument("--starts", type=int, default=5, help="phasings of HIO/ER, of which the best is kept")
    parser.add_argument("--searches", type=int, default=5, help="the same of the dynamical start: phasings or searches")
    parser.add_argument(
        "--start",
        choices=("auto", "kinematic", "flat", "random", "solid", "shape"),
        default="auto",
        help="of the dynamical reconstruction: HIO/ER; flat or random in the box; solid, in ellipsoids; flat in the "
        "crystal and 2 voxels; auto: HIO/ER, or solid where 0.8 of the box is thicker than an extinction length",
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quiet", dest="progress", action="store_false")
    args = parser.parse_args(arguments)
    args.photons = args.photons or PHOTONS[args.study]
    args.kinematic = {"starts": args.starts} | ({"iterations": args.iterations} if args.iterations else {})
    folder = args.output or pathlib.Path(f"paper-{args.study}-{args.size}")
    settings = {"study": args.study, "size": args.size, "steps": args.steps}
    settings |= {"start": args.start, "searches": args.searches, "methods": list(args.methods)}
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
