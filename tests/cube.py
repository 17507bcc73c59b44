"""A strained gold cube small enough for reconstructions of seconds, for the tests of the recipe."""

import dataclasses

import numpy as np
from pendel import Crystal, Experiment, Model, compare, phantom
from pendel.experiment import rotation
from pendel.fit.refinement import dq_at

SIZE = 20
EDGE = 0.8e-6
AU = Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j)
QUIET = {"progress": False}
FIXED = QUIET | {"shrink_wrap_every": 0}


def make_model(dtype="complex64", threads=2, size=SIZE, off=0.3, **options):
    """A gold cube of 0.8 um fills half of the box: refraction and absorption change the phase by half a radian.

    The rocking maximum lies ``off`` frames behind the middle one.
    """
    two_theta, wavelength, pixel_size = np.deg2rad(44.76), 1.5498e-10, 55e-6
    experiment = Experiment(
        wavelength=wavelength,
        distance=1.9 * EDGE * pixel_size / wavelength,
        pixel_size=pixel_size,
        detector_shape=(size, size),
        arm=(("y+", two_theta),),
        rocking_angles=np.deg2rad(0.4 / 64) * (np.arange(size) - size // 2),
        centre=(size / 2 + off, size // 2, size // 2),
    )
    grid = (size,) * 3, experiment.suggest_voxel()
    return Model(experiment, AU, *grid, polarization={"sigma": 1.0}, dtype=dtype, threads=threads, **options)


def with_loss(model, loss):
    """The model, which from now on finds this loss whatever it is given."""

    evaluate = model.passes.evaluate
    model.passes.evaluate = lambda *args, **kwargs: evaluate(*args, **kwargs)._replace(loss=loss)
    return model


def strained(model, places, widths, phases):
    """The cube's density and its crystal function, which bumps of phase strain; places and widths in edges."""
    grid = model.shape, model.voxel
    body = phantom.cube(*grid, EDGE, rotation((1, 1, 0.5), 0.6))
    bumps = phantom.bumps(*grid, EDGE * np.array(places), EDGE * np.array(widths), phases)
    return body, phantom.crystal_function(body, bumps)


def bright_frames(model, S):
    """Frames of S without noise, 1e6 at the most."""
    data = model.intensities(S)
    return data * np.float32(1e6 / data.max())


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


def make_problem(model):
    """The cube with two bumps of phase."""
    body, truth = strained(model, [(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2)], [0.3, 0.25], [1.5, 1.2])
    return Problem(model, body, truth, body > 0, float(np.diff(model.experiment.rocking_angles).mean()))


def central(function, h):
    """Central difference at 0, extrapolated once."""
    return (8 * (function(h / 2) - function(-h / 2)) - (function(h) - function(-h))) / (6 * h)
