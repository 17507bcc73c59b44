// What a sweep takes for the crystal (python/pendel/model/swept.py): a few taps along y and along x of every layer,
// and what goes with them. One layer at a time; its rows are handed to no other thread.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "couple.h"
#include "run.h"

namespace pendel {
namespace PENDEL_ISA {

// |S|, and the voxels where S is not 0.
template <class T>
void extent_of_layer(const Extent& a, long z) {
  const long plane = a.ny * a.nx;
  const T* S = static_cast<const T*>(a.S) + 2 * z * plane;
  T* size = static_cast<T*>(a.size) + z * plane;
  std::uint8_t* filled = a.filled + z * plane;
  for (long i = 0; i < plane; ++i) size[i] = std::sqrt(S[2 * i] * S[2 * i] + S[2 * i + 1] * S[2 * i + 1]);
  for (long i = 0; i < plane; ++i) filled[i] = (S[2 * i] != 0) | (S[2 * i + 1] != 0);
}

// Swaps the members of each pair of lanes.
template <class T, int W>
PENDEL_HD Pack<T, W> swap_pairs(Pack<T, W> v) {
  Indices<T, W> from;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) from[i] = i ^ 1;
  return __builtin_shuffle(v, from);
}

// sums[i] = sum_n c[n] values[n stride + i], interleaved complex numbers; stride and reals count their parts.
template <class T>
void sum_taps(const T* c, long taps, const T* values, long stride, T* sums, long reals) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  typedef Pack<T, W> V;
  V sign;
  for (int i = 0; i < W; ++i) sign[i] = i % 2 ? 1 : -1;

  const long count = std::min<long>(W, reals);
  for (long i = 0; i < reals; i += W) {
    const long at = std::min(i, reals - count);  // the last pack goes over some of the one before once more
    V by_re = {}, by_im = {};
    for (long n = 0; n < taps; ++n) {
      V value = {};
      copy_values<T, W>(&value, values + n * stride + at, count);
      by_re += c[2 * n] * value, by_im += c[2 * n + 1] * value;
    }
    const V sum = by_re + sign * swap_pairs<T, W>(by_im);
    copy_values<T, W>(sums + at, &sum, count);
  }
}

// sum_m sum_n taps_y[m] taps_x[n] values(y + m, x + n) for x from first to last; row: what the taps along y make of
// them, with `reach` places of 0 to either side.
template <class T>
void filter_row(const Filter& a, long z, long y, long first, long last, T* row) {
  const long taps = 2 * a.reach + 1;
  const T* values = static_cast<const T*>(a.values) + 2 * z * a.ny * a.nx;
  const T* taps_y = static_cast<const T*>(a.taps_y) + 2 * z * taps;
  const T* taps_x = static_cast<const T*>(a.taps_x) + 2 * z * taps;

  const long low = std::max(first - a.reach, 0L), high = std::min(last + a.reach, a.nx);
  const long above = std::max(y - a.reach, 0L), below = std::min(y + a.reach + 1, a.ny);
  T* const inside = row + 2 * a.reach;
  sum_taps(taps_y + 2 * (above - y + a.reach), below - above, values + 2 * (above * a.nx + low), 2 * a.nx,
           inside + 2 * low, 2 * (high - low));
  std::fill(row + 2 * first, inside + 2 * low, T(0));
  std::fill(inside + 2 * high, inside + 2 * (last + a.reach), T(0));

  T* out = static_cast<T*>(a.filtered) + 2 * ((z * a.ny + y) * a.nx + first);
  sum_taps(taps_x, taps, row + 2 * first, 2, out, 2 * (last - first));
}

// Reverse of |S| where the density is that: adj_S += adj_size S/|S|, nothing at S = 0.
template <class T>
void add_adj_size(const Filter& a, long from, long to) {
  const T *S = static_cast<const T*>(a.S), *adj_size = static_cast<const T*>(a.adj_size);
  T* adj_S = static_cast<T*>(a.filtered);
  for (long i = from; i < to; ++i) {
    const T size = std::sqrt(S[2 * i] * S[2 * i] + S[2 * i + 1] * S[2 * i + 1]);
    const T factor = size > 0 ? adj_size[i] / size : T(0);
    adj_S[2 * i] += factor * S[2 * i], adj_S[2 * i + 1] += factor * S[2 * i + 1];
  }
}

// `filtered` of layer z, 0 where it is not wanted.
template <class T>
void filter_layer(const Filter& a, long z) {
  std::vector<T> row(2 * (a.nx + 2 * a.reach));

  for (long y = 0; y < a.ny; ++y) {
    const long at = (z * a.ny + y) * a.nx;
    T* out = static_cast<T*>(a.filtered) + 2 * at;
    const std::uint8_t* wanted = a.wanted ? a.wanted + at : nullptr;
    long first = 0, last = a.nx;
    while (wanted && first < last && !wanted[first]) ++first;
    while (wanted && first < last && !wanted[last - 1]) --last;

    std::fill(out, out + 2 * first, T(0));
    if (first < last) filter_row<T>(a, z, y, first, last, row.data());
    if (a.adj_size) add_adj_size<T>(a, at + first, at + last);
    for (long x = first; wanted && x < last; ++x) out[2 * x] *= T(wanted[x]), out[2 * x + 1] *= T(wanted[x]);
    std::fill(out + 2 * last, out + 2 * a.nx, T(0));
  }
}

}  // namespace PENDEL_ISA
}  // namespace pendel
