"""`pendel.check`: what refraction and extinction add to a finished object, and the command."""

import dataclasses
import math

import h5py
import numpy as np
import pendel
import pytest
from pendel import io
from pendel.app.cli import main
from pendel.base.symmetry import strain
from pendel.io import kinds
from pendel.kinematic.refraction import optical_path
from pendel.planning.kinematic_error import kinematic_error, rms, without_plane

TWO_THETA = math.radians(44.76)
CONFIG = """
[experiment]
energy_keV = 8.0
distance_mm = 1000
pixel_um = 75
two_theta_deg = 44.76
rocking_axis = "y+"
rocking_step_deg = 0.012
rocking_frames = 24
detector_shape = [24, 24]

[crystal]
name = "Au"
hkl = [0, 0, 2]
chi_0 = [-9.407e-5, 8.496e-6]
chi_h = [7.400e-5, -8.434e-6]
"""
GOLD = pendel.Crystal(chi_0=-9.407e-5 + 8.496e-6j, chi_h=7.400e-5 - 8.434e-6j, name="Au")
RADIUS = 0.35e-6


def experiment(**changed):
    given = {
        "energy_keV": 8.0,
        "distance": 1.0,
        "pixel_size": 75e-6,
        "detector_shape": (24, 24),
        "two_theta_deg": 44.76,
        "rocking_axis": "y+",
        "rocking_angles_deg": 0.012 * np.arange(-12, 12),
    }
    return pendel.Experiment(**given | changed)


@pytest.fixture(scope="module")
def ball():
    """A strained ball as a result file of pendel holds it, on a box with a support that is wider than it."""
    scan = experiment()
    voxel = tuple(0.8 * v for v in scan.suggest_voxel())
    shape = tuple(2 * math.ceil(1.3 * RADIUS / v) for v in voxel)
    s_0 = pendel.phantom.sphere(shape, voxel, RADIUS)
    phase = pendel.phantom.bumps(shape, voxel, [(0.1e-6, 0, -0.1e-6)], [0.2e-6], [1.2])
    S = pendel.phantom.crystal_function(s_0, phase)
    known = {"wavelength": scan.wavelength, "k_0": scan.frame @ scan.k_0, "k_h": scan.frame @ scan.k_h}
    known |= {"chi_0": GOLD.chi_0, "chi_h": GOLD.chi_h, "chi_hbar": GOLD.chi_hbar, "crystal": "Au"}
    known |= {"frame": scan.frame, "polarization": {"sigma": 0.2, "pi": 0.8}}
    return io.StoredResult(S=S, support=s_0 > 0, voxel=voxel, **known)


def test_a_check_is_the_error_of_the_object_in_the_stronger_polarisation(ball):
    checked = pendel.check(ball)
    expected = kinematic_error(
        ball.S, ball.voxel, ball.wavelength, TWO_THETA, GOLD, polarization_factor=math.cos(TWO_THETA)
    )
    np.testing.assert_allclose(checked.error.refraction, expected.refraction, atol=1e-6)
    np.testing.assert_allclose(checked.error.extinction, expected.extinction, atol=1e-5)
    k = 2 * math.pi / ball.wavelength
    path = optical_path(np.abs(ball.S), ball.voxel, TWO_THETA)
    alone = without_plane(0.5 * k * GOLD.chi_0.real * path, expected.inside)
    assert checked.error.phase_rms[0] == pytest.approx(rms(alone[expected.inside]), rel=1e-5)
    assert checked.size == pytest.approx(2 * RADIUS, rel=0.01)

    # extinction is of second order in C chi_h, where that is small
    weak = pendel.Crystal(GOLD.chi_0, 0.3 * GOLD.chi_h)
    found = [
        pendel.check(dataclasses.replace(ball, polarization=p), crystal=weak).error.phase_rms[1]
        for p in ({"pi": 1.0}, {"sigma": 1.0})
    ]
    assert found[0] / found[1] == pytest.approx(math.cos(TWO_THETA) ** 2, rel=0.01)


def test_the_object_s_own_phase_and_strain_are_told_beside(ball):
    checked = pendel.check(ball)
    own = np.angle(ball.S.astype(complex) * np.exp(-1j * np.angle(ball.S.sum())))
    inside, core = checked.error.inside, checked.error.core
    np.testing.assert_allclose(checked.phase, without_plane(own, inside), atol=1e-5)
    found, known = strain(np.where(inside, ball.S, 0), ball.voxel, ball.h)
    assert known[core].all()
    np.testing.assert_allclose(checked.strain[core], (found - found[core].mean())[core], atol=1e-9)
    assert f"a phase of {checked.phase_rms:.2g} rad" in str(checked)


def test_a_phase_that_wraps_is_told_less_its_plane(ball):
    z, y, x = np.indices(ball.S.shape)
    ramp = np.exp(1j * (0.9 * x - 0.7 * z))  # 12 rad and more across
    tilted = pendel.check(dataclasses.replace(ball, S=ball.S * ramp))
    plain = pendel.check(ball)
    np.testing.assert_allclose(tilted.phase, plain.phase, atol=1e-5)
    assert tilted.strain_rms == pytest.approx(plain.strain_rms, rel=1e-4)
    assert tilted.error.phase_rms[0] == pytest.approx(plain.error.phase_rms[0], rel=1e-6)


def test_amplitudes_may_have_any_scale(ball):
    scaled = dataclasses.replace(ball, S=(3e4 * ball.S).astype(np.complex64))
    for one, other in zip(pendel.check(scaled).error.phase_rms, pendel.check(ball).error.phase_rms, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_advice_goes_by_what_is_too_much(ball):
    assert "pendel.refraction.correct" in pendel.check(ball).advice
    thin = pendel.Crystal(1e-3 * GOLD.chi_0, 1e-3 * GOLD.chi_h)
    assert "good enough" in pendel.check(ball, crystal=thin).advice
    thick = pendel.Crystal(0.1 * GOLD.chi_0, 6 * GOLD.chi_h)
    assert "pendel.solve" in pendel.check(ball, crystal=thick).advice


def test_an_object_of_solve_is_not_told_to_be_corrected(ball):
    found = dataclasses.replace(ball, trust="found: photon noise explains the misfit", verdict="found")
    told = pendel.check(found)
    assert told.dynamical and told.advice == "that is not in this object, which was found dynamically"
    assert not pendel.check(ball).dynamical and "error=KinematicError(" in repr(told) and len(repr(told)) < 1000


def test_a_result_in_memory_is_checked_by_its_model(ball):
    model = pendel.Model(experiment(), GOLD, ball.S.shape, experiment().suggest_voxel())
    found = pendel.Result(
        S=ball.S, support=ball.support, scale=1.0, misfit=0.0, history={}, voxel=model.voxel, h=ball.h, epochs=1, seed=0
    )
    with pytest.raises(ValueError, match="experiment: expected one"):
        pendel.check(found)
    with pytest.raises(ValueError, match="crystal: expected one"):
        pendel.check(found, experiment=model.experiment)
    by_hand = pendel.check(found, experiment=model.experiment, crystal=GOLD)
    found.model = model
    assert pendel.check(found).error.phase_rms == by_hand.error.phase_rms


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"voxel": None}, "result: expected one that knows its voxel"),
        ({"k_h": None}, "experiment: expected one"),
        ({"chi_0": None}, "crystal: expected one"),
        ({"k_h": np.array([1e10, 0, 4e10])}, "expected z along k_h"),
        ({"S": np.zeros((4, 4, 4), np.complex64), "support": None}, "expected a crystal|zeros"),
    ),
)
def test_what_a_result_does_not_know_is_said(ball, changed, message):
    with pytest.raises(ValueError, match=message):
        pendel.check(dataclasses.replace(ball, **changed))


def test_arguments_are_named(ball):
    with pytest.raises(TypeError, match="result: expected a StoredResult"):
        pendel.check(ball.S)
    with pytest.raises(TypeError, match="experiment: expected Experiment"):
        pendel.check(ball, experiment=44.76)
    with pytest.raises(ValueError, match="orientation 'k_h'"):
        pendel.check(ball, experiment=experiment(orientation="symmetric"))


def test_the_command_says_a_sentence_and_draws_the_maps(ball, tmp_path, capsys):
    path = tmp_path / "result.cxi"
    io.write_result(path, ball)
    before = path.read_bytes()
    assert main(["check", str(path)]) == 0
    picture = tmp_path / "result.check.png"
    assert capsys.readouterr().out == f"{pendel.check(path)}\nwritten to {picture}\n"
    assert kinds.kind_of(picture) == kinds.PICTURE and path.read_bytes() == before


def on_its_data_grid(scan, shape=(32, 36, 40)):
    """A ball as a phasing program finds it: object n is the crystal at A n, of no scale, rolled and with a phase."""
    A = 2 * np.pi * np.linalg.inv(scan.basis()).T @ np.diag(1 / np.array(shape))
    n = np.stack(np.meshgrid(*(np.arange(m) - m // 2 for m in shape), indexing="ij"))
    inside = np.linalg.norm(np.tensordot(A, n, 1), axis=0) < RADIUS
    assert inside.sum() > 500
    return np.roll(57 * np.exp(0.3j) * inside, (3, -2, 4), axis=(0, 1, 2)).astype(np.complex64)


def test_an_object_on_the_grid_of_its_data_is_checked_with_a_configuration(ball, tmp_path, capsys):
    path, toml, picture = tmp_path / "pynx.cxi", tmp_path / "run.toml", tmp_path / "maps.png"
    toml.write_text(CONFIG)
    io.write_result(path, S=on_its_data_grid(experiment()), voxel=(1e-8, 1e-8, 1e-8))
    with h5py.File(path, "a") as file:  # other programs do not say the voxel
        del file["entry_1/process_1/configuration/voxel"]
    assert io.read_result(path).voxel is None

    assert main(["check", str(path)]) == 2
    assert "--config: expected one" in capsys.readouterr().err
    command = ["check", str(path), "--config", str(toml), "-o", str(picture)]
    assert main(command) == 0
    out = capsys.readouterr().out
    known = pendel.check(dataclasses.replace(ball, S=np.abs(ball.S), polarization={"pi": 1.0}))
    size, refraction = (float(out.split(word)[1].split()[0].rstrip(",)")) for word in ("Au of ", "(refraction "))
    assert size == pytest.approx(2e9 * RADIUS, rel=0.05)  # voxels of 50 nm and more
    assert refraction == pytest.approx(known.error.phase_rms[0], rel=0.1)
    assert kinds.kind_of(picture) == kinds.PICTURE
    assert main([*command, "--twin"]) == 0


def test_a_folder_of_cohere_is_checked_too(tmp_path, capsys):
    """cohere keeps image[col, row, frame], conjugated."""
    toml, folder = tmp_path / "run.toml", tmp_path / "results_phasing"
    toml.write_text(CONFIG)
    folder.mkdir()
    obj = on_its_data_grid(experiment())
    np.save(folder / "image.npy", obj.conj().transpose(2, 1, 0))
    np.save(folder / "support.npy", (obj != 0).transpose(2, 1, 0).astype(np.uint8))
    assert main(["check", str(folder), "--config", str(toml)]) == 0
    from_cohere = capsys.readouterr().out
    assert kinds.kind_of(tmp_path / "results_phasing.check.png") == kinds.PICTURE

    io.write_result(tmp_path / "pynx.cxi", S=obj, voxel=(1e-8, 1e-8, 1e-8), support=obj != 0)
    with h5py.File(tmp_path / "pynx.cxi", "a") as file:
        del file["entry_1/process_1/configuration/voxel"]
    assert main(["check", str(tmp_path / "pynx.cxi"), "--config", str(toml)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == from_cohere.splitlines()[0]

    assert main(["check", str(folder)]) == 2
    assert "--config: expected one" in capsys.readouterr().err


def test_the_command_writes_over_nothing(ball, tmp_path, capsys):
    path, toml = tmp_path / "result.cxi", tmp_path / "run.toml"
    io.write_result(path, ball)
    toml.write_text(CONFIG)
    files = {file: file.read_bytes() for file in (path, toml)}
    (tmp_path / "result.check.png").write_text("not a picture of pendel")
    for arguments, message in (
        (["check", str(path)], "-o: "),
        (["check", str(path), "--force", "-o", str(path)], "-o: expected another file than RESULT.cxi reads"),
        (["check", str(path), "--config", str(toml), "--force", "-o", str(toml)], "-o: expected another file"),
        (["check", str(path), "-o", str(tmp_path / "maps.nothing")], "-o: expected an ending out of"),
        (
            ["check", str(tmp_path / "none.cxi")],
            "RESULT.cxi: expected a result file or a folder",
        ),
        (["check", str(path), "--config", str(tmp_path / "none.toml"), "--force"], ""),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"pendel: error: {message}") and captured.err.count("\n") == 1
    assert {file: file.read_bytes() for file in files} == files
    assert (tmp_path / "result.check.png").read_text() == "not a picture of pendel"
