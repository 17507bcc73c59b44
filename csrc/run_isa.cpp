// The sweeps for one instruction set: compiled once per set with its own PENDEL_ISA and PENDEL_BYTES (register width).
#include <atomic>
#include <cmath>
#include <exception>
#include <system_error>
#include <thread>

#include "filter.h"
#include "run.h"
#include "sweep_box.h"
#include "sweep_etd2rk.h"
#include "sweep_k_h.h"
#include "sweep_symmetric.h"

namespace pendel {
namespace PENDEL_ISA {

// Copies lanes to and from frames: array is (frames, ny, length) complex, the row y of that frame and the next ones. W
// places of W lanes at a time, as a transposition in registers.
template <class T, class R, class Copy>
void over_blocks(const Args& a, long frame, long y, long length, Copy copy) {
  constexpr int W = PENDEL_BYTES / sizeof(T), packs = lanes<T, R> / W;
  for (long x = 0; x < length; x += W)
    for (int pack = 0; pack < packs; ++pack) {
      const long first = frame + pack * W, count = std::min<long>(W, length - x);
      copy(2 * packs * x + pack, count, std::min<long>(W, a.frames - first), 2 * ((first * a.ny + y) * length + x));
    }
}
template <class T, class R>
void store_frames(void* array, const Args& a, long frame, long y, long length, const Cx<R>* row) {
  constexpr int W = PENDEL_BYTES / sizeof(T), packs = lanes<T, R> / W;
  typedef Pack<T, W> V;
  over_blocks<T, R>(a, frame, y, length, [&](long place, long count, long frames, long to) {
    const V* in = reinterpret_cast<const V*>(row) + place;
    V re[W], im[W];
    for (int i = 0; i < W; ++i) {
      const long at = 2 * packs * std::min<long>(i, count - 1);
      re[i] = in[at], im[i] = in[at + packs];
    }
    transpose<T, W, W>(re), transpose<T, W, W>(im);
    T* out = static_cast<T*>(array) + to;
    for (long l = 0; l < frames; ++l, out += 2 * a.ny * length) {
      const V pair[2] = {zip<T, W, 0>(re[l], im[l]), zip<T, W, 1>(re[l], im[l])};
      copy_values<T, 2 * W>(out, pair, 2 * count);
    }
  });
}
template <class T, class R>
void load_frames(const void* array, const Args& a, long frame, long y, long length, Cx<R>* row) {
  constexpr int W = PENDEL_BYTES / sizeof(T), packs = lanes<T, R> / W;
  typedef Pack<T, W> V;
  over_blocks<T, R>(a, frame, y, length, [&](long place, long count, long frames, long from) {
    V* out = reinterpret_cast<V*>(row) + place;
    V re[W], im[W];
    const T* in = static_cast<const T*>(array) + from;
    for (int l = 0; l < W; ++l, in += 2 * a.ny * length) {
      V pair[2] = {};
      if (l < frames) copy_values<T, 2 * W>(pair, in, 2 * count);
      unzip<T, W>(pair[0], pair[1], re[l], im[l]);
    }
    transpose<T, W, W>(re), transpose<T, W, W>(im);  // its own inverse
    for (long i = 0; i < count; ++i) out[2 * packs * i] = re[i], out[2 * packs * i + packs] = im[i];
  });
}

#if defined(PENDEL_PLANTED_RACE)  // what the thread sanitizer must find: tests/sanitize.sh
typedef long Counter;
#else
typedef std::atomic<long> Counter;
#endif

// Rows, or layers, are handed to threads as they come; each one's results depend on it alone, so the bits do not depend
// on the number of threads.
template <class Work>
void over_parts(long parts, int most_threads, Work work) {
  Counter next{0};
  std::exception_ptr failure;
  std::atomic<bool> failed{false};
  auto body = [&] {
    try {
      work(next);
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  try {
    for (long i = 1; i < std::min<long>(most_threads, parts); ++i) threads.emplace_back(body);
  } catch (const std::system_error&) {  // no more threads to be had: the ones there are do all of it
  }
  body();
  for (auto& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

// The two fields at the columns of the box, as they stand behind layer z, and their places in `layers`.
template <class R, class T, int W>
Cx<R>* box_of(Row<T, W>& r, long z, int field) {
  const Args& a = r.a;
  const long E_0 = a.shift ? a.shift * (a.nz - 1 - z) : a.tan_h > 0 ? a.row - a.nx : 0;
  const long G = a.tan_h == 0 ? 0 : a.shift ? a.shift * z : a.row - a.nx;
  return field == 0 ? r.template fields<R>(r.E_0) + E_0 : r.template fields<R>(r.G) + G;
}
template <class T>
T* layer_of(const Args& a, long z, int field) {
  return static_cast<T*>(a.layers) + 2 * (z / a.resync * 2 + field) * a.frames * a.ny * a.nx;
}
template <class R, class T, int W>
void store_layer(Row<T, W>& r, long g, long y, long z) {
  for (int field : {0, 1}) store_frames<T>(layer_of<T>(r.a, z, field), r.a, g * W, y, r.a.nx, box_of<R>(r, z, field));
}
// Takes up the stored fields in place of the reversed ones; how far those were from them.
template <class R, class T, int W>
double load_layer(Row<T, W>& r, long g, long y, long z) {
  const Args& a = r.a;
  Cx<R>* const stored = r.template fields<R>(r.stored);
  R lost = {}, there = {};
  for (int field : {0, 1}) {
    Cx<R>* const box = box_of<R>(r, z, field);
    load_frames<T>(layer_of<T>(a, z, field), a, g * W, y, a.nx, stored);
    for (long x = 0; x < a.nx; ++x) {
      lost = lost + norm(box[x] - stored[x]), there = there + norm(stored[x]);
      box[x] = stored[x];
    }
  }
  const Cx<R>* adj_E_0 = r.template fields<R>(r.adj_E_0) + a.shift * (a.nz - 1 - z);
  const Cx<R>* adj_G = r.template fields<R>(r.adj_G);
  for (long x = 0; x < a.nx && r.is_lifted; ++x)  // (L5) begins anew
    add_lane_sums<T, W>(r.lifted.restart_at(z, x), product(adj_E_0[x], box_of<R>(r, z, 0)[x]),
                        product(adj_G[x], box_of<R>(r, z, 1)[x]));
  return Row<T, W>::relative(lane_sum<T, W>(lost), lane_sum<T, W>(there));
}

// The angles of a group, R lanes of them, through row y.
template <class R, class T, int W>
void forward(Row<T, W>& r, long g, long y) {
  const Args& a = r.a;
  r.template enter<R>();
  for (long z = 0, to; z < a.nz; z = to) {
    to = std::min(z + a.resync, a.nz);
    if (r.by_columns())
      a.transport == Transport::BOX ? Box<T, W>::template march<R>(r, g, z, to)
                                    : Shift<T, W>::template march<R>(r, g, z, to);
    else if constexpr (lanes<T, R> > W)
      return;  // no others take pairs: Row::packs
    else if (a.orientation == Orientation::SYMMETRIC)
      Symmetric<T, W>::march(r, g, z, to);
    else if (a.scheme == Scheme::ETD2RK)
      Etd2rk<T, W>::march(r, g);
    else
      Fourier<T, W>::march(r, g, z, to);
    if (a.layers && to < a.nz) store_layer<R>(r, g, y, to - 1);
  }
  const Cx<R> exit = r.t.template exit_phase<R>(g, y);
  Cx<R>* const G = r.template fields<R>(r.G);
  for (long x = 0; x < a.exit; ++x) G[x] = exit * r.t.template ramp<R>(g, x) * G[x];  // (5), (6)
  store_frames<T>(a.E_h, a, g * W, y, a.exit, G);
  if (a.E_0) store_frames<T>(a.E_0, a, g * W, y, a.row, r.template fields<R>(r.E_0));
}
template <class R, class T, int W>
void add_adj_incident(Row<T, W>& r, long y) {
  const Cx<R>* adj_E_0 = r.template fields<R>(r.adj_E_0);
  T* sums = static_cast<T*>(r.a.adj_incident) + 2 * y * r.a.row;
  long p = 0;
  for (; p + 1 < r.a.row; p += 2) add_lane_sums<T, W>(sums + 2 * p, over_packs(adj_E_0[p]), over_packs(adj_E_0[p + 1]));
  if (p == r.a.row) return;
  sums[2 * p] += lane_sum<T, W>(adj_E_0[p].re);
  sums[2 * p + 1] += lane_sum<T, W>(adj_E_0[p].im);
}
template <class R, class T, int W>
void adjoint(Row<T, W>& r, long g, long y) {
  const Args& a = r.a;
  Cx<R>*const G = r.template fields<R>(r.G), *const adj_G = r.template fields<R>(r.adj_G);
  Cx<R>*const E_0 = r.template fields<R>(r.E_0), *const adj_E_0 = r.template fields<R>(r.adj_E_0);
  load_frames<T>(a.E_h, a, g * W, y, a.exit, G);
  load_frames<T>(a.adj_E_h, a, g * W, y, a.exit, adj_G);
  load_frames<T>(a.E_0, a, g * W, y, a.row, E_0);
  std::fill(adj_E_0, adj_E_0 + a.row, Cx<R>{R{}, R{}});
  // Reverse (6): E_h = exp(i (dq_x x + dq_y y)) G, and the last half of (5)
  const Cx<R> exit = r.t.template exit_phase<R>(g, y);
  R turned = {}, turned_x = {};
  for (long x = 0; x < a.exit; ++x) {
    const R d = Shift<T, W>::detuning(adj_G[x], G[x]);
    turned = turned + d, turned_x = turned_x + T(x - r.t.origin()) * d;
    if (r.is_lifted) r.add_exit_sum(x, product(adj_G[x], G[x]));
    const Cx<R> back = exit * r.t.template ramp<R>(g, x);
    G[x] = conj_mul(back, G[x]), adj_G[x] = conj_mul(back, adj_G[x]);
  }
  double adj_D[lanes<T, R>] = {};
  for (long to = a.nz, z; to > 0; to = z) {
    z = (to - 1) / a.resync * a.resync;
    if (r.by_columns())
      a.transport == Transport::BOX ? Box<T, W>::template march_adj<R>(r, g, z, to, adj_D)
                                    : Shift<T, W>::template march_adj<R>(r, g, z, to, adj_D);
    else if constexpr (lanes<T, R> > W)
      return;
    else if (a.orientation == Orientation::SYMMETRIC)
      Symmetric<T, W>::march_adj(r, g, z, to, adj_D);
    else if (a.scheme == Scheme::ETD2RK)
      Etd2rk<T, W>::march_adj(r, g, adj_D);
    else
      Fourier<T, W>::march_adj(r, g, z, to, adj_D);
    r.note_drift(z > 0 ? load_layer<R>(r, g, y, z - 1) : r.template drift<R>());
  }
  for (int l = 0; l < lanes<T, R> && g * W + l < a.frames && a.adj_dq; ++l) {
    double* q = a.adj_dq + 3 * (y * a.frames + g * W + l);
    q[2] = a.dz * (adj_D[l] + r.t.half() * lane<T>(turned, l));
    q[0] = -lane<T>(turned_x, l) * a.dx - a.tan_h * q[2], q[1] = -lane<T>(turned, l) * a.dy * (y - a.ny / 2);
  }
  if (a.adj_incident) add_adj_incident<R>(r, y);
  if (a.entrance_E_0) store_frames<T>(a.entrance_E_0, a, g * W, y, a.row, E_0);
  if (a.entrance_G) store_frames<T>(a.entrance_G, a, g * W, y, a.exit, G);
}

template <class T>
void forward(const Args& a) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  typedef Pack<T, W> V;
  const Tables<T, W> tables(a);
  over_parts(a.ny, a.threads, [&](Counter& next) {
    Row<T, W> r(tables, false);
    for (long y; (y = next++) < a.ny;) {
      r.begin(y);
      long g = 0;
      for (; r.packs() == 2 && g + 1 < tables.groups; g += 2) forward<Pair<V>>(r, g, y);
      for (; g < tables.groups; ++g) forward<V>(r, g, y);
    }
  });
}

template <class T>
void adjoint(const Args& a) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  typedef Pack<T, W> V;
  const Tables<T, W> tables(a);
  over_parts(a.ny, a.threads, [&](Counter& next) {
    Row<T, W> r(tables, true);
    for (long y; (y = next++) < a.ny;) {
      r.begin(y);
      T* adj_incident = static_cast<T*>(a.adj_incident);
      if (adj_incident) std::fill(adj_incident + 2 * y * a.row, adj_incident + 2 * (y + 1) * a.row, T(0));
      if (a.drift) a.drift[y] = 0;
      long g = 0;
      for (; r.packs() == 2 && g + 1 < tables.groups; g += 2) adjoint<Pair<V>>(r, g, y);
      for (; g < tables.groups; ++g) adjoint<V>(r, g, y);
      r.finish_gradient();
    }
  });
}

template <class T>
void extent(const Extent& a) {
  over_parts(a.nz, a.threads, [&](Counter& next) {
    for (long z; (z = next++) < a.nz;) extent_of_layer<T>(a, z);
  });
}

template <class T>
void filter(const Filter& a) {
  over_parts(a.nz, a.threads, [&](Counter& next) {
    for (long z; (z = next++) < a.nz;) filter_layer<T>(a, z);
  });
}

// Which rows the lifted coupling takes.
template <class T>
void lifted(const Args& a, std::uint8_t* rows) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  const Tables<T, W> tables(a);
  Row<T, W> r(tables, false);
  for (long y = 0; y < a.ny; ++y) {
    r.begin(y);
    rows[y] = r.is_lifted;
  }
}

// Bytes of what a sweep allocates: `Tables`; for each thread a `Row`, and the states of an `Etd2rk`. A row that is not
// lifted takes the matrices besides.
template <class T>
std::size_t workspace(const Args& a, bool adjoint) {
  constexpr long W = PENDEL_BYTES / sizeof(T), complex = 2 * sizeof(T);
  const bool box = a.transport == Transport::BOX, shift = a.transport == Transport::SHIFT;
  const bool lifts = box || (shift && a.orientation == Orientation::K_H),
             pairs = lifts && PENDEL_BYTES == 64 && a.frames > W;
  const long each = box ? 2 : 1;
  const long reals = lifts     ? (adjoint ? 2 * each * LIFTED + 2 : each * LIFTED)
                     : adjoint ? MATRIX_AND_INVERSE + SUMS
                               : MATRIX;
  const long matrices = a.nz * a.nx * reals * sizeof(T);
  const long gauges = lifts ? ((a.nz - 1) / a.resync + 3) * (a.row + a.nx) * complex : 0;
  const long fields = (adjoint ? 2 : 1) * (pairs ? 2 : 1) * W * (a.exit + a.row) * complex;
  const long exit_sums = adjoint && (shift || box) ? (W * a.exit + a.row) * complex : 0;
  long states = 0;  // of Etd2rk: those at work, and of an adjoint those kept and repeated
  if (a.scheme == Scheme::ETD2RK) states = adjoint ? 12 + 2 * long(std::ceil(std::sqrt(double(a.nz)))) : 6;
  const long thread = matrices + gauges + fields + exit_sums + states * W * (a.nx + a.row) * complex;
  const long tables = (a.frames + W) * (a.nz + a.exit) * complex;
  return tables + std::min<long>(a.threads, a.ny) * thread;
}

const Engine engine = {forward<float>, forward<double>, adjoint<float>, adjoint<double>,  extent<float>,
                       extent<double>, filter<float>,   filter<double>, workspace<float>, workspace<double>,
                       lifted<float>,  lifted<double>,  PENDEL_BYTES};

}  // namespace PENDEL_ISA
}  // namespace pendel
