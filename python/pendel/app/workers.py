"""Runs of a campaign's jobs, each a process of `pendel reconstruct`, so many at a time.

A process is told to end where this one ends, however that is, so that no run outlives its campaign. A job belongs to
whoever has claimed its record: several campaigns at work on one folder share its jobs.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ..base import files, interruption
from ..base.printing import say, warn
from . import jobs
from .campaign import LOG, RECORD, RESULT, Campaign, Job
from .jobs import DONE, FAILED, INTERRUPTED, RUNNING, STALE, Contents, State
from .summary import row_of

LOOK = 0.1  # s between two looks at the processes
AGAIN = 1.0  # s between two looks at a job that another has
GRACE = 60.0  # s for a process that is told to end to write its checkpoint
PATIENCE = 10.0  # s for jobs of others, at the end: those of a campaign that was killed end within it
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


class Options(NamedTuple):
    """Of the command line."""

    force: bool = False
    quiet: bool = False
    began: float = 0.0  # s since 1970: what failed after it is not tried again


class Process(NamedTuple):
    """A job that runs."""

    job: Job
    line: "Line"
    popen: subprocess.Popen
    record: dict
    began: float  # s, of `time.monotonic`
    offset: int  # of its words in the log
    claim: contextlib.ExitStack


class Line:
    """Jobs that are run one after the other."""

    def __init__(self, waiting: list[Job], chained: bool):
        self.waiting, self.chained = list(waiting), chained
        self.start: Job | None = None  # whose crystal the next one begins with
        self.again = 0.0  # of `time.monotonic`: when to look again, where another has the next one

    def leave(self, job: Job, record: dict) -> None:
        """Go on from a job that has been looked after."""
        self.waiting.pop(0)
        if self.chained and jobs.gives_start(record):
            self.start = job


class Workers:
    """Runs all jobs of ``lines``; ``found`` are their states in the end.

    Parameters
    ----------
    campaign : whose jobs they are.
    lines : of jobs, as `Campaign.lines`.
    contents : of files, as far as they are known.
    options : `Options`
    changed : called where a job has begun or ended.
    """

    def __init__(
        self,
        campaign: Campaign,
        lines: list[list[Job]],
        contents: Contents,
        options: Options,
        changed: Callable[[], Any] = lambda: None,
    ):
        self.campaign, self.contents, self.options, self.changed = campaign, contents, options, changed
        self.lines = [Line(line, campaign.start_from_last) for line in lines if line]
        self.count = sum(map(len, lines))
        self.found: dict[str, State] = {}
        self.running: list[Process] = []
        self.ending = False

    def run(self) -> None:
        """Run them. A signal ends all processes, with what they have done in their checkpoints, and is raised."""
        try:
            self._run()
        except BaseException:
            self._end()
            raise

    def _run(self):
        patience = None
        while self.lines:
            interruption.check()
            begun = self._begin()
            ended = [self._finish(one) for one in list(self.running) if one.popen.poll() is not None]
            if self.running or begun or ended:
                patience = None
                time.sleep(0 if begun or ended else LOOK)
                continue
            if self.lines:  # all that is left is run by others
                patience = patience or time.monotonic() + PATIENCE
                if time.monotonic() > patience:
                    break
                time.sleep(LOOK)

    def _begin(self):
        """Begin as many jobs as there is room for; whether there was something to do."""
        did = False
        for line in self.lines:
            if len(self.running) >= self.campaign.workers:
                break
            while line.waiting and time.monotonic() > line.again and not self._runs(line):
                if self._look_after(line):
                    did = True
                else:
                    line.again = time.monotonic() + AGAIN
        self.lines = [line for line in self.lines if line.waiting]
        return did

    def _runs(self, line):
        return any(process.line is line for process in self.running)

    def _look_after(self, line):
        """Begin the next job of a line, or pass it by; False where another has it."""
        job = line.waiting[0]
        job.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as claim, interruption.held_back():
            state = jobs.state_of(job, line.start, self.contents)
            if state.word != RUNNING:
                try:
                    claim.enter_context(files.claimed(job.file(RECORD), "job"))
                except RuntimeError:
                    state = state._replace(word=RUNNING)
            if state.word == RUNNING or files.is_claimed(job.file(RESULT)):  # the second: one whose campaign is gone
                self.found[job.name] = state._replace(word=RUNNING)
                return False
            state = jobs.state_within_claim(job, line.start, self.contents)
            if self._is_to_run(state):
                self._start(job, line, state, claim.pop_all())
            else:
                self.found[job.name] = state
                line.leave(job, state.record if state.word == DONE else {})
        return True

    def _is_to_run(self, state):
        if state.word == STALE:
            return self.options.force
        just_now = state.word == FAILED and state.record["ended"] > self.options.began
        return state.word != DONE and not just_now

    def _start(self, job, line, state, claim):
        """Begin the process of a job, with its claim."""
        before = state.record if state.resumes else {}
        found, entries = _identity(job, line.start, self.contents)
        record = jobs.new_record() | {
            "identity": found,
            "files": entries,
            "seconds": before.get("seconds", 0.0),
            "start": None if line.start is None else line.start.name,
        }
        jobs.write_record(job, record)
        command = self._command(job, line.start, state.resumes)
        with open(job.file(LOG), "ab") as log:
            log.write(f"# {jobs.now()} {shlex.join(command)}\n".encode(errors="surrogateescape"))
            log.flush()
            offset = log.tell()
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            popen = subprocess.Popen(command, **pipes, env=_environment(), preexec_fn=_die_with_parent())
        if not self.options.quiet:
            say(f"{job.name}: {'goes on' if state.resumes else 'begun'}")
        self.running.append(Process(job, line, popen, record, time.monotonic(), offset, claim))
        self.changed()

    def _command(self, job, start, resumes):
        """`pendel reconstruct` of a job."""
        copy = jobs.write_copy(job)
        command = [sys.executable, "-m", "pendel", "reconstruct", os.path.abspath(copy), "--quiet"]
        command += ["-o", os.path.abspath(job.file(RESULT))]
        begun = job.start_overrides(None if start is None else start.file(RESULT))
        for override in (*job.overrides, *job.path_overrides, *begun):
            command += ["--set", override]
        return command + ["--resume"] * resumes + ["--force"] * self.options.force

    def _finish(self, process):
        """Record how a process has ended."""
        with interruption.held_back():
            self.running.remove(process)
            record, job = process.record, process.job
            record["seconds"] += round(time.monotonic() - process.began, 3)
            record["ended"], record["exit"] = time.time(), process.popen.returncode
            record |= _outcome(job, process, self.contents, self.ending)
            jobs.write_record(job, record)
            process.claim.close()
            self.found[job.name] = State(record["state"], record["message"], record)
            process.line.leave(job, record)
            self._tell(job, record)
            self.changed()
        self.lines = [line for line in self.lines if line.waiting]
        return process

    def _tell(self, job, record):
        done, row = sum(state.word != RUNNING for state in self.found.values()), record["row"]
        text = f"[{done}/{self.count}] {job.name}: {record['state']}"
        if record["state"] == DONE:
            text += f" in {record['seconds']:.0f} s, misfit {row['misfit']:.3e}"
            text += f", {row['trust']}" if row["trust"] else ""
            if not self.options.quiet:
                say(text)
        else:
            warn(f"{text}: {record['message']}")

    def _end(self):
        """End all processes."""
        self.ending = True
        for process in self.running:
            process.popen.terminate()
        deadline = time.monotonic() + GRACE
        for process in self.running:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        for process in list(self.running):
            self._finish(process)


def _identity(job, start, contents):
    try:
        return jobs.identity(job, start, contents)
    except OSError:  # a file that cannot be read, as the run will say
        return {}, {}


def _outcome(job, process, contents, ending) -> dict:
    """What of a record tells how a process has ended; ``ending``: all were told to."""
    code = process.popen.returncode
    if code == 0:
        try:
            row, crystal = row_of(job.file(RESULT))
            return {"state": DONE, "row": row, "crystal": crystal, "result": contents.entry(job.file(RESULT))}
        except (OSError, ValueError, MemoryError) as error:
            return {"state": FAILED, "message": f"the result cannot be read: {error}"}
    if ending:
        return {"state": INTERRUPTED, "message": "ended with its campaign"}
    said = jobs.last_words(job.file(LOG), process.offset)
    if code < 0:
        return {"state": FAILED, "message": f"ended by {_name_of(-code)}{_cause(-code)}; last words: {said}"}
    if code - 128 in interruption.ASKED:
        return {"state": INTERRUPTED, "message": f"ended by {_name_of(code - 128)}"}
    return {"state": FAILED, "message": said or f"exit status {code}"}


def _name_of(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _cause(number):
    return ", as where memory runs out" if number == signal.SIGKILL else ""


def _environment():
    """That of this process; products of BLAS round differently on other numbers of threads, unless it says one."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return limits | os.environ


def _die_with_parent():
    """What a new process calls before it is another program, so that it is told to end with this one; asks Linux."""
    if not sys.platform.startswith("linux"):
        return None
    control, parent = ctypes.CDLL(None).prctl, os.getpid()

    def call():
        control(DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended in between
            interruption.exit_at_once(128 + signal.SIGTERM)

    return call
