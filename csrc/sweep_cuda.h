// What all sweeps on a CUDA device share: tables, matrices, gradient, and a row's way in and out. (1)-(7) are those of
// voxel.h and couple.h. The marches are in sweep_fused.h (fields stay on chip) and sweep_cufft.h (layer by layer).
//
// This text is also compiled by the host compiler and run thread by thread in the tests (tests/emulator.h).
#pragma once
#if defined(PENDEL_EMULATED)
#include "emulator.h"
#else
#include <cuda_runtime.h>
#define PENDEL_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#include <algorithm>
#include <stdexcept>
#include <string>

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
  long ends;                       // places of `drift` per y row
  int angles;                      // frames a block keeps on chip
  int stages, radix[MOST_STAGES];  // of the row FFT, 16 first; transport fourier
  unsigned inverse[MOST_STAGES];   // 2^32 over length / radix, rounded up: divides without dividing
  T *matrices, *sums;              // (ny, nz, nx, MATRIX or both), (parts, ny, nz, nx, SUMS)
  Cx<T>*layer, *ramp_x, *ramp_y;   // (frames) one layer of (5), (10); (frames, exit), (frames, ny): (6), half of (5)
  Cx<T>* adj_row;                  // (parts, ny, row) adj_E_0 at the entrance, summed over the part's frames
  double* drift;                   // (ends, ny)
  Cx<T>*phase_E_0, *twiddle;       // (row) one layer of (4), spectrum's order; per stage (radix, length / radix)
  Cx<T>*etd, *turns;               // (3, row) exp(L), phi_1(L), phi_2(L); (nz, frames) P_n of sweep_etd2rk.h
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

inline __device__ double detuning(const Args& a, long frame) {  // D = k_h.dq / k_hz
  return a.dq[3 * frame + 2] - a.tan_h * a.dq[3 * frame];
}
inline __device__ long origin(const Args& a) { return a.exit - a.nx + a.nx / 2; }  // where x = 0 in a row of E_h
// Where E_0 of transport shift stands in a row that moves along, z along k_h.
inline __device__ long place(const Args& a, long z, long x) { return x + a.shift * (a.nz - 1 - z); }
PENDEL_HD bool stored(const Args& a, long z) {  // are the fields of that layer; where none are: no division
  return a.layers && z + 1 < a.nz && unsigned(z + 1) % unsigned(a.resync) == 0;
}
inline __device__ double half(const Args& a) {  // layers of (5) after the last
  return a.orientation == Orientation::SYMMETRIC ? 0 : 0.5;
}

// Tables: phases of (5) and (6), and of the row FFT. One thread per entry.
template <class T>
__global__ void tables(const Device<T> d) {
  const Args& a = d.a;
  const long i = long(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < a.frames) d.layer[i] = unit_of<T>(-detuning(a, i) * a.dz);
  if (i < a.frames * a.exit) d.ramp_x[i] = unit_of<T>(a.dq[3 * (i / a.exit)] * a.dx * double(i % a.exit - origin(a)));
  if (i < a.frames * a.ny) {
    const long f = i / a.ny, y = i % a.ny - a.ny / 2;
    d.ramp_y[i] = unit_of<T>(a.dq[3 * f + 1] * a.dy * double(y) - half(a) * detuning(a, f) * a.dz);
  }
  if (a.scheme == Scheme::ETD2RK && i < a.nz * a.frames)
    d.turns[i] = unit_of<T>(detuning(a, i % a.frames) * a.dz * double(a.nz - 1 - i / a.frames));
  if (a.transport != Transport::FOURIER || i >= a.row) return;
  long L = a.row, f = d.stages ? 0 : i, weight = 1;  // f: numpy's frequency at place i of the spectrum: digit-reversed
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
  if (a.scheme != Scheme::ETD2RK) return;
  Cx<double> functions[3];
  etd_functions(-2 * M_PI * f * a.pixels / a.row, functions);
  for (int k = 0; k < 3; ++k) d.etd[k * a.row + i] = cast<T>(functions[k]);
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
  if (a.scheme == Scheme::ETD2RK)
    M[0] = potential(d.medium, S, s_0);
  else
    voxel(d.medium, S, omega, f, M[0], M[1]);
  const Quad<T>* in = reinterpret_cast<const Quad<T>*>(M);
  Quad<T>* out = reinterpret_cast<Quad<T>*>(d.matrices + ((y * a.nz + z) * a.nx + x) * Reals);
#pragma unroll
  for (int q = 0; q < int(Reals * sizeof(T) / 16); ++q) out[q] = in[q];
}

// Four sums of a voxel, its parts added in order; `at`: its place in `sums`.
template <class T>
inline __device__ VoxelSums<T> voxel_sums(const Device<T>& d, long at) {
  T X[SUMS], more[SUMS];
  load(d.sums + at * SUMS, X);
  for (long p = 1; p < d.parts; ++p) {
    load(d.sums + (p * d.a.nz * d.a.ny * d.a.nx + at) * SUMS, more);
#pragma unroll
    for (int c = 0; c < SUMS; ++c) X[c] += more[c];
  }
  return {{X[0], X[1]}, {X[2], X[3]}, {X[4], X[5]}, {X[6], X[7]}};
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
    for (long p = 1; p < d.ends; ++p) {
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
    Factors<T> f;
    const VoxelSums<T> X = voxel_sums(d, at);
    load_voxel(d, i, S, s_0, omega, f);
    if (a.scheme == Scheme::ETD2RK)
      potential_adj(d.medium, X, adj_S, adj_s_0);
    else
      voxel_adj(d.medium, S, omega, f, X, adj_S, adj_s_0);
    // Reverse: s_0 = |S| where s_0 was not given
    if (!a.s_0 && s_0 != 0) adj_S = adj_S + scale(S, adj_s_0 / s_0);
  }
  static_cast<Cx<T>*>(a.adj_S)[i] = adj_S;
  if (a.adj_s_0) static_cast<T*>(a.adj_s_0)[i] = adj_s_0;
}

// adj_medium of a y row. One block per row; scratch: one double per warp.
template <class T>
__global__ void medium_gradient(const Device<T> d) {
  PENDEL_SHARED(scratch);
  const Args& a = d.a;
  const long y = blockIdx.x;
  double parts[8] = {};
  for (long i = threadIdx.x; i < a.nz * a.nx; i += blockDim.x) {
    Cx<T> S, omega;
    T s_0;
    Factors<T> f;
    load_voxel(d, (i / a.nx * a.ny + y) * a.nx + i % a.nx, S, s_0, omega, f);
    const VoxelSums<T> X = voxel_sums(d, y * a.nz * a.nx + i);
    const MediumAdj<T> share =
        a.scheme == Scheme::ETD2RK ? potential_medium_adj(S, s_0, X) : medium_adj(d.medium, S, s_0, omega, f, X);
    const Cx<T> of[4] = {share.m, share.w, share.b, share.c};
    for (int c = 0; c < 4; ++c) parts[2 * c] += of[c].re, parts[2 * c + 1] -= of[c].im;
  }
  for (int c = 0; c < 8; ++c) {
    const double sum = block_sum(parts[c], reinterpret_cast<double*>(scratch));
    if (threadIdx.x == 0) a.adj_medium[8 * y + c] = sum;
  }
}

// What all marches know of their block: its row, its part, and the rows of the arrays by frame.
template <class T>
struct Block {
  const Device<T>& d;
  const Args& a;
  const long part, y;
  inline __device__ explicit Block(const Device<T>& device)
      : d(device), a(device.a), part(blockIdx.x % device.parts), y(blockIdx.x / device.parts) {}
  inline __device__ Block(const Device<T>& device, long part_, long y_) : d(device), a(device.a), part(part_), y(y_) {}

  inline __device__ Cx<T> incident(long place) const {
    if (a.incident) return static_cast<const Cx<T>*>(a.incident)[y * a.row + place];
    const bool handed = a.transport == Transport::BOX && place >= a.nx;  // from column to column (11), not a field
    return {handed ? T(1 - box_coefficient(a.pixels)) : T(1), 0};
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
    turned += t, turned_x += t * double(x - origin(a));
    const Cx<T> back = d.ramp_y[frame * a.ny + y] * d.ramp_x[frame * a.exit + x];
    G = conj_mul(back, G), adj_G = conj_mul(back, adj_G);
  }
  // A frame's gradient of dq: what the exit turns, then what the march turns. Every thread of the block calls them.
  inline __device__ void dq_of_exit(long frame, double turned, double turned_x, double* scratch) const {
    turned = block_sum(turned, scratch), turned_x = block_sum(turned_x, scratch);
    if (threadIdx.x || frame >= a.frames || !a.adj_dq) return;
    double* q = a.adj_dq + 3 * (y * a.frames + frame);
    q[0] = -turned_x * a.dx, q[1] = -turned * a.dy * double(y - a.ny / 2), q[2] = half(a) * a.dz * turned;
  }
  inline __device__ void dq_of_march(long frame, double D, double* scratch) const {
    D = block_sum(D, scratch);
    if (threadIdx.x || frame >= a.frames || !a.adj_dq) return;
    double* q = a.adj_dq + 3 * (y * a.frames + frame);
    q[0] -= a.tan_h * a.dz * D, q[2] += a.dz * D;
  }
  // The worst of what the reversed sweep has lost at stored layers and at the entrance (z = -1). A NaN stays.
  inline __device__ void note_drift(bool first, long z, double lost, double there, double* scratch) const {
    lost = block_sum(lost, scratch), there = block_sum(there, scratch);
    if (threadIdx.x) return;
    double* drift = d.drift + part * a.ny + y;
    const double now = lost == 0 ? 0 : sqrt(lost / there);
    if ((first && z + a.resync >= a.nz - 1) || (!(now <= *drift) && *drift == *drift)) *drift = now;
  }
  // E_0 (field 0) or G (1) at a column of the box, behind (3) of a layer that is stored.
  inline __device__ Cx<T>& layer_field(long z, int field, long frame, long x) const {
    return static_cast<Cx<T>*>(a.layers)[(((z / a.resync * 2 + field) * a.frames + frame) * a.ny + y) * a.nx + x];
  }
  inline __device__ void store(long z, long frame, long x, Cx<T> E_0, Cx<T> G) const {
    if (frame < a.frames) layer_field(z, 0, frame, x) = E_0, layer_field(z, 1, frame, x) = G;
  }
  inline __device__ void take_up(long z, int field, long frame, long x, Cx<T>& reversed, T& lost, T& there) const {
    const Cx<T> as_stored = layer_field(z, field, frame, x);
    lost += norm(reversed - as_stored), there += norm(as_stored), reversed = as_stored;
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

// The host's side of all this.
inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}
#if defined(PENDEL_EMULATED)
using emulator::launch;
#else
template <class... P>
void launch(void (*kernel)(P...), long blocks, int threads, std::size_t shared, void* stream, const P&... arguments) {
  if (shared > 48 * 1024) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
  void* list[] = {const_cast<P*>(&arguments)...};
  check(cudaLaunchKernel(kernel, dim3(unsigned(blocks)), dim3(unsigned(threads)), list, shared,
                         static_cast<cudaStream_t>(stream)));
}
#endif

// Cuts the workspace up; `bytes`: how much of it there must be.
struct Cut {
  void* const workspace;
  std::size_t bytes = 0;
  template <class P>
  void operator()(P*& pointer, long count) {
    pointer = reinterpret_cast<P*>(static_cast<char*>(workspace) + bytes);
    bytes += (count * sizeof(P) + 255) / 256 * 256;
  }
};
template <class T>
void cut_device(Device<T>& d, bool adjoint, Cut& cut) {
  const Args& a = d.a;
  d.exact = {{a.m.re, a.m.im}, {a.w.re, a.w.im}, {a.b.re, a.b.im}, {a.c.re, a.c.im}};
  d.medium = {cast<T>(d.exact.m), cast<T>(d.exact.w), cast<T>(d.exact.b), cast<T>(d.exact.c)};
  d.powers = Powers<T>::of(d.exact.m);
  const long voxels = a.nz * a.ny * a.nx, etd = a.scheme == Scheme::ETD2RK;
  cut(d.matrices, voxels * (adjoint && !etd ? MATRIX_AND_INVERSE : MATRIX));
  cut(d.sums, adjoint ? d.parts * voxels * SUMS : 0);
  cut(d.layer, a.frames), cut(d.ramp_x, a.frames * a.exit), cut(d.ramp_y, a.frames * a.ny);
  cut(d.adj_row, adjoint ? d.parts * a.ny * a.row : 0), cut(d.drift, adjoint ? d.ends * a.ny : 0);
  cut(d.phase_E_0, a.transport == Transport::FOURIER ? a.row : 0), cut(d.twiddle, d.stages * a.row);
  cut(d.etd, etd ? 3 * a.row : 0), cut(d.turns, etd ? a.nz * a.frames : 0);
}

template <class T>
void each(void (*kernel)(const Device<T>), long count, const Device<T>& d) {
  constexpr int threads = 128;
  launch(kernel, (count + threads - 1) / threads, threads, 0, d.a.stream, d);
}
template <class T>
void before(const Device<T>& d, bool adjoint) {
  const Args& a = d.a;
  const bool etd = a.scheme == Scheme::ETD2RK;
  each<T>(tables<T>, std::max({a.frames * a.exit, a.frames * a.ny, a.row, etd ? a.nz * a.frames : 0l}), d);
  each<T>(adjoint && !etd ? matrices<T, MATRIX_AND_INVERSE> : matrices<T, MATRIX>, a.nz * a.ny * a.nx, d);
}
template <class T>
void after(const Device<T>& d) {
  const Args& a = d.a;
  each<T>(gradient<T>, std::max({a.nz * a.ny * a.nx, a.ny * a.row, a.ny}), d);
  constexpr int threads = 256;
  if (a.adj_medium) launch(medium_gradient<T>, a.ny, threads, threads / WARP * sizeof(double), a.stream, d);
}

}  // namespace PENDEL_ISA
}  // namespace pendel
