"""The race against automatic differentiation: exit fields of a crystal and the gradient, by ten ways on the same work.

    python bench/race.py [--json FILE] [-o FOLDER]                          all of it, hours
    python bench/race.py --small [--json FILE] [-o FOLDER]                  a quick look, minutes
    python bench/race.py --parts time --nx 128 --frames 64 --threads 1      one of its corners

`race_peers.py` says what the ways are. Parts:

time            ns per point-step (a voxel of a frame) of forward and adjoint, over nx at 64 frames and over frames at
                128 pixels; all ways in turn in one process, pendel before each of them, medians
memory          peak resident set of one gradient less that before it, one process per number, inputs not counted
error           seconds to a given error of E_h, on voxels as coarse as reach it; crystal and truth of `accuracy.py`
reconstruction  case A of the paper (`paper_cases.py`), every way in the same Adam loop

Every way's exit field and gradient are compared with pendel's before it is timed, and the difference is in the table.
What would take longer than --patience seconds is left out, and said to be; a reconstruction is stopped there and what
is left of it taken to last as long. The last table is Markdown. FILE is written again after every line, FOLDER gets
the same and pictures.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import machine
import race_peers
import race_tables as tables
from memory import MALLOC
from race_peers import WAYS

PARTS = ("time", "memory", "error", "reconstruction")
FULL = {
    "nx": [64, 128, 256, 512], "frames": [1, 4, 16, 64, 256], "threads": [1, 2], "dtype": ["complex64", "complex128"],
    "rows": 4, "repeat": 5, "patience": 300.0, "sizes": ["small", "half"], "epochs": 200, "refined": 6,
    "error_frames": 64,
}  # fmt: skip
SMALL = FULL | {
    "nx": [16, 32], "frames": [8], "threads": [1], "dtype": ["complex64"], "rows": 2, "repeat": 3, "patience": 20.0,
    "sizes": ["small"], "epochs": 30, "refined": 3, "error_frames": 8,
}  # fmt: skip
THREADS = ("PENDEL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def confined(threads):
    """In the block processes are started on so many CPUs: JAX has no other way to be told."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    there = os.sched_getaffinity(0)
    if len(there) < threads:
        raise SystemExit(f"--threads: expected at most {len(there)}, the CPUs of this process, got {threads}")
    os.sched_setaffinity(0, sorted(there)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, there)


def child(part, arguments, environment=None):
    """Results of a part in a process of its own, as they come."""
    command = [sys.executable, Path(__file__).with_name("race_parts.py"), part, json.dumps(arguments)]
    environment = os.environ | dict.fromkeys(THREADS, str(arguments["threads"])) | (environment or {})
    environment |= {"JAX_PLATFORMS": "cpu"}
    with confined(arguments["threads"]):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with process:
        for line in process.stdout:
            if line.startswith("RESULT "):
                yield json.loads(line.removeprefix("RESULT "))
    if process.returncode:
        raise ChildProcessError(process.returncode, f"{part} {json.dumps(arguments)}: ended with this status")


def fitting(names, transport):
    """The ways that have a transport."""
    return [name for name in names if race_peers.runs(name, transport)]


def cases(args):
    """(nx, frames) over nx at one number of frames, then over frames at one nx; none twice, the least work first."""
    frames, nx = (64 if 64 in args.frames else max(args.frames)), (128 if 128 in args.nx else max(args.nx))
    wanted = {(n, frames) for n in args.nx} | {(nx, n) for n in args.frames}
    return sorted(wanted, key=lambda case: case[0] ** 2 * case[1])


def time_part(args):
    """Results of part time. Who is left out is told by the time per point-step of the case before."""
    for threads, dtype, transport in itertools.product(args.threads, args.dtype, args.transport):
        ns = {}
        for nx, frames in cases(args):
            points = nx * nx * args.rows * frames
            names, case = [], {"transport": transport, "dtype": dtype, "threads": threads, "nx": nx, "frames": frames}
            for name in fitting(args.ways, transport):
                expected = 1e-9 * points * ns.get(name, 0)
                if name == "pendel" or expected <= args.patience:
                    names.append(name)
                else:
                    yield case | {"part": "time", "way": name, "left_out": f"expected to take {expected:.0f} s"}
            work = {"ways": names, "rows": args.rows, "repeat": args.repeat, "budget": args.patience / 4}
            for result in child("time", case | work):
                ns[result["way"]] = result["ns"]
                yield result


def memory_part(args):
    """Results of part memory, one way after the other."""
    for transport, (nx, frames) in itertools.product(args.transport, cases(args)):
        case = {"transport": transport, "dtype": args.dtype[0], "threads": args.threads[0], "nx": nx, "frames": frames}
        for name in fitting(args.ways, transport):
            try:
                yield from child("memory", case | {"way": name, "rows": args.rows}, MALLOC)
            except ChildProcessError as error:
                if name.startswith("pendel") or error.errno != -signal.SIGKILL:
                    raise
                yield case | {"part": "memory", "way": name, "left_out": "killed, out of memory"}


def error_part(args):
    """Results of part error."""
    for transport in args.transport:
        case = {"transport": transport, "dtype": args.dtype[0], "threads": args.threads[0]}
        work = {"frames": args.error_frames, "repeat": args.repeat, "refined": args.refined}
        yield from child("error", case | work | {"ways": fitting(args.ways, transport)})


def reconstruction_part(args):
    """Results of part reconstruction."""
    for size, name in itertools.product(args.sizes, args.ways):
        work = {"size": size, "threads": max(args.threads), "epochs": args.epochs, "budget": 4 * args.patience}
        yield from child("reconstruction", work | {"ways": [name]})


RUN = {"time": time_part, "memory": memory_part, "error": error_part, "reconstruction": reconstruction_part}


def parsed(arguments):
    """The command line; what is not said is as of the full run, or of the small one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a quick look")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="pendel is always there")
    parser.add_argument("--transport", nargs="+", choices=("shift", "fourier"), default=["shift", "fourier"])
    parser.add_argument("--dtype", nargs="+", choices=FULL["dtype"], help="memory and error: of the first")
    parser.add_argument("--threads", nargs="+", type=int, help="memory and error: the first; reconstruction: the most")
    parser.add_argument("--nx", nargs="+", type=int, help="pixels and layers")
    parser.add_argument("--frames", nargs="+", type=int)
    parser.add_argument("--rows", type=int, help="of y, which are independent: they are enough to time")
    parser.add_argument("--sizes", nargs="+", choices=("small", "half", "full"), help="of case A")
    parser.add_argument("--epochs", type=int, help="of the reconstruction")
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--patience", type=float, help="seconds for one gradient, four times that for a reconstruction")
    parser.add_argument("--json", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="folder of pictures")
    args = parser.parse_args(arguments)
    for name, value in (SMALL if args.small else FULL).items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    return args


def without_missing(names):
    """The ways whose framework is installed, pendel first; those that are left out are said to be."""
    missing = race_peers.missing(names)
    for name, framework in missing.items():
        print(f"{name}: left out, {framework} is not installed (pip install '.[bench]')")
    return ["pendel", *(name for name in names if name not in missing and name != "pendel")]


def write(path, content):
    """A file by way of a temporary one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(content)
    part.replace(path)


def main(arguments=None):
    args = parsed(arguments)
    args.ways = without_missing(args.ways)
    files = [path for path in (args.json, args.output and args.output / "race.json") if path]
    results = {"about": machine.about() | tables.versions(), "settings": {k: str(v) for k, v in vars(args).items()}}
    print("\n".join(f"{key}: {value}" for key, value in results["about"].items()))
    results["results"] = found = []
    for part in args.parts:
        print(f"\n{tables.HEADS[part]}", flush=True)
        for result in RUN[part](args):
            found.append(result)
            print(tables.line(result), flush=True)
            for path in files:
                write(path, json.dumps(results, indent=1))
    summary = tables.summary(results)
    print(f"\n{summary}")
    if args.output:
        import race_pictures

        write(args.output / "race.md", summary + "\n")
        race_pictures.draw(found, args.output)


if __name__ == "__main__":
    main()
