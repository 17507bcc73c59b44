"""Reconstructions from frames that pendel did not make, beside the same from frames of its own grid and equations.

    python bench/foreign.py [--kinds smooth strong ...] [--photons none 1e7 1e9] [--geometry coplanar]
        [--disturbance none flux ...] [--seeds 0 1 | --show] [--quick] [--alone] [--cache FOLDER] [--workers 2]
        [-o FILE.json]

Frames: `pendel.reference.wide_angle` of a sample crystal (`pendel.analysis.crystals`) on voxels a quarter as wide as
the data resolve, then what a beamline adds (`pendel.analysis.disturbances`). Own frames: the crystal averaged over the
voxels of the reconstruction, by the model that reconstructs it, with the same disturbances.

error: rms of the phase, rad, over voxels at least one data voxel inside the surface of the truth, after constant phase,
translation and ramp (`pendel.compare`). misfit: of the reconstruction to its data. verdict: of `Result.trust`; the last
lines count how often each was that of a right crystal, whose error is below RIGHT.

Crystals to tune by and crystals to show are different ones: `TUNE` and `SHOW`. Nothing in pendel may be chosen by what
happens to the latter.
"""

import argparse
import collections
import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
import time
from types import SimpleNamespace

import numpy as np
import pendel
from pendel.analysis import bodies, crystals, disturbances, rocking_scans, strain_fields
from pendel.reference import wide_angle

TUNE = range(100)  # seeds
SHOW = range(1000, 1100)

SIZE = 0.8e-6
BOX = 1.3  # times the crystal
# kind: the maker of its crystals, and how many times as large they and the detector are
KINDS = {kind: (make, 1.0) for kind, make in crystals.KINDS.items()} | {"thick": (crystals.smooth, 2.25)}
COLUMNS = ("kind", "seed", "photons", "geometry", "disturbance", "error", "own", "ratio", "misfit", "own misfit", "s")
RIGHT = 0.05  # rad; between what right crystals show, up to 0.03, and wrong ones, from 0.1 on


@dataclasses.dataclass(frozen=True)
class Case:
    """A crystal, the scan of it and what is added.

    Attributes
    ----------
    kind, seed : of `KINDS`
    photons : in the whole scan; None: no noise
    geometry : of `pendel.analysis.rocking_scans.GEOMETRIES`
    disturbance : of `pendel.analysis.disturbances.USUAL`
    size : of a crystal that is not thick, m
    pixels, frames : of its detector and scan
    """

    kind: str
    seed: int
    photons: float | None = None
    geometry: str = "coplanar"
    disturbance: str = "none"
    size: float = SIZE
    pixels: int = 64
    frames: int = 65

    def scan(self):
        """(Experiment, Crystal, SampleCrystal)."""
        make, larger = KINDS[self.kind]
        experiment, crystal = rocking_scans.rocking_scan(
            self.geometry, pixels=round(larger * self.pixels), frames=round(larger * self.frames)
        )
        return experiment, crystal, make(self.seed, larger * self.size, experiment.h)

    def disturbances(self):
        return disturbances.usual(self.disturbance, self.photons, self.seed)


def reconstruct(experiment, crystal, data, mask, extent, counts, seed):
    """`pendel.Result` of measured frames, with all that it chooses itself; extent: of the box, m, is not told."""
    return pendel.solve(experiment, crystal, data, mask, counts=counts, seed=seed, progress=False)


def foreign_frames(case, cache=None, workers=1):
    """Frames at the true angles and energies that pendel did not make; kept in the folder ``cache``."""
    experiment, crystal, sample = case.scan()
    chosen = case.disturbances()

    def frames_of(**offsets):
        path = None if cache is None else pathlib.Path(cache) / f"{_key(case, offsets)}.npz"
        if path is not None and path.exists():
            return np.load(path)["frames"]
        frames = rocking_scans.foreign_frames(experiment, crystal, sample, workers=workers, **offsets)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, frames=frames)
        return frames

    return disturbances.true_frames(frames_of, experiment, chosen)


def _key(case, offsets):
    """Name of the frames: all that they depend on, the text of what makes them too."""
    clean = dataclasses.replace(case, photons=None, disturbance="")
    made_by = (wide_angle, rocking_scans, crystals, bodies, strain_fields)
    text = [pathlib.Path(module.__file__).read_bytes() for module in made_by]
    said = f"{clean} {offsets['angle_offsets'].tobytes().hex()} {offsets['energy_offset']!r}"
    return hashlib.sha256(b"".join([said.encode(), *text])).hexdigest()[:32]


def own_frames(case, shape, voxel):
    """Frames of pendel's own model of the crystal on the grid that is to find it."""
    experiment, crystal, sample = case.scan()
    model = pendel.Model(experiment, crystal, shape, voxel)
    s_0, S = rocking_scans.truth_on(sample, experiment, model)

    def frames_of(**offsets):
        scan = rocking_scans.wide_angle_scan(experiment, **offsets)
        dq = np.array([experiment.frame @ scan.dq(frame) for frame in range(experiment.n_frames)])
        found = model.intensities(S.astype(model.dtype), s_0=np.maximum(s_0, 0).astype(model.real_dtype), dq=dq)
        return found.astype(float)

    return disturbances.true_frames(frames_of, experiment, case.disturbances())


def phase_error(result, sample, experiment):
    """rms, rad, one data voxel inside."""
    grid = SimpleNamespace(shape=result.S.shape, voxel=result.voxel)
    return crystals.phase_error(result.S, grid, sample, experiment, ramp=True).phase_rmse


def run(case, cache=None, workers=1, alone=False):
    """A row of the table, {column: value}.  alone : without frames of pendel's own model beside them."""
    experiment, crystal, sample = case.scan()
    extent, counts = BOX * sample.size, case.photons is not None

    def found(frames):
        seen = disturbances.measured(frames, experiment, case.disturbances(), sample.size)
        start = time.perf_counter()
        result = reconstruct(experiment, crystal, seen.data, seen.mask, extent, counts, case.seed)
        return result, phase_error(result, sample, experiment), time.perf_counter() - start

    result, error, seconds = found(foreign_frames(case, cache, workers))
    row = dataclasses.asdict(case) | {"error": error, "misfit": result.misfit, "s": seconds}
    row |= {"verdict": result.trust.verdict, "trust": str(result.trust)}
    if alone:
        return row | {"own": math.nan, "ratio": math.nan, "own misfit": math.nan}
    own_result, own, _ = found(own_frames(case, result.S.shape, result.voxel))
    return row | {"own": own, "ratio": error / own, "own misfit": own_result.misfit}


def line(row):
    """A row as text."""
    photons = "none" if row["photons"] is None else f"{row['photons']:.0e}"
    numbers = (f"{row['error']:.4f}", f"{row['own']:.4f}", f"{row['ratio']:.1f}", f"{row['misfit']:.1e}")
    texts = (row["kind"], row["seed"], photons, row["geometry"], row["disturbance"], *numbers)
    told = " ".join(f"{text!s:>11}" for text in (*texts, f"{row['own misfit']:.1e}", f"{row['s']:.0f}"))
    return f"{told}  {row['verdict']}"


def verdicts(rows):
    """How often each verdict was that of a right and of a wrong crystal, lines of text."""
    counts = collections.Counter((row["verdict"], row["error"] < RIGHT) for row in rows)
    for word in sorted({verdict for verdict, _ in counts}):
        yield f"{word}: {counts[word, True]} right, {counts[word, False]} wrong (error above {RIGHT} rad)"


def cases(args):
    """The cases that the command line asks for."""
    small = {"size": SIZE / 2, "pixels": 32, "frames": 33} if args.quick else {}
    seeds = args.seeds if args.seeds else list(SHOW[:2] if args.show else TUNE[:2])
    photons = [None if p == "none" else float(p) for p in args.photons]
    for kind, geometry, disturbance, n, seed in itertools.product(
        args.kinds, args.geometry, args.disturbance, photons, seeds
    ):
        yield Case(kind, seed, n, geometry, disturbance, **small)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=["smooth", "void", "dislocation"])
    parser.add_argument("--photons", nargs="+", default=["1e7", "1e9"], help="in the whole scan, or none")
    parser.add_argument("--geometry", nargs="+", choices=tuple(rocking_scans.GEOMETRIES), default=["coplanar"])
    parser.add_argument("--disturbance", nargs="+", choices=tuple(disturbances.USUAL), default=["none"])
    parser.add_argument("--seeds", nargs="+", type=int, help="of the crystals; default: the first two of TUNE")
    parser.add_argument("--show", action="store_true", help="the first two of SHOW instead")
    parser.add_argument("--quick", action="store_true", help="crystals, detector and scan half as large")
    parser.add_argument("--alone", action="store_true", help="without frames of pendel's own model, half the time")
    parser.add_argument("--cache", help="folder that keeps frames without noise")
    parser.add_argument("--workers", type=int, default=1, help="threads that make frames")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="JSON")
    args = parser.parse_args(arguments)

    rows = []
    print(" ".join(f"{name:>11}" for name in COLUMNS), " verdict")
    for case in cases(args):
        rows.append(run(case, args.cache, args.workers, args.alone))
        print(line(rows[-1]), flush=True)
        if args.output:
            args.output.write_text(json.dumps(rows, indent=1))
    print(*verdicts(rows), sep="\n")
    return rows


if __name__ == "__main__":
    main()
