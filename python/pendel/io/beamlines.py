"""Beamlines: what reads the scans of each, by name.

How to add a beamline
---------------------
1. One file, such as ``aps_34idc.py``: a function ``read(path, *, ...)`` that gives a `pendel.io.Scan` of what a folder
   or file holds (`Reader`). Everything is SI and radians in the lab frame: z along the beam, y up, x = y x z. What the
   files do not say stays None, and the configuration completes it. ``scan.centre`` is the pixel that k_h hits;
   `pattern_centre` finds it where nothing else is known.
2. One line in `BEAMLINES`, before those that take any file or folder; its name is then a value of ``data.format``.
   ``recognises`` says which paths are its own, for ``data.format = "auto"``.

Another package registers a beamline of its own in its pyproject.toml; nothing changes here::

    [project.entry-points."pendel.beamlines"]
    id01 = "my_package.id01:BEAMLINE"      # BEAMLINE = Beamline(read_id01, recognises=is_id01)

A name of this package's own cannot be taken by another. Options of a reader are keywords with defaults. It gets those
that it declares by name: of a configuration ``data.scan``,
``data.dark``, ``data.whitefield`` and ``data.saturation``, ``data.external``, and whether rocking angles are
needed (``rocking``: they are not where [experiment] has them), whichever it has a use for.
"""

import inspect
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from ..base import checks
from .aps_34idc import read_34idc
from .array_files import is_array_file, read_array_scan
from .cxi_scans import read_scan
from .eiger import is_eiger, read_eiger
from .frames import mask_saturated
from .id01 import is_bliss, read_id01
from .scans import Scan

ENTRY_POINTS = "pendel.beamlines"


class Reader(Protocol):
    """What reads a scan. Its options are keywords with defaults, those of these that it has a use for.

    Parameters
    ----------
    path : folder or file.
    scan : number of the scan, where several are there; None: the only one.
    dark, whitefield : False leaves that correction of the detector out.
    saturation : counts, before any correction, at and above which a pixel is masked; to be declared by readers that
        correct counts.
    rocking : False where rocking angles are given elsewhere, and the reader's need not be there.
    external : "folder", or "anywhere" where links of HDF5 files may lead out of the folder of the file.

    Returns
    -------
    Scan : its mask holds what the detector is known to do wrong.

    Raises
    ------
    FileNotFoundError : for missing files.
    ValueError : naming the file, for damaged or contradicting ones.
    """

    def __call__(self, path: Path, /, *args: Any, **options: Any) -> Scan: ...


@dataclass(frozen=True)
class Beamline:
    """A `Reader`, and whether a path is its own; without ``recognises`` it is only used where it is named."""

    reader: Reader
    recognises: Callable[[Path], bool] | None = None

    def read(self, path: Path | str, **options: Any) -> Scan:
        """The scan in a folder or file; of ``options`` the reader gets those that it declares.

        Pixels from ``saturation`` on are masked here where the reader does not declare it.

        Raises as the reader does, TypeError where it gives something else than a `Scan`.
        """
        declared = inspect.signature(self.reader).parameters
        scan = self.reader(Path(path), **{key: value for key, value in options.items() if key in declared})
        if not isinstance(scan, Scan):
            raise TypeError(f"{self.reader!r}: expected a pendel.io.Scan of {path}, got {checks.describe(scan)}")
        scan.mask = checks.good_pixels(f"{path}: mask", scan.mask, scan.data.shape)
        saturation = options.get("saturation")
        return scan if saturation is None or "saturation" in declared else mask_saturated(scan, saturation)


def _is_no_folder(path):
    return not path.is_dir()


# Asked in this order whether they recognise a path: those that take any file or folder stand last.
BEAMLINES = {
    "array": Beamline(read_array_scan, recognises=is_array_file),
    "eiger": Beamline(read_eiger, recognises=is_eiger),
    "id01": Beamline(read_id01, recognises=is_bliss),
    "cxi": Beamline(read_scan, recognises=_is_no_folder),
    "34idc": Beamline(read_34idc, recognises=Path.is_dir),
}


def names() -> list[str]:
    """Names of all beamlines: of this package, then those that other packages registered."""
    return [*BEAMLINES, *_registered()]


def find(name: str, path: Path | str) -> Beamline:
    """The beamline of a name, or for "auto" the one that recognises a path.

    Other packages' beamlines are asked first whether they do; a UserWarning names broken ones, which are passed over.

    Raises
    ------
    ValueError : for unknown names, and naming the entry point where another package's beamline cannot be loaded.
    """
    if name == "auto":
        foreign = _recognising(Path(path))
        own = (b for b in BEAMLINES.values() if b.recognises is not None and b.recognises(Path(path)))
        return next(itertools.chain(foreign, own))
    checks.choice("beamline", name, ("auto", *names()))
    return BEAMLINES[name] if name in BEAMLINES else _load(name, _registered()[name])


def _registered() -> dict[str, EntryPoint]:
    """{name: entry point} of the beamlines that other packages registered; nothing of them is loaded yet."""
    found = sorted(entry_points(group=ENTRY_POINTS), key=lambda entry_point: entry_point.name)
    return {entry_point.name: entry_point for entry_point in found if entry_point.name not in ("auto", *BEAMLINES)}


def _recognising(path):
    """The beamlines of other packages that recognise a path."""
    for name, entry_point in _registered().items():
        try:
            beamline = _load(name, entry_point)
            if beamline.recognises is not None and beamline.recognises(path):
                yield beamline
        except Exception as error:  # whatever another package raises: it must not keep this one from reading
            warnings.warn(f"beamline {name!r} of {entry_point.value} was passed over: {error}", stacklevel=3)


def _load(name, entry_point):
    where = f"beamline {name!r}: expected a pendel.io.beamlines.Beamline at the entry point {entry_point.value}"
    try:
        beamline = entry_point.load()
    except Exception as error:  # whatever importing another package raises
        raise ValueError(f"{where}, got {type(error).__name__}: {error}") from error
    if not isinstance(beamline, Beamline):
        raise ValueError(f"{where}, got {checks.describe(beamline)}")
    return beamline
