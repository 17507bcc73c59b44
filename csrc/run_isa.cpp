// The sweeps for one instruction set: compiled once per set with its own PENDEL_ISA and PENDEL_BYTES (register width).
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>

#include "run.h"
#include "sweep_etd2rk.h"
#include "sweep_k_h.h"
#include "sweep_symmetric.h"

namespace pendel {
namespace PENDEL_ISA {

// Rows are handed to threads as they come; each row's results depend on that row alone, so the bits do not depend on
// the number of threads.
template <class Work>
void over_rows(const Args& a, Work work) {
  std::atomic<long> next{0};
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
    for (long i = 1; i < std::min<long>(a.threads, a.ny); ++i) threads.emplace_back(body);
  } catch (const std::system_error&) {  // no more threads to be had: the ones there are do all rows
  }
  body();
  for (auto& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

template <class T>
void forward(const Args& a) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  typedef Pack<T, W> V;
  const Tables<T, W> tables(a);
  over_rows(a, [&](std::atomic<long>& next) {
    Row<T, W> r(tables, false);
    for (long y; (y = next++) < a.ny;) {
      r.begin(y);
      for (long g = 0; g < tables.groups; ++g) {
        r.enter();
        if (a.tan_h > 0)
          Symmetric<T, W>::march(r, g);
        else if (a.scheme == ETD2RK)
          Etd2rk<T, W>::march(r, g);
        else
          a.shift ? Shift<T, W>::march(r, g) : Fourier<T, W>::march(r, g);
        const Cx<V> exit = tables.exit_phase(g, y), *ramp = &tables.ramp_x[g * a.exit];
        for (long x = 0; x < a.exit; ++x) r.G[x] = exit * ramp[x] * r.G[x];  // (5), (6)
        store_frames<T, W>(a.E_h, a, g, y, a.exit, r.G.data());
        if (a.E_0) store_frames<T, W>(a.E_0, a, g, y, a.row, r.E_0.data());
      }
    }
  });
}

template <class T>
void adjoint(const Args& a) {
  constexpr int W = PENDEL_BYTES / sizeof(T);
  typedef Pack<T, W> V;
  const Tables<T, W> tables(a);
  over_rows(a, [&](std::atomic<long>& next) {
    Row<T, W> r(tables, true);
    for (long y; (y = next++) < a.ny;) {
      r.begin(y);
      T* adj_incident = a.adj_incident ? static_cast<T*>(a.adj_incident) + 2 * y * a.row : nullptr;
      if (a.drift) a.drift[y] = 0;
      if (adj_incident) std::fill(adj_incident, adj_incident + 2 * a.row, T(0));
      for (long g = 0; g < tables.groups; ++g) {
        load_frames<T, W>(a.E_h, a, g, y, a.exit, r.G.data());
        load_frames<T, W>(a.adj_E_h, a, g, y, a.exit, r.adj_G.data());
        load_frames<T, W>(a.E_0, a, g, y, a.row, r.E_0.data());
        std::fill(r.adj_E_0.begin(), r.adj_E_0.end(), Cx<V>{V{}, V{}});
        // Reverse (6): E_h = exp(i (dq_x x + dq_y y)) G, and the last half of (5)
        const Cx<V> exit = tables.exit_phase(g, y), *ramp = &tables.ramp_x[g * a.exit];
        V turned = {}, turned_x = {};
        for (long x = 0; x < a.exit; ++x) {
          const V d = Shift<T, W>::detuning(r.adj_G[x], r.G[x]);
          turned += d, turned_x += d * T(x - tables.origin());
          const Cx<V> back = exit * ramp[x];
          r.G[x] = conj_mul(back, r.G[x]), r.adj_G[x] = conj_mul(back, r.adj_G[x]);
        }
        double adj_D[W] = {};
        if (a.tan_h > 0)
          Symmetric<T, W>::march_adj(r, g, adj_D);
        else if (a.scheme == ETD2RK)
          Etd2rk<T, W>::march_adj(r, g, adj_D);
        else
          a.shift ? Shift<T, W>::march_adj(r, g, adj_D) : Fourier<T, W>::march_adj(r, g, adj_D);
        for (int l = 0; l < W && g * W + l < a.frames && a.adj_dq; ++l) {
          double* q = a.adj_dq + 3 * (y * a.frames + g * W + l);
          q[2] = a.dz * (adj_D[l] + tables.half() * turned[l]);
          q[0] = -turned_x[l] * a.dx - a.tan_h * q[2], q[1] = -turned[l] * a.dy * (y - a.ny / 2);
        }
        for (long p = 0; adj_incident && p < a.row; ++p) {
          adj_incident[2 * p] += lane_sum<T, W>(r.adj_E_0[p].re);
          adj_incident[2 * p + 1] += lane_sum<T, W>(r.adj_E_0[p].im);
        }
        if (a.drift) a.drift[y] = std::max(a.drift[y], r.drift());
        if (a.entrance_E_0) store_frames<T, W>(a.entrance_E_0, a, g, y, a.row, r.E_0.data());
        if (a.entrance_G) store_frames<T, W>(a.entrance_G, a, g, y, a.exit, r.G.data());
      }
      r.finish_gradient();
    }
  });
}

const Engine engine = {forward<float>, forward<double>, adjoint<float>, adjoint<double>, PENDEL_BYTES};

}  // namespace PENDEL_ISA
}  // namespace pendel
