"""The paper's case A by Adam, with each way of `race_peers.py` in the same loop."""

import math
import time

import numpy as np
import paper_cases
import pendel
import race_peers as peers
from pendel.fit.adam import Adam
from pendel.planning.kinematic_image import kinematic_image
from pendel.reference import exit_ramp
from scipy import ndimage

GROUPS = 5  # of frames in an epoch
RATES = (0.1, 0.001)  # Adam's, first and last, in units of |S|
CHUNK = 16  # frames at once when the data are made


class Problem:
    """Case A on its own grid, frames without noise by pendel with the way's scheme: about speed, not accuracy.

    Flat Ewald sphere and samples at the voxels' middles, so that a way has to give exit fields and nothing else. The
    loss of a group is sum (|F| - A)^2 / sum A^2, A the root of the data.

    Parameters
    ----------
    name : of a way
    size : of `paper_cases.PIXELS`
    threads : int
    """

    def __init__(self, name, size, threads):
        self.name, self.case = name, paper_cases.gold_cube(size, threads=threads)
        model, experiment = self.case.model, self.case.experiment
        crystal, chi = model.crystal, ("chi_0", "chi_h", "chi_hbar")
        physics = {what: getattr(crystal, what) for what in chi} | {"scheme": peers.WAYS[name].scheme}
        grid = model.shape, model.voxel, experiment.wavelength, experiment.two_theta
        self.op = pendel.TakagiTaupin(*grid, **physics, threads=threads)
        self.dq, self.far_field = experiment.dq, model.far_field
        self.support = ndimage.binary_dilation(self.case.body > 0, iterations=1)
        image = kinematic_image(self.case.S, *grid[1:], crystal, threads=threads) * self.support
        self.start = (image / np.maximum(np.abs(image), 1)).astype(self.op.dtype)

        parts = np.array_split(np.arange(len(self.dq)), math.ceil(len(self.dq) / CHUNK))
        light = [self.far_field.forward(self.op.forward(self.case.S, self.dq[part])) for part in parts]
        self.amplitude = np.abs(np.concatenate(light))

    def way(self, frames):
        """The way itself, rows taken as many at once as are fastest for so many frames."""
        S = self.case.S
        adj_E_h = np.ones((frames, *self.op.exit_shape), self.op.dtype)
        return peers.tuned(self.name, self.op, S, np.abs(S), self.dq[:frames], adj_E_h)

    def gradient(self, way, S, frames):
        """(loss, dL/dS) of a group of frames."""
        dq, A = self.dq[frames], self.amplitude[frames]
        E_h, back = way.sweep(S, dq)
        if not way.knows_ramp:
            ramp = exit_ramp(dq, self.op.shape, self.op.voxel)[0].astype(self.op.dtype)
            E_h = ramp * E_h
        F = self.far_field.forward(E_h)
        modulus, scale = np.abs(F), np.sum(A * A, dtype=float)
        loss = float(np.sum((modulus - A) ** 2, dtype=float) / scale)
        adj_F = (2 / scale) * (F - A * (F / np.maximum(modulus, np.finfo(A.dtype).tiny)))
        adj_E_h = self.far_field.adjoint(adj_F.astype(F.dtype))
        return loss, back(adj_E_h if way.knows_ramp else adj_E_h * ramp.conj())

    def phase_error(self, S):
        """rms of the phase in the crystal, rad, a constant and a ramp free, S moved over the truth."""
        return float(pendel.compare(S, self.case.S, self.case.model.voxel, ramp=True).phase_rmse)


def groups(frames, rng):
    """Random groups of frames, each in order."""
    return [np.sort(part) for part in np.array_split(rng.permutation(frames), GROUPS)]


def checked(problem, way, S, frames):
    """Relative difference of the gradient from that of pendel; AssertionError where it is beyond the tolerance."""
    loss, gradient = problem.gradient(way, S, frames)
    expected_loss, expected = problem.gradient(peers.make("pendel", problem.op), S, frames)
    return peers.differences([gradient, np.array(loss, S.dtype)], [expected, np.array(expected_loss, S.dtype)])[0]


def reconstruct(problem, epochs, budget):
    """Adam under |S| <= 1 in a support a voxel wider than the crystal, from what kinematic phasing finds at best.

    Stopped after the epoch in which ``budget`` seconds are over; then what is left is taken to last as long. The clock
    runs after a gradient of each size of group, so that what is compiled is compiled.

    Returns
    -------
    dict of what has been found
    """
    n, S = len(problem.dq), problem.start
    first = groups(n, np.random.default_rng(0))
    way = problem.way(len(first[0]))
    difference = max(checked(problem, way, S, frames) for frames in {len(part): part for part in first}.values())

    rng, adam = np.random.default_rng(0), Adam.zeros(S.shape, S.dtype)
    history, begun = [], time.perf_counter()
    for epoch in range(epochs):
        rate = RATES[1] + (RATES[0] - RATES[1]) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        losses = []
        for frames in groups(n, rng):
            loss, gradient = problem.gradient(way, S, frames)
            S = (S - rate * adam.direction(gradient)) * problem.support
            S /= np.maximum(np.abs(S), 1)
            losses.append(loss)
        history.append(float(np.mean(losses)))
        taken = time.perf_counter() - begun
        if taken > budget:
            break
    return {
        "shape": problem.op.shape, "transport": problem.op.transport, "frames": n, "epochs": epochs,
        "done": len(history), "seconds": taken * epochs / len(history), "rows_at_once": way.rows,
        "difference_S": difference, "loss": history,
        "phase_error_before": problem.phase_error(problem.start), "phase_error": problem.phase_error(S),
    }  # fmt: skip
