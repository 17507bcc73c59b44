"""Jobs of a campaign: what each is made of, how far it has come, and the record of it that lies beside its result.

A result is told by its identity: the keys that its configuration sets, the contents of its scan's files and of those
that the configuration names, and the result that it began with. Times and places of files are no part of it; contents
are only read again where size or time of a file differ from those that the record knows.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..base import files
from ..base.version import __version__
from ..io import array_files, kinds
from ..recipes.trust import NOT_FOUND
from .campaign import CHECKPOINT, COPY, NAMED, RECORD, RESULT, Job, toml
from .errors import UsageError

NEW, INTERRUPTED, FAILED, RUNNING, DONE, STALE = "new", "interrupted", "failed", "running", "done", "stale"
MARK = "pendel_job"  # key of a record
COPIED = "# copied by pendel batch from"
CHUNK = 1 << 24  # bytes
# What changes nothing of a result, or is told in another way.
LEFT_OUT = ("data.path", "data.scan", "model.threads", "recipe.checkpoint", "output.path", "output.pictures")
OTHER_SECTIONS = ("simulate", "disturbances")


class State(NamedTuple):
    """How far a job has come: the word, why, its record or {}, and whether its checkpoint is one to go on from."""

    word: str
    why: str
    record: dict
    resumes: bool = False


class Contents:
    """Digests of files, each read once, and not at all where a record knows it by size and time.

    An entry is [size, time in ns, digest], and [files that an HDF5 file leads to] where that was asked for.
    """

    def __init__(self):
        self._known: dict[str, list] = {}

    def remember(self, known: dict[str, list]) -> None:
        """Take over {path: entry} of a record."""
        for path, entry in known.items():
            self._known.setdefault(path, entry)

    def of(self, path: Path) -> tuple[str, dict[str, list]]:
        """(digest, {path: entry}) of a file, or of all files of a folder.

        What HDF5 files lead to, and masks beside arrays, belong to them.
        """
        path = Path(os.path.abspath(path))
        root, found = (path, _in_folder(path)) if path.is_dir() else (path.parent, {path, *self._beside(path)})
        # a file may be renamed
        names = {"" if one == path else os.path.relpath(one, root): one for one in found}
        total, entries = hashlib.blake2b(digest_size=16), {}
        for name in sorted(names):
            entry = entries[str(names[name])] = self.entry(names[name])
            total.update(f"{name}\0{entry[2]}\0".encode(errors="surrogateescape"))
        return total.hexdigest(), entries

    def entry(self, path: Path | str) -> list:
        """The entry of one file."""
        path = os.path.abspath(path)
        found = os.stat(path)
        known = self._known.get(path)
        if known is None or known[:2] != [found.st_size, found.st_mtime_ns]:
            total = hashlib.blake2b(digest_size=16)
            with open(path, "rb") as file:
                while part := file.read(CHUNK):
                    total.update(part)
            known = self._known[path] = [found.st_size, found.st_mtime_ns, total.hexdigest()]
        return known

    def _beside(self, path):
        entry = self.entry(path)
        if len(entry) < 4:
            itself = files.identity(path)
            linked = kinds.linked_files(path)
            entry.append(sorted({os.path.abspath(one) for one in linked if files.identity(one) != itself}))
        mask = array_files.mask_beside(path)
        return [*map(Path, entry[3]), *([] if mask is None else [mask])]


def _in_folder(folder) -> Iterator[Path]:
    for place, _, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in names if files.is_regular(Path(place, name)))


def identity(job: Job, start: Job | None, contents: Contents) -> tuple[dict[str, Any], dict[str, list]]:
    """(identity of a job's result, {path: entry of `Contents`} of the files in it).

    start : the job whose crystal it begins with, or None
    contents : of files

    Raises OSError where a file cannot be read.
    """
    made = job.made
    settings: dict[str, str] = {}
    entries: dict[str, list] = {}
    for key in sorted(made.given - set(LEFT_OUT)):
        section, name = key.split(".")
        if section not in OTHER_SECTIONS:
            settings[key] = repr(getattr(made.section(section), name))
    digests = {}
    for key, path in job.named_files.items():
        digests[key], found = contents.of(path)
        entries |= found
    if job.scan.number is None:
        scan = []
        for path in job.scan.paths:
            digest, found = contents.of(path)
            scan.append(digest)
            entries |= found
    else:  # the file grows with every scan of an experiment
        scan = [f"scan {job.scan.number} of {path.name}" for path in job.scan.paths]
    begun = None if start is None else [start.name, read_record(start).get("crystal")]
    return {"settings": settings, "files": digests, "scan": scan, "start": begun}, entries


def differences(old: dict, new: dict, starts: bool = True) -> str:
    """What of an identity is another one, in words; ``starts``: where it began, too."""
    told = []
    before, after = old.get("settings", {}), new["settings"]
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            told.append(f"{key} was {before.get(key, 'not set')} and is {after.get(key, 'not set')}")
    told += [f"another file of {key}" for key in NAMED if old.get("files", {}).get(key) != new["files"].get(key)]
    if old.get("scan") != new["scan"]:
        told.append("the scan's files hold something else")
    if starts and old.get("start") != new["start"]:
        was, now = ("its own start" if one is None else one[0] for one in (old.get("start"), new["start"]))
        told.append(f"it began with {was} and would now with {now if was != now else f'another {now}'}")
    return "; ".join(told)


def read_record(job: Job) -> dict:
    """The record of a job, {} where there is none. Raises UsageError for another file in its place."""
    path = job.file(RECORD)
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"output: expected a record of pendel batch, got {path}: {error}; move it away") from None
    if not isinstance(record, dict) or MARK not in record:
        raise UsageError(f"output: expected a record of pendel batch, got {path}, another file; move it away")
    return record


def new_record() -> dict:
    """The head of a record."""
    return {MARK: 1, "pendel": __version__, "state": RUNNING, "message": "", "began": now(), "row": {}}


def write_record(job: Job, record: dict) -> None:
    """Write the record of a job, whole or not at all."""
    text = json.dumps(record, indent=1)
    files.write_whole(job.file(RECORD), text.encode(errors="surrogateescape"))


def write_copy(job: Job) -> Path:
    """Write the configuration of a job beside its result, which stays what it is where the file is edited.

    Raises UsageError for another file in its place.
    """
    path = job.file(COPY)
    if path.exists() and not (files.is_regular(path) and path.read_bytes().startswith(COPIED.encode())):
        raise UsageError(f"output: expected a configuration that pendel batch wrote, got {path}; move it away")
    text = f"{COPIED} {toml(str(job.configuration.path))}\n{job.configuration.text}"
    files.write_whole(path, text.encode(errors="surrogateescape"))
    return path


def state_of(job: Job, start: Job | None, contents: Contents, starts: bool = True) -> State:
    """How far a job has come; ``start``, ``contents`` as in `identity`, ``starts`` as in `differences`."""
    if files.is_claimed(job.file(RECORD)):
        return State(RUNNING, "", read_record(job))
    return state_within_claim(job, start, contents, starts)


def state_within_claim(job: Job, start: Job | None, contents: Contents, starts: bool = True) -> State:
    """`state_of` a job that nobody else runs."""
    record, result = read_record(job), job.file(RESULT)
    contents.remember(record.get("files", {}))
    if not record:
        there = kinds.kind_of(result) is not None
        why = "a result that no record tells of" if there else ""
        return State(STALE if there else NEW, why, record)
    try:
        differs = differences(record.get("identity", {}), identity(job, start, contents)[0], starts)
    except OSError as error:  # which the run will say, too
        differs = str(error)
    if record["state"] == DONE and files.is_regular(result):
        if not _is_of(record, result, contents):
            differs = "; ".join(filter(None, ("another result than its record tells of", differs)))
        return State(STALE, differs, record) if differs else State(DONE, "", record)
    resumes = not differs and record["pendel"] == __version__ and kinds.kind_of(job.file(CHECKPOINT)) is not None
    if record["state"] == FAILED and not differs:
        return State(FAILED, record["message"], record, resumes)
    return State(INTERRUPTED if resumes else NEW, "", record, resumes)


def _is_of(record, result, contents):
    """Whether a result is the one that its record tells of."""
    contents.remember({os.path.abspath(result): record["result"]})
    return contents.entry(result)[2] == record["result"][2]


def gives_start(record: dict) -> bool:
    """Whether the result that a record tells of is one to begin the next scan with."""
    return record.get("state") == DONE and record["row"].get("trust") != NOT_FOUND


def now() -> str:
    """The time, for people."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def last_words(path: Path, offset: int) -> str:
    """What a run has said of its end in its log, from ``offset`` on."""
    try:
        with open(path, "rb") as file:
            file.seek(max(offset, path.stat().st_size - (1 << 16)))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith("pendel: error: ")]
    said = errors or [line for line in lines if line.strip() and not line.startswith("pendel: warning: ")]
    return re.sub(r"\s+", " ", said[-1].removeprefix("pendel: error: ")) if said else ""
