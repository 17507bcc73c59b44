// The sweeps with z along k_h, where only E_0 moves, and their adjoints.
//
// Transport shift: E_0 moves m = dz tan(2theta) / dx whole pixels per layer, so in the frame that moves along,
// p = x + m (nz - 1 - z), every E_0 value keeps its place: no arithmetic, nothing lost. Columns of constant x are
// marched in z with G in registers. B columns x_0, x_0 + m, ... march as one strip: what column b sends out at layer z
// is what column b + 1 takes in at layer z + 1, so E_0 passes from register to register and memory sees only the
// strip's two edges. Point (x, z) needs (x, z - 1) and (x - m, z - 1): strips from left to right forward, from right to
// left in the adjoint.
//
// Rows whose voxels allow it are lifted (couple.h): the same marches with E and H, a tile of layers at a time.
//
// Transport fourier: a layer is two passes over E_0: columns i, i + n, ... leave pass A of the previous transport, are
// coupled and enter pass A of the next (fft.h); then the 16 blocks take their phases. Transport box: sweep_box.h.
#pragma once
#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Shift {
  typedef Pack<T, W> V;

  static long place(const Args& a, long z, long x) { return x + a.shift * (a.nz - 1 - z); }

  template <int B>
  static bool hull(const Row<T, W>& r, long x, long from, long to, long& z_first, long& z_last) {
    z_first = to, z_last = from;
    for (int b = 0; b < B; ++b) {
      z_first = std::min(z_first, std::max(from, r.z_first[x + b * r.a.shift]));
      z_last = std::max(z_last, std::min(to, r.z_last[x + b * r.a.shift]));
    }
    return z_first < z_last;
  }

  // Of a row that is lifted, E and H of (L2) stand for E_0 and G.
  template <class R, int B, bool Lift>
  static void strip(Row<T, W>& r, long group, long x, long from, long to) {
    const Args& a = r.a;
    Cx<R>*const row_E_0 = r.template fields<R>(r.E_0), *const row_G = r.template fields<R>(r.G);
    const long m = a.shift;
    long z_first, z_last;
    if (!hull<B>(r, x, from, to, z_first, z_last)) {
      for (int b = 0; b < B && from > 0; ++b)
        row_G[x + b * m] = r.t.template phase<R>(group, to - from) * row_G[x + b * m];
      return;
    }
    const Cx<R> gap = r.t.template phase<R>(group, z_first - layer_before(from));
    Cx<R> E_0[B], G[B];
    const T* M[B];
    const long reals = Lift ? long(Lifted<T, W>::STEP) : r.reals;
    for (int b = 0; b < B; ++b) {
      assign(E_0[b], row_E_0[place(a, z_first, x + b * m)]);
      G[b] = from > 0 ? gap * row_G[x + b * m] : row_G[x + b * m];
      M[b] = Lift ? r.lifted.shear(z_first, x + b * m) : r.matrix(z_first, x + b * m);
    }
    Cx<R>* in = row_E_0 + place(a, z_first, x);
    Cx<R>* out = row_E_0 + place(a, z_first, x + (B - 1) * m);
    const Cx<R> layer = r.t.template phase<R>(group, std::min(1l, a.nz - 1));
    for (long z = z_first;; ++z) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        if constexpr (Lift)
          couple_lifted(M[b], E_0[b], G[b]);  // (L3)
        else
          couple(M[b], E_0[b], G[b]);  // (3)
        M[b] += reals;
      }
      if (z + 1 == z_last) break;
      assign(*out, E_0[B - 1]);  // (4)
      in -= m, out -= m;
#pragma GCC unroll 4
      for (int b = B - 1; b > 0; --b) assign(E_0[b], E_0[b - 1]);
      assign(E_0[0], *in);
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) G[b] = layer * G[b];  // (5)
    }
    for (int b = 0; b < B; ++b) {
      assign(row_E_0[place(a, z_last - 1, x + b * m)], E_0[b]);
      row_G[x + b * m] = r.t.template phase<R>(group, to - z_last) * G[b];
    }
  }

  // A voxel's step back; its sums to `sums`, which then goes on, or to `part`, where they wait for more of them.
  template <class R, bool Lift>
  static PENDEL_HD void couple_back(const T* voxel, Cx<R>& E_0, Cx<R>& G, Cx<R>& adj_E_0, Cx<R>& adj_G, T*& sums,
                                    Parts<T, W>* part) {
    if constexpr (Lift) {
      // Reverse (L3): E <- E + a' H,  H <- H + b' E
      Cx<V> of_a, of_b;
      couple_lifted_adj(voxel, E_0, G, adj_E_0, adj_G, of_a, of_b);
      *part = lane_parts<T, W>(of_a, of_b);
    } else {
      // Reverse (3): (E_0, G) <- M (E_0, G)
      R X[SUMS];
      couple_adj(voxel, E_0, G, adj_E_0, adj_G, X);
      add_lane_sums<T, W>(sums, X);
      sums -= SUMS;
    }
  }

  template <class R, int B, bool Lift>
  static void strip_adj(Row<T, W>& r, long group, long x, long from, long to, double* adj_D) {
    const Args& a = r.a;
    Cx<R>*const row_E_0 = r.template fields<R>(r.E_0), *const row_adj_E_0 = r.template fields<R>(r.adj_E_0);
    Cx<R>*const row_G = r.template fields<R>(r.G), *const row_adj_G = r.template fields<R>(r.adj_G);
    const long m = a.shift;
    long z_first, z_last;
    R D = {};
    if (!hull<B>(r, x, from, to, z_first, z_last)) {
      if (from > 0) turn_back<R, B>(r, group, x, to - from, D);
      for (int l = 0; l < lanes<T, R>; ++l) adj_D[l] += lane<T>(D, l);
      return;
    }
    turn_back<R, B>(r, group, x, to - z_last, D);
    Cx<R> E_0[B], G[B], adj_E_0[B], adj_G[B];
    const T* M[B];
    T* sums[B];
    Parts<T, W> part[B][Lift ? long(TILE) : 1];
    const long reals = Lift ? long(Lifted<T, W>::STEP) : r.reals;
    for (int b = 0; b < B; ++b) {
      const long xb = x + b * m, p = place(a, z_last - 1, xb);
      assign(E_0[b], row_E_0[p]), assign(adj_E_0[b], row_adj_E_0[p]);
      assign(G[b], row_G[xb]), assign(adj_G[b], row_adj_G[xb]);
      M[b] = Lift ? r.lifted.shear(z_last - 1, xb) : r.matrix(z_last - 1, xb);
      sums[b] = Lift ? r.lifted.sum(z_first, xb) : r.sum(z_last - 1, xb);
    }
    long in = place(a, z_last - 1, x + (B - 1) * m), out = place(a, z_last - 1, x);
    const Cx<R> layer = r.t.template phase<R>(group, std::min(1l, a.nz - 1));
    for (long z = z_last - 1;; --z) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        couple_back<R, Lift>(M[b], E_0[b], G[b], adj_E_0[b], adj_G[b], sums[b], &part[b][Lift ? z - z_first : 0]);
        M[b] -= reals;
      }
      if (z == z_first) break;
      // Reverse (5): G <- exp(-i D dz) G
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        D = D + adj_G[b].re * G[b].im - adj_G[b].im * G[b].re;  // detuning(adj_G[b], G[b]), its sum in two steps
        G[b] = conj_mul(layer, G[b]);
        adj_G[b] = conj_mul(layer, adj_G[b]);
      }
      // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
      assign(row_E_0[out], E_0[0]), assign(row_adj_E_0[out], adj_E_0[0]);
      in += m, out += m;
#pragma GCC unroll 4
      for (int b = 0; b + 1 < B; ++b) assign(E_0[b], E_0[b + 1]), assign(adj_E_0[b], adj_E_0[b + 1]);
      assign(E_0[B - 1], row_E_0[in]), assign(adj_E_0[B - 1], row_adj_E_0[in]);
    }
    for (int b = 0; b < B; ++b) {
      const long xb = x + b * m, p = place(a, z_first, xb);
      assign(row_E_0[p], E_0[b]), assign(row_adj_E_0[p], adj_E_0[b]);
      assign(row_G[xb], G[b]), assign(row_adj_G[xb], adj_G[b]);
      if constexpr (Lift) add_lane_parts<T, W>(sums[b], reals, part[b], z_last - z_first);
    }
    if (from > 0) turn_back<R, B>(r, group, x, z_first - layer_before(from), D);
    for (int l = 0; l < lanes<T, R>; ++l) adj_D[l] += lane<T>(D, l);
  }

  // Reverse (5) over a gap: G <- exp(-i D dz) G
  template <class R, int B>
  static void turn_back(Row<T, W>& r, long group, long x, long layers, R& D) {
    Cx<R>*const row_G = r.template fields<R>(r.G), *const row_adj_G = r.template fields<R>(r.adj_G);
    const Cx<R> back = r.t.template phase<R>(group, layers);
    for (long b = 0; b < B; ++b, x += r.a.shift) {
      D = D + T(layers) * detuning(row_adj_G[x], row_G[x]);
      row_G[x] = conj_mul(back, row_G[x]), row_adj_G[x] = conj_mul(back, row_adj_G[x]);
    }
  }

  // Re(conj(adj_G) dG) of a detuning that turns G by exp(-i) per unit: what (5) adds to adj_D per dz.
  template <class R>
  static PENDEL_HD R detuning(Cx<R> adj_G, Cx<R> G) {
    return adj_G.re * G.im - adj_G.im * G.re;
  }

  template <class R>
  static void march(Row<T, W>& r, long group, long from, long to) {
    if (!r.is_lifted) return columns<R, false>(r, group, from, to);
    for (long z = from; z < to; z += TILE) columns<R, true>(r, group, z, std::min(z + TILE, to));
    r.lifted.leave_gauge(from, to, r.template fields<R>(r.E_0), r.template fields<R>(r.G));
  }
  template <class R>
  static void march_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    if (!r.is_lifted) return columns_adj<R, false>(r, group, from, to, adj_D);
    r.lifted.enter_gauge(from, to, r.template fields<R>(r.E_0), r.template fields<R>(r.G),
                         r.template fields<R>(r.adj_E_0), r.template fields<R>(r.adj_G));
    for (long z; to > from; to = z) {
      z = std::max(from, to - TILE);
      columns_adj<R, true>(r, group, z, to, adj_D);
    }
  }

 private:
  enum : long { TILE = 32 };  // layers whose part of an E_0 row stays in the first-level cache

  template <class R, bool Lift>
  static void columns(Row<T, W>& r, long group, long from, long to) {
    const Args& a = r.a;
    constexpr int B = strip_columns<R>(true, Lift);
    for (long c = 0; c < std::min<long>(a.shift, a.nx); ++c) {
      long x = c;
      for (; x + (B - 1) * a.shift < a.nx; x += B * a.shift) strip<R, B, Lift>(r, group, x, from, to);
      for (; x < a.nx; x += a.shift) strip<R, 1, Lift>(r, group, x, from, to);
    }
  }
  template <class R, bool Lift>
  static void columns_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    const Args& a = r.a;
    constexpr int B = strip_columns<R>(false, Lift);
    for (long c = 0; c < std::min<long>(a.shift, a.nx); ++c) {
      const long columns = (a.nx - c + a.shift - 1) / a.shift, whole = columns / B * B;
      for (long i = columns - 1; i >= whole; --i) strip_adj<R, 1, Lift>(r, group, c + i * a.shift, from, to, adj_D);
      for (long i = whole - B; i >= 0; i -= B) strip_adj<R, B, Lift>(r, group, c + i * a.shift, from, to, adj_D);
    }
  }

  // Columns of a strip: what the registers hold. A lifted step is so short that columns are there to fill the time it
  // takes from its first result to its last, though some wait on the stack.
  template <class R>
  static constexpr int strip_columns(bool forward, bool lift) {
    const bool pair = sizeof(R) > sizeof(V);
    if (lift) return forward || !pair ? 4 : 2;
    if (pair) return forward ? 2 : 1;
    return sizeof(V) == 64 ? (forward ? 4 : 3) : forward ? 2 : 1;
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

  static void march(Row<T, W>& r, long group, long from, long to) {
    const Args& a = r.a;
    const RowFft<T, W>& fft = r.t.fft;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    Cx<V>* E_0 = r.E_0.data();
    const long end = to < a.nz ? to : r.z_hi;
    long here = layer_before(from);  // the layer E_0 stands at
    bool spectrum = false;           // E_0 has passed pass A forward
    std::fill(r.at.begin(), r.at.end(), here);
    for (long z = std::max(from, r.z_lo); z < end; ++z) {
      const bool last = z + 1 == end;
      if (r.x_first[z] >= r.x_last[z] && !last) continue;
      if (!spectrum && z > here) fft.template transport<false>(E_0, phases(r, z - here));  // (4)
      if (spectrum) fft.template blocks<false>(E_0, phases(r, z - here));                  // (4)
      here = z;
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
    if (here < to - 1) fft.template transport<false>(E_0, phases(r, to - 1 - here));  // (4)
    for (long x = 0; x < a.nx; ++x) r.G[x] = phase[to - 1 - r.at[x]] * r.G[x];        // (5)
  }

  static void march_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    const Args& a = r.a;
    const RowFft<T, W>& fft = r.t.fft;
    const Cx<V>* phase = &r.t.phase_G[group * a.nz];
    Cx<V>*E_0 = r.E_0.data(), *adj_E_0 = r.adj_E_0.data();
    const long end = from > 0 ? from : r.z_lo, before = layer_before(from);
    long here = to - 1;
    bool spectrum = false;
    std::fill(r.at.begin(), r.at.end(), here);
    for (long z = std::min(to, r.z_hi) - 1; z >= end; --z) {
      const bool last = z == end;
      if (r.x_first[z] >= r.x_last[z] && !last) continue;
      // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
      if (!spectrum && z < here) {
        const std::vector<Cx<T>>& back = phases(r, here - z);
        fft.template transport<true>(E_0, back);
        if (to < a.nz) fft.template transport<true>(adj_E_0, back);  // else it is 0
      }
      if (spectrum) {
        const std::vector<Cx<T>>& back = phases(r, here - z);
        fft.template blocks<true>(E_0, back);
        fft.template blocks<true>(adj_E_0, back);
      }
      here = z;
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
    if (here > before) {
      const std::vector<Cx<T>>& back = phases(r, here - before);
      fft.template transport<true>(E_0, back);
      fft.template transport<true>(adj_E_0, back);
    }
    V D = {};
    for (long x = 0; x < a.nx && from > 0; ++x) {
      // Reverse (5): G <- exp(-i D dz) G
      D += Shift<T, W>::detuning(r.adj_G[x], r.G[x]) * T(r.at[x] - before);
      const Cx<V> back = phase[r.at[x] - before];
      r.G[x] = conj_mul(back, r.G[x]), r.adj_G[x] = conj_mul(back, r.adj_G[x]);
    }
    for (int l = 0; l < W; ++l) adj_D[l] += D[l];
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
