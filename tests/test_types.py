"""Type hints of the public face: all of it has them, and what is installed says so (`.ci/run` has mypy check them)."""

import inspect
from dataclasses import dataclass
from pathlib import Path

import pendel
import pendel.io
import pendel.kinematic
import pytest
from pendel.base.recipe import Recipe, integer, option, with_keywords_of


def public(module):
    """(name, object) of what a module offers; modules in it stand for their functions and classes."""
    for name in module.__all__:
        found = getattr(module, name)
        if inspect.ismodule(found) and not hasattr(found, "__all__"):
            for inner, value in vars(found).items():
                if not inner.startswith("_") and getattr(value, "__module__", None) == found.__name__:
                    yield f"{name}.{inner}", value
        else:
            yield name, found


def functions(name, found):
    """(name, function) of a callable: itself, or the methods and properties of a class and of pendel's bases of it."""
    if inspect.isfunction(found):
        yield name, found
    for kind in found.__mro__ if inspect.isclass(found) else ():
        for inner, value in vars(kind).items() if kind.__module__.startswith("pendel") else ():
            value = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
            if inspect.isfunction(value) and (inner == "__init__" or not inner.startswith("_")):
                yield f"{name}.{inner}", value


def untyped(function):
    """The parameters of a function without a type, and "return" where that has none."""
    signature = inspect.signature(function)
    names = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")]
    return names + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("module", [pendel, pendel.io, pendel.kinematic], ids=lambda module: module.__name__)
def test_everything_public_has_types(module):
    found = {name: untyped(f) for named in public(module) for name, f in functions(*named)}
    assert not {name: names for name, names in found.items() if names}
    assert len(found) >= len(pendel.kinematic.__all__) - 2  # one of these is a dict, one a class of fields alone


def test_what_has_no_types_is_seen():
    class Known:
        def method(self, a, b: int): ...

        @property
        def size(self): ...

    Known.__module__ = "pendel.known"
    assert {name: untyped(f) for name, f in functions("Known", Known)} == {
        "Known.method": ["a", "return"],
        "Known.size": ["return"],
    }


def test_keywords_of_a_recipe_have_the_types_of_its_fields():
    @dataclass(frozen=True)
    class Counted(Recipe):
        count: int = option(3, integer(at_least=1), "how many.")

    @with_keywords_of(Counted)
    def called(name: str, **keywords: int) -> str:
        """Known."""
        return name

    parameters = inspect.signature(called).parameters
    assert {name: p.annotation for name, p in parameters.items()} == {"name": str, "count": int}
    assert called("as it was") == "as it was"


def test_the_package_says_that_it_has_types():
    assert (Path(pendel.__file__).parent / "py.typed").is_file()
