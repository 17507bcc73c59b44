"""The sweeps for the CPU, compiled: functions of the shared library pendel_cpu."""

from .library import CpuLibrary, path_of

_library = CpuLibrary(path_of("pendel_cpu"))
enumerators, workspace = _library.enumerators, _library.workspace
forward, adjoint, lifted_rows = _library.forward, _library.adjoint, _library.lifted_rows
extent, filter = _library.extent, _library.filter
cpu_isa, cpu_lanes = _library.cpu_isa, _library.cpu_lanes
fourier_row_length = _library.fourier_row_length
