"""Kill harness: runs ended by signals at random moments, resumed, and compared with one that was not, bit for bit.

A script, for many moments, and a module, for the few of tests/test_machine_faults.py:

    python tests/kills.py --kills 100 --seed 0 [--method adam ...]

Each trial ends a run by SIGKILL, SIGTERM or SIGHUP up to twice, resumes it to its end, and asks for
- exit status 128 + n after a signal that a process can handle, and nothing half-written;
- S, support, history and misfit of the uninterrupted run;
- no file that the run did not mean to leave.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pendel
from pendel import io

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
STARTUP = 1.0  # s of a processor, before which Python may not have come to pendel
STEP = np.deg2rad(0.012)
N = 24
CONFIG = """
experiment = {two_theta_deg = 44.76, rocking_axis = "y+"}
crystal = {hkl = [0, 0, 2], chi_0 = [-9.407e-5, 8.496e-6], chi_h = [7.400e-5, -8.434e-6]}
model = {shape = [16, 16, 16], threads = 1}
output = {pictures = false}
data = {path = "scan.cxi"}
"""
FLAT = '\nstart = {kind = "flat", size_nm = 500}\n'
LEVELS = "\nmultiscale = {levels = 1, starts = 2, steps = 60, rounds = 1, trial_epochs = 2}\n"
POLISH = 'method = "multiscale"'
METHODS = {
    "adam": FLAT + 'recipe = {method = "adam", epochs = 60, checkpoint_every = 7}',
    "adam, polished": FLAT + 'recipe = {method = "adam", epochs = 20, polish_rounds = 3}',
    "lbfgs": FLAT + 'recipe = {method = "lbfgs", epochs = 60, restart_every = 9}',
    "multiscale, kinematic": LEVELS + f'recipe = {{{POLISH}}}\nstart = {{kind = "kinematic", iterations = 60}}',
    "multiscale, flat": LEVELS + FLAT + f"recipe = {{{POLISH}}}",
    "multiscale, random": LEVELS + FLAT + f"recipe = {{{POLISH}}}",
    "multiscale, solid": f'\nrecipe = {{{POLISH}}}\nstart = {{kind = "solid", size_nm = 500}}\n'
    "multiscale = {starts = 2, steps = 60, rounds = 1}",
    "solve": '\nrecipe = {method = "solve"}\nstart = {kind = "kinematic", iterations = 60}\n'
    "solve = {starts = 1, steps = 60, trial_epochs = 2, fine_rounds = 2, fine_iterations = 6}",
}
# The command line has no random start: a program that runs `multiscale` from one.
RANDOM = """
import sys
from pathlib import Path
from pendel.app import config, methods, starts, store
from pendel.fit.steps import Steps
folder = Path(sys.argv[1])
made = config.load(folder / "run.toml")
scan = made.scan()
experiment = made.experiment(scan)
setup = starts.Setup(made, methods.METHODS["multiscale"], scan, experiment, made.voxel(experiment), False, print)
begun = starts.begin(setup)
files = {"checkpoint": folder / "result.checkpoint.h5", "resume": True}
given = begun.model, scan.data, scan.mask
result = methods.METHODS["multiscale"].run(*given, "random", begun.support, options=made.recipe_arguments(),
                                           progress=False, **files)
store.save_result(folder / "result.cxi", *given, result)
"""


def write_scan(path):
    """A small scan of a gold cube."""
    angles = STEP * (np.arange(N) - N // 2)
    beam = {"energy": 8e3 * 1.602176634e-19, "distance": 0.75, "pixel_size": 75e-6}
    arm = [("y+", np.deg2rad(44.76))]
    experiment = pendel.Experiment(**beam, detector_shape=(N, N), arm=arm, rocking_axis="y+", rocking_angles=angles)
    gold = pendel.Crystal(chi_0=-9.407e-5 + 8.496e-6j, chi_h=7.400e-5 - 8.434e-6j, hkl=(0, 0, 2))
    model = pendel.Model(experiment, gold, (16, 16, 16), experiment.suggest_voxel())
    S = pendel.phantom.cube(model.shape, model.voxel, edge=4.5e-7) * np.exp(0.5j)
    frames = model.intensities(S)
    io.write_scan(path, np.round(frames / frames.max() * 5e4).astype(np.int32), rocking_angles=angles, **beam)


class Trial:
    """A folder with a scan and a configuration of a method, in which it runs."""

    def __init__(self, folder, method, scan):
        self.folder, self.method = Path(folder), method
        self.folder.mkdir(parents=True)
        (self.folder / "scan.cxi").write_bytes(Path(scan).read_bytes())
        (self.folder / "run.toml").write_text(CONFIG + METHODS[method])

    def command(self):
        if self.method.endswith("random"):
            return [sys.executable, "-c", RANDOM, str(self.folder)]
        result = str(self.folder / "result.cxi")
        command = [sys.executable, "-m", "pendel.cli", "reconstruct", str(self.folder / "run.toml"), "-o", result]
        return [*command, "--quiet", "--resume"]

    def start(self):
        """The running process."""
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(), env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)

    def finish(self):
        """Run to the end: (result, seconds)."""
        begin = time.monotonic()
        process = self.start()
        said = process.communicate()[1]
        assert process.returncode == 0, said
        return self.result(), time.monotonic() - begin

    def kill(self, number, after):
        """Run, and send a signal after so many seconds; whether it came before the end."""
        process = self.start()
        time.sleep(after)
        used = seconds_used(process.pid)
        process.send_signal(number)
        said = process.communicate()[1]
        if process.returncode == 0:
            return False
        # nothing is handled before Python comes to the first line of pendel, nor once it takes itself down
        handled = number != signal.SIGKILL and not self.method.endswith("random")
        handled = handled and (used > STARTUP or process.returncode > 0)
        statuses = [128 + number] if handled else [-number]
        statuses += [-number] if self.is_done() else []
        assert process.returncode in statuses, (process.returncode, number, said)
        if (self.folder / "result.cxi").exists():
            self.result()  # whole, or none
        return True

    def is_done(self):
        """Whether everything is as the end of a run leaves it: with a result, and without locks."""
        return (self.folder / "result.cxi").exists() and not self.stale()

    def result(self):
        return io.read_result(self.folder / "result.cxi")

    def stale(self):
        """Files that a run does not mean to leave."""
        meant = {"scan.cxi", "run.toml", "result.cxi", "result.checkpoint.h5"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in meant)


def seconds_used(pid):
    """Of a processor, by a process; asks Linux. On a busy machine a second passes without any."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def same(one, other):
    """Whether two results have the same bits."""
    arrays = all(a.tobytes() == b.tobytes() for a, b in ((one.S, other.S), (one.support, other.support)))
    histories = all(np.array_equal(one.loss[name], other.loss[name]) for name in one.loss)
    return arrays and histories and one.misfit == other.misfit and one.scale == other.scale


def killed_and_resumed(folder, method, scan, moments, whole):
    """Problems of a run that is ended at these (signal, seconds), in turn, and resumed: [text]."""
    trial = Trial(folder, method, scan)
    killed = [trial.kill(number, after) for number, after in moments]
    resumed, _ = trial.finish()
    problems = [] if same(resumed, whole) else [f"{method} {moments} {killed}: other bits"]
    return problems + [f"{method} {moments}: {name} is left" for name in trial.stale()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="trials of each method")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", nargs="*", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder, "scan.cxi")
        write_scan(scan)
        for method in args.method:
            rng = random.Random(f"{args.seed} {method}")
            whole, seconds = Trial(Path(folder, method, "whole"), method, scan).finish()
            problems = []
            for i in range(args.kills):
                moments = [(rng.choice(SIGNALS), rng.uniform(0.1, seconds)) for _ in range(rng.choice((1, 2)))]
                problems += killed_and_resumed(Path(folder, method, str(i)), method, scan, moments, whole)
            failed += len(problems)
            print(f"{method}: {args.kills} trials of {seconds:.1f} s, seed {args.seed}, {len(problems)} problems")
            print(*problems, sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
