"""Rocking scans as datasets of CDTools, which has ptychography's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from cdtools.datasets import CDataset
from numpy.typing import ArrayLike

from ..base import checks
from ..experiment.geometry import Experiment
from ..io import Scan, read_scan, write_scan


class RockingDataset(CDataset):
    """A rocking scan: the inputs of frame i are (i,), its pattern the intensities.

    Parameters
    ----------
    patterns : (n_frames, rows, cols) intensities >= 0, an array or a tensor; float32 inside
    experiment : Experiment
        Wavelength and detector geometry of the dataset are its.
    mask : bool (rows, cols), True = good pixel, or None
    name : str
    further : of `cdtools.datasets.CDataset`

    Attributes
    ----------
    patterns : float32 (n_frames, rows, cols)
    experiment : Experiment

    Raises
    ------
    TypeError, ValueError
        Naming the argument.
    """

    def __init__(
        self,
        patterns: ArrayLike | torch.Tensor,
        experiment: Experiment,
        *,
        mask: ArrayLike | None = None,
        name: str = "",
        **further,
    ):
        if not isinstance(experiment, Experiment):
            raise TypeError(f"experiment: expected a pendel.Experiment, got {checks.describe(experiment)}")
        shape = experiment.n_frames, *experiment.detector_shape
        patterns = patterns.detach().cpu().numpy() if isinstance(patterns, torch.Tensor) else patterns
        patterns = checks.array("patterns", patterns, shape, np.float32, axes="(n_frames, rows, cols)", finite=False)
        mask = None if mask is None else _mask_of_all(mask, shape)
        good = patterns if mask is None else patterns[:, mask]
        if not (good >= 0).all():  # nor NaN
            raise ValueError("patterns: expected intensities >= 0 on good pixels, got negative ones or NaN")
        geometry = {"distance": experiment.distance, "basis": _basis(experiment), "corner": None}
        known = {"wavelength": experiment.wavelength, "detector_geometry": geometry, "sample_info": {"name": name}}
        super().__init__(**known | further, mask=mask)
        self.experiment, self.name = experiment, name
        self.patterns = torch.tensor(patterns)

    @classmethod
    def from_scan(cls, scan: Scan, experiment: Experiment | None = None, **further) -> RockingDataset:
        """The dataset of a measured `pendel.io.Scan`.

        Parameters
        ----------
        scan : pendel.io.Scan
        experiment : Experiment, or None: what the scan says (`Experiment.from_scan`)
        further : of `RockingDataset`

        Raises
        ------
        TypeError, ValueError
            Naming the argument, also where the scan does not say all of the geometry.
        """
        experiment = Experiment.from_scan(scan) if experiment is None else experiment
        return cls(scan.data, experiment, **dict[str, Any](mask=scan.mask, name=scan.name) | further)

    @classmethod
    def from_cxi(cls, cxi_file, experiment: Experiment | None = None) -> RockingDataset:
        """The dataset of a CXI file, a path or an open h5py.File, as `pendel.io.read_scan` reads it."""
        return cls.from_scan(read_scan(getattr(cxi_file, "filename", cxi_file)), experiment)

    def to_cxi(self, cxi_file: Path | str) -> None:
        """Write a CXI file, which `pendel.io.read_scan` and CDTools' readers take; an old scan is replaced.

        Raises as `pendel.io.write_scan`, TypeError also for anything but a path.
        """
        if not isinstance(cxi_file, str | Path):
            raise TypeError(f"cxi_file: expected a path, got {checks.describe(cxi_file)}")
        e = self.experiment
        write_scan(
            cxi_file,
            self.patterns.cpu().numpy(),
            distance=e.distance,
            pixel_size=e.pixel_size,
            wavelength=e.wavelength,
            mask=None if self.mask is None else self.mask.cpu().numpy(),
            rocking_angles=e.rocking_angles,
            rocking_axis=e.rocking_axis,
            arm=e.arm,
            centre=e.centre,
            name=self.name,
        )

    def __len__(self):
        return len(self.patterns)

    def _load(self, index):
        return (torch.arange(len(self.patterns), device=self.patterns.device)[index],), self.patterns[index]

    def to(self, *args, **kwargs):
        """Move patterns and mask, as `torch.Tensor.to`."""
        super().to(*args, **kwargs)
        self.patterns = self.patterns.to(*args, **kwargs)

    def inspect(self):
        """Show the rocking curve and the sum of all frames, on a logarithmic scale; returns the figure."""
        from matplotlib import pyplot

        patterns = self.patterns.cpu().numpy()
        if self.mask is not None:
            patterns = patterns * self.mask.cpu().numpy()
        figure, (curve, image) = pyplot.subplots(1, 2, figsize=(10, 4))
        curve.semilogy(np.degrees(self.experiment.rocking_angles), patterns.sum(axis=(1, 2)), ".-")
        curve.set(xlabel="rocking angle (deg)", ylabel="counts")
        shown = image.imshow(np.log10(1 + patterns.sum(axis=0)))
        image.set(xlabel="column", ylabel="row", title="log10(1 + sum of all frames)")
        figure.colorbar(shown, ax=image)
        return figure


def _mask_of_all(mask, shape):
    """bool (rows, cols), or ValueError where it is not the same for all frames: CDTools has one."""
    mask = checks.good_pixels("mask", mask.cpu().numpy() if isinstance(mask, torch.Tensor) else mask, shape)
    if mask.ndim == 3:
        if (mask != mask[:1]).any():
            raise ValueError(
                "mask: expected one (rows, cols) for all frames, as CDTools has it, got one that differs between "
                "them; mask.all(axis=0) leaves out what is bad in any"
            )
        mask = mask[0]
    return mask


def _basis(experiment):
    """(3, 2), columns: what a step of a row and of a column is, m; CDTools' point down and against x."""
    pitch = experiment.pixel_size
    return np.array([[0, -pitch], [-pitch, 0], [0, 0]])
