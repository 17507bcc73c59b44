"""The table of a campaign: a row for every job, as summary.csv, summary.h5 and summary.html.

It is made of the jobs' records, so that it is the same whoever writes it, and is written anew after every job.
"""

import contextlib
import csv
import hashlib
import html
import io as text_io
import json
import math
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import io
from ..analysis.statistics import FULL, extent, strain_statistics
from ..base import files
from ..base.version import __version__
from ..io import hdf5, kinds
from .campaign import RESULT, Campaign, Job
from .errors import ConfigError
from .jobs import DONE, STALE, State
from .outputs import Written

WAIT = 30.0  # s for another that writes the table
NAMES = ("summary.csv", "summary.h5", "summary.html")


class Column(NamedTuple):
    """A column: its unit, and whether it holds numbers."""

    name: str
    unit: str = ""
    number: bool = True
    about: str = ""


HEAD = (
    Column("configuration", number=False),
    Column("scan", number=False),
    Column("state", number=False, about="new, interrupted, failed, running, done, stale"),
)
MEASURED = (
    Column("trust", number=False, about="verdict on the result, where its method gives one"),
    Column("misfit"),
    Column("held_out_misfit", about="of pixels that were not fitted"),
    Column("noise_misfit", about="of photon noise alone"),
    Column("strain_rms", about="of all these: voxels with |S| > 1/2"),
    Column("strain_min"),
    Column("strain_max"),
    Column("strain_unknown", about="part of the voxels whose strain is not known"),
    Column("phase_min_rad", "rad"),
    Column("phase_max_rad", "rad"),
    Column("displacement_min_pm", "pm", about="along h, modulo the lattice spacing"),
    Column("displacement_max_pm", "pm"),
    *(Column(f"size_{axis}_nm", "nm") for axis in "zyx"),
    *(Column(f"voxel_{axis}_nm", "nm") for axis in "zyx"),
    Column("voxels", about="of the crystal"),
    Column("epochs"),
    Column("reasons", number=False, about="for the trust"),
)
TAIL = (
    Column("seconds", "s", about="of all attempts since the job began anew"),
    Column("start", number=False, about="job whose crystal it began with"),
    Column("pendel", number=False, about="version that ran it"),
    Column("message", number=False, about="why it is not done"),
    Column("result", number=False, about="file, in the folder of the table"),
)
TAKEN = {"job", *(column.name for column in (*HEAD, *MEASURED, *TAIL))}


def row_of(path: Path) -> tuple[dict[str, Any], str]:
    """({name: number, text or None} of `MEASURED`, digest of the crystal) of a result. Raises OSError, ValueError."""
    stored = io.read_result(path)
    voxel, strain_map, phase, displacement = stored.voxel, stored.strain, stored.phase, stored.displacement
    if voxel is None or strain_map is None or phase is None or displacement is None:
        raise ValueError(f"{path}: expected a result of pendel, got one without voxel or maps")
    inside = np.abs(stored.S) > FULL
    row: dict[str, Any] = {"trust": stored.verdict, "reasons": stored.trust.removeprefix(f"{stored.verdict}: ")}
    row |= {"misfit": stored.misfit, "held_out_misfit": stored.metadata.get("free_misfit")}
    row |= {"noise_misfit": stored.noise_misfit, "epochs": stored.metadata.get("epochs"), "voxels": int(inside.sum())}
    strain = strain_statistics(stored.S, strain_map)
    row |= {"strain_rms": strain.rms, "strain_min": strain.least, "strain_max": strain.greatest}
    row["strain_unknown"] = strain.unknown
    for name, values, factor in (("phase_{}_rad", phase, 1), ("displacement_{}_pm", displacement, 1e12)):
        for word, of in (("min", np.min), ("max", np.max)):
            row[name.format(word)] = factor * float(of(values[inside])) if inside.any() else None
    for axis, size, step in zip("zyx", extent(stored.S, voxel), voxel, strict=True):
        row |= {f"size_{axis}_nm": 1e9 * size, f"voxel_{axis}_nm": 1e9 * step}
    arrays = [stored.S, *([] if stored.support is None else [np.packbits(stored.support)])]
    crystal = hashlib.blake2b(repr((stored.S.shape, voxel)).encode(), digest_size=16)
    for array in arrays:
        crystal.update(np.ascontiguousarray(array).tobytes())
    return {name: _plain(value) for name, value in row.items()}, crystal.hexdigest()


def _plain(value):
    """What JSON can hold; None for what is no number."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def columns_of(campaign: Campaign) -> list[Column]:
    """The columns of a campaign's table, labels among them. ConfigError for a label of another column's name."""
    labels = []
    for name in campaign.labels:
        if name in TAKEN:
            raise ConfigError(f"scans.labels.{name}: expected a name that is no column's, got {name!r}")
        values = [scan.labels[name] for scan in campaign.scans if name in scan.labels]
        labels.append(Column(name, number=all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)))
    return [*HEAD, *labels, *MEASURED, *TAIL]


def rows_of(campaign: Campaign, state: Callable[[Job], State]) -> Iterator[dict[str, Any]]:
    """A row for every job, in the campaign's order."""
    for job in campaign.jobs:
        word, why, record, _ = state(job)
        known = word in (DONE, STALE)
        row = {"configuration": job.configuration.name, "scan": job.scan.name, "state": word, **job.scan.labels}
        row |= record.get("row", {}) if known else {}
        row |= {"seconds": record.get("seconds"), "start": record.get("start"), "pendel": record.get("pendel")}
        row["message"] = why or ("" if known else record.get("message", ""))
        row["result"] = f"{job.name}{RESULT}" if known else ""
        yield row


def written(campaign: Campaign) -> list[Written]:
    """The files of the table."""
    return [Written("output", campaign.output / name, (kinds.SUMMARY,)) for name in NAMES]


def write(campaign: Campaign, state: Callable[[Job], State]) -> None:
    """Write the table, each file whole or not at all. RuntimeError where another writes it all the time."""
    with _claimed(campaign.output / NAMES[0]):
        columns, rows = columns_of(campaign), list(rows_of(campaign, state))
        files.write_whole(campaign.output / NAMES[0], _csv(columns, rows).encode(errors="surrogateescape"))
        _write_hdf5(campaign.output / NAMES[1], campaign, columns, rows)
        files.write_whole(campaign.output / NAMES[2], _html(campaign, columns, rows).encode(errors="replace"))


@contextlib.contextmanager
def _claimed(path):
    """The table for oneself, as soon as others leave it."""
    until = time.monotonic() + WAIT
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(files.claimed(path, "output"))
                break
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


def _csv(columns, rows):
    file = text_io.StringIO()
    names = [column.name for column in columns]
    table = csv.DictWriter(file, names, lineterminator="\n")
    table.writeheader()
    table.writerows({name: "" if row.get(name) is None else row[name] for name in names} for row in rows)
    return file.getvalue()


def _write_hdf5(path, campaign, columns, rows):
    with hdf5.replacing(path, kinds.SUMMARY, force=True) as file:  # what it replaces was looked at before
        file.attrs.update(default="entry", creator="pendel", NX_class="NXroot", file_time=hdf5.now())
        entry = hdf5.new_group(file, "entry", "NXentry")
        entry.attrs["default"] = "summary"
        entry["program_name"], entry["title"] = f"pendel {__version__}", campaign.path.name
        group = hdf5.new_group(entry, "summary", "NXdata")
        group.attrs.update(signal="strain_rms", axes=["job"])
        group["job"] = np.arange(1, len(rows) + 1)
        for column in columns:
            values = [row.get(column.name) for row in rows]
            if column.number:
                hdf5.put(group, column.name, np.array([np.nan if v is None else v for v in values], float), column.unit)
            else:
                text = ["" if v is None else _encodable(str(v)) for v in values]
                hdf5.put(group, column.name, np.array(text, dtype=str))
            if column.about:
                group[column.name].attrs["long_name"] = f"{column.name}: {column.about}"


def _encodable(text):
    """Names of files may hold what is no text."""
    return text.encode(errors="replace").decode().replace("\0", "")


def _html(campaign, columns, rows):
    template = resources.files(__package__).joinpath("summary.html").read_text(encoding="utf-8")
    pictures = [job.file(".png").exists() for job in campaign.jobs]
    contents = {
        "columns": [[column.name, column.unit, column.number, column.about] for column in columns],
        "rows": [[row.get(column.name) for column in columns] for row in rows],
        "pictures": [f"{job.name}.png" if there else "" for job, there in zip(campaign.jobs, pictures, strict=True)],
        "labels": [column.name for column in columns if column.name in campaign.labels and column.number],
        "written": hdf5.now(),
    }
    shown = json.dumps(contents).replace("<", "\\u003c")
    title = html.escape(f"{campaign.path.stem}")
    return (
        template.replace("{{title}}", title)
        .replace("{{made by}}", f"pendel batch {__version__}")
        .replace("{{data}}", shown)
    )
