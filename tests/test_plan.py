"""`pendel.plan`: the law of errors beside simulated crystals, sizes, scans and reflections, and the command."""

import dataclasses
import math

import numpy as np
import pendel
import pytest
from pendel.analysis import crystals
from pendel.app.cli import main
from pendel.base.constants import KEV
from pendel.io import kinds
from pendel.planning import error_law, reflections
from pendel.planning.kinematic_error import diffraction_vector, kinematic_error, rms, without_plane
from pendel.planning.rocking import rocking

pytest.importorskip("gemmi")
NM = 1e-9


@pytest.fixture(scope="module")
def gold():
    return pendel.plan("Au", hkl=(1, 1, 1), energy_keV=9.0, size=500 * NM, detector=(55e-6, 1.0))


def simulated(chi, size, seed, across=16):
    """Errors of a crystal of none of the seeds of the fit, its diameter and the rms of its own phase."""
    dx = size / across
    voxel, shape = (dx, dx, dx), (across + 4,) * 3
    h = diffraction_vector(chi.wavelength, chi.two_theta)
    s_0, S = crystals.sampled(crystals.smooth(seed, size, h), shape, voxel, finer=2)
    error = kinematic_error(S, voxel, chi.wavelength, chi.two_theta, chi.crystal(), s_0=s_0)
    own = without_plane(np.angle(S * np.exp(-1j * np.angle(S.sum()))), error.inside)
    diameter = (6 / math.pi * s_0.sum() * dx**3) ** (1 / 3)
    (_, corrected, phase), (_, corrected_strain, strain) = error.phase_rms, error.strain_rms
    found = error_law.Error(phase, strain, corrected, corrected_strain)
    return found, diameter, rms(own[error.inside])


@pytest.mark.parametrize(
    ("material", "hkl", "energy_keV", "size", "seed"),
    (
        ("Au", (1, 1, 1), 9.0, 400, 5000),
        ("Pt", (2, 2, 0), 12.0, 900, 5001),
        ("Si", (2, 2, 0), 8.0, 5000, 5002),
        ("W", (1, 1, 0), 11.0, 600, 5003),
    ),
)
def test_the_law_is_within_half_as_much_again_of_simulated_crystals(material, hkl, energy_keV, size, seed):
    chi = pendel.susceptibility(material, hkl=hkl, energy_keV=energy_keV)
    found, diameter, own_phase = simulated(chi, size * NM, seed)
    law = error_law.error(error_law.numbers(chi, diameter, own_phase))
    assert abs(math.log(found.phase / law.phase)) < math.log(1.5)
    assert abs(math.log(found.strain / law.strain)) < math.log(1.5)
    # extinction depends on where the phase bends: 5 to 95 % of the crystals of the fit are within 2.2 times
    assert abs(math.log(found.corrected_phase / law.corrected_phase)) < math.log(2.2)
    assert abs(math.log(found.corrected_strain / law.corrected_strain)) < math.log(2.2)


def test_numbers_and_errors_grow_as_their_orders_say(gold):
    one, two = (error_law.numbers(gold.chi, size) for size in (200 * NM, 400 * NM))
    assert two.refraction == pytest.approx(2 * one.refraction) and two.extinction == pytest.approx(2 * one.extinction)
    assert one.extinction == pytest.approx(
        200 * NM * math.cos(gold.chi.bragg_angle) / gold.chi.extinction_length_laue()
    )
    parts = [error_law.parts(of, error_law.PHASE) for of in (one, two)]
    assert parts[1][0] == pytest.approx(2 * parts[0][0]) and parts[1][1] == pytest.approx(4 * parts[0][1])
    pi = error_law.numbers(gold.chi, 200 * NM, polarization="pi")
    assert pi.extinction == pytest.approx(one.extinction * math.cos(gold.chi.two_theta))
    assert pi.refraction == one.refraction


def test_the_largest_crystal_is_at_the_bound(gold):
    for name, bound in (("phase", 0.1), ("corrected_phase", 0.05)):
        size = error_law.largest_size(gold.chi, name, bound)
        assert bound < 0.1 or size == gold.largest[name]
        at, above = (getattr(error_law.error(error_law.numbers(gold.chi, s)), name) for s in (size, 1.01 * size))
        assert at == pytest.approx(bound) and above > bound
    assert gold.largest["corrected_phase"] > 3 * gold.largest["phase"]  # what taking refraction off is worth
    assert error_law.largest_size(gold.chi, "phase", 100.0) == math.inf
    # refraction's strain is the same for all sizes
    strain = error_law.error(error_law.numbers(gold.chi, 50 * NM)).strain
    assert error_law.largest_size(gold.chi, "strain", 0.99 * strain) == 0
    assert error_law.largest_size(gold.chi, "strain", 2 * strain) == math.inf
    with pytest.raises(ValueError, match="chi_h, polarization: expected a reflection that diffracts"):
        error_law.largest_size(dataclasses.replace(gold.chi, chi_h=0), "phase", 0.1)


def test_lengths_are_those_of_the_susceptibility(gold):
    chi = pendel.susceptibility("Au", hkl=(1, 1, 1), energy_keV=9.0)
    assert gold.chi == chi
    assert gold.pendelloesung_distance == chi.pendelloesung_distance() == math.pi * gold.extinction_length
    assert gold.refraction * 1e-6 == pytest.approx(math.pi / chi.wavelength * abs(chi.chi_0.real) * 1e-6)
    pi = pendel.plan("Au", hkl=(1, 1, 1), energy_keV=9.0, polarization="pi")
    assert pi.pendelloesung_distance == chi.pendelloesung_distance("pi")
    assert pi.size == pi.largest["phase"]


def test_the_scan_holds_its_fringes(gold):
    scan, chi = gold.rocking, gold.chi
    assert scan.step * 2 * math.pi / chi.d_spacing == pytest.approx(2 * math.pi / (3 * gold.size))
    # frames reach to both ends of the band, pi/voxel
    assert scan.frames * scan.step * 2 * math.pi / chi.d_spacing == pytest.approx(2 * math.pi / scan.voxel, rel=0.03)
    assert scan.oversampling == pytest.approx(chi.wavelength * 1.0 / 55e-6 / gold.size)
    assert scan.distance == pytest.approx(3 / scan.oversampling)
    assert scan.frames % 2 == 1
    coarse = rocking(gold.size, chi.d_spacing, chi.wavelength, voxel=2 * scan.voxel)
    assert coarse.curvature_phase == pytest.approx(scan.curvature_phase / 4) and coarse.distance is None


def test_curvature_is_that_of_the_ewald_sphere(gold):
    """The lag of a pixel at the band's edge behind the plane, times half of the size."""
    k, q = 2 * math.pi / gold.chi.wavelength, math.pi / gold.rocking.voxel
    assert gold.rocking.curvature_phase == pytest.approx((k - math.sqrt(k**2 - q**2)) * gold.size / 2, rel=1e-3)


def test_reflections_are_allowed_ones_in_reach_and_the_best_comes_first(gold):
    found = {choice.hkl for choice in gold.choices}
    assert {(1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1)} <= found
    assert all(len({index % 2 for index in hkl}) == 1 for hkl in found)  # fcc
    for choice in gold.choices:
        assert error_law.LEAST_ANGLE <= choice.two_theta <= error_law.LARGEST_ANGLE
        assert abs(choice.energy / KEV - 11.919) > 0.1  # the L3 edge, where tables do not hold

    good = [c.error.phase <= gold.bounds[0] and c.error.strain <= gold.bounds[1] for c in gold.choices]
    assert any(good) and good == sorted(good, reverse=True)
    shine = [c.brightness for c, is_good in zip(gold.choices, good, strict=True) if is_good]
    assert shine == sorted(shine, reverse=True)
    asked = next(c for c in gold.choices if c.hkl == (1, 1, 1) and c.energy == gold.chi.energy)
    assert asked.brightness == pytest.approx(1) and asked.error == gold.error
    assert asked.largest == min(gold.largest["phase"], gold.largest["strain"])


def test_members_of_a_family_that_differ_are_both_there():
    """In a tetragonal cell (1, 0, 0) and (0, 0, 1) are planes of different spacing, (1, 0, 0) and (0, 1, 0) are not."""
    cell = [("Cu", (0, 0, 0))]
    lattice = (3e-10, 3e-10, 4e-10)
    found = reflections.families(cell, 10 * KEV, lattice)
    assert (1, 0, 0) in found and (0, 0, 1) in found and (0, 1, 0) not in found
    assert len(found) == reflections.MOST
    spacings = [pendel.susceptibility(cell, hkl=hkl, energy_keV=10, lattice=lattice).d_spacing for hkl in found]
    assert spacings == sorted(spacings, reverse=True)


def test_planes_of_one_spacing_that_scatter_differently_are_both_there():
    """Two atoms on a diagonal of a tetragonal cell: (1, 1, 0) and (1, -1, 0) are as wide, and one is stronger."""
    found = reflections.families([("Cu", (0, 0, 0)), ("Cu", (0.3, 0.3, 0))], 10 * KEV, (3e-10, 3e-10, 4e-10))
    assert {(1, 1, 0), (1, -1, 0)} <= set(found)


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"size": -1.0}, "size: expected"),
        ({"bounds": (0.1, 0.0)}, "bounds"),
        ({"own_phase": -0.1}, "own_phase"),
        ({"polarization": "horizontal"}, "polarization"),
        ({"energy_keV": 3.0}, "energy"),
        ({"hkl": (4, 4, 4), "energy_keV": 13.0}, "energy_keV: expected 2theta below 90 deg, got"),
        ({"hkl": (1, 0, 0)}, "hkl: expected an allowed reflection"),
        ({"detector": 55e-6}, "detector: expected"),
        ({"detector": (55.0, 1.0)}, r"detector\[0\] \(pixel size\)"),
        ({"detector": (55e-6, 1e4)}, r"detector\[1\] \(distance\)"),
        ({"voxel": 20.0}, "voxel"),
    ),
)
def test_arguments_are_named(changed, message):
    with pytest.raises((TypeError, ValueError), match=message):
        pendel.plan("Au", **{"hkl": (1, 1, 1), "energy_keV": 9.0} | changed)


def test_the_command_prints_the_plan(gold, capsys, tmp_path):
    picture = tmp_path / "plan.png"
    command = "plan Au --hkl 1 1 1 --energy 9 --size 500 --pixel 55 --distance 1".split()
    assert main([*command, "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out == f"{gold}\nwritten to {picture}\n"
    assert kinds.kind_of(picture) == kinds.PICTURE
    assert "nan" not in out and all(len(line) <= 120 for line in out.splitlines())
    assert main([*command, "--plot", str(picture)]) == 0  # its own picture is replaced


def test_the_command_names_options_and_writes_over_nothing(capsys, tmp_path):
    other = tmp_path / "notes.png"
    other.write_text("measured on Tuesday")
    command = "plan Au --hkl 1 1 1 --energy 9".split()
    for arguments, message in (
        ([*command, "--plot", str(other)], "--plot: "),
        ([*command, "--plot", str(tmp_path / "plan.nothing")], "--plot: expected an ending out of"),
        ([*command, "--distance", "1"], "--pixel: expected one with --distance"),
        ([*command, "--size", "-5"], "--size: "),
        ([*command, "--bounds", "0.1", "0"], "--bounds (strain): "),
        ("plan Au --hkl 1 0 0 --energy 9".split(), "--hkl: expected an allowed reflection"),
        ("plan Unobtainium --hkl 1 1 1 --energy 9".split(), "MATERIAL: "),
        ("plan Au --hkl 1 1 1 --energy 9000".split(), "--energy: expected"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"pendel: error: {message}") and captured.err.count("\n") == 1
    assert other.read_text() == "measured on Tuesday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.png"]


def test_errors_of_a_plan_are_numbers(gold):
    for error in (gold.error, *(choice.error for choice in gold.choices)):
        assert np.isfinite(error).all() and min(error) > 0
