"""Numbers by which PyTorch's operators, which take tensors and numbers only, find pendel's operators and models."""

import itertools
import weakref

import torch

_numbers = itertools.count(1)
_number_of: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_by_number: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


@torch.compiler.assume_constant_result
def _number(thing) -> int:
    if thing not in _number_of:
        _number_of[thing] = number = next(_numbers)
        _by_number[number] = thing
    return _number_of[thing]


def handle_of(thing) -> int:
    """The number of an object, the same as long as it lives; never given to another one."""
    id(thing)  # a compiled graph, where the number is a constant, is for this object alone
    return _number(thing)


def found(handle: int):
    """The object of a number.

    Raises
    ------
    ReferenceError
        Where it is gone.
    """
    thing = _by_number.get(handle)
    if thing is None:
        raise ReferenceError(
            "pendel.torch: expected the operator or model of this graph to be alive, got one that has been deleted; "
            "keep it until after the backward pass"
        )
    return thing
