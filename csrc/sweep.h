// What every sweep shares: tables made once per call, and the work space of one y row.
//
// Rows of constant y never couple. A worker takes a row, builds its voxel matrices once, and marches packs of W rocking
// angles through it; lanes of a pack never talk to each other until the gradient sums. Layer z of the sweep is
//
//   (3) (E_0, G) <- M (E_0, G)                                        couple.h
//   (4) E_0(x) <- E_0(x - dz tan 2theta)                              between layers, fft.h or a whole-pixel shift
//   (5) G <- exp(-i D dz) G,  D = dq_z                                between layers, half of it after the last
//   (6) E_h = exp(i (dq_x x + dq_y y)) G                              at the exit
//
// with z along k_h; with z along k_0 + k_h both waves move (sweep_symmetric.h).
// Vacuum (S = s_0 = 0) is skipped: there (3) is the identity, and the phases (5) of a gap are taken at once.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "couple.h"
#include "fft.h"
#include "run.h"
#include "voxel.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Tables {
  typedef Pack<T, W> V;
  const Args& a;
  long groups;
  Medium<T> medium;
  Medium<double> exact;
  Powers<T> powers;
  std::vector<Cx<V>> phase_G;  // (groups, nz) exp(-i D dz k)
  std::vector<Cx<V>> ramp_x;   // (groups, exit) exp(i dq_x x)
  RowFft<T, W> fft;
  std::vector<Cx<T>> phase_E_0;  // (row) one layer of (4)
  std::vector<Cx<T>> etd[3];     // (row) exp(L), phi_1(L), phi_2(L) of sweep_etd2rk.h

  explicit Tables(const Args& args)
      : a(args), groups((args.frames + W - 1) / W), fft(args.shift ? long(COLUMN) : args.row) {
    exact = {{a.m.re, a.m.im}, {a.w.re, a.w.im}, {a.b.re, a.b.im}, {a.c.re, a.c.im}};
    medium = {cast<T>(exact.m), cast<T>(exact.w), cast<T>(exact.b), cast<T>(exact.c)};
    powers = Powers<T>::of(exact.m);
    phase_G.resize(groups * a.nz);
    ramp_x.resize(groups * a.exit);
    for (long f = 0; f < groups * W; ++f) {
      const double* q = a.dq + 3 * std::min(f, a.frames - 1);
      for (long k = 0; k < a.nz; ++k) put(phase_G[f / W * a.nz + k], f % W, -detuning(q) * a.dz * k);
      for (long x = 0; x < a.exit; ++x) put(ramp_x[f / W * a.exit + x], f % W, q[0] * a.dx * (x - origin()));
    }
    if (a.scheme == ETD2RK)
      fft.etd(a.pixels, etd);
    else if (!a.shift)
      fft.phases(a.pixels, phase_E_0);
  }
  double detuning(const double* q) const { return q[2] - a.tan_h * q[0]; }  // D = k_h.dq / k_hz
  long origin() const { return a.exit - a.nx + a.nx / 2; }                  // where x = 0 in a row of E_h
  double half() const { return a.tan_h > 0 ? 0 : 0.5; }                     // layers of (5) after the last
  // exp(i (dq_y y - D dz / 2)) of each lane: (6) and the last half of (5).
  Cx<V> exit_phase(long group, long y) const {
    Cx<V> p;
    for (int l = 0; l < W; ++l) {
      const double* q = a.dq + 3 * std::min(group * W + l, a.frames - 1);
      put(p, l, q[1] * a.dy * (y - a.ny / 2) - half() * detuning(q) * a.dz);
    }
    return p;
  }
  static void put(Cx<V>& p, int l, double angle) {
    lane<T>(p.re, l) = T(std::cos(angle));
    lane<T>(p.im, l) = T(std::sin(angle));
  }
};

// Copies lanes to and from frames: array is (frames, ny, length) complex, the row y of frames group * W ... In pieces
// that stay in the first-level cache while every lane passes over them.
enum { PIECE = 64 };
template <class T, int W>
void store_frames(void* array, const Args& a, long group, long y, long length, const Cx<Pack<T, W>>* row) {
  for (long first = 0; first < length; first += PIECE)
    for (int l = 0; l < W && group * W + l < a.frames; ++l) {
      T* out = static_cast<T*>(array) + 2 * ((group * W + l) * a.ny + y) * length;
      const T* in = reinterpret_cast<const T*>(row) + l;
      for (long x = first; x < std::min(first + PIECE, length); ++x)
        out[2 * x] = in[2 * W * x], out[2 * x + 1] = in[2 * W * x + W];
    }
}
template <class T, int W>
void load_frames(const void* array, const Args& a, long group, long y, long length, Cx<Pack<T, W>>* row) {
  for (long first = 0; first < length; first += PIECE)
    for (int l = 0; l < W; ++l) {
      T* out = reinterpret_cast<T*>(row) + l;
      const bool present = group * W + l < a.frames;
      const T* in = static_cast<const T*>(array) + (present ? 2 * ((group * W + l) * a.ny + y) * length : 0);
      for (long x = first; x < std::min(first + PIECE, length); ++x) {
        out[2 * W * x] = present ? in[2 * x] : T(0);
        out[2 * W * x + W] = present ? in[2 * x + 1] : T(0);
      }
    }
}

// One y row: which voxels matter, their matrices, the fields of the current pack, the gradient sums.
template <class T, int W>
struct Row {
  typedef Pack<T, W> V;
  const Tables<T, W>& t;
  const Args& a;
  const int reals;    // per voxel: MATRIX, or MATRIX_AND_INVERSE for the adjoint
  const long sx, sz;  // voxel (z, x) is number x sx + z sz of the row (an odd sx spreads a layer over the cache)
  long y = 0;
  long x_lo, x_hi, z_lo, z_hi;                         // the box of voxels that matter; empty: x_lo >= x_hi
  std::vector<long> x_first, x_last, z_first, z_last;  // per layer, per column: [first, last)
  std::vector<Pack<T, W>> matrix_store;                // aligned storage of matrices
  T* matrices = nullptr;                               // (voxel, reals)
  std::vector<T> sums;                                 // (voxel, SUMS)
  std::vector<Cx<V>> E_0, G, adj_E_0, adj_G;           // (row), (exit)
  std::vector<long> at;                                // layer at which G of a column stands
  std::vector<Cx<T>> phase_gap;                        // (row) several layers of (4)

  Row(const Tables<T, W>& tables, bool adjoint)
      : t(tables),
        a(tables.a),
        reals(adjoint ? MATRIX_AND_INVERSE : MATRIX),
        sx(by_columns() ? a.nz | 1 : 1),
        sz(by_columns() ? 1 : a.nx),
        x_first(a.nz),
        x_last(a.nz),
        z_first(a.nx),
        z_last(a.nx),
        matrix_store(((a.nz | 1) * a.nx * reals + W - 1) / W),
        sums(adjoint ? (a.nz | 1) * a.nx * SUMS : 0),
        E_0(a.row),
        G(a.exit),
        adj_E_0(adjoint ? a.row : 0),
        adj_G(adjoint ? a.exit : 0),
        at(a.exit) {
    matrices = reinterpret_cast<T*>(matrix_store.data());
  }
  bool by_columns() const { return a.shift && a.tan_h == 0; }  // sweep_k_h.h
  const T* S(long z) const { return static_cast<const T*>(a.S) + 2 * (z * a.ny + y) * a.nx; }
  const T* s_0(long z) const { return a.s_0 ? static_cast<const T*>(a.s_0) + (z * a.ny + y) * a.nx : nullptr; }
  const std::uint8_t* support(long z) const { return a.support ? a.support + (z * a.ny + y) * a.nx : nullptr; }
  const T* matrix(long z, long x) const { return matrices + (x * sx + z * sz) * reals; }
  T* sum(long z, long x) { return sums.data() + (x * sx + z * sz) * SUMS; }

  void begin(long y_) {
    y = y_;
    find_spans();
    if (reals == MATRIX_AND_INVERSE) std::fill(sums.begin(), sums.end(), T(0));
    const long margin = by_columns() ? 4 * a.shift : 0;  // strips of columns reach beyond the box (sweep_k_h.h)
    const long first = std::max(0l, x_lo - margin), last = std::min(a.nx, x_hi + margin);
    for (long z = z_lo; z < z_hi; ++z)
      for (long x = first; x < last; x += W) make_matrices(z, x, std::min<long>(W, last - x));
  }

  // E_0 at the entrance: the incident row, or 1.
  void enter() {
    const T* in = static_cast<const T*>(a.incident);
    const V zero{};
    for (long p = 0; p < a.row; ++p)
      E_0[p] = {zero + (in ? in[2 * (y * a.row + p)] : T(1)), zero + (in ? in[2 * (y * a.row + p) + 1] : T(0))};
    std::fill(G.begin(), G.end(), Cx<V>{zero, zero});
  }

  // |G| / |E_0| over the row where the reversed sweep has ended: 0 but for rounding, which absorption amplifies.
  double drift() const {
    double lost = 0, there = 0;
    for (const Cx<V>& g : G) lost += lane_sum<T, W>(norm(g));
    for (const Cx<V>& e : E_0) there += lane_sum<T, W>(norm(e));
    return std::sqrt(lost / there);
  }

  // Writes adj_S and adj_s_0 of the row from the sums over all angles (once per voxel).
  void finish_gradient() {
    T* dS = static_cast<T*>(a.adj_S);
    T* ds = static_cast<T*>(a.adj_s_0);
    for (long z = 0; z < a.nz; ++z) {
      const long base = (z * a.ny + y) * a.nx;
      std::fill(dS + 2 * base, dS + 2 * (base + a.nx), T(0));
      if (ds) std::fill(ds + base, ds + base + a.nx, T(0));
      for (long x = x_first[z]; x < x_last[z]; x += W) voxel_gradients(z, x, std::min<long>(W, x_last[z] - x));
    }
  }

 private:
  void find_spans() {
    std::fill(x_first.begin(), x_first.end(), a.nx), std::fill(x_last.begin(), x_last.end(), 0);
    std::fill(z_first.begin(), z_first.end(), a.nz), std::fill(z_last.begin(), z_last.end(), 0);
    const bool all = reals == MATRIX_AND_INVERSE && !a.support;
    for (long z = 0; z < a.nz; ++z) {
      const T *f = S(z), *g = s_0(z);
      const std::uint8_t* wanted = reals == MATRIX_AND_INVERSE ? support(z) : nullptr;
      for (long x = 0; x < a.nx; ++x) {
        if (!(all || f[2 * x] != 0 || f[2 * x + 1] != 0 || (g && g[x] != 0) || (wanted && wanted[x]))) continue;
        x_first[z] = std::min(x_first[z], x), x_last[z] = x + 1;
        z_first[x] = std::min(z_first[x], z), z_last[x] = z + 1;
      }
    }
    x_lo = *std::min_element(x_first.begin(), x_first.end()), x_hi = *std::max_element(x_last.begin(), x_last.end());
    z_lo = *std::min_element(z_first.begin(), z_first.end()), z_hi = *std::max_element(z_last.begin(), z_last.end());
  }

  // Loads up to W voxels of a layer and everything voxel() and voxel_adj() need to know of them.
  PENDEL_HD void load(long z, long x, long count, Cx<V>& S_x, V& s_0_x, Cx<V>& omega, Factors<V>& f) const {
    const T *in = S(z) + 2 * x, *g = s_0(z);
    const V zero{};
    S_x = {zero, zero}, s_0_x = zero;
    V pair[2] = {zero, zero};
    __builtin_memcpy(pair, in, 2 * count * sizeof(T));
    unzip<T, W>(pair[0], pair[1], S_x.re, S_x.im);
    if (g) {
      __builtin_memcpy(&s_0_x, g + x, count * sizeof(T));
    } else {
      const V s = norm(S_x);
      for (int l = 0; l < W; ++l) s_0_x[l] = std::sqrt(s[l]);
    }
    Cx<V> mu, u;
    exponents(t.medium, S_x, s_0_x, mu, omega, u);
    f = factors_series<T>(t.powers, s_0_x, u);
    const auto outside = (norm(u) >= T(Series<T>::u_norm)) | (norm(mu) >= T(Series<T>::mu_norm));
    bool any = false;
    for (int l = 0; l < W; ++l) any |= outside[l] != 0;
    for (int l = 0; any && l < W; ++l) {
      if (in_series_range(Cx<T>{mu.re[l], mu.im[l]}, Cx<T>{u.re[l], u.im[l]})) continue;
      Cx<double> mu_l, omega_l, u_l;
      exponents(t.exact, Cx<double>{S_x.re[l], S_x.im[l]}, double(s_0_x[l]), mu_l, omega_l, u_l);
      const Factors<double> e = factors_exact(mu_l, u_l);
      set(f.exp_1, l, e.exp_1), set(f.inverse_exp_1, l, e.inverse_exp_1);
      set(f.ch_1, l, e.ch_1), set(f.shc, l, e.shc), set(f.q, l, e.q);
    }
  }
  static void set(Cx<V>& f, int l, Cx<double> e) {
    lane<T>(f.re, l) = T(e.re);
    lane<T>(f.im, l) = T(e.im);
  }

  void make_matrices(long z, long x, long count) {
    Cx<V> S_x, omega;
    V s_0_x;
    Factors<V> f;
    Matrix<V> M[2];
    load(z, x, count, S_x, s_0_x, omega, f);
    if (a.scheme == ETD2RK)
      M[0] = M[1] = potential(t.medium, S_x, s_0_x);
    else
      voxel(t.medium, S_x, omega, f, M[0], M[1]);
    reals == MATRIX ? store<MATRIX>(M, z, x, count) : store<MATRIX_AND_INVERSE>(M, z, x, count);
  }
  template <int Reals>
  void store(const Matrix<V>* M, long z, long x, long count) {
    V v[Reals];
    __builtin_memcpy(v, M, sizeof v);
    transpose<T, W, Reals>(v);
    const T* in = reinterpret_cast<const T*>(v);
    T* out = matrices + (x * sx + z * sz) * Reals;
    for (long l = 0; l < count; ++l) __builtin_memcpy(out + l * sx * Reals, in + l * Reals, Reals * sizeof(T));
  }

  void voxel_gradients(long z, long x, long count) {
    Cx<V> S_x, omega, adj_S;
    V s_0_x, adj_s_0, X[SUMS] = {};
    Factors<V> f;
    load(z, x, count, S_x, s_0_x, omega, f);
    for (long l = 0; l < count; ++l) {
      const T* in = sum(z, x + l);
      for (int c = 0; c < SUMS; ++c) lane<T>(X[c], l) = in[c];
    }
    const Cx<V> X00{X[0], X[1]}, X0h{X[2], X[3]}, Xh0{X[4], X[5]}, Xhh{X[6], X[7]};
    if (a.scheme == ETD2RK)
      potential_adj(t.medium, X00, X0h, Xh0, Xhh, adj_S, adj_s_0);
    else
      voxel_adj(t.medium, S_x, omega, f, X00, X0h, Xh0, Xhh, adj_S, adj_s_0);
    const std::uint8_t* wanted = support(z);
    const long base = (z * a.ny + y) * a.nx + x;
    T *dS = static_cast<T*>(a.adj_S) + 2 * base, *ds = static_cast<T*>(a.adj_s_0);
    for (long l = 0; l < count; ++l) {
      if (wanted && !wanted[x + l]) continue;
      // Reverse: s_0 = |S| where s_0 was not given
      const T s = s_0_x[l], tied = a.s_0 || s == 0 ? T(0) : adj_s_0[l] / s;
      dS[2 * l] = adj_S.re[l] + tied * S_x.re[l];
      dS[2 * l + 1] = adj_S.im[l] + tied * S_x.im[l];
      if (ds) ds[base + l] = adj_s_0[l];
    }
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
