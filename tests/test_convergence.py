"""Order of the operator's scheme in the layer thickness, on a smooth strained crystal."""

import numpy as np
import pendel
import pytest
from pendel import reference

DX, NX, N = 8e-9, 96, 192
DQ = np.array([[0, 0, 0.0], [0, 0, 2e7], [1e6, 0, -3e7]])


def _crystal(thickness):
    """A strained blob of 240 nm; at the edge of the box it has fallen to 4e-5 in x."""

    def S(x, y, z):
        size = np.exp(-((x / 0.12e-6) ** 2) - ((z - thickness / 2) / 0.12e-6) ** 2)
        return size * np.exp(2.5j * np.sin(2 * np.pi * x / thickness + 0.3) * np.cos(2 * np.pi * z / thickness))

    return S


def _exact(thickness, physics):
    # Order 4 with 128 steps: 1e-9, which test_reference.py shows.
    return reference.blanes_moan(
        _crystal(thickness), DQ, shape=(1, 1, NX), voxel=(thickness, DX, DX), steps=128, row_length=N, **physics
    )


def _error(nz, thickness, transport, physics, expected):
    op = pendel.TakagiTaupin((nz, 1, NX), (thickness / nz, DX, DX), transport=transport, dtype="complex128", **physics)
    z, x = (np.arange(nz) + 0.5) * thickness / nz, (np.arange(NX) - NX // 2) * DX
    E_h = op.forward(np.asarray(_crystal(thickness)(x, 0, z[:, None, None])), DQ)
    return np.linalg.norm(E_h - expected) / np.linalg.norm(expected)


def test_fourier_transport_converges_with_slope_2(gold):
    thickness, counts = 0.5e-6, np.array([16, 32, 64, 128])
    expected = _exact(thickness, gold)
    errors = [_error(nz, thickness, "fourier", gold, expected) for nz in counts]
    # 0.1: what the next order bends the line by, at this many steps.
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)
    assert errors[-1] < 2e-5  # (D h)^2 / 24 = 5e-4 at the largest |D|, where little of E_h is; 1.2e-5 by the oracle


def test_box_transport_converges_with_slope_2(gold):
    """Voxels of one shape, ever smaller: its dispersion is of the size of dx, whatever dz."""
    thickness, finer = 0.5e-6, np.array([1, 2, 4])
    errors, expected = [], _exact(thickness, gold)
    for n in finer:
        voxel, nz = (thickness / (48 * n), DX, DX / n), 48 * n
        op = pendel.TakagiTaupin((nz, 1, NX * n), voxel, transport="box", dtype="complex128", **gold)
        assert 1.25 < op.pixels_per_layer < 1.35
        z, x = (np.arange(nz) + 0.5) * voxel[0], (np.arange(NX * n) - NX * n // 2) * voxel[2]
        E_h = op.forward(np.asarray(_crystal(thickness)(x, 0, z[:, None, None])), DQ)[..., ::n]
        errors.append(np.linalg.norm(E_h - expected) / np.linalg.norm(expected))
    # 0.1: as above.
    assert -np.polyfit(np.log(finer), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)
    assert errors[0] < 2e-4


def test_shift_transport_converges_with_slope_2(gold):
    # 4, 3, 2, 1 whole pixels per layer on one lateral grid.
    thickness = 48 * DX / np.tan(gold["two_theta"])
    pixels = np.array([4, 3, 2, 1])
    expected = _exact(thickness, gold)
    errors = [_error(48 // m, thickness, "shift", gold, expected) for m in pixels]
    # 0.1: as above.
    assert np.polyfit(np.log(pixels), np.log(errors), 1)[0] == pytest.approx(2, abs=0.1)
