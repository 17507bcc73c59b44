"""How much memory this process may take, and how much of it is left."""

import contextlib
import os
import resource
from pathlib import Path

CGROUPS, GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MACHINE, STATUS = Path("/proc/meminfo"), Path("/proc/self/status")

# Addresses that NumPy and SciPy take as they are imported, and for each thread of their OpenBLAS; measured with NumPy
# 2.4 and SciPy 1.17: 294 MB with one, 375 MB with two. OpenBLAS that gets none tries again for ever.
IMPORTED, PER_THREAD = 230 << 20, 85 << 20
# What matplotlib takes as it is imported, and the picture of a result: measured 61 MB with matplotlib 3.11. Where its
# libraries get none as they begin, the process dies.
DRAWN = 96 << 20
SHORT = 32 << 20  # less is left where it is the machine that a file cannot be read for


def size_of(count: int) -> str:
    """A number of bytes in words."""
    power = max(0, min(3, (int(count).bit_length() - 1) // 10))
    return f"{count / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def total() -> int:
    """Bytes that this process may take: of the machine, its control group (container, batch job), and its own limit."""
    return min([_machine(), _address_limit(), *(limit for limit, _ in _groups())])


def left() -> int:
    """Bytes that this process may take beside those that it and others have."""
    free = _named(MACHINE, "MemAvailable:", _machine() >> 10) << 10
    addresses = _address_limit() - (_named(STATUS, "VmSize:") << 10)
    return max(0, min([free, addresses, *(limit - taken for limit, taken in _groups())]))


def refuse_too_few_addresses() -> None:
    """MemoryError where RLIMIT_AS leaves too little to import NumPy and SciPy, before it is tried."""
    asked = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    cores = len(os.sched_getaffinity(0))
    threads = min(cores, int(asked)) if asked.isdigit() and int(asked) > 0 else cores
    needed, limit = IMPORTED + threads * PER_THREAD, _address_limit()
    if limit < needed:
        raise MemoryError(
            f"expected a limit of addresses (ulimit -v) of {size_of(needed)} or more for NumPy and SciPy on {threads} "
            f"threads, got {size_of(limit)}; raise it, or set OMP_NUM_THREADS=1"
        )


def refuse_too_little_to_draw() -> None:
    """MemoryError where too little is left to import matplotlib and draw, before it is tried."""
    if (there := left()) < DRAWN:
        raise MemoryError(f"expected {size_of(DRAWN)} for matplotlib and a picture, got {size_of(there)} that are left")


def _machine():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _address_limit():
    """RLIMIT_AS, which counts addresses, whether there is anything at them or not."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 1 << 62 if limit == resource.RLIM_INFINITY else limit


def _groups():
    """(limit, bytes taken) of the control groups of this process, of either version, and of those that they are in."""
    with contextlib.suppress(OSError, ValueError):
        for line in GROUP.read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if not kinds:
                folder, limit, taken, cache = CGROUPS, "memory.max", "memory.current", "inactive_file"
            elif "memory" in kinds.split(","):
                folder, limit, taken = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
                cache = "total_inactive_file"
            else:
                continue
            within = Path(place.lstrip("/"))
            for group in (folder / path for path in (within, *within.parents)):
                with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                    most = int((group / limit).read_text())
                    # pages of files that nobody reads make room
                    yield most, int((group / taken).read_text()) - _named(group / "memory.stat", cache)


def _named(path, name, default=0):
    """The whole number behind a name, in a file of lines; ``default`` where there is none."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] == [name]:
                return int(words[1])
    return default
