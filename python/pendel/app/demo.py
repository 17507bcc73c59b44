"""The whole story on a simulated crystal: simulate a scan, phase it kinematically, reconstruct it dynamically, compare.

A strained gold cube of 0.8 um edge, (002) at 8 keV, on a detector of size x size pixels in ``size`` frames. The cube is
thick enough that refraction, absorption and multiple scattering change the phase of the diffracted field by a large
part of a radian, which kinematic phasing takes for strain. The frames are those of wide-angle optics on voxels a
quarter as wide as the data resolve (`pendel.reference.wide_angle`): the model that reconstructs did not make them.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import io, kinematic
from ..analysis import crystals, phantom
from ..analysis.comparison import Comparison, compare
from ..base import checks
from ..base.printing import say
from ..experiment.crystal import Crystal
from ..experiment.geometry import Experiment, rotation
from ..io import kinds
from ..model.model import Model
from ..recipes.kinematic_starts import phase
from ..recipes.solve import SolveRecipe
from . import outputs, samples, simulate, starts, store
from .methods import METHODS
from .outputs import Written

EDGE = 0.8e-6  # m
CRYSTAL = f"Au (002), 8 keV, cube of {EDGE * 1e9:.0f} nm"
STRAIN = 1.5  # rad, the highest bump
SMALLEST = 24  # the cube is 13 voxels wide; below, phasing gets unreliable
SIZE = 48
PHOTONS = 1e6  # in the brightest pixel
TURN = rotation((1, 1, 0.5), 0.6)  # of the cube in the model frame
# Less than the default: this crystal ends at 0.0075 rad for three noises, with 3200 steps and 30 iterations at 0.0070.
RECIPE = SolveRecipe(steps=2000, fine_iterations=24)
# What `run` writes: files, and the kind of each.
WRITTEN = {"data.cxi": kinds.SIMULATED, "result.cxi": kinds.RESULT}
WRITTEN |= {"result.png": kinds.PICTURE, "demo.png": kinds.PICTURE}


@dataclass
class Report:
    """Numbers of one run: `Comparison` of each reconstruction with the truth, misfits of each model, seconds of each
    step, both one voxel of the data's resolution and more inside the crystal. ``folder``: where the files are.
    ``twin_free``: the dynamical S is nearer to the truth than its twin is. ``trust``: `Trust` of the dynamical one.
    """

    kinematic: Comparison
    dynamical: Comparison
    misfits: dict
    seconds: dict
    twin_free: bool
    trust: object
    folder: Path

    @property
    def ratio(self):
        """Phase error of the kinematic over that of the dynamical reconstruction."""
        return self.kinematic.phase_rmse / self.dynamical.phase_rmse

    def __str__(self):
        k, d = self.kinematic, self.dynamical
        rows = [
            ("", "kinematic", "dynamical"),
            ("phase error, rms (rad)", f"{k.phase_rmse:.4f}", f"{d.phase_rmse:.4f}"),
            (
                f"amplitude, std/mean (truth {d.amplitude_cv_truth:.3f})",
                f"{k.amplitude_cv:.3f}",
                f"{d.amplitude_cv:.3f}",
            ),
            ("relative misfit of its own model", *(f"{self.misfits[n]:.2e}" for n in ("kinematic", "dynamical"))),
            ("time (s)", *(f"{self.seconds[n]:.1f}" for n in ("kinematic", "dynamical"))),
        ]
        lines = [f"{a:<34}{b:>12}{c:>12}" for a, b, c in rows]
        verdict = f"The dynamical phase error is {self.ratio:.1f} times smaller than the kinematic one."
        if self.ratio < 1:
            verdict = f"The dynamical phase error is {1 / self.ratio:.1f} times LARGER than the kinematic one."
        if not self.twin_free:
            verdict += " The dynamical reconstruction found the conjugate TWIN of the crystal."
        return "\n".join([*lines, "", verdict, f"Dynamical: {self.trust}."])


def model(size: int = SIZE, threads: int | None = None) -> Model:
    """The scan: `Model` of shape about (size, size, size), frames and detector of ``size``."""
    two_theta, wavelength, pixel_size = np.deg2rad(44.76), 1.5498e-10, 55e-6
    field = 1.9 * EDGE  # room for the cube turned any way
    experiment = Experiment(
        wavelength=wavelength,
        distance=field * pixel_size / wavelength,
        pixel_size=pixel_size,
        detector_shape=(size, size),
        arm=(("y+", two_theta),),
        rocking_axis="y+",
        # 1/160 deg per frame gives the field of view along h; more frames, not wider ones, give finer voxels
        rocking_angles=np.deg2rad(0.4 / 64) * (np.arange(size) - size // 2),
    )
    voxel = experiment.suggest_voxel()
    shape = (int(np.ceil(field / voxel[0])), size, size)
    # chi_h of a horizontal beam (pi) with C = |cos 2theta| already in it: "sigma" keeps the model from applying C twice
    crystal = Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j, name="Au", hkl=(0, 0, 2))
    return Model(experiment, crystal, shape, voxel, polarization={"sigma": 1.0}, threads=threads)


def truth(model: Model) -> np.ndarray:
    """The crystal on the grid of a model: a turned cube, anti-aliased, with three smooth phase bumps."""
    body = phantom.cube(model.shape, model.voxel, EDGE, TURN)
    return phantom.crystal_function(body, _strain(_cube(model.experiment)).phase(samples.positions(model)))


def sample(experiment: Experiment) -> crystals.SampleCrystal:
    """The crystal as a function of position."""
    body = _cube(experiment)
    return samples.solid(CRYSTAL, samples.SHAPES["cube"].cut(body), _strain(body))


def _cube(experiment):
    return samples.Body(np.array(EDGE), TURN, experiment.frame)


def _strain(body):
    return samples.STRAINS["bumps"](body).scaled(STRAIN)


def run(
    folder="pendel-demo", size=SIZE, seed=0, threads=None, photons=PHOTONS, progress=True, say=say, *, force=False
) -> Report:
    """Run the demo and return its `Report`.

    Writes data.cxi (frames, and the crystal in its metadata), result.cxi, result.png and demo.png into ``folder``.

    Parameters
    ----------
    folder : made where it is not there.
    size : frames, and detector pixels along each axis, even.
    seed : of phasing, frame groups and noise.
    threads : of the CPU; None: all.
    photons : in the brightest pixel, Poisson noise.
    progress : as in `reconstruct`.
    say : called with each line of the story.
    force : replace files of these names, whatever they are.
    """
    size = checks.integer("size", size, at_least=SMALLEST)
    if size % 2:
        raise ValueError(f"size: expected an even number, got {size}")
    seed = checks.integer("seed", seed, at_least=0)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [Written(f"-o ({n})", folder / n, (kind,)) for n, kind in WRITTEN.items()]
    outputs.refuse_losses(written, force=force)
    with outputs.claimed(written):
        report = _run(folder, model(size, threads), seed, photons, progress, say)
    total = sum(report.seconds.values())
    say(f"\n{report}\n\nwritten to {folder}{os.sep}: data.cxi result.cxi result.png demo.png, in {total:.0f} s")
    return report


def _run(folder, m, seed, photons, progress, say):
    """The `Report` of the demo of a model; writes its files."""
    seconds = {}
    with _timed(seconds, "simulate"):
        data = _simulate(folder / "data.cxi", m, seed, photons, say)
    with _timed(seconds, "kinematic"):
        phased = phase(data, seed=seed, threads=m.threads, progress=progress)
        say(f"phased kinematically: misfit {phased.chi**2:.2e}")
    with _timed(seconds, "dynamical"):
        result = _reconstruct(m, data, phased, seed, progress, say)
    with _timed(seconds, "compare and draw"):
        report, truth = _compare(phased, result, seconds, folder)
        _save(data, truth, result, report)
    return report


@contextlib.contextmanager
def _timed(seconds, name):
    """Keep in ``seconds`` how long the block takes."""
    begin = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begin


def _simulate(path, m, seed, photons, say):
    """The frames, which are written to ``path``."""
    S = truth(m)
    frames = simulate.wide_angle_frames(m, sample(m.experiment))
    data, scale = simulate.counts(frames, photons, seed)
    simulate.write(path, m, data, S, scale, name=CRYSTAL, force=True)
    phases = np.angle(S[np.abs(S) > 0.5])
    size = m.n_frames
    say(
        f"simulated by wide-angle optics: {CRYSTAL}, phase {phases.min():.2f} to {phases.max():.2f} rad, "
        f"{size} frames of {size} x {size} pixels, "
        f"{photons:g} photons in the brightest, {data.sum(dtype=float):.1e} in all"
    )
    return data


def _reconstruct(m, data, phased, seed, progress, say):
    """The dynamical `Result`, in a box for the phased object."""
    shape = kinematic.box_for(phased, m.experiment, m.voxel)
    begun = Model(m.experiment, m.crystal, shape, m.voxel, polarization=m.polarization, threads=m.threads)
    options = {"phased": phased, "recipe": RECIPE, "seed": seed, "progress": progress}
    result = METHODS["solve"].function(begun, data, start="kinematic", **options)
    say(f"reconstructed dynamically: misfit {result.misfit:.2e}, {starts.describe_grid(result.model)}")
    return result


def _compare(phased, result, seconds, folder):
    """(`Report`, the crystal where the dynamical reconstruction has it).

    The kinematic object is compared at its best: whole amplitudes, the better twin, free of a linear phase, which
    refraction adds and a kinematic analysis takes away as a wrong rocking centre. The dynamical one gets none of it.
    """
    m = result.model
    S, inside = crystals.truth_under(result.S, m, sample(m.experiment), m.experiment)
    S_k = kinematic.to_model_grid(phased, m.experiment, m.shape, m.voxel, clip=False)
    report = Report(
        kinematic=compare(S_k, S, m.voxel, inside, ramp=True, twin=True),
        dynamical=compare(result.S, S, m.voxel, inside, translate=False),
        misfits={"kinematic": phased.chi**2, "dynamical": result.misfit},
        seconds=seconds,
        twin_free=not compare(result.S, S, m.voxel, twin=True).twin,
        trust=result.trust,
        folder=folder,
    )
    return report, S


def _save(data, S, result, report):
    """Write result.cxi, result.png and demo.png."""
    m, folder = result.model, report.folder
    extra = {"phase_rmse": {"kinematic": report.kinematic.phase_rmse, "dynamical": report.dynamical.phase_rmse}}
    store.save_result(folder / "result.cxi", m, data, None, result, name=CRYSTAL, extra=extra, force=True)
    store.save_picture(folder / "result.png", folder / "result.cxi", force=True)
    stored = io.read_result(folder / "result.cxi")
    from ..analysis import plot

    figure = plot.comparison_figure(
        S,
        report.kinematic.registered,
        report.dynamical.registered,
        voxel=m.voxel,
        support=report.dynamical.inside,
        rocking_angles=m.experiment.rocking_angles,
        rocking={"data": stored.rocking_measured, "dynamical": stored.rocking_modelled},
        loss={"relative misfit": result.history["misfit"]},
        title=CRYSTAL,
    )
    plot.save(figure, folder / "demo.png", force=True)
