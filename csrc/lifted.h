// The lifted coupling's tables of one y row (couple.h): shears and gauges before the marches, the gradient behind them.
// Gauges begin anew with every segment of layers (`resync`), so that a march begins and ends with E_0 and G themselves.
#pragma once
#include <algorithm>
#include <vector>

#include "lanes.h"
#include "run.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Row;

template <class T, int W>
struct Lifted {
  typedef Pack<T, W> V;
  typedef Pack<double, W> Exact;

  // The march takes a row where all of it is within these bounds, squared: of |m| of (L1); of |alpha|,
  // |beta| and of |alpha / beta|, from both sides.
  static constexpr double least_m = 1.0 / 16, most_m = 1e4, most_gauge = 1e16;

  const Args& a;
  const bool adjoint, paths;  // paths: E_0 keeps its values along them, and has a gauge
  const long segments;
  std::vector<V> store;                     // aligned storage of shears
  T *shears = nullptr, *sums = nullptr;     // (x, z) a' b'; A B
  T *growths = nullptr, *thirds = nullptr;  // without paths, (x, z) e_0 - 1, 1 / e_0 - 1; C and two zeros
  std::vector<V> sum_store;                 // aligned storage of sums
  std::vector<Cx<T>> alpha, beta;           // (segments, row), (segments, nx) at the end of a segment
  std::vector<T> ratio[2];                  // (nz, nx) beta / alpha in front of a voxel, re and im
  std::vector<T> restart;                   // (segments - 1, nx, LIFTED) P and Q behind a segment
  std::vector<double> running[4];           // alpha (row) and beta (nx) at the layer, re and im
  std::vector<T> carried[4];                // P (row) and Q (nx) at the layer, re and im

  Lifted(const Args& args, bool adjoint_)
      : a(args),
        adjoint(adjoint_),
        paths(args.transport == Transport::SHIFT),
        segments((args.nz + args.resync - 1) / args.resync) {}

  // Tables go down the layers by COLUMNS columns, so that both a march down a column and a layer's packs find lines of
  // the cache whole; an odd number of layers spreads a layer over the cache.
  enum : long { COLUMNS = 4, STEP = COLUMNS * LIFTED };       // STEP: reals from layer to layer
  static constexpr int RUN = W < COLUMNS ? W : int(COLUMNS);  // voxels of a pack that follow each other in memory
  long depth() const { return a.nz | 1; }
  long at(long z, long x) const { return ((x / COLUMNS * depth() + z) * COLUMNS + x % COLUMNS) * LIFTED; }
  const T* shear(long z, long x) const { return shears + at(z, x); }
  const T* growth(long z, long x) const { return growths + at(z, x); }
  T* sum(long z, long x) { return sums + at(z, x); }
  T* third(long z, long x) { return thirds + at(z, x); }
  T* restart_at(long z, long x) { return restart.data() + (z / a.resync * a.nx + x) * LIFTED; }
  long place(long z, long x) const { return x + a.shift * (a.nz - 1 - z); }

  void allocate() {
    const long values = (a.nx + W + COLUMNS - 1) / COLUMNS * depth() * STEP / W, tables = paths ? 1 : 2;
    store.resize(tables * values), shears = reinterpret_cast<T*>(store.data());
    if (!paths) growths = shears + values * W;
    alpha.resize(segments * a.row), beta.resize(segments * a.nx);
    for (int part = 0; part < 4; ++part) running[part].resize((part < 2 ? a.row : a.nx) + W);
    if (!adjoint) return;
    sum_store.resize(tables * values), sums = reinterpret_cast<T*>(sum_store.data());
    if (!paths) thirds = sums + values * W;
    for (std::vector<T>& part : ratio) part.resize(a.nz * a.nx + W);
    restart.resize((segments - 1) * a.nx * LIFTED);
    for (int part = 0; part < 4; ++part) carried[part].resize((part < 2 ? a.row : a.nx) + W);
  }

  // Shears and gauges of the row; false where it has to be marched with the matrices themselves. Columns [first, last).
  bool begin(const Row<T, W>& r, long first, long last) {
    if (!shears) allocate();
    for (long s = 0; s < segments; ++s) {
      const long from = s * a.resync, to = std::min(from + a.resync, a.nz);
      for (int part = 0; part < 4; ++part) std::fill(running[part].begin(), running[part].end(), part % 2 ? 0.0 : 1.0);
      for (long z = std::max(from, r.z_lo); z < std::min(to, r.z_hi); ++z)
        for (long x = first / COLUMNS * COLUMNS; x < last; x += W)
          if (!make(r, z, x, std::min<long>(W, last - x))) return false;
      if (!keep(running, a.row, &alpha[s * a.row]) || !keep(running + 2, a.nx, &beta[s * a.nx])) return false;
    }
    if (adjoint) {
      std::fill(sum_store.begin(), sum_store.end(), V{});
      std::fill(restart.begin(), restart.end(), T(0));
    }
    return true;
  }

  // Fields at the end of a segment, layers [from, to): into its gauge (back) and out of it. What its layers reach.
  template <class R>
  void leave_gauge(long from, long to, Cx<R>* E_0, Cx<R>* G) const {
    const Cx<T>*of_E_0 = &alpha[from / a.resync * a.row], *of_G = &beta[from / a.resync * a.nx];
    for (long p = place(to - 1, 0); p < place(from, a.nx) && paths; ++p) E_0[p] = of_E_0[p] * E_0[p];
    for (long x = 0; x < a.nx; ++x) G[x] = of_G[x] * G[x];
  }
  template <class R>
  void enter_gauge(long from, long to, Cx<R>* E_0, Cx<R>* G, Cx<R>* adj_E_0, Cx<R>* adj_G) const {
    const Cx<T>*of_E_0 = &alpha[from / a.resync * a.row], *of_G = &beta[from / a.resync * a.nx];
    const auto enter = [](Cx<T> gauge, Cx<R>& field, Cx<R>& adj) {
      field = conj_mul(scale(gauge, 1 / norm(gauge)), field);
      // Reverse (L2): E_0 = alpha E,  G = beta H
      adj = conj_mul(gauge, adj);
    };
    for (long p = place(to - 1, 0); p < place(from, a.nx) && paths; ++p) enter(of_E_0[p], E_0[p], adj_E_0[p]);
    for (long x = 0; x < a.nx; ++x) enter(of_G[x], G[x], adj_G[x]);
  }

  // Writes adj_S and adj_s_0 of the row's box from the sums over all frames.
  void finish_gradient(Row<T, W>& r) {
    for (int part = 0; part < 4; ++part) std::fill(carried[part].begin(), carried[part].end(), T(0));
    for (long x = 0; x < a.nx; ++x) {
      carried[2][x] = lane_sum<T, W>(r.exit_sums[x].re);
      carried[3][x] = lane_sum<T, W>(r.exit_sums[x].im);
    }
    for (long z = a.nz - 1; z >= r.z_lo; --z) {
      if (z + 1 < a.nz && (z + 1) % a.resync == 0) take_restart(z);
      for (long x = r.x_lo / COLUMNS * COLUMNS; x < r.x_hi && z < r.z_hi; x += W)
        gradient(r, z, x, std::min<long>(W, r.x_hi - x));
    }
  }

 private:
  // Gauges at the end of a segment; false if one is out of bounds.
  static bool keep(const std::vector<double>* parts, long count, Cx<T>* gauges) {
    bool good = true;
    for (long i = 0; i < count; ++i) {
      gauges[i] = {T(parts[0][i]), T(parts[1][i])};
      const T size = norm(gauges[i]);
      good &= size > T(1 / most_gauge) && size < T(most_gauge);
    }
    return good;
  }
  static Exact exact(V v) { return __builtin_convertvector(v, Exact); }
  static V rounded(Exact v) { return __builtin_convertvector(v, V); }
  static Cx<Exact> load_exact(const std::vector<double>* parts, long at) {
    Cx<Exact> v;
    __builtin_memcpy(&v.re, &parts[0][at], sizeof v.re), __builtin_memcpy(&v.im, &parts[1][at], sizeof v.im);
    return v;
  }
  static void store_exact(std::vector<double>* parts, long at, Cx<Exact> v) {
    __builtin_memcpy(&parts[0][at], &v.re, sizeof v.re), __builtin_memcpy(&parts[1][at], &v.im, sizeof v.im);
  }
  // (1 + c) (1 + d) - 1, and v times 1 more than that
  static Cx<V> both(Cx<V> c, Cx<V> d) { return c + (d + c * d); }
  static Cx<Exact> times(Cx<Exact> v, Cx<V> growth) { return v * Cx<Exact>{1.0 + exact(growth.re), exact(growth.im)}; }

  // The reals of voxel l in packs that hold one voxel after another.
  static T* entries(V* packs, long l) { return reinterpret_cast<T*>(packs) + l * LIFTED; }

  // (L1) to (L3) for up to W voxels of a layer.
  bool make(const Row<T, W>& r, long z, long x, long count) {
    Cx<V> S, omega;
    V s_0;
    Factors<V> f;
    r.load(z, x, count, S, s_0, omega, f);
    const Cx<Exact> along = load_exact(running, place(z, x)), down = load_exact(running + 2, x);
    const Cx<V> in_E{rounded(along.re), rounded(along.im)}, in_H{rounded(down.re), rounded(down.im)};
    const V size_E = norm(in_E), size_H = norm(in_H);
    V over_sizes;
    const Shears<V> s = lift<T>(r.t.medium, S, omega, f, size_E * size_H, over_sizes);
    const V pivot = norm(Cx<V>{T(1) + s.m_1.re, s.m_1.im});
    const auto good = (pivot > T(least_m)) & (pivot < T(most_m)) & (size_E < T(most_gauge) * size_H) &
                      (size_H < T(most_gauge) * size_E) & (size_E < T(most_gauge)) & (size_H < T(most_gauge)) &
                      (size_E > T(1 / most_gauge)) & (size_H > T(1 / most_gauge));
    if (!all(good)) return false;

    const Cx<V> to_E = scale(conj_mul(in_E, in_H), over_sizes * size_H);
    const Cx<V> to_H = scale(conj_mul(in_H, in_E), over_sizes * size_E);
    put(shears, z, x, s.a * to_E, s.b * to_H);
    const Cx<V> of_E = both(f.exp_1, s.m_1);
    if (paths)
      store_exact(running, place(z, x), times(along, of_E));
    else
      put(growths, z, x, of_E, both(f.inverse_exp_1, s.over_1));
    if (adjoint) store_parts(ratio, z * a.nx + x, to_E);  // what is beyond `count` is overwritten by the next layer

    store_exact(running + 2, x, times(down, both(f.exp_1, s.over_1)));
    return true;
  }
  // Two complex numbers of up to W voxels to a table.
  void put(T* table, long z, long x, Cx<V> first, Cx<V> second) const {
    V reals[LIFTED] = {first.re, first.im, second.re, second.im};
    transpose<T, W, LIFTED>(reals);
    for (int l = 0; l < W; l += RUN)
      __builtin_memcpy(table + at(z, x + l), entries(reals, l), RUN * LIFTED * sizeof(T));
  }
  void take(const T* table, long z, long x, V (&reals)[LIFTED]) const {
    for (int l = 0; l < W; l += RUN)
      __builtin_memcpy(entries(reals, l), table + at(z, x + l), RUN * LIFTED * sizeof(T));
    transpose_back<T, W, LIFTED>(reals);
  }
  template <class Mask>
  static bool all(Mask good) {
    long long bits[sizeof good / 8], every = -1;
    __builtin_memcpy(bits, &good, sizeof bits);
    for (long long b : bits) every &= b;
    return every == -1;
  }

  // Where fields were taken up again P and Q of the layer are known without what lies behind.
  void take_restart(long z) {
    for (long x = 0; x < a.nx; ++x) {
      const T* now = restart_at(z, x);
      carried[0][place(z, x)] = now[0], carried[1][place(z, x)] = now[1];
      carried[2][x] = now[2], carried[3][x] = now[3];
    }
  }
  static Cx<V> load_parts(const std::vector<T>* parts, long at) {
    Cx<V> v;
    __builtin_memcpy(&v.re, &parts[0][at], sizeof(V)), __builtin_memcpy(&v.im, &parts[1][at], sizeof(V));
    return v;
  }
  static void store_parts(std::vector<T>* parts, long at, Cx<V> v) {
    __builtin_memcpy(&parts[0][at], &v.re, sizeof(V)), __builtin_memcpy(&parts[1][at], &v.im, sizeof(V));
  }

  void gradient(Row<T, W>& r, long z, long x, long count) {
    Cx<V> S, omega;
    V s_0;
    Factors<V> f;
    r.load(z, x, count, S, s_0, omega, f);

    V v[LIFTED], third[LIFTED];
    take(sums, z, x, v);
    if (!paths) take(thirds, z, x, third);
    // into the gauge alpha = beta = 1: a' = a beta / alpha, b' = b alpha / beta
    Cx<V> to_E{T(1) + V{}, V{}};
    copy_values<T, W>(&to_E.re, &ratio[0][z * a.nx + x], count),
        copy_values<T, W>(&to_E.im, &ratio[1][z * a.nx + x], count);
    V over_size;
    const Shears<V> s = lift<T>(r.t.medium, S, omega, f, norm(to_E), over_size);
    const Cx<V> A = Cx<V>{v[0], v[1]} * to_E, B = scale(conj_mul(to_E, Cx<V>{v[2], v[3]}), over_size);

    const Cx<V> P = paths ? load_parts(carried, place(z, x)) : Cx<V>{third[0], third[1]};
    const Cx<V> Q = load_parts(carried + 2, x), flow = flow_of(s, A, B);
    VoxelSums<V> X;
    lift_adj<T>(r.t.medium, S, omega, f, s, A, B, P, Q, X);
    if (paths) store_parts(carried, place(z, x), P - flow);
    store_parts(carried + 2, x, Q + flow);
    r.write_gradient(z, x, count, S, s_0, omega, f, X);
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
