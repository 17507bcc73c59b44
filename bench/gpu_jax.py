"""The sweep in JAX, two ways: lax.scan with a custom_vjp that reverses it, and a scan of jax.checkpoint-ed steps.

Both share the closed-form matrices and, for `shift`, the frame that moves with E_0. Rows go in chunks, one call of the
compiled function each.
"""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def matrices(S, s_0, medium):
    """M of every voxel, complex (nz, 4, rows, nx): series in u, as in gpu_torch.py."""
    m, w, b, c = (S.dtype.type(v) for v in medium)
    omega = w * s_0
    u = omega * omega + b * c * (S.real**2 + S.imag**2)
    e = jnp.exp(m * s_0)
    ch = e * (1 + u / 2 * (1 + u / 12 * (1 + u / 30 * (1 + u / 56))))
    shc = e * (1 + u / 6 * (1 + u / 20 * (1 + u / 42 * (1 + u / 72))))
    odd = shc * omega
    return jnp.stack((ch + odd, shc * b * S.conj(), shc * c * S, ch - odd), 1)


class Sweep:
    def __init__(self, plan, D, dtype="complex64"):
        self.nz, _, self.nx = plan.shape
        self.N, self.m, self.medium = plan.row_length, plan.shift, plan.medium
        D, dz = np.asarray(D, np.float64), plan.voxel[0]
        self.layer, self.half = (np.exp(-1j * D * dz * n).astype(dtype)[:, None, None] for n in (1, 0.5))
        self.phase = np.exp(-2j * np.pi * np.fft.fftfreq(self.N) * plan.pixels_per_layer).astype(dtype)

    def window(self, E_0, z):
        return lax.dynamic_slice_in_dim(E_0, self.m * (self.nz - 1 - z), self.nx, -1)

    def replaced(self, E_0, part, z):
        return lax.dynamic_update_slice_in_dim(E_0, part, self.m * (self.nz - 1 - z), -1)

    def transport(self, E_0, phase):
        return E_0 if self.m else jnp.fft.ifft(jnp.fft.fft(E_0) * phase)

    def step(self, state, layer_of):
        """Transport to layer z (none before the first), then the coupling."""
        (E_0, G), (z, (a, b, c, d)) = state, layer_of
        E_0, G = self.transport(E_0, self.phase), self.layer * G  # before z = 0: E_0 = 1 and G = 0 stay what they are
        e = self.window(E_0, z)
        return (self.replaced(E_0, a * e + b * G, z), c * e + d * G), None

    def back(self, state, layer_of):
        """Reverse `step`: state by the inverse, adjoint by the conjugate transpose, X = sum conj(adj_i) E_j."""
        (E_0, G), (z, (a, b, c, d)) = state, layer_of
        (e, u), (h, w) = self.window(E_0, z), G
        det = a * d - b * c
        e, h = (d * e - b * h) / det, (a * h - c * e) / det
        X = jnp.stack([(left.conj() * right).sum(0) for left in (u, w) for right in (e, h)])
        e = jnp.stack((e, a.conj() * u + c.conj() * w))
        h = jnp.stack((h, b.conj() * u + d.conj() * w))
        return (self.transport(self.replaced(E_0, e, z), self.phase.conj()), self.layer.conj() * h), X

    def run(self, step, M):
        start = (jnp.ones((len(self.layer), M.shape[2], self.N), M.dtype),)
        start += (jnp.zeros((len(self.layer), M.shape[2], self.nx), M.dtype),)
        (E_0, G), _ = lax.scan(step, start, (jnp.arange(self.nz), M))
        return E_0, self.half * G

    def detuned(self, layer, half):
        """This sweep with other phases of the detuning, (frames, 1, 1) each; they may be traced."""
        other = copy.copy(self)
        other.layer, other.half = layer, half
        return other

    def march(self, M):
        """Exit G (frames, rows, nx) of M (nz, 4, rows, nx), by reversal."""

        # What is traced comes as an argument: a function that closes over it cannot leave the trace.
        @jax.custom_vjp
        def march(M, layer, half):
            sweep = self.detuned(layer, half)
            return sweep.run(sweep.step, M)[1]

        def forward(M, layer, half):
            sweep = self.detuned(layer, half)
            E_0, G = sweep.run(sweep.step, M)
            return G, (M, layer, half, E_0, G)

        def backward(kept, cotangent):  # JAX's cotangents are conjugate to adj: dL = Re sum cotangent dX
            M, layer, half, E_0, G = kept
            sweep = self.detuned(layer, half)
            state = jnp.stack((E_0, jnp.zeros_like(E_0))), half.conj() * jnp.stack((G, cotangent.conj()))
            return lax.scan(sweep.back, state, (jnp.arange(self.nz), M), reverse=True)[1], None, None

        march.defvjp(forward, backward)
        return march(M, self.layer, self.half)

    def march_checkpointed(self, M):
        return self.run(jax.checkpoint(self.step), M)[1]


WAYS = {"reversal": Sweep.march, "checkpoint": Sweep.march_checkpointed}


class Gradient:
    """(exit G, adj_S) of all rows, ``rows`` at a time, each as a list of the chunks."""

    def __init__(self, plan, D, rows, way):
        sweep = Sweep(plan, D)
        self.ny, self.rows = plan.shape[1], rows

        def forward(S, s_0):
            return WAYS[way](sweep, matrices(S, s_0, sweep.medium))

        def epoch(S, s_0, adj_G):
            G, pull = jax.vjp(functools.partial(forward, s_0=s_0), S)
            return G, pull(adj_G.conj())[0].conj()

        self.forward, self.epoch = jax.jit(forward), jax.jit(epoch)

    def chunks(self, *arrays):
        """The chunks of arrays whose second axis is y, on the device: the input that `__call__` takes."""
        cuts = [slice(first, first + self.rows) for first in range(0, self.ny, self.rows)]
        return [tuple(jnp.asarray(np.ascontiguousarray(a[:, cut])) for a in arrays) for cut in cuts]

    def __call__(self, chunks, what="epoch"):
        """Of every chunk (S, s_0, adj_G): (G, adj_S), or G alone."""
        if what == "forward":
            return [self.forward(S, s_0) for S, s_0, _ in chunks]
        return [self.epoch(*chunk) for chunk in chunks]
