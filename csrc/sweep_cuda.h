// The sweeps on a CUDA device: the schedule only; (1)-(7) are those of voxel.h and couple.h, the FFT's butterflies
// those of fft.h.
//
// A block takes one y row and, one after another, groups of F rocking angles, and keeps their fields on chip for the
// whole march. Coupling: a thread owns columns x and takes every angle of the group through one voxel, so the matrix is
// read once per group and the gradient sums (B) are added in its registers in the order of the angles: no atomics, no
// shuffles, the same bits from run to run. Angles are dealt to `parts` blocks per row; their sums are added in the
// order of the parts at the end (gradient). How many parts and angles depends on the problem only, not on the device.
//
// This text is also compiled by the host compiler and run thread by thread in the tests (tests/emulator.h).
#pragma once
#if defined(PENDEL_EMULATED)
#include "emulator.h"
#else
#include <cuda_runtime.h>
#define PENDEL_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#include "couple.h"
#include "fft.h"
#include "run.h"
#include "voxel.h"

namespace pendel {
namespace PENDEL_ISA {

enum { WARP = 32, MOST_STAGES = 12 };

// What every kernel gets, by value: the arguments, and the workspace cut up.
template <class T>
struct Device {
  Args a;
  Medium<T> medium;
  Medium<double> exact;
  Powers<T> powers;
  long parts, groups;              // blocks per y row; groups of `angles` frames
  int angles;                      // frames a block keeps on chip
  int stages, radix[MOST_STAGES];  // of the row FFT, 16 first; transport fourier
  unsigned inverse[MOST_STAGES];   // 2^32 over length / radix, rounded up: divides without dividing
  T *matrices, *sums;              // (ny, nz, nx, MATRIX or both), (parts, ny, nz, nx, SUMS)
  Cx<T>*layer, *ramp_x, *ramp_y;   // (frames) one layer of (5); (frames, exit), (frames, ny): (6), half of (5)
  Cx<T>* adj_row;                  // (parts, ny, row) adj_E_0 at the entrance, summed over the part's frames
  double* drift;                   // (parts, ny)
  Cx<T>*phase_E_0, *twiddle;       // (row) one layer of (4), spectrum's order; per stage (radix, length / radix)
};

// Reals of one voxel, 16 bytes at a time.
template <class T>
struct alignas(16) Quad {
  T v[16 / sizeof(T)];
};
template <class T, int Reals>
PENDEL_HD void load(const T* from, T (&to)[Reals]) {
  constexpr int per = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < Reals / per; ++i) {
    const Quad<T> q = reinterpret_cast<const Quad<T>*>(from)[i];
#pragma unroll
    for (int j = 0; j < per; ++j) to[i * per + j] = q.v[j];
  }
}
template <class T>
PENDEL_HD void store_sums(const T (&X)[SUMS], bool first, T* sums) {
  constexpr int per = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < SUMS / per; ++i) {
    Quad<T>* at = reinterpret_cast<Quad<T>*>(sums) + i;
    Quad<T> q;
    if (!first) q = *at;
#pragma unroll
    for (int j = 0; j < per; ++j) q.v[j] = first ? X[i * per + j] : q.v[j] + X[i * per + j];
    *at = q;
  }
}

// Sum over the block by a fixed tree, valid in thread 0; scratch: one double per warp. blockDim.x is whole warps.
inline __device__ double block_sum(double v, double* scratch) {
  for (int half = WARP / 2; half >= 1; half /= 2) v += __shfl_xor_sync(0xffffffffu, v, half);
  __syncthreads();
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = v;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (unsigned w = 0; w < blockDim.x / WARP; ++w) sum += scratch[w];
  return sum;
}

// Re(conj(adj_G) dG) of a detuning that turns G by exp(-i) per unit.
template <class T>
PENDEL_HD T turning(Cx<T> adj_G, Cx<T> G) {
  return adj_G.re * G.im - adj_G.im * G.re;
}
template <class T>
PENDEL_HD Cx<T> unit_of(double angle) {
  return {T(cos(angle)), T(sin(angle))};
}

// Tables: phases of (5) and (6), and of the row FFT. One thread per entry.
template <class T>
__global__ void tables(const Device<T> d) {
  const Args& a = d.a;
  const long i = long(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < a.frames) d.layer[i] = unit_of<T>(-a.dq[3 * i + 2] * a.dz);
  if (i < a.frames * a.exit) d.ramp_x[i] = unit_of<T>(a.dq[3 * (i / a.exit)] * a.dx * double(i % a.exit - a.nx / 2));
  if (i < a.frames * a.ny) {
    const double* q = a.dq + 3 * (i / a.ny);
    d.ramp_y[i] = unit_of<T>(q[1] * a.dy * double(i % a.ny - a.ny / 2) - 0.5 * q[2] * a.dz);
  }
  if (a.shift || i >= a.row) return;
  long L = a.row, f = 0, weight = 1;  // f: numpy's frequency at place i of the digit-reversed spectrum
  for (int s = 0; s < d.stages; ++s) {
    const long R = d.radix[s], M = L / R;
    // entry i = (block, k, n) of this stage's elements; the blocks share the twiddles of the first
    if (i < L) d.twiddle[s * a.row + i] = unit_of<T>(-2 * M_PI * double((i / M) * (i % M) % L) / L);
    f += weight * (i / M % R);
    weight *= R, L = M;
  }
  if (2 * f >= a.row) f -= a.row;
  const Cx<double> p = unit_of<double>(-2 * M_PI * remainder(f * a.pixels / a.row, 1.0));
  d.phase_E_0[i] = {T(p.re / a.row), T(p.im / a.row)};
}

// One voxel and everything voxel() and voxel_adj() need to know of it.
template <class T>
inline __device__ void load_voxel(const Device<T>& d, long i, Cx<T>& S, T& s_0, Cx<T>& omega, Factors<T>& f) {
  const T* in = static_cast<const T*>(d.a.S) + 2 * i;
  S = {in[0], in[1]};
  s_0 = d.a.s_0 ? static_cast<const T*>(d.a.s_0)[i] : sqrt(norm(S));
  Cx<T> mu, u;
  exponents(d.medium, S, s_0, mu, omega, u);
  f = factors_series<T>(d.powers, s_0, u);
  if (in_series_range(mu, u)) return;
  Cx<double> mu_l, omega_l, u_l;
  exponents(d.exact, cast<double>(S), double(s_0), mu_l, omega_l, u_l);
  const Factors<double> e = factors_exact(mu_l, u_l);
  f = {cast<T>(e.exp_1), cast<T>(e.inverse_exp_1), cast<T>(e.ch_1), cast<T>(e.shc), cast<T>(e.q)};
}

// Matrices of all voxels, with their inverses for the adjoint. One thread per voxel, x fastest.
template <class T, int Reals>
__global__ void matrices(const Device<T> d) {
  const Args& a = d.a;
  const long i = long(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.nz * a.ny * a.nx) return;
  const long x = i % a.nx, y = i / a.nx % a.ny, z = i / a.nx / a.ny;
  Cx<T> S, omega;
  T s_0;
  Factors<T> f;
  Matrix<T> M[2];
  load_voxel(d, i, S, s_0, omega, f);
  voxel(d.medium, S, omega, f, M[0], M[1]);
  const Quad<T>* in = reinterpret_cast<const Quad<T>*>(M);
  Quad<T>* out = reinterpret_cast<Quad<T>*>(d.matrices + ((y * a.nz + z) * a.nx + x) * Reals);
#pragma unroll
  for (int q = 0; q < int(Reals * sizeof(T) / 16); ++q) out[q] = in[q];
}

// Adds the parts in order and writes adj_S and adj_s_0 (one thread per voxel), adj_incident and drift.
template <class T>
__global__ void gradient(const Device<T> d) {
  const Args& a = d.a;
  const long i = long(blockIdx.x) * blockDim.x + threadIdx.x, voxels = a.nz * a.ny * a.nx;
  if (i < a.ny * a.row && a.adj_incident) {
    Cx<T> sum = d.adj_row[i];
    for (long p = 1; p < d.parts; ++p) sum = sum + d.adj_row[p * a.ny * a.row + i];
    static_cast<Cx<T>*>(a.adj_incident)[i] = sum;
  }
  if (i < a.ny && a.drift) {
    double most = d.drift[i];
    for (long p = 1; p < d.parts; ++p) {
      const double other = d.drift[p * a.ny + i];
      if (!(other <= most)) most = other;  // a NaN is kept
    }
    a.drift[i] = most;
  }
  if (i >= voxels) return;
  const long x = i % a.nx, y = i / a.nx % a.ny, z = i / a.nx / a.ny, at = (y * a.nz + z) * a.nx + x;
  Cx<T> S, omega, adj_S{0, 0};
  T s_0, adj_s_0 = 0;
  if (!a.support || a.support[i]) {
    T X[SUMS], more[SUMS];
    Factors<T> f;
    load(d.sums + at * SUMS, X);
    for (long p = 1; p < d.parts; ++p) {
      load(d.sums + (p * voxels + at) * SUMS, more);
#pragma unroll
      for (int c = 0; c < SUMS; ++c) X[c] += more[c];
    }
    load_voxel(d, i, S, s_0, omega, f);
    voxel_adj(d.medium, S, omega, f, Cx<T>{X[0], X[1]}, Cx<T>{X[2], X[3]}, Cx<T>{X[4], X[5]}, Cx<T>{X[6], X[7]}, adj_S,
              adj_s_0);
    // Reverse: s_0 = |S| where s_0 was not given
    if (!a.s_0 && s_0 != 0) adj_S = adj_S + scale(S, adj_s_0 / s_0);
  }
  static_cast<Cx<T>*>(a.adj_S)[i] = adj_S;
  if (a.adj_s_0) static_cast<T*>(a.adj_s_0)[i] = adj_s_0;
}

// What both marches know of their block: its row, its part, and the rows of the arrays by frame.
template <class T>
struct Block {
  const Device<T>& d;
  const Args& a;
  const long part, y;
  inline __device__ explicit Block(const Device<T>& device)
      : d(device), a(device.a), part(blockIdx.x % device.parts), y(blockIdx.x / device.parts) {}

  inline __device__ Cx<T> incident(long place) const {
    return a.incident ? static_cast<const Cx<T>*>(a.incident)[y * a.row + place] : Cx<T>{1, 0};
  }
  inline __device__ long exit(long frame, long x) const { return (frame * a.ny + y) * a.exit + x; }
  inline __device__ long row(long frame, long place) const { return (frame * a.ny + y) * a.row + place; }
  inline __device__ Cx<T> layer(long frame) const { return d.layer[frame < a.frames ? frame : a.frames - 1]; }
  inline __device__ const T* matrix(long z, long x, int reals) const {
    return d.matrices + ((y * a.nz + z) * a.nx + x) * reals;
  }
  inline __device__ T* sum(long z, long x) const { return d.sums + (((part * a.ny + y) * a.nz + z) * a.nx + x) * SUMS; }

  // (6), and the last half of (5)
  inline __device__ void leave(long frame, long x, Cx<T> G) const {
    if (frame < a.frames)
      static_cast<Cx<T>*>(a.E_h)[exit(frame, x)] = d.ramp_y[frame * a.ny + y] * d.ramp_x[frame * a.exit + x] * G;
  }
  inline __device__ void leave_adj(long frame, long x, Cx<T>& G, Cx<T>& adj_G, double& turned, double& turned_x) const {
    G = adj_G = {0, 0};
    if (frame >= a.frames) return;
    // Reverse (6): E_h = exp(i (dq_x x + dq_y y)) G, and the last half of (5)
    G = static_cast<const Cx<T>*>(a.E_h)[exit(frame, x)];
    adj_G = static_cast<const Cx<T>*>(a.adj_E_h)[exit(frame, x)];
    const double t = turning(adj_G, G);
    turned += t, turned_x += t * double(x - a.nx / 2);
    const Cx<T> back = d.ramp_y[frame * a.ny + y] * d.ramp_x[frame * a.exit + x];
    G = conj_mul(back, G), adj_G = conj_mul(back, adj_G);
  }
  // A frame's gradient of dq: what the exit turns, then what the march turns. Every thread of the block calls them.
  inline __device__ void dq_of_exit(long frame, double turned, double turned_x, double* scratch) const {
    turned = block_sum(turned, scratch), turned_x = block_sum(turned_x, scratch);
    if (threadIdx.x || frame >= a.frames || !a.adj_dq) return;
    double* q = a.adj_dq + 3 * (y * a.frames + frame);
    q[0] = -turned_x * a.dx, q[1] = -turned * a.dy * double(y - a.ny / 2), q[2] = 0.5 * a.dz * turned;
  }
  inline __device__ void dq_of_march(long frame, double D, double* scratch) const {
    D = block_sum(D, scratch);
    if (threadIdx.x == 0 && frame < a.frames && a.adj_dq) a.adj_dq[3 * (y * a.frames + frame) + 2] += a.dz * D;
  }
  inline __device__ void finish_drift(bool first, double lost, double there, double* scratch) const {
    lost = block_sum(lost, scratch), there = block_sum(there, scratch);
    if (threadIdx.x) return;
    double* drift = d.drift + part * a.ny + y;
    const double now = sqrt(lost / there);
    if (first || !(now <= *drift)) *drift = now;
  }
  inline __device__ Cx<T> exit_E_0(long frame, long place) const {
    return static_cast<const Cx<T>*>(a.E_0)[row(frame, place)];
  }
  // E_0, and the frames' sum of adj_E_0 where the reversed sweep ends.
  inline __device__ void enter_state(long frame, long place, Cx<T> E_0) const {
    if (a.entrance_E_0 && frame < a.frames) static_cast<Cx<T>*>(a.entrance_E_0)[row(frame, place)] = E_0;
  }
  inline __device__ void enter_adj(bool first, long place, Cx<T> adj_sum) const {
    if (!a.adj_incident) return;
    Cx<T>* at = d.adj_row + (part * a.ny + y) * a.row + place;
    *at = first ? adj_sum : *at + adj_sum;
  }
};

// Transport shift: in the frame that moves with E_0, place p = x + m (nz - 1 - z), (4) is nothing at all. A thread owns
// C columns x, x + blockDim, ..., and keeps G of F frames in registers; E_0 after layer z is handed from column x to
// column x + m through shared memory, two buffers in turn, one barrier per layer. It comes in from the incident row
// where no column hands over, and leaves to the exit row likewise; the adjoint the other way round.
inline __device__ long place(const Args& a, long z, long x) { return x + a.shift * (a.nz - 1 - z); }

template <class T, int F, int C>
__global__ void __launch_bounds__(sizeof(T) == 4 ? 512 : 256) shift_forward(const Device<T> d) {
  const Block<T> b(d);
  const Args& a = d.a;
  const int nx = int(a.nx), m = a.shift;
  PENDEL_SHARED(memory);
  Cx<T>* handed = reinterpret_cast<Cx<T>*>(memory);  // (2, F, nx)
  int side = 0;
  for (long g = b.part; g < d.groups; g += d.parts) {
    Cx<T> G[C][F] = {}, layer[F];
#pragma unroll
    for (int f = 0; f < F; ++f) layer[f] = b.layer(g * F + f);
    for (long z = 0; z < a.nz; ++z, side ^= 1) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int x = threadIdx.x + c * blockDim.x;
        if (x >= nx) continue;
        T M[MATRIX];
        load(b.matrix(z, x, MATRIX), M);
        const bool enters = z == 0 || x < m, leaves = a.E_0 && (z + 1 == a.nz || x + m >= nx);
        const Cx<T> in = enters ? b.incident(place(a, z, x)) : Cx<T>{0, 0};
#pragma unroll
        for (int f = 0; f < F; ++f) {
          Cx<T> E_0 = enters ? in : handed[((side ^ 1) * F + f) * nx + x - m];  // (4)
          couple(M, E_0, G[c][f]);                                              // (3)
          handed[(side * F + f) * nx + x] = E_0;
          if (z + 1 < a.nz) G[c][f] = layer[f] * G[c][f];  // (5)
          if (leaves && g * F + f < a.frames) static_cast<Cx<T>*>(a.E_0)[b.row(g * F + f, place(a, z, x))] = E_0;
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int c = 0; c < C; ++c)
#pragma unroll
      for (int f = 0; f < F; ++f)
        if (int(threadIdx.x + c * blockDim.x) < nx) b.leave(g * F + f, threadIdx.x + c * blockDim.x, G[c][f]);
    for (long p = threadIdx.x; a.E_0 && m > nx && p < a.row; p += blockDim.x)  // places no column passes
      for (int f = 0; p % m >= nx && f < F && g * F + f < a.frames; ++f)
        static_cast<Cx<T>*>(a.E_0)[b.row(g * F + f, p)] = b.incident(p);
  }
}

template <class T, int F, int C>
__global__ void __launch_bounds__(sizeof(T) == 4 ? 512 : 256) shift_adjoint(const Device<T> d) {
  const Block<T> b(d);
  const Args& a = d.a;
  const int nx = int(a.nx), m = a.shift;
  PENDEL_SHARED(memory);
  double* scratch = reinterpret_cast<double*>(memory);       // one per warp
  Cx<T>* handed = reinterpret_cast<Cx<T>*>(scratch + WARP);  // (2, F, nx) E_0
  Cx<T>* handed_adj = handed + 2 * F * nx;                   // (2, F, nx) adj_E_0
  Cx<T>* layer = handed_adj + 2 * F * nx;                    // (F)
  int side = 0;
  for (long g = b.part; g < d.groups; g += d.parts) {
    const bool first = g == b.part;
    Cx<T> G[C][F] = {}, adj_G[C][F] = {};
    T D[F] = {}, there = 0, lost = 0;
    if (threadIdx.x < F) layer[threadIdx.x] = b.layer(g * F + threadIdx.x);  // dq_of_exit has the barrier
#pragma unroll
    for (int f = 0; f < F; ++f) {
      double turned = 0, turned_x = 0;
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int x = threadIdx.x + c * blockDim.x;
        if (x < nx) b.leave_adj(g * F + f, x, G[c][f], adj_G[c][f], turned, turned_x);
      }
      b.dq_of_exit(g * F + f, turned, turned_x, scratch);
    }
    for (long z = a.nz - 1; z >= 0; --z, side ^= 1) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int x = threadIdx.x + c * blockDim.x;
        if (x >= nx) continue;
        T M[MATRIX_AND_INVERSE], X[SUMS], sum[SUMS] = {};
        load(b.matrix(z, x, MATRIX_AND_INVERSE), M);
        const bool leaves = z + 1 == a.nz || x + m >= nx, enters = z == 0 || x < m;
        Cx<T> through{0, 0};
#pragma unroll
        for (int f = 0; f < F; ++f) {
          const long frame = g * F + f;
          // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
          Cx<T> E_0{0, 0}, adj_E_0{0, 0};
          if (!leaves)
            E_0 = handed[((side ^ 1) * F + f) * nx + x + m], adj_E_0 = handed_adj[((side ^ 1) * F + f) * nx + x + m];
          else if (frame < a.frames)
            E_0 = b.exit_E_0(frame, place(a, z, x));
          // Reverse (3): (E_0, G) <- M (E_0, G)
          couple_adj(M, E_0, G[c][f], adj_E_0, adj_G[c][f], X);
#pragma unroll
          for (int i = 0; i < SUMS; ++i) sum[i] += X[i];
          handed[(side * F + f) * nx + x] = E_0, handed_adj[(side * F + f) * nx + x] = adj_E_0;
          if (enters) through = through + adj_E_0, there += norm(E_0), b.enter_state(frame, place(a, z, x), E_0);
          if (z == 0) continue;
          // Reverse (5): G <- exp(-i D dz) G
          D[f] += turning(adj_G[c][f], G[c][f]);
          G[c][f] = conj_mul(layer[f], G[c][f]), adj_G[c][f] = conj_mul(layer[f], adj_G[c][f]);
        }
        store_sums(sum, first, b.sum(z, x));
        if (enters) b.enter_adj(first, place(a, z, x), through);
      }
      __syncthreads();
    }
    for (long p = threadIdx.x; m > nx && p < a.row; p += blockDim.x) {  // places no column passes
      if (p % m < nx) continue;
      b.enter_adj(first, p, {0, 0});
      for (int f = 0; f < F && g * F + f < a.frames; ++f) {
        const Cx<T> E_0 = b.exit_E_0(g * F + f, p);
        there += norm(E_0), b.enter_state(g * F + f, p, E_0);
      }
    }
#pragma unroll
    for (int f = 0; f < F; ++f) {
      b.dq_of_march(g * F + f, D[f], scratch);
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int x = threadIdx.x + c * blockDim.x;
        lost += norm(G[c][f]);
        if (a.entrance_G && x < nx && g * F + f < a.frames)
          static_cast<Cx<T>*>(a.entrance_G)[b.exit(g * F + f, x)] = G[c][f];
      }
    }
    b.finish_drift(first, lost, there, scratch);
  }
}

}  // namespace PENDEL_ISA
}  // namespace pendel
