"""python needs.py WHEEL VERSION: fail where a library in the wheel needs a newer C library, or one that is nobody's.

`auditwheel` does this for the processor it runs on; this for any, by the names of versions in the files.
"""

import re
import sys
import zipfile

ALLOWED = {b"libc.so.6", b"libm.so.6", b"libpthread.so.0", b"libdl.so.2", b"librt.so.1"}
ALLOWED |= {b"ld-linux-x86-64.so.2", b"ld-linux-aarch64.so.1"}


def main(wheel, most):
    most = tuple(map(int, most.split(".")))
    with zipfile.ZipFile(wheel) as archive:
        libraries = {name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}
    if not libraries:
        sys.exit(f"{wheel}: expected shared libraries, found none")
    for name, content in libraries.items():
        versions = {tuple(map(int, v.split(b"."))) for v in re.findall(rb"GLIBC_([0-9.]+)\0", content)}
        needed = set(re.findall(rb"\0((?:lib|ld-)[A-Za-z0-9_+-]+\.so\.[0-9]+)(?=\0)", content)) - ALLOWED
        if needed or max(versions) > most:
            sys.exit(f"{name}: expected libc up to {most} alone, needs {max(versions)} and {sorted(needed)}")
        print(f"{name}: needs libc {'.'.join(map(str, max(versions)))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
