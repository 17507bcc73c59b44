"""Motors of NeXus files: positions of each frame, and the axes that they turn about."""

import h5py
import numpy as np

from . import hdf5_arrays, hdf5_reading, units
from .hdf5_links import Found, Links
from .rocking import Motor, turn

# In groups that hold other readings too, these are angles although no unit says so.
ANGLES = ("rotation_angle", "theta", "th", "eta", "phi", "omega", "om", "mu", "chi", "kappa", "samth", "gontheta")
_ONLY_ANGLES = ("transformations", "angles", "goniometer", "positioners_deg")
MOST_TURNS = 16  # one on the other


def per_frame(links: Links, place: str, count: int, names: tuple[str, ...] | None = None) -> list[Motor]:
    """The motors of a group that turn and were recorded for each of ``count`` frames, ``names`` alone where given."""
    motors = []
    for name, found in hdf5_reading.members(links, place, names).items():
        if found is not None and isinstance(found.item, h5py.Dataset) and _is_angle(links, place, name, found):
            positions = _positions(links, found, count)
            if positions is not None:
                motors.append(Motor(name, positions, axis_of(links, found)))
    return motors


def _is_angle(links, place, name, found):
    """Whether a dataset is one of angles, by its kind of transformation, its unit, or its place and name."""
    _, dtype = hdf5_arrays.shape_and_type(found.item, found.where)
    kind = hdf5_reading.attribute(links, found.item, "transformation_type", found.where)
    if dtype.kind not in "iuf" or (kind is not None and str(kind).lower() != "rotation"):
        return False
    unit = hdf5_reading.unit_of(links, found)
    if unit:
        dimension, _ = units.known(unit) or (None, None)
        if kind is not None and dimension != units.ANGLE:
            raise ValueError(f"{found.where}: expected a unit of angle for a rotation, got {unit!r}")
        return dimension == units.ANGLE
    return kind is not None or place.rsplit("/", 1)[-1] in _ONLY_ANGLES or name in ANGLES


def _positions(links, found, count):
    """Positions in rad, (frame,), or None where there is not one for each frame."""
    shape, _ = hdf5_arrays.shape_and_type(found.item, found.where)
    if tuple(n for n in shape if n != 1) != ((count,) if count != 1 else ()) or not shape:
        return None
    return hdf5_reading.in_si(links, found, units.ANGLE, "deg").reshape(count)


def axis_of(links: Links, found: Found) -> tuple[float, float, float] | None:
    """Lab axis (3,) of a NeXus rotation, turned by those that carry it (``depends_on``); None where there is none."""
    vector = _vector(links, found)
    if vector is None:
        return None
    for _ in range(MOST_TURNS):
        found = _carrier(links, found)
        if found is None:
            x, y, z = map(float, vector + 0.0)
            return x, y, z
        kind = hdf5_reading.attribute(links, found.item, "transformation_type", found.where)
        if str(kind).lower() == "rotation":
            vector = turn(_vector(links, found), _at_rest(links, found)) @ vector
    raise ValueError(f"{found.where}: expected at most {MOST_TURNS} transformations on one another, got more")


def _vector(links, found):
    """Unit vector (3,) of the attribute "vector", or None."""
    vector = hdf5_reading.attribute(links, found.item, "vector", found.where)
    if vector is None:
        return None
    vector = np.asarray(vector)
    if vector.shape != (3,) or vector.dtype.kind not in "iuf" or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"{found.where}: expected vector = three numbers, got {vector!r}")
    return vector / np.linalg.norm(vector)


def _carrier(links, found):
    """The transformation on which one sits, or None."""
    name = hdf5_reading.attribute(links, found.item, "depends_on", found.where)
    if not isinstance(name, str) or name.strip() in ("", "."):
        return None
    carrier = links.find(name, found.group.file["/"] if name.startswith("/") else found.group)
    if carrier is None or not isinstance(carrier.item, h5py.Dataset):
        raise ValueError(f"{found.where}: expected depends_on = a transformation, got {name!r}, where there is none")
    if _vector(links, carrier) is None:
        raise ValueError(f"{carrier.where}: expected a transformation with its vector, got none")
    return carrier


def _at_rest(links, found):
    """The one angle in rad of a rotation that carries another."""
    angles = hdf5_reading.in_si(links, found, units.ANGLE, "deg")
    if not angles.size or not np.isfinite(angles).all() or np.ptp(angles) > 1e-3:
        raise ValueError(f"{found.where}: expected one angle of what carries the rocking motor, got {angles.size}")
    return float(angles.mean())
