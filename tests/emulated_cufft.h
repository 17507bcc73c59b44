// cuFFT's functions for the emulator, found by dlsym as in the library itself: transforms in double, and errors where a
// plan is used other than the engine promises: made with auto-allocation off; work area and stream set anew in every
// call of the engine; the stream that of the kernels before. A transform soils its whole work area, which is the
// caller's.
#pragma once
#include <complex>
#include <cstddef>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

namespace emulator {

inline void* stream = nullptr;  // of the latest launch
inline long calls = 0;          // of the engine
inline long transforms = 0;     // rows, for tests that want to know that something ran

struct Plan {
  long long length = 0, rows = 0;
  int type = 0;
  bool manual = false;
  long work_set = 0, stream_set = 0;  // in which call
  void *stream = nullptr, *work = nullptr;
  std::size_t bytes() const { return std::size_t(length * rows) * (type == 0x29 ? 8 : 16) / 2 + 64; }
};
inline std::map<int, Plan> plans;
inline int plans_made = 0;

typedef std::complex<double> Z;
inline void transform(std::vector<Z>& x, int sign) {  // by the smallest factor
  const std::size_t n = x.size();
  std::size_t r = 2;
  while (r < n && n % r) ++r;
  if (n < 2) return;
  std::vector<std::vector<Z>> part(r, std::vector<Z>(n / r));
  for (std::size_t i = 0; i < n; ++i) part[i % r][i / r] = x[i];
  for (auto& p : part) transform(p, sign);
  std::vector<Z> root(n);
  for (std::size_t k = 0; k < n; ++k) root[k] = std::polar(1.0, sign * 2 * M_PI * double(k) / double(n));
  for (std::size_t k = 0; k < n; ++k) {
    Z sum = 0;
    for (std::size_t j = 0; j < r; ++j) sum += root[j * k % n] * part[j][k % (n / r)];
    x[k] = sum;
  }
}
template <class T>
int execute(int handle, const std::complex<T>* in, std::complex<T>* out, int sign, int type) {
  const auto found = plans.find(handle);
  if (found == plans.end() || !found->second.length) return 1;  // no such plan, or not made
  const Plan& p = found->second;
  if (p.type != type) return 3;
  if (!p.work || p.work_set != calls || p.stream_set != calls || p.stream != stream) return 4;
  std::memset(p.work, 0xff, p.bytes());
  std::vector<Z> row(p.length);
  for (long long r = 0; r < p.rows; ++r, ++transforms) {
    for (long long i = 0; i < p.length; ++i) row[i] = Z(in[r * p.length + i]);
    transform(row, sign);
    for (long long i = 0; i < p.length; ++i) out[r * p.length + i] = std::complex<T>(row[i]);
  }
  return 0;
}

}  // namespace emulator

#define EMULATED extern "C" __attribute__((used, visibility("default"))) inline
EMULATED int cufftGetVersion(int* version) { return *version = 12003, 0; }
EMULATED int cufftCreate(int* handle) { return emulator::plans[*handle = ++emulator::plans_made] = {}, 0; }
EMULATED int cufftDestroy(int handle) { return emulator::plans.erase(handle) ? 0 : 1; }
EMULATED int cufftSetAutoAllocation(int handle, int on) { return emulator::plans.at(handle).manual = !on, 0; }
EMULATED int cufftMakePlanMany64(int handle, int rank, long long* n, long long* inembed, long long, long long,
                                 long long* onembed, long long, long long, int type, long long rows,
                                 std::size_t* bytes) {
  emulator::Plan& p = emulator::plans.at(handle);
  if (!p.manual || p.length || rank != 1 || *n < 1 || inembed || onembed || rows < 1) return 4;
  p.length = *n, p.rows = rows, p.type = type;
  return *bytes = p.bytes(), 0;
}
EMULATED int cufftSetWorkArea(int handle, void* work) {
  emulator::Plan& p = emulator::plans.at(handle);
  return p.work = work, p.work_set = emulator::calls, 0;
}
EMULATED int cufftSetStream(int handle, void* stream) {
  emulator::Plan& p = emulator::plans.at(handle);
  return p.stream = stream, p.stream_set = emulator::calls, 0;
}
EMULATED int cufftExecC2C(int handle, void* in, void* out, int sign) {
  typedef std::complex<float>* Row;
  return emulator::execute(handle, Row(in), Row(out), sign, 0x29);
}
EMULATED int cufftExecZ2Z(int handle, void* in, void* out, int sign) {
  typedef std::complex<double>* Row;
  return emulator::execute(handle, Row(in), Row(out), sign, 0x69);
}
EMULATED long emulator_transforms() { return emulator::transforms; }
EMULATED long emulator_plans() { return long(emulator::plans.size()); }
EMULATED long emulator_plans_made() { return emulator::plans_made; }
#undef EMULATED
