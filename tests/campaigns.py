"""Campaign harness: `pendel batch` killed at random moments, begun again until it is through, and looked at.

A script, for many scans, and a module, for the few of tests/test_batch.py:

    python tests/campaigns.py --scans 100 --kills 2 --seed 0 [--workers 2] [--chain]

It asks for
- exit status 128 + n after a signal that a process can handle, and no run that outlives its campaign;
- every scan run to its end once: what comes after an end only reads its checkpoint;
- a table whose rows are what the result files say, the same in all three formats;
- the bits of `pendel reconstruct` of the scan alone.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import kills
import numpy as np
from pendel import io

TOML = """configuration = "run.toml"
scans = ["data/scan_*.cxi"]
output = "results"
threads = 1
"""
ENDED = 15.0  # s within which runs end whose campaign is gone


class Campaign:
    """A folder with scans, a configuration and a campaign of them.

    Parameters
    ----------
    folder : to be made
    scans : how many
    epochs : of each run
    text : of campaign.toml
    """

    def __init__(self, folder, scans, epochs=3, text=TOML):
        self.folder = Path(folder)
        (self.folder / "data").mkdir(parents=True)
        kills.write_scan(self.folder / "data" / "scan_1.cxi")
        first = io.read_scan(self.folder / "data" / "scan_1.cxi")
        beam = {"energy": first.energy, "distance": first.distance, "pixel_size": first.pixel_size}
        for i in range(2, scans + 1):  # others have less light
            frames = first.data // i
            path = self.folder / "data" / f"scan_{i}.cxi"
            io.write_scan(path, frames, rocking_angles=first.rocking_angles, **beam)
        run = (kills.CONFIG + kills.METHODS["adam"]).replace("epochs = 60", f"epochs = {epochs}")
        (self.folder / "run.toml").write_text(run.replace("checkpoint_every = 7", "checkpoint_every = 1"))
        self.toml = self.folder / "campaign.toml"
        self.toml.write_text(text)

    @property
    def output(self):
        return self.folder / "results"

    def command(self, *options):
        return [sys.executable, "-m", "pendel", "batch", str(self.toml), *options]

    def start(self, *options):
        """The running process."""
        path = os.pathsep.join(p for p in sys.path if p)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(*options), env=os.environ | {"PYTHONPATH": path}, **pipes)

    def run(self, *options):
        """(exit status, stdout, stderr) of a whole run."""
        process = self.start(*options)
        out, err = process.communicate()
        return process.returncode, out, err

    def kill(self, number, done, after, *options):
        """Run, and send a signal so many seconds after so many jobs are done: problems, [text]."""
        process = self.start(*options)
        while self.count("done") < done and process.poll() is None:
            time.sleep(0.02)
        time.sleep(after)
        late = process.poll() is not None
        process.send_signal(number)
        _, err = process.communicate()
        expected = -number if number == signal.SIGKILL else 128 + number
        problems = (
            [] if late or process.returncode == expected else [f"status {process.returncode} after {number}: {err}"]
        )
        return problems + self.outlived()

    def count(self, word):
        """Jobs in a state, of the table as it is now."""
        return sum(row["state"] == word for row in self.table()) if (self.output / "summary.csv").exists() else 0

    def outlived(self):
        """Runs that are still there some seconds after their campaign, [text]."""
        until = time.monotonic() + ENDED
        while (left := self.runs()) and time.monotonic() < until:
            time.sleep(0.05)
        return [f"run {pid} outlives its campaign" for pid in left]

    def runs(self):
        """{process: scan} of `pendel reconstruct` of this folder; asks Linux."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
                ended = (place / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:  # it has ended
                continue
            configuration = (
                Path(os.fsdecode(words[words.index(b"reconstruct") + 1])) if b"reconstruct" in words else Path()
            )
            if self.output in configuration.parents and not ended:
                found[int(place.name)] = configuration.stem
        return found

    def table(self):
        """The rows of summary.csv."""
        with open(self.output / "summary.csv", newline="") as file:
            return list(csv.DictReader(file))

    def log(self, name):
        """[(command, what it has said)] of a job's attempts."""
        text = (self.output / f"{name}.log").read_text()
        parts = re.split(r"^# (.*)$", text, flags=re.MULTILINE)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def problems(self):
        """What is wrong with a campaign that is through, [text]."""
        rows = self.table()
        scans = sorted(path.stem for path in (self.folder / "data").iterdir())
        found = [] if sorted(row["scan"] for row in rows) == scans else ["other scans in the table"]
        for row in rows:
            found += self._problems_of(row)
        stray = [p.name for p in self.output.rglob(".*") if not p.name.endswith(".lock")]
        return found + [f"{name} is left" for name in stray] + self.different_tables()

    def _problems_of(self, row):
        name = f"{row['configuration']}/{row['scan']}"
        if row["state"] != "done":
            return [f"{name} is {row['state']}: {row['message']}"]
        stored, found = io.read_result(self.output / row["result"]), []
        inside = np.abs(stored.S) > 0.5
        strain = stored.strain[inside].astype(float)
        expected = {
            "misfit": stored.misfit,
            "strain_rms": np.sqrt(np.nanmean(strain**2)),
            "strain_max": np.nanmax(strain),
            "phase_min_rad": stored.phase[inside].min(),
            "displacement_max_pm": 1e12 * stored.displacement[inside].max(),
            "voxel_y_nm": 1e9 * stored.voxel[1],
            "voxels": inside.sum(),
        }
        if row["pendel"] != stored.version or not float(row["seconds"]) > 0:
            found.append(f"{name}: version {row['pendel']!r} or seconds {row['seconds']!r} are not of its run")
        for column, value in expected.items():
            if not np.isclose(float(row[column]), value, rtol=1e-6):  # maps are float32
                found.append(f"{name}: {column} {row[column]} in the table, {value} in the result")
        attempts = self.log(name)
        ends = [i for i, (_, said) in enumerate(attempts) if "written to" in said]
        if not ends or any("--resume" not in attempts[i][0] for i in ends[1:]):
            found.append(f"{name} was run to its end {len(ends)} times in {len(attempts)} attempts")
        return found

    def different_tables(self):
        """Where summary.h5 or summary.html do not say what summary.csv says, [text]."""
        rows, found = self.table(), []
        page = (self.output / "summary.html").read_text()
        data = json.loads(re.search(r"^const D = (.*);$", page, re.MULTILINE)[1])
        with h5py.File(self.output / "summary.h5") as file:
            group = file["entry/summary"]
            for i, (name, _, number, _) in enumerate(data["columns"]):
                given = [row[name] for row in rows]
                shown = ["" if line[i] is None else str(line[i]) for line in data["rows"]]
                kept = group[name][()] if number else group[name].asstr()[()]
                if number:
                    given_numbers = [float(text) if text else np.nan for text in given]
                    same = np.array_equal(kept, given_numbers, equal_nan=True)
                else:
                    same = list(kept) == given
                found += [] if same and shown == given else [f"{name} differs between the tables"]
        return found

    def alone(self, name):
        """The result of `pendel reconstruct` of a scan alone."""
        path = self.folder / f"alone_{name}.cxi"
        command = [sys.executable, "-m", "pendel", "reconstruct", str(self.folder / "run.toml"), "--quiet"]
        command += ["--data", str(self.folder / "data" / f"{name}.cxi"), "-o", str(path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return io.read_result(path)

    def has_bits_of(self, name, other):
        """Whether the result of a scan has the bits of another one."""
        return kills.same(io.read_result(self.output / "run" / f"{name}.cxi"), other)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=100)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--chain", action="store_true", help="start_from_last")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        text = TOML + f"workers = {args.workers}\nstart_from_last = {str(args.chain).lower()}\n"
        campaign = Campaign(Path(folder, "campaign"), args.scans, args.epochs, text)
        problems, begin = [], time.monotonic()
        for done in sorted(rng.sample(range(1, args.scans), args.kills)):
            number, after = rng.choice(kills.SIGNALS), rng.uniform(0, 3)
            problems += campaign.kill(number, done, after)
            name = signal.Signals(number).name
            print(f"{name}, {after:.1f} s after {done} were done: {campaign.count('done')} done", flush=True)
        status, _, err = campaign.run()
        problems += [f"status {status}: {err}"] if status else []
        problems += campaign.problems()
        names = ["scan_1"] if args.chain else [f"scan_{i}" for i in sorted(rng.sample(range(1, args.scans + 1), 3))]
        problems += [f"{name}: other bits" for name in names if not campaign.has_bits_of(name, campaign.alone(name))]
        seconds = time.monotonic() - begin
        print(f"{args.scans} scans, {args.kills} kills, {seconds:.0f} s, seed {args.seed}, {len(problems)} problems")
        print(*problems, sep="\n", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
