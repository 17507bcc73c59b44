"""Files go to and come from the programs around: silx shows them, cdiutils opens them, its own are read with geometry.

Each test needs the program it names.
"""

import h5py
import numpy as np
import pytest
from pendel import io
from pendel.base.axes import axis_vector
from pendel.io.detector_mounting import mounted
from pendel.io.rocking import turn
from test_io import SCAN, a_result, small_scan

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


def test_a_scan_of_pendel_has_the_paths_that_cdtools_reads(tmp_path, rng):
    io.write_scan(tmp_path / "scan.cxi", **small_scan(rng))
    with h5py.File(tmp_path / "scan.cxi") as file:
        for path in ("data_1/data", "instrument_1/source_1/energy", "instrument_1/detector_1/distance"):
            assert f"entry_1/{path}" in file
        assert file["entry_1/instrument_1/detector_1/x_pixel_size"][()] == SCAN["pixel_size"]
