"""`pendel.TakagiTaupin` as an operator of PyTorch."""

import torch

from ..base import checks
from ..operator import crystals
from ..operator.crystals import AXES, STATE_AXES, Given, leading_shape
from ..operator.fields import State
from ..operator.takagi_taupin import TakagiTaupin as Operator
from .handles import found, handle_of
from .tensors import (
    OFFSETS,
    SUSCEPTIBILITIES,
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

LIBRARY = "pendel"
GIVEN = "Tensor S, Tensor dq, Tensor? s_0, Tensor? incident, Tensor? chi, Tensor? geometry"
COUNT = len(AXES)  # of what is given


def takagi_taupin(
    S: torch.Tensor,
    dq: torch.Tensor,
    s_0: torch.Tensor | None = None,
    incident: torch.Tensor | None = None,
    chi: torch.Tensor | None = None,
    geometry: torch.Tensor | None = None,
    *,
    op: Operator,
) -> torch.Tensor:
    """Exit fields E_h of the crystal function S for every rocking offset; differentiable once.

    Axes before those of one crystal are a batch; they are broadcast against each other.

    Parameters
    ----------
    S : complex (..., nz, ny, nx)
        Crystal function; of the dtype and on the device of ``op``, as the others are.
    dq : float64 or float32 (..., frames, 3)
        h' - h in the model frame [rad/m].
    s_0 : real (..., nz, ny, nx), optional
        Electron-density shape on the diagonal. None: |S|.
    incident : complex (..., ny, nx), optional
        E_0 on the plane of the first voxel centres. None: the plane wave, 1.
    chi : complex128 or complex64 (..., 3), optional
        chi_0, chi_h, chi_hbar in place of those of ``op``. Read on the host, as ``geometry`` is.
    geometry : float64 or float32 (..., 2), optional
        voxel_scale and two_theta [rad] of `pendel.TakagiTaupin.with_parameters`. None: (1, op.two_theta).
    op : pendel.TakagiTaupin
        It has to live until after the backward pass.

    Returns
    -------
    E_h : complex (..., frames, *op.exit_shape)

    Raises
    ------
    TypeError
        Of kind or dtype, naming the argument; nothing is cast.
    ValueError
        Of shape, device, NaN, naming the argument.
    RuntimeError
        In the backward pass, where absorption has cost the reversal its digits; for a second derivative.
    """
    given = Given(S, dq, s_0, incident, chi, geometry)
    refuse_unless_tensors(**given._asdict())
    if not isinstance(op, Operator):
        raise TypeError(f"op: expected a pendel.TakagiTaupin, got {checks.describe(op)}")
    return _forward(*given, handle_of(op), wants_gradient(*given))[0]


class TakagiTaupin(torch.nn.Module):
    """`takagi_taupin` of one operator as a module without parameters.

    Parameters
    ----------
    op : pendel.TakagiTaupin
    """

    def __init__(self, op: Operator):
        super().__init__()
        if not isinstance(op, Operator):
            raise TypeError(f"op: expected a pendel.TakagiTaupin, got {checks.describe(op)}")
        self.op = op

    def forward(
        self,
        S: torch.Tensor,
        dq: torch.Tensor,
        s_0: torch.Tensor | None = None,
        incident: torch.Tensor | None = None,
        chi: torch.Tensor | None = None,
        geometry: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Exit fields; arguments as of `takagi_taupin`."""
        return takagi_taupin(S, dq, s_0, incident, chi, geometry, op=self.op)

    def extra_repr(self) -> str:
        return repr(self.op)


def _checked(op, given: Given) -> tuple:
    """Leading axes of all, or an error naming the argument."""
    complex_dtype, real_dtype = (TORCH[op.dtype],), (TORCH[op.real_dtype],)
    refuse_unless_suitable("S", given.S, op.shape, complex_dtype, op.device, "nz, ny, nx")
    refuse_unless_suitable("dq", given.dq, (None, 3), OFFSETS, op.device, "frames, 3")
    refuse_unless_suitable("s_0", given.s_0, op.shape, real_dtype, op.device, "nz, ny, nx")
    refuse_unless_suitable("incident", given.incident, op.shape[1:], complex_dtype, op.device, "ny, nx")
    refuse_unless_suitable("chi", given.chi, (3,), SUSCEPTIBILITIES, op.device, "3")
    refuse_unless_suitable("geometry", given.geometry, (2,), OFFSETS, op.device, "2")
    return leading_shape(given, AXES)


@torch.library.custom_op(
    f"{LIBRARY}::takagi_taupin",
    mutates_args=(),
    schema=f"({GIVEN}, int handle, bool keep) -> (Tensor, Tensor, Tensor)",
)
def _forward(S, dq, s_0, incident, chi, geometry, handle, keep):
    """(E_h, E_0_row, layers), the last two empty unless ``keep``."""
    op, given = found(handle), Given(S, dq, s_0, incident, chi, geometry)
    _checked(op, given)
    with current_stream(S):
        state = crystals.forward(op, Given(*map(array_of, given)), keep=keep)
        return tuple(tensor_of(array, S) for array in state)


@_forward.register_fake
def _(S, dq, s_0, incident, chi, geometry, handle, keep):
    op = found(handle)
    leading = _checked(op, Given(S, dq, s_0, incident, chi, geometry))
    shapes = op.state_shapes(dq.shape[-2], incident=incident is not None)
    wanted = (True, keep, keep and shapes.layers is not None)
    return tuple(S.new_empty((*leading, *n) if w else 0) for n, w in zip(shapes, wanted, strict=True))


@torch.library.custom_op(
    f"{LIBRARY}::takagi_taupin_adjoint",
    mutates_args=(),
    schema=f"({GIVEN}, Tensor adj_E_h, Tensor E_h, Tensor E_0_row, Tensor layers, int handle) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _adjoint(*arguments):
    """Gradients with respect to the first six, empty for what is None."""
    given, adj_E_h, (E_h, E_0_row, layers), handle = _taken(arguments)
    op, leads = found(handle), leading_shapes(given, AXES)
    kept = State(E_h, E_0_row, layers if layers.numel() else None) if E_0_row.numel() else None
    with current_stream(given.S):
        state = None if kept is None else State(*map(array_of, kept))
        gradients = crystals.adjoint(op, Given(*map(array_of, given)), array_of(adj_E_h), state, leads)
        made = [tensor_of(array, given.S) for array in gradients]
    return tuple(g if t is None else g.to(t.dtype) for g, t in zip(made, given, strict=True))


def _taken(arguments):
    """(what is given, adj_E_h, what is kept, handle) of `_adjoint`."""
    return Given(*arguments[:COUNT]), arguments[COUNT], arguments[COUNT + 1 : -1], arguments[-1]


@_adjoint.register_fake
def _(*arguments):
    return gradients_like(_taken(arguments)[0])


def _keep_for_backward(ctx, inputs, output):
    *given, handle, _ = inputs
    ctx.save_for_backward(*given, *output)
    ctx.handle, ctx.op = handle, found(handle)  # the second keeps it alive
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _backward(ctx, adj_E_h, *_):
    if adj_E_h is None:  # nothing depends on E_h
        return (None,) * (COUNT + 2)
    gradients = _adjoint(*ctx.saved_tensors[:COUNT], adj_E_h, *ctx.saved_tensors[COUNT:], ctx.handle)
    given = zip(ctx.saved_tensors, gradients, strict=False)
    return *(None if t is None else gradient for t, gradient in given), None, None


_forward.register_autograd(_backward, setup_context=_keep_for_backward)
_adjoint.register_autograd(refuse_second_derivative)


@_forward.register_vmap
def _(info, in_dims, *arguments):
    given, (handle, keep) = aligned(arguments[:COUNT], in_dims[:COUNT], AXES), arguments[COUNT:]
    fields = _forward(*given, handle, keep)
    return fields, tuple(0 if field.numel() else None for field in fields)


@_adjoint.register_vmap
def _(info, in_dims, *arguments):
    given, _, kept, handle = _taken(arguments)
    there = [None if t.numel() == 0 else t for t in kept]
    lined_up = aligned((*arguments[: COUNT + 1], *there), in_dims[:-1], (*AXES, 3, *STATE_AXES))
    filled = [t if a is None else a for t, a in zip(kept, lined_up[COUNT + 1 :], strict=True)]
    return unaligned(_adjoint(*lined_up[: COUNT + 1], *filled, handle), given, in_dims)
