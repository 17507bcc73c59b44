"""Fingerprints of what pendel computes, to show that a change of its structure changed no bit.

    python tests/golden.py record FILE      before the change
    python tests/golden.py check FILE       after it, on the same machine with the same packages

Small problems go through the operator, `Model`, every optimiser, every start of `multiscale`, phasing, analysis, files
and the command line, once per instruction set that the machine has; of every array, number and stored dataset a hash is
kept. The hashes belong to one machine: FFT and elementary functions of NumPy differ between versions and processors.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ISAS = ("sse2", "avx2", "avx512")
FIXED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}  # inner products of SciPy's L-BFGS-B
CASES = {}
QUIET = {"progress": False}

CONFIG = """
[experiment]
energy_keV = 8.0
distance_mm = 300.0
pixel_um = 55.0
two_theta_deg = 44.76
rocking_step_deg = 0.02
rocking_frames = 24
detector_shape = [24, 24]
[crystal]
name = "Au"
hkl = [0, 0, 2]
chi_0 = [-9.407e-5, 8.4962e-6]
chi_h = [7.4e-5, -8.4e-6]
[model]
threads = 2
[start]
iterations = 150
trial_epochs = 5
[recipe]
epochs = 12
checkpoint_every = 4
[multiscale]
levels = 0
starts = 1
steps = 60
rounds = 1
[simulate]
size_nm = 350.0
rotation_deg = 20.0
strain = "bumps"
strength = 1.0
photons = 1e5
"""


def case(function):
    """Register a function that yields (name, value) pairs."""
    CASES[function.__name__] = function
    return function


def fingerprint(value):
    """Hash of an array, number, text, or of containers and dataclasses of these."""
    digest = hashlib.sha256()

    def add(value):
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        elif hasattr(value, "_asdict"):
            value = value._asdict()
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)) and any(isinstance(v, (np.ndarray, list, tuple, dict)) for v in value):
            for item in value:
                add(item)
        elif value is None or isinstance(value, (str, bytes, Path)):
            digest.update(str(value).encode())
        else:
            array = np.asarray(value)
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array))

    add(value)
    return digest.hexdigest()[:16]


def noise(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@case
def operator():
    import pendel

    rng = np.random.default_rng(1)
    shape, two_theta, dx = (7, 3, 9), np.deg2rad(44.76), 8e-9
    physics = {"wavelength": 1.5498e-10, "chi_0": -1.9e-3 + 1.7e-4j, "chi_h": 1.1e-3 - 1e-4j, "chi_hbar": 8e-4 - 1e-4j}
    ways = [("k_h", "strang", t, r) for t in ("shift", "fourier", "box") for r in (None, 3)]
    ways += [("symmetric", "strang", t, None) for t in ("shift", "fourier")] + [("k_h", "etd2rk", "fourier", None)]
    for (orientation, scheme, transport, resync), dtype in itertools.product(ways, ("complex64", "complex128")):
        tan = np.tan(two_theta / 2 if orientation == "symmetric" else two_theta)
        voxel = ((1 if transport == "shift" else 0.83) * dx / tan, 1.1 * dx, dx)
        op = pendel.TakagiTaupin(shape, voxel, two_theta=two_theta, polarization_factor=0.7, scheme=scheme, dtype=dtype,
                                 transport=transport, orientation=orientation, resync=resync, threads=2,
                                 **physics)  # fmt: skip
        real = np.float32 if dtype == "complex64" else np.float64
        S, s_0 = noise(rng, *shape).astype(dtype) / 2, rng.uniform(0, 1, shape).astype(real)
        S[:, 1, :3] = 0
        incident = noise(rng, *shape[1:]).astype(dtype)
        for frames in (1, 3, 37):
            dq = rng.uniform(-2e7, 2e7, (frames, 3))
            name = f"{orientation} {scheme} {transport} {resync} {dtype} {frames}"
            for extra in ({}, {"s_0": s_0}, {"incident": incident}):
                E_h = op.forward(S, dq, return_E_0=True, **extra)
                yield f"{name} forward {list(extra)}", E_h
                adj = noise(rng, *E_h[0].shape).astype(dtype)
                for support in (None, S != 0):
                    yield (
                        f"{name} adjoint {list(extra)} {support is None}",
                        op.adjoint(S, dq, adj, support=support, **extra),
                    )
        yield f"{name} memory", pendel.estimate_memory(op, 64)


def small(dtype="complex64", size=20, **options):
    """(model, truth, frames) of a strained gold cube."""
    import pendel

    edge, two_theta, wavelength, pixel = 0.8e-6, np.deg2rad(44.76), 1.5498e-10, 55e-6
    experiment = pendel.Experiment(
        wavelength=wavelength,
        distance=1.9 * edge * pixel / wavelength,
        pixel_size=pixel,
        detector_shape=(size, size),
        arm=(("y+", two_theta),),
        rocking_angles=np.deg2rad(0.4 / 64 * 64 / size) * (np.arange(size) - size // 2),
        centre=(size / 2 + 0.3, size // 2, size // 2),
        orientation=options.pop("orientation", "k_h"),
    )
    crystal = pendel.Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j)
    voxel = experiment.suggest_voxel()
    model = pendel.Model(experiment, crystal, (size,) * 3, voxel, dtype=dtype, threads=2,
                         **{"polarization": {"sigma": 1.0}} | options)  # fmt: skip
    grid = model.shape, model.voxel
    places = np.array([(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2)]) * edge
    body = pendel.phantom.cube(*grid, edge)
    truth = pendel.phantom.crystal_function(body, pendel.phantom.bumps(*grid, places, [0.24e-6, 0.2e-6], [1.5, 1.2]))
    return model, truth.astype(model.dtype), model.intensities(truth.astype(model.dtype))


def counted(frames, photons=1e4, seed=3):
    return np.random.default_rng(seed).poisson(frames.astype(float) * photons / frames.max()).astype(np.int32)


@case
def model():
    both = {"sigma": 0.3, "pi": 0.7}
    for dtype in ("complex64", "complex128"):
        for options in ({}, {"polarization": both}, {"orientation": "symmetric"}, {"scheme": "etd2rk"},
                        {"coupling": "kinematic"}, {"transport": "fourier", "resync": 4}):  # fmt: skip
            m, S, frames = small(dtype, 16, **options)
            name = f"{dtype} {options}"
            data = counted(frames)
            mask = np.random.default_rng(2).random(data.shape[1:]) > 0.1
            yield f"{name} frames", frames
            yield f"{name} some frames", m.intensities(S, [3, 5], np.abs(S) / 2)
            yield f"{name} best scale", m.loss_and_adjoint(S, data, mask, scale=None)
            yield f"{name} given scale", m.loss_and_adjoint(S, data, None, [2, 3, 9], 3e4, np.abs(S) / 2, S != 0)
            yield f"{name} misfit", m.misfit(S, data, mask)


def plain(result):
    """A `Result` with the fields that follow from it."""
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "trust"}
    return fields | {"strain": result.strain, "phase": result.phase, "displacement": result.displacement}


@case
def minibatches():
    from pendel import reconstruct

    for dtype in ("complex64", "complex128"):
        m, S, frames = small(dtype, 16)
        data = counted(frames)
        mask = np.random.default_rng(2).random(data.shape[1:]) > 0.1
        base = {"epochs": 12, "seed": 4, "shrink_wrap_every": 5} | QUIET
        for options in (
            {},
            {"atv_weight": 0.02, "atv_p": 1.5, "atv_q": 1.2, "schedule": "plateau", "patience": 2},
            {"likelihood": "poisson", "background": 0.1, "free_fraction": 0.05, "schedule": "constant"},
            {"s_0": "free", "amplitude_bound": 0.9, "schedule": [(0, 0.1), (6, 0.02)]},
            {"s_0": "support", "optimise": "phase", "start": S, "amplitude_bound": None},
            {"phase_only_epochs": 4, "start": S / 2, "support": S != 0, "recentre_every": 3},
            {"refine_angles": True, "refine_intensities": True, "refine_after": 2, "batches": 3, "start": S / 2},
            {"refine_intensities": True, "refine_after": 2, "likelihood": "poisson", "background": 0.2},
        ):
            yield f"{dtype} {list(options)}", plain(reconstruct(m, data, mask, **base | options))
    with tempfile.TemporaryDirectory() as folder:
        files = {"checkpoint": Path(folder, "c.h5"), "checkpoint_every": 3}
        for epochs in (6, 12):
            options = base | files | {"s_0": "free", "free_fraction": 0.05, "refine_angles": True}
            options |= {"schedule": "constant", "refine_after": 2}  # the first epochs of both
            result = reconstruct(m, data, mask, resume=True, **options | {"epochs": epochs})
            yield f"resumed at {epochs}", plain(result)


@case
def quasi_newton():
    from pendel import lbfgs, photon_weight, place, polish, reconstruct

    for dtype in ("complex64", "complex128"):
        m, S, frames = small(dtype, 16)
        data, begin = counted(frames), S * np.exp(0.3j * np.abs(S))
        mask = np.random.default_rng(2).random(data.shape[1:]) > 0.1
        turned = {"angle_offsets": 1e-6 * np.arange(m.n_frames), "flux": 1 + 0.01 * np.cos(np.arange(m.n_frames))}
        for options in (
            {},
            {"optimise": "phase", "likelihood": "poisson", "background": 0.1},
            {"s_0": "free", "atv_weight": 0.01, "free_fraction": 0.05},
            {"s_0": "support", "amplitude_bound": None, "memory": 4} | turned,
        ):
            result = lbfgs(m, data, mask, begin, iterations=12, **options, **QUIET)
            yield f"lbfgs {dtype} {list(options)}", plain(result)
        for options in (
            {},
            {"trim": None, "free_fraction": 0.05, "likelihood": "poisson", "background": 0.1, "bound_weight": 30.0},
            {"smoothness": "evidence", "uniformity": "evidence", "atv_weight": photon_weight(m, data, mask)},
            {"smoothness": 3.0, "amplitude_bound": None, "bulk_amplitude": None, "widen": 0} | turned,
        ):
            result = polish(m, data, mask, begin, iterations=(4, 6), rounds=2, **options, **QUIET)
            yield f"polish {dtype} {list(options)}", plain(result)
        found = reconstruct(m, data, mask, begin, epochs=3, **QUIET)
        yield f"polished {dtype}", plain(polish(m, data, mask, found, iterations=(4, 6), rounds=1, **QUIET))
        yield f"placed {dtype}", place(m, data, mask, found.S, found.support, iterations=5, **QUIET)


@case
def searches():
    from pendel import coarse, kinematic_start, multiscale, resample
    from pendel.app import demo

    m = demo.model(32, threads=2)
    S = demo.truth(m)
    frames = m.intensities(S)
    less, data, good = coarse(m, frames, np.ones(frames.shape, bool))
    yield "coarse", [data, good, less.shape, less.voxel, less.experiment.dq]
    yield "resampled", resample(S, m.voxel, less)
    few = {"starts": 1, "steps": 80, "rounds": 1, "trial_epochs": 2, "seed": 1} | QUIET
    for start, options in (
        ("kinematic", {"levels": 1, "rounds": 2}),
        ("kinematic", {"levels": 0, "counts": True}),
        ("flat", {"levels": 1, "starts": 2}),
        ("random", {"levels": 0, "support": np.abs(S) > 0.1}),
        ("solid", {"steps": 40}),
        (None, {"levels": 1, "places": False, "trim": None}),
        (S, {"rounds": 2, "amplitude_bound": 0.95}),
        (S, {"levels": 1, "counts": True, "places": True}),
    ):
        given = counted(frames) if options.get("counts") else frames
        kind = start if start is None or isinstance(start, str) else "given"
        yield f"multiscale {kind} {list(options)}", plain(multiscale(m, given, None, start, **few | options))
    with tempfile.TemporaryDirectory() as folder:
        files = {"checkpoint": Path(folder, "levels.h5"), "levels": 1}
        multiscale(m, frames, **few | files)
        yield "multiscale resumed", plain(multiscale(m, frames, resume=True, **few | files))
    start = kinematic_start(m, frames, iterations=200, trial_epochs=2, **QUIET)
    yield "kinematic start", [start.S, start.support, start.chi, start.kind, start.trial_misfits, start.other.S]


@case
def analysis():
    import pendel
    from pendel import kinematic, phantom, refraction, resolution

    m, S, frames = small()
    data = counted(frames, 1e6)
    phased = kinematic.phase(data, iterations=60, final_er=20, workers=2)
    yield "phased", phased
    yield "paper recipe", kinematic.phase(data, seed=2, **kinematic.PAPER_RECIPE | {"iterations": 120, "final_er": 20})
    mean = kinematic.phase_best(data, seeds=(0, 1, 2), average=2, iterations=60, final_er=20)
    yield "best of three", mean
    for options in ({}, {"twin": True, "order": 1, "clip": False}, {"normalise": False}):
        yield f"on the grid {list(options)}", kinematic.to_model_grid(phased, m.experiment, m.shape, m.voxel, **options)
    other = np.roll(S * np.exp(0.1j), 1, 0).astype(complex)
    h = m.experiment.frame @ m.experiment.h
    for options in ({}, {"ramp": True, "twin": True, "scale": True, "h": h}, {"band": 0.7, "translate": False}):
        yield f"compared {list(options)}", pendel.compare(other, S, m.voxel, **options)
    for p, q in ((2.0, 1.0), (1.0, 1.0), (1.5, 1.3)):
        yield f"atv {p} {q}", pendel.atv(S, 0.7, p=p, q=q, support=S != 0)
    yield "refraction", refraction.correct(S, m.voxel, m.experiment, m.crystal.chi_0)
    yield "fsc", vars(resolution.fsc(S, other, m.voxel))
    yield "prtf", vars(resolution.prtf([S, other], m.voxel))
    yield "octahedron", phantom.truncated_octahedron((20, 21, 22), (1e-8,) * 3, 8e-8)
    yield (
        "sphere, contact, bend",
        [
            phantom.sphere((9, 9, 9), (1e-8,) * 3, 3e-8),
            phantom.contact((9, 9, 9), (1e-8,) * 3, (1e-8, 2e-8, 0), 1e-8, 2.0),
            phantom.orientation((1, 1, 1), (0.1, 0.2, 1.0)),
        ],
    )
    for material in ("Au", "Pt", "Si"):
        yield f"chi of {material}", pendel.susceptibility(material, hkl=(1, 1, 1), wavelength=1.4e-10)
    shaped = m.experiment.crop(slice(2, 18, 2), slice(3, 17), slice(4, 18))
    yield "geometry", [shaped.dq, shaped.centre, shaped.basis(), shaped.detector_q(), shaped.suggest_voxel()]


def stored(path):
    """{place in the file: value} of an HDF5 file, attributes included, less times."""
    import h5py

    found = {}
    with h5py.File(path) as file:

        def visit(name, item):
            found.update({f"{name}@{key}": value for key, value in item.attrs.items() if "time" not in key})
            if isinstance(item, h5py.Dataset) and "time" not in name and not name.endswith("configuration/config"):
                value = item[()]
                value = value.replace(bytes(path.parent), b"") if isinstance(value, bytes) else value
                found[name] = value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value

        file.visititems(visit)
    return found


@case
def files():
    import pendel
    from matplotlib import image
    from pendel.app.cli import main

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "run.toml").write_text(CONFIG)
        said = io.StringIO()

        def run(*arguments, **settings):
            sets = [x for key, value in settings.items() for x in ("--set", f"{key.replace('__', '.')}={value}")]
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                assert main([*map(str, arguments), *sets]) == 0, arguments
            return {"said": said.getvalue().replace(str(folder), "")}

        toml, data = folder / "run.toml", folder / "data.cxi"
        yield "simulated", [run("simulate", toml, "-o", data), stored(data), pendel.io.read_scan(data)]
        for name, settings in {
            "adam": {"recipe__polish_rounds": 1, "recipe__free_fraction": 0.05},
            "flat": {"start__kind": '"flat"', "start__size_nm": 400, "recipe__s_0": '"free"'},
            "lbfgs": {"recipe__method": '"lbfgs"', "recipe__atv_weight": 0.01},
            "multiscale": {"recipe__method": '"multiscale"', "recipe__likelihood": '"poisson"'},
            "solid": {"recipe__method": '"multiscale"', "start__kind": '"solid"', "start__size_nm": 400},
            "file": {"start__kind": '"file"', "start__path": '"adam.cxi"', "recipe__refine_intensities": "true"},
        }.items():
            result = folder / f"{name}.cxi"
            out = run("reconstruct", toml, "--data", data, "-o", result, "--quiet", **settings)
            yield f"result {name}", [out, stored(result)]
            yield f"picture {name}", image.imread(result.with_suffix(".png"))
            yield f"read {name}", dataclasses.replace(pendel.io.read_result(result), config="", metadata={})


@case
def measured():
    """The measured scan that PENDEL_SCAN54 names, where there is one."""
    scan = os.environ.get("PENDEL_SCAN54")
    if not scan:
        return
    from pendel.app import config

    made = config.load(Path(__file__).parents[1] / "bench" / "34idc_scan54.toml")
    read = made.scan(scan)
    yield "scan", read
    experiment = made.experiment(read)
    yield "geometry", [experiment.dq, experiment.centre, experiment.roll, experiment.basis(), made.voxel(experiment)]


def hashes(names):
    found = {}
    for name in names:
        for key, value in CASES[name]():
            assert f"{name}: {key}" not in found, key
            found[f"{name}: {key}"] = fingerprint(value)
    return found


def collected(names, isas):
    """{instruction set: {case: hash}}, each in a process of its own."""
    found = {}
    for isa in isas:
        command = [sys.executable, __file__, "run", "-", *names]
        made = subprocess.run(command, env=os.environ | FIXED | {"PENDEL_CPU": isa}, stdout=subprocess.PIPE, text=True)
        if made.returncode:
            sys.exit(made.returncode)
        found[isa] = json.loads(made.stdout)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("record", "check", "run"))
    parser.add_argument("file", type=Path)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; none: all")
    parser.add_argument("--isa", nargs="*", default=ISAS, help="instruction sets")
    args = parser.parse_args()
    names = args.cases or list(CASES)
    if args.action == "run":
        json.dump(hashes(names), sys.stdout)
        return
    found = collected(names, args.isa)
    if args.action == "record":
        args.file.write_text(json.dumps(found, indent=1))
        print(f"recorded {sum(map(len, found.values()))} hashes in {args.file}")
        return
    known, wrong, count = json.loads(args.file.read_text()), [], 0
    for isa, values in found.items():
        expected = {k: v for k, v in known[isa].items() if k.split(":")[0] in names}
        wrong += [f"{isa}: {key}" for key in expected.keys() | values.keys() if values.get(key) != expected.get(key)]
        count += len(expected)
    print("\n".join(sorted(wrong)) if wrong else f"all {count} hashes equal")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
