"""Printing that cannot fail what it tells of: a closed pipe, a full disk or an ASCII terminal is no reason to end."""

import contextlib
import sys
from typing import Any

LONG = 200  # characters of a text that `brief` does not show


def say(text: str, stream=None) -> bool:
    """Print a line, to stdout where no ``stream`` is given; whether it was delivered.

    A line that the stream cannot encode is printed with escapes.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(encodable(text, stream), file=stream, flush=True)
    except (OSError, ValueError, AttributeError):  # AttributeError: there is no stream at all
        return False
    return stream is not None


def warn(text: str) -> bool:
    """`say` on stderr."""
    return sys.stderr is not None and say(text, sys.stderr)


def encodable(text: str, stream) -> str:
    """``text`` with escapes for what the stream cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding, getattr(stream, "errors", None) or "strict")
    except (UnicodeError, LookupError):
        return text.encode("ascii", "backslashreplace").decode("ascii")
    return text


class Forgiving:
    """A stream for programs that print on their own: what cannot be delivered is passed over."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.stream.write(encodable(text, self.stream))
        return len(text)

    def flush(self):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.stream.flush()

    def __getattr__(self, name):
        return getattr(self.stream, name)


def is_terminal(stream) -> bool:
    """Whether there is a stream and it is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def brief(fields: Any) -> str:
    """A dataclass or NamedTuple in a line: arrays by dtype and shape, of the rest what is there. For ``__repr__``."""
    names = getattr(fields, "_fields", None) or fields.__dataclass_fields__
    known = {name: getattr(fields, name) for name in names}
    told = ", ".join(f"{name}={_short(value)}" for name, value in known.items() if _told(value))
    return f"{type(fields).__name__}({told})"


def _told(value):
    return value is not None and not (isinstance(value, (str, dict)) and not value)


def _short(value):
    if getattr(value, "ndim", 0):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {_short(item)}" for name, item in value.items()) + "}"
    if type(value) in (tuple, list):
        text = ", ".join(map(_short, value))
        return f"[{text}]" if isinstance(value, list) else f"({text}{',' * (len(value) == 1)})"
    if hasattr(value, "__dataclass_fields__") or hasattr(value, "_fields"):
        return brief(value)
    value = value.item() if hasattr(value, "item") else value  # a NumPy number
    if isinstance(value, str) and len(value) > LONG:
        return f"text of {len(value)} characters"
    return f"{value:.7g}" if isinstance(value, float) else repr(value)
