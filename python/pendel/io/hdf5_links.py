"""The links of HDF5 files, followed by hand: HDF5 itself would follow them anywhere, and wait for whatever is there.

What one file leads to lies in its folder or below, unless the user lets it lead anywhere. Everything that is refused
is named by file and path.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import h5py

from ..base import checks, reading
from .hdf5_guard import GuardedFile

FOLDER, ANYWHERE = "folder", "anywhere"  # where links may lead
MOST_LINKS = 64  # soft and external links on the way to one dataset
MOST_FILES = 500  # that one file may lead to


@dataclass(frozen=True)
class Found:
    """An object, the group in which its last link stands, and its place for a message: "file: path"."""

    item: h5py.Dataset | h5py.Group
    group: h5py.Group
    where: str


def open_file(path: Path, where: str) -> h5py.File:
    """An HDF5 file, open for reading; OSError or ValueError, beginning with ``where``, say what it is instead."""
    try:
        reading.plain_file(path, "a plain file")  # a named pipe would wait for its other end
    except (OSError, ValueError) as error:
        raise type(error)(f"{where}, got " + str(error).partition(", got ")[2]) from None
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            begin = file.read(16)
        raise ValueError(f"{where}, got " + (f"one that begins {begin!r}" if begin else "an empty file"))
    try:
        return GuardedFile(path)
    except OSError as error:
        text = str(error)
    if "unable to lock" in text:
        raise OSError(f"{where}, got one that another program has open for writing; close it there ({text})")
    if "already open for write" in text or "consistency flags" in text:
        raise OSError(
            f"{where}, got one that is open for writing, or whose writer ended before it closed the file ({text})"
        )
    raise ValueError(f"{where}, got a truncated or damaged one ({text})")


def folders_of(path: Path | str) -> tuple[Path, Path]:
    """The folders in which what an HDF5 file leads to is looked for: where it is named, and where it lies."""
    path = Path(path)
    return Path(os.path.realpath(path.parent)), Path(os.path.realpath(path)).parent


def places_of(name: str, folder: Path | str) -> list[str]:
    """Where in a folder a file may be that an HDF5 file calls ``name``, the likeliest first.

    One that was written elsewhere and brought here has an absolute name: HDF5 looks beside the file too.
    """
    names = [name, os.path.basename(name)] if os.path.isabs(name) else [name]
    return [os.path.join(folder, name) for name in names]


class Links:
    """The HDF5 files that one file leads to. ``path`` is what the user gave; ``external`` : FOLDER or ANYWHERE; close
    with `close`.
    """

    def __init__(self, path: Path, external: str = FOLDER):
        self.path = path
        self._anywhere = checks.choice("external", external, (FOLDER, ANYWHERE)) == ANYWHERE
        # real path: the absolute name of a file that was found beside the one that has the link
        self._brought: dict[Path, str] = {}
        self._stack = contextlib.ExitStack()
        self._folders = [os.fspath(folder) for folder in folders_of(path)]
        self.file = self._stack.enter_context(open_file(path, f"{path}: expected a CXI/HDF5 file"))
        self._files = {folders_of(path)[0] / Path(path).name: self.file}
        self.place = "/"  # what was looked at last, for errors that nobody foresaw

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def find(self, path: str, start: h5py.Group | None = None) -> Found | None:
        """The object at a path below ``start`` (the file's root); None where no link of that name is.

        Raises ValueError or OSError for links that lead nowhere, in circles, or out of the file's folder.
        """
        start = self.file if start is None else start
        self.place = path
        place = path if path.startswith("/") else f"{start.name or ''}/{path}"
        return self._walk(start, path, f"{self._name(start)}: {place.lstrip('/')}", 0)

    def _name(self, group):
        """Path of the file of a group, as the user knows it."""
        name = os.fsdecode(group.file.filename)
        return str(self.path) if group.file == self.file else name

    def _walk(self, group, path, where, links):
        """`find` after ``links`` links."""
        names = [name for name in path.split("/") if name not in ("", ".")]
        found = Found(group, group, where)
        for name in names:
            if not isinstance(found.item, h5py.Group):
                return None
            found = self._step(found.item, name, where, links)
            if found is None:
                return None
        return found

    def _step(self, group, name, where, links):
        """The object of one name in a group."""
        try:
            link = group.get(name, getlink=True)
        except KeyError:
            return None
        except (TypeError, RuntimeError, OSError) as error:  # TypeError: of a kind that HDF5 does not know
            raise ValueError(f"{where}: expected a link that leads to a dataset, got {error}") from None
        if link is None:
            return None
        if isinstance(link, h5py.HardLink):
            return Found(self._opened(group, name, where), group, where)
        if links >= MOST_LINKS:
            raise ValueError(f"{where}: expected a dataset, got a chain of more than {MOST_LINKS} links")
        if isinstance(link, h5py.SoftLink):
            start = group.file["/"] if link.path.startswith("/") else group
            what = f"a soft link to {link.path}"
        else:
            what = f"an external link to {link.path} in {link.filename}"
            start = self.other_file(link.filename, group.file, f"{where}: expected a dataset, got {what}")["/"]
        found = self._walk(start, link.path, where, links + 1)
        if found is None:
            raise ValueError(f"{where}: expected a dataset, got {what}, where nothing is")
        return found

    def _opened(self, group, name, where):
        """The object of a hard link."""
        try:
            return group[name]
        except (KeyError, RuntimeError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"{where}: expected a CXI/HDF5 file, got a truncated or damaged one ({error})") from None

    def other_file(self, name: str, beside: h5py.File, where: str) -> h5py.File:
        """The file ``name`` as the file ``beside`` calls it; errors begin with ``where``."""
        path = self._inside(os.fsdecode(name), os.fsdecode(beside.filename), where)
        if path not in self._files:
            if len(self._files) >= MOST_FILES:
                raise ValueError(f"{where}: expected links to at most {MOST_FILES} files, got more")
            what = f"{where}: expected the HDF5 file {path}"
            self._files[path] = self._stack.enter_context(open_file(path, what))
        return self._files[path]

    def _inside(self, name, beside, where):
        """Path of a file that the file ``beside`` leads to, in the folder of the user's file or below it.

        Looked for as HDF5 does: beside the file that has the link, where that is named and where it lies, and nowhere
        else; another one of that name would be another file. HDF5 looks where the process is, too: by chance.
        """
        if "\0" in name or not name:
            raise ValueError(f"{where}: expected the name of a file, got {name!r}")
        folders = dict.fromkeys(folders_of(beside))
        # as it is called in all folders first
        candidates = [path for paths in zip(*(places_of(name, f) for f in folders), strict=True) for path in paths]
        there = [path for path in candidates if os.path.lexists(path)]
        path = (there or candidates[-len(folders) :])[0]
        real = os.path.realpath(path)
        if there and path not in candidates[: len(folders)]:
            self._refuse_namesake(name, real, where)
        if not self._anywhere and not any(real.startswith(os.path.join(folder, "")) for folder in self._folders):
            raise ValueError(
                f"{where}: expected a link into the folder of the file, got one that leads out of it, to {real}; "
                f"put the files in one folder, or allow it with data.external, external={ANYWHERE!r} in Python; of "
                "start.path with start.external"
            )
        if not there:
            raise FileNotFoundError(f"{where}: expected the file {name} beside {os.path.basename(beside)}, got none")
        # a file of two names, by links of the file system, has two folders to look in: its name is kept
        return folders_of(path)[0] / Path(path).name

    def _refuse_namesake(self, name, path, where):
        """ValueError where a file beside this one would stand for two that had one name in two folders."""
        other = self._brought.setdefault(path, name)
        if other != name:
            raise ValueError(
                f"{where}: expected the file {name}, got the one of its name in {os.path.dirname(path)}, which stands "
                f"for {other} already; put both where they are looked for"
            )
