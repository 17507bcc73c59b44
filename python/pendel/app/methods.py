"""Methods: the algorithms that ``recipe.method`` names.

To add one: its file, with a function (model, data, mask, start, support, *, progress, checkpoint, resume, and the
fields of its recipe) -> `Result`, as `pendel.reconstruct`; and one line in `METHODS`. The fields of its recipe are keys
of [recipe]; those that another method has too share the key.
"""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..base.recipe import Recipe
from ..fit.minibatch import MinibatchRecipe, reconstruct
from ..fit.polishing import PolishRecipe
from ..fit.quasi_newton import LbfgsRecipe, lbfgs
from ..fit.result import Result
from ..recipes.coarse_to_fine import multiscale
from ..recipes.multiscale_recipe import MultiscaleRecipe
from ..recipes.solve import SolveRecipe, solve_on
from .errors import ConfigError


@dataclass(frozen=True)
class Method:
    """An algorithm.

    Parameters
    ----------
    function : what is called.
    recipe : the kind of its recipe, whose fields are keys of [recipe], or of ``section``.
    renamed : {field: key of another method} where the names are not the same.
    refused : keys of what it cannot do, which must not be asked for.
    options : (Config) -> its keywords, but for progress, checkpoint and resume; None: `recipe_options`.
    checkpoint_is_start : its checkpoint holds the crystal on the model's grid; a resumed run needs no other start.
    own_starts : the kinds of start.kind that it makes itself, given their name.
    polishes_itself : recipe.polish_rounds is not for it.
    section : of the configuration, that only it uses.
    chooses_voxel : its model is on voxels of the data's resolution; it is told ``voxel``, of its result, and what the
        scan was phased to where it was (``phased``).
    """

    function: Callable[..., Result]
    recipe: type[Recipe]
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    refused: tuple[str, ...] = ()
    options: Callable[[Any], dict] | None = None
    checkpoint_is_start: bool = False
    own_starts: tuple[str, ...] = ()
    polishes_itself: bool = False
    section: str = ""
    chooses_voxel: bool = False

    def run(self, model, data, mask, start, support, *, options, progress, checkpoint, resume) -> Result:
        """Call it with ``options`` and the checkpoint."""
        files = {"checkpoint": checkpoint, "resume": resume}
        return self.function(model, data, mask, start, support, progress=progress, **files, **options)


def recipe_fields() -> list[dataclasses.Field]:
    """The fields that are keys of [recipe], each once, as the first method of `METHODS` that has it declares it."""
    found: dict[str, dataclasses.Field] = {}
    for method in METHODS.values():
        for item in dataclasses.fields(method.recipe):
            if not method.section and item.name not in method.renamed:
                found.setdefault(item.name, item)
    return list(found.values())


def _keys():
    return [item.name for item in recipe_fields()]


def _polish_keys():
    """Keys of [recipe] that a polish has too."""
    return [key for key in _keys() if key in PolishRecipe.names()]


def recipe_options(config, method: Method) -> dict:
    """The options of a method: the keys of [recipe] that are fields of its recipe, where not set its own defaults.

    Raises ConfigError naming a key of what it cannot do; a UserWarning names those that it has no use for.
    """
    for key in method.refused:
        value = getattr(config.recipe, key)
        if value:
            name = config.recipe.method
            raise ConfigError(f"recipe.{key}: expected none with recipe.method = {name!r}, got {value!r}")
    keys = {name: method.renamed.get(name, name) for name in method.recipe.names()}
    _warn_of_unused(config, ("polish_rounds", *keys.values()))

    found, defaults = {}, method.recipe()
    for name, key in keys.items():
        found[name] = getattr(config.recipe, key) if f"recipe.{key}" in config.given else getattr(defaults, name)
    return found


def _multiscale_options(config):
    """[multiscale], and of [recipe] what is set of the keys that its polish has too."""
    return _with_polish(config, config.multiscale) | {"counts": config.recipe.likelihood == "poisson"}


def _solve_options(config):
    """[solve], and of [recipe] what is set of the keys that its polish has too."""
    given = "recipe.likelihood" in config.given
    return _with_polish(config, config.solve) | {"counts": config.recipe.likelihood == "poisson" if given else "auto"}


def _with_polish(config, own):
    """The keys of a section of its ``own``, with the seed and what is set of a polish's keys of [recipe]."""
    taken = [key for key in _polish_keys() if key not in ("likelihood", "seed")]
    _warn_of_unused(config, ("likelihood", "seed", *taken))
    options = {key: getattr(config.recipe, key) for key in taken if f"recipe.{key}" in config.given}
    return options | vars(own) | {"seed": config.recipe.seed}


def _warn_of_unused(config, used):
    """A UserWarning that names the keys of [recipe] that are set and not ``used``."""
    if config.recipe.polish_rounds and "polish_rounds" in used:
        used = (*used, *_polish_keys())
    unused = [f"recipe.{key}" for key in (*_keys(), "polish_rounds") if key not in used]
    given = [key for key in unused if key in config.given]
    if given:
        warnings.warn(f"{', '.join(given)}: not used by recipe.method = {config.recipe.method!r}", stacklevel=4)


METHODS = {
    "adam": Method(reconstruct, MinibatchRecipe, checkpoint_is_start=True),
    "lbfgs": Method(
        lbfgs,
        LbfgsRecipe,
        renamed={"iterations": "epochs"},
        refused=("phase_only_epochs",),
    ),
    "multiscale": Method(
        multiscale,
        MultiscaleRecipe,
        options=_multiscale_options,
        own_starts=("kinematic", "flat", "solid", "smooth"),
        polishes_itself=True,
        section="multiscale",
    ),
    "solve": Method(
        solve_on,
        SolveRecipe,
        options=_solve_options,
        own_starts=("kinematic", "flat", "solid", "smooth"),
        polishes_itself=True,
        section="solve",
        chooses_voxel=True,
    ),
}


def options_of(config) -> dict:
    """Keywords of the method that ``config`` asks for.

    ConfigError names a key that contradicts another, a UserWarning those that the method has no use for.
    """
    recipe = config.recipe
    for name, method in METHODS.items():
        prefix = f"{method.section}."
        given = [key for key in sorted(config.given) if method.section and key.startswith(prefix)]
        if given and name != recipe.method:
            warnings.warn(f"{', '.join(given)}: only used by recipe.method = {name!r}", stacklevel=2)
    method = METHODS[recipe.method]
    return recipe_options(config, method) if method.options is None else method.options(config)


def polish_options(options: dict, config) -> dict:
    """Those of a method's options that a polish after it takes over, and what is set for the polish alone."""
    found = {key: getattr(config.recipe, key) for key in _polish_keys() if f"recipe.{key}" in config.given}
    return found | {key: options[key] for key in _polish_keys() if key in options}


def names_with(quality: Callable[[Method], bool]) -> str:
    """The names of the methods that have a quality, for an error message."""
    return " or ".join(repr(name) for name, method in METHODS.items() if quality(method))
