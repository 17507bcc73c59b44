"""What the dynamical model changes on the measured 34-ID-C scan, judged by pixels that no fit has seen.

    python bench/real_scan.py FOLDER [--config bench/34idc_scan54.toml] [--seeds 0 1 2] [--threads N] [-o DIR]

FOLDER is the scan (raw counts or tif frames, SPEC file, dark and flat field). For every seed a part of the good pixels
is held out before anything else is done. The rest is phased, and `solve_on`, what `pendel.solve` does next, makes a
crystal of the phases, once with the dynamical model and once with the kinematic one (the same code, coupling to first
order). Printed for each: relative misfit sum (sqrt D - sqrt I)^2 / sum I of the pixels that were fitted and of those
held out, what photon counting alone would leave of either, and what the inside of the crystal looks like.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import pendel
from pendel.app import config
from pendel.fit.expected import expected_counts
from pendel.model.pixels import free_pixels
from pendel.recipes import kinematic_starts
from pendel.recipes.solve import solve_on
from pendel.recipes.voxels import counting_noise
from scipy import ndimage

DEPTH = 3  # voxels below the surface, where phases and amplitudes are looked at
COUPLINGS = "dynamical", "kinematic"


def misfits(D, data, pixels):
    """(relative misfit, what photon counting would leave of it) of some pixels."""
    total = data[pixels].sum(dtype=np.float64)
    missed = np.square(np.sqrt(D[pixels]) - np.sqrt(data[pixels]))
    return float(missed.sum() / total), float(counting_noise(D[pixels]).sum() / total)


def describe(S):
    """Second differences of the phase along z, y, x and the spread of |S|, DEPTH voxels inside."""
    core = ndimage.binary_erosion(np.abs(S) > 0.5, iterations=DEPTH)
    bends = [np.angle(np.roll(S, 1, axis) * np.roll(S, -1, axis) * np.conj(S) ** 2)[core] for axis in range(3)]
    rough = [float(np.sqrt(np.mean(bend**2))) for bend in bends]
    return {"roughness": rough, "amplitude_cv": float(np.abs(S)[core].std() / np.abs(S)[core].mean())}


def run(settings, scan, seed, held_out, threads):
    """Rows of both models for one seed, [dict], and their crystals."""
    experiment, crystal = settings.experiment(scan), settings.crystal()
    voxel = experiment.suggest_voxel()
    good = np.broadcast_to(scan.mask, scan.data.shape)
    free = free_pixels(scan.data.shape, held_out, good, seed)
    shown = good & ~free

    phased = kinematic_starts.phase(scan.data, shown, iterations=settings.start.iterations, seed=seed, threads=threads)
    shape = pendel.kinematic.box_for(phased, experiment, voxel)
    rows, crystals = [], {}
    for coupling in COUPLINGS:
        begun = time.perf_counter()
        model = pendel.Model(experiment, crystal, shape, voxel, coupling=coupling, threads=threads)
        # counted photons, flat-fielded
        result = solve_on(model, scan.data, shown, counts=True, phased=phased, seed=seed, progress=False)
        D = expected_counts(result.model, result)
        fitted, unseen = misfits(D, scan.data, shown), misfits(D, scan.data, free)
        row = {"seed": seed, "coupling": coupling, "fitted": fitted, "held_out": unseen} | describe(result.S)
        rows.append(row | {"voxel": result.voxel, "seconds": time.perf_counter() - begun})
        crystals[coupling] = result.S
        print(
            f"seed {seed} {coupling:10s} misfit {fitted[0]:.5f} (photons {fitted[1]:.5f}),"
            f" held out {unseen[0]:.5f} (photons {unseen[1]:.5f}), second differences"
            f" {' '.join(f'{r:.3f}' for r in row['roughness'])} rad, {rows[-1]['seconds']:.0f} s",
            flush=True,
        )
    return rows, crystals


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--config", default=pathlib.Path(__file__).parent / "34idc_scan54.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held-out", type=float, default=0.03, help="part of the good pixels")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("real-scan"))
    args = parser.parse_args()
    args.output.mkdir(exist_ok=True)

    settings = config.load(args.config)
    scan = settings.scan(args.folder)
    rows = []
    for seed in args.seeds:
        found, crystals = run(settings, scan, seed, args.held_out, args.threads)
        rows += found
        (args.output / "real_scan.json").write_text(json.dumps(rows, indent=1))
        for coupling, S in crystals.items():
            np.save(args.output / f"{coupling}_{seed}.npy", S)

    for name in ("fitted", "held_out"):
        ratio = [d[name][0] / k[name][0] for d, k in zip(rows[::2], rows[1::2], strict=True)]
        print(f"{name}: dynamical over kinematic {' '.join(f'{r:.4f}' for r in ratio)}")


if __name__ == "__main__":
    main()
