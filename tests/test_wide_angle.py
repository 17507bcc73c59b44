"""Frames by the wide-angle split step: closed forms, a direct sum, pendel's own engine, and its own convergence."""

import dataclasses
import math

import numpy as np
import pytest
from pendel import Crystal, Experiment, Model
from pendel.analysis import crystals
from pendel.analysis.bodies import HalfSpace
from pendel.analysis.rocking_scans import wide_angle_scan
from pendel.reference import laue_slab, wide_angle
from pendel.reference.wide_angle import Box, Method
from scan import SAMPLES

KEV = 1.602176634e-16
GOLD = Crystal(-9.407e-5 + 8.496e-6j, 7.400e-5 - 8.434e-6j, 7.1e-5 - 8.0e-6j)
FIRST_ORDER = Crystal(0, 1e-9, 0)
FRAMES = 5
# name: arm, keV
ARMS = {
    "coplanar": ((("y+", math.radians(44.76)),), 8.0),
    "rolled": ((("y+", math.radians(32.174)), ("x-", math.radians(12.6346))), 9.0),
    "steep": ((("y+", math.radians(100)), ("x-", math.radians(20))), 8.0),
}


def experiment(name="coplanar", resolution=24e-9, pixels=16, reach=0.15, **changes):
    """A scan of FRAMES frames, +-``reach`` degrees."""
    arm, energy = ARMS[name]
    arguments = {
        "energy": energy * KEV,
        "pixel_size": 55e-6,
        "distance": resolution * pixels * 55e-6 * energy * KEV / 1.98644586e-25,
        "detector_shape": (pixels, pixels),
        "arm": arm,
        "rocking_axis": "y+",
        "rocking_angles": np.deg2rad(np.linspace(-reach, reach, FRAMES)),
        "beam_polarization": "vertical",
        "orientation": "symmetric" if name == "steep" else "k_h",
    }
    return Experiment(**(arguments | changes))


class Blob:
    """A smooth crystal of 0.1 um (1/e) with some phase; what it is at a radius of 0.2 um is 1e-5."""

    hull = 0.2e-6 * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])

    def __init__(self, size=0.06e-6, place=(0.0, 0.0, 0.0)):
        self.size, self.place = size, np.array(place)

    def __call__(self, r, width):
        x, y, z = (r - self.place.reshape(3, *[1] * (r.ndim - 1))) / self.size
        density = np.exp(-(x**2 + y**2 + z**2 + 0.4 * x * y - 0.3 * y * z))
        return density, density * np.exp(1j * (1.3 * np.sin(x + 0.5) * np.cos(y) + 0.7 * z))


class Slab:
    """Perfect, from 0 to ``thickness`` along ``normal``, or everywhere in its box."""

    hull = None

    def __init__(self, normal=None, thickness=None):
        self.faces = () if normal is None else (HalfSpace(normal, thickness * normal), HalfSpace(-normal))

    def __call__(self, r, width):
        inside = np.ones(r.shape[1:])
        for face in self.faces:
            inside = inside * face.fraction(r, width)
        return inside, inside.astype(complex)


def misfit(D, data):
    return ((np.sqrt(D) - np.sqrt(data)) ** 2).sum() / data.sum()


def vacuum_waves(scan, axis):
    """Of every frame: how far G is detuned along ``axis`` from its wave in the vacuum; that wave along it; rad/m."""
    waves = []
    for frame in range(len(scan.rocking_angles)):
        carrier = scan.k_h + scan.dq(frame)
        along = carrier @ axis
        vacuum = math.copysign(math.sqrt(scan.k**2 - carrier @ carrier + along**2), along)
        waves.append((along - vacuum, vacuum))
    return np.array(waves).T


@pytest.mark.parametrize("march", ["k_h", "symmetric"])
def test_perfect_laue_slab(march):
    scan = wide_angle_scan(experiment())
    axes, thickness, C = wide_angle.axes_of(scan, march), 1.2e-6, 0.71
    D, _ = vacuum_waves(scan, axes[2])
    physics = {"wavelength": 2 * np.pi / scan.k, "two_theta": math.radians(44.76), "polarization_factor": C}
    physics |= {"chi_0": GOLD.chi_0, "chi_h": GOLD.chi_h, "chi_hbar": GOLD.chi_hbar}
    expected = abs(laue_slab(thickness, D, orientation=march, **physics)[1])

    errors = []
    for layers in (120, 240):
        method = Method(thickness / layers, march, dtype="complex128")
        box = Box(axes, (layers, 2, 2), np.zeros(3), (2, 2))
        G = wide_angle.exit_fields(scan, GOLD, Slab(), method, factor=C, box=box)
        np.testing.assert_allclose(G, G[:, :1, :1] * np.ones((2, 2)), rtol=1e-12)
        errors.append(abs(G[:, 0, 0]) - expected)
    assert np.abs(errors[1]).max() < 2e-3 * expected.max()
    # order 2, and what extrapolation leaves is of order 4
    extrapolated = (4 * errors[1] - errors[0]) / 3
    assert np.abs(extrapolated).max() < 5e-6 * expected.max()


def bragg_reflection(scan, thickness, D, across, C):
    """|E_h / E_0| on the face of a perfect slab; components of k_0 and of E_h's wave across it in ``across``, rad/m."""
    K_0, K_h = (scan.k**2 / (2 * component) for component in across)
    half = (K_0 * GOLD.chi_0 - K_h * GOLD.chi_0 + D) / 2
    Om = np.sqrt(half**2 + K_0 * K_h * C**2 * GOLD.chi_h * GOLD.chi_hbar)
    phase = Om * thickness
    return abs(K_h * C * GOLD.chi_h * np.sin(phase) / (Om * np.cos(phase) - 1j * half * np.sin(phase)))


@pytest.mark.parametrize("linearised", [False, True])
def test_perfect_bragg_slab(linearised):
    """Marched along its faces: the reflected wave left of them, where the beam has been for long."""
    C, thickness, theta = 0.71, 0.5e-6, math.radians(22.38)
    scan = wide_angle_scan(experiment(pixel_orientation=("x-", "y-"), reach=0.03))
    axes = wide_angle.axes_of(scan, "symmetric")
    assert axes[0] @ scan.k_0 > 0
    D, wave = vacuum_waves(scan, axes[0])
    if linearised:
        wave = scan.k_h @ axes[0]
        D = np.array([scan.k_h @ scan.dq(j) for j in range(FRAMES)]) / wave
    expected = bragg_reflection(scan, thickness, D, (scan.k_0 @ axes[0], wave), C)
    assert expected.max() > 0.2

    errors = []
    for voxels in (25, 50):
        step = thickness / voxels
        layers = round(8 * thickness / math.tan(theta) / step)
        start = np.array([-8.5 * step, 0, 0])
        nx = voxels + math.ceil(layers * math.tan(theta)) + 60
        method = Method(step, "symmetric", linearised=linearised, turning=False, dtype="complex128")
        box = Box(axes, (layers, 1, nx), start, (1, voxels + 17))
        G = wide_angle.exit_fields(scan, GOLD, Slab(axes[0], thickness), method, factor=C, box=box)
        errors.append(abs(G[:, 0, -10]) - expected)
    # Order 2 at first. What stays of the exact one: the closed form has one coupling for all waves of the slab, while
    # those of different k_x couple by k^2 / (2 k_x), D / k_x = 3e-3 apart; between the two forms it is 3e-3.
    assert np.abs(errors[1]).max() < (2.5e-4 if linearised else 9e-4) * expected.max()


def sum_over_voxels(scan, sample, frames, turning=True, flat=False):
    """First order, equation (5) of the module written out: every pixel of ``frames`` by its own k_f."""
    step = 8e-9
    line = step * np.arange(-27, 28)
    r = np.stack(np.meshgrid(line, line, line, indexing="ij")).reshape(3, -1)
    place = scan.places().reshape(-1, 3)
    far = np.linalg.norm(place, axis=1) if not flat else np.full(len(place), scan.distance)
    k_f = scan.k * place / far[:, None]
    found = []
    for frame in frames:
        turn = scan.turn(frame)
        S = sample((turn.T if turning else np.eye(3)) @ r, 0)[1]
        Q = scan.k_0 + turn @ scan.lattice - k_f
        # a wave of a point: k^2 chi_h / (4 pi R)
        F = np.array([np.exp(1j * q @ r) @ S for q in Q]) * step**3 * scan.k**2 * FIRST_ORDER.chi_h / (4 * np.pi * far)
        found.append((np.abs(F) ** 2 * scan.pixel_size**2 * scan.distance / far).reshape(scan.detector_shape))
    return np.array(found)


@pytest.mark.parametrize(
    "name, march",
    [
        ("coplanar", "k_h"),
        ("coplanar", "symmetric"),
        ("rolled", "k_h"),
        ("rolled", "symmetric"),
        ("steep", "symmetric"),
    ],
)
def test_first_order_is_the_sum_over_the_turned_crystal_at_every_pixels_k_f(name, march):
    scan = wide_angle_scan(experiment(name, pixels=8, centre=(2.3, 3.6, 4.2), resolution=20e-9))
    expected = sum_over_voxels(scan, Blob(), (0, 4))
    D = wide_angle.intensities(scan, FIRST_ORDER, Blob(), Method(8e-9, march), frames=(0, 4))
    # The crystal is 1e-5 where the sum ends.
    assert misfit(D, expected) < 2e-11 and D.sum() == pytest.approx(expected.sum(), rel=1e-5)
    # What the flat sphere and the body that does not turn would do is seen a hundred thousand times over.
    assert misfit(sum_over_voxels(scan, Blob(), (0, 4), flat=True), expected) > 1e-6
    assert misfit(sum_over_voxels(scan, Blob(), (0, 4), turning=False), expected) > 1e-6


def test_first_order_of_a_crystal_that_is_off_bragg():
    """The energy is another one, the lattice and the pixels are not."""
    at_bragg = wide_angle_scan(experiment("rolled", pixels=8, resolution=20e-9))
    exp = experiment("rolled", pixels=8, resolution=20e-9)
    scan = wide_angle_scan(exp, energy_offset=4e-4)
    assert scan.k == pytest.approx(1.0004 * exp.k, rel=1e-12) and (scan.lattice == at_bragg.lattice).all()
    D = wide_angle.intensities(scan, FIRST_ORDER, Blob(), Method(8e-9), frames=(2,))
    assert misfit(D, sum_over_voxels(scan, Blob(), (2,))) < 2e-11
    assert misfit(D, sum_over_voxels(at_bragg, Blob(), (2,))) > 1e-2


def test_linear_propagators_see_a_flat_sphere():
    scan = wide_angle_scan(experiment("rolled", pixels=8, centre=(2.3, 3.6, 4.2), resolution=20e-9))
    method = Method(8e-9, linearised=True, turning=False)
    D = wide_angle.intensities(scan, FIRST_ORDER, Blob(), method, frames=(0, 4))
    assert misfit(D, sum_over_voxels(scan, Blob(), (0, 4), turning=False, flat=True)) < 2e-11


def engine_frames(exp, crystal, sample, step, extent=0.4e-6):
    """What `pendel.Model` gives for a sample on voxels of edge ``step``, per dy dx, m^2."""
    voxel = (step, step, step / exp.gamma_h)
    shape = tuple(math.ceil(extent / edge) for edge in voxel)
    options = {"polarization": {"sigma": 1.0}, "dtype": "complex128", "transport": "fourier"}
    model = Model(exp, crystal, shape, voxel, **options, **SAMPLES)
    z, y, x = (edge * (np.arange(n) - n // 2) for n, edge in zip(shape, voxel, strict=True))
    r = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1])
    s_0, S = sample(np.tensordot(exp.frame.T, r, axes=1), step)
    return model.intensities(S, s_0=s_0) * step**2  # dy dx gamma_h


@pytest.mark.parametrize("name, march", [("coplanar", "k_h"), ("rolled", "k_h"), ("steep", "symmetric")])
def test_with_linear_propagators_it_is_pendel(name, march):
    exp = experiment(name, resolution=60e-9 if name == "steep" else 30e-9, reach=0.1 if name == "steep" else 0.15)
    crystal = Crystal(*(20 * chi for chi in (GOLD.chi_0, GOLD.chi_h, GOLD.chi_hbar)))
    scan, found = wide_angle_scan(exp), []
    for step in (15e-9, 7.5e-9):
        method = Method(step, march, linearised=True, turning=False, dtype="complex128")
        expected = wide_angle.intensities(scan, crystal, Blob(), method)
        D = engine_frames(exp, crystal, Blob(), step)
        found.append(misfit(D, expected))
        assert D.sum() == pytest.approx(expected.sum(), rel=1e-5)
    # Strongly dynamical: the first order is far off.
    assert misfit(engine_frames(exp, Crystal(0, crystal.chi_h, 0), Blob(), step), expected) > 1
    # Errors of order 2 make the misfit sixteen times smaller; 3e-10 is where the crystal is cut off.
    assert found[0] < 1e-7 and found[1] < max(found[0] / 14, 3e-10)


class Square:
    """Perfect but for a bump of 1.5 rad, uniform along y, faces along h and along k_0 + k_h."""

    hull = None

    def __init__(self, scan, size):
        along = (
            scan.lattice / np.linalg.norm(scan.lattice),
            (scan.k_0 + scan.k_h) / np.linalg.norm(scan.k_0 + scan.k_h),
        )
        self.faces = [HalfSpace(sign * n, sign * size / 2 * n) for n in along for sign in (1, -1)]
        self.axes, self.size = np.array(along), size

    def __call__(self, r, width):
        inside = np.prod([face.fraction(r, width) for face in self.faces], axis=0)
        x, y = np.tensordot(self.axes, r, axes=1) / self.size
        bump = np.exp(-((x - 0.1) ** 2 + (y - 0.15) ** 2) / (2 * 0.25**2))
        return inside, inside * np.exp(1.5j * bump)


@pytest.fixture(scope="module")
def row_of_gold():
    """A square of gold of 1 um seen by one row of pixels, and how to compute it."""
    pixels = 250
    exp = experiment(pixels=pixels, resolution=8e-9, detector_shape=(1, pixels), centre=(2, 0, pixels // 2), reach=0.1)
    scan = wide_angle_scan(exp)
    box = Box(wide_angle.axes_of(scan, "k_h"), (300, 1, 690), np.array([-0.75e-6, 0, -0.75e-6]), (1, 300))

    def intensities(scan, linearised, frames=None):
        method = Method(5e-9, linearised=linearised, turning=False, dtype="complex128")
        return wide_angle.intensities(
            scan, GOLD, Square(scan, 1e-6), method, polarization=((1.0, 0.71),), box=box, frames=frames
        )[:, 0]

    return scan, intensities, intensities(scan, True), intensities(scan, False)


def test_linear_propagators_leave_out_the_curvature_of_the_ewald_sphere(row_of_gold):
    """A pixel q away from k_h sees a crystal detuned by q^2 / (2 k) more, at the same Q along the row."""
    scan, intensities, linear, exact = row_of_gold
    assert 5e-6 < misfit(linear, exact) < 2e-5
    axes = wide_angle.axes_of(scan, "k_h")
    pitch = 2 * math.pi / (250 * 8e-9)
    before = after = 0.0
    for frame in (1, 3):
        dq = axes @ scan.dq(frame)
        for col in (10, 60, 240):
            q = pitch * (col - 125)
            wanted = dq[2] + q**2 / (2 * scan.k)
            angle = scan.rocking_angles[frame] * wanted / dq[2]  # but for its square, 1e-6 of it
            turned = dataclasses.replace(scan, rocking_angles=[angle])
            moved = axes[0] @ turned.dq(0) - dq[0]
            turned = dataclasses.replace(turned, centre_pixel=(0, 125 - moved / pitch))
            root = math.sqrt(exact[frame, col])
            before += (math.sqrt(linear[frame, col]) - root) ** 2
            after += (math.sqrt(intensities(turned, True)[0, col]) - root) ** 2
    # Of the rest, q^2 D / k^2 and the like, 6 % are left.
    assert after < before / 200


class Moved:
    """A sample somewhere else."""

    def __init__(self, sample, by):
        self.sample, self.by = sample, np.array(by)
        self.hull = sample.hull + self.by

    def __call__(self, r, width):
        return self.sample(r - self.by[:, None, None].astype(r.dtype), width)


@pytest.fixture(scope="module")
def facetted():
    """A facetted crystal of gold of 0.25 um and its scan on a rolled detector."""
    exp = experiment("rolled")
    return wide_angle_scan(exp), crystals.smooth(3, 0.25e-6, exp.h)


def test_frames_do_not_depend_on_the_axis_it_marches_along():
    crystal = Crystal(*(10 * chi for chi in (GOLD.chi_0, GOLD.chi_h, GOLD.chi_hbar)))
    scan, found = wide_angle_scan(experiment("rolled")), []
    for step in (16e-9, 8e-9):
        a, b = (wide_angle.intensities(scan, crystal, Blob(), Method(step, m)) for m in ("k_h", "symmetric"))
        found.append(misfit(a, b))
    # Errors of order 2 make the misfit sixteen times smaller.
    assert found[0] < 1e-6 and found[1] < found[0] / 14


def test_frames_do_not_depend_on_where_the_crystal_is_between_the_voxels(facetted):
    scan, sample = facetted
    moved, method = Moved(sample, (3e-9, 21.5e-9, -14.2e-9)), Method(7.4e-9)
    box = wide_angle.box_for(scan, np.concatenate([sample.hull, moved.hull]), method)
    a, b = (wide_angle.intensities(scan, GOLD, s, method, box=box) for s in (sample, moved))
    # 5e-6 with surfaces that are linear ramps over a voxel.
    assert misfit(a, b) < 2e-7


def test_frames_do_not_depend_on_the_size_of_the_box(facetted):
    scan, sample = facetted
    for march in ("k_h", "symmetric"):
        method = Method(7.4e-9, march)
        box = wide_angle.box_for(scan, sample.hull, method)
        nz, ny, nx = box.shape
        a, b = (
            wide_angle.intensities(scan, GOLD, sample, method, box=dataclasses.replace(box, shape=shape), frames=(1, 2))
            for shape in (box.shape, (nz, 2 * ny, 2 * nx))
        )
        # A sharp edge that moves by parts of a voxel rings, and what rings wraps round.
        assert misfit(a, b) < (1e-9 if march == "k_h" else 1e-7)
        small = dataclasses.replace(box, shape=(nz, ny, nx - 10))
        with pytest.raises(
            ValueError, match=rf"box \(nx\): expected at least \d+ voxels, got {nx - 10}; E_0 wraps round"
        ):
            wide_angle.intensities(scan, GOLD, sample, method, box=small)


def test_halving_the_voxels(facetted):
    scan, sample = facetted
    D = [wide_angle.intensities(scan, GOLD, sample, Method(step), frames=(1, 2, 3)) for step in (12e-9, 6e-9, 3e-9)]
    found = [misfit(d, D[-1]) for d in D[:-1]]
    # Surfaces that are linear ramps over a voxel: 1.6e-4, 2.0e-5.
    assert found[0] < 2e-5 and found[1] < 6e-7


def test_threads_and_precision(facetted):
    scan, sample = facetted
    one, two = (wide_angle.intensities(scan, GOLD, sample, Method(8e-9), workers=n) for n in (1, 2))
    assert (one == two).all()
    double = wide_angle.intensities(scan, GOLD, sample, Method(8e-9, dtype="complex128"))
    assert misfit(one, double) < 1e-12


def test_polarisation_states_add_up(facetted):
    scan, sample = facetted
    both, sigma, pi = (
        wide_angle.intensities(scan, GOLD, sample, Method(12e-9), frames=(2,), polarization=states)
        for states in (((0.3, 1.0), (0.7, 0.71)), ((1.0, 1.0),), ((1.0, 0.71),))
    )
    np.testing.assert_allclose(both, 0.3 * sigma + 0.7 * pi, rtol=1e-12)
    assert pi.sum() < 0.6 * sigma.sum()


def test_it_refuses_what_its_grid_cannot_carry(facetted):
    scan, sample = facetted
    with pytest.raises(ValueError, match="voxel: expected at most .* m for a band that holds the detector, got 3e-08"):
        wide_angle.intensities(scan, GOLD, sample, Method(30e-9))
    with pytest.raises(ValueError, match="voxel: expected more than .* m, whose band has no waves across z, got 2e-10"):
        wide_angle.exit_fields(scan, GOLD, Slab(), Method(2e-10), box=Box(np.eye(3), (1, 1, 1), np.zeros(3), (1, 1)))
    with pytest.raises(ValueError, match="box: expected one for a crystal without a hull, got None"):
        wide_angle.exit_fields(scan, GOLD, Slab(), Method(8e-9))
    with pytest.raises(ValueError, match="k_h: expected the length of k_0, .* rad/m, got"):
        dataclasses.replace(scan, k_h=1.001 * scan.k_h)
    with pytest.raises(ValueError, match="e_col, e_row: expected axes perpendicular to k_h, got others"):
        dataclasses.replace(scan, e_col=scan.k_h / scan.k)
