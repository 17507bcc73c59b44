// The CUDA engine: the march with Fourier transport, the workspace, and the launches. Nothing is allocated and nothing
// waits for the device: all memory is the caller's, all work goes to the caller's stream.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "sweep_cuda.h"

namespace pendel {
namespace PENDEL_ISA {

enum { FOURIER_THREADS = 256, MOST_SHARED = 160 * 1024, GOOD_SHARED = 112 * 1024, GOOD_BLOCKS = 512, MOST_PARTS = 16 };

// Transport fourier: rows of E_0 stand in shared memory, place p at p + p / 16, so that the strides of the FFT meet
// every bank. Between couplings, which are one thread per column as above, blockDim / F threads ("a team") take the row
// of one angle through the FFT in place, its phases and back, in the order of fft.h. With eight or four angles a team
// is a warp, and no barrier of the block is needed in between.
PENDEL_HD unsigned padded(unsigned p) { return p + p / 16; }

inline __device__ void team_sync(unsigned team) {
  if (team == WARP)
    __syncwarp();
  else
    __syncthreads();
}

enum Job { FORWARD, PHASE, PHASE_BACK, INVERSE };
template <class T, int R, int J>
inline __device__ void butterflies(Cx<T>* row, unsigned N, unsigned M, unsigned inverse, const Cx<T>* w, unsigned t,
                                   unsigned team) {
  for (unsigned i = t; i < N / R; i += team) {
    // i % M; the last stage has M = 1
    const unsigned n = J == FORWARD || J == INVERSE ? i - M * unsigned((i * (unsigned long long)inverse) >> 32) : 0;
    const unsigned first = (i - n) * R + n;
    Cx<T> v[R];
#pragma unroll
    for (int k = 0; k < R; ++k) v[k] = row[padded(first + M * k)];
    if constexpr (J == INVERSE) {
#pragma unroll
      for (int k = 1; k < R; ++k) v[k] = conj_mul(w[k * M + n], v[k]);
    } else {
      dft<T, R, -1>(v);
#pragma unroll
      for (int k = 0; k < R; ++k) {
        if constexpr (J == FORWARD) v[k] = k ? v[k] * w[k * M + n] : v[k];
        if constexpr (J == PHASE) v[k] = v[k] * w[first + k];
        if constexpr (J == PHASE_BACK) v[k] = conj_mul(w[first + k], v[k]);
      }
    }
    if constexpr (J != FORWARD) dft<T, R, +1>(v);
#pragma unroll
    for (int k = 0; k < R; ++k) row[padded(first + M * k)] = v[k];
  }
}
// Stage s of the FFT, its length / radix M.
template <class T, int J>
inline __device__ void stage(const Device<T>& d, int s, Cx<T>* row, unsigned M, unsigned t, unsigned team) {
  const unsigned N = unsigned(d.a.row), inverse = d.inverse[s];
  const Cx<T>* w = J == FORWARD || J == INVERSE ? d.twiddle + s * d.a.row : d.phase_E_0;
  switch (d.radix[s]) {
    case 16:
      butterflies<T, 16, J>(row, N, M, inverse, w, t, team);
      break;
    case 12:
      butterflies<T, 12, J>(row, N, M, inverse, w, t, team);
      break;
    case 10:
      butterflies<T, 10, J>(row, N, M, inverse, w, t, team);
      break;
    case 9:
      butterflies<T, 9, J>(row, N, M, inverse, w, t, team);
      break;
    case 8:
      butterflies<T, 8, J>(row, N, M, inverse, w, t, team);
      break;
    case 6:
      butterflies<T, 6, J>(row, N, M, inverse, w, t, team);
      break;
    case 5:
      butterflies<T, 5, J>(row, N, M, inverse, w, t, team);
      break;
    case 4:
      butterflies<T, 4, J>(row, N, M, inverse, w, t, team);
      break;
    case 3:
      butterflies<T, 3, J>(row, N, M, inverse, w, t, team);
      break;
    default:
      butterflies<T, 2, J>(row, N, M, inverse, w, t, team);
  }
  team_sync(team);
}

// (4) for one row, or its inverse.
template <class T, bool Back>
inline __device__ void transport(const Device<T>& d, Cx<T>* row, unsigned t, unsigned team) {
  unsigned M = unsigned(d.a.row);
  int s = 0;
  for (; s + 1 < d.stages; ++s) stage<T, FORWARD>(d, s, row, M /= d.radix[s], t, team);
  stage<T, Back ? PHASE_BACK : PHASE>(d, s, row, 1, t, team);
  for (M = 1; --s >= 0;) stage<T, INVERSE>(d, s, row, M *= d.radix[s + 1], t, team);
}

template <class T>
__global__ void __launch_bounds__(FOURIER_THREADS, sizeof(T) == 4 ? 2 : 1) fourier_forward(const Device<T> d) {
  const Block<T> b(d);
  const Args& a = d.a;
  const int nx = int(a.nx), F = d.angles, team = blockDim.x / F, pitch = padded(a.row);
  PENDEL_SHARED(memory);
  Cx<T>* E_0 = reinterpret_cast<Cx<T>*>(memory);         // (F, pitch)
  Cx<T>*G = E_0 + F * pitch, *const layer = G + F * nx;  // (F, nx), (F)
  for (long g = b.part; g < d.groups; g += d.parts) {
    for (int p = threadIdx.x; p < a.row; p += blockDim.x)
      for (int f = 0; f < F; ++f) E_0[f * pitch + padded(p)] = b.incident(p);
    for (int i = threadIdx.x; i < F * nx; i += blockDim.x) G[i] = {0, 0};
    if (int(threadIdx.x) < F) layer[threadIdx.x] = b.layer(g * F + threadIdx.x);
    __syncthreads();
    for (long z = 0;; ++z) {
      for (int x = threadIdx.x; x < nx; x += blockDim.x) {
        T M[MATRIX];
        load(b.matrix(z, x, MATRIX), M);
        for (int f = 0; f < F; ++f) {
          Cx<T> e = E_0[f * pitch + padded(x)], h = G[f * nx + x];
          couple(M, e, h);  // (3)
          E_0[f * pitch + padded(x)] = e;
          G[f * nx + x] = z + 1 < a.nz ? layer[f] * h : h;  // (5)
        }
      }
      __syncthreads();
      if (z + 1 == a.nz) break;
      transport<T, false>(d, E_0 + threadIdx.x / team * pitch, threadIdx.x % team, team);  // (4)
      __syncthreads();
    }
    for (int f = 0; f < F && g * F + f < a.frames; ++f) {
      for (int x = threadIdx.x; x < nx; x += blockDim.x) b.leave(g * F + f, x, G[f * nx + x]);
      for (int p = threadIdx.x; a.E_0 && p < a.row; p += blockDim.x)
        static_cast<Cx<T>*>(a.E_0)[b.row(g * F + f, p)] = E_0[f * pitch + padded(p)];
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(FOURIER_THREADS, sizeof(T) == 4 ? 2 : 1) fourier_adjoint(const Device<T> d) {
  const Block<T> b(d);
  const Args& a = d.a;
  const int nx = int(a.nx), F = d.angles, team = blockDim.x / F, pitch = padded(a.row), me = threadIdx.x;
  PENDEL_SHARED(memory);
  double* scratch = reinterpret_cast<double*>(memory);                             // one per warp
  Cx<T>* E_0 = reinterpret_cast<Cx<T>*>(scratch + WARP);                           // (F, pitch), likewise adj_E_0
  Cx<T>*adj_E_0 = E_0 + F * pitch, *G = adj_E_0 + F * pitch, *adj_G = G + F * nx;  // (F, nx), likewise adj_G
  Cx<T>* layer = adj_G + F * nx;                                                   // (F)
  T* D = reinterpret_cast<T*>(layer + F);                                          // (F, blockDim)
  for (long g = b.part; g < d.groups; g += d.parts) {
    const bool first = g == b.part;
    for (int f = 0; f < F; ++f) {
      const long frame = g * F + f;
      for (int p = me; p < a.row; p += blockDim.x) {
        E_0[f * pitch + padded(p)] = frame < a.frames ? b.exit_E_0(frame, p) : Cx<T>{0, 0};
        adj_E_0[f * pitch + padded(p)] = {0, 0};
      }
      double turned = 0, turned_x = 0;
      for (int x = me; x < nx; x += blockDim.x)
        b.leave_adj(frame, x, G[f * nx + x], adj_G[f * nx + x], turned, turned_x);
      D[f * blockDim.x + me] = 0;
      b.dq_of_exit(frame, turned, turned_x, scratch);
    }
    if (me < F) layer[me] = b.layer(g * F + me);
    __syncthreads();
    for (long z = a.nz - 1;; --z) {
      for (int x = me; x < nx; x += blockDim.x) {
        T M[MATRIX_AND_INVERSE], X[SUMS], sum[SUMS] = {};
        load(b.matrix(z, x, MATRIX_AND_INVERSE), M);
        for (int f = 0; f < F; ++f) {
          const int p = f * pitch + padded(x), q = f * nx + x;
          // Reverse (3): (E_0, G) <- M (E_0, G)
          Cx<T> e = E_0[p], h = G[q], adj_e = adj_E_0[p], adj_h = adj_G[q];
          couple_adj(M, e, h, adj_e, adj_h, X);
#pragma unroll
          for (int i = 0; i < SUMS; ++i) sum[i] += X[i];
          E_0[p] = e, adj_E_0[p] = adj_e;
          if (z > 0) {
            // Reverse (5): G <- exp(-i D dz) G
            D[f * blockDim.x + me] += turning(adj_h, h);
            h = conj_mul(layer[f], h), adj_h = conj_mul(layer[f], adj_h);
          }
          G[q] = h, adj_G[q] = adj_h;
        }
        store_sums(sum, first, b.sum(z, x));
      }
      __syncthreads();
      if (z == 0) break;
      // Reverse (4): E_0(x) <- E_0(x - dz tan 2theta)
#pragma unroll 1
      for (int which = 0; which < 2; ++which)  // E_0, then adj_E_0 behind it
        transport<T, true>(d, E_0 + (which * F + me / team) * pitch, me % team, team);
      __syncthreads();
    }
    double lost = 0, there = 0;
    for (int p = me; p < a.row; p += blockDim.x) {
      Cx<T> through{0, 0};
      for (int f = 0; f < F; ++f) {
        const Cx<T> e = E_0[f * pitch + padded(p)];
        through = through + adj_E_0[f * pitch + padded(p)], there += norm(e), b.enter_state(g * F + f, p, e);
      }
      b.enter_adj(first, p, through);
    }
    for (int f = 0; f < F; ++f) {
      b.dq_of_march(g * F + f, D[f * blockDim.x + me], scratch);
      for (int x = me; x < nx; x += blockDim.x) {
        lost += norm(G[f * nx + x]);
        if (a.entrance_G && g * F + f < a.frames)
          static_cast<Cx<T>*>(a.entrance_G)[b.exit(g * F + f, x)] = G[f * nx + x];
      }
    }
    b.finish_drift(first, lost, there, scratch);
    __syncthreads();
  }
}

inline long shift_columns(const Args& a, bool single) {  // columns per thread
  const long threads = single ? 512 : 256;
  for (long c : {1, 2, 4, 8})
    if (a.nx <= threads * c && (single || c <= 4)) return c;
  throw std::invalid_argument("shape: expected nx <= " + std::to_string(single ? 4096 : 1024) +
                              " for device 'cuda' with transport 'shift', got " + std::to_string(a.nx));
}
inline int fourier_threads(int angles) { return angles >= 4 ? WARP * angles : int(FOURIER_THREADS); }
template <class T>
std::size_t fourier_shared(const Args& a, int angles, bool adjoint) {
  const std::size_t row = padded(a.row) + a.nx, fields = (adjoint ? 2 : 1) * row + 1;
  const std::size_t sums = adjoint ? WARP * sizeof(double) + fourier_threads(angles) * angles * sizeof(T) : 0;
  return sums + angles * fields * sizeof(Cx<T>);
}

// Cuts the workspace up; bytes: how much of it there must be.
template <class T>
Device<T> plan(const Args& a, bool adjoint, std::size_t& bytes) {
  constexpr bool single = sizeof(T) == 4;
  Device<T> d{};
  d.a = a;
  d.exact = {{a.m.re, a.m.im}, {a.w.re, a.w.im}, {a.b.re, a.b.im}, {a.c.re, a.c.im}};
  d.medium = {cast<T>(d.exact.m), cast<T>(d.exact.w), cast<T>(d.exact.b), cast<T>(d.exact.c)};
  d.powers = Powers<T>::of(d.exact.m);
  if (a.scheme != STRANG || a.tan_h > 0)
    throw std::invalid_argument("device: expected 'cpu' with scheme 'etd2rk' or orientation 'symmetric', got 'cuda'");
  if (a.shift) {
    d.angles = int((single ? 8 : 4) / shift_columns(a, single));
  } else {
    d.radix[d.stages++] = COLUMN;
    for (int r : radices_of(a.row / COLUMN)) d.radix[d.stages++] = r;
    for (long s = 0, M = a.row; s < d.stages; ++s)
      M /= d.radix[s], d.inverse[s] = M > 1 ? unsigned((1ull << 32) / M + 1) : 0;
    d.angles = 8;
    while (d.angles > 1 && fourier_shared<T>(a, d.angles, adjoint) > GOOD_SHARED) d.angles /= 2;
    if (fourier_shared<T>(a, d.angles, adjoint) > MOST_SHARED)
      throw std::invalid_argument("shape: expected a shorter row for device 'cuda' with transport 'fourier', got " +
                                  std::to_string(a.row) + " places");
  }
  d.groups = (a.frames + d.angles - 1) / d.angles;
  d.parts = adjoint ? std::max(1l, std::min({d.groups, long(MOST_PARTS), (GOOD_BLOCKS + a.ny - 1) / a.ny})) : d.groups;
  bytes = 0;
  auto cut = [&](auto*& pointer, long count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(static_cast<char*>(a.workspace) + bytes);
    bytes += (count * sizeof(*pointer) + 255) / 256 * 256;
  };
  const long voxels = a.nz * a.ny * a.nx;
  cut(d.matrices, voxels * (adjoint ? MATRIX_AND_INVERSE : MATRIX));
  cut(d.sums, adjoint ? d.parts * voxels * SUMS : 0);
  cut(d.layer, a.frames), cut(d.ramp_x, a.frames * a.exit), cut(d.ramp_y, a.frames * a.ny);
  cut(d.adj_row, adjoint ? d.parts * a.ny * a.row : 0), cut(d.drift, adjoint ? d.parts * a.ny : 0);
  cut(d.phase_E_0, a.shift ? 0 : a.row), cut(d.twiddle, a.shift ? 0 : d.stages * a.row);
  return d;
}

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}
#if defined(PENDEL_EMULATED)
using emulator::launch;
#else
template <class... P>
void launch(void (*kernel)(P...), long blocks, int threads, std::size_t shared, void* stream, const P&... arguments) {
  if (shared > 48 * 1024) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
  kernel<<<unsigned(blocks), threads, shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
  check(cudaGetLastError());
}
#endif

template <class T>
void each(void (*kernel)(const Device<T>), long count, const Device<T>& d) {
  constexpr int threads = 128;
  launch(kernel, (count + threads - 1) / threads, threads, 0, d.a.stream, d);
}

template <class T, int F, int C>
void march_shift(const Device<T>& d, bool adjoint) {
  const int threads = int((d.a.nx + C * WARP - 1) / (C * WARP) * WARP);
  const std::size_t handed = 2 * F * d.a.nx * sizeof(Cx<T>);
  launch(adjoint ? shift_adjoint<T, F, C> : shift_forward<T, F, C>, d.parts * d.a.ny, threads,
         adjoint ? WARP * sizeof(double) + 2 * handed + F * sizeof(Cx<T>) : handed, d.a.stream, d);
}

template <class T>
void run(const Args& a, bool adjoint) {
  std::size_t bytes;
  const Device<T> d = plan<T>(a, adjoint, bytes);
  check(cudaSetDevice(a.device));
  const long voxels = a.nz * a.ny * a.nx;
  each<T>(tables<T>, std::max({a.frames * a.exit, a.frames * a.ny, a.row}), d);
  each<T>(adjoint ? matrices<T, MATRIX_AND_INVERSE> : matrices<T, MATRIX>, voxels, d);
  constexpr int most = sizeof(T) == 4 ? 8 : 4;
  if (!a.shift)
    launch(adjoint ? fourier_adjoint<T> : fourier_forward<T>, d.parts * a.ny, fourier_threads(d.angles),
           fourier_shared<T>(a, d.angles, adjoint), a.stream, d);
  else if (d.angles == most)
    march_shift<T, most, 1>(d, adjoint);
  else if (d.angles == most / 2)
    march_shift<T, most / 2, 2>(d, adjoint);
  else if (d.angles == most / 4)
    march_shift<T, most / 4, 4>(d, adjoint);
  else if constexpr (most == 8)
    march_shift<T, 1, 8>(d, adjoint);
  if (adjoint) each<T>(gradient<T>, std::max({voxels, a.ny * a.row, a.ny}), d);
}

}  // namespace PENDEL_ISA

void forward_cuda(const Args& args, bool single) {
  single ? PENDEL_ISA::run<float>(args, false) : PENDEL_ISA::run<double>(args, false);
}
void adjoint_cuda(const Args& args, bool single) {
  single ? PENDEL_ISA::run<float>(args, true) : PENDEL_ISA::run<double>(args, true);
}
std::size_t workspace_cuda(const Args& args, bool single, bool adjoint) {
  std::size_t bytes;
  single ? void(PENDEL_ISA::plan<float>(args, adjoint, bytes)) : void(PENDEL_ISA::plan<double>(args, adjoint, bytes));
  return bytes;
}

std::map<std::string, std::string> cuda_state() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || !driver) return {{"problem", "no NVIDIA driver"}};
  const auto dotted = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  std::map<std::string, std::string> state{{"driver", "CUDA " + dotted(driver)}};
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || !count) state["problem"] = error == cudaSuccess ? "no device" : cudaGetErrorString(error);
  for (int i = 0; error == cudaSuccess && i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    state["device " + std::to_string(i)] = std::string(p.name) + ", compute capability " + std::to_string(p.major) +
                                           "." + std::to_string(p.minor) + ", " +
                                           std::to_string(p.totalGlobalMem >> 20) + " MiB";
  }
  return state;
}

}  // namespace pendel
