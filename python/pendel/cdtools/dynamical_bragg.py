"""A `pendel.Model` as a model of CDTools."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from cdtools.models import CDIModel
from cdtools.tools import losses, plotting
from numpy.typing import ArrayLike

from ..base import checks
from ..experiment.crystal import Crystal
from ..model.model import Model
from ..torch import Frames
from ..torch.tensors import TORCH
from .dataset import RockingDataset

LOSSES = {
    "amplitude mse": (functools.partial(losses.amplitude_mse, use_sum=True), losses.AmplitudeMSENormalizer),
    "poisson nll": (losses.poisson_nll, losses.SimplePoissonNLLNormalizer),
    "intensity mse": (functools.partial(losses.intensity_mse, use_sum=True), losses.IntensityMSENormalizer),
}
FLAT = 0.8  # amplitude to begin with
FLOOR = 1e-7  # counts, as CDTools' models add them: sqrt and log have a derivative there


class DynamicalBragg(CDIModel):
    """The crystal function of a rocking scan, with pendel's sweep, far field and curved Ewald sphere.

    `interaction` gives the crystal in its support, `forward_propagator` the frames of it: sweep, far field and the sum
    over polarisations are one operator of `pendel.torch.Frames`. Give ``calculation_width=batch_size`` to CDTools'
    loops: a sweep of many frames costs less than several of few.

    Parameters
    ----------
    model : pendel.Model
    obj_guess : complex (nz, ny, nx), to begin with
    support : bool (nz, ny, nx), or None: the whole box
    scale : measured over computed intensity, > 0
    mask : bool (rows, cols), True = good pixel, or None
    fit_scale : whether the scale, its logarithm, is a parameter of the fit
    loss : "amplitude mse", "poisson nll" or "intensity mse", of CDTools
    further : of `cdtools.models.CDIModel`

    Attributes
    ----------
    obj : parameter, complex (nz, ny, nx)
    support : bool (nz, ny, nx)
    log_scale : parameter

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """

    def __init__(
        self,
        model: Model,
        obj_guess: ArrayLike,
        support: ArrayLike | None = None,
        scale: float = 1.0,
        mask: ArrayLike | None = None,
        *,
        fit_scale: bool = False,
        loss: str = "amplitude mse",
        **further: Any,
    ):
        super().__init__(**further)
        self.frames = Frames(model)  # TypeError for another model
        axes = "(nz, ny, nx)"
        obj = checks.array("obj_guess", obj_guess, model.shape, model.dtype, axes=axes)
        inside = np.ones(model.shape, bool) if support is None else support
        inside = checks.array("support", inside, model.shape, bool, axes=axes)
        if mask is not None:
            mask = mask.cpu().numpy() if isinstance(mask, torch.Tensor) else mask
            mask = torch.tensor(checks.array("mask", mask, model.experiment.detector_shape, bool, axes="(rows, cols)"))
        scale = math.log(checks.number("scale", scale, above=0))
        self.obj = torch.nn.Parameter(torch.tensor(obj))
        self.log_scale = torch.nn.Parameter(
            torch.tensor(scale, dtype=TORCH[model.real_dtype]), requires_grad=checks.flag("fit_scale", fit_scale)
        )
        self.register_buffer("support", torch.tensor(inside))
        self.register_buffer("mask", mask)
        self.loss, normalizer = LOSSES[checks.choice("loss", loss, tuple(LOSSES))]
        self.loss_normalizer = normalizer()

    @classmethod
    def from_dataset(
        cls,
        dataset: RockingDataset,
        crystal: Crystal,
        shape: tuple[int, int, int],
        voxel: tuple[float, float, float] | None = None,
        *,
        obj_guess: ArrayLike | None = None,
        support: ArrayLike | None = None,
        model_options: dict[str, Any] | None = None,
        **further: Any,
    ) -> DynamicalBragg:
        """The model of a dataset, with the scale that brings its first frames closest to those measured.

        Parameters
        ----------
        dataset : RockingDataset
        crystal : pendel.Crystal
        shape : (nz, ny, nx)
        voxel : (dz, dy, dx), m; None: ``experiment.suggest_voxel()``
        obj_guess : complex (nz, ny, nx), or None: flat, 0.8 in the support
        support : bool (nz, ny, nx), or None: where ``obj_guess`` is not 0, else the whole box
        model_options : further arguments of `pendel.Model`
        further : of `DynamicalBragg`

        Raises
        ------
        TypeError, ValueError
            Naming the argument.
        """
        experiment = dataset.experiment
        voxel = experiment.suggest_voxel() if voxel is None else voxel
        model = Model(experiment, crystal, shape, voxel, **(model_options or {}))
        if support is None:
            support = np.ones(model.shape, bool) if obj_guess is None else np.asarray(obj_guess) != 0
        if obj_guess is None:
            obj_guess = np.where(support, FLAT, 0).astype(model.dtype)
        made = cls(model, obj_guess, support, mask=dataset.mask, **further)
        if "scale" not in further:
            made.scale_to(dataset)
        return made

    def scale_to(self, dataset: RockingDataset) -> None:
        """Take the scale that brings the crystal's amplitudes closest to those measured, on good pixels.

        Raises
        ------
        ValueError
            Where either has no light.
        """
        with torch.no_grad():
            D = self.forward_propagator(self.interaction(torch.arange(len(dataset))))
            roots = (self.log_scale.exp() * D).sqrt()
            good = torch.ones_like(dataset.patterns[0], dtype=torch.bool) if self.mask is None else self.mask
            roots, measured = roots[:, good], dataset.patterns[:, good].to(roots).sqrt()
            ratio = float((roots * measured).sum() / (roots * roots).sum())
            if not 0 < ratio < math.inf:
                raise ValueError(f"scale: expected light in the dataset and of the crystal, got a ratio of {ratio}")
            self.log_scale += 2 * math.log(ratio)

    def interaction(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the crystal in its support, indices of the frames)."""
        return self.support * self.obj, index

    def forward_propagator(self, crystal_and_index: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Computed intensities (L, rows, cols) of `interaction`'s frames."""
        S, index = crystal_and_index
        return self.frames(S, index.cpu())

    def measurement(self, D: torch.Tensor) -> torch.Tensor:
        """Counts for computed intensities."""
        return self.log_scale.exp() * D + FLOOR

    def simulate_to_dataset(self, args_list=None) -> RockingDataset:
        """The dataset that the crystal as it is would give, without noise.

        Parameters
        ----------
        args_list : (indices of the frames,), or None: all
        """
        experiment = self.frames.model.experiment
        index = torch.arange(experiment.n_frames) if args_list is None else torch.as_tensor(args_list[0])
        with torch.no_grad():
            patterns = self.forward(index)
        if args_list is not None:
            frame = np.interp(experiment.centre[0], index.numpy(), np.arange(len(index)))
            experiment = experiment.with_angles(experiment.rocking_angles[index.numpy()], float(frame))
        return RockingDataset(patterns, experiment, mask=self.mask)

    @classmethod
    def from_results_dict(cls, results_dict: dict, model: Model, **further: Any) -> DynamicalBragg:
        """The fit of `save_results`, or with `from_results_h5` of `save_to_h5`.

        Parameters
        ----------
        results_dict : what `save_results` gives
        model : pendel.Model
            Of that fit; a file of CDTools does not hold it.
        further : of `DynamicalBragg`
        """
        state = results_dict["state_dict"]
        loss = str(results_dict.get("loss_function", "amplitude mse")).replace("_", " ")
        made = cls(model, state["obj"], state["support"] != 0, mask=state.get("mask"), **{"loss": loss} | further)
        made.take_results(results_dict)
        return made

    def take_results(self, results_dict: dict) -> None:
        """Parameters and history of `save_results`, of a fit with the same model."""
        self._load_results_dict(results_dict)

    def crystal(self) -> np.ndarray:
        """The crystal function as it is, complex (nz, ny, nx), for `pendel.polish` or `pendel.io.write_result`."""
        return (self.support * self.obj).detach().cpu().numpy()

    def _plane(self, axis):
        """The middle plane across an axis."""
        return (self.support * self.obj).detach().movedim(axis, 0)[self.obj.shape[axis] // 2].cpu()

    plot_list = [
        {"title": f"Crystal, {name}, middle plane of {axis}", "plot_func": functools.partial(show, number=number)}
        for number, axis in enumerate("zyx")
        for name, show in (
            ("amplitude", lambda self, fig, number: plotting.plot_amplitude(self._plane(number), fig)),
            ("phase", lambda self, fig, number: plotting.plot_phase(self._plane(number), fig)),
        )
    ]
