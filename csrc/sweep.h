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
// A march takes layers [from, to), from behind (3) of layer from - 1 (or the entrance) to behind that of layer to - 1.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "couple.h"
#include "fft.h"
#include "lanes.h"
#include "lifted.h"
#include "run.h"
#include "voxel.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, class R>
constexpr int lanes = sizeof(R) / sizeof(T);

inline long layer_before(long from) { return std::max(from - 1, 0l); }  // where a march that begins with `from` begins

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
      : a(args),
        groups((args.frames + W - 1) / W),
        fft(args.transport == Transport::FOURIER ? args.row : long(COLUMN)) {
    exact = {{a.m.re, a.m.im}, {a.w.re, a.w.im}, {a.b.re, a.b.im}, {a.c.re, a.c.im}};
    medium = {cast<T>(exact.m), cast<T>(exact.w), cast<T>(exact.b), cast<T>(exact.c)};
    powers = Powers<T>::of(exact.m);
    phase_G.resize(groups * a.nz);
    ramp_x.resize(groups * a.exit);
    for (long f = 0; f < groups * W; ++f) {
      const double* q = a.dq + 3 * std::min(f, a.frames - 1);
      turns(&phase_G[f / W * a.nz], f % W, -detuning(q) * a.dz, 0, a.nz);
      turns(&ramp_x[f / W * a.exit], f % W, q[0] * a.dx, -origin(), a.exit);
    }
    if (a.scheme == Scheme::ETD2RK)
      fft.etd(a.pixels, etd);
    else if (a.transport == Transport::FOURIER)
      fft.phases(a.pixels, phase_E_0);
  }
  double detuning(const double* q) const { return q[2] - a.tan_h * q[0]; }  // D = k_h.dq / k_hz
  long origin() const { return a.exit - a.nx + a.nx / 2; }                  // where x = 0 in a row of E_h
  double half() const {                                                     // layers of (5) after the last
    return a.orientation == Orientation::SYMMETRIC ? 0 : 0.5;
  }
  // exp(i (dq_y y - D dz / 2)) of each lane: (6) and the last half of (5).
  template <class R>
  Cx<R> exit_phase(long group, long y) const {
    Cx<R> p;
    for (int l = 0; l < lanes<T, R>; ++l) {
      const double* q = a.dq + 3 * std::min(group * W + l, a.frames - 1);
      put(p, l, q[1] * a.dy * (y - a.ny / 2) - half() * detuning(q) * a.dz);
    }
    return p;
  }
  // Entry k of a table, for the pack of a group or for the pair that begins with it.
  template <class R>
  static PENDEL_HD Cx<R> entry(const std::vector<Cx<V>>& table, long length, long group, long k) {
    const Cx<V>* p = &table[group * length + k];
    if constexpr (lanes<T, R> == W)
      return *p;
    else
      return {{p->re, p[length].re}, {p->im, p[length].im}};
  }
  template <class R>
  PENDEL_HD Cx<R> phase(long group, long layers) const {
    return entry<R>(phase_G, a.nz, group, layers);
  }
  template <class R>
  PENDEL_HD Cx<R> ramp(long group, long x) const {
    return entry<R>(ramp_x, a.exit, group, x);
  }
  template <class R>
  static void put(Cx<R>& p, int l, double angle) {
    lane<T>(p.re, l) = T(std::cos(angle));
    lane<T>(p.im, l) = T(std::sin(angle));
  }
  // exp(i angle (first + k)), k = 0 ... count - 1: one sine and cosine for every TURNS of them.
  enum { TURNS = 16 };
  static void turns(Cx<V>* p, int l, double angle, long first, long count) {
    Cx<double> small[TURNS];
    for (int k = 0; k < TURNS; ++k) small[k] = {std::cos(angle * k), std::sin(angle * k)};
    for (long k = 0; k < count; k += TURNS) {
      const Cx<double> large{std::cos(angle * (first + k)), std::sin(angle * (first + k))};
      for (long j = 0; j < std::min<long>(TURNS, count - k); ++j) {
        const Cx<double> e = large * small[j];
        lane<T>(p[k + j].re, l) = T(e.re), lane<T>(p[k + j].im, l) = T(e.im);
      }
    }
  }
};

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
  std::vector<Cx<V>> E_0, G, adj_E_0, adj_G;           // (row), (exit), of pairs where there are any: `fields`
  std::vector<Cx<V>> exit_sums;                        // (exit) conj(adj_G) G at the exit, lanes not summed
  std::vector<Cx<V>> stored;                           // (nx) a field as the forward sweep had it
  Lifted<T, W> lifted;           // transport shift: shears and sums in place of matrices and theirs,
  bool is_lifted = false;        // if this row's voxels allow it
  std::vector<long> at;          // layer at which G of a column stands
  std::vector<Cx<T>> phase_gap;  // (row) several layers of (4)

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
        E_0(a.row * packs()),
        G(a.exit * packs()),
        adj_E_0(adjoint ? a.row * packs() : 0),
        adj_G(adjoint ? a.exit * packs() : 0),
        exit_sums(adjoint && by_columns() ? a.exit : 0),
        stored(adjoint && a.layers ? a.nx * packs() : 0),
        lifted(a, adjoint),
        at(a.exit) {}
  // Pairs pay where the registers hold them (512 bits: 32) and a voxel's step is short.
  int packs() const { return by_columns() && sizeof(V) == 64 && t.groups > 1 ? 2 : 1; }
  template <class R>
  static Cx<R>* fields(std::vector<Cx<V>>& row) {
    return reinterpret_cast<Cx<R>*>(row.data());
  }
  bool by_columns() const {  // one column is marched after another: sweep_k_h.h, sweep_box.h
    return a.transport != Transport::FOURIER && a.orientation == Orientation::K_H;
  }
  const T* S(long z) const { return static_cast<const T*>(a.S) + 2 * (z * a.ny + y) * a.nx; }
  const T* s_0(long z) const { return a.s_0 ? static_cast<const T*>(a.s_0) + (z * a.ny + y) * a.nx : nullptr; }
  const std::uint8_t* support(long z) const { return a.support ? a.support + (z * a.ny + y) * a.nx : nullptr; }
  const T* matrix(long z, long x) const { return matrices + (x * sx + z * sz) * reals; }
  T* sum(long z, long x) { return sums.data() + (x * sx + z * sz) * SUMS; }

  void begin(long y_) {
    y = y_;
    find_spans();
    std::fill(exit_sums.begin(), exit_sums.end(), Cx<V>{V{}, V{}});
    const long margin = by_columns() ? 4 * std::max(a.shift, 1) : 0;  // strips of columns reach beyond the box
    const long first = std::max(0l, x_lo - margin), last = std::min(a.nx, x_hi + margin);
    is_lifted = by_columns() && lifted.begin(*this, first, last);
    if (is_lifted) return;
    if (!matrices) allocate();
    if (reals == MATRIX_AND_INVERSE) std::fill(sums.begin(), sums.end(), T(0));
    over_box(first, last, [&](long z, long x, long count) {
      reals == MATRIX ? make_matrices<MATRIX>(z, x, count) : make_matrices<MATRIX_AND_INVERSE>(z, x, count);
    });
  }

  // Matrices and their sums.
  void allocate() {
    const long voxels = (a.nz | 1) * a.nx;
    matrix_store.resize((voxels * reals + W - 1) / W);
    matrices = reinterpret_cast<T*>(matrix_store.data());
    if (reals == MATRIX_AND_INVERSE) sums.resize(voxels * SUMS);
  }

  // E_0 at the entrance: the incident row, or 1, and what it hands over from column to column (11).
  template <class R>
  void enter() {
    const T* in = static_cast<const T*>(a.incident);
    T* out = reinterpret_cast<T*>(E_0.data());
    const bool hands = a.transport == Transport::BOX;
    for (long p = 0; p < a.row; ++p) {
      const T wave = hands && p >= a.nx ? T(1 - box_coefficient(a.pixels)) : T(1);
      for (int part = 0; part < 2; ++part, out += lanes<T, R>)
        std::fill(out, out + lanes<T, R>, in ? in[2 * (y * a.row + p) + part] : part ? T(0) : wave);
    }
    std::fill(G.begin(), G.end(), Cx<V>{V{}, V{}});
  }

  void add_exit_sum(long x, Cx<V> s) { exit_sums[x] = exit_sums[x] + s; }

  // What the reversed sweep has lost, the worst of all; a NaN stays.
  void note_drift(double now) {
    if (a.drift && !(now <= a.drift[y]) && a.drift[y] == a.drift[y]) a.drift[y] = now;
  }
  static double relative(double lost, double there) { return lost == 0 ? 0 : std::sqrt(lost / there); }
  // |G| / |E_0| over the row where the reversed sweep has ended: 0 but for rounding, which absorption amplifies.
  template <class R>
  double drift() {
    double lost = 0, there = 0;
    for (long x = 0; x < a.exit; ++x) lost += lane_sum<T, W>(norm(fields<R>(G)[x]));
    for (long p = 0; p < a.row; ++p) there += lane_sum<T, W>(norm(fields<R>(E_0)[p]));
    return relative(lost, there);
  }

  // Writes adj_S and adj_s_0 of the row from the sums over all angles (once per voxel).
  void finish_gradient() {
    T* dS = static_cast<T*>(a.adj_S);
    T* ds = static_cast<T*>(a.adj_s_0);
    for (long z = 0; z < a.nz; ++z) {
      const bool inside = z_lo <= z && z < z_hi;
      const long base = (z * a.ny + y) * a.nx, first = inside ? x_lo : a.nx, last = inside ? x_hi : a.nx;
      std::fill(dS + 2 * base, dS + 2 * (base + first), T(0));
      std::fill(dS + 2 * (base + last), dS + 2 * (base + a.nx), T(0));
      if (ds) std::fill(ds + base, ds + base + first, T(0)), std::fill(ds + base + last, ds + base + a.nx, T(0));
    }
    if (a.adj_medium) std::fill(a.adj_medium + 8 * y, a.adj_medium + 8 * (y + 1), 0.0);
    if (is_lifted) return lifted.finish_gradient(*this);
    over_box(x_lo, x_hi, [&](long z, long x, long count) { voxel_gradients(z, x, count); });
  }

  // Loads up to W voxels of a layer and everything voxel() and voxel_adj() need to know of them.
  PENDEL_HD void load(long z, long x, long count, Cx<V>& S_x, V& s_0_x, Cx<V>& omega, Factors<V>& f) const {
    const T *in = S(z) + 2 * x, *g = s_0(z);
    const V zero{};
    S_x = {zero, zero}, s_0_x = zero;
    V pair[2] = {zero, zero};
    copy_values<T, 2 * W>(pair, in, 2 * count);
    unzip<T, W>(pair[0], pair[1], S_x.re, S_x.im);
    if (g) {
      copy_values<T, W>(&s_0_x, g + x, count);
    } else {
      T s[W];
      s_0_x = norm(S_x);
      __builtin_memcpy(s, &s_0_x, sizeof s);
      for (int l = 0; l < W; ++l) s[l] = std::sqrt(s[l]);
      __builtin_memcpy(&s_0_x, s, sizeof s);
    }
    Cx<V> mu, u;
    exponents(t.medium, S_x, s_0_x, mu, omega, u);
    f = factors_series<T>(t.powers, s_0_x, u);
    const auto outside = (norm(u) >= T(Series<T>::u_norm)) | (norm(mu) >= T(Series<T>::mu_norm));
    long long bits[sizeof outside / 8], any = 0;
    __builtin_memcpy(bits, &outside, sizeof bits);
    for (long long b : bits) any |= b;
    if (__builtin_expect(any != 0, 0)) f = exact_lanes(f, mu, u, S_x, s_0_x);
  }

  // adj_S and adj_s_0 of up to W voxels of a layer from their sums over all frames.
  PENDEL_HD void write_gradient(long z, long x, long count, Cx<V> S_x, V s_0_x, Cx<V> omega, const Factors<V>& f,
                                const VoxelSums<V>& X) {
    Cx<V> adj_S;
    V adj_s_0;
    if (a.scheme == Scheme::ETD2RK)
      potential_adj(t.medium, X, adj_S, adj_s_0);
    else
      voxel_adj(t.medium, S_x, omega, f, X, adj_S, adj_s_0);
    if (a.adj_medium) add_medium_adj(count, S_x, s_0_x, omega, f, X);
    const V zero{};
    // Reverse: s_0 = |S| where s_0 was not given
    if (!a.s_0) {
      const V tied = s_0_x != zero ? adj_s_0 / s_0_x : zero;
      adj_S = adj_S + Cx<V>{tied * S_x.re, tied * S_x.im};
    }
    if (const std::uint8_t* wanted = support(z)) {
      typename IndexOf<T>::type keep[W];
      for (int l = 0; l < W; ++l) keep[l] = l < count && wanted[x + l] ? -1 : 0;
      Indices<T, W> mask;
      __builtin_memcpy(&mask, keep, sizeof mask);
      adj_S = {mask ? adj_S.re : zero, mask ? adj_S.im : zero};
      adj_s_0 = mask ? adj_s_0 : zero;
    }
    const long base = (z * a.ny + y) * a.nx + x;
    const V pair[2] = {zip<T, W, 0>(adj_S.re, adj_S.im), zip<T, W, 1>(adj_S.re, adj_S.im)};
    copy_values<T, 2 * W>(static_cast<T*>(a.adj_S) + 2 * base, pair, 2 * count);
    if (a.adj_s_0) copy_values<T, W>(static_cast<T*>(a.adj_s_0) + base, &adj_s_0, count);
  }

 private:
  // Adds up to W voxels of a layer to the row's share of adj_medium.
  void add_medium_adj(long count, Cx<V> S_x, V s_0_x, Cx<V> omega, const Factors<V>& f, const VoxelSums<V>& X) {
    const MediumAdj<V> d = a.scheme == Scheme::ETD2RK ? potential_medium_adj(S_x, s_0_x, X)
                                                      : medium_adj(t.medium, S_x, s_0_x, omega, f, X);
    V parts[8] = {d.m.re, -d.m.im, d.w.re, -d.w.im, d.b.re, -d.b.im, d.c.re, -d.c.im};
    for (int i = 0; i < 8; ++i)
      for (long l = 0; l < count; ++l) a.adj_medium[8 * y + i] += lane<T>(parts[i], l);
  }

  void find_spans() {
    std::fill(x_first.begin(), x_first.end(), a.nx), std::fill(x_last.begin(), x_last.end(), 0);
    std::fill(z_first.begin(), z_first.end(), a.nz), std::fill(z_last.begin(), z_last.end(), 0);
    const bool all = reals == MATRIX_AND_INVERSE && !a.support;
    for (long z = 0; z < a.nz; ++z) {
      const T *f = S(z), *g = s_0(z);
      const std::uint8_t* wanted = reals == MATRIX_AND_INVERSE ? support(z) : nullptr;
      const auto vacuum = [&](long x) {
        return !(all || f[2 * x] != 0 || f[2 * x + 1] != 0 || (g && g[x] != 0) || (wanted && wanted[x]));
      };
      long first = 0, last = a.nx;
      while (first < last && vacuum(first)) ++first;
      while (first < last && vacuum(last - 1)) --last;
      if (first == last) continue;
      x_first[z] = first, x_last[z] = last;
      for (long x = first; x < last; ++x) z_first[x] = std::min(z_first[x], z), z_last[x] = z + 1;
    }
    x_lo = *std::min_element(x_first.begin(), x_first.end()), x_hi = *std::max_element(x_last.begin(), x_last.end());
    z_lo = *std::min_element(z_first.begin(), z_first.end()), z_hi = *std::max_element(z_last.begin(), z_last.end());
  }

  // The closed formulas in the lanes that are out of the series' range.
  __attribute__((noinline)) Factors<V> exact_lanes(Factors<V> f, Cx<V> mu, Cx<V> u, Cx<V> S_x, V s_0_x) const {
    for (int l = 0; l < W; ++l) {
      if (in_series_range(Cx<T>{mu.re[l], mu.im[l]}, Cx<T>{u.re[l], u.im[l]})) continue;
      Cx<double> mu_l, omega_l, u_l;
      exponents(t.exact, Cx<double>{S_x.re[l], S_x.im[l]}, double(s_0_x[l]), mu_l, omega_l, u_l);
      const Factors<double> e = factors_exact(mu_l, u_l);
      set(f.exp_1, l, e.exp_1), set(f.inverse_exp_1, l, e.inverse_exp_1);
      set(f.ch_1, l, e.ch_1), set(f.shc, l, e.shc), set(f.q, l, e.q);
    }
    return f;
  }
  static void set(Cx<V>& f, int l, Cx<double> e) {
    lane<T>(f.re, l) = T(e.re);
    lane<T>(f.im, l) = T(e.im);
  }

  // Packs of voxels of the box in the order of matrices and sums: strips of columns from the last back, or layers.
  template <class Work>
  void over_box(long first, long last, Work work) {
    if (by_columns()) {
      for (long x = first + (last - first - 1) / W * W; x >= first && first < last; x -= W)
        for (long z = z_hi - 1; z >= z_lo; --z) work(z, x, std::min<long>(W, last - x));
    } else {
      for (long z = z_lo; z < z_hi; ++z)
        for (long x = first; x < last; x += W) work(z, x, std::min<long>(W, last - x));
    }
  }

  template <int Reals>
  void make_matrices(long z, long x, long count) {
    Cx<V> S_x, omega;
    V s_0_x;
    Factors<V> f;
    Matrix<V> M[2];
    load(z, x, count, S_x, s_0_x, omega, f);
    if (a.scheme == Scheme::ETD2RK)
      M[0] = M[1] = potential(t.medium, S_x, s_0_x);
    else
      voxel(t.medium, S_x, omega, f, M[0], M[1]);
    store<Reals>(M, z, x, count);
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
    Cx<V> S_x, omega;
    V s_0_x, X[SUMS];
    Factors<V> f;
    load(z, x, count, S_x, s_0_x, omega, f);
    if (count == W && sx == 1) {
      __builtin_memcpy(X, sum(z, x), sizeof X);
    } else {
      T rows[W * SUMS];
      if (count < W) std::fill(rows, rows + W * SUMS, T(0));
      for (long l = 0; l < count; ++l) __builtin_memcpy(rows + l * SUMS, sum(z, x + l), SUMS * sizeof(T));
      __builtin_memcpy(X, rows, sizeof X);
    }
    transpose_back<T, W, SUMS>(X);
    write_gradient(z, x, count, S_x, s_0_x, omega, f,
                   VoxelSums<V>{{X[0], X[1]}, {X[2], X[3]}, {X[4], X[5]}, {X[6], X[7]}});
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
