"""`Experiment.from_scan`: what a scan knows, and what is given in its place; beside test_from_scan."""

import numpy as np
import pendel
import pytest
from pendel.app import config
from pendel.io import Scan, crop_scan

ARM = (("y+", np.deg2rad(32.0)), ("x-", np.deg2rad(12.0)))
KNOWN = {
    "rocking_angles": np.deg2rad(np.linspace(-0.1, 0.1, 11)),
    "energy": 9e3 * 1.602176634e-19,
    "distance": 0.5,
    "pixel_size": (55e-6, 55e-6),
    "centre": (5.0, 15.0, 18.0),
    "arm": ARM,
    "rocking_axis": "y+",
}


def scan(**changes):
    return Scan(np.zeros((11, 32, 36), np.float32), np.ones((32, 36), bool), **KNOWN | changes)


def test_what_the_scan_knows():
    found = pendel.Experiment.from_scan(scan())
    wanted = pendel.Experiment(detector_shape=(32, 36), **KNOWN)
    assert np.array_equal(found.dq, wanted.dq) and np.array_equal(found.k_h, wanted.k_h)
    assert found.centre == (5, 15, 18) and found.detector_shape == (32, 36)


@pytest.mark.parametrize(
    ("given", "differs"),
    [
        ({"energy_keV": 8.0}, "k"),
        ({"wavelength": 1.5e-10}, "k"),
        ({"two_theta_deg": 40.0}, "two_theta"),
        ({"k_h": (0.6, 0.1, 0.8)}, "two_theta"),
        ({"centre": (4, 15, 18)}, "centre"),
        ({"rocking_angles_deg": np.linspace(-0.2, 0.2, 11)}, "rocking_angles"),
    ],
)
def test_what_is_given_counts(given, differs):
    found, known = pendel.Experiment.from_scan(scan(), **given), pendel.Experiment.from_scan(scan())
    without = {"energy_keV": "energy", "wavelength": "energy", "two_theta_deg": "arm", "k_h": "arm"}
    without |= {"centre": "centre", "rocking_angles_deg": "rocking_angles"}
    (name,) = given
    rest = {key: value for key, value in KNOWN.items() if key != without[name]}
    wanted = pendel.Experiment(detector_shape=(32, 36), **rest, **given)
    assert np.array_equal(found.dq, wanted.dq) and np.array_equal(found.k_h, wanted.k_h)
    assert not np.array_equal(getattr(found, differs), getattr(known, differs))


def test_the_arm_of_a_direct_beam_is_that_of_the_command_line():
    known = crop_scan(scan(metadata={"direct_beam": [40.0, -20.0]}), shape=(24, 24))
    found = pendel.Experiment.from_scan(known)
    wanted = config.loads("[experiment]").experiment(known)
    assert np.allclose(found.k_h, wanted.k_h, rtol=1e-14) and found.distance == wanted.distance
    assert not np.allclose(found.k_h, pendel.Experiment.from_scan(known, arm=ARM).k_h, rtol=1e-3)


def test_a_direct_beam_without_data():
    """Of frames that are simulated: pixels are those of the detector."""
    given = (
        'energy_keV = 9.0\ndistance_mm = 500\npixel_um = 55\narm = [["y+", 32.0]]\nrocking_axis = "y+"\n'
        "rocking_step_deg = 0.01\nrocking_frames = 11\ndetector_shape = [24, 24]\n"
    )
    middle = config.loads(f"[experiment]\n{given}direct_beam = [12, 12]").experiment()
    assert np.allclose(middle.k_h, config.loads(f"[experiment]\n{given}").experiment().k_h, rtol=1e-12)
    beside = config.loads(f"[experiment]\n{given}direct_beam = [12, 112]").experiment()
    # 100 columns of 55 um at 0.5 m; columns grow away from the beam, along x, as y+ turns
    assert np.degrees(beside.two_theta) == pytest.approx(32 - np.degrees(np.arctan(100 * 55e-6 / 0.5)))
