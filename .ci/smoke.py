"""Whether an installed wheel computes: a gradient against a difference quotient, a few epochs, the command line.

Run by `.ci/release` in an environment that has nothing but the wheel and what it depends on.
"""

import platform
from pathlib import Path

import numpy as np
import pendel
from pendel.app.cli import main

two_theta, dx = np.deg2rad(44.76), 8e-9
voxel = dx / np.tan(two_theta), dx, dx
gold = {"chi_0": -9.407e-5 + 8.496e-6j, "chi_h": 5.2548e-5 - 5.9889e-6j}
rng = np.random.default_rng(0)

op = pendel.TakagiTaupin((12, 4, 20), voxel, 1.5498e-10, two_theta, **gold, dtype="complex128")
S = rng.uniform(0.5, 1, op.shape) * np.exp(1j * rng.normal(size=op.shape))
turn = rng.normal(size=op.shape) + 1j * rng.normal(size=op.shape)
dq = np.zeros((7, 3))
dq[:, 2] = np.linspace(-3e7, 3e7, 7)
E_h, state = op.forward(S, dq, return_state=True)
adjoint = op.adjoint(S, dq, 2 * E_h, state=state).S  # of sum |E_h|^2
step = 1e-5
lights = [np.sum(np.abs(op.forward(S + s * turn, dq)) ** 2) for s in (step, -step)]
quotient, slope = (lights[0] - lights[1]) / (2 * step), np.sum((adjoint.conj() * turn).real)
assert abs(quotient - slope) < 1e-7 * abs(slope), (quotient, slope)  # step^2 and rounding / step

config = pendel.config.loads("""
[experiment]
energy_keV = 8.0
distance_mm = 500.0
pixel_um = 55.0
arm = [["y+", 44.76]]
rocking_axis = "y+"
rocking_step_deg = 0.02
rocking_frames = 16
detector_shape = [16, 16]

[crystal]
material = "Au"
hkl = [0, 0, 2]

[model]
voxel_nm = "data"

[simulate]
size_nm = 300.0
photons = 1e6
""")
model = pendel.simulate.model_of(config)
data, mask, *_ = pendel.simulate.simulated(config, model)
start = pendel.kinematic_start(model, data, mask, progress=False)
result = pendel.reconstruct(model, data, mask, start.S, start.support, epochs=5, progress=False)
assert result.history["misfit"][-1] < result.history["misfit"][0]

assert main(["info"]) == 0
features = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
if "x86" in platform.machine() and " avx2" in features and " fma" in features:
    assert pendel.info()["cpu instruction set"] in ("avx2", "avx512")
print(f"gradient within {abs(quotient / slope - 1):.1e} of the quotient, misfit {result.history['misfit'][-1]:.4f}")
