"""What stands where a file is to be written, so that nothing is lost, and the files that an HDF5 file leads to."""

import gzip
import os
import re
import zlib
from pathlib import Path

import h5py

from ..base import files
from .hdf5_guard import GuardedFile
from .hdf5_links import folders_of, places_of

RESULT, SCAN, SIMULATED, CHECKPOINT, PICTURE = "result", "scan", "simulated scan", "checkpoint", "picture"
SUMMARY = "summary"  # of a campaign
FOREIGN = "HDF5 file"  # none of pendel, or one that cannot be read
OTHER = "other file"
CHECKPOINTS = ("pendel_checkpoint", "pendel_multiscale")  # attributes of the root; the second: of older ones
# What only simulated scans hold; the second: of older ones.
TRUTHS = ("entry_1/data_1/process_1/extra/truth", "entry_1/data_1/process_1/configuration/extra/truth")
_MADE_BY_PENDEL = re.compile(rb"pendel \d")  # in the metadata that `pendel.analysis.plot.save` writes
SUMMARY_HEAD, SUMMARY_MAKER = b"configuration,scan,state,", b'content="pendel batch '  # of a table, and of a page
_GZIP = b"\x1f\x8b"
LARGEST_PICTURE = 1 << 26  # bytes
MOST_LINKS = 100_000  # of a file, followed; more are no measured scan


def kind_of(path: Path | str) -> str | None:
    """RESULT, SCAN, SIMULATED, CHECKPOINT, PICTURE, SUMMARY of pendel, FOREIGN, OTHER, or None: nothing there."""
    path = Path(path)
    if not files.is_regular(path):
        return OTHER if path.exists() else None
    try:
        if path.stat().st_size == 0:
            return None
        if not h5py.is_hdf5(path):
            return _kind_of_text(path)
    except (OSError, EOFError, zlib.error):
        return OTHER
    try:
        return _kind_of_hdf5(path)
    except Exception:  # h5py lets all kinds through; a file that another program writes cannot be opened
        return FOREIGN


def _kind_of_hdf5(path):
    with GuardedFile(path) as file:
        if any(name in file.attrs for name in CHECKPOINTS):
            return CHECKPOINT
        creator = file.attrs.get("creator")
        if (creator.decode(errors="replace") if isinstance(creator, bytes) else creator) != "pendel":
            return FOREIGN
        if "entry/summary" in file:
            return SUMMARY
        if "entry_1/image_1" in file:
            return RESULT
        return SIMULATED if any(truth in file for truth in TRUTHS) else SCAN


def _kind_of_text(path):
    if path.stat().st_size > LARGEST_PICTURE:
        return OTHER
    content = path.read_bytes()
    if content.startswith(_GZIP):
        with gzip.open(path) as file:
            content = file.read(LARGEST_PICTURE)
    if content.startswith(SUMMARY_HEAD) or SUMMARY_MAKER in content:
        return SUMMARY
    return PICTURE if _MADE_BY_PENDEL.search(content) else OTHER


def refuse_to_replace(path: Path | str, *kinds: str, name: str | None = None, hint: str | None = "force=True") -> None:
    """Raise FileExistsError where ``path`` is a file of no kind of these, which writing would lose.

    name : what the message begins with; None: the path.
    hint : what would have it replaced; None: nothing.
    """
    found = kind_of(path)
    if found is not None and found not in kinds:
        got = f"an {FOREIGN} of another program" if found == FOREIGN else f"a {found}" if found != OTHER else "another"
        wanted = "a new file" + (f", or an old {kinds[0]} of pendel to replace" if kinds else "")
        cure = "move it away" + (f", or give {hint}" if hint else "")
        raise FileExistsError(f"{name or path}: expected {wanted}, got {got}: {path}; {cure}")


def linked_files(path: Path | str) -> set[Path]:
    """Files that an HDF5 file leads to by external links, virtual datasets or external storage, and so on from there.

    Files that are not there or cannot be read lead nowhere.
    """
    found: set[Path] = set()
    waiting, folders = [Path(path)], folders_of(path)
    while waiting and len(found) < MOST_LINKS:
        for other in _links_of(waiting.pop(), folders):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _links_of(path, folders):
    """The files that are named in one HDF5 file, beside it, in ``folders`` and, for HDF5, where the process is."""
    if not (files.is_regular(path) and h5py.is_hdf5(path)):
        return set()
    names = set()
    try:
        with GuardedFile(path) as file:
            _collect(file, names)
    except Exception:  # h5py lets all kinds through; what could be read of it is known
        pass
    places = set()
    for name in names:
        # the blocks of a virtual dataset may be numbered
        pattern = re.sub(r"%\d*[bd]", "*", name)
        for folder in {*folders_of(path), *folders, Path()}:
            if "*" in pattern and not os.path.isabs(name):
                places |= set(folder.glob(pattern))
            else:
                places |= set(map(Path, places_of(name, folder)))
    return {place for place in places if files.is_regular(place)}


def _collect(file, names):
    """Add the names of other files in ``file``; each object once, however many links lead to it."""
    seen, waiting = set(), [file]
    while waiting and len(seen) < MOST_LINKS:
        group = waiting.pop()
        for key in group:
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                names.add(link.filename)
            if not isinstance(link, h5py.HardLink):
                continue
            item = group[key]
            if item.id in seen:
                continue
            seen.add(item.id)
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                names.update(source.file_name for source in (item.virtual_sources() if item.is_virtual else ()))
                names.update(name for name, *_ in item.external or ())
    names.discard(".")
