"""From crystal function to detector frames, and from their misfit back to the gradient of the crystal function.

(1) E_h_p = TakagiTaupin(S, dq_j; C_p),   C_sigma = 1,  C_pi = |cos 2theta|         one solve per polarisation state
(2) D_j = sum_p w_p |FarField(E_h_p)|^2                                             w_p intensity fractions
(3) loss = amplitude loss of scale D against the data (`pendel.loss`, equation 1)

Adjoint of (2): adj_F_p = 2 w_p adj_D F_p. Frames are treated in blocks of bounded memory, and within a block a few at
a time from far field to adjoint far field, so that they stay in cache.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np

from . import _checks, loss
from .crystal import Crystal, polarization_fractions
from .experiment import Experiment
from .farfield import FarField, map_chunks
from .operator import TakagiTaupin
from .pixels import Pixels

# Bytes of exit fields, states and far fields held at a time.
BLOCK_BYTES = 256 << 20


class Evaluation(NamedTuple):
    """Result of `Model.evaluate`.

    loss : float.  adj_S : complex (nz, ny, nx).  adj_s_0 : real (nz, ny, nx), or None where s_0 was not given.
    scale : float, the one used.  misfit_numerator, misfit_denominator : float, sums over all good pixels of
    (sqrt(scale D) - sqrt I)^2 and of I, D with the background.  adj_dq : float64 (L, 3), at fixed scale or, which is
    the same, the best one.
    sums : float64 (2, L), sums of every frame that the best scale is made of (`pendel.loss.Likelihood.sums`), or None
    where the scale was given.
    free : float64 (4,), sums over the held-out pixels: misfit numerator and denominator, loss terms, and their number;
    None without such pixels.
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


class _Fit(NamedTuple):
    """What a pass compares with: the pixels, the likelihood, dq (n_frames, 3), flux (n_frames,) or None."""

    pixels: Pixels
    likelihood: loss.Likelihood
    dq: np.ndarray
    flux: np.ndarray | None


class Model:
    """Computed detector frames of a rocking scan, and the gradient of their misfit.

    Parameters
    ----------
    experiment : Experiment; its ``orientation`` is the operator's.  crystal : Crystal.
    shape : (nz, ny, nx) voxels. The light of the whole box must leave it within the field of view.
    voxel : (dz, dy, dx) m; dy and dx gamma_h must be a whole fraction of ``experiment.field_of_view`` (relative 1e-6),
        as those of ``experiment.suggest_voxel()`` are. A UserWarning tells where detector pixels lie beyond their band.
    polarization : {"sigma": w, "pi": w}, intensity fractions >= 0 that sum to 1; None: ``experiment.polarization``.
        A state of weight 0 is skipped, each other one costs a solve.
    coupling : "dynamical", or "kinematic" (first order: no refraction, absorption or back-coupling; linear in S).
    scheme, transport, dtype, device, threads : as in `TakagiTaupin`. The far field runs on the CPU.

    Attributes: the arguments, ``operators`` ((weight, TakagiTaupin), ...), ``far_field``, ``n_frames``.
    Raises TypeError or ValueError naming the argument.
    """

    def __init__(
        self,
        experiment,
        crystal,
        shape,
        voxel,
        polarization=None,
        coupling="dynamical",
        scheme="strang",
        transport="auto",
        dtype="complex64",
        device="cpu",
        threads=None,
    ):
        for name, value, kind in (("experiment", experiment, Experiment), ("crystal", crystal, Crystal)):
            if not isinstance(value, kind):
                raise TypeError(f"{name}: expected {kind.__name__}, got {_checks.describe(value)}")
        self.experiment, self.crystal = experiment, crystal
        self.shape = _checks.sizes("shape", shape, 3)
        self.voxel = _checks.lengths("voxel", voxel, 3)
        self.coupling = _checks.choice("coupling", coupling, ("dynamical", "kinematic"))
        self.device = _checks.choice("device", device, ("cpu",))
        self.polarization = polarization_fractions(experiment.polarization if polarization is None else polarization)
        kinematic = coupling == "kinematic"
        self.operators = tuple(
            (
                weight,
                TakagiTaupin(
                    self.shape,
                    self.voxel,
                    experiment.wavelength,
                    experiment.two_theta,
                    chi_0=0.0 if kinematic else crystal.chi_0,
                    chi_h=crystal.chi_h,
                    chi_hbar=0.0 if kinematic else crystal.chi_hbar,
                    polarization_factor=1.0 if state == "sigma" else abs(math.cos(experiment.two_theta)),
                    scheme=scheme,
                    transport=transport,
                    dtype=dtype,
                    device=device,
                    threads=threads,
                    orientation=experiment.orientation,
                ),
            )
            for state, weight in self.polarization.items()
            if weight > 0
        )
        op = self.operators[0][1]
        self.dtype, self.transport, self.scheme, self.threads = np.dtype(op.dtype), op.transport, scheme, op.threads
        self._real = np.dtype("float32" if self.dtype == np.complex64 else "float64")
        self.n_frames = experiment.n_frames
        far_shape, columns = self._far_shape(), op.exit_shape[1]
        self._seen = slice(0, columns)  # columns of E_h that go to the far field
        if op.orientation == "symmetric":
            if op.exit_reach > far_shape[1]:
                raise ValueError(
                    f"shape: expected a box whose light leaves within the field of view of {far_shape[1]} columns, got "
                    f"{self.shape}, which needs nx + (nz - 1) dz tan(theta) / dx = {op.exit_reach}"
                )
            self._seen = slice(max(columns - far_shape[1], 0), columns)
        self.far_field = FarField(
            (self.shape[1], columns - self._seen.start),
            far_shape,
            experiment.detector_shape,
            experiment.roll,
            experiment.flip_rows,
            experiment.centre_offset,
            self.dtype,
            self.threads,
        )

    def _far_shape(self):
        sizes, views = [], (self.experiment.field_of_view, self.experiment.field_of_view / self.experiment.gamma_h)
        for name, step, view in zip(("dy", "dx"), self.voxel[1:], views, strict=True):
            size = round(view / step)
            if size < 1 or abs(size * step / view - 1) > 1e-6:
                wanted = view / max(size, 1)
                raise ValueError(
                    f"voxel ({name}): expected a whole fraction of the field of view {view:.8g} m, such as "
                    f"{wanted:.8g} m (see Experiment.suggest_voxel), got {step:.8g} m"
                )
            sizes.append(size)
        q = np.abs(self.experiment.detector_q()).max(axis=(0, 1))
        for name, step, top in zip(("dx", "dy"), self.voxel[:0:-1], q, strict=True):
            if top > 0.5 / step * (1 + 1e-6):
                warnings.warn(
                    f"voxel ({name}): expected at most {0.5 / top:.6g} m for the turned detector to lie in the band of "
                    f"the model, got {step:.6g} m; mask the corner pixels beyond it or take suggest_voxel()",
                    stacklevel=3,
                )
        return tuple(sizes)

    def intensities(self, S, frames=None, s_0=None, *, dq=None, flux=None):
        """Computed intensities D (L, rows, cols), float32 or float64, equation (2), sum D <= sum w_p |E_h_p|^2.

        S : complex (nz, ny, nx).  frames : L frame indices, None for all.  s_0 : real (nz, ny, nx), None: |S|.
        dq, flux : as in `evaluate`.
        """
        frames = _checks.frame_indices(frames, self.n_frames)
        dqs, flux = self._dq(dq), self._flux(flux)
        D = np.empty((len(frames), *self.experiment.detector_shape), self._real)
        for block in self._blocks(len(frames)):
            indices = frames[block]
            fields = [op.forward(S, dqs[indices], s_0) for _, op in self.operators]

            def part(chunk, D=D[block], fields=fields, indices=indices):
                D[chunk] = self._spectra(fields, chunk, None if flux is None else flux[indices[chunk]])[1]

            map_chunks(part, len(indices), self.threads)
        return D

    def loss_and_adjoint(self, S, data, mask=None, frames=None, scale=1.0, s_0=None, support=None):
        """(loss, adj_S), equation (3): float and complex (nz, ny, nx), dL = Re sum conj(adj_S) dS.

        S : complex (nz, ny, nx).
        data : (n_frames, rows, cols) of ALL frames, any real dtype, intensities >= 0 on good pixels.
        mask : bool (n_frames, rows, cols) or (rows, cols), True = good pixel; bad ones may hold anything.
        frames : indices of the L frames to use, None for all.
        scale : number >= 0 that multiplies the computed intensities; None: the best one for these frames.
        s_0 : real (nz, ny, nx); None: |S|, whose path is in adj_S.
        support : bool (nz, ny, nx), the gradient is 0 outside; None: everywhere.
        """
        result = self.evaluate(S, data, mask, frames, scale, s_0, support)
        return result.loss, result.adj_S

    def evaluate(
        self,
        S,
        data,
        mask=None,
        frames=None,
        scale=1.0,
        s_0=None,
        support=None,
        *,
        likelihood="amplitude",
        background=0.0,
        free=None,
        dq=None,
        flux=None,
    ):
        """All that one pass gives, an `Evaluation`; further arguments as in `loss_and_adjoint`.

        likelihood, background : "amplitude" or "poisson", the latter with background counts per pixel: `pendel.loss`.
        free : bool, shape as mask: pixels held out, which the loss, its gradient and the scale do not see.
        dq : (n_frames, 3) rad/m, to replace those of the experiment.
        flux : (n_frames,) relative incident intensity that multiplies D of each frame; None: 1.
        """
        fit = self._fit(data, mask, likelihood, background, free, dq, flux)
        return self._run(S, fit, frames, scale, s_0, support, gradient=True)

    def misfit(self, S, data, mask=None, frames=None, s_0=None):
        """sum (sqrt(scale D) - sqrt I)^2 / sum I at the best scale, a float; arguments as in `loss_and_adjoint`."""
        result = self._run(S, self._fit(data, mask), frames, None, s_0, None, gradient=False)
        return loss.misfit_ratio(result.misfit_numerator, result.misfit_denominator)

    def _fit(self, data, mask, likelihood="amplitude", background=0.0, free=None, dq=None, flux=None):
        shape = (self.n_frames, *self.experiment.detector_shape)
        pixels = (loss.check_data("data", data, shape), loss.check_mask("mask", mask, shape), self._real)
        return _Fit(
            Pixels(*pixels, loss.check_mask("free", free, shape)),
            loss.Likelihood(likelihood, background),
            self._dq(dq),
            self._flux(flux),
        )

    def _dq(self, dq):
        n = self.n_frames
        return self.experiment.dq if dq is None else _checks.array("dq", dq, (n, 3), np.float64, axes="(n_frames, 3)")

    def _flux(self, flux):
        if flux is None:
            return None
        flux = _checks.array("flux", flux, (self.n_frames,), self._real, axes="(n_frames,)")
        if not flux.min() > 0:
            raise ValueError(f"flux: expected relative intensities > 0, got {flux.min():g}")
        return flux

    def _run(self, S, fit, frames, scale, s_0, support, gradient):
        pixels, frames = fit.pixels, _checks.frame_indices(frames, self.n_frames)
        scale = None if scale is None else _checks.number("scale", scale, at_least=0)
        blocks = self._blocks(len(frames))
        adj_S = adj_s_0 = all_sums = None
        if scale is None and len(blocks) > 1:
            # The scale needs all frames before any gradient: a forward pass of its own, to keep memory bounded.
            parts = [self._forward_block(S, s_0, frames[block], fit) for block in blocks]
            weighted, chunks = np.sum([p.weighted for p in parts], axis=0), sum((p.chunks for p in parts), [])
            scale = fit.likelihood.scale(*weighted, chunks)
            all_sums = np.concatenate([p.sums for p in parts], axis=1)
            del parts, chunks
        adj_dq, terms = [], []
        for block in blocks:
            indices = frames[block]
            if scale is None:
                first = self._forward_block(S, s_0, indices, fit, gradient, hold=True)
                held, states, all_sums = first.held, first.states, first.sums
                scale = fit.likelihood.scale(*first.weighted, first.chunks)
            else:
                held, states = None, self._sweep(S, fit.dq[indices], s_0, gradient)
            adj_fields = [np.empty_like(E_h) for E_h, _ in states] if gradient else None

            def part(chunk, held=held, states=states, adj_fields=adj_fields, indices=indices, scale=scale):
                item = self._measure(states, chunk, indices, fit) if held is None else held.pop(chunk.start)
                return self._residual(item, chunk, indices, fit, scale, len(frames), adj_fields)

            terms.append(np.concatenate(map_chunks(part, len(indices), self.threads), axis=1))
            if not np.isfinite(terms[-1][2::2]).all():
                raise ValueError(f"data: {pixels.complaint(indices)}")
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
        total, numerator, denominator, *free = (float(v) for v in np.concatenate(terms, axis=1).sum(axis=1))
        adj_dq = np.concatenate(adj_dq) if gradient else None
        free = np.array(free) if free else None
        return Evaluation(total, adj_S, adj_s_0, scale, numerator, denominator, adj_dq, all_sums, free)

    def _sweep(self, S, dq, s_0, keep_state):
        """(E_h, state or None) of every polarisation state."""
        if keep_state:
            return [op.forward(S, dq, s_0, return_state=True) for _, op in self.operators]
        return [(op.forward(S, dq, s_0), None) for _, op in self.operators]

    def _forward_block(self, S, s_0, indices, fit, keep_state=False, hold=False):
        """The sums of a block for the scale; with ``hold`` its states and what `_measure` gives, by first frame."""
        states = self._sweep(S, fit.dq[indices], s_0, keep_state)
        sums, weighted = np.zeros((2, len(indices))), np.zeros((2, len(indices)))
        keep = fit.likelihood.background > 0

        def part(chunk):
            item = self._measure(states, chunk, indices, fit)
            _, D, root, good, weight = item
            sums[:, chunk] = fit.likelihood.sums(D, root, good)
            weighted[:, chunk] = weight * sums[:, chunk]
            return chunk.start, item if hold else None, item[1:] if keep else None

        parts = map_chunks(part, len(indices), self.threads)
        if not np.isfinite(sums).all():
            raise ValueError(f"data: {fit.pixels.complaint(indices)}")
        held, chunks = {start: item for start, item, _ in parts}, [chunk for *_, chunk in parts]
        return _Block(held, chunks if keep else [], sums, weighted.sum(axis=1), states if hold else None)

    def _spectra(self, fields, chunk, flux=None):
        """Far fields F_p of a chunk of exit fields, and the intensities D, times ``flux`` of its frames."""
        spectra = [self.far_field.forward_chunk(E_h[chunk][..., self._seen]) for E_h in fields]
        D = None
        for (weight, _), F in zip(self.operators, spectra, strict=True):
            power = np.square(F.real)
            power += np.square(F.imag)
            if weight != 1:
                power *= self._real.type(weight)
            D = power if D is None else np.add(D, power, out=D)
        if flux is not None:
            D *= flux[:, None, None]
        return spectra, D

    def _measure(self, states, chunk, indices, fit):
        """(F_p list, D, sqrt I, good, 1/M) of a chunk; ``indices`` are the frames of its block."""
        frames = indices[chunk]
        spectra, D = self._spectra([E_h for E_h, _ in states], chunk, None if fit.flux is None else fit.flux[frames])
        root, good = fit.pixels.load(frames)
        return spectra, D, root, good, loss.frame_weights(good, D.shape)

    def _residual(self, item, chunk, indices, fit, scale, count, adj_fields):
        """(3, n) loss, misfit numerator and denominator of each frame, (7, n) with those of `Evaluation.free`; fills
        the adjoint exit fields, if any.
        """
        spectra, D, root, good, weight = item
        weight = weight / count
        sums, misfit, adj_D = fit.likelihood.terms(D, root, good, weight, scale)
        rows = [weight * sums, misfit]
        if adj_fields is not None:
            if fit.flux is not None:
                adj_D *= fit.flux[indices[chunk], None, None]
            for (fraction, _), F, adj_E_h in zip(self.operators, spectra, adj_fields, strict=True):
                F *= adj_D * self._real.type(2 * fraction)
                adj_E_h[chunk][..., self._seen] = self.far_field.adjoint_chunk(F)
                adj_E_h[chunk][..., : self._seen.start] = 0
        rows.append(loss.frame_sums(np.square(root, out=root)))
        if fit.pixels.free is not None:
            root, free = fit.pixels.load_free(indices[chunk])
            sums, misfit, _ = fit.likelihood.terms(D, root, free, np.ones(len(D)), scale)
            rows += [misfit, loss.frame_sums(np.square(root)), sums, loss.frame_sums(free)]
        return np.array(rows)

    def _blocks(self, count):
        """Slices of ``range(count)`` of equal length whose arrays stay within BLOCK_BYTES."""
        ny, columns = self.operators[0][1].exit_shape
        exit_pixels = ny * (2 * columns + max(op.row_length for _, op in self.operators))
        pixels = max(self.far_field.far_shape) * max(self.experiment.detector_shape)
        size = len(self.operators) * (exit_pixels + pixels) * self.dtype.itemsize + 2 * pixels * self._real.itemsize
        parts = -(-count // max(1, BLOCK_BYTES // size))
        edges = [count * i // parts for i in range(parts + 1)]
        return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def __repr__(self):
        return (
            f"Model(shape={self.shape}, frames={self.n_frames}, detector_shape={self.experiment.detector_shape}, "
            f"polarization={self.polarization}, coupling={self.coupling!r}, transport={self.transport!r}, "
            f"dtype={self.dtype.name!r})"
        )


class _Block(NamedTuple):
    """What `Model._forward_block` gives; ``sums`` (2, L), ``weighted`` (2,) and ``chunks`` are for the scale."""

    held: dict
    chunks: list
    sums: np.ndarray
    weighted: np.ndarray
    states: list | None
