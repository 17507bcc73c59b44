"""The bench of foreign frames does what it says, on a crystal so small that little can be seen of it."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pendel
import pytest

pytest.importorskip("gemmi")
BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def foreign(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import foreign

    return foreign


def small(foreign, **changes):
    return foreign.Case(**({"kind": "smooth", "seed": 0, "size": 0.28e-6, "pixels": 24, "frames": 17} | changes))


def test_a_row_compares_foreign_frames_with_own_ones(foreign, monkeypatch, tmp_path):
    little = {"steps": 400, "starts": 1, "trial_epochs": 8, "iterations": (0, 30), "fine_iterations": 40}
    monkeypatch.setattr(foreign.pendel, "solve", functools.partial(pendel.solve, **little))
    case = small(foreign, photons=1e7)
    row = foreign.run(case, cache=tmp_path)
    assert 0 < row["own"] < 0.06 and 0 < row["error"] < 0.06
    assert row["ratio"] == row["error"] / row["own"]
    assert 0 < row["own misfit"] < 0.01 and 0 < row["misfit"] < 0.01  # of photon noise, both
    text = foreign.line(row)
    assert text.split()[:5] == ["smooth", "0", "1e+07", "coplanar", "none"] and text.endswith(row["verdict"])
    assert row["trust"].startswith(row["verdict"]) and row["verdict"].startswith("found")
    wrong = row | {"verdict": "not found", "error": 1.0}
    assert list(foreign.verdicts([row, wrong, wrong])) == [
        f"{row['verdict']}: 1 right, 0 wrong (error above 0.05 rad)",
        "not found: 0 right, 2 wrong (error above 0.05 rad)",
    ]
    assert json.loads(json.dumps(row))["photons"] == 1e7

    # Frames with other noise are the same frames before it, and another crystal's are not.
    monkeypatch.setattr(foreign.rocking_scans, "foreign_frames", None)
    assert foreign.foreign_frames(small(foreign, photons=None), tmp_path).sum() > 0
    with pytest.raises(TypeError):
        foreign.foreign_frames(small(foreign, seed=1), tmp_path)


def test_the_error_of_the_truth_is_nought_wherever_it_is_and_whatever_its_phase_and_ramp(foreign):
    case = small(foreign)
    experiment, _, sample = case.scan()
    shape, voxel = (16, 16, 16), experiment.suggest_voxel()
    z, y, x = np.broadcast_arrays(*pendel.phantom.coordinates(shape, voxel))

    def moved(dz, dy, dx):
        r = np.stack([x + dx * voxel[2], y + dy * voxel[1], z + dz * voxel[0]])
        return sample(np.tensordot(experiment.frame.T, r, 1), voxel[1])[1]

    found = SimpleNamespace(S=moved(0, 0, 0), voxel=voxel)
    assert foreign.phase_error(found, sample, experiment) < 1e-6
    found.S = found.S * np.exp(1j * (0.3 + 2e6 * x - 3e6 * y + 1e6 * z))
    assert foreign.phase_error(found, sample, experiment) < 1e-6
    # between the voxels: what is left is the error of the shift that is found, a hundredth of a voxel
    between = moved(0.4, -0.3, 0.5)
    found.S = between
    assert foreign.phase_error(found, sample, experiment) < 2e-3
    _, truth = foreign.crystals.sampled(sample, shape, voxel, experiment.frame)
    assert pendel.compare(between, truth, voxel, np.abs(truth) > 0.9, ramp=True).phase_rmse > 0.02  # it rings
    found.S = moved(0, 0, 0) * np.exp(0.2j * np.random.default_rng(0).choice((-1, 1), shape))
    assert foreign.phase_error(found, sample, experiment) == pytest.approx(0.2, abs=0.01)


def test_true_angles_and_energies_reach_both_kinds_of_frames(foreign):
    case = small(foreign, frames=5)
    experiment, _, _ = case.scan()
    _, dy, dx = experiment.suggest_voxel()
    voxel = (dy / 2, dy / 2, dx / 2)
    frames = []
    for disturbance in ("none", "angles", "bandwidth"):
        changed = foreign.dataclasses.replace(case, disturbance=disturbance)
        own = foreign.own_frames(changed, (32, 32, 32), voxel) / 4  # per area of its voxels
        theirs = foreign.foreign_frames(changed)
        frames.append((own, theirs))
    for own, theirs in frames:
        assert misfit(own, theirs) < 6e-4
    for own, theirs in frames[1:]:
        changes = misfit(own, frames[0][0]), misfit(theirs, frames[0][1])
        assert changes[0] == pytest.approx(changes[1], rel=0.1) and changes[1] > 1e-4


def misfit(D, data):
    return ((np.sqrt(D) - np.sqrt(data)) ** 2).sum() / data.sum()


def test_crystals_to_tune_by_are_not_those_to_show(foreign):
    assert not set(foreign.TUNE) & set(foreign.SHOW)
    args = SimpleNamespace(kinds=["void"], photons=["none", "1e8"], geometry=["id01"], disturbance=["all"])
    for show, seeds in ((False, [0, 1]), (True, [1000, 1001])):
        found = list(foreign.cases(SimpleNamespace(**vars(args), seeds=None, show=show, quick=True)))
        assert [case.seed for case in found] == 2 * seeds and [case.photons for case in found][1::2] == [None, 1e8]
        assert {case.size for case in found} == {0.4e-6} and {case.geometry for case in found} == {"id01"}
    thick, _, sample = foreign.Case("thick", 0).scan()
    assert sample.size == pytest.approx(1.8e-6) and thick.detector_shape == (144, 144)
