// The paper's scheme (exponential Heun on its Eq. 3, coupling sign put right), and its adjoint. Transport fourier.
//
// With L the transport of E_0 (E_h has none: k_h || z) and the detuning as explicit phases P_k of node k in V,
// P_k = exp(-i D (z_k - z_last)), G = P_k H, so that H needs neither transport nor phase:
//
//   (8)  g_1 = V_n u,  A = exp(L) u + phi_1(L) g_1
//   (9)  g_2 = V_{n+1} A,  u <- A + phi_2(L) (g_2 - g_1)
//
// Nodes are the voxel centres and one vacuum node at either end. The first step therefore starts at A = (incident, 0),
// and the last has g_2 = 0; E_0 is brought back to the plane of the last voxel centres. E_0 is kept as its spectrum U.
// The step cannot be inverted: the adjoint keeps every `stride`-th state and repeats the steps between.
#pragma once
#include <cmath>

#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Etd2rk {
  typedef Pack<T, W> V;
  typedef std::vector<Cx<V>> Field;
  struct State {
    Field U, H;  // (row) spectrum of E_0, (nx)
  };

  Row<T, W>& r;
  const Args& a;
  const RowFft<T, W>& fft;
  const Cx<V>* phase;
  const std::vector<Cx<T>>*table, &propagate, &phi_1, &phi_2;
  State u;                                    // at node n
  Field e, g_1, g_h, A, A_H, e_A, g_2, g_2h;  // (8), (9): rows in space or spectra as the steps say

  Etd2rk(Row<T, W>& row, long group)
      : r(row),
        a(row.a),
        fft(row.t.fft),
        phase(&row.t.phase_G[group * row.a.nz]),
        table(row.t.etd),
        propagate(table[0]),
        phi_1(table[1]),
        phi_2(table[2]),
        u{Field(a.row), Field(a.nx)},
        e(a.row),
        g_1(a.row),
        g_h(a.nx),
        A(a.row),
        A_H(a.nx),
        e_A(a.row),
        g_2(a.row),
        g_2h(a.nx) {}

  static void march(Row<T, W>& r, long group) {
    Etd2rk s(r, group);
    s.enter();
    for (long n = 0; n + 1 < s.a.nz; ++n) s.step(n);
    s.leave();
    r.E_0 = s.e;
    r.G = s.u.H;  // P of the last node is 1
  }

  static void march_adj(Row<T, W>& r, long group, double* adj_D) {
    const Args& a = r.a;
    const long stride = std::max(1l, std::lround(std::sqrt(double(a.nz))));
    std::vector<State> kept, segment;
    Etd2rk s(r, group);
    r.template enter<V>();
    s.enter();
    for (long n = 0; n < a.nz; ++n) {
      if (n % stride == 0) kept.push_back(s.u);
      if (n + 1 < a.nz) s.step(n);
    }
    Field adj_U(a.row, Cx<V>{V{}, V{}}), adj_H = r.adj_G;
    s.leave_adj(adj_U, adj_H, adj_D);
    for (long first = (a.nz - 1) / stride * stride; first >= 0; first -= stride) {
      s.u = kept[first / stride];
      segment.clear();
      for (long n = first; n < std::min(first + stride, a.nz - 1); ++n) {
        segment.push_back(s.u);
        s.step(n);
      }
      for (long n = first + long(segment.size()) - 1; n >= first; --n) {
        s.u = segment[n - first];
        s.step_adj(n, adj_U, adj_H, adj_D);
      }
    }
    s.enter_adj(adj_U, adj_H, adj_D);
    r.adj_E_0 = s.e;
  }

 private:
  static void times(Field& f, const std::vector<Cx<T>>& by) {
    for (std::size_t p = 0; p < f.size(); ++p) f[p] = f[p] * by[p];
  }
  void to_space(const Field& spectrum, Field& row) {
    row = spectrum;
    fft.to_row(row.data());
    for (auto& v : row) v = scale(v, T(1.0 / a.row));
  }

  // V of node n on a row in space; vacuum outside the voxels that matter.
  void generator(long n, const Field& E, const Field& H, Field& out, Field& out_H) {
    const Cx<V> zero{V{}, V{}}, P = conj(phase[a.nz - 1 - n]);
    std::fill(out.begin(), out.end(), zero), std::fill(out_H.begin(), out_H.end(), zero);
    for (long x = r.x_first[n]; x < r.x_last[n]; ++x) {
      Cx<V> h;
      multiply(r.matrix(n, x), E[x], P * H[x], out[x], h);
      out_H[x] = conj_mul(P, h);
    }
  }
  // Adds V^H (adj_out, adj_out_H) to adj_E (space) and adj_H, and the node's share of the gradient.
  void generator_adj(long n, const Field& E, const Field& H, const Field& adj_out, const Field& adj_out_H,  //
                     Field& adj_E, Field& adj_H, double* adj_D) {
    const Cx<V> P = conj(phase[a.nz - 1 - n]);
    V D = {};
    for (long x = r.x_first[n]; x < r.x_last[n]; ++x) {
      // Reverse: out_H = conj(P) h,  (out, h) = V (E, P H)
      const Cx<V> G = P * H[x], adj_h = P * adj_out_H[x];
      Cx<V> h, out, adj_E_x, adj_G;
      multiply(r.matrix(n, x), E[x], G, out, h);
      multiply_adj(r.matrix(n, x), adj_out[x], adj_h, adj_E_x, adj_G);
      const Cx<V> X00 = conj_mul(adj_out[x], E[x]), X0h = conj_mul(adj_out[x], G);
      const Cx<V> Xh0 = conj_mul(adj_h, E[x]), Xhh = conj_mul(adj_h, G);
      const V X[SUMS] = {X00.re, X00.im, X0h.re, X0h.im, Xh0.re, Xh0.im, Xhh.re, Xhh.im};
      add_lane_sums<T, W>(r.sum(n, x), X);
      // Reverse: P = exp(i D dz (nz - 1 - n)), on both sides
      D += (adj_h.re * h.im - adj_h.im * h.re) - (adj_G.re * G.im - adj_G.im * G.re);
      adj_E[x] = adj_E[x] + adj_E_x;
      adj_H[x] = adj_H[x] + conj_mul(P, adj_G);
    }
    for (int l = 0; l < W; ++l) adj_D[l] += double(D[l]) * (a.nz - 1 - n);
  }

  // (9) from A = (incident, 0) at node 0; r.enter() has set r.E_0.
  void enter() {
    fft.to_spectrum(r.E_0.data(), u.U.data());
    generator(0, r.E_0, r.G, g_2, A_H);
    spectrum_in_place(g_2);
    for (long p = 0; p < a.row; ++p) u.U[p] = u.U[p] + phi_2[p] * g_2[p];
    for (long x = 0; x < a.nx; ++x) u.H[x] = scale(A_H[x], T(0.5));
  }
  void enter_adj(const Field& adj_U, Field& adj_H, double* adj_D) {
    // Reverse (9): u <- A + phi_2 g_2,  g_2 = V A
    for (long p = 0; p < a.row; ++p) g_2[p] = conj_mul(phi_2[p], adj_U[p]);
    to_space(g_2, g_1);
    to_space(adj_U, e);
    for (long x = 0; x < a.nx; ++x) A_H[x] = Cx<V>{V{}, V{}}, g_h[x] = scale(adj_H[x], T(0.5));
    r.template enter<V>();
    generator_adj(0, r.E_0, r.G, g_1, g_h, e, A_H, adj_D);
  }

  // g_1, A and e_A of (8) from u; g_1 and A as spectra, e and e_A in space.
  void stage(long n) {
    to_space(u.U, e);
    generator(n, e, u.H, g_1, g_h);
    spectrum_in_place(g_1);
    for (long p = 0; p < a.row; ++p) A[p] = propagate[p] * u.U[p] + phi_1[p] * g_1[p];
    for (long x = 0; x < a.nx; ++x) A_H[x] = u.H[x] + g_h[x];
    to_space(A, e_A);
  }
  void step(long n) {
    stage(n);
    generator(n + 1, e_A, A_H, g_2, g_2h);
    spectrum_in_place(g_2);
    for (long p = 0; p < a.row; ++p) u.U[p] = A[p] + phi_2[p] * (g_2[p] - g_1[p]);
    for (long x = 0; x < a.nx; ++x) u.H[x] = A_H[x] + scale(g_2h[x] - g_h[x], T(0.5));
  }
  void step_adj(long n, Field& adj_U, Field& adj_H, double* adj_D) {
    stage(n);
    // Reverse (9): u <- A + phi_2 (g_2 - g_1),  g_2 = V_{n+1} A
    Field adj_g(a.row), adj_gh(a.nx), adj_A(a.row, Cx<V>{V{}, V{}}), adj_AH = adj_H;
    Field back(a.row);
    for (long p = 0; p < a.row; ++p) back[p] = conj_mul(phi_2[p], adj_U[p]);
    to_space(back, adj_g);
    for (long x = 0; x < a.nx; ++x) adj_gh[x] = scale(adj_H[x], T(0.5));
    generator_adj(n + 1, e_A, A_H, adj_g, adj_gh, adj_A, adj_AH, adj_D);
    spectrum_in_place(adj_A);
    for (long p = 0; p < a.row; ++p) adj_A[p] = adj_A[p] + adj_U[p];
    // Reverse (8): A = exp(L) u + phi_1 g_1,  g_1 = V_n u
    for (long p = 0; p < a.row; ++p) back[p] = conj_mul(phi_1[p], adj_A[p]) - back[p];
    to_space(back, adj_g);
    for (long x = 0; x < a.nx; ++x) adj_gh[x] = adj_AH[x] - adj_gh[x];
    Field adj_e(a.row, Cx<V>{V{}, V{}});
    adj_H = adj_AH;
    generator_adj(n, e, u.H, adj_g, adj_gh, adj_e, adj_H, adj_D);
    spectrum_in_place(adj_e);
    for (long p = 0; p < a.row; ++p) adj_U[p] = conj_mul(propagate[p], adj_A[p]) + adj_e[p];
  }

  // The step from the last node into vacuum, E_0 (in e) brought back by exp(-L).
  void leave() {
    stage(a.nz - 1);
    for (long p = 0; p < a.row; ++p) A[p] = u.U[p] + conj_mul(propagate[p], (phi_1[p] - phi_2[p]) * g_1[p]);
    to_space(A, e);
    for (long x = 0; x < a.nx; ++x) u.H[x] = u.H[x] + scale(g_h[x], T(0.5));
  }
  void leave_adj(Field& adj_U, Field& adj_H, double* adj_D) {
    stage(a.nz - 1);
    // Reverse: H <- H + g_h / 2 (nothing asks for a gradient through E_0 at the exit)
    Field adj_gh(a.nx), none(a.row, Cx<V>{V{}, V{}}), adj_e = none;
    for (long x = 0; x < a.nx; ++x) adj_gh[x] = scale(adj_H[x], T(0.5));
    generator_adj(a.nz - 1, e, u.H, none, adj_gh, adj_e, adj_H, adj_D);
    fft.to_spectrum(adj_e.data(), adj_U.data());
  }

  void spectrum_in_place(Field& f) { fft.to_spectrum(f.data(), f.data()); }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
