"""Operators and crystals small enough for finite differences in the frameworks that embed them."""

import numpy as np
import pendel

FRAMES = 3
UNIT = 1e7  # of rocking offsets, rad/m: finite differences want numbers about 1

# Each way through a sweep that has an adjoint of its own.
WAYS = [
    {"orientation": "k_h", "transport": "shift"},
    {"orientation": "k_h", "transport": "fourier"},
    {"orientation": "k_h", "transport": "box"},
    {"orientation": "symmetric", "transport": "shift"},
    {"orientation": "symmetric", "transport": "fourier"},
    {"orientation": "k_h", "transport": "shift", "resync": 1},
    {"orientation": "k_h", "transport": "fourier", "scheme": "etd2rk"},
]


def operator(physics, dtype="complex128", shape=(3, 2, 4), **way):
    """A `TakagiTaupin` of a coupling 20 times gold's, whose refraction, absorption and back-coupling are visible."""
    way = {"orientation": "k_h", "transport": "shift"} | way
    angle = physics["two_theta"] / (2 if way["orientation"] == "symmetric" else 1)
    pixels, dx = 1 if way["transport"] == "shift" else 0.83, 8e-9
    voxel = pixels * dx / np.tan(angle), 1.1 * dx, dx
    return pendel.TakagiTaupin(**physics | {"shape": shape, "voxel": voxel, "dtype": dtype} | way)


def crystals(op, rng, count=()):
    """(S, dq / UNIT, s_0, incident) for `op`, of crystals with these leading axes."""

    def noise(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    S = rng.uniform(0.5, 1, (*count, *op.shape)) * np.exp(1j * rng.uniform(-np.pi, np.pi, (*count, *op.shape)))
    dq = rng.uniform(-2, 2, (FRAMES, 3))
    s_0, incident = rng.uniform(0, 1, op.shape), noise(*op.shape[1:])
    return S.astype(op.dtype), dq, s_0.astype(op.real_dtype), incident.astype(op.dtype)
