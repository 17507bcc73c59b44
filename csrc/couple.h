// One point-step of the sweep: the voxel's matrix applied to the two waves of every rocking angle in a pack, and the
// same step taken back together with its adjoint.
//
//   (3) (E_0, G) <- M (E_0, G),  M = [[1 + d00, m01], [m10, 1 + d11]]
#pragma once
#include "portable.h"

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
// The same with the sums X0h Xh0 Xhh of fields and adjoints before the step, for a sweep that has no need of X00.
template <class T, class V>
PENDEL_HD void couple_adj_before(const T* M, Cx<V>& E_0, Cx<V>& G,              // fields after -> before
                                 Cx<V>& adj_E_0, Cx<V>& adj_G, V (&X)[SUMS]) {  // adjoints after -> before; sums
  // Reverse (3): (E_0, G) <- M (E_0, G), state first
  apply(M + MATRIX, E_0, G);
  apply_adj(M, adj_E_0, adj_G);
  const Cx<V> X0h = conj_mul(adj_E_0, G), Xh0 = conj_mul(adj_G, E_0), Xhh = conj_mul(adj_G, G);
  X[0] = X0h.re, X[1] = X0h.im, X[2] = Xh0.re, X[3] = Xh0.im, X[4] = Xhh.re, X[5] = Xhh.im;
  X[6] = X[7] = V{};
}

}  // namespace PENDEL_ISA
}  // namespace pendel
