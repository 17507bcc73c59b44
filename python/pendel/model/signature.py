"""What tells one computation from another: {name: text}, of numbers and words the text itself, of arrays a digest."""

import hashlib

import numpy as np

from ..base.arrays import host

DIGEST = "digest "  # begins the text of an array
MODEL = ("shape", "voxel", "polarization", "coupling", "scheme", "transport", "resync", "ewald", "sampling")
MODEL += ("point_spread", "coherence")
CRYSTAL = ("chi_0", "chi_h", "chi_hbar")
EXPERIMENT = ("wavelength", "distance", "pixel_size", "detector_shape", "rocking_angles", "rocking_axis", "centre")
EXPERIMENT += ("k_0", "k_h", "roll", "flip_rows", "orientation")


def signature_of_model(model) -> dict[str, str]:
    """What frames a model computes, but for rounding."""
    places = (model.experiment, EXPERIMENT), (model.crystal, CRYSTAL), (model, MODEL)
    return {name: as_text(getattr(place, name)) for place, names in places for name in names}


def as_text(value):
    """A number, word or tuple as it is written in Python; of an array of several numbers a digest."""
    if getattr(value, "ndim", 0) > 0:
        array = np.ascontiguousarray(host(value))
        return DIGEST + digest([f"{array.dtype.str}{array.shape}".encode(), array.reshape(-1).view(np.uint8)])
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value)


def digest(parts):
    """Hexadecimal, of an iterable of bytes, or of arrays of them."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(part)
    return total.hexdigest()
