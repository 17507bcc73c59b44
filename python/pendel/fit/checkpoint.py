"""Checkpoints of `reconstruct`: all that changes during a run, so that it goes on to the same bits."""

import copy
from dataclasses import dataclass, field

import numpy as np

from ..base import checks
from ..base.arrays import host
from . import checkpoint_file
from .adam import Adam
from .checkpoint_file import fields_of, signature_of
from .result import FREE_HISTORY

HISTORY = ("loss", "misfit", "learning_rate", "scale", "support")
ARRAYS = ("S", "support", "s_0", "angle_offsets", "flux")
MAKER = "reconstruct"
MAY_DIFFER = ("epochs", "checkpoint_every")  # of a recipe; epochs as far as `MinibatchRecipe.same_until` says


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

    def copied(self):
        """The same in memory of its own, where its arrays lie."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays = {name: None if array is None else array.copy() for name, array in arrays.items()}
        adams = {name: Adam(adam.m.copy(), adam.v.copy(), adam.steps) for name, adam in self.adams.items()}
        history = {name: list(values) for name, values in self.history.items()}
        changing = {"adams": adams, "history": history, "rng": copy.deepcopy(self.rng)}
        numbers = {name: getattr(self, name) for name in ("rate", "epoch", "waited", "best")}
        return Run(**arrays, **changing, **numbers)


def signature(objective, recipe):
    """Of which run a checkpoint is: what has to be the same in one that goes on."""
    fit, model = objective.fit, objective.model
    others = {"dtype": str(model.dtype), "coupling": model.coupling, "flux": host(objective.monitor)}
    own = {name: value for name, value in fields_of(recipe).items() if name not in MAY_DIFFER}
    return {"seed": repr(recipe.seed)} | signature_of(model, fit.data, fit.pixels.known, own, **others)


def save(path, run, signature, epochs):
    """Write ``run``, one of ``epochs`` in all."""
    arrays = {name: host(getattr(run, name)) for name in ARRAYS}
    adams = {n: {"m": host(adam.m), "v": host(adam.v), "steps": adam.steps} for n, adam in run.adams.items()}
    history = {name: np.array(values) for name, values in run.history.items()}
    state = run.rng.bit_generator.state
    words = [state["state"][key] for key in ("state", "inc")] + [state["has_uint32"], state["uinteger"]]
    numbers = {"epoch": run.epoch, "epochs": epochs, "rate": run.rate, "waited": run.waited, "best": run.best}
    numbers |= {"rng": " ".join(map(str, words))}
    checkpoint_file.write(path, MAKER, signature, arrays | numbers | {"adams": adams, "history": history})


def checkpoint_shape(path):
    """(nz, ny, nx) of the crystal function in a checkpoint. Raises ValueError where ``path`` is none."""
    return checkpoint_file.read(path, MAKER)[1]["S"].shape


def load(path, model, signature, recipe):
    """The `Run` of a checkpoint of the same signature, where its model works.

    Raises ValueError naming what differs.
    """
    stored, found = model.ranks.from_first(lambda: checkpoint_file.read(path, MAKER))
    checkpoint_file.refuse_another(path, stored, {"seed": signature["seed"]})
    if found["S"].shape != model.shape or found["S"].dtype != model.dtype:
        expected, got = f"shape {model.shape} and dtype {model.dtype}", f"{found['S'].shape} and {found['S'].dtype}"
        raise ValueError(f"checkpoint: expected {expected}, got {got} in {path}")
    checkpoint_file.refuse_another(path, stored, signature)
    if not recipe.same_until(found["epoch"], found["epochs"]):
        expected = f"{found['epochs']}, that of the checkpoint {path}"
        cure = "what was done depends on it: take the result for the start of a new run"
        raise ValueError(f"epochs: expected {expected}, got {recipe.epochs}; {cure}")

    arrays = _checked({name: found[name] for name in ARRAYS if name in found}, model)
    upload = model.engine.upload
    adams = {n: Adam(upload(a["m"]), upload(a["v"]), int(a["steps"])) for n, a in found["adams"].items()}
    names = HISTORY + tuple(name for name in FREE_HISTORY if name in found["history"])
    return Run(
        adams=adams,
        rng=_generator(found["rng"].split()),
        rate=float(found["rate"]),
        epoch=int(found["epoch"]),
        waited=int(found["waited"]),
        best=float(found["best"]),
        history={name: list(found["history"][name]) for name in names},
        **{name: upload(array) for name, array in arrays.items()},
    )


def _checked(arrays, model):
    """Arrays of a checkpoint as the model wants them, for nobody checks them again before a sweep."""
    box, frames = model.shape, (model.n_frames,)
    wanted = {"S": (box, model.dtype), "support": (box, bool), "s_0": (box, model.real_dtype)}
    wanted |= {"angle_offsets": (frames, np.float64), "flux": (frames, np.float64)}
    return {name: checks.array(f"checkpoint ({name})", array, *wanted[name]) for name, array in arrays.items()}


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
