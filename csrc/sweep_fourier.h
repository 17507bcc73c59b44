// The sweep with Fourier transport, and its adjoint. A layer is two passes over E_0: columns i, i + n, ... leave pass A
// of the previous transport, are coupled and enter pass A of the next (fft.h); then the 16 blocks take their phases.
#pragma once
#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

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
