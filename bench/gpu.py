"""Everything that needs a GPU, one call: each part a process of its own with its own time limit; bench/gpu.sh.

    python bench/gpu.py [--results bench/results] [--only PART ...] [--minutes 9.5] [--dry-run]

RESULTS/gpu.json is written again after every part (temporary file and rename), so that whatever is stopped keeps what
came before; RESULTS/gpu.log has all output. ``--only`` adds to the JSON of the same sources. A part that cannot run is
"skipped" with its reason. Exit status 1 if the build, a test, the sanitizer or pendel's check of its own kernels
failed, or was stopped, or was not reached in time; or if there is a GPU and pendel could not be built or run on it.
Only the standard library is used here. PENDEL_COMMIT names the commit where there is no git. Not yet run on a GPU.
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
TINY = ["--size", "6", "--frames", "3", "--repeat", "3"]


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


def command_of(part, about):
    """Command and extra environment of a part; Skip where it cannot run."""
    dry, pytest = about["dry_run"], [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    if part == "build":
        shutil.rmtree(SITE, ignore_errors=True)  # what an earlier build left must not be measured
        need("pip", "scikit_build_core", "pybind11")
        if not tool("nvcc"):
            raise Skip("no nvcc: the CUDA engine cannot be built")
        target = ["--target", str(SITE), "--upgrade", "-C", "cmake.define.PENDEL_CUDA=ON"]
        if about["gpu"]:  # this GPU alone: half the time
            target += ["-C", f"cmake.define.CMAKE_CUDA_ARCHITECTURES={about['gpu']['compute_cap'].replace('.', '')}"]
        return [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", *target, "."], {}
    if part == "gpu-tests":
        need("pytest")
        return [*pytest, "-m", "gpu", "-rs", "-v", "--tb=short", *spread("4")], {}
    if part == "tests":
        need("pytest")
        if dry:
            return [*pytest, "tests/test_cuda_compile.py", "tests/test_bench_peers.py"], {}
        many = spread(str(min(8, os.cpu_count() or 1)))
        return [*pytest, "-m", "not gpu", "-rs", *many], {"PENDEL_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    if part in ("kernels", "unfused", "memory", "cupy", "model"):
        if part == "cupy" or part == "model" and not dry:
            need("cupy")
        small = TINY + ["--layers", "3", "6", "--plane", "2", "8"]
        emulate = ["--emulate"] if part in ("kernels", "unfused", "memory", "model") else []
        return bench("gpu_pendel.py", part, *(small + emulate if dry else [])), {}
    if part in ("best", "eager", "jax"):
        need("jax" if part == "jax" else "torch")
        return bench("gpu_peers.py", part, *(TINY + ["--device", "cpu", "--rows", "3", "6"] if dry else [])), {}
    if part == "ncu":
        ncu = tool("ncu", *sorted(Path("/opt/nvidia/nsight-compute").glob("*"), reverse=True))
        if dry or not ncu:
            raise Skip("no GPU" if dry else "ncu is not installed")
        return [*gpu_ncu.command(ncu), *bench("gpu_pendel.py", "once")], {}
    sanitizer = tool("compute-sanitizer", Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "compute-sanitizer")
    if dry or not sanitizer:
        raise Skip("no GPU" if dry else "compute-sanitizer is not installed")
    # libraries probe the driver for what it may lack; pendel looks at every status itself
    calls = ["--report-api-errors", "no"] if part == "memcheck" else []
    return [sanitizer, "--tool", part, "--error-exitcode", "9", *calls, *bench("gpu_pendel.py", "small")], {}


def spread(workers):
    """Options of pytest that share files among processes, where pytest-xdist is there."""
    return ["-n", workers, "--dist", "loadfile"] if importlib.util.find_spec("xdist") else []


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


def verdict(part, status, text, limit):
    """What a part's end means: {"status": passed | failed | stopped | skipped, ...}."""
    found = {"results": [json.loads(line[7:]) for line in text.splitlines() if re.match(r"RESULT \{.*\}$", line)]}
    skipped = next((r["skipped"] for r in found["results"] if "skipped" in r), None)
    if status is None:
        return found | {"status": "stopped", "reason": f"after its limit of {limit:.0f} s"}
    if part == "ncu":
        found = next((r for r in found["results"] if "multiprocessors" in r), {"multiprocessors": None})
        found["kernels"] = gpu_ncu.parse(text, found["multiprocessors"])
        if found["kernels"]:
            return found | {"status": "passed"}
        reason = gpu_ncu.unable(text)
        return {"status": "skipped" if reason else "failed", "reason": reason or text[-500:]}
    if part in SANITIZERS and not skipped:
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
        if not summary and ("not supported" in text or "Unable to" in text):
            reason = next(line for line in text.splitlines() if "not supported" in line or "Unable to" in line)
            return {"status": "skipped", "reason": f"compute-sanitizer cannot work here: {reason.strip()}"}
        clean = status == 0 and summary and re.search(r"SUMMARY: 0 (errors|hazards)", summary[-1])
        return {"status": "passed" if clean else "failed", "reason": summary[-1] if summary else text[-500:]}
    if part in ("tests", "gpu-tests"):
        counts = re.findall(r"^.*\d+ (?:passed|failed|skipped|error|deselected).* in [\d.]+s.*$", text, re.MULTILINE)
        found = {"counts": counts[-1].strip("= ")} if counts else {}
        found["skips"] = re.findall(r"^SKIPPED .*", text, re.MULTILINE)[:40]
        none = status == 0 and part == "gpu-tests" and not re.search(r"\d+ passed", found.get("counts", ""))
        if none:
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
        command, extra = command_of(part, about)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    parser.add_argument("--only", nargs="+", choices=LIMITS, help="these parts alone")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything")
    parser.add_argument("--dry-run", action="store_true", help="as if there were no GPU")
    args = parser.parse_args()
    start = time.monotonic()
    args.results.mkdir(parents=True, exist_ok=True)
    about = surroundings(args.dry_run)
    dry = about["dry_run"]
    if dry:
        print("no GPU: DRY RUN, nothing below says anything about a GPU", flush=True)
    path = args.results / ("gpu-dry-run.json" if dry else "gpu.json")
    results = about | {"parts": {}}
    if args.only and path.exists():
        before = json.loads(path.read_text())
        if before["sources_sha256"] == about["sources_sha256"]:
            results["parts"] = before["parts"]
    with open(path.with_suffix(".log"), "a+b" if args.only else "w+b", buffering=0) as log:  # children write to it too
        parts = list(args.only or LIMITS)
        if not dry and "build" not in parts and not SITE.is_dir():
            parts.insert(0, "build")
        for part in parts:
            left = 60 * args.minutes - (time.monotonic() - start)
            if part != "build" and not dry and results["parts"].get("build", {}).get("status") != "passed":
                left = 0  # nothing was built from these sources
            results["parts"][part] = perform(part, about, left, log)
            results["goals"] = gpu_goals.goals(results)
            write(path, results)
            done = results["parts"][part]
            reason = " ".join(done.get("reason", "").split())[-160:]
            print(f"{part:10s} {done['status']:11s} {done['seconds']:6.1f} s  {reason}", flush=True)
    print("\n".join(gpu_goals.table(results)))
    bad = [p for p in CRITICAL if results["parts"].get(p, {}).get("status") in ("failed", "stopped", "not reached")]
    if not dry:  # there is a GPU: pendel must run on it
        bad += [p for p in ("build", "kernels") if results["parts"].get(p, {}).get("status") == "skipped"]
    unchecked = [p for p in CRITICAL if results["parts"].get(p, {}).get("status", "skipped") == "skipped"]
    print(f"wrote {path}; failed: {', '.join(bad) or 'nothing'}; NOT CHECKED: {', '.join(unchecked) or 'nothing'}")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
