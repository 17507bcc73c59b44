"""A folder of detector frames, one file each, as beamlines and disks leave it: which files are frames, in what order,
and which are missing.

Passed over are hidden files (also "._x.tif" of other systems), folders, files of other kinds, and by their names dark
and white fields, masks, sums and thumbnails. Of the rest, those whose names differ in a number only are frames.
"""

import re
import stat
from pathlib import Path

import numpy as np

from ..base.reading import check_memory
from .tif_files import read_tif

SUFFIXES = (".tif", ".tiff")
# Words in the name of what lies beside frames and is none.
_OTHERS = {"dark", "darks", "darkfield", "white", "whitefield", "flat", "flats", "flatfield", "bkg", "background"}
_OTHERS |= {"mask", "badpixels", "hotpixels", "sum", "mean", "average", "avg", "max", "projection"}
_OTHERS |= {"thumb", "thumbs", "thumbnail", "preview", "icon"}
MOST_NAMED = 5  # missing frames named in a message


def find_frames(folder: Path, scan: int | None = None, *, gaps: bool = False) -> list[Path]:
    """The frames in a folder, in the order of their numbers.

    Parameters
    ----------
    folder : of one scan.
    scan : number of the scan; where the folder holds several, those whose names say "S0054" or "scan54" are taken.
    gaps : True: numbers may be left out.

    Raises
    ------
    FileNotFoundError : where there are none.
    ValueError : where it cannot be told which files are the frames, and naming those that their numbers leave out.
    """
    images = [path for path in sorted(folder.iterdir()) if _is_image(path)]
    words = {path: set(re.split(r"[^a-z]+", path.stem.lower())) - {""} for path in images}
    # A sample may be called "flat": where nothing else is there, it is the scan.
    kept = [path for path in images if not words[path] & _OTHERS] or [p for p in images if words[p] - _OTHERS]
    groups: dict[str, list[Path]] = {}
    for path in kept:
        groups.setdefault(_skeleton(path.name), []).append(path)
    if not groups:
        passed = f"; {images[0].name} is none by its name" if images else ""
        raise FileNotFoundError(f"{folder}: expected *_raw_counts.npz or .tif frames, got neither{passed}")
    paths = _of_scan(_only_group(folder, groups), scan)
    numbers = _frame_numbers(paths)
    if numbers is None:
        _check_repeats(folder, paths)
        return sorted(paths, key=lambda path: _digits(path.name))
    order = np.argsort(numbers, kind="stable")
    paths = [paths[i] for i in order]
    if not gaps:
        _check_gaps(folder, paths, numbers[order])
    return paths


def read_frames(folder: Path, paths: list[Path]) -> np.ndarray:
    """The frames (frame, row, col) of files of one page or several.

    Raises as `read_tif` does, ValueError naming the file whose frames are of another shape or type.
    """
    first = read_tif(paths[0])
    check_memory(str(folder), len(paths) * first.nbytes, sum(path.stat().st_size for path in paths))
    stacks = [first]
    for path in paths[1:]:
        stack = read_tif(path)
        if stack.shape[1:] != first.shape[1:] or stack.dtype != first.dtype:
            raise ValueError(
                f"{path}: expected a frame of shape {first.shape[1:]} and {first.dtype} as in {paths[0].name}, got "
                f"{stack.shape[1:]} and {stack.dtype}"
            )
        stacks.append(stack)
    data = np.empty((sum(map(len, stacks)), *first.shape[1:]), first.dtype)
    done = 0
    while stacks:  # each is let go when it is copied
        stack = stacks.pop(0)
        data[done : done + len(stack)] = stack
        done += len(stack)
    return data


def name_missing(paths: list[Path], count: int) -> str:
    """What a scan of ``count`` frames would have beside ``paths``, for a message; "" where names do not number them."""
    numbers = _frame_numbers(paths)
    missing = count - len(paths)
    if numbers is None or missing < 1:
        return ""
    first, last = int(numbers.min()), int(numbers.max())
    after = _names(paths, range(last + 1, last + 1 + missing))
    before = f" or {_names(paths, range(max(0, first - missing), first))}" if first else ""
    return f" from {paths[0].name} to {paths[-1].name}, without {after}{before}"


def _is_image(path):
    # What is neither file nor folder, such as a pipe, is refused by its name when it is read.
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES and not stat.S_ISDIR(_mode(path))


def _mode(path):
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _digits(name):
    """A name as texts and numbers, to be sorted by."""
    return [(1, int(part), "") if part.isdecimal() and part.isascii() else (0, 0, part) for part in _parts(name)]


def _parts(name):
    return re.split(r"([0-9]+)", name)


def _skeleton(name):
    """A name without its numbers and capitals."""
    return re.sub(r"[0-9]+", "#", name.lower())


def _only_group(folder, groups):
    """The files of the group that is the scan: the only one, or the only one with several files."""
    several = [paths for paths in groups.values() if len(paths) > 1]
    if len(groups) == 1 or not several:
        # Names without numbers: every file is a frame.
        return [path for paths in groups.values() for path in paths]
    if len(several) == 1:
        return several[0]
    listed = ", ".join(f"{len(paths)} like {paths[0].name}" for paths in several[:4])
    raise ValueError(f"{folder}: expected the frames of one scan, got files of several kinds: {listed}")


def _of_scan(paths, scan):
    """Those of ``paths`` that name the scan, where only some do."""
    if scan is None:
        return paths
    named = [path for path in paths if re.search(rf"(?:^|[^a-zA-Z])(?:S|scan)[_-]?0*{scan}(?![0-9])", path.name, re.I)]
    return named or paths


def _number_table(paths):
    """(file, which number of its name), float64; numbers of more than 15 digits are rounded."""
    return np.array([[float(part[:300]) for part in _parts(path.stem)[1::2]] for path in paths]).reshape(len(paths), -1)


def _frame_numbers(paths):
    """The number (file,) by which the names tell the frames apart, or None where none does."""
    table = _number_table(paths) if len({_skeleton(path.name) for path in paths}) == 1 else np.empty((len(paths), 0))
    telling = [column for column in table.T if len(np.unique(column)) == len(column)]
    # Of several, such as a number and a time, that which counts.
    return min(telling, key=np.ptp, default=None)


def _check_repeats(folder, paths):
    """ValueError naming two files of one frame."""
    seen = {}
    for path in paths:
        other = seen.setdefault(tuple(_digits(path.name.lower())), path)
        if other is not path:
            raise ValueError(f"{folder}: expected one file for each frame, got {other.name} and {path.name}")


def _check_gaps(folder, paths, numbers):
    """ValueError naming the frames between the first and the last that are not there."""
    steps = np.diff(numbers)
    if not len(steps) or (steps == steps[0]).all():
        return
    step = int(steps.min())
    if (steps % step).any() or numbers[-1] - numbers[0] > 100 * step * len(numbers):
        return  # times or the like, no count
    missing = sorted(set(np.arange(numbers[0], numbers[-1], step).tolist()) - set(numbers.tolist()))
    raise ValueError(
        f"{folder}: expected all frames from {paths[0].name} to {paths[-1].name}, got none of "
        f"{_names(paths, missing)}; put them back, or read the rest as an array with its own angles "
        '(data.format = "array")'
    )


def _names(paths, numbers):
    """The names of frames of the given numbers, for a message."""
    table = _number_table(paths)
    own = _frame_numbers(paths)
    which = next(i for i, column in enumerate(table.T) if (column == own).all())
    parts = _parts(paths[0].name)
    place = 2 * which + 1
    width = len(parts[place])
    named = ["".join([*parts[:place], f"{int(n):0{width}d}", *parts[place + 1 :]]) for n in numbers[:MOST_NAMED]]
    more = len(numbers) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")
