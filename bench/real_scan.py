"""What the dynamical model changes on the measured 34-ID-C scan: the same start and epochs through both models.

    python bench/real_scan.py FOLDER [--config bench/34idc_scan54.toml] [-o DIR] [--epochs N]

FOLDER is the scan (raw counts or tif frames, SPEC file, dark and flat field). Printed, as relative misfit
sum (sqrt D - sqrt I)^2 / sum I: dynamical and kinematic (the same code, coupling to first order) from the start the
dynamical model's own trials chose, from the conjugate twin of that start, from the phases found kinematically, and
from where the dynamical run ended.
Beside them stands the least misfit that photon counting leaves, E (sqrt N - sqrt D)^2 summed over the pixels.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import pendel
from pendel import kinematic
from pendel.app import config
from pendel.kinematic.support import recentre, shrink_wrap
from pendel.recipes import kinematic_starts
from scipy import ndimage, stats


def photon_floor(D, good, total):
    """Expected relative misfit of the true model: Poisson counts of mean D."""
    mean = np.logspace(-4, 3, 300)
    counts = np.arange(1400)
    table = [((np.sqrt(counts) - np.sqrt(m)) ** 2 * stats.poisson.pmf(counts, m)).sum() for m in mean]
    expected = np.interp(np.log(np.maximum(D, 1e-4)), np.log(mean), table)
    return float((np.where(D > 900, 0.25, np.where(D < 1e-4, D, expected)) * good).sum() / total)


def describe(S):
    """Phase spread and amplitude variation well inside the crystal, and its size."""
    amplitude = np.abs(S)
    inside = amplitude > 0.5 * np.quantile(amplitude[amplitude > 0.3], 0.7)
    core = ndimage.binary_erosion(inside, iterations=3)
    phase = np.angle(S[core] * np.conj(S[core].sum()))
    return {
        "phase_std": phase.std(),
        "amplitude_cv": amplitude[core].std() / amplitude[core].mean(),
        "voxels": inside.sum(),
    }


def prepare(settings, folder):
    """The scan, its phases found kinematically, and both models of it {coupling: model}."""
    scan = settings.scan(folder)
    experiment, crystal = settings.experiment(scan), settings.crystal()
    voxel = settings.voxel(experiment)
    phased = kinematic_starts.phase(
        scan.data, scan.mask, iterations=settings.start.iterations, seed=settings.start.seed
    )
    shape = kinematic_starts.box_for(phased, experiment, voxel)
    models = {c: pendel.Model(experiment, crystal, shape, voxel, coupling=c) for c in ("dynamical", "kinematic")}
    return scan, phased, models


def compared(scan, phased, models, first, recipe):
    """What both models make of every start, one row each; ``first`` is the start that the dynamical one chose."""
    good = np.broadcast_to(scan.mask, scan.data.shape)
    total = float((scan.data * good).sum(dtype=np.float64))
    rows = []

    def run(name, coupling, S, support, **changes):
        begun = time.perf_counter()
        model = models[coupling]
        result = pendel.reconstruct(model, scan.data, scan.mask, S, support, progress=False, **(recipe | changes))
        D = model.intensities(result.S) * result.scale
        row = {"run": name, "coupling": coupling, "misfit": result.misfit, "photon_floor": photon_floor(D, good, total)}
        row |= {k: float(v) for k, v in describe(result.S).items()} | {"seconds": time.perf_counter() - begun}
        rows.append(row)
        print(
            f"{name:30s} {coupling:10s} misfit {row['misfit']:.5f} (photons alone {row['photon_floor']:.5f})"
            f"  phase std {row['phase_std']:.3f} rad, amplitude CV {row['amplitude_cv']:.3f}, {row['seconds']:.0f} s",
            flush=True,
        )
        return result

    best = run("same start", "dynamical", first.S, first.support)
    run("same start", "kinematic", first.S, first.support)

    turned = kinematic.twin(first.support.astype("complex64")).real > 0.5
    for coupling in models:
        run("twin of that start", coupling, kinematic.twin(first.S), turned)

    # The start above was chosen by the dynamical model; the phases found kinematically are the other model's own.
    model = models["kinematic"]
    S = recentre(kinematic.to_model_grid(phased, model.experiment, model.shape, model.voxel))[0]
    support = ndimage.binary_dilation(shrink_wrap(S, 0.15, 1.0))
    for coupling in models:
        run("phased start", coupling, S, support)
    for coupling in models:
        run("from the dynamical end", coupling, best.S, best.support, learning_rate=0.05)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--config", default=pathlib.Path(__file__).parent / "34idc_scan54.toml")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the random groups of frames")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("real-scan"))
    args = parser.parse_args()
    args.output.mkdir(exist_ok=True)

    settings = config.load(args.config)
    scan, phased, models = prepare(settings, args.folder)
    begun = time.perf_counter()
    first = pendel.kinematic_start(models["dynamical"], scan.data, scan.mask, phased=phased, progress=False)
    print(f"start: chi {phased.chi:.4f}, taken {first.kind!r} in {time.perf_counter() - begun:.0f} s; trials:")
    for name, misfit in first.trial_misfits.items():
        print(f"  {name:12s} {misfit:.5f}")

    recipe = {
        "epochs": args.epochs or settings.recipe.epochs,
        "batches": settings.recipe.batches,
        "seed": args.seed,
        "learning_rate": settings.recipe.learning_rate,
        "shrink_wrap_every": settings.recipe.shrink_wrap_every,
    }
    rows = compared(scan, phased, models, first, recipe)
    (args.output / "real_scan.json").write_text(json.dumps({"trials": first.trial_misfits, "runs": rows}, indent=1))

    volume = rows[0]["voxels"] * np.prod(models["dynamical"].voxel)
    print(f"crystal: volume {volume:.3e} m3, cube edge {volume ** (1 / 3) * 1e9:.0f} nm, sphere", end=" ")
    print(f"{(6 * volume / np.pi) ** (1 / 3) * 1e9:.0f} nm")


if __name__ == "__main__":
    main()
