"""How well the adjoint's reversal of a sweep comes back to where the sweep began."""

import dataclasses
from typing import Any

import numpy as np

from .engine import Array
from .planned import row_geometry


def reversal_error(op: Any, S: Array, dq: Array, s_0: Array | None) -> float:
    """See `TakagiTaupin.reversal_error`; arguments are checked."""
    xp, state = op.engine.xp, op.exit_state(S, dq, s_0)
    E_0, G = xp.empty_like(state.E_0_row), xp.empty_like(state.E_h)
    op.engine.adjoint(
        dataclasses.replace(op.plan, frames=len(dq)),
        dq=dq,
        S=S,
        s_0=s_0,
        E_h=state.E_h,
        E_0=state.E_0_row,
        layers=state.layers,
        adj_E_h=xp.zeros_like(state.E_h),
        adj_S=xp.empty(op.shape, op.dtype),
        entrance_E_0=E_0,
        entrance_G=G,
    )
    lost = E_0.astype(complex) - xp.asarray(row_geometry(op).plane_wave(E_0.shape[-1]))
    error = xp.sum(xp.abs(lost) ** 2) + xp.sum(xp.abs(G.astype(complex)) ** 2)
    return float(np.sqrt(error / E_0.size))
