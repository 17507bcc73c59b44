"""Files that are damaged, or made to hurt, from a seed, and a look at what reading them does.

Whatever a file says, reading it ends in a result or in a ValueError, TypeError or OSError that names the file, takes
`SECONDS` of a processor at most, and the file's size and `MEMORY`. Every file is read in a process of its own: a crash
is seen, and the next file is read all the same. ``python tests/hostile_files.py --count 5000 --seed 1`` tries so many.
"""

import argparse
import io
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path

import numpy as np

SECONDS = 5
PATIENCE = 60  # s: what has not ended then waits for something
MEMORY = 256 << 20
HEADER = (
    "#F /data/a.spec\n#O0 Delta  Theta  Chi  Phi  Mu  Gamma\n#O1 camdist  Energy\n#o0 del th chi phi mu gam\n"
    "#o1 cam en\n"
)
POINTS = "".join(f"{-0.05 + 0.005 * i:.6f} {i} 3\n@A 0 1 4\\\n 7 2\n" for i in range(9))
SPEC = (
    f"{HEADER}\n#S 53  ascan  th 0 1  4 1\n\n#S 54  ascan  th -0.05 -0.01  8 0.25\n#D Tue Feb 04 2020\n"
    "#P0 32.174 0.22 90 -5 0 12.6346\n#P1 500 9\n#UIMDET 34idcTIM2:\n#UIMR5  4 32 8 24 1\n#N 3\n"
    f"#L Theta  Monitor  pm det\n{POINTS}#C aborted\n#S 55  ascan  th 0 1  4 1\n"
)
META = {"energy_keV": 9.0, "delta_deg": 32.174, "gamma_deg": 12.6346, "distance_m": 0.5, "pixel_m": 5.5e-5}
META |= {"scan_motor": "theta", "scan_step_deg": 0.005, "frames": 9, "pattern_centre_frame_row_col": [4, 6, 7]}
CIF = """data_Au
_cell_length_a 4.0782
_cell_length_b 4.0782
_cell_length_c 4.0782
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1 1 2'
loop_
_symmetry_equiv_pos_as_xyz
'x,y,z'
'-x,-y,z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
_atom_site_U_iso_or_equiv
Au1 Au 0 0 0 1 0.006
Au2 Au 0.5 0.5 0 1 0.006
"""
TOML = """[data]
path = "scan.cxi"
crop = [64, 64]
[experiment]
energy_keV = 9.0
distance_mm = 500.0
pixel_um = 55.0
arm = [["y+", 32.0], ["x-", 12.0]]
rocking_step_deg = 0.005
rocking_frames = 9
detector_shape = [64, 64]
[crystal]
chi_0 = [-9.4e-5, 8.4e-6]
chi_h = [5.2e-5, -5.9e-6]
polarization = {sigma = 0.5, pi = 0.5}
"""
# What takes the place of a word, and of bytes.
WORDS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e999",
    "-1e308",
    "9" * 5000,
    "1_0",
    "0x7f",
    "",
    "\0",
    "'",
    '"',
    "\\",
    "[" * 3000,
    "{" * 3000,
)
WORDS += (
    "x" * 100_000,
    "٣",
    "²",
    "true",
    "None",
    "a.b." * 2000,
    "..",
    "/etc/passwd",
    "#S 54",
    "loop_",
    "data_x",
    "\ufeff",
    "\n",
)
BYTES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\0\0\0", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 8)


def counts(dtype="i4"):
    grids = np.indices((9, 12, 14)) - np.array([4, 6, 7]).reshape(3, 1, 1, 1)
    return np.round(1e3 * np.exp(-(grids**2).sum(0) / 9)).astype(dtype)


def spoil_bytes(rng, content):
    """Some bytes of a file changed, moved, left out or put in."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(content) + 1))
        kind = rng.integers(6)
        if kind == 0:
            del content[place:]
        elif kind == 1:
            content[place : place + 1] = bytes([rng.integers(256)])
        elif kind == 2:
            extreme = BYTES[rng.integers(len(BYTES))]
            content[place : place + len(extreme)] = extreme
        elif kind == 3:
            del content[place : place + int(rng.integers(1, 50))]
        elif kind == 4:
            content[place:place] = content[: int(rng.integers(200))]
        else:  # a length, an offset or a count that is a little off
            content[place : place + 2] = int(rng.integers(1 << 16)).to_bytes(2, "little")
    return bytes(content)


def spoil_text(rng, text):
    """Some numbers, words and lines of a text changed, left out or put in; at times its encoding and some bytes."""
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(8)
        if kind <= 4:  # a number or a name within whatever stands around it
            places = list(re.finditer(r"[-+.0-9e]+" if kind <= 2 else r"[A-Za-z_#@0-9]+", text))
            place = places[rng.integers(len(places))] if places else re.match("", text)
            text = text[: place.start()] + WORDS[rng.integers(len(WORDS))] + text[place.end() :]
            continue
        lines = text.split("\n")
        i = int(rng.integers(len(lines)))
        if kind == 5:
            del lines[i : i + int(rng.integers(1, 3))]
        elif kind == 6:
            lines[i:i] = lines[i : i + int(rng.integers(1, 9))]
        else:
            lines[i] = lines[i][: int(rng.integers(len(lines[i]) + 1))]
        text = "\n".join(lines)
    encoding = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32")[rng.integers(5)]
    content = text.encode(encoding, errors="replace")
    return spoil_bytes(rng, content) if rng.random() < 0.1 else content


def make_npy(rng, path):
    file = io.BytesIO()
    np.save(file, counts(("u2", "i4", "f8", ">f4", "?", "c8")[rng.integers(6)]))
    content = file.getvalue()
    if rng.random() < 0.5:  # another header on the same numbers
        shape = (
            "(9, 12, 14)",
            "(9000000, 12, 14)",
            "(99999999999, 9)",
            "(-1, 9)",
            "(" * 3000,
            "(0, 2**70)",
            "(True, 9)",
        )
        descr = ("'<f8'", "'|O'", "[('a', '<f8', (99999,))]", "'<U999999999'", "'M8[s]'", "0", "'" * 50)
        which = rng.integers(7, size=2) * (rng.random(2) < 0.5)
        descr, shape, order = descr[which[0]], shape[which[1]], ("False", "True", "2")[rng.integers(3)]
        told = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n"
        content = b"\x93NUMPY\x01\0" + len(told).to_bytes(2, "little") + told.encode() + content[128:]
    path.write_bytes(spoil_bytes(rng, content) if rng.random() < 0.6 else content)


def make_npz(rng, path):
    if rng.random() < 0.01:
        return make_bomb(path)
    file = io.BytesIO()
    packings = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED] * 9 + [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]
    with zipfile.ZipFile(file, "w", packings[rng.integers(20)]) as archive:
        for name in ("data.npy", "mask.npy", "x")[: rng.integers(1, 4)]:
            make_npy(rng, path)
            archive.writestr(name, path.read_bytes())
    path.write_bytes(spoil_bytes(rng, file.getvalue()) if rng.random() < 0.6 else file.getvalue())


def make_bomb(path):
    """400 MiB of zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (400, 1024, 1024)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w") as inside:
        inside.write(head.getvalue())
        for _ in range(50):
            inside.write(bytes(1 << 23))


def make_tif(rng, path):
    import tifffile

    layout = (
        {},
        {"bigtiff": True},
        {"compression": "zlib"},
        {"tile": (16, 16)},
        {"rowsperstrip": 3},
        {"byteorder": ">"},
    )
    dtype = ("u2", "i4", "f4", "u1")[rng.integers(4)]
    file = io.BytesIO()
    tifffile.imwrite(file, counts(dtype), photometric="minisblack", **layout[rng.integers(6)])
    content = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as written:
        tags = [tag for page in written.pages for tag in page.tags]
    for _ in range(rng.integers(3)):  # the code, type, count or value of a tag
        tag = tags[rng.integers(len(tags))]
        place = tag.offset + int(rng.integers(20 if file.getvalue()[2] == 43 else 12))
        extreme = (BYTES[rng.integers(len(BYTES))], bytes([rng.integers(20)]), tag.offset.to_bytes(4, "little"))[
            rng.integers(3)
        ]
        content[place : place + len(extreme)] = extreme
    path.write_bytes(spoil_bytes(rng, content) if rng.random() < 0.5 else content)


def make_folder(rng, path):
    """A folder of 34-ID-C whose SPEC file, meta.json or frames are spoilt."""
    path.mkdir()
    which = rng.integers(3)
    (path / "a.spec").write_bytes(spoil_text(rng, SPEC) if which == 0 else SPEC.encode())
    (path / "meta.json").write_bytes(
        spoil_text(rng, json.dumps(META, indent=1)) if which == 1 else json.dumps(META).encode()
    )
    if which == 2:
        make_npz(rng, path / "x_raw_counts.npz")
    else:
        np.savez(path / "x_raw_counts.npz", data=counts())


def make_cif(rng, path):
    path.write_bytes(spoil_text(rng, CIF))


def make_toml(rng, path):
    path.write_bytes(spoil_text(rng, TOML))


def read_array(path):
    from pendel.io import read_array_scan

    read_array_scan(path)


def read_folder(path):
    from pendel.io import read_34idc

    read_34idc(path, scan=54, dark=False, whitefield=False)


def read_cif(path):
    from pendel import susceptibility

    susceptibility(path, hkl=(1, 1, 1), energy=1.442e-15)


def read_toml(path):
    from pendel import config

    made = config.load(path)
    made.crystal(made.experiment())


# {kind: (maker, reader)}; the kind is the suffix of the files.
KINDS = {
    "npy": (make_npy, read_array),
    "npz": (make_npz, read_array),
    "tif": (make_tif, read_array),
    "34idc": (make_folder, read_folder),
    "cif": (make_cif, read_cif),
    "toml": (make_toml, read_toml),
}


def make(kind, path, seed):
    """Write the file, or folder, of a seed; now and then one that is no file at all."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    if kind != "34idc" and rng.random() < 0.03:
        other = rng.integers(4)
        os.mkfifo(path) if other == 0 else path.symlink_to(("/dev/zero", "/dev/full", path.name, "/")[other])
        return
    KINDS[kind][0](rng, path)


def complaint(kind, path):
    """What is wrong with how a file is read, or None. Ends this process where reading does."""
    size = sum(
        p.stat().st_size for p in (path.rglob("*") if path.is_dir() and kind == "34idc" else [path]) if p.is_file()
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    wrong = None
    try:
        KINDS[kind][1](path)
    except (ValueError, TypeError, OSError) as error:
        name = path.stem if kind == "34idc" else path.name
        known = (
            name in str(error) or kind == "toml" or str(error).startswith(("material", "hkl", "lattice", "wavelength"))
        )
        wrong = None if known else f"no file named: {error!r}"
    except BaseException:
        wrong = traceback.format_exc(limit=-4)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if wrong is None and grown > size + MEMORY:
        wrong = f"{grown >> 20} MiB for {size} bytes"
    if wrong is None and time.process_time() - begin > SECONDS:
        wrong = f"{time.process_time() - begin:.1f} s"
    return wrong


def apart(kind, path):
    """`complaint` of a process of its own, or how that ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        warnings.simplefilter("ignore")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            os.write(writing, (complaint(kind, path) or "").encode(errors="replace")[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    ended = {signal.SIGALRM: f"nothing within {PATIENCE} s"}.get(os.WTERMSIG(status), f"signal {os.WTERMSIG(status)}")
    return ended if os.WIFSIGNALED(status) else said or None


def attack(folder, kinds, seeds):
    """Read a file of every kind and seed; {(kind, seed): what was wrong}."""
    found = {}
    for read in {KINDS[kind][1] for kind in kinds}:  # imported once, not in every process
        try:
            read(Path(folder) / "none")
        except (ValueError, OSError):
            pass
    for kind in kinds:
        for seed in seeds:
            path = Path(folder) / f"{kind}_{seed}.{kind}"
            make(kind, path, seed)
            wrong = apart(kind, path)
            if wrong:
                found[kind, seed] = wrong
            elif path.is_dir() and not path.is_symlink():
                for inside in path.iterdir():
                    inside.unlink()
                path.rmdir()
            else:
                path.unlink()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="files in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    args = parser.parse_args()
    seeds = range(args.seed, args.seed + -(-args.count // len(args.kinds)))
    folder = tempfile.mkdtemp(prefix="hostile_")
    found = attack(folder, args.kinds, seeds)
    for (kind, seed), wrong in found.items():
        print(f"{kind} {seed}: {wrong}\n")
    tried = f"{len(seeds) * len(args.kinds)} files of {', '.join(args.kinds)}, seeds {seeds[0]} to {seeds[-1]}"
    print(f"{tried}: {len(found)} wrong{f'; they are in {folder}' if found else ''}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
