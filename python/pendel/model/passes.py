"""One pass over frames of a scan: their intensities, or their loss with its gradients, in blocks of bounded memory.

Equations and arguments are those of `pendel.model.model`, which has checked them. Within a block frames go from far
field to adjoint far field a few at a time, so that they stay in cache; on a device many at a time, and there nothing is
read back.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from ..base.arrays import module
from ..operator.far_field import map_chunks
from . import loss

# Bytes of exit fields, states and far fields held at a time, on the CPU and on a device.
BLOCK_BYTES, DEVICE_BLOCK_BYTES = 256 << 20, 4 << 30


class Evaluation(NamedTuple):
    """Result of `Model.evaluate`.

    Of a model on a device all of them are CuPy arrays, the numbers of shape (), but for a scale that was given; float()
    of one waits for the device.

    Attributes
    ----------
    loss : float
    adj_S : complex (nz, ny, nx)
    adj_s_0 : real (nz, ny, nx), or None where s_0 was not given
    scale : float
        The one used.
    misfit_numerator, misfit_denominator : float
        Sums over all fitted pixels of (sqrt(scale D) - sqrt I)^2 and of I, D with the background.
    adj_dq : float64 (L, 3)
        At fixed scale or, which is the same, the best one.
    sums : float64 (2, L), or None where the scale was given
        Sums of every frame that the best scale is made of, see `Likelihood.sums`.
    free : float64 (4,), or None without held-out pixels
        Sums over the held-out pixels: misfit numerator and denominator, loss terms, and their number.
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


class Fit:
    """Measured data as a model compares with them: checked and turned into amplitudes once, by `Model.fit`.

    Attributes
    ----------
    model : Model
    data : (n_frames, rows, cols)
        As given.
    pixels : Pixels
        Their amplitudes, where the model works.
    likelihood : Likelihood
    """

    def __init__(self, model, data, pixels, likelihood):
        self.model, self.data = model, data
        self.pixels, self.likelihood = pixels, likelihood

    @functools.cached_property
    def mean_intensity(self):
        """(1/L) sum_j (1/M_j) sum_good I_j over all its frames, float: the amplitude loss of an empty model."""
        total, frames = 0.0, self.pixels.frames
        for root, good in self.pixels.each_frame():
            total += float(loss.frame_weights(good, root) @ loss.frame_sums(root * root))
        return total / (self.model.n_frames if frames is None else len(frames))

    @functools.cached_property
    def counts(self):
        """Sum of the data over the pixels that are fitted, float."""
        total = 0.0
        for root, _ in self.pixels.each_frame():
            total += float(loss.frame_sums(root * root)[0])
        return total

    def only(self, kept):
        """The same `Fit` of the pixels ``kept`` alone, bool (n_frames, rows, cols), all of them known ones."""
        return Fit(self.model, self.data, self.pixels.only(kept), self.likelihood)


class _Task(NamedTuple):
    """What a pass is asked for."""

    S: np.ndarray
    fit: Fit
    s_0: np.ndarray | None
    support: np.ndarray | None
    dq: np.ndarray  # (n_frames, 3)
    flux: np.ndarray | None  # (n_frames,)
    gradient: bool


class _Block(NamedTuple):
    """What `Pass._forward_block` gives; ``sums`` (2, L), ``weighted`` (2,) and ``chunks`` are for the scale."""

    measured: dict
    chunks: list
    sums: np.ndarray
    weighted: np.ndarray
    states: list | None


class _Gradient:
    """The gradients of a pass, added up over blocks and polarisation states in order."""

    def __init__(self):
        self.adj_S = self.adj_s_0 = None
        self.adj_dq = []

    def add(self, adjoints):
        """Those of one block, an `Adjoint` of every polarisation state."""
        adj_dq = None
        for adj in adjoints:
            self.adj_S = adj.S if self.adj_S is None else self.adj_S + adj.S
            if adj.s_0 is not None:
                self.adj_s_0 = adj.s_0 if self.adj_s_0 is None else self.adj_s_0 + adj.s_0
            adj_dq = adj.dq if adj_dq is None else adj_dq + adj.dq
        self.adj_dq.append(adj_dq)


class Pass:
    """A pass with the operators and the far field of a model.

    seen : slice of the columns of E_h that go to the far field.  swept : `Swept`, or None: as it is.
    linear : no operator refracts or absorbs, and none has a use for s_0.
    """

    def __init__(self, operators, far_field, seen, threads, swept=None, linear=False):
        self.operators, self.far_field, self.seen = operators, far_field, seen
        self.swept, self.linear = swept, linear
        op = operators[0][1]
        self.engine, self.real = op.engine, op.real_dtype
        self.xp, self.reads_values = self.engine.xp, self.engine.reads_values
        self.threads = threads if self.reads_values else 1

    def intensities(self, S, frames, s_0, dq, flux):
        """Computed intensities of ``frames``, indices on the host."""
        xp = self.xp
        S, s_0, dq, _ = self._seen_by_sweep(S, s_0, dq, None)
        flux = self._brightness(flux)
        frames = xp.asarray(frames)
        D = xp.empty((len(frames), *self.far_field.detector_shape), self.real)
        for block in self.blocks(len(frames)):
            indices = frames[block]
            fields = [op.sweep(S, dq[indices], s_0)[0] for _, op in self.operators]

            def part(chunk, D=D[block], fields=fields, indices=indices):
                D[chunk] = self._spectra(fields, chunk, None if flux is None else flux[indices[chunk]])[1]

            self._map(part, len(indices))
        return D

    def evaluate(self, S, fit, frames, scale, *, dq, s_0=None, support=None, flux=None, gradient=True):
        """`Evaluation` of ``frames``, indices on the host; without ``gradient`` there is none in it."""
        xp, count = self.xp, len(frames)
        crystal, density, dq, inside = self._seen_by_sweep(S, s_0, dq, support)
        task = _Task(crystal, fit, density, inside, dq, self._brightness(flux), gradient)
        frames = xp.asarray(frames)
        blocks = [frames[block] for block in self.blocks(count)]

        all_sums, first = None, None
        if scale is None and len(blocks) > 1:
            scale, all_sums = self._best_scale(task, blocks)
        elif scale is None:
            first = self._forward_block(task, blocks[0], hold=True)
            scale, all_sums = fit.likelihood.scale(*first.weighted, first.chunks), first.sums

        total, terms = _Gradient(), []
        for indices in blocks:
            terms.append(self._evaluate_block(task, indices, scale, count, first, total))
        adj_dq = xp.concatenate(total.adj_dq) if gradient else None
        adj_S, adj_s_0 = self._of_crystal(total, S, s_0, inside, support) if gradient else (None, None)

        sums = xp.concatenate(terms, axis=1).sum(axis=1)
        free = sums[3:] if len(sums) > 3 else None
        numbers = [float(sums[i]) if self.reads_values else sums[i] for i in range(3)]
        return Evaluation(numbers[0], adj_S, adj_s_0, scale, *numbers[1:], adj_dq, all_sums, free)

    def _seen_by_sweep(self, S, s_0, dq, support):
        """(S, s_0, dq, support) as a sweep takes them, which knows a flat Ewald sphere only."""
        if self.swept is None:
            return S, s_0, dq, support
        filled = S != 0
        reached = self.swept.reached(filled if support is None else support | filled)
        if s_0 is None and not self.linear:
            s_0 = self.xp.abs(S)
        return self.swept.forward(S, reached), s_0, dq + self.swept.turned, None if support is None else reached

    def _brightness(self, flux):
        """What multiplies the intensities of each frame, (n_frames,) or None: 1."""
        brightness = None if self.swept is None else self.swept.brightness
        if flux is None or brightness is None:
            return brightness if flux is None else flux
        return brightness * flux

    def _of_crystal(self, total, S, s_0, reached, support):
        """(adj_S, adj_s_0): adjoint of `_seen_by_sweep` of the added gradients of sweeps."""
        adj_S, adj_s_0 = total.adj_S, total.adj_s_0
        if self.swept is None:
            return adj_S, adj_s_0
        adj_S = self.swept.adjoint(adj_S, reached)
        if s_0 is None and not self.linear:
            size = self.xp.abs(S)
            adj_S += adj_s_0 * (S / self.xp.maximum(size, np.finfo(size.dtype).tiny))
            adj_s_0 = None
        if support is not None:
            adj_S *= support
            adj_s_0 = None if adj_s_0 is None else adj_s_0 * support
        return adj_S, adj_s_0

    def blocks(self, count):
        """Slices of ``range(count)``, nearly equal, a frame at least, within BLOCK_BYTES or DEVICE_BLOCK_BYTES."""
        op = self.operators[0][1]
        ny, columns = op.exit_shape
        stored = op.layers_shape(1)
        exit_pixels = ny * (2 * columns + op.row_length) + (math.prod(stored) if stored else 0)
        pixels = max(self.far_field.far_shape) * max(self.far_field.detector_shape)  # between the two FFTs, at most
        complex_bytes, real_bytes = op.dtype.itemsize, self.real.itemsize
        size = len(self.operators) * (exit_pixels + pixels) * complex_bytes + 2 * pixels * real_bytes

        parts = -(-count // max(1, (BLOCK_BYTES if self.reads_values else DEVICE_BLOCK_BYTES) // size))
        edges = [count * i // parts for i in range(parts + 1)]
        return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def _map(self, function, count):
        return map_chunks(function, count, self.threads, self.far_field.chunk)

    def _best_scale(self, task, blocks):
        """(scale, sums (2, L)) by a forward pass of its own: several blocks need it before any gradient."""
        xp = self.xp
        parts = [self._forward_block(task._replace(gradient=False), indices) for indices in blocks]
        weighted, chunks = xp.stack([p.weighted for p in parts]).sum(axis=0), sum((p.chunks for p in parts), [])
        return task.fit.likelihood.scale(*weighted, chunks), xp.concatenate([p.sums for p in parts], axis=1)

    def _evaluate_block(self, task, indices, scale, count, first, total):
        """Rows of `_residual` of a block; its gradients go to ``total``. first : `_Block` of it, or None."""
        xp = self.xp
        states = self._sweep(task, indices) if first is None else first.states
        adj_fields = [xp.empty_like(E_h) for E_h, _ in states] if task.gradient else None

        def part(chunk):
            if first is None:
                item = self._measure(task, states, chunk, indices)
            else:
                item = first.measured.pop(chunk.start)
            return self._residual(task, item, chunk, indices, scale, count, adj_fields)

        rows = xp.concatenate(self._map(part, len(indices)), axis=1)
        if task.gradient:
            dq = task.dq[indices]
            total.add(
                op.sweep_adjoint(task.S, dq, adj_E_h, task.s_0, state=state, support=task.support)
                for (_, op), adj_E_h, (_, state) in zip(self.operators, adj_fields, states, strict=True)
            )
        return rows

    def _sweep(self, task, indices):
        """(E_h, state or None) of every polarisation state."""
        dq = task.dq[indices]
        return [op.sweep(task.S, dq, task.s_0, keep_state=task.gradient) for _, op in self.operators]

    def _forward_block(self, task, indices, hold=False):
        """The sums of a block for the scale; with ``hold`` its states and what `_measure` gives, by first frame."""
        xp, likelihood = self.xp, task.fit.likelihood
        states = self._sweep(task, indices)
        sums, weighted = xp.zeros((2, len(indices))), xp.zeros((2, len(indices)))
        keep = likelihood.background > 0

        def part(chunk):
            item = self._measure(task, states, chunk, indices)
            _, D, root, good, weight = item
            sums[:, chunk] = xp.stack(likelihood.sums(D, root, good))
            weighted[:, chunk] = weight * sums[:, chunk]
            return chunk.start, item if hold else None, item[1:] if keep else None

        parts = self._map(part, len(indices))
        measured, chunks = {start: item for start, item, _ in parts}, [chunk for *_, chunk in parts]
        return _Block(measured, chunks if keep else [], sums, weighted.sum(axis=1), states if hold else None)

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

    def _measure(self, task, states, chunk, indices):
        """(F_p list, D, sqrt I, good, 1/M) of a chunk; ``indices`` are the frames of its block."""
        frames = indices[chunk]
        spectra, D = self._spectra([E_h for E_h, _ in states], chunk, None if task.flux is None else task.flux[frames])
        root, good = task.fit.pixels.load(frames)
        return spectra, D, root, good, loss.frame_weights(good, D)

    def _residual(self, task, item, chunk, indices, scale, count, adj_fields):
        """(3, n) loss, misfit numerator and denominator of each frame, (7, n) with those of `Evaluation.free`; fills
        the adjoint exit fields, if any.
        """
        xp, fit = self.xp, task.fit
        spectra, D, root, good, weight = item
        weight = weight / count
        sums, misfit, adj_D = fit.likelihood.terms(D, root, good, weight, scale)
        rows = [weight * sums, misfit]
        if adj_fields is not None:
            if task.flux is not None:
                adj_D *= task.flux[indices[chunk]][:, None, None]
            self._far_field_adjoint(spectra, adj_D, chunk, adj_fields)
        rows.append(loss.frame_sums(xp.square(root, out=root)))

        if fit.pixels.free is not None:
            root, free = fit.pixels.load_free(indices[chunk])
            sums, misfit, _ = fit.likelihood.terms(D, root, free, xp.ones(len(D)), scale)
            rows += [misfit, loss.frame_sums(xp.square(root)), sums, loss.frame_sums(free)]
        return xp.stack(rows)

    def _far_field_adjoint(self, spectra, adj_D, chunk, adj_fields):
        """Reverse of D = sum_p w_p |F_p|^2 and of the far field; ``spectra`` are overwritten."""
        for (fraction, _), F, adj_E_h in zip(self.operators, spectra, adj_fields, strict=True):
            F *= adj_D * self.real.type(2 * fraction)
            adj_E_h[chunk][..., self.seen] = self.far_field.adjoint_chunk(F)
            if self.seen.start:
                adj_E_h[chunk][..., : self.seen.start] = 0


def is_number(scale):
    """Whether a scale is a number of the host, to be checked; one of a device is left alone."""
    return scale is not None and module(scale) is np
