"""Error and cost of the operator against voxel size, on a smooth strained crystal.

    python bench/accuracy.py [--repeat 5] [--json FILE] [--picture FILE.png]

Truth: `pendel.reference.blanes_moan`, order 4 in z and spectral in x, with its own error printed. Scheme `strang` with
all transports and `etd2rk`, both precisions, one thread. `shift` has dz = dx / tan(2 theta) and refines x and z
together, `box` 0.8 of that; `fourier` keeps dx and refines dz alone, which `shift` cannot. The slope is fitted to
complex128.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pendel
from pendel import reference

PHYSICS = {
    "wavelength": 1.5498e-10,
    "two_theta": np.deg2rad(44.76),
    "chi_0": -9.407e-5 + 8.496e-6j,
    "chi_h": 5.2548e-5 - 5.9889e-6j,
}
LAYERS, DX, NX = 96, 8e-9, 256  # of the middle voxel size
STEPS = 96  # of the oracle
THICKNESS = LAYERS * DX / np.tan(PHYSICS["two_theta"])
FRAMES = 64
DQ = np.zeros((FRAMES, 3))
DQ[:, 2] = np.linspace(-3e7, 3e7, FRAMES)  # rad/m, +-0.06 deg


def crystal(x, y, z):
    """A blob 440 x 220 nm wide (1/e), phase 2.5 rad; 4e-10 at the sides of the box and 4e-6 at its faces."""
    size = np.exp(-((x / 0.22e-6) ** 2) - ((z - THICKNESS / 2) / 0.11e-6) ** 2)
    return size * np.exp(2.5j * np.sin(2 * np.pi * x / 0.77e-6 + 0.3) * np.cos(2 * np.pi * z / THICKNESS))


def truth(dx, nx, steps, dq=DQ):
    row = 2 * ((nx + int(np.ceil(LAYERS * DX / dx)) + 17) // 2)
    return reference.blanes_moan(
        crystal, dq, shape=(1, 1, nx), voxel=(THICKNESS, dx, dx), steps=steps, row_length=row, **PHYSICS
    )


def operator(shape, voxel, transport, scheme, dtype, threads=1):
    numerics = {"transport": transport, "scheme": scheme, "dtype": dtype, "threads": threads}
    return pendel.TakagiTaupin(shape, voxel, **numerics, **PHYSICS)


def measure(transport, dtype, dx, nz, expected, repeat):
    nx = expected.shape[2]
    scheme = ("fourier", "etd2rk") if transport == "etd2rk" else (transport, "strang")
    op = operator((nz, 1, nx), (THICKNESS / nz, dx, dx), *scheme, dtype)
    x, z = (np.arange(nx) - nx // 2) * dx, (np.arange(nz) + 0.5) * THICKNESS / nz
    S = crystal(x, 0, z[:, None, None]).astype(dtype)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        E_h = op.forward(S, DQ)
        seconds.append(time.perf_counter() - start)
    error = float(np.linalg.norm(E_h - expected) / np.linalg.norm(expected))
    return error, min(seconds) * 1e3


def draw(path, results):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    labels = {"shift": "strang, shift (dx and dz refined)", "box": "strang, box (the same)"}
    labels |= {"fourier": "strang, fourier", "etd2rk": "etd2rk, fourier"}
    for transport, label in labels.items():
        for dtype, style in (("complex128", "o-"), ("complex64", "s--")):
            rows = [r for r in results if r["transport"] == transport]
            cost = [1e6 * r[dtype][1] / (r["nx"] * FRAMES) for r in rows]
            colour = f"C{list(labels).index(transport)}"
            axes.loglog(cost, [r[dtype][0] for r in rows], style, color=colour, mfc="w", label=f"{label}, {dtype}")
    axes.set(xlabel="forward, ns per pixel of the exit field, one core", ylabel="relative error of E_h")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", help="PNG: error against time per point of the exit field")
    args = parser.parse_args()
    fine = truth(DX, NX, STEPS)
    converged = float(np.linalg.norm(truth(DX, NX, STEPS // 2) - fine) / np.linalg.norm(fine))
    print(f"pendel {pendel.__version__}, {FRAMES} frames of one row, {THICKNESS * 1e9:.0f} nm thick")
    print(f"oracle: {converged:.1e} between {STEPS // 2} and {STEPS} steps, so its own error is {converged / 15:.0e}")
    print("transport     dx nm   dz nm   nz   nx | error c128  error c64 | forward ms c128    c64")
    results = []
    shift = [("shift", DX * 2.0**-i, round(LAYERS * 2**i)) for i in (-2, -1, 0, 1)]
    box = [("box", dx, round(nz / 0.8)) for _, dx, nz in shift]
    fourier = [("fourier", DX, nz) for nz in (12, 24, 48, 96, 192, 384)]
    oracles = {}
    for transport, dx, nz in shift + box + fourier + [("etd2rk", dx, nz) for _, dx, nz in fourier]:
        if dx not in oracles:
            oracles[dx] = truth(dx, round(NX * DX / dx), STEPS)
        row = {"transport": transport, "dx": dx, "dz": THICKNESS / nz, "nz": nz, "nx": oracles[dx].shape[2]}
        for dtype in ("complex128", "complex64"):
            row[dtype] = measure(transport, dtype, dx, nz, oracles[dx], args.repeat)
        results.append(row)
        (error, ms), (error_single, ms_single) = row["complex128"], row["complex64"]
        print(
            f"{transport:12s} {dx * 1e9:6.2f} {row['dz'] * 1e9:7.2f} {nz:4d} {row['nx']:4d} | {error:10.2e}"
            f" {error_single:10.2e} | {ms:15.2f} {ms_single:6.2f}",
            flush=True,
        )
    for transport in ("shift", "box", "fourier", "etd2rk"):
        rows = [r for r in results if r["transport"] == transport]
        logs = np.log([[r["dz"], r["complex128"][0]] for r in rows])
        pairs = np.diff(logs[:, 1]) / np.diff(logs[:, 0])
        slope = np.polyfit(*logs.T, 1)[0]
        print(f"{transport}: error ~ dz^{slope:.2f} (fit), pair by pair {pairs.min():.2f} to {pairs.max():.2f}")
    if args.picture:
        draw(args.picture, results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
