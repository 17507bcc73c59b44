"""The stand-in for CuPy is as strict as CuPy where it has to be."""

import json
import subprocess
import sys

import numpy as np
import pytest
from pendel.fit import kernels
from standin import Standin, installed
from standin_array import ElementwiseKernel, ndarray


@pytest.fixture(scope="module")
def scaled():
    return ElementwiseKernel("T S, R rate", "T moved", "moved = S * rate;")


@pytest.fixture
def arrays():
    return ndarray(np.ones(3, np.complex64)), ndarray(np.empty(3, np.complex64))


def test_a_scalar_decides_no_type(scaled, arrays):
    S, moved = arrays
    with pytest.raises(KeyError, match="R"):
        scaled(S, np.float32(2), moved)
    scaled(S, ndarray(np.float32(2)), moved)
    assert np.array_equal(moved.get(), np.full(3, 2, np.complex64))


def test_types_of_arrays_are_taken_exactly(scaled, arrays):
    S, moved = arrays
    with pytest.raises(TypeError, match="Type is mismatched. S complex128 complex64"):
        scaled(S.astype(np.complex128), ndarray(np.float32(2)), moved)
    masked = ElementwiseKernel("T S, bool good, R rate", "T moved", "moved = good ? S * rate : T(0);")
    with pytest.raises(TypeError, match="Type is mismatched. good int8 bool"):
        masked(S, ndarray(np.ones(3, np.int8)), ndarray(np.float32(2)), moved)


def test_outputs_are_arrays_and_i_is_the_index(scaled, arrays):
    with pytest.raises(TypeError, match="Output arguments must be cupy.ndarray"):
        scaled(arrays[0], ndarray(np.float32(2)), np.float32(0))
    with pytest.raises(ValueError, match="Can not use 'i' as a parameter name"):
        ElementwiseKernel("T i", "T moved", "moved = i;")


def test_cupy_decides_the_types_of_the_kernels_as_the_stand_in_does(built, monkeypatch):
    if subprocess.run([sys.executable, "-c", "import cupy"], capture_output=True).returncode:
        pytest.skip("NO CuPy HERE: THE KERNELS' TYPES WERE NOT DECIDED BY IT")
    asked, types_of = [], ElementwiseKernel._types

    def types(kernel, args):
        given = [str(a.dtype) if isinstance(a, ndarray) else None for a in args]
        decided = types_of(kernel, args)
        asked.append((given[: kernel.inputs], given[kernel.inputs :], {k: str(v) for k, v in decided.items()}))
        return decided

    monkeypatch.setattr(ElementwiseKernel, "_types", types)
    with installed(Standin(built)) as standin:
        xp = standin.cupy
        for dtype in ("complex64", "complex128"):
            S, v = xp.zeros((2, 3, 4), dtype), xp.zeros((2, 3, 4), np.zeros(0, dtype).real.dtype)
            kernels.adam(S, S.copy(), v, 0.1, 0.01, 0.1, 0.01, 1e-20)
            kernels.step(S, S.copy(), v > 0, 0.1, None)
            kernels.atv(S, None, 2.0, 1.0, 1e-6, 0.5)
    texts = [getattr(kernels, name)[:2] for name in ("ADAM", "STEP", "ATV")] * 2
    calls = json.dumps(list(zip(texts, asked, strict=True)))
    code = f"""
import json, cupy, numpy
for (given, made), (inputs, outputs, wanted) in json.loads({calls!r}):
    kernel = cupy.ElementwiseKernel(given, made, "", "name")
    kinds = [tuple(k and numpy.dtype(k).type for k in some) for some in (inputs, outputs)]
    found = kernel._decide_params_type(*kinds)[2]
    assert {{letter: numpy.dtype(kind).name for letter, kind in found._pairs}} == wanted, (found, wanted)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
