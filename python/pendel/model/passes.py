"""One pass over frames of a scan: their intensities, or their loss with its gradients, in blocks of bounded memory.

Equations and arguments are those of `pendel.model.model`. Within a block frames go from far field to adjoint far field
a few at a time, so that they stay in cache; on a device many at a time, and there nothing is read back.
"""

import math
from typing import NamedTuple

import numpy as np

from ..base import checks
from ..base.arrays import module
from ..operator.far_field import map_chunks
from . import loss
from .pixels import Pixels

# Bytes of exit fields, states and far fields held at a time, on the CPU and on a device.
BLOCK_BYTES, DEVICE_BLOCK_BYTES = 256 << 20, 4 << 30


class Evaluation(NamedTuple):
    """Result of `Model.evaluate`.

    loss : float.  adj_S : complex (nz, ny, nx).  adj_s_0 : real (nz, ny, nx), or None where s_0 was not given.
    scale : float, the one used.  misfit_numerator, misfit_denominator : float, sums over all good pixels of
    (sqrt(scale D) - sqrt I)^2 and of I, D with the background.  adj_dq : float64 (L, 3), at fixed scale or, which is
    the same, the best one.
    sums : float64 (2, L), sums of every frame that the best scale is made of, see `Likelihood.sums`, or None where the
    scale was given.
    free : float64 (4,), sums over the held-out pixels: misfit numerator and denominator, loss terms, and their number;
    None without such pixels.
    Of a model on a device all of them are CuPy arrays, the numbers of shape (), but for a scale that was given; float()
    of one waits for the device.
    """

    loss: float
    adj_S: np.ndarray
    adj_s_0: np.ndarray | None
    scale: float
    misfit_numerator: float
    misfit_denominator: float
    adj_dq: np.ndarray
    sums: np.ndarray | None = None
    free: np.ndarray | None = None


class Fit(NamedTuple):
    """What a pass compares with: the pixels, the likelihood, dq (n_frames, 3), flux (n_frames,) or None."""

    pixels: Pixels
    likelihood: loss.Likelihood
    dq: np.ndarray
    flux: np.ndarray | None


class _Block(NamedTuple):
    """What `Pass._forward_block` gives; ``sums`` (2, L), ``weighted`` (2,) and ``chunks`` are for the scale."""

    held: dict
    chunks: list
    sums: np.ndarray
    weighted: np.ndarray
    states: list | None


class Pass:
    """A pass with the operators and the far field of a model; ``seen``: columns of E_h that go to the far field."""

    def __init__(self, operators, far_field, seen, threads):
        self.operators, self.far_field, self.seen = operators, far_field, seen
        op = operators[0][1]
        self.engine, self.real = op._engine, op._real
        self.xp, self.on_device = self.engine.xp, not self.engine.looks
        self.threads = 1 if self.on_device else threads

    def intensities(self, S, frames, s_0, dq, flux):
        xp = self.xp
        frames = xp.asarray(frames)
        D = xp.empty((len(frames), *self.far_field.detector_shape), self.real)
        for block in self.blocks(len(frames)):
            indices = frames[block]
            fields = [op.forward(S, dq[indices], s_0) for _, op in self.operators]

            def part(chunk, D=D[block], fields=fields, indices=indices):
                D[chunk] = self._spectra(fields, chunk, None if flux is None else flux[indices[chunk]])[1]

            self._map(part, len(indices))
        return D

    def run(self, S, fit, frames, scale, s_0, support, gradient):
        """`Evaluation` of the frames, indices on the host; without ``gradient`` there is none in it."""
        xp = self.xp
        if scale is not None and module(scale) is np:
            scale = checks.number("scale", scale, at_least=0)
        blocks, frames = self.blocks(len(frames)), xp.asarray(frames)
        adj_S = adj_s_0 = all_sums = None
        if scale is None and len(blocks) > 1:
            # The scale needs all frames before any gradient: a forward pass of its own, to keep memory bounded.
            parts = [self._forward_block(S, s_0, frames[block], fit) for block in blocks]
            weighted, chunks = xp.stack([p.weighted for p in parts]).sum(axis=0), sum((p.chunks for p in parts), [])
            scale = fit.likelihood.scale(*weighted, chunks)
            all_sums = xp.concatenate([p.sums for p in parts], axis=1)
            del parts, chunks
        adj_dq, terms = [], []
        for block in blocks:
            indices = frames[block]
            if scale is None:
                first = self._forward_block(S, s_0, indices, fit, gradient, hold=True)
                held, states, all_sums = first.held, first.states, first.sums
                scale = fit.likelihood.scale(*first.weighted, first.chunks)
                del first
            else:
                held, states = None, self._sweep(S, fit.dq[indices], s_0, gradient)
            adj_fields = [xp.empty_like(E_h) for E_h, _ in states] if gradient else None

            def part(chunk, held=held, states=states, adj_fields=adj_fields, indices=indices, scale=scale):
                item = self._measure(states, chunk, indices, fit) if held is None else held.pop(chunk.start)
                return self._residual(item, chunk, indices, fit, scale, len(frames), adj_fields)

            terms.append(xp.concatenate(self._map(part, len(indices)), axis=1))
            if self.engine.looks and not np.isfinite(terms[-1][2::2]).all():
                raise ValueError(f"data: {fit.pixels.complaint(indices)}")
            if not gradient:
                continue
            for i, (_, op) in enumerate(self.operators):
                adj = op.adjoint(S, fit.dq[indices], adj_fields[i], s_0, state=states[i][1], support=support)
                adj_S = adj.S if adj_S is None else adj_S + adj.S
                if s_0 is not None:
                    adj_s_0 = adj.s_0 if adj_s_0 is None else adj_s_0 + adj.s_0
                if i == 0:
                    adj_dq.append(adj.dq)
                else:
                    adj_dq[-1] = adj_dq[-1] + adj.dq
        adj_dq = xp.concatenate(adj_dq) if gradient else None
        sums = xp.concatenate(terms, axis=1).sum(axis=1)
        free = sums[3:] if len(sums) > 3 else None
        numbers = [sums[i] if self.on_device else float(sums[i]) for i in range(3)]
        return Evaluation(numbers[0], adj_S, adj_s_0, scale, *numbers[1:], adj_dq, all_sums, free)

    def blocks(self, count):
        """Slices of ``range(count)`` of equal length whose arrays stay within BLOCK_BYTES."""
        op = self.operators[0][1]
        ny, columns = op.exit_shape
        stored = op._layers_shape(1)
        exit_pixels = ny * (2 * columns + op.row_length) + (math.prod(stored) if stored else 0)
        pixels = max(self.far_field.far_shape) * max(self.far_field.detector_shape)
        complex_bytes, real_bytes = op.dtype.itemsize, self.real.itemsize
        size = len(self.operators) * (exit_pixels + pixels) * complex_bytes + 2 * pixels * real_bytes
        parts = -(-count // max(1, (DEVICE_BLOCK_BYTES if self.on_device else BLOCK_BYTES) // size))
        edges = [count * i // parts for i in range(parts + 1)]
        return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def _map(self, function, count):
        return map_chunks(function, count, self.threads, self.far_field.chunk)

    def _sweep(self, S, dq, s_0, keep_state):
        """(E_h, state or None) of every polarisation state."""
        if keep_state:
            return [op.forward(S, dq, s_0, return_state=True) for _, op in self.operators]
        return [(op.forward(S, dq, s_0), None) for _, op in self.operators]

    def _forward_block(self, S, s_0, indices, fit, keep_state=False, hold=False):
        """The sums of a block for the scale; with ``hold`` its states and what `_measure` gives, by first frame."""
        xp = self.xp
        states = self._sweep(S, fit.dq[indices], s_0, keep_state)
        sums, weighted = xp.zeros((2, len(indices))), xp.zeros((2, len(indices)))
        keep = fit.likelihood.background > 0

        def part(chunk):
            item = self._measure(states, chunk, indices, fit)
            _, D, root, good, weight = item
            sums[:, chunk] = xp.stack(fit.likelihood.sums(D, root, good))
            weighted[:, chunk] = weight * sums[:, chunk]
            return chunk.start, item if hold else None, item[1:] if keep else None

        parts = self._map(part, len(indices))
        if self.engine.looks and not np.isfinite(sums).all():
            raise ValueError(f"data: {fit.pixels.complaint(indices)}")
        held, chunks = {start: item for start, item, _ in parts}, [chunk for *_, chunk in parts]
        return _Block(held, chunks if keep else [], sums, weighted.sum(axis=1), states if hold else None)

    def _spectra(self, fields, chunk, flux=None):
        """Far fields F_p of a chunk of exit fields, and the intensities D, times ``flux`` of its frames."""
        xp = self.xp
        spectra = [self.far_field.forward_chunk(E_h[chunk][..., self.seen]) for E_h in fields]
        D = None
        for (weight, _), F in zip(self.operators, spectra, strict=True):
            power = xp.square(F.real)
            power += xp.square(F.imag)
            if weight != 1:
                power *= self.real.type(weight)
            D = power if D is None else xp.add(D, power, out=D)
        if flux is not None:
            D *= flux[:, None, None]
        return spectra, D

    def _measure(self, states, chunk, indices, fit):
        """(F_p list, D, sqrt I, good, 1/M) of a chunk; ``indices`` are the frames of its block."""
        frames = indices[chunk]
        spectra, D = self._spectra([E_h for E_h, _ in states], chunk, None if fit.flux is None else fit.flux[frames])
        root, good = fit.pixels.load(frames)
        return spectra, D, root, good, loss.frame_weights(good, D)

    def _residual(self, item, chunk, indices, fit, scale, count, adj_fields):
        """(3, n) loss, misfit numerator and denominator of each frame, (7, n) with those of `Evaluation.free`; fills
        the adjoint exit fields, if any.
        """
        xp = self.xp
        spectra, D, root, good, weight = item
        weight = weight / count
        sums, misfit, adj_D = fit.likelihood.terms(D, root, good, weight, scale)
        rows = [weight * sums, misfit]
        if adj_fields is not None:
            if fit.flux is not None:
                adj_D *= fit.flux[indices[chunk]][:, None, None]
            for (fraction, _), F, adj_E_h in zip(self.operators, spectra, adj_fields, strict=True):
                F *= adj_D * self.real.type(2 * fraction)
                adj_E_h[chunk][..., self.seen] = self.far_field.adjoint_chunk(F)
                if self.seen.start:
                    adj_E_h[chunk][..., : self.seen.start] = 0
        rows.append(loss.frame_sums(xp.square(root, out=root)))
        if fit.pixels.free is not None:
            root, free = fit.pixels.load_free(indices[chunk])
            sums, misfit, _ = fit.likelihood.terms(D, root, free, xp.ones(len(D)), scale)
            rows += [misfit, loss.frame_sums(xp.square(root)), sums, loss.frame_sums(free)]
        return xp.stack(rows)
