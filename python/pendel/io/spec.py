"""Reading SPEC scan files: motor positions, the scan's command and table, and areaDetector regions.

Files are read line by line, whatever their length. What is no point is passed over: comments, spectra ("@A ...", with
lines that a backslash continues), headers that are repeated.
"""

import array
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..base.reading import text_lines

SCANS = ("ascan", "dscan", "lup")  # commands with one motor and equal steps
EXPECTED = "a SPEC file"
# What a file may ask for; a scan has some thousand points of some ten columns, a beamline some hundred motors.
MOST_NUMBERS = 2 * 10**6
MOST_HEADERS = 10**5  # lines of a scan
MOST_MOTORS = 10**4
MOST_REPEATS = 100  # scans of one number


@dataclass
class SpecScan:
    """One scan of a SPEC file. ``motors``: full name -> position before the scan, in the motor's own unit (deg, mm,
    keV).

    ``motor``: full name of the scanned motor; ``table``: (point, column) numbers under ``columns``; ``roi``: (first
    column, columns, first row, rows) read out of the area detector (#UIMR5), or None; ``aborted``: it was ended before
    its last point; ``place``: file and line of its "#S".
    """

    number: int
    command: str
    motor: str
    columns: list
    table: np.ndarray
    motors: dict = field(default_factory=dict)
    detector: str = ""
    roi: tuple | None = None
    aborted: bool = False
    date: str = ""
    place: str = ""

    def positions(self) -> np.ndarray:
        """Positions of the scanned motor, (point,), as read back where the table has them, else as commanded.

        Raises ValueError naming the scan where one of them is no number.
        """
        if self.motor in self.columns:
            positions = self.table[:, self.columns.index(self.motor)]
        else:
            start, stop, intervals = map(float, self.command.split()[2:5])
            positions = start + (stop - start) * np.arange(len(self.table)) / max(intervals, 1)
        wrong = np.flatnonzero(~np.isfinite(positions))
        if len(wrong):
            raise ValueError(f"{self.place}: expected a position of {self.motor} at point {wrong[0]}, got none")
        return positions

    def readings(self, column: str) -> np.ndarray | None:
        """A column of the table, (point,), or None where there is none of that name."""
        return self.table[:, self.columns.index(column)] if column in self.columns else None


@dataclass
class _Section:
    """A scan as its lines come in: its own headers, its table, and the motor names of the headers above it."""

    place: str
    head: str
    names: dict  # {n: full names of #On}
    mnemonics: dict  # {n: short names of #on}
    motors: dict = field(default_factory=dict)
    columns: list = field(default_factory=list)
    headers: int = 0  # lines of them
    sets: int = 1  # points in one line: #N columns sets
    numbers: array.array = field(default_factory=lambda: array.array("d"))
    detector: str = ""
    roi: tuple | None = None
    aborted: bool = False
    date: str = ""

    @property
    def command(self):
        words = self.head.split(maxsplit=2)
        return words[2].strip() if len(words) > 2 else ""

    @property
    def points(self):
        return len(self.numbers) // max(1, len(self.columns))

    def same_as(self, other):
        """Whether both are copies of one scan."""
        mine, theirs = (
            (s.head.split(), s.date, s.motors, s.columns, s.roi, s.numbers.tobytes()) for s in (self, other)
        )
        return mine == theirs


def parse_spec(paths: Iterable[Path | str], number: int | None = None, points: int | None = None) -> SpecScan:
    """Read scan ``number`` (or the only scan) from SPEC files; headers (#O lines) may be in a file of their own.

    Where a number was given to several scans, the one is taken that has as many ``points`` as there are frames.

    Parameters
    ----------
    paths : SPEC files, in UTF-8 or whatever their byte-order marks say.
    number : of the scan; None: the only one.
    points : of the scan that is meant; None: not known.

    Raises
    ------
    FileNotFoundError : for a missing file.
    ValueError : naming file and line, for one that is cut off or not SPEC.
    """
    paths = list(map(Path, paths))
    # Headers alone come first.
    paths.sort(key=lambda path: any(_number(line) is not None for _, line in text_lines(path, EXPECTED)))
    found: list[_Section] = []
    for section in itertools.islice(_sections(paths, number), MOST_REPEATS):
        if not any(map(section.same_as, found)):
            found.append(section)
    return _finished(_only(found, paths, number, points))


def _only(found, paths, number, points):
    """The one section that is meant."""
    what, hint = ("one scan", "give its number") if number is None else (f"scan {number} once", "")
    if number is not None and len(found) > 1:
        hint = "keep the one that is meant in a SPEC file of its own"
        for fits in (lambda s: s.points == points, lambda s: s.points > 0):
            found = [section for section in found if fits(section)] or found
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{s.place} with {s.points} points" for s in found[:4]) or ", ".join(map(str, paths))
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    raise ValueError(
        f"{paths[-1]}: expected {what}, got {len(found)}{f' ({hint})' if hint and found else ''}: {listed}{more}"
    )


def _sections(paths, number) -> Iterator[_Section]:
    """Every `_Section` of the files whose scan is ``number`` (None: every one)."""
    names: dict[int, list[str]] = {}
    mnemonics: dict[int, list[str]] = {}
    for path in paths:
        section = None
        for i, line in _without_spectra(text_lines(path, EXPECTED)):
            scan = _number(line)
            if scan is not None or line.startswith("#F "):
                if section:
                    yield section
                wanted = scan is not None and number in (None, scan)
                place = f"{path}: line {i}"
                section = _Section(place, line, dict(names), dict(mnemonics)) if wanted else None
            elif line.startswith(("#O", "#o")):
                _read_names(line, names, mnemonics, f"{path}: line {i}")
            elif section:
                _read_line(section, line, f"{path}: line {i}")
        if section:
            yield section


def _without_spectra(lines):
    """(number, line) of what is no spectrum: "@A 1 2 3\\", continued for as long as lines end with a backslash."""
    continued = False
    for i, line in lines:
        in_spectrum = line.startswith("@") or (continued and not line.startswith("#"))
        continued = in_spectrum and line.rstrip().endswith("\\")
        if not in_spectrum:
            yield i, line


def _number(line):
    """The scan's number of a line "#S number command", else None."""
    found = line.startswith("#S") and re.match(r"#S\s+([0-9]{1,18})(?=\s|$)", line)
    return int(found.group(1)) if found else None


def _read_names(line, names, mnemonics, where):
    """Take a line of motor names, "#O0 Delta  Theta" or "#o0 del th"; a header's first line begins it anew."""
    found = re.match(r"#([Oo])([0-9]+)\s*(.*)", line)
    if not found:
        return
    known, separator = (names, r"\s{2,}") if found.group(1) == "O" else (mnemonics, r"\s+")
    key = int(found.group(2)[:9])
    if key == 0:
        known.clear()
    known[key] = re.split(separator, found.group(3).strip())
    if sum(map(len, known.values())) > MOST_MOTORS:
        raise ValueError(f"{where}: expected at most {MOST_MOTORS} motors, got more")


def _read_line(section, line, where):
    """Take what a line of a scan says into its section."""
    if not line.startswith("#"):
        if line.strip():
            _read_row(section, line, where)
        return
    section.headers += 1
    if section.headers > MOST_HEADERS:
        raise ValueError(f"{where}: expected a scan of at most {MOST_HEADERS} lines of headers, got more")
    try:
        _read_header(section, line, where)
    except (ValueError, IndexError) as error:
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: expected a header of a SPEC file, got {line[:40]!r}") from None


def _read_header(section, line, where):
    """Take what a header line of a scan says; of repeated ones the first counts."""
    place = re.match(r"#P(\d+)\s*(.*)", line)
    if place:
        positions = list(map(_to_number, place.group(2).split()))
        names = _motor_names(section, int(place.group(1)[:9]), len(positions), where)
        section.motors = dict(zip(names, positions, strict=True)) | section.motors
    elif line.startswith("#UIMDET"):
        section.detector = line.split(maxsplit=1)[1].strip().rstrip(":")
    elif line.startswith("#UIMR5"):
        section.roi = _read_region(line, where)
    elif line.startswith("#D") and not section.date:
        section.date = line[2:].strip()[:80]
    elif line.startswith("#C") and re.search(r"\baborted\b", line, re.IGNORECASE):
        section.aborted = True
    elif line.startswith("#N"):
        section.sets = int(line.split()[2][:9]) if len(line.split()) > 2 else 1
    elif line.startswith("#L"):
        columns = re.split(r"\s{2,}", line[2:].strip())
        if section.numbers and columns != section.columns:
            raise ValueError(f"{where}: expected the columns {section.columns}, got others in one table: {columns}")
        section.columns = columns


def _read_region(line, where):
    """(first column, columns, first row, rows) of "#UIMR5 4 32 8 24 1"."""
    words = line.split()[1:5]
    if len(words) != 4 or not all(re.fullmatch(r"[0-9]{1,6}", word) for word in words):
        raise ValueError(f"{where}: expected #UIMR5 minX sizeX minY sizeY, got {line[:40]!r}")
    return tuple(map(int, words))


def _motor_names(section, number, count, where):
    """The ``count`` names of header line #O``number``."""
    names = section.names.get(number)
    if names is None or len(names) != count:
        got = "no such line" if names is None else f"{len(names)} names"
        raise ValueError(f"{where}: expected #O{number} with {count} motor names, got {got}")
    return names


def _read_row(section, line, where):
    """Take the numbers of a line of the table: one point, or as many as #N says."""
    words = line.split()
    count = len(section.columns)
    if not section.numbers and len(words) != count and len(words) == len(" ".join(section.columns).split()):
        section.columns = " ".join(section.columns).split()  # names set apart by single spaces
        count = len(words)
    if not (count and len(words) % count == 0 and 1 <= len(words) // count <= max(1, section.sets)):
        raise ValueError(f"{where}: expected {count} columns, got {len(words)}; is the file cut off?")
    try:
        section.numbers.extend(map(_to_number, words))
    except ValueError:
        raise ValueError(f"{where}: expected numbers, got {line[:40]!r}") from None
    if len(section.numbers) > MOST_NUMBERS:
        raise ValueError(f"{where}: expected a scan of at most {MOST_NUMBERS} numbers, got more")


def _to_number(word):
    """The number of a word; Python's own 1_000 is none."""
    if "_" in word:
        raise ValueError(word)
    return float(word)


def _finished(section):
    """The `SpecScan` of a section."""
    table = np.array(section.numbers, float).reshape(-1, max(1, len(section.columns)))
    scan = SpecScan(
        number=_number(section.head),
        command=section.command,
        motor="",
        columns=section.columns,
        table=table,
        motors=section.motors,
        detector=section.detector,
        roi=section.roi,
        aborted=section.aborted,
        date=section.date,
        place=f"{section.place}: scan {_number(section.head)}",
    )
    scan.motor = _scanned_motor(scan, section)
    return scan


def _scanned_motor(scan, section):
    """Full name of the motor that the scan's command names by its mnemonic."""
    words = scan.command.split()
    if len(words) < 5 or words[0] not in SCANS or not all(map(_is_number, words[2:5])):
        raise ValueError(f"{scan.place}: expected ascan MOTOR START STOP INTERVALS TIME, got {scan.command[:80]!r}")
    full_names = {}
    for number, names in section.names.items():
        mnemonics = section.mnemonics.get(number, [])
        if len(names) == len(mnemonics):
            full_names.update(zip(mnemonics, names, strict=True))
    motor = full_names.get(words[1], words[1])
    if words[0] != "ascan" and motor not in scan.columns:
        raise ValueError(f"{scan.place}: expected the column {motor} in a relative scan, got {scan.columns}")
    return motor


def _is_number(word):
    try:
        return bool(np.isfinite(_to_number(word)))
    except ValueError:
        return False
