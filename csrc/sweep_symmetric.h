// The sweep with z along k_0 + k_h, and its adjoint: both waves leave z by theta_B, E_0 towards +x and E_h towards -x,
//
//   (10) E_0(x) <- E_0(x - dz t),  G(x) <- exp(-i D dz) G(x + dz t),  t = tan theta_B,  D = dq_z - t dq_x
//
// between layers, in place of (4) and (5), and nothing behind the last: both fields end on the plane of its voxel
// centres. Rows of both are `row` long and hold everything that enters or leaves the box. Transport fourier: column x
// of the crystal is place row - nx + x of either row, and since they are periodic what leaves on one side lies beyond
// the other, too far to come back. Transport shift: each row moves along with its wave by m whole pixels per layer.
#pragma once
#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Symmetric {
  typedef Pack<T, W> V;
  typedef Cx<V> Column[COLUMN];

  static void march(Row<T, W>& r, long group, long from, long to) {
    r.a.transport == Transport::SHIFT ? shift(r, group, from, to) : fourier(r, group, from, to);
  }
  static void march_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    r.a.transport == Transport::SHIFT ? shift_adj(r, group, from, to, adj_D) : fourier_adj(r, group, from, to, adj_D);
  }

 private:
  // Places of column x at layer z in the rows that move along; at the last layer of E_h as at the exit.
  static long place_E_0(const Args& a, long z, long x) { return x + a.shift * (a.nz - 1 - z); }
  static long place_G(const Args& a, long z, long x) { return x + a.shift * z; }
  static PENDEL_HD V detuning(Cx<V> adj_G, Cx<V> G) { return adj_G.re * G.im - adj_G.im * G.re; }

  static void shift(Row<T, W>& r, long group, long from, long to) {
    const Args& a = r.a;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    std::fill(r.at.begin(), r.at.end(), layer_before(from));
    for (long z = std::max(from, r.z_lo); z < std::min(to, r.z_hi); ++z)
      for (long x = r.x_first[z]; x < r.x_last[z]; ++x) {
        const long p = place_G(a, z, x);
        Cx<V> G = phase[z - r.at[p]] * r.G[p];                 // (10)
        couple(r.matrix(z, x), r.E_0[place_E_0(a, z, x)], G);  // (3)
        r.G[p] = G, r.at[p] = z;
      }
    for (long p = 0; p < a.row; ++p) r.G[p] = phase[to - 1 - r.at[p]] * r.G[p];  // (10)
  }
  static void shift_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    const Args& a = r.a;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    std::fill(r.at.begin(), r.at.end(), to - 1);
    for (long z = std::min(to, r.z_hi) - 1; z >= std::max(from, r.z_lo); --z) {
      V D = {};
      for (long x = r.x_first[z]; x < r.x_last[z]; ++x) {
        // Reverse (10): G <- exp(-i D dz) G, in its own place
        const long p = place_G(a, z, x), q = place_E_0(a, z, x);
        const Cx<V> back = phase[r.at[p] - z];
        D += detuning(r.adj_G[p], r.G[p]) * T(r.at[p] - z);
        Cx<V> G = conj_mul(back, r.G[p]), adj_G = conj_mul(back, r.adj_G[p]);
        // Reverse (3): (E_0, G) <- M (E_0, G)
        V X[SUMS];
        couple_adj(r.matrix(z, x), r.E_0[q], G, r.adj_E_0[q], adj_G, X);
        add_lane_sums<T, W>(r.sum(z, x), X);
        r.G[p] = G, r.adj_G[p] = adj_G, r.at[p] = z;
      }
      for (int l = 0; l < W; ++l) adj_D[l] += D[l];
    }
    V D = {};
    for (long p = 0; p < a.row && from > 0; ++p) {
      // Reverse (10): G <- exp(-i D dz) G, in its own place
      const long layers = r.at[p] - layer_before(from);
      D += detuning(r.adj_G[p], r.G[p]) * T(layers);
      r.G[p] = conj_mul(phase[layers], r.G[p]), r.adj_G[p] = conj_mul(phase[layers], r.adj_G[p]);
    }
    for (int l = 0; l < W; ++l) adj_D[l] += D[l];
  }

  // The phases that carry E_0 forward, and G back, over `layers` layers.
  static const std::vector<Cx<T>>& phases(Row<T, W>& r, long layers) {
    if (layers == 1) return r.t.phase_E_0;
    r.t.fft.phases(r.a.pixels * layers, r.phase_gap);
    return r.phase_gap;
  }
  // Column i of a row behind or in front of pass A (spectrum), or in space.
  static PENDEL_HD void take(const RowFft<T, W>& fft, bool spectrum, const Cx<V>* row, long i, Column& t) {
    if (spectrum)
      fft.column_inverse(row, i, t);
    else
      for (int j = 0; j < COLUMN; ++j) t[j] = row[i + fft.n * j];
  }
  static PENDEL_HD void put(const RowFft<T, W>& fft, bool spectrum, Column& t, Cx<V>* row, long i) {
    if (spectrum)
      fft.column_forward(t, row, i);
    else
      for (int j = 0; j < COLUMN; ++j) row[i + fft.n * j] = t[j];
  }

  static void fourier(Row<T, W>& r, long group, long from, long to) {
    const Args& a = r.a;
    const RowFft<T, W>& fft = r.t.fft;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    Cx<V>*E_0 = r.E_0.data(), *G = r.G.data();
    const long end = to < a.nz ? to : r.z_hi;
    long here = layer_before(from);  // the layer both fields stand at
    bool spectrum = false;           // both have passed pass A forward
    for (long z = std::max(from, r.z_lo); z < end; ++z) {
      const bool last = z + 1 == end;
      if (r.x_first[z] >= r.x_last[z] && !last) continue;
      if (!spectrum && z > here) {
        const std::vector<Cx<T>>& move = phases(r, z - here);  // (10)
        fft.template transport<false>(E_0, move);
        if (from > 0) fft.template transport<true>(G, move);  // else it is 0
      }
      if (spectrum) {
        const std::vector<Cx<T>>& move = phases(r, z - here);  // (10)
        fft.template blocks<false>(E_0, move);
        fft.template blocks<true>(G, move);
      }
      const Cx<V> turn = phase[z - here];
      here = z;
      for (long i = 0; i < fft.n; ++i) {
        Column e, g;
        take(fft, spectrum, E_0, i, e);
        take(fft, spectrum, G, i, g);
        for (int j = 0; j < COLUMN; ++j) {
          const long x = i + fft.n * j - (a.row - a.nx);
          g[j] = turn * g[j];                                                            // (10)
          if (x >= r.x_first[z] && x < r.x_last[z]) couple(r.matrix(z, x), e[j], g[j]);  // (3)
        }
        put(fft, !last, e, E_0, i);
        put(fft, !last, g, G, i);
      }
      spectrum = !last;
    }
    if (here == to - 1) return;
    const std::vector<Cx<T>>& move = phases(r, to - 1 - here);  // (10)
    fft.template transport<false>(E_0, move);
    fft.template transport<true>(G, move);
    for (long p = 0; p < a.row; ++p) G[p] = phase[to - 1 - here] * G[p];
  }

  static void fourier_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    const Args& a = r.a;
    const RowFft<T, W>& fft = r.t.fft;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    Cx<V>*E_0 = r.E_0.data(), *G = r.G.data(), *adj_E_0 = r.adj_E_0.data(), *adj_G = r.adj_G.data();
    const long end = from > 0 ? from : r.z_lo, before = layer_before(from);
    long here = to - 1;
    bool spectrum = false;
    const auto transport = [&](long layers, bool adj_E_0_too) {
      const std::vector<Cx<T>>& back = phases(r, layers);
      fft.template transport<true>(E_0, back);
      if (adj_E_0_too) fft.template transport<true>(adj_E_0, back);
      fft.template transport<false>(G, back);
      fft.template transport<false>(adj_G, back);
    };
    for (long z = std::min(to, r.z_hi) - 1; z >= end; --z) {
      const bool last = z == end;
      if (r.x_first[z] >= r.x_last[z] && !last) continue;
      // Reverse (10): E_0(x) <- E_0(x - dz t),  G(x) <- exp(-i D dz) G(x + dz t)
      if (!spectrum && z < here) transport(here - z, to < a.nz);  // behind the last layer adj_E_0 is 0
      if (spectrum) {
        const std::vector<Cx<T>>& back = phases(r, here - z);
        fft.template blocks<true>(E_0, back);
        fft.template blocks<true>(adj_E_0, back);
        fft.template blocks<false>(G, back);
        fft.template blocks<false>(adj_G, back);
      }
      const Cx<V> turn = phase[here - z];
      const T layers = T(here - z);
      here = z;
      V D = {};
      for (long i = 0; i < fft.n; ++i) {
        Column e, g, f, k;
        take(fft, spectrum, E_0, i, e);
        take(fft, spectrum, G, i, g);
        take(fft, spectrum, adj_E_0, i, f);
        take(fft, spectrum, adj_G, i, k);
        for (int j = 0; j < COLUMN; ++j) {
          const long x = i + fft.n * j - (a.row - a.nx);
          D += detuning(k[j], g[j]);
          g[j] = conj_mul(turn, g[j]), k[j] = conj_mul(turn, k[j]);
          if (x < r.x_first[z] || x >= r.x_last[z]) continue;
          // Reverse (3): (E_0, G) <- M (E_0, G)
          V X[SUMS];
          couple_adj(r.matrix(z, x), e[j], g[j], f[j], k[j], X);
          add_lane_sums<T, W>(r.sum(z, x), X);
        }
        put(fft, !last, e, E_0, i);
        put(fft, !last, g, G, i);
        put(fft, !last, f, adj_E_0, i);
        put(fft, !last, k, adj_G, i);
      }
      spectrum = !last;
      for (int l = 0; l < W; ++l) adj_D[l] += D[l] * layers;
    }
    if (here == before) return;
    if (from > 0) {
      V D = {};
      transport(here - before, true);
      for (long p = 0; p < a.row; ++p) {
        D += detuning(adj_G[p], G[p]) * T(here - before);
        G[p] = conj_mul(phase[here - before], G[p]), adj_G[p] = conj_mul(phase[here - before], adj_G[p]);
      }
      for (int l = 0; l < W; ++l) adj_D[l] += D[l];
    } else {  // G is 0 in front of the crystal, and nothing asks for its adjoint there
      const std::vector<Cx<T>>& back = phases(r, here);
      fft.template transport<true>(E_0, back);
      fft.template transport<true>(adj_E_0, back);
    }
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
