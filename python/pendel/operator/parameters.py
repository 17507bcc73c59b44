"""An operator of other susceptibilities or another geometry, and the gradient with respect to these numbers."""

import copy
import math
from typing import Any

import numpy as np

from ..base import checks, plausible
from ..base.arrays import host
from .engine import Array
from .physics import angle_of_incidence, checked_angle, checked_chi_0, coupling_coefficients_adj
from .planned import plan_of


def with_parameters(op: Any, chi: Any = None, geometry: Any = None) -> Any:
    """See `TakagiTaupin.with_parameters`."""
    other = copy.copy(op)
    if chi is not None:
        chi_0, chi_h, chi_hbar = checks.array("chi", host(chi, "chi"), (3,), np.complex128)
        other.chi_0 = checked_chi_0(complex(chi_0))
        other.chi_h = plausible.susceptibility("chi_h", complex(chi_h))
        other.chi_hbar = plausible.susceptibility("chi_hbar", complex(chi_hbar))
    if geometry is not None:
        voxel_scale, two_theta = map(float, checks.array("geometry", host(geometry, "geometry"), (2,), np.float64))
        if not voxel_scale > 0:
            raise ValueError(f"geometry: expected (voxel_scale, two_theta) with voxel_scale > 0, got {voxel_scale!r}")
        other.two_theta = checked_angle(two_theta, op.orientation)
        other.voxel = _voxel_at(op, voxel_scale, other.two_theta)
    other.plan = plan_of(other)
    return other


def _voxel_at(op, voxel_scale: float, two_theta: float) -> tuple[float, float, float]:
    """The voxel times a number, its height such that E_0 moves as many pixels per layer as before."""
    before, now = (math.tan(angle_of_incidence(angle, op.orientation)) for angle in (op.two_theta, two_theta))
    dz, dy, dx = op.voxel
    edges = voxel_scale * dz * (before / now), voxel_scale * dy, voxel_scale * dx
    return plausible.lengths(plausible.VOXEL, "voxel", edges, 3)


def with_parameters_adj(op: Any, dq: Array, adj_medium: Array, adj_dq: Array) -> tuple[Array, Array]:
    """Gradients with respect to chi and to geometry = (voxel_scale, two_theta) at those of ``op``.

    Parameters
    ----------
    op : TakagiTaupin
        Of the sweep.
    dq : float64 (frames, 3)
        [rad/m]
    adj_medium : complex128 (4,)
        Gradient of m, w, b, c of csrc/README.md, section 2.
    adj_dq : float64 (frames, 3)
        [m]

    Returns
    -------
    adj_chi : complex128 (3,)
    adj_geometry : float64 (2,)
        Of voxel_scale at 1; of two_theta [1/rad].
    """
    xp = op.engine.xp
    angle, per_two_theta = angle_of_incidence(op.two_theta, op.orientation), angle_of_incidence(1.0, op.orientation)
    chi = op.chi_0, op.chi_h, op.chi_hbar
    adj_chi, adj_angle = coupling_coefficients_adj(
        adj_medium, op.voxel[0], op.wavelength, op.two_theta, op.orientation, chi, op.polarization_factor
    )

    # all four coefficients and the phases exp(-i D dz) are proportional to dz, the exit ramp's to dy and dx
    medium = xp.asarray(np.array(op.plan.medium))
    by_coupling = xp.sum((adj_medium.conj() * medium).real)
    by_detuning = xp.sum(adj_dq[:, 2] * (dq[:, 2] - op.plan.tan_h * dq[:, 0]))
    adj_voxel_scale = by_coupling + xp.sum(adj_dq * dq)

    # Reverse: dz = pixels dx / tan(angle), D = dq_z - tan(angle) dq_x where z is along k_0 + k_h
    adj_angle = adj_angle - (by_coupling + by_detuning) / (math.sin(angle) * math.cos(angle))
    if op.orientation == "symmetric":
        adj_angle = adj_angle - xp.sum(adj_dq[:, 2] * dq[:, 0]) / math.cos(angle) ** 2
    adj_geometry = xp.empty(2)
    adj_geometry[0], adj_geometry[1] = adj_voxel_scale, per_two_theta * adj_angle
    return adj_chi, adj_geometry
