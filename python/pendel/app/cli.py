"""Command line: pendel demo | simulate | reconstruct | view | info.

Exit status: 0 success, 2 bad command line or configuration (the message names the option or key), 1 a failed run.
Results go to stdout, progress, warnings and errors to stderr.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np

from ..base.arrays import host
from ..base.version import __version__
from . import config


class UsageError(ValueError):
    """A bad command line; the message begins with the option."""


def main(arguments=None):
    """Run the command line (a list of text; None: sys.argv) and return its exit status."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as exit:  # argparse has said why
        return exit.code or 0
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"pendel: warning: {message}", file=sys.stderr)
        try:
            args.run(args)
            return 0
        except (Exception, KeyboardInterrupt) as error:
            if args.debug:
                raise
            status, text = _explain(error)
        print(f"pendel: error: {' '.join(text.split())}", file=sys.stderr)
        return status


def _explain(error):
    """Exit status and message of an error."""
    if isinstance(error, (config.ConfigError, UsageError)):
        return 2, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 1, "interrupted"
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return 1, str(error)
    return 1, f"{type(error).__name__}: {error} (--debug shows where)"


def _parser():
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--quiet", action="store_true", help="no progress")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("config", metavar="CONFIG.toml")
    configured.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (model.device)")
    configured.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key")

    parser = argparse.ArgumentParser(prog="pendel", description="Dynamical Bragg coherent diffraction imaging.")
    parser.add_argument("--version", action="version", version=f"pendel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text, *parents):
        sub = commands.add_parser(name, help=text, description=text, parents=[common, *parents])
        sub.set_defaults(run=run)
        return sub

    sub = command("demo", _demo, "simulate a gold cube, phase it kinematically, reconstruct it dynamically, compare")
    sub.add_argument("--size", type=int, default=64, metavar="N", help="frames, pixels, voxels along an axis (64)")
    sub.add_argument("-o", "--output", default="pendel-demo", metavar="DIR", help="folder to write (pendel-demo)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, help="CPU threads (all)")
    sub.add_argument("--photons", type=float, help="Poisson noise: photons in the brightest pixel (no noise)")

    sub = command("simulate", _simulate, "compute the frames of a test crystal", configured)
    sub.add_argument("-o", "--output", metavar="DATA.cxi", help="file to write (output.path)")

    sub = command("reconstruct", _reconstruct, "reconstruct the crystal function of a measured scan", configured)
    sub.add_argument("--data", metavar="PATH", help="file or folder of the scan (data.path)")
    sub.add_argument("-o", "--output", metavar="RESULT.cxi", help="file to write (output.path)")
    sub.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")

    sub = command("view", _view, "draw a result file")
    sub.add_argument("result", metavar="RESULT.cxi")
    sub.add_argument("-o", "--output", metavar="PICTURE", help="png, pdf, svg ... (RESULT.png)")

    command("info", _info, "what is installed and what it uses")
    return parser


def _demo(args):
    from . import demo

    for option, value in (("--size", args.size), ("--threads", args.threads)):
        least = demo.SMALLEST if option == "--size" else 1
        if value is not None and (value < least or option == "--size" and value % 2):
            even = "an even integer" if option == "--size" else "an integer"
            raise UsageError(f"{option}: expected {even} >= {least}, got {value}")
    if args.seed < 0:
        raise UsageError(f"--seed: expected an integer >= 0, got {args.seed}")
    if args.photons is not None and not (0 < args.photons < 2**31):
        raise UsageError(f"--photons: expected a number > 0 and < 2^31, got {args.photons:g}")
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise UsageError(f"-o: expected a folder, got the file {args.output}")
    demo.run(args.output, args.size, args.seed, args.threads, args.photons, not args.quiet, _say)


def _load(args):
    device = [] if args.device is None else [f"model.device={json.dumps(args.device)}"]
    return config.load(args.config, [*args.set, *device])


def _simulate(args):
    from . import simulate

    made = _load(args)
    path = _output(args, made)
    model = simulate.model_of(made)
    S = simulate.crystal_function(made, model)
    frames = host(model.intensities(model.engine.upload(S)))
    data, scale = simulate.counts(frames, made.simulate.photons, made.simulate.seed)
    simulate.write(path, model, data, S, scale, made.crystal_keys.name, {"config": made.text})
    _say(_grid(model))
    _say(f"{model.n_frames} frames, {data.max():g} counts in the brightest pixel, {data.sum(dtype=float):g} in all")
    _say(f"written to {path}")


def _reconstruct(args):
    from ..fit.minibatch import reconstruct
    from ..fit.polishing import polish
    from ..fit.quasi_newton import lbfgs
    from ..recipes.coarse_to_fine import multiscale
    from . import store

    made = _load(args)
    path = _output(args, made)
    checkpoint = made.recipe.checkpoint
    if made.recipe.method == "lbfgs" and (args.resume or checkpoint):
        what = "--resume" if args.resume else "recipe.checkpoint"
        raise config.ConfigError(f"{what}: expected recipe.method = 'adam', got 'lbfgs', which keeps no checkpoint")
    recipe = made.recipe_arguments()
    checkpoint = made.folder / checkpoint if checkpoint else path.with_name(f"{path.stem}.checkpoint.h5")
    _writable("recipe.checkpoint", checkpoint)
    if not args.data and not made.path("data.path").exists():
        raise config.ConfigError(f"data.path: expected a file or folder, got no such one {made.path('data.path')}")
    if args.data and not Path(args.data).exists():
        raise UsageError(f"--data: expected a file or folder, got no such one {args.data}")
    scan = made.scan(args.data)
    _say(f"data: {' x '.join(map(str, scan.data.shape))} (frames, rows, cols), {scan.mask.mean():.1%} good pixels")
    experiment = made.experiment(scan)
    _say(repr(experiment))
    resumed = args.resume and checkpoint.exists()
    if args.resume and not resumed:
        _say(f"no checkpoint {checkpoint}: from the beginning")
    stored = checkpoint if resumed and made.recipe.method == "adam" else None
    model, start, support, origin = _begin(made, args, experiment, scan, stored)
    given = model, scan.data, scan.mask, start, support
    if made.recipe.method == "lbfgs":
        result = lbfgs(*given, progress=not args.quiet, **recipe)
    elif made.recipe.method == "multiscale":
        files = {"checkpoint": checkpoint, "resume": resumed}
        result = multiscale(*given, progress=not args.quiet, **files, **recipe)
    else:
        result = reconstruct(*given, checkpoint=checkpoint, resume=resumed, progress=not args.quiet, **recipe)
    _say(f"relative misfit {result.misfit:.4e} after {result.epochs} epochs, {result.support.sum()} voxels in support")
    if made.recipe.polish_rounds and made.recipe.method != "multiscale":
        keys = ("likelihood", "background", "amplitude_bound", "atv_weight", "free_fraction", "seed")
        options = {key: recipe[key] for key in keys if key in recipe}
        options |= {"angle_offsets": result.angle_offsets, "flux": result.flux, "progress": not args.quiet}
        result = polish(*given[:3], result, rounds=made.recipe.polish_rounds, trim=None, **options)
        _say(f"polished: relative misfit {result.misfit:.4e}, {result.support.sum()} voxels in support")
    if result.free_misfit is not None:
        _say(f"held-out pixels: relative misfit {result.free_misfit:.4e}, loss {result.free_loss:.4e} per pixel")
    name = scan.name or made.crystal_keys.name
    store.save_result(path, model, scan.data, scan.mask, result, name=name, config=made.text, extra={"start": origin})
    written = [path]
    if made.output.pictures:
        written.append(path.with_suffix(".png"))
        store.save_picture(written[-1], path)
    _say("written to " + ", ".join(map(str, written)))


def _begin(made, args, experiment, scan, checkpoint):
    """(model, start, support, record of the start) for [start], or for the grid of a checkpoint."""
    from .. import io
    from ..fit.checkpoint import checkpoint_shape
    from ..kinematic.support import box_support
    from ..recipes.thick_crystals import extinction_length, thick
    from ..recipes.trials import box_for, kinematic_start, phase

    this, shape, voxel = made.start, made.model.shape, made.voxel(experiment)
    progress = not args.quiet
    if checkpoint is not None:
        model = made.make_model(experiment, shape or checkpoint_shape(checkpoint), voxel)
        _say(f"{_grid(model)}, going on from {checkpoint}")
        return model, None, None, {"kind": "checkpoint"}
    if this.kind == "file":
        stored = io.read_result(made.path("start.path"))
        if stored.voxel is not None and not np.allclose(stored.voxel, voxel, rtol=1e-6, atol=0):
            raise config.ConfigError(
                f"start.path: expected a crystal on voxels {_nm(voxel)} (z, y, x), got {_nm(stored.voxel)}"
            )
        if shape is not None and tuple(shape) != stored.S.shape:
            raise config.ConfigError(f"start.path: expected shape {tuple(shape)}, got {stored.S.shape}")
        model = made.make_model(experiment, stored.S.shape, voxel)
        _say(_grid(model))
        return model, stored.S, stored.support, {"kind": "file", "path": str(made.path("start.path"))}
    if this.kind == "solid" and made.recipe.method != "multiscale":
        raise config.ConfigError(
            f"start.kind: expected recipe.method = 'multiscale' with 'solid', got '{made.recipe.method}'"
        )
    if this.kind in ("flat", "solid"):
        if this.kind == "flat" or not shape:
            made.need("start.size_nm")
        extent = None if this.size_nm is None else np.broadcast_to(this.size_nm, 3) * 1e-9
        shape = shape or [2 * int(np.ceil(0.675 * e / v)) for e, v in zip(extent, voxel, strict=True)]
        model = made.make_model(experiment, shape, voxel)
        _say(_grid(model))
        if this.kind == "solid":
            return model, "solid", None, {"kind": "solid"}
        start = "flat" if made.recipe.method == "multiscale" else None
        return model, start, box_support(model.shape, voxel, extent), {"kind": "flat"}
    # a model costs little, and its errors are better told before the phasing than after
    threads = made.make_model(experiment, shape or (2, 2, 2), voxel).threads
    phased = None
    if not shape or made.recipe.method != "multiscale":
        options = {"iterations": this.iterations, "seed": this.seed, "threads": threads, "progress": progress}
        phased = phase(scan.data, scan.mask, **options)
        _say(f"phased kinematically: relative misfit {phased.chi**2:.3e}")
    model = made.make_model(experiment, shape or box_for(phased, experiment, voxel), voxel)
    _say(_grid(model) + ("" if shape else ", chosen from the phased object"))
    if made.recipe.method == "multiscale":
        if thick(model):
            length = f"{1e9 * extinction_length(model):.0f} nm"
            _say(f"the box is thicker than an extinction length of {length}: start.kind = 'solid' may be better")
        return model, "kinematic", None, {"kind": "kinematic, on the coarsest level"}
    start = kinematic_start(
        model,
        scan.data,
        scan.mask,
        phased=phased,
        trial_epochs=this.trial_epochs,
        seed=this.seed,
        progress=progress,
        batches=made.recipe.batches,
        amplitude_bound=made.recipe.amplitude_bound,
    )
    trials = ", ".join(f"{name} {misfit:.3e}" for name, misfit in start.trial_misfits.items())
    _say(f"start: {start.kind}" + (f", the smallest misfit of {trials}" if trials else ""))
    record = {"kind": f"kinematic, {start.kind}", "chi": start.chi, "trial_misfits": start.trial_misfits}
    return model, start.S, start.support, record


def _view(args):
    from .. import io
    from ..analysis import plot

    result = Path(args.result)
    picture = Path(args.output) if args.output else result.with_suffix(".png")
    if not result.exists():
        raise UsageError(f"RESULT.cxi: expected a result file, got no such file {result}")
    _writable("-o", picture)
    figure = plot.result_figure(io.read_result(result))
    known = figure.canvas.get_supported_filetypes()
    if picture.suffix[1:].lower() not in known:
        raise UsageError(f"-o: expected an ending out of {', '.join(sorted(known))}, got {picture}")
    plot.save(figure, picture)
    _say(f"written to {picture}")


def _info(_):
    from ..operator.engines import info
    from . import store

    for name, value in (info() | store.versions()).items():
        _say(f"{name}: {value}")


def _output(args, made):
    """The file to write, from -o or output.path; told before any work is done if it cannot be written."""
    if args.output is None and made.output.path is None:
        raise UsageError("-o: expected a file to write, got none, and no output.path in the config")
    option, path = ("-o", Path(args.output)) if args.output else ("output.path", made.path("output.path"))
    _writable(option, path)
    return path


def _writable(option, path):
    if not path.parent.is_dir():
        raise UsageError(f"{option}: expected a file in an existing folder, got no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option}: expected a file, got the folder {path}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option}: expected a folder that can be written, got {path.parent}")


def _grid(model):
    return f"model: shape {model.shape} (z, y, x), voxel {_nm(model.voxel)}, transport {model.transport}"


def _nm(lengths):
    return " x ".join(f"{1e9 * v:.4g}" for v in lengths) + " nm"


def _say(text):
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
