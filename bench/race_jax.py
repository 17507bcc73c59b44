"""The race's ways in JAX, see `race_peers.py`. Rows go in chunks, one call of a compiled function each."""

import gpu_jax
import jax
import jax.numpy as jnp
import numpy as np
from pendel.jax import takagi_taupin
from race_peers import Way

jax.config.update("jax_enable_x64", True)  # both precisions in one process; nothing is made wider by it


def compiled(function, *arguments):
    """A function of arrays of these shapes, compiled ahead: neither its time nor its memory is measured."""
    return jax.jit(function).lower(*arguments).compile()


class Pendel(Way):
    """`pendel.jax`."""

    def gradient(self, S, s_0, dq, adj_E_h):
        given = tuple(map(jnp.asarray, (S, s_0, dq, adj_E_h)))

        def both(S, s_0, dq, adj_E_h):
            E_h, pull = jax.vjp(lambda S: takagi_taupin(S, dq, self.op, s_0), S)
            return E_h, pull(adj_E_h.conj())[0].conj()  # JAX's cotangents are conjugate to adj

        both = compiled(both, *given)
        return lambda: jax.block_until_ready(both(*given))

    def sweep(self, S, dq):
        E_h, pull = jax.vjp(lambda S: takagi_taupin(S, jnp.asarray(dq), self.op), jnp.asarray(S))
        return np.asarray(E_h), lambda adj_E_h: np.conj(pull(jnp.asarray(adj_E_h.conj()))[0])


class Scanned(Way):
    """`gpu_jax.py`: a scan over the layers, differentiated in the way ``march``."""

    takes_chunks, knows_ramp = True, False
    march: str  # of gpu_jax.WAYS

    def __init__(self, op, rows=None):
        super().__init__(op, rows)
        self.constants = gpu_jax.Sweep(op.plan, np.zeros(1), op.dtype)
        self.forward, self.backward = jax.jit(self._forward), jax.jit(lambda pull, cotangent: pull(cotangent)[0])

    def field(self, S, s_0, D):
        """Exit field (frames, rows, nx) of S and s_0 (nz, rows, nx), D (frames,) float64."""
        turned = -1j * D * self.op.plan.voxel[0]
        sweep = self.constants.detuned(*(jnp.exp(turned * n).astype(S.dtype)[:, None, None] for n in (1, 0.5)))
        return gpu_jax.WAYS[self.march](sweep, gpu_jax.matrices(S, s_0, sweep.medium))

    def _both(self, S, s_0, D, adj_E_h):
        E_h, pull = jax.vjp(lambda S: self.field(S, s_0, D), S)
        return E_h, pull(adj_E_h.conj())[0].conj()

    def _forward(self, S, D):
        return jax.vjp(lambda S: self.field(S, jnp.abs(S), D), S)

    def gradient(self, S, s_0, dq, adj_E_h):
        D, made, functions = jnp.asarray(dq[:, 2]), [], {}
        for cut in self.cuts(S.shape[1]):
            S_part, s_0_part, adj = (jnp.asarray(array[:, cut].copy()) for array in (S, s_0, adj_E_h))
            made.append((S_part, s_0_part, D, adj))
            if S_part.shape not in functions:
                functions[S_part.shape] = compiled(self._both, *made[-1])

        def run():
            return jax.block_until_ready([functions[part[0].shape](*part) for part in made])

        return run

    def numpy(self, found):
        return [np.concatenate(parts, 1) for parts in zip(*found, strict=True)]

    def sweep(self, S, dq):
        D, cuts = jnp.asarray(dq[:, 2]), self.cuts(S.shape[1])
        found = [self.forward(jnp.asarray(S[:, cut].copy()), D) for cut in cuts]

        def back(adj_E_h):
            cotangent = adj_E_h.conj()
            made = [
                self.backward(pull, jnp.asarray(cotangent[:, cut])) for (_, pull), cut in zip(found, cuts, strict=True)
            ]
            return np.conj(np.concatenate(made, 1))

        return np.concatenate([field for field, _ in found], 1), back


class Checkpointed(Scanned):
    """Every step a `jax.checkpoint`: the fields between layers are kept, what a layer computes is done again."""

    march, kept = "checkpoint", 2


class Reversed(Scanned):
    """A custom_vjp that reverses the scan: no field is kept."""

    march = "reversal"
