"""Several scans of one peak: the drift between them is found, removed, and their sum is what one longer scan gives."""

import dataclasses
import warnings

import numpy as np
import pytest
from pendel import io
from pendel.app import config

SHAPE, CENTRE = (25, 40, 44), (12.2, 19.4, 22.7)
STEP = 1e-4


def pattern(moved=(0, 0, 0), brightest=1000.0):
    """Fringes and a few speckles, where a crystal that has moved by (frame, row, col) leaves them."""
    grids = np.indices(SHAPE, float) - (np.array(CENTRE) + moved).reshape(3, 1, 1, 1)
    waves = np.random.default_rng(5).normal(0, 0.25, (12, 3))
    amplitude = sum(np.exp(1j * np.tensordot(wave, grids, 1)) * (-1) ** i for i, wave in enumerate(waves))
    intensity = np.abs(amplitude) ** 2 * np.exp(-sum((g / 6) ** 2 for g in grids))
    return brightest * intensity / intensity.max()


def scan(data, **changes):
    mask = np.ones(SHAPE[1:], bool)
    mask[:, 27:29], mask[10, 20] = False, False
    known = {"energy": 1.44e-15, "distance": 0.5, "pixel_size": (55e-6, 55e-6), "rocking_axis": "y+"}
    known |= {"arm": (("y+", 0.5), ("x-", 0.2)), "rocking_angles": STEP * np.arange(len(data)), "centre": CENTRE}
    return io.Scan(**{"data": data * mask, "mask": mask} | known | changes)


@pytest.mark.parametrize("moved", [(0.4, 0, 0), (0, 0.5, -0.25), (-2.3, 1.6, 3.45)])
def test_the_drift_is_found_and_removed(moved):
    total = io.sum_scans([scan(pattern()), scan(pattern(moved))])
    # 0.03 pixels: the gap through the peak leaves its smoothed edges; without a gap it is 1e-3
    assert total.metadata["drift"][1] == pytest.approx(moved, abs=0.03)
    first = round((total.rocking_angles[0]) / STEP)
    good = np.broadcast_to(total.mask, total.data.shape)
    true = 2 * pattern()[first : first + len(total.data)]
    # cubic splines on fringes of 8 pixels and more: 1 %; as they lie they are off by 13 % and more
    assert np.linalg.norm((total.data - true)[good]) < 0.015 * np.linalg.norm(true[good])
    naive = (pattern() + pattern(moved))[first : first + len(total.data)]
    assert np.linalg.norm((naive - true)[good]) > 0.05 * np.linalg.norm(true[good])
    assert total.centre[0] == CENTRE[0] - first and good.mean() > 0.7  # gaps and edges move along
    assert (good.any(axis=(1, 2))).all()  # frames that one scan does not reach are left out


def test_the_drift_of_noisy_scans(rng):
    moved = (0.4, -0.6, 0.3)
    counts = [rng.poisson(pattern(m, 100.0)).astype(np.int32) for m in ((0, 0, 0), moved)]
    # 100 counts in the peak: 0.1 pixels, as the counting errors of 2e4 photons leave it
    assert io.sum_scans(list(map(scan, counts))).metadata["drift"][1] == pytest.approx(moved, abs=0.1)


def test_scans_that_have_not_moved_keep_their_counts(rng):
    counts = [rng.poisson(pattern()).astype(np.int32) for _ in range(3)]
    total = io.sum_scans(list(map(scan, counts)))
    assert (total.metadata["drift"] == 0).all() and total.data.dtype == np.int32
    assert (total.data[:, total.mask] == sum(counts)[:, total.mask]).all() and total.mask.shape == SHAPE[1:]
    one = scan(counts[0])
    assert io.sum_scans([one]) is one


def test_whole_pixels_keep_counts_and_masks_move_along():
    counts = np.rint(pattern()).astype(np.int32)
    total = io.sum_scans([scan(counts), scan(np.roll(counts, (2, 3), (0, 1)))])
    # the peak has moved by (2, 3, 0) and the gaps of the detector have not
    assert total.metadata["drift"][1] == pytest.approx((2, 3, 0), abs=0.05)
    good = np.broadcast_to(total.mask, total.data.shape)
    assert (
        np.abs(total.data - 2.0 * counts[: len(total.data)])[good].max() <= 20
    )  # of 2000, where it is 0.02 pixels off
    assert not good[:, 10, 20].any() and not good[:, 7, 20].any() and good[:, 7, 19].all() and not good[:, -3:].any()


def test_flux_adds_up_with_the_counts():
    flux = np.linspace(0.9, 1.1, SHAPE[0])
    data = pattern()
    total = io.sum_scans([scan(data, flux=flux), scan(3 * data, flux=flux[::-1])])
    expected = (flux + 3 * flux[::-1]) / 4
    assert total.flux == pytest.approx(expected / expected.mean(), rel=1e-6)
    assert io.sum_scans([scan(data, flux=flux), scan(data)]).flux is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"energy": 1.45e-15}, r"scans\[1\]: expected energy 1.44e-15 J as in the first scan, got 1.45e-15 J"),
        ({"distance": 0.51}, "expected distance 0.5 m"),
        ({"pixel_size": (75e-6, 75e-6)}, "expected pixel_size"),
        ({"arm": (("y+", 0.501), ("x-", 0.2))}, "expected the arm"),
        ({"arm": (("y+", 0.5),)}, "expected the arm"),
        ({"rocking_axis": "x+"}, r"expected rocking_axis y\+ as in the first scan, got x\+"),
        ({"rocking_angles": 2e-4 * np.arange(25)}, "expected the rocking steps .* off at frame 1$"),
        ({"metadata": {"direct_beam": [3, 4]}}, "expected direct_beam None"),
        ({"background": np.zeros((40, 44), np.float32)}, "expected a background in all scans or in none"),
    ],
)
def test_scans_that_contradict_each_other_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        io.sum_scans([scan(pattern()), scan(pattern(), **changes)])


def test_scans_of_another_pattern_or_shape_are_named(rng):
    other = scan(rng.permutation(pattern().ravel()).reshape(SHAPE))
    with pytest.raises(
        ValueError, match=r"scans\[1\]: expected the pattern of the first scan, got one that is like it"
    ):
        io.sum_scans([scan(pattern()), other])
    with pytest.raises(ValueError, match="expected frames of shape"):
        io.sum_scans([scan(pattern()), dataclasses.replace(other, data=other.data[:-1])])
    with pytest.raises(ValueError, match="scans: expected at least one"):
        io.sum_scans([])


def test_saturation_is_told_of_the_counts_that_were_read_out():
    counts = np.rint(pattern(brightest=1e5)).astype(np.int32)
    clipped = np.minimum(counts, np.sort(counts, axis=None)[-20])
    assert (clipped == clipped.max()).sum() == 20 and clipped.max() >= 1000
    with pytest.warns(UserWarning, match=f"got 20 at the largest, {clipped.max()}, as saturated ones"):
        total = io.sum_scans([scan(counts), scan(clipped)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.tell_of_frames(total)  # once
        io.tell_of_frames(io.sum_scans([scan(counts), scan(counts)]))


def test_what_one_scan_does_not_know_the_other_may():
    bare = scan(pattern(), energy=None, arm=None, rocking_angles=None, centre=None, rocking_axis=None)
    total = io.sum_scans([bare, scan(pattern())])
    assert total.energy == 1.44e-15 and total.arm[0] == ("y+", 0.5) and len(total.rocking_angles) == SHAPE[0]


@pytest.mark.parametrize("moved", [(0, 0, 0), (0, 0.5, -0.25), (-2.3, 1.6, 0.45)])
def test_scans_that_were_cropped_elsewhere_are_those_as_stored(moved):
    """Each about its own centre, as one would; the direct beam is counted in pixels as stored."""
    counts = [np.rint(pattern(m)).astype(np.int32) for m in ((0, 0, 0), moved)]
    beams = [300.0, 410.0], [300.3, 410.2]  # as it was found again
    stored = [scan(data, metadata={"direct_beam": beam}) for data, beam in zip(counts, beams, strict=True)]
    crops = [{"frames": (2, 22), "shape": (24, 28)}, {"frames": (1, 21), "shape": (24, 28), "centre": (12, 17, 24)}]
    cropped = [io.crop_scan(one, **crop) for one, crop in zip(stored, crops, strict=True)]
    starts = [one.metadata["crop_start"] for one in cropped]
    assert starts == [[2, 7, 9], [1, 5, 10]] and not np.array_equal(cropped[0].mask, cropped[1].mask)

    total, whole = io.sum_scans(cropped), io.sum_scans(stored)
    assert total.metadata["drift"][1] == pytest.approx(moved, abs=0.05)
    if moved == (0, 0, 0):
        assert (total.metadata["drift"] == 0).all() and total.data.dtype == np.int32  # counts stay counts
    first, row, column = total.metadata["crop_start"]
    assert (row, column) == (7, 9) and total.metadata["direct_beam"] == [300.0, 410.0]
    assert np.add(total.centre, [first, row, column]) == pytest.approx(CENTRE)
    assert total.rocking_angles[0] == pytest.approx(STEP * first)
    skipped = first - whole.metadata.get("crop_start", [0])[0]
    there = whole.data[skipped : skipped + len(total.data), row : row + 24, column : column + 28]
    good = np.broadcast_to(total.mask, total.data.shape)
    inside = np.s_[2:-2, 4:-4, 4:-4]  # splines near the edge of a crop know less
    error = np.abs(total.data - there)[inside][good[inside]].max()
    assert error <= (0 if moved == (0, 0, 0) else 30) and good[inside].mean() > 0.7  # of 2000: 0.02 pixels


def test_frames_that_are_left_out_count_as_cropped():
    counts = np.rint(pattern()).astype(np.int32)
    total = io.sum_scans([scan(counts), scan(np.roll(counts, -2, 0))])
    first = SHAPE[0] - len(total.data)
    assert total.metadata["crop_start"] == [first, 0, 0] and first in (2, 3)  # it is found to 0.02
    assert total.rocking_angles[0] == pytest.approx(STEP * first)
    again = io.crop_scan(total, frames=(3, 9), shape=(20, 20))
    assert again.metadata["crop_start"][0] == first + 3
    assert again.rocking_angles[0] == pytest.approx(STEP * (first + 3))
    assert np.add(again.centre, again.metadata["crop_start"]) == pytest.approx(CENTRE)


def test_a_crop_of_a_crop_is_one_of_the_data_as_stored():
    one = scan(pattern())
    twice = io.crop_scan(io.crop_scan(one, frames=(1, 23), shape=(30, 30)), frames=(2, 20), shape=(16, 18))
    once = io.crop_scan(one, frames=(3, 21), shape=(16, 18))
    assert twice.metadata["crop_start"] == once.metadata["crop_start"] and (twice.data == once.data).all()
    assert twice.centre == pytest.approx(once.centre)


def test_the_beam_moved_by_a_pixel_is_another_geometry():
    scans = [scan(pattern(), metadata={"direct_beam": beam}) for beam in ([300, 410], [301, 410])]
    with pytest.raises(ValueError, match=r"scans\[1\]: expected direct_beam \[300, 410\] as in the first scan"):
        io.sum_scans(scans)


def test_a_configuration_names_several_scans(tmp_path):
    for name, moved in (("a", (0, 0, 0)), ("b", (0.4, 1.2, 0))):
        one = scan(pattern(moved))
        io.write_scan(tmp_path / f"{name}.cxi", one.data, energy=one.energy, distance=0.5, pixel_size=55e-6)
    np.save(tmp_path / "mask.npy", scan(pattern()).mask)
    text = '[data]\npath = ["a.cxi", "b.cxi"]\nmask = "mask.npy"\n'
    made = config.loads(text, folder=tmp_path)
    read = made.scan()
    assert read.metadata["drift"][1] == pytest.approx((0.4, 1.2, 0), abs=0.05)
    assert not np.broadcast_to(read.mask, read.data.shape)[:, 10, 20].any()
    assert made.paths("data.path") == [tmp_path / "a.cxi", tmp_path / "b.cxi"]
    io.write_scan(tmp_path / "b.cxi", one.data, energy=2e-15, distance=0.5, pixel_size=55e-6)
    with pytest.raises(config.ConfigError, match=r"^data.path: scans\[1\]: expected energy"):
        made.scan()
    with pytest.raises(config.ConfigError, match="data.path: expected text or a list of texts, got 3"):
        config.loads("[data]\npath = 3")
