"""The Takagi-Taupin operator: exit fields of a crystal for many rocking angles, and the adjoint."""

import dataclasses
from typing import Any

import numpy as np

from ..base import checks, plausible
from ..base.arrays import is_finite
from .cpu_engine import available_threads
from .engine import Array
from .engines import engine_for, on_device
from .fields import (
    Adjoint,
    State,
    StateShapes,
    check_state,
    naming_frames,
    refuse_overflow,
    refuse_phases_without_digits,
)
from .parameters import with_parameters, with_parameters_adj
from .physics import (
    ORIENTATIONS,
    SCHEMES,
    checked_angle,
    checked_chi_0,
    checked_resync,
    choose_transport,
    pixels_per_layer,
)
from .planned import plan_of, row_geometry
from .reversal import reversal_error
from .rows import IncidentRows

LOST = 1e-2  # relative error of the reversed sweep above which its gradient is refused


class TakagiTaupin:
    """Two-beam Takagi-Taupin equations on an orthogonal grid with z along k_h, or along k_0 + k_h, and their adjoint.

    Parameters
    ----------
    shape : (nz, ny, nx)
        Voxels of the crystal box; anything outside is vacuum.
    voxel : (dz, dy, dx)
        Voxel size [m].
    wavelength, two_theta : float
        [m]; scattering angle [rad], 0 < 2 theta < pi/2, or 178 deg with orientation "symmetric".
    chi_0, chi_h, chi_hbar : complex
        Fourier components of the susceptibility for fields exp(+ik.r), Im chi_0 >= 0. ``chi_hbar=None``: chi_h
        (centrosymmetric; not its conjugate). ``chi_hbar=0, chi_0=0`` is the kinematic (first-order) model exactly.
    polarization_factor : float
        C, multiplies chi_h and chi_hbar, once. Leave it at 1 for tabulated values that contain C.
    scheme : "strang" | "etd2rk"
        Symmetric splitting of exact transport and the exact pointwise 2x2 exponential; or the paper's exponential Heun
        (transport fourier, orientation k_h; slower, its adjoint repeats steps instead of reversing them). Both second
        order in dz.
    transport : "auto" | "shift" | "box" | "fourier"
        How E_0 moves along x: whole pixels, where dz tan(2 theta) / dx is whole within 1e-6; an all-pass filter, up to
        1.5 pixels, good from 0.7 on; or a row FFT, three to five times slower. "auto": whole pixels where they are,
        else the FFT. Orientation "symmetric": both waves, dz tan(theta) / dx, not "box".
    dtype : "complex64" | "complex128"
    device : "cpu" | "cuda" | "cuda:N"
        Arrays are NumPy's or CuPy's accordingly, in and out. On CUDA work goes to CuPy's current stream and nothing
        waits for it, so values are not checked: NaN gives NaN. Raises RuntimeError without a device to use, or cuFFT
        for what needs it: scheme etd2rk, and transport fourier in orientation symmetric or of rows too long for a chip.
    threads : int or None
        None: all CPUs of this process (or PENDEL_NUM_THREADS). Results do not depend on it, to the last bit.
    orientation : "k_h" | "symmetric"
        z along k_h: E_h keeps its column and is taken on the plane perpendicular to k_h behind the last layer. Or z
        along k_0 + k_h: E_0 moves by +tan(theta) dz per layer, E_h by -tan(theta) dz; both are taken on the plane of
        the last voxel centres, E_h on a row that reaches further to -x than the crystal, so that nothing is lost.
    resync : int >= 1 or None
        Layers the adjoint reverses at most before it takes up stored fields again, for crystals that absorb so much
        that rounding grows beyond use (`adjoint` raises RuntimeError); 16 layers are a start. The price is memory,
        (nz - 1) // resync x frames x ny x nx x 2 complex numbers in the `State`. None: nothing is stored. Scheme
        "etd2rk" has no use for it (ValueError).

    Attributes
    ----------
    The arguments under their names, those left to the operator as it has chosen them, and

    pixels_per_layer : float
        Pixels that E_0 moves per layer.
    shift : int
        The same where they are whole (transport shift); else 0.
    row_length : int
        Places of a row of E_0 inside, for a plane wave.
    exit_shape : (ny, columns)
        Of E_h.
    exit_slice : slice
        The columns of E_h that are the crystal's, the last nx.
    exit_reach : int
        How many of the last columns straight paths from the box reach; beyond are only ripples of the interpolation.
    real_dtype : numpy.dtype
        float32 or float64: of s_0 and of its gradient.
    engine : pendel.operator.engine.Engine
        Where arrays lie and sweeps run.
    plan : pendel.operator.plan.Plan
        Of a sweep with one frame and a plane wave.

    Source: Takagi-Taupin equations as in csrc/README.md, equations (1)-(6), (10); Wu et al., arXiv 2506.15939, Eq. 2
    with the sign of the coupling put right.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        voxel: tuple[float, float, float],
        wavelength: float,
        two_theta: float,
        chi_0: complex,
        chi_h: complex,
        chi_hbar: complex | None = None,
        polarization_factor: float = 1.0,
        scheme: str = "strang",
        transport: str = "auto",
        dtype: Any = "complex64",
        device: str = "cpu",
        threads: int | None = None,
        orientation: str = "k_h",
        resync: int | None = None,
    ) -> None:
        self.shape = checks.sizes("shape", shape, 3)
        self.voxel = checks.lengths("voxel", voxel, 3)
        self.wavelength = plausible.number(plausible.WAVELENGTH, "wavelength", wavelength)
        self.orientation = checks.choice("orientation", orientation, tuple(ORIENTATIONS))
        self.two_theta = checked_angle(two_theta, self.orientation)
        self.chi_0 = checked_chi_0(chi_0)
        self.chi_h = plausible.susceptibility("chi_h", chi_h)
        self.chi_hbar = self.chi_h if chi_hbar is None else plausible.susceptibility("chi_hbar", chi_hbar)
        self.polarization_factor = checks.number("polarization_factor", polarization_factor, at_least=-1, at_most=1)

        self.scheme = checks.choice("scheme", scheme, SCHEMES)
        self.dtype = checks.complex_dtype("dtype", dtype)
        self.real_dtype = np.dtype("float32" if self.dtype == np.complex64 else "float64")
        self.engine, self.device = engine_for(device), device
        threads = available_threads() if threads is None else threads
        self.threads = checks.integer("threads", threads, at_least=1, at_most=checks.MOST_THREADS)
        self.resync = checked_resync(resync, self.scheme)

        self.pixels_per_layer = pixels_per_layer(self.voxel, self.two_theta, self.orientation)
        plausible.lengths(plausible.VOXEL, "voxel", self.voxel, 3)
        self.transport = choose_transport(
            transport, self.scheme, self.orientation, self.pixels_per_layer, self.voxel[0]
        )
        self.shift = round(self.pixels_per_layer) if self.transport == "shift" else 0
        self._rows = row_geometry(self)
        self.row_length = self._rows.length(plane_wave=True)
        self.exit_shape = (self.shape[1], self._rows.exit_length)
        self.exit_slice, self.exit_reach = self._rows.exit_slice, self._rows.exit_reach

        self.plan = plan_of(self)
        self.engine.prepare(self.plan)
        self._incident_rows = IncidentRows(self._rows, self.engine, self.dtype, self.real_dtype)

    def __repr__(self) -> str:
        return (
            f"TakagiTaupin(shape={self.shape}, voxel={self.voxel}, two_theta={self.two_theta:.6g}, "
            f"orientation={self.orientation!r}, transport={self.transport!r}, dtype={self.dtype.name!r}, "
            f"threads={self.threads})"
        )

    def with_parameters(self, chi: Any = None, geometry: Any = None) -> "TakagiTaupin":
        """The same operator of other susceptibilities or another geometry.

        Parameters
        ----------
        chi : complex (3,), optional
            New chi_0, chi_h, chi_hbar. None: as they are.
        geometry : float (2,), optional
            The pair voxel_scale, which multiplies all edges of the voxel, and two_theta [rad], where dz follows so that
            E_0 moves as many pixels per layer as before. None: as they are, (1, two_theta).

        Returns
        -------
        TakagiTaupin

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        """
        return with_parameters(self, chi, geometry)

    @on_device
    def forward(
        self,
        S: Array,
        dq: Array,
        s_0: Array | None = None,
        incident: Array | None = None,
        *,
        return_E_0: bool = False,
        return_state: bool = False,
    ) -> Array | tuple:
        """Exit fields E_h of the crystal function S for every rocking offset.

        Parameters
        ----------
        S : complex (nz, ny, nx)
            Crystal function s_h exp(i phi), phi = -h.u, sampled at voxel centres.
        dq : real (frames, 3)
            h' - h in the model frame [rad/m].
        s_0 : real (nz, ny, nx), optional
            Electron-density shape on the diagonal. None: |S|.
        incident : complex (ny, nx), optional
            E_0 on the plane of the first voxel centres; continued with its edge values. None: the plane wave, 1. With
            transport fourier a given field works on a longer row, so ones equal None only up to the band-limited
            interpolation's own error (1e-6 for gold at 24 nm); with shift they are the same.
        return_E_0, return_state : bool
            Also return E_0 (frames, ny, nx) on the plane of the last voxel centres, after that layer; or a `State`
            that saves `adjoint` its own forward sweep (it shares no memory with the other arrays).

        Returns
        -------
        E_h : complex (frames, *exit_shape)
            Exit ramp exp(i (dq_x x + dq_y y)) included, exp(i dq_z z_out) left out. exit_shape is (ny, nx) unless the
            orientation is "symmetric". A tuple that begins with it if anything else is to be returned.

        Raises
        ------
        TypeError, ValueError
            Of kind or dtype, of shape or NaN, naming the argument.
        """
        with_E_0 = return_E_0 or return_state
        fields = self.exit_state(S, dq, s_0, incident, keep_E_0=with_E_0, keep_layers=return_state)
        extra = []
        if return_E_0:
            extra.append(fields.E_0_row[:, :, self._rows.E_0_exit_slice].copy())
        if return_state:
            # a copy: what is handed out may be changed in place, the state must not
            extra.append(self._sealed(fields._replace(E_h=fields.E_h.copy())))
        return (fields.E_h, *extra) if extra else fields.E_h

    @on_device
    def exit_state(
        self,
        S: Array,
        dq: Array,
        s_0: Array | None = None,
        incident: Array | None = None,
        *,
        keep_E_0: bool = True,
        keep_layers: bool = True,
        out: State | None = None,
    ) -> State:
        """The `State` of `forward` by itself: who changes its E_h in place changes the state.

        Parameters
        ----------
        S, dq, s_0, incident : as given to `forward`, which also says what is raised
        keep_E_0, keep_layers : bool
            False: None in their place.
        out : State, optional
            Arrays to write to, of `state_shapes`, C-contiguous; they are not checked.
        """
        S, dq, s_0 = self._checked(S, dq, s_0)
        row = None if incident is None else self.incident_row(incident)
        fields = self._run_forward(S, dq, s_0, row, keep_E_0=keep_E_0, keep_layers=keep_layers, out=out)
        if self.engine.reads_values and not is_finite(fields.E_h, fields.E_0_row):
            refuse_overflow(self.dtype, S=S, dq=dq, s_0=s_0, incident=incident)
        return fields

    @on_device
    def adjoint(
        self,
        S: Array,
        dq: Array,
        adj_E_h: Array,
        s_0: Array | None = None,
        incident: Array | None = None,
        *,
        state: State | None = None,
        support: Array | None = None,
        parameters: bool = False,
    ) -> Adjoint:
        """Gradient of a real scalar L through `forward`, by exact reversal of the sweep (stored fields: see `resync`).

        Parameters
        ----------
        S, dq : as given to `forward`
        adj_E_h : complex (frames, *exit_shape)
            Derivative dL/dRe(E_h) + i dL/dIm(E_h).
        s_0, incident : as given to `forward`
        state : State, optional
            From ``forward(..., return_state=True)`` with the same arguments (only its shape can be checked: a state of
            other values gives a wrong gradient); without it the forward sweep is run again.
        support : bool (nz, ny, nx), optional
            Voxels whose gradient is wanted; elsewhere it is returned as 0 and vacuum is skipped. None: all voxels.
        parameters : bool
            Also with respect to what `with_parameters` takes, at its present values.

        Returns
        -------
        Adjoint
            S, s_0, incident, dq, and with ``parameters`` chi, geometry; see there. Derivation: csrc/README.md.

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        RuntimeError
            Where absorption has cost the reversal its digits.
        """
        S, dq, s_0 = self._checked(S, dq, s_0)
        axes = "(frames, ny, nx)" if self.orientation == "k_h" else "(frames, *exit_shape)"
        adj_E_h = self.engine.array("adj_E_h", adj_E_h, (len(dq), *self.exit_shape), self.dtype, axes=axes)
        if support is not None:
            support = self.engine.array("support", support, self.shape, bool, axes="(nz, ny, nx)")

        starts_from_incident = self.scheme == "etd2rk"  # the other reverses the state
        if state is None:
            state = self.exit_state(S, dq, s_0, incident)
        else:
            check_state(state, self.state_shapes(len(dq), incident=incident is not None), self.dtype)
        row = self.incident_row(incident) if incident is not None and starts_from_incident else None
        found = self._run_adjoint(S, dq, adj_E_h, s_0, row, state, support, parameters=parameters)
        if self.engine.reads_values and not is_finite(*found, found.chi, found.geometry):
            refuse_overflow(self.dtype, adj_E_h=adj_E_h, S=S, dq=dq, s_0=s_0, incident=incident)
        return found

    def _sealed(self, state: State) -> State:
        """The same, read-only where there are such arrays."""
        for array in state:
            if array is not None:
                self.engine.seal(array)
        return state

    def sweep(
        self, S: Array, dq: Array, s_0: Array | None = None, *, keep_state: bool = False
    ) -> tuple[Array, State | None]:
        """`forward` of a plane wave for callers that have checked their arguments: nothing is checked or converted.

        All are arrays of ``engine.xp`` on its device, which is the current one (``engine.here()``), C-contiguous, of
        ``dtype`` and ``real_dtype``.

        Parameters
        ----------
        S : complex (nz, ny, nx)
        dq : float64 (frames, 3)
            [rad/m]; at least one frame.
        s_0 : real (nz, ny, nx), optional
            None: |S|.
        keep_state : bool
            Whether a `State` for `sweep_adjoint` is kept; E_h is part of it and then read-only.

        Returns
        -------
        E_h : complex (frames, *exit_shape)
        state : State or None
        """
        fields = self._run_forward(S, dq, s_0, None, keep_E_0=keep_state, keep_layers=keep_state)
        if not keep_state:
            return fields.E_h, None
        return fields.E_h, self._sealed(fields)

    def sweep_adjoint(
        self,
        S: Array,
        dq: Array,
        adj_E_h: Array,
        s_0: Array | None = None,
        *,
        state: State,
        support: Array | None = None,
    ) -> Adjoint:
        """`adjoint` of `sweep` for callers that have checked their arguments.

        Parameters
        ----------
        S, dq : as given to `sweep`
        adj_E_h : complex (frames, *exit_shape)
            Derivative dL/dRe(E_h) + i dL/dIm(E_h).
        s_0 : as given to `sweep`
        state : State
            From ``sweep(..., keep_state=True)``.
        support : bool (nz, ny, nx), optional
            Voxels whose gradient is wanted. None: all.

        Raises
        ------
        RuntimeError
            Where absorption has cost the reversal its digits.
        """
        return self._run_adjoint(S, dq, adj_E_h, s_0, None, state, support)

    @naming_frames
    def _run_forward(
        self, S, dq, s_0, incident_row, *, keep_E_0: bool, keep_layers: bool, out: State | None = None
    ) -> State:
        """The forward sweep; what is not kept of the `State` is None."""
        frames, xp = len(dq), self.engine.xp
        shapes = self.state_shapes(frames, incident=incident_row is not None)
        fields = out or State(
            E_h=xp.empty(shapes.E_h, self.dtype),
            E_0_row=xp.empty(shapes.E_0_row, self.dtype) if keep_E_0 else None,
            layers=xp.empty(shapes.layers, self.dtype) if keep_layers and shapes.layers else None,
        )
        self.engine.forward(
            dataclasses.replace(self.plan, frames=frames, row_length=shapes.E_0_row[-1]),
            dq=dq,
            S=S,
            s_0=s_0,
            incident=incident_row,
            E_h=fields.E_h,
            E_0=fields.E_0_row,
            layers=fields.layers,
        )
        return fields

    @naming_frames
    def _run_adjoint(
        self, S, dq, adj_E_h, s_0, incident_row, state: State, support, *, parameters: bool = False
    ) -> Adjoint:
        """The adjoint sweep; ``incident_row`` is for scheme etd2rk, which repeats the forward sweep."""
        frames, ny, xp = len(dq), self.shape[1], self.engine.xp
        row_length = state.E_0_row.shape[2]
        adj_S = xp.empty(self.shape, self.dtype)
        adj_s_0 = None if s_0 is None else xp.empty(self.shape, self.real_dtype)
        adj_row = xp.empty((ny, row_length), self.dtype)
        adj_dq = xp.empty((ny, frames, 3))
        adj_medium = xp.empty((ny, 4), np.complex128) if parameters else None
        drift = xp.zeros(ny) if self.scheme == "strang" else None
        self.engine.adjoint(
            dataclasses.replace(self.plan, frames=frames, row_length=row_length),
            dq=dq,
            S=S,
            s_0=s_0,
            incident=incident_row,
            support=support,
            E_h=state.E_h,
            E_0=state.E_0_row,
            layers=state.layers,
            adj_E_h=adj_E_h,
            adj_S=adj_S,
            adj_s_0=adj_s_0,
            adj_incident=adj_row,
            adj_dq=adj_dq,
            adj_medium=adj_medium,
            drift=drift,
        )
        if drift is not None:
            self.engine.check_drift(drift, LOST, adj_S)
        found = Adjoint(adj_S, adj_s_0, self._incident_rows.extend_adj(adj_row), adj_dq.sum(axis=0))
        if adj_medium is not None:
            found.chi, found.geometry = with_parameters_adj(self, dq, adj_medium.sum(axis=0), found.dq)
        return found

    def state_shapes(self, frames: int, *, incident: bool = False) -> StateShapes:
        """Shapes of the arrays of a `State` of that many frames, all of ``dtype``.

        Parameters
        ----------
        frames : int
        incident : bool
            Whether an incident field is given: with transport fourier it has a longer row than the plane wave.

        Returns
        -------
        StateShapes
        """
        row_length = self._rows.length(plane_wave=not incident)
        E_h, E_0_row = (frames, *self.exit_shape), (frames, self.shape[1], row_length)
        stored = (self.shape[0] - 1) // self.plan.resync
        return StateShapes(E_h, E_0_row, (stored, 2, frames, *self.shape[1:]) if stored else None)

    def _checked(self, S, dq, s_0):
        S = self.engine.array("S", S, self.shape, self.dtype, axes="(nz, ny, nx)")
        dq = self.engine.array("dq", dq, (None, 3), np.float64, axes="(frames, 3)")
        if len(dq) == 0:
            raise ValueError("dq: expected at least one frame, got shape (0, 3)")
        if self.engine.reads_values:
            refuse_phases_without_digits(dq, self.shape, self.voxel)
        if s_0 is not None:
            s_0 = self.engine.array("s_0", s_0, self.shape, self.real_dtype, axes="(nz, ny, nx)")
        return S, dq, s_0

    @on_device
    def incident_row(self, incident: Array) -> Array:
        """The incident field on the sweep's E_0 row, complex (ny, row): edge values continued outside the box."""
        incident = self.engine.array("incident", incident, self.shape[1:], self.dtype, axes="(ny, nx)")
        return self._incident_rows.extend(incident)

    @on_device
    def reversal_error(self, S: Array, dq: Array, s_0: Array | None = None) -> float:
        """Relative L2 error of the entrance state that the adjoint's exact reversal recovers; plane wave in.

        Scheme "strang" alone reverses anything.

        Parameters
        ----------
        S, dq, s_0 : as given to `forward`

        Returns
        -------
        float
        """
        return reversal_error(self, *self._checked(S, dq, s_0))
