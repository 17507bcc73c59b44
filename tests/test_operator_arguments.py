"""What the operator refuses, and that the message names the argument: `name: expected X, got Y`."""

import re

import numpy as np
import pendel
import pytest

SHAPE = (3, 2, 4)
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def make(gold, voxel_of):
    def make(**change):
        settings = {"shape": SHAPE, "voxel": voxel_of(gold["two_theta"]), "dtype": "complex128"} | gold
        return pendel.TakagiTaupin(**(settings | change))

    return make


def _refuses(kind, name, call):
    with pytest.raises(kind, match=rf"^{name}(\[\d\])?: expected .+, got ") as caught:
        call()
    assert caught.type in (TypeError, ValueError, RuntimeError)
    return str(caught.value)


@pytest.mark.parametrize(
    "kind, name, value",
    [
        (ValueError, "shape", (3, 0, 4)),
        (ValueError, "shape", (3, -2, 4)),
        (ValueError, "shape", (3, 4)),
        (TypeError, "shape", (3, 2.5, 4)),
        (TypeError, "shape", 12),
        (ValueError, "voxel", (8e-9, -8e-9, 8e-9)),
        (ValueError, "voxel", (8e-9, 0, 8e-9)),
        (ValueError, "voxel", (8e-9, 8e-9)),
        (ValueError, "voxel", (8e-9, NAN, 8e-9)),
        (TypeError, "voxel", (8e-9, "8e-9", 8e-9)),
        (TypeError, "voxel", 8e-9),
        (ValueError, "wavelength", 0.0),
        (ValueError, "wavelength", -1e-10),
        (ValueError, "wavelength", INF),
        (TypeError, "wavelength", 1e-10 + 0j),
        (TypeError, "wavelength", "1e-10"),
        (ValueError, "two_theta", 0.0),
        (ValueError, "two_theta", -0.3),
        (ValueError, "two_theta", np.pi / 2),
        (ValueError, "two_theta", 44.76),
        (ValueError, "two_theta", NAN),
        (ValueError, "chi_0", -9.4e-5 - 8.5e-6j),
        (ValueError, "chi_0", complex(NAN, 0)),
        (TypeError, "chi_0", "-9.4e-5"),
        (TypeError, "chi_0", None),
        (ValueError, "chi_h", complex(0, INF)),
        (TypeError, "chi_h", [5e-5]),
        (ValueError, "chi_hbar", complex(NAN, 0)),
        (TypeError, "chi_hbar", "same"),
        (ValueError, "polarization_factor", NAN),
        (TypeError, "polarization_factor", 1j),
        (ValueError, "scheme", "euler"),
        (ValueError, "scheme", "blanes_moan"),
        (ValueError, "scheme", None),
        (ValueError, "transport", "linear"),
        (ValueError, "dtype", "float64"),
        (ValueError, "dtype", "int32"),
        ((TypeError, ValueError), "dtype", "single complex"),
        (ValueError, "device", "tpu"),
        (ValueError, "threads", 0),
        (ValueError, "threads", -1),
        (TypeError, "threads", 1.5),
        (TypeError, "threads", True),
    ],
)
def test_constructor_refuses(make, kind, name, value):
    _refuses(kind, name, lambda: make(**{name: value}))


def test_the_sign_convention_is_explained(make):
    message = _refuses(ValueError, "chi_0", lambda: make(chi_0=-9.4e-5 - 8.5e-6j))
    assert re.search(r"Im|absor", message)


def test_shift_is_refused_where_the_move_is_not_whole(make, gold, voxel_of):
    for pixels in (0.5, 1.01, 1 + 1e-5, 0.001):
        voxel = voxel_of(gold["two_theta"], pixels)
        _refuses(ValueError, "transport", lambda: make(transport="shift", voxel=voxel))  # noqa: B023


def test_cuda_without_a_device_is_refused(make):
    if pendel.cuda_available():
        pytest.skip("a CUDA device is present, so device='cuda' is no error")
    with pytest.raises((RuntimeError, ValueError), match="^device: expected"):
        make(device="cuda")


def _with(where, value, dtype=complex):
    array = np.ones(SHAPE, dtype)
    array[where] = value
    return array


DQ = np.zeros((5, 3))


@pytest.mark.parametrize(
    "kind, name, change",
    [
        (ValueError, "S", {"S": np.ones((3, 2, 5))}),
        (ValueError, "S", {"S": np.ones((3, 4))}),
        (ValueError, "S", {"S": np.ones((4, 2, 3))}),
        (ValueError, "S", {"S": _with((1, 1, 1), NAN)}),
        (ValueError, "S", {"S": _with((2, 1, 3), complex(0, INF))}),
        (TypeError, "S", {"S": np.full(SHAPE, "1")}),
        (TypeError, "S", {"S": np.full(SHAPE, None)}),
        (TypeError, "S", {"S": "S"}),
        (ValueError, "dq", {"dq": np.zeros(3)}),
        (ValueError, "dq", {"dq": np.zeros((5, 2))}),
        (ValueError, "dq", {"dq": np.zeros((0, 3))}),
        (ValueError, "dq", {"dq": np.full((5, 3), NAN)}),
        (TypeError, "dq", {"dq": np.zeros((5, 3), complex)}),
        (TypeError, "dq", {"dq": np.full((5, 3), "0")}),
        (ValueError, "s_0", {"s_0": np.ones((3, 2, 3))}),
        (ValueError, "s_0", {"s_0": _with((0, 0, 0), NAN, float)}),
        (TypeError, "s_0", {"s_0": np.ones(SHAPE, complex)}),
        (TypeError, "s_0", {"s_0": np.full(SHAPE, "1")}),
        (ValueError, "incident", {"incident": np.ones((2, 3))}),
        (ValueError, "incident", {"incident": np.ones((5, 2, 4))}),
        (ValueError, "incident", {"incident": np.full((2, 4), NAN)}),
        (TypeError, "incident", {"incident": np.full((2, 4), "1")}),
    ],
)
@pytest.mark.parametrize("sweep", ["forward", "adjoint"])
def test_both_sweeps_refuse(make, sweep, kind, name, change):
    arguments = {"S": np.ones(SHAPE, complex), "dq": DQ} | change
    if sweep == "adjoint":
        arguments["adj_E_h"] = np.ones((5, 2, 4), complex)
    _refuses(kind, name, lambda: getattr(make(), sweep)(**arguments))


@pytest.mark.parametrize(
    "kind, name, value",
    [
        (ValueError, "adj_E_h", np.ones((4, 2, 4))),
        (ValueError, "adj_E_h", np.ones((5, 2, 5))),
        (ValueError, "adj_E_h", np.full((5, 2, 4), NAN)),
        (TypeError, "adj_E_h", np.full((5, 2, 4), "1")),
        (ValueError, "support", np.ones((3, 2, 5), bool)),
        (TypeError, "support", np.ones(SHAPE)),
        (TypeError, "support", np.ones(SHAPE, int)),
        (TypeError, "state", "state"),
        (TypeError, "state", np.ones((5, 2, 4))),
    ],
)
def test_adjoint_refuses(make, kind, name, value):
    arguments = {"S": np.ones(SHAPE, complex), "dq": DQ, "adj_E_h": np.ones((5, 2, 4), complex)} | {name: value}
    _refuses(kind, name, lambda: make().adjoint(**arguments))


def test_adjoint_refuses_the_state_of_another_number_of_frames(make):
    op = make()
    _, state = op.forward(np.ones(SHAPE), DQ[:3], return_state=True)
    _refuses(ValueError, "state", lambda: op.adjoint(np.ones(SHAPE), DQ, np.ones((5, 2, 4)), state=state))


def test_a_refused_call_leaves_the_operator_usable(make):
    op = make()
    expected = op.forward(np.ones(SHAPE), DQ)
    with pytest.raises(ValueError, match="^S: "):
        op.forward(np.ones((1, 1, 1)), DQ)
    assert np.array_equal(op.forward(np.ones(SHAPE), DQ), expected)
