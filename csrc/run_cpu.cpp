// Chooses the instruction set at run time.
#include <cstdlib>
#include <cstring>

#include "fft.h"
#include "run.h"

namespace pendel {

namespace {
struct Choice {
  const Engine* engine;
  const char* name;
};

Choice choose() {
#if defined(PENDEL_X86)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  const char* wish = std::getenv("PENDEL_CPU");
  const bool low = wish && !std::strcmp(wish, "sse2"), middle = wish && !std::strcmp(wish, "avx2");
  if (has_avx512 && !low && !middle) return {&avx512::engine, "avx512"};
  if (has_avx2 && !low) return {&avx2::engine, "avx2"};
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
long fourier_row_length(long need) { return PENDEL_ISA::fourier_row_length(need); }

void forward_cpu(const Args& args, bool single) {
  (single ? chosen().engine->forward_single : chosen().engine->forward_double)(args);
}
void adjoint_cpu(const Args& args, bool single) {
  (single ? chosen().engine->adjoint_single : chosen().engine->adjoint_double)(args);
}

}  // namespace pendel
