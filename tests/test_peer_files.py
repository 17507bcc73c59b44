"""Files go to and come from the programs around: they open them, theirs are read with geometry.

Each test needs the program it names.
"""

import h5py
import numpy as np
import pytest
from pendel import io
from pendel.base.axes import axis_vector
from pendel.io.detector_mounting import mounted
from pendel.io.rocking import turn
from test_io import a_result, small_scan

CIRCLES = {
    "ID01": (("x-", "y-"), ("y-", "x-"), "y-", "x+"),
    "P10": (("x-", "y-"), ("y+", "x-"), "y-", "x-"),
    "SIXS2022": (("x-", "y+"), ("y+", "x-"), "x-", "y-"),
    "CRISTAL": (("x-", "y+"), ("y+", "x-"), "y-", "x+"),
    "NanoMAX": (("x-", "y-"), ("y-", "x-"), "y-", "x-"),
    "ID27": (("x-", "y-"), ("y-", "x-"), "y-", "x-"),
}


@pytest.mark.parametrize("angles", [None, np.linspace(0, 1e-3, 6)])
def test_silx_plots_a_scan_by_default(tmp_path, rng, angles):
    nxdata = pytest.importorskip("silx.io.nxdata")
    import silx.io

    fields = small_scan(rng, rocking_angles=angles)
    io.write_scan(tmp_path / "scan.cxi", **fields)
    with silx.io.open(str(tmp_path / "scan.cxi")) as file:
        plot = nxdata.get_default(file)
        assert plot is not None and plot.is_valid and not plot.issues
        assert plot.signal.shape == fields["data"].shape and plot.interpretation == "image"
        names = [None if axis is None else axis.name.rsplit("/", 1)[1] for axis in plot.axes]
        assert names == [None if angles is None else "theta", None, None]


def test_silx_plots_every_image_of_a_result_over_nanometres(tmp_path, rng):
    nxdata = pytest.importorskip("silx.io.nxdata")
    import silx.io

    fields = a_result(rng)
    io.write_result(tmp_path / "r.cxi", **fields)
    with silx.io.open(str(tmp_path / "r.cxi")) as file:
        plots = [nxdata.get_default(file)]
        plots += [nxdata.NXdata(file[f"entry_1/{name}"]) for name in ("image_1", "amplitude", "phase", "support")]
        for plot in plots:
            assert plot.is_valid and not plot.issues and plot.signal.shape == fields["S"].shape
            assert [axis.attrs["units"] for axis in plot.axes] == ["nm"] * 3
            for axis, size, step in zip(plot.axes, fields["S"].shape, fields["voxel"], strict=True):
                assert axis[()] == pytest.approx((np.arange(size) - size // 2) * step * 1e9)


def test_cdiutils_opens_what_is_written(tmp_path, rng):
    cdiutils = pytest.importorskip("cdiutils.io")
    fields = a_result(rng)
    io.write_result(tmp_path / "r.cxi", **fields)
    path = str(tmp_path / "r.cxi")
    with cdiutils.CXIFile(path) as file:
        assert (file["entry_1/image_1/data"] == fields["S"]).all()
        assert (file["entry_1/image_1/support"] == fields["support"]).all()
    for name in ("amplitude", "phase", "displacement", "het_strain", "support"):
        assert np.shape(cdiutils.load_cxi(path, name)) == fields["S"].shape, name
    assert (cdiutils.load_cxi(path, "support") == fields["support"]).all()
    names = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    with cdiutils.CXIFile(path) as file:
        assert all(file[name] is not None for name in names) and len(names) > 30
    io.write_scan(tmp_path / "scan.cxi", **small_scan(rng))
    with cdiutils.CXIFile(str(tmp_path / "scan.cxi")) as file:
        assert file["entry_1/data_1/data"].shape == (6, 8, 10)


def preprocessed(path, beamline, counts, mask, angles):
    """What the preprocessing of cdiutils' pipeline writes, by its own classes."""
    from cdiutils.geometry import Geometry
    from cdiutils.io import CXIFile

    geometry = Geometry.from_setup(beamline)
    geometry.cxi_to_xu()  # as its converter leaves it
    with CXIFile(str(path), "w") as cxi:
        cxi.stamp()
        cxi.set_entry()
        cxi.create_cxi_group("process", command="cdiutils.BcdiPipeline.preprocess()")
        geo = cxi.create_cxi_group("geometry", **(geometry.to_dict() | {"angles": angles}))
        calibration = {"cch1": 110.0, "cch2": 205.0, "pwidth1": 55e-6, "pwidth2": 55e-6, "distance": 0.83}
        calibration |= {"tilt": 0.0, "tiltazimuth": 0.0, "detrot": 0.0}
        detector = cxi.create_cxi_group("detector", description="det", mask=mask, calibration=calibration)
        for name, key in (("distance", "distance"), ("x_pixel_size", "pwidth2"), ("y_pixel_size", "pwidth1")):
            cxi.softlink(f"{detector}/{name}", f"{detector}/calibration/{key}")
        cxi.softlink(f"{detector}/geometry_1", geo)
        cxi.create_cxi_group("result", voi=(0, 6, 0, 8, 0, 10), roi=(100, 108, 200, 210), description="roi")
        cxi.create_cxi_group("sample", "sample_name", sample_name="au")
        cxi.create_cxi_group("source", energy=9000.0, units="eV")
        image = cxi.create_cxi_image(
            counts, data_type="cropped detector data", data_space="reciprocal", mask=mask, process_1="process_1"
        )
        cxi.softlink("entry_1/cropped_detector_data", image)
        cxi.create_cxi_image(counts * 0.5, data_type="orthogonalised detector data", data_space="reciprocal")


@pytest.mark.parametrize("beamline", CIRCLES)
@pytest.mark.parametrize("rocked", ["sample_outofplane_angle", "sample_inplane_angle"])
def test_what_cdiutils_preprocessed_has_its_geometry(tmp_path, rng, beamline, rocked):
    """Scattering vectors of every frame and corner pixel, against those of xrayutilities by cdiutils' own circles."""
    pytest.importorskip("cdiutils")
    from cdiutils.converter import SpaceConverter
    from cdiutils.geometry import Geometry

    counts = rng.poisson(3, (6, 8, 10)).astype(np.uint32)
    mask = np.zeros((8, 10))
    mask[1, 2] = 1
    angles = {"sample_outofplane_angle": 12.0, "sample_inplane_angle": 35.0}
    angles |= {"detector_outofplane_angle": 33.0, "detector_inplane_angle": 5.0}
    angles[rocked] = angles[rocked] + np.linspace(-0.3, 0.3, 6)
    preprocessed(tmp_path / "S7_preprocessed_data.cxi", beamline, counts, mask, angles)
    scan = io.read_scan(tmp_path / "S7_preprocessed_data.cxi")
    assert scan.energy == pytest.approx(9000 * 1.602176634e-19) and scan.distance == 0.83
    assert scan.data.sum() + counts[:, 1, 2].sum() * 0 == counts.sum() and (~scan.mask).sum() == 1

    calibration = {"cch1": 110.0, "cch2": 205.0, "pwidth1": 55e-6, "pwidth2": 55e-6, "distance": 0.83}
    geometry = Geometry.from_setup(beamline)
    converter = SpaceConverter(geometry, det_calib_params=calibration, energy=9000.0, roi=[100, 108, 200, 210])
    converter.init_q_space(**angles)
    theirs = converter._q_space_transitions.reshape(3, 6, 8, 10) * 1e10  # xrayutilities: x beam, y outboard, z up
    theirs = theirs[[1, 2, 0]]

    # Theirs are in a frame that both circles of the sample carry, these in one that the rocking motor carries.
    sample, _, rows, columns = CIRCLES[beamline]
    still = rocked == "sample_outofplane_angle"
    angle = angles["sample_inplane_angle" if still else "sample_outofplane_angle"]
    back = turn(axis_vector("sample", sample[still]), -np.radians(angle))
    ours = np.einsum("ij,jfrc->ifrc", back, q_of(scan))
    assert mounted(theirs, rows, columns) == pytest.approx(ours, abs=1e-6 * np.abs(ours).max())


def q_of(scan):
    """Scattering vectors (3, frame, row, col) in the sample's frame at angles of zero, rad/m: turns about lab axes."""
    rows, columns = scan.data.shape[1:]
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    beam, pitch = scan.metadata["direct_beam"], scan.pixel_size
    ray = np.stack([(column - beam[1]) * pitch[1], -(row - beam[0]) * pitch[0], np.full(row.shape, scan.distance)])
    ray /= np.linalg.norm(ray, axis=0)
    arm = np.eye(3)
    for axis, angle in scan.arm:
        arm = arm @ turn(axis_vector("arm", axis), angle)
    k = 2 * np.pi / scan.wavelength
    q = k * (np.einsum("ij,jrc->irc", arm, ray) - np.array([0, 0, 1.0])[:, None, None])
    back = [turn(scan.rocking_axis, -angle) for angle in scan.rocking_angles]
    return np.stack([np.einsum("ij,jrc->irc", one, q) for one in back], axis=1)


def test_cdtools_opens_what_is_written(tmp_path, rng):
    cxi = pytest.importorskip("cdtools.tools.data")
    fields = small_scan(rng, mask=np.arange(80).reshape(8, 10) > 3, rocking_angles=np.linspace(0, 1e-3, 6))
    io.write_scan(tmp_path / "scan.cxi", **fields)
    with h5py.File(tmp_path / "scan.cxi") as file:
        assert (cxi.get_data(file, cut_zeros=False)[0] == fields["data"]).all()
        assert (cxi.get_mask(file) == fields["mask"]).all() and cxi.get_dark(file) is None
        assert cxi.get_wavelength(file) == pytest.approx(fields["wavelength"], rel=1e-6)
        distance, basis, corner = cxi.get_detector_geometry(file)
        assert distance == pytest.approx(fields["distance"]) and corner is None
        # columns: what a step of a row and of a column is; theirs point down and against x
        rows, columns = np.broadcast_to(fields["pixel_size"], 2)
        assert basis.T == pytest.approx(np.array([[0, -rows, 0], [-columns, 0, 0]]), rel=1e-6)
        turned = turn((0, 1, 0), fields["rocking_angles"][3])
        sample = cxi.get_sample_info(file)
        assert sample["name"] == fields["name"] and sample["orientation"] == pytest.approx(turned.T, abs=1e-6)
    crystal = a_result(rng)
    io.write_result(tmp_path / "r.cxi", distance=0.7, pixel_size=(4e-5, 5e-5), **crystal)
    with h5py.File(tmp_path / "r.cxi") as file:
        assert (cxi.get_data(file, cut_zeros=False)[0] == crystal["S"]).all() and cxi.get_mask(file) is None
        assert cxi.get_wavelength(file) == pytest.approx(crystal["wavelength"], rel=1e-6)
        assert cxi.get_detector_geometry(file)[0] == pytest.approx(0.7)
        assert cxi.get_entry_info(file)["program_name"].startswith("pendel")


def test_what_cdtools_writes_is_read(tmp_path, rng):
    cxi = pytest.importorskip("cdtools.tools.data")
    counts, mask = rng.poisson(3, (6, 8, 10)), np.arange(80).reshape(8, 10) > 3
    with cxi.create_cxi(str(tmp_path / "theirs.cxi")) as file:
        cxi.add_entry_info(file, {"title": "theirs"})
        cxi.add_sample_info(file, {"name": "gold"})
        cxi.add_source(file, 1.5e-10)
        cxi.add_detector(file, 0.6, np.array([[0, -4e-5, 0], [-5e-5, 0, 0]]).T)
        cxi.add_mask(file, mask)
        cxi.add_data(file, counts)
    scan = io.read_scan(tmp_path / "theirs.cxi")
    good = np.broadcast_to(mask, counts.shape)
    assert (scan.mask == mask).all() and (scan.data[good] == counts[good]).all() and scan.name == "gold"
    assert scan.wavelength == pytest.approx(1.5e-10, rel=1e-6) and scan.distance == pytest.approx(0.6)
    assert scan.pixel_size == pytest.approx((4e-5, 5e-5), rel=1e-6)  # rows, columns


def test_bcdi_opens_what_is_written(tmp_path, rng):
    """Its loaders by ending: a CXI file as PyNX writes it."""
    utilities = pytest.importorskip("bcdi.utils.utilities")
    crystal, fields = a_result(rng), small_scan(rng)
    io.write_result(tmp_path / "r.cxi", **crystal)
    io.write_scan(tmp_path / "scan.cxi", **fields)
    found, ending = utilities.load_file(str(tmp_path / "r.cxi"))
    assert (found == crystal["S"]).all() and ending == ".cxi"
    assert (utilities.load_file(str(tmp_path / "r.cxi"), "modulus")[0] == np.abs(crystal["S"])).all()
    assert (utilities.load_file(str(tmp_path / "scan.cxi"))[0] == fields["data"]).all()


def test_nexusformat_finds_the_default_plot(tmp_path, rng):
    nexus = pytest.importorskip("nexusformat.nexus")
    crystal, fields = a_result(rng), small_scan(rng, rocking_angles=np.linspace(0, 1e-3, 6))
    io.write_scan(tmp_path / "scan.cxi", **fields)
    io.write_result(tmp_path / "r.cxi", **crystal)
    plot = nexus.nxload(tmp_path / "scan.cxi").get_default()
    assert plot.nxsignal.shape == fields["data"].shape and plot.nxaxes[0].nxname == "theta"
    assert plot.nxaxes[0].nxvalue == pytest.approx(np.degrees(fields["rocking_angles"]))
    plot = nexus.nxload(tmp_path / "r.cxi").get_default()
    assert (plot.nxsignal.nxvalue == crystal["S"]).all() and [axis.nxname for axis in plot.nxaxes] == ["z", "y", "x"]


def test_fabio_opens_the_frames(tmp_path, rng):
    fabio = pytest.importorskip("fabio")
    fields = small_scan(rng)
    io.write_scan(tmp_path / "scan.cxi", **fields)
    with fabio.open(f"{tmp_path / 'scan.cxi'}::/entry_1/data_1/data") as image:
        assert image.nframes == 6 and all((image.get_frame(i).data == fields["data"][i]).all() for i in range(6))


@pytest.fixture
def pynx(monkeypatch):
    """PyNX on the processor."""
    monkeypatch.setenv("PYNX_PU", "cpu")
    return pytest.importorskip("pynx.cdi", exc_type=ImportError)


BEAM = {"wavelength": 1.5e-10, "detector_distance": 0.6, "pixel_size_detector": 5.5e-5}


@pytest.mark.parametrize("shifted", [False, True])
def test_what_pynx_writes_of_a_scan_is_read(pynx, tmp_path, rng, shifted):
    counts, bad = rng.poisson(3, (6, 8, 10)).astype(np.float32), np.zeros((6, 8, 10), np.int8)
    bad[:, 2, 3] = 1
    given = [np.fft.ifftshift(a) if shifted else a for a in (counts, bad)]
    path = str(tmp_path / "data.cxi")
    pynx.save_cdi_data_cxi(path, given[0], mask=given[1], sample_name="gold", iobs_is_fft_shifted=shifted, **BEAM)
    scan = io.read_scan(path)
    assert (np.broadcast_to(scan.mask, counts.shape) == (bad == 0)).all() and (
        scan.data * scan.mask == counts * (1 - bad)
    ).all()
    assert scan.wavelength == pytest.approx(1.5e-10, rel=1e-4) and scan.distance == 0.6 and scan.name == "gold"
    assert scan.pixel_size == (5.5e-5, 5.5e-5)


def test_what_pynx_writes_of_a_crystal_is_read(pynx, tmp_path, rng):
    """Its numbers are centred in the file and shifted in memory."""
    obj = (rng.normal(size=(6, 8, 10)) + 1j * rng.normal(size=(6, 8, 10))).astype(np.complex64)
    support = np.zeros((6, 8, 10), np.int8)
    support[2:5, 2:6, 3:8] = 1
    iobs = rng.poisson(3, (6, 8, 10)).astype(np.float32)
    shift = np.fft.ifftshift
    cdi = pynx.CDI(shift(iobs), support=shift(support), obj=shift(obj), **BEAM)
    cdi.history.insert(1, nb_point_support=36)
    cdi.save_obj_cxi(str(tmp_path / "r.cxi"), sample_name="gold", shift_phase_zero=False)
    found = io.read_result(tmp_path / "r.cxi")
    assert (found.support == (support > 0)).all() and np.abs(found.S - obj).max() < 1e-6
    assert found.wavelength == pytest.approx(1.5e-10, rel=1e-4) and found.voxel is None
    cdi.save_data_cxi(str(tmp_path / "data.cxi"))
    assert (io.read_scan(tmp_path / "data.cxi").data == iobs).all()


def test_pynx_loads_what_is_written(pynx, tmp_path, rng):
    """By the loader of its scripts."""
    runner = pytest.importorskip("pynx.cdi.runner.runner", exc_type=ImportError)
    fields = small_scan(rng, mask=np.arange(80).reshape(8, 10) > 3, rocking_angles=np.linspace(0, 1e-3, 6))
    io.write_scan(tmp_path / "scan.cxi", **fields)
    load = runner.CDIRunnerScan.__new__(runner.CDIRunnerScan)
    load.params, load.mask, load.timings = {"data": str(tmp_path / "scan.cxi")}, None, {}
    load.load_data()
    assert (load.iobs == fields["data"]).all() and (
        load.mask == ~np.broadcast_to(fields["mask"], load.iobs.shape)
    ).all()
    assert load.params["detector_distance"] == fields["distance"]
    assert load.params["wavelength"] == pytest.approx(fields["wavelength"], rel=2e-3)  # its constants
    assert load.params["pixel_size_detector"] == pytest.approx(np.broadcast_to(fields["pixel_size"], 2)[1])
