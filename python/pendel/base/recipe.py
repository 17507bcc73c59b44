"""Recipes: the numbers that steer an algorithm as one frozen object, each with its default, its bounds, what it does
and, where a bench has set it, which.

    @dataclass(frozen=True)
    class SearchRecipe(Recipe):
        steps: int = option(3200, integer(at_least=1), "of minibatch Adam", set_by="bench/paper.py A, ten seeds: ...")

A public function takes a recipe, or its fields as keywords (`with_keywords_of`); whatever calls another algorithm from
inside hands on the object. Configuration files take their keys, defaults and bounds from the same fields.
"""

import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from . import checks

R = TypeVar("R", bound="Recipe")
Other = TypeVar("Other", bound="Recipe")
Function = TypeVar("Function", bound=Callable)


def option(default: Any, check: Callable[[str, Any], Any], about: str, *, set_by: str = "") -> Any:
    """A field of a `Recipe`.

    Parameters
    ----------
    default : its value, immutable.
    check : called as check(name, value), gives the value to keep, or raises TypeError or ValueError naming it.
    about : what it does.
    set_by : the bench, and what it showed, that set the default.
    """
    return dataclasses.field(default=default, metadata={"check": check, "about": about, "set_by": set_by})


def number(**bounds):
    """Check of a real number; bounds as in `checks.number`."""
    return partial(checks.number, **bounds)


def integer(**bounds):
    """Check of an integer; bounds as in `checks.integer`."""
    return partial(checks.integer, **bounds)


def choice(*allowed):
    """Check of one text out of several."""
    return partial(checks.choice, allowed=allowed)


def maybe(check):
    """``check``, or None."""

    def check_or_none(name, value):
        return None if value is None else check(name, value)

    check_or_none.of = check
    return check_or_none


def flag(name, value):
    """Check of True or False."""
    return checks.flag(name, value)


def recipe_of(kind):
    """Check of a `Recipe` of a kind."""

    def check_recipe(name, value):
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected a {kind.__name__}, got {checks.describe(value)}")
        return value

    return check_recipe


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Base of all recipes: fields are checked where the object is made, and errors name them."""

    def __post_init__(self):
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, item.metadata["check"](item.name, getattr(self, item.name)))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(item.name for item in dataclasses.fields(cls))

    def but(self: R, **changes: Any) -> R:
        """The same with other values of some fields."""
        return dataclasses.replace(self, **changes)

    def given_to(self, kind: type[Other], **changes: Any) -> Other:
        """A recipe of another ``kind`` with this one's values of the fields that both have, and ``changes``."""
        shared = {name: getattr(self, name) for name in kind.names() if name in self.names()}
        return kind(**shared | changes)


def from_keywords(kind: type[R], recipe: Any, keywords: Mapping[str, Any], caller: str) -> R:
    """The recipe of a call: ``recipe``, or the default one (None), with ``keywords`` in it.

    Raises TypeError for a recipe of another kind, or for a keyword that is no field of it, with the closest that is.
    """
    if recipe is not None and not isinstance(recipe, kind):
        raise TypeError(f"recipe: expected a {kind.__name__} or None, got {checks.describe(recipe)}")
    refuse_unknown(keywords, kind.names(), caller)
    return dataclasses.replace(recipe or kind(), **keywords)


def refuse_unknown(keywords, known, caller):
    """Raise TypeError for the first of ``keywords`` that is not among ``known``."""
    for name in keywords:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{hint}")


_KEYWORDS = "Other Parameters"  # numpydoc's name of what is seldom given


def with_keywords_of(*recipes: Recipe | type[Recipe]) -> Callable[[Function], Function]:
    """Decorator: the fields of these recipes are keywords of a function that ends in ``**keywords``.

    They show in its signature, with their defaults, and in its docstring, before its errors, with what they do.

    recipes : `Recipe` objects, whose values are the defaults, or classes.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken, lines = {p.name for p in parameters}, []
        for recipe in (r() if isinstance(r, type) else r for r in recipes):
            for item in dataclasses.fields(recipe):
                if item.name not in taken:
                    taken.add(item.name)
                    default = getattr(recipe, item.name)
                    parameters.append(
                        inspect.Parameter(
                            item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=item.type
                        )
                    )
                    about = f"{item.name} : default {default!r}, of `{type(recipe).__name__}`; {item.metadata['about']}"
                    lines += textwrap.wrap(about, 112, subsequent_indent="    ")
        vars(function)["__signature__"] = signature.replace(parameters=parameters)
        text, raises, errors = (inspect.cleandoc(function.__doc__ or "") + "\n").partition("\nRaises\n------\n")
        function.__doc__ = "\n".join([text, _KEYWORDS, "-" * len(_KEYWORDS), *lines, ""]) + raises + errors
        return function

    return decorate
