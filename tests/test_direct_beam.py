"""Detectors off the centre of their arm: k_h goes through the pixel that it hits, wherever the arm points."""

from dataclasses import replace

import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.experiment.direct_beam import arm_through_pixel
from pendel.experiment.geometry import Experiment, rotation

ARM = (("y+", 0.56), ("x-", 0.22))
GEOMETRY = {"distance": 0.5, "pixel_size": 55e-6}
OTHERS = {"energy": 1.44e-15, "pixel_size": 55e-6, "rocking_angles": np.linspace(-1e-3, 1e-3, 11)}


def directions(direct_beam, pixels):
    """(pixel, 3) from the sample to pixels (row, col) of a detector on a turned arm, m: plain geometry."""
    turn = rotation("y+", 0.56) @ rotation("x-", 0.22)
    rows, columns = (np.asarray(pixels, float) - direct_beam).T * 55e-6
    return (turn @ np.stack([columns, -rows, np.full(len(columns), 0.5)])).T


@pytest.mark.parametrize("direct_beam", [(128, 128), (40.25, 300.5), (-200, 128), (600, -90)])
def test_k_h_goes_through_the_pixel(direct_beam):
    pixel = (126.9, 127.4)
    arm, distance = arm_through_pixel(ARM, pixel=pixel, direct_beam=direct_beam, **GEOMETRY)
    line = directions(direct_beam, [pixel])[0]
    experiment = Experiment(arm=arm, distance=distance, detector_shape=(256, 256), centre=(5, *pixel), **OTHERS)
    assert distance == pytest.approx(np.linalg.norm(line), rel=1e-14)
    assert experiment.k_h / experiment.k == pytest.approx(line / distance, abs=1e-14)


def test_pixels_beside_it_lie_where_they_are():
    direct_beam, pixel = (300.0, -80.0), (126.0, 127.0)
    beside = [(126.0, 137.0), (116.0, 127.0), (136.0, 117.0)]
    arm, distance = arm_through_pixel(ARM, pixel=pixel, direct_beam=direct_beam, **GEOMETRY)
    experiment = Experiment(arm=arm, distance=distance, detector_shape=(256, 256), centre=(5, *pixel), **OTHERS)
    true, centre = directions(direct_beam, beside), directions(direct_beam, [pixel])[0]
    q = true / np.linalg.norm(true, axis=1)[:, None] - centre / np.linalg.norm(centre)
    found = experiment.detector_q()[[126, 116, 136], [137, 127, 117]] * experiment.wavelength
    # 10 pixels of 1.1e-4 rad; the tilt of 0.03 rad changes them by 1e-3 of themselves at most, the arc by 6e-7 rad
    assert found == pytest.approx((q @ experiment.frame.T)[:, :2], abs=2.5e-6)
    naive = Experiment(arm=ARM, distance=0.5, detector_shape=(256, 256), centre=(5, *pixel), **OTHERS)
    assert np.linalg.norm(naive.k_h - experiment.k_h) > 0.02 * experiment.k


def test_an_arm_that_points_at_the_pixel_stays():
    arm, distance = arm_through_pixel(ARM, pixel=(3, 4), direct_beam=(3, 4), **GEOMETRY)
    assert distance == 0.5 and arm[:2] == ARM and [angle for _, angle in arm[2:]] == [0, 0]


def test_a_direct_beam_far_off_is_named():
    with pytest.raises(
        ValueError, match=r"direct_beam: expected a pixel within 0.3 rad of the pattern at \[1.0, 2.0\]"
    ):
        arm_through_pixel(ARM, pixel=(1, 2), direct_beam=(1, 4000), **GEOMETRY)


def test_the_configuration_takes_it_in_pixels_of_the_data_as_stored():
    data = np.zeros((5, 60, 70), np.float32)
    data[2, 41, 22] = 100
    scan = io.Scan(
        data=data,
        mask=np.ones((60, 70), bool),
        rocking_angles=np.linspace(-1e-3, 1e-3, 5),
        energy=1.44e-15,
        distance=0.5,
        pixel_size=(55e-6, 55e-6),
        centre=(2.0, 41.0, 22.0),
        arm=ARM,
        rocking_axis="y+",
    )
    made = config.loads("[experiment]\ndirect_beam = [10, 64]")
    whole = made.experiment(scan)
    cropped = made.experiment(io.crop_scan(scan, shape=(20, 20)))
    line = directions((10, 64), [(41, 22)])[0]
    assert whole.k_h / whole.k == pytest.approx(line / np.linalg.norm(line), abs=1e-14)
    assert cropped.k_h == pytest.approx(whole.k_h, rel=1e-14) and cropped.distance == whole.distance
    scan.metadata["direct_beam"] = [10, 64]  # as a reader found it
    assert config.loads("").experiment(scan).k_h == pytest.approx(whole.k_h, rel=1e-14)

    for text in ("arm = [['y+', 30], ['x-', 12]]", "two_theta_deg = 30"):  # set: no file turns it unasked
        made = config.loads(f"[experiment]\n{text}")
        with pytest.warns(UserWarning, match=r"experiment.direct_beam: .* the data's \[10.0, 64.0\]"):
            found = made.experiment(scan)
        assert found.distance == 0.5
        assert found.k_h == pytest.approx(made.experiment(replace(scan, metadata={})).k_h, rel=1e-14)
    told = config.loads("[experiment]\ndirect_beam = [10, 64]\ntwo_theta_deg = 30").experiment(scan)
    assert told.distance == whole.distance

    scan.metadata["direct_beam"] = [41.4, 22.4]  # within the pattern's own pixel: nothing to tell
    assert made.experiment(scan).distance == 0.5
