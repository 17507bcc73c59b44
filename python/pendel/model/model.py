"""From crystal function to detector frames, and from their misfit back to the gradient of the crystal function.

(1) E_h_p = TakagiTaupin(S, dq_j; C_p),   C_sigma = 1,  C_pi = |cos 2theta|         one solve per polarisation state
(2) D_j = Blur(flux_j sum_m w_m sum_p w_p |FarField(E_h_p(dq_j + shift_m))|^2)
    w_p intensity fractions; w_m, shift_m and a part of the blur: the beam's coherence (`pendel.experiment.coherence`),
    the other part of the blur: the detector's point spread (`pendel.model.blur`)
(3) loss of scale D + background against the data, amplitude or Poisson (`pendel.model.loss`, equations 1 and 4)

Adjoint of (2): adj_F_pm = 2 w_m w_p flux_j (Blur^T adj_D) F_pm. `pendel.model.passes` goes through the frames.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..base import checks, plausible
from ..base.arrays import host, is_finite
from ..experiment.agreement import warn_of_contradictions
from ..experiment.coherence import Coherence
from ..experiment.crystal import Crystal, polarization_fractions
from ..experiment.geometry import Experiment
from ..operator.cpu_engine import instruction_set
from ..operator.engine import Array
from ..operator.engines import on_device
from ..operator.far_field import FarField
from ..operator.fields import USUAL, refuse_overflow
from ..operator.takagi_taupin import TakagiTaupin
from . import loss
from .beam import Beam, checked_coherence, checked_point_spread
from .passes import GRADIENTS, NOTHING, Evaluation, Fit, Nuisance, Pass, is_number
from .pixels import Pixels, check_background, check_weights, refuse_bad_values
from .ranked import RankedPass
from .ranks import ranks_of
from .signature import signature_of_model
from .swept import AsItIs, Swept

__all__ = ["Evaluation", "Fit", "Model", "Nuisance"]


class Model:
    """Computed detector frames of a rocking scan, and the gradient of their misfit.

    Parameters
    ----------
    experiment : Experiment; its ``orientation`` is the operator's.
    crystal : Crystal.
    shape : (nz, ny, nx) voxels. The light of the whole box must leave it within the field of view.
    voxel : (dz, dy, dx) m; dy and dx gamma_h must be a whole fraction of ``experiment.field_of_view`` (relative 1e-6),
        as those of ``experiment.suggest_voxel()`` are. A UserWarning tells where detector pixels lie beyond their band.
    polarization : {"sigma": w, "pi": w}, intensity fractions >= 0 that sum to 1; None: ``experiment.polarization``.
        A state of weight 0 is skipped, each other one costs a solve.
    coupling : "dynamical", or "kinematic" (first order: no refraction, absorption or back-coupling; linear in S).
    scheme, transport, dtype, device, threads, resync : as in `TakagiTaupin`.
    ewald : "curved", every pixel on its Ewald sphere, and the crystal turning with the rocking angle
        (`pendel.model.swept`); "flat", the plane through k_h on which one Fourier transform of the exit field lies.
    sampling : "point", the value of a voxel is that of the crystal function at its centre, as the operator takes it;
        "mean", its mean over the voxel, so the volume fraction at a surface. The latter is ten times closer to a real
        crystal on voxels half as wide as the data's resolution, and no closer on such as wide.
    point_spread : rms width of the detector's point spread in pixels, one number or (row, col), Gaussian; light that it
        carries across the detector's edge is lost.
    coherence : `Coherence` of the beam, or None: full. Each of its settings costs a solve of every state.
    comm : mpi4py.MPI.Intracomm, whose ranks, all with this model, share the frames of every pass, or None: one process.
        Then all that the model is asked for is asked for by all ranks at once (`pendel.model.ranks`).

    Attributes
    ----------
    operators : ((weight, TakagiTaupin), ...)
    far_field : of the engine
    n_frames : int
    ranks : `pendel.model.ranks.Ranks` of comm, or ``ALONE``

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Notes
    -----
    With device "cuda" or "cuda:N" everything runs there: sweeps, far field, loss and their adjoints. Arrays are CuPy's,
    in and out, the numbers of an `Evaluation` too; NumPy arrays are TypeErrors that say how to convert, but for
    ``frames``, indices on the host. Nothing waits for the device, so values are not looked at: data that are negative
    or not finite on good pixels, and a crystal without any light to scale, give NaN instead of an error. Results do not
    depend on how frames are grouped but for rounding.

    A UserWarning tells where the crystal's lattice spacing, or the energy of its susceptibilities, is known and is not
    that of the experiment.
    """

    def __init__(
        self,
        experiment: Experiment,
        crystal: Crystal,
        shape: tuple[int, int, int],
        voxel: tuple[float, float, float],
        polarization: Mapping[str, float] | None = None,
        coupling: str = "dynamical",
        scheme: str = "strang",
        transport: str = "auto",
        dtype: DTypeLike = "complex64",
        device: str = "cpu",
        threads: int | None = None,
        resync: int | None = None,
        ewald: str = "curved",
        sampling: str = "point",
        point_spread: float | tuple[float, float] = 0.0,
        coherence: Coherence | None = None,
        *,
        comm: Any = None,
    ) -> None:
        for name, value, kind in (("experiment", experiment, Experiment), ("crystal", crystal, Crystal)):
            if not isinstance(value, kind):
                raise TypeError(f"{name}: expected {kind.__name__}, got {checks.describe(value)}")
        self.experiment, self.crystal = experiment, crystal
        warn_of_contradictions(experiment, crystal)
        self.shape = checks.sizes("shape", shape, 3)
        self.voxel = plausible.lengths(plausible.VOXEL, "voxel", voxel, 3)
        self.coupling = checks.choice("coupling", coupling, ("dynamical", "kinematic"))
        self.polarization = polarization_fractions(experiment.polarization if polarization is None else polarization)
        self.point_spread = checked_point_spread(point_spread)
        self.coherence = checked_coherence(coherence)
        numerics: dict[str, Any] = {"scheme": scheme, "transport": transport, "dtype": dtype, "device": device}
        self.comm, self.ranks = comm, ranks_of(comm, device)
        numerics |= {"threads": self.ranks.threads(threads), "resync": resync}
        self.operators = tuple(
            (weight, self._operator(state, numerics)) for state, weight in self.polarization.items() if weight > 0
        )
        op = self.operators[0][1]
        self.device, self.engine, self.resync = op.device, op.engine, op.resync
        self.dtype, self.real_dtype = np.dtype(op.dtype), op.real_dtype
        self.transport, self.scheme, self.threads = op.transport, scheme, op.threads
        self.n_frames = experiment.n_frames
        seen = self._make_far_field(op)
        beam = Beam(self.operators, experiment, self.shape[0] * self.voxel[0], self.point_spread, coherence)
        self.ewald = checks.choice("ewald", ewald, ("curved", "flat"))
        self.sampling = checks.choice("sampling", sampling, ("mean", "point"))
        parts = op, self.far_field, seen, self.threads, beam, self._swept()
        self.passes = Pass(*parts) if comm is None else RankedPass(self.ranks, *parts)
        self.dq = experiment.dq if self.engine.reads_values else self.engine.upload(experiment.dq)
        self.ranks.refuse_different({"dtype": self.dtype.name} | instruction_set() | signature_of_model(self))

    def _swept(self):
        """What the sweep takes for the crystal."""
        given = {"curved": self.ewald == "curved", "means": self.sampling == "mean"}
        if not any(given.values()):
            return AsItIs()
        refracts = self.coupling == "dynamical"
        return Swept(self.experiment, self.shape, self.voxel, self.operators[0][1], refracts=refracts, **given)

    def _operator(self, state, numerics):
        """The operator of a state of polarisation."""
        experiment, crystal, kinematic = self.experiment, self.crystal, self.coupling == "kinematic"
        return TakagiTaupin(
            self.shape,
            self.voxel,
            experiment.wavelength,
            experiment.two_theta,
            chi_0=0.0 if kinematic else crystal.chi_0,
            chi_h=crystal.chi_h,
            chi_hbar=0.0 if kinematic else crystal.chi_hbar,
            polarization_factor=1.0 if state == "sigma" else abs(math.cos(experiment.two_theta)),
            orientation=experiment.orientation,
            **numerics,
        )

    def _make_far_field(self, op):
        """Set ``far_field``; the columns of E_h that go to it."""
        experiment, far_shape, columns = self.experiment, self._far_shape(), op.exit_shape[1]
        seen = slice(0, columns)
        if op.orientation == "symmetric":
            if op.exit_reach > far_shape[1]:
                raise ValueError(
                    f"shape: expected a box whose light leaves within the field of view of {far_shape[1]} columns, got "
                    f"{self.shape}, which needs nx + (nz - 1) dz tan(theta) / dx = {op.exit_reach}"
                )
            seen = slice(max(columns - far_shape[1], 0), columns)
        self.far_field = FarField(
            (self.shape[1], columns - seen.start),
            far_shape,
            experiment.detector_shape,
            experiment.roll,
            experiment.flip_rows,
            experiment.centre_offset,
            self.dtype,
            self.threads,
            self.engine,
        )
        return seen

    def _far_shape(self):
        sizes, views = [], (self.experiment.field_of_view, self.experiment.field_of_view / self.experiment.gamma_h)
        for name, step, view in zip(("dy", "dx"), self.voxel[1:], views, strict=True):
            size = round(view / step)
            if size < 1 or abs(size * step / view - 1) > 1e-6:
                wanted = view / max(size, 1)
                raise ValueError(
                    f"voxel ({name}): expected a whole fraction of the field of view {view:.8g} m, such as "
                    f"{wanted:.8g} m (see Experiment.suggest_voxel), got {step:.8g} m"
                )
            sizes.append(size)
        q = np.abs(self.experiment.detector_q()).max(axis=(0, 1))
        for name, step, top in zip(("dx", "dy"), self.voxel[:0:-1], q, strict=True):
            if top > 0.5 / step * (1 + 1e-6):
                warnings.warn(
                    f"voxel ({name}): expected at most {0.5 / top:.6g} m for the turned detector to lie in the band of "
                    f"the model, got {step:.6g} m; mask the corner pixels beyond it or take suggest_voxel()",
                    stacklevel=3,
                )
        return tuple(sizes)

    @on_device
    def intensities(
        self,
        S: Array,
        frames: Any = None,
        s_0: Array | None = None,
        *,
        dq: Array | None = None,
        flux: Array | None = None,
        point_spread: float | tuple[float, float] | None = None,
        coherence: Coherence | None = None,
    ) -> Array:
        """Computed intensities D (L, rows, cols), float32 or float64, equation (2), at flux 1 sum D <= sum |E_h|^2.

        Parameters
        ----------
        S : complex (nz, ny, nx)
        frames : indices of the L frames, or None for all
        s_0 : real (nz, ny, nx), or None for |S|
        dq, flux : as in `evaluate`
        point_spread, coherence : to replace the model's

        Returns
        -------
        (L, rows, cols) float32 or float64
        """
        frames = checks.frame_indices(frames, self.n_frames)
        S, s_0, _ = self.checked_crystal(S, s_0)
        if point_spread is not None:
            point_spread = checked_point_spread(point_spread)
        dq, flux, beam = self.checked_dq(dq), self.checked_flux(flux), (point_spread, checked_coherence(coherence))
        D = self.passes.intensities(S, frames, s_0, dq, flux, *beam)
        if self.engine.reads_values and not is_finite(D):
            refuse_overflow(D.dtype, S=S, s_0=s_0, dq=dq, flux=flux)
        return D

    @on_device
    def intensities_on_host(
        self,
        S: np.ndarray,
        frames: Any = None,
        s_0: np.ndarray | None = None,
        *,
        dq: np.ndarray | None = None,
        flux: np.ndarray | None = None,
        point_spread: float | tuple[float, float] | None = None,
        coherence: Coherence | None = None,
    ) -> np.ndarray:
        """`intensities` of NumPy arrays as a NumPy array, wherever the model works."""
        given = {"S": S, "s_0": s_0, "dq": dq, "flux": flux}
        S, s_0, dq, flux = (self.engine.upload(value, name) for name, value in given.items())
        beam: dict[str, Any] = {"point_spread": point_spread, "coherence": coherence}
        return host(self.intensities(S, frames, s_0, dq=dq, flux=flux, **beam))

    @on_device
    def fit(
        self,
        data: Array,
        mask: Array | None = None,
        *,
        likelihood: str = "amplitude",
        background: float | Array = 0.0,
        free: Array | None = None,
        frames: Any = None,
        weights: Array | None = None,
    ) -> Fit:
        """The `Fit` of measured data, which `evaluate` takes: checked, and turned into amplitudes, once.

        Parameters
        ----------
        data : (n_frames, rows, cols)
            Of ALL frames, any real dtype, intensities >= 0 on good pixels.
        mask : bool (n_frames, rows, cols) or (rows, cols), or None
            True = good pixel; bad ones may hold anything. None: all are good. Not copied.
        likelihood : str
            "amplitude" or "poisson", see `pendel.model.loss`.
        background : float or array
            Counts per pixel beside the crystal's, >= 0: a number, (n_frames,), (rows, cols) or (n_frames, rows, cols).
        free : bool, shape as mask, or None
            Pixels held out, which the loss, its gradient and the scale do not see.
        frames : indices, or None for all
            Those that will be asked for; the others are not read.
        weights : real (n_frames, rows, cols) or (rows, cols), in (0, 1], or None
            What each pixel's term in the loss counts, see `pendel.model.pixels.error_weights`; None: 1.

        Returns
        -------
        Fit

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        """
        shape, take = (self.n_frames, *self.experiment.detector_shape), self.engine.take
        background = check_background("background", background, shape, take)
        weights = check_weights("weights", weights, shape, take)
        data = loss.check_data("data", data, shape, take)
        mask, free = loss.check_mask("mask", mask, shape, take), loss.check_mask("free", free, shape, take)
        if frames is not None:
            frames = checks.frame_indices(frames, self.n_frames)
        return self.fit_of(data, mask, loss.Likelihood(likelihood, background), free, frames, weights)

    def fit_of(
        self,
        data: Array,
        mask: Array | None,
        likelihood: loss.Likelihood,
        free: Array | None = None,
        frames: np.ndarray | None = None,
        weights: Array | None = None,
    ) -> Fit:
        """`fit` of checked arrays where the model works and a `Likelihood`; their values are looked at here."""
        pixels = Pixels.measured(data, mask, self.real_dtype, free, frames)
        if loss.has_axes(likelihood.background):
            background = likelihood.background.astype(self.real_dtype, copy=False)
            likelihood = loss.Likelihood(likelihood.name, background)
        weights = None if weights is None else weights.astype(self.real_dtype, copy=False)
        of_all = {"data": data, "mask": mask, "free": free, "weights": weights, "background": likelihood.background}
        self.ranks.refuse_different(of_all | {"likelihood": likelihood.name})
        if self.engine.reads_values:
            loss.refuse_bad_data("data", pixels.root)
            refuse_bad_values(likelihood.background, weights)
        return Fit(self, data, pixels, likelihood, weights)

    def loss_and_adjoint(
        self,
        S: Array,
        data: Array,
        mask: Array | None = None,
        frames: Any = None,
        scale: float | None = 1.0,
        s_0: Array | None = None,
        support: Array | None = None,
    ) -> tuple[float, Array]:
        """(loss, adj_S), equation (3): float and complex (nz, ny, nx), dL = Re sum conj(adj_S) dS.

        Parameters
        ----------
        S : as in `evaluate`
        data, mask : as in `fit`
        frames, scale, s_0, support : as in `evaluate`

        Returns
        -------
        loss : float
        adj_S : (nz, ny, nx) complex
        """
        result = self.evaluate(S, self.fit(data, mask, frames=frames), frames, scale, s_0, support)
        return result.loss, result.adj_S

    @on_device
    def evaluate(
        self,
        S: Array,
        fit: Fit,
        frames: Any = None,
        scale: float | None = 1.0,
        s_0: Array | None = None,
        support: Array | None = None,
        *,
        dq: Array | None = None,
        flux: Array | None = None,
        nuisance: Nuisance = NOTHING,
    ) -> Evaluation:
        """All that one pass gives, an `Evaluation`.

        Parameters
        ----------
        S : complex (nz, ny, nx)
        fit : `Fit` of this model, see `fit`
        frames : indices of the L frames to use, or None for all
        scale : number >= 0 that multiplies the computed intensities; None: the best one for these frames
        s_0 : real (nz, ny, nx), or None: |S|, whose path is in adj_S
        support : bool (nz, ny, nx), the gradient is 0 outside; None: everywhere
        dq : (n_frames, 3) rad/m, to replace those of the experiment
        flux : (n_frames,) relative incident intensity that multiplies D of each frame; None: 1
        nuisance : `Nuisance`: more background, another point spread and coherence, and the gradients of these and of
            flux

        Returns
        -------
        Evaluation

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        """
        frames = checks.frame_indices(frames, self.n_frames)
        if not isinstance(fit, Fit) or fit.model is not self:
            raise TypeError(f"fit: expected a Fit, made by fit(data, mask) of this model, got {checks.describe(fit)}")
        there = fit.pixels.frames
        if there is not None and not np.isin(frames, there).all():
            raise ValueError(f"frames: expected some of {there.tolist()[:8]}, which fit has, got {frames.tolist()[:8]}")
        S, s_0, support = self.checked_crystal(S, s_0, support)
        if is_number(scale):
            scale = checks.number("scale", scale, at_least=0)
        scan = {"dq": self.checked_dq(dq), "flux": self.checked_flux(flux), "nuisance": self._nuisance(nuisance)}
        given = {"S": S, "s_0": s_0, "data": fit.data, "scale": scale, "dq": scan["dq"], "flux": scan["flux"]}
        try:
            result = self.passes.evaluate(S, fit, frames, scale, s_0=s_0, support=support, **scan)
        except RuntimeError:
            if self.engine.reads_values and np.abs(S).max() > USUAL["S"]:  # and no absorption
                refuse_overflow(self.dtype, **given)
            raise
        if self.engine.reads_values and _overflowed(result, fit):
            refuse_overflow(self.dtype, **given | {"scale": result.scale})
        return result

    @on_device
    def misfit(
        self, S: Array, data: Array, mask: Array | None = None, frames: Any = None, s_0: Array | None = None
    ) -> float:
        """sum (sqrt(scale D) - sqrt I)^2 / sum I at the best scale.

        Parameters
        ----------
        S, data, mask, frames, s_0 : as in `loss_and_adjoint`

        Returns
        -------
        float
        """
        fit, frames = self.fit(data, mask, frames=frames), checks.frame_indices(frames, self.n_frames)
        S, s_0, _ = self.checked_crystal(S, s_0)
        result = self.passes.evaluate(S, fit, frames, None, dq=self.dq, s_0=s_0, gradient=False)
        ratio = loss.misfit_ratio(float(result.misfit_numerator), float(result.misfit_denominator))
        if self.engine.reads_values and not math.isfinite(ratio):
            refuse_overflow(self.dtype, S=S, s_0=s_0, data=fit.data, scale=result.scale)
        return ratio

    def checked_crystal(
        self, S: Array, s_0: Array | None, support: Array | None = None
    ) -> tuple[Array, Array | None, Array | None]:
        """S, s_0 and support, checked."""
        array, axes = self.engine.array, "(nz, ny, nx)"
        S = array("S", S, self.shape, self.dtype, axes=axes)
        if s_0 is not None:
            s_0 = array("s_0", s_0, self.shape, self.real_dtype, axes=axes)
        if support is not None:
            support = array("support", support, self.shape, bool, axes=axes)
        return S, s_0, support

    def checked_dq(self, dq: Array | None) -> Array:
        """Offsets of all frames, checked."""
        if dq is None:
            return self.dq
        return self.engine.array("dq", dq, (self.n_frames, 3), np.float64, axes="(n_frames, 3)")

    def checked_flux(self, flux: Array | None) -> Array | None:
        """Relative incident intensities of all frames, checked. Raises TypeError or ValueError naming ``flux``."""
        if flux is None:
            return None
        flux = self.engine.array("flux", flux, (self.n_frames,), self.real_dtype, axes="(n_frames,)")
        if self.engine.reads_values and not flux.min() > 0:
            raise ValueError(f"flux: expected relative intensities > 0, got {flux.min():g}")
        return flux

    def _nuisance(self, nuisance):
        """A `Nuisance`, checked."""
        background, point_spread, gradients, coherence = nuisance
        if background is not None:
            axes = "(n_frames,)"
            background = self.engine.array("background", background, (self.n_frames,), self.real_dtype, axes=axes)
            if self.engine.reads_values and not background.min() >= 0:
                raise ValueError(f"background: expected counts >= 0, got {background.min():g}")
        if point_spread is not None:
            point_spread = checked_point_spread(point_spread)
        for name in gradients:
            checks.choice("gradients", name, GRADIENTS)
        return Nuisance(background, point_spread, tuple(gradients), checked_coherence(coherence))

    def __repr__(self):
        return (
            f"Model(shape={self.shape}, frames={self.n_frames}, detector_shape={self.experiment.detector_shape}, "
            f"polarization={self.polarization}, coupling={self.coupling!r}, transport={self.transport!r}, "
            f"dtype={self.dtype.name!r}" + (")" if self.device == "cpu" else f", device={self.device!r})")
        )


def _overflowed(result, fit):
    """Whether an `Evaluation` is not finite; Poisson's loss alone is infinite for what no model explains."""
    explained = math.isfinite(result.loss) or fit.likelihood.name == "poisson" and not math.isnan(result.loss)
    return not (explained and is_finite(result.adj_S))
