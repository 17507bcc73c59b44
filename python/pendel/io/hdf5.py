"""CXI/HDF5 building blocks for writing: whole files or none, groups and units."""

import contextlib
import time
from pathlib import Path

import h5py
import numpy as np

from ..base import checks, files, plausible
from ..base.constants import LIGHT_SPEED, PLANCK
from ..base.version import __version__
from .kinds import refuse_to_replace

AXES = ("z", "y", "x")  # of a crystal
PACKED = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


@contextlib.contextmanager
def replacing(path, *kinds, force=False):
    """Give an open h5py file that takes the place of ``path`` if the block ends without an error, else vanishes.

    It is made in memory: HDF5 ends the process where it cannot close a file, as on a full disk.

    kinds : of `pendel.io.kinds`, that it may take the place of.
    force : it may take that of any file.

    Raises FileExistsError where a file of another kind is there.
    """
    path = Path(path)
    files.refuse_unwritable(path)
    if not force:
        refuse_to_replace(path, *kinds)
    with h5py.File(path.name, "w", driver="core", backing_store=False, block_size=1 << 20) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    files.write_whole(path, content)


def new_group(parent, name, nx_class):
    """A group of a NeXus class, made where it is not there."""
    group = parent.require_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def put(group, name, value, units=None, what=""):
    """Write one value; dicts become groups and None is left out."""
    if value is None:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            put(group.require_group(name), str(key), item, what=f"{what}{name}.")
        return
    array = None if isinstance(value, str) else np.asarray(value)
    if array is not None and array.dtype.kind == "U":
        value = array.astype(h5py.string_dtype())
    elif array is not None and array.dtype.kind not in "biufc":
        raise TypeError(f"{what}{name}: expected numbers, text or a dict of these, got {checks.describe(value)}")
    packed = PACKED if array is not None and array.size > 64 else {}
    group.create_dataset(name, data=value, **packed)
    if units:
        group[name].attrs["units"] = units


def put_head(file, version, name):
    """Write the head of a CXI file and return its entry."""
    file["cxi_version"] = version
    file.attrs.update(default="entry_1", creator="pendel", NX_class="NXroot", file_time=now())
    entry = new_group(file, "entry_1", "NXentry")
    entry.attrs["default"] = "data_1"
    entry["program_name"], entry["start_time"] = f"pendel {__version__}", now()
    if name:
        entry["title"] = name
        put(new_group(entry, "sample_1", "NXsample"), "name", name)
    return entry


def now():
    """The time in ISO 8601, with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def checked_pixel_size(pixel_size):
    """(row, column) in m of one number or two."""
    pixel_size = (pixel_size,) * 2 if np.ndim(pixel_size) == 0 else pixel_size
    return plausible.lengths(plausible.PIXEL, "pixel_size", pixel_size, 2)


def put_instrument(parent, energy, distance, pixel_size):
    """Write instrument_1 with source, beam and detector; returns the detector group."""
    instrument = new_group(parent, "instrument_1", "NXinstrument")
    detector = new_group(instrument, "detector_1", "NXdetector")
    if energy is not None:
        put(new_group(instrument, "source_1", "NXsource"), "energy", energy, "J")
        beam = new_group(instrument, "beam_1", "NXbeam")
        put(beam, "incident_energy", energy, "J")
        put(beam, "incident_wavelength", PLANCK * LIGHT_SPEED / energy, "m")
    put(detector, "distance", distance, "m")
    if pixel_size is not None:
        put(detector, "y_pixel_size", pixel_size[0], "m")
        put(detector, "x_pixel_size", pixel_size[1], "m")
    return detector


def put_process(parent, configuration):
    """Write process_1: the program, its version and a dict of what it was told."""
    process = new_group(parent, "process_1", "NXprocess")
    process["program"], process["version"] = "pendel", __version__
    group = new_group(process, "configuration", "NXcollection")
    for key, value in configuration.items():
        put(group, key, value)


def put_image(entry, number, data, voxel, title, data_type, units=None):
    """Write image_``number``: a map of a crystal with its title, size and centre."""
    image = new_group(entry, f"image_{number}", "NXdata")
    image.attrs.update(signal="data", interpretation="image", axes=list(AXES))
    for name, size, step in zip(AXES, data.shape, voxel, strict=True):
        put(image, name, (np.arange(size) - size // 2) * (step * 1e9), "nm")
    image.create_dataset("data", data=data, **PACKED)
    if units:
        image["data"].attrs["units"] = units
    image["title"], image["data_space"], image["dimensionality"], image["is_fft_shifted"] = title, "real", 3, 0
    if data_type:
        image["data_type"] = data_type
    put(image, "image_size", np.array(voxel) * data.shape, "m")
    put(image, "image_center", np.array(data.shape) // 2)
