"""Of `pytest bench`: one thread, what a JSON says beside times, and no comparison with a file that is missing."""

import os
from pathlib import Path

import machine
import pytest

os.environ |= dict.fromkeys(("PENDEL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):  # JAX has no other way to be told
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

REFERENCE = pytest.StashKey()


def pytest_configure(config):
    """UsageError for a reference that is not there: pytest-benchmark would compare with nothing, and pass."""
    reference = getattr(config.option, "benchmark_compare", None)
    if isinstance(reference, str) and reference.endswith(".json") and not Path(reference).is_file():
        raise pytest.UsageError(
            f"--benchmark-compare: expected a file, got {reference}, which is not there; on a quiet machine "
            f"--benchmark-json={reference} makes it"
        )


def pytest_benchmark_compare_machine_info(config, compared_benchmark):
    """Keep what the reference has, where it is to fail."""
    if config.getoption("benchmark_compare_fail"):
        config.stash[REFERENCE] = {benchmark["fullname"] for benchmark in compared_benchmark["benchmarks"]}


@pytest.fixture(scope="session")
def about():
    return machine.about()


@pytest.fixture(autouse=True)
def said(request, benchmark, about):
    """In extra_info: machine, commit, compiler, instruction set, versions. What cannot be compared fails."""
    benchmark.extra_info.update(about)
    reference = request.config.stash.get(REFERENCE, None)
    if reference is not None and benchmark.fullname not in reference:
        pytest.fail(f"{benchmark.fullname}: expected in the reference of --benchmark-compare, which has it not")
