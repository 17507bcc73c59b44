"""Computed frames of a model and their adjoint, for programs with a loss of their own.

`Model.evaluate` goes from the crystal function to its own losses and back in blocks of bounded memory. Here the frames
are handed out in between, so what the way back needs of all of them is kept: E_h and E_0 behind the crystal and the
far fields.

(1) D_j = light_j Blur(sum_p w_p |F_jp|^2),   F_jp = FarField(E_h_p(dq_j)),   sums over states and settings of the beam
(2) adj_F_jp = 2 w_p light_j (Blur^T adj_D_j) F_jp,   adj_light_j = sum (Blur^T adj_D_j) sum_p w_p |F_jp|^2 over pixels
"""

from typing import Any, NamedTuple

import numpy as np

from ..base import checks
from ..base.arrays import is_finite
from ..operator.crystals import STATE_AXES, one_by_one, released
from ..operator.engine import Array
from ..operator.engines import on_device
from ..operator.fields import State, refuse_overflow
from .loss import frame_sums
from .model import Model


class Kept(NamedTuple):
    """What `Frames.adjoint` needs of `Frames.forward`: of every operator of the beam, in its order.

    Attributes
    ----------
    states : list of State
    spectra : list of complex (L, rows, cols)
        Far fields F_p.
    """

    states: list
    spectra: list


class FramesAdjoint(NamedTuple):
    """Gradients of a real scalar L, ``dL = Re sum conj(adj_X) dX``.

    Attributes
    ----------
    S : complex (nz, ny, nx)
    s_0 : real (nz, ny, nx), or None where s_0 was not given (then ``S`` holds that path)
    dq : float64 (n_frames, 3)
        [m]; 0 for frames that were not asked for.
    flux : float64 (n_frames,), or None where flux was not given
    """

    S: Array
    s_0: Array | None
    dq: Array
    flux: Array | None


class Frames:
    """Equation (1) of a model and its adjoint (2).

    Parameters
    ----------
    model : Model

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        For a model of several ranks: their frames are handed out nowhere.
    """

    def __init__(self, model: Model):
        if isinstance(model, Model) and model.comm is not None:
            raise ValueError(f"model: expected one without comm, got one of {model.ranks.size} ranks")
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a Model, got {checks.describe(model)}")
        self.model, self.engine = model, model.engine

    @on_device
    def forward(
        self,
        S: Array,
        frames: Any = None,
        s_0: Array | None = None,
        *,
        dq: Array | None = None,
        flux: Array | None = None,
        keep: bool = False,
    ) -> tuple[Array, Kept | None]:
        """Intensities (L, rows, cols), those of `Model.intensities`, and what the adjoint needs of them.

        Parameters
        ----------
        S, frames, s_0, dq, flux
            As in `Model.intensities`.
        keep : bool
            Whether what the adjoint needs is kept; memory then grows with the frames asked for.

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        """
        if not keep:
            return self.model.intensities(S, frames, s_0, dq=dq, flux=flux), None

        xp, passes = self.engine.xp, self.model.passes
        S, s_0, indices, dq, flux = self._checked(S, frames, s_0, dq, flux)
        taken, light = passes.swept.taken(S, s_0, dq), passes.swept.light(flux)
        beam, shape = passes.beam, (len(indices), *passes.far_field.detector_shape)
        states = [op.sweep(taken.S, taken.dq[indices], taken.s_0, keep_state=True)[1] for _, op in beam.operators]
        D, spectra = xp.empty(shape, self.model.real_dtype), [xp.empty(shape, self.model.dtype) for _ in states]

        def part(chunk):
            fields = [state.E_h for state in states]
            found = passes.spectra(fields, chunk, None if light is None else light[indices[chunk]], beam)
            D[chunk] = found.D
            for kept, F in zip(spectra, found.spectra, strict=True):
                kept[chunk] = F

        passes.map(part, len(indices))
        if self.engine.reads_values and not is_finite(D):
            refuse_overflow(D.dtype, S=S, s_0=s_0, dq=dq, flux=flux)
        return D, Kept(states, spectra)

    @on_device
    def adjoint(
        self,
        S: Array,
        adj_D: Array,
        kept: Kept,
        frames: Any = None,
        s_0: Array | None = None,
        *,
        dq: Array | None = None,
        flux: Array | None = None,
    ) -> FramesAdjoint:
        """Gradient of a real scalar L through `forward`, from what that has kept.

        Parameters
        ----------
        S, frames, s_0, dq, flux
            As given to `forward`.
        adj_D : real (L, rows, cols)
            dL/dD.
        kept : Kept
            From ``forward(..., keep=True)`` with the same arguments. Not modified.

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        RuntimeError
            Where absorption has cost the reversal its digits.
        """
        given = {"S": S, "s_0": s_0, "dq": dq, "flux": flux}
        S, s_0, indices, dq, flux = self._checked(S, frames, s_0, dq, flux)
        model, swept = self.model, self.model.passes.swept
        shape = (len(indices), *model.passes.far_field.detector_shape)
        adj_D = self.engine.array("adj_D", adj_D, shape, model.real_dtype, axes="(L, rows, cols)")

        taken = swept.taken(S, s_0, dq)
        adj_fields, adj_light = self._far_field_adjoint(adj_D, kept, indices, swept.light(flux), flux is not None)
        adj_S, adj_s_0, rows = self._sweeps_adjoint(taken, taken.dq[indices], adj_fields, kept.states)
        adj_S, adj_s_0 = swept.adjoint(adj_S, adj_s_0, S, s_0, None, taken.filled)
        adj_flux = None if flux is None else self._of_all_frames(swept.adj_flux(adj_light, indices), indices)
        found = FramesAdjoint(adj_S, adj_s_0, self._of_all_frames(rows, indices), adj_flux)
        if self.engine.reads_values and not is_finite(*found):
            refuse_overflow(model.dtype, adj_D=adj_D, **given)
        return found

    def _checked(self, S, frames, s_0, dq, flux):
        model = self.model
        indices = self.engine.xp.asarray(checks.frame_indices(frames, model.n_frames))
        S, s_0, _ = model.checked_crystal(S, s_0)
        return S, s_0, indices, model.checked_dq(dq), model.checked_flux(flux)

    def _far_field_adjoint(self, adj_D, kept, indices, light, wants_light):
        """Adjoint exit fields of every operator, and adj_light (L,) float64 or None: (2)."""
        xp, passes = self.engine.xp, self.model.passes
        beam, adj_fields = passes.beam, [xp.empty_like(state.E_h) for state in kept.states]
        adj_light = xp.empty(len(indices)) if wants_light else None

        def part(chunk):
            spectra = [F[chunk].copy() for F in kept.spectra]  # the way back overwrites them
            adj = beam.blur.adjoint(adj_D[chunk])
            if wants_light:
                powers = (weight * xp.abs(F) ** 2 for (weight, _), F in zip(beam.operators, spectra, strict=True))
                adj_light[chunk] = frame_sums(adj * sum(powers))
            if light is not None:
                adj = adj * light[indices[chunk]][:, None, None]
            passes.far_field_adjoint(beam, spectra, adj, chunk, adj_fields)

        passes.map(part, len(indices))
        return adj_fields, adj_light

    def _sweeps_adjoint(self, taken, dq, adj_fields, states: list[State]):
        """(adj_S, adj_s_0, adj_dq (L, 3)) of what the sweep takes, added up over the operators."""
        adj_S = adj_s_0 = adj_dq = None
        for (_, op), adj_E_h, state in zip(self.model.passes.beam.operators, adj_fields, states, strict=True):
            found = op.sweep_adjoint(taken.S, dq, adj_E_h, taken.s_0, state=state)
            if adj_S is None:
                adj_S, adj_s_0, adj_dq = found.S, found.s_0, found.dq
                continue
            adj_S, adj_dq = adj_S + found.S, adj_dq + found.dq
            adj_s_0 = None if adj_s_0 is None else adj_s_0 + found.s_0
        return adj_S, adj_s_0, adj_dq

    def _of_all_frames(self, rows, indices):
        """(n_frames, ...) float64 of rows (L, ...): those of a frame asked for twice are added."""
        xp = self.engine.xp
        found = xp.zeros((self.model.n_frames, *rows.shape[1:]), np.float64)
        xp.add.at(found, indices, rows)
        return found


class Given(NamedTuple):
    """What `Frames.forward` takes; all but ``S`` may be None."""

    S: Any
    s_0: Any = None
    dq: Any = None
    flux: Any = None
    frames: Any = None


AXES = Given(S=3, s_0=3, dq=2, flux=1, frames=1)  # of one crystal


def forward(model: Model, given: Given, *, keep: bool) -> tuple[Array, list]:
    """`Frames.forward` of arrays with axes before those of one crystal, as in `pendel.operator.crystals`.

    Returns
    -------
    D : real (..., L, rows, cols)
    kept : list of array
        One of each of `kept_shapes` with the same leading axes; empty unless ``keep``.
    """
    frames_of = Frames(model)

    def compute(S, s_0, dq, flux, frames):
        D, kept = frames_of.forward(S, frames, s_0, dq=dq, flux=flux, keep=keep)
        if kept is None:
            return (D,)
        arrays = [released(array) for state in kept.states for array in state if array is not None]
        return (D, *arrays, *kept.spectra)

    D, *kept = one_by_one(model.engine.xp, compute, given, AXES)
    return D, kept


def adjoint(model: Model, given: Given, adj_D: Array, kept: list, summed_to: Any) -> Given:
    """Gradients with respect to what is ``given``, None for what is None and for frames.

    Parameters
    ----------
    model, given
        As for `forward`.
    adj_D : real (..., L, rows, cols)
    kept : list of array
        From `forward`; empty: the forward sweep is run again.
    summed_to : sequence of tuple
        Leading shapes of the five gradients, see `pendel.operator.crystals.one_by_one`.
    """
    frames_of, xp, sweeps = Frames(model), model.engine.xp, len(model.passes.beam.operators)
    kept = kept or forward(model, given, keep=True)[1]
    per_state = len(kept) // sweeps - 1  # layers may be missing

    def compute(S, s_0, dq, flux, frames, adj_D, *kept):
        kept = [xp.ascontiguousarray(array) for array in kept]
        states = [State(*kept[i * per_state : (i + 1) * per_state]) for i in range(sweeps)]
        kept = Kept(states, kept[sweeps * per_state :])
        found = frames_of.adjoint(S, adj_D, kept, frames, s_0, dq=dq, flux=flux)
        return found.S, found.s_0, None if dq is None else found.dq, found.flux, None

    axes = (*AXES, 3, *kept_axes(model, len(kept)))
    return Given(*one_by_one(xp, compute, (*given, adj_D, *kept), axes, summed_to))


def kept_shapes(model: Model, count: int) -> list[tuple[int, ...]]:
    """Shapes of the arrays, all of the model's dtype, that `forward` keeps of ``count`` frames of one crystal."""
    state = [shape for shape in model.passes.operator.state_shapes(count) if shape is not None]
    sweeps = len(model.passes.beam.operators)
    return state * sweeps + [(count, *model.passes.far_field.detector_shape)] * sweeps


def kept_axes(model: Model, count: int) -> list[int]:
    """How many axes each of ``count`` arrays that `forward` keeps has for one crystal."""
    sweeps = len(model.passes.beam.operators)
    per_state = count // sweeps - 1
    return [*STATE_AXES[:per_state] * sweeps, *[3] * sweeps] if count else []
