// The CUDA engine's host side: the workspace, the launches, and cuFFT. Nothing is allocated (but what cuFFT keeps with
// a plan) and nothing waits for the device: all memory is the caller's, all work goes to the caller's stream.
#include <dlfcn.h>

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "sweep_cufft.h"
#include "sweep_fused.h"

namespace pendel {
namespace PENDEL_ISA {

// cuFFT, loaded at run time: these functions of cufft.h, the same in its versions 11 (CUDA 12) and 12 (CUDA 13).
struct Cufft {
  enum { C2C = 0x29, Z2Z = 0x69, FORWARD = -1, INVERSE = 1, MOST_IDLE = 16 };
  int (*version)(int*);
  int (*create)(int* plan);
  int (*destroy)(int plan);
  int (*auto_allocation)(int plan, int on);
  int (*make)(int plan, int rank, long long* n, long long* inembed, long long istride, long long idist,
              long long* onembed, long long ostride, long long odist, int type, long long batch, std::size_t* bytes);
  int (*work_area)(int plan, void* work);
  int (*stream)(int plan, void* stream);
  int (*single)(int plan, void* in, void* out, int direction);
  int (*twice)(int plan, void* in, void* out, int direction);

  struct Plan {
    int device;
    long length, rows;
    bool single;
    int handle;
    std::size_t bytes;  // of work area
    bool same(const Plan& o) const {
      return device == o.device && length == o.length && rows == o.rows && single == o.single;
    }
  };
  std::list<Plan> idle;  // made and not in use, the latest first
  std::mutex guard;
  bool loaded = false;

  static Cufft& get() {  // never destroyed: at exit the driver may be gone before it
    static Cufft* const library = new Cufft();
    return *library;
  }
  int load(const std::string& path) {
    const std::lock_guard<std::mutex> lock(guard);
    int number = 0;
    if (loaded) return version(&number), number;
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(std::string("cuFFT: ") + dlerror());
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (!function) throw std::runtime_error("cuFFT: no " + std::string(name) + " in " + path);
    };
    find(version, "cufftGetVersion"), find(create, "cufftCreate"), find(destroy, "cufftDestroy");
    find(auto_allocation, "cufftSetAutoAllocation"), find(make, "cufftMakePlanMany64");
    find(work_area, "cufftSetWorkArea"), find(stream, "cufftSetStream");
    find(single, "cufftExecC2C"), find(twice, "cufftExecZ2Z");
    ask("cufftGetVersion", version(&number));
    loaded = true;
    return number;
  }
  static void ask(const char* what, int code) {
    if (code) throw std::runtime_error("cuFFT: " + std::string(what) + " failed with code " + std::to_string(code));
  }
  Plan take(Plan wanted) {  // from those idle, or a new one
    const std::lock_guard<std::mutex> lock(guard);
    if (!loaded) throw std::runtime_error("cuFFT: not loaded");
    for (auto p = idle.begin(); p != idle.end(); ++p)
      if (p->same(wanted)) {
        wanted = *p;
        idle.erase(p);
        return wanted;
      }
    check(cudaSetDevice(wanted.device));
    ask("cufftCreate", create(&wanted.handle));
    int code = auto_allocation(wanted.handle, 0);
    long long n = wanted.length;
    if (!code)
      code = make(wanted.handle, 1, &n, nullptr, 1, n, nullptr, 1, n, wanted.single ? C2C : Z2Z, wanted.rows,
                  &wanted.bytes);
    if (code) destroy(wanted.handle);
    ask(("a plan of " + std::to_string(wanted.rows) + " rows of " + std::to_string(n) + " places").c_str(), code);
    return wanted;
  }
  void put_back(const Plan& plan) {
    const std::lock_guard<std::mutex> lock(guard);
    idle.push_front(plan);
    if (idle.size() <= MOST_IDLE) return;
    destroy(idle.back().handle);
    idle.pop_back();
  }
};

// The transforms of one call: a plan that nobody else uses meanwhile.
class RowFfts {
  const Cufft::Plan plan;

 public:
  RowFfts(const Args& a, long rows, bool single) : plan(Cufft::get().take({a.device, a.row, rows, single, 0, 0})) {}
  RowFfts(const RowFfts&) = delete;
  ~RowFfts() { Cufft::get().put_back(plan); }
  std::size_t bytes() const { return plan.bytes; }
  void begin(void* stream, void* work) const {
    Cufft::ask("cufftSetStream", Cufft::get().stream(plan.handle, stream));
    Cufft::ask("cufftSetWorkArea", Cufft::get().work_area(plan.handle, work));
  }
  void forward(void* in, void* out) const { run(in, out, Cufft::FORWARD); }
  void inverse(void* in, void* out) const { run(in, out, Cufft::INVERSE); }  // without the factor 1 / N

 private:
  void run(void* in, void* out, int direction) const {
    const Cufft& f = Cufft::get();
    Cufft::ask("a transform", (plan.single ? f.single : f.twice)(plan.handle, in, out, direction));
  }
};

enum { GOOD_BLOCKS = 512, MOST_PARTS = 16 };
constexpr long CHUNK_BYTES = 256l << 20;  // of fields and kept states on their way, work area of cuFFT not counted

template <class T>
bool transforms(const Args& a, bool adjoint) {
  return a.transport == Transport::FOURIER && !fused<T>(a, adjoint);
}

template <class T>
class Fused {
  Device<T> d{};
  const bool adjoint;

 public:
  Cut cut;
  Fused(const Args& a, bool adjoint_) : adjoint(adjoint_), cut{a.workspace} {
    constexpr bool single = sizeof(T) == 4;
    d.a = a;
    if (a.transport == Transport::SHIFT) {
      d.angles = int((single ? 8 : 4) / shift_columns(a, single));
    } else {
      d.radix[d.stages++] = COLUMN;
      for (int r : radices_of(a.row / COLUMN)) d.radix[d.stages++] = r;
      for (long s = 0, M = a.row; s < d.stages; ++s)
        M /= d.radix[s], d.inverse[s] = M > 1 ? unsigned((1ull << 32) / M + 1) : 0;
      d.angles = 8;
      while (d.angles > 1 && fourier_shared<T>(a, d.angles, adjoint) > GOOD_SHARED) d.angles /= 2;
    }
    d.groups = (a.frames + d.angles - 1) / d.angles;
    d.parts = d.groups;
    if (adjoint) d.parts = std::max(1l, std::min({d.groups, long(MOST_PARTS), (GOOD_BLOCKS + a.ny - 1) / a.ny}));
    d.ends = d.parts;
    cut_device(d, adjoint, cut);
  }
  void run() const {
    constexpr int most = sizeof(T) == 4 ? 8 : 4;
    before(d, adjoint);
    if (d.a.transport == Transport::FOURIER)
      launch(adjoint ? fourier_adjoint<T> : fourier_forward<T>, d.parts * d.a.ny, fourier_threads(d.angles),
             fourier_shared<T>(d.a, d.angles, adjoint), d.a.stream, d);
    else if (d.angles == most)
      shift<most, 1>();
    else if (d.angles == most / 2)
      shift<most / 2, 2>();
    else if (d.angles == most / 4)
      shift<most / 4, 4>();
    else if constexpr (most == 8)
      shift<1, 8>();
    if (adjoint) after(d);
  }

 private:
  template <int F, int C>
  void shift() const {
    const int threads = int((d.a.nx + C * WARP - 1) / (C * WARP) * WARP);
    const std::size_t handed = 2 * F * d.a.nx * sizeof(Cx<T>);
    launch(adjoint ? shift_adjoint<T, F, C> : shift_forward<T, F, C>, d.parts * d.a.ny, threads,
           adjoint ? WARP * sizeof(double) + 2 * handed + F * sizeof(Cx<T>) : handed, d.a.stream, d);
  }
};

template <class T>
class Unfused {
  Chunk<T> c{};
  const Args& a;
  const bool adjoint, etd;
  long rows = 0, stride = 0, kept = 0;  // rows of a chunk; etd2rk's adjoint keeps every stride-th state
  // etd2rk: states; A or E_0 of the step at hand, and what its transforms work on; H's g_1; adjoints
  Cx<T>*U = nullptr, *H = nullptr, *A = nullptr, *w_1 = nullptr, *w_2 = nullptr, *g_h = nullptr;
  Cx<T>*adj_U = nullptr, *adj_H = nullptr, *adj_AH = nullptr;
  std::unique_ptr<RowFfts> fft;
  char* work = nullptr;

 public:
  Cut cut;
  Unfused(const Args& a_, bool adjoint_) : a(a_), adjoint(adjoint_), etd(a.scheme == Scheme::ETD2RK), cut{a.workspace} {
    stride = std::max(1l, std::lround(std::sqrt(double(a.nz)))), kept = (a.nz + stride - 1) / stride;
    const long states = !etd ? 0 : adjoint ? kept + stride - 1 : 1, moves = adjoint ? 2 : 1;
    const long values = etd ? (states + 3 + adjoint) * a.row + (states + 1 + 2 * adjoint) * a.nx  // of a row
                            : moves * (a.row + a.exit);
    const long bytes = a.ny * (values * long(sizeof(Cx<T>)) + adjoint * a.exit * long(sizeof(T)));
    const long most = a.chunk ? a.chunk : std::max(1l, CHUNK_BYTES / bytes), chunks = (a.frames + most - 1) / most;
    c.frames = int((a.frames + chunks - 1) / chunks);  // all alike: one plan
    c.turns = a.orientation == Orientation::K_H || a.transport == Transport::SHIFT;
    c.d.a = a, c.d.parts = 1, c.d.ends = a.frames;
    cut_device(c.d, adjoint, cut);
    rows = c.frames * a.ny;
    if (etd) {
      cut(U, states * rows * a.row), cut(H, states * rows * a.nx);
      for (Cx<T>** row : {&A, &w_1, &w_2}) cut(*row, rows * a.row);
      cut(g_h, rows * a.nx);
      cut(adj_U, adjoint * rows * a.row), cut(adj_H, adjoint * rows * a.nx), cut(adj_AH, adjoint * rows * a.nx);
    } else {  // what one call of cuFFT moves lies in one piece
      cut(c.E_0, rows * moves * (a.row + a.exit));
      c.adj_E_0 = c.E_0 + rows * a.row, c.G = c.E_0 + rows * moves * a.row, c.adj_G = c.G + rows * a.exit;
    }
    cut(c.D, adjoint * rows * a.exit);
    if (a.transport != Transport::FOURIER) return;
    fft.reset(new RowFfts(a, rows * (etd ? 1 : moves * (c.turns ? 1 : 2)), sizeof(T) == 4));
    cut(work, fft->bytes());
  }
  void run() {
    if (fft) fft->begin(a.stream, work);
    before(c.d, adjoint);
    for (c.first = 0; c.first < a.frames; c.first += c.frames)
      adjoint ? etd ? etd_adjoint() : march_adjoint() : etd ? etd_forward() : march_forward();
    if (adjoint) after(c.d);
  }

 private:
  static constexpr std::size_t sums = UNFUSED_THREADS * SUMS * sizeof(T);  // shared memory of add_sums
  template <class... P>
  void places(long length, void (*kernel)(const Chunk<T>, P...), const P&... more) const {
    const long threads = std::min(long(UNFUSED_THREADS), (length + WARP - 1) / WARP * WARP);
    launch(kernel, rows * ((length + threads - 1) / threads), int(threads), 0, a.stream, c, more...);
  }
  template <class... P>
  void tiles(long length, std::size_t shared, void (*kernel)(const Chunk<T>, P...), const P&... more) const {
    launch(kernel, a.ny * ((length + TILE - 1) / TILE), int(UNFUSED_THREADS), shared, a.stream, c, more...);
  }
  // (4), or (10) of both waves, between layers z - 1 and z; and back.
  void move(int z) const {
    if (fft) fft->forward(c.E_0, c.E_0), places(a.row, spectrum_forward<T>), fft->inverse(c.E_0, c.E_0);
    if (a.transport == Transport::BOX) filter(z, false);
  }
  void move_back(int z) const {
    if (fft) fft->forward(c.E_0, c.E_0), places(a.row, spectrum_adjoint<T>), fft->inverse(c.E_0, c.E_0);
    if (a.transport == Transport::BOX) filter(z, true);
  }
  void filter(int z, bool back) const {
    const long warps = UNFUSED_THREADS / WARP;
    launch(box_filter<T>, (rows + warps - 1) / warps, int(UNFUSED_THREADS), 0, a.stream, c, unsigned(rows), z, back);
  }
  void end() const {  // of a chunk's adjoint
    launch(finish<T>, rows, int(UNFUSED_THREADS), WARP * sizeof(double), a.stream, c);
    const long threads = 128;
    launch(enter_adjoint<T>, a.ny * ((a.row + threads - 1) / threads), int(threads), 0, a.stream, c);
  }

  void march_forward() {
    places(std::max(a.row, a.exit), enter<T>);
    for (int z = 0; z < a.nz; ++z) {
      if (z) move(z);
      tiles(a.nx, 0, layer_forward<T>, z);
      if (stored(a, z)) places(a.nx, store_layer<T>, z);
    }
    places(std::max(a.row, a.exit), leave<T>, T(1));
  }
  void march_adjoint() {
    places(std::max(a.row, a.exit), leave_adjoint<T>);
    for (int z = int(a.nz) - 1; z >= 0; --z) {
      if (stored(a, z)) launch(load_layer<T>, rows, int(UNFUSED_THREADS), WARP * sizeof(double), a.stream, c, z);
      tiles(a.nx, sums, layer_adjoint<T>, z);
      if (z) move_back(z);
    }
    end();
  }

  // etd2rk, sweep_etd2rk.h. The state at node n; forward there is only one.
  long slot(long n) const { return !adjoint ? 0 : n % stride ? kept + n % stride - 1 : n / stride; }
  Cx<T>* U_at(long n) const { return U + slot(n) * rows * a.row; }
  Cx<T>* H_at(long n) const { return H + slot(n) * rows * a.nx; }
  void generate(const Node<T>& node) const { tiles(a.row, 0, generator_forward<T>, node); }
  void generate_adj(const Node<T>& node) const { tiles(a.row, sums, generator_adjoint<T>, node); }
  void times(Multiply job, Cx<T>* out, const Cx<T>* x, const Cx<T>* y, const Cx<T>* z = nullptr) const {
    places(a.row, multiply_forward<T>, job, out, x, y, z);
  }
  void times_adj(Multiply job, Cx<T>* adj, Cx<T>* adj_g, Cx<T>* y = nullptr) const {
    places(a.row, multiply_adjoint<T>, job, adj, adj_g, y);
  }
  void etd_enter() {  // (9) from A = (incident, 0)
    c.E_0 = U_at(0), c.G = H_at(0);
    places(a.row, enter<T>);
    fft->forward(c.E_0, c.E_0);
    Node<T> node{};
    node.out = w_1, node.new_H = H_at(0);
    generate(node), fft->forward(w_1, w_1);
    times(FIRST, U_at(0), U_at(0), w_1);
  }
  void stage(long n, Cx<T>* E) const {  // g_1 of (8), as a spectrum in w_1; E: E_0 in space times N
    Node<T> node{};
    node.n = int(n), node.E = E, node.H = H_at(n), node.out = w_1, node.out_H = g_h;
    fft->inverse(U_at(n), E), generate(node), fft->forward(w_1, w_1);
  }
  void step(long n) const {
    stage(n, w_1);
    times(STAGE, A, U_at(n), w_1);
    Node<T> node{};
    node.n = int(n) + 1, node.E = w_2, node.H = H_at(n), node.g = g_h, node.out = w_2, node.new_H = H_at(n + 1);
    fft->inverse(A, w_2), generate(node), fft->forward(w_2, w_2);
    times(CORRECT, U_at(n + 1), A, w_2, w_1);
  }
  void etd_forward() {
    etd_enter();
    for (long n = 0; n + 1 < a.nz; ++n) step(n);
    Node<T> node{};  // into vacuum
    node.n = int(a.nz) - 1, node.E = w_1, node.H = H_at(0), node.out = w_1, node.new_H = H_at(0);
    fft->inverse(U, w_1), generate(node), fft->forward(w_1, w_1);
    times(LAST, A, U, w_1);
    fft->inverse(A, A);
    c.E_0 = A, c.G = H;
    places(a.row, leave<T>, T(1) / T(a.row));
  }
  void etd_adjoint() {
    etd_enter();
    for (long n = 0; n + 1 < a.nz; ++n) step(n);
    c.E_0 = nullptr, c.G = g_h, c.adj_G = adj_H, c.adj_E_0 = adj_U;
    places(a.row, leave_adjoint<T>);
    Node<T> node{};
    node.n = int(a.nz) - 1, node.E = A, node.H = H_at(a.nz - 1), node.from = node.of = node.adj_H = adj_H;
    node.adj_E = adj_U, node.opens = true;
    fft->inverse(U_at(a.nz - 1), A), generate_adj(node), fft->forward(adj_U, adj_U);
    for (long first = (a.nz - 1) / stride * stride; first >= 0; first -= stride) {
      const long last = std::min(first + stride, a.nz - 1);
      for (long n = first; n + 1 < last; ++n) step(n);
      for (long n = last - 1; n >= first; --n) step_adj(n);
    }
    // Reverse (9) from A = (incident, 0): u <- A + phi_2 g_2,  g_2 = V A
    times_adj(CORRECT, adj_U, w_1);
    fft->inverse(w_1, w_1), fft->inverse(adj_U, adj_U);
    node = {};
    node.adj_out = w_1, node.from = node.of = node.adj_H = adj_H, node.adj_E = adj_U, node.adds = true;
    generate_adj(node);
    end();
  }
  void step_adj(long n) const {
    stage(n, A);
    times(STAGE, w_1, U_at(n), w_1);
    // Reverse (9): u <- A + phi_2 (g_2 - g_1),  g_2 = V_{n+1} A
    times_adj(CORRECT, adj_U, w_2);
    fft->inverse(w_1, w_1), fft->inverse(w_2, w_2);
    Node<T> node{};
    node.n = int(n) + 1, node.E = w_1, node.H = H_at(n), node.g = g_h, node.adj_out = w_2, node.adj_E = w_1;
    node.from = node.of = adj_H, node.adj_H = adj_AH;
    generate_adj(node), fft->forward(w_1, w_1);
    times_adj(STAGE, adj_U, w_2, w_1);
    // Reverse (8): A = exp(L) u + phi_1 g_1,  g_1 = V_n u
    fft->inverse(w_2, w_2);
    node = {};
    node.n = int(n), node.E = A, node.H = H_at(n), node.adj_out = w_2, node.adj_E = w_2;
    node.from = adj_AH, node.of = node.adj_H = adj_H, node.opens = true;
    generate_adj(node), fft->forward(w_2, w_2);
    times_adj(FIRST, adj_U, nullptr, w_2);
  }
};

template <class T>
void run(const Args& a, bool adjoint) {
  check(cudaSetDevice(a.device));
  fused<T>(a, adjoint) ? Fused<T>(a, adjoint).run() : Unfused<T>(a, adjoint).run();
}
template <class T>
std::size_t workspace(const Args& a, bool adjoint) {
  return fused<T>(a, adjoint) ? Fused<T>(a, adjoint).cut.bytes : Unfused<T>(a, adjoint).cut.bytes;
}

}  // namespace PENDEL_ISA

void forward_cuda(const Args& args, bool single) {
  single ? PENDEL_ISA::run<float>(args, false) : PENDEL_ISA::run<double>(args, false);
}
void adjoint_cuda(const Args& args, bool single) {
  single ? PENDEL_ISA::run<float>(args, true) : PENDEL_ISA::run<double>(args, true);
}
std::size_t workspace_cuda(const Args& args, bool single, bool adjoint) {
  return single ? PENDEL_ISA::workspace<float>(args, adjoint) : PENDEL_ISA::workspace<double>(args, adjoint);
}
bool needs_cufft(const Args& args, bool single, bool adjoint) {
  return single ? PENDEL_ISA::transforms<float>(args, adjoint) : PENDEL_ISA::transforms<double>(args, adjoint);
}
int load_cufft(const std::string& path) { return PENDEL_ISA::Cufft::get().load(path); }

std::map<std::string, std::string> cuda_state() {
  int driver = 0, count = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || !driver) return {{"problem", "no NVIDIA driver"}};
  const auto dotted = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  std::map<std::string, std::string> state{{"driver", "CUDA " + dotted(driver)}};
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || !count) state["problem"] = error == cudaSuccess ? "no device" : cudaGetErrorString(error);
  for (int i = 0; error == cudaSuccess && i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    state["device " + std::to_string(i)] = std::string(p.name) + ", compute capability " + std::to_string(p.major) +
                                           "." + std::to_string(p.minor) + ", " +
                                           std::to_string(p.totalGlobalMem >> 20) + " MiB";
  }
  return state;
}

}  // namespace pendel
