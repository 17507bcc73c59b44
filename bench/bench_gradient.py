"""Forward and adjoint by each way of the race, one thread; compared with the operator's before they are timed."""

import gpu_common as common
import pytest
import race_peers as peers
from race_parts import limit_torch, operator, reference

ROWS, FRAMES = 4, 64
OWN = ("pendel", "pendel.torch", "pendel.jax", "pendel-heun")
# Every size and precision of pendel's own; of the others, which no commit of pendel changes, one, to stand beside.
CASES = [
    (way, transport, dtype, nx)
    for nx in (64, 128)
    for dtype in ("complex64", "complex128")
    for transport in ("shift", "fourier")
    for way in peers.WAYS
    if peers.runs(way, transport) and (way in OWN or (nx, dtype) == (64, "complex64"))
]


def group(benchmark, what, transport, dtype, nx):
    benchmark.group = f"{what}, {transport}, {dtype}, {nx} x {ROWS} x {nx} voxels, {FRAMES} frames"
    benchmark.extra_info["point_steps"] = nx * nx * ROWS * FRAMES


@pytest.mark.parametrize("way, transport, dtype, nx", CASES)
def bench_gradient(benchmark, way, transport, dtype, nx):
    framework = peers.WAYS[way].framework
    if framework:
        pytest.importorskip(framework)
    limit_torch([way], 1)
    op = operator(way, transport, (nx, ROWS, nx), dtype, 1)
    given = common.problem(op, FRAMES)
    fastest = peers.tuned(way, op, *given)
    run = fastest.gradient(*given)
    expected = peers.make(reference(way), op).gradient(*given)()
    benchmark.extra_info["differences"] = peers.differences(fastest.numpy(run()), expected)
    group(benchmark, "forward and adjoint", transport, dtype, nx)
    benchmark(run)


@pytest.mark.parametrize("nx", (64, 128))
@pytest.mark.parametrize("dtype", ("complex64", "complex128"))
@pytest.mark.parametrize("way, transport", (("pendel", "shift"), ("pendel", "fourier"), ("pendel-heun", "fourier")))
def bench_forward(benchmark, way, transport, dtype, nx):
    op = operator(way, transport, (nx, ROWS, nx), dtype, 1)
    S, s_0, dq, _ = common.problem(op, FRAMES)
    group(benchmark, "forward", transport, dtype, nx)
    benchmark(op.forward, S, dq, s_0)
