"""Phases phi = -h.u of sample crystals, as functions of position r (3, ...), m, in the laboratory."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bumps:
    """A plane and a sum of Gaussians: offset + slope.r + sum_i heights_i exp(-|r - centres_i|^2 / (2 widths_i^2)).

    Attributes
    ----------
    centres : (m, 3), m
    widths : (m,), m
    heights : (m,), rad
    offset : rad
    slope : (3,), rad/m
    """

    centres: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    offset: float = 0.0
    slope: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def phase(self, r):
        """rad, of r's dtype and shape r.shape[1:]."""
        total = float(self.offset) + sum(float(s) * x for s, x in zip(self.slope, r, strict=True))
        for centre, width, height in zip(self.centres, self.widths, self.heights, strict=True):
            x, y, z = (r[i] - float(c) for i, c in enumerate(centre))
            total = total + float(height) * np.exp((x * x + y * y + z * z) * (-0.5 / float(width) ** 2))
        return total

    def scaled(self, factor):
        """With ``factor`` times the heights."""
        return Bumps(self.centres, self.widths, factor * self.heights, self.offset, self.slope)


@dataclass(frozen=True)
class Dislocation:
    """A straight dislocation in an isotropic medium (Hirth and Lothe), screw, edge or mixed.

    u = b_s theta / (2 pi) + b_e / (2 pi) (theta + x y / (2 (1 - nu) rho^2))
        - |b_e| n / (2 pi) ((1 - 2 nu) ln(rho^2 / length^2) + (x^2 - y^2) / rho^2) / (4 (1 - nu))

    about the line, x along the edge part b_e of the Burgers vector, y along n = line x x, theta = arg(x + i y);
    h.b = 2 pi n makes exp(i phi) continuous where theta jumps.

    Attributes
    ----------
    h : (3,), rad/m
    through : (3,) of the line, m
    line : (3,), unit vector
    burgers : (3,), m
    length : m, where the logarithm is 0; no more than a constant depends on it
    poisson : nu
    """

    h: np.ndarray
    through: tuple[float, float, float]
    line: np.ndarray
    burgers: np.ndarray
    length: float
    poisson: float = 0.4

    def _axes(self):
        """x and y of the plane across the line."""
        edge = self.burgers - (self.burgers @ self.line) * self.line
        if np.linalg.norm(edge) < 1e-6 * np.linalg.norm(self.burgers):
            edge = np.cross(self.line, np.eye(3)[np.argmin(np.abs(self.line))])
        x = edge / np.linalg.norm(edge)
        return x, np.cross(self.line, x)

    def _across(self, r):
        p = [r[i] - float(c) for i, c in enumerate(self.through)]
        return [sum(float(c) * q for c, q in zip(axis, p, strict=True)) for axis in self._axes()]

    def phase(self, r):
        """rad."""
        x, y = self._across(r)
        x_axis, y_axis = self._axes()
        screw = float(self.h @ self.line) * float(self.burgers @ self.line)
        size = float(self.burgers @ x_axis)
        edge, climb = float(self.h @ x_axis) * size, float(self.h @ y_axis) * size

        # the core is a line; of a position on it any direction is as good as another
        square = np.maximum(x * x + y * y, (1e-6 * self.length) ** 2)
        free = 4 * (1 - self.poisson)
        turns = (screw + edge) * np.arctan2(y, x) + edge * 2 * x * y / (free * square)
        rises = (1 - 2 * self.poisson) * np.log(square / self.length**2) + (x * x - y * y) / square
        return (turns - climb / free * rises) / (-2 * np.pi)

    def coherence(self, r, width):
        """What is left of exp(i phi) in a mean over ``width``, m: 0 on the line, 1 - (width/distance)^2/24 far away."""
        x, y = self._across(r)
        square = x * x + y * y
        return np.sqrt(square / (square + width**2 / 12))


@dataclass(frozen=True)
class Inclusion:
    """A strained sphere: u = strain (r - c) in it and strain radius^3 (r - c) / |r - c|^3 around it, phi = -h.u.

    Attributes
    ----------
    h : (3,), rad/m
    centre : (3,), m
    radius : m
    strain : of its surface, du/r
    """

    h: np.ndarray
    centre: tuple[float, float, float]
    radius: float
    strain: float

    def phase(self, r):
        """rad."""
        p = [r[i] - float(c) for i, c in enumerate(self.centre)]
        along = sum(float(c) * q for c, q in zip(self.h, p, strict=True))
        distance = np.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
        return -self.strain * along * (self.radius / np.maximum(distance, self.radius)) ** 3


@dataclass(frozen=True)
class Sum:
    """Several phases on top of one another."""

    parts: tuple

    def phase(self, r):
        """rad."""
        return sum(part.phase(r) for part in self.parts)

    def coherence(self, r, width):
        """Product of theirs."""
        return np.prod([p.coherence(r, width) for p in self.parts if hasattr(p, "coherence")], axis=0)
