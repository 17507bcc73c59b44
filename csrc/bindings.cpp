// The extension modules _core and, with PENDEL_CUDA, _cuda: their tables of names, and what turns Python's arguments
// into Args. Arrays arrive checked by the Python operator; those on a device as their addresses. _core also chooses its
// instruction set here.
#include <pybind11/complex.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>

#if !defined(PENDEL_CUDA)
#include "fft.h"
#endif
#include "run.h"

#if !defined(PENDEL_CUDA)
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
#endif

namespace py = pybind11;

namespace {

#if defined(PENDEL_CUDA)
void* output(const py::object& address) {
  return address.is_none() ? nullptr : reinterpret_cast<void*>(py::cast<std::uintptr_t>(address));
}
const void* input(const py::object& address) { return output(address); }
const auto run_forward = pendel::forward_cuda, run_adjoint = pendel::adjoint_cuda;
#else
const void* input(const py::object& array) { return array.is_none() ? nullptr : py::cast<py::array>(array).data(); }
void* output(const py::object& array) { return array.is_none() ? nullptr : py::cast<py::array>(array).mutable_data(); }
const auto run_forward = pendel::forward_cpu, run_adjoint = pendel::adjoint_cpu;
#endif

pendel::Args plan(const py::dict& p) {
  pendel::Args a{};
  const auto shape = py::cast<std::array<long, 3>>(p["shape"]);
  const auto voxel = py::cast<std::array<double, 3>>(p["voxel"]);
  const auto medium = py::cast<std::array<std::complex<double>, 4>>(p["medium"]);
  pendel::Complex* fields[4] = {&a.m, &a.w, &a.b, &a.c};
  for (int i = 0; i < 4; ++i) *fields[i] = {medium[i].real(), medium[i].imag()};
  a.frames = py::cast<long>(p["frames"]);
  a.nz = shape[0], a.ny = shape[1], a.nx = shape[2];
  a.dz = voxel[0], a.dy = voxel[1], a.dx = voxel[2];
  a.row = py::cast<long>(p["row_length"]), a.exit = py::cast<long>(p["exit_length"]);
  a.scheme = py::cast<bool>(p["etd2rk"]) ? pendel::ETD2RK : pendel::STRANG;
  a.shift = py::cast<int>(p["shift"]), a.resync = py::cast<long>(p["resync"]);
  a.pixels = py::cast<double>(p["pixels"]), a.tan_h = py::cast<double>(p["tan_h"]);
  a.threads = py::cast<int>(p["threads"]);
#if defined(PENDEL_CUDA)
  a.device = py::cast<int>(p["device"]);
  a.workspace = output(p["workspace"]), a.stream = output(p["stream"]);
  a.unfused = p.contains("unfused") && py::cast<bool>(p["unfused"]);
  a.chunk = p.contains("chunk") ? py::cast<long>(p["chunk"]) : 0;
#endif
  return a;
}

void forward(const py::dict& p, const py::object& dq, const py::object& S, const py::object& s_0,
             const py::object& incident, const py::object& E_h, const py::object& E_0, const py::object& layers,
             bool single) {
  pendel::Args a = plan(p);
  a.dq = static_cast<const double*>(input(dq));
  a.S = input(S), a.s_0 = input(s_0), a.incident = input(incident);
  a.E_h = output(E_h), a.E_0 = output(E_0), a.layers = output(layers);
  py::gil_scoped_release release;
  run_forward(a, single);
}

void adjoint(const py::dict& p, const py::object& dq, const py::object& S, const py::object& s_0,
             const py::object& incident, const py::object& support, const py::object& E_h, const py::object& E_0,
             const py::object& layers, const py::object& adj_E_h, const py::object& adj_S, const py::object& adj_s_0,
             const py::object& adj_incident, const py::object& adj_dq, const py::object& drift,
             const py::object& entrance_E_0, const py::object& entrance_G, bool single) {
  pendel::Args a = plan(p);
  a.dq = static_cast<const double*>(input(dq));
  a.S = input(S), a.s_0 = input(s_0), a.incident = input(incident);
  a.support = static_cast<const std::uint8_t*>(input(support));
  a.E_h = const_cast<void*>(input(E_h)), a.E_0 = const_cast<void*>(input(E_0));
  a.layers = const_cast<void*>(input(layers)), a.adj_E_h = input(adj_E_h);
  a.adj_S = output(adj_S), a.adj_s_0 = output(adj_s_0), a.adj_incident = output(adj_incident);
  a.adj_dq = static_cast<double*>(output(adj_dq));
  a.drift = static_cast<double*>(output(drift));
  a.entrance_E_0 = output(entrance_E_0), a.entrance_G = output(entrance_G);
  py::gil_scoped_release release;
  run_adjoint(a, single);
}

}  // namespace

#if defined(PENDEL_CUDA)
PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Takagi-Taupin sweeps on a CUDA device";
  m.def(
      "workspace",
      [](const py::dict& p, bool single, bool adjoint) {
        const pendel::Args a = plan(p);
        py::gil_scoped_release release;
        return pendel::workspace_cuda(a, single, adjoint);
      },
      py::arg("plan"), py::arg("single"), py::arg("adjoint"));
  m.def(
      "needs_cufft",
      [](const py::dict& p, bool single, bool adjoint) { return pendel::needs_cufft(plan(p), single, adjoint); },
      py::arg("plan"), py::arg("single"), py::arg("adjoint"));
  m.def("load_cufft", &pendel::load_cufft, py::arg("path"));
  m.def("state", &pendel::cuda_state);
#else
PYBIND11_MODULE(_core, m) {
  m.doc() = "Takagi-Taupin sweeps on the CPU";
  m.def("cpu_isa", &pendel::cpu_isa);
  m.def("cpu_lanes", &pendel::cpu_lanes, py::arg("single"));
  m.def("fourier_row_length", &pendel::fourier_row_length, py::arg("need"));
#endif
  m.def("forward", &forward, py::arg("plan"), py::arg("dq"), py::arg("S"), py::arg("s_0"), py::arg("incident"),
        py::arg("E_h"), py::arg("E_0"), py::arg("layers"), py::arg("single"));
  m.def("adjoint", &adjoint, py::arg("plan"), py::arg("dq"), py::arg("S"), py::arg("s_0"), py::arg("incident"),
        py::arg("support"), py::arg("E_h"), py::arg("E_0"), py::arg("layers"), py::arg("adj_E_h"), py::arg("adj_S"),
        py::arg("adj_s_0"), py::arg("adj_incident"), py::arg("adj_dq"), py::arg("drift"), py::arg("entrance_E_0"),
        py::arg("entrance_G"), py::arg("single"));
}
