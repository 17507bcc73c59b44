"""A strained gold cube small enough for reconstructions of seconds, for the tests of the recipe."""

import dataclasses

import numpy as np
from pendel import Crystal, Experiment, Model, compare, phantom
from pendel.experiment import rotation
from pendel.fit.refinement import dq_at

SIZE = 20
EDGE = 0.8e-6
QUIET = {"progress": False}
FIXED = QUIET | {"shrink_wrap_every": 0}


def make_model(dtype="complex64", threads=2):
    """A gold cube of 0.8 um fills half of the box, as in the tests of the loop."""
    two_theta, wavelength, pixel_size = np.deg2rad(44.76), 1.5498e-10, 55e-6
    experiment = Experiment(
        wavelength=wavelength,
        distance=1.9 * EDGE * pixel_size / wavelength,
        pixel_size=pixel_size,
        detector_shape=(SIZE, SIZE),
        arm=(("y+", two_theta),),
        rocking_angles=np.deg2rad(0.4 / 64) * (np.arange(SIZE) - SIZE // 2),
        centre=(SIZE / 2 + 0.3, SIZE // 2, SIZE // 2),
    )
    crystal = Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j)
    grid = (SIZE,) * 3, experiment.suggest_voxel()
    return Model(experiment, crystal, *grid, polarization={"sigma": 1.0}, dtype=dtype, threads=threads)


@dataclasses.dataclass
class Problem:
    model: Model
    body: np.ndarray
    truth: np.ndarray
    tight: np.ndarray
    step: float  # of the scan, rad

    def data(self, S=None, photons=1e5, noise=3, s_0=None, offsets=None, flux=None):
        """Frames of S: Poisson counts of generator ``noise``, or without noise for None."""
        dq = None if offsets is None else dq_at(self.model.experiment, offsets)[0]
        D = self.model.intensities(self.truth if S is None else S, None, s_0, dq=dq, flux=flux).astype(float)
        D *= photons / D.max()
        return D.astype(np.float32) if noise is None else np.random.default_rng(noise).poisson(D).astype(np.int32)

    def error(self, S):
        return compare(S, self.truth, self.model.voxel).phase_rmse


def make_problem():
    """The cube with two bumps of phase."""
    model = make_model()
    grid = model.shape, model.voxel
    body = phantom.cube(*grid, EDGE, rotation((1, 1, 0.5), 0.6))
    places = np.array([(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2)]) * EDGE
    truth = phantom.crystal_function(body, phantom.bumps(*grid, places, [0.3 * EDGE, 0.25 * EDGE], [1.5, 1.2]))
    return Problem(model, body, truth, body > 0, float(np.diff(model.experiment.rocking_angles).mean()))


def rough_crystal(problem, rng):
    """A crystal function without zeros in the support, complex128: |S| has no corner there."""
    shape = problem.model.shape
    S = rng.uniform(0.4, 0.9, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    return np.where(problem.tight, S, 0)


def central(function, h):
    """Central difference at 0, extrapolated once."""
    return (8 * (function(h / 2) - function(-h / 2)) - (function(h) - function(-h))) / (6 * h)
