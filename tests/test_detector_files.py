"""Files of detectors and beamlines, made as their software makes them."""

import h5py
import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.base.constants import ELECTRONVOLT
from pendel.io import beamlines, detector_mounting

SHAPE = (6, 20, 24)
SCAN = np.linspace(10.0, 10.1, 6)


@pytest.fixture
def counts(rng):
    counts = rng.poisson(1, SHAPE).astype(np.uint32)
    counts[3, 12, 15] = 500
    counts[:, 5] = 2**32 - 1
    return counts


def master_file(folder, counts, files=2):
    """A master file of Dectris and its data files (SIMPLON, file writer format 1.6): bitshuffle and lz4."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    per_file = -(-len(counts) // files)
    with h5py.File(folder / "au_7_master.h5", "w") as master:
        entry = master.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        detector = entry.create_group("instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        for name, value, unit in (
            ("x_pixel_size", 7.5e-5, "m"), ("y_pixel_size", 7.5e-5, "m"), ("detector_distance", 0.9, "m"),
            ("beam_center_x", 11.0, "pixel"), ("beam_center_y", 9.0, "pixel"), ("count_time", 1.0, "s"),
        ):  # fmt: skip
            detector[name] = np.float32(value)
            detector[name].attrs["units"] = np.bytes_(unit)
        detector["description"] = np.bytes_("Dectris EIGER2 Si 1M")
        detector["detectorSpecific/photon_energy"] = np.float32(9000.0)
        detector["detectorSpecific/photon_energy"].attrs["units"] = np.bytes_("eV")
        mask = np.zeros(SHAPE[1:], np.uint32)
        mask[0, 0], mask[1, 1] = 1, 1 << 12
        detector["detectorSpecific/pixel_mask"] = mask
        goniometer = entry.create_group("sample/goniometer")
        for name, value in (("omega", SCAN), ("omega_end", SCAN + 0.02), ("chi", np.zeros(6)), ("phi", np.zeros(6))):
            goniometer[name] = value.astype(np.float32)
            goniometer[name].attrs["units"] = np.bytes_("degree")
        goniometer["omega_range_average"] = np.float32(0.02)
        for i in range(files):
            name = f"au_7_data_{i + 1:06d}.h5"
            entry[f"data/data_{i + 1:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
            part = counts[i * per_file : (i + 1) * per_file]
            with h5py.File(folder / name, "w") as file:
                item = file.create_dataset(
                    "entry/data/data", data=part, chunks=(1, *SHAPE[1:]), **hdf5plugin.Bitshuffle(cname="lz4")
                )
                item.attrs.update(image_nr_low=i * per_file + 1, image_nr_high=i * per_file + len(part))
    return folder / "au_7_master.h5"


def test_an_eiger_master_file_and_its_data_files(tmp_path, counts):
    path = master_file(tmp_path, counts)
    assert beamlines.find("auto", path) is beamlines.BEAMLINES["eiger"]
    scan = beamlines.find("auto", path).read(path)
    good = counts < 2**31
    good[:, [0, 1], [0, 1]] = False
    assert (np.broadcast_to(scan.mask, SHAPE) == good).all() and (scan.data[good] == counts[good]).all()
    assert scan.energy == pytest.approx(9000 * ELECTRONVOLT) and scan.distance == pytest.approx(0.9)
    assert scan.pixel_size == pytest.approx((75e-6, 75e-6))
    assert np.degrees(scan.rocking_angles) == pytest.approx(SCAN, abs=1e-6)  # float32
    assert scan.metadata["direct_beam"] == [9, 11] and scan.metadata["detector"] == "Dectris EIGER2 Si 1M"

    (tmp_path / "au_7_data_000002.h5").unlink()
    with pytest.raises(FileNotFoundError, match="au_7_master.h5: .*the file au_7_data_000002.h5"):
        io.read_eiger(path)


def bliss_file(folder, counts, **changes):
    """A file of BLISS at ID01: a virtual dataset of LIMA files, counters and positioners."""
    for i, part in enumerate((counts[:4], counts[4:])):
        (folder / "scan0007").mkdir(exist_ok=True)
        with h5py.File(folder / "scan0007" / f"eiger2M_{i:04d}.h5", "w") as file:
            file.create_dataset("entry_0000/measurement/data", data=part, chunks=(1, *SHAPE[1:]), compression="gzip")
    layout = h5py.VirtualLayout(shape=counts.shape, dtype=counts.dtype)
    for i, here in enumerate((slice(0, 4), slice(4, 6))):
        shape = (here.stop - here.start, *SHAPE[1:])
        source = f"scan0007/eiger2M_{i:04d}.h5"
        layout[here] = h5py.VirtualSource(source, "entry_0000/measurement/data", shape=shape)
    values = {"eta": SCAN, "phi": 30.0, "nu": 2.0, "delta": 35.0, "mononrj": 9.0} | changes
    with h5py.File(folder / "au_0001.h5", "w") as file:
        for number in ("6.1", "7.1", "7.2"):
            entry = file.create_group(number)
            entry.attrs["NX_class"] = "NXentry"
            entry["title"] = "ascan eta 10 10.1 5 1"
        entry = file["7.1"]
        entry.create_virtual_dataset("instrument/eiger2M/data", layout)
        for name, value, unit in (
            ("x_pixel_size", 75.0, "um"),
            ("y_pixel_size", 75.0, "um"),
            ("distance", 900.0, "mm"),
        ):
            entry[f"instrument/eiger2M/{name}"] = value
            entry[f"instrument/eiger2M/{name}"].attrs["units"] = unit
        entry["instrument/eiger2M/beam_center_x"], entry["instrument/eiger2M/beam_center_y"] = 11.0, 9.0
        for name, value in values.items():
            entry[f"instrument/positioners/{name}"] = value
        entry["measurement/eiger2M"] = h5py.SoftLink("/7.1/instrument/eiger2M/data")
        for name in ("eta", "phi"):
            if np.ndim(values[name]):
                entry[f"measurement/{name}"] = h5py.SoftLink(f"/7.1/instrument/positioners/{name}")
        entry["measurement/mon"] = np.arange(6.0)
        entry["measurement/elapsed_time"] = np.arange(6.0)
        entry["sample/name"] = "au"
    return folder / "au_0001.h5"


def test_a_scan_of_bliss_at_id01(tmp_path, counts):
    path = bliss_file(tmp_path, counts)
    assert beamlines.find("auto", path) is beamlines.BEAMLINES["id01"]
    scan = beamlines.find("auto", path).read(path, scan=7)
    assert (scan.data[:, 6:] == counts[:, 6:]).all() and not np.broadcast_to(scan.mask, SHAPE)[:, 5].any()
    assert scan.energy == pytest.approx(9000 * ELECTRONVOLT) and scan.distance == pytest.approx(0.9)
    assert scan.pixel_size == pytest.approx((75e-6, 75e-6)) and scan.name == "au"
    assert np.degrees(scan.rocking_angles) == pytest.approx(SCAN) and scan.rocking_axis == (-1, 0, 0)
    assert [axis for axis, _ in scan.arm] == ["y-", "x-"]
    assert np.degrees([angle for _, angle in scan.arm]) == pytest.approx([2, 35])
    assert scan.metadata["direct_beam"] == [9, 11] and scan.metadata["command"].startswith("ascan eta")
    assert (io.read_id01(path).data == scan.data).all()  # the only one with frames

    scan = io.read_id01(bliss_file(tmp_path, counts, eta=10.0, phi=SCAN))
    eta = np.radians(10)  # phi turns about -y, which eta has turned about -x
    assert scan.rocking_axis == pytest.approx((0, -np.cos(eta), np.sin(eta)))


def test_scans_that_bliss_did_not_make_are_named(tmp_path, counts):
    path = bliss_file(tmp_path, counts)
    with pytest.raises(ValueError, match="au_0001.h5: expected scan 8, got scans 6, 7"):
        io.read_id01(path, scan=8)
    with pytest.raises(ValueError, match="expected one scan with frames in measurement, got none"):
        io.read_id01(path, scan=6)
    with pytest.raises(ValueError, match="positioners/delta: expected one angle, got 6"):
        io.read_id01(bliss_file(tmp_path, counts, delta=SCAN))
    (tmp_path / "scan0007" / "eiger2M_0001.h5").unlink()
    with pytest.raises(FileNotFoundError, match="au_0001.h5: 7.1/.*eiger2M_0001.h5"):
        io.read_id01(path, scan=7)


def test_detectors_are_turned_to_rows_along_minus_y_and_columns_along_x():
    rows, columns = np.indices((4, 6))
    for row_axis in ("y-", "y+", "x-", "x+"):
        for column_axis in ("x+", "x-") if row_axis[0] == "y" else ("y+", "y-"):
            along = {row_axis: rows, column_axis: columns}
            x = next(v if axis[1] == "+" else -v for axis, v in along.items() if axis[0] == "x")
            y = next(v if axis[1] == "+" else -v for axis, v in along.items() if axis[0] == "y")
            turned_x, turned_y = (detector_mounting.mounted(v, row_axis, column_axis) for v in (x, y))
            assert (np.diff(turned_x, axis=1) == 1).all() and (np.diff(turned_y, axis=0) == -1).all()
            assert not np.diff(turned_x, axis=0).any() and not np.diff(turned_y, axis=1).any()
            row, column = detector_mounting.mounted_pixel((1, 4), (4, 6), row_axis, column_axis)
            assert turned_x[row, column] == x[1, 4] and turned_y[row, column] == y[1, 4]
    with pytest.raises(ValueError, match="expected detector axes along x and y, got 'x-' and 'x\\+'"):
        detector_mounting.mounted(rows, "x-", "x+")


def test_links_to_what_was_left_at_the_beamline_do_not_keep_from_reading(tmp_path, counts):
    path = bliss_file(tmp_path, counts)
    with h5py.File(path, "a") as file:
        for name in ("7.1/measurement/basler", "6.1/measurement/eiger2M", "9.1"):
            file[name] = h5py.ExternalLink("left/behind.h5", "/1.1/data")
    assert beamlines.find("auto", path) is beamlines.BEAMLINES["id01"]
    for number in (None, 7):
        assert (io.read_id01(path, scan=number).data[:, 6:] == counts[:, 6:]).all()
    with pytest.raises(FileNotFoundError, match=r"au_0001.h5: 6.1/measurement/eiger2M.*left/behind.h5"):
        io.read_id01(path, scan=6)


def test_a_beam_centre_that_nobody_has_set_is_none(tmp_path, counts):
    with h5py.File(bliss_file(tmp_path, counts), "a") as file:
        for axis in "xy":
            file[f"7.1/instrument/eiger2M/beam_center_{axis}"][()] = 0
    assert "direct_beam" not in io.read_id01(tmp_path / "au_0001.h5").metadata
    with h5py.File(master_file(tmp_path, counts), "a") as file:
        file["entry/instrument/detector/beam_center_x"][()] = 0
    assert io.read_eiger(tmp_path / "au_7_master.h5").metadata["direct_beam"] == [9, 0]
    with h5py.File(tmp_path / "au_7_master.h5", "a") as file:
        file["entry/instrument/detector/beam_center_y"][()] = 0
    assert "direct_beam" not in io.read_eiger(tmp_path / "au_7_master.h5").metadata


def test_an_energy_that_is_read_back_for_each_frame_is_its_median(tmp_path, counts):
    path = bliss_file(tmp_path, counts, mononrj=9 + np.array([0, 1, -1, 2, 0, 1]) * 1e-4)
    assert io.read_id01(path).energy == pytest.approx(9000.05 * ELECTRONVOLT, rel=1e-9)
    path = bliss_file(tmp_path, counts, mononrj=np.linspace(8.99, 9.01, 6))
    with pytest.raises(ValueError, match="mononrj: expected one value, got 6 from .*: frames at different energies"):
        io.read_id01(path)


@pytest.mark.parametrize("name", ["source_1/energy", "beam_1/incident_energy", "beam_1/incident_wavelength"])
def test_energy_scans_are_refused_with_the_reason(tmp_path, counts, name):
    with h5py.File(tmp_path / "scan.cxi", "w") as file:
        file["entry_1/data_1/data"] = counts
        file[f"entry_1/instrument_1/{name}"] = np.linspace(0.998, 1.002, len(counts)) * (
            1e-10 if "length" in name else 9e3
        )
    message = (
        f"scan.cxi: .*{name}: expected one value, got 6 from .*: frames at different energies; pendel models rocking"
    )
    with pytest.raises(ValueError, match=message):
        io.read_scan(tmp_path / "scan.cxi")


def test_a_motor_as_it_was_sent_and_as_it_is_read_back_is_one(tmp_path, rng):
    sent = np.linspace(10, 10.2, 40)
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["entry_1/data_1/data"] = np.ones((40, 8, 8), np.int32)
        for name, value in (("eta", sent), ("eta_encoder", sent + rng.normal(0, 3e-4, 40))):
            file[f"entry_1/sample_1/transformations/{name}"] = value
            file[f"entry_1/sample_1/transformations/{name}"].attrs.update(units="deg", transformation_type="rotation")
    assert np.degrees(io.read_scan(tmp_path / "a.cxi").rocking_angles) == pytest.approx(sent)


def resting_cxi(folder, counts):
    """A CXI file of others whose motors were recorded at rest."""
    with h5py.File(folder / "rest.cxi", "w") as file:
        file["entry_1/data_1/data"] = counts
        for name in ("theta", "chi"):
            motor = file.create_dataset(f"entry_1/sample_1/transformations/{name}", data=np.full(len(counts), 10.0))
            motor.attrs.update(units="deg", transformation_type="rotation", vector=[0.0, 1.0, 0.0], depends_on=".")
    return folder / "rest.cxi"


def resting_master(folder, counts):
    path = master_file(folder, counts)
    with h5py.File(path, "a") as file:
        file["entry/sample/goniometer/omega"][...] = 10
    return path


def resting_bliss(folder, counts):
    return bliss_file(folder, counts, eta=np.full(6, 10.0), phi=np.full(6, 30.0))


@pytest.mark.parametrize("resting", [resting_cxi, resting_master, resting_bliss])
def test_angles_that_are_set_win_over_motors_at_rest(tmp_path, counts, resting):
    """They are no fault of a file whose angles stand elsewhere; where nobody gives them, they are."""
    path = resting(tmp_path, counts)
    with pytest.raises(ValueError, match="one motor that turns .*, got none: .*; where other angles hold, give"):
        beamlines.find("auto", path).read(path)
    scan = beamlines.find("auto", path).read(path, rocking=False)
    assert scan.rocking_angles is None and (scan.data[:, 6:] == counts[:, 6:]).all()

    beam = "energy_keV = 9\ndistance_mm = 900\npixel_um = 75\narm = [['y+', 30]]\ncentre = [3, 6, 7]"
    for angles in ("rocking_step_deg = 0.02", f"rocking_angles_deg = {SCAN.tolist()}"):
        made = config.loads(f"[experiment]\n{beam}\nrocking_axis = 'x-'\n{angles}")
        found = made.experiment(made.scan(path))
        assert np.degrees(np.diff(found.rocking_angles)) == pytest.approx(0.02)
    missing = config.loads(f"[experiment]\n{beam}\n{angles}")
    with pytest.raises(config.ConfigError, match="experiment.rocking_axis: expected a value"):
        missing.experiment(missing.scan(path))
    with pytest.raises(ValueError, match="expected one motor that turns"):
        config.loads(f"[experiment]\n{beam}\nrocking_axis = 'x-'").scan(path)


def test_motors_that_turn_are_still_taken_where_angles_are_set(tmp_path, counts):
    made = config.loads("[experiment]\nrocking_step_deg = 0.03")
    scan = made.scan(bliss_file(tmp_path, counts))
    assert scan.rocking_axis == (-1, 0, 0)
