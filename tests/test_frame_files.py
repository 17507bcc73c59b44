"""Folders of frames as beamlines and disks leave them: what is no frame is passed over, what is missing is named."""

import os

import numpy as np
import pytest
from pendel import io
from pendel.io.frame_files import find_frames
from scan_folders import HEADER, ROWS, N, frames, loose, spec_scan

__all__ = ["loose"]  # the fixture
tifffile = pytest.importorskip("tifffile")

NAME = "Staff20-1a_S0054_{:05d}.tif"
RAW = {"dark": False, "whitefield": False}
DEBRIS = (
    ".DS_Store",
    "._Staff20-1a_S0054_00003.tif",
    ".Staff20-1a_S0054_00004.tif",
    "Thumbs.db",
    "desktop.ini",
    "Staff20-1a_S0054_00000.tif.tmp",
    "Staff20-1a_S0054.png",
    "notes.txt",
    "dark_00001.tif",
    "dark_00002.tif",
    "Dark.tif",
    "S0054_sum.tif",
    "thumbnail_00001.tif",
    "thumbnail_00002.tif",
    "preview.tiff",
    "mask.tif",
    "overview.tif",
)


def test_what_is_no_frame_is_passed_over(loose):
    for name in DEBRIS:
        (loose / name).write_bytes(b"no frame")
    (loose / "old_00001.tif").mkdir()
    (loose.parent / "._example.spec").write_bytes(b"\0\5\26\7")
    scan = io.read_34idc(loose, **RAW)
    assert (scan.data == frames()).all() and len(scan.rocking_angles) == N


def test_debris_beside_a_packed_scan(loose, tmp_path):
    folder = tmp_path / "packed_S0054"
    folder.mkdir()
    np.savez(folder / "x_raw_counts.npz", data=frames())
    for name in ("._x_raw_counts.npz", "._spec_x.txt", "._detector_corrections.npz"):
        (folder / name).write_bytes(b"\0\5\26\7")
    (folder / "spec_x.txt").write_text(HEADER + spec_scan())
    assert (io.read_34idc(folder, **RAW).data == frames()).all()


def test_capital_suffixes_and_numbers_of_any_width(loose):
    for i in range(N):
        (loose / NAME.format(i)).rename(loose / f"Staff20-1a_S0054_{i}.TIF")
    assert (io.read_34idc(loose, **RAW).data == frames()).all()


def test_samples_that_are_called_like_what_is_no_frame(loose):
    for i in range(N):
        (loose / NAME.format(i)).rename(loose / f"flat_Au_S0054_{i}.tif")
    (loose / "dark.tif").write_bytes(b"")
    assert (io.read_34idc(loose, **RAW).data == frames()).all()


def test_times_beside_the_numbers(loose):
    for i in range(N):
        (loose / NAME.format(i)).rename(loose / f"img_{i:03d}_2020020412{59 - i}{(7 * i) % 60:02d}.tif")
    assert (io.read_34idc(loose, **RAW).data == frames()).all()


def test_frames_of_two_scans_in_one_folder(loose):
    for i in range(N):
        tifffile.imwrite(loose / f"Staff20-1a_S0055_{i:05d}.tif", frames()[::-1][i])
    assert (io.read_34idc(loose, **RAW).data == frames()).all()  # of the folder's name
    assert (io.read_34idc(loose, scan=55, **RAW).data == frames()[::-1]).all()


def test_two_kinds_of_frames_are_named(loose):
    for i in range(N):
        tifffile.imwrite(loose / f"other_{i}.tif", frames()[i])
    with pytest.raises(
        ValueError, match="expected the frames of one scan, got files of several kinds: 21 like .*, 21 like"
    ):
        io.read_34idc(loose, **RAW)


@pytest.mark.parametrize(
    "missing, named",
    [
        ([7], "got none of Staff20-1a_S0054_00007.tif;"),
        ([7, 8, 12], "00007.tif, Staff20-1a_S0054_00008.tif, Staff20-1a_S0054_00012.tif;"),
        ([N - 1], "expected 21 frames as SPEC says, got 20 from .*00000.tif to .*00019.tif, without .*_00020.tif"),
        ([0], "got 20 from .*00001.tif to .*00020.tif, without .*_00021.tif or .*_00000.tif"),
        (list(range(2, 10)), "_00006.tif and 3 more"),
    ],
)
def test_missing_frames_are_named(loose, missing, named):
    for i in missing:
        (loose / NAME.format(i)).unlink()
    with pytest.raises(ValueError, match=named):
        io.read_34idc(loose, **RAW)


def test_every_second_frame_is_no_gap(loose):
    for i in range(1, N, 2):
        (loose / NAME.format(i)).unlink()
    assert len(find_frames(loose)) == 11


def test_the_rest_of_a_scan_with_a_gap_as_an_array(loose):
    (loose / NAME.format(7)).unlink()
    assert (io.read_array_scan(loose).data == np.delete(frames(), 7, axis=0)).all()


def test_frames_that_are_there_twice(loose):
    (loose / NAME.format(3)).rename(loose / "Staff20-1a_S0054_3.tif")
    (loose / "Staff20-1a_S0054_003.tif").write_bytes((loose / "Staff20-1a_S0054_3.tif").read_bytes())
    with pytest.raises(ValueError, match="expected one file for each frame, got .*_003.tif and .*_3.tif"):
        io.read_34idc(loose, **RAW)


def test_a_folder_without_frames(loose):
    for path in loose.iterdir():
        path.unlink()
    (loose / "dark_0001.tif").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="got neither; dark_0001.tif is none by its name"):
        io.read_34idc(loose, **RAW)


def test_an_aborted_scan_reads_as_far_as_it_went(loose):
    text = spec_scan(rows=12) + "#C Tue Feb 04 12:30:00 2020.  Scan aborted after 12 points.\n"
    (loose.parent / "example.spec").write_text(HEADER + text)
    for i in range(13, N):
        (loose / NAME.format(i)).unlink()
    scan = io.read_34idc(loose, **RAW)  # the frame that was being taken has no point
    assert (scan.data == frames()[:12]).all() and scan.metadata["frames_without_point"] == 1
    assert np.degrees(scan.rocking_angles) == pytest.approx(-0.05 + 0.005 * np.arange(12), abs=1e-6)
    (loose / NAME.format(12)).unlink()
    assert "frames_without_point" not in io.read_34idc(loose, **RAW).metadata
    (loose / NAME.format(11)).unlink()
    with pytest.raises(ValueError, match="expected 12 frames as SPEC says, got 11 .*without .*_00011.tif"):
        io.read_34idc(loose, **RAW)


def test_a_number_given_twice_is_the_scan_with_as_many_points(loose):
    (loose.parent / "example.spec").write_text(HEADER + spec_scan(rows=4) + "\n" + spec_scan())
    assert len(io.read_34idc(loose, **RAW).rocking_angles) == N


@pytest.mark.parametrize("layout", [{}, {"bigtiff": True}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_one_file_with_a_page_for_each_frame(loose, layout):
    for path in loose.glob("*.tif"):
        path.unlink()
    tifffile.imwrite(loose / "Staff20-1a_S0054.tif", frames().astype(np.uint16), photometric="minisblack", **layout)
    scan = io.read_34idc(loose, **RAW)
    assert (scan.data == frames()).all() and len(scan.rocking_angles) == N
    (loose / "Staff20-1a_S0054.tif").unlink()
    for i, part in enumerate(np.split(frames(), [8, 16])):
        tifffile.imwrite(loose / f"Staff20-1a_S0054_{i}.tif", part, photometric="minisblack", **layout)
    parts = io.read_34idc(loose, **RAW)
    assert (parts.data == frames()).all()


@pytest.mark.parametrize(
    "dtype, value",
    [("f4", np.nan), ("f4", np.inf), ("i4", -1), ("i4", -2), ("u2", 65535), ("u4", 2**32 - 2), ("f8", -0.5)],
)
def test_what_is_no_count_is_masked(loose, dtype, value):
    """In a gap of all frames, and once in a frame, with and without the corrections."""
    for i, frame in enumerate(frames().astype(dtype)):
        frame[:, 5] = value
        if i == 9:
            frame[7, 9] = value
        tifffile.imwrite(loose / NAME.format(i), frame)
    for options in (RAW, {}):
        scan = io.read_34idc(loose, **options)
        good = np.broadcast_to(scan.mask, scan.data.shape)
        assert not good[:, :, 5].any() and not good[9, 7, 9] and good[8, 7, 9]
        assert (scan.data[good] == frames()[good]).all() and (scan.data[~good] == 0).all()
        assert scan.metadata["masked_on_read"] == N * ROWS + 1 and scan.centre == pytest.approx(
            (9.6, 12.3, 15.8), abs=0.1
        )


def test_fields_with_values_that_are_none(loose):
    field = np.full((512, 512), 50.0, np.float32)
    field[8 + 3, 4 + 2], field[8 + 3, 4 + 3] = np.nan, np.inf
    tifffile.imwrite(loose.parent / "whitefield.tif", field)
    dark = np.zeros((512, 512), np.float32)
    dark[8 + 1, 4 + 1] = np.nan
    tifffile.imwrite(loose.parent / "dark.tif", dark)
    assert sorted(map(tuple, np.argwhere(~io.read_34idc(loose).mask))) == [(1, 1), (3, 2), (3, 3)]


@pytest.mark.parametrize("motor, name", [("en", "Energy"), ("mcr", "Monochr")])
def test_frames_at_different_energies_are_refused_by_name(loose, motor, name):
    header = HEADER.replace("camdist  Energy", f"camdist  {name}").replace("cam en", f"cam {motor}")
    (loose.parent / "example.spec").write_text(header + spec_scan(motor=motor, name=name))
    (loose / "meta.json").write_text('{"energy_keV": 9.0}')
    with pytest.raises(ValueError, match=f"got {name}: frames at different energies; pendel models rocking scans"):
        io.read_34idc(loose, **RAW)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"scan_step_deg": NaN}', "meta.json: scan_step_deg: expected a finite number, got nan"),
        ('{"scan_step_deg": "a"}', "meta.json: scan_step_deg: expected a real number, got 'a'"),
        ('{"pixel_m": -1}', "Staff20-1a_S0054: pixel_size: expected a finite number > 0"),
        ('{"energy_keV": Infinity}', "meta.json: energy_keV: expected a finite number"),
        ('{"pattern_centre_frame_row_col": [1, 2]}', "meta.json: pattern_centre_frame_row_col: expected shape"),
        ('{"direct_beam_pixel": [1, "a"]}', "meta.json: direct_beam_pixel: expected an array"),
        ("[" * 10_000, "meta.json: expected JSON, got "),
        ('{"frames": 20}', "expected 20 frames as meta.json says, got 21"),
    ],
)
def test_what_meta_json_says_wrongly_is_named(loose, text, message):
    (loose / "meta.json").write_text(text)
    with pytest.raises((ValueError, TypeError), match=message):
        io.read_34idc(loose, **RAW)


def test_positions_that_are_no_numbers_are_named(loose):
    (loose.parent / "example.spec").write_text(HEADER + spec_scan().replace("#P1 500 9", "#P1 500 nan"))
    with pytest.raises(
        ValueError, match="example.spec: line 6: scan 54: motor Energy: expected a finite number, got nan"
    ):
        io.read_34idc(loose, **RAW)


def test_a_scan_without_light_is_named(loose):
    for i in range(N):
        tifffile.imwrite(loose / NAME.format(i), np.zeros(frames()[0].shape, np.int32))
    with pytest.raises(ValueError, match="Staff20-1a_S0054: data: expected a Bragg peak, got no counts"):
        io.read_34idc(loose, **RAW)


def test_pipes_among_the_frames_are_named(loose):
    (loose / NAME.format(3)).unlink()
    os.mkfifo(loose / NAME.format(3))
    with pytest.raises(ValueError, match="00003.tif: expected a tif file, got a named pipe"):
        io.read_34idc(loose, **RAW)
    (loose.parent / "example.spec").unlink()
    os.mkfifo(loose.parent / "example.spec")
    with pytest.raises(ValueError, match="example.spec: expected a SPEC file, got a named pipe"):
        io.read_34idc(loose, **RAW)
