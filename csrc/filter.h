// What a sweep takes for the crystal (python/pendel/model/swept.py): a few taps along y and along x of every layer,
// and what goes with them. One layer at a time; its rows are handed to no other thread.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.h"
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
  return pick<PairsSwapped, T, W>(v, v);
}

// sums[i] = sum_n c[n] values[n stride + i], interleaved complex numbers, of `reals` parts, at least B packs of them; B
// packs at a time, whose sums do not wait for each other.
template <class T, int B>
void sum_taps_of(const T* c, long taps, const T* values, long stride, T* sums, long reals) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  typedef Pack<T, W> V;
  V sign;
  for (int i = 0; i < W; ++i) sign[i] = i % 2 ? 1 : -1;

  for (long i = 0; i < reals; i += B * W) {
    const long at = std::min(i, reals - B * W);  // the last go over some of those before once more
    V by_re[B] = {}, by_im[B] = {};
    for (long n = 0; n < taps; ++n) {
      const T re = c[2 * n], im = c[2 * n + 1];
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        V value;
        __builtin_memcpy(&value, values + n * stride + at + b * W, sizeof value);
        by_re[b] += re * value, by_im[b] += im * value;
      }
    }
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
      const V sum = by_re[b] + sign * swap_pairs<T, W>(by_im[b]);
      __builtin_memcpy(sums + at + b * W, &sum, sizeof sum);
    }
  }
}

// The same of fewer parts than a pack has.
template <class T>
void sum_taps_of_few(const T* c, long taps, const T* values, long stride, T* sums, long reals) {
  for (long i = 0; i < reals; i += 2) {
    T re = 0, im = 0;
    for (long n = 0; n < taps; ++n) {
      const T* value = values + n * stride + i;
      re += c[2 * n] * value[0] - c[2 * n + 1] * value[1];
      im += c[2 * n] * value[1] + c[2 * n + 1] * value[0];
    }
    sums[i] = re, sums[i + 1] = im;
  }
}

template <class T>
void sum_taps(const T* c, long taps, const T* values, long stride, T* sums, long reals) {
  constexpr long W = PENDEL_BYTES / sizeof(T);
  if (reals >= 4 * W)
    sum_taps_of<T, 4>(c, taps, values, stride, sums, reals);
  else if (reals >= 2 * W)
    sum_taps_of<T, 2>(c, taps, values, stride, sums, reals);
  else if (reals >= W)
    sum_taps_of<T, 1>(c, taps, values, stride, sums, reals);
  else
    sum_taps_of_few(c, taps, values, stride, sums, reals);
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

// The first of n bytes that is `value`, or n.
inline long first_of(const std::uint8_t* bytes, int value, long n) {
  const void* found = n ? std::memchr(bytes, value, n) : nullptr;
  return found ? static_cast<const std::uint8_t*>(found) - bytes : n;
}

// 0 where not wanted, from first to last.
template <class T>
void cut_row(const std::uint8_t* wanted, long first, long last, T* out) {
  for (long x = first + first_of(wanted + first, 0, last - first); x < last; ++x)
    if (!wanted[x]) out[2 * x] = out[2 * x + 1] = 0;
}

// `filtered` of layer z, 0 where it is not wanted.
template <class T>
void filter_layer(const Filter& a, long z) {
  std::vector<T> row(2 * (a.nx + 2 * a.reach));

  for (long y = 0; y < a.ny; ++y) {
    const long at = (z * a.ny + y) * a.nx;
    T* out = static_cast<T*>(a.filtered) + 2 * at;
    const std::uint8_t* wanted = a.wanted ? a.wanted + at : nullptr;
    long first = wanted ? first_of(wanted, 1, a.nx) : 0, last = a.nx;
    while (wanted && first < last && !wanted[last - 1]) --last;

    std::fill(out, out + 2 * first, T(0));
    if (first < last) filter_row<T>(a, z, y, first, last, row.data());
    if (a.adj_size) add_adj_size<T>(a, at + first, at + last);
    if (wanted) cut_row(wanted, first, last, out);
    std::fill(out + 2 * last, out + 2 * a.nx, T(0));
  }
}

}  // namespace PENDEL_ISA
}  // namespace pendel
