"""What the beamline knew badly, as numbers that a fit is given or finds."""

from typing import NamedTuple

import numpy as np

from ..base import checks
from ..experiment.coherence import Coherence

BY_FRAME = ("angle_offsets", "flux", "background_level")


class Corrections(NamedTuple):
    """What the beamline knew badly, on the host.

    Attributes
    ----------
    angle_offsets : float64 (n_frames,) rad, or None: 0
    flux : float64 (n_frames,), relative, or None: 1
    background_level : float64 (n_frames,), counts per pixel beside those of the `Fit`, or None: 0
    point_spread : (row, col), rms widths in pixels, or None: the model's
    coherence : `Coherence`, whose modes are a number, or None: the model's
    """

    angle_offsets: np.ndarray | None = None
    flux: np.ndarray | None = None
    background_level: np.ndarray | None = None
    point_spread: tuple[float, float] | None = None
    coherence: Coherence | None = None

    @classmethod
    def checked(cls, model, angle_offsets, flux):
        """Of a public function's arguments."""
        given = {"angle_offsets": angle_offsets, "flux": flux}
        for name, value in given.items():
            if value is not None:
                given[name] = checks.array(name, value, (model.n_frames,), np.float64, axes="(n_frames,)")
        if flux is not None and not given["flux"].min() > 0:
            raise ValueError(f"flux: expected relative intensities > 0, got {given['flux'].min():g}")
        return cls(**given)

    def of_frames(self, frames):
        """Those of some frames."""
        arrays = {name: getattr(self, name) for name in BY_FRAME}
        return self._replace(**{name: None if a is None else a[frames] for name, a in arrays.items()})

    def filled(self, other):
        """These, and ``other`` where these are None."""
        return Corrections(*(b if a is None else a for a, b in zip(self, other, strict=True)))


NO_CORRECTIONS = Corrections()
