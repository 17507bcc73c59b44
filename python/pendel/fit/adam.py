"""Adam's steps (Kingma & Ba 2015)."""

from dataclasses import dataclass

import numpy as np

from ..base.arrays import module
from . import kernels


@dataclass
class Adam:
    """Adam on one array, real or complex; the second moment is |g|^2, blind to the global phase. NumPy or CuPy."""

    m: np.ndarray
    v: np.ndarray
    steps: int = 0
    beta_1: float = 0.9
    beta_2: float = 0.99

    @classmethod
    def zeros(cls, shape, dtype, xp=np):
        """Before the first step of an array of ``dtype`` of the module ``xp``."""
        m = xp.zeros(shape, dtype)
        return cls(m, xp.zeros(shape, m.real.dtype))

    def direction(self, gradient):
        """Adam's direction against ``gradient``, of the array's shape and dtype; the moments take it up."""
        self.steps += 1
        bias = 1 - self.beta_1**self.steps, 1 - self.beta_2**self.steps
        tiny = np.finfo(self.v.dtype).tiny ** 0.5
        if module(gradient) is not np:
            return kernels.adam(gradient, self.m, self.v, 1 - self.beta_1, 1 - self.beta_2, *bias, tiny)
        self.m += (1 - self.beta_1) * (gradient - self.m)
        self.v += (1 - self.beta_2) * (gradient.real**2 + gradient.imag**2 - self.v)
        m = self.m / bias[0]
        v = np.sqrt(self.v / bias[1])
        return m / np.maximum(v, tiny)
