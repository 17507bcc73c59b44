"""`pendel plan` and `pendel check`. What only one of them needs is imported there: a plan is to answer at once."""

from pathlib import Path

from ..base.printing import say
from ..planning.plan import plan
from .errors import ConfigError, UsageError

# Arguments of `pendel.plan`, as the command line calls them.
OPTIONS = {"material": "MATERIAL", "hkl": "--hkl", "energy_keV": "--energy", "energy": "--energy", "size": "--size"}
OPTIONS |= {"bounds[0]": "--bounds (phase)", "bounds[1]": "--bounds (strain)", "own_phase": "--own-phase"}
OPTIONS |= {"voxel": "--voxel", "detector[0] (pixel size)": "--pixel", "detector[1] (distance)": "--distance"}
GRID = "an object of PyNX or cohere on the grid of its data, which --config says"


def run_plan(args):
    """Print a `Plan`, and draw it."""
    if args.distance is not None and args.pixel is None:
        raise UsageError("--pixel: expected one with --distance, got none")
    picture = None if args.plot is None else Path(args.plot)
    if picture is not None:
        _refuse("--plot", picture, [("MATERIAL", Path(args.material))], args.force)

    detector = None if args.pixel is None else (1e-6 * args.pixel, args.distance)
    given = {"size": _metres(args.size), "voxel": _metres(args.voxel), "detector": detector}
    given |= {"own_phase": args.own_phase, "bounds": args.bounds if args.bounds is None else tuple(args.bounds)}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        made = plan(args.material, hkl=tuple(args.hkl), energy_keV=args.energy, polarization=args.polarization, **given)
    except (TypeError, ValueError) as error:
        name, _, text = str(error).partition(": ")
        if name not in OPTIONS:
            raise
        raise UsageError(f"{OPTIONS[name]}: {text}") from None

    say(str(made))
    if picture is not None:
        from ..planning.pictures import plan_figure

        _draw(plan_figure(made), "--plot", picture, args.force)


def run_check(args):
    """Print a `Check`, and draw it."""
    from ..planning.check import check

    path = Path(args.result)
    picture = Path(args.output) if args.output else path.with_name(f"{path.stem}.check.png")
    if not path.exists():
        raise UsageError(f"RESULT.cxi: expected a result file or a folder of cohere, got no such one {path}")
    read = [("RESULT.cxi", path)] + ([("--config", Path(args.config))] if args.config else [])
    _refuse("-o", picture, read, args.force)
    try:
        checked = _checked(args, path, check)
    except ValueError as error:
        name = str(error).partition(":")[0]
        if name not in ("experiment", "crystal") or args.config:
            raise
        raise UsageError(f"--config: {str(error).partition(': ')[2]}") from None

    from ..planning.pictures import check_figure

    say(str(checked))
    _draw(check_figure(checked), "-o", picture, args.force)


def _checked(args, path, check):
    """The `Check` of a file, or of a folder of cohere."""
    from .. import io

    experiment, crystal = (None, None) if args.config is None else _configured(args)
    stored = None if path.is_dir() else io.read_result(path)
    if stored is None or stored.voxel is None:
        if experiment is None:
            raise UsageError(f"--config: expected one, for {path} does not know its voxel and may be {GRID}, got none")
        stored = _on_model_grid(path, experiment)
    return check(_twin(stored) if args.twin else stored, experiment=experiment, crystal=crystal)


def _configured(args):
    """(experiment, crystal) of --config, with what its data know."""
    from . import config

    made = config.load(args.config, args.set)
    named = made.data.path is not None
    missing = [path for path in (made.paths("data.path") if named else []) if not path.exists()]
    if missing:
        raise ConfigError(f"data.path: expected a file or folder, got no such one {missing[0]}")
    experiment = made.experiment(made.scan() if named else None)
    return experiment, made.crystal(experiment)


def _on_model_grid(path, experiment):
    """An object of PyNX or cohere, on the grid of its data, as a `StoredResult` with z along k_h."""
    from .. import cohere, io, pynx
    from ..kinematic import box_for, even_experiment, to_model_grid

    voxel = experiment.suggest_voxel()
    try:
        phased = (cohere if path.is_dir() else pynx).read_results(path, experiment)
        shape = box_for(phased, experiment, voxel)
        S = to_model_grid(phased, even_experiment(experiment), shape, voxel)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{path}: expected {GRID}: {error}") from None
    return io.StoredResult(S=S, voxel=voxel)


def _twin(stored):
    """The conjugate twin."""
    import dataclasses

    from ..kinematic import twin

    support = None if stored.support is None else twin(stored.support)
    return dataclasses.replace(stored, S=twin(stored.S), support=support)


def _refuse(option, picture, read, force):
    """Refuse to draw over what is read, or over files of another kind."""
    from ..io import kinds
    from . import outputs

    read = [outputs.Read(name, path) for name, path in read if path.exists()]
    outputs.refuse_losses([outputs.Written(option, picture, (kinds.PICTURE,))], read, force=force)


def _draw(figure, option, picture, force):
    """Write a picture of a kind that there is."""
    from ..analysis import plot

    known = figure.canvas.get_supported_filetypes()
    if picture.suffix[1:].lower() not in known:
        raise UsageError(f"{option}: expected an ending out of {', '.join(sorted(known))}, got {picture}")
    plot.save(figure, picture, force=force)
    say(f"written to {picture}")


def _metres(nanometres):
    return None if nanometres is None else 1e-9 * nanometres
