"""A start for the dynamical reconstruction: kinematic phasing, brought to the model grid, with the twin decided.

Kinematic data cannot tell a crystal from its conjugate twin conj(S(-r)); dynamical data can. Each twin is given a few
epochs of the dynamical reconstruction, and the one that fits better is kept.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from . import _checks, kinematic
from .reconstruct import reconstruct
from .support import recentre, shrink_wrap


@dataclass
class Start:
    """S : complex64 (nz, ny, nx), kinematic, |S| <= 1.  support : bool (nz, ny, nx), a voxel wider than the crystal.

    chi : kinematic misfit of the phasing (amplitudes, square root).  twin : whether the conjugate twin was taken.
    trial_misfits : (plain, twin) relative misfits after the trial epochs; empty where no trial was asked for.
    """

    S: np.ndarray
    support: np.ndarray
    chi: float
    twin: bool
    trial_misfits: tuple


def kinematic_start(model, data, mask=None, *, iterations=500, trial_epochs=20, seed=0, progress=True, **recipe):
    """Phase the scan kinematically and return a `Start` on the model's grid.

    Parameters
    ----------
    model : Model.  data : (n_frames, rows, cols).  mask : bool, True = good pixel.
    iterations : of HIO and ER, see `pendel.kinematic.phase`.
    trial_epochs : epochs of `reconstruct` for each twin; 0: no trial, the object as phased is returned.
    seed : of the random phases.  progress : as in `reconstruct`.  recipe : further arguments of `reconstruct`.

    Raises as `kinematic.phase`, `kinematic.to_model_grid` and `reconstruct` do; ValueError names the box (shape) where
    the phased object does not fit into it.
    """
    trial_epochs = _checks.integer("trial_epochs", trial_epochs, at_least=0)
    result = kinematic.phase(data, mask, iterations=iterations, seed=seed)
    starts = []
    for twin in (False, True):
        S = recentre(kinematic.to_model_grid(result, model.experiment, model.shape, model.voxel, twin=twin))[0]
        starts.append((S.astype(model.dtype), ndimage.binary_dilation(shrink_wrap(S, 0.15, 1.0))))
    if trial_epochs == 0:
        return Start(*starts[0], result.chi, False, ())
    recipe = {"learning_rate": 0.1, "schedule": "constant"} | recipe
    misfits = tuple(
        reconstruct(model, data, mask, S, support, epochs=trial_epochs, seed=seed, progress=progress, **recipe).misfit
        for S, support in starts
    )
    twin = misfits[1] < misfits[0]
    return Start(*starts[twin], result.chi, bool(twin), misfits)
