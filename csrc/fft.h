// Fourier transport of E_0 along x: a row FFT whose lanes are rocking angles, so that no lane ever talks to another.
//
//   (4) E_0 <- F^-1 [ exp(-2 pi i q t dz) F [E_0] ],   q in cycles per length, numpy's frequency order
//
// N = 16 n, n = 2^a 3^b 5^c. A row index is p = i + n j (j < 16). Pass A is a radix-16 DFT over j for each column i;
// what is left are 16 contiguous DFTs of length n, done block by block in the first-level cache: forward, phase,
// inverse. The spectrum stays in digit-reversed order; nothing is ever reordered. Sweeps fuse pass A with the coupling,
// because both touch a column at a time.
#pragma once
#include <cmath>
#include <vector>

#include "portable.h"

namespace pendel {
namespace PENDEL_ISA {

enum { COLUMN = 16 };

template <int Sign, class V>  // times -i (forward, Sign = -1) or +i
PENDEL_HD Cx<V> turn(Cx<V> a) {
  if constexpr (Sign < 0) return {a.im, -a.re};
  return {-a.im, a.re};
}

// cos and sin of 2 pi e / R as compile-time constants (Taylor series about 0 of an angle below pi / 4, doubled thrice).
template <int R>
struct Root {
  struct Table {
    double v[R];
    PENDEL_HD constexpr double operator[](int e) const { return v[e]; }
  };
  static constexpr Table make(bool cosine) {
    Table t{};
    for (int e = 0; e < R; ++e) {
      const long double a = 6.283185307179586476925286766559L * e / R / 8;
      long double c = 1, s = 0, term = 1;
      for (int k = 1; k < 24; ++k) {
        term *= a / k;
        if (k % 2)
          s += k % 4 == 1 ? term : -term;
        else
          c += k % 4 == 0 ? term : -term;
      }
      for (int k = 0; k < 3; ++k) {
        const long double c2 = c * c - s * s;
        s = 2 * s * c, c = c2;
      }
      t.v[e] = double(cosine ? c : s);
    }
    return t;
  }
};

// In-place DFT of R values, exp(Sign 2 pi i k n / R), natural order in and out.
template <class T, int R, int Sign, class V>
PENDEL_HD void dft(Cx<V> (&x)[R]) {
  if constexpr (R == 2) {
    const Cx<V> a = x[0];
    x[0] = a + x[1], x[1] = a - x[1];
  } else if constexpr (R == 3) {
    const Cx<V> s = x[1] + x[2], d = scale(turn<Sign>(x[1] - x[2]), T(0.86602540378443864676));
    const Cx<V> m = x[0] - scale(s, T(0.5));
    x[0] = x[0] + s, x[1] = m + d, x[2] = m - d;
  } else if constexpr (R == 4) {
    const Cx<V> s = x[0] + x[2], d = x[0] - x[2], u = x[1] + x[3], v = turn<Sign>(x[1] - x[3]);
    x[0] = s + u, x[1] = d + v, x[2] = s - u, x[3] = d - v;
  } else if constexpr (R == 5) {
    constexpr double c1 = 0.30901699437494742410, c2 = -0.80901699437494742410;
    constexpr double s1 = 0.95105651629515357212, s2 = 0.58778525229247312917;
    const Cx<V> a = x[1] + x[4], b = x[2] + x[3], d = turn<Sign>(x[1] - x[4]), e = turn<Sign>(x[2] - x[3]);
    const Cx<V> p = x[0] + scale(a, T(c1)) + scale(b, T(c2)), q = x[0] + scale(a, T(c2)) + scale(b, T(c1));
    const Cx<V> r = scale(d, T(s1)) + scale(e, T(s2)), t = scale(d, T(s2)) - scale(e, T(s1));
    x[0] = x[0] + a + b, x[1] = p + r, x[2] = q + t, x[3] = q - t, x[4] = p - r;
  } else {
    // R = P Q: DFTs of P over the stride Q, twiddles, then DFTs of Q.
    constexpr int P = R % 4 == 0 ? 4 : R % 2 == 0 ? 2 : 3, Q = R / P;
    constexpr auto cosine = Root<R>::make(true), sine = Root<R>::make(false);  // local: device code has no statics
    Cx<V> y[R];
#pragma GCC unroll 16
    for (int j = 0; j < Q; ++j) {
      Cx<V> c[P];
#pragma GCC unroll 4
      for (int k = 0; k < P; ++k) c[k] = x[j + k * Q];
      dft<T, P, Sign>(c);
#pragma GCC unroll 4
      for (int k = 0; k < P; ++k) {
        const int e = j * k % R;  // times exp(Sign 2 pi i e / R)
        if (e == 0)
          y[k * Q + j] = c[k];
        else if (4 * e == R)
          y[k * Q + j] = turn<Sign>(c[k]);
        else if (8 * e == R)
          y[k * Q + j] = scale(c[k] + turn<Sign>(c[k]), T(cosine[e]));
        else if (8 * e == 3 * R)
          y[k * Q + j] = scale(turn<Sign>(c[k]) - c[k], T(-cosine[e]));
        else
          y[k * Q + j] = c[k] * Cx<T>{T(cosine[e]), T(Sign * sine[e])};
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < P; ++k) {
      Cx<V> c[Q];
#pragma GCC unroll 16
      for (int j = 0; j < Q; ++j) c[j] = y[k * Q + j];
      dft<T, Q, Sign>(c);
#pragma GCC unroll 16
      for (int j = 0; j < Q; ++j) x[k + P * j] = c[j];
    }
  }
}

// Radices of n, largest useful first; empty for n = 1 and for an n with other prime factors than 2, 3, 5.
inline std::vector<int> radices_of(long n) {
  std::vector<int> out;
  while (n > 1) {
    int best = 0;
    for (int r : {16, 12, 10, 9, 8, 6, 5, 4, 3, 2})
      if (!best && n % r == 0 && !(r > 8 && n / r > 1 && n / r < 4 && n % 8 == 0)) best = r;
    if (!best) return {};
    out.push_back(best), n /= best;
  }
  return out;
}

// The row length N >= need with the least work: points times passes (pass A and one per radix).
inline long fourier_row_length(long need) {
  long best = 0;
  double least = 0;
  for (long n = (need + COLUMN - 1) / COLUMN;; ++n) {
    if (best && COLUMN * n > 1.5 * need + 64) return best;
    const std::vector<int> radices = radices_of(n);
    if (radices.empty() && n > 1) continue;
    double work = 1;
    for (int r : radices) work += r == 9 || r == 10 || r == 12 || r == 16 ? 1 : 0.8;
    work *= n;
    if (!best || work < least) best = COLUMN * n, least = work;
  }
}

// exp(i z), phi_1(i z) = (exp(i z) - 1) / (i z) and phi_2(i z) = (exp(i z) - 1 - i z) / (i z)^2 of a real z.
PENDEL_HD void etd_functions(double z, Cx<double> (&f)[3]) {
  f[0] = f[1] = {1, 0}, f[2] = {0.5, 0};
  if (std::fabs(z) < 1) {  // the quotients cancel: series sum z^k / (k + 1)!, sum z^k / (k + 2)!
    Cx<double> term{1, 0};
    for (int k = 1; k < 22; ++k) {
      term = {-term.im * z / k, term.re * z / k};  // (i z)^k / k!
      f[0] = f[0] + term;
      f[1].re += term.re / (k + 1), f[1].im += term.im / (k + 1);
      f[2].re += term.re / ((k + 1.0) * (k + 2.0)), f[2].im += term.im / ((k + 1.0) * (k + 2.0));
    }
  } else {
    const double c = std::cos(z), s = std::sin(z);
    f[0] = {c, s};
    f[1] = {s / z, (1 - c) / z};
    f[2] = {(1 - c) / (z * z), (z - s) / (z * z)};
  }
}

template <class T, int W>
struct RowFft {
  typedef Pack<T, W> V;
  long N, n;
  std::vector<int> radices;           // of n
  std::vector<Cx<T>> column_twiddle;  // [i][k] exp(-2 pi i i k / N)
  std::vector<Cx<T>> block_twiddle;   // per radix but the last: [i][k], i < L/R, exp(-2 pi i i k / L)
  std::vector<long> frequency;        // numpy's integer frequency at each place of the spectrum

  explicit RowFft(long N_) : N(N_), n(N_ / COLUMN), radices(radices_of(n)) {
    twiddles(column_twiddle, n, COLUMN, N);
    std::vector<long> k_block(n, 0);  // frequency of each place of a block's spectrum
    long L = n, weight = 1;
    for (int r : radices) {
      if (L > r) twiddles(block_twiddle, L / r, r, L);
      L /= r;
    }
    L = n;
    for (int r : radices) {
      L /= r;
      for (long p = 0; p < n; ++p) k_block[p] += weight * (p / L % r);
      weight *= r;
    }
    frequency.resize(N);
    for (long k1 = 0; k1 < COLUMN; ++k1)
      for (long p = 0; p < n; ++p) {
        const long f = k1 + COLUMN * k_block[p];
        frequency[k1 * n + p] = 2 * f < N ? f : f - N;
      }
  }

  // exp(-2 pi i f pixels / N) / N in the spectrum's order; the Nyquist term keeps its unit modulus.
  void phases(double pixels, std::vector<Cx<T>>& out) const {
    out.resize(N);
    for (long p = 0; p < N; ++p) {
      const double a = -2 * M_PI * std::remainder(frequency[p] * pixels / N, 1.0);
      out[p] = {T(std::cos(a) / N), T(std::sin(a) / N)};
    }
  }

  // The same functions of sweep_etd2rk.h at -2 pi i f pixels / N.
  void etd(double pixels, std::vector<Cx<T>> (&out)[3]) const {
    for (auto& table : out) table.resize(N);
    for (long p = 0; p < N; ++p) {
      Cx<double> f[3];
      etd_functions(-2 * M_PI * frequency[p] * pixels / N, f);
      for (int i = 0; i < 3; ++i) out[i][p] = cast<T>(f[i]);
    }
  }

  // Column i of a row: values j = 0..15 at i + n j, through pass A or back.
  PENDEL_HD void column_forward(Cx<V> (&t)[COLUMN], Cx<V>* row, long i) const {
    dft<T, COLUMN, -1>(t);
    const Cx<T>* w = &column_twiddle[i * COLUMN];
    row[i] = t[0];
#pragma GCC unroll 16
    for (int k = 1; k < COLUMN; ++k) row[i + n * k] = t[k] * w[k];
  }
  PENDEL_HD void column_inverse(const Cx<V>* row, long i, Cx<V> (&t)[COLUMN]) const {
    const Cx<T>* w = &column_twiddle[i * COLUMN];
    t[0] = row[i];
#pragma GCC unroll 16
    for (int k = 1; k < COLUMN; ++k) t[k] = conj_mul(w[k], row[i + n * k]);
    dft<T, COLUMN, +1>(t);
  }

  // Between the two passes A: forward DFTs of the blocks, the phases of (4) (their conjugate if Back), inverse DFTs.
  template <bool Back>
  void blocks(Cx<V>* row, const std::vector<Cx<T>>& phase) const {
    for (long k1 = 0; k1 < COLUMN; ++k1)
      level<Back ? PHASE_BACK : PHASE>(row + k1 * n, &phase[k1 * n], n, 0, block_twiddle.data());
  }

  // A row in natural order to its spectrum (digit-reversed, see frequency), and back without the factor 1 / N.
  void to_spectrum(const Cx<V>* row, Cx<V>* spectrum) const {
    for (long i = 0; i < n; ++i) {
      Cx<V> t[COLUMN];
      for (int j = 0; j < COLUMN; ++j) t[j] = row[i + n * j];
      column_forward(t, spectrum, i);
    }
    for (long k1 = 0; k1 < COLUMN; ++k1) level<FORWARD>(spectrum + k1 * n, nullptr, n, 0, block_twiddle.data());
  }
  void to_row(Cx<V>* spectrum) const {
    for (long k1 = 0; k1 < COLUMN; ++k1) level<INVERSE>(spectrum + k1 * n, nullptr, n, 0, block_twiddle.data());
    for (long i = 0; i < n; ++i) {
      Cx<V> t[COLUMN];
      column_inverse(spectrum, i, t);
      for (int j = 0; j < COLUMN; ++j) spectrum[i + n * j] = t[j];
    }
  }

  // (4) for a whole row in natural order.
  template <bool Back>
  void transport(Cx<V>* row, const std::vector<Cx<T>>& phase) const {
    Cx<V> t[COLUMN];
    for (long i = 0; i < n; ++i) {
      for (int j = 0; j < COLUMN; ++j) t[j] = row[i + n * j];
      column_forward(t, row, i);
    }
    blocks<Back>(row, phase);
    for (long i = 0; i < n; ++i) {
      column_inverse(row, i, t);
      for (int j = 0; j < COLUMN; ++j) row[i + n * j] = t[j];
    }
  }

 private:
  enum Job { PHASE, PHASE_BACK, FORWARD, INVERSE };  // forward, phases or their conjugates, inverse; or one of the two

  static void twiddles(std::vector<Cx<T>>& out, long count, long R, long L) {
    for (long i = 0; i < count; ++i)
      for (long k = 0; k < R; ++k) {
        const double a = -2 * M_PI * double(i * k % L) / L;
        out.push_back({T(std::cos(a)), T(std::sin(a))});
      }
  }

  template <Job J>
  static PENDEL_HD void turned(Cx<V>& x, const Cx<T>* phase) {
    if constexpr (J == PHASE) x = x * *phase;
    if constexpr (J == PHASE_BACK) x = conj_mul(*phase, x);
  }

  template <Job J>
  void level(Cx<V>* x, const Cx<T>* phase, long L, std::size_t r, const Cx<T>* w) const {
    if (r == radices.size()) {  // n = 1
      turned<J>(x[0], phase);
      return;
    }
    switch (radices[r]) {
      case 16:
        return radix<J, 16>(x, phase, L, r, w);
      case 12:
        return radix<J, 12>(x, phase, L, r, w);
      case 10:
        return radix<J, 10>(x, phase, L, r, w);
      case 9:
        return radix<J, 9>(x, phase, L, r, w);
      case 8:
        return radix<J, 8>(x, phase, L, r, w);
      case 6:
        return radix<J, 6>(x, phase, L, r, w);
      case 5:
        return radix<J, 5>(x, phase, L, r, w);
      case 4:
        return radix<J, 4>(x, phase, L, r, w);
      case 3:
        return radix<J, 3>(x, phase, L, r, w);
      default:
        return radix<J, 2>(x, phase, L, r, w);
    }
  }

  template <Job J, int R>
  __attribute__((noinline)) void radix(Cx<V>* x, const Cx<T>* phase, long L, std::size_t r, const Cx<T>* w) const {
    Cx<V> t[R];
    const long M = L / R;
    if (M == 1) {
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) t[k] = x[k];
      if constexpr (J != INVERSE) dft<T, R, -1>(t);
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) turned<J>(t[k], phase + k);
      if constexpr (J != FORWARD) dft<T, R, +1>(t);
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) x[k] = t[k];
      return;
    }
    for (long i = 0; J != INVERSE && i < M; ++i) {
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) t[k] = x[i + M * k];
      dft<T, R, -1>(t);
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) x[i + M * k] = t[k] * w[i * R + k];
    }
    for (int k = 0; k < R; ++k) level<J>(x + M * k, phase + M * k, M, r + 1, w + L);
    for (long i = 0; J != FORWARD && i < M; ++i) {
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) t[k] = conj_mul(w[i * R + k], x[i + M * k]);
      dft<T, R, +1>(t);
#pragma GCC unroll 16
      for (int k = 0; k < R; ++k) x[i + M * k] = t[k];
    }
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
