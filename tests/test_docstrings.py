"""Docstrings of all that is public name errors and shapes; `.ci/run` has numpydoc check their form."""

import ast
import inspect
import re
import textwrap

import docstrings
import pytest

CALLABLES = docstrings.callables()
ARRAYS = re.compile(r"\b(ArrayLike|ndarray|Array)\b")
SHAPE = re.compile(
    r"\([\w* .+-]+,[\w* .+,-]*\)"  # (n_frames, rows, cols)
    r"|\b(of|the) (the )?(same )?(data's )?shape\b|any shape|shape as|1-D|\b(3|three) (lab )?(components|numbers)"
    r"|lab axis|\b[aA]s (in|given to|of|``|the method)|instead of the metadata"
)


def raises(function):
    """Whether an exception stands in a function's own text; those of what it calls are not seen."""
    return re.search(r"^\s+raise \w+Error\(", inspect.getsource(function), re.M) is not None


def functions():
    """{name: function} of everything public that can be called; a class stands for its constructor."""
    found = {}
    for name, thing in CALLABLES.items():
        thing = getattr(thing, "__func__", thing)
        if inspect.isfunction(thing):
            found[name] = thing
    return found


def unnamed_errors(found):
    return [name for name, f in found.items() if raises(f) and "Raises" not in (f.__doc__ or "")]


def shapeless(name, function):
    """Parameters that are arrays by their types, and whose lines say no shape."""
    text = inspect.getdoc(function) or ""
    said = {}
    for heads, about in re.findall(r"^([*\w, ]+) : ((?:.*)(?:\n    .*)*)", text, re.M):
        said |= {head.strip(): about for head in heads.split(",")}
    arguments = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].args
    every = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    arrays = [a.arg for a in every if a.annotation and ARRAYS.search(ast.unparse(a.annotation)) and a.arg in said]
    return [f"{name}: {n}" for n in arrays if not SHAPE.search(said[n])]


def test_everything_public_is_found():
    assert {"pendel.solve", "pendel.Model.fit", "pendel.io.read_scan", "pendel.cdiutils.write_results"} <= set(
        CALLABLES
    )
    assert len(functions()) > 100


def test_errors_that_are_raised_are_in_the_docstring():
    assert not unnamed_errors(functions())


def test_arrays_have_shapes():
    assert not [line for name, f in functions().items() for line in shapeless(name, f)]


def test_what_is_missing_is_seen():
    def careless(S: "ArrayLike", mask: "np.ndarray"):  # noqa: F821
        """What it does.

        Parameters
        ----------
        S : complex
        mask : bool (rows, cols)
        """
        if S is None:
            raise ValueError("S: expected one")

    assert unnamed_errors({"careless": careless}) == ["careless"] and shapeless("careless", careless) == ["careless: S"]


@pytest.mark.parametrize("name", CALLABLES)
def test_it_says_something(name):
    assert (CALLABLES[name].__doc__ or "").strip()
