"""CIF files: displacements in every form give one Debye-Waller factor; what contradicts itself is refused by name."""

import math
import warnings

import numpy as np
import pytest
from pendel import susceptibility

gemmi = pytest.importorskip("gemmi")

A = 4.0782
GROUP = "_symmetry_space_group_name_H-M 'F m -3 m'\n"
SITE = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
U = 0.008
IJ = ("11", "22", "33", "12", "13", "23")


def cell(a=A, b=A, c=A):
    lengths = "".join(f"_cell_length_{k} {v}\n" for k, v in zip("abc", (a, b, c), strict=True))
    return "data_x\n" + lengths + "".join(f"_cell_angle_{k} 90\n" for k in ("alpha", "beta", "gamma"))


def chi(folder, text, head=None):
    (folder / "a.cif").write_text((cell() + GROUP if head is None else head) + text)
    return susceptibility(folder / "a.cif", hkl=(1, 1, 1), energy_keV=9)


def site(values="Au1 0 0 0", *columns):
    return SITE + "".join(f"_atom_site_{c}\n" for c in columns) + values + "\n"


def aniso(form, *values):
    return (
        "loop_\n_atom_site_aniso_label\n"
        + "".join(f"_atom_site_aniso_{form}_{ij}\n" for ij in IJ)
        + ("Au1 " + " ".join(values) + "\n")
    )


BETA = 2 * math.pi**2 * U / A**2
B = 8 * math.pi**2 * U
FORMS = {
    "U_iso": site(f"Au1 0 0 0 {U}", "U_iso_or_equiv"),
    "U_iso with its error": site(f"Au1 0 0 0 {U}(2)", "U_iso_or_equiv"),
    "B_iso": site(f"Au1 0 0 0 {B}", "B_iso_or_equiv"),
    "U": site() + aniso("U", *[f"{U}"] * 3, "0", "0", "0"),
    "B": site() + aniso("B", *[f"{B}"] * 3, "0", "0", "0"),
    "B with its error": site() + aniso("B", *[f"{B:.6f}(3)"] * 3, "0", "0", "0"),
    "beta": site() + aniso("beta", *[f"{BETA}"] * 3, "0", "0", "0"),
    "lower case": site() + aniso("b", *[f"{B}"] * 3, "0", "0", "0"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_displacements_is_the_same_factor(tmp_path, form):
    factor = abs(chi(tmp_path, FORMS[form]).chi_h / chi(tmp_path, site()).chi_h)
    s = math.sqrt(3) / (2 * A)
    f = abs(chi(tmp_path, FORMS["U_iso"]).chi_h / chi(tmp_path, site()).chi_h)
    assert factor == pytest.approx(f, abs=1e-6) and factor == pytest.approx(math.exp(-B * s**2), abs=2e-3)


def symmetry(*operations):
    return "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'{op}'\n" for op in operations)


ALL = symmetry(*[op.triplet() for op in gemmi.SpaceGroup("F m -3 m").operations()])
REFUSED = {
    "one operation of a cubic group": (cell() + GROUP + symmetry("x,y,z"), site(), "192 symmetry operations of F m"),
    "number and operations": (cell() + "_space_group_IT_number 225\n" + symmetry("x,y,z"), site(), "of number 225"),
    "number and symbol": (cell() + GROUP + "_space_group_IT_number 221\n", site(), "operations of number 221"),
    "groups of one order": (
        cell() + "_symmetry_space_group_name_H-M 'P 2 2 2'\n_space_group_IT_number 18\n",
        site(),
        "one space group, got P 2 2 2 and number 18",
    ),
    "no group": (cell() + symmetry("x,y,z", "y,z,x"), site(), "operations that are a group"),
    "cell of another symmetry": (cell(c=4.3) + GROUP, site(), "a cell of its symmetry"),
    "anharmonic": (None, site("Au1 0 0 0 0.1", "anharm_gc_c_111"), "forms U, B or beta, got _atom_site_anharm"),
    "another form": (None, site("Au1 0 0 0 0.5", "B_equiv_geom_mean"), "got _atom_site_b_equiv_geom_mean"),
    "said, not given": (None, site("Au1 0 0 0 Uani", "adp_type"), "displacements of 'Au1'"),
    "part of the tensor": (
        None,
        site() + "loop_\n_atom_site_aniso_label\n_atom_site_aniso_U_11\nAu1 0.01\n",
        "expected six _atom_site_aniso_u_ij",
    ),
    "modulated": (cell() + GROUP + "_cell_modulation_dimension 1\n", site(), "three dimensions"),
    "disorder without occupancies": (
        cell() + symmetry("x,y,z"),
        site("Au1 0 0 0 1\nAu2 0.05 0 0 2", "disorder_group"),
        "atoms at least 5e-11 m apart",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_itself_or_is_not_understood_is_refused(tmp_path, name):
    head, text, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        chi(tmp_path, text, head)


CONTENTS = "_chemical_formula_sum 'Au'\n_cell_formula_units_Z 4\n"
FOUR = "Au1 0 0 0\nAu2 0 0.5 0.5\nAu3 0.5 0 0.5\nAu4 0.5 0.5 0"
TOLD = {
    "multiplicity": (cell() + GROUP, site("Au1 0 0 0 8", "symmetry_multiplicity"), "_atom_site_symmetry_mult.* of 4"),
    "order": (cell() + GROUP, site("Au1 0 0 0 1", "site_symmetry_order"), "_atom_site_site_symmetry_order of 48"),
    "all atoms of a cubic group": (cell() + GROUP + CONTENTS + symmetry("x,y,z"), site(FOUR), "192 .* of F m .* got 1"),
    "number and symbol": (cell() + GROUP + CONTENTS + "_space_group_IT_number 221\n", site(), "of number 221"),
    "two numbers, and operations": (
        cell() + GROUP + CONTENTS + "_space_group_IT_number 227\n" + ALL,
        site(),
        "one space group, got F m -3 m and number 227; the operations",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_slips_beside_atoms_that_are_known_are_told(tmp_path, name):
    """Published files often have them: the operations say where the atoms are, formula and Z that these are all."""
    head, text, message = TOLD[name]
    expected = chi(tmp_path, site()).chi_h
    with pytest.warns(UserWarning, match=message):
        found = chi(tmp_path, text, head)
    assert found.chi_h == pytest.approx(expected, rel=1e-9)
    if CONTENTS in head:
        with pytest.raises(ValueError, match="one of both is wrong"):
            chi(tmp_path, text, head.replace(CONTENTS, ""))
        with pytest.warns(UserWarning, match="expected 8 Au"), pytest.raises(ValueError, match="one of both is wrong"):
            chi(tmp_path, text, head.replace("Z 4", "Z 8"))


def test_what_agrees_is_taken(tmp_path):
    head = cell() + GROUP + "_space_group_IT_number 225\n_chemical_formula_sum 'Au'\n_cell_formula_units_Z 4\n" + ALL
    expected = chi(tmp_path, site()).chi_h
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = chi(tmp_path, site("Au1 0 0 0 4 48", "symmetry_multiplicity", "site_symmetry_order"), head)
        split = site("Au1 0 0 0 0.5\nAu2 0.0001 0 0 0.5", "occupancy")
        chi(tmp_path, split, cell() + symmetry("x,y,z"))
    assert found.chi_h == pytest.approx(expected, rel=1e-12)


def test_dummies_are_no_atoms_and_ions_are_said_to_be_neutral(tmp_path):
    text = site("Au1 0 0 0 Au ?\nDUM 0.3 0.1 0.2 Au dum", "type_symbol", "calc_flag")
    assert chi(tmp_path, text).chi_h == chi(tmp_path, site()).chi_h
    ions = chi(tmp_path, site("Au1 0 0 0 Au3+", "type_symbol"))
    assert "ions as neutral atoms" in ions.source and "ions" not in chi(tmp_path, site()).source


def test_contents_that_are_not_the_formula_s_are_told(tmp_path):
    head = cell() + symmetry("x,y,z") + "_chemical_formula_sum 'Au'\n_cell_formula_units_Z 4\n"
    with pytest.warns(UserWarning, match="expected 4 Au in the cell, by its formula and Z, got 1"):
        found = chi(tmp_path, site(), head)
    assert np.isclose(4 * found.chi_h, chi(tmp_path, site()).chi_h)


def test_displacements_that_are_given_need_none_of_the_file(tmp_path):
    own = {"hkl": (1, 1, 1), "energy_keV": 9, "debye_waller": 0.6e-20}
    with pytest.raises(ValueError, match="expected displacements of 'Au1'"):
        chi(tmp_path, site("Au1 0 0 0 Uani", "adp_type"))
    found = susceptibility(tmp_path / "a.cif", **own)
    (tmp_path / "b.cif").write_text(cell() + GROUP + site())
    assert found.chi_h == susceptibility(tmp_path / "b.cif", **own).chi_h
