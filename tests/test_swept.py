"""What the model takes for the crystal: the curved Ewald sphere, a turning crystal and voxels that are means.

Against sums over voxels with every pixel's own wave vector, against frames of wide-angle propagation, and against
finite differences.
"""

import functools
import math

import numpy as np
import pytest
from pendel import Crystal, Experiment, Model, Nuisance
from pendel.analysis import crystals, rocking_scans
from pendel.experiment import rotation
from pendel.model.swept import MISS, AsItIs, Swept
from scan import FRAMES, SHAPE, STRONG, evaluate, make_crystal, make_data, make_experiment, make_model
from scipy import ndimage

ARMS = {"coplanar": (("y+", math.radians(44.76)),), "roll": (("y+", math.radians(30)), ("x-", math.radians(20)))}
WAVELENGTH, PIXEL = 1.5498e-10, 55e-6
MIXED = {"sigma": 0.3, "pi": 0.7}
MEANS = {"sampling": "mean"}


def scan(arm, step, frames, pixels):
    """Field of view 0.64 um; ``step`` in degrees."""
    return Experiment(
        wavelength=WAVELENGTH,
        distance=0.64e-6 * PIXEL / WAVELENGTH,
        pixel_size=PIXEL,
        detector_shape=(pixels, pixels),
        arm=ARMS[arm],
        rocking_axis="y+",
        rocking_angles=np.deg2rad(step) * (np.arange(frames) - frames // 2),
    )


def kinematic(experiment, ewald):
    """Kinematic model of point samples in a box of 0.58 um."""
    voxel = experiment.suggest_voxel()
    shape = tuple(math.ceil(0.58e-6 / step) for step in voxel)
    options = {"polarization": {"sigma": 1.0}, "coupling": "kinematic", "dtype": "complex128", "threads": 1}
    return Model(experiment, Crystal(-9e-5, 5e-5), shape, voxel, ewald=ewald, sampling="point", **options)


def places(model):
    """z, y, x of the voxels, m."""
    return [(np.arange(n) - n // 2) * step for n, step in zip(model.shape, model.voxel, strict=True)]


def smooth_crystal(model, size=0.19e-6):
    """A round strained crystal that falls to 1e-9 within its box, so that no voxel is 0."""
    z, y, x = np.meshgrid(*places(model), indexing="ij")
    radius = (x**2 + (y / 0.9) ** 2 + (z / 1.1) ** 2 + 0.3 * x * z) / size**2
    bump = ((x - 0.4 * size) ** 2 + (y + 0.2 * size) ** 2 + (z - 0.3 * size) ** 2) / (0.6 * size) ** 2
    return np.exp(-(radius**2) + 1.5j * np.exp(-bump))


def turn(experiment, frame):
    """Of the crystal, in the model frame."""
    angle = experiment.rocking_angles[frame] - experiment.centre_angle
    return experiment.frame @ rotation(experiment.rocking_axis, angle) @ experiment.frame.T


def summed(model, S):
    """|sum S exp(-i Q.r)|^2 with Q = R^-1 (k_f - k_0) - h of every pixel's own k_f and every frame's turn R."""
    experiment, (z, y, x) = model.experiment, places(model)
    row, col = (np.arange(n) - c for n, c in zip(experiment.detector_shape, experiment.centre[1:], strict=True))
    way = experiment.frame @ experiment.k_h / experiment.k * experiment.distance + experiment.pixel_size * (
        col[:, None] * experiment.e_col + row[:, None, None] * experiment.e_row
    )
    k_f = experiment.k * way / np.linalg.norm(way, axis=-1, keepdims=True)
    k_0, h = experiment.frame @ experiment.k_0, experiment.frame @ experiment.h
    frames = []
    for frame in range(experiment.n_frames):
        q_x, q_y, q_z = ((k_f - k_0) @ turn(experiment, frame) - h).reshape(-1, 3).T
        rows = S @ np.exp(-1j * np.outer(x, q_x))
        layers = np.einsum("zyp,yp->zp", rows, np.exp(-1j * np.outer(y, q_y)))
        frames.append(np.abs(np.einsum("zp,zp->p", layers, np.exp(-1j * np.outer(z, q_z)))) ** 2)
    return np.reshape(frames, (-1, *experiment.detector_shape))


def misfit(measured, computed):
    """At the best scale."""
    scale = (np.sqrt(measured * computed).sum() / computed.sum()) ** 2
    return ((np.sqrt(measured) - np.sqrt(scale * computed)) ** 2).sum() / measured.sum()


def sheared(model, S, frame):
    """S with the shear of a frame that the model neglects: p_j.(grad g(Q) - grad g(0)) in all orders."""
    experiment, z = model.experiment, places(model)[0]
    q_y, q_x = (2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(model.shape[1:], model.voxel[1:], strict=True))
    q_y = q_y[:, None]
    k_0, k_h = experiment.frame @ experiment.k_0, experiment.frame @ experiment.k_h
    p = turn(experiment, frame).T @ k_0 - k_0

    def sphere(q_x, q_y):
        return np.sqrt(experiment.k**2 - (k_h[0] + q_x) ** 2 - (k_h[1] + q_y) ** 2)

    lag = sphere(q_x, q_y) - sphere(0, 0) - sphere(q_x + p[0], q_y + p[1]) + sphere(p[0], p[1])
    return np.fft.ifft2(np.fft.fft2(S) * np.exp(1j * lag * z[:, None, None]))


def factors(model, counts=None):
    """(4) as it stands, without taps, complex (nz, rows, columns) at the frequencies of an FFT of so many."""
    experiment, z = model.experiment, places(model)[0]
    counts = model.shape[1:] if counts is None else counts
    q_y, q_x = (2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(counts, model.voxel[1:], strict=True))
    q_y = q_y[:, None]
    k_x, k_y, k_z = experiment.frame @ experiment.k_h
    sphere = np.sqrt(experiment.k**2 - (k_x + q_x) ** 2 - (k_y + q_y) ** 2)
    lag = k_z - (k_x * q_x + k_y * q_y) / k_z - sphere
    means = 1.0
    if model.sampling == "mean":
        seen = 2 * np.pi * np.abs(experiment.detector_q()).max(axis=(0, 1))
        seen += np.abs(swept_dq(model)[:, :2]).max(axis=0)
        for q, step, edge in ((q_x, model.voxel[2], seen[0]), (q_y, model.voxel[1], seen[1])):
            means = means * np.sinc(np.minimum(np.abs(q), edge) * step / (2 * np.pi))
    return np.exp(1j * lag * z[:, None, None]) / means


def swept_dq(model):
    return model.passes.swept.taken(np.zeros(model.shape, model.dtype), None, model.experiment.dq)[2]


def exactly(model, S, frames=None):
    """`Model.intensities` with (4) as it stands, which every axis of the spectrum has a share of."""
    plain = Model(
        model.experiment, model.crystal, model.shape, model.voxel, ewald="flat", sampling="point",
        polarization=model.polarization, coupling=model.coupling, dtype=model.dtype, threads=1,
    )  # fmt: skip
    taken = np.fft.ifft2(np.fft.fft2(S) * factors(model))
    return plain.intensities(taken, frames, dq=swept_dq(model))


@pytest.mark.parametrize(("arm", "most", "taps"), [("coplanar", 1e-10, 2e-10), ("roll", 6e-9, 8e-9)])
def test_kinematic_frames_are_sums_over_voxels_but_for_a_shear(arm, most, taps):
    """A roll leaves the turn of the pattern on the detector too."""
    model = kinematic(scan(arm, 0.05, 9, 32), "curved")
    S = smooth_crystal(model)
    expected = summed(model, S)
    found = [exactly(model, sheared(model, S, frame), [frame])[0] for frame in range(model.n_frames)]
    assert misfit(expected, np.array(found)) < most
    # the model itself, whose taps are not quite (4): 1.3e-10 and 7.0e-9
    found = [model.intensities(sheared(model, S, frame), [frame])[0] for frame in range(model.n_frames)]
    assert misfit(expected, np.array(found)) < taps
    assert 5e-9 < misfit(expected, model.intensities(S)) < 2e-7  # the shear itself


@pytest.mark.parametrize(
    ("arm", "step", "better", "sheared_better"), [("coplanar", 0.005, 300, 1000), ("coplanar", 0.05, 5, 20),
                                                  ("roll", 0.005, 10, 10), ("roll", 0.05, 2, 10)]
)  # fmt: skip
def test_the_curved_sphere_is_nearer_to_the_sum_than_the_plane(arm, step, better, sheared_better):
    """Sharp surfaces, so that light reaches the detector's corners; what is left is the shear, which grows with the
    range of angles.
    """
    experiment = scan(arm, step, 5, 48)
    curved, flat = (kinematic(experiment, ewald) for ewald in ("curved", "flat"))
    S = smooth_crystal(curved)
    S = np.where(np.abs(S) > 0.4, S, 1e-12)
    expected = summed(curved, S)
    plane = misfit(expected, flat.intensities(S))
    assert plane > 3e-7
    assert misfit(expected, exactly(curved, S)) < plane / better
    # the model itself is 138, 8, 14 and 2.5 times nearer: in the first case its taps miss more than (4) does
    assert misfit(expected, curved.intensities(S)) < plane / min(better, 100)
    found = [exactly(curved, sheared(curved, S, frame), [frame])[0] for frame in range(5)]
    assert misfit(expected, np.array(found)) < plane / sheared_better


@functools.cache
def wide_angle_frames(geometry):
    """(experiment, crystal, sample, frames, indices) of a crystal of 0.28 um."""
    experiment, crystal = rocking_scans.rocking_scan(geometry, pixels=24, frames=17)
    sample, seen = crystals.smooth(0, 0.28e-6, experiment.h), [2, 5, 8, 11, 14]
    return experiment, crystal, sample, rocking_scans.foreign_frames(experiment, crystal, sample, frames=seen), seen


def truth_misfit(geometry, finer, **changes):
    """Of the true crystal on voxels ``finer`` times as narrow as suggested, against wide-angle frames."""
    experiment, crystal, sample, measured, seen = wide_angle_frames(geometry)
    voxel = tuple(step / finer for step in experiment.suggest_voxel())
    shape = tuple(math.ceil(1.3 * sample.size / step) for step in voxel)
    model = Model(experiment, crystal, shape, voxel, **({"dtype": "complex128", "threads": 1} | MEANS | changes))
    s_0, S = rocking_scans.truth_on(sample, experiment, model)
    S = np.where(ndimage.binary_dilation(S != 0, iterations=finer) & (S == 0), 1e-12, S)  # as the support of a fit
    return misfit(measured, model.intensities(S, seen, np.maximum(s_0, 0)))


@pytest.mark.parametrize(("geometry", "left"), [("coplanar", 0.7), ("34idc", 0.84)])
def test_the_true_crystal_is_nearer_to_wide_angle_frames(geometry, left):
    pytest.importorskip("gemmi")
    assert truth_misfit(geometry, 2) < truth_misfit(geometry, 2, sampling="point") / 5
    assert truth_misfit(geometry, 3) < left * truth_misfit(geometry, 3, ewald="flat")
    assert truth_misfit(geometry, 3) < 1e-5


def models():
    """{name: what changes a small model}, in both orientations."""
    return {
        "dynamical": {},
        "kinematic": {"coupling": "kinematic"},
        "two polarisations": {"polarization": MIXED},
        "fourier": {"transport": "fourier"},
        "curved points": {"sampling": "point"},
        "flat means": {"ewald": "flat"},
    }


def small_model(orientation="k_h", degrees=None, dtype="complex128", **changes):
    """Of a strong crystal; for the symmetric orientation co-planar at 2 theta in degrees."""
    if orientation == "k_h":
        return make_model(dtype, **(MEANS | changes))
    experiment = make_experiment(arm=(("y+", math.radians(degrees)),), orientation="symmetric")
    voxel = experiment.suggest_voxel(transport=changes.get("transport", "shift"))
    return Model(experiment, STRONG, SHAPE, voxel, **{"dtype": dtype, "threads": 1} | MEANS | changes)


def derivative(function, step):
    """Central difference, extrapolated once: error of order step^4."""
    slopes = [(function(h) - function(-h)) / (2 * h) for h in (step, step / 2)]
    return (4 * slopes[1] - slopes[0]) / 3


def noise(rng, where):
    return np.where(where, rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE), 0)


CASES = [("k_h", None, name) for name in models()] + [
    ("symmetric", degrees, name) for degrees in (40, 120) for name in ("dynamical", "kinematic", "fourier")
]


@pytest.mark.parametrize("where", ["no support", "support", "wider support"])
@pytest.mark.parametrize(("orientation", "degrees", "name"), CASES)
def test_gradient_of_the_crystal(rng, orientation, degrees, name, where):
    model = small_model(orientation, degrees, **models()[name])
    S, data = make_crystal(rng), make_data(rng)
    support = {"no support": None, "support": S != 0, "wider support": np.arange(SHAPE[2]) > 0}[where]
    support = None if support is None else np.broadcast_to(support, SHAPE).copy()
    inside = S != 0 if support is None else support
    S += 0.3 * (inside & (S == 0))  # |S| has a corner at 0
    direction = noise(rng, inside)
    for s_0 in (None, rng.uniform(0.2, 1, SHAPE)):
        result = evaluate(model, S, data, scale=None, s_0=s_0, support=support)
        slope = np.sum(np.conj(result.adj_S) * direction).real
        found = derivative(
            lambda h, s_0=s_0: evaluate(model, S + h * direction, data, scale=None, s_0=s_0, support=support).loss, 5e-5
        )
        # pixels close to D = 0 bend the loss, see test_model.py
        assert found == pytest.approx(slope, rel=1e-7)
        assert support is None or not result.adj_S[~support].any()


@pytest.mark.parametrize(("orientation", "degrees"), [("k_h", None), ("symmetric", 40), ("symmetric", 120)])
@pytest.mark.parametrize("coupling", ["dynamical", "kinematic"])
def test_gradients_of_all_else(rng, orientation, degrees, coupling):
    model = small_model(orientation, degrees, coupling=coupling, point_spread=(0.7, 0.4))
    S, data, count = make_crystal(rng), make_data(rng) + rng.poisson(2, (FRAMES, 14, 16)), len(make_data(rng))
    assert count == FRAMES == model.n_frames
    support = S != 0
    at = {
        "s_0": rng.uniform(0.2, 1, SHAPE),
        "dq": model.experiment.dq + rng.uniform(-1e5, 1e5, (FRAMES, 3)),
        "flux": rng.uniform(0.8, 1.2, FRAMES),
        "background": rng.uniform(0.5, 1, FRAMES),
        "variance": np.array([0.5, 0.3]),
    }

    def result_of(**moved):
        now = at | moved
        nuisance = Nuisance(now["background"], tuple(np.sqrt(now["variance"])), ("flux", "background", "blur"))
        given = {name: now[name] for name in ("s_0", "dq", "flux")}
        return evaluate(model, S, data, scale=1e5, support=support, background=0.5, nuisance=nuisance, **given)

    result = result_of()
    adjoints = {
        "s_0": result.adj_s_0,
        "dq": result.adj_dq,
        "flux": result.adj_flux,
        "background": result.adj_background,
        "variance": result.adj_blur,
    }
    sizes = {"s_0": 1e-4, "dq": 3e4, "flux": 1e-4, "background": 1e-3, "variance": 1e-4}
    for name, adj in adjoints.items():
        direction = sizes[name] * rng.normal(size=adj.shape) * (support if name == "s_0" else 1)
        expected = np.sum(adj * direction)
        if name == "s_0" and coupling == "kinematic":
            assert not adj.any()
            continue
        slope = derivative(lambda h, n=name, d=direction: result_of(**{n: at[n] + h * d}).loss, 1.0)
        assert slope == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("name", ["dynamical", "kinematic"])
def test_what_the_gradient_leaves_is_of_second_order(rng, name):
    model, S, data = make_model(**(MEANS | models()[name])), make_crystal(rng), make_data(rng)
    support = S != 0
    direction = noise(rng, support)
    result = evaluate(model, S, data, scale=1e5, support=support)
    slope = np.sum(np.conj(result.adj_S) * direction).real
    rest = [
        abs(evaluate(model, S + h * direction, data, scale=1e5, support=support).loss - result.loss - h * slope)
        for h in (2e-4, 1e-4, 5e-5)
    ]
    np.testing.assert_allclose(np.divide(rest[:-1], rest[1:]), 4, rtol=0.02)


@pytest.mark.parametrize(("orientation", "degrees"), [("k_h", None), ("symmetric", 120)])
@pytest.mark.parametrize("shape", [SHAPE, (4, 7, 11), (3, 1, 6)])
@pytest.mark.parametrize("where", ["no support", "support"])
def test_the_adjoint_of_what_is_taken(rng, orientation, degrees, shape, where):
    small = small_model(orientation, degrees, coupling="kinematic")
    model = Model(
        small.experiment, STRONG, shape, small.voxel, coupling="kinematic", dtype="complex128", threads=1, **MEANS
    )
    swept = model.passes.swept
    support = rng.uniform(size=shape) > 0.6 if where == "support" else None
    S, adj = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for _ in range(2))
    S = S if support is None else np.where(support, S, 0)
    taken, s_0, _, reached, filled = swept.taken(S, None, model.experiment.dq, support)
    assert s_0 is None
    assert reached is None if support is None else np.array_equal(reached, support)
    assert np.array_equal(taken != 0, S != 0)
    adj = adj if support is None else np.where(support, adj, 0)
    adj_S, adj_s_0 = swept.adjoint(adj, None, S, None, support, filled)
    assert np.vdot(adj, taken) == pytest.approx(np.vdot(adj_S, S), rel=1e-12) and adj_s_0 is None
    twice = swept.taken(2j * S, None, model.experiment.dq, support)[0]
    np.testing.assert_allclose(twice, 2j * taken, rtol=1e-12, atol=1e-14)


def slowly_filtered(values, taps_y, taps_x):
    """`Engine.filter` by its definition."""
    (nz, ny, nx), reach = values.shape, taps_y.shape[1] // 2
    found = np.zeros(values.shape, complex)
    for z, y, x in np.ndindex(nz, ny, nx):
        for m in range(max(-reach, -y), min(reach, ny - 1 - y) + 1):
            for n in range(max(-reach, -x), min(reach, nx - 1 - x) + 1):
                found[z, y, x] += taps_y[z, m + reach] * taps_x[z, n + reach] * values[z, y + m, x + n]
    return found


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("reach", [1, 4])
@pytest.mark.parametrize("shape", [(3, 9, 21), (2, 5, 3), (1, 1, 1)])
def test_a_filter_is_its_sum_over_neighbours(rng, tolerance, relative, dtype, reach, shape):
    engine = make_model().operators[0][1].engine
    values, S = ((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype) for _ in range(2))
    taps = [(rng.normal(size=(shape[0], 2 * reach + 1)) + 1j).astype(dtype) for _ in range(2)]
    wanted, adj_size = rng.uniform(size=shape) > 0.5, rng.normal(size=shape).astype(values.real.dtype)
    S.flat[0] = 0
    expected = slowly_filtered(values, *taps)
    assert relative(engine.filter(values, *taps, threads=1), expected) < tolerance[dtype]
    unit = np.divide(S, np.abs(S), out=np.zeros_like(S), where=S != 0)
    found = engine.filter(values, *taps, wanted, S=S, adj_size=adj_size, threads=2)
    assert found.dtype == dtype and not found[~wanted].any()
    expected = np.where(wanted, expected + adj_size * unit, 0)
    assert relative(found, expected) < tolerance[dtype] or not wanted.any()


@pytest.mark.parametrize(("orientation", "degrees"), [("k_h", None), ("symmetric", 40), ("symmetric", 120)])
@pytest.mark.parametrize("name", ["dynamical", "curved points", "flat means"])
@pytest.mark.parametrize("finer", [1, 2, 3])
def test_taps_are_near_to_the_factors_where_there_is_light(orientation, degrees, name, finer):
    """Plane waves through the taps, weighed as flat faces weigh them."""
    small = small_model(orientation, degrees, **models()[name])
    voxel = tuple(step / finer for step in small.voxel)
    options = {"dtype": "complex128", "threads": 1} | MEANS | models()[name]
    model = Model(small.experiment, STRONG, (7, 6, 8), voxel, **options)
    taps_y, taps_x = model.passes.swept._taps
    assert taps_y.shape == taps_x.shape == (7, taps_x.shape[1])
    turns = 2 * np.pi * np.fft.fftfreq(64)
    waves = np.exp(1j * np.outer(np.arange(taps_x.shape[1]) - taps_x.shape[1] // 2, turns))
    found = (taps_y @ waves)[:, :, None] * (taps_x @ waves)[:, None, :]
    wanted = factors(model, (64, 64))
    wanted = np.abs(wanted) if name == "flat means" else wanted
    band = 2 * np.pi * np.abs(model.experiment.detector_q()).max(axis=(0, 1))
    steps = zip(band, voxel[:0:-1], strict=True)
    light = [(np.abs(turns) <= edge * step) / (np.square(turns) + 0.3**2) for edge, step in steps]
    weight = light[1][:, None] * light[0]
    missed = np.sqrt((np.square(np.abs(found - wanted)) * weight).sum(axis=(1, 2)) / weight.sum())
    assert missed.max() < 1.5 * MISS


def test_what_is_taken_is_cut_where_the_crystal_ends(rng):
    """Neither the support nor where the crystal stands in its box matters."""
    model = Model(make_experiment(), STRONG, (5, 20, 24), make_model().voxel, dtype="complex128", threads=1, **MEANS)
    swept, dq = model.passes.swept, model.experiment.dq
    S, support = np.zeros(model.shape, complex), np.zeros(model.shape, bool)
    support[1:4, 6:11, 7:13] = True
    S[2:4, 7:11, 8:12] = rng.normal(size=(2, 4, 4)) + 1j * rng.normal(size=(2, 4, 4))
    taken, size, _, reached, _ = swept.taken(S, None, dq, support)
    assert np.array_equal(reached, support) and np.array_equal(taken != 0, S != 0)
    np.testing.assert_allclose(size, np.abs(S), rtol=1e-14)
    assert np.array_equal(taken, swept.taken(S, None, dq)[0])
    assert np.array_equal(swept.taken(S, None, dq, np.zeros_like(support))[3], S != 0)

    aside = swept.taken(np.roll(S, (0, 5, -4), (0, 1, 2)), None, dq, np.roll(support, (0, 5, -4), (0, 1, 2)))[0]
    np.testing.assert_allclose(np.roll(aside, (0, -5, 4), (0, 1, 2)), taken, atol=1e-14)


def test_without_a_support_voxels_of_nothing_have_a_gradient(rng):
    model, S, data = make_model(**MEANS), make_crystal(rng), make_data(rng)
    plain, limited = (evaluate(model, S, data, support=support).adj_S for support in (None, S != 0))
    np.testing.assert_allclose(plain[S != 0], limited[S != 0], rtol=1e-11, atol=1e-13 * np.abs(plain).max())
    assert plain.all() and not limited[S == 0].any()


def test_an_empty_crystal_takes_nothing_and_has_a_gradient_where_it_may_be():
    model = make_model(**MEANS)
    S, support = np.zeros(SHAPE, complex), np.zeros(SHAPE, bool)
    for inside in (None, support):
        taken, size, *_ = model.passes.swept.taken(S, None, model.experiment.dq, inside)
        assert not taken.any() and not size.any()


def test_means_are_sharpened_and_points_are_not():
    """A plane wave within the band is divided by the sinc of its mean; a frame by that along z, squared."""
    experiment = make_experiment()
    model, points = (make_model(sampling=sampling, ewald="flat") for sampling in ("mean", "point"))
    assert isinstance(points.passes.swept, AsItIs) and isinstance(model.passes.swept, Swept)
    y, x = np.arange(SHAPE[1])[:, None], np.arange(SHAPE[2])
    wave = np.broadcast_to(np.exp(2j * np.pi * (x / SHAPE[2] + 2 * y / SHAPE[1])), SHAPE).copy()
    taken = model.passes.swept.taken(wave, None, experiment.dq)[0]
    inside = (slice(None), slice(4, -4), slice(4, -4))  # taps see nothing beyond the box
    expected = wave / (np.sinc(1 / SHAPE[2]) * np.sinc(2 / SHAPE[1]))
    np.testing.assert_allclose(taken[inside], expected[inside], rtol=0.03)
    light = np.sinc(experiment.dq[:, 2] * model.voxel[0] / (2 * np.pi)) ** -2.0
    np.testing.assert_allclose(model.passes.swept.light(None), light, rtol=1e-12)
    flux = np.linspace(0.8, 1.2, FRAMES)
    np.testing.assert_allclose(model.passes.swept.light(flux), light * flux, rtol=1e-12)
    np.testing.assert_allclose(model.passes.swept.adj_flux(flux[[5, 1]], [5, 1]), (light * flux)[[5, 1]], rtol=1e-12)
    assert points.passes.swept.light(flux) is flux and points.passes.swept.adj_flux(flux, None) is flux


def test_the_plane_and_points_are_operator_and_far_field(rng):
    model, S = make_model(ewald="flat", sampling="point", polarization={"sigma": 1.0}), make_crystal(rng)
    E_h = model.operators[0][1].forward(S, model.experiment.dq)
    expected = np.abs(model.far_field.forward(E_h)) ** 2
    np.testing.assert_allclose(model.intensities(S), expected, rtol=1e-12, atol=1e-14 * expected.max())


@pytest.mark.parametrize(("orientation", "degrees"), [("k_h", None), ("symmetric", 120)])
def test_single_precision_is_close_to_double(rng, relative, tolerance, orientation, degrees):
    single, double = (small_model(orientation, degrees, dtype) for dtype in ("complex64", "complex128"))
    S, data = make_crystal(rng), make_data(rng)
    found, expected = (
        evaluate(model, S.astype(model.dtype), data, scale=1e5, support=S != 0) for model in (single, double)
    )
    assert found.adj_S.dtype == np.complex64 and single.intensities(S.astype(np.complex64)).dtype == np.float32
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert relative(found.adj_S, expected.adj_S) < 2 * tolerance["complex64"]  # pixels near D = 0, see test_model.py


def test_results_do_not_depend_on_threads(rng):
    S, data = make_crystal(rng), make_data(rng)
    one, three = (
        evaluate(make_model("complex64", threads=n, **MEANS), S.astype(np.complex64), data, scale=None, support=S != 0)
        for n in (1, 3)
    )
    for a, b in zip(one, three, strict=True):
        assert a is None or np.array_equal(a, b)


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("inside", ["support", "no support"])
def test_what_is_taken_on_a_device_is_that_of_the_cpu(device, rng, relative, tolerance, name, inside):
    cpu, model = (small_model(**models()[name], device=where) for where in ("cpu", "cuda"))
    S, data, flux = make_crystal(rng), make_data(rng), rng.uniform(0.8, 1.2, FRAMES)
    xp, support = device.cupy, S != 0 if inside == "support" else None
    expected = evaluate(cpu, S, data, scale=1e5, support=support, flux=flux, nuisance=Nuisance(gradients=("flux",)))
    there = {"support": None if support is None else xp.asarray(support), "flux": xp.asarray(flux)}
    found = evaluate(model, xp.asarray(S), xp.asarray(data), scale=1e5, **there, nuisance=Nuisance(gradients=("flux",)))
    assert device.unharmed()
    for field in ("loss", "adj_S", "adj_dq", "adj_flux"):
        value = getattr(found, field).get()
        assert relative(value, getattr(expected, field)) < tolerance["complex128"], field


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="ewald: expected one of 'curved', 'flat', got 'sphere'"):
        make_model(ewald="sphere")
    with pytest.raises(ValueError, match="sampling: expected one of 'mean', 'point', got 'area'"):
        make_model(sampling="area")
