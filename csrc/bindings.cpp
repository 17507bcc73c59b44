// The extension modules _core and, with PENDEL_CUDA, _cuda: what turns a Plan (python/pendel/operator/plan.py) and
// arrays into Args, and the tables of names. Arrays arrive checked by the Python operator; those on a device as their
// addresses. _core also chooses its instruction set here.
#include <pybind11/complex.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if !defined(PENDEL_CUDA)
#include "fft.h"
#endif
#include "run.h"

#if !defined(PENDEL_CUDA)
namespace pendel {

namespace {
constexpr long LONGEST_ROW = 1L << 24;

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

namespace py = pybind11;
using pendel::Args;

namespace {

#if defined(PENDEL_CUDA)
void* output(const py::object& address, const char*) {
  return address.is_none() ? nullptr : reinterpret_cast<void*>(py::cast<std::uintptr_t>(address));
}
const void* input(const py::object& address, const char* name) { return output(address, name); }
const auto run_forward = pendel::forward_cuda, run_adjoint = pendel::adjoint_cuda;
const auto run_workspace = pendel::workspace_cuda;
#else
// Sweeps read vectors from addresses that are multiples of the element's size, one after the other, as the Python
// operator gives them.
py::array plain(const py::object& object, const char* name) {
  if (!py::isinstance<py::array>(object))
    throw py::type_error(std::string(name) + ": expected a NumPy array, got " +
                         py::cast<std::string>(py::str(py::type::of(object))));
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) || !(array.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + ": expected an aligned C-contiguous array, got another; copy it");
  return array;
}
const void* input(const py::object& array, const char* name) {
  return array.is_none() ? nullptr : plain(array, name).data();
}
void* output(const py::object& array, const char* name) {
  if (array.is_none()) return nullptr;
  py::array given = plain(array, name);
  if (!given.writeable())
    throw py::value_error(std::string(name) + ": expected an array to write to, got a read-only one");
  return given.mutable_data();
}
const auto run_forward = pendel::forward_cpu, run_adjoint = pendel::adjoint_cpu;
const auto run_workspace = pendel::workspace_cpu;
#endif

template <class V>
V field(const py::object& from, const char* name) {
  return py::cast<V>(from.attr(name));
}

// A member of an IntEnum of plan.py as that of the enum class whose last member is `last`.
template <class E>
E enumerator(const py::object& plan, const char* name, E last) {
  const int value = field<int>(plan, name);
  if (value < 0 || value > int(last))
    throw py::value_error(std::string(name) + ": expected an integer from 0 to " + std::to_string(int(last)) +
                          ", got " + std::to_string(value));
  return E(value);
}

// The enum classes of run.h by name, for the test that compares them with plan.py.
py::dict enumerators() {
  using namespace pendel;
  using py::literals::operator""_a;
  return py::dict(
      "Scheme"_a = py::dict("STRANG"_a = int(Scheme::STRANG), "ETD2RK"_a = int(Scheme::ETD2RK)),
      "Transport"_a = py::dict("SHIFT"_a = int(Transport::SHIFT), "FOURIER"_a = int(Transport::FOURIER)),
      "Orientation"_a = py::dict("K_H"_a = int(Orientation::K_H), "SYMMETRIC"_a = int(Orientation::SYMMETRIC)));
}

bool is_single(const py::object& plan) { return field<bool>(plan, "single"); }

// A Plan as Args, all pointers to arrays null.
Args args_of(const py::object& plan) {
  Args a{};
  const auto shape = field<std::array<long, 3>>(plan, "shape");
  const auto voxel = field<std::array<double, 3>>(plan, "voxel");
  const auto medium = field<std::array<std::complex<double>, 4>>(plan, "medium");
  pendel::Complex* const coefficients[4] = {&a.m, &a.w, &a.b, &a.c};
  for (int i = 0; i < 4; ++i) *coefficients[i] = {medium[i].real(), medium[i].imag()};

  a.frames = field<long>(plan, "frames");
  a.nz = shape[0], a.ny = shape[1], a.nx = shape[2];
  a.dz = voxel[0], a.dy = voxel[1], a.dx = voxel[2];
  a.row = field<long>(plan, "row_length");
  a.exit = field<long>(plan, "exit_length");

  a.scheme = enumerator(plan, "scheme", pendel::Scheme::ETD2RK);
  a.transport = enumerator(plan, "transport", pendel::Transport::FOURIER);
  a.orientation = enumerator(plan, "orientation", pendel::Orientation::SYMMETRIC);
  a.shift = field<int>(plan, "shift");
  a.pixels = field<double>(plan, "pixels_per_layer");
  a.tan_h = field<double>(plan, "tan_h");
  a.resync = field<long>(plan, "resync");
  a.threads = field<int>(plan, "threads");

#if defined(PENDEL_CUDA)
  const py::object launch = plan.attr("launch");
  a.device = field<int>(launch, "device");
  a.workspace = output(launch.attr("workspace"), "workspace");
  a.stream = output(launch.attr("stream"), "stream");
  a.unfused = field<bool>(launch, "unfused");
  a.chunk = field<long>(launch, "chunk");
#endif
  return a;
}

void forward(const py::object& plan, const py::object& dq, const py::object& S, const py::object& s_0,
             const py::object& incident, const py::object& E_h, const py::object& E_0, const py::object& layers) {
  Args a = args_of(plan);
  const bool single = is_single(plan);

  a.dq = static_cast<const double*>(input(dq, "dq"));
  a.S = input(S, "S");
  a.s_0 = input(s_0, "s_0");
  a.incident = input(incident, "incident");

  a.E_h = output(E_h, "E_h");
  a.E_0 = output(E_0, "E_0");
  a.layers = output(layers, "layers");

  py::gil_scoped_release release;
  run_forward(a, single);
}

void adjoint(const py::object& plan, const py::object& dq, const py::object& S, const py::object& s_0,
             const py::object& incident, const py::object& support, const py::object& E_h, const py::object& E_0,
             const py::object& layers, const py::object& adj_E_h, const py::object& adj_S, const py::object& adj_s_0,
             const py::object& adj_incident, const py::object& adj_dq, const py::object& adj_medium,
             const py::object& drift, const py::object& entrance_E_0, const py::object& entrance_G) {
  Args a = args_of(plan);
  const bool single = is_single(plan);

  a.dq = static_cast<const double*>(input(dq, "dq"));
  a.S = input(S, "S");
  a.s_0 = input(s_0, "s_0");
  a.incident = input(incident, "incident");
  a.support = static_cast<const std::uint8_t*>(input(support, "support"));

  a.E_h = const_cast<void*>(input(E_h, "E_h"));
  a.E_0 = const_cast<void*>(input(E_0, "E_0"));
  a.layers = const_cast<void*>(input(layers, "layers"));
  a.adj_E_h = input(adj_E_h, "adj_E_h");

  a.adj_S = output(adj_S, "adj_S");
  a.adj_s_0 = output(adj_s_0, "adj_s_0");
  a.adj_incident = output(adj_incident, "adj_incident");
  a.adj_dq = static_cast<double*>(output(adj_dq, "adj_dq"));
  a.adj_medium = static_cast<double*>(output(adj_medium, "adj_medium"));
  a.drift = static_cast<double*>(output(drift, "drift"));
  a.entrance_E_0 = output(entrance_E_0, "entrance_E_0");
  a.entrance_G = output(entrance_G, "entrance_G");

  py::gil_scoped_release release;
  run_adjoint(a, single);
}

std::size_t workspace(const py::object& plan, bool adjoint) {
  const Args a = args_of(plan);
  const bool single = is_single(plan);
  py::gil_scoped_release release;
  return run_workspace(a, single, adjoint);
}

#if !defined(PENDEL_CUDA)
std::vector<bool> lifted_rows(const py::object& plan, const py::object& S, const py::object& s_0) {
  Args a = args_of(plan);
  const double dq[3] = {};
  a.frames = 1, a.dq = dq;
  a.S = input(S, "S");
  a.s_0 = input(s_0, "s_0");
  std::vector<std::uint8_t> rows(a.ny);
  pendel::lifted_cpu(a, is_single(plan), rows.data());
  return {rows.begin(), rows.end()};
}

void extent(const py::array& S, int threads, const py::object& size, const py::object& filled) {
  pendel::Extent a{};
  a.nz = S.shape(0), a.ny = S.shape(1), a.nx = S.shape(2);
  a.threads = threads;
  a.S = input(S, "S");
  a.size = output(size, "size");
  a.filled = static_cast<std::uint8_t*>(output(filled, "filled"));
  const bool single = S.itemsize() == 2 * sizeof(float);

  py::gil_scoped_release release;
  pendel::extent_cpu(a, single);
}

void filter(const py::array& values, const py::array& taps_y, const py::array& taps_x, const py::object& wanted,
            const py::object& S, const py::object& adj_size, int threads, const py::object& filtered) {
  pendel::Filter a{};
  a.nz = values.shape(0), a.ny = values.shape(1), a.nx = values.shape(2);
  a.reach = (taps_y.shape(1) - 1) / 2;
  a.threads = threads;
  a.values = input(values, "values");
  a.taps_y = input(taps_y, "taps_y");
  a.taps_x = input(taps_x, "taps_x");
  a.wanted = static_cast<const std::uint8_t*>(input(wanted, "wanted"));
  a.S = input(S, "S");
  a.adj_size = input(adj_size, "adj_size");
  a.filtered = output(filtered, "filtered");
  const bool single = values.itemsize() == 2 * sizeof(float);

  py::gil_scoped_release release;
  pendel::filter_cpu(a, single);
}
#endif

// What both modules have. Arrays are given by name; None, or nothing where there is a default, is a null pointer.
void define_sweeps(py::module_& m) {
  const py::none none;
  m.def("enumerators", &enumerators);
  m.def("workspace", &workspace, py::arg("plan"), py::arg("adjoint"));
  m.def("forward", &forward, py::arg("plan"), py::kw_only(), py::arg("dq"), py::arg("S"), py::arg("s_0") = none,
        py::arg("incident") = none, py::arg("E_h"), py::arg("E_0") = none, py::arg("layers") = none);
  m.def("adjoint", &adjoint, py::arg("plan"), py::kw_only(), py::arg("dq"), py::arg("S"), py::arg("s_0") = none,
        py::arg("incident") = none, py::arg("support") = none, py::arg("E_h"), py::arg("E_0"), py::arg("layers") = none,
        py::arg("adj_E_h"), py::arg("adj_S"), py::arg("adj_s_0") = none, py::arg("adj_incident") = none,
        py::arg("adj_dq") = none, py::arg("adj_medium") = none, py::arg("drift") = none,
        py::arg("entrance_E_0") = none, py::arg("entrance_G") = none);
}

}  // namespace

#if defined(PENDEL_CUDA)
PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Takagi-Taupin sweeps on a CUDA device";
  define_sweeps(m);
  m.attr("FUSED_SHARED") = pendel::FUSED_SHARED;
  m.def(
      "needs_cufft",
      [](const py::object& plan, bool adjoint) { return pendel::needs_cufft(args_of(plan), is_single(plan), adjoint); },
      py::arg("plan"), py::arg("adjoint"));
  m.def("load_cufft", &pendel::load_cufft, py::arg("path"));
  m.def("state", &pendel::cuda_state);
}
#else
PYBIND11_MODULE(_core, m) {
  m.doc() = "Takagi-Taupin sweeps on the CPU";
  define_sweeps(m);
  m.def("lifted_rows", &lifted_rows, py::arg("plan"), py::kw_only(), py::arg("S"), py::arg("s_0") = py::none());
  m.def("extent", &extent, py::kw_only(), py::arg("S"), py::arg("threads"), py::arg("size"), py::arg("filled"));
  m.def("filter", &filter, py::kw_only(), py::arg("values"), py::arg("taps_y"), py::arg("taps_x"), py::arg("wanted"),
        py::arg("S"), py::arg("adj_size"), py::arg("threads"), py::arg("filtered"));
  m.def("cpu_isa", &pendel::cpu_isa);
  m.def("cpu_lanes", &pendel::cpu_lanes, py::arg("single"));
  m.def("fourier_row_length", &pendel::fourier_row_length, py::arg("need"));
}
#endif
