"""Photons are counted where they were asked for; what wide-angle optics sees is the crystal that was asked for."""

import numpy as np
import pytest
from pendel.analysis import crystals, disturbances
from pendel.app import config, samples, simulate
from pendel.app.errors import ConfigError

TEXT = """
[experiment]
energy_keV = 8.0
distance_mm = 300.0
pixel_um = 55.0
arm = [["y+", 40.0], ["x-", 22.0]]
rocking_step_deg = 0.03
rocking_frames = 9
detector_shape = [24, 24]

[crystal]
hkl = [0, 0, 2]
chi_0 = [-9.407e-5, 8.4962e-6]
chi_h = [7.4e-5, -8.4e-6]

[model]
threads = 1
voxel_nm = "data"

[simulate]
size_nm = 300.0
rotation_deg = [10, 20, 30]
strain = "bumps"
"""


def made(*overrides):
    """(config, its model)."""
    found = config.loads(TEXT, overrides)
    return found, simulate.model_of(found)


def misfit(D, data):
    D = D * (np.sqrt(D * data).sum() / D.sum()) ** 2
    return np.square(np.sqrt(D) - np.sqrt(data)).sum() / data.sum()


@pytest.fixture(scope="module")
def intensities():
    return np.random.default_rng(1).gamma(0.2, size=(8, 20, 20)).astype(np.float32)


def test_photons_in_the_brightest_pixel_or_in_the_scan(intensities):
    data, scale = simulate.counts(intensities, photons=100, seed=3)
    assert data.dtype == np.int32 and scale * intensities.max() == pytest.approx(100)
    data, scale = simulate.counts(intensities, total=1e6, seed=3)
    assert data.dtype == np.int32 and abs(data.sum() - 1e6) < 4e3  # four standard deviations of a Poisson number
    expected = scale * intensities
    assert ((data - expected) ** 2).sum() / expected.sum() == pytest.approx(1, abs=0.1)  # variance = mean
    assert np.array_equal(data, simulate.counts(intensities, total=1e6, seed=3)[0])
    assert not np.array_equal(data, simulate.counts(intensities, total=1e6, seed=4)[0])


def test_no_noise_unless_photons_are_given(intensities):
    data, scale = simulate.counts(intensities)
    assert np.allclose(data, scale * intensities) and data.max() == pytest.approx(simulate.BRIGHTEST)
    with pytest.raises(ValueError, match="photons, total: expected at most one, got both"):
        simulate.counts(intensities, photons=1, total=1)
    with pytest.raises(ValueError, match="total: expected a finite number > 0"):
        simulate.counts(intensities, total=-1)


@pytest.mark.parametrize("shape", samples.SHAPES)
@pytest.mark.parametrize("strain", samples.STRAINS)
def test_a_sample_is_the_crystal_on_the_grid(shape, strain):
    this, model = made(f'simulate.shape="{shape}"', f'simulate.strain="{strain}"', "simulate.strength=1.3")
    sample = samples.sample_of(this, model)
    s_0, S = samples.averaged(this, model, sample)
    _, expected = crystals.sampled(sample, model.shape, model.voxel, model.experiment.frame)
    assert s_0 is None and S.dtype == model.dtype
    # volume fractions exact and from 4^3 places; the phase averaged over the voxel and at its middle
    assert np.sqrt(np.mean(np.abs(S - expected)[S != 0] ** 2)) < 0.03
    assert np.abs(S).sum() == pytest.approx(np.abs(expected).sum(), rel=0.01)
    assert np.abs(np.angle(S[S != 0])).max() == pytest.approx(0 if strain == "none" else 1.3, rel=1e-5)


def test_both_makers_see_the_same_crystal():
    finer = f"model.voxel_nm={[1e9 * v / 2 for v in made()[1].voxel]}", 'simulate.shape="truncated_octahedron"'
    found = simulate.simulated(*made(*finer))
    assert found.data.dtype == np.float32 and found.data.max() == pytest.approx(simulate.BRIGHTEST)
    # 8.5e-5 is the grid of the model; with the strain turned round it is 0.126
    for strength, expected in ((1.0, 0), (-1.0, 0.126)):
        own = simulate.simulated(*made(*finer, 'simulate.maker="model"', f"simulate.strength={strength}"))
        assert np.array_equal(found.S, own.S) == (strength > 0)
        assert misfit(own.data.astype(float), found.data.astype(float)) == pytest.approx(
            expected, abs=3e-4 + expected / 10
        )


def test_crystals_with_something_inside():
    plain = ("simulate.rotation_deg", "simulate.strain")
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(("rotation_deg", "strain")))
    for kind in ("void", "twin"):
        this = config.loads(text, [f'simulate.crystal="{kind}"', "simulate.crystal_seed=4", 'simulate.maker="model"'])
        model = simulate.model_of(this)
        sample = samples.sample_of(this, model)
        assert sample.name == crystals.KINDS[kind](4, 300e-9, model.experiment.h).name
        s_0, S = samples.averaged(this, model, sample)
        assert np.abs(S).max() == pytest.approx(1, abs=0.05) and not S[0].any() and not S[:, 0].any()
        data = simulate.simulated(this, model).data
        assert misfit(model.intensities(S, s_0=s_0).astype(float), data.astype(float)) < 1e-9
    assert misfit(model.intensities(S).astype(float), data.astype(float)) > 1e-6  # the half that only refracts
    for key in plain:
        with pytest.raises(ConfigError, match=f"simulate.crystal: expected this or {key}, got both"):
            one = [line for line in TEXT.splitlines() if line.startswith(("rotation_deg", "strain"))]
            kept = text + "\n" + "\n".join(line for line in one if line.startswith(key.split(".")[1]))
            simulate.model_of(config.loads(kept, ['simulate.crystal="void"']))
    with pytest.raises(ConfigError, match="simulate.size_nm: expected one number with simulate.crystal, got"):
        simulate.model_of(config.loads(text, ['simulate.crystal="void"', "simulate.size_nm=[1, 2, 3]"]))


def test_disturbances_are_in_the_frames(monkeypatch):
    calls = []

    def frames_of(model, sample, **offsets):
        calls.append(offsets)
        return np.random.default_rng(0).gamma(0.5, size=(9, 24, 24))

    monkeypatch.setattr(simulate, "wide_angle_frames", frames_of)
    steady = simulate.simulated(*made("simulate.photons=1e4"))
    assert steady.mask is None and not steady.unknown and not calls[-1]["angle_offsets"].any()
    options = "simulate.photons=1e4", "disturbances.flux_jitter=0.1", "disturbances.gap=true", "simulate.seed=3"
    this, model = made(*options, "disturbances.angle_jitter=0.2", "disturbances.background=0.5")
    seen = simulate.simulated(this, model)
    asked = disturbances.Disturbances(flux_jitter=0.1, gap=True, angle_jitter=0.2, background=0.5, photons=1, seed=3)
    assert np.array_equal(calls[-1]["angle_offsets"], disturbances.angle_offsets(model.experiment, asked))
    assert np.array_equal(seen.unknown["flux"], disturbances.relative_flux(9, asked)) and seen.data.dtype == np.int32
    assert np.array_equal(seen.mask[0], disturbances.live_pixels(model.experiment, asked)) and not seen.mask.all()
    frames = frames_of(model, None)
    assert seen.scale * frames.max() == pytest.approx(1e4, rel=0.05)  # the flux is 1 on average over frames, not light
    without = simulate.simulated(*made("disturbances.point_spread=1.0"))
    assert without.data.max() == pytest.approx(simulate.BRIGHTEST) and without.data.dtype == np.float32


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (('model.coupling="kinematic"',), "model.coupling: expected 'dynamical' with simulate.maker = 'wide-angle'"),
        (("disturbances.background=1",), "simulate.photons: expected a number with disturbances that count, got none"),
        (
            ('simulate.maker="model"', "disturbances.gap=true"),
            "disturbances.gap: expected simulate.maker = 'wide-angle', got 'model'",
        ),
        (
            ("experiment.centre=[4, -50, 12]",),
            "simulate.maker: expected 'model' for a scan that wide-angle cannot do: voxel: expected",
        ),
    ],
)
def test_what_the_makers_cannot_do_is_said(overrides, message):
    with pytest.raises(ConfigError, match=message):
        simulate.simulated(*made(*overrides))


def test_blur_of_the_model_alone_is_not_in_foreign_frames(monkeypatch):
    monkeypatch.setattr(simulate, "wide_angle_frames", lambda *_, **__: np.ones((9, 24, 24)))
    with pytest.warns(UserWarning, match=r"^model.point_spread: not in these frames, see \[disturbances\]"):
        simulate.simulated(*made("model.point_spread=0.5"))
