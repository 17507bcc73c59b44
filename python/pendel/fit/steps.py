"""Steps of a run that are not done again when it is resumed: each has a name, and what it found is kept by it.

A resumed run goes the same way again and finds at every step what it found before, to the bit, until it comes to what
was not finished.
"""

import dataclasses

import numpy as np

from ..base import checks
from ..experiment.coherence import Coherence
from ..model.ranks import ALONE
from . import checkpoint_file
from .corrections import Corrections
from .result import Result

BETWEEN = "/"
CRYSTAL = ("S", "support")
LARGE = (*CRYSTAL, "x")  # what `Steps.forget` lets go of; x: of L-BFGS


class _Book:
    """What all parts of a `Steps` share."""

    def __init__(self, path, maker, stored, steps, ranks):
        self.path, self.maker, self.stored, self.steps, self.ranks = path, maker, stored, steps, ranks
        self.signature = {}

    def save(self):
        if self.path is not None:
            self.ranks.from_first(self._write)

    def _write(self):
        checkpoint_file.write(self.path, self.maker, self.signature, {"steps": self.steps})


class Steps:
    """Finished steps of a run, in a checkpoint or, without one, nowhere.

    Parameters
    ----------
    path : of the checkpoint, or None
    resume : whether to begin with what it holds, where it is there
    maker : name of the public function
    ranks : of which the first one reads and writes
    """

    def __init__(self, path=None, resume=False, maker="multiscale", ranks=ALONE):
        stored, steps = {}, {}

        def read():
            return checkpoint_file.read(path, maker) if checkpoint_file.exists(path) else (stored, {})

        if path is not None and resume:
            stored, contents = ranks.from_first(read)
            steps = contents.get("steps", {})
        self._book, self._place, self._model = _Book(path, maker, stored, steps, ranks), "", None

    @property
    def kept(self):
        """Whether there is a checkpoint."""
        return self._book.path is not None

    def part(self, name, model=None):
        """The steps within a step or stage ``name``; ``model``: whose crystals they find, None: as before."""
        copied = object.__new__(Steps)
        copied._book, copied._place = self._book, f"{self._place}{name}{BETWEEN}"
        copied._model = self._model if model is None else model
        return copied

    def sign(self, signature):
        """Say whose steps these are; ValueError names what is not that of the run in the checkpoint."""
        book = self._book
        book.ranks.refuse_different(signature)
        if book.stored:
            known = {n.removeprefix(self._place): text for n, text in book.stored.items() if n.startswith(self._place)}
            checkpoint_file.refuse_another(book.path, known, signature)
        book.signature |= {self._place + name: text for name, text in signature.items()}

    def once(self, name, compute):
        """The dict of arrays, numbers and None that ``compute(steps)`` gives; steps : those within this one."""
        key, book = _key(self._place + name), self._book
        if book.path is None:
            return compute(self)
        if key in book.steps:
            return self._checked(book.steps[key])
        found = compute(self.part(name))
        within = _key(self._place + name + BETWEEN)
        book.steps = {other: value for other, value in book.steps.items() if not other.startswith(within)}
        book.steps[key] = {item: _kept(value) for item, value in found.items() if value is not None}
        book.save()
        return found

    def _checked(self, found):
        """What a file holds, with crystals as the model has them: nobody checks them again before a sweep."""
        if self._model is None:
            return found
        wanted = zip(CRYSTAL, (self._model.dtype, bool), strict=True)
        box = {"shape": self._model.shape, "axes": "(nz, ny, nx)"}
        crystal = {n: checks.array(f"checkpoint ({n})", found[n], dtype=d, **box) for n, d in wanted if n in found}
        return found | crystal

    def crystal(self, name, compute):
        """`once` of (S, support)."""
        found = self.once(name, lambda steps: dict(zip(CRYSTAL, compute(steps), strict=True)))
        return found["S"], found["support"]

    def result(self, name, compute, model, background):
        """`once` of a `Result` on the voxels of ``model``; ``background()`` gives that of pixels, which is not kept."""
        computed = []

        def packed(steps):
            computed.append(compute(steps))
            return _packed(computed[0])

        found = self.once(name, packed)
        return computed[0] if computed else _unpacked(found, model, background)

    def forget(self, names):
        """Let go of the crystals, or x, of finished steps, which nobody asks for any more; their numbers stay."""
        for name in names:
            found = self._book.steps.get(_key(self._place + name), {})
            for item in LARGE:
                found.pop(item, None)


def _key(name):
    """A name as one of HDF5, where a slash is a group."""
    return name.replace("/", " > ")


def _kept(value):
    """As it is stored; a copy, for arrays may be changed later on."""
    if isinstance(value, dict):
        return {name: _kept(item) for name, item in value.items()}
    return np.array(value) if isinstance(value, (np.ndarray, tuple, list)) else value


def _packed(result):
    """A `Result` as a dict; a background of pixels is that of its fit."""
    found = {item.name: getattr(result, item.name) for item in dataclasses.fields(Result)}
    found = {name: value for name, value in found.items() if name not in ("model", "trust")}
    found["coherence"] = _packed_coherence(result.coherence)
    if np.ndim(found["background"]):
        del found["background"]
    return found


def _unpacked(found, model, background):
    """The `Result` of a dict of `_packed`, whose crystal may be gone."""
    found = dict.fromkeys(CRYSTAL) | found
    for name in ("angle_offsets", "flux", "background_level"):
        if name in found:
            found[name] = checks.array(f"checkpoint ({name})", found[name], (model.n_frames,), np.float64)
    if "point_spread" in found:
        found["point_spread"] = tuple(found["point_spread"].tolist())
    found["coherence"] = _unpacked_coherence(found.get("coherence"))
    found["voxel"] = tuple(found["voxel"].tolist())
    if "background" not in found:
        found["background"] = background()
    return Result(**found)


def packed_corrections(corrections):
    """{name: value} of `Corrections`."""
    return corrections._asdict() | {"coherence": _packed_coherence(corrections.coherence)}


def unpacked_corrections(found):
    """`Corrections` of a dict that holds them among others."""
    values = {name: found.get(name) for name in Corrections._fields}
    if values["point_spread"] is not None:
        values["point_spread"] = tuple(float(v) for v in values["point_spread"])
    values["coherence"] = _unpacked_coherence(values["coherence"])
    return Corrections(**values)


def _packed_coherence(coherence):
    """Its numbers, or None."""
    return None if coherence is None else dataclasses.astuple(coherence)


def _unpacked_coherence(numbers):
    """The `Coherence` of these numbers, or None."""
    if numbers is None:
        return None
    *widths, modes = map(float, numbers)
    return Coherence(*widths, int(modes))


NO_STEPS = Steps()
