"""A small scan of a strongly dynamical crystal on a turned detector, for tests that go through the whole model."""

import math

import numpy as np
from pendel import Crystal, Experiment, Model

KEV = 1.602176634e-16
# About ten times the susceptibilities of gold at 9 keV, so that a crystal of some 10 voxels scatters dynamically.
STRONG = Crystal(-9.4e-4 + 8.5e-5j, 7.4e-4 - 8.4e-5j, 6.6e-4 - 4.0e-5j, name="strong", hkl=(1, 1, 1))
ARM = (("y+", math.radians(32.174)), ("x-", math.radians(12.6346)))  # of Au (111) at 34-ID-C
FRAMES = 8
# A model that is operator and far field and nothing else.
SAMPLES = {"ewald": "flat", "sampling": "point"}
SHAPE = (5, 5, 7)


def make_experiment(**changes):
    arguments = {
        "energy": 9 * KEV,
        "distance": 0.5,
        "pixel_size": 440e-6,
        "detector_shape": (14, 16),
        "arm": ARM,
        "rocking_axis": "y+",
        "rocking_angles": np.deg2rad(0.05) * np.arange(FRAMES),
        "centre": (2.6, 7.3, 7.8),
    }
    return Experiment(**(arguments | changes))


def make_model(dtype="complex128", **changes):
    experiment = make_experiment()
    voxel = experiment.suggest_voxel(transport=changes.get("transport", "shift"))
    return Model(experiment, STRONG, SHAPE, voxel, **{"dtype": dtype, "threads": 1} | changes)


def make_crystal(rng, shape=SHAPE):
    """A rough crystal with vacuum on two sides, complex128."""
    S = rng.uniform(0.5, 1, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    S[:, :, :2] = S[:, :2] = 0
    return S


def make_data(rng, counts=1e5):
    """Counts of another crystal."""
    return rng.poisson(counts * make_model().intensities(make_crystal(rng))).astype(np.int32)


def evaluate(model, S, data, mask=None, frames=None, scale=1.0, s_0=None, support=None, **options):
    """`Model.evaluate` of data not yet a `Fit`; ``options`` of both."""
    fitted = {name: options.pop(name) for name in ("likelihood", "background", "free", "weights") if name in options}
    fit = model.fit(data, mask, frames=frames, **fitted)
    return model.evaluate(S, fit, frames, scale, s_0, support, **options)
