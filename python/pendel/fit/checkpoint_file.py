"""Checkpoint files: what a run has found so far, of which run it is, and a checksum of both.

A run is told by a signature, {name: text}: of numbers and words the text itself, of arrays a digest. A run that goes on
must have the same one; what differs is named. It must be of the same version of pendel, too.
"""

import contextlib
import dataclasses
import os

import h5py
import numpy as np

from ..base import files
from ..base.arrays import host
from ..base.recipe import Recipe
from ..base.version import __version__
from ..io import hdf5, kinds
from ..io.hdf5_guard import GuardedFile
from ..io.kinds import CHECKPOINTS
from ..model.ranks import ALONE
from ..model.signature import DIGEST, as_text, digest, signature_of_model

FORMAT = 2
VERSION = "pendel_version"  # attribute: pendel's


def signature_of(model, data, mask, *recipes, **others) -> dict[str, str]:
    """The signature of a fit.

    Parameters
    ----------
    model : Model
    data, mask : of all frames, on the host or a device
    recipes : `Recipe` objects, and dicts {field: value}
    others : numbers, words, arrays or None, by name
    """
    signature = signature_of_model(model)
    signature |= dict(zip(("data", "mask"), _frames_as_text(host(data), host(mask)), strict=True))
    for recipe in recipes:
        signature |= {name: as_text(value) for name, value in fields_of(recipe).items()}
    return signature | {name: as_text(value) for name, value in others.items()}


def fields_of(recipe):
    """{field: value} of a `Recipe`, or of a dict."""
    if isinstance(recipe, Recipe):
        return {item.name: getattr(recipe, item.name) for item in dataclasses.fields(recipe)}
    return recipe


def _frames_as_text(data, mask):
    """Digests of intensities on good pixels, whatever their dtype and what bad pixels hold, and of the mask."""
    good = np.broadcast_to(True if mask is None else mask, data.shape)
    frames = (np.where(g, frame, 0).astype("<f8").tobytes() for g, frame in zip(good, data, strict=True))
    masks = (np.packbits(g).tobytes() for g in good)
    return DIGEST + digest(frames), DIGEST + digest(masks)


def refuse_another(path, stored, signature) -> None:
    """Raise ValueError for the first name in ``signature`` whose text is not that of the checkpoint."""
    for name, text in signature.items():
        if stored.get(name) == text:
            continue
        known = stored.get(name, DIGEST)
        if known.startswith(DIGEST) or text.startswith(DIGEST):
            raise ValueError(f"{name}: expected that of the checkpoint {path}, got another; begin without resuming")
        raise ValueError(f"{name}: expected {known}, that of the checkpoint {path}, got {text}")


@contextlib.contextmanager
def claimed(path, resume=False, ranks=ALONE):
    """Have a checkpoint for oneself while the block runs; None: nothing to have. The first of several ranks has it.

    Raises FileExistsError where a file of another kind is there, unless it is to be read (``resume``), which says more.
    """
    with contextlib.ExitStack() as claims:

        def claim():
            claims.enter_context(files.claimed(path))
            if path is not None and not resume:
                kinds.refuse_to_replace(path, kinds.CHECKPOINT, name="checkpoint", hint=None)

        ranks.from_first(claim)
        yield


def write(path, maker, signature, contents) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    maker : name of the public function
    contents : {name: array, number, text, dict of these, or None, which is left out}
    """
    with hdf5.replacing(path, kinds.CHECKPOINT) as file:
        file.attrs["pendel_checkpoint"], file.attrs["maker"] = FORMAT, maker
        file.attrs[VERSION] = __version__
        _put(file, contents)
        _put(file.create_group("signature"), signature)
        file.attrs["checksum"] = checksum(file)


def read(path, maker) -> tuple[dict, dict]:
    """(signature, contents) of a checkpoint of the public function ``maker``, whole.

    Raises ValueError that says what the file is instead.
    """
    try:
        with GuardedFile(path) as file:
            if not any(name in file.attrs for name in CHECKPOINTS):
                raise ValueError("no checkpoint in it")
            if file.attrs.get("pendel_checkpoint") != FORMAT:
                raise ValueError("one of an older version of pendel, which does not tell of what data it is")
            version = file.attrs.get(VERSION, "of an unknown version")
            if version != __version__:  # the same numbers, but not the same bits
                raise ValueError(
                    f"one of pendel {version}, and this is pendel {__version__}; begin without resuming, or go on with "
                    "the version that wrote it"
                )
            if file.attrs["maker"] != maker:
                raise ValueError(f"one of pendel.{file.attrs['maker']}")
            if file.attrs["checksum"] != checksum(file):
                raise ValueError("a damaged one, its checksum is not that of its contents")
            contents = _tree(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"checkpoint: expected a checkpoint of pendel.{maker}, got {path}: {error}") from None
    return contents.pop("signature"), contents


def exists(path) -> bool:
    """Whether there is one to go on from; an empty file is none."""
    return os.path.exists(path) and (not os.path.isfile(path) or os.path.getsize(path) > 0)


def checksum(file) -> str:
    """Of all attributes and datasets of an open file, but for the checksum itself."""
    parts = []

    def add(name, item):
        attributes = {key: value for key, value in item.attrs.items() if (name, key) != ("", "checksum")}
        for key in sorted(attributes):
            value = np.asarray(attributes[key])
            parts.append(f"{name}@{key}={value.tolist()!r}".encode())
        if isinstance(item, h5py.Dataset):
            parts.append(f"{name}:{item.dtype.str}{item.shape}".encode())
            parts.append(np.ascontiguousarray(item[()]).tobytes())

    add("", file)
    file.visititems(add)
    return digest(parts)


def _put(group, contents):
    for name, value in contents.items():
        if isinstance(value, dict):
            _put(group.create_group(name), value)
        elif isinstance(value, np.ndarray) and value.ndim:
            group.create_dataset(name, data=value)
        elif value is not None:
            group.attrs[name] = value


def _tree(group):
    tree = {name: _tree(item) if isinstance(item, h5py.Group) else item[()] for name, item in group.items()}
    return tree | {name: v.item() if isinstance(v, np.generic) else v for name, v in group.attrs.items()}
