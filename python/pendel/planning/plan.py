"""`pendel.plan`: what a reflection, an energy and a size mean, before there are any frames."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from ..base import checks, plausible
from ..base.constants import KEV
from ..experiment.structure_factor import Susceptibility, susceptibility
from . import error_law
from .reflections import Choice, choices
from .rocking import OVERSAMPLING, Rocking, rocking

SHOWN = 8  # reflections in the text


@dataclass(frozen=True)
class Plan:
    """Answer of `plan`. Lengths in m, angles in rad; errors are rms: phases less a plane, strains less their mean.

    Attributes
    ----------
    chi : Susceptibility
        With wavelength, two_theta, absorption_length.
    polarization : str
    bounds : (float, float)
        Of phase and strain.
    own_phase : float
        rms phase that the crystal is taken to have of its own.
    pendelloesung_distance : float
        lambda cos(theta)/(C |chi_h|): period of the exchange of intensity.
    extinction_length : float
        That over pi.
    refraction : float
        k |Re chi_0|/2, phase per length of path [rad/m].
    largest : {"phase", "strain", "corrected_phase", "corrected_strain": float}
        Size of the largest crystal phased kinematically within the bound; 0: none, inf: any up to ``law_ends``.
    law_ends : float
        Size up to which the law of errors was fitted.
    size : float
        Asked for, or the largest of "phase".
    error : error_law.Error
        Of a crystal of ``size``, by the law.
    rocking : Rocking
        The scan for ``size``.
    choices : tuple of Choice
        Other reflections and energies for ``size``, the best one first.
    """

    chi: Susceptibility
    polarization: str
    bounds: tuple[float, float]
    own_phase: float
    pendelloesung_distance: float
    extinction_length: float
    refraction: float
    largest: dict
    law_ends: float
    size: float
    error: error_law.Error
    rocking: Rocking
    choices: tuple[Choice, ...]

    def __str__(self):
        return "\n".join([*self._lengths(), "", *self._sizes(), "", *self._scan(), "", *self._others()])

    def _lengths(self):
        chi, energy = self.chi, self.chi.energy / KEV
        hkl = " ".join(map(str, chi.hkl))
        yield (
            f"{chi.name or 'crystal'} ({hkl}), {energy:.6g} keV, {self.polarization}: 2theta "
            f"{math.degrees(chi.two_theta):.2f} deg, d {1e12 * chi.d_spacing:.1f} pm"
        )
        yield (
            f"extinction length    {_length(self.extinction_length)}, times pi: Pendelloesung "
            f"{_length(self.pendelloesung_distance)}"
        )
        yield f"absorption length    {_length(chi.absorption_length)}"
        yield f"refraction           {1e-6 * self.refraction:.3g} rad per um of path"

    def _sizes(self):
        phase, strain = self.bounds
        yield f"largest crystal that kinematic phasing gets right, rms: phase to {phase:g} rad   strain to {strain:g}"
        for name, kind in (("as it is", ""), ("refraction taken off", "corrected_")):
            sizes = [self._largest(f"{kind}{part}") for part in ("phase", "strain")]
            yield f"  {name:<52}{sizes[0]:<16}{sizes[1]}"
        wrong = self.error
        yield (
            f"of {_length(self.size)}: {wrong.phase:.2g} rad and {wrong.strain:.1e}; with refraction taken off "
            f"{wrong.corrected_phase:.2g} rad and {wrong.corrected_strain:.1e}"
        )
        if self.size > self.law_ends:
            yield f"  the law of errors ends at {_length(self.law_ends)}: this crystal's are larger (docs/planning.md)"

    def _largest(self, which):
        size = self.largest[which]
        if size == 0:
            return "none"
        return f"any to {_length(self.law_ends)}" if math.isinf(size) else _length(size)

    def _scan(self):
        scan = self.rocking
        yield (
            f"scan of {_length(self.size)} on voxels of {_length(scan.voxel)}, {OVERSAMPLING:g} times oversampled: "
            f"{scan.frames} frames {math.degrees(scan.step):.3g} deg apart, {scan.pixels} x {scan.pixels} pixels"
        )
        if scan.distance is not None:
            yield f"distance for that     {scan.distance:.3g} m"
        if scan.oversampling is not None:
            enough = "" if scan.oversampling >= 2 else ": less than 2, fringes are not resolved"
            yield f"pixels per fringe    {scan.oversampling:.3g} at this distance{enough}"
        yield f"curved Ewald sphere  {scan.curvature_phase:.2g} rad at the band's edge and the crystal's surface"

    def _others(self):
        yield f"reflections, each at its best energy, for {_length(self.size)}: within both bounds the brightest first"
        yield "  hkl        keV   2theta   bright   rad      strain    largest, corrected"
        best = {choice.hkl: choice for choice in reversed(self.choices)}
        for choice in sorted(best.values(), key=self.choices.index)[:SHOWN]:
            hkl = " ".join(map(str, choice.hkl))
            sizes = [_bounded(size) for size in (choice.largest, choice.largest_corrected)]
            yield (
                f"  {hkl:<9}{choice.energy / KEV:>5.4g}{math.degrees(choice.two_theta):>9.1f}{choice.brightness:>9.2f}"
                f"{choice.error.phase:>8.2g}{choice.error.strain:>11.1e}    {sizes[0]}, {sizes[1]}"
            )


def plan(
    material: str | os.PathLike | Sequence,
    *,
    hkl: tuple[int, int, int],
    energy_keV: float,
    size: float | None = None,
    lattice: float | ArrayLike | None = None,
    polarization: str = "sigma",
    bounds: tuple[float, float] = (error_law.PHASE_ENOUGH, error_law.STRAIN_ENOUGH),
    own_phase: float = error_law.USUAL_PHASE,
    voxel: float | None = None,
    detector: tuple[float, float | None] | None = None,
) -> Plan:
    """How far kinematic phasing of a crystal can be trusted, and what scan it needs, by `pendel.planning.error_law`.

    Parameters
    ----------
    material, hkl, energy_keV : as in `pendel.susceptibility`
    size : float or None
        Diameter of the sphere of the crystal's volume [m]; None: of the largest crystal whose phase is within its
        bound.
    lattice : as in `pendel.susceptibility`
    polarization : "sigma" | "pi"
        sigma: the beam's electric field is normal to the scattering plane.
    bounds : (float, float)
        rms errors of phase [rad] and of strain that are good enough.
    own_phase : float
        rms phase of the crystal's own strain [rad]: extinction grows with it.
    voxel : float or None
        Width of the voxels that are wanted [m]; None: a 25th of the size.
    detector : (pixel size, distance) or None
        [m], distance None: not known.

    Returns
    -------
    Plan
        Its text is what `pendel plan` prints.

    Raises
    ------
    ImportError
        Without gemmi.
    TypeError, ValueError
        Naming the argument; ValueError also for 2theta of 90 degrees and more, which the law of errors is not for.
    """
    checks.choice("polarization", polarization, ("sigma", "pi"))
    bounds = checks.lengths("bounds", bounds, 2)
    own_phase = checks.number("own_phase", own_phase, at_least=0)
    if size is not None:
        size = checks.number("size", size, above=0)
    chi = susceptibility(material, hkl=hkl, energy_keV=energy_keV, lattice=lattice)
    if chi.two_theta >= math.pi / 2:
        raise ValueError(f"energy_keV: expected 2theta below 90 deg, got {math.degrees(chi.two_theta):.4g} deg")

    names = error_law.Error._fields
    limit = dict(zip(names, (*bounds, *bounds), strict=True))
    largest = {name: error_law.largest_size(chi, name, limit[name], own_phase, polarization) for name in names}
    law_ends = error_law.LARGEST_X / error_law.numbers(chi, 1.0, own_phase, polarization).extinction
    size = min(largest["phase"], law_ends) if size is None else size
    return Plan(
        chi=chi,
        polarization=polarization,
        bounds=bounds,
        own_phase=own_phase,
        pendelloesung_distance=chi.pendelloesung_distance(polarization),
        extinction_length=chi.extinction_length_laue(polarization),
        refraction=math.pi / chi.wavelength * abs(chi.chi_0.real),
        largest=largest,
        law_ends=law_ends,
        size=size,
        error=error_law.error(error_law.numbers(chi, size, own_phase, polarization)),
        rocking=rocking(size, chi.d_spacing, chi.wavelength, *_checked_lengths(voxel, detector)),
        choices=tuple(choices(chi, material, lattice, size, bounds, own_phase, polarization)),
    )


def _checked_lengths(voxel, detector):
    """(voxel, pixel size, distance); what is not known is None."""
    if voxel is not None:
        voxel = plausible.number(plausible.VOXEL, "voxel", voxel)
    if detector is None:
        return voxel, None, None
    if not isinstance(detector, (tuple, list)) or len(detector) != 2:
        raise ValueError(f"detector: expected (pixel size, distance), got {checks.describe(detector)}")
    pixel_size = plausible.number(plausible.PIXEL, "detector[0] (pixel size)", detector[0])
    if detector[1] is None:
        return voxel, pixel_size, None
    return voxel, pixel_size, plausible.number(plausible.DISTANCE, "detector[1] (distance)", detector[1])


def _length(metres):
    """In nm or um, three digits."""
    if math.isinf(metres):
        return "no end"
    return f"{1e6 * metres:.3g} um" if metres >= 1e-6 else f"{1e9 * metres:.3g} nm"


def _bounded(size):
    return "none" if size == 0 else "any" if math.isinf(size) else _length(size)
