"""What the commands of the command line do, each with the options that `cli` has read."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np

from .. import io
from ..analysis.repeatability import repeatability
from ..base import files
from ..base.printing import say
from ..fit.polishing import begins_with, polish
from ..io import kinds
from ..model.ranks import ALONE
from ..operator.engines import info
from ..recipes.polisher import COUNTED
from . import campaign, config, initial, memory, methods, outputs, schema, simulate, starts, store
from .errors import ConfigError, UsageError
from .outputs import Written

# Relative, by which h of two results differ at most: scans of one peak, whose detector may stand a pixel elsewhere, do
# by some 1e-3, other reflections by 0.1 and more.
OTHER_H = 0.02


def run_demo(args):
    from . import demo

    if args.size < demo.SMALLEST or args.size % 2:
        raise UsageError(f"--size: expected an even integer >= {demo.SMALLEST}, got {args.size}")
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads: expected an integer >= 1, got {args.threads}")
    if args.seed < 0:
        raise UsageError(f"--seed: expected an integer >= 0, got {args.seed}")
    if not 0 < args.photons < 2**31:
        raise UsageError(f"--photons: expected a number > 0 and < 2^31, got {args.photons:g}")
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise UsageError(f"-o: expected a folder, got the file {args.output}")
    how = {"progress": not args.quiet, "say": say, "force": args.force}
    demo.run(args.output, args.size, args.seed, args.threads, args.photons, **how)


def run_init(args):
    scan, output = Path(args.scan), None if args.output is None else Path(args.output)
    if not scan.exists():
        raise UsageError(f"SCAN: expected a file or folder, got no such one {scan}")
    folder = Path() if output is None else output.parent
    written = [] if output is None else [Written("-o", output, ())]
    outputs.refuse_losses(written, [outputs.Read("SCAN", scan)], force=args.force)
    text, needed = initial.configuration(
        os.path.relpath(scan, folder),
        folder=folder,
        format=args.format,
        number=args.number,
        material=args.material,
        hkl=args.hkl,
    )
    if output is None:
        say(text)
        return
    with outputs.claimed(written):
        files.write_whole(output, text.encode())
    say(f"written to {output}" + (f"; to be set: {', '.join(needed)}" if needed else ""))


def _load(args):
    device = [] if args.device is None else [f"model.device={json.dumps(args.device)}"]
    return config.load(args.config, [*args.set, *device])


def run_simulate(args):
    made = _load(args)
    option, path = _output(args, made)
    read = outputs.read_by(made, args.config, keys=["crystal.material"])
    written = [Written(option, path, (kinds.SIMULATED,))]
    outputs.refuse_losses(written, read, force=args.force)
    with outputs.claimed(written):
        model = simulate.model_of(made)
        data, mask, S, scale, unknown = simulate.simulated(made, model)
        extra = {"config": made.text, "maker": made.simulate.maker} | unknown
        simulate.write(path, model, data, S, scale, made.crystal_keys.name, extra, mask, force=args.force)
    say(starts.describe_grid(model))
    say(f"{model.n_frames} frames, {data.max():g} counts in the brightest pixel, {data.sum(dtype=float):g} in all")
    say(f"written to {path}")


def run_reconstruct(args):
    made = _load(args)
    made.ranks = ranks = args.ranks or ALONE
    option, path = _output(args, made)
    method = methods.METHODS[made.recipe.method]
    named = made.recipe.checkpoint
    checkpoint = made.folder / named if named else path.with_name(f"{path.stem}.checkpoint.h5")
    options = made.recipe_arguments()
    written = [Written(option, path, (kinds.RESULT,)), Written("recipe.checkpoint", checkpoint, (kinds.CHECKPOINT,))]
    if _polishes(made, method):
        written.append(Written("recipe.checkpoint", _of_polish(checkpoint), (kinds.CHECKPOINT,)))
    if made.output.pictures:
        written.append(Written("output.pictures", path.with_suffix(".png"), (kinds.PICTURE,)))
    read = outputs.read_by(made, args.config, data=args.data)
    ranks.from_first(lambda: outputs.refuse_losses(written, read, force=args.force))
    with contextlib.ExitStack() as claims:
        ranks.from_first(lambda: claims.enter_context(outputs.claimed(written)))
        if args.force and not args.resume:
            ranks.from_first(lambda: _make_room(written))
        begun, scan, result = _solved(args, made, method, options, checkpoint)
        name, extra = scan.name or made.crystal_keys.name, {"start": begun.record}
        given = begun.model, scan.data, scan.mask
        store.save_result(path, *given, result, name=name, config=made.text, extra=extra, force=args.force)
        if made.output.pictures:
            ranks.from_first(lambda: store.save_picture(path.with_suffix(".png"), path, force=args.force))
    if _polishes(made, method):  # that of the method stays, to go on from
        ranks.from_first(lambda: _of_polish(checkpoint).unlink(missing_ok=True))
    names = [str(item.path) for item in written if item.option != "recipe.checkpoint"]
    say("written to " + ", ".join(names))
    _tell_trust(result)


def _make_room(written):
    """For checkpoints: methods replace those of their own kind alone."""
    for item in written:
        if item.option == "recipe.checkpoint":
            outputs.make_room(item)


def _solved(args, made, method, options, checkpoint):
    """(`Begun`, scan, `Result`) of a configuration."""
    scan, experiment = _measured(args, made)
    resume = made.ranks.from_first(lambda: args.resume and checkpoint.exists())
    if args.resume and not resume:
        say(f"no checkpoint {checkpoint}: from the beginning")

    voxel = experiment.suggest_voxel() if method.chooses_voxel else made.voxel(experiment)
    shown = made.ranks.shown(not args.quiet)
    setup = starts.Setup(made, method, scan, experiment, voxel, shown, say)
    begun = starts.go_on(setup, checkpoint) if resume and method.checkpoint_is_start else starts.begin(setup)
    given = begun.model, scan.data, scan.mask
    options |= _known(scan, options)
    if method.chooses_voxel:
        options |= {"voxel": made.wanted_voxel(experiment), "phased": begun.phased}
    memory.check(made, begun, scan, options, checkpoint)
    files = {"checkpoint": checkpoint, "resume": resume}
    result = method.run(*given, begun.start, begun.support, options=options, progress=shown, **files)
    say(f"relative misfit {result.misfit:.4e} after {result.epochs} epochs, {result.support.sum()} voxels in support")
    if result.model is not None:
        say(f"voxels chosen: {starts.describe_grid(result.model)}")
    if _polishes(made, method):
        polishing = methods.polish_options(options, made) | {"rounds": made.recipe.polish_rounds}
        kept = _of_polish(checkpoint)
        files = {"checkpoint": kept, "resume": made.ranks.from_first(lambda: _goes_on(args, kept, result))}
        result = _polished(*given, result, progress=shown, **files, **polishing)
    return begun, scan, result


def _polishes(made, method):
    """Whether a polish comes after the method."""
    return bool(made.recipe.polish_rounds) and not method.polishes_itself


def _of_polish(checkpoint):
    """The checkpoint of the polish after a method with this one."""
    return checkpoint.with_name(f"{checkpoint.stem}.polish{checkpoint.suffix}")


def _goes_on(args, checkpoint, result):
    """Whether a polish goes on from its checkpoint: where that is of this result, and not of one with fewer epochs."""
    if not args.resume or not checkpoint.exists():
        return False
    same = begins_with(checkpoint, result.S)
    if not same:
        say(f"{checkpoint} polishes another crystal: polished from the beginning")
    return same


def _tell_trust(result):
    if result.free_misfit is not None:
        say(f"held-out pixels: relative misfit {result.free_misfit:.4e}, loss {result.free_loss:.4e} per pixel")
    if result.trust is not None:
        say(f"trust: {result.trust}")


def _measured(args, made):
    """The scan, and the experiment with what it knows."""
    missing = [path for path in ([] if args.data else made.paths("data.path")) if not path.exists()]
    if missing:
        raise ConfigError(f"data.path: expected a file or folder, got no such one {missing[0]}")
    if args.data and not Path(args.data).exists():
        raise UsageError(f"--data: expected a file or folder, got no such one {args.data}")
    scan = made.scan(args.data)
    say(f"data: {' x '.join(map(str, scan.data.shape))} (frames, rows, cols), {scan.mask.mean():.1%} good pixels")
    experiment = made.experiment(scan)
    say(repr(experiment))
    return scan, experiment


def _known(scan, options):
    """What a scan knows of the beam, as keywords of a method whose own are ``options``."""
    known = {} if scan.flux is None else {"flux": scan.flux}
    if scan.background is not None:
        counted = COUNTED.background if options.get("counts") else 0.0
        known["background"] = scan.background + options.get("background", counted)
    return known


def _polished(model, data, mask, result, **options):
    """The result, polished with all pixels in."""
    result = polish(model, data, mask, result, trim=None, **options)
    say(f"polished: relative misfit {result.misfit:.4e}, {result.support.sum()} voxels in support")
    return result


def run_view(args):
    result = _existing(args.result)
    picture = Path(args.output) if args.output else result.with_suffix(".png")
    _claim_picture(args, picture, [result])
    stored = io.read_result(result)
    if picture.suffix.lower() == ".vti":
        io.write_vti(picture, stored, force=args.force)
    elif picture.suffix.lower() in (".html", ".htm"):
        from ..analysis.report import write_report

        write_report(picture, stored, force=args.force)
    else:
        from ..analysis import plot

        _save(plot.result_figure(stored), picture, args.force)
    say(f"written to {picture}")


def run_compare(args):
    results = [_existing(name) for name in args.results]
    if len(results) < 2:
        raise UsageError("RESULT.cxi: expected two results or more, got one")
    picture = None if args.output is None else Path(args.output)
    if picture is not None:
        _claim_picture(args, picture, results)
    stored = [io.read_result(path) for path in results]
    first, h = stored[0], _h_of(stored[0])
    for path, other in zip(results, stored, strict=True):
        _refuse_another(path, other, results[0], first)
    told = repeatability([one.S for one in stored], first.voxel, h=h)
    say(str(told))
    if picture is not None:
        from ..analysis import plot

        _save(plot.repeatability_figure(told, first.voxel, str(told)), picture, args.force)
        say(f"written to {picture}")


def _refuse_another(path, other, first_path, first):
    """Refuse a result on other voxels than the first one, or of another reflection."""
    if first.voxel is None or other.voxel is None or not np.allclose(other.voxel, first.voxel, rtol=1e-6, atol=0):
        raise ValueError(f"{path}: expected a result on the voxels of {first_path}, {first.voxel} m, got {other.voxel}")
    h, its = _h_of(first), _h_of(other)
    if h is not None and its is not None and np.linalg.norm(its - h) > OTHER_H * np.linalg.norm(h):
        raise ValueError(f"{path}: expected the reflection of {first_path}, h = {h} rad/m, got {its}")


def _h_of(stored):
    """(x, y, z) rad/m, or None."""
    return None if stored.k_h is None or stored.k_0 is None else stored.k_h - stored.k_0


def _existing(name):
    path = Path(name)
    if not path.exists():
        raise UsageError(f"RESULT.cxi: expected a result file, got no such file {path}")
    return path


def _claim_picture(args, picture, results):
    written, read = [Written("-o", picture, (kinds.PICTURE,))], [outputs.Read("RESULT.cxi", path) for path in results]
    outputs.refuse_losses(written, read, force=args.force)


def _save(figure, picture, force):
    from ..analysis import plot

    known = figure.canvas.get_supported_filetypes()
    if picture.suffix[1:].lower() not in known:
        raise UsageError(f"-o: expected an ending out of {', '.join(sorted(known))}, got {picture}")
    plot.save(figure, picture, force=force)


def run_config(args):
    say(campaign.listing() if args.campaign else schema.listing())


def run_info(_):
    for name, value in (info() | store.versions()).items():
        say(f"{name}: {value}")


def _output(args, made):
    """(option, file to write), from -o or output.path."""
    if args.output is None and made.output.path is None:
        raise UsageError("-o: expected a file to write, got none, and no output.path in the config")
    option, path = ("-o", Path(args.output)) if args.output else ("output.path", made.path("output.path"))
    outputs.refuse_unwritable(option, path)  # before other names are made of it
    return option, path
