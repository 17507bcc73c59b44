"""What every rank does for tests/test_mpi.py: ``mpiexec -n R python ranks_worker.py TASK FOLDER``.

Groups are of three frames here, so that a scan of few frames has some for every rank. Every rank writes what it found
to FOLDER/TASK.RANK.npz, where errors that it expects count as found.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pendel
from cube import FIXED, QUIET, make_model, strained
from mpi4py import MPI
from pendel.model import ranked

COMM = MPI.COMM_WORLD
SIZE = 24
ADAM = FIXED | {"epochs": 6, "batches": 2, "schedule": "constant", "likelihood": "poisson", "background": 0.1}
ADAM |= {"free_fraction": 0.05, "refine_angles": True, "refine_intensities": True, "refine_after": 2, "seed": 3}
ADAM |= {"checkpoint_every": 2}
REFINED = {"refine_angles": True, "refine_intensities": True, "refine_background": True, "refine_blur": True}
REFINED |= {"refine_coherence": True, "likelihood": "poisson", "background": 0.1}
POLISH = QUIET | {"rounds": 2, "iterations": (2, 2)}
MULTISCALE = QUIET | {"levels": 1, "steps": 10, "rounds": 1, "iterations": (2, 2), "starts": 1, "counts": True}


def scan():
    """(model of all ranks, counts, start, support)."""
    ranked.LEAST, ranked.FEW = 3, 1000
    model = make_model(size=SIZE, threads=1, comm=COMM)
    _, S = strained(model, [(0.3, 0.2, -0.25)], [0.3], [1.5])
    data = model.intensities(S)
    data = np.random.default_rng(1).poisson(1e4 / data.max() * data.astype(float))
    return model, data, (0.8 * np.abs(S)).astype(S.dtype), np.abs(S) > 0


def of_result(name, result):
    """{name: array} of what a result has found."""
    found = {"S": result.S, "support": result.support, "loss": result.loss, "misfit": result.misfit}
    found |= {key: value for key, value in result.corrections._asdict().items() if value is not None}
    if "coherence" in found:
        found["coherence"] = found["coherence"].squares
    return {f"{name} {key}": value for key, value in found.items()}


def everything():
    """A pass and every algorithm."""
    model, data, start, support = scan()
    fit, found = model.fit(data, background=0.1), {"D": model.intensities(start, [5, 0, 23, 4])}
    for frames in (None, [3, 1, 20, 22, 8]):
        told = model.evaluate(start, fit, frames, None, support=support)._asdict()
        found |= {f"{name} of {frames}": value for name, value in told.items() if value is not None}
    alone = make_model(size=SIZE, threads=1)
    one = alone.evaluate(start, alone.fit(data, background=0.1), None, None, support=support).adj_S
    found["beside no communicator"] = np.abs(found["adj_S of None"] - one).max() / np.abs(one).max()
    s_0 = np.abs(start)
    found["adj_s_0"] = model.evaluate(start, fit, scale=2.0, s_0=s_0).adj_s_0
    found["relative misfit"] = model.misfit(start, data)
    found |= of_result("reconstruct", pendel.reconstruct(model, data, None, start, support, **ADAM))
    found |= of_result("lbfgs", pendel.lbfgs(model, data, None, start, support, iterations=3, **QUIET, **REFINED))
    found |= of_result("polish", pendel.polish(model, data, None, start, support, **POLISH))
    found |= of_result("multiscale", pendel.multiscale(model, data, None, "flat", support, **MULTISCALE))
    return found


def begun(folder):
    """Checkpoints of runs that did not come to their end."""
    model, data, start, support = scan()
    ends = {"checkpoint": folder / "adam.h5", "callback": lambda epoch, *_: epoch == 5}
    pendel.reconstruct(model, data, None, start, support, **ADAM, **ends)

    def stop(iteration, *_):
        if iteration > 4:  # in the second round
            raise InterruptedError

    try:
        pendel.polish(model, data, None, start, support, **POLISH, checkpoint=folder / "polish.h5", callback=stop)
    except InterruptedError:
        return {}


def resumed(folder):
    """The ends of these runs."""
    model, data, start, support = scan()
    adam = {"checkpoint": folder / "adam.h5", "resume": True}
    found = of_result("reconstruct", pendel.reconstruct(model, data, None, **ADAM, **adam))
    polish = {"checkpoint": folder / "polish.h5", "resume": True}
    return found | of_result("polish", pendel.polish(model, data, None, start, support, **POLISH, **polish))


def refused(folder):
    """Errors of what is not the same on all ranks, or goes wrong on one of them."""
    model, data, start, support = scan()
    last = COMM.rank == COMM.size - 1
    folder_of_one = folder / ("missing" if COMM.rank == 0 else "")
    own = data.copy()
    own[3, 4, 5] += last
    fit, found = model.fit(data), {}

    def light(S):
        return model.evaluate(S, fit, scale=None)

    tries = {
        "data": lambda: pendel.reconstruct(model, own, None, start, support, **ADAM),
        "epochs": lambda: pendel.reconstruct(model, data, None, start, support, **ADAM | {"epochs": 6 + last}),
        "start": lambda: pendel.lbfgs(model, data, None, start * (1 - 0.5 * last), support, **QUIET),
        "support": lambda: pendel.multiscale(model, data, None, "flat", support | last, **MULTISCALE),
        "voxel": lambda: make_model(size=SIZE + 2 * last, comm=COMM),
        "S": lambda: light(start * np.float32(1 - 0.5 * last)),
        "dark": lambda: light(0 * start),
        "checkpoint": lambda: pendel.reconstruct(model, data, **ADAM, checkpoint=folder_of_one / "adam.h5"),
        "comm": lambda: make_model(comm=COMM.rank),
        "null": lambda: make_model(comm=COMM.Split(MPI.UNDEFINED)),
    }
    for name, attempt in tries.items():
        try:
            attempt()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def ends_with(what, mark):
    """A long run in whose second epoch something happens to the last rank, and the file ``mark`` says when."""
    model, data, start, support = scan()

    def callback(epoch, *_):
        if epoch == 2 and COMM.rank == COMM.size - 1:
            mark.touch()
            what()

    long = ADAM | {"epochs": 10**6, "checkpoint_every": 10**6, "checkpoint": mark.with_suffix(".h5")}
    pendel.reconstruct(model, data, None, start, support, **long, callback=callback)


def error():
    raise LookupError("of one rank")


def main(task, folder):
    if task in ("error", "SIGKILL", "SIGTERM", "SIGINT"):
        what = error if task == "error" else lambda: os.kill(os.getpid(), getattr(signal, task))
        ends_with(what, folder / f"{task}.time")
    tasks = {"everything": everything, "begun": lambda: begun(folder), "resumed": lambda: resumed(folder)}
    tasks |= {"refused": lambda: refused(folder), "alone": lambda: {"size": COMM.size}}
    np.savez(folder / f"{task}.{COMM.rank}.npz", **tasks[task]())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
