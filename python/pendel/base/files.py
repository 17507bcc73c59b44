"""Files: written whole or not at all, and one writer at a time.

What is written is made in memory first. Then it is one file beside its target, synced to the disk, and renamed: a full
disk, a signal or a power cut leaves the file that was there before. The part that a killed process leaves behind is
locked by nobody, and removed by the next that writes into the folder.
"""

import contextlib
import hashlib
import importlib
import os
import re
import stat
import threading
import uuid
from pathlib import Path
from types import ModuleType

from . import interruption

fcntl: ModuleType | None
try:
    fcntl = importlib.import_module("fcntl")
except ModuleNotFoundError:  # Windows: nothing is locked
    fcntl = None

LONGEST = 100  # bytes of a target's name in that of its part: names have 255
_PART = re.compile(r"\..*\.[0-9a-f]{8}(\.pendel)?\.part")
_held = threading.local()  # paths that `claimed` has given to this thread


def refuse_unwritable(path: Path | str) -> None:
    """Raise OSError where ``path`` cannot become a file, or is something else than a file now."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: expected a file in an existing folder, got no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file name to write, got a folder")
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: expected a file to write, got a device, a pipe or a socket")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: expected a file in a folder that can be written, got {path.parent}")


def refuse_read_only(path: Path | str) -> None:
    """Raise OSError where nothing can be written beside ``path``, which only trying tells."""
    with interruption.held_back():
        try:
            part, descriptor = _new_part(Path(path))
        except OSError as error:
            raise type(error)(error.errno, f"{path} cannot be written: {error.strerror}") from None
        os.unlink(part)
        os.close(descriptor)


def write_whole(path: Path | str, content: bytes | bytearray | memoryview) -> None:
    """Write ``content`` in the place of ``path``, which holds all of it afterwards, or what it held before.

    Raises OSError naming the file, for a full disk or a folder that cannot be written for example.
    """
    path = Path(path)
    refuse_unwritable(path)
    with interruption.held_back():
        remove_parts(path.parent)
        _write_whole(path, content)


def _write_whole(path, content):
    part = None
    try:
        part, descriptor = _new_part(path)
        try:
            _write_all(descriptor, memoryview(content).cast("B"))
            os.fsync(descriptor)
            os.replace(part, path)
        finally:
            os.close(descriptor)
        _sync_folder(path.parent)
    except OSError as error:
        raise type(error)(error.errno, f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _new_part(path):
    """(path, descriptor) of a new locked file beside ``path``."""
    name = path.name.encode(errors="surrogateescape")[:LONGEST].decode(errors="ignore")
    while True:
        part = path.parent / f".{name}.{uuid.uuid4().hex[:8]}.pendel.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        _lock(descriptor)
        # between both lines another process may have taken it for a dead one's
        if _is_at(descriptor, part):
            return part, descriptor
        os.close(descriptor)


def _write_all(descriptor, content):
    while len(content):
        content = content[os.write(descriptor, content[: 1 << 26]) :]


def _sync_folder(folder):
    """Make a rename last. Not all systems sync folders; the file itself is synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(folder: Path | str) -> None:
    """Remove what processes that died while they were writing have left in a folder."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_dead(entry.path)


def _remove_if_dead(part):
    with contextlib.suppress(OSError):
        descriptor = os.open(part, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            if _lock(descriptor) is True:
                os.unlink(part)
        finally:
            os.close(descriptor)


def _lock(descriptor):
    """Whether this process has the lock of a file now; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def _is_at(descriptor, path):
    """Whether an open file is still the one at ``path``."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    own = os.fstat(descriptor)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


@contextlib.contextmanager
def claimed(path: Path | str | None, name: str = "checkpoint"):
    """Have a file for oneself while the block runs; None: nothing to have. Within a claim of this thread it is one.

    Only those ask who ask in this way. The claim ends with the process, however it ends; its mark ``.NAME.lock`` is
    removed where the block ends, or by the next.

    Raises RuntimeError naming the argument ``name`` where another run has it.
    """
    if path is None:
        yield
        return
    path = Path(path)
    path = Path(os.path.realpath(path.parent), path.name)  # a link there is replaced, not what it leads to
    own = _held.__dict__.setdefault("paths", set())
    if path in own or fcntl is None:
        yield
        return
    refuse_unwritable(path)
    mark = _mark(path)
    descriptor = _claim(mark, name, path)
    own.add(path)
    try:
        yield
    finally:
        own.discard(path)
        with contextlib.suppress(OSError):
            os.unlink(mark)
        os.close(descriptor)


def is_claimed(path: Path | str) -> bool:
    """Whether another run has `claimed` a file. Nothing is written."""
    path = Path(path)
    mark = _mark(Path(os.path.realpath(path.parent), path.name))
    try:
        descriptor = os.open(mark, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # no mark, or one that is not ours to lock
        return False
    try:
        return _lock(descriptor) is False
    finally:
        os.close(descriptor)


def _mark(path):
    """The file that is locked for another, whose name may be too long for one more ending."""
    name = path.name.encode(errors="surrogateescape")
    if len(name) > LONGEST:
        digest = hashlib.blake2b(name, digest_size=8).hexdigest()
        return path.parent / f".{name[:LONGEST].decode(errors='ignore')}.{digest}.lock"
    return path.parent / f".{path.name}.lock"


def _claim(mark, name, path):
    """The descriptor of the locked ``mark``."""
    while True:
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        locked = _lock(descriptor)
        if locked is False:
            os.close(descriptor)
            raise RuntimeError(f"{name}: expected a file that no other run writes, got {path}, which one is writing")
        # the run before may have removed it in between
        if _is_at(descriptor, mark):
            return descriptor
        os.close(descriptor)


def identity(path: Path | str) -> tuple[int, int] | None:
    """What two names of one file share; None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def same_file(one: Path | str, other: Path | str) -> bool:
    """Whether two paths are names of one file, or will be once it is written."""
    found = identity(one), identity(other)
    if None not in found:
        return found[0] == found[1]
    one, other = (os.path.realpath(path) for path in (one, other))
    folders = identity(os.path.dirname(one)), identity(os.path.dirname(other))
    same_folder = folders[0] == folders[1] if None not in folders else os.path.dirname(one) == os.path.dirname(other)
    return same_folder and os.path.basename(one) == os.path.basename(other)


def is_regular(path: Path | str) -> bool:
    """Whether there is a file that is no folder, device, pipe or socket."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: no name of a file
        return False
