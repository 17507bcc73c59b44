"""Starts: how each kind of ``start.kind`` makes the model's box, the crystal function and the support to begin with.

To add one: a function (setup) -> `Begun`, and one line in `STARTS`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import cohere, io, pynx
from ..experiment.geometry import Experiment
from ..fit.checkpoint import checkpoint_shape
from ..kinematic import box_for, even_experiment
from ..kinematic.support import box_support
from ..model.model import Model
from ..recipes.first_step import box_without_phases
from ..recipes.kinematic_starts import kinematic_start, phase
from ..recipes.levels import resample, unit_flux
from ..recipes.thick_crystals import extinction_length, thick
from . import methods
from .errors import ConfigError

SAME_FRAME = 1e-3  # of direction cosines
NEAR_FRAME = 2e-2  # the same, of a crystal that is only to begin with, as at another temperature
INSIDE = 0.25  # part of a voxel that a support covers at least
ROOM = 1.35  # of a box about a crystal of known size


class Setup(NamedTuple):
    """What a start is made for."""

    config: Any  # Config
    method: methods.Method
    scan: io.Scan
    experiment: Experiment
    voxel: tuple  # (dz, dy, dx) m
    progress: bool
    say: Callable[[str], None]  # called with each line of the story

    def model(self, shape):
        """The model on a box of ``shape`` (nz, ny, nx)."""
        return self.config.make_model(self.experiment, shape, self.voxel)

    def makes_itself(self, kind):
        """Whether the method begins with this kind of start by its name alone."""
        return kind in self.method.own_starts


class Begun(NamedTuple):
    """Where a reconstruction begins."""

    model: Model
    start: np.ndarray | str | None  # crystal function, kind of start that the method makes itself, or its default
    support: np.ndarray | None
    record: dict  # of the start, for the result file
    phased: Any = None  # `KinematicResult` of the scan, for a method that takes it


def begin(setup: Setup) -> Begun:
    """The start that [start] asks for."""
    return STARTS[setup.config.start.kind](setup)


def go_on(setup: Setup, checkpoint) -> Begun:
    """The model of a checkpoint's crystal, which needs no other start."""
    ranks = setup.config.ranks
    model = setup.model(setup.config.model.shape or ranks.from_first(lambda: checkpoint_shape(checkpoint)))
    setup.say(f"{describe_grid(model)}, going on from {checkpoint}")
    return Begun(model, None, None, {"kind": "checkpoint"})


def _from_file(setup):
    path, shape, external = setup.config.path("start.path"), setup.config.model.shape, setup.config.start.external
    if path.is_dir():
        return _from_phasing(setup, path, functools.partial(cohere.read_results, path, setup.experiment))
    stored = io.read_result(path, external=external)
    if stored.voxel is None:
        return _from_phasing(
            setup, path, functools.partial(pynx.read_results, path, setup.experiment, external=external)
        )
    if setup.config.start.resample:
        return _resampled(setup, path, stored)
    if not np.allclose(stored.voxel, setup.voxel, rtol=1e-6, atol=0):
        expected, got = nanometres(setup.voxel), nanometres(stored.voxel)
        raise ConfigError(f"start.path: expected a crystal on voxels {expected} (z, y, x), got {got}")
    if stored.frame is not None and not np.allclose(stored.frame, setup.experiment.frame, atol=SAME_FRAME):
        raise ConfigError(
            f"start.path: expected a crystal in the model frame of this experiment, got one in another, {path}; "
            "arm, k_h or orientation differ"
        )
    if shape is not None and tuple(shape) != stored.S.shape:
        raise ConfigError(f"start.path: expected shape {tuple(shape)}, got {stored.S.shape}")
    model = setup.model(stored.S.shape)
    setup.say(describe_grid(model))
    return Begun(model, stored.S, stored.support, {"kind": "file", "path": str(path)})


def _resampled(setup, path, stored):
    """A crystal on voxels of its own, as that of another scan, on those of this one."""
    if stored.frame is not None and not np.allclose(stored.frame, setup.experiment.frame, atol=NEAR_FRAME):
        raise ConfigError(
            f"start.path: expected a crystal in about the model frame of this experiment, got one in another, {path}; "
            "arm, k_h or orientation differ"
        )
    experiment, shape = setup.experiment, setup.config.model.shape
    view = (np.inf, experiment.field_of_view, experiment.field_of_view / experiment.gamma_h)
    shape = shape or [  # to the nearest: boxes of many scans in a row do not grow
        2 * int(max(1, min(np.round(n * its / (2 * ours)), limit / ours * (1 + 1e-9) // 2)))
        for n, its, ours, limit in zip(stored.S.shape, stored.voxel, setup.voxel, view, strict=True)
    ]
    model = setup.model(shape)
    setup.say(f"{describe_grid(model)}, resampled from {nanometres(stored.voxel)}")
    S, support = resample(stored.S, stored.voxel, model), stored.support
    if support is not None:
        support = np.abs(resample(support, stored.voxel, model)) > INSIDE
        S = np.where(support, S, 0).astype(model.dtype)
    return Begun(model, S, support, {"kind": "file, resampled", "path": str(path)})


def _from_phasing(setup, path, phased_by):
    """The object of another program, which does not say its voxel, where it is on the grid of these data.

    phased_by : called with data and mask, gives its `KinematicResult`.
    """
    light = unit_flux(setup.scan.data, setup.scan.background, setup.scan.flux)
    try:
        phased = phased_by(light, setup.scan.mask)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"start.path: {error}") from None
    setup.say(f"{path} phases these data: relative misfit {phased.chi**2:.3e}")
    model = setup.model(setup.config.model.shape or box_for(phased, setup.experiment, setup.voxel))
    setup.say(describe_grid(model))
    begun = _best_trial(setup, model, phased)
    return begun._replace(record={"kind": "file", "path": str(path)} | begun.record)


def _flat(setup):
    setup.config.need("start.size_nm")
    model = _model_for_size(setup)
    support = box_support(model.shape, setup.voxel, _size(setup.config))
    return Begun(model, "flat" if setup.makes_itself("flat") else None, support, {"kind": "flat"})


def _solid(setup):
    if not setup.makes_itself("solid"):
        able = methods.names_with(lambda method: "solid" in method.own_starts)
        got = setup.config.recipe.method
        raise ConfigError(f"start.kind: expected recipe.method = {able} with 'solid', got {got!r}")
    if not setup.config.model.shape:
        setup.config.need("start.size_nm")
    return Begun(_model_for_size(setup), "solid", None, {"kind": "solid"})


def _smooth(setup):
    if not setup.makes_itself("smooth"):
        able = methods.names_with(lambda method: "smooth" in method.own_starts)
        got = setup.config.recipe.method
        raise ConfigError(f"start.kind: expected recipe.method = {able} with 'smooth', got {got!r}")
    if setup.config.model.shape or setup.config.start.size_nm is not None:
        return Begun(_model_for_size(setup), "smooth", None, {"kind": "smooth"})
    scan = setup.scan
    light = unit_flux(scan.data, scan.background, scan.flux)
    model = setup.model(box_without_phases(setup.model((2, 2, 2)), light, scan.mask))
    setup.say(describe_grid(model) + ", chosen from the autocorrelation")
    return Begun(model, "smooth", None, {"kind": "smooth"})


def _size(config):
    """Size (z, y, x) of the crystal in m, as start.size_nm gives it."""
    return np.broadcast_to(config.start.size_nm, 3) * 1e-9


def _model_for_size(setup):
    """The model on model.shape, or on a box about a crystal of start.size_nm."""
    shape = setup.config.model.shape
    if not shape:
        sizes = zip(_size(setup.config), setup.voxel, strict=True)
        shape = [2 * int(np.ceil(ROOM / 2 * size / step)) for size, step in sizes]
    model = setup.model(shape)
    setup.say(describe_grid(model))
    return model


def _kinematic(setup):
    shape, own = setup.config.model.shape, setup.makes_itself("kinematic")
    # a model costs little, and its errors are better told before the phasing than after
    threads = setup.model(shape or (2, 2, 2)).threads
    phased = None if shape and own else _phase(setup, threads)
    model = setup.model(shape or box_for(phased, setup.experiment, setup.voxel))
    setup.say(describe_grid(model) + ("" if shape else ", chosen from the phased object"))
    return _coarse_first(setup, model, phased) if own else _best_trial(setup, model, phased)


def _phase(setup, threads):
    """Phase the scan kinematically."""
    this = setup.config.start
    options = {"iterations": this.iterations, "seed": this.seed, "threads": threads, "progress": setup.progress}
    if setup.method.chooses_voxel:  # and goes on from these phases
        options["starts"] = setup.config.section(setup.method.section).starts
    scan = setup.scan
    options["experiment"] = setup.experiment
    phased = phase(unit_flux(scan.data, scan.background, scan.flux), scan.mask, **options)
    _say_of_uneven_steps(setup)
    setup.say(f"phased kinematically: relative misfit {phased.chi**2:.3e}")
    return phased


def _say_of_uneven_steps(setup):
    """That the phasing was given other frames than the scan's, where its rocking steps are not equal."""
    even = even_experiment(setup.experiment)
    if even is not setup.experiment:
        count, places = setup.experiment.n_frames, even.n_frames
        setup.say(f"rocking steps are not equal: phased {places} frames at equal steps, made from the {count} measured")


def _coarse_first(setup, model, phased):
    """Leave the kinematic start to the method."""
    if thick(model):
        length = f"{1e9 * extinction_length(model):.0f} nm"
        setup.say(f"the box is thicker than an extinction length of {length}: start.kind = 'solid' may be better")
    return Begun(model, "kinematic", None, {"kind": "kinematic, on the coarsest level"}, phased)


def _best_trial(setup, model, phased):
    """The candidate, of either twin, that the first epochs of the dynamical reconstruction like best."""
    this, recipe = setup.config.start, setup.config.recipe
    start = kinematic_start(
        model,
        setup.scan.data,
        setup.scan.mask,
        phased=phased,
        trial_epochs=this.trial_epochs,
        seed=this.seed,
        progress=setup.progress,
        batches=recipe.batches,
        amplitude_bound=recipe.amplitude_bound,
        flux=setup.scan.flux,
        background=0.0 if setup.scan.background is None else setup.scan.background,
    )
    trials = ", ".join(f"{name} {misfit:.3e}" for name, misfit in start.trial_misfits.items())
    setup.say(f"start: {start.kind}" + (f", the smallest misfit of {trials}" if trials else ""))
    record = {"kind": f"kinematic, {start.kind}", "chi": start.chi, "trial_misfits": start.trial_misfits}
    return Begun(model, start.S, start.support, record)


STARTS = {"kinematic": _kinematic, "flat": _flat, "solid": _solid, "smooth": _smooth, "file": _from_file}


def describe_grid(model: Model) -> str:
    """A model's grid in words."""
    return f"model: shape {model.shape} (z, y, x), voxel {nanometres(model.voxel)}, transport {model.transport}"


def nanometres(lengths) -> str:
    """Lengths in m, written in nm."""
    return " x ".join(f"{1e9 * v:.4g}" for v in lengths) + " nm"
