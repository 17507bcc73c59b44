"""The stand-in for CuPy is as strict as CuPy where it has to be."""

import numpy as np
import pytest
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
