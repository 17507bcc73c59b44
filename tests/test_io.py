"""CXI files: what is written comes back, other programs' files are read, and damaged files say what is wrong."""

import dataclasses
import os

import h5py
import numpy as np
import pytest
from pendel import io

SCAN = {"distance": 0.5, "pixel_size": 55e-6, "wavelength": 1.5e-10}


def small_scan(rng, **changes):
    fields = {"data": rng.poisson(5, (6, 8, 10)).astype(np.int32), **SCAN}
    fields |= {"rocking_angles": np.radians(np.arange(6) * 0.005 - 0.3), "centre": (2.5, 4.25, 5.0), "name": "gold"}
    return (
        fields
        | {"arm": (("y+", 0.55), ("x-", 0.22)), "extra": {"count_time": 0.25, "spec": {"number": 54, "text": "th"}}}
        | changes
    )


def test_a_written_scan_comes_back_bit_for_bit(tmp_path, rng):
    fields = small_scan(rng, mask=rng.random((8, 10)) > 0.2)
    io.write_scan(tmp_path / "a.cxi", **fields)
    scan = io.read_scan(tmp_path / "a.cxi")
    assert scan.data.dtype == np.int32 and (scan.data == fields["data"]).all()
    assert scan.mask.dtype == bool and (scan.mask == fields["mask"]).all()
    assert (scan.rocking_angles == fields["rocking_angles"]).all()
    assert scan.arm == fields["arm"] and scan.centre == fields["centre"] and scan.rocking_axis == "y+"
    assert scan.distance == 0.5 and scan.pixel_size == (55e-6, 55e-6) and scan.name == "gold"
    assert scan.wavelength == pytest.approx(1.5e-10, rel=1e-15)  # one division there and back
    assert scan.metadata == fields["extra"]


def test_frame_masks_and_a_general_rocking_axis_come_back(tmp_path, rng):
    mask = rng.random((6, 8, 10)) > 0.2
    data = rng.random((6, 8, 10)).astype(np.float32)
    io.write_scan(tmp_path / "a.cxi", **small_scan(rng, data=data, mask=mask, rocking_axis=(0.6, 0.0, 0.8)))
    scan = io.read_scan(tmp_path / "a.cxi")
    assert (scan.mask == mask).all() and (scan.data == data).all() and scan.rocking_axis == pytest.approx((0.6, 0, 0.8))


def test_scans_of_older_versions_keep_what_they_say(tmp_path, rng):
    fields = small_scan(rng)
    io.write_scan(tmp_path / "a.cxi", **fields)
    with h5py.File(tmp_path / "a.cxi", "a") as file:
        process = file["entry_1/data_1/process_1"]
        assert all(isinstance(item, h5py.Dataset) for item in process["configuration/geometry"].values())
        process.move("extra", "configuration/extra")
    assert io.read_scan(tmp_path / "a.cxi").metadata == fields["extra"]


def test_scan_files_have_the_paths_of_pynx(tmp_path, rng):
    fields = small_scan(rng, mask=np.arange(80).reshape(8, 10) > 3)
    io.write_scan(tmp_path / "a.cxi", **fields)
    with h5py.File(tmp_path / "a.cxi") as file:
        assert file["cxi_version"][()] == 140 and file.attrs["default"] == "entry_1"
        entry = file["entry_1"]
        assert (entry["data_1/data"][()] == fields["data"]).all()
        assert isinstance(entry["data_1"].get("data", getlink=True), h5py.SoftLink)
        detector = entry["instrument_1/detector_1"]
        assert detector["mask"].shape == fields["data"].shape and (detector["mask"][0] != 0).sum() == 4
        assert 1e-15 < entry["instrument_1/source_1/energy"][()] < 2e-15  # 8.27 keV in J
        theta = entry["sample_1/transformations/theta"]
        assert theta.attrs["units"] == "deg" and theta.attrs["transformation_type"] == "rotation"
        assert theta[()] == pytest.approx(np.arange(6) * 0.005 - 0.3, abs=1e-15)  # one rounding of 0.3 deg
        assert list(theta.attrs["vector"]) == [0, 1, 0] and list(entry["data_1"].attrs["axes"]) == ["theta", ".", "."]
        assert (entry["sample_1/rotation_angle"][()] == theta[()]).all()
        turn = entry["sample_1/geometry_1/orientation"][()]
        c, s = np.cos(fields["rocking_angles"][3]), np.sin(fields["rocking_angles"][3])
        assert turn == pytest.approx([c, 0, -s, 0, 1, 0], abs=1e-15)  # R_y(angle) x and y


def test_energies_in_electron_volts_and_wavelengths_alone_are_read(tmp_path):
    for write, expected in (
        ({"source_1/energy": 9000.0}, 9000 * 1.602176634e-19),
        ({"source_1/energy": 1.44e-15}, 1.44e-15),
        ({"beam_1/incident_wavelength": 1e-10}, 6.62607015e-34 * 299792458 / 1e-10),
        ({}, None),
    ):
        with h5py.File(tmp_path / "b.cxi", "w") as file:
            file["entry_1/data_1/data"] = np.ones((3, 4, 5), np.uint16)
            for key, value in write.items():
                file[f"entry_1/instrument_1/{key}"] = value
        scan = io.read_scan(tmp_path / "b.cxi")
        assert scan.data.dtype == np.int32 and scan.mask.all() and scan.rocking_angles is None
        assert scan.energy == (None if expected is None else pytest.approx(expected, rel=1e-14))
    with h5py.File(tmp_path / "b.cxi", "a") as file:
        file["entry_1/source_1/energy"] = 9.0
        file["entry_1/source_1/energy"].attrs["units"] = "keV"
    assert io.read_scan(tmp_path / "b.cxi").energy == pytest.approx(9000 * 1.602176634e-19, rel=1e-14)


def test_a_preprocessed_file_of_cdiutils_is_read(tmp_path):
    with h5py.File(tmp_path / "c.cxi", "w") as file:
        entry = file.create_group("entry_1")
        entry["image_1/data"] = np.ones((3, 4, 5))
        entry["detector_1/mask"] = np.eye(4, 5)
        entry["detector_1/calibration/distance"], entry["detector_1/calibration/pwidth1"] = 0.8, 55e-6
        entry["detector_1/calibration/pwidth2"] = 55e-6
        entry["geometry_1/angles/sample_outofplane_angle"] = [10.0, 10.1, 10.2]
        entry["source_1/energy"] = 9000.0
    scan = io.read_scan(tmp_path / "c.cxi")
    assert scan.distance == 0.8 and scan.pixel_size == (55e-6, 55e-6) and (~scan.mask).sum() == 4
    assert scan.rocking_angles == pytest.approx(np.radians([10, 10.1, 10.2]))


def test_negative_and_missing_counts_are_masked_and_counted(tmp_path):
    data = np.ones((3, 4, 5), np.float32)
    data[1, 2, 3], data[0, 0, 0] = -1e19, np.nan
    with h5py.File(tmp_path / "d.cxi", "w") as file:
        file["entry_1/data_1/data"] = data
        file["entry_1/data_1/mask"] = np.full((4, 5), 0x1000)  # "pixel has signal" is good
    scan = io.read_scan(tmp_path / "d.cxi")
    assert (~scan.mask).sum() == 2 and not scan.mask[1, 2, 3] and scan.data[1, 2, 3] == 0
    assert scan.metadata == {"masked_on_read": 2}


def a_result(rng):
    S = (rng.normal(size=(4, 5, 6)) + 1j * rng.normal(size=(4, 5, 6))).astype(np.complex64)
    return {
        "S": S, "voxel": (5e-9, 6e-9, 7e-9), "support": np.abs(S) > 0.5, "displacement": np.angle(S) * 1e-12,
        "strain": S.real * 1e-3, "wavelength": 1.5e-10, "k_0": np.array([1e10, 0, 2e10]), "k_h": np.array([0, 0, 3e10]),
        "frame": np.eye(3), "chi_0": -1e-5 + 1e-6j, "chi_h": 1e-5 - 1e-6j, "chi_hbar": 1e-5 - 1e-6j, "hkl": (1, 1, 1),
        "crystal": "Au", "polarization": {"sigma": 0.15, "pi": 0.85}, "loss": {"loss": [3.0, 2.0]},
        "scale": 12.5, "misfit": 0.01, "measured_frame": np.ones((8, 9)), "modelled_frame": np.ones((8, 9)) * 2,
        "frame_index": 3, "rocking_angles": np.arange(4) * 1e-4, "rocking_measured": np.arange(4.0),
        "rocking_modelled": np.arange(4.0) + 1, "config": "[recipe]\nepochs = 3\n", "name": "gold",
        "extra": {"epochs": 2},
    }  # fmt: skip


def test_a_written_result_comes_back(tmp_path, rng):
    fields = a_result(rng)
    io.write_result(tmp_path / "r.cxi", **fields)
    stored = io.read_result(tmp_path / "r.cxi")
    assert stored.S.dtype == np.complex64 and (stored.S == fields["S"]).all()
    assert (stored.support == fields["support"]).all() and stored.support.dtype == bool
    for key in ("k_0", "k_h", "frame", "measured_frame", "modelled_frame", "rocking_angles", "rocking_modelled"):
        assert (getattr(stored, key) == fields[key]).all(), key
    for key in (
        "voxel",
        "wavelength",
        "chi_0",
        "chi_h",
        "hkl",
        "crystal",
        "polarization",
        "scale",
        "misfit",
        "frame_index",
    ):
        assert getattr(stored, key) == fields[key], key
    for key in ("displacement", "strain"):
        assert (getattr(stored, key) == fields[key].astype(np.float32)).all(), key
    assert {k: list(v) for k, v in stored.loss.items()} == fields["loss"]
    assert stored.config == fields["config"] and stored.name == "gold" and stored.metadata == {"epochs": 2}
    assert (stored.h == fields["k_h"] - fields["k_0"]).all() and stored.version


def test_a_stored_result_is_written_as_its_fields_are(tmp_path, rng):
    fields = a_result(rng)
    io.write_result(tmp_path / "a.cxi", **fields)
    stored = io.StoredResult(**{k: v for k, v in fields.items() if k != "extra"}, metadata=fields["extra"])
    io.write_result(tmp_path / "b.cxi", stored)
    io.write_result(tmp_path / "c.cxi", io.read_result(tmp_path / "b.cxi"))  # what was read can be written
    one, *others = (vars(io.read_result(tmp_path / name)) for name in ("a.cxi", "b.cxi", "c.cxi"))
    for other in others:
        np.testing.assert_equal(other, one)
    with pytest.raises(TypeError, match="result: expected a StoredResult or its fields, got both and voxel"):
        io.write_result(tmp_path / "d.cxi", stored, voxel=(1e-9, 1e-9, 1e-9))
    with pytest.raises(TypeError, match="voxel: expected 3 numbers, got None"):
        io.write_result(tmp_path / "d.cxi", S=fields["S"])
    with pytest.raises(TypeError, match="write_result.* unexpected keyword argument 'suport'; did you mean 'support'"):
        io.write_result(tmp_path / "d.cxi", **fields, suport=None)
    with pytest.raises(TypeError, match="result: expected a StoredResult, or its fields from S on, got neither"):
        io.write_result(tmp_path / "d.cxi", voxel=(1e-9, 1e-9, 1e-9))


def test_every_stored_field_says_where_it_stands_and_what_it_is():
    places = [(f.metadata["group"], f.metadata["key"] or f.name) for f in dataclasses.fields(io.StoredResult)]
    assert len(set(places)) == len(places)
    for f in dataclasses.fields(io.StoredResult):
        assert f.metadata["about"] and f"{f.name} : {f.metadata['about']}" in io.StoredResult.__doc__


def test_result_files_have_the_paths_of_pynx_and_cdiutils(tmp_path, rng):
    fields = a_result(rng)
    io.write_result(tmp_path / "r.cxi", **fields)
    with h5py.File(tmp_path / "r.cxi") as file:
        entry = file["entry_1"]
        assert entry["image_1/data"].dtype == np.complex64 and (entry["data_1/data"][()] == fields["S"]).all()
        assert (entry["image_1/support"][()] == fields["support"]).all()
        assert entry["image_1/data_space"][()] == b"real" and entry["image_1/data_type"][()] == b"electron density"
        for title in ("amplitude", "phase", "displacement", "het_strain"):
            assert isinstance(entry.get(title, getlink=True), h5py.SoftLink)
            assert entry[title]["title"][()].decode() == title and entry[title]["data"].shape == fields["S"].shape
        assert entry["image_1/process_1/program"][()] == b"pendel"
        assert entry["process_1/configuration/chi_0"][()] == fields["chi_0"]


def test_pynx_results_with_a_leading_axis_of_modes_are_read(tmp_path, rng):
    S = (rng.normal(size=(2, 3, 4, 5)) + 1j).astype(np.complex64)
    with h5py.File(tmp_path / "m.cxi", "w") as file:
        file["entry_1/data_1/data"] = S
    stored = io.read_result(tmp_path / "m.cxi")
    assert (stored.S == S[0]).all() and stored.metadata == {"modes": 2}
    assert stored.support is None and stored.voxel is None and stored.h is None


@pytest.mark.parametrize("read", [io.read_scan, io.read_result])
def test_files_that_cannot_be_read_say_what_they_are(tmp_path, rng, read):
    with pytest.raises(FileNotFoundError, match="none.cxi: expected a CXI/HDF5 file, got no such file"):
        read(tmp_path / "none.cxi")
    with pytest.raises(IsADirectoryError, match="expected a CXI/HDF5 file, got a folder"):
        read(tmp_path)
    path = tmp_path / "a.cxi"
    path.write_text("hello, this is text")
    with pytest.raises(ValueError, match="a.cxi: expected a CXI/HDF5 file, got one that begins b'hello"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="got an empty file"):
        read(path)
    with h5py.File(path, "w") as file:
        file["entry_1/other"] = 1
    with pytest.raises(
        ValueError, match=r"expected the dataset entry_1/\w+_1/data, got a file without it; entry_1 holds other"
    ):
        read(path)
    io.write_scan(path, force=True, **small_scan(rng, data=rng.poisson(9, (40, 32, 32)), rocking_angles=None))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match="a.cxi: expected a CXI/HDF5 file, got a truncated or damaged one"):
        read(path)


def test_damage_inside_a_dataset_is_named(tmp_path, rng):
    path = tmp_path / "a.cxi"
    io.write_scan(path, **small_scan(rng, data=rng.poisson(9, (6, 32, 32))))
    with h5py.File(path) as file:
        place = file["entry_1/data_1/data"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged one: .*data cannot be read"):
        io.read_scan(path)


def test_wrong_content_is_named(tmp_path):
    path = tmp_path / "a.cxi"
    with h5py.File(path, "w") as file:
        file["entry_1/data_1/data"] = np.ones((3, 4))
    with pytest.raises(
        ValueError, match=r"entry_1/data_1/data: expected real intensities \(frame, row, col\), got .*\(3, 4\)"
    ):
        io.read_scan(path)
    with pytest.raises(ValueError, match=r"expected a complex crystal \(z, y, x\)"):
        io.read_result(path)
    with h5py.File(path, "w") as file:
        file["entry_1/data_1/data"], file["entry_1/data_1/mask"] = np.ones((3, 4, 5)), np.ones((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"data_1/mask: expected shape \(3, 4, 5\) or \(4, 5\), got \(4, 4\)"):
        io.read_scan(path)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"data": np.ones((3, 4))}, ValueError, "data: expected shape"),
        ({"data": -np.ones((6, 8, 10))}, ValueError, "data: expected counts >= 0, got -1"),
        ({"data": np.ones((6, 8, 10), complex)}, TypeError, "data: expected an array that converts to float32"),
        ({"wavelength": None}, ValueError, "wavelength, energy: expected exactly one of them, got none"),
        ({"energy": 1e-15}, ValueError, "wavelength, energy: expected exactly one of them, got both"),
        ({"distance": -1}, ValueError, "distance: expected a finite number > 0"),
        ({"pixel_size": (1e-6,) * 3}, ValueError, "pixel_size: expected 2 numbers, got 3"),
        ({"mask": np.ones((8, 9), bool)}, ValueError, "mask: expected shape"),
        ({"rocking_angles": np.zeros(5)}, ValueError, "rocking_angles: expected shape"),
        ({"rocking_axis": "q+"}, ValueError, "rocking_axis: expected an axis such as"),
        ({"extra": {"thing": object()}}, TypeError, "thing: expected numbers, text or a dict"),
    ],
)
def test_bad_arguments_are_named_and_leave_the_old_file(tmp_path, rng, changes, error, message):
    path = tmp_path / "a.cxi"
    io.write_scan(path, **small_scan(rng))
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        io.write_scan(path, **small_scan(rng, **changes))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.cxi"]


def test_a_missing_target_folder_is_named(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match="expected a file in an existing folder, got no folder"):
        io.write_scan(tmp_path / "none" / "a.cxi", **small_scan(rng))
    with pytest.raises(ValueError, match="support: expected shape"):
        io.write_result(tmp_path / "r.cxi", **(a_result(rng) | {"support": np.ones((2, 2, 2), bool)}))
