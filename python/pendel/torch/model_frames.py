"""The frames of a `pendel.Model` as an operator of PyTorch."""

from typing import Any

import torch

from ..base import checks
from ..model import frames as many
from ..model.frames import AXES, Given
from ..model.model import Model
from ..operator.crystals import leading_shape
from .handles import found, handle_of
from .operator import LIBRARY
from .tensors import (
    OFFSETS,
    TORCH,
    aligned,
    array_of,
    current_stream,
    gradients_like,
    leading_shapes,
    refuse_second_derivative,
    refuse_unless_suitable,
    refuse_unless_tensors,
    tensor_of,
    unaligned,
    wants_gradient,
)

INDICES = (torch.int64, torch.int32)
GIVEN = "Tensor S, Tensor? s_0, Tensor? dq, Tensor? flux, Tensor? frames"


class Frames(torch.nn.Module):
    """Computed intensities of a model, with far field, polarisation and curved Ewald sphere; differentiable once.

    Parameters
    ----------
    model : pendel.Model
        It has to live until after the backward pass.

    Raises
    ------
    TypeError
        For anything else.
    """

    def __init__(self, model: Model):
        super().__init__()
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a pendel.Model, got {checks.describe(model)}")
        self.model = model

    def forward(
        self,
        S: torch.Tensor,
        frames: Any = None,
        s_0: torch.Tensor | None = None,
        dq: torch.Tensor | None = None,
        flux: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Intensities D; axes before those of one crystal are a batch, and are broadcast against each other.

        Parameters
        ----------
        S : complex (..., nz, ny, nx)
            Of the dtype and on the device of the model, as the others are.
        frames : integers (..., L), optional
            Indices of the frames wanted. None: all.
        s_0 : real (..., nz, ny, nx), optional
            None: |S|.
        dq : float64 or float32 (..., n_frames, 3), optional
            [rad/m], to replace those of the experiment.
        flux : real (..., n_frames), optional
            Relative incident intensity that multiplies D of each frame. None: 1.

        Returns
        -------
        D : real (..., L, rows, cols)

        Raises
        ------
        TypeError, ValueError
            Naming the argument; nothing is cast.
        RuntimeError
            In the backward pass, where absorption has cost the reversal its digits; for a second derivative.
        """
        refuse_unless_tensors(S=S, s_0=s_0, dq=dq, flux=flux)
        if frames is not None:
            frames = torch.as_tensor(frames)
        keep = wants_gradient(S, s_0, dq, flux)
        return _forward(S, s_0, dq, flux, frames, handle_of(self.model), keep)[0]

    def extra_repr(self) -> str:
        return repr(self.model)


def _checked(model, given: Given) -> tuple:
    """Leading axes of all, or an error naming the argument."""
    n, device, real = model.n_frames, model.device, (TORCH[model.real_dtype],)
    refuse_unless_suitable("S", given.S, model.shape, (TORCH[model.dtype],), device, "nz, ny, nx")
    refuse_unless_suitable("s_0", given.s_0, model.shape, real, device, "nz, ny, nx")
    refuse_unless_suitable("dq", given.dq, (n, 3), OFFSETS, device, "n_frames, 3")
    refuse_unless_suitable("flux", given.flux, (n,), real, device, "n_frames")
    refuse_unless_suitable("frames", given.frames, (None,), INDICES, "cpu", "L")
    return leading_shape(given, AXES)


@torch.library.custom_op(
    f"{LIBRARY}::frames", mutates_args=(), schema=f"({GIVEN}, int handle, bool keep) -> (Tensor, Tensor[])"
)
def _forward(S, s_0, dq, flux, frames, handle, keep):
    """D, and with ``keep`` what `_adjoint` needs of the way there."""
    model, given = found(handle), Given(S, s_0, dq, flux, frames)
    _checked(model, given)
    with current_stream(S):
        D, kept = many.forward(model, Given(*map(array_of, given)), keep=keep)
        return tensor_of(D, S), [tensor_of(array, S) for array in kept]


@_forward.register_fake
def _(S, s_0, dq, flux, frames, handle, keep):
    model = found(handle)
    leading = _checked(model, Given(S, s_0, dq, flux, frames))
    count = model.n_frames if frames is None else frames.shape[-1]
    D = S.new_empty((*leading, count, *model.experiment.detector_shape), dtype=TORCH[model.real_dtype])
    return D, [S.new_empty((*leading, *shape)) for shape in many.kept_shapes(model, count)] if keep else []


@torch.library.custom_op(
    f"{LIBRARY}::frames_adjoint",
    mutates_args=(),
    schema=f"({GIVEN}, Tensor adj_D, Tensor[] kept, int handle) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _adjoint(S, s_0, dq, flux, frames, adj_D, kept, handle):
    """Gradients with respect to the first four, empty for what is None."""
    model, given = found(handle), Given(S, s_0, dq, flux, frames)
    with current_stream(S):
        arrays, kept = Given(*map(array_of, given)), [array_of(tensor) for tensor in kept]
        gradients = many.adjoint(model, arrays, array_of(adj_D), kept, leading_shapes(given, AXES))
        made = [tensor_of(array, S) for array in gradients[:4]]
    return tuple(g if t is None else g.to(t.dtype) for g, t in zip(made, given, strict=False))


@_adjoint.register_fake
def _(S, s_0, dq, flux, frames, adj_D, kept, handle):
    return gradients_like((S, s_0, dq, flux))


def _keep_for_backward(ctx, inputs, output):
    *given, handle, _ = inputs
    D, kept = output
    ctx.save_for_backward(*given, *kept)
    ctx.handle, ctx.model = handle, found(handle)  # the second keeps it alive
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _backward(ctx, adj_D, *_):
    if adj_D is None:  # nothing depends on D
        return (None,) * 7
    given, kept = ctx.saved_tensors[:5], list(ctx.saved_tensors[5:])
    gradients = _adjoint(*given, adj_D, kept, ctx.handle)
    of_given = (None if t is None else g for t, g in zip(given, gradients, strict=False))
    return *of_given, None, None, None


_forward.register_autograd(_backward, setup_context=_keep_for_backward)
_adjoint.register_autograd(refuse_second_derivative)


@_forward.register_vmap
def _(info, in_dims, S, s_0, dq, flux, frames, handle, keep):
    D, kept = _forward(*aligned((S, s_0, dq, flux, frames), in_dims[:5], AXES), handle, keep)
    return (D, kept), (0, [0] * len(kept))


@_adjoint.register_vmap
def _(info, in_dims, S, s_0, dq, flux, frames, adj_D, kept, handle):
    given, axes = (S, s_0, dq, flux, frames), (*AXES, 3, *many.kept_axes(found(handle), len(kept)))
    arguments = aligned((*given, adj_D, *kept), (*in_dims[:6], *in_dims[6]), axes)
    gradients = _adjoint(*arguments[:6], arguments[6:], handle)
    return unaligned(gradients, given[:4], in_dims)
