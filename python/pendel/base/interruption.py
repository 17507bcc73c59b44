"""Signals that ask a program to end: SIGINT, SIGTERM and SIGHUP, all as Ctrl-C.

While modules are imported nothing is open, and the process ends at once. In a command they raise `Interrupted`, which
ends it as Ctrl-C does: what is finished is written, what is not vanishes. Exit status is 128 + the signal's number.
What the parent has told the process to ignore (nohup) stays ignored. Programs that import pendel keep their handlers.
"""

import contextlib
import os
import signal
import threading
from os import _exit as exit_at_once

ASKED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
MODULES = ("pendel", "pendel.cli", "pendel.app.cli")  # of python -m


class Interrupted(KeyboardInterrupt):
    """A signal came."""


class _Pending:
    """The first signal that came, or None; how many blocks are not to be interrupted now."""

    signal = None
    held = 0


def is_command(command: list[str]) -> bool:
    """Whether a process with this command line, as of ``sys.orig_argv``, is the program pendel."""
    for place, word in enumerate(command[1:], 1):
        if word == "-m":
            return command[place + 1 : place + 2] != [] and command[place + 1] in MODULES
        if word == "-c":
            return False
        if not word.startswith("-"):
            return os.path.splitext(os.path.basename(word))[0] == "pendel"
    return False


def end_at_once() -> None:
    """Let signals end the process with their status, as long as nothing is open."""
    _handle(lambda number, _: exit_at_once(128 + number))


@contextlib.contextmanager
def raised():
    """Let signals raise `Interrupted` in the block, in the main thread; the handlers before come back after it."""
    _Pending.signal = None
    before = _handle(_interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _Pending.signal = None


def received() -> int | None:
    """Number of the signal that came since `raised` began, or None. Whatever error it became, this is why."""
    return _Pending.signal


def check() -> None:
    """Raise `Interrupted` where a signal came: for loops, as a finaliser or a callback may have swallowed it."""
    if _Pending.signal is not None and not _Pending.held and _in_main_thread():
        raise Interrupted


@contextlib.contextmanager
def held_back():
    """Let signals wait until the block, a short one, is through."""
    if not _in_main_thread():
        yield
        return
    _Pending.held += 1
    came = _Pending.signal
    try:
        yield
    finally:
        _Pending.held -= 1
    if came is None:
        check()


def _interrupt(number, _):
    first = _Pending.signal is None
    if first:
        _Pending.signal = number
    if first and not _Pending.held:
        raise Interrupted


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()


def _handle(handler):
    """{signal: handler before} of those that are handled now."""
    before = {}
    if _in_main_thread():
        for number in ASKED:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    return before
