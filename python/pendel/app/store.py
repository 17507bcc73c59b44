"""What a finished reconstruction leaves behind: a result file with its fit, and its picture."""

import platform

import h5py
import numpy as np
import scipy

from .. import io
from ..base.arrays import host
from ..base.version import __version__
from ..fit.refinement import dq_at


def versions():
    """Versions of what computes: dict of str."""
    modules = {"numpy": np, "scipy": scipy, "h5py": h5py}
    return {"pendel": __version__, "python": platform.python_version()} | {k: m.__version__ for k, m in modules.items()}


def save_result(path, model, data, mask, result, *, name="", config="", extra=None):
    """Write a `Result` with the fit it makes to the data as a CXI file (`io.write_result`).

    model, data, mask : those the result was fitted to.  config : TOML text.  extra : as in `io.write_scan`.
    The frame kept, measured and modelled, is the brightest one; rocking curves are sums over the good pixels, with the
    background in the modelled one. What else was found is kept with ``extra``: s_0, angle_offsets, flux, background,
    free_misfit, free_loss.
    """
    experiment, crystal = model.experiment, model.crystal
    dq = None if result.angle_offsets is None else dq_at(experiment, result.angle_offsets)[0]
    S, s_0, dq, flux = (model.engine.upload(a) for a in (result.S, result.s_0, dq, result.flux))
    modelled = host(model.intensities(S, None, s_0, dq=dq, flux=flux)) * np.float32(result.scale)
    if result.background:
        modelled += np.float32(result.background)
    measured, mask = host(data), host(mask)
    if mask is not None:
        measured, modelled = np.where(mask, measured, 0), np.where(mask, modelled, 0)
    curves = [frames.sum(axis=(1, 2), dtype=np.float64) for frames in (measured, modelled)]
    frame = int(np.argmax(curves[0]))
    found = {n: getattr(result, n) for n in ("s_0", "angle_offsets", "flux", "free_misfit", "free_loss")}
    found |= {"background": result.background or None}
    io.write_result(
        path,
        S=result.S,
        support=result.support,
        voxel=result.voxel,
        amplitude=result.amplitude,
        phase=result.phase,
        displacement=result.displacement,
        strain=result.strain,
        wavelength=experiment.wavelength,
        k_0=experiment.frame @ experiment.k_0,
        k_h=experiment.frame @ experiment.k_h,
        frame=experiment.frame,
        chi_0=crystal.chi_0,
        chi_h=crystal.chi_h,
        chi_hbar=crystal.chi_hbar,
        hkl=crystal.hkl,
        crystal=crystal.name or None,
        polarization=model.polarization,
        loss=result.history,
        scale=result.scale,
        misfit=result.misfit,
        measured_frame=measured[frame],
        modelled_frame=modelled[frame],
        frame_index=frame,
        rocking_angles=experiment.rocking_angles,
        rocking_measured=curves[0],
        rocking_modelled=curves[1],
        distance=experiment.distance,
        pixel_size=experiment.pixel_size,
        config=config,
        name=name,
        extra={"versions": versions(), "epochs": result.epochs, "seed": result.seed} | found | (extra or {}),
    )


def save_picture(path, result_path):
    """Draw `plot.result_figure` of a result file."""
    from ..analysis import plot

    plot.save(plot.result_figure(io.read_result(result_path)), path)
