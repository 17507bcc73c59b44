"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time

from tqdm import tqdm

from . import interruption
from .printing import Forgiving, is_terminal, warn


class Progress:
    """Count steps on stderr. Use as a context manager, and call it as ``progress(step, loss=..)``.

    In a log: a line after the first step and every tenth of the steps, but none within `PAUSE` of the one before, and
    one at the end.

    Parameters
    ----------
    what : name of the work.
    total : steps.
    unit : name of a step.
    done : the step that a resumed run goes on from, and counts from.
    show : False: keep silent.
    """

    PAUSE = 2.0  # s

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0, show: bool = True):
        self.what = what
        self.total = total
        self.unit = unit
        self.begin = done
        self.done = done
        self.since = time.monotonic()
        self.last = self.since
        terminal = show and is_terminal(sys.stderr)
        bar = {"total": total, "initial": done, "desc": what, "unit": unit, "mininterval": 0.3}
        self.bar = tqdm(**bar, file=Forgiving(sys.stderr)) if terminal else None
        self.lines = show and not terminal

    def __call__(self, step, **numbers):
        interruption.check()
        text = " ".join(f"{name}={value:.3e}" for name, value in numbers.items())
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.done)
        tenth = 10 * step // self.total > 10 * self.done // self.total or step == self.begin + 1
        self.done = step
        now = time.monotonic()
        if self.lines and (step == self.total or tenth and now - self.last >= self.PAUSE):
            self.last = now
            warn(f"{self.what}: {self.unit} {step}/{self.total} {text} {now - self.since:.1f} s")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()
