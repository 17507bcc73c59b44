// What goes from lane to lane of a pack: transpositions between packs of frames and packs of voxels, and sums over
// frames by fixed trees of pairwise additions. Everything else keeps to its lane.
#pragma once
#include <utility>

#include "couple.h"

namespace pendel {
namespace PENDEL_ISA {

// Lanes as indices.
template <class T>
struct IndexOf;
template <>
struct IndexOf<float> {
  typedef int type;
};
template <>
struct IndexOf<double> {
  typedef long long type;
};

template <class T, int W>
using Indices = Pack<typename IndexOf<T>::type, W>;

// Lane From::lane(i) of a, then b, for every lane i: constants, as clang and GCC from 12 on want them.
#if __has_builtin(__builtin_shufflevector)
template <class From, class V, int... I>
PENDEL_HD V pick(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, From::lane(I)...);
}
template <class From, class T, int W>
PENDEL_HD Pack<T, W> pick(Pack<T, W> a, Pack<T, W> b) {
  return pick<From>(a, b, std::make_integer_sequence<int, W>());
}
#else
template <class From, class T, int W>
PENDEL_HD Pack<T, W> pick(Pack<T, W> a, Pack<T, W> b) {
  Indices<T, W> from;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) from[i] = From::lane(i);
  return __builtin_shuffle(a, b, from);
}
#endif

template <int W, int High>
struct Zipped {
  static constexpr int lane(int i) { return High * W / 2 + i / 2 + (i % 2 ? W : 0); }
};
template <int Odd>
struct EverySecond {
  static constexpr int lane(int i) { return 2 * i + Odd; }
};
struct PairsSwapped {
  static constexpr int lane(int i) { return i ^ 1; }
};
// First or second half of the runs of G lanes of a block, of a and of b in turn.
template <int W, int G, int Block, int Half>
struct Runs {
  static constexpr int lane(int i) {
    const int in = i % Block, run = in / G;
    return (run % 2 ? W : 0) + i - in + run / 2 * G + in % G + Half * Block / 2;
  }
};
// Every second block, from the first or the second on.
template <int Block, int Half>
struct Blocks {
  static constexpr int lane(int i) { return i / Block * 2 * Block + i % Block + Half * Block; }
};

// Lanes a0 b0 a1 b1 ...: first half (High = 0) or second half (High = 1).
template <class T, int W, int High>
PENDEL_HD Pack<T, W> zip(Pack<T, W> a, Pack<T, W> b) {
  return pick<Zipped<W, High>, T, W>(a, b);
}
template <class T, int W>
PENDEL_HD void unzip(Pack<T, W> a, Pack<T, W> b, Pack<T, W>& even, Pack<T, W>& odd) {
  even = pick<EverySecond<0>, T, W>(a, b);
  odd = pick<EverySecond<1>, T, W>(a, b);
}
// v[c] lane l -> place l K + c of the K packs taken as one array.
template <class T, int W, int K>
PENDEL_HD void transpose(Pack<T, W> (&v)[K]) {
  Pack<T, W> w[K];
#pragma GCC unroll 4
  for (int round = 1; round < K; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < K / 2; ++i) {
      w[2 * i] = zip<T, W, 0>(v[i], v[i + K / 2]);
      w[2 * i + 1] = zip<T, W, 1>(v[i], v[i + K / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < K; ++i) v[i] = w[i];
  }
}

template <class T, int W, int K>
PENDEL_HD void transpose_back(Pack<T, W> (&v)[K]) {
  Pack<T, W> w[K];
#pragma GCC unroll 4
  for (int round = 1; round < K; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < K / 2; ++i) unzip<T, W>(v[2 * i], v[2 * i + 1], w[i], w[i + K / 2]);
#pragma GCC unroll 16
    for (int i = 0; i < K; ++i) v[i] = w[i];
  }
}

// Two packs into one that holds half as many partial sums of each, lanes arranged so that each step is one shuffle of
// the machine: inside 128-bit blocks (runs of G lanes of a and b in turn), and of whole blocks.
template <class T, int W, int G, int Block = 16 / sizeof(T)>
PENDEL_HD Pack<T, W> merge_runs(Pack<T, W> a, Pack<T, W> b) {
  return pick<Runs<W, G, Block, 0>, T, W>(a, b) + pick<Runs<W, G, Block, 1>, T, W>(a, b);
}
template <class T, int W, int Block = 16 / sizeof(T)>
PENDEL_HD Pack<T, W> merge_blocks(Pack<T, W> a, Pack<T, W> b) {
  return pick<Blocks<Block, 0>, T, W>(a, b) + pick<Blocks<Block, 1>, T, W>(a, b);
}

// The same of groups of four lanes, whatever the size of a block.
template <class T, int W>
PENDEL_HD Pack<T, W> merge_halves(Pack<T, W> a, Pack<T, W> b) {
  return merge_blocks<T, W, 4>(a, b);
}

// Values to or from packs; where there are Most of them the compiler knows the length.
template <class T, int Most>
PENDEL_HD void copy_values(void* to, const void* from, long count) {
  if (count == Most)
    __builtin_memcpy(to, from, Most * sizeof(T));
  else
    __builtin_memcpy(to, from, count * sizeof(T));
}

template <class T, int N>
PENDEL_HD void add_to(T* sums, Pack<T, N> v) {
  Pack<T, N> old;
  __builtin_memcpy(&old, sums, sizeof old);
  old += v;
  __builtin_memcpy(sums, &old, sizeof old);
}

// Lane sums of eight packs by a fixed tree of pairwise additions: sums[c] += sum over lanes of X[c].
template <class T, int W>
PENDEL_HD void add_lane_sums(T* sums, const Pack<T, W> (&X)[SUMS]) {
  static_assert(W * sizeof(T) == 16 || W * sizeof(T) == 32 || W * sizeof(T) == 64, "128, 256 or 512 bits");
  constexpr int blocks = W * sizeof(T) / 16;
  constexpr int whole = sizeof(T) == 4 ? 2 : 4;  // packs left when every block holds sums of different X
  Pack<T, W> v[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = merge_runs<T, W, 1>(X[2 * i], X[2 * i + 1]);
  if constexpr (sizeof(T) == 4) {
    v[0] = merge_runs<T, W, 2>(v[0], v[1]);
    v[1] = merge_runs<T, W, 2>(v[2], v[3]);
  }
  if constexpr (blocks == 1) {
#pragma GCC unroll 4
    for (int i = 0; i < whole; ++i) add_to<T, W>(sums + i * W, v[i]);
    return;
  }
#pragma GCC unroll 2
  for (int i = 0; i < whole / 2; ++i) v[i] = merge_blocks<T, W>(v[2 * i], v[2 * i + 1]);
  if constexpr (blocks == 2) {
#pragma GCC unroll 2
    for (int i = 0; i < whole / 2; ++i) add_to<T, W>(sums + i * W, v[i]);
    return;
  }
  if constexpr (blocks == 4) {
    v[0] = merge_blocks<T, W>(v[0], v[whole / 2 - 1]);
    if constexpr (W == SUMS) {
      add_to<T, W>(sums, v[0]);
    } else {  // both halves hold the eight sums
      Pack<T, SUMS> half;
      __builtin_memcpy(&half, &v[0], sizeof half);
      add_to<T, SUMS>(sums, half);
    }
  }
}

template <class T, int W>
PENDEL_HD void add_lane_sums(T* sums, const Pair<Pack<T, W>> (&X)[SUMS]) {
  Pack<T, W> both[SUMS];
#pragma GCC unroll 8
  for (int c = 0; c < SUMS; ++c) both[c] = X[c].a + X[c].b;
  add_lane_sums<T, W>(sums, both);
}

// The same of four packs in two steps: lanes to where blocks hold partial sums of A.re, A.im, B.re, B.im in turn, ...
template <class T, int W>
struct Parts {
  enum { PACKS = W * sizeof(T) == 16 && sizeof(T) == 8 ? 2 : 1 };  // 128 bits of double hold two of the four
  Pack<T, W> v[PACKS];
};
template <class T, int W>
PENDEL_HD Parts<T, W> lane_parts(Cx<Pack<T, W>> A, Cx<Pack<T, W>> B) {
  const Pack<T, W> v = merge_runs<T, W, 1>(A.re, A.im), w = merge_runs<T, W, 1>(B.re, B.im);
  if constexpr (Parts<T, W>::PACKS == 2)
    return {{v, w}};
  else if constexpr (sizeof(T) == 8)
    return {{merge_runs<T, W, 2, 4>(v, w)}};
  else
    return {{merge_runs<T, W, 2>(v, w)}};
}
// ... and of `count` of these the sums, to every `step`th place: sums[0 ... 3] += sum over lanes.
template <class T, int W>
PENDEL_HD void add_lane_parts(T* sums, long step, const Parts<T, W>* parts, long count) {
  constexpr int each = 4, held = Parts<T, W>::PACKS * W / each;  // partial sums of each of the four
  for (long i = 0; i < count; i += held) {
    if constexpr (held == 1) {
      for (int k = 0; k < Parts<T, W>::PACKS; ++k) add_to<T, W>(sums + i * step + k * W, parts[i].v[k]);
    } else {
      Pack<T, W> v[held];
#pragma GCC unroll 4
      for (int k = 0; k < held; ++k) v[k] = parts[i + (i + k < count ? k : 0)].v[0];
#pragma GCC unroll 4
      for (int half = held / 2; half >= 1; half /= 2) {
#pragma GCC unroll 4
        for (int k = 0; k < half; ++k) v[k] = merge_halves<T, W>(v[2 * k], v[2 * k + 1]);
      }
      const long rest = count - i < held ? count - i : held;
      for (long k = 0; k < rest; ++k) {
        Pack<T, each> four;
        __builtin_memcpy(&four, reinterpret_cast<const T*>(v) + k * each, sizeof four);
        add_to<T, each>(sums + (i + k) * step, four);
      }
    }
  }
}
template <class T, int W>
PENDEL_HD void add_lane_sums(T* sums, Cx<Pack<T, W>> A, Cx<Pack<T, W>> B) {
  const Parts<T, W> part = lane_parts<T, W>(A, B);
  add_lane_parts<T, W>(sums, 0, &part, 1);
}

template <class T, int W>
PENDEL_HD T lane_sum(Pack<T, W> v) {
  T part[W];
  for (int l = 0; l < W; ++l) part[l] = lane<T>(v, l);
  for (int half = W / 2; half >= 1; half /= 2)
    for (int l = 0; l < half; ++l) part[l] += part[l + half];
  return part[0];
}
template <class T, int W>
PENDEL_HD T lane_sum(Pair<Pack<T, W>> v) {
  return lane_sum<T, W>(v.a) + lane_sum<T, W>(v.b);
}

}  // namespace PENDEL_ISA
}  // namespace pendel
