// The sweep with whole-pixel transport, and its adjoint. E_0 moves m = dz tan(2theta) / dx whole pixels per layer, so
// in the frame that moves along, p = x + m (nz - 1 - z), every E_0 value keeps its place: no arithmetic, nothing lost.
//
// Columns of constant x are marched in z with G in registers. B columns x_0, x_0 + m, ... march as one strip: what
// column b sends out at layer z is what column b + 1 takes in at layer z + 1, so E_0 passes from register to register
// and memory sees only the strip's two edges. Point (x, z) needs (x, z - 1) and (x - m, z - 1): strips from left to
// right forward, from right to left in the adjoint.
#pragma once
#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Shift {
  typedef Pack<T, W> V;

  static long place(const Args& a, long z, long x) { return x + a.shift * (a.nz - 1 - z); }

  template <int B>
  static bool hull(const Row<T, W>& r, long x, long& z_first, long& z_last) {
    z_first = r.a.nz, z_last = 0;
    for (int b = 0; b < B; ++b) {
      z_first = std::min(z_first, r.z_first[x + b * r.a.shift]);
      z_last = std::max(z_last, r.z_last[x + b * r.a.shift]);
    }
    return z_first < z_last;
  }

  template <class R, int B>
  static void strip(Row<T, W>& r, long group, long x) {
    const Args& a = r.a;
    Cx<R>*const row_E_0 = r.template fields<R>(r.E_0), *const row_G = r.template fields<R>(r.G);
    const long m = a.shift;
    long z_first, z_last;
    if (!hull<B>(r, x, z_first, z_last)) return;
    Cx<R> E_0[B], G[B];
    const T* M[B];
    for (int b = 0; b < B; ++b) {
      E_0[b] = row_E_0[place(a, z_first, x + b * m)];
      G[b] = row_G[x + b * m];
      M[b] = r.matrix(z_first, x + b * m);
    }
    Cx<R>* in = row_E_0 + place(a, z_first, x);
    Cx<R>* out = row_E_0 + place(a, z_first, x + (B - 1) * m);
    const Cx<R> layer = r.t.template phase<R>(group, std::min(1l, a.nz - 1));
    for (long z = z_first;; ++z) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        couple(M[b], E_0[b], G[b]);  // (3)
        M[b] += r.reals;
      }
      if (z + 1 == z_last) break;
      *out = E_0[B - 1];  // (4)
      in -= m, out -= m;
#pragma GCC unroll 4
      for (int b = B - 1; b > 0; --b) E_0[b] = E_0[b - 1];
      E_0[0] = *in;
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) G[b] = layer * G[b];  // (5)
    }
    for (int b = 0; b < B; ++b) {
      row_E_0[place(a, z_last - 1, x + b * m)] = E_0[b];
      row_G[x + b * m] = r.t.template phase<R>(group, a.nz - z_last) * G[b];
    }
  }

  template <class R, int B>
  static void strip_adj(Row<T, W>& r, long group, long x, double* adj_D) {
    const Args& a = r.a;
    Cx<R>*const row_E_0 = r.template fields<R>(r.E_0), *const row_adj_E_0 = r.template fields<R>(r.adj_E_0);
    Cx<R>*const row_G = r.template fields<R>(r.G), *const row_adj_G = r.template fields<R>(r.adj_G);
    const long m = a.shift;
    long z_first, z_last;
    if (!hull<B>(r, x, z_first, z_last)) return;
    Cx<R> E_0[B], G[B], adj_E_0[B], adj_G[B];
    const T* M[B];
    T* sums[B];
    R D = {}, turned[B];
    const Cx<R> gap = r.t.template phase<R>(group, a.nz - z_last);
    for (int b = 0; b < B; ++b) {
      const long xb = x + b * m, p = place(a, z_last - 1, xb);
      E_0[b] = row_E_0[p], adj_E_0[b] = row_adj_E_0[p];
      D = D + T(a.nz - z_last) * detuning(row_adj_G[xb], row_G[xb]);
      G[b] = conj_mul(gap, row_G[xb]);
      adj_G[b] = conj_mul(gap, row_adj_G[xb]);
      M[b] = r.matrix(z_last - 1, xb);
      sums[b] = r.sum(z_last - 1, xb);
    }
    long in = place(a, z_last - 1, x + (B - 1) * m), out = place(a, z_last - 1, x);
    const Cx<R> layer = r.t.template phase<R>(group, std::min(1l, a.nz - 1));
    for (long z = z_last - 1;; --z) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        // Reverse (3): (E_0, G) <- M (E_0, G)
        R X[SUMS];
        couple_adj_before(M[b], E_0[b], G[b], adj_E_0[b], adj_G[b], X);
        turned[b] = X[5];
        add_lane_sums<T, W>(sums[b], X);
        M[b] -= r.reals, sums[b] -= SUMS;
      }
      if (z == z_first) break;
      // Reverse (5): G <- exp(-i D dz) G
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        D = D + turned[b];  // detuning(adj_G[b], G[b])
        G[b] = conj_mul(layer, G[b]);
        adj_G[b] = conj_mul(layer, adj_G[b]);
      }
      // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
      row_E_0[out] = E_0[0], row_adj_E_0[out] = adj_E_0[0];
      in += m, out += m;
#pragma GCC unroll 4
      for (int b = 0; b + 1 < B; ++b) E_0[b] = E_0[b + 1], adj_E_0[b] = adj_E_0[b + 1];
      E_0[B - 1] = row_E_0[in], adj_E_0[B - 1] = row_adj_E_0[in];
    }
    for (int b = 0; b < B; ++b) {
      const long xb = x + b * m, p = place(a, z_first, xb);
      row_E_0[p] = E_0[b], row_adj_E_0[p] = adj_E_0[b];
      row_G[xb] = G[b], row_adj_G[xb] = adj_G[b];
    }
    for (int l = 0; l < lanes<T, R>; ++l) adj_D[l] += lane<T>(D, l);
  }

  // Re(conj(adj_G) dG) of a detuning that turns G by exp(-i) per unit: what (5) adds to adj_D per dz.
  template <class R>
  static PENDEL_HD R detuning(Cx<R> adj_G, Cx<R> G) {
    return adj_G.re * G.im - adj_G.im * G.re;
  }

  template <class R>
  static void march(Row<T, W>& r, long group) {
    const Args& a = r.a;
    constexpr int B = strip_columns<R>(true);
    for (long c = 0; c < std::min<long>(a.shift, a.nx); ++c) {
      long x = c;
      for (; x + (B - 1) * a.shift < a.nx; x += B * a.shift) strip<R, B>(r, group, x);
      for (; x < a.nx; x += a.shift) strip<R, 1>(r, group, x);
    }
  }
  template <class R>
  static void march_adj(Row<T, W>& r, long group, double* adj_D) {
    const Args& a = r.a;
    constexpr int B = strip_columns<R>(false);
    for (long c = 0; c < std::min<long>(a.shift, a.nx); ++c) {
      const long columns = (a.nx - c + a.shift - 1) / a.shift, whole = columns / B * B;
      for (long i = columns - 1; i >= whole; --i) strip_adj<R, 1>(r, group, c + i * a.shift, adj_D);
      for (long i = whole - B; i >= 0; i -= B) strip_adj<R, B>(r, group, c + i * a.shift, adj_D);
    }
  }

 private:
  // Columns of a strip: what the registers hold.
  template <class R>
  static constexpr int strip_columns(bool forward) {
    if (sizeof(R) > sizeof(V)) return forward ? 2 : 1;
    return sizeof(V) == 64 ? (forward ? 4 : 3) : forward ? 2 : 1;
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
