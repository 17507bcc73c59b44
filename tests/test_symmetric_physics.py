"""z along k_0 + k_h: closed-form solutions, the order of the scheme, and the same crystal in both orientations."""

import math

import numpy as np
import pendel
import pytest
from pendel import Crystal, Experiment, Model, reference
from pendel.reference import symmetric as reference_symmetric
from scan import SAMPLES
from scipy.special import jv

KEV = 1.602176634e-16


def _at(gold, degrees):
    return gold | {"two_theta": np.deg2rad(degrees)}


def _operator(shape, voxel, physics, transport="shift"):
    return pendel.TakagiTaupin(
        shape, voxel, orientation="symmetric", transport=transport, dtype="complex128", **physics
    )


def _slab(physics, nz, dq, dx=8e-9):
    """(E_0, G) of a column whose characteristics of both waves have been inside from the first layer, and thickness."""
    voxel = (dx / np.tan(physics["two_theta"] / 2), dx, dx)
    op = _operator((nz, 1, 2 * nz), voxel, physics)
    E_h, E_0 = op.forward(np.ones(op.shape), dq, return_E_0=True)
    column = nz  # x = 0: no ramp there
    return E_0[:, 0, column], E_h[:, 0, op.exit_slice.start + column], nz * voxel[0]


@pytest.mark.parametrize("degrees", [44.76, 90, 160])
@pytest.mark.parametrize("nz", [1, 2, 125])
def test_perfect_absorbing_slab_where_dq_is_normal_to_k_h_is_exact(gold, degrees, nz):
    physics = _at(gold, degrees)
    # dq_z = tan(theta) dq_x: rotated in the plane, but not detuned.
    dq = 2e7 * np.array(
        [[0, 0, 0], [1, 0, np.tan(physics["two_theta"] / 2)], [-1, 0.5, -np.tan(np.deg2rad(degrees / 2))]]
    )
    E_0, G, thickness = _slab(physics, nz, dq)
    expected = reference.laue_slab(thickness, 0.0, orientation="symmetric", **physics)
    # The same exponential in nz pieces: only rounding. Two frames have D of 1e-9 per layer from that of dq.
    assert np.abs(E_0 - expected[0]).max() < 1e-12
    assert np.abs(G - expected[1]).max() < 1e-12


@pytest.mark.parametrize("degrees", [44.76, 90, 150])
def test_perfect_absorbing_slab_in_the_rocking_tail(gold, degrees):
    physics, t = _at(gold, degrees), np.tan(np.deg2rad(degrees / 2))
    dz = 8e-9 / t
    dq = np.array([[0, 0, 0.16], [0, 0, -0.16], [0.16 / t, 0, 0], [-0.08 / t, 0, 0.08], [0.3 / t, 0.1, 0.2]]) / dz
    D = dq[:, 2] - t * dq[:, 0]
    _, G, thickness = _slab(physics, 125, dq)
    _, expected = reference.laue_slab(thickness, D, orientation="symmetric", **physics)
    error = np.abs(G * np.exp(-0.5j * D * dz) - expected)  # to the face, half a layer behind the last voxel centres
    # (D h)^2 / 24 = 1.1e-3 of E_h at D h = 0.16, the sampling error of a continuous slab.
    assert (error < 1.2e-3 * np.abs(expected)).all()


def test_centre_of_the_laue_reflection_is_not_refracted_and_turns_all_energy_over(gold):
    """Symmetric Laue: eta = 0 at D = 0 whatever chi_0; |E_h| = 1 at half of lambda cos(theta) / |chi_h|."""
    physics = gold | {"chi_0": gold["chi_0"].real, "chi_h": abs(gold["chi_h"])}
    theta = gold["two_theta"] / 2
    Lambda = gold["wavelength"] * np.cos(theta) / physics["chi_h"]
    assert Lambda == pytest.approx(2710e-9, rel=1e-3)  # the published Pendelloesung distance of these susceptibilities
    E_0, G, _ = _slab(physics, 150, np.zeros((1, 3)), dx=Lambda / 2 / 150 * np.tan(theta))
    assert abs(G[0]) == pytest.approx(1, abs=1e-12)  # D = 0: exact
    assert abs(E_0[0]) < 1e-12


@pytest.mark.parametrize("degrees", [44.76, 120])
def test_point_source_is_the_riemann_function(gold, degrees):
    """E_h = i k C chi_h / (4 sin theta) J_0(k C sqrt(chi_h chi_hbar l_0 l_h)) exp(i k chi_0 (l_0 + l_h) / 2)."""
    physics, theta, nz = _at(gold, degrees), np.deg2rad(degrees / 2), 300
    dx = 1.5e-9 * np.tan(theta)
    op = _operator((nz, 1, 2 * nz + 2), (1.5e-9, dx, dx), physics)
    incident = np.zeros((1, 2 * nz + 2))
    incident[0, nz] = 1 / dx
    E_h = op.forward(np.ones(op.shape), np.zeros((1, 3)), incident=incident)[0, 0, op.exit_slice]
    # E_h moves by 2 pixels against E_0 in each layer: it is on every second pixel, with twice the density.
    z, x, E_h = nz * 1.5e-9, (2 * np.arange(nz) + 1 - nz) * dx, E_h[1 : 2 * nz : 2] / 2
    l_0, l_h = (z / np.cos(theta) + x / np.sin(theta)) / 2, (z / np.cos(theta) - x / np.sin(theta)) / 2
    k, chi_0, chi_h = 2 * np.pi / physics["wavelength"], physics["chi_0"], physics["chi_h"]
    argument = k * chi_h * np.sqrt(l_0 * l_h)
    expected = 1j * k * chi_h / (4 * np.sin(theta)) * jv(0, argument) * np.exp(0.5j * k * chi_0 * (l_0 + l_h))
    # Second order in dz: 3e-7 and 1e-6 measured with 300 layers of 1.5 nm.
    assert np.linalg.norm(E_h - expected) < 2e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("degrees, eta", [(44.76, 0.0), (150, 0.0), (150, 0.5), (150, -0.8), (90, 1.5)])
@pytest.mark.parametrize("absorbing", [True, False])
def test_half_space_in_bragg_orientation_meets_the_darwin_integral(gold, degrees, eta, absorbing):
    """The symmetric Bragg face is the plane x = 0: E_0 meets it from the left, E_h leaves to the left."""
    physics, theta = _at(gold, degrees), np.deg2rad(degrees / 2)
    if not absorbing:
        physics = physics | {"chi_0": gold["chi_0"].real, "chi_h": gold["chi_h"].real}
    k, t = 2 * np.pi / gold["wavelength"], np.tan(theta)
    D = k * (gold["chi_0"].real + eta * gold["chi_h"].real)  # k_h.dq / k
    errors = []
    for dx in (16e-9, 8e-9):
        voxel, nz = (dx / t, dx, dx), int(1e-6 * np.tan(theta) / dx) + 1
        nx = nz // 2 + 4  # no path from the edge of the beam gets further and comes back
        S = np.ones((nz, 1, nx))
        S[..., 0], S[..., 1] = 0, 0.5  # the face in the middle of column 1
        incident = np.zeros((1, nx))
        incident[0, :2] = 1, 0.5  # the edge of the beam meets the face on the first voxel-centre plane
        op = _operator((nz, 1, nx), voxel, physics)
        E_h = op.forward(S, [[0.0, 0.0, D / np.cos(theta)]], incident=incident)[0, 0]
        layers = np.arange(1, nz - 1)  # from the face to the exit plane
        E_h = E_h[op.exit_slice.start + 1 - layers] * np.exp(1j * D / np.cos(theta) * layers * voxel[0])
        expected = reference.darwin_half_space((nz - 1 - layers) * voxel[0], D, **physics)
        errors.append(np.abs(E_h - expected).max())
    # Face and edge lie in the middle of a pixel, so that order 2 shows: 4e-5 to 2.6e-4 measured at 8 nm.
    assert errors[1] < 3e-4
    assert errors[1] < 0.3 * errors[0]


def _blob(x, z):
    """A smooth strained crystal of 200 nm, (x, z) along (the part of k_0 normal to k_h, k_h)."""
    size = np.exp(-((x / 0.10e-6) ** 2) - (z / 0.13e-6) ** 2 - 0.5 * x * z / 1e-14)
    return size * np.exp(2.5j * np.sin(x / 0.08e-6 + 0.3) * np.cos(z / 0.1e-6))


@pytest.mark.parametrize("degrees", [44.76, 90, 150])
def test_converges_with_slope_2(gold, degrees):
    physics, thickness, dx, nx, counts = _at(gold, degrees), 0.4e-6, 8e-9, 96, np.array([32, 64, 128])
    dq = np.array([[0, 0, 0.0], [0, 0, 2e7], [1e7, 0, -1e7]]) * np.cos(np.deg2rad(degrees / 2))

    def S(x, y, z):
        return _blob(x, z - thickness / 2)

    errors = []
    for nz in counts:
        voxel = (thickness / nz, dx, dx)
        op = _operator((nz, 1, nx), voxel, physics, "fourier")
        z, x = (np.arange(nz) + 0.5) * voxel[0], (np.arange(nx) - nx // 2) * dx
        E_h = op.forward(S(x, 0, z[:, None, None]), dq)
        exact = reference_symmetric.blanes_moan(
            S, dq, shape=(1, 1, nx), voxel=(thickness, dx, dx), steps=192, row_length=op.row_length, **physics
        )
        # The operator ends on the plane of the last voxel centres, the solver half a layer behind it.
        t, q = np.tan(physics["two_theta"] / 2), np.fft.fftfreq(op.row_length, dx)
        back = np.exp(-2j * np.pi * q * t * voxel[0] / 2 + 0.5j * voxel[0] * dq[:, 2, None, None])
        exact = np.fft.ifft(np.fft.fft(exact) * back)
        errors.append(np.linalg.norm(E_h - exact) / np.linalg.norm(exact))
    # 0.1: what the next order bends the line by, at this many steps.
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("degrees, most", [(20, 4.3e-6), (44.76, 3.6e-5), (80, 1.1e-3)])
def test_the_same_crystal_in_both_orientations(gold, degrees, most):
    """Far fields at q normal to k_h: q_x cos(theta) on the oblique plane. Only the discretisation differs: order 2."""
    two_theta, k_h_dq = np.deg2rad(degrees), np.zeros((4, 3))
    physics = gold | {"two_theta": two_theta, "chi_0": 5 * gold["chi_0"], "chi_h": 5 * gold["chi_h"]}
    k_h_dq[:, 0], k_h_dq[:, 2] = (1e7, -2e7, 0, 5e6), (-3e7, -1.5e7, 0, 1.5e7)
    c, s = np.cos(two_theta / 2), np.sin(two_theta / 2)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])  # from the frame of k_h to the symmetric one
    q, differences = np.linspace(-1 / 40e-9, 1 / 40e-9, 101), []
    for dz in (8e-9, 4e-9, 2e-9):
        intensities = []
        for orientation in ("k_h", "symmetric"):
            dx, n, nz = 8e-9, 156, int(1.24e-6 / dz)
            x, z = (np.arange(n) - n // 2) * dx, ((np.arange(nz) - (nz - 1) / 2) * dz)[:, None]
            symmetric = orientation == "symmetric"
            S, dq, gamma_h = (_blob(c * x + s * z, c * z - s * x), k_h_dq @ turn.T, c) if symmetric else (
                _blob(x, z), k_h_dq, 1)  # fmt: skip
            op = pendel.TakagiTaupin(
                (nz, 1, n), (dz, dx, dx), orientation=orientation, transport="fourier", dtype="complex128", **physics
            )
            E_h = op.forward(S[:, None], dq)[:, 0]
            x = (np.arange(E_h.shape[1]) - op.exit_slice.start - n // 2) * dx
            F = E_h @ np.exp(-2j * np.pi * gamma_h * q * x[:, None]) * dx * gamma_h
            intensities.append(np.abs(F) ** 2)
        a, b = intensities
        differences.append(np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1))
    # The crystal is dynamical: first order alone would be far off.
    kinematic = pendel.TakagiTaupin(op.shape, op.voxel, dtype="complex128", **physics | {"chi_0": 0, "chi_hbar": 0})
    E_h = kinematic.forward(_blob(x[op.exit_slice], z)[:, None], k_h_dq)[2, 0]
    first_order = np.abs(E_h @ np.exp(-2j * np.pi * q * x[op.exit_slice, None]) * dx).max() ** 2
    assert first_order > 1.3 * a[2].max()
    for coarse, fine in zip(differences[:-1], differences[1:], strict=True):
        assert coarse / fine == pytest.approx(4, rel=0.1)  # order 2; 0.1 is the next order at 8 nm
    assert differences[-1].max() < 1.2 * most  # as measured at 2 nm


def scan(degrees=40.0, **changes):
    """A scan whose scattering plane is turned against the detector, of a crystal that rocks about a skew axis."""
    arguments = {
        "energy": 8 * KEV,
        "distance": 0.5,
        "pixel_size": 55e-6,
        "detector_shape": (64, 70),
        "k_h": (
            -0.6 * math.sin(math.radians(degrees)),
            0.8 * math.sin(math.radians(degrees)),
            math.cos(math.radians(degrees)),
        ),
        "rocking_axis": (0.8, 0.6, 0.1),
        "rocking_angles": np.deg2rad(0.03) * np.arange(5),
        "centre": (2.2, 31.6, 35.3),
        "orientation": "symmetric",
    }
    return Experiment(**(arguments | changes))


@pytest.mark.parametrize("degrees", [10, 40, 89])
def test_frame_is_turned_by_theta_and_the_detector_is_not(degrees):
    exp, other = scan(degrees), scan(degrees, orientation="k_h")
    theta = np.deg2rad(degrees / 2)
    np.testing.assert_allclose(exp.frame @ exp.frame.T, np.eye(3), atol=1e-14)
    s, c = math.sin(theta), math.cos(theta)
    assert np.linalg.det(exp.frame) == pytest.approx(1) and exp.gamma_h == pytest.approx(c, rel=1e-14)
    for vector, expected in ((exp.k_0, (s, 0, c)), (exp.k_h, (-s, 0, c)), (exp.h, (-2 * s, 0, 0))):
        np.testing.assert_allclose(exp.frame @ vector / exp.k, expected, atol=1e-14)
    np.testing.assert_allclose(exp.frame[1], other.frame[1], atol=1e-12)
    for name in ("two_theta", "roll", "flip_rows", "centre_offset", "polarization", "far_shape"):
        a, b = (getattr(e, name) for e in (exp, other))
        assert (a(), b()) == (b(), a()) if callable(a) else a == pytest.approx(b, rel=1e-12), name
    # The same vectors in the laboratory.
    np.testing.assert_allclose(exp.dq @ exp.frame, other.dq @ other.frame, rtol=1e-9, atol=1e-3)
    np.testing.assert_allclose(exp.frame.T @ exp.basis(), other.frame.T @ other.basis(), rtol=1e-9, atol=1e-3)
    np.testing.assert_allclose(exp.detector_q(), other.detector_q() * (c, 1), rtol=1e-9, atol=1e-3)
    assert exp.replace(distance=0.6).orientation == exp.crop(rows=slice(3, 40)).orientation == "symmetric"


@pytest.mark.parametrize("degrees", [20, 40, 90, 120, 160])
@pytest.mark.parametrize("transport", ["shift", "fourier"])
def test_suggested_voxel_fits_detector_and_transport(degrees, transport):
    exp = scan(degrees)
    dz, dy, dx = exp.suggest_voxel(transport=transport)
    assert 0.5 * dy < dz <= 1.5 * dy and dx <= 1.5 * dy
    for step in (dy, dx * exp.gamma_h):
        assert exp.field_of_view / step == pytest.approx(round(exp.field_of_view / step))
    top = np.abs(exp.detector_q()).max((0, 1))
    assert (top <= 0.5 / np.array([dx, dy]) * (1 + 1e-9)).all()
    op = Model(exp, Crystal(-1e-5 + 1e-6j, 1e-5), (8, 9, 10), (dz, dy, dx), transport="auto").operators[0][1]
    assert op.orientation == "symmetric"
    assert transport == "fourier" or op.transport == "shift"


def test_experiment_refuses_what_its_orientation_cannot_do():
    with pytest.raises(
        ValueError, match="k_h: expected 0 < 2theta < 90 deg, got 100 deg; orientation='symmetric' goes"
    ):
        scan(100, orientation="k_h")
    with pytest.raises(ValueError, match="k_h: expected 0 < 2theta < 178 deg, got 179 deg$"):
        scan(179)
    with pytest.raises(ValueError, match="orientation: expected one of 'k_h', 'symmetric', got 'z'"):
        scan(orientation="z")


def _crystal(exp, shape, voxel):
    """A smooth strained crystal of 200 nm, defined in the laboratory, on the grid of the experiment's model frame."""
    z, y, x = (((np.arange(n) - (n - 1) / 2 if i == 0 else np.arange(n) - n // 2) * d)
               for i, (n, d) in enumerate(zip(shape, voxel, strict=True)))  # fmt: skip
    r = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], -1)
    X, Y, Z = np.moveaxis(r @ exp.frame, -1, 0)
    size = np.exp(-((X / 0.10e-6) ** 2) - (Y / 0.08e-6) ** 2 - (Z / 0.11e-6) ** 2 - 0.3 * X * Z / 1e-14)
    return size * np.exp(2j * np.sin(X / 0.08e-6 + 0.3) * np.cos(Z / 0.1e-6 + Y / 0.1e-6)), r


def test_model_gives_the_same_frames_in_both_orientations(gold):
    """Roll, fractional centre, an axis out of every plane: only the discretisation differs, of order 2 in dz."""
    crystal, differences = Crystal(3 * gold["chi_0"], 4e-5 * (5 - 0.5j)), []
    for finer in (1, 2):
        frames = []
        for orientation in ("k_h", "symmetric"):
            exp = scan(orientation=orientation)
            voxel = exp.suggest_voxel(transport="fourier")
            voxel = (voxel[0] / finer, *voxel[1:])
            shape = tuple(int(0.72e-6 / d) for d in voxel)
            model = Model(exp, crystal, shape, voxel, dtype="complex128", transport="fourier", **SAMPLES)
            D = model.intensities(_crystal(exp, shape, voxel)[0])
            # Per area of the exit plane as seen along k_h, and per far-field pixel.
            frames.append(D * np.prod(model.far_field.far_shape) * (voxel[1] * voxel[2] * exp.gamma_h) ** 2)
        a, b = frames
        differences.append(np.linalg.norm(a - b, axis=(1, 2)) / np.linalg.norm(a, axis=(1, 2)))
    # 1e-3 at dz = 15 nm in the rocking tail.
    assert differences[0].max() < 2e-3
    np.testing.assert_allclose(differences[0] / differences[1], 4, rtol=0.1)


@pytest.mark.parametrize("degrees", [40, 90, 150])
def test_kinematic_frames_are_cuts_through_the_transform_of_the_crystal(degrees):
    exp = scan(degrees, detector_shape=(20, 18), centre=(2.2, 9.6, 8.8), pixel_size=200e-6)
    voxel = exp.suggest_voxel(15e-9, transport="fourier")
    view = int(exp.field_of_view / voxel[2] / exp.gamma_h)
    shape = tuple(int(0.6e-6 / d) for d in voxel)
    exp = exp.replace(distance=0.5 * math.ceil(4 * shape[2] / view)) if view < 3 * shape[2] else exp
    options = {"dtype": "complex128", "coupling": "kinematic", "transport": "fourier"}
    model = Model(exp, Crystal(0, 1e-6), shape, voxel, **options, **SAMPLES)
    S, r = _crystal(exp, shape, voxel)
    D = model.intensities(S)
    frame, row, col = np.meshgrid(range(5), range(0, 20, 5), range(0, 18, 6), indexing="ij")
    m = np.stack([n - c for n, c in zip((frame, row, col), exp.centre, strict=True)], -1)
    Q = np.einsum("ij,...j->...i", exp.basis()[:, 1:], m[..., 1:]) - exp.dq[frame]
    expected = np.abs(np.exp(-1j * Q.reshape(-1, 3) @ r.reshape(-1, 3).T) @ S.ravel()).reshape(frame.shape) ** 2
    got = D[frame, row, col]
    # One constant for all; the crystal has fallen to 1e-4 at the edge of the box.
    assert np.abs(got / got.max() - expected / expected.max()).max() < 1e-4


@pytest.mark.parametrize("transport", ["shift", "fourier"])
@pytest.mark.parametrize("degrees, nz", [(40, 30), (150, 9)])
def test_model_gradient_is_the_derivative_of_the_loss(rng, transport, degrees, nz):
    exp = scan(degrees, detector_shape=(20, 22), centre=(2.2, 10.3, 10.8), pixel_size=440e-6)
    voxel, shape = exp.suggest_voxel(transport=transport), (nz, 8, 9)
    model = Model(
        exp, Crystal(-9.4e-4 + 8.5e-5j, 7.4e-4 - 8.4e-5j), shape, voxel, dtype="complex128", transport=transport
    )
    S = rng.uniform(0.5, 1, shape) * np.exp(1j * rng.uniform(-1, 1, shape))
    data = 1e5 * model.intensities(np.exp(1j * rng.uniform(-1, 1, shape)))
    direction = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    cut = model.far_field.shape[1] < model.operators[0][1].exit_shape[1]
    assert cut == ((transport, degrees) == ("fourier", 40))  # also where the far field takes a part of the row
    _, adj_S = model.loss_and_adjoint(S, data, scale=None)
    d = [
        (model.loss_and_adjoint(S + h * direction, data, scale=None)[0]
         - model.loss_and_adjoint(S - h * direction, data, scale=None)[0]) / (2 * h)
        for h in (1e-4, 5e-5)
    ]  # fmt: skip
    # As in test_model.py: pixels close to D = 0 bend the loss.
    assert (4 * d[1] - d[0]) / 3 == pytest.approx(np.sum(np.conj(adj_S) * direction).real, rel=1e-7)


def test_model_refuses_a_box_whose_light_leaves_the_field_of_view():
    exp = scan()
    voxel = exp.suggest_voxel(transport="fourier")
    with pytest.raises(
        ValueError, match=r"shape: expected a box whose light leaves within the field of view of \d+ col"
    ):
        Model(exp, Crystal(0, 1e-5), (60, 20, 90), voxel, transport="fourier")
    model = Model(exp, Crystal(0, 1e-5), (60, 20, 60), voxel, transport="fourier")
    # Its row is longer than the field of view: of what is left out no straight path comes.
    assert model.far_field.shape == (20, model.far_field.far_shape[1])
    assert model.operators[0][1].exit_shape[1] > model.far_field.far_shape[1] >= model.operators[0][1].exit_reach
