"""Ranks: processes that share the frames of every pass, and what goes between them.

All ranks run the same program on the same arrays; only passes over frames are divided (`pendel.model.ranked`). What one
rank has to itself is a share of the groups of frames, and the first rank the files.

(1) sum over groups = node(top, 0),   node(0, g) of group g,   node(l, p) = node(l - 1, 2 p) + node(l - 1, 2 p + 1)

Arrays are added in the order of (1), which knows groups and no ranks, and where the right one is missing the left one
stays. A rank adds what it has of the tree by itself; the nodes that are left go, slice by slice, to the ranks that
finish a slice each, and the slices to all. With numbers the ranks tell each other what went wrong: an error of one rank
becomes that of all.

Waiting asks again and again instead of blocking, for a signal is heard between two questions alone.
"""

import os
import pickle
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..base import checks
from ..operator.cpu_engine import available_threads
from .signature import DIGEST, as_text

BUSY, PAUSE = 2e-3, 1e-4  # s: how long a wait asks without pause, and the pause from then on
# s that the first rank has to tell of an error that all may have, and, after a signal, to write what is finished
GRACE, PATIENCE = 3.0, 60.0
INTERRUPTED = 31415  # tag of the message that tells the first rank of a signal to another

T = TypeVar("T")


class Alone:
    """One process: nothing to share, nobody to tell."""

    rank, size, neighbours = 0, 1, 1
    comm: Any = None

    @property
    def first(self) -> bool:
        """Whether this rank writes files and shows progress."""
        return self.rank == 0

    def shown(self, progress: bool | str) -> bool | str:
        """``progress`` as an algorithm takes it, on the first rank; False on the others."""
        return progress if self.first else False

    def threads(self, threads: int | None) -> int | None:
        """Threads of this rank, where none are asked for (None)."""
        return threads

    def from_first(self, compute: Callable[[], T]) -> T:
        """What ``compute`` gives on the first rank; what it raises there is raised by all."""
        return compute()

    def refuse_different(self, values: dict[str, Any]) -> None:
        """Raise ValueError naming the first of the ``values`` that is not the same on all ranks."""


ALONE = Alone()


class Ranks(Alone):
    """The ranks of a communicator. All methods but `share` are for all ranks at once.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm

    Attributes
    ----------
    rank, size : int
    neighbours : int
        Ranks on this machine, this one among them.
    exchanges, sent : int
        Collective calls so far, and bytes that this rank had to send to others in them.

    Raises
    ------
    TypeError
        For anything else.
    """

    def __init__(self, comm: Any) -> None:
        mpi = sys.modules.get("mpi4py.MPI")  # whoever has a communicator has imported it
        if mpi is None or not isinstance(comm, mpi.Intracomm):
            raise TypeError(f"comm: expected an mpi4py.MPI.Intracomm or None, got {checks.describe(comm)}")
        if comm == mpi.COMM_NULL:
            raise ValueError("comm: expected a communicator of this process, got MPI.COMM_NULL")
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.exchanges = self.sent = 0
        self._unfinished: list = []
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        places = self._gather((socket.gethostname(), cpus))
        self.neighbours = [host for host, _ in places].count(places[self.rank][0])
        self._sharing = places.count(places[self.rank])  # ranks that may run on the same CPUs
        if self.size > 1:
            end_together(comm)

    def share(self, count: int) -> range:
        """Which of ``count`` groups are this rank's; none where there are fewer than ranks."""
        return share(count, self.rank, self.size)

    def threads(self, threads):
        if threads is not None or "PENDEL_NUM_THREADS" in os.environ:
            return threads
        return max(1, available_threads() // self._sharing)

    def gathered(self, compute: Callable[[], T]) -> list[T]:
        """What ``compute`` gives on every rank, in their order; the first error of any is raised by all."""
        try:
            told = None, compute()
        except Exception as error:
            told = _portable(error), None
        everything = self._gather(told)
        for error, _ in everything:
            if error is not None:
                raise error
        return [value for _, value in everything]

    def from_first(self, compute):
        return self.gathered(compute if self.first else lambda: None)[0]

    def refuse_different(self, values):
        if self.size == 1:
            return
        texts = {name: value if isinstance(value, str) else as_text(value) for name, value in values.items()}
        texts = self._gather(texts)
        for name, text in texts[0].items():
            for rank, others in enumerate(texts):
                other = others.get(name)
                if other == text:
                    continue
                if other is None or text.startswith(DIGEST):
                    text, other = "one on rank 0", "another"
                raise ValueError(f"{name}: expected the same on all ranks, got {text} and {other} on rank {rank}")

    def joined(self, part: np.ndarray, sizes: list[int]) -> np.ndarray:
        """All rows of an array, ``sizes`` of every group, where ``part`` has those of this rank's `share` of them."""
        if self.size == 1:
            return part
        whole = np.empty((sum(sizes), *part.shape[1:]), part.dtype)
        row, shares = whole.size // len(whole), (share(len(sizes), rank, self.size) for rank in range(self.size))
        self._join(part, whole, [row * sum(sizes[i] for i in groups) for groups in shares])
        return whole

    def added(self, partial: "Partial") -> np.ndarray:
        """(1) of what the ranks have of it."""
        if self.size == 1:
            return partial.nodes[partial.height, 0]
        size, dtype, groups = partial.size, partial.dtype, partial.groups
        edges = [size * i // self.size for i in range(self.size + 1)]
        slices = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        held = [Partial(groups, size, dtype).of(share(groups, rank, self.size)) for rank in range(self.size)]

        own = slices[self.rank].stop - slices[self.rank].start
        packed = [node[where] for where in slices for node in partial.nodes.values()]
        sent = np.concatenate(packed) if packed else np.empty(0, dtype)
        sizes = [len(partial.nodes) * (where.stop - where.start) for where in slices]
        received = np.empty((sum(map(len, held)), own), dtype)
        self._count((sum(sizes) - sizes[self.rank]) * dtype.itemsize)
        buffers = [sent, sizes], [received, [len(nodes) * own for nodes in held]]
        self._wait(self.comm.Ialltoallv(*buffers), buffers)

        places = [place for nodes in held for place in nodes]
        finished = Partial(groups, own, dtype).finish(dict(zip(places, received, strict=True)))
        whole = np.empty(size, dtype)
        self._join(finished, whole, [where.stop - where.start for where in slices])
        return whole

    def _join(self, part, whole, sizes):
        """Allgather of ``part``, contiguous, into ``whole``: ``sizes`` numbers of each rank."""
        self._count(part.nbytes * (self.size - 1))
        buffers = np.ascontiguousarray(part), [whole, sizes]
        self._wait(self.comm.Iallgatherv(*buffers), buffers)

    def _gather(self, value):
        """[value of every rank]."""
        if self.size == 1:
            return [value]
        own = np.frombuffer(pickle.dumps(value, protocol=5), np.uint8)
        sizes, length = np.empty(self.size, np.int64), np.array([len(own)], np.int64)
        self._count(8 * (self.size - 1))
        self._wait(self.comm.Iallgather(length, sizes), (length, sizes))
        whole = np.empty(sizes.sum(), np.uint8)
        self._join(own, whole, sizes.tolist())
        return [pickle.loads(part) for part in np.split(whole, np.cumsum(sizes)[:-1])]

    def _count(self, sent):
        if self._unfinished:
            raise RuntimeError("comm: expected one whose exchanges all came to an end, got one that was interrupted")
        self.exchanges, self.sent = self.exchanges + 1, self.sent + sent

    def _wait(self, request, buffers):
        """Until a request is through; ``buffers`` stay where they are even if that never is."""
        until = time.monotonic() + BUSY
        try:
            while not request.Test():
                if time.monotonic() < until:
                    continue
                if self.first and self.comm.Iprobe(tag=INTERRUPTED):
                    raise KeyboardInterrupt("another rank was interrupted")
                time.sleep(PAUSE)
        except BaseException:
            self._unfinished.append((request, buffers))
            raise


class Partial:
    """What a rank has of (1): nodes {(level, place): array (size,)}, of which none are left that it can add itself.

    Parameters
    ----------
    groups : how many there are in all
    size, dtype : of the arrays
    """

    def __init__(self, groups, size, dtype):
        self.groups, self.size, self.dtype = groups, size, np.dtype(dtype)
        self.height = (groups - 1).bit_length()
        self.nodes = {}

    def add(self, group, array):
        """That of one more group, in their order; ``array`` may be changed later."""
        level, place = 0, group
        while level < self.height:
            if place % 2:
                if (level, place - 1) not in self.nodes:
                    break
                left = self.nodes.pop((level, place - 1))
                array = None if array is None else np.add(left, array, out=left)
            elif self._has_right(level, place):
                break
            level, place = level + 1, place // 2
        self.nodes[level, place] = array

    def of(self, groups):
        """The places of the nodes of a rank that has these ``groups``, in their order."""
        for group in groups:
            self.add(group, None)
        return list(self.nodes)

    def finish(self, nodes):
        """node(top, 0), where ``nodes`` are those of all ranks."""

        def node(level, place):
            found = nodes.get((level, place))
            if found is not None:
                return found
            left = node(level - 1, 2 * place)
            return left + node(level - 1, 2 * place + 1) if self._has_right(level - 1, 2 * place) else left

        return node(self.height, 0)

    def _has_right(self, level, place):
        """Whether there are groups right of a left node."""
        return (place + 1) << level < self.groups


def share(count, rank, size):
    """Which of ``count`` groups are those of a rank: nearly as many as of the others."""
    return range(count * rank // size, count * (rank + 1) // size)


def ranks_of(comm: Any, device: str = "cpu") -> Alone:
    """The `Ranks` of a communicator, or `ALONE` for None.  Raises ValueError for a ``device`` that has none."""
    if comm is None:
        return ALONE
    ranks = Ranks(comm)
    if device != "cpu":
        raise ValueError(f"comm: expected None with device {device!r}, got {checks.describe(comm)}")
    return ranks


def _portable(error):
    """An error that another process can read."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def leave_to_first(comm: Any, *, interrupted: bool) -> None:
    """Wait for the first rank to end all; of a signal, ``interrupted``, which that may not have got, it is told."""
    told = comm.Isend(np.zeros(1, np.uint8), dest=0, tag=INTERRUPTED) if interrupted else None
    until = time.monotonic() + (PATIENCE if interrupted else GRACE)
    while time.monotonic() < until:
        if told is not None:
            told.Test()
        time.sleep(0.05)


class _Ending:
    """Whether an error that nobody caught ends all ranks."""

    comm = None


def end_together(comm: Any) -> None:
    """From now on an error that this program does not catch ends all ranks of ``comm``, after it was told."""
    if _Ending.comm is not None:
        return
    _Ending.comm, told_before = comm, sys.excepthook

    def tell_and_end(kind, error, trace):
        if comm.rank:
            leave_to_first(comm, interrupted=issubclass(kind, KeyboardInterrupt))
            print(f"rank {comm.rank} of {comm.size}:", file=sys.stderr, flush=True)
        told_before(kind, error, trace)
        sys.stderr.flush()
        comm.Abort(1)

    sys.excepthook = tell_and_end
