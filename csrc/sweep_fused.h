// The fused marches of the CUDA engine, strang with z along k_h: fields stay on chip from the first layer to the last.
//
// A block takes one y row and, one after another, groups of F rocking angles, and keeps their fields on chip for the
// whole march. Coupling: a thread owns columns x and takes every angle of the group through one voxel, so the matrix is
// read once per group and the gradient sums (B) are added in its registers in the order of the angles: no atomics, no
// shuffles, the same bits from run to run. Angles are dealt to `parts` blocks per row; their sums are added in the
// order of the parts at the end (gradient). How many parts and angles depends on the problem only, not on the device.
#pragma once
#include "sweep_cuda.h"

namespace pendel {
namespace PENDEL_ISA {

// Transport shift: in the frame that moves with E_0, place p = x + m (nz - 1 - z), (4) is nothing at all. A thread owns
// C columns x, x + blockDim, ..., and keeps G of F frames in registers; E_0 after layer z is handed from column x to
// column x + m through shared memory, two buffers in turn, one barrier per layer. It comes in from the incident row
// where no column hands over, and leaves to the exit row likewise; the adjoint the other way round.
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
      const bool stores = stored(a, z);
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
          if (stores) b.store(z, g * F + f, x, E_0, G[c][f]);
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
__global__ void __launch_bounds__(sizeof(T) == 4 ? 512 : 256, 1) shift_adjoint(const Device<T> d) {
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
      if (stored(a, z)) {
        T off = 0, size = 0;
#pragma unroll
        for (int c = 0; c < C; ++c)
#pragma unroll
          for (int f = 0; f < F; ++f) {
            const int x = threadIdx.x + c * blockDim.x;
            if (x >= nx || g * F + f >= a.frames) continue;
            if (x + m < nx)  // else E_0 comes from the exit
              b.take_up(z, 0, g * F + f, x, handed[((side ^ 1) * F + f) * nx + x + m], off, size);
            b.take_up(z, 1, g * F + f, x, G[c][f], off, size);
          }
        b.note_drift(first, z, off, size, scratch);
      }
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
    b.note_drift(first, -1, lost, there, scratch);
  }
}

enum { FOURIER_THREADS = 256, GOOD_SHARED = 112 * 1024 };

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
      const bool stores = stored(a, z);
      for (int x = threadIdx.x; x < nx; x += blockDim.x) {
        T M[MATRIX];
        load(b.matrix(z, x, MATRIX), M);
        for (int f = 0; f < F; ++f) {
          Cx<T> e = E_0[f * pitch + padded(x)], h = G[f * nx + x];
          couple(M, e, h);  // (3)
          if (stores) b.store(z, g * F + f, x, e, h);
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
      if (stored(a, z)) {
        T off = 0, size = 0;
        for (int x = me; x < nx; x += blockDim.x)
          for (int f = 0; f < F && g * F + f < a.frames; ++f) {
            b.take_up(z, 0, g * F + f, x, E_0[f * pitch + padded(x)], off, size);
            b.take_up(z, 1, g * F + f, x, G[f * nx + x], off, size);
          }
        b.note_drift(first, z, off, size, scratch);
      }
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
    b.note_drift(first, -1, lost, there, scratch);
    __syncthreads();
  }
}

inline int fourier_threads(int angles) { return angles >= 4 ? WARP * angles : int(FOURIER_THREADS); }
template <class T>
std::size_t fourier_shared(const Args& a, int angles, bool adjoint) {
  const std::size_t row = padded(a.row) + a.nx, fields = (adjoint ? 2 : 1) * row + 1;
  const std::size_t sums = adjoint ? WARP * sizeof(double) + fourier_threads(angles) * angles * sizeof(T) : 0;
  return sums + angles * fields * sizeof(Cx<T>);
}

inline long shift_columns(const Args& a, bool single) {  // columns per thread of the fused march; 0: too many
  const long threads = single ? 512 : 256;
  for (long c : {1, 2, 4, 8})
    if (a.nx <= threads * c && (single || c <= 4)) return c;
  return 0;
}
template <class T>
bool fused(const Args& a, bool adjoint) {
  if (a.scheme != Scheme::STRANG || a.orientation != Orientation::K_H || a.unfused) return false;
  if (a.transport == Transport::SHIFT) return shift_columns(a, sizeof(T) == 4) > 0;
  if (a.transport == Transport::BOX) return false;
  return fourier_shared<T>(a, 1, adjoint) <= FUSED_SHARED;
}
}  // namespace PENDEL_ISA
}  // namespace pendel
