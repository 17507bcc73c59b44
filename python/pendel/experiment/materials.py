"""Unit cells for `pendel.susceptibility`: a few built-in crystals, CIF files, lists of atoms. Needs gemmi."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base import checks
from ..base.reading import read_text
from . import cif_contents

ANGSTROM = 1e-10
# Copies of one atom, and atoms that share a site, lie within this distance (m): above the rounding of coordinates
# printed with three digits (1 pm in a cell of 2 nm), far below any distance between atoms.
SAME_SITE = 5e-12
# No two atoms are so near (m): that of H2 is 74 pm. Those that are share a place, each with a part of the occupancy.
NEAREST = 5e-11
# Largest cell: what is done with its atoms grows with the square of their number.
MOST_ATOMS = 10_000
LONGEST_CIF = 1 << 23  # bytes; lists of reflections make some long
MOST_BLOCKS = 1000  # of a CIF file
# Room temperature. Wyckoff positions in the setting of the symbol; lattice constants in angstrom.
_FCC, _BCC, _DIAMOND = "F m -3 m", "I m -3 m", "F d -3 m:1"
_O, _QUARTER, _CENTRE = (0, 0, 0), (0.25, 0.25, 0.25), (0.5, 0.5, 0.5)
# name: (space group, lattice, ((element, position), ...)).
# Lattice constants: metals from WebElements (M. Winter), "crystal structure" of each; they agree with the tables of
# xrayutilities 1.8 and with King, "Crystal structures and lattice parameters of allotropes of the elements", CRC
# Handbook, to 2e-4. Others as noted.
BUILT_IN = {
    "Ag": (_FCC, (4.0853,), (("Ag", _O),)),
    "Al": (_FCC, (4.0495,), (("Al", _O),)),
    "Au": (_FCC, (4.0782,), (("Au", _O),)),
    "Cu": (_FCC, (3.6149,), (("Cu", _O),)),
    "Fe": (_BCC, (2.8665,), (("Fe", _O),)),
    "Ni": (_FCC, (3.5240,), (("Ni", _O),)),
    "Pd": (_FCC, (3.8907,), (("Pd", _O),)),
    "Pt": (_FCC, (3.9242,), (("Pt", _O),)),
    "Rh": (_FCC, (3.8034,), (("Rh", _O),)),
    "W": (_BCC, (3.1652,), (("W", _O),)),
    "Si": (_DIAMOND, (5.431020511,), (("Si", _O),)),  # CODATA 2018, 22.5 deg C
    "Ge": (_DIAMOND, (5.65785,), (("Ge", _O),)),  # xrayutilities 1.8
    "diamond": (_DIAMOND, (3.5668,), (("C", _O),)),  # xrayutilities 1.8
    "GaAs": ("F -4 3 m", (5.65325,), (("Ga", _O), ("As", _QUARTER))),  # Blakemore, J. Appl. Phys. 53, R123 (1982)
    "InP": ("F -4 3 m", (5.8687,), (("In", _O), ("P", _QUARTER))),  # xrayutilities 1.8
    "MgO": (_FCC, (4.212,), (("Mg", _O), ("O", _CENTRE))),  # xrayutilities 1.8
    "SrTiO3": ("P m -3 m", (3.905,), (("Sr", _O), ("Ti", _CENTRE), ("O", (0.5, 0.5, 0)))),  # xrayutilities 1.8
    # I4_1/acd of Crawford et al., Phys. Rev. B 49, 9198 (1994) and Huang et al., J. Solid State Chem. 112, 355 (1994).
    # Rounded, coordinates at second hand: 0.001 more changes chi_h of (116) by 0.8 % for z of Sr, 0.05 % for O.
    "Sr2IrO4": (
        "I 41/a c d:2",
        (5.49, 5.49, 25.80),
        (("Ir", (0, 0.25, 0.375)), ("Sr", (0, 0.25, 0.5506)), ("O", (0, 0.25, 0.4548)), ("O", (0.201, 0.451, 0.125))),
    ),
}


class Atom(NamedTuple):
    """An atom of the unit cell.

    Attributes
    ----------
    element : symbol.
    position : fractional coordinates.
    occupancy : 0 to 1.
    B : Debye-Waller factor, m^2.
    """

    element: str
    position: tuple[float, float, float]
    occupancy: float = 1.0
    B: float = 0.0


class Structure(NamedTuple):
    """A crystal: its lattice and all atoms of its unit cell.

    Attributes
    ----------
    lattice : (a, b, c, alpha, beta, gamma), m and rad.
    atoms : all of the unit cell.
    name, source : for the record.
    """

    lattice: tuple[float, float, float, float, float, float]
    atoms: tuple[Atom, ...]
    name: str
    source: str


def load_gemmi():
    """The module gemmi, or an ImportError that says how to get it."""
    try:
        import gemmi
    except ImportError:
        raise ImportError(
            "susceptibility: expected the package gemmi (atomic tables, CIF files), got none; pip install gemmi"
        ) from None
    return gemmi


def structure(material, lattice=None, *, displacements=True) -> Structure:
    """`Structure` of a built-in name, a CIF file or a list of atoms. Raises as `pendel.susceptibility` says.

    displacements : False: those of a file are not looked at, others take their place.
    """
    gemmi = load_gemmi()
    if isinstance(material, str) and material in BUILT_IN:
        result = _built_in(gemmi, material, lattice)
    elif isinstance(material, (str, os.PathLike)):
        result = _read_cif(gemmi, material, lattice, displacements)
    else:
        lattice = _lattice(lattice, None)
        result = Structure(lattice, _listed(gemmi, material), "", "list of atoms")
    _check_overlap(result)
    return result


def metric(lattice):
    """Metric tensor (3, 3) of a lattice (m^2); its determinant is the squared cell volume."""
    a, angles = np.array(lattice[:3]), np.array(lattice[3:])
    cosine = np.eye(3)
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        # Exact zeros for right angles, so that symmetry-equivalent d-spacings are equal.
        cosine[i, j] = cosine[j, i] = 0.0 if abs(angle - math.pi / 2) < 1e-12 else math.cos(angle)
    return np.outer(a, a) * cosine


def check_element(gemmi, name, symbol):
    """``symbol`` if it is a chemical symbol (deuterium D included), else ValueError naming the argument."""
    # gemmi itself takes "Aux" for gold and an unknown symbol for a dummy atom.
    if not isinstance(symbol, str) or gemmi.Element(symbol).name != symbol or not gemmi.Element(symbol).atomic_number:
        raise ValueError(f"{name}: expected the symbol of an element such as 'Au', got {checks.describe(symbol)}")
    return symbol


def check_B(name, value):
    """A Debye-Waller factor B in m^2, 0 to 1e-18 (100 square angstrom)."""
    value = checks.number(name, value, at_least=0)
    if value > 1e-18:
        raise ValueError(f"{name}: expected B in m^2, such as 0.6e-20, at most 1e-18, got {value:g}")
    return value


def _built_in(gemmi, name, lattice):
    symbol, own, sites = BUILT_IN[name]
    lattice = _lattice(lattice, _six([ANGSTROM * v for v in own]))
    operations = [op.triplet() for op in gemmi.SpaceGroup(symbol).operations()]
    atoms = [Atom(element, tuple(map(float, position))) for element, position in sites]
    return Structure(lattice, _expand(gemmi, atoms, operations, lattice), name, f"built-in structure {name} ({symbol})")


def _six(lengths, angles=(math.pi / 2,) * 3):
    """(a, b, c, alpha, beta, gamma) of three lengths, or of one of a cubic crystal."""
    a, b, c = (*lengths, *lengths, *lengths)[:3]
    return (a, b, c, *angles)


def _lattice(value, own):
    """Six lattice parameters from the argument, which may replace those of the material, ``own`` (or None)."""
    if value is None:
        if own is None:
            raise ValueError("lattice: expected a or (a, b, c, alpha, beta, gamma) with a list of atoms, got None")
        return own
    items = _lattice_numbers(value)
    if len(items) == 1 and own is not None and not np.allclose(own, _six(own[:1]), rtol=1e-9, atol=0):
        raise ValueError(f"lattice: expected (a, b, c) or all six for a crystal that is not cubic, got {value!r}")
    if min(items[:3]) < 1e-10 or max(items[:3]) > 1e-7:
        raise ValueError(f"lattice: expected lengths in m, from 1e-10 to 1e-7, got {value!r}")
    if own is not None and not np.allclose(np.divide(_six(items)[:3], own[:3]), 1, atol=0.5):
        raise ValueError(f"lattice: expected lengths like the material's own {own[:3]} m, got {value!r}")

    if len(items) == 6:
        lattice = tuple(items)
    elif len(items) == 3 and own is not None:
        lattice = _six(items, own[3:])
    else:
        lattice = _six(items)
    _check_cell(lattice)
    return lattice


def _lattice_numbers(value):
    """The one, three or six numbers of the argument."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return [checks.number("lattice", value, above=0)]
    items = [checks.number(f"lattice[{i}]", v, above=0) for i, v in enumerate(value)]
    if len(items) not in (1, 3, 6):
        raise ValueError(f"lattice: expected 1, 3 or 6 numbers, got {len(items)}")
    return items


def _check_cell(lattice):
    """ValueError unless the angles span a cell."""
    # The determinant is 1 - sum cos^2 + 2 prod cos in units of (abc)^2; zero or less: no such cell.
    if max(lattice[3:]) >= math.pi or np.linalg.det(metric((1, 1, 1) + lattice[3:])) <= 1e-9:
        raise ValueError(f"lattice: expected angles in rad that span a cell, got {lattice[3:]}")


def _listed(gemmi, material):
    """Atoms of the user's list (element, (x, y, z)[, occupancy[, B]])."""
    expected = "a built-in name, a CIF file or a list of (element, (x, y, z)[, occupancy[, B]])"
    if isinstance(material, (bytes, Mapping)) or not hasattr(material, "__iter__"):
        raise TypeError(f"material: expected {expected}, got {checks.describe(material)}")
    atoms = tuple(_listed_atom(gemmi, f"material[{i}]", item) for i, item in enumerate(material))
    if not atoms:
        raise ValueError(f"material: expected {expected}, got no atoms")
    return atoms


def _listed_atom(gemmi, name, item):
    if not isinstance(item, (list, tuple)) or not 2 <= len(item) <= 4:
        raise TypeError(f"{name}: expected (element, (x, y, z)[, occupancy[, B]]), got {checks.describe(item)}")
    position = item[1] if isinstance(item[1], (list, tuple, np.ndarray)) else ()
    if len(position) != 3:
        raise ValueError(f"{name}: expected 3 fractional coordinates, got {checks.describe(item[1])}")
    return Atom(
        check_element(gemmi, name, item[0]),
        tuple(checks.number(f"{name} position[{j}]", v) for j, v in enumerate(position)),
        checks.number(f"{name} occupancy", item[2], above=0, at_most=1) if len(item) > 2 else 1.0,
        check_B(f"{name} B", item[3]) if len(item) > 3 else 0.0,
    )


def _read_cif(gemmi, path, lattice, displacements):
    """`Structure` of the only block of a CIF file that has atom sites."""
    block, cif = _cif_block(gemmi, path)
    own = _cif_lattice(cif, path)
    operations = _operations(gemmi, cif, path)
    cif_contents.refuse_other_symmetry(gemmi, block, operations, metric(own), path)

    lattice = _lattice(lattice, own)
    known = _displacements(gemmi, block, cif, path) if displacements else {}
    dummies = cif_contents.dummies(gemmi, block)
    sites = [site for site in cif.sites if site.label not in dummies]
    listed = [_cif_atom(site, known.get(site.label, 0.0), path) for site in sites]
    images = [_expand(gemmi, [atom], operations, lattice) for atom in listed]
    counts = {site.label: len(copies) for site, copies in zip(sites, images, strict=True)}
    cif_contents.warn_of_other_multiplicities(gemmi, block, counts, len(operations), path)

    atoms = tuple(atom for copies in images for atom in copies if atom.occupancy > 0)
    confirmed = cif_contents.warn_of_other_contents(gemmi, block, atoms, path)
    cif_contents.judge_groups(gemmi, block, cif, operations, confirmed, path)
    source = f"{Path(path).name}, data_{cif.name}" + (", ions as neutral atoms" if any(s.charge for s in sites) else "")
    return Structure(lattice, atoms, cif.name, source)


def _displacements(gemmi, block, cif, path):
    """{label: U (angstrom^2), isotropic equivalent} of a file; ValueError where it has some and they are not known."""
    tensors = cif_contents.displacements(gemmi, block, cif.cell, path)
    known = tensors | {site.label: site.u_iso for site in cif.sites if site.u_iso}
    cif_contents.refuse_missing_displacements(gemmi, block, known, path)
    return known


def _cif_block(gemmi, path):
    """(gemmi's block, small structure) of the only block with atom sites."""
    if not Path(path).exists():
        names = ", ".join(sorted(BUILT_IN, key=str.lower))
        kind = FileNotFoundError if Path(path).suffix or len(Path(path).parts) > 1 else ValueError
        raise kind(f"material: expected one of {names}, a CIF file or a list of atoms, got {str(path)!r}, no such file")
    try:
        text = read_text(path, "a CIF file", errors="replace", longest=LONGEST_CIF)
        # the time that the parser takes grows with the square of their number
        if len(re.findall(r"^[ \t]*data_", text, re.MULTILINE | re.IGNORECASE)) > MOST_BLOCKS:
            raise ValueError(f"more than {MOST_BLOCKS} data blocks")
        blocks = [(block, gemmi.make_small_structure_from_block(block)) for block in gemmi.cif.read_string(text)]
    except OSError:
        raise
    except Exception as error:  # the parser's own kinds, and UnicodeDecodeError of a binary file
        raise ValueError(f"{path}: expected a CIF file, got one that cannot be read ({error})") from None
    blocks = [(block, found) for block, found in blocks if len(found.sites)]
    if len(blocks) != 1:
        raise ValueError(f"{path}: expected one data block with fractional atom sites, got {len(blocks)}")
    if len(blocks[0][1].sites) > MOST_ATOMS:
        raise ValueError(f"{path}: expected at most {MOST_ATOMS} atom sites, got {len(blocks[0][1].sites)}")
    return blocks[0]


def _cif_lattice(cif, path):
    cell = cif.cell
    lengths, angles = (cell.a, cell.b, cell.c), (cell.alpha, cell.beta, cell.gamma)
    whole = np.isfinite([*lengths, *angles]).all() and 1 < min(lengths) <= max(lengths) < 1000 and 0 < min(angles)
    if not whole or not cell.is_crystal():
        raise ValueError(f"{path}: expected the six lattice parameters (_cell_length_a ...), got none or wrong ones")
    lattice = _six([ANGSTROM * v for v in lengths], [math.radians(v) for v in angles])
    try:
        _check_cell(lattice)
    except ValueError:
        raise ValueError(f"{path}: expected cell angles in degrees that span a cell, got {angles}") from None
    return lattice


def _cif_atom(site, U, path):
    """The atom of a site, as the file lists it; U : of its displacement, angstrom^2."""
    position = site.fract.tolist()
    if not site.element.atomic_number or not np.abs(position).max() < 1000:
        raise ValueError(f"{path}: expected an element and coordinates for every atom, got none for {site.label!r}")
    if not 0 <= site.occ <= 1.001:
        raise ValueError(f"{path}: expected occupancies from 0 to 1, got {site.occ:g} for {site.label!r}")
    B = 8 * math.pi**2 * max(U, 0.0) * ANGSTROM**2
    return Atom(site.element.name, tuple(map(_third, position)), min(site.occ, 1.0), B)


def _operations(gemmi, cif, path):
    """Symmetry operations as triplets; those listed in the file come before its symbols."""
    if cif.symops:
        return [_triplet(gemmi, text, path) for text in cif.symops]
    group = cif.spacegroup
    if group is None:
        raise ValueError(
            f"{path}: expected symmetry operations or a space group symbol of the International Tables, got "
            f"{cif.spacegroup_hm or 'none'!r}"
        )
    if group.ext in ("1", "2") and ":" not in cif.spacegroup_hm and not cif.spacegroup_hall:
        # Two origins, and a wrong guess would give another crystal.
        raise ValueError(
            f"{path}: expected symmetry operations, or the origin choice ('{group.hm}:1' or '{group.hm}:2'), got "
            f"{cif.spacegroup_hm!r} only"
        )
    return [op.triplet() for op in group.operations()]


def _triplet(gemmi, text, path):
    """A symmetry operation of the file, checked."""
    try:
        operation = gemmi.Op(text)
        keeps_volume = abs(operation.det_rot()) == operation.DEN**3
        triplet = gemmi.Op(operation.triplet()).triplet()
    except Exception:  # RuntimeError of its parser
        keeps_volume = False
    if not keeps_volume:
        raise ValueError(f"{path}: expected symmetry operations such as '-x,y+1/2,z', got {text[:40]!r}")
    return triplet


def _third(value):
    """Coordinates such as 0.3333 or 0.66667 mean 1/3 and 2/3: printed with four digits or more."""
    nearest = round(6 * value) / 6
    return nearest if abs(value - nearest) < 5e-5 else value


def _expand(gemmi, atoms, operations, lattice):
    """All atoms of the unit cell: each one's images, every site once."""
    if len(atoms) * len(operations) > 5 * MOST_ATOMS:
        raise ValueError(f"material: expected a cell of at most {MOST_ATOMS} atoms, got more")
    operations = [gemmi.Op(triplet) for triplet in operations]
    G, result = metric(lattice), []
    for atom in atoms:
        images = np.empty((0, 3))
        for operation in operations:
            image = np.array(operation.apply_to_xyz(list(atom.position))) % 1.0
            if not (_distance(images - image, G) < SAME_SITE).any():
                images = np.vstack([images, image])
        result += [atom._replace(position=tuple(image)) for image in images.tolist()]
    return tuple(result)


def _distance(difference, G):
    """Distance (m) to the nearest lattice translation of each fractional difference (n, 3), right when short."""
    difference = difference - np.round(difference)
    return np.sqrt(np.einsum("ni,ij,nj->n", difference, G, difference))


def _check_overlap(cell):
    """Atoms on one site must not add up to more than one; corner atoms of a cell listed twice would."""
    if len(cell.atoms) > MOST_ATOMS:
        raise ValueError(f"material: expected a cell of at most {MOST_ATOMS} atoms, got {len(cell.atoms)}")
    positions = np.array([atom.position for atom in cell.atoms])
    occupancy = np.array([atom.occupancy for atom in cell.atoms])
    G = metric(cell.lattice)
    for i, atom in enumerate(cell.atoms):
        apart = _distance(positions - positions[i], G)
        total = occupancy[apart < SAME_SITE].sum()
        crowd = occupancy[apart < NEAREST].sum()
        if crowd > 1.01 >= total:
            where = ", ".join(f"{v:.4g}" for v in atom.position)
            raise ValueError(
                f"material: expected atoms at least {NEAREST:g} m apart, got {crowd:g} about ({where}); alternatives "
                "of a disordered place need occupancies that add up to 1"
            )
        if total > 1.01:  # occupancies are printed with two digits or more
            where = ", ".join(f"{v:.4g}" for v in atom.position)
            raise ValueError(
                f"material: expected every site once, with a total occupancy up to 1, got {total:g} at ({where}); "
                "list the atoms of one unit cell, without lattice translations of each other"
            )
