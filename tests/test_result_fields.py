"""Strain and displacement of a result: known to the surface, and said where they are not."""

import dataclasses

import numpy as np
import pendel
import pytest
from pendel import io
from pendel.analysis import plot
from pendel.base.symmetry import strain
from pendel.fit.result import Result

TWO_THETA = np.deg2rad(44.76)
H = 2 * np.pi / 1.55e-10 * np.array([-np.sin(TWO_THETA), 0, 1 - np.cos(TWO_THETA)])
VOXEL = 2e-8


def result(inside, displacement):
    S = np.where(inside, np.exp(-1j * np.linalg.norm(H) * displacement), 0)
    fields = {"scale": 1.0, "misfit": 0.0, "history": {}, "epochs": 1, "seed": 0}
    return Result(S=S, support=inside, voxel=(VOXEL,) * 3, h=H, **fields)


def cube(n, room=4):
    """(inside, coordinate along h, x, m) of a cube of n voxels, which may touch the box."""
    inside = np.zeros((n + 2 * room,) * 3, bool)
    inside[(slice(room, room + n),) * 3] = True
    z, _, x = np.meshgrid(*[(np.arange(n + 2 * room) - room - n / 2) * VOXEL] * 3, indexing="ij")
    return inside, (H[0] * x + H[2] * z) / np.linalg.norm(H), x


@pytest.mark.parametrize("room", [0, 4])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_uniform_strain_is_met_to_the_surface(n, room):
    inside, along, _ = cube(n, room)
    found = result(inside, 3e-4 * along)
    np.testing.assert_allclose(found.strain[inside], 3e-4, rtol=1e-6)
    assert not found.strain[~inside].any()


def test_a_film_of_one_voxel_has_an_unknown_strain():
    inside, along, _ = cube(6)
    inside[:, :, :6] = inside[:, :, 7:] = False  # one voxel wide in x
    found = result(inside, 3e-4 * along).strain
    assert np.isnan(found[inside]).all() and (found[~inside] == 0).all()


def test_central_differences_are_as_they_were():
    inside, along, _ = cube(8)
    S = result(inside, 3e-4 * along + 1e3 * along**2).S
    plain, known = strain(S, (VOXEL,) * 3, H)
    every, everywhere = strain(S, (VOXEL,) * 3, H, one_sided=True)
    assert known.sum() == 6**3 and everywhere.sum() == 8**3
    assert (plain[known] == every[known]).all()


def test_a_displacement_of_several_spacings_is_said_to_be_modulo_one(tmp_path):
    inside, _, x = cube(20)
    found = result(inside, 2e-3 * x)
    wrapped = (found.displacement[inside] - 2e-3 * x[inside]) / found.spacing
    offset = wrapped - wrapped[0]
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-6)
    assert np.ptp(offset) > 2 and "Modulo the lattice spacing" in Result.displacement.__doc__

    stored = {"S": found.S, "voxel": found.voxel, "displacement": found.displacement, "strain": found.strain}
    io.write_result(tmp_path / "r.cxi", displacement_modulo=found.spacing, support=inside, **stored)
    back = io.read_result(tmp_path / "r.cxi")
    assert back.displacement_modulo == pytest.approx(2.035e-10, rel=1e-3)
    titles = [axes.get_title() for axes in plot.result_figure(back).axes]
    assert any("displacement along h mod 203.5 pm" in title for title in titles)


def test_a_result_is_told_in_five_lines_and_saved(tmp_path, gold_cube):
    data = gold_cube.model.intensities(gold_cube.truth)
    found = pendel.reconstruct(gold_cube.model, data, start=gold_cube.truth, epochs=1, progress=False)
    lines = repr(found).splitlines()
    assert len(lines) == 5 and lines[0].startswith(f"Result: S {found.S.shape} complex64, voxel ")
    assert f"{found.support.sum()} voxels in the support" in lines[1] and f"{found.misfit:.3e}" in lines[3]
    assert lines[4] == "  trust: not judged"

    with pytest.raises(ValueError, match="model: expected the Model of the fit, got None"):
        found.save(tmp_path / "r.cxi")
    with pytest.raises(TypeError, match="^model: expected a Model, got 5"):
        found.save(tmp_path / "r.cxi", 5)
    other = dataclasses.replace(found, voxel=(1e-9, 1e-9, 1e-9))
    with pytest.raises(ValueError, match="^model: expected that of the result, shape and voxel"):
        other.save(tmp_path / "r.cxi", gold_cube.model)
    with pytest.raises(ValueError, match="^data: expected shape"):
        found.save(tmp_path / "r.cxi", gold_cube.model, data[:3])
    assert not (tmp_path / "r.cxi").exists()
    found.save(tmp_path / "r.cxi", gold_cube.model)
    alone = io.read_result(tmp_path / "r.cxi")
    assert np.array_equal(alone.S, found.S) and alone.rocking_measured is None
    found.save(tmp_path / "r.cxi", gold_cube.model, data, name="cube")  # an old result is replaced
    whole = io.read_result(tmp_path / "r.cxi")
    assert whole.name == "cube" and whole.rocking_measured.shape == (gold_cube.model.n_frames,)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        found.save(tmp_path / "notes.txt", gold_cube.model)
    found.save(tmp_path / "notes.txt", gold_cube.model, force=True)
    assert np.array_equal(io.read_result(tmp_path / "notes.txt").S, found.S)


def test_an_empty_result_has_a_repr():
    inside, along, _ = cube(4)
    assert "0 voxels in the support, 0 x 0 x 0 nm" in repr(result(np.zeros_like(inside), along))
