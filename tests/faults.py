"""Faults planted in the CUDA engine to see the emulator's tests catch them, all in one module: `Emulated.fault` says
which of them is at work.

name: (file in csrc, text, the same text with FAULT where that is at work, transport or kind in which it must show)
"""

FAULTS = {
    "no block barrier between layers": (
        "sweep_fused.h",
        "        if (enters) b.enter_adj(first, place(a, z, x), through);\n      }\n      __syncthreads();",
        "        if (enters) b.enter_adj(first, place(a, z, x), through);\n      }\n      if (!FAULT) __syncthreads();",
        "shift",
    ),
    "no warp barrier in the row FFT": (
        "sweep_fused.h",
        "    __syncwarp();",
        "{ if (!FAULT) __syncwarp(); }",
        "fourier",
    ),
    "a barrier some threads miss": (
        "sweep_fused.h",
        "      if (z + 1 == a.nz) break;",
        "      if (FAULT && threadIdx.x >= 64) __syncthreads();\n      if (z + 1 == a.nz) break;",
        "fourier",
    ),
    "a column too far": ("sweep_fused.h", "* nx + x - m];", "* nx + x - m + FAULT];", "shift"),
    "a frame too far": ("sweep_cuda.h", "    if (frame < a.frames)\n", "    if (frame < a.frames + FAULT)\n", "shift"),
    "shared memory too small": (
        "run_cuda.cu",
        "const std::size_t handed = 2 * F",
        "const std::size_t handed = (FAULT ? 1 : 2) * F",
        "shift",
    ),
    "no barrier before the sums": (
        "sweep_cufft.h",
        "scratch + threadIdx.x * SUMS);\n  __syncthreads();",
        "scratch + threadIdx.x * SUMS);\n  if (!FAULT) __syncthreads();",
        "symmetric, shift",
    ),
    "E_h's row begins elsewhere": (
        "sweep_cufft.h",
        "return a.tan_h == 0 ? 0 : a.shift ? a.shift * z : a.row - a.nx;",
        "return a.tan_h == 0 || (FAULT && !a.shift) ? 0 : a.shift ? a.shift * z : a.row - a.nx;",
        "symmetric, fourier",
    ),
    "no 1 / N": (
        "sweep_cufft.h",
        "E = s.E ? scale(s.E[row * a.row + t.x], T(1) / T(a.row))",
        "E = s.E ? scale(s.E[row * a.row + t.x], T(1) / T(FAULT ? 1 : a.row))",
        "etd2rk",
    ),
    "half of the rows transformed": (
        "run_cuda.cu",
        "moves * (c.turns ? 1 : 2)",
        "moves * (c.turns || FAULT ? 1 : 2)",
        "symmetric, fourier",
    ),
    "no work area": ("run_cuda.cu", "if (fft) fft->begin", "if (fft && !FAULT) fft->begin", "etd2rk"),
    "a node's second share of the sums lost": (
        "sweep_cufft.h",
        "s.opens && c.first == 0",
        "(s.opens || FAULT) && c.first == 0",
        "etd2rk",
    ),
}
