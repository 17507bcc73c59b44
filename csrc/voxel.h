// One voxel of the Takagi-Taupin coupling: its 2x2 matrix, the matrix's inverse, and the closed-form gradient.
//
//   (1) mu = m s_0,  omega = w s_0,  N = [[omega, b conj(S)], [c S, -omega]],  u = omega^2 + b c |S|^2
//   (2) M = exp(dz V) = e^mu (cosh(x) I + sinh(x)/x N),  x^2 = u
//
// with the per-layer constants (dimensionless) m = i dz (K_0 + K_H) chi_0 / 2, w = i dz (K_0 - K_H) chi_0 / 2,
// b = i dz K_0 C chi_hbar, c = i dz K_H C chi_h, K = k / (2 cosine of the wave's angle to z). cosh(x) and sinh(x)/x are
// entire functions of u: a short series where it reaches full precision, the exact formula elsewhere; no branch of the
// square root is ever chosen. Nothing here depends on the rocking angle. Diagonals are kept as M - 1, so that a voxel
// that hardly scatters loses no digits. Assumes Im chi_0 >= 0 absorbs, fields exp(+ik.r).
#pragma once
#include <cmath>

#include "portable.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T>
struct Medium {
  Cx<T> m, w, b, c;
};

template <class R>
struct Matrix {
  Cx<R> d00, m01, m10, d11;  // M = [[1 + d00, m01], [m10, 1 + d11]]
};

// e^mu - 1, e^-mu - 1, cosh(x) - 1, sinh(x)/x, and q = d(sinh(x)/x)/du = (cosh(x) - sinh(x)/x) / (2u).
template <class R>
struct Factors {
  Cx<R> exp_1, inverse_exp_1, ch_1, shc, q;
};

// Where the series below are exact to the last bit of T: |u| < 0.1 and |mu| < 0.25 (squares compared).
template <class T>
struct Series {
  static constexpr int u_terms = sizeof(T) == 4 ? 4 : 7, mu_terms = sizeof(T) == 4 ? 7 : 13;
  static constexpr double u_norm = 0.01, mu_norm = 0.0625;
};

// Coefficients m^k / k! of exp(m s_0) as a polynomial in the real s_0.
template <class T>
struct Powers {
  Cx<T> over_factorial[Series<T>::mu_terms + 1];
  static PENDEL_HD Powers of(Cx<double> m) {
    Powers p;
    Cx<double> term{1, 0};
    for (int k = 1; k <= Series<T>::mu_terms; ++k) {
      term = scale(term * m, 1.0 / k);
      p.over_factorial[k] = cast<T>(term);
    }
    return p;
  }
};

struct Inverse {
  double factorial[2 * Series<double>::u_terms + 4];  // 1 / n!
  constexpr Inverse() : factorial{1} {
    for (int n = 1; n < int(sizeof factorial / sizeof *factorial); ++n) factorial[n] = factorial[n - 1] / n;
  }
};

// One step of Horner's rule, c + u f.
template <class T, class R>
PENDEL_HD Cx<R> horner(T c, Cx<R> u, Cx<R> f) {
  return {c + u.re * f.re - u.im * f.im, u.re * f.im + u.im * f.re};
}

template <class T, class R>
PENDEL_HD Factors<R> factors_series(const Powers<T>& powers, R s_0, Cx<R> u) {
  constexpr int n = Series<T>::u_terms, last = Series<T>::mu_terms;
  constexpr Inverse inverse;
  const R zero = s_0 - s_0;
  const Cx<T> highest = powers.over_factorial[last];
  Factors<R> f;
  f.exp_1 = f.inverse_exp_1 = {zero + highest.re, zero + highest.im};
#pragma GCC unroll 16
  for (int k = last - 1; k >= 1; --k) {
    const Cx<T> c = powers.over_factorial[k];
    f.exp_1 = {c.re + s_0 * f.exp_1.re, c.im + s_0 * f.exp_1.im};
    f.inverse_exp_1 = {c.re - s_0 * f.inverse_exp_1.re, c.im - s_0 * f.inverse_exp_1.im};
  }
  f.exp_1 = {s_0 * f.exp_1.re, s_0 * f.exp_1.im};
  f.inverse_exp_1 = {-s_0 * f.inverse_exp_1.re, -s_0 * f.inverse_exp_1.im};

  // (cosh(x) - 1) / u, sinh(x)/x, q: the two highest powers first
  const auto begin = [&](double c, double higher) { return Cx<R>{T(c) + T(higher) * u.re, T(higher) * u.im}; };
  f.ch_1 = begin(inverse.factorial[2 * n - 2], inverse.factorial[2 * n]);
  f.shc = begin(inverse.factorial[2 * n - 1], inverse.factorial[2 * n + 1]);
  f.q = begin(n * inverse.factorial[2 * n + 1], (n + 1) * inverse.factorial[2 * n + 3]);
#pragma GCC unroll 16
  for (int k = n - 2; k >= 0; --k) {
    if (k < n - 2) f.ch_1 = horner(T(inverse.factorial[2 * k + 2]), u, f.ch_1);
    f.shc = horner(T(inverse.factorial[2 * k + 1]), u, f.shc);
    f.q = horner(T((k + 1) * inverse.factorial[2 * k + 3]), u, f.q);
  }
  f.ch_1 = u * f.ch_1;
  return f;
}

template <class T>
PENDEL_HD bool in_series_range(Cx<T> mu, Cx<T> u) {
  return norm(u) < T(Series<T>::u_norm) && norm(mu) < T(Series<T>::mu_norm);
}

PENDEL_HD Cx<double> exp_minus_1(Cx<double> z) {
  const double s = std::sin(0.5 * z.im), e = std::expm1(z.re);
  return {e * std::cos(z.im) - 2 * s * s, (e + 1) * std::sin(z.im)};
}

// The closed formulas, any size of mu and u (the difference in q cancels only where the series is used instead).
PENDEL_NOINLINE Factors<double> factors_exact(Cx<double> mu, Cx<double> u) {
  Factors<double> f = factors_series<double>(Powers<double>::of(mu), 1.0, u);
  if (in_series_range(mu, u)) return f;
  f.exp_1 = exp_minus_1(mu);
  f.inverse_exp_1 = exp_minus_1({-mu.re, -mu.im});
  if (norm(u) < Series<double>::u_norm) return f;
  const double r = std::hypot(u.re, u.im), a = std::sqrt(0.5 * (r + std::fabs(u.re))), b = 0.5 * u.im / a;
  const Cx<double> x = u.re >= 0 ? Cx<double>{a, b} : Cx<double>{std::fabs(b), u.im >= 0 ? a : -a};
  const Cx<double> ch{std::cosh(x.re) * std::cos(x.im), std::sinh(x.re) * std::sin(x.im)};
  const Cx<double> sh{std::sinh(x.re) * std::cos(x.im), std::cosh(x.re) * std::sin(x.im)};
  f.ch_1 = {ch.re - 1, ch.im};
  f.shc = scale(conj_mul(x, sh), 1 / norm(x));
  f.q = scale(conj_mul(u, ch - f.shc), 0.5 / norm(u));
  return f;
}

template <class T, class R>
PENDEL_HD void exponents(const Medium<T>& v, Cx<R> S, R s_0, Cx<R>& mu, Cx<R>& omega, Cx<R>& u) {
  mu = {v.m.re * s_0, v.m.im * s_0};
  omega = {v.w.re * s_0, v.w.im * s_0};
  const Cx<T> bc = v.b * v.c;
  const R a = norm(S);
  u = omega * omega + Cx<R>{bc.re * a, bc.im * a};
}

// M of equation (2), and its exact inverse e^-mu (cosh(x) I - sinh(x)/x N).
template <class T, class R>
PENDEL_HD void voxel(const Medium<T>& v, Cx<R> S, Cx<R> omega, const Factors<R>& f, Matrix<R>& M, Matrix<R>& inverse) {
  const R zero = S.re - S.re, one = zero + T(1);
  const Cx<R> unit{one, zero}, e = unit + f.exp_1, ie = unit + f.inverse_exp_1, sw = f.shc * omega;
  const Cx<R> m01 = f.shc * v.b * conj(S), m10 = f.shc * v.c * S;
  M = {f.exp_1 + e * (f.ch_1 + sw), e * m01, e * m10, f.exp_1 + e * (f.ch_1 - sw)};
  const Cx<R> minus = scale(ie, T(-1));
  inverse = {f.inverse_exp_1 + ie * (f.ch_1 - sw), minus * m01, minus * m10, f.inverse_exp_1 + ie * (f.ch_1 + sw)};
}

// The four sums over angles X_ij = sum conj(adj_i) E_j (adj after the voxel, E before it): dL = Re sum_ij X_ij dM_ij.
template <class R>
struct VoxelSums {
  Cx<R> X00, X0h, Xh0, Xhh;
};

// dL = Re(adj_u du + adj_mu dmu + adj_N sum_ij X_ij dN_ij): coefficients, the conjugates of the convention's adjoints.
template <class R>
struct ExponentialAdj {
  Cx<R> adj_u, adj_mu, adj_N;
};

template <class T, class R>
PENDEL_HD ExponentialAdj<R> exponential_adj(const Medium<T>& v, Cx<R> S, Cx<R> omega, const Factors<R>& f,  // forward
                                            const VoxelSums<R>& X) {
  const R zero = S.re - S.re, one = zero + T(1);
  const Cx<R> unit{one, zero}, e = unit + f.exp_1, ch = unit + f.ch_1, trace = X.X00 + X.Xhh;
  const Cx<R> through_N = omega * (X.X00 - X.Xhh) + v.b * conj(S) * X.X0h + v.c * S * X.Xh0;
  // Reverse (2): M = e^mu (cosh(x) I + sinh(x)/x N);  dcosh/du = sinh(x)/(2x),  d(sinh(x)/x)/du = q
  return {e * (scale(f.shc * trace, T(0.5)) + f.q * through_N), e * (ch * trace + f.shc * through_N), e * f.shc};
}

// Gradient of (2) with respect to S and s_0.
template <class T, class R>
PENDEL_HD void voxel_adj(const Medium<T>& v, Cx<R> S, Cx<R> omega, const Factors<R>& f,  // forward
                         const VoxelSums<R>& X,                                          // sums over angles
                         Cx<R>& adj_S, R& adj_s_0) {                                     // gradient, overwritten
  const ExponentialAdj<R> d = exponential_adj(v, S, omega, f, X);
  // Reverse (1): mu = m s_0,  omega = w s_0,  N = [[omega, b conj(S)], [c S, -omega]],  u = omega^2 + b c |S|^2
  const Cx<R> adj_bc = v.b * v.c * d.adj_u;
  const Cx<R> Z = adj_bc * conj(S) + d.adj_N * (v.c * X.Xh0) + conj(adj_bc * S + d.adj_N * (v.b * X.X0h));
  adj_S = conj(Z);
  adj_s_0 = (v.m * d.adj_mu + v.w * (scale(omega * d.adj_u, T(2)) + d.adj_N * (X.X00 - X.Xhh))).re;
}

// A voxel's share of the gradient of m, w, b, c: coefficients, dL = Re(adj_m dm + ...).
template <class R>
struct MediumAdj {
  Cx<R> m, w, b, c;
};

template <class T, class R>
PENDEL_HD MediumAdj<R> medium_adj(const Medium<T>& v, Cx<R> S, R s_0, Cx<R> omega, const Factors<R>& f,  // forward
                                  const VoxelSums<R>& X) {                                               // sums
  const ExponentialAdj<R> d = exponential_adj(v, S, omega, f, X);
  // Reverse (1), the coefficients in place of S and s_0
  const Cx<R> adj_bc = scale(d.adj_u, norm(S));
  return {scale(d.adj_mu, s_0), scale(scale(omega * d.adj_u, T(2)) + d.adj_N * (X.X00 - X.Xhh), s_0),
          v.c * adj_bc + d.adj_N * (conj(S) * X.X0h), v.b * adj_bc + d.adj_N * (S * X.Xh0)};
}

// The generator itself, what etd2rk works with:
//
//   (7) dz V = [[(m + w) s_0, b conj(S)], [c S, (m - w) s_0]]
template <class T, class R>
PENDEL_HD Matrix<R> potential(const Medium<T>& v, Cx<R> S, R s_0) {
  const Cx<T> sum = v.m + v.w, difference = v.m - v.w;
  return {{sum.re * s_0, sum.im * s_0}, v.b * conj(S), v.c * S, {difference.re * s_0, difference.im * s_0}};
}

template <class T, class R>
PENDEL_HD void potential_adj(const Medium<T>& v, const VoxelSums<R>& X,  // forward, sums over angles
                             Cx<R>& adj_S, R& adj_s_0) {                 // gradient, overwritten
  // Reverse (7): dz V = [[(m + w) s_0, b conj(S)], [c S, (m - w) s_0]]
  adj_S = conj(v.c * X.Xh0 + conj(v.b * X.X0h));
  adj_s_0 = ((v.m + v.w) * X.X00 + (v.m - v.w) * X.Xhh).re;
}
template <class R>
PENDEL_HD MediumAdj<R> potential_medium_adj(Cx<R> S, R s_0, const VoxelSums<R>& X) {
  // Reverse (7), the coefficients in place of S and s_0
  return {scale(X.X00 + X.Xhh, s_0), scale(X.X00 - X.Xhh, s_0), conj(S) * X.X0h, S * X.Xh0};
}

}  // namespace PENDEL_ISA
}  // namespace pendel
