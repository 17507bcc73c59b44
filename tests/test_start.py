"""The kinematic start: which twin, which grid, which box."""

import numpy as np
import pytest
from cube import bright_frames, make_model, strained
from pendel import Model, compare, kinematic, kinematic_start
from pendel.kinematic import box_for
from pendel.recipes.kinematic_starts import phase

ITERATIONS = 300


@pytest.fixture(scope="module")
def problem():
    """(model, truth, data): a strained gold cube of 0.8 um, whose absorption and refraction tell it from its twin."""
    model = make_model(size=24, off=0.0)
    places = [(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2), (0.15, -0.3, 0.3)]
    truth = strained(model, places, np.full(3, 0.25), [1.5, 1.2, 1.4])[1]
    return model, truth, bright_frames(model, truth)


@pytest.mark.parametrize("seed", range(3))
def test_the_twin_is_decided_right(problem, seed):
    model, truth, data = problem
    start = kinematic_start(model, data, iterations=ITERATIONS, trial_epochs=12, seed=seed, progress=False)
    assert set(start.trial_misfits) == {"phased", "flat", "twin phased", "twin flat"}
    assert start.kind == min(start.trial_misfits, key=start.trial_misfits.get)
    assert start.kind.endswith("phased") and start.twin == start.kind.startswith("twin")
    misfits = start.trial_misfits
    assert start.other.twin != start.twin and misfits[start.kind] == min(misfits.values())
    assert misfits[start.other.kind] == min(v for k, v in misfits.items() if k.startswith("twin") != start.twin)
    assert not np.array_equal(start.other.S, start.S) and start.other.other is None
    # refraction is still in the phases as a ramp; `compare` may take the twin where that is nearer
    assert not compare(start.S, truth, model.voxel, ramp=True, twin=True).twin


def test_a_phased_object_of_either_twin_gives_the_same_crystal(problem):
    model, truth, data = problem
    phased = kinematic.phase(data, iterations=ITERATIONS, seed=0, workers=1)
    # numpy's twin of an even array: index 0 stays
    flipped = {name: np.roll(np.flip(getattr(phased, name)), 1, axis=(0, 1, 2)) for name in ("object", "support")}
    flipped = kinematic.KinematicResult(flipped["object"].conj(), flipped["support"], phased.chi, phased.error, 0)
    starts = [kinematic_start(model, data, phased=p, trial_epochs=12, progress=False) for p in (phased, flipped)]
    assert starts[0].twin != starts[1].twin and starts[0].chi == phased.chi
    assert not any(compare(s.S, truth, model.voxel, ramp=True, twin=True).twin for s in starts)


def test_without_a_trial_the_object_is_taken_as_phased(problem):
    model, _, data = problem
    start = kinematic_start(model, data, iterations=ITERATIONS, trial_epochs=0, progress=False)
    assert (start.kind, start.twin, start.trial_misfits, start.other) == ("phased", False, {}, None)
    assert start.S.dtype == model.dtype and start.S.shape == model.shape
    assert np.abs(start.S).max() <= 1 + 3e-7 and start.support[np.abs(start.S) > 0.3].all()  # clipped in float32


@pytest.mark.parametrize("margin", [1.0, 1.35])
def test_the_box_holds_the_crystal(problem, margin):
    model, truth, data = problem
    phased = kinematic.phase(data, iterations=ITERATIONS, seed=0, workers=1)
    shape = box_for(phased, model.experiment, model.voxel, margin)
    used = [np.ptp(np.nonzero(truth)[a]) + 1 for a in range(3)]
    assert all(n % 2 == 0 for n in shape)
    # the phased support is a voxel or so wider than the crystal on either side, and it is measured about its centre of
    # mass; the field of view of 24 voxels bounds y and x
    assert all(u <= n <= margin * (u + 6) + 2 for u, n in zip(used, shape, strict=True)), (used, shape)
    assert max(shape[1:]) <= 24
    small = Model(model.experiment, model.crystal, shape, model.voxel, polarization={"sigma": 1.0})
    S = kinematic.to_model_grid(phased, model.experiment, shape, model.voxel)
    assert S.shape == small.shape and np.abs(S).max() > 0.9


def test_a_smaller_voxel_gives_a_larger_box(problem):
    model, _, data = problem
    phased = kinematic.phase(data, iterations=100, seed=0, workers=1)
    shape = np.array(box_for(phased, model.experiment, model.voxel))
    fine = np.array(box_for(phased, model.experiment, np.array(model.voxel) / (2, 1, 1)))
    assert abs(fine[0] - 2 * shape[0]) <= 2 and (fine[1:] == shape[1:]).all()


def test_bad_arguments_are_named(problem, capsys):
    model, _, data = problem
    with pytest.raises(ValueError, match="trial_epochs: expected .* >= 0, got -1"):
        kinematic_start(model, data, trial_epochs=-1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'; did you mean 'trial_epochs'"):
        kinematic_start(model, data, epochs=3)
    with pytest.raises(TypeError, match="phased: expected a KinematicResult or None, got"):
        kinematic_start(model, data, phased=np.ones(3))
    tiny = Model(model.experiment, model.crystal, (6, 6, 6), model.voxel)
    with pytest.raises(ValueError, match="shape: expected at least .* voxels to hold the object, got"):
        kinematic_start(tiny, data, iterations=50, progress=False)
    phase(data, iterations=3, threads=1)
    assert capsys.readouterr().err.startswith("kinematic phasing: iteration 3/3 error=")


def test_the_best_of_several_phasings_is_kept(problem):
    data = problem[2]
    few = {"iterations": 30, "blocks": ("hio", "er"), "period": 10}
    found = phase(data, seed=1, starts=3, threads=2, progress=False, **few)
    each = [kinematic.phase(data, seed=seed, workers=2, **few) for seed in (3, 4, 5)]
    best = min(each, key=lambda result: result.chi)
    assert found.seed == best.seed and np.array_equal(found.object, best.object)
    with pytest.raises(ValueError, match="starts: expected an integer >= 1, got 0"):
        phase(data, starts=0)
