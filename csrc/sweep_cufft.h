// The unfused marches of the CUDA engine: layer by layer, fields in global memory, row FFTs by cuFFT. For scheme
// etd2rk, for z along k_0 + k_h, and for rows that do not fit on chip. The host's schedule of these kernels is in
// run_cuda.cu.
//
// Frames go in chunks. Fields are (frames of the chunk, ny, length); frames beyond the last are marched with adjoint 0
// and never written out. Pointwise kernels over places of a row take one thread per place. Kernels that need the
// voxel's matrix take a block of TILE columns times DEEP frames: a thread takes every DEEP-th frame of the chunk
// through its voxel, and the DEEP partial sums (B) are added in order: no atomics, the same bits from run to run.
#pragma once
#include "sweep_cuda.h"

namespace pendel {
namespace PENDEL_ISA {

enum { TILE = 32, DEEP = 8, UNFUSED_THREADS = TILE * DEEP };

template <class T>
struct Chunk {
  Device<T> d;
  long first;           // its first frame
  int frames;           // of every chunk; the last may reach beyond a.frames
  bool turns;           // the coupling takes the phases (5), (10); else the spectrum does
  Cx<T>*E_0, *adj_E_0;  // (frames, ny, row)
  Cx<T>*G, *adj_G;      // (frames, ny, exit)
  T* D;                 // (frames, ny, exit) share of the place in adj_D
  inline __device__ Cx<T> layer(unsigned row) const { return d.layer[frame(row)]; }
  inline __device__ long frame(unsigned row) const {  // that row's, or the last there is
    const long f = first + row / unsigned(d.a.ny);
    return f < d.a.frames ? f : d.a.frames - 1;
  }
};

// Row (frame, y) and place of a thread, blocks covering one row after another.
inline __device__ bool place_of(long length, unsigned& row, unsigned& place) {
  const unsigned pieces = (unsigned(length) + blockDim.x - 1) / blockDim.x;
  row = blockIdx.x / pieces, place = blockIdx.x % pieces * blockDim.x + threadIdx.x;
  return place < length;
}
template <class T>
inline __device__ Block<T> block_of(const Chunk<T>& c, unsigned row) {
  const unsigned ny = unsigned(c.d.a.ny);
  return {c.d, c.first + row / ny, row % ny};
}
// Row y, column x and first frame of a thread of a coupling kernel.
struct Tile {
  unsigned first, x, y, f;
  inline __device__ explicit Tile(long length) {
    const unsigned tiles = (unsigned(length) + TILE - 1) / TILE;
    first = blockIdx.x % tiles * TILE, y = blockIdx.x / tiles;
    x = first + threadIdx.x % TILE, f = threadIdx.x / TILE;
  }
};
// Places of column 0 at layer z: transport shift in rows that move along, as sweep_k_h.h and sweep_symmetric.h have it.
inline __device__ long place_E_0(const Args& a, long z) {
  return a.shift ? a.shift * (a.nz - 1 - z) : a.tan_h > 0 ? a.row - a.nx : 0;
}
inline __device__ long place_G(const Args& a, long z) {
  return a.tan_h == 0 ? 0 : a.shift ? a.shift * z : a.row - a.nx;
}
// Layers of (10) between the last that touches place p of G and the end; transport shift, both waves moving.
inline __device__ long late(const Args& a, long p) {
  return a.tan_h > 0 && a.shift && p / a.shift < a.nz ? a.nz - 1 - p / a.shift : 0;
}

// The entrance: E_0 the incident row, G 0.
template <class T>
__global__ void enter(const Chunk<T> c) {
  const Args& a = c.d.a;
  unsigned row, p;
  place_of(a.row, row, p);
  if (p < a.row) c.E_0[row * a.row + p] = block_of(c, row).incident(p);
  if (p < a.exit) c.G[row * a.exit + p] = {0, 0};
}
// The frames' sum of adj_E_0, one thread per place of a y row.
template <class T>
__global__ void enter_adjoint(const Chunk<T> c) {
  const Args& a = c.d.a;
  unsigned y, p;
  if (!place_of(a.row, y, p)) return;
  Cx<T> sum{0, 0};
  for (int f = 0; f < c.frames; ++f) sum = sum + c.adj_E_0[(f * a.ny + y) * a.row + p];
  Block<T>(c.d, 0, y).enter_adj(c.first == 0, p, sum);
}

// (6) and the last half of (5); E_0 times `by` to the exit row.
template <class T>
__global__ void leave(const Chunk<T> c, const T by) {
  const Args& a = c.d.a;
  unsigned row, p;
  place_of(a.row, row, p);
  const Block<T> b = block_of(c, row);
  if (b.part >= a.frames) return;
  if (a.E_0 && p < a.row) static_cast<Cx<T>*>(a.E_0)[b.row(b.part, p)] = scale(c.E_0[row * a.row + p], by);
  if (p >= a.exit) return;
  Cx<T> G = c.G[row * a.exit + p];
  if (const long layers = late(a, p)) G = unit_of<T>(-detuning(a, b.part) * a.dz * double(layers)) * G;
  b.leave(b.part, p, G);
}
template <class T>
__global__ void leave_adjoint(const Chunk<T> c) {
  const Args& a = c.d.a;
  unsigned row, p;
  place_of(a.row, row, p);
  const Block<T> b = block_of(c, row);
  const bool there = b.part < a.frames;
  if (c.E_0 && p < a.row) {
    c.E_0[row * a.row + p] = there ? b.exit_E_0(b.part, p) : Cx<T>{0, 0};
    c.adj_E_0[row * a.row + p] = {0, 0};
  }
  if (p >= a.exit) return;
  const long at = row * a.exit + p, layers = late(a, p);
  Cx<T> G, adj_G;
  double turned = 0, turned_x = 0;  // counted by `finish`
  b.leave_adj(b.part, p, G, adj_G, turned, turned_x);
  c.D[at] = T(layers) * turning(adj_G, G);
  if (layers && there) {
    // Reverse (10): G <- exp(-i D dz) G, in its own place
    const Cx<T> back = unit_of<T>(-detuning(a, b.part) * a.dz * double(layers));
    G = conj_mul(back, G), adj_G = conj_mul(back, adj_G);
  }
  c.G[at] = G, c.adj_G[at] = adj_G;
}

// What ends with a frame's row: adj_dq, drift, the state at the entrance. One block per row; null E_0: as it came in.
template <class T>
__global__ void finish(const Chunk<T> c) {
  const Args& a = c.d.a;
  const Block<T> b = block_of(c, blockIdx.x);
  PENDEL_SHARED(memory);
  double* scratch = reinterpret_cast<double*>(memory);  // one per warp
  const long frame = b.part;
  if (frame >= a.frames) return;
  double turned = 0, turned_x = 0, D = 0, lost = 0, there = 0;
  for (long p = threadIdx.x; p < a.exit; p += blockDim.x) {
    Cx<T> G, adj_G;
    b.leave_adj(frame, p, G, adj_G, turned, turned_x);
    G = c.E_0 ? c.G[blockIdx.x * a.exit + p] : Cx<T>{0, 0};
    D += c.D[blockIdx.x * a.exit + p], lost += norm(G);
    if (a.entrance_G) static_cast<Cx<T>*>(a.entrance_G)[b.exit(frame, p)] = G;
  }
  for (long p = threadIdx.x; p < a.row; p += blockDim.x) {
    const Cx<T> E_0 = c.E_0 ? c.E_0[blockIdx.x * a.row + p] : b.incident(p);
    there += norm(E_0), b.enter_state(frame, p, E_0);
  }
  b.dq_of_exit(frame, turned, turned_x, scratch);
  b.dq_of_march(frame, D, scratch);
  b.note_drift(true, -1, lost, there, scratch);
}

// To and from `layers`, behind (3) of layer z. One thread per column; one block per row, which adds what was lost.
template <class T>
__global__ void store_layer(const Chunk<T> c, const int z) {
  const Args& a = c.d.a;
  unsigned row, x;
  if (!place_of(a.nx, row, x)) return;
  const Block<T> b = block_of(c, row);
  b.store(z, b.part, x, c.E_0[row * a.row + place_E_0(a, z) + x], c.G[row * a.exit + place_G(a, z) + x]);
}
template <class T>
__global__ void load_layer(const Chunk<T> c, const int z) {
  const Args& a = c.d.a;
  const Block<T> b = block_of(c, blockIdx.x);
  PENDEL_SHARED(memory);
  if (b.part >= a.frames) return;
  T lost = 0, there = 0;
  for (long x = threadIdx.x; x < a.nx; x += blockDim.x) {
    b.take_up(z, 0, b.part, x, c.E_0[blockIdx.x * a.row + place_E_0(a, z) + x], lost, there);
    b.take_up(z, 1, b.part, x, c.G[blockIdx.x * a.exit + place_G(a, z) + x], lost, there);
  }
  b.note_drift(true, z, lost, there, reinterpret_cast<double*>(memory));
}

// Layer z: (3), behind the phases (5), (10) of the layer before.
template <class T>
__global__ void __launch_bounds__(UNFUSED_THREADS) layer_forward(const Chunk<T> c, const int z) {
  const Args& a = c.d.a;
  const Tile t(a.nx);
  if (t.x >= a.nx) return;
  T M[MATRIX];
  load(c.d.matrices + ((t.y * a.nz + z) * a.nx + t.x) * MATRIX, M);
  for (int f = t.f; f < c.frames; f += DEEP) {
    const unsigned row = unsigned(f * a.ny + t.y);
    Cx<T>*E_0 = c.E_0 + row * a.row + place_E_0(a, z) + t.x, *G = c.G + row * a.exit + place_G(a, z) + t.x;
    Cx<T> e = *E_0, g = *G;
    if (c.turns && z > 0) g = c.layer(row) * g;  // (5), (10)
    couple(M, e, g);                             // (3)
    *E_0 = e, *G = g;
  }
}

// Adds the DEEP partial sums of every column in order to what there is unless `first`. Every thread of the block.
template <class T>
inline __device__ void add_sums(const Chunk<T>& c, const Tile& t, long z, bool first, const T (&sum)[SUMS],
                                T* scratch) {
  store_sums(sum, true, scratch + threadIdx.x * SUMS);
  __syncthreads();
  T total = 0;
#pragma unroll
  for (int f = 0; f < DEEP; ++f) total += scratch[f * UNFUSED_THREADS + threadIdx.x];
  const Args& a = c.d.a;
  T* at = c.d.sums + ((t.y * a.nz + z) * a.nx + t.first) * SUMS + threadIdx.x;
  if (t.first + threadIdx.x / SUMS < a.nx) *at = first ? total : *at + total;
}
static_assert(TILE * SUMS == UNFUSED_THREADS, "a thread adds one sum of one column");

template <class T>
__global__ void __launch_bounds__(UNFUSED_THREADS) layer_adjoint(const Chunk<T> c, const int z) {
  const Args& a = c.d.a;
  const Tile t(a.nx);
  PENDEL_SHARED(memory);
  T sum[SUMS] = {};
  if (t.x < a.nx) {
    T M[MATRIX_AND_INVERSE], X[SUMS];
    load(c.d.matrices + ((t.y * a.nz + z) * a.nx + t.x) * MATRIX_AND_INVERSE, M);
    for (int f = t.f; f < c.frames; f += DEEP) {
      const unsigned row = unsigned(f * a.ny + t.y);
      const long e = row * a.row + place_E_0(a, z) + t.x, g = row * a.exit + place_G(a, z) + t.x;
      Cx<T> E_0 = c.E_0[e], G = c.G[g], adj_E_0 = c.adj_E_0[e], adj_G = c.adj_G[g];
      // Reverse (3): (E_0, G) <- M (E_0, G)
      couple_adj(M, E_0, G, adj_E_0, adj_G, X);
#pragma unroll
      for (int i = 0; i < SUMS; ++i) sum[i] += X[i];
      if (c.turns && z > 0) {
        // Reverse (5), (10): G <- exp(-i D dz) G
        c.D[g] += turning(adj_G, G);
        G = conj_mul(c.layer(row), G), adj_G = conj_mul(c.layer(row), adj_G);
      }
      c.E_0[e] = E_0, c.G[g] = G, c.adj_E_0[e] = adj_E_0, c.adj_G[g] = adj_G;
    }
  }
  add_sums(c, t, z, c.first == 0, sum, reinterpret_cast<T*>(memory));
}

// (4), or (10) of both waves, on the spectra. phase_E_0 holds the 1 / N of the transforms.
template <class T>
__global__ void spectrum_forward(const Chunk<T> c) {
  const Args& a = c.d.a;
  unsigned row, q;
  if (!place_of(a.row, row, q)) return;
  const long i = row * a.row + q;
  const Cx<T> move = c.d.phase_E_0[q];
  c.E_0[i] = move * c.E_0[i];
  if (!c.turns) c.G[i] = c.layer(row) * conj_mul(move, c.G[i]);
}
template <class T>
__global__ void spectrum_adjoint(const Chunk<T> c) {
  const Args& a = c.d.a;
  unsigned row, q;
  if (!place_of(a.row, row, q)) return;
  const long i = row * a.row + q;
  const Cx<T> move = c.d.phase_E_0[q];
  // Reverse (4), (10): E_0(x) <- E_0(x - dz t)
  c.E_0[i] = conj_mul(move, c.E_0[i]), c.adj_E_0[i] = conj_mul(move, c.adj_E_0[i]);
  if (c.turns) return;
  // Reverse (10): G <- exp(-i D dz) G(x + dz t); the sum over x is that over q divided by N
  c.D[i] += turning(c.adj_G[i], c.G[i]) / T(a.row);
  const Cx<T> back = conj_mul(c.layer(row), move);
  c.G[i] = back * c.G[i], c.adj_G[i] = back * c.adj_G[i];
}

// (11) on a row of E_0 from left to right, its inverse from right to left, or its adjoint: h <- m h + by E_0 from place
// to place, which a warp does for as many places at a time as it has lanes, by a scan in a fixed order.
template <class T>
inline __device__ void box_filter_row(Cx<T>* E_0, Cx<T>* handed, long nx, T d, bool back, bool adjoint) {
  const unsigned lane = threadIdx.x % WARP;
  const T m = -d, by = adjoint ? T(1) : 1 - d * d;
  T power = m;  // m^(lane + 1)
  for (unsigned i = 0; i < lane; ++i) power *= m;
  Cx<T> carried = *handed;
  for (long first = 0; first < nx; first += WARP) {
    const long i = first + lane, x = back ? nx - 1 - i : i;
    const Cx<T> E = i < nx ? E_0[x] : Cx<T>{0, 0};
    Cx<T> h = scale(E, by);
    T over = m;
    for (unsigned step = 1; step < WARP; step *= 2, over *= over) {
      const Cx<T> before{__shfl_up_sync(0xffffffffu, h.re, step), __shfl_up_sync(0xffffffffu, h.im, step)};
      if (lane >= step) h = h + scale(before, over);
    }
    h = h + scale(carried, power);
    Cx<T> before{__shfl_up_sync(0xffffffffu, h.re, 1), __shfl_up_sync(0xffffffffu, h.im, 1)};
    if (lane == 0) before = carried;
    if (i < nx) E_0[x] = before + scale(adjoint ? h : E, d);
    const long left = nx - first;
    const int last = left < WARP ? int(left) - 1 : WARP - 1;
    carried = {__shfl_sync(0xffffffffu, h.re, last), __shfl_sync(0xffffffffu, h.im, last)};
  }
  if (lane == 0) *handed = carried;
}
// (11) between layers z - 1 and z, or back with the adjoint. One warp per row.
template <class T>
__global__ void box_filter(const Chunk<T> c, const unsigned rows, const int z, const bool back) {
  const Args& a = c.d.a;
  const unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const long start = row * a.row, handed = start + a.nx + z - 1;
  const T d = T(box_coefficient(a.pixels));
  box_filter_row(c.E_0 + start, c.E_0 + handed, a.nx, d, back, false);
  if (back) box_filter_row(c.adj_E_0 + start, c.adj_E_0 + handed, a.nx, d, true, true);
}

// etd2rk, (8) and (9). Rows in space that come from an inverse transform are still to be divided by N.
template <class T>
struct Node {
  int n;
  const Cx<T>*E, *H, *g;            // (row) null: the incident row; (nx) null: 0; (nx) added to H unless null
  Cx<T>*out, *out_H, *new_H;        // V (E, H); where `new_H` is not null, that gets H + (out_H - g) / 2 instead
  const Cx<T>*adj_out, *from, *of;  // (row) null: 0; adj_out_H = from - of / 2
  Cx<T>*adj_E, *adj_H;              // V^H; what adj_E held, divided by N, is kept if `adds`; adj_H <- from + ...
  bool adds, opens;                 // opens: nothing has gone through this node before (two steps share it)
};
template <class T>
inline __device__ void node_state(const Chunk<T>& c, const Node<T>& s, const Tile& t, unsigned row, Cx<T>& E,
                                  Cx<T>& H) {
  const Args& a = c.d.a;
  const long k = row * a.nx + t.x;
  E = s.E ? scale(s.E[row * a.row + t.x], T(1) / T(a.row)) : Block<T>(c.d, 0, t.y).incident(t.x);
  H = s.H ? s.H[k] : Cx<T>{0, 0};
  if (s.g) H = H + s.g[k];
}
template <class T>
__global__ void __launch_bounds__(UNFUSED_THREADS) generator_forward(const Chunk<T> c, const Node<T> s) {
  const Args& a = c.d.a;
  const Tile t(a.row);
  if (t.x >= a.row) return;
  T M[MATRIX] = {};
  if (t.x < a.nx) load(c.d.matrices + ((t.y * a.nz + s.n) * a.nx + t.x) * MATRIX, M);
  for (int f = t.f; f < c.frames; f += DEEP) {
    const unsigned row = unsigned(f * a.ny + t.y);
    const long k = row * a.nx + t.x;
    Cx<T> E, H, out{0, 0}, h;
    if (t.x < a.nx) {
      const Cx<T> P = c.d.turns[s.n * a.frames + c.frame(row)];
      node_state(c, s, t, row, E, H);
      multiply(M, E, P * H, out, h);
      h = conj_mul(P, h);
      if (s.new_H)
        s.new_H[k] = H + scale(s.g ? h - s.g[k] : h, T(0.5));
      else
        s.out_H[k] = h;
    }
    s.out[row * a.row + t.x] = out;
  }
}
template <class T>
__global__ void __launch_bounds__(UNFUSED_THREADS) generator_adjoint(const Chunk<T> c, const Node<T> s) {
  const Args& a = c.d.a;
  const Tile t(a.row);
  PENDEL_SHARED(memory);
  T M[MATRIX] = {}, sum[SUMS] = {};
  if (t.x < a.nx) load(c.d.matrices + ((t.y * a.nz + s.n) * a.nx + t.x) * MATRIX, M);
  for (int f = t.f; f < c.frames && t.x < a.row; f += DEEP) {
    const unsigned row = unsigned(f * a.ny + t.y);
    const long i = row * a.row + t.x, k = row * a.nx + t.x;
    Cx<T> adj_E{0, 0}, E, H, out, h, adj_G;
    if (t.x < a.nx) {
      // Reverse: out_H = conj(P) h,  (out, h) = V (E, P H)
      const Cx<T> P = c.d.turns[s.n * a.frames + c.frame(row)];
      node_state(c, s, t, row, E, H);
      const Cx<T> G = P * H, from = s.from[k], adj_h = P * (from - scale(s.of[k], T(0.5)));
      const Cx<T> adj_out = s.adj_out ? scale(s.adj_out[i], T(1) / T(a.row)) : Cx<T>{0, 0};
      multiply(M, E, G, out, h);
      multiply_adj(M, adj_out, adj_h, adj_E, adj_G);
      const Cx<T> X00 = conj_mul(adj_out, E), X0h = conj_mul(adj_out, G);
      const Cx<T> Xh0 = conj_mul(adj_h, E), Xhh = conj_mul(adj_h, G);
      sum[0] += X00.re, sum[1] += X00.im, sum[2] += X0h.re, sum[3] += X0h.im;
      sum[4] += Xh0.re, sum[5] += Xh0.im, sum[6] += Xhh.re, sum[7] += Xhh.im;
      // Reverse: P = exp(i D dz (nz - 1 - n)), on both sides
      c.D[k] += (turning(adj_h, h) - turning(adj_G, G)) * T(a.nz - 1 - s.n);
      s.adj_H[k] = from + conj_mul(P, adj_G);
    }
    if (s.adds) adj_E = adj_E + scale(s.adj_E[i], T(1) / T(a.row));
    s.adj_E[i] = adj_E;
  }
  if (t.first < a.nx) add_sums(c, t, s.n, s.opens && c.first == 0, sum, reinterpret_cast<T*>(memory));
}

// The multipliers of (8) and (9) on spectra x, y, z. In the adjoint x is the spectrum of the adjoint row.
enum Multiply { FIRST, STAGE, CORRECT, LAST };
template <class T>
__global__ void multiply_forward(const Chunk<T> c, const Multiply job, Cx<T>* out, const Cx<T>* x, const Cx<T>* y,
                                 const Cx<T>* z) {
  const long N = c.d.a.row;
  unsigned row, q;
  if (!place_of(N, row, q)) return;
  const long i = row * N + q;
  const Cx<T> propagate = c.d.etd[q], phi_1 = c.d.etd[N + q], phi_2 = c.d.etd[2 * N + q];
  if (job == FIRST) out[i] = x[i] + phi_2 * y[i];              // (9), g_1 = 0
  if (job == STAGE) out[i] = propagate * x[i] + phi_1 * y[i];  // (8)
  if (job == CORRECT) out[i] = x[i] + phi_2 * (y[i] - z[i]);   // (9)
  if (job == LAST)
    out[i] = x[i] + conj_mul(propagate, (phi_1 - phi_2) * y[i]);  // (8), (9) with g_2 = 0, back by exp(-L)
}
template <class T>
__global__ void multiply_adjoint(const Chunk<T> c, const Multiply job, Cx<T>* adj, Cx<T>* adj_g, Cx<T>* y) {
  const long N = c.d.a.row;
  unsigned row, q;
  if (!place_of(N, row, q)) return;
  const long i = row * N + q;
  const Cx<T> propagate = c.d.etd[q], phi_1 = c.d.etd[N + q], phi_2 = c.d.etd[2 * N + q];
  const Cx<T> adj_U = adj[i];
  // Reverse (9): u <- A + phi_2 (g_2 - g_1): adj_g of g_2
  if (job == CORRECT) adj_g[i] = conj_mul(phi_2, adj_U);
  // Reverse (9), (8): adj_A, with what came through g_2 in y; adj_g of g_1
  if (job == STAGE) adj[i] = y[i] + adj_U, adj_g[i] = conj_mul(phi_1, y[i] + adj_U) - conj_mul(phi_2, adj_U);
  // Reverse (8): A = exp(L) u + phi_1 g_1, with what came through g_1 in y
  if (job == FIRST) adj[i] = conj_mul(propagate, adj_U) + y[i];
}

}  // namespace PENDEL_ISA
}  // namespace pendel
