"""The command line on several ranks: the first one speaks and writes, and none outlives another."""

import contextlib
import os
import warnings
from typing import NoReturn

from ..base import interruption
from ..base.printing import warn
from ..model.ranks import Ranks, leave_to_first
from .errors import UsageError


def world() -> Ranks:
    """The `Ranks` of all processes that were started together."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter: no MPI library that it could load
        raise UsageError(
            f"--mpi: expected the package mpi4py and an MPI library, got {error}; pip install 'pendel[mpi]'"
        ) from None
    return Ranks(MPI.COMM_WORLD)


@contextlib.contextmanager
def one_speaks(ranks: Ranks):
    """In the block only the first rank prints results and warnings."""
    if ranks.first:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def end_all(ranks: Ranks, status: int, text: str) -> NoReturn:
    """Tell of an error and end all ranks with this exit status.

    Others than the first give it time: what all ranks have come upon it tells alone, and after a signal it writes what
    is finished.
    """
    if not ranks.first:
        leave_to_first(ranks.comm, interrupted=interruption.received() is not None)
        text = f"{text} (rank {ranks.rank} of {ranks.size})"
    warn(text)
    ranks.comm.Abort(status)
    raise SystemExit(status)
