"""Files that others wrote: plain ones only, text whatever mark it begins with, sizes before memory is taken."""

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from . import memory
from .memory import size_of

# Longest line of a text file, characters: a spectrum of 65536 channels has a twentieth of it.
LONGEST_LINE = 1 << 22
# Largest text that is read in one piece, bytes: what it says takes some tens of times its size in memory.
LONGEST_TEXT = 1 << 20
# What a file may unpack to, beyond its own size, bytes; more where it is packed no tighter than MOST_PACKED.
SPARE = 1 << 28
# Sparse counts of 32 bits shrink 600 times by deflate with one pixel in 2000 lit, 900 times with one in 9000; nothing
# but zeros 1032 times.
MOST_PACKED = 900

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def plain_file(path: Path | str, expected: str) -> Path:
    """``path``, if it leads to a plain file; nothing is opened: a named pipe would wait for its other end.

    Parameters
    ----------
    path : links are followed.
    expected : what the file should be, for the message, such as "a SPEC file".

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError : naming the path.
    ValueError : for pipes, sockets and devices.
    """
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        link = f", a link to {os.readlink(path)}" if path.is_symlink() else ""
        raise FileNotFoundError(f"{path}: expected {expected}, got no such file{link}") from None
    except OSError as error:
        raise type(error)(f"{path}: expected {expected}, got {error.strerror}") from None
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    if kind is not None:
        raise (IsADirectoryError if kind == "a folder" else ValueError)(f"{path}: expected {expected}, got {kind}")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path}: expected {expected}, got one that may not be read")
    return path


def read_text(path: Path | str, expected: str, *, errors: str = "strict", longest: int = LONGEST_TEXT) -> str:
    """The text of a file, also one packed by gzip, in UTF-8 or whatever its byte-order mark says, without the mark.

    Parameters
    ----------
    path : of a plain file.
    expected : what it should be, for the message, such as "a CIF file".
    errors : "strict", or "replace": bytes that are no text become question marks.
    longest : bytes.

    Raises
    ------
    OSError, ValueError : as `plain_file`; ValueError also for what is not such a text or longer.
    """
    path = plain_file(path, expected)
    try:
        content = _content(path, longest)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: expected {expected}, got a truncated or damaged file ({error})") from None
    if len(content) > longest:
        raise ValueError(f"{path}: expected {expected} of at most {size_of(longest)}, got a longer one")
    if content != codecs.BOM_UTF8 and any(content == mark for mark, _ in _MARKS):
        raise ValueError(f"{path}: expected {expected}, got a byte-order mark and no text")
    try:
        # Universal newlines, as of a text file: TOML refuses a lone carriage return.
        return io.TextIOWrapper(io.BytesIO(content), _encoding(content), errors).read()
    except UnicodeError as error:
        raise ValueError(f"{path}: expected {expected} in UTF-8, got {error}") from None


def _content(path, longest):
    """What a file holds, unpacked where it is gzip's; one byte more than ``longest`` where it is longer."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        return (gzip.GzipFile(fileobj=file) if packed else file).read(longest + 1)


def text_lines(path: Path | str, expected: str) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file's lines, one at a time, without their ends; bytes that are no text are replaced.

    Empty lines are counted, from 1, and left out.

    Raises as `plain_file` does, ValueError naming the line for one longer than `LONGEST_LINE`.
    """
    path = plain_file(path, expected)
    with path.open("rb") as file:
        encoding = _encoding(file.read(4))
    number, begun = 0, ""
    with path.open(encoding=encoding, errors="replace") as file:
        while piece := file.read(1 << 20):
            *lines, begun = (begun + piece).split("\n")
            for line in lines:
                number += 1
                if line:
                    yield number, line
            if len(begun) > LONGEST_LINE:
                raise ValueError(
                    f"{path}: line {number + 1}: expected at most {LONGEST_LINE} characters, got a longer one; is it "
                    f"{expected}?"
                )
    if begun:
        yield number + 1, begun


def _encoding(content):
    """Encoding by the byte-order mark; UTF-8 without one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")


def check_memory(where: str, needed: int, stored: int) -> None:
    """ValueError where a file asks for more memory than there is, or than its packed bytes can reasonably stand for.

    Parameters
    ----------
    where : file and array, for the message.
    needed : bytes that its header declares.
    stored : bytes that it takes in the file.
    """
    if needed > stored + SPARE and needed > MOST_PACKED * stored:
        raise ValueError(
            f"{where}: expected an array that its {size_of(stored)} in the file can hold, got one of "
            f"{size_of(needed)}; a true one is read when it is stored unpacked"
        )
    there = memory.total()
    if needed > there:
        raise ValueError(f"{where}: expected an array that fits the memory of {size_of(there)}, got {size_of(needed)}")
