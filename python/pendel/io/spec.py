"""Reading SPEC scan files: motor positions, the scan's command and table, and areaDetector regions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class SpecScan:
    """One scan of a SPEC file. ``motors``: full name -> position before the scan, in the motor's own unit (deg, mm,
    keV).

    ``motor``: full name of the scanned motor; ``table``: (point, column) numbers under ``columns``; ``roi``: (first
    column, columns, first row, rows) read out of the area detector (#UIMR5), or None.
    """

    number: int
    command: str
    motor: str
    columns: list
    table: np.ndarray
    motors: dict = field(default_factory=dict)
    detector: str = ""
    roi: tuple | None = None

    def positions(self) -> np.ndarray:
        """Positions of the scanned motor, (point,), as read back where the table has them, else as commanded."""
        if self.motor in self.columns:
            return self.table[:, self.columns.index(self.motor)]
        words = self.command.split()
        return np.linspace(float(words[2]), float(words[3]), int(words[4]) + 1)[: len(self.table)]

    def readings(self, column: str) -> np.ndarray | None:
        """A column of the table, (point,), or None where there is none of that name."""
        return self.table[:, self.columns.index(column)] if column in self.columns else None


@dataclass
class _Section:
    """One scan of a file: where its line "#S" stands, and the motor names of the headers above it."""

    path: Path
    lines: list  # of the whole file
    start: int  # index of "#S" in them
    names: dict  # {n: full names of #On}
    mnemonics: dict  # {n: short names of #on}

    @property
    def head(self):
        return self.lines[self.start]

    def where(self, i):
        return f"{self.path}: line {i + 1}"


def parse_spec(paths: Iterable[Path | str], number: int | None = None) -> SpecScan:
    """Read scan ``number`` (or the only scan) from SPEC files; headers (#O lines) may be in a file of their own.

    Raises FileNotFoundError for a missing file, ValueError naming file and line for one that is cut off or not SPEC.
    """
    texts = [(path, _read_lines(path)) for path in map(Path, paths)]
    texts.sort(key=lambda text: any(line.startswith("#S ") for line in text[1]))  # headers alone come first
    found = [section for section in _sections(texts) if number in (None, _number(section.head))]
    if len(found) != 1:
        where = ", ".join(str(path) for path, _ in texts)
        what, hint = ("one scan", " (give its number)") if number is None else (f"scan {number} once", "")
        raise ValueError(f"{where}: expected {what}, got {len(found)}{hint}")
    return _parse_scan(found[0])


def _read_lines(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a SPEC file, got no such file")
    return path.read_text(errors="replace").splitlines()


def _sections(texts):
    """Every `_Section` of the files ``texts``, ((path, lines), ...)."""
    names, mnemonics = {}, {}
    for path, lines in texts:
        for i, line in enumerate(lines):
            head = re.match(r"#([Oo])(\d+)\s*(.*)", line)
            if head and head.group(1) == "O":
                names[int(head.group(2))] = re.split(r"\s{2,}", head.group(3).strip())
            elif head:
                mnemonics[int(head.group(2))] = re.split(r"\s+", head.group(3).strip())
            elif _number(line) is not None:
                yield _Section(path, lines, i, dict(names), dict(mnemonics))


def _number(line):
    """The scan's number of a line "#S number command", else None."""
    words = line.split(maxsplit=2) if line.startswith("#S ") else []
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _parse_scan(section):
    words = section.head.split(maxsplit=2)
    command = words[2].strip() if len(words) > 2 else ""
    scan = SpecScan(number=int(words[1]), command=command, motor="", columns=[], table=None)
    rows = []
    for i, line in enumerate(section.lines[section.start + 1 :], section.start + 1):
        if line.startswith(("#S ", "#F ")):
            break
        if line.startswith("#"):
            _read_header(scan, line, section, i)
        elif line.strip():
            rows.append(_read_row(line, len(scan.columns), section.where(i)))
    scan.table = np.array(rows, float).reshape(len(rows), len(scan.columns))
    scan.motor = _scanned_motor(scan, section)
    return scan


def _read_header(scan, line, section, i):
    """Take what a header line of a scan says into ``scan``."""
    place = re.match(r"#P(\d+)\s*(.*)", line)
    if place:
        positions = place.group(2).split()
        names = _motor_names(section, place.group(1), len(positions), i)
        scan.motors.update(zip(names, map(float, positions), strict=True))
    elif line.startswith("#UIMDET"):
        scan.detector = line.split(maxsplit=1)[1].strip().rstrip(":")
    elif line.startswith("#UIMR5"):
        scan.roi = tuple(int(v) for v in line.split()[1:5])
    elif line.startswith("#L"):
        scan.columns = re.split(r"\s{2,}", line[2:].strip())


def _motor_names(section, number, count, i):
    """The ``count`` names of header line #O``number``."""
    names = section.names.get(int(number))
    if names is None or len(names) != count:
        got = "no such line" if names is None else f"{len(names)} names"
        raise ValueError(f"{section.where(i)}: expected #O{number} with {count} motor names, got {got}")
    return names


def _read_row(line, count, where):
    """The ``count`` numbers of a line of the table."""
    values = line.split()
    if len(values) != count:
        raise ValueError(f"{where}: expected {count} columns, got {len(values)}; is the file cut off?")
    try:
        return [float(v) for v in values]
    except ValueError:
        raise ValueError(f"{where}: expected numbers, got {line[:40]!r}") from None


def _scanned_motor(scan, section):
    """Full name of the motor that the scan's command names by its mnemonic."""
    where, words = f"{section.path}: scan {scan.number}", scan.command.split()
    if len(words) < 5 or words[0] not in ("ascan", "dscan", "lup"):
        raise ValueError(f"{where}: expected ascan MOTOR START STOP INTERVALS TIME, got {scan.command!r}")
    full_names = {}
    for number, names in section.names.items():
        mnemonics = section.mnemonics.get(number, [])
        if len(names) == len(mnemonics):
            full_names.update(zip(mnemonics, names, strict=True))
    motor = full_names.get(words[1], words[1])
    if words[0] != "ascan" and motor not in scan.columns:
        raise ValueError(f"{where}: expected the column {motor} in a relative scan, got {scan.columns}")
    return motor
