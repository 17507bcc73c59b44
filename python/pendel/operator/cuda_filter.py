"""`Engine.filter` on a CUDA device, in CuPy's terms; on the CPU it is csrc/filter.h."""

import functools

import numpy as np

# A voxel adds up its neighbours, layer by layer: in, out, operation.
FILTER = (
    "raw T values, raw T taps_y, raw T taps_x, raw bool wanted, bool masked, int64 ny, int64 nx, int64 reach",
    "T filtered",
    """
    const long long x = i % nx, y = i / nx % ny, layer = i / (ny * nx), taps = 2 * reach + 1;
    T sum = T(0);
    if (!masked || wanted[i])
      for (long long m = -reach; m <= reach; ++m) {
        if (y + m < 0 || y + m >= ny) continue;
        T row = T(0);
        for (long long n = -reach; n <= reach; ++n)
          if (x + n >= 0 && x + n < nx) row += taps_x[layer * taps + n + reach] * values[i + m * nx + n];
        sum += taps_y[layer * taps + m + reach] * row;
      }
    filtered = sum;
    """,
)


@functools.cache
def _kernel(cupy):
    return cupy.ElementwiseKernel(*FILTER, "pendel_filter")


def filtered(cupy, values, taps_y, taps_x, wanted):
    """`Engine.filter` without its last term."""
    masked, wanted = wanted is not None, cupy.zeros(1, bool) if wanted is None else wanted
    _, ny, nx = values.shape
    shape = masked, ny, nx, taps_y.shape[1] // 2
    return _kernel(cupy)(values, taps_y, taps_x, wanted, *shape, cupy.empty_like(values))


def adj_of_size(cupy, S, adj_size, wanted):
    """adj_size S/|S| where wanted, 0 where S is 0."""
    size = cupy.abs(S)
    size = cupy.maximum(size, np.finfo(size.dtype).tiny, out=size)
    return (adj_size if wanted is None else adj_size * wanted) * (S * (1 / size))
