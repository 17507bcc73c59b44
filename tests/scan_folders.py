"""A folder of frames and a SPEC file as beamline 34-ID-C writes them, for the tests of what reads them."""

import numpy as np
import pytest

N, ROWS, COLUMNS, STEP = 21, 24, 32, 0.005
CENTRE = (9.6, 12.3, 15.8)
HEADER = """#F /data/example.spec
#O0 Delta  Theta  Chi  Phi  Mu  Gamma  z-sample  rbverpos
#O1 camdist  Energy
#o0 del th chi phi mu gam z vp
#o1 cam en
"""


def spec_scan(number=54, motor="th", name="Theta", rows=N):
    lines = [
        f"#S {number}  ascan  {motor} -0.05 0.05  {N - 1} 0.25",
        "#P0 32.174 0.22 90 -5 0 12.6346 10.214 -0.0335",
        "#P1 500 9",
    ]
    lines += ["#UIMDET 34idcTIM2:", "#UIMR5  4 32 8 24 1", "#N 3", f"#L {name}  ImageMax  pm detector"]
    return "\n".join(lines + [f"{-0.05 + STEP * i:.6f} {i} 3" for i in range(rows)]) + "\n"


def frames():
    grids = np.indices((N, ROWS, COLUMNS))
    squares = sum(((g - c) / w) ** 2 for g, c, w in zip(grids, CENTRE, (2, 2.5, 2.5), strict=True))
    return np.round(1e4 * np.exp(-squares)).astype(np.int32)


@pytest.fixture
def loose(tmp_path):
    """The layout of the cohere examples: a folder of tif frames, SPEC and whole-detector fields one folder above."""
    tifffile = pytest.importorskip("tifffile")
    folder = tmp_path / "Staff20-1a_S0054"
    folder.mkdir()
    for i, frame in enumerate(frames()):
        tifffile.imwrite(folder / f"Staff20-1a_S0054_{i:05d}.tif", frame)
    dark, field = np.zeros((512, 512), np.int32), np.full((512, 512), 50.0, np.float32)
    dark[8 + 3, 4 + 7] = 5  # row 3, column 7 of the region that begins at row 8, column 4
    tifffile.imwrite(tmp_path / "dark.tif", dark)
    tifffile.imwrite(tmp_path / "whitefield.tif", field)
    (tmp_path / "example.spec").write_text(
        HEADER + "\n" + spec_scan(53, rows=3) + "\n" + spec_scan(54) + "\n" + spec_scan(55)
    )
    return folder
