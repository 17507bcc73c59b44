"""Methods: the algorithms that ``recipe.method`` names.

To add one: its file, with a function (model, data, mask, start, support, *, progress, and the fields of its recipe) ->
`Result`, as `pendel.reconstruct`; and one line in `METHODS`. Of its recipe's fields those that are keys of [recipe] are
taken from there.
"""

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
from .errors import ConfigError

KEYS = MinibatchRecipe.names()  # of [recipe], that steer an algorithm
POLISH_KEYS = tuple(name for name in PolishRecipe.names() if name in KEYS)


@dataclass(frozen=True)
class Method:
    """An algorithm.

    Parameters
    ----------
    function : what is called.
    options : (Config) -> its keywords, but for progress, checkpoint and resume; ConfigError names a key that it cannot
        be given, a UserWarning those that it has no use for.
    keeps_checkpoint : it takes ``checkpoint`` and ``resume``.
    checkpoint_is_start : its checkpoint holds the crystal on the model's grid; a resumed run needs no other start.
    own_starts : the kinds of start.kind that it makes itself, given their name.
    polishes : it polishes itself; recipe.polish_rounds is not for it.
    section : of the configuration, that only it uses.
    """

    function: Callable[..., Result]
    options: Callable[[Any], dict]
    keeps_checkpoint: bool = False
    checkpoint_is_start: bool = False
    own_starts: tuple[str, ...] = ()
    polishes: bool = False
    section: str = ""

    def run(self, model, data, mask, start, support, *, options, progress, checkpoint, resume) -> Result:
        """Call it with ``options``, and with the checkpoint where it keeps one."""
        files = {"checkpoint": checkpoint, "resume": resume} if self.keeps_checkpoint else {}
        return self.function(model, data, mask, start, support, progress=progress, **files, **options)


def of_recipe(kind: type[Recipe], refused: tuple[str, ...] = (), **renamed: str) -> Callable[[Any], dict]:
    """The options of a method whose recipe is a ``kind``.

    Parameters
    ----------
    kind : its fields are taken from the keys of [recipe] of the same names; where a key is not set, from its default.
    refused : keys of what the method cannot do, which must not be asked for.
    renamed : {field: key} where the names are not the same.
    """
    keys = {name: renamed.get(name, name) for name in kind.names()}
    keys = {name: key for name, key in keys.items() if key in KEYS}
    defaults = kind()

    def options(config):
        for key in refused:
            value = getattr(config.recipe, key)
            if value:
                method = config.recipe.method
                raise ConfigError(f"recipe.{key}: expected none with recipe.method = {method!r}, got {value!r}")
        _warn_of_unused(config, ("polish_rounds", *keys.values()))
        found = {}
        for name, key in keys.items():
            found[name] = getattr(config.recipe, key) if f"recipe.{key}" in config.given else getattr(defaults, name)
        return found

    return options


def _multiscale_options(config):
    """[multiscale], and of [recipe] what is set of the keys that its polish has too."""
    taken = [key for key in POLISH_KEYS if key not in ("likelihood", "seed")]
    _warn_of_unused(config, ("likelihood", "seed", *taken))
    options = {key: getattr(config.recipe, key) for key in taken if f"recipe.{key}" in config.given}
    options |= vars(config.multiscale)
    return options | {"counts": config.recipe.likelihood == "poisson", "seed": config.recipe.seed}


def _warn_of_unused(config, used):
    """A UserWarning that names the keys of [recipe] that are set and not ``used``."""
    unused = [f"recipe.{key}" for key in (*KEYS, "polish_rounds") if key not in used]
    given = [key for key in unused if key in config.given]
    if given:
        warnings.warn(f"{', '.join(given)}: not used by recipe.method = {config.recipe.method!r}", stacklevel=4)


METHODS = {
    "adam": Method(reconstruct, of_recipe(MinibatchRecipe), keeps_checkpoint=True, checkpoint_is_start=True),
    "lbfgs": Method(
        lbfgs,
        of_recipe(
            LbfgsRecipe, refused=("phase_only_epochs", "refine_angles", "refine_intensities"), iterations="epochs"
        ),
    ),
    "multiscale": Method(
        multiscale,
        _multiscale_options,
        keeps_checkpoint=True,
        own_starts=("kinematic", "flat", "solid"),
        polishes=True,
        section="multiscale",
    ),
}


def options_of(config) -> dict:
    """Keywords of the method that ``config`` asks for.

    ConfigError names a key that contradicts another, a UserWarning those that the method has no use for.
    """
    recipe = config.recipe
    if recipe.background and recipe.likelihood != "poisson":
        raise ConfigError(
            f"recipe.background: expected 0 with recipe.likelihood = {recipe.likelihood!r}, got {recipe.background:g}"
        )
    for name, method in METHODS.items():
        prefix = f"{method.section}."
        given = [key for key in sorted(config.given) if method.section and key.startswith(prefix)]
        if given and name != recipe.method:
            warnings.warn(f"{', '.join(given)}: only used by recipe.method = {name!r}", stacklevel=2)
    return METHODS[recipe.method].options(config)


def polish_options(options: dict) -> dict:
    """Those of a method's options that a polish after it takes over."""
    return {key: options[key] for key in POLISH_KEYS if key in options}


def that(quality: Callable[[Method], bool]) -> str:
    """The names of the methods that have a quality, for an error message."""
    return " or ".join(repr(name) for name, method in METHODS.items() if quality(method))
