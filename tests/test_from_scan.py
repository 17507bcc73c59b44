"""The geometry of a measured scan, of what its file says and what is said beside it."""

import dataclasses

import numpy as np
import pytest
from pendel import Crystal, Experiment, io, solve
from pendel.experiment.direct_beam import arm_through_pixel

ARM = (("y+", np.deg2rad(32.0)), ("x-", np.deg2rad(12.0)))


def scan(**changes):
    known = {
        "energy": 1.44e-15,
        "distance": 0.5,
        "pixel_size": (55e-6, 55e-6),
        "arm": ARM,
        "rocking_axis": "y+",
        "rocking_angles": np.deg2rad(0.01) * np.arange(10),
        "centre": (4.5, 10.0, 14.0),
    }
    return io.Scan(np.ones((10, 20, 24), np.int32), np.ones((20, 24), bool), **known | changes)


def test_the_file_says_all():
    made = Experiment.from_scan(scan())
    expected = Experiment(
        energy=1.44e-15,
        distance=0.5,
        pixel_size=55e-6,
        detector_shape=(20, 24),
        arm=ARM,
        rocking_axis="y+",
        rocking_angles=np.deg2rad(0.01) * np.arange(10),
        centre=(4.5, 10.0, 14.0),
    )
    assert np.array_equal(made.dq, expected.dq) and made.centre == expected.centre and made.energy == expected.energy
    other = Experiment.from_scan(scan(energy=None, arm=None), energy_keV=9.0, two_theta_deg=40.0, distance=0.6)
    assert other.energy == pytest.approx(9e3 * 1.602176634e-19) and other.distance == 0.6
    assert np.degrees(other.two_theta) == pytest.approx(40)


def test_k_h_goes_through_the_centre_where_the_direct_beam_is_known():
    measured = scan(metadata={"direct_beam": [30.0, 40.0]})
    made = Experiment.from_scan(measured)
    pixels = {"pixel": (10, 14), "direct_beam": (30, 40), "distance": 0.5, "pixel_size": 55e-6}
    arm, distance = arm_through_pixel(ARM, **pixels)
    assert made.arm == arm and made.distance == distance and made.two_theta != Experiment.from_scan(scan()).two_theta
    # cropped frames begin elsewhere, the pixel is the same one
    cut = io.crop_scan(measured, shape=(12, 12))
    assert Experiment.from_scan(cut).k_h == pytest.approx(made.k_h, rel=1e-12)
    assert Experiment.from_scan(dataclasses.replace(measured), arm=ARM).arm == ARM  # it is said otherwise


def test_what_nobody_says_is_named():
    bare = io.Scan(np.ones((10, 20, 24)), np.ones((20, 24), bool))
    wanted = "distance, pixel_size, rocking_axis, energy, arm, rocking_angles: expected in the scan or beside it"
    with pytest.raises(TypeError, match=wanted):
        Experiment.from_scan(bare)
    with pytest.raises(TypeError, match="^rocking_angles: expected in the scan or beside it, got neither"):
        Experiment.from_scan(scan(rocking_angles=None))


def test_what_is_no_scan_is_refused():
    with pytest.raises(TypeError, match="^scan: expected a Scan, .* got 'scan.cxi'"):
        Experiment.from_scan("scan.cxi")


def test_a_scan_in_place_of_its_data_is_called_one():
    measured = scan()
    with pytest.raises(TypeError, match="^data: expected an array of numbers, got a Scan$"):
        solve(Experiment.from_scan(measured), Crystal(-1e-5, 1e-5), measured)
