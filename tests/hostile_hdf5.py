"""Hostile HDF5 and CXI files, seeded, and what reading them must not do.

Run it for a long search: ``python tests/hostile_hdf5.py --count 5000 --seed 0``. Each file is read in a process of its
own kind, which is watched: whether it dies, how long it takes, how much memory it takes, whether something comes back
from outside of the file's folder, and whether an error names the file.
"""

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s
from kills import seconds_used

SECRET = 7654321  # counts and text of files outside of the folder
LONGEST = 5.0  # s of a processor for one file
ASLEEP = 0.02  # s of a processor in `LONGEST` s and more: it waits for something
SPARE = 256 << 20  # bytes beside the file's size
VALUES = ("entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/detector_1/distance", "entry_1/title")
VALUES += ("entry_1/instrument_1/detector_1/x_pixel_size", "entry_1/sample_1/name", "entry_1/control/data")
VALUES += ("entry_1/sample_1/transformations/theta", "entry_1/data_1/mask", "entry_1/image_1/is_fft_shifted")
VALUES += ("entry_1/data_1/process_1/configuration/geometry/arm_angles", "entry_1/process_1/configuration/voxel")
VALUES += ("entry_1/data_1/process_1/configuration/geometry/rocking_axis", "entry_1/result_1/history/loss")
VALUES += ("entry_1/data_1/process_1/configuration/geometry/arm_axes", "entry_1/result_1/point_spread")
VALUES += ("entry_1/data_1/process_1/extra/a", "entry_1/data_1/process_1/configuration/extra/a")
VALUES += ("entry_1/image_1/data_space", "entry_1/image_1/support")
VALUES += ("entry_1/geometry_1/angles/sample_outofplane_angle", "entry_1/geometry_1/sample_circles", "entry_1/phase")
FRAMES = ("entry_1/data_1/data", "entry_1/image_1/data", "entry_1/instrument_1/detector_1/data")


def make(path: Path, seed: int) -> str:
    """Write the hostile file of a seed, and return what was done to it."""
    rng = random.Random(seed)
    outside = path.parent.parent / "outside"
    kind = rng.choice(["bytes", "bytes", "bytes", "links", "storage", "virtual", "size", "depth", "values", "values"])
    _sound(path, rng)
    if kind == "bytes":
        return f"bytes: {_damage(path, rng)}"
    makers = {"links": _links, "storage": _storage, "virtual": _virtual, "size": _size, "depth": _depth}
    done = []
    with h5py.File(path, "a") as file:
        for _ in range(rng.choice([1, 1, 2, 4])):
            try:
                done.append(makers.get(kind, _value)(file, outside, rng))
            except (ValueError, TypeError, OSError, RuntimeError, KeyError) as error:  # what h5py will not write
                done.append(f"half of it ({error})"[:80])
    return f"{kind}: {'; '.join(done)}"


def outside_files(folder: Path) -> None:
    """What must not be read: beside the folder of the hostile files."""
    folder.mkdir()
    with h5py.File(folder / "secret.h5", "w") as file:
        file["data"] = np.full((6, 8, 10), SECRET, np.int32)
        file["text"] = f"secret {SECRET}"
    (folder / "secret.txt").write_text(f"{SECRET}" * 1000)
    os.mkfifo(folder / "pipe")


def _sound(path, rng):
    """A sound scan or result, written by pendel."""
    from pendel import io

    data = np.random.default_rng(rng.randrange(1 << 30)).poisson(20, (6, 8, 10)).astype(rng.choice(["u2", "i4", "f4"]))
    if rng.random() < 0.7:
        io.write_scan(
            path, data, distance=0.5, pixel_size=55e-6, wavelength=1.5e-10, rocking_angles=np.arange(6) * 1e-4,
            arm=(("y+", 0.5),), mask=data[0] >= 0, flux=np.ones(6), name="a", extra={"a": 1, "b": {"c": "text"}},
            force=True,
        )  # fmt: skip
    else:
        io.write_result(
            path, S=(data + 1j).astype(np.complex64), voxel=(1e-9,) * 3, support=data > 3, wavelength=1e-10,
            k_0=np.ones(3), k_h=np.ones(3), hkl=(1, 1, 1), loss={"loss": [2.0, 1.0]}, extra={"a": 1}, name="a",
            config="[recipe]\n", force=True,
        )  # fmt: skip


def _damage(path, rng):
    content = bytearray(path.read_bytes())
    what = rng.choice(["flip", "flip", "zeros", "copy", "cut", "noise"])
    for _ in range(rng.choice([1, 1, 3, 10, 100])):
        place, length = rng.randrange(len(content)), rng.choice([1, 4, 8, 64, 512])
        if what == "flip":
            content[place] ^= 1 << rng.randrange(8)
        elif what == "zeros":
            content[place : place + length] = bytes(len(content[place : place + length]))
        elif what == "copy":
            source = rng.randrange(len(content))
            content[place : place + length] = content[source : source + length]
        elif what == "noise":
            content[place : place + length] = rng.randbytes(len(content[place : place + length]))
    if what == "cut":
        content = content[: rng.randrange(len(content))]
    path.write_bytes(content)
    return what


def _free(file, path):
    """A path made free, with its group there; no link is followed, it may lead to a pipe."""
    *groups, name = path.split("/")
    parent = file["/"]
    for group in groups:
        if isinstance(parent.get(group, getlink=True, default=None), (h5py.SoftLink, h5py.ExternalLink)) or (
            group in parent and not isinstance(parent[group], h5py.Group)
        ):
            del parent[group]
        parent = parent.require_group(group)
    if parent.get(name, getlink=True, default=None) is not None:
        del parent[name]
    return parent, name


def _target(rng):
    return rng.choice(VALUES + FRAMES + FRAMES)


def _outside_name(outside, rng):
    name = rng.choice(["secret.h5", "secret.txt", "pipe"])
    return rng.choice([str(outside / name), f"../outside/{name}", "/etc/passwd", "/dev/zero", "/dev/stdin", "none.h5",
                       "", "x" * 300, "."])  # fmt: skip


def _links(file, outside, rng):
    path = _target(rng) if rng.random() < 0.7 else rng.choice(["entry_1", "entry_1/data_1", "entry_1/sample_1"])
    parent, name = _free(file, path)
    link = rng.choice([
        h5py.SoftLink(f"/{path}"), h5py.SoftLink("/"), h5py.SoftLink("."), h5py.SoftLink("/nothing"),
        h5py.SoftLink("/" + "a/" * 5000), h5py.ExternalLink(_outside_name(outside, rng) or "?", "/data"),
        h5py.ExternalLink(_outside_name(outside, rng) or "?", "/text"),
        h5py.ExternalLink(Path(file.filename).name, f"/{path}"),
    ])  # fmt: skip
    parent[name] = link
    return f"{path} -> {link!r}"[:120]


def _storage(file, outside, rng):
    path = _target(rng)
    parent, name = _free(file, path)
    source = _outside_name(outside, rng) or "?"
    shape, dtype = rng.choice([((6, 8, 10), "i4"), ((), "S2000"), ((6,), "f8"), ((), "f8"), ((6, 8, 10), "c8")])
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    parent.create_dataset(name, shape, dtype, external=[(source, 0, size)])
    return f"{path} in {source}"[:120]


def _virtual(file, outside, rng):
    path = rng.choice(FRAMES + ("entry_1/sample_1/transformations/theta",))
    parent, name = _free(file, path)
    shape = (6,) if "theta" in path else (6, 8, 10)
    plist = h5p.create(h5p.DATASET_CREATE)
    for _ in range(rng.choice([1, 1, 2, 5])):
        space, source = h5s.create_simple(shape), h5s.create_simple(rng.choice([shape, (3, *shape[1:])]))
        what = rng.choice(["itself", "itself", "outside", "part", "many", "strided"])
        if what in ("part", "many"):
            space.select_hyperslab((0,) * len(shape), (1,) * len(shape), None, (3, *shape[1:]))
        if what == "strided":
            space.select_hyperslab((0,) * len(shape), (3, *shape[1:]), (2,) + (1,) * (len(shape) - 1))
        try:
            filename = b"." if what == "itself" else os.fsencode(_outside_name(outside, rng) or "?")
            plist.set_virtual(space, filename, f"/{path}".encode() if what == "itself" else b"/data", source)
        except (ValueError, OSError, RuntimeError):
            pass
    plist.set_layout(h5d.VIRTUAL)
    try:
        h5d.create(parent.id, name.encode(), h5py.h5t.py_create(np.dtype("i4")), h5s.create_simple(shape), plist)
    except (ValueError, OSError, RuntimeError):
        parent[name] = 1
    return path


def _size(file, outside, rng):
    path = _target(rng)
    parent, name = _free(file, path)
    n = 10 ** rng.randrange(3, 7)
    shape = rng.choice([(n, n, n), (n, n, 10), (n,), (6, n, n)])
    dtype = rng.choice(["u2", "f8", "c8", "S100000", "u1", h5py.string_dtype()])
    what = rng.choice(["declared", "chunk", "bomb", "text"])
    if what == "declared":
        parent.create_dataset(name, shape, dtype, chunks=(1,) * len(shape) if rng.random() < 0.5 else None)
    elif what == "chunk":
        parent.create_dataset(name, (6, 8, 10), "u2", chunks=(6, 800, 100000), maxshape=(None,) * 3, compression="gzip")
        parent[name].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1000)))
    elif what == "bomb":
        parent.create_dataset(name, (300, 1000, 1000), "u2", chunks=(300, 1000, 1000), compression="gzip")
        parent[name].id.write_direct_chunk((0, 0, 0), _bomb())
    else:
        count, fill = rng.choice([(1, "x" * 10**5), (100, "x" * 10**5), (10**5, None)])
        parent.create_dataset(name, (count,), h5py.string_dtype(), fillvalue=fill)
        parent[name][0] = "y" * 10 ** rng.randrange(3, 8)
    return f"{path}: {what} {shape} {dtype}"


@functools.cache
def _bomb():
    """600 MB of zeros, packed by deflate: the same block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(600):
        check = zlib.adler32(bytes(10**6), check)
    return b"\x78\xda" + block * 600 + packer.flush() + check.to_bytes(4, "big")


def _depth(file, outside, rng):
    path = rng.choice(["entry_1/data_1/process_1/extra", "entry_1/process_1/configuration/extra"])
    parent, name = _free(file, path)
    group = parent.create_group(name)
    what = rng.choice(["deep", "circle", "wide"])
    if what == "deep":
        for _ in range(rng.choice([40, 2000])):
            group = group.create_group("a1")
    elif what == "circle":
        group["again"] = group
        group["and_again"] = file["/"]
    else:
        for i in range(rng.choice([100, 11000])):
            group[f"x{i}"] = h5py.SoftLink(f"/{path}") if rng.random() < 0.01 else file["cxi_version"]
    return f"{path}: {what}"


def _strange(rng):
    """A value of a kind that nobody expects."""
    compound = np.zeros(rng.choice([(), (6,)]), [("a", "i4"), ("b", "f8", (3,))])
    return rng.choice([
        np.nan, np.inf, -1.0, 0, 1e300, -(2**62), True, b"\xff\xfe\x00", "text", "", "y" * 70000, np.zeros((0, 3)),
        np.full((6, 8, 10), np.nan), np.zeros((6, 1)), np.zeros((1,) * 32), np.arange(6)[::-1] * 1e-3, compound,
        h5py.Empty("f8"), h5py.Empty("S10"), np.array([b"a", b"b"]), np.array(["y+", "x-"], h5py.string_dtype()),
        np.full((6, 8, 10), 1 + 1j), np.full((2, 6, 8, 10), 1j), np.array(1j), np.float16(2), np.longdouble(1) / 3,
        np.array([[1, 2], [3, 4]]), np.uint64(2**64 - 1), np.full((6, 8, 10), 2**64 - 1, np.uint64), np.void(b"abc"),
        np.full((6, 8, 10), np.finfo("f8").max), np.zeros((6, 8, 10), bool), np.full((1, 6, 1, 8, 10), 3, "u1"),
    ])  # fmt: skip


def _value(file, outside, rng):
    path = _target(rng)
    parent, name = _free(file, path)
    what = rng.choice(["value", "value", "value", "attribute", "group", "type", "reference", "sequence"])
    if what == "group":
        parent.create_group(name).create_group("data")
    elif what == "type":
        parent[name] = np.dtype(rng.choice(["f8", "S3"]))
    elif what == "reference":
        parent.create_dataset(name, (6,), h5py.ref_dtype)
    elif what == "sequence":
        parent.create_dataset(name, (6,), h5py.vlen_dtype("f8"))
    else:
        parent[name] = _strange(rng)
    if what == "attribute" or rng.random() < 0.3:
        key = rng.choice(
            ["units", "unit", "vector", "transformation_type", "depends_on", "is_fft_shifted", "data_space"]
        )
        try:
            parent[name].attrs[key] = _strange(rng)
        except (OSError, RuntimeError, TypeError):
            parent[name].attrs[key] = "furlong"
    return f"{path}: {what}"


def judge(path: Path, read) -> str:
    """ "" where reading ``path`` did nothing wrong, else what."""
    try:
        found = read(path)
    except (ValueError, TypeError, OSError) as error:
        if str(path) not in str(error):
            return f"an error that does not name the file: {type(error).__name__}: {error}"
        return "the secret in an error" if f"secret {SECRET}" in str(error) else ""
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "a value from outside" if str(SECRET) in _all_of(found) else ""


def _all_of(found):
    """Text in which every value of an object stands."""
    parts = []
    for value in vars(found).values():
        several = isinstance(value, np.ndarray)
        parts.append(str(np.unique(value)[-3:].tolist()) if several and value.size else repr(value)[:100000])
    return " ".join(parts)


def _peak():
    """Most memory taken since the last question, bytes; asks Linux."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def worker(folder: Path, first: int, count: int) -> None:
    """Make and read files, a line of JSON for each: before it, and after."""
    import warnings

    from pendel import io
    from pendel.io import beamlines

    warnings.simplefilter("ignore")
    reads = {
        "scan": io.read_scan, "result": io.read_result,
        "auto": lambda path: beamlines.find("auto", path).read(path),
    }  # fmt: skip
    path = folder / "inside" / "hostile.cxi"
    for seed in range(first, first + count):
        done = make(path, seed)
        for name, read in reads.items():
            print(json.dumps({"seed": seed, "what": f"{name}, {done}"}), flush=True)
            _peak()
            before, start = _peak(), time.process_time()
            wrong = judge(path, read)
            took, taken = time.process_time() - start, _peak() - before
            if taken > path.stat().st_size + SPARE:
                wrong += f" {taken >> 20} MiB of memory"
            print(json.dumps({"wrong": wrong, "took": took, "memory": taken}), flush=True)


def search(count: int, seed: int) -> dict:
    """Read ``count`` hostile files from ``seed`` on. {"files", "wrong": [...], "slowest" (s), "memory" (bytes)}."""
    found = {"files": 0, "wrong": [], "slowest": 0.0, "memory": 0}
    last = seed + count
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "inside").mkdir()
        outside_files(Path(folder) / "outside")
        while seed < last:
            seed = _watch(Path(folder), seed, last, found)
    found["files"] = count
    return found


def _watch(folder, first, last, found):
    """Let a worker do its files; returns the seed to go on with."""
    arguments = [sys.executable, __file__, "--worker", str(folder), "--seed", str(first), "--count", str(last - first)]
    at = {"seed": first, "what": "start"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        timer = _Timer(process)
        for line in process.stdout:
            timer.restart()
            said = json.loads(line)
            if "seed" in said:
                at = said
            else:
                if at["seed"] % 500 == 0 and at["what"].startswith("auto"):
                    print(f"seed {at['seed']}: {len(found['wrong'])} wrong so far", file=sys.stderr, flush=True)
                found["slowest"] = max(found["slowest"], said["took"])
                found["memory"] = max(found["memory"], said["memory"])
                if said["wrong"]:
                    _note(found, at, said["wrong"])
        timer.stop()
        status, errors = process.wait(), process.stderr.read()
    if status == 0:
        return last
    how = "too long" if timer.ended else f"ended with {status}: {errors[-300:]}"
    _note(found, at, how)
    return at["seed"] + 1


def _note(found, at, how):
    found["wrong"].append(f"seed {at['seed']}, {at['what']}: {how}")
    print(found["wrong"][-1], file=sys.stderr, flush=True)


class _Timer:
    """Ends a process that says nothing for too long: of a processor's time, or asleep."""

    def __init__(self, process):
        self.process, self.ended, self.timer = process, False, None
        self.restart(300)  # its imports

    def restart(self, seconds=LONGEST * 20):
        self.begin = seconds_used(self.process.pid)
        self._wait(seconds)

    def _wait(self, seconds):
        self.stop()
        self.before = seconds_used(self.process.pid)
        self.timer = threading.Timer(seconds, self.look)
        self.timer.start()

    def look(self):
        used = seconds_used(self.process.pid)
        if used - self.begin > LONGEST or used - self.before < ASLEEP:
            self.end()
        else:
            self._wait(LONGEST)

    def stop(self):
        if self.timer is not None:
            self.timer.cancel()

    def end(self):
        self.ended = True
        self.process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return worker(given.worker, given.seed, given.count)
    found = search(given.count, given.seed)
    print(
        f"{found['files']} files from seed {given.seed}: {len(found['wrong'])} wrong, "
        f"slowest {found['slowest']:.2f} s, most memory {found['memory'] >> 20} MiB"
    )
    return bool(found["wrong"])


if __name__ == "__main__":
    sys.exit(main())
