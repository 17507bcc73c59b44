"""The size and shape that code may have: what a reader holds in mind at once.

Ruff's limits (pyproject.toml) are the same as far as it counts: it has no rule for lines of body and for depth, and
`and`, `or`, conditional expressions and comprehensions are no branches to it. Lines of body are those below the
docstring, blank ones and comments too.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for folder in ("python", "bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)
BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.match_case)
MOST = {"lines": 60, "depth": 4, "branches": 15, "parameters": 10}
MOST_LINES_OF_A_FILE = 500
MOST_FILES_OF_CSRC = 20

# What may have more parameters, and why. (Ruff is told by file: pyproject.toml.)
PHYSICS = "the crystal, the geometry and the numerics of a sweep, each given by its name"
OPTIONS = "shorthand: what is minimised and how, each given by its name"
FIELDS = "one keyword per field of the file"
ARRAYS = "the arrays of a sweep, declared once by name; both engines hand them on as they come"
TRITON = "a Triton kernel takes pointers and scalars, no structures"
MORE_PARAMETERS = {
    "python/pendel/operator/takagi_taupin.py: TakagiTaupin.__init__": PHYSICS,
    "python/pendel/reference/strang.py: forward": PHYSICS,
    "python/pendel/reference/strang.py: energy": PHYSICS,
    "python/pendel/reference/strang.py: adjoint": PHYSICS,
    "python/pendel/reference/strang.py: blanes_moan": PHYSICS,
    "python/pendel/reference/etd2rk.py: forward": PHYSICS,
    "python/pendel/experiment/geometry.py: Experiment.__init__": PHYSICS,
    "python/pendel/model/model.py: Model.__init__": PHYSICS,
    "python/pendel/kinematic/phasing.py: phase": OPTIONS,
    "python/pendel/fit/minibatch.py: reconstruct": OPTIONS,
    "python/pendel/fit/quasi_newton.py: lbfgs": OPTIONS,
    "python/pendel/fit/polishing.py: polish": OPTIONS,
    "python/pendel/recipes/coarse_to_fine.py: multiscale": OPTIONS,
    "python/pendel/recipes/solve.py: solve": OPTIONS,
    "python/pendel/recipes/solve.py: solve_on": OPTIONS,
    "python/pendel/io/cxi_scans.py: write_scan": FIELDS,
    "python/pendel/operator/engine.py: Engine.adjoint": ARRAYS,
    "python/pendel/operator/library.py: Sweeps.adjoint": ARRAYS,
    "bench/gpu_triton.py: couple": TRITON,
    "bench/gpu_triton.py: couple_adj": TRITON,
    "bench/gpu_triton.py: matrices": TRITON,
    "bench/gpu_triton.py: matrices_adj": TRITON,
}


def functions(node, prefix=""):
    """(qualified name, function) of every function, those inside of others too."""
    for child in ast.iter_child_nodes(node):
        scope = isinstance(child, (*FUNCTIONS, ast.ClassDef))
        if isinstance(child, FUNCTIONS):
            yield prefix + child.name, child
        yield from functions(child, f"{prefix}{child.name}." if scope else prefix)


def own(node):
    """The nodes of a function but not of the functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            yield child
            yield from own(child)


def lines(function):
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def depth(node):
    """Blocks inside one another; an `elif` is as deep as its `if`."""
    found = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            alternative = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
            found = max(found, depth(child) + (isinstance(child, BLOCKS) and not alternative))
    return found


def branches(function):
    """One more than the places where the way through divides."""
    found = 1
    for node in own(function):
        if isinstance(node, ast.BoolOp):
            found += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            found += 1 + len(node.ifs)
        else:
            found += isinstance(node, BRANCHES)
    return found


def parameters(function):
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


MEASURES = {"lines": lines, "depth": depth, "branches": branches, "parameters": parameters}
MEASURED = {
    f"{path}: {name}": {measure: of(function) for measure, of in MEASURES.items()}
    for path, text in FILES.items()
    for name, function in functions(ast.parse(text))
}


def over(measure):
    return {name for name, found in MEASURED.items() if found[measure] > MOST[measure]}


@pytest.mark.parametrize("measure", MOST)
def test_functions_are_small(measure):
    excepted = MORE_PARAMETERS.keys() if measure == "parameters" else set()
    assert not over(measure) - excepted


def test_no_exception_outlives_its_reason():
    assert MORE_PARAMETERS.keys() <= over("parameters")


def test_files_are_short_and_csrc_is_a_flat_handful():
    assert not {path: text.count("\n") for path, text in FILES.items() if text.count("\n") > MOST_LINES_OF_A_FILE}
    assert len(list((ROOT / "csrc").iterdir())) <= MOST_FILES_OF_CSRC


KNOWN = '''
def known(a, /, b, *rest, c=None, **more):
    """Docstring."""
    if a and b or c:
        for x in rest:
            with x:
                x()
    elif b:
        return [y for y in rest if y if c]

    def inner(self):
        while True:
            if self:
                pass

    return 1 if a else inner
'''


def test_what_is_measured():
    known, inner = (node for _, node in functions(ast.parse(KNOWN)))
    assert [of(known) for of in MEASURES.values()] == [13, 3, 10, 3]
    assert [of(inner) for of in MEASURES.values()] == [3, 2, 3, 0]
