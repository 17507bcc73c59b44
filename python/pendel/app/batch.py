"""`pendel batch`: all jobs of a campaign, run, listed, or handed to a cluster."""

import os
import re
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

from ..base import files
from ..base.printing import say, warn
from . import campaign, jobs, outputs, summary
from .campaign import LOG
from .errors import UsageError
from .jobs import DONE, FAILED, RUNNING, STALE
from .outputs import Read, Written
from .workers import Options, Workers

MOST_TASKS = 100  # of a job array, unless asked for
THREADS = 4  # of a run on a cluster, unless asked for: this machine's are not those of its nodes
NAMED = 8  # jobs that a message names

SCRIPT = """\
#!/bin/bash
# {tasks} tasks for the {jobs} of {campaign}, written by pendel batch --slurm.
# Set what the cluster asks for, then: sbatch {script}. What is not done in time goes on where it was: sbatch it again.
#SBATCH --job-name={name}
#SBATCH --array=1-{tasks}
#SBATCH --cpus-per-task={cpus}
#SBATCH --signal=B:TERM@120
#SBATCH --output={log}
##SBATCH --time=04:00:00
##SBATCH --mem-per-cpu=4G
##SBATCH --partition=
exec {python} -m pendel batch {path} --workers {workers} --jobs "$SLURM_ARRAY_TASK_ID/{tasks}"
"""


class _Board:
    """The state of every job, each by the start that it has in its chain, as far as that is known."""

    def __init__(self, made, contents):
        self.made, self.contents = made, contents
        self.found: dict[str, jobs.State] = {}

    def look(self, passed=None):
        """Look at all of them again; ``passed``: {name: state} of those that this campaign has been at."""
        for line in self.made.lines:
            start, known = None, True  # what is still to be run may become another start
            for job in line:
                state = (passed or {}).get(job.name)
                if state is None or state.word == RUNNING:
                    state = jobs.state_of(job, start, self.contents, starts=known)
                self.found[job.name] = state
                if self.made.start_from_last:
                    start = job if state.word == DONE and jobs.gives_start(state.record) else start
                    known = known and state.word in (DONE, STALE)
        return self

    def __call__(self, job):
        return self.found[job.name]

    def named(self, word):
        """The names of jobs in a state."""
        return [name for name, state in self.found.items() if state.word == word]


def run_batch(args):
    _refuse_bad_numbers(args)
    began = time.time()
    made = campaign.load(args.campaign, args.workers)
    summary.columns_of(made)
    share = _share(args.jobs, made.lines)
    if args.slurm is not None:
        _write_script(args, made)
        return
    _refuse_no_folder(made.output)
    board = _Board(made, jobs.Contents())
    board.look()
    if args.dry_run:
        _list(made, board, share)
        return
    _refuse_stale(board, share, args.force)
    _run(args, made, board, share, began)


def _run(args, made, board, share, began):
    made.output.mkdir(parents=True, exist_ok=True)
    outputs.refuse_losses(summary.written(made), _read(args.campaign, made), force=args.force)

    def changed():
        summary.write(made, board.look(workers.found))

    options = Options(args.force, args.quiet, began)
    workers = Workers(made, share, board.contents, options, changed)
    if not args.quiet:
        count = sum(map(len, share))
        say(f"{count} jobs, {made.workers} at a time on {made.shared_threads} threads each, to {made.output}")
    try:
        workers.run()
    finally:
        changed()
    say(f"written to {', '.join(str(made.output / name) for name in summary.NAMES)}")
    _refuse_unfinished(workers.found, made)


def _refuse_bad_numbers(args):
    for name in ("workers", "tasks"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UsageError(f"--{name}: expected an integer >= 1, got {value}")
    if args.tasks is not None and args.slurm is None:
        raise UsageError("--tasks: expected --slurm with it, got none")
    if args.slurm is not None and (args.jobs or args.dry_run):
        raise UsageError(f"--slurm: expected no {'--jobs' if args.jobs else '--dry-run'} with it, got both")


def _share(given, lines):
    """The lines of a share "I/N"."""
    if given is None:
        return lines
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", given)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--jobs: expected I/N with 1 <= I <= N, got {given!r}")
    return lines[int(found[1]) - 1 :: int(found[2])]


def _refuse_no_folder(output):
    if output.exists() and not output.is_dir():
        raise UsageError(f"output: expected a folder, got the file {output}")


def _read(path, made):
    """What a campaign reads."""
    found = [Read("CAMPAIGN.toml", Path(path))]
    found += [Read("configuration", one.path) for one in made.configurations]
    return found + [Read("scans", path) for scan in made.scans for path in scan.paths]


def _list(made, board, share):
    """Print every job and how far it is."""
    own = {job.name for line in share for job in line}
    shown = [job for job in made.jobs if job.name in own]
    width = max((len(job.name) for job in shown), default=0)
    for job in shown:
        state = board(job)
        say(f"{job.name:{width}}  {state.word}{': ' if state.why else ''}{state.why}")
    counts = Counter(board(job).word for job in shown)
    say(f"{len(shown)} jobs: {', '.join(f'{count} {word}' for word, count in counts.items()) or 'none in this share'}")


def _refuse_stale(board, share, force):
    own = {job.name for line in share for job in line}
    stale = [name for name in board.named(STALE) if name in own]
    if stale and not force:
        why = board.found[stale[0]].why
        raise UsageError(
            f"output: expected results of this campaign, got {len(stale)} of another one: {_some(stale)} ({why}); "
            "--force runs them again, another output keeps them"
        )


def _refuse_unfinished(found, made):
    """RuntimeError that names the jobs that are not done."""
    told = []
    for word, text in (
        (FAILED, "jobs failed"),
        (jobs.INTERRUPTED, "jobs were interrupted"),
        (STALE, "jobs are stale (--force runs them again)"),
        (RUNNING, "jobs are run by others, and not done yet"),
    ):
        names = [name for name, state in found.items() if state.word == word]
        if names:
            told.append(f"{len(names)} of {len(found)} {text}: {_some(names)}")
        if names and word == FAILED:
            told[-1] += f"; why is in the table, and in {made.output}/{names[0]}{LOG}"
    if told:
        raise RuntimeError("; ".join(told))


def _some(names):
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _write_script(args, made):
    """Write the job array of a campaign."""
    script = Path(args.slurm)
    if script.is_file() and not args.force:
        raise UsageError(f"--slurm: expected a new file, got {script}, which is there; --force replaces it")
    item = Written("--slurm", script, ())
    outputs.refuse_losses([item], _read(args.campaign, made), force=args.force)
    tasks = args.tasks or min(-(-len(made.lines) // made.workers), MOST_TASKS)
    count = len(made.jobs)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", made.path.stem) or "pendel"
    text = SCRIPT.format(
        tasks=tasks,
        jobs=f"{count} jobs" if count > 1 else "job",
        campaign=re.sub(r"[^ -~]", "?", made.path.name),
        script=re.sub(r"[^ -~]", "?", script.name),
        name=name,
        cpus=made.workers * (made.threads or THREADS),
        workers=made.workers,
        log=f"{name}-%A_%a.out",
        python=shlex.quote(os.path.abspath(sys.executable)),
        path=shlex.quote(os.path.abspath(made.path)),
    )
    files.write_whole(script, text.encode(errors="surrogateescape"))
    say(f"written to {script}: an array of {tasks}; set time, memory and partition in it, then sbatch {script}")
    if tasks > len(made.lines):
        warn(f"pendel: warning: --tasks: {tasks - len(made.lines)} of {tasks} have nothing to do")
