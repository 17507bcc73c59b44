"""HDF5 files of any program: what is in them is read, what is not is said, and nothing is read from beside them."""

import os
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
from pendel import beamline, io
from pendel.base.constants import ELECTRONVOLT
from pendel.io import units

SHAPE = (6, 8, 10)
DATA = "entry_1/data_1/data"
GAPS = [(np.uint16, 1), (np.uint16, 2), (np.uint32, 1), (np.uint32, 2), (np.uint64, 1), (np.uint64, 2)]


@pytest.fixture
def counts(rng):
    return rng.poisson(20, SHAPE).astype(np.int32)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside" / "scan.cxi"


def write(path, values, **attributes):
    """A file of {path: value}; ``attributes`` are those of the last."""
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = value
        if attributes:
            file[name].attrs.update(attributes)


@pytest.mark.parametrize("dtype, below", GAPS)
def test_the_largest_values_of_unsigned_types_are_masked(path, counts, dtype, below):
    data = counts.astype(dtype)
    data[:, :, 4:6] = np.iinfo(dtype).max - (below - 1)
    write(path, {DATA: data})
    scan = io.read_scan(path)
    good = np.broadcast_to(scan.mask, SHAPE)
    assert not good[:, :, 4:6].any() and np.delete(good, [4, 5], 2).all()
    assert scan.metadata["masked_on_read"] == 6 * 8 * 2 and scan.data.max() < 1000
    assert beamline.pattern_centre(scan.data, scan.mask)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float32, np.float64])
def test_the_largest_values_of_a_counter_are_masked_after_a_conversion(path, counts, dtype):
    data = counts.astype(np.uint32)
    data[0, 1, 2], data[1, 1, 2] = 2**32 - 1, 2**32 - 2
    write(path, {DATA: data.astype(dtype)})
    scan = io.read_scan(path)
    assert scan.metadata["masked_on_read"] == 2 and not scan.mask[[0, 1], 1, 2].any()


def test_counts_of_one_byte_and_signed_ones_keep_their_largest(path):
    for dtype in (np.uint8, np.int16, np.int32):
        write(path, {DATA: np.full(SHAPE, np.iinfo(dtype).max, dtype)})
        scan = io.read_scan(path)
        assert scan.mask.all() and scan.data.max() == np.iinfo(dtype).max


def virtual(path, sources, shape=SHAPE, name=DATA):
    """A virtual dataset of [(file, dataset, shape there, slice here), ...]."""
    layout = h5py.VirtualLayout(shape=shape, dtype="i4")
    for file, dataset, there, here in sources:
        layout[here] = h5py.VirtualSource(file, dataset, shape=there)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset(name, layout)


def test_virtual_datasets_are_put_together_from_their_sources(path, counts):
    for i, part in enumerate((counts[:4], counts[4:])):
        write(path.with_name(f"part_{i}.h5"), {"frames": part})
    sources = [("part_0.h5", "frames", (4, 8, 10), slice(0, 4)), ("part_1.h5", "frames", (2, 8, 10), slice(4, 6))]
    virtual(path, sources)
    scan = io.read_scan(path)
    assert (scan.data == counts).all() and scan.mask.all() and scan.metadata == {}

    # modules beside one another, with a gap between that nobody measured
    write(path.with_name("left.h5"), {"frames": counts[:, :, :4]})
    write(path.with_name("right.h5"), {"frames": counts[:, :, 6:]})
    left = ("left.h5", "frames", (6, 8, 4), (slice(None), slice(None), slice(0, 4)))
    virtual(path, [left, ("right.h5", "frames", (6, 8, 4), (slice(None), slice(None), slice(6, 10)))])
    with pytest.warns(UserWarning, match="6 frames are not in the file, or not whole"):
        scan = io.read_scan(path)
    good = np.broadcast_to(scan.mask, SHAPE)
    assert (good == (np.arange(10) < 4) | (np.arange(10) > 5)).all() and (scan.data[good] == counts[good]).all()

    # every second frame of each
    layout = h5py.VirtualLayout(shape=SHAPE, dtype="i4")
    for i in (0, 1):
        write(path.with_name(f"part_{i}.h5"), {"frames": counts[i::2]})
        layout[i::2] = h5py.VirtualSource(f"part_{i}.h5", "frames", shape=(3, 8, 10))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset(DATA, layout)
    assert (io.read_scan(path).data == counts).all()


def test_sources_that_are_gone_or_too_short_are_named(path, counts):
    write(path.with_name("part_0.h5"), {"frames": counts[:4]})
    gone = ("part_1.h5", "frames", (2, 8, 10), slice(4, 6))
    virtual(path, [("part_0.h5", "frames", (4, 8, 10), slice(0, 4)), gone])
    with pytest.raises(FileNotFoundError, match="scan.cxi: entry_1/data_1/data: expected .*part_1.h5"):
        io.read_scan(path)
    write(path.with_name("part_1.h5"), {"other": counts[4:]})
    with pytest.raises(ValueError, match="source frames in part_1.h5, got no such dataset"):
        io.read_scan(path)
    write(path.with_name("part_1.h5"), {"frames": counts[4:5]})
    with pytest.raises(ValueError, match="part_1.h5, with 160 elements to be mapped, got 80; were all frames written"):
        io.read_scan(path)


def test_frames_that_were_never_written_are_masked_and_told(path, counts):
    with h5py.File(path, "w") as file:
        item = file.create_dataset(DATA, SHAPE, "i4", chunks=(1, 8, 10))
        item[:4] = counts[:4]
    with pytest.warns(UserWarning, match="2 frames are not in the file.*: 4, 5"):
        scan = io.read_scan(path)
    assert scan.metadata["frames_missing"] == [4, 5]
    assert scan.mask[:4].all() and not scan.mask[4:].any() and (scan.data[:4] == counts[:4]).all()

    for chunks in (None, (1, 8, 10)):
        with h5py.File(path, "w") as file:
            file.create_dataset(DATA, SHAPE, "i4", chunks=chunks)
        with pytest.raises(ValueError, match="data_1/data: expected a dataset that was written"):
            io.read_scan(path)
    write(path, {DATA: counts})
    with h5py.File(path, "a") as file:
        file.create_dataset("entry_1/instrument_1/detector_1/distance", (1,), "f8")
    with pytest.raises(ValueError, match="distance: expected a dataset that was written"):
        io.read_scan(path)


def test_a_virtual_dataset_of_frames_that_were_never_written_says_so(path, counts):
    with h5py.File(path.with_name("part.h5"), "w") as file:
        file.create_dataset("frames", SHAPE, "i4", chunks=(1, 8, 10))[:5] = counts[:5]
    virtual(path, [("part.h5", "frames", SHAPE, slice(None))])
    with pytest.warns(UserWarning, match="1 frames are not in the file.*: 5"):
        assert not io.read_scan(path).mask[5].any()


def test_frames_without_light_beside_bright_ones_are_told_and_dim_tails_are_not(path, counts):
    counts[4:] = 0
    write(path, {DATA: counts})
    with pytest.warns(UserWarning, match="2 frames have no count, beside frames that have many.*: 4, 5"):
        assert io.read_scan(path).metadata["frames_empty"] == [4, 5]
    tail = np.zeros(SHAPE, np.int32)
    tail[1:5, 4, 5] = [3, 500, 40, 2]
    write(path, {DATA: tail})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert io.read_scan(path).metadata == {}


def angles(path, counts, motors, place="entry_1/sample_1/transformations"):
    with h5py.File(path, "w") as file:
        file[DATA] = counts
        for name, (value, attributes) in motors.items():
            file[f"{place}/{name}"] = value
            file[f"{place}/{name}"].attrs.update(attributes)


SCAN = np.linspace(-0.1, 0.1, 6)
ROTATION = {"units": "deg", "transformation_type": "rotation"}


def test_the_rocking_angle_is_the_motor_that_turns(path, counts, rng):
    rest = {"chi": (np.full(6, 90.0), ROTATION | {"vector": [0, 0, 1.0]})}
    eta = {"eta": (SCAN, ROTATION | {"vector": [1.0, 0, 0]})}
    others = [
        {},
        rest,
        {"a_jitters": (90 + 1e-4 * rng.normal(size=6), ROTATION)},
        {"a_slides": (np.arange(6.0), {"units": "mm", "transformation_type": "translation"})},
        {"a_slides": (np.arange(6.0), {"units": "mm"})},
        {"a_temperature": (np.arange(6.0), {"units": "K"})},
        {"rotation_angle": (SCAN, {"units": "deg"})},
        {"a_radians": (np.radians(SCAN), {"units": "rad"})},
    ]
    for other in others:
        angles(path, counts, other | eta)
        scan = io.read_scan(path)
        assert np.degrees(scan.rocking_angles) == pytest.approx(SCAN) and scan.rocking_axis == (1, 0, 0), other
    angles(path, counts, {"eta": (SCAN[:, None], {"units": "mrad"})})
    assert io.read_scan(path).rocking_angles == pytest.approx(SCAN * 1e-3)


def test_no_moving_motor_and_several_are_named(path, counts):
    angles(path, counts, {"chi": (np.full(6, 90.0), ROTATION), "phi": (np.full(6, 1.0), ROTATION)})
    with pytest.raises(ValueError, match="expected one motor that turns .*got none: chi by 0 deg, phi by 0 deg"):
        io.read_scan(path)
    angles(path, counts, {"eta": (SCAN, ROTATION), "phi": (2 * SCAN, ROTATION)})
    with pytest.raises(ValueError, match="got several: eta by 0.2 deg, phi by 0.4 deg"):
        io.read_scan(path)
    angles(path, counts, {"eta": (SCAN, {"units": "mm", "transformation_type": "rotation"})})
    with pytest.raises(ValueError, match="eta: expected a unit of angle for a rotation, got 'mm'"):
        io.read_scan(path)


def test_other_readings_of_each_frame_are_no_angles(path, counts):
    angles(path, counts, {"exposure": (np.arange(6.0), {}), "monitor": (np.arange(6.0), {})}, "entry_1/sample_1")
    assert io.read_scan(path).rocking_angles is None
    angles(path, counts, {"exposure": (np.arange(6.0), {}), "theta": (SCAN, {})}, "entry_1/sample_1")
    assert np.degrees(io.read_scan(path).rocking_angles) == pytest.approx(SCAN)


def test_the_axis_of_a_motor_is_turned_by_those_that_carry_it(path, counts):
    carried = ROTATION | {"vector": [1.0, 0, 0], "depends_on": "mu"}
    mu = ROTATION | {"vector": [0, 1.0, 0], "depends_on": "."}
    angles(path, counts, {"mu": (90.0, mu), "eta": (SCAN, carried)})
    assert io.read_scan(path).rocking_axis == pytest.approx((0, 0, -1))
    angles(path, counts, {"eta": (SCAN, ROTATION | {"vector": [1.0, 0, 0], "depends_on": "eta"})})
    with pytest.raises(ValueError, match="eta: expected (one angle|at most 16)"):
        io.read_scan(path)


@pytest.mark.parametrize(
    "spelling, value, expected",
    [
        ("cm", 75.0, 0.75), ("m", 0.75, 0.75), ("meters", 0.75, 0.75), ("Metre", 0.75, 0.75), ("mm", 750.0, 0.75),
        ("millimetre", 750, 0.75), ("µm", 750e3, 0.75), ("\u03bcm", 750e3, 0.75), ("micron", 750e3, 0.75),
        ("microns", 750e3, 0.75), ("um", 750e3, 0.75), ("nm", 750e6, 0.75), ("Å", 7.5e9, 0.75),
        ("\u212b", 7.5e9, 0.75), ("angstrom", 7.5e9, 0.75), ("Angstroms", 7.5e9, 0.75), ("", 0.75, 0.75),
    ],
)  # fmt: skip
def test_lengths_in_any_spelling_and_shape(path, counts, spelling, value, expected):
    for said in (spelling, np.bytes_(spelling.encode()), [spelling], np.array([spelling.encode()])):
        for shape in (value, [value], [[value]], [value] * 6):
            write(path, {DATA: counts, "entry_1/instrument_1/detector_1/distance": shape}, units=said)
            assert io.read_scan(path).distance == pytest.approx(expected)
    write(path, {DATA: counts, "entry_1/instrument_1/detector_1/distance": value}, unit=spelling)
    assert io.read_scan(path).distance == pytest.approx(expected)


def test_energies_and_angles_in_any_spelling():
    for spelling, factor in (("keV", 1e3), ("KeV", 1e3), ("kev", 1e3), ("eV", 1), ("MeV", 1e6), ("meV", 1e-3)):
        assert units.factor(spelling, units.ENERGY) == pytest.approx(factor * ELECTRONVOLT)
    for spelling in ("deg", "degree", "Degrees", "°", "DEG"):
        assert units.factor(spelling, units.ANGLE) == pytest.approx(np.pi / 180)
    assert units.factor("mrad", units.ANGLE) == 1e-3 and units.factor("mdeg", units.ANGLE) == pytest.approx(
        np.pi / 180e3
    )
    for spelling in ("furlong", "mEv", "pixels", "kg"):
        with pytest.raises(ValueError, match="not known"):
            units.factor(spelling, units.ENERGY)


def test_values_that_change_or_have_a_unit_of_something_else_are_named(path, counts):
    distance = "entry_1/instrument_1/detector_1/distance"
    for value, unit, message in (
        ([0.5, 0.6], "m", "distance: expected one value, got 2 from 0.5 to 0.6"),
        (0.5, "deg", "distance: expected a unit of length, got 'deg', one of angle"),
        (0.5, "furlong", "distance: expected a unit of length, got 'furlong', which is not known"),
        (-0.5, "m", "distance: expected a finite number > 0, got -0.5"),
        (np.inf, "m", "distance: expected a finite number > 0, got inf"),
        ("far", "m", "distance: expected numbers, got 'far'"),
        (0.5j, "m", "distance: expected numbers, got "),
    ):
        write(path, {DATA: counts, distance: value}, units=unit)
        with pytest.raises(ValueError, match=message):
            io.read_scan(path)
    for nothing in (0.0, np.nan, h5py.Empty("f8"), np.zeros(0)):
        write(path, {DATA: counts, distance: nothing}, units="m")
        assert io.read_scan(path).distance is None
    write(path, {DATA: counts, "entry_1/instrument_1/source_1/energy": 9.0})
    with pytest.raises(ValueError, match="energy: expected an energy in J or eV, or its unit, got 9 .*is it in keV"):
        io.read_scan(path)


@pytest.mark.parametrize("flag", [1, True, [1], "yes", np.uint8(1)])
@pytest.mark.parametrize("where", ["image", "dataset", "link", "attribute"])
def test_fft_shifted_frames_are_brought_back(path, counts, flag, where):
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 2, 3] = 1
    write(path, {"entry_1/image_1/data": np.fft.ifftshift(counts), "entry_1/image_1/mask": np.fft.ifftshift(mask)})
    with h5py.File(path, "a") as file:
        if where == "attribute":
            file["entry_1/image_1/data"].attrs["is_fft_shifted"] = flag
        else:
            file["entry_1/image_1/is_fft_shifted"] = flag
        if where == "link":
            file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/image_1/data")
            file["entry_1/data_1/mask"] = h5py.SoftLink("/entry_1/image_1/mask")
        elif where == "dataset":  # a hard link
            file["entry_1/data_1/data"], file["entry_1/data_1/mask"] = (
                file["entry_1/image_1/data"],
                file["entry_1/image_1/mask"],
            )
    scan = io.read_scan(path)
    assert (scan.data == counts).all() and (scan.mask == (mask == 0)).all()


def test_what_belongs_to_fft_shifted_frames_goes_with_them(path, counts):
    place = "entry_1/sample_1/transformations/eta"
    write(path, {"entry_1/image_1/data": np.fft.ifftshift(counts), "entry_1/image_1/is_fft_shifted": 1,
                 place: np.fft.ifftshift(SCAN)}, units="deg")  # fmt: skip
    scan = io.read_scan(path)
    assert (scan.data == counts).all() and np.degrees(scan.rocking_angles) == pytest.approx(SCAN)
    with h5py.File(path, "a") as file:
        file[place][...] = SCAN
    with pytest.raises(ValueError, match="is_fft_shifted: expected rocking angles in the order"):
        io.read_scan(path)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("is_fft_shifted", 2, "expected is_fft_shifted = 0 or 1, got 2"),
        ("is_fft_shifted", "perhaps", "expected is_fft_shifted = 0 or 1, got 'perhaps'"),
        ("data_space", "real", "expected data of the detector .*got data_space = 'real'"),
        ("data_type", "amplitude", "expected intensities, got data_type = 'amplitude'"),
        ("data_type", "electron density", "expected intensities, got data_type = 'electron density'"),
    ],
)
def test_frames_that_are_none_by_what_the_file_says_are_refused(path, counts, name, value, message):
    write(path, {"entry_1/image_1/data": counts, f"entry_1/image_1/{name}": value})
    with pytest.raises(ValueError, match=message):
        io.read_scan(path)


def test_results_obey_what_the_file_says_of_them(path, rng):
    S = (rng.normal(size=(4, 5, 6)) + 1j).astype(np.complex64)
    values = {"entry_1/image_1/data": np.fft.ifftshift(S), "entry_1/image_1/is_fft_shifted": 1}
    values |= {"entry_1/image_1/support": np.fft.ifftshift(S.real > 0).astype(np.uint8)}
    values |= {"entry_1/image_2/data": np.fft.ifftshift(S.imag), "entry_1/image_2/is_fft_shifted": 1}
    write(path, values | {"entry_1/displacement": h5py.SoftLink("/entry_1/image_2")})
    stored = io.read_result(path)
    assert (stored.S == S).all() and (stored.support == (S.real > 0)).all() and (stored.displacement == S.imag).all()
    write(path, {"entry_1/image_1/data": S, "entry_1/image_1/data_space": "diffraction"})
    with pytest.raises(ValueError, match="expected a crystal in real space, got data_space = 'diffraction'"):
        io.read_result(path)
    write(path, {"entry_1/image_1/data": S, "entry_1/strain": S.real[1:], "entry_1/het_strain": S.real[1:]})
    with pytest.raises(ValueError, match=r"het_strain: expected shape \(4, 5, 6\)"):
        io.read_result(path)


@pytest.mark.parametrize("shape", [(6, 1, 8, 10), (1, 6, 8, 10), (1, 6, 1, 8, 10), (6, 8, 1, 10), (6, 8, 10, 1)])
def test_axes_of_length_one_are_dropped(path, counts, shape):
    bad = np.zeros(SHAPE, np.uint8)
    bad[:, 2, 3] = 1
    bad[1, 1, 1] = 1
    write(path, {DATA: counts.reshape(shape), "entry_1/data_1/mask": bad.reshape(shape)})
    scan = io.read_scan(path)
    assert (scan.data == counts).all() and (scan.mask == (bad == 0)).all()


@pytest.mark.parametrize("shape", [(8, 10), (1, 8, 10), (1, 1, 8, 10), (8, 10, 1), (1, 8, 1, 10)])
def test_masks_of_one_frame_are_those_of_all(path, counts, shape):
    bad = np.eye(8, 10, dtype=np.uint8)
    write(path, {DATA: counts, "entry_1/data_1/mask": bad.reshape(shape)})
    assert (io.read_scan(path).mask == (bad == 0)).all()
    write(path, {DATA: counts[:1, None], "entry_1/data_1/mask": bad.reshape(shape)})
    assert io.read_scan(path).data.shape == (1, 8, 10)


def test_masks_of_numbers_are_refused_in_python(path, counts):
    for mask in (np.zeros(SHAPE, np.uint8), np.zeros(SHAPE[1:]), np.ones(SHAPE[1:], int)):
        for take in (
            lambda mask: beamline.pattern_centre(counts, mask),
            lambda mask: io.write_scan(path, counts, distance=1, pixel_size=1e-5, wavelength=1e-10, mask=mask),
        ):
            with pytest.raises(TypeError, match="mask: expected dtype bool, True = good pixel, got "):
                take(mask)


PACKED = """import sys, h5py, hdf5plugin, numpy as np
with h5py.File(sys.argv[1], "w") as f:
    f.create_dataset(sys.argv[2], data=np.arange(480, dtype="i4").reshape(6, 8, 10), **hdf5plugin.Bitshuffle())
"""
READ = "import sys\nfrom pendel import io\nassert io.read_scan(sys.argv[1]).data.max() == 479"


def run(code, *arguments, **environment):
    paths = os.pathsep.join(p for p in sys.path if p)
    given = os.environ | {"PYTHONPATH": paths} | environment
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=given, capture_output=True, text=True)


def test_a_filter_that_is_not_here_is_named_and_one_that_is_installed_is_used(path):
    pytest.importorskip("hdf5plugin")
    assert run(PACKED, path, DATA).returncode == 0
    done = run(READ, path)
    assert done.returncode == 0, done.stderr
    done = run("import sys\nsys.modules['hdf5plugin'] = None\n" + READ, path)
    assert done.returncode == 1
    assert "packed with bitshuffle (HDF5 filter 32008), which is not installed; pip install hdf5plugin" in done.stderr


def test_a_filter_that_nobody_has_is_named(path):
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(SHAPE)
        plist.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
        parent = file.require_group("entry_1/data_1")
        space = h5py.h5s.create_simple(SHAPE)
        item = h5py.Dataset(h5py.h5d.create(parent.id, b"data", h5py.h5t.STD_I32LE, space, plist))
        item.id.write_direct_chunk((0, 0, 0), bytes(4 * 480))
    with pytest.raises(ValueError, match=r"packed with a filter \(HDF5 filter 31999\), which is not installed"):
        io.read_scan(path)


def test_a_file_in_use_is_no_damaged_one(path, counts):
    write(path, {DATA: counts})
    code = "import sys, h5py\nfile = h5py.File(sys.argv[1], 'a')\nprint('open', flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with pytest.raises(OSError, match="scan.cxi: expected a CXI/HDF5 file, got one that another program has open"):
            io.read_scan(path)
        writer.stdin.close()
    assert (io.read_scan(path).data == counts).all()


def test_links_that_lead_nowhere_say_where(path, counts):
    for link, message in (
        (h5py.SoftLink("/entry_1/gone"), "data_1/data: expected a dataset, got a soft link to /entry_1/gone, where"),
        (h5py.SoftLink(f"/{DATA}"), "data_1/data: expected a dataset, got a chain of more than 64 links"),
        (h5py.ExternalLink("gone.h5", "/data"), "got an external link to /data in gone.h5: expected the file gone.h5"),
        (h5py.ExternalLink("there.h5", "/gone"), "an external link to /gone in there.h5, where nothing is"),
    ):
        write(path.with_name("there.h5"), {"data": counts})
        write(path, {DATA: link, "entry_1/image_1/data": counts})
        with pytest.raises((ValueError, OSError), match=f"scan.cxi: .*{message}"):
            io.read_scan(path)
    write(path, {DATA: counts, "entry_1/data_1/mask": h5py.SoftLink("/gone")})
    with pytest.raises(ValueError, match="data_1/mask: .*a soft link to /gone, where nothing is"):
        io.read_scan(path)


def test_links_into_the_folder_are_followed(path, counts):
    path.with_name("below").mkdir()
    write(path.with_name("below") / "data.h5", {"frames/data": counts})
    write(path, {DATA: h5py.ExternalLink("below/data.h5", "/frames/data")})
    assert (io.read_scan(path).data == counts).all()
    write(path, {"entry_1/data_1": h5py.ExternalLink("./below/data.h5", "frames")})
    assert (io.read_scan(path).data == counts).all()
    # written elsewhere with whole paths, and brought here
    write(path.with_name("data.h5"), {"frames": counts})
    write(path, {DATA: h5py.ExternalLink("/nowhere/of/theirs/data.h5", "/frames")})
    assert (io.read_scan(path).data == counts).all()
    # a link of the file system to the file: what belongs to it lies beside the file itself
    elsewhere = path.parent.parent / "linked.cxi"
    elsewhere.symlink_to(path)
    assert (io.read_scan(elsewhere).data == counts).all()


@pytest.mark.parametrize("kind", ["link", "virtual"])
def test_a_file_in_a_folder_below_leads_to_what_lies_beside_it_as_in_hdf5(path, counts, kind):
    """Never to one of that name beside the file that was asked for: that would be another measurement."""
    below = path.with_name("below")
    below.mkdir()

    def nest(name):
        if kind == "link":
            write(below / "middle.h5", {"frames": h5py.ExternalLink(name, "/data")})
        else:
            virtual(below / "middle.h5", [(name, "data", SHAPE, slice(None))], name="frames")

    def opened():  # by HDF5 itself, from another folder
        with h5py.File(path) as file:
            return file[DATA][()]

    write(path, {DATA: h5py.ExternalLink("below/middle.h5", "/frames")})
    write(path.with_name("frames.h5"), {"data": counts + 1})  # of another one
    for name in ("frames.h5", "/of/theirs/frames.h5"):
        nest(name)
        with pytest.raises(FileNotFoundError, match="expected the file .*frames.h5 beside middle.h5, got none"):
            io.read_scan(path)
    write(below / "frames.h5", {"data": counts})
    for name in ("frames.h5", "/of/theirs/frames.h5"):
        nest(name)
        assert (io.read_scan(path).data == counts).all() and (opened() == counts).all()
    nest("../frames.h5")
    assert (io.read_scan(path).data == counts + 1).all() and (opened() == counts + 1).all()

    # a name in the folder for a file that lies below: what HDF5 finds beside the name, else beside the file itself
    nest("frames.h5")
    path.with_name("middle.h5").symlink_to(below / "middle.h5")
    write(path, {DATA: h5py.ExternalLink("middle.h5", "/frames")})
    assert (io.read_scan(path).data == counts + 1).all() and (opened() == counts + 1).all()
    path.with_name("frames.h5").unlink()
    assert (io.read_scan(path).data == counts).all() and (opened() == counts).all()
