"""Command line: pendel demo | init | simulate | reconstruct | batch | view | compare | plan | check | config | info.

Exit status: 0 success, 2 bad command line or configuration (the message names the option or key), 1 a failed run,
128 + n ended by signal n. Results go to stdout, progress, warnings and errors to stderr; that nobody reads them fails
no run.
"""

import argparse
import contextlib
import os
import signal
import sys
import warnings

from ..base import interruption, memory
from ..base.printing import Forgiving, warn
from ..base.version import __version__
from .errors import ConfigError, UsageError

OVERRIDE = "override a key of it; text needs quotes: 'start.kind=\"file\"'"
EXAMPLE = """\
a first picture:    pendel demo
a scan of yours:    pendel init SCAN -o scan.toml --material Au --hkl 1 1 1
                    pendel reconstruct scan.toml -o result.cxi
hundreds of them:   pendel batch campaign.toml
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (None: that of the process) and return its exit status."""
    with interruption.raised(), _forgiving_streams():
        try:
            args = _parser().parse_args(arguments)
        except SystemExit as exit:  # argparse has said why
            return int(exit.code or 0)
        except KeyboardInterrupt:
            return _ended_by_signal()
        with warnings.catch_warnings():
            warnings.showwarning = _show
            return _run(args)


def _show(message, *_, **__):
    warn(f"pendel: warning: {message}")


def _run(args):
    """Exit status of a command."""
    try:
        if args.run is None:
            warn(_parser().format_help())
            return 2
        memory.refuse_too_few_addresses()
        if args.mpi:
            _run_ranked(args)
        else:
            _function(args.run)(args)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            raise
        status, text = _explain(error)
    text = f"pendel: error: {' '.join(text.split())}"
    if args.ranks is not None and args.ranks.size > 1:
        from . import mpi

        mpi.end_all(args.ranks, status, text)
    warn(text)
    return status


def _run_ranked(args):
    """A command as one of several ranks."""
    from . import mpi

    args.ranks = mpi.world()
    with mpi.one_speaks(args.ranks):
        _function(args.run)(args)


def _function(name):
    """What runs a command. What computes takes long to import: help needs none of it, a plan little."""
    if name in ("run_plan", "run_check"):
        from . import planning as module
    elif name == "run_batch":
        from . import batch as module
    else:
        from . import commands as module
    return getattr(module, name)


@contextlib.contextmanager
def _forgiving_streams():
    """Nothing that argparse or others print fails a run. What could not be delivered goes nowhere, or Python itself
    would fail for it at its end.
    """
    with contextlib.ExitStack() as streams:
        for redirect, stream in (
            (contextlib.redirect_stdout, sys.stdout),
            (contextlib.redirect_stderr, sys.stderr),
        ):
            if stream is not None:
                streams.callback(_drain, stream)
            streams.enter_context(redirect(Forgiving(stream)))
        yield


def _drain(stream):
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _ended_by_signal():
    return 128 + (interruption.received() or signal.SIGINT)


def _explain(error):
    """Exit status and message of an error."""
    if interruption.received() is not None:  # whatever it became on its way
        return _ended_by_signal(), "interrupted"
    if isinstance(error, (ConfigError, UsageError)):
        return 2, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 1, "interrupted"
    if isinstance(error, MemoryError):
        return 1, f"out of memory{': ' if str(error) else ''}{error}"
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return 1, str(error)
    return 1, f"{type(error).__name__}: {error} (--debug shows where)"


def _parser():
    parser = argparse.ArgumentParser(
        prog="pendel",
        description="Dynamical Bragg coherent diffraction imaging.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pendel {__version__}")
    parser.set_defaults(run=None, debug=False, mpi=False, ranks=None)
    _add_commands(parser.add_subparsers(metavar="COMMAND"))
    return parser


def _add_commands(commands):
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--quiet", action="store_true", help="no progress")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("config", metavar="CONFIG.toml")
    configured.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (model.device)")
    configured.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help=OVERRIDE)

    replacing = argparse.ArgumentParser(add_help=False)
    replacing.add_argument(
        "--force", action="store_true", help="replace files of any kind, but none that the command reads"
    )

    def command(name, text, *parents):
        sub = commands.add_parser(name, help=text, description=text, parents=[common, *parents])
        sub.set_defaults(run=f"run_{name}")  # see `_function`
        return sub

    text = "simulate a gold cube, phase it kinematically, reconstruct it dynamically, compare"
    _add_demo(command("demo", text, replacing))
    _add_init(
        command("init", "write a commented configuration for a scan: what its files say and do not say", replacing)
    )

    sub = command("simulate", "compute the frames of a test crystal", configured, replacing)
    sub.add_argument("-o", "--output", metavar="DATA.cxi", help="file to write (output.path)")

    text = "reconstruct the crystal function of a measured scan"
    sub = command("reconstruct", text, configured, replacing)
    sub.add_argument("--data", metavar="PATH", help="file or folder of the scan (data.path)")
    sub.add_argument("-o", "--output", metavar="RESULT.cxi", help="file to write (output.path)")
    sub.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    text = "share the frames among the processes of mpiexec -n N pendel reconstruct CONFIG.toml --mpi"
    sub.add_argument("--mpi", action="store_true", help=text)

    _add_batch(command("batch", "run all scans of a campaign with its configurations, and tell of them in one table"))

    sub = command("view", "draw a result file", replacing)
    sub.add_argument("result", metavar="RESULT.cxi")
    sub.add_argument(
        "-o", "--output", metavar="PICTURE", help="html to slide through, png, pdf ..., vti for ParaView (RESULT.png)"
    )

    sub = command("compare", "how well results of several seeds, starts or scans of one crystal agree", replacing)
    sub.add_argument("results", nargs="+", metavar="RESULT.cxi")
    sub.add_argument("-o", "--output", metavar="PICTURE", help="png, pdf, svg ... (none)")

    _add_plan(
        command("plan", "how far kinematic phasing of a crystal can be trusted, and what scan it needs", replacing)
    )
    text = "how much of a finished object's phase and strain is refraction and extinction"
    _add_check(command("check", text, replacing))

    sub = command("config", "print all keys of a configuration file, with their defaults and what they mean")
    sub.add_argument("--campaign", action="store_true", help="those of a campaign file, for pendel batch")
    command("info", "what is installed and what it uses")


def _add_demo(sub):
    """Options of `pendel demo`."""
    sub.add_argument("--size", type=int, default=48, metavar="N", help="frames, and pixels along an axis (48)")
    sub.add_argument("-o", "--output", default="pendel-demo", metavar="DIR", help="folder to write (pendel-demo)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, help="CPU threads (all)")
    sub.add_argument("--photons", type=float, default=1e6, help="Poisson noise: photons in the brightest pixel (1e6)")


def _add_init(sub):
    """Options of `pendel init`."""
    sub.add_argument("scan", metavar="SCAN", help="file or folder of a scan")
    sub.add_argument("-o", "--output", metavar="CONFIG.toml", help="file to write (printed)")
    sub.add_argument("--format", default="auto", help="who wrote the scan, as data.format (auto)")
    sub.add_argument("--number", type=int, metavar="N", help="of the scan in a SPEC file")
    sub.add_argument("--material", help="name or CIF file of the crystal")
    sub.add_argument("--hkl", type=int, nargs=3, metavar=("H", "K", "L"), help="reflection")


def _add_batch(sub):
    """Options of `pendel batch`."""
    sub.add_argument("campaign", metavar="CAMPAIGN.toml", help="pendel config --campaign prints its keys")
    sub.add_argument("--dry-run", action="store_true", help="list the jobs and how far they are; nothing is written")
    sub.add_argument("--jobs", metavar="I/N", help="only the I-th of N shares, as of a job array; I from 1")
    sub.add_argument("--workers", type=int, metavar="N", help="runs at a time (workers)")
    text = "write a script for sbatch, which runs the campaign as a job array; nothing is submitted"
    sub.add_argument("--slurm", metavar="SCRIPT.sh", help=text)
    sub.add_argument(
        "--tasks", type=int, metavar="N", help="of that array (one for every so many jobs as workers, at most 100)"
    )
    text = "run again what is stale, and replace files of any kind, but none that is read"
    sub.add_argument("--force", action="store_true", help=text)


def _add_plan(sub):
    """Options of `pendel plan`."""
    sub.add_argument("material", metavar="MATERIAL", help="Au, Pt, Si ..., or a CIF file")
    sub.add_argument("--hkl", type=int, nargs=3, required=True, metavar=("H", "K", "L"))
    sub.add_argument("--energy", type=float, required=True, metavar="KEV")
    text = "diameter of the sphere of the crystal's volume (the largest that is phased right)"
    sub.add_argument("--size", type=float, metavar="NM", help=text)
    text = "rms errors that are good enough (0.1 rad, 1e-4)"
    sub.add_argument("--bounds", type=float, nargs=2, metavar=("RAD", "STRAIN"), help=text)
    text = "rms phase of the crystal's own strain (0.5)"
    sub.add_argument("--own-phase", type=float, metavar="RAD", help=text)
    text = "sigma (the default): electric field normal to the scattering plane"
    sub.add_argument("--polarization", choices=("sigma", "pi"), default="sigma", help=text)
    sub.add_argument("--voxel", type=float, metavar="NM", help="width of the voxels that are wanted (size/25)")
    sub.add_argument("--pixel", type=float, metavar="UM", help="of the detector")
    sub.add_argument("--distance", type=float, metavar="M", help="from sample to detector")
    sub.add_argument("--plot", metavar="PICTURE", help="png, pdf, svg ...")


def _add_check(sub):
    """Options of `pendel check`."""
    sub.add_argument("result", metavar="RESULT.cxi", help="or a folder of cohere")
    sub.add_argument("-o", "--output", metavar="PICTURE", help="png, pdf, svg ... (RESULT.check.png)")
    text = "geometry and crystal of an object that does not know them, as of PyNX or cohere"
    sub.add_argument("--config", metavar="CONFIG.toml", help=text)
    sub.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help=OVERRIDE)
    sub.add_argument("--twin", action="store_true", help="of the object's conjugate twin: refraction has a direction")


if __name__ == "__main__":
    sys.exit(main())
