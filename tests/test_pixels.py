"""The choice of held-out pixels."""

import numpy as np
import pytest
from pendel.model.pixels import free_pixels


def test_choice_of_held_out_pixels(rng):
    shape = (40, 60, 80)
    mask = rng.uniform(size=shape[1:]) > 0.1
    free = free_pixels(shape, 0.06, mask, seed=3)
    # 1e4 of 173e3 pixels: a standard deviation of 1 %
    assert free.sum() / mask.sum() / len(free) == pytest.approx(0.06, rel=0.04)
    assert not free[:, ~mask].any() and not free[19:22, 29:32, 38:43].any()
    assert np.array_equal(free, free_pixels(shape, 0.06, mask, seed=3))
    assert not np.array_equal(free, free_pixels(shape, 0.06, mask, seed=4))
    # no islands: a neighbour is no likelier than any other
    assert (free[1:] & free[:-1]).mean() == pytest.approx((0.06**2) * mask.mean(), rel=0.2)
    with pytest.raises(ValueError, match="free_fraction: expected a finite number > 0 and < 1, got 1"):
        free_pixels(shape, 1)
    with pytest.raises(ValueError, match="free_fraction: expected one that leaves good pixels on both sides"):
        free_pixels(shape, 0.1, np.zeros(shape, bool))
