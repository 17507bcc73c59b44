"""Printing that cannot fail what it tells of: a closed pipe, a full disk or an ASCII terminal is no reason to end."""

import contextlib
import sys


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
