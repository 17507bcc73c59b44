"""Numbers in the wrong unit are refused, and the message names the argument and the unit that they look like."""

import math

import numpy as np
import pytest
from pendel import Coherence, Crystal, Experiment, Model, TakagiTaupin, io, kinematic, solve, susceptibility
from pendel.app import config
from pendel.app.errors import ConfigError
from pendel.base.constants import KEV

SCAN = {
    "energy": 8 * KEV,
    "distance": 0.75,
    "pixel_size": 75e-6,
    "detector_shape": (24, 24),
    "arm": [("y+", math.radians(44.76))],
    "rocking_axis": "y+",
    "rocking_angles": np.radians(0.012 * (np.arange(24) - 12)),
}

WRONG = [
    ({"arm": [("y+", 44.76)]}, r"arm\[0\]\[1\]: expected .* rad, got 44.76; that looks like deg"),
    ({"arm": [("x-", -40.0), ("y+", 0.1)]}, r"arm\[0\]\[1\]: .*that looks like deg"),
    ({"energy": 8.0}, "energy: expected .* J, got 8.0; that looks like keV: give energy_keV"),
    ({"energy": 8000.0}, "energy: expected .* J, got 8000.0; that looks like eV"),
    ({"energy": None, "energy_keV": 8000.0}, "energy_keV: expected 0.1 to 200 keV, got 8000.0; that looks like eV"),
    ({"energy": None, "energy_keV": 8 * KEV}, "energy_keV: expected .*; that looks like J"),
    ({"energy": None, "wavelength": 1.55}, "wavelength: expected .* m, got 1.55; that looks like angstrom"),
    ({"energy": None, "wavelength": 0.0155}, "wavelength: .*looks like nm"),
    ({"distance": 750.0}, "distance: expected .* m, got 750.0; that looks like mm"),
    ({"pixel_size": 75.0}, "pixel_size: expected .* m, got 75.0; that looks like um"),
    ({"pixel_size": (0.055, 0.055)}, r"pixel_size\[0\]: .*looks like mm"),
    ({"rocking_angles": np.degrees(SCAN["rocking_angles"])}, "rocking_angles: expected rad.*looks like deg"),
    ({"rocking_angles": 22 + np.degrees(SCAN["rocking_angles"])}, "rocking_angles: expected rad.*looks like deg"),
    ({"arm": None, "two_theta_deg": 4476.0}, "two_theta_deg: expected -180 to 180 deg"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_an_experiment_in_the_wrong_unit(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Experiment(**(SCAN | change))


def test_kev_and_degrees_by_name_are_the_same_experiment():
    si = Experiment(**SCAN)
    named = SCAN | {"energy": None, "arm": None, "rocking_angles": None}
    named |= {"energy_keV": 8.0, "two_theta_deg": 44.76, "rocking_angles_deg": 0.012 * (np.arange(24) - 12)}
    other = Experiment(**named)
    assert other.wavelength == si.wavelength and other.two_theta == si.two_theta
    np.testing.assert_allclose(other.dq, si.dq, rtol=1e-12)
    assert other.replace(energy_keV=9.0).energy == pytest.approx(9 * KEV)
    assert other.replace(wavelength=1e-10).wavelength == 1e-10
    assert other.replace(two_theta_deg=40.0).two_theta == pytest.approx(math.radians(40))
    assert other.replace(arm=[("x-", 0.5)]).two_theta == pytest.approx(0.5)
    assert len(other.replace(rocking_angles_deg=[0.0, 0.01]).dq) == 2


@pytest.mark.parametrize(
    "change", [{"energy_keV": 8.0}, {"two_theta_deg": 44.76}, {"rocking_angles_deg": [0.0]}, {"wavelength": 1e-10}]
)
def test_the_same_said_twice_is_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}.*: expected (exactly )?one"):
        Experiment(**(SCAN | change))


def test_no_angles_are_asked_for_by_name():
    with pytest.raises(TypeError, match="^rocking_angles: expected"):
        Experiment(**(SCAN | {"rocking_angles": None}))


@pytest.mark.parametrize("step", [2e-6, 2e-5, 2e-4])
def test_usual_scans_are_taken_in_radians(step):
    Experiment(**(SCAN | {"rocking_angles": 0.4 + step * np.arange(100)}))


def test_a_crop_of_a_scan_is_one_still():
    small = Experiment(**SCAN).crop(rows=slice(11, 13), cols=slice(11, 13), frames=slice(0, 24, 2))
    assert small.detector_shape == (2, 2) and small.n_frames == 12


GOLD = {"chi_0": -9.407e-5 + 8.496e-6j, "chi_h": 7.400e-5 - 8.434e-6j}
OPERATOR = {"shape": (4, 4, 4), "voxel": (1e-8,) * 3, "wavelength": 1.55e-10, "two_theta": 0.78} | GOLD


@pytest.mark.parametrize("name", ["chi_0", "chi_h", "chi_hbar"])
def test_a_susceptibility_in_parts_per_million(name):
    for make, known in ((Crystal, GOLD), (TakagiTaupin, OPERATOR)):
        with pytest.raises(ValueError, match=rf"^{name}: expected \|{name}\| <= 0.3.*units of 1e-6"):
            make(**(known | {name: 94.07 + 8.5j}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel": (10.0,) * 3}, r"voxel\[0\]: expected .* m, got 10.0; that looks like nm"),
        ({"wavelength": 1.55}, "wavelength: .*looks like angstrom"),
        ({"two_theta": 44.76}, "two_theta: expected an angle in rad"),
    ],
)
def test_an_operator_in_the_wrong_unit(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TakagiTaupin(**(OPERATOR | change))


def test_sizes_and_lengths_in_the_wrong_unit(tmp_path):
    e, crystal, data = Experiment(**SCAN), Crystal(**GOLD), np.ones((24, 24, 24))
    beam = {name: SCAN[name] for name in ("energy", "distance", "pixel_size")}
    calls = {
        "voxel": lambda: Model(e, crystal, (8, 8, 8), (50.0, 50.0, 50.0)),
        "box": lambda: solve(e, crystal, data, box=500.0),
        "horizontal": lambda: Coherence(horizontal=50.0),
        "extent": lambda: kinematic.support.box_support((4, 4, 4), (1e-8,) * 3, (400.0,) * 3),
        "energy": lambda: io.write_scan(tmp_path / "a.cxi", data, **(beam | {"energy": 8000.0})),
        "distance": lambda: io.write_scan(tmp_path / "a.cxi", data, **(beam | {"distance": 750})),
        "pixel_size": lambda: io.write_scan(tmp_path / "a.cxi", data, **(beam | {"pixel_size": 75})),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"^{name}(\[0\])?: expected .*looks like"):
            call()


def test_susceptibility_takes_kev_by_name():
    pytest.importorskip("gemmi")
    assert susceptibility("Au", hkl=(1, 1, 1), energy_keV=9) == susceptibility("Au", hkl=(1, 1, 1), energy=9 * KEV)
    with pytest.raises(ValueError, match="energy: expected 4 to 100 keV.*looks like keV: give energy_keV"):
        susceptibility("Au", hkl=(1, 1, 1), energy=9)


@pytest.mark.parametrize(
    ("key", "value", "unit"),
    [
        ("experiment.energy_keV", "8000.0", "eV"),
        ("experiment.distance_mm", "0.75", "m"),
        ("experiment.pixel_um", "75e-6", "m"),
        ("experiment.pixel_um", "0.055", "mm"),
        ("model.voxel_nm", "1e-8", "m"),
        ("model.coherence_um", "[1e-4, 1e-4]", "m"),
        ("start.size_nm", "5e-7", "m"),
        ("start.size_nm", "[5e-7, 5e-7, 5e-7]", "m"),
        ("crystal.lattice_nm", "4.078e-10", "m"),
    ],
)
def test_a_configuration_in_the_wrong_unit_names_the_key(key, value, unit):
    with pytest.raises(ConfigError, match=rf"^{key}(\[0\])?: expected .*looks like {unit}$"):
        config.loads("", [f"{key}={value}"])


def test_an_arm_of_a_configuration_may_be_a_turn_too_far():
    made = config.loads('experiment.arm = [["y+", 350.0], ["x-", -355.0]]')
    assert made.experiment_keys.arm == (("y+", -10.0), ("x-", 5.0))


def test_a_file_without_units_is_found_out(tmp_path):
    scan = io.Scan(data=np.ones((24, 24, 24)), mask=np.ones((24, 24), bool), energy=8000.0, distance=0.75)
    scan.pixel_size, scan.rocking_angles, scan.rocking_axis = (75e-6, 75e-6), SCAN["rocking_angles"], "y+"
    made = config.loads("experiment.two_theta_deg = 44.76")
    with pytest.raises(ConfigError, match=r"^experiment\.energy: .*looks like eV"):
        made.experiment(scan)
    scan.energy, scan.rocking_angles = 8 * KEV, np.degrees(SCAN["rocking_angles"])
    with pytest.raises(ConfigError, match=r"^experiment\.rocking_angles: .*looks like deg"):
        made.experiment(scan)


def test_a_lattice_in_angstrom_given_as_nanometres_is_found_out():
    pytest.importorskip("gemmi")
    with pytest.raises(ValueError, match="^lattice: expected lengths like the material's own"):
        susceptibility("Au", hkl=(1, 1, 1), energy_keV=9, lattice=4.0782e-9)
