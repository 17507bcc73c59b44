"""nvcc's own report on every kernel, for every architecture that is shipped: registers, no spills, no static memory."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
ARCHITECTURES = ("80", "90")
# As in CMakeLists.txt.
FLAGS = "-std=c++17 -O3 -DPENDEL_ISA=cuda --expt-relaxed-constexpr -diag-suppress 1675 -Xcompiler -fvisibility=hidden"

# Registers a thread may use, (complex64, complex128): 65536 a multiprocessor, divided among the threads of
# `__launch_bounds__`: one block of 512 marches with shift (double 256), two of 256 with the row FFT (double one). What
# goes layer by layer waits for memory: three blocks of 256 at least (double two).
LIMITS = {
    "shift_forward": (128, 128),
    "shift_adjoint": (128, 200),
    "fourier_forward": (128, 200),
    "fourier_adjoint": (128, 240),
    "layer_forward": (48, 64),
    "layer_adjoint": (80, 128),
    "box_filter": (48, 64),
    "spectrum_forward": (32, 40),
    "spectrum_adjoint": (32, 40),
    "generator_forward": (48, 64),
    "generator_adjoint": (80, 128),
    "multiply_forward": (32, 40),
    "multiply_adjoint": (32, 40),
    "enter": (32, 32),
    "enter_adjoint": (40, 40),
    "leave": (48, 48),
    "leave_adjoint": (48, 48),
    "finish": (64, 64),
    "store_layer": (40, 40),
    "load_layer": (48, 64),
    "matrices": (96, 128),
    "gradient": (96, 128),
    "medium_gradient": (128, 128),
    "tables": (64, 64),
}
VERSIONS = {"shift_forward": (4, 3), "shift_adjoint": (4, 3), "matrices": (2, 2)}  # of each precision; else one


def report(architecture):
    """(kernel, "f" or "d", registers, spilled bytes, static shared bytes) of every kernel nvcc compiles."""
    command = [NVCC, *FLAGS.split(), f"-arch=sm_{architecture}", "-Xptxas", "-v", "-cubin"]
    made = subprocess.run([*command, CSRC / "run_cuda.cu", "-o", os.devnull], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    kernels = []
    for line in (made.stdout + made.stderr).splitlines():
        if entry := re.search(r"Compiling entry function '_ZN6pendel4cuda\d+([a-z_]+)I([fd])", line):
            kernels.append([*entry.groups(), None, 0, 0])
        elif spill := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernels[-1][3] += int(spill[1]) + int(spill[2])  # of the kernel, and of the functions it calls
        elif used := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            kernels[-1][2], kernels[-1][4] = int(used[1]), int(shared[1]) if shared else 0
    return [tuple(kernel) for kernel in kernels]


@pytest.fixture(scope="module")
def reports():
    if not NVCC:
        pytest.skip("NO nvcc HERE: THE CUDA KERNELS WERE NOT COMPILED FOR ANY GPU (set CUDACXX or PATH)")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ARCHITECTURES, pool.map(report, ARCHITECTURES), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_and_registers_stay_in_bounds(reports, architecture):
    kernels = reports[architecture]
    expected = []
    for name in LIMITS:
        single, double = VERSIONS.get(name, (1, 1))
        expected += [(name, "f")] * single + [(name, "d")] * double
    assert sorted(kernel[:2] for kernel in kernels) == sorted(expected)
    for name, precision, registers, spilled, shared in kernels:
        assert spilled == 0, f"sm_{architecture}: {name}<{precision}> spills {spilled} bytes"
        assert shared == 0, f"sm_{architecture}: {name}<{precision}> takes {shared} bytes of static shared memory"
        most = LIMITS[name]["fd".index(precision)]
        assert registers <= most, f"sm_{architecture}: {name}<{precision}> uses {registers} registers, limit {most}"
