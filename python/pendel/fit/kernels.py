"""Pointwise work on the crystal that as array expressions costs a device some 20 to 60 passes over memory, in one each.

The text of the kernels is C++ in the terms of CuPy's ElementwiseKernel; what it computes is what `pendel.fit.adam`,
`pendel.fit.objective.bounded` and `pendel.atv` write in NumPy. T is the type of S or of another unknown, R its real
one.
"""

import functools
import sys

from ..base.arrays import cast

# in, out, operation, preamble
ADAM = (
    "T g, R new_m, R new_v, R bias_m, R bias_v, R tiny",
    "T m, R v, T direction",
    """
    m += new_m * (g - m);
    v += new_v * (square(g) - v);
    const R size = sqrt(v / bias_v);
    direction = m / bias_m / (size < tiny ? tiny : size);
    """,
    """
    template <class R> __device__ R square(R x) { return x * x; }
    template <class R> __device__ R square(complex<R> x) { return x.real() * x.real() + x.imag() * x.imag(); }
    """,
)
# R is decided by `rate` alone: CuPy takes a type of one letter from arrays, never from scalars. bound 0: none.
STEP = (
    "T S, T direction, bool support, R rate, R bound",
    "T moved",
    """
    const T free = support ? S - rate * direction : T(0);
    const R over = bound > 0 ? abs(free) / bound : R(0);
    moved = over > 1 ? free / over : free;
    """,
    "",
)
# (1) to (4) of `pendel.atv` in gather form: each voxel adds up what its own differences and those of the three voxels
# before it give.
ATV = (
    "raw T S, raw bool support, bool masked, int64 nz, int64 ny, int64 nx, R p, R q, R eps, R weight",
    "T adj_S, R value",
    """
    const Voxels<T, R> voxels = {nz, ny, nx, masked, p, q, eps, weight};
    T adj_d[3];
    value = voxels.reverse(S, support, i, adj_d);
    adj_S = T(0) - adj_d[0] - adj_d[1] - adj_d[2];
    for (int axis = 0; axis < 3; ++axis)
      if (voxels.place(i, axis) > 0) {
        voxels.reverse(S, support, i - voxels.stride(axis), adj_d);
        adj_S += adj_d[axis];
      }
    """,
    """
    template <class T, class R>
    struct Voxels {
      long long nz, ny, nx;
      bool masked;
      R p, q, eps, weight;
      __device__ long long stride(int axis) const { return axis == 0 ? ny * nx : axis == 1 ? nx : 1; }
      __device__ long long place(long long i, int axis) const {
        return axis == 0 ? i / (ny * nx) : axis == 1 ? i / nx % ny : i % nx;
      }
      // (sum |d|^p + eps)^(q/p) of voxel i, 0 outside the support, and adj_d of its three differences
      template <class A, class B>
      __device__ R reverse(const A& S, const B& support, long long i, T* adj_d) const {
        const long long length[3] = {nz, ny, nx};
        const bool inside = !masked || support[i];
        R base = eps, slope[3];
        for (int axis = 0; axis < 3; ++axis) {
          const long long next = i + stride(axis);
          const bool counts = inside && place(i, axis) + 1 < length[axis] && (!masked || support[next]);
          adj_d[axis] = counts ? S[next] - S[i] : T(0);
          const R size = abs(adj_d[axis]);
          base += p == 2 ? size * size : pow(size, p);
          slope[axis] = p == 2 ? R(1) : size > 0 ? pow(size, p - 2) : R(0);
        }
        const R factor = base > 0 ? weight * pow(base, q / p - 1) : R(0);
        for (int axis = 0; axis < 3; ++axis) adj_d[axis] *= factor * slope[axis];
        return inside ? pow(base, q / p) : R(0);
      }
    };
    """,
)


@functools.cache
def _kernel(cupy, name):
    """The ElementwiseKernel ``name``, of the module given."""
    given, made, operation, preamble = globals()[name]
    return cupy.ElementwiseKernel(given, made, operation, f"pendel_{name.lower()}", preamble=preamble)


def adam(g, m, v, new_m, new_v, bias_m, bias_v, tiny):
    """Adam's direction, a new array; ``m`` and ``v`` change in place."""
    cupy, R = sys.modules["cupy"], v.dtype.type
    numbers = (R(x) for x in (new_m, new_v, bias_m, bias_v, tiny))
    return _kernel(cupy, "ADAM")(g, *numbers, m, v, cupy.empty_like(m))[2]


def step(S, direction, support, rate, bound):
    """S - rate direction in the support, 0 outside, |S| at most ``bound`` (None: as it is), a new array."""
    cupy, R = sys.modules["cupy"], S.real.dtype.type
    rate = cupy.full((), rate, R)
    return _kernel(cupy, "STEP")(S, direction, support, rate, R(bound or 0), cupy.empty_like(S))


def atv(S, support, p, q, eps, weight):
    """(terms, adj_S): the voxels' terms of the sum, and ``weight`` q times its gradient; ``support`` None: all.

    weight : a number, or an array of shape () on the device.
    """
    cupy, R = sys.modules["cupy"], S.real.dtype.type
    masked, support = support is not None, cupy.zeros(1, bool) if support is None else support
    numbers = masked, *S.shape, R(p), R(q), R(eps), cast(weight * q, R)
    adj_S, terms = cupy.empty_like(S), cupy.empty(S.shape, R)
    _kernel(cupy, "ATV")(S, support, *numbers, adj_S, terms)
    return terms, adj_S
