"""Frames in tif files of every layout that detectors and their users' programs write, and what damaged ones say."""

import os
import struct

import numpy as np
import pytest

tifffile = pytest.importorskip("tifffile")

from pendel.io.tif_files import read_tif  # noqa: E402

LAYOUTS = {
    "plain": {},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
    "pages apart": {"contiguous": False},
    "deflate": {"compression": "zlib"},
    "deflate tiles": {"compression": "zlib", "tile": (16, 16), "bigtiff": True},
}
PACKED = {
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "predictor": {"compression": "zlib", "predictor": True},
}
TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "f4", "f8")


def frames(dtype, count=3):
    values = np.random.default_rng(0).integers(0, 100, (count, 40, 48))
    return (values - (30 if dtype[0] in "if" else 0)).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type(tmp_path, layout, dtype):
    data = frames(dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", **LAYOUTS[layout])
    read = read_tif(tmp_path / "a.tif")
    assert read.dtype == data.dtype and (read == data).all()


@pytest.mark.parametrize("dtype", ("u2", "i4", "f4"))
@pytest.mark.parametrize("layout", PACKED)
def test_packings_that_take_another_package(tmp_path, layout, dtype):
    pytest.importorskip("imagecodecs")
    data = frames(dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", **PACKED[layout])
    assert (read_tif(tmp_path / "a.tif") == data).all()


def test_a_missing_codec_is_named(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", frames("u2"), photometric="minisblack", compression="lzw")

    def missing(page):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    with pytest.raises(
        ImportError, match="a.tif: expected the package imagecodecs to unpack it; pip install imagecodecs"
    ):
        read_tif(tmp_path / "a.tif")


def test_signed_and_scaled_numbers_of_imagej(tmp_path):
    data = frames("i2")
    stored = (data.astype(np.int32) + 32768).astype(np.uint16)
    signed = {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "gray value"}
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata={"axes": "TYX", **signed})
    assert (read_tif(tmp_path / "a.tif") == data).all() and read_tif(tmp_path / "a.tif").dtype == np.int32
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata={"axes": "TYX", "cf": 0, "c0": 1.0, "c1": 0.5})
    assert read_tif(tmp_path / "a.tif") == pytest.approx(1 + 0.5 * stored)
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata={"axes": "TYX", "cf": 3, "c0": 1.0, "c1": 0.5})
    with pytest.raises(
        ValueError, match="page 0: expected counts or a linear calibration of them, got ImageJ's function 3"
    ):
        read_tif(tmp_path / "a.tif")


def test_thumbnails_are_passed_over(tmp_path):
    data = frames("u2", 2)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in data:
            file.write(frame, contiguous=False)
            file.write(frame[::4, ::4].astype(np.uint8), subfiletype=1, contiguous=False)
    assert (read_tif(tmp_path / "a.tif") == data).all()
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:  # not marked as one
        file.write(data[0], contiguous=False)
        file.write(data[0, ::4, ::4], contiguous=False)
    with pytest.raises(
        ValueError, match=r"b.tif: page 1: expected a frame of shape \(40, 48\) and uint16, got one of \(10"
    ):
        read_tif(tmp_path / "b.tif")


@pytest.mark.parametrize(
    "data, options, message",
    [
        (np.zeros((40, 48, 3), np.uint8), {"photometric": "rgb"}, "expected counts, got a picture in colours"),
        (np.zeros((40, 48), np.uint8), {"photometric": "miniswhite"}, "as they were read out, got white for 0"),
        (np.zeros((40, 48), np.uint16), {"extratags": [(274, 3, 1, 6, True)]}, "turned .orientation 6"),
        (np.zeros((40, 48), np.complex64), {}, "floats, got 64 bits of sample format 6"),
        (np.zeros((40, 48), bool), {}, "floats, got 1 bits"),
        (np.zeros((9, 40, 48), np.uint8), {"photometric": "minisblack", "metadata": {"axes": "ZYX"}, "truncate": True},
         "expected a page for every image of the stack, got 1"),
    ],
)  # fmt: skip
def test_pictures_that_are_no_frames_are_named(tmp_path, data, options, message):
    tifffile.imwrite(tmp_path / "a.tif", data, **({"photometric": "minisblack"} | options))
    with pytest.raises(ValueError, match=f"a.tif: page 0: .*{message}"):
        read_tif(tmp_path / "a.tif")


def directory(entries, following=0):
    """A classic little-endian tif whose only directory lies at byte 8; entries: (tag, type, count, value)."""
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", following)


def entries(width=4, rows=4, bits=16, strip=(8, 32), **more):
    told = {256: (4, 1, width), 257: (4, 1, rows), 258: (3, 1, bits), 259: (3, 1, 1), 262: (3, 1, 1)}
    told |= {273: (4, 1, strip[0]), 277: (3, 1, 1), 278: (4, 1, rows), 279: (4, 1, strip[1])} | more.get("tags", {})
    return [(tag, *value) for tag, value in sorted(told.items())]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "got a truncated or damaged one: an empty file"),
        (b"II*", "damaged one: one that begins"),
        (b"II+\0\x08\0\0\0", "damaged one: one that begins"),
        (b"II*\0\0\0\0\0", "damaged one: no page"),
        (b"II*\0\xff\xff\0\0", "damaged one: page 0: a directory beyond its end"),
        (directory(entries(), 8), "expected a list of pages, got one that leads in a circle"),
        (directory(entries(width=2**31, rows=2**31)), "4294967295|bytes for a frame of shape .2147483648, 2147483648"),
        (directory(entries(strip=(2**31, 32))), "page 0: not all of 1 strips or tiles are within it"),
        (directory(entries(strip=(0, 0))), "page 0: not all of 1 strips or tiles are within it"),
        (directory(entries(strip=(8, 8))), "page 0: 8 bytes for a frame of shape .4, 4"),
        (directory(entries(tags={273: (4, 2**30, 8)})), "page 0: tag 273 beyond its end"),
        (directory(entries(tags={999: (4, 2**32 - 1, 8)})), "page 0: tag 999 beyond its end"),
        (directory([(i, 3, 1, 0) for i in range(1100)]), "page 0: expected at most 1000 tags, got 1100"),
        (directory(entries(rows=0)), "page 0: "),
    ],
)
def test_files_that_declare_what_they_do_not_hold(tmp_path, content, message):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.tif: .*{message}"):
        read_tif(tmp_path / "a.tif")


def test_packed_zeros_that_fill_the_memory(tmp_path):
    content = bytearray(directory(entries(width=2**16, rows=2**15, bits=32, strip=(200, 100), tags={259: (3, 1, 8)})))
    (tmp_path / "a.tif").write_bytes(content + bytes(400))
    with pytest.raises(
        ValueError, match="a.tif: expected an array that its .* bytes in the file can hold, got one of 8 GiB"
    ):
        read_tif(tmp_path / "a.tif")


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(ValueError, match="pipe.tif: expected a tif file, got a named pipe"):
        read_tif(tmp_path / "pipe.tif")
    with pytest.raises(FileNotFoundError, match="none.tif: expected a tif file, got no such file"):
        read_tif(tmp_path / "none.tif")
