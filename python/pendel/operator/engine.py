"""What the operator, the far field and the model ask of the place where arrays lie and sweeps run."""

from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

from .plan import Plan

Array: TypeAlias = Any  # of `Engine.xp`: numpy.ndarray or cupy.ndarray


@runtime_checkable
class Engine(Protocol):
    """A back end: `cpu_engine.Cpu` on NumPy arrays, `cuda_engine.Cuda` on CuPy arrays.

    Attributes
    ----------
    xp : module
        Of the arrays: numpy or cupy.
    reads_values : bool
        Whether values of arrays may be read on the host. Where that would wait for a device they are not: nothing is
        checked for NaN, numbers stay arrays of shape (), and a gradient that lost its digits is NaN instead of an
        error.
    """

    xp: ModuleType
    reads_values: bool

    def here(self) -> AbstractContextManager:
        """Context in which new arrays of `xp` come to lie where this engine wants them."""

    def scipy(self, name: str) -> ModuleType:
        """scipy.``name``, or its like for arrays of `xp`."""

    def upload(self, value: Any, name: str = "array") -> Array | None:
        """``value``, an array on the host or on any device, as an array of this engine. None stays None.

        name : what an error calls it; masked elements and units are TypeErrors, see `pendel.base.arrays`.
        """

    def array(self, name: str, value: Any, shape: tuple, dtype: Any, *, axes: str | None = None) -> Array:
        """An argument as a C-contiguous array of ``dtype``, checked.

        Parameters
        ----------
        name : str
            Of the argument, for the message.
        value : array
            One that lies where this engine computes; nothing is copied between host and device.
        shape : tuple of int or None
            None: an axis of any length.
        dtype
            Real arrays are taken for complex, integers for real.
        axes : str, optional
            Names of the axes for the message, such as "(nz, ny, nx)".

        Raises
        ------
        TypeError, ValueError
            Naming the argument; for NaN or infinity only where `reads_values`.
        """

    def take(self, name: str, value: Any) -> Array:
        """An argument as an array of `xp` of whatever shape and dtype, or TypeError or ValueError naming it."""

    def seal(self, array: Array) -> None:
        """Make an array read-only, where `xp` has such arrays."""

    def prepare(self, plan: Plan) -> None:
        """Load what sweeps of this plan need, or raise RuntimeError that says what to install."""

    def workspace(self, plan: Plan, *, adjoint: bool) -> int:
        """Bytes that a forward sweep, or its adjoint, takes for itself beside the arrays it is given."""

    def forward(
        self,
        plan: Plan,
        *,
        dq: Array,
        S: Array,
        s_0: Array | None = None,
        incident: Array | None = None,
        E_h: Array,
        E_0: Array | None = None,
        layers: Array | None = None,
    ) -> None:
        """The forward sweep. Arrays are not checked: C-contiguous, complex and real of the plan's precision.

        Parameters
        ----------
        plan : Plan
            Of this number of frames and this length of E_0's row.
        dq : float64 (frames, 3)
            Rocking offset of h, model frame [rad/m].
        S : complex (nz, ny, nx)
        s_0 : real (nz, ny, nx), optional
            None: |S|.
        incident : complex (ny, row_length), optional
            E_0 at the entrance. None: 1.
        E_h : complex (frames, ny, exit_length)
            Written.
        E_0 : complex (frames, ny, row_length), optional
            Written: E_0 at the exit.
        layers : complex (stored, 2, frames, ny, nx), optional
            Written: fields behind layers resync - 1, 2 resync - 1, ...
        """

    def adjoint(
        self,
        plan: Plan,
        *,
        dq: Array,
        S: Array,
        s_0: Array | None = None,
        incident: Array | None = None,
        support: Array | None = None,
        E_h: Array,
        E_0: Array,
        layers: Array | None = None,
        adj_E_h: Array,
        adj_S: Array,
        adj_s_0: Array | None = None,
        adj_incident: Array | None = None,
        adj_dq: Array | None = None,
        adj_medium: Array | None = None,
        drift: Array | None = None,
        entrance_E_0: Array | None = None,
        entrance_G: Array | None = None,
    ) -> None:
        """The adjoint sweep, unchecked like `forward`; arrays of that name are what it was given and has written.

        Parameters
        ----------
        support : bool (nz, ny, nx), optional
            Voxels whose gradient is wanted. None: all.
        adj_E_h : complex (frames, ny, exit_length)
        adj_S : complex (nz, ny, nx)
            Written; with the path through s_0 = |S| where s_0 is None.
        adj_s_0 : real (nz, ny, nx), optional
            Written.
        adj_incident : complex (ny, row_length), optional
            Written.
        adj_dq : float64 (ny, frames, 3), optional
            Written: one share per row, which the caller adds.
        adj_medium : complex128 (ny, 4), optional
            Written: of m, w, b, c of ``plan.medium``, one share per row.
        drift : float64 (ny), optional
            Written: the worst relative error of the reversed fields at stored layers and at the entrance.
        entrance_E_0 : complex (frames, ny, row_length), optional
            Written: the reversed E_0 at the entrance.
        entrance_G : complex (frames, ny, exit_length), optional
            Written: the reversed G at the entrance, 0 but for rounding.
        """

    def extent(self, S: Array, *, threads: int) -> tuple[Array, Array]:
        """(|S|, where S is not 0), real and bool (nz, ny, nx)."""

    def filter(
        self,
        values: Array,
        taps_y: Array,
        taps_x: Array,
        wanted: Array | None = None,
        *,
        S: Array | None = None,
        adj_size: Array | None = None,
        threads: int,
    ) -> Array:
        """Sums over a few neighbours in every layer, unchecked like `forward`, as a new array.

        sum_m sum_n taps_y[z, m] taps_x[z, n] values[z, y + m, x + n] + adj_size S/|S|, where wanted, else 0; the
        adjoint has the conjugate taps in reverse order.

        Parameters
        ----------
        values : complex (nz, ny, nx)
            0 beyond its ends.
        taps_y, taps_x : complex (nz, 2 reach + 1)
            m and n from -reach to reach.
        wanted : bool (nz, ny, nx), optional
            None: all voxels.
        S, adj_size : complex and real (nz, ny, nx), optional
            The last term: the adjoint of |S|, 0 where S is 0.
        threads : int
            On the CPU.
        """

    def check_drift(self, drift: Array, limit: float, adj_S: Array) -> None:
        """Refuse a gradient whose reversed sweep has a ``drift`` above ``limit`` anywhere, or NaN.

        RuntimeError where `reads_values`; else ``adj_S`` becomes NaN.
        """
