"""What is said of a result: found, found with doubts, not found, and why."""

import dataclasses

import numpy as np
import pytest
from pendel.recipes.trust import Trust, cut_axes, excess_of, misses, turns_of

GOOD = Trust(misfit=7e-4, noise=7.5e-4, grid=1e-4, excess=0.95, variance=1.0, twin=4.0)


def test_photon_noise_alone_is_found():
    assert GOOD.verdict == "found" and GOOD.doubts == ()
    assert (
        str(GOOD) == "found: misfit 7.00e-04, photon noise 7.50e-04, voxels 1.00e-04: photon noise explains the misfit"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"excess": 2.5}, "residuals are 2.5 times photon noise (mean square): the model misses something; look"),
        ({"frame": 12, "frame_excess": 9.0}, "frame 12 is missed by 9.0 times photon noise"),
        ({"twin": 1.01}, "the conjugate twin fits as well (misfit 1.01"),
        ({"twin": 0.7}, "the conjugate twin fits as well (misfit 0.70"),
        ({"turns": 0.03}, "turns by more than pi/2 between 3.0% of the neighbouring voxels"),
        ({"cut": "zx"}, "touches the box along z, x: give a larger box"),
    ],
)
def test_every_doubt_is_said(changes, said):
    trust = dataclasses.replace(GOOD, **changes)
    assert trust.verdict == "found, with doubts"
    (doubt,) = trust.doubts
    assert said in doubt and str(trust).startswith("found, with doubts: misfit") and doubt in str(trust)


@pytest.mark.parametrize("changes", [{"twin": None}, {"excess": 1.9}, {"frame_excess": 3.9}, {"turns": 0.009}])
def test_what_right_crystals_show_is_no_doubt(changes):
    assert dataclasses.replace(GOOD, **changes).verdict == "found"


def test_another_crystal_is_not_found():
    trust = dataclasses.replace(GOOD, misfit=0.063, excess=70.0)
    assert trust.verdict == "not found" and misses(trust, trust.noise) and not misses(GOOD, GOOD.noise)
    assert str(trust).startswith("not found: misfit 6.30e-02") and "try other seeds" in str(trust)
    assert "mask it" not in str(dataclasses.replace(trust, frame=12, frame_excess=900.0))
    # as dark as this, noise is as large
    assert dataclasses.replace(trust, noise=0.06, excess=1.0).verdict == "found"


def test_what_is_no_number_is_not_found():
    assert dataclasses.replace(GOOD, misfit=np.nan).verdict == "not found"
    assert dataclasses.replace(GOOD, noise=np.nan).verdict == "not found"
    assert dataclasses.replace(GOOD, excess=np.nan).verdict == "found, with doubts"


def test_turns_of():
    phase = np.zeros((4, 5, 6))
    phase[2:] = 2.0
    inside = np.ones(phase.shape, bool)
    pairs = 3 * 30 + 4 * 4 * 6 + 4 * 5 * 5
    assert turns_of(np.exp(1j * phase), inside) == 30 / pairs
    assert turns_of(np.exp(0.7j * phase), inside) == 0
    inside[2:] = False
    assert turns_of(np.exp(1j * phase), inside) == 0
    assert turns_of(np.exp(1j * phase), np.zeros(phase.shape, bool)) == 0


def test_cut_axes():
    inside = np.zeros((4, 5, 6), bool)
    inside[1:3, 1:4, 1:5] = True
    assert cut_axes(inside) == ""
    inside[0, 2, 2] = inside[2, 2, 5] = True
    assert cut_axes(inside) == "zx"


def test_excess_of_photon_noise_is_one(rng):
    expected = np.exp(rng.uniform(-1, 6, (9, 24, 24)))
    data = rng.poisson(expected)
    excess, _, worst = excess_of(expected, data)
    # 5184 squares, each of which has a relative variance of 2 and more: 1/sqrt(2592) is 0.02
    assert excess == pytest.approx(1, abs=0.1) and 1 < worst < 1.5

    data[5] = rng.poisson(3 * expected[5])
    excess, frame, worst = excess_of(expected, data)
    assert frame == 5 and worst > 5 * excess
    mask = np.ones(data.shape, bool)
    mask[5] = False
    assert excess_of(expected, data, mask)[0] == pytest.approx(1, abs=0.1)
    assert excess_of(expected, data, mask[5:6].repeat(9, 0)) == (1.0, 0, 1.0)
    # bad pixels hold what detectors write there
    bad = data.astype(float)
    bad[0, :4], bad[1, :4], mask[:2, :4] = -1, np.nan, False
    with np.errstate(all="raise"):
        assert excess_of(expected, bad, mask)[0] == pytest.approx(1, abs=0.1)
    # a frame of few pixels is not judged alone
    expected[5, 3:] = 0.1
    assert excess_of(expected, data)[1] != 5
