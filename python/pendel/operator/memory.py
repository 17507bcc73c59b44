"""What memory a gradient of the operator takes."""

import dataclasses
import math

from ..base import checks
from .takagi_taupin import TakagiTaupin


def estimate_memory(op: TakagiTaupin, n_frames: int) -> int:
    """Bytes that a gradient needs beside its inputs: exit fields, state, gradient, work space.

    Parameters
    ----------
    op : TakagiTaupin
    n_frames : int
        Rocking angles at a time.

    Raises
    ------
    TypeError, ValueError
        Naming ``n_frames``.
    """
    n_frames = checks.integer("n_frames", n_frames, at_least=1)
    ny, voxels = op.shape[1], math.prod(op.shape)
    complex_bytes, real_bytes = op.dtype.itemsize, op.real_dtype.itemsize

    exit_fields = 2 * n_frames * math.prod(op.exit_shape) * complex_bytes  # E_h, adj_E_h
    layers_shape = op.state_shapes(n_frames).layers
    stored = 0 if layers_shape is None else math.prod(layers_shape)
    state = (n_frames * ny * op.row_length + stored) * complex_bytes
    gradient = voxels * (complex_bytes + real_bytes)  # of S, s_0
    gradient += ny * op.row_length * complex_bytes + ny * n_frames * 3 * 8  # of the incident row, dq

    plan = dataclasses.replace(op.plan, frames=n_frames)
    return exit_fields + state + gradient + op.engine.workspace(plan, adjoint=True)
