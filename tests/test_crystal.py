"""The susceptibilities of a crystal: what is refused, and what follows from what."""

import pytest
from pendel import Crystal


def test_crystal_knows_one_sign_convention():
    with pytest.raises(ValueError, match="chi_0: expected Im chi_0 >= 0"):
        Crystal(-1e-5 - 1e-6j, 1e-5)
    with pytest.raises(TypeError, match="chi_h: expected a complex number"):
        Crystal(-1e-5, "gold")
    with pytest.raises(ValueError, match="hkl: expected 3 integers"):
        Crystal(-1e-5, 1e-5, hkl=(1, 1))
    crystal = Crystal(-1e-5 + 1e-6j, 1e-5 - 1e-6j, hkl=[0, 0, 2])
    assert crystal.chi_hbar == crystal.chi_h and crystal.hkl == (0, 0, 2)
