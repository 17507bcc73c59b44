"""How much memory this process may take, and how much of it is left."""

import contextlib
import os
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has none
    resource = None

CGROUPS, STATUS, GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/status"), Path("/proc/self/cgroup")


def size_of(count: int) -> str:
    """A number of bytes in words."""
    power = max(0, min(3, (int(count).bit_length() - 1) // 10))
    return f"{count / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB')[power]}"


def total() -> int:
    """Bytes that this process may take: of the machine, its control group (container, batch job), and its own limit."""
    return min(_resident_limit(), _address_limit())


def left() -> int:
    """Bytes that this process may take beside those that it has."""
    resident, address = _taken()
    return max(0, min(_resident_limit() - resident, _address_limit() - address))


def _resident_limit():
    """Of the machine, or of the control groups that this process is in."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits()])


def _address_limit():
    """RLIMIT_AS, which counts addresses, whether there is anything at them or not."""
    if resource is None:
        return 1 << 62
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 1 << 62 if limit == resource.RLIM_INFINITY else limit


def _group_limits():
    """Limits of the control groups, of either version, and of those that they are in; none is a number beyond reach."""
    with contextlib.suppress(OSError, ValueError):
        for line in GROUP.read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if not kinds:
                folder, name = CGROUPS, "memory.max"
            elif "memory" in kinds.split(","):
                folder, name = CGROUPS / "memory", "memory.limit_in_bytes"
            else:
                continue
            within = Path(place.lstrip("/"))
            for group in (within, *within.parents):
                with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                    yield int((folder / group / name).read_text())


def _taken():
    """(bytes in memory, bytes of addresses) of this process; 0 where the system does not tell."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for line in STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmSize"):
                found[name] = int(value.split()[0]) << 10
    return found.get("VmRSS", 0), found.get("VmSize", 0)
