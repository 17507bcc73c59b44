"""A campaign file: one or several configurations, the scans that each of them is run with, and where the results go.

Keys are checked as those of a configuration (`pendel.app.config`), and so is every configuration with what it is
overridden by, before anything runs. Paths start from the folder of the file.
"""

import difflib
import glob
import itertools
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..base import checks
from ..base.reading import read_text
from ..base.recipe import flag, integer
from ..operator.engines import available_threads
from . import config
from .errors import ConfigError
from .schema import SCHEMA, Key, listing_of

# Files of a job, after its scan's name.
RESULT, CHECKPOINT, RECORD, LOG, COPY = ".cxi", ".checkpoint.h5", ".job.json", ".log", ".toml"
# Files that a configuration names.
NAMED = ("data.mask", "data.background", "start.path", "crystal.material")
LONGEST_NAME = 100  # bytes, of a configuration or scan
ENDINGS = (".cxi", ".h5", ".hdf5", ".nxs", ".npz", ".npy", ".tif", ".tiff")  # that no scan is told by
_MAGIC = re.compile(r"[*?\[]")
_NAME = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _as_given(_, value):
    return value


KEYS = {
    "": {
        "configuration": Key(
            _as_given,
            about="file of a configuration; a list of several; or tables [configuration.NAME] with path and set.",
        ),
        "scans": Key(
            _as_given,
            about='files and folders, such as "data/scan_*.cxi" (* ? [] ** as in a shell, in natural order), or tables'
            " [[scans]] with path, name, numbers, labels and set.",
        ),
        "output": Key(_as_given, about="folder of the results and of summary.csv, summary.h5 and summary.html."),
        "start_from_last": Key(
            flag,
            False,
            "every scan begins with the crystal of the scan before it in the same configuration, the last that has one"
            ' and whose trust is not "not found"; the first as its configuration says.',
        ),
        "workers": Key(integer(at_least=1), 1, "runs at a time."),
        "threads": Key(
            integer(at_least=1), None, "of the CPU, of each of them, instead of model.threads; default: all shared out."
        ),
    },
    "configuration.NAME": {
        "path": Key(_as_given, about="file of the configuration."),
        "set": Key(_as_given, about='other values of its keys: set.recipe.likelihood = "poisson".'),
    },
    "scans": {
        "path": Key(_as_given, about="file or folder, or a pattern for several; a list: summed, as in data.path."),
        "name": Key(_as_given, about="of the scan in the table and its files; default: from the path."),
        "numbers": Key(_as_given, about='of scans, where a file holds several (data.scan): [12, 14] or ["12-40", 45].'),
        "labels": Key(_as_given, about="columns of the table: labels.temperature = 300."),
        "set": Key(_as_given, about="other values of the configurations' keys, for this scan alone."),
    },
}


@dataclass(frozen=True)
class Configuration:
    """A configuration file and what is overridden in it: ("section.key=value", ...)."""

    name: str
    path: Path
    overrides: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        """The TOML of the file."""
        try:
            return read_text(self.path, "a TOML file")
        except (OSError, ValueError) as error:
            raise ConfigError(f"configuration: {error}") from None


@dataclass(frozen=True)
class Scan:
    """A scan: its files or folders, its number in them or None, {label: value}, and overrides of its own."""

    name: str
    paths: tuple[Path, ...]
    number: int | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One scan with one configuration, and the files that belong to it."""

    configuration: Configuration
    scan: Scan
    folder: Path
    threads: int

    @property
    def name(self) -> str:
        """CONFIGURATION/SCAN."""
        return f"{self.configuration.name}/{self.scan.name}"

    def file(self, ending: str) -> Path:
        """The job's file of an ending such as RESULT."""
        return self.folder / f"{self.scan.name}{ending}"

    @cached_property
    def made(self) -> config.Config:
        """The `Config` that it is run with, but for `start_overrides`."""
        try:
            return config.loads(self.configuration.text, self.overrides, self.configuration.path.parent)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from None

    @property
    def named_files(self) -> dict[str, Path]:
        """{key: file} of `NAMED` that its configuration names."""
        paths = {key: self.made.path(key) for key in NAMED if key in self.made.given}
        # a material may be a name
        return {key: path for key, path in paths.items() if key != "crystal.material" or path.is_file()}

    @property
    def overrides(self) -> tuple[str, ...]:
        """What is overridden in its configuration."""
        paths = [os.path.abspath(path) for path in self.scan.paths]
        found = [f"data.path={toml(paths[0] if len(paths) == 1 else paths)}", f"model.threads={self.threads}"]
        if self.scan.number is not None:
            found.append(f"data.scan={self.scan.number}")
        own = (*self.configuration.overrides, *self.scan.overrides)
        # one file for all would be of the first
        found.append(f"recipe.checkpoint={toml(os.path.abspath(self.file(CHECKPOINT)))}")
        return *own, *found

    @property
    def path_overrides(self) -> tuple[str, ...]:
        """What makes its configuration the same in another folder, for a copy of it."""
        return tuple(f"{key}={toml(os.path.abspath(path))}" for key, path in self.named_files.items())

    def start_overrides(self, start: Path | None) -> tuple[str, ...]:
        """What has it begin with the crystal of another result."""
        if start is None:
            return ()
        method = f"recipe.method={toml(self.made.recipe.method)}"  # which the start's kind would choose else
        return method, 'start.kind="file"', "start.resample=true", f"start.path={toml(os.path.abspath(start))}"


@dataclass(frozen=True)
class Campaign:
    """A checked campaign file."""

    path: Path
    output: Path
    configurations: tuple[Configuration, ...]
    scans: tuple[Scan, ...]
    start_from_last: bool
    workers: int
    threads: int | None  # as given

    @cached_property
    def lines(self) -> list[list[Job]]:
        """The jobs, in lists of those that have to be run one after the other."""
        threads = self.shared_threads
        lines = [
            [Job(one, scan, self.output / one.name, threads) for scan in self.scans] for one in self.configurations
        ]
        return lines if self.start_from_last else [[job] for line in lines for job in line]

    @property
    def shared_threads(self) -> int:
        """Threads of each run."""
        return self.threads or max(1, available_threads() // self.workers)

    @property
    def jobs(self) -> list[Job]:
        """All of them."""
        return [job for line in self.lines for job in line]

    @property
    def labels(self) -> list[str]:
        """The names of all labels, in the order of the file."""
        return list(dict.fromkeys(name for scan in self.scans for name in scan.labels))


def load(path: Path | str, workers: int | None = None) -> Campaign:
    """The campaign of a TOML file, ``workers`` instead of its own. Raises ConfigError naming the key or the file."""
    path = Path(path)
    try:
        text = read_text(path, "a TOML file")
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    values = config.parsed(text, str(path))
    if not {"configuration", "scans"} & values.keys() and SCHEMA.keys() & values.keys():
        raise ConfigError(f"{path}: expected a campaign, got a configuration; pendel config --campaign prints its keys")
    _refuse_unknown("", values)
    table = {name: _checked(name, key, values) for name, key in KEYS[""].items()}
    folder, workers = path.parent, workers or table["workers"]
    campaign = Campaign(
        path,
        output=folder / _text("output", _needed("output", table["output"])),
        configurations=tuple(_configurations(folder, _needed("configuration", table["configuration"]))),
        scans=tuple(_scans(folder, _needed("scans", table["scans"]))),
        start_from_last=table["start_from_last"],
        workers=workers,
        threads=table["threads"],
    )
    _refuse_contradictions(campaign)
    return campaign


def listing() -> str:
    """All keys of a campaign file with their defaults, commented out, and what they mean."""
    titles = {"": "", "configuration.NAME": "[configuration.NAME]", "scans": "[[scans]]"}
    return listing_of({titles[table]: keys for table, keys in KEYS.items()})


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)  # numbers; TOML writes inf, nan and dates as Python does


def _toml_key(key):
    return key if _PLAIN_KEY.fullmatch(key) else toml(key)


def natural(text: str) -> list:
    """What sorts "scan_9" before "scan_10"."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", text)]


def _checked(name, key, values):
    try:
        return key.check(name, values[name]) if name in values else key.default
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _needed(name, value):
    if value is None:
        raise ConfigError(f"{name}: expected a value, got none")
    return value


def _refuse_unknown(table, given, where=""):
    """ConfigError for a key that a table of `KEYS` does not have."""
    for key in given:
        if key in KEYS[table]:
            continue
        close = difflib.get_close_matches(key, KEYS[table], n=1)
        hint = f"; did you mean {where}{close[0]}?" if close else f"; known: {', '.join(KEYS[table])}"
        raise ConfigError(f"{where}{key}: expected a known key, got {key!r}{hint}")


def _text(name, value):
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigError(f"{name}: expected text, got {checks.describe(value)}")
    return value


def _named(name, value):
    """Text that can be the name of a file."""
    if not _NAME.fullmatch(_text(name, value)) or len(value.encode(errors="surrogateescape")) > LONGEST_NAME:
        raise ConfigError(
            f"{name}: expected a name for files, of at most {LONGEST_NAME} bytes, without / and no . to begin with, got"
            f" {checks.describe(value)}"
        )
    return value


def _configurations(folder, given):
    """Every `Configuration` of the key."""
    if isinstance(given, dict):
        for name, table in given.items():
            where = f"configuration.{name}"
            if not isinstance(table, dict):
                raise ConfigError(f"{where}: expected a table [{where}], got {checks.describe(table)}")
            _refuse_unknown("configuration.NAME", table, f"{where}.")
            path = folder / _text(f"{where}.path", _needed(f"{where}.path", table.get("path")))
            yield Configuration(_named(where, name), path, _overrides(f"{where}.set", table.get("set", {})))
        return
    for i, item in enumerate(given if isinstance(given, list) else [given]):
        name = f"configuration[{i}]" if isinstance(given, list) else "configuration"
        path = folder / _text(name, item)
        yield Configuration(_named(name, path.stem), path)


def _overrides(name, tables):
    """("section.key=value", ...) of {section: {key: value}}."""
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{name}: expected keys such as {name}.recipe.epochs = 50, got {checks.describe(tables)}")
    return tuple(f"{section}.{key}={toml(value)}" for section, table in tables.items() for key, value in table.items())


def _scans(folder, given):
    """Every `Scan` of the key, in its order."""
    for i, item in enumerate(given if isinstance(given, list) else [given]):
        where = f"scans[{i}]" if isinstance(given, list) else "scans"
        table = item if isinstance(item, dict) else {"path": item}
        _refuse_unknown("scans", table, f"{where}.")
        path = _needed(f"{where}.path", table.get("path"))
        summed = isinstance(path, list)
        patterns = [_text(where, one) for one in (path if summed else [path])]
        found = [_found(where, folder, pattern) for pattern in patterns]
        if not summed:
            places = [((path,), _name_of(folder, path, patterns[0])) for path in found[0]]
        else:
            places = [(tuple(itertools.chain(*found)), None)]
        yield from _scans_at(where, table, places)


def _scans_at(where, table, places):
    """The scans of one entry: of every place, (paths, name), and every number."""
    numbers = _numbers(f"{where}.numbers", table["numbers"]) if "numbers" in table else [None]
    own = _named(f"{where}.name", table["name"]) if "name" in table else None
    if own is not None and len(places) > 1:
        raise ConfigError(f"{where}.name: expected a path of one scan, got a pattern of {len(places)}")
    labels = _labels(f"{where}.labels", table.get("labels", {}))
    overrides = _overrides(f"{where}.set", table.get("set", {}))
    for paths, name in places:
        name = own or _needed(f"{where}.name", name)
        for number in numbers:
            numbered = name if number is None else f"{name}_{number}"
            yield Scan(_named(where, numbered), paths, number, labels, overrides)


def _found(where, folder, pattern):
    """The paths that a pattern stands for, in natural order."""
    if os.path.lexists(folder / pattern):  # brackets may be part of a name
        return [folder / pattern]
    found = glob.glob(os.path.join(glob.escape(str(folder)), pattern), recursive=True)
    if not found:
        kind = "files or folders that match" if _MAGIC.search(pattern) else "a file or folder"
        raise ConfigError(f"{where}: expected {kind}, got no such one {folder / pattern}")
    return [Path(path) for path in sorted(found, key=natural)]


def _name_of(folder, path, pattern):
    """The parts of a path from the first on that its pattern does not fix, without the ending.

    It does not depend on what else the pattern matches: a scan that arrives later changes no other's name.
    """
    fixed = list(itertools.takewhile(lambda part: not _MAGIC.search(part), Path(pattern).parts))
    if path == folder / pattern or len(fixed) == len(Path(pattern).parts):
        parts = path.parts[-1:]
    else:
        parts = path.parts[len((folder / Path(*fixed)).parts) :]
    last = parts[-1]
    ending = next((ending for ending in ENDINGS if last.lower().endswith(ending) and len(last) > len(ending)), "")
    return "-".join([*parts[:-1], last[: len(last) - len(ending)]])


def _numbers(name, given):
    """Integers of [12, "14-20"]."""
    numbers = []
    for i, item in enumerate(given if isinstance(given, list) else [given]):
        first, dash, last = item.partition("-") if isinstance(item, str) else ("", "", "")
        if dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < int(first) + 100_000:
            numbers += range(int(first), int(last) + 1)
            continue
        try:
            numbers.append(checks.integer(f"{name}[{i}]", item, at_least=0))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{error}; or a range such as '12-40'") from None
    return numbers


def _labels(name, given):
    if not isinstance(given, dict):
        raise ConfigError(f"{name}: expected keys such as {name}.temperature = 300, got {checks.describe(given)}")
    for label, value in given.items():
        if not _LABEL.fullmatch(label):
            raise ConfigError(f"{name}.{label}: expected a name of letters, digits and _, got {label!r}")
        if not isinstance(value, (str, int, float)):
            raise ConfigError(f"{name}.{label}: expected a number or text, got {checks.describe(value)}")
    return given


def _refuse_contradictions(campaign):
    """ConfigError for names and scans given twice, results taken for scans, and configurations that are wrong."""
    _refuse_twice("configuration", [one.name for one in campaign.configurations], "names of their own")
    seen = set()
    for scan in campaign.scans:
        place = (*map(os.path.realpath, scan.paths), scan.number, scan.overrides)
        if place in seen:
            raise ConfigError(f"scans: expected every scan once, got {', '.join(map(str, scan.paths))} twice")
        seen.add(place)
    _refuse_twice("scans", [scan.name for scan in campaign.scans], "names of their own (scans.name)")
    output = os.path.realpath(campaign.output)
    for path in itertools.chain(*(scan.paths for scan in campaign.scans)):
        place = os.path.realpath(path)
        if os.path.commonpath([output, place]) in (output, place):
            raise ConfigError(f"scans: expected scans outside of the folder of the results, nor around it, got {path}")
    for one in campaign.configurations:
        config.parsed(one.text, f"configuration: {one.path}")
    for job in campaign.jobs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every run says its own
            try:
                job.made.recipe_arguments()
            except ConfigError as error:
                raise ConfigError(f"{job.name}: {str(error).removeprefix(f'{job.name}: ')}") from None


def _refuse_twice(key, found, expected):
    seen = set()
    for item in found:
        if item in seen:
            raise ConfigError(f"{key}: expected {expected}, got {item} twice")
        seen.add(item)
