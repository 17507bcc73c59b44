// The border between the sweeps and whoever calls them: one plain struct, two functions per back end; and one
// instruction set's compiled sweeps, as interface.cpp sees them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "portable.h"

namespace pendel {

struct Complex {
  double re, im;
};

// Numbered as in python/pendel/operator/plan.py.
enum class Scheme { STRANG, ETD2RK };
enum class Transport { SHIFT, FOURIER, BOX };
enum class Orientation { K_H, SYMMETRIC };

// CUDA only: bytes of shared memory that a block of the fused kernels may take. Cards that give less march unfused.
constexpr std::size_t FUSED_SHARED = 160 * 1024;

// d of (11), transport BOX, where E_0 moves by so many pixels per layer.
PENDEL_HD double box_coefficient(double pixels) { return (1 - pixels) / (1 + pixels); }

// Arrays are C-contiguous; T is float or double, complex arrays are interleaved pairs of T.
struct Args {
  long frames, nz, ny, nx;      // frames = rocking angles
  long row;                     // length of the E_0 row the sweep works on (Python: TakagiTaupin.row_length)
  Scheme scheme;                // ETD2RK: transport FOURIER and orientation K_H only
  Transport transport;          // how a field moves along x: by whole pixels, by a row FFT, or by (11)
  Orientation orientation;      // K_H: z along k_h; SYMMETRIC: z along k_0 + k_h, E_h moves against E_0
  long resync;                  // the adjoint takes up stored fields every so many layers; nz: never
  long exit;                    // length of an E_h row: nx; `row` where E_h moves too, the crystal at its end
  int shift;                    // transport SHIFT: whole pixels E_0 moves per layer; else 0
  double pixels;                // pixels E_0 moves per layer, dz tan(its angle to z) / dx
  double tan_h;                 // orientation SYMMETRIC: tan(theta), the slope of E_h; else 0
  double dz, dy, dx;            // voxel [m]
  Complex m, w, b, c;           // Medium of voxel.h
  int threads;                  // >= 1
  const double* dq;             // (frames, 3) rocking offset of h, model frame [rad/m]
  const void* S;                // (nz, ny, nx) complex
  const void* s_0;              // (nz, ny, nx) real, or null: |S|
  const void* incident;         // (ny, row) complex E_0 at the entrance, or null: 1
  const std::uint8_t* support;  // (nz, ny, nx) voxels whose gradient is wanted, or null: all
  void* E_h;                    // (frames, ny, exit) complex: forward writes, adjoint reads
  void* E_0;                    // (frames, ny, row) complex at the exit: forward writes unless null, adjoint reads
  void* layers;                 // (stored, 2, frames, ny, nx) complex E_0 and G behind (3) of layers resync - 1, ...
                                // forward writes unless null, adjoint reads
  const void* adj_E_h;          // (frames, ny, exit) complex
  void* adj_S;                  // (nz, ny, nx) complex, with the path through s_0 = |S| where s_0 is null
  void* adj_s_0;                // (nz, ny, nx) real, or null
  void* adj_incident;           // (ny, row) complex, or null
  double* adj_dq;               // (ny, frames, 3), or null: one part per row, the caller adds the rows
  double* adj_medium;           // (ny, 4) complex, of m, w, b, c, one part per row; or null
  double* drift;                // (ny) how far the reversed sweep comes from stored fields and from G = 0 at the
                                // entrance, over |(E_0, G)|, the worst; or null
  void* entrance_E_0;           // (frames, ny, row) complex state recovered at the entrance, or null
  void* entrance_G;             // (frames, ny, exit) complex, or null
  void* workspace;              // CUDA only: workspace_cuda bytes on the device, where all arrays are
  void* stream;                 // CUDA only
  int device;                   // CUDA only
  bool unfused;                 // CUDA only: march layer by layer also what fits on chip (cards with less than
                                // FUSED_SHARED; tests)
  long chunk;                   // CUDA only, for tests: frames on their way together when unfused; 0: as memory allows
};

// `extent_of_layer` and `filter_layer` of filter.h; arrays as in Args.
struct Extent {
  long nz, ny, nx;
  int threads;           // >= 1
  const void* S;         // (nz, ny, nx) complex
  void* size;            // (nz, ny, nx) real, written
  std::uint8_t* filled;  // (nz, ny, nx), written
};
struct Filter {
  long nz, ny, nx;
  long reach;                  // taps to either side
  int threads;                 // >= 1
  const void* values;          // (nz, ny, nx) complex
  const void* taps_y;          // (nz, 2 reach + 1) complex
  const void* taps_x;          // (nz, 2 reach + 1) complex
  const std::uint8_t* wanted;  // (nz, ny, nx), or null: all
  const void* S;               // (nz, ny, nx) complex, with
  const void* adj_size;        // (nz, ny, nx) real, or both null
  void* filtered;              // (nz, ny, nx) complex, written
};

// Instruction set in use on this CPU: "sse2", "avx2", "avx512" or "generic"; PENDEL_CPU in the environment may lower
// it.
const char* cpu_isa();
int cpu_lanes(bool single);          // rocking angles per pack
long fourier_row_length(long need);  // smallest row length >= need the lane FFT takes

void forward_cpu(const Args& args, bool single);
void adjoint_cpu(const Args& args, bool single);
void extent_cpu(const Extent& args, bool single);
void filter_cpu(const Filter& args, bool single);
std::size_t workspace_cpu(const Args& args, bool single, bool adjoint);  // bytes a sweep allocates for itself, about
void lifted_cpu(const Args& args, bool single, std::uint8_t* rows);      // (ny) which rows are lifted; for tests

void forward_cuda(const Args& args, bool single);
void adjoint_cuda(const Args& args, bool single);
std::size_t workspace_cuda(const Args& args, bool single, bool adjoint);  // makes a plan where cuFFT is needed
bool needs_cufft(const Args& args, bool single, bool adjoint);
int load_cufft(const std::string& path);  // cuFFT's version; once before any sweep that needs it
// "driver", "device 0", ... with name and memory; or "problem": why no device can be used.
std::map<std::string, std::string> cuda_state();

struct Engine {
  void (*forward_single)(const Args&);
  void (*forward_double)(const Args&);
  void (*adjoint_single)(const Args&);
  void (*adjoint_double)(const Args&);
  void (*extent_single)(const Extent&);
  void (*extent_double)(const Extent&);
  void (*filter_single)(const Filter&);
  void (*filter_double)(const Filter&);
  std::size_t (*workspace_single)(const Args&, bool adjoint);
  std::size_t (*workspace_double)(const Args&, bool adjoint);
  void (*lifted_single)(const Args&, std::uint8_t* rows);
  void (*lifted_double)(const Args&, std::uint8_t* rows);
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
