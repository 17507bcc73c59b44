"""What a CIF file says beside positions: displacements in all their forms, and whether its symmetry fits all else.

Displacement parameters, U in angstrom^2:

(1) B = 8 pi^2 U,   beta_ij = 2 pi^2 a*_i a*_j U_ij

Numbers with standard deviations in brackets, "?" and "." are read as CIF has them.
"""

import math
import warnings
from collections import Counter

import numpy as np

INDICES = ("11", "22", "33", "12", "13", "23")
FORMS = ("u", "b", "beta")  # of anisotropic displacements
BESIDE = ("label", "type_symbol", "ratio", "id")  # columns of their loop that are no displacements
NOT_UNDERSTOOD = ("anharm", "_aniso", "fourier", "_moment", "geom_mean")
SAME_METRIC = 5e-3  # relative: cells are printed with three digits or more
OF_FORMULA = 0.1  # relative: hydrogens apart, what is not modelled is less


def displacements(gemmi, block, cell, path) -> dict[str, float]:
    """{label: U (angstrom^2), isotropic equivalent} of the anisotropic displacements of a block, in whatever form.

    Raises
    ------
    ValueError : for displacements that are not understood.
    """
    found = {}
    _refuse_other_forms(gemmi, block, path)
    labels = [gemmi.cif.as_string(v) for v in block.find_values("_atom_site_aniso_label")]
    for form in FORMS:
        columns = [list(block.find_values(f"_atom_site_aniso_{form}_{ij}")) for ij in INDICES]
        if not any(columns):
            continue
        if any(len(column) != len(labels) for column in columns):
            raise ValueError(f"{path}: expected six _atom_site_aniso_{form}_ij and a label for every atom, got fewer")
        for label, *texts in zip(labels, *columns, strict=True):
            values = [_number(gemmi, text) for text in texts]
            if None not in values:
                found[label] = float(cell.calculate_u_eq(gemmi.SMat33d(*_as_U(form, values, cell))))
    return found


def _refuse_other_forms(gemmi, block, path):
    """ValueError for a tag of displacements that is not understood and has a number."""
    for tag in _tags(block):
        about = tag.startswith("_atom_site_") and any(part in tag for part in NOT_UNDERSTOOD)
        if about and not _is_aniso(tag) and any(_number(gemmi, v) is not None for v in block.find_values(tag)):
            raise ValueError(f"{path}: expected displacements of the forms U, B or beta, got {tag}")


def _as_U(form, values, cell):
    """U_ij of (1)."""
    if form == "u":
        return values
    if form == "b":
        return [value / (8 * math.pi**2) for value in values]
    reciprocal = cell.reciprocal()
    a = (reciprocal.a, reciprocal.b, reciprocal.c)
    places = [(int(ij[0]) - 1, int(ij[1]) - 1) for ij in INDICES]
    return [value / (2 * math.pi**2 * a[i] * a[j]) for value, (i, j) in zip(values, places, strict=True)]


def _tags(block):
    """All tags of a block, in lower case."""
    for item in block:
        tags = item.loop.tags if item.loop else [item.pair[0]] if item.pair else []
        yield from (tag.lower() for tag in tags)


def _is_aniso(tag):
    """Whether a tag of the anisotropic displacements is understood."""
    name = tag.removeprefix("_atom_site_aniso_")
    if name == tag:
        return False
    name = name.removesuffix("_su").removesuffix("_esd")
    return name in BESIDE or any(name == f"{form}_{ij}" for form in FORMS for ij in INDICES)


def _number(gemmi, text):
    """A CIF number, None for "?", "." and text."""
    value = gemmi.cif.as_number(text)
    return value if math.isfinite(value) else None


def refuse_missing_displacements(gemmi, block, known, path) -> None:
    """ValueError where the file says that an atom has displacements of a form, and gives none of it.

    known : {label: U} of the atoms that have some.
    """
    columns = ("_atom_site_adp_type", "_atom_site_thermal_displace_type")
    labels = [gemmi.cif.as_string(v) for v in block.find_values("_atom_site_label")]
    for column in columns:
        for label, text in zip(labels, block.find_values(column), strict=False):
            kind = gemmi.cif.as_string(text)
            if kind[:1].upper() in ("U", "B") and label not in known:
                raise ValueError(f"{path}: expected displacements of {label!r}, whose {column} is {kind}, got none")


def dummies(gemmi, block) -> set[str]:
    """Labels of the sites that are no atoms."""
    labels = [gemmi.cif.as_string(v) for v in block.find_values("_atom_site_label")]
    flags = [gemmi.cif.as_string(v).lower() for v in block.find_values("_atom_site_calc_flag")]
    return {label for label, flag in zip(labels, flags, strict=False) if flag == "dum"}


def refuse_other_symmetry(gemmi, block, operations, metric, path) -> None:
    """ValueError where operations and cell of a file contradict each other, or a crystal is modulated.

    operations : triplets.  metric : (3, 3) of the cell.
    """
    for tag in ("_cell_modulation_dimension", "_cell_subsystems_number"):
        if any(_number(gemmi, value) for value in block.find_values(tag)):
            raise ValueError(f"{path}: expected a crystal of three dimensions, got {tag}")
    own = {gemmi.Op(triplet).wrap().triplet() for triplet in operations}
    ops = [gemmi.Op(triplet) for triplet in own]
    if any((a * b).wrap().triplet() not in own for a in ops for b in ops):
        raise ValueError(f"{path}: expected symmetry operations that are a group, got {len(own)} that are not")

    for op in ops:
        R = np.array(op.rot) / op.DEN
        if not np.allclose(R.T @ metric @ R, metric, rtol=0, atol=SAME_METRIC * np.abs(metric).max()):
            raise ValueError(f"{path}: expected a cell of its symmetry, got one that {op.triplet()} does not keep")


def judge_groups(gemmi, block, cif, operations, confirmed, path) -> None:
    """Hold the space groups that a file names against its operations, and against one another.

    confirmed : whether formula and Z say that the operations give the right atoms. Then a group that is not theirs is
        a slip of whoever named it, and told (UserWarning); else nobody knows which of both is right: ValueError.
    """
    wrong = _other_group(gemmi, _groups(gemmi, cif, block), len({gemmi.Op(o).wrap().triplet() for o in operations}))
    several = {group.number: name for name, group in _groups(gemmi, cif, block)}
    if wrong is None and len(several) > 1:
        wrong = f"expected one space group, got {' and '.join(several.values())}"
        confirmed = confirmed and bool(cif.symops)  # else it is one of these names that gave them
    if wrong is None:
        return
    if not confirmed:
        raise ValueError(f"{path}: {wrong}; one of both is wrong")
    warnings.warn(f"{path}: {wrong}; the operations, whose atoms are those of its formula, are taken", stacklevel=2)


def _other_group(gemmi, groups, count):
    """What is wrong with the number of operations, or None."""
    for name, group in groups:
        counts = {len(g.operations()) for g in gemmi.spacegroup_table() if g.number == group.number}
        if count not in counts:
            expected = " or ".join(map(str, sorted(counts)))
            return f"expected {expected} symmetry operations of {name}, got {count}"
    return None


def _groups(gemmi, cif, block):
    """[(what the file calls it, space group)] of a file, as far as gemmi knows it."""
    found = []
    if cif.spacegroup_hm:
        found.append(
            (cif.spacegroup_hm, gemmi.find_spacegroup_by_name(cif.spacegroup_hm, cif.cell.alpha, cif.cell.gamma))
        )
    for tag in ("_space_group_IT_number", "_symmetry_Int_Tables_number"):
        for value in block.find_values(tag):
            number = _number(gemmi, value)
            if number is not None:
                found.append((f"number {number:g}", gemmi.find_spacegroup_by_number(int(number))))
    return [(name, group) for name, group in found if group is not None]


def warn_of_other_multiplicities(gemmi, block, images, operations, path) -> None:
    """UserWarning where a site has not the multiplicity, or the order of its symmetry, that the file says: many files
    take one for the other.

    images : {label: count in the cell}.  operations : how many there are.
    """
    labels = [gemmi.cif.as_string(v) for v in block.find_values("_atom_site_label")]
    names = {"multiplicity": lambda count: count, "order": lambda count: operations / count}
    for kind, expected in names.items():
        for tag in (f"_atom_site_symmetry_{kind}", f"_atom_site_site_symmetry_{kind}"):
            for label, text in zip(labels, block.find_values(tag), strict=False):
                said = _number(gemmi, text)
                if said is not None and label in images and said != expected(images[label]):
                    warnings.warn(
                        f"{path}: expected {label!r} with a {tag} of {expected(images[label]):g}, by the symmetry of "
                        f"the file, which is taken, got {said:g}",
                        stacklevel=2,
                    )
                    return


def warn_of_other_contents(gemmi, block, atoms, path) -> bool:
    """UserWarning where the cell does not hold what formula and Z say, hydrogens apart; whether they say it does."""
    Z = [_number(gemmi, value) for value in block.find_values("_cell_formula_units_Z")]
    formula = [gemmi.cif.as_string(value) for value in block.find_values("_chemical_formula_sum")]
    if len(Z) != 1 or not Z[0] or len(formula) != 1:
        return False
    held: Counter[str] = Counter()
    for atom in atoms:
        held[atom.element] += atom.occupancy
    agreeing = 0
    for part in formula[0].split():
        element = part.rstrip("0123456789.")
        count = part[len(element) :] or "1"
        if element in ("H", "D") or not element.isalpha() or not _number(gemmi, count):
            continue
        expected = Z[0] * _number(gemmi, count)
        if abs(held[element] - expected) > OF_FORMULA * expected:
            warnings.warn(
                f"{path}: expected {expected:g} {element} in the cell, by its formula and Z, got {held[element]:g}",
                stacklevel=2,
            )
            return False
        agreeing += 1
    return agreeing > 0
