"""What a command reads and what it writes: nothing that it reads is written over, nor is any file of another kind.

Files are compared, not their names: links and other spellings are the same file. A folder stands for all that is in it,
and an HDF5 file for the files that it leads to as well.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..base import files
from ..io import array_files, kinds
from .errors import UsageError

ABOVE = ("spec", "dark", "whitefield")  # in names of files that beamlines keep one folder above their scans
KEYS = ("data.path", "data.mask", "data.background", "start.path", "crystal.material")  # of a configuration, paths


class Read(NamedTuple):
    """A file or folder that is read, and the option or key that names it."""

    option: str
    path: Path


class Written(NamedTuple):
    """A file that is written, the option or key that names it, and the kinds of `io.kinds` that it may replace."""

    option: str
    path: Path
    kinds: tuple[str, ...]


def read_by(config, path, *, data=None, keys=KEYS) -> list[Read]:
    """What a run of a configuration at ``path`` reads; ``data``: of --data, instead of data.path."""
    found = [Read("CONFIG.toml", Path(path))]
    for key in keys:
        section, name = key.split(".")
        if getattr(config.section(section), name) is not None and not (key == "data.path" and data):
            found += [Read(key, path) for path in config.paths(key)]
    return found + ([Read("--data", Path(data))] if data else [])


def refuse_losses(written: list[Written], read: Sequence[Read] = (), *, force: bool = False) -> None:
    """Raise UsageError where a file cannot be written, or would be lost; remove what dead runs left beside them.

    force : replace files of any kind, but none that is read.
    """
    for item in written:
        refuse_unwritable(item.option, item.path)
        _refuse_pictures_without_matplotlib(item)
    for i, item in enumerate(written):
        for other in written[:i]:
            if files.same_file(item.path, other.path):
                raise UsageError(f"{item.option}: expected another file than {other.option}, got {item.path} for both")
        for other in read:
            _refuse_read(item, other)
    _refuse_streams(written)
    for item in written:
        if not force:
            try:
                kinds.refuse_to_replace(item.path, *item.kinds, name=item.option, hint="--force")
            except FileExistsError as error:
                raise UsageError(str(error)) from None
    for folder in {item.path.parent for item in written}:
        files.remove_parts(folder)


def _refuse_pictures_without_matplotlib(item):
    """Before any work, and not when the picture is to be drawn."""
    if kinds.PICTURE not in item.kinds or item.path.suffix.lower() == ".vti":
        return
    try:
        there = importlib.util.find_spec("matplotlib") is not None
    except ValueError:  # somebody has taken it out of sys.modules
        there = False
    if not there:
        raise UsageError(
            f"{item.option}: expected the package matplotlib, to draw it, got none; pip install 'pendel[plot]'"
        )


@contextlib.contextmanager
def claimed(written: list[Written]):
    """Have all files for oneself while the block runs; UsageError names the option where another run has one."""
    with contextlib.ExitStack() as stack:
        for item in written:
            try:
                stack.enter_context(files.claimed(item.path, item.option))
            except (OSError, RuntimeError) as error:
                raise UsageError(str(error)) from None
        yield


def make_room(item: Written) -> None:
    """Remove a file of another kind that stands in the place of one, which --force asks for."""
    if kinds.kind_of(item.path) not in (None, *item.kinds):
        item.path.unlink()


def refuse_unwritable(option, path) -> None:
    """Raise UsageError where ``path`` cannot be written."""
    if not path.parent.is_dir():
        raise UsageError(f"{option}: expected a file in an existing folder, got no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option}: expected a file, got the folder {path}")
    try:
        files.refuse_unwritable(path)
        files.refuse_read_only(path)
    except OSError as error:
        raise UsageError(f"{option}: {error}") from None


def _refuse_read(item, other):
    """Refuse to write what is read, or what belongs to it."""
    refusal = f"{item.option}: expected another file than {other.option} reads, got {item.path}"
    if files.same_file(item.path, other.path):
        raise UsageError(refusal)
    own = files.identity(item.path)
    if own is None:  # nothing there, so nothing that can be read
        return
    in_folder = other.path.is_dir() and kinds.kind_of(item.path) not in (None, *item.kinds)
    for path in _in_folder(other.path) if in_folder else _belonging(other.path):
        if files.identity(path) == own:
            raise UsageError(f"{refusal}, which belongs to it")


def _belonging(path) -> Iterator[Path]:
    """Files that are read together with one."""
    beside = array_files.mask_beside(path)
    if beside is not None:
        yield beside
    yield from kinds.linked_files(path)


def _in_folder(folder) -> Iterator[Path]:
    """All files of a folder that is read, with those that they lead to."""
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(place, name)
            yield path
            yield from kinds.linked_files(path)
    for path in Path(os.path.realpath(folder)).parent.iterdir():
        if any(word in path.name.lower() for word in ABOVE) and path.is_file():
            yield path


def _refuse_streams(written):
    """Refuse to write what this process prints to."""
    for option, stream in (("standard output", sys.__stdout__), ("standard error", sys.__stderr__)):
        try:
            found = os.fstat(stream.fileno())
        except (AttributeError, OSError, ValueError):
            continue
        for item in written:
            if files.is_regular(item.path) and files.identity(item.path) == (found.st_dev, found.st_ino):
                raise UsageError(f"{item.option}: expected another file than {option}, got {item.path}")
