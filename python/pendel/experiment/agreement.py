"""Whether a crystal's reflection is the one that an experiment is set up for: energy, arm and lattice spacing agree."""

import math
import warnings

import numpy as np

from .crystal import Crystal
from .geometry import Experiment
from .photons import energy_in_kev

STRAIN = 0.01  # of the lattice, as heat and alloying make, which is no contradiction
SAME_ENERGY = 0.01  # relative: the susceptibilities go with its square


def warn_of_contradictions(experiment: Experiment, crystal: Crystal) -> None:
    """UserWarning where the crystal's spacing and wavelength, as far as they are known, are not the experiment's."""
    for text in (_of_angle(experiment, crystal), _of_energy(experiment, crystal)):
        if text:
            # always of this line, so that the models of one reconstruction say it once
            warnings.warn(text, stacklevel=1)


def covered(experiment: Experiment) -> float:
    """How far from 2 theta of the arm detector and scan see a reflection, rad."""
    rows, cols = (max(c, n - 1 - c) for c, n in zip(experiment.centre[1:], experiment.detector_shape, strict=True))
    turned = np.abs(experiment.rocking_angles - experiment.centre_angle).max()
    return math.hypot(rows, cols) * experiment.pixel_size / experiment.distance + 2 * float(turned)


def _of_angle(experiment, crystal):
    """What is wrong with 2 theta, or ""."""
    if crystal.d_spacing is None:
        return ""
    name = f"{crystal.name} {crystal.hkl}" if crystal.hkl else crystal.name or "the crystal"
    spacing = f"{1e10 * crystal.d_spacing:.5g} angstrom at {energy_in_kev(experiment.wavelength):.5g} keV"
    got = f"{math.degrees(experiment.two_theta):.5g} deg"
    sine = experiment.wavelength / (2 * crystal.d_spacing)
    if sine > 1:
        return f"energy: expected one at which {name} reflects, lambda <= 2 d, got {spacing}, arm at 2theta = {got}"

    bragg = 2 * math.asin(sine)
    spread = 2 * STRAIN * math.tan(bragg / 2)
    if abs(bragg - experiment.two_theta) <= max(covered(experiment), spread):
        return ""
    return (
        f"arm: expected 2theta = {math.degrees(bragg):.5g} deg, Bragg's law for {name} of d = {spacing}, got {got}; "
        "energy, arm and reflection (hkl) contradict each other"
    )


def _of_energy(experiment, crystal):
    """What is wrong with the energy of the susceptibilities, or ""."""
    if crystal.wavelength is None or abs(crystal.wavelength / experiment.wavelength - 1) <= SAME_ENERGY:
        return ""
    expected, got = (energy_in_kev(w) for w in (experiment.wavelength, crystal.wavelength))
    return f"energy: expected susceptibilities at {expected:.5g} keV, as of the experiment, got ones at {got:.5g} keV"
