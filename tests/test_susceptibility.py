"""Susceptibilities against the paper's, against other tables and programs, and by their symmetries."""

import cmath
import math
import sys
import warnings

import numpy as np
import pytest
from pendel import Crystal, Susceptibility, susceptibility
from pendel.experiment import structure_factor
from pendel.experiment.materials import BUILT_IN, structure
from scipy.constants import c, e, h, physical_constants

KEV = 1e3 * e
ELECTRON_RADIUS = physical_constants["classical electron radius"][0]
AU = {"material": "Au", "lattice": 4.07e-10, "hkl": (0, 0, 2), "energy": 8 * KEV}
SR2IRO4 = {"material": "Sr2IrO4", "hkl": (1, 1, 6), "energy": 10 * KEV}
GAAS = {"material": "GaAs", "energy": 9 * KEV}


@pytest.fixture(autouse=True)
def _needs_gemmi(request):
    if "without_gemmi" not in request.node.name:
        pytest.importorskip("gemmi")


def close(value, real, imag, real_tolerance, imag_tolerance):
    assert value.real == pytest.approx(real, rel=real_tolerance)
    assert value.imag == pytest.approx(imag, rel=imag_tolerance)


# Wu et al. with the exponents of Im chi_0 put right; their chi_h is C chi_h of pi polarisation. Tables of f', and the
# unknown Debye-Waller factor in theirs, differ by up to 3 % in the real and 15 % in the imaginary part.
@pytest.mark.parametrize(
    "case, sign, two_theta, chi_0, C_chi_h",
    [
        (AU, -1, 44.765, -0.94070e-4 + 0.84962e-5j, 0.52548e-4 - 0.59889e-5j),
        (SR2IRO4, 1, 24.848, -0.24947e-4 + 0.96953e-6j, 0.13373e-4 - 0.84241e-6j),
    ],
)
def test_values_of_the_paper(case, sign, two_theta, chi_0, C_chi_h):
    chi = susceptibility(**case)
    assert math.degrees(chi.two_theta) == pytest.approx(two_theta, abs=1e-3)  # printed digits
    close(chi.chi_0, chi_0.real, chi_0.imag, 0.03, 0.15)
    C_chi_h *= sign  # the choice of origin: an atom at the origin of Au gives -, +
    close(chi.chi_h * math.cos(chi.two_theta), C_chi_h.real, C_chi_h.imag, 0.03, 0.15)
    # Rounding in the sum over atoms.
    assert chi.chi_hbar == pytest.approx(chi.chi_h, rel=1e-12)


# xraydb 4.5.8 (Waasmaier-Kirfel f0, Chantler f', f'') and xraylib 4.3.0, structure factors computed apart from pendel.
# f0 and f' agree to 0.8 %, f'' (8 and 10 keV) to 3 %.
def test_values_of_other_tables():
    for case, chi_0, chi_h in (
        (AU, -9.5052e-5 + 9.286e-6j, -7.5362e-5 + 9.286e-6j),
        (AU, -9.530e-5 + 9.628e-6j, -7.540e-5 + 9.628e-6j),
        (SR2IRO4, -2.5087e-5 + 1.0091e-6j, 1.4846e-5 - 9.719e-7j),
    ):
        chi = susceptibility(**case)
        close(chi.chi_0, chi_0.real, chi_0.imag, 0.008, 0.03)
        close(chi.chi_h, chi_h.real, chi_h.imag, 0.008, 0.03)


@pytest.mark.parametrize(
    "wavelength, d, chi_h, expected",
    [
        (h * c / (8 * KEV), 4.0782e-10 / 2, 0.52548e-4 - 0.59889e-5j, (354, 2710, 863)),
        (h * c / (10 * KEV), 2.881473e-10, 0.13373e-4 - 0.84241e-6j, (633, 9036, 2876)),
    ],
)
def test_lengths_of_the_paper_from_its_susceptibilities(wavelength, d, chi_h, expected):
    chi = Susceptibility(-0.94e-4, chi_h, chi_h, wavelength, d)
    found = (chi.extinction_length_bragg(), chi.pendelloesung_distance(), chi.extinction_length_laue())
    for value, nanometres in zip(found, expected, strict=True):
        assert value * 1e9 == pytest.approx(nanometres, abs=1.5)  # printed to 1 nm; lattice constants to four digits
    C = math.cos(chi.two_theta)
    assert chi.pendelloesung_distance("pi") == pytest.approx(found[1] / C, rel=1e-12)  # rounding


def test_lengths_from_tables():
    """The paper's lengths, within the 3 % of its chi_h."""
    chi = susceptibility(**AU)
    assert chi.extinction_length_bragg("pi") * 1e9 == pytest.approx(354, rel=0.03)
    assert chi.pendelloesung_distance("pi") * 1e9 == pytest.approx(2710, rel=0.03)
    # The tabulated attenuation length, which includes scattering (3 %); f'' of tables: 5 %.
    assert chi.absorption_length * 1e6 == pytest.approx(2.5, rel=0.08)
    assert Susceptibility(-1e-5, 1e-6, 1e-6, 1e-10, 2e-10).absorption_length == math.inf
    with pytest.raises(ValueError, match="polarization: expected one of 'sigma', 'pi'"):
        chi.pendelloesung_distance("circular")


def test_crystal():
    chi = susceptibility(hkl=(1, 1, 1), **GAAS)
    assert chi.crystal() == Crystal(chi.chi_0, chi.chi_h, chi.chi_hbar, name="GaAs", hkl=(1, 1, 1))
    for part in ("GaAs", "gemmi", "International Tables", "Cromer-Liberman", "5.65325", "no Debye-Waller"):
        assert part in chi.source
    assert chi.energy == pytest.approx(9 * KEV, rel=1e-12)
    assert susceptibility("GaAs", hkl=(1, 1, 1), wavelength=chi.wavelength) == chi


def test_acentric_crystal():
    """GaAs (111) and (-1-1-1) by hand: As is a quarter of the diagonal from Ga, a phase factor i."""
    Ga, As = 27.0 - 1.5 + 0.6j, 28.0 - 1.8 + 0.9j  # f0 + f' + i f'': given below as f', f'' on top of the tables' f0
    gemmi = pytest.importorskip("gemmi")
    s2 = 3 / (4 * 5.65325**2)
    f0 = {name: gemmi.Element(name).it92.calculate_sf(s2) for name in ("Ga", "As")}
    dispersion = {"Ga": Ga - f0["Ga"], "As": As - f0["As"]}
    chi = susceptibility(hkl=(1, 1, 1), dispersion=dispersion, **GAAS)
    twin = susceptibility(hkl=(-1, -1, -1), dispersion=dispersion, **GAAS)
    p = ELECTRON_RADIUS * chi.wavelength**2 / (math.pi * 5.65325e-10**3)
    # exp(-2 pi i 3/4) = +i; f' - i f'' because Im chi > 0 absorbs. 1e-6: f0 in single precision.
    assert chi.chi_h == pytest.approx(-4 * p * (Ga.conjugate() + 1j * As.conjugate()), rel=1e-6)
    assert chi.chi_hbar == pytest.approx(-4 * p * (Ga.conjugate() - 1j * As.conjugate()), rel=1e-6)
    assert (twin.chi_h, twin.chi_hbar) == (chi.chi_hbar, chi.chi_h)
    # Absorption breaks Friedel's law: |F_111| and |F_-1-1-1| differ (1.1 %).
    assert abs(chi.chi_h) > 1.01 * abs(chi.chi_hbar)
    assert abs(chi.chi_hbar - chi.chi_h.conjugate()) > 0.02 * abs(chi.chi_h)
    lossless = susceptibility(hkl=(1, 1, 1), dispersion={"Ga": -1.5, "As": -1.8}, **GAAS)
    assert lossless.chi_hbar == pytest.approx(lossless.chi_h.conjugate(), rel=1e-12)
    assert lossless.chi_0.imag == 0


def test_origin_turns_only_phases():
    """A shift of the origin by r: chi_h exp(-ih.r), chi_hbar exp(+ih.r); the product and chi_0 stay."""
    atoms = [("Si", np.add(atom.position, (0.1, 0.03, -0.2))) for atom in structure("Si").atoms]
    one = susceptibility("Si", hkl=(3, 1, 1), energy=10 * KEV)
    two = susceptibility(atoms, lattice=5.431020511e-10, hkl=(3, 1, 1), energy=10 * KEV)
    turn = cmath.exp(-2j * math.pi * (3 * 0.1 + 0.03 - 0.2))
    # Rounding.
    assert two.chi_h == pytest.approx(one.chi_h * turn, rel=1e-12)
    assert two.chi_hbar == pytest.approx(one.chi_hbar / turn, rel=1e-12)
    assert two.chi_0 == pytest.approx(one.chi_0, rel=1e-12)


def test_lattice():
    a = physical_constants["lattice parameter of silicon"][0]
    assert structure("Si").lattice[0] == pytest.approx(a, rel=1e-9)  # all digits of CODATA 2018
    chi = susceptibility("Si", hkl=(1, 1, 1), energy=10 * KEV)
    assert chi.d_spacing == pytest.approx(a / math.sqrt(3), rel=1e-9)
    strained = susceptibility("Si", lattice=(a, a, 1.01 * a), hkl=(0, 0, 4), energy=10 * KEV)
    assert strained.d_spacing == pytest.approx(1.01 * a / 4, rel=1e-12)
    # A hexagonal cell: 1/d^2 = 4 (h^2 + hk + k^2)/(3 a^2) + l^2/c^2.
    zinc = [("Zn", (1 / 3, 2 / 3, 0.25)), ("Zn", (2 / 3, 1 / 3, 0.75))]
    six = (2.665e-10, 2.665e-10, 4.947e-10, math.pi / 2, math.pi / 2, 2 * math.pi / 3)
    chi = susceptibility(zinc, lattice=six, hkl=(1, 0, 1), energy=12 * KEV)
    assert chi.d_spacing == pytest.approx((4 / (3 * 2.665e-10**2) + 1 / 4.947e-10**2) ** -0.5, rel=1e-12)
    with pytest.raises(ValueError, match="forbidden"):
        susceptibility(zinc, lattice=six, hkl=(0, 0, 1), energy=12 * KEV)


def test_built_in_cells():
    """Density of each crystal (g/cm^3, handbook, three digits), so that no atom or cell is missing."""
    gemmi = pytest.importorskip("gemmi")
    density = {
        **{"Ag": 10.5, "Al": 2.70, "Au": 19.3, "Cu": 8.96, "Fe": 7.87, "Ni": 8.91, "Pd": 12.0, "Pt": 21.45},
        **{"Rh": 12.4, "W": 19.25, "Si": 2.329, "Ge": 5.323, "diamond": 3.51, "GaAs": 5.32, "InP": 4.81},
        **{"MgO": 3.58, "SrTiO3": 5.12, "Sr2IrO4": 7.37},
    }
    assert set(density) == set(BUILT_IN)
    for name, expected in density.items():
        cell = structure(name)
        mass = sum(gemmi.Element(atom.element).weight * atom.occupancy for atom in cell.atoms)
        found = mass * 1.66054e-24 / (np.prod(cell.lattice[:3]) * 1e6)  # all cells are right-angled
        assert found == pytest.approx(expected, rel=0.01), name


def test_debye_waller():
    B = 0.63e-20
    still = susceptibility(**AU)
    chi = susceptibility(**AU, debye_waller=B)
    assert chi.chi_h / still.chi_h == pytest.approx(math.exp(-B / (2 * 2.035e-10) ** 2), rel=1e-12)  # s = 1/(2d)
    assert chi.chi_0 == still.chi_0
    assert "B from 0.63" in chi.source
    listed = [("Ga", (0, 0, 0), 1, B), ("As", (0.25, 0.25, 0.25))]
    cubic = {"lattice": 5.65325e-10, "hkl": (1, 1, 1), "energy": 9 * KEV}
    own = susceptibility(listed, **cubic)
    assert own == susceptibility(listed, **cubic, debye_waller={"Ga": B})
    assert own != susceptibility(listed, **cubic, debye_waller=0.0)


def test_occupancy():
    """Two half atoms on a site are one."""
    cell = {"lattice": 4e-10, "hkl": (1, 0, 0), "energy": 9 * KEV}
    one = susceptibility([("Ni", (0, 0, 0))], **cell)
    halves = susceptibility([("Ni", (0, 0, 0), 0.5), ("Ni", (0, 0, 1), 0.5)], **cell)
    assert halves.chi_h == pytest.approx(one.chi_h, rel=1e-12)
    assert susceptibility([("Ni", (0, 0, 0), 0.5)], **cell).chi_0 == pytest.approx(one.chi_0 / 2, rel=1e-12)


CIF = """data_{name}
_cell_length_a {a}(2)
_cell_length_b {a}
_cell_length_c {c}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma {gamma}
{symmetry}
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
{sites}
"""
SILICON = {"name": "silicon", "a": 5.431020511, "c": 5.431020511, "gamma": 90}


def write(path, symmetry, sites="Si1 0 0 0 ?", **cell):
    path.write_text(CIF.format(**(SILICON | cell), symmetry=symmetry, sites=sites))
    return path


def test_cif(tmp_path):
    gemmi = pytest.importorskip("gemmi")
    reflection = {"hkl": (2, 2, 0), "energy": 10 * KEV}
    expected = susceptibility("Si", **reflection)
    operations = "\n".join(f"'{op.triplet()}'" for op in gemmi.SpaceGroup("F d -3 m:1").operations())
    for i, symmetry in enumerate(
        (
            "_symmetry_space_group_name_H-M 'F d -3 m:1'",
            f"loop_\n_symmetry_equiv_pos_as_xyz\n{operations}",
            f"_symmetry_space_group_name_H-M 'F d -3 m'\nloop_\n_space_group_symop_operation_xyz\n{operations}",
        )
    ):
        chi = susceptibility(write(tmp_path / f"{i}.cif", symmetry), **reflection)
        assert (chi.chi_h, chi.chi_0) == (pytest.approx(expected.chi_h, rel=1e-9), pytest.approx(expected.chi_0))
        assert chi.name == "silicon" and chi.source.startswith(f"{i}.cif, data_silicon")
    # The other origin: an eighth of the diagonal further, where h.r = 1/2.
    other = write(tmp_path / "2.cif", "_symmetry_space_group_name_H-M 'F d -3 m:2'", "Si1 0.125 0.125 0.125 0.006")
    chi = susceptibility(str(other), **reflection)
    B = 8 * math.pi**2 * 0.006e-20
    damping = math.exp(-B / (2 * chi.d_spacing) ** 2)
    assert chi.chi_h == pytest.approx(-expected.chi_h * damping, rel=1e-5)  # U in gemmi has seven digits
    assert susceptibility(other, **reflection, debye_waller=0).chi_h == pytest.approx(-expected.chi_h, rel=1e-9)
    tall = susceptibility(other, **reflection, lattice=(5.43e-10, 5.43e-10, 5.5e-10))
    assert tall.d_spacing == pytest.approx(5.43e-10 / math.sqrt(8), rel=1e-12)


def test_cif_with_rounded_special_positions(tmp_path):
    """0.3333 means 1/3: two atoms, and (001) of a hexagonal close packing stays extinct."""
    symmetry = "_symmetry_space_group_name_H-M 'P 63/m m c'"
    path = write(tmp_path / "Zn.cif", symmetry, "Zn1 0.3333 0.6667 0.25 ?", a=2.665, c=4.947, gamma=120)
    assert len(structure(path).atoms) == 2
    with pytest.raises(ValueError, match="hkl: .*forbidden"):
        susceptibility(path, hkl=(0, 0, 1), energy=12 * KEV)
    F = susceptibility(path, hkl=(0, 0, 2), energy=12 * KEV)
    # -z and z + 1/2 put both atoms on z = 1/4, 3/4: in phase for (002), with sign -1.
    assert F.chi_h.real > 0 > F.chi_h.imag


@pytest.mark.parametrize(
    "symmetry, sites, message",
    [
        ("", "Si1 0 0 0 ?", "symmetry operations or a space group symbol"),
        ("_symmetry_Int_Tables_number 227", "Si1 0 0 0 ?", "symmetry operations or a space group symbol"),
        ("_symmetry_space_group_name_H-M 'F d -3 m'", "Si1 0 0 0 ?", "origin choice"),
        ("_symmetry_space_group_name_H-M 'P 1'", "Si1 0 0 ? ?", "'Si1'"),
        ("_symmetry_space_group_name_H-M 'P 1'", "Vac1 0 0 q ?", "coordinates for every atom"),
        ("_symmetry_space_group_name_H-M 'P 1'", "Si1 0 0 0 ?\nSi2 1 0 0 ?", "every site once"),
    ],
)
def test_wrong_cif(tmp_path, symmetry, sites, message):
    with pytest.raises(ValueError, match=message):
        susceptibility(write(tmp_path / "x.cif", symmetry, sites), hkl=(1, 1, 1), energy=10 * KEV)


def test_unreadable_cif(tmp_path):
    path = tmp_path / "x.cif"
    for content, message in (
        (b"\x89PNG\r\n\x1a\n\x00\xff", "cannot be read"),
        (b"loop_ of nothing", "cannot be read"),
        (b"data_x\n_cell_length_a 4\n", "one data block"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"x.cif: expected .*{message}"):
            susceptibility(path, hkl=(1, 1, 1), energy=10 * KEV)
    path.write_text(write(path, "_symmetry_space_group_name_H-M 'P 1'").read_text().replace("_cell_length_c", "_c"))
    with pytest.raises(ValueError, match="six lattice parameters"):
        susceptibility(path, hkl=(1, 1, 1), energy=10 * KEV)
    with pytest.raises(FileNotFoundError, match="no such file"):
        susceptibility(tmp_path / "none.cif", hkl=(1, 1, 1), energy=10 * KEV)


@pytest.mark.parametrize(
    "change, kind, message",
    [
        ({"material": "Unobtainium"}, ValueError, "material: expected one of Ag, .*'Unobtainium'"),
        ({"material": 79}, TypeError, "material: expected a built-in name"),
        ({"material": []}, ValueError, "material: .*no atoms"),
        ({"material": [("Aux", (0, 0, 0))]}, ValueError, r"material\[0\]: expected the symbol of an element"),
        ({"material": [("Au", (0, 0))]}, ValueError, "3 fractional coordinates"),
        ({"material": [("Au", (0, 0, math.nan))]}, ValueError, r"material\[0\] position\[2\]"),
        ({"material": [("Au", (0, 0, 0), 1.5)]}, ValueError, r"material\[0\] occupancy"),
        ({"material": [("Au", (0, 0, 0), 1, 0.6)]}, ValueError, r"material\[0\] B: expected B in m\^2"),
        ({"material": [("Au", (0, 0, 0)), ("Au", (0, 1, 0))]}, ValueError, "material: expected every site once"),
        ({"material": [("Pu", (0, 0, 0))]}, ValueError, "material: expected elements up to uranium, got Pu"),
        ({"material": [("Au", (0, 0, 0))], "lattice": None}, ValueError, "lattice: expected a or"),
        ({"material": "Sr2IrO4"}, ValueError, "lattice: .*not cubic"),
        ({"lattice": 4.07}, ValueError, "lattice: expected lengths in m"),
        ({"lattice": (4e-10, 4e-10)}, ValueError, "lattice: expected 1, 3 or 6 numbers, got 2"),
        ({"lattice": (4e-10, 4e-10, 4e-10, 90, 90, 90)}, ValueError, "lattice: expected angles in rad"),
        ({"lattice": (4e-10, 4e-10, 4e-10, 0.5, 0.5, 1.5)}, ValueError, "lattice: expected angles in rad that span"),
        ({"hkl": (0, 0, 2.0)}, TypeError, r"hkl\[2\]: expected an integer"),
        ({"hkl": (0, 0, 0)}, ValueError, "hkl: expected a reflection"),
        ({"hkl": (0, 0, 1)}, ValueError, r"hkl: expected an allowed reflection, got \(0, 0, 1\), which is forbidden"),
        ({"hkl": (0, 0, 6)}, ValueError, "wavelength: expected at most 2 d"),
        (
            {"material": "Si", "lattice": None, "hkl": (0, 0, 24), "energy": 90 * KEV},
            ValueError,
            "hkl: expected d of at least",
        ),
        ({"energy": None}, ValueError, "wavelength, energy: expected exactly one, got none"),
        ({"wavelength": 1e-10}, ValueError, "wavelength, energy: expected exactly one, got both"),
        ({"energy": 8000.0}, ValueError, "energy: expected 4 to 100 keV"),
        ({"energy": 3.9 * KEV}, ValueError, "energy: expected 4 to 100 keV .*got 3.9 keV"),
        ({"debye_waller": 0.63}, ValueError, r"debye_waller: expected B in m\^2"),
        ({"debye_waller": -1e-20}, ValueError, "debye_waller: expected a finite number >= 0"),
        ({"debye_waller": {"Pt": 1e-20}}, ValueError, "debye_waller: expected elements of the crystal, Au, got 'Pt'"),
        ({"dispersion": {"Au": -4 - 7j}}, ValueError, r"dispersion\['Au'\]: expected f' \+ 1j f'' with f'' >= 0"),
        ({"dispersion": -4 + 7j}, TypeError, "dispersion: expected a dict"),
    ],
)
def test_wrong_arguments(change, kind, message):
    with pytest.raises(kind, match=message):
        susceptibility(**(AU | change))


def test_without_gemmi(monkeypatch):
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(ImportError, match=r"gemmi.*pip install gemmi"):
        susceptibility(**AU)


def test_spurious_poles_of_the_tables():
    """Cromer and Liberman's f' of Bi at 8.15 keV is -454, that of its neighbours and of Chantler's tables -4."""
    bismuth = {"material": [("Bi", (0, 0, 0))], "lattice": 4e-10, "hkl": (1, 0, 0), "energy": 8.15 * KEV}
    with pytest.raises(ValueError, match=r"energy: .*tables of Bi .*f' = -454.*dispersion=\{'Bi'"):
        susceptibility(**bismuth)
    given = susceptibility(**bismuth, dispersion={"Bi": -4.28 + 8.67j})
    nearby = susceptibility(**(bismuth | {"energy": 8.35 * KEV}))
    # Chantler at 8.15 keV against the tables at 8.35 keV, scaled by lambda^2: f'' goes down by 4 %.
    close(given.chi_h * (8.15 / 8.35) ** 2, nearby.chi_h.real, nearby.chi_h.imag, 0.005, 0.06)
    assert "Bi: as given" in given.source


def test_kramers_kronig_transform():
    """The check follows the table where that is right: 0.11 electrons for Au at 8 keV, less for light elements."""
    for number, keV, tolerance in ((79, 8.0, 0.15), (28, 9.0, 0.04), (14, 8.0, 0.01), (8, 10.0, 0.01)):
        value, transform, at_edge = structure_factor._tabulated(number, keV * 1e3)
        assert abs(value.real - transform) < tolerance and not at_edge


def test_edge_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        susceptibility(**AU)
        susceptibility(**(AU | {"energy": 11.9 * KEV}), dispersion={"Au": -15 + 4j})
    with pytest.warns(UserWarning, match="energy: 11.9 keV is within 1 % of an absorption edge of Au") as caught:
        susceptibility(**(AU | {"energy": 11.9 * KEV}))
    assert caught[0].filename == __file__  # the line to change is the caller's


@pytest.mark.parametrize(
    "name, hkl, keV",
    [
        ("Au", (0, 0, 2), 8.0),
        ("Pt", (1, 1, 1), 9.0),
        ("Ge", (1, 1, 1), 9.0),
        ("SrTiO3", (0, 0, 2), 9.0),
        ("GaAs", (1, 1, 1), 9.0),
        ("GaAs", (-1, -1, -1), 9.0),
        ("GaAs", (0, 0, 2), 9.0),
        ("Sr2IrO4", (1, 1, 6), 10.0),
    ],
)
def test_xrayutilities(name, hkl, keV):
    """Same crystal in xrayutilities: independent code, f0 and f', f'' tables of its own."""
    materials = pytest.importorskip("xrayutilities").materials
    if name == "Sr2IrO4":
        x = materials.elements
        positions = ["8a", ("16d", 0.5506), ("16d", 0.4548), ("16f", 0.2010)]
        lattice = materials.SGLattice("142:2", 5.49, 25.80, atoms=[x.Ir, x.Sr, x.O, x.O], pos=positions)
        crystal = materials.Crystal(name, lattice)
    else:
        crystal = getattr(materials, name)
    own = [1e-10 * v for v in (crystal.a, crystal.b, crystal.c)]
    chi = susceptibility(name, lattice=own, hkl=hkl, energy=keV * KEV)
    F, F_bar = (crystal.StructureFactor(crystal.Q(*q), en=keV * 1e3) for q in (hkl, [-v for v in hkl]))
    p = ELECTRON_RADIUS * chi.wavelength**2 / (math.pi * crystal.lattice.UnitCellVolume() * 1e-30)
    expected = -p * (F + np.conj(F_bar)) / 2 + p * (F - np.conj(F_bar)) / 2
    # The tables differ by up to 0.2 electrons of 79 in f' and f'': part of all atoms, since those of GaAs (002) cancel.
    assert abs(chi.chi_h - expected) < 0.004 * abs(chi.chi_0)
    chi_0 = crystal.chi0(en=keV * 1e3)
    close(chi.chi_0, chi_0.real, chi_0.imag, 0.003, 0.04)
    magnitudes = crystal.chih(crystal.Q(*hkl), en=keV * 1e3, temp=0, polarization="S")  # of the two real densities
    densities = (chi.chi_h + chi.chi_hbar.conjugate()) / 2, (chi.chi_h - chi.chi_hbar.conjugate()) / 2
    for density, magnitude in zip(densities, magnitudes, strict=True):
        assert abs(abs(density) - magnitude) < 0.004 * abs(chi.chi_0)
