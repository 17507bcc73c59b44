"""Energy, arm and reflection that contradict each other are told; geometry that nobody gave is asked for."""

import warnings

import numpy as np
import pytest
from pendel import Coherence, Crystal, Experiment, Model, io, kinematic, susceptibility
from pendel.app import config
from pendel.app.errors import ConfigError
from pendel.base.constants import KEV

SCAN = {
    "energy_keV": 8.0,
    "distance": 0.75,
    "pixel_size": 75e-6,
    "detector_shape": (24, 24),
    "two_theta_deg": 44.76,
    "rocking_axis": "y+",
    "rocking_angles_deg": 0.012 * (np.arange(24) - 12),
}
GOLD_002 = {"chi_0": -9.407e-5 + 8.496e-6j, "chi_h": 7.400e-5 - 8.434e-6j}


def model(crystal, **changes):
    e = Experiment(**(SCAN | changes))
    return Model(e, crystal, (4, 4, 4), e.suggest_voxel(), threads=1)


def test_a_reflection_at_the_angle_of_another_is_told():
    crystal = Crystal(**GOLD_002, name="Au", hkl=(1, 1, 1), d_spacing=2.3545e-10)
    with pytest.warns(UserWarning, match=r"^arm: expected 2theta = 38.43 deg.*Au \(1, 1, 1\).*got 44.76 deg.*energy"):
        model(crystal)


def test_a_spacing_out_of_reach_of_the_energy_is_told():
    with pytest.warns(UserWarning, match="^energy: expected one at which"):
        model(Crystal(**GOLD_002, d_spacing=0.5e-10))


def test_susceptibilities_of_another_energy_are_told():
    crystal = Crystal(**GOLD_002, d_spacing=2.0391e-10, wavelength=1.3776e-10)
    with pytest.warns(UserWarning, match="^energy: expected susceptibilities at 8 keV.*got ones at 9"):
        model(crystal)


@pytest.mark.parametrize("strain", [0, 5e-3, -5e-3])
def test_what_agrees_is_not_told(strain):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(Crystal(**GOLD_002, d_spacing=2.0351e-10 * (1 + strain), wavelength=1.5498e-10))
        model(Crystal(**GOLD_002, hkl=(1, 1, 1)))  # nothing is known of its lattice


def test_a_tabulated_crystal_knows_its_spacing_and_energy():
    pytest.importorskip("gemmi")
    found = susceptibility("Au", hkl=(1, 1, 1), energy_keV=9)
    assert found.crystal().d_spacing == found.d_spacing and found.crystal().wavelength == found.wavelength
    with pytest.warns(UserWarning, match="^arm: expected"):
        model(found.crystal(), energy_keV=9.0)
    right = susceptibility("Au", hkl=(0, 0, 2), energy_keV=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(right.crystal())
        Coherence().settings(Experiment(**SCAN), 1e-6)


def scan(**changes):
    known = {"energy": 8 * KEV, "distance": 0.75, "pixel_size": (75e-6, 75e-6), "rocking_axis": "y+"}
    known |= {"rocking_angles": np.radians(SCAN["rocking_angles_deg"]), "arm": (("y+", 0.78),)}
    return io.Scan(np.ones((24, 24, 24)), np.ones((24, 24), bool), **(known | changes))


def test_the_rocking_axis_is_asked_for_by_its_key():
    with pytest.raises(ConfigError, match=r"^experiment\.rocking_axis: expected a value, got none"):
        config.loads("").experiment(scan(rocking_axis=None))
    made = config.loads('experiment.rocking_axis = "x-"').experiment(scan(rocking_axis=None))
    assert made.rocking_axis.tolist() == [-1, 0, 0]
    assert config.loads("").experiment(scan()).rocking_axis.tolist() == [0, 1, 0]


def test_an_energy_that_is_not_the_data_s_is_told():
    with pytest.warns(UserWarning, match=r"^experiment\.energy_keV: expected about 8.*got 9"):
        assert config.loads("experiment.energy_keV = 9.0").experiment(scan()).energy == pytest.approx(9 * KEV)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.loads("experiment.energy_keV = 8.01").experiment(scan())


@pytest.mark.parametrize("axis", ["along h", "in the plane"])
def test_a_singular_geometry_names_the_rocking_axis(axis):
    e = Experiment(**SCAN)
    # about k_h frames turn in the detector's plane
    e = e.replace(rocking_axis=e.h if axis == "along h" else e.k_h)
    data = np.ones((24, 24, 24))
    for call in (
        lambda: kinematic.even_scan(e, data),
        lambda: kinematic.to_model_grid(data + 0j, e, (8, 8, 8), (5e-8,) * 3),
    ):
        with pytest.raises(ValueError, match="^rocking_axis: expected one that carries the crystal through"):
            call()
