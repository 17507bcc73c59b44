// One point-step of the sweep: the voxel's matrix applied to the two waves of every rocking angle in a pack, and the
// same step taken back together with its adjoint.
//
//   (3) (E_0, G) <- M (E_0, G),  M = [[1 + d00, m01], [m10, 1 + d11]]
//
// And lifted, where E_0 moves by whole pixels: M as two shears, its diagonal in gauges that no frame sees.
//
//   (L1) M = diag(e_0, e_h) [[1, 0], [b, 1]] [[1, a], [0, 1]],
//        e_0 = m00,  a = m01 / m00,  e_h = det M / m00,  b = m10 / e_h
//   (L2) E_0 = alpha E,  G = beta H:  alpha the product of e_0 along the path of E_0, beta that of e_h down the column
//   (L3) E <- E + a' H,  H <- H + b' E,  a' = a beta / alpha,  b' = b alpha / beta
//
// Half of the multiplications, the inverse is the same two numbers with the other sign, and all that a voxel's gradient
// needs of the frames is two sums. Where E_0 spreads as it moves (sweep_box.h) it has no path and no gauge: alpha = 1,
// e_0 stays with the voxel, and there are three sums. Tables of a row: lifted.h.
#pragma once
#include "voxel.h"

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

// The conjugate transpose of the same matrix.
template <class T, class V>
PENDEL_HD void apply_adj(const T* M, Cx<V>& adj_E_0, Cx<V>& adj_G) {
  const Cx<T> d00{M[0], M[1]}, m01{M[2], M[3]}, m10{M[4], M[5]}, d11{M[6], M[7]};
  const Cx<V> a = adj_E_0, g = adj_G;
  adj_E_0 = {a.re + d00.re * a.re + d00.im * a.im + m10.re * g.re + m10.im * g.im,
             a.im + d00.re * a.im - d00.im * a.re + m10.re * g.im - m10.im * g.re};
  adj_G = {g.re + m01.re * a.re + m01.im * a.im + d11.re * g.re + d11.im * g.im,
           g.im + m01.re * a.im - m01.im * a.re + d11.re * g.im - d11.im * g.re};
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
  apply_adj(M, adj_E_0, adj_G);
}
// ---- lifted

enum { LIFTED = 4 };  // reals per voxel: a', b'; and of its sums A, B

// One point-step (3) in the gauge of (L2), a pack of E and H.
template <class T, class V>
PENDEL_HD void couple_lifted(const T* voxel, Cx<V>& E, Cx<V>& H) {
  const Cx<T> a{voxel[0], voxel[1]}, b{voxel[2], voxel[3]};
  E = {E.re + a.re * H.re - a.im * H.im, E.im + a.re * H.im + a.im * H.re};
  H = {H.re + b.re * E.re - b.im * E.im, H.im + b.re * E.im + b.im * E.re};
}

// conj(adj) field, and for a pair of packs the sum of both.
template <class V>
PENDEL_HD Cx<V> product(Cx<V> adj, Cx<V> field) {
  return conj_mul(adj, field);
}
template <class V>
PENDEL_HD Cx<V> product(Cx<Pair<V>> adj, Cx<Pair<V>> field) {
  return {adj.re.a * field.re.a + adj.im.a * field.im.a + adj.re.b * field.re.b + adj.im.b * field.im.b,
          adj.re.a * field.im.a - adj.im.a * field.re.a + adj.re.b * field.im.b - adj.im.b * field.re.b};
}

template <class V>
PENDEL_HD Cx<V> over_packs(Cx<V> v) {
  return v;
}
template <class V>
PENDEL_HD Cx<V> over_packs(Cx<Pair<V>> v) {
  return {v.re.a + v.re.b, v.im.a + v.im.b};
}

// The same step taken back with its adjoint; A and B are overwritten by the products of the pack, or of both packs.
template <class T, class V, class Sum>
PENDEL_HD void couple_lifted_adj(const T* voxel, Cx<V>& E, Cx<V>& H,  // fields after -> before
                                 Cx<V>& adj_E, Cx<V>& adj_H,          // adjoints after -> before
                                 Cx<Sum>& A, Cx<Sum>& B) {            // dL = Re(A da' + B db')
  const Cx<T> a{voxel[0], voxel[1]}, b{voxel[2], voxel[3]};
  // Reverse (L3): H <- H + b' E, state first
  B = product(adj_H, E);
  H = {H.re - b.re * E.re + b.im * E.im, H.im - b.re * E.im - b.im * E.re};
  adj_E = {adj_E.re + b.re * adj_H.re + b.im * adj_H.im, adj_E.im + b.re * adj_H.im - b.im * adj_H.re};
  // Reverse (L3): E <- E + a' H
  A = product(adj_E, H);
  E = {E.re - a.re * H.re + a.im * H.im, E.im - a.re * H.im - a.im * H.re};
  adj_H = {adj_H.re + a.re * adj_E.re + a.im * adj_E.im, adj_H.im + a.re * adj_E.im - a.im * adj_E.re};
}

// E <- (1 + c) E, behind (L3) where E has no gauge; and with its adjoint back, before those, given 1 / (1 + c) - 1.
// C is overwritten: dL = Re(C d log(1 + c)).
template <class T, class V>
PENDEL_HD Cx<V> grown(const T* c, Cx<V> E) {
  return {E.re + c[0] * E.re - c[1] * E.im, E.im + c[0] * E.im + c[1] * E.re};
}
template <class T, class V, class Sum>
PENDEL_HD void grow_adj(const T* c, Cx<V>& E, Cx<V>& adj_E, Cx<Sum>& C) {
  C = product(adj_E, E);
  E = grown(c + 2, E);
  adj_E = {adj_E.re + c[0] * adj_E.re + c[1] * adj_E.im, adj_E.im + c[0] * adj_E.im - c[1] * adj_E.re};
}

// (L1) with e^mu taken out: e_0 = e^mu m, e_h = e^mu / m. As everywhere, what is near 1 is kept less 1.
template <class R>
struct Shears {
  Cx<R> a, b, m_1, over_1;  // over_1 = 1 / m - 1
};

// One division for 1 / m and, beside it, the reciprocal of a real number.
template <class T, class R>
PENDEL_HD Shears<R> lift(const Medium<T>& v, Cx<R> S, Cx<R> omega, const Factors<R>& f, R number, R& over_number) {
  const R zero = S.re - S.re, one = zero + T(1);
  const Cx<R> unit{one, zero}, m_1 = f.ch_1 + f.shc * omega, m = unit + m_1;
  const R size = norm(m), over_both = T(-1) / (size * number);
  over_number = -(over_both * size);
  const Cx<R> over_1 = scale(conj_mul(m, m_1), over_both * number);
  return {(unit + over_1) * (f.shc * v.b * conj(S)), m * (f.shc * v.c * S), m_1, over_1};
}

// What a voxel sends on along the path of E_0 and up the column, with A and B in the gauge alpha = beta = 1.
template <class R>
PENDEL_HD Cx<R> flow_of(const Shears<R>& s, Cx<R> A, Cx<R> B) {
  return A * s.a - B * s.b;
}

// The sums X_ij of voxel_adj from two: A and B in the gauge alpha = beta = 1, and what the voxels behind have sent,
//
//   (L5) P = - sum of A a - B b behind on the path of E_0,
//        Q = sum over frames of conj(adj_G) G at the exit + sum of A a - B b behind in the column,
//
// the coefficients of d log e_0 and d log e_h.
template <class T, class R>
PENDEL_HD void lift_adj(const Medium<T>& v, Cx<R> S, Cx<R> omega, const Factors<R>& f, const Shears<R>& s,  // forward
                        Cx<R> A, Cx<R> B, Cx<R> P, Cx<R> Q,                                                 // adjoint
                        VoxelSums<R>& X) {  // overwritten
  const R zero = S.re - S.re, one = zero + T(1);
  const Cx<R> unit{one, zero}, m = unit + s.m_1, over = unit + s.over_1, ie = unit + f.inverse_exp_1;
  // Reverse (L1): log e_0 = log m00, log e_h = log det M - log m00, a = m01 / m00, b = m10 m00 / det M
  const Cx<R> R_det = Q - B * s.b, rest = P - A * s.a - R_det;
  X.X00 = ie * (over * rest + R_det * (unit + f.ch_1 - f.shc * omega));
  X.X0h = ie * (over * A - R_det * (f.shc * v.c * S));
  X.Xh0 = ie * (m * B - R_det * (f.shc * v.b * conj(S)));
  X.Xhh = ie * (R_det * m);
}

}  // namespace PENDEL_ISA
}  // namespace pendel
