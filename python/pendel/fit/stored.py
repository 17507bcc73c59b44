"""What a finished reconstruction leaves behind: a result file, with the fit where the data are at hand."""

import dataclasses
import platform

import h5py
import numpy as np
import scipy

from .. import io
from ..base.arrays import host
from ..base.version import __version__
from ..fit.expected import expected_counts


def versions() -> dict[str, str]:
    """Versions of what computes."""
    modules = {"numpy": np, "scipy": scipy, "h5py": h5py}
    return {"pendel": __version__, "python": platform.python_version()} | {k: m.__version__ for k, m in modules.items()}


def save_result(path, model, data, mask, result, *, name="", config="", extra=None, force=False) -> None:
    """Write a `Result` with the fit it makes to the data as a CXI file (`io.write_result`).

    With a model of several ranks all of them are to call this, and the first one writes.

    Parameters
    ----------
    path : file to write.
    model, data, mask, result : what was fitted to what, see `stored_result`; data may be None.
    name : title of the file.
    config : TOML text.
    extra : as in `io.write_scan`; kept with what else was found: s_0, free_misfit, free_loss.
    force : as in `io.write_result`.
    """
    stored = stored_result(model, data, mask, result)
    stored.name, stored.config = name, config
    stored.metadata |= extra or {}
    known = {"distance": model.experiment.distance, "pixel_size": model.experiment.pixel_size}
    model.ranks.from_first(lambda: io.write_result(path, stored, **known, force=force))


def stored_result(model, data, mask, result) -> io.StoredResult:
    """A `Result` with its model, that on the voxels it chose where it did, and its fit to data, as it is stored."""
    model = model if result.model is None else result.model
    experiment, crystal = model.experiment, model.crystal
    found = {n: getattr(result, n) for n in ("s_0", "free_misfit", "free_loss")}
    return io.StoredResult(
        S=result.S,
        support=result.support,
        voxel=result.voxel,
        amplitude=result.amplitude,
        phase=result.phase,
        displacement=result.displacement,
        displacement_modulo=result.spacing,
        strain=result.strain,
        wavelength=experiment.wavelength,
        k_0=experiment.frame @ experiment.k_0,
        k_h=experiment.frame @ experiment.k_h,
        frame=experiment.frame,
        chi_0=crystal.chi_0,
        chi_h=crystal.chi_h,
        chi_hbar=crystal.chi_hbar,
        hkl=crystal.hkl,
        crystal=crystal.name,
        polarization=model.polarization,
        loss=result.history,
        scale=result.scale,
        misfit=result.misfit,
        background=result.background if np.any(result.background) else None,
        rocking_angles=experiment.rocking_angles,
        metadata={"versions": versions(), "epochs": result.epochs, "seed": result.seed} | found,
        **(result.corrections._asdict() | _coherence(result.coherence)),
        **_trust(result.trust),
        **({} if data is None else fit_to_data(model, data, mask, result)),
    )


def _coherence(coherence):
    """The field of a `StoredResult` for a `Coherence`, or None."""
    return {"coherence": None if coherence is None else dataclasses.astuple(coherence)}


def _trust(trust):
    """The fields of a `StoredResult` for a `Trust`."""
    if trust is None:
        return {}
    names = {"noise_misfit": trust.noise, "grid_misfit": trust.grid, "excess": trust.excess}
    names |= {"variance": trust.variance, "twin_ratio": trust.twin}
    return names | {"verdict": trust.verdict, "trust": str(trust)}


def fit_to_data(model, data, mask, result) -> dict:
    """Measured and modelled: the brightest frame, and the rocking curves, sums over the good pixels, with the
    background in the modelled one. The fields of a `StoredResult` of these names. The model is that of the result's
    voxels.
    """
    modelled = expected_counts(model, result)
    measured, mask = host(data), host(mask)
    if mask is not None:
        measured, modelled = np.where(mask, measured, 0), np.where(mask, modelled, 0)

    measured_curve, modelled_curve = (frames.sum(axis=(1, 2), dtype=np.float64) for frames in (measured, modelled))
    brightest = int(np.argmax(measured_curve))
    return {
        "measured_frame": measured[brightest],
        "modelled_frame": modelled[brightest].astype(np.float32),
        "frame_index": brightest,
        "rocking_measured": measured_curve,
        "rocking_modelled": modelled_curve,
    }
