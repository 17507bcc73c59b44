// The sweeps with z along k_h, where only E_0 moves, and their adjoints.
//
// Transport shift: E_0 moves m = dz tan(2theta) / dx whole pixels per layer, so in the frame that moves along,
// p = x + m (nz - 1 - z), every E_0 value keeps its place: no arithmetic, nothing lost. Columns of constant x are
// marched in z with G in registers. B columns x_0, x_0 + m, ... march as one strip: what column b sends out at layer z
// is what column b + 1 takes in at layer z + 1, so E_0 passes from register to register and memory sees only the
// strip's two edges. Point (x, z) needs (x, z - 1) and (x - m, z - 1): strips from left to right forward, from right to
// left in the adjoint.
//
// Transport fourier: a layer is two passes over E_0: columns i, i + n, ... leave pass A of the previous transport, are
// coupled and enter pass A of the next (fft.h); then the 16 blocks take their phases.
#pragma once
#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Shift {
  typedef Pack<T, W> V;
  static constexpr int strip_forward = sizeof(V) == 64 ? 4 : 2, strip_adjoint = sizeof(V) == 64 ? 3 : 1;

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

  template <int B>
  static void strip(Row<T, W>& r, long group, long x) {
    const Args& a = r.a;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    const long m = a.shift;
    long z_first, z_last;
    if (!hull<B>(r, x, z_first, z_last)) return;
    Cx<V> E_0[B], G[B];
    const T* M[B];
    for (int b = 0; b < B; ++b) {
      E_0[b] = r.E_0[place(a, z_first, x + b * m)];
      G[b] = r.G[x + b * m];
      M[b] = r.matrix(z_first, x + b * m);
    }
    Cx<V>* in = &r.E_0[place(a, z_first, x)];
    Cx<V>* out = &r.E_0[place(a, z_first, x + (B - 1) * m)];
    const Cx<V> layer = a.nz > 1 ? phase[1] : phase[0];
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
      r.E_0[place(a, z_last - 1, x + b * m)] = E_0[b];
      r.G[x + b * m] = phase[a.nz - z_last] * G[b];
    }
  }

  template <int B>
  static void strip_adj(Row<T, W>& r, long group, long x, double* adj_D) {
    const Args& a = r.a;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    const long m = a.shift;
    long z_first, z_last;
    if (!hull<B>(r, x, z_first, z_last)) return;
    Cx<V> E_0[B], G[B], adj_E_0[B], adj_G[B];
    const T* M[B];
    T* sums[B];
    V D = {};
    for (int b = 0; b < B; ++b) {
      const long xb = x + b * m, p = place(a, z_last - 1, xb);
      E_0[b] = r.E_0[p], adj_E_0[b] = r.adj_E_0[p];
      D += detuning(r.adj_G[xb], r.G[xb]) * T(a.nz - z_last);
      G[b] = conj_mul(phase[a.nz - z_last], r.G[xb]);
      adj_G[b] = conj_mul(phase[a.nz - z_last], r.adj_G[xb]);
      M[b] = r.matrix(z_last - 1, xb);
      sums[b] = r.sum(z_last - 1, xb);
    }
    long in = place(a, z_last - 1, x + (B - 1) * m), out = place(a, z_last - 1, x);
    const Cx<V> layer = a.nz > 1 ? phase[1] : phase[0];
    for (long z = z_last - 1;; --z) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        // Reverse (3): (E_0, G) <- M (E_0, G)
        V X[SUMS];
        couple_adj(M[b], E_0[b], G[b], adj_E_0[b], adj_G[b], X);
        add_lane_sums<T, W>(sums[b], X);
        M[b] -= r.reals, sums[b] -= SUMS;
      }
      if (z == z_first) break;
      // Reverse (5): G <- exp(-i D dz) G
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        D += detuning(adj_G[b], G[b]);
        G[b] = conj_mul(layer, G[b]);
        adj_G[b] = conj_mul(layer, adj_G[b]);
      }
      // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
      r.E_0[out] = E_0[0], r.adj_E_0[out] = adj_E_0[0];
      in += m, out += m;
#pragma GCC unroll 4
      for (int b = 0; b + 1 < B; ++b) E_0[b] = E_0[b + 1], adj_E_0[b] = adj_E_0[b + 1];
      E_0[B - 1] = r.E_0[in], adj_E_0[B - 1] = r.adj_E_0[in];
    }
    for (int b = 0; b < B; ++b) {
      const long xb = x + b * m, p = place(a, z_first, xb);
      r.E_0[p] = E_0[b], r.adj_E_0[p] = adj_E_0[b];
      r.G[xb] = G[b], r.adj_G[xb] = adj_G[b];
    }
    for (int l = 0; l < W; ++l) adj_D[l] += D[l];
  }

  // Re(conj(adj_G) dG) of a detuning that turns G by exp(-i) per unit: what (5) adds to adj_D per dz.
  static PENDEL_HD V detuning(Cx<V> adj_G, Cx<V> G) { return adj_G.re * G.im - adj_G.im * G.re; }

  static void march(Row<T, W>& r, long group) {
    const Args& a = r.a;
    for (long c = 0; c < std::min<long>(a.shift, a.nx); ++c) {
      long x = c;
      for (; x + (strip_forward - 1) * a.shift < a.nx; x += strip_forward * a.shift) strip<strip_forward>(r, group, x);
      for (; x < a.nx; x += a.shift) strip<1>(r, group, x);
    }
  }
  static void march_adj(Row<T, W>& r, long group, double* adj_D) {
    const Args& a = r.a;
    for (long c = 0; c < std::min<long>(a.shift, a.nx); ++c) {
      const long columns = (a.nx - c + a.shift - 1) / a.shift, whole = columns / strip_adjoint * strip_adjoint;
      for (long i = columns - 1; i >= whole; --i) strip_adj<1>(r, group, c + i * a.shift, adj_D);
      for (long i = whole - strip_adjoint; i >= 0; i -= strip_adjoint)
        strip_adj<strip_adjoint>(r, group, c + i * a.shift, adj_D);
    }
  }
};

template <class T, int W>
struct Fourier {
  typedef Pack<T, W> V;

  // The phases that carry E_0 over `layers` layers.
  static const std::vector<Cx<T>>& phases(Row<T, W>& r, long layers) {
    if (layers == 1) return r.t.phase_E_0;
    r.t.fft.phases(r.a.pixels * layers, r.phase_gap);
    return r.phase_gap;
  }

  static void march(Row<T, W>& r, long group) {
    const Args& a = r.a;
    const RowFft<T, W>& fft = r.t.fft;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    Cx<V>* E_0 = r.E_0.data();
    long here = 0;          // the layer E_0 stands at
    bool spectrum = false;  // E_0 has passed pass A forward
    std::fill(r.at.begin(), r.at.end(), 0);
    for (long z = r.z_lo; z < r.z_hi; ++z) {
      if (r.x_first[z] >= r.x_last[z]) continue;
      if (!spectrum && z > here) fft.template transport<false>(E_0, phases(r, z - here));  // (4)
      if (spectrum) fft.template blocks<false>(E_0, phases(r, z - here));                  // (4)
      here = z;
      const bool last = z + 1 == r.z_hi;
      for (long i = 0; i < fft.n; ++i) {
        Cx<V> e[COLUMN];
        if (spectrum)
          fft.column_inverse(E_0, i, e);
        else
          for (int j = 0; j < COLUMN; ++j) e[j] = E_0[i + fft.n * j];
        for (int j = 0; j < COLUMN; ++j) {
          const long x = i + fft.n * j;
          if (x >= r.x_last[z]) break;
          if (x < r.x_first[z]) continue;
          Cx<V> G = phase[z - r.at[x]] * r.G[x];  // (5)
          couple(r.matrix(z, x), e[j], G);        // (3)
          r.G[x] = G, r.at[x] = z;
        }
        if (last)
          for (int j = 0; j < COLUMN; ++j) E_0[i + fft.n * j] = e[j];
        else
          fft.column_forward(e, E_0, i);
      }
      spectrum = !last;
    }
    if (here < a.nz - 1) fft.template transport<false>(E_0, phases(r, a.nz - 1 - here));  // (4)
    for (long x = 0; x < a.nx; ++x) r.G[x] = phase[a.nz - 1 - r.at[x]] * r.G[x];          // (5)
  }

  static void march_adj(Row<T, W>& r, long group, double* adj_D) {
    const Args& a = r.a;
    const RowFft<T, W>& fft = r.t.fft;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    Cx<V>*E_0 = r.E_0.data(), *adj_E_0 = r.adj_E_0.data();
    long here = a.nz - 1;
    bool spectrum = false;
    std::fill(r.at.begin(), r.at.end(), a.nz - 1);
    for (long z = r.z_hi - 1; z >= r.z_lo; --z) {
      if (r.x_first[z] >= r.x_last[z]) continue;
      // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
      if (!spectrum && z < here) fft.template transport<true>(E_0, phases(r, here - z));
      if (spectrum) {
        const std::vector<Cx<T>>& back = phases(r, here - z);
        fft.template blocks<true>(E_0, back);
        fft.template blocks<true>(adj_E_0, back);
      }
      here = z;
      const bool last = z == r.z_lo;
      V D = {};
      for (long i = 0; i < fft.n; ++i) {
        Cx<V> e[COLUMN], f[COLUMN];
        if (spectrum) {
          fft.column_inverse(E_0, i, e);
          fft.column_inverse(adj_E_0, i, f);
        } else {
          for (int j = 0; j < COLUMN; ++j) e[j] = E_0[i + fft.n * j], f[j] = adj_E_0[i + fft.n * j];
        }
        for (int j = 0; j < COLUMN; ++j) {
          const long x = i + fft.n * j;
          if (x >= r.x_last[z]) break;
          if (x < r.x_first[z]) continue;
          // Reverse (5): G <- exp(-i D dz) G
          const Cx<V> back = phase[r.at[x] - z];
          D += (r.adj_G[x].re * r.G[x].im - r.adj_G[x].im * r.G[x].re) * T(r.at[x] - z);
          Cx<V> G = conj_mul(back, r.G[x]), adj_G = conj_mul(back, r.adj_G[x]);
          // Reverse (3): (E_0, G) <- M (E_0, G)
          V X[SUMS];
          couple_adj(r.matrix(z, x), e[j], G, f[j], adj_G, X);
          add_lane_sums<T, W>(r.sum(z, x), X);
          r.G[x] = G, r.adj_G[x] = adj_G, r.at[x] = z;
        }
        if (last) {
          for (int j = 0; j < COLUMN; ++j) E_0[i + fft.n * j] = e[j], adj_E_0[i + fft.n * j] = f[j];
        } else {
          fft.column_forward(e, E_0, i);
          fft.column_forward(f, adj_E_0, i);
        }
      }
      spectrum = !last;
      for (int l = 0; l < W; ++l) adj_D[l] += D[l];
    }
    if (here > 0) {
      const std::vector<Cx<T>>& back = phases(r, here);
      fft.template transport<true>(E_0, back);
      fft.template transport<true>(adj_E_0, back);
    }
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
