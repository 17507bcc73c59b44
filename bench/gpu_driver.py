"""Device memory and events for the GPU bench with nothing but the NVIDIA driver (ctypes on libcuda.so.1): pendel's
kernels can be run, timed and checked without CuPy, and every array is an allocation of its own, so that
compute-sanitizer sees an index that leaves it. `Host` has the same methods on host memory, for the emulated kernels.
"""

import ctypes

import numpy as np


class Driver:
    """Arrays in memory of one device; addresses are ints. Raises RuntimeError with the driver's own words."""

    def __init__(self, index=0):
        self._cuda = ctypes.CDLL("libcuda.so.1")
        device, self._context, self.arrays = ctypes.c_int(), ctypes.c_void_p(), {}
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._device = device
        # the context the CUDA runtime inside _cuda uses as well
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        self._events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self._events:
            self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))

    def _call(self, name, *arguments):
        code = getattr(self._cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'error').decode()} ({code})")

    def empty(self, shape, dtype):
        """Address of an array of NaN or 0xff: what is never written must not look right."""
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(0xFF), ctypes.c_size_t(size))
        self.arrays[address.value] = (shape, np.dtype(dtype), size)
        return address.value

    def upload(self, array):
        array = np.ascontiguousarray(array)
        address = self.empty(array.shape, array.dtype)
        source = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes))
        return address

    def download(self, address):
        shape, dtype, size = self.arrays[address]
        out = np.empty(shape, dtype)
        target = ctypes.c_void_p(out.ctypes.data)
        self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(size))
        return out

    def free(self):
        self._call("cuCtxSynchronize")
        for address in self.arrays:
            self._call("cuMemFree_v2", ctypes.c_uint64(address))
        self.arrays.clear()

    def allocated(self):
        return sum(size for *_, size in self.arrays.values())

    def used(self):
        """Bytes of the device's memory in use, by anybody."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuCtxSynchronize")
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value

    def multiprocessors(self):
        count = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(count), 16, self._device)  # ..._MULTIPROCESSOR_COUNT
        return count.value

    def clock(self, run):
        """ms of what ``run`` puts into the default stream, by events."""
        ms = ctypes.c_float()
        self._call("cuEventRecord", self._events[0], None)
        run()
        self._call("cuEventRecord", self._events[1], None)
        self._call("cuEventSynchronize", self._events[1])
        self._call("cuEventElapsedTime", ctypes.byref(ms), *self._events)
        return ms.value


class Host:
    """The same on host memory, wall clock: dry runs."""

    def __init__(self):
        self.arrays = {}

    def empty(self, shape, dtype):
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF
        self.arrays[array.ctypes.data] = array
        return array.ctypes.data

    def upload(self, array):
        address = self.empty(array.shape, array.dtype)
        self.arrays[address][...] = array
        return address

    def download(self, address):
        return self.arrays[address].copy()

    def free(self):
        self.arrays.clear()

    def allocated(self):
        return sum(array.nbytes for array in self.arrays.values())

    used = allocated

    def multiprocessors(self):
        return None

    def clock(self, run):
        from gpu_common import wall

        return wall(run)
