"""Checkpoints: all that changes during a reconstruction, so that a run goes on to the same bits."""

import contextlib
from dataclasses import dataclass, field

import h5py
import numpy as np

from ..base import checks
from ..base.arrays import host
from ..io import hdf5, kinds
from .adam import Adam
from .result import FREE_HISTORY

HISTORY = ("loss", "misfit", "learning_rate", "scale", "support")
ARRAYS = ("S", "support", "s_0", "angle_offsets", "flux")
# What has to be the same in the run that goes on; the values stand for files that do not hold them.
SETTINGS = {
    "s_0": "tied",
    "likelihood": "amplitude",
    "free_fraction": 0.0,
    "refine_angles": False,
    "refine_intensities": False,
}


@dataclass
class Run:
    """All that changes during a run; what a checkpoint holds.

    adams : optimisers by what they move, "S", "phase", "s_0".  s_0, angle_offsets, flux : None where not in use.
    """

    S: np.ndarray
    support: np.ndarray
    adams: dict
    rng: np.random.Generator
    rate: float
    epoch: int = 0
    waited: int = 0
    best: float = np.inf
    history: dict = field(default_factory=lambda: {name: [] for name in HISTORY})
    s_0: np.ndarray | None = None
    angle_offsets: np.ndarray | None = None
    flux: np.ndarray | None = None


def save(path, run, seed, settings, monitor=None):
    """Write ``run``; ``settings``: values of `SETTINGS`; ``monitor``: the known flux (n_frames,), or None."""
    with hdf5.replacing(path, kinds.CHECKPOINT) as file:
        file.attrs["pendel_checkpoint"] = 1
        file.attrs.update(settings)
        for name in ARRAYS:
            if getattr(run, name) is not None:
                file.create_dataset(name, data=host(getattr(run, name)))
        if monitor is not None:
            file.create_dataset("monitor", data=monitor)
        for name, adam in run.adams.items():
            group = file if name == "S" else file.create_group(f"adam_{name}")
            group.create_dataset("m", data=host(adam.m))
            group.create_dataset("v", data=host(adam.v))
            group.attrs["steps"] = adam.steps
        for name, values in run.history.items():
            file.create_dataset(f"history/{name}", data=np.array(values))
        state = run.rng.bit_generator.state
        words = [state["state"][key] for key in ("state", "inc")]
        file.attrs["rng"] = [str(w) for w in words] + [str(state["has_uint32"]), str(state["uinteger"])]
        file.attrs["seed"], file.attrs["epoch"] = seed, run.epoch
        file.attrs["rate"], file.attrs["waited"], file.attrs["best"] = run.rate, run.waited, run.best


def checkpoint_shape(path):
    """(nz, ny, nx) of the crystal function in a checkpoint. Raises ValueError where ``path`` is none."""
    with _checkpoint(path) as file:
        return file["S"].shape


@contextlib.contextmanager
def _checkpoint(path):
    try:
        with h5py.File(path, "r") as file:
            if "pendel_checkpoint" not in file.attrs:
                raise ValueError("no checkpoint in it")
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint: expected a checkpoint of pendel.reconstruct, got {path}: {error}") from None


def load(path, model, seed, settings, monitor=None):
    """The `Run` of a checkpoint of the same model, seed, settings and monitor, where that model works.

    Raises ValueError naming what differs.
    """
    with _checkpoint(path) as file:
        arrays = {name: file[name][()] for name in ARRAYS if name in file}
        groups = {"S": file} | {name[5:]: group for name, group in file.items() if name.startswith("adam_")}
        adams = {name: Adam(g["m"][()], g["v"][()], int(g.attrs["steps"])) for name, g in groups.items()}
        names = HISTORY + tuple(name for name in FREE_HISTORY if name in file["history"])
        history = {name: list(file[f"history/{name}"][()]) for name in names}
        attributes = dict(file.attrs)
        known = file["monitor"][()] if "monitor" in file else None
    if not np.array_equal(*(np.ones(model.n_frames) if f is None else f for f in (known, monitor))):
        raise ValueError(f"flux: expected that of the checkpoint {path}, got another")
    _refuse_another(path, model, arrays["S"], attributes, {"seed": seed} | settings)
    arrays = _checked(arrays, model)

    upload = model.engine.upload
    for adam in adams.values():
        adam.m, adam.v = upload(adam.m), upload(adam.v)
    return Run(
        adams=adams,
        rng=_generator(attributes["rng"]),
        rate=float(attributes["rate"]),
        epoch=int(attributes["epoch"]),
        waited=int(attributes["waited"]),
        best=float(attributes["best"]),
        history=history,
        **{name: upload(array) for name, array in arrays.items()},
    )


def _checked(arrays, model):
    """Arrays of a checkpoint as the model wants them, for nobody checks them again before a sweep."""
    box, frames = model.shape, (model.n_frames,)
    wanted = {"S": (box, model.dtype), "support": (box, bool), "s_0": (box, model.real_dtype)}
    wanted |= {"angle_offsets": (frames, np.float64), "flux": (frames, np.float64)}
    return {name: checks.array(f"checkpoint ({name})", array, *wanted[name]) for name, array in arrays.items()}


def _refuse_another(path, model, S, attributes, wanted):
    """Raise ValueError where a checkpoint is of another model, seed or settings."""
    if S.shape != model.shape or S.dtype != model.dtype:
        raise ValueError(
            f"checkpoint: expected shape {model.shape} and dtype {model.dtype}, got {S.shape} and {S.dtype} in {path}"
        )
    stored = {"seed": int(attributes["seed"])}
    stored |= {name: type(value)(attributes.get(name, value)) for name, value in SETTINGS.items()}
    for name, value in wanted.items():
        if stored[name] != value:
            raise ValueError(f"{name}: expected {stored[name]!r}, that of the checkpoint {path}, got {value!r}")


def _generator(words):
    """The random generator in the state that `save` wrote."""
    state, inc, has_uint32, uinteger = (int(word) for word in words)
    rng = np.random.default_rng()
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": inc},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return rng
