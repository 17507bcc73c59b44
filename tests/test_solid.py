"""Crystals of an extinction length and more: perfect ones of a shape, and the way to them from nothing."""

import dataclasses

import numpy as np
import pytest
from cube import AU, QUIET, make_model
from pendel import Experiment, Model, compare, multiscale, phantom
from pendel.app import demo
from pendel.recipes.thick_crystals import SOLID, extinction_length, search_solid, solid, thick
from scan import SAMPLES
from scipy import ndimage


def thick_model(n=32, edge=2.6e-6, polarization=("sigma",), **options):
    two_theta, wavelength = np.deg2rad(44.76), 1.5498e-10
    experiment = Experiment(
        wavelength=wavelength, distance=2.05 * edge * 55e-6 / wavelength, pixel_size=55e-6, detector_shape=(n, n),
        arm=(("y+", two_theta),), rocking_angles=np.deg2rad(np.linspace(-0.1, 0.1, n + 1)) * (1e-6 / edge),
    )  # fmt: skip
    voxel = experiment.suggest_voxel()
    shape = tuple(2 * int(np.ceil(0.62 * c * edge / v)) for c, v in zip((1.31, 1.0, 1.31), voxel, strict=True))
    fractions = {state: 1 / len(polarization) for state in polarization}
    return Model(experiment, AU, shape, voxel, polarization=fractions, threads=2, **options)


def thick_cube(model, edge=2.6e-6):
    turn = phantom.orientation((0, 0, 1), model.experiment.frame @ model.experiment.h)
    z, y, x = phantom.coordinates(model.shape, model.voxel)
    phase = 1.2 * np.exp(-((x - 0.2 * edge) ** 2 + y**2 + (z + 0.2 * edge) ** 2) / (0.5 * edge) ** 2)
    return phantom.crystal_function(phantom.cube(model.shape, model.voxel, edge, turn), phase)


def test_extinction_length_is_that_of_the_stronger_state():
    by_hand = 1.5498e-10 * np.sqrt(np.cos(np.deg2rad(44.76))) / abs(AU.chi_h)
    assert extinction_length(thick_model()) == pytest.approx(by_hand, rel=1e-9) == pytest.approx(2469e-9, rel=1e-3)
    in_plane = extinction_length(thick_model(polarization=("pi",)))
    assert in_plane == pytest.approx(by_hand / np.cos(np.deg2rad(44.76)), rel=1e-9)


def test_what_is_thick():
    assert thick(thick_model()) and not thick(thick_model(edge=1.2e-6))
    assert not thick(thick_model(coupling="kinematic")) and not thick(demo.model(32))


def test_solid_has_no_holes_and_keeps_phases_and_faces():
    shape, voxel = (32, 32, 32), (1.0, 1.0, 1.0)
    body = phantom.cube(shape, voxel, 21.0)
    z, y, x = phantom.coordinates(shape, voxel)
    phase = 0.05 * x + 0.03 * y - 0.02 * z
    striped = body * (0.8 + 0.2 * np.cos(2.0 * x)) * (np.abs(z) > 0.6)  # cut in two
    striped[1:3, 1:3, 1:3] = 1  # and a splinter
    S, inside = solid((striped * np.exp(1j * phase)).astype(np.complex64))
    wanted = body > 0.5
    core = ndimage.binary_erosion(wanted, iterations=3)
    assert inside[core].all() and not inside[~wanted].any() and ndimage.label(inside)[1] == 1
    assert inside[6:27, 16, 16].sum() == wanted[6:27, 16, 16].sum()  # the faces stay; edges are rounded
    np.testing.assert_allclose(np.abs(S[core]), 1, atol=1e-3)
    assert np.abs(np.angle(S * np.exp(-1j * phase)))[core].max() < 0.05
    assert S.dtype == np.complex64 and np.abs(S).max() < 1 + 1e-6 and abs(S[2, 2, 2]) < 1e-3
    with pytest.raises(ValueError, match="S: expected a non-zero function in its support, got zeros"):
        solid(0 * S, inside)
    with pytest.raises(ValueError, match="blur: expected"):
        solid(S, blur=0)
    with pytest.raises(ValueError, match="support: expected shape"):
        solid(S, inside[0])


@dataclasses.dataclass
class Found:
    S: np.ndarray
    support: np.ndarray
    misfit: float


def test_searches_end_where_nothing_gets_better_and_the_best_one_is_taken():
    model, asked = make_model(), []
    z, y, x = (c / v for c, v in zip(phantom.coordinates(model.shape, model.voxel), model.voxel, strict=True))

    def scripted(misfits):
        def search(start, cycle, S, support):
            asked.append((start, cycle, int(support.sum())))
            if start is None:  # the slow ones at the end
                return Found(S, support, [0.017, 0.008, 0.0079][cycle])
            height = 2 + start + 2 * cycle  # each finds another crystal
            found = ((np.abs(z) < height) & (np.abs(y) < 6) & (np.abs(x) < 6)).astype(np.complex64)
            return Found(found, found != 0, misfits[start][cycle])

        asked.clear()
        return search

    stale = [1.0, 0.5, *[0.495] * SOLID.wait]
    S, support = search_solid(
        model, scripted([stale, [0.8, 0.4, 0.8 * 0.9 * SOLID.home, *[1.0] * SOLID.wait]]), starts=3
    )
    ended = [(0, c) for c in range(2 + SOLID.wait)] + [(1, c) for c in range(3 + SOLID.wait)]  # no third one
    ended += [(None, 0), (None, 1), (None, 2)]  # whose misfit is no longer halved
    assert [a[:2] for a in asked] == ended
    assert asked[0][2] > asked[2 + SOLID.wait][2] and SOLID.sizes[0] > SOLID.sizes[1]
    assert np.abs(S[:, 10, 10]).round().sum() == pytest.approx(2 * 6 + 1, abs=2)  # of start 1, cycle 2: |z| < 7
    assert np.abs(S[~support]).max() < 0.01  # the blur of its surface
    search_solid(model, scripted([stale]), support=support, starts=3)
    assert [a[0] for a in asked] == [0] * (2 + SOLID.wait) + [None] * 3 and asked[0][2] == support.sum()


def test_a_thick_crystal_from_nothing():
    model = thick_model(**SAMPLES)
    S = thick_cube(model)
    few = {"starts": 1, "steps": 800, "rounds": 1, "iterations": (0, 20), "places": False, "seed": 1, **QUIET}
    result = multiscale(model, model.intensities(S), **few)
    assert compare(result.S, S, model.voxel).phase_rmse < 0.1 and result.misfit < 1e-3


def test_solid_in_a_given_support_and_resumed(tmp_path):
    model = thick_model()
    S = thick_cube(model)
    support = ndimage.binary_dilation(np.abs(S) > 0.5, iterations=2)
    few = {"steps": 80, "rounds": 1, "iterations": (0, 3), "places": False, "checkpoint": tmp_path / "c.h5", **QUIET}
    few |= {"solid": SOLID.but(cycles=2, slow=1)}
    data = model.intensities(S)
    found = multiscale(model, data, None, "solid", support, **few)
    # two cycles keep what they began with and GROW voxels around it
    assert not found.support[~ndimage.binary_dilation(support, iterations=6)].any()
    again = multiscale(model, data, None, "solid", support, resume=True, **few)
    assert np.array_equal(again.S, found.S)
    with pytest.raises(ValueError, match=r"support: expected shape \(nz, ny, nx\)"):
        multiscale(model, data, None, "flat", support[0], **few)
    with pytest.raises(ValueError, match="starts: expected an integer >= 1, got 0"):
        multiscale(model, data, starts=0, **few)


@pytest.mark.parametrize("sizes", [(), 3, "ab"])
def test_sizes_that_are_none_are_named(sizes):
    with pytest.raises(TypeError, match="sizes: expected a list of one or more numbers, got"):
        dataclasses.replace(SOLID, sizes=sizes)
