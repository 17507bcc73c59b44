"""Of `pytest bench`: one thread, what a JSON says beside times, and no comparison with a file that is missing."""

import os
from pathlib import Path

import machine
import pytest

os.environ |= dict.fromkeys(("PENDEL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):  # JAX has no other way to be told
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def pytest_configure(config):
    """UsageError for a reference that is not there: pytest-benchmark would compare with nothing, and pass."""
    reference = getattr(config.option, "benchmark_compare", None)
    if isinstance(reference, str) and reference.endswith(".json") and not Path(reference).is_file():
        raise pytest.UsageError(
            f"--benchmark-compare: expected a file, got {reference}, which is not there; on a quiet machine "
            f"--benchmark-json={reference} makes it"
        )


@pytest.fixture(scope="session")
def about():
    return machine.about()


@pytest.fixture(autouse=True)
def said(benchmark, about):
    """In extra_info: machine, commit, compiler, instruction set, versions."""
    benchmark.extra_info.update(about)
