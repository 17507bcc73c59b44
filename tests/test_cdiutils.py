"""Scans that the pipeline of cdiutils has preprocessed, what it has phased, and crystals for its post-processing."""

import h5py
import numpy as np
import pendel
import pytest
from cube import AU, EDGE
from pendel import cdiutils, compare, io, kinematic, phantom
from pendel.base.axes import axis_vector
from pendel.cdiutils import results
from pendel.experiment import rotation
from pendel.io.detector_mounting import mounted
from pendel.io.rocking import turn
from scipy import ndimage
from test_own_program import block_of
from test_peer_files import CIRCLES

SHAPE = (36, 40, 44)  # frames, rows, columns of the scan
ENERGY, TWO_THETA = 8000.0, 38.4  # eV and degrees, of gold's 111
ANGLES = {"sample_outofplane_angle": TWO_THETA / 2 + 0.2 / 32 * (np.arange(SHAPE[0]) - SHAPE[0] // 2)}
ANGLES |= {"sample_inplane_angle": 35.0, "detector_outofplane_angle": TWO_THETA, "detector_inplane_angle": 0.0}


def unmounted(array, rows, columns):
    """Pixels (..., row, col) of the detector as it is mounted, of those of a `Scan`."""
    flipped = [axis for axis, name in ((-2, "y+"), (-1, "x-")) if name in (rows, columns)]
    array = np.flip(array, flipped) if flipped else array
    return np.ascontiguousarray(np.swapaxes(array, -1, -2) if rows[0] == "x" else array)


def calibration(rows):
    """Of frames around the direct beam at angles of zero, cropped from pixel (100, 200) of a detector."""
    shape = SHAPE[1:] if rows[0] == "y" else SHAPE[:0:-1]
    pitch = {"pwidth1": 55e-6, "pwidth2": 55e-6, "distance": 1.9 * EDGE * 55e-6 / 1.5498e-10}
    return pitch | {"cch1": 100.0 + shape[0] // 2, "cch2": 200.0 + shape[1] // 2}, shape


def save_scan(path, beamline, frames, **parameters):
    """Frames of the detector as it is mounted, as the pipeline leaves them, by the names of its file alone."""
    sample, detector, rows, columns = CIRCLES[beamline]
    known, shape = calibration(rows)
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry["image_1/data"], entry["detector_1/mask"] = frames, np.zeros(frames.shape[1:])
        for name, value in known.items():
            entry[f"detector_1/calibration/{name}"] = value
        entry["geometry_1/sample_circles"], entry["geometry_1/detector_circles"] = list(sample), list(detector)
        entry["geometry_1/detector_axis0_orientation"] = rows
        entry["geometry_1/detector_axis1_orientation"], entry["geometry_1/is_cxi"] = columns, True
        for name, value in ANGLES.items():
            entry[f"geometry_1/angles/{name}"] = value
        entry["result_1/roi"] = (100, 100 + shape[0], 200, 200 + shape[1])
        entry["source_1/energy"] = ENERGY
        for name, value in parameters.items():
            entry[f"parameters_1/{name}"] = value
    return path


def save_modes(path, obj):
    """An object on the grid of these frames, as `mode_decomposition` leaves it."""
    with h5py.File(path, "w") as file:
        file["entry_1/image_1/data"] = obj[None]
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/image_1/data")


class Problem:
    """A strained cube of a tenth of gold's coupling, which scatters all but kinematically, at a beamline."""

    def __init__(self, folder, beamline):
        self.beamline, (self.rows, self.columns) = beamline, CIRCLES[beamline][2:]
        self.path = folder / "S7_preprocessed_data.cxi"
        empty = np.zeros((SHAPE[0], *calibration(self.rows)[1]))
        self.experiment = cdiutils.read_preprocessed(save_scan(self.path, beamline, empty))[0]
        voxel = self.experiment.suggest_voxel()
        self.model = pendel.Model(
            self.experiment, pendel.Crystal(AU.chi_0 / 10, AU.chi_h / 10), (36, 40, 44), voxel, threads=1
        )
        grid = self.model.shape, voxel
        bumps = phantom.bumps(*grid, EDGE * np.array([(0.3, 0.2, -0.25)]), [0.3 * EDGE], [0.8])
        self.truth = phantom.crystal_function(phantom.cube(*grid, EDGE, rotation((1, 1, 0.5), 0.6)), bumps)
        frames = self.model.intensities(self.truth)
        self.frames = unmounted(np.round(frames * (1e6 / frames.max())), self.rows, self.columns)
        save_scan(self.path, beamline, self.frames)

    def crystal(self):
        return io.StoredResult(self.truth, self.truth != 0, self.model.voxel, name="gold")


@pytest.fixture(scope="module", params=["ID01", "P10", "SIXS2022"])
def problem(request, tmp_path_factory):
    return Problem(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("shape", [(4, 6, 8), (3, 5, 8), (4, 6, 7)])
@pytest.mark.parametrize("axes", [("y+", "x+"), ("y-", "x-"), ("y+", "x-"), ("x+", "y+"), ("x-", "y-"), ("x-", "y+")])
def test_an_object_of_turned_frames_has_the_turned_pattern(rng, shape, axes):
    def far_field(obj):
        return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(obj)))

    obj = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    turned = results._mounted_object(obj, *axes)
    assert np.abs(far_field(turned) - mounted(far_field(obj), *axes)).max() < 1e-5 * np.abs(far_field(obj)).max()
    assert np.abs(results._unmounted_object(turned, *axes) - obj).max() < 1e-6 * np.abs(obj).max()
    assert (unmounted(mounted(obj, *axes), *axes) == obj).all()
    inside = np.abs(obj) > 1
    assert (results._mounted_object(inside, *axes) == (np.abs(turned) > 1)).all()


def test_a_preprocessed_scan_is_read_with_its_experiment(problem):
    experiment, scan = cdiutils.read_preprocessed(problem.path)
    assert scan.data.shape == SHAPE and experiment.detector_shape == SHAPE[1:]
    assert (scan.data == mounted(problem.frames, problem.rows, problem.columns)).all() and scan.mask.all()
    assert np.degrees(experiment.two_theta) == pytest.approx(TWO_THETA, abs=1e-6)
    assert experiment.d_spacing == pytest.approx(2.3562e-10, rel=1e-4)  # of these angles
    far = cdiutils.read_preprocessed(problem.path, distance=1.0)[0]
    # to the middle pixel, which on a detector that is turned lies one beside the foot of the perpendicular
    assert far.distance == pytest.approx(1, rel=1e-8) and experiment.distance == pytest.approx(0.539424, rel=1e-4)


def test_what_it_has_phased_is_the_object_that_pendel_would_have_found(problem, tmp_path):
    data = mounted(problem.frames, problem.rows, problem.columns)
    phased = kinematic.phase(data, iterations=100, workers=1)
    theirs = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(phased.object)))
    theirs = unmounted(
        theirs, problem.rows, problem.columns
    )  # what PyNX would have made of the frames that it was given
    save_modes(tmp_path / "modes.cxi", np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(theirs))))
    found = cdiutils.read_results(tmp_path / "modes.cxi", problem.experiment, problem.path)
    assert np.abs(found.object - phased.object).max() < 1e-4 * np.abs(phased.object).max() and np.isnan(found.chi)
    scaled = cdiutils.read_results(tmp_path / "modes.cxi", problem.experiment, problem.path, data)
    assert scaled.chi == pytest.approx(phased.chi, rel=1e-3)


def test_the_way_back_meets_the_frames_of_the_pipeline(problem, tmp_path):
    tmp_path /= "made"
    path = cdiutils.write_results(tmp_path, problem.crystal(), problem.experiment, problem.path)
    assert path == tmp_path / "S7_pynx_reconstruction_mode.cxi"
    with h5py.File(path) as file:
        obj, support = file["entry_1/data_1/data"][0], file["entry_1/image_1/support"][()]
    assert obj.shape == problem.frames.shape == support.shape and not obj[support == 0].any()
    pattern, root = np.abs(np.fft.fftshift(np.fft.fftn(obj))), np.sqrt(problem.frames)
    # kinematic amplitudes of a crystal that is slightly dynamical
    assert (pattern * root).sum() / np.linalg.norm(pattern) / np.linalg.norm(root) > 0.99

    data = mounted(problem.frames, problem.rows, problem.columns)
    again = cdiutils.read_results(path, problem.experiment, problem.path, data)
    model = problem.model
    back = kinematic.to_model_grid(again, model.experiment, model.shape, model.voxel)
    inside = ndimage.binary_erosion(problem.truth != 0, iterations=2)
    # splines through a crystal of 10 voxels, there and back
    assert compare(back, problem.truth, model.voxel, inside, scale=True).phase_rmse < 0.05


def test_what_is_wrong_is_named(problem, tmp_path):
    crystal, experiment = problem.crystal(), problem.experiment
    io.write_scan(tmp_path / "scan.cxi", np.ones(SHAPE), distance=1.0, pixel_size=5e-5, wavelength=1e-10)
    with pytest.raises(ValueError, match="scan.cxi: expected a scan that cdiutils has preprocessed"):
        cdiutils.read_preprocessed(tmp_path / "scan.cxi")
    name = "orthogonalise_before_phasing"
    turned = save_scan(tmp_path / "S8_preprocessed_data.cxi", problem.beamline, problem.frames, **{name: True})
    with pytest.raises(ValueError, match="expected frames of the detector, got what cdiutils has orthogonalised"):
        cdiutils.read_preprocessed(turned)
    plain = save_scan(tmp_path / "S9.cxi", problem.beamline, problem.frames, **{name: False})
    assert cdiutils.read_preprocessed(plain)[1].data.shape == SHAPE
    cropped = experiment.crop(slice(None), slice(1, None), slice(None))
    with pytest.raises(ValueError, match="^experiment: expected that of the .* frames, rows and columns of .*S7_prep"):
        cdiutils.write_results(tmp_path, crystal, cropped, problem.path)
    with pytest.raises(ValueError, match="like: expected a file named as S7_preprocessed_data.cxi"):
        cdiutils.write_results(tmp_path, crystal, experiment, plain)
    with pytest.raises(TypeError, match="result: expected a Result, or what has S, support and voxel"):
        cdiutils.write_results(tmp_path, problem.truth, experiment, problem.path)
    save_modes(tmp_path / "S7_pynx_reconstruction_mode.cxi", np.ones((10, 11, 12), np.complex64))
    with pytest.raises(FileExistsError, match="got an HDF5 file of another program"):
        cdiutils.write_results(tmp_path, crystal, experiment, problem.path)
    save_modes(tmp_path / "large.cxi", np.ones((60, 60, 60), np.complex64))
    with pytest.raises(ValueError, match="large.cxi: expected an object of the .* PyNX must not have been told to bin"):
        cdiutils.read_results(tmp_path / "large.cxi", experiment, problem.path)


def test_the_page_goes_from_a_preprocessed_scan_to_the_pipeline_s_folder(problem, tmp_path, monkeypatch):
    save_scan(tmp_path / problem.path.name, problem.beamline, problem.frames)
    data = mounted(problem.frames, problem.rows, problem.columns)
    phased = results._unmounted_object(
        kinematic.phase(data, iterations=50, workers=1).object, problem.rows, problem.columns
    )
    save_modes(tmp_path / "S7_pynx_reconstruction_mode.cxi", phased)
    asked = {}

    def solve(experiment, crystal, data, mask, start):
        asked.update(experiment=experiment, start=start)
        return problem.crystal()

    monkeypatch.setattr(pendel, "solve", solve)
    monkeypatch.chdir(tmp_path)
    exec(block_of("import cdiutils"), {"pendel": pendel, "gold": AU})
    assert asked["start"].chi < 0.1 and asked["experiment"].detector_shape == SHAPE[1:]
    assert (tmp_path / "refined" / "S7_pynx_reconstruction_mode.cxi").exists()


def preprocessed_by_cdiutils(folder, problem):
    """(file, pipeline) after its preprocessing of these frames: attributes as it leaves them, and what it saves."""
    pipelines = pytest.importorskip("cdiutils.pipeline")
    from cdiutils.converter import SpaceConverter
    from cdiutils.geometry import Geometry

    known, shape = calibration(problem.rows)
    parameters = {"beamline_setup": problem.beamline, "scan": 7, "dump_dir": str(folder) + "/", "sample_name": "gold"}
    parameters |= {"energy": ENERGY, "det_calib_params": known, "preprocess_shape": problem.frames.shape}
    pipeline = pipelines.BcdiPipeline(params=parameters | {"detector_name": "none", "apodize": None, "isosurface": 0.5})
    roi = [100, 100 + shape[0], 200, 200 + shape[1]]
    converter = SpaceConverter(Geometry.from_setup(problem.beamline), known, energy=ENERGY, roi=roi)
    converter.init_q_space(**ANGLES)
    middle = tuple(n // 2 for n in problem.frames.shape)
    pipeline.converter, pipeline.angles = converter, ANGLES
    pipeline.cropped_detector_data, pipeline.mask = problem.frames, np.zeros(problem.frames.shape, np.int8)
    for name in pipeline.voxel_pos:
        pipeline.voi["full"][name] = pipeline.voi["cropped"][name] = middle
        pipeline.q_lab_pos[name] = converter.index_det_to_q_lab(middle)
        pipeline.atomic_params["dspacing"][name] = converter.dspacing(pipeline.q_lab_pos[name])
        pipeline.atomic_params["lattice_parameter"][name] = converter.lattice_parameter(
            pipeline.q_lab_pos[name], [1, 1, 1]
        )
    converter.init_interpolator(space="both")
    pipeline.orthogonalised_intensity = converter.orthogonalise_to_q_lab(problem.frames, method="cdiutils")
    pipeline.params["q_lab_ref"] = pipeline.q_lab_pos["ref"]
    pipeline._save_preprocessed_data()
    return folder / "S7_preprocessed_data.cxi", pipeline


class Undrawn:
    """The pictures of the pipeline, of which it needs the numbers of its statistics."""

    summary_plot = plot_final_object_fft = staticmethod(lambda *_, **__: None)
    strain_statistics = staticmethod(lambda *_, **__: (None, None, {}, {}))


def moments(weight, axes):
    """(middle, second moments about it) of a volume; axes: positions along each of its axes."""
    mean = np.array([(weight.sum(axis=tuple({0, 1, 2} - {a})) @ p) / weight.sum() for a, p in enumerate(axes)])
    parts = np.ix_(*[p - m for p, m in zip(axes, mean, strict=True)])
    return mean, np.array([[(weight * a * b).sum() for b in parts] for a in parts]) / weight.sum()


def places(shape, voxel):
    return [(np.arange(n) - n // 2) * v for n, v in zip(shape, voxel, strict=True)]


def to_their_laboratory(problem):
    """(3, 3), from the model's (x, y, z) to the (x, y, z) of CXI that both circles of the sample carry."""
    angles = np.radians([TWO_THETA / 2, ANGLES["sample_inplane_angle"]])
    outer, inner = (
        turn(axis_vector("sample", axis), a) for axis, a in zip(CIRCLES[problem.beamline][0], angles, strict=True)
    )
    return (outer @ inner).T @ problem.experiment.frame.T


def strain_of(problem, along):
    """Of the crystal function: derivative of u.h/|h| along h, a direction (x, y, z) of the model."""
    u = -np.angle(problem.truth) * problem.experiment.d_spacing / (2 * np.pi)
    return sum(d * part for d, part in zip(along[::-1], np.gradient(u, *problem.model.voxel), strict=True))


@pytest.mark.parametrize("beamline", ["ID01", "P10"])
def test_its_own_post_processing_makes_displacement_and_strain_of_a_crystal(tmp_path, monkeypatch, beamline):
    """Its whole step from the two files: where the crystal lies, how large it is, the spacing, and its strain."""
    problem = Problem(tmp_path, beamline)
    path, pipeline = preprocessed_by_cdiutils(tmp_path, problem)
    experiment, scan = cdiutils.read_preprocessed(path)
    assert (scan.data == mounted(problem.frames, problem.rows, problem.columns)).all()
    assert experiment.basis() == pytest.approx(problem.experiment.basis(), rel=1e-9, abs=1e-3)
    cdiutils.write_results(tmp_path, problem.crystal(), experiment, path)
    monkeypatch.setattr("cdiutils.pipeline.bcdi.PipelinePlotter", Undrawn)  # a minute of pictures
    monkeypatch.setattr("cdiutils.pipeline.bcdi.plot_3d_surface_projections", lambda *_, **__: None)
    pipeline = type(pipeline).from_file(str(path))  # all that it needs to know is in the files
    pipeline.postprocess(apodize=None)

    found, turned = pipeline.structural_props, to_their_laboratory(problem)
    assert np.nanmean(found["dspacing"]) == pytest.approx(experiment.d_spacing * 1e10, rel=1e-4)
    normal = np.array(found["g_vector"])[::-1] / np.linalg.norm(found["g_vector"])  # theirs is (z, y, x)

    amplitude = np.nan_to_num(found["amplitude"])
    axes = [np.arange(n) * size * 1e-9 for n, size in zip(amplitude.shape, found["voxel_size"], strict=True)]
    middle, theirs = moments(amplitude, axes)
    own_middle, own = moments(np.abs(problem.truth), places(problem.truth.shape, problem.model.voxel))
    own = turned @ own[::-1, ::-1] @ turned.T
    # their linear interpolation blurs by a triangle of a cell's width along each axis of the frames' grid
    cell = np.array(pipeline.converter.direct_lab_interpolator.original_to_target_matrix)[[1, 2, 0]] * 1e-9
    theirs = theirs[::-1, ::-1] - cell @ cell.T / 6
    assert np.abs(theirs - own).max() < 0.01 * np.diag(own).min()

    # Their voxels in the model, by which what they make of the phase is compared where the crystal is whole.
    there = np.stack(np.meshgrid(*[a - m for a, m in zip(axes, middle, strict=True)], indexing="ij"))[::-1]
    index = np.einsum("ji,j...->i...", turned, there)[::-1] + own_middle[:, None, None, None]
    index /= np.array(problem.model.voxel)[:, None, None, None]
    index += (np.array(problem.truth.shape) // 2)[:, None, None, None]
    whole = ndimage.binary_erosion(problem.truth != 0, iterations=2).astype(float)
    inside = (ndimage.map_coordinates(whole, index, order=1) > 0.99) & np.isfinite(found["het_strain"])
    expected = ndimage.map_coordinates(strain_of(problem, turned.T @ normal), index, order=1)[inside]
    assert inside.sum() > 1000 and expected.std() > 1e-5
    made = found["het_strain"][inside] / 100  # of percent, less its mean
    slope, _ = np.polyfit(expected, made, 1)
    # two interpolations of strain that changes over seven voxels flatten it by a hundredth
    assert np.corrcoef(expected, made)[0, 1] > 0.998 and slope == pytest.approx(1, abs=0.03)
