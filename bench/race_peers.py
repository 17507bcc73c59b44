"""Ways to the exit field of a crystal and back, all called alike: pendel's own, and those by automatic differentiation.

| way | scheme | what it is |
|---|---|---|
| `pendel` | strang | the operator, forward and adjoint |
| `pendel.torch`, `pendel.jax` | strang | the same as an operator of PyTorch and JAX |
| `pendel-heun` | etd2rk | the operator with the paper's scheme |
| `torch-paper` | etd2rk | the paper's formulation as printed: exponential Heun, both waves by 2-D FFTs, autograd |
| `torch-heun` | etd2rk | the same scheme as well as we can write it: only E_0 is transformed, along x alone |
| `torch-closed` | strang | closed-form matrices once per voxel, autograd (`peers.py`) |
| `torch-reversal` | strang | the same matrices, the march reversed by a custom autograd Function (`gpu_torch.py`) |
| `jax-checkpoint` | strang | the same matrices, lax.scan of checkpointed steps (`gpu_jax.py`) |
| `jax-reversal` | strang | the same, lax.scan with a custom_vjp that reverses it |

Paper: Wu et al., arXiv 2506.15939, Eq. 3, the coupling's sign put right. Every way takes S, s_0 and dq = (0, 0, D) and
gives exit fields and dL/dS for a given adj_E_h; the rows of y are independent, so peers take as many at once as are
fastest. Scheme etd2rk is compared with pendel's own etd2rk.
"""

import abc
import importlib
import importlib.util
import time
from typing import NamedTuple

import numpy as np

# Relative L2 of E_h and of the gradient, by precision: rounding of some hundred layers, far below any wrong term.
TOLERANCE = {"complex64": 1e-4, "complex128": 1e-9}
CHUNKS = (1, 2, 4, 8, 16)  # rows that peers take at once, of which the fastest is searched
MOST = 4e9  # bytes of a graph that is kept


class Way(abc.ABC):
    """One way, for one operator.

    Parameters
    ----------
    op : pendel.TakagiTaupin
        With the scheme of the way.
    rows : int or None
        That are taken at once; None: all.
    """

    takes_chunks = False  # whether `rows` matters
    knows_ramp = True  # whether dq_x and dq_y are heeded: (6) of csrc/README.md
    kept = 0  # arrays (frames, rows, row length) kept per layer for the way back, counted generously

    def __init__(self, op, rows=None):
        self.op, self.rows = op, rows

    @abc.abstractmethod
    def gradient(self, S, s_0, dq, adj_E_h):
        """A function without arguments that gives (E_h, adj_S), arrays of the way's own kind; inputs lie ready."""

    def numpy(self, found):
        """What that function gives, as NumPy arrays."""
        return [np.asarray(array) for array in found]

    @abc.abstractmethod
    def sweep(self, S, dq):
        """(E_h, function of adj_E_h that gives adj_S) with s_0 = |S|, NumPy arrays, for a loop with a loss between."""

    def graph(self, rows, frames):
        """Bytes kept for the way back, about: for the decision whether they may be."""
        return self.kept * self.op.dtype.itemsize * self.op.shape[0] * rows * frames * self.op.row_length

    def cuts(self, ny):
        """Slices of the rows that are taken at once."""
        rows = self.rows or ny
        return [slice(first, min(first + rows, ny)) for first in range(0, ny, rows)]


class Operator(Way):
    def gradient(self, S, s_0, dq, adj_E_h):
        def run():
            E_h, state = self.op.forward(S, dq, s_0, return_state=True)
            return E_h, self.op.adjoint(S, dq, adj_E_h, s_0, state=state).S

        return run

    def sweep(self, S, dq):
        E_h, state = self.op.forward(S, dq, return_state=True)
        return E_h, lambda adj_E_h: self.op.adjoint(S, dq, adj_E_h, state=state).S


class Entry(NamedTuple):
    """Where a way is to be found, and what it takes.

    Attributes
    ----------
    framework : module that has to be installed, or None
    module, maker : of this folder, and the callable in it that makes the `Way`
    scheme : of the operator
    """

    framework: str | None
    module: str
    maker: str
    scheme: str = "strang"


WAYS = {
    "pendel": Entry(None, "race_peers", "Operator"),
    "pendel.torch": Entry("torch", "race_torch", "Pendel"),
    "pendel.jax": Entry("jax", "race_jax", "Pendel"),
    "pendel-heun": Entry(None, "race_peers", "Operator", "etd2rk"),
    "torch-closed": Entry("torch", "race_torch", "Closed"),
    "torch-reversal": Entry("torch", "race_torch", "Reversed"),
    "torch-heun": Entry("torch", "race_torch", "Heun", "etd2rk"),
    "torch-paper": Entry("torch", "race_torch", "Paper", "etd2rk"),
    "jax-checkpoint": Entry("jax", "race_jax", "Checkpointed"),
    "jax-reversal": Entry("jax", "race_jax", "Reversed"),
}


def missing(names):
    """{way: framework that is not installed}."""
    wanted = {name: WAYS[name].framework for name in names}
    return {name: f for name, f in wanted.items() if f and importlib.util.find_spec(f) is None}


def make(name, op, rows=None):
    """The `Way` of a name."""
    entry = WAYS[name]
    return getattr(importlib.import_module(entry.module), entry.maker)(op, rows)


def runs(name, transport):
    """Whether a way has this transport: the paper's scheme is one of Fourier multipliers."""
    return transport == "fourier" or WAYS[name].scheme == "strang"


def tuned(name, op, S, s_0, dq, adj_E_h):
    """The way with the number of rows that is fastest per row, tried on the first of them."""
    way = make(name, op)
    if not way.takes_chunks:
        return way
    cost = {}
    for rows in (n for n in CHUNKS if n == 1 or n <= S.shape[1] and way.graph(n, len(dq)) <= MOST):
        few = [np.ascontiguousarray(array[:, :rows]) for array in (S, s_0, adj_E_h)]
        run = make(name, op, rows).gradient(*few[:2], dq, few[2])
        run()
        cost[rows] = seconds(run) / rows
    return make(name, op, min(cost, key=cost.get))


def differences(found, expected):
    """Relative L2 differences of two (E_h, adj_S); AssertionError where one is beyond `TOLERANCE` of their dtype."""
    assert [a.shape for a in found] == [b.shape for b in expected], [a.shape for a in found]
    assert [a.dtype for a in found] == [b.dtype for b in expected], [a.dtype for a in found]
    found = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, expected, strict=True)]
    most = TOLERANCE[str(expected[0].dtype)]
    assert all(d <= most for d in found), f"E_h, adj_S differ by {found}, expected at most {most}"
    return found


def seconds(run):
    """By the clock."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
