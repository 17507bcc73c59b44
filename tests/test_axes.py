"""Axes of the lab frame, by name and by components."""

import numpy as np
import pytest
from pendel.base import constants
from pendel.base.axes import axis_as_given, axis_vector


@pytest.mark.parametrize("i, letter", list(enumerate("xyz")))
def test_names_and_components_of_an_axis_agree(i, letter):
    for sign, factor in (("+", 1.0), ("-", -1.0)):
        vector = axis_vector("axis", letter + sign)
        assert (vector == factor * np.eye(3)[i]).all()
        assert (vector == axis_vector("axis", 3.5 * vector)).all()


def test_vectors_have_length_1_and_what_is_given_stays():
    assert axis_vector("axis", (1, 2, 2)) == pytest.approx((1 / 3, 2 / 3, 2 / 3), rel=1e-15)
    assert axis_as_given("axis", "z-") == "z-" and axis_as_given("axis", [1, 2, 2]) == (1.0, 2.0, 2.0)


@pytest.mark.parametrize(
    "axis, error, message",
    [
        ("w+", ValueError, "turn: expected an axis such as 'y[+]' or 'x-', or three numbers, got 'w[+]'"),
        ("y", ValueError, "turn: expected an axis such as"),
        ((0, 0, 0), ValueError, r"turn: expected a vector of non-zero length, got \[0.0, 0.0, 0.0\]"),
        ((1, 2), ValueError, r"turn: expected shape \(3,\)"),
        ((1, 2, float("nan")), ValueError, "turn: expected finite values"),
        (("a", 1, 2), TypeError, "turn: expected an array that converts to float64"),
    ],
)
@pytest.mark.parametrize("check", [axis_vector, axis_as_given])
def test_what_is_no_axis_is_named(check, axis, error, message):
    with pytest.raises(error, match=message):
        check("turn", axis)


def test_constants_are_those_of_the_si():
    assert constants.PLANCK == 6.62607015e-34 and constants.LIGHT_SPEED == 299792458.0
    assert constants.ELECTRONVOLT == 1.602176634e-19 and constants.KEV == 1e3 * 1.602176634e-19
