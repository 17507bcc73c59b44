"""Nothing in an HDF5 file leads out of its folder, into a circle, or beyond all memory."""

import os
import subprocess
import sys
import time
import tracemalloc

import h5py
import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.io import kinds
from pendel.io.hdf5_guard import GuardedFile
from test_hdf5 import DATA, SHAPE, virtual, write


@pytest.fixture
def counts(rng):
    return rng.poisson(20, SHAPE).astype(np.int32)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside" / "scan.cxi"


@pytest.fixture
def secret(tmp_path, counts):
    write(tmp_path / "secret.h5", {"data": counts})
    os.mkfifo(tmp_path / "inside" / "pipe")
    os.symlink(tmp_path / "secret.h5", tmp_path / "inside" / "link.h5")
    return tmp_path / "secret.h5"


def test_nothing_outside_of_the_folder_is_read(path, secret):
    for name in (str(secret), "../secret.h5", "below/../../secret.h5", "link.h5", "/etc/passwd", "/dev/zero"):
        write(path, {DATA: h5py.ExternalLink(name, "/data")})
        with pytest.raises(ValueError, match="expected a link into the folder of the file, got one that leads out"):
            io.read_scan(path)
        virtual(path, [(name, "data", SHAPE, slice(None))])
        with pytest.raises(ValueError, match="expected a link into the folder of the file, got one that leads out"):
            io.read_scan(path)
    for name in ("pipe", str(path.with_name("pipe"))):
        write(path, {DATA: h5py.ExternalLink(name, "/data")})
        with pytest.raises(ValueError, match="pipe.*got a named pipe"):
            io.read_scan(path)
        virtual(path, [(name, "data", SHAPE, slice(None))])
        with pytest.raises(ValueError, match="pipe.*got a named pipe"):
            io.read_scan(path)


def test_what_is_outside_is_read_where_the_user_allows_it(path, secret, counts):
    for name in (str(secret), "../secret.h5", "link.h5"):
        for make in (
            lambda name: write(path, {DATA: h5py.ExternalLink(name, "/data")}),
            lambda name: virtual(path, [(name, "data", SHAPE, slice(None))]),
        ):
            make(name)
            with pytest.raises(ValueError, match="allow it with data.external, external='anywhere' in Python"):
                config.loads("").scan(path)
            assert (io.read_scan(path, external="anywhere").data == counts).all()
            made = config.loads('[data]\nexternal = "anywhere"\nformat = "cxi"')
            assert made.scan(path).data.sum() == counts.sum()
            assert secret.resolve() in {linked.resolve() for linked in kinds.linked_files(path)}  # no output
    write(path, {DATA: h5py.ExternalLink("pipe", "/data")})
    with pytest.raises(ValueError, match="pipe.*got a named pipe"):
        io.read_scan(path, external="anywhere")
    with pytest.raises(ValueError, match="external: expected one of 'folder', 'anywhere', got 'all'"):
        io.read_scan(path, external="all")
    with pytest.raises(config.ConfigError, match="data.external"):
        config.loads('data.external = "all"')


def test_a_scan_of_bliss_that_leads_out_of_its_folder_is_still_known(path, counts):
    with h5py.File(path.parent.parent / "raw.h5", "w") as file:
        file["1.1/measurement/mpx1x4"] = counts
    path = path.with_suffix(".h5")
    write(path, {"1.1": h5py.ExternalLink("../raw.h5", "/1.1")})
    with pytest.raises(ValueError, match="allow it with data.external"):
        config.loads("").scan(path)
    assert (config.loads('data.external = "anywhere"').scan(path).data == counts).all()


def test_one_file_does_not_stand_for_two_of_its_name(path, counts):
    """Absolute names of another machine are looked for beside the file: two of one base name are two files."""
    write(path.with_name("frames.h5"), {"data": counts, "mask": np.zeros(SHAPE, np.uint8)})
    mask = "entry_1/data_1/mask"
    write(path, {DATA: h5py.ExternalLink("/of/run1/frames.h5", "data"), mask: h5py.ExternalLink("frames.h5", "mask")})
    assert (io.read_scan(path).data == counts).all()
    names = {DATA: ("/of/run1/frames.h5", "data"), mask: ("/of/run2/frames.h5", "mask")}
    write(path, {name: h5py.ExternalLink(*there) for name, there in names.items()})
    with pytest.raises(ValueError, match="expected the file /of/run2/frames.h5, got .* stands for /of/run1/frames.h5"):
        io.read_scan(path)
    half = (SHAPE[0] // 2, *SHAPE[1:])
    write(path.with_name("frames.h5"), {"data": counts[: half[0]]})
    sources = [(f"/of/run{i + 1}/frames.h5", "data", half, slice(i * half[0], (i + 1) * half[0])) for i in range(2)]
    virtual(path, sources)
    with pytest.raises(ValueError, match=r"stands for /of/run[12]/frames.h5 already"):
        io.read_scan(path)


@pytest.mark.parametrize("read", [io.read_scan, io.read_result])
def test_pipes_and_devices_are_refused_at_once(path, secret, read):
    for name, kind in ((path.with_name("pipe"), "a named pipe"), ("/dev/zero", "a device"), ("/dev/stdin", "")):
        with pytest.raises((ValueError, OSError), match=f"{name}: expected a CXI/HDF5 file, got .*{kind}"):
            read(name)


def test_external_storage_is_refused_wherever_it_stands(path, counts):
    for name, shape, dtype in (
        ("entry_1/title", (1,), "S500"),
        ("entry_1/sample_1/name", (1,), "S500"),
        (DATA, SHAPE, "i4"),
        ("entry_1/data_1/mask", SHAPE, "u1"),
        ("entry_1/instrument_1/detector_1/distance", (1,), "f8"),
        ("entry_1/data_1/process_1/configuration/extra/note", (1,), "S500"),
        ("entry_1/sample_1/transformations/eta", (6,), "f8"),
    ):
        write(path, {"entry_1/detector_1/data": counts})
        with h5py.File(path, "a") as file:
            file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        with pytest.raises(ValueError, match=f"{name}.*: expected data inside of the HDF5 file, got external storage"):
            io.read_scan(path)


def test_datasets_mapped_onto_themselves_are_refused(path, counts):
    virtual(path, [(".", DATA, SHAPE, slice(None))])
    with pytest.raises(
        ValueError, match="expected a virtual dataset of other datasets, got one that is mapped onto it"
    ):
        io.read_scan(path)
    virtual(path.with_name("other.h5"), [(path.name, DATA, SHAPE, slice(None))], name="data")
    virtual(path, [("other.h5", "data", SHAPE, slice(None))])
    with pytest.raises(ValueError, match="got one that is mapped onto itself"):
        io.read_scan(path)


def test_declared_sizes_beyond_all_memory_are_refused_at_once(path, counts):
    start = time.perf_counter()
    for name, shape, dtype in (
        (DATA, (10**6, 10**5, 10**5), "i4"),
        ("entry_1/data_1/mask", (10**5, 10**5, 10**5), "u1"),
        ("entry_1/title", (10**6,), h5py.string_dtype()),
        ("entry_1/title", (), "S1000000000"),
        ("entry_1/control/data", (6, 10**6, 10**6), "f8"),
        ("entry_1/data_1/process_1/configuration/extra/a", (10**5, 10**5), "f8"),
    ):
        write(path, {"entry_1/image_1/data": counts})
        with h5py.File(path, "a") as file:
            file.create_dataset(name, shape, dtype, chunks=(1,) * len(shape) if len(shape) > 1 else None)
        if name != "entry_1/control/data":  # no readings of frames: passed over
            with pytest.raises(ValueError, match=f"scan.cxi: .*{name.rsplit('/', 1)[1]}.*: expected "):
                io.read_scan(path)
    assert time.perf_counter() - start < 5


def test_groups_without_an_end_are_refused(path, counts):
    extra = "entry_1/data_1/process_1/configuration/extra"
    write(path, {DATA: counts, f"{extra}/a": 1})
    with h5py.File(path, "a") as file:
        file[f"{extra}/again"] = file[extra]
    with pytest.raises(
        ValueError, match="extra.*: expected at most (32 groups in one another|10000 members), got more"
    ):
        io.read_scan(path)
    write(path, {DATA: counts, extra + "/a" * 500: 1})
    with pytest.raises(ValueError, match="expected at most 32 groups in one another, got more"):
        io.read_scan(path)
    deep = {"a": 1}
    for _ in range(20):
        deep = {"b": deep}
    io.write_scan(path.with_name("deep.cxi"), counts, distance=1, pixel_size=1e-5, wavelength=1e-10, extra=deep)
    assert io.read_scan(path.with_name("deep.cxi")).metadata == deep


HANGS = """import sys
from pathlib import Path
from pendel import io
from pendel.fit import checkpoint_file
from pendel.io import kinds
path = Path(sys.argv[1])
for read in (io.read_scan, io.read_result, lambda path: checkpoint_file.read(path, "reconstruct")):
    try:
        read(path)
    except (ValueError, OSError) as error:
        print(error)
print(kinds.kind_of(path), kinds.linked_files(path))
"""


@pytest.mark.parametrize("where", [0, 8, 16, 24, 40])
def test_a_heap_of_texts_that_came_back_as_zeros_does_not_hang(path, counts, where):
    """HDF5 goes round and round in it; so does whoever asks what a virtual dataset is made of."""
    write(path.with_name("part.h5"), {"frames": counts})
    virtual(path, [("part.h5", "frames", SHAPE, slice(None))])
    with h5py.File(path, "a") as file:
        file["entry_1/title"], file.attrs["creator"], file.attrs["pendel_checkpoint"] = "gold", "pendel", 2
        file.attrs["pendel_version"] = "1"
    content = bytearray(path.read_bytes())
    heaps = [i for i in range(len(content)) if content[i : i + 4] == b"GCOL"]
    assert heaps
    for heap in heaps:
        content[heap + 16 + where : heap + 4096] = bytes(4096 - 16 - where)
    path.write_bytes(content)
    found = subprocess.run([sys.executable, "-c", HANGS, path], env=environment(), capture_output=True, timeout=60)
    said = found.stdout.decode()
    assert found.returncode == 0 and said.count("with an object of no size, which HDF5") == 3, said + str(found)


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_a_heap_that_claims_all_memory_is_refused(path, counts):
    write(path, {DATA: counts, "entry_1/title": "gold"})
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 8 : heap + 16] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"scan.cxi: entry_1/title: .*byte {heap} that is larger than any"):
        io.read_scan(path)


def test_files_are_read_whole_through_the_guard(path, rng):
    """Also where a file begins with something else, and its numbers are shorter than usual."""
    for block, sizes in ((0, (8, 8)), (512, (4, 4)), (1024, (8, 8))):
        plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
        plist.set_userblock(block)
        plist.set_sizes(*sizes)
        data = rng.integers(0, 1 << 30, (7, 50, 60))
        with h5py.File(h5py.h5f.create(os.fsencode(path), fcpl=plist)) as file:
            file["a"], file["b"] = data, ["first", "second"]
            file.create_dataset("c", data=data, chunks=(1, 50, 60), compression="gzip")
        with GuardedFile(path) as file:
            assert (file["a"][()] == data).all() and (file["c"][2:4] == data[2:4]).all()
            assert file["b"].asstr()[()].tolist() == ["first", "second"] and file.filename == str(path)


def test_long_texts_where_a_flag_or_a_number_belongs_do_not_fill_memory_or_messages(path, counts):
    """100 texts of 100000 letters: as an array of NumPy they take 40 MB, as one message 10."""
    long = np.array([b"y" * 100000] * 100)
    write(path, {"entry_1/image_1/data": counts, "entry_1/image_1/is_fft_shifted": long})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected is_fft_shifted = 0 or 1, got 100 values"):
            io.read_scan(path)
        assert tracemalloc.get_traced_memory()[1] < 30e6  # the texts, once as bytes and once as text
    finally:
        tracemalloc.stop()
    write(path, {"entry_1/image_1/data": counts, "entry_1/image_1/is_fft_shifted": long[0]})
    with pytest.raises(ValueError, match="expected is_fft_shifted = 0 or 1, got 'y+") as error:
        io.read_scan(path)
    assert len(str(error.value)) < 300 + len(str(path))


def test_millions_of_chunks_that_were_never_written_are_refused_at_once(path):
    with h5py.File(path, "w") as file:
        file.create_dataset(DATA, (1000, 1000, 10), np.uint8, chunks=(1, 1, 1))[0, 0, 0] = 1
    start = time.process_time()
    with pytest.raises(ValueError, match="expected a dataset that was written, got one of 10000000 chunks, 1 of them"):
        io.read_scan(path)
    assert time.process_time() - start < 2  # HDF5 takes half a minute and 12 GB
