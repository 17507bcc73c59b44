"""The ways to move E_0 beside each other: time of a gradient, and what they do to reconstructed phases.

    python bench/transports.py [--size 128] [--frames 64] [--repeat 9] [--seeds 3 4] [--pixels 0.75]
        [--json FILE]

Time: forward + adjoint of 16 rows, one thread, complex64, runs interleaved, least processor times; `box` and `fourier`
on cubic voxels, `shift` on those of one whole pixel per layer. The gradients of `box` and `fourier` are of two
discretisations, so their difference is that of the discretisations.

Phases: frames of `pendel.reference.wide_angle`, 1e8 photons, of smooth crystals of 0.5 um; `polish` from the truth's
shape with half of its phases, on voxels of one whole pixel per layer with `shift`, of --pixels with the other two.
error: rms of the phase one data voxel inside, rad, as in foreign.py. Crystals to tune by.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pendel
from foreign import Case
from pendel.analysis import crystals, disturbances, rocking_scans
from pendel.recipes.polisher import COUNTED, EVIDENCE

TWO_THETA = 0.7
GOLD = {"wavelength": 1.5498e-10, "chi_0": -9.407e-5 + 8.496e-6j, "chi_h": 5.2548e-5 - 5.9889e-6j}
DX, ROWS = 8e-9, 16


def times(size, frames, repeat):
    """{transport: ns per voxel and frame}, (forward, adjoint)."""
    dz = {"shift": DX / np.tan(TWO_THETA), "box": DX, "fourier": DX}
    rng = np.random.default_rng(1)
    S = rng.uniform(0.5, 1, (size, ROWS, size)) * np.exp(1j * rng.normal(size=(size, ROWS, size)))
    S, dq = S.astype("complex64"), np.zeros((frames, 3))
    dq[:, 2] = np.linspace(-5e7, 5e7, frames)
    operators = {
        name: pendel.TakagiTaupin(
            S.shape, (dz[name], DX, DX), two_theta=TWO_THETA, transport=name, threads=1, **GOLD
        )
        for name in dz
    }  # fmt: skip
    seconds = {name: [] for name in operators}
    for _ in range(repeat):
        for name, op in operators.items():
            begun = time.process_time()
            E_h, state = op.forward(S, dq, return_state=True)
            between = time.process_time()
            op.adjoint(S, dq, E_h, state=state)
            seconds[name].append((between - begun, time.process_time() - between))
    return {name: tuple(1e9 * np.min(each, axis=0) / (S.size * frames)) for name, each in seconds.items()}


def errors(seed, pixels):
    """{transport: (rms error of the phase, misfit, pixels per layer)} of one crystal."""
    case = Case("smooth", seed, photons=1e8, size=0.5e-6, pixels=44, frames=45)
    experiment, crystal, sample = case.scan()
    chosen = case.disturbances()

    def frames_of(**offsets):
        return rocking_scans.foreign_frames(experiment, crystal, sample, **offsets)

    frames = disturbances.true_frames(frames_of, experiment, chosen)
    seen = disturbances.measured(frames, experiment, chosen, sample.size)
    found = {}
    for name in ("shift", "box", "fourier"):
        dz, dy, dx = experiment.suggest_voxel(experiment.suggest_voxel()[1] / 1.5)
        voxel = dz if name == "shift" else pixels * dz, dy, dx
        shape = tuple(2 * int(np.ceil(0.65 * sample.size / v)) for v in voxel)
        model = pendel.Model(experiment, crystal, shape, voxel, transport=name, sampling="mean")
        S = rocking_scans.truth_on(sample, experiment, model)[1]
        start = (np.abs(S) * np.exp(0.5j * np.angle(S))).astype(model.dtype)
        recipe = COUNTED.but(rounds=2, iterations=(0, 80), widen=1, **EVIDENCE)
        result = pendel.polish(
            model, seen.data, seen.mask, start=start, support=np.abs(S) > 0.02, recipe=recipe, progress=False
        )
        error = crystals.phase_error(result.S, model, sample, experiment, ramp=True).phase_rmse
        found[name] = float(error), float(result.misfit), model.operators[0][1].pixels_per_layer
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 4])
    parser.add_argument("--pixels", type=float, default=0.75, help="per layer, with box and fourier")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = times(args.size, args.frames, args.repeat)
    print(f"ns per voxel and frame, {args.size} layers of {args.size} columns, {args.frames} frames")
    for name, (forward, adjoint) in found.items():
        both = forward + adjoint
        over = both / sum(found["shift"])
        print(f"{name:8s} forward {forward:6.3f} adjoint {adjoint:6.3f} both {both:6.3f}: {over:.2f} of shift")
    results = {"ns": found, "phases": {}}
    for seed in args.seeds:
        results["phases"][seed] = errors(seed, args.pixels)
        for name, (error, misfit, moved) in results["phases"][seed].items():
            print(
                f"seed {seed} {name:8s} {moved:.2f} pixels per layer: error {error:.4f} rad, misfit {misfit:.3e}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
