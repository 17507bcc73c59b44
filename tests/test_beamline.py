"""Beamline 34-ID-C: synthetic scan folders of both layouts, corrections, centre and crop, and what damaged folders
say.
"""

import json
import os
import shutil
import warnings

import numpy as np
import pytest
from pendel import io as beamline
from pendel.io import beamlines
from scan_folders import CENTRE, COLUMNS, HEADER, ROWS, STEP, N, frames, loose, spec_scan

__all__ = ["loose"]  # the fixture


@pytest.fixture
def packed(tmp_path):
    """A folder of the npz layout, and what is true about it."""
    dark, field = np.zeros((ROWS, COLUMNS), np.int32), np.full((ROWS, COLUMNS), 200.0, np.float32)
    dark[3, 4] = 100
    field[:, 16:] = 100.0
    field[5, 6], field[7, 8] = 0.0, 1.0
    meta = {"energy_keV": 9.0, "delta_deg": 32.174, "gamma_deg": 12.6346, "distance_m": 0.5, "pixel_m": 5.5e-5}
    meta |= {"scan_motor": "theta", "scan_step_deg": STEP, "frames": N, "pattern_centre_frame_row_col": CENTRE}
    np.savez_compressed(tmp_path / "scan54_raw_counts.npz", data=frames())
    np.savez_compressed(tmp_path / "detector_corrections_roi.npz", dark=dark, whitefield=field)
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "spec_file_header.txt").write_text(HEADER)
    (tmp_path / "spec_scan54.txt").write_text(spec_scan())
    return tmp_path


def test_the_monitor_of_a_packed_scan(packed):
    assert beamline.read_34idc(packed).flux is None
    path, readings = packed / "spec_scan54.txt", 100.0 + np.arange(N)
    lines = path.read_text().replace("ImageMax", "Monitor").splitlines()
    table = [f"{line.split()[0]} {reading} 3" for line, reading in zip(lines[-N:], readings, strict=True)]
    path.write_text("\n".join(lines[:-N] + table) + "\n")
    np.testing.assert_allclose(beamline.read_34idc(packed).flux, readings / readings.mean())
    # one that was not read out is none
    path.write_text("\n".join(lines[:-N] + [line.replace(f" {readings[3]} ", " 0 ") for line in table]) + "\n")
    assert beamline.read_34idc(packed).flux is None


def change(folder, **changes):
    meta = json.loads((folder / "meta.json").read_text()) | changes
    (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))


def test_the_geometry_of_a_packed_scan(packed):
    scan = beamline.read_34idc(packed)
    assert scan.data.shape == (N, ROWS, COLUMNS) and scan.data.dtype == np.float32
    assert scan.wavelength == pytest.approx(1.377602e-10, rel=1e-6)  # 12.39842 keV A / 9 keV, seven digits
    assert scan.distance == 0.5 and scan.pixel_size == (55e-6, 55e-6) and scan.centre == CENTRE
    assert [axis for axis, _ in scan.arm] == ["y+", "x-"] and scan.rocking_axis == "y+"
    assert [np.degrees(angle) for _, angle in scan.arm] == pytest.approx([32.174, 12.6346], rel=1e-14)
    assert np.degrees(scan.rocking_angles) == pytest.approx(-0.05 + STEP * np.arange(N), abs=1e-12)
    assert scan.metadata["detector"] == "34idcTIM2"


def test_pixels_are_saturated_by_the_counts_that_were_read_out(packed):
    raw = frames()
    most = np.unique(raw)[-3]
    good = np.broadcast_to(beamline.read_34idc(packed).mask, raw.shape) & (raw < most)
    assert 0 < (raw >= most).sum() < good.sum()
    assert (beamline.read_34idc(packed, saturation=most).mask == good).all()
    scan = beamlines.find("auto", packed).read(packed, saturation=float(most))
    assert (scan.mask == good).all() and not scan.data[~good].any()
    with pytest.raises(ValueError, match="^saturation: expected"):
        beamline.read_34idc(packed, saturation=0)


def test_saturation_is_told_of_before_the_white_field_is_divided_out(packed):
    [path] = packed.glob("*_raw_counts.npz")
    raw = frames()
    most = int(np.sort(raw, axis=None)[-30])
    np.savez(path, data=np.minimum(raw, most) * 100 + 1)
    with pytest.warns(UserWarning, match=f"at the largest, {most * 100 + 1}, as saturated ones are"):
        scan = beamline.read_34idc(packed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beamline.tell_of_frames(scan)
        beamline.tell_of_frames(beamline.read_34idc(packed, saturation=most * 100 + 1))


def test_dark_and_weak_pixels_are_masked_and_the_white_field_is_normalised(packed):
    scan = beamline.read_34idc(packed)
    assert sorted(map(tuple, np.argwhere(~scan.mask))) == [(3, 4), (5, 6), (7, 8)]
    assert scan.metadata["masked_by_dark"] == 1 and scan.metadata["masked_by_whitefield"] == 2
    median = 100.0  # 384 pixels at 100, 381 lit ones at 200 or 1
    expected = frames() / np.where(np.arange(COLUMNS) < 16, 200 / median, 1.0)
    assert scan.data[:, scan.mask] == pytest.approx(expected[:, scan.mask], rel=1e-6)  # float32
    assert (scan.data[:, ~scan.mask] == 0).all()
    raw = beamline.read_34idc(packed, dark=False, whitefield=False)
    assert raw.mask.all() and (raw.data == frames()).all() and raw.data.dtype == np.int32


def test_spec_alone_and_meta_alone_are_enough(packed):
    (packed / "meta.json").unlink()
    scan = beamline.read_34idc(packed, whitefield=False)
    assert np.degrees(scan.rocking_angles) == pytest.approx(-0.05 + STEP * np.arange(N), abs=1e-6)  # printed digits
    assert scan.centre == pytest.approx(CENTRE, abs=0.05) and scan.name == "scan 54"  # the tails below 20 % are cut
    assert scan.energy == pytest.approx(1.4419589706e-15, rel=1e-9)


def test_meta_without_spec_counts_angles_from_the_first_frame(packed):
    for path in packed.glob("spec_*"):
        path.unlink()
    scan = beamline.read_34idc(packed)
    assert np.degrees(scan.rocking_angles) == pytest.approx(STEP * np.arange(N), abs=1e-12)


def test_a_folder_of_tif_frames_is_cut_to_its_region(loose):
    scan = beamline.read_34idc(loose)
    assert (scan.data[:, scan.mask] == frames()[:, scan.mask]).all()
    assert list(map(tuple, np.argwhere(~scan.mask))) == [(3, 7)]
    # 0.05 pixel: the centre is found from counts whose tails below 20 % are cut
    assert scan.pixel_size == (55e-6, 55e-6) and scan.centre == pytest.approx(CENTRE, abs=0.05)
    assert len(beamline.read_34idc(loose, scan=55, dark=False, whitefield=False).rocking_angles) == N


def test_a_phi_scan_turns_about_the_axis_that_theta_and_chi_carry(loose):
    spec = loose.parent / "example.spec"
    spec.write_text(HEADER + spec_scan(54, "phi", "Phi"))
    theta = np.radians(0.22)  # chi = 90 deg puts the phi axis along x before theta turns it about y
    assert beamline.read_34idc(loose).rocking_axis == pytest.approx((np.cos(theta), 0, -np.sin(theta)), abs=1e-15)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"energy_keV": 9.1}, "expected energy_keV of meta.json and motor Energy of SPEC to agree, got 9.1 and 9"),
        ({"delta_deg": 32.2}, "delta_deg .* agree, got 32.2 and 32.174"),
        ({"distance_m": 0.6}, "distance_m .* got 0.6 and 0.5"),
        ({"scan_step_deg": 0.01}, "expected scan_step_deg of meta.json as in SPEC, got 0.01"),
        ({"frames": 20}, "expected 20 frames as meta.json says, got 21"),
        ({"scan_motor": "phi"}, "expected one rocking motor, got phi in meta.json and Theta in SPEC"),
    ],
)
def test_contradictions_between_meta_and_spec_are_errors(packed, changes, message):
    change(packed, **changes)
    with pytest.raises(ValueError, match=message):
        beamline.read_34idc(packed)


def test_missing_things_are_named(packed, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder with a 34-ID-C scan, got nothing"):
        beamline.read_34idc(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected \*_raw_counts.npz or .tif frames, got neither"):
        beamline.read_34idc(tmp_path / "empty")
    for path in packed.glob("spec_*"):
        path.unlink()
    change(packed, delta_deg=None)
    with pytest.raises(ValueError, match="expected delta_deg in meta.json or motor Delta in a SPEC file, got neither"):
        beamline.read_34idc(packed)
    (packed / "detector_corrections_roi.npz").unlink()
    with pytest.raises(FileNotFoundError, match="detector_corrections.*dark=False and whitefield=False leaves it out"):
        beamline.read_34idc(packed)


def test_damaged_archives_and_frames_are_named(packed):
    path = packed / "scan54_raw_counts.npz"
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match="raw_counts.npz: expected an npz archive, got a truncated or damaged file"
        ):
            beamline.read_34idc(packed)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match="expected the array 'data', got other"):
        beamline.read_34idc(packed)
    np.savez(path, data=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"expected counts >= 0 \(frame, row, col\), got .*\(3, 4\)"):
        beamline.read_34idc(packed)
    (packed / "meta.json").write_text('{"energy')
    with pytest.raises(ValueError, match="meta.json: expected JSON, got"):
        beamline.read_34idc(packed)


def test_damaged_tif_frames_are_named(loose):
    path = loose / "Staff20-1a_S0054_00003.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="00003.tif: expected a tif file, got a truncated or damaged one"):
        beamline.read_34idc(loose)
    path.write_bytes(whole)
    (loose.parent / "dark.tif").unlink()
    with pytest.raises(FileNotFoundError, match="expected dark.tif here or one folder above, got none; dark=False"):
        beamline.read_34idc(loose)


@pytest.mark.parametrize(
    "text, message",
    [
        (HEADER + spec_scan().rsplit(" ", 1)[0] + "\n", r"line \d+: expected 3 columns, got 2; is the file cut off\?"),
        (HEADER + spec_scan(rows=N - 2), "expected 19 frames as SPEC says, got 21"),
        (HEADER + spec_scan(12), "expected scan 54 once, got 0"),
        (spec_scan(), "expected #O0 with 8 motor names, got no such line"),
        (HEADER + spec_scan().replace("ascan", "mesh "), "expected ascan MOTOR START STOP INTERVALS TIME"),
        (HEADER + spec_scan(motor="en", name="Energy"), "expected a scan of Theta or Phi, got Energy"),
        (
            HEADER + spec_scan().replace("4 32 8 24", "240 32 8 24"),
            "within one detector chip, .* across the seam at 256",
        ),
    ],
)
def test_spec_files_that_do_not_fit_are_named(loose, text, message):
    (loose.parent / "example.spec").write_text(text)
    with pytest.raises(ValueError, match=message):
        beamline.read_34idc(loose)


def test_the_crop_puts_the_centre_pixel_at_the_middle_and_keeps_its_fraction(packed):
    scan = beamline.read_34idc(packed)
    cut = beamline.crop_scan(scan, frames=(2, 17), shape=(16, 20))
    assert cut.data.shape == (16, 16, 20) and cut.mask.shape == (16, 20)
    assert cut.centre == pytest.approx((7.6, 8.3, 9.8))  # pixel (12, 16) lies at (8, 10)
    assert (cut.data == scan.data[2:18, 4:20, 6:26]).all() and (cut.rocking_angles == scan.rocking_angles[2:18]).all()
    odd = beamline.crop_scan(scan, shape=(7, 9), centre=(9.6, 10.5, 15.49))
    assert odd.centre == pytest.approx((9.6, 2.5, 4.49)) and (odd.data == scan.data[:, 8:15, 11:20]).all()
    assert beamline.crop_scan(scan).centre == CENTRE


def test_a_centre_may_be_an_array(packed):
    scan = beamline.read_34idc(packed)
    told = [beamline.crop_scan(scan, shape=(12, 16), centre=kind(scan.centre)) for kind in (np.array, tuple)]
    assert (told[0].data == told[1].data).all() and np.array_equal(told[0].centre, told[1].centre)


def test_crops_that_leave_the_scan_are_named(packed):
    scan = beamline.read_34idc(packed)
    with pytest.raises(ValueError, match=r"shape: expected at most \(24, 32\) about pixel \(12, 16\), got \(26, 32\)"):
        beamline.crop_scan(scan, shape=(26, 32))
    with pytest.raises(ValueError, match="frames: expected 0 <= first <= last <= 20, got 3 and 21"):
        beamline.crop_scan(scan, frames=(3, 21))
    with pytest.raises(ValueError, match="data: expected a Bragg peak, got no counts"):
        beamline.pattern_centre(np.zeros((3, 4, 5)))


def test_the_centre_ignores_single_hot_frames_and_masked_pixels():
    data, mask = frames(), np.ones((ROWS, COLUMNS), bool)
    data[4, 2, 2] = 10**6
    data[:, 20, 5], mask[20, 5] = 10**6, False
    assert beamline.pattern_centre(data, mask) == pytest.approx(CENTRE, abs=0.05)  # the tails below 20 % are cut


def test_hot_pixels_are_found_and_speckles_spared(rng):
    data = rng.poisson(frames() + 2.0)
    assert beamline.hot_pixel_mask(data).all()
    for row, column in ((2, 3), (2, 4), (20, 30), (0, 0)):  # a pair, one alone, a corner
        data[:, row, column] += rng.poisson(300, N)
    assert sorted(map(tuple, np.argwhere(~beamline.hot_pixel_mask(data)))) == [(0, 0), (2, 3), (2, 4), (20, 30)]


@pytest.mark.skipif("PENDEL_SCAN54" not in os.environ, reason="set PENDEL_SCAN54 to the folder of 34-ID-C scan 54")
def test_the_real_scan(tmp_path):
    scan = beamline.read_34idc(os.environ["PENDEL_SCAN54"])
    assert scan.data.shape == (201, 256, 256) and scan.metadata["masked_by_dark"] == 13
    assert not scan.mask.all() and scan.centre == (97.8, 126.9, 127.4)
    found = beamline.pattern_centre(scan.data, scan.mask)
    assert np.abs(np.subtract(found, scan.centre)).max() < 1  # two definitions of the centre of one Bragg peak
    assert np.degrees(scan.rocking_angles[99]) == pytest.approx(0.215, abs=1e-4)
    cut = beamline.crop_scan(scan, frames=(33, 162), shape=(128, 128))
    assert 0.98 < cut.data.sum() / scan.data.sum() < 1  # nearly all photons are kept
    folder = tmp_path / "copy"
    shutil.copytree(os.environ["PENDEL_SCAN54"], folder)
    (folder / "meta.json").chmod(0o644)
    change(folder, gamma_deg=12.7)
    with pytest.raises(ValueError, match="gamma_deg"):
        beamline.read_34idc(folder)


def test_angles_that_are_given_elsewhere_need_no_motor(packed):
    change(packed, scan_step_deg=3.0)  # of another scan
    with pytest.raises(ValueError, match="expected scan_step_deg of meta.json as in SPEC"):
        beamline.read_34idc(packed)
    scan = beamline.read_34idc(packed, rocking=False)
    assert scan.rocking_angles is None and scan.rocking_axis is None and scan.energy
    change(packed, frames=N + 1)
    with pytest.raises(ValueError, match="frames as meta.json says"):
        beamline.read_34idc(packed, rocking=False)
    change(packed, frames=N)
    for path in packed.glob("spec_*"):
        path.unlink()
    change(packed, scan_motor="energy")
    with pytest.raises(ValueError, match="expected a scan of Theta or Phi, got Energy: frames at different energies"):
        beamline.read_34idc(packed, rocking=False)
