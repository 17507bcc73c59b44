"""From the attributes of a `TakagiTaupin` to the rows and the `Plan` of its sweeps."""

import math
from typing import Any

import numpy as np

from .physics import angle_of_incidence, box_coefficient, coupling_coefficients
from .plan import Orientation, Plan, Scheme, Transport
from .rows import RowGeometry


def row_geometry(op: Any) -> RowGeometry:
    """Rows of a crystal's box."""
    nz, _, nx = op.shape
    is_box = op.transport == "box"
    return RowGeometry(
        nx=nx,
        travel=nz - 1 if is_box else math.ceil(op.pixels_per_layer * (nz - 1) - 1e-9),
        transport=Transport[op.transport.upper()],
        orientation=Orientation[op.orientation.upper()],
        handed=1 - box_coefficient(op.pixels_per_layer) if is_box else 0.0,
    )


def plan_of(op: Any) -> Plan:
    """That of one frame and a plane wave."""
    nz, rows = op.shape[0], row_geometry(op)
    slope = math.tan(angle_of_incidence(op.two_theta, op.orientation))
    chi = op.chi_0, op.chi_h, op.chi_hbar
    return Plan(
        shape=op.shape,
        voxel=op.voxel,
        medium=coupling_coefficients(
            op.voxel[0], op.wavelength, op.two_theta, op.orientation, chi, op.polarization_factor
        ),
        scheme=Scheme[op.scheme.upper()],
        transport=rows.transport,
        orientation=rows.orientation,
        shift=op.shift,
        pixels_per_layer=op.pixels_per_layer,
        tan_h=slope if rows.orientation == Orientation.SYMMETRIC else 0.0,
        row_length=op.row_length,
        exit_length=rows.exit_length,
        resync=nz if op.resync is None else min(op.resync, nz),
        threads=op.threads,
        single=op.dtype == np.complex64,
    )
