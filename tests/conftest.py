"""Fixtures shared by the tests: random numbers, tolerances with their reasons, two crystals and small problems."""

from types import SimpleNamespace

import numpy as np
import pytest
from emulated import Emulated, build, install
from faults import FAULTS

# Au (002), 8 keV, pi polarisation: C is inside chi_h, so the polarisation factor stays 1.
GOLD = {
    "wavelength": 1.5498e-10,
    "two_theta": np.deg2rad(44.76),
    "chi_0": -9.407e-5 + 8.496e-6j,
    "chi_h": 5.2548e-5 - 5.9889e-6j,
}


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a CUDA device; skipped, and counted, without one")


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("skipped", [])
    skipped = sum(
        "gpu" in getattr(report, "keywords", ()) for report in reports
    )  # a module without its package has none
    terminalreporter.write_line(f"GPU tests skipped: {skipped}")


class Gpu:
    """A CUDA device, with what an `Emulated` one is asked."""

    def __init__(self):
        import cupy

        self.cupy = cupy

    def unharmed(self):
        return True  # compute-sanitizer looks after that: bench/gpu.sh

    def seed(self, seed):
        pass


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The CUDA engine for the emulator, compiled once."""
    return build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="session")
def planted(built, tmp_path_factory):
    """The same with all of faults.py in it."""
    return build(tmp_path_factory.mktemp("planted"), built.parent, tuple(FAULTS.values()), "-O0")


@pytest.fixture(scope="module", params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def engine(request):
    """What device "cuda" stands for: the emulator, and a GPU where there is one."""
    if request.param == "gpu":
        import pendel

        if not pendel.cuda_available():
            pytest.skip(f"no GPU to run on: {pendel.info()['cuda']}")
        yield Gpu()
    else:
        with install(Emulated(request.getfixturevalue("built"))) as emulated:
            yield emulated


@pytest.fixture(scope="module", params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    """A CUDA device with CuPy, or an emulated one with the stand-in for CuPy."""
    if request.param == "gpu":
        import pendel

        if not pendel.cuda_available():
            pytest.skip(f"no GPU to run on: {pendel.info()['cuda']}")
        import cupy

        yield SimpleNamespace(cupy=cupy, unharmed=lambda: True, strict=False, transfers=[], watch=bool)
    else:
        from standin import Standin, installed, transfers, watch

        with installed(Standin(request.getfixturevalue("built"))) as standin:
            yield SimpleNamespace(
                cupy=standin.cupy,
                unharmed=standin.unharmed,
                strict=True,
                transfers=transfers,
                watch=lambda on: setattr(watch, "on", on),
            )
            watch.on = False


@pytest.fixture
def rng():
    return np.random.default_rng(20250618)


@pytest.fixture(scope="session")
def gold_cube():
    """The strained gold cube of cube.py, complex64; nothing may change it."""
    from cube import make_model, make_problem

    return make_problem(make_model())


@pytest.fixture(scope="session")
def sampled_cube():
    """The same of samples on a plane: data of its own are exact whatever the support, and fits are at their end soon.

    With means the model cuts what it takes a voxel beyond the support, which changes during a fit: 6e-6 of misfit.
    """
    from cube import make_model, make_problem
    from scan import SAMPLES

    return make_problem(make_model(**SAMPLES))


@pytest.fixture
def rough(gold_cube, rng):
    """A crystal function without zeros in the cube, complex128: |S| has no corner there."""
    S = rng.uniform(0.4, 0.9, gold_cube.truth.shape) * np.exp(1j * rng.uniform(-1, 1, gold_cube.truth.shape))
    return np.where(gold_cube.tight, S, 0)


@pytest.fixture(scope="session")
def gold():
    """Physics of a weakly coupled voxel: |dz K chi| is about 1e-2 at 8 nm."""
    return dict(GOLD)


@pytest.fixture(scope="session")
def asymmetric(gold):
    """Gold-like, coupling 20 times stronger, chi_hbar != chi_h and C < 1: every factor of the coupling is visible."""
    return gold | {
        "chi_0": 20 * gold["chi_0"],
        "chi_h": (1.1e-3 - 1.0e-4j),
        "chi_hbar": (0.8e-3 - 1.6e-4j) * np.exp(0.4j),
        "polarization_factor": 0.71,
    }


@pytest.fixture(scope="session")
def overwhelming(gold):
    """|dz Omega| is about 2 in one voxel: a series in (dz Omega)^2 has no business here."""
    return gold | {"chi_0": -1.2e-2 + 2e-3j, "chi_h": 1.1e-2 - 1e-3j, "chi_hbar": 0.9e-2 - 2e-3j}


@pytest.fixture(scope="session")
def lossless(gold):
    """Real susceptibilities: energy is conserved."""
    return gold | {"chi_0": 20 * gold["chi_0"].real, "chi_h": 20 * gold["chi_h"].real}


@pytest.fixture(scope="session")
def relative():
    """Relative L2 difference, in double precision."""

    def relative(value, expected):
        value, expected = np.asarray(value, complex), np.asarray(expected, complex)
        assert value.shape == expected.shape
        return np.linalg.norm(value - expected) / np.linalg.norm(expected)

    return relative


@pytest.fixture(scope="session")
def tolerance():
    """Relative L2 tolerance of a field by dtype.

    complex128: some 1e3 operations of eps = 2e-16 in a row leave 1e-13; 1e-11 is far below any wrong term.
    complex64: measured 5e-6 after 175 absorbing steps with eps = 6e-8; 5e-5 leaves a factor of ten.
    """
    return {"complex128": 1e-11, "complex64": 5e-5}


@pytest.fixture(scope="session")
def voxel_of():
    """Voxel (dz, dy, dx) with dx = 8 nm whose layer moves E_0 by `pixels`, which `shift` needs whole."""

    def voxel_of(two_theta, pixels=1, dx=8e-9):
        return (pixels * dx / np.tan(two_theta), 1.1 * dx, dx)

    return voxel_of


@pytest.fixture
def problem(rng, voxel_of):
    """Maker of a rough random problem: kwargs of the operator and of the oracle, S, s_0, dq, incident, adj_E_h.

    |S| lies in [0.5, 1], so that |S| is smooth on the scale of a finite difference; dq turns the phase by up to
    some radians over the box.
    """

    def problem(shape, physics, n=2, transport="shift", pixels=None):
        nz, ny, nx = shape
        pixels = {"shift": 1, "fourier": 0.83, "box": 0.83}[transport] if pixels is None else pixels

        def noise(*size):
            return rng.normal(size=size) + 1j * rng.normal(size=size)

        return SimpleNamespace(
            shape=shape,
            transport=transport,
            physics=physics | {"voxel": voxel_of(physics["two_theta"], pixels)},
            S=rng.uniform(0.5, 1, shape) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape)),
            s_0=rng.uniform(0, 1, shape),
            dq=rng.uniform(-2e7, 2e7, (n, 3)),
            incident=noise(ny, nx),
            adj_E_h=noise(n, ny, nx),
        )

    return problem


@pytest.fixture(scope="session")
def operator_of():
    """Maker of the operator of a problem; keywords override."""
    import pendel

    def operator_of(p, dtype="complex128", **change):
        return pendel.TakagiTaupin(**{"shape": p.shape, "transport": p.transport, "dtype": dtype} | p.physics | change)

    return operator_of


@pytest.fixture(scope="session")
def oracle_kwargs():
    """Maker of the oracle's keywords for a problem and its operator; the oracle takes the incident row padded."""

    def oracle_kwargs(p, op, s_0=None, incident=None):
        if incident is not None and p.transport == "shift":
            edge = op.row_length - incident.shape[1]
            incident = np.concatenate([np.repeat(incident[:, :1], edge, 1), incident], 1)
        elif incident is not None:
            incident = op.incident_row(incident)  # longer than the row of a plane wave: it has to join both edges
        return p.physics | {
            "transport": p.transport,
            "row_length": op.row_length if incident is None else incident.shape[1],
            "s_0": s_0,
            "incident": incident,
        }

    return oracle_kwargs
