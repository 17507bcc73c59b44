"""`solve` ended while it looks at the twin, and on the twin's own way, and resumed: the same bits."""

import kills
import numpy as np
import pendel
import pytest
from pendel import io, kinematic
from pendel.fit import checkpoint_file
from pendel.recipes import fine
from pendel.recipes.solve import solve_on

LITTLE = {"starts": 1, "steps": 10, "trial_epochs": 2, "rounds": 1, "iterations": (2, 2), "levels": 0}
LITTLE |= {"fine_rounds": 1, "fine_iterations": 2, "strong": False, "progress": False}


class Ended(Exception):
    """What ends a run here."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """run(path, resume, end): a short `solve`, which ends once its checkpoint has a step that is called ``end``."""
    scan_file = tmp_path_factory.mktemp("twin") / "scan.cxi"
    kills.write_scan(scan_file)
    scan = io.read_scan(scan_file)
    gold = pendel.Crystal(chi_0=-9.407e-5 + 8.496e-6j, chi_h=7.400e-5 - 8.434e-6j, hkl=(0, 0, 2))
    experiment = pendel.Experiment.from_scan(scan, arm=[("y+", np.deg2rad(44.76))], rocking_axis="y+")
    model = pendel.Model(experiment, gold, (14, 14, 14), experiment.suggest_voxel(), threads=1)
    phased = kinematic.phase(scan.data, scan.mask, iterations=60, workers=1)
    start = kinematic.to_model_grid(phased, experiment, model.shape, model.voxel).astype(model.dtype)
    write = checkpoint_file.write

    def run(path=None, resume=False, end=None):
        def write_and_end(path, maker, signature, contents):
            write(path, maker, signature, contents)
            if end is not None and any(name.endswith(f"> {end}") for name in contents["steps"]):
                raise Ended

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint_file, "write", write_and_end)
            patch.setattr(fine, "PREFERRED", np.inf)  # every twin is tried
            return solve_on(model, scan.data, scan.mask, start, checkpoint=path, resume=resume, **LITTLE)

    return run


@pytest.fixture(scope="module")
def whole(run):
    return run()


@pytest.mark.parametrize("end", ("its twin", "twin, excess of refined 4"))
def test_it_goes_on_to_the_same_bits(run, whole, tmp_path, end):
    path = tmp_path / "solve.h5"
    with pytest.raises(Ended):
        run(path, end=end)
    found = run(path, resume=True)
    assert same_bits(found, whole) and found.trust == whole.trust


def same_bits(one, other):
    """Whether two `Result` have the same bits."""
    arrays = all(a.tobytes() == b.tobytes() for a, b in ((one.S, other.S), (one.support, other.support)))
    histories = all(np.array_equal(one.history[name], other.history[name]) for name in one.history)
    return arrays and histories and one.misfit == other.misfit and one.scale == other.scale
