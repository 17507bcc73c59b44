"""The law of errors of `pendel.plan`: fitted to simulated crystals, and beside what HIO and ER find of others.

    python bench/plan.py simulate [--seeds 0 300] [-o bench/results/plan-tune.jsonl]
    python bench/plan.py phase [--seeds 1000 1050] [--starts 2] [-o bench/results/plan-show.jsonl]
    python bench/plan.py fit | show [FILE.jsonl]

Crystals: random facets and a random smooth phase (`pendel.analysis.crystals.smooth`) of random material, reflection,
energy and size, on a grid of about 20 voxels across. `simulate` takes what all frames together show, with their phases,
by one forward sweep (`pendel.planning.kinematic_error`). `phase` takes the intensities of the same alone, with photon
noise, phases them by HIO and ER with shrink-wrap and lays what it finds over the crystal (`pendel.compare`: constant
phase, translation, ramp, scale, twin), as it is and with refraction taken off inside the crystal it found. What HIO and
ER are off from what all frames together show is their own error: noise, and a phase problem that is not quite solved.

One line of JSON for each crystal, seeds that a file has are left out: a run that was ended goes on. Crystals to fit by
and crystals to show are different ones, `TUNE` and `SHOW`.
"""

import argparse
import functools
import json
import math
import pathlib
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pendel
from pendel import kinematic
from pendel.analysis import crystals
from pendel.base.constants import KEV
from pendel.kinematic.refraction import optical_path
from pendel.planning import error_law
from pendel.planning.kinematic_error import diffraction_vector, kinematic_error, rms, strain_of, without_plane
from pendel.planning.kinematic_image import kinematic_image
from scipy import fft

TUNE, SHOW = (0, 300), (1000, 1050)  # seeds
RESULTS = pathlib.Path(__file__).parent / "results"
FCC = ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1))
MATERIALS = dict.fromkeys(("Au", "Pt", "Pd", "Ni", "Cu", "Ag", "Al"), FCC)
MATERIALS |= dict.fromkeys(("Fe", "W"), ((1, 1, 0), (2, 0, 0), (2, 1, 1)))
MATERIALS |= dict.fromkeys(("Si", "Ge"), ((1, 1, 1), (2, 2, 0), (3, 1, 1)))
MATERIALS |= {"GaAs": ((1, 1, 1), (2, 2, 0)), "MgO": ((2, 0, 0), (2, 2, 0)), "SrTiO3": ((1, 1, 0), (1, 1, 1))}
ENERGIES = (6.5, 20.0)  # keV
EXTINCTION = (0.15, 2.0)  # kappa times the largest extent
PEAK_TO_PEAK = (0.5, 5.0)  # rad, of the crystal's own phase
ACROSS = 20  # voxels
PHOTONS = 1e7  # in the brightest pixel
ITERATIONS, STARTS = 400, 2
ROOM = 2.2  # times the box: pixels per fringe
BODY = 0.3  # of the median amplitude: what is taken for the crystal where refraction is taken off


def drawn(seed, across=ACROSS):
    """A random crystal on its grid."""
    rng = np.random.default_rng(seed)
    chi = None
    while chi is None or not error_law.LEAST_ANGLE <= chi.two_theta <= error_law.LARGEST_ANGLE:
        material = list(MATERIALS)[rng.integers(len(MATERIALS))]
        hkl = MATERIALS[material][rng.integers(len(MATERIALS[material]))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # near an edge: here any number will do
            try:
                chi = pendel.susceptibility(material, hkl=hkl, energy_keV=rng.uniform(*ENERGIES))
            except ValueError:  # out of reach, or where tables end
                chi = None

    size = math.exp(rng.uniform(*np.log(EXTINCTION))) / error_law.numbers(chi, 1.0).extinction
    dx, t = size / across, math.tan(chi.two_theta)
    dz = dx if t < 0.7 else round(t) * dx / t  # whole pixels where voxels stay nearly cubic
    voxel, shape = (dz, dx, dx), (math.ceil(size / dz) + 3, across + 4, across + 4)
    h = diffraction_vector(chi.wavelength, chi.two_theta)
    sample = crystals.smooth(seed, size, h, rng.uniform(*PEAK_TO_PEAK))
    s_0, S = crystals.sampled(sample, shape, voxel, finer=3)
    return SimpleNamespace(chi=chi, voxel=voxel, h=h, s_0=s_0, S=S, seed=seed)


def simulated(this):
    """What the law is fitted to, of a crystal."""
    chi = this.chi
    error = kinematic_error(this.S, this.voxel, chi.wavelength, chi.two_theta, chi.crystal(), s_0=this.s_0)
    diameter = (6 * this.s_0.sum() * math.prod(this.voxel) / math.pi) ** (1 / 3)
    own = np.angle(this.S * np.exp(-1j * np.angle(this.S.sum())))
    numbers = error_law.numbers(chi, diameter, rms(without_plane(own, error.inside)[error.inside]))
    found = {"seed": this.seed, "material": chi.name, "hkl": chi.hkl, "keV": chi.energy / KEV}
    found |= {"nm": 1e9 * diameter} | numbers._asdict()
    _, corrected, phase = error.phase_rms
    _, corrected_strain, strain = error.strain_rms
    return found | error_law.Error(phase, strain, corrected, corrected_strain)._asdict()


def phased(this, starts=STARTS):
    """What HIO and ER find of a crystal, beside what the law says."""
    begun, chi = time.process_time(), this.chi
    found = simulated(this)
    image = kinematic_image(this.S, this.voxel, chi.wavelength, chi.two_theta, chi.crystal(), s_0=this.s_0)
    image, S = (padded(array) for array in (image, this.S))
    light = np.abs(fft.fftshift(fft.fftn(fft.ifftshift(image)))) ** 2
    counts = np.random.default_rng(this.seed).poisson(light * (PHOTONS / light.max())).astype(np.float32)
    tries = [kinematic.phase(counts, iterations=ITERATIONS, seed=seed, workers=1) for seed in range(starts)]
    best = min(tries, key=lambda result: result.chi)

    laid = pendel.compare(best.object, S, this.voxel, ramp=True, scale=True, twin=True)
    amplitude = np.abs(laid.registered)
    full = np.median(amplitude[laid.inside])
    found_s_0 = np.where(amplitude > BODY * full, np.minimum(amplitude / full, 1), 0)
    turn = np.exp(-1j * math.pi / chi.wavelength * chi.chi_0.real * optical_path(found_s_0, this.voxel, chi.two_theta))
    as_phased, corrected = (beside(which, S, laid.inside, this) for which in (laid.registered, turn * laid.registered))
    found |= {"hio": error_law.Error(*as_phased, *corrected)._asdict()}
    found |= {"own": dict(zip(("phase", "strain"), beside(laid.registered, image, laid.inside, this), strict=True))}
    return found | {"chi": best.chi, "twin": laid.twin, "cpu s": time.process_time() - begun}


def beside(S, truth, inside, this):
    """(phase, strain) by which S is off, rms, less a plane and a mean."""
    turn = np.where(inside, S * truth.conj(), 0)
    phase = without_plane(np.angle(turn * np.exp(-1j * np.angle(turn.sum()))), inside)
    core = eroded(inside)
    return rms(phase[inside]), rms(strain_of(phase, inside, core, this.voxel, this.h)[core])


def padded(array):
    """With ROOM about it, the middle at n//2, of even sizes that a Fourier transform likes."""
    sizes = [2 * fft.next_fast_len(math.ceil(ROOM * n / 2)) for n in array.shape]
    before = [size // 2 - n // 2 for size, n in zip(sizes, array.shape, strict=True)]
    return np.pad(array, [(b, size - n - b) for b, size, n in zip(before, sizes, array.shape, strict=True)])


def eroded(inside):
    """Without its surface."""
    core = inside.copy()
    for axis in range(3):
        for step in (1, -1):
            core &= np.roll(inside, step, axis)
    return core


def run(what, seeds, path):
    """Lines of all seeds that a file does not have."""
    path.parent.mkdir(exist_ok=True)
    known = read(path) if path.exists() else []
    path.write_text("".join(json.dumps(line) + "\n" for line in known))  # without a line that was not finished
    done = {line["seed"] for line in known}
    with path.open("a") as file:
        for seed in range(*seeds):
            if seed not in done:
                file.write(json.dumps(what(drawn(seed))) + "\n")
                file.flush()


def read(path):
    """Lines of a file, but for a last one that was not finished."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def fit(lines):
    """Print coefficients of the law that fit the lines best, in the logarithm."""
    from scipy.optimize import least_squares

    known = [line for line in lines if line["extinction"] <= error_law.LARGEST_X]
    of = {name: np.array([line[name] for line in known]) for name in error_law.Numbers._fields}
    sines = np.sin(of["two_theta"]) ** 2, np.abs(np.sin(of["alpha"]))
    for kind, unit in (("phase", 1.0), ("strain", of["h_size"])):
        total, rest = (np.array([line[name] for line in known]) * unit for name in (kind, f"corrected_{kind}"))

        def extinction(b):
            return of["extinction"] ** 2 * np.hypot(b[0] * of["own_phase"], b[1] * sines[1])

        def both(a, rest=rest):
            return np.hypot(of["refraction"] * (a[0] + a[1] * sines[0]), rest)

        b = least_squares(lambda b, rest=rest: np.log(extinction(b) / rest), (0.1, 0.1), loss="soft_l1").x
        a = least_squares(lambda a, total=total: np.log(both(a) / total), (0.2, 0.0), loss="soft_l1").x
        print(f"{kind.upper()} = Coefficients({a[0]:.4f}, {a[1]:.4f}, {abs(b[0]):.4f}, {abs(b[1]):.4f})")


def show(lines):
    """Print how far the law is from the lines, simulated and phased."""
    laws = [error_law.error(error_law.Numbers(*(line[n] for n in error_law.Numbers._fields))) for line in lines]
    told("simulated", lines, laws)
    if "hio" not in lines[0]:
        return
    told("hio", [line["hio"] for line in lines], laws)
    with_own = [
        error_law.Error(*(math.hypot(e, own) for e, own in zip(law, 2 * list(line["own"].values()), strict=True)))
        for law, line in zip(laws, lines, strict=True)
    ]
    told("hio, their own error in the law", [line["hio"] for line in lines], with_own)
    print("own error:", *(f"{np.median([line['own'][kind] for line in lines]):.2g}" for kind in ("phase", "strain")))


def told(where, found, laws):
    """Print ratios of errors found to those of the law."""
    for name in error_law.Error._fields:
        ratio = np.array([error[name] / getattr(law, name) for error, law in zip(found, laws, strict=True)])
        good = np.mean(np.abs(np.log(ratio)) <= math.log(1.5))
        low, middle, high = np.percentile(ratio, (5, 50, 95))
        text = f"median {middle:.2f}, 5 to 95 % {low:.2f} to {high:.2f}, within 1.5 times {good:.0%}"
        print(f"{where:<10} {name:<17}{len(ratio)} crystals, found over law: {text}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("simulate", "phase", "fit", "show"))
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--seeds", nargs=2, type=int, metavar=("FIRST", "END"))
    parser.add_argument("--starts", type=int, default=STARTS, help="of HIO, the best one is taken")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    args = parser.parse_args()
    tune, shown = RESULTS / "plan-tune.jsonl", RESULTS / "plan-show.jsonl"
    if args.what == "simulate":
        run(simulated, args.seeds or TUNE, args.output or tune)
    elif args.what == "phase":
        run(functools.partial(phased, starts=args.starts), args.seeds or SHOW, args.output or shown)
    elif args.what == "fit":
        fit(read(args.file or tune))
    else:
        show(read(args.file or shown))


if __name__ == "__main__":
    main()
