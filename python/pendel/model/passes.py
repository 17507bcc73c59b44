"""One pass over frames of a scan: their intensities, or their loss with its gradients, in blocks of bounded memory.

Equations and arguments are those of `pendel.model.model`, which has checked them. Within a block frames go from far
field to adjoint far field a few at a time, so that they stay in cache; on a device many at a time, and there nothing is
read back.
"""

import functools
import math
import operator
from typing import Any, NamedTuple

import numpy as np

from ..base.arrays import module
from ..experiment.coherence import Coherence
from ..operator.engine import Array
from ..operator.far_field import map_chunks
from . import loss
from .beam import Beam
from .pixels import Pixels, of_frames

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
    adj_flux, adj_background : float64 (L,), or None where not asked for
        With respect to each frame's flux, and to counts per pixel more in it; scale > 0, fixed or the best one.
    adj_blur : float64 (2,), or None where not asked for
        With respect to the squared widths of the point spread along rows and columns, pixels squared.
    adj_coherence : float64 (3,), or None where not asked for, or without gradient
        With respect to `Coherence.squares`.
    """

    loss: float
    adj_S: Array
    adj_s_0: Array | None
    scale: float
    misfit_numerator: float
    misfit_denominator: float
    adj_dq: Array
    sums: Array | None = None
    free: Array | None = None
    adj_flux: Array | None = None
    adj_background: Array | None = None
    adj_blur: Array | None = None
    adj_coherence: Array | None = None


class Nuisance(NamedTuple):
    """What the beamline adds to a pass, beside dq and flux, and which gradients of it are wanted.

    Attributes
    ----------
    background : (n_frames,) counts per pixel beside those of the `Fit`, or None
    point_spread : (row, col) rms widths in pixels, on the host, instead of the model's, or None
    gradients : of "flux", "background", "blur", "coherence", those that the `Evaluation` is to have
    coherence : `Coherence` instead of the model's, or None
    """

    background: Array | None = None
    point_spread: tuple[float, float] | None = None
    gradients: tuple[str, ...] = ()
    coherence: Coherence | None = None


GRADIENTS = ("flux", "background", "blur", "coherence")
NOTHING = Nuisance()


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
    weights : real (n_frames, rows, cols) or (rows, cols), or None
        What each pixel's term in the loss counts, in (0, 1], where the model works; None: 1.
    """

    def __init__(
        self,
        model: Any,  # a `pendel.model.model.Model`, which makes fits
        data: Array,
        pixels: Pixels,
        likelihood: loss.Likelihood,
        weights: Array | None = None,
    ) -> None:
        self.model, self.data = model, data
        self.pixels, self.likelihood, self.weights = pixels, likelihood, weights

    @functools.cached_property
    def mean_intensity(self) -> float:
        """(1/L) sum_j (1/M_j) sum_good I_j over all its frames, float: the amplitude loss of an empty model."""
        total, frames = 0.0, self.pixels.frames
        for root, good in self.pixels.each_frame():
            total += float(loss.frame_weights(good, root) @ loss.frame_sums(root * root))
        return total / (self.model.n_frames if frames is None else len(frames))

    @functools.cached_property
    def counts(self) -> float:
        """Sum of the data over the pixels that are fitted, float."""
        return self._sum_of_data(None)

    @functools.cached_property
    def information(self) -> float:
        """`counts`, each pixel as much as its weight says, float: what the data tell, in photons."""
        return self.counts if self.weights is None else self._sum_of_data(self.weights)

    def _sum_of_data(self, weights):
        total, there = 0.0, self.pixels.frames
        for i, (root, _) in enumerate(self.pixels.each_frame()):
            weight = of_frames(weights, slice(i, i + 1) if there is None else there[i : i + 1])
            square = root * root
            total += float(loss.frame_sums(square if weight is None else weight * square)[0])
        return total

    def frame_weights(self) -> Array:
        """1/M_j of every frame there is, float64 (frames,), where the model works."""
        weights = [loss.frame_weights(good, root) for root, good in self.pixels.each_frame()]
        return module(self.pixels.root).concatenate(weights)

    def only(self, kept: Array) -> "Fit":
        """The same `Fit` of the pixels ``kept`` alone, bool (n_frames, rows, cols), all of them known ones."""
        return Fit(self.model, self.data, self.pixels.only(kept), self.likelihood, self.weights)

    def weighted(self, weights: Array | None) -> "Fit":
        """The same `Fit` with other ``weights``, of the host or where the model works."""
        return Fit(self.model, self.data, self.pixels, self.likelihood, self.model.engine.upload(weights))

    def compared(self, D: Array, frames: Array, level: Array | None = None) -> loss.Compared:
        """`Compared` of computed frames D and these measured ones; level : background as in `Likelihood.beside`."""
        root, good = self.pixels.load(frames)
        beside, weights = self.likelihood.beside(frames, level), of_frames(self.weights, frames)
        return loss.Compared(D, root, good, loss.frame_weights(good, D), beside, weights)


class Task(NamedTuple):
    """What a pass is asked for."""

    S: np.ndarray
    fit: Fit
    s_0: np.ndarray | None
    support: np.ndarray | None
    dq: np.ndarray  # (n_frames, 3)
    flux: np.ndarray | None  # (n_frames,)
    gradient: bool
    beam: Beam
    nuisance: Nuisance


class _Light(NamedTuple):
    """Far fields F_p of a chunk of frames, and their intensities before and after the blur."""

    spectra: list
    sharp: np.ndarray
    D: np.ndarray


class _Block(NamedTuple):
    """What `Pass._forward_block` gives; ``sums`` (2, L), ``weighted`` (2,) and ``chunks`` are for the scale."""

    measured: dict
    chunks: list
    sums: np.ndarray
    weighted: np.ndarray
    states: list | None


class _Room:
    """Memory of what the chunks of a block leave until the scale is known.

    Taken by the calling thread: what each of several threads takes, and gives back, the C library keeps for it.
    """

    def __init__(self, beam, shape, complex_dtype, real_dtype):
        """shape : (frames, rows, cols)."""
        self.spectra = [np.empty(shape, complex_dtype) for _ in beam.operators]
        self.sharp, self.root = np.empty(shape, real_dtype), np.empty(shape, real_dtype)
        self.D = np.empty(shape, real_dtype) if beam.blur else self.sharp

    def moved(self, item, chunk):
        """The ``item`` of a chunk, moved here."""
        light, compared = item
        given = [*light.spectra, light.sharp, light.D, compared.root]
        places = [array[chunk] for array in (*self.spectra, self.sharp, self.D, self.root)]
        for place, array in zip(places, given, strict=True):
            place[...] = array
        *spectra, sharp, D, root = places
        return _Light(spectra, sharp, D), compared._replace(D=D, root=root)


class Gradient:
    """The gradients of a pass, added up over blocks and polarisation states in order."""

    def __init__(self):
        self.adj_S = self.adj_s_0 = None
        self.adj_dq, self.adj_shifts = [], []

    def add(self, adjoints):
        """Those of one block, an `Adjoint` of every operator of the `Beam`."""
        by_operator = []
        for adj in adjoints:
            self.adj_S = adj.S if self.adj_S is None else self.adj_S + adj.S
            if adj.s_0 is not None:
                self.adj_s_0 = adj.s_0 if self.adj_s_0 is None else self.adj_s_0 + adj.s_0
            by_operator.append(adj.dq)
        self.adj_dq.append(functools.reduce(operator.add, by_operator))
        self.adj_shifts.append(by_operator)

    def of_shifts(self, xp):
        """With respect to the shift of every operator, float64 (operators, 3)."""
        return xp.stack([xp.concatenate(parts).sum(axis=0) for parts in zip(*self.adj_shifts, strict=True)])


class Pass:
    """A pass with the operators and the far field of a model.

    Parameters
    ----------
    op : TakagiTaupin, one of the model's
    far_field : FarField
    seen : columns of E_h that go to the far field
    threads : int
    beam : `Beam` of the model's coherence and point spread
    swept : `Swept` or `AsItIs`
    """

    def __init__(self, op, far_field, seen, threads, beam, swept):
        self.far_field, self.seen, self.beam, self.swept = far_field, seen, beam, swept
        self.operator, self.engine, self.real = op, op.engine, op.real_dtype
        self.reads_values = self.engine.reads_values
        self.threads = threads if self.reads_values else 1

    @property
    def xp(self):
        """Module of the arrays; not kept, for modules cannot be pickled."""
        return self.engine.xp

    def intensities(self, S, frames, s_0, dq, flux, point_spread=None, coherence=None):
        """Computed intensities of ``frames``, indices on the host."""
        xp, beam = self.xp, self.beam.but(point_spread, coherence)
        S, s_0, dq, *_ = self.swept.taken(S, s_0, dq)
        flux = self.swept.light(flux)
        frames = xp.asarray(frames)
        D = xp.empty((len(frames), *self.far_field.detector_shape), self.real)
        for block in self.blocks(len(frames), beam):
            indices = frames[block]
            fields = [op.sweep(S, dq[indices], s_0)[0] for _, op in beam.operators]

            def part(chunk, D=D[block], fields=fields, indices=indices):
                D[chunk] = self.spectra(fields, chunk, None if flux is None else flux[indices[chunk]], beam).D

            self.map(part, len(indices))
        return D

    def evaluate(
        self, S, fit, frames, scale, *, dq, s_0=None, support=None, flux=None, gradient=True, nuisance=NOTHING
    ):
        """`Evaluation` of ``frames``, indices on the host; without ``gradient`` there is none of S, s_0 and dq."""
        xp = self.xp
        crystal, density, moved, inside, filled = self.swept.taken(S, s_0, dq, support)
        light = self.swept.light(flux)
        beam = self.beam.but(nuisance.point_spread, nuisance.coherence)
        task = Task(crystal, fit, density, inside, moved, light, gradient, beam, nuisance)
        frames = xp.asarray(frames)
        scale, all_sums, rows, total = self._through(task, frames, scale)
        adj_dq = xp.concatenate(total.adj_dq) if gradient else None
        adj_S, adj_s_0 = total.adj_S, total.adj_s_0
        if gradient:
            adj_S, adj_s_0 = self.swept.adjoint(adj_S, adj_s_0, S, s_0, support, filled)

        sums, told = rows.sum(axis=1), 3 if fit.pixels.free is None else 7
        free = sums[3:7] if told > 3 else None
        numbers = [float(sums[i]) if self.reads_values else sums[i] for i in range(3)]
        nuisances = self._nuisances(task, rows[told:], sums[told:], total)
        if "flux" in nuisance.gradients:
            nuisances["adj_flux"] = self.swept.adj_flux(nuisances["adj_flux"], frames)
        return Evaluation(numbers[0], adj_S, adj_s_0, scale, *numbers[1:], adj_dq, all_sums, free, **nuisances)

    def _through(self, task, frames, scale):
        """(scale, its sums (2, L) or None, rows of `_residual` (k, L), `Gradient`) of a `Task` for ``frames``."""
        blocks = [frames[block] for block in self.blocks(len(frames), task.beam)]
        all_sums, first = None, None
        if scale is None and len(blocks) > 1:
            scale, all_sums = self._best_scale(task, blocks)
        elif scale is None:
            first = self._forward_block(task, blocks[0], hold=True)
            scale, all_sums = task.fit.likelihood.scale(*first.weighted, first.chunks), first.sums

        total, terms = Gradient(), []
        for indices in blocks:
            terms.append(self._evaluate_block(task, indices, scale, len(frames), first, total))
        return scale, all_sums, self.xp.concatenate(terms, axis=1), total

    def _nuisances(self, task, rows, sums, total):
        """{adj_flux, adj_background, adj_blur, adj_coherence}, those wanted, of what `_nuisance_rows` gave, (k, L)."""
        wanted, found, first = task.nuisance.gradients, {}, 0
        for name in ("flux", "background"):
            if name in wanted:
                found[f"adj_{name}"] = rows[first]
                first += 1
        if "blur" in wanted:
            found["adj_blur"] = sums[first : first + 2]
        if "coherence" in wanted and task.gradient:
            found["adj_coherence"] = task.beam.adjoint(total.of_shifts(self.xp), sums[first:])
        return found

    def blocks(self, count, beam=None):
        """Slices of ``range(count)``, nearly equal, a frame at least, within BLOCK_BYTES or DEVICE_BLOCK_BYTES.

        beam : `Beam`, or None: the model's
        """
        op, sweeps = self.operator, len((beam or self.beam).operators)
        ny, columns = op.exit_shape
        stored = op.state_shapes(1).layers
        exit_pixels = ny * (2 * columns + op.row_length) + (math.prod(stored) if stored else 0)
        pixels = max(self.far_field.far_shape) * max(self.far_field.detector_shape)  # between the two FFTs, at most
        complex_bytes, real_bytes = op.dtype.itemsize, self.real.itemsize
        size = sweeps * (exit_pixels + pixels) * complex_bytes + 2 * pixels * real_bytes

        parts = -(-count // max(1, (BLOCK_BYTES if self.reads_values else DEVICE_BLOCK_BYTES) // size))
        edges = [count * i // parts for i in range(parts + 1)]
        return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def map(self, function, count):
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

        rows = xp.concatenate(self.map(part, len(indices)), axis=1)
        if task.gradient:
            dq = task.dq[indices]
            total.add(
                op.sweep_adjoint(task.S, dq, adj_E_h, task.s_0, state=state, support=task.support)
                for (_, op), adj_E_h, (_, state) in zip(task.beam.operators, adj_fields, states, strict=True)
            )
        return rows

    def _sweep(self, task, indices):
        """(E_h, state or None) of every polarisation state."""
        dq = task.dq[indices]
        return [op.sweep(task.S, dq, task.s_0, keep_state=task.gradient) for _, op in task.beam.operators]

    def _forward_block(self, task, indices, hold=False):
        """The sums of a block for the scale; with ``hold`` its states and what `_measure` gives, by first frame."""
        xp, likelihood = self.xp, task.fit.likelihood
        states = self._sweep(task, indices)
        sums, weighted = xp.zeros((2, len(indices))), xp.zeros((2, len(indices)))
        keep = likelihood.has_background or task.nuisance.background is not None
        room = self._room(len(indices), task.beam) if hold and self.threads > 1 else None

        def part(chunk):
            item = self._measure(task, states, chunk, indices)
            item = item if room is None else room.moved(item, chunk)
            compared = item[1]
            sums[:, chunk] = xp.stack(likelihood.sums(compared))
            weighted[:, chunk] = compared.weight * sums[:, chunk]
            return chunk.start, item if hold else None, compared if keep else None

        parts = self.map(part, len(indices))
        measured, chunks = {start: item for start, item, _ in parts}, [chunk for *_, chunk in parts]
        return _Block(measured, chunks if keep else [], sums, weighted.sum(axis=1), states if hold else None)

    def _room(self, frames, beam):
        shape = (frames, *self.far_field.detector_shape)
        return _Room(beam, shape, self.operator.dtype, self.real)

    def spectra(self, fields, chunk, flux, beam):
        """`_Light` of a chunk of exit fields, D times ``flux`` of its frames, if any, and blurred."""
        xp = self.xp
        spectra = [self.far_field.forward_chunk(E_h[chunk][..., self.seen]) for E_h in fields]
        D = None
        for (weight, _), F in zip(beam.operators, spectra, strict=True):
            power = xp.square(F.real)
            power += xp.square(F.imag)
            if weight != 1:
                power *= self.real.type(weight)
            D = power if D is None else xp.add(D, power, out=D)
        if flux is not None:
            D *= flux[:, None, None]
        return _Light(spectra, D, beam.blur.forward(D))

    def _measure(self, task, states, chunk, indices):
        """(`_Light`, `Compared`) of a chunk; ``indices`` are the frames of its block."""
        frames = indices[chunk]
        flux = None if task.flux is None else task.flux[frames]
        light = self.spectra([E_h for E_h, _ in states], chunk, flux, task.beam)
        return light, task.fit.compared(light.D, frames, task.nuisance.background)

    def _residual(self, task, item, chunk, indices, scale, count, adj_fields):
        """(3, n) loss, misfit numerator and denominator of each frame, (7, n) with those of `Evaluation.free`, then
        those of `_nuisance_rows`; fills the adjoint exit fields, if any.
        """
        xp, fit, frames = self.xp, task.fit, indices[chunk]
        light, compared = item
        compared = compared._replace(weight=compared.weight / count)
        sums, misfit, adj_D = fit.likelihood.terms(compared, scale)
        wanted = self._nuisance_rows(task, light, adj_D, frames, scale)
        rows = [compared.weight * sums, misfit]
        if adj_fields is not None:
            adj_D = task.beam.blur.adjoint(adj_D)
            if task.flux is not None:
                adj_D *= task.flux[frames][:, None, None]
            self.far_field_adjoint(task.beam, light.spectra, adj_D, chunk, adj_fields)
        rows.append(loss.frame_sums(xp.square(compared.root, out=compared.root)))

        if fit.pixels.free is not None:
            root, free = fit.pixels.load_free(frames)
            held = compared._replace(root=root, good=free, weight=xp.ones(len(root)), weights=None)
            sums, misfit, _ = fit.likelihood.terms(held, scale)
            rows += [misfit, loss.frame_sums(xp.square(root)), sums, loss.frame_sums(free)]
        return xp.stack(rows + wanted)

    def _nuisance_rows(self, task, light, adj_D, frames, scale):
        """Gradients of each frame, a list of (n,), from adj_D behind the blur: with respect to what is wanted of flux,
        background, and variances of the blur, of all its steps or the two of the point spread.
        """
        wanted, rows = task.nuisance.gradients, []
        if "flux" in wanted:
            sums = loss.frame_sums(adj_D * light.D)
            rows.append(sums if task.flux is None else sums / task.flux[frames])
        if "background" in wanted:
            rows.append(loss.frame_sums(adj_D) / scale)
        if "coherence" in wanted or "blur" in wanted:
            count = None if "coherence" in wanted else 2
            rows += list(task.beam.blur.adjoint_variances(light.sharp, adj_D, count))
        return rows

    def far_field_adjoint(self, beam, spectra, adj_D, chunk, adj_fields):
        """Reverse of D = sum_p w_p |F_p|^2 and of the far field; ``spectra`` are overwritten."""
        for (fraction, _), F, adj_E_h in zip(beam.operators, spectra, adj_fields, strict=True):
            F *= adj_D * self.real.type(2 * fraction)
            adj_E_h[chunk][..., self.seen] = self.far_field.adjoint_chunk(F)
            if self.seen.start:
                adj_E_h[chunk][..., : self.seen.start] = 0


def is_number(scale):
    """Whether a scale is a number of the host, to be checked; one of a device is left alone."""
    return scale is not None and module(scale) is np
