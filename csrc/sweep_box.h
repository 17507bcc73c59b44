// The sweep with z along k_h and transport box, and its adjoint: any dz, at nearly the cost of whole pixels.
//
// E_0 moves by s = dz tan(2theta) / dx pixels per layer through the first-order all-pass filter
//
//   (11) E_0(z + 1, x) = E_0(z, x - 1) + d (E_0(z, x) - E_0(z + 1, x - 1)),  d = (1 - s) / (1 + s),
//
// unitary, and of order 2 for every s. Between two layers column x hands to column x + 1 one number,
//
//   h(x) = E_0(z, x) - d E_0(z + 1, x),  so that  E_0(z + 1, x) = h(x - 1) + d E_0(z, x).
//
// Columns are marched in z with G in registers, B neighbours as one strip: memory sees only what the strip takes in and
// hands on. Strips from left to right forward, from right to left in the adjoint. A row of E_0 is its nx columns and,
// behind them, h of the nz - 1 moves: what comes from the left at the entrance, what has left on the right at the exit.
#pragma once
#include "sweep.h"

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct Box {
  typedef Pack<T, W> V;

  template <class R>
  static void march(Row<T, W>& r, long group, long from, long to) {
    for (long z = from; z < to; z += TILE) {
      const long end = std::min(z + TILE, to);
      r.is_lifted ? columns<R, true>(r, group, z, end) : columns<R, false>(r, group, z, end);
    }
    if (r.is_lifted) r.lifted.leave_gauge(from, to, r.template fields<R>(r.E_0), r.template fields<R>(r.G));
  }
  template <class R>
  static void march_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    if (r.is_lifted)
      r.lifted.enter_gauge(from, to, r.template fields<R>(r.E_0), r.template fields<R>(r.G),
                           r.template fields<R>(r.adj_E_0), r.template fields<R>(r.adj_G));
    for (long z; to > from; to = z) {
      z = std::max(from, to - TILE);
      r.is_lifted ? columns_adj<R, true>(r, group, z, to, adj_D) : columns_adj<R, false>(r, group, z, to, adj_D);
    }
  }

 private:
  enum : long { TILE = 32 };  // layers whose handed numbers stay in the first-level cache

  template <class R, bool Lift>
  static void columns(Row<T, W>& r, long group, long from, long to) {
    constexpr int B = strip_columns<R>(true);
    long x = r.a.incident ? 0 : std::min(r.x_lo, r.a.nx);  // further left the plane wave stays what it is
    for (; x + B <= r.a.nx; x += B) strip<R, B, Lift>(r, group, x, from, to);
    for (; x < r.a.nx; ++x) strip<R, 1, Lift>(r, group, x, from, to);
  }
  template <class R, bool Lift>
  static void columns_adj(Row<T, W>& r, long group, long from, long to, double* adj_D) {
    constexpr int B = strip_columns<R>(false);
    const Args& a = r.a;
    const long first = a.adj_incident || a.entrance_E_0 ? 0 : std::min(r.x_lo, a.nx);
    const long whole = first + (a.nx - first) / B * B;
    for (long x = a.nx - 1; x >= whole; --x) strip_adj<R, 1, Lift>(r, group, x, from, to, adj_D);
    for (long x = whole - B; x >= first; x -= B) strip_adj<R, B, Lift>(r, group, x, from, to, adj_D);
  }
  // What the registers hold.
  template <class R>
  static constexpr int strip_columns(bool forward) {
    if (sizeof(R) > sizeof(V)) return forward ? 3 : 1;
    return sizeof(V) == 64 ? (forward ? 4 : 3) : forward ? 2 : 1;
  }

  // B columns from x on, of fields or of adjoints.
  template <class R, int B>
  struct Columns {
    const T d;
    Cx<R>*const row_E_0, *const row_G;
    Cx<R>* const handed;  // by the move that leads to layer z
    Cx<R> E_0[B], G[B];

    Columns(const Row<T, W>& r, long x, std::vector<Cx<V>>& all_E_0, std::vector<Cx<V>>& all_G)
        : d(T(box_coefficient(r.a.pixels))),
          row_E_0(r.template fields<R>(all_E_0) + x),
          row_G(r.template fields<R>(all_G) + x),
          handed(r.template fields<R>(all_E_0) + r.a.nx - 1) {
      for (int b = 0; b < B; ++b) assign(E_0[b], row_E_0[b]), assign(G[b], row_G[b]);
    }
    void put_back() const {
      for (int b = 0; b < B; ++b) assign(row_E_0[b], E_0[b]), assign(row_G[b], G[b]);
    }

    // (11) of one column, and its inverse, which is the same with columns from right to left.
    PENDEL_HD void move(Cx<R>& E, Cx<R>& h) const {
      const Cx<R> moved{h.re + d * E.re, h.im + d * E.im};
      h = {E.re - d * moved.re, E.im - d * moved.im};
      E = moved;
    }
    PENDEL_HD void move_to(long z) {
      Cx<R> h = handed[z];
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) move(E_0[b], h);
      assign(handed[z], h);
    }
    PENDEL_HD void move_back_from(long z) {
      Cx<R> h = handed[z];
#pragma GCC unroll 4
      for (int b = B - 1; b >= 0; --b) move(E_0[b], h);
      assign(handed[z], h);
    }
    // Reverse (11): E_0 <- h + d E_0,  h <- E_0 before - d E_0 after
    PENDEL_HD void move_adj_from(long z) {
      Cx<R> h = handed[z];
#pragma GCC unroll 4
      for (int b = B - 1; b >= 0; --b) {
        const Cx<R> adj_h{E_0[b].re - d * h.re, E_0[b].im - d * h.im};
        E_0[b] = {h.re + d * adj_h.re, h.im + d * adj_h.im};
        h = adj_h;
      }
      assign(handed[z], h);
    }
    PENDEL_HD void turn(const Cx<R>& phase) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) G[b] = phase * G[b];
    }
  };

  // The layers of [from, to) that matter to any of B columns, [first, last); none: both are `to`.
  template <int B>
  static void hull(const Row<T, W>& r, long x, long from, long to, long& first, long& last) {
    first = to, last = from;
    for (int b = 0; b < B; ++b) {
      first = std::min(first, std::max(from, r.z_first[x + b]));
      last = std::max(last, std::min(to, r.z_last[x + b]));
    }
    if (first >= last) first = last = to;
  }
  // Layers from where a march begins to `first`, or to its end where that is first.
  static long gap(long from, long first, long to) { return std::min(first, to - 1) - layer_before(from); }

  // Of a row that is lifted, G is H of (L2).
  template <class R, int B, bool Lift>
  static void strip(Row<T, W>& r, long group, long x, long from, long to) {
    Columns<R, B> c(r, x, r.E_0, r.G);
    const auto phase = [&](long layers) { return r.t.template phase<R>(group, layers); };
    const Cx<R> layer = phase(std::min(1l, r.a.nz - 1));
    long first, last;
    hull<B>(r, x, from, to, first, last);
    for (long z = std::max(from, 1l); z <= std::min(first, to - 1); ++z) c.move_to(z);  // (11)
    if (from > 0) c.turn(phase(gap(from, first, to)));                                  // (5)

    for (long z = first; z < last; ++z) {
      if (z > first) c.move_to(z), c.turn(layer);  // (11), (5)
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        if constexpr (Lift) {
          couple_lifted(r.lifted.shear(z, x + b), c.E_0[b], c.G[b]);  // (L3)
          c.E_0[b] = grown(r.lifted.growth(z, x + b), c.E_0[b]);
        } else {
          couple(r.matrix(z, x + b), c.E_0[b], c.G[b]);  // (3)
        }
      }
    }

    if (last < to) c.turn(phase(to - last));        // (5)
    for (long z = last; z < to; ++z) c.move_to(z);  // (11)
    c.put_back();
  }

  template <class R, int B, bool Lift>
  static void strip_adj(Row<T, W>& r, long group, long x, long from, long to, double* adj_D) {
    Columns<R, B> c(r, x, r.E_0, r.G), adj(r, x, r.adj_E_0, r.adj_G);
    const auto phase = [&](long layers) { return r.t.template phase<R>(group, layers); };
    const Cx<R> layer = phase(std::min(1l, r.a.nz - 1));
    R D = {};
    long first, last;
    hull<B>(r, x, from, to, first, last);
    for (long z = to - 1; z >= last; --z) c.move_back_from(z), adj.move_adj_from(z);
    if (last < to) turn_back(c, adj, phase(to - last), T(to - last), D);

    Parts<T, W> part[B][2][Lift ? long(TILE) : 1];
    for (long z = last - 1; z >= first; --z) {
#pragma GCC unroll 4
      for (int b = 0; b < B; ++b) {
        Parts<T, W>* const at[2] = {&part[b][0][Lift ? z - first : 0], &part[b][1][Lift ? z - first : 0]};
        couple_back<R, Lift>(r, z, x + b, c.E_0[b], c.G[b], adj.E_0[b], adj.G[b], at);
      }
      if (z == first) break;
      turn_back(c, adj, layer, T(1), D);
      c.move_back_from(z), adj.move_adj_from(z);
    }
    for (int b = 0; b < B && Lift && first < last; ++b) {
      add_lane_parts<T, W>(r.lifted.sum(first, x + b), Lifted<T, W>::STEP, part[b][0], last - first);
      add_lane_parts<T, W>(r.lifted.third(first, x + b), Lifted<T, W>::STEP, part[b][1], last - first);
    }

    const long before = gap(from, first, to);
    if (from > 0) turn_back(c, adj, phase(before), T(before), D);
    for (long z = std::min(first, to - 1); z >= std::max(from, 1l); --z) c.move_back_from(z), adj.move_adj_from(z);
    c.put_back(), adj.put_back();
    for (int l = 0; l < lanes<T, R>; ++l) adj_D[l] += lane<T>(D, l);
  }

  // A voxel's step back; its sums to the row's, or to `part`, where they wait for more of them.
  template <class R, bool Lift>
  static PENDEL_HD void couple_back(Row<T, W>& r, long z, long x, Cx<R>& E_0, Cx<R>& G, Cx<R>& adj_E_0, Cx<R>& adj_G,
                                    Parts<T, W>* const (&part)[2]) {
    if constexpr (Lift) {
      Cx<V> of_a, of_b, of_e;
      grow_adj(r.lifted.growth(z, x), E_0, adj_E_0, of_e);
      // Reverse (L3): E <- E + a' H,  H <- H + b' E
      couple_lifted_adj(r.lifted.shear(z, x), E_0, G, adj_E_0, adj_G, of_a, of_b);
      *part[0] = lane_parts<T, W>(of_a, of_b), *part[1] = lane_parts<T, W>(of_e, Cx<V>{V{}, V{}});
    } else {
      // Reverse (3): (E_0, G) <- M (E_0, G)
      R X[SUMS];
      couple_adj(r.matrix(z, x), E_0, G, adj_E_0, adj_G, X);
      add_lane_sums<T, W>(r.sum(z, x), X);
    }
  }

  // Reverse (5) over some layers: G <- exp(-i D dz) G
  template <class R, int B>
  static PENDEL_HD void turn_back(Columns<R, B>& c, Columns<R, B>& adj, const Cx<R>& phase, T layers, R& D) {
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
      D = D + layers * (adj.G[b].re * c.G[b].im - adj.G[b].im * c.G[b].re);
      c.G[b] = conj_mul(phase, c.G[b]), adj.G[b] = conj_mul(phase, adj.G[b]);
    }
  }
};

}  // namespace PENDEL_ISA
}  // namespace pendel
