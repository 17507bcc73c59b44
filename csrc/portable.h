// What the physics needs from a compiler: a host/device marker, SIMD packs and a complex number of packs.
// A pack is a vector type of W lanes (W = 1: the scalar itself), so + - * need no library, but GCC or clang. Every
// translation unit that is compiled for its own instruction set names it in PENDEL_ISA, and all our templates live in
// that namespace, so the linker cannot mix instruction sets. Templates of the standard library are shared: the object
// compiled for the lowest set must be linked first (CMakeLists.txt).
#pragma once

#if defined(__CUDACC__)
#define PENDEL_HD __host__ __device__ __forceinline__
#define PENDEL_NOINLINE __host__ __device__ __noinline__ inline
#else
#define PENDEL_HD inline __attribute__((always_inline))
#define PENDEL_NOINLINE inline
#endif

#ifndef PENDEL_ISA
#define PENDEL_ISA generic
#endif

namespace pendel {
namespace PENDEL_ISA {

template <class T, int W>
struct PackOf {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T>
struct PackOf<T, 1> {
  typedef T type;
};
template <class T, int W>
using Pack = typename PackOf<T, W>::type;

template <class T, class V>
PENDEL_HD T& lane(V& v, int l) {
  return reinterpret_cast<T*>(&v)[l];
}

// Two packs that take every step together, so that what a step reads of its voxel is read once.
template <class V>
struct Pair {
  V a, b;
};
template <class V>
PENDEL_HD Pair<V> operator+(Pair<V> p, Pair<V> q) {
  return {p.a + q.a, p.b + q.b};
}
template <class V>
PENDEL_HD Pair<V> operator-(Pair<V> p, Pair<V> q) {
  return {p.a - q.a, p.b - q.b};
}
template <class V>
PENDEL_HD Pair<V> operator*(Pair<V> p, Pair<V> q) {
  return {p.a * q.a, p.b * q.b};
}
template <class T, class V>
PENDEL_HD auto operator*(T s, Pair<V> p) -> Pair<decltype(s * p.a)> {
  return {s * p.a, s * p.b};
}

// A complex number; R is a scalar, a pack or a pair of them. Scalars mix with packs as broadcasts.
template <class R>
struct Cx {
  R re, im;
};

// to = from, part by part: GCC takes a copy of the whole through memory.
template <class V>
PENDEL_HD void assign(V& to, const V& from) {
  to = from;
}
template <class V>
PENDEL_HD void assign(Pair<V>& to, const Pair<V>& from) {
  to.a = from.a, to.b = from.b;
}
template <class R>
PENDEL_HD void assign(Cx<R>& to, const Cx<R>& from) {
  assign(to.re, from.re), assign(to.im, from.im);
}

template <class A, class B>
PENDEL_HD auto operator+(Cx<A> a, Cx<B> b) -> Cx<decltype(a.re + b.re)> {
  return {a.re + b.re, a.im + b.im};
}
template <class A, class B>
PENDEL_HD auto operator-(Cx<A> a, Cx<B> b) -> Cx<decltype(a.re - b.re)> {
  return {a.re - b.re, a.im - b.im};
}
template <class A, class B>
PENDEL_HD auto operator*(Cx<A> a, Cx<B> b) -> Cx<decltype(a.re * b.re)> {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
// conj(a) b, without negations.
template <class A, class B>
PENDEL_HD auto conj_mul(Cx<A> a, Cx<B> b) -> Cx<decltype(a.re * b.re)> {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}
template <class R, class A>
PENDEL_HD auto scale(Cx<R> a, A f) -> Cx<decltype(a.re * f)> {
  return {a.re * f, a.im * f};
}
template <class R>
PENDEL_HD Cx<R> conj(Cx<R> a) {
  return {a.re, -a.im};
}
template <class R>
PENDEL_HD R norm(Cx<R> a) {
  return a.re * a.re + a.im * a.im;
}
template <class To, class R>
PENDEL_HD Cx<To> cast(Cx<R> a) {
  return {To(a.re), To(a.im)};
}

}  // namespace PENDEL_ISA
}  // namespace pendel
