"""Runs on machines that lack something: room on the disk, the right to write, memory. Nothing is lost, and it is told.

    python tests/scarcity.py [--runs 20] [--seed 0] [--kind disk "file size" read-only memory]

Each run begins beside the result of an earlier one and is given a random little of what is scarce. It has to end with
status 0, or with 1 or 2 and a message, never by a signal; then the earlier files are whole, and no other is left.
Disks are small file systems in memory (tmpfs), which only root can mount; without it these kinds are told to be left
out. A script for nights; a few moments of the same are in tests/test_machine_faults.py.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from kills import METHODS, Trial, write_scan

SHORT = ("adam", "lbfgs", "multiscale, flat", "solve")
KEPT = ("result.cxi", "result.png")
PATIENCE = 300  # s


@contextmanager
def mounted(folder, *options):
    """A file system in memory there; None where this may not mount one."""
    made = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True)
    try:
        yield None if made.returncode else folder
    finally:
        if not made.returncode:
            subprocess.run(["umount", str(folder)], check=True)


def run(trial, command, limits=()):
    """Status and messages of a command beside earlier files, under limits [(kind, bytes)]."""

    def limit():
        for kind, size in limits:
            resource.setrlimit(kind, (size, size))

    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before = {name: (trial.folder / name).read_bytes() for name in KEPT if (trial.folder / name).exists()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=limit, timeout=PATIENCE)
    return done.returncode, done.stderr, before


def problems(trial, status, said, before):
    """(status, what is wrong with how a run ended: [text])."""
    found = []
    if status not in (0, 1, 2):
        found.append(f"ended with {status}: {said[-300:]}")
    elif status and not said.strip():
        found.append(f"status {status} without a word")
    if (trial.folder / "result.cxi").exists():
        trial.result()  # whole: the earlier one, or the new one where only what comes behind it failed
    elif status == 0 or "result.cxi" in before:
        found.append("result.cxi is gone")
    if status and "result.png" in before and (trial.folder / "result.png").read_bytes() != before["result.png"]:
        found.append("result.png has changed")
    # a checkpoint that could not be written leaves none, or the one before
    found += [f"{name} is left" for name in trial.stale() if name not in KEPT]
    return status, found


def prepared(folder, method, scan, pictures):
    """(`Trial` with an earlier result, the command that runs it again)."""
    trial = Trial(folder / "run", method, scan)
    picture = ["--set", f"output.pictures={str(pictures).lower()}"]
    return trial, [*trial.command(), "--force", *picture]


def disk(rng, folder, method, scan):
    with mounted(folder, "-o", "size=64m") as there:
        if there is None:
            return None
        trial, command = prepared(folder, method, scan, rng.random() < 0.5)
        first = subprocess.run(command, capture_output=True, text=True, check=False)
        assert first.returncode == 0, first.stderr
        (trial.folder / "result.checkpoint.h5").unlink(missing_ok=True)
        state = os.statvfs(folder)
        room = (state.f_blocks - state.f_bavail) * state.f_frsize // 1024 + rng.randint(0, 300)
        subprocess.run(["mount", "-o", f"remount,size={room}k", str(folder)], check=True)
        return problems(trial, *run(trial, command))


def read_only(rng, folder, method, scan):
    with mounted(folder) as there:
        if there is None:
            return None
        trial, command = prepared(folder, method, scan, rng.random() < 0.5)
        if rng.random() < 0.7:
            subprocess.run(command, capture_output=True, check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        status, found = problems(trial, *run(trial, command))
        return status, found + ["status 0, but nothing can be written"] * (status == 0)


def limited(kind, least, most):
    def go(rng, folder, method, scan):
        trial, command = prepared(folder, method, scan, rng.random() < 0.5)
        if rng.random() < 0.7:
            subprocess.run(command, capture_output=True, check=True)
            (trial.folder / "result.checkpoint.h5").unlink(missing_ok=True)
        return problems(trial, *run(trial, command, [(kind, rng.randint(least, most))]))

    return go


KINDS = {
    "disk": disk,
    "file size": limited(resource.RLIMIT_FSIZE, 0, 300 << 10),
    "read-only": read_only,
    "memory": limited(resource.RLIMIT_AS, 120 << 20, 700 << 20),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="*", default=list(KINDS), choices=list(KINDS))
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        scan = Path(work, "scan.cxi")
        write_scan(scan)
        for kind in args.kind:
            rng, wrong, ended = random.Random(f"{args.seed} {kind}"), [], []
            for i in range(args.runs):
                method, folder = rng.choice(SHORT), Path(work, f"{kind} {i}")
                assert method in METHODS
                folder.mkdir()
                status, found = KINDS[kind](rng, folder, method, scan) or (None, ())
                ended.append(status)
                wrong += [f"{kind} {i}, {method}: {text}" for text in found]
            failed += len(wrong)
            enough, left_out = ended.count(0), ended.count(None)
            told = f"{len(ended) - enough - left_out} refused with a message"
            print(f"{kind}: {told}, {enough} had enough, {left_out} left out, {len(wrong)} problems")
            print(*wrong, sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
