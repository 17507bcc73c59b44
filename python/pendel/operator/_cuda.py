"""The sweeps for CUDA devices, compiled: functions of the shared library pendel_cuda, or ImportError."""

from .library import CudaLibrary, path_of

_library = CudaLibrary(path_of("pendel_cuda"))
FUSED_SHARED = _library.FUSED_SHARED
enumerators, workspace = _library.enumerators, _library.workspace
forward, adjoint = _library.forward, _library.adjoint
needs_cufft, load_cufft, state = _library.needs_cufft, _library.load_cufft, _library.state
