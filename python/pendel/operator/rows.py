"""Rows of places along x that a sweep works on: how long they are, and how an incident field is continued over them."""

import dataclasses
from typing import NamedTuple

import numpy as np

from .cpu_engine import fourier_row_length
from .engine import Array, Engine
from .plan import Orientation, Transport

JOIN = 16  # pixels over which the two edge values of an incident field are joined (transport fourier)


class Continuation(NamedTuple):
    """A given field on a row: ``row[box] = field``, ``row[outside] = field[0] left + field[-1] right``.

    ``left``, ``right`` : float64 (places outside,).
    """

    box: slice
    outside: slice
    left: Array
    right: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowGeometry:
    """Rows of E_0 and E_h: the box, and everything that enters it or leaves it during the march.

    A Fourier row is periodic: what left on the right must not come back before the last layer.
    """

    nx: int  # columns of the box
    travel: int  # pixels that E_0 moves from the first layer to the last, rounded up; transport BOX: its moves
    transport: Transport
    orientation: Orientation
    handed: float = 0.0  # transport BOX: what a wave of 1 hands from column to column, (11) of csrc/README.md

    def length(self, *, plane_wave: bool) -> int:
        """Places of a row of E_0, for the plane wave or for a given incident field."""
        need = self.nx + self.travel
        if self.transport != Transport.FOURIER:
            return need
        # Where E_h moves too its row is an output: one length for every incident field, and room for its ripples.
        joins = not plane_wave or self.orientation == Orientation.SYMMETRIC
        return fourier_row_length(need + (JOIN if joins else 0))

    @property
    def exit_length(self) -> int:
        """Columns of E_h: the box's, or the whole row where E_h moves too."""
        return self.length(plane_wave=True) if self.orientation == Orientation.SYMMETRIC else self.nx

    @property
    def exit_slice(self) -> slice:
        """The columns of E_h that are the box's, the last of them."""
        return slice(self.exit_length - self.nx, self.exit_length)

    @property
    def exit_reach(self) -> int:
        """How many of the last columns of E_h straight paths from the box reach."""
        return self.nx + self.travel if self.orientation == Orientation.SYMMETRIC else self.nx

    @property
    def E_0_exit_slice(self) -> slice:
        """Where the box stands in a row of E_0 behind the last layer."""
        return self.exit_slice if self.transport == Transport.FOURIER else slice(0, self.nx)

    def plane_wave(self, length: int) -> np.ndarray:
        """The incident wave of 1 on a row, float64 (length,)."""
        row = np.ones(length)
        if self.transport == Transport.BOX:
            row[self.nx :] = self.handed
        return row

    def continuation(self, length: int) -> Continuation:
        """How an incident field of the box's columns is continued over a row of ``length`` places."""
        count = length - self.nx
        before, behind = slice(0, count), slice(count, None)
        left = np.ones(count)
        if self.transport == Transport.SHIFT:
            return Continuation(behind, before, left, np.zeros(count))
        if self.transport == Transport.BOX:
            return Continuation(slice(0, self.nx), slice(self.nx, None), self.handed * left, np.zeros(count))

        # The places outside lie right of the box and, periodically, left of it: what flows in must be the left edge
        # value; a raised cosine joins the two edges without a jump that would ring.
        join = max(count - self.travel - 1, 0)
        left[:join] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(join) + 1) / (join + 1))
        if self.orientation == Orientation.SYMMETRIC:
            return Continuation(behind, before, left, 1 - left)
        return Continuation(slice(0, self.nx), slice(self.nx, None), left, 1 - left)


class IncidentRows:
    """Incident fields on the rows of a geometry, on an engine, and the adjoint of that."""

    def __init__(self, geometry: RowGeometry, engine: Engine, dtype: np.dtype, real_dtype: np.dtype):
        self.geometry, self.engine = geometry, engine
        self.dtype, self.real_dtype = dtype, real_dtype
        self._uploaded: dict[int, Continuation] = {}  # continuations for the adjoint, by length of the row

    def extend(self, incident: Array) -> Array:
        """Complex (ny, nx) on a row (ny, places): edge values continued outside the box."""
        xp = self.engine.xp
        length = self.geometry.length(plane_wave=False)
        row = xp.empty((len(incident), length), self.dtype)
        box, outside, left, right = self.geometry.continuation(length)
        left, right = xp.asarray(left), xp.asarray(right)
        row[:, box] = incident
        row[:, outside] = incident[:, :1] * left + incident[:, -1:] * right
        return row

    def extend_adj(self, adj_row: Array) -> Array:
        """Complex (ny, nx) of (ny, places), a row for a given field or for the plane wave."""
        # Reverse: row[:, box] = incident;  row[:, outside] = incident[:, 0] left + incident[:, -1] right
        box, outside, left, right = self._uploaded_continuation(adj_row.shape[1])
        adj_incident = adj_row[:, box].copy()
        adj_incident[:, 0] += (adj_row[:, outside] * left).sum(axis=1)
        adj_incident[:, -1] += (adj_row[:, outside] * right).sum(axis=1)
        return adj_incident

    def _uploaded_continuation(self, length: int) -> Continuation:
        """`RowGeometry.continuation` with weights of real_dtype on the engine, uploaded once."""
        if length not in self._uploaded:
            found = self.geometry.continuation(length)
            left, right = (self.engine.upload(w.astype(self.real_dtype)) for w in (found.left, found.right))
            self._uploaded[length] = found._replace(left=left, right=right)
        return self._uploaded[length]
