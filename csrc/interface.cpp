// The C interface of the shared libraries pendel_cpu and, with PENDEL_CUDA, pendel_cuda, as python/pendel/operator/
// library.py calls them. It knows nothing of Python: one build serves every version of it. Arguments arrive checked.
// A function that can fail returns what kind of error it is, or 0, and keeps what it says. pendel_cpu also chooses its
// instruction set here.
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#if !defined(PENDEL_CUDA)
#if defined(PENDEL_X86)
#include <cpuid.h>
#endif

#include "fft.h"
#endif
#include "run.h"

#define PENDEL_EXPORT extern "C" __attribute__((visibility("default")))

#if !defined(PENDEL_CUDA)
namespace pendel {

namespace {
constexpr long LONGEST_ROW = 1L << 24;

struct Choice {
  const Engine* engine;
  const char* name;
};

#if defined(PENDEL_X86)
// Whether processor and operating system have AVX2 with FMA, and AVX-512 F, DQ, BW and VL. Asked of the processor
// itself: `__builtin_cpu_supports` answers no where a compiler's run-time library does not fill in its table.
struct Features {
  bool avx2 = false, avx512 = false;

  Features() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    constexpr unsigned FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28, NEEDED = FMA | OSXSAVE | AVX;
    if ((c & NEEDED) != NEEDED) return;
    unsigned saved, high;  // which registers the operating system keeps
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    constexpr unsigned YMM = 0x06, ZMM = 0xe6, AVX2 = 1u << 5;
    constexpr unsigned AVX512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    avx2 = (saved & YMM) == YMM && (b & AVX2);
    avx512 = avx2 && (saved & ZMM) == ZMM && (b & AVX512) == AVX512;
  }
};
#endif

Choice choose() {
#if defined(PENDEL_X86)
  const Features has;
  const char* wish = std::getenv("PENDEL_CPU");
  const bool low = wish && !std::strcmp(wish, "sse2"), middle = wish && !std::strcmp(wish, "avx2");
  if (has.avx512 && !low && !middle) return {&avx512::engine, "avx512"};
  if (has.avx2 && !low) return {&avx2::engine, "avx2"};
  return {&sse2::engine, "sse2"};
#else
  return {&generic::engine, "generic"};
#endif
}

const Choice& chosen() {
  static const Choice choice = choose();
  return choice;
}
}  // namespace

const char* cpu_isa() { return chosen().name; }
int cpu_lanes(bool single) { return chosen().engine->bytes / (single ? 4 : 8); }
long fourier_row_length(long need) {
  // the search goes through every length up to 1.5 times this
  if (need < 1 || need > LONGEST_ROW)
    throw std::invalid_argument("shape: expected rows of 1 to " + std::to_string(LONGEST_ROW) +
                                " places, nx and what E_0 moves along x, got " + std::to_string(need));
  return PENDEL_ISA::fourier_row_length(need);
}

void forward_cpu(const Args& args, bool single) {
  (single ? chosen().engine->forward_single : chosen().engine->forward_double)(args);
}
void adjoint_cpu(const Args& args, bool single) {
  (single ? chosen().engine->adjoint_single : chosen().engine->adjoint_double)(args);
}
void extent_cpu(const Extent& args, bool single) {
  (single ? chosen().engine->extent_single : chosen().engine->extent_double)(args);
}
void filter_cpu(const Filter& args, bool single) {
  (single ? chosen().engine->filter_single : chosen().engine->filter_double)(args);
}
std::size_t workspace_cpu(const Args& args, bool single, bool adjoint) {
  return (single ? chosen().engine->workspace_single : chosen().engine->workspace_double)(args, adjoint);
}

void lifted_cpu(const Args& args, bool single, std::uint8_t* rows) {
  (single ? chosen().engine->lifted_single : chosen().engine->lifted_double)(args, rows);
}

}  // namespace pendel
#endif

using pendel::Args;

namespace {

#if defined(PENDEL_CUDA)
const auto run_forward = pendel::forward_cuda, run_adjoint = pendel::adjoint_cuda;
const auto run_workspace = pendel::workspace_cuda;
#else
const auto run_forward = pendel::forward_cpu, run_adjoint = pendel::adjoint_cpu;
const auto run_workspace = pendel::workspace_cpu;
#endif

// Numbered as in library.py.
enum Kind { NONE, BAD_VALUE, NO_MEMORY, OTHER };
thread_local std::string message;

template <class Work>
int guarded(Work work) {
  try {
    work();
    return NONE;
  } catch (const std::invalid_argument& error) {
    message = error.what();
    return BAD_VALUE;
  } catch (const std::bad_alloc&) {
    message = "not enough memory";
    return NO_MEMORY;
  } catch (const std::exception& error) {
    message = error.what();
    return OTHER;
  }
}

// One line "Structure.member offset size" for every member, so that whoever fills them can compare.
std::string layout() {
  std::string text;
  const auto add = [&](const char* name, std::size_t offset, std::size_t size) {
    text += name + (" " + std::to_string(offset)) + " " + std::to_string(size) + "\n";
  };
#define MEMBER(structure, name) \
  add(#structure "." #name, offsetof(pendel::structure, name), sizeof(pendel::structure::name))
  MEMBER(Args, frames), MEMBER(Args, nz), MEMBER(Args, ny), MEMBER(Args, nx), MEMBER(Args, row);
  MEMBER(Args, scheme), MEMBER(Args, transport), MEMBER(Args, orientation), MEMBER(Args, resync), MEMBER(Args, exit);
  MEMBER(Args, shift), MEMBER(Args, pixels), MEMBER(Args, tan_h), MEMBER(Args, dz), MEMBER(Args, dy), MEMBER(Args, dx);
  MEMBER(Args, m), MEMBER(Args, w), MEMBER(Args, b), MEMBER(Args, c), MEMBER(Args, threads), MEMBER(Args, dq);
  MEMBER(Args, S), MEMBER(Args, s_0), MEMBER(Args, incident), MEMBER(Args, support), MEMBER(Args, E_h);
  MEMBER(Args, E_0), MEMBER(Args, layers), MEMBER(Args, adj_E_h), MEMBER(Args, adj_S), MEMBER(Args, adj_s_0);
  MEMBER(Args, adj_incident), MEMBER(Args, adj_dq), MEMBER(Args, adj_medium), MEMBER(Args, drift);
  MEMBER(Args, entrance_E_0), MEMBER(Args, entrance_G), MEMBER(Args, workspace), MEMBER(Args, stream);
  MEMBER(Args, device), MEMBER(Args, unfused), MEMBER(Args, chunk);

  MEMBER(Extent, nz), MEMBER(Extent, ny), MEMBER(Extent, nx), MEMBER(Extent, threads), MEMBER(Extent, S);
  MEMBER(Extent, size), MEMBER(Extent, filled);

  MEMBER(Filter, nz), MEMBER(Filter, ny), MEMBER(Filter, nx), MEMBER(Filter, reach), MEMBER(Filter, threads);
  MEMBER(Filter, values), MEMBER(Filter, taps_y), MEMBER(Filter, taps_x), MEMBER(Filter, wanted), MEMBER(Filter, S);
  MEMBER(Filter, adj_size), MEMBER(Filter, filtered);
#undef MEMBER
  return text;
}

// The enum classes of run.h, one line "Class.MEMBER number" each.
std::string enumerators() {
  using namespace pendel;
  const auto line = [](const char* name, int number) { return name + (" " + std::to_string(number)) + "\n"; };
  return line("Scheme.STRANG", int(Scheme::STRANG)) + line("Scheme.ETD2RK", int(Scheme::ETD2RK)) +
         line("Transport.SHIFT", int(Transport::SHIFT)) + line("Transport.FOURIER", int(Transport::FOURIER)) +
         line("Transport.BOX", int(Transport::BOX)) + line("Orientation.K_H", int(Orientation::K_H)) +
         line("Orientation.SYMMETRIC", int(Orientation::SYMMETRIC));
}

}  // namespace

// Texts are valid until the next call of the same function on the same thread.
PENDEL_EXPORT const char* pendel_message() { return message.c_str(); }
PENDEL_EXPORT const char* pendel_layout() {
  static const std::string text = layout();
  return text.c_str();
}
PENDEL_EXPORT const char* pendel_enumerators() {
  static const std::string text = enumerators();
  return text.c_str();
}

PENDEL_EXPORT int pendel_forward(const Args* args, int single) {
  return guarded([&] { run_forward(*args, single); });
}
PENDEL_EXPORT int pendel_adjoint(const Args* args, int single) {
  return guarded([&] { run_adjoint(*args, single); });
}
PENDEL_EXPORT int pendel_workspace(const Args* args, int single, int adjoint, std::size_t* bytes) {
  return guarded([&] { *bytes = run_workspace(*args, single, adjoint); });
}

#if defined(PENDEL_CUDA)
PENDEL_EXPORT std::size_t pendel_fused_shared() { return pendel::FUSED_SHARED; }
PENDEL_EXPORT int pendel_needs_cufft(const Args* args, int single, int adjoint, int* needs) {
  return guarded([&] { *needs = pendel::needs_cufft(*args, single, adjoint); });
}
PENDEL_EXPORT int pendel_load_cufft(const char* path, int* version) {
  return guarded([&] { *version = pendel::load_cufft(path); });
}
// Lines "name<tab>value".
PENDEL_EXPORT const char* pendel_state() {
  thread_local std::string text;
  text.clear();
  for (const auto& [name, value] : pendel::cuda_state()) text += name + "\t" + value + "\n";
  return text.c_str();
}
#else
PENDEL_EXPORT const char* pendel_cpu_isa() { return pendel::cpu_isa(); }
PENDEL_EXPORT int pendel_cpu_lanes(int single) { return pendel::cpu_lanes(single); }
PENDEL_EXPORT int pendel_fourier_row_length(long need, long* length) {
  return guarded([&] { *length = pendel::fourier_row_length(need); });
}
PENDEL_EXPORT int pendel_lifted_rows(const Args* args, int single, std::uint8_t* rows) {
  return guarded([&] { pendel::lifted_cpu(*args, single, rows); });
}
PENDEL_EXPORT int pendel_extent(const pendel::Extent* args, int single) {
  return guarded([&] { pendel::extent_cpu(*args, single); });
}
PENDEL_EXPORT int pendel_filter(const pendel::Filter* args, int single) {
  return guarded([&] { pendel::filter_cpu(*args, single); });
}
#endif
