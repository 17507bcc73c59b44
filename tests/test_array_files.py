"""Bare arrays: .npz as bcdi writes and PyNX reads it, .npy, masks, and files that are not what they say."""

import io as bytes_io
import os
import zipfile

import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.io.array_files import read_mask
from pendel.io.npy_files import open_arrays, read_array

SHAPE = (9, 12, 14)


def counts(dtype=np.float64):
    grids = np.indices(SHAPE) - np.array([4, 6, 7]).reshape(3, 1, 1, 1)
    return np.round(1e3 * np.exp(-sum(g**2 for g in grids) / 6)).astype(dtype)


def bad():
    mask = np.zeros(SHAPE, int)
    mask[:, 3, 4] = 1
    mask[2, 5, 5] = 1
    return mask


@pytest.fixture
def bcdi(tmp_path):
    """What `bcdi.preprocessing.analysis` saves: save_data and save_mask, with the names of process_scan."""
    np.savez_compressed(tmp_path / "S54_pynx_norm_9_12_14_1_1_1.npz", data=counts())
    np.savez_compressed(tmp_path / "S54_maskpynx_norm_9_12_14_1_1_1.npz", mask=bad())
    return tmp_path / "S54_pynx_norm_9_12_14_1_1_1.npz"


def test_bcdi_s_arrays_with_the_mask_beside_them(bcdi):
    scan = io.read_array_scan(bcdi)
    assert (scan.data == counts()).all() and scan.data.dtype == np.float32 and (scan.mask == (bad() == 0)).all()
    assert scan.energy is None and scan.arm is None and scan.rocking_angles is None
    other = bcdi.with_name("S54_pynx.npz")
    np.savez(other, data=counts())  # of another treatment: no mask of its own
    assert io.read_array_scan(other).mask.all()


def test_bcdi_s_mask_may_leave_few_pixels(bcdi):
    mask = np.ones(SHAPE, int)  # padded
    mask[3:6, 4:8, 4:8] = 0
    np.savez_compressed(bcdi.with_name("S54_maskpynx_norm_9_12_14_1_1_1.npz"), mask=mask)
    good = np.broadcast_to(io.read_array_scan(bcdi).mask, SHAPE)
    assert good.any() and not good[mask > 0].any()


def test_patterns_on_a_grid_in_reciprocal_space_are_refused(bcdi):
    q = np.linspace(0, 1, 9)
    np.savez_compressed(bcdi.with_name("QxQzQy_S54_norm_9_12_14_1_1_1.npz"), qx=q, qz=q, qy=q)
    with pytest.raises(ValueError, match="S54_pynx.*: expected the frames of a rocking scan, got a pattern on a grid"):
        io.read_array_scan(bcdi)
    np.savez(bcdi.with_name("all.npz"), data=counts(), qx=q, qy=q, qz=q)
    with pytest.raises(ValueError, match=r"all.npz: .* got a pattern on a grid in reciprocal space \(qx, qy, qz\)"):
        io.read_array_scan(bcdi.with_name("all.npz"))


def test_geometry_comes_from_the_configuration(bcdi):
    made = config.loads(
        f'[data]\npath = "{bcdi.name}"\n[experiment]\nenergy_keV = 9.0\ndistance_mm = 500.0\npixel_um = 55.0\n'
        "two_theta_deg = 34.0\nrocking_axis = 'y+'\nrocking_step_deg = 0.005\n",
        folder=bcdi.parent,
    )
    scan = made.scan()
    experiment = made.experiment(scan)
    assert experiment.n_frames == 9 and experiment.detector_shape == SHAPE[1:] and not scan.mask[0, 3, 4]


@pytest.mark.parametrize("dtype", ["u2", "u4", "i4", ">i4", "f4", ">f8", "i8"])
@pytest.mark.parametrize("suffix", ["npy", "npz", "NPZ"])
def test_types_and_names(tmp_path, dtype, suffix):
    path = tmp_path / f"a.{suffix}"
    data = np.asfortranarray(counts(dtype))
    with path.open("wb") as file:
        np.save(file, data) if suffix == "npy" else np.savez(file, iobs=data, mask=bad())
    scan = config.loads(f'[data]\npath = "{path}"').scan()
    assert (scan.data == counts()).all() and scan.mask.all() == (suffix == "npy")
    with path.open("wb") as file:
        np.save(file, data[None]) if suffix == "npy" else np.savez(file, data[..., None])  # the only one, arr_0
    assert (io.read_array_scan(path).data == counts()).all()


@pytest.mark.parametrize("value, dtype", [(np.nan, "f4"), (-1, "i4"), (65535, "u2"), (2**32 - 2, "u4")])
def test_what_is_no_count_is_masked(tmp_path, value, dtype):
    data = counts(dtype)
    data[:, 2] = value
    np.savez(tmp_path / "a.npz", data=data)
    scan = io.read_array_scan(tmp_path / "a.npz")
    assert not scan.mask[2].any() and scan.mask[3:].all() and scan.mask.shape == SHAPE[1:]
    assert scan.data[:, 2].max() == 0 and scan.metadata["masked_on_read"] == 9 * 14


def test_a_tif_with_a_page_for_each_frame(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "stack.tif", counts("u2"), photometric="minisblack")
    assert (config.loads(f'[data]\npath = "{tmp_path / "stack.tif"}"').scan().data == counts()).all()


@pytest.mark.parametrize("dtype", [bool, "u1", "i8", "i4"])
def test_masks_of_every_program(tmp_path, dtype):
    stored = (bad() == 0) if dtype is bool else bad().astype(dtype)
    np.savez(tmp_path / "mask.npz", mask=stored)
    np.save(tmp_path / "mask.npy", stored[0])
    np.savez(tmp_path / "hotpixels.npz", hotpixels=stored)
    assert (read_mask(tmp_path / "mask.npz") == (bad() == 0)).all()
    assert (read_mask(tmp_path / "hotpixels.npz") == (bad() == 0)).all()
    np.save(tmp_path / "data.npy", counts())
    made = config.loads('[data]\npath = "data.npy"\nmask = "mask.npy"', folder=tmp_path).scan()
    assert (made.mask == (bad()[0] == 0)).all()


def test_masks_that_are_none_are_named(tmp_path):
    np.save(tmp_path / "data.npy", counts())
    made = config.loads('[data]\npath = "data.npy"\nmask = "mask.npy"', folder=tmp_path)
    for mask, message in (
        (
            np.ones(SHAPE, int),
            "expected a mask whose integers are 0 where pixels are good, got 0% of them 0; save it as bool",
        ),
        (np.ones(SHAPE), r"expected a mask of bool \(True = good\) or integers \(0 = good\), got float64"),
        (np.zeros((3, 3), int), r"data.mask: expected shape \(9, 12, 14\) or \(12, 14\), got \(3, 3\)"),
    ):
        np.save(tmp_path / "mask.npy", mask)
        with pytest.raises(
            config.ConfigError, match=f"data.mask: .*{message}" if "data.mask" not in message else message
        ):
            made.scan()


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"obj": counts() + 0j}, "expected the frames of a rocking scan, got a result .obj"),
        ({"data": counts() + 1j}, "expected counts >= 0 .frame, row, col., got ndarray .*complex128"),
        ({"data": counts()[0]}, r"expected counts >= 0 .frame, row, col., got .*\(12, 14\)"),
        ({"a": counts(), "b": counts()}, "expected the array 'data' with the counts of a rocking scan, got a, b"),
        ({"data": counts(), "mask": np.zeros((3, 3), int)}, "expected a mask of shape"),
        ({"data": np.zeros((0, 3, 3))}, "expected counts >= 0"),
        (
            {"data": np.array([None])},
            "data: expected an array of numbers or text, got Python objects, which are not",
        ),
        ({"data": np.zeros(3, "M8[s]")}, "data: expected an array of numbers or text, got dtype datetime64"),
    ],
)
def test_archives_that_hold_no_scan_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=f"a.npz.*{message}"):
        io.read_array_scan(tmp_path / "a.npz")


class Unpickled:
    """Leaves a trace where it is loaded."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TRACE"],)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_never_loaded(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    path = tmp_path / f"a.{suffix}"
    value = np.array([Unpickled()], dtype=object)
    np.save(path, value, allow_pickle=True) if suffix == "npy" else np.savez(path, data=value)
    with pytest.raises(ValueError, match="got Python objects, which are not loaded"):
        io.read_array_scan(path)
    path.write_bytes(b"\x80\x04]\x94.")  # a pickle by itself
    with pytest.raises(ValueError, match="got a truncated or damaged file: one that begins"):
        io.read_array_scan(path)
    assert not (tmp_path / "trace").exists()


def header(shape, dtype="<f8"):
    """The begin of an .npy file, with nothing after it."""
    file = bytes_io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**6,) * 3, (2**62, 4), (-1, 3), (3,) * 70, (2**31, 2**31, 2**31)])
def test_declared_sizes_beyond_the_file(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(header(shape) + bytes(100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("data.npy", header(shape) + bytes(100))
    for suffix in ("npy", "npz"):
        with pytest.raises(ValueError, match=f"a.{suffix}: "):
            io.read_array_scan(tmp_path / f"a.{suffix}")


def test_archives_that_unpack_to_more_than_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("data.npy", "w") as file:
            file.write(header((75, 1024, 1024)))
            for _ in range(75):
                file.write(bytes(1 << 23))
    with pytest.raises(
        ValueError, match="a.npz: data: expected an array that its .* in the file can hold, got one of 600 MiB"
    ):
        io.read_array_scan(tmp_path / "a.npz")
    for packing in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", packing) as archive:
            archive.writestr("data.npy", header((2, 3, 4)) + bytes(192))
        with pytest.raises(ValueError, match="a.npz: data: .*damaged file .packing"):
            io.read_array_scan(tmp_path / "a.npz")


def test_archives_that_are_damaged(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", data=counts())
    whole = (tmp_path / "a.npz").read_bytes()
    for size in range(0, len(whole), 37):
        (tmp_path / "a.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="a.npz: expected an npz archive, got a truncated or damaged file"):
            read_array(tmp_path / "a.npz", "data")
    wrong = bytearray(whole)
    wrong[len(whole) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(wrong)
    with pytest.raises(ValueError, match="a.npz: data: expected an npz archive, got a truncated or damaged file"):
        read_array(tmp_path / "a.npz", "data")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("data.npy", header((1, 2, 3)) + bytes(100))
    with pytest.raises(ValueError, match="more bytes than its header declares"):
        read_array(tmp_path / "a.npz", "data")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i:020d}.npy", b"")
    with pytest.raises(ValueError, match="a.npz: expected an npz archive, got an archive whose list of files takes"):
        read_array(tmp_path / "a.npz", "data")


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="a.npz: expected an npz archive, got a named pipe"):
        io.read_array_scan(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="b.npy: expected an npy file, got no such file"):
        io.read_array_scan(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", counts())
    with open_arrays(tmp_path / "c.npy") as archive:
        assert archive.keys() == [""] and archive.shape("") == SHAPE
