// What csrc/*.cu needs of CUDA, on the host: each thread of a block is a fiber with a stack of its own, blocks run one
// after another. A fiber runs until it meets a barrier; which one runs next, and the order of the blocks, is drawn from
// `seed`, so that a result that needs a barrier which is not there changes. Shared memory starts as NaN and has a guard
// of NaN behind it, which is checked. Barriers that only some of the threads meet are an error.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "emulated_cufft.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define PENDEL_SHARED(name) unsigned char* name = ::emulator::shared.data()

namespace emulator {

struct Index {
  unsigned x;
};
enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  State state;
};
enum { LANES = 32, STACK = 128 * 1024, GUARD = 4096 };

inline unsigned seed = 0;
inline int fault = 0;      // which of those planted is at work (faults.py)
inline long barriers = 0;  // met, for tests that want to know that something ran
inline Index thread, block, threads;
inline std::vector<unsigned char> shared;
inline std::vector<Fiber> fibers;
inline std::vector<double> exchange;  // one slot per thread, for shuffles
inline ucontext_t scheduler;
inline const std::function<void()>* body;

inline void wait(State at) {
  const unsigned me = thread.x;
  fibers[me].state = at;
  ++barriers;
  swapcontext(&fibers[me].context, &scheduler);
  thread.x = me;
}
inline void enter() {
  const unsigned me = thread.x;
  (*body)();
  fibers[me].state = DONE;
  swapcontext(&fibers[me].context, &scheduler);
}

// The value of another lane of the warp.
template <class V>
V shuffle(V value, unsigned lane) {
  static_assert(sizeof(V) <= sizeof(double), "one slot");
  const unsigned me = thread.x, other = me / LANES * LANES + lane;
  std::memcpy(&exchange[me], &value, sizeof value);
  wait(AT_WARP);
  V got;
  std::memcpy(&got, &exchange[other], sizeof got);
  wait(AT_WARP);
  return got;
}

// A NaN in either precision, and not the one that arithmetic with unset memory gives.
inline unsigned char guard(std::size_t byte) { return byte % 4 == 3 ? 0xff : 0xa5; }

inline void run_block(std::mt19937& random) {
  const unsigned count = threads.x;
  for (unsigned i = 0; i < count; ++i) {
    Fiber& f = fibers[i];
    f.stack.resize(STACK);
    f.state = READY;
    getcontext(&f.context);
    f.context.uc_stack = {f.stack.data(), 0, f.stack.size()};
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
  }
  std::vector<unsigned> ready(count);
  for (unsigned i = 0; i < count; ++i) ready[i] = i;
  for (;;) {
    while (!ready.empty()) {
      const std::size_t pick = random() % ready.size();
      const unsigned i = ready[pick];
      ready[pick] = ready.back(), ready.pop_back();
      thread.x = i;
      swapcontext(&scheduler, &fibers[i].context);
      const unsigned first = i / LANES * LANES, last = std::min(first + LANES, count);
      bool warp = true;
      for (unsigned j = first; j < last; ++j) warp = warp && fibers[j].state == AT_WARP;
      for (unsigned j = first; warp && j < last; ++j) fibers[j].state = READY, ready.push_back(j);
    }
    const auto is = [&](State s) { return [s](const Fiber& f) { return f.state == s; }; };
    const auto end = fibers.begin() + count;
    if (std::all_of(fibers.begin(), end, is(DONE))) return;
    if (!std::all_of(fibers.begin(), end, is(AT_BLOCK)))
      throw std::runtime_error("emulator: a barrier was met by some threads of block " + std::to_string(block.x) +
                               " only");
    for (unsigned i = 0; i < count; ++i) fibers[i].state = READY, ready.push_back(i);
  }
}

template <class... P>
void launch(void (*kernel)(P...), long blocks, int block_threads, std::size_t shared_bytes, void* stream,
            const std::remove_const_t<P>&... arguments) {
  if (blocks < 1 || block_threads < 1 || block_threads > 1024)
    throw std::runtime_error("emulator: launch of " + std::to_string(blocks) + " blocks of " +
                             std::to_string(block_threads) + " threads");
  emulator::stream = stream;
  const std::function<void()> call = [&] { kernel(arguments...); };
  body = &call;
  threads.x = block_threads;
  if (fibers.size() < threads.x) fibers.resize(threads.x);
  exchange.resize(fibers.size());
  shared.resize(shared_bytes + GUARD);
  std::mt19937 random(seed);
  std::vector<unsigned> order(blocks);
  for (long i = 0; i < blocks; ++i) order[i] = unsigned(i);
  std::shuffle(order.begin(), order.end(), random);
  for (unsigned i : order) {
    block.x = i;
    std::fill(shared.begin(), shared.end(), 0xff);
    for (std::size_t j = shared_bytes; j < shared.size(); ++j) shared[j] = guard(j);
    run_block(random);
    bool intact = true;
    for (std::size_t j = shared_bytes; j < shared.size(); ++j) intact = intact && shared[j] == guard(j);
    if (!intact)
      throw std::runtime_error("emulator: block " + std::to_string(i) + " wrote behind its " +
                               std::to_string(shared_bytes) + " bytes of shared memory");
  }
}

}  // namespace emulator

extern "C" __attribute__((used, visibility("default"))) inline void emulator_seed(unsigned seed) {
  emulator::seed = seed;
}
extern "C" __attribute__((used, visibility("default"))) inline void emulator_fault(int fault) {
  emulator::fault = fault;
}
extern "C" __attribute__((used, visibility("default"))) inline long emulator_barriers() { return emulator::barriers; }

typedef int cudaError_t;
enum { cudaSuccess = 0 };
struct cudaDeviceProp {
  char name[256];
  int major, minor;
  std::size_t totalGlobalMem;
};
inline const char* cudaGetErrorString(cudaError_t) { return "error"; }
inline cudaError_t cudaSetDevice(int) { return ++emulator::calls, cudaSuccess; }  // every call begins with it
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  return *p = {"emulated on the CPU", 0, 0, 0}, cudaSuccess;
}

#define threadIdx ::emulator::thread
#define blockIdx ::emulator::block
#define blockDim ::emulator::threads
#define __syncthreads() ::emulator::wait(::emulator::AT_BLOCK)
#define __syncwarp() ::emulator::wait(::emulator::AT_WARP)
#define __shfl_xor_sync(all, value, lane_mask) ::emulator::shuffle(value, threadIdx.x % ::emulator::LANES ^ (lane_mask))
#define __shfl_sync(all, value, lane) ::emulator::shuffle(value, lane)
#define __shfl_up_sync(all, value, delta)                                                                \
  ::emulator::shuffle(value, threadIdx.x % ::emulator::LANES < (delta) ? threadIdx.x % ::emulator::LANES \
                                                                       : threadIdx.x % ::emulator::LANES - (delta))
