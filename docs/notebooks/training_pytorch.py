# %% [markdown]
# # Training in PyTorch: a crystal of a few parameters, through the dynamical frames
#
# `pendel.torch.Frames` puts the frames of a model, and their exact adjoint, into a PyTorch loop: everything before
# it is PyTorch's. Here that is a small network, from a position in the crystal to the phase there, which Adam trains
# by the frames alone. What it cannot say is not in the crystal: smoothness needs no penalty.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pendel

try:
    import torch
except ImportError:
    print("skipped: this notebook needs PyTorch, pip install 'pendel[torch]'")
    sys.exit(0)

from pendel.experiment import rotation
from pendel.torch import Frames

torch.manual_seed(0)

# %% [markdown]
# ## A scan
#
# A gold cube of 0.8 um, whose phase two smooth bumps bend, in 16 frames of 16 x 16 pixels, made by the model that
# also fits them: this page shows the way, and not how far it is right.

# %%
edge, size, wavelength, pixel = 0.8e-6, 16, 1.5498e-10, 55e-6
experiment = pendel.Experiment(
    wavelength=wavelength,
    distance=1.9 * edge * pixel / wavelength,
    pixel_size=pixel,
    detector_shape=(size, size),
    arm=(("y+", np.deg2rad(44.76)),),
    rocking_angles=np.deg2rad(0.4 / 64) * (np.arange(size) - size // 2),
)
gold = pendel.Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j, name="Au", hkl=(0, 0, 2))
model = pendel.Model(experiment, gold, (size,) * 3, experiment.suggest_voxel(), polarization={"sigma": 1.0})
grid = model.shape, model.voxel
body = pendel.phantom.cube(*grid, edge, rotation((1, 1, 0.5), 0.6))
places, widths = edge * np.array([(0.3, 0.2, -0.25), (-0.1, 0.35, 0.2)]), edge * np.array([0.3, 0.25])
truth = pendel.phantom.crystal_function(body, pendel.phantom.bumps(*grid, places, widths, [1.2, 0.9]))
frames = model.intensities(truth)
data = np.random.default_rng(0).poisson(frames * (1e5 / frames.max())).astype(np.float32)

# %% [markdown]
# ## A network for the phase
#
# The shape of the crystal is taken as known; the network has 353 numbers for the phase of all its voxels.

# %%
amplitude = torch.tensor(np.abs(truth))
position = torch.tensor(
    np.stack(np.broadcast_arrays(*pendel.phantom.coordinates(*grid)), axis=-1) / edge, dtype=torch.float32
)
network = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Tanh())
network.append(torch.nn.Linear(16, 1))
print(sum(p.numel() for p in network.parameters()), "parameters")

simulate, measured = Frames(model), torch.tensor(data).sqrt()
scale = measured.norm() / simulate(amplitude.to(torch.complex64)).detach().sqrt().norm()
adam, misfits = torch.optim.Adam(network.parameters(), lr=0.02), []


def crystal():
    return torch.polar(amplitude, network(position).squeeze(-1))


# %% [markdown]
# ## Training
#
# Residuals are those of amplitudes, whose noise is the same everywhere.

# %%
for _ in range(150):
    adam.zero_grad()
    computed = (simulate(crystal()) + 1e-12).sqrt()  # a gradient where a pixel is dark
    misfit = ((scale * computed - measured) ** 2).sum() / (measured**2).sum()
    misfit.backward()
    adam.step()
    misfits.append(misfit.item())

found = crystal().detach().numpy()
told = pendel.compare(found, truth, model.voxel, translate=False)
print(f"misfit {misfits[0]:.3f} -> {misfits[-1]:.5f}")
assert misfits[-1] < 0.1 * misfits[0]

# %%
inside, middle, mean = told.inside, size // 2, np.angle(truth[told.inside].sum())
extent = [
    side * n * v * 1e9 / 2
    for n, v in zip((size, size), (model.voxel[2], model.voxel[0]), strict=True)
    for side in (-1, 1)
]
figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
maps = {"phase simulated": truth * np.exp(-1j * mean), "phase of the network": told.registered * np.exp(-1j * mean)}
for axis, (title, S) in zip(axes[:2], maps.items(), strict=True):
    shown = np.where(inside, np.angle(S), np.nan)[:, middle]
    image = axis.imshow(shown, origin="lower", extent=extent, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set(title=title, xlabel="x, nm", ylabel="z, nm")
figure.colorbar(image, ax=axes[:2], label="rad")
shown = np.where(inside, np.angle(told.registered * truth.conj()), np.nan)[:, middle]
image = axes[2].imshow(shown, origin="lower", extent=extent, cmap="RdBu_r", vmin=-0.2, vmax=0.2)
axes[2].set(title="less that simulated", xlabel="x, nm", ylabel="z, nm")
figure.colorbar(image, ax=axes[2], label="rad")
axes[3].semilogy(misfits)
axes[3].set(title="misfit of the frames", xlabel="step")
pictures = Path(globals().get("__file__", "here")).parent / "pictures"
pictures.mkdir(exist_ok=True)
figure.savefig(pictures / "training_pytorch.png", dpi=110)
