// One point-step of the sweep: the voxel's matrix applied to the two waves of every rocking angle in a pack, and the
// same step taken back together with its adjoint.
//
//   (3) (E_0, G) <- M (E_0, G),  M = [[1 + d00, m01], [m10, 1 + d11]]
#pragma once
#include "portable.h"

namespace pendel {
namespace PENDEL_ISA {

enum { MATRIX = 8, MATRIX_AND_INVERSE = 16, SUMS = 8 };  // reals per voxel: matrices as below, sums X00 X0h Xh0 Xhh

template <class T, class V>
PENDEL_HD void apply(const T* M, Cx<V>& E_0, Cx<V>& G) {
  const Cx<T> d00{M[0], M[1]}, m01{M[2], M[3]}, m10{M[4], M[5]}, d11{M[6], M[7]};
  const Cx<V> E_0_in = E_0, G_in = G;
  E_0 = {E_0_in.re + d00.re * E_0_in.re - d00.im * E_0_in.im + m01.re * G_in.re - m01.im * G_in.im,
         E_0_in.im + d00.re * E_0_in.im + d00.im * E_0_in.re + m01.re * G_in.im + m01.im * G_in.re};
  G = {G_in.re + m10.re * E_0_in.re - m10.im * E_0_in.im + d11.re * G_in.re - d11.im * G_in.im,
       G_in.im + m10.re * E_0_in.im + m10.im * E_0_in.re + d11.re * G_in.im + d11.im * G_in.re};
}

// The 2x2 matrix at V, or its conjugate transpose, times a vector.
template <class T, class V>
PENDEL_HD void multiply(const T* M, Cx<V> E_0, Cx<V> G, Cx<V>& out_0, Cx<V>& out_h) {
  const Cx<T> m00{M[0], M[1]}, m01{M[2], M[3]}, m10{M[4], M[5]}, m11{M[6], M[7]};
  out_0 = m00 * E_0 + m01 * G;
  out_h = m10 * E_0 + m11 * G;
}
template <class T, class V>
PENDEL_HD void multiply_adj(const T* M, Cx<V> adj_0, Cx<V> adj_h, Cx<V>& adj_E_0, Cx<V>& adj_G) {
  const Cx<T> m00{M[0], M[1]}, m01{M[2], M[3]}, m10{M[4], M[5]}, m11{M[6], M[7]};
  adj_E_0 = conj_mul(m00, adj_0) + conj_mul(m10, adj_h);
  adj_G = conj_mul(m01, adj_0) + conj_mul(m11, adj_h);
}

template <class T, class V>
PENDEL_HD void couple(const T* M, Cx<V>& E_0, Cx<V>& G) {
  apply(M, E_0, G);
}
// M holds the matrix and, behind it, its inverse. X is overwritten by the pack's products; the caller sums the lanes.
template <class T, class V>
PENDEL_HD void couple_adj(const T* M, Cx<V>& E_0, Cx<V>& G,              // fields after -> before
                          Cx<V>& adj_E_0, Cx<V>& adj_G, V (&X)[SUMS]) {  // adjoints after -> before; sums
  // Reverse (3): (E_0, G) <- M (E_0, G), state first
  apply(M + MATRIX, E_0, G);
  const Cx<V> a = adj_E_0, g = adj_G;
  const Cx<V> X00 = conj_mul(a, E_0), X0h = conj_mul(a, G), Xh0 = conj_mul(g, E_0), Xhh = conj_mul(g, G);
  X[0] = X00.re, X[1] = X00.im, X[2] = X0h.re, X[3] = X0h.im;
  X[4] = Xh0.re, X[5] = Xh0.im, X[6] = Xhh.re, X[7] = Xhh.im;
  const Cx<T> d00{M[0], M[1]}, m01{M[2], M[3]}, m10{M[4], M[5]}, d11{M[6], M[7]};
  adj_E_0 = {a.re + d00.re * a.re + d00.im * a.im + m10.re * g.re + m10.im * g.im,
             a.im + d00.re * a.im - d00.im * a.re + m10.re * g.im - m10.im * g.re};
  adj_G = {g.re + m01.re * a.re + m01.im * a.im + d11.re * g.re + d11.im * g.im,
           g.im + m01.re * a.im - m01.im * a.re + d11.re * g.im - d11.im * g.re};
}

// Lane sums of eight packs by a fixed tree of pairwise additions: sums[c] += sum over lanes of X[c].
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

// Lanes a0 b0 a1 b1 ...: first half (High = 0) or second half (High = 1).
template <class T, int W, int High>
PENDEL_HD Pack<T, W> zip(Pack<T, W> a, Pack<T, W> b) {
  Indices<T, W> from;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) from[i] = High * W / 2 + i / 2 + (i % 2 ? W : 0);
  return __builtin_shuffle(a, b, from);
}
template <class T, int W>
PENDEL_HD void unzip(Pack<T, W> a, Pack<T, W> b, Pack<T, W>& even, Pack<T, W>& odd) {
  Indices<T, W> from;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) from[i] = 2 * i;
  even = __builtin_shuffle(a, b, from);
  odd = __builtin_shuffle(a, b, from + 1);
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

template <class T, int W, int D>
PENDEL_HD Pack<T, W> merge(Pack<T, W> a, Pack<T, W> b) {
  Indices<T, W> first, second;
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    first[i] = (i & D) ? W + (i & ~D) : i;
    second[i] = (i & D) ? W + i : (i | D);
  }
  return __builtin_shuffle(a, b, first) + __builtin_shuffle(a, b, second);
}

template <class T, int N>
PENDEL_HD void add_to(T* sums, Pack<T, N> v) {
  Pack<T, N> old;
  __builtin_memcpy(&old, sums, sizeof old);
  old += v;
  __builtin_memcpy(sums, &old, sizeof old);
}

template <class T, int W>
PENDEL_HD void add_lane_sums(T* sums, const Pack<T, W> (&X)[SUMS]) {
  static_assert(W == 2 || W == 4 || W == 8 || W == 16, "lanes");
  Pack<T, W> a[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) a[i] = merge<T, W, 1>(X[2 * i], X[2 * i + 1]);
  if constexpr (W == 2) {
    for (int i = 0; i < 4; ++i) add_to<T, W>(sums + 2 * i, a[i]);
  } else {
    const Pack<T, W> b0 = merge<T, W, 2>(a[0], a[1]), b1 = merge<T, W, 2>(a[2], a[3]);
    if constexpr (W == 4) {
      add_to<T, W>(sums, b0);
      add_to<T, W>(sums + 4, b1);
    } else {
      const Pack<T, W> c = merge<T, W, 4>(b0, b1);
      if constexpr (W == 8) {
        add_to<T, W>(sums, c);
      } else {
        Pack<T, 8> half[2];
        __builtin_memcpy(half, &c, sizeof c);
        add_to<T, 8>(sums, half[0] + half[1]);
      }
    }
  }
}

template <class T, int W>
PENDEL_HD T lane_sum(Pack<T, W> v) {
  T part[W];
  for (int l = 0; l < W; ++l) part[l] = lane<T>(v, l);
  for (int half = W / 2; half >= 1; half /= 2)
    for (int l = 0; l < half; ++l) part[l] += part[l + half];
  return part[0];
}

}  // namespace PENDEL_ISA
}  // namespace pendel
