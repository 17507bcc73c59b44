"""docs/your-own-program.md does what it says, in as many lines."""

import functools
from pathlib import Path

import h5py
import numpy as np
import pendel
import pytest
from cube import make_model, strained
from pendel import io, kinematic

PAGE = (Path(__file__).parents[1] / "docs" / "your-own-program.md").read_text()
BLOCKS = [block.split("```")[0] for block in PAGE.split("```python\n")[1:]]


def block_of(word):
    (found,) = (block for block in BLOCKS if word in block)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the scan of a strained cube, and what cohere and PyNX would have left of it."""
    folder, model = tmp_path_factory.mktemp("program"), make_model(threads=1, off=0.0)
    truth = strained(model, [(0.3, 0.2, -0.25)], [0.3], [0.8])[1]
    data = model.intensities(truth)
    data, e = np.round(data * (1e5 / data.max())).astype(np.int32), model.experiment
    scan = {"distance": e.distance, "pixel_size": e.pixel_size, "wavelength": e.wavelength, "arm": e.arm}
    rocking = {"rocking_angles": e.rocking_angles, "rocking_axis": e.rocking_axis, "centre": e.centre}
    io.write_scan(folder / "scan.cxi", data, **scan, **rocking)
    phased = kinematic.phase(data, iterations=200, workers=1)
    (folder / "results_phasing").mkdir()
    np.save(folder / "results_phasing" / "image.npy", phased.object.conj().transpose(2, 1, 0))
    np.save(folder / "results_phasing" / "support.npy", phased.support.transpose(2, 1, 0).astype(np.int64))
    with h5py.File(folder / "run.cxi", "w") as file:
        file["entry_1/image_1/data"], file["entry_1/image_1/mask"] = phased.object, phased.support.astype(np.int8)
    return folder


@pytest.fixture(scope="module")
def begun(folder):
    """Names of the first block, which has run in the folder."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PENDEL_NUM_THREADS", "1")
        exec(block_of("import numpy"), names)
    return names


@pytest.fixture
def names(begun, folder, monkeypatch):
    """What the first block has left, for another block in the folder; whole ways made short."""
    little = {"trial_epochs": 2, "steps": 40, "iterations": (2, 2), "fine_iterations": 2, "fine_rounds": 1}
    little |= {"voxel": begun["voxel"], "progress": False, "threads": 1}
    monkeypatch.setattr(pendel, "solve", functools.partial(pendel.solve, **little))
    quick = functools.partial(pendel.kinematic_start, trial_epochs=2, progress=False)
    monkeypatch.setattr(pendel, "kinematic_start", quick)
    monkeypatch.setattr(pendel, "reconstruct", functools.partial(pendel.reconstruct, epochs=3, progress=False))
    monkeypatch.chdir(folder)
    return dict(begun)


def test_no_block_is_longer_than_the_page_says():
    first = block_of("import numpy")
    assert BLOCKS[0] == first and len(BLOCKS) == 5 and len(first.splitlines()) <= 30
    for block in BLOCKS[1:]:
        assert len(block.strip().splitlines()) <= 10


def test_the_program_finds_a_crystal(begun, folder):
    assert begun["losses"][-1] < 0.5 * begun["losses"][0]
    stored = io.read_result(folder / "mine.cxi")
    assert np.array_equal(stored.S, begun["S"].astype(np.complex64)) and stored.voxel == pytest.approx(begun["voxel"])


def test_from_cohere_and_back(names, folder):
    exec(block_of("import cohere"), names)
    assert names["result"].misfit < 0.2 and 0 < names["phased"].chi < 0.1
    image = np.load(folder / "refined" / "results_phasing" / "image.npy")
    assert image.shape == (20, 20, 20) and np.abs(image).max() == pytest.approx(1)
    assert np.load(folder / "data.npy").shape == (20, 20, 20)


def test_from_pynx_and_back(names, folder):
    exec(block_of("import pynx"), names)
    assert names["modes"].shape == (1, 20, 20, 20) and names["weights"] is None
    assert names["result"].misfit < 0.2
    assert io.read_result(folder / "refined.cxi").S.shape == (20, 20, 20)


# the block of cdiutils: tests/test_cdiutils.py


def test_in_cdtools(names, folder):
    pytest.importorskip("cdtools", exc_type=ImportError)
    exec(block_of("pendel.cdtools"), names)
    losses = names["fit"].loss_history
    assert len(losses) == 20 and losses[-1] < losses[0] and (folder / "cdtools.h5").exists()
    assert names["S"].shape == names["shape"]
