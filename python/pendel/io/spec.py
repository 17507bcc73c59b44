"""Reading SPEC scan files: motor positions, the scan's command and table, and areaDetector regions."""

import re
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

    def positions(self):
        """Positions of the scanned motor, (point,), as read back where the table has them, else as commanded."""
        if self.motor in self.columns:
            return self.table[:, self.columns.index(self.motor)]
        words = self.command.split()
        return np.linspace(float(words[2]), float(words[3]), int(words[4]) + 1)[: len(self.table)]


def parse_spec(paths, number=None):
    """Read scan ``number`` (or the only scan) from SPEC files; headers (#O lines) may be in a file of their own.

    Raises FileNotFoundError for a missing file, ValueError naming file and line for one that is cut off or not SPEC.
    """
    texts = []
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a SPEC file, got no such file")
        texts.append((path, path.read_text(errors="replace").splitlines()))
    texts.sort(key=lambda item: any(line.startswith("#S ") for line in item[1]))  # headers alone come first
    names, short, found = {}, {}, []
    for path, lines in texts:
        for i, line in enumerate(lines):
            head = re.match(r"#([Oo])(\d+)\s*(.*)", line)
            if head:
                words = re.split(r"\s{2,}" if head.group(1) == "O" else r"\s+", head.group(3).strip())
                (names if head.group(1) == "O" else short)[int(head.group(2))] = words
            elif line.startswith("#S "):
                words = line.split(maxsplit=2)
                if len(words) > 1 and words[1].isdigit() and number in (None, int(words[1])):
                    found.append((path, i, lines, dict(names), dict(short)))
    where = ", ".join(str(p) for p, _ in texts)
    if len(found) != 1:
        what = "one scan" if number is None else f"scan {number} once"
        raise ValueError(
            f"{where}: expected {what}, got {len(found)}" + (" (give its number)" if number is None else "")
        )
    return _parse_scan(*found[0])


def _parse_scan(path, start, lines, names, short):
    words = lines[start].split(maxsplit=2)
    scan = SpecScan(
        number=int(words[1]), command=words[2].strip() if len(words) > 2 else "", motor="", columns=[], table=None
    )
    rows = []
    for i, line in enumerate(lines[start + 1 :], start + 2):
        if line.startswith(("#S ", "#F ")):
            break
        place = re.match(r"#P(\d+)\s*(.*)", line)
        if place:
            known, values = names.get(int(place.group(1))), place.group(2).split()
            if known is None or len(known) != len(values):
                got = "no such line" if known is None else f"{len(known)} names"
                raise ValueError(
                    f"{path}: line {i}: expected #O{place.group(1)} with {len(values)} motor names, got {got}"
                )
            scan.motors.update(zip(known, map(float, values), strict=True))
        elif line.startswith("#UIMDET"):
            scan.detector = line.split(maxsplit=1)[1].strip().rstrip(":")
        elif line.startswith("#UIMR5"):
            scan.roi = tuple(int(v) for v in line.split()[1:5])
        elif line.startswith("#L"):
            scan.columns = re.split(r"\s{2,}", line[2:].strip())
        elif line.strip() and not line.startswith("#"):
            values = line.split()
            if len(values) != len(scan.columns):
                raise ValueError(
                    f"{path}: line {i}: expected {len(scan.columns)} columns, got {len(values)}; is the file cut off?"
                )
            try:
                rows.append([float(v) for v in values])
            except ValueError:
                raise ValueError(f"{path}: line {i}: expected numbers, got {line[:40]!r}") from None
    scan.table = np.array(rows, float).reshape(len(rows), len(scan.columns))
    words = scan.command.split()
    if len(words) < 5 or words[0] not in ("ascan", "dscan", "lup"):
        raise ValueError(
            f"{path}: scan {scan.number}: expected ascan MOTOR START STOP INTERVALS TIME, got {scan.command!r}"
        )
    pairs = {
        s: n for k in names if len(names[k]) == len(short.get(k, [])) for n, s in zip(names[k], short[k], strict=True)
    }
    scan.motor = pairs.get(words[1], words[1])
    if words[0] != "ascan" and scan.motor not in scan.columns:
        raise ValueError(
            f"{path}: scan {scan.number}: expected the column {scan.motor} in a relative scan, got {scan.columns}"
        )
    return scan
