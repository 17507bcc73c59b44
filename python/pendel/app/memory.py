"""The memory of a reconstruction, told before it begins; one that does not fit is refused with what to change."""

from ..base import memory
from ..base.memory import size_of
from ..base.printing import say
from ..recipes.memory import estimate_memory
from . import methods
from .errors import ConfigError

# By what names `estimate_memory` knows methods of configurations, where it has others.
NAMES = {"adam": "reconstruct"}


def check(config, begun, scan, options, checkpoint) -> None:
    """Say how much memory a run takes, or ConfigError where there is less.

    Parameters
    ----------
    config : Config
    begun : Begun
    scan : Scan
    options : keywords of the method
    checkpoint : path, or None
    """
    model, name = begun.model, config.recipe.method
    given = {"data": scan.data, "mask": scan.mask, "start": begun.start, "support": begun.support}
    run = {"phased": begun.phased, "checkpoint": checkpoint} | options
    needed = estimate_memory(model, method=NAMES.get(name, name), **given, **run)
    if config.recipe.polish_rounds and not methods.METHODS[name].polishes_itself:
        polishing = methods.polish_options(options, config) | {"trim": None, "checkpoint": checkpoint}
        needed = max(needed, estimate_memory(model, method="polish", **given, **polishing))
    if model.device != "cpu":
        say(f"memory: about {size_of(needed)} of host and device at the largest moment")
        return
    left, here = memory.left(), model.ranks.neighbours
    each = "" if here == 1 else f", {size_of(needed)} for each of {here} ranks on this machine"
    needed *= here
    say(
        f"memory: about {size_of(needed)} more at the largest moment{each}, {size_of(left)} left of "
        f"{size_of(memory.total())}"
    )
    if needed > left:
        raise ConfigError(
            f"model.shape: expected a reconstruction within the {size_of(left)} of memory that are left, got one that "
            f"takes about {size_of(needed)}; {_advice(model, name)}"
        )


def _advice(model, method):
    """What to change, in words."""
    found = ["wider voxels (model.voxel_nm, model.resolution_nm)", "a smaller box (model.shape)"]
    found.append("fewer frames or pixels (data.frames, data.crop)")
    if model.dtype.itemsize > 8:
        found.append('model.dtype = "complex64"')
    if model.resync is not None:
        found.append("a larger model.resync")
    if method == "adam":
        found.append("more recipe.batches")
    return f"what takes less: {', '.join(found[:-1])} or {found[-1]}"
