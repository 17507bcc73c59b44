"""What CXI images say of the meaning of their numbers: fft-shifted or not, of which space, of which kind."""

import h5py
import numpy as np

from . import hdf5_arrays, hdf5_reading
from .hdf5_links import Found, Links

_IMAGES = ("entry_1/image_1", "entry_1/data_1")


def saying(links: Links, found: Found) -> list[h5py.Group]:
    """The groups that speak of a dataset: the one it stands in, and the images that show the same one."""
    groups = [found.group]
    for path in _IMAGES:
        image = links.find(path)
        if image is None or not isinstance(image.item, h5py.Group) or image.item in groups:
            continue
        data = links.find("data", image.item)
        if data is not None and data.item == found.item:
            groups.append(image.item)
    return groups


def is_shifted(links: Links, found: Found) -> bool:
    """Whether ``is_fft_shifted`` is said of a dataset, by a group or an attribute."""
    return any(
        hdf5_reading.flag(links, group, "is_fft_shifted", found.where, found.item) for group in saying(links, found)
    )


def is_mask_shifted(links: Links, mask: Found, frames: Found) -> bool:
    """`is_shifted` of a mask, which goes with the frames beside which it stands."""
    for group in saying(links, frames):
        beside = links.find("mask", group)
        if beside is not None and beside.item == mask.item:
            return is_shifted(links, frames)
    return is_shifted(links, mask)


def refuse_meaning(links: Links, found: Found, name: str, right: tuple[str, ...], expected: str) -> None:
    """ValueError where a text ``name`` of a dataset begins with none of ``right``; nothing said is right."""
    for group in saying(links, found):
        said = [hdf5_reading.word(links, group, name)]
        for item in (group, found.item):
            value = hdf5_reading.attribute(links, item, name, found.where)
            said.append(value.strip().lower() if isinstance(value, str) else "")
        for word in said:
            if word and not any(part in word for part in right):
                raise ValueError(f"{found.where}: expected {expected}, got {name} = {word!r}")


def read_image(links: Links, found: Found) -> np.ndarray:
    """An array that is centred, whatever the file has: shifted back where it is fft-shifted."""
    value = hdf5_arrays.value(links, found.item, found.where)
    return np.fft.fftshift(value, tuple(range(-min(3, value.ndim), 0))) if is_shifted(links, found) else value
