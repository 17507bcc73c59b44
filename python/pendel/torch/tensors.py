"""Tensors as arrays of an engine and back, without copies; checks that name the argument."""

import contextlib

import numpy as np
import torch

from ..base import checks

TORCH = {
    np.dtype("complex64"): torch.complex64,
    np.dtype("complex128"): torch.complex128,
    np.dtype("float32"): torch.float32,
    np.dtype("float64"): torch.float64,
}
# Of dq and the parameters: what takes them works in double precision, which loses nothing of single.
OFFSETS = (torch.float64, torch.float32)
SUSCEPTIBILITIES = (torch.complex128, torch.complex64)


def refuse_unless_tensors(**arguments) -> None:
    """TypeError naming the first argument that is neither a tensor nor None."""
    for name, value in arguments.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {checks.describe(value)}; torch.as_tensor makes one")


def refuse_unless_suitable(name: str, tensor, shape: tuple, dtypes: tuple, device: str, axes: str) -> None:
    """TypeError or ValueError naming a tensor that has not one of these dtypes, this device and these last axes.

    Parameters
    ----------
    tensor : torch.Tensor or None
    shape : tuple of int or None
        Of the last axes; None: of any length.
    dtypes : tuple of torch.dtype
    device : str
        Of the operator or model.
    axes : str
        Names of the axes for the message.
    """
    if tensor is None:
        return
    if tensor.dtype not in dtypes:
        wants = " or ".join(map(str, dtypes))
        raise TypeError(
            f"{name}: expected a tensor of {wants}, got {tensor.dtype}; nothing is cast unasked: use .to({dtypes[0]}), "
            "or an operator or model of another dtype"
        )
    if tensor.device.type not in (device.partition(":")[0], "meta"):
        raise ValueError(
            f"{name}: expected a tensor on device '{device}', where operator or model compute, got one on "
            f"'{tensor.device}'; use .to('{device}')"
        )
    last = tuple(tensor.shape)[max(0, tensor.ndim - len(shape)) :]
    if len(last) < len(shape) or any(n is not None and n != m for n, m in zip(shape, last, strict=True)):
        listed = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape (..., {axes}) = (..., {listed}), got {tuple(tensor.shape)}")


def array_of(tensor):
    """A tensor's memory as an array of NumPy or CuPy; None stays None."""
    if tensor is None:
        return None
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.device.type == "cuda":
        import cupy

        return cupy.from_dlpack(tensor)
    return tensor.numpy()


def tensor_of(array, like: torch.Tensor) -> torch.Tensor:
    """An array's memory as a tensor; of None an empty one."""
    if array is None:
        return like.new_empty(0)
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def current_stream(tensor: torch.Tensor):
    """Context in which CuPy works on PyTorch's current stream of a CUDA tensor."""
    if tensor.device.type != "cuda":
        return contextlib.nullcontext()
    import cupy

    return cupy.cuda.ExternalStream(torch.cuda.current_stream(tensor.device).cuda_stream)


def wants_gradient(*tensors) -> bool:
    """Whether autograd will come back to one of them."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def aligned(arguments, in_dims, axes) -> list:
    """Arguments of a function under vmap with its axis first, then as many leading axes for each.

    Parameters
    ----------
    arguments : sequence of torch.Tensor or None
    in_dims : sequence of int or None
        Where each one has vmap's axis; None: nowhere.
    axes : sequence of int
        How many axes each has for one crystal.
    """
    given = list(zip(arguments, in_dims, axes, strict=True))
    size = next(t.shape[dim] for t, dim, _ in given if dim is not None)
    deepest = max(t.ndim - n - (dim is not None) for t, dim, n in given if t is not None)
    made = []
    for tensor, dim, n in given:
        if tensor is not None:
            tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            missing = deepest - (tensor.ndim - 1 - n)
            tensor = tensor.reshape(size, *[1] * missing, *tensor.shape[1:]) if missing else tensor
        made.append(tensor)
    return made


def unaligned(gradients, given, in_dims) -> tuple:
    """(gradients, out_dims) of what `aligned` has made of the arguments ``given``, of which there is one for each."""
    made = []
    for gradient, tensor, dim in zip(gradients, given, in_dims, strict=False):
        if tensor is not None:
            one = tensor.shape if dim is None else tensor.movedim(dim, 0).shape[1:]
            gradient = gradient.reshape(len(gradient), *one)
        made.append(gradient)
    return tuple(made), tuple(None if tensor is None else 0 for tensor in given)


def gradients_like(given) -> tuple:
    """Empty tensors for the gradients with respect to tensors or None."""
    first = given[0]
    return tuple(first.new_empty(0) if t is None else first.new_empty(t.shape, dtype=t.dtype) for t in given)


def leading_shapes(given, axes) -> list:
    """Axes before those of one crystal of tensors or None."""
    return [() if t is None else tuple(t.shape[: t.ndim - n]) for t, n in zip(given, axes, strict=True)]


def refuse_second_derivative(ctx, *_):
    """Backward of a gradient."""
    raise RuntimeError(
        "pendel.torch: expected a first derivative; its gradients are computed by reversal of the sweep and cannot be "
        "differentiated again (create_graph=True followed by a second backward, Hessians)"
    )
