"""Frames without light, masked or saturated are told of at once, in words."""

import warnings

import numpy as np
import pytest
from pendel import io
from pendel.app import config
from pendel.app.errors import ConfigError

BEAM = {"energy": 8e3 * 1.602176634e-19, "distance": 0.75, "pixel_size": 75e-6}


@pytest.fixture
def data():
    """A peak of Poisson counts in 12 frames."""
    z, y, x = np.meshgrid(np.arange(12) - 6, np.arange(16) - 8, np.arange(16) - 8, indexing="ij")
    return np.random.default_rng(0).poisson(5e4 * np.exp(-(x**2 + y**2 + z**2) / 8)).astype(np.int32)


def told(data, mask=None):
    """What is said of a scan."""
    mask = np.ones(data.shape[1:], bool) if mask is None else mask
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        io.tell_of_frames(io.Scan(data, mask))
    return [str(warning.message) for warning in seen]


def test_a_good_scan_is_not_talked_about(data):
    weak = data.copy()
    weak[[1, -2]] //= 2000
    weak[0] = weak[-1] = 0  # the ends of a rocking curve may be dark
    assert told(data) == told(weak) == told(data.astype(np.float32) / 7) == []


def test_dark_and_masked_scans_are_refused(data):
    with pytest.raises(ValueError, match="^data: expected a Bragg peak, got no counts in good pixels"):
        told(np.zeros_like(data))
    with pytest.raises(ValueError, match="^mask: expected at least one good pixel"):
        told(data, np.zeros(data.shape[1:], bool))
    with pytest.raises(ValueError, match="^data: expected a Bragg peak, got no counts"):
        told(data, data == 0)


def test_dark_and_masked_frames_are_named(data):
    closed = data.copy()
    closed[-4:] = 0  # the shutter, before the end
    said = "data: expected light in frames beside others that have much, got {} without any count: {}"
    assert told(closed) == [said.format(4, "8, 9, 10, 11")]
    data[[5, 7]] = 0
    assert told(data) == [said.format(2, "5, 7")]
    mask = np.ones(data.shape, bool)
    mask[[5, 7]] = False
    assert told(data, mask) == ["data: expected frames with good pixels, got 2 masked as a whole: 5, 7"]


def test_frames_are_told_of_once(data, tmp_path):
    data[5] = 0
    io.write_scan(tmp_path / "a.cxi", data, **BEAM)
    with pytest.warns(UserWarning) as seen:
        config.loads("").scan(tmp_path / "a.cxi")
    assert len(seen) == 1 and "1 frames have no count, beside frames that have many" in str(seen[0].message)


def test_zeros_of_a_weak_fringe_are_no_fault():
    data = np.zeros((9, 8, 8), np.int32)
    data[:, 4, 4] = [0, 2, 0, 60, 900, 5000, 150, 0, 12]
    assert told(data) == []


def test_saturated_pixels_are_told_of_and_masked_where_the_count_is_given(data):
    clipped = np.minimum(data, 20000)
    (said,) = told(clipped)
    assert "at the largest, 20000, as saturated ones are; mask them with data.saturation" in said
    scan = io.mask_saturated(io.Scan(clipped, np.ones(data.shape[1:], bool)), 20000)
    assert (scan.mask == (data < 20000)).all() and told(scan.data, scan.mask) == []
    assert io.mask_saturated(scan, 1e9) is scan
    for wrong, kind in ((0, ValueError), ("1", TypeError)):
        with pytest.raises(kind, match="^saturation: expected"):
            io.mask_saturated(scan, wrong)


def test_a_configuration_masks_saturated_pixels(data, tmp_path):
    io.write_scan(tmp_path / "a.cxi", np.minimum(data, 20000), **BEAM)
    with pytest.warns(UserWarning, match="data.saturation"):
        config.loads("").scan(tmp_path / "a.cxi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan = config.loads("data.saturation = 20000.0").scan(tmp_path / "a.cxi")
    assert (scan.mask == (data < 20000)).all()
    with pytest.raises(ConfigError, match=r"^data\.saturation: expected"):
        config.loads("data.saturation = 0")
    io.write_scan(tmp_path / "dark.cxi", np.zeros_like(data), **BEAM)
    with pytest.raises(ValueError, match="^data: expected a Bragg peak, got no counts"):
        config.loads("").scan(tmp_path / "dark.cxi")
