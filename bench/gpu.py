"""Everything that needs a GPU, one call: each part a process of its own with its own time limit; bench/gpu.sh.

    python bench/gpu.py [--results bench/results] [--only PART ...] [--minutes 9.5] [--dry-run]

RESULTS/gpu.json is written again after every part (temporary file and rename), so that whatever is stopped keeps what
came before; RESULTS/gpu.log has all output. ``--only`` adds to the JSON of the same sources. A part that cannot run is
"skipped" with its reason. Exit status 1 if the build, a test, the sanitizer or pendel's check of its own kernels
failed, or was stopped, or was not reached in time; or if there is a GPU and pendel could not be built or run on it.
Only the standard library is used here. PENDEL_COMMIT names the commit where there is no git.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_goals
import gpu_ncu

ROOT, BENCH = Path(__file__).resolve().parents[1], Path(__file__).resolve().parent
SITE = ROOT / "build" / "gpu-site"
PACKAGES = "numpy scipy torch triton jax jaxlib cupy-cuda13x cupy-cuda12x pytest pytest-xdist gemmi mpmath".split()
# In order, with the most seconds each may take: what shows that pendel is right, its own times, the peers, and last
# the tests that need no GPU. Those of CRITICAL decide the exit status.
LIMITS = {
    "build": 300, "gpu-tests": 200, "kernels": 60, "memcheck": 90, "racecheck": 90, "synccheck": 90, "ncu": 60,
    "cupy": 40, "model": 60, "memory": 40, "unfused": 120, "best": 120, "eager": 60, "jax": 60, "tests": 180,
}  # fmt: skip
CRITICAL = ("build", "gpu-tests", "kernels", "memcheck", "racecheck", "synccheck")
SANITIZERS = ("memcheck", "racecheck", "synccheck")
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
TINY = ["--size", "6", "--frames", "3", "--repeat", "3"]  # of a dry run
TINY_PENDEL = [*TINY, "--layers", "3", "6", "--plane", "2", "8"]


class Skip(Exception):
    """Why a part is not run."""


def gpu():
    """What nvidia-smi says of the first GPU, or None."""
    names = ("name", "driver_version", "compute_cap", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit")
    query = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = done.stdout.strip().split(", ")
    return dict(zip(names, values, strict=True)) if done.returncode == 0 and len(values) == len(names) else None


def output_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def tool(name, *places):
    """Path of a program on PATH or in the usual folders, or None."""
    found = shutil.which(name)
    folders = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin", *map(Path, places)]
    return found or next((str(f / name) for f in folders if (f / name).is_file()), None)


def sources():
    """Digest of what is measured, for trees without git."""
    digest = hashlib.sha256()
    of = ("csrc/*", "python/pendel/**/*.py", "bench/*.py", "tests/*", "CMakeLists.txt")
    for path in sorted(path for pattern in of for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def surroundings(dry_run):
    nvcc, card = tool("nvcc"), gpu()
    release = re.search(r"release ([\d.]+)", output_of([nvcc, "--version"]) or "") if nvcc else None
    commit = os.environ.get("PENDEL_COMMIT") or output_of(["git", "describe", "--always", "--dirty"]) or "unknown"
    return {
        "commit": commit,
        "sources_sha256": sources(),
        "dry_run": dry_run or not card,
        "gpu": card,
        "nvcc": release and release[1],
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "packages": versions(),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def bench(script, *arguments):
    return [sys.executable, str(BENCH / script), *arguments]


def need(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Skip(f"not installed: {', '.join(missing)}")


def spread(workers):
    """Options of pytest that share files among processes, where pytest-xdist is there."""
    return ["-n", workers, "--dist", "loadfile"] if importlib.util.find_spec("xdist") else []


def build_command(_, about):
    shutil.rmtree(SITE, ignore_errors=True)  # what an earlier build left must not be measured
    need("pip", "scikit_build_core")
    if not tool("nvcc"):
        raise Skip("no nvcc: the CUDA engine cannot be built")

    target = ["--target", str(SITE), "--upgrade", "-C", "cmake.define.PENDEL_CUDA=ON"]
    if about["gpu"]:  # this GPU alone: half the time
        target += ["-C", f"cmake.define.CMAKE_CUDA_ARCHITECTURES={about['gpu']['compute_cap'].replace('.', '')}"]
    return [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", *target, "."], {}


def device_tests_command(_, about):
    need("pytest")
    return [*PYTEST, "-m", "gpu", "-rs", "-v", "--tb=short", *spread("4")], {}


def other_tests_command(_, about):
    need("pytest")
    if about["dry_run"]:
        return [*PYTEST, "tests/test_cuda_compile.py", "tests/test_bench_peers.py"], {}
    many = spread(str(min(8, os.cpu_count() or 1)))
    return [*PYTEST, "-m", "not gpu", "-rs", *many], {"PENDEL_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}


def emulated_command(part, about):
    """A part of gpu_pendel.py that the emulator of the tests runs where there is no GPU."""
    dry = [*TINY_PENDEL, "--emulate"] if about["dry_run"] else []
    return bench("gpu_pendel.py", part, *dry), {}


def model_command(part, about):
    if not about["dry_run"]:
        need("cupy")
    return emulated_command(part, about)


def cupy_command(part, about):
    need("cupy")
    return bench("gpu_pendel.py", part, *(TINY_PENDEL if about["dry_run"] else [])), {}


def peer_command(part, about):
    need("jax" if part == "jax" else "torch")
    dry = [*TINY, "--device", "cpu", "--rows", "3", "6"] if about["dry_run"] else []
    return bench("gpu_peers.py", part, *dry), {}


def device_tool(name, about, *places):
    """Path of a program that is of use on a GPU alone; Skip where either is missing."""
    found = tool(name, *places)
    if about["dry_run"] or not found:
        raise Skip("no GPU" if about["dry_run"] else f"{name} is not installed")
    return found


def profiler_command(_, about):
    ncu = device_tool("ncu", about, *sorted(Path("/opt/nvidia/nsight-compute").glob("*"), reverse=True))
    return [*gpu_ncu.command(ncu), *bench("gpu_pendel.py", "once")], {}


def sanitizer_command(part, about):
    name = "compute-sanitizer"
    sanitizer = device_tool(name, about, Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / name)
    # libraries probe the driver for what it may lack; pendel looks at every status itself
    calls = ["--report-api-errors", "no"] if part == "memcheck" else []
    return [sanitizer, "--tool", part, "--error-exitcode", "9", *calls, *bench("gpu_pendel.py", "small")], {}


# (part, surroundings) -> command and extra environment of the part; Skip where it cannot run.
COMMANDS = {
    "build": build_command,
    "gpu-tests": device_tests_command,
    "tests": other_tests_command,
    "ncu": profiler_command,
    "cupy": cupy_command,
    "model": model_command,
    **dict.fromkeys(("kernels", "unfused", "memory"), emulated_command),
    **dict.fromkeys(("best", "eager", "jax"), peer_command),
    **dict.fromkeys(SANITIZERS, sanitizer_command),
}


def run(command, extra, limit, log):
    """(exit status or None if it was stopped, seconds, output); the whole process group ends with it."""
    paths = [str(SITE)] if SITE.is_dir() else []
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(paths + [p for p in [os.environ.get("PYTHONPATH")] if p]),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    start, at = time.monotonic(), log.tell()
    # what a shell has put in the background ignores SIGINT, and so would the child
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment | extra, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        status = child.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
        os.killpg(child.pid, signal.SIGINT)  # pytest then tells what has failed so far
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            pass
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)  # its own group: what it left running, or itself
        except ProcessLookupError:
            pass
        child.wait()
    log.seek(at)
    text = log.read().decode(errors="replace")
    log.seek(0, os.SEEK_END)
    return status, time.monotonic() - start, text


def reported(text):
    """What a part printed as RESULT lines."""
    return [json.loads(line[7:]) for line in text.splitlines() if re.match(r"RESULT \{.*\}$", line)]


def profiler_verdict(text, results):
    found = next((r for r in results if "multiprocessors" in r), {"multiprocessors": None})
    found["kernels"] = gpu_ncu.parse(text, found["multiprocessors"])
    if found["kernels"]:
        return found | {"status": "passed"}
    reason = gpu_ncu.unable(text)
    return {"status": "skipped" if reason else "failed", "reason": reason or text[-500:]}


def sanitizer_verdict(status, text):
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
    unable = [line for line in text.splitlines() if "not supported" in line or "Unable to" in line]
    if unable and not summary:
        return {"status": "skipped", "reason": f"compute-sanitizer cannot work here: {unable[0].strip()}"}
    clean = status == 0 and summary and re.search(r"SUMMARY: 0 (errors|hazards)", summary[-1])
    return {"status": "passed" if clean else "failed", "reason": summary[-1] if summary else text[-500:]}


def pytest_summary(text):
    """pytest's closing line and the tests it skipped."""
    counts = re.findall(r"^.*\d+ (?:passed|failed|skipped|error|deselected).* in [\d.]+s.*$", text, re.MULTILINE)
    found = {"counts": counts[-1].strip("= ")} if counts else {}
    return found | {"skips": re.findall(r"^SKIPPED .*", text, re.MULTILINE)[:40]}


def verdict(part, status, text, limit):
    """What a part's end means: {"status": passed | failed | stopped | skipped, ...}."""
    results = reported(text)
    if status is None:
        return {"results": results, "status": "stopped", "reason": f"after its limit of {limit:.0f} s"}
    if part == "ncu":
        return profiler_verdict(text, results)

    skipped = next((r["skipped"] for r in results if "skipped" in r), None)
    if part in SANITIZERS and not skipped:
        return sanitizer_verdict(status, text)

    found = pytest_summary(text) if part in ("tests", "gpu-tests") else {"results": results}
    if part == "gpu-tests" and status == 0 and not re.search(r"\d+ passed", found.get("counts", "")):
        return found | {"status": "skipped", "reason": "no test ran on a device"}
    if skipped:
        return found | {"status": "skipped", "reason": skipped}
    if status:
        return found | {"status": "failed", "reason": text[-800:], "exit": status}
    return found | {"status": "passed"}


def write(path, results):
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, path)


def perform(part, about, left, log):
    """Run one part within ``left`` seconds."""
    limit = min(LIMITS[part], left)
    if limit < 5:
        return {"status": "not reached", "reason": "no time left, or the build did not pass", "seconds": 0}
    try:
        command, extra = COMMANDS[part](part, about)
    except Skip as reason:
        return {"status": "skipped", "reason": str(reason), "seconds": 0}
    log.write(f"\n=== {part}: {' '.join(command)}\n".encode())
    status, seconds, text = run(command, extra, limit, log)
    if part == "ncu" and (unknown := gpu_ncu.unknown_metrics(text)) and not gpu_ncu.parse(text, 1):
        kept = [m for m in gpu_ncu.METRICS if m not in unknown]
        command[: command.index("--metrics") + 2] = gpu_ncu.command(command[0], kept)
        status, more, text = run(command, extra, max(1, limit - seconds), log)
        seconds += more
    found = verdict(part, status, text, limit)
    return {"status": found.pop("status"), "seconds": round(seconds, 1)} | found


def earlier_parts(path, sources_sha256):
    """What an earlier call measured of the same sources."""
    before = json.loads(path.read_text()) if path.exists() else {}
    return before["parts"] if before.get("sources_sha256") == sources_sha256 else {}


def status_of(results, part):
    return results["parts"].get(part, {}).get("status", "skipped")


def perform_all(parts, results, path, deadline, only):
    """Run ``parts`` one after the other until ``deadline``; each is written to ``path`` as soon as it has ended."""
    with open(path.with_suffix(".log"), "a+b" if only else "w+b", buffering=0) as log:  # children write to it too
        for part in parts:
            left = deadline - time.monotonic()
            if part != "build" and not results["dry_run"] and status_of(results, "build") != "passed":
                left = 0  # nothing was built from these sources
            done = results["parts"][part] = perform(part, results, left, log)
            results["goals"] = gpu_goals.goals(results)
            write(path, results)
            reason = " ".join(done.get("reason", "").split())[-160:]
            print(f"{part:10s} {done['status']:11s} {done['seconds']:6.1f} s  {reason}", flush=True)


def conclude(results, path):
    """Print what was found; the exit status, 1 if something failed that must not."""
    print("\n".join(gpu_goals.table(results)))
    bad = [part for part in CRITICAL if status_of(results, part) in ("failed", "stopped", "not reached")]
    if not results["dry_run"]:  # there is a GPU: pendel must run on it
        done = results["parts"]
        bad += [part for part in ("build", "kernels") if part in done and status_of(results, part) == "skipped"]
    unchecked = [part for part in CRITICAL if status_of(results, part) == "skipped"]
    print(f"wrote {path}; failed: {', '.join(bad) or 'nothing'}; NOT CHECKED: {', '.join(unchecked) or 'nothing'}")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--only", nargs="+", choices=LIMITS, help="these parts alone")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything")
    parser.add_argument("--dry-run", action="store_true", help="as if there were no GPU")
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    args.results.mkdir(parents=True, exist_ok=True)

    about = surroundings(args.dry_run)
    dry = about["dry_run"]
    if dry:
        print("no GPU: DRY RUN, nothing below says anything about a GPU", flush=True)
    path = args.results / ("gpu-dry-run.json" if dry else "gpu.json")
    results = about | {"parts": earlier_parts(path, about["sources_sha256"]) if args.only else {}}

    parts = list(args.only or LIMITS)
    if not dry and "build" not in parts and not SITE.is_dir():
        parts.insert(0, "build")
    perform_all(parts, results, path, deadline, bool(args.only))
    raise SystemExit(conclude(results, path))


if __name__ == "__main__":
    main()
