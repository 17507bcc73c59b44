"""What a reconstruction gives, and the fields that follow from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..analysis.statistics import extent, strain_statistics
from ..base import checks
from ..base.arrays import host
from ..base.symmetry import strain as strain_along_h
from ..experiment.coherence import Coherence
from ..model.loss import check_data, check_mask, has_axes
from ..model.model import Model
from ..operator.engine import Array
from .corrections import Corrections
from .stored import save_result

SAME_VOXEL = 1e-6  # relative, as of results that are compared
FREE_HISTORY = ("free_misfit", "free_loss")


@dataclass(repr=False)
class Result:
    """What a reconstruction gives; all arrays are NumPy's, wherever the model worked.

    Attributes
    ----------
    S : complex (nz, ny, nx) crystal function.
    support : bool (nz, ny, nx).
    scale : measured over computed intensity.
    misfit : sum (sqrt(scale D) - sqrt I)^2 / sum I over all frames at the end, held-out pixels left out.
    history : dict of float arrays (epochs,): loss, misfit, learning_rate (not of `lbfgs`), scale, support (voxels);
        with held-out pixels also free_misfit and free_loss, the mean loss term of such a pixel.
    voxel : (dz, dy, dx) m.
    h : (x, y, z) rad/m, model frame.
    epochs : epochs done.
    seed : int.
    s_0 : real (nz, ny, nx) density, or None: |S|.
    angle_offsets : float64 (n_frames,), refined rocking angles less those of the experiment, rad, or None.
    flux : (n_frames,) known or refined relative incident intensity, or None.
    background : counts per pixel that the fit was given, a number or an array as in `Model.fit`.
    background_level : float64 (n_frames,), refined counts per pixel beside these, or None.
    point_spread : (row, col), refined rms widths in pixels, or None: the model's.
    coherence : `Coherence`, refined, or None: the model's.
    free_misfit, free_loss : as in history, at the end; None where no pixels were held out.
    model : the `Model` that `solve` chose, or None: the one that was given.
    trust : `Trust`, how far `solve` trusts it, or None.
    """

    S: np.ndarray
    support: np.ndarray
    scale: float
    misfit: float
    history: dict
    voxel: tuple
    h: np.ndarray
    epochs: int
    seed: int
    s_0: np.ndarray | None = None
    angle_offsets: np.ndarray | None = None
    flux: np.ndarray | None = None
    background: float | np.ndarray = 0.0
    free_misfit: float | None = None
    free_loss: float | None = None
    background_level: np.ndarray | None = None
    point_spread: tuple[float, float] | None = None
    coherence: Coherence | None = None
    model: Model | None = None
    trust: object | None = None

    def save(
        self,
        path: Path | str,
        model: Model | None = None,
        data: Array | None = None,
        mask: Array | None = None,
        *,
        name: str = "",
        force: bool = False,
    ) -> None:
        """Write a CXI file with S, displacement, strain and how they were found; `pendel.io.read_result` reads it.

        Parameters
        ----------
        path : file to write; an old result is replaced
        model : Model, that of the fit; None: the one that `solve` chose
        data, mask : as given to the fit, for the rocking curves and the brightest frame in the file, or None
        name : title of the file
        force : whether a file of another kind is replaced

        Raises
        ------
        TypeError, ValueError
            Naming the argument: without a model, with one of other voxels than the result's, with frames of another
            scan.
        FileExistsError
            Where ``path`` is a file of another kind.
        """
        model = self._checked_model(model)
        frames = model.n_frames, *model.experiment.detector_shape
        data = None if data is None else check_data("data", host(data, "data"), frames)
        mask = check_mask("mask", host(mask, "mask"), frames)
        save_result(path, model, data, mask, self, name=name, force=force)

    def _checked_model(self, model):
        """The `Model` that is given, or the result's own."""
        if model is None and self.model is None:
            raise ValueError("model: expected the Model of the fit, got None, and the result knows none")
        if model is None:
            return self.model
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a Model, got {checks.describe(model)}")
        if model.shape != self.S.shape or not np.allclose(model.voxel, self.voxel, rtol=SAME_VOXEL, atol=0):
            ours, its = (self.S.shape, self.voxel), (model.shape, model.voxel)
            raise ValueError(f"model: expected that of the result, shape and voxel {ours}, got {its}")
        return model

    def __repr__(self):
        inside = int(np.count_nonzero(self.support))
        voxel = " x ".join(f"{1e9 * step:.4g}" for step in self.voxel)
        sizes = " x ".join(f"{1e9 * size:.4g}" for size in extent(self.S, self.voxel))
        lines = [
            f"Result: S {self.S.shape} {self.S.dtype}, voxel {voxel} nm (z, y, x)",
            f"  crystal: {inside} voxels in the support, {sizes} nm",
            f"  strain: rms {strain_statistics(self.S, self.strain).rms:.2e} where |S| > 1/2",
            f"  misfit: {self.misfit:.3e} after {self.epochs} epochs or iterations, seed {self.seed}",
            f"  trust: {self.trust or 'not judged'}",
        ]
        return "\n".join(lines)

    @property
    def corrections(self) -> Corrections:
        """What was refined beside S, as `Corrections`."""
        return Corrections(self.angle_offsets, self.flux, self.background_level, self.point_spread, self.coherence)

    @property
    def crystal(self) -> tuple[np.ndarray, np.ndarray]:
        """(S, support)."""
        return self.S, self.support

    @property
    def loss(self) -> np.ndarray:
        """Loss of every epoch, float (epochs,)."""
        return self.history["loss"]

    @property
    def amplitude(self) -> np.ndarray:
        """|S|, float (nz, ny, nx)."""
        return np.abs(self.S)

    @property
    def phase(self) -> np.ndarray:
        """arg S = -h.u in rad, modulo 2 pi, float (nz, ny, nx), about its mean over the support; 0 outside."""
        mean = self.S[self.support].sum()
        phase = np.angle(self.S * np.conj(mean / abs(mean)) if mean != 0 else self.S)
        return np.where(self.support, phase, 0)

    @property
    def displacement(self) -> np.ndarray:
        """u.h^ = -phase / |h| in m, float (nz, ny, nx), about its mean; 0 outside the support.

        Modulo the lattice spacing `spacing`, as the phase is modulo 2 pi: displacements of more than half of it either
        way come out wrapped. The strain is not concerned.
        """
        return -self.phase / np.linalg.norm(self.h)

    @property
    def spacing(self) -> float:
        """2 pi/|h| in m, the lattice spacing along h: what the displacement is known modulo."""
        return 2 * np.pi / float(np.linalg.norm(self.h))

    @property
    def strain(self) -> np.ndarray:
        """d(u.h^)/d(h^), float (nz, ny, nx), 0 outside the support.

        By central differences, one-sided ones at the surface; NaN for voxels of the support that have no neighbour in
        it along some axis, whose strain is not known.
        """
        found, known = strain_along_h(np.where(self.support, self.S, 0), self.voxel, self.h, one_sided=True)
        return np.where(self.support & ~known, np.nan, found)


def finish(objective, S, support, history, epochs, seed, s_0=None, *corrections):
    """The `Result` at S, from one more evaluation of all frames by an `Objective`; arrays are NumPy's.

    corrections : the fields of `Corrections`, as many as there are.
    """
    model, monitor = objective.model, host(objective.monitor)
    corrections = Corrections(*corrections)
    final = objective.measure(S, support, s_0, *corrections)
    if monitor is not None:
        corrections = corrections._replace(flux=monitor if corrections.flux is None else monitor * corrections.flux)
    free = dict(zip(FREE_HISTORY, free_numbers(final.free), strict=True)) if final.free is not None else {}
    return Result(
        S=S,
        support=support,
        scale=final.scale,
        misfit=final.misfit_numerator / final.misfit_denominator,
        history={name: np.array(values) for name, values in history.items()},
        voxel=model.voxel,
        h=model.experiment.frame @ model.experiment.h,
        epochs=epochs,
        seed=seed,
        s_0=support.astype(S.real.dtype) if objective.density == "support" else s_0,
        background=host_background(objective.fit),
        **corrections._asdict(),
        **free,
    )


def host_background(fit):
    """The background of a `Fit`, a number or a NumPy array."""
    background = fit.likelihood.background
    return host(background) if has_axes(background) else background


def free_numbers(sums):
    """(free_misfit, free_loss) of `Evaluation.free` sums."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else np.nan, float(sums[2] / sums[3])
