"""The optical path undoes refraction and absorption of a crystal that hardly diffracts, and leaves extinction."""

import numpy as np
import pendel
import pytest
from pendel import phantom, refraction
from pendel.experiment import rotation

TWO_THETA = np.deg2rad(44.76)
DX = 16e-9
SHAPE, VOXEL = (54, 6, 60), (DX / np.tan(TWO_THETA), DX, DX)


@pytest.fixture(scope="module")
def experiment():
    return pendel.Experiment(
        wavelength=1.5498e-10,
        distance=1.0,
        pixel_size=55e-6,
        detector_shape=(8, 8),
        arm=[("y+", TWO_THETA)],
        rocking_angles=[0.0],
    )


@pytest.fixture(scope="module")
def body():
    """A prism of 0.5 um edge, turned about y by an odd angle, along the whole of y."""
    return phantom.cube(SHAPE, VOXEL, (0.5e-6, 1e-6, 0.45e-6), rotation("y+", 0.5))


@pytest.fixture(scope="module")
def inverse(gold):
    """S_kin = inverse discrete Fourier transform along z of the noise-free complex exit fields over all detunings."""

    def inverse(S, factor, voxel=VOXEL, chi_0=gold["chi_0"]):
        nz = S.shape[0]
        physics = gold | {"chi_0": chi_0, "chi_h": factor * gold["chi_h"]}
        op = pendel.TakagiTaupin(S.shape, voxel, dtype="complex128", threads=2, **physics)
        dq = np.zeros((nz, 3))
        dq[:, 2] = 2 * np.pi * (np.arange(nz) - nz // 2) / (nz * voxel[0])
        E_h = op.forward(S, dq)
        coupling = 0.5j * 2 * np.pi / gold["wavelength"] * physics["chi_h"] * voxel[0]
        # exp(i dq_z z_out) is left out of E_h: voxel z counts from the exit, half a layer behind the last centre
        turn = np.exp(1j * np.outer((nz - np.arange(nz) - 0.5) * voxel[0], dq[:, 2]))
        return np.tensordot(turn, E_h, 1) / (nz * coupling)

    return inverse


@pytest.mark.parametrize("finer", [1.0, 0.8], ids=["whole pixels", "between pixels"])
def test_weakly_diffracting_crystal_comes_out_flat(experiment, inverse, gold, finer):
    voxel = (VOXEL[0] * finer, *VOXEL[1:])
    shape = (round(SHAPE[0] / finer), *SHAPE[1:])
    body = phantom.cube(shape, voxel, (0.5e-6, 1e-6, 0.45e-6), rotation("y+", 0.5))
    bent = inverse(body.astype(complex), 1e-3, voxel)
    full = body > 0.999
    phase = np.angle(bent[full] / bent[full].mean())
    assert phase.std() > 0.15 and np.ptp(np.abs(bent[full])) > 0.05  # there is something to correct
    flat = refraction.correct(bent, voxel, experiment, gold["chi_0"], support=body)
    # chi_h chi_hbar is 1e-6 of gold's: 1e-8 rad of extinction are left; between pixels the engine's periodic row and
    # the correction's zero-padded one have other sinc tails, 6e-5. Half the path or the wrong sign leave 0.1 rad.
    assert np.abs(np.angle(flat[full])).max() < {1.0: 5e-6, 0.8: 3e-4}[finer]
    # sinc of what a layer turns and dims within itself, |dz K chi_0|^2/24 ~ 1e-3
    assert np.abs(np.abs(flat[full]) - 1).max() < 2e-3
    phase_only = refraction.correct(bent, voxel, experiment, gold["chi_0"], support=body, absorption=False)
    assert np.allclose(np.abs(phase_only), np.abs(bent), rtol=1e-12)
    assert np.allclose(np.angle(phase_only[full] / flat[full]), 0, atol=1e-12)


def test_strain_stays_and_extinction_stays(experiment, inverse, gold, body):
    x = phantom.coordinates(SHAPE, VOXEL)[2]
    S = body * np.exp(2j * np.sin(x / 1.2e-7))
    full = body > 0.999

    def error(factor):
        fixed = refraction.correct(inverse(S, factor), VOXEL, experiment, gold["chi_0"], support=body)
        return np.std(np.angle(fixed[full] * S[full].conj()))

    assert error(1e-3) < 1e-6  # 5e-9
    assert (
        error(1.0) > 3e-3
    )  # 5e-3 rad at a fifth of an extinction length: what the correction cannot do, and why pendel exists


def test_path_of_a_slab_is_its_closed_form(experiment):
    slab = np.zeros((40, 3, 160))
    slab[5:35] = 1
    depth = (np.arange(5, 35) - 4.5) * VOXEL[0]
    path = refraction.optical_path(slab, VOXEL, experiment)[5:35, 1, 150]  # 30 columns of light come from the left
    assert np.allclose(path, depth / np.cos(TWO_THETA) + 30 * VOXEL[0] - depth, rtol=1e-12)
    assert np.array_equal(path, refraction.optical_path(slab, VOXEL, TWO_THETA)[5:35, 1, 150])


def test_support_is_found_without_being_given(experiment, inverse, gold):
    voxel = (DX / np.tan(TWO_THETA), DX, DX)
    body = phantom.cube((54, 40, 60), voxel, 0.45e-6, rotation("y+", 0.5))
    S = inverse(body.astype(complex), 1e-3)
    full = body > 0.999
    found = refraction.correct(S, voxel, experiment, gold["chi_0"])
    before, after = (np.std(np.angle(v[full] / v[full].mean())) for v in (S, found))
    assert after < 0.1 * before, (before, after)


def test_bad_arguments_are_named(experiment):
    S = np.ones((4, 4, 4), np.complex64)
    assert refraction.correct(S, VOXEL, experiment, -1e-5 + 1e-6j).dtype == np.complex64
    with pytest.raises(ValueError, match="chi_0: expected Im chi_0 >= 0"):
        refraction.correct(S, VOXEL, experiment, -1e-5 - 1e-6j)
    with pytest.raises(ValueError, match=r"support: expected shape \(nz, ny, nx\) = \(4, 4, 4\), got \(4, 4\)"):
        refraction.correct(S, VOXEL, experiment, -1e-5, support=np.ones((4, 4)))
    with pytest.raises(TypeError, match="experiment: expected an Experiment, got 0.8"):
        refraction.correct(S, VOXEL, 0.8, -1e-5)
    with pytest.raises(ValueError, match=r"experiment \(two_theta\): expected a finite number > 0 and < 1.57"):
        refraction.optical_path(S.real, VOXEL, 2.0)
