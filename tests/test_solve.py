"""From a scan to its crystal in one call: what it chooses, what it finds, what it says."""

from types import SimpleNamespace

import numpy as np
import pendel
import pytest
from pendel.analysis import crystals, disturbances, rocking_scans
from pendel.recipes import fine, first_step, sharpening, trust, voxels
from pendel.recipes import solve as solving
from pendel.recipes.in_band import in_band_start

pytest.importorskip("gemmi")
LITTLE = {"progress": False, "starts": 2, "steps": 600, "trial_epochs": 10}
LITTLE |= {"iterations": (0, 30), "fine_iterations": 60}


class Scan:
    """A gold crystal of 0.35 um, frames by the wide-angle method."""

    def __init__(self):
        self.experiment, self.crystal = rocking_scans.rocking_scan("coplanar", pixels=32, frames=33)
        self.sample = crystals.smooth(seed=3, size=0.35e-6, h=self.experiment.h)
        self.frames = rocking_scans.foreign_frames(self.experiment, self.crystal, self.sample)

    def counts(self, photons, seed=0):
        return np.random.default_rng(seed).poisson(self.frames * (photons / self.frames.sum())).astype(np.int32)

    def model(self, finer=1.0):
        voxel = self.experiment.suggest_voxel()
        shape = [2 * int(np.ceil(0.65 * self.sample.size / step)) for step in voxel]
        return voxels.finer_model(pendel.Model(self.experiment, self.crystal, shape, voxel), finer)

    def truth(self, model):
        return rocking_scans.truth_on(self.sample, self.experiment, model)[1]

    def error(self, result):
        """rms phase error, rad, inside."""
        truth = self.truth(result.model)
        told = pendel.compare(result.S, truth, result.voxel, support=np.abs(truth) > 0.97)
        return told.phase_rmse


@pytest.fixture(scope="module")
def scan():
    return Scan()


@pytest.fixture(scope="module")
def solved(scan):
    return pendel.solve(scan.experiment, scan.crystal, scan.counts(1e7), **LITTLE)


def test_finds_a_crystal_that_pendel_did_not_make(scan, solved):
    assert scan.error(solved) < 0.05
    coarse = scan.experiment.suggest_voxel()
    assert solved.voxel == solved.model.voxel and solved.voxel[1] < coarse[1]
    assert solved.S.shape == solved.model.shape
    assert solved.trust.excess < trust.ALL_PHOTONS and solved.trust.variance == 1
    assert solved.trust.grid < solved.trust.noise / 3 and "photon noise explains" in str(solved.trust)
    assert solved.trust.verdict == "found" and solved.trust.twin > 1.2


def test_blurred_frames_are_found_out_where_phases_do_not_show_it(scan, monkeypatch):
    """The phases of the blurred frames are taken for good: what the model leaves tells."""
    data = disturbances.spread(scan.frames, 0.7)
    data = np.random.default_rng(0).poisson(data * (1e8 / data.sum())).astype(np.int32)
    monkeypatch.setattr(sharpening, "SUSPECT", np.inf)
    ways, better = [], first_step._better
    monkeypatch.setattr(first_step, "_better", lambda *two: ways.append((two, better(*two))) or ways[-1][1])
    voxel = scan.experiment.suggest_voxel()
    result = pendel.solve(scan.experiment, scan.crystal, data, voxel=voxel, **LITTLE)
    (((plain, blurred), taken),) = ways
    assert taken is blurred and plain[0].point_spread == (0, 0) and blurred[0].point_spread == (0.7, 0.7)
    assert result.point_spread == pytest.approx((0.7, 0.7), abs=0.1)


WAYS = {
    "levels alone": ([3e-3], ["levels"], 0),
    "blurred": ([3.1e-3, 1.2e-3], ["levels", "blurred"], 1),
    "not much better": ([3.1e-3, 2.5e-3], ["levels", "blurred"], 0),
    "neither": ([5e-2, 4e-2, 1.5e-3], ["levels", "blurred", "smooth"], 2),
}


@pytest.mark.parametrize(("misfits", "names", "taken"), WAYS.values(), ids=WAYS)
def test_the_way_that_misses_the_frames_least_is_gone_on_with(scan, monkeypatch, misfits, names, taken):
    """At 1e-3 of photon noise."""
    data, model = scan.counts(1e7), scan.model()
    step = first_step.FirstStep(data, None, solving.SolveRecipe(), {}, None, None, False, None, None)
    found, went = [SimpleNamespace(misfit=misfit) for misfit in misfits], []

    def run(self, model, start, support, name, phased=None):
        went.append((name, phased))
        return found[len(went) - 1], 1e-3

    monkeypatch.setattr(first_step.FirstStep, "_run", run)
    _, result, noise = step.find(model, None, None, "phases", model, lambda: (model, "phases of the sharpened"))
    assert result is found[taken] and noise == 1e-3
    told = {"levels": "phases", "blurred": "phases of the sharpened", "smooth": None}
    assert went == [(name, told[name]) for name in names]


def test_what_the_model_misses_becomes_variance(scan):
    """A parasitic streak that nobody was told of, and that no background per frame takes up."""
    streak = np.zeros(scan.frames.shape)
    middle = streak.shape[2] // 2
    streak[:, :, middle - 2 : middle + 2] = 12.0
    data = scan.counts(1e7) + np.random.default_rng(1).poisson(streak)
    result = pendel.solve(scan.experiment, scan.crystal, data, voxel=scan.experiment.suggest_voxel(), **LITTLE)
    assert result.trust.variance > 2
    assert result.trust.misfit > 1.5 * result.trust.noise and "misses something" in str(result.trust)
    assert result.voxel == scan.experiment.suggest_voxel()


def test_a_start_of_ones_own_says_the_box(scan, solved):
    model = scan.model()
    start = scan.truth(model).astype(np.complex64)
    result = pendel.solve(scan.experiment, scan.crystal, scan.counts(1e7), start=start, **LITTLE)
    extent = np.multiply(result.model.shape, result.voxel) / np.multiply(model.shape, model.voxel)
    assert (extent >= 1).all() and (extent < 1.15).all()
    assert scan.error(result) < 0.05


def test_the_light_asks_for_the_voxels(scan):
    model, S = scan.model(), scan.truth(scan.model())
    misfits = [voxels.grid_misfit(scan.model(finer), S, model.voxel) for finer in (1.0, 2.0)]
    assert misfits[1] < misfits[0] / 5
    chosen = [voxels.fine_enough(model, S, model.voxel, noise)[0].voxel[1] for noise in (1.0, 1e-3)]
    assert chosen[1] < chosen[0] == pytest.approx(model.voxel[1])
    # the true crystal's own misfit is told within a factor of 5
    truth = scan.truth(model).astype(model.dtype)
    own = model.misfit(truth, scan.frames.astype(np.float32))
    assert own / 5 < misfits[0] < 5 * own


def test_noise_misfit(rng):
    assert voxels.noise_misfit(np.full((2, 3, 4), 500.0)) == pytest.approx(0.25 / 500, rel=2e-3)
    assert voxels.noise_misfit(np.full((2, 3, 4), 1e-6)) == pytest.approx(2.0, rel=5e-3)
    for mean in (0.03, 0.4, 2.0, 9.0):
        counts = rng.poisson(mean, 400_000)
        noise = np.square(np.sqrt(counts) - np.sqrt(mean)).mean()
        assert voxels.counting_noise(np.array([mean])) == pytest.approx(noise, rel=0.01), mean
    mask = np.zeros((3, 4), bool)
    mask[1, 1] = True
    expected = np.where(mask, 2500.0, np.nan) * np.ones((2, 1, 1))
    assert voxels.noise_misfit(expected, mask) == pytest.approx(1e-4, rel=1e-3)


def test_only_the_band_is_carried_over(scan, rng):
    model, fine = scan.model(), scan.model(2.0)
    S = scan.truth(model)
    noisy = S * np.exp(0.5j * rng.standard_normal(S.shape))
    start, support = in_band_start(noisy, model.voxel, fine)
    truth = scan.truth(fine)
    deep = np.abs(truth) > 0.99
    assert np.abs(np.angle(start * truth.conj()))[deep].std() < 0.2
    assert support[np.abs(truth) > 0.5].all() and not start[~support].any() and (np.abs(start[support]) > 0).all()
    # a surface no wider than three voxels of the data's
    part = (np.abs(start) > 0.1) & (np.abs(start) < 0.9)
    assert part.sum() < 3 * 2 * (np.abs(truth) > 0.5).sum() ** (2 / 3) * 6
    with pytest.raises(ValueError, match=r"S: expected \|S\| above 1/2 somewhere"):
        in_band_start(0.3 * S, model.voxel, fine)


def test_counts_are_told_from_intensities(scan):
    model, data = scan.model(), scan.counts(1e5)
    assert solving.in_counts(model, data, None, "auto") == (data, 1.0)
    flat = (data / np.random.default_rng(0).uniform(0.9, 1.1, data.shape)).astype(np.float32)
    assert solving.in_counts(model, flat, None, "auto")[0] is flat  # has pixels without light
    exact = scan.frames.astype(np.float32)
    taken, factor = solving.in_counts(model, exact, None, "auto")
    assert taken.mean() == pytest.approx(solving.BRIGHT, rel=1e-3)
    np.testing.assert_allclose(taken, factor * exact, rtol=1e-5)
    assert solving.in_counts(model, exact, None, True) == (exact, 1.0)


def test_frames_without_noise_are_fitted_in_their_own_units(scan):
    data = (1e-3 * scan.frames / scan.frames.max()).astype(np.float32)
    result = pendel.solve(scan.experiment, scan.crystal, data, **LITTLE)
    # so little of a search ends at the twin, misfit 5e-5: the frames prefer it turned back
    assert scan.error(result) < 0.03
    assert result.trust.verdict == "found" and result.trust.twin > 1.05
    computed = result.scale * result.model.intensities(result.S)
    assert computed.sum() == pytest.approx(data.sum(), rel=0.02)


def test_thick_crystals_do_not_begin_with_phases(scan):
    recipe, thin = solving.SolveRecipe(), scan.model()
    voxel = scan.experiment.suggest_voxel()
    thick = pendel.Model(scan.experiment, scan.crystal, (200, 4, 4), voxel)
    assert solving._begins_with_phases(thin, None, recipe) and not solving._begins_with_phases(thick, None, recipe)
    assert solving._begins_with_phases(thick, "kinematic", recipe)
    assert not solving._begins_with_phases(thin, "flat", recipe)
    assert not solving._begins_with_phases(thin, None, recipe.but(smallest=16))  # two levels


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"counts": "yes"}, ValueError, "counts: expected"),
        ({"voxel": "fine"}, ValueError, "voxel: expected"),
        ({"box": "big"}, ValueError, "box: expected"),
        ({"box": -1.0}, ValueError, "box"),
        ({"stepps": 3}, TypeError, "stepps"),
        ({"smoothness": -1}, ValueError, "smoothness: expected"),
        ({"start": np.ones(3)}, ValueError, "start: expected"),
    ],
)
def test_refused(scan, given, error, said):
    with pytest.raises(error, match=said):
        pendel.solve(scan.experiment, scan.crystal, scan.counts(1e5), progress=False, **given)


@pytest.mark.parametrize(("excess", "kept"), ((2.0, True), (2.9, True), (2.98, False), (3.5, False)))
def test_a_coherence_stays_where_the_frames_are_met_better(scan, monkeypatch, excess, kept):
    model, asked = object(), []
    step = fine.FineStep(scan.model, model, None, None, solving.SolveRecipe(), {}, False, None)

    def polish(self, name, found, model, **changes):
        asked.append((found, model, changes))
        return "smeared" if "refine_coherence" in changes else f"{found}, plain"

    monkeypatch.setattr(fine.FineStep, "_polish", polish)
    monkeypatch.setattr(fine.FineStep, "_excess", lambda self, name, result: excess if result == "smeared" else 3.0)
    refined = {"granted": 0.5} | fine.REFINED
    result, further = step._refined_on_wide_voxels("found", refined)
    assert [(found, there is model) for found, there, _ in asked] == [("found", True)] + [("found, plain", True)] * 2
    assert [changes.get("refine_coherence", False) for *_, changes in asked] == [False, False, True]
    assert (result == "smeared") == kept == ("refine_coherence" in further)
    assert all(further[name] == value for name, value in refined.items())
