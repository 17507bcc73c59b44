"""Exit field of a smooth crystal on voxels of three sizes by each scheme: times of `accuracy.py`, and errors."""

import accuracy
import numpy as np
import pytest

SCHEMES = {"shift": ("shift", "strang"), "fourier": ("fourier", "strang"), "etd2rk": ("fourier", "etd2rk")}


@pytest.fixture(scope="module")
def truths():
    return {}


@pytest.mark.parametrize("finer", (0.5, 1, 2))
@pytest.mark.parametrize("dtype", ("complex64", "complex128"))
@pytest.mark.parametrize("scheme", SCHEMES)
def bench_exit_field(benchmark, truths, scheme, dtype, finer):
    dx = accuracy.DX / (finer if scheme == "shift" else 1)
    nx, nz = round(accuracy.NX * accuracy.DX / dx), round(accuracy.LAYERS * finer)
    if dx not in truths:
        truths[dx] = accuracy.truth(dx, nx, accuracy.STEPS)
    op = accuracy.operator((nz, 1, nx), (accuracy.THICKNESS / nz, dx, dx), *SCHEMES[scheme], dtype)
    z = accuracy.THICKNESS / nz * (np.arange(nz) + 0.5)
    S = accuracy.crystal((np.arange(nx) - nx // 2) * dx, 0, z[:, None, None]).astype(dtype)
    error = np.linalg.norm(op.forward(S, accuracy.DQ) - truths[dx]) / np.linalg.norm(truths[dx])
    benchmark.extra_info["error"] = float(error)
    benchmark.group = f"exit field, {dtype}, voxels {1 / finer:g} times as deep as wide ones of 8 nm"
    benchmark(op.forward, S, accuracy.DQ)
