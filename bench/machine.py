"""What a measured time belongs to: machine, commit, compiler, instruction set.

python bench/machine.py             the machine's name, as files of bench/references are named
python bench/machine.py --about     all of it
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# CPUs that this process might use when it began: those that time one thread keep it to one of them.
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
COMPILER = rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+"  # as compilers sign what they make


def processor():
    """The processor's own name."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else []
    return names[0].strip() if names else platform.processor() or platform.machine()


def name():
    """Of the machine, for a file: processor and how many CPUs this process may use."""
    words = re.sub(r"\((R|TM)\)|\bCPU\b|@.*$", "", processor(), flags=re.IGNORECASE).lower()
    return f"{'-'.join(re.findall(r'[a-z0-9.]+', words))}-{CPUS}-cpus"


def commit():
    """Of the sources beside this file; PENDEL_COMMIT where there is no git."""
    if os.environ.get("PENDEL_COMMIT"):
        return os.environ["PENDEL_COMMIT"]
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def compiler():
    """What has compiled the engine, by its signature in the extension."""
    from pendel.operator.library import path_of

    signed = re.findall(COMPILER, path_of("pendel_cpu").read_bytes())
    return ", ".join(sorted({text.decode() for text in signed})) or "unknown"


def about():
    """{what: text} of all that a time depends on beside the code that is timed."""
    import numpy as np
    import pendel

    return {
        "machine": name(),
        "processor": processor(),
        "commit": commit(),
        "compiler": compiler(),
        "pendel": pendel.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    } | {key: str(value) for key, value in pendel.info().items() if key != "pendel"}


def main():
    if sys.argv[1:] == ["--about"]:
        print(json.dumps(about(), indent=1))
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        print(name())


if __name__ == "__main__":
    main()
