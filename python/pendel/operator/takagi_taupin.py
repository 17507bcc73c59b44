"""The Takagi-Taupin operator: exit fields of a crystal for many rocking angles, and the adjoint."""

import math
from typing import NamedTuple

import numpy as np

from ..base import checks
from . import _core, engines

SCHEMES = ("strang", "etd2rk")
TRANSPORTS = ("auto", "shift", "fourier")
ORIENTATIONS = {"k_h": math.pi / 2, "symmetric": math.radians(178)}  # and their largest 2 theta
MOST_PIXELS = 1000  # E_0 may move per layer: more is a mistake of units, and rows would grow with it
LOST = 1e-2  # relative error of the reversed sweep above which its gradient is refused
JOIN = 16  # pixels over which the two edge values of an incident field are joined (transport fourier)


class Adjoint(NamedTuple):
    """Gradients of a real scalar L, ``dL = Re sum conj(adj_X) dX``.

    ``S`` complex (nz, ny, nx); ``s_0`` real (nz, ny, nx), None where s_0 was not given (then ``S`` holds that path);
    ``incident`` complex (ny, nx); ``dq`` float64 (frames, 3), detuning and exit ramp both [m].
    """

    S: np.ndarray
    s_0: np.ndarray | None
    incident: np.ndarray
    dq: np.ndarray


class State(NamedTuple):
    """What the adjoint needs of a forward sweep: both exit fields, E_0 on its whole internal row.

    With ``resync=K`` also ``layers``, complex (stored, 2, frames, ny, nx): E_0 and G in the box behind the coupling of
    layers K - 1, 2 K - 1, ..., the last one left out; None where there are none.
    """

    E_h: np.ndarray
    E_0_row: np.ndarray
    layers: np.ndarray | None = None


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
    transport : "auto" | "shift" | "fourier"
        How E_0 moves along x: whole pixels, where dz tan(2 theta) / dx is whole within 1e-6, or a row FFT.
        Orientation "symmetric": both waves, dz tan(theta) / dx.
    dtype : "complex64" | "complex128"
    device : "cpu" | "cuda" | "cuda:N"
        Arrays are NumPy's or CuPy's accordingly, in and out. On CUDA work goes to CuPy's current stream and nothing
        waits for it, so values are not checked: NaN in gives NaN out. Raises RuntimeError without a device to use, or
        without cuFFT for what needs it: scheme etd2rk, and transport fourier in orientation symmetric or with rows that
        do not fit on chip.
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

    Attributes: the arguments, and ``shift`` (whole pixels per layer, 0 for fourier), ``row_length`` (places
    of an E_0 row inside, for a plane wave), ``exit_shape`` ((ny, columns) of E_h), ``exit_slice`` (the columns that are
    the crystal's, the last nx) and ``exit_reach`` (how many of the last columns straight paths from the box reach;
    beyond are only ripples of the interpolation). Source: Takagi-Taupin equations as in csrc/README.md, equations
    (1)-(6), (10); Wu et al., arXiv 2506.15939, Eq. 2 with the sign of the coupling put right.
    """

    def __init__(
        self,
        shape,
        voxel,
        wavelength,
        two_theta,
        chi_0,
        chi_h,
        chi_hbar=None,
        polarization_factor=1.0,
        scheme="strang",
        transport="auto",
        dtype="complex64",
        device="cpu",
        threads=None,
        orientation="k_h",
        resync=None,
    ):
        self.shape = checks.sizes("shape", shape, 3)
        self.voxel = checks.lengths("voxel", voxel, 3)
        self.wavelength = checks.number("wavelength", wavelength, above=0)
        self.two_theta = checks.number("two_theta", two_theta)
        self.orientation = checks.choice("orientation", orientation, tuple(ORIENTATIONS))
        if not 0 < self.two_theta < ORIENTATIONS[self.orientation]:
            wants, hint = "0 < two_theta < 178 deg", ""
            if self.orientation == "k_h":
                wants, hint = "0 < two_theta < pi/2", "; orientation='symmetric' goes up to 178 deg"
            raise ValueError(f"two_theta: expected an angle in rad, {wants}, got {two_theta!r}{hint}")
        self.chi_0 = checks.complex_number("chi_0", chi_0)
        if self.chi_0.imag < 0:
            raise ValueError(
                f"chi_0: expected Im chi_0 >= 0 (fields exp(+ik.r), where absorption has Im chi > 0), got {self.chi_0};"
                " for tables in the other convention pass the complex conjugates of chi_0, chi_h and chi_hbar"
            )
        self.chi_h = checks.complex_number("chi_h", chi_h)
        self.chi_hbar = self.chi_h if chi_hbar is None else checks.complex_number("chi_hbar", chi_hbar)
        self.polarization_factor = checks.number("polarization_factor", polarization_factor, at_least=-1, at_most=1)
        self.scheme = checks.choice("scheme", scheme, SCHEMES)
        self.dtype = checks.complex_dtype("dtype", dtype)
        index = engines.parse(device)
        self.device = device
        wanted = engines.available_threads() if threads is None else threads
        self.threads = checks.integer("threads", wanted, at_least=1)
        self.resync = None if resync is None else checks.integer("resync", resync, at_least=1)
        if self.resync is not None and self.scheme == "etd2rk":
            raise ValueError(f"resync: expected None with scheme 'etd2rk', which reverses nothing, got {self.resync}")
        self._real = np.dtype("float32" if self.dtype == np.complex64 else "float64")

        nz, _, nx = self.shape
        dz, _, dx = self.voxel
        symmetric = self.orientation == "symmetric"
        angle, tan = (self.two_theta / 2, "tan(two_theta / 2)") if symmetric else (self.two_theta, "tan(two_theta)")
        self.pixels_per_layer = dz * math.tan(angle) / dx
        if self.pixels_per_layer > MOST_PIXELS:
            raise ValueError(f"voxel: expected dz {tan} / dx <= {MOST_PIXELS} pixels, got {self.pixels_per_layer:g}")
        whole = round(self.pixels_per_layer)
        fits = whole >= 1 and abs(self.pixels_per_layer - whole) <= 1e-6
        checks.choice("transport", transport, TRANSPORTS)
        if self.scheme == "etd2rk":  # its phi functions are Fourier multipliers
            if symmetric:
                raise ValueError("scheme: expected 'strang' with orientation 'symmetric', got 'etd2rk'")
            if transport == "shift":
                raise ValueError("transport: expected 'fourier' or 'auto' with scheme 'etd2rk', got 'shift'")
            fits = False
        if transport == "shift" and not fits:
            raise ValueError(
                "transport: expected 'fourier' or 'auto', got 'shift', which needs a whole number >= 1 of pixels"
                f" dz {tan} / dx, here {self.pixels_per_layer:.8g}; dz = {dx / math.tan(angle):.8g} m would give 1"
            )
        self.transport = "shift" if fits and transport != "fourier" else "fourier"
        self.shift = whole if self.transport == "shift" else 0
        # Places of an E_0 row: the box, and everything that enters it or left it during the march. A Fourier row is
        # periodic: what left on the right must not come back before the last layer.
        self._travel = math.ceil(self.pixels_per_layer * (nz - 1) - 1e-9)
        self.row_length = self._row_length(plane_wave=True)
        self.exit_shape = (self.shape[1], self.row_length if symmetric else nx)
        self.exit_slice = slice(self.exit_shape[1] - nx, self.exit_shape[1])
        self.exit_reach = nx + self._travel if symmetric else nx

        k = 2 * math.pi / self.wavelength
        K_0 = k / (2 * math.cos(angle))
        K_h = K_0 if symmetric else k / 2
        C = self.polarization_factor
        self._plan = {
            "shape": self.shape,
            "voxel": self.voxel,
            "medium": (
                0.5j * dz * (K_0 + K_h) * self.chi_0,
                0.5j * dz * (K_0 - K_h) * self.chi_0,
                1j * dz * K_0 * C * self.chi_hbar,
                1j * dz * K_h * C * self.chi_h,
            ),
            "row_length": self.row_length,
            "exit_length": self.exit_shape[1],
            "tan_h": math.tan(angle) if symmetric else 0.0,
            "shift": self.shift,
            "etd2rk": self.scheme == "etd2rk",
            "resync": nz if self.resync is None else min(self.resync, nz),
            "pixels": self.pixels_per_layer,
            "threads": self.threads,
        }
        self._single = self.dtype == np.complex64
        self._weights = {}  # of the adjoint of `incident_row`, by length of the row, uploaded once
        self._engine = engines.Cpu() if index is None else engines.Cuda(index, self._plan, self._single)

    def _row_length(self, plane_wave):
        need = self.shape[2] + self._travel
        if self.shift:
            return need
        # Where E_h moves too its row is an output: one length for every incident field, and room for its ripples.
        return _core.fourier_row_length(need + (0 if plane_wave and self.orientation == "k_h" else JOIN))

    def __repr__(self):
        return (
            f"TakagiTaupin(shape={self.shape}, voxel={self.voxel}, two_theta={self.two_theta:.6g}, "
            f"orientation={self.orientation!r}, transport={self.transport!r}, dtype={self.dtype.name!r}, "
            f"threads={self.threads})"
        )

    @engines.on_device
    def forward(self, S, dq, s_0=None, incident=None, *, return_E_0=False, return_state=False):
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
            that saves `adjoint` its own forward sweep (E_h is part of it and then read-only).

        Returns
        -------
        E_h : complex (frames, *exit_shape), exit ramp exp(i (dq_x x + dq_y y)) included, exp(i dq_z z_out) left out.
            exit_shape is (ny, nx) unless the orientation is "symmetric".

        Raises TypeError (kind, dtype) or ValueError (shape, NaN) naming the argument.
        """
        S, dq, s_0 = self._inputs(S, dq, s_0)
        row = None if incident is None else self.incident_row(incident)
        _, ny, nx = self.shape
        plan = self._plan | {"row_length": self._row_length(incident is None), "frames": len(dq)}
        xp = self._engine.xp
        E_h = xp.empty((len(dq), *self.exit_shape), self.dtype)
        keep = return_E_0 or return_state
        E_0 = xp.empty((len(dq), ny, plan["row_length"]), self.dtype) if keep else None
        shape = self._layers_shape(len(dq)) if return_state else None
        layers = shape and xp.empty(shape, self.dtype)
        self._engine.forward(plan, dq, S, s_0, row, E_h, E_0, layers, self._single)
        extra = []
        if return_E_0:  # pixel x is at place x, for shift at the last layer; where E_h is wider, both begin left of it
            box = self.exit_slice if not self.shift else slice(0, nx)
            extra.append(xp.ascontiguousarray(E_0[:, :, box]))
        if return_state:
            self._engine.seal(E_h)  # the state shares it
            extra.append(State(E_h, E_0, layers))
        return (E_h, *extra) if extra else E_h

    @engines.on_device
    def adjoint(self, S, dq, adj_E_h, s_0=None, incident=None, *, state=None, support=None):
        """Gradient of a real scalar L through `forward`, by exact reversal of the sweep (stored fields: see `resync`).

        Parameters
        ----------
        S, dq, s_0, incident
            As given to `forward`.
        adj_E_h : complex (frames, *exit_shape)
            dL/dRe(E_h) + i dL/dIm(E_h).
        state : State, optional
            From ``forward(..., return_state=True)`` with the same arguments (only its shape can be checked: a state of
            other values gives a wrong gradient); without it the forward sweep is run again.
        support : bool (nz, ny, nx), optional
            Voxels whose gradient is wanted; elsewhere it is returned as 0 and vacuum is skipped. None: all voxels.

        Returns
        -------
        Adjoint
            S, s_0, incident, dq; see there. Derivation: csrc/README.md.

        Raises TypeError or ValueError naming the argument, RuntimeError where absorption has cost the reversal its
        digits.
        """
        S, dq, s_0 = self._inputs(S, dq, s_0)
        ny = self.shape[1]
        axes = "(frames, ny, nx)" if self.orientation == "k_h" else "(frames, *exit_shape)"
        adj_E_h = self._engine.array("adj_E_h", adj_E_h, (len(dq), *self.exit_shape), self.dtype, axes=axes)
        if support is not None:
            support = self._engine.array("support", support, self.shape, bool, axes="(nz, ny, nx)")
        if state is None:
            state = self.forward(S, dq, s_0, incident, return_state=True)[1]
        row_length = self._row_length(incident is None)
        if not isinstance(state, State):
            raise TypeError(f"state: expected the State of forward(..., return_state=True), got {type(state).__name__}")
        shapes = (len(dq), *self.exit_shape), (len(dq), ny, row_length), self._layers_shape(len(dq))
        for field, array, shape in zip(state._fields, state, shapes, strict=True):
            got = None if array is None else f"{array.dtype} of shape {array.shape}"
            wants = shape and f"{self.dtype} of shape {shape}"
            if got != wants or (wants and not array.flags.c_contiguous):
                raise ValueError(
                    f"state: expected that of forward with the same arguments, {field} {wants}, got {got}"
                    + ("" if got != wants else " in another memory order")
                )
        row = None if incident is None or self.scheme == "strang" else self.incident_row(incident)
        xp = self._engine.xp
        adj_S = xp.empty(self.shape, self.dtype)
        adj_s_0 = None if s_0 is None else xp.empty(self.shape, self._real)
        adj_row = xp.empty((ny, row_length), self.dtype)
        adj_dq = xp.empty((ny, len(dq), 3))
        drift = xp.zeros(ny) if self.scheme == "strang" else None
        arrays = (state.E_h, state.E_0_row, state.layers, adj_E_h, adj_S, adj_s_0, adj_row, adj_dq, drift, None, None)
        plan = self._plan | {"row_length": row_length, "frames": len(dq)}
        self._engine.adjoint(plan, dq, S, s_0, row, support, *arrays, self._single)
        if drift is not None:
            self._engine.check_drift(drift, LOST, adj_S)
        return Adjoint(adj_S, adj_s_0, self._incident_row_adj(adj_row), adj_dq.sum(axis=0))

    def _layers_shape(self, frames):
        stored = (self.shape[0] - 1) // self._plan["resync"]
        return (stored, 2, frames, *self.shape[1:]) if stored else None

    def _inputs(self, S, dq, s_0):
        S = self._engine.array("S", S, self.shape, self.dtype, axes="(nz, ny, nx)")
        dq = self._engine.array("dq", dq, (None, 3), np.float64, axes="(frames, 3)")
        if len(dq) == 0:
            raise ValueError("dq: expected at least one frame, got shape (0, 3)")
        if s_0 is not None:
            s_0 = self._engine.array("s_0", s_0, self.shape, self._real, axes="(nz, ny, nx)")
        return S, dq, s_0

    def _padding(self, row_length):
        """Weights of the left and the right edge value on the row's places outside the box, and those places."""
        nx = self.shape[2]
        count = row_length - nx
        first = slice(0, count), slice(count, None)
        if self.shift:
            return first[0], np.ones(count), np.zeros(count), first[1]
        # The places outside lie right of the box and, periodically, left of it: what flows in must be the left edge
        # value; a raised cosine joins the two edges without a jump that would ring.
        left = np.ones(count)
        join = max(count - self._travel - 1, 0)
        left[:join] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(join) + 1) / (join + 1))
        outside, box = first if self.orientation == "symmetric" else (slice(nx, None), slice(0, nx))
        return outside, left, 1 - left, box

    @engines.on_device
    def incident_row(self, incident):
        """The incident field on the sweep's E_0 row, complex (ny, row): edge values continued outside the box."""
        _, ny, nx = self.shape
        xp = self._engine.xp
        incident = self._engine.array("incident", incident, (ny, nx), self.dtype, axes="(ny, nx)")
        row = xp.empty((ny, self._row_length(plane_wave=False)), self.dtype)
        outside, left, right, box = self._padding(row.shape[1])
        left, right = xp.asarray(left), xp.asarray(right)
        row[:, box] = incident
        row[:, outside] = incident[:, :1] * left + incident[:, -1:] * right
        return row

    def _incident_row_adj(self, adj_row):
        # Reverse: row[:, box] = incident;  row[:, outside] = incident[:, 0] left + incident[:, -1] right
        outside, left, right, box = self._padding(adj_row.shape[1])
        if adj_row.shape[1] not in self._weights:
            upload = self._engine.upload
            self._weights[adj_row.shape[1]] = [upload(w.astype(self._real)) for w in (left, right)]
        left, right = self._weights[adj_row.shape[1]]
        adj_incident = adj_row[:, box].copy()
        adj_incident[:, 0] += (adj_row[:, outside] * left).sum(axis=1)
        adj_incident[:, -1] += (adj_row[:, outside] * right).sum(axis=1)
        return adj_incident

    def _reverse_drift(self, S, dq, s_0=None):
        """Relative L2 error of the entrance state that the adjoint's exact reversal recovers (plane wave in)."""
        S, dq, s_0 = self._inputs(S, dq, s_0)
        E_h, state = self.forward(S, dq, s_0, return_state=True)
        xp = self._engine.xp
        E_0, G = xp.empty_like(state.E_0_row), xp.empty_like(E_h)
        arrays = (E_h, state.E_0_row, state.layers, xp.zeros_like(E_h), xp.empty(self.shape, self.dtype))
        arrays += (None, None, None, None, E_0, G)
        self._engine.adjoint(self._plan | {"frames": len(dq)}, dq, S, s_0, None, None, *arrays, self._single)
        error = xp.sum(xp.abs(E_0.astype(complex) - 1) ** 2) + xp.sum(xp.abs(G.astype(complex)) ** 2)
        return float(np.sqrt(error / E_0.size))


def estimate_memory(op, n_frames):
    """Bytes a gradient with ``n_frames`` frames needs beside the inputs: exit fields, state, gradient, work space."""
    n_frames = checks.integer("n_frames", n_frames, at_least=1)
    nz, ny, nx = op.shape
    complex_bytes, real_bytes = op.dtype.itemsize, op._real.itemsize
    lanes, width = _core.cpu_lanes(op.dtype == np.complex64), op.exit_shape[1]
    fields = n_frames * ny * (2 * width + op.row_length) * complex_bytes  # E_h, adj_E_h, E_0
    fields += math.prod(op._layers_shape(n_frames) or (0,)) * complex_bytes
    gradient = nz * ny * nx * (complex_bytes + real_bytes) + ny * (op.row_length * complex_bytes + n_frames * 24)
    if isinstance(op._engine, engines.Cuda):
        plan = op._plan | {"frames": n_frames}
        return int(fields + gradient + op._engine.workspace(plan, op._single, adjoint=True))
    tables = (n_frames + lanes) * (nz + width) * complex_bytes
    pair = op.shift and op.orientation == "k_h" and lanes * real_bytes == 64 and n_frames > lanes
    rows = (4 if pair else 2) * (width + op.row_length) + (width + op.row_length / lanes if op.shift else 0)
    per_thread = nz * nx * (16 + 8) * real_bytes + lanes * rows * complex_bytes
    if op.scheme == "etd2rk":  # kept and repeated states, and a dozen rows
        states = 2 * math.ceil(math.sqrt(nz)) + 12
        per_thread += states * lanes * (nx + op.row_length) * complex_bytes
    return int(fields + gradient + tables + min(op.threads, ny) * per_thread)
