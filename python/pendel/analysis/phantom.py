"""Test crystals: anti-aliased shapes and smooth phase fields on the model grid.

Arrays are indexed [z, y, x] and have their origin at voxel n//2 of every axis; `shape` is (nz, ny, nx) and `voxel`
(dz, dy, dx) in m. Vectors (normals, centres, directions) are (x, y, z) in the model frame. A shape's value is the
fraction of the voxel's volume inside the body: point-sampled edges make every time stepping scheme first order,
partial volumes do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..base import checks

_SUBDIVISION = 12  # sub-columns per voxel edge where a voxel holds an edge or a corner: error <= 1/24 of that voxel
_X, _Y, _Z, _INEXACT = 1, 2, 4, 8  # of a voxel: cut by a facet across that axis; the product of fractions is not exact

Shape = tuple[int, int, int]
Voxel = tuple[float, float, float]


def coordinates(shape: Shape, voxel: Voxel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxel centres, zero at n//2.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.

    Returns
    -------
    (z, y, x) : open grids, float64, m, that broadcast to (nz, ny, nx).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    shape = checks.sizes("shape", shape, 3)
    voxel = checks.lengths("voxel", voxel, 3)
    z, y, x = ((np.arange(n) - n // 2) * step for n, step in zip(shape, voxel, strict=True))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def facetted(
    shape: Shape, voxel: Voxel, normals: ArrayLike, distances: ArrayLike, centre: ArrayLike = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """Convex polyhedron {r: n_i.(r - centre) <= d_i for all i}, volume fraction per voxel.

    Voxels cut by one facet have the exact volume (Scardovelli and Zaleski, J. Comput. Phys. 164, 228, 2000), as have
    those cut by facets along the axes only; other voxels cut by several are integrated exactly along z over a
    12 x 12 raster in (y, x).

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    normals : (m, 3) outward facet normals (x, y, z), any length > 0.
    distances : (m,) from the centre to each facet, m.
    centre : (x, y, z), m.

    Returns
    -------
    float64 (nz, ny, nx) in [0, 1].

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    normals = checks.array("normals", normals, (None, 3), np.float64, axes="(m, 3)")
    distances = checks.array("distances", distances, (len(normals),), np.float64)
    centre = checks.array("centre", centre, (3,), np.float64)
    norm = np.linalg.norm(normals, axis=1)
    if not len(normals) or not (norm > 0).all():
        raise ValueError(
            f"normals: expected at least one facet and no zero normal, got {len(normals)} with lengths {norm}"
        )
    normals = normals / norm[:, None]

    volume, several = _product_of_fractions(shape, voxel, normals, distances, centre)
    z, y, x = coordinates(shape, voxel)
    index = np.nonzero(several)
    position = (z[index[0], 0, 0] - centre[2], y[0, index[1], 0] - centre[1], x[0, 0, index[2]] - centre[0])

    def chord(y, x):
        return _chord(normals, distances, y, x)

    volume[index] = _column_fraction(position, np.array(voxel, dtype=float), chord)
    return volume


def cube(
    shape: Shape,
    voxel: Voxel,
    edge: float | tuple[float, float, float],
    rotation: ArrayLike | None = None,
    centre: ArrayLike = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Cuboid, volume fraction per voxel.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    edge : edge length, m, or three of them along the body's (x, y, z).
    rotation : (3, 3) orthogonal matrix whose columns are the body's axes in the model frame; None: aligned.
    centre : (x, y, z), m.

    Returns
    -------
    float64 (nz, ny, nx) in [0, 1].

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    edge = (edge,) * 3 if np.ndim(edge) == 0 else edge
    edge = np.array(checks.lengths("edge", edge, 3))
    axes = _rotation(rotation).T
    return facetted(shape, voxel, np.concatenate([axes, -axes]), np.tile(edge / 2, 2), centre)


def truncated_octahedron(
    shape: Shape,
    voxel: Voxel,
    distance_111: float,
    ratio: float = 1.15,
    rotation: ArrayLike | None = None,
    centre: ArrayLike = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Wulff-like fcc crystal with {111} and {100} facets, volume fraction per voxel.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    distance_111 : from the centre to the {111} facets, m.
    ratio : distance of the {100} facets over that of {111} (the Wulff construction's surface energy ratio; sqrt(3)/2
        gives a cuboctahedron, sqrt(3) a plain octahedron).
    rotation : (3, 3) orthogonal, columns are the cubic axes in the model frame (see `orientation`); None: aligned.
    centre : (x, y, z), m.

    Returns
    -------
    float64 (nz, ny, nx) in [0, 1].

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    distance_111 = checks.number("distance_111", distance_111, above=0)
    ratio = checks.number("ratio", ratio, above=0)
    signs = np.array([[i, j, k] for i in (1, -1) for j in (1, -1) for k in (1, -1)]) / np.sqrt(3)
    normals = np.concatenate([signs, np.eye(3), -np.eye(3)]) @ _rotation(rotation).T
    return facetted(shape, voxel, normals, [distance_111] * 8 + [distance_111 * ratio] * 6, centre)


def sphere(shape: Shape, voxel: Voxel, radius: float, centre: ArrayLike = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Ball, volume fraction per voxel.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    radius : m.
    centre : (x, y, z), m.

    Returns
    -------
    float64 (nz, ny, nx) in [0, 1].

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    radius = checks.number("radius", radius, above=0)
    centre = checks.array("centre", centre, (3,), np.float64)
    z, y, x = coordinates(shape, voxel)
    z = z - centre[2]
    y = y - centre[1]
    x = x - centre[0]
    step = np.array(voxel, dtype=float)
    distance = np.sqrt(x**2 + y**2 + z**2)
    half = 0.5 * np.linalg.norm(step)
    volume = (distance < radius).astype(float)
    index = np.nonzero(np.abs(distance - radius) < half)

    def chord(y, x):
        high = np.sqrt(np.maximum(radius**2 - y**2 - x**2, 0))
        return -high, high

    volume[index] = _column_fraction((z[index[0], 0, 0], y[0, index[1], 0], x[0, 0, index[2]]), step, chord)
    return volume


def orientation(hkl: ArrayLike, direction: ArrayLike, azimuth: float = 0.0) -> np.ndarray:
    """Rotation whose columns are the cubic axes in the model frame, for a lattice plane normal along ``direction``.

    Parameters
    ----------
    hkl : three numbers.
    direction : (x, y, z), for example the h of the experiment.
    azimuth : turn about ``direction``, rad.

    Returns
    -------
    float64 (3, 3).

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    source = _frame("hkl", hkl)
    target = _frame("direction", direction)
    azimuth = checks.number("azimuth", azimuth)
    turn = np.array([[np.cos(azimuth), -np.sin(azimuth), 0], [np.sin(azimuth), np.cos(azimuth), 0], [0, 0, 1]])
    return target @ turn @ source.T


def bumps(shape: Shape, voxel: Voxel, centres: ArrayLike, widths: ArrayLike, heights: ArrayLike) -> np.ndarray:
    """Sum of Gaussian phase bumps: sum_i heights_i exp(-|r - c_i|^2 / (2 widths_i^2)).

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    centres : (m, 3), (x, y, z), m.
    widths : (m,), m, > 0.
    heights : (m,), rad.

    Returns
    -------
    float64 (nz, ny, nx), rad.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    centres = checks.array("centres", centres, (None, 3), np.float64, axes="(m, 3)")
    widths = checks.lengths("widths", widths, len(centres))
    heights = checks.array("heights", heights, (len(centres),), np.float64)
    z, y, x = coordinates(shape, voxel)
    phase = np.zeros(shape)
    for (cx, cy, cz), width, height in zip(centres, widths, heights, strict=True):
        phase += height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * width**2))
    return phase


def contact(shape: Shape, voxel: Voxel, corner: ArrayLike, radius: float, height: float) -> np.ndarray:
    """Contact-like phase height/(1 + |r - corner|/radius).

    Outside the contact the displacement under a point load falls like 1/distance (Boussinesq); ``radius`` rounds it
    off.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    corner : (x, y, z), m.
    radius : m, > 0.
    height : at the corner, rad.

    Returns
    -------
    float64 (nz, ny, nx), rad.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    corner = checks.array("corner", corner, (3,), np.float64)
    radius = checks.number("radius", radius, above=0)
    height = checks.number("height", height)
    z, y, x = coordinates(shape, voxel)
    return height / (1 + np.sqrt((x - corner[0]) ** 2 + (y - corner[1]) ** 2 + (z - corner[2]) ** 2) / radius)


def bend(shape: Shape, voxel: Voxel, curvature: ArrayLike) -> np.ndarray:
    """Quadratic phase r.C.r/2.

    A constant strain gradient along z is C_zz only; a lattice bent about y is C_xz = C_zx.

    Parameters
    ----------
    shape : (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    curvature : C, symmetric (3, 3) in (x, y, z), rad/m^2.

    Returns
    -------
    float64 (nz, ny, nx), rad.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    c = checks.array("curvature", curvature, (3, 3), np.float64)
    if np.abs(c - c.T).max() > 1e-12 * np.abs(c).max():
        raise ValueError("curvature: expected a symmetric (3, 3) matrix, got an unsymmetric one")
    z, y, x = coordinates(shape, voxel)
    return (
        0.5 * (c[0, 0] * x**2 + c[1, 1] * y**2 + c[2, 2] * z**2) + c[0, 1] * x * y + c[0, 2] * x * z + c[1, 2] * y * z
    )


def displacement_phase(u: ArrayLike, h: ArrayLike) -> np.ndarray:
    """phi = -h.u.

    Parameters
    ----------
    u : (3, nz, ny, nx), components (x, y, z), m.
    h : (x, y, z), rad/m.

    Returns
    -------
    float64 (nz, ny, nx), rad.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    u = checks.array("u", u, (3, None, None, None), np.float64, axes="(3, nz, ny, nx)")
    h = checks.array("h", h, (3,), np.float64)
    return -np.tensordot(h, u, axes=1)


def crystal_function(amplitude: ArrayLike, phase: ArrayLike, dtype: str = "complex64") -> np.ndarray:
    """S = amplitude exp(i phase).

    Parameters
    ----------
    amplitude : s_h, real >= 0 (nz, ny, nx).
    phase : (nz, ny, nx), rad.
    dtype : "complex64" or "complex128".

    Returns
    -------
    (nz, ny, nx) of ``dtype``.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    amplitude = checks.array("amplitude", amplitude, (None, None, None), np.float64, axes="(nz, ny, nx)")
    phase = checks.array("phase", phase, amplitude.shape, np.float64, axes="(nz, ny, nx)")
    if amplitude.min(initial=0) < 0:
        raise ValueError(f"amplitude: expected values >= 0, got a minimum of {amplitude.min():g}")
    dtype = checks.choice("dtype", np.dtype(dtype).name, ("complex64", "complex128"))
    return (amplitude * np.exp(1j * phase)).astype(dtype)


def _rotation(rotation):
    if rotation is None:
        return np.eye(3)
    rotation = checks.array("rotation", rotation, (3, 3), np.float64)
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-6:
        raise ValueError("rotation: expected an orthogonal (3, 3) matrix, got one with R R^T != 1")
    return rotation


def _frame(name, vector):
    """Right-handed orthonormal frame (columns) whose third column is along ``vector``."""
    vector = checks.array(name, vector, (3,), np.float64)
    if not np.any(vector):
        raise ValueError(f"{name}: expected a non-zero vector, got zeros")
    w = vector / np.linalg.norm(vector)
    u = np.cross(np.eye(3)[np.argmin(np.abs(w))], w)
    u /= np.linalg.norm(u)
    return np.stack([u, np.cross(w, u), w], axis=1)


def _product_of_fractions(shape, voxel, normals, distances, centre):
    """Product of every facet's volume fraction, float64, and where it is not the volume, bool; both (nz, ny, nx).

    It is the volume in voxels that one facet cuts, and in those that facets along different axes cut.
    """
    z, y, x = coordinates(shape, voxel)
    step = np.array(voxel, dtype=float)[::-1]
    volume = np.ones(shape)
    cuts = np.zeros(shape, np.uint8)
    marks = np.zeros(shape, np.uint8)
    for n, d in zip(normals, distances, strict=True):
        gap = d - (n[0] * (x - centre[0]) + n[1] * (y - centre[1]) + n[2] * (z - centre[2]))  # > 0 inside
        half = 0.5 * np.abs(n) @ step
        volume[gap <= -half] = 0
        cut = np.nonzero(np.abs(gap) < half)
        cuts[cut] += 1
        across = (_X, _Y, _Z)[int(np.argmax(np.abs(n)))] if np.abs(n).max() > 1 - 1e-12 else _INEXACT
        marks[cut] |= np.where(marks[cut] & across, _INEXACT, across).astype(np.uint8)
        volume[cut] *= _half_space_fraction(gap[cut], np.abs(n) * step)
    return volume, (cuts > 1) & (marks >= _INEXACT) & (volume > 0)


def _chord(normals, distances, y, x):
    """z range (low, high) of a polyhedron over (y, x), relative to its centre; low > high: none."""
    low = np.full(y.shape, -np.inf)
    high = np.full(y.shape, np.inf)
    for n, d in zip(normals, distances, strict=True):
        rest = d - n[0] * x - n[1] * y
        if abs(n[2]) < 1e-12:  # facet parallel to the column: in or out as a whole
            high[rest < 0] = -np.inf
        elif n[2] > 0:
            np.minimum(high, rest / n[2], out=high)
        else:
            np.maximum(low, rest / n[2], out=low)
    return low, high


def _half_space_fraction(gap, extent):
    """Fraction of a box inside a half space; gap: distance of the box centre, > 0 inside; extent: |n_i| edge_i."""
    # A floor keeps the inclusion-exclusion formula clear of 0/0; it moves the fraction by at most 1e-4/8 near a kink.
    m = np.maximum(extent, 1e-4 * extent.max())
    alpha = gap + 0.5 * m.sum()
    total = np.zeros_like(gap)
    for corner in range(8):
        bits = [(corner >> i) & 1 for i in range(3)]
        total += (-1) ** sum(bits) * np.maximum(alpha - bits @ m, 0) ** 3
    return np.clip(total / (6 * m.prod()), 0, 1)


def _column_fraction(position, voxel, chord):
    """Volume fraction of voxels at `position` (z, y, x arrays) of a body whose z range over (y, x) is chord(y, x)."""
    offsets = (np.arange(_SUBDIVISION) + 0.5) / _SUBDIVISION - 0.5
    z, y, x = position
    total = np.zeros(len(z))
    for oy in offsets * voxel[1]:
        for ox in offsets * voxel[2]:
            low, high = chord(y + oy, x + ox)
            total += np.maximum(np.minimum(high, z + voxel[0] / 2) - np.maximum(low, z - voxel[0] / 2), 0)
    return total / (_SUBDIVISION**2 * voxel[0])
