"""HDF5 files that can be read to an end: HDF5 itself goes round and round in some damaged ones, and nothing stops it.

Texts of any length and the maps of virtual datasets lie in global heaps, objects one behind the other, each with its
size. One that lost its contents, as to a disk that came back with zeros, has objects of no size, and HDF5 never gets
beyond the first (up to 2.0 at least). So every piece of a file passes through Python on its way to HDF5, and a heap is
walked here before HDF5 walks it.
"""

import io
import os
from pathlib import Path

import h5py

HEAP = b"GCOL"  # what a global heap begins with; HDF5 asks for one by its address
ALIGNED = 8  # bytes: what objects of a heap begin at multiples of
ADDRESSES = 1 << 64
LARGEST = 1 << 28  # bytes of a heap: it holds some kB, or one text


class GuardedFile(h5py.File):
    """An HDF5 file, open for reading, with the lock that HDF5 takes.

    Reading it raises OSError where HDF5 would not come back. Raises what `h5py.File` does where it cannot be opened.
    """

    def __init__(self, path: Path | str):
        self._locked = h5py.File(path, "r")
        try:
            self._pieces = _Pieces(path, self._locked.id.get_create_plist().get_sizes()[1])
            super().__init__(path, "r", driver="fileobj", fileobj=self._pieces)
        except BaseException:
            self._locked.close()
            raise

    def close(self) -> None:
        """Close it, and let go of its lock."""
        super().close()
        self._pieces.close()
        self._locked.close()


class _Pieces(io.FileIO):
    """A file as HDF5 asks for it, whose heaps have an end.  length : bytes of a number of bytes in this file."""

    def __init__(self, path, length):
        super().__init__(path, "rb")
        self._length, self._sound = length, set()

    def readinto(self, buffer):
        """Fill ``buffer``, of any size; the operating system gives at most 2 GiB at a time."""
        begin, done, view = self.tell(), 0, memoryview(buffer).cast("B")
        while done < len(view):
            count = super().readinto(view[done:])
            if not count:
                break
            done += count
        if view[: len(HEAP)] == HEAP and begin not in self._sound:
            self._walk(begin)
            self._sound.add(begin)
        return done

    def _walk(self, begin):
        """OSError for a heap in which a step from object to object leads nowhere."""
        number = len(HEAP) + 4, len(HEAP) + 4 + self._length
        size = int.from_bytes(os.pread(self.fileno(), number[1], begin)[slice(*number)], "little")
        if size > LARGEST:
            raise OSError(f"a heap of texts at byte {begin} that is larger than any of {LARGEST} bytes")
        heap = os.pread(self.fileno(), size, begin)
        head = _aligned(8 + self._length)
        at = head
        while at + head <= len(heap):
            index = int.from_bytes(heap[at : at + 2], "little")
            size = int.from_bytes(heap[at + 8 : at + 8 + self._length], "little")
            step = (head + _aligned(size) if index else size) % ADDRESSES
            if step == 0:
                raise OSError(f"a heap of texts at byte {begin} with an object of no size, which HDF5 reads for ever")
            at += step


def _aligned(size):
    return -(-size // ALIGNED) * ALIGNED
