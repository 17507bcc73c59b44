// One instruction set's compiled sweeps, as run_cpu.cpp sees them.
#pragma once
#include "run.h"

namespace pendel {

struct Engine {
  void (*forward_single)(const Args&);
  void (*forward_double)(const Args&);
  void (*adjoint_single)(const Args&);
  void (*adjoint_double)(const Args&);
  int bytes;  // register width
};

#if defined(PENDEL_X86)
namespace sse2 {
extern const Engine engine;
}
namespace avx2 {
extern const Engine engine;
}
namespace avx512 {
extern const Engine engine;
}
#else
namespace generic {
extern const Engine engine;
}
#endif

}  // namespace pendel
